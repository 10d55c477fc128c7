//! What must hold of the audit trail at any moment, whoever was just killed: chain, tree, checkpoints and receipts verify, books and audit agree, and
//! what was once signed stays a beginning of the log.

use super::check::all_payments;
use voicepay::ledger::checkpoint::Checkpoint;
use voicepay::ledger::document::SignedDocument;
use voicepay::ledger::keys::PublicKey;
use voicepay::ledger::verifier::{Report, Trust, Verifier};
use voicepay::payment::Receipt;
use voicepay::processor::document;
use voicepay::processor::log::{self, RECEIPT_ACTION, ReadError};
use voicepay::processor::sealer::{AuditConfig, Sealer};
use voicepay::store::Store;
use voicepay::vault::SigningPurpose;

/// How many things that are wrong are named.
const WRONG_LIMIT: u32 = 9;

/// Seals and signs so often that most lives are in the middle of it.
pub fn quick() -> AuditConfig {
    AuditConfig { seal_ms: 10, batch_rows: 20, checkpoint_rows: 40, checkpoint_s: 1 }
}

/// What earlier looks at the same database saw.
#[derive(Debug, Default)]
pub struct Seen {
    records: u64,
    signed: Option<Checkpoint>,
}

impl Seen {
    /// Looks at all of it; says what is wrong.
    pub async fn look(&mut self, store: &dyn Store) -> Vec<String> {
        let mut wrong = Vec::new();
        match self.verify(store).await {
            Ok(Some(report)) if report.records < self.records => {
                wrong.push(format!("audit: {} records, and {} were sealed before", report.records, self.records));
            }
            Ok(Some(report)) => (self.records, self.signed) = (report.records, report.signed),
            Ok(None) if self.records > 0 => wrong.push("audit: the log is gone".into()),
            Ok(None) => {}
            Err(why) => wrong.push(format!("audit: {why}")),
        }
        let disagreements = store.disagreements(WRONG_LIMIT).await.unwrap();
        wrong.extend(disagreements.iter().map(|d| format!("audit: {} {}", d.subject, d.what.text())));
        wrong.extend(store.lost(WRONG_LIMIT).await.unwrap().iter().map(|row| format!("audit: row {row} is gone")));
        let keys = keys(store).await;
        for receipt in all_payments(store).await.into_iter().filter_map(|p| p.receipt) {
            let signed = SignedDocument { proof: log::prove_receipt(store, &receipt.id).await.unwrap(), ..document(&receipt) };
            if let Err(why) = signed.verify(Receipt::KIND, RECEIPT_ACTION, &keys) {
                wrong.push(format!("receipt {}: {why}", receipt.reference));
            }
        }
        wrong
    }

    /// `None`: nothing was sealed yet.
    async fn verify(&self, store: &dyn Store) -> Result<Option<Report>, String> {
        let mut verifier = Verifier::new(Trust::Keys(keys(store).await), self.signed.iter().cloned().collect());
        match log::lines(store, |line| verifier.line(line)).await {
            Ok(()) => verifier.finish().map(Some).map_err(|fault| fault.to_string()),
            Err(ReadError::Empty) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

async fn keys(store: &dyn Store) -> Vec<PublicKey> {
    let mut keys = Vec::new();
    for purpose in SigningPurpose::ALL {
        keys.extend(store.signing_keys(purpose).await.unwrap().into_iter().map(|key| key.public));
    }
    keys
}

/// When all is over: every row is sealed, the log is signed to its end, and each receipt is proven to be in it.
pub async fn sealed_to_the_end(store: &dyn Store, sealer: &Sealer) -> Vec<String> {
    sealer.seal_all().await.unwrap();
    sealer.checkpoint().await.unwrap();
    let mut wrong = Vec::new();
    for receipt in all_payments(store).await.into_iter().filter_map(|p| p.receipt) {
        if log::prove_receipt(store, &receipt.id).await.unwrap().is_none() {
            wrong.push(format!("receipt {}: no checkpoint covers it", receipt.reference));
        }
    }
    wrong
}
