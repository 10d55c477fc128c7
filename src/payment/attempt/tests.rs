//! The states of an attempt: what may follow what, and with which effects.

use super::*;
use crate::clock::SeededEntropy;
use crate::money::Currency;
use proptest::prelude::*;

const POLICY: ReconcilePolicy =
    ReconcilePolicy { not_found_grace: Duration::from_secs(60), resend_window: Duration::from_secs(24 * 3600), max_sends: 3 };

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::Usd).unwrap()
}

fn prepared() -> Attempt {
    let e = SeededEntropy::new(4);
    Attempt {
        id: AttemptId::fresh(&e),
        number: 1,
        intent: IntentId::fresh(&e),
        operation: Operation::Charge,
        of_attempt: None,
        gateway: "sandbox".into(),
        amount: usd(1999),
        prepared_at: Timestamp(0),
        state: AttemptState::Prepared,
        version: 0,
    }
}

fn hash(of: &str) -> RequestHash {
    RequestHash(of.to_owned())
}

fn dispatch() -> AttemptEvent {
    AttemptEvent::Dispatch { key: GatewayKey("k".into()), hash: hash("h") }
}

fn approved(minor: i64) -> BankWord {
    BankWord::Approved { charged: usd(minor), gateway_reference: "g".into() }
}

fn sent_at(at: i64) -> Attempt {
    step(&POLICY, Timestamp(at), prepared(), dispatch()).unwrap().0
}

#[test]
fn the_happy_path_posts_and_settles_once() {
    let (done, effects) = step(&POLICY, Timestamp(2), sent_at(1), AttemptEvent::Answer(approved(1999))).unwrap();
    assert_eq!(effects, [Effect::PostPending, Effect::Settle]);
    let (again, effects) = step(&POLICY, Timestamp(3), done.clone(), AttemptEvent::Found(approved(1999))).unwrap();
    assert_eq!((again, effects), (done.clone(), vec![]));
    let late = step(&POLICY, Timestamp(3), done, AttemptEvent::Answer(BankWord::Declined(DeclineReason::Other))).unwrap();
    assert_eq!(late.1, [Effect::Conflict]);
}

#[test]
fn another_amount_or_currency_is_no_success() {
    for charged in [usd(1998), usd(2000), Money::new(1999, Currency::Eur).unwrap()] {
        let word = BankWord::Approved { charged, gateway_reference: "g".into() };
        let (a, effects) = step(&POLICY, Timestamp(2), sent_at(1), AttemptEvent::Answer(word)).unwrap();
        assert_eq!(effects, [Effect::Conflict, Effect::AskLater]);
        assert!(matches!(&a.state, AttemptState::Conflicted { charged: c, .. } if *c == charged));
        assert_eq!(
            step(&POLICY, Timestamp(3), a.clone(), AttemptEvent::Resend { hash: hash("h") }).unwrap_err(),
            TransitionError::NoMoreSends
        );
        let (b, _) = step(&POLICY, Timestamp(3), a, AttemptEvent::Found(BankWord::Reversed)).unwrap();
        assert!(matches!(b.state, AttemptState::Reversed { .. }));
    }
}

#[test]
fn not_found_means_nothing_before_the_grace_time_and_errors_change_nothing() {
    let sent = sent_at(0);
    let ask = |at: i64, a: Attempt, word| step(&POLICY, Timestamp(at), a, AttemptEvent::Found(word)).unwrap();
    assert_eq!(ask(59_999, sent.clone(), BankWord::NotFound), (sent.clone(), vec![Effect::AskLater]));
    assert_eq!(ask(999_999_999, sent.clone(), BankWord::Silence), (sent.clone(), vec![Effect::AskLater]));
    assert_eq!(ask(60_000, sent.clone(), BankWord::NotFound), (sent.clone(), vec![Effect::SendAgain]));
    let resend = |at, a, h| step(&POLICY, Timestamp(at), a, AttemptEvent::Resend { hash: hash(h) });
    assert_eq!(resend(60_000, sent.clone(), "other").unwrap_err(), TransitionError::OtherBytes);
    let (two, _) = resend(60_000, sent, "h").unwrap();
    assert_eq!(ask(60_001, two.clone(), BankWord::NotFound).1, [Effect::AskLater], "the second send may be on its way");
    let (three, _) = resend(120_000, two, "h").unwrap();
    assert_eq!(resend(180_000, three.clone(), "h").unwrap_err(), TransitionError::NoMoreSends);
    assert_eq!(ask(1_000_000, three.clone(), BankWord::NotFound).1, [Effect::AskLater]);
    let (end, effects) = ask(24 * 3_600_000, three, BankWord::NotFound);
    assert!(matches!(end.state, AttemptState::Declined { reason: DeclineReason::NeverReceived, .. }));
    assert_eq!(effects, [Effect::VoidPending, Effect::Release]);
}

#[test]
fn nothing_is_sent_after_the_window() {
    let late = 24 * 3_600_000;
    let again = AttemptEvent::Resend { hash: hash("h") };
    assert_eq!(step(&POLICY, Timestamp(late), sent_at(0), again).unwrap_err(), TransitionError::NoMoreSends);
}

