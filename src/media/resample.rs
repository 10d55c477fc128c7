//! Sample rates. One filter, two ways to run it: over a whole signal (what the speech models are fed with; equal to
//! `scipy.signal.resample_poly` and its default window, because the golden embeddings were made so) and as a stream
//! (prompts to the leg's rate).

use std::f64::consts::PI;

use super::frame::SampleRate;

/// scipy's default window: Kaiser with this β.
const KAISER_BETA: f64 = 5.0;
/// Zero crossings of the sinc kept on each side, as in scipy.
const HALF_CROSSINGS: usize = 10;

/// Resamples a whole signal with zero delay: `ceil(len * to / from)` samples.
#[allow(clippy::as_conversions, clippy::cast_possible_truncation)] // back to single precision
pub fn resample_whole(samples: &[f32], from: SampleRate, to: SampleRate) -> Vec<f32> {
    let filter = Filter::new(from, to);
    if filter.up == filter.down {
        return samples.to_vec();
    }
    filter.outputs(0, filter.output_len(samples.len()), samples, 0).map(|y| y as f32).collect()
}

/// How much of a tone is left after resampling, 0 to 1, where the higher of the two rates could carry it.
#[allow(clippy::as_conversions, clippy::cast_precision_loss)] // small counts
pub fn response(from: SampleRate, to: SampleRate, hz: f64) -> f64 {
    let filter = Filter::new(from, to);
    let step = 2.0 * PI * hz / (f64::from(from.hz()) * filter.up as f64);
    // The taps of phase `p` lie `up` apart, oldest input first: their order runs backwards in time.
    let taps = filter.phases.iter().enumerate().flat_map(|(phase, taps)| {
        taps.iter().rev().enumerate().map(move |(i, tap)| (step * (phase + i * filter.up) as f64, tap))
    });
    let (re, im) = taps.fold((0.0, 0.0), |(re, im), (at, tap)| (re + tap * at.cos(), im - tap * at.sin()));
    re.hypot(im) / filter.up as f64
}

/// Resamples a stream of 16-bit samples piece by piece; state is bounded by the filter's length. What comes out in all
/// (after [`Resampler::finish`]) is [`resample_whole`] of the whole, rounded.
pub struct Resampler {
    filter: Filter,
    // Input from index `start` on; what the filter no longer reaches is dropped.
    held: Vec<i16>,
    start: usize,
    produced: usize,
}

impl std::fmt::Debug for Resampler {
    /// Never the samples.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resampler({:?}, {} samples held)", self.filter, self.held.len())
    }
}

impl Resampler {
    /// Between any two rates.
    pub fn new(from: SampleRate, to: SampleRate) -> Self {
        Self { filter: Filter::new(from, to), held: Vec::new(), start: 0, produced: 0 }
    }

    /// Takes input, appends the output that is ready.
    pub fn push(&mut self, input: &[i16], out: &mut Vec<i16>) {
        if self.filter.up == self.filter.down {
            out.extend_from_slice(input);
            return;
        }
        self.held.extend_from_slice(input);
        let known = self.start + self.held.len();
        // Output m reaches input up to (m * down + half) / up.
        let ready = (known * self.filter.up).saturating_sub(self.filter.half).div_ceil(self.filter.down);
        self.emit(ready, out);
        let first_needed = (self.produced * self.filter.down).saturating_sub(self.filter.half) / self.filter.up;
        let spent = first_needed.saturating_sub(self.start).min(self.held.len());
        self.held.drain(..spent);
        self.start += spent;
    }

    /// The stream has ended: appends the rest and starts anew.
    pub fn finish(&mut self, out: &mut Vec<i16>) {
        if self.filter.up != self.filter.down {
            self.emit(self.filter.output_len(self.start + self.held.len()), out);
        }
        self.held.clear();
        self.start = 0;
        self.produced = 0;
    }

    /// All outputs before the `until`th.
    fn emit(&mut self, until: usize, out: &mut Vec<i16>) {
        out.extend(self.filter.outputs(self.produced, until, &self.held, self.start).map(round));
        self.produced = self.produced.max(until);
    }
}

