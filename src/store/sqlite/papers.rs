//! Papers: guardianships, supervisions, approvals, codes, mandates.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::trail::{insert_audit, insert_outbox};
use super::{SqliteStore, callbacks, consents, exactly_one, exists, fault};
use crate::clock::Timestamp;
use crate::ids::{CodeId, CustomerId, RequestId};
use crate::payment::AddressMark;
use crate::store::consents::beside_paper;
use crate::store::papers::{CodeDelivery, OPEN_PAPER, PAGE, PAPER, Papers};
use crate::store::rows::Reader;
use crate::store::rows::papers as read;
use crate::store::{AsRead, AuditRecord, OutboxRecord, Paper, PaperKind, Spent, SpentSince, StoreError};

const SPENT: &str = "SELECT
    coalesce((SELECT sum(amount_minor) FROM intents WHERE customer_id = ?1 AND created_at >= ?2 AND currency = ?3
              AND status <> 'failed'), 0) AS in_all,
    coalesce((SELECT sum(amount_minor) FROM intents WHERE customer_id = ?1 AND created_at >= ?2 AND currency = ?3
              AND status <> 'failed' AND payee_id = ?4), 0) AS to_payee,
    (SELECT count(*) FROM (SELECT 1 FROM intents WHERE customer_id = ?1 AND status = 'paid' LIMIT 1000)) AS paid,
    (SELECT count(*) FROM (SELECT 1 FROM intents WHERE customer_id = ?1 AND status = 'paid' AND payee_id = ?4 LIMIT 1000)) AS paid_payee";

#[async_trait]
impl Papers for SqliteStore {
    async fn write_papers(
        &self,
        papers: &[Paper],
        deliveries: &[CodeDelivery],
        audit: &[AuditRecord],
        news: &[OutboxRecord],
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        for paper in papers {
            put(&mut tx, paper).await?;
            consents::with_paper(&mut tx, paper, beside_paper(paper, audit.iter())).await?;
        }
        for d in deliveries {
            sqlx::query(
                "INSERT INTO code_deliveries (code_id, customer_id, sealed, expires_at, next_try_at) VALUES (?, ?, ?, ?, 0)",
            )
            .bind(d.code.as_str())
            .bind(d.customer.as_str())
            .bind(&d.sealed)
            .bind(d.expires_at.0)
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        }
        for row in audit {
            insert_audit(&mut tx, row).await?;
        }
        for row in news {
            insert_outbox(&mut tx, row).await?;
        }
        tx.commit().await.map_err(fault)
    }

    async fn paper(&self, kind: PaperKind, id: &str) -> Result<Option<Paper>, StoreError> {
        let row = sqlx::query("SELECT * FROM papers WHERE kind = ? AND id = ?")
            .bind(kind.as_str())
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .map_err(fault)?;
        row.as_ref().map(read::paper).transpose()
    }

    async fn papers_of(&self, kind: PaperKind, owner: &CustomerId) -> Result<Vec<Paper>, StoreError> {
        let rows = sqlx::query("SELECT * FROM papers WHERE owner = ? AND kind = ? AND open = 1 ORDER BY created_at, id LIMIT ?")
            .bind(owner.as_str())
            .bind(kind.as_str())
            .bind(PAGE)
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(read::paper).collect()
    }

    async fn papers_about(&self, kind: PaperKind, about: &str) -> Result<Vec<Paper>, StoreError> {
        let rows = sqlx::query("SELECT * FROM papers WHERE about = ? AND kind = ? AND open = 1 ORDER BY created_at, id LIMIT ?")
            .bind(about)
            .bind(kind.as_str())
            .bind(PAGE)
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(read::paper).collect()
    }

    async fn papers_after(&self, kind: PaperKind, after: &str, limit: u32) -> Result<Vec<Paper>, StoreError> {
        let rows = sqlx::query("SELECT * FROM papers WHERE kind = ? AND id > ? ORDER BY id LIMIT ?")
            .bind(kind.as_str())
            .bind(after)
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(read::paper).collect()
    }

    async fn papers_due(&self, kind: PaperKind, now: Timestamp, limit: u32) -> Result<Vec<Paper>, StoreError> {
        let rows = sqlx::query("SELECT * FROM papers WHERE kind = ? AND due_at <= ? ORDER BY due_at LIMIT ?")
            .bind(kind.as_str())
            .bind(now.0)
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(read::paper).collect()
    }

