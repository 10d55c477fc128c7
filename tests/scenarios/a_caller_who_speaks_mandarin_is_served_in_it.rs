//! A customer whose language is Mandarin hears Mandarin. Her number is read badly where it is read at all (Whisper base reads few
//! Mandarin numbers), so that she keys it; her voice needs no language. What is not understood charges nothing.

use voicepay::call::CallRecord;
use voicepay::config::Config;
use voicepay::dialogue::CallVerdict;
use voicepay::phone::{Action, Step};

use crate::support::{ALICE, World, card_numbers, hear, hung_up, said, say, story};

/// Every sentence but the greeting, which comes before anybody knows who calls, is Mandarin.
fn heard_mandarin(record: &CallRecord) {
    let said = said(record);
    let han = |text: &str| text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
    assert!(said.len() > 3 && said.iter().skip(1).all(|s| han(s)), "\n{}", story(record));
}

/// Keys the number and counts aloud.
fn keying(number: &str) -> Vec<Step> {
    vec![Step::keys(number), hear(1_500), say("mei/counting")]
}

#[tokio::test]
async fn and_pays_with_a_keyed_number_and_her_voice() {
    let world = World::with_mei_enrolled(|_| ()).await;
    let (card, _) = card_numbers();
    let steps = [hear(4_000)].into_iter().chain(keying(&card.ascii())).chain([hear(4_000), say("mei/yes"), hung_up()]);
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
    heard_mandarin(&record);
}

/// Says her number: her voice is accepted, the number is not, and she is asked again in her language.
async fn says_it_in_vain(adjust: impl FnOnce(&mut Config)) {
    let world = World::with_mei_enrolled(adjust).await;
    let (record, _) = world.call(ALICE, [hear(4_000), say("mei/card"), hear(2_500), Action::HangUp.into()]).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Abandoned, 0), "\n{}", story(&record));
    assert!(record.number_compared, "\n{}", story(&record));
    assert_eq!(said(&record).iter().filter(|s| s.contains("卡号")).count(), 2, "\n{}", story(&record));
    heard_mandarin(&record);
}

#[tokio::test]
async fn and_pays_nothing_by_a_number_that_is_not_understood() {
    says_it_in_vain(|_| ()).await;
}

/// Whisper base does read Mandarin digits, but hardly those of a formant synthesiser on a telephone, and no other Mandarin voice is at hand.
#[tokio::test]
async fn nor_by_one_that_whisper_base_reads_badly() {
    says_it_in_vain(|config| config.speech.mandarin = true).await;
}

#[tokio::test]
async fn and_pays_nothing_with_another_number() {
    let world = World::with_mei_enrolled(|_| ()).await;
    let (_, other) = card_numbers();
    let steps = [hear(4_000)].into_iter().chain(keying(&other.ascii())).chain([hear(1_500), Action::HangUp.into()]);
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Abandoned, 0), "\n{}", story(&record));
    assert!(record.number_compared && said(&record).iter().any(|s| s.contains("无法确认")), "\n{}", story(&record));
    heard_mandarin(&record);
}
