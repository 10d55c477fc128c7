//! The event stream of a call that is up: what happens comes as it happens, ends with the call, and is for its tenant alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use voicepay::api::{ApiConfig, Live, Parts, Scope};
use voicepay::call::registry::{LiveCall, Registry};
use voicepay::call::timeline::{Timeline, WATCH_QUEUE_EVENTS, Watched, Who};
use voicepay::clock::{Clock, SystemClock, SystemEntropy};
use voicepay::ids::{CallId, CustomerId};

use super::support::{Reply, Shop, parse};

/// A stream is over by then, whatever happens.
const PATIENCE: Duration = Duration::from_secs(20);

/// The API of a process that takes calls.
struct Switchboard {
    shop: Shop,
    address: SocketAddr,
    registry: Registry,
    watchers: broadcast::Sender<Watched>,
    stop: CancellationToken,
}

impl Switchboard {
    async fn open() -> Self {
        let shop = Shop::open().await;
        let office = shop.service.office();
        let (registry, watchers) = (Registry::new(10), broadcast::channel(WATCH_QUEUE_EVENTS).0);
        let parts = Parts {
            store: Arc::clone(&office.store),
            vault: office.vault.clone(),
            processor: office.processor.clone(),
            agreements: office.agreements.clone(),
            notifier: office.notifier.clone(),
            retention: voicepay::rights::RetentionConfig::default(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            live: Some(Live { registry: registry.clone(), watchers: watchers.clone() }),
            enroller: None,
            app: voicepay::app_sessions::AppConfig::default(),
            app_calls: None,
        };
        let (config, stop) = (ApiConfig { max_streams: 2, ..ApiConfig::default() }, CancellationToken::new());
        let listen = "127.0.0.1:0".parse().unwrap();
        let address = voicepay::api::serve(&config, listen, parts, stop.clone()).await.unwrap();
        Self { shop, address, registry, watchers, stop }
    }

    /// A call of this customer, which is up as long as the first is kept.
    fn call(&self, customer: &str) -> (voicepay::call::registry::Entry, CallId, Timeline) {
        let id = CallId::fresh(&SystemEntropy);
        let up = LiveCall { since: SystemClock.now(), peer: "192.0.2.1".into(), customer: None };
        let entry = self.registry.enter(id.clone(), up).unwrap();
        self.registry.nominate(&id, &CustomerId::parse(customer).unwrap());
        let timeline = Timeline::start(id.clone(), self.watchers.clone());
        (entry, id, timeline)
    }

    async fn ask(&self, key: &str, call: &str, more: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "GET /v1/calls/{call}/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n{more}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    async fn refused(&self, key: &str, call: &str, more: &str) -> Reply {
        let (mut stream, mut all) = (self.ask(key, call, more).await, Vec::new());
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("it is answered").unwrap();
        parse(&all)
    }

    /// A stream that has begun.
    async fn follow(&self, call: &CallId, more: &str) -> Stream {
        let mut stream = Stream { socket: self.ask(&self.shop.key, call.as_str(), more).await, read: String::new() };
        stream.until(": following").await;
        assert!(stream.read.starts_with("HTTP/1.1 200") && stream.read.contains("text/event-stream"), "{}", stream.read);
        stream
    }
}

struct Stream {
    socket: TcpStream,
    read: String,
}

impl Stream {
    async fn until(&mut self, text: &str) {
        let mut some = [0; 4_096];
        while !self.read.contains(text) {
            let n = tokio::time::timeout(PATIENCE, self.socket.read(&mut some)).await.expect(text).unwrap();
            assert!(n > 0, "it ended before {text}: {}", self.read);
            self.read.push_str(&String::from_utf8_lossy(&some[..n]));
        }
    }

