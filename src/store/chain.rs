//! The audit trail as a chain: rows that are written get their place in it later, by one sealer at a time.
//!
//! Sealing takes rows that are committed and in no place yet, in the order of their row numbers, and writes place and hash for
//! each. The chain's end is one row that changes in the transaction that writes the places, so of two sealers one waits or begins
//! anew, and each position is given once. SQLite commits rows in the order of their numbers, so what is not sealed is what comes after the last
//! number that is. PostgreSQL does not: a lower number may be committed after a higher one was sealed. There, a trigger notes
//! each new row in a queue, and the sealer empties the queue; numbers in the chain then need not ascend, and gaps mean nothing (a
//! transaction that was rolled back leaves one too).

use async_trait::async_trait;

use super::StoreError;
use crate::clock::Timestamp;
use crate::ids::AuditId;
use crate::ledger::chain::{Chain, LogId};
use crate::ledger::export::SealedRecord;
use crate::ledger::merkle::Parts;

/// A signed checkpoint, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRecord {
    /// Over so many records.
    pub size: u64,
    /// When it was made.
    pub at: Timestamp,
    /// The signed note.
    pub note: String,
}

/// A row of the books and its row of the audit trail do not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The transfer or receipt.
    pub subject: String,
    /// What is wrong.
    pub what: DisagreementKind,
}

/// In which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisagreementKind {
    /// It stands in the books, and no audit row tells of it.
    NotAudited,
    /// Its audit row tells something else.
    Differs,
    /// An audit row tells of it, and it does not stand in the books.
    NotInTheBooks,
}

impl DisagreementKind {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotAudited => "stands in the books, but no audit row tells of it",
            Self::Differs => "stands in the books otherwise than its audit row tells",
            Self::NotInTheBooks => "is told of by an audit row, but does not stand in the books",
        }
    }
}

/// The audit trail as a chain.
#[async_trait]
pub trait AuditChain: Send + Sync {
    /// Whether row numbers have no gaps in this database, so that a gap is a row that went before it was sealed.
    fn rows_are_gapless(&self) -> bool;
    /// Gives up to `limit` rows their place, in ONE transaction; says how many. The first time the log is named `fresh`.
    async fn seal(&self, fresh: &LogId, limit: u32) -> Result<u32, StoreError>;
    /// Numbers of rows that were noted when they were written and are gone, never sealed: the lowest `limit`. Always none where row numbers have
    /// no gaps: there a gap in the chain tells.
    async fn lost(&self, limit: u32) -> Result<Vec<i64>, StoreError>;
    /// The chain's end. `None` while nothing was sealed.
    async fn chain(&self) -> Result<Option<Chain>, StoreError>;
    /// How many rows wait for their place.
    async fn unsealed(&self) -> Result<u64, StoreError>;
    /// Sealed records from a position on, in order.
    async fn sealed(&self, from: u64, limit: u32) -> Result<Vec<SealedRecord>, StoreError>;
    /// Where a record stands; `None` if it is not sealed, or does not exist.
    async fn position_of(&self, id: &AuditId) -> Result<Option<u64>, StoreError>;
    /// What proofs about the first `size` records need: the roots of their full tiles, and the leaves of these tiles.
    async fn tree(&self, size: u64, tiles: &[u64]) -> Result<Parts, StoreError>;

    /// Keeps a checkpoint; `false` if there is one of this size already.
    async fn add_checkpoint(&self, checkpoint: &CheckpointRecord) -> Result<bool, StoreError>;
    /// Checkpoints over more than `size` records, the smallest first.
    async fn checkpoints_after(&self, size: u64, limit: u32) -> Result<Vec<CheckpointRecord>, StoreError>;
    /// The latest one.
    async fn last_checkpoint(&self) -> Result<Option<CheckpointRecord>, StoreError>;

    /// Compares the books with the audit trail, row by row; gives the first `limit` disagreements.
    async fn disagreements(&self, limit: u32) -> Result<Vec<Disagreement>, StoreError>;
}
