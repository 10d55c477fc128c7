//! `make bench-policy`: how long the rules take to answer, with 1,000 of them. Writes benches/POLICY.md; fails if the figure of the issue
//! (50 µs at the 99th percentile) does not hold for rules of every kind.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::as_conversions)] // a measurement that can't go on ends

use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

use tokio::time::Instant;
use voicepay::clock::{Clock, Entropy, SeededEntropy, SystemClock, Timestamp};
use voicepay::ids::PayeeId;
use voicepay::money::{Currency, Money};
use voicepay::payment::policy::{Attested, Channel, Facts, History, Policy};
use voicepay::payment::{AddressMark, Delivery};

const RULES: u32 = 1_000;
const WARM_UP: usize = 20_000;
const QUESTIONS: usize = 500_000;
const PAYMENTS: usize = 4_096;
const LIMIT: Duration = Duration::from_micros(50);

const BASE: &str = "version = \"bench\"\nrefused_currencies = [\"EUR\", \"GBP\", \"JPY\"]\n[tiers]\nUSD = { small = \"20.00\", normal = \"500.00\" }\n[[rule]]\nname = \"large\"\nwhen = { tier = [\"large\"] }\nask = [\"fresh_digits\", \"code\", \"guardian\"]\n";

/// A file of rules, none within another: a later one is about more payers and larger sums.
fn file(when: impl Fn(u32) -> (String, &'static str)) -> String {
    let mut text = BASE.to_owned();
    for n in 1..RULES {
        let (when, does) = when(n);
        let _ = writeln!(text, "[[rule]]\nname = \"r{n}\"\nwhen = {{ {when} }}\n{does}");
    }
    text
}

/// Half about payees, a fifth about categories, the rest about whatever there is.
fn mixed(n: u32) -> (String, &'static str) {
    let sums = format!("paid_before_below = {n}, day_over = {{ USD = \"{n}\" }}");
    match n % 10 {
        0..=3 => (format!("payee = [\"pay_{}\", \"pay_{}\"], {sums}", n % 97, n % 89), "ask = [\"code\"]"),
        4 => (format!("payee = [\"pay_{}\"], {sums}", n % 97), "deny = true"),
        5 | 6 => (format!("category = [\"c{}\"], {sums}", n % 23), "ask = [\"fresh_digits\"]"),
        7 => (format!("tier = [\"normal\", \"large\"], {sums}"), "ask = [\"code\", \"guardian\"]"),
        8 => (format!("address = [\"new\", \"missing\"], {sums}"), "ask = [\"fresh_digits\"]"),
        _ => (format!("channel = [\"telephone\"], attestation = [\"disputed\"], {sums}"), "ask = [\"fresh_digits\", \"code\"]"),
    }
}

/// Each might be about any payment: no index helps.
fn anybodys(n: u32) -> (String, &'static str) {
    (format!("paid_before_below = {n}, day_over = {{ USD = \"{n}\" }}"), "ask = [\"fresh_digits\", \"code\"]")
}

fn payments(seed: u64) -> Vec<Facts> {
    let entropy = SeededEntropy::new(seed);
    let e: &dyn Entropy = &entropy;
    let one = |_| {
        let sum = i64::from(e.below(60_000)) + 1;
        let payee = PayeeId::parse(&format!("pay_{}", e.below(120))).unwrap();
        let plain = Facts::plain(Timestamp(0), Money::new(sum, Currency::Usd).unwrap(), payee);
        let spent = i64::from(e.below(60_000));
        Facts {
            channel: Channel::ALL[usize::try_from(e.below(3)).unwrap()],
            attestation: Attested::ALL[usize::try_from(e.below(4)).unwrap()],
            category: (e.below(4) > 0).then(|| format!("c{}", e.below(30)).parse().unwrap()),
            delivery: if e.below(3) == 0 { Delivery::To(AddressMark::of(&[1; 32])) } else { Delivery::None },
            guardians: u8::try_from(e.below(3)).unwrap(),
            history: History {
                spent_24h: spent,
                spent_24h_payee: spent / 3,
                paid_before: e.below(1_000),
                paid_before_payee: e.below(50),
                failures_24h: e.below(4),
            },
            ..plain
        }
    };
    (0..PAYMENTS).map(one).collect()
}

struct Measured {
    name: &'static str,
    read_ms: f64,
    applied: f64,
    took: Vec<Duration>,
}

impl Measured {
    /// The time that this many of 100,000 do not exceed, in microseconds.
    fn micros(&self, of_100_000: usize) -> f64 {
        let at = (self.took.len() * of_100_000 / 100_000).min(self.took.len() - 1);
        self.took[at].as_secs_f64() * 1e6
    }
}

fn measure(name: &'static str, text: &str, payments: &[Facts]) -> Measured {
    let started = Instant::now();
    let policy = Policy::from_toml(text).unwrap();
    let read_ms = started.elapsed().as_secs_f64() * 1e3;
    assert_eq!(policy.rules().len(), usize::try_from(RULES).unwrap());
    let mut took = Vec::with_capacity(QUESTIONS);
    let mut applied = 0;
    for (n, facts) in payments.iter().cycle().take(WARM_UP + QUESTIONS).enumerate() {
        let started = Instant::now();
        let terms = black_box(policy.terms(black_box(facts)));
        let elapsed = started.elapsed();
        if n >= WARM_UP {
            took.push(elapsed);
            applied += terms.because.len();
        }
    }
    took.sort_unstable();
    Measured { name, read_ms, applied: applied as f64 / QUESTIONS as f64, took }
}

fn main() {
    let payments = payments(1);
    // Nobody ever paid, and much at once: every rule that is anybody's applies.
    let worst: Vec<Facts> = payments
        .iter()
        .map(|f| {
            let history = History { spent_24h: 100_000_000, paid_before: 0, ..f.history };
            Facts { amount: Money::new(60_000, Currency::Usd).unwrap(), history, ..f.clone() }
        })
        .collect();
    let all = [
        measure("of every kind", &file(mixed), &payments),
        measure("each could be about any payment", &file(anybodys), &payments),
        measure("all 1,000 apply", &file(anybodys), &worst),
    ];
    let mut page = "# What `make bench-policy` measured\n\nWritten by `make bench-policy`; don't edit. One question is `Policy::terms` whole: tier, rules that apply, conditions, and who asked for\nwhat. Payments differ in payee, category, amount, address, channel and history. Each question is timed by itself.\n\n".to_owned();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load =
        std::fs::read_to_string("/proc/loadavg").ok().and_then(|l| l.split(' ').next().map(str::to_owned)).unwrap_or_default();
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("processor unknown", |l| l.trim_start_matches([' ', '\t', ':']));
    let day = SystemClock.now().to_string();
    let _ = writeln!(page, "- {}, {model}, {cores} cores, load average {load} at the end", day.get(..10).unwrap_or(&day));
    let _ = writeln!(
        page,
        "- {RULES} rules, {PAYMENTS} payments, {QUESTIONS} questions after {WARM_UP} of warm-up, one thread; times in µs\n"
    );
    page.push_str("| rules | read and checked in ms | rules that apply, mean | p50 | p99 | p99.9 | longest |\n|---|---|---|---|---|---|---|\n");
    for m in &all {
        let _ = writeln!(
            page,
            "| {} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
            m.name,
            m.read_ms,
            m.applied,
            m.micros(50_000),
            m.micros(99_000),
            m.micros(99_900),
            m.micros(100_000)
        );
    }
    print!("{page}");
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/POLICY.md"), page).unwrap();
    let p99 = all[0].micros(99_000);
    if p99 > LIMIT.as_secs_f64() * 1e6 {
        eprintln!("p99 of {p99:.1} µs is above {} µs", LIMIT.as_micros());
        std::process::exit(1);
    }
}
