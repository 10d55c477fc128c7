//! Keys that sign: Ed25519 (RFC 8032), one chain of versions a purpose. A seed is derived, like every other key of a purpose, so
//! no row holds one, not even sealed, and signatures outlive the master key's rotation. Which versions there are, and their
//! public keys, the database remembers (`store::signing`).

use std::fmt;

use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Vault, VaultError, hmac};

/// What a key signs. A signature for one purpose is never good for another: each has keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SigningPurpose {
    /// Checkpoints of the audit log.
    Checkpoints,
    /// Receipts.
    Receipts,
    /// Instructions to a bank.
    Instructions,
}

impl SigningPurpose {
    /// Every purpose.
    pub const ALL: [Self; 3] = [Self::Checkpoints, Self::Receipts, Self::Instructions];

    /// As a row stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoints => "checkpoints",
            Self::Receipts => "receipts",
            Self::Instructions => "instructions",
        }
    }

    /// Back from a row or a command line.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.as_str() == text)
    }
}

impl fmt::Display for SigningPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key that signs. Never prints its private half.
pub struct SigningKey {
    purpose: SigningPurpose,
    version: u32,
    public: [u8; 32],
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// What it signs.
    pub fn purpose(&self) -> SigningPurpose {
        self.purpose
    }

    /// Which one of its purpose, from 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Its public half.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Signs a message. The same message gives the same signature.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.iter_mut().zip(self.pair.sign(message).as_ref()).for_each(|(to, from)| *to = *from);
        out
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, version {})", self.purpose, self.version)
    }
}

impl Vault {
    /// The key of a purpose in one of its versions: always the same one.
    pub fn signing_key(&self, purpose: SigningPurpose, version: u32) -> Result<SigningKey, VaultError> {
        let seed = Zeroizing::new(hmac(self.signing_root(), &[purpose.as_str().as_bytes(), &[0], &version.to_be_bytes()]));
        // Any 32 bytes are a seed, so this fails only if the library does.
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| VaultError::Broken("signing key"))?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| VaultError::Broken("signing key"))?;
        Ok(SigningKey { purpose, version, public, pair })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;
    use crate::clock::SeededEntropy;

    #[test]
    fn each_purpose_and_version_has_a_key_of_its_own_and_keeps_it() {
        let vault = |master| Vault::from_master(&[master; 32], Arc::new(SeededEntropy::new(1)));
        let key = vault(1).signing_key(SigningPurpose::Receipts, 1).unwrap();
        UnparsedPublicKey::new(&ED25519, key.public()).verify(b"paid", &key.sign(b"paid")).unwrap();
        assert_eq!(vault(1).signing_key(SigningPurpose::Receipts, 1).unwrap().public(), key.public());
        let others = [
            vault(1).signing_key(SigningPurpose::Receipts, 2),
            vault(1).signing_key(SigningPurpose::Checkpoints, 1),
            vault(2).signing_key(SigningPurpose::Receipts, 1),
        ];
        assert!(others.into_iter().all(|other| other.unwrap().public() != key.public()));
        assert_eq!(format!("{key:?}"), "SigningKey(receipts, version 1)");
    }
}
