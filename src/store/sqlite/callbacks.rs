//! Calls that we owe.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::trail::{insert_audit, insert_outbox};
use super::{SqliteStore, exactly_one, fault};
use crate::clock::Timestamp;
use crate::ids::{ApprovalId, CallId, CallbackId, WorkerId};
use crate::store::callbacks::{Callback, Callbacks, LEASE, Tried};
use crate::store::rows::callbacks::callback;
use crate::store::{AuditRecord, OutboxRecord, StoreError};

#[async_trait]
impl Callbacks for SqliteStore {
    async fn add_callback(&self, callback: &Callback, audit: &AuditRecord) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let added = insert(&mut tx, callback).await?;
        if added {
            insert_audit(&mut tx, audit).await?;
        }
        tx.commit().await.map_err(fault)?;
        Ok(added)
    }

    async fn callbacks_of(&self, approval: &ApprovalId) -> Result<Vec<Callback>, StoreError> {
        let rows = sqlx::query("SELECT * FROM callbacks WHERE approval_id = ? ORDER BY created_at, id")
            .bind(approval.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(callback).collect()
    }

    async fn callbacks(&self, limit: u32) -> Result<Vec<Callback>, StoreError> {
        let rows = sqlx::query("SELECT * FROM callbacks ORDER BY created_at DESC, id DESC LIMIT ?")
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(callback).collect()
    }

    async fn claim_callbacks(
        &self,
        owner: &WorkerId,
        now: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<Callback>, StoreError> {
        let mut tx = self.write().await?;
        // A leased one is due when its lease runs out, so what is due is nobody's.
        let rows = sqlx::query(
            "UPDATE callbacks SET lease_owner = ?1, due_at = ?2, tries = tries + 1 WHERE id IN (
                 SELECT id FROM callbacks WHERE state = 'waiting' AND due_at <= ?3 ORDER BY due_at LIMIT ?4)
             RETURNING *",
        )
        .bind(owner.as_str())
        .bind(until.0)
        .bind(now.0)
        .bind(limit)
        .fetch_all(&mut *tx)
        .await
        .map_err(fault)?;
        let mut claimed = rows.iter().map(callback).collect::<Result<Vec<_>, _>>()?;
        tx.commit().await.map_err(fault)?;
        claimed.sort_by_key(|c| c.created_at);
        Ok(claimed)
    }

    async fn callback_tried(
        &self,
        id: &CallbackId,
        owner: &WorkerId,
        tried: &Tried,
        audit: &AuditRecord,
        news: Option<&OutboxRecord>,
    ) -> Result<(), StoreError> {
        let (state, due_at) = tried.next.row();
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE callbacks SET state = ?, due_at = ?, lease_owner = NULL, last_outcome = ?, last_call = coalesce(?, last_call)
             WHERE id = ? AND lease_owner = ?",
        )
        .bind(state.as_str())
        .bind(due_at.map(|at| at.0))
        .bind(&tried.outcome)
        .bind(tried.call.as_ref().map(CallId::as_str))
        .bind(id.as_str())
        .bind(owner.as_str())
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        exactly_one(&done, LEASE)?;
        insert_audit(&mut tx, audit).await?;
        if let Some(news) = news {
            insert_outbox(&mut tx, news).await?;
        }
        tx.commit().await.map_err(fault)
    }

    async fn put_back_callback(&self, id: &CallbackId, owner: &WorkerId, due_at: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE callbacks SET due_at = ?, lease_owner = NULL, tries = max(tries - 1, 0) WHERE id = ? AND lease_owner = ?",
        )
        .bind(due_at.0)
        .bind(id.as_str())
        .bind(owner.as_str())
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        exactly_one(&done, LEASE)?;
        tx.commit().await.map_err(fault)
    }

    async fn callbacks_over(&self, now: Timestamp, limit: u32) -> Result<Vec<Callback>, StoreError> {
        let rows = sqlx::query(
            "SELECT c.* FROM callbacks c WHERE c.state = 'waiting' AND c.due_at <= $1 AND (c.expires_at <= $1 OR (c.purpose = 'decide'
                 AND NOT EXISTS (SELECT 1 FROM papers p WHERE p.kind = 'approval' AND p.id = c.approval_id AND p.open = 1)))
             ORDER BY c.due_at LIMIT $2",
        )
        .bind(now.0)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(callback).collect()
    }

    async fn end_callback(
        &self,
        id: &CallbackId,
        now: Timestamp,
        ended: &Tried,
        audit: &AuditRecord,
        news: Option<&OutboxRecord>,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE callbacks SET state = $1, due_at = NULL, lease_owner = NULL, last_outcome = $2
             WHERE id = $3 AND state = 'waiting' AND due_at <= $4",
        )
        .bind(ended.next.row().0.as_str())
        .bind(&ended.outcome)
        .bind(id.as_str())
        .bind(now.0)
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        let ours = done.rows_affected() == 1;
        if ours {
            insert_audit(&mut tx, audit).await?;
            if let Some(news) = news {
                insert_outbox(&mut tx, news).await?;
            }
        }
        tx.commit().await.map_err(fault)?;
        Ok(ours)
    }
}

/// `false`: there is one, or was.
pub(super) async fn insert(conn: &mut SqliteConnection, new: &Callback) -> Result<bool, StoreError> {
    let added = sqlx::query(
        "INSERT INTO callbacks (id, approval_id, customer_id, purpose, state, tries, due_at, expires_at, created_at)
         VALUES (?, ?, ?, ?, 'waiting', 0, ?, ?, ?)
         ON CONFLICT (approval_id, customer_id, purpose) DO NOTHING",
    )
    .bind(new.id.as_str())
    .bind(new.approval.as_str())
    .bind(new.customer.as_str())
    .bind(new.purpose.as_str())
    .bind(new.due_at.0)
    .bind(new.expires_at.0)
    .bind(new.created_at.0)
    .execute(&mut *conn)
    .await
    .map_err(fault)?;
    Ok(added.rows_affected() == 1)
}
