//! One attempt: sending it, asking about it, and writing down what the acquirer says.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Inner, crash};
use crate::clock::Timestamp;
use crate::gateway::{CardData, GatewayRequest};
use crate::ids::TransferId;
use crate::payment::{
    Attempt, AttemptEvent, AttemptState, BankWord, Effect, Expiry, GatewayKey, Operation, RequestHash, TransitionError, step,
};
use crate::store::{Job, Settlement, StoreError};

/// How often a result is written again when the database is busy or another writer was faster.
const RECORD_TRIES: u32 = 5;
/// Pause before writing again, in milliseconds; grows with each try.
const RECORD_PAUSE_MS: u64 = 100;

impl Inner {
    /// Sends a prepared attempt for the first time.
    pub(super) async fn send_first(self: &Arc<Self>, job: Job) -> Result<(), StoreError> {
        let (request, hash) = self.request_of(&job).await?;
        let Some(hash) = hash else {
            tracing::warn!(intent = %job.intent.id, "the card is no longer usable; the charge is not sent");
            return self.record(job, AttemptEvent::Abandon).await;
        };
        let event = AttemptEvent::Dispatch { key: request.idempotency_key.clone(), hash };
        let Some(job) = self.write_before_sending(job, event, "charge.dispatched").await? else { return Ok(()) };
        crash::point("after_dispatched_commit");
        self.send(job, request).await
    }

    /// Asks the acquirer about our reference, and sends the same bytes again if it may and must.
    pub(super) async fn reconcile(self: &Arc<Self>, job: Job) -> Result<(), StoreError> {
        let (request, _) = self.request_of(&job).await?;
        let word = self.within_timeout(self.gateway.resolve(&request)).await;
        crash::point("after_question_answered");
        tracing::info!(intent = %job.intent.id, answer = plain(&word), "asked about a charge in doubt");
        let policy = self.cfg.policy();
        let stepped = step(&policy, self.clock.now(), job.attempt.clone(), AttemptEvent::Found(word.clone()));
        match stepped {
            Ok((_, effects)) if effects.contains(&Effect::SendAgain) => self.send_again(job).await,
            Ok(_) => self.record(job, AttemptEvent::Found(word)).await,
            Err(error) => {
                tracing::error!(intent = %job.intent.id, %error, "the acquirer's answer does not fit");
                Ok(())
            }
        }
    }

    async fn send_again(self: &Arc<Self>, job: Job) -> Result<(), StoreError> {
        // Without its card it can't be sent; when the window is over it ends as never received.
        let (request, Some(hash)) = self.request_of(&job).await? else { return Ok(()) };
        let event = AttemptEvent::Resend { hash };
        let Some(job) = self.write_before_sending(job, event, "charge.sent_again").await? else { return Ok(()) };
        crash::point("after_resend_commit");
        self.send(job, request).await
    }

