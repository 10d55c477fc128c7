//! PURE. How much one source may ask of us, and all together: token buckets in a table of fixed size, and requests that came
//! by two ways (RFC 3261 section 8.2.2.2).

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::screen::Opening;
use super::secret::WireSecret;
use crate::bucket::{Bucket, Rate};

/// Sources that are told apart. More share buckets, by a hash that nobody outside can aim.
const SOURCE_SLOTS: usize = 4_096;
/// Requests outside dialogs that are remembered for comparing.
const OPENING_LIMIT: usize = 8_192;

/// The limits of a wire.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// New requests outside dialogs, of everybody; beyond it 503.
    pub opening: Rate,
    /// The same of one source, so that it can't take everybody's share.
    pub opening_per_source: Rate,
    /// What is under way (in-dialog requests, ACK, CANCEL, responses), of one source; beyond it dropped.
    pub within_per_source: Rate,
    /// "Not now" (482, 503, 513) to one source: who keeps to the grammar is told, so that he doesn't repeat himself.
    pub refusals_per_source: Rate,
    /// Answers to what is malformed, to one source; beyond it silence.
    pub answers_per_source: Rate,
    /// The same to everybody: sources can be forged, and nobody is to be flooded by way of us.
    pub answers: Rate,
}

impl Limits {
    /// Of a service that takes `opening_per_s` new requests a second.
    pub fn of(opening_per_s: u32) -> Self {
        let rate = |per_s: f64, burst: f64| Rate { per_s, burst };
        let opening = f64::from(opening_per_s.max(1));
        Self {
            opening: rate(opening, opening),
            opening_per_source: rate(opening * 0.75, opening * 0.75),
            within_per_source: rate(opening * 8.0, opening * 8.0),
            refusals_per_source: rate(opening, opening),
            answers_per_source: rate(50.0, 200.0),
            answers: rate(500.0, 1_000.0),
        }
    }
}

/// What the limits say to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Go on.
    Yes,
    /// A new request that comes at a bad time.
    Busy,
    /// Too much of what nobody may answer.
    No,
}

/// The buckets, in a table of fixed size.
#[derive(Debug)]
pub struct Meter {
    limits: Limits,
    opening: Bucket,
    answers: Bucket,
    sources: Vec<Source>,
}

#[derive(Clone, Copy, Debug)]
struct Source {
    opening: Bucket,
    within: Bucket,
    refusals: Bucket,
    answers: Bucket,
}

impl Meter {
    /// All buckets full.
    pub fn new(limits: Limits) -> Self {
        let source = Source {
            opening: Bucket::full(limits.opening_per_source),
            within: Bucket::full(limits.within_per_source),
            refusals: Bucket::full(limits.refusals_per_source),
            answers: Bucket::full(limits.answers_per_source),
        };
        Self {
            limits,
            opening: Bucket::full(limits.opening),
            answers: Bucket::full(limits.answers),
            sources: vec![source; SOURCE_SLOTS],
        }
    }

    fn source(&mut self, ip: IpAddr, secret: &WireSecret) -> Option<&mut Source> {
        // A subscriber has an IPv6 network of 64 bits, not an address.
        let slot = match ip.to_canonical() {
            IpAddr::V4(v4) => secret.slot(&v4.octets(), SOURCE_SLOTS),
            IpAddr::V6(v6) => secret.slot(v6.octets().get(..8).unwrap_or(&[]), SOURCE_SLOTS),
        };
        self.sources.get_mut(slot)
    }

    /// May this well-formed message go on?
    pub fn message(&mut self, now: Duration, ip: IpAddr, opens: bool, secret: &WireSecret) -> Allowed {
        let limits = self.limits;
        let Some(source) = self.source(ip, secret) else { return Allowed::Yes };
        if !opens {
            return if source.within.take(now, limits.within_per_source) { Allowed::Yes } else { Allowed::No };
        }
        // In this order: a source over its own share takes nothing of everybody's.
        if source.opening.take(now, limits.opening_per_source) && self.opening.take(now, limits.opening) {
            Allowed::Yes
        } else {
            Allowed::Busy
        }
    }

