//! Packet loss concealment after ITU-T G.711 Appendix I: a gap is filled with the last pitch period, repeated and faded,
//! and what follows is faded in over it. Works at any rate; unlike the appendix it adds no delay.

use std::time::Duration;

use super::frame::SampleRate;
use super::resample::round;

/// Unfaded for so long, in milliseconds.
pub const CONCEAL_FULL_MS: u64 = 10;
/// Silence after so long, in milliseconds: made-up sound must not become speech of its own.
pub const CONCEAL_MAX_MS: u64 = 60;
/// Shortest pitch period looked for: 200 Hz, as in the appendix.
const PITCH_MIN_MS: u64 = 5;
/// Longest: 66 Hz.
const PITCH_MAX_MS: u64 = 15;
/// Stretch that is compared.
const MATCH_MS: u64 = 20;
/// Cross-fade back to received audio, in milliseconds.
const RECOVER_MS: u64 = 5;
/// The correlation is first looked for on about 8,000 samples a second.
const COARSE_HZ: u32 = 8_000;

/// Fills gaps. Holds 35 ms of audio; prints none.
pub struct Concealer {
    rate: SampleRate,
    history: Vec<i16>,
    keep: usize,
    gap: Option<Gap>,
    // Samples of the cross-fade that are still to come.
    recovering: usize,
}

struct Gap {
    // One pitch period whose end runs into its beginning.
    period: Vec<f64>,
    made: usize,
    // From the last sample before the gap to the first made-up one, faded over the first milliseconds.
    step: f64,
}

impl std::fmt::Debug for Concealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Concealer({} Hz, in a gap: {})", self.rate.hz(), self.gap.is_some())
    }
}

impl Drop for Concealer {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.history);
    }
}

impl Concealer {
    /// Nothing heard yet.
    pub fn new(rate: SampleRate) -> Self {
        let keep = rate.samples_in(Duration::from_millis(PITCH_MAX_MS + MATCH_MS));
        Self { rate, history: Vec::new(), keep, gap: None, recovering: 0 }
    }

    /// Of what it takes and makes.
    pub fn rate(&self) -> SampleRate {
        self.rate
    }

    /// Received audio: passed on, faded in if a gap went before.
    pub fn heard(&mut self, mut samples: Vec<i16>) -> Vec<i16> {
        let fade = self.samples(RECOVER_MS).max(1);
        if self.recovering > 0 {
            for sample in samples.iter_mut().take(self.recovering) {
                let made = self.next_made();
                let weight = ratio(fade - self.recovering + 1, fade + 1);
                *sample = round(f64::from(*sample) * weight + made * (1.0 - weight));
                self.recovering -= 1;
            }
        }
        if self.recovering == 0 {
            self.gap = None;
        }
        self.remember(&samples);
        samples
    }

    /// A gap: made-up audio, and how many of its samples are more than silence.
    pub fn missing(&mut self, samples: usize) -> (Vec<i16>, usize) {
        // A gap within a cross-fade starts anew from what was played.
        let resumed = self.recovering > 0 && self.recovering < self.samples(RECOVER_MS);
        if self.gap.is_none() || resumed {
            self.gap = Some(self.open());
        }
        self.recovering = self.samples(RECOVER_MS);
        let audible = self.samples(CONCEAL_MAX_MS);
        let before = self.gap.as_ref().filter(|gap| !gap.period.is_empty()).map_or(audible, |gap| gap.made);
        let out: Vec<i16> = (0..samples).map(|_| round(self.next_made())).collect();
        self.remember(&out);
        (out, audible.saturating_sub(before).min(samples))
    }

    fn samples(&self, ms: u64) -> usize {
        self.rate.samples_in(Duration::from_millis(ms))
    }

    fn remember(&mut self, samples: &[i16]) {
        self.history.extend_from_slice(samples);
        let spare = self.history.len().saturating_sub(self.keep);
        self.history.drain(..spare);
    }

    fn next_made(&mut self) -> f64 {
        let (full, most) = (self.samples(CONCEAL_FULL_MS), self.samples(CONCEAL_MAX_MS));
        let smooth = self.samples(2);
        let Some(gap) = self.gap.as_mut() else { return 0.0 };
        let n = gap.made;
        gap.made += 1;
        let at = n.checked_rem(gap.period.len()).and_then(|i| gap.period.get(i)).copied().unwrap_or(0.0);
        let gain = if n < full { 1.0 } else { ratio(most.saturating_sub(n), most - full) };
        let step = gap.step * ratio(smooth.saturating_sub(n), smooth);
        (at + step) * gain
    }

    fn open(&self) -> Gap {
        let nothing = Gap { period: Vec::new(), made: 0, step: 0.0 };
        let Some(lag) = self.pitch() else { return nothing };
        let heard: Vec<f64> = self.history.iter().map(|&s| f64::from(s)).collect();
        let (Some(last), Some(one_before), Some(two_before)) =
            (tail(&heard, 0, lag), tail(&heard, lag, lag), heard.len().checked_sub(lag + 1).and_then(|i| heard.get(i)))
        else {
            return nothing;
        };
        // The last quarter of the period moves over to what led up to the period's beginning, so that repeats join.
        let quarter = lag / 4;
        let mut period = last.to_vec();
        for (n, (sample, earlier)) in period.iter_mut().zip(one_before).enumerate().skip(lag - quarter) {
            let weight = ratio(n + 1 + quarter - lag, quarter + 1);
            *sample = *sample * (1.0 - weight) + earlier * weight;
        }
        let step = heard.last().map_or(0.0, |end| end - two_before);
        Gap { period, made: 0, step }
    }

