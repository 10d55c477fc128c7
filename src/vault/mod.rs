//! Card numbers and voices sealed at rest; keyed digests for look-up. Nothing else in the program holds a key.
//!
//! Envelopes: each card has a data key of 32 random bytes, and so has each customer for all that came of the voice. Data keys are wrapped by
//! a version of the master key, which a [`KeyService`] holds: files, the environment, or a PKCS #11 token. Wrapping is bound to card,
//! customer and key version, sealing to what the row claims to be: whatever is moved to another row does not open. Rotation wraps the data
//! keys anew and leaves the data alone; erasing a data key shreds what it sealed, in every backup that holds no keys.
//!
//! Digests, the sandbox's journal and other purposes have keys derived from one root secret, which is wrapped like a data key and stays the
//! same when the master key changes: `HMAC(root, "voicepay/v1/" ‖ purpose ‖ 0x01)`, the first block of HKDF-Expand with SHA-256 (RFC 5869
//! §2.3). In a database that is older than envelopes the root secret is the first master key.

mod api;
mod keys;
mod local;
mod locked;
mod pkcs11;
mod sealed;
mod service;
mod signing;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::clock::{Entropy, Timestamp};
use crate::ids::{CardId, CustomerId, EndpointId};
use crate::secret::{Pan, SecretBytes};
use keys::{open_value, seal_value};
use locked::Locked;
use sealed::Aad;
use service::KeyRing;

pub use api::ApiPurpose;
pub use keys::{CustomerKey, DataKey, KeySubject, MasterKey, ROOT_SECRET, Sealed, WrappedKey, is_under_data_key};
pub use local::MASTER_KEY_ENV;
pub use pkcs11::{PIN_ENV, Pkcs11Config};
pub use service::{KeyService, KeyVersion};
pub use signing::{SigningKey, SigningPurpose};

/// `[vault]`: who keeps the master key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VaultConfig {
    /// Where master keys are made and kept: file, environment, or pkcs11. `voicepay vault rotate` also moves from one to another.
    pub service: KeyServiceName,
    /// The file that holds the first master key, readable by its owner only; later versions lie beside it, as in master.key.v2. It is made
    /// on the first run. Back it up apart from the database: without it no card can be charged and no voice be compared. The environment
    /// variables VOICEPAY_MASTER_KEY, VOICEPAY_MASTER_KEY_V2 and so on (64 hex digits, or base64 of 32 bytes) come before files.
    pub master_key_file: PathBuf,
    /// A hardware security module, or what behaves like one.
    pub pkcs11: Pkcs11Config,
}

/// Where new master keys are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyServiceName {
    /// In files.
    #[default]
    File,
    /// Nowhere: an operator gives them by environment variables.
    Environment,
    /// In a token.
    Pkcs11,
}

impl Default for VaultConfig {
    fn default() -> Self {
        Self { service: KeyServiceName::File, master_key_file: "master.key".into(), pkcs11: Pkcs11Config::default() }
    }
}

/// What is wrong with the vault. None of these tells a secret.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The data was sealed, but there is no key.
    #[error(
        "the database holds sealed data under master key version {version}, which is not here ({places}): bring it back from its backup, \
         or name it by {}", local::variable(*version)
    )]
    MissingVersion {
        /// Which one.
        version: KeyVersion,
        /// Where it was looked for.
        places: String,
    },
    /// The key is not the one that sealed the data.
    #[error("the master key is not the one that sealed this database: give the right one in VOICEPAY_MASTER_KEY or the key file")]
    WrongKey,
    /// Two nodes each have a master key of this number.
    #[error(
        "master key version {0} here is not the one that the database knows by this number: another node made it. \
         Bring that one here, in the place of this one"
    )]
    OtherKey(KeyVersion),
    /// The key can't be read as one.
    #[error("the master key in {0} is malformed: it must be 64 hex digits, or base64 of 32 bytes")]
    Malformed(String),
    /// Others could read the key file.
    #[error("the file {} can be read by others: run `chmod 600` on it", .0.display())]
    Permissions(PathBuf),
    /// The key file can't be read or made.
    #[error("the file {} can't be used: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Keys come from the environment: nobody but the operator can make one.
    #[error(
        "the master key comes from the environment, so a new one has to come from there too: set {0} to 64 random hex digits \
         (`openssl rand -hex 32`) for this command and for every running service, then try again"
    )]
    ByHand(String),
    /// The token does not do its work.
    #[error("the PKCS #11 token can't be used: {0}")]
    Token(String),
    /// There were 65,535 master keys.
    #[error("there are no more versions of the master key")]
    NoMoreVersions,
    /// A sealed value does not open: it was altered, or stands in a row that it was not sealed for.
    #[error("a sealed {0} does not open: it was altered or belongs to another row")]
    Broken(&'static str),
    /// Its data key is gone.
    #[error("the {0} was erased: its key is gone, and nothing opens it any more")]
    Shredded(&'static str),
}

/// The vault. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    inner: Arc<Inner>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(…)")
    }
}

