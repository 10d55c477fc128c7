//! Calls, and failures counted across them.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::fault::{Fault, exists};
use super::{PgStore, commit, exactly_one};
use crate::clock::Timestamp;
use crate::e164::E164;
use crate::ids::{CallId, CustomerId};
use crate::store::rows::calls::{self, failure_counts};
use crate::store::rows::to_json;
use crate::store::{CallRecord, Calls, FactorFailure, FailureCounts, StoreError};

#[async_trait]
impl Calls for PgStore {
    async fn record_failure(&self, failure: &FactorFailure, window_start: Timestamp) -> Result<FailureCounts, StoreError> {
        // Committed before anything is counted, in a transaction of its own: of two failures at once, whichever counts last sees both. Counted in
        // one transaction, neither would see the other's, and guesses made at the same time would be free.
        self.once(async || {
            let mut connection = self.connection().await?;
            sqlx::query(
                "INSERT INTO factor_failures (factor, customer_id, calling, trunk, attested, call_id, at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(failure.factor.as_str())
            .bind(failure.customer.as_ref().map(CustomerId::as_str))
            .bind(failure.calling.as_ref().map(E164::as_str))
            .bind(&failure.trunk)
            .bind(failure.attested)
            .bind(failure.call.as_str())
            .bind(failure.at.0)
            .execute(&mut *connection)
            .await?;
            Ok(())
        })
        .await?;
        self.failure_counts(failure.customer.as_ref(), failure.calling.as_ref(), &failure.trunk, window_start).await
    }

    async fn failure_counts(
        &self,
        customer: Option<&CustomerId>,
        calling: Option<&E164>,
        trunk: &str,
        window_start: Timestamp,
    ) -> Result<FailureCounts, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            count(&mut connection, customer, calling, trunk, window_start).await
        })
        .await
    }

    async fn call_started(&self, call: &CallRecord) -> Result<(), StoreError> {
        let record = to_json(&call.record)?;
        self.once(async || {
            let mut connection = self.connection().await?;
            sqlx::query(
                "INSERT INTO calls (id, customer_id, calling, trunk, started_at, ended_at, verdict, record)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(call.id.as_str())
            .bind(call.customer.as_ref().map(CustomerId::as_str))
            .bind(call.calling.as_ref().map(E164::as_str))
            .bind(&call.trunk)
            .bind(call.started_at.0)
            .bind(call.ended_at.map(|t| t.0))
            .bind(&call.verdict)
            .bind(&record)
            .execute(&mut *connection)
            .await
            .map_err(|e| exists(e, "this call"))?;
            Ok(())
        })
        .await
    }

    async fn call_ended(&self, call: &CallRecord) -> Result<(), StoreError> {
        let record = to_json(&call.record)?;
        self.write(async || {
            let mut tx = self.begin().await?;
            let done = sqlx::query("UPDATE calls SET customer_id = $1, ended_at = $2, verdict = $3, record = $4 WHERE id = $5")
                .bind(call.customer.as_ref().map(CustomerId::as_str))
                .bind(call.ended_at.map(|t| t.0))
                .bind(&call.verdict)
                .bind(&record)
                .bind(call.id.as_str())
                .execute(&mut *tx)
                .await?;
            exactly_one(&done, StoreError::NotFound("call"))?;
            for sql in calls::AFTER_A_CALL {
                sqlx::query(sql).bind(call.id.as_str()).execute(&mut *tx).await?;
            }
            commit(tx).await
        })
        .await
    }

    async fn call(&self, id: &CallId) -> Result<Option<CallRecord>, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let row = sqlx::query("SELECT * FROM calls WHERE id = $1").bind(id.as_str()).fetch_optional(&mut *connection).await?;
            Ok(row.as_ref().map(calls::call).transpose()?)
        })
        .await
    }

    async fn calls(&self, limit: u32) -> Result<Vec<CallRecord>, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let rows = sqlx::query("SELECT * FROM calls ORDER BY started_at DESC, id LIMIT $1")
                .bind(i64::from(limit))
                .fetch_all(&mut *connection)
                .await?;
            Ok(rows.iter().map(calls::call).collect::<Result<_, _>>()?)
        })
        .await
    }
}

async fn count(
    connection: &mut PgConnection,
    customer: Option<&CustomerId>,
    calling: Option<&E164>,
    trunk: &str,
    since: Timestamp,
) -> Result<FailureCounts, Fault> {
    // `= NULL` matches nothing, so an unknown customer or number counts nothing.
    let row = sqlx::query(
        "SELECT
           (SELECT count(*) FROM factor_failures WHERE customer_id = $1 AND at >= $4 AND attested) AS customer_attested,
           (SELECT count(*) FROM factor_failures WHERE customer_id = $1 AND at >= $4) AS customer_any,
           (SELECT count(*) FROM factor_failures WHERE calling = $2 AND at >= $4 AND NOT attested) AS calling,
           (SELECT count(*) FROM factor_failures WHERE customer_id = $1 AND at >= $4 AND NOT attested AND (calling IS NULL
              OR calling NOT IN (SELECT number FROM customer_numbers WHERE customer_id = $1))) AS strangers,
           (SELECT count(*) FROM factor_failures WHERE trunk = $3 AND at >= $4) AS trunk",
    )
    .bind(customer.map(CustomerId::as_str))
    .bind(calling.map(E164::as_str))
    .bind(trunk)
    .bind(since.0)
    .fetch_one(connection)
    .await?;
    Ok(failure_counts(&row)?)
}
