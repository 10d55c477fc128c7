//! Receipts are signed when they are made, before the transaction that stores them.

use super::Inner;
use crate::ledger::document::{DocumentSignature, SignedDocument, canonical, digest};
use crate::ledger::keys::PublicKey;
use crate::payment::{Receipt, ReceiptSignature};
use crate::store::{Settlement, StoreError, UnlockError};
use crate::vault::SigningKey;

impl Inner {
    /// Signs the receipt of a settlement, if it has one. Without a usable key the payment is recorded all the same, with an
    /// unsigned receipt: money that moved must not stay in doubt for want of a signature.
    pub(super) async fn sign_receipt(&self, settlement: &mut Settlement) -> Result<(), StoreError> {
        let Some(receipt) = &mut settlement.receipt else { return Ok(()) };
        match self.signer.key(&*self.store, &self.vault, self.clock.now(), &*self.entropy).await {
            Ok(key) => receipt.signature = signature(&key, receipt),
            Err(UnlockError::Store(error)) => return Err(error),
            Err(UnlockError::Vault(error)) => tracing::error!(receipt = %receipt.id, %error, "a receipt could not be signed"),
        }
        Ok(())
    }
}

/// `None` if the claims have no canonical bytes, which they always have.
fn signature(key: &SigningKey, receipt: &Receipt) -> Option<ReceiptSignature> {
    let text = canonical(&receipt.claims())?;
    let signed = DocumentSignature::new(&PublicKey::new(*key.public()), &key.sign(text.as_bytes()));
    Some(ReceiptSignature { key: signed.key, sha256: hex::encode(digest(&text)), value: signed.value })
}

/// A receipt as it is handed out, without a proof.
pub fn document(receipt: &Receipt) -> SignedDocument {
    let signature = receipt.signature.as_ref().map(|s| DocumentSignature::from_parts(s.key.clone(), s.value.clone()));
    SignedDocument { claims: receipt.claims(), signature, proof: None }
}
