//! The journal of deductions.

use async_trait::async_trait;

use super::fault::exists;
use super::trail::insert_audit;
use super::{PgStore, commit, exactly_one};
use crate::clock::Timestamp;
use crate::ids::RequestId;
use crate::payment::pairing::{Decision, Entry};
use crate::store::bank::{Bank, BankAnswer, JOURNAL, MESSAGE_ID};
use crate::store::rows::bank as read;
use crate::store::{AuditRecord, StoreError};

#[async_trait]
impl Bank for PgStore {
    async fn append_deduction(&self, decision: &Decision, audit: &[AuditRecord]) -> Result<(), StoreError> {
        let Some(rows) = read::appended(decision)? else { return Ok(()) };
        let (before, after) = rows.lengths;
        self.write(async || {
            let mut tx = self.begin().await?;
            // Waits for another who appends to the same reference, and then finds that it has grown.
            let grown = sqlx::query(
                "INSERT INTO bank_references AS r (reference, length, open, quarantined) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (reference) DO UPDATE
                 SET length = excluded.length, open = excluded.open, quarantined = excluded.quarantined WHERE r.length = $5",
            )
            .bind(&rows.reference)
            .bind(after)
            .bind(rows.open)
            .bind(rows.quarantined)
            .bind(before)
            .execute(&mut *tx)
            .await?;
            exactly_one(&grown, StoreError::Conflict(JOURNAL))?;
            for event in &rows.events {
                sqlx::query(
                    "INSERT INTO bank_events (reference, seq, at, kind, message_id, detail) VALUES ($1, $2, $3, $4, $5, $6)",
                )
                .bind(&rows.reference)
                .bind(event.seq)
                .bind(event.at)
                .bind(event.kind)
                .bind(&event.message_id)
                .bind(&event.detail)
                .execute(&mut *tx)
                .await
                .map_err(|e| exists(e, MESSAGE_ID))?;
            }
            for row in audit {
                insert_audit(&mut tx, row).await?;
            }
            commit(tx).await
        })
        .await
    }

    async fn deduction_journal(&self, reference: &RequestId) -> Result<Vec<Entry>, StoreError> {
        self.read(async || {
            let rows = sqlx::query("SELECT at, kind, detail FROM bank_events WHERE reference = $1 ORDER BY seq")
                .bind(reference.as_str())
                .fetch_all(&mut *self.connection().await?)
                .await?;
            Ok(rows.iter().map(read::entry).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn open_deductions(&self, after: Option<&RequestId>, limit: u32) -> Result<Vec<(RequestId, u64)>, StoreError> {
        self.read(async || {
            let rows = sqlx::query(
                "SELECT reference, length FROM bank_references WHERE open AND reference > $1 ORDER BY reference LIMIT $2",
            )
            .bind(after.map_or("", RequestId::as_str))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(rows.iter().map(read::head).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn quarantined_deductions(&self, after: Option<&RequestId>, limit: u32) -> Result<Vec<RequestId>, StoreError> {
        self.read(async || {
            let rows = sqlx::query(
                "SELECT reference FROM bank_references WHERE quarantined > 0 AND reference > $1 ORDER BY reference LIMIT $2",
            )
            .bind(after.map_or("", RequestId::as_str))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(rows.iter().map(read::reference).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn bank_answers(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: Option<&BankAnswer>,
        limit: u32,
    ) -> Result<Vec<BankAnswer>, StoreError> {
        let (at, reference, seq) = read::place(from, after)?;
        self.read(async || {
            let rows = sqlx::query(
                "SELECT reference, seq, at, kind, detail FROM bank_events
                 WHERE kind = 'answered' AND (at, reference, seq) > ($1, $2, $3) AND at < $4
                 ORDER BY at, reference, seq LIMIT $5",
            )
            .bind(at)
            .bind(reference)
            .bind(seq)
            .bind(until.0)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(rows.iter().map(read::answer).collect::<Result<_, _>>()?)
        })
        .await
    }
}
