//! One turn of listening: frames into the end-pointer, and for card numbers a free reading at each pause, so that a number
//! that is complete ends the turn without waiting out the long pause that people need between groups.

use std::sync::Arc;

use crate::dialogue::{ListenFor, UtteranceFacts, UtteranceQuality};
use crate::media::frame::{Frame, SampleRate};
use crate::speech::endpoint::{EndReason, Endpointer, ListenSpec, SpeechEvent};
use crate::speech::{SpeechConfig, Utterance};

/// While a prompt plays, its echo from a loudspeaker must not count as speech: only a longer stretch interrupts, in milliseconds.
const BARGE_IN_MIN_SPEECH_MS: u32 = 240;

/// The dialogue's own deadline ends a silent turn; the end-pointer's must not come first. In milliseconds.
const NEVER_SILENT_MS: u32 = 3_600_000;

/// Above this share of full-scale samples speech is overdriven beyond use.
const CLIPPED_SHARE: f32 = 0.05;
/// Below this level speech can't be judged, in dB relative to full scale.
const TOO_QUIET_DBFS: f32 = -50.0;
/// Below this distance from the noise speech can't be judged, in dB.
const TOO_NOISY_SNR_DB: f32 = 2.0;

/// What a frame led to.
#[derive(Debug)]
pub enum Heard {
    /// Speech began.
    Started,
    /// The caller pauses: read what there is; `turn` and `pause` name the moment.
    Probe { pause: u64, so_far: Arc<Utterance>, lengths: Vec<usize> },
    /// The turn is over; `pause`: the one that ended it, with nothing said since it began.
    Over { utterance: Arc<Utterance>, pause: Option<u64> },
    /// The turn is over and there was nothing in it.
    Nothing,
}

/// Listening, from one `Listen` to its utterance.
#[derive(Debug)]
pub struct Hearing {
    endpointer: Endpointer,
    listen_for: ListenFor,
    /// Counts pauses, so that a reading that comes back late is known to be stale.
    pauses: u64,
    /// The pause that is going on now, if one is.
    in_pause: Option<u64>,
    over: bool,
}

impl Hearing {
    /// Begins a turn. `ears`: those of the turn before, which know the line's noise.
    pub fn begin(
        listen_for: ListenFor,
        barge_in: bool,
        config: &SpeechConfig,
        rate: SampleRate,
        ears: Option<Endpointer>,
    ) -> Self {
        let base = match &listen_for {
            ListenFor::CardNumber { .. } => config.card,
            ListenFor::Counting | ListenFor::EnrolDigits { .. } => config.digits,
            ListenFor::Answer => config.answer,
        };
        let min_speech_ms = if barge_in { base.min_speech_ms.max(BARGE_IN_MIN_SPEECH_MS) } else { base.min_speech_ms };
        let spec = ListenSpec { no_speech_ms: NEVER_SILENT_MS, min_speech_ms, ..base };
        let endpointer = match ears {
            Some(mut ears) => {
                ears.listen(spec);
                ears
            }
            None => Endpointer::with_vad(spec, rate, config.vad),
        };
        Self { endpointer, listen_for, pauses: 0, in_pause: None, over: false }
    }

    /// Takes a frame; says what it led to, in order.
    pub fn push(&mut self, frame: &Frame) -> Vec<Heard> {
        if self.over {
            return Vec::new();
        }
        let events = self.endpointer.push(frame);
        if self.in_pause.is_some() && !self.endpointer.in_pause() {
            self.in_pause = None;
        }
        let mut out = Vec::new();
        for event in events {
            match event {
                SpeechEvent::SpeechStarted => out.push(Heard::Started),
                SpeechEvent::Pause { since_ms: _ } => {
                    self.pauses += 1;
                    self.in_pause = Some(self.pauses);
                    if let ListenFor::CardNumber { lengths } = &self.listen_for
                        && let Some(so_far) = self.endpointer.utterance_so_far()
                    {
                        out.push(Heard::Probe { pause: self.pauses, so_far: Arc::new(so_far), lengths: lengths.clone() });
                    }
                }
                SpeechEvent::Ended(EndReason::Silence | EndReason::TooLong) => {
                    self.over = true;
                    out.push(match self.endpointer.take_utterance() {
                        Some(utterance) => Heard::Over { utterance: Arc::new(utterance), pause: self.in_pause },
                        None => Heard::Nothing,
                    });
                }
                SpeechEvent::NoSpeech => {
                    self.over = true;
                    out.push(Heard::Nothing);
                }
            }
        }
        out
    }

    /// What the turn is about.
    pub fn listen_for(&self) -> &ListenFor {
        &self.listen_for
    }

    /// Ends the turn, whatever was heard.
    pub fn end(self) -> Endpointer {
        self.endpointer
    }

    /// Ends the turn early, if the pause at which the number was found complete still goes on.
    pub fn end_early(&mut self, pause: u64) -> Option<Arc<Utterance>> {
        if self.over || self.in_pause != Some(pause) {
            return None;
        }
        self.over = true;
        self.endpointer.take_utterance().map(Arc::new)
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