    /// May we tell this source that its message, though well-formed, comes at a bad time?
    pub fn refusal(&mut self, now: Duration, ip: IpAddr, secret: &WireSecret) -> bool {
        let limits = self.limits;
        self.source(ip, secret).is_none_or(|s| s.refusals.take(now, limits.refusals_per_source))
    }

    /// May we tell this source that its message is malformed?
    pub fn answer(&mut self, now: Duration, ip: IpAddr, secret: &WireSecret) -> bool {
        let limits = self.limits;
        let own = self.source(ip, secret).is_none_or(|s| s.answers.take(now, limits.answers_per_source));
        own && self.answers.take(now, limits.answers)
    }
}

/// Requests outside dialogs of the last while.
#[derive(Debug)]
pub struct Openings {
    /// How long a request is remembered.
    window: Duration,
    by_request: HashMap<String, (String, Duration)>,
    order: VecDeque<(String, Duration)>,
}

impl Openings {
    /// Remembers requests for `window`.
    pub fn new(window: Duration) -> Self {
        Self { window, by_request: HashMap::new(), order: VecDeque::new() }
    }

    /// True if the same request came by another way: same Call-ID, From tag and CSeq, but another transaction.
    pub fn is_merged(&mut self, now: Duration, opening: &Opening) -> bool {
        while let Some((_, at)) = self.order.front() {
            if self.order.len() < OPENING_LIMIT && now.saturating_sub(*at) <= self.window {
                break;
            }
            if let Some((request, at)) = self.order.pop_front()
                && self.by_request.get(&request).is_some_and(|(_, kept)| *kept == at)
            {
                self.by_request.remove(&request);
            }
        }
        match self.by_request.get(&opening.request) {
            Some((transaction, _)) => *transaction != opening.transaction,
            None => {
                self.by_request.insert(opening.request.clone(), (opening.transaction.clone(), now));
                self.order.push_back((opening.request.clone(), now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn a_source_over_its_share_leaves_the_others_theirs() {
        let secret = WireSecret::new(&SeededEntropy::new(1));
        let mut meter = Meter::new(Limits::of(100));
        let at = Duration::from_secs(1);
        let of_a = (0..1_000).filter(|_| meter.message(at, A, true, &secret) == Allowed::Yes).count();
        let of_b = (0..1_000).filter(|_| meter.message(at, B, true, &secret) == Allowed::Yes).count();
        assert_eq!((of_a, of_b), (75, 25));
        assert_eq!(meter.message(at, A, false, &secret), Allowed::Yes, "what is under way goes on");
        let later = at + Duration::from_millis(100);
        assert_eq!((0..100).filter(|_| meter.message(later, A, true, &secret) == Allowed::Yes).count(), 7);
        assert_eq!((0..5_000).filter(|_| meter.answer(at, A, &secret)).count(), 200);
        assert_eq!((0..5_000).filter(|_| meter.refusal(at, A, &secret)).count(), 100);
    }

    #[test]
    fn a_request_by_two_ways_is_merged_and_one_repeated_is_not() {
        let mut openings = Openings::new(Duration::from_secs(16));
        let at = Duration::from_secs(5);
        let one = Opening { request: "c\nf\n1 INVITE".into(), transaction: "b1".into() };
        let other_way = Opening { transaction: "b2".into(), ..one.clone() };
        assert!(!openings.is_merged(at, &one));
        assert!(!openings.is_merged(at, &one), "a retransmission");
        assert!(openings.is_merged(at, &other_way));
        assert!(!openings.is_merged(at + Duration::from_secs(17), &other_way), "forgotten by then");
        for i in 0..OPENING_LIMIT * 2 {
            openings.is_merged(at, &Opening { request: i.to_string(), transaction: String::new() });
        }
        assert!(openings.by_request.len() <= OPENING_LIMIT && openings.order.len() <= OPENING_LIMIT);
    }
}
