//! Error rates, costs and intervals, pure. Scores: higher means more alike; a trial is accepted at `score >= threshold`.
//!
//! Definitions: NIST SRE evaluation plans (detection cost, normalised by the better of the two trivial systems) and
//! Brümmer and du Preez 2006 (Cllr). Every rate is a fraction, not a percentage.

use serde::{Deserialize, Serialize};

use super::random::Random;

/// A priori probability of a genuine caller in the detection cost.
pub const P_TARGET: f64 = 0.01;

/// How many times the speakers are drawn anew for an interval.
pub const BOOTSTRAP_ROUNDS: usize = 1000;

/// Scores of genuine and of impostor trials.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    /// Same speaker, or right number.
    pub genuine: Vec<f64>,
    /// Another speaker, or a wrong number.
    pub impostor: Vec<f64>,
}

/// False accepts and false rejects at one threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Accepted at this score and above.
    pub threshold: f64,
    /// Share of impostors accepted.
    pub far: f64,
    /// Share of genuine rejected.
    pub frr: f64,
}

/// A 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

impl Scores {
    /// Whether both kinds are there; no rate can be given without.
    pub fn complete(&self) -> bool {
        !self.genuine.is_empty() && !self.impostor.is_empty()
    }

    /// Error rates at a threshold.
    pub fn at(&self, threshold: f64) -> Point {
        Point { threshold, far: share(&self.impostor, |s| s >= threshold), frr: share(&self.genuine, |s| s < threshold) }
    }

    /// Every operating point, from accepting all to rejecting all, by ascending threshold. Ties are one point.
    pub fn curve(&self) -> Vec<Point> {
        let mut marked: Vec<(f64, bool)> = self.genuine.iter().map(|s| (*s, true)).collect();
        marked.extend(self.impostor.iter().map(|s| (*s, false)));
        marked.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (genuine, impostor) = (self.genuine.len().max(1) as f64, self.impostor.len().max(1) as f64);
        let (mut rejected, mut left) = (0usize, self.impostor.len());
        let mut points = Vec::with_capacity(marked.len() + 1);
        let mut before = None;
        for (score, is_genuine) in marked {
            if before != Some(score) {
                points.push(Point { threshold: score, far: left as f64 / impostor, frr: rejected as f64 / genuine });
                before = Some(score);
            }
            if is_genuine {
                rejected += 1;
            } else {
                left -= 1;
            }
        }
        points.push(Point { threshold: f64::INFINITY, far: 0.0, frr: if self.genuine.is_empty() { 0.0 } else { 1.0 } });
        points
    }

    /// Equal error rate, interpolated linearly between the two operating points where the rates cross. `NaN` without trials of
    /// both kinds.
    pub fn eer(&self) -> f64 {
        if self.complete() { Self::eer_of(&self.curve()) } else { f64::NAN }
    }

    /// The same of a curve.
    pub fn eer_of(curve: &[Point]) -> f64 {
        for pair in curve.windows(2) {
            let [a, b] = pair else { continue };
            let (da, db) = (a.frr - a.far, b.frr - b.far);
            if da == 0.0 {
                return a.far;
            }
            if da < 0.0 && db >= 0.0 {
                let along = da / (da - db);
                return a.far + along * (b.far - a.far);
            }
        }
        f64::NAN
    }

    /// The least detection cost that any threshold gives, at [`P_TARGET`], both errors costing 1, normalised.
    pub fn min_dcf(&self) -> f64 {
        if !self.complete() {
            return f64::NAN;
        }
        self.curve().iter().map(Point::dcf).fold(f64::INFINITY, f64::min)
    }

    /// The operating point with the lowest threshold, among the scores seen, whose false-accept rate is at most `far`.
    pub fn at_far(&self, far: f64) -> Point {
        Self::at_far_of(&self.curve(), far)
    }

    /// The same of a curve.
    pub fn at_far_of(curve: &[Point], far: f64) -> Point {
        let found = curve.iter().find(|p| p.far <= far).copied();
        found.unwrap_or(Point { threshold: f64::INFINITY, far: 0.0, frr: 1.0 })
    }
}

