//! Intents and receipts: their rows, and a payment as a whole.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::batch::Batch;
use super::{attempts, books, disputes, fault};
use crate::ids::IntentId;
use crate::payment::{Intent, Receipt};
use crate::store::rows::{Reader, money, to_json};
use crate::store::{NewCharge, Payment, StoreError};

/// What this call made of this request before.
pub(super) async fn of_occasion(conn: &mut SqliteConnection, intent: &Intent) -> Result<Option<Intent>, StoreError> {
    let row = sqlx::query("SELECT * FROM intents WHERE call_id = ? AND request_id = ?")
        .bind(intent.occasion.as_str())
        .bind(intent.request.as_str())
        .fetch_optional(conn)
        .await
        .map_err(fault)?;
    row.as_ref().map(money::intent).transpose()
}

pub(super) fn insert(batch: &mut Batch, charge: &NewCharge) -> Result<(), StoreError> {
    let i = &charge.intent;
    batch
        .add(
        "INSERT INTO intents (id, customer_id, request_id, payee_id, card_id, last4, call_id, amount_minor, currency, capture, status,
                              evidence, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
    .bind(i.id.as_str())
    .bind(i.customer.as_str())
    .bind(i.request.as_str())
    .bind(i.payee.as_str())
    .bind(i.card.as_str())
    .bind(i.last4.as_str())
    .bind(i.occasion.as_str())
    .bind(i.amount.minor.get())
    .bind(i.amount.currency.code())
    .bind(i.capture.as_str())
    .bind(i.status.as_str())
    .bind(to_json(&charge.evidence)?)
    .bind(i.created_at.0);
    Ok(())
}

pub(super) fn insert_receipt(batch: &mut Batch, r: &Receipt) -> Result<(), StoreError> {
    batch
        .add("INSERT INTO receipts (id, reference, intent_id, body, at) VALUES (?, ?, ?, ?, ?)")
        .bind(r.id.as_str())
        .bind(r.reference.as_str())
        .bind(r.intent.as_str())
        .bind(to_json(r)?)
        .bind(r.at.0);
    Ok(())
}

pub(super) async fn find(conn: &mut SqliteConnection, id: &IntentId) -> Result<Option<Intent>, StoreError> {
    let row = sqlx::query("SELECT * FROM intents WHERE id = ?").bind(id.as_str()).fetch_optional(conn).await.map_err(fault)?;
    row.as_ref().map(money::intent).transpose()
}

/// Each intent with all that belongs to it.
pub(super) async fn whole_all(conn: &mut SqliteConnection, intents: &[SqliteRow]) -> Result<Vec<Payment>, StoreError> {
    let mut all = Vec::with_capacity(intents.len());
    for row in intents {
        all.push(whole(conn, money::intent(row)?).await?);
    }
    Ok(all)
}

/// An intent with all that belongs to it. Inside a transaction, so that the parts fit together.
pub(super) async fn whole(conn: &mut SqliteConnection, intent: Intent) -> Result<Payment, StoreError> {
    let id = intent.id.as_str();
    let payee = sqlx::query("SELECT name FROM payees WHERE id = ?")
        .bind(intent.payee.as_str())
        .fetch_one(&mut *conn)
        .await
        .map_err(fault)?;
    let receipt =
        sqlx::query("SELECT body FROM receipts WHERE intent_id = ?").bind(id).fetch_optional(&mut *conn).await.map_err(fault)?;
    Ok(Payment {
        payee_name: Reader::new(&payee, "payees").text("name")?,
        attempts: attempts::of_intent(conn, &intent.id).await?,
        disputes: disputes::of_intent(conn, &intent.id).await?,
        transfers: books::of_intent(conn, &intent.id).await?,
        receipt: receipt.map(|row| Reader::new(&row, "receipts").json("body")).transpose()?,
        intent,
    })
}
