//! Refusals have one shape: an impostor with the right number, one with a wrong number, and the right voice with a wrong
//! number hear the same words at the same time; and the number is never looked at before the voice holds.

use voicepay::call::CallRecord;
use voicepay::dialogue::CallVerdict;

use crate::support::{ALICE, World, hear, hung_up, replies, say, story};

async fn three_tries(recording: &str) -> CallRecord {
    let world = World::with_alice_enrolled().await;
    let steps = [hear(4_000), say(recording), hear(1_500), say(recording), hear(1_500), say(recording), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Refused, 0), "\n{}", story(&record));
    record
}

#[tokio::test]
async fn whichever_factor_failed() {
    let right_number = three_tries("mallory/card").await;
    let wrong_number = three_tries("mallory/card_other").await;
    let wrong_number_right_voice = three_tries("alice/card_other").await;
    assert!(!right_number.number_compared, "the comparator ran for an impostor\n{}", story(&right_number));
    assert!(!wrong_number.number_compared, "the comparator ran for an impostor\n{}", story(&wrong_number));
    assert!(wrong_number_right_voice.number_compared);
    let words = |r: &CallRecord| replies(r).into_iter().map(|(what, _)| what).collect::<Vec<_>>();
    assert_eq!(words(&right_number), words(&wrong_number));
    assert_eq!(words(&right_number), words(&wrong_number_right_voice));
    // The same moment after the end of speech, give or take a frame; the first prompts come before any speech.
    for (a, b) in replies(&right_number).iter().zip(replies(&wrong_number_right_voice)).skip(3) {
        assert!(a.1.abs_diff(b.1) <= 40, "{} ms and {} ms for `{}`", a.1, b.1, a.0);
    }
}

#[tokio::test]
async fn and_another_voice_saying_yes_does_not_pay() {
    let world = World::with_alice_enrolled().await;
    let yes = "bob/yes";
    let steps = [hear(4_000), say("alice/card"), hear(4_000), say(yes), hear(1_000), say(yes), hear(1_000), say(yes), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!(world.charges(), 0, "\n{}", story(&record));
    assert_ne!(record.verdict, CallVerdict::Paid);
}
