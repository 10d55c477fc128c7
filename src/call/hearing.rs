//! What a turn of listening is about: how long to wait in pauses, what the models are asked at them, and when that is enough. The turn
//! itself is `speech::turn`.

use super::ahead::Question;
use crate::dialogue::{ListenFor, UtteranceFacts, UtteranceQuality};
use crate::language::Language;
use crate::media::frame::{Frame, SampleRate};
use crate::speech::endpoint::{Endpointer, ListenSpec};
use crate::speech::turn::{Readiness, Spoken, Turn, TurnEvent};
use crate::speech::vad::VoiceActivity;
use crate::speech::{FreeReading, SpeechConfig, Utterance};

/// While a prompt plays, its echo from a loudspeaker must not count as speech: only a longer stretch interrupts, in milliseconds.
const BARGE_IN_MIN_SPEECH_MS: u32 = 240;

/// The dialogue's own deadline ends a silent turn; the end-pointer's must not come first. In milliseconds.
const NEVER_SILENT_MS: u32 = 3_600_000;

/// A caller who has more time may pause so many times as long.
const SLOW_TIMES: u32 = 2;

/// Above this share of full-scale samples speech is overdriven beyond use.
const CLIPPED_SHARE: f32 = 0.05;
/// Below this level speech can't be judged, in dB relative to full scale.
const TOO_QUIET_DBFS: f32 = -50.0;
/// Below this distance from the noise speech can't be judged, in dB.
const TOO_NOISY_SNR_DB: f32 = 2.0;

/// Listening, from one `Listen` to its utterance.
#[derive(Debug)]
pub struct Hearing {
    turn: Turn,
    listen_for: ListenFor,
}

impl Hearing {
    /// Begins a turn. `ears`: those of the turn before, which know the line's noise.
    pub fn begin(
        listen_for: ListenFor,
        barge_in: bool,
        config: &SpeechConfig,
        activity: &VoiceActivity,
        rate: SampleRate,
        ears: Option<Endpointer>,
        slow: bool,
    ) -> Self {
        let base = match &listen_for {
            ListenFor::CardNumber { .. } => config.card,
            ListenFor::Counting | ListenFor::EnrolDigits { .. } | ListenFor::Challenge { .. } | ListenFor::Code { .. } => {
                config.digits
            }
            ListenFor::Answer => config.answer,
        };
        let min_speech_ms = if barge_in { base.min_speech_ms.max(BARGE_IN_MIN_SPEECH_MS) } else { base.min_speech_ms };
        let spec = ListenSpec { no_speech_ms: NEVER_SILENT_MS, min_speech_ms, ..base };
        let spec = if slow { patient(spec) } else { spec };
        Self { turn: Turn::begin(spec, activity.clone(), rate, ears), listen_for }
    }

    /// The same, spoken in this language.
    pub fn in_language(self, language: Language) -> Self {
        Self { turn: self.turn.in_language(language), ..self }
    }

    /// Takes a frame; says what it led to, in order.
    pub fn push(&mut self, frame: &Frame) -> Vec<TurnEvent> {
        self.turn.push(frame)
    }

    /// What the turn is about.
    pub fn listen_for(&self) -> &ListenFor {
        &self.listen_for
    }

    /// What the models will be asked about the utterance, the most urgent first: what may end the turn.
    pub(super) fn questions(&self) -> &'static [Question] {
        match self.listen_for {
            ListenFor::CardNumber { .. }
            | ListenFor::EnrolDigits { .. }
            | ListenFor::Challenge { .. }
            | ListenFor::Code { .. } => &[Question::Digits, Question::Voice],
            ListenFor::Counting => &[Question::Voice],
            ListenFor::Answer => &[Question::Answer, Question::Voice],
        }
    }

    /// What was read at a pause; the turn, if that ends it now.
    pub fn read(&mut self, pause: u64, readiness: Readiness) -> Option<Spoken> {
        self.turn.read(pause, readiness)
    }

    /// Ends the turn, whatever was heard.
    pub fn end(self) -> Endpointer {
        self.turn.end()
    }
}

/// For a caller who has more time: a pause may last longer before it ends what is said, and all of it, too. Nothing is judged by it.
fn patient(spec: ListenSpec) -> ListenSpec {
    let longer = |ms: u32| ms.saturating_mul(SLOW_TIMES);
    ListenSpec {
        max_pause_ms: longer(spec.max_pause_ms),
        pause_enough_ms: longer(spec.pause_enough_ms),
        pause_early_ms: longer(spec.pause_early_ms),
        max_utterance_ms: longer(spec.max_utterance_ms),
        ..spec
    }
}

/// The lengths that a reading may have; empty: any.
pub(super) fn lengths(listen_for: &ListenFor) -> Vec<usize> {
    match listen_for {
        ListenFor::CardNumber { lengths } => lengths.clone(),
        ListenFor::EnrolDigits { digits } | ListenFor::Challenge { digits } => vec![digits.len()],
        ListenFor::Code { length } => vec![*length],
        ListenFor::Counting | ListenFor::Answer => Vec::new(),
    }
}

/// How much of what is listened for was read.
pub(super) fn readiness(listen_for: &ListenFor, reading: &FreeReading) -> Readiness {
    match listen_for {
        ListenFor::CardNumber { lengths } => Readiness::of_card(reading, lengths),
        ListenFor::EnrolDigits { digits } | ListenFor::Challenge { digits } => Readiness::of_digits(reading, digits),
        ListenFor::Code { length } => Readiness::of_so_many(reading, *length),
        ListenFor::Counting | ListenFor::Answer => Readiness::Unfinished,
    }
}

/// What the dialogue is told of an utterance; `least_speech_ms`: what the question it answers needs.
pub fn facts(utterance: &Utterance, least_speech_ms: u32) -> UtteranceFacts {
    let q = utterance.quality;
    let quality = if q.clipped_share > CLIPPED_SHARE {
        UtteranceQuality::Clipped
    } else if q.speech_dbfs < TOO_QUIET_DBFS {
        UtteranceQuality::TooQuiet
    } else if q.snr_db < TOO_NOISY_SNR_DB {
        UtteranceQuality::TooNoisy
    } else if utterance.net_speech_ms < least_speech_ms {
        UtteranceQuality::TooShort
    } else {
        UtteranceQuality::Good
    };
    UtteranceFacts { net_speech_ms: utterance.net_speech_ms, total_ms: utterance.total_ms, quality }
}
