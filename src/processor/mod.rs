//! The edge of payment and ledger: takes an agreed charge over in one transaction, sends it from a worker, and asks about whatever is in
//! doubt; captures, voids and refunds go the same way. A caller who hangs up changes nothing here.
//!
//! Several processes may work on one database. A worker claims attempts for the time of a lease; one that runs out is taken over. Leases only save
//! work: whoever writes an attempt writes over the version that it read, so that of two workers one loses, and an attempt is sent only
//! after the commit that says so.

pub mod check;
pub mod crash;
mod dispute;
pub mod log;
mod news;
mod operate;
mod records;
mod schedule;
pub mod sealer;
mod send;
mod signing;
mod submit;
mod worker;

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::clock::{Clock, Entropy, Timestamp};
use crate::gateway::{Acquirers, Gateway};
use crate::ids::{BankName, CardId, CustomerId, IntentId, RequestId, WorkerId};
use crate::money::Money;
use crate::payment::{
    Approval, Attempt, AttemptState, Capture, DeclineReason, DisputeError, Evidence, Guardianship, IntentStatus, Occasion,
    Operation, OperationRefusal, Purchase, PurchaseAccount, Receipt, ReconcilePolicy, TransitionError,
};
use crate::store::signing::Signer;
use crate::store::{AsRead, AuditRecord, Job, OutboxRecord, Payment, Spent, SpentSince, Store, StoreError, SubmitRefusal};
use crate::vault::{SigningPurpose, Vault};

pub use signing::document;

/// `[processor]`: bounds of sending and asking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessorConfig {
    /// How long the acquirer may take to answer before the outcome counts as in doubt, in milliseconds.
    pub gateway_timeout_ms: u64,
    /// How often the worker looks for work that nobody announced, in milliseconds.
    pub poll_ms: u64,
    /// How soon an attempt in doubt is asked about, in milliseconds, and how often expired requests and authorisations are looked for. Each
    /// further question waits as long as the attempt has been in doubt by then, give or take a quarter.
    pub sweep_ms: u64,
    /// How long a question waits at most, in milliseconds.
    pub question_cap_ms: u64,
    /// How much longer than `gateway_timeout_ms` a worker has an attempt for itself, in milliseconds: time to write the answer down.
    pub lease_margin_ms: u64,
    /// How long an authorisation may wait for its capture before it is voided, in milliseconds. Acquirers drop it after about seven days.
    pub authorisation_ttl_ms: u64,
    /// "Not found" counts for nothing before this long after the last send, in milliseconds.
    pub not_found_grace_ms: u64,
    /// The same bytes may be sent again this long after the first send, in milliseconds; the acquirer keeps idempotency keys no longer.
    pub resend_window_ms: u64,
    /// How often one attempt may be sent, the first time included.
    pub max_sends: u32,
    /// How many attempts are sent or asked about at the same time.
    pub batch: u32,
}

impl Default for ProcessorConfig {
    fn default() -> Self {
        Self {
            gateway_timeout_ms: 15_000,
            poll_ms: 1_000,
            sweep_ms: 10_000,
            question_cap_ms: 15 * 60 * 1000,
            lease_margin_ms: 10_000,
            authorisation_ttl_ms: 6 * 24 * 3600 * 1000,
            not_found_grace_ms: 60_000,
            resend_window_ms: 23 * 3600 * 1000,
            max_sends: 3,
            batch: 64,
        }
    }
}

impl ProcessorConfig {
    /// The bounds as the pure core wants them.
    pub fn policy(&self) -> ReconcilePolicy {
        ReconcilePolicy {
            not_found_grace: Duration::from_millis(self.not_found_grace_ms),
            resend_window: Duration::from_millis(self.resend_window_ms),
            max_sends: self.max_sends,
        }
    }
}

/// What the customer agreed to.
#[derive(Clone, Debug)]
pub struct ChargeOrder {
    /// Who pays.
    pub customer: CustomerId,
    /// What is paid.
    pub request: RequestId,
    /// How much, as it was read back; must be what the request asks.
    pub amount: Money,
    /// With which card.
    pub card: CardId,
    /// By what the customer said yes: the same occasion and request submit once.
    pub occasion: Occasion,
    /// Charged at once, or authorised now and captured by a command.
    pub capture: Capture,
    /// Why it is allowed.
    pub evidence: Evidence,
    /// What rules were asked with, where they were.
    pub guards: OrderGuards,
}

