//! AES-256-GCM envelopes (NIST SP 800-38D) with their associated data.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use zeroize::Zeroizing;

use crate::clock::Entropy;

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 3;
const NONCE_BYTES: usize = 12;

/// What a sealed value is bound to: a purpose tag first, then the row's own identity, each with its length before it.
pub(super) struct Aad(Vec<u8>);

impl Aad {
    pub(super) fn new(purpose: &str, parts: &[&str], key_version: u16) -> Self {
        let mut bytes = Vec::new();
        for part in std::iter::once(&purpose).chain(parts) {
            // Lengths beyond 32 bits can't occur; saturating keeps this total.
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes.extend_from_slice(&key_version.to_be_bytes());
        Self(bytes)
    }
}

/// Seals; `None` only for a plaintext beyond what GCM takes.
pub(super) fn seal(key: &[u8; 32], aad: &Aad, version: u16, plain: &[u8], entropy: &dyn Entropy) -> Option<Vec<u8>> {
    let nonce = entropy.bytes::<NONCE_BYTES>();
    let cipher = Aes256Gcm::new(key.into());
    let body = cipher.encrypt((&nonce).into(), Payload { msg: plain, aad: &aad.0 }).ok()?;
    let mut out = Vec::with_capacity(HEADER_BYTES + NONCE_BYTES + body.len());
    out.push(FORMAT);
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&body);
    Some(out)
}

/// Opens; `None` if anything at all is not as it was sealed.
pub(super) fn open(key: &[u8; 32], aad: &Aad, version: u16, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (header, rest) = sealed.split_at_checked(HEADER_BYTES)?;
    let (nonce, body) = rest.split_at_checked(NONCE_BYTES)?;
    let nonce: &[u8; NONCE_BYTES] = nonce.try_into().ok()?;
    let [high, low] = version.to_be_bytes();
    if header != [FORMAT, high, low] {
        return None;
    }
    let cipher = Aes256Gcm::new(key.into());
    cipher.decrypt(nonce.into(), Payload { msg: body, aad: &aad.0 }).ok().map(Zeroizing::new)
}
