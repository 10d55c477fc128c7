//! From sound to words of signs.

use std::f32::consts::PI;
use std::fmt;
use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};
use zeroize::Zeroizing;

/// Frames come every 4 ms of sound at 8 kHz …
pub(super) const HOP: usize = 32;
/// … and look at 64 ms.
const WINDOW: usize = 512;
const RATE_HZ: f32 = 8_000.0;
const BANDS: usize = 24;
const LOW_HZ: f32 = 300.0;
const HIGH_HZ: f32 = 3_400.0;
/// A frame is compared so many frames before with so many after: 24 ms each way.
const REACH_FRAMES: usize = 6;
/// A word spans three moments so many frames apart: 64 ms.
const MOMENT_FRAMES: usize = 16;
/// … of four neighbouring differences, every second one the start of a word.
const ROWS: usize = 4;
const ROW_STEP: usize = 2;
/// Words begin at every second frame.
const WORD_EVERY_FRAMES: usize = 2;
const DIFFERENCES: usize = BANDS - 1;
/// Power this far under the loud frames' is as good as none, in dB: noise must not decide a sign.
const FLOOR_DB: f32 = 25.0;
/// A frame this far under the loud ones is none of speech, in dB.
const LOUD_DB: f32 = 20.0;
/// The share of frames that are louder than what "loud" is measured by.
const TOP_SHARE: f32 = 0.05;

/// A word of twelve signs, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) frame: u16,
    pub(super) place: u8,
    pub(super) signs: u16,
}

/// Makes fingerprints. Shared by threads.
pub struct Fingerprinter {
    fft: Arc<dyn Fft<f32>>,
    window: Vec<f32>,
    /// Per band: its first bin and the weights from there.
    bands: Vec<(usize, Vec<f32>)>,
    /// Low-pass before every second sample is taken.
    low_pass: Vec<f32>,
}

impl fmt::Debug for Fingerprinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprinter")
    }
}

impl Default for Fingerprinter {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(clippy::as_conversions)] // small counts and bins, none of them from outside
impl Fingerprinter {
    /// Tables are made once.
    pub fn new() -> Self {
        let window = (0..WINDOW).map(|i| 0.5 - 0.5 * (2.0 * PI * i as f32 / (WINDOW - 1) as f32).cos()).collect();
        let mel = |hz: f32| 1127.0 * (1.0 + hz / 700.0).ln();
        let edge = |i: usize| mel(LOW_HZ) + (mel(HIGH_HZ) - mel(LOW_HZ)) * i as f32 / (BANDS + 1) as f32;
        let bands = (0..BANDS)
            .map(|b| {
                let (low, mid, high) = (edge(b), edge(b + 1), edge(b + 2));
                let weight = |bin: usize| {
                    let at = mel(bin as f32 * RATE_HZ / WINDOW as f32);
                    ((at - low) / (mid - low)).min((high - at) / (high - mid))
                };
                let first = (0..WINDOW / 2).find(|i| weight(*i) > 0.0).unwrap_or(0);
                (first, (first..WINDOW / 2).map(weight).take_while(|w| *w > 0.0).collect())
            })
            .collect();
        Self { fft: FftPlanner::new().plan_fft_forward(WINDOW), window, bands, low_pass: low_pass() }
    }

    /// Words of an utterance (mono, 16 kHz, −1 to 1) in the order of their frames.
    pub(super) fn words(&self, samples_16k: &[f32]) -> Vec<Word> {
        let sound = self.halved(samples_16k);
        let powers = self.powers(&sound);
        let frames = powers.len() / BANDS;
        let totals: Vec<f32> = powers.chunks_exact(BANDS).map(|p| p.iter().sum()).collect();
        let mut sorted = totals.clone();
        sorted.sort_by(f32::total_cmp);
        let loud_at = (frames as f32 * (1.0 - TOP_SHARE)) as usize;
        let Some(top) = sorted.get(loud_at.min(frames.saturating_sub(1))).copied().filter(|t| *t > 1e-9) else {
            return Vec::new();
        };
        let floor = top / BANDS as f32 * 10f32.powf(-FLOOR_DB / 10.0);
        let loud = top * 10f32.powf(-LOUD_DB / 10.0);
        let logs = Zeroizing::new(powers.iter().map(|p| (p + floor).ln()).collect::<Vec<f32>>());
        let row = |frame: usize| logs.get(frame * BANDS..(frame + 1) * BANDS).unwrap_or_default();
        // How the difference of neighbouring bands changes from before a frame to after it.
        let mut changes = Zeroizing::new(Vec::with_capacity(frames * DIFFERENCES));
        for frame in 0..frames {
            let before = row(frame.saturating_sub(REACH_FRAMES));
            let after = row((frame + REACH_FRAMES).min(frames - 1));
            for ((a, a_next), (b, b_next)) in before.iter().zip(before.iter().skip(1)).zip(after.iter().zip(after.iter().skip(1)))
            {
                changes.push((b - b_next) - (a - a_next));
            }
        }
        let mut words = Vec::new();
        for frame in (MOMENT_FRAMES..frames.saturating_sub(MOMENT_FRAMES)).step_by(WORD_EVERY_FRAMES) {
            let Ok(at) = u16::try_from(frame) else { break };
            if totals.get(frame).is_none_or(|t| *t <= loud) {
                continue;
            }
            for (place, start) in (0..=DIFFERENCES - ROWS).step_by(ROW_STEP).enumerate() {
                let mut signs = 0u16;
                for moment in [frame - MOMENT_FRAMES, frame, frame + MOMENT_FRAMES] {
                    let from = moment * DIFFERENCES + start;
                    for change in changes.get(from..from + ROWS).unwrap_or_default() {
                        signs = (signs << 1) | u16::from(*change > 0.0);
                    }
                }
                words.push(Word { frame: at, place: u8::try_from(place).unwrap_or(u8::MAX), signs });
            }
        }
        words
    }

