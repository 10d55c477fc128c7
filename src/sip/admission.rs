//! PURE: whether there is room for one more call. Limits in all, per trunk, per second, per calling and called number; what is
//! refused is counted by reason. Time is an argument: a `Duration` since any fixed moment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::signalling::Refusal;

/// Why a call was refused before anybody heard of it. Each has its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The service is about to stop.
    Draining,
    /// The caller's address is on no trunk.
    UnknownPeer,
    /// SIP in plain text where TLS is needed.
    Plaintext,
    /// No SRTP where it is needed.
    NoSrtp,
    /// Asked for a password; callers come again with it.
    Challenged,
    /// A wrong or repeated password.
    WrongPassword,
    /// Too many wrong passwords from there.
    LockedOut,
    /// `sip.max_calls`.
    Calls,
    /// `sip.max_calls_per_s`.
    CallsPerSecond,
    /// The trunk's `max_calls`.
    TrunkCalls,
    /// The trunk's `max_calls_per_s`.
    TrunkCallsPerSecond,
    /// `sip.max_calls_per_caller`.
    Caller,
    /// `sip.max_calls_per_called`.
    Called,
    /// The rest of the house has no room: its queue is full, or no RTP port is free.
    Resources,
    /// The offer can't be answered.
    Offer,
    /// The caller's number is not signed, or the signature does not hold, and `sip.stir.mode` is `require`.
    Unsigned,
}

impl Reason {
    /// All, in the order of their counters.
    pub const ALL: [Self; 16] = [
        Self::Draining,
        Self::UnknownPeer,
        Self::Plaintext,
        Self::NoSrtp,
        Self::Challenged,
        Self::WrongPassword,
        Self::LockedOut,
        Self::Calls,
        Self::CallsPerSecond,
        Self::TrunkCalls,
        Self::TrunkCallsPerSecond,
        Self::Caller,
        Self::Called,
        Self::Resources,
        Self::Offer,
        Self::Unsigned,
    ];

    /// As metrics and logs name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::UnknownPeer => "unknown_peer",
            Self::Plaintext => "plaintext",
            Self::NoSrtp => "no_srtp",
            Self::Challenged => "challenged",
            Self::WrongPassword => "wrong_password",
            Self::LockedOut => "locked_out",
            Self::Calls => "calls",
            Self::CallsPerSecond => "calls_per_second",
            Self::TrunkCalls => "trunk_calls",
            Self::TrunkCallsPerSecond => "trunk_calls_per_second",
            Self::Caller => "caller",
            Self::Called => "called",
            Self::Resources => "resources",
            Self::Offer => "offer",
            Self::Unsigned => "unsigned",
        }
    }
}

/// How often each reason refused a call. Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub struct RefusalCounts(Arc<[AtomicU64; Reason::ALL.len()]>);

impl RefusalCounts {
    /// One more.
    pub fn count(&self, reason: Reason) {
        if let Some((_, counter)) = Reason::ALL.iter().zip(self.0.iter()).find(|(r, _)| **r == reason) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reason and count, all of them.
    pub fn all(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.0.iter().map(|c| c.load(Ordering::Relaxed)))
    }
}

/// A refusal and what it is counted as.
#[derive(Clone, Debug)]
pub struct Refused {
    /// For the counters.
    pub reason: Reason,
    /// For the caller.
    pub refusal: Refusal,
}

impl Refused {
    /// Of this reason.
    pub fn new(reason: Reason, refusal: Refusal) -> Self {
        Self { reason, refusal }
    }
}

/// `sip.max_calls…`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At a time.
    pub calls: usize,
    /// New ones a second.
    pub calls_per_s: u32,
    /// At a time from one number; 0: no limit.
    pub per_caller: usize,
    /// At a time to one number; 0: no limit.
    pub per_called: usize,
    /// What Retry-After says, in seconds.
    pub retry_after_s: u32,
}

/// One who asks to come in.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Its trunk's name; empty for callers on no trunk.
    pub trunk: &'a str,
    /// The trunk's calls at a time; 0: no limit of its own.
    pub trunk_calls: usize,
    /// The trunk's new calls a second; 0: no limit of its own.
    pub trunk_calls_per_s: u32,
    /// The caller's number; `None` where it is withheld.
    pub caller: Option<&'a str>,
    /// The called number.
    pub called: &'a str,
}

