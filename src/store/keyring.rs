//! The vault joined with the rows that hold its keys: opening it, a customer's key for one use, and rotation.

use std::sync::Arc;

use super::{AuditRecord, OlderPlace, OlderValue, Resealed, Rewrapped, Store, StoreError};
use crate::clock::{Entropy, Timestamp};
use crate::ids::CustomerId;
use crate::vault::{
    CustomerKey, KeySubject, KeyVersion, MasterKey, ROOT_SECRET, Sealed, Vault, VaultConfig, VaultError, WrappedKey,
};

/// Why the vault does not open, or a key can't be had.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The key.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens the vault that goes with this database. The first time its keys are made (a database older than envelopes keeps its master key);
/// later, other keys are refused at once.
pub async fn unlock(store: &dyn Store, cfg: &VaultConfig, entropy: Arc<dyn Entropy>) -> Result<Vault, UnlockError> {
    let check = store.key_check().await?;
    if store.secret(ROOT_SECRET).await?.is_none() {
        let first = Vault::first_keys(cfg, check.as_deref(), &*entropy)?;
        // Another process may be faster; then its keys stand.
        store.begin_keys(&first).await?;
    }
    let (check, current) = (store.key_check().await?, in_force(store).await?);
    let root = store.secret(ROOT_SECRET).await?.ok_or(StoreError::NotFound("root secret"))?;
    let vault = Vault::open(cfg, root.version, &root, check.as_deref(), entropy)?;
    vault.follow(&current)?;
    Ok(vault)
}

/// The same with a master key in hand, for tests: nothing but the database is read or made.
pub async fn unlock_in_hand(store: &dyn Store, master: &[u8; 32], entropy: Arc<dyn Entropy>) -> Result<Vault, UnlockError> {
    store.begin_keys(&Vault::first_keys_in_hand(master, &*entropy)?).await?;
    Ok(Vault::from_master(master, entropy))
}

async fn in_force(store: &dyn Store) -> Result<MasterKey, StoreError> {
    store.master_keys().await?.pop().ok_or(StoreError::NotFound("master key"))
}

/// A customer's key to open with. Without a row of its own it opens only what is older than data keys.
pub async fn customer_key(store: &dyn Store, vault: &Vault, customer: &CustomerId) -> Result<CustomerKey, UnlockError> {
    let stored = store.customer_key(customer).await?;
    Ok(vault.customer_key(customer, stored.as_ref())?)
}

/// A customer's key to seal with: made when it is first needed. New keys are wrapped by the version that is in force at this moment,
/// whichever node put it there.
pub async fn customer_key_to_seal(store: &dyn Store, vault: &Vault, customer: &CustomerId) -> Result<CustomerKey, UnlockError> {
    if let Some(stored) = store.customer_key(customer).await? {
        return Ok(vault.customer_key(customer, Some(&stored))?);
    }
    vault.follow(&in_force(store).await?)?;
    let (key, wrapped) = vault.new_customer_key(customer)?;
    let stands = store.put_customer_key(customer, &wrapped).await?;
    if stands == wrapped { Ok(key) } else { Ok(vault.customer_key(customer, Some(&stands))?) }
}

/// What rotation has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// A new version was put in force.
    Begun(KeyVersion),
    /// An earlier rotation was cut short: it goes on under the version that is in force.
    Resumed(KeyVersion),
}

/// Puts a new version of the master key in force, unless an earlier rotation is unfinished (then that one goes on, but for `anew`).
/// Nodes that run take it for their next new key: they ask the database which one it is.
pub async fn begin_rotation(
    store: &dyn Store,
    vault: &Vault,
    anew: bool,
    now: Timestamp,
    audit: impl FnOnce(KeyVersion) -> AuditRecord,
) -> Result<Rotation, UnlockError> {
    let current = in_force(store).await?;
    vault.follow(&current)?;
    let unfinished = !store.keys_before(current.version, None, 1).await?.is_empty();
    if unfinished && !anew {
        return Ok(Rotation::Resumed(current.version));
    }
    let next = current.version.next().ok_or(VaultError::NoMoreVersions)?;
    let made = vault.make_version(next, now)?;
    let stands = store.add_master_key(&made, &audit(next)).await?;
    vault.follow(&stands)?;
    Ok(Rotation::Begun(next))
}

