//! Payment requests: reading and writing them.

use std::collections::HashMap;
use std::pin::Pin;

use sqlx::PgConnection;

use super::columns::column;
use super::exactly_one;
use super::fault::{Fault, exists};
use super::group::Answers;
use super::people::hold_customer;
use crate::clock::Timestamp;
use crate::ids::{CustomerId, IntentId, RequestId};
use crate::payment::PaymentRequest;
use crate::store::rows::{Reader, money};
use crate::store::{CustomerStatus, RequestWithPayee, StoreError};

pub(super) async fn insert(connection: &mut PgConnection, r: &PaymentRequest) -> Result<(), Fault> {
    match hold_customer(connection, &r.customer).await? {
        Some(CustomerStatus::Active | CustomerStatus::Blocked) => {}
        Some(CustomerStatus::Deleted) | None => return Err(StoreError::NotFound("customer").into()),
    }
    // Another tenant's payee is nobody to this customer.
    let tenant =
        sqlx::query("SELECT p.tenant FROM payees p JOIN customers c ON c.tenant = p.tenant WHERE p.id = $1 AND c.id = $2")
            .bind(r.payee.as_str())
            .bind(r.customer.as_str())
            .fetch_optional(&mut *connection)
            .await?;
    let Some(tenant) = tenant else { return Err(StoreError::NotFound("payee").into()) };
    let tenant = Reader::new(&tenant, "payees").text("tenant")?;
    sqlx::query(
        "INSERT INTO requests
             (id, customer_id, payee_id, amount_minor, currency, due, expires_at, status, held_by, created_at, tenant, delivery)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
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
    .execute(connection)
    .await
    .map_err(|e| exists(e, "this payment request"))?;
    Ok(())
}

pub(super) async fn find(connection: &mut PgConnection, id: &RequestId) -> Result<Option<RequestWithPayee>, Fault> {
    let row = sqlx::query("SELECT r.*, p.name AS payee_name FROM requests r JOIN payees p ON p.id = r.payee_id WHERE r.id = $1")
        .bind(id.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(row.as_ref().map(money::request).transpose()?)
}

/// The same for many.
pub(super) fn find_all<'c>(
    connection: &'c mut PgConnection,
    ids: &'c [RequestId],
) -> Pin<Box<dyn Future<Output = Answers<Option<RequestWithPayee>>> + Send + 'c>> {
    Box::pin(async move {
        let rows = sqlx::query(
            "SELECT r.*, p.name AS payee_name FROM requests r JOIN payees p ON p.id = r.payee_id WHERE r.id = ANY($1)",
        )
        .bind(column(ids, RequestId::as_str))
        .fetch_all(connection)
        .await?;
        let found = rows.iter().map(money::request).collect::<Result<Vec<_>, _>>()?;
        let found: HashMap<_, _> = found.into_iter().map(|r| (r.request.id.clone(), r)).collect();
        Ok(column(ids, |id| Ok(found.get(id).cloned())))
    })
}

pub(super) async fn payable(
    connection: &mut PgConnection,
    customer: &CustomerId,
    now: Timestamp,
) -> Result<Vec<RequestWithPayee>, Fault> {
    // Dates are written year first, so that they sort as texts; those without one come last.
    let rows = sqlx::query(
        "SELECT r.*, p.name AS payee_name FROM requests r JOIN payees p ON p.id = r.payee_id
         WHERE r.customer_id = $1 AND r.status = 'open' AND r.held_by IS NULL
         ORDER BY r.due NULLS LAST, r.created_at, r.id",
    )
    .bind(customer.as_str())
    .fetch_all(connection)
    .await?;
    let all = rows.iter().map(money::request).collect::<Result<Vec<_>, _>>()?;
    Ok(all.into_iter().filter(|r| r.request.payable(now)).collect())
}

/// Writes status and holder over what was read as `before`; asserts that nobody changed them meanwhile.
pub(super) async fn replace(connection: &mut PgConnection, before: &PaymentRequest, after: &PaymentRequest) -> Result<(), Fault> {
    let done = sqlx::query(
        "UPDATE requests SET status = $1, held_by = $2 WHERE id = $3 AND status = $4 AND held_by IS NOT DISTINCT FROM $5",
    )
    .bind(after.status.as_str())
    .bind(after.held_by.as_ref().map(IntentId::as_str))
    .bind(before.id.as_str())
    .bind(before.status.as_str())
    .bind(before.held_by.as_ref().map(IntentId::as_str))
    .execute(connection)
    .await?;
    Ok(exactly_one(&done, StoreError::Conflict("payment request"))?)
}

pub(super) async fn expire(connection: &mut PgConnection, now: Timestamp) -> Result<u64, Fault> {
    // What somebody is about to hold is left to the next sweep.
    let done = sqlx::query(
        "UPDATE requests SET status = 'expired' WHERE id IN (SELECT id FROM requests
             WHERE status = 'open' AND held_by IS NULL AND expires_at <= $1 ORDER BY id FOR UPDATE SKIP LOCKED)",
    )
    .bind(now.0)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
