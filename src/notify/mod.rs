//! Tells tenants and customers what happened: the outbox goes to webhooks, signed by the Standard Webhooks specification, and one-time codes to a
//! command that sends messages. Nothing is lost: what does not arrive is tried again with growing pauses, and what never does stands in a list
//! of dead letters. Of one payment nothing overtakes: a later event waits until the earlier one has arrived or is dead. Endpoints don't wait for
//! each other.

mod codes;
pub mod config;
mod endpoints;
mod handing;
mod lanes;
mod sending;
#[cfg(test)]
mod tests;

pub use config::NotifyConfig;
pub use endpoints::{Drawn, EndpointChange, EndpointError, NewSecret, check_topics, check_url};

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Entropy, Timestamp};
use crate::store::{Backlog, Store, StoreError};
use crate::telemetry::metrics::metrics;
use crate::vault::Vault;

use lanes::Lanes;

/// Between two rounds that forget what arrived long ago.
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// What one such round forgets at most.
const FORGET_BATCH: u32 = 10_000;
/// Between two looks at how much waits.
const COUNT_EVERY: Duration = Duration::from_secs(15);

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
    /// Whose certificates are believed, once they were read.
    roots: Mutex<Option<Arc<ClientConfig>>>,
    /// Something was handed out.
    handed: Notify,
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

impl Notifier {
    /// Joins the parts; starts nothing.
    pub fn new(store: Arc<dyn Store>, vault: Vault, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>, cfg: NotifyConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                vault,
                clock,
                entropy,
                cfg,
                clients: Mutex::default(),
                roots: Mutex::default(),
                handed: Notify::new(),
            }),
        }
    }

    /// One round: hands out, tries what is due and has a place, sends codes; waits until all of it has ended.
    pub async fn round(&self) -> Result<Round, StoreError> {
        let handed_out = self.hand_out().await?;
        let mut lanes = Lanes::default();
        lanes.fill(self).await?;
        let (tried, arrived) = lanes.finish().await;
        let codes = self.send_codes().await?;
        Ok(Round { handed_out, tried, arrived, codes })
    }

    /// Until told to stop; what is under way is finished. What is handed out, what is sent and what is said to customers don't wait for each other.
    pub async fn run(self, stop: CancellationToken) {
        tokio::join!(
            self.keep_handing_out(&stop),
            self.keep_sending(&stop),
            self.keep_saying_codes(&stop),
            self.keep_order(&stop)
        );
    }

    fn poll(&self) -> Duration {
        Duration::from_millis(self.inner.cfg.poll_ms)
    }

    async fn keep_handing_out(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match self.hand_out().await {
                Ok(0) => {}
                Ok(_) => {
                    self.inner.handed.notify_one();
                    continue;
                }
                Err(error) => tracing::warn!(%error, "the outbox could not be handed out; trying again"),
            }
            pause(self.poll(), stop).await;
        }
    }

    async fn keep_sending(&self, stop: &CancellationToken) {
        let mut lanes = Lanes::default();
        while !stop.is_cancelled() {
            match lanes.fill(self).await {
                // Perhaps there is more, and a place for it.
                Ok(begun) if begun > 0 => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "nobody could be told anything; trying again");
                    pause(self.poll(), stop).await;
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = lanes.next(), if !lanes.idle() => {}
                () = self.inner.handed.notified() => {}
                () = tokio::time::sleep(self.poll()) => {}
            }
        }
        lanes.finish().await;
    }

    async fn keep_saying_codes(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match self.send_codes().await {
                Ok(0) => {}
                Ok(_) => continue,
                Err(error) => tracing::warn!(%error, "codes could not be sent; trying again"),
            }
            pause(self.poll(), stop).await;
        }
    }

    /// Counts what waits, and forgets what arrived long ago.
    async fn keep_order(&self, stop: &CancellationToken) {
        let inner = &*self.inner;
        let mut forgot: Option<Timestamp> = None;
        while !stop.is_cancelled() {
            let now = inner.clock.now();
            match inner.store.backlog().await {
                Ok(backlog) => count(&backlog, now),
                Err(error) => tracing::warn!(%error, "what waits to be told could not be counted"),
            }
            if forgot.is_none_or(|at| now.since(at) >= FORGET_EVERY) {
                forgot = Some(now);
                let kept = Duration::from_secs(u64::from(inner.cfg.keep_days).saturating_mul(24 * 3600));
                if let Err(error) = inner.store.forget_deliveries(now.minus(kept), FORGET_BATCH).await {
                    tracing::warn!(%error, "deliveries of long ago could not be forgotten");
                }
            }
            pause(COUNT_EVERY, stop).await;
        }
    }
}

async fn pause(length: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(length) => {}
    }
}

fn count(backlog: &Backlog, now: Timestamp) {
    let all = metrics();
    let age = backlog.oldest_at.map_or(Duration::ZERO, |at| now.since(at));
    all.outbox_waiting.set_count([], usize::try_from(backlog.outbox).unwrap_or(usize::MAX));
    all.webhooks_waiting.set_count([], usize::try_from(backlog.waiting).unwrap_or(usize::MAX));
    all.webhooks_dead.set_count([], usize::try_from(backlog.dead).unwrap_or(usize::MAX));
    all.webhooks_oldest.set([], age.as_secs_f64());
}
