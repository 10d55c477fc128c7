//! Papers, the codes on their way, and charges that are guarded by what rules were asked with.

use tokio::task::JoinSet;

use super::money::Parties;
use super::{Bench, on_both};
use crate::clock::Timestamp;
use crate::ids::{ApprovalId, CallId, CodeId, CustomerId, PayeeId, RequestId};
use crate::money::Currency;
use crate::payment::AddressMark;
use crate::store::papers::CodeDelivery;
use crate::store::{AsRead, Guards, Paper, PaperKind, Spent, SpentSince, StoreError, SubmitRefusal, Submitted};

on_both!(
    a_paper_is_written_over_the_version_that_was_read,
    every_kind_of_paper_is_kept_apart_from_the_others,
    accounts_that_are_opened_at_once_with_their_purchases_are_one,
    of_papers_that_are_opened_at_once_one_is_first,
    papers_are_written_together_or_not_at_all,
    papers_are_found_by_whose_they_are_what_they_are_about_and_when_they_are_due,
    a_code_is_claimed_once_at_a_time_and_wiped_when_delivered_or_over,
    sums_are_of_one_customer_currency_and_time,
    of_charges_at_once_that_were_asked_with_the_same_sums_one_is_taken,
    what_was_taken_back_since_the_rules_were_asked_pays_nothing,
    an_approval_is_used_once_and_with_the_charge_or_not_at_all,
    a_guarded_charge_that_comes_again_is_the_same_payment,
    an_address_is_known_once_goods_that_went_there_were_paid_for,
);

const AT_ONCE: usize = 12;

impl Bench {
    fn paper(&self, kind: PaperKind, owner: &CustomerId, about: &str) -> Paper {
        Paper {
            kind,
            id: ApprovalId::fresh(&*self.entropy).to_string(),
            owner: owner.clone(),
            about: about.to_owned(),
            open: true,
            due_at: Some(Timestamp(100)),
            version: 0,
            body: "{\"a\":1}".to_owned(),
            created_at: Timestamp(1),
            owed: Vec::new(),
        }
    }

    async fn write(&self, paper: &Paper) -> Result<(), StoreError> {
        self.store.write_papers(std::slice::from_ref(paper), &[], &[self.audit()], &[self.news()]).await
    }

    async fn audit_rows(&self) -> usize {
        self.store.audit_trail(1_000).await.unwrap().len()
    }
}

/// The same paper, one version on.
fn next(paper: &Paper) -> Paper {
    Paper { version: paper.version + 1, body: format!("{{\"a\":{}}}", paper.version + 2), ..paper.clone() }
}

fn closed(paper: &Paper) -> Paper {
    Paper { open: false, due_at: None, ..next(paper) }
}

async fn a_paper_is_written_over_the_version_that_was_read(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let paper = desk.paper(PaperKind::Approval, &ann, "req_1");
    desk.write(&paper).await.unwrap();
    let second = next(&paper);
    desk.write(&second).await.unwrap();
    assert_eq!(desk.store.paper(PaperKind::Approval, &paper.id).await.unwrap(), Some(second.clone()));
    assert_eq!(desk.store.paper(PaperKind::Code, &paper.id).await.unwrap(), None, "of another kind");
    // Whoever read the first version is too late; so is one that was never read.
    assert!(matches!(desk.write(&next(&paper)).await, Err(StoreError::Conflict(_))));
    assert!(matches!(desk.write(&Paper { version: 9, ..next(&second) }).await, Err(StoreError::Conflict(_))));
    let over = closed(&second);
    desk.write(&over).await.unwrap();
    assert!(desk.write(&Paper { open: true, ..next(&over) }).await.is_err(), "what is closed stays closed");
    assert_eq!(desk.opened_again().await.paper(PaperKind::Approval, &paper.id).await.unwrap(), Some(over));
    assert!(desk.sql("DELETE FROM papers").await.is_err_and(|e| e.contains("never deleted")));
    let skips = format!("UPDATE papers SET version = version + 2 WHERE id = '{}'", paper.id);
    assert!(desk.sql(&skips).await.is_err_and(|e| e.contains("a version at a time")));
}

