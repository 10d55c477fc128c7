//! Payment requests: reading and writing them inside a transaction.

use sqlx::SqliteConnection;

use super::batch::Batch;
use super::{exists, fault};
use crate::clock::Timestamp;
use crate::ids::{CustomerId, IntentId, RequestId};
use crate::payment::{Intent, PaymentRequest, RequestStatus};
use crate::store::rows::{Reader, money};
use crate::store::{RequestWithPayee, StoreError};

pub(super) async fn insert(conn: &mut SqliteConnection, r: &PaymentRequest) -> Result<(), StoreError> {
    let customer = sqlx::query("SELECT tenant FROM customers WHERE id = ? AND status <> 'deleted'")
        .bind(r.customer.as_str())
        .fetch_optional(&mut *conn)
        .await
        .map_err(fault)?;
    let Some(customer) = customer else { return Err(StoreError::NotFound("customer")) };
    let tenant = Reader::new(&customer, "customers").text("tenant")?;
    // Another tenant's payee is nobody to this customer.
    let payee = sqlx::query("SELECT 1 FROM payees WHERE id = ? AND tenant = ?")
        .bind(r.payee.as_str())
        .bind(&tenant)
        .fetch_optional(&mut *conn)
        .await
        .map_err(fault)?;
    if payee.is_none() {
        return Err(StoreError::NotFound("payee"));
    }
    sqlx::query(
        "INSERT INTO requests
             (id, customer_id, payee_id, amount_minor, currency, due, expires_at, status, held_by, created_at, tenant, delivery)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(r.id.as_str())
    .bind(r.customer.as_str())
    .bind(r.payee.as_str())
    .bind(r.amount.minor.get())
    .bind(r.amount.currency.code())
    .bind(r.due.map(String::from))
    .bind(r.expires_at.map(|t| t.0))
    .bind(r.status.as_str())
    .bind(r.held_by.as_ref().map(IntentId::as_str))
    .bind(r.created_at.0)
    .bind(tenant)
    .bind(r.delivery.as_row())
    .execute(conn)
    .await
    .map_err(|e| exists(e, "this payment request"))?;
    Ok(())
}

pub(super) async fn find(conn: &mut SqliteConnection, id: &RequestId) -> Result<Option<RequestWithPayee>, StoreError> {
    let row = sqlx::query("SELECT r.*, p.name AS payee_name FROM requests r JOIN payees p ON p.id = r.payee_id WHERE r.id = ?")
        .bind(id.as_str())
        .fetch_optional(conn)
        .await
        .map_err(fault)?;
    row.as_ref().map(money::request).transpose()
}

pub(super) async fn payable(
    conn: &mut SqliteConnection,
    customer: &CustomerId,
    now: Timestamp,
) -> Result<Vec<RequestWithPayee>, StoreError> {
    // Dates are written year first, so that they sort as texts; those without one come last.
    let rows = sqlx::query(
        "SELECT r.*, p.name AS payee_name FROM requests r JOIN payees p ON p.id = r.payee_id
         WHERE r.customer_id = ? AND r.status = 'open' AND r.held_by IS NULL
         ORDER BY r.due IS NULL, r.due, r.created_at, r.id",
    )
    .bind(customer.as_str())
    .fetch_all(conn)
    .await
    .map_err(fault)?;
    let all = rows.iter().map(money::request).collect::<Result<Vec<_>, _>>()?;
    Ok(all.into_iter().filter(|r| r.request.payable(now)).collect())
}

/// Writes the status over what was read as `before`; asserts that nobody changed it meanwhile, or holds the request.
pub(super) async fn replace(
    conn: &mut SqliteConnection,
    before: &PaymentRequest,
    after: &PaymentRequest,
) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.add("UPDATE requests SET status = ? WHERE id = ? AND status = ? AND held_by IS NULL");
    batch.bind(after.status.as_str()).bind(before.id.as_str()).bind(before.status.as_str());
    batch.run(conn, StoreError::Conflict("payment request")).await.map(drop)
}

/// Writes the holder over what was read as `before`, as long as the customer may pay with this card.
pub(super) fn hold(batch: &mut Batch, before: &PaymentRequest, intent: &Intent) {
    batch
        .add(
            "UPDATE requests SET held_by = ? WHERE id = ? AND status = ? AND held_by IS ?
               AND EXISTS (SELECT 1 FROM customers WHERE id = ? AND status = 'active')
               AND EXISTS (SELECT 1 FROM cards WHERE id = ? AND status = 'active')",
        )
        .bind(intent.id.as_str())
        .bind(before.id.as_str())
        .bind(before.status.as_str())
        .bind(before.held_by.as_ref().map(IntentId::as_str))
        .bind(intent.customer.as_str())
        .bind(intent.card.as_str());
}

/// Settles the request that an intent holds, or gives it free.
pub(super) fn decide(batch: &mut Batch, intent: &IntentId, (status, keeps): (RequestStatus, bool)) {
    batch
        .add(
            "UPDATE requests SET status = ?, held_by = ? WHERE id = (SELECT request_id FROM intents WHERE id = ?)
               AND status = 'open' AND held_by = ?",
        )
        .bind(status.as_str())
        .bind(keeps.then_some(intent.as_str()))
        .bind(intent.as_str())
        .bind(intent.as_str());
}

pub(super) async fn expire(conn: &mut SqliteConnection, now: Timestamp) -> Result<u64, StoreError> {
    let done =
        sqlx::query("UPDATE requests SET status = 'expired' WHERE status = 'open' AND held_by IS NULL AND expires_at <= ?")
            .bind(now.0)
            .execute(conn)
            .await
            .map_err(fault)?;
    Ok(done.rows_affected())
}
