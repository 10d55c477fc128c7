//! What the gateway asks and makes of the answers, against a host that answers by script. tests/money has it against a stateful
//! stand-in.

use serde_json::{Value, json};

use super::stub::{Do, Stub};
use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::gateway::Original;
use crate::money::{Currency, Money};
use crate::payment::{Expiry, GatewayKey};
use crate::secret::Pan;

const START: Timestamp = Timestamp(1_800_000_000_000);

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::Usd).unwrap()
}

fn request(operation: Operation) -> GatewayRequest {
    let charges = matches!(operation, Operation::Charge | Operation::Authorise);
    GatewayRequest {
        operation,
        our_reference: "att_1".into(),
        request: "req_1".into(),
        number: 1,
        prepared_at: START,
        idempotency_key: GatewayKey("voicepay-att_1".into()),
        amount: usd(1999),
        card: charges
            .then(|| CardData { pan: Pan::parse("4242424242424242").unwrap(), expiry: Some(Expiry::new(2031, 9).unwrap()) }),
        original: (!charges).then(|| Original {
            operation: Operation::Authorise,
            our_reference: "att_0".into(),
            number: 0,
            prepared_at: START,
            amount: usd(1999),
            gateway_reference: "pi_1".into(),
        }),
        statement: "Água & Luz \"Ltda\"".into(),
    }
}

fn ok(value: Value) -> Do {
    Do::Say(200, value.to_string())
}

fn method() -> Do {
    ok(json!({ "id": "pm_1" }))
}

