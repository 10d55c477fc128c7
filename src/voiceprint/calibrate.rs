//! What `voicepay calibrate` and `voicepay eval` make of many voices: scores by a mean that knows neither speaker of a trial, the
//! logistic calibration with quality measures, thresholds at named false-accept rates. Arithmetic only.
//!
//! Prior-weighted logistic regression after Brümmer and du Preez (2006), by Newton's method.

use std::collections::BTreeMap;

use super::embedding::{EMBEDDING_SIZE, Embedding};
use super::enrolment::{Take, direction};
use super::score::{Conditions, centre_by, dot, scale_to_one};
use crate::decision::calibration::{Threshold, VoiceCalibration, quality_terms, shortness};

/// Enrolled voices, for scoring as if neither speaker of a trial had been heard before.
#[derive(Default)]
pub struct HeldOut {
    /// By speaker: the enrolment's utterances, and their mean at length one each, as said.
    speakers: BTreeMap<String, (Vec<Take>, Vec<f64>)>,
    /// Of the speakers' means.
    sum: Vec<f64>,
}

impl std::fmt::Debug for HeldOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HeldOut({} speakers)", self.speakers.len())
    }
}

impl HeldOut {
    /// A mean over fewer speakers than this would be a voice.
    const SPEAKERS_MIN: usize = 3;

    /// Adds a speaker's enrolment.
    pub fn enrol(&mut self, speaker: &str, utterances: Vec<Take>) {
        let mut mean = vec![0.0f64; EMBEDDING_SIZE];
        let units: Vec<Vec<f32>> = utterances.iter().filter_map(|take| unit(take.embedding())).collect();
        for one in &units {
            mean.iter_mut().zip(one).for_each(|(m, v)| *m += f64::from(*v) / count(units.len()));
        }
        self.sum.resize(EMBEDDING_SIZE, 0.0);
        self.sum.iter_mut().zip(&mean).for_each(|(s, m)| *s += m);
        self.speakers.insert(speaker.to_owned(), (utterances, mean));
    }

    /// The centred cosine of `utterance` by `tested` with the template of `enrolled`, the mean being that of everybody else. `None` if
    /// too few others are enrolled, or there is no voice.
    pub fn cosine(&self, enrolled: &str, tested: &str, utterance: &Embedding) -> Option<f32> {
        let (own, _) = self.speakers.get(enrolled)?;
        let out: Vec<&Vec<f64>> = [Some(enrolled), Some(tested).filter(|t| *t != enrolled)]
            .into_iter()
            .flatten()
            .filter_map(|who| self.speakers.get(who).map(|(_, mean)| mean))
            .collect();
        let others = self.speakers.len().checked_sub(out.len()).filter(|n| *n >= Self::SPEAKERS_MIN)?;
        let mean: Vec<f32> = (0..EMBEDDING_SIZE)
            .map(|i| {
                let at = |v: &Vec<f64>| v.get(i).copied().unwrap_or(0.0);
                narrow((at(&self.sum) - out.iter().map(|m| at(m)).sum::<f64>()) / count(others))
            })
            .collect();
        Some(dot(&direction(own, &mean)?, &centre_by(utterance, &mean)?))
    }
}

fn unit(embedding: &Embedding) -> Option<Vec<f32>> {
    let mut values = embedding.values().to_vec();
    scale_to_one(&mut values)?;
    Some(values)
}

/// A scored trial, for calibrating.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Whether both voices are one.
    pub target: bool,
    /// The raw score.
    pub cosine: f32,
    /// The test utterance's speech and noise.
    pub made: Conditions,
}

/// One for each coefficient of [`VoiceCalibration`], in its order.
const TERMS: usize = 6;
type Terms = [f64; TERMS];

/// Newton steps; a handful are enough.
const STEPS: usize = 60;
/// Keeps coefficients finite where scores separate perfectly, as a share of the prior's own weight.
const RIDGE: f64 = 1e-4;
/// The slope over the score must stay at least this share of its own size at short, noisy speech: a closer voice never counts less.
const SLOPE_LEAST: f64 = 0.2;
/// Where that is looked at: the least speech that counts as such, in as much noise as speech.
const WORST: [(u32, f32); 4] = [(10_000, 30.0), (1_500, 30.0), (10_000, 0.0), (1_500, 0.0)];
/// False-accept rates that thresholds are looked for at.
pub const RATES: [f64; 9] = [0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005];
/// Of these, that thresholds must hold for little speech too: what acceptance is named by. Rejecting is left as it is.
const SHORT_RATES: [f64; 3] = [0.01, 0.005, 0.002];
/// What is tried to take off for it, in nats.
const SHORT_STEP: f64 = 0.25;
const SHORT_STEPS: u32 = 24;
/// A rate may be passed by this share of itself: of some thousands of impostors it is fewer than one at the smallest.
const SHORT_TOLERANCE: f64 = 0.05;
/// A rate needs this many impostors above its threshold to be measured at all.
const IMPOSTORS_ABOVE_MIN: f64 = 3.0;

