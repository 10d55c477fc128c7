//! Disputes, each with its rows in the books.

use sqlx::PgConnection;

use super::fault::Fault;
use super::trail::{insert_audit, insert_outbox};
use super::{attempts, books, exactly_one, intents};
use crate::ids::IntentId;
use crate::payment::Dispute;
use crate::store::rows::money;
use crate::store::{DisputeEntry, StoreError};

pub(super) async fn open(connection: &mut PgConnection, entry: &DisputeEntry) -> Result<bool, Fault> {
    let d = &entry.dispute;
    // The payment first, so that of two notices of the same dispute the second finds the first.
    let intent = intents::hold(connection, &d.intent).await?;
    if let Some(earlier) = find(connection, &d.reference).await? {
        return Ok(entry.repeats(&earlier)?);
    }
    let intent = intent.ok_or(StoreError::NotFound("payment"))?;
    let before = of_intent(connection, &d.intent).await?;
    entry.may_open(&intent, &attempts::of_intent(connection, &d.intent).await?, &before)?;
    sqlx::query(
        "INSERT INTO disputes (id, intent_id, reference, amount_minor, currency, reason, state, opened_at, closed_at)
         VALUES ($1, $2, $3, $4, $5, $6, 'opened', $7, NULL)",
    )
    .bind(d.id.as_str())
    .bind(d.intent.as_str())
    .bind(&d.reference)
    .bind(d.amount.minor.get())
    .bind(d.amount.currency.code())
    .bind(&d.reason)
    .bind(d.opened_at.0)
    .execute(&mut *connection)
    .await?;
    with_rows(connection, entry).await?;
    Ok(true)
}

pub(super) async fn close(connection: &mut PgConnection, entry: &DisputeEntry) -> Result<(), Fault> {
    let d = &entry.dispute;
    entry.may_close()?;
    let done = sqlx::query("UPDATE disputes SET state = $1, closed_at = $2 WHERE id = $3 AND state = 'opened'")
        .bind(d.state.name())
        .bind(d.state.closed_at().map(|at| at.0))
        .bind(d.id.as_str())
        .execute(&mut *connection)
        .await?;
    exactly_one(&done, StoreError::Conflict("dispute"))?;
    with_rows(connection, entry).await
}

async fn with_rows(connection: &mut PgConnection, entry: &DisputeEntry) -> Result<(), Fault> {
    books::insert(connection, &entry.transfer).await?;
    insert_audit(connection, &entry.audit).await?;
    insert_outbox(connection, &entry.outbox).await
}

pub(super) async fn find(connection: &mut PgConnection, reference: &str) -> Result<Option<Dispute>, Fault> {
    let row = sqlx::query("SELECT * FROM disputes WHERE reference = $1").bind(reference).fetch_optional(connection).await?;
    Ok(row.as_ref().map(money::dispute).transpose()?)
}

pub(super) async fn of_intent(connection: &mut PgConnection, intent: &IntentId) -> Result<Vec<Dispute>, Fault> {
    let rows = sqlx::query("SELECT * FROM disputes WHERE intent_id = $1 ORDER BY seq")
        .bind(intent.as_str())
        .fetch_all(connection)
        .await?;
    Ok(rows.iter().map(money::dispute).collect::<Result<_, _>>()?)
}
