//! Endpoints: made, given another secret, told of what. A secret is shown once, when it is made.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use subtle::ConstantTimeEq as _;

use super::sending::is_public;
use super::{Inner, Notifier};
use crate::clock::{Entropy, Timestamp};
use crate::gateway::target::Target;
use crate::ids::{EndpointId, Tenant};
use crate::store::{AuditRecord, Endpoint, EndpointSecret, Replay, StoreError};
use crate::vault::VaultError;

/// Bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Secrets that sign at a time: the newest, and those that it replaced of late.
const SECRET_LIMIT: usize = 4;
/// Topics that one endpoint may name.
const TOPIC_LIMIT: usize = 64;
/// Endpoints that one tenant may have: each event is sent to all that want to hear of it.
const ENDPOINT_LIMIT: usize = 32;
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
    /// The tenant has as many as one may have.
    #[error("a tenant has at most {ENDPOINT_LIMIT} endpoints: delete one first")]
    TooMany,
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

/// What an endpoint and its secret are made of: whoever asks the same again brings the same, and nothing is made twice.
#[derive(Clone, Copy)]
pub struct Drawn<'a> {
    /// When it was asked first.
    pub at: Timestamp,
    /// Where identifiers and secrets come from.
    pub entropy: &'a dyn Entropy,
}

impl std::fmt::Debug for Drawn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Drawn({})", self.at)
    }
}

/// What is to be changed of an endpoint; `None` is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointChange {
    /// Where it is told.
    pub url: Option<String>,
    /// Of what.
    pub topics: Option<Vec<String>>,
    /// Whether nothing is sent for now.
    pub disabled: Option<bool>,
}

