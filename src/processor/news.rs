//! What the acquirer tells us without being asked. A message moves no money by itself: about what is in doubt the acquirer is
//! asked, what contradicts how an attempt ended is shown to a person, disputes are recorded, and the rest changes nothing. So it
//! may come twice, late, in any order, or never.

use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Inner, OperateError, Processor};
use crate::clock::Timestamp;
use crate::gateway::{Delivery, DisputeNews, DisputeStage, News};
use crate::ids::AttemptId;
use crate::payment::{Attempt, AttemptEvent, AttemptState, BankWord};
use crate::store::StoreError;

/// Who did it, in the audit trail.
const BY: &str = "acquirer";

impl Processor {
    /// Takes what the acquirer tells until nobody tells anything any more, or `shutdown`. Whoever sent it is told that it was
    /// taken once it can't be lost: what it names stands in the database, or what it says was written down there.
    pub async fn listen(&self, mut news: mpsc::Receiver<Delivery>, shutdown: CancellationToken) {
        loop {
            let delivery = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                next = news.recv() => match next {
                    Some(delivery) => delivery,
                    None => return,
                },
            };
            let taken = self.news(delivery.news).await;
            if let Err(error) = &taken {
                tracing::error!(%error, "news of the acquirer can't be taken now; it is asked to tell it again");
            }
            let _nobody_waits = delivery.taken.send(taken.is_ok());
        }
    }

    /// Takes one piece of news. What is in doubt and named in it is due at once: the worker asks about it.
    pub async fn news(&self, news: News) -> Result<(), StoreError> {
        match news {
            News::Operation { our_reference, word } => self.inner.operation_news(&our_reference, word).await,
            News::Dispute(dispute) => self.dispute_news(&dispute).await,
            News::RefundedElsewhere { gateway_reference, refund, amount } => {
                tracing::error!(gateway_reference, refund, %amount, "refunded, but not by us: the books don't have it");
                let detail = json!({ "refund": refund, "amount_minor": amount.minor, "currency": amount.currency });
                self.inner.note("refund.elsewhere", &gateway_reference, detail).await
            }
        }
    }

    async fn dispute_news(&self, d: &DisputeNews) -> Result<(), StoreError> {
        let Some(payment) = self.inner.store.payment_by_gateway_reference(&d.gateway_reference).await? else {
            tracing::warn!(dispute = d.dispute, "a dispute about a charge that this database does not have");
            return Ok(());
        };
        // Its end may be told before its beginning.
        let opened = self.open_dispute(&payment.intent.id, &d.dispute, Some(d.amount), &d.reason, BY).await;
        let done = match (opened, d.stage) {
            (Err(error), _) => Err(error),
            (Ok(_), DisputeStage::Open) => Ok(()),
            (Ok(_), DisputeStage::Won) => self.close_dispute(&d.dispute, true, BY).await.map(drop),
            (Ok(_), DisputeStage::Lost) => self.close_dispute(&d.dispute, false, BY).await.map(drop),
        };
        match done {
            Ok(()) => Ok(()),
            // Perhaps later.
            Err(OperateError::Store(
                error @ (StoreError::Busy
                | StoreError::Unreachable(_)
                | StoreError::Unsure(_)
                | StoreError::Failed(_)
                | StoreError::Conflict(_)),
            )) => Err(error),
            // Told again, it would not fit any better.
            Err(error) => {
                tracing::error!(dispute = d.dispute, %error, "a dispute can't be recorded: a person must look");
                let detail = json!({ "dispute": d.dispute, "amount_minor": d.amount.minor, "currency": d.amount.currency,
                    "why": error.to_string() });
                self.inner.note("dispute.conflict", payment.intent.id.as_str(), detail).await
            }
        }
    }
}

impl Inner {
    async fn operation_news(&self, our_reference: &str, word: BankWord) -> Result<(), StoreError> {
        // Others may use the same account and name their things as they like.
        let Ok(id) = AttemptId::parse(our_reference) else { return Ok(()) };
        let Some(job) = self.store.job(&id).await? else {
            tracing::warn!(attempt = %id, "the acquirer tells of an attempt that this database does not have");
            return Ok(());
        };
        let now = self.clock.now();
        match (&job.attempt.state, &word) {
            (AttemptState::Dispatched { last_sent, .. }, _) => {
                // It may be under way right now: its own answer comes first.
                let answered = last_sent.plus(Duration::from_millis(self.cfg.gateway_timeout_ms));
                self.wake(&job.attempt, now.max(answered)).await
            }
            (AttemptState::NeedsReconciliation { .. } | AttemptState::Conflicted { .. }, _) => self.wake(&job.attempt, now).await,
            // Never sent, as far as we know; asking could be what sends it.
            (AttemptState::Prepared, BankWord::Approved { .. }) => {
                tracing::error!(intent = %job.intent.id, "the acquirer tells of a charge that was never sent");
                let detail = json!({ "attempt": job.attempt.id, "state": job.attempt.state });
                let action = format!("{}.conflict", job.attempt.operation.as_str());
                self.note(&action, job.intent.id.as_str(), detail).await
            }
            // An end is not asked about again: for some acquirers a question is the same request once more. A yes agrees whatever
            // its amount, which was compared when it was recorded and is another one after a capture.
            (AttemptState::Succeeded { .. }, BankWord::Declined(_) | BankWord::Reversed)
            | (AttemptState::Declined { .. } | AttemptState::Reversed { .. }, BankWord::Approved { .. }) => {
                // Changes nothing that has ended, and tells people.
                self.record(job, AttemptEvent::Found(word)).await
            }
            (
                AttemptState::Prepared
                | AttemptState::Succeeded { .. }
                | AttemptState::Declined { .. }
                | AttemptState::Reversed { .. },
                _,
            ) => Ok(()),
        }
    }

    /// Makes an attempt due. Whoever is at it may go on: who writes last finds that somebody else has written, and reads again.
    async fn wake(&self, attempt: &Attempt, at: Timestamp) -> Result<(), StoreError> {
        self.store.put_off(attempt, at).await?;
        self.work.notify_one();
        Ok(())
    }

    async fn note(&self, action: &str, subject: &str, detail: serde_json::Value) -> Result<(), StoreError> {
        self.store.audit(&self.audit_row(self.clock.now(), BY, action, subject, detail)).await
    }
}
