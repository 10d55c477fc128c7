//! PURE. The audit log as a hash chain: `hash_n = SHA-256(hash_{n-1} ‖ canonical_n)`, and a Merkle tree whose leaf n is `hash_n`.
//! The chain finds *which* record was altered; the tree makes short proofs that a record is in the log.
//!
//! The canonical bytes of a record are its fields with their lengths before them. `detail` is hashed as the text that the row
//! holds, not as re-written JSON: a rule that re-writes it (RFC 8785) would have to print floating-point scores the same way in
//! every verifier and for ever, and would call two different texts one. What was stored is what is proven.

use std::fmt;

use sha2::{Digest, Sha256};

use super::merkle::{Frontier, Hash, Tile};
use crate::clock::{Entropy, Timestamp};

/// The first canonical byte: the layout of what follows.
pub const CANONICAL_VERSION: u8 = 1;
/// What the first record is chained to, so that records of one log can't stand in another.
const GENESIS: &[u8] = b"voicepay audit chain 1\n";

/// A log's name, drawn when its first record is sealed: 32 hex digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogId(String);

impl LogId {
    /// A fresh one.
    pub fn fresh(entropy: &dyn Entropy) -> Self {
        Self(hex::encode(entropy.bytes::<16>()))
    }

    /// Reads one back.
    pub fn parse(text: &str) -> Option<Self> {
        let ok = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        ok.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the first record.
    pub fn genesis(&self) -> Hash {
        Sha256::new().chain_update(GENESIS).chain_update(&self.0).finalize().into()
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An audit row as it is stored, every column that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The row's number in its table. SQLite's have no gaps; PostgreSQL's may.
    pub seq: i64,
    /// Which record: `aud_…`.
    pub id: String,
    /// When it was written.
    pub at: Timestamp,
    /// Who or what did it.
    pub actor: String,
    /// What was done, dotted.
    pub action: String,
    /// To what.
    pub subject: String,
    /// More, as the text that the row holds.
    pub detail: String,
}

impl Record {
    /// The bytes that are hashed: version, position (u64), row number (i64), time (i64, milliseconds), then each text with its
    /// length in bytes (u32) before it. Numbers are big endian.
    pub fn canonical(&self, position: u64) -> Vec<u8> {
        let texts = [&self.id, &self.actor, &self.action, &self.subject, &self.detail];
        let mut out = Vec::with_capacity(45 + texts.iter().map(|t| t.len()).sum::<usize>());
        out.push(CANONICAL_VERSION);
        out.extend(position.to_be_bytes());
        out.extend(self.seq.to_be_bytes());
        out.extend(self.at.0.to_be_bytes());
        for text in texts {
            // A text of 4 GiB does not fit a row.
            out.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend(text.as_bytes());
        }
        out
    }

    /// The record's hash at `position`, after the record whose hash is `previous`.
    pub fn chained(&self, previous: &Hash, position: u64) -> Hash {
        Sha256::new().chain_update(previous).chain_update(self.canonical(position)).finalize().into()
    }
}

/// A log's end: all that is needed to append to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    log: LogId,
    head: Hash,
    tree: Frontier,
}

/// What appending gave a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it stands, from 0.
    pub position: u64,
    /// Its hash.
    pub hash: Hash,
    /// The tile of the tree that it filled, if it did.
    pub tile: Option<Tile>,
}

impl Chain {
    /// An empty log.
    pub fn new(log: LogId) -> Self {
        Self { head: log.genesis(), log, tree: Frontier::default() }
    }

    /// Back from a row. `None` if the parts do not fit each other.
    pub fn restore(log: LogId, head: Hash, size: u64, frontier: &[u8]) -> Option<Self> {
        let tree = Frontier::from_bytes(size, frontier)?;
        let fits = size > 0 || head == log.genesis();
        fits.then_some(Self { log, head, tree })
    }

    /// Which log.
    pub fn log(&self) -> &LogId {
        &self.log
    }

