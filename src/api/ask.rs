//! One request as a handler sees it: who asks, with what; and the answer.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::gate::Left;
use super::problem::Problem;
use super::shape::Page;
use super::{Shared, cursor};
use crate::clock::{Entropy, Timestamp};
use crate::ids::{ApiKeyId, AuditId, Tenant};
use crate::store::{AuditRecord, IdPage, Listed};

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// With which key.
    pub key: ApiKeyId,
    /// Whose data it opens.
    pub tenant: Tenant,
    /// How often it may ask just now.
    pub left: Left,
}

/// One request.
pub struct Ask {
    pub(super) shared: Arc<Shared>,
    pub(super) caller: Caller,
    /// What stands in the path, in order.
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Zeroizing<Vec<u8>>,
    /// When it was asked first; with the same idempotency key it is the same again.
    pub(super) now: Timestamp,
    /// What is made of it has these random parts; with the same idempotency key they are the same again.
    pub(super) entropy: Made,
    /// Chosen by us for the idempotency key.
    pub(super) command: String,
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ask").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl Ask {
    /// The body, strictly read. What serde says of it goes to whoever sent it and nowhere else.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(&self.body).map_err(|e| Problem::invalid(format!("the body: {e}")))
    }

    /// The `n`th identifier of the path. One that can't be is one that is not there.
    pub fn id<T: std::str::FromStr>(&self, n: usize, what: &str) -> Result<T, Problem> {
        self.path.get(n).and_then(|text| text.parse().ok()).ok_or_else(|| Problem::not_found(what))
    }

    /// A parameter of the query.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// How many a page is to have.
    pub fn limit(&self) -> Result<u16, Problem> {
        const DEFAULT: u16 = 20;
        match self.param("limit").map(str::parse::<u16>) {
            None => Ok(DEFAULT),
            Some(Ok(limit)) if (1..=100).contains(&limit) => Ok(limit),
            Some(_) => Err(Problem::invalid("`limit` must be 1 to 100")),
        }
    }

    /// Where a list goes on, if a cursor is given.
    pub fn after(&self, list: &str) -> Result<Option<String>, Problem> {
        let open = |cursor| cursor::open(&self.shared.vault, &self.caller.tenant, list, cursor);
        self.param("after").map(open).transpose()
    }

    /// The cursor of a place in a list.
    pub fn cursor(&self, list: &str, at: &str) -> String {
        cursor::sign(&self.shared.vault, &self.caller.tenant, list, at)
    }

    /// The identifiers of a page of a list.
    pub async fn page(&self, of: Listed, list: &str) -> Result<IdPage, Problem> {
        let after = self.after(list)?;
        let page = self.shared.store.page(&self.caller.tenant, of, after.as_deref(), self.limit()?).await?;
        Ok(IdPage { next: page.next.map(|at| self.cursor(list, &at)), ids: page.ids })
    }

    /// An audit row of what this request does.
    pub fn audit(&self, action: &str, subject: &str, detail: Value) -> AuditRecord {
        AuditRecord {
            id: AuditId::fresh_at(self.now, &self.entropy),
            at: self.shared.clock.now(),
            actor: self.actor(),
            action: action.into(),
            subject: subject.into(),
            detail,
        }
    }

    /// Who does it, for the audit trail.
    pub fn actor(&self) -> String {
        format!("api:{}", self.caller.key)
    }
}

/// Randomness that follows from a seed: whoever asks again gets the same identifiers, so that nothing is made twice.
pub struct Made {
    seed: Zeroizing<[u8; 32]>,
    drawn: Mutex<u64>,
}

impl Made {
    pub(super) fn of(seed: [u8; 32]) -> Self {
        Self { seed: Zeroizing::new(seed), drawn: Mutex::new(0) }
    }
}

impl Entropy for Made {
    fn fill(&self, out: &mut [u8]) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in out.chunks_mut(32) {
            let block = Sha256::new().chain_update(self.seed.as_slice()).chain_update(drawn.to_be_bytes()).finalize();
            *drawn = drawn.wrapping_add(1);
            chunk.iter_mut().zip(block).for_each(|(to, from)| *to = from);
        }
    }
}

/// What is answered when all went well.
#[derive(Debug)]
pub struct Answer {
    /// HTTP's status.
    pub status: StatusCode,
    /// The body.
    pub body: Value,
}

/// Gives a value.
pub fn ok<T: Serialize>(value: &T) -> Result<Answer, Problem> {
    answer(StatusCode::OK, value)
}

/// Gives a page.
pub fn page<T: Serialize>(data: Vec<T>, next: Option<String>) -> Result<Answer, Problem> {
    ok(&Page { data, next })
}

/// Gives what was made.
pub fn created<T: Serialize>(value: &T) -> Result<Answer, Problem> {
    answer(StatusCode::CREATED, value)
}

/// Gives what will be done.
pub fn accepted<T: Serialize>(value: &T) -> Result<Answer, Problem> {
    answer(StatusCode::ACCEPTED, value)
}

fn answer<T: Serialize>(status: StatusCode, value: &T) -> Result<Answer, Problem> {
    let body = serde_json::to_value(value).map_err(|e| Problem::internal(&e))?;
    Ok(Answer { status, body })
}
