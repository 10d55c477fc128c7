//! Endpoints and deliveries.

use async_trait::async_trait;

use super::trail::insert_audit;
use super::{SqliteStore, exactly_one, exists, fault};
use crate::clock::Timestamp;
use crate::ids::{EndpointId, Tenant};
use crate::store::notices::{Backlog, Delivery, DeliveryState, Endpoint, Handed, Notices, Outcome, Replay};
use crate::store::rows::{Reader, notices as read, to_json};
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

    async fn delete_endpoint(&self, id: &EndpointId, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("DELETE FROM deliveries WHERE endpoint_id = ?").bind(id.as_str()).execute(&mut *tx).await.map_err(fault)?;
        let gone = sqlx::query("DELETE FROM endpoints WHERE id = ?").bind(id.as_str()).execute(&mut *tx).await.map_err(fault)?;
        exactly_one(&gone, StoreError::NotFound("endpoint"))?;
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
                    "INSERT INTO deliveries (endpoint_id, outbox_id, position, subject, state, next_at, head)
                     SELECT e.id, o.id, o.seq, ?1, 'waiting', ?2, NOT EXISTS
                         (SELECT 1 FROM deliveries b WHERE b.endpoint_id = e.id AND b.subject = ?1 AND b.state = 'waiting')
                     FROM outbox o, endpoints e WHERE o.id = ?3 AND o.delivered_at IS NULL AND e.id = ?4
                     ON CONFLICT (endpoint_id, outbox_id) DO NOTHING",
                )
                .bind(&row.subject)
                .bind(now.0)
                .bind(row.outbox.as_str())
                .bind(endpoint.as_str())
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

    async fn due_endpoints(&self, now: Timestamp) -> Result<Vec<EndpointId>, StoreError> {
        let rows = sqlx::query(
            "SELECT e.id FROM endpoints e WHERE e.disabled = 0 AND EXISTS
                 (SELECT 1 FROM deliveries d WHERE d.endpoint_id = e.id AND d.state = 'waiting' AND d.head = 1 AND d.next_at <= ?)",
        )
        .bind(now.0)
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(|row| Reader::new(row, "endpoints").parsed("id")).collect()
    }

    async fn claim_deliveries(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        rooms: &[(EndpointId, u32)],
    ) -> Result<Vec<Delivery>, StoreError> {
        let mut tx = self.write().await?;
        let mut claimed = Vec::new();
        for (endpoint, room) in rooms {
            let rows = sqlx::query(
                "SELECT d.*, o.id, o.at, o.topic, o.payload FROM deliveries d JOIN outbox o ON o.id = d.outbox_id
                 WHERE d.endpoint_id = ? AND d.state = 'waiting' AND d.head = 1 AND d.next_at <= ?
                 ORDER BY d.next_at, d.position LIMIT ?",
            )
            .bind(endpoint.as_str())
            .bind(now.0)
            .bind(room)
            .fetch_all(&mut *tx)
            .await
            .map_err(fault)?;
            for row in &rows {
                let found = read::delivery(row)?;
                claimed.push(Delivery { tries: found.tries.saturating_add(1), next_at: lease_until, ..found });
            }
        }
        for d in &claimed {
            sqlx::query("UPDATE deliveries SET next_at = ?, tries = ? WHERE endpoint_id = ? AND outbox_id = ?")
                .bind(lease_until.0)
                .bind(d.tries)
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
        claimed: &Delivery,
        outcome: &Outcome,
        answer: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (state, next, ended) = columns(outcome, now);
        let (d, answer) = (claimed.clone(), answer.to_owned());
        self.queue(move |conn| {
            Box::pin(async move {
                let written = sqlx::query(
                    "UPDATE deliveries SET state = ?, next_at = coalesce(?, next_at), ended_at = ?, answer = ?
                     WHERE endpoint_id = ? AND outbox_id = ? AND state = 'waiting' AND tries = ? AND next_at = ?",
                )
                .bind(state)
                .bind(next)
                .bind(ended)
                .bind(answer)
                .bind(d.endpoint.as_str())
                .bind(d.news.id.as_str())
                .bind(d.tries)
                .bind(d.next_at.0)
                .execute(&mut *conn)
                .await
                .map_err(fault)?;
                if written.rows_affected() == 0 {
                    return Ok(false);
                }
                if ended.is_some() {
                    sqlx::query(
                        "UPDATE deliveries SET head = 1 WHERE endpoint_id = ?1 AND outbox_id =
                             (SELECT outbox_id FROM deliveries WHERE endpoint_id = ?1 AND subject = ?2 AND state = 'waiting'
                              ORDER BY position LIMIT 1)",
                    )
                    .bind(d.endpoint.as_str())
                    .bind(d.subject)
                    .execute(&mut *conn)
                    .await
                    .map_err(fault)?;
                }
                Ok(true)
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
        // The dead have an index of their own: they are few among many that arrived.
        let query = if state == Some(DeliveryState::Dead) {
            sqlx::query(
                "SELECT d.*, o.id, o.at, o.topic, o.payload FROM deliveries d JOIN outbox o ON o.id = d.outbox_id
                 WHERE d.endpoint_id = ?1 AND d.position > ?2 AND d.state = 'dead' AND ?3 = 'dead' ORDER BY d.position LIMIT ?4",
            )
        } else {
            sqlx::query(
                "SELECT d.*, o.id, o.at, o.topic, o.payload FROM deliveries d JOIN outbox o ON o.id = d.outbox_id
                 WHERE d.endpoint_id = ?1 AND d.position > ?2 AND d.state = coalesce(?3, d.state) ORDER BY d.position LIMIT ?4",
            )
        };
        let rows = query
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
        which: Replay<'_>,
        now: Timestamp,
        audit: &AuditRecord,
    ) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let query = match which {
            Replay::One(_) => sqlx::query(
                "UPDATE deliveries SET state = 'waiting', tries = 0, next_at = ?1, ended_at = NULL
                 WHERE endpoint_id = ?2 AND outbox_id = ?3",
            ),
            Replay::Dead => sqlx::query(
                "UPDATE deliveries SET state = 'waiting', tries = 0, next_at = ?1, ended_at = NULL
                 WHERE endpoint_id = ?2 AND state = 'dead'",
            ),
            Replay::Since(_) => sqlx::query(
                "UPDATE deliveries SET state = 'waiting', tries = 0, next_at = ?1, ended_at = NULL
                 WHERE endpoint_id = ?2 AND state <> 'waiting'
                     AND EXISTS (SELECT 1 FROM outbox o WHERE o.id = outbox_id AND o.at >= ?3)",
            ),
        };
        let query = query.bind(now.0).bind(endpoint.as_str());
        let query = match which {
            Replay::One(outbox) => query.bind(outbox.as_str()),
            Replay::Dead => query,
            Replay::Since(at) => query.bind(at.0),
        };
        let again = query.execute(&mut *tx).await.map_err(fault)?;
        // What was sent before may come before what waits: each lane has another head now.
        sqlx::query(
            "UPDATE deliveries SET head = NOT EXISTS
                 (SELECT 1 FROM deliveries b WHERE b.state = 'waiting' AND b.endpoint_id = deliveries.endpoint_id
                  AND b.subject = deliveries.subject AND b.position < deliveries.position)
             WHERE endpoint_id = ? AND state = 'waiting'",
        )
        .bind(endpoint.as_str())
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)?;
        Ok(again.rows_affected())
    }

    async fn forget_deliveries(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let gone = sqlx::query(
            "DELETE FROM deliveries WHERE (endpoint_id, outbox_id) IN
                 (SELECT endpoint_id, outbox_id FROM deliveries WHERE ended_at < ? AND state = 'delivered' ORDER BY ended_at LIMIT ?)",
        )
        .bind(before.0)
        .bind(limit)
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(gone.rows_affected())
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM outbox WHERE delivered_at IS NULL) AS outbox,
                 (SELECT count(*) FROM deliveries WHERE state = 'waiting') AS waiting,
                 (SELECT count(*) FROM deliveries WHERE state = 'dead') AS dead,
                 (SELECT at FROM outbox WHERE delivered_at IS NULL ORDER BY seq LIMIT 1) AS outbox_at,
                 (SELECT o.at FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id JOIN outbox o ON o.id = d.outbox_id
                  WHERE d.state = 'waiting' AND e.disabled = 0 ORDER BY d.position LIMIT 1) AS waiting_at",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(fault)?;
        read::backlog(&row)
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
