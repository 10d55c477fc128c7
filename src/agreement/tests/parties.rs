//! System 8: the payer's part and a supervisor's, in either order, and everything that ends an approval.

use super::*;
use crate::ids::SupervisionId;
use crate::payment::supervisor::SupervisionError;
use crate::payment::{Approval, ApprovalError, ApprovalState, Role};
use crate::store::{Document, PaperKind, SubmitRefusal, papers};

const DAY: Duration = Duration::from_secs(24 * 3600);

impl House {
    /// Bob has to agree to each of Ann's payments.
    async fn supervised(&self) -> SupervisionId {
        self.agreements.add_supervision(&self.ann, &self.bob, BTreeMap::new(), "test").await.unwrap().id
    }

    /// Ann has said yes, and Bob has said nothing: what waits for him.
    async fn waiting(&self, order: &ChargeOrder) -> ApprovalId {
        match self.says_yes(order).await {
            Agreed::Waiting { approval, for_whom } => {
                assert_eq!(for_whom, [Role::Supervisor]);
                approval
            }
            other => panic!("does not wait: {other:?}"),
        }
    }

    async fn bob_says(&self, id: &ApprovalId, yes: bool) -> Result<Decided, AgreeError> {
        let how = How::Voice { call: CallId::fresh(&*self.entropy), evidence: Box::default() };
        self.agreements.decide(id, &self.bob, yes, how).await
    }

    async fn state(&self, id: &ApprovalId) -> ApprovalState {
        papers::read::<Approval>(&*self.store, id.as_str()).await.unwrap().unwrap().state
    }

    async fn approvals(&self) -> usize {
        self.store.papers_after(PaperKind::Approval, "", 100).await.unwrap().len()
    }

    /// Nothing was charged, and nothing is about to be, however often it is looked at.
    async fn nothing_happens(&self) {
        self.agreements.sweep().await.unwrap();
        self.settle().await;
        assert_eq!((self.payments().await, self.charges_at_bank()), (0, 0));
    }

    async fn one_charge(&self) {
        self.agreements.sweep().await.unwrap();
        self.settle().await;
        assert_eq!((self.payments().await, self.charges_at_bank()), (1, 1));
    }
}

fn why(result: Result<Decided, AgreeError>) -> ApprovalError {
    match result {
        Err(AgreeError::Approval(why)) => why,
        other => panic!("not refused by the approval: {other:?}"),
    }
}

#[tokio::test]
async fn the_payer_first_and_then_the_supervisor_is_one_charge() {
    let house = House::build().await;
    house.supervised().await;
    let (request, card) = (house.asked_by(&house.water, 1999).await, house.card(VISA).await);
    let order = house.order(&request, &card);
    let id = house.waiting(&order).await;
    house.nothing_happens().await;
    let decided = house.bob_says(&id, true).await.unwrap();
    let intent = charged(decided.charged.unwrap());
    assert_eq!(house.state(&id).await, ApprovalState::Used { intent: intent.clone() });
    house.one_charge().await;
    assert_eq!(house.store.payment(&intent).await.unwrap().unwrap().intent.occasion, order.occasion);
}

#[tokio::test]
async fn the_supervisor_first_and_then_the_payer_is_one_charge() {
    let house = House::build().await;
    house.supervised().await;
    let (request, card) = (house.asked_by(&house.water, 1999).await, house.card(VISA).await);
    let asked = house.agreements.request_approval(&request).await.unwrap().unwrap();
    let decided = house.bob_says(&asked.id, true).await.unwrap();
    assert!(decided.charged.is_none(), "the payer has said nothing");
    house.nothing_happens().await;
    let intent = charged(house.says_yes(&house.order(&request, &card)).await);
    assert_eq!(house.state(&asked.id).await, ApprovalState::Used { intent });
    house.one_charge().await;
}

#[tokio::test]
async fn one_side_only_is_no_payment_and_expires() {
    for payer in [true, false] {
        let house = House::build().await;
        house.supervised().await;
        let (request, card) = (house.asked_by(&house.water, 1999).await, house.card(VISA).await);
        let id = if payer {
            house.waiting(&house.order(&request, &card)).await
        } else {
            let id = house.agreements.request_approval(&request).await.unwrap().unwrap().id;
            house.bob_says(&id, true).await.unwrap();
            id
        };
        house.clock.advance(DAY - Duration::from_millis(1));
        house.nothing_happens().await;
        assert_eq!(house.state(&id).await, ApprovalState::Open);
        house.clock.advance(Duration::from_millis(1));
        // Too late, though nobody has looked yet.
        assert_eq!(why(house.bob_says(&id, !payer).await), ApprovalError::Expired);
        house.nothing_happens().await;
        assert_eq!(house.state(&id).await, ApprovalState::Expired);
        assert_eq!(why(house.bob_says(&id, true).await), ApprovalError::Over("expired"));
        assert!(house.heard().await.contains(&"approval.expired".to_owned()));
        house.nothing_happens().await;
    }
}

