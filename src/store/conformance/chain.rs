//! The audit chain and the register of signing keys.

use std::sync::Arc;

use super::{Bench, on_both};
use crate::clock::Timestamp;
use crate::ids::AuditId;
use crate::ledger::chain::LogId;
use crate::ledger::export::{Line, LogLine};
use crate::ledger::keys::PublicKey;
use crate::ledger::merkle::{Parts, consistent, includes};
use crate::ledger::verifier::{Fault, Report, Trust, Verifier, Wrong};
use crate::store::chain::CheckpointRecord;
use crate::store::signing::SigningKeyRecord;
use crate::store::{AuditRecord, Store, StoreError};
use crate::vault::SigningPurpose;

on_both!(
    rows_that_are_written_while_several_seal_get_one_place_each,
    proofs_are_made_of_what_is_kept,
    checkpoints_are_kept_once_a_size,
    the_chain_refuses_to_be_changed,
    a_row_that_goes_before_it_is_sealed_is_missed,
    two_processes_that_make_a_key_at_once_get_the_same,
);

/// What a verifier says of the whole chain.
async fn verified(store: &dyn Store) -> Result<Report, Fault> {
    let end = store.chain().await.unwrap().unwrap();
    let mut verifier = Verifier::new(Trust::TheLogsOwn, Vec::new());
    let gapless = store.rows_are_gapless();
    verifier.line(Line::Log(LogLine { log: end.log().clone(), gapless, keys: Vec::new() }))?;
    while verifier.records() < end.size() {
        // Pages of an odd size, so that their borders lie anywhere.
        for sealed in store.sealed(verifier.records(), 37).await.unwrap() {
            verifier.line(Line::Record(sealed))?;
        }
    }
    verifier.line(Line::End { records: end.size(), checkpoints: 0 })?;
    verifier.finish()
}

fn row(desk: &Bench) -> AuditRecord {
    AuditRecord {
        id: AuditId::fresh(&*desk.entropy), detail: serde_json::json!({ "é": "\"€\"\n😀", "x": 0.1 }), ..desk.audit()
    }
}

async fn seal_all(desk: &Bench) {
    while desk.store.seal(&LogId::fresh(&*desk.entropy), 50).await.unwrap() > 0 {}
}

