//! How calls end: who gets as far as a card, and what becomes of a payment.

use super::*;

#[test]
fn checks_of_the_customer_come_in_order_and_capture_no_audio() {
    let expired = CardOnFile { usable: Usable::Expired, ..card(1) };
    let blocked = CardOnFile { usable: Usable::Blocked, ..card(2) };
    let table = [
        (Known { voice: VoiceOnFile::None, ..known() }, Prompt::NotEnrolled, CallVerdict::NotEnrolled),
        (Known { voice: VoiceOnFile::OtherModel, ..known() }, Prompt::NotEnrolled, CallVerdict::NotEnrolled),
        (Known { cards: vec![], ..known() }, Prompt::NoUsableCard, CallVerdict::NoCard),
        (Known { cards: vec![expired, blocked], ..known() }, Prompt::NoUsableCard, CallVerdict::NoCard),
        (Known { requests: vec![], ..known() }, Prompt::NoOpenRequest, CallVerdict::NothingToPay),
        (Known { failures_24h: 5, cards: vec![], ..known() }, Prompt::LockedOut, CallVerdict::LockedOut),
    ];
    for (known, last, verdict) in table {
        let mut edge = Edge::called_by(known);
        assert_eq!(edge.prompt(), &last);
        assert_eq!(edge.verdict(), verdict);
        assert_eq!(edge.count(|e| matches!(e, Effect::Listen { .. } | Effect::ScoreVoice { .. })), 0);
    }
}

#[test]
fn a_caller_nobody_knows_is_asked_for_a_customer_number_and_never_for_a_card() {
    let number = E164::normalise("+442079460958", "").unwrap();
    for (caller, outcome) in [
        (Caller::Attested(number.clone()), Some(IdentityOutcome::Unknown)),
        (Caller::Unattested(number), Some(IdentityOutcome::Shared)),
        (Caller::Withheld, None),
    ] {
        let mut edge = Edge::new(cfg());
        edge.give(Input::Started { caller });
        if let Some(outcome) = outcome {
            edge.give(Input::Identity(outcome));
        }
        edge.prompt_done();
        for attempt in 1..=3 {
            assert_eq!(edge.prompt(), &Prompt::AskCustomerNumber { attempt });
            edge.key("123#").give(Input::Identity(IdentityOutcome::Unknown));
        }
        assert_eq!(edge.prompt(), &Prompt::UnknownCaller);
        assert_eq!(edge.verdict(), CallVerdict::UnknownCaller);
        assert_eq!(edge.count(|e| matches!(e, Effect::Listen { .. } | Effect::ScoreVoice { .. } | Effect::Charge(_))), 0);
        assert!(!edge.prompts().iter().any(|p| matches!(p, Prompt::AskCard { .. })));
    }
}

#[test]
fn a_keyed_customer_number_leads_to_the_card_question() {
    let mut edge = Edge::new(cfg());
    edge.give(Input::Started { caller: Caller::Withheld }).prompt_done().key("0042").wait(5_000);
    let looked_up = edge.log.iter().find_map(|(_, e)| match e {
        Effect::LookUp { customer_number, .. } => customer_number.clone(),
        _ => None,
    });
    assert_eq!(looked_up.as_deref(), Some("0042"));
    edge.give(Input::Identity(IdentityOutcome::Known(Box::new(known()))));
    assert!(matches!(edge.prompt(), Prompt::ReadRequest { .. }));
}

#[test]
fn an_answer_to_a_look_up_that_was_never_asked_nominates_nobody() {
    let mut edge = Edge::new(cfg());
    edge.give(Input::Started { caller: Caller::Withheld });
    edge.give(Input::Identity(IdentityOutcome::Known(Box::new(known())))).prompt_done();
    assert_eq!(edge.prompt(), &Prompt::AskCustomerNumber { attempt: 1 });
}

#[test]
fn a_look_up_without_an_answer_fails_closed() {
    let mut edge = Edge::new(cfg());
    edge.give(Input::Started { caller: caller() }).prompt_done().wait(5_000);
    assert_eq!(edge.verdict(), CallVerdict::ServiceTrouble);
}

#[test]
fn each_outcome_of_a_payment_is_told_in_its_own_words() {
    let table = [
        (PaymentOutcome::Declined, Prompt::Declined, CallVerdict::Declined),
        (PaymentOutcome::Unknown, Prompt::OutcomeUnknown, CallVerdict::OutcomeUnknown),
        (PaymentOutcome::Refused, Prompt::Refused, CallVerdict::Refused),
        (PaymentOutcome::NotSubmitted, Prompt::ServiceProblem, CallVerdict::ServiceTrouble),
    ];
    for (outcome, last, verdict) in table {
        // Once before the announcement is over and once after.
        let mut early = Edge::charging(known());
        early.give(Input::Payment(outcome.clone()));
        assert_eq!(early.prompt(), &Prompt::Charging, "it is heard to its end");
        early.prompt_done();
        let mut late = Edge::charging(known());
        late.prompt_done().give(Input::Payment(outcome));
        for edge in [&mut early, &mut late] {
            assert_eq!(edge.prompt(), &last);
            assert_eq!(edge.verdict(), verdict);
            assert_eq!(edge.charges(), 1);
        }
    }
}

