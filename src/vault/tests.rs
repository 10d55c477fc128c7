//! Sealing, digests, versions of the master key, and keys that are wrong.

use std::sync::Arc;

use super::*;
use crate::clock::SeededEntropy;

fn vault(seed: u64) -> Vault {
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(seed));
    Vault::from_master(&entropy.bytes(), entropy.clone())
}

fn pan() -> Pan {
    Pan::parse("4111111111111111").unwrap()
}

#[test]
fn a_sealed_card_opens_only_in_its_own_row() {
    let (v, e) = (vault(1), SeededEntropy::new(2));
    let (card, other_card) = (CardId::fresh(&e), CardId::fresh(&e));
    let (ann, bob) = (CustomerId::fresh(&e), CustomerId::fresh(&e));
    let sealed = v.seal_card(&card, &ann, &pan()).unwrap();
    assert_eq!(v.unseal_card(&card, &ann, &sealed).unwrap(), pan());
    assert!(matches!(v.unseal_card(&other_card, &ann, &sealed), Err(VaultError::Broken(_))));
    assert!(matches!(v.unseal_card(&card, &bob, &sealed), Err(VaultError::Broken(_))));
    assert!(vault(3).unseal_card(&card, &ann, &sealed).is_err());
    let again = v.seal_card(&card, &ann, &pan()).unwrap();
    assert!(again.body != sealed.body && again.key != sealed.key, "keys and nonces are fresh");
    let mixed = Sealed { body: sealed.body.clone(), key: again.key };
    assert!(v.unseal_card(&card, &ann, &mixed).is_err(), "the key of another sealing");
}

#[test]
fn whatever_is_bent_or_cut_does_not_open() {
    let (v, e) = (vault(1), SeededEntropy::new(2));
    let (card, ann) = (CardId::fresh(&e), CustomerId::fresh(&e));
    let good = v.seal_card(&card, &ann, &pan()).unwrap();
    let opens = |sealed: &Sealed| v.unseal_card(&card, &ann, sealed).is_ok();
    for i in 0..good.body.len() {
        let mut bent = good.clone();
        bent.body[i] ^= 1;
        assert!(!opens(&bent), "byte {i}");
        bent.body = good.body[..i].to_vec();
        assert!(!opens(&bent), "cut at {i}");
    }
    let key = good.key.clone().unwrap();
    for i in 0..key.wrapped.len() {
        let (mut bent, mut cut) = (key.clone(), key.clone());
        bent.wrapped[i] ^= 1;
        cut.wrapped.truncate(i);
        assert!(!opens(&Sealed { key: Some(bent), ..good.clone() }), "key byte {i}");
        assert!(!opens(&Sealed { key: Some(cut), ..good.clone() }), "key cut at {i}");
    }
}

#[test]
fn without_its_key_a_card_is_gone_for_good() {
    let (v, e) = (vault(1), SeededEntropy::new(2));
    let (card, ann) = (CardId::fresh(&e), CustomerId::fresh(&e));
    let sealed = v.seal_card(&card, &ann, &pan()).unwrap();
    let shredded = Sealed { body: sealed.body.clone(), key: None };
    assert!(matches!(v.unseal_card(&card, &ann, &shredded), Err(VaultError::Shredded(_))));
    let erased = Sealed { body: Vec::new(), key: None };
    assert!(matches!(v.unseal_card(&card, &ann, &erased), Err(VaultError::Shredded(_))));
    let (other, _) = v.new_customer_key(&ann).unwrap();
    assert!(other.unseal_template("m", &sealed.body).is_err(), "another kind of key");
}

#[test]
fn what_was_sealed_before_data_keys_still_opens() {
    let (v, e) = (vault(1), SeededEntropy::new(2));
    let (card, ann, bob) = (CardId::fresh(&e), CustomerId::fresh(&e), CustomerId::fresh(&e));
    let keys = &v.inner.keys;
    let body = sealed::seal_shared(&keys.card_seal, "card", &[card.as_str(), ann.as_str()], b"4111111111111111", &e);
    let old = Sealed { body, key: None };
    assert_eq!(v.unseal_card(&card, &ann, &old).unwrap(), pan());
    assert!(v.unseal_card(&card, &bob, &old).is_err());
    let template = sealed::seal_shared(&keys.template_seal, "template", &[ann.as_str(), "m"], b"numbers", &e);
    assert_eq!(&*v.customer_key(&ann, None).unwrap().unseal_template("m", &template).unwrap(), b"numbers");
    assert!(v.customer_key(&ann, None).unwrap().unseal_template("n", &template).is_err());
    assert!(v.customer_key(&ann, None).unwrap().seal_template("m", b"numbers").is_err(), "nothing new is sealed so");
}

/// Bytes that the version before data keys wrote: its derivation, its associated data and its shape may never change.
#[test]
fn the_older_format_is_read_byte_by_byte() {
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
    let v = Vault::from_master(&[7; 32], entropy);
    let (card, ann) = (CardId::parse("card_1").unwrap(), CustomerId::parse("cus_1").unwrap());
    let body = hex::decode(OLDER_CARD).unwrap();
    assert_eq!(v.unseal_card(&card, &ann, &Sealed { body, key: None }).unwrap(), pan());
    assert_eq!(hex::encode(v.key_check()), OLDER_CHECK);
}

