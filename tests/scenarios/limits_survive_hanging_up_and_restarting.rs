//! Failed factors are counted across calls, hang-ups and restarts.

use voicepay::dialogue::CallVerdict;
use voicepay::phone::Action;

use crate::support::{ALICE, World, hear, hung_up, say, story};

#[tokio::test]
async fn five_failures_close_the_line_for_that_number() {
    let mut world = World::with_alice_enrolled().await;
    // Two wrong voices, then a hang-up before the third; twice, with a restart between.
    for _ in 0..2 {
        let voice = "mallory/card";
        let steps = [hear(4_000), say(voice), hear(1_500), say(voice), hear(1_500), Action::HangUp.into()];
        let (record, _) = world.call(ALICE, steps).await;
        assert_eq!(record.verdict, CallVerdict::Abandoned, "\n{}", story(&record));
        world = world.restarted().await;
    }
    // The fifth failure refuses at once, in the words of every refusal.
    let (record, _) = world.call(ALICE, [hear(4_000), say("mallory/card"), hung_up()]).await;
    assert_eq!(record.verdict, CallVerdict::Refused, "\n{}", story(&record));
    // Now even Alice herself is not asked under this number, which nobody vouches for.
    let (record, _) = world.call(ALICE, [hung_up()]).await;
    assert_eq!(record.verdict, CallVerdict::LockedOut, "\n{}", story(&record));
    assert_eq!(world.charges(), 0);
}

/// Whoever spoofs a number must not be able to lock its owner out: under her customer number she still pays.
#[tokio::test]
async fn but_the_customer_is_not_locked_out_by_calls_that_nobody_vouches_for() {
    let world = World::with_alice_enrolled().await;
    for _ in 0..2 {
        let voice = "mallory/card";
        let steps = [hear(4_000), say(voice), hear(1_500), say(voice), hear(1_500), say(voice), hung_up()];
        world.call(ALICE, steps).await;
    }
    let (record, _) = world.call(ALICE, [hung_up()]).await;
    assert_eq!(record.verdict, CallVerdict::LockedOut, "\n{}", story(&record));
    let keys = voicepay::phone::Step::keys(&format!("{}#", crate::support::CUSTOMER_NUMBER));
    let steps = [hear(2_000), keys, hear(4_000), say("alice/card"), hear(4_000), say("alice/yes"), hung_up()];
    let (record, _) = world.call("+15005550123", steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
}

/// Nor does a withheld or ever fresh number give endless tries at one customer.
#[tokio::test]
async fn and_strangers_to_the_customer_share_one_count() {
    let world = World::with_alice_enrolled().await;
    let key = || voicepay::phone::Step::keys(&format!("{}#", crate::support::CUSTOMER_NUMBER));
    let voice = "mallory/card";
    for (from, verdict) in
        [("", CallVerdict::Refused), ("+15005550101", CallVerdict::Refused), ("+15005550102", CallVerdict::LockedOut)]
    {
        let steps = [hear(2_000), key(), hear(4_000), say(voice), hear(1_500), say(voice), hear(1_500), say(voice), hung_up()];
        let (record, _) = world.call(from, steps).await;
        assert_eq!(record.verdict, verdict, "from `{from}`\n{}", story(&record));
    }
    // Alice's own telephone still pays.
    let (record, _) = world.call(ALICE, [hear(4_000), say("alice/card"), hear(4_000), say("alice/yes"), hung_up()]).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
}
