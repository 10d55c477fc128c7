//! Keys of the API as people hold them: `vpk_` and 32 random bytes in base64url. We keep a keyed digest.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::clock::Entropy;
use crate::vault::{ApiPurpose, Vault};

const PREFIX: &str = "vpk_";
/// 32 bytes in base64 without padding.
const LENGTH: usize = PREFIX.len() + 43;

/// A key in hand. Never prints but by [`Key::reveal`].
pub struct Key(Zeroizing<String>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// A fresh one.
    pub fn fresh(entropy: &dyn Entropy) -> Self {
        let bytes = Zeroizing::new(entropy.bytes::<32>());
        Self(Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice()))))
    }

    /// One that somebody shows; `None` for what can't be one, so that it costs no look-up.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == LENGTH
            && text.starts_with(PREFIX)
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        fits.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The key itself, for whoever it is made for; once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn digest(&self, vault: &Vault) -> [u8; 32] {
        vault.api_digest(ApiPurpose::Key, &[self.0.as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    #[test]
    fn what_is_made_is_read_back_and_does_not_print() {
        let key = Key::fresh(&SeededEntropy::new(4));
        assert_eq!(Key::parse(key.reveal()).unwrap().reveal(), key.reveal());
        assert!(!format!("{key:?}").contains(&key.reveal()[6..]));
        for wrong in ["", "vpk_", &key.reveal()[1..], &format!("{}x", key.reveal()), &key.reveal().replace("vpk_", "vpk ")] {
            assert!(Key::parse(wrong).is_none(), "{wrong}");
        }
    }
}
