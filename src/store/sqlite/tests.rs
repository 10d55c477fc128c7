//! What is SQLite's alone: its file, its lock, and what is left in them. What every store must do is in `store/conformance/`.

mod old_attempts;

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::clock::{Entropy, SeededEntropy, Timestamp};
use crate::e164::E164;
use crate::ids::{AuditId, CardId, CustomerId, InviteId};
use crate::store::*;
use crate::vault::Sealed;

struct Desk {
    dir: tempfile::TempDir,
    entropy: Arc<dyn Entropy>,
    store: SqliteStore,
}

async fn reopened(dir: &Path) -> SqliteStore {
    SqliteStore::open(&StoreConfig { path: dir.join("v.db"), ..StoreConfig::default() }).await.unwrap()
}

impl Desk {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = reopened(dir.path()).await;
        Self { dir, entropy: Arc::new(SeededEntropy::new(3)), store }
    }

    fn audit(&self) -> AuditRecord {
        AuditRecord {
            id: AuditId::fresh(&*self.entropy),
            at: Timestamp(1),
            actor: "test".into(),
            action: "did".into(),
            subject: "it".into(),
            detail: json!({}),
        }
    }

    async fn customer(&self, number: &str, customer_number: &str) -> CustomerId {
        let customer = Customer {
            id: CustomerId::fresh(&*self.entropy),
            name: "Zebedee Quux".into(),
            customer_number: customer_number.into(),
            numbers: vec![E164::normalise(number, "").unwrap()],
            status: CustomerStatus::Active,
            language: crate::language::Language::English,
            created_at: Timestamp(1),
        };
        self.store.add_customer(&customer, &self.audit()).await.unwrap();
        assert_eq!(self.store.customer(&customer.id).await.unwrap().unwrap(), customer);
        customer.id
    }

    fn card(&self, customer: &CustomerId, digest: u8) -> CardRecord {
        CardRecord {
            id: CardId::fresh(&*self.entropy),
            customer: customer.clone(),
            last4: "1111".into(),
            length: 16,
            expiry: Some("09/29".parse().unwrap()),
            status: CardStatus::Active,
            sealed: Sealed { body: b"SEALEDSEALEDSEALED".to_vec(), key: None },
            digest: [digest; 32],
            created_at: Timestamp(1),
        }
    }

    async fn invite(&self, customer: &CustomerId, digest: u8) -> Invite {
        let id = InviteId::fresh(&*self.entropy);
        let invite = Invite { id, customer: customer.clone(), expires_at: Timestamp(1000), wrong_tries: 0 };
        self.store.add_invite(&invite, &[digest; 32], &self.audit()).await.unwrap();
        invite
    }

    fn enrolment(&self, invite: &Invite) -> EnrolmentRecord {
        EnrolmentRecord {
            template: TemplateRecord {
                customer: invite.customer.clone(),
                model: "m-1".into(),
                sealed: b"VOICEVOICEVOICE".to_vec(),
                created_at: Timestamp(5),
            },
            invite: Some(invite.id.clone()),
            consent_text_version: "1".into(),
            consent_by: "the caller".into(),
            consent_at: Timestamp(5),
            call: None,
        }
    }

    async fn sql(&self, sql: &'static str) -> Result<u64, sqlx::Error> {
        sqlx::query(sql).execute(&self.store.pool).await.map(|r| r.rows_affected())
    }
}

#[tokio::test]
async fn a_deleted_customer_leaves_no_card_voice_name_or_number_in_the_files() {
    let desk = Desk::new().await;
    let ann = desk.customer("+442079460958", "98765432").await;
    let card = desk.card(&ann, 7);
    desk.store.add_card(&card, &desk.audit()).await.unwrap();
    assert_eq!(desk.store.cards_of(&ann).await.unwrap(), std::slice::from_ref(&card));
    let twin = desk.card(&ann, 7);
    assert!(matches!(desk.store.add_card(&twin, &desk.audit()).await, Err(StoreError::Exists(_))));
    let invite = desk.invite(&ann, 1).await;
    desk.store.complete_enrolment(&desk.enrolment(&invite), &desk.audit()).await.unwrap();
    desk.store.delete_customer(&ann, &desk.audit()).await.unwrap();
    assert!(matches!(desk.store.delete_customer(&ann, &desk.audit()).await, Err(StoreError::NotFound(_))));
    assert_eq!(desk.store.template(&ann).await.unwrap(), None);
    let erased = desk.store.card(&card.id).await.unwrap().unwrap();
    assert_eq!((erased.status, erased.sealed.body.len(), erased.last4.as_str()), (CardStatus::Revoked, 0, "1111"));
    desk.store.close().await;
    for file in std::fs::read_dir(desk.dir.path()).unwrap() {
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
async fn a_database_of_a_newer_version_is_left_alone() {
    let desk = Desk::new().await;
    desk.sql("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', 1, x'00', 1)")
        .await
        .unwrap();
    desk.store.close().await;
    let cfg = StoreConfig { path: desk.dir.path().join("v.db"), ..StoreConfig::default() };
    let error = SqliteStore::open(&cfg).await.unwrap_err();
    assert!(error.to_string().contains("newer voicepay"), "{error}");
}

#[tokio::test]
async fn a_locked_database_is_told_as_busy() {
    let desk = Desk::new().await;
    let cfg = StoreConfig { path: desk.dir.path().join("v.db"), busy_timeout_ms: 50, ..StoreConfig::default() };
    let other = SqliteStore::open(&cfg).await.unwrap();
    let held = desk.store.write().await.unwrap();
    assert!(matches!(other.audit(&desk.audit()).await, Err(StoreError::Busy)));
    drop(held);
    other.audit(&desk.audit()).await.unwrap();
}
