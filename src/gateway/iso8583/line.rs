//! A host's line: one task that keeps it up, and asks on it. Many questions are under way at a time; answers find theirs by type,
//! trace number and retrieval reference, in whatever order they come.
//!
//! Whether a question was sent is never a guess: between queue and socket it is claimed, either by the line, which then writes
//! it, or by whoever asked and waits no longer, and then it is never written.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zeroize::Zeroizing;

use super::Shared;
use super::codec::CodecError;
use super::dial::Dialer;
use super::frame::FrameError;
use super::message::{Message, Mti};
use super::session::Session;

/// How often a line that is full looks for questions that nobody waits for any more, in milliseconds.
const FULL_LOOK_MS: u64 = 50;

/// A line, for those who ask.
#[derive(Clone, Debug)]
pub(super) struct Line {
    queue: mpsc::Sender<Job>,
    up: watch::Receiver<bool>,
}

/// What came of a question.
#[derive(Debug)]
pub(super) enum Reply {
    /// Not a byte of it was written, and none will be.
    NotSent,
    /// It was perhaps sent, and nobody knows more.
    Lost,
    /// The host's answer.
    Answer(Box<Message>),
}

/// By what an answer is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    answer: Mti,
    stan: Vec<u8>,
    retrieval: Vec<u8>,
}

impl Key {
    fn of(answer: Mti, message: &Message) -> Self {
        let field = |n| message.get(n).unwrap_or_default().to_vec();
        Self { answer, stan: field(11), retrieval: field(37) }
    }
}

#[derive(Debug)]
struct Job {
    key: Key,
    frame: Frame,
    claim: Claim,
    reply: oneshot::Sender<Message>,
}

struct Frame(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({} bytes)", self.0.len())
    }
}

/// Who has a question: the first one to take it.
#[derive(Clone, Debug, Default)]
struct Claim(Arc<AtomicBool>);

impl Claim {
    /// `true` for the first one who asks.
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// Takes a question back when whoever asked stops waiting, be it because the whole future was dropped.
struct Withdraw(Claim);

impl Drop for Withdraw {
    fn drop(&mut self) {
        self.0.take();
    }
}

impl Line {
    /// Starts the line's task. It ends when the last `Line` is dropped. `came_up` is told when the line can be used.
    pub(super) fn start(shared: Arc<Shared>, dialer: Dialer, came_up: watch::Sender<()>) -> Self {
        let (queue, jobs) = mpsc::channel(shared.queue_limit);
        let (up_now, up) = watch::channel(false);
        tokio::spawn(Keeper { shared, dialer, jobs, up: up_now, came_up }.run());
        Self { queue, up }
    }

    /// Whether it is up.
    pub(super) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Sends a question and waits for its answer, `limit` at most.
    pub(super) async fn ask(&self, message: &Message, frame: Zeroizing<Vec<u8>>, limit: Duration) -> Reply {
        let Some(answer) = message.mti.answer() else { return Reply::NotSent };
        let (reply, answered) = oneshot::channel();
        let claim = Claim::default();
        let job = Job { key: Key::of(answer, message), frame: Frame(frame), claim: claim.clone(), reply };
        if self.queue.try_send(job).is_err() {
            return Reply::NotSent;
        }
        let withdraw = Withdraw(claim);
        match timeout(limit, answered).await {
            Ok(Ok(message)) => Reply::Answer(Box::new(message)),
            // The line broke, or the time is over.
            Ok(Err(_)) | Err(_) => {
                if withdraw.0.take() {
                    Reply::NotSent
                } else {
                    Reply::Lost
                }
            }
        }
    }
}

/// The line's own task.
struct Keeper {
    shared: Arc<Shared>,
    dialer: Dialer,
    jobs: mpsc::Receiver<Job>,
    up: watch::Sender<bool>,
    came_up: watch::Sender<()>,
}

impl Keeper {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let host = self.dialer.host.clone();
        let mut wait = shared.reconnect_min;
        loop {
            let began = Instant::now();
            let ended = match self.open(&shared).await {
                Ok(session) => {
                    tracing::info!(host, "the line to the bank is up");
                    self.up.send_replace(true);
                    self.came_up.send_replace(());
                    let ended = self.serve(session).await;
                    self.up.send_replace(false);
                    match ended {
                        None => return,
                        Some(error) => error,
                    }
                }
                Err(error) => error,
            };
            tracing::warn!(host, error = %ended, retry_ms = wait.as_millis(), "the line to the bank is down");
            // One that breaks at once is no better than one that can't be opened.
            if began.elapsed() > shared.reconnect_max {
                wait = shared.reconnect_min;
            }
            if self.refuse_for(wait).await.is_none() {
                return;
            }
            wait = shared.reconnect_max.min(wait.saturating_mul(2));
        }
    }

