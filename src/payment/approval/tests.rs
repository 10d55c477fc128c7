//! System 8's cases, as far as they are the approval's own.

use super::*;
use crate::clock::SeededEntropy;
use crate::money::Currency;
use crate::payment::{Delivery, RequestStatus};

fn request(minor: i64) -> PaymentRequest {
    let e = SeededEntropy::new(3);
    PaymentRequest {
        id: RequestId::fresh(&e),
        customer: CustomerId::fresh(&e),
        payee: PayeeId::fresh(&e),
        amount: Money::new(minor, Currency::Usd).unwrap(),
        due: None,
        delivery: Delivery::None,
        expires_at: None,
        status: RequestStatus::Open,
        held_by: None,
        created_at: Timestamp(0),
    }
}

fn supervisor() -> CustomerId {
    CustomerId::fresh(&SeededEntropy::new(4))
}

fn opened() -> Approval {
    let id = ApprovalId::fresh(&SeededEntropy::new(5));
    Approval::open_for(id, &request(1_999), vec![(Role::Supervisor, supervisor())], Timestamp(0), Timestamp(1_000)).unwrap()
}

fn payer() -> ApprovalEvent {
    let e = SeededEntropy::new(6);
    let part = PayersPart {
        at: Timestamp(1),
        card: CardId::fresh(&e),
        occasion: CallId::fresh(&e).into(),
        evidence: Evidence::default(),
        channel: Channel::Telephone,
        attestation: Attested::Vouched,
        met: BTreeSet::new(),
    };
    ApprovalEvent::Payer(Box::new(part))
}

fn says(yes: bool) -> ApprovalEvent {
    ApprovalEvent::Said { who: supervisor(), said: Said { yes, at: Timestamp(2), how: How::Link } }
}

fn intent() -> IntentId {
    IntentId::fresh(&SeededEntropy::new(7))
}

fn all(events: Vec<ApprovalEvent>) -> Result<Approval, ApprovalError> {
    events.into_iter().try_fold(opened(), |a, e| a.step(Timestamp(10), e))
}

#[test]
fn both_agree_in_either_order_and_it_is_used_once() {
    for order in [vec![payer(), says(true)], vec![says(true), payer()]] {
        let agreed = all(order).unwrap();
        assert_eq!(agreed.state, ApprovalState::Agreed);
        let used = agreed.step(Timestamp(11), ApprovalEvent::Used(intent())).unwrap();
        assert_eq!(used.clone().step(Timestamp(12), ApprovalEvent::Used(intent())).unwrap(), used);
        let other = IntentId::fresh(&SeededEntropy::new(8));
        assert_eq!(used.step(Timestamp(12), ApprovalEvent::Used(other)).unwrap_err(), ApprovalError::Over("used"));
    }
}

#[test]
fn one_side_alone_is_not_enough() {
    for one in [payer(), says(true)] {
        let open = all(vec![one]).unwrap();
        assert_eq!(open.state, ApprovalState::Open);
        assert_eq!(open.step(Timestamp(11), ApprovalEvent::Used(intent())).unwrap_err(), ApprovalError::Incomplete);
    }
}

#[test]
fn a_no_ends_it_whatever_else_was_said() {
    for order in [vec![says(false)], vec![payer(), says(false)]] {
        let denied = all(order).unwrap();
        assert_eq!(denied.state, ApprovalState::Denied { by: Role::Supervisor });
        assert_eq!(denied.step(Timestamp(11), says(true)).unwrap_err(), ApprovalError::Over("denied"));
    }
    assert_eq!(all(vec![says(true), says(false)]).unwrap_err(), ApprovalError::Answered);
}