// Made with the standard algorithms outside this program: HMAC-SHA256 and AES-256-GCM of Python's `cryptography`.
const OLDER_CARD: &str = "010001000102030405060708090a0b1a9797cf09fde58eed98f7121e471403045744fd36b5ab1f6a111f5e0ba6f410";
const OLDER_CHECK: &str = "2344a88760ec9e5763f3375bb4cc0e68727107b96e4f19a2fdc62e0e6d9b6042";

#[test]
fn a_customers_voice_opens_only_with_the_customers_key() {
    let (v, e) = (vault(1), SeededEntropy::new(2));
    let (ann, bob) = (CustomerId::fresh(&e), CustomerId::fresh(&e));
    let ((key, wrapped), (other, _)) = (v.new_customer_key(&ann).unwrap(), v.new_customer_key(&bob).unwrap());
    let template = key.seal_template("campplus-1", b"numbers").unwrap();
    let marks = key.seal_fingerprint(b"marks").unwrap();
    let again = v.customer_key(&ann, Some(&wrapped)).unwrap();
    assert_eq!(&*again.unseal_template("campplus-1", &template).unwrap(), b"numbers");
    assert_eq!(&*again.unseal_fingerprint(&marks).unwrap(), b"marks");
    assert!(again.unseal_template("campplus-2", &template).is_err());
    assert!(again.unseal_template("", &marks).is_err(), "a fingerprint is no template");
    assert!(other.unseal_template("campplus-1", &template).is_err() && other.unseal_fingerprint(&marks).is_err());
    assert!(v.customer_key(&bob, Some(&wrapped)).is_err(), "the key in another customer's row");
    let gone = v.customer_key(&ann, None).unwrap();
    assert!(matches!(gone.unseal_template("campplus-1", &template), Err(VaultError::Shredded(_))));
    assert_ne!(v.fingerprint_key(&ann), v.fingerprint_key(&bob));
    assert_ne!(v.fingerprint_key(&ann), vault(2).fingerprint_key(&ann));
}

#[test]
fn digests_depend_on_key_and_purpose() {
    assert_eq!(vault(1).digest_card(&pan()), vault(1).digest_card(&pan()));
    assert_ne!(vault(1).digest_card(&pan()), vault(2).digest_card(&pan()));
    assert_ne!(vault(1).digest_card(&pan()), vault(1).digest_invite_code(&pan().ascii()));
}

struct House {
    dir: tempfile::TempDir,
    cfg: VaultConfig,
    entropy: Arc<dyn Entropy>,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cfg = VaultConfig { master_key_file: dir.path().join("keys/master.key"), ..VaultConfig::default() };
        Self { dir, cfg, entropy: Arc::new(SeededEntropy::new(5)) }
    }

    fn first(&self) -> FirstKeys {
        Vault::first_keys(&self.cfg, None, &*self.entropy).unwrap()
    }

    fn open(&self, first: &FirstKeys) -> Result<Vault, VaultError> {
        Vault::open(&self.cfg, first.master.version, &first.root, Some(&first.check), self.entropy.clone())
    }
}

#[test]
fn a_new_version_wraps_new_keys_and_older_ones_still_open() {
    let (house, e) = (House::new(), SeededEntropy::new(9));
    let first = house.first();
    let (one, other) = (house.open(&first).unwrap(), house.open(&first).unwrap());
    let (card, ann) = (CardId::fresh(&e), CustomerId::fresh(&e));
    let old = one.seal_card(&card, &ann, &pan()).unwrap();
    let second = one.make_version(KeyVersion::FIRST.next().unwrap(), Timestamp(7)).unwrap();
    assert_eq!(one.current_version(), KeyVersion::FIRST, "made is not yet in force");
    one.follow(&second).unwrap();
    let new = one.seal_card(&card, &ann, &pan()).unwrap();
    assert_eq!(new.key.as_ref().unwrap().version, second.version);
    // A process that runs since before has not been told, and reads it all the same.
    assert_eq!(other.unseal_card(&card, &ann, &new).unwrap(), pan());
    assert_eq!(one.unseal_card(&card, &ann, &old).unwrap(), pan());
    let subject = KeySubject::Card { card: card.clone(), customer: ann.clone() };
    let rewrapped = one.rewrap(&subject, old.key.as_ref().unwrap()).unwrap();
    assert_eq!(rewrapped.version, second.version);
    let moved = Sealed { body: old.body.clone(), key: Some(rewrapped.clone()) };
    assert_eq!(other.unseal_card(&card, &ann, &moved).unwrap(), pan(), "the data was not touched");
    let lying = WrappedKey { version: KeyVersion::FIRST, ..rewrapped };
    assert!(other.unseal_card(&card, &ann, &Sealed { body: old.body, key: Some(lying) }).is_err(), "another version's number");
    assert_eq!(one.digest_card(&pan()), house.open(&first).unwrap().digest_card(&pan()), "digests do not rotate along");
}

