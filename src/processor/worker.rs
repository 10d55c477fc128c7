//! The worker: carries out what was submitted here, claims what is due, asks about what is in doubt, until it is told to stop.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::records::OURSELVES;
use super::{Inner, OperateError, OperationOrder, Processor, crash};
use crate::clock::Timestamp;
use crate::payment::{AttemptState, Operation};
use crate::store::{Claim, DUE_AT_ONCE, Job, StoreError};

/// How many attempts that were submitted in this process may wait for a task; more are left to be claimed.
const AT_HAND_LIMIT: usize = 256;
/// How many expired authorisations one sweep takes up.
const EXPIRY_LIMIT: u32 = 100;

impl Processor {
    /// The worker: claims at the start whatever a crash may have left, then sends, asks and expires until `shutdown`. What is being sent is
    /// finished first.
    pub async fn run(&self, shutdown: CancellationToken) {
        let inner = &self.inner;
        let room = usize::try_from(inner.cfg.batch.max(1)).unwrap_or(1);
        let poll = Duration::from_millis(inner.cfg.poll_ms.max(1));
        let (place, mut at_hand) = mpsc::channel(AT_HAND_LIMIT);
        *inner.at_hand.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        let mut tasks = JoinSet::new();
        let (mut next_sweep, mut next_look) = (Instant::now(), Instant::now());
        while !shutdown.is_cancelled() {
            let now = Instant::now();
            if now >= next_sweep {
                log(self.sweep().await, "the sweep");
                next_sweep = Instant::now() + Duration::from_millis(inner.cfg.sweep_ms.max(1));
            }
            if now >= next_look && tasks.len() < room {
                let free = room.saturating_sub(tasks.len());
                let found = match inner.claim(u32::try_from(free).unwrap_or(u32::MAX)).await {
                    Ok(jobs) => {
                        let found = jobs.len();
                        let taken = inner.clock.now();
                        jobs.into_iter().for_each(|job| inner.start(&mut tasks, job, taken));
                        found
                    }
                    Err(error) => {
                        log(Err(error), "claiming what is due");
                        0
                    }
                };
                // As many as there was room for: there may be more, which the next free place takes up.
                next_look = if found >= free { Instant::now() } else { Instant::now() + poll };
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                Some(_) = tasks.join_next() => {}
                Some(job) = at_hand.recv(), if tasks.len() < room => {
                    let taken = job.attempt.prepared_at;
                    inner.start(&mut tasks, job, taken);
                }
                () = inner.work.notified() => next_look = Instant::now(),
                () = tokio::time::sleep_until(next_look.min(next_sweep)), if tasks.len() < room => {}
            }
        }
        *inner.at_hand.lock().unwrap_or_else(PoisonError::into_inner) = None;
        at_hand.close();
        while let Some(job) = at_hand.recv().await {
            // Nothing was sent yet: another worker, or the next start, may claim it at once.
            log(inner.store.put_off(&job.attempt, DUE_AT_ONCE).await, "giving a lease up");
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Sweeps once, and carries out whatever is due until nothing is. For tests and for commands that want no worker.
    pub async fn run_once(&self) -> Result<(), StoreError> {
        self.sweep().await?;
        loop {
            let jobs = self.inner.claim(self.inner.cfg.batch.max(1)).await?;
            if jobs.is_empty() {
                return Ok(());
            }
            let mut tasks = JoinSet::new();
            let taken = self.inner.clock.now();
            jobs.into_iter().for_each(|job| self.inner.start(&mut tasks, job, taken));
            while tasks.join_next().await.is_some() {}
        }
    }

    /// Lets go of what has expired: requests that nobody pays, fingerprints, authorisations that nobody captured.
    async fn sweep(&self) -> Result<(), StoreError> {
        let inner = &self.inner;
        let now = inner.clock.now();
        inner.store.expire_requests(now).await?;
        inner.store.sweep_fingerprints(now).await?;
        for intent in inner.store.expired_authorisations(now, EXPIRY_LIMIT).await? {
            let payment = inner.store.payment(&intent).await?.ok_or(StoreError::NotFound("payment"))?;
            let tries = payment.attempts.iter().filter(|a| a.operation == Operation::Void).count();
            let order = OperationOrder {
                // Two sweeps at once, on two nodes, mean the same void.
                key: format!("expiry:{intent}:{tries}"),
                intent: intent.clone(),
                operation: Operation::Void,
                amount: None,
                by: OURSELVES.into(),
                why: "the authorisation was not captured in time".into(),
            };
            crash::point("before_expiry");
            match self.operate(order).await {
                Ok(_) => crash::point("after_expiry"),
                Err(OperateError::Store(error)) => return Err(error),
                Err(error) => tracing::warn!(%intent, %error, "an expired authorisation can't be voided"),
            }
        }
        Ok(())
    }
}

impl Inner {
    pub(super) async fn claim(&self, limit: u32) -> Result<Vec<Job>, StoreError> {
        let names: Vec<&str> = self.acquirers.all().map(|g| g.name()).collect();
        // A busy acquirer keeps no other waiting: each is asked first in its turn.
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % names.len().max(1);
        let mut jobs = Vec::new();
        for name in names.iter().cycle().skip(first).take(names.len()) {
            let free = limit.saturating_sub(u32::try_from(jobs.len()).unwrap_or(u32::MAX));
            if free == 0 {
                break;
            }
            let now = self.clock.now();
            let gateway = (*name).to_owned();
            let claim = Claim { lease: self.lease(now), gateway, now, horizon: self.horizon(now), limit: free };
            crash::point("before_claim");
            match self.store.claim(&claim).await {
                Ok(claimed) => {
                    if !claimed.is_empty() {
                        crash::point("after_claim");
                    }
                    jobs.extend(claimed);
                }
                Err(error) if jobs.is_empty() => return Err(error),
                // What was claimed is carried on; the others come at the next look.
                Err(error) => {
                    log(Err(error), "claiming what is due");
                    break;
                }
            }
        }
        Ok(jobs)
    }

    /// Whether a question about a job changes nothing.
    fn only_asks(&self, job: &Job) -> bool {
        self.gateway_of(job).is_ok_and(|gateway| gateway.resolve_only_asks())
    }

    /// Carries a job on that was leased at `taken`.
    fn start(self: &Arc<Self>, tasks: &mut JoinSet<()>, job: Job, taken: Timestamp) {
        let inner = self.clone();
        tasks.spawn(async move {
            if !inner.time_left(taken, inner.clock.now()) {
                // It waited for room so long that another worker may have it by now.
                return;
            }
            let (intent, operation) = (job.intent.id.clone(), job.attempt.operation);
            let result = match &job.attempt.state {
                AttemptState::Prepared => inner.send_first(job).await,
                // A question that takes back would decide what a person must.
                AttemptState::Conflicted { .. } if !inner.only_asks(&job) => inner.look_later(&job.attempt).await,
                AttemptState::Dispatched { .. } | AttemptState::NeedsReconciliation { .. } | AttemptState::Conflicted { .. } => {
                    inner.reconcile(job).await
                }
                AttemptState::Succeeded { .. } | AttemptState::Declined { .. } | AttemptState::Reversed { .. } => Ok(()),
            };
            if let Err(error) = result {
                let operation = operation.as_str();
                tracing::error!(%intent, operation, %error, "an attempt could not be carried on; it will be claimed again");
                // A fault that comes at once, such as a full disk, must not turn the worker into a busy loop.
                tokio::time::sleep(Duration::from_millis(inner.cfg.poll_ms.max(1))).await;
            }
        });
    }
}

fn log(result: Result<(), StoreError>, what: &str) {
    if let Err(error) = result {
        tracing::error!(%error, "{what} failed; it will be tried again");
    }
}