#[test]
fn it_expires_even_if_nobody_wrote_that_down() {
    let late = |event| opened().step(Timestamp(1_000), event);
    assert_eq!(late(payer()).unwrap_err(), ApprovalError::Expired);
    assert_eq!(late(says(true)).unwrap_err(), ApprovalError::Expired);
    assert_eq!(opened().step(Timestamp(999), ApprovalEvent::Expire).unwrap_err(), ApprovalError::NotYet);
    let agreed = all(vec![payer(), says(true)]).unwrap();
    assert_eq!(agreed.clone().step(Timestamp(1_000), ApprovalEvent::Used(intent())).unwrap_err(), ApprovalError::Expired);
    assert_eq!(agreed.step(Timestamp(1_000), ApprovalEvent::Expire).unwrap().state, ApprovalState::Expired);
}

#[test]
fn nobody_supervises_themselves_and_strangers_are_not_heard() {
    let own = request(1).customer;
    let id = ApprovalId::fresh(&SeededEntropy::new(5));
    let error = Approval::open_for(id.clone(), &request(1), vec![(Role::Supervisor, own.clone())], Timestamp(0), Timestamp(9));
    assert_eq!(error.unwrap_err(), ApprovalError::Oneself);
    let nobody = Approval::open_for(id, &request(1), vec![], Timestamp(0), Timestamp(9));
    assert_eq!(nobody.unwrap_err(), ApprovalError::Nobody);
    let said = Said { yes: true, at: Timestamp(1), how: How::Link };
    let stranger = ApprovalEvent::Said { who: own, said };
    assert_eq!(opened().step(Timestamp(1), stranger).unwrap_err(), ApprovalError::NotAsked);
}

#[test]
fn another_amount_payee_or_payer_is_another_thing() {
    let approval = opened();
    assert!(approval.fits(&request(1_999)));
    let e = SeededEntropy::new(9);
    for other in [
        request(2_000),
        PaymentRequest { payee: PayeeId::fresh(&e), ..request(1_999) },
        PaymentRequest { customer: CustomerId::fresh(&e), ..request(1_999) },
        PaymentRequest { id: RequestId::fresh(&e), ..request(1_999) },
        PaymentRequest { amount: Money::new(1_999, Currency::Eur).unwrap(), ..request(1_999) },
    ] {
        assert!(!approval.fits(&other), "{other:?}");
    }
}

#[test]
fn after_a_withdrawal_or_a_cancellation_nothing_counts() {
    for end in [ApprovalEvent::Cancel, ApprovalEvent::Withdraw { who: supervisor() }] {
        let over = all(vec![payer(), says(true), end]).unwrap();
        for event in [payer(), says(true), ApprovalEvent::Used(intent())] {
            assert!(matches!(over.clone().step(Timestamp(11), event), Err(ApprovalError::Over(_))));
        }
    }
}

#[test]
fn saying_the_same_again_changes_nothing() {
    let once = all(vec![says(true)]).unwrap();
    assert_eq!(once.clone().step(Timestamp(11), says(true)).unwrap(), once);
}

#[test]
fn two_guardians_are_two() {
    let e = SeededEntropy::new(10);
    let (one, two) = (CustomerId::fresh(&e), CustomerId::fresh(&e));
    let parties = vec![(Role::Guardian, one.clone()), (Role::SecondGuardian, two.clone())];
    let id = ApprovalId::fresh(&e);
    let a = Approval::open_for(id, &request(5), parties, Timestamp(0), Timestamp(100)).unwrap();
    let yes =
        |who: &CustomerId| ApprovalEvent::Said { who: who.clone(), said: Said { yes: true, at: Timestamp(1), how: How::Link } };
    let a = a.step(Timestamp(1), payer()).unwrap().step(Timestamp(2), yes(&one)).unwrap();
    assert_eq!(a.state, ApprovalState::Open);
    assert_eq!(a.waits_for().map(|p| p.role).collect::<Vec<_>>(), [Role::SecondGuardian]);
    let a = a.step(Timestamp(3), yes(&two)).unwrap();
    assert_eq!(a.state, ApprovalState::Agreed);
    assert!(a.agreed_by_each(&[(Role::Guardian, one.clone())]));
    assert!(!a.agreed_by_each(&[(Role::Supervisor, one)]), "asked as something else");
    assert!(!a.agreed_by_each(&[(Role::Guardian, two)]), "another guardian now");
}
