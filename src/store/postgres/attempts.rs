//! Attempts, the workers' queue among them, and the commands that asked for them.

use sqlx::PgConnection;

use super::fault::Fault;
use super::{books, intents};
use crate::clock::Timestamp;
use crate::ids::{AttemptId, IntentId};
use crate::payment::Attempt;
use crate::store::rows::{money, to_json};
use crate::store::{Claim, Command, Job, Schedule, StoreError};

/// Writes a fresh attempt.
pub(super) async fn insert(connection: &mut PgConnection, a: &Attempt, schedule: &Schedule) -> Result<(), Fault> {
    let lease = schedule.lease();
    sqlx::query(
        "INSERT INTO attempts (id, intent_id, operation, of_attempt, gateway, amount_minor, currency, state, detail, version, due_at,
                               lease_owner, lease_until, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(a.id.as_str())
    .bind(a.intent.as_str())
    .bind(a.operation.as_str())
    .bind(a.of_attempt.as_ref().map(AttemptId::as_str))
    .bind(&a.gateway)
    .bind(a.amount.minor.get())
    .bind(a.amount.currency.code())
    .bind(a.state.name())
    .bind(to_json(&a.state)?)
    .bind(a.version)
    .bind(schedule.due_at().0)
    .bind(lease.map(|l| l.owner.as_str()))
    .bind(lease.map(|l| l.until.0))
    .bind(a.prepared_at.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives up the lease and is due again at `until`, unless somebody has moved the attempt on.
pub(super) async fn put_off(connection: &mut PgConnection, a: &Attempt, until: Timestamp) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE attempts SET due_at = $1, lease_owner = NULL, lease_until = NULL
         WHERE id = $2 AND version = $3 AND due_at IS NOT NULL",
    )
    .bind(until.0)
    .bind(a.id.as_str())
    .bind(a.version)
    .execute(connection)
    .await?;
    Ok(())
}

/// Leases what is due. A leased attempt is due when its lease runs out, so what is due is nobody's; what another worker is claiming at this moment
/// is skipped and not waited for. What is due at once (0) has been so since it was written: the oldest of both goes first, and neither keeps the
/// other waiting. One statement, which commits by itself.
pub(super) async fn claim(connection: &mut PgConnection, claim: &Claim) -> Result<Vec<Attempt>, Fault> {
    let rows = sqlx::query(
        "WITH fresh AS (SELECT number, created_at AS since FROM attempts WHERE gateway = $3 AND due_at = 0
                        ORDER BY number LIMIT $6 FOR UPDATE SKIP LOCKED),
              later AS (SELECT number, due_at AS since FROM attempts WHERE gateway = $3 AND due_at > 0 AND due_at <= $4
                        ORDER BY due_at LIMIT $6 FOR UPDATE SKIP LOCKED),
              ahead AS (SELECT number, created_at AS since FROM attempts WHERE gateway = $3 AND due_at > $5
                        ORDER BY due_at LIMIT $6 FOR UPDATE SKIP LOCKED),
              taken AS (SELECT number FROM (SELECT * FROM fresh UNION ALL SELECT * FROM later UNION ALL SELECT * FROM ahead) AS due
                        ORDER BY since, number LIMIT $6)
         UPDATE attempts a SET lease_owner = $1, lease_until = $2, due_at = $2 FROM taken WHERE a.number = taken.number
         RETURNING a.*",
    )
    .bind(claim.lease.owner.as_str())
    .bind(claim.lease.until.0)
    .bind(&claim.gateway)
    .bind(claim.now.0)
    .bind(claim.horizon.0)
    .bind(i64::from(claim.limit))
    .fetch_all(connection)
    .await?;
    let mut claimed = rows.iter().map(money::attempt).collect::<Result<Vec<_>, _>>()?;
    claimed.sort_by_key(|a| a.number);
    Ok(claimed)
}

/// Attempts with what a worker needs to know of their intents, in three round trips however many there are.
pub(super) async fn jobs(connection: &mut PgConnection, attempts: Vec<Attempt>) -> Result<Vec<Job>, Fault> {
    if attempts.is_empty() {
        return Ok(Vec::new());
    }
    let intents = intents::with_payees(connection, attempts.iter().map(|a| a.intent.as_str()).collect()).await?;
    let originals = match attempts.iter().filter_map(|a| a.of_attempt.as_ref()).map(AttemptId::as_str).collect::<Vec<_>>() {
        none if none.is_empty() => Vec::new(),
        ids => {
            let rows = sqlx::query("SELECT * FROM attempts WHERE id = ANY($1)").bind(ids).fetch_all(&mut *connection).await?;
            rows.iter().map(money::attempt).collect::<Result<Vec<_>, _>>()?
        }
    };
    let pending = books::pending_of(connection, &attempts).await?;
    let jobs = attempts.into_iter().map(|attempt| {
        let known = intents.iter().find(|known| known.intent.id == attempt.intent).ok_or(StoreError::NotFound("payment"))?;
        let original = match &attempt.of_attempt {
            Some(id) => {
                let found = originals.iter().find(|a| a.id == *id).cloned();
                Some(found.ok_or(StoreError::NotFound("attempt that this one refers to"))?)
            }
            None => None,
        };
        let cause = Job::reserved_by(&attempt);
        let reserved = pending.iter().find(|t| t.intent == attempt.intent && t.cause.as_str() == cause.as_str());
        Ok(Job {
            intent: known.intent.clone(),
            evidence: known.evidence.clone(),
            payee_name: known.payee_name.clone(),
            pending: reserved.cloned().ok_or(StoreError::NotFound("pending transfer"))?,
            original,
            attempt,
        })
    });
    jobs.collect()
}

pub(super) async fn find(connection: &mut PgConnection, id: &AttemptId) -> Result<Option<Attempt>, Fault> {
    let row = sqlx::query("SELECT * FROM attempts WHERE id = $1").bind(id.as_str()).fetch_optional(connection).await?;
    Ok(row.as_ref().map(money::attempt).transpose()?)
}

/// A payment's attempts, in the order in which they were written.
pub(super) async fn of_intent(connection: &mut PgConnection, intent: &IntentId) -> Result<Vec<Attempt>, Fault> {
    let rows = sqlx::query("SELECT * FROM attempts WHERE intent_id = $1 ORDER BY number")
        .bind(intent.as_str())
        .fetch_all(connection)
        .await?;
    Ok(rows.iter().map(money::attempt).collect::<Result<_, _>>()?)
}

pub(super) async fn insert_command(connection: &mut PgConnection, c: &Command, attempt: &Attempt) -> Result<(), Fault> {
    sqlx::query(
        "INSERT INTO commands (key, intent_id, operation, amount_minor, currency, attempt_id, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&c.key)
    .bind(c.intent.as_str())
    .bind(c.operation.as_str())
    .bind(c.amount.map(|m| m.minor.get()))
    .bind(c.amount.map(|m| m.currency.code()))
    .bind(attempt.id.as_str())
    .bind(attempt.prepared_at.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// What was asked for with this key before, and its attempt.
pub(super) async fn command(connection: &mut PgConnection, key: &str) -> Result<Option<(Command, AttemptId)>, Fault> {
    let row = sqlx::query("SELECT * FROM commands WHERE key = $1").bind(key).fetch_optional(connection).await?;
    Ok(row.as_ref().map(money::command).transpose()?)
}
