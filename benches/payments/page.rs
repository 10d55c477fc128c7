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

pub fn rates(kind: Kind, time: Duration, rates: &[(usize, f64, Load)], sizes: &[(Filled, f64, Load)]) -> String {
    let mut text = conditions();
    let _ = writeln!(text, "- {} s a figure after 2 s of warm-up, {} connections\n", time.as_secs(), kind.connections());
    text.push_str("| clients | bare commits/s | payments/s | ratio | commits a payment | p50 ms | p95 ms | p99 ms |\n|---|---|---|---|---|---|---|---|\n");
    for (clients, bare, load) in rates {
        let _ = writeln!(
            text,
            "| {clients} | {bare:.0} | {:.0} | {:.0} % | {:.2} | {:.1} | {:.1} | {:.1} |",
            load.a_second(),
            100.0 * load.a_second() / bare,
            load.commits_each(),
            load.percentile_ms(50),
            load.percentile_ms(95),
            load.percentile_ms(99)
        );
    }
    if sizes.is_empty() {
        return text;
    }
    let clients = rates.iter().map(|r| r.0).max().unwrap_or(16);
    let _ = writeln!(
        text,
        "\nAs the database grows, {clients} clients. One payment's rows were copied by SQL under new identifiers, and sealed by the sealer.\n"
    );
    text.push_str("| rows | payments | bare commits/s | payments/s | ratio | ms a payment | of processor, ms | p99 ms |\n|---|---|---|---|---|---|---|---|\n");
    for (filled, bare, load) in sizes {
        let _ = writeln!(
            text,
            "| {} | {} | {bare:.0} | {:.0} | {:.0} % | {:.2} | {:.2} | {:.1} |",
            filled.rows,
            filled.payments,
            load.a_second(),
            100.0 * load.a_second() / bare,
            1_000.0 / load.a_second(),
            f64::from(u32::try_from(load.cpu_each_us()).unwrap()) / 1_000.0,
            load.percentile_ms(99)
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
