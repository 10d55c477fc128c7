//! What Stripe's answers say, read without I/O. Unknown fields are ignored; what is missing or makes no sense says nothing, and
//! nothing is ever taken for a success but a status that is one.
//!
//! Sources: https://docs.stripe.com/api/payment_intents/object, /refunds/object, /errors; statuses:
//! https://docs.stripe.com/payments/paymentintents/lifecycle.

use std::collections::HashMap;

use hyper::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::declines;
use crate::money::{Currency, Money};
use crate::payment::{BankWord, DeclineReason, Operation};

/// Where our reference stands in the metadata of payment intents and refunds.
pub(super) const OUR_REFERENCE: &str = "our_reference";
/// Where the reference of a capture stands in the metadata of what it captures.
pub(super) const CAPTURE_REFERENCE: &str = "capture_reference";
/// Why a payment intent was cancelled, when it could not go on without the cardholder at a screen.
pub(super) const ABANDONED: &str = "abandoned";

/// A payment intent.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Intent {
    pub(super) id: String,
    pub(super) status: String,
    amount: i64,
    #[serde(default)]
    amount_received: i64,
    #[serde(default)]
    amount_capturable: i64,
    currency: String,
    #[serde(default)]
    metadata: HashMap<String, String>,
    last_payment_error: Option<Failure>,
    cancellation_reason: Option<String>,
    latest_charge: Option<IgnoredAny>,
}

/// A refund.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Refund {
    pub(super) id: String,
    status: Option<String>,
    amount: i64,
    currency: String,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

/// A page of a list, or of a search.
#[derive(Debug, Deserialize)]
pub(super) struct Page<T> {
    pub(super) data: Vec<T>,
    #[serde(default)]
    pub(super) has_more: bool,
}

/// Something that was made and has a name.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    pub(super) id: String,
}

/// Why a request failed, or the last try of an intent. Its `message` is for people and not read: it may say more than we want to
/// keep.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Failure {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) code: Option<String>,
    pub(super) decline_code: Option<String>,
    pub(super) param: Option<String>,
}

#[derive(Deserialize)]
struct Failed {
    error: Failure,
}

/// What a failed request tells us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The card was declined: it was tried and will not be charged by this request.
    Card(DeclineReason),
    /// Stripe would not do it at all: nothing happened because of this very request.
    Request(DeclineReason),
    /// The first request with this key is still at work.
    InUse,
    /// This key was used for something else. Our mistake; it says nothing about what became of the first.
    KeyMisused,
    /// Nothing can be told from it: an error of Stripe's or of our key.
    Nothing,
}

impl Failure {
    /// Reads the body of an answer that is no success.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Failed>(body).ok().map(|f| f.error)
    }

    pub(super) fn reason(&self) -> DeclineReason {
        declines::reason(self.decline_code.as_deref(), self.code.as_deref())
    }

    /// What it tells, with the status that it came with (https://docs.stripe.com/api/errors).
    pub(super) fn refusal(&self, status: StatusCode) -> Refusal {
        let code = self.code.as_deref();
        match (status.as_u16(), self.kind.as_deref()) {
            (_, Some("idempotency_error")) if code == Some("idempotency_key_in_use") => Refusal::InUse,
            (_, Some("idempotency_error")) => Refusal::KeyMisused,
            (_, _) if code == Some("idempotency_key_in_use") => Refusal::InUse,
            (402, Some("card_error")) => Refusal::Card(self.reason()),
            (400 | 402 | 404, Some("invalid_request_error")) => {
                let amount = matches!(self.param.as_deref(), Some("amount" | "amount_to_capture" | "currency"));
                let reason = self.reason();
                let reason = if amount && reason == DeclineReason::Other { DeclineReason::InvalidAmount } else { reason };
                Refusal::Request(reason)
            }
            // 409: another request holds the object (`lock_timeout`). 401, 403: our key. 429, 5xx: theirs.
            _ => Refusal::Nothing,
        }
    }

    /// For a log line.
    pub(super) fn plain(&self) -> String {
        let part = |p: &Option<String>| p.as_deref().map(declines::plain).unwrap_or_default();
        format!("{}/{}/{}", part(&self.kind), part(&self.code), part(&self.param))
    }
}

