//! A bank host that we did not write (`scripts/banks/iso_host.py`, on pyiso8583) as a child process, what its ledger says, and a
//! gateway that speaks with it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};
use voicepay::clock::{Clock, SystemClock, Timestamp};
use voicepay::gateway::iso8583::Iso8583Gateway;
use voicepay::gateway::iso8583::config::{Iso8583Config, LengthPrefix};
use voicepay::gateway::iso8583::spec::DEFAULT_SPEC;
use voicepay::gateway::{CardData, Gateway, GatewayRequest, Original};
use voicepay::money::{Currency, Money};
use voicepay::payment::{BankWord, GatewayKey, Operation};
use voicepay::secret::Pan;

/// How long an answer may take in these tests.
pub const RESPONSE_MS: u64 = 300;
/// A card number that must show up nowhere.
pub const CARD: &str = "4242424242424242";
/// How long anything may take to come right.
const PATIENCE: Duration = Duration::from_secs(20);

/// The Python that the host runs on; `None`, said plainly, where there is none to be had.
pub fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = PYTHON.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/banks/venv.sh");
        let out = Command::new(script).stderr(Stdio::inherit()).output().ok()?;
        let path = PathBuf::from(String::from_utf8(out.stdout).ok()?.trim());
        (out.status.success() && path.exists()).then_some(path)
    });
    if found.is_none() {
        eprintln!("SKIPPED: Python 3 with pyiso8583 can't be had here (scripts/banks/venv.sh says why)");
    }
    found.as_deref()
}

/// The host.
#[derive(Debug)]
pub struct Host {
    child: Child,
    pub port: u16,
    ledger: PathBuf,
    arguments: Vec<String>,
}

impl Host {
    pub fn start(python: &Path, dir: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        Self::spawn(python, dir.join("ledger.jsonl"), 0, arguments)
    }

    fn spawn(python: &Path, ledger: PathBuf, port: u16, arguments: Vec<String>) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/banks/iso_host.py");
        let mut command = Command::new(python);
        command.arg(script).arg("--ledger").arg(&ledger).arg("--port").arg(port.to_string()).args(&arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the host starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("listening ").expect("the host listens").parse().unwrap();
        Self { child, port, ledger, arguments }
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops or goes on with the process as a whole: its connections stay, nobody answers on them.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").arg(signal).arg(self.child.id().to_string()).status().unwrap().success());
    }

    /// The same bank again, on the same port.
    pub fn start_again(&mut self, python: &Path) {
        let again = Self::spawn(python, self.ledger.clone(), self.port, self.arguments.clone());
        *self = again;
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its ledger's lines about a trace number. A line that says it failed fails the test.
    pub fn lines(&self, request: &GatewayRequest) -> Vec<Value> {
        let stan = format!("{:06}", request.number);
        self.all_lines().into_iter().filter(|l| l["stan"] == stan.as_str()).collect()
    }

    pub fn all_lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.ledger).unwrap_or_default();
        assert!(!text.contains("\"failed\""), "the host could not read what we sent:\n{text}");
        assert!(!text.contains(CARD), "a card number in the host's ledger");
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    /// What it did about a trace number: `0200 booked`, `0400 undone`, …
    pub fn did(&self, request: &GatewayRequest) -> Vec<String> {
        let said = |l: &Value| format!("{} {}", l["mti"].as_str().unwrap(), l["did"].as_str().unwrap());
        self.lines(request).iter().map(said).collect()
    }

