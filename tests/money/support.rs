//! A house of money in a directory, and this test binary run as a child process that works in it.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use voicepay::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use voicepay::gateway::sandbox::{JournalLine, SandboxGateway};
use voicepay::gateway::{self, Gateway, GatewayConfig};
use voicepay::ids::{CallId, RequestId};
use voicepay::ledger;
use voicepay::money::{Currency, Money};
use voicepay::payment::{Capture, Evidence, PaymentRequest};
use voicepay::processor::{ChargeOrder, Processor, ProcessorConfig};
use voicepay::store::{self, AuditRecord, SqliteStore, Store, StoreConfig};
use voicepay::vault::{Vault, VaultConfig};

use super::people;

#[path = "../../src/store/postgres/lab.rs"]
#[allow(dead_code)] // the store's own tests need more of it
pub mod lab;

/// Tells a child in which directory to work.
pub const DIR_ENV: &str = "VOICEPAY_TEST_DIR";
/// How long a child may take in all.
const CHILD_LIMIT: Duration = Duration::from_secs(60);
/// What is asked for in every test here.
pub const AMOUNT: i64 = 1999;

pub struct House {
    pub store: Arc<dyn Store>,
    pub vault: Vault,
    pub processor: Processor,
    pub entropy: Arc<dyn Entropy>,
}

impl std::fmt::Debug for House {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entry(&self.store).entry(&self.vault).entry(&self.processor).finish()
    }
}

/// The file database of a house.
pub async fn sqlite(dir: &Path) -> Arc<dyn Store> {
    let cfg = StoreConfig { path: dir.join("voicepay.db"), ..StoreConfig::default() };
    Arc::new(SqliteStore::open(&cfg).await.unwrap())
}

/// The acquirer of a house, by this clock.
pub fn bank(dir: &Path, vault: &Vault, clock: Arc<dyn Clock>, latency_ms: u64) -> Arc<dyn Gateway> {
    let journal = dir.join("bank.jsonl");
    let cfg = GatewayConfig { sandbox_journal: journal, sandbox_latency_ms: latency_ms, ..GatewayConfig::default() };
    gateway::open(&cfg, vault.sandbox_journal_key(), clock).unwrap()
}

/// Bounds that are over within a test.
pub fn quick() -> ProcessorConfig {
    ProcessorConfig {
        gateway_timeout_ms: 150,
        not_found_grace_ms: 300,
        sweep_ms: 20,
        question_cap_ms: 100,
        lease_margin_ms: 200,
        ..ProcessorConfig::default()
    }
}

impl House {
    pub async fn open(dir: &Path) -> Self {
        Self::over(sqlite(dir).await, dir, 20, quick()).await
    }

    /// The same on this database, with an acquirer that answers so late, and with these bounds.
    pub async fn over(store: Arc<dyn Store>, dir: &Path, latency_ms: u64, cfg: ProcessorConfig) -> Self {
        let (entropy, clock): (Arc<dyn Entropy>, Arc<dyn Clock>) = (Arc::new(SystemEntropy), Arc::new(SystemClock));
        let keys = VaultConfig { master_key_file: dir.join("master.key"), ..VaultConfig::default() };
        let vault = store::unlock(&*store, &keys, entropy.clone()).await.unwrap();
        let bank = bank(dir, &vault, clock.clone(), latency_ms);
        let processor = Processor::new(store.clone(), bank, vault.clone(), clock, entropy.clone(), cfg);
        Self { store, vault, processor, entropy }
    }

    /// An audit row for what a test does.
    pub fn audit_row(&self) -> AuditRecord {
        people::audit_row(&*self.entropy, SystemClock.now())
    }

    /// A customer with this card and one open request; what a call would order.
    pub async fn furnish(&self, number: &str) -> ChargeOrder {
        let (e, at) = (&*self.entropy, SystemClock.now());
        let (customer, card, payee) = people::move_in(&*self.store, &self.vault, e, at, number).await;
        let request = people::request(e, at, &customer, &payee, Money::new(AMOUNT, Currency::Usd).unwrap());
        self.store.add_request(&request, &self.audit_row()).await.unwrap();
        ChargeOrder {
            customer,
            request: request.id,
            amount: request.amount,
            card,
            occasion: CallId::fresh(&*self.entropy).into(),
            capture: Capture::Automatic,
            evidence: Evidence::default(),
            guards: voicepay::processor::OrderGuards::default(),
        }
    }

