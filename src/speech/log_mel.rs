//! OpenAI's log-mel spectrogram, with the level taken out: what Whisper's encoder sees. `scripts/digit-head/FORMAT.md`, steps 2 to 4.

use std::sync::Arc;

use rustfft::{Fft, FftPlanner, num_complex::Complex32};
use zeroize::Zeroizing;

/// Bands.
pub(super) const MELS: usize = 80;
/// Samples of one column: 10 ms at 16 kHz.
pub(super) const HOP: usize = 160;
/// Samples that one column sees: 25 ms.
const WINDOW: usize = 400;
/// Bins of the spectrum.
pub(super) const BINS: usize = WINDOW / 2 + 1;
/// Energies under this are this.
const FLOOR: f32 = 1e-10;
/// Below the loudest value of the utterance by more than this (powers of ten) all is alike.
const RANGE: f32 = 8.0;

/// Transform, window and filters, made once.
pub(super) struct LogMel {
    fft: Arc<dyn Fft<f32>>,
    window: Vec<f32>,
    filters: Vec<Filter>,
}

/// One triangle: its first bin and its weights from there on.
struct Filter {
    first: usize,
    weights: Vec<f32>,
}

impl std::fmt::Debug for LogMel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogMel")
    }
}

impl LogMel {
    /// With a model's own filters: [`MELS`] rows of [`BINS`].
    pub(super) fn new(filters: &[f32]) -> Option<Self> {
        if filters.len() != MELS * BINS || filters.iter().any(|w| !w.is_finite()) {
            return None;
        }
        let filters = filters
            .chunks_exact(BINS)
            .map(|row| {
                let first = row.iter().position(|w| *w != 0.0).unwrap_or(0);
                let end = row.iter().rposition(|w| *w != 0.0).map_or(first, |l| l + 1);
                Filter { first, weights: row.get(first..end).unwrap_or_default().to_vec() }
            })
            .collect();
        let step = std::f64::consts::TAU / 400.0;
        #[allow(clippy::as_conversions)] // rounding to single precision is what is wanted
        let window = (0..400u16).map(|i| (0.5 - 0.5 * (step * f64::from(i)).cos()) as f32).collect();
        Some(Self { fft: FftPlanner::new().plan_fft_forward(WINDOW), window, filters })
    }

    /// `columns` × [`MELS`], column by column, with a column of zeros before and behind (the first convolution's padding). Behind the
    /// samples all is silent. `loudest`: where the loudest value is moved to, so that the level does not matter; `None` leaves it.
    pub(super) fn compute(&self, samples_16k: &[f32], columns: usize, loudest: Option<f32>) -> Zeroizing<Vec<f32>> {
        let length = columns * HOP;
        // Half a window on both sides, mirrored.
        let half = WINDOW / 2;
        let mut padded = Zeroizing::new(vec![0.0f32; length + WINDOW]);
        let heard = samples_16k.get(..length).unwrap_or(samples_16k);
        if let Some(middle) = padded.get_mut(half..half + heard.len()) {
            middle.copy_from_slice(heard);
        }
        for i in 1..=half {
            let (head, tail) = (at(&padded, half + i), at(&padded, (length + half).saturating_sub(i + 1)));
            put(&mut padded, half - i, head);
            put(&mut padded, length + half + i - 1, tail);
        }
        let mut out = Zeroizing::new(vec![0.0f32; (columns + 2) * MELS]);
        let mut spectrum = Zeroizing::new(vec![0.0f32; 2 * BINS]);
        let mut both = vec![Complex32::default(); WINDOW];
        let mut scratch = vec![Complex32::default(); self.fft.get_inplace_scratch_len()];
        let mut top = f32::NEG_INFINITY;
        for pair in (0..columns).step_by(2) {
            // Two columns at once: one as real, one as imaginary part.
            let from = pair * HOP;
            let (first, second) = (padded.get(from..).unwrap_or_default(), padded.get(from + HOP..).unwrap_or_default());
            for ((slot, w), (a, b)) in both.iter_mut().zip(&self.window).zip(first.iter().zip(second)) {
                *slot = Complex32::new(a * w, b * w);
            }
            self.fft.process_with_scratch(&mut both, &mut scratch);
            let (one, two) = spectrum.split_at_mut(BINS);
            let mirrored = both.iter().take(1).chain(both.iter().rev());
            for ((a, b), (z, m)) in one.iter_mut().zip(two.iter_mut()).zip(both.iter().zip(mirrored)) {
                let (sum, difference) = (z + m.conj(), z - m.conj());
                (*a, *b) = (sum.norm_sqr() / 4.0, difference.norm_sqr() / 4.0);
            }
            let rows = out.get_mut((pair + 1) * MELS..).unwrap_or_default();
            let wanted = (columns - pair).min(2);
            for (row, power) in rows.chunks_exact_mut(MELS).take(wanted).zip([&*one, &*two]) {
                for (slot, filter) in row.iter_mut().zip(&self.filters) {
                    let energy: f32 = power.iter().skip(filter.first).zip(&filter.weights).map(|(p, w)| p * w).sum();
                    *slot = energy.max(FLOOR).log10();
                    top = top.max(*slot);
                }
            }
        }
        both.fill(Complex32::default());
        scratch.fill(Complex32::default());
        let shift = loudest.map_or(0.0, |l| l - top) + 4.0;
        for v in out.get_mut(MELS..(columns + 1) * MELS).unwrap_or_default() {
            *v = (v.max(top - RANGE) + shift) / 4.0;
        }
        out
    }
}

fn at(x: &[f32], i: usize) -> f32 {
    x.get(i).copied().unwrap_or(0.0)
}

fn put(x: &mut [f32], i: usize, v: f32) {
    if let Some(slot) = x.get_mut(i) {
        *slot = v;
    }
}
