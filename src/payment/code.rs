//! One-time codes (system 2): six digits that were sent to the payer by another way, good for five minutes and five tries, for one payment
//! only, once. A new one voids the old one. Only a keyed digest is kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::approval::Binding;
use super::request::PaymentRequest;
use crate::clock::{Entropy, Timestamp};
use crate::ids::{CodeId, CustomerId, RequestId};
use crate::secret::SecretBytes;

/// How many digits a code has.
pub const CODE_DIGITS: usize = 6;
/// How long it is good.
pub const CODE_VALID: Duration = Duration::from_secs(5 * 60);
/// How often it may be tried.
pub const CODE_LIMIT_TRIES: u32 = 5;
/// How many codes are sent for one payment in [`CODE_SENT_WINDOW`].
pub const CODE_LIMIT_SENT: u32 = 5;
/// Over which time codes that were sent are counted.
pub const CODE_SENT_WINDOW: Duration = Duration::from_secs(60 * 60);

/// Digit values 0 to 9, uniformly drawn. Not stored, not logged.
pub fn draw(entropy: &dyn Entropy) -> [u8; CODE_DIGITS] {
    let mut digits = [0; CODE_DIGITS];
    let mut filled = 0;
    while filled < CODE_DIGITS {
        // 250 is the largest multiple of ten in a byte: above it some digits would be likelier.
        for byte in entropy.bytes::<16>().into_iter().filter(|b| *b < 250) {
            if let Some(place) = digits.get_mut(filled) {
                *place = byte % 10;
                filled += 1;
            }
        }
    }
    digits
}

/// The digit values of a code as somebody wrote it; `None`: it is not so many digits.
pub fn written(text: &str) -> Option<SecretBytes> {
    let fits = text.len() == CODE_DIGITS && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| SecretBytes::new(text.bytes().map(|b| b.saturating_sub(b'0')).collect()))
}

/// A code as it is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneTimeCode {
    /// Which one.
    pub id: CodeId,
    /// Whom it was sent to.
    pub customer: CustomerId,
    /// Which request it pays.
    pub request: RequestId,
    /// That request's amount, payee and payer.
    pub binding: Binding,
    /// Keyed digest of customer, binding and digits, in hex.
    pub digest: String,
    /// Wrong tries so far.
    pub wrong_tries: u32,
    /// Where it stands.
    pub state: CodeState,
    /// After this it is worth nothing.
    pub expires_at: Timestamp,
    /// When it was sent.
    pub created_at: Timestamp,
    /// Counts changes.
    pub version: u64,
}

impl std::fmt::Debug for OneTimeCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OneTimeCode").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

/// Where a code stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeState {
    /// It may be tried.
    Live,
    /// It was right, once.
    Used,
    /// It was wrong too often.
    Spent,
    /// A newer one took its place.
    Voided,
    /// Nobody used it in time.
    Expired,
}

/// What a try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeChecked {
    /// Right.
    Good,
    /// Wrong; so many tries are left.
    Wrong {
        /// 0: it is spent.
        left: u32,
    },
    /// Too late, used, voided or spent, or for something else: one answer, so that guessing teaches nothing.
    Dead,
}

impl OneTimeCode {
    /// A new one; the digest is of the code that was sent.
    pub fn new(id: CodeId, request: &PaymentRequest, digest: &[u8; 32], now: Timestamp) -> Self {
        Self {
            id,
            customer: request.customer.clone(),
            request: request.id.clone(),
            binding: Binding::of(request),
            digest: hex::encode(digest),
            wrong_tries: 0,
            state: CodeState::Live,
            expires_at: now.plus(CODE_VALID),
            created_at: now,
            version: 0,
        }
    }

    /// Whether it may be tried, time aside.
    pub fn live(&self) -> bool {
        self.state == CodeState::Live
    }

