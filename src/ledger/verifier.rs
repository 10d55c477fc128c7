//! PURE. Verifies a whole log, line by line, with nothing but the lines and public keys: chain, tree, signatures, and that each
//! checkpoint goes on from the one before. Says the first record that is wrong. Memory does not grow with the log.

use super::chain::{Chain, LogId};
use super::checkpoint::{Checkpoint, NoteError};
use super::export::{Line, LineError, SealedRecord};
use super::keys::PublicKey;
use crate::clock::Timestamp;

/// Whose signatures count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// These keys', from elsewhere: all that the log was ever signed with.
    Keys(Vec<PublicKey>),
    /// Those of the keys that the log itself names: shows that it is of one piece, not whose it is.
    TheLogsOwn,
}

/// Verifies one log.
#[derive(Debug)]
pub struct Verifier {
    trust: Trust,
    /// Checkpoints from elsewhere, largest size first: each is held against the log where it has grown so far.
    held: Vec<Checkpoint>,
    log: Option<Open>,
    ended: bool,
}

#[derive(Debug)]
struct Open {
    chain: Chain,
    gapless: bool,
    keys: Vec<PublicKey>,
    last_seq: i64,
    checkpoints: u64,
    signed: Option<Checkpoint>,
    first_at: Option<Timestamp>,
    last_at: Option<Timestamp>,
}

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which log.
    pub log: LogId,
    /// How many records it has, all of them well.
    pub records: u64,
    /// How many checkpoints, all of them well.
    pub checkpoints: u64,
    /// The last checkpoint. Records after it are chained, and signed by nobody yet.
    pub signed: Option<Checkpoint>,
    /// When the first record was written.
    pub first_at: Option<Timestamp>,
    /// When the last one was.
    pub last_at: Option<Timestamp>,
}

impl Verifier {
    /// Starts. `held`: checkpoints that were kept elsewhere, whose signatures were checked; the log must contain them.
    pub fn new(trust: Trust, mut held: Vec<Checkpoint>) -> Self {
        held.sort_by_key(|c| std::cmp::Reverse(c.size));
        Self { trust, held, log: None, ended: false }
    }

    /// How many records were well so far.
    pub fn records(&self) -> u64 {
        self.log.as_ref().map_or(0, |open| open.chain.size())
    }

    /// Takes the next line as text.
    pub fn text(&mut self, text: &str) -> Result<(), Fault> {
        let line = Line::parse(text).map_err(|why| self.fault(Wrong::Line(why)))?;
        self.line(line)
    }

    /// Takes the next line.
    pub fn line(&mut self, line: Line) -> Result<(), Fault> {
        if self.ended {
            return Err(self.fault(Wrong::AfterTheEnd));
        }
        match (line, &mut self.log) {
            (Line::Log(line), None) => {
                let keys = match &self.trust {
                    Trust::Keys(keys) => {
                        if let Some(key) = line.keys.iter().find(|key| !keys.contains(key)) {
                            let what = Wrong::StrangeKey { id: key.id() };
                            return Err(self.fault(what));
                        }
                        keys.clone()
                    }
                    Trust::TheLogsOwn => line.keys,
                };
                self.log = Some(Open {
                    chain: Chain::new(line.log),
                    gapless: line.gapless,
                    keys,
                    last_seq: 0,
                    checkpoints: 0,
                    signed: None,
                    first_at: None,
                    last_at: None,
                });
                self.hold()
            }
            (Line::Record(sealed), Some(open)) => {
                open.record(&sealed).map_err(|what| Fault { position: open.chain.size(), id: Some(sealed.record.id), what })?;
                self.hold()
            }
            (Line::Checkpoint(note), Some(open)) => {
                open.checkpoint(&note).map_err(|what| Fault { position: open.chain.size(), id: None, what })
            }
            (Line::End { records, checkpoints }, Some(open)) => {
                if records != open.chain.size() || checkpoints != open.checkpoints {
                    let what = Wrong::Counts { records, checkpoints, checkpoints_seen: open.checkpoints };
                    return Err(self.fault(what));
                }
                self.ended = true;
                Ok(())
            }
            (Line::Log(_), Some(_)) => Err(self.fault(Wrong::SecondLog)),
            (Line::Record(_) | Line::Checkpoint(_) | Line::End { .. }, None) => Err(self.fault(Wrong::NoLog)),
        }
    }

    /// There are no more lines.
    pub fn finish(self) -> Result<Report, Fault> {
        if !self.ended {
            return Err(self.fault(Wrong::Cut));
        }
        if let Some(held) = self.held.last() {
            return Err(self.fault(Wrong::ShorterThanHeld { size: held.size }));
        }
        match self.log {
            Some(Open { chain, checkpoints, signed, first_at, last_at, .. }) => {
                Ok(Report { log: chain.log().clone(), records: chain.size(), checkpoints, signed, first_at, last_at })
            }
            None => Err(self.fault(Wrong::NoLog)),
        }
    }

