//! Steady tones in telephone audio: beeps, and what networks say in tones. Pure.
//!
//! Every 20 ms the last 64 ms are looked at by a Fourier transform under a Hann window: is nearly all the power within one peak, or two?
//! 64 ms are long enough to tell the 350 + 440 Hz and 480 + 620 Hz of North America from one tone and the harmonics of a voice from
//! either, and short enough for the shortest beep. Speech has moments that look so; whoever follows the looks asks that they hold still.

use std::sync::Arc;

use rustfft::num_complex::Complex32;
use rustfft::{Fft, FftPlanner};
use zeroize::Zeroizing;

/// Between two looks; at [`RATE_HZ`] in samples.
pub(super) const HOP: usize = 160;
/// What a look sees, in samples.
const WINDOW: usize = 512;
/// The telephone's rate: there is nothing else to hear in tones of a network.
const RATE_HZ: f32 = 8_000.0;
const BIN_HZ: f32 = RATE_HZ / 512.0;
/// Bins that are looked at: 94 to 3,797 Hz. Hum lies below.
const FIRST_BIN: usize = 6;
const LAST_BIN: usize = 243;
/// A peak's half width in bins: a Hann window's main lobe.
const LOBE: usize = 2;
/// The share of all power that a tone, or two, must have. Noise 10 dB below a tone leaves 0.91 of it.
const PURE: f32 = 0.85;
/// The second of two tones is at most this far below the first, as a ratio of powers: 10 dB.
const SECOND: f32 = 0.1;
/// Quieter than this is no tone that anybody was meant to hear, in dB relative to full scale. ITU-T E.180 has −10 dBm0 ± 5.
const QUIETEST_DBFS: f32 = -45.0;

/// A moment that is nearly nothing but one tone or two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tone {
    /// Its frequency; of two, their middle weighed by power.
    pub hz: f32,
    /// Two tones at once, as North America's and Britain's networks send them.
    pub double: bool,
    /// In dB relative to full scale.
    pub level_dbfs: f32,
}

/// Hears tones.
pub(super) struct ToneEar {
    fft: Arc<dyn Fft<f32>>,
    window: Vec<f32>,
    /// The last [`WINDOW`] samples, oldest first.
    held: Zeroizing<Vec<i16>>,
}

/// A peak of the spectrum.
struct Peak {
    bin: usize,
    hz: f32,
    power: f32,
}

impl std::fmt::Debug for ToneEar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ToneEar")
    }
}

impl ToneEar {
    pub(super) fn new() -> Self {
        let step = std::f32::consts::TAU / 512.0;
        Self {
            fft: FftPlanner::new().plan_fft_forward(WINDOW),
            window: (0..512u16).map(|i| 0.5 - 0.5 * (step * f32::from(i)).cos()).collect(),
            held: Zeroizing::new(vec![0; WINDOW]),
        }
    }

    /// Takes the next [`HOP`] samples at 8 kHz.
    pub(super) fn look(&mut self, block: &[i16]) -> Option<Tone> {
        self.held.extend_from_slice(block);
        let old = self.held.len().saturating_sub(WINDOW);
        self.held.drain(..old);
        let mut spectrum: Vec<Complex32> =
            self.held.iter().zip(&self.window).map(|(s, w)| Complex32::new(f32::from(*s) / 32_768.0 * w, 0.0)).collect();
        self.fft.process(&mut spectrum);
        let powers: Vec<f32> = spectrum.iter().take(LAST_BIN + LOBE + 1).map(Complex32::norm_sqr).collect();
        let all: f32 = powers.get(FIRST_BIN..).unwrap_or_default().iter().sum();
        let first = peak(&powers, None)?;
        // A sine's power under a Hann window lies in its lobe, times N · Σw² / 2 = 3 N² / 16.
        let level_dbfs = 10.0 * (first.power / (3.0 / 16.0 * 512.0 * 512.0)).max(1e-12).log10();
        if level_dbfs < QUIETEST_DBFS {
            return None;
        }
        if first.power >= PURE * all {
            return Some(Tone { hz: first.hz, double: false, level_dbfs });
        }
        let second = peak(&powers, Some(first.bin))?;
        let both = first.power + second.power;
        let hz = (first.hz * first.power + second.hz * second.power) / both;
        (both >= PURE * all && second.power >= SECOND * first.power).then_some(Tone { hz, double: true, level_dbfs })
    }
}