struct Inner {
    ring: KeyRing,
    /// The version that wraps new keys; it only grows.
    current: AtomicU16,
    keys: Locked<Keys>,
    entropy: Arc<dyn Entropy>,
}

/// Keys derived from the root secret. Plain arrays: [`Locked`] wipes them.
#[derive(Clone, Copy, Zeroize)]
struct Keys {
    card_seal: [u8; 32],
    template_seal: [u8; 32],
    card_digest: [u8; 32],
    invite_digest: [u8; 32],
    code_digest: [u8; 32],
    link_mac: [u8; 32],
    address_mark: [u8; 32],
    endpoint_seal: [u8; 32],
    challenge_digest: [u8; 32],
    fingerprint_seal: [u8; 32],
    fingerprint_mark: [u8; 32],
    sandbox: [u8; 32],
    signing: [u8; 32],
    api: [u8; 32],
    check: [u8; 32],
}

impl Keys {
    fn of(root: &[u8; 32]) -> Locked<Self> {
        Locked::new(Self {
            card_seal: derive(root, "card seal"),
            template_seal: derive(root, "template seal"),
            card_digest: derive(root, "card digest"),
            invite_digest: derive(root, "invite digest"),
            code_digest: derive(root, "one-time code digest"),
            link_mac: derive(root, "link"),
            address_mark: derive(root, "address mark"),
            endpoint_seal: derive(root, "endpoint secrets"),
            challenge_digest: derive(root, "challenge digest"),
            fingerprint_seal: derive(root, "fingerprint seal"),
            fingerprint_mark: derive(root, "fingerprint mark"),
            sandbox: derive(root, "sandbox journal"),
            signing: derive(root, "signing seeds"),
            api: derive(root, "api"),
            check: derive(root, "key check"),
        })
    }

    fn check(&self) -> [u8; 32] {
        hmac(&self.check, &[b"voicepay key check"])
    }
}

/// What a database starts with: its first master key and its root secret, both as rows keep them, and the root's check value.
#[derive(Clone, Debug)]
pub struct FirstKeys {
    /// The first master key.
    pub master: MasterKey,
    /// The root secret, wrapped by it.
    pub root: WrappedKey,
    /// [`Vault::key_check`] of the root.
    pub check: [u8; 32],
}

impl Vault {
    /// The first keys of a database. `older_check`: the check value that a database older than envelopes remembers: its master key is
    /// there already, must fit, and becomes the root secret as well. Without it, a master key that is not there is made.
    pub fn first_keys(cfg: &VaultConfig, older_check: Option<&[u8]>, entropy: &dyn Entropy) -> Result<FirstKeys, VaultError> {
        let ring = KeyRing::open(cfg)?;
        let root = match older_check {
            None => {
                ring.make(KeyVersion::FIRST, entropy)?;
                DataKey::fresh(entropy)
            }
            Some(stored) => {
                let root = ring.older_root()?;
                if !bool::from(stored.ct_eq(&Keys::of(root.bytes()).check())) {
                    return Err(VaultError::WrongKey);
                }
                root
            }
        };
        Self::rows(&ring, &root, entropy)
    }