impl Point {
    /// Detection cost at [`P_TARGET`], normalised by `min(p, 1 − p)`.
    pub fn dcf(&self) -> f64 {
        (P_TARGET * self.frr + (1.0 - P_TARGET) * self.far) / P_TARGET.min(1.0 - P_TARGET)
    }
}

/// The threshold on a calibrated log-likelihood ratio that a Bayes decision takes at [`P_TARGET`]: 4.595.
pub fn bayes_threshold() -> f64 {
    ((1.0 - P_TARGET) / P_TARGET).ln()
}

/// Cost of log-likelihood ratios, in bits: 0 is perfect, 1 is knowing nothing. Takes natural-logarithm ratios.
pub fn cllr(llr: &Scores) -> f64 {
    if !llr.complete() {
        return f64::NAN;
    }
    let genuine = mean(llr.genuine.iter().map(|l| softplus(-l)));
    let impostor = mean(llr.impostor.iter().map(|l| softplus(*l)));
    0.5 * (genuine + impostor) / std::f64::consts::LN_2
}

/// What ratios the trials themselves bear out: scores against the natural-log ratio by isotonic regression (pool adjacent violators,
/// Brümmer and du Preez 2006). Stretches where only one kind of trial lies have no finite ratio and are left out.
pub fn borne_out(scores: &Scores) -> Vec<(f64, f64)> {
    if !scores.complete() {
        return Vec::new();
    }
    let mut marked: Vec<(f64, f64)> = scores.genuine.iter().map(|s| (*s, 1.0)).collect();
    marked.extend(scores.impostor.iter().map(|s| (*s, 0.0)));
    marked.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Blocks of lowest score, highest score, genuine, all.
    let mut blocks: Vec<(f64, f64, f64, f64)> = Vec::new();
    for (score, genuine) in marked {
        let mut block = (score, score, genuine, 1.0);
        while let Some(last) = blocks.last().copied() {
            // Ties belong together; a block may not have a lower share than the one before it.
            if last.1 < block.0 && last.2 / last.3 < block.2 / block.3 {
                break;
            }
            blocks.pop();
            block = (last.0, block.1, last.2 + block.2, last.3 + block.3);
        }
        blocks.push(block);
    }
    let prior = (scores.genuine.len() as f64 / scores.impostor.len() as f64).ln();
    let ratio = |b: &(f64, f64, f64, f64)| (b.2 / (b.3 - b.2)).ln() - prior;
    blocks.iter().flat_map(|b| [(b.0, ratio(b)), (b.1, ratio(b))]).filter(|p| p.1.is_finite()).collect()
}

/// A score turned into a log-likelihood ratio: `scale · score + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Natural-logarithm units a unit of score.
    pub scale: f64,
    /// Natural-logarithm units.
    pub offset: f64,
}

impl Calibration {
    /// Newton steps are many more than enough at two parameters.
    const STEPS: usize = 100;
    /// Keeps the scale finite when the scores separate perfectly: the weight of a squared standardised scale.
    const RIDGE: f64 = 1e-3;

