//! The listener over real sockets: what is taken, what is refused, and with which words.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::clock::{ManualClock, Timestamp};

const SECONDS: i64 = 1_700_000_000;
const SECRET: &str = "whsec_test_0123456789";

async fn start() -> (Listening, CancellationToken) {
    let cfg = StripeConfig { webhook_listen: "127.0.0.1:0".parse().unwrap(), ..StripeConfig::default() };
    let clock = Arc::new(ManualClock::starting_at(Timestamp(SECONDS * 1000)));
    let stop = CancellationToken::new();
    let env = |_: &str| Some(format!("whsec_older_0123456789,{SECRET}"));
    (listen(&cfg, env, clock, stop.clone()).await.unwrap().unwrap(), stop)
}

fn event(id: &str) -> String {
    let object = serde_json::json!({ "id": "pi_1", "status": "succeeded", "amount": 5, "amount_received": 5, "currency": "usd",
        "metadata": { "our_reference": "att_1" } });
    serde_json::json!({ "id": id, "type": "payment_intent.succeeded", "data": { "object": object } }).to_string()
}

async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _refused_early = stream.write_all(bytes).await;
    let mut text = Vec::new();
    let _reset = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

async fn send(address: SocketAddr, body: &str, signature: &str) -> String {
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    let signature = if signature.is_empty() { String::new() } else { format!("Stripe-Signature: {signature}\r\n") };
    raw(address, format!("{head}{signature}\r\n{body}").as_bytes()).await
}

fn signed(body: &str) -> String {
    signature::sign(SECRET.as_bytes(), SECONDS, body.as_bytes())
}

#[tokio::test]
async fn an_event_is_taken_once_and_only_when_the_processor_has_it() {
    let (mut listening, stop) = start().await;
    let address = listening.address;
    let body = event("evt_1");
    let waits = tokio::spawn({
        let body = body.clone();
        async move { send(address, &body, &signed(&body)).await }
    });
    let delivery = listening.news.recv().await.unwrap();
    assert!(matches!(&delivery.news, News::Operation { our_reference, .. } if our_reference == "att_1"));
    assert!(!waits.is_finished(), "no 200 before it is taken");
    delivery.taken.send(false).unwrap();
    assert!(waits.await.unwrap().starts_with("HTTP/1.1 503"), "not taken: Stripe shall send it again");
    let waits = tokio::spawn({
        let body = body.clone();
        async move { send(address, &body, &signed(&body)).await }
    });
    listening.news.recv().await.unwrap().taken.send(true).unwrap();
    assert!(waits.await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(send(address, &body, &signed(&body)).await.starts_with("HTTP/1.1 200"), "again");
    assert!(listening.news.try_recv().is_err(), "but not handed on again");
    let unknown = r#"{"id":"evt_2","type":"brand.new","data":{"object":null}}"#;
    assert!(send(address, unknown, &signed(unknown)).await.starts_with("HTTP/1.1 200"));
    assert!(listening.news.try_recv().is_err());
    drop(listening.news);
    let body = event("evt_3");
    assert!(send(address, &body, &signed(&body)).await.starts_with("HTTP/1.1 503"), "the processor has stopped");
    stop.cancel();
}

#[tokio::test]
async fn what_is_forged_stale_or_no_event_is_refused_in_words() {
    let (mut listening, _stop) = start().await;
    let address = listening.address;
    let body = event("evt_1");
    let sign = |at: i64, body: &str| signature::sign(SECRET.as_bytes(), at, body.as_bytes());
    let no_event = "{}";
    for (text, header, word) in [
        (body.as_str(), String::new(), "missing"),
        (&body, "t=1,v1=00".into(), "no signature"),
        (&body, signature::sign(b"another secret", SECONDS, body.as_bytes()), "no signature"),
        (&body, sign(SECONDS - 301, &body), "older"),
        (&body, sign(SECONDS + 301, &body), "future"),
        (no_event, sign(SECONDS, no_event), "no event"),
    ] {
        let answer = send(address, text, &header).await;
        let fits = answer.starts_with("HTTP/1.1 400") && answer.contains("application/problem+json") && answer.contains(word);
        assert!(fits, "{word}: {answer}");
    }
    let twice = format!("{}\r\nStripe-Signature: t=1,v1=00", signed(&body));
    assert!(send(address, &body, &twice).await.starts_with("HTTP/1.1 400"));
    let older = signature::sign(b"whsec_older_0123456789", SECONDS, b"{}");
    assert!(send(address, "{}", &older).await.contains("no event"), "an older secret is still good");
    let long = "x".repeat(BODY_LIMIT_BYTES + 1);
    assert!(send(address, &long, &signed(&long)).await.starts_with("HTTP/1.1 413"));
    assert!(
        raw(address, format!("GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .starts_with("HTTP/1.1 405")
    );
    assert!(listening.news.try_recv().is_err());
}

#[tokio::test]
async fn a_full_queue_asks_to_be_told_again() {
    let (listening, _stop) = start().await;
    let address = listening.address;
    const TOO_MANY: usize = 3;
    let mut all = tokio::task::JoinSet::new();
    for i in 0..NEWS_QUEUE + TOO_MANY {
        let body = event(&format!("evt_{i}"));
        all.spawn(async move {
            let head = format!(
                "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nStripe-Signature: {}\r\n\r\n{body}",
                body.len(),
                signed(&body)
            );
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut part = [0u8; 64];
            let n = tokio::time::timeout(Duration::from_millis(400), stream.read(&mut part)).await;
            n.ok().and_then(Result::ok).map(|n| String::from_utf8_lossy(&part[..n]).into_owned())
        });
    }
    let said: Vec<_> = all.join_all().await.into_iter().flatten().collect();
    assert_eq!(said.len(), TOO_MANY, "those in the queue wait for the processor, the others are told at once");
    assert!(said.iter().all(|s| s.starts_with("HTTP/1.1 503")), "{said:?}");
}

#[tokio::test]
async fn without_secrets_nothing_is_heard_and_the_memory_of_events_is_bounded() {
    let clock = Arc::new(ManualClock::default());
    let none = listen(&StripeConfig::default(), |_| None, clock, CancellationToken::new()).await.unwrap();
    assert!(none.is_none());
    let mut seen = Seen::default();
    for i in 0..REMEMBERED_EVENTS + 5 {
        seen.remember(format!("evt_{i}"));
        seen.remember(format!("evt_{i}"));
    }
    assert_eq!((seen.ids.len(), seen.order.len()), (REMEMBERED_EVENTS, REMEMBERED_EVENTS));
    assert!(!seen.ids.contains("evt_4") && seen.ids.contains("evt_5"));
}
