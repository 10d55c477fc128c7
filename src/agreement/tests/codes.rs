//! System 2: a first payment leaves a mandate; later ones need a one-time code and name no card.

use super::*;
use crate::payment::{Mandate, Occasion};
use crate::store::{SubmitRefusal, papers};

const MINUTE: Duration = Duration::from_secs(60);

impl House {
    /// Ann has paid the water works once, and agreed to be charged again up to 50.00.
    async fn mandate(&self, card: &CardId) -> Mandate {
        let first = self.first_payment(1999, card).await;
        let consent = Occasion::Call(CallId::fresh(&*self.entropy));
        self.agreements.grant_mandate(&first, usd(5_000), consent, "1").await.unwrap().unwrap()
    }

    /// Sends a code for a request; gives its digit values.
    async fn code(&self, request: &PaymentRequest) -> Vec<u8> {
        match self.agreements.send_code(request).await.unwrap() {
            CodeOutcome::Sent(sent) => sent.digits.expose().to_vec(),
            CodeOutcome::TooMany => panic!("too many codes"),
        }
    }

    async fn pays(&self, request: &PaymentRequest, digits: &[u8]) -> (Agreed, CodeTold) {
        self.agreements.pay_by_mandate(request, digits).await.unwrap()
    }
}

/// Other digits, whatever they were.
fn wrong(digits: &[u8]) -> Vec<u8> {
    digits.iter().map(|d| (d + 1) % 10).collect()
}

const NO_CODE: Refusal = Refusal::NotMet(Condition::Code);
const NO_MANDATE: Refusal = Refusal::Submit(SubmitRefusal::NoUsableCard);

#[tokio::test]
async fn a_repeat_omits_card_fields_and_is_charged_to_the_mandates_card() {
    let house = House::build().await;
    let card = house.card(VISA).await;
    house.card(OTHER_CARD).await;
    let mandate = house.mandate(&card).await;
    let request = house.asked_by(&house.water, 5_000).await;
    let digits = house.code(&request).await;
    let (agreed, told) = house.pays(&request, &digits).await;
    let intent = charged(agreed);
    assert_eq!(told, CodeTold::Good);
    house.settle().await;
    let payment = house.store.payment(&intent).await.unwrap().unwrap();
    assert_eq!((payment.intent.card, payment.intent.amount), (card, usd(5_000)));
    assert_eq!(payment.receipt.unwrap().evidence.mandate, Some(mandate.id.to_string()));
    assert_eq!(house.charges_at_bank(), 2);
}

#[tokio::test]
async fn a_wrong_code_is_refused_and_five_of_them_end_it() {
    let house = House::build().await;
    let card = house.card(VISA).await;
    house.mandate(&card).await;
    let request = house.asked_by(&house.water, 100).await;
    let digits = house.code(&request).await;
    for left in (0..5).rev() {
        let (agreed, told) = house.pays(&request, &wrong(&digits)).await;
        assert_eq!((refused(agreed), told), (NO_CODE, CodeTold::Wrong(left)));
    }
    let (agreed, told) = house.pays(&request, &digits).await;
    assert_eq!((refused(agreed), told), (NO_CODE, CodeTold::Dead), "the right one comes too late");
    assert_eq!(house.payments().await, 1);
}

#[tokio::test]
async fn tries_that_come_at_once_are_all_counted() {
    let house = Arc::new(House::build().await);
    let card = house.card(VISA).await;
    house.mandate(&card).await;
    let request = house.asked_by(&house.water, 100).await;
    let digits = house.code(&request).await;
    let tries: Vec<_> = (0..8)
        .map(|_| {
            let (house, request, wrong) = (house.clone(), request.clone(), wrong(&digits));
            tokio::spawn(async move { house.agreements.check_code(&request, &wrong).await.unwrap() })
        })
        .collect();
    let mut told = Vec::new();
    for tried in tries {
        told.push(tried.await.unwrap());
    }
    let mut left: Vec<u32> = told.iter().filter_map(|t| if let CodeTold::Wrong(left) = t { Some(*left) } else { None }).collect();
    left.sort_unstable();
    assert_eq!(left, [0, 1, 2, 3, 4], "each try has a number of its own");
    assert_eq!(told.iter().filter(|t| **t == CodeTold::Dead).count(), 3);
    assert_eq!(house.agreements.check_code(&request, &digits).await.unwrap(), CodeTold::Dead);
}

