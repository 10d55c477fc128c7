//! The parts that carry a payment, joined as the service joins them, and what there must be before anybody can pay.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use voicepay::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use voicepay::gateway::sandbox::SandboxGateway;
use voicepay::gateway::{self, GatewayConfig};
use voicepay::ids::{CallId, CardId, CustomerId, PayeeId, RequestId};
use voicepay::money::{Currency, Money};
use voicepay::payment::{Capture, Evidence};
use voicepay::processor::sealer::{AuditConfig, Sealer};
use voicepay::processor::{ChargeOrder, Processor, ProcessorConfig, check};
use voicepay::store::{self, Customer, DatabaseUrl, Payee, PgStore, SqliteStore, Store, StoreConfig};
use voicepay::vault::{Vault, VaultConfig};

use crate::people;
use crate::retries::Parts;

const AMOUNT: i64 = 1999;

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// A database of its own for one run.
pub struct Database {
    pub kind: Kind,
    pub path: PathBuf,
    pub url: String,
}

impl Database {
    pub async fn fresh(kind: Kind, root: &Path) -> Option<Self> {
        let path = root.join("voicepay.db");
        match kind {
            Kind::Sqlite => Some(Self { kind, url: format!("sqlite://{}", path.display()), path }),
            Kind::Postgres => {
                let fresh = crate::lab::Database::fresh().await?;
                Some(Self { kind, url: fresh.url, path })
            }
        }
    }
}

/// A connection for what no trait of the store offers: filling, counting.
pub enum Raw {
    Sqlite(sqlx::SqliteConnection),
    Postgres(sqlx::PgConnection),
}

impl Raw {
    pub async fn open(database: &Database) -> Self {
        match database.kind {
            Kind::Sqlite => Self::Sqlite(sqlx::SqliteConnection::connect(&database.url).await.unwrap()),
            Kind::Postgres => Self::Postgres(sqlx::PgConnection::connect(&database.url).await.unwrap()),
        }
    }

    pub async fn run(&mut self, sql: &str) {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let done = match self {
            Self::Sqlite(c) => query.execute(c).await.map(drop),
            Self::Postgres(c) => query.execute(c).await.map(drop),
        };
        done.unwrap_or_else(|e| panic!("{e}: {sql}"));
    }

    /// Of a server.
    async fn text(&mut self, sql: &'static str) -> String {
        match self {
            Self::Sqlite(_) => String::new(),
            Self::Postgres(c) => sqlx::query_scalar(sql).fetch_one(c).await.unwrap(),
        }
    }

    pub async fn number(&mut self, sql: &str) -> i64 {
        let query = sql.to_owned();
        match self {
            Self::Sqlite(c) => sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(c).await,
            Self::Postgres(c) => sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(c).await,
        }
        .unwrap_or_else(|e| panic!("{e}: {sql}"))
    }
}

/// Processor time by process.
pub struct CpuTime(HashMap<String, Duration>);

impl CpuTime {
    pub fn since(&self, before: &Self) -> Duration {
        self.0.iter().map(|(pid, now)| now.saturating_sub(before.0.get(pid).copied().unwrap_or_default())).sum()
    }
}

/// Processor time of a process so far (proc(5): fields 14 and 15 of `stat`, in hundredths of a second).
fn cpu_of(pid: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    Duration::from_millis(fields.filter_map(|f| f.parse::<u64>().ok()).sum::<u64>() * 10)
}

/// Somebody who can pay.
struct Payer {
    customer: CustomerId,
    card: CardId,
}

