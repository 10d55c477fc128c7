//! What must hold once everything has settled, whatever broke before: what we wrote down is compared with what the bank did, the other way round
//! too, and the books with both.

use std::collections::{BTreeMap, BTreeSet};

use super::bank::{Bank, Entry};
use voicepay::ledger::{self, AccountName, Books};
use voicepay::payment::{Attempt, AttemptState, DisputeState, IntentStatus, Operation, RequestStatus};
use voicepay::processor;
use voicepay::store::{Payment, Store};

/// How many outbox rows a run can have at most.
const OUTBOX_LIMIT: u32 = 100_000;
const PAGE: u32 = 500;

/// What was promised to somebody: by what was asked, all that was ever answered. It must be in the database whatever happened since, and asking
/// again must have given the same.
#[derive(Clone, Debug, Default)]
pub struct Promises(BTreeMap<String, BTreeSet<String>>);

impl Promises {
    pub fn add(&mut self, asked: &str, id: &str) {
        self.0.entry(asked.to_owned()).or_default().insert(id.to_owned());
    }
}

/// What is wrong. Empty is what we want.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Money moved more often than it may.
    pub double: Vec<String>,
    /// The bank's books and ours tell different stories, or something that was promised is gone or never ends.
    pub lost: Vec<String>,
    /// The rest: books that don't balance, wrong states, news told twice.
    pub other: Vec<String>,
}

impl Faults {
    pub fn none(&self) -> bool {
        self.double.is_empty() && self.lost.is_empty() && self.other.is_empty()
    }

    pub fn all(&self) -> Vec<String> {
        let named = |kind: &'static str, all: &[String]| all.iter().map(move |f| format!("{kind}: {f}")).collect::<Vec<_>>();
        [named("double", &self.double), named("lost", &self.lost), named("wrong", &self.other)].concat()
    }
}

/// Every payment with all that belongs to it.
pub async fn all_payments(store: &dyn Store) -> Vec<Payment> {
    let mut all: Vec<Payment> = Vec::new();
    loop {
        let page = store.payments_after(all.last().map(|p| &p.intent.id), PAGE).await.unwrap();
        let last = page.len() < usize::try_from(PAGE).unwrap();
        all.extend(page);
        if last {
            return all;
        }
    }
}

/// Compares everything.
pub async fn check(store: &dyn Store, bank: &Bank, promises: &Promises) -> Faults {
    let mut f = Faults::default();
    let payments = all_payments(store).await;
    let entries = bank.entries();
    at_most_once(&entries, &payments, &mut f);
    same_story(&entries, &payments, &mut f);
    kept(&payments, promises, &mut f);
    for payment in &payments {
        one_payment(store, payment, &mut f).await;
    }
    news(store, &payments, &mut f).await;
    f.other.extend(bank.misused().into_iter().map(|key| format!("the key {key} was sent with other content")));
    match ledger::verify(&store.transfers().await.unwrap()) {
        Ok(books) => books_agree(&books, &entries, &payments, &mut f),
        Err(error) => f.other.push(format!("the books: {error}")),
    }
    // The judgement that `voicepay books check` gives is asked too: it must see nothing where we see nothing.
    match processor::check::books(store).await {
        Ok(report) => f.other.extend(report.findings.into_iter().map(|finding| format!("books check: {finding}"))),
        Err(error) => f.other.push(format!("books check: {error}")),
    }
    f
}

