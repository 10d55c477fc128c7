//! System 7's confirmation: missing, late, another user's, forged, without consent, twice, a no, and what rules ask for besides.

use std::time::Duration;

use tokio::task::JoinSet;
use voicepay::agreement::{CodeOutcome, CodeTold, Confirmation, LinkError, PurchaseFault, Refusal};
use voicepay::payment::account::WORDING;
use voicepay::payment::policy::Policy;
use voicepay::payment::{AccountError, Condition, ConfirmedBy, PurchaseError, PurchaseState};
use voicepay::secret::SecretBytes;

use super::purchase_house::{House, MASTERCARD, VISA, on_both, usd, yes};

on_both!(
    nobody_confirms_and_nothing_is_charged,
    a_late_confirmation_is_refused_though_nobody_wrote_that_down,
    another_users_confirmation_is_refused_and_leaves_it_to_its_own,
    a_page_opens_by_its_own_link_alone,
    without_consent_to_the_wording_in_force_nothing_is_charged,
    confirmed_many_times_at_once_it_is_charged_once,
    a_no_is_a_no,
    a_request_that_was_withdrawn_or_paid_meanwhile_is_not_charged,
    what_rules_ask_for_is_asked_on_the_page_too,
);

const QUARTER: Duration = Duration::from_secs(15 * 60);

fn rule(said: Result<voicepay::payment::Purchase, PurchaseFault>) -> PurchaseError {
    match said {
        Err(PurchaseFault::Purchase(why)) => why,
        other => panic!("{other:?}"),
    }
}

async fn nobody_confirms_and_nothing_is_charged(house: House) {
    house.main_account(&house.ann, "north", VISA).await;
    let asked = house.asks(&house.ann, 1_999).await;
    house.later(QUARTER - Duration::from_millis(1));
    house.agreements.sweep().await.unwrap();
    assert_eq!(house.stands(&asked.purchase).await.state, PurchaseState::Awaiting);
    house.later(Duration::from_millis(1));
    house.agreements.sweep().await.unwrap();
    house.processor.run_once().await.unwrap();
    assert_eq!(house.stands(&asked.purchase).await.state, PurchaseState::Expired);
    assert_eq!((house.payments().await, house.charges(), house.heard_of("purchase.expired").await), (0, [0, 0, 0], 1));
    // The payee may ask again; the account that was linked waits for its consent still.
    let again = house.agreements.ask_purchase(&house.ann, &asked.purchase.request).await.unwrap();
    assert_ne!(again.purchase.id, asked.purchase.id);
    assert_eq!((again.account.id, house.accounts(&house.ann).await.len()), (asked.account.id, 1));
}

async fn a_late_confirmation_is_refused_though_nobody_wrote_that_down(house: House) {
    house.main_account(&house.ann, "north", VISA).await;
    let asked = house.asks(&house.ann, 1_999).await;
    house.later(QUARTER);
    let before = house.everything().await;
    assert_eq!(house.agreements.open_page_link(asked.page.as_ref().unwrap()), Err(LinkError::Expired));
    assert_eq!(rule(house.agreements.confirm(&asked.purchase.id, &house.ann, &yes()).await), PurchaseError::Late);
    assert_eq!(house.everything().await, before);
    let why = house.trail("purchase.not_confirmed").await;
    assert_eq!((why.len(), why[0].detail["why"].as_str()), (1, Some("the time to confirm is over")));
    assert_eq!(house.heard_of("purchase.not_confirmed").await, 1);
    // Asked for again without a sweep in between: the old one ends, a new one begins.
    let again = house.agreements.ask_purchase(&house.ann, &asked.purchase.request).await.unwrap();
    assert_eq!(house.stands(&asked.purchase).await.state, PurchaseState::Expired);
    house.says_yes(&again).await.unwrap();
    house.processor.run_once().await.unwrap();
    assert_eq!((house.stands(&again.purchase).await.state.name(), house.charges()), ("paid", [0, 1, 0]));
}

