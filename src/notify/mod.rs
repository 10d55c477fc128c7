//! Tells tenants and customers what happened: the outbox goes to webhooks, signed by the Standard Webhooks specification, and one-time codes to a
//! command that sends messages. Nothing is lost: what does not arrive is tried again with growing pauses, and what never does stands in a list
//! of dead letters. Of one payment nothing overtakes: a later event waits until the earlier one has arrived or is dead.

mod codes;
pub mod config;
mod endpoints;
mod handing;
mod sending;
#[cfg(test)]
mod tests;

pub use config::NotifyConfig;
pub use endpoints::{EndpointError, NewSecret, check_topics, check_url};

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Entropy, Timestamp};
use crate::store::{Store, StoreError};
use crate::vault::Vault;

/// Between two rounds that forget what arrived long ago.
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// What one such round forgets at most.
const FORGET_BATCH: u32 = 10_000;

/// Hands the outbox out and sends what is due. Several nodes may: a delivery is leased to whoever sends it.
#[derive(Clone)]
pub struct Notifier {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    vault: Vault,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cfg: NotifyConfig,
    /// One client an endpoint and URL; made when it is first needed.
    clients: Mutex<HashMap<String, Arc<sending::Sender>>>,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notifier")
    }
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Rows of the outbox that were handed out.
    pub handed_out: usize,
    /// Deliveries that were tried.
    pub tried: usize,
    /// Deliveries that arrived.
    pub arrived: usize,
    /// Codes that were sent.
    pub codes: usize,
}

impl Round {
    /// Whether there was nothing to do.
    pub fn idle(&self) -> bool {
        *self == Self::default()
    }
}

impl Notifier {
    /// Joins the parts; starts nothing.
    pub fn new(store: Arc<dyn Store>, vault: Vault, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>, cfg: NotifyConfig) -> Self {
        Self { inner: Arc::new(Inner { store, vault, clock, entropy, cfg, clients: Mutex::default() }) }
    }

    /// One round: hands out, sends what is due, sends codes.
    pub async fn round(&self) -> Result<Round, StoreError> {
        let handed_out = self.hand_out().await?;
        let (tried, arrived) = self.send_due().await?;
        let codes = self.send_codes().await?;
        Ok(Round { handed_out, tried, arrived, codes })
    }

    /// Rounds until told to stop; what is under way is finished.
    pub async fn run(self, stop: CancellationToken) {
        let pause = Duration::from_millis(self.inner.cfg.poll_ms.max(50));
        let mut forgot: Option<Timestamp> = None;
        loop {
            let idle = match self.round().await {
                Ok(round) => round.idle(),
                Err(error) => {
                    tracing::warn!(%error, "nobody could be told anything; trying again");
                    true
                }
            };
            let now = self.inner.clock.now();
            if forgot.is_none_or(|at| now.since(at) >= FORGET_EVERY) {
                forgot = Some(now);
                let kept = Duration::from_secs(u64::from(self.inner.cfg.keep_days).saturating_mul(24 * 3600));
                if let Err(error) = self.inner.store.forget_deliveries(now.minus(kept), FORGET_BATCH).await {
                    tracing::warn!(%error, "deliveries of long ago could not be forgotten");
                }
            }
            if stop.is_cancelled() {
                return;
            }
            if idle {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}