async fn every_kind_of_paper_is_kept_apart_from_the_others(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    for kind in PaperKind::ALL {
        assert_eq!(PaperKind::parse(kind.as_str()), Some(kind));
        if kind == PaperKind::Mandate {
            continue; // a real one, read for its consent, is in `consents`
        }
        let paper = desk.paper(kind, &ann, "main");
        desk.write(&paper).await.unwrap();
        assert_eq!(desk.store.papers_of(kind, &ann).await.unwrap(), [paper]);
    }
}

/// What a first purchase writes: an account and the purchase, together.
async fn accounts_that_are_opened_at_once_with_their_purchases_are_one(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let mut tasks = JoinSet::new();
    for n in 0..AT_ONCE {
        let account = desk.paper(PaperKind::Account, &ann, "pay_1");
        let purchase = desk.paper(PaperKind::Purchase, &ann, &format!("req_{n}"));
        let store = desk.store.clone();
        tasks.spawn(async move { store.write_papers(&[account, purchase], &[], &[], &[]).await });
    }
    let mut written = 0;
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            Ok(()) => written += 1,
            Err(StoreError::Exists(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(written, 1);
    assert_eq!(desk.store.papers_of(PaperKind::Account, &ann).await.unwrap().len(), 1);
    assert_eq!(desk.store.papers_of(PaperKind::Purchase, &ann).await.unwrap().len(), 1, "whoever lost wrote nothing at all");
}

async fn of_papers_that_are_opened_at_once_one_is_first(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let before = desk.audit_rows().await;
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (paper, store) = (desk.paper(PaperKind::Approval, &ann, "req_1"), desk.store.clone());
        let (audit, news) = (desk.audit(), desk.news());
        tasks.spawn(async move { store.write_papers(&[paper], &[], &[audit], &[news]).await });
    }
    let (mut first, mut late) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            Ok(()) => first += 1,
            Err(StoreError::Exists(_)) => late += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((first, late), (1, AT_ONCE - 1));
    assert_eq!(desk.audit_rows().await, before + 1, "who was late wrote nothing");
    // Another subject, another kind, and another one once the first is over.
    desk.write(&desk.paper(PaperKind::Approval, &ann, "req_2")).await.unwrap();
    desk.write(&desk.paper(PaperKind::Code, &ann, "req_1")).await.unwrap();
    let open = desk.store.papers_of(PaperKind::Approval, &ann).await.unwrap();
    let one = open.iter().find(|p| p.about == "req_1").unwrap();
    desk.write(&closed(one)).await.unwrap();
    desk.write(&desk.paper(PaperKind::Approval, &ann, "req_1")).await.unwrap();
}

async fn papers_are_written_together_or_not_at_all(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let old = desk.paper(PaperKind::Code, &ann, "req_1");
    desk.write(&old).await.unwrap();
    let before = desk.audit_rows().await;
    let new = desk.paper(PaperKind::Code, &ann, "req_1");
    // The old one was changed meanwhile: neither is written, nor what goes with them.
    let stale = Paper { version: 5, ..closed(&old) };
    let delivery = delivery(&desk, &ann, 50);
    let torn =
        desk.store.write_papers(&[stale, new.clone()], std::slice::from_ref(&delivery), &[desk.audit()], &[desk.news()]).await;
    assert!(matches!(torn, Err(StoreError::Conflict(_))));
    assert_eq!(desk.audit_rows().await, before);
    assert_eq!(desk.store.paper(PaperKind::Code, &new.id).await.unwrap(), None);
    assert!(desk.store.claim_code_deliveries(Timestamp(1), Timestamp(2), 9).await.unwrap().is_empty());
    // The old one ends in the same transaction in which the new one begins.
    desk.store
        .write_papers(&[closed(&old), new.clone()], std::slice::from_ref(&delivery), &[desk.audit()], &[desk.news()])
        .await
        .unwrap();
    assert_eq!(desk.store.papers_about(PaperKind::Code, "req_1").await.unwrap(), [new]);
    assert_eq!(desk.audit_rows().await, before + 1);
}

async fn papers_are_found_by_whose_they_are_what_they_are_about_and_when_they_are_due(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let bob = desk.customer("+442079460959", "222222").await;
    let mut all = Vec::new();
    for n in 0..4 {
        let due_at = Some(Timestamp(100 - n));
        let paper = Paper { due_at, created_at: Timestamp(n), ..desk.paper(PaperKind::Approval, &ann, &format!("req_{n}")) };
        desk.write(&paper).await.unwrap();
        all.push(paper);
    }
    desk.write(&desk.paper(PaperKind::Approval, &bob, "req_0")).await.unwrap();
    desk.write(&desk.paper(PaperKind::Supervision, &ann, "req_0")).await.unwrap();
    desk.write(&closed(&all[3])).await.unwrap();
    assert_eq!(desk.store.papers_of(PaperKind::Approval, &ann).await.unwrap(), all[..3]);
    let about: Vec<CustomerId> =
        desk.store.papers_about(PaperKind::Approval, "req_0").await.unwrap().into_iter().map(|p| p.owner).collect();
    assert!(about.len() == 2 && about.contains(&ann) && about.contains(&bob));
    let due = desk.store.papers_due(PaperKind::Approval, Timestamp(99), 9).await.unwrap();
    assert_eq!(due, [all[2].clone(), all[1].clone()], "the longest due first");
    assert_eq!(desk.store.papers_due(PaperKind::Approval, Timestamp(99), 1).await.unwrap(), [all[2].clone()]);
    let mut pages = Vec::new();
    let mut after = String::new();
    loop {
        let page = desk.store.papers_after(PaperKind::Approval, &after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after.clone_from(&last.id);
        pages.extend(page.into_iter().map(|p| p.id));
    }
    assert!(pages.len() == 5 && pages.is_sorted(), "closed ones too: {pages:?}");
}

fn delivery(desk: &Bench, customer: &CustomerId, expires_at: i64) -> CodeDelivery {
    CodeDelivery {
        code: CodeId::fresh(&*desk.entropy),
        customer: customer.clone(),
        sealed: vec![2, 3, 5, 7],
        expires_at: Timestamp(expires_at),
        tries: 0,
    }
}

async fn a_code_is_claimed_once_at_a_time_and_wiped_when_delivered_or_over(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let mut sent = Vec::new();
    for n in 0..3 {
        let code = delivery(&desk, &ann, 50);
        let paper = Paper { created_at: Timestamp(n), ..closed_at_once(desk.paper(PaperKind::Code, &ann, "req_1")) };
        desk.store.write_papers(&[paper], std::slice::from_ref(&code), &[desk.audit()], &[]).await.unwrap();
        sent.push(code);
    }
    let request = RequestId::parse("req_1").unwrap();
    assert_eq!(desk.store.codes_sent(&request, Timestamp(1)).await.unwrap(), 2);
    assert_eq!(desk.store.codes_sent(&RequestId::parse("req_2").unwrap(), Timestamp(0)).await.unwrap(), 0);
    // Two workers at once get no code twice.
    let claim = async || desk.store.claim_code_deliveries(Timestamp(10), Timestamp(20), 2).await.unwrap();
    let (a, b) = tokio::join!(claim(), claim());
    let mut claimed: Vec<_> = a.into_iter().chain(b).map(|d| (d.code.to_string(), d.sealed, d.tries)).collect();
    claimed.sort();
    let mut all: Vec<_> = sent.iter().map(|d| (d.code.to_string(), d.sealed.clone(), 1)).collect();
    all.sort();
    assert_eq!(claimed, all);
    desk.store.code_delivered(&sent[0].code).await.unwrap();
    // The other two were not delivered: they come again, and no more once they are over.
    let again = desk.store.claim_code_deliveries(Timestamp(20), Timestamp(30), 9).await.unwrap();
    assert!(again.len() == 2 && again.iter().all(|d| d.tries == 2 && d.code != sent[0].code));
    assert!(desk.store.claim_code_deliveries(Timestamp(50), Timestamp(60), 9).await.unwrap().is_empty());
    assert_eq!(desk.store.wipe_codes(Timestamp(49)).await.unwrap(), 0);
    assert_eq!(desk.store.wipe_codes(Timestamp(50)).await.unwrap(), 2);
    assert_eq!(desk.store.wipe_codes(Timestamp(50)).await.unwrap(), 0);
    assert_eq!(desk.sql("UPDATE code_deliveries SET tries = tries WHERE length(sealed) > 0").await, Ok(0), "nothing is left");
}

fn closed_at_once(paper: Paper) -> Paper {
    Paper { open: false, due_at: None, ..paper }
}

fn since(parties: &Parties) -> SpentSince {
    SpentSince { customer: parties.customer.clone(), payee: parties.payee.clone(), currency: Currency::Usd, since: Timestamp(2) }
}

async fn sums_are_of_one_customer_currency_and_time(desk: Bench) {
    let parties = desk.parties("111111").await;
    let asked = since(&parties);
    assert_eq!(desk.store.spent(&asked).await.unwrap(), Spent::default());
    for _ in 0..2 {
        let charge = desk.charge(&parties, &desk.request_of(&parties).await, &CallId::fresh(&*desk.entropy));
        assert!(matches!(desk.store.submit(&charge).await.unwrap(), Submitted::Fresh { .. }));
        // Judged as soon as it is on its way.
        if desk.store.spent(&asked).await.unwrap().in_all == 1999 {
            let (attempt, settlement) = desk.paid(&charge);
            desk.store.advance(&attempt, &settlement).await.unwrap();
        }
    }
    let both = Spent { in_all: 2 * 1999, to_payee: 2 * 1999, paid: 1, paid_payee: 1 };
    assert_eq!(desk.store.spent(&asked).await.unwrap(), both);
    let spent = async |of: SpentSince| desk.store.spent(&of).await.unwrap();
    let other_payee = spent(SpentSince { payee: PayeeId::fresh(&*desk.entropy), ..asked.clone() }).await;
    assert_eq!(other_payee, Spent { to_payee: 0, paid_payee: 0, ..both });
    let later = spent(SpentSince { since: Timestamp(3), ..asked.clone() }).await;
    assert_eq!(later, Spent { in_all: 0, to_payee: 0, ..both });
    let euros = spent(SpentSince { currency: Currency::Eur, ..asked.clone() }).await;
    assert_eq!((euros.in_all, euros.to_payee), (0, 0));
    assert_eq!(spent(SpentSince { customer: CustomerId::fresh(&*desk.entropy), ..asked }).await, Spent::default());
}

async fn of_charges_at_once_that_were_asked_with_the_same_sums_one_is_taken(desk: Bench) {
    let parties = desk.parties("111111").await;
    let guards = Guards { spent: Some((since(&parties), Spent::default())), ..Guards::default() };
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let request = desk.request_of(&parties).await;
        let mut charge = desk.charge(&parties, &request, &CallId::fresh(&*desk.entropy));
        charge.guards = guards.clone();
        let store = desk.store.clone();
        tasks.spawn(async move { store.submit(&charge).await.unwrap() });
    }
    let (mut taken, mut asked_again) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            Submitted::Fresh { .. } => taken += 1,
            Submitted::Refused(SubmitRefusal::ChangedMeanwhile) => asked_again += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((taken, asked_again), (1, AT_ONCE - 1), "splitting a payment does not help, however fast");
    assert_eq!(desk.store.payments(99).await.unwrap().len(), 1);
    desk.books().await;
    // Asked with what was paid meanwhile, another one is taken.
    let seen = desk.store.spent(&since(&parties)).await.unwrap();
    let mut charge = desk.charge(&parties, &desk.request_of(&parties).await, &CallId::fresh(&*desk.entropy));
    charge.guards = Guards { spent: Some((since(&parties), seen)), ..Guards::default() };
    assert!(matches!(desk.store.submit(&charge).await.unwrap(), Submitted::Fresh { .. }));
}

async fn what_was_taken_back_since_the_rules_were_asked_pays_nothing(desk: Bench) {
    let parties = desk.parties("111111").await;
    let paper = desk.paper(PaperKind::Guardianship, &parties.customer, "pay_1");
    desk.write(&paper).await.unwrap();
    let asked_with = AsRead { kind: PaperKind::Guardianship, id: paper.id.clone(), version: paper.version };
    let charge = async || {
        let request = desk.request_of(&parties).await;
        let mut charge = desk.charge(&parties, &request, &CallId::fresh(&*desk.entropy));
        charge.guards.stand = vec![asked_with.clone()];
        (desk.store.submit(&charge).await.unwrap(), request)
    };
    assert!(matches!(charge().await.0, Submitted::Fresh { .. }), "it stands");
    desk.write(&closed(&paper)).await.unwrap();
    let (refused, request) = charge().await;
    assert!(matches!(refused, Submitted::Refused(SubmitRefusal::ChangedMeanwhile)), "{refused:?}");
    assert_eq!(desk.store.request(&request).await.unwrap().unwrap().request.held_by, None);
    desk.books().await;
}

async fn an_approval_is_used_once_and_with_the_charge_or_not_at_all(desk: Bench) {
    let parties = desk.parties("111111").await;
    let paper = desk.paper(PaperKind::Approval, &parties.customer, "req_1");
    desk.write(&paper).await.unwrap();
    let used = closed(&paper);
    // Each charges a request of its own, so that nothing but the approval stands between them.
    let mut tasks = JoinSet::new();
    let mut requests = Vec::new();
    for _ in 0..AT_ONCE {
        let request = desk.request_of(&parties).await;
        let mut charge = desk.charge(&parties, &request, &CallId::fresh(&*desk.entropy));
        charge.guards = Guards { papers: vec![used.clone()], ..Guards::default() };
        requests.push(request);
        let store = desk.store.clone();
        tasks.spawn(async move { store.submit(&charge).await.unwrap() });
    }
    let (mut taken, mut gone) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            Submitted::Fresh { .. } => taken += 1,
            Submitted::Refused(SubmitRefusal::ApprovalGone) => gone += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((taken, gone), (1, AT_ONCE - 1));
    let mut held = 0;
    for request in &requests {
        held += usize::from(desk.store.request(request).await.unwrap().unwrap().request.held_by.is_some());
    }
    assert_eq!(held, 1, "who was refused holds nothing");
    desk.books().await;
    // A charge that its own rules refuse leaves the approval unused.
    let paper = desk.paper(PaperKind::Approval, &parties.customer, "req_2");
    desk.write(&paper).await.unwrap();
    let request = desk.request_of(&parties).await;
    desk.store.cancel_request(&request, &[], &[desk.audit()], &[]).await.unwrap();
    let mut charge = desk.charge(&parties, &request, &CallId::fresh(&*desk.entropy));
    charge.guards = Guards { papers: vec![closed(&paper)], ..Guards::default() };
    assert!(matches!(desk.store.submit(&charge).await.unwrap(), Submitted::Refused(SubmitRefusal::Request(_))));
    assert_eq!(desk.store.paper(PaperKind::Approval, &paper.id).await.unwrap(), Some(paper));
}

async fn a_guarded_charge_that_comes_again_is_the_same_payment(desk: Bench) {
    let parties = desk.parties("111111").await;
    let paper = desk.paper(PaperKind::Approval, &parties.customer, "req_1");
    desk.write(&paper).await.unwrap();
    let (request, call) = (desk.request_of(&parties).await, CallId::fresh(&*desk.entropy));
    let guarded = || {
        let mut charge = desk.charge(&parties, &request, &call);
        charge.guards =
            Guards { spent: Some((since(&parties), Spent::default())), papers: vec![closed(&paper)], ..Guards::default() };
        charge
    };
    let (one, two) = (guarded(), guarded());
    let (a, b) = tokio::join!(desk.store.submit(&one), desk.store.submit(&two));
    let intent = |s: Submitted| match s {
        Submitted::Fresh { intent, .. } | Submitted::Already(intent) => intent,
        Submitted::Refused(why) => panic!("{why}"),
    };
    let (a, b) = (intent(a.unwrap()), intent(b.unwrap()));
    assert_eq!(a, b);
    // Neither the sums that it changed nor the approval that it used refuse it later.
    assert_eq!(desk.store.submit(&guarded()).await.unwrap(), Submitted::Already(a));
    assert_eq!(desk.store.payments(9).await.unwrap().len(), 1);
}

async fn an_address_is_known_once_goods_that_went_there_were_paid_for(desk: Bench) {
    let parties = desk.parties("111111").await;
    let (home, work) = (AddressMark::of(&[1; 32]), AddressMark::of(&[2; 32]));
    let request = desk.request_of(&parties).await;
    let sent_home = format!("UPDATE requests SET delivery = '{}' WHERE id = '{request}'", home.as_str());
    assert_eq!(desk.sql(&sent_home).await, Ok(1));
    let known = async |mark: &AddressMark| desk.store.delivered_before(&parties.customer, mark).await.unwrap();
    let charge = desk.charge(&parties, &request, &CallId::fresh(&*desk.entropy));
    assert!(matches!(desk.store.submit(&charge).await.unwrap(), Submitted::Fresh { .. }));
    assert!(!known(&home).await, "nothing is paid yet");
    let (attempt, settlement) = desk.paid(&charge);
    desk.store.advance(&attempt, &settlement).await.unwrap();
    assert!(known(&home).await && !known(&work).await);
    assert!(!desk.store.delivered_before(&CustomerId::fresh(&*desk.entropy), &home).await.unwrap());
}
