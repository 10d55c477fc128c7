//! PURE. Voice and number, each judged by its own thresholds; both must accept. Nothing here does I/O or reads a clock.
//!
//! Evidence types live here, not with the models, so that the dialogue can hold them without knowing a model.

use serde::{Deserialize, Serialize};

use crate::ids::CardId;

/// How one utterance's voice compares with a template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VoiceScore {
    /// Cosine of the centred embeddings, −1 to 1.
    pub cosine: f32,
    /// Speech without pauses in the utterance, in milliseconds.
    pub net_speech_ms: u32,
    /// Which model and centring made it.
    pub model: String,
}

/// Where voice is accepted and where it is rejected; between lies inconclusive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoiceThresholds {
    /// Accept at this cosine and above.
    pub accept_cosine: f32,
    /// Reject below this cosine.
    pub reject_cosine: f32,
    /// Less speech than this is never accepted, in milliseconds.
    pub min_net_speech_ms: u32,
}

/// Proof that a voice was accepted. Only [`judge_voice`] makes one, and scoring against an authorised card number asks for it:
/// the order "voice first" is held by the compiler.
#[derive(Debug)]
pub struct VoiceAccepted {
    score: VoiceScore,
}

impl VoiceAccepted {
    /// The score that was accepted.
    pub fn score(&self) -> &VoiceScore {
        &self.score
    }
}

/// What became of a voice.
#[derive(Debug)]
pub enum VoiceVerdict {
    /// It is the customer's, as far as voice can tell.
    Accepted(VoiceAccepted),
    /// Can't be told; ask again or step up.
    Inconclusive,
    /// It is not.
    Rejected,
}

/// Judges a voice score. Thresholds that are not finite or cross each other accept nobody.
pub fn judge_voice(t: &VoiceThresholds, score: VoiceScore) -> VoiceVerdict {
    let sane = t.accept_cosine.is_finite() && t.reject_cosine.is_finite() && t.reject_cosine <= t.accept_cosine;
    if !sane || !score.cosine.is_finite() || score.cosine < t.reject_cosine {
        return VoiceVerdict::Rejected;
    }
    if score.cosine >= t.accept_cosine && score.net_speech_ms >= t.min_net_speech_ms {
        return VoiceVerdict::Accepted(VoiceAccepted { score });
    }
    VoiceVerdict::Inconclusive
}

/// How likely one authorised card's number is to be what was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CardEvidence {
    /// Which card.
    pub card: CardId,
    /// log P(audio | this card's number) − log P(audio | the best other digit string of any length), natural logarithm.
    /// Positive: no other string that was looked at explains the audio better.
    pub log_ratio: f32,
}

/// What one utterance (or the keypad) says of the authorised cards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NumberEvidence {
    /// Spoken: one entry a card that was asked about.
    Spoken { cards: Vec<CardEvidence>, engine: String },
    /// Keyed on the keypad and compared by keyed digest: the card that matches, if any.
    Keyed { card: Option<CardId> },
}

/// What one utterance says of digits that are no secret: a challenge, an enrolment line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhraseEvidence {
    /// As [`CardEvidence::log_ratio`].
    pub log_ratio: f32,
    /// The same, calibrated.
    pub llr: f32,
    /// What heard it.
    pub engine: String,
    /// What calibrated it.
    pub calibration: String,
}

/// Where a number is accepted and where it is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberThresholds {
    /// Accept at this log ratio and above.
    pub accept_log_ratio: f32,
    /// Reject below this log ratio.
    pub reject_log_ratio: f32,
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
/// With several cards the best must be accepted and no second one may be accepted too.
pub fn judge_number(t: &NumberThresholds, _voice: &VoiceAccepted, evidence: &NumberEvidence) -> NumberVerdict {
    match evidence {
        NumberEvidence::Keyed { card: Some(card) } => NumberVerdict::Accepted(card.clone()),
        NumberEvidence::Keyed { card: None } => NumberVerdict::Rejected,
        NumberEvidence::Spoken { cards, .. } => {
            let sane =
                t.accept_log_ratio.is_finite() && t.reject_log_ratio.is_finite() && t.reject_log_ratio <= t.accept_log_ratio;
            if !sane || cards.iter().any(|c| c.log_ratio.is_nan()) {
                return NumberVerdict::Rejected;
            }
            let mut accepted = cards.iter().filter(|c| c.log_ratio >= t.accept_log_ratio);
            match (accepted.next(), accepted.next()) {
                (Some(one), None) => NumberVerdict::Accepted(one.card.clone()),
                (Some(_), Some(_)) => NumberVerdict::Inconclusive,
                (None, _) if cards.iter().any(|c| c.log_ratio >= t.reject_log_ratio) => NumberVerdict::Inconclusive,
                (None, _) => NumberVerdict::Rejected,
            }
        }
    }
}

/// What a spoken answer to a yes-or-no question means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Clearly yes.
    Yes,
    /// Clearly no.
    No,
    /// "Cancel", "stop".
    Cancel,
    /// Anything else, "not yes" and "yes, no wait" among it.
    Unclear,
}
