//! Endpoints and deliveries. Whoever puts something into a lane, or takes an end back, locks the endpoint's row (`FOR UPDATE`, by identifier);
//! whoever ends a delivery shares it (`FOR KEY SHARE`): else what comes as the one before ends would wait for ever.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::fault::{Fault, exists};
use super::trail::insert_audit;
use super::{PgStore, commit, exactly_one};
use crate::clock::Timestamp;
use crate::ids::{EndpointId, Tenant};
use crate::store::notices::{Backlog, Delivery, DeliveryState, Endpoint, Handed, Notices, Outcome, Replay};
use crate::store::rows::{Reader, notices as read, to_json};
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

    async fn delete_endpoint(&self, id: &EndpointId, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            locked(&mut tx, &[id.as_str()]).await?;
            sqlx::query("DELETE FROM deliveries WHERE endpoint_id = $1").bind(id.as_str()).execute(&mut *tx).await?;
            let gone = sqlx::query("DELETE FROM endpoints WHERE id = $1").bind(id.as_str()).execute(&mut *tx).await?;
            exactly_one(&gone, StoreError::NotFound("endpoint"))?;
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
        let news: Vec<&str> = rows.iter().map(|row| row.outbox.as_str()).collect();
        let each = || rows.iter().flat_map(|row| row.to.iter().map(move |to| (to.as_str(), row)));
        let to: Vec<&str> = each().map(|(to, _)| to).collect();
        let what: Vec<&str> = each().map(|(_, row)| row.outbox.as_str()).collect();
        let subjects: Vec<&str> = each().map(|(_, row)| row.subject.as_str()).collect();
        self.write(async || {
            let mut tx = self.begin().await?;
            locked(&mut tx, &to).await?;
            sqlx::query(
                "INSERT INTO deliveries (endpoint_id, outbox_id, position, subject, state, next_at, head)
                 SELECT e.id, o.id, o.seq, h.subject, 'waiting', $4,
                     row_number() OVER (PARTITION BY e.id, h.subject ORDER BY o.seq) = 1 AND NOT EXISTS
                         (SELECT 1 FROM deliveries b WHERE b.endpoint_id = e.id AND b.subject = h.subject AND b.state = 'waiting')
                 FROM unnest($1::text[], $2::text[], $3::text[]) h (endpoint, outbox, subject)
                     JOIN outbox o ON o.id = h.outbox AND o.delivered_at IS NULL JOIN endpoints e ON e.id = h.endpoint
                 ON CONFLICT (endpoint_id, outbox_id) DO NOTHING",
            )
            .bind(&to)
            .bind(&what)
            .bind(&subjects)
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
            sqlx::query("UPDATE outbox SET delivered_at = $1 WHERE id = ANY($2::text[]) AND delivered_at IS NULL")
                .bind(now.0)
                .bind(&news)
                .execute(&mut *tx)
                .await?;
            commit(tx).await
        })
        .await
    }

    async fn due_endpoints(&self, now: Timestamp) -> Result<Vec<EndpointId>, StoreError> {
        self.read(async || {
            let rows = sqlx::query(
                "SELECT e.id FROM endpoints e WHERE NOT e.disabled AND EXISTS
                     (SELECT 1 FROM deliveries d WHERE d.endpoint_id = e.id AND d.state = 'waiting' AND d.head AND d.next_at <= $1)",
            )
            .bind(now.0)
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(rows.iter().map(|row| Reader::new(row, "endpoints").parsed("id")).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn claim_deliveries(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        rooms: &[(EndpointId, u32)],
    ) -> Result<Vec<Delivery>, StoreError> {
        let (endpoints, rooms): (Vec<_>, Vec<_>) = rooms.iter().map(|(id, room)| (id.as_str(), i64::from(*room))).unzip();
        self.write(async || {
            let mut tx = self.begin().await?;
            // What another node is about to claim is left to it.
            let rows = sqlx::query(
                "WITH due AS (
                     SELECT f.endpoint_id, f.outbox_id FROM unnest($1::text[], $2::bigint[]) r (endpoint, room) CROSS JOIN LATERAL
                         (SELECT c.endpoint_id, c.outbox_id FROM deliveries c
                          WHERE c.endpoint_id = r.endpoint AND c.state = 'waiting' AND c.head AND c.next_at <= $3
                          ORDER BY c.next_at, c.position LIMIT r.room FOR UPDATE SKIP LOCKED) f)
                 UPDATE deliveries d SET next_at = $4, tries = d.tries + 1 FROM due, outbox o
                 WHERE d.endpoint_id = due.endpoint_id AND d.outbox_id = due.outbox_id AND o.id = d.outbox_id
                 RETURNING d.*, o.id, o.at, o.topic, o.payload",
            )
            .bind(&endpoints)
            .bind(&rooms)
            .bind(now.0)
            .bind(lease_until.0)
            .fetch_all(&mut *tx)
            .await?;
            let claimed = rows.iter().map(read::delivery).collect::<Result<Vec<_>, _>>()?;
            commit(tx).await?;
            Ok(claimed)
        })
        .await
    }

    async fn finish_delivery(
        &self,
        claimed: &Delivery,
        outcome: &Outcome,
        answer: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (state, next, ended) = match outcome {
            Outcome::Delivered => (DeliveryState::Delivered, None, Some(now.0)),
            Outcome::Again(at) => (DeliveryState::Waiting, Some(at.0), None),
            Outcome::Dead => (DeliveryState::Dead, None, Some(now.0)),
        };
        self.write(async || {
            let mut tx = self.begin().await?;
            if ended.is_some() {
                sqlx::query("SELECT 1 FROM endpoints WHERE id = $1 FOR KEY SHARE")
                    .bind(claimed.endpoint.as_str())
                    .execute(&mut *tx)
                    .await?;
            }
            let written = sqlx::query(
                "UPDATE deliveries SET state = $1, next_at = coalesce($2, next_at), ended_at = $3, answer = $4
                 WHERE endpoint_id = $5 AND outbox_id = $6 AND state = 'waiting' AND tries = $7 AND next_at = $8",
            )
            .bind(state.as_str())
            .bind(next)
            .bind(ended)
            .bind(answer)
            .bind(claimed.endpoint.as_str())
            .bind(claimed.news.id.as_str())
            .bind(i64::from(claimed.tries))
            .bind(claimed.next_at.0)
            .execute(&mut *tx)
            .await?;
            if written.rows_affected() == 0 {
                return Ok(false);
            }
            if ended.is_some() {
                sqlx::query(
                    "UPDATE deliveries SET head = true WHERE endpoint_id = $1 AND outbox_id =
                         (SELECT outbox_id FROM deliveries WHERE endpoint_id = $1 AND subject = $2 AND state = 'waiting'
                          ORDER BY position LIMIT 1)",
                )
                .bind(claimed.endpoint.as_str())
                .bind(claimed.subject.as_str())
                .execute(&mut *tx)
                .await?;
            }
            commit(tx).await?;
            Ok(true)
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
        let dead = state == Some(DeliveryState::Dead);
        self.read(async || {
            let query = if dead {
                sqlx::query(
                    "SELECT d.*, o.id, o.at, o.topic, o.payload FROM deliveries d JOIN outbox o ON o.id = d.outbox_id
                     WHERE d.endpoint_id = $1 AND d.position > $2 AND d.state = 'dead' AND $3::text = 'dead' ORDER BY d.position LIMIT $4",
                )
            } else {
                sqlx::query(
                    "SELECT d.*, o.id, o.at, o.topic, o.payload FROM deliveries d JOIN outbox o ON o.id = d.outbox_id
                     WHERE d.endpoint_id = $1 AND d.position > $2 AND d.state = coalesce($3::text, d.state)
                     ORDER BY d.position LIMIT $4",
                )
            };
            let rows = query
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
        which: Replay<'_>,
        now: Timestamp,
        audit: &AuditRecord,
    ) -> Result<u64, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            locked(&mut tx, &[endpoint.as_str()]).await?;
            let query = match which {
                Replay::One(_) => sqlx::query(
                    "UPDATE deliveries SET state = 'waiting', tries = 0, next_at = $1, ended_at = NULL
                     WHERE endpoint_id = $2 AND outbox_id = $3",
                ),
                Replay::Dead => sqlx::query(
                    "UPDATE deliveries SET state = 'waiting', tries = 0, next_at = $1, ended_at = NULL
                     WHERE endpoint_id = $2 AND state = 'dead'",
                ),
                Replay::Since(_) => sqlx::query(
                    "UPDATE deliveries d SET state = 'waiting', tries = 0, next_at = $1, ended_at = NULL
                     WHERE d.endpoint_id = $2 AND d.state <> 'waiting'
                         AND (SELECT o.at FROM outbox o WHERE o.id = d.outbox_id) >= $3",
                ),
            };
            let query = query.bind(now.0).bind(endpoint.as_str());
            let query = match which {
                Replay::One(outbox) => query.bind(outbox.as_str()),
                Replay::Dead => query,
                Replay::Since(at) => query.bind(at.0),
            };
            let again = query.execute(&mut *tx).await?;
            // What was sent before may come before what waits: each lane has another head now.
            sqlx::query(
                "UPDATE deliveries d SET head = NOT EXISTS
                     (SELECT 1 FROM deliveries b WHERE b.state = 'waiting' AND b.endpoint_id = d.endpoint_id
                      AND b.subject = d.subject AND b.position < d.position)
                 WHERE d.endpoint_id = $1 AND d.state = 'waiting'",
            )
            .bind(endpoint.as_str())
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
                // By where the rows lie: the planner, who does not know how few they are, would join the whole table.
                "DELETE FROM deliveries WHERE state = 'delivered' AND ctid = ANY (ARRAY
                     (SELECT ctid FROM deliveries WHERE ended_at < $1 AND state = 'delivered' ORDER BY ended_at LIMIT $2))",
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

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.read(async || {
            let row = sqlx::query(
                "SELECT (SELECT count(*) FROM outbox WHERE delivered_at IS NULL) AS outbox,
                     (SELECT count(*) FROM deliveries WHERE state = 'waiting') AS waiting,
                     (SELECT count(*) FROM deliveries WHERE state = 'dead') AS dead,
                     (SELECT at FROM outbox WHERE delivered_at IS NULL ORDER BY seq LIMIT 1) AS outbox_at,
                     (SELECT o.at FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id JOIN outbox o ON o.id = d.outbox_id
                      WHERE d.state = 'waiting' AND NOT e.disabled ORDER BY d.position LIMIT 1) AS waiting_at",
            )
            .fetch_one(&mut *self.connection().await?)
            .await?;
            Ok(read::backlog(&row)?)
        })
        .await
    }
}

/// Locks endpoints, one after the other in the order that all take.
async fn locked(tx: &mut PgConnection, endpoints: &[&str]) -> Result<(), Fault> {
    sqlx::query("SELECT 1 FROM endpoints WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE").bind(endpoints).execute(tx).await?;
    Ok(())
}
