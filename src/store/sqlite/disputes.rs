//! Disputes, each with its rows in the books.

use sqlx::SqliteConnection;

use super::batch::Batch;
use super::trail::{audit_into, outbox_into};
use super::{attempts, books, exactly_one, fault, intents};
use crate::ids::IntentId;
use crate::payment::Dispute;
use crate::store::rows::money;
use crate::store::{DisputeEntry, StoreError};

pub(super) async fn open(conn: &mut SqliteConnection, entry: &DisputeEntry) -> Result<bool, StoreError> {
    let d = &entry.dispute;
    if let Some(earlier) = find(conn, &d.reference).await? {
        return entry.repeats(&earlier);
    }
    let intent = intents::find(conn, &d.intent).await?.ok_or(StoreError::NotFound("payment"))?;
    let before = of_intent(conn, &d.intent).await?;
    entry.may_open(&intent, &attempts::of_intent(conn, &d.intent).await?, &before)?;
    sqlx::query(
        "INSERT INTO disputes (id, intent_id, reference, amount_minor, currency, reason, state, opened_at, closed_at)
         VALUES (?, ?, ?, ?, ?, ?, 'opened', ?, NULL)",
    )
    .bind(d.id.as_str())
    .bind(d.intent.as_str())
    .bind(&d.reference)
    .bind(d.amount.minor.get())
    .bind(d.amount.currency.code())
    .bind(&d.reason)
    .bind(d.opened_at.0)
    .execute(&mut *conn)
    .await
    .map_err(fault)?;
    with_rows(conn, entry).await?;
    Ok(true)
}

pub(super) async fn close(conn: &mut SqliteConnection, entry: &DisputeEntry) -> Result<(), StoreError> {
    let d = &entry.dispute;
    entry.may_close()?;
    let done = sqlx::query("UPDATE disputes SET state = ?, closed_at = ? WHERE id = ? AND state = 'opened'")
        .bind(d.state.name())
        .bind(d.state.closed_at().map(|at| at.0))
        .bind(d.id.as_str())
        .execute(&mut *conn)
        .await
        .map_err(fault)?;
    exactly_one(&done, StoreError::Conflict("dispute"))?;
    with_rows(conn, entry).await
}

async fn with_rows(conn: &mut SqliteConnection, entry: &DisputeEntry) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    books::insert(&mut batch, &entry.transfer);
    audit_into(&mut batch, &entry.audit)?;
    outbox_into(&mut batch, &entry.outbox)?;
    batch.run(conn, StoreError::Conflict("dispute")).await.map(drop)
}

pub(super) async fn find(conn: &mut SqliteConnection, reference: &str) -> Result<Option<Dispute>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM disputes WHERE reference = ?").bind(reference).fetch_optional(conn).await.map_err(fault)?;
    row.as_ref().map(money::dispute).transpose()
}

pub(super) async fn of_intent(conn: &mut SqliteConnection, intent: &IntentId) -> Result<Vec<Dispute>, StoreError> {
    let rows = sqlx::query("SELECT * FROM disputes WHERE intent_id = ? ORDER BY rowid")
        .bind(intent.as_str())
        .fetch_all(conn)
        .await
        .map_err(fault)?;
    rows.iter().map(money::dispute).collect()
}
