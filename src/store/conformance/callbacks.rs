//! Calls that we owe: each once, to one node at a time.

use std::time::Duration;

use super::{Bench, on_both};
use crate::clock::Timestamp;
use crate::ids::{ApprovalId, CallId, CallbackId, CustomerId, OutboxId, WorkerId};
use crate::store::{Callback, CallbackPurpose, CallbackState, NextTry, OutboxRecord, StoreError, Tried};

on_both!(
    the_same_call_is_owed_once,
    a_call_is_placed_by_one_node_and_comes_back_when_that_dies,
    what_became_of_a_try_is_written_by_whoever_has_the_lease,
    of_many_nodes_that_claim_at_once_none_gets_anothers,
    what_waits_for_nothing_is_ended_once_and_only_while_nobody_is_at_it,
);

fn owed(desk: &Bench, customer: &CustomerId, approval: &ApprovalId, due_at: i64) -> Callback {
    Callback {
        id: CallbackId::fresh(&*desk.entropy),
        approval: approval.clone(),
        customer: customer.clone(),
        purpose: CallbackPurpose::Decide,
        state: CallbackState::Waiting,
        tries: 0,
        due_at: Timestamp(due_at),
        expires_at: Timestamp(100_000),
        created_at: Timestamp(1),
        last_outcome: None,
        last_call: None,
    }
}

async fn the_same_call_is_owed_once(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let approval = ApprovalId::fresh(&*desk.entropy);
    let first = owed(&desk, &ann, &approval, 10);
    assert!(desk.store.add_callback(&first, &desk.audit()).await.unwrap());
    let trail = desk.store.audit_trail(100).await.unwrap().len();
    assert!(!desk.store.add_callback(&owed(&desk, &ann, &approval, 10), &desk.audit()).await.unwrap());
    assert_eq!(desk.store.audit_trail(100).await.unwrap().len(), trail, "nothing was written of the second");
    let tell = Callback { purpose: CallbackPurpose::Tell, ..owed(&desk, &ann, &approval, 20) };
    assert!(desk.store.add_callback(&tell, &desk.audit()).await.unwrap(), "for another purpose another call");
    assert_eq!(desk.opened_again().await.callbacks_of(&approval).await.unwrap().len(), 2);
    let latest = desk.store.callbacks(1).await.unwrap();
    assert!(latest.len() == 1 && [&first.id, &tell.id].contains(&&latest[0].id));
    assert_eq!(desk.store.callbacks(10).await.unwrap().iter().find(|c| c.id == first.id), Some(&first));
    let nobodys = owed(&desk, &CustomerId::fresh(&*desk.entropy), &approval, 10);
    assert!(desk.store.add_callback(&nobodys, &desk.audit()).await.is_err());
}

async fn a_call_is_placed_by_one_node_and_comes_back_when_that_dies(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let [one, other] = [WorkerId::fresh(&*desk.entropy), WorkerId::fresh(&*desk.entropy)];
    let call = owed(&desk, &ann, &ApprovalId::fresh(&*desk.entropy), 10);
    desk.store.add_callback(&call, &desk.audit()).await.unwrap();
    let claim = async |who: &WorkerId, now: i64| {
        desk.store.claim_callbacks(who, Timestamp(now), Timestamp(now + 1_000), 10).await.unwrap()
    };
    assert_eq!(claim(&one, 9).await, [], "not due");
    let claimed = claim(&one, 10).await;
    assert_eq!(claimed, [Callback { tries: 1, due_at: Timestamp(1_010), ..call.clone() }]);
    assert_eq!(claim(&other, 500).await, [], "somebody is at it");
    assert_eq!(claim(&other, 1_010).await[0].tries, 2, "it died of it");
    let back = desk.store.put_back_callback(&call.id, &one, Timestamp(20)).await;
    assert!(matches!(back, Err(StoreError::Conflict(_))), "{back:?}");
    desk.store.put_back_callback(&call.id, &other, Timestamp(1_500)).await.unwrap();
    assert_eq!(claim(&one, 1_499).await, []);
    assert_eq!(claim(&one, 1_500).await[0].tries, 2, "what came to no try does not count");
}

async fn what_became_of_a_try_is_written_by_whoever_has_the_lease(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let [one, other] = [WorkerId::fresh(&*desk.entropy), WorkerId::fresh(&*desk.entropy)];
    let approval = ApprovalId::fresh(&*desk.entropy);
    let owed = owed(&desk, &ann, &approval, 10);
    desk.store.add_callback(&owed, &desk.audit()).await.unwrap();
    desk.store.claim_callbacks(&one, Timestamp(10), Timestamp(99), 10).await.unwrap();
    let call = CallId::fresh(&*desk.entropy);
    let tried = |outcome: &str, call: Option<&CallId>, next| Tried { outcome: outcome.into(), call: call.cloned(), next };
    let later = tried("no_answer", Some(&call), NextTry::At(Timestamp(300)));
    let news = OutboxRecord {
        id: OutboxId::fresh(&*desk.entropy),
        at: Timestamp(11),
        topic: "callback.given_up".into(),
        payload: serde_json::json!({ "customer": ann }),
    };
    let refused = desk.store.callback_tried(&owed.id, &other, &later, &desk.audit(), Some(&news)).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    assert_eq!(desk.store.outbox_waiting(10).await.unwrap().len(), 0, "nothing was written");
    desk.store.callback_tried(&owed.id, &one, &later, &desk.audit(), None).await.unwrap();
    let row = desk.store.callbacks_of(&approval).await.unwrap().remove(0);
    assert_eq!((row.state, row.due_at, row.tries), (CallbackState::Waiting, Timestamp(300), 1));
    assert_eq!((row.last_outcome.as_deref(), row.last_call.as_ref()), (Some("no_answer"), Some(&call)));
    let again = desk.store.callback_tried(&owed.id, &one, &later, &desk.audit(), None).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "the lease ended with it: {again:?}");
    desk.store.claim_callbacks(&other, Timestamp(300), Timestamp(399), 10).await.unwrap();
    let given_up = tried("busy", None, NextTry::GivenUp);
    desk.store.callback_tried(&owed.id, &other, &given_up, &desk.audit(), Some(&news)).await.unwrap();
    let row = desk.store.callbacks_of(&approval).await.unwrap().remove(0);
    assert_eq!((row.state, row.tries, row.last_call.as_ref()), (CallbackState::GivenUp, 2, Some(&call)));
    assert_eq!(desk.store.outbox_waiting(10).await.unwrap(), [news]);
    let far = Timestamp(10).plus(Duration::from_secs(1_000_000));
    assert_eq!(desk.store.claim_callbacks(&one, far, far, 10).await.unwrap(), [], "what is over is never due");
}