    /// Opens the vault with what the database remembers: the version in force, the root secret, and its check value.
    pub fn open(
        cfg: &VaultConfig,
        current: KeyVersion,
        root: &WrappedKey,
        check: Option<&[u8]>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, VaultError> {
        let ring = KeyRing::open(cfg)?;
        let context = KeySubject::Secret(ROOT_SECRET.into()).context(root.version);
        let secret = ring.unwrap(root.version, context.bytes(), &root.wrapped)?.ok_or(VaultError::WrongKey)?;
        let vault = Self::of(ring, current, &secret, entropy);
        match check {
            Some(stored) if !bool::from(stored.ct_eq(&vault.key_check())) => Err(VaultError::WrongKey),
            Some(_) | None => Ok(vault),
        }
    }

    fn of(ring: KeyRing, current: KeyVersion, root: &DataKey, entropy: Arc<dyn Entropy>) -> Self {
        let keys = Keys::of(root.bytes());
        Self { inner: Arc::new(Inner { ring, current: AtomicU16::new(current.get()), keys, entropy }) }
    }

    /// The rows of a database that goes with [`Vault::from_master`].
    pub fn first_keys_in_hand(master: &[u8; 32], entropy: &dyn Entropy) -> Result<FirstKeys, VaultError> {
        Self::rows(&KeyRing::in_hand(master), &DataKey::new(*master), entropy)
    }

    fn rows(ring: &KeyRing, root: &DataKey, entropy: &dyn Entropy) -> Result<FirstKeys, VaultError> {
        let version = KeyVersion::FIRST;
        let context = KeySubject::Secret(ROOT_SECRET.into()).context(version);
        let wrapped = ring.wrap(version, context.bytes(), root, entropy)?;
        Ok(FirstKeys {
            master: MasterKey { version, proof: proof(ring, version, entropy)?, since: Timestamp(0) },
            root: WrappedKey { version, wrapped },
            check: Keys::of(root.bytes()).check(),
        })
    }

    /// From a master key in hand, which is the root secret as well (tests). What it seals goes into a database that knows its rows:
    /// see [`Vault::first_keys_in_hand`].
    pub fn from_master(master: &[u8; 32], entropy: Arc<dyn Entropy>) -> Self {
        Self::of(KeyRing::in_hand(master), KeyVersion::FIRST, &DataKey::new(*master), entropy)
    }

    /// The same vault with something between it and its key service: a service that fails, or counts.
    #[cfg(test)]
    pub fn through(&self, between: impl FnOnce(Arc<dyn KeyService>) -> Arc<dyn KeyService>) -> Self {
        self.through_at(self.current_version(), between)
    }

    /// The same, at another version.
    #[cfg(test)]
    pub fn through_at(&self, at: KeyVersion, between: impl FnOnce(Arc<dyn KeyService>) -> Arc<dyn KeyService>) -> Self {
        let Inner { ring, keys, entropy, .. } = &*self.inner;
        let ring = KeyRing::of(vec![between(ring.first().unwrap())]);
        let current = AtomicU16::new(at.get());
        Self { inner: Arc::new(Inner { ring, current, keys: Locked::new(**keys), entropy: Arc::clone(entropy) }) }
    }

    /// A card as it was sealed before data keys.
    #[cfg(test)]
    pub fn seal_card_as_before(&self, card: &CardId, customer: &CustomerId, pan: &Pan) -> Sealed {
        let (key, entropy) = (&self.inner.keys.card_seal, &*self.inner.entropy);
        let body = sealed::seal_shared(key, CARD, &[card.as_str(), customer.as_str()], pan.ascii().as_bytes(), entropy);
        Sealed { body, key: None }
    }

    /// A template and a fingerprint as they were sealed before data keys.
    #[cfg(test)]
    pub fn seal_voice_as_before(&self, customer: &CustomerId, model: &str, voice: &[u8], marks: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (keys, entropy) = (&self.inner.keys, &*self.inner.entropy);
        (
            sealed::seal_shared(&keys.template_seal, "template", &[customer.as_str(), model], voice, entropy),
            sealed::seal_shared(&keys.fingerprint_seal, "fingerprint", &[customer.as_str()], marks, entropy),
        )
    }

    /// Whether this version of the master key can be used here; nothing is made.
    pub fn probe(cfg: &VaultConfig, version: KeyVersion) -> Result<(), VaultError> {
        let ring = KeyRing::open(cfg)?;
        ring.holder(version)?.map(drop).ok_or_else(|| ring.missing(version))
    }

    /// What a database remembers to tell its keys from others; tells nothing of them. It is the root secret's, and outlives rotation.
    pub fn key_check(&self) -> [u8; 32] {
        self.inner.keys.check()
    }

    /// The version that wraps new keys.
    pub fn current_version(&self) -> KeyVersion {
        KeyVersion::new(self.inner.current.load(Ordering::Acquire)).unwrap_or(KeyVersion::FIRST)
    }

    /// Where a version is kept, in words; `None` if it is not here.
    pub fn keeper(&self, version: KeyVersion) -> Result<Option<&'static str>, VaultError> {
        Ok(self.inner.ring.holder(version)?.map(|service| service.name()))
    }

