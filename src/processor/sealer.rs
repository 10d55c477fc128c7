//! The sealer: gives audit rows their place in the chain soon after they were written, and signs a checkpoint now and then.
//!
//! Between its commit and its sealing a row is protected by the database alone: by its triggers and by who may write there.
//! Whoever can switch those off could take it away without a trace in the chain. How such a row is missed all the same: on SQLite
//! its number is missing; on PostgreSQL the note stays that it was to be sealed, which is told by metric, log and `voicepay audit verify`; on both
//! databases a transfer or a receipt stands without its audit row. After sealing it is missed by
//! its hash, after the next checkpoint even if every hash was made anew.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::crash;
use crate::clock::{Clock, Entropy};
use crate::ledger::chain::{Chain, LogId};
use crate::ledger::checkpoint::Checkpoint;
use crate::ledger::keys::PublicKey;
use crate::store::chain::CheckpointRecord;
use crate::store::{Store, StoreError, UnlockError, signing};
use crate::telemetry::metrics::metrics;
use crate::vault::{SigningPurpose, Vault};

/// Of rows that are gone, this many are named; beyond that a number tells no more.
const LOST_LIMIT: u32 = 100;
/// At a stop: so many batches are still sealed, the rest at the next start.
const LAST_BATCHES: u32 = 20;

/// `[audit]`: sealing the audit trail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// How often new audit rows get their place in the hash chain, in milliseconds. Until then only the database protects them.
    pub seal_ms: u64,
    /// How many rows are sealed in one transaction. On SQLite, writers wait for it.
    pub batch_rows: u32,
    /// A checkpoint is signed when so many records were sealed since the last one.
    pub checkpoint_rows: u64,
    /// And when the last one is so old and records were sealed since, in seconds.
    pub checkpoint_s: u64,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { seal_ms: 1_000, batch_rows: 500, checkpoint_rows: 10_000, checkpoint_s: 60 }
    }
}

impl AuditConfig {
    /// What a type can't say; `(key, what)` of the first rule that is broken.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let rule = |ok: bool, key, what| if ok { Ok(()) } else { Err((key, what)) };
        rule((10..=3_600_000).contains(&self.seal_ms), "seal_ms", "must be 10 to 3600000: unsealed rows are not protected")?;
        rule((1..=10_000).contains(&self.batch_rows), "batch_rows", "must be 1 to 10000: writers may wait for a batch")?;
        rule(self.checkpoint_rows >= 1, "checkpoint_rows", "must be at least 1")?;
        rule((1..=86_400).contains(&self.checkpoint_s), "checkpoint_s", "must be 1 to 86400: at least one a day")
    }
}

/// Seals and signs. Any number may run, in one process or several: the database lets one at a time.
#[derive(Clone)]
pub struct Sealer {
    store: Arc<dyn Store>,
    vault: Vault,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cfg: AuditConfig,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("cfg", &self.cfg).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Joins the parts; starts nothing.
    pub fn new(store: Arc<dyn Store>, vault: Vault, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>, cfg: AuditConfig) -> Self {
        Self { store, vault, clock, entropy, cfg }
    }