#[tokio::test]
async fn a_no_ends_it_for_good() {
    let house = House::build().await;
    house.supervised().await;
    let (request, card) = (house.asked_by(&house.water, 1999).await, house.card(VISA).await);
    let id = house.waiting(&house.order(&request, &card)).await;
    house.bob_says(&id, false).await.unwrap();
    assert_eq!(house.state(&id).await, ApprovalState::Denied { by: Role::Supervisor });
    assert_eq!(why(house.bob_says(&id, true).await), ApprovalError::Over("denied"));
    assert!(house.heard().await.contains(&"approval.denied".to_owned()));
    house.nothing_happens().await;
}

#[tokio::test]
async fn a_yes_that_came_before_a_no_of_the_same_person_stands() {
    let house = House::build().await;
    house.supervised().await;
    let request = house.asked_by(&house.water, 1999).await;
    let id = house.agreements.request_approval(&request).await.unwrap().unwrap().id;
    house.bob_says(&id, true).await.unwrap();
    assert_eq!(why(house.bob_says(&id, false).await), ApprovalError::Answered);
    let before = house.heard().await.len();
    house.bob_says(&id, true).await.unwrap();
    assert_eq!(house.heard().await.len(), before, "the same answer once more is no news");
}

#[tokio::test]
async fn a_payer_is_not_their_own_supervisor() {
    let house = House::build().await;
    let own = house.agreements.add_supervision(&house.ann, &house.ann, BTreeMap::new(), "test").await;
    assert!(matches!(own, Err(super::super::guarding::GuardingError::Supervision(SupervisionError::Oneself))), "{own:?}");
    house.supervised().await;
    let (request, card) = (house.asked_by(&house.water, 1999).await, house.card(VISA).await);
    let id = house.waiting(&house.order(&request, &card)).await;
    let how = How::Link;
    assert_eq!(why(house.agreements.decide(&id, &house.ann, true, how).await), ApprovalError::NotAsked);
    house.nothing_happens().await;
}

#[tokio::test]
async fn an_approval_is_for_the_amount_that_was_agreed_to() {
    for supervisor_first in [true, false] {
        let house = House::build().await;
        house.supervised().await;
        let (request, card) = (house.asked_by(&house.water, 1999).await, house.card(VISA).await);
        let id = if supervisor_first {
            let id = house.agreements.request_approval(&request).await.unwrap().unwrap().id;
            house.bob_says(&id, true).await.unwrap();
            id
        } else {
            house.waiting(&house.order(&request, &card)).await
        };
        house.change_amount(&request.id, 2999).await;
        if supervisor_first {
            let now_asked = PaymentRequest { amount: usd(2999), ..request.clone() };
            let id = house.waiting(&house.order(&now_asked, &card)).await;
            assert_eq!(house.state(&id).await, ApprovalState::Open, "asked anew");
        } else {
            let came_to = house.bob_says(&id, true).await.unwrap().charged.unwrap();
            assert_eq!(refused(came_to), Refusal::Submit(SubmitRefusal::ApprovalGone));
        }
        assert_eq!(house.state(&id).await, ApprovalState::Cancelled);
        house.nothing_happens().await;
    }
}

impl House {
    /// Behind the store's back: no part of the service changes an amount that is asked.
    async fn change_amount(&self, request: &RequestId, minor: i64) {
        use sqlx::Connection;
        let path = self.dir.path().join("v.db");
        let mut conn = sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
        let changed = sqlx::query("UPDATE requests SET amount_minor = ? WHERE id = ?").bind(minor).bind(request.as_str());
        assert_eq!(changed.execute(&mut conn).await.unwrap().rows_affected(), 1);
    }
}

