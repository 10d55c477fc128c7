//! Signatures of Standard Webhooks (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md):
//! over `id.timestamp.body`, by HMAC-SHA256 (`v1`) or Ed25519 (`v1a`), several in one header while a key is being exchanged.
//! Takes the time; does no I/O.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Mac;

use crate::clock::Timestamp;
use crate::ledger::keys::PublicKey;
use crate::listen::{Skew, fresh, unix_seconds};
use crate::payment::pairing::MessageId;
use crate::secret::SecretBytes;
pub use crate::signed::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use crate::signed::{content, mac};
use crate::vault::SigningKey;

/// A signature may be so much older or newer than our clock, in seconds: what the specification's own libraries take.
const TOLERANCE_S: u64 = 300;
/// A header names no more signatures than this: one for each key while keys are being exchanged, in both schemes.
const SIGNATURES_LIMIT: usize = 8;
/// A header is no longer than this.
const HEADER_LIMIT_BYTES: usize = 1_024;

/// Why a message is not believed. None of these tells a forger which key was nearly right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forged {
    /// A header is missing, stands twice, or is not what it should be.
    #[error("the header {0} is missing, stands there twice, or is malformed")]
    Header(&'static str),
    /// Of another key, or over another content.
    #[error("no signature in {SIGNATURE_HEADER} fits the message and one of the bank's keys")]
    NoneFits,
    /// Too old or too new.
    #[error(transparent)]
    Skew(#[from] Skew),
}

/// The three headers of a message, as they came; `None` where one is missing or stands there twice.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    /// [`ID_HEADER`].
    pub id: Option<&'a str>,
    /// [`TIMESTAMP_HEADER`].
    pub timestamp: Option<&'a str>,
    /// [`SIGNATURE_HEADER`].
    pub signature: Option<&'a str>,
}

/// What the bank signs with: any of these is good.
#[derive(Debug, Default)]
pub struct BankKeys {
    secrets: Vec<SecretBytes>,
    public: Vec<PublicKey>,
}

impl BankKeys {
    /// Shared secrets and public keys; without either nothing is believed.
    pub fn new(secrets: Vec<SecretBytes>, public: impl IntoIterator<Item = [u8; 32]>) -> Self {
        Self { secrets, public: public.into_iter().map(PublicKey::new).collect() }
    }

    /// Checks a message and gives its identifier. The signature goes before the time: only who holds a key learns anything about
    /// our clock.
    pub fn check(&self, headers: Headers<'_>, body: &[u8], now: Timestamp) -> Result<MessageId, Forged> {
        let id: MessageId = headers.id.and_then(|id| id.parse().ok()).ok_or(Forged::Header(ID_HEADER))?;
        let at = headers.timestamp.ok_or(Forged::Header(TIMESTAMP_HEADER))?;
        let seconds = unix_seconds(at).ok_or(Forged::Header(TIMESTAMP_HEADER))?;
        let all = headers.signature.filter(|s| s.len() <= HEADER_LIMIT_BYTES).ok_or(Forged::Header(SIGNATURE_HEADER))?;
        let content = content(id.as_str(), at, body);
        let fits = all.split_ascii_whitespace().take(SIGNATURES_LIMIT).any(|one| self.fits(one, &content));
        if !fits {
            return Err(Forged::NoneFits);
        }
        fresh(seconds, now, Duration::from_secs(TOLERANCE_S))?;
        Ok(id)
    }

    fn fits(&self, signature: &str, content: &[u8]) -> bool {
        let Some((scheme, value)) = signature.split_once(',') else { return false };
        let Ok(value) = STANDARD.decode(value) else { return false };
        match scheme {
            // The comparison takes as long whatever differs.
            "v1" => self.secrets.iter().any(|s| mac(s, content).is_some_and(|mac| mac.verify_slice(&value).is_ok())),
            "v1a" => self.public.iter().any(|key| key.verifies(content, &value)),
            // Schemes to come prove nothing to us.
            _ => false,
        }
    }
}

/// The header [`SIGNATURE_HEADER`] over our own message, by Ed25519.
pub fn sign(key: &SigningKey, id: &str, seconds: i64, body: &[u8]) -> String {
    format!("v1a,{}", STANDARD.encode(key.sign(&content(id, &seconds.to_string(), body))))
}

