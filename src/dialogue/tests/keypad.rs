//! Keys: the card number, the customer number, `*` and `0`.

use super::*;

const NUMBER: &str = "4111111111111111";

fn digits(text: &str) -> Vec<u8> {
    text.bytes().map(|b| b - b'0').collect()
}

/// Keyed, then counted aloud, then scored.
fn keyed_and_counted(cosine: f32) -> Edge {
    let mut edge = Edge::asked_for_card(known());
    edge.key(NUMBER);
    assert_eq!(edge.prompt(), &Prompt::AskCounting { attempt: 1, why: Again::First });
    assert_eq!(edge.listening, Some(ListenFor::Counting));
    assert_eq!(edge.comparisons(), 0, "no comparing before a voice was heard");
    edge.say(4_000).voice(cosine);
    edge
}

#[test]
fn a_keyed_number_is_compared_only_after_the_voice_was_accepted_and_then_pays() {
    let mut edge = keyed_and_counted(0.9);
    assert_eq!(edge.keyed, Some(digits(NUMBER)));
    edge.evidence(NumberEvidence::Keyed { card: Some(card(1).id) });
    edge.prompt_done().answer(Answer::Yes, Some(0.5));
    assert!(edge.log.iter().any(|(_, e)| matches!(e, Effect::Charge(c) if c.approval.number == NumberSummary::Keyed)));
}

#[test]
fn a_keyed_number_does_not_replace_the_voice() {
    let mut impostor = keyed_and_counted(0.1);
    assert_eq!(impostor.comparisons(), 0);
    impostor.wait(9_700);
    let mut wrong = keyed_and_counted(0.9);
    wrong.wait(900).evidence(NumberEvidence::Keyed { card: None }).wait(8_800);
    assert_eq!(impostor.prompt(), &Prompt::AskCard { attempt: 2, why: Again::NoMatch });
    assert_eq!(impostor.audible(), wrong.audible());
}

#[test]
fn an_unsure_voice_is_asked_to_count_again_without_keying_anew() {
    let mut edge = keyed_and_counted(0.5);
    edge.wait(3_000);
    assert_eq!(edge.prompt(), &Prompt::AskCounting { attempt: 2, why: Again::NotUnderstood });
    edge.say(4_000).voice(0.9);
    assert_eq!(edge.keyed, Some(digits(NUMBER)));
}

#[test]
fn keying_may_begin_while_the_request_is_read_out() {
    let mut edge = Edge::called_by(known());
    assert!(matches!(edge.prompt(), Prompt::ReadRequest { .. }));
    edge.key(NUMBER);
    assert_eq!(edge.prompt(), &Prompt::AskCounting { attempt: 1, why: Again::First });
}

#[test]
fn a_number_of_the_longest_length_that_passes_luhn_ends_by_itself_and_a_shorter_one_waits() {
    let shorter = CardOnFile { length: 13, ..card(2) };
    let mut edge = Edge::asked_for_card(Known { cards: vec![card(1), shorter], ..known() });
    edge.key("4222222222222");
    assert_eq!(edge.state.name(), "keying card");
    edge.wait(4_999);
    assert_eq!(edge.state.name(), "keying card");
    edge.wait(1);
    assert_eq!(edge.state.name(), "asking to count");
}

#[test]
fn a_mistyped_or_unfinished_number_is_asked_for_again_and_is_no_failed_factor() {
    for keys in ["4111111111111112#", "41111#", "4111", "4111111111111112222"] {
        let mut edge = Edge::asked_for_card(known());
        edge.key(keys).wait(5_000);
        let again = Prompt::AskCard { attempt: 2, why: Again::NotUnderstood };
        assert!(edge.prompts().contains(&again), "{keys}: {:?}", edge.prompts());
        assert_eq!(edge.count(|e| matches!(e, Effect::RecordFailure { .. } | Effect::ScoreVoice { .. })), 0);
    }
}

#[test]
fn keyed_digits_print_nowhere() {
    let mut edge = Edge::asked_for_card(known());
    edge.key("411111111111");
    let shown = format!("{:?} {:?} {:?}", edge.state, edge.log, Input::Key(Keypress::Digit(4)));
    edge.key("1111");
    edge.say(4_000).voice(0.9);
    let shown = format!("{shown} {:?} {:?}", edge.state, edge.log);
    for text in ["411111", "4, 1, 1, 1, 1, 1", "52, 49, 49", "Digit(4)"] {
        assert!(!shown.contains(text), "{text} is in {shown}");
    }
}

