//! A purchase whose user has a guardian or a supervisor: it waits for their yes, is charged once when the last one comes, and by whatever ends it
//! it ends unpaid. On both databases, with a bank of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;
use voicepay::agreement::{
    AgreeError, Agreed, AskedPurchase, Asking, CodeOutcome, Confirmation, Decided, PurchaseFault, Refusal,
};
use voicepay::ids::{ApprovalId, CallId, CustomerId, SupervisionId};
use voicepay::money::Currency;
use voicepay::payment::guardian::{Change, WardRules};
use voicepay::payment::policy::{Attested, Policy};
use voicepay::payment::{
    AccountState, Approval, ApprovalError, ApprovalState, Capture, ConfirmedBy, Evidence, How, PurchaseError, PurchaseState, Role,
};
use voicepay::processor::{ChargeOrder, OrderGuards};
use voicepay::secret::SecretBytes;
use voicepay::store::{SubmitRefusal, papers};

use super::purchase_house::{House, MASTERCARD, VISA, on_both, usd, yes};

on_both!(
    the_last_yes_charges_it_once_at_its_accounts_bank,
    whoever_agreed_before_the_user_is_not_asked_again,
    a_no_is_a_no_until_it_is_appealed_against,
    whatever_ends_it_ends_both_and_charges_nothing,
    nobody_answered_in_time,
    what_changed_meanwhile_is_judged_when_the_last_yes_comes,
    the_last_yes_said_many_times_at_once_charges_once,
    two_that_wait_from_one_account_are_both_charged,
    one_that_everybody_agreed_to_waits_for_a_process_that_knows_its_bank,
    a_code_is_asked_for_once_and_a_guardian_after_it,
    a_yes_in_a_call_takes_the_place_of_the_purchases,
);

const DAY: Duration = Duration::from_secs(24 * 3600);

impl House {
    /// Ann has a main account, and Bob has to agree to what she pays.
    async fn supervised(&self) -> SupervisionId {
        self.main_account(&self.ann, "north", VISA).await;
        self.agreements.add_supervision(&self.ann, &self.bob, BTreeMap::new(), "test").await.unwrap().id
    }

    /// Ann has confirmed so much, and Bob was asked.
    async fn waits(&self, minor: i64) -> (AskedPurchase, ApprovalId) {
        let asked = self.asks(&self.ann, minor).await;
        let waiting = self.says_yes(&asked).await.unwrap();
        let PurchaseState::Waiting { approval, .. } = waiting.state else { panic!("{waiting:?}") };
        (asked, approval)
    }

    async fn bob_says(&self, id: &ApprovalId, yes: bool) -> Result<Decided, AgreeError> {
        self.agreements.decide(id, &self.bob, yes, How::Link).await
    }

    async fn approval(&self, id: &ApprovalId) -> Approval {
        papers::read(&*self.store, id.as_str()).await.unwrap().unwrap()
    }

    /// Everything that is due is done, and nothing was charged.
    async fn nothing_happens(&self) {
        self.agreements.sweep().await.unwrap();
        self.processor.run_once().await.unwrap();
        assert_eq!((self.payments().await, self.charges()), (0, [0, 0, 0]));
    }

    /// Everything that is due is done, and so often the account's bank was asked.
    async fn charged(&self, at_north: usize) {
        self.agreements.sweep().await.unwrap();
        self.processor.run_once().await.unwrap();
        assert_eq!((self.payments().await, self.charges()), (at_north, [0, at_north, 0]));
    }
}

fn charged(decided: Result<Decided, AgreeError>) {
    assert!(matches!(decided, Ok(Decided { charged: Some(Agreed::Charged(_)), .. })), "{decided:?}");
}

fn refused(decided: Result<Decided, AgreeError>) -> Refusal {
    match decided {
        Ok(Decided { charged: Some(Agreed::Refused(why)), .. }) => why,
        other => panic!("{other:?}"),
    }
}

