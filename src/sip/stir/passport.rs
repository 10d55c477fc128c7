//! The signed statement, a PASSporT (RFC 8225) of the kind `shaken` (RFC 8588): a JWS (RFC 7515) in its compact serialisation,
//! signed with ES256. Read strictly: what is not understood is not guessed at. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::Deserialize;

use super::Invalid;
use crate::media::leg::AttestationFault::{Algorithm, Malformed, Signature};

/// An uncompressed point on P-256: 4, x, y.
pub const PUBLIC_KEY_BYTES: usize = 65;
/// ES256 (RFC 7518 section 3.4): r and s, 32 bytes each.
const SIGNATURE_BYTES: usize = 64;
/// Called numbers and URIs of one statement; a conference may have several.
const DESTINATION_LIMIT: usize = 32;
/// `origid` is a UUID (RFC 8588 section 5): 36 characters as they are usually written.
const ORIGID_LIMIT_BYTES: usize = 64;

/// What the originating provider says of the caller (RFC 8588 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Attest {
    /// It knows the caller and their right to the number.
    A,
    /// It knows the caller.
    B,
    /// It knows where the call came in.
    C,
}

/// Whom the call was made to, as it was signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Destination {
    /// Telephone numbers, digits only.
    #[serde(default)]
    pub tn: Vec<String>,
    /// URIs.
    #[serde(default)]
    pub uri: Vec<String>,
}

/// The claims of a `shaken` PASSporT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The level.
    pub attest: Attest,
    /// Whom it was made to.
    pub dest: Destination,
    /// When it was signed, in seconds since 1970.
    pub iat_s: i64,
    /// The calling number, digits only.
    pub orig_tn: String,
    /// The provider's own name for where the call came from, for tracing it back.
    pub origid: String,
}

/// A PASSporT whose signature nobody has looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passport {
    /// Where its certificate is.
    pub x5u: String,
    /// What it says.
    pub claims: Claims,
    signed: String,
    signature: [u8; SIGNATURE_BYTES],
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: String,
    ppt: Option<String>,
    x5u: Option<String>,
    // Members that must be understood (RFC 7515 section 4.1.11). We understand none.
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Payload {
    attest: Attest,
    dest: Destination,
    iat: i64,
    orig: Origin,
    origid: String,
}

#[derive(Deserialize)]
struct Origin {
    tn: String,
}

/// Which kind of PASSporT a token says it is; `None` where it can't be told or is no extension. Nothing else is looked at, so
/// that the kinds that we don't know can be passed over (RFC 8224 section 6.2).
pub fn kind(token: &str) -> Option<String> {
    let header = token.split('.').next()?;
    serde_json::from_slice::<Header>(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?.ppt
}

/// Whether it is a PASSporT without an extension (RFC 8225): sound, but it says nothing about how well the caller is known.
pub fn is_plain(token: &str) -> bool {
    let header = token.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let header = header.and_then(|bytes| serde_json::from_slice::<Header>(&bytes).ok());
    header.is_some_and(|h| h.typ == "passport" && h.ppt.is_none())
}

/// Decodes a token in its full form. RFC 8588 has no compact one: its claims can't be made anew from the request.
pub fn decode(token: &str) -> Result<Passport, Invalid> {
    let malformed = |why| Invalid::new(Malformed, why);
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(malformed("the PASSporT has not three parts"));
    };
    if header.is_empty() || payload.is_empty() {
        return Err(malformed("the PASSporT is in the compact form, which shaken does not have"));
    }
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed("a part of the PASSporT is no base64url"));
    let decoded: Header =
        serde_json::from_slice(&bytes(header)?).map_err(|_| malformed("the PASSporT's header is not what RFC 8225 asks for"))?;
    if decoded.alg != "ES256" {
        return Err(Invalid::new(Algorithm, "the PASSporT is not signed with ES256"));
    }
    if decoded.typ != "passport" {
        return Err(malformed("the token is no PASSporT"));
    }
    if decoded.ppt.as_deref() != Some("shaken") {
        return Err(malformed("the PASSporT is not of the kind shaken"));
    }
    if decoded.crit.is_some() {
        return Err(malformed("the PASSporT has critical members"));
    }
    let x5u = decoded.x5u.ok_or(malformed("the PASSporT does not say where its certificate is"))?;
    let Payload { attest, dest, iat, orig, origid } = serde_json::from_slice(&bytes(payload)?)
        .map_err(|_| malformed("the PASSporT's claims are not what RFC 8588 asks for"))?;
    if origid.is_empty() || origid.len() > ORIGID_LIMIT_BYTES || !origid.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(malformed("the PASSporT's origid is no UUID"));
    }
    if dest.tn.len().saturating_add(dest.uri.len()) > DESTINATION_LIMIT {
        return Err(malformed("the PASSporT has too many destinations"));
    }
    if !is_number(&orig.tn) || !dest.tn.iter().all(|tn| is_number(tn)) {
        return Err(malformed("a number in the PASSporT is not digits only"));
    }
    let signature: [u8; SIGNATURE_BYTES] =
        bytes(signature)?.try_into().map_err(|_| Invalid::new(Signature, "the PASSporT's signature has not 64 bytes"))?;
    let signed = token.get(..header.len().saturating_add(1).saturating_add(payload.len())).unwrap_or("").to_owned();
    Ok(Passport { x5u, claims: Claims { attest, dest, iat_s: iat, orig_tn: orig.tn, origid }, signed, signature })
}

