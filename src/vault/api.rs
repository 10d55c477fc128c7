//! What the API needs keys for: digests of its own keys and of what was asked, signed cursors, and answers that are kept for a day.

use zeroize::Zeroizing;

use super::keys::DataKey;
use super::sealed::{self, Aad, FORMAT_DATA_KEY};
use super::{Vault, VaultError, hmac};

/// For what a key of the API's root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiPurpose {
    /// Digests of keys.
    Key,
    /// Digests of what was asked with an idempotency key; a body may hold a card number, which no plain hash would hide.
    Request,
    /// What makes a cursor ours.
    Cursor,
    /// Identifiers of what is made on an idempotency key: the same again when it is asked again.
    Made,
    /// Digests of tokens of app sessions.
    AppToken,
    /// Digests of the names of the places where their calls are.
    AppPlace,
}

impl ApiPurpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Key => b"key",
            Self::Request => b"request",
            Self::Cursor => b"cursor",
            Self::Made => b"made",
            Self::AppToken => b"app token",
            Self::AppPlace => b"app place",
        }
    }
}

const ANSWER: &str = "api answer";

impl Vault {
    /// A keyed digest of `parts`, each with its length before it, for one purpose.
    pub fn api_digest(&self, purpose: ApiPurpose, parts: &[&[u8]]) -> [u8; 32] {
        let key = Zeroizing::new(hmac(&self.inner.keys.api, &[purpose.label()]));
        let mut text = Zeroizing::new(Vec::new());
        for part in parts {
            text.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            text.extend_from_slice(part);
        }
        hmac(key.as_slice(), &[text.as_slice()])
    }

    /// Seals an answer for the API key and idempotency key that it was given to.
    pub fn seal_answer(&self, api_key: &str, key: &str, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let aad = Aad::new(ANSWER, &[api_key, key], u16::from(FORMAT_DATA_KEY));
        sealed::seal(self.answer_key().bytes(), aad.bytes(), plain, &*self.inner.entropy).ok_or(VaultError::Broken(ANSWER))
    }

    /// Opens it; fails unless it was sealed for these two.
    pub fn open_answer(&self, api_key: &str, key: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let aad = Aad::new(ANSWER, &[api_key, key], u16::from(FORMAT_DATA_KEY));
        sealed::open(self.answer_key().bytes(), aad.bytes(), sealed).ok_or(VaultError::Broken(ANSWER))
    }

    fn answer_key(&self) -> DataKey {
        DataKey::new(hmac(&self.inner.keys.api, &[b"answer"]))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SeededEntropy;

    #[test]
    fn an_answer_opens_only_where_it_was_given_and_digests_know_their_purpose_and_parts() {
        let vault = Vault::from_master(&[7; 32], Arc::new(SeededEntropy::new(1)));
        let sealed = vault.seal_answer("key_1", "a", b"code 12345678").unwrap();
        assert!(!sealed.windows(8).any(|w| w == b"12345678"));
        assert_eq!(vault.open_answer("key_1", "a", &sealed).unwrap().as_slice(), b"code 12345678");
        assert!(vault.open_answer("key_2", "a", &sealed).is_err());
        assert!(vault.open_answer("key_1", "b", &sealed).is_err());
        let digest = |purpose, parts: &[&[u8]]| vault.api_digest(purpose, parts);
        assert_ne!(digest(ApiPurpose::Key, &[b"a"]), digest(ApiPurpose::Cursor, &[b"a"]));
        assert_ne!(digest(ApiPurpose::Key, &[b"a", b"bc"]), digest(ApiPurpose::Key, &[b"ab", b"c"]));
        assert_eq!(digest(ApiPurpose::Key, &[b"a"]), digest(ApiPurpose::Key, &[b"a"]));
    }
}
