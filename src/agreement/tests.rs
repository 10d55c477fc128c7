//! The room with the real SQLite store and the sandbox acquirer; time is the manual clock's. Each case that systems 2 and 8 list is one
//! test, named after it.

mod appeals;
mod codes;
mod links;
mod parties;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::clock::{ManualClock, SeededEntropy, Timestamp};
use crate::e164::E164;
use crate::gateway::sandbox::{Did, SandboxGateway};
use crate::ids::{ApprovalId, AuditId, CallId, CardId, CustomerId, IntentId, PayeeId, RequestId, Tenant};
use crate::money::{Currency, Money};
use crate::payment::policy::Attested;
use crate::payment::{Capture, Condition, Delivery, Evidence, How, PaymentRequest, RequestStatus};
use crate::processor::{ChargeOrder, OrderGuards, Outcome, ProcessorConfig};
use crate::secret::Pan;
use crate::store::{AuditRecord, CardRecord, CardStatus, Customer, CustomerStatus, Payee, SqliteStore, StoreConfig};

const START: Timestamp = Timestamp(1_800_000_000_000);
const VISA: &str = "4242424242424242";
const OTHER_CARD: &str = "5555555555554444";

/// A service with a payer, somebody else, and two payees.
struct House {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    entropy: Arc<dyn Entropy>,
    store: Arc<dyn Store>,
    vault: Vault,
    processor: Processor,
    agreements: Agreements,
    ann: CustomerId,
    bob: CustomerId,
    water: PayeeId,
    power: PayeeId,
}

impl House {
    async fn build() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::starting_at(START));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(11));
        let cfg = StoreConfig { path: dir.path().join("v.db"), ..StoreConfig::default() };
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&cfg).await.unwrap());
        let vault = crate::store::unlock_in_hand(&*store, &entropy.bytes(), entropy.clone()).await.unwrap();
        let journal = dir.path().join("bank.jsonl");
        let bank = SandboxGateway::open(&journal, Duration::ZERO, vault.sandbox_journal_key(), clock.clone()).unwrap();
        let cfg = ProcessorConfig { gateway_timeout_ms: 200, ..ProcessorConfig::default() };
        let processor = Processor::new(store.clone(), Arc::new(bank), vault.clone(), clock.clone(), entropy.clone(), cfg);
        let agreements = Agreements::new(
            store.clone(),
            vault.clone(),
            processor.clone(),
            clock.clone(),
            entropy.clone(),
            AgreementConfig::default(),
            Policy::compiled_in().unwrap(),
        );
        let (ann, bob) = (CustomerId::fresh(&*entropy), CustomerId::fresh(&*entropy));
        let (water, power) = (PayeeId::fresh(&*entropy), PayeeId::fresh(&*entropy));
        let house = Self { dir, clock, entropy, store, vault, processor, agreements, ann, bob, water, power };
        house.customer(&house.ann, "123456", "+442079460958").await;
        house.customer(&house.bob, "654321", "+442079460959").await;
        for payee in [&house.water, &house.power] {
            let payee = Payee {
                id: payee.clone(),
                tenant: Tenant::default(),
                category: None,
                name: "Works".into(),
                spoken_name_wav: None,
                created_at: START,
            };
            house.store.add_payee(&payee, &house.audit()).await.unwrap();
        }
        house
    }

    fn audit(&self) -> AuditRecord {
        AuditRecord {
            id: AuditId::fresh(&*self.entropy),
            at: START,
            actor: "test".into(),
            action: "set up".into(),
            subject: "house".into(),
            detail: serde_json::json!({}),
        }
    }

    async fn customer(&self, id: &CustomerId, customer_number: &str, number: &str) {
        let customer = Customer {
            id: id.clone(),
            tenant: Tenant::default(),
            name: "Somebody".into(),
            customer_number: customer_number.into(),
            numbers: vec![E164::normalise(number, "").unwrap()],
            status: CustomerStatus::Active,
            language: crate::language::Language::English,
            created_at: START,
        };
        self.store.add_customer(&customer, &self.audit()).await.unwrap();
    }

    async fn card(&self, number: &str) -> CardId {
        let pan = Pan::parse(number).unwrap();
        let id = CardId::fresh(&*self.entropy);
        let card = CardRecord {
            id: id.clone(),
            customer: self.ann.clone(),
            last4: pan.last4(),
            length: u8::try_from(pan.digits().len()).unwrap(),
            expiry: None,
            status: CardStatus::Active,
            sealed: self.vault.seal_card(&id, &self.ann, &pan).unwrap(),
            digest: self.vault.digest_card(&pan),
            created_at: START,
        };
        self.store.add_card(&card, &self.audit()).await.unwrap();
        id
    }

    /// Ann is asked for money.
    async fn asked_by(&self, payee: &PayeeId, minor: i64) -> PaymentRequest {
        let request = PaymentRequest {
            id: RequestId::fresh(&*self.entropy),
            customer: self.ann.clone(),
            payee: payee.clone(),
            amount: usd(minor),
            due: None,
            delivery: Delivery::None,
            expires_at: Some(START.plus(Duration::from_secs(30 * 24 * 3600))),
            status: RequestStatus::Open,
            held_by: None,
            created_at: START,
        };
        self.store.add_request(&request, &self.audit()).await.unwrap();
        request
    }

    fn order(&self, request: &PaymentRequest, card: &CardId) -> ChargeOrder {
        ChargeOrder {
            customer: self.ann.clone(),
            request: request.id.clone(),
            amount: request.amount,
            card: card.clone(),
            occasion: CallId::fresh(&*self.entropy).into(),
            capture: Capture::Automatic,
            evidence: Evidence { policy_version: "test-1".into(), ..Evidence::default() },
            guards: OrderGuards::default(),
        }
    }

    /// Ann says yes in a call of hers, having met nothing but what a call always asks.
    async fn says_yes(&self, order: &ChargeOrder) -> Agreed {
        self.agreements.agree(order.clone(), BTreeSet::new(), Asking::call(Attested::Vouched)).await.unwrap()
    }

    /// Ann pays in a call, and it is charged.
    async fn first_payment(&self, minor: i64, card: &CardId) -> IntentId {
        let request = self.asked_by(&self.water, minor).await;
        let intent = charged(self.says_yes(&self.order(&request, card)).await);
        self.settle().await;
        assert!(matches!(self.processor.outcome(&intent, Duration::ZERO).await.unwrap(), Outcome::Paid(_)));
        intent
    }

    async fn settle(&self) {
        self.processor.run_once().await.unwrap();
    }

    /// How many payments there are, however they stand.
    async fn payments(&self) -> usize {
        self.store.payments(100).await.unwrap().len()
    }

    /// What the outside heard, oldest first.
    async fn heard(&self) -> Vec<String> {
        self.store.outbox_waiting(1_000).await.unwrap().into_iter().map(|o| o.topic).collect()
    }

    /// How often the acquirer charged a card.
    fn charges_at_bank(&self) -> usize {
        let journal = SandboxGateway::read_journal(&self.dir.path().join("bank.jsonl")).unwrap();
        journal.into_iter().filter(|line| line.did == Did::Charged).count()
    }
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::Usd).unwrap()
}

fn charged(agreed: Agreed) -> IntentId {
    match agreed {
        Agreed::Charged(intent) => intent,
        other => panic!("not charged: {other:?}"),
    }
}

fn refused(agreed: Agreed) -> Refusal {
    match agreed {
        Agreed::Refused(why) => why,
        other => panic!("not refused: {other:?}"),
    }
}
