//! Where tenants are told of what happened, and what they were told: rows of the outbox are handed out to endpoints, and each delivery goes
//! on until it arrives or is dead. Deliveries of one endpoint and one subject form a lane, in which none overtakes another.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{AuditRecord, OutboxRecord, StoreError};
use crate::clock::Timestamp;
use crate::ids::{EndpointId, OutboxId, Tenant};

/// Where a tenant is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Which one.
    pub id: EndpointId,
    /// Whose.
    pub tenant: Tenant,
    /// Where: a URL.
    pub url: String,
    /// Of what: topics, or beginnings of topics with `*` at their end.
    pub topics: Vec<String>,
    /// What its messages are signed with, the newest last.
    pub secrets: Vec<EndpointSecret>,
    /// Nothing is sent for now; what happens meanwhile waits.
    pub disabled: bool,
    /// Counts changes, from 0.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Endpoint {
    /// Whether it wants to hear of this.
    pub fn hears(&self, topic: &str) -> bool {
        self.topics.iter().any(|t| match t.strip_suffix('*') {
            Some(beginning) => topic.starts_with(beginning),
            None => t == topic,
        })
    }
}

/// A sealed secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSecret {
    /// Sealed by the vault for its endpoint, in hex.
    pub sealed: String,
    /// From then on it signs no more; `None`: it is the newest.
    pub until: Option<Timestamp>,
}

impl std::fmt::Debug for EndpointSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EndpointSecret(until {:?})", self.until)
    }
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// To be tried.
    Waiting,
    /// It arrived.
    Delivered,
    /// Given up; it can be asked for again.
    Dead,
}

impl DeliveryState {
    /// As a row stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    /// Back from a row.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Waiting, Self::Delivered, Self::Dead].into_iter().find(|s| s.as_str() == text)
    }
}

/// One row of the outbox for one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// To whom.
    pub endpoint: EndpointId,
    /// What.
    pub news: OutboxRecord,
    /// Its place in the outbox.
    pub position: i64,
    /// What keeps its order.
    pub subject: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// How often it was tried, the try that is under way among them.
    pub tries: u32,
    /// When it is tried next, if it is the first of its lane; while a try is under way: until when it is kept from others.
    pub next_at: Timestamp,
    /// What the last try came to.
    pub answer: Option<String>,
}

/// A row of the outbox, and to whom it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Which row.
    pub outbox: OutboxId,
    /// What keeps its order.
    pub subject: String,
    /// To whom; perhaps to nobody.
    pub to: Vec<EndpointId>,
}

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It arrived.
    Delivered,
    /// Not; again from then on.
    Again(Timestamp),
    /// Given up.
    Dead,
}

/// Which deliveries are sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay<'a> {
    /// This one, wherever it stands.
    One(&'a OutboxId),
    /// All that are dead.
    Dead,
    /// All that have an end, arrived or dead, of what happened since then.
    Since(Timestamp),
}

/// What has not arrived yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Rows of the outbox that are not handed out.
    pub outbox: u64,
    /// Deliveries that wait, those of disabled endpoints among them.
    pub waiting: u64,
    /// When the oldest of both happened, but for disabled endpoints.
    pub oldest_at: Option<Timestamp>,
    /// Dead letters.
    pub dead: u64,
}

/// Endpoints and deliveries.
#[async_trait]
pub trait Notices: Send + Sync {
    /// Writes an endpoint over the version before its own (0: a new one). `Conflict` if it was changed meanwhile.
    async fn write_endpoint(&self, endpoint: &Endpoint, audit: &AuditRecord) -> Result<(), StoreError>;
    /// Erases an endpoint, its secrets and all that is known of what it was told.
    async fn delete_endpoint(&self, id: &EndpointId, audit: &AuditRecord) -> Result<(), StoreError>;
    /// One endpoint.
    async fn endpoint(&self, id: &EndpointId) -> Result<Option<Endpoint>, StoreError>;
    /// Endpoints, of one tenant or of all, by identifier.
    async fn endpoints(&self, tenant: Option<&Tenant>) -> Result<Vec<Endpoint>, StoreError>;
    /// Hands rows of the outbox out, in ONE transaction. Rows that somebody else handed out are left as they are.
    async fn hand_out(&self, rows: &[Handed], now: Timestamp) -> Result<(), StoreError>;
    /// Endpoints that are not disabled and for which something is due.
    async fn due_endpoints(&self, now: Timestamp) -> Result<Vec<EndpointId>, StoreError>;
    /// Deliveries that are due, for each endpoint no more than is said with it, the longest due first; each is kept from others until
    /// `lease_until`. Of a lane only the first that waits is due.
    async fn claim_deliveries(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        rooms: &[(EndpointId, u32)],
    ) -> Result<Vec<Delivery>, StoreError>;
    /// What a try came to; with the delivery's end the next of its lane is due. `false`, and nothing is written, if the lease is not the
    /// claimer's any more: somebody else tries it, or it was replayed.
    async fn finish_delivery(
        &self,
        claimed: &Delivery,
        outcome: &Outcome,
        answer: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError>;
    /// Deliveries of an endpoint, in the order of the outbox, those after `after`; of one state or all.
    async fn deliveries(
        &self,
        endpoint: &EndpointId,
        state: Option<DeliveryState>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Delivery>, StoreError>;
    /// Has deliveries sent again; says how many. What waits in the same lanes waits for them, if it is later.
    async fn replay(
        &self,
        endpoint: &EndpointId,
        which: Replay<'_>,
        now: Timestamp,
        audit: &AuditRecord,
    ) -> Result<u64, StoreError>;
    /// Forgets deliveries that arrived before then; says how many. The outbox keeps what they said.
    async fn forget_deliveries(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
    /// How much waits, and for how long.
    async fn backlog(&self) -> Result<Backlog, StoreError>;
}
