//! Endpoints and deliveries.

use async_trait::async_trait;

use super::trail::insert_audit;
use super::{SqliteStore, exactly_one, exists, fault};
use crate::clock::Timestamp;
use crate::ids::{EndpointId, OutboxId, Tenant};
use crate::store::notices::{Delivery, DeliveryState, Endpoint, Handed, Notices, Outcome};
use crate::store::rows::{notices as read, to_json};
use crate::store::{AuditRecord, StoreError};

#[async_trait]
impl Notices for SqliteStore {
    async fn write_endpoint(&self, e: &Endpoint, audit: &AuditRecord) -> Result<(), StoreError> {
        let version = i64::try_from(e.version).map_err(|e| StoreError::Failed(e.to_string()))?;
        let mut tx = self.write().await?;
        let written = if version == 0 {
            sqlx::query(
                "INSERT INTO endpoints (url, topics, secrets, disabled, version, id, tenant, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )
        } else {
            // All numbered: beside `?5` a bare `?` is the sixth to SQLite and the fifth to sqlx.
            sqlx::query(
                "UPDATE endpoints SET url = ?1, topics = ?2, secrets = ?3, disabled = ?4, version = ?5
                 WHERE id = ?6 AND tenant = ?7 AND created_at = ?8 AND version = ?5 - 1",
            )
        };
        let written = written
            .bind(&e.url)
            .bind(to_json(&e.topics)?)
            .bind(to_json(&e.secrets)?)
            .bind(e.disabled)
            .bind(version)
            .bind(e.id.as_str())
            .bind(e.tenant.as_str())
            .bind(e.created_at.0)
            .execute(&mut *tx)
            .await
            .map_err(|e| exists(e, "this endpoint"))?;
        exactly_one(&written, StoreError::Conflict("endpoint"))?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)
    }

    async fn endpoint(&self, id: &EndpointId) -> Result<Option<Endpoint>, StoreError> {
        let row = sqlx::query("SELECT * FROM endpoints WHERE id = ?")
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(fault)?;
        row.as_ref().map(read::endpoint).transpose()
    }

    async fn endpoints(&self, tenant: Option<&Tenant>) -> Result<Vec<Endpoint>, StoreError> {
        let query = match tenant {
            Some(tenant) => sqlx::query("SELECT * FROM endpoints WHERE tenant = ? ORDER BY id").bind(tenant.as_str()),
            None => sqlx::query("SELECT * FROM endpoints ORDER BY id"),
        };
        let rows = query.fetch_all(&self.pool).await.map_err(fault)?;
        rows.iter().map(read::endpoint).collect()
    }

    async fn hand_out(&self, rows: &[Handed], now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        for row in rows {
            for endpoint in &row.to {
                sqlx::query(
                    "INSERT INTO deliveries (endpoint_id, outbox_id, position, subject, state, next_at)
                     SELECT ?, id, seq, ?, 'waiting', 0 FROM outbox WHERE id = ? AND delivered_at IS NULL
                     ON CONFLICT (endpoint_id, outbox_id) DO NOTHING",
                )
                .bind(endpoint.as_str())
                .bind(&row.subject)
                .bind(row.outbox.as_str())
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
            }
            sqlx::query("UPDATE outbox SET delivered_at = ? WHERE id = ? AND delivered_at IS NULL")
                .bind(now.0)
                .bind(row.outbox.as_str())
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
        }
        tx.commit().await.map_err(fault)
    }

