//! Work while the caller speaks. At each pause the models are set to work on what was said so far, on idle threads only; when the turn ends
//! and nothing was said since, the findings stand as they are, and what is still being worked out is awaited, not begun again. When the
//! caller goes on, begins anew or is gone, findings are dropped and wiped.

use std::sync::Arc;

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::inference::{Inference, Overload};
use crate::decision::Answer;
use crate::dialogue::ScoreTrouble;
use crate::speech::{Heard, Utterance};
use crate::voiceprint::Embedding;
use crate::voiceprint::fingerprint::Likeness;

/// What the models are asked about an utterance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// What digits were said.
    Digits,
    /// Whose voice.
    Voice,
    /// Yes or no.
    Answer,
}

/// An answer to a [`Question`], and what it took.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    /// Time in the pool, in milliseconds.
    pub(super) took_ms: u64,
    /// It was begun while the caller might still have gone on.
    pub(super) ahead: bool,
}

type Cell<T> = OnceCell<Found<Result<T, ScoreTrouble>>>;

/// What is found out about one utterance, each at most once. In memory only; wiped on drop, as its parts are.
pub(super) struct Findings {
    pub(super) utterance: Arc<Utterance>,
    heard: Cell<Arc<Heard>>,
    voice: Cell<Embedding>,
    answer: Cell<Answer>,
    /// Whether it was heard before.
    pub(super) reuse: OnceCell<Result<Option<Likeness>, ScoreTrouble>>,
}

impl std::fmt::Debug for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Findings({:?})", self.utterance)
    }
}

impl Findings {
    pub(super) fn new(utterance: Arc<Utterance>) -> Arc<Self> {
        Arc::new(Self {
            utterance,
            heard: OnceCell::new(),
            voice: OnceCell::new(),
            answer: OnceCell::new(),
            reuse: OnceCell::new(),
        })
    }

    /// What the number engine made of it. `ahead`: only if a thread is idle, held with the work until it ends.
    pub(super) async fn heard(
        &self,
        pool: &Inference,
        ahead: Option<OwnedSemaphorePermit>,
        work: impl FnOnce(&Utterance) -> Result<Heard, ScoreTrouble> + Send + 'static,
    ) -> Result<&Found<Result<Arc<Heard>, ScoreTrouble>>, Overload> {
        let utterance = Arc::clone(&self.utterance);
        once(&self.heard, pool, ahead, move || work(&utterance).map(Arc::new)).await
    }

    /// Its voice.
    pub(super) async fn voice(
        &self,
        pool: &Inference,
        ahead: Option<OwnedSemaphorePermit>,
        work: impl FnOnce(&Utterance) -> Result<Embedding, ScoreTrouble> + Send + 'static,
    ) -> Result<&Found<Result<Embedding, ScoreTrouble>>, Overload> {
        let utterance = Arc::clone(&self.utterance);
        once(&self.voice, pool, ahead, move || work(&utterance)).await
    }

    /// What it says to a question of yes or no.
    pub(super) async fn answer(
        &self,
        pool: &Inference,
        ahead: Option<OwnedSemaphorePermit>,
        work: impl FnOnce(&Utterance) -> Result<Answer, ScoreTrouble> + Send + 'static,
    ) -> Result<&Found<Result<Answer, ScoreTrouble>>, Overload> {
        let utterance = Arc::clone(&self.utterance);
        once(&self.answer, pool, ahead, move || work(&utterance)).await
    }
}

/// Whoever asks first has it worked out; whoever asks meanwhile waits for that. Work that found no thread, or was given up before it was
/// done, leaves the question open to the next who asks.
async fn once<'a, T: Send + 'static>(
    cell: &'a Cell<T>,
    pool: &Inference,
    ahead: Option<OwnedSemaphorePermit>,
    work: impl FnOnce() -> Result<T, ScoreTrouble> + Send + 'static,
) -> Result<&'a Found<Result<T, ScoreTrouble>>, Overload> {
    cell.get_or_try_init(|| async {
        let begun = Instant::now();
        let is_ahead = ahead.is_some();
        let value = match ahead {
            Some(lane) => {
                let work = move || {
                    let _until_done = lane;
                    work()
                };
                pool.run_if_idle(work).await?
            }
            None => pool.run(work).await?,
        };
        Ok(Found { value, took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX), ahead: is_ahead })
    })
    .await
}

