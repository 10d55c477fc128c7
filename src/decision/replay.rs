//! Stored evidence (scores, never audio), judged again under another policy: what would have been decided?

use serde::{Deserialize, Serialize};

use super::evidence::{NumberEvidence, PhraseEvidence, Tightening, VoiceScore};
use super::judge::{NumberVerdict, VoiceAccepted, VoiceVerdict, judge_challenge, judge_fresh_digits, judge_number, judge_voice};
use super::policy::Policy;
use crate::clock::Timestamp;
use crate::ids::CardId;

/// What one decision was made on. Kept with the call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredEvidence {
    /// When it was decided.
    pub at: Timestamp,
    /// The policy it was decided under.
    pub policy: String,
    /// The voice of the utterance with the number.
    pub voice: VoiceScore,
    /// Fresh digits, if they were asked for and said.
    #[serde(default)]
    pub challenge: Option<(VoiceScore, PhraseEvidence)>,
    /// Nothing was said before the fresh digits: `voice` is theirs.
    #[serde(default)]
    pub digits_alone: bool,
    /// The number, if the voice was accepted so that it was looked at.
    #[serde(default)]
    pub number: Option<NumberEvidence>,
    /// What else was known.
    pub known: Tightening,
    /// What was decided.
    pub outcome: Outcome,
}

/// What a decision comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Voice and number hold.
    Accepted(CardId),
    /// Fresh digits are wanted.
    StepUp,
    /// Asked again.
    Inconclusive,
    /// Refused.
    Rejected,
    /// The voice holds, and the number was never looked at: under the policy of that time the voice did not hold.
    NumberUnknown,
}

/// Decides stored evidence under `policy`. Calibrated ratios are taken as they were stored: another calibration needs raw scores and
/// is another question.
pub fn decide_again(policy: &Policy, e: &StoredEvidence) -> Outcome {
    // Where fresh digits were due they decided, however sure the voice before them was.
    let known = e.known;
    let verdict = match &e.challenge {
        Some((voice, content)) if e.digits_alone => judge_fresh_digits(policy, voice.clone(), content, &known),
        challenge => match (judge_voice(policy, e.voice.clone(), &known), challenge) {
            (VoiceVerdict::StepUp(first), Some((voice, content))) => {
                judge_challenge(policy, &first, voice.clone(), content, &known)
            }
            (other, _) => other,
        },
    };
    match verdict {
        VoiceVerdict::Accepted(accepted) => number(policy, &accepted, e, &known),
        VoiceVerdict::StepUp(_) => Outcome::StepUp,
        VoiceVerdict::Inconclusive => Outcome::Inconclusive,
        VoiceVerdict::Rejected => Outcome::Rejected,
    }
}

fn number(policy: &Policy, accepted: &VoiceAccepted, e: &StoredEvidence, known: &Tightening) -> Outcome {
    let Some(evidence) = &e.number else { return Outcome::NumberUnknown };
    match judge_number(policy, accepted, evidence, known) {
        NumberVerdict::Accepted(card) => Outcome::Accepted(card),
        NumberVerdict::Inconclusive => Outcome::Inconclusive,
        NumberVerdict::Rejected => Outcome::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::CardEvidence;
    use crate::decision::policy::{ChallengeWhen, DigitThresholds, VoiceThresholds};

    fn policy(accept_llr: f32) -> Policy {
        Policy {
            voice: VoiceThresholds { accept_llr, reject_llr: -1.0, min_net_speech_ms: 2_500 },
            number: DigitThresholds { accept_llr: 2.0, reject_llr: -2.0 },
            challenge_when: ChallengeWhen::Inconclusive,
            challenge_voice_llr: 1.0,
            challenge_pooling: 0.7,
            ..Policy::any_voice()
        }
    }

    fn voice(llr: f32) -> VoiceScore {
        VoiceScore { llr, snr_db: 25.0, ..VoiceScore::not_compared(6_000, "m") }
    }

    fn stored(voice_llr: f32, number: Option<f32>) -> StoredEvidence {
        let card = CardId::parse("card_1").unwrap();
        let number = number.map(|llr| NumberEvidence::Spoken {
            cards: vec![CardEvidence { card: card.clone(), log_ratio: llr, llr }],
            engine: "e".to_owned(),
            calibration: "c".to_owned(),
        });
        StoredEvidence {
            at: Timestamp(0),
            policy: "1".to_owned(),
            voice: voice(voice_llr),
            challenge: None,
            digits_alone: false,
            number,
            known: Tightening::default(),
            outcome: Outcome::Accepted(card),
        }
    }

    #[test]
    fn the_same_policy_decides_the_same_and_a_stricter_one_may_not() {
        let e = stored(6.0, Some(5.0));
        assert_eq!(decide_again(&policy(5.0), &e), e.outcome);
        assert_eq!(decide_again(&policy(7.0), &e), Outcome::StepUp);
        assert_eq!(decide_again(&policy(5.0), &stored(6.0, Some(-3.0))), Outcome::Inconclusive, "so sure a voice is asked again");
        assert_eq!(decide_again(&policy(5.0), &stored(5.0, Some(-3.0))), Outcome::Rejected);
        assert_eq!(decide_again(&policy(5.0), &stored(-2.0, Some(5.0))), Outcome::Rejected);
    }

    #[test]
    fn a_looser_policy_cannot_know_a_number_that_was_never_looked_at() {
        assert_eq!(decide_again(&policy(1.0), &stored(2.0, None)), Outcome::NumberUnknown);
    }

    #[test]
    fn fresh_digits_count_where_the_first_utterance_asks_for_them() {
        let content = PhraseEvidence { log_ratio: 9.0, llr: 9.0, engine: "e".to_owned(), calibration: "c".to_owned() };
        let mut e = stored(4.0, Some(5.0));
        e.challenge = Some((voice(4.0), content));
        e.known.challenge_due = true;
        assert_eq!(decide_again(&policy(5.0), &e), e.outcome, "0.7 × 8 reaches 5, and what was due has passed");
        assert_eq!(decide_again(&policy(6.0), &e), Outcome::Inconclusive);
    }

    #[test]
    fn fresh_digits_that_nothing_went_before_are_judged_by_themselves() {
        let content = PhraseEvidence { log_ratio: 9.0, llr: 9.0, engine: "e".to_owned(), calibration: "c".to_owned() };
        let mut e = stored(4.0, None);
        (e.challenge, e.digits_alone) = (Some((voice(4.0), content)), true);
        assert_eq!(decide_again(&policy(5.0), &e), Outcome::Inconclusive);
        assert_eq!(decide_again(&policy(4.0), &e), Outcome::NumberUnknown, "the voice holds, and no number was said");
    }

    #[test]
    fn stored_evidence_survives_its_json() {
        let e = stored(6.0, Some(5.0));
        let text = serde_json::to_string(&e).unwrap();
        assert_eq!(serde_json::from_str::<StoredEvidence>(&text).unwrap(), e);
    }
}
