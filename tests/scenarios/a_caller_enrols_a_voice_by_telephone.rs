//! Enrolment: the code that was sent out of band, a spoken yes, three strings of digits, one voice.

use voicepay::dialogue::CallVerdict;
use voicepay::phone::Step;

use crate::support::{ALICE, CODE, World, hear, hear_out, hung_up, say, story};

fn enrolling(code: &str, voices: [&str; 3]) -> Vec<Step> {
    let mut steps = vec![hear(3_000), Step::keys(&format!("{code}#")), hear_out(8_000), say("alice/yes_please")];
    for (round, voice) in voices.iter().enumerate() {
        steps.extend([hear(2_500), say(&format!("{voice}/enrol_{}", round + 1))]);
    }
    steps.push(hung_up());
    steps
}

#[tokio::test]
async fn and_pays_with_it_in_the_next_call() {
    let world = World::with_alice(|_| ()).await;
    world.invite_alice().await;
    let (record, _) = world.call(ALICE, enrolling(CODE, ["alice"; 3])).await;
    assert_eq!(record.verdict, CallVerdict::Enrolled, "\n{}", story(&record));
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
    let mut steps = enrolling(CODE, ["alice", "mallory", "mallory"]);
    steps.insert(steps.len() - 1, hear(1_500));
    steps.insert(steps.len() - 1, say("mallory/enrol_2"));
    let (record, _) = world.call(ALICE, steps).await;
    assert_ne!(record.verdict, CallVerdict::Enrolled, "\n{}", story(&record));
    assert!(world.office.store.template(&world.customer).await.unwrap().is_none());
}
