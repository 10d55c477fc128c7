//! Events of many payments, told by two nodes to a receiver that fails three times in ten: none is lost, none overtakes another of its payment, and
//! what comes twice has the same identifier. An endpoint that answers nothing does not slow the other.
//!
//! `VOICEPAY_TEST_WEBHOOKS=10000` takes so many events; docs/WEBHOOKS.md holds the result.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use voicepay::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use voicepay::ids::{EndpointId, OutboxId, RequestId, Tenant};
use voicepay::notify::{Notifier, NotifyConfig};
use voicepay::secret::SecretBytes;
use voicepay::signed::sign_shared;
use voicepay::store::{DatabaseUrl, DeliveryState, OutboxRecord, PgStore, Replay, Store, StoreConfig};
use voicepay::vault::Vault;

use super::people;
use super::support::{lab, sqlite};

const EVENTS_ENV: &str = "VOICEPAY_TEST_WEBHOOKS";
const EVENTS: usize = 600;
/// Events of one payment.
const EACH: usize = 5;
/// Rows that are written to the outbox in one transaction.
const AT_A_TIME: usize = 100;
const PATIENCE: Duration = Duration::from_secs(600);

fn config() -> NotifyConfig {
    NotifyConfig {
        poll_ms: 50,
        timeout_ms: 400,
        at_once: 96,
        at_once_per_endpoint: 64,
        retry_first_ms: 20,
        retry_most_ms: 200,
        max_tries: 100,
        private_networks: true,
        ..NotifyConfig::default()
    }
}

/// What the receiver knows.
#[derive(Default)]
struct Heard {
    secret: Option<SecretBytes>,
    requests: usize,
    /// By payment: the number of the last event that was taken, and how many were.
    payments: HashMap<String, u64>,
    /// By message: which payment's, and which number.
    messages: HashMap<String, (String, u64)>,
    failed: [usize; 4],
    again: usize,
    /// Of these, after a later one.
    late: usize,
    wrong: Vec<String>,
}

/// What the receiver does with a request.
#[derive(Clone, Copy)]
enum Fate {
    Takes,
    Refuses,
    Drops,
    HangsUp,
    TakesAndSaysNothing,
}

impl Heard {
    /// Three in ten fail, in four ways, each as often.
    fn fate(&mut self) -> Fate {
        self.requests += 1;
        // A number that has nothing to do with the one before (Knuth's multiplicative hash).
        let drawn = (self.requests as u64).wrapping_mul(2_654_435_761) % 1_000;
        let (which, fate) = match drawn {
            0..75 => (0, Fate::Refuses),
            75..150 => (1, Fate::Drops),
            150..225 => (2, Fate::HangsUp),
            225..300 => (3, Fate::TakesAndSaysNothing),
            _ => return Fate::Takes,
        };
        self.failed[which] += 1;
        fate
    }

    fn hears(&mut self, headers: &HashMap<String, String>, body: &[u8]) -> Fate {
        let fate = self.fate();
        let (id, at) = (headers["webhook-id"].clone(), headers["webhook-timestamp"].parse().unwrap());
        let ours = sign_shared(self.secret.as_ref().unwrap(), &id, at, body).unwrap();
        if headers["webhook-signature"] != ours {
            self.wrong.push(format!("{id} is signed wrongly"));
        }
        let message: Value = serde_json::from_slice(body).unwrap();
        let (payment, n) = (message["data"]["request"].as_str().unwrap().to_owned(), message["data"]["n"].as_u64().unwrap());
        let known = self.messages.entry(id.clone()).or_insert_with(|| (payment.clone(), n));
        if *known != (payment.clone(), n) {
            self.wrong.push(format!("{id} is of two events"));
        }
        let last = self.payments.entry(payment.clone()).or_insert(0);
        // Even what is refused must not come before its turn.
        if n > *last + 1 {
            self.wrong.push(format!("{payment}: {n} came after {last}"));
        }
        // One that we gave up waiting for may be read late, on a machine that is busy: it is known by its identifier.
        self.late += usize::from(n < *last);
        if matches!(fate, Fate::Takes | Fate::TakesAndSaysNothing) {
            self.again += usize::from(n <= *last);
            *last = n.max(*last);
        }
        fate
    }
}

