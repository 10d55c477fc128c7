//! Group commit. A durable commit waits for the disk; what is asked for while one waits is written together in the next: each
//! operation in a savepoint of one `BEGIN IMMEDIATE … COMMIT`. None is answered before that commit has succeeded. One that a
//! rule refuses is rolled back alone; if the database itself fails, the whole group is, and each of its callers is told.
//!
//! Whoever writes outside of a group takes the same turn, so that writers of one process never wait for each other inside
//! SQLite, where waiting means sleeping and trying again.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::sqlite::SqlitePool;
use sqlx::{Sqlite, SqliteConnection, Transaction};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, oneshot};

use super::fault;
use crate::store::StoreError;

/// How many operations may wait to be written; further callers wait for a place.
const WRITE_QUEUE_LIMIT: usize = 1024;
/// How many operations one commit takes at most.
const GROUP_LIMIT: usize = 256;

/// An operation's work inside the transaction.
pub(super) type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'c>>;

/// The one place through which this process writes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

struct Shared {
    pool: SqlitePool,
    turn: Arc<tokio::sync::Mutex<()>>,
    places: Arc<Semaphore>,
    queue: Mutex<Queue>,
    /// Transactions that were committed, groups among them.
    commits: Arc<AtomicU64>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Box<dyn Operation>>,
    /// Whether a task is emptying the queue.
    led: bool,
}

impl Writer {
    pub(super) fn new(pool: SqlitePool) -> Self {
        let (turn, places) = (Arc::default(), Arc::new(Semaphore::new(WRITE_QUEUE_LIMIT)));
        Self { shared: Arc::new(Shared { pool, turn, places, queue: Mutex::default(), commits: Arc::default() }) }
    }

    /// Closes the connection; what waits for it gets an error.
    pub(super) async fn close(&self) {
        self.shared.pool.close().await;
    }

    /// How many transactions this process has committed: a group counts once.
    pub(super) fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// A transaction of its own that holds the write lock from its beginning, so that what it reads stays true until it commits.
    pub(super) async fn begin(&self) -> Result<WriteTx, StoreError> {
        let turn = self.shared.turn.clone().lock_owned().await;
        let tx = self.shared.pool.begin_with("BEGIN IMMEDIATE").await.map_err(fault)?;
        Ok(WriteTx { tx, commits: self.shared.commits.clone(), _turn: turn })
    }

    /// Runs `work` in the next group and answers once it is committed. It is carried out though the caller stops waiting.
    pub(super) async fn queue<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    {
        let stopped = || StoreError::Failed("the writer has stopped".into());
        let place = self.shared.places.clone().acquire_owned().await.map_err(|_| stopped())?;
        let (reply, answer) = oneshot::channel();
        let lead = {
            let mut queue = self.shared.queue();
            queue.waiting.push_back(Box::new(Queued { work: Some(work), result: None, reply, _place: place }));
            !std::mem::replace(&mut queue.led, true)
        };
        if lead {
            // A task of its own: the group goes on though this caller stops waiting.
            tokio::spawn(self.shared.clone().lead());
        }
        answer.await.map_err(|_| stopped())?
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lead(self: Arc<Self>) {
        let mut leader = Leader { shared: self.clone(), orderly: false };
        loop {
            let _turn = self.turn.clone().lock_owned().await;
            if !self.write_group().await {
                leader.orderly = true;
                return;
            }
        }
    }

    fn next(&self) -> Option<Box<dyn Operation>> {
        self.queue().waiting.pop_front()
    }

    /// Writes what waits, and what comes while it is being written; `false` once nothing waits, and then this leader's time is
    /// over.
    async fn write_group(&self) -> bool {
        {
            let mut queue = self.queue();
            if queue.waiting.is_empty() {
                queue.led = false;
                return false;
            }
        }
        let mut group: Vec<Box<dyn Operation>> = Vec::new();
        let ended = match self.pool.begin_with("BEGIN IMMEDIATE").await {
            Ok(mut tx) => match run_group(&mut tx, &mut group, || self.next()).await {
                Ok(()) => {
                    let committed = tx.commit().await.map_err(fault);
                    self.commits.fetch_add(u64::from(committed.is_ok()), Ordering::Relaxed);
                    committed
                }
                Err(error) => {
                    // A rollback that fails too leaves nothing to do: the connection is closed, and that rolls back.
                    let _closed = tx.rollback().await;
                    Err(error)
                }
            },
            Err(error) => {
                group.extend(self.next());
                Err(fault(error))
            }
        };
        for operation in group {
            operation.answer(ended.as_ref().err());
        }
        true
    }
}

async fn run_group(
    conn: &mut SqliteConnection,
    group: &mut Vec<Box<dyn Operation>>,
    mut next: impl FnMut() -> Option<Box<dyn Operation>>,
) -> Result<(), StoreError> {
    let mut savepoint = Savepoint::None;
    while group.len() < GROUP_LIMIT {
        let Some(operation) = next() else { break };
        group.push(operation);
        let Some(operation) = group.last_mut() else { break };
        match savepoint {
            Savepoint::None => execute(conn, "SAVEPOINT operation").await?,
            Savepoint::Kept => execute(conn, "RELEASE operation; SAVEPOINT operation").await?,
            Savepoint::Empty => {}
        }
        savepoint = match operation.run(conn).await {
            Verdict::Keep => Savepoint::Kept,
            Verdict::Drop => {
                // It stays open, with nothing in it: the next operation's.
                take_back(conn).await?;
                Savepoint::Empty
            }
            Verdict::Broken(error) => return Err(error),
        };
    }
    // A commit releases what is open.
    Ok(())
}

/// Takes back what the operation that is being run has written so far.
pub(super) async fn take_back(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    execute(conn, "ROLLBACK TO operation").await
}

async fn execute(conn: &mut SqliteConnection, sql: &'static str) -> Result<(), StoreError> {
    sqlx::query(sql).execute(conn).await.map(drop).map_err(fault)
}

/// The savepoint of the group's last operation.
enum Savepoint {
    None,
    Kept,
    Empty,
}

/// If a leader ends because something panicked, those who wait must not wait for ever.
struct Leader {
    shared: Arc<Shared>,
    orderly: bool,
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.orderly {
            let mut queue = self.shared.queue();
            queue.led = false;
            queue.waiting.clear();
        }
    }
}

