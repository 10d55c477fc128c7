//! A bank that gives feedback, not written on our code (`scripts/banks/feedback_bank.py`), as a child process; and a house of
//! money whose acquirer it is.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use voicepay::bank::{Desk, PATH, pairing};
use voicepay::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use voicepay::gateway::bank_feedback::{BankFeedbackConfig, BankFeedbackGateway, account};
use voicepay::ids::{IntentId, RequestId};
use voicepay::ledger::{self, AccountName};
use voicepay::money::Currency;
use voicepay::payment::Attempt;
use voicepay::payment::pairing::Pairing;
use voicepay::processor::{Processor, ProcessorConfig};
use voicepay::secret::Pan;
use voicepay::store::{self, signing};
use voicepay::vault::{SigningPurpose, VaultConfig};

use super::support::{House, sqlite};

/// What both sides know.
const SECRET: [u8; 32] = [7; 32];
const ACCOUNT_KEY: [u8; 32] = [9; 32];
/// The card that everybody here pays with.
pub const CARD: &str = "4111111111111111";
/// How long anything may take to come right.
const PATIENCE: Duration = Duration::from_secs(30);

/// The bank.
#[derive(Debug)]
pub struct Bank {
    child: Child,
    _ends_with_us: ChildStdin,
    pub address: SocketAddr,
    ledger: PathBuf,
    their_key: String,
}

impl Bank {
    /// A bank that believes the instructions of the house in this directory.
    pub async fn start(dir: &Path) -> Self {
        let (store, entropy) = (sqlite(dir).await, SystemEntropy);
        let keys = VaultConfig { master_key_file: dir.join("master.key"), ..VaultConfig::default() };
        let vault = store::unlock(&*store, &keys, Arc::new(entropy)).await.unwrap();
        let key = signing::signer(&*store, &vault, SigningPurpose::Instructions, SystemClock.now(), &entropy).await.unwrap();
        Self::spawn(dir.join("bank-ledger.jsonl"), 0, STANDARD.encode(key.public()))
    }

    fn spawn(ledger: PathBuf, port: u16, their_key: String) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/banks/feedback_bank.py");
        let secret = format!("whsec_{}", STANDARD.encode(SECRET));
        let mut child = Command::new("python3")
            .arg(script)
            .arg("--ledger")
            .arg(&ledger)
            .args(["--port", &port.to_string(), "--secret", &secret, "--their-key", &their_key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python 3 is there");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().strip_prefix("listening ").expect("the bank listens").parse().unwrap();
        let _ends_with_us = child.stdin.take().unwrap();
        Self { child, _ends_with_us, address: SocketAddr::from(([127, 0, 0, 1], port)), ledger, their_key }
    }

    /// Kills it; [`Bank::start_again`] brings the same bank back.
    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn start_again(&mut self) {
        *self = Self::spawn(self.ledger.clone(), self.address.port(), self.their_key.clone());
    }

    /// What goes wrong with the next instructions, one after the other.
    pub async fn faults(&self, faults: &[&str]) {
        post(self.address, "/_faults", &json!(faults)).await;
    }

    /// Announces a deduction to a house; our answer's status and state (or what was wrong).
    pub async fn tell(&self, to: SocketAddr, order: Value) -> (u64, String) {
        announce(self.address, to, order).await
    }

    /// Its file of a day.
    pub async fn day(&self, date: &str) -> String {
        let head = format!("GET /_day?date={date} HTTP/1.1\r\nHost: bank\r\nConnection: close\r\n\r\n");
        exchange(self.address, head.as_bytes()).await
    }

    /// What it did, without what it was asked again. A line that says that it failed fails the test.
    pub fn did(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.ledger).unwrap_or_default();
        assert!(!text.contains("\"failed\""), "the bank did not take what we sent:\n{text}");
        assert!(!text.contains(CARD), "a card number at the bank's");
        let lines = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        lines.filter(|l| l["did"] != "asked again").collect()
    }

