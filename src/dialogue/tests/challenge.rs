//! Fresh digits: asked for where the voice does not settle it, answered in words and voice, and failing closed in every other way.

use super::*;
use crate::decision::{ChallengeWhen, DigitThresholds, PhraseEvidence};

const DIGITS: [u8; 8] = [5, 0, 2, 7, 1, 9, 4, 6];
const UNSURE: f32 = 0.5;

pub(super) fn challenging(when: ChallengeWhen) -> DialogueConfig {
    let usual = cfg();
    DialogueConfig {
        policy: Policy {
            challenge_when: when,
            phrase: DigitThresholds { accept_llr: 2.0, reject_llr: -2.0 },
            challenge_voice_llr: 0.5,
            challenge_pooling: 0.7,
            ..usual.policy
        },
        offer_mandates: true,
        ..usual
    }
}

pub(super) fn content(llr: f32) -> PhraseEvidence {
    PhraseEvidence { log_ratio: llr, llr, engine: "test".to_owned(), calibration: "test".to_owned() }
}

/// The `n`th string of a call, each another.
fn digits(n: u8) -> Vec<u8> {
    DIGITS.iter().map(|d| (d + n - 1) % 10).collect()
}

impl Edge {
    /// The card was asked for, and fresh digits may be.
    fn may_challenge(when: ChallengeWhen) -> Self {
        let mut edge = Self::called_with(challenging(when), known());
        edge.prompt_done();
        edge
    }

    /// The same, after an unsure voice, at the point where the first string is asked for.
    fn challenged() -> Self {
        let mut edge = Self::may_challenge(ChallengeWhen::Inconclusive);
        edge.wait(500).say(6_000).voice(UNSURE).drawn(1);
        edge.wait(3_000);
        assert_eq!(edge.prompt(), &say_digits(1, false, 1, Again::First));
        edge
    }

    fn drawn(&mut self, n: u8) -> &mut Self {
        assert_eq!(self.state.name(), "drawing digits");
        self.wait(20).give(Input::ChallengeDrawn(ChallengeOutcome::Drawn { digits: digits(n) }))
    }

    /// The question is heard out and answered; the workers say this of it.
    fn answered(&mut self, voice_llr: f32, content_llr: f32) -> &mut Self {
        self.prompt_done().say(2_500).wait(400);
        self.give(Input::ChallengeScored(Ok(ChallengeHeard { voice: voice(voice_llr), content: content(content_llr) })))
    }
}

fn say_digits(n: u8, repeated: bool, attempt: u8, why: Again) -> Prompt {
    Prompt::SayDigits { digits: digits(n), repeated, attempt, why }
}

fn draws(edge: &Edge) -> usize {
    edge.count(|e| matches!(e, Effect::DrawChallenge { .. }))
}

#[test]
fn an_unsure_voice_that_says_fresh_digits_pays_with_the_number_it_said_before() {
    let mut edge = Edge::challenged();
    edge.answered(UNSURE, 5.0);
    assert_eq!(edge.state.name(), "reading number", "without asking for the card again");
    edge.number(&[5.0]);
    assert!(matches!(edge.prompt(), Prompt::ReadBack { .. }), "{:?}", edge.playing);
    edge.prompt_done().answer(Answer::Yes, Some(0.5));
    assert_eq!(edge.charges(), 1);
    assert_eq!(edge.prompts().iter().filter(|p| matches!(p, Prompt::AskCard { .. })).count(), 1);
    assert_eq!(draws(&edge), 1);
}

#[test]
fn once_it_is_paid_the_template_may_follow_the_voice_of_the_digits_and_of_nothing_else() {
    let follows = |edge: &Edge| {
        edge.log.iter().find_map(|(_, e)| match e {
            Effect::FollowVoice { voice, unblemished, .. } => Some((voice.llr, *unblemished)),
            _ => None,
        })
    };
    let paid = |edge: &mut Edge| {
        edge.number(&[5.0]).prompt_done().answer(Answer::Yes, Some(0.5));
        edge.prompt_done();
        assert_eq!(follows(edge), None, "not before it is paid");
        edge.give(Input::Payment(PaymentOutcome::Paid { reference: vec![1] }));
    };
    let mut edge = Edge::challenged();
    edge.answered(0.8, 5.0);
    paid(&mut edge);
    assert_eq!(follows(&edge), Some((0.8, true)));
    let mut unchallenged = Edge::may_challenge(ChallengeWhen::Inconclusive);
    unchallenged.say(6_000).voice(0.9);
    paid(&mut unchallenged);
    assert_eq!(follows(&unchallenged), None);
    let mut blemished = Edge::may_challenge(ChallengeWhen::Inconclusive);
    blemished.say_card(0.9, -9.0).wait(3_000);
    blemished.say(6_000).voice(UNSURE).drawn(1).wait(3_000);
    blemished.answered(0.8, 5.0);
    paid(&mut blemished);
    assert_eq!(follows(&blemished), Some((0.8, false)));
    let mut declined = Edge::challenged();
    declined.answered(0.8, 5.0).number(&[5.0]).prompt_done().answer(Answer::Yes, Some(0.5)).prompt_done();
    declined.give(Input::Payment(PaymentOutcome::Declined));
    assert_eq!(follows(&declined), None);
}

