//! The Stripe wire against localstripe, a stand-in that others wrote, with our proxy breaking things in between: whatever
//! happens, localstripe has at most one charge an attempt, and in the end our books say what it says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use voicepay::clock::{Clock, Entropy, ManualClock, SeededEntropy, SystemClock};
use voicepay::gateway::stripe::{StripeConfig, StripeGateway, webhook};
use voicepay::gateway::{DisputeNews, DisputeStage, News};
use voicepay::ids::{AuditId, CallId, CardId, CustomerId, IntentId, PayeeId, RequestId};
use voicepay::ledger::{self, AccountName};
use voicepay::money::{Currency, Money};
use voicepay::payment::{
    Attempt, AttemptState, BankWord, Capture, DeclineReason, Evidence, Operation, PaymentRequest, RequestStatus,
};
use voicepay::processor::{ChargeOrder, OperationOrder, Processor, ProcessorConfig};
use voicepay::secret::Pan;
use voicepay::store::{
    self, AuditRecord, CardRecord, CardStatus, Customer, CustomerStatus, Payee, SqliteStore, Store, StoreConfig,
};
use voicepay::vault::{Vault, VaultConfig};

use crate::fault_proxy::{FAULTS, Fault, FaultProxy, WebhookRelay, received, refunds};
use crate::localstripe::Localstripe;

/// Longer than this nobody waits for an answer here.
const PATIENCE_MS: u64 = 350;
/// localstripe does one thing at a time, and not fast: more at once would only wait.
const BATCH: u32 = 8;
/// An answer that is late comes after so long.
const LATE: Duration = Duration::from_millis(500);
/// The clock goes on by this much between two looks at what is unfinished: more than any wait of the processor.
const ROUND: Duration = Duration::from_secs(3600);
/// More than a day of rounds.
const ROUNDS: u32 = 30;

const GOOD: &str = "4242424242424242";
/// localstripe declines it.
const DECLINED: &str = "4000000000000341";
/// localstripe wants the cardholder at a screen.
const WANTS_SCREEN: &str = "4000002500003155";

