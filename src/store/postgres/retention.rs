//! What clocks erase, and what an export reads of one person.

use async_trait::async_trait;

use super::trail::insert_audit;
use super::{PgStore, commit};
use crate::clock::Timestamp;
use crate::ids::{CallId, CustomerId, IntentId, RequestId};
use crate::store::clients::AUDIT_SCAN_LIMIT_ROWS;
use crate::store::retention::{COUNT_LIMIT_ROWS, Held, Overdue, Retention, SUBJECTS_LIMIT};
use crate::store::rows::{Reader, as_int, calls, clients, papers, retention as rows, trail};
use crate::store::{AuditFrom, AuditRecord, CallRecord, Paper, StoreError};

#[async_trait]
impl Retention for PgStore {
    async fn claim_retention(&self, now: Timestamp, before: Timestamp) -> Result<bool, StoreError> {
        let (now, before) = (now.0.to_be_bytes(), before.0.to_be_bytes());
        self.write(async || {
            let mut tx = self.begin().await?;
            let claim = sqlx::query(rows::CLAIM).bind(rows::LAST_RUN).bind(now.as_slice()).bind(before.as_slice());
            let ours = claim.execute(&mut *tx).await?.rows_affected() == 1;
            commit(tx).await?;
            Ok(ours)
        })
        .await
    }

    async fn overdue(&self, what: Overdue, before: Timestamp) -> Result<u64, StoreError> {
        self.read(async || {
            let query = sqlx::query(rows::count(what)).bind(before.0).bind(COUNT_LIMIT_ROWS);
            let row = query.fetch_one(&mut *self.connection().await?).await?;
            Ok(Reader::new(&row, "calls").small("n")?)
        })
        .await
    }

    async fn erase_overdue(&self, what: Overdue, before: Timestamp, limit: u32, audit: &AuditRecord) -> Result<u64, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let mut erased = 0;
            for sql in rows::erase_on_postgres(what) {
                erased = sqlx::query(*sql).bind(before.0).bind(i64::from(limit)).execute(&mut *tx).await?.rows_affected();
            }
            if erased > 0 {
                insert_audit(&mut tx, &audit.with_erased(&[(what.as_str(), erased)])).await?;
            }
            commit(tx).await?;
            Ok(erased)
        })
        .await
    }

    async fn unused_voices(&self, before: Timestamp, limit: u32) -> Result<Vec<CustomerId>, StoreError> {
        self.read(async || {
            let query = sqlx::query(rows::UNUSED_VOICES).bind(before.0).bind(i64::from(limit));
            let found = query.fetch_all(&mut *self.connection().await?).await?;
            let customers = found.iter().map(|row| Reader::new(row, "templates").parsed("customer_id"));
            Ok(customers.collect::<Result<_, _>>()?)
        })
        .await
    }
}

#[async_trait]
impl Held for PgStore {
    async fn calls_of(&self, customer: &CustomerId, after: Option<&CallId>, limit: u32) -> Result<Vec<CallRecord>, StoreError> {
        self.read(async || {
            let query = sqlx::query(rows::CALLS_OF).bind(customer.as_str()).bind(after.map_or("", CallId::as_str));
            let found = query.bind(i64::from(limit)).fetch_all(&mut *self.connection().await?).await?;
            Ok(found.iter().map(calls::call).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn intents_of(&self, customer: &CustomerId, after: Option<&IntentId>, limit: u32) -> Result<Vec<IntentId>, StoreError> {
        self.read(async || {
            let query = sqlx::query(rows::INTENTS_OF).bind(customer.as_str()).bind(after.map_or("", IntentId::as_str));
            let found = query.bind(i64::from(limit)).fetch_all(&mut *self.connection().await?).await?;
            Ok(found.iter().map(|row| Reader::new(row, "intents").parsed("id")).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn requests_of(
        &self,
        customer: &CustomerId,
        after: Option<&RequestId>,
        limit: u32,
    ) -> Result<Vec<RequestId>, StoreError> {
        self.read(async || {
            let query = sqlx::query(rows::REQUESTS_OF).bind(customer.as_str()).bind(after.map_or("", RequestId::as_str));
            let found = query.bind(i64::from(limit)).fetch_all(&mut *self.connection().await?).await?;
            Ok(found.iter().map(|row| Reader::new(row, "requests").parsed("id")).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn papers_with(&self, customer: &CustomerId, after: (&str, &str), limit: u32) -> Result<Vec<Paper>, StoreError> {
        self.read(async || {
            let query = sqlx::query(rows::PAPERS_WITH).bind(customer.as_str()).bind(after.0).bind(after.1);
            let found = query.bind(i64::from(limit)).fetch_all(&mut *self.connection().await?).await?;
            Ok(found.iter().map(papers::paper).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn subjects_of(&self, customer: &CustomerId) -> Result<Vec<String>, StoreError> {
        self.read(async || {
            let query = sqlx::query(rows::SUBJECTS_OF).bind(customer.as_str()).bind(SUBJECTS_LIMIT);
            let found = query.fetch_all(&mut *self.connection().await?).await?;
            Ok(found.iter().map(|row| Reader::new(row, "cards").text("id")).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn audit_scan(&self, from: AuditFrom) -> Result<(Vec<(u64, AuditRecord)>, bool), StoreError> {
        self.read(async || {
            let mut tx = self.snapshot().await?;
            let after = match from {
                AuditFrom::After(seq) => as_int(seq)?,
                AuditFrom::Time(at) => {
                    let ends = sqlx::query(clients::AUDIT_ENDS).fetch_one(&mut *tx).await?;
                    let Some(mut span) = clients::AuditSpan::of(&ends)? else { return Ok((Vec::new(), false)) };
                    while let Some(middle) = span.middle() {
                        let row = sqlx::query(clients::AUDIT_AT).bind(middle).fetch_one(&mut *tx).await?;
                        span.halve(middle, Reader::new(&row, "audit").at("at")?, at);
                    }
                    span.after()
                }
            };
            let read = i64::from(AUDIT_SCAN_LIMIT_ROWS);
            let found = sqlx::query(clients::AUDIT_FROM).bind(after).bind(read).fetch_all(&mut *tx).await?;
            let more = found.len() >= usize::from(AUDIT_SCAN_LIMIT_ROWS);
            let rows = found.iter().map(|row| Ok((Reader::new(row, "audit").small("seq")?, trail::audit(row)?)));
            Ok((rows.collect::<Result<_, StoreError>>()?, more))
        })
        .await
    }
}
