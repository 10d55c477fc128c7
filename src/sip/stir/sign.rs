//! Making an Identity header: the authentication service of RFC 8224 section 6.1, as little of it as our softphone and tests
//! need.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::passport::Attest;
use super::url::HttpsUrl;
use crate::clock::Timestamp;
use crate::e164::E164;
use crate::sip::identity::user_of_uri;

/// A key with the place of its certificate.
pub struct Signer {
    key: EcdsaKeyPair,
    x5u: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.x5u)
    }
}

/// Why nothing can be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Another kind of key, or none.
    #[error(
        "the signing key must be a PKCS#8 key on P-256 in PEM (openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256)"
    )]
    Key,
    /// A certificate's place that nobody may fetch from.
    #[error("`{0}` is no https URL of a certificate")]
    CertificateUrl(String),
    /// Only telephone numbers can be signed for.
    #[error("`{0}` is no telephone number with its country: only such a caller can be signed for")]
    Caller(String),
    /// The generator of randomness failed.
    #[error("nothing could be signed")]
    Failed,
}

/// Whom a call is made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee<'a> {
    /// A telephone number, digits only.
    Number(&'a str),
    /// A URI.
    Uri(&'a str),
}

impl Signer {
    /// From a key in PEM (PKCS#8) and the URL of its certificate chain.
    pub fn from_pem(key: &[u8], x5u: &str) -> Result<Self, SignError> {
        if HttpsUrl::parse(x5u).is_none() {
            return Err(SignError::CertificateUrl(x5u.chars().take(200).collect()));
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(key).map_err(|_| SignError::Key)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &SystemRandom::new())
            .map_err(|_| SignError::Key)?;
        Ok(Self { key, x5u: x5u.to_owned() })
    }

    /// The value of an Identity header for a call made now. `orig_tn`: digits only. `origid`: random bytes.
    pub fn identity(
        &self,
        orig_tn: &str,
        callee: Callee<'_>,
        attest: Attest,
        now: Timestamp,
        origid: [u8; 16],
    ) -> Result<String, SignError> {
        let attest = match attest {
            Attest::A => "A",
            Attest::B => "B",
            Attest::C => "C",
        };
        let dest = match callee {
            Callee::Number(tn) => serde_json::json!({ "tn": [tn] }),
            Callee::Uri(uri) => serde_json::json!({ "uri": [uri] }),
        };
        // serde_json writes members in alphabetical order without blanks: RFC 8225 section 9's canonical form.
        let header = serde_json::json!({ "alg": "ES256", "ppt": "shaken", "typ": "passport", "x5u": self.x5u });
        let claims = serde_json::json!({
            "attest": attest,
            "dest": dest,
            "iat": now.0.div_euclid(1_000),
            "orig": { "tn": orig_tn },
            "origid": uuid(origid),
        });
        Ok(format!("{};info=<{}>;alg=ES256;ppt=shaken", self.token(&header.to_string(), &claims.to_string())?, self.x5u))
    }

    /// The same, from the numbers as they are written: `from` with its country (`+44 …`), `target` a SIP URI whose user part may
    /// be a number too.
    pub fn identity_for(
        &self,
        from: &str,
        target: &str,
        attest: Attest,
        now: Timestamp,
        origid: [u8; 16],
    ) -> Result<String, SignError> {
        let number = |text: &str| E164::normalise(text, "").ok().and_then(|n| n.as_str().strip_prefix('+').map(str::to_owned));
        let orig = number(from).ok_or_else(|| SignError::Caller(from.chars().take(40).collect()))?;
        match user_of_uri(target).and_then(|user| number(&user)) {
            Some(dest) => self.identity(&orig, Callee::Number(&dest), attest, now, origid),
            None => self.identity(&orig, Callee::Uri(target), attest, now, origid),
        }
    }

    /// Signs whatever it is given: tests tamper.
    pub(super) fn token(&self, header: &str, claims: &str) -> Result<String, SignError> {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| SignError::Failed)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// A random UUID (RFC 9562 section 5.4).
fn uuid(mut bytes: [u8; 16]) -> String {
    let [.., version, _, variant, _, _, _, _, _, _, _] = &mut bytes;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or("");
    format!("{}-{}-{}-{}-{}", part(0..8), part(8..12), part(12..16), part(16..20), part(20..32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origid_is_a_random_uuid() {
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn what_is_no_key_or_no_url_is_refused_without_showing_it() {
        assert_eq!(Signer::from_pem(b"secret", "https://a/b").unwrap_err(), SignError::Key);
        assert!(matches!(Signer::from_pem(b"secret", "http://a/b"), Err(SignError::CertificateUrl(_))));
    }
}
