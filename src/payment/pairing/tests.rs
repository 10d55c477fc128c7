//! The rules of pairing, one by one and in any order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::money::Currency;

const WAITS: Waits = Waits { for_payment: Duration::from_secs(86_400), for_bank: Duration::from_secs(3_600) };
const MINUTE_MS: i64 = 60_000;

fn money(minor: i64, currency: Currency) -> Money {
    Money::new(minor, currency).unwrap()
}

fn usd(minor: i64) -> Money {
    money(minor, Currency::Usd)
}

fn facts(amount: Money, account: u8) -> Facts {
    Facts { amount, account: Account::new([account; 16]) }
}

fn agreed() -> Facts {
    facts(usd(1999), 1)
}

fn attempt(n: usize) -> AttemptId {
    AttemptId::parse(&format!("att_{n}")).unwrap()
}

fn confirm(n: usize) -> Input {
    Input::Confirm { attempt: attempt(n), facts: agreed() }
}

fn message(id: &str, facts: Facts) -> Message {
    Message { id: id.parse().unwrap(), facts, at: Timestamp(5) }
}

fn heard(id: &str) -> Input {
    Input::Message(message(id, agreed()))
}

fn release(case: u32, n: usize) -> Input {
    Input::Release { case, attempt: attempt(n), by: "ann".into() }
}

fn answer(n: usize, answer: Answer) -> Input {
    Input::Answer { attempt: attempt(n), answer }
}

fn done() -> Answer {
    Answer::Done { amount: usd(1999) }
}

fn refused() -> Answer {
    Answer::Refused { reason: "insufficient_funds".into() }
}

fn fresh() -> Pairing {
    Pairing::new(RequestId::parse("req_1").unwrap())
}

/// Inputs a minute apart.
fn after(inputs: impl IntoIterator<Item = Input>) -> Pairing {
    let mut pairing = fresh();
    for (minute, input) in (0..).zip(inputs) {
        pairing = pairing.decide(WAITS, Timestamp(minute * MINUTE_MS), input).unwrap().after;
    }
    pairing
}

/// What the last input leads to, in words.
fn told(inputs: impl IntoIterator<Item = Input>) -> String {
    let mut inputs: Vec<_> = inputs.into_iter().collect();
    let (minutes, last) = (i64::try_from(inputs.len()).unwrap(), inputs.pop().unwrap());
    match after(inputs).decide(WAITS, Timestamp(minutes * MINUTE_MS), last) {
        Err(refusal) => refusal.to_string(),
        Ok(decision) => {
            let word = |e: &Entry| match &e.event {
                Event::Quarantined { case, reason } => {
                    format!("quarantined {case} {}", serde_json::to_value(reason).unwrap().as_str().unwrap())
                }
                Event::Matched { attempt, case } => format!("matched {attempt} {case}"),
                other => other.name().to_owned(),
            };
            decision.entries.iter().map(word).collect::<Vec<_>>().join(", ")
        }
    }
}

fn ids(instructions: &[Instruction]) -> Vec<&str> {
    instructions.iter().map(|i| i.id.as_str()).collect()
}

#[test]
fn either_side_may_come_first_and_the_bank_is_instructed_once() {
    for inputs in [[confirm(1), heard("m1")], [heard("m1"), confirm(1)]] {
        let pairing = after(inputs);
        let owed = pairing.owed();
        let only = Instruction {
            id: InstructionId::parse("ins_1").unwrap(),
            kind: InstructionKind::Deduct,
            reference: RequestId::parse("req_1").unwrap(),
            message: "m1".parse().unwrap(),
            facts: agreed(),
            at: Timestamp(MINUTE_MS),
        };
        assert_eq!((owed, pairing.standing(&attempt(1))), (vec![only], Some(Standing::UnderWay)));
        let settled = pairing.decide(WAITS, Timestamp(2 * MINUTE_MS), answer(1, done())).unwrap().after;
        assert_eq!(settled.standing(&attempt(1)), Some(Standing::Done { amount: usd(1999) }));
        assert!(!settled.open() && settled.owed().is_empty() && settled.wakes_at(WAITS).is_none());
        assert_eq!(settled.instructions().count(), 1, "what was decided stays known");
    }
}

