//! PURE. The proof that one record is in the log, for somebody who has nothing but it and a public key: the record, the hash
//! before it, the path to the root, and the checkpoint that signs the root.

use serde::{Deserialize, Serialize};

use super::chain::Record;
use super::checkpoint::{Checkpoint, NoteError};
use super::export::{SealedRecord, WireRecord, read_hash};
use super::keys::PublicKey;
use super::merkle::{Hash, includes};

/// An inclusion proof (RFC 6962 §2.1.1) with all that it is about. The leaf is the record's hash in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionProof {
    /// The record in its place.
    record: WireRecord,
    /// The hash of the record before it, in hex; of the first: the log's genesis.
    previous: String,
    /// Siblings from the leaf up, in hex.
    path: Vec<String>,
    /// The signed note.
    checkpoint: String,
}

impl InclusionProof {
    /// Joins the parts.
    pub fn new(sealed: &SealedRecord, previous: &Hash, path: &[Hash], checkpoint: String) -> Self {
        Self { record: sealed.into(), previous: hex::encode(previous), path: path.iter().map(hex::encode).collect(), checkpoint }
    }

    /// Checks it with these keys alone: gives the record, the checkpoint, and who signed that.
    pub fn verify(&self, keys: &[PublicKey]) -> Result<(Record, Checkpoint, PublicKey), ProofError> {
        let (checkpoint, signer) = Checkpoint::open(&self.checkpoint, keys)?;
        let SealedRecord { position, record, hash } = self.record.clone().read().ok_or(ProofError::Malformed)?;
        let previous = read_hash(&self.previous).ok_or(ProofError::Malformed)?;
        let path = self.path.iter().map(|h| read_hash(h)).collect::<Option<Vec<_>>>().ok_or(ProofError::Malformed)?;
        if record.chained(&previous, position) != hash || (position == 0 && previous != checkpoint.log.genesis()) {
            return Err(ProofError::Hash);
        }
        if !includes(&checkpoint.root, checkpoint.size, position, &hash, &path) {
            return Err(ProofError::Path);
        }
        Ok((record, checkpoint, signer))
    }
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A hash is none.
    #[error("a hash in it is no SHA-256 in hex")]
    Malformed,
    /// The checkpoint.
    #[error("the checkpoint is not good: {0}")]
    Note(#[from] NoteError),
    /// The record does not have its hash.
    #[error("the record does not have its hash: it was altered")]
    Hash,
    /// The path does not lead to the root.
    #[error("the record is not in the log that the checkpoint signs")]
    Path,
}
