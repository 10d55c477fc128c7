//! One attempt: sending it, asking about it, and writing down what the acquirer says.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::crash::{self, Step};
use super::records::OURSELVES;
use super::{Inner, Processor};
use crate::clock::Timestamp;
use crate::gateway::{CardData, GatewayRequest, Original};
use crate::ids::{AttemptId, TransferId};
use crate::ledger::Cause;
use crate::payment::{Attempt, AttemptEvent, AttemptState, BankWord, Effect, Expiry, GatewayKey, Operation, RequestHash, step};
use crate::store::{Job, Schedule, Settlement, StoreError};

/// How often a result is written again when the database is busy or another writer was faster.
const RECORD_TRIES: u32 = 5;
/// Pause before writing again, in milliseconds; grows with each try.
const RECORD_PAUSE_MS: u64 = 100;

impl Processor {
    /// The acquirer says something about an attempt without having been asked, in a webhook that was verified. It is judged as an answer to a
    /// question would be; what is told twice changes nothing the second time.
    pub async fn hear(&self, attempt: &AttemptId, word: BankWord) -> Result<(), StoreError> {
        let job = self.inner.store.job(attempt).await?.ok_or(StoreError::NotFound("attempt"))?;
        self.inner.record(job, AttemptEvent::Found(word)).await
    }
}

impl Inner {
    /// Sends a prepared attempt for the first time.
    pub(super) async fn send_first(self: &Arc<Self>, job: Job) -> Result<(), StoreError> {
        let (request, hash) = self.request_of(&job).await?;
        let Some(hash) = hash else {
            tracing::warn!(intent = %job.intent.id, "the card is no longer usable; nothing is sent");
            return self.record(job, AttemptEvent::Abandon).await;
        };
        let operation = job.attempt.operation;
        let event = AttemptEvent::Dispatch { key: request.idempotency_key.clone(), hash };
        let Some(stepped) = self.may_send(&job, event) else { return Ok(()) };
        crash::at(operation, Step::BeforeDispatch);
        let Some(job) = self.write_before_sending(job, stepped, "dispatched").await? else { return Ok(()) };
        crash::at(operation, Step::AfterDispatch);
        self.send(job, request).await
    }

    /// Asks the acquirer about our reference, and sends the same bytes again if it may and must.
    pub(super) async fn reconcile(self: &Arc<Self>, job: Job) -> Result<(), StoreError> {
        let (request, _) = self.request_of(&job).await?;
        crash::point("before_question");
        let asked = self.clock.now();
        let word = match self.within_timeout(self.gateway_of(&job)?.resolve(&request)).await {
            // A process that stood still since has heard of a time that is past: what was not there then may be there now.
            BankWord::NotFound if self.clock.now().since(asked) >= self.lease_time() => BankWord::Silence,
            word => word,
        };
        crash::point("after_question");
        let operation = job.attempt.operation.as_str();
        tracing::info!(intent = %job.intent.id, operation, answer = plain(&word), "asked about an attempt in doubt");
        let policy = self.cfg.policy();
        let stepped = step(&policy, self.clock.now(), job.attempt.clone(), AttemptEvent::Found(word.clone()));
        match stepped {
            Ok((_, effects)) if effects.contains(&Effect::SendAgain) => self.send_again(job).await,
            Ok(_) => self.record(job, AttemptEvent::Found(word)).await,
            Err(error) => {
                tracing::error!(intent = %job.intent.id, %error, "the acquirer's answer does not fit");
                self.look_later(&job.attempt).await
            }
        }
    }

    async fn send_again(self: &Arc<Self>, job: Job) -> Result<(), StoreError> {
        // Without its card it can't be sent; when the window is over it ends as never received.
        let (request, Some(hash)) = self.request_of(&job).await? else { return self.look_later(&job.attempt).await };
        let Some(stepped) = self.may_send(&job, AttemptEvent::Resend { hash }) else {
            return self.look_later(&job.attempt).await;
        };
        crash::point("before_resend");
        let Some(job) = self.write_before_sending(job, stepped, "sent_again").await? else { return Ok(()) };
        crash::point("after_resend");
        self.send(job, request).await
    }

    /// The attempt as it stands once it is about to be sent; `None`: it may not be, and then it must not be.
    fn may_send(&self, job: &Job, event: AttemptEvent) -> Option<(Timestamp, Attempt)> {
        let now = self.clock.now();
        match step(&self.cfg.policy(), now, job.attempt.clone(), event) {
            Ok((attempt, _)) => Some((now, attempt)),
            Err(error) => {
                tracing::error!(intent = %job.intent.id, %error, "not sent");
                None
            }
        }
    }

