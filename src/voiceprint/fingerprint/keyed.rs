//! The keyed hash behind symbols: SipHash-2-4 (Aumasson and Bernstein 2012), a few nanoseconds a word.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// The key of one customer's fingerprints. Derived in the vault; fingerprints under another key have nothing in common with these.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct FingerprintKey([u64; 2]);

impl FingerprintKey {
    /// From 16 bytes of a key derivation.
    pub fn new(bytes: &[u8; 16]) -> Self {
        let (low, high) = bytes.split_at(8);
        let word = |b: &[u8]| b.iter().rev().fold(0u64, |w, b| (w << 8) | u64::from(*b));
        Self([word(low), word(high)])
    }

    /// The symbol of a word of signs at a place among the bands: the hash's low 16 bits.
    pub(super) fn symbol(&self, place: u8, signs: u16) -> u16 {
        let [a, b] = signs.to_le_bytes();
        let [low, high, ..] = self.hash3([place, a, b]).to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// SipHash-2-4 of three bytes: they and the length fit one block.
    fn hash3(&self, [a, b, c]: [u8; 3]) -> u64 {
        let [k0, k1] = self.0;
        let mut v =
            [k0 ^ 0x736f_6d65_7073_6575, k1 ^ 0x646f_7261_6e64_6f6d, k0 ^ 0x6c79_6765_6e65_7261, k1 ^ 0x7465_6462_7974_6573];
        let m = u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 3]);
        v[3] ^= m;
        round(&mut v);
        round(&mut v);
        v[0] ^= m;
        v[2] ^= 0xff;
        for _ in 0..4 {
            round(&mut v);
        }
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }
}

fn round(v: &mut [u64; 4]) {
    let [a, b, c, d] = v;
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_siphash_of_the_reference() {
        // The authors' vectors: key 00 … 0f, input 00 01 02.
        let key: [u8; 16] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let expected = u64::from_le_bytes([0x2d, 0x7e, 0xfb, 0xd7, 0x96, 0x66, 0x67, 0x85]);
        assert_eq!(FingerprintKey::new(&key).hash3([0, 1, 2]), expected);
    }

    #[test]
    fn keys_share_nothing_and_places_do_not_either() {
        let (a, b) = (FingerprintKey::new(&[1; 16]), FingerprintKey::new(&[2; 16]));
        let same = |f: &dyn Fn(u16) -> bool| (0..4096).filter(|s| f(*s)).count();
        assert!(same(&|s| a.symbol(0, s) == b.symbol(0, s)) < 5);
        assert!(same(&|s| a.symbol(0, s) == a.symbol(1, s)) < 5);
    }
}