async fn the_last_yes_charges_it_once_at_its_accounts_bank(house: House) {
    house.supervised().await;
    let page = house.agreements.confirmation_page(&house.asks(&house.ann, 500).await.purchase.id).await.unwrap();
    assert_eq!(page.others, [Role::Supervisor]);
    let (asked, approval) = house.waits(1_999).await;
    house.nothing_happens().await;
    // Neither account nor consent is written before the charge; the purchase keeps what she said.
    let account = house.accounts(&house.ann).await.remove(0);
    assert_eq!((account.state, account.used), (AccountState::PendingConsent, 0));
    assert!(house.trail("account.consented").await.is_empty());
    let PurchaseState::Waiting { consent: Some(consent), until, .. } = house.stands(&asked.purchase).await.state else {
        panic!()
    };
    assert_eq!((&consent.by, consent.how), (&house.ann, ConfirmedBy::Link));
    assert_eq!(until, house.approval(&approval).await.expires_at);
    let trail = house.trail("purchase.waiting").await;
    assert_eq!(
        (trail.len(), &trail[0].actor, &trail[0].detail["approval"]),
        (1, &house.ann.to_string(), &approval.as_str().into())
    );
    assert_eq!((house.heard_of("purchase.waiting").await, house.heard_of("purchase.confirmed").await), (1, 0));
    // The same yes again asks nobody anew, and the payee hears of no second purchase.
    assert_eq!(house.says_yes(&asked).await.unwrap().state.waits_on(), Some(&approval));
    let again = house.agreements.ask_purchase(&house.ann, &asked.purchase.request).await.unwrap();
    assert_eq!((again.purchase.id, again.page, house.heard_of("approval.requested").await), (asked.purchase.id.clone(), None, 1));
    // Long after she could have confirmed it, in the others' time.
    house.later(DAY - Duration::from_secs(1));
    charged(house.bob_says(&approval, true).await);
    charged(house.bob_says(&approval, true).await);
    house.charged(1).await;
    let paid = house.stands(&asked.purchase).await;
    assert_eq!(paid.state.name(), "paid");
    let account = house.accounts(&house.ann).await.remove(0);
    let AccountState::Active { consent: kept } = &account.state else { panic!("{account:?}") };
    assert_eq!((&kept.by, kept.at, account.used), (&house.ann, consent.at, 1));
    for topic in ["purchase.confirmed", "account.consented", "purchase.paid"] {
        assert_eq!((house.heard_of(topic).await, house.trail(topic).await.len()), (1, 1), "{topic}");
    }
    assert_eq!(house.says_yes_again(&asked).await, "paid");
    // Only Bob is owed a call: she reads how it ended on her page.
    let calls = house.store.callbacks_of(&approval).await.unwrap();
    assert_eq!(calls.iter().map(|c| &c.customer).collect::<Vec<_>>(), [&house.bob]);
    house.charged(1).await;
    // With consent on record the next one waits and is charged just so.
    let (second, approval) = house.waits(700).await;
    charged(house.bob_says(&approval, true).await);
    house.charged(2).await;
    assert_eq!((house.stands(&second.purchase).await.state.name(), house.trail("account.consented").await.len()), ("paid", 1));
}

impl House {
    async fn says_yes_again(&self, asked: &AskedPurchase) -> &'static str {
        self.agreements.confirm(&asked.purchase.id, &self.ann, &yes()).await.unwrap().state.name()
    }
}

async fn whoever_agreed_before_the_user_is_not_asked_again(house: House) {
    house.supervised().await;
    let asked = house.asks(&house.ann, 1_999).await;
    let request = house.store.request(&asked.purchase.request).await.unwrap().unwrap().request;
    let approval = house.agreements.request_approval(&request).await.unwrap().unwrap();
    assert!(house.bob_says(&approval.id, true).await.unwrap().charged.is_none());
    house.nothing_happens().await;
    // Without consent her yes is none, and uses nothing up.
    let without = Confirmation { consent: None, ..yes() };
    assert!(house.agreements.confirm(&asked.purchase.id, &house.ann, &without).await.is_err());
    assert!(house.approval(&approval.id).await.payer.is_none());
    assert!(house.says_yes(&asked).await.unwrap().state.intent().is_some());
    house.charged(1).await;
    assert_eq!(house.stands(&asked.purchase).await.state.name(), "paid");
    assert!(matches!(house.approval(&approval.id).await.state, ApprovalState::Used { .. }));
}

