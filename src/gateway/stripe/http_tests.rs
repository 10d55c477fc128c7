//! The HTTP client against a host that misbehaves, and against TLS that can't be trusted.

use std::io::Write;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;

use super::super::stub::{Do, Stub};
use super::*;
use crate::gateway::http::ANSWER_LIMIT_BYTES;

fn config(url: &str) -> StripeConfig {
    StripeConfig { url: url.into(), timeout_ms: 300, ..StripeConfig::default() }
}

fn open(url: &str) -> Result<Http, StripeError> {
    Http::open(&config(url), &SecretBytes::new(b"sk_test_1".to_vec()))
}

#[tokio::test]
async fn a_request_carries_what_stripe_wants_and_the_key_does_not_print() {
    let stub = Stub::start(vec![Do::Say(200, "{}".into()), Do::Say(200, "{}".into())]).await;
    let http = open(&stub.url).unwrap();
    let answer = http.post("/v1/refunds", Form::new().with(&["a"], "b"), "key-1").await.unwrap();
    assert_eq!((answer.status, answer.request_id.as_str(), answer.body.as_ref()), (StatusCode::OK, "req_1", b"{}".as_slice()));
    let _answer = http.get("/v1/refunds", &Form::new().with(&["limit"], "1")).await.unwrap();
    let [post, get] = stub.asked().try_into().unwrap();
    assert_eq!((post.line.as_str(), post.body.as_str()), ("POST /v1/refunds", "a=b"));
    assert_eq!(post.header("idempotency-key").unwrap(), "key-1");
    assert_eq!(post.header("authorization").unwrap(), "Bearer sk_test_1");
    assert_eq!(post.header("stripe-version").unwrap(), API_VERSION);
    assert_eq!(format!("http://{}", post.header("host").unwrap()), stub.url);
    assert_eq!((get.line.as_str(), get.header("idempotency-key")), ("GET /v1/refunds?limit=1", None));
    assert!(!format!("{http:?} {:?}", http.bearer).contains("sk_test"));
}

#[tokio::test]
async fn what_is_no_answer_is_none() {
    let long =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", ANSWER_LIMIT_BYTES + 1, "x".repeat(ANSWER_LIMIT_BYTES + 1));
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"id\":".to_vec();
    let endless_head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let script = vec![
        Do::Sleep,
        Do::Hang,
        Do::Raw(long.into_bytes()),
        Do::Raw(cut),
        Do::Raw(b"SSH-2.0\r\n".to_vec()),
        Do::Raw(endless_head.into_bytes()),
    ];
    let stub = Stub::start(script).await;
    let http = open(&stub.url).unwrap();
    let mut kinds = Vec::new();
    for _ in 0..6 {
        kinds.push(match http.get("/v1/balance", &Form::new()).await {
            Err(NoAnswer::TimedOut(_)) => "timed out",
            Err(NoAnswer::Broken(_)) => "broken",
            Err(NoAnswer::Body) => "body",
            Err(other) => panic!("{other}"),
            Ok(answer) => panic!("{}", answer.status),
        });
    }
    assert_eq!(kinds, ["timed out", "broken", "body", "body", "broken", "broken"]);
    let nobody = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", socket.local_addr().unwrap())
    };
    assert!(matches!(open(&nobody).unwrap().get("/", &Form::new()).await, Err(NoAnswer::Connect(_))));
}

#[test]
fn card_numbers_go_over_tls_or_not_at_all() {
    for (url, word) in [
        ("http://api.stripe.com", "only go to others over https"),
        ("http://127.0.0.1.example.com", "only go to others over https"),
        ("http://10.0.0.1:80", "only go to others over https"),
        ("ftp://127.0.0.1", "must begin with https://"),
        ("127.0.0.1", "must begin with https://"),
        ("https://sk_live_x@api.stripe.com", "must not hold a name or password"),
        ("https://api.stripe.com/v1", "scheme and a host alone"),
        ("https://", "is no URL"),
    ] {
        let error = open(url).unwrap_err().to_string();
        assert!(error.starts_with("gateway.stripe.url: ") && error.contains(word), "{error}");
    }
    for url in
        ["http://127.0.0.1:1", "http://localhost:1/", "http://[::1]:1", "https://api.stripe.com", "https://api.stripe.com/"]
    {
        open(url).unwrap();
        assert_eq!(target(url).unwrap().tls, url.starts_with("https"), "{url}");
    }
    let missing = StripeConfig { roots_file: "/nowhere".into(), ..StripeConfig::default() };
    let error = Http::open(&missing, &SecretBytes::new(b"sk_x".to_vec())).unwrap_err().to_string();
    assert!(error.contains("gateway.stripe.roots_file") && error.contains("/nowhere"), "{error}");
}

#[tokio::test]
async fn only_a_certificate_of_a_known_authority_for_this_name_is_believed() {
    let authority = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (good, other) = (authority("localhost"), authority("elsewhere"));
    let mut roots = tempfile::NamedTempFile::new().unwrap();
    roots.write_all((good.cert.pem() + &other.cert.pem()).as_bytes()).unwrap();
    let stranger = authority("localhost");
    for (shown, believed) in [(&good, true), (&other, false), (&stranger, false)] {
        let key = rustls_pki_types::PrivateKeyDer::try_from(shown.signing_key.serialize_der()).unwrap();
        let tls = tokio_rustls::rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![shown.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", socket.local_addr().unwrap().port());
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (stream, _) = socket.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut part = [0u8; 4096];
                let _read = stream.read(&mut part).await;
                let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
                let _gone = stream.shutdown().await;
            }
        });
        let cfg = StripeConfig { roots_file: roots.path().to_owned(), timeout_ms: 3_000, ..config(&url) };
        let http = Http::open(&cfg, &SecretBytes::new(b"sk_x".to_vec())).unwrap();
        let answer = http.get("/", &Form::new()).await;
        assert_eq!(answer.is_ok(), believed, "{:?}", answer.err().map(|e| e.to_string()));
    }
}
