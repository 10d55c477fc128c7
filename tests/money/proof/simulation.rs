//! A seeded simulation: three nodes over one database, a bank with faults, clocks that run apart and jump both ways, nodes that die between any two
//! transactions, leases that are lost, and callers that say yes to one request in several calls at once. `make simulate` runs many seeds; a
//! failing one prints the command that repeats it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::acts::{Act, Ledge, Node};
use super::bank::{Bank, Say, Wire};
use super::check::{self, Faults, Promises};
use super::dice::Dice;
use super::house::{self, Plan, START};
use super::stage::{Died, Stage};
use voicepay::clock::{Clock, Entropy, SeededEntropy, Timestamp};
use voicepay::gateway::{Gateway, GatewayRequest};
use voicepay::ids::AttemptId;
use voicepay::payment::{AttemptState, BankWord};
use voicepay::processor::{Processor, ProcessorConfig};
use voicepay::store::Store;

/// Which seeds `make simulate` runs: `from..to`.
const SEEDS_ENV: &str = "VOICEPAY_SIMULATE";
/// How many seeds `make test` runs.
const SHORT_SEEDS: u64 = 200;
const NODES: usize = 3;
const REQUESTS: usize = 4;
/// How often the settling looks at most, and how far the clock moves on each time.
const SETTLE_LIMIT: u32 = 120;
const SETTLE_STEP_MS: i64 = 4 * 3_600_000;
/// Together past the life of an authorisation.
const SETTLE_LONG_MS: i64 = 3 * 24 * 3_600_000;
const SETTLE_LONG_TURNS: u32 = 4;
/// Longer than a request may be sent again; by then nothing is on its way any more: see [`Bank::flush`].
const LONG_JUMP_MS: i64 = 25 * 3_600_000;
/// Longer than the bank keeps keys.
const LONGER_JUMP_MS: i64 = 40 * 3_600_000;

/// The clock of one node. It is also where the node waits for its turn.
struct NodeClock {
    stage: Arc<Stage<Act>>,
    node: usize,
    world: Arc<AtomicI64>,
    ahead: Arc<AtomicI64>,
}

impl Clock for NodeClock {
    fn now(&self) -> Timestamp {
        self.stage.gate(self.node);
        Timestamp(self.world.load(Ordering::SeqCst) + self.ahead.load(Ordering::SeqCst))
    }
}

/// The bank as a node reaches it.
struct Line {
    stage: Arc<Stage<Act>>,
    node: usize,
    bank: Arc<Bank>,
    dice: Mutex<Dice>,
    store: Arc<dyn Store>,
    told: Arc<Told>,
}

impl Line {
    /// A byte is about to leave: that it may is committed, and so is how often it did.
    async fn about_to_leave(&self, wire: &Wire) {
        let attempt = AttemptId::parse(&wire.reference).unwrap();
        let job = self.store.job(&attempt).await.unwrap().unwrap();
        let (key, sends) = match job.attempt.state {
            AttemptState::Dispatched { key, sends, .. } | AttemptState::NeedsReconciliation { key, sends, .. } => (key.0, sends),
            // Overtaken by news of it, by another node, or by a person.
            AttemptState::Conflicted { .. }
            | AttemptState::Succeeded { .. }
            | AttemptState::Declined { .. }
            | AttemptState::Reversed { .. } => return,
            AttemptState::Prepared => return self.told.early(format!("{attempt} was sent before that was committed")),
        };
        let before = self.bank.sends_of(&wire.reference);
        if key != wire.key {
            self.told.early(format!("{attempt} was sent with another key than was committed"));
        }
        if before >= u64::from(sends) {
            self.told.early(format!("{attempt} was sent {} times, and {sends} are committed", before + 1));
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line")
    }
}

#[async_trait]
impl Gateway for Line {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    async fn send(&self, request: &GatewayRequest) -> BankWord {
        let wire = Wire::of(request);
        self.about_to_leave(&wire).await;
        self.stage.gate(self.node); // dies, or is overtaken, with the request on its way
        let said = self.bank.send(&wire);
        self.stage.gate(self.node); // … and with the answer on its way
        said.word()
    }

