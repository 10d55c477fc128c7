//! Stored evidence (scores, never audio), judged again under another policy: what would have been decided?

use serde::{Deserialize, Serialize};

use super::evidence::{NumberEvidence, PhraseEvidence, Tightening, VoiceScore};
use super::judge::{NumberVerdict, VoiceAccepted, VoiceVerdict, judge_challenge, judge_number, judge_voice};
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
    // A challenge that was due and passed has done its work.
    let known = Tightening { challenge_due: e.known.challenge_due && e.challenge.is_none(), ..e.known };
    let verdict = match (judge_voice(policy, e.voice.clone(), &known), &e.challenge) {
        (VoiceVerdict::StepUp(first), Some((voice, content))) => judge_challenge(policy, &first, voice.clone(), content, &known),
        (other, _) => other,
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
