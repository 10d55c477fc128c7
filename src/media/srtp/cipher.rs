//! Session keys and what they do to one packet.

use aes::cipher::{Block, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use aes::{Aes128, Aes256};
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use zeroize::{Zeroize, Zeroizing};

use super::keys::{MasterKey, Suite};
use super::{RTCP_INDEX_BYTES, SrtpError, same};

/// HMAC-SHA1's key in every suite that has one.
const AUTH_KEY_BYTES: usize = 20;
/// Tag of AES-GCM.
const GCM_TAG_BYTES: usize = 16;
/// HMAC-SHA1 cut to 80 bits; SRTCP's is never shorter (RFC 4568 section 6.2.2).
const LONG_TAG_BYTES: usize = 10;
/// To 32 bits.
const SHORT_TAG_BYTES: usize = 4;
/// Blocks encrypted at once: processors take several in the time of one.
const BATCH_BLOCKS: usize = 8;
/// "This SRTCP packet is encrypted."
const E_BIT: u32 = 0x8000_0000;

/// Which session keys (RFC 3711 section 4.3.1's labels).
#[derive(Clone, Copy, Debug)]
pub enum Direction {
    /// Labels 0, 1, 2.
    Rtp,
    /// Labels 3, 4, 5.
    Rtcp,
}

/// Session keys of RTP or of RTCP under one master key.
pub struct StreamKeys {
    cipher: Cipher,
    // 14 bytes for counter mode, 12 for GCM.
    salt: [u8; 14],
}

enum Cipher {
    Counter128 { aes: Box<Aes128>, hmac: Box<Hmac<Sha1>>, tag_bytes: usize },
    Counter256 { aes: Box<Aes256>, hmac: Box<Hmac<Sha1>>, tag_bytes: usize },
    Gcm128(Box<Aes128Gcm>),
    Gcm256(Box<Aes256Gcm>),
}

impl std::fmt::Debug for StreamKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamKeys")
    }
}

impl Drop for StreamKeys {
    fn drop(&mut self) {
        // The ciphers wipe their own key schedules.
        self.salt.zeroize();
    }
}

impl StreamKeys {
    /// Derives them (RFC 3711 section 4.3, with a derivation rate of 0).
    pub fn new(master: &MasterKey, direction: Direction) -> Self {
        let first = match direction {
            Direction::Rtp => 0,
            Direction::Rtcp => 3,
        };
        let suite = master.suite();
        let tag_bytes = match (suite, direction) {
            (Suite::AesCm128HmacSha1_32, Direction::Rtp) => SHORT_TAG_BYTES,
            (_, Direction::Rtp | Direction::Rtcp) => LONG_TAG_BYTES,
        };
        let key = derived(master, first, suite.key_bytes());
        let auth = derived(master, first + 1, AUTH_KEY_BYTES);
        let salt = derived(master, first + 2, suite.salt_bytes());
        Self::of(suite, &key, &auth, tag_bytes, &salt)
    }

    fn of(suite: Suite, key: &[u8], auth: &[u8], tag_bytes: usize, salt: &[u8]) -> Self {
        let hmac = || Box::new(keyed_hmac(auth));
        let cipher = match suite {
            Suite::AesCm128HmacSha1_80 | Suite::AesCm128HmacSha1_32 => {
                Cipher::Counter128 { aes: Box::new(Aes128::new(&array(key).into())), hmac: hmac(), tag_bytes }
            }
            Suite::AesCm256HmacSha1_80 => {
                Cipher::Counter256 { aes: Box::new(Aes256::new(&array(key).into())), hmac: hmac(), tag_bytes }
            }
            Suite::AeadAes128Gcm => Cipher::Gcm128(Box::new(Aes128Gcm::new(&array(key).into()))),
            Suite::AeadAes256Gcm => Cipher::Gcm256(Box::new(Aes256Gcm::new(&array(key).into()))),
        };
        Self { cipher, salt: array(salt) }
    }

    /// RFC 7714's vectors start from session keys.
    #[cfg(test)]
    pub fn of_session(suite: Suite, key: &[u8], salt: &[u8]) -> Self {
        Self::of(suite, key, &[], LONG_TAG_BYTES, salt)
    }

    /// What is appended to a packet, but for SRTCP's index.
    pub fn tag_bytes(&self) -> usize {
        match &self.cipher {
            Cipher::Counter128 { tag_bytes, .. } | Cipher::Counter256 { tag_bytes, .. } => *tag_bytes,
            Cipher::Gcm128(_) | Cipher::Gcm256(_) => GCM_TAG_BYTES,
        }
    }

