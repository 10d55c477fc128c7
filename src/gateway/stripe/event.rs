//! What a webhook's event tells us: read without I/O. An event only ever names what to ask about, or what to hold against what
//! stands; of types that we don't know, nothing is wanted (https://docs.stripe.com/api/events/types).

use serde::Deserialize;
use serde_json::Value;

use super::declines::plain;
use super::is_id;
use super::wire::{Intent, Refund, Verdict, money};
use crate::gateway::{DisputeNews, DisputeStage, News};
use crate::payment::{BankWord, Operation};

/// A webhook's body.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    /// The same however often it is sent.
    pub(super) id: String,
    #[serde(rename = "type")]
    kind: String,
    data: Data,
}

#[derive(Debug, Deserialize)]
struct Data {
    object: Value,
}

#[derive(Deserialize)]
struct Charge {
    payment_intent: Option<String>,
    refunds: Option<Refunds>,
}

#[derive(Deserialize)]
struct Refunds {
    data: Vec<Refund>,
}

#[derive(Deserialize)]
struct Dispute {
    id: String,
    amount: i64,
    currency: String,
    payment_intent: Option<String>,
    status: String,
    reason: Option<String>,
}

/// A body that was signed and yet makes no sense. Without what it says, which may be anything.
#[derive(Debug, thiserror::Error)]
pub(super) enum EventError {
    #[error("the body is no event of Stripe's")]
    NotAnEvent,
    #[error("an event of type {0} without what belongs to it")]
    Object(String),
    #[error("an event of type {0} with an amount, an identifier or a status that makes no sense")]
    Nonsense(String),
}

impl Event {
    pub(super) fn read(body: &[u8]) -> Result<Self, EventError> {
        let event: Self = serde_json::from_slice(body).map_err(|_| EventError::NotAnEvent)?;
        if is_id(&event.id) { Ok(event) } else { Err(EventError::Nonsense(event.kind())) }
    }

    /// Of which type it is, for a log line.
    pub(super) fn kind(&self) -> String {
        plain(&self.kind)
    }