    async fn spent(&self, of: &SpentSince) -> Result<Spent, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        spent(&mut conn, of).await
    }

    async fn delivered_before(&self, customer: &CustomerId, to: &AddressMark) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM requests WHERE customer_id = ? AND status = 'paid' AND delivery = ? LIMIT 1")
            .bind(customer.as_str())
            .bind(to.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(fault)?;
        Ok(row.is_some())
    }

    async fn codes_sent(&self, request: &RequestId, since: Timestamp) -> Result<u32, StoreError> {
        let row = sqlx::query("SELECT count(*) AS n FROM papers WHERE kind = 'code' AND about = ? AND created_at >= ?")
            .bind(request.as_str())
            .bind(since.0)
            .fetch_one(&self.pool)
            .await
            .map_err(fault)?;
        Reader::new(&row, "papers").small("n")
    }

    async fn claim_code_deliveries(
        &self,
        now: Timestamp,
        retry_at: Timestamp,
        limit: u32,
    ) -> Result<Vec<CodeDelivery>, StoreError> {
        let rows = sqlx::query(
            "UPDATE code_deliveries SET next_try_at = ?, tries = tries + 1 WHERE code_id IN
                 (SELECT code_id FROM code_deliveries WHERE next_try_at <= ? AND expires_at > ? ORDER BY next_try_at LIMIT ?)
             RETURNING *",
        )
        .bind(retry_at.0)
        .bind(now.0)
        .bind(now.0)
        .bind(limit);
        let mut tx = self.write().await?;
        let rows = rows.fetch_all(&mut *tx).await.map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        rows.iter().map(read::delivery).collect()
    }

    async fn code_delivered(&self, code: &CodeId) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("UPDATE code_deliveries SET sealed = X'', next_try_at = NULL WHERE code_id = ?")
            .bind(code.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        tx.commit().await.map_err(fault)
    }

    async fn wipe_codes(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let wiped = sqlx::query(
            "UPDATE code_deliveries SET sealed = X'', next_try_at = NULL WHERE next_try_at IS NOT NULL AND expires_at <= ?",
        )
        .bind(now.0)
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(wiped.rows_affected())
    }
}

/// Whether a paper is still as it was read.
pub(super) async fn stands(conn: &mut SqliteConnection, standing: &AsRead) -> Result<bool, StoreError> {
    let version = i64::try_from(standing.version).map_err(|e| StoreError::Failed(e.to_string()))?;
    let row = sqlx::query("SELECT 1 FROM papers WHERE kind = ? AND id = ? AND version = ?")
        .bind(standing.kind.as_str())
        .bind(&standing.id)
        .bind(version)
        .fetch_optional(conn)
        .await
        .map_err(fault)?;
    Ok(row.is_some())
}

/// Writes a paper over the version before its own.
pub(super) async fn put(conn: &mut SqliteConnection, paper: &Paper) -> Result<(), StoreError> {
    let version = i64::try_from(paper.version).map_err(|e| StoreError::Failed(e.to_string()))?;
    if version == 0 {
        sqlx::query(
            "INSERT INTO papers (kind, id, owner, about, open, due_at, version, body, created_at) VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)",
        )
        .bind(paper.kind.as_str())
        .bind(&paper.id)
        .bind(paper.owner.as_str())
        .bind(&paper.about)
        .bind(paper.open)
        .bind(paper.due_at.map(|t| t.0))
        .bind(&paper.body)
        .bind(paper.created_at.0)
        .execute(&mut *conn)
        .await
        .map_err(|e| exists(e, OPEN_PAPER))?;
        return owe(conn, paper).await;
    }
    let done = sqlx::query(
        "UPDATE papers SET about = ?, open = ?, due_at = ?, version = ?, body = ? WHERE kind = ? AND id = ? AND version = ? - 1",
    )
    .bind(&paper.about)
    .bind(paper.open)
    .bind(paper.due_at.map(|t| t.0))
    .bind(version)
    .bind(&paper.body)
    .bind(paper.kind.as_str())
    .bind(&paper.id)
    .bind(version)
    .execute(&mut *conn)
    .await
    .map_err(|e| exists(e, OPEN_PAPER))?;
    exactly_one(&done, StoreError::Conflict(PAPER))?;
    owe(conn, paper).await
}

async fn owe(conn: &mut SqliteConnection, paper: &Paper) -> Result<(), StoreError> {
    for call in &paper.owed {
        callbacks::insert(conn, call).await?;
    }
    Ok(())
}

pub(super) async fn spent(conn: &mut SqliteConnection, of: &SpentSince) -> Result<Spent, StoreError> {
    let row = sqlx::query(SPENT)
        .bind(of.customer.as_str())
        .bind(of.since.0)
        .bind(of.currency.code())
        .bind(of.payee.as_str())
        .fetch_one(conn)
        .await
        .map_err(fault)?;
    read::spent(&row)
}
