//! The processor with the real SQLite store and the sandbox acquirer; time is the manual clock's.

mod leases;
mod operations;
mod receipts;
mod takes_back;

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::{ManualClock, SeededEntropy, Timestamp};
use crate::e164::E164;
use crate::gateway::sandbox::{Did, SandboxGateway};
use crate::ids::{AuditId, CallId, PayeeId};
use crate::ledger;
use crate::money::Currency;
use crate::payment::{Expiry, IntentStatus, PaymentRequest, RequestStatus};
use crate::secret::Pan;
use crate::store::{AuditRecord, CardRecord, CardStatus, Customer, CustomerStatus, Payee, SqliteStore, StoreConfig};

const START: Timestamp = Timestamp(1_800_000_000_000);

struct House {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    entropy: Arc<dyn Entropy>,
    store: Arc<dyn Store>,
    vault: Vault,
    processor: Processor,
    customer: CustomerId,
    payee: PayeeId,
}

fn audit(entropy: &dyn Entropy) -> AuditRecord {
    AuditRecord {
        id: AuditId::fresh(entropy),
        at: START,
        actor: "test".into(),
        action: "set up".into(),
        subject: "house".into(),
        detail: serde_json::json!({}),
    }
}

fn gateway(dir: &Path, vault: &Vault, clock: &Arc<ManualClock>) -> Arc<dyn Gateway> {
    let bank = SandboxGateway::open(&dir.join("bank.jsonl"), Duration::ZERO, vault.sandbox_journal_key(), clock.clone()).unwrap();
    Arc::new(bank)
}

impl House {
    async fn build() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::starting_at(START));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(11));
        let cfg = StoreConfig { path: dir.path().join("v.db"), ..StoreConfig::default() };
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&cfg).await.unwrap());
        let vault = crate::store::unlock_in_hand(&*store, &entropy.bytes(), entropy.clone()).await.unwrap();
        let customer = Customer {
            tenant: crate::ids::Tenant::default(),
            id: CustomerId::fresh(&*entropy),
            name: "Ann".into(),
            customer_number: "123456".into(),
            numbers: vec![E164::normalise("+442079460958", "").unwrap()],
            status: CustomerStatus::Active,
            language: crate::language::Language::English,
            created_at: START,
        };
        let payee = Payee {
            tenant: crate::ids::Tenant::default(),
            category: None,
            id: PayeeId::fresh(&*entropy),
            name: "Water Works".into(),
            spoken_name_wav: None,
            created_at: START,
        };
        store.add_customer(&customer, &audit(&*entropy)).await.unwrap();
        store.add_payee(&payee, &audit(&*entropy)).await.unwrap();
        let cfg = ProcessorConfig { gateway_timeout_ms: 200, ..ProcessorConfig::default() };
        let bank = gateway(dir.path(), &vault, &clock);
        let processor = Processor::new(store.clone(), bank, vault.clone(), clock.clone(), entropy.clone(), cfg);
        Self { dir, clock, entropy, store, vault, processor, customer: customer.id, payee: payee.id }
    }

    async fn card(&self, number: &str, expiry: Option<&str>) -> CardId {
        let pan = Pan::parse(number).unwrap();
        let id = CardId::fresh(&*self.entropy);
        let card = CardRecord {
            id: id.clone(),
            customer: self.customer.clone(),
            last4: pan.last4(),
            length: u8::try_from(pan.digits().len()).unwrap(),
            expiry: expiry.map(|e| e.parse::<Expiry>().unwrap()),
            status: CardStatus::Active,
            sealed: self.vault.seal_card(&id, &self.customer, &pan).unwrap(),
            digest: self.vault.digest_card(&pan),
            created_at: START,
        };
        self.store.add_card(&card, &audit(&*self.entropy)).await.unwrap();
        id
    }

    async fn request(&self, minor: i64) -> RequestId {
        let request = PaymentRequest {
            id: RequestId::fresh(&*self.entropy),
            customer: self.customer.clone(),
            payee: self.payee.clone(),
            amount: Money::new(minor, Currency::Usd).unwrap(),
            due: None,
            delivery: crate::payment::Delivery::None,
            expires_at: Some(START.plus(Duration::from_secs(30 * 24 * 3600))),
            status: RequestStatus::Open,
            held_by: None,
            created_at: START,
        };
        self.store.add_request(&request, &audit(&*self.entropy)).await.unwrap();
        request.id
    }

    fn order(&self, request: &RequestId, card: &CardId, minor: i64) -> ChargeOrder {
        ChargeOrder {
            customer: self.customer.clone(),
            request: request.clone(),
            amount: Money::new(minor, Currency::Usd).unwrap(),
            card: card.clone(),
            occasion: CallId::fresh(&*self.entropy).into(),
            capture: Capture::Automatic,
            evidence: Evidence { policy_version: "test-1".into(), ..Evidence::default() },
            guards: crate::processor::OrderGuards::default(),
        }
    }

    /// Submits a fresh request of 19.99 to `number`, runs the worker once, and gives the intent.
    async fn charge(&self, number: &str) -> IntentId {
        let (request, card) = (self.request(1999).await, self.card(number, None).await);
        let intent = self.processor.submit(self.order(&request, &card, 1999)).await.unwrap();
        self.processor.run_once().await.unwrap();
        intent
    }

    /// Some seconds pass, so that questions are due, and the worker looks.
    async fn later(&self) {
        self.clock.advance(Duration::from_secs(15));
        self.processor.run_once().await.unwrap();
    }

    async fn outcome(&self, intent: &IntentId) -> Outcome {
        self.processor.outcome(intent, Duration::ZERO).await.unwrap()
    }

    async fn request_status(&self, intent: &IntentId) -> (RequestStatus, bool) {
        let payment = self.store.payment(intent).await.unwrap().unwrap();
        let request = self.store.request(&payment.intent.request).await.unwrap().unwrap().request;
        (request.status, request.held_by.is_some())
    }

    fn bank_saw(&self) -> Vec<Did> {
        SandboxGateway::read_journal(&self.dir.path().join("bank.jsonl")).unwrap().into_iter().map(|l| l.did).collect()
    }

    /// Posted and pending sums at the acquirer; fails if the books don't balance.
    async fn books(&self) -> (i64, i64) {
        let report = check::books(&*self.store).await.unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        let transfers = self.store.transfers().await.unwrap();
        let books = ledger::verify(&transfers).unwrap();
        assert_eq!(report.balances, *books.balances());
        let name = ledger::AccountName::acquirer("sandbox", Currency::Usd);
        let b = books.balances().get(&name).copied().unwrap_or_default();
        (b.debits_posted, b.debits_pending)
    }

    async fn topics(&self) -> Vec<String> {
        self.store.outbox_waiting(100).await.unwrap().into_iter().map(|o| o.topic).collect()
    }
}

