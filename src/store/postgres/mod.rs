//! The store on PostgreSQL, for several nodes.
//!
//! What keeps two nodes from spoiling each other's work, in this order: row locks, taken customer first; unique indexes as the last line; and a
//! statement that asserts how many rows it touched. Transactions run READ COMMITTED: each takes the locks that its decision stands on
//! (`FOR UPDATE`, `FOR KEY SHARE`) before it reads what it decides by, and then needs no serialisation failures to be right. Reads of several
//! statements run REPEATABLE READ, as one snapshot. The levels are set by us and not left to the server's defaults.

pub(super) mod advance;
mod attempts;
mod bank;
mod books;
mod callbacks;
mod calls;
mod chain;
mod challenges;
mod clients;
mod columns;
pub(super) mod connect;
mod consents;
mod disputes;
mod fault;
mod fingerprints;
mod following;
mod group;
mod intents;
mod keys;
mod notices;
mod papers;
mod payments;
mod people;
mod requests;
mod retention;
mod signing;
pub(super) mod submit;
mod trail;
mod voices;

#[cfg(test)]
pub(crate) mod lab;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Connection, PgConnection, Postgres, Transaction};

use self::advance::Step;
use self::fault::Fault;
use self::group::{GROUP_LOCK_MS, Group, Pools};
use self::submit::Judged;
use super::{CardRecord, DatabaseUrl, RequestWithPayee, Store, StoreConfig, StoreError};
use crate::ids::{CardId, IntentId, RequestId};
use crate::payment::IntentStatus;

/// How often a transaction that others were in the way of is begun anew.
const TRIES_LIMIT: u32 = 5;
/// The wait before the second try; it doubles from try to try.
const FIRST_PAUSE_MS: u64 = 4;
/// Past what the server itself allows a statement, this long for the answer to arrive.
const ANSWER_GRACE_MS: u64 = 2000;
/// A connection that lay idle for longer is asked whether it still stands before work is given to it.
const TRUSTED_IDLE_MS: u64 = 1000;

/// The store on PostgreSQL. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PgStore {
    pool: PgPool,
    groups: Arc<Groups>,
    /// How long one operation may take, every try and its commit included.
    patience: Duration,
}

/// What is done for many payments at once.
#[derive(Debug)]
struct Groups {
    pool: PgPool,
    requests: Group<RequestId, Option<RequestWithPayee>>,
    cards: Group<CardId, Option<CardRecord>>,
    statuses: Group<IntentId, Option<IntentStatus>>,
    submissions: Group<Judged, Option<u64>>,
    steps: Group<Step, ()>,
}

/// Kinds of groups, each of which has one under way.
const GROUP_CONNECTIONS: u32 = 5;

impl Groups {
    fn new(pools: &Pools) -> Self {
        Self {
            pool: pools.grouped.clone(),
            requests: Group::new(pools, requests::find_all),
            cards: Group::new(pools, people::find_cards),
            statuses: Group::new(pools, intents::statuses),
            submissions: Group::new(pools, submit::submit_all),
            steps: Group::new(pools, advance::advance_all),
        }
    }
}

#[async_trait]
impl Store for PgStore {
    async fn close(&self) {
        self.groups.pool.close().await;
        self.pool.close().await;
    }
}

type Tx = Transaction<'static, Postgres>;