/// Whether messages may go there: https, or this machine itself; and out of our own networks only if those are allowed. What a name stands for is
/// looked at when it is connected to.
pub fn check_url(url: &str, private_networks: bool) -> Result<Target, EndpointError> {
    if url.len() > URL_LIMIT_CHARS {
        return Err(EndpointError::Url(format!("is longer than {URL_LIMIT_CHARS} characters")));
    }
    let target = Target::parse(url).map_err(EndpointError::Url)?;
    let name = target.host.trim_end_matches('.').to_ascii_lowercase();
    let near = name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok_and(|ip| !is_public(ip));
    if near && !private_networks {
        return Err(EndpointError::Url("names a network that is not public (notify.private_networks allows such)".into()));
    }
    Ok(target)
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
        let drawn = Drawn { at: self.inner.clock.now(), entropy: &*self.inner.entropy };
        self.add_endpoint_as(drawn, tenant, url, topics, by).await
    }

    /// The same of what was drawn for it. One that is there already was made when this was asked before.
    pub async fn add_endpoint_as(
        &self,
        drawn: Drawn<'_>,
        tenant: &Tenant,
        url: &str,
        topics: Vec<String>,
        by: &str,
    ) -> Result<(Endpoint, NewSecret), EndpointError> {
        let inner = &*self.inner;
        check_url(url, inner.cfg.private_networks)?;
        check_topics(&topics)?;
        let id = EndpointId::fresh_at(drawn.at, drawn.entropy);
        let (secret, shown) = inner.fresh_secret(&id, drawn.entropy)?;
        if let Some(there) = inner.store.endpoint(&id).await? {
            return Ok((there, shown));
        }
        if inner.store.endpoints(Some(tenant)).await?.len() >= ENDPOINT_LIMIT {
            return Err(EndpointError::TooMany);
        }
        let endpoint = Endpoint {
            id,
            tenant: tenant.clone(),
            url: url.to_owned(),
            topics,
            secrets: vec![secret],
            disabled: false,
            version: 0,
            created_at: drawn.at,
        };
        let detail = json!({ "tenant": tenant, "topics": endpoint.topics });
        inner.store.write_endpoint(&endpoint, &inner.audit(drawn.at, by, "endpoint.added", endpoint.id.as_str(), detail)).await?;
        Ok((endpoint, shown))
    }

    /// Gives an endpoint another secret; the one before signs beside it for a while.
    pub async fn rotate_endpoint(&self, id: &EndpointId, by: &str) -> Result<NewSecret, EndpointError> {
        let drawn = Drawn { at: self.inner.clock.now(), entropy: &*self.inner.entropy };
        self.rotate_endpoint_as(drawn, id, by).await
    }

    /// The same with what was drawn for it.
    pub async fn rotate_endpoint_as(&self, drawn: Drawn<'_>, id: &EndpointId, by: &str) -> Result<NewSecret, EndpointError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let mut endpoint = inner.store.endpoint(id).await?.ok_or(EndpointError::NoSuch)?;
        let (secret, shown) = inner.fresh_secret(id, drawn.entropy)?;
        if let Some(newest) = endpoint.secrets.last()
            && inner.same_secret(id, newest, &secret)?
        {
            return Ok(shown); // given when this was asked before
        }
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
    pub async fn change_endpoint(&self, id: &EndpointId, change: EndpointChange, by: &str) -> Result<Endpoint, EndpointError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let mut endpoint = inner.store.endpoint(id).await?.ok_or(EndpointError::NoSuch)?;
        if let Some(url) = change.url {
            check_url(&url, inner.cfg.private_networks)?;
            endpoint.url = url;
        }
        if let Some(topics) = change.topics {
            check_topics(&topics)?;
            endpoint.topics = topics;
        }
        endpoint.disabled = change.disabled.unwrap_or(endpoint.disabled);
        endpoint.version = endpoint.version.saturating_add(1);
        let detail = json!({ "topics": endpoint.topics, "disabled": endpoint.disabled });
        inner.store.write_endpoint(&endpoint, &inner.audit(now, by, "endpoint.changed", id.as_str(), detail)).await?;
        Ok(endpoint)
    }

    /// Erases an endpoint with its secrets; what was to be told there is not told any more.
    pub async fn delete_endpoint(&self, id: &EndpointId, by: &str) -> Result<(), StoreError> {
        let inner = &*self.inner;
        let audit = inner.audit(inner.clock.now(), by, "endpoint.deleted", id.as_str(), json!({}));
        inner.store.delete_endpoint(id, &audit).await
    }

    /// Has deliveries sent again; says how many.
    pub async fn replay(&self, id: &EndpointId, which: Replay<'_>, by: &str) -> Result<u64, StoreError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let detail = match which {
            Replay::One(message) => json!({ "message": message }),
            Replay::Dead => json!({ "all": "dead" }),
            Replay::Since(at) => json!({ "since": at.to_string() }),
        };
        inner.store.replay(id, which, now, &inner.audit(now, by, "endpoint.replayed", id.as_str(), detail)).await
    }
}

impl Inner {
    fn fresh_secret(&self, id: &EndpointId, entropy: &dyn Entropy) -> Result<(EndpointSecret, NewSecret), VaultError> {
        let bytes = entropy.bytes::<SECRET_BYTES>();
        let sealed = hex::encode(self.vault.seal_endpoint_secret(id, &bytes)?);
        Ok((EndpointSecret { sealed, until: None }, NewSecret(format!("whsec_{}", STANDARD.encode(bytes)))))
    }

    /// Whether two sealed secrets are the same.
    fn same_secret(&self, id: &EndpointId, one: &EndpointSecret, other: &EndpointSecret) -> Result<bool, VaultError> {
        let open = |s: &EndpointSecret| self.vault.unseal_endpoint_secret(id, &hex::decode(&s.sealed).unwrap_or_default());
        Ok(bool::from(open(one)?.expose().ct_eq(open(other)?.expose())))
    }

    fn audit(&self, at: Timestamp, actor: &str, action: &str, subject: &str, detail: serde_json::Value) -> AuditRecord {
        AuditRecord::fresh(at, &*self.entropy, actor, action, subject, detail)
    }
}