/// A call in each state that can still be dropped.
fn free_states() -> Vec<Edge> {
    let mut looking_up = Edge::new(cfg());
    looking_up.give(Input::Started { caller: Caller::Withheld }).prompt_done().key("77#");
    let mut keying_customer = Edge::new(cfg());
    keying_customer.give(Input::Started { caller: Caller::Withheld }).prompt_done();
    let mut welcoming = Edge::new(cfg());
    welcoming.give(Input::Started { caller: caller() });
    let mut keying = Edge::asked_for_card(known());
    keying.key("4");
    let mut counting = Edge::asked_for_card(known());
    counting.key(NUMBER);
    let mut scoring = Edge::asked_for_card(known());
    scoring.say(6_000);
    let mut reading = Edge::asked_for_card(known());
    reading.say(6_000).voice(0.9);
    let mut holding = Edge::asked_for_card(known());
    holding.say(6_000).voice(0.1);
    let mut hearing = Edge::asked_for_yes(known());
    hearing.say(500);
    vec![
        welcoming,
        keying_customer,
        looking_up,
        Edge::called_by(known()),
        Edge::asked_for_card(known()),
        keying,
        counting,
        scoring,
        reading,
        holding,
        Edge::asked_for_yes(known()),
        hearing,
    ]
}

#[test]
fn star_cancels_everywhere_before_the_charge() {
    for mut edge in free_states() {
        let state = edge.state.name();
        edge.key("*");
        assert_eq!(edge.prompt(), &Prompt::Cancelled, "in state {state}");
        assert_eq!(edge.verdict(), CallVerdict::Cancelled);
        assert_eq!(edge.charges(), 0);
    }
}

#[test]
fn zero_asks_for_a_person_wherever_it_is_no_part_of_a_number() {
    for mut edge in free_states() {
        let state = edge.state.name();
        edge.key("0");
        match state {
            "keying card" => assert_eq!(edge.state.name(), state),
            "keying customer number" => {
                edge.wait(5_000);
                assert_eq!(edge.prompt(), &Prompt::Person, "0 and nothing more");
            }
            _ => {
                assert_eq!(edge.prompt(), &Prompt::Person, "in state {state}");
                assert_eq!(edge.verdict(), CallVerdict::Person);
            }
        }
    }
}

#[test]
fn zero_connects_to_the_person_that_is_configured() {
    for mut edge in free_states() {
        edge.cfg.person = "sip:desk@192.0.2.1".to_owned();
        let state = edge.state.name();
        edge.key("0");
        match state {
            "keying card" => continue,
            "keying customer number" => drop(edge.wait(5_000)),
            _ => {}
        }
        assert_eq!(edge.prompt(), &Prompt::Connecting, "in state {state}");
        edge.key("*1").prompt_done();
        assert_eq!(edge.count(|e| matches!(e, Effect::Transfer)), 1);
        edge.wait(20_000).give(Input::Transferred(true)).give(Input::Transferred(false));
        assert_eq!(edge.verdict(), CallVerdict::Person);
        assert_eq!((edge.charges(), edge.prompts().last()), (0, Some(&Prompt::Connecting)));
    }
}

#[test]
fn a_person_who_cannot_be_reached_is_told_of_and_nobody_waits_for_ever() {
    let connecting = || {
        let mut edge = Edge::asked_for_card(known());
        edge.cfg.person = "sip:desk@192.0.2.1".to_owned();
        edge.key("0");
        edge
    };
    let mut refused = connecting();
    refused.give(Input::Transferred(true)); // of nothing that was asked
    refused.prompt_done().give(Input::Transferred(false));
    let mut silent = connecting();
    silent.prompt_done().wait(u64::from(cfg().transfer_wait_ms));
    let mut stuck = connecting();
    stuck.wait(u64::from(cfg().closing_limit_ms));
    for edge in [&mut refused, &mut silent, &mut stuck] {
        assert_eq!(edge.prompt(), &Prompt::Person);
        assert_eq!(edge.verdict(), CallVerdict::Person);
    }
    let mut gone = connecting();
    gone.prompt_done().give(Input::HungUp);
    assert_eq!(gone.state.verdict(), Some(CallVerdict::Person));
}

#[test]
fn hanging_up_before_the_charge_ends_the_call_with_nothing_charged() {
    for mut edge in free_states() {
        edge.give(Input::HungUp);
        assert_eq!(edge.state.verdict(), Some(CallVerdict::Abandoned));
        assert_eq!(edge.charges(), 0);
    }
}

#[test]
fn trouble_on_our_side_is_told_and_fails_closed() {
    for mut edge in free_states() {
        edge.give(Input::ServiceTrouble);
        assert_eq!(edge.prompt(), &Prompt::ServiceProblem);
        assert_eq!(edge.verdict(), CallVerdict::ServiceTrouble);
    }
}

#[test]
fn no_key_stops_a_payment_that_was_handed_over() {
    let mut edge = Edge::charging(known());
    edge.key("*0#1").give(Input::Payment(PaymentOutcome::Paid { reference: vec![1] })).prompt_done();
    assert_eq!(edge.verdict(), CallVerdict::Paid);
}
