//! Audio that was heard before is a recording: every utterance of a nominated customer is fingerprinted, compared with those kept of the
//! customer (of this call too), and kept itself, sealed, until it expires. Refused utterances, enrolment and every "yes" are among them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ahead::Findings;
use super::desk::{Desk, DeskError};
use super::driver::Call;
use super::figures;
use super::services::Services;
use super::timeline::Who;
use super::work::{Done, Kept};
use crate::clock::Timestamp;
use crate::dialogue::ScoreTrouble;
use crate::ids::{CallId, CustomerId};
use crate::speech::Utterance;
use crate::store::{self, FingerprintRecord};
use crate::voiceprint::fingerprint::{Fingerprint, FingerprintKey, Likeness, Probe};

/// `[reuse]`: how long what was heard is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReuseConfig {
    /// Fingerprints of a customer's utterances are kept for so many days: a recording that is played back within them is known again.
    pub keep_days: u32,
    /// A customer keeps at most so many; the oldest make room.
    pub keep_limit_utterances: u32,
}

impl Default for ReuseConfig {
    fn default() -> Self {
        Self { keep_days: 90, keep_limit_utterances: 500 }
    }
}

impl ReuseConfig {
    /// When what is heard now expires.
    pub fn expiry(&self, now: Timestamp) -> Timestamp {
        now.plus(Duration::from_secs(u64::from(self.keep_days) * 24 * 3600))
    }
}

impl Call {
    /// Has the utterance that just ended compared and kept, whatever the dialogue makes of it.
    pub(super) fn remember(&mut self, findings: &Arc<Findings>) {
        let Some(customer) = self.customer.clone() else { return };
        let (services, findings, call) = (Arc::clone(&self.services), Arc::clone(findings), self.id.clone());
        self.jobs.spawn(async move {
            let lines = match services.heard_before(&findings, &customer).await {
                Ok(Some(likeness)) => {
                    tracing::warn!(%call, "an utterance was heard before");
                    let line = "this audio was heard before: it is a recording, and nothing is accepted on it".to_owned();
                    let numbers = figures([
                        ("factor", "reuse".into()),
                        ("reuse_strength", likeness.strength.into()),
                        ("reuse_over_ms", likeness.over_ms.into()),
                    ]);
                    if let Err(error) =
                        services.off_clock(services.desk.record_reuse(&call, &customer, services.clock.now())).await
                    {
                        tracing::error!(%call, %error, "that audio was heard before could not be noted");
                    }
                    vec![(Who::Check, line, numbers)]
                }
                // What stands in the way is told to whoever asks about the utterance.
                Ok(None) | Err(_) => Vec::new(),
            };
            Done { lines, kept: Kept::Nothing, input: None }
        });
    }
}

impl Services {
    /// Whether this utterance is audio that was heard of this customer before. The first who asks has it compared and kept; the work goes
    /// on if the call ends meanwhile.
    pub(super) async fn heard_before(
        self: &Arc<Self>,
        findings: &Findings,
        customer: &CustomerId,
    ) -> Result<Option<Likeness>, ScoreTrouble> {
        let work = || {
            let (services, utterance, customer) = (Arc::clone(self), Arc::clone(&findings.utterance), customer.clone());
            async move {
                let work = tokio::spawn(async move { services.compare_and_keep(utterance, &customer).await });
                work.await.unwrap_or(Err(ScoreTrouble::Failed))
            }
        };
        *findings.reuse.get_or_init(work).await
    }

    /// The same as a yes or no; nothing was kept of a caller whom nothing nominated.
    pub(super) async fn is_reused(
        self: &Arc<Self>,
        findings: &Findings,
        customer: Option<&CustomerId>,
    ) -> Result<bool, ScoreTrouble> {
        match customer {
            Some(customer) => Ok(self.heard_before(findings, customer).await?.is_some()),
            None => Ok(false),
        }
    }

    async fn compare_and_keep(&self, utterance: Arc<Utterance>, customer: &CustomerId) -> Result<Option<Likeness>, ScoreTrouble> {
        let key = FingerprintKey::new(&self.desk.vault.fingerprint_key(customer));
        let maker = Arc::clone(&self.fingerprinter);
        let probe = off_thread(move || Probe::new(&maker, &utterance.samples_16k, &key)).await?;
        if probe.fingerprint().is_empty() {
            return Ok(None);
        }
        let now = self.clock.now();
        let kept = self.off_clock(self.desk.exchange_fingerprint(customer, probe.fingerprint(), &self.reuse, now)).await;
        let earlier = kept.map_err(|error| {
            tracing::error!(%error, "a fingerprint could not be kept or compared");
            ScoreTrouble::Failed
        })?;
        off_thread(move || {
            let found = earlier.iter().filter_map(|e| probe.same_audio(e));
            found.max_by(|a, b| a.strength.total_cmp(&b.strength))
        })
        .await
    }
}

/// Some milliseconds of arithmetic, beside the pool that models run on: their queue must not delay it.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ScoreTrouble> {
    tokio::task::spawn_blocking(work).await.map_err(|_panicked| ScoreTrouble::Failed)
}

impl Desk {
    /// Keeps a fingerprint; gives the customer's earlier ones. One that can't be opened is left out: the database was altered, or another
    /// version made it, and neither may keep a customer from paying for the days until it expires.
    async fn exchange_fingerprint(
        &self,
        customer: &CustomerId,
        new: &Fingerprint,
        config: &ReuseConfig,
        now: Timestamp,
    ) -> Result<Vec<Fingerprint>, DeskError> {
        let key = store::customer_key_to_seal(&*self.store, &self.vault, customer).await?;
        let sealed = key.seal_fingerprint(&new.to_bytes())?;
        let record = FingerprintRecord { customer: customer.clone(), sealed, heard_at: now, expires_at: config.expiry(now) };
        let rows = self.store.keep_fingerprint(&record, config.keep_limit_utterances).await?;
        let opened = rows.iter().map(|row| {
            let bytes = key.unseal_fingerprint(row).ok()?;
            Fingerprint::from_bytes(&bytes)
        });
        let earlier: Vec<Fingerprint> = opened.flatten().collect();
        if earlier.len() < rows.len() {
            tracing::error!(unreadable = rows.len() - earlier.len(), "fingerprints could not be opened and were not compared");
        }
        Ok(earlier)
    }

    /// For the audit trail and the outside: somebody played a recording.
    async fn record_reuse(&self, call: &CallId, customer: &CustomerId, now: Timestamp) -> Result<(), DeskError> {
        let mut audit = self.audit(now, "audio.heard_before", customer.as_str(), call);
        audit.detail = serde_json::json!({ "call": call, "factor": "reuse" });
        Ok(self.store.announce(&self.news(now, "audio.heard_before", customer, call), &audit).await?)
    }
}
