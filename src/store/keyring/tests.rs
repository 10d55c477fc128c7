//! Keys in rows: who is first, rotation that is cut short, two nodes at once, retiring, shredding, and cards from another vault.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::json;

use super::*;
use crate::clock::{SeededEntropy, Timestamp};
use crate::e164::E164;
use crate::ids::{AuditId, CardId};
use crate::language::Language;
use crate::secret::Pan;
use crate::store::{
    AuditRecord, Brought, CardRecord, CardStatus, Customer, CustomerStatus, EnrolmentRecord, FingerprintRecord, NewCard,
    SqliteStore, StoreConfig, TemplateRecord,
};
use crate::vault::{DataKey, KeyService};

struct House {
    dir: tempfile::TempDir,
    cfg: VaultConfig,
    entropy: Arc<dyn Entropy>,
    store: Arc<dyn Store>,
}

const NUMBERS: [&str; 5] = ["4111111111111111", "5555555555554444", "378282246310005", "6011111111111117", "3530111333300000"];

impl House {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cfg = VaultConfig { master_key_file: dir.path().join("master.key"), ..VaultConfig::default() };
        let store = StoreConfig { path: dir.path().join("v.db"), ..StoreConfig::default() };
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&store).await.unwrap());
        Self { dir, cfg, entropy: Arc::new(SeededEntropy::new(3)), store }
    }

    async fn unlock(&self) -> Result<Vault, UnlockError> {
        unlock(&*self.store, &self.cfg, self.entropy.clone()).await
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

    async fn customer(&self, number: &str) -> CustomerId {
        let customer = Customer {
            id: CustomerId::fresh(&*self.entropy),
            name: "Ann".into(),
            customer_number: number.into(),
            numbers: vec![E164::try_from(format!("+1500555{number}")).unwrap()],
            status: CustomerStatus::Active,
            language: Language::English,
            created_at: Timestamp(1),
        };
        self.store.add_customer(&customer, &self.audit()).await.unwrap();
        customer.id
    }

    fn card_record(&self, vault: &Vault, customer: &CustomerId, number: &str) -> CardRecord {
        let (id, pan) = (CardId::fresh(&*self.entropy), Pan::parse(number).unwrap());
        CardRecord {
            id: id.clone(),
            customer: customer.clone(),
            last4: pan.last4(),
            length: u8::try_from(pan.digits().len()).unwrap(),
            expiry: None,
            status: CardStatus::Active,
            sealed: vault.seal_card(&id, customer, &pan).unwrap(),
            digest: vault.digest_card(&pan),
            created_at: Timestamp(1),
        }
    }

    async fn card(&self, vault: &Vault, customer: &CustomerId, number: &str) -> CardId {
        let card = self.card_record(vault, customer, number);
        self.store.add_card(&card, &self.audit()).await.unwrap();
        card.id
    }

    async fn opened(&self, vault: &Vault, card: &CardId) -> Result<Pan, VaultError> {
        let card = self.store.card(card).await.unwrap().unwrap();
        vault.unseal_card(&card.id, &card.customer, &card.sealed)
    }

    async fn enrol(&self, vault: &Vault, customer: &CustomerId) {
        let key = customer_key_to_seal(&*self.store, vault, customer).await.unwrap();
        self.enrol_sealed(customer, key.seal_template("m", b"voice").unwrap()).await.unwrap();
    }

    async fn enrol_sealed(&self, customer: &CustomerId, sealed: Vec<u8>) -> Result<(), StoreError> {
        let template = TemplateRecord { customer: customer.clone(), model: "m".into(), sealed, created_at: Timestamp(1) };
        let record = EnrolmentRecord {
            template,
            invite: None,
            consent_text_version: "1".into(),
            consent_by: "test".into(),
            consent_at: Timestamp(1),
            call: None,
        };
        self.store.complete_enrolment(&record, &self.audit()).await
    }

    async fn begin(&self, vault: &Vault, anew: bool) -> Result<Rotation, UnlockError> {
        begin_rotation(&*self.store, vault, anew, Timestamp(9), |_| self.audit()).await
    }

    async fn rewrap_all(&self, vault: &Vault, limit: u32) -> Result<Rewrap, UnlockError> {
        let mut so_far = Rewrap::default();
        while rewrap_batch(&*self.store, vault, limit, &mut so_far).await? {}
        Ok(so_far)
    }
}

