//! Identity first: who is nobody's customer, or has nothing that may be charged, is told so and nothing is captured.

use voicepay::dialogue::CallVerdict;
use voicepay::phone::Step;
use voicepay::store::CardStatus;

use crate::support::{ALICE, CUSTOMER_NUMBER, World, hear, hung_up, said, say, story};

fn asked_for_a_card(record: &voicepay::call::CallRecord) -> bool {
    said(record).iter().any(|s| s.contains("card number"))
}

#[tokio::test]
async fn from_an_unknown_or_a_withheld_number() {
    for from in ["+15005550199", ""] {
        let world = World::with_alice_enrolled().await;
        let wrong = || Step::keys("99999999#");
        let (record, _) = world.call(from, [hear(2_000), wrong(), hear(1_000), wrong(), hear(1_000), wrong(), hung_up()]).await;
        assert_eq!(record.verdict, CallVerdict::UnknownCaller, "\n{}", story(&record));
        assert!(!asked_for_a_card(&record), "\n{}", story(&record));
        assert_eq!(world.charges(), 0);
    }
}

#[tokio::test]
async fn but_a_customer_number_on_the_keypad_leads_on() {
    let world = World::with_alice_enrolled().await;
    let keys = Step::keys(&format!("{CUSTOMER_NUMBER}#"));
    let steps = [hear(2_000), keys, hear(4_000), say("alice/card"), hear(4_000), say("alice/yes"), hung_up()];
    let (record, _) = world.call("", steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
}

#[tokio::test]
async fn with_a_blocked_card() {
    let world = World::with_alice_enrolled().await;
    world.set_card(CardStatus::Blocked).await;
    let (record, _) = world.call(ALICE, [hung_up()]).await;
    assert_eq!(record.verdict, CallVerdict::NoCard, "\n{}", story(&record));
    assert!(!asked_for_a_card(&record), "\n{}", story(&record));
}

#[tokio::test]
async fn without_an_enrolled_voice() {
    let world = World::with_alice(|_| ()).await;
    let (record, _) = world.call(ALICE, [hung_up()]).await;
    assert_eq!(record.verdict, CallVerdict::NotEnrolled, "\n{}", story(&record));
    assert!(!asked_for_a_card(&record), "\n{}", story(&record));
}
