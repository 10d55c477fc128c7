//! After a no: it stands until it is appealed against, once; and two operators may speak in somebody's place.

use super::*;
use crate::payment::{Approval, ApprovalError, ApprovalState, Role};
use crate::store::{Document, papers};

fn because(error: AgreeError) -> ApprovalError {
    match error {
        AgreeError::Approval(why) => why,
        other => panic!("not refused by the approval: {other:?}"),
    }
}

impl House {
    /// Ann wants to pay, and Bob has said no.
    async fn denied(&self) -> (PaymentRequest, ApprovalId, CardId) {
        self.agreements.add_supervision(&self.ann, &self.bob, BTreeMap::new(), "test").await.unwrap();
        let (request, card) = (self.asked_by(&self.water, 1999).await, self.card(VISA).await);
        let Agreed::Waiting { approval, .. } = self.says_yes(&self.order(&request, &card)).await else { panic!("paid") };
        self.agreements.decide(&approval, &self.bob, false, How::Link).await.unwrap();
        (request, approval, card)
    }

    async fn approval(&self, id: &ApprovalId) -> Approval {
        papers::read(&*self.store, id.as_str()).await.unwrap().unwrap()
    }

    async fn actions(&self) -> Vec<String> {
        self.store.audit_trail(1_000).await.unwrap().into_iter().map(|row| row.action).collect()
    }
}

#[tokio::test]
async fn a_no_stands_however_often_the_payer_asks() {
    let house = House::build().await;
    let (request, id, card) = house.denied().await;
    for _ in 0..3 {
        // Long after the approval's own time, too.
        house.clock.advance(Duration::from_secs(20 * 3600));
        let again = refused(house.says_yes(&house.order(&request, &card)).await);
        assert_eq!(again, Refusal::Denied("supervisor said no".into()));
    }
    assert_eq!(house.approval(&id).await.state, ApprovalState::Denied { by: Role::Supervisor });
    assert_eq!(house.heard().await.iter().filter(|t| *t == "approval.requested").count(), 1, "Bob is not asked again");
    assert_eq!(house.payments().await, 0);
}

#[tokio::test]
async fn an_appeal_asks_everybody_once_more_and_only_once() {
    let house = House::build().await;
    let (request, id, card) = house.denied().await;
    assert_eq!(because(house.agreements.appeal(&id, "ann", " ").await.unwrap_err()), ApprovalError::NoReason);
    let appeal = house.agreements.appeal(&id, "ann", "Bob mistook the payee").await.unwrap();
    assert_eq!((appeal.appeals.as_ref(), appeal.payer.as_ref()), (Some(&id), None), "her first yes was to the first one");
    assert_eq!(house.approval(&id).await.succeeded_by, Some(appeal.id.clone()));
    assert_eq!(because(house.agreements.appeal(&id, "ann", "again").await.unwrap_err()), ApprovalError::AppealedBefore);
    // Bob thinks better of it; without a yes of hers that is not enough.
    assert!(house.agreements.decide(&appeal.id, &house.bob, true, How::Link).await.unwrap().charged.is_none());
    assert_eq!(house.payments().await, 0);
    charged(house.says_yes(&house.order(&request, &card)).await);
    house.settle().await;
    assert_eq!((house.payments().await, house.charges_at_bank()), (1, 1));
    assert!(house.actions().await.contains(&"approval.appealed".to_owned()));
}

#[tokio::test]
async fn a_second_no_is_the_last_word() {
    let house = House::build().await;
    let (request, id, card) = house.denied().await;
    let appeal = house.agreements.appeal(&id, "ann", "Bob mistook the payee").await.unwrap().id;
    house.agreements.decide(&appeal, &house.bob, false, How::Link).await.unwrap();
    assert_eq!(because(house.agreements.appeal(&appeal, "ann", "please").await.unwrap_err()), ApprovalError::AppealedBefore);
    assert_eq!(refused(house.says_yes(&house.order(&request, &card)).await), Refusal::Denied("supervisor said no".into()));
    assert_eq!(house.payments().await, 0);
}

#[tokio::test]
async fn only_what_was_denied_can_be_appealed_against() {
    let house = House::build().await;
    let (request, id, _) = house.denied().await;
    house.store.cancel_request(&request.id, &[], &[house.audit()], &[]).await.unwrap();
    assert_eq!(because(house.agreements.appeal(&id, "ann", "please").await.unwrap_err()), ApprovalError::OtherThing);
    let other = house.asked_by(&house.power, 500).await;
    let open = house.agreements.request_approval(&other).await.unwrap().unwrap();
    assert_eq!(because(house.agreements.appeal(&open.id, "ann", "please").await.unwrap_err()), ApprovalError::NotDenied);
}