async fn a_no_is_a_no_until_it_is_appealed_against(house: House) {
    house.supervised().await;
    let (asked, approval) = house.waits(1_999).await;
    house.bob_says(&approval, false).await.unwrap();
    let denied = house.stands(&asked.purchase).await;
    assert_eq!(denied.state, PurchaseState::Denied { by: Role::Supervisor });
    assert_eq!((house.heard_of("purchase.denied").await, house.trail("purchase.denied").await.len()), (1, 1));
    let late = house.bob_says(&approval, true).await;
    assert!(matches!(late, Err(AgreeError::Approval(ApprovalError::Over("denied")))), "{late:?}");
    let over = house.agreements.confirm(&asked.purchase.id, &house.ann, &yes()).await;
    assert!(matches!(over, Err(PurchaseFault::Purchase(PurchaseError::Over("denied")))), "{over:?}");
    // Another purchase for the same meets the same no.
    let again = house.agreements.ask_purchase(&house.ann, &asked.purchase.request).await.unwrap();
    assert_ne!(again.purchase.id, asked.purchase.id);
    let no = house.says_yes(&again).await;
    assert!(matches!(&no, Err(PurchaseFault::Refused(Refusal::Denied(why))) if why == "supervisor said no"), "{no:?}");
    assert_eq!(house.stands(&again.purchase).await.state, PurchaseState::Awaiting);
    house.nothing_happens().await;
    // After an appeal everybody is asked once more, the user too.
    let appeal = house.agreements.appeal(&approval, "olga", "he mistook the payee").await.unwrap();
    assert_eq!(house.says_yes(&again).await.unwrap().state.waits_on(), Some(&appeal.id));
    charged(house.bob_says(&appeal.id, true).await);
    house.charged(1).await;
    assert_eq!(house.stands(&asked.purchase).await.state, PurchaseState::Denied { by: Role::Supervisor });
}

async fn whatever_ends_it_ends_both_and_charges_nothing(house: House) {
    let supervision = house.supervised().await;
    let (ann, agreements) = (&house.ann, &house.agreements);
    let ended = async |asked: &AskedPurchase, approval: &ApprovalId| {
        let late = house.bob_says(approval, true).await;
        assert!(matches!(late, Err(AgreeError::Approval(ApprovalError::Over(_)))), "{late:?}");
        house.nothing_happens().await;
        (house.stands(&asked.purchase).await.state.name(), house.approval(approval).await.state.name())
    };
    // The payee takes the purchase back.
    let (asked, approval) = house.waits(1_000).await;
    agreements.cancel_purchase(&asked.purchase.id, "key_1").await.unwrap();
    assert_eq!(ended(&asked, &approval).await, ("cancelled", "cancelled"));
    // An operator takes the approval back.
    let (asked, approval) = house.waits(1_000).await;
    agreements.cancel(&approval, "olga").await.unwrap();
    assert_eq!(ended(&asked, &approval).await, ("cancelled", "cancelled"));
    // Its user says no after all; nobody else can.
    let (asked, approval) = house.waits(1_000).await;
    let no = Confirmation { yes: false, ..yes() };
    let other = agreements.confirm(&asked.purchase.id, &house.bob, &no).await;
    assert!(matches!(other, Err(PurchaseFault::Purchase(PurchaseError::NotYours))), "{other:?}");
    agreements.confirm(&asked.purchase.id, ann, &no).await.unwrap();
    assert_eq!(ended(&asked, &approval).await, ("refused", "cancelled"));
    // The payee takes the request back.
    let (asked, approval) = house.waits(1_000).await;
    agreements.cancel_request(&asked.purchase.request, "key_1").await.unwrap();
    assert_eq!(ended(&asked, &approval).await, ("cancelled", "cancelled"));
    // She takes her consent back.
    let (asked, approval) = house.waits(1_000).await;
    agreements.close_account(&asked.account.id, ann.as_str()).await.unwrap();
    assert_eq!(ended(&asked, &approval).await, ("cancelled", "cancelled"));
    // The supervisor is none any more.
    let (asked, approval) = house.waits(1_000).await;
    agreements.withdraw_supervision(&supervision, "test").await.unwrap();
    assert_eq!(ended(&asked, &approval).await, ("withdrawn", "withdrawn"));
    assert_eq!(house.heard_of("purchase.withdrawn").await, 1);
    // The main account goes.
    agreements.add_supervision(ann, &house.bob, BTreeMap::new(), "test").await.unwrap();
    let (asked, approval) = house.waits(1_000).await;
    let main = agreements.main_account(ann).await.unwrap().unwrap();
    agreements.close_main_account(&main.id, "test").await.unwrap();
    assert_eq!(ended(&asked, &approval).await, ("cancelled", "cancelled"));
    // Each said so, once, beside the approval's own word.
    let counts = async |topic: &str| (house.heard_of(topic).await, house.trail(topic).await.len());
    assert_eq!(counts("purchase.waiting").await, (7, 7));
    assert_eq!((counts("purchase.cancelled").await, counts("purchase.refused").await), ((5, 5), (1, 1)));
    assert_eq!((counts("approval.cancelled").await, counts("approval.withdrawn").await), ((6, 6), (1, 1)));
    assert!(house.accounts(ann).await.is_empty());
}

