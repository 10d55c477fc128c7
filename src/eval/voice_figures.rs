//! Error rates, costs and calibration of scored voice trials. Scores are the service's own ratios: calibrated, with what the quality of
//! an utterance says; the raw cosine, and a calibration fitted anew on other speakers, stand beside them.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::metrics::{Calibration, Point, Scores, bayes_threshold, borne_out, cllr, ratio};
use super::people::People;
use super::plan::BySpeaker;
use super::results::{Figure, Shape, Slice, finite, grouped};
use super::voiceprint::{Scored, Who};
use crate::decision::Policy;

/// Charts show ratios this far from zero, in nats.
const SHOWN: f64 = 25.0;

/// Figures of a set of trials.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VoiceFigures {
    /// Equal error rate.
    pub eer: Figure,
    /// Least detection cost.
    pub min_dcf: Figure,
    /// Detection cost at the Bayes threshold of the ratios.
    pub act_dcf: Figure,
    /// Cost of the ratios, in bits.
    pub cllr: Figure,
    /// Genuine refused where 1 % of impostors pass.
    pub frr_at_far_0_01: Figure,
    /// Genuine refused where 0.1 % of impostors pass.
    pub frr_at_far_0_001: Figure,
    /// Equal error rate of the raw cosine.
    pub raw_eer: Option<f64>,
    /// Detection cost of ratios fitted to the raw cosine anew, each speaker's on trials without that speaker on either side.
    pub act_dcf_refitted: Option<f64>,
    /// Trials of the same speaker.
    pub genuine_trials: usize,
    /// Trials of two speakers.
    pub impostor_trials: usize,
    /// Enrolled speakers.
    pub speakers: usize,
}

/// What the service's thresholds would have done.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct AtThresholds {
    /// Accept from here on, in nats.
    pub accept_llr: f32,
    /// Reject below, in nats.
    pub reject_llr: f32,
    /// Share of genuine trials accepted.
    pub genuine_accepted: Option<f64>,
    /// Share of genuine trials rejected at once.
    pub genuine_rejected: Option<f64>,
    /// Share of impostor trials accepted.
    pub impostor_accepted: Option<f64>,
    /// Share of impostor trials rejected at once.
    pub impostor_rejected: Option<f64>,
}

/// Figures with parts and what charts need.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VoiceReport {
    /// Of all trials.
    pub figures: VoiceFigures,
    /// By source, language and gender.
    pub slices: Vec<Slice<VoiceFigures>>,
    /// What the service's thresholds would have done.
    pub at_thresholds: AtThresholds,
    /// Ratios.
    pub shape: Shape,
    /// Ratios against those that the trials bear out.
    pub reliability: Vec<(f64, f64)>,
}

/// Figures of scored trials.
pub fn report(scored: &[Scored], people: &People, policy: &Policy, seed: u64) -> VoiceReport {
    let all: Vec<&Scored> = scored.iter().collect();
    let llr = llrs(&all);
    let by = |by: &str, name: &dyn Fn(&Scored) -> String| -> Vec<Slice<VoiceFigures>> {
        let parts = grouped(scored, |s| name(s));
        parts.into_iter().map(|(name, part)| Slice { by: by.to_owned(), name, figures: figures(&part, seed) }).collect()
    };
    let mut slices = by("source", &|s| s.enrolled.0.clone());
    slices.extend(by("language", &|s| people.language(&s.enrolled.0, &s.enrolled.1)));
    slices.extend(by("gender", &|s| people.gender(&s.enrolled.0, &s.enrolled.1)));
    VoiceReport {
        figures: figures(&all, seed),
        slices,
        at_thresholds: at_thresholds(scored, policy),
        shape: Shape::of(&llr, -SHOWN, SHOWN),
        reliability: borne_out(&llr),
    }
}

fn figures(scored: &[&Scored], seed: u64) -> VoiceFigures {
    let groups = BySpeaker::new(scored, seed, |s| format!("{}/{}", s.enrolled.0, s.enrolled.1));
    let statistics = |drawn: &[&&Scored]| {
        let drawn: Vec<&Scored> = drawn.iter().map(|s| **s).collect();
        let llr = llrs(&drawn);
        if !llr.complete() {
            return [f64::NAN; 6];
        }
        let curve = llr.curve();
        let min_dcf = curve.iter().map(Point::dcf).fold(f64::INFINITY, f64::min);
        let frr = |far| Scores::at_far_of(&curve, far).frr;
        [Scores::eer_of(&curve), min_dcf, llr.at(bayes_threshold()).dcf(), cllr(&llr), frr(0.01), frr(0.001)]
    };
    let [eer, min_dcf, act_dcf, cllr, frr_at_far_0_01, frr_at_far_0_001] = groups.figures(statistics);
    let cosines = split(scored.iter().map(|s| (s.target, s.cosine)));
    let refitted = refitted(scored);
    VoiceFigures {
        eer,
        min_dcf,
        act_dcf,
        cllr,
        frr_at_far_0_01,
        frr_at_far_0_001,
        raw_eer: finite(cosines.eer()),
        act_dcf_refitted: if refitted.complete() { finite(refitted.at(bayes_threshold()).dcf()) } else { None },
        genuine_trials: cosines.genuine.len(),
        impostor_trials: cosines.impostor.len(),
        speakers: groups.speakers(),
    }
}

