//! The bank's journal: one JSON object a line, appended and synced before an answer leaves. It holds no card number: a keyed hash and the last four
//! digits.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::money::Money;
use crate::payment::Operation;

/// One thing that the bank saw and what it did about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalLine {
    /// When.
    pub at: Timestamp,
    /// The reference that we gave.
    pub our_reference: String,
    /// The idempotency key that we gave.
    pub key: String,
    /// A keyed hash of the card number.
    pub card: String,
    /// Its last four digits.
    pub last4: String,
    /// What was asked.
    #[serde(default = "charge")]
    pub operation: Operation,
    /// Our reference of what is captured, voided or refunded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// How much we asked for.
    pub asked: Money,
    /// What the bank did.
    pub did: Did,
    /// What it moved or reserved, if it did.
    pub charged: Option<Money>,
    /// Whether its answer was lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// Journals from before there were other operations hold charges only.
fn charge() -> Operation {
    Operation::Charge
}

/// What the bank did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Did {
    /// Charged and answered.
    Charged,
    /// Charged; the answer is lost.
    ChargedSilently,
    /// Charged, the answer is lost, and taken back.
    ChargedThenReversed,
    /// Reserved on the card.
    Authorised,
    /// Took what was authorised, or a part.
    Captured,
    /// Gave back what was authorised.
    Voided,
    /// Gave back what was charged or captured, or a part.
    Refunded,
    /// Declined.
    DeclinedInsufficientFunds,
    /// Declined.
    DeclinedExpiredCard,
    /// Declined.
    DeclinedDoNotHonour,
    /// Declined: more than is left, or nothing there to capture, void or refund.
    DeclinedInvalidAmount,
    /// Lost before it did anything; no answer.
    Lost,
    /// A server error; it did nothing.
    ServerError,
    /// The same key again: it did nothing new and answered as before.
    Repeated,
    /// The same key with other content: it did nothing.
    KeyMisused,
}

impl Did {
    /// Whether money was taken from the card.
    pub fn charged(self) -> bool {
        match self {
            Self::Charged | Self::ChargedSilently | Self::ChargedThenReversed | Self::Captured => true,
            Self::Authorised
            | Self::Voided
            | Self::Refunded
            | Self::DeclinedInsufficientFunds
            | Self::DeclinedExpiredCard
            | Self::DeclinedDoNotHonour
            | Self::DeclinedInvalidAmount
            | Self::Lost
            | Self::ServerError
            | Self::Repeated
            | Self::KeyMisused => false,
        }
    }

    /// Whether the bank did what it was asked for, and did not take it back.
    pub fn done(self) -> bool {
        match self {
            Self::Charged | Self::ChargedSilently | Self::Authorised | Self::Captured | Self::Voided | Self::Refunded => true,
            Self::ChargedThenReversed
            | Self::DeclinedInsufficientFunds
            | Self::DeclinedExpiredCard
            | Self::DeclinedDoNotHonour
            | Self::DeclinedInvalidAmount
            | Self::Lost
            | Self::ServerError
            | Self::Repeated
            | Self::KeyMisused => false,
        }
    }

    /// Whether the bank remembers it under its key.
    pub(super) fn decided(self) -> bool {
        match self {
            Self::Charged
            | Self::ChargedSilently
            | Self::ChargedThenReversed
            | Self::Authorised
            | Self::Captured
            | Self::Voided
            | Self::Refunded
            | Self::DeclinedInsufficientFunds
            | Self::DeclinedExpiredCard
            | Self::DeclinedDoNotHonour
            | Self::DeclinedInvalidAmount => true,
            Self::Lost | Self::ServerError | Self::Repeated | Self::KeyMisused => false,
        }
    }
}

/// What is wrong with the sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Its journal can't be used.
    #[error("the sandbox journal {} can't be used: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its journal was altered.
    #[error("line {line} of the sandbox journal {} is damaged; move the file away to start anew", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

/// The open journal.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    /// Up to where its lines are known, in bytes. Another process may append too.
    known_bytes: u64,
}

