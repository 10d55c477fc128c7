//! Suites and master keys as SDES carries them (RFC 4568 section 6.2, RFC 6188, RFC 7714 section 14.2).

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::clock::Entropy;

/// How packets are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-128 in counter mode, HMAC-SHA1 cut to 80 bits: what every peer has.
    AesCm128HmacSha1_80,
    /// The same with 32 bits for RTP (RTCP keeps 80).
    AesCm128HmacSha1_32,
    /// AES-256 in counter mode, 80 bits.
    AesCm256HmacSha1_80,
    /// AES-128 in Galois/counter mode.
    AeadAes128Gcm,
    /// AES-256 in Galois/counter mode.
    AeadAes256Gcm,
}

impl Suite {
    /// Best first; the order of our offers. The 32-bit tag comes last: it is taken, but nobody who can do better should use it.
    pub const ALL: [Self; 5] = [
        Self::AeadAes256Gcm,
        Self::AeadAes128Gcm,
        Self::AesCm256HmacSha1_80,
        Self::AesCm128HmacSha1_80,
        Self::AesCm128HmacSha1_32,
    ];

    /// As `a=crypto` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Self::AesCm256HmacSha1_80 => "AES_256_CM_HMAC_SHA1_80",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    /// By its name, in any case; some write AES_CM_256 for AES_256_CM.
    pub fn from_name(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("AES_CM_256_HMAC_SHA1_80") {
            return Some(Self::AesCm256HmacSha1_80);
        }
        Self::ALL.into_iter().find(|suite| suite.name().eq_ignore_ascii_case(name))
    }

    /// Length of the master key.
    pub fn key_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 | Self::AeadAes128Gcm => 16,
            Self::AesCm256HmacSha1_80 | Self::AeadAes256Gcm => 32,
        }
    }

    /// Length of the master salt.
    pub fn salt_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 | Self::AesCm256HmacSha1_80 => 14,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
        }
    }
}

/// A master key with its salt. Prints nothing but its suite; wiped when the last clone goes.
#[derive(Clone)]
pub struct MasterKey {
    suite: Suite,
    key_and_salt: Arc<Zeroizing<Vec<u8>>>,
}

impl MasterKey {
    /// From a key followed by its salt; `None` if the length is not the suite's.
    pub fn new(suite: Suite, key_and_salt: Zeroizing<Vec<u8>>) -> Option<Self> {
        (key_and_salt.len() == suite.key_bytes() + suite.salt_bytes())
            .then(|| Self { suite, key_and_salt: Arc::new(key_and_salt) })
    }

    /// A new one.
    pub fn generate(suite: Suite, entropy: &dyn Entropy) -> Self {
        let mut bytes = Zeroizing::new(vec![0; suite.key_bytes() + suite.salt_bytes()]);
        entropy.fill(&mut bytes);
        Self { suite, key_and_salt: Arc::new(bytes) }
    }

    /// What it is for.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Key and salt, for the one line of SDP that carries them.
    pub fn key_and_salt(&self) -> &[u8] {
        &self.key_and_salt
    }

    /// The key alone.
    pub(super) fn key(&self) -> &[u8] {
        self.key_and_salt.get(..self.suite.key_bytes()).unwrap_or_default()
    }

    /// The salt, filled up with zeros to the 14 bytes that key derivation takes (RFC 7714 section 11).
    pub(super) fn salt(&self) -> [u8; 14] {
        let mut salt = [0; 14];
        for (to, from) in salt.iter_mut().zip(self.key_and_salt.get(self.suite.key_bytes()..).unwrap_or_default()) {
            *to = *from;
        }
        salt
    }
}

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        self.suite == other.suite && super::same(&self.key_and_salt, &other.key_and_salt)
    }
}

impl Eq for MasterKey {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.suite.name())
    }
}

/// What offer and answer agreed: each side protects what it sends with its own key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrtpKeys {
    /// Of what we send.
    pub ours: MasterKey,
    /// Of what we hear.
    pub theirs: MasterKey,
}
