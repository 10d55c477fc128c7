//! Orders and commands that are wrong in every way we could think of: each gets an answer that says what is wrong, nothing is
//! written, no money moves, and the next good order is charged.

use std::sync::Arc;
use std::time::Duration;

use voicepay::clock::{Clock, ManualClock, SystemClock, Timestamp};
use voicepay::ids::{CallId, CardId, CustomerId, IntentId, RequestId};
use voicepay::money::{Currency, Money};
use voicepay::payment::{Capture, Operation};
use voicepay::processor::{ChargeOrder, OperateError, OperationOrder, Outcome, Processor, ProcessorConfig, SubmitError};

use super::support::{AMOUNT, House, bank, charged};

const ORDINARY: &str = "4111111111111111";

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::Usd).unwrap()
}

#[test]
fn amounts_that_are_none_do_not_become_money() {
    for minor in [0, -1, i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1, 1_000_000_000_001] {
        let error = Money::new(minor, Currency::Usd).unwrap_err().to_string();
        assert!(error.contains(&minor.to_string()), "{error}");
    }
    for text in [
        "",
        ".",
        "-1",
        "+1",
        "0",
        "0.00",
        "1.",
        ".5",
        "1.999",
        "1,00",
        "1e3",
        "NaN",
        "inf",
        " 1",
        "1 ",
        "0x10",
        "٣",
        "１",
        "9223372036854775807",
        "9223372036854775808",
        "92233720368547758.08",
        "10000000000.01",
        "99999999999999999999999999",
    ] {
        assert!(Money::parse_decimal(text, Currency::Usd).is_err(), "{text:?} is no amount");
    }
    assert!(Money::parse_decimal("1.5", Currency::Jpy).is_err(), "a yen has no parts");
    for currency in ["", "US", "USDT", "XXX", "usd ", "€", "840"] {
        assert!(currency.parse::<Currency>().is_err(), "{currency:?} is no currency of ours");
    }
    assert_eq!(Money::new(1_000_000_000_000, Currency::Usd).unwrap().minor.get(), 1_000_000_000_000);
    // What arrives as JSON goes through the same door.
    for json in [r#"{"minor":0,"currency":"USD"}"#, r#"{"minor":-5,"currency":"USD"}"#, r#"{"minor":1.5,"currency":"USD"}"#] {
        assert!(serde_json::from_str::<Money>(json).is_err(), "{json}");
    }
}

type Spoil = fn(&mut ChargeOrder);

#[tokio::test]
async fn a_wrong_order_is_refused_by_name_and_the_right_one_is_charged_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path()).await;
    let good = house.furnish(ORDINARY).await;
    let wrong: [(&str, Spoil, &str); 10] = [
        ("other currency", |o| o.amount = Money::new(AMOUNT, Currency::Eur).unwrap(), "not what the request asks"),
        ("yen of the same number", |o| o.amount = Money::new(AMOUNT, Currency::Jpy).unwrap(), "not what the request asks"),
        ("a cent less", |o| o.amount = usd(AMOUNT - 1), "not what the request asks"),
        ("a cent more", |o| o.amount = usd(AMOUNT + 1), "not what the request asks"),
        ("the smallest", |o| o.amount = usd(1), "not what the request asks"),
        ("the largest", |o| o.amount = usd(1_000_000_000_000), "not what the request asks"),
        ("no such request", |o| o.request = RequestId::parse("req_0").unwrap(), "does not exist"),
        ("no such card", |o| o.card = CardId::parse("card_0").unwrap(), "card can't be used"),
        ("no such customer", |o| o.customer = CustomerId::parse("cus_0").unwrap(), "may not pay"),
        (
            "a hostile identifier",
            |o| o.occasion = CallId::parse("call_0000000000000000000000000000000000000000").unwrap().into(),
            "",
        ),
    ];
    for (what, spoil, why) in wrong {
        if why.is_empty() {
            assert!(CallId::parse("call_' OR 1=1 --").is_err() && CallId::parse("call_").is_err(), "{what}");
            continue;
        }
        let mut order = good.clone();
        spoil(&mut order);
        let error = house.processor.submit(order).await.unwrap_err();
        assert!(matches!(error, SubmitError::Refused(_)), "{what}: {error:?}");
        assert!(error.to_string().contains(why), "{what}: {error}");
    }
    house.finish_everything().await;
    assert!(house.store.payments(9).await.unwrap().is_empty(), "nothing was written");
    assert!(house.store.transfers().await.unwrap().is_empty());
    assert!(charged(dir.path()).is_empty());

    let intent = house.processor.submit(good.clone()).await.unwrap();
    house.finish_everything().await;
    // The same key with another body, before and after the end of the payment.
    let again: [(&str, Spoil); 3] = [
        ("amount", |o| o.amount = usd(AMOUNT + 1)),
        ("card", |o| o.card = CardId::parse("card_0").unwrap()),
        ("capture", |o| o.capture = Capture::Manual),
    ];
    for (what, spoil) in again {
        let mut order = good.clone();
        spoil(&mut order);
        assert!(house.processor.submit(order).await.is_err(), "the same call and request with another {what}");
    }
    assert_eq!(house.processor.submit(good).await.unwrap(), intent, "the same body is the same payment");
    house.finish_everything().await;
    assert_eq!((charged(dir.path()).len(), house.books().await), (1, (AMOUNT, 0)));
}

