//! What does not hold: refusals of one shape, limits, another speaker, trouble on our side.

use super::*;

/// Three tries with the same voice and number.
fn three_tries(cosine: f32, log_ratio: f32) -> Edge {
    let mut edge = Edge::asked_for_card(known());
    for _ in 0..3 {
        edge.say_card(cosine, log_ratio);
        // The worker's times differ by what it had to do; the caller's clock does not.
        let since_end = edge.now.0 - edge.log.iter().rev().find(|(_, e)| matches!(e, Effect::ScoreVoice { .. })).unwrap().0.0;
        edge.wait(10_000 - u64::try_from(since_end).unwrap());
    }
    assert_eq!(edge.verdict(), CallVerdict::Refused);
    edge
}

#[test]
fn a_refusal_has_the_same_words_and_times_whichever_factor_failed() {
    let impostor_right_number = three_tries(0.1, 9.0);
    let impostor_wrong_number = three_tries(0.1, -9.0);
    let customer_wrong_number = three_tries(0.9, -9.0);
    assert_eq!(impostor_right_number.audible(), impostor_wrong_number.audible());
    assert_eq!(impostor_right_number.audible(), customer_wrong_number.audible());
    assert_eq!(impostor_right_number.comparisons(), 0, "no number is scored for a voice that failed");
    assert_eq!(impostor_wrong_number.comparisons(), 0);
    assert_eq!(customer_wrong_number.comparisons(), 3);
    for edge in [impostor_right_number, impostor_wrong_number, customer_wrong_number] {
        assert_eq!(edge.charges(), 0);
        assert_eq!(edge.count(|e| matches!(e, Effect::RecordFailure { .. })), 3);
        assert_eq!(edge.prompts().iter().filter(|p| **p == Prompt::Refused).count(), 1);
    }
}

#[test]
fn mixed_failures_and_inconclusive_ones_keep_that_shape() {
    let mixed = |tries: [(f32, f32); 3]| {
        let mut edge = Edge::asked_for_card(known());
        for (cosine, log_ratio) in tries {
            let heard_at = edge.now.plus(Duration::from_millis(6_500));
            edge.say_card(cosine, log_ratio);
            let spent = edge.now.since(heard_at);
            edge.wait(u64::try_from((Duration::from_secs(10) - spent).as_millis()).unwrap());
        }
        edge.audible()
    };
    let (bad_voice, bad_number) = ((0.1, 9.0), (0.9, -9.0));
    assert_eq!(mixed([bad_voice, bad_number, bad_voice]), mixed([bad_number; 3]));
    let (unsure_voice, unsure_number) = ((0.5, 9.0), (0.9, 0.0));
    assert_eq!(mixed([unsure_voice; 3]), mixed([unsure_number; 3]));
    assert_eq!(mixed([unsure_voice, bad_voice, unsure_number]), mixed([unsure_number, bad_number, unsure_voice]));
}

#[test]
fn a_reply_is_held_to_a_multiple_of_the_padding_from_the_end_of_the_utterance() {
    for (voice_ms, expected_ms) in [(0, 3_000), (2_999, 3_000), (3_000, 3_000), (3_001, 6_000)] {
        let mut edge = Edge::asked_for_card(known());
        edge.say(6_000);
        let end = edge.now;
        edge.wait(voice_ms).give(Input::VoiceScored(Ok(voice(0.1)))).wait(9_000);
        let (at, _) = edge.log.iter().find(|(_, e)| is_ask(e, 2)).unwrap();
        assert_eq!(at.since(end), Duration::from_millis(expected_ms), "voice scored after {voice_ms} ms");
    }
}

fn is_ask(effect: &Effect, nth: u8) -> bool {
    matches!(effect, Effect::Play { prompt: Prompt::AskCard { attempt, .. }, .. } if *attempt == nth)
}

#[test]
fn a_reply_that_is_reported_early_is_held_on() {
    let mut edge = Edge::asked_for_card(known());
    edge.say(6_000).voice(0.1);
    edge.give(Input::Deadline(DeadlineKind::Reply));
    assert_eq!(edge.state.name(), "holding reply");
    edge.wait(2_700);
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 2, why: Again::NoMatch });
}

#[test]
fn inconclusive_is_asked_again_and_counted_against_no_factor() {
    for (cosine, log_ratio) in [(0.5, 9.0), (0.9, 0.0)] {
        let mut edge = Edge::asked_for_card(known());
        edge.say_card(cosine, log_ratio).wait(3_000);
        assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 2, why: Again::NotUnderstood });
        assert_eq!(edge.count(|e| matches!(e, Effect::RecordFailure { .. })), 0);
        edge.say_card(0.9, 9.0);
        assert!(matches!(edge.prompt(), Prompt::ReadBack { .. }), "who then convinces goes on");
    }
}

#[test]
fn two_cards_that_both_fit_are_not_guessed_between() {
    let mut edge = Edge::asked_for_card(Known { cards: vec![card(1), card(2)], ..known() });
    edge.say(6_000).voice(0.9).number(&[4.0, 5.0]).wait(3_000);
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 2, why: Again::NotUnderstood });
}

#[test]
fn a_blocked_card_is_not_compared_and_not_charged_even_if_the_comparator_names_it() {
    let blocked = CardOnFile { usable: Usable::Blocked, ..card(1) };
    let mut edge = Edge::asked_for_card(Known { cards: vec![blocked, card(2)], ..known() });
    edge.say(6_000).voice(0.9);
    assert!(edge.log.iter().any(|(_, e)| matches!(e, Effect::ReadNumber { cards, .. } if *cards == [card(2).id])));
    edge.number(&[9.0]).wait(3_000);
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 2, why: Again::NoMatch });
}

