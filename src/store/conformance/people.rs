//! Customers, cards, payees.

use super::{Bench, on_both};
use crate::clock::Timestamp;
use crate::e164::E164;
use crate::ids::{CustomerId, PayeeId};
use crate::store::{CardStatus, LookUp, Payee, StoreError};

on_both!(
    a_number_of_two_customers_nominates_nobody,
    a_deleted_customer_is_empty_and_takes_nothing_more,
    cards_are_blocked_and_revoked_for_good,
    payees_are_listed_without_their_recordings,
    a_customer_is_deleted_by_one_of_many_and_nothing_is_added_behind_it,
    one_of_many_adds_the_same_card,
    who_wants_more_time_has_it_until_they_do_not_or_are_gone,
);

async fn who_wants_more_time_has_it_until_they_do_not_or_are_gone(desk: Bench) {
    let (ann, bob) = (desk.customer("+442079460958", "111111").await, desk.customer("+442079460959", "222222").await);
    let wants = async |who: &CustomerId| desk.store.wants_more_time(who).await.unwrap();
    assert!(!wants(&ann).await);
    desk.store.set_more_time(&ann, true, &desk.audit()).await.unwrap();
    assert!(wants(&ann).await && !wants(&bob).await);
    desk.store.set_more_time(&ann, false, &desk.audit()).await.unwrap();
    assert!(!wants(&ann).await);
    desk.store.set_more_time(&bob, true, &desk.audit()).await.unwrap();
    desk.store.delete_customer(&bob, &desk.audit()).await.unwrap();
    assert!(!wants(&bob).await, "nothing is kept of who is gone");
    let late = desk.store.set_more_time(&bob, true, &desk.audit()).await;
    assert!(matches!(late, Err(StoreError::NotFound(_))), "{late:?}");
}

async fn a_number_of_two_customers_nominates_nobody(desk: Bench) {
    let number = E164::normalise("+442079460958", "").unwrap();
    assert_eq!(desk.store.customer_by_number(&number).await.unwrap(), LookUp::Nobody);
    let ann = desk.customer("+442079460958", "111111").await;
    assert!(matches!(desk.store.customer_by_number(&number).await.unwrap(), LookUp::One(c) if c.id == ann));
    let bob = desk.customer("+442079460958", "222222").await;
    assert_eq!(desk.store.customer_by_number(&number).await.unwrap(), LookUp::Shared);
    assert_eq!(desk.store.customer_by_customer_number("222222").await.unwrap().unwrap().id, bob);
    assert_eq!(desk.store.customers().await.unwrap().len(), 2);
    desk.store.delete_customer(&bob, &desk.audit()).await.unwrap();
    assert!(matches!(desk.store.customer_by_number(&number).await.unwrap(), LookUp::One(c) if c.id == ann));
    assert_eq!(desk.store.customer_by_customer_number("222222").await.unwrap(), None);
    assert_eq!(desk.store.customers().await.unwrap().len(), 1);
    let twin = desk.store.customer(&ann).await.unwrap().unwrap();
    let again = desk.store.add_customer(&twin, &desk.audit()).await;
    assert!(matches!(again, Err(StoreError::Exists(_))), "{again:?}");
}

async fn a_deleted_customer_is_empty_and_takes_nothing_more(desk: Bench) {
    let ann = desk.customer("+442079460958", "98765432").await;
    let card = desk.card(&ann, 7);
    desk.store.add_card(&card, &desk.audit()).await.unwrap();
    assert_eq!(desk.store.cards_of(&ann).await.unwrap(), std::slice::from_ref(&card));
    let twin = desk.card(&ann, 7);
    assert!(matches!(desk.store.add_card(&twin, &desk.audit()).await, Err(StoreError::Exists(_))));
    let invite = desk.invite(&ann, 1).await;
    desk.store.complete_enrolment(&desk.enrolment(&invite), &desk.audit()).await.unwrap();
    desk.store.delete_customer(&ann, &desk.audit()).await.unwrap();
    assert!(matches!(desk.store.delete_customer(&ann, &desk.audit()).await, Err(StoreError::NotFound(_))));
    assert_eq!(desk.store.template(&ann).await.unwrap(), None);
    let erased = desk.store.card(&card.id).await.unwrap().unwrap();
    assert_eq!((erased.status, erased.sealed.body.len(), erased.last4.as_str()), (CardStatus::Revoked, 0, "1111"));
    let left = desk.store.customer(&ann).await.unwrap().unwrap();
    assert_eq!((left.name.as_str(), left.customer_number.as_str(), left.numbers.len()), ("", "", 0));
    assert!(matches!(desk.store.add_card(&desk.card(&ann, 8), &desk.audit()).await, Err(StoreError::NotFound(_))));
    let late = desk.invite(&ann, 2).await;
    let refused = desk.store.complete_enrolment(&desk.enrolment(&late), &desk.audit()).await;
    assert!(matches!(refused, Err(StoreError::NotFound(_))), "{refused:?}");
}