fn at_most_once(entries: &[Entry], payments: &[Payment], f: &mut Faults) {
    let mut moved: BTreeMap<&str, u32> = BTreeMap::new();
    for entry in entries.iter().filter(|e| e.moved.is_some()) {
        *moved.entry(&entry.asked.reference).or_default() += 1;
    }
    let twice = moved.into_iter().filter(|(_, n)| *n > 1);
    f.double.extend(twice.map(|(reference, n)| format!("{reference} moved money {n} times")));
    let request_of: BTreeMap<&str, &str> =
        payments.iter().flat_map(|p| p.attempts.iter().map(|a| (a.id.as_str(), p.intent.request.as_str()))).collect();
    let mut charged: BTreeMap<&str, u32> = BTreeMap::new();
    for entry in entries.iter().filter(|e| e.stands().is_some()) {
        if matches!(entry.asked.operation, Operation::Charge | Operation::Capture)
            && let Some(request) = request_of.get(entry.asked.reference.as_str())
        {
            *charged.entry(request).or_default() += 1;
        }
    }
    let twice = charged.into_iter().filter(|(_, n)| *n > 1);
    f.double.extend(twice.map(|(request, n)| format!("{request} was charged {n} times")));
}

/// Every success at the bank is one here, and the other way round.
fn same_story(entries: &[Entry], payments: &[Payment], f: &mut Faults) {
    let ours: BTreeMap<&str, &Attempt> = payments.iter().flat_map(|p| &p.attempts).map(|a| (a.id.as_str(), a)).collect();
    for entry in entries.iter().filter(|e| e.stands().is_some()) {
        let (reference, asked) = (&entry.asked.reference, &entry.asked);
        match ours.get(reference.as_str()) {
            None => f.lost.push(format!("the bank did {reference}, which is not in the database")),
            Some(a) if a.operation != asked.operation || a.amount != asked.amount => {
                f.lost.push(format!("{reference} is something else at the bank"));
            }
            Some(a) if !a.state.done() => {
                f.lost.push(format!("the bank did {reference}, and here the {} is {}", a.operation.as_str(), a.state.name()));
            }
            Some(_) => {}
        }
    }
    let stands: BTreeMap<&str, &Entry> =
        entries.iter().filter(|e| e.stands().is_some()).map(|e| (e.asked.reference.as_str(), e)).collect();
    for attempt in ours.values() {
        let there = stands.get(attempt.id.as_str()).and_then(|e| e.stands());
        if attempt.state.done() && there != Some(attempt.amount) {
            f.lost.push(format!("{} {} succeeded here, and the bank has {there:?}", attempt.operation.as_str(), attempt.id));
        }
        if !attempt.state.terminal() {
            f.lost.push(format!("{} {} never ends: {:?}", attempt.operation.as_str(), attempt.id, attempt.state));
        }
    }
}

/// What was told to be taken over is there, once.
fn kept(payments: &[Payment], promises: &Promises, f: &mut Faults) {
    let intents = payments.iter().map(|p| p.intent.id.as_str());
    let there: BTreeSet<&str> = intents.chain(payments.iter().flat_map(|p| p.attempts.iter().map(|a| a.id.as_str()))).collect();
    for (asked, ids) in &promises.0 {
        if ids.len() > 1 {
            f.double.push(format!("{asked} was taken over {} times: {ids:?}", ids.len()));
        }
        let gone = ids.iter().filter(|id| !there.contains(id.as_str()));
        f.lost.extend(gone.map(|id| format!("{asked} was taken over as {id}, which is gone")));
    }
}

async fn one_payment(store: &dyn Store, p: &Payment, f: &mut Faults) {
    let id = &p.intent.id;
    let mut wrong = |what: String| f.other.push(format!("{id}: {what}"));
    let status = IntentStatus::of(&p.attempts);
    if status != p.intent.status {
        wrong(format!("is {:?}, and its attempts say {status:?}", p.intent.status));
    }
    let captures = |a: &&Attempt| matches!(a.operation, Operation::Charge | Operation::Capture) && a.state.done();
    let captured: i64 = p.attempts.iter().filter(captures).map(|a| a.amount.minor.get()).sum();
    let paid = captured > 0;
    if paid != p.receipt.is_some() {
        wrong(format!("captured {captured}, receipt: {}", p.receipt.is_some()));
    }
    let b = p.balance();
    if b.captured != captured || b.refund_taken > captured || b.refunded != b.refund_taken {
        wrong(format!("captured {captured}, and its balance is {b:?}"));
    }
    let request = store.request(&p.intent.request).await.unwrap().unwrap().request;
    let holds = request.held_by.as_ref() == Some(id);
    match p.intent.status {
        IntentStatus::Paid if request.status != RequestStatus::Paid || !holds => wrong("is paid, and its request is not".into()),
        IntentStatus::Failed if holds => wrong("has failed, and still holds its request".into()),
        IntentStatus::Pending if !holds => wrong("is pending, and does not hold its request".into()),
        IntentStatus::Paid | IntentStatus::Failed | IntentStatus::Pending => {}
    }
}