fn intent(status: &str, more: Value) -> Value {
    let mut all =
        json!({ "id": "pi_1", "status": status, "amount": 1999, "currency": "usd", "metadata": { "our_reference": "att_1" } });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

fn paid() -> Do {
    ok(intent("succeeded", json!({ "amount_received": 1999 })))
}

fn error(status: u16, kind: &str, code: &str) -> Do {
    Do::Say(status, json!({ "error": { "type": kind, "code": code } }).to_string())
}

fn yes(minor: i64) -> BankWord {
    BankWord::Approved { charged: usd(minor), gateway_reference: "pi_1".into() }
}

/// A gateway whose host answers by the script, `hours` after the request was written down.
async fn stripe(script: Vec<Do>, hours: u64) -> (StripeGateway, Stub) {
    let stub = Stub::start(script).await;
    let cfg = StripeConfig { url: stub.url.clone(), timeout_ms: 300, ..StripeConfig::default() };
    let clock = Arc::new(ManualClock::starting_at(START.plus(Duration::from_secs(hours * 3600))));
    (StripeGateway::open(&cfg, |_| Some("sk_test_1".into()), clock).unwrap(), stub)
}

async fn sent(operation: Operation, script: Vec<Do>) -> (BankWord, Vec<String>) {
    let (gateway, stub) = stripe(script, 0).await;
    (gateway.send(&request(operation)).await, stub.lines())
}

async fn resolved(operation: Operation, hours: u64, script: Vec<Do>) -> (BankWord, Vec<String>) {
    let (gateway, stub) = stripe(script, hours).await;
    (gateway.resolve(&request(operation)).await, stub.lines())
}

const METHOD: &str = "POST /v1/payment_methods";
const CREATE: &str = "POST /v1/payment_intents";
const CANCEL: &str = "POST /v1/payment_intents/pi_1/cancel";
const GET: &str = "GET /v1/payment_intents/pi_1";
const SEARCH: &str = "GET /v1/payment_intents/search?query=metadata%5B%27our_reference%27%5D%3A%27att_1%27&limit=2";
const REFUNDS: &str = "GET /v1/refunds?payment_intent=pi_1&limit=100";

#[tokio::test]
async fn a_charge_is_one_card_and_one_confirmed_intent() {
    let (gateway, stub) = stripe(vec![method(), paid()], 0).await;
    assert_eq!(gateway.send(&request(Operation::Charge)).await, yes(1999));
    let [card, create] = stub.asked().try_into().unwrap();
    assert_eq!(card.body, "type=card&card[number]=4242424242424242&card[exp_month]=9&card[exp_year]=2031");
    assert_eq!(
        create.body,
        "amount=1999&currency=usd&payment_method=pm_1&payment_method_types[]=card&payment_method_options[card][moto]=true\
         &capture_method=automatic&confirm=true&metadata[our_reference]=att_1&statement_descriptor_suffix=gua%20%26%20Luz"
    );
    assert_eq!(
        (card.header("idempotency-key").unwrap(), create.header("idempotency-key").unwrap()),
        ("voicepay-att_1-method".into(), "voicepay-att_1".into())
    );
    assert!(!create.body.contains("4242"));
    let (gateway, stub) = stripe(vec![method(), ok(intent("requires_capture", json!({ "amount_capturable": 1999 })))], 0).await;
    let mut yen = request(Operation::Authorise);
    assert_eq!(gateway.send(&yen).await, yes(1999));
    assert!(stub.asked()[1].body.contains("capture_method=manual"));
    yen.amount = Money::new(500, Currency::Jpy).unwrap();
    let (gateway, stub) = stripe(vec![method()], 0).await;
    gateway.send(&yen).await;
    assert!(stub.asked()[1].body.starts_with("amount=500&currency=jpy&"), "yen have no smaller unit");
    assert!(!format!("{gateway:?} {yen:?}").contains("sk_test"));
}

#[tokio::test]
async fn each_answer_to_a_charge_means_one_thing() {
    use DeclineReason::{DoNotHonour, InvalidAmount, Other};
    let declined = json!({ "error": { "type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds" } });
    let create = |what: Do| vec![method(), what];
    for (script, word) in [
        (create(Do::Say(402, declined.to_string())), BankWord::Declined(DeclineReason::InsufficientFunds)),
        (vec![error(402, "card_error", "incorrect_number")], BankWord::Declined(DeclineReason::UnknownCard)),
        (create(error(402, "card_error", "card_declined")), BankWord::Declined(DoNotHonour)),
        (create(error(400, "invalid_request_error", "amount_too_small")), BankWord::Declined(InvalidAmount)),
        (create(error(400, "invalid_request_error", "parameter_missing")), BankWord::Declined(Other)),
        (create(error(409, "idempotency_error", "idempotency_key_in_use")), BankWord::StillWorking),
        (create(error(400, "idempotency_error", "")), BankWord::Silence),
        (create(error(401, "invalid_request_error", "")), BankWord::Silence),
        (create(error(429, "invalid_request_error", "rate_limit")), BankWord::Silence),
        (create(error(500, "api_error", "")), BankWord::Silence),
        (create(Do::Say(502, "<html>bad gateway</html>".into())), BankWord::Silence),
        (create(Do::Say(200, "<html>not what it seems</html>".into())), BankWord::Silence),
        (create(Do::Say(302, String::new())), BankWord::Silence),
        (create(Do::Hang), BankWord::Silence),
        (create(Do::Sleep), BankWord::Silence),
        (vec![Do::Hang], BankWord::Silence),
        (create(ok(intent("processing", json!({})))), BankWord::StillWorking),
        (create(ok(intent("succeeded", json!({ "amount_received": 1998 })))), yes(1998)),
        (
            create(ok(intent("succeeded", json!({ "amount_received": 1999, "metadata": { "our_reference": "att_2" } })))),
            BankWord::Silence,
        ),
        (create(ok(intent("succeeded", json!({ "amount_received": 1999, "metadata": {} })))), BankWord::Silence),
    ] {
        let shown = format!("{script:?}");
        assert_eq!(sent(Operation::Charge, script).await.0, word, "{shown}");
    }
}

#[tokio::test]
async fn a_charge_that_wants_the_cardholder_at_a_screen_is_cancelled_before_it_is_called_declined() {
    let stuck = || ok(intent("requires_action", json!({})));
    let no = BankWord::Declined(DeclineReason::NeedsAuthentication);
    let (word, lines) = sent(Operation::Charge, vec![method(), stuck(), ok(intent("canceled", json!({})))]).await;
    assert_eq!((word, lines), (no.clone(), vec![METHOD.into(), CREATE.into(), CANCEL.into()]));
    // The cancellation's answer is lost: it is in doubt, and the question finds out. The kept first answer is not believed to be
    // the present.
    assert_eq!(sent(Operation::Charge, vec![method(), stuck(), Do::Hang]).await.0, BankWord::Silence);
    let cancelled = ok(intent("canceled", json!({ "cancellation_reason": "abandoned" })));
    let (word, lines) = resolved(Operation::Charge, 1, vec![method(), stuck(), cancelled]).await;
    assert_eq!((word, lines), (no.clone(), vec![METHOD.into(), CREATE.into(), GET.into()]));
    // It was not cancelled: it is now.
    let script = vec![method(), stuck(), stuck(), ok(intent("canceled", json!({})))];
    assert_eq!(resolved(Operation::Charge, 1, script).await.0, no);
    // It was paid after all, before the cancellation came.
    assert_eq!(resolved(Operation::Charge, 1, vec![method(), stuck(), paid()]).await.0, yes(1999));
    let script = vec![method(), stuck(), error(400, "invalid_request_error", "payment_intent_unexpected_state")];
    assert_eq!(sent(Operation::Charge, script).await.0, BankWord::Silence);
}

#[tokio::test]
async fn a_question_sends_the_same_again_while_stripe_keeps_the_key_and_searches_afterwards() {
    let found = || ok(json!({ "data": [{ "id": "pi_1" }] }));
    let nothing = || ok(json!({ "data": [] }));
    let (word, lines) = resolved(Operation::Charge, 1, vec![method(), paid()]).await;
    assert_eq!((word, lines), (yes(1999), vec![METHOD.into(), CREATE.into()]));
    let (word, lines) = resolved(Operation::Charge, 23, vec![found(), paid()]).await;
    assert_eq!((word, lines), (yes(1999), vec![SEARCH.into(), GET.into()]));
    assert_eq!(resolved(Operation::Charge, 30, vec![nothing()]).await.0, BankWord::NotFound);
    assert_eq!(resolved(Operation::Charge, 30, vec![Do::Hang]).await.0, BankWord::Silence);
    assert_eq!(resolved(Operation::Charge, 30, vec![found(), Do::Hang]).await.0, BankWord::Silence);
    assert_eq!(resolved(Operation::Charge, 30, vec![error(500, "api_error", "")]).await.0, BankWord::Silence);
    let two = ok(json!({ "data": [{ "id": "pi_1" }, { "id": "pi_2" }] }));
    assert_eq!(resolved(Operation::Charge, 30, vec![two]).await.0, BankWord::Silence);
    // A kept 500 says nothing about the charge: it is looked for. Not at once, though: the search lags.
    let kept = || vec![method(), error(500, "api_error", "")];
    let with = |mut script: Vec<Do>, more: Vec<Do>| {
        script.extend(more);
        script
    };
    assert_eq!(resolved(Operation::Charge, 1, with(kept(), vec![found(), paid()])).await.0, yes(1999));
    assert_eq!(resolved(Operation::Charge, 1, with(kept(), vec![nothing()])).await.0, BankWord::NotFound);
    assert_eq!(resolved(Operation::Charge, 0, with(kept(), vec![nothing()])).await.0, BankWord::Silence);
    let (gateway, stub) = stripe(vec![nothing()], 1).await;
    let without_card = GatewayRequest { card: None, ..request(Operation::Charge) };
    assert_eq!(gateway.resolve(&without_card).await, BankWord::NotFound);
    assert_eq!(stub.lines(), [SEARCH], "without its card it can only be looked for");
}

#[tokio::test]
async fn a_send_so_late_that_the_key_may_be_forgotten_looks_first() {
    let (gateway, stub) = stripe(vec![ok(json!({ "data": [{ "id": "pi_1" }] })), paid()], 24).await;
    assert_eq!(gateway.send(&request(Operation::Charge)).await, yes(1999));
    assert_eq!(stub.lines(), [SEARCH, GET], "nothing was sent");
    let (gateway, stub) = stripe(vec![ok(json!({ "data": [] })), method(), paid()], 24).await;
    assert_eq!(gateway.send(&request(Operation::Charge)).await, yes(1999));
    assert_eq!(stub.lines(), [SEARCH, METHOD, CREATE]);
    let (gateway, stub) = stripe(vec![Do::Hang], 24).await;
    assert_eq!(gateway.send(&request(Operation::Charge)).await, BankWord::Silence);
    assert_eq!(stub.lines(), [SEARCH]);
}

#[tokio::test]
async fn captures_voids_and_refunds_act_on_the_intent_and_are_looked_up_without_sending() {
    let captured = || ok(intent("succeeded", json!({ "amount_received": 700, "metadata": { "capture_reference": "att_1" } })));
    let (gateway, stub) = stripe(vec![captured()], 0).await;
    assert_eq!(gateway.send(&GatewayRequest { amount: usd(700), ..request(Operation::Capture) }).await, yes(700));
    assert_eq!(stub.asked()[0].line, "POST /v1/payment_intents/pi_1/capture");
    assert_eq!(stub.asked()[0].body, "amount_to_capture=700&metadata[capture_reference]=att_1");
    assert_eq!(resolved(Operation::Capture, 1, vec![captured()]).await, (yes(700), vec![GET.into()]));
    let held = || ok(intent("requires_capture", json!({})));
    assert_eq!(resolved(Operation::Capture, 1, vec![held()]).await.0, BankWord::NotFound);
    // A repeated capture is refused because the first was done: what Stripe has decides.
    let late = error(400, "invalid_request_error", "payment_intent_unexpected_state");
    assert_eq!(sent(Operation::Capture, vec![late, captured()]).await.0, yes(700));
    let much = Do::Say(400, json!({ "error": { "type": "invalid_request_error", "param": "amount_to_capture" } }).to_string());
    assert_eq!(sent(Operation::Capture, vec![much, held()]).await.0, BankWord::Declined(DeclineReason::InvalidAmount));

    let gone = || ok(intent("canceled", json!({})));
    assert_eq!(sent(Operation::Void, vec![gone()]).await, (yes(1999), vec![CANCEL.into()]));
    assert_eq!(resolved(Operation::Void, 1, vec![gone()]).await, (yes(1999), vec![GET.into()]));
    assert_eq!(resolved(Operation::Void, 1, vec![captured()]).await.0, BankWord::Declined(DeclineReason::InvalidAmount));

    let refund = |by: &str, status: &str| {
        json!({ "id": "re_1", "amount": 1999, "currency": "usd", "status": status,
            "metadata": { "our_reference": by } })
    };
    let back = BankWord::Approved { charged: usd(1999), gateway_reference: "re_1".into() };
    let (gateway, stub) = stripe(vec![ok(refund("att_1", "succeeded"))], 0).await;
    assert_eq!(gateway.send(&request(Operation::Refund)).await, back);
    assert_eq!(stub.asked()[0].line, "POST /v1/refunds");
    assert_eq!(stub.asked()[0].body, "payment_intent=pi_1&amount=1999&metadata[our_reference]=att_1");
    assert_eq!(sent(Operation::Refund, vec![ok(refund("att_1", "pending"))]).await.0, BankWord::StillWorking);
    assert_eq!(sent(Operation::Refund, vec![ok(refund("att_9", "succeeded"))]).await.0, BankWord::Silence);
    let page = |refunds: Value, more: bool| ok(json!({ "data": refunds, "has_more": more }));
    let both = json!([refund("att_9", "succeeded"), refund("att_1", "succeeded")]);
    assert_eq!(resolved(Operation::Refund, 99, vec![page(both, false)]).await, (back.clone(), vec![REFUNDS.into()]));
    assert_eq!(resolved(Operation::Refund, 99, vec![page(json!([]), false)]).await.0, BankWord::NotFound);
    assert_eq!(resolved(Operation::Refund, 99, vec![page(json!([]), true)]).await.0, BankWord::Silence);
    let already = || error(400, "invalid_request_error", "charge_already_refunded");
    let ours = json!([refund("att_1", "succeeded")]);
    assert_eq!(sent(Operation::Refund, vec![already(), page(ours, false)]).await.0, back);
    let no = BankWord::Declined(DeclineReason::InvalidAmount);
    assert_eq!(sent(Operation::Refund, vec![already(), page(json!([]), false)]).await.0, no);
    assert_eq!(sent(Operation::Refund, vec![already(), Do::Hang]).await.0, BankWord::Silence);
}

#[tokio::test]
async fn what_cannot_be_sent_is_not() {
    let (gateway, stub) = stripe(vec![], 0).await;
    let mut no_date = request(Operation::Charge);
    no_date.card.as_mut().unwrap().expiry = None;
    assert_eq!(gateway.send(&no_date).await, BankWord::Declined(DeclineReason::NotSent));
    assert_eq!(
        gateway.send(&GatewayRequest { original: None, ..request(Operation::Refund) }).await,
        BankWord::Declined(DeclineReason::NotSent)
    );
    let mut elsewhere = request(Operation::Capture);
    elsewhere.original.as_mut().unwrap().gateway_reference = "pi_1/../../v1/payouts".into();
    assert_eq!(gateway.send(&elsewhere).await, BankWord::Declined(DeclineReason::NotSent));
    assert_eq!(gateway.resolve(&elsewhere).await, BankWord::Silence);
    assert!(stub.lines().is_empty());
}

/// Where log lines go.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_line_of_the_log_at_any_level_has_the_card_number_or_the_key() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let _until_the_end = tracing::subscriber::set_default(subscriber);
    // A host that says back what it was told, in every part of an answer that we read.
    let echo = |kind: &str| {
        json!({ "error": { "type": kind, "code": "card 4242 4242 4242 4242", "param": "number=4242424242424242",
        "message": "4242424242424242 is no card", "decline_code": "4242-4242-4242-4242" }, "id": 4242424242424242_u64 })
    };
    let kinds = ["card_error", "invalid_request_error", "idempotency_error", "4242424242424242"];
    for (status, kind) in [200, 400, 402, 409, 500].into_iter().flat_map(|s| kinds.map(|k| (s, k))) {
        let (gateway, _stub) = stripe(vec![method(), Do::Say(status, echo(kind).to_string())], 0).await;
        gateway.send(&request(Operation::Charge)).await;
        let (gateway, _stub) = stripe(vec![Do::Say(status, "4242424242424242".into()), Do::Hang], 0).await;
        gateway.resolve(&request(Operation::Charge)).await;
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.lines().count() >= 10, "{text}");
    for secret in ["42424242", "4242 4242", "4242-4242", "sk_test"] {
        assert!(!text.contains(secret), "{secret} in:\n{text}");
    }
}

#[test]
fn a_payees_name_is_cleaned_for_the_statement() {
    let suffix = |name: &str| statement_suffix(name);
    assert_eq!(suffix("Water Works").as_deref(), Some("Water Work"));
    assert_eq!(suffix("  O'Neill  <b>*\\\"x").as_deref(), Some("ONeill bx"));
    assert_eq!(suffix("水道局"), None);
    assert_eq!(suffix("24/7 365"), None, "it needs a letter");
    assert_eq!(suffix("123456789 Shop"), None, "and within what is left of it");
}
