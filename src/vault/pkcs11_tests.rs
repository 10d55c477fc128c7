//! A token of SoftHSM in a directory of its own. Where SoftHSM is not installed these say so and end.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use super::*;
use crate::clock::SeededEntropy;
use crate::ids::{CardId, CustomerId};
use crate::secret::Pan;
use crate::vault::tests::private;
use crate::vault::{KeyServiceName, KeySubject, ROOT_SECRET, Timestamp, Vault, VaultConfig};

const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
];

/// A token a test. All are made before the library starts, which does not look for new ones later.
const LABELS: [&str; 3] = ["wraps", "told", "moves"];

/// One SoftHSM a process: it reads where its tokens are when it is initialised.
static SOFTHSM: OnceLock<Option<tempfile::TempDir>> = OnceLock::new();

/// The token with this label; `None` where there is no SoftHSM.
fn token(label: &str) -> Option<Pkcs11Config> {
    let module = MODULES.iter().map(Path::new).find(|m| m.exists());
    let dir = SOFTHSM.get_or_init(|| module.map(|_| begin()));
    let (Some(module), Some(dir)) = (module, dir) else {
        eprintln!("skipped: SoftHSM is not installed (`apt-get install softhsm2`)");
        return None;
    };
    let pin_file = dir.path().join(format!("{label}.pin"));
    std::fs::write(&pin_file, "1234\n").unwrap();
    private(&pin_file);
    Some(Pkcs11Config { module: module.to_owned(), token_label: label.into(), pin_file, ..Pkcs11Config::default() })
}

#[allow(unsafe_code)] // before the library is loaded, and the only place that sets the environment
fn begin() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let conf = dir.path().join("softhsm2.conf");
    std::fs::write(
        &conf,
        format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display()),
    )
    .unwrap();
    for label in LABELS {
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label, "--pin", "1234", "--so-pin", "5678"])
            .env("SOFTHSM2_CONF", &conf)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    // SAFETY: nothing of these tests reads the environment at this moment but through Rust, which locks it.
    unsafe { std::env::set_var("SOFTHSM2_CONF", &conf) };
    dir
}

fn v(number: u16) -> KeyVersion {
    KeyVersion::new(number).unwrap()
}

#[test]
fn a_token_wraps_and_gives_its_key_to_nobody() {
    let Some(cfg) = token("wraps") else { return };
    let (token, e) = (Token::open(&cfg).unwrap(), SeededEntropy::new(1));
    assert!(!token.holds(v(1)).unwrap());
    token.make(v(1), &e).unwrap();
    token.make(v(1), &e).unwrap();
    token.make(v(2), &e).unwrap();
    let key = DataKey::new([9; 32]);
    let wrapped = token.wrap(v(1), b"row", &key, &e).unwrap();
    assert_eq!(token.unwrap(v(1), b"row", &wrapped).unwrap().unwrap().bytes(), &[9; 32]);
    assert!(token.unwrap(v(1), b"other row", &wrapped).unwrap().is_none());
    assert!(token.unwrap(v(2), b"row", &wrapped).unwrap().is_none());
    for i in 0..wrapped.len() {
        let mut bent = wrapped.clone();
        bent[i] ^= 1;
        assert!(token.unwrap(v(1), b"row", &bent).unwrap().is_none(), "byte {i}");
        assert!(token.unwrap(v(1), b"row", &wrapped[..i]).unwrap().is_none(), "cut at {i}");
    }
    let read = token.work(|login| {
        let handle = token.find(login, v(1))?[0];
        let value = login.session.get_attributes(handle, &[cryptoki::object::AttributeType::Value]);
        Ok(value.is_ok_and(|found| found.iter().any(|a| matches!(a, Attribute::Value(bytes) if !bytes.is_empty()))))
    });
    assert!(!read.unwrap(), "the master key can't be read out");
    // Two nodes that made the same version in the same moment, the second unseen by the first.
    let other = Token::open(&cfg).unwrap();
    other
        .work(|login| {
            login.session.generate_key(&Mechanism::AesKeyGen, &token.template(v(1)))?;
            login.found.clear();
            Ok(())
        })
        .unwrap();
    for maker in [&token, &other] {
        let wrapped = maker.wrap(v(1), b"row", &key, &e).unwrap();
        for opener in [&token, &other] {
            assert!(opener.unwrap(v(1), b"row", &wrapped).unwrap().is_some());
        }
    }
    // Another process, or the same one after its session was lost.
    *token.login.lock().unwrap() = None;
    assert!(token.unwrap(v(1), b"row", &wrapped).unwrap().is_some());
    assert!(Token::open(&cfg).unwrap().unwrap(v(1), b"row", &wrapped).unwrap().is_some());
}