    async fn claim_deliveries(&self, now: Timestamp, lease_until: Timestamp, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        let mut tx = self.write().await?;
        let rows = sqlx::query(
            "SELECT d.*, o.id, o.at, o.topic, o.payload FROM deliveries d JOIN outbox o ON o.id = d.outbox_id
             JOIN endpoints e ON e.id = d.endpoint_id
             WHERE d.state = 'waiting' AND d.next_at <= ? AND e.disabled = 0 AND NOT EXISTS
                 (SELECT 1 FROM deliveries b WHERE b.state = 'waiting' AND b.endpoint_id = d.endpoint_id AND b.subject = d.subject
                  AND b.position < d.position)
             ORDER BY d.next_at, d.position LIMIT ?",
        )
        .bind(now.0)
        .bind(limit)
        .fetch_all(&mut *tx)
        .await
        .map_err(fault)?;
        let claimed = rows.iter().map(read::delivery).collect::<Result<Vec<_>, _>>()?;
        for d in &claimed {
            sqlx::query("UPDATE deliveries SET next_at = ?, tries = tries + 1 WHERE endpoint_id = ? AND outbox_id = ?")
                .bind(lease_until.0)
                .bind(d.endpoint.as_str())
                .bind(d.news.id.as_str())
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
        }
        tx.commit().await.map_err(fault)?;
        Ok(claimed)
    }

    async fn finish_delivery(
        &self,
        endpoint: &EndpointId,
        outbox: &OutboxId,
        outcome: &Outcome,
        answer: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (state, next, ended) = columns(outcome, now);
        let (endpoint, outbox, answer) = (endpoint.clone(), outbox.clone(), answer.to_owned());
        self.queue(move |conn| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE deliveries SET state = ?, next_at = coalesce(?, next_at), ended_at = ?, answer = ?
                     WHERE endpoint_id = ? AND outbox_id = ? AND state = 'waiting'",
                )
                .bind(state)
                .bind(next)
                .bind(ended)
                .bind(answer)
                .bind(endpoint.as_str())
                .bind(outbox.as_str())
                .execute(conn)
                .await
                .map_err(fault)
                .map(drop)
            })
        })
        .await
    }

    async fn deliveries(
        &self,
        endpoint: &EndpointId,
        state: Option<DeliveryState>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Delivery>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.*, o.id, o.at, o.topic, o.payload FROM deliveries d JOIN outbox o ON o.id = d.outbox_id
             WHERE d.endpoint_id = ? AND d.position > ? AND d.state = coalesce(?, d.state) ORDER BY d.position LIMIT ?",
        )
        .bind(endpoint.as_str())
        .bind(after)
        .bind(state.map(DeliveryState::as_str))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(read::delivery).collect()
    }

    async fn replay(
        &self,
        endpoint: &EndpointId,
        one: Option<&OutboxId>,
        now: Timestamp,
        audit: &AuditRecord,
    ) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let query = match one {
            Some(outbox) => sqlx::query(
                "UPDATE deliveries SET state = 'waiting', tries = 0, next_at = ?, ended_at = NULL WHERE endpoint_id = ? AND outbox_id = ?",
            )
            .bind(now.0)
            .bind(endpoint.as_str())
            .bind(outbox.as_str()),
            None => sqlx::query(
                "UPDATE deliveries SET state = 'waiting', tries = 0, next_at = ?, ended_at = NULL WHERE endpoint_id = ? AND state = 'dead'",
            )
            .bind(now.0)
            .bind(endpoint.as_str()),
        };
        let again = query.execute(&mut *tx).await.map_err(fault)?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)?;
        Ok(again.rows_affected())
    }

    async fn forget_deliveries(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let gone = sqlx::query(
            "DELETE FROM deliveries WHERE state = 'delivered' AND (endpoint_id, outbox_id) IN
                 (SELECT endpoint_id, outbox_id FROM deliveries WHERE ended_at < ? ORDER BY ended_at LIMIT ?)",
        )
        .bind(before.0)
        .bind(limit)
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(gone.rows_affected())
    }
}

/// State, next try and end.
fn columns(outcome: &Outcome, now: Timestamp) -> (&'static str, Option<i64>, Option<i64>) {
    match outcome {
        Outcome::Delivered => (DeliveryState::Delivered.as_str(), None, Some(now.0)),
        Outcome::Again(at) => (DeliveryState::Waiting.as_str(), Some(at.0), None),
        Outcome::Dead => (DeliveryState::Dead.as_str(), None, Some(now.0)),
    }
}
