//! Invitations, templates, challenges, fingerprints.

use super::{Bench, consenting, on_both};
use crate::clock::Timestamp;
use crate::ids::{CustomerId, InviteId};
use crate::store::{AuditRecord, FingerprintRecord, Invite, InviteCheck, StoreError, TemplateRecord};

on_both!(
    an_invitation_works_once_for_its_customer_only_and_dies_of_wrong_tries,
    an_invitation_is_used_by_one_of_many,
    of_many_invitations_at_once_one_stays_open,
    an_invitation_is_taken_back_while_it_is_open_and_only_then,
    an_invitation_is_used_or_taken_back_never_both,
    fresh_digits_are_asked_for_once_a_customer_and_go_with_the_customer,
    a_fingerprint_is_compared_with_those_before_it_and_only_the_newest_stay,
    of_many_calls_that_play_the_same_audio_one_alone_sees_nothing_before_it,
    a_template_follows_by_consent_keeps_the_way_back_and_goes_whole,
    a_template_is_stepped_over_by_one_of_many,
);

async fn an_invitation_works_once_for_its_customer_only_and_dies_of_wrong_tries(desk: Bench) {
    let (ann, bob) = (desk.customer("+442079460958", "111111").await, desk.customer("+442079460959", "222222").await);
    let invite = desk.invite(&ann, 1).await;
    let check = async |digest: u8, who: Option<&CustomerId>, at: i64| {
        desk.store.check_invite(&[digest; 32], who, Timestamp(at), 3).await.unwrap()
    };
    assert_eq!(check(1, Some(&ann), 10).await, InviteCheck::Good(invite.clone()));
    assert_eq!(check(1, None, 10).await, InviteCheck::Good(invite.clone()));
    assert_eq!(check(1, Some(&bob), 10).await, InviteCheck::Refused, "another customer's");
    assert_eq!(check(1, Some(&ann), 1000).await, InviteCheck::Refused, "expired");
    desk.store.complete_enrolment(&desk.enrolment(&invite), &desk.audit()).await.unwrap();
    assert_eq!(check(1, Some(&ann), 10).await, InviteCheck::Refused, "used");
    let again = desk.store.complete_enrolment(&desk.enrolment(&invite), &desk.audit()).await;
    assert!(matches!(again, Err(StoreError::Refused(_))), "{again:?}");
    assert_eq!(desk.store.outbox_waiting(9).await.unwrap().len(), 1, "the refused one left no trace");
    let second = desk.invite(&ann, 2).await;
    for _ in 0..3 {
        assert_eq!(check(9, Some(&ann), 10).await, InviteCheck::Refused);
    }
    assert_eq!(check(2, Some(&ann), 10).await, InviteCheck::Refused, "three wrong tries ended {}", second.id);
    let third = desk.invite(&ann, 3).await;
    assert_eq!(check(3, Some(&ann), 10).await, InviteCheck::Good(third));
}

async fn fresh_digits_are_asked_for_once_a_customer_and_go_with_the_customer(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let bob = desk.customer("+442079460959", "222222").await;
    let draw =
        async |customer: &CustomerId, digest: u8| desk.store.use_challenge(customer, &[digest; 32], Timestamp(3)).await.unwrap();
    assert!(draw(&ann, 1).await && draw(&ann, 2).await && draw(&bob, 1).await);
    assert!(!draw(&ann, 1).await, "the same digits twice");
    let both = tokio::join!(draw(&ann, 9), draw(&ann, 9));
    assert!(both.0 ^ both.1, "of two calls at once one gets them: {both:?}");
    desk.store.delete_customer(&ann, &desk.audit()).await.unwrap();
    assert_eq!(desk.sql("DELETE FROM challenges").await.unwrap(), 1, "only Bob's are left");
    assert!(!draw(&ann, 3).await, "nobody is asked after they are gone");
}

