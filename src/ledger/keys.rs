//! PURE. Public keys: how people hand them on, and what a signature under one is worth. Ed25519 (RFC 8032) throughout.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};
use sha2::{Digest, Sha256};

/// How many bytes a public key has.
pub const PUBLIC_KEY_BYTES: usize = 32;
/// How many bytes a signature has.
pub const SIGNATURE_BYTES: usize = 64;
/// The longest text that is read as keys, in bytes: a few dozen PEM blocks.
pub const KEYS_TEXT_LIMIT_BYTES: usize = 64 * 1024;

/// What stands before the 32 bytes in a `SubjectPublicKeyInfo` of an Ed25519 key (RFC 8410 §4), DER.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";
/// The signed-note signature type of Ed25519 (C2SP signed-note, "Signature types").
const NOTE_TYPE_ED25519: u8 = 0x01;

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; PUBLIC_KEY_BYTES]);

impl PublicKey {
    /// From its 32 bytes (RFC 8032 §5.1.5).
    pub fn new(bytes: [u8; PUBLIC_KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.0
    }

    /// Every key in a text: PEM blocks, or one key in base64 of its 32 bytes, or one in the form of a signed note's verifier
    /// (`name+hash+base64`).
    pub fn parse_all(text: &str) -> Result<Vec<Self>, KeyError> {
        if text.len() > KEYS_TEXT_LIMIT_BYTES {
            return Err(KeyError::TooLong);
        }
        if !text.contains(PEM_BEGIN) {
            return Self::parse_line(text.trim()).map(|key| vec![key]);
        }
        let mut keys = Vec::new();
        for block in text.split(PEM_BEGIN).skip(1) {
            let (body, _) = block.split_once(PEM_END).ok_or(KeyError::Malformed)?;
            let body: String = body.split_whitespace().collect();
            let der = STANDARD.decode(body).map_err(|_| KeyError::Malformed)?;
            let key = der.strip_prefix(&SPKI_PREFIX).ok_or(KeyError::OtherKind)?;
            keys.push(Self(key.try_into().map_err(|_| KeyError::Malformed)?));
        }
        Ok(keys)
    }

    fn parse_line(text: &str) -> Result<Self, KeyError> {
        // A name may not contain a plus sign, base64 may: so from the left.
        let mut parts = text.splitn(3, '+');
        if let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next())
            && let Ok(hash) = u32::from_str_radix(hash, 16)
        {
            let bytes = STANDARD.decode(key).map_err(|_| KeyError::Malformed)?;
            let bytes = bytes.strip_prefix(&[NOTE_TYPE_ED25519]).ok_or(KeyError::OtherKind)?;
            let key = Self(bytes.try_into().map_err(|_| KeyError::Malformed)?);
            return if key.note_id(name) == hash.to_be_bytes() { Ok(key) } else { Err(KeyError::Malformed) };
        }
        let bytes = STANDARD.decode(text).map_err(|_| KeyError::Malformed)?;
        Ok(Self(bytes.as_slice().try_into().map_err(|_| KeyError::Malformed)?))
    }

    /// As a PEM file (RFC 7468 §13).
    pub fn to_pem(&self) -> String {
        let der = [SPKI_PREFIX.as_slice(), &self.0].concat();
        format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(der))
    }

    /// The 32 bytes in base64 (RFC 4648 §4).
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// Its name in our documents: the first eight bytes of its SHA-256, in hex. Tells keys apart; proves nothing.
    pub fn id(&self) -> String {
        let digest = Sha256::digest(self.0);
        hex::encode(digest.get(..8).unwrap_or_default())
    }

    /// The key's short identifier in a signed note of `name`.
    pub fn note_id(&self, name: &str) -> [u8; 4] {
        let digest = Sha256::new().chain_update(name).chain_update([b'\n', NOTE_TYPE_ED25519]).chain_update(self.0).finalize();
        let mut id = [0; 4];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        id
    }

    /// The key as verifiers of signed notes take it: `name+hash+base64`.
    pub fn to_note_verifier(&self, name: &str) -> String {
        let key = [&[NOTE_TYPE_ED25519], self.0.as_slice()].concat();
        format!("{name}+{}+{}", hex::encode(self.note_id(name)), STANDARD.encode(key))
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.to_base64())
    }
}

/// Why a text is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Larger than any list of keys.
    #[error("this is no file of public keys: it is larger than {KEYS_TEXT_LIMIT_BYTES} bytes")]
    TooLong,
    /// Not one of the forms.
    #[error("this is no Ed25519 public key: give a PEM file (`-----BEGIN PUBLIC KEY-----`) or its 32 bytes in base64")]
    Malformed,
    /// Another algorithm's.
    #[error("this public key is of another kind: only Ed25519 keys sign here")]
    OtherKind,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410 §10.1, the public key of the examples.
    const RFC_8410: &str =
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn a_key_reads_back_from_each_of_its_forms() {
        let key = PublicKey::parse_all(RFC_8410).unwrap()[0];
        assert_eq!(key.to_pem(), RFC_8410);
        assert_eq!(key.to_base64(), "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
        for form in [key.to_base64(), key.to_note_verifier("example.com/log"), format!("a key:\n{RFC_8410}")] {
            assert_eq!(PublicKey::parse_all(&form).unwrap(), [key]);
        }
        assert_eq!(PublicKey::parse_all(&RFC_8410.repeat(2)).unwrap().len(), 2);
        for bad in
            ["", "Gb9E", "example.com/log+00000000+AQ==", &RFC_8410.replace("MCow", "MCox"), &RFC_8410.replace("-----END", "")]
        {
            assert!(PublicKey::parse_all(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_verifier_of_a_signed_note_is_as_others_write_it() {
        // The example of C2SP's signed notes, made by another program.
        let verifier = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        let key = PublicKey::parse_all(verifier).unwrap()[0];
        assert_eq!(key.to_note_verifier("example.com/foo"), verifier);
        let signature = STANDARD
            .decode("Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=")
            .unwrap();
        assert_eq!(signature[..4], key.note_id("example.com/foo"));
        assert!(key.verifies(b"This is an example message.\n", &signature[4..]));
        assert!(!key.verifies(b"This is an example message!\n", &signature[4..]));
    }
}
