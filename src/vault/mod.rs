//! Card numbers and voice templates sealed at rest; keyed digests for look-up. Nothing else in the program holds a key.
//!
//! Keys: one master key of 32 random bytes. Every use has its own key, derived as the first block of HKDF-Expand with SHA-256
//! (RFC 5869 §2.3, the master key being uniform already): `HMAC(master, "voicepay/v1/" ‖ purpose ‖ 0x01)`.
//!
//! Sealing: AES-256-GCM with a random 96-bit nonce. The associated data is the purpose tag and then what the row claims to be (card,
//! customer, key version), each with its length before it, so that a sealed value moved to another row does not open.
//! A sealed value is `format (1) ‖ key version (2, big endian) ‖ nonce (12) ‖ ciphertext and tag`.

mod master;
mod sealed;
mod signing;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::clock::Entropy;
use crate::ids::{CardId, CustomerId};
use crate::secret::{Pan, SecretBytes};

pub use master::MASTER_KEY_ENV;
pub use signing::{SigningKey, SigningPurpose};

/// `[vault]`: where the master key is. The environment variable `VOICEPAY_MASTER_KEY` (64 hex digits, or base64 of 32 bytes) comes first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VaultConfig {
    /// The file that holds the master key, readable by its owner only. It is made on the first run. Back it up apart from the database:
    /// without it no card can be charged and no voice be compared.
    pub master_key_file: PathBuf,
}

impl Default for VaultConfig {
    fn default() -> Self {
        Self { master_key_file: "master.key".into() }
    }
}

/// What is wrong with the vault. None of these tells a secret.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The data was sealed, but there is no key.
    #[error(
        "the database holds sealed cards, but there is no master key: set VOICEPAY_MASTER_KEY or put the key file back at {}",
        .0.display()
    )]
    Missing(PathBuf),
    /// The key is not the one that sealed the data.
    #[error("the master key is not the one that sealed this database: give the right one in VOICEPAY_MASTER_KEY or the key file")]
    WrongKey,
    /// The key can't be read as one.
    #[error("the master key in {0} is malformed: it must be 64 hex digits, or base64 of 32 bytes")]
    Malformed(String),
    /// Others could read the key file.
    #[error("the master key file {} can be read by others: run `chmod 600` on it", .0.display())]
    Permissions(PathBuf),
    /// The key file can't be read or made.
    #[error("the master key file {} can't be used: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A sealed value does not open: it was altered, or stands in a row that it was not sealed for.
    #[error("a sealed {0} does not open: it was altered or belongs to another row")]
    Broken(&'static str),
}

/// The vault. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    keys: Arc<Keys>,
    entropy: Arc<dyn Entropy>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(…)")
    }
}

/// The version of the master key; rotation (a later issue) counts it up.
const KEY_VERSION: u16 = 1;

struct Keys {
    card_seal: Zeroizing<[u8; 32]>,
    template_seal: Zeroizing<[u8; 32]>,
    card_digest: Zeroizing<[u8; 32]>,
    invite_digest: Zeroizing<[u8; 32]>,
    challenge_digest: Zeroizing<[u8; 32]>,
    fingerprint_seal: Zeroizing<[u8; 32]>,
    fingerprint_mark: Zeroizing<[u8; 32]>,
    sandbox: Zeroizing<[u8; 32]>,
    signing: Zeroizing<[u8; 32]>,
    check: Zeroizing<[u8; 32]>,
}

impl Vault {
    /// Opens the vault. `stored_check` is what the database remembers of its key ([`Vault::key_check`]), if it remembers one: then the key
    /// must be that one, and none is made. Without one, a key file that does not exist is made (and a warning logged).
    pub fn open(cfg: &VaultConfig, stored_check: Option<&[u8]>, entropy: Arc<dyn Entropy>) -> Result<Self, VaultError> {
        let master = master::load(cfg, stored_check.is_none(), &*entropy)?;
        let vault = Self::from_master(&master, entropy);
        match stored_check {
            Some(stored) if !bool::from(stored.ct_eq(&vault.key_check())) => Err(VaultError::WrongKey),
            Some(_) | None => Ok(vault),
        }
    }

    /// From a master key in hand (tests, the demo).
    pub fn from_master(master: &[u8; 32], entropy: Arc<dyn Entropy>) -> Self {
        let key = |purpose: &str| Zeroizing::new(hmac(master, &[b"voicepay/v1/", purpose.as_bytes(), &[1]]));
        let keys = Keys {
            card_seal: key("card seal"),
            template_seal: key("template seal"),
            card_digest: key("card digest"),
            invite_digest: key("invite digest"),
            challenge_digest: key("challenge digest"),
            fingerprint_seal: key("fingerprint seal"),
            fingerprint_mark: key("fingerprint mark"),
            sandbox: key("sandbox journal"),
            signing: key("signing seeds"),
            check: key("key check"),
        };
        Self { keys: Arc::new(keys), entropy }
    }

