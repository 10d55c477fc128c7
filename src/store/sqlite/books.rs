//! The books: rows that are written once.

use sqlx::SqliteConnection;

use super::batch::Batch;
use super::fault;
use crate::ids::IntentId;
use crate::ledger::Transfer;
use crate::store::StoreError;
use crate::store::rows::money;

/// Adds a row to what is about to be written.
pub(super) fn insert(batch: &mut Batch, t: &Transfer) {
    batch
        .add(
            "INSERT INTO transfers (id, kind, of_id, debit, credit, amount_minor, currency, intent_id, cause, at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(t.id.as_str())
        .bind(t.kind.name())
        .bind(t.kind.of().map(|of| of.as_str()))
        .bind(t.debit.as_str())
        .bind(t.credit.as_str())
        .bind(t.amount.minor.get())
        .bind(t.amount.currency.code())
        .bind(t.intent.as_str())
        .bind(t.cause.as_str())
        .bind(t.at.0);
}

/// A payment's rows, in the order in which they were written.
pub(super) async fn of_intent(conn: &mut SqliteConnection, intent: &IntentId) -> Result<Vec<Transfer>, StoreError> {
    let rows = sqlx::query("SELECT * FROM transfers WHERE intent_id = ? ORDER BY seq")
        .bind(intent.as_str())
        .fetch_all(conn)
        .await
        .map_err(fault)?;
    rows.iter().map(money::transfer).collect()
}

/// What `cause` reserved for a payment.
pub(super) async fn pending_of(conn: &mut SqliteConnection, intent: &IntentId, cause: &str) -> Result<Transfer, StoreError> {
    let row = sqlx::query("SELECT * FROM transfers WHERE intent_id = ? AND kind = 'pending' AND cause = ?")
        .bind(intent.as_str())
        .bind(cause)
        .fetch_optional(conn)
        .await
        .map_err(fault)?;
    row.as_ref().map(money::transfer).transpose()?.ok_or(StoreError::NotFound("pending transfer"))
}
