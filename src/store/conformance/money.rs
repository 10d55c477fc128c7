//! Payments, many at once: what is submitted, claimed, moved on or given back twice is written once.

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::task::JoinSet;

use super::{Bench, on_both};
use crate::clock::Timestamp;
use crate::ids::{
    AttemptId, AuditId, CallId, CardId, CustomerId, IntentId, OutboxId, PayeeId, ReceiptId, RequestId, TransferId, WorkerId,
};
use crate::ledger::{self, AccountName, Cause, Transfer, TransferKind};
use crate::money::{Currency, Money};
use crate::payment::{
    Attempt, AttemptState, Capture, Evidence, Intent, IntentStatus, Operation, PaymentRequest, Receipt, RequestStatus,
};
use crate::store::{
    Begun, CardRecord, Claim, Command, DUE_AT_ONCE, Guards, Lease, NewCharge, NewOperation, OutboxRecord, Payee, Schedule,
    Settlement, StoreError, SubmitRefusal, Submitted,
};

on_both!(
    the_same_submission_by_many_is_one_payment,
    of_many_calls_about_one_request_one_pays_it,
    what_many_workers_claim_is_claimed_once,
    an_attempt_is_moved_on_by_one_of_many,
    refunds_at_once_never_exceed_what_was_captured,
    a_customer_who_pays_is_not_deleted_and_one_who_is_deleted_does_not_pay,
    a_lease_that_runs_out_is_taken_over,
    what_is_fresh_and_what_is_in_doubt_wait_in_one_line,
    of_many_at_once_the_one_that_is_refused_fails_alone,
    who_waits_for_a_row_keeps_nobody_else_waiting,
);

const MINOR: i64 = 1999;
const GATEWAY: &str = "sandbox";

/// Somebody with a card, and somebody to pay.
struct Parties {
    customer: CustomerId,
    card: CardRecord,
    payee: PayeeId,
}

impl Parties {
    fn asks(&self, id: RequestId) -> PaymentRequest {
        PaymentRequest {
            id,
            customer: self.customer.clone(),
            payee: self.payee.clone(),
            amount: money(),
            due: None,
            delivery: crate::payment::Delivery::None,
            expires_at: None,
            status: RequestStatus::Open,
            held_by: None,
            created_at: Timestamp(1),
        }
    }
}

impl Bench {
    async fn parties(&self, customer_number: &str) -> Parties {
        let customer = self.customer("+442079460958", customer_number).await;
        let card = self.card(&customer, 7);
        self.store.add_card(&card, &self.audit()).await.unwrap();
        let payee = PayeeId::fresh(&*self.entropy);
        let named = Payee {
            tenant: crate::ids::Tenant::default(),
            category: None,
            id: payee.clone(),
            name: "Water Works".into(),
            spoken_name_wav: None,
            created_at: Timestamp(1),
        };
        self.store.add_payee(&named, &self.audit()).await.unwrap();
        Parties { customer, card, payee }
    }

    async fn request_of(&self, parties: &Parties) -> RequestId {
        let request = parties.asks(RequestId::fresh(&*self.entropy));
        self.store.add_request(&request, &self.audit()).await.unwrap();
        request.id
    }

    fn news(&self) -> OutboxRecord {
        OutboxRecord { id: OutboxId::fresh(&*self.entropy), at: Timestamp(2), topic: "t".into(), payload: json!({}) }
    }

    fn charge(&self, parties: &Parties, request: &RequestId, call: &CallId) -> NewCharge {
        let (intent, attempt) = (IntentId::fresh(&*self.entropy), AttemptId::fresh(&*self.entropy));
        NewCharge {
            guards: Guards::default(),
            request: parties.asks(request.clone()),
            card: parties.card.clone(),
            pending: Transfer {
                id: TransferId::fresh(&*self.entropy),
                kind: TransferKind::Pending,
                debit: AccountName::acquirer(GATEWAY, Currency::Usd),
                credit: AccountName::payee(&parties.payee, Currency::Usd),
                amount: money(),
                intent: intent.clone(),
                cause: Cause::Attempt(attempt.clone()),
                at: Timestamp(2),
            },
            attempt: Attempt {
                id: attempt,
                number: 0,
                intent: intent.clone(),
                operation: Operation::Charge,
                of_attempt: None,
                gateway: GATEWAY.into(),
                amount: money(),
                prepared_at: Timestamp(2),
                state: AttemptState::Prepared,
                version: 0,
            },
            intent: Intent {
                id: intent,
                customer: parties.customer.clone(),
                request: request.clone(),
                payee: parties.payee.clone(),
                card: parties.card.id.clone(),
                last4: "1111".into(),
                occasion: call.clone().into(),
                amount: money(),
                capture: Capture::Automatic,
                authorisation_expires_at: None,
                status: IntentStatus::Pending,
                created_at: Timestamp(2),
            },
            schedule: Schedule::Due(Timestamp(2)),
            evidence: Evidence::default(),
            audit: self.audit(),
            outbox: self.news(),
        }
    }

