//! How long packets must wait so that nearly all are in time: the network's lateness, measured. Pure; in units of the RTP clock.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use std::time::Duration;

/// Lateness is counted in bins so wide, in milliseconds.
const BIN_MS: u64 = 5;
/// The last bin holds all that is later.
const BINS: usize = 100;
/// When so many packets are counted, all counts are halved: older ones fade (10 s of 20 ms packets).
const FADE_PACKETS: u32 = 512;
/// Of a hundred packets, so many shall be in time.
const IN_TIME_PERCENT: u32 = 97;
/// As if so many packets in time had come before the first: one late packet early in a call proves nothing.
const PRIOR_PACKETS: u16 = 64;
/// Beyond the lateness of those, in milliseconds.
const MARGIN_MS: u64 = 5;
/// The quickest packet of the last two to four seconds is what lateness is measured from, so a drifting clock is followed.
const WINDOW_MS: u64 = 2_000;
/// A packet so much quicker or later than the others, in milliseconds, tells of a clock that was set.
const JUMP_MS: u64 = 2_000;

/// See the module.
#[derive(Debug)]
pub struct LatenessMeter {
    clock_hz: u32,
    bins: [u16; BINS],
    counted: u32,
    // Arrival less timestamp of the quickest packet in this window and in the last one.
    quickest: Option<i64>,
    quickest_before: Option<i64>,
    window_began: Duration,
    counted_at: Option<Duration>,
    late: i64,
}

impl LatenessMeter {
    /// Nothing measured yet.
    pub fn new(clock_hz: u32) -> Self {
        let mut bins = [0; BINS];
        if let Some(in_time) = bins.first_mut() {
            *in_time = PRIOR_PACKETS;
        }
        Self {
            clock_hz,
            bins,
            counted: PRIOR_PACKETS.into(),
            quickest: None,
            quickest_before: None,
            window_began: Duration::ZERO,
            counted_at: None,
            late: 0,
        }
    }

    /// Another sender: its clock has nothing to do with the old one's. What the network does is remembered.
    pub fn restart(&mut self) {
        (self.quickest, self.quickest_before) = (None, None);
    }

    /// A packet whose (extended) timestamp is `start` arrived at `now`.
    pub fn take(&mut self, now: Duration, start: i64) {
        let transit = units_in(self.clock_hz, now) - start;
        if now.saturating_sub(self.window_began) >= Duration::from_millis(WINDOW_MS) {
            self.window_began = now;
            self.quickest_before = self.quickest.take();
        }
        let jump = self.units(JUMP_MS);
        if self.base().is_some_and(|base| (transit - base).abs() > jump) {
            self.restart();
        }
        self.quickest = Some(self.quickest.map_or(transit, |quickest| quickest.min(transit)));
        // What was held up together and comes together is one event.
        let is_clump = self.counted_at.is_some_and(|at| now.saturating_sub(at) < Duration::from_millis(BIN_MS));
        if is_clump {
            return;
        }
        self.counted_at = Some(now);
        let lateness = transit - self.base().unwrap_or(transit);
        let bin = usize::try_from(lateness / self.units(BIN_MS).max(1)).unwrap_or(0).min(BINS - 1);
        if let Some(count) = self.bins.get_mut(bin) {
            *count += 1;
            self.counted += 1;
        }
        if self.counted >= FADE_PACKETS {
            self.bins.iter_mut().for_each(|count| *count /= 2);
            self.counted = self.bins.iter().map(|count| u32::from(*count)).sum();
        }
        self.late = self.quantile();
    }

    /// How late all but the latest few packets are.
    pub fn lateness(&self) -> i64 {
        self.late
    }

    /// If the unit `position` is played at `now`, so long after its quickest possible arrival is that; `None` before the first
    /// packet.
    pub fn waited(&self, now: Duration, position: i64) -> Option<i64> {
        self.base().map(|base| units_in(self.clock_hz, now) - position - base)
    }

    fn base(&self) -> Option<i64> {
        self.quickest.into_iter().chain(self.quickest_before).min()
    }

    fn quantile(&self) -> i64 {
        let enough = (self.counted * IN_TIME_PERCENT).div_ceil(100);
        let mut seen = 0;
        let bin = self.bins.iter().position(|count| {
            seen += u32::from(*count);
            seen >= enough
        });
        // A bin's upper end; all in the first bin is no lateness worth waiting for.
        let ms = match bin {
            Some(0) | None => 0,
            Some(bin) => (u64::try_from(bin).unwrap_or(0) + 1) * BIN_MS + MARGIN_MS,
        };
        self.units(ms)
    }

    fn units(&self, ms: u64) -> i64 {
        units_in(self.clock_hz, Duration::from_millis(ms))
    }
}

/// A time in units of a clock.
pub(super) fn units_in(clock_hz: u32, d: Duration) -> i64 {
    i64::try_from(d.as_micros() * u128::from(clock_hz) / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::as_conversions)]
mod tests {
    use super::*;

    fn lateness_ms(meter: &LatenessMeter) -> i64 {
        meter.lateness() / 8
    }

    #[test]
    fn a_steady_line_needs_no_delay_and_a_jittery_one_the_delay_of_its_latest_packets() {
        let mut meter = LatenessMeter::new(8_000);
        let take = |meter: &mut LatenessMeter, n: u64, late: u64| {
            meter.take(Duration::from_millis(20 * n + late), 160 * n as i64);
        };
        (0..300).for_each(|n| take(&mut meter, n, n % 3));
        assert_eq!(lateness_ms(&meter), 0);
        (300..600).for_each(|n| take(&mut meter, n, (n * 7) % 61));
        assert!((60..=70).contains(&lateness_ms(&meter)), "{}", lateness_ms(&meter));
        // A single spike does not count; calm returns within half a minute.
        take(&mut meter, 600, 400);
        assert!(lateness_ms(&meter) <= 70);
        (601..2_100).for_each(|n| take(&mut meter, n, 0));
        assert_eq!(lateness_ms(&meter), 0);
    }

    #[test]
    fn drifting_clocks_and_clocks_that_are_set_are_no_lateness() {
        for ppm in [-200i64, 200] {
            let mut meter = LatenessMeter::new(8_000);
            for n in 0..180_000i64 {
                let micros = (20_000 * n + 20_000 * n * ppm / 1_000_000) as u64;
                meter.take(Duration::from_micros(micros), 160 * n);
            }
            assert_eq!(meter.lateness(), 0, "{ppm}");
        }
        let mut meter = LatenessMeter::new(8_000);
        (0..100u64).for_each(|n| meter.take(Duration::from_millis(20 * n), 160 * n as i64));
        (100..200u64).for_each(|n| meter.take(Duration::from_millis(20 * n), 9_000_000 + 160 * n as i64));
        assert_eq!(meter.lateness(), 0);
        assert_eq!(meter.waited(Duration::from_millis(4_000), 9_000_000 + 160 * 199), Some(160));
    }
}
