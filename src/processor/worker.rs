//! The worker: sends what is prepared, asks about what is in doubt, until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Busy, Inner, Processor};
use crate::store::{Job, StoreError};

enum Task {
    SendFirst,
    Reconcile,
}

impl Processor {
    /// The worker: asks at the start about everything that a crash may have left in doubt, then sends what is prepared and asks now and then until
    /// `shutdown`. What is being sent is finished first.
    pub async fn run(&self, shutdown: CancellationToken) {
        let inner = &self.inner;
        let mut tasks = JoinSet::new();
        let mut next_sweep = Instant::now();
        loop {
            if Instant::now() >= next_sweep {
                log(inner.sweep(&mut tasks, &shutdown).await, "the sweep");
                next_sweep = Instant::now() + Duration::from_millis(inner.cfg.sweep_ms.max(1));
            }
            log(inner.send_prepared(&mut tasks, &shutdown).await, "looking for prepared charges");
            let poll = Instant::now() + Duration::from_millis(inner.cfg.poll_ms.max(1));
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = inner.work.notified() => {}
                // A place has come free: there may be more prepared than fitted.
                Some(_) = tasks.join_next() => {}
                () = tokio::time::sleep_until(poll.min(next_sweep)) => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Sends what is prepared and asks about what is in doubt, once, and waits until all of it has been answered. For tests and for commands
    /// that want no worker.
    pub async fn run_once(&self) -> Result<(), StoreError> {
        let never = CancellationToken::new();
        let mut tasks = JoinSet::new();
        self.inner.sweep(&mut tasks, &never).await?;
        while tasks.join_next().await.is_some() {}
        self.inner.send_prepared(&mut tasks, &never).await?;
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

impl Inner {
    async fn send_prepared(self: &Arc<Self>, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) -> Result<(), StoreError> {
        for job in self.store.prepared(self.cfg.batch.max(1)).await? {
            if !self.start(tasks, job, Task::SendFirst, shutdown).await {
                break;
            }
        }
        Ok(())
    }

    async fn sweep(self: &Arc<Self>, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) -> Result<(), StoreError> {
        self.store.expire_requests(self.clock.now()).await?;
        self.store.sweep_fingerprints(self.clock.now()).await?;
        let mut after = None;
        loop {
            let page = self.store.in_doubt(after.as_ref(), self.cfg.batch.max(1)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.attempt.id.clone());
            for job in page {
                if !self.start(tasks, job, Task::Reconcile, shutdown).await {
                    return Ok(());
                }
            }
        }
    }

    /// Starts a task when there is room for one; `false` if it is time to stop instead.
    async fn start(self: &Arc<Self>, tasks: &mut JoinSet<()>, job: Job, task: Task, shutdown: &CancellationToken) -> bool {
        let room = usize::try_from(self.cfg.batch.max(1)).unwrap_or(1);
        while tasks.len() >= room {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return false,
                _ended = tasks.join_next() => {}
            }
        }
        if shutdown.is_cancelled() {
            return false;
        }
        let Some(busy) = Busy::claim(self, &job.attempt.id) else { return true };
        let inner = self.clone();
        tasks.spawn(async move {
            let intent = job.intent.id.clone();
            let result = match task {
                Task::SendFirst => inner.send_first(job).await,
                Task::Reconcile => inner.reconcile(job).await,
            };
            if let Err(error) = result {
                tracing::error!(%intent, %error, "a charge could not be carried on; the sweep will take it up");
                // A fault that comes at once, such as a full disk, must not turn the worker into a busy loop.
                tokio::time::sleep(Duration::from_millis(inner.cfg.poll_ms.max(1))).await;
            }
            drop(busy);
        });
        true
    }
}

fn log(result: Result<(), StoreError>, what: &str) {
    if let Err(error) = result {
        tracing::error!(%error, "{what} failed; it will be tried again");
    }
}