    async fn open<'a>(&self, shared: &'a Shared) -> Result<Session<'a>, LineError> {
        let mut session = Session::new(shared, self.dialer.connect().await?);
        session.sign_on().await?;
        Ok(session)
    }

    /// Waits; what is still queued is not sent. `None`: nobody is left who could ask.
    async fn refuse_for(&mut self, wait: Duration) -> Option<()> {
        let over = sleep(wait);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return Some(()),
                job = self.jobs.recv() => drop(job?),
            }
        }
    }

    /// Asks and listens until the line breaks; `None`: nobody is left who could ask.
    async fn serve(&mut self, mut session: Session<'_>) -> Option<LineError> {
        let shared = Arc::clone(&self.shared);
        let mut waiting: HashMap<Key, oneshot::Sender<Message>> = HashMap::new();
        let mut heard = Instant::now();
        let mut echo_until: Option<Instant> = None;
        // Since when something was asked and nothing at all heard: a line that is dead must not look merely quiet.
        let mut asked: Option<Instant> = None;
        loop {
            if waiting.len() >= shared.in_flight_limit {
                waiting.retain(|_, reply| !reply.is_closed());
            }
            let room = waiting.len() < shared.in_flight_limit;
            let due =
                asked.map_or(heard + shared.echo_interval, |at| (at + shared.response_timeout).min(heard + shared.echo_interval));
            let quiet = echo_until.unwrap_or(due);
            let look = if room { quiet } else { quiet.min(Instant::now() + Duration::from_millis(FULL_LOOK_MS)) };
            tokio::select! {
                message = session.next_message() => match message {
                    Ok(message) => {
                        (heard, echo_until, asked) = (Instant::now(), None, None);
                        match session.answer_network(&message).await {
                            Ok(true) => {}
                            Ok(false) => deliver(&mut waiting, message),
                            Err(error) => return Some(error),
                        }
                    }
                    Err(error) => return Some(error),
                },
                job = self.jobs.recv(), if room => {
                    let job = job?;
                    // The same question under way twice: the second can't have an answer of its own, and counts as lost.
                    let taken = waiting.get(&job.key).is_some_and(|reply| !reply.is_closed());
                    if !job.claim.take() || taken {
                        continue;
                    }
                    waiting.insert(job.key, job.reply);
                    asked.get_or_insert(Instant::now());
                    if let Err(error) = session.write(&job.frame.0).await {
                        return Some(error);
                    }
                }
                () = sleep_until(look) => {
                    if Instant::now() < quiet {
                        continue;
                    }
                    if echo_until.is_some() {
                        return Some(LineError::Timeout("echo"));
                    }
                    if let Err(error) = session.ask_network(shared.spec.echo()).await {
                        return Some(error);
                    }
                    echo_until = Some(Instant::now() + shared.response_timeout);
                }
            }
        }
    }
}

/// Hands an answer to whoever asked. One that came too late says nothing any more: its question is being taken back.
fn deliver(waiting: &mut HashMap<Key, oneshot::Sender<Message>>, message: Message) {
    if message.mti.is_network() {
        return; // an echo's answer: that it was heard is all it says
    }
    let (mti, key) = (message.mti, Key::of(message.mti, &message));
    let late = match waiting.remove(&key) {
        Some(reply) => reply.send(message).is_err(),
        None => true,
    };
    if late {
        tracing::warn!(%mti, "the bank sent an answer that nobody waits for: too late, or of another question; it is dropped");
    }
}

/// Why a line can't be used, or not any more. None of these repeats what was on it.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Its name or address can't be reached.
    #[error("can't connect: {0}")]
    Connect(#[source] std::io::Error),
    /// TLS failed.
    #[error("TLS failed: {0}; are gateway.iso8583.tls_ca and tls_name right?")]
    Tls(#[source] std::io::Error),
    /// A step took too long.
    #[error("{0} took too long")]
    Timeout(&'static str),
    /// The host refused sign-on or echo.
    #[error("the host refuses, with response code {code}")]
    Refused {
        /// Field 39.
        code: String,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[source] std::io::Error),
    /// The host closed it.
    #[error("the host closed the connection")]
    Closed,
    /// What came can't be set apart into messages.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What is to be sent can't be written.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Message after message that can't be read.
    #[error("one message after another can't be read; is gateway.iso8583.spec right?")]
    Unreadable,
}
