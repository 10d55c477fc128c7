//! Who keys the card number is still asked to speak.

use voicepay::dialogue::CallVerdict;
use voicepay::phone::Step;

use crate::support::{ALICE, World, card_numbers, hear, hung_up, say, story};

fn keyed(pan: &voicepay::secret::Pan) -> Step {
    Step::keys(&pan.ascii())
}

#[tokio::test]
async fn a_keyed_number_and_the_right_voice_pay() {
    let world = World::with_alice_enrolled().await;
    let (card, _) = card_numbers();
    let steps = [hear(4_000), keyed(&card), hear(1_500), say("alice/counting"), hear(4_000), say("alice/yes"), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
}

#[tokio::test]
async fn a_keyed_number_and_another_voice_do_not() {
    let world = World::with_alice_enrolled().await;
    let (card, _) = card_numbers();
    let steps = [hear(4_000), keyed(&card), hear(1_500), say("mallory/counting"), hear(1_500), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!(world.charges(), 0, "\n{}", story(&record));
    assert!(!record.number_compared, "\n{}", story(&record));
}

#[tokio::test]
async fn a_wrong_keyed_number_and_the_right_voice_do_not() {
    let world = World::with_alice_enrolled().await;
    let (_, other) = card_numbers();
    let steps = [hear(4_000), keyed(&other), hear(1_500), say("alice/counting"), hear(1_500), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!(world.charges(), 0, "\n{}", story(&record));
    assert!(record.number_compared, "\n{}", story(&record));
}