/// What a payment intent or a refund says about one of our operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is known.
    Word(BankWord),
    /// It can't go on by itself, and nobody will help it on: it must be cancelled so that nothing ever becomes of it. For the
    /// reason given.
    DeadEnd(DeclineReason),
}

impl Intent {
    pub(super) fn our_reference(&self) -> Option<&str> {
        self.metadata.get(OUR_REFERENCE).map(String::as_str)
    }

    /// What became of the charge or the authorisation that made it.
    pub(super) fn verdict_of_charge(&self, operation: Operation) -> Verdict {
        let word = match (self.status.as_str(), operation) {
            // Captured since: authorised it was for the whole amount.
            ("succeeded", Operation::Authorise) => self.approved(self.amount),
            ("succeeded", _) => self.approved(self.amount_received),
            ("requires_capture", Operation::Authorise) => self.approved(self.amount_capturable),
            ("processing", _) => BankWord::StillWorking,
            ("requires_action" | "requires_source_action", _) => return Verdict::DeadEnd(DeclineReason::NeedsAuthentication),
            // A charge that has stopped at an authorisation would be captured by nobody.
            ("requires_capture" | "requires_confirmation", _) => return Verdict::DeadEnd(DeclineReason::Other),
            ("requires_payment_method" | "requires_source", _) => match &self.last_payment_error {
                Some(failure) => BankWord::Declined(failure.reason()),
                None => return Verdict::DeadEnd(DeclineReason::Other),
            },
            ("canceled", _) => self.of_canceled(operation),
            _ => BankWord::Silence,
        };
        Verdict::Word(word)
    }

    fn of_canceled(&self, operation: Operation) -> BankWord {
        match (&self.last_payment_error, self.cancellation_reason.as_deref()) {
            (Some(failure), _) => BankWord::Declined(failure.reason()),
            (None, Some(ABANDONED)) => BankWord::Declined(DeclineReason::NeedsAuthentication),
            // It was authorised, and the hold was given up: by our void, by hand, or because it ran out.
            (None, _) if operation == Operation::Authorise && self.latest_charge.is_some() => BankWord::Reversed,
            (None, _) => BankWord::Declined(DeclineReason::Other),
        }
    }

    /// What became of a capture with this reference.
    pub(super) fn word_of_capture(&self, our_reference: &str) -> BankWord {
        match self.status.as_str() {
            "succeeded" => match self.metadata.get(CAPTURE_REFERENCE) {
                Some(reference) if reference == our_reference => self.approved(self.amount_received),
                // Captured by somebody else: nothing is left for us.
                Some(_) | None => BankWord::Declined(DeclineReason::InvalidAmount),
            },
            "processing" => BankWord::StillWorking,
            "requires_capture" => BankWord::NotFound,
            "canceled" => BankWord::Declined(DeclineReason::InvalidAmount),
            _ => BankWord::Silence,
        }
    }

    /// What became of a void. Whoever gave the hold up, it is gone.
    pub(super) fn word_of_void(&self) -> BankWord {
        match self.status.as_str() {
            "canceled" => self.approved(self.amount),
            "requires_capture" => BankWord::NotFound,
            "succeeded" => BankWord::Declined(DeclineReason::InvalidAmount),
            "processing" => BankWord::StillWorking,
            _ => BankWord::Silence,
        }
    }

    fn approved(&self, minor: i64) -> BankWord {
        approved(minor, &self.currency, &self.id)
    }
}

impl Refund {
    pub(super) fn our_reference(&self) -> Option<&str> {
        self.metadata.get(OUR_REFERENCE).map(String::as_str)
    }

    pub(super) fn money(&self) -> Option<Money> {
        money(self.amount, &self.currency)
    }