    /// Encrypts the payload behind `header` bytes and writes the tag.
    pub fn seal_rtp(
        &self,
        packet: &mut [u8],
        header: usize,
        ssrc: u32,
        roc: u32,
        sequence: u16,
        tag: &mut [u8],
    ) -> Result<(), SrtpError> {
        let (clear, payload) = packet.split_at_mut_checked(header).ok_or(SrtpError::Malformed)?;
        let index = u64::from(roc) << 16 | u64::from(sequence);
        match &self.cipher {
            Cipher::Counter128 { aes, hmac, .. } => {
                keystream(aes.as_ref(), self.counter_iv(ssrc, index), payload);
                write_tag(hmac, &[packet, &roc.to_be_bytes()], tag);
            }
            Cipher::Counter256 { aes, hmac, .. } => {
                keystream(aes.as_ref(), self.counter_iv(ssrc, index), payload);
                write_tag(hmac, &[packet, &roc.to_be_bytes()], tag);
            }
            Cipher::Gcm128(gcm) => gcm_seal(gcm.as_ref(), &self.gcm_iv(ssrc, index), clear, payload, tag)?,
            Cipher::Gcm256(gcm) => gcm_seal(gcm.as_ref(), &self.gcm_iv(ssrc, index), clear, payload, tag)?,
        }
        Ok(())
    }

    /// Checks the tag, then decrypts. Nothing is changed unless the packet is authentic.
    pub fn open_rtp(
        &self,
        packet: &mut [u8],
        header: usize,
        ssrc: u32,
        roc: u32,
        sequence: u16,
        tag: &[u8],
    ) -> Result<(), SrtpError> {
        let index = u64::from(roc) << 16 | u64::from(sequence);
        let roc = roc.to_be_bytes();
        match &self.cipher {
            Cipher::Counter128 { hmac, .. } | Cipher::Counter256 { hmac, .. } => check_tag(hmac, &[packet, &roc], tag)?,
            Cipher::Gcm128(_) | Cipher::Gcm256(_) => {}
        }
        let (clear, payload) = packet.split_at_mut_checked(header).ok_or(SrtpError::Malformed)?;
        match &self.cipher {
            Cipher::Counter128 { aes, .. } => keystream(aes.as_ref(), self.counter_iv(ssrc, index), payload),
            Cipher::Counter256 { aes, .. } => keystream(aes.as_ref(), self.counter_iv(ssrc, index), payload),
            Cipher::Gcm128(gcm) => gcm_open(gcm.as_ref(), &self.gcm_iv(ssrc, index), clear, payload, tag)?,
            Cipher::Gcm256(gcm) => gcm_open(gcm.as_ref(), &self.gcm_iv(ssrc, index), clear, payload, tag)?,
        }
        Ok(())
    }

    /// Encrypts what follows the first `header` bytes and writes tag and index.
    pub fn seal_rtcp(
        &self,
        packet: &mut [u8],
        header: usize,
        ssrc: u32,
        index: u32,
        trailer: &mut [u8],
    ) -> Result<(), SrtpError> {
        let marked = (E_BIT | index).to_be_bytes();
        let (clear, payload) = packet.split_at_mut_checked(header).ok_or(SrtpError::Malformed)?;
        match &self.cipher {
            Cipher::Counter128 { .. } | Cipher::Counter256 { .. } => {
                let (word, tag) = trailer.split_at_mut_checked(RTCP_INDEX_BYTES).ok_or(SrtpError::Malformed)?;
                word.copy_from_slice(&marked);
                let iv = self.counter_iv(ssrc, index.into());
                match &self.cipher {
                    Cipher::Counter128 { aes, hmac, .. } => {
                        keystream(aes.as_ref(), iv, payload);
                        write_tag(hmac, &[packet, &marked], tag);
                    }
                    Cipher::Counter256 { aes, hmac, .. } => {
                        keystream(aes.as_ref(), iv, payload);
                        write_tag(hmac, &[packet, &marked], tag);
                    }
                    Cipher::Gcm128(_) | Cipher::Gcm256(_) => {}
                }
            }
            // RFC 7714 section 9.2: the tag comes before the index, and the index is authenticated.
            Cipher::Gcm128(gcm) => {
                let (tag, word) = trailer.split_at_mut_checked(GCM_TAG_BYTES).ok_or(SrtpError::Malformed)?;
                word.copy_from_slice(&marked);
                gcm_seal(gcm.as_ref(), &self.gcm_iv(ssrc, index.into()), &[&*clear, &marked].concat(), payload, tag)?;
            }
            Cipher::Gcm256(gcm) => {
                let (tag, word) = trailer.split_at_mut_checked(GCM_TAG_BYTES).ok_or(SrtpError::Malformed)?;
                word.copy_from_slice(&marked);
                gcm_seal(gcm.as_ref(), &self.gcm_iv(ssrc, index.into()), &[&*clear, &marked].concat(), payload, tag)?;
            }
        }
        Ok(())
    }