/// To the nearest 16-bit sample, clipped.
#[allow(clippy::as_conversions, clippy::cast_possible_truncation)] // clamped before
pub fn round(sample: f64) -> i16 {
    sample.round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
}

/// A windowed sinc (scipy's `firwin(2 * half + 1, 1 / max(up, down), window=("kaiser", 5.0)) * up`).
struct Filter {
    up: usize,
    down: usize,
    half: usize,
    // The taps that meet input, for each of `up` positions of the output between two inputs; oldest input first.
    phases: Vec<Vec<f64>>,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({}/{})", self.up, self.down)
    }
}

impl Filter {
    #[allow(clippy::as_conversions, clippy::cast_precision_loss)] // small counts
    fn new(from: SampleRate, to: SampleRate) -> Self {
        let divisor = gcd(from.hz(), to.hz());
        let up = usize::try_from(to.hz() / divisor).unwrap_or(1);
        let down = usize::try_from(from.hz() / divisor).unwrap_or(1);
        let widest = up.max(down);
        let half = HALF_CROSSINGS * widest;
        let cutoff = 1.0 / widest as f64;
        let taps: Vec<f64> = (0..=2 * half)
            .map(|n| {
                let t = n as f64 - half as f64;
                let inside = (1.0 - (t / half as f64).powi(2)).max(0.0).sqrt();
                cutoff * sinc(cutoff * t) * bessel_i0(KAISER_BETA * inside) / bessel_i0(KAISER_BETA)
            })
            .collect();
        // firwin scales to unity at DC; zero-stuffing by `up` takes as much away.
        let scale = up as f64 / taps.iter().sum::<f64>();
        let phases = (0..up)
            .map(|phase| {
                let newest_first: Vec<f64> = taps.iter().skip(phase).step_by(up).map(|h| h * scale).collect();
                newest_first.into_iter().rev().collect()
            })
            .collect();
        Self { up, down, half, phases }
    }

    fn output_len(&self, input_len: usize) -> usize {
        (input_len * self.up).div_ceil(self.down)
    }

    /// Output samples `from` to `until`; number `m` is Σ h[half + m·down − k·up] · x[k]. `samples` begin at input `start`; beyond
    /// them is silence.
    fn outputs<T: Copy>(&self, from: usize, until: usize, samples: &[T], start: usize) -> impl Iterator<Item = f64>
    where
        f64: From<T>,
    {
        // Steps instead of a division for each output: that took longer than the filter.
        let centre = from * self.down + self.half;
        let (mut newest, mut phase) = (centre / self.up, centre % self.up);
        let (whole, part) = (self.down / self.up, self.down % self.up);
        (from..until).map(move |_| {
            let y = self.at(newest, phase, samples, start);
            newest += whole;
            phase += part;
            if phase >= self.up {
                phase -= self.up;
                newest += 1;
            }
            y
        })
    }

    /// Where the newest input reached has index `newest`.
    fn at<T: Copy>(&self, newest: usize, phase: usize, samples: &[T], start: usize) -> f64
    where
        f64: From<T>,
    {
        let end = (newest + 1).saturating_sub(start);
        let known = samples.get(..end).unwrap_or(samples);
        let taps = self.phases.get(phase).map_or(&[][..], Vec::as_slice);
        // Before the first sample and behind the last there is silence.
        let taps = taps.get(..taps.len().saturating_sub(end - known.len())).unwrap_or_default();
        let reach = taps.len().min(known.len());
        let (taps, heard) =
            (taps.get(taps.len() - reach..).unwrap_or_default(), known.get(known.len() - reach..).unwrap_or_default());
        dot(heard, taps)
    }
}

