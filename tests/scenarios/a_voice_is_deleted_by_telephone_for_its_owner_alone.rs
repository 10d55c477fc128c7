//! Nine during the greeting: whoever says fresh digits in the enrolled voice, and yes, has it deleted; nobody else, and nothing is charged.

use voicepay::call::CallRecord;
use voicepay::dialogue::CallVerdict;
use voicepay::phone::{Action, Step};
use voicepay::store::consents::WithdrawnHow;

use crate::support::{ALICE, World, hear, hung_up, repeat, said, say, story};

/// Ten digits that no recording says in one: the caller hears which they are.
const ANY: &str = "3947160852";

async fn enrolled(world: &World) -> bool {
    world.office.store.template(&world.customer).await.unwrap().is_some()
}

async fn all_that_came_of_it_is_gone_and_the_audit_says_so(world: &World, record: &CallRecord) {
    let (store, customer) = (&world.office.store, &world.customer);
    assert_eq!(store.fingerprint_count(customer).await.unwrap(), 0);
    assert!(store.customer_key(customer).await.unwrap().is_none(), "nothing that was sealed for the voice opens any more");
    let consents = store.consents_of(customer).await.unwrap();
    let [consent] = &consents[..] else { panic!("{consents:?}") };
    let ended = consent.withdrawn.as_ref().unwrap();
    assert_eq!((ended.how, ended.call.as_ref()), (WithdrawnHow::Call, Some(&record.call)));
    let trail = store.audit_trail(50).await.unwrap();
    let row = trail.iter().find(|r| r.action == "voice.withdrawn").unwrap();
    assert_eq!((row.subject.as_str(), row.at), (customer.as_str(), ended.at));
    assert_eq!((&row.detail["erased"]["templates"], &row.detail["erased"]["keys"]), (&1.into(), &1.into()), "{}", row.detail);
}

#[tokio::test]
async fn by_its_owner_who_pays_by_phone_no_more() {
    let world = World::with_fresh_digits(&[ANY], |_| ()).await;
    let steps = [Step::keys("9"), hear(8_000), repeat("alice"), hear(3_000), say("alice/yes"), hung_up()];
    let (record, report) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Withdrawn, 0), "{:?}\n{}", report.failure, story(&record));
    assert!(!enrolled(&world).await && !record.number_compared);
    assert!(!said(&record).iter().any(|s| s.contains("asks you to pay")), "nothing of a payment is said\n{}", story(&record));
    all_that_came_of_it_is_gone_and_the_audit_says_so(&world, &record).await;
    let (record, _) = world.call(ALICE, [hung_up()]).await;
    assert_eq!(record.verdict, CallVerdict::NotEnrolled, "\n{}", story(&record));
}

#[tokio::test]
async fn not_by_another_voice_from_the_owner_s_number() {
    let world = World::with_fresh_digits(&[ANY], |_| ()).await;
    let steps = [Step::keys("9"), hear(8_000), repeat("mallory"), hear(1_500), Action::HangUp.into()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!(record.verdict, CallVerdict::Abandoned, "\n{}", story(&record));
    assert!(enrolled(&world).await && !said(&record).iter().any(|s| s.contains("Shall I delete")), "\n{}", story(&record));
}

#[tokio::test]
async fn not_after_a_no() {
    let world = World::with_fresh_digits(&[ANY], |_| ()).await;
    let steps = [Step::keys("9"), hear(8_000), repeat("alice"), hear(3_000), say("alice/no"), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!(record.verdict, CallVerdict::Cancelled, "\n{}", story(&record));
    assert!(enrolled(&world).await);
}
