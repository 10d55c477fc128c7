//! What is left of a payment: bounds hold whatever is asked, in whatever order, and whatever the acquirer answers.

use proptest::prelude::*;

use super::*;
use crate::clock::SeededEntropy;
use crate::ids::{AttemptId, CallId, CardId, CustomerId, DisputeId, IntentId, PayeeId, RequestId};
use crate::payment::{Capture, DeclineReason, IntentStatus};

const PAID: i64 = 5000;

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::Usd).unwrap()
}

fn intent(capture: Capture) -> Intent {
    let e = SeededEntropy::new(5);
    Intent {
        id: IntentId::fresh(&e),
        customer: CustomerId::fresh(&e),
        request: RequestId::fresh(&e),
        payee: PayeeId::fresh(&e),
        card: CardId::fresh(&e),
        last4: "1111".into(),
        occasion: CallId::fresh(&e).into(),
        amount: usd(PAID),
        capture,
        authorisation_expires_at: Some(Timestamp(1000)),
        status: IntentStatus::Pending,
        created_at: Timestamp(0),
    }
}

fn attempt(number: u64, operation: Operation, minor: i64, state: AttemptState) -> Attempt {
    let e = SeededEntropy::new(number);
    Attempt {
        id: AttemptId::fresh(&e),
        number,
        intent: intent(Capture::Manual).id,
        operation,
        of_attempt: None,
        gateway: "sandbox".into(),
        amount: usd(minor),
        prepared_at: Timestamp(0),
        state,
        version: 0,
    }
}

fn done() -> AttemptState {
    AttemptState::Succeeded { at: Timestamp(1), gateway_reference: "g".into() }
}

fn declined() -> AttemptState {
    AttemptState::Declined { at: Timestamp(1), reason: DeclineReason::Other }
}

fn dispute(minor: i64, state: DisputeState) -> Dispute {
    let e = SeededEntropy::new(9);
    Dispute {
        id: DisputeId::fresh(&e),
        intent: intent(Capture::Automatic).id,
        reference: "d".into(),
        amount: usd(minor),
        reason: "fraud".into(),
        opened_at: Timestamp(1),
        state,
    }
}

#[test]
fn two_refunds_in_flight_never_exceed_what_was_captured() {
    let i = intent(Capture::Automatic);
    let charge = attempt(1, Operation::Charge, PAID, done());
    let first = attempt(2, Operation::Refund, 3000, AttemptState::Prepared);
    let attempts = [charge, first];
    let b = Balance::of(&i, &attempts, &[]);
    assert_eq!((b.captured, b.refunded, b.refundable()), (PAID, 0, 2000));
    let over = b.judge(Operation::Refund, Some(usd(2001))).unwrap_err();
    assert_eq!(over.to_string(), "20.01 USD is more than the 20.00 USD that is left");
    assert_eq!(b.judge(Operation::Refund, None).unwrap(), usd(2000));
    let euros = Money::new(1, Currency::Eur).unwrap();
    assert!(matches!(b.judge(Operation::Refund, Some(euros)), Err(OperationRefusal::OtherCurrency { .. })));
    assert!(matches!(b.judge(Operation::Capture, None), Err(OperationRefusal::NotAuthorised)));
    assert!(matches!(b.judge(Operation::Charge, None), Err(OperationRefusal::NotAfterwards)));
}

#[test]
fn an_authorisation_is_captured_once_or_voided_whole_and_not_after_its_time() {
    let i = intent(Capture::Manual);
    let authorised = attempt(1, Operation::Authorise, PAID, done());
    let judge = |attempts: &[Attempt], at, operation, amount| {
        judge(Timestamp(at), (&i, attempts, &[]), operation, amount, "sandbox").map(|(m, _)| m)
    };
    let open = [authorised.clone()];
    assert_eq!(judge(&open, 1, Operation::Capture, Some(usd(10))).unwrap(), usd(10));
    assert_eq!(judge(&open, 999, Operation::Capture, None).unwrap(), usd(PAID));
    assert!(matches!(judge(&open, 1000, Operation::Capture, None), Err(OperationRefusal::AuthorisationExpired { .. })));
    assert_eq!(judge(&open, 1000, Operation::Void, None).unwrap(), usd(PAID));
    assert_eq!(judge(&open, 1, Operation::Void, Some(usd(10))), Err(OperationRefusal::VoidInPart));
    assert_eq!(judge(&open, 1, Operation::Refund, None), Err(OperationRefusal::NothingCaptured));
    let captured = [authorised.clone(), attempt(2, Operation::Capture, 10, done())];
    assert_eq!(judge(&captured, 1, Operation::Capture, None), Err(OperationRefusal::AlreadyEnded));
    assert_eq!(judge(&captured, 1, Operation::Void, None), Err(OperationRefusal::AlreadyEnded));
    assert_eq!(judge(&captured, 1, Operation::Refund, None).unwrap(), usd(10));
    let failed = [authorised, attempt(2, Operation::Capture, 10, declined())];
    assert_eq!(judge(&failed, 1, Operation::Capture, None).unwrap(), usd(PAID), "a capture that failed leaves it as it was");
}

