//! The `[voice]` section: where a voice is accepted, and what an enrolment asks for.

use serde::{Deserialize, Serialize};

/// Thresholds and bounds of voice matching.
///
/// Defaults come from development speech (models/REPORT.md): spliced 16-digit numbers over µ-law, templates of three 10-digit utterances, 63
/// speakers of five collections, 558 genuine and 7,860 impostor trials. Same session and same channel, so optimistic for genuine callers
/// across days, and telling about spoken digits only. Continuity and agreement come from a smaller sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VoiceConfig {
    /// An utterance with less speech than this is never accepted, in milliseconds without pauses. Two digits have an equal error rate
    /// of 4 %, one digit of 9 %.
    pub min_net_speech_ms: u32,
    /// The "yes" must be this close to the voice that said the card number (centred cosine). Loose, since a second of speech tells little:
    /// at 0.25, 2.5 % of one-digit utterances by the same voice fall below and 24 % of those by another reach it.
    pub continuity_min_cosine: f32,
    /// An enrolment needs this much speech in all, in milliseconds without pauses.
    pub enrol_min_net_speech_ms: u32,
    /// An enrolment needs this many utterances, each of the ten digits in an order drawn for it.
    pub enrol_min_utterances: u32,
    /// Two utterances of one enrolment must be at least this close (centred cosine). At 0.50 none of 192 pairs by one voice falls below;
    /// some 5 % of pairs by two voices reach it.
    pub enrol_agree_min_cosine: f32,
}

impl Default for VoiceConfig {
    fn default() -> Self {
        Self {
            min_net_speech_ms: 2_500,
            continuity_min_cosine: 0.25,
            enrol_min_net_speech_ms: 8_000,
            enrol_min_utterances: 3,
            enrol_agree_min_cosine: 0.50,
        }
    }
}
