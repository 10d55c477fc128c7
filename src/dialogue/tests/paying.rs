//! The way to a charge: in order, once, with the right card.

use super::*;
use crate::decision::replay::{Outcome, decide_again};

/// A name for each effect, without its data.
fn names(edge: &Edge) -> Vec<&'static str> {
    edge.log
        .iter()
        .filter_map(|(_, e)| match e {
            Effect::LookUp { .. } => Some("look up"),
            Effect::Listen { .. } => Some("listen"),
            Effect::ScoreVoice { .. } => Some("score voice"),
            Effect::FollowVoice { .. } => Some("follow voice"),
            Effect::DrawChallenge { .. } => Some("draw digits"),
            Effect::ScoreChallenge { .. } => Some("score digits"),
            Effect::ReadNumber { .. } => Some("read number"),
            Effect::CompareKeyed { .. } => Some("compare keyed"),
            Effect::ReadAnswer { .. } => Some("read answer"),
            Effect::Charge(_) => Some("charge"),
            Effect::HangUp(_) => Some("hang up"),
            Effect::RecordFailure { .. } => Some("failure"),
            Effect::RecordSuccess { .. } => Some("success"),
            Effect::Play { .. }
            | Effect::StopPlaying
            | Effect::StopListening
            | Effect::SendCode { .. }
            | Effect::ScoreCode { .. }
            | Effect::CheckCode { .. }
            | Effect::GrantMandate(_)
            | Effect::DeleteVoice { .. }
            | Effect::SlowDown
            | Effect::RedeemInvite { .. }
            | Effect::EnrolAdd { .. }
            | Effect::EnrolFinish { .. }
            | Effect::SetDeadline { .. }
            | Effect::ClearDeadline(_)
            | Effect::KeepEvidence(_)
            | Effect::Transfer
            | Effect::Errand(_)
            | Effect::Notify { .. } => None,
        })
        .collect()
}

#[test]
fn a_caller_whose_voice_and_number_hold_pays_once_in_the_published_order() {
    let mut edge = Edge::charging(known());
    edge.prompt_done().wait(800).give(Input::Payment(PaymentOutcome::Paid { reference: vec![4, 7, 1, 1] }));
    assert_eq!(edge.verdict(), CallVerdict::Paid);
    assert_eq!(
        names(&edge),
        ["look up", "listen", "score voice", "read number", "listen", "read answer", "success", "charge", "hang up"]
    );
    let money = known().requests[0].clone();
    assert_eq!(
        edge.prompts(),
        [
            Prompt::Greeting,
            Prompt::ReadRequest { amount: money.amount, payee: money.payee.clone(), due: None },
            Prompt::AskCard { attempt: 1, why: Again::First },
            Prompt::OneMoment,
            Prompt::ReadBack { amount: money.amount, payee: money.payee.clone(), last4: [1, 1, 1, 1], others: false },
            Prompt::Charging,
            Prompt::Paid { amount: money.amount, payee: money.payee, reference: vec![4, 7, 1, 1] },
            Prompt::Goodbye,
        ]
    );
}

#[test]
fn the_charge_carries_what_it_was_approved_on() {
    let edge = Edge::charging(known());
    let charge = edge
        .log
        .iter()
        .find_map(|(_, e)| match e {
            Effect::Charge(charge) => Some(charge.clone()),
            _ => None,
        })
        .unwrap();
    let expected = Charge {
        customer: known().customer,
        request: known().requests[0].id.clone(),
        amount: known().requests[0].amount,
        card: card(1).id,
        approval: Approval {
            voice_cosine: 0.9,
            voice_llr: 0.9,
            voice_net_speech_ms: 6_000,
            voice_model: "test".to_owned(),
            number: NumberSummary::Spoken { log_ratio: 5.0, llr: 5.0, engine: "test".to_owned() },
            fresh_digits: false,
            code: None,
            others: false,
            continuity_cosine: 0.5,
            policy_version: "1".to_owned(),
        },
    };
    assert_eq!(*charge, expected);
}

