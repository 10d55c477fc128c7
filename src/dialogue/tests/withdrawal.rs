//! A voice is deleted by phone: for its owner alone, who says so twice. And more time, for who wants it.

use super::challenge::challenging;
use super::*;
use crate::decision::ChallengeWhen;

/// The caller presses these keys while being greeted.
fn greeted(keys: &str, known: Known) -> Edge {
    let mut edge = Edge::new(challenging(ChallengeWhen::Inconclusive));
    edge.give(Input::Started { caller: caller() });
    edge.key(keys).give(Input::Identity(IdentityOutcome::Known(Box::new(known)))).prompt_done();
    edge
}

fn deletions(edge: &Edge) -> usize {
    edge.count(|e| matches!(e, Effect::DeleteVoice { .. }))
}

#[test]
fn the_owner_says_fresh_digits_and_yes_and_the_voice_is_deleted() {
    let mut edge = greeted("9", known());
    assert_eq!(edge.state.name(), "drawing digits", "nothing of a payment is said");
    edge.draw_ten().say_digits(0.9, 5.0);
    assert_eq!(edge.prompt(), &Prompt::AskDelete { attempt: 1, why: Again::First });
    assert_eq!(deletions(&edge), 0);
    edge.prompt_done().answer(Answer::Yes, Some(0.5));
    assert_eq!(deletions(&edge), 1);
    edge.give(Input::HungUp);
    assert_eq!(deletions(&edge), 1);
    let mut edge = greeted("9", known());
    edge.draw_ten().say_digits(0.9, 5.0).prompt_done().answer(Answer::Yes, Some(0.5)).give(Input::VoiceDeleted(true));
    assert_eq!(edge.prompt(), &Prompt::VoiceDeleted);
    assert_eq!((edge.verdict(), edge.charges()), (CallVerdict::Withdrawn, 0));
}

#[test]
fn another_voice_deletes_nothing_and_its_tries_count_like_any_others() {
    let mut edge = greeted("9", known());
    edge.draw_ten();
    for _ in 0..2 {
        edge.say_digits(0.1, 5.0).draw_ten().wait(3_000);
        assert!(matches!(edge.prompt(), Prompt::SayDigits { why: Again::NoMatch, .. }));
    }
    edge.say_digits(0.1, 5.0).wait(3_000);
    assert_eq!(edge.prompt(), &Prompt::VoiceNotDeleted);
    assert_eq!((edge.verdict(), deletions(&edge)), (CallVerdict::Refused, 0));
    assert_eq!(edge.count(|e| matches!(e, Effect::RecordFailure { factor: Factor::Challenge, .. })), 3);
    let mut locked = greeted("9", Known { failures_24h: 5, ..known() });
    assert_eq!(locked.verdict(), CallVerdict::LockedOut);
}

#[test]
fn no_a_recorded_yes_another_voice_s_and_silence_keep_it() {
    let asked = || {
        let mut edge = greeted("9", known());
        edge.draw_ten().say_digits(0.9, 5.0).prompt_done();
        edge
    };
    let mut no = asked();
    no.answer(Answer::No, Some(0.5));
    assert_eq!((no.verdict(), deletions(&no)), (CallVerdict::Cancelled, 0));
    for (cosine, heard_before) in [(Some(0.1), false), (None, false), (Some(0.5), true)] {
        let mut edge = asked();
        edge.say(500).give(Input::Answer(Ok(AnswerHeard { answer: Answer::Yes, continuity_cosine: cosine, heard_before })));
        assert!(matches!(edge.prompt(), Prompt::AskDelete { attempt: 2, .. }));
        assert_eq!(deletions(&edge), 0);
    }
    let mut silent = asked();
    silent.wait(6_000).prompt_done().wait(6_000).prompt_done().wait(6_000);
    assert_eq!((silent.verdict(), deletions(&silent)), (CallVerdict::Cancelled, 0));
}