impl Journal {
    /// Opens or makes it. Its lines are not known yet: see [`Journal::news`].
    pub(super) fn open(path: &Path) -> Result<Self, SandboxError> {
        let io = |source| SandboxError::Io { path: path.to_owned(), source };
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(io)?;
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(io)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io)?;
        // A kill in the middle of a write leaves half a line: nobody was answered because of it, so it never was.
        let whole = whole_lines(&text);
        if whole < text.len() {
            file.set_len(u64::try_from(whole).unwrap_or(0)).and_then(|()| file.sync_all()).map_err(io)?;
        }
        Ok(Self { file, path: path.to_owned(), known_bytes: 0 })
    }

    /// A handle that syncs it.
    pub(super) fn syncing(&self) -> std::io::Result<GroupSync> {
        Ok(GroupSync { file: self.file.try_clone()?, path: self.path.clone(), synced_bytes: Mutex::new(0) })
    }

    /// Lines that are not known yet: all of them after opening, later those of other processes.
    pub(super) fn news(&mut self) -> Result<Vec<JournalLine>, SandboxError> {
        let io = |source| SandboxError::Io { path: self.path.clone(), source };
        if self.file.metadata().map_err(io)?.len() <= self.known_bytes {
            return Ok(Vec::new());
        }
        let mut text = Vec::new();
        self.file.seek(SeekFrom::Start(self.known_bytes)).and_then(|_| self.file.read_to_end(&mut text)).map_err(io)?;
        let whole = whole_lines(&text);
        let lines = parse(text.get(..whole).unwrap_or_default(), &self.path)?;
        self.known_bytes = self.known_bytes.saturating_add(u64::try_from(whole).unwrap_or(0));
        Ok(lines)
    }

    /// Appends a line; gives up to where the file must be synced before anybody is told.
    pub(super) fn append(&mut self, line: &JournalLine) -> Result<u64, SandboxError> {
        let path = self.path.clone();
        let io = |source| SandboxError::Io { path: path.clone(), source };
        let mut text = serde_json::to_string(line).map_err(|e| io(e.into()))?;
        text.push('\n');
        if let Err(full) = self.file.write_all(text.as_bytes()) {
            // On a full disk a part may have found room. Left there, it and the next line would make one that nobody can read.
            self.cut_half_a_line().map_err(&io)?;
            return Err(io(full));
        }
        let end = self.file.stream_position().map_err(&io)?;
        // Unless another process has written in between, this line need not be read again; if it has, both are, and known twice is known once.
        if end.saturating_sub(u64::try_from(text.len()).unwrap_or(0)) == self.known_bytes {
            self.known_bytes = end;
        }
        Ok(end)
    }

    /// Takes away what stands after the last whole line.
    fn cut_half_a_line(&mut self) -> std::io::Result<()> {
        let mut text = Vec::new();
        self.file.seek(SeekFrom::Start(self.known_bytes))?;
        self.file.read_to_end(&mut text)?;
        let whole = whole_lines(&text);
        if whole < text.len() {
            self.file.set_len(self.known_bytes.saturating_add(u64::try_from(whole).unwrap_or(0)))?;
        }
        Ok(())
    }
}

/// Syncs for many at once: whoever waits while another syncs is often served by it, or by the next.
pub(super) struct GroupSync {
    file: File,
    path: PathBuf,
    synced_bytes: Mutex<u64>,
}

impl GroupSync {
    /// Waits until everything up to `end` is on disk.
    pub(super) fn up_to(&self, end: u64) -> Result<(), SandboxError> {
        let io = |source| SandboxError::Io { path: self.path.clone(), source };
        let mut synced = self.synced_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if *synced >= end {
            return Ok(());
        }
        let written = self.file.metadata().map_err(io)?.len();
        self.file.sync_data().map_err(io)?;
        *synced = written;
        Ok(())
    }
}

/// Reads a journal, as tests and commands do.
pub(super) fn read(path: &Path) -> Result<Vec<JournalLine>, SandboxError> {
    let text = std::fs::read(path).map_err(|source| SandboxError::Io { path: path.to_owned(), source })?;
    parse(text.get(..whole_lines(&text)).unwrap_or_default(), path)
}

fn whole_lines(text: &[u8]) -> usize {
    text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)
}

fn parse(text: &[u8], path: &Path) -> Result<Vec<JournalLine>, SandboxError> {
    let damaged = |i: usize| SandboxError::Damaged { path: path.to_owned(), line: i + 1 };
    let lines = text.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    lines.enumerate().map(|(i, line)| serde_json::from_slice(line).map_err(|_| damaged(i))).collect()
}