/// The highest peak outside the lobe of another.
fn peak(powers: &[f32], beside: Option<usize>) -> Option<Peak> {
    let free = |bin: usize| beside.is_none_or(|other| bin.abs_diff(other) > LOBE);
    let (bin, _) = powers
        .iter()
        .enumerate()
        .filter(|(bin, _)| (FIRST_BIN..=LAST_BIN).contains(bin) && free(*bin))
        .max_by(|a, b| a.1.total_cmp(b.1))?;
    let near = bin - LOBE..=bin + LOBE;
    let power = near.filter(|b| free(*b)).filter_map(|b| powers.get(b)).sum();
    Some(Peak { bin, hz: (f32::from(u16::try_from(bin).ok()?) + between(powers, bin)) * BIN_HZ, power })
}

/// How far the true peak lies from the bin, in bins: a parabola through the logarithms, which nearly is a Hann window's lobe.
fn between(powers: &[f32], bin: usize) -> f32 {
    let at = |b: usize| powers.get(b).copied().unwrap_or(0.0).max(1e-20).ln();
    let (left, middle, right) = (at(bin - 1), at(bin), at(bin + 1));
    let bend = left - 2.0 * middle + right;
    if bend < 0.0 { (0.5 * (left - right) / bend).clamp(-0.5, 0.5) } else { 0.0 }
}

#[cfg(test)]
pub(super) mod testing {
    /// `ms` of tones at 8 kHz, each at `dbfs`.
    pub fn tones(ms: u32, hz: &[f64], dbfs: f64) -> Vec<i16> {
        let amplitude = 10f64.powf(dbfs / 20.0) * 2f64.sqrt() * 32_768.0;
        (0..ms * 8)
            .map(|i| hz.iter().map(|f| (std::f64::consts::TAU * f * f64::from(i) / 8_000.0).sin() * amplitude).sum::<f64>())
            .map(|s| s.clamp(-32_768.0, 32_767.0) as i16)
            .collect()
    }

    /// `ms` of white noise at 8 kHz, from a small generator.
    pub fn noise(ms: u32, dbfs: f64, seed: u32) -> Vec<i16> {
        let amplitude = 10f64.powf(dbfs / 20.0) * 32_768.0 * 3f64.sqrt();
        let mut state = seed.wrapping_mul(2_654_435_761).max(1);
        (0..ms * 8)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                ((f64::from(state) / f64::from(u32::MAX) * 2.0 - 1.0) * amplitude) as i16
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{noise, tones};
    use super::*;

    fn looks(samples: &[i16]) -> Vec<Option<Tone>> {
        let mut ear = ToneEar::new();
        samples.chunks_exact(HOP).map(|block| ear.look(block)).collect()
    }

    #[test]
    fn a_tone_is_heard_at_its_frequency_and_level_over_the_whole_band() {
        for hz in [350.0, 425.0, 640.0, 999.5, 1_400.0, 1_981.0, 2_100.0] {
            for dbfs in [-6.0, -20.0, -38.0] {
                for tone in looks(&tones(400, &[hz], dbfs)).iter().skip(4) {
                    let tone = tone.unwrap();
                    assert!(!tone.double && (f64::from(tone.hz) - hz).abs() < 2.0, "{hz}: {tone:?}");
                    assert!((f64::from(tone.level_dbfs) - dbfs).abs() < 0.5, "{dbfs}: {tone:?}");
                }
            }
        }
    }

    #[test]
    fn two_tones_are_told_from_one_and_noise_and_three_tones_from_both() {
        for (pair, middle) in [([350.0, 440.0], 395.0), ([480.0, 620.0], 550.0), ([440.0, 480.0], 460.0), ([400.0, 450.0], 425.0)]
        {
            let heard: Vec<Tone> = looks(&tones(600, &pair, -16.0)).into_iter().skip(4).map(Option::unwrap).collect();
            let worst = heard.iter().map(|t| (t.hz - middle).abs()).fold(0.0, f32::max);
            assert!(worst < 25.0, "{pair:?}: {worst}");
        }
        assert!(looks(&tones(400, &[500.0, 900.0, 1_300.0], -16.0)).iter().skip(4).all(Option::is_none));
        assert!(looks(&noise(400, -20.0, 1)).iter().all(Option::is_none));
        assert!(looks(&tones(400, &[1_000.0], -50.0)).iter().all(Option::is_none), "nobody was meant to hear that");
    }

    #[test]
    fn noise_ten_decibels_below_does_not_hide_a_tone() {
        let mixed: Vec<i16> = tones(600, &[1_000.0], -18.0).iter().zip(noise(600, -28.0, 9)).map(|(a, b)| a + b).collect();
        let heard = looks(&mixed);
        assert!(heard.iter().skip(4).filter(|t| t.is_some_and(|t| !t.double && (t.hz - 1_000.0).abs() < 10.0)).count() >= 24);
    }
}