    /// Makes the next version of the master key, for good. It wraps nothing before the database knows it and [`Vault::follow`] was called.
    pub fn make_version(&self, version: KeyVersion, now: Timestamp) -> Result<MasterKey, VaultError> {
        let Inner { ring, entropy, .. } = &*self.inner;
        ring.make(version, &**entropy)?;
        Ok(MasterKey { version, proof: proof(ring, version, &**entropy)?, since: now })
    }

    /// From now on this version wraps new keys. It must be here, and be the one that the database knows. An older one changes nothing.
    pub fn follow(&self, master: &MasterKey) -> Result<(), VaultError> {
        if master.version <= self.current_version() {
            return Ok(());
        }
        match self.inner.ring.unwrap(master.version, proof_context(master.version).bytes(), &master.proof)? {
            Some(_) => {
                self.inner.current.fetch_max(master.version.get(), Ordering::AcqRel);
                Ok(())
            }
            None => Err(VaultError::OtherKey(master.version)),
        }
    }

    /// Wraps a key by the version in force instead of the one that it is under.
    pub fn rewrap(&self, subject: &KeySubject, old: &WrappedKey) -> Result<WrappedKey, VaultError> {
        self.wrap(subject, &self.unwrap(subject, old)?)
    }

    fn wrap(&self, subject: &KeySubject, key: &DataKey) -> Result<WrappedKey, VaultError> {
        let version = self.current_version();
        let Inner { ring, entropy, .. } = &*self.inner;
        let wrapped = ring.wrap(version, subject.context(version).bytes(), key, &**entropy)?;
        Ok(WrappedKey { version, wrapped })
    }

    fn unwrap(&self, subject: &KeySubject, key: &WrappedKey) -> Result<DataKey, VaultError> {
        let context = subject.context(key.version);
        self.inner.ring.unwrap(key.version, context.bytes(), &key.wrapped)?.ok_or(VaultError::Broken("data key"))
    }

    /// Seals a card number for its row, under a data key of its own.
    pub fn seal_card(&self, card: &CardId, customer: &CustomerId, pan: &Pan) -> Result<Sealed, VaultError> {
        let key = DataKey::fresh(&*self.inner.entropy);
        let parts = [card.as_str(), customer.as_str()];
        let body = seal_value(&key, CARD, &parts, pan.ascii().as_bytes(), &*self.inner.entropy);
        let key = self.wrap(&KeySubject::Card { card: card.clone(), customer: customer.clone() }, &key)?;
        Ok(Sealed { body: body.ok_or(VaultError::Broken(CARD_NUMBER))?, key: Some(key) })
    }

    /// Opens a card number; fails unless it was sealed for this very row.
    pub fn unseal_card(&self, card: &CardId, customer: &CustomerId, sealed: &Sealed) -> Result<Pan, VaultError> {
        let broken = || VaultError::Broken(CARD_NUMBER);
        let subject = KeySubject::Card { card: card.clone(), customer: customer.clone() };
        let key = sealed.key.as_ref().map(|key| self.unwrap(&subject, key)).transpose()?;
        let parts = [card.as_str(), customer.as_str()];
        let bytes = open_value(key.as_ref(), &self.inner.keys.card_seal, CARD, &parts, &sealed.body, CARD_NUMBER)?;
        Pan::parse(std::str::from_utf8(&bytes).map_err(|_| broken())?).map_err(|_| broken())
    }

    /// A fresh data key for a customer's voice, open and as a row keeps it.
    pub fn new_customer_key(&self, customer: &CustomerId) -> Result<(CustomerKey, WrappedKey), VaultError> {
        let key = DataKey::fresh(&*self.inner.entropy);
        let wrapped = self.wrap(&KeySubject::Customer(customer.clone()), &key)?;
        Ok((CustomerKey { customer: customer.clone(), key: Some(key), vault: Arc::clone(&self.inner) }, wrapped))
    }

    /// A customer's data key. `None`: there is none (yet, or any more); then only what is older than data keys opens.
    pub fn customer_key(&self, customer: &CustomerId, key: Option<&WrappedKey>) -> Result<CustomerKey, VaultError> {
        let subject = KeySubject::Customer(customer.clone());
        let key = key.map(|key| self.unwrap(&subject, key)).transpose()?;
        Ok(CustomerKey { customer: customer.clone(), key, vault: Arc::clone(&self.inner) })
    }