#[tokio::test]
async fn two_operators_may_speak_for_somebody_who_is_silent_and_it_is_written_down() {
    let house = House::build().await;
    house.agreements.add_supervision(&house.ann, &house.bob, BTreeMap::new(), "test").await.unwrap();
    let (request, card) = (house.asked_by(&house.water, 1999).await, house.card(VISA).await);
    let Agreed::Waiting { approval: id, .. } = house.says_yes(&house.order(&request, &card)).await else { panic!("paid") };
    let says = async |by: &str, with: Option<&str>, why: &str| {
        let how = How::Override { by: by.into(), with: with.map(Into::into), why: why.into() };
        house.agreements.decide(&id, &house.bob, true, how).await
    };
    for with in [None, Some(""), Some("Olga ")] {
        assert_eq!(because(says("olga", with, "Bob is in hospital").await.unwrap_err()), ApprovalError::Alone);
    }
    assert_eq!(because(says("", Some("pete"), "Bob is in hospital").await.unwrap_err()), ApprovalError::Alone);
    assert_eq!(because(says("olga", Some("pete"), " ").await.unwrap_err()), ApprovalError::NoReason);
    assert_eq!((house.payments().await, house.approval(&id).await.version), (0, 1), "nothing was changed");
    charged(says("olga", Some("pete"), "Bob is in hospital").await.unwrap().charged.unwrap());
    house.settle().await;
    assert_eq!((house.payments().await, house.charges_at_bank()), (1, 1));
    let rows = house.store.audit_trail(1_000).await.unwrap();
    let row = rows.into_iter().find(|r| r.action == "approval.agreed").unwrap();
    assert_eq!((row.actor.as_str(), row.subject.as_str()), ("operator olga", id.as_str()));
    let said = &row.detail["said"];
    assert_eq!((said["with"].as_str(), said["why"].as_str()), (Some("pete"), Some("Bob is in hospital")));
}

#[tokio::test]
async fn a_no_is_not_overridden_without_an_appeal() {
    let house = House::build().await;
    let (_, id, _) = house.denied().await;
    let how = How::Override { by: "olga".into(), with: Some("pete".into()), why: "she insists".into() };
    let tried = house.agreements.decide(&id, &house.bob, true, how).await.unwrap_err();
    assert_eq!(because(tried), ApprovalError::Over("denied"));
    assert_eq!(house.payments().await, 0);
}

#[tokio::test]
async fn a_link_that_is_followed_twice_comes_to_the_same_payment() {
    let house = House::build().await;
    house.agreements.add_supervision(&house.ann, &house.bob, BTreeMap::new(), "test").await.unwrap();
    let (request, card) = (house.asked_by(&house.water, 1999).await, house.card(VISA).await);
    let Agreed::Waiting { approval: id, .. } = house.says_yes(&house.order(&request, &card)).await else { panic!("paid") };
    let says = async |yes| house.agreements.decide(&id, &house.bob, yes, How::Link).await;
    let intent = charged(says(true).await.unwrap().charged.unwrap());
    assert_eq!(charged(says(true).await.unwrap().charged.unwrap()), intent);
    assert_eq!(because(says(false).await.unwrap_err()), ApprovalError::Over("used"));
    house.settle().await;
    assert_eq!((house.payments().await, house.charges_at_bank()), (1, 1));
}

#[tokio::test]
async fn one_approval_that_cannot_be_read_keeps_no_other_waiting() {
    let house = House::build().await;
    house.agreements.add_supervision(&house.ann, &house.bob, BTreeMap::new(), "test").await.unwrap();
    let open = async |payee| house.agreements.request_approval(&house.asked_by(payee, 500).await).await.unwrap().unwrap();
    let (damaged, sound) = (open(&house.water).await, open(&house.power).await);
    let body = crate::store::Paper { body: "{}".into(), version: 1, ..damaged.paper().unwrap() };
    house.store.write_papers(&[body], &[], &[house.audit()], &[]).await.unwrap();
    house.clock.advance(Duration::from_secs(25 * 3600));
    assert!(house.agreements.sweep().await.is_err(), "somebody has to hear of the damaged one");
    assert_eq!(house.approval(&sound.id).await.state, ApprovalState::Expired);
}
