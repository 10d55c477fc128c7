//! One life of a process that is going to be killed: nodes with their workers, callers who say yes, people who ask for more. It runs as a child of
//! [`super::crash`], which tells it by the environment where it lives.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::acts::{Act, Ledge, Node};
use super::audit;
use super::dice::Dice;
use super::house::{self, Due, Plan};
use super::wire::Customer;
use voicepay::clock::{Clock, Entropy, SystemClock, SystemEntropy, Timestamp};
use voicepay::money::{Currency, Money};
use voicepay::processor::sealer::Sealer;
use voicepay::processor::{Processor, ProcessorConfig};
use voicepay::store::{Store, StoreError};

/// Tells a child all it has to know, as JSON.
pub const LIFE_ENV: &str = "VOICEPAY_TEST_LIFE";
/// How long a life lasts at most, if nobody ends it.
const LIFE_MS: u64 = 3_000;
/// How many requests each life adds.
const NEW_REQUESTS: usize = 3;

/// Where and how a child lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Life {
    pub dir: PathBuf,
    /// The database: a path, or an address of PostgreSQL.
    pub place: String,
    pub seed: u64,
    pub plan: Plan,
    /// How far its clock is ahead of the machine's, in milliseconds.
    pub ahead_ms: i64,
    /// How long its authorisations stand, in milliseconds.
    pub hold_ms: u64,
    /// Nodes in one process, each with leases of its own.
    pub nodes: usize,
}

/// The machine's clock, set wrong.
#[derive(Clone, Copy, Debug)]
pub struct Ahead(pub i64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0 + self.0)
    }
}

/// Promises as lines of a file: what was written to it survives the writer.
struct Notes(std::fs::File);

impl Notes {
    fn open(dir: &Path) -> Self {
        Self(std::fs::OpenOptions::new().append(true).create(true).open(dir.join("promises")).unwrap())
    }
}

impl Ledge for Notes {
    fn taken(&self, asked: &str, id: &str) {
        (&self.0).write_all(format!("{asked} {id}\n").as_bytes()).unwrap();
    }
}

/// What may be said yes to: what is open, what was paid lately (a yes that is repeated), and something new.
async fn dues(
    store: &dyn Store,
    entropy: &dyn Entropy,
    now: Timestamp,
    plan: &Plan,
    dice: &mut Dice,
) -> Result<Vec<Due>, StoreError> {
    let mut all = Vec::new();
    for _ in 0..NEW_REQUESTS {
        let amount = Money::new(1000 + i64::try_from(dice.below(5000)).unwrap(), Currency::Usd).unwrap();
        all.push(house::ask(store, entropy, now, plan, amount).await?);
    }
    for open in store.payable_requests(&plan.customer, now).await?.into_iter().take(4) {
        all.push(Due::of(open.request.id, open.request.amount));
    }
    for payment in store.payments(4).await? {
        all.push(Due::of(payment.intent.request, payment.intent.amount));
    }
    Ok(all)
}

/// Lives until it is killed, or its time is up.
pub async fn live(life: Life) -> Result<(), StoreError> {
    let mut dice = Dice::new(life.seed);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let clock = Ahead(life.ahead_ms);
    let store = house::open_store(&life.place).await?;
    let bank = Customer::of(&life.dir.join("bank"));
    let cfg = ProcessorConfig { authorisation_ttl_ms: life.hold_ms, ..house::quick() };
    let mut plan = life.plan.clone();
    plan.requests = dues(&*store, &*entropy, clock.now(), &plan, &mut dice).await?;
    let promises = Arc::new(Notes::open(&life.dir));
    let over = CancellationToken::new();
    let mut nodes = Vec::new();
    for _ in 0..life.nodes {
        let Ok(vault) = house::try_vault(&*store, entropy.clone()).await else { return Err(StoreError::Busy) };
        let keys = vault.clone();
        let processor =
            Processor::new(store.clone(), Arc::new(bank.clone()), vault, Arc::new(clock), entropy.clone(), cfg.clone());
        let (worker, shutdown) = (processor.clone(), over.clone());
        tokio::spawn(async move { worker.run(shutdown).await });
        let sealer = Sealer::new(store.clone(), keys, Arc::new(clock), entropy.clone(), audit::quick());
        let shutdown = over.clone();
        tokio::spawn(async move { sealer.run(shutdown).await });
        nodes.push(Arc::new(Node {
            store: store.clone(),
            processor,
            plan: plan.clone(),
            bank: Arc::new(bank.clone()),
            promises: promises.clone(),
        }));
    }
    let ends = tokio::time::Instant::now() + Duration::from_millis(LIFE_MS);
    while tokio::time::Instant::now() < ends {
        let node = dice.one_of(&nodes).unwrap().clone();
        let mut own = Dice::new(dice.next());
        let act = Act::thrown(&mut own);
        // Several at once, as in a service.
        let acting = tokio::spawn(async move { node.act(act, &mut own).await });
        if dice.percent(60) {
            drop(acting.await);
        }
        tokio::time::sleep(house::ms(u64::try_from(dice.below(6)).unwrap())).await;
    }
    over.cancel();
    Ok(())
}
