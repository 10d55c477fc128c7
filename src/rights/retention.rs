//! Clocks: what is over its time is erased, in bounded batches, each with its audit row. Several nodes may run: one takes the run that is due, and
//! two that erase at once don't erase the same twice. Money, books and the audit chain have no clock here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::RetentionConfig;
use crate::clock::{Clock, Entropy, Timestamp};
use crate::store::consents::BY_RETENTION;
use crate::store::retention::Overdue;
use crate::store::{AuditRecord, Store, StoreError};
use crate::telemetry::metrics::metrics;

/// Batches of one kind that one run erases; what is left waits for the next.
const BATCHES_LIMIT: u32 = 10_000;
/// Between batches others have their turn, in milliseconds.
const PAUSE_MS: u64 = 20;
/// How often it is looked whether a run is due, in seconds; the first time is one such after the start.
const LOOK_S: u64 = 600;
/// How months are counted, in days.
const MONTH_DAYS: u32 = 30;

/// Unused voiceprints that are counted at most.
const VOICES_LIMIT: u32 = 100_000;
/// The word for voiceprints that nobody used.
const UNUSED_VOICEPRINTS: &str = "unused_voiceprints";
/// The word for files of call detail records.
const CALL_DETAILS: &str = "call_detail_files";

/// One clock: what, how long, and by which key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClockOf {
    /// What it erases.
    pub what: &'static str,
    /// The key.
    pub key: &'static str,
    /// After so many days.
    pub days: u32,
}

impl ClockOf {
    /// What is older than that at `now` goes.
    pub fn before(&self, now: Timestamp) -> Timestamp {
        now.minus(Duration::from_secs(u64::from(self.days) * 86_400))
    }
}

impl RetentionConfig {
    /// The clock of a kind.
    pub fn clock_of(&self, what: Overdue) -> ClockOf {
        let (key, days) = match what {
            Overdue::CallEvidence => ("retention.call_evidence_days", self.call_evidence_days),
            Overdue::CallRecords | Overdue::CallsOwed => ("retention.call_records_days", self.call_records_days),
            Overdue::FailedFactors => ("retention.failed_factors_days", self.failed_factors_days),
            Overdue::Invitations => ("retention.invitations_days", self.invitations_days),
            Overdue::CodeDeliveries => ("retention.code_deliveries_days", self.code_deliveries_days),
            Overdue::AppSessions => ("retention.app_sessions_days", self.app_sessions_days),
            Overdue::ClosedCustomers => ("retention.closed_customers_days", self.closed_customers_days),
        };
        ClockOf { what: what.as_str(), key, days }
    }

    /// That of voiceprints.
    pub fn voices(&self) -> ClockOf {
        let days = self.unused_voiceprint_months.saturating_mul(MONTH_DAYS);
        ClockOf { what: UNUSED_VOICEPRINTS, key: "retention.unused_voiceprint_months", days }
    }

    /// That of call detail records. They are files, so that each machine erases its own.
    pub fn call_details(&self) -> ClockOf {
        ClockOf { what: CALL_DETAILS, key: "retention.call_details_days", days: self.call_details_days }
    }

    /// All of them.
    pub fn clocks(&self) -> Vec<ClockOf> {
        Overdue::ALL.map(|what| self.clock_of(what)).into_iter().chain([self.voices(), self.call_details()]).collect()
    }
}

/// How much of each kind.
pub type Counts = BTreeMap<&'static str, u64>;

/// What a run would erase now.
pub async fn overdue(store: &dyn Store, cfg: &RetentionConfig, now: Timestamp) -> Result<Counts, StoreError> {
    let mut all = Counts::new();
    for what in Overdue::ALL {
        all.insert(what.as_str(), store.overdue(what, cfg.clock_of(what).before(now)).await?);
    }
    let voices = store.unused_voices(cfg.voices().before(now), VOICES_LIMIT).await?;
    all.insert(UNUSED_VOICEPRINTS, u64::try_from(voices.len()).unwrap_or(u64::MAX));
    Ok(all)
}