#[test]
fn one_side_alone_moves_nothing() {
    let (payment, message) = (after([confirm(1)]), after([heard("m1")]));
    assert!(payment.owed().is_empty() && message.owed().is_empty());
    assert!(payment.open() && message.open());
    assert_eq!(payment.wakes_at(WAITS), Some(Timestamp(60 * MINUTE_MS)));
    assert_eq!(message.wakes_at(WAITS), Some(Timestamp(24 * 60 * MINUTE_MS)));
    assert_eq!(message.standing(&attempt(1)), None, "nobody has confirmed it");
    let at = |pairing: &Pairing, minute| pairing.decide(WAITS, Timestamp(minute * MINUTE_MS), Input::TimePassed).unwrap().after;
    assert_eq!(at(&payment, 59).standing(&attempt(1)), Some(Standing::UnderWay));
    assert_eq!(at(&payment, 60).standing(&attempt(1)), Some(Standing::Expired));
    assert!(at(&message, 24 * 60 - 1).quarantine().next().is_none());
    let waited = at(&message, 24 * 60);
    let state = &waited.quarantine().next().unwrap().state;
    assert_eq!(*state, MessageState::Quarantined { reason: Reason::NoPayment, at: Timestamp(24 * 60 * MINUTE_MS) });
    assert!(!waited.open());
}

#[test]
fn what_does_not_agree_waits_for_a_person_and_the_payment_goes_on_waiting() {
    for (other, reason) in [
        (facts(usd(2000), 1), "amount"),
        (facts(usd(1998), 1), "amount"),
        (facts(money(1999, Currency::Eur), 1), "currency"),
        (facts(usd(1999), 2), "account"),
    ] {
        let odd = Input::Message(message("odd", other.clone()));
        assert_eq!(told([confirm(1), odd.clone()]), format!("received, quarantined 1 {reason}"));
        assert_eq!(told([odd.clone(), confirm(1)]), format!("confirmed, quarantined 1 {reason}"));
        assert_eq!(told([confirm(1), odd.clone(), heard("m1")]), "received, matched att_1 2");
        let overruled = told([confirm(1), odd, release(1, 1)]);
        assert!(overruled.starts_with("the message can't be released for this payment: the customer confirmed another"));
    }
}

#[test]
fn the_same_message_again_is_nothing_and_another_of_its_id_waits_for_a_person() {
    assert_eq!(told([confirm(1), heard("m1"), heard("m1")]), "");
    assert_eq!(told([heard("m1"), heard("m1")]), "");
    let other = Input::Message(message("m1", facts(usd(5), 1)));
    assert_eq!(told([confirm(1), heard("m1"), other.clone()]), "reused");
    assert_eq!(told([confirm(1), heard("m1"), other.clone(), other.clone()]), "");
    let later = Input::Message(Message { at: Timestamp(6), ..message("m1", agreed()) });
    assert_eq!(told([heard("m1"), later]), "reused", "when it was written is a part of what it says");
    let elsewhere = || Input::MessageSeenElsewhere(message("m1", agreed()));
    assert_eq!(told([confirm(1), elsewhere()]), "reused");
    assert_eq!(told([confirm(1), elsewhere(), heard("m1")]), "", "it came as what it is in quarantine for");
    assert!(after([confirm(1), elsewhere()]).owed().is_empty());
    assert!(told([confirm(1), elsewhere(), release(1, 1)]).starts_with("message 1 bears another message's id"));
}