async fn another_users_confirmation_is_refused_and_leaves_it_to_its_own(house: House) {
    house.main_account(&house.ann, "north", VISA).await;
    house.main_account(&house.bob, "south", MASTERCARD).await;
    let asked = house.asks(&house.ann, 1_999).await;
    let before = house.everything().await;
    for other in [&house.bob, &house.stranger] {
        for yes_or_no in [true, false] {
            let said = Confirmation { yes: yes_or_no, ..yes() };
            assert_eq!(rule(house.agreements.confirm(&asked.purchase.id, other, &said).await), PurchaseError::NotYours);
        }
    }
    assert_eq!(house.everything().await, before);
    assert!(house.trail("account.consented").await.is_empty());
    house.says_yes(&asked).await.unwrap();
    // Nor does anybody else hear of it as if it were theirs.
    assert_eq!(rule(house.agreements.confirm(&asked.purchase.id, &house.bob, &yes()).await), PurchaseError::NotYours);
    house.processor.run_once().await.unwrap();
    assert_eq!(house.charges(), [0, 1, 0]);
}

async fn a_page_opens_by_its_own_link_alone(house: House) {
    house.main_account(&house.ann, "north", VISA).await;
    house.main_account(&house.bob, "south", MASTERCARD).await;
    let (hers, his) = (house.asks(&house.ann, 100).await, house.asks(&house.bob, 100).await);
    let open = |token: &str| house.agreements.open_page_link(token);
    let (her_page, his_page) = (hers.page.unwrap(), his.page.unwrap());
    assert_eq!(open(&her_page), Ok((hers.purchase.id.clone(), house.ann.clone())));
    assert_eq!(open(&his_page), Ok((his.purchase.id, house.bob.clone())));
    for place in 0..her_page.len() {
        let mut letters: Vec<char> = her_page.chars().collect();
        letters[place] = if letters[place] == 'A' { 'B' } else { 'A' };
        let altered: String = letters.into_iter().collect();
        // The last letter of base64 may hold bits that say nothing; then it is the same link.
        let opened = open(&altered);
        assert!(opened == Err(LinkError::Forged) || opened == open(&her_page), "altered at {place}: {opened:?}");
    }
    let cut = her_page.len() / 2;
    assert_eq!(open(&format!("{}{}", &her_page[..cut], &his_page[cut..])), Err(LinkError::Forged));
    for no_link in ["", "A", &"A".repeat(300)] {
        assert_eq!(open(no_link), Err(LinkError::Forged));
    }
    // It is no link of an approval, and the other way round nothing opens either.
    assert_eq!(house.agreements.open_link(&her_page).map(drop), Err(LinkError::Forged));
}

async fn without_consent_to_the_wording_in_force_nothing_is_charged(house: House) {
    house.main_account(&house.ann, "north", VISA).await;
    let asked = house.asks(&house.ann, 1_999).await;
    let before = house.everything().await;
    let said = |consent: Option<&str>| Confirmation { consent: consent.map(str::to_owned), ..yes() };
    let confirm = async |consent| rule(house.agreements.confirm(&asked.purchase.id, &house.ann, &said(consent)).await);
    assert_eq!(confirm(None).await, AccountError::NoConsent.into());
    assert_eq!(confirm(Some("purchase-2020-01-01")).await, AccountError::OtherWording.into());
    assert_eq!(confirm(Some("")).await, AccountError::OtherWording.into());
    assert_eq!(house.everything().await, before);
    let by_key = Confirmation { how: ConfirmedBy::Api { key: "key_1".into() }, ..said(Some(WORDING.version)) };
    house.agreements.confirm(&asked.purchase.id, &house.ann, &by_key).await.unwrap();
    let account = house.accounts(&house.ann).await.pop().unwrap();
    assert_eq!(account.consent().unwrap().how, ConfirmedBy::Api { key: "key_1".into() });
}

async fn confirmed_many_times_at_once_it_is_charged_once(house: House) {
    house.main_account(&house.ann, "north", VISA).await;
    let asked = house.asks(&house.ann, 1_999).await;
    let (processor, second) = house.another(&["north", "south"], Policy::compiled_in().unwrap());
    let mut tasks = JoinSet::new();
    for n in 0..12 {
        let agreements = if n % 2 == 0 { house.agreements.clone() } else { second.clone() };
        let (id, who) = (asked.purchase.id.clone(), house.ann.clone());
        tasks.spawn(async move {
            for _ in 0..20 {
                match agreements.confirm(&id, &who, &yes()).await {
                    Err(PurchaseFault::Store(_)) => {}
                    done => return done.unwrap().state.intent().cloned(),
                }
            }
            panic!("the database stays busy");
        });
    }
    let mut intents = tasks.join_all().await;
    intents.dedup();
    assert_eq!(intents.len(), 1, "all hear of the same payment");
    let (a, b) = tokio::join!(house.processor.run_once(), processor.run_once());
    a.and(b).unwrap();
    assert_eq!((house.payments().await, house.charges(), house.accounts(&house.ann).await[0].used), (1, [0, 1, 0], 1));
    // And long after, when it is paid.
    house.stands(&asked.purchase).await;
    let again = house.agreements.confirm(&asked.purchase.id, &house.ann, &yes()).await.unwrap();
    assert_eq!((again.state.name(), house.payments().await), ("paid", 1));
}