    /// Prior-weighted logistic regression (effective prior [`P_TARGET`], where the detection cost is measured).
    pub fn fit(scores: &Scores) -> Option<Self> {
        if !scores.complete() {
            return None;
        }
        let all: Vec<f64> = scores.genuine.iter().chain(&scores.impostor).copied().collect();
        let centre = mean(all.iter().copied());
        let spread = mean(all.iter().map(|s| (s - centre).powi(2))).sqrt().max(1e-12);
        let prior = (P_TARGET / (1.0 - P_TARGET)).ln();
        let (wg, wi) = (P_TARGET / scores.genuine.len() as f64, (1.0 - P_TARGET) / scores.impostor.len() as f64);
        let (mut a, mut b) = (1.0f64, 0.0f64);
        for _ in 0..Self::STEPS {
            // The ridge is scaled by the prior so that it weighs the same against either class.
            let ridge = Self::RIDGE * P_TARGET;
            let (mut ga, mut gb, mut haa, mut hab, mut hbb) = (ridge * a, 0.0, ridge, 0.0, 1e-15);
            let mut loss = 0.5 * ridge * a * a;
            for (set, weight, label) in [(&scores.genuine, wg, 1.0), (&scores.impostor, wi, 0.0)] {
                for score in set {
                    let x = (score - centre) / spread;
                    let z = a * x + b + prior;
                    let p = 1.0 / (1.0 + (-z).exp());
                    let (g, h) = (weight * (p - label), weight * p * (1.0 - p));
                    ga += g * x;
                    gb += g;
                    haa += h * x * x;
                    hab += h * x;
                    hbb += h;
                    loss += weight * softplus(if label > 0.5 { -z } else { z });
                }
            }
            let det = haa * hbb - hab * hab;
            if !det.is_finite() || det <= 0.0 {
                break;
            }
            let (mut da, mut db) = ((hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det);
            // Half the step until the loss falls: plain Newton overshoots where scores separate.
            for _ in 0..40 {
                if weighted_loss(scores, centre, spread, a - da, b - db, prior, wg, wi, ridge) <= loss {
                    break;
                }
                da *= 0.5;
                db *= 0.5;
            }
            a -= da;
            b -= db;
            if da.abs() + db.abs() < 1e-10 {
                break;
            }
        }
        Some(Self { scale: a / spread, offset: b - a * centre / spread })
    }

    /// The ratio for a score.
    pub fn llr(&self, score: f64) -> f64 {
        self.scale * score + self.offset
    }
}

#[allow(clippy::too_many_arguments)] // the loop above, again, for its line search
fn weighted_loss(s: &Scores, centre: f64, spread: f64, a: f64, b: f64, prior: f64, wg: f64, wi: f64, ridge: f64) -> f64 {
    let z = |score: &f64| a * (score - centre) / spread + b + prior;
    0.5 * ridge * a * a
        + s.genuine.iter().map(|x| wg * softplus(-z(x))).sum::<f64>()
        + s.impostor.iter().map(|x| wi * softplus(z(x))).sum::<f64>()
}

/// A 95 % interval of `statistic` by drawing `groups` speakers with replacement; it is given the drawn groups' indices.
/// Speakers, not utterances, are drawn: utterances of one speaker stand or fall together. `None` under two speakers or when the
/// statistic has no value in a twentieth of the rounds.
pub fn bootstrap_95(groups: usize, seed: u64, mut statistic: impl FnMut(&[usize]) -> f64) -> Option<Interval> {
    let [one] = bootstrap_95_of(groups, seed, |drawn| [statistic(drawn)]);
    one
}

/// The same of several statistics that are computed together.
pub fn bootstrap_95_of<const N: usize>(
    groups: usize,
    seed: u64,
    mut statistics: impl FnMut(&[usize]) -> [f64; N],
) -> [Option<Interval>; N] {
    if groups < 2 {
        return [None; N];
    }
    let mut random = Random::new(seed);
    let mut rounds: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(BOOTSTRAP_ROUNDS));
    let mut drawn = vec![0usize; groups];
    for _ in 0..BOOTSTRAP_ROUNDS {
        drawn.iter_mut().for_each(|g| *g = random.below(groups));
        for (values, value) in rounds.iter_mut().zip(statistics(&drawn)) {
            if value.is_finite() {
                values.push(value);
            }
        }
    }
    rounds.map(|mut values| {
        let enough = values.len() * 20 >= BOOTSTRAP_ROUNDS * 19;
        enough.then(|| Interval { low: percentile(&mut values, 0.025), high: percentile(&mut values, 0.975) })
    })
}

/// Percentile by linear interpolation between order statistics (`q` in 0..=1); `NaN` of nothing. Sorts in place.
pub fn percentile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let below = at.floor();
    let pick = |i: f64| values.get(i as usize).copied().unwrap_or(f64::NAN);
    let (low, high) = (pick(below), pick((below + 1.0).min(last as f64)));
    low + (at - below) * (high - low)
}

/// Share of values that pass `test`; `NaN` of nothing.
pub fn share(values: &[f64], test: impl Fn(f64) -> bool) -> f64 {
    ratio(values.iter().filter(|v| test(**v)).count(), values.len())
}

