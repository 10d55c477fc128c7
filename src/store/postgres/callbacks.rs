//! Calls that we owe.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::fault::Fault;
use super::trail::{insert_audit, insert_outbox};
use super::{PgStore, commit, exactly_one};
use crate::clock::Timestamp;
use crate::ids::{ApprovalId, CallId, CallbackId, WorkerId};
use crate::store::callbacks::{Callback, Callbacks, LEASE, Tried};
use crate::store::rows::callbacks::callback;
use crate::store::{AuditRecord, OutboxRecord, StoreError};

#[async_trait]
impl Callbacks for PgStore {
    async fn add_callback(&self, callback: &Callback, audit: &AuditRecord) -> Result<bool, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let added = insert(&mut tx, callback).await?;
            if added {
                insert_audit(&mut tx, audit).await?;
            }
            commit(tx).await?;
            Ok(added)
        })
        .await
    }

    async fn callbacks_of(&self, approval: &ApprovalId) -> Result<Vec<Callback>, StoreError> {
        self.read(async || {
            let rows = sqlx::query("SELECT * FROM callbacks WHERE approval_id = $1 ORDER BY created_at, id")
                .bind(approval.as_str())
                .fetch_all(&mut *self.connection().await?)
                .await?;
            Ok(rows.iter().map(callback).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn callbacks(&self, limit: u32) -> Result<Vec<Callback>, StoreError> {
        self.read(async || {
            let rows = sqlx::query("SELECT * FROM callbacks ORDER BY created_at DESC, id DESC LIMIT $1")
                .bind(i64::from(limit))
                .fetch_all(&mut *self.connection().await?)
                .await?;
            Ok(rows.iter().map(callback).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn claim_callbacks(
        &self,
        owner: &WorkerId,
        now: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<Callback>, StoreError> {
        // Not repeated when the connection is lost: what was claimed unheard comes back when its lease runs out.
        self.once(async || {
            let mut connection = self.connection().await?;
            // A leased one is due when its lease runs out, so what is due is nobody's. What another claims meanwhile is skipped.
            let rows = sqlx::query(
                "WITH due AS (SELECT id FROM callbacks WHERE state = 'waiting' AND due_at <= $3 ORDER BY due_at LIMIT $4
                              FOR UPDATE SKIP LOCKED)
                 UPDATE callbacks c SET lease_owner = $1, due_at = $2, tries = tries + 1 FROM due WHERE c.id = due.id
                 RETURNING c.*",
            )
            .bind(owner.as_str())
            .bind(until.0)
            .bind(now.0)
            .bind(i64::from(limit))
            .fetch_all(&mut *connection)
            .await?;
            let mut claimed = rows.iter().map(callback).collect::<Result<Vec<_>, _>>()?;
            claimed.sort_by_key(|c| c.created_at);
            Ok(claimed)
        })
        .await
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
        self.write(async || {
            let mut tx = self.begin().await?;
            let done = sqlx::query(
                "UPDATE callbacks SET state = $1, due_at = $2, lease_owner = NULL, last_outcome = $3,
                                      last_call = coalesce($4, last_call)
                 WHERE id = $5 AND lease_owner = $6",
            )
            .bind(state.as_str())
            .bind(due_at.map(|at| at.0))
            .bind(&tried.outcome)
            .bind(tried.call.as_ref().map(CallId::as_str))
            .bind(id.as_str())
            .bind(owner.as_str())
            .execute(&mut *tx)
            .await?;
            exactly_one(&done, LEASE)?;
            insert_audit(&mut tx, audit).await?;
            if let Some(news) = news {
                insert_outbox(&mut tx, news).await?;
            }
            commit(tx).await
        })
        .await
    }

    async fn put_back_callback(&self, id: &CallbackId, owner: &WorkerId, due_at: Timestamp) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let done = sqlx::query(
                "UPDATE callbacks SET due_at = $1, lease_owner = NULL, tries = greatest(tries - 1, 0)
                 WHERE id = $2 AND lease_owner = $3",
            )
            .bind(due_at.0)
            .bind(id.as_str())
            .bind(owner.as_str())
            .execute(&mut *tx)
            .await?;
            exactly_one(&done, LEASE)?;
            commit(tx).await
        })
        .await
    }

    async fn callbacks_over(&self, now: Timestamp, limit: u32) -> Result<Vec<Callback>, StoreError> {
        self.read(async || {
            let rows = sqlx::query(
                "SELECT c.* FROM callbacks c WHERE c.state = 'waiting' AND c.due_at <= $1 AND (c.expires_at <= $1 OR (c.purpose = 'decide'
                 AND NOT EXISTS (SELECT 1 FROM papers p WHERE p.kind = 'approval' AND p.id = c.approval_id AND p.open)))
             ORDER BY c.due_at LIMIT $2",
            )
            .bind(now.0)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(rows.iter().map(callback).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn end_callback(
        &self,
        id: &CallbackId,
        now: Timestamp,
        ended: &Tried,
        audit: &AuditRecord,
        news: Option<&OutboxRecord>,
    ) -> Result<bool, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let done = sqlx::query(
                "UPDATE callbacks SET state = $1, due_at = NULL, lease_owner = NULL, last_outcome = $2
             WHERE id = $3 AND state = 'waiting' AND due_at <= $4",
            )
            .bind(ended.next.row().0.as_str())
            .bind(&ended.outcome)
            .bind(id.as_str())
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
            let ours = done.rows_affected() == 1;
            if ours {
                insert_audit(&mut tx, audit).await?;
                if let Some(news) = news {
                    insert_outbox(&mut tx, news).await?;
                }
            }
            commit(tx).await?;
            Ok(ours)
        })
        .await
    }
}

/// `false`: there is one, or was.
pub(super) async fn insert(connection: &mut PgConnection, new: &Callback) -> Result<bool, Fault> {
    let added = sqlx::query(
        "INSERT INTO callbacks (id, approval_id, customer_id, purpose, state, tries, due_at, expires_at, created_at)
         VALUES ($1, $2, $3, $4, 'waiting', 0, $5, $6, $7)
         ON CONFLICT (approval_id, customer_id, purpose) DO NOTHING",
    )
    .bind(new.id.as_str())
    .bind(new.approval.as_str())
    .bind(new.customer.as_str())
    .bind(new.purpose.as_str())
    .bind(new.due_at.0)
    .bind(new.expires_at.0)
    .bind(new.created_at.0)
    .execute(connection)
    .await?;
    Ok(added.rows_affected() == 1)
}
