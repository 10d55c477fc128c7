//! The sandbox behaves like a bank: keys, bounds, test cards, its journal.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::clock::Timestamp;
use crate::gateway::{CardData, Original};
use crate::money::Currency;
use crate::money::Money;
use crate::payment::GatewayKey;
use crate::payment::{BankWord, DeclineReason, Operation};
use crate::secret::Pan;
use crate::secret::SecretBytes;

fn open(path: &Path) -> SandboxGateway {
    let clock = Arc::new(ManualClock::starting_at(Timestamp(1_800_000_000_000)));
    SandboxGateway::open(path, Duration::ZERO, SecretBytes::new(vec![7; 32]), clock).unwrap()
}

fn request(key: &str, pan: &str, minor: i64) -> GatewayRequest {
    GatewayRequest {
        operation: Operation::Charge,
        our_reference: format!("ref-{key}"),
        request: "req_1".into(),
        number: 1,
        prepared_at: Timestamp(1_800_000_000_000),
        idempotency_key: GatewayKey(key.into()),
        amount: Money::new(minor, Currency::Usd).unwrap(),
        card: Some(CardData { pan: Pan::parse(pan).unwrap(), expiry: None }),
        original: None,
        statement: "Shop".into(),
    }
}

#[tokio::test]
async fn a_key_charges_once_even_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bank/journal.jsonl");
    let first = open(&path).send(&request("k", "4111111111111111", 500)).await;
    assert!(matches!(first, BankWord::Approved { .. }));
    let bank = open(&path);
    assert_eq!(bank.send(&request("k", "4111111111111111", 500)).await, first);
    assert_eq!(bank.send(&request("k", "4111111111111111", 501)).await, BankWord::Silence, "same key, other amount");
    assert_eq!(bank.resolve(&request("k", "4111111111111111", 500)).await, first);
    assert_eq!(bank.resolve(&request("other", "4111111111111111", 500)).await, BankWord::NotFound);
    let seen: Vec<_> = SandboxGateway::read_journal(&path).unwrap().into_iter().map(|l| l.did).collect();
    assert_eq!(seen, [Did::Charged, Did::Repeated, Did::KeyMisused]);
}

#[tokio::test(start_paused = true)]
async fn each_test_card_does_what_the_table_says() {
    let dir = tempfile::tempdir().unwrap();
    let bank = open(&dir.path().join("j"));
    let say = async |key: &str, pan: &str| bank.send(&request(key, pan, 500)).await;
    assert_eq!(say("a", "4000000000009995").await, BankWord::Declined(DeclineReason::InsufficientFunds));
    assert_eq!(say("b", "4000000000000069").await, BankWord::Declined(DeclineReason::ExpiredCard));
    assert_eq!(say("c", "4000000000000002").await, BankWord::Declined(DeclineReason::DoNotHonour));
    assert_eq!(say("d", "4000000000000119").await, BankWord::Silence);
    assert!(matches!(bank.resolve(&request("d", "4111111111111111", 500)).await, BankWord::Approved { .. }));
    assert_eq!(say("e", "4000000000000259").await, BankWord::Silence);
    assert_eq!(bank.resolve(&request("e", "4111111111111111", 500)).await, BankWord::NotFound);
    assert_eq!(say("f", "4000000000000341").await, BankWord::Silence);
    assert_eq!(bank.resolve(&request("f", "4111111111111111", 500)).await, BankWord::NotFound);
    assert!(matches!(say("f", "4000000000000341").await, BankWord::Approved { .. }));
    let too_much = Money::new(501, Currency::Usd).unwrap();
    assert!(matches!(say("g", "4000000000000127").await, BankWord::Approved { charged, .. } if charged == too_much));
    assert_eq!(say("h", "4000000000005126").await, BankWord::Silence);
    assert_eq!(bank.resolve(&request("h", "4111111111111111", 500)).await, BankWord::Reversed);
}

#[tokio::test]
async fn a_torn_line_is_dropped_and_a_damaged_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    open(&path).send(&request("k", "4111111111111111", 500)).await;
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{good}{{\"at\":1,")).unwrap();
    open(&path).send(&request("l", "4111111111111111", 500)).await;
    assert_eq!(SandboxGateway::read_journal(&path).unwrap().len(), 2);
    std::fs::write(&path, format!("nonsense\n{good}")).unwrap();
    let clock = Arc::new(ManualClock::default());
    let error = SandboxGateway::open(&path, Duration::ZERO, SecretBytes::new(vec![7; 32]), clock).unwrap_err();
    assert!(error.to_string().contains("line 1"), "{error}");
}

#[tokio::test]
async fn the_journal_holds_no_card_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    open(&path).send(&request("k", "4111111111111111", 500)).await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("411111") && text.contains("\"last4\":\"1111\""));
    assert!(!format!("{:?}", request("k", "4111111111111111", 500)).contains("4111"));
}