#[test]
fn the_same_under_another_id_is_never_a_second_instruction() {
    assert_eq!(told([heard("m1"), heard("m2")]), "received, quarantined 2 duplicate");
    assert_eq!(told([confirm(1), heard("m1"), heard("m2")]), "received, quarantined 2 duplicate");
    assert_eq!(told([confirm(1), heard("m1"), answer(1, done()), heard("m2")]), "received, quarantined 2 duplicate");
    // The bank has refused: whoever tries again is announced again.
    assert_eq!(told([confirm(1), heard("m1"), answer(1, refused()), heard("m2")]), "received");
    assert_eq!(told([confirm(1), heard("m1"), answer(1, refused()), heard("m2"), confirm(2)]), "confirmed, matched att_2 2");
    assert_eq!(told([confirm(1), heard("m1"), answer(1, refused()), heard("m1"), confirm(2)]), "confirmed");
}

#[test]
fn where_two_payments_fit_nobody_guesses() {
    assert_eq!(told([confirm(1), confirm(2), heard("m1")]), "received, quarantined 1 ambiguous");
    assert_eq!(told([confirm(1), confirm(2), heard("m1"), release(1, 2)]), "released, matched att_2 1");
    let mut released = vec![confirm(1), confirm(2), heard("m1"), release(1, 2), release(1, 2)];
    assert_eq!(told(released.clone()), "", "asked twice");
    released.push(release(1, 1));
    assert_eq!(told(released), "message 1 is not in quarantine", "one message, one payment");
}

#[test]
fn what_comes_after_its_payment_is_over_is_late() {
    let expired = after([confirm(1)]).decide(WAITS, Timestamp(60 * MINUTE_MS), heard("m1")).unwrap();
    let names: Vec<_> = expired.entries.iter().map(|e| e.event.name()).collect();
    assert_eq!(names, ["expired", "received", "quarantined"], "no sweep came by in between");
    assert_eq!(expired.after.heard(&message("m1", agreed())).unwrap().case, 1);
    let again = expired.after.decide(WAITS, Timestamp(61 * MINUTE_MS), confirm(2)).unwrap();
    assert!(again.after.owed().is_empty(), "a person has to say that it belongs to the second try");
    let released = again.after.decide(WAITS, Timestamp(62 * MINUTE_MS), release(1, 2)).unwrap().after;
    assert_eq!(ids(&released.owed()), ["ins_2"]);
    let for_the_first = again.after.decide(WAITS, Timestamp(62 * MINUTE_MS), release(1, 1)).unwrap_err();
    assert_eq!(for_the_first, Refusal::NoWaitingPayment(attempt(1)));
}

#[test]
fn a_person_may_turn_a_message_down_for_good() {
    let reject = || Input::Reject { case: 1, by: "ann".into() };
    let odd = || Input::Message(message("odd", facts(usd(5), 1)));
    assert_eq!(told([confirm(1), odd(), reject()]), "rejected");
    assert_eq!(told([confirm(1), odd(), reject(), reject()]), "");
    assert_eq!(told([confirm(1), odd(), reject(), odd()]), "");
    assert_eq!(told([confirm(1), odd(), reject(), release(1, 1)]), "message 1 is not in quarantine");
    assert_eq!(told([confirm(1), reject()]), "there is no message 1 under this reference");
    assert_eq!(told([heard("m1"), reject()]), "message 1 is not in quarantine");
    assert_eq!(after([confirm(1), odd(), reject()]).messages().len(), 1, "it stays recorded");
}

#[test]
fn an_attempt_means_one_thing() {
    let other = Input::Confirm { attempt: attempt(1), facts: facts(usd(5), 1) };
    assert_eq!(told([confirm(1), confirm(1)]), "");
    assert_eq!(told([confirm(1), other]), Refusal::OtherContent.to_string());
    assert_eq!(told([confirm(1), heard("m1"), confirm(1)]), "");
}