    async fn submitted(&self, parties: &Parties) -> NewCharge {
        let charge = self.charge(parties, &self.request_of(parties).await, &CallId::fresh(&*self.entropy));
        assert!(matches!(self.store.submit(&charge).await.unwrap(), Submitted::Fresh { .. }));
        charge
    }

    /// The attempt as it is once the acquirer has said yes, and what goes with it.
    fn paid(&self, charge: &NewCharge) -> (Attempt, Settlement) {
        let state = AttemptState::Succeeded { at: Timestamp(3), gateway_reference: format!("g-{}", charge.attempt.id) };
        let attempt = Attempt { state, version: charge.attempt.version + 1, ..charge.attempt.clone() };
        let i = &charge.intent;
        let mut reference = 0_u64;
        for byte in self.entropy.bytes::<8>() {
            reference = reference.wrapping_mul(251).wrapping_add(u64::from(byte));
        }
        let receipt = Receipt {
            id: ReceiptId::fresh(&*self.entropy),
            reference: format!("{:010}", reference % 10_000_000_000),
            intent: i.id.clone(),
            amount: i.amount,
            payee: i.payee.clone(),
            payee_name: "Water Works".into(),
            last4: i.last4.clone(),
            at: Timestamp(3),
            gateway_reference: format!("g-{}", charge.attempt.id),
            evidence: Evidence::default(),
            signature: None,
        };
        let settlement = Settlement {
            transfer: Some(charge.pending.posted(TransferId::fresh(&*self.entropy), Timestamp(3))),
            receipt: Some(receipt),
            audit: vec![self.audit(), self.audit()],
            outbox: vec![self.news()],
            ..Settlement::default()
        };
        (attempt, settlement)
    }

    async fn books(&self) -> ledger::Books {
        let books = ledger::verify(&self.store.transfers().await.unwrap()).unwrap();
        books.balanced().unwrap();
        assert_eq!(self.store.disagreements(9).await.unwrap(), [], "books and audit tell the same");
        books
    }
}

fn money() -> Money {
    Money::new(MINOR, Currency::Usd).unwrap()
}

async fn the_same_submission_by_many_is_one_payment(desk: Bench) {
    let parties = desk.parties("111111").await;
    let (request, call) = (desk.request_of(&parties).await, CallId::fresh(&*desk.entropy));
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let (store, charge) = (desk.store.clone(), desk.charge(&parties, &request, &call));
        tasks.spawn(async move { store.submit(&charge).await.unwrap() });
    }
    let outcomes = tasks.join_all().await;
    let fresh: Vec<_> = outcomes.iter().filter(|o| matches!(o, Submitted::Fresh { .. })).collect();
    let [Submitted::Fresh { intent, number: 1.. }] = fresh[..] else { panic!("{fresh:?}") };
    assert_eq!(outcomes.iter().filter(|o| **o == Submitted::Already(intent.clone())).count(), 49, "{outcomes:?}");
    assert_eq!(desk.store.transfers().await.unwrap().len(), 1);
    let other = NewCharge {
        intent: Intent { card: CardId::fresh(&*desk.entropy), ..desk.charge(&parties, &request, &call).intent },
        ..desk.charge(&parties, &request, &call)
    };
    let refused = desk.store.submit(&other).await.unwrap();
    assert_eq!(refused, Submitted::Refused(SubmitRefusal::SameKeyOtherContent));
}

