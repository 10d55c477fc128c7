//! What clocks erase, and what an export reads of one person.

use async_trait::async_trait;

use super::trail::insert_audit;
use super::{SqliteStore, fault};
use crate::clock::Timestamp;
use crate::ids::{CallId, CustomerId, IntentId, RequestId};
use crate::store::clients::AUDIT_SCAN_LIMIT_ROWS;
use crate::store::retention::{COUNT_LIMIT_ROWS, Held, Overdue, Retention, SUBJECTS_LIMIT};
use crate::store::rows::{Reader, as_int, calls, clients, papers, retention as rows, trail};
use crate::store::{AuditFrom, AuditRecord, CallRecord, Paper, StoreError};

#[async_trait]
impl Retention for SqliteStore {
    async fn claim_retention(&self, now: Timestamp, before: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let (now, before) = (now.0.to_be_bytes(), before.0.to_be_bytes());
        let claim = sqlx::query(rows::CLAIM).bind(rows::LAST_RUN).bind(now.as_slice()).bind(before.as_slice());
        let ours = claim.execute(&mut *tx).await.map_err(fault)?.rows_affected() == 1;
        tx.commit().await.map_err(fault)?;
        Ok(ours)
    }

    async fn overdue(&self, what: Overdue, before: Timestamp) -> Result<u64, StoreError> {
        let row = sqlx::query(rows::count(what)).bind(before.0).bind(COUNT_LIMIT_ROWS);
        Reader::new(&row.fetch_one(&self.pool).await.map_err(fault)?, "calls").small("n")
    }

    async fn erase_overdue(&self, what: Overdue, before: Timestamp, limit: u32, audit: &AuditRecord) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let mut erased = 0;
        for sql in rows::erase_on_sqlite(what) {
            let done = sqlx::query(*sql).bind(before.0).bind(i64::from(limit)).execute(&mut *tx).await.map_err(fault)?;
            erased = done.rows_affected();
        }
        if erased > 0 {
            insert_audit(&mut tx, &audit.with_erased(&[(what.as_str(), erased)])).await?;
        }
        tx.commit().await.map_err(fault)?;
        if erased > 0 {
            self.fold_log().await;
        }
        Ok(erased)
    }

    async fn unused_voices(&self, before: Timestamp, limit: u32) -> Result<Vec<CustomerId>, StoreError> {
        let found = sqlx::query(rows::UNUSED_VOICES).bind(before.0).bind(i64::from(limit)).fetch_all(&self.pool).await;
        found.map_err(fault)?.iter().map(|row| Reader::new(row, "templates").parsed("customer_id")).collect()
    }
}

#[async_trait]
impl Held for SqliteStore {
    async fn calls_of(&self, customer: &CustomerId, after: Option<&CallId>, limit: u32) -> Result<Vec<CallRecord>, StoreError> {
        let query = sqlx::query(rows::CALLS_OF).bind(customer.as_str()).bind(after.map_or("", CallId::as_str));
        query.bind(i64::from(limit)).fetch_all(&self.pool).await.map_err(fault)?.iter().map(calls::call).collect()
    }

    async fn intents_of(&self, customer: &CustomerId, after: Option<&IntentId>, limit: u32) -> Result<Vec<IntentId>, StoreError> {
        let query = sqlx::query(rows::INTENTS_OF).bind(customer.as_str()).bind(after.map_or("", IntentId::as_str));
        let found = query.bind(i64::from(limit)).fetch_all(&self.pool).await.map_err(fault)?;
        found.iter().map(|row| Reader::new(row, "intents").parsed("id")).collect()
    }

    async fn requests_of(
        &self,
        customer: &CustomerId,
        after: Option<&RequestId>,
        limit: u32,
    ) -> Result<Vec<RequestId>, StoreError> {
        let query = sqlx::query(rows::REQUESTS_OF).bind(customer.as_str()).bind(after.map_or("", RequestId::as_str));
        let found = query.bind(i64::from(limit)).fetch_all(&self.pool).await.map_err(fault)?;
        found.iter().map(|row| Reader::new(row, "requests").parsed("id")).collect()
    }

    async fn papers_with(&self, customer: &CustomerId, after: (&str, &str), limit: u32) -> Result<Vec<Paper>, StoreError> {
        let query = sqlx::query(rows::PAPERS_WITH).bind(customer.as_str()).bind(after.0).bind(after.1);
        query.bind(i64::from(limit)).fetch_all(&self.pool).await.map_err(fault)?.iter().map(papers::paper).collect()
    }

    async fn subjects_of(&self, customer: &CustomerId) -> Result<Vec<String>, StoreError> {
        let found = sqlx::query(rows::SUBJECTS_OF).bind(customer.as_str()).bind(SUBJECTS_LIMIT).fetch_all(&self.pool).await;
        found.map_err(fault)?.iter().map(|row| Reader::new(row, "cards").text("id")).collect()
    }

    async fn audit_scan(&self, from: AuditFrom) -> Result<(Vec<(u64, AuditRecord)>, bool), StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        let after = match from {
            AuditFrom::After(seq) => as_int(seq)?,
            AuditFrom::Time(at) => {
                let ends = sqlx::query(clients::AUDIT_ENDS).fetch_one(&mut *conn).await.map_err(fault)?;
                let Some(mut span) = clients::AuditSpan::of(&ends)? else { return Ok((Vec::new(), false)) };
                while let Some(middle) = span.middle() {
                    let row = sqlx::query(clients::AUDIT_AT).bind(middle).fetch_one(&mut *conn).await.map_err(fault)?;
                    span.halve(middle, Reader::new(&row, "audit").at("at")?, at);
                }
                span.after()
            }
        };
        let read = i64::from(AUDIT_SCAN_LIMIT_ROWS);
        let found = sqlx::query(clients::AUDIT_FROM).bind(after).bind(read).fetch_all(&mut *conn).await.map_err(fault)?;
        let more = found.len() >= usize::from(AUDIT_SCAN_LIMIT_ROWS);
        let rows = found.iter().map(|row| Ok((Reader::new(row, "audit").small("seq")?, trail::audit(row)?)));
        Ok((rows.collect::<Result<_, StoreError>>()?, more))
    }
}