async fn a_fingerprint_is_compared_with_those_before_it_and_only_the_newest_stay(desk: Bench) {
    let (ann, bob) = (&desk.customer("+15005550001", "1111111").await, &desk.customer("+15005550002", "2222222").await);
    let heard = |of: &CustomerId, sealed: u8, at: i64, expires: i64| FingerprintRecord {
        customer: of.clone(),
        sealed: vec![sealed],
        heard_at: Timestamp(at),
        expires_at: Timestamp(expires),
    };
    let keep = async |new: FingerprintRecord, limit| desk.store.keep_fingerprint(&new, limit).await.unwrap();
    assert!(keep(heard(ann, 1, 10, 100), 2).await.is_empty());
    assert_eq!(keep(heard(ann, 2, 20, 110), 2).await, [[1]]);
    assert_eq!(keep(heard(ann, 3, 30, 120), 2).await, [[2], [1]]);
    assert_eq!(keep(heard(ann, 4, 40, 130), 2).await, [[3], [2]], "the oldest made room");
    assert!(keep(heard(bob, 5, 40, 130), 2).await.is_empty(), "nobody is compared with another's");
    assert_eq!(keep(heard(ann, 6, 120, 210), 9).await, [[4]], "what has expired is gone");
    assert_eq!(desk.store.sweep_fingerprints(Timestamp(130)).await.unwrap(), 2);
    let left = async |of| desk.store.fingerprint_count(of).await.unwrap();
    assert_eq!((left(ann).await, left(bob).await), (1, 0));
    desk.store.delete_customer(ann, &desk.audit()).await.unwrap();
    assert_eq!(left(ann).await, 0);
    assert!(keep(heard(ann, 7, 130, 300), 9).await.is_empty());
    assert_eq!(left(ann).await, 0, "a deleted customer leaves nothing behind");
}

async fn a_template_follows_by_consent_keeps_the_way_back_and_goes_whole(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let invite = desk.invite(&ann, 1).await;
    let enrolled = desk.enrolment(&invite);
    desk.store.complete_enrolment(&enrolled, &desk.audit()).await.unwrap();
    let state = async || desk.store.following(&ann).await.unwrap().unwrap();
    assert_eq!((state().await.consent_at, state().await.enrolled), (None, enrolled.template.clone()));
    let next = |n: i64| TemplateRecord {
        sealed: format!("NEXT{n}").into_bytes(),
        created_at: Timestamp(n),
        ..enrolled.template.clone()
    };
    let step = async |n: i64, over: i64| desk.store.step_template(&next(n), Timestamp(over), 3, &desk.audit()).await;
    assert!(matches!(step(10, 5).await, Err(StoreError::Conflict(_))), "not without consent");
    desk.store.set_following(&ann, Some(&consenting(7)), &desk.audit()).await.unwrap();
    for n in [10, 20, 30, 40, 50] {
        let over = state().await.current.created_at;
        assert!(matches!(step(n, 999).await, Err(StoreError::Conflict(_))), "not over another template");
        step(n, over.0).await.unwrap();
        assert_eq!(state().await.current, next(n));
    }
    assert_eq!(state().await.enrolled, enrolled.template, "what was enrolled is never lost");
    assert_eq!(desk.sql("UPDATE earlier_templates SET seq = seq").await.unwrap(), 3);
    desk.store.revert_template(&ann, &desk.audit()).await.unwrap();
    assert_eq!((state().await.current, state().await.consent_at), (enrolled.template.clone(), None));
    assert!(matches!(desk.store.revert_template(&ann, &desk.audit()).await, Err(StoreError::NotFound(_))));
    desk.store.set_following(&ann, Some(&consenting(8)), &desk.audit()).await.unwrap();
    step(60, 5).await.unwrap();
    desk.store.delete_template(&ann, &desk.audit()).await.unwrap();
    assert_eq!(desk.sql("DELETE FROM earlier_templates").await.unwrap(), 0, "a withdrawn voice leaves none behind");
}

async fn an_invitation_is_used_by_one_of_many(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let invite = desk.invite(&ann, 1).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (store, enrolment, audit) = (desk.store.clone(), desk.enrolment(&invite), desk.audit());
        tasks.spawn(async move { store.complete_enrolment(&enrolment, &audit).await });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
    assert!(outcomes.iter().all(|o| matches!(o, Ok(()) | Err(StoreError::Refused(_)))), "{outcomes:?}");
    assert_eq!(desk.store.outbox_waiting(99).await.unwrap().len(), 1);
}

async fn of_many_invitations_at_once_one_stays_open(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..20_u8 {
        let (store, invite, audit) = (desk.store.clone(), desk.fresh_invite(&ann), desk.audit());
        tasks.spawn(async move { store.add_invite(&invite, &[i; 32], &audit).await });
    }
    for outcome in tasks.join_all().await {
        outcome.unwrap();
    }
    let open = "SELECT id FROM invites WHERE used_at IS NULL AND ended_at IS NULL";
    assert_eq!(desk.sql(&format!("DELETE FROM invites WHERE id NOT IN ({open})")).await.unwrap(), 19);
    assert!(desk.store.open_invite(&ann, Timestamp(1)).await.unwrap().is_some());
}