/// What a call that is up holds; give it back to `leave`.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    trunk: String,
    caller: Option<String>,
    called: String,
}

/// Who is in. Its tables hold an entry a call at most, and one a trunk.
#[derive(Debug, Default)]
pub struct Admission {
    up: usize,
    rate: Bucket,
    trunks: HashMap<String, Line>,
    callers: HashMap<String, usize>,
    called: HashMap<String, usize>,
}

#[derive(Debug, Default)]
struct Line {
    up: usize,
    rate: Bucket,
}

impl Admission {
    /// Lets a call in, or says why not. A call that is refused costs nobody anything.
    pub fn enter(&mut self, now: Duration, limits: &Limits, ask: &Ask<'_>) -> Result<Ticket, Refused> {
        let busy =
            |reason, retry_after_s: u32| Refused::new(reason, Refusal::new(503).with("Retry-After", retry_after_s.to_string()));
        if self.up >= limits.calls {
            return Err(busy(Reason::Calls, limits.retry_after_s));
        }
        let line = self.trunks.entry(ask.trunk.to_owned()).or_default();
        if ask.trunk_calls > 0 && line.up >= ask.trunk_calls {
            return Err(busy(Reason::TrunkCalls, limits.retry_after_s));
        }
        // 486 rather than 503: elsewhere it would be no better, and a proxy should not try.
        let crowded = |table: &HashMap<String, usize>, number: &str, limit: usize| {
            limit > 0 && table.get(number).is_some_and(|n| *n >= limit)
        };
        if ask.caller.is_some_and(|c| crowded(&self.callers, c, limits.per_caller)) {
            return Err(Refused::new(Reason::Caller, Refusal::new(486).warning(399, "this number has other calls here")));
        }
        if crowded(&self.called, ask.called, limits.per_called) {
            return Err(Refused::new(Reason::Called, Refusal::new(486).warning(399, "the called number has no free line")));
        }
        // A bucket refills within a second.
        if !self.rate.has(now, limits.calls_per_s) {
            return Err(busy(Reason::CallsPerSecond, 1));
        }
        if ask.trunk_calls_per_s > 0 && !line.rate.has(now, ask.trunk_calls_per_s) {
            return Err(busy(Reason::TrunkCallsPerSecond, 1));
        }
        self.rate.take();
        if ask.trunk_calls_per_s > 0 {
            line.rate.take();
        }
        self.up += 1;
        line.up += 1;
        let ticket = Ticket {
            trunk: ask.trunk.to_owned(),
            caller: ask.caller.filter(|_| limits.per_caller > 0).map(str::to_owned),
            called: if limits.per_called > 0 { ask.called.to_owned() } else { String::new() },
        };
        for (table, number) in [(&mut self.callers, ticket.caller.as_ref()), (&mut self.called, Some(&ticket.called))] {
            if let Some(number) = number.filter(|n| !n.is_empty()) {
                *table.entry(number.clone()).or_default() += 1;
            }
        }
        Ok(ticket)
    }

    /// A call is over.
    pub fn leave(&mut self, ticket: Ticket) {
        self.up = self.up.saturating_sub(1);
        if let Some(line) = self.trunks.get_mut(&ticket.trunk) {
            line.up = line.up.saturating_sub(1);
        }
        for (table, number) in [(&mut self.callers, ticket.caller), (&mut self.called, Some(ticket.called))] {
            if let Some(number) = number
                && let Some(count) = table.get_mut(&number)
            {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    table.remove(&number);
                }
            }
        }
    }

    /// Calls that are up.
    pub fn calls(&self) -> usize {
        self.up
    }

    /// Calls that are up on each trunk that has had any; the empty name stands for callers on no trunk.
    pub fn calls_by_trunk(&self) -> impl Iterator<Item = (&str, usize)> {
        self.trunks.iter().map(|(name, line)| (name.as_str(), line.up))
    }
}