async fn of_many_nodes_that_claim_at_once_none_gets_anothers(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    for n in 0..20 {
        let owed = owed(&desk, &ann, &ApprovalId::fresh(&*desk.entropy), n);
        desk.store.add_callback(&owed, &desk.audit()).await.unwrap();
    }
    let mut nodes = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (store, who) = (desk.store.clone(), WorkerId::fresh(&*desk.entropy));
        nodes.spawn(async move {
            let mut mine = Vec::new();
            for _ in 0..4 {
                mine.extend(store.claim_callbacks(&who, Timestamp(50), Timestamp(9_000), 3).await.unwrap());
            }
            mine
        });
    }
    let mut claimed: Vec<_> = nodes.join_all().await.into_iter().flatten().map(|c| c.id).collect();
    let all = claimed.len();
    claimed.sort();
    claimed.dedup();
    assert_eq!((all, claimed.len()), (20, 20));
}

async fn what_waits_for_nothing_is_ended_once_and_only_while_nobody_is_at_it(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let approval = ApprovalId::fresh(&*desk.entropy);
    let paper = format!(
        "INSERT INTO papers (kind, id, owner, about, open, version, body, created_at)
         VALUES ('approval', '{approval}', '{ann}', 'req_1', '1', 0, '{{}}', 1)"
    );
    desk.sql(&paper).await.unwrap();
    let open = owed(&desk, &ann, &approval, 10);
    // Of one that nobody wrote down, there is nothing to decide; its payer may be told all the same.
    let gone = ApprovalId::fresh(&*desk.entropy);
    let (decide, tell) = (owed(&desk, &ann, &gone, 20), owed(&desk, &ann, &gone, 30));
    let tell = Callback { purpose: CallbackPurpose::Tell, ..tell };
    for each in [&open, &decide, &tell] {
        assert!(desk.store.add_callback(each, &desk.audit()).await.unwrap());
    }
    let over = async |now: i64| {
        let all = desk.store.callbacks_over(Timestamp(now), 9).await.unwrap();
        all.into_iter().map(|c| c.id).collect::<Vec<_>>()
    };
    assert_eq!(over(19).await, [], "it is not due");
    assert_eq!(over(50).await, [decide.id.clone()]);
    desk.sql("UPDATE papers SET open = '0', version = 1").await.unwrap();
    assert_eq!(over(50).await, [open.id.clone(), decide.id.clone()], "the longest due first");
    assert_eq!(over(100_000).await.len(), 3, "over is over, for whatever purpose");

    let end = async |id: &CallbackId, now: i64, next| {
        let ended = Tried { outcome: "settled".into(), call: None, next };
        let news = OutboxRecord { id: OutboxId::fresh(&*desk.entropy), at: Timestamp(2), topic: "t".into(), payload: "x".into() };
        desk.store.end_callback(id, Timestamp(now), &ended, &desk.audit(), Some(&news)).await.unwrap()
    };
    let one = WorkerId::fresh(&*desk.entropy);
    assert_eq!(desk.store.claim_callbacks(&one, Timestamp(10), Timestamp(1_000), 1).await.unwrap()[0].id, open.id);
    let rows = (desk.store.audit_trail(99).await.unwrap().len(), desk.store.outbox_waiting(99).await.unwrap().len());
    assert_eq!(over(50).await, [decide.id.clone()], "somebody is at the other");
    assert!(!end(&open.id, 50, NextTry::Over).await);
    assert!(!end(&CallbackId::fresh(&*desk.entropy), 50, NextTry::Over).await);
    let now = (desk.store.audit_trail(99).await.unwrap().len(), desk.store.outbox_waiting(99).await.unwrap().len());
    assert_eq!(now, rows, "nothing was written");
    assert!(end(&decide.id, 50, NextTry::Over).await && !end(&decide.id, 50, NextTry::Over).await);
    assert!(end(&open.id, 1_000, NextTry::GivenUp).await, "whoever was at it died of it");
    let now = (desk.store.audit_trail(99).await.unwrap().len(), desk.store.outbox_waiting(99).await.unwrap().len());
    assert_eq!(now, (rows.0 + 2, rows.1 + 2));
    let all = desk.store.callbacks(9).await.unwrap();
    let state = |id: &CallbackId| all.iter().find(|c| c.id == *id).map(|c| (c.state, c.last_outcome.clone()));
    assert_eq!(state(&decide.id), Some((CallbackState::Over, Some("settled".to_owned()))));
    assert_eq!(state(&open.id).unwrap().0, CallbackState::GivenUp);
    assert_eq!(state(&tell.id), Some((CallbackState::Waiting, None)));
}
