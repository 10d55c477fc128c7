//! Whole payments at the bank host: database, vault, processor, and every fault at once, with a restart of ours in between. In
//! the end the host's ledger and our books say the same.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use voicepay::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use voicepay::gateway::iso8583::config::Iso8583Config;
use voicepay::ids::{CallId, CardId, CustomerId, IntentId, PayeeId};
use voicepay::ledger::{self, AccountName};
use voicepay::money::{Currency, Money};
use voicepay::payment::{Attempt, AttemptState, Capture, Evidence, Operation};
use voicepay::processor::{ChargeOrder, OperationOrder, Processor, ProcessorConfig};
use voicepay::store::{self, CardRecord, SqliteStore, Store, StoreConfig};
use voicepay::vault::{Vault, VaultConfig};

use crate::people;
use crate::support::*;

struct House {
    store: Arc<dyn Store>,
    vault: Vault,
    processor: Processor,
    entropy: Arc<dyn Entropy>,
}

impl House {
    async fn open(dir: &Path, config: &Iso8583Config) -> Self {
        let (entropy, clock): (Arc<dyn Entropy>, Arc<dyn Clock>) = (Arc::new(SystemEntropy), Arc::new(SystemClock));
        let cfg = StoreConfig { path: dir.join("voicepay.db"), ..StoreConfig::default() };
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&cfg).await.unwrap());
        let cfg = VaultConfig { master_key_file: dir.join("master.key"), ..VaultConfig::default() };
        let vault = store::unlock(&*store, &cfg, entropy.clone()).await.unwrap();
        let cfg = ProcessorConfig {
            gateway_timeout_ms: 1_000,
            sweep_ms: 20,
            question_cap_ms: 100,
            lease_margin_ms: 500,
            ..ProcessorConfig::default()
        };
        let bank = Arc::new(open(config));
        let processor = Processor::new(store.clone(), bank, vault.clone(), clock, entropy.clone(), cfg);
        Self { store, vault, processor, entropy }
    }

    async fn customer(&self) -> (CustomerId, CardId, PayeeId) {
        let (entropy, now) = (&*self.entropy, SystemClock.now());
        let (customer, payee) = (people::customer(entropy, now), people::payee(entropy, now));
        // With a last month: the wire has a field for it.
        let card =
            CardRecord { expiry: Some("12/39".parse().unwrap()), ..people::card(entropy, now, &self.vault, &customer.id, CARD) };
        let audit = || people::audit_row(entropy, now);
        self.store.add_customer(&customer, &audit()).await.unwrap();
        self.store.add_payee(&payee, &audit()).await.unwrap();
        self.store.add_card(&card, &audit()).await.unwrap();
        (customer.id, card.id, payee.id)
    }

    async fn submit(&self, (customer, card, payee): &(CustomerId, CardId, PayeeId), minor: i64) -> IntentId {
        let (entropy, now, amount) = (&*self.entropy, SystemClock.now(), Money::new(minor, Currency::Usd).unwrap());
        let request = people::request(entropy, now, customer, payee, amount);
        self.store.add_request(&request, &people::audit_row(entropy, now)).await.unwrap();
        let order = ChargeOrder {
            customer: customer.clone(),
            request: request.id,
            amount,
            card: card.clone(),
            occasion: CallId::fresh(&*self.entropy).into(),
            capture: Capture::Automatic,
            evidence: Evidence::default(),
            guards: voicepay::processor::OrderGuards::default(),
        };
        self.processor.submit(order).await.unwrap()
    }

    /// Works until nothing is left but what waits for a person.
    async fn work(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let waits = |a: &Attempt| matches!(a.state, AttemptState::Conflicted { .. });
        while !self.store.unfinished(100).await.unwrap().iter().all(waits) {
            self.processor.run_once().await.unwrap();
            assert!(Instant::now() < deadline, "{:?}", self.store.unfinished(100).await.unwrap());
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn attempt(&self, intent: &IntentId) -> Attempt {
        self.store.payment(intent).await.unwrap().unwrap().attempts.into_iter().next_back().unwrap()
    }

    /// What we say that the bank owes us, in minor units; fails where the books don't balance.
    async fn books(&self) -> i64 {
        let transfers = self.store.transfers().await.unwrap();
        let books = ledger::verify(&transfers).unwrap();
        let account = AccountName::acquirer("iso8583", Currency::Usd);
        let balance = books.balances().get(&account).copied().unwrap_or_default();
        balance.debits_posted - balance.credits_posted
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_at_once_and_a_restart_and_both_books_agree() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &["--jitter-ms", "20"]);
    // Longer than the host keeps a charge back.
    let config = Iso8583Config { late_arrival_ms: 1_500, ..config(&[&host]) };
    let house = House::open(dir.path(), &config).await;
    let customer = house.customer().await;
    let mut intents = vec![];
    for minor in (7001..=7020).chain([9005, 9051, 100, 200, 300]) {
        intents.push((minor, house.submit(&customer, minor).await));
    }
    // Sent, and most of it in doubt; then our process is no more, and another one finds it in the database.
    house.processor.run_once().await.unwrap();
    drop(house);
    let house = House::open(dir.path(), &config).await;
    house.work().await;

    // Faults that end the line take the answers of the others with them, so which of those stand is a matter of chance.
    let mut standing = 0;
    for (minor, intent) in &intents {
        let attempt = house.attempt(intent).await;
        let asked = voicepay::gateway::GatewayRequest { number: attempt.number, ..charge(1) };
        let (theirs, did) = (host.stands(&asked), host.did(&asked));
        match &attempt.state {
            AttemptState::Succeeded { .. } => {
                assert_eq!(theirs, *minor, "{did:?}");
                standing += minor;
            }
            AttemptState::Declined { .. } | AttemptState::Reversed { .. } => assert_eq!(theirs, 0, "{minor}: {did:?}"),
            AttemptState::Conflicted { charged, .. } => {
                assert_eq!(theirs, charged.minor.get(), "{did:?}");
                assert!([7004, 7012].contains(minor), "{minor}: {did:?}");
            }
            other => panic!("{minor} is {}: {did:?}", other.name()),
        }
    }
    assert_eq!(house.books().await, standing);

    // One by one nothing is chance: another amount waits for a person, a plain charge stands, a refund in doubt is undone and asked for
    // again.
    let other = house.submit(&customer, 7004).await;
    house.work().await;
    assert!(matches!(house.attempt(&other).await.state, AttemptState::Conflicted { .. }));
    let paid = house.submit(&customer, 8000).await;
    house.work().await;
    assert!(matches!(house.attempt(&paid).await.state, AttemptState::Succeeded { .. }));
    standing += 8000;
    assert_eq!(house.books().await, standing);
    let refund = async |key: &str, minor: i64| {
        let amount = Some(Money::new(minor, Currency::Usd).unwrap());
        let (operation, by, why) = (Operation::Refund, "test".to_owned(), "because".to_owned());
        let order = OperationOrder { key: key.into(), intent: paid.clone(), operation, amount, by, why };
        let id = house.processor.operate(order).await.unwrap();
        house.work().await;
        house.processor.operation(&id, Duration::ZERO).await.unwrap()
    };
    let undone = refund("first", 7002).await;
    assert!(matches!(undone.state, AttemptState::Reversed { .. }), "{:?}", undone.state);
    assert_eq!(house.books().await, standing);
    let done = refund("second", 5000).await;
    assert!(matches!(done.state, AttemptState::Succeeded { .. }), "{:?}", done.state);
    assert_eq!(house.books().await, standing - 5000);
    let named = host.all_lines().iter().filter(|l| l["kind"] == "refund").all(|l| l["last4"] == "4242");
    assert!(named, "a refund names its card");
}