async fn rows_that_are_written_while_several_seal_get_one_place_each(desk: Bench) {
    const WRITERS: usize = 4;
    const ROWS: usize = 30;
    assert!(desk.store.chain().await.unwrap().is_none());
    assert_eq!(desk.store.seal(&LogId::fresh(&*desk.entropy), 50).await.unwrap(), 0, "nothing to seal");
    let mut tasks = Vec::new();
    for _ in 0..WRITERS {
        let (store, rows) = (Arc::clone(&desk.store), (0..ROWS).map(|_| row(&desk)).collect::<Vec<_>>());
        tasks.push(tokio::spawn(async move {
            for row in rows {
                store.audit(&row).await.unwrap();
            }
        }));
    }
    for _ in 0..3 {
        let (store, log) = (desk.opened_again().await, LogId::fresh(&*desk.entropy));
        tasks.push(tokio::spawn(async move {
            for _ in 0..20 {
                match store.seal(&log, 7).await {
                    // Another one was faster, or holds the database: the next turn goes on.
                    Ok(_) | Err(StoreError::Conflict(_) | StoreError::Busy) => {}
                    Err(other) => panic!("{other}"),
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    seal_all(&desk).await;
    assert_eq!(desk.store.unsealed().await.unwrap(), 0);
    let report = verified(&*desk.store).await.unwrap();
    assert_eq!(report.records, u64::try_from(WRITERS * ROWS).unwrap());
    let one = desk.store.sealed(17, 1).await.unwrap().pop().unwrap();
    let id = AuditId::parse(&one.record.id).unwrap();
    assert_eq!(desk.store.position_of(&id).await.unwrap(), Some(17));
    assert_eq!(desk.store.position_of(&AuditId::fresh(&*desk.entropy)).await.unwrap(), None);
}

async fn proofs_are_made_of_what_is_kept(desk: Bench) {
    for _ in 0..270 {
        desk.store.audit(&row(&desk)).await.unwrap();
    }
    seal_all(&desk).await;
    let old = desk.store.chain().await.unwrap().unwrap();
    for _ in 0..30 {
        desk.store.audit(&row(&desk)).await.unwrap();
    }
    seal_all(&desk).await;
    let new = desk.store.chain().await.unwrap().unwrap();
    assert_eq!((old.size(), new.size()), (270, 300));
    for chain in [&old, &new] {
        for position in [0, 255, 256, 269] {
            let leaf = desk.store.sealed(position, 1).await.unwrap().pop().unwrap().hash;
            let parts = desk.store.tree(chain.size(), &Parts::tiles_needed(position, chain.size())).await.unwrap();
            assert!(includes(&chain.root(), chain.size(), position, &leaf, &parts.inclusion(position).unwrap()), "{position}");
        }
    }
    let parts = desk.store.tree(300, &Parts::tiles_needed(270, 300)).await.unwrap();
    assert!(consistent(&old.root(), 270, &new.root(), 300, &parts.consistency(270).unwrap()));
}

async fn checkpoints_are_kept_once_a_size(desk: Bench) {
    let at_size = |size: u64| CheckpointRecord { size, at: Timestamp(5), note: format!("note {size} — €\n") };
    assert_eq!(desk.store.last_checkpoint().await.unwrap(), None);
    for size in [3, 12, 7] {
        assert!(desk.store.add_checkpoint(&at_size(size)).await.unwrap());
    }
    assert!(!desk.store.add_checkpoint(&CheckpointRecord { note: "other".into(), ..at_size(7) }).await.unwrap());
    assert_eq!(desk.store.last_checkpoint().await.unwrap(), Some(at_size(12)));
    assert_eq!(desk.store.checkpoints_after(3, 9).await.unwrap(), [at_size(7), at_size(12)]);
    assert_eq!(desk.store.checkpoints_after(0, 1).await.unwrap(), [at_size(3)]);
}

async fn the_chain_refuses_to_be_changed(desk: Bench) {
    desk.store.audit(&row(&desk)).await.unwrap();
    seal_all(&desk).await;
    let note = "note\n".to_owned();
    desk.store.add_checkpoint(&CheckpointRecord { size: 1, at: Timestamp(5), note }).await.unwrap();
    for statement in [
        "UPDATE audit_chain SET position = 9",
        "DELETE FROM audit_chain",
        "UPDATE audit_head SET size = 0",
        "DELETE FROM audit_head",
        "UPDATE audit_checkpoints SET at = 6",
        "DELETE FROM audit_checkpoints",
    ] {
        let refused = desk.sql(statement).await.unwrap_err();
        assert!(refused.contains("append-only") || refused.contains("only grows"), "{statement}: {refused}");
    }
    assert_eq!(verified(&*desk.store).await.unwrap().records, 1);
}

async fn a_row_that_goes_before_it_is_sealed_is_missed(desk: Bench) {
    for _ in 0..5 {
        desk.store.audit(&row(&desk)).await.unwrap();
    }
    // Whoever may alter tables takes a row away.
    let unguarded = if desk.on_postgres() { "ALTER TABLE audit DISABLE TRIGGER USER" } else { "DROP TRIGGER audit_never_goes" };
    desk.sql(unguarded).await.unwrap();
    let taken = "DELETE FROM audit WHERE seq = (SELECT seq + 1 FROM (SELECT min(seq) AS seq FROM audit) AS first)";
    assert_eq!(desk.sql(taken).await.unwrap(), 1);
    seal_all(&desk).await;
    assert_eq!(desk.store.chain().await.unwrap().unwrap().size(), 4, "it holds up no other row");
    let lost = desk.store.lost(9).await.unwrap();
    if desk.store.rows_are_gapless() {
        assert!(lost.is_empty());
        assert!(matches!(verified(&*desk.store).await.unwrap_err().what, Wrong::Gap { after: 1, before: 3 }));
    } else {
        assert_eq!(lost, [2]);
        assert_eq!(desk.store.unsealed().await.unwrap(), 1, "the note of it stays");
        assert_eq!(desk.store.seal(&LogId::fresh(&*desk.entropy), 50).await.unwrap(), 0);
    }
}

async fn two_processes_that_make_a_key_at_once_get_the_same(desk: Bench) {
    let key = |byte: u8, version| SigningKeyRecord {
        purpose: SigningPurpose::Receipts,
        version,
        public: PublicKey::new([byte; 32]),
        made_at: Timestamp(1),
    };
    let other = desk.opened_again().await;
    let (mine, theirs) = (key(1, 1), key(2, 1));
    let (my_row, their_row) = (row(&desk), row(&desk));
    let (a, b) = tokio::join!(desk.store.add_signing_key(&mine, &my_row), other.add_signing_key(&theirs, &their_row));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a, b, "one of them stands for both");
    assert_eq!(desk.store.audit_trail(9).await.unwrap().len(), 1, "only the key that stands is told of");
    desk.store.add_signing_key(&key(3, 2), &row(&desk)).await.unwrap();
    let keys = desk.store.signing_keys(SigningPurpose::Receipts).await.unwrap();
    assert_eq!(keys, [a, key(3, 2)]);
    assert_eq!(desk.store.signing_keys(SigningPurpose::Checkpoints).await.unwrap(), []);
    for statement in ["UPDATE signing_keys SET version = 9", "DELETE FROM signing_keys"] {
        assert!(desk.sql(statement).await.is_err_and(|e| e.contains("append-only")), "{statement}");
    }
}