async fn nobody_answered_in_time(house: House) {
    house.supervised().await;
    let (asked, approval) = house.waits(1_999).await;
    house.later(DAY - Duration::from_millis(1));
    house.nothing_happens().await;
    assert_eq!(house.stands(&asked.purchase).await.state.name(), "waiting");
    house.later(Duration::from_millis(1));
    let late = house.bob_says(&approval, true).await;
    assert!(matches!(late, Err(AgreeError::Approval(ApprovalError::Expired))), "{late:?}");
    let late = house.agreements.confirm(&asked.purchase.id, &house.ann, &Confirmation { yes: false, ..yes() }).await;
    assert!(matches!(late, Err(PurchaseFault::Purchase(PurchaseError::Late))), "{late:?}");
    house.nothing_happens().await;
    assert_eq!(house.stands(&asked.purchase).await.state, PurchaseState::Expired);
    assert_eq!((house.heard_of("purchase.expired").await, house.heard_of("approval.expired").await), (1, 1));
    // And is asked for again.
    let again = house.agreements.ask_purchase(&house.ann, &asked.purchase.request).await.unwrap();
    assert_eq!(house.says_yes(&again).await.unwrap().state.name(), "waiting");
}

async fn what_changed_meanwhile_is_judged_when_the_last_yes_comes(house: House) {
    house.supervised().await;
    // Three of 200.00 wait, and the payee may get 500.00 in a day.
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(house.waits(20_000).await);
    }
    let [(first, a), (second, b), (third, c)] = waiting.as_slice() else { panic!() };
    charged(house.bob_says(a, true).await);
    charged(house.bob_says(b, true).await);
    let over = refused(house.bob_says(c, true).await);
    assert!(matches!(&over, Refusal::Denied(why) if why.contains("500.00 USD in 24 hours")), "{over:?}");
    house.charged(2).await;
    let names = [first, second, third].map(|asked| &asked.purchase);
    let mut stand = Vec::new();
    for purchase in names {
        stand.push(house.stands(purchase).await.state.name());
    }
    assert_eq!(stand, ["paid", "paid", "cancelled"]);
    assert_eq!((house.heard_of("payment.refused").await, house.heard_of("purchase.cancelled").await), (1, 1));
    // A guardian froze her payments.
    house.later(DAY);
    let (frozen, approval) = house.waits(1_000).await;
    let gil = house.someone().await;
    let made = house.agreements.add_guardianship(&house.ann, &gil, None, WardRules::default(), None, "test").await.unwrap();
    house.agreements.edit_guardianship(&made.id, &gil, Change::Freeze).await.unwrap();
    assert!(matches!(refused(house.bob_says(&approval, true).await), Refusal::Denied(_)));
    assert_eq!(house.stands(&frozen.purchase).await.state, PurchaseState::Cancelled);
    house.agreements.edit_guardianship(&made.id, &gil, Change::End).await.unwrap();
    // The card by which the bank knows her is gone.
    let (gone, approval) = house.waits(1_000).await;
    let main = house.agreements.main_account(&house.ann).await.unwrap().unwrap();
    house.store.set_card_status(&main.card, voicepay::store::CardStatus::Revoked, &house.audit_row()).await.unwrap();
    assert_eq!(refused(house.bob_says(&approval, true).await), Refusal::Submit(SubmitRefusal::NoUsableCard));
    assert_eq!(house.stands(&gone.purchase).await.state, PurchaseState::Cancelled);
    house.charged(2).await;
}

