//! The edge of payment and ledger: takes an agreed charge over in one transaction, sends it from a worker, and asks about whatever is in
//! doubt. A caller who hangs up changes nothing here.

pub mod crash;
mod records;
mod send;
mod submit;
mod worker;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::clock::{Clock, Entropy};
use crate::gateway::Gateway;
use crate::ids::{AttemptId, CallId, CardId, CustomerId, IntentId, RequestId};
use crate::money::Money;
use crate::payment::{AttemptState, DeclineReason, Doubt, Evidence, Receipt, ReconcilePolicy};
use crate::store::{Payment, Store, StoreError, SubmitRefusal};
use crate::vault::Vault;

/// `[processor]`: bounds of sending and asking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessorConfig {
    /// How long the acquirer may take to answer before the outcome counts as in doubt, in milliseconds.
    pub gateway_timeout_ms: u64,
    /// How often the worker looks for work that nobody announced, in milliseconds.
    pub poll_ms: u64,
    /// How often attempts in doubt are asked about, in milliseconds.
    pub sweep_ms: u64,
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
            not_found_grace_ms: 60_000,
            resend_window_ms: 24 * 3600 * 1000,
            max_sends: 3,
            batch: 16,
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
    /// In which call: the same call and request submit once.
    pub call: CallId,
    /// Why it is allowed.
    pub evidence: Evidence,
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

/// How a charge ended, as far as is known.
#[allow(clippy::large_enum_variant)] // one a call, soon dropped
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Charged, once.
    Paid(Receipt),
    /// Not charged, and it won't be.
    Declined(DeclineReason),
    /// Charged and taken back by the acquirer.
    Reversed,
    /// Not known yet: the sweep goes on asking. Don't pay again.
    Unknown,
}

/// Submits, sends and reconciles. Cheap to clone.
#[derive(Clone)]
pub struct Processor {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processor").field("gateway", &self.inner.gateway).finish_non_exhaustive()
    }
}

struct Inner {
    store: Arc<dyn Store>,
    gateway: Arc<dyn Gateway>,
    vault: Vault,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cfg: ProcessorConfig,
    /// Something was submitted.
    work: Notify,
    /// Counts what has changed; whoever waits for an outcome looks again.
    changed: watch::Sender<u64>,
    /// Attempts that a task of this process is busy with, so that the sweep does not ask about what is being sent right now. Only to
    /// save questions: across processes, and whatever this says, the store's version check decides who writes.
    busy: Mutex<HashSet<AttemptId>>,
}

impl Processor {
    /// Joins the parts; starts nothing.
    pub fn new(
        store: Arc<dyn Store>,
        gateway: Arc<dyn Gateway>,
        vault: Vault,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        cfg: ProcessorConfig,
    ) -> Self {
        let (changed, _) = watch::channel(0);
        let (work, busy) = (Notify::new(), Mutex::default());
        Self { inner: Arc::new(Inner { store, gateway, vault, clock, entropy, cfg, work, changed, busy }) }
    }

    /// Waits until the charge has ended, at most `wait`; then [`Outcome::Unknown`], which the acquirer's silence also gives. `NotFound` for
    /// an intent that was never submitted.
    pub async fn outcome(&self, intent: &IntentId, wait: Duration) -> Result<Outcome, StoreError> {
        let deadline = Instant::now() + wait;
        let mut changed = self.inner.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let payment = self.inner.store.payment(intent).await?.ok_or(StoreError::NotFound("payment"))?;
            if let Some(outcome) = settled(&payment) {
                return Ok(outcome);
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(Outcome::Unknown);
            }
            // Another process may settle it: then nothing is announced here, so look now and then.
            let look = deadline.min(now + Duration::from_millis(self.inner.cfg.poll_ms.max(1)));
            let _timed_out = tokio::time::timeout_at(look, changed.changed()).await;
        }
    }
}

/// The outcome, if waiting longer makes no sense.
fn settled(payment: &Payment) -> Option<Outcome> {
    match &payment.attempts.last()?.state {
        AttemptState::Prepared | AttemptState::Dispatched { .. } => None,
        AttemptState::NeedsReconciliation { doubt: Doubt::NoAnswer, .. } => None,
        // Only a person or the acquirer's own correction can resolve it.
        AttemptState::NeedsReconciliation { doubt: Doubt::Mismatch { .. }, .. } => Some(Outcome::Unknown),
        AttemptState::Succeeded { .. } => payment.receipt.clone().map(Outcome::Paid),
        AttemptState::Declined { reason, .. } => Some(Outcome::Declined(*reason)),
        AttemptState::Reversed { .. } => Some(Outcome::Reversed),
    }
}

/// Marks an attempt as busy for as long as it lives.
struct Busy {
    inner: Arc<Inner>,
    id: AttemptId,
}

impl Busy {
    fn claim(inner: &Arc<Inner>, id: &AttemptId) -> Option<Self> {
        let fresh = inner.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        fresh.then(|| Self { inner: inner.clone(), id: id.clone() })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.inner.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