/// `part / whole`, `NaN` when there is no whole.
pub fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { f64::NAN } else { part as f64 / whole as f64 }
}

/// Wilson's score interval of a share at 95 %; none of nothing.
pub fn wilson_95(hits: usize, of: usize) -> Option<Interval> {
    const Z: f64 = 1.959_964;
    let (p, n) = (ratio(hits, of), of as f64);
    let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    (of > 0).then_some(Interval { low: (middle - half).max(0.0), high: (middle + half).min(1.0) })
}

/// Digits substituted, deleted or inserted at the least between what was said and what was read (Levenshtein 1966).
pub fn edit_distance(said: &[u8], read: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=read.len()).collect();
    for (i, a) in said.iter().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (b, cell) in read.iter().zip(row.iter_mut().skip(1)) {
            let here = (corner + usize::from(a != b)).min(*cell + 1).min(left + 1);
            corner = std::mem::replace(cell, here);
            left = here;
        }
    }
    row.last().copied().unwrap_or(0)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0usize), |(s, n), v| (s + v, n + 1));
    if n == 0 { f64::NAN } else { sum / n as f64 }
}

/// ln(1 + eˣ) without overflow.
fn softplus(x: f64) -> f64 {
    if x > 30.0 { x } else { x.exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(genuine: &[f64], impostor: &[f64]) -> Scores {
        Scores { genuine: genuine.to_vec(), impostor: impostor.to_vec() }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn separate_scores_have_no_error_and_swapped_ones_nothing_but() {
        let good = scores(&[0.8, 0.9], &[0.1, 0.2]);
        close(good.eer(), 0.0);
        close(good.min_dcf(), 0.0);
        let bad = scores(&[0.1, 0.2], &[0.8, 0.9]);
        close(bad.eer(), 1.0);
        close(bad.min_dcf(), 1.0); // rejecting everybody
    }

    #[test]
    fn the_equal_error_rate_is_where_the_curve_crosses() {
        // Genuine 1 2 3 4, impostor 0 0 0 2.5: at 2.5, FAR 1/4 and FRR 2/4; at 2, FAR 1/4 and FRR 1/4.
        close(scores(&[1.0, 2.0, 3.0, 4.0], &[0.0, 0.0, 0.0, 2.5]).eer(), 0.25);
        // Genuine 1 3, impostor 0 0 2: from t=2 (FAR 1/3, FRR 1/2) back to t=1 (1/3, 0): crosses at 1/3.
        close(scores(&[1.0, 3.0], &[0.0, 0.0, 2.0]).eer(), 1.0 / 3.0);
        // One of each at the same score: all or nothing, half by interpolation.
        close(scores(&[1.0], &[1.0]).eer(), 0.5);
        assert!(scores(&[], &[1.0]).eer().is_nan());
    }

    #[test]
    fn detection_cost_by_hand() {
        // 1 of 4 genuine lies under every threshold that shuts all impostors out: 0.01 · 0.25 / 0.01 = 0.25.
        let s = scores(&[0.1, 0.7, 0.8, 0.9], &[0.2, 0.3]);
        close(s.min_dcf(), 0.25);
        // At 0.25, one of two impostors passes: (0.01 · 0.25 + 0.99 · 0.5) / 0.01.
        close(s.at(0.25).dcf(), 49.75);
        close(s.at_far(0.0).frr, 0.25);
        close(s.at_far(0.5).frr, 0.25);
        close(bayes_threshold(), 99f64.ln());
    }

    #[test]
    fn frr_at_far_counts_ties_as_accepted() {
        let s = scores(&[0.5, 0.6], &[0.1, 0.5, 0.5, 0.2]);
        close(s.at(0.5).far, 0.5);
        let p = s.at_far(0.25); // shutting one of the two tied impostors out shuts out both
        close(p.far, 0.0);
        close(p.frr, 0.5);
        close(p.threshold, 0.6);
    }

    #[test]
    fn cllr_of_nothing_known_is_one_bit() {
        close(cllr(&scores(&[0.0, 0.0], &[0.0])), 1.0);
        // Ratios of e^ln3 and e^-ln3: log2(1 + 1/3) each.
        close(cllr(&scores(&[3f64.ln()], &[-(3f64.ln())])), (4.0f64 / 3.0).log2());
    }

    #[test]
    fn calibration_finds_the_ratio_of_two_gaussians() {
        // Means ±1, variance 1: the true log-likelihood ratio is 2x.
        let mut r = Random::new(3);
        let g: Vec<f64> = (0..20_000).map(|_| r.normal() + 1.0).collect();
        let i: Vec<f64> = (0..20_000).map(|_| r.normal() - 1.0).collect();
        let c = Calibration::fit(&Scores { genuine: g, impostor: i }).unwrap();
        assert!((c.scale - 2.0).abs() < 0.2 && c.offset.abs() < 0.2, "{c:?}");
        // Perfectly separate scores stay finite and on the right side.
        let c = Calibration::fit(&scores(&[0.8, 0.9], &[0.1, 0.2])).unwrap();
        assert!(c.scale.is_finite() && c.llr(0.85) > bayes_threshold() && c.llr(0.15) < 0.0, "{c:?}");
    }

    #[test]
    fn calibrated_ratios_are_borne_out_by_the_trials() {
        // Means ±1, variance 1: the ratio of x is 2x.
        let mut r = Random::new(5);
        let llr = |x: f64| 2.0 * x;
        let genuine = (0..20_000).map(|_| llr(r.normal() + 1.0)).collect();
        let impostor = (0..20_000).map(|_| llr(r.normal() - 1.0)).collect();
        let points = borne_out(&Scores { genuine, impostor });
        assert!(points.windows(2).all(|w| w[0].0 <= w[1].0 && w[0].1 <= w[1].1), "rising");
        let off: Vec<f64> = points.iter().filter(|p| p.0.abs() < 3.0).map(|p| (p.0 - p.1).abs()).collect();
        assert!(off.len() > 20 && off.iter().sum::<f64>() / (off.len() as f64) < 0.3, "{}", off.len());
        assert!(borne_out(&scores(&[0.9], &[0.1])).is_empty(), "apart: nothing finite can be said");
    }

    #[test]
    fn percentiles_interpolate() {
        let mut v = [4.0, 1.0, 3.0, 2.0];
        close(percentile(&mut v, 0.5), 2.5);
        close(percentile(&mut v, 0.95), 3.85);
        close(percentile(&mut v, 1.0), 4.0);
        assert!(percentile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn edit_distance_counts_each_kind() {
        assert_eq!(edit_distance(&[1, 2, 3], &[1, 2, 3]), 0);
        assert_eq!(edit_distance(&[1, 2, 3], &[1, 3]), 1);
        assert_eq!(edit_distance(&[1, 2, 3], &[1, 1, 2, 3]), 1);
        assert_eq!(edit_distance(&[1, 2, 3], &[1, 5, 3]), 1);
        assert_eq!(edit_distance(&[1, 2], &[2, 1]), 2);
        assert_eq!(edit_distance(&[], &[2, 1]), 2);
        assert_eq!(edit_distance(&[2, 1], &[]), 2);
    }

    #[test]
    fn intervals_cover_the_truth_and_repeat_with_the_seed() {
        // 40 speakers, each right in 9 of 10.
        let right = [0.9f64; 40];
        let tight = bootstrap_95(40, 1, |d| d.iter().map(|g| right[*g]).sum::<f64>() / 40.0).unwrap();
        close(tight.low, 0.9);
        let mixed: Vec<f64> = (0..40).map(|i| f64::from(u8::from(i % 2 == 0))).collect();
        let stat = |d: &[usize]| d.iter().map(|g| mixed[*g]).sum::<f64>() / 40.0;
        let wide = bootstrap_95(40, 1, stat).unwrap();
        assert_eq!(wide, bootstrap_95(40, 1, stat).unwrap());
        // Standard error of a half over 40 is 0.079; ±1.96 of it.
        assert!((wide.low - 0.345).abs() < 0.03 && (wide.high - 0.655).abs() < 0.03, "{wide:?}");
        assert!(bootstrap_95(1, 1, |_| 0.0).is_none());
    }
}