#[test]
fn the_digits_are_asked_for_at_the_time_of_every_held_reply_and_listened_for_after_the_prompt() {
    let mut edge = Edge::may_challenge(ChallengeWhen::Inconclusive);
    edge.wait(500).say(6_000);
    let end = edge.now;
    edge.voice(UNSURE).drawn(1).wait(9_000);
    let (at, _) = edge.log.iter().find(|(_, e)| matches!(e, Effect::Play { prompt: Prompt::SayDigits { .. }, .. })).unwrap();
    assert_eq!(at.since(end), Duration::from_millis(3_000));
    assert_eq!(edge.listening, None, "nobody can speak into it");
    edge.prompt_done();
    assert_eq!(edge.listening, Some(ListenFor::Challenge { digits: digits(1) }));
}

#[test]
fn other_words_or_another_voice_are_a_mismatch_like_any_other() {
    let refused = |voice_llr, content_llr| {
        let mut edge = Edge::challenged();
        edge.answered(voice_llr, content_llr).wait(3_000);
        assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 2, why: Again::NoMatch });
        assert_eq!(edge.comparisons(), 0);
        assert_eq!(edge.count(|e| matches!(e, Effect::RecordFailure { factor: Factor::Challenge, .. })), 1);
        edge
    };
    let (words, voice) = (refused(0.9, -9.0), refused(0.1, 9.0));
    assert_eq!(words.audible(), voice.audible(), "which of the two is not told");
    for mut edge in [words, voice, refused(f32::NAN, 9.0), refused(0.9, f32::NAN)] {
        for _ in 0..2 {
            edge.say_card(0.1, 9.0).wait(3_000);
        }
        assert_eq!(edge.verdict(), CallVerdict::Refused, "it counts with the others");
        assert_eq!(edge.charges(), 0);
    }
}

#[test]
fn a_sound_that_was_heard_before_answers_nothing() {
    let mut edge = Edge::challenged();
    let replayed = VoiceHeard { heard_before: true, ..voice(0.9) };
    edge.prompt_done().say(2_500).give(Input::ChallengeScored(Ok(ChallengeHeard { voice: replayed, content: content(9.0) })));
    edge.wait(3_000);
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 2, why: Again::NoMatch });
    assert_eq!(edge.comparisons(), 0);
}

#[test]
fn an_unsure_answer_gets_other_digits_up_to_the_limit_and_then_a_refusal() {
    let mut edge = Edge::challenged();
    edge.answered(UNSURE, 0.0).drawn(2).wait(3_000);
    assert_eq!(edge.prompt(), &say_digits(2, false, 2, Again::NotUnderstood));
    edge.answered(UNSURE, 0.0).drawn(3).wait(3_000);
    assert_eq!(edge.prompt(), &say_digits(3, false, 3, Again::NotUnderstood));
    edge.answered(UNSURE, 0.0).wait(3_000);
    assert_eq!(edge.prompt(), &Prompt::Refused);
    assert_eq!(edge.verdict(), CallVerdict::Refused);
    assert_eq!((draws(&edge), edge.charges(), edge.comparisons()), (3, 0, 0));
}

