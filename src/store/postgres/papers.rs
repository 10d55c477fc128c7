//! Papers: guardianships, supervisions, approvals, codes, mandates.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::fault::{Fault, exists};
use super::trail::{insert_audit, insert_outbox};
use super::{PgStore, callbacks, commit, consents, exactly_one};
use crate::clock::Timestamp;
use crate::ids::{CodeId, CustomerId, RequestId};
use crate::payment::AddressMark;
use crate::store::consents::beside_paper;
use crate::store::papers::{CodeDelivery, OPEN_PAPER, PAGE, PAPER, Papers};
use crate::store::rows::Reader;
use crate::store::rows::papers as read;
use crate::store::{AsRead, AuditRecord, OutboxRecord, Paper, PaperKind, Spent, SpentSince, StoreError};

const SPENT: &str = "SELECT
    coalesce((SELECT sum(amount_minor) FROM intents WHERE customer_id = $1 AND created_at >= $2 AND currency = $3
              AND status <> 'failed'), 0)::bigint AS in_all,
    coalesce((SELECT sum(amount_minor) FROM intents WHERE customer_id = $1 AND created_at >= $2 AND currency = $3
              AND status <> 'failed' AND payee_id = $4), 0)::bigint AS to_payee,
    (SELECT count(*) FROM (SELECT 1 FROM intents WHERE customer_id = $1 AND status = 'paid' LIMIT 1000) p) AS paid,
    (SELECT count(*) FROM (SELECT 1 FROM intents WHERE customer_id = $1 AND status = 'paid' AND payee_id = $4 LIMIT 1000) p) AS paid_payee";