    /// What a database remembers to tell its key from others; tells nothing of the key.
    pub fn key_check(&self) -> [u8; 32] {
        hmac(&*self.keys.check, &[b"voicepay key check"])
    }

    /// Seals a card number for its row.
    pub fn seal_card(&self, card: &CardId, customer: &CustomerId, pan: &Pan) -> Result<Vec<u8>, VaultError> {
        let aad = sealed::Aad::new("card", &[card.as_str(), customer.as_str()], KEY_VERSION);
        sealed::seal(&self.keys.card_seal, &aad, KEY_VERSION, pan.ascii().as_bytes(), &*self.entropy)
            .ok_or(VaultError::Broken("card number"))
    }

    /// Opens a card number; fails unless it was sealed for this very row.
    pub fn unseal_card(&self, card: &CardId, customer: &CustomerId, sealed: &[u8]) -> Result<Pan, VaultError> {
        let broken = || VaultError::Broken("card number");
        let aad = sealed::Aad::new("card", &[card.as_str(), customer.as_str()], KEY_VERSION);
        let bytes = sealed::open(&self.keys.card_seal, &aad, KEY_VERSION, sealed).ok_or_else(broken)?;
        Pan::parse(std::str::from_utf8(&bytes).map_err(|_| broken())?).map_err(|_| broken())
    }

    /// A card number's keyed digest, for look-up and for the hash of what is sent.
    pub fn digest_card(&self, pan: &Pan) -> [u8; 32] {
        hmac(&*self.keys.card_digest, &[pan.ascii().as_bytes()])
    }

    /// Seals a voice template for its customer and model version.
    pub fn seal_template(&self, customer: &CustomerId, model: &str, bytes: &[u8]) -> Result<Vec<u8>, VaultError> {
        let aad = sealed::Aad::new("template", &[customer.as_str(), model], KEY_VERSION);
        sealed::seal(&self.keys.template_seal, &aad, KEY_VERSION, bytes, &*self.entropy)
            .ok_or(VaultError::Broken("voice template"))
    }

    /// Opens a voice template; fails unless it was sealed for this customer and model version.
    pub fn unseal_template(&self, customer: &CustomerId, model: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let aad = sealed::Aad::new("template", &[customer.as_str(), model], KEY_VERSION);
        sealed::open(&self.keys.template_seal, &aad, KEY_VERSION, sealed).ok_or(VaultError::Broken("voice template"))
    }

    /// An invitation code's keyed digest: eight digits would not survive a plain hash.
    pub fn digest_invite_code(&self, code: &str) -> [u8; 32] {
        hmac(&*self.keys.invite_digest, &[code.as_bytes()])
    }

    /// The keyed digest of fresh digits (digit values) that a customer is asked to say.
    pub fn digest_challenge(&self, customer: &CustomerId, digits: &[u8]) -> [u8; 32] {
        hmac(&*self.keys.challenge_digest, &[customer.as_str().as_bytes(), &[0], digits])
    }

    /// The key of one customer's fingerprints: those of two customers can't be compared.
    pub fn fingerprint_key(&self, customer: &CustomerId) -> Zeroizing<[u8; 16]> {
        let whole = Zeroizing::new(hmac(&*self.keys.fingerprint_mark, &[customer.as_str().as_bytes()]));
        let mut key = Zeroizing::new([0; 16]);
        key.iter_mut().zip(whole.iter()).for_each(|(k, w)| *k = *w);
        key
    }

    /// Seals a fingerprint for its customer.
    pub fn seal_fingerprint(&self, customer: &CustomerId, bytes: &[u8]) -> Result<Vec<u8>, VaultError> {
        let aad = sealed::Aad::new("fingerprint", &[customer.as_str()], KEY_VERSION);
        sealed::seal(&self.keys.fingerprint_seal, &aad, KEY_VERSION, bytes, &*self.entropy)
            .ok_or(VaultError::Broken("fingerprint"))
    }

    /// Opens a fingerprint; fails unless it was sealed for this customer.
    pub fn unseal_fingerprint(&self, customer: &CustomerId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let aad = sealed::Aad::new("fingerprint", &[customer.as_str()], KEY_VERSION);
        sealed::open(&self.keys.fingerprint_seal, &aad, KEY_VERSION, sealed).ok_or(VaultError::Broken("fingerprint"))
    }

    /// What the seeds of signing keys are derived from.
    fn signing_root(&self) -> &[u8; 32] {
        &self.keys.signing
    }

