//! Mandates (system 2): after a first payment the payer may agree that the same payee is paid again from the same card without saying its
//! number, up to a cap, by a one-time code. Another card or payee is another thing: then the whole way is gone again.

use serde::{Deserialize, Serialize};

use super::intent::Occasion;
use super::request::PaymentRequest;
use crate::clock::Timestamp;
use crate::ids::{CardId, CustomerId, IntentId, MandateId, PayeeId};
use crate::money::Money;

/// What stands for the card number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mandate {
    /// Which one.
    pub id: MandateId,
    /// Who pays.
    pub customer: CustomerId,
    /// From which card.
    pub card: CardId,
    /// To whom.
    pub payee: PayeeId,
    /// No single payment above this, and none in another currency.
    pub cap: Money,
    /// The first payment.
    pub first: IntentId,
    /// By what the payer agreed to it.
    pub consent: Occasion,
    /// Which wording the payer agreed to; empty: made before that was kept.
    #[serde(default)]
    pub wording: String,
    /// When it was revoked, if so.
    pub revoked_at: Option<Timestamp>,
    /// When the payer agreed to it.
    pub created_at: Timestamp,
    /// Counts changes.
    pub version: u64,
}

impl Mandate {
    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.revoked_at.is_none()
    }

    /// Whether it stands for the card number in this payment. Whether the card may be charged is another question.
    pub fn covers(&self, request: &PaymentRequest) -> bool {
        self.holds()
            && self.customer == request.customer
            && self.payee == request.payee
            && self.cap.currency == request.amount.currency
            && request.amount.minor.get() <= self.cap.minor.get()
    }

    /// The payer, or an operator, takes it back.
    #[must_use]
    pub fn revoke(mut self, now: Timestamp) -> Self {
        if self.holds() {
            self.revoked_at = Some(now);
            self.version = self.version.saturating_add(1);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;
    use crate::ids::{CallId, RequestId};
    use crate::money::Currency;
    use crate::payment::{Delivery, RequestStatus};

    #[test]
    fn it_covers_the_same_payee_up_to_its_cap_until_revoked() {
        let e = SeededEntropy::new(1);
        let usd = |minor| Money::new(minor, Currency::Usd).unwrap();
        let (customer, payee) = (CustomerId::fresh(&e), PayeeId::fresh(&e));
        let mandate = Mandate {
            id: MandateId::fresh(&e),
            customer: customer.clone(),
            card: CardId::fresh(&e),
            payee: payee.clone(),
            cap: usd(2_000),
            first: IntentId::fresh(&e),
            consent: CallId::fresh(&e).into(),
            wording: "1".into(),
            revoked_at: None,
            created_at: Timestamp(0),
            version: 0,
        };
        let request = PaymentRequest {
            id: RequestId::fresh(&e),
            customer,
            payee,
            amount: usd(2_000),
            due: None,
            delivery: Delivery::None,
            expires_at: None,
            status: RequestStatus::Open,
            held_by: None,
            created_at: Timestamp(0),
        };
        assert!(mandate.covers(&request));
        for other in [
            PaymentRequest { amount: usd(2_001), ..request.clone() },
            PaymentRequest { amount: Money::new(2_000, Currency::Eur).unwrap(), ..request.clone() },
            PaymentRequest { payee: PayeeId::fresh(&e), ..request.clone() },
            PaymentRequest { customer: CustomerId::fresh(&e), ..request.clone() },
        ] {
            assert!(!mandate.covers(&other));
        }
        let revoked = mandate.revoke(Timestamp(1));
        assert!(!revoked.covers(&request));
        assert_eq!(revoked.clone().revoke(Timestamp(2)), revoked);
    }
}