/// Four sums at once: one would wait for itself at every tap.
fn dot<T: Copy>(samples: &[T], taps: &[f64]) -> f64
where
    f64: From<T>,
{
    let mut sums = [0.0; 4];
    let (samples, taps) = (samples.chunks_exact(4), taps.chunks_exact(4));
    let rest: f64 = samples.remainder().iter().zip(taps.remainder()).map(|(&x, tap)| f64::from(x) * tap).sum();
    for (x, tap) in samples.zip(taps) {
        for ((sum, &x), tap) in sums.iter_mut().zip(x).zip(tap) {
            *sum += f64::from(x) * tap;
        }
    }
    let [a, b, c, d] = sums;
    (a + b) + (c + d) + rest
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

/// Modified Bessel function of the first kind, order 0, by its power series (converges fast for x ≤ 5).
fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..64 {
        term *= quarter / f64::from(k * k);
        sum += term;
        if term < sum * 1e-17 {
            break;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATES: [SampleRate; 3] = [SampleRate::HZ_8000, SampleRate::HZ_16000, SampleRate::HZ_48000];

    #[derive(serde::Deserialize)]
    struct Golden {
        from: u32,
        to: u32,
        n: usize,
        out: Vec<f64>,
    }

    #[test]
    fn whole_signals_come_out_as_scipys_resample_poly_makes_them() {
        let cases: Vec<Golden> = serde_json::from_str(include_str!("../../tests/golden/resample.json")).unwrap();
        assert!(cases.len() >= 8);
        for case in cases {
            let input: Vec<f32> = (0..case.n).map(|i| ((i * i * 7919 + i * 104_729) % 2001) as f32 / 1000.0 - 1.0).collect();
            let (from, to) = (SampleRate::new(case.from).unwrap(), SampleRate::new(case.to).unwrap());
            let out = resample_whole(&input, from, to);
            assert_eq!(out.len(), case.out.len(), "{} to {}", case.from, case.to);
            for (ours, theirs) in out.iter().zip(&case.out) {
                assert!((f64::from(*ours) - theirs).abs() < 1e-6, "{} to {}: {ours} for {theirs}", case.from, case.to);
            }
        }
    }

    fn tone(hz: f64, rate: SampleRate, samples: usize) -> Vec<i16> {
        (0..samples).map(|n| round(12_000.0 * (2.0 * PI * hz * n as f64 / f64::from(rate.hz())).sin())).collect()
    }

    fn rms(samples: &[i16]) -> f64 {
        (samples.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
    }

    #[test]
    fn a_tone_in_band_survives_and_one_above_is_gone() {
        for (hz, least, most) in [(1_000.0, 8_300.0, 8_600.0), (6_500.0, 0.0, 60.0)] {
            let mut out = Vec::new();
            let mut resampler = Resampler::new(SampleRate::HZ_48000, SampleRate::HZ_8000);
            resampler.push(&tone(hz, SampleRate::HZ_48000, 48_000), &mut out);
            let level = rms(&out[400..7_000]);
            assert!((least..=most).contains(&level), "{hz} Hz came out at {level}");
        }
    }

    proptest! {
        #[test]
        fn a_stream_in_pieces_is_the_whole_rounded_and_state_stays_small(
            samples in prop::collection::vec(any::<i16>(), 0..700),
            cuts in prop::collection::vec(0usize..200, 0..12),
            from in 0usize..3, to in 0usize..3,
        ) {
            let (from, to) = (RATES[from], RATES[to]);
            let mut resampler = Resampler::new(from, to);
            let mut out = Vec::new();
            let mut rest = &samples[..];
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                resampler.push(piece, &mut out);
                prop_assert!(resampler.held.len() <= 2 * 60 + 1, "held {}", resampler.held.len());
                rest = after;
            }
            resampler.push(rest, &mut out);
            resampler.finish(&mut out);
            let input: Vec<f32> = samples.iter().map(|&s| f32::from(s)).collect();
            let whole = resample_whole(&input, from, to);
            prop_assert_eq!(out.len(), whole.len());
            for (piecewise, at_once) in out.iter().zip(whole) {
                let at_once = f64::from(at_once).clamp(-32_768.0, 32_767.0);
                prop_assert!((f64::from(*piecewise) - at_once).abs() <= 0.51, "{piecewise} for {at_once}");
            }
        }
    }
}
