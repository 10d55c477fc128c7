//! The `[voice]` section: where a voice is accepted, and what an enrolment asks for.

use serde::{Deserialize, Serialize};

use crate::decision::VoiceThresholds;

/// Thresholds and bounds of voice matching.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VoiceConfig {
    /// Accept a caller's voice at this centred cosine and above.
    pub accept_cosine: f32,
    /// Reject below this centred cosine; between the two the call asks again.
    pub reject_cosine: f32,
    /// An utterance with less speech than this is never accepted, in milliseconds without pauses.
    pub min_net_speech_ms: u32,
    /// The "yes" must be this close to the voice that said the card number (centred cosine; loose, a second of speech tells little).
    pub continuity_min_cosine: f32,
    /// An enrolment needs this much speech in all, in milliseconds without pauses.
    pub enrol_min_net_speech_ms: u32,
    /// An enrolment needs this many utterances.
    pub enrol_min_utterances: u32,
    /// Two utterances of one enrolment must be at least this close (centred cosine).
    pub enrol_agree_min_cosine: f32,
}

impl Default for VoiceConfig {
    fn default() -> Self {
        Self {
            accept_cosine: 0.60,
            reject_cosine: 0.35,
            min_net_speech_ms: 2_000,
            continuity_min_cosine: 0.15,
            enrol_min_net_speech_ms: 8_000,
            enrol_min_utterances: 3,
            enrol_agree_min_cosine: 0.45,
        }
    }
}

impl VoiceConfig {
    /// What `decision` judges a score by.
    pub fn thresholds(&self) -> VoiceThresholds {
        VoiceThresholds {
            accept_cosine: self.accept_cosine,
            reject_cosine: self.reject_cosine,
            min_net_speech_ms: self.min_net_speech_ms,
        }
    }
}