#[test]
fn the_bank_answers_an_instruction_once() {
    let matched = || vec![confirm(1), heard("m1")];
    let with = |more: &[Input]| told(matched().into_iter().chain(more.iter().cloned()));
    assert_eq!(with(&[answer(1, done())]), "answered");
    assert_eq!(with(&[answer(1, done()), answer(1, done())]), "");
    assert_eq!(with(&[answer(1, done()), answer(1, refused())]), "contradicted");
    assert_eq!(with(&[answer(1, done()), answer(1, refused()), answer(1, refused())]), "");
    assert_eq!(told([confirm(1), answer(1, done())]), Refusal::NoInstruction.to_string());
    let less = Answer::Done { amount: usd(5) };
    let odd = after(matched().into_iter().chain([answer(1, less)]));
    assert_eq!(
        odd.standing(&attempt(1)),
        Some(Standing::Done { amount: usd(5) }),
        "whoever asked must see what was done instead"
    );
}

#[test]
fn refunds_stay_within_what_was_deducted() {
    let deducted = [confirm(1), heard("m1"), answer(1, done())];
    let refund = |n, minor| Input::Refund { attempt: attempt(n), of: attempt(1), amount: usd(minor) };
    let with = |more: &[Input]| told(deducted.iter().chain(more).cloned());
    assert_eq!(with(&[refund(2, 1999)]), "refund_ordered");
    assert_eq!(with(&[refund(2, 1999), refund(2, 1999)]), "");
    assert_eq!(with(&[refund(2, 1999), refund(2, 5)]), Refusal::OtherContent.to_string());
    assert_eq!(with(&[refund(1, 5)]), Refusal::OtherContent.to_string(), "that attempt is the charge");
    assert_eq!(with(&[refund(2, 2000)]), Refusal::OverRefunded.to_string());
    assert_eq!(with(&[refund(2, 1000), refund(3, 1000)]), Refusal::OverRefunded.to_string());
    assert_eq!(with(&[refund(2, 1000), answer(2, refused()), refund(3, 1999)]), "refund_ordered");
    assert_eq!(told([confirm(1), heard("m1"), refund(2, 5)]), Refusal::OverRefunded.to_string(), "nothing was deducted yet");
    let euro = Input::Refund { attempt: attempt(2), of: attempt(1), amount: money(5, Currency::Eur) };
    assert_eq!(with(&[euro]), Refusal::OverRefunded.to_string());
    let ordered = after(deducted.iter().cloned().chain([refund(2, 5)]));
    let owed = ordered.owed();
    assert_eq!((ids(&owed), owed[0].kind, owed[0].message.as_str()), (vec!["ins_2"], InstructionKind::Refund, "m1"));
    assert_eq!(owed[0].facts, facts(usd(5), 1));
}

#[test]
fn a_reference_takes_so_much_and_no_more() {
    let odd = |n: i64| Input::Message(message(&format!("m{n}"), facts(usd(n), 2)));
    let many = |n: i64| (1..=n).map(odd).collect::<Vec<_>>();
    assert_eq!(told(many(16)), "received");
    assert_eq!(told(many(17)), "there are 16 messages under this reference already, and no more are taken");
    let mut again = many(16);
    again.push(odd(3));
    assert_eq!(told(again), "", "what is known already needs no room");
    let payments = |n: usize| (1..=n).map(confirm).collect::<Vec<_>>();
    assert_eq!(told(payments(8)), "confirmed");
    assert_eq!(told(payments(9)), "there are 8 payments under this reference already, and no more are taken");
}

#[test]
fn names_are_checked_at_the_door() {
    assert_eq!("0a".repeat(16).parse::<Account>().unwrap(), Account::new([10; 16]));
    for bad in ["", &"0a".repeat(15), &"0A".repeat(16), &"0g".repeat(16), "4111111111111111"] {
        assert_eq!(bad.parse::<Account>().unwrap_err(), FactError::Account, "{bad}");
    }
    assert!("msg_2b-X".parse::<MessageId>().is_ok());
    for bad in ["", "a.b", "a b", "é", &"a".repeat(65)] {
        assert_eq!(bad.parse::<MessageId>().unwrap_err(), FactError::MessageId, "{bad}");
    }
}