struct House {
    proxy: FaultProxy,
    clock: Arc<ManualClock>,
    entropy: Arc<dyn Entropy>,
    store: Arc<dyn Store>,
    vault: Vault,
    processor: Processor,
    customer: CustomerId,
    payee: PayeeId,
    cards: HashMap<&'static str, CardId>,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
    _stripe: Localstripe,
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl House {
    /// `None` where localstripe can't be installed.
    async fn build(seed: u64) -> Option<Self> {
        let stripe = tokio::task::spawn_blocking(Localstripe::start).await.unwrap()?;
        let dir = tempfile::tempdir().unwrap();
        let proxy = FaultProxy::start(&stripe.address, seed, LATE).await;
        let clock = Arc::new(ManualClock::starting_at(SystemClock.now()));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(seed));
        let cfg = StoreConfig { path: dir.path().join("v.db"), ..StoreConfig::default() };
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&cfg).await.unwrap());
        let cfg = VaultConfig { master_key_file: dir.path().join("master.key"), ..VaultConfig::default() };
        let vault = store::unlock(&*store, &cfg, entropy.clone()).await.unwrap();
        let cfg = StripeConfig { url: proxy.url.clone(), timeout_ms: PATIENCE_MS, max_at_once: 64, ..StripeConfig::default() };
        let gateway = StripeGateway::open(&cfg, |_| Some("sk_test_12345".into()), clock.clone()).unwrap();
        let cfg = ProcessorConfig { gateway_timeout_ms: 5 * PATIENCE_MS, batch: BATCH, ..ProcessorConfig::default() };
        let processor = Processor::new(store.clone(), Arc::new(gateway), vault.clone(), clock.clone(), entropy.clone(), cfg);
        let customer = CustomerId::fresh(&*entropy);
        let payee = PayeeId::fresh(&*entropy);
        let mut house = Self {
            proxy,
            clock,
            entropy,
            store,
            vault,
            processor,
            customer,
            payee,
            cards: HashMap::new(),
            stop: CancellationToken::new(),
            _dir: dir,
            _stripe: stripe,
        };
        house.furnish().await;
        Some(house)
    }

    async fn furnish(&mut self) {
        let created_at = self.clock.now();
        let customer = Customer {
            tenant: voicepay::ids::Tenant::default(),
            id: self.customer.clone(),
            name: "Ann".into(),
            customer_number: "123456".into(),
            numbers: vec![],
            status: CustomerStatus::Active,
            language: voicepay::language::Language::English,
            created_at,
        };
        self.store.add_customer(&customer, &self.audit()).await.unwrap();
        let payee = Payee {
            tenant: voicepay::ids::Tenant::default(),
            category: None,
            id: self.payee.clone(),
            name: "Water Works".into(),
            spoken_name_wav: None,
            created_at,
        };
        self.store.add_payee(&payee, &self.audit()).await.unwrap();
        for number in [GOOD, DECLINED, WANTS_SCREEN] {
            let (id, pan) = (CardId::fresh(&*self.entropy), Pan::parse(number).unwrap());
            let card = CardRecord {
                id: id.clone(),
                customer: self.customer.clone(),
                last4: pan.last4(),
                length: 16,
                expiry: Some("12/39".parse().unwrap()),
                status: CardStatus::Active,
                sealed: self.vault.seal_card(&id, &self.customer, &pan).unwrap(),
                digest: self.vault.digest_card(&pan),
                created_at,
            };
            self.store.add_card(&card, &self.audit()).await.unwrap();
            self.cards.insert(number, id);
        }
    }

    /// localstripe's webhooks reach us, each twice and out of order.
    async fn hear_webhooks(&self, seed: u64) {
        const SECRET: &str = "whsec_test_0123456789";
        let cfg = StripeConfig { webhook_listen: "127.0.0.1:0".parse().unwrap(), ..StripeConfig::default() };
        let clock = Arc::new(SystemClock); // localstripe signs with the time of this machine
        let listening = webhook::listen(&cfg, |_| Some(SECRET.into()), clock, self.stop.clone()).await.unwrap().unwrap();
        let relay = WebhookRelay::start(listening.address, webhook::PATH, seed).await;
        let (processor, stop) = (self.processor.clone(), self.stop.clone());
        tokio::spawn(async move { processor.listen(listening.news, stop).await });
        let told = self.proxy.tell("/_config/webhooks/ours", &format!("url={}&secret={SECRET}", relay.url)).await;
        assert_eq!(told, 200);
    }

    fn audit(&self) -> AuditRecord {
        AuditRecord {
            id: AuditId::fresh(&*self.entropy),
            at: self.clock.now(),
            actor: "test".into(),
            action: "set up".into(),
            subject: "house".into(),
            detail: serde_json::json!({}),
        }
    }

    async fn submit(&self, number: &'static str, amount: Money, capture: Capture) -> IntentId {
        let request = PaymentRequest {
            id: RequestId::fresh(&*self.entropy),
            customer: self.customer.clone(),
            payee: self.payee.clone(),
            amount,
            due: None,
            delivery: voicepay::payment::Delivery::None,
            expires_at: None,
            status: RequestStatus::Open,
            held_by: None,
            created_at: self.clock.now(),
        };
        self.store.add_request(&request, &self.audit()).await.unwrap();
        let order = ChargeOrder {
            customer: self.customer.clone(),
            request: request.id,
            amount,
            card: self.cards[number].clone(),
            occasion: CallId::fresh(&*self.entropy).into(),
            capture,
            evidence: Evidence::default(),
            guards: voicepay::processor::OrderGuards::default(),
        };
        self.processor.submit(order).await.unwrap()
    }

    async fn operate(&self, intent: &IntentId, operation: Operation, amount: Option<Money>) {
        let order = OperationOrder {
            key: format!("{}:{intent}", operation.as_str()),
            intent: intent.clone(),
            operation,
            amount,
            by: "test".into(),
            why: "test".into(),
        };
        self.processor.operate(order).await.unwrap();
    }

    /// Runs the worker until nothing is left but what waits for a person.
    async fn finish(&self) {
        for _ in 0..ROUNDS {
            self.processor.run_once().await.unwrap();
            let left = self.store.unfinished(1_000).await.unwrap();
            if left.iter().all(|a| matches!(a.state, AttemptState::Conflicted { .. })) {
                return;
            }
            self.proxy.idle().await;
            self.clock.advance(ROUND);
        }
        panic!("still unfinished: {:?}", self.store.unfinished(10).await.unwrap());
    }

    async fn attempts(&self, intent: &IntentId) -> Vec<Attempt> {
        self.store.payment(intent).await.unwrap().unwrap().attempts
    }

    /// Localstripe's payment intents by our reference.
    async fn charges(&self) -> HashMap<String, Vec<Value>> {
        let all = self.proxy.ask("/v1/payment_intents?limit=1000000").await;
        let mut by_reference: HashMap<String, Vec<Value>> = HashMap::new();
        for intent in all["data"].as_array().unwrap() {
            let reference = intent["metadata"]["our_reference"].as_str().unwrap().to_owned();
            by_reference.entry(reference).or_default().push(intent.clone());
        }
        by_reference
    }

    /// Holds every attempt against localstripe. Gives how many ended how.
    async fn agree(&self, intents: &[IntentId]) -> HashMap<(&'static str, &'static str), u32> {
        let (charges, wrong) = (self.charges().await, self.proxy.wrong());
        let (mut ended, mut net) = (HashMap::new(), HashMap::<String, i64>::new());
        for intent in intents {
            let attempts = self.attempts(intent).await;
            let opening = attempts.iter().find(|a| a.operation.opens()).unwrap();
            let theirs = charges.get(opening.id.as_str()).cloned().unwrap_or_default();
            assert!(theirs.len() <= 1, "charged twice: {theirs:?}");
            for attempt in &attempts {
                *ended.entry((attempt.operation.as_str(), attempt.state.name())).or_default() += 1;
                agrees(attempt, theirs.first(), &wrong);
            }
            let done = attempts.iter().filter(|a| a.operation == Operation::Refund && a.state.done()).count();
            let Some(theirs) = theirs.first() else { continue };
            assert_eq!(refunds(theirs).iter().filter(|r| !r["metadata"]["our_reference"].is_null()).count(), done, "refunds");
            if !matches!(opening.state, AttemptState::Conflicted { .. }) {
                let given_back: i64 = attempts
                    .iter()
                    .filter(|a| a.operation == Operation::Refund && a.state.done())
                    .map(|a| a.amount.minor.get())
                    .sum();
                *net.entry(theirs["currency"].as_str().unwrap().to_owned()).or_default() += received(theirs) - given_back;
            }
        }
        let books = ledger::verify(&self.store.transfers().await.unwrap()).unwrap();
        for currency in [Currency::Usd, Currency::Jpy] {
            let ours = books.balances().get(&AccountName::acquirer("stripe", currency)).copied().unwrap_or_default();
            let theirs = net.get(&currency.code().to_ascii_lowercase()).copied().unwrap_or(0);
            assert_eq!(ours.debits_posted - ours.credits_posted, theirs, "the books and localstripe, in {currency}");
        }
        ended
    }
}