#[test]
fn without_a_voice_that_can_be_compared_there_is_none_to_delete_by_phone() {
    for voice in [VoiceOnFile::None, VoiceOnFile::OtherModel] {
        let mut edge = greeted("9", Known { voice, has_open_invite: true, ..known() });
        assert_eq!(edge.prompt(), &Prompt::NoVoiceToDelete);
        assert_eq!(edge.verdict(), CallVerdict::NotEnrolled);
    }
}

#[test]
fn what_could_not_be_erased_is_not_called_erased() {
    for answer in [Some(false), None] {
        let mut edge = greeted("9", known());
        edge.draw_ten().say_digits(0.9, 5.0).prompt_done().answer(Answer::Yes, Some(0.5));
        match answer {
            Some(done) => edge.give(Input::VoiceDeleted(done)),
            None => edge.wait(5_000),
        };
        assert_eq!(edge.verdict(), CallVerdict::ServiceTrouble);
        assert!(!edge.prompts().contains(&Prompt::VoiceDeleted));
    }
}

#[test]
fn nine_means_a_nine_once_the_greeting_is_over() {
    let mut edge = Edge::called_by(known());
    edge.key("9");
    assert_eq!(edge.state.name(), "keying card");
}

/// How long a silent caller is waited for at the card number, and how long the whole call may last.
fn patience(edge: &mut Edge) -> u64 {
    edge.prompt_done().prompt_done();
    let asked = edge.now;
    while edge.playing.is_none() {
        edge.wait(500);
    }
    u64::try_from(edge.now.since(asked).as_millis()).unwrap()
}

#[test]
fn who_presses_eight_or_is_known_to_want_it_has_three_times_as_long_for_everything() {
    assert_eq!(patience(&mut greeted("", known())), 6_000);
    for mut edge in [greeted("8", known()), greeted("", Known { slow: true, ..known() }), greeted("88", known())] {
        assert_eq!(edge.count(|e| matches!(e, Effect::SlowDown)), 1);
        let limit = edge.log.iter().rev().find_map(|(_, e)| match e {
            Effect::SetDeadline { kind: DeadlineKind::CallLimit, at } => Some(*at),
            _ => None,
        });
        assert_eq!(limit, Some(Timestamp(1_000_000).plus(Duration::from_secs(900))), "from the call's beginning");
        assert_eq!(patience(&mut edge), 18_000);
    }
}

#[test]
fn more_time_changes_no_verdict_and_no_time_for_which_digits_are_good() {
    let say = |edge: &mut Edge| {
        edge.prompt_done().say(6_000).voice(0.5);
        let known = edge.count(|e| matches!(e, Effect::DrawChallenge { .. }));
        edge.give(Input::ChallengeDrawn(ChallengeOutcome::Drawn { digits: vec![5, 0, 2, 7, 1, 9, 4, 6] })).wait(3_000);
        edge.say_digits(0.9, 5.0).number(&[5.0]);
        let judged: Vec<_> = edge
            .log
            .iter()
            .filter_map(|(_, e)| match e {
                Effect::KeepEvidence(kept) => Some((kept.known, kept.outcome.clone())),
                _ => None,
            })
            .collect();
        (known, judged, edge.prompts().len())
    };
    assert_eq!(say(&mut greeted("8", known())), say(&mut greeted("", known())), "being slow is held against nobody");
    // Two minutes are two minutes.
    let mut edge = greeted("8", known());
    edge.prompt_done().say(6_000).voice(0.5);
    edge.give(Input::ChallengeDrawn(ChallengeOutcome::Drawn { digits: vec![5, 0, 2, 7, 1, 9, 4, 6] })).wait(3_000);
    edge.prompt_done().wait(15_000).give(Input::SpeechStarted).wait(110_000).give(utterance(3_000));
    assert_eq!(edge.count(|e| matches!(e, Effect::ScoreChallenge { .. })), 0);
}
