//! Evidence and policy to verdicts. Every way of failing is an explicit arm; what is not a number accepts nothing.

use super::evidence::{NumberEvidence, PhraseEvidence, Tightening, VoiceScore};
use super::policy::{ChallengeWhen, Policy};
use crate::ids::CardId;

/// A voice that is surer than it must be lifts a number by no more than this from "rejected" to "ask again".
const SURPLUS_LIMIT_NATS: f32 = 3.0;

/// Proof that a voice was accepted. Only [`judge_voice`], [`judge_challenge`] and [`judge_fresh_digits`] make one, and scoring against an
/// authorised card number asks for it: the order "voice first" is held by the compiler.
#[derive(Debug)]
pub struct VoiceAccepted {
    score: VoiceScore,
    challenged: bool,
}

impl VoiceAccepted {
    /// The score that was accepted.
    pub fn score(&self) -> &VoiceScore {
        &self.score
    }

    /// Whether fresh digits were said in this voice.
    pub fn challenged(&self) -> bool {
        self.challenged
    }
}

/// What became of a voice.
#[derive(Debug)]
pub enum VoiceVerdict {
    /// It is the customer's, as far as voice can tell.
    Accepted(VoiceAccepted),
    /// More is needed, and fresh digits can give it.
    StepUp(VoiceScore),
    /// Can't be told from so little; ask again.
    Inconclusive,
    /// It is not.
    Rejected,
}

/// Judges a voice. Thresholds that are not finite or cross each other accept nobody.
pub fn judge_voice(policy: &Policy, score: VoiceScore, known: &Tightening) -> VoiceVerdict {
    let t = &policy.voice;
    let Some(llr) = tightened(policy, score.llr, known) else { return VoiceVerdict::Rejected };
    if !sane(t.accept_llr, t.reject_llr) || llr < t.reject_llr {
        return VoiceVerdict::Rejected;
    }
    if score.net_speech_ms < t.min_net_speech_ms {
        return VoiceVerdict::Inconclusive;
    }
    if llr >= t.accept_llr && !known.challenge_due {
        return VoiceVerdict::Accepted(VoiceAccepted { score, challenged: false });
    }
    match policy.challenge_when {
        // What a payment's own terms ask for is asked for, even where fresh digits never settle a doubt.
        ChallengeWhen::Never if known.challenge_due => VoiceVerdict::StepUp(score),
        ChallengeWhen::Inconclusive | ChallengeWhen::Always => VoiceVerdict::StepUp(score),
        ChallengeWhen::Never => VoiceVerdict::Inconclusive,
    }
}

/// Judges fresh digits: what was said must be what was asked for, and the voice must reach its own threshold by itself and the
/// accept threshold together with the utterance before.
pub fn judge_challenge(
    policy: &Policy,
    first: &VoiceScore,
    voice: VoiceScore,
    content: &PhraseEvidence,
    known: &Tightening,
) -> VoiceVerdict {
    let together = policy.challenge_pooling * (voice.llr + first.llr) - penalty(policy, known);
    if !together.is_finite() {
        return VoiceVerdict::Rejected;
    }
    judge_digits(policy, together, voice, content, known)
}

/// Judges fresh digits that no utterance went before: the voice must reach the accept threshold by itself, on as much speech as any
/// utterance that is judged alone.
pub fn judge_fresh_digits(policy: &Policy, voice: VoiceScore, content: &PhraseEvidence, known: &Tightening) -> VoiceVerdict {
    let short = voice.net_speech_ms < policy.voice.min_net_speech_ms;
    match judge_digits(policy, f32::NEG_INFINITY, voice, content, known) {
        VoiceVerdict::Accepted(_) if short => VoiceVerdict::Inconclusive,
        verdict => verdict,
    }
}

/// `together`: the ratio of all that was said so far, where that is more than this voice alone.
fn judge_digits(policy: &Policy, together: f32, voice: VoiceScore, content: &PhraseEvidence, known: &Tightening) -> VoiceVerdict {
    let t = &policy.voice;
    let Some(now) = tightened(policy, voice.llr, known) else { return VoiceVerdict::Rejected };
    if !sane(t.accept_llr, t.reject_llr) || !policy.challenge_voice_llr.is_finite() || now < t.reject_llr {
        return VoiceVerdict::Rejected;
    }
    match judge_phrase(policy, content) {
        PhraseVerdict::Rejected => return VoiceVerdict::Rejected,
        PhraseVerdict::Inconclusive => return VoiceVerdict::Inconclusive,
        PhraseVerdict::Accepted => {}
    }
    if now >= policy.challenge_voice_llr && together.max(now) >= t.accept_llr {
        return VoiceVerdict::Accepted(VoiceAccepted { score: voice, challenged: true });
    }
    VoiceVerdict::Inconclusive
}

