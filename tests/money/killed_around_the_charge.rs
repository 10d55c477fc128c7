//! `kill -9` at every named point around a charge, then a restart: exactly one charge at the bank, balanced books, a receipt. Before the
//! submission is committed: no charge at all.

use std::path::Path;
use std::time::Duration;

use super::support::{AMOUNT, Ended, House, charged, child, told_dir};
use voicepay::crash::CRASH_ENV;
use voicepay::payment::{IntentStatus, Operation, RequestStatus};
use voicepay::processor::crash::points_of;

const ORDINARY: &str = "4111111111111111";
const ANSWER_LOST: &str = "4000000000000119";
const FIRST_SEND_FAILS: &str = "4000000000000341";

/// The process that is killed: a call orders the charge, the worker carries it out.
#[tokio::test]
#[ignore = "run as a child process by the tests below"]
async fn child_orders_and_charges() {
    let Some(dir) = told_dir() else { return };
    let card = std::env::var("VOICEPAY_TEST_CARD").unwrap();
    let house = House::open(&dir).await;
    let order = house.furnish(&card).await;
    std::fs::write(dir.join("request"), order.request.as_str()).unwrap();
    house.processor.submit(order).await.unwrap();
    house.finish_everything().await;
}

fn killed_at(point: &str, card: &str, dir: &Path) -> Ended {
    let env = [(CRASH_ENV, point), ("VOICEPAY_TEST_CARD", card)];
    child("killed_around_the_charge::child_orders_and_charges", dir, &env, None)
}

/// What must hold after the restart, wherever the kill came: all or nothing, and all at most once.
async fn restart_and_check(dir: &Path, what: &str) -> usize {
    let house = House::open(dir).await;
    house.finish_everything().await;
    house.finish_everything().await; // a second look changes nothing
    let payments = house.store.payments(9).await.unwrap();
    let charges = charged(dir);
    assert_eq!(charges.len(), payments.len(), "{what}: as many charges as payments");
    assert!(payments.len() <= 1, "{what}");
    for payment in &payments {
        assert_eq!(payment.intent.status, IntentStatus::Paid, "{what}");
        assert_eq!(payment.attempts.len(), 1, "{what}");
        let receipt = payment.receipt.as_ref().unwrap_or_else(|| panic!("{what}: no receipt"));
        assert_eq!((receipt.amount.minor.get(), charges[0].charged), (AMOUNT, Some(receipt.amount)), "{what}");
        assert_eq!(charges[0].our_reference, payment.attempts[0].id.as_str(), "{what}");
        let request = house.store.request(&payment.intent.request).await.unwrap().unwrap().request;
        assert_eq!(request.status, RequestStatus::Paid, "{what}");
        let topics: Vec<_> = house.store.outbox_waiting(99).await.unwrap().into_iter().map(|o| o.topic).collect();
        let told = |topic: &str| topics.iter().filter(|t| *t == topic).count();
        assert_eq!((told("payment.submitted"), told("payment.succeeded")), (1, 1), "{what}");
    }
    let paid = i64::try_from(payments.len()).unwrap();
    assert_eq!(house.books().await, (paid * AMOUNT, 0), "{what}: the books");
    payments.len()
}

#[tokio::test]
async fn at_every_point_of_an_ordinary_charge() {
    for point in &points_of(Operation::Charge) {
        let dir = tempfile::tempdir().unwrap();
        let ended = killed_at(point, ORDINARY, dir.path());
        assert!(ended.killed, "{point} was not met:\n{}", ended.output);
        let paid = restart_and_check(dir.path(), point).await;
        assert_eq!(paid, usize::from(point != "charge_before_begin"), "{point}");
    }
}

#[tokio::test]
async fn at_every_point_when_the_answer_is_lost_or_the_first_send_fails() {
    for (card, points) in [
        (ANSWER_LOST, ["charge_after_dispatch", "after_question", "charge_before_result"]),
        (FIRST_SEND_FAILS, ["after_question", "after_resend", "charge_after_answer"]),
    ] {
        for point in points {
            let dir = tempfile::tempdir().unwrap();
            let ended = killed_at(point, card, dir.path());
            assert!(ended.killed, "{point} was not met:\n{}", ended.output);
            assert_eq!(restart_and_check(dir.path(), &format!("{point} with {card}")).await, 1, "{point}");
        }
    }
}

#[tokio::test]
async fn at_any_moment_and_again_during_the_recovery() {
    let points = points_of(Operation::Charge);
    for step in 0..12_u64 {
        let dir = tempfile::tempdir().unwrap();
        let env = [("VOICEPAY_TEST_CARD", ORDINARY)];
        let name = "killed_around_the_charge::child_orders_and_charges";
        child(name, dir.path(), &env, Some(Duration::from_millis(step * 17)));
        let env = [(CRASH_ENV, points[3 + usize::try_from(step % 4).unwrap()].as_str())];
        child("killed_around_the_charge::child_recovers", dir.path(), &env, None);
        restart_and_check(dir.path(), &format!("killed after {} ms", step * 17)).await;
    }
}

/// A restart that is killed too.
#[tokio::test]
#[ignore = "run as a child process by the tests above"]
async fn child_recovers() {
    let Some(dir) = told_dir() else { return };
    House::open(&dir).await.finish_everything().await;
}
