//! Where the voice alone is not enough, the caller says digits that nobody can have recorded: these words, in this voice, in time.

use std::time::Duration;

use voicepay::call::CallRecord;
use voicepay::config::Config;
use voicepay::decision::Calibration;
use voicepay::dialogue::CallVerdict;
use voicepay::media::leg::{Attestation, AttestationFault};
use voicepay::phone::{Action, Step};

use crate::support::{ALICE, World, card_numbers, hear, hung_up, repeat, said, say, script, story};

/// What `alice/fresh_1` and `alice/fresh_2` say.
const FIRST: &str = "50271946";
const SECOND: &str = "83610527";

/// A policy under which no first utterance is sure enough.
fn by_amount(config: &mut Config) {
    config.decision.challenge_from_minor = 1;
}

/// How her voice scores when she says her card number.
async fn voice_llr(world: &World) -> f32 {
    let (record, _) = world.call(ALICE, [hear(4_000), say("alice/card"), hear(1_500), Action::HangUp.into()]).await;
    let scored = record.events.iter().find_map(|e| e.figures.get("voice_llr")?.as_f64());
    scored.unwrap_or_else(|| panic!("her voice was scored\n{}", story(&record))) as f32
}

fn asked_for_digits(record: &CallRecord) -> usize {
    said(record).iter().filter(|s| s.contains("repeat") && s.contains('…')).count()
}

/// Card, fresh digits, yes.
fn answering(answer: &str) -> [Step; 7] {
    [hear(4_000), say("alice/card"), hear(5_000), say(answer), hear(4_000), say("alice/yes"), hung_up()]
}

#[tokio::test]
async fn an_inconclusive_voice_that_says_them_pays() {
    // So strict that her first utterance alone is just not enough.
    let first = voice_llr(&World::with_alice_enrolled().await).await;
    let voices = &Calibration::compiled_in().unwrap().voice;
    let decades = (2..30).map(|n| 10_f64.powi(-n));
    let strict = decades.into_iter().find(|far| voices.threshold_at(*far).unwrap() > first + 0.3).unwrap();
    let world = World::with_fresh_digits(&[FIRST], |config| config.decision.voice_accept_far = strict).await;
    let (record, _) = world.call(ALICE, answering("alice/fresh_1")).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
    assert_eq!(asked_for_digits(&record), 1, "\n{}", story(&record));
    let cards = said(&record).iter().filter(|s| s.contains("card number")).count();
    assert_eq!(cards, 1, "the card number was said once\n{}", story(&record));
}

#[tokio::test]
async fn a_policy_that_asks_for_them_gets_them_and_they_are_in_no_record() {
    let world = World::with_fresh_digits(&[FIRST], by_amount).await;
    let (record, _) = world.call(ALICE, answering("alice/fresh_1")).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
    assert_eq!(asked_for_digits(&record), 1);
    let told = serde_json::to_string(&record).unwrap() + &format!("{record:?}");
    let spaced = FIRST.chars().map(String::from).collect::<Vec<_>>().join(" ");
    let raw: Vec<u8> = FIRST.bytes().map(|b| b - b'0').collect();
    for canary in [FIRST.as_bytes(), spaced.as_bytes(), &raw] {
        assert!(!told.as_bytes().windows(canary.len()).any(|w| w == canary));
        assert!(!world.kept_bytes().windows(canary.len()).any(|w| w == canary));
    }
}

#[tokio::test]
async fn a_keyed_card_number_is_compared_after_them() {
    let world = World::with_fresh_digits(&[FIRST], by_amount).await;
    let (card, _) = card_numbers();
    let steps = [
        hear(4_000),
        Step::keys(&card.ascii()),
        hear(1_500),
        say("alice/counting"),
        hear(5_000),
        say("alice/fresh_1"),
        hear(4_000),
        say("alice/yes"),
        hung_up(),
    ];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
    assert_eq!(asked_for_digits(&record), 1);
}

/// Digits that no recording says: the caller hears which they are.
const ANY: &str = "39471608";