    /// Seals and signs until `shutdown`, then once more.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut told = Vec::new();
        loop {
            let pause = Duration::from_millis(self.cfg.seal_ms.max(1));
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
            self.turn(&shutdown, &mut told).await;
        }
        let last = async {
            self.seal_batches(LAST_BATCHES).await?;
            self.checkpoint().await
        };
        if let Err(error) = last.await {
            tracing::error!(%error, "the audit trail could not be sealed at the stop; the next start goes on");
        }
    }

    /// Seals beside `work`, and ends after it, when what it wrote is sealed.
    pub async fn beside(&self, work: impl Future<Output = ()>) {
        let stop = CancellationToken::new();
        let work = async {
            work.await;
            stop.cancel();
        };
        tokio::join!(work, self.run(stop.clone()));
    }

    /// One turn: seals what waits, signs a checkpoint if it is time, and tells of rows that are gone if they are not those it told of before.
    async fn turn(&self, shutdown: &CancellationToken, told: &mut Vec<i64>) {
        let work = async {
            // Batch by batch, so that a long queue does not put off the stop.
            while !shutdown.is_cancelled() && self.seal_batches(1).await? >= u64::from(self.cfg.batch_rows.max(1)) {}
            if let Some((chain, last)) = self.standing().await?
                && self.is_due(&chain, last.as_ref())
            {
                self.sign(&chain).await?;
            }
            let lost = self.store.lost(LOST_LIMIT).await?;
            metrics().audit_lost.set_count([], lost.len());
            if lost != *told {
                tracing::error!(rows = ?lost, "audit rows are gone that were written and never sealed");
                *told = lost;
            }
            Ok::<_, UnlockError>(())
        };
        if let Err(error) = work.await {
            tracing::error!(%error, "the audit trail could not be sealed; it will be tried again");
        }
    }

    /// Seals all rows there are; says how many.
    pub async fn seal_all(&self) -> Result<u64, StoreError> {
        self.seal_batches(u32::MAX).await
    }

    async fn seal_batches(&self, batches: u32) -> Result<u64, StoreError> {
        let (fresh, limit) = (LogId::fresh(&*self.entropy), self.cfg.batch_rows.max(1));
        let mut sealed = 0;
        for _ in 0..batches {
            crash::point("before_seal");
            let n = self.store.seal(&fresh, limit).await?;
            if n > 0 {
                crash::point("after_seal");
            }
            sealed += u64::from(n);
            if n < limit {
                break;
            }
        }
        Ok(sealed)
    }

    /// The log's end and its last checkpoint. `None`: nothing was ever sealed.
    async fn standing(&self) -> Result<Option<(Chain, Option<CheckpointRecord>)>, StoreError> {
        let Some(chain) = self.store.chain().await? else { return Ok(None) };
        Ok(Some((chain, self.store.last_checkpoint().await?)))
    }

    fn is_due(&self, chain: &Chain, last: Option<&CheckpointRecord>) -> bool {
        let Some(last) = last else { return true };
        let since = chain.size().saturating_sub(last.size);
        // A clock that was set back must not put checkpoints off for ever: far apart in either direction is old.
        let age_s = self.clock.now().0.abs_diff(last.at.0) / 1_000;
        since >= self.cfg.checkpoint_rows.max(1) || (since > 0 && age_s >= self.cfg.checkpoint_s)
    }

    /// Signs the log as it stands, unless the last checkpoint covers it all. `None`: nothing was ever sealed.
    pub async fn checkpoint(&self) -> Result<Option<CheckpointRecord>, UnlockError> {
        let Some((chain, last)) = self.standing().await? else { return Ok(None) };
        match last.filter(|last| last.size >= chain.size()) {
            Some(last) => Ok(Some(last)),
            None => self.sign(&chain).await.map(Some),
        }
    }

    async fn sign(&self, chain: &Chain) -> Result<CheckpointRecord, UnlockError> {
        let now = self.clock.now();
        let (store, entropy) = (&*self.store, &*self.entropy);
        let key = signing::signer(store, &self.vault, SigningPurpose::Checkpoints, now, entropy).await?;
        let checkpoint = Checkpoint::of(chain, now);
        let note = checkpoint.sign(&PublicKey::new(*key.public()), |body| key.sign(body));
        let record = CheckpointRecord { size: checkpoint.size, at: now, note };
        // The chain only grows, so that what was read a moment ago is still a beginning of it, whoever went on meanwhile. If
        // another process signed the same size, its note says the same.
        crash::point("before_checkpoint");
        self.store.add_checkpoint(&record).await?;
        crash::point("after_checkpoint");
        Ok(record)
    }
}

#[cfg(test)]
mod tests;
