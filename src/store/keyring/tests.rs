//! Keys in rows: who is first, rotation that is cut short, two nodes at once, retiring, shredding, and cards from another vault.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::clock::Timestamp;
use crate::ids::CardId;
use crate::secret::Pan;
use crate::store::conformance::{Bench, on_both};
use crate::store::{AuditRecord, Brought, CardRecord, CardStatus, EnrolmentRecord, FingerprintRecord, NewCard, TemplateRecord};
use crate::vault::{DataKey, KeyService};

on_both!(
    of_two_processes_that_start_first_one_makes_the_keys,
    rotation_goes_on_while_others_read_and_write,
    a_key_service_that_fails_in_the_middle_leaves_a_rotation_that_goes_on,
    two_nodes_may_rotate_at_once,
    what_does_not_open_is_named_and_stays,
    values_of_the_older_format_get_data_keys,
    a_copy_made_before_a_deletion_opens_nothing_with_the_keys_of_now,
    a_template_whose_key_was_erased_meanwhile_is_not_stored,
    cards_of_another_vault_come_a_batch_at_a_time_and_twice_is_once,
);

struct House {
    bench: Bench,
    cfg: VaultConfig,
    entropy: Arc<dyn Entropy>,
    store: Arc<dyn Store>,
    _keys: tempfile::TempDir,
}

const NUMBERS: [&str; 5] = ["4111111111111111", "5555555555554444", "378282246310005", "6011111111111117", "3530111333300000"];

impl House {
    fn new(bench: Bench) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let cfg = VaultConfig { master_key_file: keys.path().join("master.key"), ..VaultConfig::default() };
        Self { cfg, entropy: bench.entropy.clone(), store: bench.store.clone(), bench, _keys: keys }
    }

    async fn unlock(&self) -> Result<Vault, UnlockError> {
        unlock(&*self.store, &self.cfg, self.entropy.clone()).await
    }

    fn audit(&self) -> AuditRecord {
        self.bench.audit()
    }

    async fn customer(&self, number: &str) -> CustomerId {
        self.bench.customer(&format!("+1500555{number}"), number).await
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

async fn of_two_processes_that_start_first_one_makes_the_keys(bench: Bench) {
    let house = House::new(bench);
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

async fn rotation_goes_on_while_others_read_and_write(bench: Bench) {
    let house = House::new(bench);
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

async fn a_key_service_that_fails_in_the_middle_leaves_a_rotation_that_goes_on(bench: Bench) {
    let house = House::new(bench);
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

async fn two_nodes_may_rotate_at_once(bench: Bench) {
    let house = House::new(bench);
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

async fn what_does_not_open_is_named_and_stays(bench: Bench) {
    let house = House::new(bench);
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

async fn values_of_the_older_format_get_data_keys(bench: Bench) {
    let house = House::new(bench);
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

async fn a_copy_made_before_a_deletion_opens_nothing_with_the_keys_of_now(bench: Bench) {
    let house = House::new(bench);
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
    for erased in [&keys[0], &keys[1], &bobs_key] {
        assert!(house.on_disk(erased) != Some(false));
    }

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
    for erased in [&keys[0], &keys[1], &bobs_key] {
        assert!(house.on_disk(erased) != Some(true));
    }
    assert!(house.on_disk(&keys[2]) != Some(false));
    // Nothing brings a deleted customer's key back.
    assert!(customer_key_to_seal(&*house.store, &vault, &ann).await.is_err());
    let again = house.store.shred_card(&shredded, &house.audit()).await.unwrap_err();
    assert!(matches!(again, StoreError::NotFound(_)), "{again}");
    let anew = house.card(&vault, &bob, NUMBERS[1]).await;
    assert!(house.opened(&vault, &anew).await.is_ok(), "the same number may be given again");
}

impl House {
    /// Whether these bytes stand anywhere in the database's files; `None`: it has no files of its own to look at.
    fn on_disk(&self, needle: &[u8]) -> Option<bool> {
        let files = std::fs::read_dir(self.bench.directory()?).unwrap();
        Some(
            files
                .map(|file| std::fs::read(file.unwrap().path()).unwrap())
                .any(|bytes| bytes.windows(needle.len()).any(|w| w == needle)),
        )
    }
}

async fn a_template_whose_key_was_erased_meanwhile_is_not_stored(bench: Bench) {
    let house = House::new(bench);
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

async fn cards_of_another_vault_come_a_batch_at_a_time_and_twice_is_once(bench: Bench) {
    let house = House::new(bench);
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
