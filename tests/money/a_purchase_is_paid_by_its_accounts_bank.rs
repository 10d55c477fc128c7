//! System 7: main account? purchase-permission account, or one at once, the page, the yes, the transfer at that account's bank, and a result
//! that is the bank's answer. Confirmations have a file of their own.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use voicepay::agreement::{AccountFault, Confirmation, PurchaseFault, Refusal};
use voicepay::clock::Clock;
use voicepay::ids::{BankName, CardId, CustomerId, PayeeId, RequestId};
use voicepay::money::{Currency, Money};
use voicepay::payment::account::WORDING;
use voicepay::payment::policy::Policy;
use voicepay::payment::{
    AccountError, AccountState, ConfirmedBy, DeclineReason, Operation, PurchaseError, PurchaseState, RequestStatus,
};
use voicepay::processor::OperationOrder;
use voicepay::rights::RetentionConfig;
use voicepay::rights::export::{self, Part};
use voicepay::store::SubmitRefusal;

use super::purchase_house::{House, MASTERCARD, START, VISA, on_both, usd, yes};

on_both!(
    without_a_main_account_nothing_is_asked_for,
    a_first_purchase_links_an_account_at_once_and_is_paid_after_one_yes,
    a_later_purchase_uses_the_account_that_is_linked,
    first_requests_at_once_make_one_account_and_a_request_one_purchase,
    main_accounts_opened_at_once_are_one,
    each_account_pays_at_its_own_bank_and_gets_its_refund_there,
    a_bank_that_declines_gives_a_declined_purchase_and_another_may_be_asked_for,
    an_answer_that_never_comes_is_in_doubt_and_the_same_bank_is_asked,
    of_a_lost_request_nothing_is_charged,
    a_process_that_dies_after_the_yes_leaves_the_charge_to_the_next_and_to_the_same_bank,
    a_bank_that_is_not_known_here_is_never_replaced_by_another,
    a_closed_account_pays_nothing_and_a_new_one_asks_for_consent_again,
    what_cannot_be_is_refused_by_name_and_changes_nothing,
    purchases_confirmed_at_once_stay_within_the_days_limit,
    an_export_holds_accounts_consents_purchases_and_banks_of_nobody_else,
);

const AT_ONCE: usize = 12;

async fn without_a_main_account_nothing_is_asked_for(house: House) {
    let request = house.request(&house.ann, &house.shop, usd(1_999)).await;
    let before = house.everything().await;
    let asked = house.agreements.ask_purchase(&house.ann, &request.id).await;
    assert!(matches!(asked, Err(PurchaseFault::Purchase(PurchaseError::NoMainAccount))), "{asked:?}");
    assert_eq!(house.everything().await, before);
    assert!(house.heard().await.is_empty());
}

async fn a_first_purchase_links_an_account_at_once_and_is_paid_after_one_yes(house: House) {
    let main = house.main_account(&house.ann, "north", VISA).await;
    let asked = house.asks(&house.ann, 1_999).await;
    let account = house.accounts(&house.ann).await.pop().unwrap();
    assert_eq!((&account.state, &account.main, &account.payee), (&AccountState::PendingConsent, &main.id, &house.shop));
    assert_eq!(asked.account, account);
    let page = house.agreements.confirmation_page(&asked.purchase.id).await.unwrap();
    assert_eq!((page.payee_name.as_str(), page.wording, page.wants_code), ("Shop", Some(WORDING), false));
    // The page reaches whoever delivers it, and the audit trail holds no link.
    let news = house.store.outbox_waiting(100).await.unwrap();
    let sent = news.iter().find(|o| o.topic == "purchase.asked").unwrap();
    assert_eq!(sent.payload["page"].as_str(), asked.page.as_deref());
    assert!(house.trail("purchase.asked").await[0].detail.get("page").is_none());
    assert_eq!((house.payments().await, house.charges()), (0, [0, 0, 0]), "nobody has said yes");

    let confirmed = house.says_yes(&asked).await.unwrap();
    assert_eq!(confirmed.state.name(), "charging");
    house.processor.run_once().await.unwrap();
    let paid = house.stands(&asked.purchase).await;
    let PurchaseState::Paid { intent, receipt } = &paid.state else { panic!("{paid:?}") };
    let payment = house.store.payment(intent).await.unwrap().unwrap();
    assert_eq!(payment.receipt.as_ref().map(|r| &r.id), Some(receipt));
    assert_eq!((payment.intent.occasion.as_str(), payment.attempts[0].gateway.as_str()), (paid.id.as_str(), "north"));
    assert_eq!(house.charges(), [0, 1, 0]);
    // Who agreed, when, to which wording, and how.
    let account = house.accounts(&house.ann).await.pop().unwrap();
    let consent = account.consent().unwrap();
    assert_eq!(
        (consent.by.clone(), consent.wording.as_str(), &consent.how),
        (house.ann.clone(), WORDING.version, &ConfirmedBy::Link)
    );
    assert_eq!((consent.digest.clone(), consent.at, account.used), (WORDING.digest(), super::purchase_house::START, 1));
    assert_eq!(house.trail("account.consented").await[0].detail["consent"]["digest"], WORDING.digest());
    for topic in ["account.linked", "purchase.asked", "account.consented", "purchase.confirmed", "purchase.paid"] {
        assert_eq!(house.heard_of(topic).await, 1, "{topic}");
    }
    let request = house.store.request(&paid.request).await.unwrap().unwrap().request;
    assert_eq!(request.status, RequestStatus::Paid);
}