/// RFC 8225 section 5.2.1: digits, without `+` and separators.
fn is_number(tn: &str) -> bool {
    (1..=15).contains(&tn.len()) && tn.bytes().all(|b| b.is_ascii_digit())
}

impl Passport {
    /// What was signed: the statement itself, of which there is one however often it is signed.
    pub fn signed(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    /// Is the signature this key's?
    pub fn check(&self, public_key: &[u8; PUBLIC_KEY_BYTES]) -> Result<(), Invalid> {
        signed_by(public_key, self.signed.as_bytes(), &self.signature)
    }
}

fn signed_by(public_key: &[u8; PUBLIC_KEY_BYTES], signed: &[u8], signature: &[u8]) -> Result<(), Invalid> {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public_key)
        .verify(signed, signature)
        .map_err(|_| Invalid::new(Signature, "the PASSporT's signature does not hold"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload), URL_SAFE_NO_PAD.encode([7; 64]))
    }

    // The example of RFC 8588, with its line breaks taken out.
    const HEADER: &str = r#"{"alg":"ES256","typ":"passport","ppt":"shaken","x5u":"https://cert.example.org/passport.cer"}"#;
    const CLAIMS: &str = r#"{"attest":"A","dest":{"tn":["12155550131"]},"iat":1443208345,"orig":{"tn":"12155550121"},"origid":"123e4567-e89b-12d3-a456-426655440000"}"#;

    #[test]
    fn the_example_of_rfc_8588_decodes() {
        let passport = decode(&token(HEADER, CLAIMS)).unwrap();
        assert_eq!(passport.x5u, "https://cert.example.org/passport.cer");
        let claims = passport.claims;
        assert_eq!((claims.attest, claims.iat_s, claims.orig_tn.as_str()), (Attest::A, 1_443_208_345, "12155550121"));
        assert_eq!(
            (claims.dest.tn, claims.origid.as_str()),
            (vec!["12155550131".to_owned()], "123e4567-e89b-12d3-a456-426655440000")
        );
        assert_eq!(kind(&token(HEADER, "")).as_deref(), Some("shaken"));
    }

    /// RFC 8225 appendix A. Its signature is of no use as a test: it holds under neither of the keys printed beside it.
    #[test]
    fn the_example_of_rfc_8225_is_no_passport_of_ours() {
        let example = "eyJhbGciOiJFUzI1NiIsInR5cCI6InBhc3Nwb3J0IiwieDV1IjoiaHR0cHM6Ly9jZXJ0LmV4YW1wbGUub3JnL3Bhc3Nwb3J0LmNlciJ9.\
                     eyJkZXN0Ijp7InVyaSI6WyJzaXA6YWxpY2VAZXhhbXBsZS5jb20iXX0sImlhdCI6MTQ3MTM3NTQxOCwib3JpZyI6eyJ0biI6IjEyMTU1NTUxMjEyIn19.\
                     VLBCIVDCaeK6M4hLJb6SHQvacAQVvoiiEOWQ_iUkqk79UD81fHQ0E1b3_GluIkba7UWYRM47ZbNFdOJquE35cw";
        assert_eq!((kind(example), is_plain(example)), (None, true));
        assert!(decode(example).unwrap_err().why.contains("shaken"));
        // What was signed there is what we would sign.
        let header = r#"{"alg":"ES256","typ":"passport","x5u":"https://cert.example.org/passport.cer"}"#;
        let claims = r#"{"dest":{"uri":["sip:alice@example.com"]},"iat":1471375418,"orig":{"tn":"12155551212"}}"#;
        assert_eq!(token(header, claims).rsplit_once('.').unwrap().0, example.rsplit_once('.').unwrap().0);
    }

    #[test]
    fn the_es256_signature_of_rfc_7515_appendix_a_3_holds_and_no_other_does() {
        let signed =
            "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        let (x, y) = ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let key: [u8; PUBLIC_KEY_BYTES] = [vec![4], bytes(x), bytes(y)].concat().try_into().unwrap();
        let signature = bytes(signature);
        assert!(signed_by(&key, signed.as_bytes(), &signature).is_ok());
        assert!(signed_by(&key, signed.to_lowercase().as_bytes(), &signature).is_err());
        for at in [0, 31, 32, 63] {
            let mut other = signature.clone();
            other[at] ^= 1;
            assert_eq!(signed_by(&key, signed.as_bytes(), &other).unwrap_err().fault, Signature);
        }
        assert!(signed_by(&key, signed.as_bytes(), &[0; 64]).is_err(), "r and s of nought");
    }

    #[test]
    fn whatever_is_not_a_shaken_passport_is_refused_and_the_reason_said() {
        let header = |from: &str, to: &str| token(&HEADER.replacen(from, to, 1), CLAIMS);
        let claims = |from: &str, to: &str| token(HEADER, &CLAIMS.replacen(from, to, 1));
        let many = format!("\"tn\":[{}\"1\"]", "\"12155550131\",".repeat(40));
        for (token, says) in [
            (header("ES256", "none"), "ES256"),
            (header("ES256", "HS256"), "ES256"),
            (header("ES256", "es256"), "ES256"),
            (header("ES256", "RS256"), "ES256"),
            (header("\"passport\"", "\"JWT\""), "no PASSporT"),
            (header("\"shaken\"", "\"div\""), "kind"),
            (header("\"ppt\":\"shaken\",", ""), "kind"),
            (header("\"typ\"", "\"crit\":[\"b64\"],\"typ\""), "critical"),
            (header("\"alg\"", "\"alg\":\"ES256\",\"alg\""), "header"),
            (header("\"x5u\"", "\"x6u\""), "where its certificate"),
            (claims("\"A\"", "\"D\""), "claims"),
            (claims("\"attest\":\"A\",", ""), "claims"),
            (claims("1443208345", "\"1443208345\""), "claims"),
            (claims("1443208345", "1e99"), "claims"),
            (claims("\"orig\"", "\"orig\":{\"tn\":\"1\"},\"orig\""), "claims"),
            (claims("\"12155550121\"", "[\"12155550121\"]"), "claims"),
            (claims("\"12155550121\"", "\"+12155550121\""), "digits"),
            (claims("\"12155550131\"", "\"1215555013a\""), "digits"),
            (claims("\"12155550131\"", "\"1234567890123456\""), "digits"),
            (claims("\"tn\":[\"12155550131\"]", &many), "destinations"),
            (claims("123e4567-e89b-12d3-a456-426655440000", ""), "origid"),
            (claims("123e4567-e89b-12d3-a456-426655440000", "a b"), "origid"),
            (claims("123e4567-e89b-12d3-a456-426655440000", &"a".repeat(65)), "origid"),
            (token(HEADER, "[]"), "claims"),
            ("a.b".to_owned(), "three parts"),
            ("a.b.c.d".to_owned(), "three parts"),
            ("..c2ln".to_owned(), "compact"),
            (format!("{}=", token(HEADER, CLAIMS)), "base64url"),
            (token(HEADER, CLAIMS).replacen('.', "=.", 1), "base64url"),
            (token(HEADER, CLAIMS).rsplit_once('.').unwrap().0.to_owned() + ".AAAA", "64 bytes"),
        ] {
            let error = decode(&token).unwrap_err();
            assert!(error.why.contains(says), "{says}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(a in "\\PC{0,80}", header in "\\PC{0,80}", payload in "\\PC{0,80}") {
            let _decoded = (decode(&a), kind(&a), decode(&token(&header, &payload)), decode(&token(HEADER, &payload)));
        }
    }
}
