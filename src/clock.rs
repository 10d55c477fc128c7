//! The one place that reads the wall clock and the system's randomness. Everywhere else both are arguments:
//! `clippy.toml` bans the ways round this file.
#![allow(clippy::disallowed_methods)] // this is the excused file

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Later by `d`, saturating.
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Earlier by `d`, saturating.
    #[must_use]
    pub fn minus(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    /// From RFC 3339, in whatever zone; what is less than a millisecond is dropped.
    pub fn parse(text: &str) -> Option<Self> {
        let at = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
        i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).ok().map(Self)
    }

    /// Time since `earlier`; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use time::macros::format_description;
        let nanos = i128::from(self.0) * 1_000_000;
        let described = time::OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().and_then(|t| {
            t.format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z")).ok()
        });
        match described {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} ms", self.0),
        }
    }
}

/// Where wall-clock time comes from. Deadlines inside a call use tokio's time, which tests pause.
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The wall clock to the nanosecond: what the kernel's time stamps of packets are in, and RTCP's reports.
    pub fn since_1970(self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = self.since_1970();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The system's monotonic clock in microseconds, as the service manager compares it with its own (sd_notify(3), `MONOTONIC_USEC`).
#[allow(unsafe_code)] // the standard library has this clock, but not its number
pub fn monotonic_us() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` lives through the call, which only writes to it; this clock always exists.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) } != 0 {
        return 0;
    }
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000)
}

/// A clock that tests set by hand.
#[derive(Debug, Default)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// Starts at `at`.
    pub fn starting_at(at: Timestamp) -> Self {
        Self(Mutex::new(at))
    }

    /// Moves forward by `d`.
    pub fn advance(&self, d: Duration) {
        let mut now = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *now = now.plus(d);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Where randomness comes from: identifiers, nonces, invitation codes, keys.
pub trait Entropy: Send + Sync {
    /// Fills `out`.
    fn fill(&self, out: &mut [u8]);
}

impl dyn Entropy + '_ {
    /// `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0u8; N];
        self.fill(&mut out);
        out
    }

    /// Uniform in `0..bound` (`bound` ≥ 1), without modulo bias.
    pub fn below(&self, bound: u32) -> u32 {
        let bound = bound.max(1);
        let zone = u32::MAX - u32::MAX % bound;
        loop {
            let n = u32::from_le_bytes(self.bytes());
            if n < zone {
                return n % bound;
            }
        }
    }
}

/// The operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, out: &mut [u8]) {
        use rand::TryRngCore;
        // No randomness means no key, no nonce, no code that could be trusted: there is nothing to go on with.
        if let Err(error) = rand::rngs::OsRng.try_fill_bytes(out) {
            eprintln!("voicepay: the operating system gives no randomness: {error}");
            std::process::abort();
        }
    }
}

/// A seeded generator for tests: the same seed, the same identifiers.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<rand::rngs::StdRng>);

impl SeededEntropy {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        use rand::SeedableRng;
        Self(Mutex::new(rand::rngs::StdRng::seed_from_u64(seed)))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, out: &mut [u8]) {
        use rand::RngCore;
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).fill_bytes(out);
    }
}