#[tokio::test]
async fn an_expired_code_is_refused() {
    let house = House::build().await;
    let card = house.card(VISA).await;
    house.mandate(&card).await;
    let request = house.asked_by(&house.water, 100).await;
    let digits = house.code(&request).await;
    house.clock.advance(5 * MINUTE);
    let (agreed, told) = house.pays(&request, &digits).await;
    assert_eq!((refused(agreed), told), (NO_CODE, CodeTold::Dead));
    let again = house.code(&request).await;
    house.clock.advance(5 * MINUTE - Duration::from_millis(1));
    charged(house.pays(&request, &again).await.0);
}

#[tokio::test]
async fn a_used_code_and_another_payments_code_are_refused() {
    let house = House::build().await;
    let card = house.card(VISA).await;
    house.mandate(&card).await;
    let (one, two) = (house.asked_by(&house.water, 100).await, house.asked_by(&house.water, 100).await);
    let (first, second) = (house.code(&one).await, house.code(&two).await);
    // 1 in 1,000,000 would make the other payment's code right: the seed of the tests' entropy decides, once.
    assert_ne!(first, second);
    let (agreed, told) = house.pays(&two, &first).await;
    assert_eq!((refused(agreed), told), (NO_CODE, CodeTold::Wrong(4)));
    charged(house.pays(&one, &first).await.0);
    let (agreed, told) = house.pays(&one, &first).await;
    assert_eq!(told, CodeTold::Dead);
    refused(agreed);
    let (agreed, told) = house.pays(&two, &first).await;
    assert_eq!((refused(agreed), told), (NO_CODE, CodeTold::Wrong(3)));
    house.settle().await;
    assert_eq!(house.charges_at_bank(), 2);
}

#[tokio::test]
async fn sending_again_voids_the_old_code_and_is_bounded() {
    let house = House::build().await;
    let card = house.card(VISA).await;
    house.mandate(&card).await;
    let request = house.asked_by(&house.water, 100).await;
    let old = house.code(&request).await;
    let new = house.code(&request).await;
    assert_ne!(old, new);
    assert_eq!(house.agreements.check_code(&request, &old).await.unwrap(), CodeTold::Wrong(4));
    for _ in 0..3 {
        house.code(&request).await;
    }
    assert!(matches!(house.agreements.send_code(&request).await.unwrap(), CodeOutcome::TooMany));
    house.clock.advance(60 * MINUTE + Duration::from_millis(1));
    charged(house.pays(&request, &house.code(&request).await).await.0);
}

#[tokio::test]
async fn another_payee_or_card_has_to_go_the_whole_way() {
    let house = House::build().await;
    let card = house.card(VISA).await;
    house.mandate(&card).await;
    for request in [
        house.asked_by(&house.power, 100).await,   // another payee
        house.asked_by(&house.water, 5_001).await, // more than was agreed to
    ] {
        let digits = house.code(&request).await;
        assert_eq!(refused(house.pays(&request, &digits).await.0), NO_MANDATE);
    }
    // The card was replaced: the mandate names one that can't be charged any more.
    house.store.set_card_status(&card, CardStatus::Revoked, &house.audit()).await.unwrap();
    house.card(OTHER_CARD).await;
    let request = house.asked_by(&house.water, 100).await;
    let digits = house.code(&request).await;
    assert_eq!(refused(house.pays(&request, &digits).await.0), NO_MANDATE);
    assert_eq!(house.payments().await, 1);
}

