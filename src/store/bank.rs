//! What a bank tells us of deductions, and what follows: the journal that [`crate::payment::pairing`] is folded from.
//!
//! A reference is written by whoever has read all of it: of two nodes that append at once, one gets `Conflict`, reads again and
//! decides again. Which references are open or have messages in quarantine stands beside the journal, so that finding them costs
//! the same whatever has gone before.

use async_trait::async_trait;

use super::{AuditRecord, StoreError};
use crate::clock::Timestamp;
use crate::ids::RequestId;
use crate::payment::pairing::{Decision, Entry, Pairing};

/// A bank's answer to an instruction, as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BankAnswer {
    /// Under which reference.
    pub reference: RequestId,
    /// Which event of it, from 0.
    pub number: u64,
    /// The event, an [`Answered`](crate::payment::pairing::Event::Answered), and when it was recorded.
    pub entry: Entry,
}

/// The journal of deductions.
#[async_trait]
pub trait Bank: Send + Sync {
    /// Appends a decision's entries and the audit rows, in ONE transaction; without entries, nothing. `Conflict` if the reference
    /// has grown since it was read; `Exists` if the id of a message that was received is another reference's ([`MESSAGE_ID`]):
    /// then nothing was written.
    async fn append_deduction(&self, decision: &Decision, audit: &[AuditRecord]) -> Result<(), StoreError>;
    /// All that stands under a reference, in order.
    async fn deduction_journal(&self, reference: &RequestId) -> Result<Vec<Entry>, StoreError>;
    /// References that wait for a side or for the bank's answer, with the length of their journals; by name, those after `after`.
    async fn open_deductions(&self, after: Option<&RequestId>, limit: u32) -> Result<Vec<(RequestId, u64)>, StoreError>;
    /// References with messages in quarantine, by name, those after `after`.
    async fn quarantined_deductions(&self, after: Option<&RequestId>, limit: u32) -> Result<Vec<RequestId>, StoreError>;
    /// The bank's answers that were recorded at `from` or later but before `until`, the earliest first, those after `after`.
    async fn bank_answers(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: Option<&BankAnswer>,
        limit: u32,
    ) -> Result<Vec<BankAnswer>, StoreError>;
}

/// What others have changed, where it is a reference's journal.
pub(super) const JOURNAL: &str = "journal of this deduction";
/// What is said to exist already, where a message's id was seen under another reference.
pub const MESSAGE_ID: &str = "a message of the bank with this id";

/// What stands under a reference.
pub async fn pairing(store: &dyn super::Store, reference: &RequestId) -> Result<Pairing, StoreError> {
    let journal = store.deduction_journal(reference).await?;
    let damaged = |e: crate::payment::pairing::Misfit| StoreError::Damaged { table: "bank_events", why: e.to_string() };
    Pairing::replay(reference.clone(), &journal).map_err(damaged)
}
