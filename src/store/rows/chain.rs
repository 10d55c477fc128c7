//! Rows of the audit chain and of signing keys.

use super::{Columns, Reader};
use crate::ledger::chain::{Chain, LogId, Record};
use crate::ledger::export::SealedRecord;
use crate::ledger::keys::PublicKey;
use crate::ledger::merkle::Hash;
use crate::store::StoreError;
use crate::store::chain::{CheckpointRecord, Disagreement, DisagreementKind};
use crate::store::signing::SigningKeyRecord;
use crate::vault::SigningPurpose;

/// The chain's end.
pub(in crate::store) fn head<R: Columns>(row: &R) -> Result<Chain, StoreError> {
    let r = Reader::new(row, "audit_head");
    let log = r.word("log", LogId::parse)?;
    Chain::restore(log, hash(&r, "head")?, r.small("size")?, &r.bytes("frontier")?)
        .ok_or_else(|| r.damaged("its parts do not fit each other"))
}

/// An audit row as it is stored, its detail as text.
pub(in crate::store) fn record<R: Columns>(row: &R) -> Result<Record, StoreError> {
    let r = Reader::new(row, "audit");
    Ok(Record {
        seq: r.int("seq")?,
        id: r.text("id")?,
        at: r.at("at")?,
        actor: r.text("actor")?,
        action: r.text("action")?,
        subject: r.text("subject")?,
        detail: r.text("detail")?,
    })
}

/// Audit rows joined with their places, up to the first that can't be read; an error if that is the first of all. So whoever goes
/// through the log page by page has judged every record before the one that is damaged or gone.
pub(in crate::store) fn sealed<R: Columns>(rows: &[R]) -> Result<Vec<SealedRecord>, StoreError> {
    let mut read = Vec::with_capacity(rows.len());
    for row in rows {
        match sealed_row(row) {
            Ok(sealed) => read.push(sealed),
            Err(error) if read.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(read)
}

fn sealed_row<R: Columns>(row: &R) -> Result<SealedRecord, StoreError> {
    let r = Reader::new(row, "audit_chain");
    let position = r.small("position")?;
    if r.maybe_int("seq")?.is_none() {
        return Err(r.damaged(format_args!("the audit row at position {position} is gone")));
    }
    Ok(SealedRecord { position, record: record(row)?, hash: hash(&r, "hash")? })
}

/// A hash in a column.
pub(in crate::store) fn hash<R: Columns>(r: &Reader<'_, R>, column: &str) -> Result<Hash, StoreError> {
    r.bytes(column)?.try_into().map_err(|_| r.damaged(format_args!("{column} is no SHA-256")))
}

pub(in crate::store) fn checkpoint<R: Columns>(row: &R) -> Result<CheckpointRecord, StoreError> {
    let r = Reader::new(row, "audit_checkpoints");
    Ok(CheckpointRecord { size: r.small("size")?, at: r.at("at")?, note: r.text("note")? })
}

/// `subject` and `what`: a word of its own for each kind.
pub(in crate::store) fn disagreement<R: Columns>(row: &R) -> Result<Disagreement, StoreError> {
    let r = Reader::new(row, "transfers");
    let what = r.word("what", |word| match word {
        "not audited" => Some(DisagreementKind::NotAudited),
        "differs" => Some(DisagreementKind::Differs),
        "not in the books" => Some(DisagreementKind::NotInTheBooks),
        _ => None,
    })?;
    Ok(Disagreement { subject: r.text("subject")?, what })
}

pub(in crate::store) fn signing_key<R: Columns>(row: &R) -> Result<SigningKeyRecord, StoreError> {
    let r = Reader::new(row, "signing_keys");
    Ok(SigningKeyRecord {
        purpose: r.word("purpose", SigningPurpose::parse)?,
        version: r.small("version")?,
        public: PublicKey::new(hash(&r, "public")?),
        made_at: r.at("made_at")?,
    })
}
