//! Cards of another vault are brought, the master key is changed by a command that is killed again and again, an old version is retired, and a
//! card is erased: every number opens all the while, and no command repeats one.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use voicepay::clock::SystemEntropy;
use voicepay::ids::CardId;
use voicepay::store::{Keys, People, SqliteStore, StoreConfig, unlock};
use voicepay::vault::VaultConfig;

use super::commands_set_up_a_payment::{fails, ok};

const CARDS: usize = 40;
const KILLS: u32 = 8;

/// Numbers that pass Luhn (ISO/IEC 7812-1 annex B), all of a made-up issuer.
fn numbers() -> Vec<String> {
    let with_check = |body: String| {
        let sum: u32 = body
            .bytes()
            .rev()
            .enumerate()
            .map(|(i, b)| {
                let d = u32::from(b - b'0') * if i % 2 == 0 { 2 } else { 1 };
                d / 10 + d % 10
            })
            .sum();
        format!("{body}{}", (10 - sum % 10) % 10)
    };
    (0..CARDS).map(|i| with_check(format!("40000{:010}", i * 7919))).collect()
}

fn list(path: &Path, customer: &str, numbers: &[String]) {
    let lines = numbers.iter().enumerate().map(|(i, n)| format!("{customer},{n},tok_{i},12/49\n"));
    std::fs::write(path, format!("customer,number,reference,expires\n{}", lines.collect::<String>())).unwrap();
}

/// Every number in the database, opened with the keys of now.
fn opened(dir: &Path, customer: &str) -> Vec<String> {
    let work = async {
        let cfg = StoreConfig { path: dir.join("voicepay.db"), ..StoreConfig::default() };
        let store = SqliteStore::open(&cfg).await.unwrap();
        let keys = VaultConfig { master_key_file: dir.join("master.key"), ..VaultConfig::default() };
        let vault = unlock(&store, &keys, Arc::new(SystemEntropy)).await.unwrap();
        let cards = store.cards_of(&customer.parse().unwrap()).await.unwrap();
        for i in 0..CARDS {
            assert!(store.card_by_reference(&format!("tok_{i}")).await.unwrap().is_some(), "tok_{i}");
        }
        cards.iter().map(|c| vault.unseal_card(&c.id, &c.customer, &c.sealed).unwrap().ascii().to_string()).collect()
    };
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

/// A process that takes its time.
fn rotating(dir: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_voicepay"))
        .args(["vault", "rotate", "--batch", "1", "--pause-ms", "10"])
        .env("VOICEPAY__SERVICE__DATA_DIR", dir)
        .env_remove("VOICEPAY_MASTER_KEY")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_rotation_that_is_killed_goes_on_and_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (dir, cards) = (&root.path().join("data"), &root.path().join("cards.csv"));
    let customer = ok(dir, &["customer", "add", "--name", "Ann", "--customer-number", "12345678"], "");
    let customer = customer["id"].as_str().unwrap();
    let (mut numbers, path) = (numbers(), cards.to_str().unwrap());
    list(cards, "12345678", &numbers);
    assert_eq!(ok(dir, &["card", "import", path], "")["imported"], CARDS);
    let again = ok(dir, &["card", "import", path], "");
    assert_eq!((&again["imported"], &again["known"]), (&0.into(), &CARDS.into()));

    for kill in 0..KILLS {
        let mut child = rotating(dir);
        std::thread::sleep(Duration::from_millis(u64::from(kill) * 25));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut now = opened(dir, customer);
        now.sort();
        numbers.sort();
        assert!(now == numbers, "after kill {kill}");
    }
    let (exit, said) = fails(dir, &["vault", "retire", "2"], "");
    assert!(exit == 18, "{said}");
    // Two nodes at once: whichever is first, both end well.
    let both = [(); 2].map(|()| rotating(dir));
    for mut child in both {
        assert!(child.wait().unwrap().success());
    }
    ok(dir, &["vault", "rotate"], "");
    let status = ok(dir, &["vault", "status"], "");
    let last = status["versions"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["cards"], &status["unfinished"]), (&CARDS.into(), &false.into()), "{status}");
    ok(dir, &["vault", "retire", "1"], "");
    std::fs::remove_file(dir.join("master.key")).unwrap();
    assert_eq!(opened(dir, customer).len(), CARDS);

    let all = ok(dir, &["customer", "show", customer], "");
    let card = all["cards"][0]["id"].as_str().unwrap();
    assert!(CardId::parse(card).is_ok());
    ok(dir, &["card", "delete", card], "");
    let (exit, said) = fails(dir, &["card", "delete", card], "");
    assert!(exit == 18 && said.contains("no such card"), "{said}");
    let status = ok(dir, &["vault", "status"], "");
    assert_eq!(status["versions"].as_array().unwrap().last().unwrap()["cards"], CARDS - 1, "{status}");
}

#[test]
fn a_list_with_a_security_code_or_a_bad_line_brings_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (dir, cards) = (&root.path().join("data"), &root.path().join("cards.csv"));
    ok(dir, &["customer", "add", "--name", "Ann", "--customer-number", "12345678"], "");
    let (path, number) = (cards.to_str().unwrap(), &numbers()[1]);
    std::fs::write(cards, format!("customer,number,cvv\n12345678,{number},123\n")).unwrap();
    let (exit, said) = fails(dir, &["card", "import", path], "");
    assert!(exit == 18 && said.contains("security code") && !said.contains(number.as_str()), "{said}");
    std::fs::write(cards, format!("customer,number\n12345678,{number}\n12345678,{}\n", &number[1..])).unwrap();
    let (exit, said) = fails(dir, &["card", "import", path], "");
    assert!(exit == 18 && said.contains("line 3: number") && !said.contains(&number[1..]), "{said}");
    std::fs::write(cards, format!("customer,number\n99999999,{number}\n12345678,{number}\n")).unwrap();
    let (exit, said) = fails(dir, &["card", "import", path], "");
    assert!(exit == 18 && said.contains("1 cards imported") && said.contains("line 2: there is no such customer"), "{said}");
}