#[tokio::test]
async fn a_charge_is_paid_posted_and_receipted() {
    let house = House::build().await;
    let intent = house.charge("4111111111111111").await;
    let Outcome::Paid(receipt) = house.outcome(&intent).await else { panic!("not paid") };
    assert_eq!((receipt.reference.len(), receipt.last4.as_str(), receipt.payee_name.as_str()), (10, "1111", "Water Works"));
    assert_eq!(receipt.reference_digits().len(), 10);
    assert_eq!(house.store.receipt_by_reference(&receipt.reference).await.unwrap().unwrap(), receipt);
    assert_eq!(house.books().await, (1999, 0));
    assert_eq!(house.request_status(&intent).await, (RequestStatus::Paid, true));
    assert_eq!(house.bank_saw(), [Did::Charged]);
    assert_eq!(house.topics().await, ["payment.submitted", "payment.succeeded"]);
    let actions: Vec<_> = house.store.audit_trail(7).await.unwrap().into_iter().map(|a| a.action).collect();
    let expected = [
        "charge.succeeded",
        "receipt.issued",
        "transfer.post",
        "signing_key.made",
        "charge.dispatched",
        "charge.submitted",
        "transfer.pending",
    ];
    assert_eq!(actions, expected);
    house.processor.run_once().await.unwrap();
    assert_eq!(house.bank_saw(), [Did::Charged], "a later look sends nothing");
}

