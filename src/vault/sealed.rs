//! AES-256-GCM envelopes (NIST SP 800-38D) with their associated data: sealed values under a data key, and data keys under a master key.
//!
//! A sealed value is `format ‖ nonce (12) ‖ ciphertext and tag (16)`; in format 1, which is only read any more, the key version (2 bytes, big
//! endian) stands after the format. A wrapped key has the shape of format 2.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use zeroize::Zeroizing;

use crate::clock::Entropy;

/// Sealed under one key for all rows, as it was before each card had a data key. Read, and sealed anew by rotation.
pub(super) const FORMAT_SHARED_KEY: u8 = 1;
/// Sealed under a data key of its own.
pub(super) const FORMAT_DATA_KEY: u8 = 2;
pub(super) const NONCE_BYTES: usize = 12;
/// The only version that format 1 was ever written with.
const SHARED_KEY_VERSION: u16 = 1;

/// What a sealed value is bound to: a purpose tag first, then the row's own identity, each with its length before it, then a number: the
/// key version of a wrapped key, the format of a sealed value.
pub(super) struct Aad(Vec<u8>);

impl Aad {
    pub(super) fn new(purpose: &str, parts: &[&str], number: u16) -> Self {
        let mut bytes = Vec::new();
        for part in std::iter::once(&purpose).chain(parts) {
            // Lengths beyond 32 bits can't occur; saturating keeps this total.
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes.extend_from_slice(&number.to_be_bytes());
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Seals in format 2; `None` only for a plaintext beyond what GCM takes.
pub(super) fn seal(key: &[u8; 32], aad: &[u8], plain: &[u8], entropy: &dyn Entropy) -> Option<Vec<u8>> {
    let nonce = entropy.bytes::<NONCE_BYTES>();
    let cipher = Aes256Gcm::new(key.into());
    let body = cipher.encrypt((&nonce).into(), Payload { msg: plain, aad }).ok()?;
    let mut out = Vec::with_capacity(1 + NONCE_BYTES + body.len());
    out.push(FORMAT_DATA_KEY);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&body);
    Some(out)
}

/// Opens format 2; `None` if anything at all is not as it was sealed.
pub(super) fn open(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (format, rest) = sealed.split_first()?;
    if *format != FORMAT_DATA_KEY {
        return None;
    }
    decrypt(key, aad, rest)
}

/// Opens format 1.
pub(super) fn open_shared(key: &[u8; 32], purpose: &str, parts: &[&str], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let [high, low] = SHARED_KEY_VERSION.to_be_bytes();
    let rest = sealed.strip_prefix(&[FORMAT_SHARED_KEY, high, low])?;
    decrypt(key, Aad::new(purpose, parts, SHARED_KEY_VERSION).bytes(), rest)
}

fn decrypt(key: &[u8; 32], aad: &[u8], rest: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, body) = rest.split_at_checked(NONCE_BYTES)?;
    let nonce: &[u8; NONCE_BYTES] = nonce.try_into().ok()?;
    let cipher = Aes256Gcm::new(key.into());
    cipher.decrypt(nonce.into(), Payload { msg: body, aad }).ok().map(Zeroizing::new)
}

/// Seals as it was done before data keys.
#[cfg(test)]
pub(super) fn seal_shared(key: &[u8; 32], purpose: &str, parts: &[&str], plain: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
    let nonce = entropy.bytes::<NONCE_BYTES>();
    let aad = Aad::new(purpose, parts, SHARED_KEY_VERSION);
    let body = Aes256Gcm::new(key.into()).encrypt((&nonce).into(), Payload { msg: plain, aad: aad.bytes() }).unwrap();
    [&[FORMAT_SHARED_KEY, 0, 1], nonce.as_slice(), &body].concat()
}
