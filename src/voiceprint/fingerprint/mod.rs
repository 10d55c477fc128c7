//! Has this very audio been heard before? A keyed fingerprint of an utterance, and its comparison with those kept.
//!
//! Every 4 ms the power in 24 bands (300–3400 Hz) is compared 24 ms before with 24 ms after; the signs of how neighbouring bands
//! differ (after Haitsma and Kalker 2002) are taken at three moments of four bands each, and the twelve signs become one keyed symbol.
//! Who says the same words again says them with other timing and pitch, so that few symbols agree at any one shift in time; audio
//! that is replayed, coded again, louder or with noise behind it agrees in most. What is kept is one symbol in four frames. A symbol
//! is 16 bits of a keyed hash: without the vault's key it says nothing and can't be compared; with the key it tells signs of changes,
//! never sound.
//!
//! Measured by `voicepay eval reuse`. With less than some 0.8 s of loud speech (a lone "yes") noise hides a
//! replay, and with less than 0.2 s there is nothing to go by.

mod keyed;
mod matching;
mod sketch;

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

pub use keyed::FingerprintKey;
pub use matching::{Likeness, Probe};
pub use sketch::Fingerprinter;

/// One utterance's fingerprint, as it is kept. Never printed; wiped on drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Fingerprint {
    marks: Vec<Mark>,
}

/// A keyed symbol and the frame (4 ms each) at which it stands.
#[derive(Clone, Copy, PartialEq, Eq, Zeroize)]
struct Mark {
    frame: u16,
    symbol: u16,
}

/// Which way of making fingerprints this is: those of another can't be compared.
const FORMAT: u8 = 1;
const MARK_BYTES: usize = 4;
/// Two minutes of speech at the most make so many.
const LIMIT_MARKS: usize = 80_000;

impl Fingerprint {
    /// Whether there was anything to go by.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// For sealing.
    pub fn to_bytes(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let mut out = zeroize::Zeroizing::new(Vec::with_capacity(1 + self.marks.len() * MARK_BYTES));
        out.push(FORMAT);
        for mark in &self.marks {
            out.extend_from_slice(&mark.frame.to_be_bytes());
            out.extend_from_slice(&mark.symbol.to_be_bytes());
        }
        out
    }

    /// From what [`Fingerprint::to_bytes`] gave; `None` for one of another format, or a damaged one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (format, body) = bytes.split_first()?;
        if *format != FORMAT || body.len() % MARK_BYTES != 0 || body.len() > LIMIT_MARKS * MARK_BYTES {
            return None;
        }
        let mark = |b: &[u8]| match *b {
            [a, b, c, d] => Some(Mark { frame: u16::from_be_bytes([a, b]), symbol: u16::from_be_bytes([c, d]) }),
            _ => None, // not four bytes
        };
        let marks = body.chunks_exact(MARK_BYTES).map(mark).collect::<Option<Vec<_>>>()?;
        marks.is_sorted_by_key(|m| m.frame).then_some(Self { marks })
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({} marks)", self.marks.len())
    }
}

#[cfg(test)]
mod tests;
