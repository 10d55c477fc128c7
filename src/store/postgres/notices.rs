//! Endpoints and deliveries.

use async_trait::async_trait;

use super::fault::exists;
use super::trail::insert_audit;
use super::{PgStore, commit, exactly_one};
use crate::clock::Timestamp;
use crate::ids::{EndpointId, OutboxId, Tenant};
use crate::store::notices::{Delivery, DeliveryState, Endpoint, Handed, Notices, Outcome};
use crate::store::rows::{notices as read, to_json};
use crate::store::{AuditRecord, StoreError};

#[async_trait]
impl Notices for PgStore {
    async fn write_endpoint(&self, e: &Endpoint, audit: &AuditRecord) -> Result<(), StoreError> {
        let version = i64::try_from(e.version).map_err(|e| StoreError::Failed(e.to_string()))?;
        self.write(async || {
            let mut tx = self.begin().await?;
            let written = if version == 0 {
                sqlx::query(
                    "INSERT INTO endpoints (url, topics, secrets, disabled, version, id, tenant, created_at)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                )
            } else {
                sqlx::query(
                    "UPDATE endpoints SET url = $1, topics = $2, secrets = $3, disabled = $4, version = $5
                     WHERE id = $6 AND tenant = $7 AND created_at = $8 AND version = $5 - 1",
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
            commit(tx).await
        })
        .await
    }

    async fn endpoint(&self, id: &EndpointId) -> Result<Option<Endpoint>, StoreError> {
        self.read(async || {
            let row = sqlx::query(
                "SELECT id, tenant, url, topics, secrets, disabled::int::bigint AS disabled, version, created_at
                 FROM endpoints WHERE id = $1",
            )
            .bind(id.as_str())
            .fetch_optional(&mut *self.connection().await?)
            .await?;
            Ok(row.as_ref().map(read::endpoint).transpose()?)
        })
        .await
    }

    async fn endpoints(&self, tenant: Option<&Tenant>) -> Result<Vec<Endpoint>, StoreError> {
        self.read(async || {
            let query = match tenant {
                Some(tenant) => sqlx::query(
                    "SELECT id, tenant, url, topics, secrets, disabled::int::bigint AS disabled, version, created_at
                     FROM endpoints WHERE tenant = $1 ORDER BY id",
                )
                .bind(tenant.as_str()),
                None => sqlx::query(
                    "SELECT id, tenant, url, topics, secrets, disabled::int::bigint AS disabled, version, created_at
                     FROM endpoints ORDER BY id",
                ),
            };
            let rows = query.fetch_all(&mut *self.connection().await?).await?;
            Ok(rows.iter().map(read::endpoint).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn hand_out(&self, rows: &[Handed], now: Timestamp) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            for row in rows {
                for endpoint in &row.to {
                    sqlx::query(
                        "INSERT INTO deliveries (endpoint_id, outbox_id, position, subject, state, next_at)
                         SELECT $1, id, seq, $2, 'waiting', 0 FROM outbox WHERE id = $3 AND delivered_at IS NULL
                         ON CONFLICT (endpoint_id, outbox_id) DO NOTHING",
                    )
                    .bind(endpoint.as_str())
                    .bind(&row.subject)
                    .bind(row.outbox.as_str())
                    .execute(&mut *tx)
                    .await?;
                }
                sqlx::query("UPDATE outbox SET delivered_at = $1 WHERE id = $2 AND delivered_at IS NULL")
                    .bind(now.0)
                    .bind(row.outbox.as_str())
                    .execute(&mut *tx)
                    .await?;
            }
            commit(tx).await
        })
        .await
    }

    async fn claim_deliveries(&self, now: Timestamp, lease_until: Timestamp, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            // Whoever claims the same waits here no longer than for the others' commit, and then takes what they left.
            let rows = sqlx::query(
                "SELECT d.*, o.id, o.at, o.topic, o.payload FROM deliveries d JOIN outbox o ON o.id = d.outbox_id
                 JOIN endpoints e ON e.id = d.endpoint_id
                 WHERE d.state = 'waiting' AND d.next_at <= $1 AND NOT e.disabled AND NOT EXISTS
                     (SELECT 1 FROM deliveries b WHERE b.state = 'waiting' AND b.endpoint_id = d.endpoint_id AND b.subject = d.subject
                      AND b.position < d.position)
                 ORDER BY d.next_at, d.position LIMIT $2 FOR UPDATE OF d SKIP LOCKED",
            )
            .bind(now.0)
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
            let claimed = rows.iter().map(read::delivery).collect::<Result<Vec<_>, _>>()?;
            let (endpoints, news): (Vec<_>, Vec<_>) = claimed.iter().map(|d| (d.endpoint.as_str(), d.news.id.as_str())).unzip();
            sqlx::query(
                "UPDATE deliveries d SET next_at = $1, tries = tries + 1 FROM unnest($2::text[], $3::text[]) AS c (endpoint, outbox)
                 WHERE d.endpoint_id = c.endpoint AND d.outbox_id = c.outbox",
            )
            .bind(lease_until.0)
            .bind(endpoints)
            .bind(news)
            .execute(&mut *tx)
            .await?;
            commit(tx).await?;
            Ok(claimed)
        })
        .await
    }

    async fn finish_delivery(
        &self,
        endpoint: &EndpointId,
        outbox: &OutboxId,
        outcome: &Outcome,
        answer: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (state, next, ended) = match outcome {
            Outcome::Delivered => (DeliveryState::Delivered, None, Some(now.0)),
            Outcome::Again(at) => (DeliveryState::Waiting, Some(at.0), None),
            Outcome::Dead => (DeliveryState::Dead, None, Some(now.0)),
        };
        self.write(async || {
            let mut tx = self.begin().await?;
            sqlx::query(
                "UPDATE deliveries SET state = $1, next_at = coalesce($2, next_at), ended_at = $3, answer = $4
                 WHERE endpoint_id = $5 AND outbox_id = $6 AND state = 'waiting'",
            )
            .bind(state.as_str())
            .bind(next)
            .bind(ended)
            .bind(answer)
            .bind(endpoint.as_str())
            .bind(outbox.as_str())
            .execute(&mut *tx)
            .await?;
            commit(tx).await
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
        self.read(async || {
            let rows = sqlx::query(
                "SELECT d.*, o.id, o.at, o.topic, o.payload FROM deliveries d JOIN outbox o ON o.id = d.outbox_id
                 WHERE d.endpoint_id = $1 AND d.position > $2 AND d.state = coalesce($3, d.state) ORDER BY d.position LIMIT $4",
            )
            .bind(endpoint.as_str())
            .bind(after)
            .bind(state.map(DeliveryState::as_str))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(rows.iter().map(read::delivery).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn replay(
        &self,
        endpoint: &EndpointId,
        one: Option<&OutboxId>,
        now: Timestamp,
        audit: &AuditRecord,
    ) -> Result<u64, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let again = sqlx::query(
                "UPDATE deliveries SET state = 'waiting', tries = 0, next_at = $1, ended_at = NULL
                 WHERE endpoint_id = $2 AND CASE WHEN $3::text IS NULL THEN state = 'dead' ELSE outbox_id = $3 END",
            )
            .bind(now.0)
            .bind(endpoint.as_str())
            .bind(one.map(OutboxId::as_str))
            .execute(&mut *tx)
            .await?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await?;
            Ok(again.rows_affected())
        })
        .await
    }

    async fn forget_deliveries(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let gone = sqlx::query(
                "DELETE FROM deliveries WHERE state = 'delivered' AND (endpoint_id, outbox_id) IN
                     (SELECT endpoint_id, outbox_id FROM deliveries WHERE ended_at < $1 ORDER BY ended_at LIMIT $2)",
            )
            .bind(before.0)
            .bind(i64::from(limit))
            .execute(&mut *tx)
            .await?;
            commit(tx).await?;
            Ok(gone.rows_affected())
        })
        .await
    }
}
