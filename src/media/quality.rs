//! What a call sounded like: the E-model (ITU-T G.107; wideband G.107.1) from loss, its burstiness and delay to a rating R and
//! a mean opinion score (MOS). Pure.
//!
//! Such scores compare calls and show a bad trunk; they are no listening test. R leaves out what we can't know of the far
//! telephone (echo, noise, loudness): those take the recommendation's defaults.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use std::time::Duration;

use super::codec::Codec;

/// How often quality is sampled, in milliseconds.
pub const SAMPLE_MS: u64 = 5_000;
/// R of a narrowband call with all defaults (G.107 section 7.7).
const R_NARROW: f64 = 93.2;
/// R of a perfect wideband call (G.107.1 section 7.1).
const R_WIDE: f64 = 129.0;
/// What coding, packing and a telephone's own buffers add to the path's delay on each side together, in milliseconds: one
/// packet time and as much again.
const TERMINAL_DELAY_MS: f64 = 40.0;

/// What a codec costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impairment {
    /// Equipment impairment without loss: Ie, or Ie,wb of a wideband codec.
    ie: f64,
    /// Robustness against loss: Bpl.
    bpl: f64,
    wide: bool,
}

impl Impairment {
    /// G.711 with concealment like that of its Appendix I (G.113 Appendix I: Ie 0, Bpl 25.1; without it Bpl would be 4.3).
    pub const G711: Self = Self { ie: 0.0, bpl: 25.1, wide: false };
    /// G.722 at 64 kbit/s: Ie,wb 13 (G.113 Appendix IV). **Approximate**: Bpl 10 lies between the value without concealment
    /// (about 5) and G.711's with.
    pub const G722: Self = Self { ie: 13.0, bpl: 10.0, wide: true };
    /// Opus at 16 to 32 kbit/s. **Approximate**: the ITU gives no values; these follow published listening tests near AMR-WB's
    /// at 23 kbit/s (Ie,wb 1), with its in-band redundancy and concealment.
    pub const OPUS: Self = Self { ie: 4.0, bpl: 15.0, wide: true };

    /// Of a codec.
    pub fn of(codec: Codec) -> Self {
        match codec {
            Codec::G722 => Self::G722,
            Codec::Opus => Self::OPUS,
            Codec::Pcmu | Codec::Pcma => Self::G711,
        }
    }

    /// The rating R, 0 to 100 (129 for wideband). `loss` in 0..1 after the jitter buffer, `burst_ratio` ≥ 1 as G.107 section
    /// 3.5 has it (1: losses are independent), `delay` from mouth to ear, one way.
    pub fn rating(&self, loss: f64, burst_ratio: f64, delay: Duration) -> f64 {
        let percent = 100.0 * loss.clamp(0.0, 1.0);
        let spread = percent / burst_ratio.max(1.0) + self.bpl;
        let effective = self.ie + (95.0 - self.ie) * percent / spread;
        let whole = if self.wide { R_WIDE } else { R_NARROW };
        (whole - effective - delay_impairment(delay)).clamp(0.0, whole)
    }

    /// The score, 1.0 to 4.5 (G.107 annex B; G.107.1 brings wideband ratings to the same scale by 1.29).
    pub fn score(&self, loss: f64, burst_ratio: f64, delay: Duration) -> f64 {
        let r = self.rating(loss, burst_ratio, delay) / if self.wide { 1.29 } else { 1.0 };
        (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).clamp(1.0, 4.5)
    }
}

/// Idd: delay without echo costs nothing up to 100 ms (G.107 section 7.4).
fn delay_impairment(delay: Duration) -> f64 {
    let ms = 1_000.0 * delay.as_secs_f64();
    if ms <= 100.0 {
        return 0.0;
    }
    let x = (ms / 100.0).log2();
    25.0 * ((1.0 + x.powi(6)).powf(1.0 / 6.0) - 3.0 * (1.0 + (x / 3.0).powi(6)).powf(1.0 / 6.0) + 2.0)
}

/// What one direction went through since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Passage {
    /// Packets that the sender sent.
    pub expected: u64,
    /// Those that were not played: lost, or too late.
    pub missed: u64,
    /// Runs of missed packets.
    pub bursts: u64,
}

impl Passage {
    fn since(self, before: Self) -> Self {
        Self {
            expected: self.expected.saturating_sub(before.expected),
            missed: self.missed.saturating_sub(before.missed),
            bursts: self.bursts.saturating_sub(before.bursts),
        }
    }

    /// Missed packets among a thousand.
    pub fn permille(self) -> u32 {
        u32::try_from((self.missed * 1_000 / self.expected.max(1)).min(1_000)).unwrap_or(0)
    }

    /// In 0..1.
    pub fn loss(self) -> f64 {
        (share(self.missed, self.expected)).min(1.0)
    }

    /// How much longer runs of loss are than independent losses of this rate would make them (G.107 section 3.5): 1 for random
    /// loss.
    pub fn burst_ratio(self) -> f64 {
        if self.bursts == 0 {
            return 1.0;
        }
        (share(self.missed, self.bursts) * (1.0 - self.loss())).max(1.0)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    #[allow(clippy::as_conversions, clippy::cast_precision_loss)] // counts of packets
    let ratio = part as f64 / whole.max(1) as f64;
    ratio
}

/// A figure over a call: its mean and its worst.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Course {
    sum: f64,
    count: u32,
    least: f64,
}

impl Course {
    fn add(&mut self, value: f64) {
        self.least = if self.count == 0 { value } else { self.least.min(value) };
        self.sum += value;
        self.count += 1;
    }

    /// `None` before the first sample.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }

    /// `None` before the first sample.
    pub fn least(&self) -> Option<f64> {
        (self.count > 0).then_some(self.least)
    }
}