async fn a_later_purchase_uses_the_account_that_is_linked(house: House) {
    house.main_account(&house.ann, "south", VISA).await;
    house.buys(&house.ann, 1_000).await;
    let asked = house.asks(&house.ann, 2_000).await;
    assert_eq!(asked.account.state.name(), "active");
    let page = house.agreements.confirmation_page(&asked.purchase.id).await.unwrap();
    assert_eq!(page.wording, None, "agreed to before");
    let no_consent = voicepay::agreement::Confirmation { consent: None, ..yes() };
    house.agreements.confirm(&asked.purchase.id, &house.ann, &no_consent).await.unwrap();
    house.processor.run_once().await.unwrap();
    assert_eq!(house.stands(&asked.purchase).await.state.name(), "paid");
    let accounts = house.accounts(&house.ann).await;
    assert_eq!((accounts.len(), accounts[0].used), (1, 2));
    assert_eq!((house.charges(), house.heard_of("account.consented").await), ([0, 0, 2], 1));
}

async fn first_requests_at_once_make_one_account_and_a_request_one_purchase(house: House) {
    house.main_account(&house.ann, "north", VISA).await;
    let mut requests = Vec::new();
    for _ in 0..4 {
        requests.push(house.request(&house.ann, &house.shop, usd(500)).await.id);
    }
    let mut tasks = JoinSet::new();
    for n in 0..AT_ONCE {
        let (agreements, user, request) = (house.agreements.clone(), house.ann.clone(), requests[n % 4].clone());
        tasks.spawn(async move {
            // The database may be busy with the others; whoever asked asks again.
            for _ in 0..20 {
                if let Ok(asked) = agreements.ask_purchase(&user, &request).await {
                    return asked;
                }
            }
            panic!("nobody is let through");
        });
    }
    let mut purchases = std::collections::BTreeSet::new();
    let mut accounts = std::collections::BTreeSet::new();
    while let Some(asked) = tasks.join_next().await {
        let asked = asked.unwrap();
        purchases.insert(asked.purchase.id);
        accounts.insert(asked.account.id);
    }
    assert_eq!((purchases.len(), accounts.len()), (4, 1));
    assert_eq!(house.accounts(&house.ann).await.len(), 1);
    assert_eq!((house.heard_of("account.linked").await, house.heard_of("purchase.asked").await), (1, 4));
}

async fn main_accounts_opened_at_once_are_one(house: House) {
    let (card, bank) = (house.card(&house.ann, VISA).await, BankName::parse("north").unwrap());
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (agreements, ann, card, bank) = (house.agreements.clone(), house.ann.clone(), card.clone(), bank.clone());
        tasks.spawn(async move { agreements.open_main_account(&ann, &bank, &card, "test").await.unwrap().id });
    }
    let mut ids: Vec<_> = tasks.join_all().await;
    ids.dedup();
    assert_eq!((ids.len(), house.heard_of("main_account.opened").await), (1, 1));
    let south = BankName::parse("south").unwrap();
    let other = house.agreements.open_main_account(&house.ann, &south, &card, "test").await;
    assert!(matches!(other, Err(AccountFault::HasAnother)));
}

