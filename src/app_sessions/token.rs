//! What opens an app session: its token, `aps_….` and 32 random bytes in base64url; and the name of the place where its call is. Both never print,
//! and of both a keyed digest is kept.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::clock::Entropy;
use crate::ids::AppSessionId;
use crate::payment::AppSecret;
use crate::vault::{ApiPurpose, Vault};

/// 32 bytes in base64 without padding.
const SECRET_CHARS: usize = 43;

fn drawn(entropy: &dyn Entropy) -> Zeroizing<String> {
    let bytes = Zeroizing::new(entropy.bytes::<32>());
    Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()))
}

fn is_secret(text: &str) -> bool {
    text.len() == SECRET_CHARS && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// A token in hand. It names its session, so that finding that costs one look-up by its key.
pub struct AppToken {
    session: AppSessionId,
    text: Zeroizing<String>,
}

impl fmt::Debug for AppToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppToken({}, …)", self.session)
    }
}

impl AppToken {
    /// A fresh one.
    pub fn fresh(session: &AppSessionId, entropy: &dyn Entropy) -> Self {
        Self { session: session.clone(), text: Zeroizing::new(format!("{session}.{}", drawn(entropy).as_str())) }
    }

    /// One that somebody shows; `None` for what can't be one, so that it costs no look-up.
    pub fn parse(text: &str) -> Option<Self> {
        let (session, secret) = text.split_once('.')?;
        let session = AppSessionId::parse(session).ok()?;
        is_secret(secret).then(|| Self { session, text: Zeroizing::new(text.to_owned()) })
    }

    /// The session that it is for, if it is good.
    pub fn session(&self) -> &AppSessionId {
        &self.session
    }

    /// The token itself, for whoever it is made for.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// What is kept of it.
    pub fn kept(&self, vault: &Vault) -> AppSecret {
        AppSecret::of(&vault.api_digest(ApiPurpose::AppToken, &[self.text.as_bytes()]))
    }
}

/// The name of the place where a session's call is: a capability of its own.
pub struct CallPlace(Zeroizing<String>);

impl fmt::Debug for CallPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallPlace(…)")
    }
}

impl CallPlace {
    /// A fresh one.
    pub fn fresh(entropy: &dyn Entropy) -> Self {
        Self(drawn(entropy))
    }

    /// One that stands in a path.
    pub fn parse(text: &str) -> Option<Self> {
        is_secret(text).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The name itself, for the page.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn kept(&self, vault: &Vault) -> AppSecret {
        AppSecret::of(&vault.api_digest(ApiPurpose::AppPlace, &[self.0.as_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SeededEntropy;

    #[test]
    fn what_is_made_is_read_back_does_not_print_and_is_known_by_its_digest() {
        let entropy = Arc::new(SeededEntropy::new(3));
        let vault = Vault::from_master(&[7; 32], entropy.clone());
        let id = AppSessionId::fresh(&*entropy);
        let token = AppToken::fresh(&id, &*entropy);
        let read = AppToken::parse(token.reveal()).unwrap();
        assert_eq!((read.session(), read.reveal()), (&id, token.reveal()));
        assert!(read.kept(&vault).is(&token.kept(&vault)));
        assert!(!AppToken::fresh(&id, &*entropy).kept(&vault).is(&token.kept(&vault)));
        let secret = token.reveal().split_once('.').unwrap().1;
        assert!(!format!("{token:?}").contains(secret));
        let place = CallPlace::parse(secret).unwrap();
        assert!(!place.kept(&vault).is(&token.kept(&vault)) && !format!("{place:?}").contains(secret));
        for wrong in ["", ".", secret, id.as_str(), &format!("{id}.{secret}x"), &format!("{id}."), &format!("cus_1.{secret}")] {
            assert!(AppToken::parse(wrong).is_none(), "{wrong}");
        }
    }
}