/// What the demo's phone does, where digits are asked for and where none are.
#[tokio::test]
async fn a_caller_who_listens_says_whatever_digits_come_up() {
    for (asked, adjust) in [(1, by_amount as fn(&mut Config)), (0, |_| ())] {
        let world = World::with_fresh_digits(&[ANY], adjust).await;
        let (record, report) = world.call(ALICE, script("pay.toml")).await;
        assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "{:?}\n{}", report.failure, story(&record));
        assert_eq!(asked_for_digits(&record), asked, "\n{}", story(&record));
    }
}

#[tokio::test]
async fn but_not_in_another_voice() {
    let world = World::with_fresh_digits(&[ANY], by_amount).await;
    let steps = [hear(4_000), say("alice/card"), hear(5_000), repeat("mallory"), hear(1_500), Action::HangUp.into()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Abandoned, 0), "\n{}", story(&record));
    assert!(!record.number_compared, "\n{}", story(&record));
}

/// Nothing is paid, the number is not looked at, and it counts as a failure.
async fn refused(world: &World, answer: &str) {
    let steps = [hear(4_000), say("alice/card"), hear(5_000), say(answer), hear(1_500), Action::HangUp.into()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Abandoned, 0), "\n{}", story(&record));
    assert!(!record.number_compared, "\n{}", story(&record));
    assert!(record.events.iter().any(|e| e.what.contains("a factor failed")), "\n{}", story(&record));
    let last = said(&record).pop().unwrap_or_default().to_owned();
    assert!(last.contains("could not confirm"), "the words of every mismatch\n{}", story(&record));
}

#[tokio::test]
async fn other_digits_do_not() {
    refused(&World::with_fresh_digits(&[FIRST], by_amount).await, "alice/fresh_2").await;
}

#[tokio::test]
async fn another_voice_does_not() {
    refused(&World::with_fresh_digits(&[FIRST], by_amount).await, "mallory/fresh_1").await;
}

#[tokio::test]
async fn a_recording_of_an_earlier_answer_does_not() {
    let world = World::with_fresh_digits(&[FIRST, SECOND], by_amount).await;
    let (record, _) = world.call(ALICE, answering("alice/fresh_1")).await;
    assert_eq!(record.verdict, CallVerdict::Paid, "\n{}", story(&record));
    world.request(1_999).await;
    let steps = [hear(4_000), say("alice/card"), hear(5_000), say("alice/fresh_1"), hear(1_500), Action::HangUp.into()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Abandoned, 1), "\n{}", story(&record));
    assert!(!record.number_compared, "\n{}", story(&record));
}

#[tokio::test]
async fn an_answer_that_comes_too_late_gets_other_digits() {
    let world = World::with_fresh_digits(&[FIRST, SECOND], |config| {
        by_amount(config);
        config.dialogue.silence_ms = 200_000;
        config.dialogue.call_limit_ms = 600_000;
    })
    .await;
    let wait = Step::from(Action::Wait(Duration::from_secs(118))).within(Duration::from_secs(200));
    let steps = [
        hear(4_000),
        say("alice/card"),
        hear(5_000),
        wait,
        say("alice/fresh_1"),
        hear(4_000),
        say("alice/fresh_2"),
        hear(4_000),
        say("alice/yes"),
        hung_up(),
    ];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
    assert!(said(&record).iter().any(|s| s.contains("too long")), "\n{}", story(&record));
    assert_eq!(asked_for_digits(&record), 2);
}

#[tokio::test]
async fn a_caller_whose_signed_number_does_not_hold_has_to_say_them() {
    let world = World::with_fresh_digits(&[FIRST], |_| ()).await;
    let forged = Attestation::Failed(AttestationFault::Signature);
    let (record, _) = world.call_signed(ALICE, forged, answering("alice/fresh_1")).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
    assert_eq!(asked_for_digits(&record), 1, "\n{}", story(&record));
    let told = serde_json::to_value(&record).unwrap();
    assert_eq!(told["attestation"], "TN-Validation-Failed signature");
    assert!(told["evidence"].as_array().unwrap().iter().all(|e| e["known"]["failed_attestation"] == true), "{told}");
}