async fn each_account_pays_at_its_own_bank_and_gets_its_refund_there(house: House) {
    house.main_account(&house.ann, "north", VISA).await;
    house.main_account(&house.bob, "south", MASTERCARD).await;
    let mut paid = Vec::new();
    for (customer, minor) in [(&house.ann, 1_100), (&house.bob, 2_200), (&house.ann, 3_300)] {
        paid.push((house.buys(customer, minor).await, minor));
    }
    assert_eq!(house.charges(), [0, 2, 1]);
    let asked = |bank: &str| house.journal(bank).iter().map(|l| (l.last4.clone(), l.asked.minor.get())).collect::<Vec<_>>();
    assert_eq!(asked("north"), [("4242".to_owned(), 1_100), ("4242".to_owned(), 3_300)]);
    assert_eq!(asked("south"), [("4444".to_owned(), 2_200)]);
    for (n, (purchase, _)) in paid.iter().enumerate() {
        let order = OperationOrder {
            key: format!("refund-{n}"),
            intent: purchase.state.intent().unwrap().clone(),
            operation: Operation::Refund,
            amount: None,
            by: "test".into(),
            why: "returned".into(),
        };
        house.processor.operate(order).await.unwrap();
    }
    house.processor.run_once().await.unwrap();
    let refunds = |bank: &str| house.journal(bank).iter().filter(|l| l.operation == Operation::Refund).count();
    assert_eq!(["sandbox", "north", "south"].map(refunds), [0, 2, 1]);
    // Two banks of a kind are two in the books.
    let books = voicepay::ledger::verify(&house.store.transfers().await.unwrap()).unwrap();
    let at = |bank: &str| {
        let name = voicepay::ledger::AccountName::acquirer(bank, Currency::Usd);
        books.balances().get(&name).map_or((0, 0), |b| (b.debits_posted, b.credits_posted))
    };
    assert_eq!((at("north"), at("south"), at("sandbox")), ((4_400, 4_400), (2_200, 2_200), (0, 0)));
}

async fn a_bank_that_declines_gives_a_declined_purchase_and_another_may_be_asked_for(house: House) {
    house.main_account(&house.ann, "north", "4000000000009995").await;
    let declined = house.buys(&house.ann, 1_999).await;
    let PurchaseState::Declined { reason, .. } = declined.state else { panic!("{declined:?}") };
    assert_eq!((reason, house.charges()), (DeclineReason::InsufficientFunds, [0, 0, 0]));
    let news = house.store.outbox_waiting(100).await.unwrap();
    let told = &news.iter().find(|o| o.topic == "purchase.declined").unwrap().payload["declined"];
    assert_eq!((told["reason"].as_str(), told["advice"].as_str()), (Some("insufficient_funds"), Some("retry")));
    let again = house.agreements.ask_purchase(&house.ann, &declined.request).await.unwrap();
    assert_ne!(again.purchase.id, declined.id);
    assert_eq!(house.stands(&declined).await, declined, "what has ended stays as it is");
}

async fn an_answer_that_never_comes_is_in_doubt_and_the_same_bank_is_asked(house: House) {
    house.main_account(&house.ann, "south", "4000000000000119").await;
    let doubtful = house.buys(&house.ann, 1_999).await;
    assert_eq!((doubtful.state.name(), house.charges()), ("in_doubt", [0, 0, 1]), "the bank has charged; nobody here knows");
    assert_eq!(house.heard_of("purchase.in_doubt").await, 1);
    let again = house.agreements.ask_purchase(&house.ann, &doubtful.request).await.unwrap();
    assert_eq!((again.purchase.id, again.page), (doubtful.id.clone(), None), "nothing else to confirm while it is in doubt");
    house.later(Duration::from_secs(120));
    house.processor.run_once().await.unwrap();
    // Nobody asks for the result: the sweep writes it down and tells.
    house.agreements.sweep().await.unwrap();
    assert_eq!((house.heard_of("purchase.paid").await, house.charges()), (1, [0, 0, 1]));
    assert_eq!(house.stands(&doubtful).await.state.name(), "paid");
    assert_eq!(house.heard_of("purchase.in_doubt").await, 1);
}