impl House {
    async fn someone(&self) -> CustomerId {
        let known = self.store.customer(&self.bob).await.unwrap().unwrap();
        let id = CustomerId::fresh(&*self.entropy);
        let customer = voicepay::store::Customer { id: id.clone(), customer_number: "765432".into(), ..known };
        self.store.add_customer(&customer, &self.audit_row()).await.unwrap();
        id
    }
}

async fn the_last_yes_said_many_times_at_once_charges_once(house: House) {
    house.supervised().await;
    let (asked, approval) = house.waits(1_999).await;
    let (_, second) = house.another(&["north", "south"], Policy::compiled_in().unwrap());
    let mut tasks = JoinSet::new();
    for n in 0..12 {
        let agreements = if n % 2 == 0 { house.agreements.clone() } else { second.clone() };
        let (id, who, sweeps) = (approval.clone(), house.bob.clone(), n % 3 == 0);
        tasks.spawn(async move {
            for _ in 0..20 {
                if sweeps {
                    let _others_may_be_faster = agreements.sweep().await;
                }
                match agreements.decide(&id, &who, true, How::Link).await {
                    Err(AgreeError::Store(_)) => {}
                    Ok(Decided { charged: Some(Agreed::Charged(intent)), .. }) => return intent,
                    // Used in the very moment; the next look says as what.
                    Ok(Decided { charged: Some(Agreed::Refused(Refusal::Submit(SubmitRefusal::ApprovalGone))), .. }) => {}
                    other => panic!("{other:?}"),
                }
            }
            panic!("the database stays busy");
        });
    }
    let mut intents = tasks.join_all().await;
    intents.dedup();
    assert_eq!(intents.len(), 1, "all hear of the same payment");
    house.charged(1).await;
    assert_eq!((house.stands(&asked.purchase).await.state.name(), house.accounts(&house.ann).await[0].used), ("paid", 1));
}

async fn two_that_wait_from_one_account_are_both_charged(house: House) {
    house.supervised().await;
    let (first, a) = house.waits(1_000).await;
    let (second, b) = house.waits(2_000).await;
    let says = async |id: &ApprovalId| {
        for _ in 0..20 {
            match house.bob_says(id, true).await {
                Err(AgreeError::Store(_)) => {}
                done => return charged(done),
            }
        }
        panic!("the database stays busy");
    };
    tokio::join!(says(&a), says(&b));
    house.charged(2).await;
    for asked in [first, second] {
        assert_eq!(house.stands(&asked.purchase).await.state.name(), "paid");
    }
    let account = house.accounts(&house.ann).await.remove(0);
    assert_eq!((account.used, house.trail("account.consented").await.len()), (2, 1), "one consent");
}