/// A token bucket that holds a second's worth and starts full.
#[derive(Debug, Default)]
struct Bucket {
    /// Millionths of a token; `None` before the first use.
    level: Option<u64>,
    filled: Duration,
}

const TOKEN: u64 = 1_000_000;

impl Bucket {
    /// Refills, and says whether there is a token.
    fn has(&mut self, now: Duration, per_s: u32) -> bool {
        let full = u64::from(per_s).saturating_mul(TOKEN);
        let passed = u64::try_from(now.saturating_sub(self.filled).as_micros()).unwrap_or(u64::MAX);
        // One token a second is one millionth a microsecond.
        let gained = passed.saturating_mul(u64::from(per_s));
        let level = self.level.map_or(full, |l| l.saturating_add(gained).min(full));
        self.level = Some(level);
        self.filled = now; // a clock that was put back gives nothing once, not for ever
        level >= TOKEN
    }

    fn take(&mut self) {
        self.level = self.level.map(|l| l.saturating_sub(TOKEN));
    }
}

/// The one `Admission` of a running service, shared by its calls.
#[derive(Clone, Debug, Default)]
pub struct Turnstile(Arc<Mutex<Admission>>);

/// A call's place; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    turnstile: Turnstile,
    ticket: Option<Ticket>,
}

impl Turnstile {
    /// As `Admission::enter`.
    pub fn enter(&self, now: Duration, limits: &Limits, ask: &Ask<'_>) -> Result<Place, Refused> {
        let ticket = self.with(|a| a.enter(now, limits, ask))?;
        Ok(Place { turnstile: self.clone(), ticket: Some(ticket) })
    }

