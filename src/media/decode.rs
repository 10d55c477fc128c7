//! Payloads and gaps in order into frames at the leg's rate: decoder, concealment, and a resampler where a codec agreed during
//! the call has another rate than the leg was announced with. Pure.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use std::time::Duration;

use super::codec::{Codec, Decoder};
use super::comfort_noise::{ComfortNoise, FloorMeter};
use super::conceal::{CONCEAL_FULL_MS, CONCEAL_MAX_MS, Concealer, ratio};
use super::frame::SampleRate;
use super::resample::{Resampler, round};

/// How fast received audio comes back to full level after what a decoder made up, in milliseconds.
const RECOVER_MS: u64 = 5;

/// One stream that we hear.
pub struct Stream {
    codec: Codec,
    decoder: Decoder,
    concealer: Concealer,
    rate: SampleRate,
    resampler: Option<Resampler>,
    ready: Vec<i16>,
    // Samples that the decoder made up in this gap, and what their level had fallen to.
    made: usize,
    gain: f64,
    concealed_samples: u64,
    undecodable: u64,
    // What the line sounds like when nobody speaks; in a gap, the noise that stands for it and how long the gap is.
    floor: FloorMeter,
    noise: Option<ComfortNoise>,
    gap: usize,
}

impl std::fmt::Debug for Stream {
    /// Never the samples.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({:?}, {} samples ready)", self.decoder, self.ready.len())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.ready);
    }
}

impl Stream {
    /// Of this codec, into samples at `rate`.
    pub fn new(codec: Codec, rate: SampleRate) -> Self {
        Self {
            codec,
            decoder: codec.decoder(),
            concealer: Concealer::new(codec.rate()),
            rate,
            resampler: (codec.rate() != rate).then(|| Resampler::new(codec.rate(), rate)),
            ready: Vec::new(),
            made: 0,
            gain: 1.0,
            concealed_samples: 0,
            undecodable: 0,
            floor: FloorMeter::new(codec.rate()),
            noise: None,
            gap: 0,
        }
    }

    /// How many timestamp units must come before `samples` are ready; 0: they are.
    pub fn wanted_units(&self, samples: usize) -> u32 {
        let missing = u64::try_from(samples.saturating_sub(self.ready.len())).unwrap_or(0);
        u32::try_from((missing * u64::from(self.codec.rtp_clock_hz())).div_ceil(self.rate.hz().into())).unwrap_or(u32::MAX)
    }

    /// The next payload but for its first `skip` timestamp units.
    pub fn heard(&mut self, payload: &[u8], skip: u32) {
        let mut samples = Vec::with_capacity(self.codec.samples_in(self.codec.payload_units(payload).unwrap_or(0)));
        if !self.decoder.decode(payload, &mut samples) {
            self.undecodable += 1;
            let units = self.codec.payload_units(payload).unwrap_or(0);
            return self.missing(units.saturating_sub(skip), None);
        }
        samples.drain(..self.codec.samples_in(skip).min(samples.len()));
        self.floor.take(&samples);
        (self.noise, self.gap) = (None, 0);
        if self.made > 0 {
            // Back up from where the made-up sound had faded to.
            let ramp = self.codec.rate().samples_in(Duration::from_millis(RECOVER_MS)).max(1);
            for (n, sample) in samples.iter_mut().take(ramp).enumerate() {
                *sample = round(f64::from(*sample) * (self.gain + (1.0 - self.gain) * ratio(n + 1, ramp)));
            }
            (self.made, self.gain) = (0, 1.0);
        }
        let samples = self.concealer.heard(samples);
        self.emit(&samples);
    }

    /// A gap of so many timestamp units; `next` is the payload right after it, if that is here.
    pub fn missing(&mut self, units: u32, next: Option<&[u8]>) {
        let count = self.codec.samples_in(units);
        let longest = self.codec.rate().samples_in(Duration::from_millis(CONCEAL_MAX_MS));
        let mut samples = Vec::with_capacity(count);
        if self.made < longest && self.decoder.conceal(count, next, &mut samples) {
            self.fade(&mut samples);
            let audible = count.min(longest.saturating_sub(self.made));
            self.concealed_samples += u64::try_from(audible).unwrap_or(0);
            self.made += count;
            let mut samples = self.concealer.heard(samples);
            self.fill(&mut samples);
            return self.emit(&samples);
        }
        let (mut samples, audible) = if self.made > 0 {
            // What the decoder made up has faded out.
            self.gain = 0.0;
            (vec![0; count], 0)
        } else {
            self.concealer.missing(count)
        };
        self.concealed_samples += u64::try_from(audible).unwrap_or(0);
        self.fill(&mut samples);
        self.emit(&samples);
    }

    /// As what is made up for a gap fades out, the line's own floor takes its place: a peer that suppresses silence without a
    /// word (no comfort noise agreed) does not sound as if the line were dead.
    fn fill(&mut self, samples: &mut [i16]) {
        let in_ms = |ms| self.codec.rate().samples_in(Duration::from_millis(ms));
        let (full, most) = (in_ms(CONCEAL_FULL_MS), in_ms(CONCEAL_MAX_MS));
        if self.gap == 0 {
            self.noise = self.floor.noise();
        }
        let from = self.gap;
        self.gap = self.gap.saturating_add(samples.len());
        let Some(noise) = &mut self.noise else { return };
        let mut made = Vec::with_capacity(samples.len());
        noise.make(samples.len(), &mut made);
        for (n, (sample, noise)) in (from..).zip(samples.iter_mut().zip(made)) {
            let weight = ratio(n.saturating_sub(full), most - full).min(1.0);
            *sample = round(f64::from(*sample) + f64::from(noise) * weight);
        }
    }

    /// A pause of the peer's of so many timestamp units, of which it said how loud it is.
    pub fn pause(&mut self, units: u32, noise: &mut ComfortNoise) {
        let mut samples = Vec::new();
        noise.make(self.codec.samples_in(units), &mut samples);
        (self.made, self.gain) = (0, 1.0);
        (self.noise, self.gap) = (None, 0);
        let samples = self.concealer.heard(samples);
        self.emit(&samples);
    }

    /// The next `samples`; silence where there are none.
    pub fn take(&mut self, samples: usize) -> Vec<i16> {
        let rest = self.ready.split_off(samples.min(self.ready.len()));
        let mut taken = std::mem::replace(&mut self.ready, rest);
        taken.resize(samples, 0);
        taken
    }

    /// Audio made up so far (60 ms a gap at most).
    pub fn concealed(&self) -> Duration {
        Duration::from_micros(self.concealed_samples * 1_000_000 / u64::from(self.codec.rate().hz()))
    }

    /// Payloads that the decoder refused.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Made-up sound must not become speech of its own: the same fade as the concealer's.
    fn fade(&mut self, samples: &mut [i16]) {
        let in_ms = |ms| self.codec.rate().samples_in(Duration::from_millis(ms));
        let (full, most) = (in_ms(CONCEAL_FULL_MS), in_ms(CONCEAL_MAX_MS));
        for (n, sample) in (self.made..).zip(samples) {
            self.gain = if n < full { 1.0 } else { ratio(most.saturating_sub(n), most - full) };
            *sample = round(f64::from(*sample) * self.gain);
        }
    }

    fn emit(&mut self, samples: &[i16]) {
        match &mut self.resampler {
            Some(resampler) => resampler.push(samples, &mut self.ready),
            None => self.ready.extend_from_slice(samples),
        }
    }
}