fn v(number: u16) -> KeyVersion {
    KeyVersion::new(number).unwrap()
}

/// Between the vault and its key service: lets so many unwrappings through, then fails.
#[derive(Debug)]
struct Failing {
    behind: Arc<dyn KeyService>,
    left: Arc<AtomicI64>,
}

impl KeyService for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }

    fn holds(&self, version: KeyVersion) -> Result<bool, VaultError> {
        self.behind.holds(version)
    }

    fn make(&self, version: KeyVersion, entropy: &dyn Entropy) -> Result<(), VaultError> {
        self.behind.make(version, entropy)
    }

    fn wrap(&self, version: KeyVersion, context: &[u8], key: &DataKey, entropy: &dyn Entropy) -> Result<Vec<u8>, VaultError> {
        self.behind.wrap(version, context, key, entropy)
    }

    fn unwrap(&self, version: KeyVersion, context: &[u8], wrapped: &[u8]) -> Result<Option<DataKey>, VaultError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(VaultError::Token("CKR_DEVICE_REMOVED".into()));
        }
        self.behind.unwrap(version, context, wrapped)
    }
}

#[tokio::test]
async fn of_two_processes_that_start_first_one_makes_the_keys() {
    let house = House::new().await;
    let (a, b) = tokio::join!(house.unlock(), house.unlock());
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.key_check(), b.key_check());
    assert_eq!(house.store.master_keys().await.unwrap().len(), 1);
    let ann = house.customer("1111111").await;
    let card = house.card(&a, &ann, NUMBERS[0]).await;
    assert_eq!(&*house.opened(&b, &card).await.unwrap().ascii(), NUMBERS[0]);
    let (x, y) = tokio::join!(customer_key_to_seal(&*house.store, &a, &ann), customer_key_to_seal(&*house.store, &b, &ann));
    let template = x.unwrap().seal_template("m", b"voice").unwrap();
    assert_eq!(&*y.unwrap().unseal_template("m", &template).unwrap(), b"voice", "one key a customer");
}

#[tokio::test]
async fn rotation_goes_on_while_others_read_and_write() {
    let house = House::new().await;
    let (operator, service) = (house.unlock().await.unwrap(), house.unlock().await.unwrap());
    let (ann, bob) = (house.customer("1111111").await, house.customer("2222222").await);
    let mut cards = Vec::new();
    for number in NUMBERS {
        cards.push(house.card(&service, &ann, number).await);
    }
    house.enrol(&service, &ann).await;
    assert_eq!(house.begin(&operator, false).await.unwrap(), Rotation::Begun(v(2)));
    // Half of it is done; a service that runs since before reads all of it, and makes its next key under the new version.
    let mut so_far = Rewrap::default();
    assert!(rewrap_batch(&*house.store, &operator, 3, &mut so_far).await.unwrap());
    for (card, number) in cards.iter().zip(NUMBERS) {
        assert_eq!(&*house.opened(&service, card).await.unwrap().ascii(), number);
    }
    house.enrol(&service, &bob).await;
    assert_eq!(house.store.customer_key(&bob).await.unwrap().unwrap().version, v(2));
    assert!(house.store.retire_master_key(v(1), &house.audit()).await.is_err(), "rows still use it");
    while rewrap_batch(&*house.store, &operator, 3, &mut so_far).await.unwrap() {}
    assert_eq!((so_far.rewrapped, so_far.broken.len()), (5 + 1 + 1, 0), "five cards, Ann's voice, the root secret");
    let usage = house.store.key_usage().await.unwrap();
    let counts: Vec<_> = usage.iter().map(|u| (u.version.get(), u.cards, u.customers, u.secrets)).collect();
    assert_eq!(counts, [(1, 0, 0, 0), (2, 5, 2, 1)]);

    let kept = house.store.retire_master_key(v(2), &house.audit()).await.unwrap_err();
    assert!(kept.to_string().contains("in force"), "{kept}");
    house.store.retire_master_key(v(1), &house.audit()).await.unwrap();
    let gone = house.store.retire_master_key(v(1), &house.audit()).await.unwrap_err();
    assert!(matches!(gone, StoreError::NotFound(_)), "{gone}");
    std::fs::remove_file(&house.cfg.master_key_file).unwrap();
    let later = house.unlock().await.unwrap();
    for (card, number) in cards.iter().zip(NUMBERS) {
        assert_eq!(&*house.opened(&later, card).await.unwrap().ascii(), number);
    }
    // A process that missed it all can't write under the version that is gone.
    let stale = house.card_record(&service_of_version_one(&service), &bob, NUMBERS[0]);
    assert_eq!(stale.sealed.key.as_ref().unwrap().version, v(1));
    assert!(house.store.add_card(&stale, &house.audit()).await.is_err());
    assert_eq!(house.store.cards_of(&bob).await.unwrap().len(), 0, "nothing of it was stored");
}