#[tokio::test]
async fn a_supervisor_who_withdraws_takes_what_is_open_along() {
    for agreed in [true, false] {
        let house = House::build().await;
        let supervision = house.supervised().await;
        let (request, card) = (house.asked_by(&house.water, 1999).await, house.card(VISA).await);
        let id = if agreed {
            let id = house.agreements.request_approval(&request).await.unwrap().unwrap().id;
            house.bob_says(&id, true).await.unwrap();
            id
        } else {
            house.waiting(&house.order(&request, &card)).await
        };
        house.agreements.withdraw_supervision(&supervision, "test").await.unwrap();
        assert_eq!(house.state(&id).await, ApprovalState::Withdrawn { by: Role::Supervisor });
        assert_eq!(why(house.bob_says(&id, true).await), ApprovalError::Over("withdrawn"));
        house.nothing_happens().await;
    }
}

#[tokio::test]
async fn nothing_follows_a_cancellation() {
    let house = House::build().await;
    house.supervised().await;
    let card = house.card(VISA).await;
    // The approval is taken back.
    let request = house.asked_by(&house.water, 1999).await;
    let id = house.waiting(&house.order(&request, &card)).await;
    house.agreements.cancel(&id, "test").await.unwrap();
    assert_eq!(why(house.bob_says(&id, true).await), ApprovalError::Over("cancelled"));
    assert!(matches!(house.agreements.cancel(&id, "test").await, Err(AgreeError::Approval(ApprovalError::Over(_)))));
    // The payee takes the request back: those who were asked are asked no more, and hear of it.
    let request = house.asked_by(&house.water, 1999).await;
    let id = house.waiting(&house.order(&request, &card)).await;
    house.agreements.cancel_request(&request.id, "payee").await.unwrap();
    assert_eq!(house.state(&id).await, ApprovalState::Cancelled);
    assert_eq!(why(house.bob_says(&id, true).await), ApprovalError::Over("cancelled"));
    let trail = house.store.audit_trail(1_000).await.unwrap();
    let by_payee: Vec<_> = trail.iter().filter(|r| r.actor == "payee").map(|r| (r.action.as_str(), r.subject.as_str())).collect();
    assert!(
        by_payee.contains(&("request.cancelled", request.id.as_str())) && by_payee.contains(&("approval.cancelled", id.as_str()))
    );
    assert!(house.agreements.cancel_request(&request.id, "payee").await.is_err(), "once");
    house.agreements.end_approvals_of(&request.id, "payee").await.unwrap();
    // And in a moment when nobody could be told: what they say then comes to nothing.
    let request = house.asked_by(&house.water, 1999).await;
    let id = house.waiting(&house.order(&request, &card)).await;
    house.store.cancel_request(&request.id, &[], &[house.audit()], &[]).await.unwrap();
    let came_to = house.bob_says(&id, true).await.unwrap().charged.unwrap();
    assert!(matches!(refused(came_to), Refusal::Submit(SubmitRefusal::Request(_))));
    assert_eq!(house.state(&id).await, ApprovalState::Cancelled);
    house.nothing_happens().await;
}

#[tokio::test]
async fn last_words_that_come_at_once_are_one_charge() {
    let house = Arc::new(House::build().await);
    house.supervised().await;
    let (request, card) = (house.asked_by(&house.water, 1999).await, house.card(VISA).await);
    let order = house.order(&request, &card);
    let id = house.agreements.request_approval(&request).await.unwrap().unwrap().id;
    let mut words = Vec::new();
    for n in 0..8 {
        let (house, order, id) = (house.clone(), order.clone(), id.clone());
        words.push(tokio::spawn(async move {
            if n % 2 == 0 {
                let _ = house.bob_says(&id, true).await;
            } else {
                let _ = house.agreements.agree(order, BTreeSet::new(), Asking::call(Attested::Vouched)).await;
            }
        }));
    }
    for word in words {
        word.await.unwrap();
    }
    house.one_charge().await;
    assert!(matches!(house.state(&id).await, ApprovalState::Used { .. }));
}

#[tokio::test]
async fn what_everybody_agreed_to_is_charged_by_the_sweep_where_a_process_died() {
    let house = House::build().await;
    house.supervised().await;
    let (request, card) = (house.asked_by(&house.water, 1999).await, house.card(VISA).await);
    let id = house.waiting(&house.order(&request, &card)).await;
    // Bob's yes was written, and then the process died: only the row is there.
    let before: Approval = papers::read(&*house.store, id.as_str()).await.unwrap().unwrap();
    let said = crate::payment::approval::Said { yes: true, at: START, how: How::Link };
    let after = before.step(START, crate::payment::ApprovalEvent::Said { who: house.bob.clone(), said }).unwrap();
    assert_eq!(after.state, ApprovalState::Agreed);
    house.store.write_papers(&[after.paper().unwrap()], &[], &[house.audit()], &[]).await.unwrap();
    let swept = house.agreements.sweep().await.unwrap();
    assert_eq!((swept.charged, swept.expired), (1, 0));
    house.one_charge().await;
    assert!(matches!(house.state(&id).await, ApprovalState::Used { .. }));
    assert_eq!(house.agreements.sweep().await.unwrap(), Swept::default());
}