/// Ratios, each speaker's by a calibration fitted on trials without that speaker on either side.
fn refitted(scored: &[&Scored]) -> Scores {
    let speakers: BTreeSet<&Who> = scored.iter().map(|t| &t.enrolled).collect();
    let mut fitted: HashMap<&Who, Option<Calibration>> = HashMap::new();
    for who in speakers {
        let others = scored.iter().filter(|t| t.enrolled != *who && !(t.enrolled.0 == who.0 && t.tested == who.1));
        fitted.insert(who, Calibration::fit(&split(others.map(|t| (t.target, t.cosine)))));
    }
    let llr = |t: &Scored| fitted.get(&t.enrolled).copied().flatten().map(|c| c.llr(t.cosine));
    // One speaker alone can't be calibrated by others.
    let all: Option<Vec<(bool, f64)>> = scored.iter().map(|t| llr(t).map(|l| (t.target, l))).collect();
    split(all.unwrap_or_default().into_iter())
}

fn llrs(scored: &[&Scored]) -> Scores {
    split(scored.iter().map(|s| (s.target, s.llr)))
}

fn split(marked: impl Iterator<Item = (bool, f64)>) -> Scores {
    let mut scores = Scores::default();
    marked.for_each(|(target, s)| if target { &mut scores.genuine } else { &mut scores.impostor }.push(s));
    scores
}

fn at_thresholds(scored: &[Scored], policy: &Policy) -> AtThresholds {
    let t = &policy.voice;
    let accepted = |s: &&Scored| s.llr >= f64::from(t.accept_llr) && s.net_speech_ms >= t.min_net_speech_ms;
    let rejected = |s: &&Scored| s.llr < f64::from(t.reject_llr);
    let of = |target: bool| scored.iter().filter(move |s| s.target == target);
    let share = |hits: usize, target: bool| finite(ratio(hits, of(target).count()));
    AtThresholds {
        accept_llr: t.accept_llr,
        reject_llr: t.reject_llr,
        genuine_accepted: share(of(true).filter(accepted).count(), true),
        genuine_rejected: share(of(true).filter(rejected).count(), true),
        impostor_accepted: share(of(false).filter(accepted).count(), false),
        impostor_rejected: share(of(false).filter(rejected).count(), false),
    }
}

impl VoiceFigures {
    /// The keys that `eval voiceprint --json` promises: plain numbers, intervals beside them.
    pub fn json(&self) -> Value {
        json!({
            "eer": self.eer.value,
            "min_dcf": self.min_dcf.value,
            "act_dcf": self.act_dcf.value,
            "cllr": self.cllr.value,
            "frr_at_far_0_01": self.frr_at_far_0_01.value,
            "frr_at_far_0_001": self.frr_at_far_0_001.value,
            "raw_eer": self.raw_eer,
            "act_dcf_refitted": self.act_dcf_refitted,
            "trials": self.genuine_trials + self.impostor_trials,
            "genuine_trials": self.genuine_trials,
            "impostor_trials": self.impostor_trials,
            "speakers": self.speakers,
            "intervals_95": {
                "eer": self.eer.interval_95,
                "min_dcf": self.min_dcf.interval_95,
                "act_dcf": self.act_dcf.interval_95,
                "cllr": self.cllr.interval_95,
                "frr_at_far_0_01": self.frr_at_far_0_01.interval_95,
                "frr_at_far_0_001": self.frr_at_far_0_001.interval_95,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(who: &str, tested: &str, cosine: f64) -> Scored {
        let enrolled = ("s".to_owned(), who.to_owned());
        Scored {
            enrolled,
            tested: tested.to_owned(),
            target: who == tested,
            cosine,
            llr: cosine * 20.0 - 10.0,
            net_speech_ms: 9_000,
            snr_db: 30.0,
        }
    }

    #[test]
    fn figures_are_of_the_services_ratios_and_keep_their_names_in_json() {
        let mut all = Vec::new();
        for (i, who) in ["a", "b", "c"].iter().enumerate() {
            for other in ["a", "b", "c"] {
                all.push(trial(who, other, if *who == other { 0.9 + i as f64 * 0.01 } else { 0.1 + i as f64 * 0.01 }));
            }
        }
        let r = report(&all, &People::default(), &Policy::any_voice(), 1);
        assert_eq!((r.figures.eer.value, r.figures.genuine_trials, r.figures.impostor_trials), (Some(0.0), 3, 6));
        assert_eq!((r.at_thresholds.genuine_accepted, r.at_thresholds.impostor_accepted), (Some(1.0), Some(1.0)));
        assert!(r.slices.iter().any(|s| s.by == "language" && s.name == "unknown"));
        let json = r.figures.json();
        for key in ["eer", "min_dcf", "act_dcf", "cllr", "frr_at_far_0_01", "frr_at_far_0_001", "trials"] {
            assert!(json[key].is_number(), "{key}");
        }
        assert!(json["intervals_95"]["eer"]["high"].is_number());
    }

    #[test]
    fn one_speaker_alone_has_no_refitted_cost() {
        let r = report(&[trial("a", "a", 0.9), trial("a", "b", 0.1)], &People::default(), &Policy::nobody(), 1);
        assert_eq!(r.figures.act_dcf_refitted, None);
        assert_eq!(r.figures.eer.interval_95, None);
        assert_eq!(r.at_thresholds.genuine_accepted, Some(0.0));
    }
}
