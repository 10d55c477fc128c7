//! A template may follow its voice by a step: after a paid call in which fresh digits were said, from a number that somebody vouches for, if the customer
//! agreed. The operator's command takes the steps back.

use voicepay::call::CallRecord;
use voicepay::config::Config;
use voicepay::dialogue::CallVerdict;
use voicepay::store::FollowingState;

use crate::support::{ALICE, World, hear, hung_up, say, story};

const FRESH: &str = "50271946";

/// A policy that asks for fresh digits, and under which a voice that was enrolled just now may be followed.
fn asking(config: &mut Config) {
    config.decision.challenge_from_minor = 1;
    config.refresh.interval_h = 0;
}

async fn state(world: &World) -> FollowingState {
    world.office.store.following(&world.customer).await.unwrap().unwrap()
}

fn follow(world: &World) {
    world.command(&["enrol", "follow", "--consent-by", "the test"]);
}

/// Whether a step was taken in a call.
fn stepped(record: &CallRecord) -> bool {
    record.events.iter().any(|e| e.what.contains("follows the voice by a step"))
}

/// Pays, with fresh digits, from a number that a trusted peer vouches for.
async fn pays(world: &World) -> CallRecord {
    let steps = [hear(4_000), say("alice/card"), hear(5_000), say("alice/fresh_1"), hear(4_000), say("alice/yes"), hung_up()];
    let (record, _) = world.call_vouched_for(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
    record
}

#[tokio::test]
async fn and_the_step_is_taken_back_by_command() {
    let world = World::with_fresh_digits(&[FRESH], asking).await;
    follow(&world);
    let before = state(&world).await;
    let record = pays(&world).await;
    let after = state(&world).await;
    assert!(stepped(&record), "\n{}", story(&record));
    assert!(after.current.sealed != before.current.sealed && after.current.created_at > before.current.created_at);
    assert_eq!(after.enrolled.sealed, before.current.sealed, "the enrolled one is kept");
    let drift = record.events.iter().find_map(|e| e.figures.get("template_drift_cosine")?.as_f64()).unwrap();
    assert!((f64::from(world.config.refresh.drift_min_cosine)..1.0).contains(&drift), "a small step: {drift}");
    world.command(&["enrol", "revert"]);
    let reverted = state(&world).await;
    assert_eq!(reverted.current.sealed, before.current.sealed);
    assert_eq!(reverted.consent_at, None, "and it stays there until the customer agrees anew");
}

/// Nothing of the template changes in this call.
async fn stays(world: &World, call: impl AsyncFnOnce(&World) -> CallRecord) -> CallRecord {
    let before = state(world).await;
    let record = call(world).await;
    let after = state(world).await;
    assert!(!stepped(&record), "\n{}", story(&record));
    assert_eq!((after.current.sealed, after.current.created_at), (before.current.sealed, before.current.created_at));
    record
}

#[tokio::test]
async fn not_without_consent() {
    let world = World::with_fresh_digits(&[FRESH], asking).await;
    stays(&world, pays).await;
}

#[tokio::test]
async fn not_after_a_call_without_fresh_digits() {
    let world = World::with_alice(|config| config.refresh.interval_h = 0).await;
    world.enrol_alice().await;
    follow(&world);
    stays(&world, async |world| {
        let steps = [hear(4_000), say("alice/card"), hear(4_000), say("alice/yes"), hung_up()];
        let (record, _) = world.call_vouched_for(ALICE, steps).await;
        assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
        record
    })
    .await;
}

#[tokio::test]
async fn not_on_the_day_of_the_enrolment() {
    let world = World::with_fresh_digits(&[FRESH], |config| config.decision.challenge_from_minor = 1).await;
    follow(&world);
    let record = stays(&world, pays).await;
    assert!(record.events.iter().any(|e| e.what.contains("TooSoon")), "\n{}", story(&record));
}
