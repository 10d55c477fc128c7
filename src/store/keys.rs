//! Wrapped keys, apart from what they seal: versions of the master key, the root secret, a key per card and per customer.

use async_trait::async_trait;
use serde::Serialize;

use super::{AuditRecord, CardRecord, StoreError};
use crate::ids::{CardId, CustomerId};
use crate::vault::{FirstKeys, KeySubject, KeyVersion, MasterKey, WrappedKey};

/// Tables whose rows open data. A backup without them holds nothing that opens; where they are kept together, shredding does not reach.
pub const KEY_TABLES: [&str; 2] = ["card_keys", "customer_keys"];

/// A wrapped key with what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// What for.
    pub subject: KeySubject,
    /// As it is wrapped.
    pub key: WrappedKey,
}

/// A key that rotation wrapped anew.
#[derive(Clone, Debug)]
pub struct Rewrapped {
    /// What for.
    pub subject: KeySubject,
    /// As it was read. If it changed since, it is left alone.
    pub old: WrappedKey,
    /// As it shall be.
    pub new: WrappedKey,
}

/// How many rows a version of the master key wraps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyUsage {
    /// Which version.
    pub version: KeyVersion,
    /// Cards.
    pub cards: u64,
    /// Customers' voices.
    pub customers: u64,
    /// Secrets of the service.
    pub secrets: u64,
}

/// Where a value stands that was sealed before there were data keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OlderPlace {
    /// A card's number.
    Card(CardId),
    /// A customer's template.
    Template {
        /// For which model.
        model: String,
    },
    /// What the template was before.
    EarlierTemplate {
        /// Which step.
        seq: i64,
        /// For which model.
        model: String,
    },
    /// A fingerprint.
    Fingerprint {
        /// Which row.
        seq: i64,
    },
}

/// A value that was sealed before there were data keys.
#[derive(Clone, PartialEq, Eq)]
pub struct OlderValue {
    /// Where.
    pub place: OlderPlace,
    /// Whose.
    pub customer: CustomerId,
    /// As it is sealed.
    pub sealed: Vec<u8>,
}

impl std::fmt::Debug for OlderValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OlderValue").field("place", &self.place).field("customer", &self.customer).finish_non_exhaustive()
    }
}

/// The same value under a data key.
#[derive(Clone)]
pub struct Resealed {
    /// What it was: if the row changed since, it is left alone.
    pub old: OlderValue,
    /// The new ciphertext.
    pub sealed: Vec<u8>,
    /// A card's data key; a customer's is stored before.
    pub card_key: Option<WrappedKey>,
}

impl std::fmt::Debug for Resealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resealed").field("old", &self.old).finish_non_exhaustive()
    }
}

/// A card from another vault, ready to be stored.
#[derive(Clone, Debug)]
pub struct NewCard {
    /// The card.
    pub card: CardRecord,
    /// What the other vault called it.
    pub reference: Option<String>,
    /// Its audit row.
    pub audit: AuditRecord,
}

/// What became of a card that was brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// It is stored.
    Added,
    /// The customer has this very card already.
    Known,
    /// Its reference belongs to another card: nothing was stored.
    ReferenceTaken,
    /// There is no such customer, or not any more: nothing was stored.
    NoCustomer,
}

/// Refuses to forget a version of the master key: the one in force, and one that still wraps `used` keys.
pub(super) fn may_retire(version: KeyVersion, in_force: bool, used: u64) -> Result<(), StoreError> {
    if in_force {
        return Err(StoreError::Refused(format!(
            "version {version} is the master key in force: `voicepay vault rotate` puts another one in its place"
        )));
    }
    if used > 0 {
        return Err(StoreError::Refused(format!(
            "version {version} of the master key still wraps {used} keys: `voicepay vault rotate` wraps them anew"
        )));
    }
    Ok(())
}

/// Wrapped keys.
#[async_trait]
pub trait Keys: Send + Sync {
    /// Stores the first master key, the root secret and its check value, in one transaction, unless there is a root secret already.
    async fn begin_keys(&self, first: &FirstKeys) -> Result<(), StoreError>;
    /// Versions of the master key that may be in use, oldest first. The last one is in force.
    async fn master_keys(&self) -> Result<Vec<MasterKey>, StoreError>;
    /// Puts a version in force. Gives the one that stands, which is another node's if that was faster.
    async fn add_master_key(&self, new: &MasterKey, audit: &AuditRecord) -> Result<MasterKey, StoreError>;
    /// Forgets a version; refused for the one in force, and while a row uses it.
    async fn retire_master_key(&self, version: KeyVersion, audit: &AuditRecord) -> Result<(), StoreError>;
    /// A secret of the service.
    async fn secret(&self, name: &str) -> Result<Option<WrappedKey>, StoreError>;
    /// A customer's key.
    async fn customer_key(&self, customer: &CustomerId) -> Result<Option<WrappedKey>, StoreError>;
    /// Stores a customer's first key. Gives the one that stands, which is another call's if that was faster. `NotFound` if the customer
    /// is deleted.
    async fn put_customer_key(&self, customer: &CustomerId, key: &WrappedKey) -> Result<WrappedKey, StoreError>;

    /// How many rows each version wraps, oldest version first; versions in use or in force.
    async fn key_usage(&self) -> Result<Vec<KeyUsage>, StoreError>;
    /// Keys under versions before `version`, those after `after`: cards first, then customers, then secrets, each by their names.
    async fn keys_before(
        &self,
        version: KeyVersion,
        after: Option<&KeySubject>,
        limit: u32,
    ) -> Result<Vec<StoredKey>, StoreError>;
    /// Stores keys that were wrapped anew, in one transaction; says how many. One that changed since it was read is left alone.
    async fn rewrap(&self, batch: &[Rewrapped]) -> Result<u64, StoreError>;
    /// Values sealed before there were data keys, in the order of [`OlderPlace`]; those after `after`.
    async fn older_values(&self, after: Option<&OlderValue>, limit: u32) -> Result<Vec<OlderValue>, StoreError>;
    /// How many there are.
    async fn older_value_count(&self) -> Result<u64, StoreError>;
    /// Stores values under data keys, in one transaction; says how many. One that changed since it was read is left alone.
    async fn reseal(&self, batch: &[Resealed]) -> Result<u64, StoreError>;

    /// Revokes a card and erases its number, digest, reference and key. Refused while a payment with it is under way.
    async fn shred_card(&self, card: &CardId, audit: &AuditRecord) -> Result<(), StoreError>;
    /// Stores cards of another vault, in one transaction: all of the batch, or on an error nothing. Says what became of each.
    async fn bring_cards(&self, batch: &[NewCard]) -> Result<Vec<Brought>, StoreError>;
    /// The card that another vault called so.
    async fn card_by_reference(&self, reference: &str) -> Result<Option<CardId>, StoreError>;
}