    /// The lag at which the last 20 ms resemble what went before most (normalised correlation).
    fn pitch(&self) -> Option<usize> {
        let window = self.samples(MATCH_MS);
        let (shortest, longest) = (self.samples(PITCH_MIN_MS), self.samples(PITCH_MAX_MS));
        if self.history.len() < window + longest {
            return None;
        }
        let stride = usize::try_from(self.rate.hz() / COARSE_HZ).unwrap_or(1).max(1);
        let likeness = |lag: usize, stride: usize| -> f64 {
            let (Some(recent), Some(earlier)) = (tail(&self.history, 0, window), tail(&self.history, lag, window)) else {
                return 0.0;
            };
            let (mut product, mut energy) = (0.0, 1.0);
            for (a, b) in recent.iter().zip(earlier).step_by(stride) {
                product += f64::from(*a) * f64::from(*b);
                energy += f64::from(*b) * f64::from(*b);
            }
            product / energy.sqrt()
        };
        let best = |lags: &mut dyn Iterator<Item = usize>, stride: usize| {
            lags.map(|lag| (likeness(lag, stride), lag)).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, lag)| lag)
        };
        let coarse = best(&mut (shortest..=longest).step_by(stride), stride)?;
        best(&mut (coarse.saturating_sub(stride).max(shortest)..=(coarse + stride).min(longest)), 1)
    }
}

/// `len` items that end `back` items before the end.
fn tail<T>(items: &[T], back: usize, len: usize) -> Option<&[T]> {
    let end = items.len().checked_sub(back)?;
    items.get(end.checked_sub(len)?..end)
}

#[allow(clippy::as_conversions, clippy::cast_precision_loss)] // counts of samples
pub(super) fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: [SampleRate; 3] = [SampleRate::HZ_8000, SampleRate::HZ_16000, SampleRate::HZ_48000];

    // A voice of sorts: 120 Hz with overtones, 20 ms frames.
    fn voice(rate: SampleRate, frames: usize) -> Vec<Vec<i16>> {
        let per_frame = rate.samples_in(Duration::from_millis(20));
        let sample = |n: usize| {
            let t = n as f64 / f64::from(rate.hz()) * 120.0 * 2.0 * std::f64::consts::PI;
            round(6_000.0 * t.sin() + 3_000.0 * (2.0 * t).sin() + 1_500.0 * (5.0 * t).sin())
        };
        (0..frames).map(|f| (f * per_frame..(f + 1) * per_frame).map(sample).collect()).collect()
    }

    fn energy(samples: impl Iterator<Item = f64>) -> f64 {
        samples.map(|s| s * s).sum()
    }

    #[test]
    fn a_lost_frame_of_a_steady_voice_is_nearly_what_was_lost() {
        for rate in RATES {
            let frames = voice(rate, 8);
            let mut concealer = Concealer::new(rate);
            for frame in &frames[..5] {
                assert_eq!(&concealer.heard(frame.clone()), frame, "untouched without loss");
            }
            let (made, audible) = concealer.missing(frames[5].len());
            assert_eq!(audible, frames[5].len());
            let half = made.len() / 2;
            let wrong = energy(made.iter().zip(&frames[5]).take(half).map(|(a, b)| f64::from(*a) - f64::from(*b)));
            let whole = energy(frames[5].iter().take(half).map(|s| f64::from(*s)));
            // Silence instead would make this 1.
            assert!(wrong / whole < 0.05, "{} Hz: {}", rate.hz(), wrong / whole);
            // No click at either seam: no step larger than the voice itself makes, times two.
            let after = concealer.heard(frames[6].clone());
            let steps = |s: &[i16]| s.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max().unwrap();
            let joined: Vec<i16> = [&frames[4][..], &made, &after].concat();
            let own = steps(&frames[4]);
            assert!(steps(&joined) < 2 * own, "{} Hz: {} against {own}", rate.hz(), steps(&joined));
            assert_eq!(concealer.heard(frames[7].clone()), frames[7]);
        }
    }

    #[test]
    fn a_long_gap_fades_to_silence_by_60_ms_and_counts_only_what_is_heard() {
        for rate in RATES {
            let mut concealer = Concealer::new(rate);
            for frame in voice(rate, 4) {
                concealer.heard(frame);
            }
            let per_frame = rate.samples_in(Duration::from_millis(20));
            let mut levels = Vec::new();
            let mut audible = 0;
            for _ in 0..5 {
                let (made, counted) = concealer.missing(per_frame);
                levels.push(energy(made.iter().map(|s| f64::from(*s))));
                audible += counted;
            }
            assert!(levels[0] > levels[1] && levels[1] > levels[2] && levels[2] > 0.0, "{levels:?}");
            assert_eq!(levels[3..], [0.0, 0.0]);
            assert_eq!(audible, rate.samples_in(Duration::from_millis(CONCEAL_MAX_MS)));
        }
    }

    #[test]
    fn before_anything_was_heard_a_gap_is_silence() {
        let mut concealer = Concealer::new(SampleRate::HZ_8000);
        assert_eq!(concealer.missing(160), (vec![0; 160], 0));
        assert_eq!(concealer.missing(160), (vec![0; 160], 0));
        // Faded in from silence.
        let out = concealer.heard(vec![10_000; 160]);
        assert!(out[0] < 1_000 && out[40..].iter().all(|s| *s == 10_000), "{:?}", &out[..42]);
    }

    #[test]
    fn gaps_may_begin_and_end_within_a_frame_and_within_a_fade() {
        let mut concealer = Concealer::new(SampleRate::HZ_8000);
        for frame in voice(SampleRate::HZ_8000, 4) {
            concealer.heard(frame);
        }
        for n in 1..60 {
            assert_eq!(concealer.missing(n % 13).0.len(), n % 13);
            assert_eq!(concealer.heard(vec![100; n % 17]).len(), n % 17);
        }
        assert!(concealer.history.len() <= 280);
    }
}