/// What must still be so when an order is taken.
#[derive(Clone, Debug, Default)]
pub struct OrderGuards {
    /// The sums that rules were asked with.
    pub spent: Option<(SpentSince, Spent)>,
    /// What must stand as it was read.
    pub stand: Vec<AsRead>,
    /// What everybody agreed to; used with the charge, in one transaction.
    pub approval: Option<Approval>,
    /// Whose guardians hear of it.
    pub guardianships: Vec<Guardianship>,
    /// The purchase that it carries out.
    pub purchase: Option<PurchaseGuard>,
}

/// A confirmed purchase: used with the charge, and charged at its account's bank.
#[derive(Clone, Debug)]
pub struct PurchaseGuard {
    /// The purchase, awaiting.
    pub purchase: Purchase,
    /// The account, as it is once it was used.
    pub account: PurchaseAccount,
    /// Which bank.
    pub bank: BankName,
    /// When the bank's answer is looked for.
    pub look_at: Timestamp,
    /// What the outside and the trail hear of it.
    pub told: Vec<(OutboxRecord, AuditRecord)>,
}

/// Why an order was not taken. Nothing was written and nothing will be charged.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// A rule refuses it.
    #[error(transparent)]
    Refused(#[from] SubmitRefusal),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A capture, void or refund that somebody asks for.
#[derive(Clone, Debug)]
pub struct OperationOrder {
    /// Chosen by whoever asks: the same key with the same content is the same command.
    pub key: String,
    /// Of which payment.
    pub intent: IntentId,
    /// [`Operation::Capture`], [`Operation::Void`] or [`Operation::Refund`].
    pub operation: Operation,
    /// How much; `None`: all that is left.
    pub amount: Option<Money>,
    /// Who asks, for the audit trail.
    pub by: String,
    /// Why, for the audit trail; never a card number, name or telephone number.
    pub why: String,
}

/// Why an operation or decision was not taken. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// A rule refuses it.
    #[error(transparent)]
    Refused(#[from] OperationRefusal),
    /// The attempt is not in a state for it.
    #[error(transparent)]
    Transition(#[from] TransitionError),
    /// A rule of disputes refuses it.
    #[error(transparent)]
    Dispute(#[from] DisputeError),
    /// The database failed, or its rules refuse it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a charge ended, as far as is known.
#[allow(clippy::large_enum_variant)] // one a call, soon dropped
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Charged, once.
    Paid(Receipt),
    /// Reserved on the card; a capture charges it.
    Authorised,
    /// Not charged, and it won't be.
    Declined(DeclineReason),
    /// Charged and taken back by the acquirer.
    Reversed,
    /// Not known yet: the worker goes on asking, or a person has to look. Don't pay again.
    Unknown,
}

/// Submits, sends and reconciles. Cheap to clone.
#[derive(Clone)]
pub struct Processor {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processor").field("acquirers", &self.inner.acquirers).finish_non_exhaustive()
    }
}

struct Inner {
    store: Arc<dyn Store>,
    acquirers: Acquirers,
    vault: Vault,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cfg: ProcessorConfig,
    /// At which acquirer a look for work begins: each in its turn, so that a busy one keeps no other waiting.
    turn: AtomicUsize,
    /// Whose leases are ours.
    worker: WorkerId,
    /// Something was submitted that no place was free for.
    work: Notify,
    /// To the worker of this process, while one runs: what is submitted here is leased to it at once and needs no claim.
    at_hand: Mutex<Option<mpsc::Sender<Job>>>,
    /// Who waits for which outcome.
    waiting: Mutex<HashMap<IntentId, watch::Sender<Option<Outcome>>>>,
    /// Signs receipts.
    signer: Signer,
}

impl Processor {
    /// Joins the parts; starts nothing.
    pub fn new(
        store: Arc<dyn Store>,
        acquirers: impl Into<Acquirers>,
        vault: Vault,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        cfg: ProcessorConfig,
    ) -> Self {
        let worker = WorkerId::fresh(&*entropy);
        let (work, at_hand, waiting) = (Notify::new(), Mutex::default(), Mutex::default());
        let (acquirers, turn, signer) = (acquirers.into(), AtomicUsize::new(0), Signer::new(SigningPurpose::Receipts));
        let inner = Inner { store, acquirers, vault, clock, entropy, cfg, turn, worker, work, at_hand, waiting, signer };
        Self { inner: Arc::new(inner) }
    }

    /// Whether an acquirer of this name is spoken to: the main one, or a bank of the configuration.
    pub fn knows_bank(&self, name: &BankName) -> bool {
        self.inner.acquirers.named(name.as_str()).is_some()
    }

    /// Waits until the charge has ended, at most `wait`; then [`Outcome::Unknown`], which the acquirer's silence also gives. `NotFound` for
    /// an intent that was never submitted.
    pub async fn outcome(&self, intent: &IntentId, wait: Duration) -> Result<Outcome, StoreError> {
        let deadline = Instant::now() + wait;
        let mut waiter = Waiter::new(&self.inner, intent);
        // Mostly it has just been submitted here: then what is announced comes before a first look at all of it would pay.
        let status = self.inner.store.intent_status(intent).await?.ok_or(StoreError::NotFound("payment"))?;
        let mut look_closely = status != IntentStatus::Pending || wait.is_zero();
        loop {
            if std::mem::replace(&mut look_closely, true) {
                let payment = self.inner.store.payment(intent).await?.ok_or(StoreError::NotFound("payment"))?;
                if let Some(outcome) = settled(&payment) {
                    return Ok(outcome);
                }
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(Outcome::Unknown);
            }
            // Another process may settle it: then nothing is announced here, so look now and then.
            let look = deadline.min(now + Duration::from_millis(self.inner.cfg.poll_ms.max(1)));
            if let Ok(Some(outcome)) = tokio::time::timeout_at(look, waiter.told()).await {
                return Ok(outcome);
            }
        }
    }
}

/// Somebody who waits for an outcome; forgotten when dropped.
struct Waiter {
    inner: Arc<Inner>,
    intent: IntentId,
    heard: watch::Receiver<Option<Outcome>>,
}

impl Waiter {
    fn new(inner: &Arc<Inner>, intent: &IntentId) -> Self {
        let mut waiting = inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = waiting.entry(intent.clone()).or_insert_with(|| watch::channel(None).0).subscribe();
        Self { inner: inner.clone(), intent: intent.clone(), heard }
    }

    /// What was announced; `None` if nothing ever will be.
    async fn told(&mut self) -> Option<Outcome> {
        self.heard.wait_for(Option::is_some).await.ok()?.clone()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // This one still counts.
        if waiting.get(&self.intent).is_some_and(|tx| tx.receiver_count() <= 1) {
            waiting.remove(&self.intent);
        }
    }
}

impl Inner {
    /// The acquirer of a job. One that is not known here claims nothing; a job of it can only come by a mistake, and must not go elsewhere.
    fn gateway_of(&self, job: &Job) -> Result<&Arc<dyn Gateway>, StoreError> {
        let name = &job.attempt.gateway;
        self.acquirers.named(name).ok_or_else(|| StoreError::Failed(format!("there is no acquirer `{name}` here")))
    }

    /// Tells those in this process who wait for the outcome. After the commit only.
    fn announce(&self, attempt: &Attempt, receipt: Option<Receipt>) {
        let Some(outcome) = outcome_of(attempt, receipt) else { return };
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tx) = waiting.get(&attempt.intent) {
            tx.send_replace(Some(outcome));
        }
    }
}

/// The outcome, if waiting longer makes no sense.
fn settled(payment: &Payment) -> Option<Outcome> {
    if let Some(receipt) = &payment.receipt {
        return Some(Outcome::Paid(receipt.clone()));
    }
    outcome_of(payment.opening()?, None)
}

/// What an attempt means for whoever waits for the payment to be made.
fn outcome_of(attempt: &Attempt, receipt: Option<Receipt>) -> Option<Outcome> {
    match attempt.operation {
        Operation::Void | Operation::Refund => return None,
        Operation::Capture => return receipt.map(Outcome::Paid),
        Operation::Charge | Operation::Authorise => {}
    }
    match &attempt.state {
        AttemptState::Prepared | AttemptState::Dispatched { .. } | AttemptState::NeedsReconciliation { .. } => None,
        // Only a person or the acquirer's own correction can resolve it.
        AttemptState::Conflicted { .. } => Some(Outcome::Unknown),
        AttemptState::Succeeded { .. } if attempt.operation == Operation::Authorise => Some(Outcome::Authorised),
        AttemptState::Succeeded { .. } => receipt.map(Outcome::Paid),
        AttemptState::Declined { reason, .. } => Some(Outcome::Declined(*reason)),
        AttemptState::Reversed { .. } => Some(Outcome::Reversed),
    }
}

#[cfg(test)]
mod tests;
