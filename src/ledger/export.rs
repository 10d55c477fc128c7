//! PURE. The exported log: one JSON object a line, so that it is written and verified as a stream. First the log, then its
//! records with each checkpoint after the last record that it covers, and a last line that says how many there were, so that a
//! cut file is known.
//!
//! A line must be byte for byte what [`Line::to_text`] writes: no second spelling of the same record passes.

use serde::{Deserialize, Serialize};

use super::chain::{LogId, Record};
use super::keys::PublicKey;
use super::merkle::Hash;
use crate::clock::Timestamp;

/// The format's version.
pub const EXPORT_VERSION: u32 = 1;
/// The longest line that is read, in bytes: far above any record.
pub const LINE_LIMIT_BYTES: usize = 4 * 1024 * 1024;

/// A line of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The first.
    Log(LogLine),
    /// A record.
    Record(SealedRecord),
    /// A checkpoint over all records before it: its signed note.
    Checkpoint(String),
    /// The last.
    End {
        /// How many records there are.
        records: u64,
        /// How many checkpoints.
        checkpoints: u64,
    },
}

/// What an export says of the whole log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Which log.
    pub log: LogId,
    /// Whether the rows' numbers have no gaps (SQLite), so that a gap is a row that went before it was sealed.
    pub gapless: bool,
    /// The public keys that the database holds for checkpoints. A convenience: whoever alters a file can write other keys into
    /// it.
    pub keys: Vec<PublicKey>,
}

/// A record in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRecord {
    /// Where it stands, from 0.
    pub position: u64,
    /// What was recorded.
    pub record: Record,
    /// Its hash as the log states it.
    pub hash: Hash,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
enum Wire {
    Log { version: u32, log: String, gapless: bool, keys: Vec<String> },
    Record(WireRecord),
    Checkpoint { note: String },
    End { records: u64, checkpoints: u64 },
}

/// A record as JSON, here and in proofs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireRecord {
    position: u64,
    seq: i64,
    id: String,
    at: i64,
    actor: String,
    action: String,
    subject: String,
    detail: String,
    hash: String,
}

impl From<&SealedRecord> for WireRecord {
    fn from(sealed: &SealedRecord) -> Self {
        let r = sealed.record.clone();
        Self {
            position: sealed.position,
            seq: r.seq,
            id: r.id,
            at: r.at.0,
            actor: r.actor,
            action: r.action,
            subject: r.subject,
            detail: r.detail,
            hash: hex::encode(sealed.hash),
        }
    }
}

impl WireRecord {
    pub(super) fn read(self) -> Option<SealedRecord> {
        let Self { position, seq, id, at, actor, action, subject, detail, hash } = self;
        let record = Record { seq, id, at: Timestamp(at), actor, action, subject, detail };
        Some(SealedRecord { position, record, hash: read_hash(&hash)? })
    }
}

impl Line {
    /// The line, without its end.
    pub fn to_text(&self) -> String {
        let wire = match self {
            Self::Log(log) => Wire::Log {
                version: EXPORT_VERSION,
                log: log.log.to_string(),
                gapless: log.gapless,
                keys: log.keys.iter().map(PublicKey::to_base64).collect(),
            },
            Self::Record(sealed) => Wire::Record(sealed.into()),
            Self::Checkpoint(note) => Wire::Checkpoint { note: note.clone() },
            Self::End { records, checkpoints } => Wire::End { records: *records, checkpoints: *checkpoints },
        };
        // Text and whole numbers only: there is nothing in it that JSON can't say.
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// Reads a line, without its end.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        if text.len() > LINE_LIMIT_BYTES {
            return Err(LineError::TooLong);
        }
        let line = match serde_json::from_str(text).map_err(|e| LineError::NotALine(e.to_string()))? {
            Wire::Log { version, .. } if version != EXPORT_VERSION => return Err(LineError::Version(version)),
            Wire::Log { log, gapless, keys, .. } => {
                let keys = keys.iter().map(|key| PublicKey::parse_all(key).ok()?.pop()).collect::<Option<_>>();
                let log = LogId::parse(&log).ok_or_else(|| LineError::NotALine("the log's name is none".into()))?;
                Self::Log(LogLine { log, gapless, keys: keys.ok_or_else(|| LineError::NotALine("a key is none".into()))? })
            }
            Wire::Record(record) => {
                Self::Record(record.read().ok_or_else(|| LineError::NotALine("its hash is no SHA-256 in hex".into()))?)
            }
            Wire::Checkpoint { note } => Self::Checkpoint(note),
            Wire::End { records, checkpoints } => Self::End { records, checkpoints },
        };
        if line.to_text() == text { Ok(line) } else { Err(LineError::OtherSpelling) }
    }
}

/// A hash in hex, lower case.
pub(super) fn read_hash(text: &str) -> Option<Hash> {
    let hash: Hash = hex::decode(text).ok()?.try_into().ok()?;
    (hex::encode(hash) == text).then_some(hash)
}

/// Why a text is no line of an export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Longer than any line.
    #[error("it is longer than {LINE_LIMIT_BYTES} bytes")]
    TooLong,
    /// Not JSON, or not of this shape.
    #[error("it is no line of an audit export: {0}")]
    NotALine(String),
    /// Written by another version.
    #[error("it has version {0}, this program reads version {EXPORT_VERSION}")]
    Version(u32),
    /// It means something, but is not written as an export writes it.
    #[error("it is not spelt as an export spells it: bytes were altered")]
    OtherSpelling,
}