/// How far rotation has come.
#[derive(Clone, Debug, Default)]
pub struct Rewrap {
    /// Data keys that were wrapped anew.
    pub rewrapped: u64,
    /// Values that were sealed anew, under data keys.
    pub resealed: u64,
    /// What does not open, and was left as it is.
    pub broken: Vec<String>,
    /// Where the next batch begins.
    after: Option<KeySubject>,
    keys_done: bool,
    after_value: Option<OlderValue>,
}

/// No more of them are named.
const BROKEN_NAMED_LIMIT: usize = 100;

/// One batch of rotation: a transaction of at most `limit` rows. `false`: nothing is left. It can be cut short anywhere, and begun again;
/// two processes may do it at once.
pub async fn rewrap_batch(store: &dyn Store, vault: &Vault, limit: u32, so_far: &mut Rewrap) -> Result<bool, UnlockError> {
    vault.follow(&in_force(store).await?)?;
    if so_far.keys_done {
        return reseal_batch(store, vault, limit, so_far).await;
    }
    let keys = store.keys_before(vault.current_version(), so_far.after.as_ref(), limit).await?;
    so_far.keys_done = keys.is_empty();
    let mut batch = Vec::with_capacity(keys.len());
    for stored in keys {
        match vault.rewrap(&stored.subject, &stored.key) {
            Ok(new) => batch.push(Rewrapped { subject: stored.subject.clone(), old: stored.key, new }),
            Err(VaultError::Broken(_)) => so_far.note_broken(stored.subject.to_string()),
            // The key service is away, or a version is not here: the rest would fail alike.
            Err(error) => return Err(error.into()),
        }
        so_far.after = Some(stored.subject);
    }
    so_far.rewrapped += store.rewrap(&batch).await?;
    Ok(true)
}

impl Rewrap {
    fn note_broken(&mut self, what: String) {
        if self.broken.len() < BROKEN_NAMED_LIMIT {
            self.broken.push(what);
        }
    }
}

async fn reseal_batch(store: &dyn Store, vault: &Vault, limit: u32, so_far: &mut Rewrap) -> Result<bool, UnlockError> {
    let values = store.older_values(so_far.after_value.as_ref(), limit).await?;
    let any = !values.is_empty();
    let mut batch = Vec::with_capacity(values.len());
    for value in values {
        match resealed(store, vault, value.clone()).await {
            Ok(new) => batch.push(new),
            Err(UnlockError::Vault(VaultError::Broken(_))) => {
                so_far.note_broken(match &value.place {
                    OlderPlace::Card(card) => card.to_string(),
                    OlderPlace::Template { .. } => format!("the voice template of {}", value.customer),
                    OlderPlace::EarlierTemplate { .. } => format!("an earlier voice template of {}", value.customer),
                    OlderPlace::Fingerprint { .. } => format!("a fingerprint of {}", value.customer),
                });
            }
            Err(error) => return Err(error),
        }
        so_far.after_value = Some(value);
    }
    so_far.resealed += store.reseal(&batch).await?;
    Ok(any)
}

async fn resealed(store: &dyn Store, vault: &Vault, old: OlderValue) -> Result<Resealed, UnlockError> {
    let customer = &old.customer;
    let (sealed, card_key): (Vec<u8>, Option<WrappedKey>) = match &old.place {
        OlderPlace::Card(card) => {
            let pan = vault.unseal_card(card, customer, &Sealed { body: old.sealed.clone(), key: None })?;
            let sealed = vault.seal_card(card, customer, &pan)?;
            (sealed.body, sealed.key)
        }
        OlderPlace::Template { model } | OlderPlace::EarlierTemplate { model, .. } => {
            let key = customer_key_to_seal(store, vault, customer).await?;
            (key.seal_template(model, &key.unseal_template(model, &old.sealed)?)?, None)
        }
        OlderPlace::Fingerprint { .. } => {
            let key = customer_key_to_seal(store, vault, customer).await?;
            (key.seal_fingerprint(&key.unseal_fingerprint(&old.sealed)?)?, None)
        }
    };
    Ok(Resealed { old, sealed, card_key })
}

#[cfg(test)]
mod tests;