#[test]
fn a_journal_that_nobody_wrote_is_not_believed() {
    let of = |events: Vec<Event>| {
        let entries: Vec<_> = events.into_iter().map(|event| Entry { at: Timestamp(1), event }).collect();
        Pairing::replay(RequestId::parse("req_1").unwrap(), &entries)
    };
    let confirmed = || Event::Confirmed { attempt: attempt(1), facts: agreed() };
    let received = |facts| Event::Received { message: message("m1", facts) };
    let matched = || Event::Matched { attempt: attempt(1), case: 1 };
    assert!(of(vec![confirmed(), received(agreed()), matched()]).is_ok());
    for (journal, number) in [
        (vec![confirmed(), received(facts(usd(2000), 1)), matched()], 2),
        (vec![received(agreed()), matched()], 1),
        (vec![confirmed(), matched()], 1),
        (vec![confirmed(), confirmed()], 1),
        (vec![received(agreed()), received(agreed())], 1),
        (vec![confirmed(), received(agreed()), matched(), matched()], 3),
        (vec![confirmed(), Event::Answered { attempt: attempt(1), answer: done() }], 1),
        (vec![Event::Released { case: 1, by: "ann".into() }], 0),
        (vec![confirmed(), Event::Expired { attempt: attempt(2) }], 1),
    ] {
        let misfit = of(journal).unwrap_err();
        assert_eq!(misfit.number, number, "{misfit}");
    }
}

fn any_facts() -> impl Strategy<Value = Facts> {
    // Mostly what agrees.
    prop_oneof![
        4 => Just(agreed()),
        1 => Just(facts(usd(2000), 1)),
        1 => Just(facts(money(1999, Currency::Eur), 1)),
        1 => Just(facts(usd(1999), 2)),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    (1..5, any_facts()).prop_map(|(n, facts)| message(&format!("m{n}"), facts))
}

fn any_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![3 => Just(done()), 1 => Just(refused()), 1 => Just(Answer::Done { amount: usd(5) })]
}

fn any_input() -> impl Strategy<Value = Input> {
    let charge = || (1..4_usize).prop_map(attempt);
    let either = (1..7_usize).prop_map(attempt);
    let refund = (4..7_usize, charge(), prop_oneof![Just(1999), Just(1000), Just(5)]);
    prop_oneof![
        4 => (charge(), any_facts()).prop_map(|(attempt, facts)| Input::Confirm { attempt, facts }),
        6 => any_message().prop_map(Input::Message),
        1 => any_message().prop_map(Input::MessageSeenElsewhere),
        2 => refund.prop_map(|(n, of, minor)| Input::Refund { attempt: attempt(n), of, amount: usd(minor) }),
        4 => (either, any_answer()).prop_map(|(attempt, answer)| Input::Answer { attempt, answer }),
        3 => (1..6_u32, charge()).prop_map(|(case, attempt)| Input::Release { case, attempt, by: "ann".into() }),
        1 => (1..6_u32).prop_map(|case| Input::Reject { case, by: "ann".into() }),
        1 => Just(Input::TimePassed),
    ]
}

/// What was said by either side so far.
#[derive(Default)]
struct Said {
    confirmed: Vec<(AttemptId, Facts)>,
    messages: Vec<Message>,
    instructed: BTreeMap<InstructionId, Instruction>,
}

impl Said {
    fn note(&mut self, input: &Input) {
        match input {
            Input::Confirm { attempt, facts } => self.confirmed.push((attempt.clone(), facts.clone())),
            Input::Message(message) | Input::MessageSeenElsewhere(message) => self.messages.push(message.clone()),
            Input::Refund { .. } | Input::Answer { .. } | Input::Release { .. } | Input::Reject { .. } | Input::TimePassed => {}
        }
    }