#[test]
fn an_answer_after_two_minutes_is_not_judged_and_gets_other_digits() {
    for (waits, late) in [(118_000, false), (121_000, true)] {
        let mut config = challenging(ChallengeWhen::Inconclusive);
        config.silence_ms = 300_000;
        let mut edge = Edge::called_with(config, known());
        edge.prompt_done().say(6_000).voice(UNSURE).drawn(1).wait(3_000);
        let asked_at = edge.now;
        edge.prompt_done().wait(waits - PROMPT_MS - 2_500).say(2_500);
        assert_eq!(edge.now.since(asked_at), Duration::from_millis(waits));
        assert_eq!(edge.count(|e| matches!(e, Effect::ScoreChallenge { .. })), usize::from(!late));
        if late {
            edge.drawn(2);
            assert_eq!(edge.prompt(), &say_digits(2, false, 2, Again::Late));
        }
    }
}

#[test]
fn silence_repeats_the_digits_while_they_are_valid_and_does_not_go_on_for_ever() {
    let mut edge = Edge::challenged();
    for _ in 0..2 {
        edge.prompt_done().wait(6_000);
        assert_eq!(edge.prompt(), &say_digits(1, true, 1, Again::Silence));
    }
    edge.prompt_done().wait(6_000);
    assert_eq!(edge.verdict(), CallVerdict::Abandoned);
    assert_eq!(draws(&edge), 1);
}

#[test]
fn unfit_audio_gets_advice_and_other_digits() {
    for (quality, why) in [
        (UtteranceQuality::TooShort, Again::TooShort),
        (UtteranceQuality::TooQuiet, Again::TooQuiet),
        (UtteranceQuality::Clipped, Again::TooLoud),
        (UtteranceQuality::TooNoisy, Again::TooNoisy),
        (UtteranceQuality::TwoVoices, Again::TwoVoices),
    ] {
        let mut edge = Edge::challenged();
        edge.prompt_done().give(Input::Utterance(UtteranceFacts { net_speech_ms: 3_000, total_ms: 4_000, quality })).drawn(2);
        assert_eq!(edge.prompt(), &say_digits(2, false, 2, why));
        assert_eq!(edge.count(|e| matches!(e, Effect::ScoreChallenge { .. } | Effect::RecordFailure { .. })), 0);
    }
}

#[test]
fn keys_answer_no_challenge() {
    let mut edge = Edge::challenged();
    edge.prompt_done().key("5271946#");
    assert_eq!(edge.state.name(), "asking digits");
    edge.key("0");
    assert_eq!(edge.verdict(), CallVerdict::Person);
    let mut edge = Edge::challenged();
    edge.key("*");
    assert_eq!(edge.verdict(), CallVerdict::Cancelled);
}

#[test]
fn a_keyed_number_waits_for_the_digits_and_is_compared_after_them() {
    let mut edge = Edge::may_challenge(ChallengeWhen::Inconclusive);
    edge.key("4111111111111111").say(4_000).voice(UNSURE).drawn(1).wait(3_000);
    assert_eq!(edge.comparisons(), 0);
    edge.answered(0.9, 5.0);
    assert_eq!(edge.keyed.as_ref().map(Vec::len), Some(16));
    edge.evidence(NumberEvidence::Keyed { card: Some(card(1).id) });
    assert!(matches!(edge.prompt(), Prompt::ReadBack { .. }));
}

#[test]
fn by_policy_they_are_asked_for_whatever_the_voice_once_in_a_call() {
    let mut edge = Edge::may_challenge(ChallengeWhen::Always);
    edge.say(6_000).voice(0.9).drawn(1).wait(3_000);
    edge.answered(0.9, 5.0).number(&[0.0]).wait(3_000);
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 2, why: Again::NotUnderstood }, "the number was not clear");
    edge.say_card(0.9, 5.0);
    assert!(matches!(edge.prompt(), Prompt::ReadBack { .. }), "the digits were said: {:?}", edge.playing);
    assert_eq!(draws(&edge), 1);
}

#[test]
fn from_an_amount_on_they_are_asked_for_whatever_the_voice() {
    for (from, asked) in [(1_999, true), (2_000, false), (0, false)] {
        let mut config = challenging(ChallengeWhen::Inconclusive);
        config.policy.challenge_from_minor = from;
        let mut edge = Edge::called_with(config, known());
        edge.prompt_done().say(6_000).voice(0.9);
        assert_eq!(draws(&edge) == 1, asked, "from {from}");
    }
}

