//! Endpoints: made, given another secret, told of what. A secret is shown once, when it is made.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{Inner, Notifier};
use crate::clock::Timestamp;
use crate::gateway::target::Target;
use crate::ids::{AuditId, EndpointId, OutboxId, Tenant};
use crate::store::{AuditRecord, Endpoint, EndpointSecret, StoreError};
use crate::vault::VaultError;

/// Bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Secrets that sign at a time: the newest, and those that it replaced of late.
const SECRET_LIMIT: usize = 4;
/// Topics that one endpoint may name.
const TOPIC_LIMIT: usize = 64;
/// A URL is no longer than this.
const URL_LIMIT_CHARS: usize = 2_048;

/// Why an endpoint is not so. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// There is none such.
    #[error("there is no such endpoint")]
    NoSuch,
    /// Its URL.
    #[error("url: {0}")]
    Url(String),
    /// Its topics.
    #[error("topics: {0}")]
    Topics(String),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A secret as it is shown, once: `whsec_` and base64.
pub struct NewSecret(pub String);

impl std::fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewSecret")
    }
}

/// Whether messages may go there: https, or this machine itself.
pub fn check_url(url: &str) -> Result<Target, EndpointError> {
    if url.len() > URL_LIMIT_CHARS {
        return Err(EndpointError::Url(format!("is longer than {URL_LIMIT_CHARS} characters")));
    }
    Target::parse(url).map_err(EndpointError::Url)
}

/// Whether these are topics: words with dots, perhaps with `*` at the end.
pub fn check_topics(topics: &[String]) -> Result<(), EndpointError> {
    if topics.is_empty() || topics.len() > TOPIC_LIMIT {
        return Err(EndpointError::Topics(format!("name 1 to {TOPIC_LIMIT}, such as `payment.*`, or `*` for all")));
    }
    let ok = |t: &str| {
        let word = t.strip_suffix('*').unwrap_or(t);
        t.len() <= 64 && !t.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'.')
    };
    match topics.iter().find(|t| !ok(t)) {
        Some(bad) => Err(EndpointError::Topics(format!(
            "`{bad}` is none: write a to z, `_` and `.`, with `*` at the end for all that begin so"
        ))),
        None => Ok(()),
    }
}

impl Notifier {
    /// Makes an endpoint; its secret is told here and never again.
    pub async fn add_endpoint(
        &self,
        tenant: &Tenant,
        url: &str,
        topics: Vec<String>,
        by: &str,
    ) -> Result<(Endpoint, NewSecret), EndpointError> {
        check_url(url)?;
        check_topics(&topics)?;
        let inner = &*self.inner;
        let now = inner.clock.now();
        let id = EndpointId::fresh_at(now, &*inner.entropy);
        let (secret, shown) = inner.fresh_secret(&id)?;
        let endpoint = Endpoint {
            id,
            tenant: tenant.clone(),
            url: url.to_owned(),
            topics,
            secrets: vec![secret],
            disabled: false,
            version: 0,
            created_at: now,
        };
        let detail = json!({ "tenant": tenant, "topics": endpoint.topics });
        inner.store.write_endpoint(&endpoint, &inner.audit(now, by, "endpoint.added", endpoint.id.as_str(), detail)).await?;
        Ok((endpoint, shown))
    }

    /// Gives an endpoint another secret; the one before signs beside it for a while.
    pub async fn rotate_endpoint(&self, id: &EndpointId, by: &str) -> Result<NewSecret, EndpointError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let mut endpoint = inner.store.endpoint(id).await?.ok_or(EndpointError::NoSuch)?;
        let (secret, shown) = inner.fresh_secret(id)?;
        let until = now.plus(std::time::Duration::from_secs(inner.cfg.rotation_s.into()));
        endpoint.secrets.retain(|s| s.until.is_none_or(|at| now < at));
        endpoint.secrets.iter_mut().filter(|s| s.until.is_none()).for_each(|s| s.until = Some(until));
        let surplus = endpoint.secrets.len().saturating_sub(SECRET_LIMIT - 1);
        endpoint.secrets.drain(..surplus);
        endpoint.secrets.push(secret);
        endpoint.version = endpoint.version.saturating_add(1);
        inner.store.write_endpoint(&endpoint, &inner.audit(now, by, "endpoint.rotated", id.as_str(), json!({}))).await?;
        Ok(shown)
    }

    /// Changes where, of what, or whether an endpoint is told.
    pub async fn change_endpoint(
        &self,
        id: &EndpointId,
        url: Option<String>,
        topics: Option<Vec<String>>,
        disabled: Option<bool>,
        by: &str,
    ) -> Result<Endpoint, EndpointError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let mut endpoint = inner.store.endpoint(id).await?.ok_or(EndpointError::NoSuch)?;
        if let Some(url) = url {
            check_url(&url)?;
            endpoint.url = url;
        }
        if let Some(topics) = topics {
            check_topics(&topics)?;
            endpoint.topics = topics;
        }
        endpoint.disabled = disabled.unwrap_or(endpoint.disabled);
        endpoint.version = endpoint.version.saturating_add(1);
        let detail = json!({ "topics": endpoint.topics, "disabled": endpoint.disabled });
        inner.store.write_endpoint(&endpoint, &inner.audit(now, by, "endpoint.changed", id.as_str(), detail)).await?;
        Ok(endpoint)
    }

    /// Has deliveries sent again: one, or all that are dead.
    pub async fn replay(&self, id: &EndpointId, one: Option<&OutboxId>, by: &str) -> Result<u64, StoreError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        inner.store.replay(id, one, now, &inner.audit(now, by, "endpoint.replayed", id.as_str(), json!({ "one": one }))).await
    }
}

impl Inner {
    fn fresh_secret(&self, id: &EndpointId) -> Result<(EndpointSecret, NewSecret), VaultError> {
        let bytes = self.entropy.bytes::<SECRET_BYTES>();
        let sealed = hex::encode(self.vault.seal_endpoint_secret(id, &bytes)?);
        Ok((EndpointSecret { sealed, until: None }, NewSecret(format!("whsec_{}", STANDARD.encode(bytes)))))
    }

    pub(super) fn audit(
        &self,
        at: Timestamp,
        actor: &str,
        action: &str,
        subject: &str,
        detail: serde_json::Value,
    ) -> AuditRecord {
        AuditRecord {
            id: AuditId::fresh_at(at, &*self.entropy),
            at,
            actor: actor.to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            detail,
        }
    }
}