    /// Every second sample after the low-pass.
    fn halved(&self, samples_16k: &[f32]) -> Zeroizing<Vec<f32>> {
        let half = self.low_pass.len() / 2;
        let mut padded = Zeroizing::new(vec![0.0; half]);
        padded.extend_from_slice(samples_16k);
        padded.resize(samples_16k.len() + 2 * half, 0.0);
        let taps = |at: usize| padded.get(at..).unwrap_or_default().iter().zip(&self.low_pass).map(|(x, h)| x * h).sum();
        Zeroizing::new((0..samples_16k.len() / 2).map(|i| taps(2 * i)).collect())
    }

    /// Powers in the bands, frame by frame. Two frames share a transform: one as its real part, one as its imaginary part.
    fn powers(&self, sound: &[f32]) -> Zeroizing<Vec<f32>> {
        let frames = if sound.is_empty() { 0 } else { sound.len() / HOP + 1 };
        let mut padded = Zeroizing::new(vec![0.0; WINDOW / 2]);
        padded.extend_from_slice(sound);
        padded.resize(sound.len() + 2 * WINDOW, 0.0);
        let mut out = Zeroizing::new(vec![0.0f32; frames * BANDS]);
        let mut buffer = vec![Complex::new(0.0f32, 0.0); WINDOW];
        let mut scratch = vec![Complex::new(0.0f32, 0.0); self.fft.get_inplace_scratch_len()];
        for (pair, rows) in out.chunks_mut(2 * BANDS).enumerate() {
            let from = pair * 2 * HOP;
            let first = padded.get(from..).unwrap_or_default();
            let second = padded.get(from + HOP..).unwrap_or_default();
            for (((slot, w), a), b) in buffer.iter_mut().zip(&self.window).zip(first).zip(second) {
                *slot = Complex::new(a * w, b * w);
            }
            self.fft.process_with_scratch(&mut buffer, &mut scratch);
            let (one, two) = rows.split_at_mut(BANDS.min(rows.len()));
            for (band, (start, weights)) in self.bands.iter().enumerate() {
                let (mut p, mut q) = (0.0, 0.0);
                let mirrored = buffer.get(WINDOW + 1 - start - weights.len()..).unwrap_or_default();
                let low = buffer.get(*start..).unwrap_or_default();
                for ((z, m), w) in low.iter().zip(mirrored.iter().take(weights.len()).rev()).zip(weights) {
                    let (a, b) = (z + m.conj(), z - m.conj());
                    p += w * a.norm_sqr();
                    q += w * b.norm_sqr();
                }
                if let Some(slot) = one.get_mut(band) {
                    *slot = p * 0.25;
                }
                if let Some(slot) = two.get_mut(band) {
                    *slot = q * 0.25;
                }
            }
        }
        out
    }
}

/// Half-band low-pass: a sinc of 3.9 kHz at 16 kHz under a Hamming window, 47 taps; above 4.6 kHz, which would fold to below
/// 3.4 kHz, it lets nothing through that matters.
#[allow(clippy::as_conversions)] // tap numbers
fn low_pass() -> Vec<f32> {
    const TAPS: usize = 47;
    let cut = 3_900.0 / 16_000.0 * 2.0;
    let taps: Vec<f32> = (0..TAPS)
        .map(|i| {
            let t = i as f32 - (TAPS / 2) as f32;
            let sinc = if t == 0.0 { cut } else { (PI * cut * t).sin() / (PI * t) };
            sinc * (0.54 - 0.46 * (2.0 * PI * i as f32 / (TAPS - 1) as f32).cos())
        })
        .collect();
    let sum: f32 = taps.iter().sum();
    taps.into_iter().map(|t| t / sum).collect()
}
