//! What follows a payment: captures, voids and refunds on somebody's command, and a person's decision about a conflict.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::crash::{self, Step};
use super::{Inner, OperateError, OperationOrder, Processor};
use crate::ids::{AttemptId, IntentId, TransferId};
use crate::ledger::Cause;
use crate::payment::{Attempt, AttemptEvent, AttemptState, Operation, OperationRefusal, TransitionError, balance, step};
use crate::store::{Begun, Command, NewOperation, StoreError};

/// How many characters an idempotency key may have.
const KEY_LIMIT_CHARS: usize = 100;
/// How many characters of a reason are kept.
const WHY_LIMIT_CHARS: usize = 500;
/// How often an operation that somebody waits for is looked at, in milliseconds.
const LOOK_MS: u64 = 100;

impl Processor {
    /// Takes a capture, void or refund over: after `Ok` it will be done or declined. The same key with the same content gives the same attempt
    /// again, whatever has become of it; with other content it is refused.
    pub async fn operate(&self, order: OperationOrder) -> Result<AttemptId, OperateError> {
        let inner = &self.inner;
        check_key(&order.key)?;
        let now = inner.clock.now();
        let payment = inner.store.payment(&order.intent).await?.ok_or(OperationRefusal::NoSuchPayment)?;
        let command = Command { key: order.key, intent: order.intent, operation: order.operation, amount: order.amount };
        // What was just read is judged again inside the transaction; here it only fills the rows. A command that came before must be known
        // again though what it did leaves nothing to judge, so a refusal here is told only if the store does not know the key.
        // It goes where the payment went.
        let went_to = payment.opening().and_then(|a| inner.acquirers.named(&a.gateway));
        let (operation, gateway) = (command.operation, went_to.unwrap_or(inner.acquirers.main()).name());
        let parts = (&payment.intent, &payment.attempts[..], &payment.disputes[..]);
        let judged = balance::judge(now, parts, operation, command.amount, gateway);
        let (amount, original) = match judged {
            Ok(found) => found,
            Err(refusal) => return inner.known(&command).await?.ok_or(refusal.into()),
        };
        let attempt = Attempt {
            id: AttemptId::fresh_at(now, &*inner.entropy),
            number: 0,
            intent: payment.intent.id.clone(),
            operation,
            of_attempt: Some(original.id.clone()),
            gateway: gateway.to_owned(),
            amount,
            prepared_at: now,
            state: AttemptState::Prepared,
            version: 0,
        };
        // A refund reserves anew, the other way round; a capture or void ends what the authorisation reserved.
        let charged = payment.row_of(original.id.as_str())?;
        let pending = (operation == Operation::Refund).then(|| {
            let id = TransferId::fresh_at(now, &*inner.entropy);
            charged.back(id, now, amount, Cause::Attempt(attempt.id.clone()))
        });
        let why: String = order.why.chars().take(WHY_LIMIT_CHARS).collect();
        let detail = json!({ "attempt": attempt.id, "of": original.id, "amount_minor": amount.minor,
            "currency": amount.currency, "key": command.key, "why": why });
        let name = operation.as_str();
        let (place, schedule) = inner.place_at_hand(now);
        let new = NewOperation {
            audit: inner.audit_row(now, &order.by, &format!("{name}.submitted"), payment.intent.id.as_str(), detail),
            outbox: inner.news(now, &format!("{name}.submitted"), &payment.intent, amount, json!({ "attempt": attempt.id })),
            command,
            attempt,
            schedule,
            pending,
        };
        crash::at(operation, Step::BeforeBegin);
        match inner.store.begin_operation(&new).await? {
            Begun::Fresh(id) => {
                crash::at(operation, Step::AfterBegin);
                tracing::info!(intent = %payment.intent.id, %amount, "{name} submitted");
                // A place that is not used is given back; then the lease runs out and a worker claims it.
                if let Some(job) = inner.store.job(&id).await? {
                    inner.hand_over(place, job);
                }
                Ok(id)
            }
            Begun::Already(id) => Ok(id),
            Begun::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// Waits until an operation has ended, at most `wait`; gives it as it stands then.
    pub async fn operation(&self, attempt: &AttemptId, wait: Duration) -> Result<Attempt, StoreError> {
        let deadline = Instant::now() + wait;
        loop {
            let job = self.inner.store.job(attempt).await?.ok_or(StoreError::NotFound("attempt"))?;
            let now = Instant::now();
            if job.attempt.state.terminal() || now >= deadline {
                return Ok(job.attempt);
            }
            tokio::time::sleep_until(deadline.min(now + Duration::from_millis(LOOK_MS))).await;
        }
    }

    /// A person has found out, with the acquirer, whether an operation in conflict was done at the amount that was asked. Where the acquirer
    /// charged another amount, that it puts the difference right is part of `done`.
    pub async fn resolve(&self, intent: &IntentId, done: bool, by: &str, why: &str) -> Result<Attempt, OperateError> {
        let inner = &self.inner;
        let payment = inner.store.payment(intent).await?.ok_or(OperationRefusal::NoSuchPayment)?;
        let conflicted = payment.attempts.iter().find(|a| matches!(a.state, AttemptState::Conflicted { .. }));
        let attempt = conflicted.ok_or(TransitionError::NoConflict)?;
        let job = inner.store.job(&attempt.id).await?.ok_or(StoreError::NotFound("attempt"))?;
        let now = inner.clock.now();
        let before = job.attempt.state.clone();
        let (after, effects) = step(&inner.cfg.policy(), now, job.attempt.clone(), AttemptEvent::Resolve { done })?;
        let mut settlement = inner.settlement(now, &job, &after, &effects);
        let why: String = why.chars().take(WHY_LIMIT_CHARS).collect();
        let detail = json!({ "attempt": after.id, "was": before, "done": done, "why": why });
        settlement.audit.push(inner.audit_row(now, by, "conflict.resolved", intent.as_str(), detail));
        inner.sign_receipt(&mut settlement).await?;
        crash::point("before_resolution");
        inner.store.advance(&after, &settlement).await?;
        crash::point("after_resolution");
        inner.announce(&after, settlement.receipt);
        Ok(after)
    }
}

impl Inner {
    /// The attempt of a command that came before; `None` for a new one. One with the same key and other content is refused.
    async fn known(&self, command: &Command) -> Result<Option<AttemptId>, OperateError> {
        match self.store.command(&command.key).await? {
            Some((earlier, attempt)) if earlier == *command => Ok(Some(attempt)),
            Some(_) => Err(OperationRefusal::SameKeyOtherContent.into()),
            None => Ok(None),
        }
    }
}

fn check_key(key: &str) -> Result<(), OperationRefusal> {
    let fits = (1..=KEY_LIMIT_CHARS).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'));
    if fits { Ok(()) } else { Err(OperationRefusal::BadKey) }
}
