//! Endpoints that answer well, badly, by TLS or from where nobody may reach.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use super::*;
use crate::clock::{SystemClock, SystemEntropy};
use crate::ids::Tenant;
use crate::store::{SqliteStore, StoreConfig};

/// A notifier on a database of its own.
struct House {
    notifier: Notifier,
    _dir: tempfile::TempDir,
}

impl House {
    async fn with(cfg: NotifyConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&StoreConfig { path: dir.path().join("v.db"), ..StoreConfig::default() }).await.unwrap();
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let vault = Vault::from_master(&[7; 32], Arc::clone(&entropy));
        Self { notifier: Notifier::new(Arc::new(store), vault, Arc::new(SystemClock), entropy, cfg), _dir: dir }
    }

    /// Whether a message arrives there: the status, or what went wrong.
    async fn tried(&self, url: &str) -> Result<u16, String> {
        let (endpoint, _secret) =
            self.notifier.add_endpoint(&Tenant::default(), url, vec!["*".into()], "test").await.map_err(|e| e.to_string())?;
        self.notifier.try_endpoint(&endpoint.id).await.unwrap()
    }
}

fn near() -> NotifyConfig {
    NotifyConfig { private_networks: true, timeout_ms: 3_000, ..NotifyConfig::default() }
}

/// Answers every connection with these bytes.
async fn answering(bind: &str, answer: Vec<u8>) -> u16 {
    let socket = TcpListener::bind(bind).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let _read = stream.read(&mut [0_u8; 4096]).await;
                let _gone = stream.write_all(&answer).await;
                let _gone = stream.shutdown().await;
            });
        }
    });
    port
}

const FINE: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn fresh() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "An authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// An endpoint by https, for this name.
    async fn endpoint(&self, name: &str) -> u16 {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _read = stream.read(&mut [0_u8; 4096]).await;
                    let _gone = stream.write_all(FINE).await;
                    let _gone = stream.shutdown().await;
                }
            }
        });
        port
    }
}

async fn believing(roots: &Path) -> House {
    House::with(NotifyConfig { roots_file: roots.to_owned(), ..near() }).await
}

#[tokio::test]
async fn only_endpoints_that_an_authority_of_the_roots_file_vouches_for_are_reached() {
    let (known, unknown) = (Authority::fresh(), Authority::fresh());
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), &known.pem).unwrap();
    let house = believing(roots.path()).await;
    let url = |port: u16| format!("https://localhost:{port}/hooks");
    assert_eq!(house.tried(&url(known.endpoint("localhost").await)).await, Ok(204));
    for port in [unknown.endpoint("localhost").await, known.endpoint("elsewhere").await] {
        let why = house.tried(&url(port)).await.unwrap_err();
        assert!(why.contains("certificate"), "{why}");
    }
}

#[tokio::test]
async fn a_roots_file_that_is_missing_or_empty_is_named_with_its_key() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    for roots in [Path::new("/nowhere/roots.pem"), empty.path()] {
        let house = believing(roots).await;
        let why = house.tried("https://localhost:1/hooks").await.unwrap_err();
        assert!(why.starts_with("notify.roots_file: ") && why.contains(&roots.display().to_string()), "{why}");
        // Plain HTTP to this machine needs none.
        let port = answering("127.0.0.1:0", FINE.to_vec()).await;
        assert_eq!(house.tried(&format!("http://127.0.0.1:{port}/")).await, Ok(204));
    }
}

#[tokio::test]
async fn only_the_status_of_an_answer_counts() {
    let house = House::with(near()).await;
    let long = [b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n".as_slice(), &vec![b'x'; 3_000_000]].concat();
    let endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec();
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello".to_vec();
    let refused_at_length = [b"HTTP/1.1 500 No\r\nContent-Length: 3000000\r\n\r\n".as_slice(), &vec![b'x'; 3_000_000]].concat();
    // A redirect is not followed, wherever it leads.
    let inside = answering("127.0.0.1:0", FINE.to_vec()).await;
    let redirect = format!("HTTP/1.1 307 Over there\r\nLocation: http://127.0.0.1:{inside}/\r\nContent-Length: 0\r\n\r\n");
    for (answer, status) in
        [(FINE.to_vec(), 204), (long, 200), (endless, 200), (cut, 200), (refused_at_length, 500), (redirect.into_bytes(), 307)]
    {
        let port = answering("127.0.0.1:0", answer).await;
        assert_eq!(house.tried(&format!("http://127.0.0.1:{port}/")).await, Ok(status));
    }
    // A head without an end is no answer.
    let head = [b"HTTP/1.1 200 OK\r\nX-Long: ".as_slice(), &vec![b'x'; 200_000]].concat();
    for nothing in [head, b"SSH-2.0-OpenSSH_9.7\r\n".to_vec(), Vec::new()] {
        let port = answering("127.0.0.1:0", nothing).await;
        let why = house.tried(&format!("http://127.0.0.1:{port}/")).await.unwrap_err();
        assert!(why.contains("the connection broke"), "{why}");
    }
}

#[tokio::test]
async fn addresses_in_brackets_are_reached_and_names_and_passwords_refused() {
    let house = House::with(near()).await;
    let port = answering("[::1]:0", FINE.to_vec()).await;
    assert_eq!(house.tried(&format!("http://[::1]:{port}/hooks?a=b")).await, Ok(204));
    for (url, word) in [
        ("https://me:word@shop.example/", "must not hold a name or password"),
        ("https://me@shop.example/", "must not hold a name or password"),
        ("http://[2001:db8::1]/", "only go to others over https"),
        ("http://shop.example/", "only go to others over https"),
        ("https://[::1", "is no URL"),
    ] {
        let why = house.tried(url).await.unwrap_err();
        assert!(why.contains(word), "{url}: {why}");
    }
}

#[tokio::test]
async fn networks_that_are_not_public_are_refused_by_address_and_by_what_a_name_stands_for() {
    let house = House::with(NotifyConfig { private_networks: false, ..near() }).await;
    for url in ["http://127.0.0.1:1/", "http://localhost:1/", "https://[fe80::1]/", "https://10.1.2.3/", "https://a.localhost/"] {
        let why = house.tried(url).await.unwrap_err();
        assert!(why.contains("notify.private_networks"), "{url}: {why}");
    }
    // An address as nobody writes it, which the resolver takes for this machine.
    let port = answering("127.0.0.1:0", FINE.to_vec()).await;
    let why = house.tried(&format!("https://2130706433:{port}/")).await.unwrap_err();
    assert!(why.contains("not public") || why.contains("no connection") || why.contains("no host"), "{why}");
    // One that was let in while such were allowed.
    let before = House::with(near()).await;
    let (endpoint, _) = before
        .notifier
        .add_endpoint(&Tenant::default(), &format!("http://127.0.0.1:{port}/"), vec!["*".into()], "test")
        .await
        .unwrap();
    assert_eq!(before.notifier.try_endpoint(&endpoint.id).await.unwrap(), Ok(204));
    let inner = &before.notifier.inner;
    let cfg = NotifyConfig { private_networks: false, ..near() };
    let after =
        Notifier::new(Arc::clone(&inner.store), inner.vault.clone(), Arc::clone(&inner.clock), Arc::clone(&inner.entropy), cfg);
    assert!(after.try_endpoint(&endpoint.id).await.unwrap().unwrap_err().contains("not public"));
}
