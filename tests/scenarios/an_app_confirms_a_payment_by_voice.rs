//! An app's page confirms a payment over a browser's audio (system 10): the amount is spoken and shown, a yes and then fresh digits in the payer's
//! voice charge the card that the app has bound, once; anything else charges nothing, and the page is told what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use voicepay::agreement::{Agreed, Asking};
use voicepay::call::AppCall;
use voicepay::call::page::{PageEvent, PageState, Speaker};
use voicepay::clock::SystemEntropy;
use voicepay::config::Config;
use voicepay::dialogue::{Again, CallVerdict, Prompt, SpokenPayee};
use voicepay::ids::CallId;
use voicepay::language::Language;
use voicepay::money::{Currency, Money};
use voicepay::payment::policy::Channel;
use voicepay::payment::{AppResult, Approval, Capture, Condition, Evidence, How};
use voicepay::phone::{Action, DigitVoice, Step};
use voicepay::processor::{ChargeOrder, OrderGuards};
use voicepay::store::{CardStatus, papers};

use crate::support::app::Shown;
use crate::support::{ALICE, World, fixtures, hear, hung_up, repeat_while_asked, said, say, story};

/// Ten digits each, which tests make the service ask for.
const DIGITS: [&str; 3] = ["3947160852", "8150392746", "2693047185"];
const CODE: &str = "402917";

/// What leaves no hole, whatever a test adds.
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

fn usual(_: &mut Config) {}

async fn alice() -> World {
    World::with_fresh_digits(&DIGITS, usual).await
}

async fn with_rule(when: &str, then: &str, codes: &[&str]) -> World {
    let rules = format!("{BASE}[[rule]]\nname = \"test\"\nwhen = {{ {when} }}\n{then}\n");
    World::with_rules(&rules, &DIGITS, codes, usual).await
}

/// Says these digits in a persona's voice.
fn digits(persona: &str, text: &str) -> Step {
    let voice = DigitVoice::load(&fixtures().join(persona)).unwrap();
    let digits: Vec<u8> = text.bytes().map(|b| b - b'0').collect();
    Step::say("digits", Arc::new(voice.say(&digits)))
}

/// The question is heard and answered with yes.
fn agreeing() -> [Step; 2] {
    [hear(6_000), say("alice/yes")]
}

/// The question is answered with yes, and these are the digits.
fn saying(digits: Step) -> [Step; 5] {
    let [question, yes] = agreeing();
    [question, yes, hear(4_000), digits, hung_up()]
}

/// All of it, in her voice.
fn confirming() -> [Step; 5] {
    saying(digits("alice", DIGITS[0]))
}

/// This is the answer to the question, and nothing more is said.
fn answering(answer: Step) -> [Step; 3] {
    [hear(6_000), answer, hung_up()]
}

/// The same; whoever gives it leaves when it is not enough.
fn then_leaves(answer: Step) -> [Step; 4] {
    [hear(6_000), answer, hear(1_500), Action::HangUp.into()]
}

/// What it came to: the call's verdict, the page's result, and how often money was taken. The page's events are as they always are.
fn came_to(world: &World, shown: &Shown, verdict: CallVerdict, result: AppResult, charges: usize) {
    let Shown { record, events, .. } = shown;
    let story = story(record);
    assert_eq!((record.verdict, shown.result.result, world.charges()), (verdict, result, charges), "\n{story}\n{events:?}");
    assert!(matches!(events.first(), Some(PageEvent::State { state: PageState::Connecting })), "{events:?}");
    let [.., PageEvent::State { state: PageState::Over }, PageEvent::Result { text, .. }] = &events[..] else {
        panic!("over, then the result: {events:?}")
    };
    assert!(!text.is_empty() && *text == shown.result.text);
    assert_eq!(shown.result.reference.is_some(), result == AppResult::Paid);
    assert!(shown.captions(Speaker::Caller).iter().all(|words| *words == "…"), "{events:?}");
    assert!(record.app_session.is_some() && !record.number_compared, "\n{story}");
    // Nothing that was to be said is in what is kept.
    let told = serde_json::to_string(record).unwrap() + &format!("{record:?}");
    for canary in DIGITS.iter().chain(&[CODE]) {
        assert!(!told.contains(canary), "digits are in the record");
        assert!(!world.kept_bytes().windows(canary.len()).any(|w| w == canary.as_bytes()), "digits are in the files");
    }
    // Where nothing was said the same ones are asked for again.
    let mut asked = shown.digits();
    asked.dedup();
    assert!(DIGITS.concat().starts_with(&asked.concat().replace(' ', "")), "{asked:?}");
}

