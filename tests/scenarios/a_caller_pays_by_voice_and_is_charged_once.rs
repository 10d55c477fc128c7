//! The main path: voice, number, yes, one charge, receipt; on lines of several rates and qualities.

use std::time::Duration;

use voicepay::decision::replay::Outcome;
use voicepay::dialogue::CallVerdict;
use voicepay::media::frame::SampleRate;
use voicepay::media::in_process::LineOptions;
use voicepay::phone::{Action, Step};

use crate::support::{ALICE, World, card_numbers, hear, hung_up, recording, said, say, story};

fn paying() -> [Step; 5] {
    [hear(4_000), say("alice/card"), hear(4_000), say("alice/yes"), hung_up()]
}

async fn pays_over(rate: SampleRate, line: LineOptions) {
    let world = World::with_alice_enrolled().await;
    let (record, report) = world.call_over(ALICE, rate, line, paying()).await;
    assert_eq!(record.verdict, CallVerdict::Paid, "\n{}", story(&record));
    assert!(report.completed(), "{:?}\n{}", report.failure, story(&record));
    assert_eq!(world.charges(), 1);
    let payments = world.payments().await;
    let receipt = payments[0].receipt.as_ref().unwrap();
    assert_eq!((payments.len(), receipt.amount.to_string(), receipt.last4.as_str()), (1, "19.99 USD".to_owned(), "2749"));
    let kept = record.evidence.last().unwrap();
    assert!(matches!(kept.outcome, Outcome::Accepted(_)) && kept.number.is_some(), "{kept:?}");
    assert!(receipt.evidence.voice_llr.unwrap() >= receipt.evidence.voice_accept_llr.unwrap());
    voicepay::ledger::verify(&world.office.store.transfers().await.unwrap()).unwrap();
    // The models worked while she paused: the verdict had not to wait for them, and the turn not for the long pause.
    let figure = |key: &str| record.events.iter().find_map(|e| e.figures.get(key).cloned());
    assert_eq!((figure("heard_ahead"), figure("embedded_ahead")), (Some(true.into()), Some(true.into())), "\n{}", story(&record));
    assert!(figure("end_point_delay_ms").unwrap().as_u64().unwrap() < 1_000, "\n{}", story(&record));
    let said = said(&record).join("\n");
    for part in ["City Water", "ending", &receipt.reference[..1]] {
        assert!(said.contains(part), "`{part}` in:\n{said}");
    }
}

#[tokio::test]
async fn on_a_telephone_line() {
    pays_over(SampleRate::HZ_8000, LineOptions::default()).await;
}

/// The same interface at a browser's rate: nothing beyond media knows 8 kHz.
#[tokio::test]
async fn on_a_48_khz_line() {
    pays_over(SampleRate::HZ_48000, LineOptions::default()).await;
}

#[tokio::test]
async fn on_a_line_that_loses_frames() {
    pays_over(SampleRate::HZ_8000, LineOptions { loss: 0.02, seed: 11 }).await;
}

#[tokio::test]
async fn with_long_pauses_between_the_groups() {
    let world = World::with_alice_enrolled().await;
    let steps = [hear(4_000), say("alice/card_long_pauses"), hear(4_000), say("alice/yes"), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
}

/// A caller who knows the way does not wait for the end of the question.
#[tokio::test]
async fn with_a_caller_who_talks_over_the_question() {
    let world = World::with_alice_enrolled().await;
    let over = Step::from(Action::Say {
        audio: recording("alice/card"),
        label: "alice/card".into(),
        barge_in: Some(Duration::from_millis(200)),
    });
    // Greeting and request are heard out; then there is a short silence, and the question begins.
    let steps = [hear(9_000), over, hear(4_000), say("alice/yes"), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
}

#[tokio::test]
async fn and_the_card_number_is_in_no_row_record_or_journal() {
    let world = World::with_alice_enrolled().await;
    let (record, _) = world.call(ALICE, paying()).await;
    assert_eq!(record.verdict, CallVerdict::Paid, "\n{}", story(&record));
    let pan = card_numbers().0.ascii().to_string();
    let kept = world.kept_bytes();
    let told = serde_json::to_string(&record).unwrap() + &format!("{record:?}");
    let raw: Vec<u8> = pan.bytes().map(|b| b - b'0').collect();
    let grouped = pan.as_bytes().chunks(4).map(|g| std::str::from_utf8(g).unwrap()).collect::<Vec<_>>().join(" ");
    for canary in [pan.as_bytes(), grouped.as_bytes(), &pan.as_bytes()[..12], &raw] {
        assert!(!kept.windows(canary.len()).any(|w| w == canary), "a card number lies in the data directory");
        assert!(!told.as_bytes().windows(canary.len()).any(|w| w == canary), "a card number is in the call's record");
    }
    // The search itself works: what may be there is found.
    assert!(kept.windows(4).any(|w| w == b"2749"));
}