    /// Commits that it is about to be sent. `None`: somebody else was faster, or it may not be sent; then it must not be.
    async fn write_before_sending(&self, job: Job, event: AttemptEvent, action: &str) -> Result<Option<Job>, StoreError> {
        let now = self.clock.now();
        let attempt = match step(&self.cfg.policy(), now, job.attempt.clone(), event) {
            Ok((attempt, _)) => attempt,
            Err(error @ TransitionError::OtherBytes) => {
                tracing::error!(intent = %job.intent.id, %error, "not sent again");
                return Ok(None);
            }
            Err(
                TransitionError::NeverSent | TransitionError::AlreadySent | TransitionError::NoMoreSends | TransitionError::Ended,
            ) => return Ok(None),
        };
        let audit = self.audit_row(now, action, job.intent.id.as_str(), json!({ "attempt": attempt.id, "state": attempt.state }));
        crash::point("before_dispatched_commit");
        match self.store.advance(&attempt, &Settlement { audit: vec![audit], ..Settlement::default() }).await {
            Ok(()) => Ok(Some(Job { attempt, ..job })),
            Err(StoreError::Conflict(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    async fn send(self: &Arc<Self>, job: Job, request: GatewayRequest) -> Result<(), StoreError> {
        let word = self.within_timeout(self.gateway.send(&request)).await;
        crash::point("after_gateway_answered");
        tracing::info!(intent = %job.intent.id, answer = plain(&word), "the acquirer answered");
        self.record(job, AttemptEvent::Answer(word)).await
    }

    async fn within_timeout(&self, speaking: impl Future<Output = BankWord>) -> BankWord {
        let limit = Duration::from_millis(self.cfg.gateway_timeout_ms);
        tokio::time::timeout(limit, speaking).await.unwrap_or(BankWord::Silence)
    }

    /// Writes down what happened, with postings, receipt, audit and outbox, in one transaction. If somebody wrote meanwhile, what they wrote is
    /// read and the event judged anew.
    async fn record(&self, mut job: Job, event: AttemptEvent) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            let now = self.clock.now();
            let before = job.attempt.clone();
            let (after, effects) = match step(&self.cfg.policy(), now, before.clone(), event.clone()) {
                Ok(stepped) => stepped,
                Err(error) => {
                    tracing::error!(intent = %job.intent.id, %error, "an event does not fit the attempt; nothing was written");
                    return Ok(());
                }
            };
            if after == before {
                // A contradiction of what has ended moves no money, but a person has to know.
                if after.state.terminal() && effects.contains(&Effect::Conflict) {
                    tracing::error!(intent = %job.intent.id, "the acquirer contradicts a charge that has ended");
                    let detail = json!({ "attempt": after.id, "state": after.state });
                    self.store.audit(&self.audit_row(now, "charge.conflict", job.intent.id.as_str(), detail)).await?;
                }
                return Ok(());
            }
            let settlement = self.settlement(now, &job, &after, &effects);
            crash::point("before_result_commit");
            let written = self.store.advance(&after, &settlement).await;
            match written {
                Ok(()) => {
                    crash::point("after_result_committed");
                    tracing::info!(intent = %job.intent.id, state = after.state.name(), "charge recorded");
                    self.changed.send_modify(|n| *n = n.wrapping_add(1));
                    return Ok(());
                }
                Err(error) if tries >= RECORD_TRIES => return Err(error),
                Err(StoreError::Conflict(_)) => match self.store.job(&before.id).await? {
                    Some(fresh) => job = fresh,
                    None => return Err(StoreError::NotFound("attempt")),
                },
                // `Exists`: another receipt has drawn the same reference; the next try draws another.
                Err(StoreError::Busy | StoreError::Exists(_)) => {}
                Err(other) => return Err(other),
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(RECORD_PAUSE_MS * u64::from(tries))).await;
        }
    }

    fn settlement(&self, now: Timestamp, job: &Job, after: &Attempt, effects: &[Effect]) -> Settlement {
        let mut s = Settlement::default();
        for effect in effects {
            match effect {
                Effect::PostPending => s.transfer = Some(job.pending.posted(TransferId::fresh(&*self.entropy), now)),
                Effect::VoidPending => s.transfer = Some(job.pending.voided(TransferId::fresh(&*self.entropy), now)),
                Effect::Settle => {
                    if let AttemptState::Succeeded { gateway_reference, .. } = &after.state {
                        s.receipt = Some(self.receipt(job, now, gateway_reference));
                    }
                }
                Effect::Release => s.release_request = true,
                Effect::Conflict => {
                    tracing::error!(intent = %job.intent.id, "the acquirer charged something else than was asked for");
                }
                Effect::SendAgain | Effect::AskLater => {}
            }
        }
        let detail = json!({ "attempt": after.id, "state": after.state });
        s.audit.push(self.audit_row(now, &format!("charge.{}", after.state.name()), job.intent.id.as_str(), detail));
        s.outbox.extend(self.news_of_state(now, job, after));
        s
    }

    /// What is sent for an attempt: always the same bytes for the same attempt. And its hash, unless the card can't be used any more: then
    /// it may only be asked about.
    async fn request_of(&self, job: &Job) -> Result<(GatewayRequest, Option<RequestHash>), StoreError> {
        let mut request = GatewayRequest {
            operation: Operation::Charge,
            our_reference: job.attempt.id.to_string(),
            number: 0,
            prepared_at: job.intent.created_at,
            idempotency_key: GatewayKey(format!("voicepay-{}", job.attempt.id)),
            amount: job.attempt.amount,
            card: None,
            original: None,
            statement: job.payee_name.clone(),
        };
        let Some(card) = self.store.card(&job.intent.card).await? else { return Ok((request, None)) };
        if card.customer != job.intent.customer || !card.usable(self.clock.now()) {
            return Ok((request, None));
        }
        let pan = match self.vault.unseal_card(&card.id, &card.customer, &card.sealed) {
            Ok(pan) => pan,
            Err(error) => {
                tracing::error!(card = %card.id, %error, "a card can't be charged");
                return Ok((request, None));
            }
        };
        let hash = hash_of(&request, card.expiry, &hex::encode(self.vault.digest_card(&pan)));
        request.card = Some(CardData { pan, expiry: card.expiry });
        Ok((request, Some(hash)))
    }
}

/// SHA-256 over every field that is sent, each with its length before it, the card's keyed digest standing for its number.
fn hash_of(r: &GatewayRequest, expiry: Option<Expiry>, card_digest: &str) -> RequestHash {
    let amount = r.amount.to_string();
    let expiry = expiry.map(|e| e.to_string()).unwrap_or_default();
    let mut hasher = Sha256::new();
    for field in [&r.our_reference, &r.idempotency_key.0, &amount, card_digest, &expiry, &r.statement] {
        hasher.update(u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(field.as_bytes());
    }
    RequestHash(hex::encode(hasher.finalize()))
}

fn plain(word: &BankWord) -> &'static str {
    match word {
        BankWord::Approved { .. } => "approved",
        BankWord::Declined(_) => "declined",
        BankWord::Reversed => "reversed",
        BankWord::StillWorking => "still working",
        BankWord::NotFound => "not found",
        BankWord::Silence => "no answer",
    }
}
