//! Audit trail, outbox, and the check value of the vault's root secret.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::fault::Fault;
use super::{PgStore, commit, exactly_one};
use crate::clock::Timestamp;
use crate::ids::OutboxId;
use crate::store::rows::{Reader, to_json, trail};
use crate::store::{AuditRecord, KEY_CHECK, OutboxRecord, StoreError, Trail};

#[async_trait]
impl Trail for PgStore {
    async fn audit(&self, record: &AuditRecord) -> Result<(), StoreError> {
        self.once(async || {
            let mut connection = self.connection().await?;
            insert_audit(&mut connection, record).await
        })
        .await
    }

    async fn announce(&self, news: &OutboxRecord, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            insert_outbox(&mut tx, news).await?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }

    async fn audit_trail(&self, limit: u32) -> Result<Vec<AuditRecord>, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let rows = sqlx::query("SELECT id, at, actor, action, subject, detail FROM audit ORDER BY seq DESC LIMIT $1")
                .bind(i64::from(limit))
                .fetch_all(&mut *connection)
                .await?;
            Ok(rows.iter().map(trail::audit).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn outbox_waiting(&self, limit: u32) -> Result<Vec<OutboxRecord>, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let rows = sqlx::query("SELECT id, at, topic, payload FROM outbox WHERE delivered_at IS NULL ORDER BY seq LIMIT $1")
                .bind(i64::from(limit))
                .fetch_all(&mut *connection)
                .await?;
            Ok(rows.iter().map(trail::outbox).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn outbox_delivered(&self, id: &OutboxId, now: Timestamp) -> Result<(), StoreError> {
        self.once(async || {
            let mut connection = self.connection().await?;
            let done = sqlx::query("UPDATE outbox SET delivered_at = $1 WHERE id = $2 AND delivered_at IS NULL")
                .bind(now.0)
                .bind(id.as_str())
                .execute(&mut *connection)
                .await?;
            Ok(exactly_one(&done, StoreError::Conflict("outbox row"))?)
        })
        .await
    }

    async fn key_check(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let row =
                sqlx::query("SELECT value FROM meta WHERE key = $1").bind(KEY_CHECK).fetch_optional(&mut *connection).await?;
            Ok(row.map(|row| Reader::new(&row, "meta").bytes("value")).transpose()?)
        })
        .await
    }
}

pub(super) async fn insert_audit(connection: &mut PgConnection, a: &AuditRecord) -> Result<(), Fault> {
    sqlx::query("INSERT INTO audit (id, at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(a.id.as_str())
        .bind(a.at.0)
        .bind(&a.actor)
        .bind(&a.action)
        .bind(&a.subject)
        .bind(to_json(&a.detail)?)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn insert_outbox(connection: &mut PgConnection, o: &OutboxRecord) -> Result<(), Fault> {
    sqlx::query("INSERT INTO outbox (id, at, topic, payload) VALUES ($1, $2, $3, $4)")
        .bind(o.id.as_str())
        .bind(o.at.0)
        .bind(&o.topic)
        .bind(to_json(&o.payload)?)
        .execute(connection)
        .await?;
    Ok(())
}
