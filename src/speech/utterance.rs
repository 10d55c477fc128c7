//! The audio of one turn at 16 kHz, with what can be said of its quality without a model.

use zeroize::Zeroizing;

use crate::language::Language;
use crate::media::frame::SampleRate;
use crate::media::resample::resample_whole;

use super::vad::{STEP_MS, Step, Vad, VadConfig};

/// What one turn sounded like. Wiped on drop; `Debug` shows lengths only.
#[derive(Clone)]
pub struct Utterance {
    /// Mono at 16 kHz, −1 to 1, pre-roll included.
    pub samples_16k: Zeroizing<Vec<f32>>,
    /// The line carried more than a telephone's 4 kHz.
    pub wide: bool,
    /// What is spoken.
    pub language: Language,
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
    /// Speech level over noise floor in dB, an estimate from 10 ms energies; 0 when there was no speech.
    pub snr_db: f32,
    /// Root mean square of the speech, dB relative to full scale.
    pub speech_dbfs: f32,
}

impl std::fmt::Debug for Utterance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Utterance({} ms, {} ms of speech, {:?})", self.total_ms, self.net_speech_ms, self.quality)
    }
}

impl Utterance {
    /// The same, spoken in this language.
    pub fn in_language(mut self, language: Language) -> Self {
        self.language = language;
        self
    }

    /// From a whole recording at any rate (files: `eval`, `enrol from-wav`). Finds the speech in it, keeps all of the audio.
    pub fn from_recording(samples: &[i16], rate: SampleRate) -> Self {
        // Twice through the same line, so that a recording that starts with speech is judged by a floor that knows its pauses.
        let mut vad = Vad::new(VadConfig::default(), rate);
        let piece = rate.samples_in(std::time::Duration::from_millis(u64::from(STEP_MS))).max(1);
        let mut steps = Vec::new();
        for _ in 0..2 {
            steps = samples.chunks(piece).flat_map(|chunk| vad.push(chunk)).collect();
        }
        Self::from_steps(samples, rate, &steps)
    }

    /// From samples and how each 10 ms of them was judged.
    pub(super) fn from_steps(samples: &[i16], rate: SampleRate, steps: &[Step]) -> Self {
        let single: Zeroizing<Vec<f32>> = Zeroizing::new(samples.iter().map(|s| f32::from(*s) / 32_768.0).collect());
        let samples_16k = Zeroizing::new(resample_whole(&single, rate, SampleRate::HZ_16000));
        let total_ms = u32::try_from(rate.duration_of(samples.len()).as_millis()).unwrap_or(u32::MAX);
        let spoken = steps.iter().filter(|s| s.speech).count();
        let net_speech_ms = u32::try_from(spoken).unwrap_or(u32::MAX).saturating_mul(STEP_MS).min(total_ms);
        Self {
            samples_16k,
            wide: rate.hz() > SampleRate::HZ_8000.hz(),
            language: Language::English,
            net_speech_ms,
            total_ms,
            quality: Quality::of(samples, steps),
        }
    }
}

impl Quality {
    fn of(samples: &[i16], steps: &[Step]) -> Self {
        // G.711 μ-law decodes its largest code to 32,124.
        const FULL_SCALE: u16 = 32_100;
        let clipped = samples.iter().filter(|s| s.unsigned_abs() >= FULL_SCALE).count();
        let loud: Vec<f32> = steps.iter().filter(|s| s.loud).map(|s| 10f32.powf(s.level_dbfs / 10.0)).collect();
        let speech = (!loud.is_empty()).then(|| 10.0 * (loud.iter().sum::<f32>() / share_base(loud.len())).log10());
        // The median: steps at the edges of words are not yet, or no more, judged speech.
        let mut quiet: Vec<f32> = steps.iter().filter(|s| !s.speech).map(|s| s.level_dbfs).collect();
        quiet.sort_by(f32::total_cmp);
        let noise = quiet.get(quiet.len() / 2).copied().or_else(|| steps.last().map(|s| s.floor_dbfs));
        Self {
            clipped_share: if samples.is_empty() { 0.0 } else { share_base(clipped) / share_base(samples.len()) },
            snr_db: speech.zip(noise).map_or(0.0, |(s, n)| (s - n).max(0.0)),
            speech_dbfs: speech.unwrap_or(-96.0),
        }
    }
}

#[allow(clippy::as_conversions, clippy::cast_precision_loss)] // a count as a divisor: seven digits are plenty
fn share_base(count: usize) -> f32 {
    count as f32
}