async fn an_invitation_is_taken_back_while_it_is_open_and_only_then(desk: Bench) {
    let (ann, bob) = (desk.customer("+442079460958", "111111").await, desk.customer("+442079460959", "222222").await);
    let replaced = desk.invite(&ann, 1).await;
    let used = desk.invite(&ann, 2).await;
    desk.store.complete_enrolment(&desk.enrolment(&used), &desk.audit()).await.unwrap();
    let later = Invite { expires_at: Timestamp(5_000), ..desk.fresh_invite(&ann) };
    desk.store.add_invite(&later, &[3; 32], &desk.audit()).await.unwrap();
    desk.invite(&bob, 4).await;
    let listed = async |now| {
        let all = desk.store.invites_of(&ann).await.unwrap();
        all.into_iter().map(|i| (i.state(Timestamp(now)), i.invite.id)).collect::<Vec<_>>()
    };
    let mut expected = vec![("ended", replaced.id.clone()), ("used", used.id.clone())];
    expected.sort_by(|a, b| a.1.as_str().cmp(b.1.as_str()));
    expected.insert(0, ("open", later.id.clone()));
    assert_eq!(listed(2).await, expected, "who runs out last first, nobody else's among them");

    let end = async |id: &InviteId, at: i64| {
        let audit = AuditRecord { at: Timestamp(at), ..desk.audit() };
        desk.store.end_invite(id, &audit).await.unwrap()
    };
    let rows = desk.store.audit_trail(99).await.unwrap().len();
    assert!(!end(&later.id, 5_000).await, "it ran out");
    assert!(!end(&used.id, 3).await && !end(&replaced.id, 3).await && !end(&InviteId::fresh(&*desk.entropy), 3).await);
    assert_eq!(desk.store.audit_trail(99).await.unwrap().len(), rows, "what changes nothing is not written down");
    assert!(end(&later.id, 4).await && !end(&later.id, 5).await, "once");
    assert_eq!(desk.store.audit_trail(99).await.unwrap().len(), rows + 1);
    let found = desk.store.invitation(&later.id).await.unwrap().unwrap();
    assert_eq!((found.invite, found.ended_at, found.used_at), (later, Some(Timestamp(4)), None));
    assert!(desk.store.open_invite(&ann, Timestamp(5)).await.unwrap().is_none());
    assert_eq!(desk.store.check_invite(&[3; 32], Some(&ann), Timestamp(5), 3).await.unwrap(), InviteCheck::Refused);
    assert!(desk.store.open_invite(&bob, Timestamp(5)).await.unwrap().is_some());
    assert!(desk.store.invitation(&InviteId::fresh(&*desk.entropy)).await.unwrap().is_none());
    desk.invite(&ann, 5).await;
    assert_eq!(listed(5).await.iter().filter(|(state, _)| *state == "open").count(), 1, "another may be made");
}

async fn an_invitation_is_used_or_taken_back_never_both(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    for round in 0..10 {
        let invite = desk.invite(&ann, round).await;
        let (enrolment, used, taken_back) = (desk.enrolment(&invite), desk.audit(), desk.audit());
        let (used, ended) =
            tokio::join!(desk.store.complete_enrolment(&enrolment, &used), desk.store.end_invite(&invite.id, &taken_back));
        assert!(used.is_ok() ^ ended.unwrap(), "{used:?}");
        let found = desk.store.invitation(&invite.id).await.unwrap().unwrap();
        assert_eq!((found.used_at.is_some(), found.ended_at.is_some()), (used.is_ok(), used.is_err()));
    }
}

async fn of_many_calls_that_play_the_same_audio_one_alone_sees_nothing_before_it(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let new =
            FingerprintRecord { customer: ann.clone(), sealed: vec![7], heard_at: Timestamp(10), expires_at: Timestamp(100) };
        let store = desk.store.clone();
        tasks.spawn(async move { store.keep_fingerprint(&new, 50).await.unwrap().len() });
    }
    let mut seen = tasks.join_all().await;
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

async fn a_template_is_stepped_over_by_one_of_many(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let enrolled = desk.enrolment(&desk.invite(&ann, 1).await);
    desk.store.complete_enrolment(&enrolled, &desk.audit()).await.unwrap();
    desk.store.set_following(&ann, Some(&consenting(6)), &desk.audit()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..20_u8 {
        let next = TemplateRecord { sealed: vec![i], created_at: Timestamp(10), ..enrolled.template.clone() };
        let (store, audit) = (desk.store.clone(), desk.audit());
        tasks.spawn(async move { store.step_template(&next, Timestamp(5), 3, &audit).await });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
    assert!(outcomes.iter().all(|o| matches!(o, Ok(()) | Err(StoreError::Conflict(_)))), "{outcomes:?}");
    assert_eq!(desk.store.following(&ann).await.unwrap().unwrap().enrolled, enrolled.template);
}
