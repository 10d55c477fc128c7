//! What was heard once is known again: a recording of the customer's own call pays nothing, and the caller is not told why.

use voicepay::call::CallRecord;
use voicepay::dialogue::CallVerdict;
use voicepay::phone::Action;

use crate::support::{ALICE, World, hear, hung_up, replies, say, story};

fn told_as_reuse(record: &CallRecord) -> bool {
    record.events.iter().any(|e| e.what.contains("heard before"))
}

#[tokio::test]
async fn not_even_if_the_first_call_came_to_nothing() {
    let world = World::with_alice_enrolled().await;
    let (record, _) = world.call(ALICE, [hear(4_000), say("alice/card"), hear(4_000), Action::HangUp.into()]).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Abandoned, 0), "\n{}", story(&record));
    assert!(!told_as_reuse(&record), "\n{}", story(&record));
    let steps = [hear(4_000), say("alice/card"), hear(1_500), say("alice/card"), hear(1_500), say("alice/card"), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Refused, 0), "\n{}", story(&record));
    assert!(told_as_reuse(&record) && !record.number_compared, "\n{}", story(&record));
    let said = replies(&record).into_iter().map(|(what, _)| what).collect::<Vec<_>>().join(" ");
    assert!(!said.to_lowercase().contains("record"), "the caller is not told why: {said}");
    let kept = world.office.store.fingerprint_count(&world.customer).await.unwrap();
    assert_eq!(kept, 4, "refused utterances are kept too");
}

#[tokio::test]
async fn a_yes_from_an_earlier_call_is_no_yes() {
    let world = World::with_alice_enrolled().await;
    let (record, _) = world.call(ALICE, [hear(4_000), say("alice/card"), hear(4_000), say("alice/yes_please"), hung_up()]).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
    world.request(4_250).await;
    let yes = || say("alice/yes_please");
    let steps =
        [hear(4_000), say("alice/card_long_pauses"), hear(4_000), yes(), hear(1_000), yes(), hear(1_000), yes(), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!(world.charges(), 1, "\n{}", story(&record));
    assert_ne!(record.verdict, CallVerdict::Paid);
}
