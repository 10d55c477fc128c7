//! Where the models run: on blocking threads, one thread an inference, several at once, never more than the machine has
//! room for. Who finds the queue full, or waits too long, is told so at once: the caller hears "busy", not silence.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::dialogue::ScoreTrouble;
use crate::telemetry::metrics::metrics;

/// How much inference may run and wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InferenceConfig {
    /// Inferences at once, one thread each; 0: one a core.
    pub parallel_inferences: usize,
    /// Inferences that may wait for a thread; one more is refused as overload.
    pub queue_limit_inferences: usize,
    /// The longest that one may wait and run, in milliseconds, before the call is told that we are overloaded.
    pub deadline_ms: u64,
}

impl Default for InferenceConfig {
    fn default() -> Self {
        Self { parallel_inferences: 0, queue_limit_inferences: 16, deadline_ms: 15_000 }
    }
}

/// Why an inference gave no answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum Overload {
    /// `inference.queue_limit_inferences` are waiting already.
    #[error("inference is overloaded: the queue is full")]
    QueueFull,
    /// `inference.deadline_ms` passed.
    #[error("inference is overloaded: no answer within the deadline")]
    TooLate,
    /// The thread died; the call fails closed.
    #[error("an inference thread failed")]
    Failed,
}

impl Overload {
    fn word(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooLate => "too_late",
            Self::Failed => "failed",
        }
    }
}

/// The bounded pool.
#[derive(Clone, Debug)]
pub struct Inference {
    threads: Arc<Semaphore>,
    inside: Arc<AtomicUsize>,
    capacity: usize,
    deadline: Duration,
}

impl Inference {
    /// From its section of the configuration.
    pub fn new(config: &InferenceConfig) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let parallel = if config.parallel_inferences == 0 { cores } else { config.parallel_inferences };
        Self {
            threads: Arc::new(Semaphore::new(parallel)),
            inside: Arc::new(AtomicUsize::new(0)),
            capacity: parallel.saturating_add(config.queue_limit_inferences),
            deadline: Duration::from_millis(config.deadline_ms),
        }
    }

    /// Takes a place without using it, while the answer lives: for draining, and for tests of overload.
    pub fn reserve(&self) -> Option<Reserved> {
        Place::take(&self.inside, self.capacity).map(Reserved)
    }

    /// Runs `work` only if a thread is idle, else answers `QueueFull`: for work that is nice to have and must keep nobody waiting.
    pub async fn run_if_idle<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Result<R, Overload> {
        let place = Place::take(&self.inside, self.capacity).ok_or(Overload::QueueFull)?;
        let permit = Arc::clone(&self.threads).try_acquire_owned().map_err(|_none_idle| Overload::QueueFull)?;
        tokio::time::timeout(self.deadline, Self::on_thread(permit, place, work)).await.map_err(|_elapsed| Overload::TooLate)?
    }

    /// Whether a thread is idle just now.
    pub fn is_idle(&self) -> bool {
        self.threads.available_permits() > 0
    }

    /// How much is running and waiting.
    pub fn in_flight(&self) -> usize {
        self.inside.load(Ordering::Acquire)
    }

    /// Runs `work` on a thread of its own. Work that has begun is not interrupted when its caller gives up: it keeps its
    /// place in the count until it ends, so that giving up can't overload the machine.
    pub async fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Result<R, Overload> {
        let refused = |overload: Overload| {
            metrics().inference_refused.inc([overload.word()]);
            overload
        };
        let place = Place::take(&self.inside, self.capacity).ok_or_else(|| refused(Overload::QueueFull))?;
        let threads = Arc::clone(&self.threads);
        let begun = Instant::now();
        let answer = async move {
            let permit = threads.acquire_owned().await.map_err(|_closed| Overload::Failed)?;
            metrics().inference_wait.observe_time([], begun.elapsed());
            Self::on_thread(permit, place, work).await
        };
        tokio::time::timeout(self.deadline, answer).await.unwrap_or(Err(Overload::TooLate)).map_err(refused)
    }

    /// How much may run and wait.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    async fn on_thread<R: Send + 'static>(
        permit: OwnedSemaphorePermit,
        place: Place,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Overload> {
        let work = move || {
            let _held_until_done = (permit, place);
            let begun = Instant::now();
            let done = work();
            metrics().inference_run.observe_time([], begun.elapsed());
            done
        };
        tokio::task::spawn_blocking(work).await.map_err(|_panicked| Overload::Failed)
    }
}

/// A place that is kept from use.
#[derive(Debug)]
pub struct Reserved(#[allow(dead_code)] Place); // held for its drop

/// One place in the pool, given back on drop.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(inside: &Arc<AtomicUsize>, capacity: usize) -> Option<Self> {
        inside
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < capacity).then_some(n + 1))
            .ok()
            .map(|_before| Self(Arc::clone(inside)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl From<Overload> for ScoreTrouble {
    fn from(overload: Overload) -> Self {
        match overload {
            Overload::QueueFull => Self::Overloaded,
            Overload::TooLate => Self::TimedOut,
            Overload::Failed => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(queue: usize, deadline_ms: u64) -> Inference {
        Inference::new(&InferenceConfig { parallel_inferences: 1, queue_limit_inferences: queue, deadline_ms })
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_recovers() {
        let pool = small(0, 5_000);
        let (release, held) = std::sync::mpsc::channel::<()>();
        let busy = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move || held.recv().is_ok()).await }
        });
        while pool.inside.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| 1).await, Err(Overload::QueueFull));
        release.send(()).unwrap();
        assert_eq!(busy.await.unwrap(), Ok(true));
        assert_eq!(pool.run(|| 2).await, Ok(2));
    }

    #[tokio::test]
    async fn a_wait_past_the_deadline_ends_and_a_panic_stays_inside() {
        let pool = small(4, 50);
        let (release, held) = std::sync::mpsc::channel::<()>();
        assert_eq!(pool.run(move || held.recv().is_ok()).await, Err(Overload::TooLate));
        release.send(()).unwrap();
        let pool = small(4, 5_000);
        assert_eq!(pool.run(|| panic!("on purpose")).await, Err::<(), _>(Overload::Failed));
        assert_eq!(pool.run(|| 3).await, Ok(3));
    }
}