async fn cards_are_blocked_and_revoked_for_good(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let card = desk.card(&ann, 7);
    desk.store.add_card(&card, &desk.audit()).await.unwrap();
    for status in [CardStatus::Blocked, CardStatus::Active, CardStatus::Revoked] {
        desk.store.set_card_status(&card.id, status, &desk.audit()).await.unwrap();
        assert_eq!(desk.store.card(&card.id).await.unwrap().unwrap().status, status);
    }
    let back = desk.store.set_card_status(&card.id, CardStatus::Active, &desk.audit()).await;
    assert!(matches!(back, Err(StoreError::NotFound(_))), "{back:?}");
    desk.store.add_card(&desk.card(&ann, 7), &desk.audit()).await.unwrap();
    assert_eq!(desk.store.cards_of(&ann).await.unwrap().len(), 2, "a revoked card's number may be added anew");
}

async fn payees_are_listed_without_their_recordings(desk: Bench) {
    let payee = Payee {
        tenant: crate::ids::Tenant::default(),
        category: None,
        id: PayeeId::fresh(&*desk.entropy),
        name: "Stadtwerke Köln".into(),
        spoken_name_wav: Some(vec![0, 1, 255]),
        created_at: Timestamp(1),
    };
    desk.store.add_payee(&payee, &desk.audit()).await.unwrap();
    assert_eq!(desk.store.payee(&payee.id).await.unwrap().unwrap(), payee);
    assert_eq!(desk.store.payees().await.unwrap(), [Payee { spoken_name_wav: None, ..payee.clone() }]);
    assert!(matches!(desk.store.add_payee(&payee, &desk.audit()).await, Err(StoreError::Exists(_))));
}

async fn a_customer_is_deleted_by_one_of_many_and_nothing_is_added_behind_it(desk: Bench) {
    for round in 0..8_u8 {
        let ann = desk.customer("+442079460958", &format!("55555{round}")).await;
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..25_u8 {
            let (store, ann, audit, card, invite) =
                (desk.store.clone(), ann.clone(), desk.audit(), desk.card(&ann, i), desk.fresh_invite(&ann));
            tasks.spawn(async move {
                match i % 5 {
                    0 => store.delete_customer(&ann, &audit).await.map(|()| "deleted"),
                    1 | 2 => store.add_card(&card, &audit).await.map(|()| "card"),
                    3 => store.use_challenge(&ann, &[i; 32], Timestamp(1)).await.map(|_| "challenge"),
                    _ => store.add_invite(&invite, &[i.wrapping_add(round * 25); 32], &audit).await.map(|()| "invite"),
                }
            });
        }
        let mut deleted = 0;
        while let Some(done) = tasks.join_next().await {
            match done.unwrap() {
                Ok("deleted") => deleted += 1,
                Ok(_) | Err(StoreError::NotFound(_)) => {}
                Err(e) => panic!("{e}"),
            }
        }
        assert_eq!(deleted, 1);
        let live = desk.store.cards_of(&ann).await.unwrap().into_iter().filter(|c| !c.sealed.body.is_empty()).count();
        assert_eq!(live, 0, "a sealed number outlived its customer");
        assert_eq!(desk.sql(&format!("DELETE FROM challenges WHERE customer_id = '{ann}'")).await.unwrap(), 0);
    }
}

async fn one_of_many_adds_the_same_card(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (store, card, audit) = (desk.store.clone(), desk.card(&ann, 7), desk.audit());
        tasks.spawn(async move { store.add_card(&card, &audit).await });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
    assert!(outcomes.iter().all(|o| matches!(o, Ok(()) | Err(StoreError::Exists(_)))), "{outcomes:?}");
    assert_eq!(desk.store.audit_trail(99).await.unwrap().len(), 2, "the refused ones left no trace");
}
