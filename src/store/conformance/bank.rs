//! The journal of deductions.

use tokio::task::JoinSet;

use super::{Bench, on_both};
use crate::clock::Timestamp;
use crate::ids::{AttemptId, AuditId, RequestId};
use crate::money::{Currency, Money};
use crate::payment::pairing::{Account, Answer, Event, Facts, Input, Message, Pairing, Standing, Waits};
use crate::store::bank::{MESSAGE_ID, pairing};
use crate::store::{AuditRecord, BankAnswer, Store, StoreError};

on_both!(
    a_journal_is_read_as_it_was_appended,
    of_many_nodes_that_decide_at_once_one_is_right,
    a_message_id_is_one_references_alone,
    what_waits_and_what_is_in_quarantine_is_found_page_by_page,
    the_answers_of_a_day_come_in_their_order,
    the_journal_refuses_to_be_changed,
    a_journal_that_was_changed_is_not_believed,
);

const WAITS: Waits =
    Waits { for_payment: std::time::Duration::from_secs(86_400), for_bank: std::time::Duration::from_secs(3_600) };

fn reference(n: u32) -> RequestId {
    RequestId::parse(&format!("req_{n:03}")).unwrap()
}

fn attempt(n: u32) -> AttemptId {
    AttemptId::parse(&format!("att_{n:03}")).unwrap()
}

fn facts(minor: i64) -> Facts {
    Facts { amount: Money::new(minor, Currency::Usd).unwrap(), account: Account::new([7; 16]) }
}

fn confirm(n: u32) -> Input {
    Input::Confirm { attempt: attempt(n), facts: facts(1999) }
}

fn message(id: &str, minor: i64) -> Message {
    Message { id: id.parse().unwrap(), facts: facts(minor), at: Timestamp(5) }
}

fn deducted(n: u32) -> Input {
    Input::Answer { attempt: attempt(n), answer: Answer::Done { amount: facts(1999).amount } }
}

/// Decides on what is stored, and appends.
async fn put(
    store: &dyn Store,
    reference: &RequestId,
    at: i64,
    input: Input,
    audit: &[AuditRecord],
) -> Result<Pairing, StoreError> {
    let decision = pairing(store, reference).await?.decide(WAITS, Timestamp(at), input).unwrap();
    store.append_deduction(&decision, audit).await?;
    Ok(decision.after)
}

