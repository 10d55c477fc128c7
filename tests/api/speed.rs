//! `make bench-api`: how long the API takes beside its database's own time for the same, both in one run. The bound: p99 of the API is at most five
//! times the database's p99. Writes benches/API.md where `VOICEPAY_BENCH_PAGE` names it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use voicepay::clock::{Clock, SystemClock, SystemEntropy};
use voicepay::ids::{AuditId, IntentId, PayeeId, Tenant};
use voicepay::store::{AuditRecord, Payee};

use super::support::Shop;

/// Of each kind, in turn.
const ROUNDS: usize = 1_500;
/// How many times the database's p99 the API's may be.
const BOUND: f64 = 5.0;

/// A connection that is kept.
struct Kept {
    stream: BufReader<TcpStream>,
    key: String,
}

impl Kept {
    async fn ask(&mut self, head: &str, body: &str) -> u16 {
        let length = body.len();
        let text = format!(
            "{head} HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n",
            self.key
        );
        let once =
            if body.is_empty() { String::new() } else { format!("Idempotency-Key: {}\r\n", AuditId::fresh(&SystemEntropy)) };
        self.stream.get_mut().write_all(format!("{text}{once}\r\n{body}").as_bytes()).await.unwrap();
        let (mut line, mut status, mut length) = (String::new(), 0, 0);
        loop {
            line.clear();
            self.stream.read_line(&mut line).await.unwrap();
            if status == 0 {
                status = line.split(' ').nth(1).unwrap().parse().unwrap();
            } else if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            } else if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        status
    }
}

fn quantile(all: &mut [Duration], q: f64) -> f64 {
    all.sort();
    let at = ((all.len() - 1) as f64 * q).round() as usize;
    all[at].as_secs_f64() * 1e3
}

/// When, on what machine, and what else it did.
fn conditions() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let (now, loads) = (SystemClock.now().to_string(), read("/proc/loadavg"));
    let (day, load) = (now.get(..10).unwrap_or(&now), loads.split(' ').next().unwrap_or(""));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{day}, {cores} cores of {}, load average {load} at the end", model.trim_start_matches([' ', '\t', ':']))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: make bench-api"]
async fn the_api_is_not_much_slower_than_its_database() {
    let shop = Shop::open().await;
    let request = shop.request().await;
    let payment = IntentId::parse(&shop.pay(&request).await).unwrap();
    let store = &shop.service.office().store;
    let stream = TcpStream::connect(shop.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut kept = Kept { stream: BufReader::new(stream), key: shop.key.clone() };
    let (mut read_api, mut read_own, mut write_api, mut write_own) = (vec![], vec![], vec![], vec![]);
    let path = format!("GET /v1/payments/{payment}");
    let body = json!({ "name": "City Water Works" }).to_string();
    for round in 0..ROUNDS + 50 {
        let note = |all: &mut Vec<Duration>, since: Instant| {
            if round >= 50 {
                all.push(since.elapsed());
            }
        };
        let since = Instant::now();
        assert!(store.payment(&payment).await.unwrap().is_some());
        note(&mut read_own, since);
        let since = Instant::now();
        assert_eq!(kept.ask(&path, "").await, 200);
        note(&mut read_api, since);
        let now = SystemClock.now();
        let payee = Payee {
            id: PayeeId::fresh(&SystemEntropy),
            tenant: Tenant::default(),
            category: None,
            name: "City Water Works".into(),
            spoken_name_wav: None,
            created_at: now,
        };
        let audit = AuditRecord {
            id: AuditId::fresh_at(now, &SystemEntropy),
            at: now,
            actor: "bench".into(),
            action: "payee.added".into(),
            subject: payee.id.to_string(),
            detail: json!({ "recording": false }),
        };
        let since = Instant::now();
        store.add_payee(&payee, &audit).await.unwrap();
        note(&mut write_own, since);
        let since = Instant::now();
        assert_eq!(kept.ask("POST /v1/payees", &body).await, 201);
        note(&mut write_api, since);
    }
    let mut page = String::from(
        "# The API beside its database\n\n`make bench-api`: one kept connection in plain HTTP to a service in the same process, SQLite with every commit synced; \
         each kind in turn, so that both see the same machine. The database's own time is the same rows read or written through the store, without the API. \
         A POST is three commits (its idempotency key, the thing itself with its audit row, the answer), so that three times is what it costs at best.\n\n\
         | what | database p50, ms | API p50, ms | database p99, ms | API p99, ms | p99 ratio (bound 5) |\n|---|---|---|---|---|---|\n",
    );
    let mut over = Vec::new();
    for (what, own, api) in
        [("a payment, whole (GET)", &mut read_own, &mut read_api), ("a payee is added (POST)", &mut write_own, &mut write_api)]
    {
        let (own50, api50) = (quantile(own, 0.5), quantile(api, 0.5));
        let (own99, api99) = (quantile(own, 0.99), quantile(api, 0.99));
        let ratio = api99 / own99;
        writeln!(page, "| {what} | {own50:.2} | {api50:.2} | {own99:.2} | {api99:.2} | {ratio:.1} |").unwrap();
        if ratio > BOUND {
            over.push(format!("{what}: {ratio:.1}"));
        }
    }
    writeln!(page, "\n{ROUNDS} of each; {}.", conditions()).unwrap();
    println!("{page}");
    if let Ok(path) = std::env::var("VOICEPAY_BENCH_PAGE") {
        std::fs::write(path, page).unwrap();
    }
    assert!(over.is_empty(), "over the bound: {over:?}");
    shop.service.stop().await;
}
