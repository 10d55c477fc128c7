//! What clocks erase and what they leave alone, on both databases; and what is read of one person.

use serde_json::json;

use super::{Bench, on_both};
use crate::clock::Timestamp;
use crate::ids::{AppSessionId, CallId, CustomerId};
use crate::store::{AuditFrom, CallRecord, Factor, FactorFailure, Invite, Overdue, Paper, PaperKind};

on_both!(
    what_is_over_its_time_goes_in_batches_and_nothing_else,
    a_run_is_taken_by_one_of_many,
    two_that_erase_at_once_erase_nothing_twice,
    a_voice_that_holds_in_a_call_is_of_use,
    consents_outlive_a_customer_by_their_time,
    what_is_held_is_read_page_by_page,
    a_call_that_ends_after_its_customer_was_deleted_leaves_nothing,
    what_is_left_of_codes_goes_after_their_end,
    app_sessions_go_once_they_ended_and_no_other_paper_does,
);

impl Bench {
    async fn call_at(&self, customer: Option<&CustomerId>, at: i64, verdict: &str) -> CallId {
        let call = CallRecord {
            id: CallId::fresh_at(Timestamp(at), &*self.entropy),
            customer: customer.cloned(),
            calling: None,
            trunk: "carrier".into(),
            started_at: Timestamp(at),
            ended_at: None,
            verdict: None,
            record: serde_json::Value::Null,
        };
        self.store.call_started(&call).await.unwrap();
        let ended = CallRecord {
            ended_at: Some(Timestamp(at + 1)),
            verdict: Some(verdict.into()),
            record: json!({ "voice_llr": 3.5 }),
            ..call.clone()
        };
        self.store.call_ended(&ended).await.unwrap();
        call.id
    }

    async fn erase(&self, what: Overdue, before: i64, limit: u32) -> u64 {
        self.store.erase_overdue(what, Timestamp(before), limit, &self.audit()).await.unwrap()
    }
}

async fn what_is_over_its_time_goes_in_batches_and_nothing_else(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let mut calls = Vec::new();
    for at in [10, 20, 30, 40] {
        calls.push(desk.call_at(Some(&ann), at, "Abandoned").await);
        let failure = FactorFailure {
            factor: Factor::Voice,
            customer: Some(ann.clone()),
            calling: None,
            trunk: "carrier".into(),
            attested: true,
            call: calls[0].clone(),
            at: Timestamp(at),
        };
        desk.store.record_failure(&failure, Timestamp(0)).await.unwrap();
        let invite = Invite { expires_at: Timestamp(at), ..desk.fresh_invite(&ann) };
        desk.store.add_invite(&invite, &[u8::try_from(at).unwrap(); 32], &desk.audit()).await.unwrap();
    }
    let over = async |what, before| desk.store.overdue(what, Timestamp(before)).await.unwrap();
    for what in [Overdue::CallEvidence, Overdue::FailedFactors, Overdue::Invitations] {
        assert_eq!((over(what, 10).await, over(what, 31).await), (0, 3), "{}", what.as_str());
        assert_eq!((desk.erase(what, 31, 2).await, desk.erase(what, 31, 2).await, desk.erase(what, 31, 2).await), (2, 1, 0));
        let told = desk.store.audit_trail(2).await.unwrap();
        assert_eq!(told[0].detail["erased"][what.as_str()], json!(1), "each batch has its row, one without rows none");
        assert_eq!(told[1].detail["erased"][what.as_str()], json!(2));
        assert_eq!(over(what, 99).await, 1);
    }
    let first = desk.store.call(&calls[0]).await.unwrap().unwrap();
    assert_eq!((first.record, first.verdict.as_deref()), (json!({}), Some("Abandoned")), "that there was a call stays");
    assert_eq!(desk.store.call(&calls[3]).await.unwrap().unwrap().record["voice_llr"], json!(3.5));
    assert_eq!(desk.erase(Overdue::CallRecords, 21, 9).await, 2);
    assert!(desk.store.call(&calls[1]).await.unwrap().is_none() && desk.store.call(&calls[2]).await.unwrap().is_some());
    assert_eq!(desk.erase(Overdue::CallsOwed, 99, 9).await, 0);
}

