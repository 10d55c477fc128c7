//! What every run works on: a customer with cards, a payee, requests; and a processor that is opened on a database of it, as a node is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dice::Dice;
use voicepay::clock::{Clock, Entropy, Timestamp};
use voicepay::gateway::Gateway;
use voicepay::ids::{AuditId, CallId, CardId, CustomerId, PayeeId, RequestId};
use voicepay::language::Language;
use voicepay::money::{Currency, Money};
use voicepay::payment::{Capture, Evidence, PaymentRequest, RequestStatus};
use voicepay::processor::{ChargeOrder, Processor, ProcessorConfig};
use voicepay::secret::Pan;
use voicepay::store::{
    self, AuditRecord, CardRecord, CardStatus, Customer, CustomerStatus, DatabaseUrl, Payee, PgStore, SqliteStore, Store,
    StoreConfig, StoreError, UnlockError,
};
use voicepay::vault::Vault;

/// When every run begins.
pub const START: Timestamp = Timestamp(1_800_000_000_000);
/// Every node has the same master key.
pub const MASTER: [u8; 32] = [7; 32];
/// How many calls compete for one request.
const CALLS_A_REQUEST: usize = 3;

/// What there is to pay, and by whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub customer: CustomerId,
    pub card: CardId,
    pub payee: PayeeId,
    pub requests: Vec<Due>,
}

/// One request, and the calls in which somebody may say yes to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Due {
    pub request: RequestId,
    pub amount: Money,
    pub capture: Capture,
    pub calls: Vec<CallId>,
}

impl Due {
    /// Calls and kind follow from the identifier, so that every life of a process, and every node, means the same.
    pub fn of(request: RequestId, amount: Money) -> Self {
        let mut dice = Dice::about(0, request.as_str());
        let capture = if dice.percent(35) { Capture::Manual } else { Capture::Automatic };
        let call = |nth: usize| CallId::parse(&format!("call_{}{nth}", request.as_str().trim_start_matches("req_"))).unwrap();
        Self { amount, capture, calls: (0..CALLS_A_REQUEST).map(call).collect(), request }
    }
}

impl Plan {
    /// Somebody says yes: in one of the calls that compete for the request, perhaps for the second time.
    pub fn order(&self, dice: &mut Dice) -> ChargeOrder {
        let due = dice.one_of(&self.requests).unwrap().clone();
        ChargeOrder {
            customer: self.customer.clone(),
            request: due.request,
            amount: due.amount,
            card: self.card.clone(),
            call: dice.one_of(&due.calls).unwrap().clone(),
            capture: due.capture,
            evidence: Evidence { policy_version: "proof".into(), ..Evidence::default() },
        }
    }
}

/// Opens a SQLite database.
pub async fn open_sqlite(path: &Path) -> Arc<dyn Store> {
    let cfg = StoreConfig { path: path.to_owned(), connections: 2, ..StoreConfig::default() };
    Arc::new(SqliteStore::open(&cfg).await.unwrap())
}

/// Opens the database at a path or an address.
pub async fn open_store(place: &str) -> Result<Arc<dyn Store>, StoreError> {
    let cfg = StoreConfig { path: place.into(), ..StoreConfig::default() };
    Ok(match DatabaseUrl::parse(place) {
        Ok(url) => Arc::new(PgStore::open(&url, &cfg).await?),
        Err(_) => Arc::new(SqliteStore::open(&cfg).await?),
    })
}

/// The vault that goes with it.
pub async fn open_vault(store: &dyn Store, entropy: Arc<dyn Entropy>) -> Vault {
    try_vault(store, entropy).await.unwrap()
}

/// The same where the database may be gone.
pub async fn try_vault(store: &dyn Store, entropy: Arc<dyn Entropy>) -> Result<Vault, UnlockError> {
    store::unlock_in_hand(store, &MASTER, entropy).await
}

/// Bounds that are quick enough for tests; a node's life is some hundred milliseconds.
pub fn quick() -> ProcessorConfig {
    ProcessorConfig {
        gateway_timeout_ms: 60,
        poll_ms: 5,
        sweep_ms: 15,
        question_cap_ms: 60,
        lease_margin_ms: 60,
        not_found_grace_ms: 100,
        batch: 4,
        ..ProcessorConfig::default()
    }
}

/// A node.
pub fn node(
    store: &Arc<dyn Store>,
    gateway: Arc<dyn Gateway>,
    vault: Vault,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cfg: ProcessorConfig,
) -> Processor {
    Processor::new(store.clone(), gateway, vault, clock, entropy, cfg)
}

/// An audit row for what a test does.
fn audit_row(entropy: &dyn Entropy) -> AuditRecord {
    AuditRecord {
        id: AuditId::fresh(entropy),
        at: START,
        actor: "test".into(),
        action: "set up".into(),
        subject: "house".into(),
        detail: serde_json::json!({}),
    }
}

/// Fills an empty database: every third request is authorised first.
pub async fn furnish(store: &dyn Store, entropy: &Arc<dyn Entropy>, at: Timestamp, requests: usize) -> Plan {
    let vault = open_vault(store, entropy.clone()).await;
    let e = &**entropy;
    let customer = CustomerId::fresh(e);
    let payee = PayeeId::fresh(e);
    let row = Customer {
        id: customer.clone(),
        name: "Ann".into(),
        customer_number: "123456".into(),
        numbers: vec![],
        status: CustomerStatus::Active,
        language: Language::English,
        created_at: at,
    };
    store.add_customer(&row, &audit_row(e)).await.unwrap();
    let row = Payee { id: payee.clone(), name: "Water Works".into(), spoken_name_wav: None, created_at: at };
    store.add_payee(&row, &audit_row(e)).await.unwrap();
    let pan = Pan::parse("4111111111111111").unwrap();
    let card = CardId::fresh(e);
    let row = CardRecord {
        id: card.clone(),
        customer: customer.clone(),
        last4: pan.last4(),
        length: 16,
        expiry: None,
        status: CardStatus::Active,
        sealed: vault.seal_card(&card, &customer, &pan).unwrap(),
        digest: vault.digest_card(&pan),
        created_at: at,
    };
    store.add_card(&row, &audit_row(e)).await.unwrap();
    let mut plan = Plan { customer, card, payee, requests: Vec::new() };
    for nth in 0..requests {
        let amount = Money::new(1000 + i64::try_from(nth).unwrap(), Currency::Usd).unwrap();
        let due = ask(store, e, at, &plan, amount).await.unwrap();
        plan.requests.push(due);
    }
    plan
}

/// One more request.
pub async fn ask(store: &dyn Store, e: &dyn Entropy, at: Timestamp, plan: &Plan, amount: Money) -> Result<Due, StoreError> {
    let request = PaymentRequest {
        id: RequestId::fresh(e),
        customer: plan.customer.clone(),
        payee: plan.payee.clone(),
        amount,
        due: None,
        expires_at: None,
        status: RequestStatus::Open,
        held_by: None,
        created_at: at,
    };
    store.add_request(&request, &audit_row(e)).await?;
    Ok(Due::of(request.id, amount))
}

/// A fresh directory: in memory where the machine has such a place, so that a simulation does not wait for the disk.
pub fn memory_dir() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).or_else(|_| tempfile::tempdir()) } else { tempfile::tempdir() }.unwrap()
}

/// A duration in milliseconds.
pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