/// The vault as it was before it heard of version 2.
fn service_of_version_one(vault: &Vault) -> Vault {
    vault.through_at(v(1), |s| s)
}

#[tokio::test]
async fn a_key_service_that_fails_in_the_middle_leaves_a_rotation_that_goes_on() {
    let house = House::new().await;
    let vault = house.unlock().await.unwrap();
    let ann = house.customer("1111111").await;
    let mut cards = Vec::new();
    for number in NUMBERS {
        cards.push(house.card(&vault, &ann, number).await);
    }
    let left = Arc::new(AtomicI64::new(4));
    let failing = vault.through(|behind| Arc::new(Failing { behind, left: Arc::clone(&left) }));
    assert_eq!(house.begin(&failing, false).await.unwrap(), Rotation::Begun(v(2)));
    let failed = house.rewrap_all(&failing, 1).await.unwrap_err();
    assert!(failed.to_string().contains("CKR_DEVICE_REMOVED"), "{failed}");
    let half: Vec<_> = house.store.key_usage().await.unwrap().iter().map(|u| u.cards).collect();
    assert!(half[0] > 0 && half[1] > 0, "{half:?}");
    left.store(1_000, Ordering::SeqCst);
    for (card, number) in cards.iter().zip(NUMBERS) {
        assert_eq!(&*house.opened(&failing, card).await.unwrap().ascii(), number);
    }
    assert_eq!(house.begin(&failing, false).await.unwrap(), Rotation::Resumed(v(2)), "no version is made for nothing");
    let rest = house.rewrap_all(&failing, 100).await.unwrap();
    assert_eq!(rest.rewrapped, half[0] + 1);
    house.store.retire_master_key(v(1), &house.audit()).await.unwrap();
}

#[tokio::test]
async fn two_nodes_may_rotate_at_once() {
    let house = House::new().await;
    let (a, b) = (house.unlock().await.unwrap(), house.unlock().await.unwrap());
    let ann = house.customer("1111111").await;
    let mut cards = Vec::new();
    for number in NUMBERS {
        cards.push(house.card(&a, &ann, number).await);
    }
    let work = async |vault: &Vault| -> Result<u64, UnlockError> {
        house.begin(vault, false).await?;
        Ok(house.rewrap_all(vault, 1).await?.rewrapped)
    };
    let (x, y) = tokio::join!(work(&a), work(&b));
    let newest = house.store.master_keys().await.unwrap().pop().unwrap().version;
    assert!(newest == v(2) || newest == v(3), "{newest}");
    assert!(x.unwrap() + y.unwrap() >= 6);
    house.rewrap_all(&a, 100).await.unwrap();
    let usage = house.store.key_usage().await.unwrap();
    assert!(usage.iter().all(|u| u.version == newest || u.cards + u.customers + u.secrets == 0), "{usage:?}");
    for (card, number) in cards.iter().zip(NUMBERS) {
        assert_eq!(&*house.opened(&b, card).await.unwrap().ascii(), number);
    }
}

#[tokio::test]
async fn what_does_not_open_is_named_and_stays() {
    let house = House::new().await;
    let vault = house.unlock().await.unwrap();
    let ann = house.customer("1111111").await;
    let good = house.card(&vault, &ann, NUMBERS[0]).await;
    let mut bad = house.card_record(&vault, &ann, NUMBERS[1]);
    bad.sealed.key.as_mut().unwrap().wrapped[20] ^= 1;
    house.store.add_card(&bad, &house.audit()).await.unwrap();
    house.begin(&vault, false).await.unwrap();
    for _ in 0..2 {
        let done = house.rewrap_all(&vault, 1).await.unwrap();
        assert_eq!(done.broken, [bad.id.to_string()]);
    }
    assert!(house.opened(&vault, &good).await.is_ok());
    assert!(house.store.retire_master_key(v(1), &house.audit()).await.is_err());
}

