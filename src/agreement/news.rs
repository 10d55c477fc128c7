//! Rows for the audit trail and for the outside. None holds a name, a telephone number, a card number or a code.

use serde_json::{Value, json};

use super::Inner;
use crate::clock::Timestamp;
use crate::ids::OutboxId;
use crate::payment::{Approval, PaymentRequest};
use crate::store::{AuditRecord, OutboxRecord};

impl Inner {
    pub(super) fn audit(&self, at: Timestamp, actor: &str, action: &str, subject: &str, detail: Value) -> AuditRecord {
        AuditRecord::fresh(at, &*self.entropy, actor, action, subject, detail)
    }

    pub(super) fn news(&self, at: Timestamp, topic: &str, payload: Value) -> OutboxRecord {
        OutboxRecord { id: OutboxId::fresh_at(at, &*self.entropy), at, topic: topic.to_owned(), payload }
    }

    /// An approval, as the outside and the audit trail see it.
    pub(super) fn approval_json(approval: &Approval) -> Value {
        let parties = approval.parties.iter().map(
            |p| json!({ "role": p.role, "customer": p.who, "said": p.said.as_ref().map(|s| if s.yes { "yes" } else { "no" }) }),
        );
        json!({
            "approval": approval.id,
            "request": approval.request,
            "customer": approval.customer,
            "payee": approval.payee,
            "amount_minor": approval.amount.minor,
            "currency": approval.amount.currency,
            "binding": approval.binding,
            "state": approval.state.name(),
            "payer_agreed": approval.payer.is_some(),
            "parties": parties.collect::<Vec<_>>(),
            "expires_at": approval.expires_at,
        })
    }

    /// Audit row and news of an approval, by its state.
    pub(super) fn about(&self, at: Timestamp, actor: &str, word: &str, approval: &Approval) -> (AuditRecord, OutboxRecord) {
        let topic = format!("approval.{word}");
        let told = Self::approval_json(approval);
        (self.audit(at, actor, &topic, approval.id.as_str(), told.clone()), self.news(at, &topic, told))
    }

    /// Of a request that is refused by a rule: the rule's name goes to the audit trail only.
    pub(super) fn refused(
        &self,
        at: Timestamp,
        request: &PaymentRequest,
        rule: &str,
        version: &str,
    ) -> (AuditRecord, OutboxRecord) {
        let told = json!({ "request": request.id, "customer": request.customer, "payee": request.payee });
        let detail = json!({ "rule": rule, "policy": version });
        (self.audit(at, "agreement", "payment.refused", request.id.as_str(), detail), self.news(at, "payment.refused", told))
    }
}
