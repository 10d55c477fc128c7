//! The store on SQLite: write-ahead log, every commit synced to disk, writers take their turn with `BEGIN IMMEDIATE`, and every
//! UPDATE says how many rows it must touch.

mod attempts;
mod bank;
mod batch;
mod books;
mod callbacks;
mod calls;
mod chain;
mod challenges;
mod clients;
mod consents;
mod disputes;
mod fingerprints;
mod following;
mod intents;
mod keys;
mod notices;
mod papers;
mod payments;
mod people;
mod requests;
mod retention;
mod signing;
mod trail;
mod voices;
mod writer;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use self::writer::{Work, WriteTx};
use super::{Store, StoreConfig, StoreError};

/// Pages that the writing connection keeps in memory: in SQLite's own notation, negative for KiB.
const WRITER_CACHE_KIB: &str = "-32768";

/// The store on SQLite. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
    writer: writer::Writer,
}

#[async_trait]
impl Store for SqliteStore {
    async fn close(&self) {
        self.writer.close().await;
        self.pool.close().await;
    }
}

impl SqliteStore {
    /// Opens the database, makes it on the first run, and brings its tables up to date.
    pub async fn open(cfg: &StoreConfig) -> Result<Self, StoreError> {
        let path = &cfg.path;
        let place = path.display().to_string();
        let open = |why: String| StoreError::Open { place: place.clone(), why };
        make_file(path).map_err(|e| open(e.to_string()))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_millis(cfg.busy_timeout_ms))
            .foreign_keys(true)
            // Erased rows are overwritten, not only unlinked.
            .pragma("secure_delete", "ON")
            .disable_statement_logging();
        let pool_of = |connections| {
            let wait = Duration::from_millis(cfg.busy_timeout_ms.saturating_add(5000));
            // A file does not go away as a server may: to ask each time whether it is there only costs.
            let pool = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(wait).test_before_acquire(false);
            // SQLite takes a transaction back by itself when the disk is full; sqlx then thinks that it goes on, for ever. Such
            // a connection is closed.
            pool.before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        };
        let pool = pool_of(cfg.connections.clamp(1, 64)).connect_with(options.clone()).await.map_err(|e| open(in_words(&e)))?;
        // Writing has a connection of its own: pages that it has read stay valid in its cache as long as nobody else writes.
        let writing = options.pragma("cache_size", WRITER_CACHE_KIB);
        let writing = pool_of(1).connect_with(writing).await.map_err(|e| open(in_words(&e)))?;
        migrations().run(&pool).await.map_err(|e| match e {
            MigrateError::Execute(e) => match fault(e) {
                StoreError::Busy => StoreError::Busy,
                other => StoreError::Migrate { place: place.clone(), why: other.to_string() },
            },
            MigrateError::VersionMissing(v) => StoreError::Migrate { place: place.clone(), why: super::made_by_a_newer(v) },
            other => StoreError::Migrate { place: place.clone(), why: other.to_string() },
        })?;
        Ok(Self { writer: writer::Writer::new(writing), pool })
    }

    /// How many transactions this process has committed; operations that were committed together count once.
    pub fn commits(&self) -> u64 {
        self.writer.commits()
    }

    /// A transaction that holds the write lock from its beginning, so that what it reads stays true until it commits.
    async fn write(&self) -> Result<WriteTx, StoreError> {
        self.writer.begin().await
    }

    /// Runs `work` in a transaction that it may share with others ([`writer`]), and answers once that is committed.
    async fn queue<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    {
        self.writer.queue(work).await
    }
}

pub(super) fn migrations() -> Migrator {
    super::migrations!("sqlite")
}

/// Makes directory and file, readable by their owner only (SQLite gives its log the same mode), and tells early what is wrong
/// with them.
fn make_file(path: &Path) -> std::io::Result<()> {
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir)?;
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

/// SQLite's result codes that mean something of their own to us (<https://www.sqlite.org/rescode.html>).
fn fault(error: sqlx::Error) -> StoreError {
    let code = match &error {
        sqlx::Error::Database(e) => e.code().and_then(|c| c.parse::<u32>().ok()).unwrap_or(0),
        sqlx::Error::PoolTimedOut => return StoreError::Busy,
        _ => 0,
    };
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    const CONSTRAINT: u32 = 19; // checks, uniqueness, foreign keys, triggers
    match code & 0xff {
        BUSY | LOCKED => StoreError::Busy,
        CONSTRAINT => StoreError::Refused(in_words(&error)),
        _ => StoreError::Failed(in_words(&error)),
    }
}

/// Whether a uniqueness rule refused it (SQLITE_CONSTRAINT_UNIQUE, SQLITE_CONSTRAINT_PRIMARYKEY).
fn is_duplicate(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(e) if e.code().is_some_and(|c| c == "2067" || c == "1555"))
}

/// A duplicate row is `exists` to the caller; every other error stays what it is.
fn exists(error: sqlx::Error, exists: &'static str) -> StoreError {
    if is_duplicate(&error) { StoreError::Exists(exists) } else { fault(error) }
}

fn in_words(error: &sqlx::Error) -> String {
    const NOT_A_DATABASE: &str = "26";
    match error {
        sqlx::Error::Database(e) if e.code().is_some_and(|c| c == NOT_A_DATABASE) => {
            "the file is not a SQLite database; move it away or choose another `store.path`".to_owned()
        }
        sqlx::Error::Database(e) => e.message().to_owned(),
        other => other.to_string(),
    }
}

/// Checks how many rows a statement touched.
fn exactly_one(result: &sqlx::sqlite::SqliteQueryResult, otherwise: StoreError) -> Result<(), StoreError> {
    if result.rows_affected() == 1 { Ok(()) } else { Err(otherwise) }
}

#[cfg(test)]
mod tests;