async fn of_a_lost_request_nothing_is_charged(house: House) {
    house.main_account(&house.ann, "north", "4000000000000259").await;
    let doubtful = house.buys(&house.ann, 1_999).await;
    assert_eq!(doubtful.state.name(), "in_doubt");
    for _ in 0..40 {
        house.later(Duration::from_secs(3_600));
        house.processor.run_once().await.unwrap();
        house.agreements.sweep().await.unwrap();
        if !house.stands(&doubtful).await.open() {
            break;
        }
    }
    let ended = house.stands(&doubtful).await;
    let PurchaseState::Declined { reason, .. } = ended.state else { panic!("{ended:?}") };
    assert_eq!((reason, house.charges()), (DeclineReason::NeverReceived, [0, 0, 0]));
}

async fn a_process_that_dies_after_the_yes_leaves_the_charge_to_the_next_and_to_the_same_bank(house: House) {
    house.main_account(&house.ann, "south", VISA).await;
    let asked = house.asks(&house.ann, 1_999).await;
    house.says_yes(&asked).await.unwrap();
    // Nothing was sent. The next process knows what to do from the database alone.
    let (processor, agreements) = house.another(&["north", "south"], Policy::compiled_in().unwrap());
    processor.run_once().await.unwrap();
    agreements.sweep().await.unwrap();
    assert_eq!((house.stands(&asked.purchase).await.state.name(), house.charges()), ("paid", [0, 0, 1]));
}

async fn a_bank_that_is_not_known_here_is_never_replaced_by_another(house: House) {
    house.main_account(&house.ann, "south", VISA).await;
    let confirmed = house.asks(&house.ann, 1_000).await;
    let waiting = house.asks(&house.ann, 2_000).await;
    house.says_yes(&confirmed).await.unwrap();
    let (without, agreements) = house.another(&["north"], Policy::compiled_in().unwrap());
    without.run_once().await.unwrap();
    assert_eq!(house.charges(), [0, 0, 0], "what goes to the south waits for who speaks to it");
    let refused = agreements.confirm(&waiting.purchase.id, &house.ann, &yes()).await;
    assert!(matches!(&refused, Err(PurchaseFault::UnknownBank(bank)) if bank.as_str() == "south"), "{refused:?}");
    let request = house.request(&house.ann, &house.shop, usd(100)).await;
    let refused = agreements.ask_purchase(&house.ann, &request.id).await;
    assert!(matches!(refused, Err(PurchaseFault::UnknownBank(_))));
    house.processor.run_once().await.unwrap();
    assert_eq!(house.charges(), [0, 0, 1]);
}

async fn a_closed_account_pays_nothing_and_a_new_one_asks_for_consent_again(house: House) {
    let main = house.main_account(&house.ann, "north", VISA).await;
    let paid = house.buys(&house.ann, 1_000).await;
    let waiting = house.asks(&house.ann, 2_000).await;
    let closed = house.agreements.close_account(&paid.account, house.ann.as_str()).await.unwrap();
    assert!(matches!(&closed.state, AccountState::Closed { consent: Some(_), .. }), "what was agreed to stays on record");
    assert_eq!(house.agreements.close_account(&paid.account, "again").await.unwrap(), closed);
    assert_eq!(house.stands(&waiting.purchase).await.state, PurchaseState::Cancelled);
    let late = house.agreements.confirm(&waiting.purchase.id, &house.ann, &yes()).await;
    assert!(matches!(late, Err(PurchaseFault::Purchase(PurchaseError::Over("cancelled")))));
    assert_eq!((house.accounts(&house.ann).await.len(), house.charges()), (0, [0, 1, 0]));
    // The payee asks again: another account, and another consent.
    let again = house.asks(&house.ann, 2_000).await;
    assert_eq!(again.account.state, AccountState::PendingConsent);
    assert_ne!(again.account.id, paid.account);
    // With the main account go all that are linked to it.
    house.agreements.close_main_account(&main.id, "test").await.unwrap();
    assert_eq!(house.stands(&again.purchase).await.state, PurchaseState::Cancelled);
    assert!(house.accounts(&house.ann).await.is_empty());
    let none = house.agreements.ask_purchase(&house.ann, &again.purchase.request).await;
    assert!(matches!(none, Err(PurchaseFault::Purchase(PurchaseError::NoMainAccount))));
    assert_eq!((house.heard_of("account.closed").await, house.heard_of("purchase.cancelled").await), (2, 2));
}