#[test]
fn how_a_payment_stands_follows_from_its_attempts_and_disputes() {
    let (auto, manual) = (intent(Capture::Automatic), intent(Capture::Manual));
    let charge = attempt(1, Operation::Charge, PAID, done());
    let authorised = attempt(1, Operation::Authorise, PAID, done());
    let refund = |minor| attempt(2, Operation::Refund, minor, done());
    let void = |at| Attempt { prepared_at: Timestamp(at), ..attempt(2, Operation::Void, PAID, done()) };
    for (i, attempts, disputes, expected) in [
        (&auto, vec![attempt(1, Operation::Charge, PAID, AttemptState::Prepared)], vec![], Standing::Pending),
        (&auto, vec![attempt(1, Operation::Charge, PAID, declined())], vec![], Standing::Failed),
        (&auto, vec![charge.clone()], vec![], Standing::Paid),
        (&auto, vec![charge.clone(), refund(1)], vec![], Standing::PartlyRefunded),
        (&auto, vec![charge.clone(), refund(PAID)], vec![], Standing::Refunded),
        (&auto, vec![charge.clone()], vec![dispute(1, DisputeState::Opened)], Standing::Disputed),
        (&auto, vec![charge.clone()], vec![dispute(1, DisputeState::Lost { at: Timestamp(2) })], Standing::ChargedBack),
        (&auto, vec![charge], vec![dispute(1, DisputeState::Won { at: Timestamp(2) })], Standing::Paid),
        (&manual, vec![authorised.clone()], vec![], Standing::Authorised),
        (&manual, vec![authorised.clone(), attempt(2, Operation::Capture, 1, done())], vec![], Standing::Paid),
        (&manual, vec![authorised.clone(), void(999)], vec![], Standing::Voided),
        (&manual, vec![authorised, void(1000)], vec![], Standing::Expired),
    ] {
        assert_eq!(Standing::of(i, &attempts, &disputes), expected);
    }
}

/// What the acquirer makes of an operation.
fn any_end() -> impl Strategy<Value = AttemptState> {
    prop_oneof![Just(AttemptState::Prepared), Just(done()), Just(declined()), Just(AttemptState::Reversed { at: Timestamp(1) })]
}

proptest! {
    /// Whatever is asked and however it ends later: what is given back never exceeds what was captured, and what was captured never
    /// exceeds what was authorised.
    #[test]
    fn nothing_is_given_back_that_was_not_taken(
        manual: bool,
        asked in proptest::collection::vec((0usize..3, 1i64..7000, any_end(), any_end()), 1..20),
    ) {
        let i = intent(if manual { Capture::Manual } else { Capture::Automatic });
        let mut attempts = vec![attempt(1, i.capture.opening(), PAID, done())];
        let mut ends = vec![done()];
        for (n, (what, minor, now, later)) in asked.into_iter().enumerate() {
            let operation = [Operation::Capture, Operation::Void, Operation::Refund][what];
            let Ok((amount, _)) = judge(Timestamp(1), (&i, &attempts, &[]), operation, Some(usd(minor)), "sandbox") else { continue };
            let number = u64::try_from(n).unwrap() + 2;
            ends.push(if now == AttemptState::Prepared { later } else { now.clone() });
            attempts.push(attempt(number, operation, amount.minor.get(), now));
        }
        // Those that were under way end as they will.
        for (a, end) in attempts.iter_mut().zip(ends) {
            a.state = end;
        }
        let b = Balance::of(&i, &attempts, &[]);
        prop_assert!(b.refund_taken <= b.captured && b.refunded <= b.refund_taken, "{:?}", b);
        prop_assert!(b.captured <= PAID && b.captured >= 0);
        let ended = attempts.iter().filter(|a| matches!(a.operation, Operation::Capture | Operation::Void) && a.state.done()).count();
        prop_assert!(ended <= 1);
    }
}