    /// Looks at it, or changes it; short, since calls wait for it.
    pub fn with<T>(&self, look: impl FnOnce(&mut Admission) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.turnstile.with(|a| a.leave(ticket));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { calls: 3, calls_per_s: 100, per_caller: 0, per_called: 0, retry_after_s: 30 };
    const ANN: Ask<'_> = Ask { trunk: "a", trunk_calls: 0, trunk_calls_per_s: 0, caller: Some("+441"), called: "+449" };

    fn reason(refused: Result<Ticket, Refused>) -> (Reason, u16, Option<String>) {
        let refused = refused.unwrap_err();
        (refused.reason, refused.refusal.status, refused.refusal.headers.get("Retry-After").map(str::to_owned))
    }

    #[test]
    fn a_place_that_is_given_back_is_free() {
        let mut a = Admission::default();
        let now = Duration::ZERO;
        let first = a.enter(now, &LIMITS, &ANN).unwrap();
        let _others = [a.enter(now, &LIMITS, &ANN).unwrap(), a.enter(now, &LIMITS, &ANN).unwrap()];
        assert_eq!(reason(a.enter(now, &LIMITS, &ANN)), (Reason::Calls, 503, Some("30".into())));
        a.leave(first);
        assert_eq!(a.calls(), 2);
        a.enter(now, &LIMITS, &ANN).unwrap();
    }

    #[test]
    fn a_trunk_has_its_own_limit_and_leaves_room_for_others() {
        let mut a = Admission::default();
        let small = Ask { trunk_calls: 1, ..ANN };
        a.enter(Duration::ZERO, &LIMITS, &small).unwrap();
        assert_eq!(reason(a.enter(Duration::ZERO, &LIMITS, &small)).0, Reason::TrunkCalls);
        a.enter(Duration::ZERO, &LIMITS, &Ask { trunk: "b", ..small }).unwrap();
        assert_eq!(a.calls_by_trunk().map(|(_, n)| n).sum::<usize>(), 2);
    }

    #[test]
    fn numbers_have_limits_and_withheld_ones_have_none() {
        let mut a = Admission::default();
        let limits = Limits { per_caller: 1, per_called: 2, ..LIMITS };
        let ticket = a.enter(Duration::ZERO, &limits, &ANN).unwrap();
        assert_eq!(reason(a.enter(Duration::ZERO, &limits, &ANN)), (Reason::Caller, 486, None));
        a.enter(Duration::ZERO, &limits, &Ask { caller: None, ..ANN }).unwrap();
        assert_eq!(reason(a.enter(Duration::ZERO, &limits, &Ask { caller: None, ..ANN })).0, Reason::Called);
        a.leave(ticket);
        a.enter(Duration::ZERO, &limits, &ANN).unwrap();
    }

    #[test]
    fn a_second_brings_a_second_s_worth_of_calls() {
        let mut a = Admission::default();
        let limits = Limits { calls: 1_000, calls_per_s: 10, ..LIMITS };
        let mut at = |ms| {
            let now = Duration::from_millis(ms);
            (0..100).take_while(|_| a.enter(now, &limits, &ANN).is_ok()).count()
        };
        assert_eq!(at(5_000), 10, "a full bucket at first");
        assert_eq!(at(5_000), 0);
        assert_eq!(at(5_100), 1);
        assert_eq!(at(5_350), 2);
        assert_eq!(at(5_400), 1, "what was left of a token counts on");
        assert_eq!(at(90_000), 10, "no more than a second's worth");
        assert_eq!(at(1_000), 0, "a clock that went back gives nothing");
    }

    #[test]
    fn a_trunk_s_rate_is_its_own_and_a_refused_call_costs_nothing() {
        let mut a = Admission::default();
        let limits = Limits { calls: 1_000, calls_per_s: 3, ..LIMITS };
        let slow = Ask { trunk_calls_per_s: 1, ..ANN };
        a.enter(Duration::ZERO, &limits, &slow).unwrap();
        assert_eq!(reason(a.enter(Duration::ZERO, &limits, &slow)).0, Reason::TrunkCallsPerSecond);
        for _ in 0..2 {
            a.enter(Duration::ZERO, &limits, &Ask { trunk: "b", ..ANN }).unwrap();
        }
        assert_eq!(
            reason(a.enter(Duration::ZERO, &limits, &Ask { trunk: "b", ..ANN })),
            (Reason::CallsPerSecond, 503, Some("1".into()))
        );
    }

    #[test]
    fn a_dropped_place_is_given_back_and_reasons_are_counted() {
        let turnstile = Turnstile::default();
        let place = turnstile.enter(Duration::ZERO, &LIMITS, &ANN).unwrap();
        assert_eq!(turnstile.with(|a| a.calls()), 1);
        drop(place);
        assert_eq!(turnstile.with(|a| a.calls()), 0);
        let counts = RefusalCounts::default();
        Reason::ALL.into_iter().for_each(|r| counts.clone().count(r));
        counts.count(Reason::Offer);
        let all: Vec<_> = counts.all().collect();
        assert!(all.iter().all(|(r, n)| *n == if *r == Reason::Offer { 2 } else { 1 }));
        let names: std::collections::HashSet<_> = all.iter().map(|(r, _)| r.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        let told = include_str!("../../docs/TRUNKS.md");
        assert!(names.iter().all(|n| told.contains(&format!("`{n}`"))), "docs/TRUNKS.md lacks one of {names:?}");
    }

    proptest! {
        #[test]
        fn tables_hold_no_more_than_calls(steps in prop::collection::vec((0u64..50, 0u8..5, 0u8..3, any::<bool>()), 0..200)) {
            let mut a = Admission::default();
            let limits = Limits { calls: 8, calls_per_s: 50, per_caller: 2, per_called: 3, retry_after_s: 1 };
            let (mut now, mut up) = (Duration::ZERO, Vec::new());
            for (ms, caller, called, leaves) in steps {
                now += Duration::from_millis(ms);
                if leaves && !up.is_empty() {
                    a.leave(up.remove(0));
                }
                let (caller, called) = (caller.to_string(), called.to_string());
                up.extend(a.enter(now, &limits, &Ask { caller: Some(&caller), called: &called, ..ANN }));
                prop_assert_eq!(a.calls(), up.len());
                prop_assert!(up.len() <= 8 && a.callers.values().all(|n| *n <= 2) && a.called.values().all(|n| *n <= 3));
                prop_assert_eq!(a.callers.values().sum::<usize>(), up.len());
            }
            up.into_iter().for_each(|t| a.leave(t));
            prop_assert!(a.callers.is_empty() && a.called.is_empty() && a.calls() == 0);
        }
    }
}
