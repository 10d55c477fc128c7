//! The journal of deductions.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::trail::insert_audit;
use super::{SqliteStore, exactly_one, exists, fault};
use crate::clock::Timestamp;
use crate::ids::RequestId;
use crate::payment::pairing::{Decision, Entry};
use crate::store::bank::{Bank, BankAnswer, JOURNAL, MESSAGE_ID};
use crate::store::rows::bank as read;
use crate::store::{AuditRecord, StoreError};

#[async_trait]
impl Bank for SqliteStore {
    async fn append_deduction(&self, decision: &Decision, audit: &[AuditRecord]) -> Result<(), StoreError> {
        let Some(rows) = read::appended(decision)? else { return Ok(()) };
        let audit = audit.to_vec();
        self.queue(move |conn| Box::pin(async move { append(conn, &rows, &audit).await })).await
    }

    async fn deduction_journal(&self, reference: &RequestId) -> Result<Vec<Entry>, StoreError> {
        let rows = sqlx::query("SELECT at, kind, detail FROM bank_events WHERE reference = ? ORDER BY seq")
            .bind(reference.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(read::entry).collect()
    }

    async fn open_deductions(&self, after: Option<&RequestId>, limit: u32) -> Result<Vec<(RequestId, u64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT reference, length FROM bank_references WHERE open = 1 AND reference > ? ORDER BY reference LIMIT ?",
        )
        .bind(after.map_or("", RequestId::as_str))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(read::head).collect()
    }

    async fn quarantined_deductions(&self, after: Option<&RequestId>, limit: u32) -> Result<Vec<RequestId>, StoreError> {
        let rows = sqlx::query(
            "SELECT reference FROM bank_references WHERE quarantined > 0 AND reference > ? ORDER BY reference LIMIT ?",
        )
        .bind(after.map_or("", RequestId::as_str))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(read::reference).collect()
    }

    async fn bank_answers(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: Option<&BankAnswer>,
        limit: u32,
    ) -> Result<Vec<BankAnswer>, StoreError> {
        let (at, reference, seq) = read::place(from, after)?;
        let rows = sqlx::query(
            "SELECT reference, seq, at, kind, detail FROM bank_events
             WHERE kind = 'answered' AND (at, reference, seq) > (?, ?, ?) AND at < ? ORDER BY at, reference, seq LIMIT ?",
        )
        .bind(at)
        .bind(reference)
        .bind(seq)
        .bind(until.0)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(read::answer).collect()
    }
}

async fn append(conn: &mut SqliteConnection, rows: &read::Appended, audit: &[AuditRecord]) -> Result<(), StoreError> {
    let (before, after) = rows.lengths;
    let grown = sqlx::query(
        "INSERT INTO bank_references (reference, length, open, quarantined) VALUES (?, ?, ?, ?)
         ON CONFLICT (reference) DO UPDATE SET length = excluded.length, open = excluded.open, quarantined = excluded.quarantined
         WHERE length = ?",
    )
    .bind(&rows.reference)
    .bind(after)
    .bind(rows.open)
    .bind(rows.quarantined)
    .bind(before)
    .execute(&mut *conn)
    .await
    .map_err(fault)?;
    exactly_one(&grown, StoreError::Conflict(JOURNAL))?;
    for event in &rows.events {
        sqlx::query("INSERT INTO bank_events (reference, seq, at, kind, message_id, detail) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(&rows.reference)
            .bind(event.seq)
            .bind(event.at)
            .bind(event.kind)
            .bind(&event.message_id)
            .bind(&event.detail)
            .execute(&mut *conn)
            .await
            .map_err(|e| exists(e, MESSAGE_ID))?;
    }
    for row in audit {
        insert_audit(conn, row).await?;
    }
    Ok(())
}
