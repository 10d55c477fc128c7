//! What evaluations hand over: rates with their intervals, conditions, slices, and what charts need. Counted figures only, never a
//! single trial of a speaker. Rates are fractions; where nothing was tried there is none (`null`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metrics::{Interval, Point, Scores, percentile, ratio, wilson_95};
use super::plot::histogram;

/// So many of so many, with a 95 % interval: by speakers drawn anew, unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// `hits / of`.
    pub rate: Option<f64>,
    /// How many.
    pub hits: usize,
    /// Of how many.
    pub of: usize,
    /// None under two speakers.
    pub interval_95: Option<Interval>,
}

/// A figure that is no count: an equal error rate, a cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The figure.
    pub value: Option<f64>,
    /// None under two speakers.
    pub interval_95: Option<Interval>,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50_ms: Option<f64>,
    /// 95th percentile.
    pub p95_ms: Option<f64>,
    /// How many were measured.
    pub of: usize,
}

/// The conditions that a figure holds for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Condition {
    /// The list.
    pub list: String,
    /// The line's codec.
    pub codec: String,
    /// What is behind the speech; nothing if `None`.
    pub noise: Option<String>,
    /// Speech over noise, in decibels.
    pub snr_db: Option<i32>,
    /// Only so many digits of each utterance.
    pub digits: Option<usize>,
}

impl Condition {
    /// The noise in words: "clean", "babble8 15 dB".
    pub fn noise_words(&self) -> String {
        match (&self.noise, self.snr_db) {
            (Some(noise), Some(db)) => format!("{} {db} dB", noise.rsplit('/').next().unwrap_or(noise)),
            (Some(noise), None) => noise.clone(),
            (None, _) => "clean".to_owned(),
        }
    }
}

/// Figures of a part of the trials: one source, language, gender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slice<T> {
    /// `source`, `language` or `gender`.
    pub by: String,
    /// Which one.
    pub name: String,
    /// Figures of that part alone.
    pub figures: T,
}

/// Two sets of scores as charts show them: shares a bin, and the operating points.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Shape {
    /// Centre of a bin and share of the genuine in it.
    pub genuine: Vec<(f64, f64)>,
    /// The same of the others.
    pub impostor: Vec<(f64, f64)>,
    /// A bin's width.
    pub bin: f64,
    /// False-accept and false-reject rates, from accepting all to rejecting all.
    pub det: Vec<(f64, f64)>,
}

impl Rate {
    /// Without an interval.
    pub fn plain(hits: usize, of: usize) -> Self {
        Self { rate: finite(ratio(hits, of)), hits, of, interval_95: None }
    }

    /// With Wilson's interval (1927): for trials that stand for themselves, whoever spoke, and for none of many.
    pub fn wilson(hits: usize, of: usize) -> Self {
        Self { interval_95: wilson_95(hits, of), ..Self::plain(hits, of) }
    }
}

impl Latency {
    /// Of measured milliseconds; those that are no numbers are left out.
    pub fn of(ms: impl IntoIterator<Item = f64>) -> Self {
        let mut ms: Vec<f64> = ms.into_iter().filter(|m| m.is_finite()).collect();
        Self { p50_ms: finite(percentile(&mut ms, 0.5)), p95_ms: finite(percentile(&mut ms, 0.95)), of: ms.len() }
    }
}

impl Shape {
    /// Bins of a shape.
    const BINS: usize = 60;
    /// Operating points kept; a chart shows no more.
    const POINTS: usize = 400;

    /// Between `low` and `high`; what lies beyond counts at the ends.
    pub fn of(scores: &Scores, low: f64, high: f64) -> Self {
        if !scores.complete() {
            return Self::default();
        }
        Self {
            genuine: histogram(&scores.genuine, low, high, Self::BINS),
            impostor: histogram(&scores.impostor, low, high, Self::BINS),
            bin: (high - low) / Self::BINS as f64,
            det: thinned(&scores.curve(), Self::POINTS),
        }
    }
}

/// The corners of a staircase, at most about `most` of them.
fn thinned(curve: &[Point], most: usize) -> Vec<(f64, f64)> {
    let corner = |i: usize| match (i.checked_sub(1).and_then(|b| curve.get(b)), curve.get(i), curve.get(i + 1)) {
        (Some(before), Some(here), Some(after)) => {
            !((before.far == here.far && here.far == after.far) || (before.frr == here.frr && here.frr == after.frr))
        }
        _ => true,
    };
    let corners: Vec<&Point> = curve.iter().enumerate().filter(|(i, _)| corner(*i)).map(|(_, p)| p).collect();
    let every = corners.len().div_ceil(most.max(1)).max(1);
    let last = corners.len().saturating_sub(1);
    corners.iter().enumerate().filter(|(i, _)| i % every == 0 || *i == last).map(|(_, p)| (p.far, p.frr)).collect()
}

/// A number that JSON can hold.
pub fn finite(v: f64) -> Option<f64> {
    v.is_finite().then_some(v)
}

/// Things by a name of theirs, in the names' order.
pub fn grouped<T>(all: &[T], name: impl Fn(&T) -> String) -> BTreeMap<String, Vec<&T>> {
    let mut out: BTreeMap<String, Vec<&T>> = BTreeMap::new();
    for one in all {
        out.entry(name(one)).or_default().push(one);
    }
    out
}

/// A fraction for people: per cent with two places, or a dash.
pub fn percent(fraction: f64) -> String {
    if fraction.is_finite() { format!("{:.2} %", fraction * 100.0) } else { "–".to_owned() }
}

/// A rate for people.
pub fn percent_of(rate: Option<f64>) -> String {
    percent(rate.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_keeps_the_corners_of_the_curve_and_the_shares() {
        let scores = Scores { genuine: vec![0.2, 0.8, 0.9], impostor: vec![0.1, 0.3, 0.3, 0.3] };
        let shape = Shape::of(&scores, 0.0, 1.0);
        assert_eq!(shape.det.first(), Some(&(1.0, 0.0)));
        assert_eq!(shape.det.last(), Some(&(0.0, 1.0)));
        assert!(shape.det.contains(&(0.0, 1.0 / 3.0)), "{:?}", shape.det);
        assert!((shape.genuine.iter().map(|b| b.1).sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(Shape::of(&Scores::default(), 0.0, 1.0).det.is_empty());
    }

    #[test]
    fn long_curves_are_thinned_and_keep_their_ends() {
        let genuine: Vec<f64> = (0..5000).map(f64::from).collect();
        let impostor: Vec<f64> = (0..5000).map(|i| f64::from(i) - 2500.5).collect();
        let det = Shape::of(&Scores { genuine, impostor }, 0.0, 1.0).det;
        assert!(det.len() <= 402, "{}", det.len());
        assert_eq!((det.first(), det.last()), (Some(&(1.0, 0.0)), Some(&(0.0, 1.0))));
    }

    #[test]
    fn conditions_read_as_people_say_them() {
        let noisy = Condition { noise: Some("noise/babble8".to_owned()), snr_db: Some(15), ..Condition::default() };
        assert_eq!(noisy.noise_words(), "babble8 15 dB");
        assert_eq!(Condition::default().noise_words(), "clean");
    }

    #[test]
    fn latencies_skip_what_was_not_measured() {
        let l = Latency::of([10.0, f64::NAN, 30.0]);
        assert_eq!((l.p50_ms, l.of), (Some(20.0), 2));
        assert_eq!(Latency::of([]).p95_ms, None);
        assert_eq!(Rate::plain(0, 0).rate, None);
    }
}
