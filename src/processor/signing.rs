//! Receipts are signed when they are made, before the transaction that stores them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use crate::ledger::document::{DocumentSignature, SignedDocument, canonical, digest};
use crate::ledger::keys::PublicKey;
use crate::payment::{Receipt, ReceiptSignature};
use crate::store::{Settlement, StoreError, UnlockError, signing};
use crate::vault::{SigningKey, SigningPurpose};

/// How long a service signs with the key that it knows before it asks the register again, in milliseconds: a rotated key is in
/// use everywhere this much later.
const SIGNER_REFRESH_MS: u64 = 10_000;

/// The key that signs receipts, as it was last read.
#[derive(Debug, Default)]
pub(super) struct Signer(Mutex<Option<(Arc<SigningKey>, Instant)>>);

impl Inner {
    /// Signs the receipt of a settlement, if it has one. Without a usable key the payment is recorded all the same, with an
    /// unsigned receipt: money that moved must not stay in doubt for want of a signature.
    pub(super) async fn sign_receipt(&self, settlement: &mut Settlement) -> Result<(), StoreError> {
        let Some(receipt) = &mut settlement.receipt else { return Ok(()) };
        match self.receipt_key().await {
            Ok(key) => receipt.signature = signature(&key, receipt),
            Err(UnlockError::Store(error)) => return Err(error),
            Err(UnlockError::Vault(error)) => tracing::error!(receipt = %receipt.id, %error, "a receipt could not be signed"),
        }
        Ok(())
    }

    async fn receipt_key(&self) -> Result<Arc<SigningKey>, UnlockError> {
        let known = self.signer.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((key, read_at)) = known
            && read_at.elapsed() < Duration::from_millis(SIGNER_REFRESH_MS)
        {
            return Ok(key);
        }
        let (now, entropy) = (self.clock.now(), &*self.entropy);
        let key = signing::signer(&*self.store, &self.vault, SigningPurpose::Receipts, now, entropy).await?;
        let key = Arc::new(key);
        *self.signer.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Arc::clone(&key), Instant::now()));
        Ok(key)
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