    /// Tries it, for a request, by the digest of what was said or keyed.
    #[must_use]
    pub fn check(mut self, now: Timestamp, request: &PaymentRequest, digest: &[u8; 32]) -> (Self, CodeChecked) {
        if !self.live() || now >= self.expires_at || self.binding != Binding::of(request) {
            return (self, CodeChecked::Dead);
        }
        self.version = self.version.saturating_add(1);
        if bool::from(self.digest.as_bytes().ct_eq(hex::encode(digest).as_bytes())) {
            self.state = CodeState::Used;
            return (self, CodeChecked::Good);
        }
        self.wrong_tries = self.wrong_tries.saturating_add(1);
        let left = CODE_LIMIT_TRIES.saturating_sub(self.wrong_tries);
        if left == 0 {
            self.state = CodeState::Spent;
        }
        (self, CodeChecked::Wrong { left })
    }

    /// It ends without having been used.
    #[must_use]
    pub fn end(mut self, now: Timestamp) -> Self {
        self.state = if now >= self.expires_at { CodeState::Expired } else { CodeState::Voided };
        self.version = self.version.saturating_add(1);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;
    use crate::ids::PayeeId;
    use crate::money::{Currency, Money};
    use crate::payment::{Delivery, RequestStatus};

    fn request(minor: i64) -> PaymentRequest {
        let e = SeededEntropy::new(1);
        PaymentRequest {
            id: RequestId::fresh(&e),
            customer: CustomerId::fresh(&e),
            payee: PayeeId::fresh(&e),
            amount: Money::new(minor, Currency::Usd).unwrap(),
            due: None,
            delivery: Delivery::None,
            expires_at: None,
            status: RequestStatus::Open,
            held_by: None,
            created_at: Timestamp(0),
        }
    }

    fn code() -> OneTimeCode {
        OneTimeCode::new(CodeId::fresh(&SeededEntropy::new(2)), &request(1), &[7; 32], Timestamp(0))
    }

    const LAST: i64 = 5 * 60 * 1_000;

    #[test]
    fn it_is_good_once_and_for_its_own_payment_only() {
        let (used, good) = code().check(Timestamp(1), &request(1), &[7; 32]);
        assert_eq!(good, CodeChecked::Good);
        assert_eq!(used.check(Timestamp(2), &request(1), &[7; 32]).1, CodeChecked::Dead);
        assert_eq!(code().check(Timestamp(1), &request(2), &[7; 32]), (code(), CodeChecked::Dead));
    }

    #[test]
    fn it_dies_after_five_minutes_or_five_wrong_tries() {
        assert_eq!(code().check(Timestamp(LAST - 1), &request(1), &[7; 32]).1, CodeChecked::Good);
        assert_eq!(code().check(Timestamp(LAST), &request(1), &[7; 32]).1, CodeChecked::Dead);
        let mut code = code();
        for left in (0..CODE_LIMIT_TRIES).rev() {
            let (next, checked) = code.check(Timestamp(1), &request(1), &[8; 32]);
            assert_eq!(checked, CodeChecked::Wrong { left });
            code = next;
        }
        assert_eq!((code.state, code.check(Timestamp(1), &request(1), &[7; 32]).1), (CodeState::Spent, CodeChecked::Dead));
    }

    #[test]
    fn one_that_was_voided_is_worth_nothing() {
        let voided = code().end(Timestamp(1));
        assert_eq!(voided.state, CodeState::Voided);
        assert_eq!(voided.check(Timestamp(2), &request(1), &[7; 32]).1, CodeChecked::Dead);
        assert_eq!(code().end(Timestamp(LAST)).state, CodeState::Expired);
    }

    #[test]
    fn digits_are_drawn_evenly() {
        let e = SeededEntropy::new(11);
        let mut counts = [0_u32; 10];
        for _ in 0..10_000 {
            draw(&e).iter().for_each(|d| counts[usize::from(*d)] += 1);
        }
        // 60,000 digits: 6,000 of each, give or take 5 standard deviations of 73.
        assert!(counts.iter().all(|n| (5_630..=6_370).contains(n)), "{counts:?}");
    }

    #[test]
    fn it_prints_nothing_that_helps() {
        assert!(!format!("{:?}", code()).contains("0707"));
    }
}