/// One request: its headers and its body.
async fn read(stream: &mut TcpStream) -> Option<(HashMap<String, String>, Vec<u8>)> {
    let (mut all, mut part) = (Vec::new(), [0_u8; 4096]);
    let head = loop {
        if let Some(at) = all.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut part).await.ok()? {
            0 => return None,
            n => all.extend_from_slice(&part[..n]),
        }
    };
    let text = String::from_utf8(all[..head].to_vec()).unwrap();
    let headers: HashMap<_, _> =
        text.lines().skip(1).filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect();
    let length: usize = headers["content-length"].parse().unwrap();
    while all.len() < head + length {
        match stream.read(&mut part).await.ok()? {
            0 => return None,
            n => all.extend_from_slice(&part[..n]),
        }
    }
    Some((headers, all.split_off(head)))
}

async fn receiver(heard: Arc<Mutex<Heard>>) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            let heard = Arc::clone(&heard);
            tokio::spawn(async move {
                let Some((headers, body)) = read(&mut stream).await else { return };
                let fate = heard.lock().unwrap().hears(&headers, &body);
                match fate {
                    Fate::Takes => drop(stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await),
                    Fate::Refuses => {
                        drop(stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await);
                    }
                    Fate::Drops | Fate::TakesAndSaysNothing => {}
                    Fate::HangsUp => tokio::time::sleep(Duration::from_secs(2)).await,
                }
            });
        }
    });
    address
}

/// An endpoint that takes connections and never says anything.
async fn silent() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            kept.push(socket.accept().await.unwrap());
        }
    });
    address
}

/// Two nodes, and what they tell.
struct House {
    stores: Vec<Arc<dyn Store>>,
    nodes: Vec<Notifier>,
    stop: CancellationToken,
    running: Vec<tokio::task::JoinHandle<()>>,
    payee: String,
    /// How many events there were.
    events: usize,
}

impl House {
    async fn of(stores: Vec<Arc<dyn Store>>) -> Self {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let payee = people::payee(&*entropy, SystemClock.now());
        stores[0].add_payee(&payee, &people::audit_row(&*entropy, SystemClock.now())).await.unwrap();
        let vault = Vault::from_master(&[7; 32], Arc::clone(&entropy));
        let node = |store: &Arc<dyn Store>| {
            Notifier::new(Arc::clone(store), vault.clone(), Arc::new(SystemClock), Arc::clone(&entropy), config())
        };
        let nodes = stores.iter().map(node).collect();
        Self { stores, nodes, stop: CancellationToken::new(), running: Vec::new(), payee: payee.id.to_string(), events: 0 }
    }

    fn run(&mut self) {
        self.running = self.nodes.iter().map(|n| tokio::spawn(n.clone().run(self.stop.clone()))).collect();
    }

    async fn endpoint(&self, address: SocketAddr) -> (EndpointId, SecretBytes) {
        let topics = vec!["payment.*".to_owned()];
        let (tenant, url) = (Tenant::default(), format!("http://{address}/hooks"));
        let (endpoint, shown) = self.nodes[0].add_endpoint(&tenant, &url, topics, "test").await.unwrap();
        let secret = base64::engine::general_purpose::STANDARD.decode(shown.0.strip_prefix("whsec_").unwrap()).unwrap();
        (endpoint.id, SecretBytes::new(secret))
    }

    /// Events of as many payments as they come from, one of each payment after the other. Gives the payments.
    async fn happen(&mut self, events: usize) -> Vec<RequestId> {
        let payments: Vec<_> = (0..events / EACH).map(|_| RequestId::fresh(&SystemEntropy)).collect();
        self.events += payments.len() * EACH;
        for n in 1..=EACH {
            for some in payments.chunks(AT_A_TIME) {
                let news: Vec<_> = some
                    .iter()
                    .map(|request| OutboxRecord {
                        id: OutboxId::fresh(&SystemEntropy),
                        at: SystemClock.now(),
                        topic: "payment.succeeded".into(),
                        payload: json!({ "request": request, "payee": self.payee, "n": n }),
                    })
                    .collect();
                self.stores[0].write_papers(&[], &[], &[], &news).await.unwrap();
            }
        }
        payments
    }