/// One sample of both directions.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Sample {
    /// Since the call began.
    pub heard: Passage,
    /// What the peer lost of ours in its last interval, in 0..1; `None` while it reports nothing.
    pub peer_loss: Option<f64>,
    /// To the peer and back.
    pub round_trip: Option<Duration>,
    /// How long our jitter buffer holds a packet.
    pub buffered: Duration,
    /// The jitter that the peer sees in our packets: its buffer is about twice as deep.
    pub peer_jitter: Duration,
}

/// Both directions of a call, sampled.
#[derive(Clone, Copy, Debug)]
pub struct Quality {
    codec: Impairment,
    before: Passage,
    /// What we hear.
    pub heard: Course,
    /// What the peer hears, by its reports.
    pub peer: Course,
}

impl Quality {
    /// At the beginning of a call.
    pub fn new(codec: Impairment) -> Self {
        Self { codec, before: Passage::default(), heard: Course::default(), peer: Course::default() }
    }

    /// Another codec from here on.
    pub fn change(&mut self, codec: Impairment) {
        self.codec = codec;
    }

    /// Takes a sample, each [`SAMPLE_MS`]. A stretch in which nothing was sent says nothing and is left out.
    pub fn sample(&mut self, sample: Sample) {
        let passed = sample.heard.since(std::mem::replace(&mut self.before, sample.heard));
        let terminal = Duration::from_secs_f64(TERMINAL_DELAY_MS / 1_000.0);
        let way = sample.round_trip.unwrap_or_default() / 2 + terminal;
        if passed.expected > 0 {
            self.heard.add(self.codec.score(passed.loss(), passed.burst_ratio(), way + sample.buffered));
        }
        if let Some(loss) = sample.peer_loss {
            self.peer.add(self.codec.score(loss, 1.0, way + 2 * sample.peer_jitter));
        }
    }
}

/// Hundredths of a score, for a record.
pub fn hundredths(score: f64) -> u32 {
    #[allow(clippy::as_conversions, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 1.0 to 4.5
    let hundredths = (100.0 * score).round() as u32;
    hundredths
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_DELAY: Duration = Duration::ZERO;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_known_points_of_the_model_are_met() {
        // G.107 annex B: R 93.2 is MOS 4.41.
        assert_eq!(hundredths(Impairment::G711.score(0.0, 1.0, NO_DELAY)), 441);
        // 2 %: Ie,eff = 95 × 2 / 27.1 = 7.01, R 86.2, MOS 4.23. 5 %: 15.8, R 77.4, MOS 3.92.
        assert_eq!(hundredths(Impairment::G711.score(0.02, 1.0, NO_DELAY)), 423);
        assert_eq!(hundredths(Impairment::G711.score(0.05, 1.0, NO_DELAY)), 392);
        // Idd at 200 ms by the formula: 25 × (2^(1/6) − 3 × (1 + 3^-6)^(1/6) + 2) = 3.04.
        assert!((delay_impairment(ms(200)) - 3.04).abs() < 0.01, "{}", delay_impairment(ms(200)));
        assert_eq!(delay_impairment(ms(100)), 0.0);
        assert!((20.0..40.0).contains(&delay_impairment(ms(500))));
        // Wideband: (129 − 13) ÷ 1.29 = 89.9.
        assert_eq!(hundredths(Impairment::G722.score(0.0, 1.0, NO_DELAY)), 434);
        assert_eq!(hundredths(Impairment::G711.score(1.0, 1.0, ms(2_000))), 100);
    }

    #[test]
    fn more_loss_longer_bursts_and_more_delay_never_sound_better() {
        for codec in [Impairment::G711, Impairment::G722, Impairment::OPUS] {
            let mut last = 5.0;
            for percent in 0..=100 {
                let score = codec.score(f64::from(percent) / 100.0, 1.0, NO_DELAY);
                assert!((1.0..=last).contains(&score));
                last = score;
            }
            assert!(codec.score(0.05, 3.0, NO_DELAY) < codec.score(0.05, 1.0, NO_DELAY));
            assert!(codec.score(0.0, 1.0, ms(400)) < codec.score(0.0, 1.0, ms(150)));
        }
    }

    #[test]
    fn bursts_are_told_from_random_loss() {
        let random = Passage { expected: 1_000, missed: 100, bursts: 90 };
        let bursty = Passage { expected: 1_000, missed: 100, bursts: 20 };
        assert!(random.burst_ratio() < 1.01 && (4.4..4.6).contains(&bursty.burst_ratio()));
        assert_eq!(Passage::default().burst_ratio(), 1.0);
    }

    #[test]
    fn a_bad_stretch_shows_in_the_worst_and_moves_the_mean() {
        let mut quality = Quality::new(Impairment::of(Codec::Pcmu));
        assert_eq!((quality.heard.mean(), quality.peer.least()), (None, None));
        for n in 1..=4u64 {
            let missed = if n >= 3 { 50 } else { 0 };
            quality.sample(Sample { heard: Passage { expected: 250 * n, missed, bursts: missed / 2 }, ..Sample::default() });
        }
        assert!((3.4..4.0).contains(&quality.heard.mean().unwrap()), "{:?}", quality.heard);
        assert_eq!(hundredths(quality.heard.least().unwrap()), hundredths(Impairment::G711.score(0.2, 1.6, ms(40))));
        // A silent stretch is no sample; what the peer says is one of its own.
        let peer = Some(0.02);
        quality.sample(Sample {
            heard: Passage { expected: 1_000, missed: 50, bursts: 25 },
            peer_loss: peer,
            ..Sample::default()
        });
        assert_eq!((quality.heard.count, quality.peer.mean().map(hundredths)), (4, Some(423)));
    }
}