async fn a_run_is_taken_by_one_of_many(desk: Bench) {
    let claim = async |now, before| desk.store.claim_retention(Timestamp(now), Timestamp(before)).await.unwrap();
    let mut nodes = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let store = desk.store.clone();
        nodes.spawn(async move { store.claim_retention(Timestamp(1_000), Timestamp(500)).await.unwrap() });
    }
    assert_eq!(nodes.join_all().await.into_iter().filter(|ours| *ours).count(), 1);
    assert!(!claim(1_400, 900).await, "there was one");
    assert!(claim(1_600, 1_000).await && !claim(1_600, 1_000).await);
}

async fn two_that_erase_at_once_erase_nothing_twice(desk: Bench) {
    for at in 0..40 {
        desk.call_at(None, at, "UnknownCaller").await;
    }
    let mut nodes = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, audit) = (desk.store.clone(), desk.audit());
        nodes.spawn(async move { store.erase_overdue(Overdue::CallRecords, Timestamp(99), 5, &audit).await.unwrap() });
    }
    let erased: u64 = nodes.join_all().await.into_iter().sum();
    let left = desk.store.overdue(Overdue::CallRecords, Timestamp(99)).await.unwrap();
    assert_eq!(erased + left, 40);
    assert!(erased >= 5);
}

async fn a_voice_that_holds_in_a_call_is_of_use(desk: Bench) {
    let (ann, bob) = (desk.customer("+442079460958", "111111").await, desk.customer("+442079460959", "222222").await);
    for (who, code) in [(&ann, 1), (&bob, 2)] {
        desk.store.complete_enrolment(&desk.enrolment(&desk.invite(who, code).await), &desk.audit()).await.unwrap();
    }
    let unused = async |before| desk.store.unused_voices(Timestamp(before), 9).await.unwrap();
    assert!(unused(5).await.is_empty(), "enrolled at 5");
    assert_eq!(unused(6).await.len(), 2);
    desk.call_at(Some(&ann), 70, "Paid").await;
    desk.call_at(Some(&bob), 80, "Refused").await;
    assert_eq!(unused(70).await, std::slice::from_ref(&bob), "a call in which it did not hold is no use of it");
    assert_eq!(unused(71).await, [bob, ann]);
}

async fn consents_outlive_a_customer_by_their_time(desk: Bench) {
    let (ann, bob) = (desk.customer("+442079460958", "111111").await, desk.customer("+442079460959", "222222").await);
    for (who, code) in [(&ann, 1), (&ann, 2), (&bob, 3)] {
        desk.store.complete_enrolment(&desk.enrolment(&desk.invite(who, code).await), &desk.audit()).await.unwrap();
    }
    // Deleted at 1, as the bench's audit rows say.
    desk.store.delete_customer(&ann, &desk.audit()).await.unwrap();
    assert_eq!((desk.erase(Overdue::ClosedCustomers, 1, 9).await, desk.store.consents_of(&ann).await.unwrap().len()), (0, 2));
    assert_eq!((desk.erase(Overdue::ClosedCustomers, 2, 1).await, desk.erase(Overdue::ClosedCustomers, 2, 9).await), (1, 1));
    assert!(desk.store.consents_of(&ann).await.unwrap().is_empty());
    assert_eq!(desk.store.consents_of(&bob).await.unwrap().len(), 1, "who is there keeps theirs");
}

async fn what_is_held_is_read_page_by_page(desk: Bench) {
    let (ann, bob) = (desk.customer("+442079460958", "111111").await, desk.customer("+442079460959", "222222").await);
    let mut calls = Vec::new();
    for at in [10, 20, 30] {
        calls.push(desk.call_at(Some(&ann), at, "Paid").await);
        desk.call_at(Some(&bob), at, "Paid").await;
    }
    let card = desk.card(&ann, 1);
    desk.store.add_card(&card, &desk.audit()).await.unwrap();
    let page = async |after: Option<&CallId>| {
        let found = desk.store.calls_of(&ann, after, 2).await.unwrap();
        found.into_iter().map(|c| c.id).collect::<Vec<_>>()
    };
    assert_eq!(page(None).await, calls[..2]);
    assert_eq!(page(Some(&calls[1])).await, calls[2..]);
    assert!(desk.store.intents_of(&ann, None, 9).await.unwrap().is_empty());
    assert!(desk.store.requests_of(&ann, None, 9).await.unwrap().is_empty());
    assert!(desk.store.papers_with(&ann, ("", ""), 9).await.unwrap().is_empty());
    assert_eq!(desk.store.subjects_of(&ann).await.unwrap(), [card.id.to_string()]);
    let (rows, more) = desk.store.audit_scan(AuditFrom::Time(Timestamp(0))).await.unwrap();
    assert!(!more && rows.len() == 3, "two customers and a card: {rows:?}");
    assert_eq!(desk.store.audit_scan(AuditFrom::After(rows[1].0)).await.unwrap().0, rows[2..]);
}

