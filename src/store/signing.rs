//! Which keys sign and signed: versions and public halves. The private halves are the vault's, which derives them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::{AuditRecord, Store, StoreError, UnlockError};
use crate::clock::{Entropy, Timestamp};
use crate::ids::AuditId;
use crate::ledger::keys::PublicKey;
use crate::vault::{SigningKey, SigningPurpose, Vault, VaultError};

/// More versions than a purpose ever has; beyond, making one more is refused.
pub const SIGNING_VERSIONS_LIMIT: u32 = 10_000;
/// How long a service signs with the key that it knows before it asks the register again, in milliseconds: a rotated key is in
/// use everywhere this much later.
const SIGNER_REFRESH_MS: u64 = 10_000;

/// A version of a purpose's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SigningKeyRecord {
    /// What it signs.
    pub purpose: SigningPurpose,
    /// Which version, from 1; the newest is in force.
    pub version: u32,
    /// Its public half.
    #[serde(serialize_with = "in_base64")]
    pub public: PublicKey,
    /// Since when.
    pub made_at: Timestamp,
}

fn in_base64<S: serde::Serializer>(key: &PublicKey, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(key)
}

/// The register of signing keys.
#[async_trait]
pub trait SigningKeys: Send + Sync {
    /// Every version of a purpose, oldest first.
    async fn signing_keys(&self, purpose: SigningPurpose) -> Result<Vec<SigningKeyRecord>, StoreError>;
    /// Adds a version, with its audit row. Gives the one that stands under that number, which is another process's if that was
    /// faster.
    async fn add_signing_key(&self, new: &SigningKeyRecord, audit: &AuditRecord) -> Result<SigningKeyRecord, StoreError>;
}

/// Signs for one purpose, with the key as it was last read from the register.
#[derive(Debug)]
pub struct Signer {
    purpose: SigningPurpose,
    known: Mutex<Option<(Arc<SigningKey>, Instant)>>,
}

impl Signer {
    /// Reads nothing yet.
    pub fn new(purpose: SigningPurpose) -> Self {
        Self { purpose, known: Mutex::default() }
    }

    /// The key in force, at most [`SIGNER_REFRESH_MS`] old.
    pub async fn key(
        &self,
        store: &dyn Store,
        vault: &Vault,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Arc<SigningKey>, UnlockError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((key, read_at)) = known
            && read_at.elapsed() < Duration::from_millis(SIGNER_REFRESH_MS)
        {
            return Ok(key);
        }
        let key = Arc::new(signer(store, vault, self.purpose, now, entropy).await?);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((Arc::clone(&key), Instant::now()));
        Ok(key)
    }
}

/// The key that signs for `purpose` now; the first one is made here. `WrongKey` if the vault is not the one that the register was
/// made with.
pub async fn signer(
    store: &dyn Store,
    vault: &Vault,
    purpose: SigningPurpose,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<SigningKey, UnlockError> {
    match store.signing_keys(purpose).await?.pop() {
        Some(record) => derived(vault, &record),
        None => make(store, vault, purpose, 1, now, entropy).await,
    }
}

/// Puts the next version in force. Running services sign with it within [`SIGNER_REFRESH_MS`]; what older versions
/// signed stays good.
pub async fn rotate(
    store: &dyn Store,
    vault: &Vault,
    purpose: SigningPurpose,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<SigningKey, UnlockError> {
    let newest = store.signing_keys(purpose).await?.last().map_or(0, |record| record.version);
    if newest >= SIGNING_VERSIONS_LIMIT {
        return Err(StoreError::Refused(format!("there are {newest} versions of this key already")).into());
    }
    make(store, vault, purpose, newest.saturating_add(1), now, entropy).await
}

async fn make(
    store: &dyn Store,
    vault: &Vault,
    purpose: SigningPurpose,
    version: u32,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<SigningKey, UnlockError> {
    let public = PublicKey::new(*vault.signing_key(purpose, version)?.public());
    let new = SigningKeyRecord { purpose, version, public, made_at: now };
    let audit = AuditRecord {
        id: AuditId::fresh(entropy),
        at: now,
        actor: "vault".into(),
        action: "signing_key.made".into(),
        subject: public.id(),
        detail: json!({ "purpose": purpose, "version": version, "public": public.to_base64() }),
    };
    derived(vault, &store.add_signing_key(&new, &audit).await?)
}

fn derived(vault: &Vault, record: &SigningKeyRecord) -> Result<SigningKey, UnlockError> {
    let key = vault.signing_key(record.purpose, record.version)?;
    if key.public() == record.public.bytes() { Ok(key) } else { Err(VaultError::WrongKey.into()) }
}
