//! The books: rows that are written once.

use sqlx::PgConnection;

use super::fault::Fault;
use crate::ids::IntentId;
use crate::ledger::Transfer;
use crate::payment::Attempt;
use crate::store::Job;
use crate::store::rows::money;

pub(super) async fn insert(connection: &mut PgConnection, t: &Transfer) -> Result<(), Fault> {
    sqlx::query(
        "INSERT INTO transfers (id, kind, of_id, debit, credit, amount_minor, currency, intent_id, cause, at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
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
    .bind(t.at.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// A payment's rows, in the order in which they were written.
pub(super) async fn of_intent(connection: &mut PgConnection, intent: &IntentId) -> Result<Vec<Transfer>, Fault> {
    let rows = sqlx::query("SELECT * FROM transfers WHERE intent_id = $1 ORDER BY seq")
        .bind(intent.as_str())
        .fetch_all(connection)
        .await?;
    Ok(rows.iter().map(money::transfer).collect::<Result<_, _>>()?)
}

/// What was reserved for these attempts ([`Job::reserved_by`]).
pub(super) async fn pending_of(connection: &mut PgConnection, attempts: &[Attempt]) -> Result<Vec<Transfer>, Fault> {
    let rows = sqlx::query("SELECT * FROM transfers WHERE intent_id = ANY($1) AND kind = 'pending' AND cause = ANY($2)")
        .bind(attempts.iter().map(|a| a.intent.as_str()).collect::<Vec<_>>())
        .bind(attempts.iter().map(|a| Job::reserved_by(a).as_str()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    Ok(rows.iter().map(money::transfer).collect::<Result<_, _>>()?)
}