/// One piece of early work of each kind at a time for one call. Work can't be interrupted: while an outdated piece runs, no other of its
/// kind is begun.
#[derive(Debug)]
pub(super) struct Lanes {
    digits: Arc<Semaphore>,
    voice: Arc<Semaphore>,
    answer: Arc<Semaphore>,
}

impl Lanes {
    pub(super) fn new() -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self { digits: one(), voice: one(), answer: one() }
    }

    /// The lane, if nothing is on it.
    pub(super) fn enter(&self, question: Question) -> Option<OwnedSemaphorePermit> {
        let lane = match question {
            Question::Digits => &self.digits,
            Question::Voice => &self.voice,
            Question::Answer => &self.answer,
        };
        Arc::clone(lane).try_acquire_owned().ok()
    }
}

/// What goes on at the present pause. Dropping it gives its jobs up.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) pause: u64,
    pub(super) findings: Arc<Findings>,
    begun: Vec<(Question, AbortHandle)>,
}

impl Ahead {
    pub(super) fn new(pause: u64, utterance: Arc<Utterance>) -> Self {
        Self { pause, findings: Findings::new(utterance), begun: Vec::new() }
    }

    pub(super) fn has_begun(&self, question: Question) -> bool {
        self.begun.iter().any(|(q, _)| *q == question)
    }

    pub(super) fn began(&mut self, question: Question, job: AbortHandle) {
        self.begun.push((question, job));
    }

    /// No thread was idle after all: to be tried again.
    pub(super) fn did_not_run(&mut self, question: Question) {
        self.begun.retain(|(q, _)| *q != question);
    }

    /// The turn ended here: jobs go on.
    pub(super) fn stands(mut self) -> Arc<Findings> {
        self.begun.clear();
        Arc::clone(&self.findings)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        for (_, job) in &self.begun {
            job.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::inference::InferenceConfig;
    use super::*;
    use crate::media::frame::SampleRate;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn pool(threads: usize) -> Inference {
        Inference::new(&InferenceConfig { parallel_inferences: threads, queue_limit_inferences: 4, deadline_ms: 5_000 })
    }

    fn findings() -> Arc<Findings> {
        Findings::new(Arc::new(Utterance::from_recording(&[500; 8_000], SampleRate::HZ_8000)))
    }

    /// Work that counts itself and waits to be released.
    fn slow(
        ran: &Arc<AtomicUsize>,
        release: std::sync::mpsc::Receiver<()>,
    ) -> impl FnOnce(&Utterance) -> Result<Answer, ScoreTrouble> + Send + 'static {
        let ran = Arc::clone(ran);
        move |_| {
            ran.fetch_add(1, Ordering::AcqRel);
            let _released_or_gone = release.recv();
            Ok(Answer::Yes)
        }
    }

    async fn until(what: impl Fn() -> bool) {
        // On a paused clock this sleeps only as long as no blocking work is under way, and that is what is waited for.
        for _ in 0..10_000 {
            if what() {
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
            tokio::task::yield_now().await;
        }
        panic!("it did not come to pass");
    }

    #[tokio::test(start_paused = true)]
    async fn work_in_flight_at_the_end_point_is_awaited_not_repeated() {
        let (pool, found, lanes) = (pool(2), findings(), Lanes::new());
        let (ran, (release, wait)) = (Arc::new(AtomicUsize::new(0)), std::sync::mpsc::channel());
        let early = tokio::spawn({
            let (pool, found, work, lane) = (pool.clone(), Arc::clone(&found), slow(&ran, wait), lanes.enter(Question::Answer));
            async move { found.answer(&pool, lane, work).await.map(|f| f.ahead) }
        });
        until(|| ran.load(Ordering::Acquire) == 1).await;
        assert!(lanes.enter(Question::Answer).is_none(), "one of a kind");
        assert!(lanes.enter(Question::Voice).is_some(), "kinds do not wait for each other");
        let asked = tokio::spawn({
            let (pool, found) = (pool.clone(), Arc::clone(&found));
            async move { found.answer(&pool, None, |_| Err(ScoreTrouble::Failed)).await.map(|f| (f.value, f.ahead)) }
        });
        tokio::task::yield_now().await;
        release.send(()).unwrap();
        assert_eq!(asked.await.unwrap(), Ok((Ok(Answer::Yes), true)));
        assert_eq!(early.await.unwrap(), Ok(true));
        assert_eq!(ran.load(Ordering::Acquire), 1);
        until(|| pool.in_flight() == 0 && lanes.enter(Question::Answer).is_some()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn work_ahead_takes_no_thread_from_anybody_and_the_end_point_does_it_then() {
        let (pool, found, lanes) = (pool(1), findings(), Lanes::new());
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let other = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move || wait.recv().is_ok()).await }
        });
        until(|| pool.in_flight() == 1).await;
        let refused = found.answer(&pool, lanes.enter(Question::Answer), |_| Ok(Answer::No)).await.map(|f| f.value);
        assert_eq!(refused, Err(Overload::QueueFull));
        assert_eq!(pool.in_flight(), 1, "it does not even wait");
        assert!(lanes.enter(Question::Answer).is_some());
        release.send(()).unwrap();
        assert_eq!(other.await.unwrap(), Ok(true));
        let found = found.answer(&pool, None, |_| Ok(Answer::Yes)).await.unwrap();
        assert_eq!((found.value, found.ahead), (Ok(Answer::Yes), false));
    }

