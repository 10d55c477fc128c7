//! Rules ask for more than voice, number and yes: a code that was sent, somebody else's agreement; or they deny. A mandate asks for less to be
//! said, and for a code each time (systems 2, 6 and 8).

use std::collections::BTreeMap;
use std::sync::Arc;

use voicepay::call::CallRecord;
use voicepay::config::Config;
use voicepay::dialogue::CallVerdict;
use voicepay::payment::{Approval, Mandate, OneTimeCode};
use voicepay::phone::{Action, DigitVoice, Step};
use voicepay::store::papers;

use crate::support::{ALICE, World, fixtures, hear, hung_up, repeat, said, say, story};

const CODE: &str = "402917";
const OTHER: &str = "719204";
/// Ten digits for who pays by mandate.
const ANY: &str = "3947160852";

/// What leaves no hole, whatever a test adds for the telephone.
const BASE: &str = r#"
version = "test"
[tiers]
USD = { small = "20.00", normal = "500.00" }
EUR = { small = "20.00", normal = "500.00" }
GBP = { small = "20.00", normal = "400.00" }
JPY = { small = "3000", normal = "75000" }
[[rule]]
name = "large"
when = { tier = ["large"] }
ask = ["fresh_digits", "code"]
"#;

fn rules(then: &str) -> String {
    format!("{BASE}[[rule]]\nname = \"test\"\nwhen = {{ channel = [\"telephone\"] }}\n{then}\n")
}

fn usual(_: &mut Config) {}

async fn asking_for_a_code(codes: &[&str]) -> World {
    World::with_rules(&rules("ask = [\"code\"]"), &[], codes, usual).await
}

/// Says these digits in a persona's voice.
fn digits(persona: &str, text: &str) -> Step {
    let voice = DigitVoice::load(&fixtures().join(persona)).unwrap();
    let digits: Vec<u8> = text.bytes().map(|b| b - b'0').collect();
    Step::say("a code", Arc::new(voice.say(&digits)))
}

/// The card, then this for the code, then yes.
fn with_code(code: Step) -> [Step; 7] {
    [hear(4_000), say("alice/card"), hear(4_000), code, hear(4_000), say("alice/yes"), hung_up()]
}

/// The verdict, whether it was charged, and that the code is nowhere.
fn came_to(world: &World, record: &CallRecord, verdict: CallVerdict, charges: usize) {
    assert_eq!((record.verdict, world.charges()), (verdict, charges), "\n{}", story(record));
    let told = serde_json::to_string(record).unwrap() + &format!("{record:?}");
    let raw: Vec<u8> = CODE.bytes().map(|b| b - b'0').collect();
    for canary in [CODE.as_bytes(), &raw] {
        assert!(!told.as_bytes().windows(canary.len()).any(|w| w == canary), "the code is in the record");
        assert!(!world.kept_bytes().windows(canary.len()).any(|w| w == canary), "the code is in the files");
    }
}

async fn live_codes(world: &World) -> Vec<OneTimeCode> {
    papers::of(&*world.office.store, &world.customer).await.unwrap()
}

#[tokio::test]
async fn a_code_may_be_keyed() {
    let world = asking_for_a_code(&[CODE]).await;
    let (record, _) = world.call(ALICE, with_code(Step::keys(CODE))).await;
    came_to(&world, &record, CallVerdict::Paid, 1);
    assert!(live_codes(&world).await.is_empty(), "it is used up");
}

#[tokio::test]
async fn or_said_in_the_payer_s_voice() {
    let world = asking_for_a_code(&[CODE]).await;
    let (record, _) = world.call(ALICE, with_code(digits("alice", CODE))).await;
    came_to(&world, &record, CallVerdict::Paid, 1);
}

#[tokio::test]
async fn but_not_in_another_voice() {
    let world = asking_for_a_code(&[CODE]).await;
    let steps = [hear(4_000), say("alice/card"), hear(4_000), digits("mallory", CODE), hear(3_000), Action::HangUp.into()];
    let (record, _) = world.call(ALICE, steps).await;
    came_to(&world, &record, CallVerdict::Abandoned, 0);
    assert!(!said(&record).iter().any(|s| s.contains("I will charge")), "\n{}", story(&record));
}

#[tokio::test]
async fn three_wrong_codes_refuse_and_each_is_counted_against_the_code() {
    let world = asking_for_a_code(&[CODE]).await;
    let wrong = || [Step::keys(OTHER), hear(3_000)];
    let mut steps = vec![hear(4_000), say("alice/card"), hear(4_000)];
    steps.extend((0..3).flat_map(|_| wrong()));
    steps.push(hung_up());
    let (record, _) = world.call(ALICE, steps).await;
    came_to(&world, &record, CallVerdict::Refused, 0);
    let codes = live_codes(&world).await;
    assert_eq!(codes.iter().map(|c| c.wrong_tries).collect::<Vec<_>>(), [3]);
}