    /// Both sides said it, each instruction stands for one payment and one message, and it never changes.
    fn bears_out(&mut self, pairing: &Pairing) -> Result<(), TestCaseError> {
        let now: BTreeMap<_, _> = pairing.instructions().map(|(i, _)| (i.id.clone(), i)).collect();
        prop_assert_eq!(now.len(), pairing.instructions().count(), "an id twice");
        for (id, before) in &self.instructed {
            prop_assert_eq!(now.get(id), Some(before), "an instruction changed or went");
        }
        let deductions: Vec<_> = now.values().filter(|i| i.kind == InstructionKind::Deduct).collect();
        let of_messages: BTreeSet<_> = deductions.iter().map(|i| &i.message).collect();
        prop_assert_eq!(of_messages.len(), deductions.len(), "a message led to two deductions");
        for i in deductions {
            prop_assert!(self.confirmed.contains(&(i.id.attempt(), i.facts.clone())), "nobody confirmed {i:?}");
            prop_assert!(self.messages.iter().any(|m| m.id == i.message && m.facts == i.facts), "nobody announced {i:?}");
        }
        self.instructed = now;
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn whatever_comes_in_whatever_order_a_deduction_takes_both_sides_and_is_instructed_once(
        inputs in proptest::collection::vec((any_input(), prop_oneof![8 => 0..MINUTE_MS, 1 => 0..100_000_000_i64]), 1..60)
    ) {
        let (mut pairing, mut journal, mut said, mut now) = (fresh(), Vec::new(), Said::default(), 0);
        for (input, wait) in inputs {
            now += wait;
            said.note(&input);
            let Ok(decision) = pairing.decide(WAITS, Timestamp(now), input.clone()) else { continue };
            let again = decision.after.decide(WAITS, Timestamp(now), input).unwrap();
            prop_assert_eq!(&again.entries, &[], "the same again changes something");
            for (before, after) in pairing.messages().iter().zip(decision.after.messages()) {
                prop_assert_eq!((&before.message, before.case), (&after.message, after.case), "a message went");
                if let MessageState::Quarantined { .. } = before.state {
                    let left = matches!(after.state, MessageState::Waiting);
                    prop_assert!(!left, "it left the quarantine and a person sees it no more");
                }
            }
            prop_assert!(pairing.messages().len() <= decision.after.messages().len());
            for entry in &decision.entries {
                let text = serde_json::to_string(&entry.event).unwrap();
                prop_assert!(text.starts_with(&format!("{{\"kind\":\"{}\"", entry.event.name())), "{}", text);
                prop_assert_eq!(&serde_json::from_str::<Event>(&text).unwrap(), &entry.event);
            }
            journal.extend(decision.entries);
            pairing = decision.after;
            let replayed = Pairing::replay(pairing.reference().clone(), &journal).unwrap();
            prop_assert_eq!(&replayed, &pairing);
            said.bears_out(&pairing)?;
            if !pairing.open() {
                prop_assert_eq!((pairing.owed(), pairing.wakes_at(WAITS)), (vec![], None));
            }
        }
        const LONGEST: usize = 5 * PAYMENTS_LIMIT + 4 * MESSAGES_LIMIT + 3 * REFUNDS_LIMIT;
        prop_assert!(journal.len() <= LONGEST && pairing.length() == u64::try_from(journal.len()).unwrap());
    }

    /// What agrees within the waits leads to the one instruction, whatever was said twice and in whatever order.
    #[test]
    fn both_sides_find_each_other_in_any_order(order in Just(vec![0, 0, 1, 1, 1, 2]).prop_shuffle()) {
        let inputs = order.into_iter().map(|n| [confirm(1), heard("m1"), Input::TimePassed][n].clone());
        let owed = after(inputs).owed();
        prop_assert_eq!(ids(&owed), ["ins_1"]);
    }
}
