//! A ward with parents, a neighbour of another tenant, two payees and a card, on a real database with the sandbox acquirer. Time is the
//! manual clock's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::agreement::{Agreed, AgreementConfig, Agreements, Asked, Asking, Refusal};
use crate::clock::{Clock, Entropy, ManualClock, SeededEntropy, Timestamp};
use crate::gateway::sandbox::SandboxGateway;
use crate::ids::{AuditId, CallId, CardId, CustomerId, IntentId, PayeeId, RequestId, Tenant};
use crate::language::Language;
use crate::money::{Currency, Money};
use crate::payment::guardian::WardRules;
use crate::payment::policy::{Attested, Policy};
use crate::payment::{Capture, Condition, Delivery, Evidence, Guardianship, PaymentRequest, RequestStatus};
use crate::processor::{ChargeOrder, OrderGuards, Processor, ProcessorConfig};
use crate::secret::Pan;
use crate::store::postgres::lab::Database;
use crate::store::{
    AuditRecord, CardRecord, CardStatus, Customer, CustomerStatus, DatabaseUrl, OutboxRecord, Payee, Store, StoreConfig, open,
};

pub(super) const START: Timestamp = Timestamp(1_800_000_000_000);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
const GOOD_CARD: &str = "4242424242424242";
const DECLINED_CARD: &str = "4000000000000002";

/// Makes two tests of each case: one a database.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::house::House::on_sqlite().await).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(house) = super::house::House::on_postgres().await {
                    super::$name(house).await;
                }
            })+
        }
    };
}
pub(super) use on_both;

pub(super) struct House {
    dir: tempfile::TempDir,
    cfg: StoreConfig,
    pub clock: Arc<ManualClock>,
    pub entropy: Arc<dyn Entropy>,
    pub store: Arc<dyn Store>,
    processor: Processor,
    pub agreements: Agreements,
    pub ward: CustomerId,
    pub mother: CustomerId,
    pub father: CustomerId,
    /// Of another tenant.
    pub stranger: CustomerId,
    /// Sells toys.
    pub shop: PayeeId,
    pub water: PayeeId,
    pub card: CardId,
    pub bad_card: CardId,
}