#[tokio::test]
async fn the_same_call_and_request_submit_once() {
    let house = House::build().await;
    let (request, card) = (house.request(500).await, house.card("4111111111111111", None).await);
    let order = house.order(&request, &card, 500);
    let first = house.processor.submit(order.clone()).await.unwrap();
    assert_eq!(house.processor.submit(order.clone()).await.unwrap(), first);
    house.processor.run_once().await.unwrap();
    assert_eq!(house.processor.submit(order.clone()).await.unwrap(), first, "after it was paid, too");
    let other = house.card("5555555555554444", None).await;
    let error = house.processor.submit(ChargeOrder { card: other, ..order }).await.unwrap_err();
    assert!(matches!(error, SubmitError::Refused(SubmitRefusal::SameKeyOtherContent)));
    let again = house.processor.submit(house.order(&request, &card, 500)).await.unwrap_err();
    assert!(matches!(again, SubmitError::Refused(SubmitRefusal::Request(_))), "another call can't pay it again");
    assert_eq!(house.bank_saw(), [Did::Charged]);
    assert_eq!(house.books().await, (500, 0));
}

#[tokio::test]
async fn a_hundred_simultaneous_submissions_of_one_request_make_one_charge() {
    let house = House::build().await;
    let (request, card) = (house.request(700).await, house.card("4111111111111111", None).await);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (processor, order) = (house.processor.clone(), house.order(&request, &card, 700));
        tasks.spawn(async move { processor.submit(order).await.is_ok() });
    }
    let taken = tasks.join_all().await.into_iter().filter(|ok| *ok).count();
    assert_eq!(taken, 1);
    house.processor.run_once().await.unwrap();
    assert_eq!((house.bank_saw(), house.books().await), (vec![Did::Charged], (700, 0)));
}

