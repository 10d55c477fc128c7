//! The wire to a bank that announces deductions, over a journal in memory.

use std::sync::Mutex;

use super::*;
use crate::clock::Timestamp;
use crate::gateway::{CardData, Original};
use crate::money::{Currency, Money};
use crate::payment::GatewayKey;
use crate::payment::pairing::{Answer, Message, Waits};

const WAITS: Waits =
    Waits { for_payment: std::time::Duration::from_secs(86_400), for_bank: std::time::Duration::from_secs(3_600) };
const KEY: [u8; 32] = [9; 32];

/// The rules of pairing over a state in memory.
#[derive(Debug)]
struct Desk(Mutex<Result<Pairing, String>>);

impl Desk {
    fn put(&self, at: i64, input: Input) -> Result<Pairing, NotTaken> {
        let mut state = self.0.lock().unwrap();
        let pairing = state.clone().map_err(NotTaken::Failed)?;
        let after = pairing.decide(WAITS, Timestamp(at), input)?.after;
        *state = Ok(after.clone());
        Ok(after)
    }
}

#[async_trait]
impl PendingDeductions for Desk {
    async fn take(&self, reference: &RequestId, input: Input) -> Result<Pairing, NotTaken> {
        assert_eq!(reference.as_str(), "req_1");
        self.put(1, input)
    }

    async fn read(&self, reference: &RequestId) -> Result<Pairing, NotTaken> {
        assert_eq!(reference.as_str(), "req_1");
        self.0.lock().unwrap().clone().map_err(NotTaken::Failed)
    }
}

fn open() -> (Arc<Desk>, BankFeedbackGateway) {
    let desk = Arc::new(Desk(Mutex::new(Ok(Pairing::new("req_1".parse().unwrap())))));
    (desk.clone(), BankFeedbackGateway { deductions: desk, account_key: SecretBytes::new(KEY.to_vec()) })
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::Usd).unwrap()
}

fn pan() -> Pan {
    Pan::parse("4111111111111111").unwrap()
}

fn request(operation: Operation, n: u32, minor: i64) -> GatewayRequest {
    let original = Original {
        operation: Operation::Charge,
        our_reference: "att_1".into(),
        number: 1,
        prepared_at: Timestamp(0),
        amount: usd(1999),
        gateway_reference: "ins_1".into(),
    };
    GatewayRequest {
        operation,
        our_reference: format!("att_{n}"),
        request: "req_1".into(),
        number: u64::from(n),
        prepared_at: Timestamp(0),
        idempotency_key: GatewayKey(format!("voicepay-att_{n}")),
        amount: usd(minor),
        card: operation.opens().then(|| CardData { pan: pan(), expiry: None }),
        original: (!operation.opens()).then_some(original),
        statement: "Water Works".into(),
    }
}

fn announced() -> Input {
    let facts = Facts { amount: usd(1999), account: account(&SecretBytes::new(KEY.to_vec()), &pan()).unwrap() };
    Input::Message(Message { id: "m1".parse().unwrap(), facts, at: Timestamp(0) })
}

fn answered(n: u32, answer: Answer) -> Input {
    Input::Answer { attempt: AttemptId::parse(&format!("att_{n}")).unwrap(), answer }
}

fn done(n: u32, minor: i64) -> Input {
    answered(n, Answer::Done { amount: usd(minor) })
}

fn yes(n: u32, minor: i64) -> BankWord {
    BankWord::Approved { charged: usd(minor), gateway_reference: format!("ins_{n}") }
}

#[tokio::test]
async fn a_charge_is_under_way_until_the_bank_has_announced_and_answered() {
    let (desk, gateway) = open();
    let charge = request(Operation::Charge, 1, 1999);
    assert_eq!(gateway.resolve(&charge).await, BankWord::NotFound);
    assert_eq!(gateway.send(&charge).await, BankWord::StillWorking);
    assert_eq!(gateway.send(&charge).await, BankWord::StillWorking, "sent again");
    desk.put(2, announced()).unwrap();
    assert_eq!(gateway.resolve(&charge).await, BankWord::StillWorking);
    desk.put(3, done(1, 1999)).unwrap();
    assert_eq!(gateway.resolve(&charge).await, yes(1, 1999));
    assert_eq!(gateway.send(&charge).await, yes(1, 1999));
    let refund = request(Operation::Refund, 2, 500);
    assert_eq!(gateway.send(&refund).await, BankWord::StillWorking);
    desk.put(4, done(2, 500)).unwrap();
    assert_eq!(gateway.resolve(&refund).await, yes(2, 500));
    let more = request(Operation::Refund, 3, 1999);
    assert_eq!(gateway.send(&more).await, BankWord::Declined(DeclineReason::InvalidAmount));
}

