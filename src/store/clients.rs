//! Who may call the API, what it answered, and pages of what is a tenant's: the part of the store that only the API needs.

use async_trait::async_trait;
use serde::Serialize;

use super::{AuditRecord, StoreError};
use crate::clock::Timestamp;
use crate::ids::{ApiKeyId, Tenant};

/// Somebody whose customers and payees are nothing to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenantRecord {
    /// Its name in every row.
    pub name: Tenant,
    /// For people.
    pub title: String,
    /// When it was added.
    pub created_at: Timestamp,
}

/// A key of the API. The key itself is shown once and kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiKeyRecord {
    /// Which one.
    pub id: ApiKeyId,
    /// Whose data it opens.
    pub tenant: Tenant,
    /// For people.
    pub name: String,
    /// What it may do, in words that the API knows.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From then on it is worth nothing; `None`: it does not end by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was taken back, if it was.
    pub revoked_at: Option<Timestamp>,
}

impl ApiKeyRecord {
    /// Whether it opens anything at `now`.
    pub fn good(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }
}

/// Something is asked with an idempotency key.
#[derive(Clone, Debug)]
pub struct Asked {
    /// By whose key.
    pub api_key: ApiKeyId,
    /// The idempotency key.
    pub key: String,
    /// Keyed digest of all that is asked.
    pub request: [u8; 32],
    /// Now.
    pub now: Timestamp,
    /// If there is no answer by then, whoever asks again begins anew.
    pub leased_to: Timestamp,
    /// From then on the key is free again.
    pub expires_at: Timestamp,
}

/// What is known of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// Nothing, or nobody answers it any more: it is yours. `begun_at` is when it was asked first, so that what is made of it is the same.
    Yours {
        /// When it was asked first.
        begun_at: Timestamp,
    },
    /// Somebody is at it.
    InFlight,
    /// It was asked for something else.
    OtherRequest,
    /// It was answered.
    Answered {
        /// HTTP's status.
        status: u16,
        /// The sealed answer.
        body: Vec<u8>,
    },
}

/// Of what pages are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Customers that are not deleted, by identifier.
    Customers,
    /// Payees, by identifier.
    Payees,
    /// Requests, newest first.
    Requests,
    /// Payments, newest first.
    Payments,
    /// Calls of the tenant's customers, newest first.
    Calls,
}

impl Listed {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Customers, Self::Payees, Self::Requests, Self::Payments, Self::Calls];
}

/// A page of identifiers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdPage {
    /// What is on it, in order.
    pub ids: Vec<String>,
    /// Where the next one begins; `None`: this is the last. A page may hold fewer than were asked for, even none, and yet not be the last.
    pub next: Option<String>,
}

/// Rows of payments and calls that are looked at for one page: who has few of many payments turns more pages, and no page costs more.
pub(super) const SCAN_LIMIT_ROWS: u16 = 1_000;

/// Audit rows that are looked at for one page.
pub(super) const AUDIT_SCAN_LIMIT_ROWS: u16 = 5_000;

/// A page of the audit trail.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditPage {
    /// Oldest first, each with its place in the trail.
    pub rows: Vec<(u64, AuditRecord)>,
    /// From which place the next one goes on; `None`: the trail ends here.
    pub next: Option<u64>,
}

/// Where reading the audit trail begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditFrom {
    /// At what was written then.
    Time(Timestamp),
    /// After this place.
    After(u64),
}

/// Tenants, keys of the API, answers that are given again, and pages.
#[async_trait]
pub trait Clients: Send + Sync {
    /// Adds a tenant.
    async fn add_tenant(&self, tenant: &TenantRecord, audit: &AuditRecord) -> Result<(), StoreError>;
    /// Every tenant, by name.
    async fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError>;
    /// Adds a key under its digest; its tenant must exist.
    async fn add_api_key(&self, key: &ApiKeyRecord, digest: &[u8; 32], audit: &AuditRecord) -> Result<(), StoreError>;
    /// The key with this digest, good or not.
    async fn api_key(&self, digest: &[u8; 32]) -> Result<Option<ApiKeyRecord>, StoreError>;
    /// Every key, oldest first.
    async fn api_keys(&self) -> Result<Vec<ApiKeyRecord>, StoreError>;
    /// Takes a key back. `NotFound` if there is none such that stands.
    async fn revoke_api_key(&self, id: &ApiKeyId, at: Timestamp, audit: &AuditRecord) -> Result<(), StoreError>;

    /// Takes an idempotency key, or says what is known of it, in one transaction: of two that ask at once one gets it.
    async fn begin_answer(&self, asked: &Asked) -> Result<Earlier, StoreError>;
    /// Keeps the answer. `Conflict` if whoever asked took longer than its lease and another has it now.
    async fn keep_answer(&self, asked: &Asked, status: u16, body: &[u8]) -> Result<(), StoreError>;
    /// There will be no answer: the next who asks begins anew.
    async fn drop_answer(&self, asked: &Asked) -> Result<(), StoreError>;
    /// Erases what has expired; says how many.
    async fn sweep_answers(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// A page of what is the tenant's, of at most `limit`, after `after`.
    async fn page(&self, tenant: &Tenant, of: Listed, after: Option<&str>, limit: u16) -> Result<IdPage, StoreError>;
    /// A page of the audit rows of one subject, those after this place; found by their index, however long the trail is.
    async fn audit_of(&self, subject: &str, after: u64, limit: u16) -> Result<AuditPage, StoreError>;
}