impl PgStore {
    /// Connects, checks that the server keeps what it promises, and brings the tables up to date.
    pub async fn open(url: &DatabaseUrl, cfg: &StoreConfig) -> Result<Self, StoreError> {
        let place = url.to_string();
        let options = connect::options(url, cfg.busy_timeout_ms)?;
        let open = |e: sqlx::Error| StoreError::Open { place: place.clone(), why: fault::in_words(&e) };
        let mut first = PgConnection::connect_with(&connect::for_migrations(&options)).await.map_err(open)?;
        connect::check_server(&mut first, &place).await?;
        migrations().run(&mut first).await.map_err(|e| not_migrated(&place, e))?;
        let _bye = first.close().await;
        let wait = Duration::from_millis(cfg.busy_timeout_ms);
        let pool_of = |connections| {
            let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(wait);
            // Asking each time would cost every operation a round trip.
            pool.test_before_acquire(false).before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > Duration::from_millis(TRUSTED_IDLE_MS) {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
        };
        let grouping = connect::for_groups(&options, GROUP_LOCK_MS.min(cfg.busy_timeout_ms));
        let pool = pool_of(cfg.connections.clamp(1, 64)).connect_with(options).await.map_err(open)?;
        let grouped = pool_of(GROUP_CONNECTIONS).connect_with(grouping).await.map_err(open)?;
        let patience = wait.saturating_mul(2).saturating_add(Duration::from_millis(ANSWER_GRACE_MS));
        let groups = Arc::new(Groups::new(&Pools { grouped, alone: pool.clone(), patience }));
        Ok(Self { pool, groups, patience })
    }

    /// Runs one transaction. `op` begins it and ends with [`commit`]. Where another transaction was in the way, or the connection was lost before
    /// the commit, nothing was written: then it is run again, a bounded number of times.
    async fn write<T: Send, F, W>(&self, op: F) -> Result<T, StoreError>
    where
        F: Fn() -> W + Send + Sync,
        W: Future<Output = Result<T, Fault>> + Send,
    {
        self.bounded(tries(op), StoreError::Unsure).await
    }

    /// Runs one statement that commits by itself. If the connection is lost under it, nobody knows what became of it: it is not run again.
    async fn once<T: Send, F, W>(&self, op: F) -> Result<T, StoreError>
    where
        F: Fn() -> W + Send + Sync,
        W: Future<Output = Result<T, Fault>> + Send,
    {
        let op = async || op().await.map_err(Fault::of_a_statement);
        self.bounded(tries(op), StoreError::Unsure).await
    }

    /// Runs what only reads.
    async fn read<T: Send, F, W>(&self, op: F) -> Result<T, StoreError>
    where
        F: Fn() -> W + Send + Sync,
        W: Future<Output = Result<T, Fault>> + Send,
    {
        self.bounded(tries(op), StoreError::Unreachable).await
    }

    /// The server bounds its own work (`lock_timeout`, `statement_timeout`); this bounds the wait for a server that does not answer at all.
    async fn bounded<T: Send>(
        &self,
        work: impl Future<Output = Result<T, Fault>> + Send,
        late: fn(String) -> StoreError,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.patience, work).await {
            Ok(result) => result.map_err(Fault::told),
            Err(_) => Err(late(format!("no answer within {} ms", self.patience.as_millis()))),
        }
    }

    async fn connection(&self) -> Result<PoolConnection<Postgres>, Fault> {
        self.pool.acquire().await.map_err(Fault::unreachable)
    }

    async fn begin(&self) -> Result<Tx, Fault> {
        Ok(self.pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?)
    }

    /// One snapshot for all that is read.
    async fn snapshot(&self) -> Result<Tx, Fault> {
        Ok(self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
    }
}

/// Runs it until it ends otherwise than by bad luck that left nothing written, [`TRIES_LIMIT`] times at most.
async fn tries<T: Send, F, W>(op: F) -> Result<T, Fault>
where
    F: Fn() -> W + Send + Sync,
    W: Future<Output = Result<T, Fault>> + Send,
{
    let mut pause = Duration::from_millis(FIRST_PAUSE_MS);
    for _ in 1..TRIES_LIMIT {
        match op().await {
            Err(Fault::Contended | Fault::Lost(_)) => tokio::time::sleep(pause).await,
            other => return other,
        }
        pause = pause.saturating_mul(2);
    }
    op().await
}

/// Commits. A connection that is lost now leaves open whether the server had committed.
async fn commit(tx: Tx) -> Result<(), Fault> {
    tx.commit().await.map_err(|e| Fault::from(e).of_a_statement())
}

/// Checks how many rows a statement touched.
fn exactly_one(result: &sqlx::postgres::PgQueryResult, otherwise: StoreError) -> Result<(), StoreError> {
    if result.rows_affected() == 1 { Ok(()) } else { Err(otherwise) }
}

pub(super) fn migrations() -> Migrator {
    super::migrations!("postgres")
}

fn not_migrated(place: &str, error: MigrateError) -> StoreError {
    let why = match error {
        MigrateError::Execute(e) => fault::in_words(&e),
        MigrateError::VersionMissing(v) => super::made_by_a_newer(v),
        other => other.to_string(),
    };
    StoreError::Migrate { place: place.to_owned(), why }
}