/// Erases what is over its time at `now`, and writes down how much it was. Stopped in the middle it goes on another time.
pub async fn run(
    store: &dyn Store,
    cfg: &RetentionConfig,
    entropy: &dyn Entropy,
    now: Timestamp,
    stop: &CancellationToken,
) -> Result<Counts, StoreError> {
    let audit = |action: &str, subject: &str, detail| AuditRecord::fresh(now, entropy, BY_RETENTION, action, subject, detail);
    let mut all = Counts::new();
    for what in Overdue::ALL {
        let clock = cfg.clock_of(what);
        let before = clock.before(now);
        for _ in 0..BATCHES_LIMIT {
            let row = audit("retention.erased", what.as_str(), json!({ "before": before.to_string(), "key": clock.key }));
            let erased = store.erase_overdue(what, before, cfg.batch_rows, &row).await?;
            count(&mut all, what.as_str(), erased);
            if erased < u64::from(cfg.batch_rows) || stop.is_cancelled() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
        }
    }
    let (clock, mut batches) = (cfg.voices(), 0);
    let before = clock.before(now);
    loop {
        let unused = store.unused_voices(before, cfg.batch_rows).await?;
        batches += 1;
        let mut erased = 0;
        for customer in &unused {
            let detail = json!({ "unused_since": before.to_string(), "key": clock.key });
            match store.delete_template(customer, &audit("voice.withdrawn", customer.as_str(), detail)).await {
                Ok(()) => erased += 1,
                // Withdrawn meanwhile, or another node was faster.
                Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        count(&mut all, UNUSED_VOICEPRINTS, erased);
        if erased == 0 || batches >= BATCHES_LIMIT || stop.is_cancelled() {
            break;
        }
    }
    store.audit(&audit("retention.run", "retention", json!({ "erased": all }))).await?;
    Ok(all)
}

/// Writes down that so many files of a clock were erased on this machine, and counts them.
pub async fn erased_files(
    store: &dyn Store,
    entropy: &dyn Entropy,
    clock: ClockOf,
    now: Timestamp,
    files: u64,
) -> Result<(), StoreError> {
    metrics().retention_erased.add([clock.what], files);
    if files == 0 {
        return Ok(());
    }
    let detail = json!({ "before": clock.before(now).to_string(), "key": clock.key, "erased": { clock.what: files } });
    store.audit(&AuditRecord::fresh(now, entropy, BY_RETENTION, "retention.erased", clock.what, detail)).await
}

fn count(all: &mut Counts, what: &'static str, erased: u64) {
    let so_far = all.entry(what).or_default();
    *so_far = so_far.saturating_add(erased);
    metrics().retention_erased.add([what], erased);
}

/// Looks at the clocks in the background.
#[derive(Clone)]
pub struct Sweeper {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cfg: RetentionConfig,
}

impl std::fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweeper").field("cfg", &self.cfg).finish_non_exhaustive()
    }
}

