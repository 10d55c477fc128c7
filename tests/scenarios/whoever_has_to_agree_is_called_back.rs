//! A payment that a supervisor has to agree to (system 8): both sides, in either order; whoever picks up a telephone hears nothing of money until
//! the voice was accepted; what was denied, withdrawn, cancelled, changed or has run out is charged by nobody's yes.

use std::collections::BTreeMap;
use std::time::Duration;

use voicepay::agreement::Agreed;
use voicepay::call::CallRecord;
use voicepay::dialogue::{CallVerdict, Errand, Purpose};
use voicepay::e164::E164;
use voicepay::ids::{ApprovalId, CallId, CustomerId, RequestId, SupervisionId};
use voicepay::language::Language;
use voicepay::payment::policy::Attested;
use voicepay::payment::{Approval, ApprovalState, Capture, Condition, Evidence};
use voicepay::phone::{Action, Step};
use voicepay::processor::{ChargeOrder, OrderGuards};
use voicepay::store::{CallbackPurpose, CallbackState, papers};

use crate::support::{ALICE, World, hear, hung_up, said, say, story};

/// What `alice/fresh_1` and `alice/fresh_2` say.
const FIRST: &str = "50271946";
const SECOND: &str = "83610527";

/// Alice supervises Pat, who is asked for 250 USD.
struct Case {
    world: World,
    pat: CustomerId,
    request: RequestId,
    supervision: SupervisionId,
    approval: ApprovalId,
}

impl Case {
    async fn new() -> Self {
        let world = World::with_fresh_digits(&[FIRST, SECOND], |_| ()).await;
        let (pat, _) = world.neighbour("Pat Example", "+447700900789", "10042002").await;
        let supervision = world.agreements().add_supervision(&pat, &world.customer, BTreeMap::new(), "test").await.unwrap().id;
        let request = world.request_of(&pat, 25_000).await;
        let approval = world.agreements().request_approval(&request).await.unwrap().expect("a supervisor has to agree").id;
        Self { world, pat, request: request.id, supervision, approval }
    }

    /// Pat's own part, as a call leaves it.
    async fn pat_agrees(&self) -> Agreed {
        let request = self.world.office.store.request(&self.request).await.unwrap().unwrap().request;
        let card = self.world.office.store.cards_of(&self.pat).await.unwrap().remove(0).id;
        let order = ChargeOrder {
            customer: self.pat.clone(),
            request: request.id,
            amount: request.amount,
            card,
            occasion: CallId::fresh(&voicepay::clock::SystemEntropy).into(),
            capture: Capture::Automatic,
            evidence: evidence(),
            guards: OrderGuards::default(),
        };
        let met = [Condition::FreshDigits, Condition::Code].into();
        let asking = voicepay::agreement::Asking::call(Attested::Vouched);
        self.world.agreements().agree(order, met, asking).await.unwrap()
    }

    /// Alice is called, and does this.
    async fn alice_is_called(&self, steps: impl IntoIterator<Item = Step>) -> CallRecord {
        let errand = Errand {
            customer: self.world.customer.clone(),
            number: E164::normalise(ALICE, "").unwrap(),
            language: Language::English,
            failures_24h: 0,
            slow: false,
            purpose: Purpose::Decide(self.approval.clone()),
        };
        self.world.called_back(errand, steps).await
    }

    async fn approval(&self) -> Approval {
        papers::read(&*self.world.office.store, self.approval.as_str()).await.unwrap().unwrap()
    }

