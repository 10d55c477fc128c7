//! Taking an order over: everything that it needs later is written in one transaction, or nothing is.

use serde_json::json;

use super::{ChargeOrder, Processor, SubmitError, crash};
use crate::ids::{AttemptId, IntentId, TransferId};
use crate::ledger::{AccountName, Transfer, TransferKind};
use crate::payment::{Attempt, AttemptState, Intent, IntentStatus};
use crate::store::{NewCharge, SubmitRefusal, Submitted};

impl Processor {
    /// Takes an order over: after `Ok` it will be charged, or declined, whatever becomes of the call. Submitting the same call and request
    /// again gives the same intent; with another amount or card it is refused.
    pub async fn submit(&self, order: ChargeOrder) -> Result<IntentId, SubmitError> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let request = inner.store.request(&order.request).await?.ok_or(SubmitRefusal::NoSuchRequest)?.request;
        let card = inner.store.card(&order.card).await?.ok_or(SubmitRefusal::NoUsableCard)?;
        // What was just read is judged again inside the transaction; here it only fills the rows.
        let entropy = &*inner.entropy;
        let intent = Intent {
            id: IntentId::fresh(entropy),
            customer: order.customer,
            request: order.request,
            payee: request.payee,
            card: order.card,
            last4: card.last4,
            call: order.call,
            amount: order.amount,
            status: IntentStatus::Pending,
            created_at: now,
        };
        let attempt = Attempt {
            id: AttemptId::fresh(entropy),
            intent: intent.id.clone(),
            amount: intent.amount,
            state: AttemptState::Prepared,
            version: 0,
        };
        let currency = intent.amount.currency;
        let pending = Transfer {
            id: TransferId::fresh(entropy),
            kind: TransferKind::Pending,
            debit: AccountName::acquirer(inner.gateway.name(), currency),
            credit: AccountName::payee(&intent.payee, currency),
            amount: intent.amount,
            intent: intent.id.clone(),
            at: now,
        };
        let detail = json!({ "call": intent.call, "request": intent.request, "card": intent.card, "attempt": attempt.id,
            "amount_minor": intent.amount.minor, "currency": currency, "evidence": order.evidence });
        let audit = inner.audit_row(now, "charge.submitted", intent.id.as_str(), detail);
        let outbox = inner.news(now, "payment.submitted", &intent, json!({}));
        let charge = NewCharge { intent, attempt, pending, evidence: order.evidence, audit, outbox };
        crash::point("before_submit");
        let submitted = inner.store.submit(&charge).await?;
        match submitted {
            Submitted::Fresh(id) => {
                crash::point("after_submit_committed");
                tracing::info!(intent = %id, amount = %charge.intent.amount, "charge submitted");
                inner.work.notify_one();
                Ok(id)
            }
            Submitted::Already(id) => Ok(id),
            Submitted::Refused(refusal) => Err(refusal.into()),
        }
    }
}