#[tokio::test]
async fn a_yes_and_fresh_digits_pay_once_and_the_page_sees_each_step() {
    let world = alice().await;
    let shown = world.page_calls(confirming()).await;
    came_to(&world, &shown, CallVerdict::Paid, AppResult::Paid, 1);
    let payments = world.payments().await;
    let receipt = payments[0].receipt.as_ref().unwrap();
    assert_eq!((receipt.amount.to_string(), receipt.last4.as_str()), ("19.99 USD".to_owned(), "2749"));
    assert_eq!((receipt.evidence.number_by.as_deref(), &receipt.evidence.mandate), (Some("app"), &None));
    assert!(receipt.evidence.voice_llr.unwrap() >= receipt.evidence.voice_accept_llr.unwrap());
    assert!(receipt.evidence.yes_continuity.is_some());
    assert_eq!(shown.result.reference.as_ref(), Some(&receipt.reference), "spelt as on the receipt");
    assert_eq!(shown.digits(), ["3 9 4 7 1 6 0 8 5 2"]);
    use PageState::{Connecting, Listening, Over, Prompting, Thinking};
    assert_eq!(
        shown.states(),
        [Connecting, Prompting, Listening, Thinking, Prompting, Listening, Thinking, Prompting, Over],
        "\n{}",
        story(&shown.record)
    );
    let captions = shown.captions(Speaker::Service);
    assert!(captions[0].contains("City Water") && captions[0].contains("nineteen dollars"), "{captions:?}");
    assert!(captions[0].contains("I will charge") && captions[1].ends_with("…"), "{captions:?}");
    assert_eq!(captions.len(), 3, "the question, the digits, what became of it: {captions:?}");
    assert_eq!(shown.captions(Speaker::Caller).len(), 2);
    assert!(!said(&shown.record).iter().any(|s| s.contains("card number") || s.contains("star")), "{captions:?}");
    // The first words begin at once.
    let first = shown.record.events.iter().find(|e| e.what.contains("City Water")).unwrap();
    assert!(first.at < Duration::from_millis(200), "{:?}", first.at);
    voicepay::ledger::verify(&world.office.store.transfers().await.unwrap()).unwrap();
}

#[tokio::test]
async fn an_impostor_is_refused_after_three_strings_and_it_counts_against_the_customer_the_app_vouches_for() {
    let world = alice().await;
    // With her own yes: nothing but the voice of the digits is in the way.
    let mut steps = agreeing().to_vec();
    steps.extend(DIGITS.iter().flat_map(|asked| [hear(4_000), digits("mallory", asked)]));
    let shown = world.page_calls(steps.into_iter().chain([hung_up()])).await;
    came_to(&world, &shown, CallVerdict::Refused, AppResult::Refused, 0);
    assert_eq!(shown.digits().len(), 3, "other digits each time");
    assert!(!shown.captions(Speaker::Service).iter().any(|s| s.contains("voice")));
    let since = voicepay::clock::Timestamp(0);
    let counts = world.office.store.failure_counts(Some(&world.customer), None, "", since).await.unwrap();
    assert_eq!(counts.customer_attested, 3);
    // Two more, and the line is closed, in an app as by telephone.
    let again = [hear(6_000), say("alice/yes_please"), hear(4_000), repeat_while_asked("mallory"), hung_up()];
    world.page_calls(again).await;
    let shown = world.page_calls([hung_up()]).await;
    came_to(&world, &shown, CallVerdict::LockedOut, AppResult::Refused, 0);
    assert!(shown.digits().is_empty());
}

#[tokio::test]
async fn other_digits_in_her_own_voice_do_not() {
    let world = alice().await;
    let leaves = [hear(4_000), digits("alice", DIGITS[1]), hear(4_000), Action::HangUp.into()];
    let shown = world.page_calls(agreeing().into_iter().chain(leaves)).await;
    came_to(&world, &shown, CallVerdict::Abandoned, AppResult::Cancelled, 0);
    assert!(shown.record.events.iter().any(|e| e.what.contains("a factor failed")), "\n{}", story(&shown.record));
}

#[tokio::test]
async fn a_no_charges_nothing() {
    let world = alice().await;
    let shown = world.page_calls(answering(say("alice/no"))).await;
    came_to(&world, &shown, CallVerdict::Cancelled, AppResult::Cancelled, 0);
    assert!(shown.digits().is_empty(), "no digits are asked for then");
}