#[tokio::test]
async fn what_may_not_be_charged_is_refused_and_writes_nothing() {
    let house = House::build().await;
    let (request, card) = (house.request(500).await, house.card("4111111111111111", None).await);
    let expired = house.card("5555555555554444", Some("01/20")).await;
    let refused = async |order: ChargeOrder| match house.processor.submit(order).await {
        Err(SubmitError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(house.order(&request, &card, 501)).await, SubmitRefusal::OtherAmount);
    assert_eq!(refused(house.order(&request, &expired, 500)).await, SubmitRefusal::NoUsableCard);
    let stranger = ChargeOrder { customer: CustomerId::fresh(&*house.entropy), ..house.order(&request, &card, 500) };
    assert_eq!(refused(stranger).await, SubmitRefusal::NoSuchCustomer);
    house.store.set_card_status(&card, CardStatus::Blocked, &audit(&*house.entropy)).await.unwrap();
    assert_eq!(refused(house.order(&request, &card, 500)).await, SubmitRefusal::NoUsableCard);
    let unknown = RequestId::fresh(&*house.entropy);
    assert_eq!(refused(house.order(&unknown, &card, 500)).await, SubmitRefusal::NoSuchRequest);
    house.clock.advance(Duration::from_secs(31 * 24 * 3600));
    house.store.set_card_status(&card, CardStatus::Active, &audit(&*house.entropy)).await.unwrap();
    assert!(matches!(refused(house.order(&request, &card, 500)).await, SubmitRefusal::Request(_)), "expired");
    assert!(house.store.transfers().await.unwrap().is_empty());
    assert!(house.store.payments(10).await.unwrap().is_empty());
    assert!(house.topics().await.is_empty());
}

#[tokio::test]
async fn a_decline_voids_the_reserve_and_frees_the_request() {
    for (number, reason) in [
        ("4000000000009995", DeclineReason::InsufficientFunds),
        ("4000000000000069", DeclineReason::ExpiredCard),
        ("4000000000000002", DeclineReason::DoNotHonour),
    ] {
        let house = House::build().await;
        let intent = house.charge(number).await;
        assert_eq!(house.outcome(&intent).await, Outcome::Declined(reason));
        assert_eq!(house.books().await, (0, 0));
        assert_eq!(house.request_status(&intent).await, (RequestStatus::Open, false));
        let payment = house.store.payment(&intent).await.unwrap().unwrap();
        assert_eq!((payment.intent.status, payment.receipt), (IntentStatus::Failed, None));
        // Another call may pay it with another card.
        let card = house.card("4111111111111111", None).await;
        let second = house.processor.submit(house.order(&payment.intent.request, &card, 1999)).await.unwrap();
        house.processor.run_once().await.unwrap();
        assert!(matches!(house.outcome(&second).await, Outcome::Paid(_)));
    }
}

#[tokio::test]
async fn a_lost_answer_is_found_by_our_reference() {
    let house = House::build().await;
    let intent = house.charge("4000000000000119").await;
    assert_eq!(house.outcome(&intent).await, Outcome::Unknown);
    assert_eq!(house.books().await, (0, 1999), "still reserved");
    house.later().await;
    assert!(matches!(house.outcome(&intent).await, Outcome::Paid(_)));
    assert_eq!((house.books().await, house.bank_saw()), ((1999, 0), vec![Did::ChargedSilently]));
}

#[tokio::test]
async fn not_found_is_not_believed_at_once_and_the_same_bytes_go_again() {
    let house = House::build().await;
    let intent = house.charge("4000000000000341").await;
    house.later().await;
    assert_eq!(house.bank_saw(), [Did::ServerError], "within the grace time nothing is sent again");
    house.clock.advance(Duration::from_secs(61));
    house.processor.run_once().await.unwrap();
    assert!(matches!(house.outcome(&intent).await, Outcome::Paid(_)));
    assert_eq!((house.bank_saw(), house.books().await), (vec![Did::ServerError, Did::Charged], (1999, 0)));
}

#[tokio::test]
async fn a_charge_that_never_arrives_ends_after_the_window_and_not_before() {
    let house = House::build().await;
    let intent = house.charge("4000000000000259").await;
    for _ in 0..6 {
        house.clock.advance(Duration::from_secs(3600));
        house.processor.run_once().await.unwrap();
    }
    assert_eq!(house.bank_saw(), [Did::Lost, Did::Lost, Did::Lost], "sent as often as allowed, no more");
    assert_eq!(house.outcome(&intent).await, Outcome::Unknown);
    house.clock.advance(Duration::from_secs(24 * 3600));
    house.processor.run_once().await.unwrap();
    assert_eq!(house.outcome(&intent).await, Outcome::Declined(DeclineReason::NeverReceived));
    assert_eq!((house.books().await, house.bank_saw().len()), ((0, 0), 3));
}

#[tokio::test]
async fn another_amount_is_no_success_and_a_reversal_frees_the_request() {
    let house = House::build().await;
    let wrong = house.charge("4000000000000127").await;
    house.clock.advance(Duration::from_secs(3600));
    house.later().await;
    assert_eq!(house.outcome(&wrong).await, Outcome::Unknown);
    assert_eq!(house.books().await, (0, 1999));
    let topics = house.topics().await;
    assert_eq!(topics, ["payment.submitted", "payment.conflict"], "told once, however often it is asked about");
    let back = house.charge("4000000000005126").await;
    house.later().await;
    assert_eq!(house.outcome(&back).await, Outcome::Reversed);
    assert_eq!(house.books().await, (0, 1999));
    assert_eq!(house.request_status(&back).await, (RequestStatus::Open, false));
}

#[tokio::test]
async fn a_card_that_is_revoked_before_sending_is_never_sent() {
    let house = House::build().await;
    let (request, card) = (house.request(1999).await, house.card("4111111111111111", None).await);
    let intent = house.processor.submit(house.order(&request, &card, 1999)).await.unwrap();
    house.store.set_card_status(&card, CardStatus::Revoked, &audit(&*house.entropy)).await.unwrap();
    house.processor.run_once().await.unwrap();
    assert_eq!(house.outcome(&intent).await, Outcome::Declined(DeclineReason::NotSent));
    assert!(house.bank_saw().is_empty());
    assert_eq!(house.books().await, (0, 0));
}

#[tokio::test]
async fn the_worker_announces_the_outcome_and_stops_when_told() {
    let house = House::build().await;
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn({
        let (processor, shutdown) = (house.processor.clone(), shutdown.clone());
        async move { processor.run(shutdown).await }
    });
    let (request, card) = (house.request(1999).await, house.card("4111111111111111", None).await);
    let intent = house.processor.submit(house.order(&request, &card, 1999)).await.unwrap();
    let outcome = house.processor.outcome(&intent, Duration::from_secs(20)).await.unwrap();
    assert!(matches!(outcome, Outcome::Paid(_)), "{outcome:?}");
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), worker).await.unwrap().unwrap();
    let unknown = house.processor.outcome(&IntentId::fresh(&*house.entropy), Duration::ZERO).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))));
}

