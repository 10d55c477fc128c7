//! Audit trail, outbox, and what the database remembers of its key.

use serde_json::json;

use super::{Bench, on_both};
use crate::clock::Timestamp;
use crate::ids::OutboxId;
use crate::store::{OutboxRecord, StoreError, UnlockError, unlock};

on_both!(
    the_audit_trail_refuses_to_be_changed,
    outbox_rows_are_delivered_once_in_order,
    the_vault_opens_with_the_key_that_the_database_knows_only,
);

async fn the_audit_trail_refuses_to_be_changed(desk: Bench) {
    desk.store.audit(&desk.audit()).await.unwrap();
    assert!(desk.sql("UPDATE audit SET actor = 'nobody'").await.is_err_and(|e| e.contains("append-only")));
    assert!(desk.sql("DELETE FROM audit").await.is_err_and(|e| e.contains("append-only")));
    if desk.on_postgres() {
        for table in ["audit", "transfers", "receipts"] {
            assert!(desk.sql(&format!("TRUNCATE {table} CASCADE")).await.is_err_and(|e| e.contains("append-only")), "{table}");
        }
    }
    assert!(desk.sql("DELETE FROM transfers").await.is_ok_and(|n| n == 0), "there is none to delete");
    assert_eq!(desk.store.audit_trail(9).await.unwrap().len(), 1);
    let twice = desk.store.audit_trail(9).await.unwrap().pop().unwrap();
    assert!(desk.store.audit(&twice).await.is_err(), "the same row twice");
}

async fn outbox_rows_are_delivered_once_in_order(desk: Bench) {
    let row = |topic: &str| OutboxRecord {
        id: OutboxId::fresh(&*desk.entropy),
        at: Timestamp(1),
        topic: topic.into(),
        payload: json!({ "a": 1 }),
    };
    let (one, two) = (row("one"), row("two"));
    desk.store.announce(&one, &desk.audit()).await.unwrap();
    desk.store.announce(&two, &desk.audit()).await.unwrap();
    assert_eq!(desk.store.outbox_waiting(9).await.unwrap(), [one.clone(), two.clone()]);
    desk.store.outbox_delivered(&one.id, Timestamp(2)).await.unwrap();
    assert!(matches!(desk.store.outbox_delivered(&one.id, Timestamp(3)).await, Err(StoreError::Conflict(_))));
    assert_eq!(desk.store.outbox_waiting(9).await.unwrap(), [two]);
    assert_eq!(desk.store.audit_trail(9).await.unwrap().len(), 2);
}

async fn the_vault_opens_with_the_key_that_the_database_knows_only(desk: Bench) {
    let dir = tempfile::tempdir().unwrap();
    let cfg =
        |name: &str| crate::vault::VaultConfig { master_key_file: dir.path().join(name), ..crate::vault::VaultConfig::default() };
    unlock(&*desk.store, &cfg("a.key"), desk.entropy.clone()).await.unwrap();
    unlock(&*desk.store, &cfg("a.key"), desk.entropy.clone()).await.unwrap();
    let lost = unlock(&*desk.store, &cfg("b.key"), desk.entropy.clone()).await.unwrap_err();
    assert!(matches!(lost, UnlockError::Vault(crate::vault::VaultError::MissingVersion { .. })), "{lost}");
    std::fs::copy(dir.path().join("a.key"), dir.path().join("c.key")).unwrap();
    std::fs::write(dir.path().join("c.key"), "00".repeat(32)).unwrap();
    let wrong = unlock(&*desk.store, &cfg("c.key"), desk.entropy.clone()).await.unwrap_err();
    assert!(matches!(wrong, UnlockError::Vault(crate::vault::VaultError::WrongKey)), "{wrong}");
}