impl House {
    pub async fn on_sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cfg = StoreConfig { path: dir.path().join("v.db"), ..StoreConfig::default() };
        Self::build(dir, cfg).await
    }

    pub async fn on_postgres() -> Option<Self> {
        let url = Some(DatabaseUrl::parse(&Database::fresh().await?.url).unwrap());
        Some(Self::build(tempfile::tempdir().unwrap(), StoreConfig { url, ..StoreConfig::default() }).await)
    }

    async fn build(dir: tempfile::TempDir, cfg: StoreConfig) -> Self {
        let clock = Arc::new(ManualClock::starting_at(START));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(6));
        let store = open(&cfg).await.unwrap();
        let vault = crate::store::unlock_in_hand(&*store, &entropy.bytes(), entropy.clone()).await.unwrap();
        let journal = dir.path().join("bank.jsonl");
        let bank = SandboxGateway::open(&journal, Duration::ZERO, vault.sandbox_journal_key(), clock.clone()).unwrap();
        let slow = ProcessorConfig { gateway_timeout_ms: 2_000, ..ProcessorConfig::default() };
        let processor = Processor::new(store.clone(), Arc::new(bank), vault.clone(), clock.clone(), entropy.clone(), slow);
        let policy = Policy::compiled_in().unwrap();
        let cfg_of = AgreementConfig::default();
        let agreements =
            Agreements::new(store.clone(), vault.clone(), processor.clone(), clock.clone(), entropy.clone(), cfg_of, policy);
        let customer = || CustomerId::fresh(&*entropy);
        let (ward, mother, father, stranger) = (customer(), customer(), customer(), customer());
        let (shop, water) = (PayeeId::fresh(&*entropy), PayeeId::fresh(&*entropy));
        let (card, bad_card) = (CardId::fresh(&*entropy), CardId::fresh(&*entropy));
        let house = Self {
            dir,
            cfg,
            clock,
            entropy,
            store,
            processor,
            agreements,
            ward,
            mother,
            father,
            stranger,
            shop,
            water,
            card,
            bad_card,
        };
        let elsewhere = Tenant::parse("elsewhere").unwrap();
        for (n, id) in [&house.ward, &house.mother, &house.father, &house.stranger].into_iter().enumerate() {
            let tenant = if *id == house.stranger { elsewhere.clone() } else { Tenant::default() };
            let customer = Customer {
                id: id.clone(),
                tenant,
                name: "Somebody".into(),
                customer_number: format!("12345{n}"),
                numbers: Vec::new(),
                status: CustomerStatus::Active,
                language: Language::English,
                created_at: START,
            };
            house.store.add_customer(&customer, &house.audit()).await.unwrap();
        }
        for (id, category) in [(&house.shop, Some("toys".parse().unwrap())), (&house.water, None)] {
            let payee = Payee {
                id: id.clone(),
                tenant: Tenant::default(),
                category,
                name: "Works".into(),
                spoken_name_wav: None,
                created_at: START,
            };
            house.store.add_payee(&payee, &house.audit()).await.unwrap();
        }
        for (id, number) in [(&house.card, GOOD_CARD), (&house.bad_card, DECLINED_CARD)] {
            let pan = Pan::parse(number).unwrap();
            let card = CardRecord {
                id: id.clone(),
                customer: house.ward.clone(),
                last4: pan.last4(),
                length: 16,
                expiry: None,
                status: CardStatus::Active,
                sealed: vault.seal_card(id, &house.ward, &pan).unwrap(),
                digest: vault.digest_card(&pan),
                created_at: START,
            };
            house.store.add_card(&card, &house.audit()).await.unwrap();
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

    /// The ward is asked for money.
    pub async fn request(&self, payee: &PayeeId, minor: i64, delivery: Delivery) -> PaymentRequest {
        let request = PaymentRequest {
            id: RequestId::fresh(&*self.entropy),
            customer: self.ward.clone(),
            payee: payee.clone(),
            amount: Money::new(minor, Currency::Usd).unwrap(),
            due: None,
            delivery,
            expires_at: Some(START.plus(HOUR * 10_000)),
            status: RequestStatus::Open,
            held_by: None,
            created_at: self.clock.now(),
        };
        self.store.add_request(&request, &self.audit()).await.unwrap();
        request
    }

    pub async fn ask(&self, request: &PaymentRequest) -> Asked {
        self.agreements.ask(request, Asking::call(Attested::Vouched)).await.unwrap()
    }

    /// What rules want of the ward's own, of a payment that is not made.
    pub async fn wanted(&self, payee: &PayeeId, minor: i64, delivery: Delivery) -> Vec<Condition> {
        let request = self.request(payee, minor, delivery).await;
        self.ask(&request).await.terms.conditions.into_iter().collect()
    }

    pub fn order(&self, request: &PaymentRequest, card: &CardId) -> ChargeOrder {
        ChargeOrder {
            customer: self.ward.clone(),
            request: request.id.clone(),
            amount: request.amount,
            card: card.clone(),
            occasion: CallId::fresh(&*self.entropy).into(),
            capture: Capture::Automatic,
            evidence: Evidence { policy_version: "test-1".into(), ..Evidence::default() },
            guards: OrderGuards::default(),
        }
    }

    /// The ward says yes, having met whatever a payer can meet.
    pub async fn yes(&self, order: &ChargeOrder) -> Agreed {
        let met = BTreeSet::from([Condition::FreshDigits, Condition::Code]);
        self.agreements.agree(order.clone(), met, Asking::call(Attested::Vouched)).await.unwrap()
    }

    /// The ward pays, as far as rules let them, and the acquirer answers.
    pub async fn pays(&self, payee: &PayeeId, minor: i64, delivery: Delivery, card: &CardId) -> Agreed {
        let request = self.request(payee, minor, delivery).await;
        let agreed = self.yes(&self.order(&request, card)).await;
        self.settle().await;
        agreed
    }

    pub async fn settle(&self) {
        self.processor.run_once().await.unwrap();
    }

    pub async fn guarded(&self, second: bool, rules: WardRules, ends_at: Option<Timestamp>) -> Guardianship {
        let second = second.then_some(&self.father);
        self.agreements.add_guardianship(&self.ward, &self.mother, second, rules, ends_at, "test").await.unwrap()
    }

    /// News of a topic that wait for delivery, as another process reads them.
    pub async fn news(&self, topic: &str) -> Vec<OutboxRecord> {
        let again = open(&self.cfg).await.unwrap();
        let all = again.outbox_waiting(1_000).await.unwrap();
        again.close().await;
        all.into_iter().filter(|o| o.topic == topic).collect()
    }

    /// How often the acquirer charged.
    pub fn charges(&self) -> usize {
        let journal = SandboxGateway::read_journal(&self.dir.path().join("bank.jsonl")).unwrap();
        journal.into_iter().filter(|line| line.did == crate::gateway::sandbox::Did::Charged).count()
    }
}

pub(super) fn charged(agreed: Agreed) -> IntentId {
    match agreed {
        Agreed::Charged(intent) => intent,
        other @ (Agreed::Waiting { .. } | Agreed::Refused(_)) => panic!("not charged: {other:?}"),
    }
}

/// The rule that denied it.
pub(super) fn denied(agreed: Agreed) -> String {
    match agreed {
        Agreed::Refused(Refusal::Denied(rule)) => rule,
        other @ (Agreed::Charged(_) | Agreed::Waiting { .. } | Agreed::Refused(_)) => panic!("not denied: {other:?}"),
    }
}