async fn a_call_that_ends_after_its_customer_was_deleted_leaves_nothing(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    desk.store.delete_customer(&ann, &desk.audit()).await.unwrap();
    let call = desk.call_at(Some(&ann), 10, "Abandoned").await;
    assert_eq!(desk.store.call(&call).await.unwrap().unwrap().record, json!({}));
}

async fn what_is_left_of_codes_goes_after_their_end(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    for at in [10, 20, 30] {
        // The one in the middle was delivered.
        let (sealed, next) = if at == 20 { ("", "NULL") } else { ("sealed", "0") };
        let sql = format!(
            "INSERT INTO code_deliveries (code_id, customer_id, sealed, expires_at, next_try_at)
             VALUES ('otc_{at}', '{ann}', CAST('{sealed}' AS BLOB), {at}, {next})"
        );
        desk.sql(&if desk.on_postgres() { sql.replace("BLOB", "bytea") } else { sql }).await.unwrap();
    }
    let over = async |before| desk.store.overdue(Overdue::CodeDeliveries, Timestamp(before)).await.unwrap();
    assert_eq!((over(10).await, over(11).await, over(21).await), (0, 1, 2));
    assert_eq!((desk.erase(Overdue::CodeDeliveries, 21, 1).await, desk.erase(Overdue::CodeDeliveries, 21, 9).await), (1, 1));
    let told = desk.store.audit_trail(1).await.unwrap();
    assert_eq!(told[0].detail["erased"]["code_deliveries"], json!(1));
    assert_eq!(over(99).await, 1, "whose time is not over stays");
    let claimed = desk.store.claim_code_deliveries(Timestamp(25), Timestamp(26), 9).await.unwrap();
    assert_eq!(claimed.len(), 1, "and is delivered still");
}

async fn app_sessions_go_once_they_ended_and_no_other_paper_does(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let mut all = Vec::new();
    for (kind, open, at) in [
        (PaperKind::AppSession, false, 10),
        (PaperKind::AppSession, false, 20),
        (PaperKind::AppSession, false, 90),
        (PaperKind::AppSession, true, 10),
        (PaperKind::Approval, false, 10),
        (PaperKind::Code, false, 10),
    ] {
        let id = AppSessionId::fresh_at(Timestamp(at), &*desk.entropy).to_string();
        let paper = Paper {
            kind,
            about: id.clone(),
            id,
            owner: ann.clone(),
            open,
            due_at: None,
            version: 0,
            body: "{}".to_owned(),
            created_at: Timestamp(at),
            owed: Vec::new(),
        };
        desk.store.write_papers(std::slice::from_ref(&paper), &[], &[desk.audit()], &[]).await.unwrap();
        all.push(paper);
    }
    assert_eq!(desk.store.overdue(Overdue::AppSessions, Timestamp(50)).await.unwrap(), 2);
    assert_eq!((desk.erase(Overdue::AppSessions, 50, 1).await, desk.erase(Overdue::AppSessions, 50, 9).await), (1, 1));
    assert_eq!(desk.erase(Overdue::AppSessions, 50, 9).await, 0);
    for (n, paper) in all.iter().enumerate() {
        assert_eq!(desk.store.paper(paper.kind, &paper.id).await.unwrap().is_some(), n > 1, "{n}");
    }
    for left in ["kind = 'approval'", "kind = 'app_session' AND created_at = 10"] {
        assert!(
            desk.sql(&format!("DELETE FROM papers WHERE {left}")).await.is_err_and(|e| e.contains("never deleted")),
            "{left}"
        );
    }
}
