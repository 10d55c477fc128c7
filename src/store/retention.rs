//! What clocks erase, in bounded batches, and what an export reads of one person. Money, books and the audit chain are in neither's reach.

use async_trait::async_trait;

use super::{AuditFrom, AuditRecord, CallRecord, Paper, StoreError};
use crate::clock::Timestamp;
use crate::ids::{CallId, CustomerId, IntentId, RequestId};

/// What goes when it is old enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overdue {
    /// Timeline, scores and what a verdict was made on, of calls; that there was a call stays.
    CallEvidence,
    /// Calls.
    CallRecords,
    /// Calls that we owed, placed or given up.
    CallsOwed,
    /// Failed factors, counted across calls.
    FailedFactors,
    /// Invitations to enrol that are long past.
    Invitations,
    /// What is left of one-time codes that were on their way to somebody: to whom, when, after how many tries.
    CodeDeliveries,
    /// App sessions that ended.
    AppSessions,
    /// The consents of customers who were deleted.
    ClosedCustomers,
}

impl Overdue {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::CallEvidence,
        Self::CallRecords,
        Self::CallsOwed,
        Self::FailedFactors,
        Self::Invitations,
        Self::CodeDeliveries,
        Self::AppSessions,
        Self::ClosedCustomers,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CallEvidence => "call_evidence",
            Self::CallRecords => "call_records",
            Self::CallsOwed => "calls_owed",
            Self::FailedFactors => "failed_factors",
            Self::Invitations => "invitations",
            Self::CodeDeliveries => "code_deliveries",
            Self::AppSessions => "app_sessions",
            Self::ClosedCustomers => "closed_customers",
        }
    }
}

/// No dry run counts further.
pub const COUNT_LIMIT_ROWS: i64 = 1_000_000;
/// Identifiers of what concerns one person that an export looks for in the audit trail.
pub(super) const SUBJECTS_LIMIT: i64 = 100_000;

/// Erasing what is over its time.
#[async_trait]
pub trait Retention: Send + Sync {
    /// Takes the run that is due for this node: `false` if any node had one after `before`.
    async fn claim_retention(&self, now: Timestamp, before: Timestamp) -> Result<bool, StoreError>;
    /// How much there is from before then, up to [`COUNT_LIMIT_ROWS`].
    async fn overdue(&self, what: Overdue, before: Timestamp) -> Result<u64, StoreError>;
    /// Erases at most `limit` of it in ONE transaction; if it was any, the audit row goes with it and says how many.
    async fn erase_overdue(&self, what: Overdue, before: Timestamp, limit: u32, audit: &AuditRecord) -> Result<u64, StoreError>;
    /// Whose voice was neither enrolled nor of use since then, the longest unused first.
    async fn unused_voices(&self, before: Timestamp, limit: u32) -> Result<Vec<CustomerId>, StoreError>;
}

/// Reading what is held about one person, page by page, in the order of identifiers.
#[async_trait]
pub trait Held: Send + Sync {
    /// Calls.
    async fn calls_of(&self, customer: &CustomerId, after: Option<&CallId>, limit: u32) -> Result<Vec<CallRecord>, StoreError>;
    /// Payments.
    async fn intents_of(&self, customer: &CustomerId, after: Option<&IntentId>, limit: u32) -> Result<Vec<IntentId>, StoreError>;
    /// Requests.
    async fn requests_of(
        &self,
        customer: &CustomerId,
        after: Option<&RequestId>,
        limit: u32,
    ) -> Result<Vec<RequestId>, StoreError>;
    /// Papers that are theirs or about them, open or not, after this kind and identifier.
    async fn papers_with(&self, customer: &CustomerId, after: (&str, &str), limit: u32) -> Result<Vec<Paper>, StoreError>;
    /// Identifiers of whatever is theirs, for finding it in the audit trail.
    async fn subjects_of(&self, customer: &CustomerId) -> Result<Vec<String>, StoreError>;
    /// Audit rows of everybody, a bounded number, each with its place; and whether the trail goes on.
    async fn audit_scan(&self, from: AuditFrom) -> Result<(Vec<(u64, AuditRecord)>, bool), StoreError>;
}
