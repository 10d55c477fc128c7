//! Disputes: the acquirer says that a cardholder contests a payment, and later how it was decided. Recorded with their money; nothing is sent.

use serde_json::json;

use super::{Inner, OperateError, Processor, crash};
use crate::clock::Timestamp;
use crate::ids::{DisputeId, IntentId, TransferId};
use crate::ledger::{Cause, Transfer};
use crate::money::Money;
use crate::payment::dispute::{REASON_LIMIT_CHARS, REFERENCE_LIMIT_CHARS};
use crate::payment::{Dispute, DisputeError, DisputeState, OperationRefusal};
use crate::store::{DisputeEntry, Payment, StoreError};

impl Processor {
    /// Records that a payment is contested: its amount (`None`: all that was captured and is not contested yet) is held back from the payee. The
    /// same reference again gives the same dispute.
    pub async fn open_dispute(
        &self,
        intent: &IntentId,
        reference: &str,
        amount: Option<Money>,
        reason: &str,
        by: &str,
    ) -> Result<Dispute, OperateError> {
        let inner = &self.inner;
        check(reference, "the acquirer's reference", REFERENCE_LIMIT_CHARS)?;
        check(reason, "the reason", REASON_LIMIT_CHARS)?;
        let known = inner.store.dispute(reference).await?;
        let payment = inner.store.payment(intent).await?.ok_or(OperationRefusal::NoSuchPayment)?;
        let b = payment.balance();
        let amount = match (amount, &known) {
            (Some(amount), _) => amount,
            (None, Some(known)) => known.amount,
            (None, None) => Money::new(b.disputable(), b.currency).map_err(|_| OperationRefusal::NothingCaptured)?,
        };
        let now = inner.clock.now();
        let dispute = Dispute {
            id: DisputeId::fresh(&*inner.entropy),
            intent: intent.clone(),
            reference: reference.to_owned(),
            amount,
            reason: reason.to_owned(),
            opened_at: now,
            state: DisputeState::Opened,
        };
        if let Some(known) = known {
            return if known.same_as(&dispute) { Ok(known) } else { Err(DisputeError::OtherContent.into()) };
        }
        let charge = payment.transfers.first().ok_or(StoreError::NotFound("row in the books"))?;
        let transfer = charge.back(TransferId::fresh_at(now, &*inner.entropy), now, amount, Cause::Dispute(dispute.id.clone()));
        let entry = inner.dispute_entry(now, &payment, dispute, transfer, by);
        crash::point("before_dispute");
        if inner.store.open_dispute(&entry).await? {
            crash::point("after_dispute");
            tracing::warn!(%intent, %amount, "a payment is disputed");
            return Ok(entry.dispute);
        }
        // Somebody recorded it in the meantime.
        Ok(inner.store.dispute(reference).await?.ok_or(StoreError::NotFound("dispute"))?)
    }

    /// Records how a dispute was decided. The same decision again changes nothing; another one is refused.
    pub async fn close_dispute(&self, reference: &str, won: bool, by: &str) -> Result<Dispute, OperateError> {
        let inner = &self.inner;
        let before = inner.store.dispute(reference).await?.ok_or(StoreError::NotFound("dispute"))?;
        let now = inner.clock.now();
        let Some(after) = before.clone().close(won, now)? else { return Ok(before) };
        let payment = inner.store.payment(&after.intent).await?.ok_or(OperationRefusal::NoSuchPayment)?;
        let reserved = payment.row_of(after.id.as_str())?;
        let id = TransferId::fresh_at(now, &*inner.entropy);
        let transfer = if won { reserved.voided(id, now) } else { reserved.posted(id, now) };
        let entry = inner.dispute_entry(now, &payment, after, transfer, by);
        crash::point("before_dispute_closed");
        inner.store.close_dispute(&entry).await?;
        crash::point("after_dispute_closed");
        Ok(entry.dispute)
    }
}

impl Inner {
    fn dispute_entry(&self, now: Timestamp, payment: &Payment, dispute: Dispute, transfer: Transfer, by: &str) -> DisputeEntry {
        let what = format!("dispute.{}", dispute.state.name());
        let detail = json!({ "dispute": dispute.id, "reference": dispute.reference, "reason": dispute.reason,
            "amount_minor": dispute.amount.minor, "currency": dispute.amount.currency });
        let audit = self.audit_row(now, by, &what, payment.intent.id.as_str(), detail);
        let more = json!({ "dispute": dispute.id, "reference": dispute.reference });
        let outbox = self.news(now, &what, &payment.intent, dispute.amount, more);
        DisputeEntry { dispute, transfer, audit, outbox }
    }
}

fn check(text: &str, what: &'static str, limit: usize) -> Result<(), DisputeError> {
    if (1..=limit).contains(&text.chars().count()) { Ok(()) } else { Err(DisputeError::Text { what, limit }) }
}