async fn a_no_is_a_no(house: House) {
    house.main_account(&house.ann, "north", VISA).await;
    let asked = house.asks(&house.ann, 1_999).await;
    let no = Confirmation { yes: false, ..yes() };
    let refused = house.agreements.confirm(&asked.purchase.id, &house.ann, &no).await.unwrap();
    assert_eq!(refused.state, PurchaseState::Refused);
    let after = rule(house.agreements.confirm(&asked.purchase.id, &house.ann, &yes()).await);
    assert_eq!(after, PurchaseError::Over("refused"));
    house.processor.run_once().await.unwrap();
    assert_eq!((house.payments().await, house.heard_of("purchase.refused").await), (0, 1));
    assert!(house.accounts(&house.ann).await[0].consent().is_none(), "a no is no consent");
}

async fn a_request_that_was_withdrawn_or_paid_meanwhile_is_not_charged(house: House) {
    house.main_account(&house.ann, "north", VISA).await;
    let asked = house.asks(&house.ann, 1_999).await;
    house.store.cancel_request(&asked.purchase.request, &[], &[house.audit_row()], &[]).await.unwrap();
    let before = house.everything().await;
    let refused = house.agreements.confirm(&asked.purchase.id, &house.ann, &yes()).await;
    assert!(matches!(refused, Err(PurchaseFault::Refused(Refusal::Submit(_)))), "{refused:?}");
    assert_eq!(house.everything().await, before);
}

async fn what_rules_ask_for_is_asked_on_the_page_too(house: House) {
    house.main_account(&house.ann, "north", VISA).await;
    let rules = "version = \"t\"\nrefused_currencies = [\"GBP\", \"JPY\", \"EUR\"]\n[tiers]\nUSD = { small = \"20.00\", normal = \"500.00\" }\n\
                 [[rule]]\nname = \"code\"\nwhen = { tier = [\"normal\"] }\nask = [\"code\"]\n\
                 [[rule]]\nname = \"voice\"\nwhen = { tier = [\"large\"] }\ndeny = true\n";
    let (_, agreements) = house.another(&["north", "south"], Policy::from_toml(rules).unwrap());
    let request = house.request(&house.ann, &house.shop, usd(5_000)).await;
    let asked = agreements.ask_purchase(&house.ann, &request.id).await.unwrap();
    assert!(agreements.confirmation_page(&asked.purchase.id).await.unwrap().wants_code);
    let without = agreements.confirm(&asked.purchase.id, &house.ann, &yes()).await;
    assert!(matches!(without, Err(PurchaseFault::Refused(Refusal::NotMet(Condition::Code)))), "{without:?}");
    let CodeOutcome::Sent(sent) = agreements.send_code(&request).await.unwrap() else { panic!("no code") };
    let right = sent.digits.expose().to_vec();
    let wrong: Vec<u8> = right.iter().map(|d| (d + 1) % 10).collect();
    let with = |digits: Vec<u8>| Confirmation { code: Some(SecretBytes::new(digits)), ..yes() };
    let refused = agreements.confirm(&asked.purchase.id, &house.ann, &with(wrong)).await;
    assert!(matches!(refused, Err(PurchaseFault::Code(CodeTold::Wrong(4)))), "{refused:?}");
    assert_eq!((house.payments().await, house.charges()), (0, [0, 0, 0]));
    agreements.confirm(&asked.purchase.id, &house.ann, &with(right)).await.unwrap();
    house.processor.run_once().await.unwrap();
    assert_eq!(house.charges(), [0, 1, 0]);
    // What a rule denies nobody is asked to confirm: with this the payee would get more than 500.00 in a day.
    house.later(Duration::from_secs(1));
    let (_, strict) = house.another(&["north", "south"], Policy::from_toml(&rules.replace("500.00", "60.00")).unwrap());
    let request = house.request(&house.ann, &house.shop, usd(2_000)).await;
    let denied = strict.ask_purchase(&house.ann, &request.id).await;
    assert!(matches!(denied, Err(PurchaseFault::Refused(Refusal::Denied(rule))) if rule == "voice"));
}