/// The ratio as it counts, after all that tightens; `None` where nothing can be accepted.
fn tightened(policy: &Policy, llr: f32, known: &Tightening) -> Option<f32> {
    let counts = llr - penalty(policy, known);
    (counts.is_finite() && !known.heard_before).then_some(counts)
}

/// Never negative: nothing that is known of a call can loosen.
fn penalty(policy: &Policy, known: &Tightening) -> f32 {
    let failures = f32::from(u16::try_from(known.recent_failures).unwrap_or(u16::MAX));
    let unattested = if known.unattested { policy.tighten.unattested_nats } else { 0.0 };
    let spoof = known.spoof_llr.map_or(0.0, |s| if s.is_nan() { f32::INFINITY } else { s.max(0.0) });
    (unattested + failures * policy.tighten.failure_nats + spoof).max(0.0)
}

fn sane(accept: f32, reject: f32) -> bool {
    accept.is_finite() && reject.is_finite() && reject <= accept
}

/// What became of digits that we asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhraseVerdict {
    /// They were said.
    Accepted,
    /// Can't be told.
    Inconclusive,
    /// Something else was said.
    Rejected,
}

/// Judges the content of a challenge or of an enrolment line.
pub fn judge_phrase(policy: &Policy, content: &PhraseEvidence) -> PhraseVerdict {
    let t = &policy.phrase;
    if !sane(t.accept_llr, t.reject_llr) || content.llr.is_nan() || content.llr < t.reject_llr {
        return PhraseVerdict::Rejected;
    }
    if content.llr >= t.accept_llr { PhraseVerdict::Accepted } else { PhraseVerdict::Inconclusive }
}

/// What became of a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NumberVerdict {
    /// This card's number was said.
    Accepted(CardId),
    /// Can't be told: ask again.
    Inconclusive,
    /// None of the authorised cards.
    Rejected,
}