/// The calibration that costs least at `prior` (of a genuine caller), without thresholds. First with how speech and noise change the
/// slope; where that would turn it over, without. `None` unless there are trials of both kinds.
pub fn fit(samples: &[Sample], prior: f64, model: &str) -> Option<VoiceCalibration> {
    for used in [[true; TERMS], [true, true, true, false, true, false], [true, true, false, false, false, false]] {
        let w = newton(samples, prior, used)?;
        let made = VoiceCalibration {
            model: model.to_owned(),
            bias: w[0],
            score: w[1],
            ln_net: w[2],
            score_ln_net: w[3],
            snr: w[4],
            score_snr: w[5],
            short: 0.0,
            thresholds: Vec::new(),
        };
        let slope = |(net, snr): &(u32, f32)| {
            let [_, n, q] = quality_terms(0.0, *net, *snr);
            made.score + made.score_ln_net * n + made.score_snr * q
        };
        if made.score > 0.0 && WORST.iter().all(|worst| slope(worst) >= SLOPE_LEAST * made.score) {
            return Some(rounded(made));
        }
    }
    None
}

/// An impostor's ratio, and the speech it was made from, in milliseconds without pauses.
pub type Impostor = (f32, u32);

/// What to take off for little speech ([`VoiceCalibration::short`]), and the thresholds: those that long speech needs in every one of its
/// conditions, and the least taken off with which they hold their rates in every condition of short speech too.
pub fn thresholds_for_all(long: &[Vec<Impostor>], short: &[Vec<Impostor>]) -> (f64, Vec<Threshold>) {
    let with = |off: f64, conditions: &[Vec<Impostor>]| -> Vec<Vec<f32>> {
        let one = |(llr, net): &Impostor| llr - narrow(off * shortness(*net));
        conditions.iter().map(|c| c.iter().map(one).collect()).collect()
    };
    let mut made = (0.0, Vec::new());
    for step in 0..=SHORT_STEPS {
        let off = f64::from(step) * SHORT_STEP;
        made = (off, thresholds(&with(off, long), &RATES));
        let holds = |t: &Threshold, llrs: &Vec<f32>| {
            let above = count(llrs.iter().filter(|l| f64::from(**l) >= t.llr).count());
            above <= t.far * (1.0 + SHORT_TOLERANCE) * count(llrs.len())
        };
        let short = with(off, short);
        if made.1.iter().filter(|t| SHORT_RATES.contains(&t.far)).all(|t| short.iter().all(|llrs| holds(t, llrs))) {
            break;
        }
    }
    made
}

/// Thresholds that hold each of these falling rates in every one of these conditions (ratios of impostors): the highest that any of them needs.
pub fn thresholds(impostors: &[Vec<f32>], rates: &[f64]) -> Vec<Threshold> {
    let mut out: Vec<Threshold> = Vec::new();
    for far in rates.iter().copied() {
        let found: Option<Vec<f32>> = impostors.iter().map(|llrs| needed(llrs, far)).collect();
        let Some(highest) = found.and_then(|all| all.into_iter().reduce(f32::max)) else { break };
        let floor = out.last().map_or(f64::NEG_INFINITY, |t| t.llr);
        out.push(Threshold { far, llr: ((f64::from(highest) * 1e3).ceil() / 1e3).max(floor) });
    }
    out
}

/// The lowest threshold that no more than this share reaches; `None` where too few would be above to tell.
fn needed(llrs: &[f32], far: f64) -> Option<f32> {
    let above = far * count(llrs.len());
    if above < IMPOSTORS_ABOVE_MIN {
        return None;
    }
    let mut falling = llrs.to_vec();
    falling.sort_by(|a, b| b.total_cmp(a));
    let at = falling.partition_point(|l| share_reaching(&falling, *l) <= far);
    let (passing, failing) = (falling.get(at.checked_sub(1)?)?, falling.get(at).unwrap_or(&f32::MIN));
    // Between the last that may pass and the first that may not.
    Some(if failing.is_finite() && *failing > f32::MIN { f32::midpoint(*passing, *failing) } else { *passing })
}

/// Of values sorted falling, the share at `llr` and above.
fn share_reaching(falling: &[f32], llr: f32) -> f64 {
    count(falling.partition_point(|l| *l >= llr)) / count(falling.len())
}

