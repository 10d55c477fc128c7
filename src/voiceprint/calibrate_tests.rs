//! Calibrating, on made-up voices and scores whose answer is known.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // small numbers of a test

use super::super::embedding::ModelVersion;
use super::*;

/// Numbers between −1 and 1 that are always the same.
fn noise(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    f64::from((*state >> 33) as u32) / f64::from(1u32 << 30) - 1.0
}

fn samples(shift_short: f64) -> Vec<Sample> {
    let mut state = 7;
    let mut gauss = move || (0..12).map(|_| noise(&mut state)).sum::<f64>() / 2.0; // variance 1
    let mut out = Vec::new();
    for i in 0..6_000 {
        let (target, short) = (i % 3 == 0, i % 2 == 0);
        // Means 0.7 and 0.3, deviation 0.1: the true ratio is 40 · (s − 0.5).
        let mean = if target { 0.7 } else { 0.3 } + if short { shift_short } else { 0.0 };
        let made = Conditions { net_speech_ms: if short { 1_000 } else { 10_000 }, snr_db: 30.0 };
        out.push(Sample { target, cosine: (mean + 0.1 * gauss()) as f32, made });
    }
    out
}

#[test]
fn the_ratio_of_two_known_gaussians_is_found() {
    let made = fit(&samples(0.0), 0.5, "m").unwrap();
    assert!((made.score - 40.0).abs() < 5.0, "{made:?}");
    assert!(made.llr(0.5, 10_000, 30.0).abs() < 0.7, "{made:?}");
    assert_eq!(made.model, "m");
}

#[test]
fn short_speech_whose_scores_lie_lower_is_made_up_for() {
    let made = fit(&samples(-0.15), 0.5, "m").unwrap();
    assert!(made.llr(0.5, 10_000, 30.0).abs() < 0.8, "{made:?}");
    assert!(made.llr(0.35, 1_000, 30.0).abs() < 0.8, "{made:?}");
    assert!(made.llr(0.6, 1_000, 30.0) > made.llr(0.6, 10_000, 30.0) + 2.0);
}

#[test]
fn scores_that_separate_give_a_finite_slope_and_one_kind_alone_none() {
    let one = |target, cosine| Sample { target, cosine, made: Conditions { net_speech_ms: 5_000, snr_db: 20.0 } };
    let apart = [one(true, 0.8), one(true, 0.9), one(false, 0.1), one(false, 0.2)];
    let made = fit(&apart, 0.01, "m").unwrap();
    assert!(made.score.is_finite() && made.llr(0.85, 5_000, 20.0) > made.llr(0.15, 5_000, 20.0));
    assert!(fit(&apart[..2], 0.01, "m").is_none() && fit(&apart[2..], 0.01, "m").is_none());
}

#[test]
fn a_threshold_holds_its_rate_in_the_condition_that_needs_most() {
    let low: Vec<f32> = (0..1_000).map(|i| i as f32 / 100.0).collect(); // 0 … 9.99
    let high: Vec<f32> = low.iter().map(|l| l + 2.0).collect();
    let made = thresholds(&[low.clone(), high.clone()], &RATES);
    assert_eq!(made.first().map(|t| t.far), Some(0.2));
    assert_eq!(made.last().map(|t| t.far), Some(0.005), "rates of fewer than three impostors are not told");
    for t in &made {
        let far = high.iter().filter(|l| f64::from(**l) >= t.llr).count() as f64 / 1_000.0;
        assert!(far <= t.far && far >= t.far - 0.0021, "{t:?}: {far}");
    }
    assert!(made.windows(2).all(|w| w[0].llr <= w[1].llr));
    // Ties are shut out together.
    assert_eq!(needed(&[1.0; 100], 0.5), None);
    assert!(thresholds(&[], &RATES).is_empty());
}

#[test]
fn short_speech_pays_only_as_much_as_its_rates_need() {
    let spread = |by: f32, net: u32| -> Vec<Impostor> { (0..6_000).map(|i| (by * (i as f32 / 600.0 - 9.0), net)).collect() };
    let (off, made) = thresholds_for_all(&[spread(1.0, 9_000)], &[spread(1.0, 2_500)]);
    assert!(off.abs() < 1e-9 && !made.is_empty(), "nothing where it scatters no further: {off}");
    let (off, made) = thresholds_for_all(&[spread(1.0, 9_000)], &[spread(2.5, 2_500)]);
    assert_eq!(made, thresholds(&[spread(1.0, 9_000).iter().map(|i| i.0).collect()], &RATES), "long speech pays nothing");
    // The 1 % threshold is 0.9 and short speech has its own at 2.25: a factor of two in length must make up for that, and no more.
    assert!((off * 2f64.ln() - 1.4).abs() < 0.3, "{off}");
}

#[test]
fn a_trial_is_scored_by_a_mean_that_knows_neither_speaker() {
    let said = |voice: usize, common: f32| {
        let mut v = vec![0.0f32; EMBEDDING_SIZE];
        v[voice] = 1.0;
        v[100] = common;
        Embedding::new(v, ModelVersion::new("m")).unwrap()
    };
    let take = |voice: usize, common: f32| Take::new(said(voice, common), said(voice, common), 4_000);
    let mut all = HeldOut::default();
    for voice in 0..6 {
        all.enrol(&format!("s{voice}"), vec![take(voice, 2.0), take(voice, 2.1)]);
    }
    let own = all.cosine("s0", "s0", &said(0, 2.05)).unwrap();
    let other = all.cosine("s0", "s1", &said(1, 2.05)).unwrap();
    assert!(own > 0.95 && other < 0.6, "{own} {other}: what all have in common is taken away");
    // What the speaker itself adds to the mean must not show: another enrolment of s1 changes nothing here.
    all.enrol("s9", vec![take(9, 2.0)]);
    let with_s9 = all.cosine("s0", "s9", &said(1, 2.05)).unwrap();
    assert!((with_s9 - other).abs() < 0.25);
    let mut few = HeldOut::default();
    (0..4).for_each(|v| few.enrol(&format!("s{v}"), vec![take(v, 2.0)]));
    assert!(few.cosine("s0", "s1", &said(1, 2.0)).is_none(), "two others are no mean");
    assert!(all.cosine("nobody", "s1", &said(1, 2.0)).is_none());
    assert!(!format!("{all:?}").contains("2.0"));
}
