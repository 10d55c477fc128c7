//! Eight during the greeting: longer waits for the caller, longer pauses within what is said, longer gaps between dictated digits; and the
//! same verdicts.

use std::time::Duration;

use voicepay::call::CallRecord;
use voicepay::dialogue::CallVerdict;
use voicepay::phone::{Action, Step};

use crate::support::{ALICE, World, hear, hung_up, said, say, story};

fn not_heard(record: &CallRecord) -> usize {
    said(record).iter().filter(|s| s.contains("did not hear")).count()
}

/// Says the card number a good while after it was asked for, and the yes as late.
fn late(first: &[Step]) -> Vec<Step> {
    let think = || Step::from(Action::Wait(Duration::from_secs(9))).within(Duration::from_secs(30));
    let mut steps = first.to_vec();
    steps.extend([hear(4_000), think(), say("alice/card"), hear(4_000), think(), say("alice/yes"), hung_up()]);
    steps
}

#[tokio::test]
async fn nine_seconds_of_thinking_are_no_silence_to_who_pressed_eight() {
    let world = World::with_alice_enrolled().await;
    let (record, _) = world.call(ALICE, late(&[Step::keys("8")])).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
    assert_eq!(not_heard(&record), 0, "\n{}", story(&record));
    let world = World::with_alice_enrolled().await;
    let (record, _) = world.call(ALICE, late(&[])).await;
    assert!(not_heard(&record) > 0, "to others they are\n{}", story(&record));
}

#[tokio::test]
async fn her_voice_scores_as_it_does_without() {
    let score = async |first: &[Step]| {
        let world = World::with_alice_enrolled().await;
        let mut steps = first.to_vec();
        steps.extend([hear(4_000), say("alice/card"), hear(4_000), say("alice/yes"), hung_up()]);
        let (record, _) = world.call(ALICE, steps).await;
        assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
        record.events.iter().find_map(|e| e.figures.get("voice_llr")?.as_f64()).unwrap()
    };
    let (slow, usual) = (score(&[Step::keys("8")]).await, score(&[]).await);
    assert!((slow - usual).abs() < 0.5, "{slow} and {usual} nats");
}