    /// Holds the log against checkpoints from elsewhere that are as long as it is now.
    fn hold(&mut self) -> Result<(), Fault> {
        let Some(open) = &self.log else { return Ok(()) };
        while let Some(held) = self.held.pop_if(|c| c.size <= open.chain.size()) {
            if Checkpoint::of(&open.chain, held.at) != held {
                return Err(self.fault(Wrong::OtherThanHeld { size: held.size }));
            }
        }
        Ok(())
    }

    fn fault(&self, what: Wrong) -> Fault {
        Fault { position: self.records(), id: None, what }
    }
}

impl Open {
    fn record(&mut self, sealed: &SealedRecord) -> Result<(), Wrong> {
        let expected = self.chain.size();
        if sealed.position != expected {
            return Err(Wrong::Position { found: sealed.position });
        }
        let hash = sealed.record.chained(self.chain.head(), expected);
        if hash != sealed.hash {
            return Err(Wrong::Hash);
        }
        let seq = sealed.record.seq;
        if self.gapless && self.last_seq.checked_add(1) != Some(seq) {
            return Err(if seq > self.last_seq { Wrong::Gap { after: self.last_seq, before: seq } } else { Wrong::Order });
        }
        self.last_seq = seq;
        self.first_at = self.first_at.or(Some(sealed.record.at));
        self.last_at = Some(sealed.record.at);
        self.chain.follow(hash, expected);
        Ok(())
    }

    fn checkpoint(&mut self, note: &str) -> Result<(), Wrong> {
        let (found, _) = Checkpoint::open(note, &self.keys).map_err(Wrong::Note)?;
        let since = self.signed.as_ref().map_or(0, |c| c.size);
        if found.log != *self.chain.log() {
            return Err(Wrong::OtherLog { name: found.log });
        }
        if found.size != self.chain.size() {
            return Err(Wrong::CheckpointSize { size: found.size });
        }
        if found.root != self.chain.root() || found.head != *self.chain.head() {
            return Err(Wrong::Root { since });
        }
        self.checkpoints = self.checkpoints.saturating_add(1);
        self.signed = Some(found);
        Ok(())
    }
}

/// The first thing that is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How many records before it are well: the position of the first that is not, or that is missing.
    pub position: u64,
    /// The record that was found there, if one was.
    pub id: Option<String>,
    /// What is wrong.
    pub what: Wrong,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at position {}", self.position)?;
        if let Some(id) = &self.id {
            write!(f, " ({id})")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for Fault {}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// A line can't be read.
    #[error("the line can't be read: {0}")]
    Line(LineError),
    /// The log names a key that is not among the trusted ones.
    #[error("the log names the key {id}, which you did not give: give every key that the log was signed with, or trust none")]
    StrangeKey {
        /// Its name.
        id: String,
    },
    /// Another position is stated.
    #[error("a record that says it is at position {found} stands here: records were dropped, swapped, repeated or put in")]
    Position {
        /// What it says.
        found: u64,
    },
    /// The hash does not follow from the record before and the content.
    #[error("the record does not have its hash: it, or the record before it, was altered after it was sealed")]
    Hash,
    /// A row is missing that was never sealed.
    #[error("rows are missing between row {after} and row {before}: they went before they were sealed")]
    Gap {
        /// The row before the gap.
        after: i64,
        /// The row after it.
        before: i64,
    },
    /// Rows were sealed out of order where that can't be.
    #[error("the record's row number is not above the one before it")]
    Order,
    /// A checkpoint's signature or form.
    #[error("the checkpoint here is not good: {0}")]
    Note(NoteError),
    /// A checkpoint of another log.
    #[error("the checkpoint here is of another log, {name}")]
    OtherLog {
        /// Which.
        name: LogId,
    },
    /// A checkpoint stands where it does not belong.
    #[error("the checkpoint here is over {size} records: records or checkpoints were dropped, put in or moved")]
    CheckpointSize {
        /// Its size.
        size: u64,
    },
    /// The log was rewritten with new hashes.
    #[error(
        "the records are not those that were signed: one from position {since} on was replaced, and the hashes after it made anew"
    )]
    Root {
        /// Up to here an earlier checkpoint vouches for them.
        since: u64,
    },
    /// A checkpoint from elsewhere does not fit.
    #[error("the first {size} records are not those of the checkpoint that you hold: the log was rewritten")]
    OtherThanHeld {
        /// Its size.
        size: u64,
    },
    /// A checkpoint from elsewhere is over more records.
    #[error("the checkpoint that you hold is over {size} records: the log was cut")]
    ShorterThanHeld {
        /// Its size.
        size: u64,
    },
    /// The last line's counts.
    #[error("the last line counts {records} records and {checkpoints} checkpoints, but {checkpoints_seen} checkpoints were seen")]
    Counts {
        /// Records, as it says.
        records: u64,
        /// Checkpoints, as it says.
        checkpoints: u64,
        /// Checkpoints that there were.
        checkpoints_seen: u64,
    },
    /// No last line.
    #[error("the export ends without its last line: it was cut")]
    Cut,
    /// More than the last line.
    #[error("something stands after the last line")]
    AfterTheEnd,
    /// Two logs in one.
    #[error("a second log begins here")]
    SecondLog,
    /// It does not begin with a log.
    #[error("it does not begin with the line that names the log")]
    NoLog,
}

#[cfg(test)]
mod tests;