async fn of_many_calls_about_one_request_one_pays_it(desk: Bench) {
    let parties = desk.parties("111111").await;
    let request = desk.request_of(&parties).await;
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let call = CallId::fresh(&*desk.entropy);
        let (store, charge) = (desk.store.clone(), desk.charge(&parties, &request, &call));
        tasks.spawn(async move { store.submit(&charge).await.unwrap() });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|o| matches!(o, Submitted::Fresh { .. })).count(), 1);
    let refused = |o: &&Submitted| matches!(o, Submitted::Refused(SubmitRefusal::Request(_)));
    assert_eq!(outcomes.iter().filter(refused).count(), 49, "{outcomes:?}");
    assert_eq!((desk.store.payments(99).await.unwrap().len(), desk.store.transfers().await.unwrap().len()), (1, 1));
}

async fn what_many_workers_claim_is_claimed_once(desk: Bench) {
    let parties = desk.parties("111111").await;
    let mut due = Vec::new();
    for _ in 0..20 {
        due.push(desk.submitted(&parties).await.attempt.id);
    }
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let (store, claim) = (desk.store.clone(), claim(&desk, 10, 3));
        tasks.spawn(async move { store.claim(&claim).await.unwrap() });
    }
    let mut claimed: Vec<AttemptId> = Vec::new();
    for jobs in tasks.join_all().await {
        assert!(jobs.len() <= 3);
        claimed.extend(jobs.into_iter().map(|job| job.attempt.id));
    }
    // Who came while others were claiming found less than there was; nobody found what another had.
    claimed.extend(desk.store.claim(&claim(&desk, 10, 99)).await.unwrap().into_iter().map(|job| job.attempt.id));
    claimed.sort();
    due.sort();
    assert_eq!(claimed, due);
}

async fn a_lease_that_runs_out_is_taken_over(desk: Bench) {
    let parties = desk.parties("111111").await;
    let charge = desk.submitted(&parties).await;
    let elsewhere = Claim { gateway: "another".into(), ..claim(&desk, 10, 9) };
    assert!(desk.store.claim(&elsewhere).await.unwrap().is_empty(), "another acquirer's worker leaves it alone");
    let job = desk.store.claim(&claim(&desk, 10, 9)).await.unwrap().pop().unwrap();
    assert_eq!((&job.attempt.id, &job.pending, &job.intent), (&charge.attempt.id, &charge.pending, &charge.intent));
    assert_eq!(job.payee_name, "Water Works");
    assert!(desk.store.claim(&claim(&desk, 11, 9)).await.unwrap().is_empty(), "it is leased");
    let again = desk.store.claim(&claim(&desk, 10 + LEASE, 9)).await.unwrap();
    assert_eq!(again.len(), 1, "its lease has run out");
    desk.store.put_off(&again[0].attempt, Timestamp(5000)).await.unwrap();
    assert!(desk.store.claim(&claim(&desk, 4999, 9)).await.unwrap().is_empty());
    assert_eq!(desk.store.claim(&claim(&desk, 5000, 9)).await.unwrap().len(), 1);
    let ahead = Claim { horizon: Timestamp(100), ..claim(&desk, 50, 9) };
    assert_eq!(desk.store.claim(&ahead).await.unwrap().len(), 1, "what a clock that ran ahead has put off is due");
    assert_eq!(desk.store.unfinished(9).await.unwrap().len(), 1);
}