    /// The 31 bits that number an SRTCP packet.
    pub fn rtcp_index(&self, trailer: &[u8]) -> Option<u32> {
        self.rtcp_word(trailer).map(|word| word & !E_BIT)
    }

    /// Checks the tag, then decrypts (a packet with a clear E bit is only authenticated).
    pub fn open_rtcp(&self, packet: &mut [u8], header: usize, ssrc: u32, trailer: &[u8]) -> Result<(), SrtpError> {
        let word = self.rtcp_word(trailer).ok_or(SrtpError::Malformed)?;
        let (index, is_encrypted) = (u64::from(word & !E_BIT), word & E_BIT != 0);
        let word = word.to_be_bytes();
        match &self.cipher {
            Cipher::Counter128 { hmac, .. } | Cipher::Counter256 { hmac, .. } => {
                let tag = trailer.get(RTCP_INDEX_BYTES..).ok_or(SrtpError::Malformed)?;
                check_tag(hmac, &[packet, &word], tag)?;
            }
            Cipher::Gcm128(_) | Cipher::Gcm256(_) => {}
        }
        let length = if is_encrypted { header } else { packet.len() };
        let (clear, payload) = packet.split_at_mut_checked(length).ok_or(SrtpError::Malformed)?;
        match &self.cipher {
            Cipher::Counter128 { aes, .. } => keystream(aes.as_ref(), self.counter_iv(ssrc, index), payload),
            Cipher::Counter256 { aes, .. } => keystream(aes.as_ref(), self.counter_iv(ssrc, index), payload),
            Cipher::Gcm128(gcm) => {
                let tag = trailer.get(..GCM_TAG_BYTES).ok_or(SrtpError::Malformed)?;
                gcm_open(gcm.as_ref(), &self.gcm_iv(ssrc, index), &[&*clear, &word].concat(), payload, tag)?;
            }
            Cipher::Gcm256(gcm) => {
                let tag = trailer.get(..GCM_TAG_BYTES).ok_or(SrtpError::Malformed)?;
                gcm_open(gcm.as_ref(), &self.gcm_iv(ssrc, index), &[&*clear, &word].concat(), payload, tag)?;
            }
        }
        Ok(())
    }

    fn rtcp_word(&self, trailer: &[u8]) -> Option<u32> {
        let word = match &self.cipher {
            Cipher::Counter128 { .. } | Cipher::Counter256 { .. } => trailer.first_chunk::<RTCP_INDEX_BYTES>(),
            Cipher::Gcm128(_) | Cipher::Gcm256(_) => trailer.last_chunk::<RTCP_INDEX_BYTES>(),
        };
        word.map(|word| u32::from_be_bytes(*word))
    }

    /// RFC 3711 section 4.1.1: salt · 2^16 ⊕ SSRC · 2^64 ⊕ index · 2^16.
    fn counter_iv(&self, ssrc: u32, index: u64) -> [u8; 16] {
        let salt = u128::from_be_bytes(array(&self.salt)) & !0xffff;
        (salt ^ u128::from(ssrc) << 64 ^ u128::from(index) << 16).to_be_bytes()
    }

    /// RFC 7714 sections 8.1 and 9.1: 16 zero bits, SSRC and 48 bits of index, ⊕ salt.
    fn gcm_iv(&self, ssrc: u32, index: u64) -> [u8; 12] {
        let plain = u128::from(ssrc) << 48 | u128::from(index);
        let salt = u128::from_be_bytes(array(&self.salt)) >> 32;
        let mut iv = [0u8; 12];
        for (to, from) in iv.iter_mut().zip((plain ^ salt).to_be_bytes().into_iter().skip(4)) {
            *to = from;
        }
        iv
    }
}