/// Judges number evidence. Takes the proof that the voice was accepted, so that it cannot run without it.
///
/// With several cards the best must be accepted and no second one may be accepted too; the threshold rises by ln k, so that the
/// false-accept rate holds over all k. Where the number can't be told, the fused ratio of voice and number says whether asking
/// again is worth it: it chooses between inconclusive and rejected, and never accepts.
pub fn judge_number(policy: &Policy, voice: &VoiceAccepted, evidence: &NumberEvidence, known: &Tightening) -> NumberVerdict {
    if known.heard_before {
        return NumberVerdict::Rejected;
    }
    match evidence {
        NumberEvidence::Keyed { card: Some(card) } => NumberVerdict::Accepted(card.clone()),
        NumberEvidence::Keyed { card: None } => NumberVerdict::Rejected,
        NumberEvidence::Spoken { cards, .. } => {
            let t = &policy.number;
            if !sane(t.accept_llr, t.reject_llr) || cards.iter().any(|c| c.llr.is_nan()) {
                return NumberVerdict::Rejected;
            }
            let accept = t.accept_llr + f32::from(u16::try_from(cards.len().max(1)).unwrap_or(u16::MAX)).ln();
            let mut accepted = cards.iter().filter(|c| c.llr >= accept);
            match (accepted.next(), accepted.next()) {
                (Some(one), None) => NumberVerdict::Accepted(one.card.clone()),
                (Some(_), Some(_)) => NumberVerdict::Inconclusive,
                (None, _) => {
                    let best = cards.iter().map(|c| c.llr).fold(f32::NEG_INFINITY, f32::max);
                    let surplus = (voice.score.llr - policy.voice.accept_llr).clamp(0.0, SURPLUS_LIMIT_NATS);
                    let worth_asking = best.is_finite() && best + surplus >= t.reject_llr;
                    if worth_asking { NumberVerdict::Inconclusive } else { NumberVerdict::Rejected }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::CardEvidence;
    use crate::decision::policy::{DigitThresholds, TightenConfig, VoiceThresholds};
    use proptest::prelude::*;

    fn policy() -> Policy {
        Policy {
            version: "t".to_owned(),
            calibration: "t".to_owned(),
            voice: VoiceThresholds { accept_llr: 5.0, reject_llr: -1.0, min_net_speech_ms: 2_500 },
            number: DigitThresholds { accept_llr: 4.0, reject_llr: -2.0 },
            phrase: DigitThresholds { accept_llr: 3.0, reject_llr: -2.0 },
            challenge_when: ChallengeWhen::Inconclusive,
            challenge_from_minor: 0,
            challenge_failed_attestation: true,
            challenge_voice_llr: 2.0,
            challenge_pooling: 0.7,
            tighten: TightenConfig { unattested_nats: 0.5, failure_nats: 1.0 },
        }
    }

    fn voice(llr: f32) -> VoiceScore {
        VoiceScore { cosine: 0.7, llr, net_speech_ms: 6_000, snr_db: 20.0, model: "m".to_owned(), calibration: "c".to_owned() }
    }

    fn phrase(llr: f32) -> PhraseEvidence {
        PhraseEvidence { log_ratio: llr, llr, engine: "e".to_owned(), calibration: "c".to_owned() }
    }

    fn spoken(llrs: &[f32]) -> NumberEvidence {
        let card = |i: usize| CardId::parse(&format!("card_{i}")).unwrap();
        let cards = llrs.iter().enumerate().map(|(i, l)| CardEvidence { card: card(i), log_ratio: *l, llr: *l }).collect();
        NumberEvidence::Spoken { cards, engine: "e".to_owned(), calibration: "c".to_owned() }
    }

    fn accepted(policy: &Policy, llr: f32) -> VoiceAccepted {
        match judge_voice(policy, voice(llr), &Tightening::default()) {
            VoiceVerdict::Accepted(a) => a,
            other => panic!("{other:?}"),
        }
    }

    fn holds(verdict: &VoiceVerdict) -> bool {
        matches!(verdict, VoiceVerdict::Accepted(_))
    }

    #[test]
    fn a_voice_is_accepted_stepped_up_or_rejected_by_its_own_thresholds() {
        let (p, none) = (policy(), Tightening::default());
        assert!(holds(&judge_voice(&p, voice(5.0), &none)));
        assert!(matches!(judge_voice(&p, voice(4.9), &none), VoiceVerdict::StepUp(_)));
        assert!(matches!(judge_voice(&p, voice(-1.1), &none), VoiceVerdict::Rejected));
        assert!(matches!(judge_voice(&p, voice(f32::NAN), &none), VoiceVerdict::Rejected));
        let short = VoiceScore { net_speech_ms: 2_499, ..voice(9.0) };
        assert!(matches!(judge_voice(&p, short, &none), VoiceVerdict::Inconclusive));
        let never = Policy { challenge_when: ChallengeWhen::Never, ..policy() };
        assert!(matches!(judge_voice(&never, voice(4.9), &none), VoiceVerdict::Inconclusive));
        let due = Tightening { challenge_due: true, ..none };
        assert!(matches!(judge_voice(&never, voice(25.0), &due), VoiceVerdict::StepUp(_)), "a payment's terms ask for them");
        assert!(matches!(judge_voice(&p, voice(25.0), &due), VoiceVerdict::StepUp(_)));
        assert!(matches!(judge_voice(&Policy::nobody(), voice(30.0), &none), VoiceVerdict::Rejected));
    }

    #[test]
    fn fresh_digits_need_their_content_and_both_voices() {
        let (p, none) = (policy(), Tightening::default());
        let judge = |first: f32, now: f32, said: f32| judge_challenge(&p, &voice(first), voice(now), &phrase(said), &none);
        assert!(holds(&judge(4.0, 4.0, 3.0)), "0.7 × 8 reaches 5");
        assert!(judge_is_challenged(judge(4.0, 4.0, 3.0)));
        assert!(matches!(judge(3.0, 4.0, 3.0), VoiceVerdict::Inconclusive), "0.7 × 7 does not");
        assert!(matches!(judge(20.0, 1.9, 9.0), VoiceVerdict::Inconclusive), "the fresh voice counts by itself");
        assert!(matches!(judge(4.0, 4.0, 2.9), VoiceVerdict::Inconclusive));
        assert!(matches!(judge(20.0, 20.0, -2.1), VoiceVerdict::Rejected), "other digits");
        assert!(matches!(judge(20.0, -1.1, 9.0), VoiceVerdict::Rejected), "another voice");
        assert!(matches!(judge(f32::NAN, 20.0, 9.0), VoiceVerdict::Rejected));
        let heard = Tightening { heard_before: true, ..none };
        assert!(matches!(judge_challenge(&p, &voice(20.0), voice(20.0), &phrase(9.0), &heard), VoiceVerdict::Rejected));
    }

    #[test]
    fn fresh_digits_alone_need_a_voice_that_is_sure_by_itself() {
        let (p, none) = (policy(), Tightening::default());
        let judge = |now: f32, said: f32| judge_fresh_digits(&p, voice(now), &phrase(said), &none);
        assert!(holds(&judge(5.0, 3.0)) && judge_is_challenged(judge(5.0, 3.0)));
        assert!(matches!(judge(4.9, 9.0), VoiceVerdict::Inconclusive), "nothing went before that it could lean on");
        assert!(matches!(judge(20.0, 2.9), VoiceVerdict::Inconclusive));
        assert!(matches!(judge(20.0, -2.1), VoiceVerdict::Rejected), "other digits");
        assert!(matches!(judge(-1.1, 9.0), VoiceVerdict::Rejected), "another voice");
        assert!(matches!(judge(f32::NAN, 9.0), VoiceVerdict::Rejected));
        let short = VoiceScore { net_speech_ms: 2_499, ..voice(20.0) };
        assert!(matches!(judge_fresh_digits(&p, short, &phrase(9.0), &none), VoiceVerdict::Inconclusive));
        let heard = Tightening { heard_before: true, ..none };
        assert!(matches!(judge_fresh_digits(&p, voice(20.0), &phrase(9.0), &heard), VoiceVerdict::Rejected));
        assert!(matches!(judge_fresh_digits(&Policy::nobody(), voice(30.0), &phrase(9.0), &none), VoiceVerdict::Rejected));
    }

    fn judge_is_challenged(verdict: VoiceVerdict) -> bool {
        matches!(verdict, VoiceVerdict::Accepted(a) if a.challenged())
    }

    #[test]
    fn a_number_is_judged_over_all_authorised_cards() {
        let (p, none) = (policy(), Tightening::default());
        let proof = accepted(&p, 6.0);
        let judge = |llrs: &[f32]| judge_number(&p, &proof, &spoken(llrs), &none);
        assert!(matches!(judge(&[4.0]), NumberVerdict::Accepted(_)));
        assert_eq!(judge(&[4.0, -9.0]), NumberVerdict::Inconclusive, "two cards ask for ln 2 more");
        assert!(matches!(judge(&[4.7, -9.0]), NumberVerdict::Accepted(_)));
        assert_eq!(judge(&[9.0, 9.0]), NumberVerdict::Inconclusive, "never two cards at once");
        assert_eq!(judge(&[-9.0]), NumberVerdict::Rejected);
        assert_eq!(judge(&[f32::NAN, 9.0]), NumberVerdict::Rejected);
        assert_eq!(judge(&[f32::NEG_INFINITY]), NumberVerdict::Rejected);
        assert_eq!(judge(&[]), NumberVerdict::Rejected);
        let heard = Tightening { heard_before: true, ..none };
        assert_eq!(judge_number(&p, &proof, &spoken(&[9.0]), &heard), NumberVerdict::Rejected);
    }

    proptest! {
        /// Whatever is known of a call, it never turns a verdict into an acceptance that would not stand without it.
        #[test]
        fn nothing_known_of_a_call_loosens(
            llr in -20f32..20.0, heard in any::<bool>(), spoof in proptest::option::of(-9f32..9.0),
            unattested in any::<bool>(), failed in any::<bool>(), failures in 0u32..9, due in any::<bool>(),
        ) {
            let p = policy();
            let known = Tightening {
                heard_before: heard,
                spoof_llr: spoof,
                unattested,
                failed_attestation: failed,
                recent_failures: failures,
                challenge_due: due,
            };
            let with = holds(&judge_voice(&p, voice(llr), &known));
            let without = holds(&judge_voice(&p, voice(llr), &Tightening::default()));
            prop_assert!(!with || without);
            prop_assert!(!(heard && with));
        }

        /// The fused ratio never accepts: a number below its own threshold is not accepted however sure the voice is.
        #[test]
        fn a_sure_voice_never_carries_a_number(sure in 5f32..30.0, number in -20f32..3.99) {
            let p = policy();
            let verdict = judge_number(&p, &accepted(&p, sure), &spoken(&[number]), &Tightening::default());
            prop_assert!(!matches!(verdict, NumberVerdict::Accepted(_)));
        }
    }
}
