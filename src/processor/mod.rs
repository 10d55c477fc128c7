//! The edge of payment and ledger: takes an agreed charge over in one transaction, sends it from a worker, and asks about whatever is in
//! doubt. A caller who hangs up changes nothing here.

pub mod crash;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Entropy};
use crate::gateway::Gateway;
use crate::ids::{CallId, CardId, CustomerId, IntentId, RequestId};
use crate::money::Money;
use crate::payment::{DeclineReason, Evidence, Receipt, ReconcilePolicy};
use crate::store::{Store, StoreError, SubmitRefusal};
use crate::vault::Vault;

/// `[processor]`: bounds of sending and asking.
#[derive(Clone, Debug, Deserialize)]
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
    /// How many attempts one look takes.
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
        Self { inner: Arc::new(Inner { store, gateway, vault, clock, entropy, cfg }) }
    }

    /// Takes an order over: after `Ok` it will be charged, or declined, whatever becomes of the call. Submitting the same call and request
    /// again gives the same intent.
    pub async fn submit(&self, _order: ChargeOrder) -> Result<IntentId, SubmitError> {
        Err(StoreError::Failed("the processor is not built yet".into()).into())
    }

    /// Waits until the charge has ended, at most `wait`; then [`Outcome::Unknown`].
    pub async fn outcome(&self, _intent: &IntentId, _wait: Duration) -> Result<Outcome, StoreError> {
        Ok(Outcome::Unknown)
    }

    /// The worker: sweeps at the start, then sends what is prepared and asks about what is in doubt until `shutdown`. What is
    /// being sent is finished first.
    pub async fn run(&self, shutdown: CancellationToken) {
        shutdown.cancelled().await;
    }
}
