//! PURE: provisional responses that must arrive (RFC 3262): ours are repeated until a PRACK comes, theirs are taken in order.

use std::time::Duration;

use super::headers::Headers;

/// RSeq starts in 1..2^31 (RFC 3262 section 3).
const RSEQ_FIRST_LIMIT: u32 = 1 << 31;

/// Does the message list `100rel` in this header field?
pub fn names_100rel(message: &Headers, field: &str) -> bool {
    message.tokens(field).any(|t| t.eq_ignore_ascii_case("100rel"))
}

/// RAck: the response that a PRACK acknowledges (section 7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RAck {
    /// The response's RSeq.
    pub rseq: u32,
    /// Its CSeq number.
    pub cseq: u32,
    /// Its CSeq method.
    pub method: String,
}

impl RAck {
    /// `None`: absent or malformed.
    pub fn of(prack: &Headers) -> Option<Self> {
        let mut words = prack.get("RAck")?.split_ascii_whitespace();
        let (rseq, cseq, method) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
        words.next().is_none().then(|| Self { rseq, cseq, method: method.to_owned() })
    }

    /// As a header field's value.
    pub fn value(&self) -> String {
        format!("{} {} {}", self.rseq, self.cseq, self.method)
    }
}

/// What is due for a response that waits for its PRACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Send it again.
    Repeat,
    /// 64·T1 have passed: the INVITE is to be refused with 504 (section 3).
    GiveUp,
}

/// A reliable provisional response of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unacknowledged {
    rseq: u32,
    invite_cseq: u32,
    repeat_at: Duration,
    interval: Duration,
    give_up_at: Duration,
}

impl Unacknowledged {
    /// Sent first at `now`. `random` gives the RSeq.
    pub fn sent(now: Duration, t1: Duration, invite_cseq: u32, random: u32) -> Self {
        let rseq = (random % (RSEQ_FIRST_LIMIT - 1)) + 1;
        Self { rseq, invite_cseq, repeat_at: now + t1, interval: t1, give_up_at: now + t1 * 64 }
    }

    /// Its RSeq.
    pub fn rseq(&self) -> u32 {
        self.rseq
    }

    /// When to ask [`Unacknowledged::due`] again.
    pub fn next(&self) -> Duration {
        self.repeat_at.min(self.give_up_at)
    }

    /// Retransmission with intervals that double, without T2's limit (section 3).
    pub fn due(&mut self, now: Duration) -> Option<Due> {
        if now >= self.give_up_at {
            return Some(Due::GiveUp);
        }
        if now < self.repeat_at {
            return None;
        }
        self.interval *= 2;
        self.repeat_at = now + self.interval;
        Some(Due::Repeat)
    }

    /// Is it this one that the PRACK acknowledges?
    pub fn matches(&self, rack: &RAck) -> bool {
        rack.rseq == self.rseq && rack.cseq == self.invite_cseq && rack.method == "INVITE"
    }
}

/// What to do with a reliable provisional response to our INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// PRACK it and act on it.
    Next,
    /// Seen before: the PRACK's own transaction repeats itself.
    Again,
    /// One before it is missing: it will be repeated (section 4).
    TooEarly,
}

/// The order of one dialog's reliable responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InOrder {
    last: Option<u32>,
}

impl InOrder {
    /// A response with this RSeq arrived.
    pub fn take(&mut self, rseq: u32) -> Order {
        match self.last {
            Some(last) if rseq <= last => return Order::Again,
            Some(last) if rseq > last.saturating_add(1) => return Order::TooEarly,
            Some(_) | None => {}
        }
        self.last = Some(rseq);
        Order::Next
    }
}

/// RSeq of a response that is sent reliably (`Require: 100rel`).
pub fn rseq_of(response: &Headers) -> Option<u32> {
    if !names_100rel(response, "Require") {
        return None;
    }
    response.get("RSeq")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_repeated_with_doubling_intervals_and_then_given_up() {
        let ms = Duration::from_millis;
        let mut u = Unacknowledged::sent(ms(0), ms(500), 3, 0);
        let mut repeats = Vec::new();
        loop {
            let now = u.next();
            match u.due(now) {
                Some(Due::Repeat) => repeats.push(now.as_millis()),
                Some(Due::GiveUp) => {
                    assert_eq!(now, ms(32_000));
                    break;
                }
                None => panic!("nothing was due at {now:?}"),
            }
        }
        assert_eq!(repeats, [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    }

    #[test]
    fn only_its_own_prack_counts() {
        let u = Unacknowledged::sent(Duration::ZERO, Duration::from_millis(1), 3, 41);
        let rack = |text: &str| RAck::of(&Headers::new().with("RAck", text));
        assert!(u.matches(&rack("42 3 INVITE").unwrap()));
        for other in ["43 3 INVITE", "42 4 INVITE", "42 3 UPDATE"] {
            assert!(!u.matches(&rack(other).unwrap()), "{other}");
        }
        for bad in ["", "42", "42 3", "x 3 INVITE", "42 3 INVITE more", "-1 3 INVITE"] {
            assert_eq!(rack(bad), None, "{bad}");
        }
        assert_eq!(rack("42 3 INVITE").unwrap().value(), "42 3 INVITE");
    }

    #[test]
    fn theirs_are_taken_in_order() {
        let mut o = InOrder::default();
        assert_eq!([7, 7, 9, 8, 9, 6].map(|n| o.take(n)), {
            use Order::{Again, Next, TooEarly};
            [Next, Again, TooEarly, Next, Next, Again]
        });
        let reliable = Headers::new().with("Require", "100rel").with("RSeq", "5");
        assert_eq!(rseq_of(&reliable), Some(5));
        assert_eq!(rseq_of(&Headers::new().with("RSeq", "5")), None);
    }

    proptest! {
        #[test]
        fn an_rseq_is_always_legal(random: u32) {
            let rseq = Unacknowledged::sent(Duration::ZERO, Duration::ZERO, 1, random).rseq();
            prop_assert!((1..RSEQ_FIRST_LIMIT).contains(&rseq));
        }
    }
}
