//! Metric families: counters, gauges and histograms with few, bounded labels, written out in Prometheus' text format
//! (exposition format 0.0.4). A label can't carry a telephone or card number, whoever passes one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Label sets a family keeps; what comes on top is counted under [`OTHER`].
pub const LABEL_SETS_LIMIT: usize = 64;
/// Longest label value, in bytes.
const LABEL_VALUE_MAX_BYTES: usize = 64;
/// A value with as many digits may be a telephone or card number and is not kept.
const LABEL_MAX_DIGITS: usize = 6;
/// Stands for label values beyond [`LABEL_SETS_LIMIT`].
pub const OTHER: &str = "other";
/// Stands for label values that may be a number.
pub const REDACTED: &str = "redacted";

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

impl Kind {
    /// As the format names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What stands above a family's samples.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Its name; the unit is part of it.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Its labels' names, in order.
    pub labels: &'static [&'static str],
    /// Upper bounds of a histogram's buckets, ascending; empty for the others.
    pub buckets: &'static [f64],
}

/// A family as the exporter sees it.
pub trait Family: Send + Sync {
    /// What it is called.
    fn description(&self) -> &Description;
    /// What it is.
    fn kind(&self) -> Kind;
    /// Appends its samples.
    fn write(&self, out: &mut String);
}

/// One line of labels: their values in the description's order.
type Values = Vec<String>;

/// Cells by label values.
#[derive(Debug)]
struct Cells<T> {
    description: Description,
    by_label: Mutex<BTreeMap<Values, T>>,
}