async fn one_that_everybody_agreed_to_waits_for_a_process_that_knows_its_bank(house: House) {
    house.supervised().await;
    let (asked, approval) = house.waits(1_999).await;
    let (_, elsewhere) = house.another(&["south"], Policy::compiled_in().unwrap());
    let decided = elsewhere.decide(&approval, &house.bob, true, How::Link).await;
    assert_eq!(refused(decided), Refusal::Submit(SubmitRefusal::UnknownBank));
    elsewhere.sweep().await.unwrap();
    assert_eq!((house.approval(&approval).await.state, house.payments().await), (ApprovalState::Agreed, 0));
    assert_eq!(house.stands(&asked.purchase).await.state.name(), "waiting");
    // As after a crash between the last yes and the charge.
    house.charged(1).await;
    assert_eq!(house.stands(&asked.purchase).await.state.name(), "paid");
}

async fn a_code_is_asked_for_once_and_a_guardian_after_it(house: House) {
    house.main_account(&house.ann, "north", VISA).await;
    house.main_account(&house.bob, "south", MASTERCARD).await;
    let rules = "version = \"t\"\nrefused_currencies = [\"GBP\", \"JPY\", \"EUR\"]\n[tiers]\nUSD = { small = \"20.00\", normal = \"500.00\" }\n\
                 [[rule]]\nname = \"code\"\nwhen = { tier = [\"normal\", \"large\"] }\nask = [\"code\"]\n";
    house.agreements.set_policy(Policy::from_toml(rules).unwrap());
    let wards = WardRules { agree_over: BTreeMap::from([(Currency::Usd, 3_000)]), ..WardRules::default() };
    house.agreements.add_guardianship(&house.ann, &house.bob, None, wards, None, "test").await.unwrap();
    let asked = house.asks(&house.ann, 5_000).await;
    let page = house.agreements.confirmation_page(&asked.purchase.id).await.unwrap();
    assert_eq!((page.wants_code, page.others), (true, vec![Role::Guardian]));
    let without = house.says_yes(&asked).await;
    assert!(matches!(without, Err(PurchaseFault::Refused(Refusal::NotMet(_)))), "{without:?}");
    let request = house.store.request(&asked.purchase.request).await.unwrap().unwrap().request;
    let CodeOutcome::Sent(sent) = house.agreements.send_code(&request).await.unwrap() else { panic!("no code") };
    let with = Confirmation { code: Some(SecretBytes::new(sent.digits.expose().to_vec())), ..yes() };
    let waiting = house.agreements.confirm(&asked.purchase.id, &house.ann, &with).await.unwrap();
    let approval = waiting.state.waits_on().unwrap().clone();
    house.nothing_happens().await;
    // Her code is used up; that it was right is part of what she said.
    charged(house.bob_says(&approval, true).await);
    house.charged(1).await;
    assert_eq!((house.heard_of("guardian.payment").await, house.stands(&asked.purchase).await.state.name()), (1, "paid"));
}

async fn a_yes_in_a_call_takes_the_place_of_the_purchases(house: House) {
    house.supervised().await;
    let (asked, approval) = house.waits(1_999).await;
    let order = ChargeOrder {
        customer: house.ann.clone(),
        request: asked.purchase.request.clone(),
        amount: usd(1_999),
        card: house.card(&house.ann, MASTERCARD).await,
        occasion: CallId::fresh(&*house.entropy).into(),
        capture: Capture::Automatic,
        evidence: Evidence::default(),
        guards: OrderGuards::default(),
    };
    let agreed = house.agreements.agree(order, [].into(), Asking::call(Attested::Vouched)).await.unwrap();
    assert!(matches!(&agreed, Agreed::Waiting { approval: same, .. } if *same == approval), "{agreed:?}");
    assert_eq!(house.stands(&asked.purchase).await.state, PurchaseState::Cancelled);
    charged(house.bob_says(&approval, true).await);
    house.agreements.sweep().await.unwrap();
    house.processor.run_once().await.unwrap();
    assert_eq!((house.payments().await, house.charges()), (1, [1, 0, 0]), "with her card, as she said in the call");
    assert_eq!(house.stands(&asked.purchase).await.state, PurchaseState::Cancelled, "it stays so");
}
