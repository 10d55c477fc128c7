//! What every run works on: a customer with cards, a payee, requests; and a processor that is opened on a database of it, as a node is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dice::Dice;
use crate::people;
use voicepay::clock::{Entropy, Timestamp};
use voicepay::ids::{CallId, CardId, CustomerId, PayeeId, RequestId};
use voicepay::money::{Currency, Money};
use voicepay::payment::{Capture, Evidence};
use voicepay::processor::{ChargeOrder, ProcessorConfig};
use voicepay::store::{self, DatabaseUrl, PgStore, SqliteStore, Store, StoreConfig, StoreError, UnlockError};
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
            occasion: dice.one_of(&due.calls).unwrap().clone().into(),
            capture: due.capture,
            evidence: Evidence { policy_version: "proof".into(), ..Evidence::default() },
            guards: voicepay::processor::OrderGuards::default(),
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

/// Fills an empty database: every third request is authorised first.
pub async fn furnish(store: &dyn Store, entropy: &Arc<dyn Entropy>, at: Timestamp, requests: usize) -> Plan {
    let vault = open_vault(store, entropy.clone()).await;
    let e = &**entropy;
    let (customer, card, payee) = people::move_in(store, &vault, e, at, "4111111111111111").await;
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
    let request = people::request(e, at, &plan.customer, &plan.payee, amount);
    store.add_request(&request, &people::audit_row(e, at)).await?;
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