#[tokio::test]
async fn values_of_the_older_format_get_data_keys() {
    let house = House::new().await;
    let vault = house.unlock().await.unwrap();
    let (ann, bob) = (house.customer("1111111").await, house.customer("2222222").await);
    let pan = Pan::parse(NUMBERS[0]).unwrap();
    let mut card = house.card_record(&vault, &ann, NUMBERS[0]);
    card.sealed = vault.seal_card_as_before(&card.id, &ann, &pan);
    house.store.add_card(&card, &house.audit()).await.unwrap();
    let (template, marks) = vault.seal_voice_as_before(&ann, "m", b"voice", b"marks");
    house.enrol_sealed(&ann, template).await.unwrap();
    let heard =
        FingerprintRecord { customer: ann.clone(), sealed: marks, heard_at: Timestamp(1), expires_at: Timestamp(i64::MAX) };
    house.store.keep_fingerprint(&heard, 10).await.unwrap();
    // One that was written to another customer's row.
    let (stray, _) = vault.seal_voice_as_before(&ann, "m", b"voice", b"");
    house.enrol_sealed(&bob, stray).await.unwrap();
    assert_eq!(house.opened(&vault, &card.id).await.unwrap(), pan);
    assert_eq!(house.store.older_value_count().await.unwrap(), 4);

    house.begin(&vault, false).await.unwrap();
    let done = house.rewrap_all(&vault, 1).await.unwrap();
    assert_eq!((done.resealed, done.broken), (3, vec![format!("the voice template of {bob}")]));
    assert_eq!(house.store.older_value_count().await.unwrap(), 1);
    assert_eq!(house.opened(&vault, &card.id).await.unwrap(), pan);
    assert_eq!(house.store.card(&card.id).await.unwrap().unwrap().sealed.key.unwrap().version, v(2));
    let key = customer_key(&*house.store, &vault, &ann).await.unwrap();
    let row = house.store.template(&ann).await.unwrap().unwrap();
    assert_eq!(&*key.unseal_template("m", &row.sealed).unwrap(), b"voice");
    let kept = house.store.keep_fingerprint(&heard, 10).await.unwrap();
    assert_eq!(&*key.unseal_fingerprint(&kept[0]).unwrap(), b"marks");
}

#[tokio::test]
async fn a_copy_made_before_a_deletion_opens_nothing_with_the_keys_of_now() {
    let house = House::new().await;
    let vault = house.unlock().await.unwrap();
    let (ann, bob) = (house.customer("1111111").await, house.customer("2222222").await);
    let (deleted, shredded) = (house.card(&vault, &ann, NUMBERS[0]).await, house.card(&vault, &bob, NUMBERS[1]).await);
    let stays = house.card(&vault, &bob, NUMBERS[2]).await;
    house.enrol(&vault, &ann).await;
    house.enrol(&vault, &bob).await;
    let cards = [&deleted, &shredded, &stays];
    let mut copy = Vec::new();
    for card in cards {
        copy.push(house.store.card(card).await.unwrap().unwrap());
    }
    let voices = [house.store.template(&ann).await.unwrap().unwrap(), house.store.template(&bob).await.unwrap().unwrap()];
    let bobs_key = house.store.customer_key(&bob).await.unwrap().unwrap().wrapped;
    let keys: Vec<Vec<u8>> = copy.iter().map(|c| c.sealed.key.clone().unwrap().wrapped).collect();
    assert!(house.on_disk(&keys[0]).await && house.on_disk(&keys[1]).await && house.on_disk(&bobs_key).await);

    house.store.delete_customer(&ann, &house.audit()).await.unwrap();
    house.store.shred_card(&shredded, &house.audit()).await.unwrap();
    house.store.delete_template(&bob, &house.audit()).await.unwrap();
    for (card, before) in cards.into_iter().zip(&copy) {
        let now = house.store.card(card).await.unwrap().unwrap();
        let joined = Sealed { body: before.sealed.body.clone(), key: now.sealed.key.clone() };
        let opened = vault.unseal_card(card, &before.customer, &joined);
        assert_eq!(opened.is_ok(), *card == stays, "{card}");
    }
    for voice in voices {
        let key = customer_key(&*house.store, &vault, &voice.customer).await.unwrap();
        assert!(matches!(key.unseal_template("m", &voice.sealed), Err(VaultError::Shredded(_))));
    }
    assert!(!house.on_disk(&keys[0]).await && !house.on_disk(&keys[1]).await && !house.on_disk(&bobs_key).await);
    assert!(house.on_disk(&keys[2]).await);
    // Nothing brings a deleted customer's key back.
    assert!(customer_key_to_seal(&*house.store, &vault, &ann).await.is_err());
    let again = house.store.shred_card(&shredded, &house.audit()).await.unwrap_err();
    assert!(matches!(again, StoreError::NotFound(_)), "{again}");
    let anew = house.card(&vault, &bob, NUMBERS[1]).await;
    assert!(house.opened(&vault, &anew).await.is_ok(), "the same number may be given again");
}

