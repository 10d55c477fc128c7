//! A service with two banks beside its main acquirer, two customers at one bank each, and a shop: on SQLite and on PostgreSQL, with the real
//! sandbox at every bank. Time is the manual clock's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use voicepay::agreement::{AgreementConfig, Agreements, AskedPurchase, Confirmation, PurchaseFault};
use voicepay::clock::{Clock, Entropy, ManualClock, SeededEntropy, Timestamp};
use voicepay::gateway::sandbox::{JournalLine, SandboxGateway};
use voicepay::gateway::{Acquirers, Gateway};
use voicepay::ids::{AuditId, BankName, CardId, CustomerId, PayeeId, RequestId, Tenant};
use voicepay::language::Language;
use voicepay::money::{Currency, Money};
use voicepay::payment::account::WORDING;
use voicepay::payment::policy::Policy;
use voicepay::payment::{ConfirmedBy, Delivery, MainAccount, PaymentRequest, Purchase, PurchaseAccount, RequestStatus};
use voicepay::processor::{Processor, ProcessorConfig};
use voicepay::secret::Pan;
use voicepay::store::{
    self, AuditRecord, CardRecord, CardStatus, Customer, CustomerStatus, DatabaseUrl, Payee, Store, StoreConfig,
};
use voicepay::vault::Vault;

use super::support::lab::Database;

pub const START: Timestamp = Timestamp(1_800_000_000_000);
pub const VISA: &str = "4242424242424242";
pub const MASTERCARD: &str = "5555555555554444";
/// Every acquirer: the main one, and the two banks.
const ALL: [&str; 3] = ["sandbox", "north", "south"];

/// Makes two tests of each case: one a database.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::purchase_house::House::on_sqlite().await).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(house) = crate::purchase_house::House::on_postgres().await {
                    super::$name(house).await;
                }
            })+
        }
    };
}
pub(crate) use on_both;

