//! Receipts are signed when they are made, are in the audit log, and the books and the audit tell the same.

use super::*;
use crate::ledger::document::{DocumentError, SignedDocument};
use crate::ledger::keys::PublicKey;
use crate::processor::log::{RECEIPT_ACTION, prove_receipt};
use crate::processor::sealer::{AuditConfig, Sealer};
use crate::store::chain::DisagreementKind;
use crate::vault::SigningPurpose;

async fn keys(house: &House) -> Vec<PublicKey> {
    let mut keys = Vec::new();
    for purpose in SigningPurpose::ALL {
        keys.extend(house.store.signing_keys(purpose).await.unwrap().into_iter().map(|key| key.public));
    }
    keys
}

async fn paid(house: &House) -> Receipt {
    let intent = house.charge("4111111111111111").await;
    match house.outcome(&intent).await {
        Outcome::Paid(receipt) => receipt,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_receipt_convinces_whoever_has_the_public_keys_and_nobody_else() {
    let house = House::build().await;
    let receipt = paid(&house).await;
    let sealer =
        Sealer::new(house.store.clone(), house.vault.clone(), house.clock.clone(), house.entropy.clone(), AuditConfig::default());
    assert_eq!(prove_receipt(&*house.store, &receipt.id).await.unwrap(), None);
    sealer.seal_all().await.unwrap();
    sealer.checkpoint().await.unwrap();
    let proof = prove_receipt(&*house.store, &receipt.id).await.unwrap();
    let document = SignedDocument { proof, ..document(&receipt) };
    let read = SignedDocument::parse(&document.to_text()).unwrap();
    let keys = keys(&house).await;
    let verified = read.verify(Receipt::KIND, RECEIPT_ACTION, &keys).unwrap();
    assert!(verified.logged.is_some());
    assert!(matches!(
        read.verify(Receipt::KIND, RECEIPT_ACTION, &keys[..1]),
        Err(DocumentError::UnknownKey(_) | DocumentError::Proof(_))
    ));
    // What is on it, and what is not.
    let text = document.to_text();
    for there in ["1999", "USD", "Water Works", "\"1111\"", receipt.reference.as_str(), receipt.gateway_reference.as_str()] {
        assert!(text.contains(there), "{there}");
    }
    for absent in [house.customer.as_str(), "Ann", "442079460958", "411111", "card_", "call_", "req_"] {
        assert!(!text.contains(absent), "{absent}");
    }
}

#[tokio::test]
async fn books_and_audit_tell_the_same_and_whichever_is_changed_is_found() {
    let house = House::build().await;
    let receipt = paid(&house).await;
    assert_eq!(house.store.disagreements(10).await.unwrap(), []);
    let transfers = house.store.transfers().await.unwrap();
    assert_eq!(transfers.len(), 2);

    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(house.dir.path().join("v.db")).foreign_keys(false);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let run = async |sql: &'static str| sqlx::query(sql).execute(&pool).await.unwrap().rows_affected();
    let found =
        async || house.store.disagreements(10).await.unwrap().into_iter().map(|d| (d.subject, d.what)).collect::<Vec<_>>();
    for trigger in
        ["transfers_never_change", "transfers_never_go", "audit_never_goes", "receipts_never_change", "receipts_never_go"]
    {
        sqlx::query(sqlx::AssertSqlSafe(format!("DROP TRIGGER {trigger}"))).execute(&pool).await.unwrap();
    }
    assert_eq!(run("UPDATE transfers SET amount_minor = 1 WHERE kind = 'post'").await, 1);
    assert_eq!(found().await, [(transfers[1].id.to_string(), DisagreementKind::Differs)]);
    assert_eq!(run("DELETE FROM transfers WHERE kind = 'post'").await, 1);
    assert_eq!(found().await, [(transfers[1].id.to_string(), DisagreementKind::NotInTheBooks)]);
    assert_eq!(run("DELETE FROM audit WHERE action LIKE 'transfer.%'").await, 2);
    assert_eq!(found().await, [(transfers[0].id.to_string(), DisagreementKind::NotAudited)]);
    assert_eq!(run("DELETE FROM transfers").await, 1);
    assert_eq!(found().await, []);
    assert_eq!(run("UPDATE receipts SET body = replace(body, '\"sha256\":\"', '\"sha256\":\"0')").await, 1);
    assert_eq!(found().await, [(receipt.id.to_string(), DisagreementKind::Differs)]);
    assert_eq!(run("DELETE FROM receipts").await, 1);
    assert_eq!(found().await, [(receipt.id.to_string(), DisagreementKind::NotInTheBooks)]);
}

#[tokio::test]
async fn a_receipt_from_before_signatures_is_shown_as_unsigned() {
    let house = House::build().await;
    let receipt = Receipt { signature: None, ..paid(&house).await };
    let old = serde_json::to_string(&receipt).unwrap();
    assert!(!old.contains("signature"), "its row has no such field");
    let receipt: Receipt = serde_json::from_str(&old).unwrap();
    let document = document(&receipt);
    assert_eq!(document.verify(Receipt::KIND, RECEIPT_ACTION, &keys(&house).await).unwrap_err(), DocumentError::Unsigned);
}