    /// What became of it.
    pub(super) fn word(&self) -> BankWord {
        match self.status.as_deref() {
            Some("succeeded") => approved(self.amount, &self.currency, &self.id),
            Some("pending" | "requires_action") => BankWord::StillWorking,
            Some("failed" | "canceled") => BankWord::Declined(DeclineReason::Other),
            Some(_) | None => BankWord::Silence,
        }
    }
}

/// Stripe counts in the currency's smallest unit, as we do: yen have none smaller (https://docs.stripe.com/currencies).
pub(super) fn money(minor: i64, currency: &str) -> Option<Money> {
    Money::new(minor, currency.parse::<Currency>().ok()?).ok()
}

fn approved(minor: i64, currency: &str, id: &str) -> BankWord {
    match money(minor, currency) {
        Some(charged) => BankWord::Approved { charged, gateway_reference: id.to_owned() },
        None => {
            // Nothing of ours can be written down with it; it stays in doubt, and a person finds it there.
            let (intent, currency) = (declines::plain_id(id), declines::plain(currency));
            tracing::error!(intent, minor, currency, "Stripe reports an amount that can't be ours");
            BankWord::Silence
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn intent(status: &str, more: Value) -> Intent {
        let mut all = json!({ "id": "pi_1", "object": "payment_intent", "status": status, "amount": 1999, "currency": "usd",
            "metadata": { "our_reference": "att_1" } });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn yes(minor: i64) -> BankWord {
        BankWord::Approved { charged: Money::new(minor, Currency::Usd).unwrap(), gateway_reference: "pi_1".into() }
    }

    #[test]
    fn each_status_of_a_payment_intent_says_what_became_of_the_charge() {
        use Operation::{Authorise, Charge};
        let no = BankWord::Declined;
        let failed = json!({ "last_payment_error": { "code": "card_declined", "decline_code": "insufficient_funds" } });
        for (operation, status, more, word) in [
            (Charge, "succeeded", json!({ "amount_received": 1999 }), yes(1999)),
            (Charge, "succeeded", json!({ "amount_received": 1998 }), yes(1998)),
            (Charge, "succeeded", json!({}), BankWord::Silence), // says success, and that nothing was received
            (Charge, "succeeded", json!({ "amount_received": 1999, "currency": "xxx" }), BankWord::Silence),
            (Charge, "processing", json!({}), BankWord::StillWorking),
            (Charge, "requires_payment_method", failed.clone(), no(DeclineReason::InsufficientFunds)),
            (Charge, "canceled", failed, no(DeclineReason::InsufficientFunds)),
            (Charge, "canceled", json!({ "cancellation_reason": "abandoned" }), no(DeclineReason::NeedsAuthentication)),
            (Charge, "canceled", json!({ "latest_charge": "ch_1" }), no(DeclineReason::Other)),
            (Charge, "brand_new", json!({ "amount_received": 1999 }), BankWord::Silence),
            (Authorise, "requires_capture", json!({ "amount_capturable": 1999 }), yes(1999)),
            (Authorise, "succeeded", json!({ "amount_received": 500 }), yes(1999)),
            (Authorise, "canceled", json!({ "latest_charge": "ch_1" }), BankWord::Reversed),
            (Authorise, "canceled", json!({ "latest_charge": null }), no(DeclineReason::Other)),
        ] {
            assert_eq!(
                intent(status, more.clone()).verdict_of_charge(operation),
                Verdict::Word(word),
                "{operation:?} {status} {more}"
            );
        }
        for (operation, status, reason) in [
            (Charge, "requires_action", DeclineReason::NeedsAuthentication),
            (Authorise, "requires_action", DeclineReason::NeedsAuthentication),
            (Charge, "requires_confirmation", DeclineReason::Other),
            (Charge, "requires_payment_method", DeclineReason::Other),
            (Charge, "requires_capture", DeclineReason::Other),
        ] {
            assert_eq!(
                intent(status, json!({})).verdict_of_charge(operation),
                Verdict::DeadEnd(reason),
                "{operation:?} {status}"
            );
        }
    }

    #[test]
    fn captures_and_voids_are_read_from_what_they_act_on() {
        let captured = |by: &str| intent("succeeded", json!({ "amount_received": 700, "metadata": { "capture_reference": by } }));
        assert_eq!(captured("att_2").word_of_capture("att_2"), yes(700));
        assert_eq!(captured("att_3").word_of_capture("att_2"), BankWord::Declined(DeclineReason::InvalidAmount));
        assert_eq!(intent("requires_capture", json!({})).word_of_capture("att_2"), BankWord::NotFound);
        assert_eq!(intent("canceled", json!({})).word_of_void(), yes(1999));
        assert_eq!(intent("requires_capture", json!({})).word_of_void(), BankWord::NotFound);
        assert_eq!(captured("att_3").word_of_void(), BankWord::Declined(DeclineReason::InvalidAmount));
    }

    #[test]
    fn errors_are_told_apart_by_what_they_prove() {
        let read = |status: u16, text: &str| {
            let failure = Failure::read(text.as_bytes()).unwrap_or_default();
            failure.refusal(StatusCode::from_u16(status).unwrap())
        };
        let card = r#"{"error":{"type":"card_error","code":"card_declined","decline_code":"lost_card"}}"#;
        assert_eq!(read(402, card), Refusal::Card(DeclineReason::LostOrStolen));
        assert_eq!(read(500, card), Refusal::Nothing);
        let misused = r#"{"error":{"type":"idempotency_error","message":"Keys for idempotent requests …"}}"#;
        assert_eq!(read(400, misused), Refusal::KeyMisused);
        let in_use = r#"{"error":{"type":"idempotency_error","code":"idempotency_key_in_use"}}"#;
        assert_eq!(read(409, in_use), Refusal::InUse);
        let in_use = r#"{"error":{"type":"invalid_request_error","code":"idempotency_key_in_use"}}"#;
        assert_eq!(read(409, in_use), Refusal::InUse);
        let small = r#"{"error":{"type":"invalid_request_error","code":"amount_too_small","param":"amount"}}"#;
        assert_eq!(read(400, small), Refusal::Request(DeclineReason::InvalidAmount));
        let amount = r#"{"error":{"type":"invalid_request_error","param":"amount"}}"#;
        assert_eq!(read(400, amount), Refusal::Request(DeclineReason::InvalidAmount));
        let other = r#"{"error":{"type":"invalid_request_error","code":"resource_missing","param":"payment_method"}}"#;
        assert_eq!(read(404, other), Refusal::Request(DeclineReason::Other));
        for (status, text) in [
            (401, r#"{"error":{"type":"invalid_request_error"}}"#),
            (403, r#"{"error":{"type":"invalid_request_error"}}"#),
            (409, r#"{"error":{"type":"invalid_request_error","code":"lock_timeout"}}"#),
            (429, r#"{"error":{"type":"invalid_request_error","code":"rate_limit"}}"#),
            (500, r#"{"error":{"type":"api_error"}}"#),
            (400, "<html>a proxy's page</html>"),
            (402, "{}"),
            (200, r#"{"error":{"type":"card_error"}}"#),
        ] {
            assert_eq!(read(status, text), Refusal::Nothing, "{status} {text}");
        }
    }

    #[test]
    fn refunds_are_read() {
        let refund = |status: Value| -> BankWord {
            serde_json::from_value::<Refund>(json!({ "id": "re_1", "amount": 5, "currency": "jpy", "status": status }))
                .unwrap()
                .word()
        };
        let five = Money::new(5, Currency::Jpy).unwrap();
        assert_eq!(refund(json!("succeeded")), BankWord::Approved { charged: five, gateway_reference: "re_1".into() });
        assert_eq!(refund(json!("pending")), BankWord::StillWorking);
        assert_eq!(refund(json!("failed")), BankWord::Declined(DeclineReason::Other));
        assert_eq!(refund(json!(null)), BankWord::Silence);
    }
}