#[tokio::test]
async fn the_same_yes_once_more_comes_to_the_same_payment() {
    let house = House::build().await;
    house.supervised().await;
    let (request, card) = (house.asked_by(&house.water, 1999).await, house.card(VISA).await);
    let order = house.order(&request, &card);
    let id = house.waiting(&order).await;
    assert_eq!(house.waiting(&order).await, id);
    let intent = charged(house.bob_says(&id, true).await.unwrap().charged.unwrap());
    // The call's answer was lost: it asks again, before and after the acquirer has answered.
    assert_eq!(charged(house.says_yes(&order).await), intent);
    house.one_charge().await;
    assert_eq!(charged(house.says_yes(&order).await), intent);
    assert_eq!(house.approvals().await, 1, "nobody is asked to agree to what is paid");
    // Another call of hers comes too late.
    let late = refused(house.says_yes(&house.order(&request, &card)).await);
    assert!(matches!(late, Refusal::Submit(SubmitRefusal::Request(_))), "{late:?}");
    assert_eq!(house.approvals().await, 1);
}

#[tokio::test]
async fn the_same_yes_once_more_is_not_counted_against_the_days_limit() {
    let house = House::build().await;
    let card = house.card(VISA).await;
    let rules = crate::payment::policy::DEFAULT.replace("USD = \"2000.00\"", "USD = \"40.00\"");
    house.agreements.set_policy(Policy::from_toml(&rules).unwrap());
    let order = house.order(&house.asked_by(&house.water, 3_000).await, &card);
    let intent = charged(house.says_yes(&order).await);
    assert_eq!(charged(house.says_yes(&order).await), intent);
    let second = house.order(&house.asked_by(&house.power, 3_000).await, &card);
    assert_eq!(refused(house.says_yes(&second).await), Refusal::Denied("day".into()), "another one does count");
    assert_eq!(house.payments().await, 1);
}

#[tokio::test]
async fn whoever_is_named_after_the_others_agreed_has_to_agree_too() {
    let house = House::build().await;
    house.supervised().await;
    let (request, card) = (house.asked_by(&house.water, 1999).await, house.card(VISA).await);
    let id = house.waiting(&house.order(&request, &card)).await;
    let carl = CustomerId::fresh(&*house.entropy);
    house.customer(&carl, "777777", "+442079460960").await;
    house.agreements.add_supervision(&house.ann, &carl, BTreeMap::new(), "test").await.unwrap();
    // Bob agrees, but nobody has asked Carl: this approval ends, and a new one asks both.
    let came_to = house.bob_says(&id, true).await.unwrap().charged.unwrap();
    assert_eq!(refused(came_to), Refusal::Submit(SubmitRefusal::ApprovalGone));
    assert_eq!(house.state(&id).await, ApprovalState::Cancelled);
    house.nothing_happens().await;
    let Agreed::Waiting { approval, for_whom } = house.says_yes(&house.order(&request, &card)).await else { panic!("paid") };
    assert_eq!(for_whom, [Role::Supervisor, Role::Supervisor]);
    assert!(house.bob_says(&approval, true).await.unwrap().charged.is_none());
    house.nothing_happens().await;
    let last = house.agreements.decide(&approval, &carl, true, How::Link).await.unwrap();
    charged(last.charged.unwrap());
    house.one_charge().await;
}

#[tokio::test]
async fn a_yes_to_another_amount_or_of_another_customer_opens_nothing() {
    let house = House::build().await;
    house.supervised().await;
    let (request, card) = (house.asked_by(&house.water, 1999).await, house.card(VISA).await);
    let order = house.order(&request, &card);
    let other_amount = ChargeOrder { amount: usd(2000), ..order.clone() };
    assert_eq!(refused(house.says_yes(&other_amount).await), Refusal::Submit(SubmitRefusal::OtherAmount));
    let other_customer = ChargeOrder { customer: house.bob.clone(), ..order };
    assert_eq!(refused(house.says_yes(&other_customer).await), Refusal::Submit(SubmitRefusal::NoSuchRequest));
    assert_eq!(house.approvals().await, 0);
}
