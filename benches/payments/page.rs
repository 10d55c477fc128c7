//! `benches/PAYMENTS.md`: the figures with their conditions. Parts that a run did not measure stay as they are.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use voicepay::clock::{Clock, SystemClock};

use crate::fill::Filled;
use crate::house::Kind;
use crate::load::Load;
use crate::retries::Told;

/// What a part tells of; its marker in the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Rates(Kind),
    Retries(Kind),
}

const PARTS: [Part; 4] =
    [Part::Rates(Kind::Sqlite), Part::Rates(Kind::Postgres), Part::Retries(Kind::Sqlite), Part::Retries(Kind::Postgres)];

impl Part {
    fn title(self) -> String {
        match self {
            Self::Rates(kind) => format!("## {}: payments a second", kind.name()),
            Self::Retries(kind) => format!("## {}: the same again and again", kind.name()),
        }
    }
}

const HEAD: &str = "# What `make bench-payments` measured

Written by `scripts/bench-payments.sh`; don't edit. A payment is whole: the order is submitted, its attempt is committed as dispatched, the sandbox
acquirer charges it without latency and syncs its journal on the same disk, the result is committed with books, receipt, audit and outbox, and
the client has heard the outcome. Clients pay one payment after the other; the audit sealer runs beside them. Requests and cards are there before.

Full durability: SQLite with a write-ahead log and `synchronous = FULL`; PostgreSQL with `fsync`, `full_page_writes` and `synchronous_commit` on.
The bare rate is that of one-row inserts, each its own commit, by as many clients in the same run on the same disk: in SQLite by the same
library and pragmas (clients take turns, or wait inside SQLite: the faster counts), in PostgreSQL by pgbench with a prepared statement.
";

/// The cost of a payment in a database of one size.
pub struct Size {
    pub filled: Filled,
    pub clients: usize,
    pub samples: Vec<Load>,
}

impl Size {
    fn median<T: Copy + PartialOrd>(&self, of: impl Fn(&Load) -> T) -> Option<T> {
        let mut all: Vec<T> = self.samples.iter().map(of).collect();
        all.sort_by(|a, b| a.partial_cmp(b).unwrap());
        all.get(all.len() / 2).copied()
    }

    fn cpu_ms(&self) -> f64 {
        self.median(Load::cpu_each_ms).unwrap_or(f64::NAN)
    }
}

pub fn rates(time: Duration, rates: &[(usize, f64, Load)], sizes: &[Size]) -> String {
    let mut text = conditions();
    let _ = writeln!(text, "- {} s a figure after 2 s of warm-up; configuration by default\n", time.as_secs());
    text.push_str(
        "| clients | bare commits/s | payments/s | ratio | commits a payment | processor ms | p50 ms | p95 ms | p99 ms |\n",
    );
    text.push_str("|---|---|---|---|---|---|---|---|---|\n");
    for (clients, bare, load) in rates {
        let _ = writeln!(
            text,
            "| {clients} | {bare:.0} | {:.0} | {:.0} % | {:.2} | {:.2} | {:.1} | {:.1} | {:.1} |",
            load.a_second(),
            100.0 * load.a_second() / bare,
            load.commits_each(),
            load.cpu_each_ms(),
            load.percentile_ms(50),
            load.percentile_ms(95),
            load.percentile_ms(99)
        );
    }
    let Some(smallest) = sizes.first() else { return text };
    let _ = writeln!(
        text,
        "\nThe cost of a payment by the size of the database: {} clients, {} payments a sample, samples of all sizes in turn, the median of {} each. \
         The processor's time is this process's and the server's, until what was written is sealed. Filled by SQL with copies of one payment's rows \
         under new identifiers, through the same tables and triggers.\n",
        smallest.clients,
        smallest.samples.first().map_or(0, |load| load.payments),
        smallest.samples.len()
    );
    text.push_str(
        "| rows | payments | filled in s | processor ms a payment | against the smallest | commits a payment | ms a payment |\n",
    );
    text.push_str("|---|---|---|---|---|---|---|\n");
    for size in sizes {
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.2} | {:+.0} % | {:.2} | {:.2} |",
            size.filled.rows,
            size.filled.payments,
            size.filled.took.as_secs_f64(),
            size.cpu_ms(),
            100.0 * (size.cpu_ms() / smallest.cpu_ms() - 1.0),
            size.median(Load::commits_each).unwrap_or(f64::NAN),
            size.median(|load| 1_000.0 / load.a_second()).unwrap_or(f64::NAN)
        );
    }
    text
}

pub fn retries(told: &Told) -> String {
    let mut text = conditions();
    let _ = writeln!(
        text,
        "- {} requests of {} different orders, {} of them for the same refund commands, up to {} in flight, in {:.0} s\n\n\
         **{} orders, {} charges; {} refund commands, {} refunds**: each once in the acquirer's own journal.",
        told.requests,
        told.orders,
        told.refund_requests,
        told.in_flight,
        told.took.as_secs_f64(),
        told.orders,
        told.charges,
        told.refunds,
        told.refunds
    );
    text
}

fn conditions() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|l| l.strip_prefix("model name")).map_or("?", |l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    let today = SystemClock.now().to_string();
    let today = today.split('T').next().unwrap_or_default();
    format!("- {today}, {cpu}, {cores} cores, {}, load average {load} at the end\n", std::env::consts::OS)
}

/// Puts the new parts in the place of the old ones.
pub fn write(path: &Path, new: Vec<(Part, String)>) {
    let old = std::fs::read_to_string(path).unwrap_or_default();
    let mut text = HEAD.to_owned();
    for part in PARTS {
        let title = part.title();
        let fresh = new.iter().find(|(p, _)| *p == part).map(|(_, body)| body.clone());
        let kept = || {
            let (_, rest) = old.split_once(&format!("{title}\n"))?;
            Some(rest.split("\n## ").next().unwrap_or(rest).trim().to_owned())
        };
        if let Some(body) = fresh.or_else(kept) {
            let _ = write!(text, "\n{title}\n\n{}\n", body.trim());
        }
    }
    std::fs::write(path, text).unwrap();
    eprintln!("bench-payments: wrote {}", path.display());
}