impl<T: Default> Cells<T> {
    fn new(description: Description) -> Self {
        let mut cells = BTreeMap::new();
        if description.labels.is_empty() {
            cells.insert(Vec::new(), T::default()); // a family without labels is there from the start, at zero
        }
        Self { description, by_label: Mutex::new(cells) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Values, T>> {
        self.by_label.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<const N: usize>(&self, labels: [&str; N], change: impl FnOnce(&mut T)) {
        debug_assert_eq!(N, self.description.labels.len(), "{}", self.description.name);
        let mut key: Values = labels.iter().map(|v| clean(v)).collect();
        let mut cells = self.lock();
        if !cells.contains_key(&key) && cells.len() >= LABEL_SETS_LIMIT {
            key = labels.iter().map(|_| OTHER.to_owned()).collect();
        }
        change(cells.entry(key).or_default());
    }
}

/// A label value that can do no harm: short, printable, and no number that could name somebody.
fn clean(value: &str) -> String {
    // A peer's address has as many digits as a number, but can't be one.
    let address = value.parse::<std::net::IpAddr>().is_ok();
    if !address && value.bytes().filter(u8::is_ascii_digit).count() > LABEL_MAX_DIGITS {
        return REDACTED.to_owned();
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-:/@".contains(c) { c } else { '_' };
    value.chars().take(LABEL_VALUE_MAX_BYTES).map(plain).collect()
}

fn labels_of(names: &[&str], values: &[String], more: Option<(&str, &str)>) -> String {
    let pairs: Vec<String> =
        names.iter().zip(values).map(|(n, v)| format!("{n}=\"{v}\"")).chain(more.map(|(n, v)| format!("{n}=\"{v}\""))).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

/// Writes `# HELP`, `# TYPE` and the samples of each.
pub fn render(families: &[&dyn Family]) -> String {
    let mut out = String::new();
    for family in families {
        let d = family.description();
        let _infallible = writeln!(out, "# HELP {} {}\n# TYPE {} {}", d.name, d.help, d.name, family.kind().name());
        family.write(&mut out);
    }
    out
}

/// A count of what happened.
#[derive(Debug)]
pub struct Counter(Cells<u64>);

impl Counter {
    pub(super) fn new(description: Description) -> Self {
        Self(Cells::new(description))
    }

    /// One more.
    pub fn inc<const N: usize>(&self, labels: [&str; N]) {
        self.add(labels, 1);
    }

    /// So many more.
    pub fn add<const N: usize>(&self, labels: [&str; N], n: u64) {
        self.0.change(labels, |count| *count = count.saturating_add(n));
    }

    /// How many so far.
    pub fn value<const N: usize>(&self, labels: [&str; N]) -> u64 {
        self.0.lock().get(&labels.map(str::to_owned).to_vec()).copied().unwrap_or(0)
    }
}

impl Family for Counter {
    fn description(&self) -> &Description {
        &self.0.description
    }
    fn kind(&self) -> Kind {
        Kind::Counter
    }
    fn write(&self, out: &mut String) {
        let d = &self.0.description;
        for (values, count) in self.0.lock().iter() {
            let _infallible = writeln!(out, "{}{} {count}", d.name, labels_of(d.labels, values, None));
        }
    }
}

/// Something as it stands.
#[derive(Debug)]
pub struct Gauge(Cells<f64>);

impl Gauge {
    pub(super) fn new(description: Description) -> Self {
        Self(Cells::new(description))
    }

    /// It stands at this.
    pub fn set<const N: usize>(&self, labels: [&str; N], value: f64) {
        self.0.change(labels, |cell| *cell = value);
    }

    /// It stands at this count.
    pub fn set_count<const N: usize>(&self, labels: [&str; N], value: usize) {
        // Exact up to 2^53, which no count here comes near.
        #[allow(clippy::as_conversions, clippy::cast_precision_loss)]
        self.set(labels, value as f64);
    }

    /// So much more: for totals with fractions, such as seconds.
    pub fn add<const N: usize>(&self, labels: [&str; N], more: f64) {
        self.0.change(labels, |cell| *cell += more);
    }

    /// Forgets every label set: for what is about to be told anew, such as trunks after a reload.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

impl Family for Gauge {
    fn description(&self) -> &Description {
        &self.0.description
    }
    fn kind(&self) -> Kind {
        // A total with fractions is kept as one, and counts by its name.
        if self.0.description.name.ends_with("_total") { Kind::Counter } else { Kind::Gauge }
    }
    fn write(&self, out: &mut String) {
        let d = &self.0.description;
        for (values, value) in self.0.lock().iter() {
            let _infallible = writeln!(out, "{}{} {value}", d.name, labels_of(d.labels, values, None));
        }
    }
}

/// How large something was, by buckets.
#[derive(Debug)]
pub struct Histogram(Cells<Buckets>);

#[derive(Clone, Debug, Default)]
struct Buckets {
    /// How many lie in each bucket by itself; one more than bounds, for those above all.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    pub(super) fn new(description: Description) -> Self {
        Self(Cells::new(description))
    }

    /// One observation, in the unit of the name.
    pub fn observe<const N: usize>(&self, labels: [&str; N], value: f64) {
        if !value.is_finite() {
            return;
        }
        let bounds = self.0.description.buckets;
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        self.0.change(labels, |cell| {
            cell.counts.resize(bounds.len() + 1, 0);
            if let Some(count) = cell.counts.get_mut(bucket) {
                *count += 1;
            }
            cell.sum += value;
        });
    }

    /// A duration, in seconds.
    pub fn observe_time<const N: usize>(&self, labels: [&str; N], took: std::time::Duration) {
        self.observe(labels, took.as_secs_f64());
    }

    /// Observations so far.
    pub fn count<const N: usize>(&self, labels: [&str; N]) -> u64 {
        self.0.lock().get(&labels.map(str::to_owned).to_vec()).map_or(0, |b| b.counts.iter().sum())
    }
}

impl Family for Histogram {
    fn description(&self) -> &Description {
        &self.0.description
    }
    fn kind(&self) -> Kind {
        Kind::Histogram
    }
    fn write(&self, out: &mut String) {
        let d = &self.0.description;
        for (values, cell) in self.0.lock().iter() {
            let mut below = 0u64;
            let bounds = d.buckets.iter().map(f64::to_string).chain([String::from("+Inf")]);
            for (n, bound) in bounds.enumerate() {
                below += cell.counts.get(n).copied().unwrap_or(0);
                let labels = labels_of(d.labels, values, Some(("le", &bound)));
                let _infallible = writeln!(out, "{}_bucket{labels} {below}", d.name);
            }
            let labels = labels_of(d.labels, values, None);
            let _infallible = writeln!(out, "{}_sum{labels} {}\n{}_count{labels} {below}", d.name, cell.sum, d.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Description = Description { name: "n_total", help: "h", labels: &["a"], buckets: &[] };

    #[test]
    fn histograms_are_cumulative_and_end_at_infinity() {
        let h = Histogram::new(Description { name: "t_seconds", help: "h", labels: &[], buckets: &[0.1, 1.0] });
        for v in [0.05, 0.1, 0.5, 7.0, f64::NAN] {
            h.observe([], v);
        }
        let text = render(&[&h]);
        let samples: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "t_seconds_bucket{le=\"0.1\"} 2",
                "t_seconds_bucket{le=\"1\"} 3",
                "t_seconds_bucket{le=\"+Inf\"} 4",
                "t_seconds_sum 7.65",
                "t_seconds_count 4"
            ]
        );
        assert_eq!(h.count([]), 4);
    }

    #[test]
    fn label_sets_are_bounded() {
        let c = Counter::new(PLAIN);
        for n in 0..1_000 {
            c.inc([&format!("t{n}")]);
        }
        assert_eq!(c.value([OTHER]), 1_000 - u64::try_from(LABEL_SETS_LIMIT).unwrap());
        assert!(render(&[&c]).lines().count() <= LABEL_SETS_LIMIT + 3);
    }

    #[test]
    fn a_family_without_labels_shows_zero_from_the_start() {
        let c = Counter::new(Description { labels: &[], ..PLAIN });
        assert!(render(&[&c]).ends_with("\nn_total 0\n"));
    }

    proptest! {
        #[test]
        fn no_label_carries_a_number_or_breaks_a_line(value in "\\PC{0,80}|[+0-9 -]{7,30}|[\"\\\\\n{}=]{1,9}") {
            let c = Counter::new(PLAIN);
            c.inc([&value]);
            let text = render(&[&c]);
            prop_assert_eq!(text.lines().count(), 3);
            let sample = text.lines().last().unwrap_or_default();
            let label = sample.strip_prefix("n_total{a=\"").and_then(|s| s.strip_suffix("\"} 1")).unwrap_or("no sample");
            prop_assert!(!label.contains(['"', '\\', '{', '}']), "{}", label);
            prop_assert!(label.bytes().filter(u8::is_ascii_digit).count() <= LABEL_MAX_DIGITS, "{}", label);
        }
    }
}
