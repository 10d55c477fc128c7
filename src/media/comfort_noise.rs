//! Comfort noise (RFC 3389): a peer that suppresses silence tells how loud its silence is, and we make it. Digital silence in
//! its place would teach the end-pointer a noise floor of nothing, above which every breath counts as speech. Pure.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use super::resample::round;

/// Louder "silence" than this, in −dBov, is not believed: it would pass for speech.
const LOUDEST_MINUS_DBOV: u8 = 40;
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
        let rms = 32_768.0 * 10f64.powf(-f64::from(level) / 20.0);
        let amplitude = rms * 3f64.sqrt() / ((1.0 - SMOOTHING) / (1.0 + SMOOTHING)).sqrt();
        Some(Self { amplitude, random: 0x2545_f491, last: 0.0 })
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

#[cfg(test)]
mod tests {
    use super::*;

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
