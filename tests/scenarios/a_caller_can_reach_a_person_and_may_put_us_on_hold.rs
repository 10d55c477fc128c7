//! `0` leads to the person that the configuration names; a call that is put on hold goes on where it was.

use std::time::Duration;

use voicepay::dialogue::CallVerdict;
use voicepay::phone::{Action, Step};

use crate::support::{ALICE, World, hear, hung_up, said, say, story};

/// The line in process transfers nobody, as many telephone systems: the person is called and the two are joined.
#[tokio::test]
async fn zero_connects_the_caller_to_the_person_who_is_configured() {
    let world = World::with_alice(|config| config.dialogue.person = "sip:desk@192.0.2.1".to_owned()).await;
    world.enrol_alice().await;
    // The person hears Alice say a number, answers, and hangs up.
    world.with_person([hear(2_000), say("mallory/yes"), Action::Wait(Duration::from_secs(3)).into(), Action::HangUp.into()]);
    let talk = [hear(4_000), Step::keys("0"), hear(2_000), say("alice/card"), hear(200), hung_up()];
    let (record, report) = world.call(ALICE, talk).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Person, 0), "\n{}", story(&record));
    assert!(report.completed(), "the caller heard the person: {report:?}\n{}", story(&record));
    assert!(record.events.iter().any(|e| e.what.contains("Second hung up first")), "\n{}", story(&record));
}

#[tokio::test]
async fn a_person_who_cannot_be_called_is_told_of() {
    let world = World::with_alice(|config| config.dialogue.person = "sip:desk@192.0.2.1".to_owned()).await;
    world.enrol_alice().await;
    let (record, _) = world.call(ALICE, [hear(4_000), Step::keys("0"), hung_up()]).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Person, 0), "\n{}", story(&record));
    assert!(said(&record).iter().any(|s| s.contains("nobody can take your call")), "\n{}", story(&record));
}

/// A minute on hold while the number is asked for: six seconds of silence would be asked again, three times would end the call.
#[tokio::test]
async fn a_call_on_hold_waits_and_pays_afterwards() {
    let world = World::with_alice_enrolled().await;
    let hold = Step::from(Action::Hold(Duration::from_secs(60))).within(Duration::from_secs(90));
    let steps = [hear(4_000), hold, say("alice/card"), hear(4_000), say("alice/yes"), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
    let asked = said(&record).into_iter().filter(|s| s.contains("card number")).count();
    assert_eq!(asked, 1, "nobody was late\n{}", story(&record));
}