    /// A card number's keyed digest, for look-up and for the hash of what is sent.
    pub fn digest_card(&self, pan: &Pan) -> [u8; 32] {
        hmac(&self.inner.keys.card_digest, &[pan.ascii().as_bytes()])
    }

    /// An invitation code's keyed digest: eight digits would not survive a plain hash.
    pub fn digest_invite_code(&self, code: &str) -> [u8; 32] {
        hmac(&self.inner.keys.invite_digest, &[code.as_bytes()])
    }

    /// A one-time code's keyed digest, for one customer and one thing to pay: a million codes would not survive a plain hash.
    pub fn digest_code(&self, customer: &CustomerId, binding: &str, digits: &[u8]) -> [u8; 32] {
        hmac(&self.inner.keys.code_digest, &[customer.as_str().as_bytes(), &[0], binding.as_bytes(), &[0], digits])
    }

    /// Seals the secret that an endpoint's messages are signed with.
    pub fn seal_endpoint_secret(&self, endpoint: &EndpointId, secret: &[u8]) -> Result<Vec<u8>, VaultError> {
        let aad = Aad::new("endpoint secret", &[endpoint.as_str()], 1);
        sealed::seal(&self.inner.keys.endpoint_seal, aad.bytes(), secret, &*self.inner.entropy)
            .ok_or(VaultError::Broken("endpoint secret"))
    }

    /// Opens it; fails unless it was sealed for this endpoint.
    pub fn unseal_endpoint_secret(&self, endpoint: &EndpointId, sealed: &[u8]) -> Result<SecretBytes, VaultError> {
        let aad = Aad::new("endpoint secret", &[endpoint.as_str()], 1);
        let plain =
            sealed::open(&self.inner.keys.endpoint_seal, aad.bytes(), sealed).ok_or(VaultError::Broken("endpoint secret"))?;
        Ok(SecretBytes::new(plain.to_vec()))
    }

    /// Signs what a link says, so that nobody else can make one.
    pub fn sign_link(&self, says: &[u8]) -> [u8; 32] {
        hmac(&self.inner.keys.link_mac, &[says])
    }

    /// What an address is known by: the keyed digest of its letters and digits, whatever their case and what stands between them.
    pub fn address_mark(&self, address: &str) -> [u8; 32] {
        let plain: String = address.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        hmac(&self.inner.keys.address_mark, &[plain.as_bytes()])
    }

    /// The keyed digest of fresh digits (digit values) that a customer is asked to say.
    pub fn digest_challenge(&self, customer: &CustomerId, digits: &[u8]) -> [u8; 32] {
        hmac(&self.inner.keys.challenge_digest, &[customer.as_str().as_bytes(), &[0], digits])
    }

    /// The key of one customer's fingerprints: those of two customers can't be compared.
    pub fn fingerprint_key(&self, customer: &CustomerId) -> Zeroizing<[u8; 16]> {
        let whole = Zeroizing::new(hmac(&self.inner.keys.fingerprint_mark, &[customer.as_str().as_bytes()]));
        let mut key = Zeroizing::new([0; 16]);
        key.iter_mut().zip(whole.iter()).for_each(|(k, w)| *k = *w);
        key
    }

    /// What the seeds of signing keys are derived from.
    fn signing_root(&self) -> &[u8; 32] {
        &self.inner.keys.signing
    }

    /// The key under which the sandbox gateway hashes card numbers in its journal.
    pub fn sandbox_journal_key(&self) -> SecretBytes {
        SecretBytes::new(self.inner.keys.sandbox.to_vec())
    }
}

const CARD: &str = "card";
const CARD_NUMBER: &str = "card number";

fn proof_context(version: KeyVersion) -> Aad {
    Aad::new("master key", &[], version.get())
}

fn proof(ring: &KeyRing, version: KeyVersion, entropy: &dyn Entropy) -> Result<Vec<u8>, VaultError> {
    ring.wrap(version, proof_context(version).bytes(), &DataKey::fresh(entropy), entropy)
}

/// One key for one purpose.
fn derive(root: &[u8; 32], purpose: &str) -> [u8; 32] {
    hmac(root, &[b"voicepay/v1/", purpose.as_bytes(), &[1]])
}

/// HMAC-SHA256 (RFC 2104, FIPS 180-4) over the parts joined.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac,
        // HMAC takes keys of any length, so this arm is never reached; all zeros would match no stored value.
        Err(_) => return [0; 32],
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests;