async fn what_cannot_be_is_refused_by_name_and_changes_nothing(house: House) {
    let (ann, bob) = (&house.ann, &house.bob);
    house.main_account(ann, "north", VISA).await;
    let (bobs, good) = (house.card(bob, MASTERCARD).await, BankName::parse("north").unwrap());
    let hers = house.request(ann, &house.shop, usd(100)).await;
    let his = house.request(bob, &house.shop, usd(100)).await;
    let before = house.everything().await;
    // Main accounts.
    let nobody = CustomerId::fresh(&*house.entropy);
    let east = BankName::parse("east").unwrap();
    let open = async |who, bank, card| house.agreements.open_main_account(who, bank, card, "test").await;
    assert!(matches!(open(&nobody, &good, &bobs).await, Err(AccountFault::NoSuch("customer"))));
    assert!(matches!(open(bob, &east, &bobs).await, Err(AccountFault::UnknownBank(b)) if b == east));
    assert!(matches!(open(&house.stranger, &good, &bobs).await, Err(AccountFault::NoUsableCard)), "another customer's card");
    assert!(matches!(open(bob, &good, &CardId::fresh(&*house.entropy)).await, Err(AccountFault::NoUsableCard)));
    // Purchases.
    let ask = async |who, request: &RequestId| house.agreements.ask_purchase(who, request).await;
    assert!(matches!(ask(&nobody, &hers.id).await, Err(PurchaseFault::NoSuch("customer"))));
    assert!(matches!(ask(ann, &his.id).await, Err(PurchaseFault::NoSuch("payment request"))), "another's request");
    assert!(matches!(ask(&house.stranger, &hers.id).await, Err(PurchaseFault::NoSuch("payment request"))), "another tenant's");
    let unknown = RequestId::fresh(&*house.entropy);
    assert!(matches!(ask(ann, &unknown).await, Err(PurchaseFault::NoSuch("payment request"))));
    assert!(Money::new(0, Currency::Usd).is_err(), "a request of nothing can't even be written");
    assert_eq!(house.everything().await, before);
    // Currency and limits, of an account that there is.
    house.asks(ann, 100).await;
    let eur = house.request(ann, &house.shop, Money::new(100, Currency::Eur).unwrap()).await;
    let dear = house.request(ann, &house.shop, usd(20_001)).await;
    let before = house.everything().await;
    let account = |asked: Result<_, PurchaseFault>| match asked.map(drop) {
        Err(PurchaseFault::Purchase(PurchaseError::Account(why))) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(account(ask(ann, &eur.id).await), AccountError::OtherCurrency(Currency::Usd));
    assert_eq!(account(ask(ann, &dear.id).await), AccountError::OverPurchase(usd(20_000)));
    // A request that is no longer open.
    house.store.cancel_request(&dear.id, &[], &[house.audit_row()], &[]).await.unwrap();
    let cancelled = ask(ann, &dear.id).await;
    assert!(matches!(cancelled, Err(PurchaseFault::Refused(Refusal::Submit(SubmitRefusal::Request(_))))), "{cancelled:?}");
    assert_eq!(house.everything().await, before);
}

async fn purchases_confirmed_at_once_stay_within_the_days_limit(house: House) {
    house.main_account(&house.ann, "north", VISA).await;
    // Each is within the limits alone; three of them are not: 500.00 a day.
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(house.asks(&house.ann, 20_000).await);
    }
    let mut tasks = JoinSet::new();
    for purchase in asked {
        let (agreements, who) = (house.agreements.clone(), house.ann.clone());
        tasks.spawn(async move {
            for _ in 0..20 {
                match agreements.confirm(&purchase.purchase.id, &who, &yes()).await {
                    Err(PurchaseFault::Store(_)) => {}
                    done => return done,
                }
            }
            panic!("the database stays busy");
        });
    }
    let done = tasks.join_all().await;
    let refused: Vec<_> = done.iter().filter_map(|d| d.as_ref().err()).collect();
    assert_eq!((done.len(), refused.len()), (4, 2), "{refused:?}");
    assert!(refused.iter().all(|e| matches!(e, PurchaseFault::Refused(Refusal::Denied(why)) if why.contains("500.00"))));
    house.processor.run_once().await.unwrap();
    assert_eq!(house.charges(), [0, 2, 0]);
    let other = PayeeId::fresh(&*house.entropy);
    house.open_shop(&other).await;
    let request = house.request(&house.ann, &other, usd(20_000)).await;
    house.agreements.ask_purchase(&house.ann, &request.id).await.unwrap(); // another payee has limits of its own
}