#[tokio::test]
async fn not_yes_is_no_yes_and_neither_is_one_that_is_taken_back() {
    for answer in ["alice/not_yes", "alice/yes_no_wait"] {
        let world = alice().await;
        let shown = world.page_calls(answering(say(answer))).await;
        let cancelled = shown.record.verdict == CallVerdict::Cancelled;
        let (verdict, result) = match cancelled {
            true => (CallVerdict::Cancelled, AppResult::Cancelled),
            false => (CallVerdict::Abandoned, AppResult::Failed),
        };
        came_to(&world, &shown, verdict, result, 0);
        assert!(shown.digits().is_empty());
    }
}

#[tokio::test]
async fn silence_charges_nothing_before_the_yes_or_after_it() {
    let world = alice().await;
    let shown = world.page_calls([hung_up()]).await;
    came_to(&world, &shown, CallVerdict::Abandoned, AppResult::Failed, 0);
    assert_eq!(shown.captions(Speaker::Service).last(), Some(&shown.result.text.as_str()), "shown as it is spoken");
    let world = alice().await;
    let shown = world.page_calls(agreeing().into_iter().chain([hung_up()])).await;
    came_to(&world, &shown, CallVerdict::Abandoned, AppResult::Failed, 0);
    assert!(!shown.digits().is_empty(), "it was digits that nobody said");
}

#[tokio::test]
async fn a_bystander_s_yes_is_none() {
    // Where the voice of one word is told apart,
    let world = alice().await;
    let shown = world.page_calls(then_leaves(say("bob/yes"))).await;
    came_to(&world, &shown, CallVerdict::Abandoned, AppResult::Cancelled, 0);
    assert!(shown.record.events.iter().any(|e| e.what.contains("a factor failed")), "\n{}", story(&shown.record));
    // and where it is not, since one word is little to tell a voice by: the digits come after it.
    let careless = |config: &mut Config| config.voice.continuity_min_cosine = -1.0;
    for bystander in ["bob", "mallory"] {
        let world = World::with_fresh_digits(&DIGITS, careless).await;
        let yes = [hear(6_000), say(&format!("{bystander}/yes"))];
        let shown = world.page_calls(yes.clone().into_iter().chain([hung_up()])).await;
        came_to(&world, &shown, CallVerdict::Abandoned, AppResult::Failed, 0);
        assert!(!shown.digits().is_empty(), "\n{}", story(&shown.record));
        let world = World::with_fresh_digits(&DIGITS, careless).await;
        let both = yes.into_iter().chain([hear(4_000), digits("mallory", DIGITS[0]), hear(4_000), Action::HangUp.into()]);
        let shown = world.page_calls(both).await;
        came_to(&world, &shown, CallVerdict::Abandoned, AppResult::Cancelled, 0);
    }
}

#[tokio::test]
async fn what_the_service_said_itself_confirms_nothing_when_it_comes_back() {
    // All of it, from a loudspeaker near and far.
    for delay_ms in [60, 900, 5_000] {
        let world = alice().await;
        let shown = world.page_echoes(Duration::from_millis(delay_ms)).await;
        assert!(
            // Our "say no" may stop it: whoever says no, a no is heard.
            matches!(shown.record.verdict, CallVerdict::Abandoned | CallVerdict::Refused | CallVerdict::Cancelled),
            "{delay_ms}\n{}",
            story(&shown.record)
        );
        assert_eq!(world.charges(), 0, "{delay_ms}");
        let told = shown.result.result;
        assert!(matches!(told, AppResult::Failed | AppResult::Refused | AppResult::Cancelled), "{delay_ms}: {told:?}");
    }
    // And as one answer: neither question is a yes.
    let payee = |world: &World| SpokenPayee { id: world.payee.clone(), name: "City Water".into() };
    let world = alice().await;
    let amount = Money::new(1_999, Currency::Usd).unwrap();
    for question in [
        Prompt::ReadBack { amount, payee: payee(&world), last4: [2, 7, 4, 9], others: false },
        Prompt::AskYes { attempt: 2, why: Again::Silence },
    ] {
        let world = alice().await;
        let shown = world.page_calls(then_leaves(Step::say("an echo", world.spoken(&question)))).await;
        assert_eq!(world.charges(), 0, "\n{}", story(&shown.record));
        assert_ne!(shown.result.result, AppResult::Paid);
    }
}

