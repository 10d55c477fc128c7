//! Comfort noise (RFC 3389): a peer that suppresses silence tells how loud its silence is, and we make it; where it tells
//! nothing, [`FloorMeter`] knows how quiet the line was before. Digital silence in its place would teach the end-pointer a noise
//! floor of nothing, above which every breath counts as speech. Pure.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use std::time::Duration;

use super::frame::SampleRate;
use super::resample::round;

/// Of 16-bit samples.
const FULL_SCALE: f64 = 32_768.0;
/// Louder "silence" than this, in −dBov, is not believed: it would pass for speech.
const LOUDEST_MINUS_DBOV: u8 = 40;
/// A floor that was measured may be speech that never paused: louder than this, in dBov, it is not made, so that what stands for
/// a gap is never taken for a voice.
const FLOOR_MAX_DBOV: f64 = -50.0;
/// Audio that is looked at for its quietest stretch: this window and the one before it, in milliseconds.
const FLOOR_WINDOW_MS: u64 = 2_000;
/// How long a stretch is: shorter than the gap between two words, in milliseconds.
const FLOOR_STRETCH_MS: u64 = 20;
/// The smoothing that takes the hiss off: a telephone room's noise falls with frequency.
const SMOOTHING: f64 = 0.5;

/// Noise at the level told.
#[derive(Debug)]
pub struct ComfortNoise {
    // Of white noise before smoothing, at its peaks.
    amplitude: f64,
    random: u32,
    last: f64,
}

impl ComfortNoise {
    /// From a payload: its first byte is the level, in −dBov (section 3.1); the spectrum that may follow is not followed.
    /// `None`: empty.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let level = (payload.first()? & 0x7f).max(LOUDEST_MINUS_DBOV);
        // Overload is a square wave at full scale. Uniform noise has 1/√3 of its peak as RMS, and smoothing takes √((1 − a) /
        // (1 + a)).
        Some(Self::at_rms(FULL_SCALE * 10f64.powf(-f64::from(level) / 20.0)))
    }

    /// Of this level, as the RMS of 16-bit samples.
    fn at_rms(rms: f64) -> Self {
        let amplitude = rms * 3f64.sqrt() / ((1.0 - SMOOTHING) / (1.0 + SMOOTHING)).sqrt();
        Self { amplitude, random: 0x2545_f491, last: 0.0 }
    }

    /// Appends `samples` of it.
    pub fn make(&mut self, samples: usize, out: &mut Vec<i16>) {
        out.extend((0..samples).map(|_| {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 17;
            self.random ^= self.random << 5;
            let white = (f64::from(self.random) / f64::from(u32::MAX) * 2.0 - 1.0) * self.amplitude;
            self.last = white * (1.0 - SMOOTHING) + self.last * SMOOTHING;
            round(self.last)
        }));
    }
}

/// How quiet a line is when nobody speaks: the quietest stretch of what was heard lately.
#[derive(Debug)]
pub struct FloorMeter {
    stretch: usize,
    window: u32,
    // Of the stretch that is being heard.
    sum: f64,
    count: usize,
    // Quietest mean squares of this window and of the one before; stretches of this window.
    quietest: Option<f64>,
    quietest_before: Option<f64>,
    stretches: u32,
}

impl FloorMeter {
    /// Nothing heard yet.
    pub fn new(rate: SampleRate) -> Self {
        Self {
            stretch: rate.samples_in(Duration::from_millis(FLOOR_STRETCH_MS)).max(1),
            window: u32::try_from(FLOOR_WINDOW_MS / FLOOR_STRETCH_MS).unwrap_or(1),
            sum: 0.0,
            count: 0,
            quietest: None,
            quietest_before: None,
            stretches: 0,
        }
    }

    /// Takes audio that was received, not made up.
    pub fn take(&mut self, samples: &[i16]) {
        for sample in samples {
            self.sum += f64::from(*sample).powi(2);
            self.count += 1;
            if self.count >= self.stretch {
                let mean = self.sum / ratio_of(self.count);
                self.quietest = Some(self.quietest.map_or(mean, |quietest| quietest.min(mean)));
                (self.sum, self.count) = (0.0, 0);
                self.stretches += 1;
            }
        }
        if self.stretches >= self.window {
            self.stretches = 0;
            self.quietest_before = self.quietest.take();
        }
    }

    /// Noise as quiet as that; `None` before anything was heard, and where the line is digitally silent itself.
    pub fn noise(&self) -> Option<ComfortNoise> {
        let mean = self.quietest.into_iter().chain(self.quietest_before).reduce(f64::min)?;
        let rms = mean.sqrt().min(FULL_SCALE * 10f64.powf(FLOOR_MAX_DBOV / 20.0));
        (rms >= 1.0).then(|| ComfortNoise::at_rms(rms))
    }
}

#[allow(clippy::as_conversions, clippy::cast_precision_loss)] // a count of samples
fn ratio_of(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_quietest_stretch_of_late_and_never_as_loud_as_speech() {
        let rms = |meter: &FloorMeter| {
            let mut out = Vec::new();
            meter.noise().unwrap().make(16_000, &mut out);
            (out.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / 16_000.0).sqrt()
        };
        let mut meter = FloorMeter::new(SampleRate::HZ_8000);
        assert!(meter.noise().is_none());
        for n in 0..150 {
            // A word, a gap, a word…
            meter.take(&[if n % 10 == 0 { 30 } else { 6_000 }; 160]);
        }
        assert!((25.0..35.0).contains(&rms(&meter)), "{}", rms(&meter));
        (0..250).for_each(|_| meter.take(&[6_000; 160]));
        assert!((90.0..110.0).contains(&rms(&meter)), "speech without a gap: -50 dBov, not {}", rms(&meter));
        meter.take(&[0; 160]);
        assert!(meter.noise().is_none(), "the line itself is silent");
    }

    fn level_minus_dbov(payload: &[u8]) -> f64 {
        let mut out = Vec::new();
        ComfortNoise::parse(payload).unwrap().make(16_000, &mut out);
        let power = out.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / 16_000.0;
        -10.0 * (power / 32_768f64.powi(2)).log10()
    }

    #[test]
    fn the_level_is_the_one_told_and_never_as_loud_as_speech() {
        for level in [45u8, 60, 70] {
            assert!((level_minus_dbov(&[level, 3, 4]) - f64::from(level)).abs() < 1.0, "{}", level_minus_dbov(&[level]));
        }
        assert!(level_minus_dbov(&[5]) > 39.0);
        assert!(ComfortNoise::parse(&[]).is_none());
        let mut out = Vec::new();
        ComfortNoise::parse(&[127]).unwrap().make(100, &mut out);
        assert!(out.iter().all(|s| s.abs() <= 1));
    }
}