    /// Commits that it is about to be sent. `None`: somebody else was faster.
    async fn write_before_sending(
        &self,
        job: Job,
        (now, attempt): (Timestamp, Attempt),
        what: &str,
    ) -> Result<Option<Job>, StoreError> {
        let action = format!("{}.{what}", attempt.operation.as_str());
        let detail = json!({ "attempt": attempt.id, "state": attempt.state });
        let audit = vec![self.audit_row(now, OURSELVES, &action, job.intent.id.as_str(), detail)];
        let schedule = Some(Schedule::Leased(self.lease(now)));
        match self.store.advance(&attempt, &Settlement { schedule, audit, ..Settlement::default() }).await {
            Ok(()) => Ok(Some(Job { attempt, ..job })),
            Err(StoreError::Conflict(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    async fn send(self: &Arc<Self>, job: Job, request: GatewayRequest) -> Result<(), StoreError> {
        // A process that stood still since it committed may wake when others have asked, been told that there is nothing, and ended the
        // attempt; or when the acquirer has forgotten the key. Then nothing leaves: whoever claims the attempt asks.
        if let AttemptState::Dispatched { last_sent, .. } | AttemptState::NeedsReconciliation { last_sent, .. } =
            &job.attempt.state
            && !self.time_left(*last_sent, self.clock.now())
        {
            tracing::warn!(intent = %job.intent.id, "not sent: too late after it was written down");
            return Ok(());
        }
        let word = self.within_timeout(self.gateway_of(&job)?.send(&request)).await;
        drop(request);
        let operation = job.attempt.operation;
        crash::at(operation, Step::AfterAnswer);
        tracing::info!(intent = %job.intent.id, operation = operation.as_str(), answer = plain(&word), "the acquirer answered");
        self.record(job, AttemptEvent::Answer(word)).await
    }

    async fn within_timeout(&self, speaking: impl Future<Output = BankWord>) -> BankWord {
        let limit = Duration::from_millis(self.cfg.gateway_timeout_ms);
        tokio::time::timeout(limit, speaking).await.unwrap_or(BankWord::Silence)
    }

    /// Gives the lease up and is due again later. Nothing has changed.
    pub(super) async fn look_later(&self, attempt: &Attempt) -> Result<(), StoreError> {
        crash::point("before_put_off");
        self.store.put_off(attempt, self.next_question(self.clock.now(), attempt)).await?;
        crash::point("after_put_off");
        Ok(())
    }

    /// Writes down what happened, with postings, receipt, audit and outbox, in one transaction. If somebody wrote meanwhile, what they wrote is
    /// read and the event judged anew.
    pub(super) async fn record(&self, mut job: Job, event: AttemptEvent) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            let now = self.clock.now();
            let (after, effects) = match step(&self.cfg.policy(), now, job.attempt.clone(), event.clone()) {
                Ok(stepped) => stepped,
                Err(error) => {
                    tracing::error!(intent = %job.intent.id, %error, "an event does not fit the attempt; nothing was written");
                    return Ok(());
                }
            };
            if after == job.attempt {
                return self.record_nothing_new(now, &job, &effects).await;
            }
            let mut settlement = self.settlement(now, &job, &after, &effects);
            self.sign_receipt(&mut settlement).await?;
            crash::at(after.operation, Step::BeforeResult);
            let written = self.store.advance(&after, &settlement).await;
            match written {
                Ok(()) => {
                    crash::at(after.operation, Step::AfterResult);
                    let (operation, state) = (after.operation.as_str(), after.state.name());
                    tracing::info!(intent = %job.intent.id, operation, state, "attempt recorded");
                    self.announce(&after, settlement.receipt);
                    return Ok(());
                }
                Err(error) if tries >= RECORD_TRIES => return Err(error),
                Err(StoreError::Conflict(_)) => match self.store.job(&after.id).await? {
                    Some(fresh) => job = fresh,
                    None => return Err(StoreError::NotFound("attempt")),
                },
                // `Exists`: another receipt has drawn the same reference; the next try draws another. `Unsure`: if it was written after all,
                // the next try meets the version that it wrote.
                Err(StoreError::Busy | StoreError::Unreachable(_) | StoreError::Unsure(_) | StoreError::Exists(_)) => {}
                Err(other) => return Err(other),
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(RECORD_PAUSE_MS * u64::from(tries))).await;
        }
    }

    async fn record_nothing_new(&self, now: Timestamp, job: &Job, effects: &[Effect]) -> Result<(), StoreError> {
        if !job.attempt.state.terminal() {
            return self.look_later(&job.attempt).await;
        }
        // A contradiction of what has ended moves no money, but a person has to know.
        if effects.contains(&Effect::Conflict) {
            tracing::error!(intent = %job.intent.id, "the acquirer contradicts an attempt that has ended");
            let detail = json!({ "attempt": job.attempt.id, "state": job.attempt.state });
            let action = format!("{}.conflict", job.attempt.operation.as_str());
            self.store.audit(&self.audit_row(now, OURSELVES, &action, job.intent.id.as_str(), detail)).await?;
        }
        Ok(())
    }

    pub(super) fn settlement(&self, now: Timestamp, job: &Job, after: &Attempt, effects: &[Effect]) -> Settlement {
        let mut s = Settlement::default();
        let cause = || Cause::Attempt(after.id.clone());
        for effect in effects {
            let id = TransferId::fresh_at(now, &*self.entropy);
            match effect {
                Effect::PostPending => s.transfer = Some(job.pending.posted_in_part(id, now, after.amount, cause())),
                Effect::VoidPending => s.transfer = Some(job.pending.voided(id, now).because(cause())),
                Effect::Hold => {
                    let ttl = Duration::from_millis(self.cfg.authorisation_ttl_ms);
                    s.authorisation_expires_at = Some(now.plus(ttl));
                }
                Effect::Settle => {
                    if let AttemptState::Succeeded { gateway_reference, .. } = &after.state {
                        s.receipt = Some(self.receipt(job, now, gateway_reference));
                    }
                }
                Effect::Release => s.release_request = true,
                Effect::Conflict => {
                    tracing::error!(intent = %job.intent.id, "the acquirer did something else than was asked for");
                }
                Effect::SendAgain | Effect::AskLater => {}
            }
        }
        if !after.state.terminal() {
            s.schedule = Some(Schedule::Due(self.next_question(now, after)));
        }
        let detail = json!({ "attempt": after.id, "state": after.state });
        let action = format!("{}.{}", after.operation.as_str(), after.state.name());
        s.audit.push(self.audit_row(now, OURSELVES, &action, job.intent.id.as_str(), detail));
        s.outbox.extend(self.news_of_state(now, job, after));
        s
    }

    /// What is sent for an attempt: always the same bytes for the same attempt. And its hash, unless it needs a card that can't be used any
    /// more: then it may only be asked about.
    async fn request_of(&self, job: &Job) -> Result<(GatewayRequest, Option<RequestHash>), StoreError> {
        let mut request = GatewayRequest {
            operation: job.attempt.operation,
            our_reference: job.attempt.id.to_string(),
            request: job.intent.request.to_string(),
            number: job.attempt.number,
            prepared_at: job.attempt.prepared_at,
            idempotency_key: GatewayKey(format!("voicepay-{}", job.attempt.id)),
            amount: job.attempt.amount,
            card: None,
            original: job.original.as_ref().map(original_of),
            statement: job.payee_name.clone(),
        };
        let opens = job.attempt.operation.opens();
        let always_named = self.gateway_of(job)?.always_names_card();
        if !opens && !always_named {
            let hash = hash_of(&request, None, "");
            return Ok((request, Some(hash)));
        }
        let (card, usable) = self.card_of(job, always_named).await?;
        let hash = match &card {
            // What follows is known by its original, whether or not the card is still there.
            Some(_) | None if !opens => Some(hash_of(&request, None, "")),
            Some(card) if usable => Some(hash_of(&request, card.expiry, &hex::encode(self.vault.digest_card(&card.pan)))),
            Some(_) | None => None,
        };
        request.card = card;
        Ok((request, hash))
    }

    /// The card of a payment, and whether it may be charged. One that may not be is given only where it is `always_named`: money goes back to a
    /// card that was blocked meanwhile, too.
    async fn card_of(&self, job: &Job, always_named: bool) -> Result<(Option<CardData>, bool), StoreError> {
        let Some(card) = self.store.card(&job.intent.card).await? else { return Ok((None, false)) };
        let usable = card.usable(self.clock.now());
        if card.customer != job.intent.customer || !(usable || always_named) {
            return Ok((None, false));
        }
        match self.vault.unseal_card(&card.id, &card.customer, &card.sealed) {
            Ok(pan) => Ok((Some(CardData { pan, expiry: card.expiry }), usable)),
            Err(error) => {
                tracing::error!(card = %card.id, %error, "a card's number can't be read");
                Ok((None, false))
            }
        }
    }
}

fn original_of(attempt: &Attempt) -> Original {
    Original {
        operation: attempt.operation,
        our_reference: attempt.id.to_string(),
        number: attempt.number,
        prepared_at: attempt.prepared_at,
        amount: attempt.amount,
        gateway_reference: attempt.state.gateway_reference().unwrap_or_default().to_owned(),
    }
}

/// SHA-256 over every field that is sent, each with its length before it, the card's keyed digest standing for its number.
fn hash_of(r: &GatewayRequest, expiry: Option<Expiry>, card_digest: &str) -> RequestHash {
    let amount = r.amount.to_string();
    let expiry = expiry.map(|e| e.to_string()).unwrap_or_default();
    let mut hasher = Sha256::new();
    // A charge's hash stays what it was before there were other operations: one may be in flight while this program is updated.
    let operation = if r.operation == Operation::Charge { None } else { Some(r.operation.as_str()) };
    let original = r.original.as_ref().map(|o| o.our_reference.as_str());
    let fields = [r.our_reference.as_str(), &r.idempotency_key.0, &amount, card_digest, &expiry, &r.statement];
    for field in fields.into_iter().chain(operation).chain(original) {
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
