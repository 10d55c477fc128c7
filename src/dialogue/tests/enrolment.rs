//! Enrolment by phone: code, consent, digit strings.

use super::*;

fn invited() -> Known {
    Known { voice: VoiceOnFile::None, has_open_invite: true, ..known() }
}

fn challenges(n: u8) -> InviteOutcome {
    InviteOutcome::Accepted { challenges: (0..n).map(|i| vec![i; 10]).collect() }
}

/// At the point where consent is listened for.
fn asked_for_consent(strings: u8) -> Edge {
    let mut edge = Edge::called_by(invited());
    assert_eq!(edge.prompt(), &Prompt::AskInviteCode { attempt: 1, why: Again::First });
    edge.key("83620174#").give(Input::InviteRedeemed(challenges(strings)));
    assert_eq!(edge.prompt(), &Prompt::AskConsent { attempt: 1, why: Again::First });
    edge.prompt_done();
    edge
}

/// At the point where the first string is asked for.
fn consented(strings: u8) -> Edge {
    let mut edge = asked_for_consent(strings);
    edge.answer(Answer::Yes, None);
    edge
}

fn round(edge: &mut Edge, outcome: EnrolOutcome) -> &mut Edge {
    edge.prompt_done().say(3_000).wait(300).give(Input::EnrolAdded(outcome))
}

fn say(round: u8, rounds: u8, digit: u8, attempt: u8, why: Again) -> Prompt {
    Prompt::EnrolSay { round, rounds, digits: vec![digit; 10], attempt, why }
}

#[test]
fn an_invited_caller_enrols_with_code_consent_and_three_strings() {
    let mut edge = consented(6);
    let agreed_at = edge.now;
    for (n, total) in [(1, 3_000), (2, 6_000), (3, 9_000)] {
        assert_eq!(edge.prompt(), &say(n, 3, n - 1, 1, Again::First));
        round(&mut edge, EnrolOutcome::Added { net_speech_total_ms: total });
    }
    let consent = edge.log.iter().find_map(|(_, e)| match e {
        Effect::EnrolFinish { consent, .. } => Some(consent.clone()),
        _ => None,
    });
    assert_eq!(consent, Some(Consent { at: agreed_at, policy_version: "1".to_owned() }));
    edge.give(Input::EnrolStored(StoreOutcome::Stored));
    assert_eq!(edge.prompt(), &Prompt::EnrolDone);
    assert_eq!(edge.verdict(), CallVerdict::Enrolled);
    assert_eq!(edge.count(|e| matches!(e, Effect::Notify { notice: Notice::VoiceEnrolled, .. })), 1);
    assert_eq!(edge.charges(), 0);
}

#[test]
fn each_string_is_listened_for_after_its_prompt_and_named_to_the_edge() {
    let mut edge = consented(6);
    assert_eq!(edge.listening, None, "the prompt's echo must not be learnt");
    edge.prompt_done();
    assert_eq!(edge.listening, Some(ListenFor::EnrolDigits { digits: vec![0; 10] }));
    edge.say(3_000);
    assert!(edge.log.iter().any(|(_, e)| matches!(e, Effect::EnrolAdd { digits, .. } if *digits == [0; 10])));
}

#[test]
fn what_cannot_be_taken_is_asked_anew_with_a_fresh_string_and_the_reason() {
    let mut edge = consented(6);
    round(&mut edge, EnrolOutcome::TooShort);
    assert_eq!(edge.prompt(), &say(1, 3, 1, 2, Again::TooShort));
    round(&mut edge, EnrolOutcome::Added { net_speech_total_ms: 3_000 });
    assert_eq!(edge.prompt(), &say(2, 3, 2, 1, Again::First));
    round(&mut edge, EnrolOutcome::Disagrees);
    assert_eq!(edge.prompt(), &say(2, 3, 3, 2, Again::NoMatch));
    round(&mut edge, EnrolOutcome::Disagrees);
    round(&mut edge, EnrolOutcome::Disagrees);
    assert_eq!(edge.prompt(), &Prompt::EnrolFailed);
    assert_eq!(edge.verdict(), CallVerdict::EnrolFailed);
    assert_eq!(edge.count(|e| matches!(e, Effect::EnrolFinish { .. })), 0);
}

#[test]
fn other_words_and_sound_that_was_heard_before_are_asked_anew_without_a_word_of_why() {
    let mut edge = consented(6);
    round(&mut edge, EnrolOutcome::OtherWords);
    assert_eq!(edge.prompt(), &say(1, 3, 1, 2, Again::NotUnderstood));
    round(&mut edge, EnrolOutcome::HeardBefore);
    assert_eq!(edge.prompt(), &say(1, 3, 2, 3, Again::NoMatch));
    round(&mut edge, EnrolOutcome::OtherWords);
    assert_eq!(edge.verdict(), CallVerdict::EnrolFailed, "three tries of one round");
}