    /// How many records it has.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The hash of the last record; of an empty log, what the first will be chained to.
    pub fn head(&self) -> &Hash {
        &self.head
    }

    /// The root of the tree over all records' hashes.
    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    /// The tree's frontier, for a row.
    pub fn frontier(&self) -> Vec<u8> {
        self.tree.to_bytes()
    }

    /// Appends a record.
    pub fn append(&mut self, record: &Record) -> Link {
        let position = self.size();
        let hash = record.chained(&self.head, position);
        self.follow(hash, position)
    }

    /// Appends a record whose hash was computed already (see [`Record::chained`]).
    pub(super) fn follow(&mut self, hash: Hash, position: u64) -> Link {
        self.head = hash;
        let tile = self.tree.push(&hash);
        Link { position, hash, tile }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> Record {
        Record {
            seq: 258,
            id: "aud_00".into(),
            at: Timestamp(1_800_000_000_000),
            actor: "cli".into(),
            action: "payee.added".into(),
            subject: "pay_é".into(),
            detail: "{}".into(),
        }
    }

    /// Written out by hand from the layout, and hashed by another program (Python's hashlib): the layout never changes under
    /// version 1.
    #[test]
    fn canonical_bytes_are_these_for_ever() {
        let expected = [
            "01",
            "0000000000000007",
            "0000000000000102",
            "000001a3185c5000",
            "00000006",
            "6175645f3030",
            "00000003",
            "636c69",
            "0000000b",
            "70617965652e6164646564",
            "00000006",
            "7061795fc3a9",
            "00000002",
            "7b7d",
        ]
        .concat();
        assert_eq!(hex::encode(record().canonical(7)), expected);
        let log = LogId::parse("000102030405060708090a0b0c0d0e0f").unwrap();
        assert_eq!(hex::encode(log.genesis()), GOLDEN_GENESIS);
        assert_eq!(hex::encode(record().chained(&log.genesis(), 7)), GOLDEN_HASH);
    }

    const GOLDEN_GENESIS: &str = "5a1515ca419b08ce6b094df902416d2c7ab124eb73d220eed140306109714b2f";
    const GOLDEN_HASH: &str = "bd09d7cda028609eb4e6ebe4cf052dc3c3b12a350c96be94afcab5dc211e8e54";

    #[test]
    fn a_log_goes_on_from_what_a_row_kept() {
        let mut chain = Chain::new(LogId::parse(&"0".repeat(32)).unwrap());
        let mut restored = chain.clone();
        for _ in 0..300 {
            let link = chain.append(&record());
            assert_eq!(restored.append(&record()), link);
            let (head, size) = (*chain.head(), chain.size());
            restored = Chain::restore(chain.log().clone(), head, size, &chain.frontier()).unwrap();
            assert_eq!(restored, chain);
        }
        assert!(Chain::restore(chain.log().clone(), [0; 32], 0, &[]).is_none(), "an empty log ends at its genesis");
        assert!(Chain::restore(chain.log().clone(), [0; 32], 300, &chain.frontier()[32..]).is_none());
        assert!(LogId::parse("").is_none() && LogId::parse(&"A".repeat(32)).is_none());
    }

    proptest! {
        #[test]
        fn no_two_records_have_the_same_bytes(a in any_record(), b in any_record(), p in 0u64..3, q in 0u64..3) {
            prop_assert_eq!(a.canonical(p) == b.canonical(q), a == b && p == q);
        }
    }

    fn any_record() -> impl Strategy<Value = Record> {
        // Few letters, so that texts which differ only in where one ends are met.
        (0i64..2, "[ab]{0,2}", 0i64..2, "[ab]{0,2}", "[ab]{0,2}", "[ab]{0,2}", "[ab]{0,2}").prop_map(
            |(seq, id, at, actor, action, subject, detail)| Record { seq, id, at: Timestamp(at), actor, action, subject, detail },
        )
    }
}