#[test]
fn evidence_of_the_wrong_kind_fails_closed() {
    let mut edge = Edge::asked_for_card(known());
    edge.say(6_000).voice(0.9).evidence(NumberEvidence::Keyed { card: Some(card(1).id) }).wait(3_000);
    assert_eq!(edge.verdict(), CallVerdict::ServiceTrouble);
}

#[test]
fn another_speaker_s_yes_pays_nothing_and_counts_as_a_failed_voice() {
    let mut edge = Edge::asked_for_yes(known());
    for attempt in 1..=2 {
        edge.answer(Answer::Yes, Some(0.1)).wait(3_000);
        assert_eq!(edge.prompt(), &Prompt::AskYes { attempt, why: Again::NoMatch });
        edge.prompt_done();
    }
    edge.answer(Answer::Yes, Some(f32::NAN)).wait(3_000);
    assert_eq!(edge.prompt(), &Prompt::Refused);
    assert_eq!(edge.verdict(), CallVerdict::Refused);
    assert_eq!(edge.charges(), 0);
    assert_eq!(edge.count(|e| matches!(e, Effect::RecordFailure { factor: Factor::Voice, .. })), 3);
}

#[test]
fn failures_of_the_day_go_on_counting_and_close_the_line() {
    let mut edge = Edge::asked_for_card(Known { failures_24h: 4, ..known() });
    edge.say_card(0.1, 9.0);
    assert_eq!(edge.count(|e| matches!(e, Effect::Notify { notice: Notice::TooManyFailures, .. })), 1);
    edge.wait(3_000);
    assert_eq!(edge.verdict(), CallVerdict::Refused);

    let mut edge = Edge::called_by(Known { failures_24h: 5, ..known() });
    assert_eq!(edge.prompt(), &Prompt::LockedOut);
    assert_eq!(edge.verdict(), CallVerdict::LockedOut);
    assert_eq!(edge.count(|e| matches!(e, Effect::Listen { .. })), 0);
}

#[test]
fn failures_count_against_the_customer_only_under_an_attested_number() {
    let number = E164::normalise("+442079460958", "").unwrap();
    for (caller, attested) in [(Caller::Attested(number.clone()), true), (Caller::Unattested(number), false)] {
        let mut edge = Edge::new(cfg());
        edge.give(Input::Started { caller }).give(Input::Identity(IdentityOutcome::Known(Box::new(known()))));
        edge.prompt_done().prompt_done().say_card(0.1, 9.0);
        let recorded = edge.log.iter().find_map(|(_, e)| match e {
            Effect::RecordFailure { attested, .. } => Some(*attested),
            _ => None,
        });
        assert_eq!(recorded, Some(attested));
    }
}

#[test]
fn who_keys_a_customer_number_cannot_lock_that_customer_out_under_another_attested_number() {
    let mut edge = Edge::new(cfg());
    edge.give(Input::Started { caller: caller() }).give(Input::Identity(IdentityOutcome::Unknown)).prompt_done();
    edge.key("1234#").give(Input::Identity(IdentityOutcome::Known(Box::new(known()))));
    edge.prompt_done().say_card(0.1, 9.0);
    assert!(edge.log.iter().any(|(_, e)| matches!(e, Effect::RecordFailure { attested: false, .. })));
}

#[test]
fn workers_that_are_overloaded_or_broken_end_the_call_without_a_charge() {
    let table = [
        (ScoreTrouble::Overloaded, CallVerdict::Busy, Prompt::Busy),
        (ScoreTrouble::TimedOut, CallVerdict::Busy, Prompt::Busy),
        (ScoreTrouble::Failed, CallVerdict::ServiceTrouble, Prompt::ServiceProblem),
    ];
    for (trouble, verdict, last) in table {
        let mut by_voice = Edge::asked_for_card(known());
        by_voice.say(6_000).wait(300).give(Input::VoiceScored(Err(trouble))).wait(10_000);
        let mut by_number = Edge::asked_for_card(known());
        by_number.say(6_000).voice(0.9).wait(900).give(Input::NumberRead(Err(trouble)));
        by_number.wait(9_100);
        let mut by_answer = Edge::asked_for_yes(known());
        by_answer.say(500).give(Input::Answer(Err(trouble)));
        for edge in [&mut by_voice, &mut by_number, &mut by_answer] {
            assert_eq!(edge.verdict(), verdict);
            assert!(edge.prompts().contains(&last));
            assert_eq!(edge.charges(), 0);
        }
        assert_eq!(by_voice.audible(), by_number.audible());
    }
}

#[test]
fn a_worker_that_never_answers_is_not_waited_for_longer_than_the_limit() {
    let mut silent = Edge::asked_for_card(known());
    silent.say(6_000).wait(10_000);
    assert_eq!(silent.verdict(), CallVerdict::Busy);
    let mut half = Edge::asked_for_card(known());
    half.say(6_000).voice(0.9).wait(9_700);
    assert_eq!(half.verdict(), CallVerdict::Busy);
    assert_eq!(silent.audible(), half.audible(), "how far it came is not to be told from when it gave up");
}

#[test]
fn thresholds_that_were_never_filled_accept_nobody() {
    let mut edge = Edge::called_with(DialogueConfig::default(), known());
    edge.prompt_done().say_card(1.0, 99.0).wait(3_000);
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 2, why: Again::NoMatch });
    assert_eq!(edge.comparisons(), 0);
}