#[test]
fn too_little_speech_in_all_strings_asks_for_more_of_them_but_not_for_ever() {
    let mut edge = consented(6);
    for n in 1..=3 {
        round(&mut edge, EnrolOutcome::Added { net_speech_total_ms: 2_000 * n });
    }
    assert_eq!(edge.prompt(), &say(4, 4, 3, 1, Again::First));
    for _ in 4..=6 {
        round(&mut edge, EnrolOutcome::Added { net_speech_total_ms: 7_999 });
    }
    assert_eq!(edge.verdict(), CallVerdict::EnrolFailed);
    let mut enough = consented(6);
    for total in [2_000, 4_000, 6_000, 8_000] {
        round(&mut enough, EnrolOutcome::Added { net_speech_total_ms: total });
    }
    assert_eq!(enough.state.name(), "enrolling: storing");
}

#[test]
fn no_string_is_asked_for_twice_so_an_enrolment_ends_with_its_strings() {
    let mut edge = consented(3);
    for n in 1..=3 {
        round(&mut edge, EnrolOutcome::Added { net_speech_total_ms: 2_000 * n });
    }
    assert_eq!(edge.verdict(), CallVerdict::EnrolFailed);
}

#[test]
fn a_wrong_code_is_asked_for_again_up_to_the_limit_and_no_audio_is_captured() {
    let mut edge = Edge::called_by(invited());
    for attempt in 2..=3 {
        edge.key("1111#").give(Input::InviteRedeemed(InviteOutcome::Rejected));
        assert_eq!(edge.prompt(), &Prompt::AskInviteCode { attempt, why: Again::NoMatch });
    }
    edge.key("1111#").give(Input::InviteRedeemed(InviteOutcome::Rejected));
    assert_eq!(edge.verdict(), CallVerdict::EnrolFailed);
    assert_eq!(edge.count(|e| matches!(e, Effect::Listen { .. } | Effect::EnrolAdd { .. })), 0);
}

#[test]
fn without_consent_nothing_is_recorded() {
    for answer in [Answer::No, Answer::Cancel] {
        let mut edge = asked_for_consent(6);
        edge.answer(answer, None);
        assert_eq!(edge.verdict(), CallVerdict::Cancelled);
        assert_eq!(edge.count(|e| matches!(e, Effect::EnrolAdd { .. })), 0);
    }
    let mut edge = asked_for_consent(6);
    for attempt in 2..=3 {
        edge.answer(Answer::Unclear, None);
        assert_eq!(edge.prompt(), &Prompt::AskConsent { attempt, why: Again::NotUnderstood });
        edge.prompt_done();
    }
    edge.answer(Answer::Unclear, None);
    assert_eq!(edge.verdict(), CallVerdict::EnrolFailed);
}

#[test]
fn a_caller_who_keys_nothing_is_asked_twice_more() {
    let mut edge = Edge::called_by(invited());
    for attempt in 2..=3 {
        edge.prompt_done().wait(6_000);
        assert_eq!(edge.prompt(), &Prompt::AskInviteCode { attempt, why: Again::Silence });
    }
    edge.prompt_done().wait(6_000);
    assert_eq!(edge.verdict(), CallVerdict::EnrolFailed);
}

#[test]
fn a_template_of_another_model_is_replaced_by_invitation_and_an_enrolled_customer_pays_first() {
    let other = Edge::called_by(Known { voice: VoiceOnFile::OtherModel, ..invited() });
    assert!(matches!(other.prompt(), Prompt::AskInviteCode { .. }));
    let pays = Edge::called_by(Known { voice: VoiceOnFile::Enrolled, ..invited() });
    assert!(matches!(pays.prompt(), Prompt::ReadRequest { .. }));
    let renews = Edge::called_by(Known { voice: VoiceOnFile::Enrolled, requests: vec![], ..invited() });
    assert!(matches!(renews.prompt(), Prompt::AskInviteCode { .. }));
}

#[test]
fn challenges_that_cannot_be_spoken_or_do_not_suffice_fail_closed() {
    for challenges in [vec![], vec![vec![1; 10]; 2], vec![vec![11; 10]; 3], vec![vec![]; 3]] {
        let mut edge = Edge::called_by(invited());
        edge.key("83620174#").give(Input::InviteRedeemed(InviteOutcome::Accepted { challenges }));
        edge.prompt_done().answer(Answer::Yes, None);
        assert_eq!(edge.verdict(), CallVerdict::ServiceTrouble);
    }
}

#[test]
fn a_template_that_could_not_be_stored_is_not_called_stored() {
    for (outcome, verdict) in [
        (Some(StoreOutcome::Refused), CallVerdict::EnrolFailed),
        (Some(StoreOutcome::Trouble), CallVerdict::ServiceTrouble),
        (None, CallVerdict::ServiceTrouble),
    ] {
        let mut edge = consented(3);
        for _ in 0..3 {
            round(&mut edge, EnrolOutcome::Added { net_speech_total_ms: 9_000 });
        }
        match outcome {
            Some(outcome) => edge.give(Input::EnrolStored(outcome)),
            None => edge.wait(5_000),
        };
        assert_eq!(edge.verdict(), verdict);
    }
}
