//! Attempts, the workers' queue among them, and the commands that asked for them.

use sqlx::sqlite::SqliteQueryResult;
use sqlx::{SqliteConnection, SqlitePool};

use super::batch::Batch;
use super::{books, fault};
use crate::clock::Timestamp;
use crate::ids::{AttemptId, IntentId};
use crate::payment::Attempt;
use crate::store::rows::{Reader, money, to_json};
use crate::store::{Claim, Command, Job, Lease, Schedule, StoreError};

/// Adds a fresh attempt to what is about to be written; as the last statement, for the database's number of it is that of the last row.
pub(super) fn insert(batch: &mut Batch, a: &Attempt, schedule: &Schedule) -> Result<(), StoreError> {
    let lease = schedule.lease();
    batch
        .add(
            "INSERT INTO attempts (id, intent_id, operation, of_attempt, gateway, amount_minor, currency, state, detail, version,
                                   due_at, lease_owner, lease_until, created_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(a.id.as_str())
        .bind(a.intent.as_str())
        .bind(a.operation.as_str())
        .bind(a.of_attempt.as_ref().map(AttemptId::as_str))
        .bind(a.gateway.as_str())
        .bind(a.amount.minor.get())
        .bind(a.amount.currency.code())
        .bind(a.state.name())
        .bind(to_json(&a.state)?)
        .bind(a.version)
        .bind(schedule.due_at().0)
        .bind(lease.map(|l| l.owner.as_str()))
        .bind(lease.map(|l| l.until.0))
        .bind(a.prepared_at.0);
    Ok(())
}

/// The number that the database gave to an attempt that was written last.
pub(super) fn number(done: &SqliteQueryResult) -> Result<u64, StoreError> {
    u64::try_from(done.last_insert_rowid()).map_err(|_| StoreError::Failed("attempts have run out of numbers".into()))
}

/// Writes an attempt over the version before it.
pub(super) fn replace(batch: &mut Batch, a: &Attempt, schedule: Option<&Schedule>) -> Result<(), StoreError> {
    let lease: Option<&Lease> = schedule.and_then(Schedule::lease);
    batch
        .add(
            "UPDATE attempts SET state = ?, detail = ?, version = ?, gateway_reference = ?, due_at = ?, lease_owner = ?, lease_until = ?
             WHERE id = ? AND version = ? - 1 AND intent_id = ?",
        )
        .bind(a.state.name())
        .bind(to_json(&a.state)?)
        .bind(a.version)
        .bind(a.state.gateway_reference())
        .bind(schedule.map(|s| s.due_at().0))
        .bind(lease.map(|l| l.owner.as_str()))
        .bind(lease.map(|l| l.until.0))
        .bind(a.id.as_str())
        .bind(a.version)
        .bind(a.intent.as_str());
    Ok(())
}

/// Whether the row is still at the version before this.
pub(super) async fn is_before(conn: &mut SqliteConnection, a: &Attempt) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM attempts WHERE id = ? AND version = ? - 1 AND intent_id = ?")
        .bind(a.id.as_str())
        .bind(a.version)
        .bind(a.intent.as_str());
    Ok(row.fetch_optional(conn).await.map_err(fault)?.is_some())
}

/// Gives up the lease and is due again at `until`, unless somebody has moved the attempt on.
pub(super) async fn put_off(conn: &mut SqliteConnection, a: &Attempt, until: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE attempts SET due_at = ?, lease_owner = NULL, lease_until = NULL WHERE id = ? AND version = ? AND due_at IS NOT NULL",
    )
    .bind(until.0)
    .bind(a.id.as_str())
    .bind(a.version)
    .execute(conn)
    .await
    .map_err(fault)?;
    Ok(())
}

/// Whether a claim would find anything.
pub(super) async fn any_due(pool: &SqlitePool, claim: &Claim) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM attempts WHERE gateway = ?1 AND due_at <= ?2)
             OR EXISTS (SELECT 1 FROM attempts WHERE gateway = ?1 AND due_at > ?3) AS any_due",
    )
    .bind(&claim.gateway)
    .bind(claim.now.0)
    .bind(claim.horizon.0)
    .fetch_one(pool)
    .await
    .map_err(fault)?;
    Ok(Reader::new(&row, "attempts").int("any_due")? != 0)
}