/// What the policy of these tests decides on the evidence that a call has kept.
fn again(edge: &Edge) -> Vec<(Outcome, Outcome)> {
    edge.log
        .iter()
        .filter_map(|(_, e)| match e {
            Effect::KeepEvidence(kept) => Some((kept.outcome.clone(), decide_again(&edge.cfg.policy, kept))),
            _ => None,
        })
        .collect()
}

#[test]
fn every_verdict_is_kept_with_what_it_was_made_on_and_comes_out_the_same_again() {
    let mut edge = Edge::asked_for_card(known());
    edge.say(6_000).voice(0.1).wait(10_000).prompt_done();
    edge.say(6_000).voice(0.9).number(&[-9.0]).wait(10_000).prompt_done();
    edge.say(6_000).voice(0.9).number(&[5.0]);
    let kept = again(&edge);
    assert!(kept.iter().all(|(then, now)| then == now), "{kept:?}");
    let then: Vec<Outcome> = kept.into_iter().map(|(then, _)| then).collect();
    assert_eq!(then, [Outcome::Rejected, Outcome::Rejected, Outcome::Accepted(card(1).id)]);
}

#[test]
fn of_several_cards_the_spoken_one_is_charged() {
    let mut edge = Edge::asked_for_card(Known { cards: vec![card(1), card(2)], ..known() });
    edge.say(6_000).voice(0.9).number(&[-9.0, 4.0]);
    let Prompt::ReadBack { last4, .. } = edge.prompt() else { panic!("{:?}", edge.playing) };
    assert_eq!(*last4, [1, 1, 1, 2]);
    edge.prompt_done().answer(Answer::Yes, Some(0.5));
    assert!(edge.log.iter().any(|(_, e)| matches!(e, Effect::Charge(c) if c.card == card(2).id)));
}

#[test]
fn the_caller_may_speak_into_the_question_but_not_into_the_read_back() {
    let mut edge = Edge::asked_for_card(known());
    assert_eq!(edge.listening, Some(ListenFor::CardNumber { lengths: vec![16] }));
    edge.give(Input::SpeechStarted);
    assert!(edge.playing.is_none(), "the prompt stops for who speaks");
    edge.give(utterance(6_000)).voice(0.9).number(&[5.0]);
    assert!(matches!(edge.prompt(), Prompt::ReadBack { .. }));
    edge.listening = None;
    edge.give(Input::SpeechStarted).give(utterance(900));
    assert!(matches!(edge.prompt(), Prompt::ReadBack { .. }), "a yes to half a question is none");
    edge.prompt_done();
    assert_eq!(edge.listening, Some(ListenFor::Answer));
}

#[test]
fn silence_is_asked_again_twice_and_then_the_call_ends_without_a_charge() {
    let mut edge = Edge::asked_for_card(known());
    edge.prompt_done().wait(6_000);
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 2, why: Again::Silence });
    edge.prompt_done().wait(6_000);
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 3, why: Again::Silence });
    edge.prompt_done().wait(6_000);
    assert_eq!(edge.prompt(), &Prompt::NotCompleted);
    assert_eq!(edge.verdict(), CallVerdict::Abandoned);
    assert_eq!(edge.charges(), 0);
}

#[test]
fn an_end_pointer_that_gives_up_before_the_caller_s_time_is_over_listens_on() {
    let mut edge = Edge::asked_for_card(known());
    edge.give(Input::NoSpeech);
    assert!(matches!(edge.prompt(), Prompt::AskCard { attempt: 1, .. }), "the question is not cut short");
    edge.prompt_done().wait(5_999).give(Input::NoSpeech);
    assert_eq!(edge.count(|e| matches!(e, Effect::Listen { .. })), 3);
    edge.wait(1);
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 2, why: Again::Silence });
    edge.give(Input::SpeechStarted).give(Input::NoSpeech);
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 3, why: Again::Silence }, "a false start is over");
}