    /// What is new; nothing for types that mean nothing to us, and for objects that others made in the same account.
    pub(super) fn news(&self) -> Result<Vec<News>, EventError> {
        match self.kind.as_str() {
            "payment_intent.succeeded" | "payment_intent.payment_failed" => Ok(self.of_intent(true)?.into_iter().collect()),
            // Says that a hold is gone, or that something is under way; what it means depends on what we did, so we ask.
            "payment_intent.canceled"
            | "payment_intent.amount_capturable_updated"
            | "payment_intent.processing"
            | "payment_intent.requires_action" => Ok(self.of_intent(false)?.into_iter().collect()),
            "charge.refunded" => {
                let charge: Charge = self.object()?;
                let of = charge.payment_intent.unwrap_or_default();
                charge.refunds.map_or_else(Vec::new, |r| r.data).iter().map(|r| self.of_refund(r, &of)).collect()
            }
            "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => {
                #[derive(Deserialize)]
                struct Of {
                    payment_intent: Option<String>,
                }
                let of: Of = self.object()?;
                Ok(vec![self.of_refund(&self.object()?, &of.payment_intent.unwrap_or_default())?])
            }
            "charge.dispute.created"
            | "charge.dispute.updated"
            | "charge.dispute.closed"
            | "charge.dispute.funds_withdrawn"
            | "charge.dispute.funds_reinstated" => Ok(vec![self.of_dispute()?]),
            _ => Ok(Vec::new()),
        }
    }

    fn object<T: serde::de::DeserializeOwned>(&self) -> Result<T, EventError> {
        T::deserialize(&self.data.object).map_err(|_| EventError::Object(self.kind()))
    }

    fn nonsense(&self) -> EventError {
        EventError::Nonsense(self.kind())
    }

    fn of_intent(&self, tells: bool) -> Result<Option<News>, EventError> {
        let intent: Intent = self.object()?;
        let Some(our_reference) = intent.our_reference() else { return Ok(None) };
        // Whether a charge or an authorisation made it, the event does not say, and after a capture the amounts differ. So the
        // word is only good to see that a yes contradicts a no; how much it was, the API is asked.
        let word = match intent.verdict_of_charge(Operation::Charge) {
            Verdict::Word(word @ (BankWord::Approved { .. } | BankWord::Declined(_))) if tells => word,
            Verdict::Word(_) | Verdict::DeadEnd(_) => BankWord::Silence,
        };
        Ok(Some(News::Operation { our_reference: our_reference.to_owned(), word }))
    }

    fn of_refund(&self, refund: &Refund, of: &str) -> Result<News, EventError> {
        if let Some(our_reference) = refund.our_reference() {
            return Ok(News::Operation { our_reference: our_reference.to_owned(), word: refund.word() });
        }
        let amount = refund.money().ok_or_else(|| self.nonsense())?;
        if !is_id(of) || !is_id(&refund.id) {
            return Err(self.nonsense());
        }
        Ok(News::RefundedElsewhere { gateway_reference: of.to_owned(), refund: refund.id.clone(), amount })
    }

    fn of_dispute(&self) -> Result<News, EventError> {
        let dispute: Dispute = self.object()?;
        let stage = match dispute.status.as_str() {
            // An inquiry (`warning_…`) may become a dispute; one that was closed did not.
            "warning_needs_response" | "warning_under_review" | "needs_response" | "under_review" => DisputeStage::Open,
            "won" | "warning_closed" | "prevented" => DisputeStage::Won,
            "lost" => DisputeStage::Lost,
            _ => return Err(self.nonsense()),
        };
        let amount = money(dispute.amount, &dispute.currency).ok_or_else(|| self.nonsense())?;
        let gateway_reference = dispute.payment_intent.filter(|of| is_id(of)).ok_or_else(|| self.nonsense())?;
        if !is_id(&dispute.id) {
            return Err(self.nonsense());
        }
        let reason = plain(dispute.reason.as_deref().unwrap_or("general"));
        Ok(News::Dispute(DisputeNews { dispute: dispute.id, gateway_reference, amount, reason, stage }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::{Currency, Money};
    use crate::payment::DeclineReason;
    use serde_json::json;

    fn news(kind: &str, object: Value) -> Result<Vec<News>, EventError> {
        let body = json!({ "id": "evt_1", "object": "event", "type": kind, "data": { "object": object } });
        Event::read(body.to_string().as_bytes())?.news()
    }

    fn operation(word: BankWord) -> News {
        News::Operation { our_reference: "att_1".into(), word }
    }

    fn usd(minor: i64) -> Money {
        Money::new(minor, Currency::Usd).unwrap()
    }

    #[test]
    fn payment_intents_name_our_reference_and_only_a_clear_word_is_passed_on() {
        let intent = |status: &str| {
            json!({ "id": "pi_1", "status": status, "amount": 1999, "amount_received": 1999, "currency": "usd",
                "last_payment_error": { "decline_code": "lost_card" }, "metadata": { "our_reference": "att_1" } })
        };
        let paid = BankWord::Approved { charged: usd(1999), gateway_reference: "pi_1".into() };
        assert_eq!(news("payment_intent.succeeded", intent("succeeded")).unwrap(), [operation(paid)]);
        let lost = operation(BankWord::Declined(DeclineReason::LostOrStolen));
        assert_eq!(news("payment_intent.payment_failed", intent("requires_payment_method")).unwrap(), [lost]);
        assert_eq!(news("payment_intent.canceled", intent("canceled")).unwrap(), [operation(BankWord::Silence)]);
        assert_eq!(news("payment_intent.succeeded", intent("processing")).unwrap(), [operation(BankWord::Silence)]);
        let foreign = json!({ "id": "pi_2", "status": "succeeded", "amount": 5, "currency": "chf" });
        assert_eq!(news("payment_intent.succeeded", foreign).unwrap(), [], "somebody else's, in the same account");
        assert_eq!(news("customer.created", json!(null)).unwrap(), []);
    }

    #[test]
    fn refunds_are_ours_or_somebody_elses() {
        let ours = json!({ "id": "re_1", "amount": 500, "currency": "usd", "status": "succeeded",
            "metadata": { "our_reference": "att_1" } });
        let theirs = json!({ "id": "re_2", "amount": 700, "currency": "usd", "status": "succeeded", "payment_intent": "pi_1" });
        let word = BankWord::Approved { charged: usd(500), gateway_reference: "re_1".into() };
        let elsewhere = News::RefundedElsewhere { gateway_reference: "pi_1".into(), refund: "re_2".into(), amount: usd(700) };
        let charge = json!({ "payment_intent": "pi_1", "refunds": { "data": [ours.clone(), theirs.clone()] } });
        assert_eq!(news("charge.refunded", charge).unwrap(), [operation(word.clone()), elsewhere.clone()]);
        assert_eq!(news("refund.updated", ours).unwrap(), [operation(word)]);
        assert_eq!(news("refund.created", theirs).unwrap(), [elsewhere]);
        assert_eq!(
            news("charge.refunded", json!({ "payment_intent": "pi_1" })).unwrap(),
            [],
            "newer versions of the API list none"
        );
    }

    #[test]
    fn disputes_are_opened_won_and_lost() {
        let dispute = |status: &str| {
            json!({ "id": "dp_1", "amount": 1999, "currency": "usd", "payment_intent": "pi_1", "status": status,
                "reason": "product_not_received" })
        };
        for (kind, status, stage) in [
            ("charge.dispute.created", "needs_response", DisputeStage::Open),
            ("charge.dispute.updated", "under_review", DisputeStage::Open),
            ("charge.dispute.closed", "won", DisputeStage::Won),
            ("charge.dispute.closed", "warning_closed", DisputeStage::Won),
            ("charge.dispute.closed", "lost", DisputeStage::Lost),
        ] {
            let told = DisputeNews {
                dispute: "dp_1".into(),
                gateway_reference: "pi_1".into(),
                amount: usd(1999),
                reason: "product_not_received".into(),
                stage,
            };
            assert_eq!(news(kind, dispute(status)).unwrap(), [News::Dispute(told)]);
        }
        assert!(matches!(news("charge.dispute.closed", dispute("brand_new")), Err(EventError::Nonsense(_))));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(matches!(Event::read(b"[]"), Err(EventError::NotAnEvent)));
        assert!(matches!(news("payment_intent.succeeded", json!({ "id": 1 })), Err(EventError::Object(_))));
        let negative = json!({ "id": "dp_1", "amount": -1, "currency": "usd", "payment_intent": "pi_1", "status": "lost" });
        assert!(matches!(news("charge.dispute.closed", negative), Err(EventError::Nonsense(_))));
        let path = json!({ "id": "re_2", "amount": 7, "currency": "usd", "status": "succeeded", "payment_intent": "pi_1/../x" });
        assert!(news("refund.created", path).is_err());
        let body = json!({ "id": "evt 1", "type": "x", "data": { "object": {} } });
        assert!(Event::read(body.to_string().as_bytes()).is_err());
    }
}
