//! Audit rows, outbox rows and receipts that go with a change. None holds a card number, a name of the customer or a telephone number.

use serde_json::{Value, json};

use super::Inner;
use crate::clock::Timestamp;
use crate::ids::{AuditId, OutboxId, ReceiptId};
use crate::payment::{Attempt, AttemptState, Doubt, Intent, Receipt};
use crate::store::{AuditRecord, Job, OutboxRecord};

impl Inner {
    pub(super) fn audit_row(&self, at: Timestamp, action: &str, subject: &str, detail: Value) -> AuditRecord {
        AuditRecord {
            id: AuditId::fresh(&*self.entropy),
            at,
            actor: "processor".into(),
            action: action.into(),
            subject: subject.into(),
            detail,
        }
    }

    pub(super) fn news(&self, at: Timestamp, topic: &str, intent: &Intent, more: Value) -> OutboxRecord {
        let mut payload = json!({
            "intent": intent.id,
            "request": intent.request,
            "payee": intent.payee,
            "amount_minor": intent.amount.minor,
            "currency": intent.amount.currency,
        });
        if let (Value::Object(payload), Value::Object(more)) = (&mut payload, more) {
            payload.extend(more);
        }
        OutboxRecord { id: OutboxId::fresh(&*self.entropy), at, topic: topic.into(), payload }
    }

    pub(super) fn receipt(&self, job: &Job, at: Timestamp, gateway_reference: &str) -> Receipt {
        Receipt {
            id: ReceiptId::fresh(&*self.entropy),
            reference: Receipt::fresh_reference(&*self.entropy),
            intent: job.intent.id.clone(),
            amount: job.intent.amount,
            payee: job.intent.payee.clone(),
            payee_name: job.payee_name.clone(),
            last4: job.intent.last4.clone(),
            at,
            gateway_reference: gateway_reference.to_owned(),
            evidence: job.evidence.clone(),
        }
    }

    /// The outbox's word for a new state, if the outside should hear of it.
    pub(super) fn news_of_state(&self, at: Timestamp, job: &Job, attempt: &Attempt) -> Option<OutboxRecord> {
        let (topic, more) = match &attempt.state {
            AttemptState::Prepared | AttemptState::Dispatched { .. } => return None,
            AttemptState::NeedsReconciliation { doubt: Doubt::NoAnswer, .. } => ("payment.in_doubt", json!({})),
            AttemptState::NeedsReconciliation { doubt: Doubt::Mismatch { charged }, .. } => {
                ("payment.conflict", json!({ "charged_minor": charged.minor, "charged_currency": charged.currency }))
            }
            AttemptState::Succeeded { gateway_reference, .. } => {
                ("payment.succeeded", json!({ "gateway_reference": gateway_reference }))
            }
            AttemptState::Declined { reason, .. } => ("payment.declined", json!({ "reason": reason })),
            AttemptState::Reversed { .. } => ("payment.reversed", json!({})),
        };
        Some(self.news(at, topic, &job.intent, more))
    }
}