#[tokio::test]
async fn a_revoked_mandate_stands_for_no_card() {
    let house = House::build().await;
    let card = house.card(VISA).await;
    let mandate = house.mandate(&card).await;
    house.agreements.revoke_mandate(&mandate.id, "test").await.unwrap();
    house.agreements.revoke_mandate(&mandate.id, "test").await.unwrap();
    let request = house.asked_by(&house.water, 100).await;
    let digits = house.code(&request).await;
    assert_eq!(refused(house.pays(&request, &digits).await.0), NO_MANDATE);
    let revoked = house.heard().await.iter().filter(|t| *t == "mandate.revoked").count();
    assert_eq!(revoked, 1);
}

#[tokio::test]
async fn submissions_that_come_at_once_make_one_payment() {
    let house = Arc::new(House::build().await);
    let card = house.card(VISA).await;
    house.mandate(&card).await;
    let request = house.asked_by(&house.water, 100).await;
    let digits = house.code(&request).await;
    let submissions: Vec<_> = (0..8)
        .map(|_| {
            let (house, request, digits) = (house.clone(), request.clone(), digits.clone());
            tokio::spawn(async move { house.pays(&request, &digits).await.0 })
        })
        .collect();
    let mut charged = 0;
    for submission in submissions {
        charged += usize::from(matches!(submission.await.unwrap(), Agreed::Charged(_)));
    }
    assert_eq!(charged, 1);
    house.settle().await;
    assert_eq!((house.payments().await, house.charges_at_bank()), (2, 2), "the first payment, and this one");
}

#[tokio::test]
async fn only_a_payment_that_was_made_leaves_a_mandate_and_only_one() {
    let house = House::build().await;
    let card = house.card(VISA).await;
    let request = house.asked_by(&house.water, 1999).await;
    let intent = charged(house.says_yes(&house.order(&request, &card)).await);
    let consent = Occasion::Call(CallId::fresh(&*house.entropy));
    let grant = async || house.agreements.grant_mandate(&intent, usd(5_000), consent.clone(), "1").await.unwrap();
    assert_eq!(house.agreements.mandate_offer(&intent).await.unwrap(), None, "nothing is paid yet");
    assert!(grant().await.is_none());
    house.settle().await;
    assert_eq!(house.agreements.mandate_offer(&intent).await.unwrap().unwrap().cap, usd(1999));
    assert!(grant().await.is_some());
    assert!(grant().await.is_none());
    let held: Vec<Mandate> = papers::of(&*house.store, &house.ann).await.unwrap();
    assert_eq!(held.len(), 1);
}

#[tokio::test]
async fn a_code_leaves_sealed_is_wiped_when_it_ran_out_and_stands_nowhere_in_the_open() {
    let house = House::build().await;
    let request = house.asked_by(&house.water, 100).await;
    let digits = house.code(&request).await;
    let text: String = digits.iter().map(ToString::to_string).collect();
    let now = house.clock.now();
    let later = now.plus(MINUTE);
    let waiting = house.store.claim_code_deliveries(now, later, 10).await.unwrap();
    let [delivery] = waiting.as_slice() else { panic!("{waiting:?}") };
    let key = crate::store::customer_key(&*house.store, &house.vault, &house.ann).await.unwrap();
    assert_eq!(*key.unseal_code(&delivery.code, &delivery.sealed).unwrap(), digits);
    assert!(house.store.claim_code_deliveries(now, later, 10).await.unwrap().is_empty(), "claimed");
    for row in house.store.audit_trail(100).await.unwrap() {
        assert!(!row.detail.to_string().contains(&text), "{row:?}");
    }
    for row in house.store.outbox_waiting(100).await.unwrap() {
        assert!(!row.payload.to_string().contains(&text), "{row:?}");
    }
    house.clock.advance(6 * MINUTE);
    assert_eq!(house.agreements.sweep().await.unwrap().wiped, 1);
    assert!(house.store.claim_code_deliveries(house.clock.now(), later, 10).await.unwrap().is_empty());
    house.store.close().await;
    for file in ["v.db", "v.db-wal"] {
        let bytes = std::fs::read(house.dir.path().join(file)).unwrap_or_default();
        assert!(!bytes.windows(delivery.sealed.len()).any(|w| w == delivery.sealed), "{file} holds what was wiped");
    }
}
