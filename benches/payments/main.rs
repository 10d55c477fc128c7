//! `make bench-payments`: whole payments a second beside the bare commit rate of the same database in the same run, what a
//! payment costs as the database grows, and a storm of the same orders again and again. Writes `benches/PAYMENTS.md`.
//!
//! The parts are the service's own: store, vault, sandbox acquirer, processor with its worker, sealer of the audit trail.
//! Nothing is mocked and nothing is made less durable.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a measurement that can't go on ends

#[path = "../../src/store/postgres/lab.rs"]
#[allow(dead_code)] // shared with tests, which need more of it
mod lab;
#[path = "../../tests/money/people.rs"]
#[allow(dead_code)] // tests need more of it
mod people;

mod bare;
mod fill;
mod house;
mod load;
mod page;
mod retries;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use house::{Database, House};

/// How long one figure is measured, in seconds, if nothing else is said.
const MEASURE_S: u64 = 8;

/// Customers that pay in turn.
const PAYERS: usize = 1_000;
/// Clients while the cost of a payment is measured.
const COST_CLIENTS: usize = 16;
/// Payments a sample of the cost; each adds about twenty rows, so that the smallest database stays small.
const COST_PAYMENTS: usize = 500;
/// Samples a size.
const COST_ROUNDS: usize = 7;

/// What to measure.
#[derive(Debug, Parser)]
#[command(
    name = "bench-payments",
    about = "Whole payments a second, beside the bare commit rate of the same database in the same run"
)]
struct Args {
    /// Which databases.
    #[arg(long, value_enum, default_value_t = Which::Both)]
    database: Which,
    /// Clients that pay, each one payment after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 32, 128])]
    clients: Vec<usize>,
    /// Seconds a figure.
    #[arg(long, default_value_t = MEASURE_S)]
    seconds: u64,
    /// Sizes of the database at which a payment's cost is measured, in rows of all tables that a payment writes to.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000, 5_000_000])]
    rows: Vec<u64>,
    /// Submit orders again and again, this many times in all, and measure nothing else.
    #[arg(long)]
    retries: Option<u64>,
    /// How many of those are in flight at a time.
    #[arg(long, default_value_t = 1_000)]
    in_flight: usize,
    /// Where the databases lie while they are measured: it should be the disk that the service will use.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The page to write.
    #[arg(long, default_value = "benches/PAYMENTS.md")]
    report: PathBuf,
    /// Cargo says so to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    Sqlite,
    Postgres,
    Both,
}

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(args));
}

async fn run(args: Args) {
    let root = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let root = root.unwrap();
    let mut sections = Vec::new();
    for kind in [house::Kind::Sqlite, house::Kind::Postgres] {
        let wanted = match args.database {
            Which::Both => true,
            Which::Sqlite => kind == house::Kind::Sqlite,
            Which::Postgres => kind == house::Kind::Postgres,
        };
        if !wanted {
            continue;
        }
        let Some(database) = Database::fresh(kind, root.path()).await else {
            eprintln!("bench-payments: no {} here; it is not measured", kind.name());
            continue;
        };
        if let Some(times) = args.retries {
            let house = House::open(&database, root.path(), 64).await;
            let orders = house.orders(retries::ORDERS).await;
            let told = retries::storm(&house.parts(), orders, times, args.in_flight).await;
            sections.push((page::Part::Retries(kind), page::retries(&told)));
        } else {
            sections.push((page::Part::Rates(kind), measure(&args, &database, root.path()).await));
        }
    }
    page::write(&args.report, sections);
}

/// Rates first, on a database that is nearly empty; then the cost of a payment in databases of several sizes.
async fn measure(args: &Args, database: &Database, root: &Path) -> String {
    let time = Duration::from_secs(args.seconds.max(1));
    let house = House::open(database, root, PAYERS).await;
    let mut rates = Vec::new();
    for &clients in &args.clients {
        let bare = bare::commits_a_second(database, root, clients, time).await;
        let load = load::pay(&house, clients, time).await;
        eprintln!("{clients} clients: {bare:.0} bare commits/s, {}", load.in_words());
        rates.push((clients, bare, load));
    }
    house.check_books().await;
    house.close().await;
    page::rates(time, &rates, &sizes(args, database.kind, root).await)
}

/// Databases of all sizes at once, and a few payments in each in turn, again and again: what else the machine does in the meantime is the same for
/// all of them.
async fn sizes(args: &Args, kind: house::Kind, root: &Path) -> Vec<page::Size> {
    let mut sizes = Vec::new();
    for &rows in &args.rows {
        let root = root.join(format!("{}-{rows}", kind.name()));
        std::fs::create_dir(&root).unwrap();
        let Some(database) = Database::fresh(kind, &root).await else { continue };
        let house = House::open(&database, &root, PAYERS).await;
        let filled = fill::up_to(&house, &database, rows).await;
        eprintln!("{} rows ({} payments), filled in {:.0?}", filled.rows, filled.payments, filled.took);
        sizes.push((house, page::Size { filled, clients: COST_CLIENTS, samples: Vec::new() }));
    }
    // The first round warms caches and plans; it does not count.
    for round in 0..=COST_ROUNDS {
        for (house, size) in &mut sizes {
            let load = load::pay_so_many(house, COST_CLIENTS, COST_PAYMENTS).await;
            eprintln!("{} rows, round {round}: {}", size.filled.rows, load.in_words());
            if round > 0 {
                size.samples.push(load);
            }
        }
    }
    let mut all = Vec::new();
    for (house, size) in sizes {
        house.check_books().await;
        house.close().await;
        all.push(size);
    }
    all
}