impl House {
    /// Whether these bytes stand anywhere in the database's files.
    async fn on_disk(&self, needle: &[u8]) -> bool {
        std::fs::read_dir(self.dir.path()).unwrap().any(|file| {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            bytes.windows(needle.len()).any(|w| w == needle)
        })
    }
}

#[tokio::test]
async fn a_template_whose_key_was_erased_meanwhile_is_not_stored() {
    let house = House::new().await;
    let vault = house.unlock().await.unwrap();
    let ann = house.customer("1111111").await;
    house.enrol(&vault, &ann).await;
    let key = customer_key_to_seal(&*house.store, &vault, &ann).await.unwrap();
    let next = key.seal_template("m", b"next").unwrap();
    house.store.delete_template(&ann, &house.audit()).await.unwrap();
    let late = house.enrol_sealed(&ann, next).await.unwrap_err();
    assert!(matches!(late, StoreError::Conflict(_)), "{late}");
    assert!(house.store.template(&ann).await.unwrap().is_none());
    house.enrol(&vault, &ann).await;
}

#[tokio::test]
async fn cards_of_another_vault_come_a_batch_at_a_time_and_twice_is_once() {
    let house = House::new().await;
    let vault = house.unlock().await.unwrap();
    let (ann, nobody) = (house.customer("1111111").await, CustomerId::fresh(&*house.entropy));
    let new = |customer: &CustomerId, number: &str, reference: Option<&str>| NewCard {
        card: house.card_record(&vault, customer, number),
        reference: reference.map(str::to_owned),
        audit: house.audit(),
    };
    let batch = [new(&ann, NUMBERS[0], Some("tok_1")), new(&ann, NUMBERS[1], None), new(&nobody, NUMBERS[2], Some("tok_3"))];
    use Brought::{Added, Known, NoCustomer, ReferenceTaken};
    assert_eq!(house.store.bring_cards(&batch).await.unwrap(), [Added, Added, NoCustomer]);
    let again = [
        new(&ann, NUMBERS[0], Some("tok_1")),
        new(&ann, NUMBERS[1], None),
        new(&ann, NUMBERS[2], Some("tok_1")),
        new(&ann, NUMBERS[3], Some("tok_3")),
    ];
    assert_eq!(house.store.bring_cards(&again).await.unwrap(), [Known, Known, ReferenceTaken, Added]);
    assert_eq!(house.store.cards_of(&ann).await.unwrap().len(), 3);
    let first = house.store.card_by_reference("tok_1").await.unwrap().unwrap();
    assert_eq!(&*house.opened(&vault, &first).await.unwrap().ascii(), NUMBERS[0]);
    // A row that fails takes its whole batch along.
    let mut twice = new(&ann, NUMBERS[4], None);
    twice.card.id = first;
    let failed = house.store.bring_cards(&[new(&ann, NUMBERS[2], None), twice]).await;
    assert!(failed.is_err());
    assert_eq!(house.store.cards_of(&ann).await.unwrap().len(), 3);
}