#[tokio::test]
async fn a_wrong_command_is_refused_by_name_and_the_right_one_is_done_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path()).await;
    let order = house.furnish(ORDINARY).await;
    let intent = house.processor.submit(order).await.unwrap();
    house.finish_everything().await;
    let before = house.store.transfers().await.unwrap().len();
    let command = |key: &str, operation, amount| OperationOrder {
        key: key.into(),
        intent: intent.clone(),
        operation,
        amount,
        by: "test".into(),
        why: "to see what happens".into(),
    };
    let eur = Money::new(1, Currency::Eur).unwrap();
    let long = "k".repeat(101);
    let refund = Operation::Refund;
    for (order, why) in [
        (command("r1", refund, Some(usd(AMOUNT + 1))), "more than"),
        (command("r2", refund, Some(usd(1_000_000_000_000))), "more than"),
        (command("r3", refund, Some(eur)), "not in EUR"),
        (command("r4", Operation::Charge, Some(usd(1))), "begins with"),
        (command("r5", Operation::Authorise, None), "begins with"),
        (command("r6", Operation::Capture, None), "no authorisation"),
        (command("r7", Operation::Void, None), "no authorisation"),
        (command("", refund, None), "key"),
        (command(&long, refund, None), "key"),
        (command("a b", refund, None), "key"),
        (command("a\0b", refund, None), "key"),
        (command("k'; DROP TABLE attempts; --", refund, None), "key"),
        (OperationOrder { intent: IntentId::parse("int_0").unwrap(), ..command("r8", refund, None) }, "no such payment"),
    ] {
        let error = house.processor.operate(order).await.unwrap_err();
        assert!(matches!(error, OperateError::Refused(_)), "{error:?}");
        assert!(error.to_string().contains(why), "{error} should say {why:?}");
    }
    assert_eq!(house.store.transfers().await.unwrap().len(), before, "nothing was written");

    let part = house.processor.operate(command("part", refund, Some(usd(999)))).await.unwrap();
    assert_eq!(house.processor.operate(command("part", refund, Some(usd(999)))).await.unwrap(), part);
    for other in [command("part", refund, Some(usd(998))), command("part", refund, None), command("part", Operation::Void, None)]
    {
        let error = house.processor.operate(other).await.unwrap_err().to_string();
        assert!(error.contains("used before") || error.contains("no authorisation"), "{error}");
    }
    house.finish_everything().await;
    let error = house.processor.operate(command("rest", refund, Some(usd(AMOUNT - 998)))).await.unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
    house.processor.operate(command("rest", refund, None)).await.unwrap();
    house.finish_everything().await;
    let error = house.processor.operate(command("more", refund, None)).await.unwrap_err();
    assert!(error.to_string().contains("nothing is left"), "{error}");
    let payment = house.store.payment(&intent).await.unwrap().unwrap();
    assert!(payment.attempts.len() == 3 && payment.attempts.iter().all(|a| a.state.done()), "{:?}", payment.attempts);
    house.books().await; // which fails unless they balance
}

/// The clock goes back a day, or on by a day, between any two steps.
#[tokio::test]
async fn a_clock_that_jumps_charges_nobody_twice_and_forgets_nobody() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let start = SystemClock.now();
    for (what, submitted_at, sent_at, asked_at) in [
        ("back before sending", start, start.minus(DAY), start),
        ("on before sending", start, start.plus(DAY), start.plus(DAY)),
        ("back before asking", start.plus(DAY), start.plus(DAY), start),
        ("back and back", start.plus(DAY), start, start.minus(DAY)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let house = House::open(dir.path()).await;
        let order = house.furnish("4000000000000119").await; // charged, but the answer never comes
        let at = |now: Timestamp| {
            let clock: Arc<dyn Clock> = Arc::new(ManualClock::starting_at(now));
            let bank = bank(dir.path(), &house.vault, clock.clone(), 1);
            let cfg = ProcessorConfig { gateway_timeout_ms: 100, not_found_grace_ms: 0, ..ProcessorConfig::default() };
            Processor::new(house.store.clone(), bank, house.vault.clone(), clock, house.entropy.clone(), cfg)
        };
        let intent = at(submitted_at).submit(order.clone()).await.unwrap();
        at(sent_at).run_once().await.unwrap();
        at(asked_at).run_once().await.unwrap();
        // Whatever the clock did, an hour later everything is settled.
        for hours in 1..=30 {
            at(start.plus(DAY).plus(Duration::from_secs(hours * 3600))).run_once().await.unwrap();
        }
        let outcome = at(start).outcome(&intent, Duration::ZERO).await.unwrap();
        assert!(matches!(outcome, Outcome::Paid(_)), "{what}: {outcome:?}");
        assert_eq!(at(start).submit(order).await.unwrap(), intent, "{what}");
        assert_eq!((charged(dir.path()).len(), house.books().await), (1, (AMOUNT, 0)), "{what}");
    }
}