fn any_word() -> impl Strategy<Value = BankWord> {
    prop_oneof![
        Just(approved(1999)),
        Just(approved(1998)),
        Just(BankWord::Declined(DeclineReason::InsufficientFunds)),
        Just(BankWord::Reversed),
        Just(BankWord::StillWorking),
        Just(BankWord::NotFound),
        Just(BankWord::Silence),
    ]
}

fn any_event() -> impl Strategy<Value = AttemptEvent> {
    prop_oneof![
        Just(dispatch()),
        Just(AttemptEvent::Abandon),
        Just(AttemptEvent::Resend { hash: hash("h") }),
        Just(AttemptEvent::Resend { hash: hash("other") }),
        any::<bool>().prop_map(|done| AttemptEvent::Resolve { done }),
        any_word().prop_map(AttemptEvent::Answer),
        any_word().prop_map(AttemptEvent::Found),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any events in any order, duplicates among them: at most one end, money posted or voided exactly at that end, terminal
    /// states stay, nothing is sent before its dispatch was written, never more often than allowed.
    #[test]
    fn no_order_of_events_charges_twice(events in proptest::collection::vec((any_event(), 0i64..40_000_000), 1..30)) {
        let mut attempt = prepared();
        let (mut now, mut posts, mut voids, mut settles, mut releases) = (0, 0, 0, 0, 0);
        for (event, wait) in events {
            now += wait;
            let before = attempt.clone();
            let is_dispatch = matches!(event, AttemptEvent::Dispatch { .. });
            let Ok((after, effects)) = step(&POLICY, Timestamp(now), attempt, event) else {
                attempt = before;
                continue;
            };
            prop_assert_eq!(after.version - before.version, i64::from(after.state != before.state));
            if before.state.terminal() {
                prop_assert_eq!(&after, &before);
            }
            if is_dispatch {
                prop_assert!(before.state == AttemptState::Prepared);
            }
            if let AttemptState::Dispatched { sends, at, last_sent, .. } | AttemptState::NeedsReconciliation { sends, at, last_sent, .. } = &after.state {
                prop_assert!(*sends <= POLICY.max_sends);
                prop_assert!(last_sent.since(*at) < POLICY.resend_window);
            }
            for effect in effects {
                match effect {
                    Effect::PostPending => posts += 1,
                    Effect::VoidPending => voids += 1,
                    Effect::Settle => settles += 1,
                    Effect::Release => releases += 1,
                    Effect::SendAgain | Effect::AskLater => prop_assert!(!after.state.terminal()),
                    Effect::Hold => prop_assert!(false, "a charge reserves nothing"),
                    Effect::Conflict => {}
                }
            }
            attempt = after;
        }
        prop_assert!(posts + voids <= 1);
        prop_assert_eq!((posts, voids), (settles, releases));
        prop_assert_eq!(posts + voids == 1, attempt.state.terminal());
        prop_assert_eq!(posts == 1, matches!(attempt.state, AttemptState::Succeeded { .. }));
    }
}

#[test]
fn a_clock_that_went_back_sends_nothing_and_believes_nothing() {
    let now = 10 * 3_600_000;
    let sent = sent_at(now);
    let ask = |at: i64| step(&POLICY, Timestamp(at), sent.clone(), AttemptEvent::Found(BankWord::NotFound)).unwrap();
    assert_eq!(ask(0), (sent.clone(), vec![Effect::AskLater]));
    let again = AttemptEvent::Resend { hash: hash("h") };
    assert_eq!(step(&POLICY, Timestamp(now - 1), sent, again).unwrap_err(), TransitionError::NoMoreSends);
}

#[test]
fn each_operation_ends_with_its_own_effects() {
    use Effect::{Hold, PostPending, Release, Settle, VoidPending};
    let of = |operation| Attempt { operation, ..sent_at(1) };
    let end = |operation, word: BankWord| step(&POLICY, Timestamp(2), of(operation), AttemptEvent::Answer(word)).unwrap();
    for (operation, done, undone) in [
        (Operation::Charge, vec![PostPending, Settle], vec![VoidPending, Release]),
        (Operation::Authorise, vec![Hold], vec![VoidPending, Release]),
        (Operation::Capture, vec![PostPending, Settle], vec![]),
        (Operation::Void, vec![VoidPending, Release], vec![]),
        (Operation::Refund, vec![PostPending], vec![VoidPending]),
    ] {
        assert_eq!(end(operation, approved(1999)).1, done, "{operation:?}");
        assert_eq!(end(operation, BankWord::Declined(DeclineReason::Other)).1, undone, "{operation:?}");
        assert_eq!(end(operation, BankWord::Reversed).1, undone, "{operation:?}");
        let (conflict, _) = end(operation, approved(1));
        for (done_so, expected) in [(true, &done), (false, &undone)] {
            let resolved = AttemptEvent::Resolve { done: done_so };
            let (after, effects) = step(&POLICY, Timestamp(3), conflict.clone(), resolved).unwrap();
            assert_eq!((after.state.done(), &effects), (done_so, expected), "{operation:?}");
        }
    }
    let none = step(&POLICY, Timestamp(3), sent_at(1), AttemptEvent::Resolve { done: true });
    assert_eq!(none.unwrap_err(), TransitionError::NoConflict);
}