pub struct House {
    dir: tempfile::TempDir,
    pub clock: Arc<ManualClock>,
    pub entropy: Arc<dyn Entropy>,
    pub store: Arc<dyn Store>,
    vault: Vault,
    pub processor: Processor,
    pub agreements: Agreements,
    pub ann: CustomerId,
    pub bob: CustomerId,
    /// Of another tenant.
    pub stranger: CustomerId,
    pub shop: PayeeId,
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
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(7));
        let store = store::open(&cfg).await.unwrap();
        let vault = store::unlock_in_hand(&*store, &entropy.bytes(), entropy.clone()).await.unwrap();
        let parts = (&store, &vault, &clock, &entropy);
        let (processor, agreements) = service(dir.path(), parts, &["north", "south"], Policy::compiled_in().unwrap());
        let customer = || CustomerId::fresh(&*entropy);
        let (ann, bob, stranger, shop) = (customer(), customer(), customer(), PayeeId::fresh(&*entropy));
        let house = Self { dir, clock, entropy, store, vault, processor, agreements, ann, bob, stranger, shop };
        for (n, id) in [&house.ann, &house.bob, &house.stranger].into_iter().enumerate() {
            let tenant = if *id == house.stranger { Tenant::parse("elsewhere").unwrap() } else { Tenant::default() };
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
            house.store.add_customer(&customer, &house.audit_row()).await.unwrap();
        }
        house.open_shop(&house.shop).await;
        house
    }

    pub fn audit_row(&self) -> AuditRecord {
        AuditRecord {
            id: AuditId::fresh(&*self.entropy),
            at: START,
            actor: "test".into(),
            action: "set up".into(),
            subject: "house".into(),
            detail: serde_json::json!({}),
        }
    }

    pub async fn open_shop(&self, id: &PayeeId) {
        let payee = Payee {
            id: id.clone(),
            tenant: Tenant::default(),
            category: None,
            name: "Shop".into(),
            spoken_name_wav: None,
            created_at: START,
        };
        self.store.add_payee(&payee, &self.audit_row()).await.unwrap();
    }

    /// Another process at the same database, with these banks and rules.
    pub fn another(&self, banks: &[&str], policy: Policy) -> (Processor, Agreements) {
        service(self.dir.path(), (&self.store, &self.vault, &self.clock, &self.entropy), banks, policy)
    }

    pub async fn card(&self, customer: &CustomerId, number: &str) -> CardId {
        let (id, pan) = (CardId::fresh(&*self.entropy), Pan::parse(number).unwrap());
        let card = CardRecord {
            id: id.clone(),
            customer: customer.clone(),
            last4: pan.last4(),
            length: u8::try_from(pan.digits().len()).unwrap(),
            expiry: None,
            status: CardStatus::Active,
            sealed: self.vault.seal_card(&id, customer, &pan).unwrap(),
            digest: self.vault.digest_card(&pan),
            created_at: START,
        };
        self.store.add_card(&card, &self.audit_row()).await.unwrap();
        id
    }

    /// A main account at a bank that knows it by this card.
    pub async fn main_account(&self, customer: &CustomerId, bank: &str, number: &str) -> MainAccount {
        let card = self.card(customer, number).await;
        let bank = BankName::parse(bank).unwrap();
        self.agreements.open_main_account(customer, &bank, &card, "test").await.unwrap()
    }

    pub async fn request(&self, customer: &CustomerId, payee: &PayeeId, amount: Money) -> PaymentRequest {
        let request = PaymentRequest {
            id: RequestId::fresh(&*self.entropy),
            customer: customer.clone(),
            payee: payee.clone(),
            amount,
            due: None,
            delivery: Delivery::None,
            expires_at: Some(START.plus(Duration::from_secs(30 * 24 * 3600))),
            status: RequestStatus::Open,
            held_by: None,
            created_at: self.clock.now(),
        };
        self.store.add_request(&request, &self.audit_row()).await.unwrap();
        request
    }

    /// The shop asks a customer for so much.
    pub async fn asks(&self, customer: &CustomerId, minor: i64) -> AskedPurchase {
        let request = self.request(customer, &self.shop, usd(minor)).await;
        self.agreements.ask_purchase(customer, &request.id).await.unwrap()
    }

    /// The customer says yes on the page, agreeing to the wording in force.
    pub async fn says_yes(&self, asked: &AskedPurchase) -> Result<Purchase, PurchaseFault> {
        let (purchase, who) = self.agreements.open_page_link(asked.page.as_ref().unwrap()).unwrap();
        self.agreements.confirm(&purchase, &who, &yes()).await
    }

    /// What was asked for and confirmed, as it stands once every acquirer has been spoken to.
    pub async fn buys(&self, customer: &CustomerId, minor: i64) -> Purchase {
        let asked = self.asks(customer, minor).await;
        self.says_yes(&asked).await.unwrap();
        self.processor.run_once().await.unwrap();
        self.stands(&asked.purchase).await
    }

    pub async fn stands(&self, purchase: &Purchase) -> Purchase {
        self.agreements.purchase(&purchase.id, Duration::ZERO).await.unwrap()
    }

    pub async fn accounts(&self, customer: &CustomerId) -> Vec<PurchaseAccount> {
        self.agreements.purchase_accounts(customer).await.unwrap()
    }

    pub fn later(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// How many payments there are, however they stand.
    pub async fn payments(&self) -> usize {
        self.store.payments(100).await.unwrap().len()
    }

    /// What the outside heard, oldest first.
    pub async fn heard(&self) -> Vec<String> {
        self.store.outbox_waiting(1_000).await.unwrap().into_iter().map(|o| o.topic).collect()
    }

    pub async fn heard_of(&self, topic: &str) -> usize {
        self.heard().await.iter().filter(|t| *t == topic).count()
    }

    pub async fn trail(&self, action: &str) -> Vec<AuditRecord> {
        self.store.audit_trail(1_000).await.unwrap().into_iter().filter(|a| a.action == action).collect()
    }

    /// What a bank did.
    pub fn journal(&self, bank: &str) -> Vec<JournalLine> {
        SandboxGateway::read_journal(&self.dir.path().join(format!("{bank}.jsonl"))).unwrap_or_default()
    }

    /// How often each acquirer took money: main, north, south.
    pub fn charges(&self) -> [usize; 3] {
        ALL.map(|bank| self.journal(bank).iter().filter(|l| l.did.charged()).count())
    }

    /// Everything that a refusal must leave as it is: payments, purchases, accounts, charges.
    pub async fn everything(&self) -> (usize, Vec<String>, [usize; 3]) {
        let mut papers = Vec::new();
        for kind in [store::PaperKind::MainAccount, store::PaperKind::Account, store::PaperKind::Purchase] {
            let all = self.store.papers_after(kind, "", 100).await.unwrap();
            papers.extend(all.into_iter().map(|p| format!("{} {}", p.id, p.body)));
        }
        (self.payments().await, papers, self.charges())
    }
}

type Parts<'a> = (&'a Arc<dyn Store>, &'a Vault, &'a Arc<ManualClock>, &'a Arc<dyn Entropy>);

fn service(dir: &std::path::Path, parts: Parts<'_>, banks: &[&str], policy: Policy) -> (Processor, Agreements) {
    let (store, vault, clock, entropy) = (parts.0.clone(), parts.1.clone(), parts.2.clone(), parts.3.clone());
    let sandbox = |name: &str| {
        let journal = dir.join(format!("{name}.jsonl"));
        let bank = SandboxGateway::open(&journal, Duration::ZERO, vault.sandbox_journal_key(), clock.clone()).unwrap();
        Arc::new(bank) as Arc<dyn Gateway>
    };
    let named: BTreeMap<_, _> = banks.iter().map(|name| (BankName::parse(name).unwrap(), sandbox(name))).collect();
    let acquirers = Acquirers::new(sandbox("sandbox"), named);
    let cfg = ProcessorConfig { gateway_timeout_ms: 1_000, ..ProcessorConfig::default() };
    let processor = Processor::new(store.clone(), acquirers, vault.clone(), clock.clone(), entropy.clone(), cfg);
    let cfg = AgreementConfig::default();
    let agreements = Agreements::new(store, vault.clone(), processor.clone(), clock, entropy, cfg, policy);
    (processor, agreements)
}

/// Yes, and the wording in force is agreed to.
pub fn yes() -> Confirmation {
    Confirmation { yes: true, how: ConfirmedBy::Link, consent: Some(WORDING.version.to_owned()), code: None }
}

pub fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::Usd).unwrap()
}
