//! Calls, and failures counted across them.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{SqliteStore, exactly_one, exists, fault};
use crate::clock::Timestamp;
use crate::e164::E164;
use crate::ids::{CallId, CustomerId};
use crate::store::rows::calls::{self, failure_counts};
use crate::store::rows::to_json;
use crate::store::{CallRecord, Calls, FactorFailure, FailureCounts, StoreError};

#[async_trait]
impl Calls for SqliteStore {
    async fn record_failure(&self, failure: &FactorFailure, window_start: Timestamp) -> Result<FailureCounts, StoreError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO factor_failures (factor, customer_id, calling, trunk, attested, call_id, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(failure.factor.as_str())
        .bind(failure.customer.as_ref().map(CustomerId::as_str))
        .bind(failure.calling.as_ref().map(E164::as_str))
        .bind(&failure.trunk)
        .bind(failure.attested)
        .bind(failure.call.as_str())
        .bind(failure.at.0)
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        let counts = count(&mut tx, failure.customer.as_ref(), failure.calling.as_ref(), &failure.trunk, window_start).await?;
        tx.commit().await.map_err(fault)?;
        Ok(counts)
    }

    async fn failure_counts(
        &self,
        customer: Option<&CustomerId>,
        calling: Option<&E164>,
        trunk: &str,
        window_start: Timestamp,
    ) -> Result<FailureCounts, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        count(&mut conn, customer, calling, trunk, window_start).await
    }

    async fn call_started(&self, call: &CallRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO calls (id, customer_id, calling, trunk, started_at, ended_at, verdict, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(call.id.as_str())
        .bind(call.customer.as_ref().map(CustomerId::as_str))
        .bind(call.calling.as_ref().map(E164::as_str))
        .bind(&call.trunk)
        .bind(call.started_at.0)
        .bind(call.ended_at.map(|t| t.0))
        .bind(&call.verdict)
        .bind(to_json(&call.record)?)
        .execute(&mut *tx)
        .await
        .map_err(|e| exists(e, "this call"))?;
        tx.commit().await.map_err(fault)
    }

    async fn call_ended(&self, call: &CallRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("UPDATE calls SET customer_id = ?, ended_at = ?, verdict = ?, record = ? WHERE id = ?")
            .bind(call.customer.as_ref().map(CustomerId::as_str))
            .bind(call.ended_at.map(|t| t.0))
            .bind(&call.verdict)
            .bind(to_json(&call.record)?)
            .bind(call.id.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        exactly_one(&done, StoreError::NotFound("call"))?;
        for sql in calls::AFTER_A_CALL {
            sqlx::query(sql).bind(call.id.as_str()).execute(&mut *tx).await.map_err(fault)?;
        }
        tx.commit().await.map_err(fault)
    }

    async fn call(&self, id: &CallId) -> Result<Option<CallRecord>, StoreError> {
        let row =
            sqlx::query("SELECT * FROM calls WHERE id = ?").bind(id.as_str()).fetch_optional(&self.pool).await.map_err(fault)?;
        row.as_ref().map(calls::call).transpose()
    }

    async fn calls(&self, limit: u32) -> Result<Vec<CallRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM calls ORDER BY started_at DESC, id LIMIT ?")
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(calls::call).collect()
    }
}

async fn count(
    conn: &mut SqliteConnection,
    customer: Option<&CustomerId>,
    calling: Option<&E164>,
    trunk: &str,
    since: Timestamp,
) -> Result<FailureCounts, StoreError> {
    let customer = customer.map(CustomerId::as_str);
    let calling = calling.map(E164::as_str);
    // `= NULL` matches nothing, so an unknown customer or number counts nothing.
    let row = sqlx::query(
        "SELECT
           (SELECT count(*) FROM factor_failures WHERE customer_id = ?1 AND at >= ?4 AND attested = 1) AS customer_attested,
           (SELECT count(*) FROM factor_failures WHERE customer_id = ?1 AND at >= ?4) AS customer_any,
           (SELECT count(*) FROM factor_failures WHERE calling = ?2 AND at >= ?4 AND attested = 0) AS calling,
           (SELECT count(*) FROM factor_failures WHERE customer_id = ?1 AND at >= ?4 AND attested = 0 AND (calling IS NULL
              OR calling NOT IN (SELECT number FROM customer_numbers WHERE customer_id = ?1))) AS strangers,
           (SELECT count(*) FROM factor_failures WHERE trunk = ?3 AND at >= ?4) AS trunk",
    )
    .bind(customer)
    .bind(calling)
    .bind(trunk)
    .bind(since.0)
    .fetch_one(conn)
    .await
    .map_err(fault)?;
    failure_counts(&row)
}