/// An operation on what `of` did.
fn later(operation: Operation, key: &str, minor: i64, of: &GatewayRequest) -> GatewayRequest {
    let original = Original {
        operation: of.operation,
        our_reference: of.our_reference.clone(),
        number: 1,
        prepared_at: of.prepared_at,
        amount: of.amount,
        gateway_reference: "unused".into(),
    };
    GatewayRequest { operation, original: Some(original), card: None, ..request(key, "4111111111111111", minor) }
}

fn authorise(key: &str, pan: &str) -> GatewayRequest {
    GatewayRequest { operation: Operation::Authorise, ..request(key, pan, 500) }
}

fn yes(word: BankWord, minor: i64) -> bool {
    matches!(word, BankWord::Approved { charged, .. } if charged.minor.get() == minor)
}

#[tokio::test]
async fn what_follows_a_payment_is_bounded_at_the_bank_too_and_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let bank = open(&path);
    let charge = request("c", "4111111111111111", 500);
    assert!(yes(bank.send(&charge).await, 500));
    assert!(yes(bank.send(&later(Operation::Refund, "r1", 300, &charge)).await, 300));
    let auth = authorise("a", "4111111111111111");
    assert!(yes(bank.send(&auth).await, 500));
    let invalid = BankWord::Declined(DeclineReason::InvalidAmount);
    for (bank, key) in [(bank, "r2"), (open(&path), "r4")] {
        let over = later(Operation::Refund, key, 201, &charge);
        assert_eq!(bank.send(&over).await, invalid);
        assert!(yes(bank.send(&later(Operation::Refund, "r1", 300, &charge)).await, 300), "the same again");
        assert!(yes(bank.resolve(&later(Operation::Refund, "r1", 300, &charge)).await, 300));
    }
    let bank = open(&path);
    let capture = later(Operation::Capture, "k", 200, &auth);
    assert_eq!(bank.send(&later(Operation::Capture, "k0", 501, &auth)).await, invalid);
    assert!(yes(bank.send(&capture).await, 200));
    assert_eq!(bank.send(&later(Operation::Void, "v", 500, &auth)).await, invalid, "captured already");
    assert!(yes(bank.send(&later(Operation::Refund, "r3", 200, &capture)).await, 200));
    let second = authorise("a2", "4111111111111111");
    bank.send(&second).await;
    assert!(yes(bank.send(&later(Operation::Void, "v2", 500, &second)).await, 500));
    assert_eq!(bank.send(&later(Operation::Capture, "k2", 1, &second)).await, invalid, "voided");
}

#[tokio::test(start_paused = true)]
async fn test_cards_make_what_follows_fail_in_each_way() {
    let dir = tempfile::tempdir().unwrap();
    let bank = open(&dir.path().join("j"));
    let no = BankWord::Declined(DeclineReason::DoNotHonour);
    let auth = authorise("a", "4000000000003220");
    bank.send(&auth).await;
    assert_eq!(bank.send(&later(Operation::Capture, "k", 500, &auth)).await, no);
    assert!(yes(bank.send(&later(Operation::Void, "v", 500, &auth)).await, 500), "and the authorisation still stands");
    let charge = request("c", "4000000000007726", 500);
    bank.send(&charge).await;
    assert_eq!(bank.send(&later(Operation::Refund, "r", 500, &charge)).await, no);
    let charge = request("d", "4000000000000093", 500);
    bank.send(&charge).await;
    let refund = later(Operation::Refund, "s", 500, &charge);
    assert_eq!(bank.send(&refund).await, BankWord::Silence);
    assert!(yes(bank.resolve(&refund).await, 500));
    let started = tokio::time::Instant::now();
    assert!(yes(bank.send(&request("e", "4000000000000101", 500)).await, 500));
    assert!(started.elapsed() >= Duration::from_millis(LATE_ANSWER_MS));
    assert!(yes(bank.send(&request("f", "4000000000000200", 500)).await, 500));
    let last = SandboxGateway::read_journal(&dir.path().join("j")).unwrap().pop().unwrap();
    assert_eq!(last.did, Did::Repeated, "delivered twice, charged once");
}

#[tokio::test]
async fn two_processes_share_one_bank() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let (one, two) = (open(&path), open(&path));
    let charge = request("c", "4111111111111111", 500);
    one.send(&charge).await;
    assert!(yes(two.send(&later(Operation::Refund, "r", 500, &charge)).await, 500));
    assert_eq!(one.send(&later(Operation::Refund, "q", 1, &charge)).await, BankWord::Declined(DeclineReason::InvalidAmount));
    assert!(yes(one.send(&request("d", "4111111111111111", 7)).await, 7));
    assert!(yes(two.resolve(&request("d", "4111111111111111", 7)).await, 7));
}

#[test]
fn a_line_from_before_there_were_other_operations_still_reads() {
    let old = r#"{"at":1,"our_reference":"r","key":"k","card":"c","last4":"1111","asked":{"minor":5,"currency":"USD"},"did":"charged_silently","charged":{"minor":5,"currency":"USD"}}"#;
    let line: JournalLine = serde_json::from_str(old).unwrap();
    assert_eq!((line.operation, line.of, line.lost), (Operation::Charge, None, false));
}