async fn what_is_fresh_and_what_is_in_doubt_wait_in_one_line(desk: Bench) {
    let parties = desk.parties("111111").await;
    // When each was written, and from when on it is due: the oldest goes first, whichever it is.
    let mut line = Vec::new();
    for (written, due) in [(10, 50), (20, 0), (30, 70), (60, 0), (80, 0), (15, 90)] {
        let mut charge = desk.charge(&parties, &desk.request_of(&parties).await, &CallId::fresh(&*desk.entropy));
        (charge.intent.created_at, charge.attempt.prepared_at) = (Timestamp(written), Timestamp(written));
        charge.schedule = Schedule::Due(if due == 0 { DUE_AT_ONCE } else { Timestamp(due) });
        desk.store.submit(&charge).await.unwrap();
        line.push((if due == 0 { written } else { due }, charge.attempt.id));
    }
    line.sort();
    let mut claimed = Vec::new();
    while let Some(job) = desk.store.claim(&claim(&desk, 100, 1)).await.unwrap().pop() {
        claimed.push(job.attempt.id);
    }
    assert_eq!(claimed, line.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
}

const LEASE: i64 = 1000;

fn claim(desk: &Bench, now: i64, limit: u32) -> Claim {
    let lease = Lease { owner: WorkerId::fresh(&*desk.entropy), until: Timestamp(now + LEASE) };
    Claim { lease, gateway: GATEWAY.into(), now: Timestamp(now), horizon: Timestamp(1_000_000), limit }
}

async fn an_attempt_is_moved_on_by_one_of_many(desk: Bench) {
    let parties = desk.parties("111111").await;
    let charge = desk.submitted(&parties).await;
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let (store, (attempt, settlement)) = (desk.store.clone(), desk.paid(&charge));
        tasks.spawn(async move { store.advance(&attempt, &settlement).await });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
    assert!(outcomes.iter().all(|o| matches!(o, Ok(()) | Err(StoreError::Conflict(_)))), "{outcomes:?}");
    let payment = desk.store.payment(&charge.intent.id).await.unwrap().unwrap();
    assert_eq!((payment.intent.status, payment.transfers.len()), (IntentStatus::Paid, 2));
    let receipt = payment.receipt.unwrap();
    assert_eq!(desk.store.receipt_by_reference(&receipt.reference).await.unwrap().unwrap(), receipt);
    let settled = desk.store.request(&charge.intent.request).await.unwrap().unwrap().request;
    assert_eq!((settled.status, settled.held_by), (RequestStatus::Paid, Some(charge.intent.id.clone())));
    let known = desk.store.payment_by_gateway_reference(&format!("g-{}", charge.attempt.id)).await.unwrap().unwrap();
    assert_eq!(known.intent.id, charge.intent.id);
    assert_eq!(desk.books().await.open().count(), 0);
    // Another payment, and the same ten digits for its receipt.
    let next = desk.submitted(&parties).await;
    let (attempt, mut settlement) = desk.paid(&next);
    settlement.receipt.as_mut().unwrap().reference = receipt.reference;
    let drawn = desk.store.advance(&attempt, &settlement).await;
    assert!(matches!(drawn, Err(StoreError::Exists(_))), "{drawn:?}");
    let untouched = desk.store.job(&next.attempt.id).await.unwrap().unwrap();
    assert_eq!((untouched.attempt.state, untouched.attempt.version), (AttemptState::Prepared, 0), "nothing of it was written");
}

async fn of_many_at_once_the_one_that_is_refused_fails_alone(desk: Bench) {
    let parties = desk.parties("111111").await;
    let mut charges = Vec::new();
    for _ in 0..30 {
        charges.push(desk.submitted(&parties).await);
    }
    let (first, settlement) = desk.paid(&charges[0]);
    desk.store.advance(&first, &settlement).await.unwrap();
    let drawn = settlement.receipt.unwrap().reference;
    let mut tasks = JoinSet::new();
    for (nth, charge) in charges.iter().enumerate().skip(1) {
        let (mut attempt, mut settlement) = desk.paid(charge);
        match nth {
            7 => settlement.receipt.as_mut().unwrap().reference.clone_from(&drawn),
            13 => attempt.version += 1,
            19 => settlement.audit[0].id = settlement.audit[1].id.clone(),
            _ => {}
        }
        let store = desk.store.clone();
        tasks.spawn(async move { (nth, store.advance(&attempt, &settlement).await) });
    }
    for (nth, outcome) in tasks.join_all().await {
        match nth {
            7 => assert!(matches!(outcome, Err(StoreError::Exists(_))), "{outcome:?}"),
            13 => assert!(matches!(outcome, Err(StoreError::Conflict("attempt"))), "{outcome:?}"),
            19 => assert!(matches!(outcome, Err(StoreError::Refused(_))), "{outcome:?}"),
            _ => outcome.unwrap(),
        }
    }
    let open = desk.books().await.open().count();
    assert_eq!(open, 3, "of those that were refused nothing was written");
}

async fn who_waits_for_a_row_keeps_nobody_else_waiting(desk: Bench) {
    // SQLite has no locks of rows.
    let Some(url) = desk.config().url else { return };
    let parties = desk.parties("111111").await;
    let (held, free) = (desk.submitted(&parties).await, desk.submitted(&parties).await);
    let mut somebody = PgConnection::connect(url.expose()).await.unwrap();
    let hold = format!("BEGIN; SELECT 1 FROM attempts WHERE id = '{}' FOR UPDATE", held.attempt.id);
    sqlx::raw_sql(AssertSqlSafe(hold)).execute(&mut somebody).await.unwrap();
    let mut tasks = JoinSet::new();
    for charge in [&held, &free] {
        let (store, (attempt, settlement)) = (desk.store.clone(), desk.paid(charge));
        tasks.spawn(async move { store.advance(&attempt, &settlement).await.map(|()| attempt.id) });
    }
    assert_eq!(tasks.join_next().await.unwrap().unwrap().unwrap(), free.attempt.id);
    assert!(tasks.try_join_next().is_none(), "it waits");
    sqlx::raw_sql("COMMIT").execute(&mut somebody).await.unwrap();
    assert_eq!(tasks.join_next().await.unwrap().unwrap().unwrap(), held.attempt.id);
}

async fn refunds_at_once_never_exceed_what_was_captured(desk: Bench) {
    let parties = desk.parties("111111").await;
    let charge = desk.submitted(&parties).await;
    let (attempt, settlement) = desk.paid(&charge);
    desk.store.advance(&attempt, &settlement).await.unwrap();
    let mut tasks = JoinSet::new();
    let part = Money::new(400, Currency::Usd).unwrap();
    for i in 0..30 {
        let id = AttemptId::fresh(&*desk.entropy);
        let new = NewOperation {
            // Each key twice: of those the second is the first again.
            command: Command {
                key: format!("k{}", i / 2),
                intent: charge.intent.id.clone(),
                operation: Operation::Refund,
                amount: Some(part),
            },
            attempt: Attempt {
                id: id.clone(),
                operation: Operation::Refund,
                of_attempt: Some(charge.attempt.id.clone()),
                amount: part,
                prepared_at: Timestamp(4),
                ..charge.attempt.clone()
            },
            schedule: Schedule::Due(Timestamp(4)),
            pending: Some(Transfer {
                id: TransferId::fresh(&*desk.entropy),
                debit: charge.pending.credit.clone(),
                credit: charge.pending.debit.clone(),
                amount: part,
                cause: Cause::Attempt(id),
                ..charge.pending.clone()
            }),
            audit: crate::store::AuditRecord { id: AuditId::fresh(&*desk.entropy), ..desk.audit() },
            outbox: desk.news(),
        };
        let store = desk.store.clone();
        tasks.spawn(async move { store.begin_operation(&new).await.unwrap() });
    }
    let outcomes = tasks.join_all().await;
    let fresh = outcomes.iter().filter(|o| matches!(o, Begun::Fresh(_))).count();
    assert_eq!(fresh, 4, "four times 4.00 of 19.99: {outcomes:?}");
    assert_eq!(outcomes.iter().filter(|o| matches!(o, Begun::Already(_))).count(), 4, "{outcomes:?}");
    let payment = desk.store.payment(&charge.intent.id).await.unwrap().unwrap();
    assert_eq!(payment.balance().refundable(), MINOR - 1600);
    // Past every rule of the program there is the database's own.
    let forced = "INSERT INTO attempts (id, intent_id, operation, of_attempt, gateway, amount_minor, currency, state, detail, version, due_at, created_at)
        SELECT 'att_forced', intent_id, 'refund', id, gateway, 400, currency, 'prepared', '{\"state\":\"prepared\"}', 0, 1, 1
        FROM attempts WHERE operation = 'charge'";
    assert!(desk.sql(forced).await.is_err_and(|e| e.contains("refunds would exceed")));
    desk.books().await;
}

async fn a_customer_who_pays_is_not_deleted_and_one_who_is_deleted_does_not_pay(desk: Bench) {
    for round in 0..12 {
        let parties = desk.parties(&format!("77777{round:02}")).await;
        let charge = desk.charge(&parties, &desk.request_of(&parties).await, &CallId::fresh(&*desk.entropy));
        let mut tasks = JoinSet::new();
        let (store, audit, customer) = (desk.store.clone(), desk.audit(), parties.customer.clone());
        let delete = tokio::spawn(async move { store.delete_customer(&customer, &audit).await });
        for _ in 0..4 {
            let (store, charge) = (desk.store.clone(), charge.clone());
            tasks.spawn(async move { store.submit(&charge).await.unwrap() });
        }
        let fresh = tasks.join_all().await.iter().filter(|o| matches!(o, Submitted::Fresh { .. })).count();
        match delete.await.unwrap() {
            Ok(()) => assert_eq!(fresh, 0, "a payment of somebody who is gone"),
            Err(StoreError::Refused(_)) => assert_eq!(fresh, 1, "neither deleted nor paid"),
            Err(other) => panic!("{other}"),
        }
    }
}