impl Sweeper {
    /// Joins the parts.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>, cfg: RetentionConfig) -> Self {
        Self { store, clock, entropy, cfg }
    }

    /// Until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(LOOK_S)) => {}
            }
            match self.if_due(&stop).await {
                Ok(None) => {}
                Ok(Some(erased)) => tracing::info!(?erased, "what was over its time is erased"),
                Err(error) => tracing::error!(%error, "what is over its time could not be erased; it is at the next run"),
            }
        }
    }

    /// A run, if none was made by any node for as long as there is to be none.
    pub async fn if_due(&self, stop: &CancellationToken) -> Result<Option<Counts>, StoreError> {
        let now = self.clock.now();
        let before = now.minus(Duration::from_secs(u64::from(self.cfg.every_hours) * 3_600));
        if !self.store.claim_retention(now, before).await? {
            return Ok(None);
        }
        run(&*self.store, &self.cfg, &*self.entropy, now, stop).await.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SeededEntropy};
    use crate::ids::{CallId, CustomerId, Tenant};
    use crate::language::Language;
    use crate::store::{CallRecord, Customer, CustomerStatus, EnrolmentRecord, SqliteStore, StoreConfig, TemplateRecord};

    const DAY: Duration = Duration::from_secs(86_400);

    async fn house() -> (tempfile::TempDir, Arc<dyn Store>, Arc<SeededEntropy>, Arc<ManualClock>) {
        let dir = tempfile::tempdir().unwrap();
        let cfg = StoreConfig { path: dir.path().join("v.db"), ..StoreConfig::default() };
        let store = Arc::new(SqliteStore::open(&cfg).await.unwrap());
        (dir, store, Arc::new(SeededEntropy::new(5)), Arc::new(ManualClock::starting_at(Timestamp(1_700_000_000_000))))
    }

    fn audit(entropy: &dyn Entropy, at: Timestamp) -> AuditRecord {
        AuditRecord::fresh(at, entropy, "test", "did", "it", json!({}))
    }

    async fn enrolled(store: &dyn Store, entropy: &dyn Entropy, now: Timestamp) -> CustomerId {
        let customer = Customer {
            id: CustomerId::fresh(entropy),
            tenant: Tenant::default(),
            name: "Ann".into(),
            customer_number: format!("{:08}", entropy.below(100_000_000)),
            numbers: Vec::new(),
            status: CustomerStatus::Active,
            language: Language::English,
            created_at: now,
        };
        store.add_customer(&customer, &audit(entropy, now)).await.unwrap();
        let enrolment = EnrolmentRecord {
            template: TemplateRecord { customer: customer.id.clone(), model: "m".into(), sealed: vec![1, 2, 3], created_at: now },
            invite: None,
            consent_text_version: "1".into(),
            consent_by: "test".into(),
            consent_at: now,
            call: None,
        };
        store.complete_enrolment(&enrolment, &audit(entropy, now)).await.unwrap();
        customer.id
    }

    async fn pays(store: &dyn Store, entropy: &dyn Entropy, customer: &CustomerId, now: Timestamp) -> CallId {
        let call = CallRecord {
            id: CallId::fresh_at(now, entropy),
            customer: Some(customer.clone()),
            calling: None,
            trunk: "carrier".into(),
            started_at: now,
            ended_at: Some(now),
            verdict: Some("Paid".into()),
            record: json!({ "voice_llr": 4.0 }),
        };
        store.call_started(&call).await.unwrap();
        store.call_ended(&call).await.unwrap();
        call.id
    }

    #[tokio::test]
    async fn as_the_clock_moves_evidence_goes_then_calls_then_voices_that_nobody_used() {
        let (_dir, store, entropy, clock) = house().await;
        let cfg = RetentionConfig::default();
        let sweeper = Sweeper::new(Arc::clone(&store), clock.clone(), entropy.clone(), cfg.clone());
        let stop = CancellationToken::new();
        let (ann, bob) = (enrolled(&*store, &*entropy, clock.now()).await, enrolled(&*store, &*entropy, clock.now()).await);
        let call = pays(&*store, &*entropy, &ann, clock.now()).await;
        let none = sweeper.if_due(&stop).await.unwrap().unwrap();
        assert!(none.values().all(|n| *n == 0), "{none:?}");
        assert_eq!(sweeper.if_due(&stop).await.unwrap(), None, "once a day");

        clock.advance(DAY * (cfg.call_evidence_days + 1));
        let over = overdue(&*store, &cfg, clock.now()).await.unwrap();
        let erased = sweeper.if_due(&stop).await.unwrap().unwrap();
        assert_eq!((over["call_evidence"], &erased), (1, &over), "a dry run tells what a run erases");
        assert_eq!(store.call(&call).await.unwrap().unwrap().record, json!({}));
        clock.advance(DAY * 365);
        assert_eq!(sweeper.if_due(&stop).await.unwrap().unwrap()["call_records"], 1);
        assert!(store.call(&call).await.unwrap().is_none());

        pays(&*store, &*entropy, &ann, clock.now()).await;
        clock.advance(DAY * (cfg.unused_voiceprint_months * MONTH_DAYS - 365));
        let erased = sweeper.if_due(&stop).await.unwrap().unwrap();
        assert_eq!(erased[UNUSED_VOICEPRINTS], 1);
        assert!(store.template(&bob).await.unwrap().is_none() && store.template(&ann).await.unwrap().is_some());
        let ended = store.consents_of(&bob).await.unwrap().remove(0).withdrawn.unwrap();
        assert_eq!((ended.by.as_str(), ended.how.as_str()), (BY_RETENTION, "retention"));
        let trail = store.audit_trail(9).await.unwrap();
        assert_eq!((trail[0].action.as_str(), &trail[0].detail["erased"][UNUSED_VOICEPRINTS]), ("retention.run", &json!(1)));
        let gone = trail.iter().find(|r| r.action == "voice.withdrawn").unwrap();
        assert_eq!((gone.subject.as_str(), &gone.detail["erased"]["templates"]), (bob.as_str(), &json!(1)));
    }
}
