//! PURE. Tokens that refill with time: how much somebody may ask of us in the long run, and how much at once.

use std::time::Duration;

/// How fast tokens come back, and how many can be had at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Refilled each second.
    pub per_s: f64,
    /// The most that may be saved up.
    pub burst: f64,
}

/// Tokens that refill with time, which is counted from any moment that stays the same.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// Full.
    pub fn full(rate: Rate) -> Self {
        Self { tokens: rate.burst, at: Duration::ZERO }
    }

    /// Takes one, if there is one. Time that goes backwards counts as none.
    pub fn take(&mut self, now: Duration, rate: Rate) -> bool {
        self.tokens = self.after(now, rate);
        self.at = self.at.max(now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Whether nothing is missing.
    pub fn is_full(&self, now: Duration, rate: Rate) -> bool {
        self.after(now, rate) >= rate.burst
    }

    /// Whole tokens that are there since the last was asked for.
    pub fn left(&self) -> u64 {
        Duration::from_secs_f64(self.tokens).as_secs()
    }

    /// After how many seconds, the begun one counted, there will be so many.
    pub fn seconds_until(&self, tokens: f64, rate: Rate) -> u64 {
        Duration::from_secs_f64(((tokens - self.tokens) / rate.per_s).max(0.0)).as_secs().saturating_add(1)
    }

    fn after(&self, now: Duration, rate: Rate) -> f64 {
        (self.tokens + now.saturating_sub(self.at).as_secs_f64() * rate.per_s).min(rate.burst)
    }
}
