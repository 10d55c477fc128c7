//! Captures, voids, refunds, expiry, disputes and conflicts, with the real store and the sandbox acquirer.

use super::*;
use crate::payment::{BankWord, DeclineReason, DisputeState, Standing};

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::Usd).unwrap()
}

impl House {
    /// Asks for an operation and carries out what is due.
    async fn operate(
        &self,
        operation: Operation,
        intent: &IntentId,
        amount: Option<i64>,
        key: &str,
    ) -> Result<Attempt, OperateError> {
        let order = OperationOrder {
            key: key.into(),
            intent: intent.clone(),
            operation,
            amount: amount.map(usd),
            by: "test".into(),
            why: "because".into(),
        };
        let id = self.processor.operate(order).await?;
        self.processor.run_once().await.unwrap();
        Ok(self.processor.operation(&id, Duration::ZERO).await.unwrap())
    }

    async fn refused(&self, operation: Operation, intent: &IntentId, amount: Option<i64>, key: &str) -> OperationRefusal {
        match self.operate(operation, intent, amount, key).await {
            Err(OperateError::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    /// Authorises 19.99 on `number`.
    async fn authorise(&self, number: &str) -> IntentId {
        let (request, card) = (self.request(1999).await, self.card(number, None).await);
        let order = ChargeOrder { capture: Capture::Manual, ..self.order(&request, &card, 1999) };
        let intent = self.processor.submit(order).await.unwrap();
        self.processor.run_once().await.unwrap();
        intent
    }

    async fn standing(&self, intent: &IntentId) -> Standing {
        self.store.payment(intent).await.unwrap().unwrap().standing()
    }
}

#[tokio::test]
async fn refunds_in_parts_are_bounded_by_what_was_captured() {
    let house = House::build().await;
    let intent = house.charge("4111111111111111").await;
    let first = house.operate(Operation::Refund, &intent, Some(1000), "a").await.unwrap();
    assert!(first.state.done());
    assert_eq!(house.standing(&intent).await, Standing::PartlyRefunded);
    let over = house.refused(Operation::Refund, &intent, Some(1000), "b").await;
    assert_eq!(over.to_string(), "10.00 USD is more than the 9.99 USD that is left");
    let rest = house.operate(Operation::Refund, &intent, None, "c").await.unwrap();
    assert_eq!((rest.amount, rest.state.done()), (usd(999), true));
    assert_eq!(house.standing(&intent).await, Standing::Refunded);
    assert_eq!(house.refused(Operation::Refund, &intent, None, "d").await, OperationRefusal::NothingLeftToRefund);
    // The key that did it gives the same attempt again, now that nothing is left; with other content it is refused.
    assert_eq!(house.operate(Operation::Refund, &intent, None, "c").await.unwrap().id, rest.id);
    assert_eq!(house.refused(Operation::Refund, &intent, Some(1), "c").await, OperationRefusal::SameKeyOtherContent);
    assert_eq!(house.refused(Operation::Refund, &intent, None, "a b").await, OperationRefusal::BadKey);
    assert_eq!(house.bank_saw(), [Did::Charged, Did::Refunded, Did::Refunded]);
    let transfers = house.store.transfers().await.unwrap();
    let books = ledger::verify(&transfers).unwrap();
    let b = books.balances()[&ledger::AccountName::acquirer("sandbox", Currency::Usd)];
    assert_eq!((b.debits_posted, b.credits_posted, b.credits_pending), (1999, 1999, 0));
    assert_eq!(house.request_status(&intent).await, (RequestStatus::Paid, true), "paid stays paid");
    assert_eq!(
        house.topics().await[1..],
        ["payment.succeeded", "refund.submitted", "refund.succeeded", "refund.submitted", "refund.succeeded"]
    );
}

#[tokio::test]
async fn simultaneous_refunds_never_exceed_what_was_captured() {
    let house = House::build().await;
    let intent = house.charge("4111111111111111").await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40 {
        let (processor, intent) = (house.processor.clone(), intent.clone());
        tasks.spawn(async move {
            let key = format!("r{}", n % 20); // each twice
            let (by, why) = ("test".into(), String::new());
            let amount = Some(usd(300));
            let order = OperationOrder { key, intent, operation: Operation::Refund, amount, by, why };
            processor.operate(order).await.is_ok()
        });
    }
    let taken = tasks.join_all().await.into_iter().filter(|ok| *ok).count();
    house.processor.run_once().await.unwrap();
    let b = house.store.payment(&intent).await.unwrap().unwrap().balance();
    assert_eq!((b.refunded, b.refundable()), (1800, 199));
    assert!((6..=12).contains(&taken), "six refunds fit, each key asked twice: {taken}");
}

#[tokio::test]
async fn a_refund_that_is_declined_or_lost_counts_only_as_long_as_it_may_have_happened() {
    let house = House::build().await;
    let intent = house.charge("4000000000007726").await;
    let refund = house.operate(Operation::Refund, &intent, None, "a").await.unwrap();
    assert!(matches!(refund.state, AttemptState::Declined { .. }));
    assert_eq!(house.store.payment(&intent).await.unwrap().unwrap().balance().refundable(), 1999);
    let house = House::build().await;
    let intent = house.charge("4000000000000093").await;
    let refund = house.operate(Operation::Refund, &intent, Some(1500), "a").await.unwrap();
    assert!(matches!(refund.state, AttemptState::NeedsReconciliation { .. }));
    assert!(matches!(house.refused(Operation::Refund, &intent, Some(500), "b").await, OperationRefusal::OverWhatIsLeft { .. }));
    house.later().await;
    assert!(house.processor.operation(&refund.id, Duration::ZERO).await.unwrap().state.done());
    assert_eq!(house.books().await, (1999, 0));
}

#[tokio::test]
async fn an_authorisation_is_captured_in_part_and_the_rest_released() {
    let house = House::build().await;
    let intent = house.authorise("4111111111111111").await;
    assert_eq!((house.outcome(&intent).await, house.books().await), (Outcome::Authorised, (0, 1999)));
    assert_eq!(house.request_status(&intent).await, (RequestStatus::Open, true), "held");
    assert_eq!(house.refused(Operation::Refund, &intent, None, "r").await, OperationRefusal::NothingCaptured);
    assert!(matches!(house.refused(Operation::Capture, &intent, Some(2000), "c").await, OperationRefusal::OverWhatIsLeft { .. }));
    let capture = house.operate(Operation::Capture, &intent, Some(1200), "c").await.unwrap();
    assert!(capture.state.done());
    let Outcome::Paid(receipt) = house.outcome(&intent).await else { panic!("not paid") };
    assert_eq!((receipt.amount, house.books().await), (usd(1200), (1200, 0)));
    assert_eq!(house.request_status(&intent).await, (RequestStatus::Paid, true));
    assert_eq!(house.refused(Operation::Void, &intent, None, "v").await, OperationRefusal::AlreadyEnded);
    let refund = house.operate(Operation::Refund, &intent, None, "r").await.unwrap();
    assert_eq!((refund.amount, refund.state.done()), (usd(1200), true));
    assert_eq!(house.bank_saw(), [Did::Authorised, Did::Captured, Did::Refunded]);
}

#[tokio::test]
async fn an_authorisation_is_voided_by_command_or_when_its_time_has_run_out() {
    let house = House::build().await;
    let by_command = house.authorise("4111111111111111").await;
    assert!(house.operate(Operation::Void, &by_command, None, "v").await.unwrap().state.done());
    assert_eq!(house.standing(&by_command).await, Standing::Voided);
    assert_eq!(house.request_status(&by_command).await, (RequestStatus::Open, false));
    let forgotten = house.authorise("5555555555554444").await;
    house.clock.advance(Duration::from_secs(6 * 24 * 3600 - 1));
    house.processor.run_once().await.unwrap();
    assert_eq!(house.standing(&forgotten).await, Standing::Authorised);
    house.clock.advance(Duration::from_secs(1));
    assert!(matches!(
        house.refused(Operation::Capture, &forgotten, None, "c").await,
        OperationRefusal::AuthorisationExpired { .. }
    ));
    house.processor.run_once().await.unwrap();
    assert_eq!(house.standing(&forgotten).await, Standing::Expired);
    assert_eq!(house.books().await, (0, 0));
    assert_eq!(house.bank_saw(), [Did::Authorised, Did::Voided, Did::Authorised, Did::Voided]);
}

#[tokio::test]
async fn an_authorisation_that_the_acquirer_does_not_give_back_waits_for_a_person() {
    let approved = || BankWord::Approved { charged: usd(1999), gateway_reference: "a-1".into() };
    let refused = || BankWord::Declined(DeclineReason::Other);
    let (house, wire) = takes_back::house(&[approved(), refused(), refused(), refused(), approved()]).await;
    let intent = house.authorise("4111111111111111").await;
    house.clock.advance(Duration::from_secs(6 * 24 * 3600));
    for _ in 0..5 {
        house.processor.run_once().await.unwrap();
        house.clock.advance(Duration::from_secs(60));
    }
    assert_eq!(wire.asked().len(), 4, "the authorisation, and three voids");
    let queue = || async { house.store.conflicts(9).await.unwrap().into_iter().map(|p| p.intent.id).collect::<Vec<_>>() };
    assert_eq!(queue().await, std::slice::from_ref(&intent));
    assert!(house.operate(Operation::Void, &intent, None, "by-hand").await.unwrap().state.done());
    assert!(queue().await.is_empty());
    assert_eq!((house.standing(&intent).await, house.books().await), (Standing::Expired, (0, 0)));
}

#[tokio::test]
async fn a_capture_that_is_declined_leaves_the_authorisation() {
    let house = House::build().await;
    let intent = house.authorise("4000000000003220").await;
    let capture = house.operate(Operation::Capture, &intent, None, "c").await.unwrap();
    assert!(matches!(capture.state, AttemptState::Declined { .. }));
    assert_eq!((house.standing(&intent).await, house.books().await), (Standing::Authorised, (0, 1999)));
    assert!(house.operate(Operation::Void, &intent, None, "v").await.unwrap().state.done());
}

#[tokio::test]
async fn a_conflict_waits_for_a_person_who_decides_once() {
    for (done, standing, books) in [(true, Standing::Paid, (1999, 0)), (false, Standing::Failed, (0, 0))] {
        let house = House::build().await;
        let intent = house.charge("4000000000000127").await;
        assert_eq!(house.standing(&intent).await, Standing::Conflicted);
        let queue = house.store.conflicts(9).await.unwrap();
        assert_eq!(queue.iter().map(|p| &p.intent.id).collect::<Vec<_>>(), [&intent]);
        house.processor.resolve(&intent, done, "ann", "asked the bank").await.unwrap();
        assert_eq!((house.standing(&intent).await, house.books().await), (standing, books));
        assert!(house.store.conflicts(9).await.unwrap().is_empty());
        let again = house.processor.resolve(&intent, done, "ann", "again").await;
        assert!(matches!(again, Err(OperateError::Transition(TransitionError::NoConflict))), "{again:?}");
        let trail = house.store.audit_trail(9).await.unwrap();
        let row = trail.iter().find(|a| a.action == "conflict.resolved").unwrap();
        assert_eq!((row.actor.as_str(), row.detail["why"].as_str()), ("ann", Some("asked the bank")));
    }
}

#[tokio::test]
async fn a_dispute_holds_money_back_until_it_is_decided() {
    let house = House::build().await;
    let intent = house.charge("4111111111111111").await;
    let p = &house.processor;
    let opened = p.open_dispute(&intent, "dp_1", Some(usd(1500)), "fraud", "test").await.unwrap();
    assert_eq!(p.open_dispute(&intent, "dp_1", None, "fraud", "test").await.unwrap(), opened, "the same again");
    assert_eq!(house.standing(&intent).await, Standing::Disputed);
    assert!(matches!(house.refused(Operation::Refund, &intent, Some(500), "r").await, OperationRefusal::OverWhatIsLeft { .. }));
    assert!(p.open_dispute(&intent, "dp_2", Some(usd(500)), "fraud", "test").await.is_err(), "more than is left");
    assert!(p.open_dispute(&intent, "dp_1", Some(usd(1)), "fraud", "test").await.is_err(), "another amount");
    assert!(p.open_dispute(&intent, "", None, "fraud", "test").await.is_err());
    let won = p.close_dispute("dp_1", true, "test").await.unwrap();
    assert!(matches!(won.state, DisputeState::Won { .. }));
    assert_eq!(p.close_dispute("dp_1", true, "test").await.unwrap(), won);
    assert!(p.close_dispute("dp_1", false, "test").await.is_err(), "a decision does not change");
    assert_eq!((house.standing(&intent).await, house.books().await), (Standing::Paid, (1999, 0)));
    p.open_dispute(&intent, "dp_3", None, "never delivered", "test").await.unwrap();
    p.close_dispute("dp_3", false, "test").await.unwrap();
    assert_eq!(house.standing(&intent).await, Standing::ChargedBack);
    let transfers = house.store.transfers().await.unwrap();
    let books = ledger::verify(&transfers).unwrap();
    let b = books.balances()[&ledger::AccountName::acquirer("sandbox", Currency::Usd)];
    assert_eq!((b.debits_posted, b.credits_posted, b.credits_pending), (1999, 1999, 0));
}

#[tokio::test]
async fn what_the_acquirer_tells_unasked_is_judged_like_an_answer() {
    let house = House::build().await;
    let intent = house.charge("4000000000000119").await;
    let attempt = house.store.payment(&intent).await.unwrap().unwrap().attempts.remove(0);
    let word = crate::payment::BankWord::Approved { charged: usd(1999), gateway_reference: "webhook".into() };
    for _ in 0..3 {
        house.processor.hear(&attempt.id, word.clone()).await.unwrap();
    }
    assert!(matches!(house.outcome(&intent).await, Outcome::Paid(_)));
    assert_eq!(house.books().await, (1999, 0));
    let found = house.store.payment_by_gateway_reference("webhook").await.unwrap().unwrap();
    assert_eq!(found.intent.id, intent);
}

#[tokio::test]
async fn the_check_finds_what_does_not_fit() {
    let house = House::build().await;
    let intent = house.charge("4111111111111111").await;
    house.operate(Operation::Refund, &intent, Some(500), "a").await.unwrap();
    assert_eq!(house.books().await, (1999, 0));
    let good = house.store.payment(&intent).await.unwrap().unwrap();
    assert!(check::payment_findings(&good).is_empty());
    let broken = |change: &dyn Fn(&mut crate::store::Payment)| {
        let mut p = good.clone();
        change(&mut p);
        check::payment_findings(&p).len()
    };
    assert!(broken(&|p| drop(p.transfers.pop())) > 0, "a row is missing");
    assert!(broken(&|p| drop(p.attempts.pop())) > 0, "an attempt is missing");
    assert!(broken(&|p| p.receipt = None) > 0, "no receipt");
    assert!(broken(&|p| p.intent.status = IntentStatus::Failed) > 0, "another status");
    assert!(broken(&|p| p.attempts[1].amount = usd(501)) > 0, "another amount");
    assert!(broken(&|p| p.transfers[1].amount = usd(1)) > 0, "another posting");
}