#[async_trait]
impl Papers for PgStore {
    async fn write_papers(
        &self,
        papers: &[Paper],
        deliveries: &[CodeDelivery],
        audit: &[AuditRecord],
        news: &[OutboxRecord],
    ) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            for paper in papers {
                put(&mut tx, paper).await?;
                consents::with_paper(&mut tx, paper, beside_paper(paper, audit.iter())).await?;
            }
            for d in deliveries {
                sqlx::query(
                    "INSERT INTO code_deliveries (code_id, customer_id, sealed, expires_at, next_try_at) VALUES ($1, $2, $3, $4, 0)",
                )
                .bind(d.code.as_str())
                .bind(d.customer.as_str())
                .bind(&d.sealed)
                .bind(d.expires_at.0)
                .execute(&mut *tx)
                .await?;
            }
            for row in audit {
                insert_audit(&mut tx, row).await?;
            }
            for row in news {
                insert_outbox(&mut tx, row).await?;
            }
            commit(tx).await
        })
        .await
    }

    async fn paper(&self, kind: PaperKind, id: &str) -> Result<Option<Paper>, StoreError> {
        self.read(async || {
            let row = sqlx::query(
                "SELECT kind, id, owner, about, open::int::bigint AS open, due_at, version, body, created_at FROM papers WHERE kind = $1 AND id = $2",
            )
            .bind(kind.as_str())
            .bind(id)
            .fetch_optional(&mut *self.connection().await?)
            .await?;
            Ok(row.as_ref().map(read::paper).transpose()?)
        })
        .await
    }

    async fn papers_of(&self, kind: PaperKind, owner: &CustomerId) -> Result<Vec<Paper>, StoreError> {
        self.read(async || {
            let rows = sqlx::query(
                "SELECT kind, id, owner, about, open::int::bigint AS open, due_at, version, body, created_at FROM papers
                 WHERE owner = $1 AND kind = $2 AND open ORDER BY created_at, id LIMIT $3",
            )
            .bind(owner.as_str())
            .bind(kind.as_str())
            .bind(PAGE)
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(rows.iter().map(read::paper).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn papers_about(&self, kind: PaperKind, about: &str) -> Result<Vec<Paper>, StoreError> {
        self.read(async || {
            let rows = sqlx::query(
                "SELECT kind, id, owner, about, open::int::bigint AS open, due_at, version, body, created_at FROM papers
                 WHERE about = $1 AND kind = $2 AND open ORDER BY created_at, id LIMIT $3",
            )
            .bind(about)
            .bind(kind.as_str())
            .bind(PAGE)
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(rows.iter().map(read::paper).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn papers_after(&self, kind: PaperKind, after: &str, limit: u32) -> Result<Vec<Paper>, StoreError> {
        self.read(async || {
            let rows = sqlx::query(
                "SELECT kind, id, owner, about, open::int::bigint AS open, due_at, version, body, created_at FROM papers
                 WHERE kind = $1 AND id > $2 ORDER BY id LIMIT $3",
            )
            .bind(kind.as_str())
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(rows.iter().map(read::paper).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn papers_due(&self, kind: PaperKind, now: Timestamp, limit: u32) -> Result<Vec<Paper>, StoreError> {
        self.read(async || {
            let rows = sqlx::query(
                "SELECT kind, id, owner, about, open::int::bigint AS open, due_at, version, body, created_at FROM papers
                 WHERE kind = $1 AND due_at <= $2 ORDER BY due_at LIMIT $3",
            )
            .bind(kind.as_str())
            .bind(now.0)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(rows.iter().map(read::paper).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn spent(&self, of: &SpentSince) -> Result<Spent, StoreError> {
        self.read(async || spent(&mut *self.connection().await?, of).await).await
    }

    async fn delivered_before(&self, customer: &CustomerId, to: &AddressMark) -> Result<bool, StoreError> {
        self.read(async || {
            let row = sqlx::query("SELECT 1 FROM requests WHERE customer_id = $1 AND status = 'paid' AND delivery = $2 LIMIT 1")
                .bind(customer.as_str())
                .bind(to.as_str())
                .fetch_optional(&mut *self.connection().await?)
                .await?;
            Ok(row.is_some())
        })
        .await
    }

    async fn codes_sent(&self, request: &RequestId, since: Timestamp) -> Result<u32, StoreError> {
        self.read(async || {
            let row = sqlx::query("SELECT count(*) AS n FROM papers WHERE kind = 'code' AND about = $1 AND created_at >= $2")
                .bind(request.as_str())
                .bind(since.0)
                .fetch_one(&mut *self.connection().await?)
                .await?;
            Ok(Reader::new(&row, "papers").small("n")?)
        })
        .await
    }

    async fn claim_code_deliveries(
        &self,
        now: Timestamp,
        retry_at: Timestamp,
        limit: u32,
    ) -> Result<Vec<CodeDelivery>, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let rows = sqlx::query(
                "UPDATE code_deliveries SET next_try_at = $1, tries = tries + 1 WHERE code_id = ANY (ARRAY
                     (SELECT code_id FROM code_deliveries WHERE next_try_at <= $2 AND expires_at > $2 ORDER BY next_try_at LIMIT $3
                      FOR UPDATE SKIP LOCKED))
                 RETURNING *",
            )
            .bind(retry_at.0)
            .bind(now.0)
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
            commit(tx).await?;
            Ok(rows.iter().map(read::delivery).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn code_delivered(&self, code: &CodeId) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            sqlx::query("UPDATE code_deliveries SET sealed = ''::bytea, next_try_at = NULL WHERE code_id = $1")
                .bind(code.as_str())
                .execute(&mut *tx)
                .await?;
            commit(tx).await
        })
        .await
    }

    async fn wipe_codes(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let wiped = sqlx::query(
                "UPDATE code_deliveries SET sealed = ''::bytea, next_try_at = NULL WHERE next_try_at IS NOT NULL AND expires_at <= $1",
            )
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
            commit(tx).await?;
            Ok(wiped.rows_affected())
        })
        .await
    }
}

/// Whether a paper is still as it was read; if so, it stays so until the end of the transaction.
pub(super) async fn stands(connection: &mut PgConnection, standing: &AsRead) -> Result<bool, Fault> {
    let version = i64::try_from(standing.version).map_err(|e| StoreError::Failed(e.to_string()))?;
    let row = sqlx::query("SELECT 1 FROM papers WHERE kind = $1 AND id = $2 AND version = $3 FOR SHARE")
        .bind(standing.kind.as_str())
        .bind(&standing.id)
        .bind(version)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Writes a paper over the version before its own.
pub(super) async fn put(connection: &mut PgConnection, paper: &Paper) -> Result<(), Fault> {
    let version = i64::try_from(paper.version).map_err(|e| StoreError::Failed(e.to_string()))?;
    if version == 0 {
        sqlx::query(
            "INSERT INTO papers (kind, id, owner, about, open, due_at, version, body, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8)",
        )
        .bind(paper.kind.as_str())
        .bind(&paper.id)
        .bind(paper.owner.as_str())
        .bind(&paper.about)
        .bind(paper.open)
        .bind(paper.due_at.map(|t| t.0))
        .bind(&paper.body)
        .bind(paper.created_at.0)
        .execute(&mut *connection)
        .await
        .map_err(|e| exists(e, OPEN_PAPER))?;
        return owe(connection, paper).await;
    }
    let done = sqlx::query(
        "UPDATE papers SET about = $1, open = $2, due_at = $3, version = $4, body = $5
         WHERE kind = $6 AND id = $7 AND version = $4 - 1",
    )
    .bind(&paper.about)
    .bind(paper.open)
    .bind(paper.due_at.map(|t| t.0))
    .bind(version)
    .bind(&paper.body)
    .bind(paper.kind.as_str())
    .bind(&paper.id)
    .execute(&mut *connection)
    .await
    .map_err(|e| exists(e, OPEN_PAPER))?;
    exactly_one(&done, StoreError::Conflict(PAPER))?;
    owe(connection, paper).await
}

async fn owe(connection: &mut PgConnection, paper: &Paper) -> Result<(), Fault> {
    for call in &paper.owed {
        callbacks::insert(connection, call).await?;
    }
    Ok(())
}

pub(super) async fn spent(connection: &mut PgConnection, of: &SpentSince) -> Result<Spent, Fault> {
    let row = sqlx::query(SPENT)
        .bind(of.customer.as_str())
        .bind(of.since.0)
        .bind(of.currency.code())
        .bind(of.payee.as_str())
        .fetch_one(connection)
        .await?;
    Ok(read::spent(&row)?)
}