/// The outside was told of every success once.
async fn news(store: &dyn Store, payments: &[Payment], f: &mut Faults) {
    let mut told: BTreeMap<(String, String), u32> = BTreeMap::new();
    for row in store.outbox_waiting(OUTBOX_LIMIT).await.unwrap() {
        let intent = row.payload.get("intent").and_then(|i| i.as_str()).unwrap_or_default().to_owned();
        *told.entry((intent, row.topic)).or_default() += 1;
    }
    for p in payments {
        let count = |topic: &str| told.get(&(p.intent.id.to_string(), topic.to_owned())).copied().unwrap_or(0);
        let done = |of: &[Operation]| {
            u32::try_from(p.attempts.iter().filter(|a| of.contains(&a.operation) && a.state.done()).count()).unwrap()
        };
        let pairs = [
            ("payment.succeeded", done(&[Operation::Charge, Operation::Capture])),
            ("payment.authorised", done(&[Operation::Authorise])),
            ("payment.voided", done(&[Operation::Void])),
            ("refund.succeeded", done(&[Operation::Refund])),
        ];
        for (topic, expected) in pairs {
            if count(topic) != expected {
                f.other.push(format!("{}: {topic} was told {} times, not {expected}", p.intent.id, count(topic)));
            }
        }
    }
}

/// The acquirer's account says what the bank's journal says; nothing is reserved but for what still stands.
fn books_agree(books: &Books, entries: &[Entry], payments: &[Payment], f: &mut Faults) {
    let sum = |operations: &[Operation]| -> i64 {
        let of = entries.iter().filter(|e| operations.contains(&e.asked.operation));
        of.filter_map(Entry::stands).map(|m| m.minor.get()).sum()
    };
    let lost_disputes: i64 = payments
        .iter()
        .flat_map(|p| &p.disputes)
        .filter(|d| matches!(d.state, DisputeState::Lost { .. }))
        .map(|d| d.amount.minor.get())
        .sum();
    let expected = (sum(&[Operation::Charge, Operation::Capture]), sum(&[Operation::Refund]) + lost_disputes);
    let (mut debits, mut credits) = (0, 0);
    for (_, b) in books.balances().iter().filter(|(name, _)| AccountName::is_acquirer(name)) {
        debits += b.debits_posted;
        credits += b.credits_posted;
    }
    if (debits, credits) != expected {
        f.other.push(format!("the acquirer's account has {:?}, and the bank {expected:?}", (debits, credits)));
    }
    let mut may_stay: BTreeSet<&str> = BTreeSet::new();
    for p in payments {
        let open = p.disputes.iter().filter(|d| matches!(d.state, DisputeState::Opened));
        may_stay.extend(open.map(|d| d.id.as_str()));
        if p.intent.status == IntentStatus::Pending {
            let held = p
                .attempts
                .iter()
                .filter(|a| a.operation == Operation::Authorise && matches!(a.state, AttemptState::Succeeded { .. }));
            may_stay.extend(held.map(|a| a.id.as_str()));
        }
    }
    let left = books.open().filter(|t| !may_stay.contains(t.cause.as_str()));
    f.other.extend(left.map(|t| format!("{} is still reserved, for {}", t.id, t.cause.as_str())));
}