fn newton(samples: &[Sample], prior: f64, used: [bool; TERMS]) -> Option<Terms> {
    let of = |target: bool| samples.iter().filter(|s| s.target == target).count();
    let (genuine, impostor) = (of(true), of(false));
    if genuine == 0 || impostor == 0 {
        return None;
    }
    let offset = (prior / (1.0 - prior)).ln();
    let rows: Vec<(Terms, f64, f64)> = samples
        .iter()
        .map(|s| {
            let [c, n, q] = quality_terms(s.cosine, s.made.net_speech_ms, s.made.snr_db);
            let mut terms = [1.0, c, n, c * n, q, c * q];
            terms.iter_mut().zip(used).for_each(|(t, used)| *t *= f64::from(u8::from(used)));
            let weight = if s.target { prior / count(genuine) } else { (1.0 - prior) / count(impostor) };
            (terms, f64::from(u8::from(s.target)), weight)
        })
        .collect();
    let loss = |w: &Terms| {
        let data: f64 = rows
            .iter()
            .map(|(x, label, weight)| {
                let z = inner(w, x) + offset;
                weight * softplus(if *label > 0.5 { -z } else { z })
            })
            .sum();
        data + 0.5 * RIDGE * prior * w.iter().map(|v| (v / 10.0).powi(2)).sum::<f64>()
    };
    let ridge = RIDGE * prior / 100.0;
    let mut w: Terms = [0.0; TERMS];
    let mut cost = loss(&w);
    for _ in 0..STEPS {
        let mut gradient = w.map(|v| ridge * v);
        let mut hessian = [[0.0f64; TERMS]; TERMS];
        hessian.iter_mut().enumerate().for_each(|(i, row)| {
            if let Some(d) = row.get_mut(i) {
                *d = ridge;
            }
        });
        for (x, label, weight) in &rows {
            let p = 1.0 / (1.0 + (-(inner(&w, x) + offset)).exp());
            let (g, h) = (weight * (p - label), weight * p * (1.0 - p));
            for ((slot, row), xi) in gradient.iter_mut().zip(&mut hessian).zip(x) {
                *slot += g * xi;
                row.iter_mut().zip(x).for_each(|(cell, xj)| *cell += h * xi * xj);
            }
        }
        let mut step = solve(hessian, gradient)?;
        let mut next = w;
        for _ in 0..40 {
            next = [0, 1, 2, 3, 4, 5].map(|i| at(&w, i) - at(&step, i));
            if loss(&next) <= cost {
                break;
            }
            step = step.map(|s| s * 0.5);
        }
        let gained = cost - loss(&next);
        if gained.is_nan() || gained <= 0.0 {
            break;
        }
        (w, cost) = (next, cost - gained);
        if gained < 1e-14 {
            break;
        }
    }
    w.iter().all(|v| v.is_finite()).then_some(w)
}

/// Gauss and Jordan with the largest pivot.
fn solve(mut a: [[f64; TERMS]; TERMS], mut b: Terms) -> Option<Terms> {
    for column in 0..TERMS {
        let cell = |a: &[[f64; TERMS]; TERMS], row: usize| a.get(row).and_then(|r| r.get(column)).copied().unwrap_or(0.0);
        let pivot = (column..TERMS).max_by(|i, j| cell(&a, *i).abs().total_cmp(&cell(&a, *j).abs()))?;
        a.swap(column, pivot);
        b.swap(column, pivot);
        let by = cell(&a, column);
        if by.abs() < 1e-300 {
            return None;
        }
        let (own, own_b) = (*a.get(column)?, *b.get(column)?);
        for row in (0..TERMS).filter(|r| *r != column) {
            let factor = cell(&a, row) / by;
            a.get_mut(row)?.iter_mut().zip(&own).for_each(|(v, o)| *v -= factor * o);
            *b.get_mut(row)? -= factor * own_b;
        }
    }
    let mut out = [0.0; TERMS];
    for (i, slot) in out.iter_mut().enumerate() {
        *slot = b.get(i)? / a.get(i)?.get(i)?;
    }
    Some(out)
}

/// Four places: finer than anything that was measured, and a file that can be read.
fn rounded(mut made: VoiceCalibration) -> VoiceCalibration {
    for v in [&mut made.bias, &mut made.score, &mut made.ln_net, &mut made.score_ln_net, &mut made.snr, &mut made.score_snr] {
        *v = (*v * 1e4).round() / 1e4;
    }
    made
}

fn at(terms: &Terms, i: usize) -> f64 {
    terms.get(i).copied().unwrap_or(0.0)
}

fn inner(a: &Terms, b: &Terms) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// ln(1 + eˣ) without overflow.
fn softplus(x: f64) -> f64 {
    if x > 30.0 { x } else { x.exp().ln_1p() }
}

#[allow(clippy::cast_precision_loss)] // trials and speakers: far below 2⁵²
fn count(n: usize) -> f64 {
    n as f64
}

#[allow(clippy::cast_possible_truncation)] // a mean of unit vectors
fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
#[path = "calibrate_tests.rs"]
mod tests;
