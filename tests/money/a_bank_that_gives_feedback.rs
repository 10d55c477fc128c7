//! A bank announces deductions, customers confirm payments, and only where both agree the bank is instructed, once: whatever
//! comes first, twice, altered or late, whatever the bank's line does, and wherever our process is killed.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use voicepay::bank::reconcile::{Day, Finding, Kind, reconcile};
use voicepay::bank::{CRASH_POINTS, judge};
use voicepay::clock::SystemClock;
use voicepay::crash::CRASH_ENV;
use voicepay::gateway::bank_feedback::NotTaken;
use voicepay::ids::{CallId, CardId, CustomerId, RequestId};
use voicepay::money::{Currency, Money};
use voicepay::payment::pairing::{Input, Refusal};
use voicepay::payment::{Attempt, AttemptState, Capture, DeclineReason, Evidence, Operation};
use voicepay::processor::{ChargeOrder, OperationOrder, Outcome};

use super::feedback_bank::{Bank, Bounds, CARD, Works, announce, message};
use super::support::{AMOUNT, child, told_dir};

const BANK_ENV: &str = "VOICEPAY_TEST_BANK";
const FIRST_ENV: &str = "VOICEPAY_TEST_FIRST";
const PATIENCE: Duration = Duration::from_secs(30);

fn succeeded(a: &Attempt) -> bool {
    matches!(a.state, AttemptState::Succeeded { .. })
}

