//! Audit trail, outbox, and the check value of the vault's root secret.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::batch::Batch;
use super::{SqliteStore, exactly_one, fault};
use crate::clock::Timestamp;
use crate::ids::OutboxId;
use crate::store::rows::{Reader, to_json, trail};
use crate::store::{AuditRecord, KEY_CHECK, OutboxRecord, StoreError, Trail};

#[async_trait]
impl Trail for SqliteStore {
    async fn audit(&self, record: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        insert_audit(&mut tx, record).await?;
        tx.commit().await.map_err(fault)
    }

    async fn announce(&self, news: &OutboxRecord, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        insert_outbox(&mut tx, news).await?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)
    }

    async fn audit_trail(&self, limit: u32) -> Result<Vec<AuditRecord>, StoreError> {
        let rows = sqlx::query("SELECT id, at, actor, action, subject, detail FROM audit ORDER BY seq DESC LIMIT ?")
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(trail::audit).collect()
    }

    async fn outbox_waiting(&self, limit: u32) -> Result<Vec<OutboxRecord>, StoreError> {
        let rows = sqlx::query("SELECT id, at, topic, payload FROM outbox WHERE delivered_at IS NULL ORDER BY seq LIMIT ?")
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(trail::outbox).collect()
    }

    async fn outbox_delivered(&self, id: &OutboxId, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("UPDATE outbox SET delivered_at = ? WHERE id = ? AND delivered_at IS NULL")
            .bind(now.0)
            .bind(id.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        exactly_one(&done, StoreError::Conflict("outbox row"))?;
        tx.commit().await.map_err(fault)
    }

    async fn key_check(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT value FROM meta WHERE key = ?")
            .bind(KEY_CHECK)
            .fetch_optional(&self.pool)
            .await
            .map_err(fault)?;
        row.map(|row| Reader::new(&row, "meta").bytes("value")).transpose()
    }
}

pub(super) async fn insert_audit(conn: &mut SqliteConnection, a: &AuditRecord) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    audit_into(&mut batch, a)?;
    batch.run(conn, StoreError::Conflict("audit trail")).await.map(drop)
}

/// Adds an audit row to what is about to be written.
pub(super) fn audit_into(batch: &mut Batch, a: &AuditRecord) -> Result<(), StoreError> {
    batch
        .add("INSERT INTO audit (id, at, actor, action, subject, detail) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(a.id.as_str())
        .bind(a.at.0)
        .bind(a.actor.as_str())
        .bind(a.action.as_str())
        .bind(a.subject.as_str())
        .bind(to_json(&a.detail)?);
    Ok(())
}

pub(super) async fn insert_outbox(conn: &mut SqliteConnection, o: &OutboxRecord) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    outbox_into(&mut batch, o)?;
    batch.run(conn, StoreError::Conflict("outbox")).await.map(drop)
}

/// Adds an outbox row to what is about to be written.
pub(super) fn outbox_into(batch: &mut Batch, o: &OutboxRecord) -> Result<(), StoreError> {
    batch
        .add("INSERT INTO outbox (id, at, topic, payload) VALUES (?, ?, ?, ?)")
        .bind(o.id.as_str())
        .bind(o.at.0)
        .bind(o.topic.as_str())
        .bind(to_json(&o.payload)?);
    Ok(())
}
