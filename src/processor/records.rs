//! Audit rows, outbox rows and receipts that go with a change. None holds a card number, a name of the customer or a telephone number.

use serde_json::{Value, json};

use super::Inner;
use crate::clock::Timestamp;
use crate::ids::{OutboxId, ReceiptId};
use crate::money::Money;
use crate::payment::{Attempt, AttemptState, Intent, Operation, Receipt};
use crate::store::{AuditRecord, Job, OutboxRecord};

/// Who acts where nobody else told us to.
pub(super) const OURSELVES: &str = "processor";

impl Inner {
    pub(super) fn audit_row(&self, at: Timestamp, actor: &str, action: &str, subject: &str, detail: Value) -> AuditRecord {
        AuditRecord::fresh(at, &*self.entropy, actor, action, subject, detail)
    }

    pub(super) fn news(&self, at: Timestamp, topic: &str, intent: &Intent, amount: Money, more: Value) -> OutboxRecord {
        let mut payload = json!({
            "intent": intent.id,
            "request": intent.request,
            "payee": intent.payee,
            "amount_minor": amount.minor,
            "currency": amount.currency,
        });
        if let (Value::Object(payload), Value::Object(more)) = (&mut payload, more) {
            payload.extend(more);
        }
        OutboxRecord { id: OutboxId::fresh_at(at, &*self.entropy), at, topic: topic.into(), payload }
    }

    pub(super) fn receipt(&self, job: &Job, at: Timestamp, gateway_reference: &str) -> Receipt {
        Receipt {
            id: ReceiptId::fresh_at(at, &*self.entropy),
            reference: Receipt::fresh_reference(&*self.entropy),
            intent: job.intent.id.clone(),
            amount: job.attempt.amount,
            payee: job.intent.payee.clone(),
            payee_name: job.payee_name.clone(),
            last4: job.intent.last4.clone(),
            at,
            gateway_reference: gateway_reference.to_owned(),
            evidence: job.evidence.clone(),
            signature: None,
        }
    }

    /// The outbox's word for a new state, if the outside should hear of it.
    pub(super) fn news_of_state(&self, at: Timestamp, job: &Job, attempt: &Attempt) -> Option<OutboxRecord> {
        let (word, more) = match &attempt.state {
            AttemptState::Prepared | AttemptState::Dispatched { .. } => return None,
            AttemptState::NeedsReconciliation { .. } => ("in_doubt", json!({})),
            AttemptState::Conflicted { charged, .. } => {
                ("conflict", json!({ "charged_minor": charged.minor, "charged_currency": charged.currency }))
            }
            AttemptState::Succeeded { gateway_reference, .. } => {
                (done_word(attempt.operation), json!({ "gateway_reference": gateway_reference }))
            }
            AttemptState::Declined { reason, .. } => ("declined", json!({ "reason": reason })),
            AttemptState::Reversed { .. } => ("reversed", json!({})),
        };
        let subject = subject_of(attempt.operation, attempt.state.done());
        Some(self.news(at, &format!("{subject}.{word}"), &job.intent, attempt.amount, more))
    }
}

/// Of what the outside is told: what is done to a payment is news of the payment, what failed afterwards is news of that operation.
fn subject_of(operation: Operation, done: bool) -> &'static str {
    match operation {
        Operation::Charge | Operation::Authorise => "payment",
        Operation::Capture | Operation::Void if done => "payment",
        Operation::Capture | Operation::Void | Operation::Refund => operation.as_str(),
    }
}

fn done_word(operation: Operation) -> &'static str {
    match operation {
        Operation::Charge | Operation::Capture | Operation::Refund => "succeeded",
        Operation::Authorise => "authorised",
        Operation::Void => "voided",
    }
}