/// A shared secret's signature, as a bank makes it.
#[cfg(test)]
pub(super) fn sign_shared(secret: &[u8], id: &str, seconds: i64, body: &[u8]) -> String {
    crate::signed::sign_shared(&SecretBytes::new(secret.to_vec()), id, seconds, body).unwrap()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::SeededEntropy;
    use crate::vault::{SigningPurpose, Vault};

    const SECONDS: i64 = 1_614_265_330;
    const NOW: Timestamp = Timestamp(SECONDS * 1000);
    const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    /// The specification's own libraries are tested with it.
    const KNOWN: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn headers<'a>(id: &'a str, at: &'a str, signature: &'a str) -> Headers<'a> {
        Headers { id: Some(id), timestamp: Some(at), signature: Some(signature) }
    }

    fn secret() -> Vec<u8> {
        STANDARD.decode(SECRET).unwrap()
    }

    fn keys() -> BankKeys {
        BankKeys::new(vec![SecretBytes::new(secret())], [])
    }

    /// What the keys say of a message under [`ID`].
    fn judge(keys: &BankKeys, at: &str, signature: &str, body: &[u8]) -> Result<(), Forged> {
        keys.check(headers(ID, at, signature), body, NOW).map(|id| assert_eq!(id.as_str(), ID))
    }

    fn check(signature: &str, body: &[u8]) -> Result<(), Forged> {
        judge(&keys(), "1614265330", signature, body)
    }

    #[test]
    fn it_agrees_with_a_signature_that_others_made() {
        assert_eq!(check(KNOWN, BODY), Ok(()));
        assert_eq!(sign_shared(&secret(), ID, SECONDS, BODY), KNOWN);
    }

    #[test]
    fn ours_can_be_checked_with_the_public_key_alone() {
        let vault = Vault::from_master(&[7; 32], Arc::new(SeededEntropy::new(1)));
        let key = vault.signing_key(SigningPurpose::Instructions, 1).unwrap();
        let theirs = BankKeys::new(vec![], [*key.public()]);
        let header = sign(&key, ID, SECONDS, BODY);
        assert_eq!(judge(&theirs, "1614265330", &header, BODY), Ok(()));
        assert_eq!(judge(&theirs, "1614265331", &header, BODY), Err(Forged::NoneFits));
        let other = theirs.check(headers("msg_other", "1614265330", &header), BODY, NOW);
        assert_eq!(other, Err(Forged::NoneFits));
        assert_eq!(check(&header.replace("v1a,", "v1,"), BODY), Err(Forged::NoneFits), "no scheme stands in for the other");
    }

    #[test]
    fn any_signature_under_any_of_the_keys_will_do() {
        let rotated = BankKeys::new(vec![SecretBytes::new(secret()), SecretBytes::new(vec![2; 32])], []);
        let new = sign_shared(&[2; 32], ID, SECONDS, BODY);
        for header in [KNOWN.to_owned(), new.clone(), format!("v1,AAAA {new}"), format!("v9,x {KNOWN} {new}")] {
            assert_eq!(judge(&rotated, "1614265330", &header, BODY), Ok(()), "{header}");
        }
        assert_eq!(check(&new, BODY), Err(Forged::NoneFits), "not in force here");
        assert_eq!(judge(&BankKeys::default(), "1614265330", KNOWN, BODY), Err(Forged::NoneFits));
        assert!(!format!("{:?}", keys()).contains("49"), "a secret does not print");
    }

    #[test]
    fn time_is_held_to_five_minutes_on_both_sides_and_only_after_the_signature() {
        let at = |seconds: i64| {
            let header = sign_shared(&secret(), ID, seconds, BODY);
            judge(&keys(), &seconds.to_string(), &header, BODY)
        };
        assert_eq!((at(SECONDS - 300), at(SECONDS + 300)), (Ok(()), Ok(())));
        assert_eq!(at(SECONDS - 301), Err(Forged::Skew(Skew::Stale)));
        assert_eq!(at(SECONDS + 301), Err(Forged::Skew(Skew::Future)));
        assert_eq!(at(i64::MAX), Err(Forged::Skew(Skew::Future)));
        assert_eq!(judge(&keys(), "1", KNOWN, BODY), Err(Forged::NoneFits));
    }

    #[test]
    fn what_is_missing_malformed_or_changed_is_refused() {
        let whole = headers(ID, "1614265330", KNOWN);
        let missing = [
            (Headers { id: None, ..whole }, ID_HEADER),
            (headers("msg.1", "1614265330", KNOWN), ID_HEADER),
            (headers("", "1614265330", KNOWN), ID_HEADER),
            (Headers { timestamp: None, ..whole }, TIMESTAMP_HEADER),
            (headers(ID, "-1614265330", KNOWN), TIMESTAMP_HEADER),
            (headers(ID, "1614265330.5", KNOWN), TIMESTAMP_HEADER),
            (headers(ID, "99999999999999999999", KNOWN), TIMESTAMP_HEADER),
            (Headers { signature: None, ..whole }, SIGNATURE_HEADER),
        ];
        for (bad, header) in missing {
            assert_eq!(keys().check(bad, BODY, NOW), Err(Forged::Header(header)), "{bad:?}");
        }
        let long = "v1,AAAA ".repeat(200);
        assert_eq!(check(&long, BODY), Err(Forged::Header(SIGNATURE_HEADER)));
        let late = format!("{}{KNOWN}", "v1,AAAA ".repeat(SIGNATURES_LIMIT));
        for bad in ["", "v1", "v1,", "v1,g0hM9SsE", &KNOWN[3..], &late] {
            assert_eq!(check(bad, BODY), Err(Forged::NoneFits), "{bad}");
        }
        assert_eq!(check(KNOWN, br#"{"test": 2432232315}"#), Err(Forged::NoneFits));
    }

    proptest! {
        #[test]
        fn one_changed_bit_is_noticed(body in proptest::collection::vec(any::<u8>(), 1..200), at in 0usize..200, bit in 0u8..8) {
            let header = sign_shared(&secret(), ID, SECONDS, &body);
            prop_assert_eq!(check(&header, &body), Ok(()));
            let mut changed = body.clone();
            let at = at % changed.len();
            changed[at] ^= 1 << bit;
            prop_assert_eq!(check(&header, &changed), Err(Forged::NoneFits));
        }

        #[test]
        fn no_other_header_passes(header in "[v1a,= A-Za-z0-9+/]{0,200}") {
            prop_assert!(check(&header, BODY).is_err());
        }
    }
}
