//! Yes and no by link, and by an operator in somebody's place.

use super::*;
use crate::payment::{Approval, ApprovalError, ApprovalState, Role};
use crate::store::papers;

const HOUR: Duration = Duration::from_secs(3600);

impl House {
    /// Ann has said yes to 19.99, and Bob was asked.
    async fn bob_is_asked(&self) -> Approval {
        self.agreements.add_supervision(&self.ann, &self.bob, BTreeMap::new(), "test").await.unwrap();
        let (request, card) = (self.asked_by(&self.water, 1999).await, self.card(VISA).await);
        let Agreed::Waiting { approval, .. } = self.says_yes(&self.order(&request, &card)).await else { panic!("does not wait") };
        papers::read(&*self.store, approval.as_str()).await.unwrap().unwrap()
    }

    async fn by_link(&self, token: &str, yes: bool) -> Result<Decided, AgreeError> {
        let (id, who) = self.agreements.open_link(token).unwrap();
        self.agreements.decide(&id, &who, yes, How::Link).await
    }
}

#[tokio::test]
async fn a_link_answers_once_and_for_one_person() {
    let house = House::build().await;
    let approval = house.bob_is_asked().await;
    let token = house.agreements.link(&approval.id, &house.bob, approval.expires_at);
    charged(house.by_link(&token, true).await.unwrap().charged.unwrap());
    let again = house.by_link(&token, false).await;
    assert!(matches!(again, Err(AgreeError::Approval(ApprovalError::Over("used")))), "{again:?}");
    // One that names somebody who was not asked answers nothing, though we signed it.
    let stranger = house.agreements.link(&approval.id, &house.ann, approval.expires_at);
    assert!(house.by_link(&stranger, true).await.is_err());
    house.settle().await;
    assert_eq!(house.charges_at_bank(), 1);
}

#[tokio::test]
async fn a_link_that_was_altered_or_is_over_says_nothing() {
    let house = House::build().await;
    let approval = house.bob_is_asked().await;
    let token = house.agreements.link(&approval.id, &house.bob, START.plus(HOUR));
    assert_eq!(house.agreements.open_link(&token), Ok((approval.id.clone(), house.bob.clone())));
    for place in 0..token.len() {
        let mut altered = token.clone().into_bytes();
        altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        assert_eq!(house.agreements.open_link(&altered), Err(LinkError::Forged), "altered at {place}");
    }
    for other in ["", "QQ", &token[1..], &format!("{token}AAAA"), &"A".repeat(10_000)] {
        assert_eq!(house.agreements.open_link(other), Err(LinkError::Forged));
    }
    house.clock.advance(HOUR - Duration::from_millis(1));
    assert!(house.agreements.open_link(&token).is_ok());
    house.clock.advance(Duration::from_millis(1));
    assert_eq!(house.agreements.open_link(&token), Err(LinkError::Expired));
}

#[tokio::test]
async fn an_operators_word_in_somebodys_place_is_on_record_with_name_and_reason() {
    let house = House::build().await;
    let approval = house.bob_is_asked().await;
    let how = How::Override { by: "olga".into(), with: None, why: "ticket 4711".into() };
    // Saying no for somebody takes one operator, saying yes takes two.
    let alone = house.agreements.decide(&approval.id, &house.bob, true, how.clone()).await;
    assert!(matches!(alone, Err(AgreeError::Approval(ApprovalError::Alone))), "{alone:?}");
    let nobody = house.agreements.decide(&approval.id, &house.ann, false, how.clone()).await;
    assert!(matches!(nobody, Err(AgreeError::Approval(ApprovalError::NotAsked))), "the payer's own part is nobody else's");
    let none = house.agreements.decide(&ApprovalId::fresh(&*house.entropy), &house.bob, false, how.clone()).await;
    assert!(matches!(none, Err(AgreeError::NoSuch("approval"))));
    let decided = house.agreements.decide(&approval.id, &house.bob, false, how).await.unwrap();
    assert_eq!(decided.approval.state, ApprovalState::Denied { by: Role::Supervisor });
    let trail = house.store.audit_trail(100).await.unwrap();
    let row = trail.iter().find(|row| row.action == "approval.denied").unwrap();
    assert_eq!((row.actor.as_str(), row.subject.as_str()), ("operator olga", approval.id.as_str()));
    let said = serde_json::json!({ "for": house.bob, "how": "override", "by": "olga", "with": null, "why": "ticket 4711" });
    assert_eq!(row.detail["said"], said);
    // The reason is for the trail, not for the outside.
    for news in house.store.outbox_waiting(100).await.unwrap() {
        assert!(!news.payload.to_string().contains("4711"), "{news:?}");
    }
}