#[test]
fn what_is_wrong_with_a_token_is_told_by_the_key_to_change() {
    let Some(cfg) = token("told") else { return };
    let told = |cfg: Pkcs11Config| Token::open(&cfg).unwrap_err().to_string();
    let said = told(Pkcs11Config { module: "/nowhere.so".into(), ..cfg.clone() });
    assert!(said.contains("vault.pkcs11.module"), "{said}");
    let said = told(Pkcs11Config { token_label: "another".into(), ..cfg.clone() });
    assert!(said.contains("vault.pkcs11.token_label"), "{said}");
    let said = told(Pkcs11Config { pin_file: "".into(), ..cfg.clone() });
    assert!(said.contains(PIN_ENV) && said.contains("pin_file"), "{said}");
    std::fs::write(&cfg.pin_file, "wrong").unwrap();
    let said = told(cfg);
    assert!(said.contains("PIN is wrong") && !said.contains("`wrong`"), "{said}");
}

#[test]
fn rotation_moves_from_a_file_into_the_token() {
    let Some(pkcs11) = token("moves") else { return };
    let (dir, entropy) = (tempfile::tempdir().unwrap(), Arc::new(SeededEntropy::new(5)));
    let file = VaultConfig { master_key_file: dir.path().join("master.key"), ..VaultConfig::default() };
    let cfg = VaultConfig { service: KeyServiceName::Pkcs11, pkcs11, ..file.clone() };
    let first = Vault::first_keys(&file, None, &*entropy).unwrap();
    let before = Vault::open(&file, v(1), &first.root, Some(&first.check), entropy.clone()).unwrap();
    let (card, ann) = (CardId::parse("card_1").unwrap(), CustomerId::parse("cus_1").unwrap());
    let pan = Pan::parse("4111111111111111").unwrap();
    let mut sealed = before.seal_card(&card, &ann, &pan).unwrap();

    let vault = Vault::open(&cfg, v(1), &first.root, Some(&first.check), entropy.clone()).unwrap();
    vault.follow(&vault.make_version(v(2), Timestamp(1)).unwrap()).unwrap();
    let subject = KeySubject::Card { card: card.clone(), customer: ann.clone() };
    sealed.key = Some(vault.rewrap(&subject, sealed.key.as_ref().unwrap()).unwrap());
    let root = vault.rewrap(&KeySubject::Secret(ROOT_SECRET.into()), &first.root).unwrap();
    std::fs::remove_file(&file.master_key_file).unwrap();

    let after = Vault::open(&cfg, v(2), &root, Some(&first.check), entropy).unwrap();
    assert_eq!(after.unseal_card(&card, &ann, &sealed).unwrap(), pan);
    assert_eq!(after.keeper(v(2)).unwrap(), Some("PKCS #11 token"));
    assert_eq!(after.digest_card(&pan), before.digest_card(&pan));
}

#[test]
#[ignore = "prints what an unwrapping costs: run it by name with --ignored --nocapture"]
#[allow(clippy::disallowed_methods)] // a figure needs a clock
fn what_an_unwrapping_costs() {
    let Some(pkcs11) = token("wraps") else { return };
    const TIMES: u32 = 2_000;
    let (dir, entropy) = (tempfile::tempdir().unwrap(), Arc::new(SeededEntropy::new(5)));
    let file = VaultConfig { master_key_file: dir.path().join("master.key"), ..VaultConfig::default() };
    let (card, ann) = (CardId::parse("card_1").unwrap(), CustomerId::parse("cus_1").unwrap());
    for cfg in [file.clone(), VaultConfig { service: KeyServiceName::Pkcs11, pkcs11, ..file }] {
        let first = Vault::first_keys(&cfg, None, &*entropy).unwrap();
        let vault = Vault::open(&cfg, v(1), &first.root, None, entropy.clone()).unwrap();
        let sealed = vault.seal_card(&card, &ann, &Pan::parse("4111111111111111").unwrap()).unwrap();
        let begun = std::time::Instant::now();
        for _ in 0..TIMES {
            vault.unseal_card(&card, &ann, &sealed).unwrap();
        }
        println!("{}: {:?} a card", vault.keeper(v(1)).unwrap().unwrap(), begun.elapsed() / TIMES);
    }
}