/// A session key (RFC 3711 section 4.3.1; RFC 6188 section 3: AES-256 derives where AES-256 encrypts).
pub(super) fn derived(master: &MasterKey, label: u8, bytes: usize) -> Zeroizing<Vec<u8>> {
    let mut iv = array::<16>(&master.salt());
    // The label stands above the 48 bits of the index, which is always 0 here.
    if let Some(byte) = iv.get_mut(7) {
        *byte ^= label;
    }
    let mut out = Zeroizing::new(vec![0u8; bytes]);
    keystream_of(master.key(), iv, &mut out);
    out
}

/// ⊕ with AES in counter mode, by the length of the key.
pub(super) fn keystream_of(key: &[u8], iv: [u8; 16], data: &mut [u8]) {
    if key.len() == 16 {
        keystream(&Aes128::new(&array(key).into()), iv, data);
    } else {
        keystream(&Aes256::new(&array(key).into()), iv, data);
    }
}

/// The first bytes of `from`, filled up with zeros.
fn array<const N: usize>(from: &[u8]) -> [u8; N] {
    let mut out = [0u8; N];
    for (to, from) in out.iter_mut().zip(from) {
        *to = *from;
    }
    out
}

fn keyed_hmac(key: &[u8]) -> Hmac<Sha1> {
    // HMAC takes keys of any length; filled up to a block with zeros it is the same key.
    Hmac::<Sha1>::new_from_slice(key).unwrap_or_else(|_| Hmac::<Sha1>::new(&[0u8; 64].into()))
}

/// ⊕ with AES in counter mode.
fn keystream<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = aes::cipher::typenum::U16>>(
    aes: &C,
    iv: [u8; 16],
    data: &mut [u8],
) {
    let mut counter = u128::from_be_bytes(iv);
    for batch in data.chunks_mut(16 * BATCH_BLOCKS) {
        let mut blocks = [Block::<C>::default(); BATCH_BLOCKS];
        let used = batch.len().div_ceil(16);
        for block in blocks.iter_mut().take(used) {
            *block = counter.to_be_bytes().into();
            counter = counter.wrapping_add(1);
        }
        if let Some(blocks) = blocks.get_mut(..used) {
            aes.encrypt_blocks(blocks);
        }
        for (byte, key) in batch.iter_mut().zip(blocks.iter().flatten()) {
            *byte ^= key;
        }
        blocks.iter_mut().for_each(|block| block.as_mut_slice().zeroize());
    }
}

fn write_tag(hmac: &Hmac<Sha1>, parts: &[&[u8]], tag: &mut [u8]) {
    let whole = whole_tag(hmac, parts);
    for (to, from) in tag.iter_mut().zip(whole) {
        *to = from;
    }
}

fn check_tag(hmac: &Hmac<Sha1>, parts: &[&[u8]], tag: &[u8]) -> Result<(), SrtpError> {
    let whole = whole_tag(hmac, parts);
    let ours = whole.get(..tag.len()).ok_or(SrtpError::NotAuthentic)?;
    if same(ours, tag) { Ok(()) } else { Err(SrtpError::NotAuthentic) }
}

fn whole_tag(hmac: &Hmac<Sha1>, parts: &[&[u8]]) -> [u8; 20] {
    let mut hmac = hmac.clone();
    parts.iter().for_each(|part| hmac.update(part));
    hmac.finalize().into_bytes().into()
}

fn gcm_seal<C: AeadInOut>(gcm: &C, iv: &[u8; 12], clear: &[u8], payload: &mut [u8], tag: &mut [u8]) -> Result<(), SrtpError> {
    let nonce = iv.as_slice().try_into().map_err(|_| SrtpError::Malformed)?;
    let made = gcm.encrypt_inout_detached(nonce, clear, payload.into()).map_err(|_| SrtpError::Malformed)?;
    for (to, from) in tag.iter_mut().zip(made) {
        *to = from;
    }
    Ok(())
}

fn gcm_open<C: AeadInOut>(gcm: &C, iv: &[u8; 12], clear: &[u8], payload: &mut [u8], tag: &[u8]) -> Result<(), SrtpError> {
    let nonce = iv.as_slice().try_into().map_err(|_| SrtpError::Malformed)?;
    let tag = tag.try_into().map_err(|_| SrtpError::Malformed)?;
    gcm.decrypt_inout_detached(nonce, clear, payload.into(), tag).map_err(|_| SrtpError::NotAuthentic)
}
