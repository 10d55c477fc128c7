//! Sound as the rest of the house sees it: mono 16-bit samples with their rate.

use std::time::Duration;

/// Samples a second, mono.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleRate(u32);

impl SampleRate {
    /// Telephone band.
    pub const HZ_8000: Self = Self(8_000);
    /// What the speech models take.
    pub const HZ_16000: Self = Self(16_000);
    /// What browsers and Opus speak.
    pub const HZ_48000: Self = Self(48_000);

    /// Any rate from 8 to 48 kHz that is a whole number of samples a millisecond.
    pub fn new(hz: u32) -> Option<Self> {
        ((8_000..=48_000).contains(&hz) && hz.is_multiple_of(1_000)).then_some(Self(hz))
    }

    /// In hertz.
    pub fn hz(self) -> u32 {
        self.0
    }

    /// How many samples `d` takes, rounded down.
    pub fn samples_in(self, d: Duration) -> usize {
        usize::try_from(d.as_micros() * u128::from(self.0) / 1_000_000).unwrap_or(usize::MAX)
    }

    /// How long `samples` last.
    pub fn duration_of(self, samples: usize) -> Duration {
        Duration::from_micros(
            u64::try_from(u128::try_from(samples).unwrap_or(0) * 1_000_000 / u128::from(self.0)).unwrap_or(u64::MAX),
        )
    }
}

/// A short run of samples, usually 20 ms.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// At this rate.
    pub rate: SampleRate,
    /// Mono.
    pub samples: Vec<i16>,
}

impl std::fmt::Debug for Frame {
    /// Never the samples: audio does not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({} samples at {} Hz)", self.samples.len(), self.rate.hz())
    }
}
