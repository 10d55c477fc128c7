//! Keys as rows keep them: wrapped, each bound to what it is for; and the data keys themselves, which no row ever holds.

use std::fmt;
use std::sync::Arc;

use zeroize::{Zeroize, Zeroizing};

use super::sealed::{self, Aad, FORMAT_DATA_KEY, FORMAT_SHARED_KEY};
use super::{Inner, KeyVersion, VaultError};
use crate::clock::{Entropy, Timestamp};
use crate::ids::{CardId, CodeId, CustomerId};

/// A key of 32 random bytes that seals data. Wiped on drop, never printed.
pub struct DataKey(Zeroizing<[u8; 32]>);

impl DataKey {
    pub(super) fn fresh(entropy: &dyn Entropy) -> Self {
        Self(Zeroizing::new(entropy.bytes()))
    }

    pub(super) fn new(mut bytes: [u8; 32]) -> Self {
        let key = Self(Zeroizing::new(bytes));
        bytes.zeroize();
        key
    }

    /// From what came out of a wrapping.
    pub(super) fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

/// A key as a row keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which master key wrapped it.
    pub version: KeyVersion,
    /// What the key service gave; 61 bytes from the ones here.
    pub wrapped: Vec<u8>,
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey(version {})", self.version)
    }
}

/// A sealed value and the wrapped key that it opens with. They lie in two tables, so that one can be erased without the other.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The ciphertext; empty once erased.
    pub body: Vec<u8>,
    /// Its data key. `None`: the value is older than data keys, or it was shredded.
    pub key: Option<WrappedKey>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}

/// A version of the master key, as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterKey {
    /// Which one.
    pub version: KeyVersion,
    /// A key of no use, wrapped by it: it tells this master key from another one of the same number.
    pub proof: Vec<u8>,
    /// Since when it wraps new keys; 0 for the first one: from the beginning.
    pub since: Timestamp,
}

/// What a wrapped key is for. Wrapping is bound to it, so that a key moved to another row does not open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeySubject {
    /// One card's number.
    Card {
        /// Which card.
        card: CardId,
        /// Whose.
        customer: CustomerId,
    },
    /// A customer's voice: template, earlier templates, fingerprints.
    Customer(CustomerId),
    /// A secret of the service itself: see [`ROOT_SECRET`].
    Secret(String),
}

/// The one secret there is: digests, the sandbox's journal and other purposes derive their keys from it. It is not the master key, so
/// none of them changes when the master key does.
pub const ROOT_SECRET: &str = "root";

impl KeySubject {
    pub(super) fn context(&self, version: KeyVersion) -> Aad {
        match self {
            Self::Card { card, customer } => Aad::new("card key", &[card.as_str(), customer.as_str()], version.get()),
            Self::Customer(customer) => Aad::new("customer key", &[customer.as_str()], version.get()),
            Self::Secret(name) => Aad::new("secret", &[name], version.get()),
        }
    }
}

impl fmt::Display for KeySubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Card { card, .. } => card.fmt(f),
            Self::Customer(customer) => customer.fmt(f),
            Self::Secret(name) => write!(f, "the {name} secret"),
        }
    }
}

/// A customer's data key, open for one use: all that came of the voice is sealed under it.
pub struct CustomerKey {
    pub(super) customer: CustomerId,
    pub(super) key: Option<DataKey>,
    pub(super) vault: Arc<Inner>,
}

impl fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CustomerKey({}, …)", self.customer)
    }
}

const TEMPLATE: &str = "template";
const FINGERPRINT: &str = "fingerprint";
const CODE: &str = "one-time code";

impl CustomerKey {
    /// Seals a voice template for its model version.
    pub fn seal_template(&self, model: &str, bytes: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.seal(TEMPLATE, &[self.customer.as_str(), model], bytes, "voice template")
    }

    /// Opens a voice template; fails unless it was sealed for this customer and model version.
    pub fn unseal_template(&self, model: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let shared = &self.vault.keys.template_seal;
        self.open(TEMPLATE, &[self.customer.as_str(), model], sealed, shared, "voice template")
    }

    /// Seals a fingerprint.
    pub fn seal_fingerprint(&self, bytes: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.seal(FINGERPRINT, &[self.customer.as_str()], bytes, FINGERPRINT)
    }

    /// Opens a fingerprint; fails unless it was sealed for this customer.
    pub fn unseal_fingerprint(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let shared = &self.vault.keys.fingerprint_seal;
        self.open(FINGERPRINT, &[self.customer.as_str()], sealed, shared, FINGERPRINT)
    }

    /// Seals a one-time code for its delivery.
    pub fn seal_code(&self, code: &CodeId, digits: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.seal(CODE, &[self.customer.as_str(), code.as_str()], digits, CODE)
    }

    /// Opens a one-time code; fails unless it was sealed for this customer and delivery.
    pub fn unseal_code(&self, code: &CodeId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let key = self.key.as_ref().ok_or(VaultError::Shredded(CODE))?;
        let aad = Aad::new(CODE, &[self.customer.as_str(), code.as_str()], u16::from(FORMAT_DATA_KEY));
        sealed::open(key.bytes(), aad.bytes(), sealed).ok_or(VaultError::Broken(CODE))
    }

    fn seal(&self, purpose: &str, parts: &[&str], plain: &[u8], what: &'static str) -> Result<Vec<u8>, VaultError> {
        let key = self.key.as_ref().ok_or(VaultError::Shredded(what))?;
        seal_value(key, purpose, parts, plain, &*self.vault.entropy).ok_or(VaultError::Broken(what))
    }

    fn open(
        &self,
        purpose: &str,
        parts: &[&str],
        sealed: &[u8],
        shared: &[u8; 32],
        what: &'static str,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        open_value(self.key.as_ref(), shared, purpose, parts, sealed, what)
    }
}

pub(super) fn seal_value(key: &DataKey, purpose: &str, parts: &[&str], plain: &[u8], entropy: &dyn Entropy) -> Option<Vec<u8>> {
    let aad = Aad::new(purpose, parts, u16::from(FORMAT_DATA_KEY));
    sealed::seal(key.bytes(), aad.bytes(), plain, entropy)
}

/// Opens either format.
pub(super) fn open_value(
    key: Option<&DataKey>,
    shared: &[u8; 32],
    purpose: &str,
    parts: &[&str],
    sealed: &[u8],
    what: &'static str,
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    match (sealed.first(), key) {
        (Some(&FORMAT_SHARED_KEY), _) => sealed::open_shared(shared, purpose, parts, sealed).ok_or(VaultError::Broken(what)),
        (Some(&FORMAT_DATA_KEY), Some(key)) => {
            let aad = Aad::new(purpose, parts, u16::from(FORMAT_DATA_KEY));
            sealed::open(key.bytes(), aad.bytes(), sealed).ok_or(VaultError::Broken(what))
        }
        (Some(&FORMAT_DATA_KEY) | None, None) | (None, Some(_)) => Err(VaultError::Shredded(what)),
        (Some(_), _) => Err(VaultError::Broken(what)),
    }
}

/// Whether a sealed value opens with a data key only.
pub fn is_under_data_key(body: &[u8]) -> bool {
    body.first() == Some(&FORMAT_DATA_KEY)
}
