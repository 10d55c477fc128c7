//! Alice's own voice, and a number that is almost hers: one digit off, two swapped, one missing, one more, valid and not.

use voicepay::dialogue::CallVerdict;

use crate::support::{ALICE, World, hear, hung_up, say, story};

async fn never_pays(recording: &str) {
    let world = World::with_alice_enrolled().await;
    let name = format!("alice/{recording}");
    // Says "yes" too, should anybody ask: it must not come to that.
    let steps = [hear(4_000), say(&name), hear(1_500), say(&name), hear(1_500), say(&name), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!(world.charges(), 0, "\n{}", story(&record));
    assert!(matches!(record.verdict, CallVerdict::Refused | CallVerdict::Abandoned), "{:?}\n{}", record.verdict, story(&record));
    let read_back = record.events.iter().any(|e| e.what.contains("I will charge"));
    assert!(!read_back, "a near miss was taken for the card\n{}", story(&record));
    assert!(record.number_compared, "the voice was hers, so the number was looked at\n{}", story(&record));
}

#[tokio::test]
async fn one_digit_off() {
    never_pays("card_one_digit_off").await;
}

#[tokio::test]
async fn two_digits_off_with_a_fitting_check_digit() {
    never_pays("card_two_digits_off_luhn").await;
}

#[tokio::test]
async fn two_neighbours_swapped() {
    never_pays("card_swapped").await;
}

#[tokio::test]
async fn two_digits_swapped_with_a_fitting_check_digit() {
    never_pays("card_swapped_luhn").await;
}

#[tokio::test]
async fn one_digit_missing() {
    never_pays("card_one_missing").await;
}

#[tokio::test]
async fn one_digit_more() {
    never_pays("card_one_extra").await;
}

#[tokio::test]
async fn another_valid_number() {
    never_pays("card_other").await;
}