/// As a node does it: what others wrote meanwhile is read, and decided on anew.
async fn put_in_turn(store: &dyn Store, reference: &RequestId, input: Input) {
    for _ in 0..1000 {
        match put(store, reference, 1, input.clone(), &[]).await {
            Ok(_) => return,
            Err(StoreError::Conflict(_) | StoreError::Busy) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("never its turn");
}

async fn a_journal_is_read_as_it_was_appended(desk: Bench) {
    let (store, of) = (&*desk.store, reference(1));
    assert_eq!(pairing(store, &of).await.unwrap(), Pairing::new(of.clone()));
    let mut last = Pairing::new(of.clone());
    let refund = Input::Refund { attempt: attempt(2), of: attempt(1), amount: facts(5).amount };
    let inputs = [
        confirm(1),
        Input::Message(message("odd", 2000)),
        Input::Reject { case: 1, by: "ann".into() },
        Input::Message(message("fits", 1999)),
        Input::Message(message("fits", 5)),
        deducted(1),
        refund,
        Input::Answer { attempt: attempt(2), answer: Answer::Refused { reason: "\"€\"\n😀".into() } },
        confirm(3),
    ];
    for (at, input) in (10..).zip(inputs) {
        let row = AuditRecord { id: AuditId::fresh(&*desk.entropy), ..desk.audit() };
        last = put(store, &of, at, input, &[row]).await.unwrap();
        assert_eq!(pairing(&*desk.opened_again().await, &of).await.unwrap(), last);
    }
    assert_eq!(store.audit_trail(99).await.unwrap().len(), 9, "one row with each");
    let journal = store.deduction_journal(&of).await.unwrap();
    assert_eq!(u64::try_from(journal.len()).unwrap(), last.length());
    // Nothing new: nothing is written, not even what would be told of it.
    put(store, &of, 99, confirm(1), &[desk.audit()]).await.unwrap();
    assert_eq!(store.audit_trail(99).await.unwrap().len(), 9);
    assert_eq!(store.deduction_journal(&of).await.unwrap(), journal);
}

async fn of_many_nodes_that_decide_at_once_one_is_right(desk: Bench) {
    const REFERENCES: u32 = 6;
    let mut nodes = JoinSet::new();
    for node in 0..4_u32 {
        let store = desk.opened_again().await;
        nodes.spawn(async move {
            for turn in 0..REFERENCES {
                let n = (turn + node) % REFERENCES;
                // Half of them hear the customer first, the others the bank; and each says everything.
                let mut inputs = [confirm(n), Input::Message(message(&format!("m{n}"), 1999))];
                if node % 2 == 0 {
                    inputs.reverse();
                }
                for input in inputs {
                    put_in_turn(&*store, &reference(n), input).await;
                }
            }
        });
    }
    while let Some(done) = nodes.join_next().await {
        done.unwrap();
    }
    for n in 0..REFERENCES {
        let journal = desk.store.deduction_journal(&reference(n)).await.unwrap();
        let mut names: Vec<_> = journal.iter().map(|e| e.event.name()).collect();
        names.sort_unstable();
        assert_eq!(names, ["confirmed", "matched", "received"], "{n}");
    }
    let stale = Pairing::new(reference(0)).decide(WAITS, Timestamp(9), confirm(77)).unwrap();
    let row = desk.audit();
    assert!(matches!(desk.store.append_deduction(&stale, &[row]).await, Err(StoreError::Conflict(_))));
    assert!(desk.store.audit_trail(9).await.unwrap().is_empty(), "nothing was written");
}

async fn a_message_id_is_one_references_alone(desk: Bench) {
    let store = &*desk.store;
    put(store, &reference(1), 1, Input::Message(message("m1", 1999)), &[]).await.unwrap();
    let same = || message("m1", 1999);
    let refused = put(store, &reference(2), 2, Input::Message(same()), &[desk.audit()]).await;
    assert!(matches!(refused, Err(StoreError::Exists(MESSAGE_ID))), "{refused:?}");
    assert_eq!(pairing(store, &reference(2)).await.unwrap().length(), 0);
    assert_eq!(store.open_deductions(None, 9).await.unwrap(), [(reference(1), 1)]);
    assert!(store.audit_trail(9).await.unwrap().is_empty(), "nothing was written");
    let kept = put(store, &reference(2), 3, Input::MessageSeenElsewhere(same()), &[]).await.unwrap();
    assert_eq!(kept.quarantine().count(), 1);
    put(store, &reference(3), 4, Input::MessageSeenElsewhere(same()), &[]).await.unwrap();
    // Two nodes hear it at once, under two references.
    let other = desk.opened_again().await;
    let (four, five) = (reference(4), reference(5));
    let (a, b) = tokio::join!(
        put(store, &four, 5, Input::Message(message("m2", 1999)), &[]),
        put(&*other, &five, 5, Input::Message(message("m2", 1999)), &[])
    );
    let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
    assert!(won.is_ok() && matches!(lost, Err(StoreError::Exists(MESSAGE_ID))), "{lost:?}");
}

async fn what_waits_and_what_is_in_quarantine_is_found_page_by_page(desk: Bench) {
    let store = &*desk.store;
    for n in 0..6 {
        put(store, &reference(n), 1, confirm(n), &[]).await.unwrap();
    }
    for n in [1, 3] {
        let minor = if n == 1 { 1999 } else { 2000 };
        put(store, &reference(n), 2, Input::Message(message(&format!("m{n}"), minor)), &[]).await.unwrap();
    }
    put(store, &reference(1), 3, deducted(1), &[]).await.unwrap();
    let open = [0, 2, 3, 4, 5].map(|n| (reference(n), if n == 3 { 3 } else { 1 }));
    assert_eq!(store.open_deductions(None, 2).await.unwrap(), open[..2]);
    assert_eq!(store.open_deductions(Some(&reference(2)), 9).await.unwrap(), open[2..]);
    assert_eq!(store.quarantined_deductions(None, 9).await.unwrap(), [reference(3)]);
    assert!(store.quarantined_deductions(Some(&reference(3)), 9).await.unwrap().is_empty());
    put(store, &reference(3), 4, Input::Reject { case: 1, by: "ann".into() }, &[]).await.unwrap();
    assert!(store.quarantined_deductions(None, 9).await.unwrap().is_empty());
}

async fn the_answers_of_a_day_come_in_their_order(desk: Bench) {
    let store = &*desk.store;
    for n in 0..5_u32 {
        put(store, &reference(n), 1, confirm(n), &[]).await.unwrap();
        put(store, &reference(n), 2, Input::Message(message(&format!("m{n}"), 1999)), &[]).await.unwrap();
    }
    for (n, at) in [(4, 99), (3, 100), (1, 100), (0, 150), (2, 200)] {
        put(store, &reference(n), at, deducted(n), &[]).await.unwrap();
    }
    let page = async |after: Option<&BankAnswer>| store.bank_answers(Timestamp(100), Timestamp(200), after, 2).await.unwrap();
    let first = page(None).await;
    let second = page(first.last()).await;
    let all: Vec<_> = first.iter().chain(&second).map(|a| (a.reference.clone(), a.entry.at.0)).collect();
    assert_eq!(all, [(reference(1), 100), (reference(3), 100), (reference(0), 150)]);
    assert!(matches!(&first[0].entry.event, Event::Answered { attempt: whose, .. } if *whose == attempt(1)));
    assert_eq!(first[0].number, 3);
    assert!(page(second.last()).await.is_empty());
    assert_eq!(
        pairing(store, &reference(0)).await.unwrap().standing(&attempt(0)),
        Some(Standing::Done { amount: facts(1999).amount })
    );
}

async fn the_journal_refuses_to_be_changed(desk: Bench) {
    put(&*desk.store, &reference(1), 1, confirm(1), &[]).await.unwrap();
    for statement in [
        "UPDATE bank_events SET at = 2",
        "DELETE FROM bank_events",
        "UPDATE bank_references SET open = NOT open",
        "UPDATE bank_references SET length = 1",
        "DELETE FROM bank_references",
    ] {
        let refused = desk.sql(statement).await.unwrap_err();
        assert!(refused.contains("append-only") || refused.contains("only grows"), "{statement}: {refused}");
    }
}

async fn a_journal_that_was_changed_is_not_believed(desk: Bench) {
    put(&*desk.store, &reference(1), 1, confirm(1), &[]).await.unwrap();
    let forged = serde_json::to_string(&Event::Matched { attempt: attempt(1), case: 1 }).unwrap();
    let insert = |seq: u32, kind: &str, detail: &str| {
        format!("INSERT INTO bank_events (reference, seq, at, kind, detail) VALUES ('req_001', {seq}, 1, '{kind}', '{detail}')")
    };
    desk.sql(&insert(1, "matched", &forged)).await.unwrap();
    let told = pairing(&*desk.store, &reference(1)).await.unwrap_err().to_string();
    assert!(told.contains("bank_events is damaged: event 1 of req_001 (matched) does not fit"), "{told}");
    desk.sql(&insert(2, "expired", &forged)).await.unwrap();
    assert!(matches!(desk.store.deduction_journal(&reference(1)).await, Err(StoreError::Damaged { table: "bank_events", .. })));
}