    /// Waits until all has arrived that there is for this endpoint.
    async fn wait(&self, heard: &Mutex<Heard>, payments: &[RequestId]) {
        let begun = Instant::now();
        loop {
            let left = {
                let heard = heard.lock().unwrap();
                assert!(heard.wrong.is_empty(), "{:?}", &heard.wrong[..heard.wrong.len().min(5)]);
                let all = |p: &&RequestId| heard.payments.get(p.as_str()) != Some(&(EACH as u64));
                payments.iter().filter(all).count()
            };
            if left == 0 {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{left} of {} payments are not told of whole", payments.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        for node in self.running {
            node.await.unwrap();
        }
        for store in self.stores {
            store.close().await;
        }
    }
}

async fn told_in_order(stores: Vec<Arc<dyn Store>>, database: &str) {
    let events = std::env::var(EVENTS_ENV).ok().map_or(EVENTS, |n| n.parse().unwrap());
    let mut house = House::of(stores).await;
    let heard = Arc::new(Mutex::new(Heard::default()));
    let (shop, secret) = house.endpoint(receiver(Arc::clone(&heard)).await).await;
    heard.lock().unwrap().secret = Some(secret);
    house.run();

    let begun = Instant::now();
    let payments = house.happen(events).await;
    house.wait(&heard, &payments).await;
    let alone = begun.elapsed();
    // Beside one that answers nothing and hears of everything, too.
    let (dead, _) = house.endpoint(silent().await).await;
    let begun = Instant::now();
    let more = house.happen(events).await;
    house.wait(&heard, &more).await;
    let beside_the_dead = begun.elapsed();
    let arrived = house.stores[0].deliveries(&dead, Some(DeliveryState::Delivered), 0, 1).await.unwrap();
    assert!(arrived.is_empty(), "{arrived:?}");
    assert!(beside_the_dead < alone * 2 + Duration::from_secs(3), "{beside_the_dead:?} beside a dead endpoint, {alone:?} alone");

    // An event whose answer was lost comes once more after all were taken.
    while !house.stores[0].deliveries(&shop, Some(DeliveryState::Waiting), 0, 1).await.unwrap().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "what was taken is still sent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What arrived is sent again on demand, under the same identifiers.
    let first = house.stores[0].deliveries(&shop, Some(DeliveryState::Delivered), 0, 1).await.unwrap().remove(0);
    {
        let heard = heard.lock().unwrap();
        assert_eq!(heard.messages.len(), house.events, "each event is one message");
        assert_eq!(heard.messages.values().collect::<HashSet<_>>().len(), house.events);
        let failed: usize = heard.failed.iter().sum();
        assert!(failed * 10 > heard.requests * 2, "{failed} of {} failed", heard.requests);
        println!(
            "{database}: {} events in order, {} requests, failed {:?} (5xx, dropped, timed out, taken and the answer lost), {} came again ({} of them late); \
             {events} in {alone:.1?} alone, {events} in {beside_the_dead:.1?} beside a dead endpoint",
            house.events, heard.requests, heard.failed, heard.again, heard.late
        );
    }
    let request = first.news.payload["request"].as_str().unwrap().to_owned();
    heard.lock().unwrap().payments.remove(&request); // it may begin anew
    assert_eq!(house.nodes[1].replay(&shop, Replay::One(&first.news.id), "test").await.unwrap(), 1);
    let begun = Instant::now();
    while heard.lock().unwrap().payments.get(&request) != Some(&1) {
        assert!(begun.elapsed() < Duration::from_secs(20), "the replay did not arrive");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    house.stop().await;
    let heard = heard.lock().unwrap();
    assert!(heard.wrong.is_empty() && heard.messages.len() == 2 * (events / EACH) * EACH, "{:?}", heard.wrong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_arrive_whole_and_in_order_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let store = sqlite(dir.path()).await;
    told_in_order(vec![Arc::clone(&store), store], "SQLite").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_arrive_whole_and_in_order_on_postgresql() {
    let Some(database) = lab::Database::fresh().await else { return };
    let url = DatabaseUrl::parse(&database.url).unwrap();
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for _node in 0..2 {
        stores.push(Arc::new(PgStore::open(&url, &StoreConfig::default()).await.unwrap()));
    }
    told_in_order(stores, "PostgreSQL").await;
}
