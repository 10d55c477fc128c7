//! A service with the API in a directory of its own, and a client of a few lines that hides nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use voicepay::api::app_calls::AppCalls;
use voicepay::api::{Key, Scope};
use voicepay::app::ApiService;
use voicepay::clock::{Clock, SystemClock, SystemEntropy, Timestamp};
use voicepay::config::Config;
use voicepay::ids::{ApiKeyId, AuditId, CallId, CardId, CustomerId, IntentId, RequestId, Tenant};
use voicepay::money::{Currency, Money};
use voicepay::payment::{Capture, Evidence};
use voicepay::processor::{ChargeOrder, Outcome};
use voicepay::store::{ApiKeyRecord, AuditRecord, TenantRecord};

#[path = "../../src/store/postgres/lab.rs"]
#[allow(dead_code)] // the store's own tests need more of it
pub mod lab;

/// Visa's number for tests.
pub const CARD: &str = "4111111111111111";

/// A service, and a key of its default tenant that may do everything.
pub struct Shop {
    pub dir: tempfile::TempDir,
    pub service: ApiService,
    pub key: String,
    drawn: AtomicU32,
}

/// What was answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The value, which was made or found.
    #[track_caller]
    pub fn good(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/json");
        self.json()
    }

    /// Refused like this, as RFC 9457 has it.
    #[track_caller]
    pub fn refused(self, status: u16, kind: &str) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:voicepay:problem:{kind}"), "{problem}");
        assert_eq!(problem["status"], status);
        self
    }
}

pub fn write_config(dir: &std::path::Path, more: &str) -> std::path::PathBuf {
    let path = dir.join("voicepay.toml");
    let text = format!(
        "[service]\ndata_dir = {:?}\n[gateway]\nsandbox_latency_ms = 5\n[audit]\ncheckpoint_s = 1\n[api]\nlisten = \"127.0.0.1:0\"\n{more}",
        dir.display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

impl Shop {
    pub async fn open() -> Self {
        Self::with("requests_per_s = 10000\nburst = 10000\n").await
    }

    /// With these lines in `[api]`.
    pub async fn with(more: &str) -> Self {
        Self::answering(more, Arc::new(SystemClock), None).await
    }

    /// The same by this clock, with somebody who answers pages' offers.
    pub async fn answering(more: &str, clock: Arc<dyn Clock>, calls: Option<Arc<dyn AppCalls>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::load(Some(&write_config(dir.path(), more))).unwrap();
        let service = ApiService::start_with(&config, clock, Arc::new(SystemEntropy), calls).await.unwrap();
        let mut shop = Self { dir, service, key: String::new(), drawn: AtomicU32::new(0) };
        shop.key = shop.key_for("default", &Scope::ALL, None).await;
        shop
    }

    fn audit(&self) -> AuditRecord {
        AuditRecord {
            id: AuditId::fresh(&SystemEntropy),
            at: SystemClock.now(),
            actor: "test".into(),
            action: "did".into(),
            subject: "it".into(),
            detail: json!({}),
        }
    }

    pub async fn key_for(&self, tenant: &str, scopes: &[Scope], expires_at: Option<Timestamp>) -> String {
        let office = self.service.office();
        let tenant = Tenant::parse(tenant).unwrap();
        if !office.store.tenants().await.unwrap().iter().any(|t| t.name == tenant) {
            let record = TenantRecord { name: tenant.clone(), title: "A tenant".into(), created_at: SystemClock.now() };
            office.store.add_tenant(&record, &self.audit()).await.unwrap();
        }
        let key = Key::fresh(&SystemEntropy);
        let record = ApiKeyRecord {
            id: ApiKeyId::fresh(&SystemEntropy),
            tenant,
            name: "test".into(),
            scopes: scopes.iter().map(|s| s.as_str().to_owned()).collect(),
            created_at: SystemClock.now(),
            expires_at,
            revoked_at: None,
        };
        office.store.add_api_key(&record, &key.digest(&office.vault), &self.audit()).await.unwrap();
        key.reveal().to_owned()
    }

    pub fn address(&self) -> SocketAddr {
        self.service.address()
    }

    /// A fresh idempotency key.
    pub fn fresh(&self) -> String {
        format!("k{}", self.drawn.fetch_add(1, Ordering::SeqCst))
    }

    /// Sends bytes as they are; reads until the server closes.
    pub async fn raw(&self, head: &str, body: &[u8]) -> Reply {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses by the head alone may have closed already.
        let _closed = stream.write_all(body).await;
        let mut all = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await;
        let _reset = read.expect("the server answers and closes");
        parse(&all)
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.raw(&format!("{head}\r\n"), body.as_bytes()).await
    }

    pub async fn get_with(&self, key: &str, path: &str) -> Reply {
        self.send("GET", path, &[("Authorization", &format!("Bearer {key}"))], "").await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.get_with(&self.key, path).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[("Authorization", &format!("Bearer {}", self.key))], "").await
    }

    pub async fn post_with(&self, key: &str, again: &str, path: &str, body: &Value) -> Reply {
        let bearer = format!("Bearer {key}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json"), ("Idempotency-Key", again)];
        self.send("POST", path, &headers, &body.to_string()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.post_with(&self.key, &self.fresh(), path, &body).await
    }

    /// A customer, a payee and a request, made over the API.
    pub async fn request(&self) -> Value {
        self.request_of("+442079460958").await
    }

    /// The same for a customer who calls from that number.
    pub async fn request_of(&self, number: &str) -> Value {
        let customer = self.post("/v1/customers", json!({ "name": "Ann Smith", "numbers": [number] })).await.good(201);
        let payee = self.post("/v1/payees", json!({ "name": "Water Works", "category": "utilities" })).await.good(201);
        let amount = json!({ "minor": 1999, "currency": "USD" });
        let body = json!({ "customer": customer["id"], "payee": payee["id"], "amount": amount, "due": "2031-01-31" });
        self.post("/v1/requests", body).await.good(201)
    }

    /// Pays a request as a call would; gives the payment's identifier.
    pub async fn pay(&self, request: &Value) -> String {
        let customer = request["customer"].as_str().unwrap();
        let card = self.post(&format!("/v1/customers/{customer}/cards"), json!({ "number": CARD })).await.good(201);
        let order = ChargeOrder {
            customer: CustomerId::parse(customer).unwrap(),
            request: RequestId::parse(request["id"].as_str().unwrap()).unwrap(),
            amount: Money::new(1999, Currency::Usd).unwrap(),
            card: CardId::parse(card["id"].as_str().unwrap()).unwrap(),
            occasion: CallId::fresh(&SystemEntropy).into(),
            capture: Capture::Automatic,
            evidence: Evidence::default(),
            guards: voicepay::processor::OrderGuards::default(),
        };
        let processor = &self.service.office().processor;
        let intent: IntentId = processor.submit(order).await.unwrap();
        let outcome = processor.outcome(&intent, Duration::from_secs(20)).await.unwrap();
        assert!(matches!(outcome, Outcome::Paid(_)), "{outcome:?}");
        intent.to_string()
    }

    /// Every byte that lies in the directory.
    pub fn all_files(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            all.extend(std::fs::read(entry.unwrap().path()).unwrap_or_default());
        }
        all
    }
}

pub fn parse(all: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(all).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|l| l.split_once(": ").unwrap()).map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).collect();
    Reply { status, headers, text: body.to_owned() }
}