/// What becomes of an operation's rows.
enum Verdict {
    Keep,
    /// A rule refuses it.
    Drop,
    /// The database fails; SQLite may have rolled everything back already.
    Broken(StoreError),
}

trait Operation: Send {
    fn run<'c>(&'c mut self, conn: &'c mut SqliteConnection) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'c>>;
    /// Tells the caller; `failed`: why the group was not committed.
    fn answer(self: Box<Self>, failed: Option<&StoreError>);
}

struct Queued<T, F> {
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    /// Its place in the queue.
    _place: OwnedSemaphorePermit,
}

impl<T, F> Operation for Queued<T, F>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
{
    fn run<'c>(&'c mut self, conn: &'c mut SqliteConnection) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'c>> {
        Box::pin(async move {
            let Some(work) = self.work.take() else { return Verdict::Drop };
            let result = work(conn).await;
            let verdict = match &result {
                Ok(_) => Verdict::Keep,
                Err(error @ (StoreError::Failed(_) | StoreError::Busy | StoreError::Unreachable(_) | StoreError::Unsure(_))) => {
                    Verdict::Broken(again(error))
                }
                Err(
                    StoreError::Open { .. }
                    | StoreError::Migrate { .. }
                    | StoreError::Exists(_)
                    | StoreError::NotFound(_)
                    | StoreError::Refused(_)
                    | StoreError::Conflict(_)
                    | StoreError::Damaged { .. },
                ) => Verdict::Drop,
            };
            self.result = Some(result);
            verdict
        })
    }

    fn answer(self: Box<Self>, failed: Option<&StoreError>) {
        let Self { result, reply, .. } = *self;
        let answer = match (failed, result) {
            (Some(error), _) => Err(again(error)),
            (None, Some(result)) => result,
            (None, None) => Err(StoreError::Failed("the operation was not run".into())),
        };
        // Nobody waits any more: it is done all the same.
        let _gone = reply.send(answer);
    }
}

/// The same failure for one more caller.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Busy => StoreError::Busy,
        StoreError::Failed(why) => StoreError::Failed(why.clone()),
        other => StoreError::Failed(other.to_string()),
    }
}

/// A transaction that holds the write lock, and the process's turn at writing.
#[derive(Debug)]
pub(super) struct WriteTx {
    // Before the turn: fields are dropped in this order.
    tx: Transaction<'static, Sqlite>,
    commits: Arc<AtomicU64>,
    _turn: OwnedMutexGuard<()>,
}

impl WriteTx {
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        self.tx.commit().await?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Deref for WriteTx {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        &self.tx
    }
}

impl DerefMut for WriteTx {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }
}
