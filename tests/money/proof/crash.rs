//! Kills for real. A child process works on a database and dies by SIGKILL at a named point or at any moment; then the next one is born over what is
//! left, again and again; the bank stays. In the end everything settles and is compared. `make crash-test` does so a thousand times on each
//! database, a slice of it runs with the other tests.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::acts::Node;
use super::audit::{self, Seen};
use super::bank::{Bank, Fault};
use super::check::{self, Faults, Promises};
use super::cluster::Cluster;
use super::dice::Dice;
use super::house::{self, Plan};
use super::life::{self, Ahead, LIFE_ENV, Life};
use super::wire::{Counter, Customer};
use crate::support::wait_or_kill;
use voicepay::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use voicepay::crash::CRASH_ENV;
use voicepay::processor::Processor;
use voicepay::processor::crash::all_points;
use voicepay::processor::sealer::Sealer;
use voicepay::store::Store;

/// How many kills `make crash-test` makes on each database.
const KILLS_ENV: &str = "VOICEPAY_CRASH_KILLS";
const SEED_ENV: &str = "VOICEPAY_CRASH_SEED";
const KILLS: u64 = 1_100;
/// How many kills the other tests wait for.
const SHORT_KILLS: u64 = 40;
const SHORT_KILLS_SERVER: u64 = 15;
const ROUNDS_AT_A_TIME: usize = 2;
/// How many lives one database sees.
const LIVES: u64 = 25;
const SHORT_LIVES: u64 = 10;
/// A life that does not meet its point ends at some other moment.
const POINT_LIMIT_MS: usize = 900;
const ANY_MOMENT_MS: usize = 350;
/// In how many lives of a hundred the server is killed too.
const SERVER_KILLS_PERCENT: usize = 15;
const TELL_MS: u64 = 2_000;
/// How often the settling looks at most; how many of these looks are past the life of an authorisation together.
const SETTLE_LOOKS: u32 = 80;
const SETTLE_LONG_LOOKS: u32 = 4;
/// How long an identifier is.
const WHOLE_ID: usize = 28;
const HOUR_MS: i64 = 3_600_000;
/// How a life ends whose database went away at its very beginning.
const DATABASE_GONE: i32 = 3;
const CHILD: &str = "proof::crash::child_lives_until_it_is_killed";

/// What all rounds came to.
#[derive(Debug, Default)]
struct Sum {
    /// How often each point killed.
    points: BTreeMap<String, u64>,
    /// Kills at no named point.
    any_moment: u64,
    /// Lives that came to their end.
    unharmed: u64,
    /// Not counted among the kills of ours.
    server_kills: u64,
    rounds: u64,
    payments: usize,
    attempts: usize,
    faults: Faults,
    met: BTreeMap<Fault, u64>,
}

impl Sum {
    fn kills(&self) -> u64 {
        self.points.values().sum::<u64>() + self.any_moment
    }

    fn line(&self) -> String {
        let (double, lost) = (self.faults.double.len(), self.faults.lost.len());
        format!("{} kills, {double} double, {lost} lost", self.kills())
    }

    /// The point that killed least often, so that all do.
    fn rarest(&self, dice: &mut Dice) -> String {
        let all = all_points();
        let count = |p: &String| self.points.get(p).copied().unwrap_or(0);
        let least = all.iter().map(count).min().unwrap_or(0);
        let rare: Vec<_> = all.iter().filter(|p| count(p) <= least + 2).cloned().collect();
        dice.one_of(&rare).unwrap().clone()
    }
}

/// A database of its own for a round.
pub trait Databases: Sync {
    /// Where a fresh one is.
    fn fresh(&self, dir: &Path) -> String;
    /// Whether there is a server under it, which may be killed.
    fn has_server(&self) -> bool;
    /// Kills it, and starts it again.
    fn kill_server(&self);
    /// Does something during which nobody kills the server.
    fn undisturbed(&self, work: &mut dyn FnMut());
}

struct Sqlite;