/// A leased attempt is due when its lease runs out, so what is due is nobody's. What is due at once (0) has been so since it was written: the oldest
/// of both goes first, and neither keeps the other waiting.
pub(super) async fn claim(conn: &mut SqliteConnection, claim: &Claim) -> Result<Vec<Job>, StoreError> {
    let rows = sqlx::query(
        "UPDATE attempts SET lease_owner = ?1, lease_until = ?2, due_at = ?2 WHERE number IN (
             SELECT number FROM (
                 SELECT * FROM (SELECT number, created_at AS since FROM attempts WHERE gateway = ?3 AND due_at = 0
                                ORDER BY number LIMIT ?6)
                 UNION ALL
                 SELECT * FROM (SELECT number, due_at FROM attempts WHERE gateway = ?3 AND due_at > 0 AND due_at <= ?4
                                ORDER BY due_at LIMIT ?6)
                 UNION ALL
                 SELECT * FROM (SELECT number, created_at FROM attempts WHERE gateway = ?3 AND due_at > ?5 ORDER BY due_at LIMIT ?6))
             ORDER BY since, number LIMIT ?6)
         RETURNING *",
    )
    .bind(claim.lease.owner.as_str())
    .bind(claim.lease.until.0)
    .bind(&claim.gateway)
    .bind(claim.now.0)
    .bind(claim.horizon.0)
    .bind(claim.limit)
    .fetch_all(&mut *conn)
    .await
    .map_err(fault)?;
    let mut claimed = rows.iter().map(money::attempt).collect::<Result<Vec<_>, _>>()?;
    claimed.sort_by_key(|a| a.number);
    let mut jobs = Vec::with_capacity(claimed.len());
    for attempt in claimed {
        jobs.push(job(conn, attempt).await?);
    }
    Ok(jobs)
}

/// An attempt with what a worker needs to know of its intent.
pub(super) async fn job(conn: &mut SqliteConnection, attempt: Attempt) -> Result<Job, StoreError> {
    let row = sqlx::query("SELECT i.*, p.name AS payee_name FROM intents i JOIN payees p ON p.id = i.payee_id WHERE i.id = ?")
        .bind(attempt.intent.as_str())
        .fetch_one(&mut *conn)
        .await
        .map_err(fault)?;
    let r = Reader::new(&row, "intents");
    let original = match &attempt.of_attempt {
        Some(id) => Some(find(conn, id).await?.ok_or(StoreError::NotFound("attempt that this one refers to"))?),
        None => None,
    };
    Ok(Job {
        intent: money::intent(&row)?,
        evidence: r.json("evidence")?,
        payee_name: r.text("payee_name")?,
        pending: books::pending_of(conn, &attempt.intent, Job::reserved_by(&attempt).as_str()).await?,
        original,
        attempt,
    })
}

pub(super) async fn find(conn: &mut SqliteConnection, id: &AttemptId) -> Result<Option<Attempt>, StoreError> {
    let row = sqlx::query("SELECT * FROM attempts WHERE id = ?").bind(id.as_str()).fetch_optional(conn).await.map_err(fault)?;
    row.as_ref().map(money::attempt).transpose()
}

/// A payment's attempts, in the order in which they were written.
pub(super) async fn of_intent(conn: &mut SqliteConnection, intent: &IntentId) -> Result<Vec<Attempt>, StoreError> {
    let rows = sqlx::query("SELECT * FROM attempts WHERE intent_id = ? ORDER BY number")
        .bind(intent.as_str())
        .fetch_all(conn)
        .await
        .map_err(fault)?;
    rows.iter().map(money::attempt).collect()
}

pub(super) async fn insert_command(conn: &mut SqliteConnection, c: &Command, attempt: &Attempt) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO commands (key, intent_id, operation, amount_minor, currency, attempt_id, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&c.key)
    .bind(c.intent.as_str())
    .bind(c.operation.as_str())
    .bind(c.amount.map(|m| m.minor.get()))
    .bind(c.amount.map(|m| m.currency.code()))
    .bind(attempt.id.as_str())
    .bind(attempt.prepared_at.0)
    .execute(conn)
    .await
    .map_err(fault)?;
    Ok(())
}

/// What was asked for with this key before, and its attempt.
pub(super) async fn command(conn: &mut SqliteConnection, key: &str) -> Result<Option<(Command, AttemptId)>, StoreError> {
    let row = sqlx::query("SELECT * FROM commands WHERE key = ?").bind(key).fetch_optional(conn).await.map_err(fault)?;
    row.as_ref().map(money::command).transpose()
}