#[tokio::test]
async fn what_was_recorded_of_an_earlier_payment_pays_nothing() {
    let world = alice().await;
    let shown = world.page_calls(confirming()).await;
    came_to(&world, &shown, CallVerdict::Paid, AppResult::Paid, 1);
    // Neither the yes
    world.request(1_999).await;
    let shown = world.page_calls(then_leaves(say("alice/yes"))).await;
    nothing_more(&world, &shown);
    assert!(shown.digits().is_empty(), "\n{}", story(&shown.record));
    // nor, after another one, the digits.
    let steps =
        [hear(6_000), say("alice/yes_please"), hear(4_000), digits("alice", DIGITS[0]), hear(4_000), Action::HangUp.into()];
    let shown = world.page_calls(steps).await;
    nothing_more(&world, &shown);
    assert!(!shown.digits().is_empty(), "\n{}", story(&shown.record));
}

fn nothing_more(world: &World, shown: &Shown) {
    assert_eq!((shown.record.verdict, world.charges()), (CallVerdict::Abandoned, 1), "\n{}", story(&shown.record));
    assert!(story(&shown.record).contains("heard before"), "\n{}", story(&shown.record));
}

#[tokio::test]
async fn a_method_that_can_no_longer_be_used_is_said_before_anything_is_listened_to() {
    let world = alice().await;
    world.set_card(CardStatus::Blocked).await;
    let shown = world.page_calls([hung_up()]).await;
    came_to(&world, &shown, CallVerdict::NoCard, AppResult::Failed, 0);
    assert!(!shown.states().contains(&PageState::Listening));
    // Another's card, and a request of somebody else's, are none of hers.
    let world = alice().await;
    let (pat, card) = world.neighbour("Pat Example", "+447700900789", "10042002").await;
    let shown = world.page_confirms(AppCall { card, ..world.app().await }, [hung_up()]).await;
    came_to(&world, &shown, CallVerdict::NoCard, AppResult::Failed, 0);
    let request = world.request_of(&pat, 1_000).await.id;
    let shown = world.page_confirms(AppCall { request, ..world.app().await }, [hung_up()]).await;
    came_to(&world, &shown, CallVerdict::NothingToPay, AppResult::Failed, 0);
}

#[tokio::test]
async fn a_method_that_is_blocked_while_she_speaks_is_not_charged() {
    let world = alice().await;
    let app = world.app().await;
    let blocked = world.set_card(CardStatus::Blocked);
    let shown = world.page_confirms_while(app, confirming(), "I will charge", blocked).await;
    came_to(&world, &shown, CallVerdict::Refused, AppResult::Refused, 0);
}

/// Her own yes to the same request, by telephone.
async fn paid_elsewhere(world: &World, app: &AppCall) -> Agreed {
    let request = world.office.store.request(&app.request).await.unwrap().unwrap().request;
    let order = ChargeOrder {
        customer: app.customer.clone(),
        request: request.id,
        amount: request.amount,
        card: app.card.clone(),
        occasion: CallId::fresh(&SystemEntropy).into(),
        capture: Capture::Automatic,
        evidence: evidence(),
        guards: OrderGuards::default(),
    };
    let asking = Asking::call(voicepay::payment::policy::Attested::Vouched);
    world.agreements().agree(order, [Condition::FreshDigits, Condition::Code].into(), asking).await.unwrap()
}

fn evidence() -> Evidence {
    Evidence {
        voice_cosine: Some(0.8),
        voice_accept_cosine: None,
        voice_llr: Some(9.0),
        voice_accept_llr: Some(5.0),
        voice_net_speech_ms: Some(6_000),
        voice_model: Some("test".into()),
        number_by: Some("spoken".into()),
        number_log_ratio: None,
        number_accept_log_ratio: None,
        number_llr: None,
        number_accept_llr: None,
        number_engine: None,
        calibration: None,
        yes_continuity: Some(0.7),
        policy_version: "1".into(),
        rules: None,
        mandate: None,
    }
}