    /// The key under which the sandbox gateway hashes card numbers in its journal.
    pub fn sandbox_journal_key(&self) -> SecretBytes {
        SecretBytes::new(self.keys.sandbox.to_vec())
    }
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
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    fn vault(seed: u64) -> Vault {
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(seed));
        Vault::from_master(&entropy.bytes(), entropy.clone())
    }

    #[test]
    fn a_sealed_card_opens_only_in_its_own_row() {
        let (v, e) = (vault(1), SeededEntropy::new(2));
        let (card, other_card) = (CardId::fresh(&e), CardId::fresh(&e));
        let (ann, bob) = (CustomerId::fresh(&e), CustomerId::fresh(&e));
        let pan = Pan::parse("4111111111111111").unwrap();
        let sealed = v.seal_card(&card, &ann, &pan).unwrap();
        assert_eq!(v.unseal_card(&card, &ann, &sealed).unwrap(), pan);
        assert!(matches!(v.unseal_card(&other_card, &ann, &sealed), Err(VaultError::Broken(_))));
        assert!(matches!(v.unseal_card(&card, &bob, &sealed), Err(VaultError::Broken(_))));
        assert!(vault(3).unseal_card(&card, &ann, &sealed).is_err());
        for i in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[i] ^= 1;
            assert!(v.unseal_card(&card, &ann, &bent).is_err(), "byte {i}");
        }
        for n in 0..sealed.len() {
            assert!(v.unseal_card(&card, &ann, &sealed[..n]).is_err(), "cut at {n}");
        }
        assert_ne!(sealed, v.seal_card(&card, &ann, &pan).unwrap(), "nonces are fresh");
    }

    #[test]
    fn a_template_opens_only_for_its_customer_and_model() {
        let (v, e) = (vault(1), SeededEntropy::new(2));
        let (ann, bob) = (CustomerId::fresh(&e), CustomerId::fresh(&e));
        let sealed = v.seal_template(&ann, "campplus-1", b"numbers").unwrap();
        assert_eq!(&*v.unseal_template(&ann, "campplus-1", &sealed).unwrap(), b"numbers");
        assert!(v.unseal_template(&ann, "campplus-2", &sealed).is_err());
        assert!(v.unseal_template(&bob, "campplus-1", &sealed).is_err());
    }

    #[test]
    fn a_fingerprint_opens_only_for_its_customer_and_each_has_a_key_of_its_own() {
        let (v, e) = (vault(1), SeededEntropy::new(2));
        let (ann, bob) = (CustomerId::fresh(&e), CustomerId::fresh(&e));
        let sealed = v.seal_fingerprint(&ann, b"marks").unwrap();
        assert_eq!(&*v.unseal_fingerprint(&ann, &sealed).unwrap(), b"marks");
        assert!(v.unseal_fingerprint(&bob, &sealed).is_err());
        assert!(v.unseal_template(&ann, "", &sealed).is_err());
        assert_ne!(v.fingerprint_key(&ann), v.fingerprint_key(&bob));
        assert_ne!(v.fingerprint_key(&ann), vault(2).fingerprint_key(&ann));
    }

    #[test]
    fn digests_depend_on_key_and_purpose() {
        let pan = Pan::parse("4111111111111111").unwrap();
        assert_eq!(vault(1).digest_card(&pan), vault(1).digest_card(&pan));
        assert_ne!(vault(1).digest_card(&pan), vault(2).digest_card(&pan));
        assert_ne!(vault(1).digest_card(&pan), vault(1).digest_invite_code(&pan.ascii()));
    }

    #[test]
    fn a_wrong_master_key_is_told_at_once_and_none_is_made_over_sealed_data() {
        let dir = tempfile::tempdir().unwrap();
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(5));
        let cfg = VaultConfig { master_key_file: dir.path().join("keys/master.key") };
        let check = vault(1).key_check();
        assert!(matches!(Vault::open(&cfg, Some(&check), entropy.clone()), Err(VaultError::Missing(_))));
        assert!(!cfg.master_key_file.exists());
        let made = Vault::open(&cfg, None, entropy.clone()).unwrap();
        assert_eq!(Vault::open(&cfg, Some(&made.key_check()), entropy.clone()).unwrap().key_check(), made.key_check());
        assert!(matches!(Vault::open(&cfg, Some(&check), entropy.clone()), Err(VaultError::WrongKey)));
        std::fs::write(&cfg.master_key_file, "not a key").unwrap();
        assert!(matches!(Vault::open(&cfg, None, entropy), Err(VaultError::Malformed(_))));
    }

    #[cfg(unix)]
    #[test]
    fn the_key_file_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(5));
        let cfg = VaultConfig { master_key_file: dir.path().join("master.key") };
        Vault::open(&cfg, None, entropy.clone()).unwrap();
        let mode = std::fs::metadata(&cfg.master_key_file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&cfg.master_key_file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Vault::open(&cfg, None, entropy), Err(VaultError::Permissions(_))));
    }
}
