//! Silence, keys that end a call, hanging up at every stage, and a machine that is too busy to listen.

use std::time::Duration;

use voicepay::dialogue::CallVerdict;
use voicepay::phone::{Action, Step};

use crate::support::{ALICE, World, hear, hung_up, said, say, story};

#[tokio::test]
async fn silence_is_asked_again_twice_each_time_in_other_words() {
    let world = World::with_alice_enrolled().await;
    let (record, _) = world.call(ALICE, [hung_up()]).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Abandoned, 0), "\n{}", story(&record));
    let asked: Vec<_> = said(&record).into_iter().filter(|s| s.contains("card")).collect();
    assert_eq!(asked.len(), 3, "\n{}", story(&record));
    assert!(asked[0] != asked[1] && asked[1] != asked[2], "{asked:?}");
}

#[tokio::test]
async fn noise_is_not_taken_for_a_number() {
    let world = World::with_alice_enrolled().await;
    let noise = || say("nobody/noise");
    let (record, _) = world.call(ALICE, [hear(4_000), noise(), hear(1_000), noise(), hear(1_000), noise(), hung_up()]).await;
    assert_eq!(world.charges(), 0, "\n{}", story(&record));
    assert!(!record.number_compared, "\n{}", story(&record));
}

#[tokio::test]
async fn star_cancels_and_zero_asks_for_a_person() {
    for (key, verdict) in [("*", CallVerdict::Cancelled), ("0", CallVerdict::Person)] {
        let world = World::with_alice_enrolled().await;
        let (record, _) = world.call(ALICE, [hear(4_000), Step::keys(key), hung_up()]).await;
        assert_eq!((record.verdict, world.charges()), (verdict, 0), "\n{}", story(&record));
    }
}

#[tokio::test]
async fn no_at_the_read_back_charges_nothing() {
    let world = World::with_alice_enrolled().await;
    let (record, _) = world.call(ALICE, [hear(4_000), say("alice/card"), hear(4_000), say("alice/no"), hung_up()]).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Cancelled, 0), "\n{}", story(&record));
}

#[tokio::test]
async fn hanging_up_before_the_yes_charges_nothing() {
    let world = World::with_alice_enrolled().await;
    let (record, _) = world.call(ALICE, [hear(4_000), say("alice/card"), hear(4_000), Action::HangUp.into()]).await;
    assert_eq!(record.verdict, CallVerdict::Abandoned, "\n{}", story(&record));
    tokio::time::sleep(Duration::from_secs(2)).await; // real: several looks of the payment worker
    assert_eq!((world.charges(), world.payments().await.len()), (0, 0));
}

/// The number is just said and the models are at work on it when the line goes dead.
#[tokio::test]
async fn hanging_up_in_the_pause_leaves_no_work_behind() {
    let world = World::with_alice_enrolled().await;
    let (record, _) = world.call(ALICE, [hear(4_000), say("alice/card"), Action::HangUp.into()]).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Abandoned, 0), "\n{}", story(&record));
    for _ in 0..100 {
        if world.inferences() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.inferences(), 0);
}

#[tokio::test]
async fn hanging_up_right_after_the_yes_leaves_at_most_one_charge_and_a_receipt() {
    let world = World::with_alice_enrolled().await;
    // The yes is over 0.7 s after it was said; the bank answers 0.2 s later, and the hang-up comes between.
    let wait = Step::from(Action::Wait(Duration::from_millis(850)));
    let steps = [hear(4_000), say("alice/card"), hear(4_000), say("alice/yes"), wait, Action::HangUp.into()];
    let (record, _) = world.call(ALICE, steps).await;
    for _ in 0..200 {
        if world.payments().await.iter().all(|p| p.receipt.is_some()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let payments = world.payments().await;
    assert_eq!((payments.len(), world.charges()), (1, 1), "\n{}", story(&record));
    assert!(payments[0].receipt.is_some());
}

#[tokio::test]
async fn a_machine_too_busy_to_listen_says_so() {
    let world = World::with_alice_enrolled().await;
    let _occupied = world.occupied();
    let (record, _) = world.call(ALICE, [hear(4_000), say("alice/card"), hung_up()]).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Busy, 0), "\n{}", story(&record));
}