pub struct House {
    store: Arc<dyn Store>,
    sqlite: Option<SqliteStore>,
    processor: Processor,
    entropy: Arc<dyn Entropy>,
    journal: PathBuf,
    payers: Vec<Payer>,
    payee: PayeeId,
    raw: tokio::sync::Mutex<Raw>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl House {
    /// Opens everything, with `payers` customers of a card each, and starts worker and sealer.
    pub async fn open(database: &Database, root: &Path, payers: usize) -> Self {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let cfg = StoreConfig { path: database.path.clone(), ..StoreConfig::default() };
        let (store, sqlite): (Arc<dyn Store>, _) = match database.kind {
            Kind::Sqlite => {
                let store = SqliteStore::open(&cfg).await.unwrap();
                (Arc::new(store.clone()), Some(store))
            }
            Kind::Postgres => {
                let url = DatabaseUrl::parse(&database.url).unwrap();
                (Arc::new(PgStore::open(&url, &cfg).await.unwrap()), None)
            }
        };
        let cfg = VaultConfig { master_key_file: root.join("master.key"), ..VaultConfig::default() };
        let vault = store::unlock(&*store, &cfg, entropy.clone()).await.unwrap();
        let journal = root.join(format!("{}.jsonl", database.kind.name()));
        let cfg = GatewayConfig { sandbox_journal: journal.clone(), sandbox_latency_ms: 0, ..GatewayConfig::default() };
        let bank = gateway::open(&cfg, vault.sandbox_journal_key(), clock.clone()).unwrap();
        let processor = Processor::new(store.clone(), bank, vault.clone(), clock, entropy.clone(), ProcessorConfig::default());
        let payee = PayeeId::fresh(&*entropy);
        let raw = tokio::sync::Mutex::new(Raw::open(database).await);
        let mut house = Self {
            sqlite,
            payers: vec![],
            payee,
            journal,
            raw,
            shutdown: CancellationToken::new(),
            tasks: vec![],
            store,
            processor,
            entropy,
        };
        house.furnish(&vault, payers).await;
        house.start(&vault);
        house
    }

    pub fn parts(&self) -> Parts {
        Parts { store: self.store.clone(), processor: self.processor.clone(), journal: self.journal.clone() }
    }

    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// Worker and sealer, as `voicepay serve` runs them.
    fn start(&mut self, vault: &Vault) {
        let (processor, shutdown) = (self.processor.clone(), self.shutdown.clone());
        let clock = Arc::new(SystemClock);
        let sealer = Sealer::new(self.store.clone(), vault.clone(), clock, self.entropy.clone(), AuditConfig::default());
        self.tasks.push(tokio::spawn(async move { sealer.beside(processor.run(shutdown)).await }));
    }

    async fn furnish(&mut self, vault: &Vault, payers: usize) {
        let (e, at) = (&*self.entropy, SystemClock.now());
        let payee = Payee { id: self.payee.clone(), ..people::payee(e, at) };
        self.store.add_payee(&payee, &people::audit_row(e, at)).await.unwrap();
        for nth in 0..payers {
            let customer_number = format!("{:06}", 100_000 + nth);
            let customer = Customer { customer_number, ..people::customer(e, at) };
            self.store.add_customer(&customer, &people::audit_row(e, at)).await.unwrap();
            let card = people::card(e, at, vault, &customer.id, "4111111111111111");
            self.store.add_card(&card, &people::audit_row(e, at)).await.unwrap();
            self.payers.push(Payer { customer: customer.id, card: card.id });
        }
    }

    /// Open requests, written in bulk, and what calls would order for them.
    pub async fn orders(&self, count: usize) -> Vec<ChargeOrder> {
        let mut orders = Vec::with_capacity(count);
        let mut rows = Vec::with_capacity(count);
        for payer in self.payers.iter().cycle().take(count) {
            let now = SystemClock.now();
            let (request, at) = (RequestId::fresh_at(now, &*self.entropy), now.0);
            rows.push(format!("('{request}', '{}', '{}', {AMOUNT}, 'USD', 'open', {at})", payer.customer, self.payee));
            orders.push(ChargeOrder {
                customer: payer.customer.clone(),
                request,
                amount: Money::new(AMOUNT, Currency::Usd).unwrap(),
                card: payer.card.clone(),
                occasion: CallId::fresh_at(now, &*self.entropy).into(),
                capture: Capture::Automatic,
                evidence: Evidence { policy_version: "bench".into(), voice_llr: Some(7.5), ..Evidence::default() },
                guards: voicepay::processor::OrderGuards::default(),
            });
        }
        let mut raw = self.raw.lock().await;
        for rows in rows.chunks(500) {
            let columns = "id, customer_id, payee_id, amount_minor, currency, status, created_at";
            raw.run(&format!("INSERT INTO requests ({columns}) VALUES {}", rows.join(", "))).await;
        }
        orders
    }

    /// Waits until the audit trail is sealed.
    pub async fn sealed(&self) {
        while self.store.unsealed().await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Transactions that were committed so far and wrote something.
    pub async fn commits(&self) -> u64 {
        match &self.sqlite {
            Some(store) => store.commits(),
            None => {
                let taken = self.raw.lock().await.number("SELECT pg_current_xact_id()::text::bigint").await;
                u64::try_from(taken).unwrap()
            }
        }
    }

    /// Processor time so far: of this process with all its threads, and of what a server does for this database's connections, if it is on this
    /// machine.
    pub async fn cpu(&self) -> CpuTime {
        let mut pids = vec!["self".to_owned()];
        if self.sqlite.is_none() {
            let ours = "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity
                        WHERE datname = current_database() AND backend_type = 'client backend'";
            pids.extend(self.raw.lock().await.text(ours).await.split(' ').map(str::to_owned));
        }
        CpuTime(pids.into_iter().map(|pid| (pid.clone(), cpu_of(&pid))).collect())
    }

    /// Asks what `voicepay books check` asks, and whether the acquirer's journal tells of charges.
    pub async fn check_books(&self) {
        let report = check::books(&*self.store).await.unwrap();
        assert_eq!((report.findings, report.open), (vec![], 0), "the books are right, and every payment has ended");
        let charged = SandboxGateway::read_journal(&self.journal).unwrap().iter().filter(|l| l.did.charged()).count();
        assert!(charged > 0);
    }

    pub async fn close(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}