#[tokio::test]
async fn an_older_code_is_worth_nothing_once_another_was_asked_for() {
    let world = asking_for_a_code(&[OTHER, CODE]).await;
    let steps = [
        hear(4_000),
        say("alice/card"),
        hear(4_000),
        Step::keys("#"),
        hear(3_000),
        Step::keys(OTHER),
        hear(3_000),
        Step::keys(CODE),
        hear(4_000),
        say("alice/yes"),
        hung_up(),
    ];
    let (record, _) = world.call(ALICE, steps).await;
    came_to(&world, &record, CallVerdict::Paid, 1);
    assert_eq!(said(&record).iter().filter(|s| s.contains("could not confirm")).count(), 1, "\n{}", story(&record));
}

#[tokio::test]
async fn what_rules_deny_is_refused_before_a_card_is_asked_for() {
    let world = World::with_rules(&rules("deny = true"), &[], &[], usual).await;
    let (record, _) = world.call(ALICE, [hung_up()]).await;
    came_to(&world, &record, CallVerdict::Refused, 0);
    assert!(!said(&record).iter().any(|s| s.contains("card number")), "\n{}", story(&record));
}

#[tokio::test]
async fn a_payment_that_a_supervisor_has_to_agree_to_waits_and_says_so() {
    let world = World::with_rules(&rules("ask = [\"supervisor\"]"), &[], &[], usual).await;
    let (sue, _) = world.neighbour("Sue Example", "+447700900789", "10042002").await;
    world.agreements().add_supervision(&world.customer, &sue, BTreeMap::new(), "test").await.unwrap();
    let steps = [hear(4_000), say("alice/card"), hear(4_000), say("alice/yes"), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    came_to(&world, &record, CallVerdict::Waiting, 0);
    assert!(said(&record).iter().any(|s| s.contains("Somebody else has to agree to this payment")), "\n{}", story(&record));
    let open: Vec<Approval> = papers::of(&*world.office.store, &world.customer).await.unwrap();
    assert!(open.iter().any(|a| a.payer.is_some()), "her part is kept");
}

#[tokio::test]
async fn who_has_to_have_a_supervisor_and_has_none_pays_nothing_by_phone() {
    let nobody = "[[rule]]\nname = \"nobody\"\nwhen = { channel = [\"telephone\"], supervised = false }\ndeny = true\n";
    let world = World::with_rules(&format!("{BASE}{nobody}"), &[], &[], usual).await;
    let (record, _) = world.call(ALICE, [hung_up()]).await;
    came_to(&world, &record, CallVerdict::Refused, 0);
}

/// Alice pays for the first time, and agrees to a mandate.
async fn with_a_mandate(codes: &[&str]) -> World {
    let adjust = |config: &mut Config| {
        config.dialogue.offer_mandates = true;
        // She has one recording of each thing to say, and says it in two calls. What recordings that are played back come to is tested elsewhere.
        config.reuse.keep_limit_utterances = 0;
    };
    let world = World::with_rules(BASE, &[ANY], codes, adjust).await;
    let steps = [
        hear(4_000),
        say("alice/card"),
        hear(4_000),
        say("alice/yes"),
        hear(8_000), // what was paid, and the offer
        say("alice/yes"),
        hung_up(),
    ];
    let (record, _) = world.call(ALICE, steps).await;
    came_to(&world, &record, CallVerdict::Paid, 1);
    let held: Vec<Mandate> = papers::of(&*world.office.store, &world.customer).await.unwrap();
    let held: Vec<_> = held.iter().map(|m| (&m.card, m.cap.minor.get())).collect();
    assert_eq!(held, [(&world.card, 1_999)], "\n{}", story(&record));
    world
}

/// Fresh digits, the code, yes.
fn by_mandate(persona: &str) -> [Step; 7] {
    [hear(8_000), repeat(persona), hear(4_000), Step::keys(CODE), hear(4_000), say("alice/yes"), hung_up()]
}

#[tokio::test]
async fn by_mandate_a_later_payment_names_no_card_number() {
    let world = with_a_mandate(&[CODE]).await;
    world.request(1_500).await;
    let (record, _) = world.call(ALICE, by_mandate("alice")).await;
    came_to(&world, &record, CallVerdict::Paid, 2);
    assert!(!record.number_compared && !said(&record).iter().any(|s| s.contains("card number")), "\n{}", story(&record));
}

#[tokio::test]
async fn more_than_its_cap_goes_the_whole_way() {
    let world = with_a_mandate(&[CODE]).await;
    world.request(2_000).await;
    let steps = [hear(4_000), say("alice/card"), hear(4_000), say("alice/yes"), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    came_to(&world, &record, CallVerdict::Paid, 2);
    assert!(record.number_compared);
}

#[tokio::test]
async fn and_not_in_another_voice() {
    let world = with_a_mandate(&[CODE]).await;
    world.request(1_500).await;
    let steps = [hear(8_000), repeat("mallory"), hear(2_000), Action::HangUp.into()];
    let (record, _) = world.call(ALICE, steps).await;
    came_to(&world, &record, CallVerdict::Abandoned, 1);
    assert!(said(&record).iter().any(|s| s.contains("card number")), "she is asked for everything\n{}", story(&record));
}