    /// How much it has moved away from customers, in minor units.
    pub fn moved(&self) -> i64 {
        let sign = |l: &Value| match l["did"].as_str() {
            Some("deducted") => 1,
            Some("refunded") => -1,
            _ => 0,
        };
        self.did().iter().map(|l| sign(l) * l["amount_minor"].as_i64().unwrap()).sum()
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// [`Bank::tell`] of a bank that another process has started.
pub async fn announce(bank: SocketAddr, to: SocketAddr, mut order: Value) -> (u64, String) {
    order["to"] = json!(format!("http://{to}{PATH}"));
    let said: Value = serde_json::from_str(&post(bank, "/_tell", &order).await).unwrap();
    let body: Value = serde_json::from_str(said["body"].as_str().unwrap()).unwrap_or_default();
    let text = body["state"].as_str().or(body["detail"].as_str()).unwrap_or_default().to_owned();
    (said["status"].as_u64().unwrap(), text)
}

async fn post(to: SocketAddr, path: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    let text = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    exchange(to, text.as_bytes()).await
}

async fn exchange(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A message about a request.
pub fn message(id: &str, reference: &RequestId, minor: i64) -> Value {
    let key = voicepay::secret::SecretBytes::new(ACCOUNT_KEY.to_vec());
    let account = account(&key, &Pan::parse(CARD).unwrap()).unwrap();
    json!({ "message_id": id, "type": "pending_deduction", "reference": reference, "amount_minor": minor, "currency": "USD",
        "account": account, "at": SystemClock.now().to_string() })
}

/// A house, at work.
pub struct Works {
    pub house: House,
    pub address: SocketAddr,
    pub waits: voicepay::payment::pairing::Waits,
    stop: CancellationToken,
}

impl std::fmt::Debug for Works {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.house.fmt(f)
    }
}

impl Drop for Works {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What a test may want otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub wait_for_bank_s: u64,
    pub open_limit: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { wait_for_bank_s: 3_600, open_limit: 1_000 }
    }
}

impl Works {
    /// Opens it, with worker and listener, as a service does.
    pub async fn open(dir: &Path, bank: SocketAddr, bounds: Bounds) -> Self {
        let (entropy, clock): (Arc<dyn Entropy>, Arc<dyn Clock>) = (Arc::new(SystemEntropy), Arc::new(SystemClock));
        let store = sqlite(dir).await;
        let keys = VaultConfig { master_key_file: dir.join("master.key"), ..VaultConfig::default() };
        let vault = store::unlock(&*store, &keys, entropy.clone()).await.unwrap();
        let cfg = BankFeedbackConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            instructions_url: format!("http://{bank}/instructions"),
            account_key_file: Some(secret_file(dir, "account.key", &hex::encode(ACCOUNT_KEY))),
            bank_secrets_file: Some(secret_file(dir, "bank.secrets", &STANDARD.encode(SECRET))),
            // RFC 8032 section 7.1, test 1: the bank's own.
            bank_public_keys: vec!["d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".into()],
            wait_for_bank_s: bounds.wait_for_bank_s,
            answer_timeout_ms: 700,
            retry_most_s: 1,
            open_limit: bounds.open_limit,
            ..BankFeedbackConfig::default()
        };
        cfg.check().unwrap();
        let desk = Desk::open(&cfg, store.clone(), vault.clone(), clock.clone(), entropy.clone()).unwrap();
        let gateway = Arc::new(BankFeedbackGateway::open(&cfg, Arc::new(desk.clone())).unwrap());
        let bounds = ProcessorConfig {
            gateway_timeout_ms: 1_500,
            not_found_grace_ms: 300,
            poll_ms: 50,
            sweep_ms: 50,
            question_cap_ms: 300,
            lease_margin_ms: 500,
            ..ProcessorConfig::default()
        };
        let processor = Processor::new(store.clone(), gateway, vault.clone(), clock, entropy.clone(), bounds);
        let stop = CancellationToken::new();
        let listening = desk.listen(stop.clone()).await.unwrap();
        let (hears, works) = ((processor.clone(), stop.clone()), (processor.clone(), stop.clone()));
        tokio::spawn(async move { hears.0.listen(listening.news, hears.1).await });
        tokio::spawn(async move { works.0.run(works.1).await });
        let house = House { store, vault, processor, entropy };
        Self { house, address: listening.address, waits: cfg.waits(), stop }
    }

    pub async fn pairing(&self, reference: &RequestId) -> Pairing {
        pairing(&*self.house.store, reference).await.unwrap()
    }

    /// The last attempt of a payment, once it is as wanted.
    pub async fn until(&self, intent: &IntentId, what: &str, wanted: impl Fn(&Attempt) -> bool) -> Attempt {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let attempt = self.house.store.payment(intent).await.unwrap().unwrap().attempts.pop().unwrap();
            if wanted(&attempt) {
                return attempt;
            }
            if tokio::time::Instant::now() >= deadline {
                let request = self.house.store.payment(intent).await.unwrap().unwrap().intent.request;
                panic!("it is not {what}: {attempt:?}\n{:?}", self.pairing(&request).await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What we say that the bank has moved, in minor units; fails unless the books balance.
    pub async fn books(&self) -> i64 {
        let books = ledger::verify(&self.house.store.transfers().await.unwrap()).unwrap();
        let name = AccountName::acquirer("bank_feedback", Currency::Usd);
        books.balances().get(&name).map_or(0, |b| b.debits_posted - b.credits_posted)
    }
}

fn secret_file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}
