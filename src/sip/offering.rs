//! PURE: whose offer is on the table (RFC 3261 section 14, RFC 3311 section 5): one at a time, in either direction. Says what
//! to answer when two cross, and when to try ours again.

use std::time::Duration;

use crate::clock::Entropy;

/// Our own offer is tried so often against crossing ones.
pub const GLARE_TRIES: u32 = 4;
/// Retry-After of a second INVITE while the first is unanswered: 0 to this (RFC 3261 section 14.2).
const RETRY_AFTER_MAX_S: u32 = 10;
/// Waits after 491 come in steps of this (RFC 3261 section 14.1).
const GLARE_STEP_MS: u32 = 10;

/// What is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offering {
    /// An INVITE of theirs has no final answer yet.
    pub their_invite: bool,
    /// A request of theirs carries an offer that we have not answered.
    pub their_offer: bool,
    /// An INVITE of ours has no final answer yet.
    pub our_invite: bool,
    /// An offer of ours has no answer yet: in an INVITE or UPDATE of ours, or in our 2xx to an offerless INVITE.
    pub our_offer: bool,
}

/// What to do with a request of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take it.
    Take,
    /// 491: it crosses ours.
    Pending,
    /// 500 with Retry-After of up to this many seconds: it came before the last one was answered.
    TooSoon {
        /// Drawn by [`retry_after_s`].
        most_s: u32,
    },
}

impl Offering {
    /// May we make an offer?
    pub fn is_free(&self) -> bool {
        *self == Self::default()
    }

    /// A re-INVITE of theirs (section 14.2).
    pub fn invited(&self) -> Verdict {
        match (self.their_invite || self.their_offer, self.our_invite || self.our_offer) {
            (true, _) => Verdict::TooSoon { most_s: RETRY_AFTER_MAX_S },
            (false, true) => Verdict::Pending,
            (false, false) => Verdict::Take,
        }
    }

    /// An UPDATE of theirs; one without an offer disturbs nothing (RFC 3311 section 5.2).
    pub fn updated(&self, has_offer: bool) -> Verdict {
        match (has_offer, self.their_offer, self.our_offer) {
            (false, _, _) => Verdict::Take,
            (true, true, _) => Verdict::TooSoon { most_s: RETRY_AFTER_MAX_S },
            (true, false, true) => Verdict::Pending,
            (true, false, false) => Verdict::Take,
        }
    }
}

/// Seconds for Retry-After.
pub fn retry_after_s(most_s: u32, entropy: &dyn Entropy) -> u32 {
    entropy.below(most_s.saturating_add(1))
}

/// How long our offer waits after 491 (section 14.1). Who made the Call-ID, the caller, waits longer.
pub fn glare_wait(we_called: bool, entropy: &dyn Entropy) -> Duration {
    let (from_ms, to_ms) = if we_called { (2_100, 4_000) } else { (0, 2_000) };
    let steps = (to_ms - from_ms) / GLARE_STEP_MS + 1;
    Duration::from_millis(u64::from(from_ms + entropy.below(steps) * GLARE_STEP_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;
    use proptest::prelude::*;

    #[test]
    fn one_offer_at_a_time() {
        let free = Offering::default();
        assert!(free.is_free());
        assert_eq!((free.invited(), free.updated(true)), (Verdict::Take, Verdict::Take));
        let ours = Offering { our_invite: true, our_offer: true, ..free };
        assert_eq!((ours.invited(), ours.updated(true), ours.updated(false)), {
            (Verdict::Pending, Verdict::Pending, Verdict::Take)
        });
        let theirs = Offering { their_invite: true, their_offer: true, ..free };
        assert!(matches!(theirs.invited(), Verdict::TooSoon { .. }) && matches!(theirs.updated(true), Verdict::TooSoon { .. }));
        assert_eq!(theirs.updated(false), Verdict::Take);
        // Our 200 to an offerless INVITE waits for the answer in its ACK.
        let waiting = Offering { our_offer: true, ..free };
        assert_eq!((waiting.invited(), waiting.updated(true)), (Verdict::Pending, Verdict::Pending));
    }

    proptest! {
        #[test]
        fn waits_lie_where_section_14_1_puts_them(seed: u64) {
            let entropy = SeededEntropy::new(seed);
            let (caller, called) = (glare_wait(true, &entropy).as_millis(), glare_wait(false, &entropy).as_millis());
            prop_assert!((2_100..=4_000).contains(&caller) && caller % 10 == 0);
            prop_assert!((0..=2_000).contains(&called) && called % 10 == 0);
            prop_assert!(retry_after_s(10, &entropy) <= 10);
        }
    }
}