#[test]
fn sound_that_never_becomes_an_utterance_counts_as_silence() {
    let mut edge = Edge::asked_for_card(known());
    edge.give(Input::SpeechStarted).wait(45_000);
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 2, why: Again::Silence });
}

#[test]
fn audio_unfit_for_judging_is_asked_for_again_and_counted_against_no_factor() {
    let mut edge = Edge::asked_for_card(known());
    edge.say(1_999);
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 2, why: Again::TooShort });
    let clipped = UtteranceFacts { net_speech_ms: 6_000, total_ms: 7_000, quality: UtteranceQuality::Clipped };
    edge.give(Input::Utterance(clipped));
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 3, why: Again::TooLoud });
    edge.say(100);
    assert_eq!(edge.verdict(), CallVerdict::Abandoned);
    assert_eq!(edge.count(|e| matches!(e, Effect::ScoreVoice { .. } | Effect::RecordFailure { .. })), 0);
}

#[test]
fn no_is_no_and_cancel_is_cancel() {
    for (answer, continuity) in [(Answer::No, Some(0.9)), (Answer::Cancel, Some(0.9)), (Answer::No, None)] {
        let mut edge = Edge::asked_for_yes(known());
        edge.answer(answer, continuity);
        assert_eq!(edge.prompt(), &Prompt::Cancelled);
        assert_eq!(edge.verdict(), CallVerdict::Cancelled);
        assert_eq!(edge.charges(), 0);
    }
}

#[test]
fn an_answer_that_is_neither_is_asked_again_and_never_taken_for_a_yes() {
    let mut edge = Edge::asked_for_yes(known());
    edge.answer(Answer::Unclear, Some(0.9));
    assert_eq!(edge.prompt(), &Prompt::AskYes { attempt: 1, why: Again::NotUnderstood });
    edge.prompt_done().answer(Answer::Yes, None);
    assert_eq!(edge.prompt(), &Prompt::AskYes { attempt: 2, why: Again::NotUnderstood });
    edge.prompt_done().answer(Answer::Unclear, None);
    assert_eq!(edge.verdict(), CallVerdict::Abandoned);
    assert_eq!(edge.charges(), 0);
}

#[test]
fn a_yes_after_an_unclear_answer_still_pays() {
    let mut edge = Edge::asked_for_yes(known());
    edge.answer(Answer::Unclear, None).prompt_done().answer(Answer::Yes, Some(0.2));
    assert_eq!(edge.charges(), 1);
}

#[test]
fn a_yes_that_was_heard_before_counts_as_another_voice() {
    let mut edge = Edge::asked_for_yes(known());
    let replayed = AnswerHeard { answer: Answer::Yes, continuity_cosine: Some(0.9), heard_before: true };
    edge.say(500).give(Input::Answer(Ok(replayed))).wait(3_000);
    assert_eq!(edge.prompt(), &Prompt::AskYes { attempt: 1, why: Again::NoMatch });
    assert_eq!(edge.charges(), 0);
}

#[test]
fn one_moment_is_said_when_checking_takes_long() {
    let mut edge = Edge::asked_for_card(known());
    edge.say(6_000).wait(1_199);
    assert!(edge.playing.is_none());
    edge.wait(1);
    assert_eq!(edge.prompt(), &Prompt::OneMoment);
    edge.voice(0.9).number(&[5.0]);
    assert!(matches!(edge.prompt(), Prompt::ReadBack { .. }));
}

#[test]
fn a_prompt_that_was_stopped_and_is_reported_late_moves_nothing() {
    let mut edge = Edge::called_by(known());
    let stale = edge.playing.as_ref().unwrap().0;
    edge.prompt_done().prompt_done();
    let before = edge.log.len();
    edge.give(Input::PromptDone(stale));
    assert_eq!(edge.log.len(), before);
    assert_eq!(edge.state.name(), "asking card");
}
