//! What is SQLite's alone: its file, its lock, and what is left in them. What every store must do is in `store/conformance/`.

use super::*;
use crate::store::conformance::Bench;
use crate::store::*;

#[tokio::test]
async fn a_deleted_customer_leaves_no_card_voice_name_or_number_in_the_files() {
    let desk = Bench::sqlite().await;
    let ann = desk.customer("+442079460958", "98765432").await;
    desk.store.add_card(&desk.card(&ann, 7), &desk.audit()).await.unwrap();
    let invite = desk.invite(&ann, 1).await;
    desk.store.complete_enrolment(&desk.enrolment(&invite), &desk.audit()).await.unwrap();
    desk.store.delete_customer(&ann, &desk.audit()).await.unwrap();
    desk.close().await;
    for file in std::fs::read_dir(desk.directory().unwrap()).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        for gone in ["SEALEDSEALED", "VOICEVOICE", "Zebedee", "+442079460958", "98765432"] {
            assert!(!bytes.windows(gone.len()).any(|w| w == gone.as_bytes()), "{gone} is still in {}", path.display());
        }
    }
}

#[tokio::test]
async fn what_cannot_be_a_database_is_told_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let open = async |path: &Path| SqliteStore::open(&StoreConfig { path: path.into(), ..StoreConfig::default() }).await;
    let text = dir.path().join("text.db");
    std::fs::write(&text, "this is a text and no database at all; it goes on for a while".repeat(20)).unwrap();
    let error = open(&text).await.unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }) && error.to_string().contains("not a SQLite database"), "{error}");
    let error = open(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
    let error = open(&text.join("below/a/file")).await.unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
}

#[tokio::test]
async fn a_locked_database_is_told_as_busy() {
    let desk = Bench::sqlite().await;
    let holder = SqliteStore::open(&desk.config()).await.unwrap();
    let other = SqliteStore::open(&StoreConfig { busy_timeout_ms: 50, ..desk.config() }).await.unwrap();
    let held = holder.write().await.unwrap();
    assert!(matches!(other.audit(&desk.audit()).await, Err(StoreError::Busy)));
    drop(held);
    other.audit(&desk.audit()).await.unwrap();
}