    /// How much of a request stands in its books, in minor units.
    pub fn stands(&self, request: &GatewayRequest) -> i64 {
        let all = self.all_lines();
        let booked = |l: &&Value| l["did"] == "booked" && l["stan"] == format!("{:06}", request.number).as_str();
        let booked: Vec<_> = all.iter().filter(booked).collect();
        assert!(booked.len() <= 1, "booked {} times", booked.len());
        let Some(line) = booked.first() else { return 0 };
        let undone = all.iter().any(|l| l["did"] == "undone" && l["of"] == line["key"]);
        if undone { 0 } else { line["minor"].as_i64().unwrap() }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A config for these hosts, quick to lose patience.
pub fn config(hosts: &[&Host]) -> Iso8583Config {
    Iso8583Config {
        hosts: hosts.iter().map(|h| h.address()).collect(),
        tls: false,
        terminal_id: "VOICE001".into(),
        merchant_id: "MERCHANT7".into(),
        acquirer_id: "123456".into(),
        connect_timeout_ms: 500,
        write_timeout_ms: 50,
        response_timeout_ms: RESPONSE_MS,
        reconnect_min_ms: 20,
        reconnect_max_ms: 100,
        late_arrival_ms: 0,
        ..Iso8583Config::default()
    }
}

/// The same in the other dialect: BCD, bitmaps and lengths otherwise, a header.
pub fn config_bcd(hosts: &[&Host], dir: &Path) -> Iso8583Config {
    let text = DEFAULT_SPEC.replacen("\nencoding = \"ascii\"", "\nencoding = \"bcd\"", 1);
    let text = text.replace("length_encoding = \"ascii\"", "length_encoding = \"bcd\"");
    let text = text.replace("mti_encoding = \"ascii\"", "mti_encoding = \"bcd\"");
    let text = text.replace("bitmap = \"binary\"", "bitmap = \"hex\"");
    let path = dir.join("bcd.toml");
    std::fs::write(&path, text).unwrap();
    Iso8583Config { spec: Some(path), length_prefix: LengthPrefix::Ascii4, header: "6000010000".into(), ..config(hosts) }
}

/// What the host is told for [`config_bcd`].
pub const BCD: [&str; 6] = ["--dialect", "bcd", "--prefix", "ascii4", "--header", "6000010000"];

pub fn open(config: &Iso8583Config) -> Iso8583Gateway {
    Iso8583Gateway::open(config, Arc::new(SystemClock)).unwrap()
}

/// A fresh request. Numbers are never used twice in a process.
pub fn request(operation: Operation, minor: i64, original: Option<Original>) -> GatewayRequest {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    GatewayRequest {
        operation,
        our_reference: format!("att_{number}"),
        request: "req_1".into(),
        number,
        prepared_at: Timestamp(SystemClock.now().0),
        idempotency_key: GatewayKey(format!("voicepay-att_{number}")),
        amount: Money::new(minor, Currency::Usd).unwrap(),
        card: Some(CardData { pan: Pan::parse(CARD).unwrap(), expiry: Some("12/39".parse().unwrap()) }),
        original,
        statement: "Café Grün".into(),
    }
}

pub fn charge(minor: i64) -> GatewayRequest {
    request(Operation::Charge, minor, None)
}

/// What a later operation refers to.
pub fn original(request: &GatewayRequest, word: &BankWord) -> Original {
    let BankWord::Approved { gateway_reference, .. } = word else { panic!("{word:?} approves nothing") };
    Original {
        operation: request.operation,
        our_reference: request.our_reference.clone(),
        number: request.number,
        prepared_at: request.prepared_at,
        amount: request.amount,
        gateway_reference: gateway_reference.clone(),
    }
}

/// Sends, and asks until it is settled, as the core does. Returns the last word, and how often it was asked.
pub async fn settle(gateway: &Iso8583Gateway, request: &GatewayRequest) -> (BankWord, u32) {
    let word = gateway.send(request).await;
    if settled(&word) { (word, 0) } else { resolve(gateway, request).await }
}

/// Asks until it is settled.
pub async fn resolve(gateway: &Iso8583Gateway, request: &GatewayRequest) -> (BankWord, u32) {
    let deadline = Instant::now() + PATIENCE;
    let mut asked = 0;
    loop {
        let word = gateway.resolve(request).await;
        asked += 1;
        if settled(&word) {
            return (word, asked);
        }
        assert!(Instant::now() < deadline, "still {word:?} after {asked} questions");
        sleep(Duration::from_millis(20)).await;
    }
}

fn settled(word: &BankWord) -> bool {
    match word {
        BankWord::Approved { .. } | BankWord::Declined(_) | BankWord::Reversed => true,
        BankWord::StillWorking | BankWord::Silence => false,
        BankWord::NotFound => panic!("the wire can't be asked, so nothing is ever not found"),
    }
}

/// How much stands in our books after that word.
pub fn ours(word: &BankWord) -> i64 {
    match word {
        BankWord::Approved { charged, .. } => charged.minor.get(),
        BankWord::Declined(_) | BankWord::Reversed => 0,
        BankWord::StillWorking | BankWord::Silence | BankWord::NotFound => panic!("{word:?} settles nothing"),
    }
}

/// Waits until `ready`.
pub async fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < deadline, "{what} did not come");
        sleep(Duration::from_millis(10)).await;
    }
}
