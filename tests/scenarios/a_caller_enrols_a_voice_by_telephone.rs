//! Enrolment: the code that was sent out of band, a spoken yes, three strings of digits drawn for it and said after the service, one voice.

use voicepay::clock::{Entropy, SeededEntropy};
use voicepay::dialogue::CallVerdict;
use voicepay::phone::{DigitVoice, Step};
use voicepay::speech::Utterance;
use voicepay::store::consents::{GivenHow, Purpose};
use voicepay::voiceprint::fingerprint::{FingerprintKey, Fingerprinter, Probe};

use crate::support::{ALICE, CODE, World, fixtures, hear, hear_out, hung_up, repeat, repeat_while_asked, said, say, story};

fn enrolling(code: &str, voices: [&str; 3]) -> Vec<Step> {
    let mut steps = vec![hear(3_000), Step::keys(&format!("{code}#")), hear_out(8_000), say("alice/yes_please")];
    for voice in voices {
        steps.extend([hear(2_500), repeat(voice)]);
    }
    // Where one was not taken, others are asked for.
    steps.extend([hear(2_500), repeat_while_asked(voices[2]), hung_up()]);
    steps
}

#[tokio::test]
async fn and_pays_with_it_in_the_next_call() {
    let world = World::with_alice(|_| ()).await;
    world.invite_alice().await;
    let (record, _) = world.call(ALICE, enrolling(CODE, ["alice"; 3])).await;
    assert_eq!(record.verdict, CallVerdict::Enrolled, "\n{}", story(&record));
    let consents = world.office.store.consents_of(&world.customer).await.unwrap();
    let [consent] = &consents[..] else { panic!("{consents:?}") };
    let given = (consent.purpose, consent.how, consent.call.as_ref(), consent.withdrawn.as_ref());
    assert_eq!(given, (Purpose::Voiceprint, GivenHow::Call, Some(&record.call), None));
    assert!(consent.invite.is_some() && consent.language == "en" && !consent.text_version.is_empty(), "{consent:?}");
    let (record, _) = world.call(ALICE, [hear(4_000), say("alice/card"), hear(4_000), say("alice/yes"), hung_up()]).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
}

#[tokio::test]
async fn not_with_a_wrong_code() {
    let world = World::with_alice(|_| ()).await;
    world.invite_alice().await;
    let wrong = || Step::keys("11111111#");
    let (record, _) = world.call(ALICE, [hear(3_000), wrong(), hear(1_000), wrong(), hear(1_000), wrong(), hung_up()]).await;
    assert_eq!(record.verdict, CallVerdict::EnrolFailed, "\n{}", story(&record));
    assert!(world.office.store.template(&world.customer).await.unwrap().is_none());
}

#[tokio::test]
async fn not_when_a_second_voice_speaks() {
    let world = World::with_alice(|_| ()).await;
    world.invite_alice().await;
    // Twice the first: where her digits are not understood once, there is still her voice to differ from.
    let steps = enrolling(CODE, ["alice", "alice", "mallory"]);
    let (record, _) = world.call(ALICE, steps).await;
    assert_ne!(record.verdict, CallVerdict::Enrolled, "\n{}", story(&record));
    assert!(world.office.store.template(&world.customer).await.unwrap().is_none());
}

/// The caller of these tests joins recordings of single digits. Were that the same audio to the service, it would refuse her; now and then
/// it is, and she is asked for other digits.
#[test]
fn and_does_not_sound_like_a_recording_of_herself() {
    let voice = DigitVoice::load(&fixtures().join("alice")).unwrap();
    let entropy: &dyn Entropy = &SeededEntropy::new(7);
    let (maker, key) = (Fingerprinter::new(), FingerprintKey::new(&[7; 16]));
    let mut earlier: Vec<Probe> = Vec::new();
    let (mut strongest, mut flagged) = (0.0_f32, 0);
    for n in 0..40 {
        let digits: Vec<u8> = (0..if n % 2 == 0 { 10 } else { 8 }).map(|_| u8::try_from(entropy.below(10)).unwrap()).collect();
        let said = voice.say(&digits);
        let probe = Probe::new(&maker, &Utterance::from_recording(&said.samples, said.rate).samples_16k, &key);
        for other in &earlier {
            let strength = probe.likeness(other.fingerprint()).map_or(0.0, |l| l.strength);
            strongest = strongest.max(strength);
            flagged += u32::from(strength >= 1.0);
        }
        earlier.push(probe);
    }
    assert!(flagged <= 8, "{flagged} of 780 pairs; the strongest is {strongest}");
}

/// A recording from before says other digits than those that were drawn.
#[tokio::test]
async fn not_with_other_digits_than_were_asked_for() {
    let world = World::with_alice(|_| ()).await;
    world.invite_alice().await;
    let mut steps = vec![hear(3_000), Step::keys(&format!("{CODE}#")), hear_out(8_000), say("alice/yes_please")];
    for round in 1..=3 {
        steps.extend([hear(2_500), say(&format!("alice/enrol_{round}"))]);
    }
    steps.push(hung_up());
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!(record.verdict, CallVerdict::EnrolFailed, "\n{}", story(&record));
    assert!(world.office.store.template(&world.customer).await.unwrap().is_none());
    assert!(said(&record).iter().any(|s| s.contains("did not quite catch") || s.contains("catch")), "\n{}", story(&record));
}