impl Databases for Sqlite {
    fn fresh(&self, dir: &Path) -> String {
        dir.join("v.db").to_string_lossy().into_owned()
    }
    fn has_server(&self) -> bool {
        false
    }
    fn kill_server(&self) {}
    fn undisturbed(&self, work: &mut dyn FnMut()) {
        work();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The process that is killed.
#[test]
#[ignore = "run as a child process by the tests below"]
fn child_lives_until_it_is_killed() {
    let Ok(text) = std::env::var(LIFE_ENV) else { return };
    let life: Life = serde_json::from_str(&text).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let lived = runtime.block_on(life::live(life));
    if let Err(error) = &lived {
        eprintln!("{error}");
    }
    // As if it were killed here: nobody waits for what still runs.
    std::process::exit(if lived.is_ok() { 0 } else { DATABASE_GONE });
}

/// How a life ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    AtPoint,
    AnyMoment,
    Unharmed,
    DatabaseGone,
}

/// Lives until `limit_ms`, its point or its end; `server`: the one under it, and when that is killed.
fn one_life(life: &Life, point: Option<&str>, limit_ms: u64, mut server: Option<(u64, &dyn Databases)>) -> End {
    let log = life.dir.join("log");
    let file = std::fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", CHILD, "--ignored", "--nocapture"]).env(LIFE_ENV, serde_json::to_string(life).unwrap());
    command.env_remove(CRASH_ENV).stdout(file.try_clone().unwrap()).stderr(file);
    if let Some(point) = point {
        command.env(CRASH_ENV, point);
    }
    let before = usize::try_from(std::fs::metadata(&log).map_or(0, |m| m.len())).unwrap();
    let mut process = command.spawn().unwrap();
    let (status, _) = wait_or_kill(&mut process, house::ms(limit_ms), |lived| {
        if let Some((_, databases)) = server.take_if(|(at, _)| lived >= house::ms(*at)) {
            databases.kill_server();
        }
    });
    let bytes = std::fs::read(&log).unwrap();
    let said = String::from_utf8_lossy(bytes.get(before..).unwrap_or_default()).into_owned();
    match (status.code(), status.signal()) {
        (Some(0), _) => End::Unharmed,
        (Some(DATABASE_GONE), _) => End::DatabaseGone,
        (_, Some(9)) if said.contains("kills the process at") => End::AtPoint,
        (_, Some(9)) => End::AnyMoment,
        _ => panic!("a child failed: {status}\n{said}"),
    }
}

/// One database through many lives.
fn round(seed: u64, lives: u64, databases: &dyn Databases, sum: &Mutex<Sum>, enough: &dyn Fn(&Sum) -> bool) {
    let mut dice = Dice::new(seed);
    let dir = house::memory_dir();
    let mut place = String::new();
    databases.undisturbed(&mut || place = databases.fresh(dir.path()));
    let bank = Arc::new(Bank::new(seed));
    let counter = Counter::open(&dir.path().join("bank"), bank.clone(), seed);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let mut plan = None;
    databases.undisturbed(&mut || {
        plan = Some(runtime().block_on(async {
            let store = house::open_store(&place).await.unwrap();
            house::furnish(&*store, &entropy, SystemClock.now(), 0).await
        }));
    });
    let plan = plan.unwrap();
    let (mut ahead_ms, mut seen, mut wrong) = (0, Seen::default(), Vec::new());
    for nth_life in 0..lives {
        // What the dead have sent arrives before the clock is set.
        counter.quiet();
        ahead_ms += clock_jump(&mut dice, &bank);
        bank.time_is(SystemClock.now().0 + ahead_ms);
        let life = Life {
            dir: dir.path().to_owned(),
            place: place.clone(),
            seed: dice.next(),
            plan: plan.clone(),
            ahead_ms,
            hold_ms: if dice.percent(50) { 30 } else { 6 * 24 * 3_600_000 },
            nodes: 1 + dice.below(2),
        };
        let at_point = dice.percent(75);
        let point = at_point.then(|| sum.lock().unwrap_or_else(PoisonError::into_inner).rarest(&mut dice));
        let nth = 1 + dice.below(2);
        let named = point.as_ref().map(|p| format!("{p}#{nth}"));
        let limit = if at_point { 500 + dice.below(POINT_LIMIT_MS) } else { 40 + dice.below(ANY_MOMENT_MS) };
        let server_dies = databases.has_server() && (nth_life == 1 || dice.percent(SERVER_KILLS_PERCENT));
        let server = server_dies.then(|| (u64::try_from(dice.below(ANY_MOMENT_MS)).unwrap(), databases));
        // Its server takes a moment to be back: time to go on after that.
        let limit = u64::try_from(limit + if server_dies { POINT_LIMIT_MS } else { 0 }).unwrap();
        let ended = one_life(&life, named.as_deref(), limit, server);
        databases.undisturbed(&mut || {
            let after = named.as_deref().unwrap_or("some moment");
            let looked = runtime().block_on(async {
                let store = house::open_store(&place).await.unwrap();
                let looked = seen.look(&*store).await;
                store.close().await;
                looked
            });
            wrong.extend(looked.into_iter().map(|what| format!("after a life to {after}: {what}")));
        });
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        match (ended, point) {
            (End::AtPoint, Some(point)) => *sum.points.entry(point).or_default() += 1,
            (End::AtPoint | End::AnyMoment, _) => sum.any_moment += 1,
            (End::DatabaseGone, _) if !databases.has_server() => panic!("the database failed: {}", dir.keep().display()),
            (End::Unharmed | End::DatabaseGone, _) => sum.unharmed += 1,
        }
        sum.server_kills += u64::from(server_dies);
        if enough(&sum) {
            break;
        }
    }
    counter.quiet();
    let mut found = None;
    databases.undisturbed(&mut || {
        found = Some(runtime().block_on(settle_and_check(&place, dir.path(), &bank, ahead_ms, &plan, &mut seen)));
    });
    let (mut faults, payments, attempts) = found.unwrap();
    faults.other.extend(wrong);
    drop(counter);
    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
    if !faults.none() {
        eprintln!("round {seed} failed:\n  {}", faults.all().join("\n  "));
        eprintln!("  its database and log: {}", dir.keep().display());
    }
    sum.rounds += 1;
    sum.payments += payments;
    sum.attempts += attempts;
    for (fault, n) in bank.met() {
        *sum.met.entry(fault).or_default() += n;
    }
    sum.faults.double.extend(faults.double);
    sum.faults.lost.extend(faults.lost);
    sum.faults.other.extend(faults.other);
}

/// Between two lives the clock may be set, forward or back. Past the time for which the acquirer keeps keys nothing is on its way any more.
fn clock_jump(dice: &mut Dice, bank: &Bank) -> i64 {
    match dice.below(100) {
        0..70 => 0,
        70..80 => HOUR_MS,
        80..90 => -5 * 60_000,
        90..95 => 60_000,
        95..98 => {
            bank.flush();
            if dice.percent(50) { 25 * HOUR_MS } else { 40 * HOUR_MS }
        }
        _ => {
            bank.flush();
            7 * 24 * HOUR_MS
        }
    }
}

/// Lets everything come to its end with a bank that behaves, and compares.
async fn settle_and_check(
    place: &str,
    dir: &Path,
    bank: &Arc<Bank>,
    ahead_ms: i64,
    plan: &Plan,
    seen: &mut Seen,
) -> (Faults, usize, usize) {
    bank.calm_down();
    let store: Arc<dyn Store> = house::open_store(place).await.unwrap();
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let mut dice = Dice::new(1);
    let mut ahead_ms = ahead_ms;
    let (mut looks, mut long) = (0, 0);
    while looks < SETTLE_LOOKS {
        looks += 1;
        // Whatever is in doubt ends; then authorisations that nobody captured expire, which may leave something in doubt again.
        let ended = store.unfinished(1).await.unwrap().is_empty();
        if ended && long == SETTLE_LONG_LOOKS {
            break;
        }
        long += u32::from(ended);
        ahead_ms += if ended { 3 * 24 * HOUR_MS } else { 2 * HOUR_MS };
        let vault = house::open_vault(&*store, entropy.clone()).await;
        let clock = Ahead(ahead_ms);
        let gateway = Arc::new(Customer::of(&dir.join("bank")));
        let processor = Processor::new(store.clone(), gateway, vault, Arc::new(clock), entropy.clone(), house::quick());
        let promises = Arc::new(Nothing);
        let node = Node { store: store.clone(), processor, plan: plan.clone(), bank: bank.clone(), promises };
        node.processor.run_once().await.unwrap();
        for payment in store.conflicts(50).await.unwrap() {
            node.settle_conflict(&payment, dice.percent(50)).await;
        }
    }
    let mut promises = Promises::default();
    for line in std::fs::read_to_string(dir.join("promises")).unwrap_or_default().lines() {
        // Half a line: killed in the middle of it, and so nobody was answered.
        if let Some((asked, id)) = line.split_once(' ').filter(|(_, id)| id.len() >= WHOLE_ID) {
            promises.add(asked, id);
        }
    }
    let mut faults = check::check(&*store, bank, &promises).await;
    let vault = house::open_vault(&*store, entropy.clone()).await;
    let sealer = Sealer::new(store.clone(), vault, Arc::new(Ahead(ahead_ms)), entropy, audit::quick());
    faults.other.extend(audit::sealed_to_the_end(&*store, &sealer).await);
    faults.other.extend(seen.look(&*store).await);
    let payments = check::all_payments(&*store).await;
    (faults, payments.len(), payments.iter().map(|p| p.attempts.len()).sum())
}

struct Nothing;

impl super::acts::Ledge for Nothing {
    fn taken(&self, _: &str, _: &str) {}
}

/// Rounds, two at a time, until there were `kills`.
fn many(kills: u64, lives: u64, seed: u64, name: &str, databases: &dyn Databases) -> Sum {
    let sum = Mutex::new(Sum::default());
    let (next, over) = (AtomicU64::new(seed), AtomicBool::new(false));
    let enough = |sum: &Sum| sum.kills() >= kills;
    std::thread::scope(|scope| {
        let rounds: Vec<_> = (0..ROUNDS_AT_A_TIME)
            .map(|_| {
                scope.spawn(|| {
                    while !enough(&sum.lock().unwrap_or_else(PoisonError::into_inner)) {
                        round(next.fetch_add(1, Ordering::SeqCst), lives, databases, &sum, &enough);
                    }
                })
            })
            .collect();
        let (sum, over) = (&sum, &over);
        let teller = scope.spawn(move || {
            while !over.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_millis(TELL_MS));
                let sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                let points = sum.points.len();
                println!("{name}: {}; {points} of {} points, {} databases checked", sum.line(), all_points().len(), sum.rounds);
            }
        });
        let failed = rounds.into_iter().filter_map(|r| r.join().err()).next();
        over.store(true, Ordering::SeqCst);
        teller.thread().unpark();
        if let Some(why) = failed {
            std::panic::resume_unwind(why);
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn told(name: &str, sum: &Sum) {
    println!(
        "{name}: {} at {} named points (fewest {}), {} at any moment, {} of the server; {} lives unharmed",
        sum.points.values().sum::<u64>(),
        sum.points.len(),
        sum.points.values().min().copied().unwrap_or(0),
        sum.any_moment,
        sum.server_kills,
        sum.unharmed,
    );
    println!(
        "{name}: {} databases, {} payments, {} operations, all compared with the bank",
        sum.rounds, sum.payments, sum.attempts
    );
    println!("{name}: what befell requests: {:?}", sum.met);
    for wrong in sum.faults.all() {
        println!("{name}: {wrong}");
    }
}

#[test]
fn some_kills_lose_nothing() {
    let sum = many(SHORT_KILLS, SHORT_LIVES, 1, "sqlite", &Sqlite);
    told("sqlite", &sum);
    assert!(sum.faults.none(), "{:?}", sum.faults.all());
    assert!(sum.kills() >= SHORT_KILLS && sum.points.len() > 10, "{} kills at {} points", sum.kills(), sum.points.len());
}

#[test]
fn some_kills_lose_nothing_on_a_server_that_is_killed_too() {
    let Some(cluster) = Cluster::needed(Cluster::start()) else { return };
    let sum = many(SHORT_KILLS_SERVER, SHORT_LIVES, 1, "postgresql", &cluster);
    told("postgresql", &sum);
    assert!(sum.faults.none(), "{:?}", sum.faults.all());
    assert!(sum.kills() >= SHORT_KILLS_SERVER, "{} kills", sum.kills());
}

/// `make crash-test`. Its last line is the sum of both databases.
#[test]
#[ignore = "long: make crash-test"]
fn a_thousand_kills_on_each_database() {
    let number = |name: &str, otherwise: u64| std::env::var(name).ok().map_or(otherwise, |n| n.parse().unwrap());
    let (kills, seed) = (number(KILLS_ENV, KILLS), number(SEED_ENV, 1));
    let mut all = Sum::default();
    let mut missed = Vec::new();
    let cluster = Cluster::start().unwrap(); // first, so that it is told at once where there is none
    let sqlite = many(kills, LIVES, seed, "sqlite", &Sqlite);
    told("sqlite", &sqlite);
    let postgres = many(kills, LIVES, seed, "postgresql", &cluster);
    told("postgresql", &postgres);
    for (name, sum) in [("sqlite", sqlite), ("postgresql", postgres)] {
        missed.extend(all_points().into_iter().filter(|p| !sum.points.contains_key(p)).map(|p| format!("{name}: {p}")));
        all.any_moment += sum.kills();
        all.faults.double.extend(sum.faults.double);
        all.faults.lost.extend(sum.faults.lost);
        all.faults.other.extend(sum.faults.other);
    }
    // A shorter run than the whole can't meet them all.
    if kills < KILLS && !missed.is_empty() {
        println!("points at which nothing died: {}", missed.join(", "));
        missed.clear();
    }
    println!("{}", all.line());
    assert!(all.faults.none(), "{:?}", all.faults.all());
    assert!(missed.is_empty(), "points at which nothing died: {missed:?}");
}