    /// All of it, to its end.
    async fn rest(mut self) -> String {
        let mut all = Vec::new();
        tokio::time::timeout(PATIENCE, self.socket.read_to_end(&mut all)).await.expect("it ends").unwrap();
        self.read + &String::from_utf8_lossy(&all)
    }
}

/// What was told: kind, number, data.
fn events(text: &str) -> Vec<(String, Option<u64>, Value)> {
    let blocks = text.split("\n\n").filter(|b| b.contains("event: "));
    let field = |block: &str, name: &str| block.lines().find_map(|l| l.strip_prefix(name).map(str::to_owned));
    let read = |block: &str| {
        let number = field(block, "id: ").map(|n| n.parse().unwrap());
        (field(block, "event: ").unwrap(), number, serde_json::from_str(&field(block, "data: ").unwrap()).unwrap())
    };
    blocks.map(read).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_in_a_call_comes_as_it_happens_and_ends_with_it() {
    let board = Switchboard::open().await;
    let request = board.shop.request().await;
    let customer = request["customer"].as_str().unwrap();
    let (entry, id, mut timeline) = board.call(customer);
    timeline.add(Who::Service, "welcome");
    let mut stream = board.follow(&id, "").await;
    timeline.add(Who::Caller, "my voice is my password");
    stream.until("my voice is my password").await;
    // Other calls have something to tell all the time, and it is not told here.
    let (other, _, mut others) = board.call(customer);
    let chatter = tokio::spawn(async move {
        loop {
            others.add(Who::Service, "another call");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    timeline.add(Who::Check, "verdict: accepted");
    drop(entry);
    let all = stream.rest().await;
    chatter.abort();
    drop(other);
    let told = events(&all);
    let kinds: Vec<_> = told.iter().map(|(kind, number, _)| (kind.as_str(), *number)).collect();
    assert_eq!(kinds, [("event", Some(2)), ("event", Some(3)), ("over", None)], "{all}");
    assert_eq!((&told[0].2["who"], &told[1].2["what"]), (&json!("caller"), &json!("verdict: accepted")));
    assert!(!all.contains("another call"));
    board.refused(&board.shop.key, id.as_str(), "").await.refused(404, "not-found");
    board.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_back_hears_how_much_was_missed() {
    let board = Switchboard::open().await;
    let request = board.shop.request().await;
    let (entry, id, mut timeline) = board.call(request["customer"].as_str().unwrap());
    let mut first = board.follow(&id, "").await;
    timeline.add(Who::Service, "one");
    first.until("\"one\"").await;
    drop(first);
    timeline.add(Who::Service, "two");
    timeline.add(Who::Service, "three");
    let mut again = board.follow(&id, "Last-Event-ID: 1\r\n").await;
    timeline.add(Who::Service, "four");
    again.until("\"four\"").await;
    let told = events(&again.read);
    assert_eq!((told[0].0.as_str(), &told[0].2), ("missed", &json!({ "events": 2 })));
    assert_eq!((told[1].1, &told[1].2["what"]), (Some(4), &json!("four")));
    for wrong in ["x", "-1", "1234567890123456", "1\r\nLast-Event-ID: 2"] {
        let told = board.refused(&board.shop.key, id.as_str(), &format!("Last-Event-ID: {wrong}\r\n")).await;
        told.refused(400, "invalid");
    }
    // A service that stops ends its streams.
    board.stop.cancel();
    again.rest().await;
    drop(entry);
    board.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_for_its_tenant_and_places_are_few() {
    let board = Switchboard::open().await;
    let request = board.shop.request().await;
    let (_entry, id, _timeline) = board.call(request["customer"].as_str().unwrap());
    let stranger = board.shop.key_for("bank", &Scope::ALL, None).await;
    board.refused(&stranger, id.as_str(), "").await.refused(404, "not-found");
    let narrow = board.shop.key_for("default", &[Scope::PaymentsRead], None).await;
    board.refused(&narrow, id.as_str(), "").await.refused(403, "scope");
    for wrong in ["call_0", "int_0", "%2e%2e"] {
        board.refused(&board.shop.key, wrong, "").await.refused(404, "not-found");
    }
    // Of a call in which nobody is known yet there is nothing to tell.
    let unknown = CallId::fresh(&SystemEntropy);
    let up = LiveCall { since: SystemClock.now(), peer: "192.0.2.1".into(), customer: None };
    let _place = board.registry.enter(unknown.clone(), up).unwrap();
    board.refused(&board.shop.key, unknown.as_str(), "").await.refused(404, "not-found");
    let (one, _two) = (board.follow(&id, "").await, board.follow(&id, "").await);
    let told = board.refused(&board.shop.key, id.as_str(), "").await.refused(503, "unavailable");
    assert_eq!(told.headers["retry-after"], "5");
    drop(one);
    // A place is given back once its stream can't be written to any more.
    for _ in 0..40 {
        let mut stream = Stream { socket: board.ask(&board.shop.key, id.as_str(), "").await, read: String::new() };
        stream.until("\r\n\r\n").await;
        if stream.read.starts_with("HTTP/1.1 200") {
            board.shop.service.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("the place was not given back");
}