    /// What somebody would order who is asked for the same `count` times.
    pub async fn orders(&self, count: usize) -> Vec<ChargeOrder> {
        let first = self.furnish("4111111111111111").await;
        let like = self.store.request(&first.request).await.unwrap().unwrap().request;
        let mut orders = vec![first.clone()];
        while orders.len() < count {
            let request = PaymentRequest { id: RequestId::fresh(&*self.entropy), ..like.clone() };
            self.store.add_request(&request, &self.audit_row()).await.unwrap();
            orders.push(ChargeOrder { request: request.id, occasion: CallId::fresh(&*self.entropy).into(), ..first.clone() });
        }
        orders
    }

    /// Looks after whatever is unfinished until nothing is, as the worker does.
    pub async fn finish_everything(&self) {
        // Longer than a lease: what a worker had begun is its own till then.
        for _ in 0..800 {
            self.processor.run_once().await.unwrap();
            if self.store.unfinished(9).await.unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("still unfinished: {:?}", self.store.unfinished(9).await.unwrap());
    }

    /// Sums at the acquirer, posted and pending; fails unless the books balance.
    pub async fn books(&self) -> (i64, i64) {
        let transfers = self.store.transfers().await.unwrap();
        let books = ledger::verify(&transfers).unwrap();
        let name = ledger::AccountName::acquirer("sandbox", Currency::Usd);
        books.balances().get(&name).map_or((0, 0), |b| (b.debits_posted, b.debits_pending))
    }
}

/// What the bank charged.
pub fn charged(dir: &Path) -> Vec<JournalLine> {
    let all = SandboxGateway::read_journal(&dir.join("bank.jsonl")).unwrap_or_default();
    all.into_iter().filter(|l| l.did.charged()).collect()
}

/// How a child ended.
pub struct Ended {
    pub killed: bool,
    pub output: String,
}

/// Runs the ignored test `name` of this binary as a process of its own in `dir`; kills it with SIGKILL after `kill_after`, if given.
pub fn child(name: &str, dir: &Path, env: &[(&str, &str)], kill_after: Option<Duration>) -> Ended {
    // Into a file: a pipe that nobody empties would stop a child that logs much.
    let mut file = tempfile::tempfile().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]).env(DIR_ENV, dir).env_remove("VOICEPAY_MASTER_KEY");
    command.envs(env.iter().copied()).stdout(file.try_clone().unwrap()).stderr(file.try_clone().unwrap());
    let mut process = command.spawn().unwrap();
    let (status, lived) = wait_or_kill(&mut process, kill_after.unwrap_or(CHILD_LIMIT), |_| {});
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let output = String::from_utf8_lossy(&bytes).into_owned();
    assert!(kill_after.is_some() || lived < CHILD_LIMIT, "the child hangs:\n{output}");
    let killed = status.signal() == Some(9);
    assert!(killed || status.success(), "the child failed:\n{output}");
    Ended { killed, output }
}

/// Waits for the end of a process, which is killed with SIGKILL once it has lived for `limit`; how it ended, and after how long. `meanwhile` is
/// told at each look how long it has lived.
pub fn wait_or_kill(process: &mut Child, limit: Duration, mut meanwhile: impl FnMut(Duration)) -> (ExitStatus, Duration) {
    const LOOK: Duration = Duration::from_millis(2);
    let mut lived = Duration::ZERO;
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return (status, lived);
        }
        if lived >= limit {
            process.kill().unwrap(); // SIGKILL
            return (process.wait().unwrap(), lived);
        }
        meanwhile(lived);
        std::thread::sleep(LOOK);
        lived += LOOK;
    }
}

/// The directory that a child was told of; `None` when somebody runs the ignored tests by hand.
pub fn told_dir() -> Option<std::path::PathBuf> {
    std::env::var_os(DIR_ENV).map(Into::into)
}