#[test]
fn another_nodes_master_key_of_the_same_number_is_told_apart() {
    let (here, there) = (House::new(), House::new());
    let (first, second) = (here.first(), KeyVersion::new(2).unwrap());
    std::fs::create_dir_all(there.cfg.master_key_file.parent().unwrap()).unwrap();
    std::fs::copy(&here.cfg.master_key_file, &there.cfg.master_key_file).unwrap();
    let made = here.open(&first).unwrap().make_version(second, Timestamp(7)).unwrap();
    let node = there.open(&first).unwrap();
    assert!(matches!(node.follow(&made), Err(VaultError::MissingVersion { .. })), "not brought yet");
    let mut e = SeededEntropy::new(77);
    std::fs::write(there.dir.path().join("keys/master.key.v2"), hex::encode((&mut e as &dyn Entropy).bytes::<32>())).unwrap();
    private(&there.dir.path().join("keys/master.key.v2"));
    assert!(matches!(node.follow(&made), Err(VaultError::OtherKey(v)) if v == second));
    assert_eq!(node.current_version(), KeyVersion::FIRST);
}

/// As key files must be.
pub(super) fn private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_wrong_master_key_is_told_at_once_and_none_is_made_over_sealed_data() {
    let house = House::new();
    let older = vault(1).key_check();
    let lost = Vault::first_keys(&house.cfg, Some(&older), &*house.entropy);
    assert!(matches!(lost, Err(VaultError::MissingVersion { .. })));
    assert!(matches!(Vault::probe(&house.cfg, KeyVersion::FIRST), Err(VaultError::MissingVersion { .. })));
    assert!(!house.cfg.master_key_file.exists());
    let first = house.first();
    Vault::probe(&house.cfg, KeyVersion::FIRST).unwrap();
    assert_eq!(house.open(&first).unwrap().key_check(), first.check);
    let wrong = Vault::first_keys(&house.cfg, Some(&older), &*house.entropy);
    assert!(matches!(wrong, Err(VaultError::WrongKey)));
    let other = Vault::open(&house.cfg, KeyVersion::FIRST, &first.root, Some(&older), house.entropy.clone());
    assert!(matches!(other, Err(VaultError::WrongKey)), "the root secret of another database");
    std::fs::write(&house.cfg.master_key_file, "00".repeat(32)).unwrap();
    assert!(matches!(house.open(&first), Err(VaultError::WrongKey)));
    std::fs::write(&house.cfg.master_key_file, "not a key").unwrap();
    assert!(matches!(house.open(&first), Err(VaultError::Malformed(_))));
}

#[test]
fn a_database_older_than_envelopes_keeps_its_digests_through_every_rotation() {
    let house = House::new();
    std::fs::create_dir_all(house.dir.path().join("keys")).unwrap();
    std::fs::write(&house.cfg.master_key_file, "07".repeat(32)).unwrap();
    private(&house.cfg.master_key_file);
    let before = Vault::from_master(&[7; 32], house.entropy.clone());
    let mut first = Vault::first_keys(&house.cfg, Some(&before.key_check()), &*house.entropy).unwrap();
    let v = house.open(&first).unwrap();
    let second = v.make_version(KeyVersion::new(2).unwrap(), Timestamp(7)).unwrap();
    v.follow(&second).unwrap();
    first.root = v.rewrap(&KeySubject::Secret(ROOT_SECRET.into()), &first.root).unwrap();
    first.master = second;
    std::fs::remove_file(&house.cfg.master_key_file).unwrap();
    let after = house.open(&first).unwrap();
    assert_eq!(after.digest_card(&pan()), before.digest_card(&pan()));
    assert_eq!(after.digest_invite_code("12345678"), before.digest_invite_code("12345678"));
    assert_eq!(after.sandbox_journal_key().expose(), before.sandbox_journal_key().expose());
}

#[cfg(unix)]
#[test]
fn the_key_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let house = House::new();
    let first = house.first();
    let mode = std::fs::metadata(&house.cfg.master_key_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::set_permissions(&house.cfg.master_key_file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(house.open(&first), Err(VaultError::Permissions(_))));
}

#[test]
fn nothing_of_the_vault_prints() {
    let v = vault(1);
    let (card, ann) = (CardId::parse("card_1").unwrap(), CustomerId::parse("cus_1").unwrap());
    let sealed = v.seal_card(&card, &ann, &pan()).unwrap();
    let (key, wrapped) = v.new_customer_key(&ann).unwrap();
    let data_key = DataKey::new([0xab; 32]);
    let text = format!("{v:?} {sealed:?} {key:?} {wrapped:?} {data_key:?} {:?}", v.inner.keys);
    assert_eq!(text, "Vault(…) Sealed(…) CustomerKey(cus_1, …) WrappedKey(version 1) DataKey(…) Locked(…)");
}