async fn an_export_holds_accounts_consents_purchases_and_banks_of_nobody_else(house: House) {
    let main = house.main_account(&house.ann, "north", VISA).await;
    let paid = house.buys(&house.ann, 1_999).await;
    let account = house.accounts(&house.ann).await.pop().unwrap();
    house.agreements.close_account(&account.id, "test").await.unwrap();
    house.later(Duration::from_secs(1));
    let refused = house.asks(&house.ann, 500).await;
    house.agreements.confirm(&refused.purchase.id, &house.ann, &Confirmation { yes: false, ..yes() }).await.unwrap();
    let page = refused.page.unwrap();
    // Somebody else at the same shop.
    let others = house.main_account(&house.bob, "south", MASTERCARD).await;
    let bought = house.buys(&house.bob, 777).await;

    let ann = house.store.customer(&house.ann).await.unwrap().unwrap();
    let mut made = export::page(&*house.store, &RetentionConfig::default(), &ann, None, 1_000, house.clock.now()).await.unwrap();
    let person = made.person.take().unwrap();
    let papers = made.list(Part::Papers);
    let of = |kind: &str| papers.iter().filter(|p| p["kind"] == kind).collect::<Vec<_>>();
    let [theirs] = of("main_account")[..] else { panic!("{papers:?}") };
    assert_eq!((&theirs["what"], &theirs["id"], &theirs["holds"]), (&json!("main account"), &json!(main.id), &json!(true)));
    assert_eq!((&theirs["body"]["bank"], &theirs["body"]["card"]), (&json!("north"), &json!(main.card)));
    let [closed, linked] = of("account")[..] else { panic!("{papers:?}") };
    assert_eq!((&closed["what"], &closed["holds"]), (&json!("purchase-permission account"), &json!(false)));
    let body = &closed["body"];
    assert_eq!((&body["payee_name"], &body["state"], &body["used"]), (&json!("Shop"), &json!("closed"), &json!(1)));
    assert_eq!(body["purchase_limit"], json!(account.limits.purchase()));
    assert_eq!(body["day_limit"], json!(account.limits.day()));
    assert_eq!((&body["consent"]["wording"], &body["consent"]["how"]["how"]), (&json!(WORDING.version), &json!("link")));
    assert_eq!((&body["consent"]["wording_sha256"], &body["closed_at"]), (&json!(WORDING.digest()), &json!(START.to_string())));
    assert_eq!((&linked["body"]["state"], &linked["body"]["consent"]), (&json!("pending_consent"), &Value::Null));
    let [first, second] = of("purchase")[..] else { panic!("{papers:?}") };
    let PurchaseState::Paid { intent, receipt } = &paid.state else { panic!("{paid:?}") };
    assert_eq!((&first["body"]["state"], &first["body"]["amount"]), (&json!("paid"), &json!(usd(1_999))));
    assert_eq!((&first["body"]["payment"], &first["body"]["receipt"]), (&json!(intent), &json!(receipt)));
    assert_eq!((&second["body"]["state"], &second["body"]["payee_name"]), (&json!("refused"), &json!("Shop")));
    assert_eq!(made.list(Part::Payments)[0]["attempts"][0]["at"], "north", "which bank was asked");
    let [given] = &person["consents"].as_array().unwrap()[..] else { panic!("{person}") };
    assert_eq!((&given["purpose"], &given["about"], &given["how"]), (&json!("account"), &json!(account.id), &json!("link")));
    assert_eq!(given["withdrawn"]["how"], "operator");

    let whole = format!("{person}{papers:?}{:?}", made.items);
    let his = [house.bob.to_string(), others.id.to_string(), others.card.to_string(), bought.id.to_string(), "south".to_owned()];
    for not_hers in his.iter().map(String::as_str).chain([page.as_str(), VISA, MASTERCARD]) {
        assert!(!whole.contains(not_hers), "{not_hers}");
    }
}
