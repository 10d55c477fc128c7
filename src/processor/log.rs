//! Reads the sealed log: as the lines of an export, and as proofs.

use crate::ids::{AuditId, ReceiptId};
use crate::ledger::checkpoint::Checkpoint;
use crate::ledger::export::{Line, LogLine};
use crate::ledger::merkle::Parts;
use crate::ledger::proof::InclusionProof;
use crate::store::chain::CheckpointRecord;
use crate::store::{Store, StoreError};
use crate::vault::SigningPurpose;

/// Records read at a time.
const PAGE_RECORDS: u32 = 1_000;
/// Checkpoints read at a time.
const PAGE_CHECKPOINTS: u32 = 1_000;
/// The action of the audit row that remembers a receipt.
pub const RECEIPT_ACTION: &str = "receipt.issued";

/// Why the log was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    /// The database; after so many records.
    #[error("{error}, after {records} records that are well")]
    Store {
        /// How many were read before.
        records: u64,
        /// What it says.
        error: StoreError,
    },
    /// There is no log yet.
    #[error("nothing has been sealed yet: `voicepay audit checkpoint` seals what there is")]
    Empty,
    /// Whoever takes the lines wants no more.
    #[error(transparent)]
    Taker(E),
}

/// Hands the log as it stands now to `take`, line by line. Records that are sealed meanwhile are not in it.
pub async fn lines<E>(store: &dyn Store, mut take: impl FnMut(Line) -> Result<(), E>) -> Result<(), ReadError<E>> {
    let failed = |records| move |error| ReadError::Store { records, error };
    let end = store.chain().await.map_err(failed(0))?.ok_or(ReadError::Empty)?;
    let keys = store.signing_keys(SigningPurpose::Checkpoints).await.map_err(failed(0))?;
    let keys = keys.into_iter().map(|key| key.public).collect();
    take(Line::Log(LogLine { log: end.log().clone(), gapless: store.rows_are_gapless(), keys })).map_err(ReadError::Taker)?;

    let mut notes = Notes { page: Vec::new().into_iter(), read_to: 0, next: None };
    notes.advance(store).await.map_err(failed(0))?;
    let (mut records, mut checkpoints) = (0, 0);
    while records < end.size() {
        let page = store.sealed(records, PAGE_RECORDS).await.map_err(failed(records))?;
        if page.is_empty() {
            break; // the last line counts what there was, and whoever verifies misses the rest
        }
        for record in page.into_iter().take(usize::try_from(end.size() - records).unwrap_or(usize::MAX)) {
            take(Line::Record(record)).map_err(ReadError::Taker)?;
            records += 1;
            while let Some(note) = notes.next.take_if(|next| next.size <= records) {
                take(Line::Checkpoint(note.note)).map_err(ReadError::Taker)?;
                checkpoints += 1;
                notes.advance(store).await.map_err(failed(records))?;
            }
        }
    }
    take(Line::End { records: end.size(), checkpoints }).map_err(ReadError::Taker)
}

/// Checkpoints, in order, read page by page.
struct Notes {
    page: std::vec::IntoIter<CheckpointRecord>,
    read_to: u64,
    next: Option<CheckpointRecord>,
}

impl Notes {
    async fn advance(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        if self.page.len() == 0 {
            self.page = store.checkpoints_after(self.read_to, PAGE_CHECKPOINTS).await?.into_iter();
        }
        self.next = self.page.next();
        if let Some(next) = &self.next {
            self.read_to = next.size;
        }
        Ok(())
    }
}

/// The proof that the record at `position` is in the log that the first checkpoint after it signs. `None`: no checkpoint covers
/// it yet.
pub async fn prove(store: &dyn Store, position: u64) -> Result<Option<InclusionProof>, StoreError> {
    let Some(checkpoint) = store.checkpoints_after(position, 1).await?.pop() else { return Ok(None) };
    let from = position.saturating_sub(1);
    let records = store.sealed(from, 2).await?;
    let damaged = || StoreError::Damaged { table: "audit_chain", why: format!("position {position} can't be proven") };
    let sealed = records.iter().find(|r| r.position == position).ok_or_else(damaged)?;
    let previous = match records.first().filter(|r| r.position < position) {
        Some(before) => before.hash,
        None => Checkpoint::claimed(&checkpoint.note).ok_or_else(damaged)?.log.genesis(),
    };
    let parts = store.tree(checkpoint.size, &Parts::tiles_needed(position, checkpoint.size)).await?;
    let path = parts.inclusion(position).ok_or_else(damaged)?;
    Ok(Some(InclusionProof::new(sealed, &previous, &path, checkpoint.note)))
}

/// The audit row that remembers a receipt: its identifier is the receipt's with another prefix.
pub fn audit_row_of(receipt: &ReceiptId) -> Option<AuditId> {
    let (_, random) = receipt.as_str().split_once('_')?;
    AuditId::parse(&format!("{}_{random}", AuditId::PREFIX)).ok()
}

/// The proof that a receipt is in the log. `None`: it is not sealed, or no checkpoint covers it yet.
pub async fn prove_receipt(store: &dyn Store, receipt: &ReceiptId) -> Result<Option<InclusionProof>, StoreError> {
    let Some(id) = audit_row_of(receipt) else { return Ok(None) };
    match store.position_of(&id).await? {
        Some(position) => prove(store, position).await,
        None => Ok(None),
    }
}