#[test]
fn a_challenge_that_was_passed_speaks_for_the_next_unsure_utterance_until_it_is_too_old_or_something_fails() {
    let passed = |then: &dyn Fn(&mut Edge)| {
        let mut edge = Edge::challenged();
        edge.answered(0.9, 5.0).number(&[0.0]).wait(3_000);
        then(&mut edge);
        edge.say(6_000).voice(UNSURE);
        edge
    };
    assert_eq!(passed(&|_| ()).state.name(), "reading number");
    let mut failed = passed(&|edge| {
        edge.say_card(0.9, -9.0).wait(3_000);
    });
    assert_eq!(failed.state.name(), "drawing digits", "after a failure it speaks for nothing");
    failed.drawn(2).wait(3_000);
    assert_eq!(failed.prompt(), &say_digits(2, false, 2, Again::First));
}

#[test]
fn workers_in_trouble_end_the_call_without_a_charge() {
    let table = [
        (ScoreTrouble::Overloaded, CallVerdict::Busy),
        (ScoreTrouble::TimedOut, CallVerdict::Busy),
        (ScoreTrouble::Failed, CallVerdict::ServiceTrouble),
    ];
    for (trouble, verdict) in table {
        let mut edge = Edge::challenged();
        edge.prompt_done().say(2_500).give(Input::ChallengeScored(Err(trouble))).wait(3_000);
        assert_eq!((edge.verdict(), edge.charges()), (verdict, 0));
    }
    let mut silent = Edge::challenged();
    silent.prompt_done().say(2_500).wait(10_000);
    assert_eq!(silent.verdict(), CallVerdict::Busy);
    for outcome in [
        ChallengeOutcome::Trouble,
        ChallengeOutcome::Drawn { digits: vec![1; 7] },
        ChallengeOutcome::Drawn { digits: vec![10; 8] },
    ] {
        let mut edge = Edge::may_challenge(ChallengeWhen::Inconclusive);
        edge.say(6_000).voice(UNSURE).give(Input::ChallengeDrawn(outcome)).wait(3_000);
        assert_eq!(edge.verdict(), CallVerdict::ServiceTrouble);
    }
    let mut never_drawn = Edge::may_challenge(ChallengeWhen::Inconclusive);
    never_drawn.say(6_000).voice(UNSURE).wait(10_000);
    assert_eq!(never_drawn.verdict(), CallVerdict::Busy);
}

#[test]
fn hanging_up_at_any_point_of_a_challenge_charges_nothing() {
    let mut drawing = Edge::may_challenge(ChallengeWhen::Inconclusive);
    drawing.say(6_000).voice(UNSURE);
    let mut scoring = Edge::challenged();
    scoring.prompt_done().say(2_500);
    for mut edge in [drawing, Edge::challenged(), scoring] {
        edge.give(Input::HungUp);
        assert_eq!((edge.state.verdict(), edge.charges()), (Some(CallVerdict::Abandoned), 0));
    }
}

#[test]
fn a_signed_number_whose_signature_does_not_hold_asks_for_fresh_digits_and_vouches_for_nobody() {
    let number = E164::normalise("+442079460958", "").unwrap();
    let called = |when, caller: Caller| {
        let mut edge = Edge::new(challenging(when));
        edge.give(Input::Started { caller }).give(Input::Identity(IdentityOutcome::Known(Box::new(known()))));
        edge.prompt_done().prompt_done().say(6_000).voice(0.9);
        edge
    };
    let edge = called(ChallengeWhen::Inconclusive, Caller::Unattested(number.clone()));
    assert_eq!((draws(&edge), edge.state.name()), (0, "reading number"), "a sure voice under a number that nobody signed");
    let mut edge = called(ChallengeWhen::Inconclusive, Caller::Disputed(number.clone()));
    edge.drawn(1).wait(3_000);
    edge.answered(0.8, 5.0).number(&[5.0]);
    assert!(
        matches!(edge.prompt(), Prompt::ReadBack { .. }),
        "the same voice under one that does not hold pays after fresh digits"
    );
    let known = edge.log.iter().find_map(|(_, e)| match e {
        Effect::KeepEvidence(evidence) => Some(evidence.known),
        _ => None,
    });
    assert!(known.is_some_and(|k| k.failed_attestation && k.unattested), "{known:?}");
    let looked_up = edge.log.iter().find_map(|(_, e)| match e {
        Effect::LookUp { attested, .. } => Some(*attested),
        _ => None,
    });
    assert_eq!(looked_up, Some(false), "failures under it never lock a customer out");
    let edge = called(ChallengeWhen::Never, Caller::Disputed(number));
    assert_eq!((draws(&edge), edge.state.name()), (0, "reading number"), "a policy without fresh digits stays one");
}