#[tokio::test]
async fn two_workers_at_once_charge_once() {
    let house = House::build().await;
    let other = Processor::new(
        house.store.clone(),
        house.processor.inner.acquirers.clone(),
        house.vault.clone(),
        house.clock.clone(),
        house.entropy.clone(),
        house.processor.inner.cfg.clone(),
    );
    for _ in 0..10 {
        let (request, card) = (house.request(1999).await, house.card("4111111111111111", None).await);
        house.processor.submit(house.order(&request, &card, 1999)).await.unwrap();
        house.store.set_card_status(&card, CardStatus::Active, &audit(&*house.entropy)).await.unwrap();
        let (a, b) = tokio::join!(house.processor.run_once(), other.run_once());
        a.and(b).unwrap();
        house.store.set_card_status(&card, CardStatus::Revoked, &audit(&*house.entropy)).await.unwrap();
    }
    let charged = house.bank_saw().into_iter().filter(|d| d.charged()).count();
    assert_eq!((charged, house.books().await), (10, (19_990, 0)));
}

#[tokio::test]
async fn the_database_itself_refuses_to_change_books_receipts_and_ended_attempts() {
    let house = House::build().await;
    house.charge("4111111111111111").await;
    let url = format!("sqlite://{}", house.dir.path().join("v.db").display());
    let pool = sqlx::sqlite::SqlitePool::connect(&url).await.unwrap();
    for sql in [
        "UPDATE transfers SET amount_minor = 1",
        "DELETE FROM transfers",
        "UPDATE receipts SET reference = '0000000000'",
        "DELETE FROM receipts",
        "UPDATE attempts SET state = 'declined'",
        "DELETE FROM attempts",
        "INSERT INTO intents SELECT 'int_2', customer_id, request_id, payee_id, card_id, last4, 'call_2', amount_minor, currency, 'paid', evidence, 1, 'automatic', NULL FROM intents",
        "INSERT INTO attempts SELECT 2, 'att_2', intent_id, operation, NULL, gateway, amount_minor, currency, 'succeeded', detail, NULL, 0, NULL, NULL, NULL, 1 FROM attempts",
        "INSERT INTO attempts SELECT 2, 'att_2', intent_id, 'refund', id, gateway, amount_minor + 1, currency, 'prepared', detail, NULL, 0, 1, NULL, NULL, 1 FROM attempts",
        "INSERT INTO transfers SELECT NULL, 'tr_2', kind, of_id, debit, credit, amount_minor, currency, intent_id, at, cause FROM transfers WHERE kind = 'post'",
    ] {
        assert!(sqlx::query(sql).execute(&pool).await.is_err(), "{sql}");
    }
    assert_eq!(house.books().await, (1999, 0));
}

#[tokio::test]
async fn an_attempt_is_not_advanced_over_another_version_or_without_its_postings() {
    use crate::store::Settlement;
    let house = House::build().await;
    let (request, card) = (house.request(1999).await, house.card("4111111111111111", None).await);
    house.processor.submit(house.order(&request, &card, 1999)).await.unwrap();
    let job = house.processor.inner.claim(9).await.unwrap().remove(0);
    assert!(house.processor.inner.claim(9).await.unwrap().is_empty(), "leased");
    let mut ended = job.attempt.clone();
    ended.version = 1;
    ended.state = AttemptState::Succeeded { at: START, gateway_reference: "g".into() };
    let bare = house.store.advance(&ended, &Settlement::default()).await;
    assert!(matches!(bare, Err(StoreError::Refused(_))), "a success without posting and receipt: {bare:?}");
    let whole = Settlement {
        transfer: Some(job.pending.posted(crate::ids::TransferId::fresh(&*house.entropy), START)),
        receipt: Some(house.processor.inner.receipt(&job, START, "g")),
        ..Settlement::default()
    };
    ended.version = 2;
    let stale = house.store.advance(&ended, &whole).await;
    assert!(matches!(stale, Err(StoreError::Conflict(_))), "a version that was not read: {stale:?}");
    assert_eq!(house.books().await, (0, 1999), "neither left a trace");
    ended.version = 1;
    house.store.advance(&ended, &whole).await.unwrap();
    assert_eq!(house.books().await, (1999, 0));
}