    async fn resolve(&self, request: &GatewayRequest) -> BankWord {
        self.stage.gate(self.node);
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        let said: Say = self.bank.resolve(&request.our_reference, &mut dice);
        drop(dice);
        self.stage.gate(self.node);
        said.word()
    }
}

#[derive(Default)]
struct Told {
    promises: Mutex<Promises>,
    /// What left too early.
    early: Mutex<Vec<String>>,
}

impl Told {
    fn early(&self, what: String) {
        self.early.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

impl Ledge for Told {
    fn taken(&self, asked: &str, id: &str) {
        self.promises.lock().unwrap_or_else(PoisonError::into_inner).add(asked, id);
    }
}

/// The world of one seed.
struct World {
    seed: u64,
    stage: Arc<Stage<Act>>,
    bank: Arc<Bank>,
    world: Arc<AtomicI64>,
    ahead: Vec<Arc<AtomicI64>>,
    told: Arc<Told>,
    plan: Plan,
    dir: tempfile::TempDir,
    lives: AtomicU64,
}

/// What became of a seed.
#[derive(Debug)]
pub struct Run {
    pub faults: Faults,
    pub deaths: u64,
    pub sends: u64,
    /// The same for the same seed.
    pub print: String,
}

/// A furnished database, as bytes to copy: migrations take longer than most runs.
fn template() -> &'static (Vec<u8>, Plan) {
    static TEMPLATE: OnceLock<(Vec<u8>, Plan)> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let dir = house::memory_dir();
        let path = dir.path().join("template.db");
        let plan = runtime().block_on(async {
            let cfg = voicepay::store::StoreConfig { path: path.clone(), ..voicepay::store::StoreConfig::default() };
            let store = voicepay::store::SqliteStore::open(&cfg).await.unwrap();
            let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
            let plan = house::furnish(&store, &entropy, START, REQUESTS).await;
            store.close().await; // folds the log into the file
            plan
        });
        (std::fs::read(&path).unwrap(), plan)
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn config(dice: &mut Dice) -> ProcessorConfig {
    ProcessorConfig {
        // One attempt at a time: then a node is one thread of control.
        batch: 1,
        poll_ms: 1,
        // A few authorisations expire while the run lasts.
        authorisation_ttl_ms: if dice.percent(30) { 20_000 } else { 6 * 24 * 3600 * 1000 },
        ..ProcessorConfig::default()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let (database, plan) = template();
        let dir = house::memory_dir();
        std::fs::write(dir.path().join("v.db"), database).unwrap();
        let bank = Arc::new(Bank::new(seed));
        bank.time_is(START.0);
        Self {
            seed,
            stage: Stage::new(NODES),
            bank,
            world: Arc::new(AtomicI64::new(START.0)),
            ahead: (0..NODES).map(|_| Arc::default()).collect(),
            told: Arc::default(),
            plan: plan.clone(),
            dir,
            lives: AtomicU64::new(0),
        }
    }

    fn database(&self) -> std::path::PathBuf {
        self.dir.path().join("v.db")
    }

    /// One life of a node, until it is told that it is over.
    async fn life(&self, node: usize, dice: &mut Dice) {
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(dice.next()));
        let store = house::open_sqlite(&self.database()).await;
        let vault = house::open_vault(&*store, entropy.clone()).await;
        let line = Line {
            stage: self.stage.clone(),
            node,
            bank: self.bank.clone(),
            store: store.clone(),
            told: self.told.clone(),
            dice: Mutex::new(Dice::new(dice.next())),
        };
        let clock = NodeClock { stage: self.stage.clone(), node, world: self.world.clone(), ahead: self.ahead[node].clone() };
        let processor = Processor::new(store.clone(), Arc::new(line), vault, Arc::new(clock), entropy, config(dice));
        let bank = self.bank.clone();
        let node_of = Node { store, processor, plan: self.plan.clone(), bank, promises: self.told.clone() };
        loop {
            // What the last act left to do in the background, such as giving a connection back.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            let Some(act) = self.stage.next(node) else { return };
            node_of.act(act, dice).await;
        }
    }

    fn thread(&self, node: usize) {
        let mut dice = Dice::about(self.seed, &format!("node {node}"));
        loop {
            let lived = catch_unwind(AssertUnwindSafe(|| runtime().block_on(self.life(node, &mut dice))));
            match lived {
                Ok(()) => break,
                Err(why) if why.is::<Died>() => {
                    self.lives.fetch_add(1, Ordering::SeqCst);
                    self.stage.reborn(node);
                }
                Err(_) => break, // the panic was printed where it came up
            }
        }
        self.stage.leave(node);
    }

    /// Every node ends what it is at.
    fn all_finish(&self) {
        for node in 0..NODES {
            while !self.stage.idle(node) && !self.stage.gone(node) {
                self.stage.step(node, None);
            }
        }
    }

    /// The clocks move, mostly a little, sometimes wildly.
    fn time_passes(&self, dice: &mut Dice) {
        let by = match dice.below(100) {
            0..60 => i64::try_from(dice.below(400)).unwrap(),
            60..80 => i64::try_from(dice.below(20_000)).unwrap(),
            80..92 => 60_000 + i64::try_from(dice.below(600_000)).unwrap(),
            92..95 => -i64::try_from(dice.below(900_000)).unwrap(),
            95..97 => {
                let ahead = i64::try_from(dice.below(7_200_000)).unwrap() - 3_600_000;
                self.ahead[dice.below(NODES)].store(ahead, Ordering::SeqCst);
                0
            }
            97..98 => 3_600_000,
            _ => {
                // Nobody stands still for a day with a request or an answer in hand, and nothing is on its way for so long.
                self.all_finish();
                self.bank.flush();
                if dice.percent(50) { LONG_JUMP_MS } else { LONGER_JUMP_MS }
            }
        };
        self.time_moves(by);
    }

    fn time_moves(&self, by: i64) {
        self.bank.time_is(self.world.fetch_add(by, Ordering::SeqCst) + by);
    }

    /// Everything that is under way ends; then the worker of node 0 looks until nothing is left to do.
    async fn settle(&self, store: &dyn Store) {
        self.all_finish();
        self.bank.calm_down();
        self.ahead.iter().for_each(|a| a.store(0, Ordering::SeqCst));
        // Whatever is in doubt ends; then authorisations that nobody captured expire, which may leave something in doubt again.
        let (mut turns, mut long) = (0, 0);
        while turns < SETTLE_LIMIT {
            turns += 1;
            let ended = store.unfinished(1).await.unwrap().is_empty();
            if ended && long == SETTLE_LONG_TURNS {
                return;
            }
            long += u32::from(ended);
            self.time_moves(if ended { SETTLE_LONG_MS } else { SETTLE_STEP_MS });
            for act in [Act::Work, Act::Resolve] {
                self.do_now(0, act);
            }
        }
    }

    fn do_now(&self, node: usize, act: Act) {
        if self.stage.gone(node) {
            return;
        }
        self.stage.step(node, Some(act));
        while !self.stage.idle(node) && !self.stage.gone(node) {
            self.stage.step(node, None);
        }
    }
}

/// One seed from its first yes to the comparison of all books.
pub fn run(seed: u64) -> Run {
    let world = World::new(seed);
    let mut dice = Dice::about(seed, "director");
    let mut print = Dice::new(seed);
    let mut faults = std::thread::scope(|scope| {
        for node in 0..NODES {
            let world = &world;
            scope.spawn(move || world.thread(node));
        }
        world.stage.quiet();
        let steps = 100 + dice.below(260);
        for _ in 0..steps {
            if dice.percent(25) {
                world.time_passes(&mut dice);
            }
            let node = dice.below(NODES);
            if world.stage.gone(node) {
                break;
            }
            if world.stage.idle(node) {
                world.stage.step(node, Some(Act::thrown(&mut dice)));
            } else if dice.percent(4) {
                world.stage.kill(node);
            } else {
                world.stage.step(node, None);
            }
        }
        let faults = runtime().block_on(async {
            let store = house::open_sqlite(&world.database()).await;
            world.settle(&*store).await;
            let promises = world.told.promises.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut faults = check::check(&*store, &world.bank, &promises).await;
            faults.other.append(&mut world.told.early.lock().unwrap_or_else(PoisonError::into_inner));
            for transfer in store.transfers().await.unwrap() {
                print = Dice::about(print.next(), &format!("{transfer:?}"));
            }
            faults
        });
        for node in 0..NODES {
            if !world.stage.gone(node) {
                world.stage.step(node, None);
            }
        }
        faults
    });
    if (0..NODES).any(|n| !world.stage.gone(n)) {
        faults.other.push("a node does not end".into());
    }
    let sends = world.bank.met().values().sum();
    Run { faults, deaths: world.lives.load(Ordering::SeqCst), sends, print: format!("{:016x}", print.next()) }
}

/// What a range of seeds came to.
#[derive(Default)]
struct Sum {
    failed: Vec<u64>,
    deaths: u64,
    sends: u64,
}

/// Runs seeds on as many threads as there are processors.
fn run_all(seeds: std::ops::Range<u64>, mut told: impl FnMut(u64, &Sum)) -> Sum {
    let next = AtomicU64::new(seeds.start);
    let done = AtomicUsize::new(0);
    let sum = Mutex::new(Sum::default());
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let total = usize::try_from(seeds.end - seeds.start).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end {
                        break;
                    }
                    let run = run(seed);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.deaths += run.deaths;
                    sum.sends += run.sends;
                    if !run.faults.none() {
                        eprintln!("seed {seed} failed:\n  {}", run.faults.all().join("\n  "));
                        eprintln!("  again: make simulate SEEDS={seed}..{}", seed + 1);
                        sum.failed.push(seed);
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        const LOOK: Duration = Duration::from_millis(100);
        const TELL_EVERY: u32 = 20;
        let mut looks = 0u32;
        while done.load(Ordering::SeqCst) < total {
            std::thread::sleep(LOOK);
            looks += 1;
            if looks.is_multiple_of(TELL_EVERY) {
                told(u64::try_from(done.load(Ordering::SeqCst)).unwrap(), &sum.lock().unwrap_or_else(PoisonError::into_inner));
            }
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn some_hundred_seeds_charge_once() {
    let sum = run_all(0..SHORT_SEEDS, |_, _| {});
    assert!(sum.failed.is_empty(), "seeds {:?} failed", sum.failed);
    assert!(sum.deaths > SHORT_SEEDS / 2, "nodes died only {} times", sum.deaths);
    assert!(sum.sends > SHORT_SEEDS, "only {} requests reached the bank", sum.sends);
}

#[test]
fn the_same_seed_makes_the_same_run() {
    for seed in [3, 17] {
        assert_eq!(run(seed).print, run(seed).print);
    }
}

/// `make simulate`.
#[test]
#[ignore = "long: make simulate"]
fn many_seeds() {
    let text = std::env::var(SEEDS_ENV).unwrap_or_else(|_| "0..10000".into());
    let (from, to) = text.split_once("..").unwrap();
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    let sum = run_all(from..to, |done, sum| {
        println!("{done} of {} seeds, {} deaths, {} sends, {} failed", to - from, sum.deaths, sum.sends, sum.failed.len());
    });
    println!("{} seeds, {} deaths, {} sends to the bank, {} failed", to - from, sum.deaths, sum.sends, sum.failed.len());
    assert!(sum.failed.is_empty(), "seeds {:?} failed", sum.failed);
}