async fn open() -> (tempfile::TempDir, Bank, Works) {
    let dir = tempfile::tempdir().unwrap();
    let bank = Bank::start(dir.path()).await;
    let works = Works::open(dir.path(), bank.address, Bounds::default()).await;
    (dir, bank, works)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_side_comes_first_the_bank_deducts_once_and_gives_back_once() {
    let (_dir, bank, works) = open().await;
    let orders = works.house.orders(2).await;
    // The payment first: the customer's word alone moves nothing.
    let first = works.house.processor.submit(orders[0].clone()).await.unwrap();
    works.until(&first, "sent", |a| matches!(a.state, AttemptState::NeedsReconciliation { .. })).await;
    assert_eq!(bank.did().len(), 0);
    let told = message("msg_1", &orders[0].request, AMOUNT);
    let waits = tokio::spawn({
        let (processor, intent) = (works.house.processor.clone(), first.clone());
        async move { processor.outcome(&intent, PATIENCE).await.unwrap() }
    });
    assert_eq!(bank.tell(works.address, json!({ "message": told })).await, (200, "matched".into()));
    assert!(matches!(waits.await.unwrap(), Outcome::Paid(_)));
    // The bank first: its word alone moves nothing, either.
    let other = message("msg_2", &orders[1].request, AMOUNT);
    assert_eq!(bank.tell(works.address, json!({ "message": other, "how": "ed25519" })).await, (200, "waiting".into()));
    assert_eq!(bank.did().len(), 1);
    let second = works.house.processor.submit(orders[1].clone()).await.unwrap();
    assert!(matches!(works.house.processor.outcome(&second, PATIENCE).await.unwrap(), Outcome::Paid(_)));
    for told in [&told, &other, &told] {
        assert_eq!(bank.tell(works.address, json!({ "message": told })).await, (200, "matched".into()), "told again");
    }
    assert_eq!((bank.moved(), works.books().await), (2 * AMOUNT, 2 * AMOUNT));

    let refund = |key: &str, minor: i64| OperationOrder {
        key: key.into(),
        intent: first.clone(),
        operation: Operation::Refund,
        amount: Some(Money::new(minor, Currency::Usd).unwrap()),
        by: "test".into(),
        why: String::new(),
    };
    bank.faults(&["drop_after"]).await;
    let given = works.house.processor.operate(refund("one", 500)).await.unwrap();
    let done = works.house.processor.operation(&given, PATIENCE).await.unwrap();
    assert!(succeeded(&done), "{done:?}");
    assert_eq!((bank.moved(), works.books().await), (2 * AMOUNT - 500, 2 * AMOUNT - 500));
    assert_eq!(bank.did().iter().filter(|l| l["did"] == "refunded").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_agree_waits_for_a_person_and_the_payment_goes_on_waiting() {
    let (_dir, bank, works) = open().await;
    let orders = works.house.orders(2).await;
    let reference = &orders[0].request;
    let intent = works.house.processor.submit(orders[0].clone()).await.unwrap();
    let sent = works.until(&intent, "sent", |a| matches!(a.state, AttemptState::NeedsReconciliation { .. })).await;
    let quarantined = (200, "quarantined".to_owned());
    for (n, (field, value)) in [
        ("amount_minor", json!(AMOUNT + 1)),
        ("amount_minor", json!(AMOUNT - 1)),
        ("currency", json!("EUR")),
        ("account", json!("00".repeat(16))),
    ]
    .into_iter()
    .enumerate()
    {
        let mut wrong = message(&format!("msg_wrong_{n}"), reference, AMOUNT);
        wrong[field] = value;
        assert_eq!(bank.tell(works.address, json!({ "message": wrong })).await, quarantined, "{field}");
    }
    let decide = async |input| {
        let parts = (&*works.house.store, &SystemClock as &dyn voicepay::clock::Clock, &*works.house.entropy);
        judge(parts, works.waits, reference, "cli", input).await
    };
    // A person can't release what does not agree.
    let release = |case| Input::Release { case, attempt: sent.id.clone(), by: "Ann".into() };
    assert!(matches!(decide(release(1)).await, Err(NotTaken::Refused(Refusal::OtherFacts(_)))));
    decide(Input::Reject { case: 1, by: "Ann".into() }).await.unwrap();
    assert_eq!(works.house.store.quarantined_deductions(None, 9).await.unwrap(), std::slice::from_ref(reference));
    assert_eq!((bank.did().len(), works.pairing(reference).await.quarantine().count()), (0, 3));

    let right = message("msg_right", reference, AMOUNT);
    assert_eq!(bank.tell(works.address, json!({ "message": right })).await, (200, "matched".into()));
    works.until(&intent, "paid", succeeded).await;
    let twin = message("msg_twin", reference, AMOUNT);
    assert_eq!(bank.tell(works.address, json!({ "message": twin })).await, quarantined, "the same under another id");
    let mut reused = right.clone();
    reused["amount_minor"] = json!(AMOUNT + 5);
    let (status, why) = bank.tell(works.address, json!({ "message": reused })).await;
    assert!(status == 409 && why.contains("message_id was used before"), "{status} {why}");
    let elsewhere = message("msg_right", &orders[1].request, AMOUNT);
    assert_eq!(bank.tell(works.address, json!({ "message": elsewhere })).await.0, 409, "under another reference");
    assert_eq!(bank.did().len(), 1);
    let audited = works.house.store.audit_trail(200).await.unwrap();
    assert!(audited.iter().any(|row| row.action == "deduction.rejected" && row.actor == "cli"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forged_stale_malformed_or_too_much_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let bank = Bank::start(dir.path()).await;
    let works = Works::open(dir.path(), bank.address, Bounds { open_limit: 1, ..Bounds::default() }).await;
    let orders = works.house.orders(2).await;
    let told = message("msg_1", &orders[0].request, 1_999);
    for (how, word) in [
        ("forged", "no signature"),
        ("altered", "no signature"),
        ("unsigned", "webhook-signature"),
        ("stale", "older"),
        ("ahead", "future"),
    ] {
        let (status, why) = bank.tell(works.address, json!({ "message": told, "how": how })).await;
        assert!(status == 401 && why.contains(word), "{how}: {status} {why}");
    }
    for (raw, status, word) in [
        ("{}".to_owned(), 400, "a field is missing"),
        ("nonsense".to_owned(), 400, "no JSON"),
        (told.to_string(), 400, "webhook-id"),
        ("x".repeat(70_000), 413, "longer than 65536 bytes"),
    ] {
        let answer = bank.tell(works.address, json!({ "raw": raw, "id": "msg_raw" })).await;
        assert!(answer.0 == status && answer.1.contains(word), "{answer:?}");
    }
    assert_eq!(works.pairing(&orders[0].request).await.length(), 0);
    assert_eq!(bank.tell(works.address, json!({ "message": told })).await, (200, "waiting".into()));
    let more = message("msg_2", &orders[1].request, AMOUNT);
    assert_eq!(bank.tell(works.address, json!({ "message": more })).await.0, 503, "as many are open as may be");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_banks_line_does_it_deducts_once_and_we_say_the_same() {
    let (_dir, mut bank, works) = open().await;
    let faults: [&[&str]; 11] = [
        &["drop_before"],
        &["drop_after"],
        &["error_before"],
        &["error_after"],
        &["conflict_after"],
        &["nonsense"],
        &["late"],
        &["other_id"],
        &["other_result"],
        &["drop_after", "late", "error_before"],
        &["refuse"],
    ];
    let orders = works.house.orders(faults.len() + 2).await;
    let mut paid = 0;
    for (n, faults) in faults.into_iter().enumerate() {
        bank.faults(faults).await;
        let told = message(&format!("msg_{n}"), &orders[n].request, AMOUNT);
        assert_eq!(bank.tell(works.address, json!({ "message": told })).await.0, 200);
        let intent = works.house.processor.submit(orders[n].clone()).await.unwrap();
        let ended = works.until(&intent, "at its end", |a| a.state.terminal()).await;
        match &ended.state {
            AttemptState::Succeeded { .. } => paid += AMOUNT,
            AttemptState::Declined { reason: DeclineReason::InsufficientFunds, .. } => assert_eq!(faults, ["refuse"]),
            other => panic!("{faults:?}: {other:?}"),
        }
        assert_eq!((bank.moved(), works.books().await), (paid, paid), "{faults:?}");
        assert_eq!(bank.did().len(), n + 1, "{faults:?}");
    }
    // Another amount than was instructed waits for a person.
    let [.., odd, last] = &orders[..] else { panic!() };
    bank.faults(&["other_amount"]).await;
    bank.tell(works.address, json!({ "message": message("msg_odd", &odd.request, AMOUNT) })).await;
    let intent = works.house.processor.submit(odd.clone()).await.unwrap();
    works.until(&intent, "in conflict", |a| matches!(a.state, AttemptState::Conflicted { .. })).await;
    // A bank that is away hears of it when it is back.
    bank.tell(works.address, json!({ "message": message("msg_last", &last.request, AMOUNT) })).await;
    bank.stop();
    let intent = works.house.processor.submit(last.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    bank.start_again();
    works.until(&intent, "paid", succeeded).await;
    assert_eq!(bank.moved(), paid + 2 * AMOUNT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_announces_in_time_fails_and_a_late_message_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bank = Bank::start(dir.path()).await;
    let works = Works::open(dir.path(), bank.address, Bounds { wait_for_bank_s: 1, ..Bounds::default() }).await;
    let order = works.house.furnish(CARD).await;
    let intent = works.house.processor.submit(order.clone()).await.unwrap();
    let declined = |a: &Attempt| matches!(a.state, AttemptState::Declined { reason: DeclineReason::Unannounced, .. });
    works.until(&intent, "declined", declined).await;
    let late = message("msg_late", &order.request, AMOUNT);
    assert_eq!(bank.tell(works.address, json!({ "message": late })).await, (200, "quarantined".into()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((bank.did().len(), works.books().await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_of_the_day_every_difference_is_found_and_nothing_is_changed() {
    let (_dir, bank, works) = open().await;
    let orders = works.house.orders(3).await;
    for (n, order) in orders.iter().enumerate() {
        bank.tell(works.address, json!({ "message": message(&format!("msg_{n}"), &order.request, AMOUNT) })).await;
        let intent = works.house.processor.submit(order.clone()).await.unwrap();
        works.until(&intent, "paid", succeeded).await;
    }
    let at = bank.did()[0]["at"].as_str().unwrap().to_owned();
    let date = at.split('T').next().unwrap();
    let file = bank.day(date).await;
    let compare = async |file: &str, also: &[&str]| {
        let (mut found, day) = (Vec::<Finding>::new(), Day::parse(date));
        let also = also.iter().map(|text| text.as_bytes());
        let summary = reconcile(&*works.house.store, file.as_bytes(), also, day, |f| found.push(f)).await.unwrap();
        assert_eq!(summary.findings, u64::try_from(found.len()).unwrap());
        let mut kinds: Vec<_> = found.into_iter().map(|f| f.kind).collect();
        kinds.sort();
        kinds
    };
    assert_eq!(compare(&file, &[]).await, [], "{file}");
    let lines: Vec<_> = file.lines().map(str::to_owned).collect();
    let [head, one, two, three, total] = &lines[..] else { panic!("{file}") };
    let with = |changed: &[&str]| changed.join("\n");
    let wrong = two.replace(&AMOUNT.to_string(), &(AMOUNT + 1).to_string());
    assert_eq!(compare(&with(&[head, one, &wrong, three, total]), &[]).await, [Kind::Amount, Kind::TotalAmount]);
    let euros = two.replace("USD", "EUR");
    assert_eq!(compare(&with(&[one, &euros, three, total]), &[]).await, [Kind::Currency, Kind::TotalAmount]);
    assert_eq!(compare(&with(&[one, &two.replace("deducted", "refused"), three, total]), &[]).await, [Kind::Result]);
    let short = format!("total,2,USD={}", 2 * AMOUNT);
    assert_eq!(compare(&with(&[one, two, &short]), &[]).await, [Kind::MissingThere]);
    assert_eq!(compare(&with(&[one, two, &short]), &[three]).await, [], "it stands in the file of the day after");
    let twice = format!("total,4,USD={}", 4 * AMOUNT);
    assert_eq!(compare(&with(&[one, two, two, three, &twice]), &[]).await, [Kind::Duplicate]);
    let stranger = one.replace(one.split(',').next().unwrap(), "ins_0123456789abcdef01234567");
    assert_eq!(compare(&with(&[one, two, three, &stranger, &twice]), &[]).await, [Kind::MissingHere]);
    assert_eq!(compare(&with(&[one, two, three]), &[]).await, [Kind::TotalLine]);
    assert_eq!(compare(&with(&[one, two, three, "x,y", total]), &[]).await, [Kind::Malformed]);
    assert_eq!(compare(&with(&[one, two, three, "total,9,USD=1"]), &[]).await, [Kind::TotalCount, Kind::TotalAmount]);
    assert_eq!(compare(&file, &[]).await, [], "nothing has changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_hear_and_send_at_once_instruct_the_bank_once_a_payment() {
    const PAYMENTS: usize = 8;
    let (dir, bank, one) = open().await;
    let two = Works::open(dir.path(), bank.address, Bounds::default()).await;
    let mut intents = Vec::new();
    for (n, order) in one.house.orders(PAYMENTS).await.iter().enumerate() {
        let told = json!({ "message": message(&format!("msg_{n}"), &order.request, AMOUNT) });
        let (first, second) = (bank.tell(one.address, told.clone()), bank.tell(two.address, told));
        let works = if n % 2 == 0 { &one } else { &two };
        let (first, second, intent) = tokio::join!(first, second, works.house.processor.submit(order.clone()));
        assert_eq!((first.0, second.0), (200, 200));
        intents.push(intent.unwrap());
    }
    for intent in &intents {
        one.until(intent, "paid", succeeded).await;
    }
    assert_eq!(bank.did().len(), PAYMENTS);
    assert_eq!(one.books().await, bank.moved());
}

/// What a killed process and the one after it do alike, with the same order and the same message.
async fn pay(works: &Works, bank_first: bool, dir: &Path, bank: std::net::SocketAddr) {
    let order = order_in(dir);
    let told = json!({ "raw": std::fs::read_to_string(dir.join("message")).unwrap(), "id": "msg_1" });
    // As a bank does: again until it is taken.
    let tell = async || {
        for _ in 0..100 {
            match announce(bank, works.address, told.clone()).await {
                (200, _) => return,
                (status, why) => assert!(status == 503, "{status} {why}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the message was not taken");
    };
    if bank_first {
        tell().await;
    }
    let intent = works.house.processor.submit(order).await.unwrap();
    if !bank_first {
        works.until(&intent, "sent", |a| !matches!(a.state, AttemptState::Prepared | AttemptState::Dispatched { .. })).await;
    }
    tell().await;
    works.until(&intent, "paid", succeeded).await;
}

/// The process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run as a child process by the test below"]
async fn child_pays_by_feedback() {
    let Some(dir) = told_dir() else { return };
    let bank = std::env::var(BANK_ENV).unwrap().parse().unwrap();
    let works = Works::open(&dir, bank, Bounds::default()).await;
    let order = works.house.furnish(CARD).await;
    let lines = [order.customer.as_str(), order.request.as_str(), order.card.as_str(), order.occasion.as_str()].join("\n");
    std::fs::write(dir.join("order"), lines).unwrap();
    std::fs::write(dir.join("message"), message("msg_1", &order.request, AMOUNT).to_string()).unwrap();
    pay(&works, std::env::var(FIRST_ENV).unwrap() == "bank", &dir, bank).await;
}

fn order_in(dir: &Path) -> ChargeOrder {
    let text = std::fs::read_to_string(dir.join("order")).unwrap();
    let [customer, request, card, call] = text.lines().collect::<Vec<_>>().try_into().unwrap();
    ChargeOrder {
        customer: CustomerId::parse(customer).unwrap(),
        request: RequestId::parse(request).unwrap(),
        amount: Money::new(AMOUNT, Currency::Usd).unwrap(),
        card: CardId::parse(card).unwrap(),
        occasion: CallId::parse(call).unwrap().into(),
        capture: Capture::Automatic,
        evidence: Evidence::default(),
        guards: voicepay::processor::OrderGuards::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_the_journal_and_what_follows_it_the_bank_deducts_exactly_once() {
    let name = "a_bank_that_gives_feedback::child_pays_by_feedback";
    let [before_append, after_append, before_instruction, after_instruction] = CRASH_POINTS;
    let mut points = vec![before_instruction.to_owned(), after_instruction.to_owned()];
    for nth in 1..=3 {
        points.extend([format!("{before_append}#{nth}"), format!("{after_append}#{nth}")]);
    }
    for first in ["bank", "payment"] {
        for point in &points {
            let dir = tempfile::tempdir().unwrap();
            let bank = Bank::start(dir.path()).await;
            let env = [(CRASH_ENV, point.as_str()), (BANK_ENV, &bank.address.to_string()), (FIRST_ENV, first)];
            let ended = tokio::task::block_in_place(|| child(name, dir.path(), &env, None));
            assert!(ended.killed, "{point}, {first} first, was not met:\n{}", ended.output);
            let works = Works::open(dir.path(), bank.address, Bounds::default()).await;
            pay(&works, first == "bank", dir.path(), bank.address).await;
            assert_eq!(bank.did().len(), 1, "{point}, {first} first: {:?}", bank.did());
            assert_eq!((bank.moved(), works.books().await), (AMOUNT, AMOUNT), "{point}, {first} first");
            assert!(works.house.store.open_deductions(None, 9).await.unwrap().is_empty(), "{point}, {first} first");
        }
    }
}
