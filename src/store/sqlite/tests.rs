//! The store on real files.

mod old_attempts;

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::clock::{Entropy, SeededEntropy, Timestamp};
use crate::e164::E164;
use crate::ids::{AuditId, CallId, CardId, CustomerId, InviteId, OutboxId};
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
async fn a_number_of_two_customers_nominates_nobody() {
    let desk = Desk::new().await;
    let number = E164::normalise("+442079460958", "").unwrap();
    assert_eq!(desk.store.customer_by_number(&number).await.unwrap(), LookUp::Nobody);
    let ann = desk.customer("+442079460958", "111111").await;
    assert!(matches!(desk.store.customer_by_number(&number).await.unwrap(), LookUp::One(c) if c.id == ann));
    let bob = desk.customer("+442079460958", "222222").await;
    assert_eq!(desk.store.customer_by_number(&number).await.unwrap(), LookUp::Shared);
    assert_eq!(desk.store.customer_by_customer_number("222222").await.unwrap().unwrap().id, bob);
    desk.store.delete_customer(&bob, &desk.audit()).await.unwrap();
    assert!(matches!(desk.store.customer_by_number(&number).await.unwrap(), LookUp::One(c) if c.id == ann));
    assert_eq!(desk.store.customer_by_customer_number("222222").await.unwrap(), None);
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
async fn an_invitation_works_once_for_its_customer_only_and_dies_of_wrong_tries() {
    let desk = Desk::new().await;
    let (ann, bob) = (desk.customer("+442079460958", "111111").await, desk.customer("+442079460959", "222222").await);
    let invite = desk.invite(&ann, 1).await;
    let check = async |digest: u8, who: Option<&CustomerId>, at: i64| {
        desk.store.check_invite(&[digest; 32], who, Timestamp(at), 3).await.unwrap()
    };
    assert_eq!(check(1, Some(&ann), 10).await, InviteCheck::Good(invite.clone()));
    assert_eq!(check(1, None, 10).await, InviteCheck::Good(invite.clone()));
    assert_eq!(check(1, Some(&bob), 10).await, InviteCheck::Refused, "another customer's");
    assert_eq!(check(1, Some(&ann), 1000).await, InviteCheck::Refused, "expired");
    desk.store.complete_enrolment(&desk.enrolment(&invite), &desk.audit()).await.unwrap();
    assert_eq!(check(1, Some(&ann), 10).await, InviteCheck::Refused, "used");
    let again = desk.store.complete_enrolment(&desk.enrolment(&invite), &desk.audit()).await;
    assert!(matches!(again, Err(StoreError::Refused(_))), "{again:?}");
    assert_eq!(desk.store.outbox_waiting(9).await.unwrap().len(), 1, "the refused one left no trace");
    let second = desk.invite(&ann, 2).await;
    for _ in 0..3 {
        assert_eq!(check(9, Some(&ann), 10).await, InviteCheck::Refused);
    }
    assert_eq!(check(2, Some(&ann), 10).await, InviteCheck::Refused, "three wrong tries ended {}", second.id);
    let third = desk.invite(&ann, 3).await;
    assert_eq!(check(3, Some(&ann), 10).await, InviteCheck::Good(third));
}

#[tokio::test]
async fn failures_are_counted_over_a_restart_and_unattested_ones_apart() {
    let desk = Desk::new().await;
    let ann = desk.customer("+442079460958", "111111").await;
    let calling = E164::normalise("+442079460958", "").unwrap();
    let failure = |attested: bool, at: i64| FactorFailure {
        factor: Factor::Voice,
        customer: Some(ann.clone()),
        calling: Some(calling.clone()),
        trunk: "carrier".into(),
        attested,
        call: CallId::fresh(&*desk.entropy),
        at: Timestamp(at),
    };
    desk.store.record_failure(&failure(true, 5), Timestamp(0)).await.unwrap();
    desk.store.record_failure(&failure(true, 50), Timestamp(0)).await.unwrap();
    let counts = desk.store.record_failure(&failure(false, 60), Timestamp(10)).await.unwrap();
    assert_eq!(counts, FailureCounts { customer_attested: 1, customer_any: 2, calling: 1, strangers: 0, trunk: 2 });
    desk.store.close().await;
    let store = reopened(desk.dir.path()).await;
    assert_eq!(store.failure_counts(Some(&ann), Some(&calling), "carrier", Timestamp(10)).await.unwrap(), counts);
    // From a withheld number and from somebody else's: strangers to Ann, whatever number they show next.
    for calling in [None, Some(E164::normalise("+15005550123", "").unwrap())] {
        store.record_failure(&FactorFailure { calling, ..failure(false, 70) }, Timestamp(0)).await.unwrap();
    }
    assert_eq!(store.failure_counts(Some(&ann), None, "", Timestamp(10)).await.unwrap().strangers, 2);
    let nobody = store.failure_counts(None, None, "other", Timestamp(0)).await.unwrap();
    assert_eq!(nobody, FailureCounts::default());
}

#[tokio::test]
async fn the_audit_trail_refuses_to_be_changed() {
    let desk = Desk::new().await;
    desk.store.audit(&desk.audit()).await.unwrap();
    assert!(desk.sql("UPDATE audit SET actor = 'nobody'").await.is_err());
    assert!(desk.sql("DELETE FROM audit").await.is_err());
    assert!(desk.sql("DELETE FROM transfers").await.is_ok_and(|n| n == 0), "there is none to delete");
    assert_eq!(desk.store.audit_trail(9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn outbox_rows_are_delivered_once_in_order() {
    let desk = Desk::new().await;
    let row = |topic: &str| OutboxRecord {
        id: OutboxId::fresh(&*desk.entropy),
        at: Timestamp(1),
        topic: topic.into(),
        payload: json!({ "a": 1 }),
    };
    let (one, two) = (row("one"), row("two"));
    let mut tx = desk.store.write().await.unwrap();
    trail::insert_outbox(&mut tx, &one).await.unwrap();
    trail::insert_outbox(&mut tx, &two).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(desk.store.outbox_waiting(9).await.unwrap(), [one.clone(), two.clone()]);
    desk.store.outbox_delivered(&one.id, Timestamp(2)).await.unwrap();
    assert!(matches!(desk.store.outbox_delivered(&one.id, Timestamp(3)).await, Err(StoreError::Conflict(_))));
    assert_eq!(desk.store.outbox_waiting(9).await.unwrap(), [two]);
}

#[tokio::test]
async fn calls_are_kept_with_their_end() {
    let desk = Desk::new().await;
    let mut call = CallRecord {
        id: CallId::fresh(&*desk.entropy),
        customer: None,
        calling: Some(E164::normalise("+442079460958", "").unwrap()),
        trunk: "carrier".into(),
        started_at: Timestamp(5),
        ended_at: None,
        verdict: None,
        record: json!([]),
    };
    desk.store.call_started(&call).await.unwrap();
    (call.ended_at, call.verdict) = (Some(Timestamp(9)), Some("paid".into()));
    desk.store.call_ended(&call).await.unwrap();
    assert_eq!(desk.store.call(&call.id).await.unwrap().unwrap(), call);
    assert_eq!(desk.store.calls(5).await.unwrap(), [call.clone()]);
    call.id = CallId::fresh(&*desk.entropy);
    assert!(matches!(desk.store.call_ended(&call).await, Err(StoreError::NotFound(_))));
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

#[tokio::test]
async fn the_vault_opens_with_the_key_that_the_database_knows_only() {
    let desk = Desk::new().await;
    let cfg = |name: &str| crate::vault::VaultConfig {
        master_key_file: desk.dir.path().join(name),
        ..crate::vault::VaultConfig::default()
    };
    unlock(&desk.store, &cfg("a.key"), desk.entropy.clone()).await.unwrap();
    unlock(&desk.store, &cfg("a.key"), desk.entropy.clone()).await.unwrap();
    let lost = unlock(&desk.store, &cfg("b.key"), desk.entropy.clone()).await.unwrap_err();
    assert!(matches!(lost, UnlockError::Vault(crate::vault::VaultError::MissingVersion { .. })), "{lost}");
    std::fs::copy(desk.dir.path().join("a.key"), desk.dir.path().join("c.key")).unwrap();
    std::fs::write(desk.dir.path().join("c.key"), "00".repeat(32)).unwrap();
    let wrong = unlock(&desk.store, &cfg("c.key"), desk.entropy.clone()).await.unwrap_err();
    assert!(matches!(wrong, UnlockError::Vault(crate::vault::VaultError::WrongKey)), "{wrong}");
}

#[tokio::test]
async fn fresh_digits_are_asked_for_once_a_customer_and_go_with_the_customer() {
    let desk = Desk::new().await;
    let ann = desk.customer("+442079460958", "111111").await;
    let bob = desk.customer("+442079460959", "222222").await;
    let draw =
        async |customer: &CustomerId, digest: u8| desk.store.use_challenge(customer, &[digest; 32], Timestamp(3)).await.unwrap();
    assert!(draw(&ann, 1).await && draw(&ann, 2).await && draw(&bob, 1).await);
    assert!(!draw(&ann, 1).await, "the same digits twice");
    let both = tokio::join!(draw(&ann, 9), draw(&ann, 9));
    assert!(both.0 ^ both.1, "of two calls at once one gets them: {both:?}");
    desk.store.delete_customer(&ann, &desk.audit()).await.unwrap();
    assert_eq!(desk.sql("DELETE FROM challenges").await.unwrap(), 1, "only Bob's are left");
    assert!(!draw(&ann, 3).await, "nobody is asked after they are gone");
}

#[tokio::test]
async fn a_fingerprint_is_compared_with_those_before_it_and_only_the_newest_stay() {
    let desk = Desk::new().await;
    let (ann, bob) = (&desk.customer("+15005550001", "1111111").await, &desk.customer("+15005550002", "2222222").await);
    let heard = |of: &CustomerId, sealed: u8, at: i64, expires: i64| FingerprintRecord {
        customer: of.clone(),
        sealed: vec![sealed],
        heard_at: Timestamp(at),
        expires_at: Timestamp(expires),
    };
    let keep = async |new: FingerprintRecord, limit| desk.store.keep_fingerprint(&new, limit).await.unwrap();
    assert!(keep(heard(ann, 1, 10, 100), 2).await.is_empty());
    assert_eq!(keep(heard(ann, 2, 20, 110), 2).await, [[1]]);
    assert_eq!(keep(heard(ann, 3, 30, 120), 2).await, [[2], [1]]);
    assert_eq!(keep(heard(ann, 4, 40, 130), 2).await, [[3], [2]], "the oldest made room");
    assert!(keep(heard(bob, 5, 40, 130), 2).await.is_empty(), "nobody is compared with another's");
    assert_eq!(keep(heard(ann, 6, 120, 210), 9).await, [[4]], "what has expired is gone");
    assert_eq!(desk.store.sweep_fingerprints(Timestamp(130)).await.unwrap(), 2);
    let left = async |of| desk.store.fingerprint_count(of).await.unwrap();
    assert_eq!((left(ann).await, left(bob).await), (1, 0));
    desk.store.delete_customer(ann, &desk.audit()).await.unwrap();
    assert_eq!(left(ann).await, 0);
    assert!(keep(heard(ann, 7, 130, 300), 9).await.is_empty());
    assert_eq!(left(ann).await, 0, "a deleted customer leaves nothing behind");
}

#[tokio::test]
async fn a_template_follows_by_consent_keeps_the_way_back_and_goes_whole() {
    let desk = Desk::new().await;
    let ann = desk.customer("+442079460958", "111111").await;
    let invite = desk.invite(&ann, 1).await;
    let enrolled = desk.enrolment(&invite);
    desk.store.complete_enrolment(&enrolled, &desk.audit()).await.unwrap();
    let state = async || desk.store.following(&ann).await.unwrap().unwrap();
    assert_eq!((state().await.consent_at, state().await.enrolled), (None, enrolled.template.clone()));
    let next = |n: i64| TemplateRecord {
        sealed: format!("NEXT{n}").into_bytes(),
        created_at: Timestamp(n),
        ..enrolled.template.clone()
    };
    let step = async |n: i64, over: i64| desk.store.step_template(&next(n), Timestamp(over), 3, &desk.audit()).await;
    assert!(matches!(step(10, 5).await, Err(StoreError::Conflict(_))), "not without consent");
    desk.store.set_following(&ann, Some(Timestamp(7)), &desk.audit()).await.unwrap();
    for n in [10, 20, 30, 40, 50] {
        let over = state().await.current.created_at;
        assert!(matches!(step(n, 999).await, Err(StoreError::Conflict(_))), "not over another template");
        step(n, over.0).await.unwrap();
        assert_eq!(state().await.current, next(n));
    }
    assert_eq!(state().await.enrolled, enrolled.template, "what was enrolled is never lost");
    assert_eq!(desk.sql("UPDATE earlier_templates SET seq = seq").await.unwrap(), 3);
    desk.store.revert_template(&ann, &desk.audit()).await.unwrap();
    assert_eq!((state().await.current, state().await.consent_at), (enrolled.template.clone(), None));
    assert!(matches!(desk.store.revert_template(&ann, &desk.audit()).await, Err(StoreError::NotFound(_))));
    desk.store.set_following(&ann, Some(Timestamp(8)), &desk.audit()).await.unwrap();
    step(60, 5).await.unwrap();
    desk.store.delete_template(&ann, &desk.audit()).await.unwrap();
    assert_eq!(desk.sql("DELETE FROM earlier_templates").await.unwrap(), 0, "a withdrawn voice leaves none behind");
}