    #[tokio::test(start_paused = true)]
    async fn given_up_work_keeps_its_place_until_it_ends_and_leaves_nothing() {
        let (pool, lanes) = (pool(2), Lanes::new());
        let (ran, (release, wait)) = (Arc::new(AtomicUsize::new(0)), std::sync::mpsc::channel());
        let mut ahead = Ahead::new(1, Arc::clone(&findings().utterance));
        let watch = Arc::downgrade(&ahead.findings);
        let mut jobs = tokio::task::JoinSet::new();
        let job = jobs.spawn({
            let (pool, found, work, lane) =
                (pool.clone(), Arc::clone(&ahead.findings), slow(&ran, wait), lanes.enter(Question::Answer));
            async move { found.answer(&pool, lane, work).await.is_ok() }
        });
        ahead.began(Question::Answer, job);
        until(|| ran.load(Ordering::Acquire) == 1).await;
        drop(ahead); // the caller goes on
        assert!(jobs.join_next().await.unwrap().unwrap_err().is_cancelled());
        assert!(watch.upgrade().is_none(), "the findings are gone at once");
        assert_eq!(pool.in_flight(), 1);
        assert!(lanes.enter(Question::Answer).is_none(), "while outdated work runs, no other of its kind is begun");
        release.send(()).unwrap();
        until(|| pool.in_flight() == 0 && lanes.enter(Question::Answer).is_some()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_takes_over_what_was_given_up() {
        let (pool, found, lanes) = (pool(2), findings(), Lanes::new());
        let (ran, (release, wait)) = (Arc::new(AtomicUsize::new(0)), std::sync::mpsc::channel());
        let early = tokio::spawn({
            let (pool, found, work, lane) = (pool.clone(), Arc::clone(&found), slow(&ran, wait), lanes.enter(Question::Answer));
            async move { found.answer(&pool, lane, work).await.is_ok() }
        });
        until(|| ran.load(Ordering::Acquire) == 1).await;
        let asked = tokio::spawn({
            let (pool, found) = (pool.clone(), Arc::clone(&found));
            async move { found.answer(&pool, None, |_| Ok(Answer::No)).await.map(|f| f.value) }
        });
        tokio::task::yield_now().await;
        early.abort();
        assert_eq!(asked.await.unwrap(), Ok(Ok(Answer::No)));
        release.send(()).unwrap();
        until(|| pool.in_flight() == 0).await;
    }
}