    /// The payment worker is on its way; in real time.
    async fn charges(&self, wanted: usize) -> usize {
        for _ in 0..100 {
            if self.world.charges() >= wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.world.charges()
    }
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

/// Fresh digits, then this answer.
fn answering(answer: &str) -> [Step; 5] {
    [hear(4_000), say("alice/fresh_1"), hear(4_000), say(answer), hung_up()]
}

/// Fresh digits, after which there is nothing to be asked.
fn with_nothing_to_answer() -> [Step; 3] {
    [hear(4_000), say("alice/fresh_1"), hung_up()]
}

/// Whether an amount or the payee was said.
fn spoke_of_money(record: &CallRecord) -> bool {
    said(record).iter().any(|s| ["dollar", "City Water", "payment", " pay ", "charged"].iter().any(|word| s.contains(word)))
}

#[tokio::test]
async fn the_payer_first_then_the_supervisors_yes_charges_once() {
    let case = Case::new().await;
    assert!(matches!(case.pat_agrees().await, Agreed::Waiting { .. }));
    assert_eq!(case.world.charges(), 0, "one side only");
    let record = case.alice_is_called(answering("alice/yes")).await;
    assert_eq!(record.verdict, CallVerdict::Agreed, "\n{}", story(&record));
    assert!(matches!(case.approval().await.state, ApprovalState::Used { .. }), "\n{}", story(&record));
    assert_eq!(case.charges(1).await, 1);
    let told = said(&record);
    let (digits, question) = (
        told.iter().position(|s| s.contains("repeat these digits")).unwrap(),
        told.iter().position(|s| s.contains("two hundred fifty dollars") && s.contains("City Water")).unwrap(),
    );
    assert!(digits < question, "\n{}", story(&record));
    assert!(!told[..=digits].iter().any(|s| s.contains("dollar") || s.contains("City Water")), "\n{}", story(&record));
    assert!(!serde_json::to_string(&record).unwrap().contains(FIRST));
    assert_eq!(record.placed_for.as_ref().map(|p| (p.purpose, &p.approval)), Some(("decide", &case.approval)));
    // A second call finds nothing left to ask.
    let again = case.alice_is_called([hear(4_000), say("alice/fresh_2"), hung_up()]).await;
    assert_eq!((again.verdict, case.charges(2).await), (CallVerdict::Settled, 1), "\n{}", story(&again));
    let owed = case.world.office.store.callbacks_of(&case.approval).await.unwrap();
    let purposes: Vec<_> = owed.iter().map(|c| (c.purpose, c.customer.clone())).collect();
    assert_eq!(
        purposes,
        [(CallbackPurpose::Decide, case.world.customer.clone()), (CallbackPurpose::Tell, case.pat.clone())],
        "and Pat, who waited, is told"
    );
}

#[tokio::test]
async fn the_supervisor_first_then_the_payer_charges_once() {
    let case = Case::new().await;
    let record = case.alice_is_called(answering("alice/yes")).await;
    assert_eq!((record.verdict, case.world.charges()), (CallVerdict::Agreed, 0), "one side only\n{}", story(&record));
    assert_eq!(case.approval().await.state, ApprovalState::Open);
    assert!(matches!(case.pat_agrees().await, Agreed::Charged(_)));
    assert_eq!(case.charges(1).await, 1);
    let owed = case.world.office.store.callbacks_of(&case.approval).await.unwrap();
    assert!(owed.iter().all(|c| c.purpose == CallbackPurpose::Decide), "Pat hears it in the call: {owed:?}");
}

#[tokio::test]
async fn a_no_is_noted_and_nothing_is_charged() {
    let case = Case::new().await;
    case.pat_agrees().await;
    let record = case.alice_is_called(answering("alice/no")).await;
    assert_eq!(record.verdict, CallVerdict::Disagreed, "\n{}", story(&record));
    assert!(matches!(case.approval().await.state, ApprovalState::Denied { .. }));
    assert_eq!(case.charges(1).await, 0);
}

#[tokio::test]
async fn another_voice_that_says_yes_decides_nothing() {
    let case = Case::new().await;
    case.pat_agrees().await;
    let steps = [hear(4_000), say("alice/fresh_1"), hear(4_000), say("bob/yes"), hear(1_500), Action::HangUp.into()];
    let record = case.alice_is_called(steps).await;
    assert_eq!((record.verdict, case.world.charges()), (CallVerdict::Abandoned, 0), "\n{}", story(&record));
    assert_eq!(case.approval().await.state, ApprovalState::Open);
    assert!(record.events.iter().any(|e| e.what.contains("a factor failed")), "\n{}", story(&record));
}

#[tokio::test]
async fn whoever_else_picks_up_or_says_nothing_hears_nothing_of_money() {
    let case = Case::new().await;
    case.pat_agrees().await;
    let stranger = case.alice_is_called([hear(4_000), say("mallory/fresh_1"), hear(1_500), Action::HangUp.into()]).await;
    let silent = case.alice_is_called([hung_up()]).await;
    let star = case.alice_is_called([hear(4_000), Step::keys("*"), hung_up()]).await;
    for (record, verdict) in
        [(&stranger, CallVerdict::Abandoned), (&silent, CallVerdict::Abandoned), (&star, CallVerdict::Cancelled)]
    {
        assert_eq!(record.verdict, verdict, "\n{}", story(record));
        assert!(!spoke_of_money(record), "\n{}", story(record));
    }
    assert_eq!(case.approval().await.state, ApprovalState::Open);
    assert_eq!(case.world.charges(), 0);
}

#[tokio::test]
async fn what_was_cancelled_withdrawn_or_changed_meanwhile_is_not_asked() {
    for change in ["cancelled", "withdrawn", "request withdrawn"] {
        let case = Case::new().await;
        case.pat_agrees().await;
        match change {
            "cancelled" => drop(case.world.agreements().cancel(&case.approval, "test").await.unwrap()),
            "withdrawn" => drop(case.world.agreements().withdraw_supervision(&case.supervision, "test").await.unwrap()),
            _ => case.world.withdraw(&case.request).await,
        }
        let record = case.alice_is_called(with_nothing_to_answer()).await;
        assert_eq!(record.verdict, CallVerdict::Settled, "{change}\n{}", story(&record));
        assert!(!said(&record).iter().any(|s| s.contains("dollar")), "{change}\n{}", story(&record));
        assert_eq!(case.charges(1).await, 0, "{change}");
    }
}

#[tokio::test]
async fn an_approval_that_has_run_out_is_not_asked_and_charges_nothing() {
    let case = Case::new().await;
    case.pat_agrees().await;
    case.world.let_a_day_pass().await;
    let record = case.alice_is_called(with_nothing_to_answer()).await;
    assert_eq!(record.verdict, CallVerdict::Settled, "\n{}", story(&record));
    case.world.agreements().sweep().await.unwrap();
    assert_eq!((case.approval().await.state, case.charges(1).await), (ApprovalState::Expired, 0));
}

#[tokio::test]
async fn nobody_supervises_themselves() {
    let case = Case::new().await;
    let own = case.world.agreements().add_supervision(&case.pat, &case.pat, BTreeMap::new(), "test").await;
    assert!(own.is_err(), "{own:?}");
}

#[tokio::test]
async fn a_call_is_owed_to_whoever_has_to_agree_as_soon_as_they_have_to() {
    let case = Case::new().await;
    let owed = case.world.office.store.callbacks_of(&case.approval).await.unwrap();
    let [call] = &owed[..] else { panic!("{owed:?}") };
    assert_eq!((&call.customer, call.purpose), (&case.world.customer, CallbackPurpose::Decide));
    assert_eq!((call.state, call.tries), (CallbackState::Waiting, 0));
    assert_eq!(call.expires_at, case.approval().await.expires_at);
}