/// Whether localstripe has what we say became of an attempt. `theirs`: the payment intent of the charge that it belongs to.
fn agrees(attempt: &Attempt, theirs: Option<&Value>, wrong: &[String]) {
    let amount = attempt.amount.minor.get();
    let status = theirs.map_or("none", |t| t["status"].as_str().unwrap());
    let refund =
        theirs.map(refunds).unwrap_or_default().into_iter().find(|r| r["metadata"]["our_reference"] == attempt.id.as_str());
    let captured_by = theirs.map_or(&Value::Null, |t| &t["metadata"]["capture_reference"]);
    let fits = match (attempt.operation, &attempt.state) {
        (_, AttemptState::Conflicted { .. }) => theirs.is_some_and(|t| wrong.iter().any(|id| t["id"] == id.as_str())),
        (Operation::Charge, AttemptState::Succeeded { .. }) => status == "succeeded" && received(theirs.unwrap()) == amount,
        (Operation::Authorise, AttemptState::Succeeded { .. }) => theirs.is_some_and(|t| t["latest_charge"]["amount"] == amount),
        (Operation::Capture, AttemptState::Succeeded { .. }) => {
            captured_by == attempt.id.as_str() && received(theirs.unwrap()) == amount
        }
        (Operation::Capture, AttemptState::Declined { .. }) => captured_by != attempt.id.as_str(),
        (Operation::Void, AttemptState::Succeeded { .. }) => status == "canceled",
        (Operation::Void, AttemptState::Declined { .. }) => status != "canceled",
        (Operation::Refund, AttemptState::Succeeded { .. }) => refund.is_some_and(|r| r["amount"] == amount),
        (Operation::Refund, AttemptState::Declined { .. }) => refund.is_none(),
        (Operation::Charge | Operation::Authorise, AttemptState::Declined { .. }) => {
            matches!(status, "none" | "canceled" | "requires_payment_method")
        }
        (_, AttemptState::Reversed { .. }) => status == "canceled",
        (_, AttemptState::Prepared | AttemptState::Dispatched { .. } | AttemptState::NeedsReconciliation { .. }) => false,
    };
    assert!(fits, "we: {} {:?}; localstripe: {status} {theirs:?}", attempt.operation.as_str(), attempt.state);
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::Usd).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_nobody_is_charged_twice_and_the_books_say_what_stripe_says() {
    const PAYMENTS: usize = 210;
    // Another one for a longer search: `VOICEPAY_SEED=7 cargo test --test it_money whatever_breaks`.
    let seed = std::env::var("VOICEPAY_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_122);
    let Some(house) = House::build(seed).await else { return };
    house.hear_webhooks(seed).await;
    house.proxy.trouble(25, 4);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut intents = Vec::new();
    for _ in 0..PAYMENTS {
        let card = match rng.random_range(0..10) {
            0 => DECLINED,
            1 => WANTS_SCREEN,
            _ => GOOD,
        };
        let currency = if rng.random_range(0..5) == 0 { Currency::Jpy } else { Currency::Usd };
        let amount = Money::new(rng.random_range(100..1_000_000), currency).unwrap();
        let capture = if rng.random_range(0..3) == 0 { Capture::Manual } else { Capture::Automatic };
        intents.push(house.submit(card, amount, capture).await);
    }
    house.finish().await;
    // Half of what was authorised is captured, whole or in part, the other half voided; of what was charged, much is given back.
    let part = |rng: &mut StdRng, of: Money| {
        (rng.random_range(0..2) == 0).then(|| Money::new(rng.random_range(1..=of.minor.get()), of.currency).unwrap())
    };
    for intent in &intents {
        let attempts = house.attempts(intent).await;
        let opening = &attempts[0];
        match (opening.operation, opening.state.done()) {
            (Operation::Authorise, true) if rng.random_range(0..2) == 0 => house.operate(intent, Operation::Void, None).await,
            (Operation::Authorise, true) => {
                let amount = part(&mut rng, opening.amount);
                house.operate(intent, Operation::Capture, amount).await;
            }
            _ => {}
        }
    }
    house.finish().await;
    for intent in &intents {
        let attempts = house.attempts(intent).await;
        let taken = attempts.iter().find(|a| matches!(a.operation, Operation::Charge | Operation::Capture) && a.state.done());
        if let Some(taken) = taken
            && rng.random_range(0..2) == 0
        {
            let amount = part(&mut rng, taken.amount);
            house.operate(intent, Operation::Refund, amount).await;
        }
    }
    house.finish().await;
    tokio::time::sleep(Duration::from_millis(1_500)).await; // the last webhooks
    house.processor.run_once().await.unwrap();
    let ended = house.agree(&intents).await;
    let (faults, replayed, requests) = house.proxy.report();
    println!("{PAYMENTS} payments: {ended:?}; {requests} requests, {replayed} answered from their key, faults {faults:?}");
    for kind in [
        ("charge", "succeeded"),
        ("charge", "declined"),
        ("capture", "succeeded"),
        ("void", "succeeded"),
        ("refund", "succeeded"),
    ] {
        assert!(ended.get(&kind).is_some_and(|n| *n >= 5), "too few of {kind:?} to prove anything");
    }
    assert!(ended.iter().any(|((_, state), n)| *state == "conflicted" && *n >= 1), "wrong amounts wait for a person");
    assert_eq!(faults.len(), 9, "every fault was met");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_at_each_request_of_a_charge_ends_in_one_charge_or_in_none() {
    let Some(house) = House::build(1).await else { return };
    let mut intents = Vec::new();
    for fault in FAULTS {
        for at in 0..2 {
            let mut script = vec![None; at];
            script.push(Some(fault));
            house.proxy.next(&script);
            let intent = house.submit(GOOD, usd(1_999), Capture::Automatic).await;
            house.finish().await;
            let attempt = house.attempts(&intent).await.remove(0);
            // A 500 that Stripe keeps for a day before anything was done: it never will be, and we say so only when it can't be
            // any more.
            let never = matches!((fault, at), (Fault::KeptErrorBefore, _) | (Fault::KeptErrorAfter, 0));
            match &attempt.state {
                AttemptState::Succeeded { .. } => assert!(!never, "{fault:?} at request {at}"),
                AttemptState::Declined { reason: DeclineReason::NeverReceived, .. } => {
                    assert!(never, "{fault:?} at request {at}")
                }
                other => panic!("{fault:?} at request {at}: {other:?}"),
            }
            intents.push(intent);
        }
    }
    let ended = house.agree(&intents).await;
    assert_eq!((ended[&("charge", "succeeded")], ended[&("charge", "declined")]), (15, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_whose_key_stripe_has_forgotten_is_searched_for_and_not_sent_again() {
    let Some(house) = House::build(2).await else { return };
    house.proxy.next(&[None, Some(Fault::DropAfter), Some(Fault::DropBefore)]);
    let intent = house.submit(GOOD, usd(1_999), Capture::Automatic).await;
    house.processor.run_once().await.unwrap();
    assert_eq!(house.store.unfinished(9).await.unwrap().len(), 1, "in doubt");
    house.clock.advance(Duration::from_secs(25 * 3600));
    house.proxy.forget_keys();
    house.finish().await;
    let ended = house.agree(&[intent]).await;
    assert_eq!(ended[&("charge", "succeeded")], 1);
    let posts = house.proxy.requests().iter().filter(|r| *r == "POST /v1/payment_intents").count();
    assert_eq!(posts, 1, "{:?}", house.proxy.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_settles_what_was_in_doubt_before_the_sweep_would_have() {
    let Some(house) = House::build(3).await else { return };
    house.hear_webhooks(3).await;
    house.proxy.next(&[None, Some(Fault::DropAfter)]);
    let intent = house.submit(GOOD, usd(1_999), Capture::Automatic).await;
    let (processor, stop) = (house.processor.clone(), house.stop.clone());
    let worker = tokio::spawn(async move { processor.run(stop).await });
    // The clock stands still: no question ever becomes due by itself.
    let outcome = house.processor.outcome(&intent, Duration::from_secs(20)).await.unwrap();
    assert!(matches!(outcome, voicepay::processor::Outcome::Paid(_)), "{outcome:?}");
    tokio::time::sleep(Duration::from_millis(700)).await; // its twin
    house.stop.cancel();
    worker.await.unwrap();
    let ended = house.agree(&[intent]).await;
    assert_eq!(ended[&("charge", "succeeded")], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_acquirer_tells_is_recorded_once_in_any_order_and_moves_no_money_by_itself() {
    let Some(house) = House::build(4).await else { return };
    let intent = house.submit(GOOD, usd(1_999), Capture::Automatic).await;
    let (paid, declined) = (intent.clone(), house.submit(DECLINED, usd(500), Capture::Automatic).await);
    // Told before it was sent: nothing is asked, because asking could be what sends it.
    let reference = house.attempts(&intent).await[0].id.to_string();
    let word = BankWord::Approved { charged: usd(1_999), gateway_reference: "pi_0".into() };
    house.processor.news(News::Operation { our_reference: reference.clone(), word }).await.unwrap();
    assert_eq!(house.proxy.requests().len(), 0);
    house.finish().await;
    let asked = house.proxy.requests().len();

    let attempt = house.attempts(&paid).await.remove(0);
    let at_stripe = attempt.state.gateway_reference().unwrap().to_owned();
    let dispute = |stage| {
        let (dispute, reason) = ("dp_1".to_owned(), "fraudulent".to_owned());
        News::Dispute(DisputeNews { dispute, gateway_reference: at_stripe.clone(), amount: usd(1_999), reason, stage })
    };
    // Its end first, then its beginning, then all of it again; and a decision that contradicts it.
    for stage in [DisputeStage::Lost, DisputeStage::Open, DisputeStage::Lost, DisputeStage::Won] {
        house.processor.news(dispute(stage)).await.unwrap();
    }
    let disputes = house.store.payment(&paid).await.unwrap().unwrap().disputes;
    assert_eq!((disputes.len(), disputes[0].state.name()), (1, "lost"));

    let refused = house.attempts(&declined).await.remove(0);
    let late = BankWord::Approved { charged: usd(500), gateway_reference: "pi_9".into() };
    for (our_reference, word) in [
        (refused.id.to_string(), late),              // contradicts: a person must know
        (refused.id.to_string(), BankWord::Silence), // does not
        (reference.clone(), BankWord::Silence),
        (reference, BankWord::Declined(DeclineReason::Other)),
        ("att_0123456789".into(), BankWord::Silence), // nobody's
        ("order-77".into(), BankWord::Silence),       // somebody else's
    ] {
        house.processor.news(News::Operation { our_reference, word }).await.unwrap();
    }
    let elsewhere = News::RefundedElsewhere { gateway_reference: at_stripe, refund: "re_1".into(), amount: usd(5) };
    house.processor.news(elsewhere).await.unwrap();
    assert_eq!(house.proxy.requests().len(), asked, "what has ended is not asked about");
    let actions: Vec<_> = house.store.audit_trail(100).await.unwrap().into_iter().map(|a| a.action).collect();
    let count = |action: &str| actions.iter().filter(|a| *a == action).count();
    assert_eq!((count("charge.conflict"), count("dispute.conflict"), count("refund.elsewhere")), (3, 1, 1), "{actions:?}");
    assert_eq!((count("dispute.opened"), count("dispute.lost"), count("dispute.won")), (1, 1, 0));
    let transfers = house.store.transfers().await.unwrap();
    ledger::verify(&transfers).unwrap();
    assert_eq!(transfers.len(), 6, "two payments of two rows each, and the dispute's two");
}