#[tokio::test]
async fn what_the_bank_did_instead_is_seen() {
    let (desk, gateway) = open();
    let charge = request(Operation::Charge, 1, 1999);
    gateway.send(&charge).await;
    desk.put(2, announced()).unwrap();
    desk.put(3, done(1, 1998)).unwrap();
    assert_eq!(gateway.resolve(&charge).await, yes(1, 1998), "which is no success: the amounts differ");
}

#[tokio::test]
async fn a_payment_that_the_bank_refuses_or_never_announces_is_declined() {
    for (reason, word) in [
        ("insufficient_funds", DeclineReason::InsufficientFunds),
        ("suspected_fraud", DeclineReason::SuspectedFraud),
        ("never_received", DeclineReason::Other),
        ("unannounced", DeclineReason::Other),
        ("Konto gesperrt", DeclineReason::Other),
        ("", DeclineReason::Other),
    ] {
        let (desk, gateway) = open();
        let charge = request(Operation::Charge, 1, 1999);
        gateway.send(&charge).await;
        desk.put(2, announced()).unwrap();
        desk.put(3, answered(1, Answer::Refused { reason: reason.into() })).unwrap();
        assert_eq!(gateway.resolve(&charge).await, BankWord::Declined(word), "{reason}");
    }
    let (desk, gateway) = open();
    let charge = request(Operation::Charge, 1, 1999);
    gateway.send(&charge).await;
    desk.put(4_000_000, Input::TimePassed).unwrap();
    assert_eq!(gateway.resolve(&charge).await, BankWord::Declined(DeclineReason::Unannounced));
}

#[tokio::test]
async fn what_this_bank_can_not_do_is_declined_and_leaves_no_trace() {
    let (desk, gateway) = open();
    for operation in [Operation::Authorise, Operation::Capture, Operation::Void] {
        assert_eq!(gateway.send(&request(operation, 1, 1999)).await, BankWord::Declined(DeclineReason::NotPermitted));
    }
    let without_card = GatewayRequest { card: None, ..request(Operation::Charge, 1, 1999) };
    assert_eq!(gateway.send(&without_card).await, BankWord::Declined(DeclineReason::NotSent));
    let alone = GatewayRequest { original: None, ..request(Operation::Refund, 2, 5) };
    assert_eq!(gateway.send(&alone).await, BankWord::Declined(DeclineReason::Other));
    let damaged = GatewayRequest { request: "elsewhere".into(), ..request(Operation::Charge, 1, 1999) };
    assert_eq!((gateway.send(&damaged).await, gateway.resolve(&damaged).await), (BankWord::Silence, BankWord::Silence));
    assert_eq!(desk.0.lock().unwrap().as_ref().unwrap().length(), 0);
}

#[tokio::test]
async fn a_journal_that_fails_says_nothing() {
    let (desk, gateway) = open();
    *desk.0.lock().unwrap() = Err("the disk is full".into());
    let charge = request(Operation::Charge, 1, 1999);
    assert_eq!((gateway.send(&charge).await, gateway.resolve(&charge).await), (BankWord::Silence, BankWord::Silence));
}

#[test]
fn the_bank_computes_the_same_name_of_an_account() {
    // printf 4111111111111111 | openssl dgst -sha256 -mac HMAC -macopt hexkey:$(printf '09%.0s' $(seq 32)) -r | cut -c-32
    let named = account(&SecretBytes::new(KEY.to_vec()), &pan()).unwrap();
    assert_eq!(named.as_str(), "e12502be0e175aebe3bb077d79c086b9");
}
