//! PURE. Checkpoints: a log's size, root and head at one time, signed. The text is a C2SP checkpoint (origin, size, root) in a
//! C2SP signed note, so that tools and witnesses of transparency logs read it; head and time are its two extension lines.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::chain::{Chain, LogId};
use super::keys::{PublicKey, SIGNATURE_BYTES};
use super::merkle::Hash;
use crate::clock::Timestamp;

/// The longest note that is read, in bytes: some hundred bytes of text, and room for a dozen witnesses' signatures.
pub const NOTE_LIMIT_BYTES: usize = 16 * 1024;
const ORIGIN: &str = "voicepay/audit/";
const SIGNED_BY: &str = "— "; // U+2014, as signed notes have it

/// A log at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub log: LogId,
    /// How many records it had.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
    /// The hash of the last one.
    pub head: Hash,
    /// When it was made.
    pub at: Timestamp,
}

impl Checkpoint {
    /// Of a log as it stands.
    pub fn of(chain: &Chain, at: Timestamp) -> Self {
        Self { log: chain.log().clone(), size: chain.size(), root: chain.root(), head: *chain.head(), at }
    }

    /// The name of a log in its notes and verifier keys.
    pub fn origin(log: &LogId) -> String {
        format!("{ORIGIN}{log}")
    }

    /// What is signed: five lines, the last line's end among them.
    pub fn body(&self) -> String {
        let (origin, root, head) = (Self::origin(&self.log), STANDARD.encode(self.root), STANDARD.encode(self.head));
        format!("{origin}\n{}\n{root}\nhead {head}\ntime {}\n", self.size, self.at.0)
    }

    /// The signed note. `sign` gives the signature of `key` over the bytes that it is given.
    pub fn sign(&self, key: &PublicKey, sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_BYTES]) -> String {
        let (origin, body) = (Self::origin(&self.log), self.body());
        let signature = [key.note_id(&origin).as_slice(), &sign(body.as_bytes())].concat();
        format!("{body}\n{SIGNED_BY}{origin} {}\n", STANDARD.encode(signature))
    }

    /// What a note says, if one of `keys` signed it: the checkpoint, and which key. Signatures of unknown keys (witnesses, newer
    /// keys) are passed over; a wrong one of a known key spoils the note.
    pub fn open(note: &str, keys: &[PublicKey]) -> Result<(Self, PublicKey), NoteError> {
        if note.len() > NOTE_LIMIT_BYTES {
            return Err(NoteError::Malformed);
        }
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(NoteError::Malformed)?;
        let checkpoint = Self::parse(text).ok_or(NoteError::Malformed)?;
        let (origin, body) = (Self::origin(&checkpoint.log), checkpoint.body());
        let mut signer = None;
        for line in signatures.strip_suffix('\n').ok_or(NoteError::Malformed)?.split('\n') {
            let (name, signature) = line.strip_prefix(SIGNED_BY).and_then(|l| l.split_once(' ')).ok_or(NoteError::Malformed)?;
            let signature = STANDARD.decode(signature).map_err(|_| NoteError::Malformed)?;
            let (id, signature) = signature.split_at_checked(4).ok_or(NoteError::Malformed)?;
            if name != origin {
                continue;
            }
            for key in keys.iter().filter(|key| key.note_id(&origin) == id) {
                if !key.verifies(body.as_bytes(), signature) {
                    return Err(NoteError::WrongSignature);
                }
                signer = signer.or(Some(*key));
            }
        }
        Ok((checkpoint, signer.ok_or(NoteError::UnknownSigner)?))
    }

    /// What a note claims, whoever signed it: for telling which keys or which log it wants. Believe nothing of it.
    pub fn claimed(note: &str) -> Option<Self> {
        Self::parse(note.rsplit_once("\n\n")?.0)
    }

    /// The text without its last line's end. Exact: it must be what [`Checkpoint::body`] writes.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let log = LogId::parse(lines.next()?.strip_prefix(ORIGIN)?)?;
        let size = lines.next()?.parse().ok()?;
        let root = hash(lines.next()?)?;
        let head = hash(lines.next()?.strip_prefix("head ")?)?;
        let at = Timestamp(lines.next()?.strip_prefix("time ")?.parse().ok()?);
        let read = Self { log, size, root, head, at };
        (read.body().strip_suffix('\n') == Some(text)).then_some(read)
    }
}

fn hash(base64: &str) -> Option<Hash> {
    STANDARD.decode(base64).ok()?.try_into().ok()
}

/// Why a note says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a checkpoint in a signed note.
    #[error("it is no checkpoint in the form of a signed note")]
    Malformed,
    /// None of the keys signed it.
    #[error("none of the given keys signed it")]
    UnknownSigner,
    /// A key's signature does not fit the text.
    #[error("its signature is wrong: text or signature was altered")]
    WrongSignature,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    fn signed() -> (Checkpoint, PublicKey, String) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key = PublicKey::new(pair.public_key().as_ref().try_into().unwrap());
        let log = LogId::parse("000102030405060708090a0b0c0d0e0f").unwrap();
        let checkpoint = Checkpoint { log, size: 12, root: [1; 32], head: [2; 32], at: Timestamp(1_800_000_000_000) };
        let note = checkpoint.sign(&key, |body| pair.sign(body).as_ref().try_into().unwrap());
        (checkpoint, key, note)
    }

    #[test]
    fn a_note_is_exactly_so() {
        let (checkpoint, key, note) = signed();
        let text = "voicepay/audit/000102030405060708090a0b0c0d0e0f\n12\nAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n\
                    head AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\ntime 1800000000000\n";
        assert!(note.starts_with(&format!("{text}\n— voicepay/audit/000102030405060708090a0b0c0d0e0f ")), "{note}");
        assert_eq!(Checkpoint::open(&note, &[key]).unwrap(), (checkpoint, key));
    }

    #[test]
    fn any_changed_byte_is_refused_and_so_is_another_key() {
        let (_, key, note) = signed();
        for at in 0..note.len() {
            for bit in 0..8 {
                let mut bytes = note.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                if let Ok(text) = String::from_utf8(bytes) {
                    assert!(Checkpoint::open(&text, &[key]).is_err(), "byte {at}, bit {bit}: {text}");
                }
            }
        }
        let other = PublicKey::new([9; 32]);
        assert_eq!(Checkpoint::open(&note, &[other]).unwrap_err(), NoteError::UnknownSigner);
        assert_eq!(Checkpoint::open(&note, &[]).unwrap_err(), NoteError::UnknownSigner);
        // A witness's line beside ours changes nothing.
        let witnessed = format!("{note}— witness.example AAAAAAAA\n");
        assert!(Checkpoint::open(&witnessed, &[other, key]).is_ok());
        for bad in ["", "\n\n", &note[1..], note.trim_end(), &note.repeat(100)] {
            assert_eq!(Checkpoint::open(bad, &[key]).unwrap_err(), NoteError::Malformed, "{bad}");
        }
    }
}
