//! What models say of one utterance. Numbers only: no audio, no embedding, no digit.

use serde::{Deserialize, Serialize};

use crate::ids::CardId;

/// How one utterance's voice compares with a template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VoiceScore {
    /// Cosine of the centred embeddings, −1 to 1: the raw score, for people and for calibrating anew.
    pub cosine: f32,
    /// ln P(score | the same voice) − ln P(score | another), by the calibration named below.
    pub llr: f32,
    /// Speech without pauses in the utterance, in milliseconds.
    pub net_speech_ms: u32,
    /// Estimated distance of speech from noise, in dB.
    pub snr_db: f32,
    /// Which model and centring made it.
    pub model: String,
    /// Which calibration made `llr`.
    pub calibration: String,
}

impl VoiceScore {
    /// The score of nobody: of an utterance that was not compared at all. Never accepted.
    pub fn not_compared(net_speech_ms: u32, model: &str) -> Self {
        Self { cosine: -1.0, llr: f32::MIN, net_speech_ms, snr_db: 0.0, model: model.to_owned(), calibration: "none".to_owned() }
    }
}

/// How likely one authorised card's number is to be what was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CardEvidence {
    /// Which card.
    pub card: CardId,
    /// ln P(audio | this card's number) − ln P(audio | the best other digit string of any length): the raw score.
    /// Positive: no other string that was looked at explains the audio better.
    pub log_ratio: f32,
    /// The calibrated ratio: this number was said, against a near miss of it.
    pub llr: f32,
}

/// What one utterance (or the keypad) says of the authorised cards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NumberEvidence {
    /// Spoken: one entry a card that was asked about.
    Spoken {
        /// Per card.
        cards: Vec<CardEvidence>,
        /// What read it.
        engine: String,
        /// Which calibration made the `llr`s.
        calibration: String,
    },
    /// Keyed on the keypad and compared by keyed digest: the card that matches, if any.
    Keyed {
        /// The card.
        card: Option<CardId>,
    },
}

/// How likely digits that we asked for (a challenge, an enrolment line) are what was said. They are no secret, so no accepted
/// voice is needed to look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhraseEvidence {
    /// As in [`CardEvidence`].
    pub log_ratio: f32,
    /// As in [`CardEvidence`].
    pub llr: f32,
    /// What read it.
    pub engine: String,
    /// Which calibration made `llr`.
    pub calibration: String,
}

/// What else is known of a call. Every field can make acceptance harder, none easier.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tightening {
    /// This audio was heard before: it is a recording.
    pub heard_before: bool,
    /// How much likelier the audio is if it is synthetic, natural logarithm, where something measured that.
    pub spoof_llr: Option<f32>,
    /// Nobody vouches for the caller's number.
    pub unattested: bool,
    /// The caller's number is signed, and the signature does not hold. Policy asks for fresh digits then (`challenge_due`).
    #[serde(default)]
    pub failed_attestation: bool,
    /// Failed factors of the last 24 hours.
    pub recent_failures: u32,
    /// Policy wants fresh digits whatever the voice's score (a large amount, say).
    pub challenge_due: bool,
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