/// The payment worker is on its way; in real time.
async fn charged(world: &World, wanted: usize) -> usize {
    for _ in 0..100 {
        if world.charges() >= wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.charges()
}

#[tokio::test]
async fn what_is_paid_meanwhile_is_not_paid_twice() {
    // Before the page calls,
    let world = alice().await;
    let app = world.app().await;
    let steps = [hear(4_000), say("alice/card"), hear(4_000), say("alice/yes"), hung_up()];
    let (record, _) = world.call(ALICE, steps).await;
    assert_eq!((record.verdict, world.charges()), (CallVerdict::Paid, 1), "\n{}", story(&record));
    let shown = world.page_confirms(app, [hung_up()]).await;
    came_to(&world, &shown, CallVerdict::NothingToPay, AppResult::Failed, 1);
    assert!(shown.result.text.contains("not open any more"), "{:?}", shown.result);
    // and while she speaks.
    let world = alice().await;
    let app = world.app().await;
    let elsewhere = async { assert!(matches!(paid_elsewhere(&world, &app).await, Agreed::Charged(_))) };
    let shown = world.page_confirms_while(app.clone(), confirming(), "I will charge", elsewhere).await;
    assert_eq!(charged(&world, 1).await, 1);
    came_to(&world, &shown, CallVerdict::Refused, AppResult::Refused, 1);
}

#[tokio::test]
async fn rules_for_apps_hold_and_rules_for_telephones_do_not() {
    let world = with_rule("channel = [\"app\"]", "deny = true", &[]).await;
    let shown = world.page_calls([hung_up()]).await;
    came_to(&world, &shown, CallVerdict::Refused, AppResult::Refused, 0);
    assert!(shown.result.text.contains("cannot be confirmed here"), "{:?}", shown.result);
    let world = with_rule("channel = [\"telephone\"]", "deny = true", &[]).await;
    let shown = world.page_calls(confirming()).await;
    came_to(&world, &shown, CallVerdict::Paid, AppResult::Paid, 1);
}

#[tokio::test]
async fn a_code_that_rules_ask_for_is_asked_for_and_may_be_keyed() {
    let world = with_rule("channel = [\"app\"]", "ask = [\"code\"]", &[CODE]).await;
    let mut steps = confirming().to_vec();
    steps.splice(4..4, [hear(4_000), Step::keys(CODE)]);
    let shown = world.page_calls(steps).await;
    came_to(&world, &shown, CallVerdict::Paid, AppResult::Paid, 1);
}

#[tokio::test]
async fn where_a_supervisor_has_to_agree_it_waits_and_is_charged_by_that_yes_alone() {
    let world = with_rule("channel = [\"app\"]", "ask = [\"supervisor\"]", &[]).await;
    let (sue, _) = world.neighbour("Sue Example", "+447700900789", "10042002").await;
    world.agreements().add_supervision(&world.customer, &sue, BTreeMap::new(), "test").await.unwrap();
    let shown = world.page_calls(confirming()).await;
    came_to(&world, &shown, CallVerdict::Waiting, AppResult::Waiting, 0);
    let open: Vec<Approval> = papers::of(&*world.office.store, &world.customer).await.unwrap();
    let [approval] = &open[..] else { panic!("{open:?}") };
    let part = approval.payer.as_ref().expect("her part is kept");
    assert_eq!((part.channel, part.evidence.number_by.as_deref()), (Channel::App, Some("app")));
    let decided = world.agreements().decide(&approval.id, &sue, true, How::Link).await.unwrap();
    assert!(matches!(decided.charged, Some(Agreed::Charged(_))), "{decided:?}");
    assert_eq!(charged(&world, 1).await, 1);
}

#[tokio::test]
async fn whoever_leaves_midway_is_charged_nothing() {
    let leaving: [Vec<Step>; 3] = [
        vec![hear(2_000), Action::HangUp.into()],
        vec![hear(6_000), say("alice/yes"), Action::HangUp.into()],
        vec![hear(6_000), say("alice/yes"), hear(4_000), Action::HangUp.into()],
    ];
    for steps in leaving {
        let world = alice().await;
        let shown = world.page_calls(steps).await;
        came_to(&world, &shown, CallVerdict::Abandoned, AppResult::Cancelled, 0);
    }
}

#[tokio::test]
async fn the_page_s_language_is_spoken_and_shown() {
    let world = alice().await;
    let app = AppCall { language: Language::Mandarin, ..world.app().await };
    let shown = world.page_confirms(app, [hung_up()]).await;
    came_to(&world, &shown, CallVerdict::Abandoned, AppResult::Failed, 0);
    assert!(shown.result.text.contains("没有付款"), "{:?}", shown.result);
    let langs = |event: &PageEvent| !matches!(event, PageEvent::Caption { lang, .. } if *lang != "zh");
    assert!(shown.events.iter().all(langs));
}

#[tokio::test]
async fn a_yes_in_place_of_the_digits_is_too_little() {
    let world = alice().await;
    let steps =
        [hear(6_000), say("alice/yes"), hear(4_000), say("alice/yes_please"), hear(4_000), digits("alice", DIGITS[1]), hung_up()];
    let shown = world.page_calls(steps).await;
    came_to(&world, &shown, CallVerdict::Paid, AppResult::Paid, 1);
    assert_eq!(shown.digits().len(), 2, "a lone yes is never enough");
}