#[test]
fn a_payment_that_is_not_heard_of_is_never_called_unpaid() {
    let mut overdue = Edge::charging(known());
    overdue.prompt_done().wait(20_000);
    let mut trouble = Edge::charging(known());
    trouble.give(Input::ServiceTrouble);
    for edge in [&mut overdue, &mut trouble] {
        assert_eq!(edge.prompt(), &Prompt::OutcomeUnknown);
        assert_eq!(edge.verdict(), CallVerdict::OutcomeUnknown);
        assert_eq!(edge.count(|e| matches!(e, Effect::Notify { notice: Notice::OutcomePending, .. })), 1);
    }
}

#[test]
fn hanging_up_after_the_charge_was_handed_over_charges_once_and_is_told_by_other_means() {
    let mut edge = Edge::charging(known());
    edge.give(Input::HungUp).give(Input::Payment(PaymentOutcome::Paid { reference: vec![1] }));
    assert_eq!(edge.state.verdict(), Some(CallVerdict::OutcomeUnknown));
    assert_eq!(edge.charges(), 1);
    assert_eq!(edge.count(|e| matches!(e, Effect::Notify { notice: Notice::OutcomePending, .. })), 1);

    let mut told = Edge::charging(known());
    told.prompt_done().give(Input::Payment(PaymentOutcome::Paid { reference: vec![1] })).give(Input::HungUp);
    assert_eq!(told.state.verdict(), Some(CallVerdict::Paid));
}

#[test]
fn the_first_outcome_of_a_payment_stands() {
    let mut edge = Edge::charging(known());
    edge.give(Input::Payment(PaymentOutcome::Paid { reference: vec![1] })).give(Input::Payment(PaymentOutcome::Declined));
    edge.prompt_done();
    assert_eq!(edge.verdict(), CallVerdict::Paid);
}

#[test]
fn a_call_that_takes_too_long_is_closed_but_not_while_a_payment_is_under_way() {
    let mut cfg = cfg();
    cfg.call_limit_ms = 20_000;
    let mut edge = Edge::called_with(cfg.clone(), known());
    edge.prompt_done().give(Input::SpeechStarted).wait(20_000);
    assert_eq!(edge.verdict(), CallVerdict::Abandoned);

    let mut paying = Edge::called_with(cfg, known());
    paying.prompt_done().say_card(0.9, 5.0).prompt_done().answer(Answer::Yes, Some(0.5)).prompt_done().wait(6_000);
    assert_eq!(paying.state.name(), "charging");
    paying.give(Input::Payment(PaymentOutcome::Paid { reference: vec![1] }));
    assert_eq!(paying.verdict(), CallVerdict::Paid);
}

#[test]
fn last_words_that_never_end_are_cut_off() {
    let mut edge = Edge::called_by(Known { requests: vec![], ..known() });
    edge.wait(30_000);
    assert_eq!(edge.state.verdict(), Some(CallVerdict::NothingToPay));
}

#[test]
fn before_the_call_there_is_nothing_to_do_but_to_begin_or_to_end() {
    let mut edge = Edge::new(cfg());
    edge.key("1*0").give(Input::SpeechStarted);
    assert!(edge.log.is_empty());
    edge.give(Input::HungUp).give(Input::HungUp).give(Input::Started { caller: caller() });
    assert_eq!(edge.verdict(), CallVerdict::Abandoned);
    assert_eq!(edge.log.len(), 1);
}

#[test]
fn limits_that_cannot_work_are_named() {
    assert_eq!(DialogueConfig::default().check(), Ok(()));
    let leaky = DialogueConfig { mismatch_limit_tries: 4, ..DialogueConfig::default() };
    assert_eq!(leaky.check().unwrap_err().0, "mismatch_limit_tries");
    let deaf = DialogueConfig { silence_ms: 0, ..DialogueConfig::default() };
    assert_eq!(deaf.check().unwrap_err().0, "silence_ms");
    let endless = DialogueConfig { unclear_limit_tries: 0, ..DialogueConfig::default() };
    assert_eq!(endless.check().unwrap_err().0, "unclear_limit_tries");
}

#[test]
fn the_section_names_an_unknown_key_and_takes_the_rest_from_its_defaults() {
    let parsed: DialogueConfig = toml::from_str("call_limit_ms = 60000").unwrap();
    assert_eq!(parsed, DialogueConfig { call_limit_ms: 60_000, ..DialogueConfig::default() });
    let error = toml::from_str::<DialogueConfig>("call_limit_s = 60").unwrap_err().to_string();
    assert!(error.contains("call_limit_s"), "{error}");
}
