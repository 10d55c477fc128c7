//! Kaldi's log mel filterbank: what CAM++ was trained on.
//!
//! 16 kHz, frames of 25 ms every 10 ms (only whole ones), mean removed, pre-emphasis 0.97, Povey window, 512-point power spectrum,
//! 80 triangular filters from 20 Hz to 8 kHz on Kaldi's mel scale, natural logarithm. Samples are −1 to 1 as in
//! `torchaudio.compliance.kaldi.fbank`, which this is held to (tests/golden). No dither.

use std::sync::Arc;

use ndarray::Array2;
use rustfft::{Fft, FftPlanner, num_complex::Complex32};

/// Filters, so numbers a frame.
pub const MELS: usize = 80;
/// Samples a second.
pub const RATE: usize = 16_000;
/// Samples a frame: 25 ms.
pub const FRAME: usize = 400;
/// Samples from one frame to the next: 10 ms.
pub const SHIFT: usize = 160;

const FFT: usize = 512;
const PRE_EMPHASIS: f32 = 0.97;
/// Kaldi floors energies at the smallest step above one that an f32 knows.
const FLOOR: f32 = f32::EPSILON;

/// Window, filters and transform, made once and shared.
pub struct Filterbank {
    fft: Arc<dyn Fft<f32>>,
    window: Vec<f32>,
    filters: Vec<Filter>,
}

/// One triangle: its first bin and its weights from there on.
struct Filter {
    first: usize,
    weights: Vec<f32>,
}

impl std::fmt::Debug for Filterbank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Filterbank")
    }
}

impl Default for Filterbank {
    fn default() -> Self {
        Self::new()
    }
}

impl Filterbank {
    /// Plans it.
    pub fn new() -> Self {
        let step = 2.0 * std::f64::consts::PI / (count(FRAME) - 1.0);
        // A Hann window to the power 0.85, whose author gave it his name in Kaldi.
        let window = (0..FRAME).map(|i| narrow((0.5 - 0.5 * (step * count(i)).cos()).powf(0.85))).collect();
        Self { fft: FftPlanner::new().plan_fft_forward(FFT), window, filters: filters() }
    }

    /// How many whole frames `samples` hold.
    pub fn frames(samples: usize) -> usize {
        samples.checked_sub(FRAME).map_or(0, |rest| 1 + rest / SHIFT)
    }

    /// Frames × [`MELS`].
    pub fn compute(&self, samples_16k: &[f32]) -> Array2<f32> {
        let mut out = Array2::zeros((Self::frames(samples_16k.len()), MELS));
        let mut spectrum = vec![Complex32::default(); FFT];
        let mut scratch = vec![Complex32::default(); self.fft.get_inplace_scratch_len()];
        let mut power = vec![0.0f32; FFT / 2];
        for (frame, mut row) in samples_16k.windows(FRAME).step_by(SHIFT).zip(out.outer_iter_mut()) {
            let mean = frame.iter().sum::<f32>() / narrow(count(FRAME));
            // The first sample stands for the one before it.
            let mut before = frame.first().copied().unwrap_or(0.0) - mean;
            for ((slot, sample), w) in spectrum.iter_mut().zip(frame).zip(&self.window) {
                let sample = sample - mean;
                *slot = Complex32::new((sample - PRE_EMPHASIS * before) * w, 0.0);
                before = sample;
            }
            for slot in spectrum.iter_mut().skip(FRAME) {
                *slot = Complex32::default();
            }
            self.fft.process_with_scratch(&mut spectrum, &mut scratch);
            for (p, bin) in power.iter_mut().zip(&spectrum) {
                *p = bin.norm_sqr();
            }
            for (slot, filter) in row.iter_mut().zip(&self.filters) {
                let energy: f32 = power.iter().skip(filter.first).zip(&filter.weights).map(|(p, w)| p * w).sum();
                *slot = energy.max(FLOOR).ln();
            }
        }
        out
    }
}

/// Kaldi's mel scale.
fn mel(hz: f64) -> f64 {
    1127.0 * (1.0 + hz / 700.0).ln()
}

fn filters() -> Vec<Filter> {
    let (low, high) = (mel(20.0), mel(count(RATE) / 2.0));
    let step = (high - low) / (count(MELS) + 1.0);
    let bin_hz = count(RATE) / count(FFT);
    (0..MELS)
        .map(|i| {
            let (left, centre, right) = (low + count(i) * step, low + (count(i) + 1.0) * step, low + (count(i) + 2.0) * step);
            let weights: Vec<f32> = (0..FFT / 2)
                .map(|bin| {
                    let m = mel(count(bin) * bin_hz);
                    narrow(((m - left) / (centre - left)).min((right - m) / (right - centre)).max(0.0))
                })
                .collect();
            let first = weights.iter().position(|w| *w > 0.0).unwrap_or(0);
            let last = weights.iter().rposition(|w| *w > 0.0).map_or(first, |l| l + 1);
            Filter { first, weights: weights.get(first..last).unwrap_or_default().to_vec() }
        })
        .collect()
}

/// Small counts into f64, exactly.
#[allow(clippy::cast_precision_loss)]
fn count(n: usize) -> f64 {
    n as f64
}

/// To f32, rounding.
#[allow(clippy::cast_possible_truncation)]
fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_frames_are_counted() {
        assert_eq!(Filterbank::frames(399), 0);
        assert_eq!(Filterbank::frames(400), 1);
        assert_eq!(Filterbank::frames(559), 1);
        assert_eq!(Filterbank::frames(560), 2);
        assert_eq!(Filterbank::new().compute(&[0.0; 560]).dim(), (2, MELS));
    }

    #[test]
    fn silence_is_floored_and_never_infinite() {
        let frames = Filterbank::new().compute(&[0.0; 800]);
        assert!(frames.iter().all(|v| (*v - FLOOR.ln()).abs() < 1e-6));
    }

    #[test]
    fn a_tone_is_loudest_in_its_own_filter() {
        let tone: Vec<f32> = (0..1600).map(|i| (i as f32 * 1000.0 * std::f32::consts::TAU / 16_000.0).sin()).collect();
        let frames = Filterbank::new().compute(&tone);
        let loudest = frames.row(3).iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        let step = (mel(8000.0) - mel(20.0)) / 81.0;
        let centre = mel(20.0) + (loudest as f64 + 1.0) * step;
        assert!((centre - mel(1000.0)).abs() < step, "filter {loudest}");
    }
}
