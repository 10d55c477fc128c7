//! A wire that can't be asked, and takes back what is in doubt: when it may be, and what it is told.

use async_trait::async_trait;

use super::*;
use crate::gateway::GatewayRequest;
use crate::payment::{AttemptState, BankWord, Operation};

/// Says what it is told to, one word after another, and remembers what it was asked.
#[derive(Debug, Default)]
pub(super) struct Wire {
    words: Mutex<Vec<BankWord>>,
    /// Operation, whether it was to be taken back, the card's last digits.
    asked: Mutex<Vec<(Operation, bool, String)>>,
}

impl Wire {
    fn say(&self, request: &GatewayRequest, taken_back: bool) -> BankWord {
        let last4 = request.card.as_ref().map(|c| c.pan.last4()).unwrap_or_default();
        self.asked.lock().unwrap().push((request.operation, taken_back, last4));
        self.words.lock().unwrap().pop().unwrap_or(BankWord::Silence)
    }

    pub(super) fn asked(&self) -> Vec<(Operation, bool, String)> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Gateway for Wire {
    fn name(&self) -> &'static str {
        "wire"
    }

    async fn send(&self, request: &GatewayRequest) -> BankWord {
        self.say(request, false)
    }

    async fn resolve(&self, request: &GatewayRequest) -> BankWord {
        self.say(request, true)
    }

    fn resolve_only_asks(&self) -> bool {
        false
    }

    fn always_names_card(&self) -> bool {
        true
    }
}

/// A house whose acquirer says these words, and that acquirer.
pub(super) async fn house(words: &[BankWord]) -> (House, Arc<Wire>) {
    let house = House::build().await;
    let wire = Arc::new(Wire { words: Mutex::new(words.iter().rev().cloned().collect()), ..Wire::default() });
    let cfg = ProcessorConfig { gateway_timeout_ms: 200, ..ProcessorConfig::default() };
    let (clock, entropy) = (house.clock.clone(), house.entropy.clone());
    let processor = Processor::new(house.store.clone(), wire.clone(), house.vault.clone(), clock, entropy, cfg);
    (House { processor, ..house }, wire)
}

fn approved(minor: i64) -> BankWord {
    BankWord::Approved { charged: Money::new(minor, Currency::Usd).unwrap(), gateway_reference: "g".into() }
}

#[tokio::test]
async fn a_conflict_waits_for_a_person_and_is_not_taken_back() {
    let (house, wire) = house(&[approved(2000), BankWord::Reversed]).await;
    let intent = house.charge("4111111111111111").await;
    for _ in 0..5 {
        house.clock.advance(Duration::from_secs(24 * 3600));
        house.processor.run_once().await.unwrap();
    }
    let payment = house.store.payment(&intent).await.unwrap().unwrap();
    assert!(matches!(payment.attempts[0].state, AttemptState::Conflicted { .. }), "{:?}", payment.attempts[0].state);
    assert_eq!(wire.asked(), [(Operation::Charge, false, "1111".to_owned())]);
}

#[tokio::test]
async fn what_is_taken_back_names_the_card_though_it_was_blocked_meanwhile() {
    let (house, wire) = house(&[BankWord::Silence, BankWord::Reversed]).await;
    let intent = house.charge("4111111111111111").await;
    let card = house.store.payment(&intent).await.unwrap().unwrap().intent.card;
    house.store.set_card_status(&card, CardStatus::Blocked, &audit(&*house.entropy)).await.unwrap();
    house.later().await;
    assert_eq!(house.outcome(&intent).await, Outcome::Reversed);
    assert_eq!(wire.asked(), [(Operation::Charge, false, "1111".to_owned()), (Operation::Charge, true, "1111".to_owned())]);
}

#[tokio::test]
async fn a_blocked_card_is_not_charged_because_its_number_could_be_read() {
    let (house, wire) = house(&[approved(1999)]).await;
    let (request, card) = (house.request(1999).await, house.card("4111111111111111", None).await);
    let intent = house.processor.submit(house.order(&request, &card, 1999)).await.unwrap();
    house.store.set_card_status(&card, CardStatus::Blocked, &audit(&*house.entropy)).await.unwrap();
    house.processor.run_once().await.unwrap();
    assert_eq!(house.outcome(&intent).await, Outcome::Declined(DeclineReason::NotSent));
    assert!(wire.asked().is_empty());
}

#[tokio::test]
async fn a_refund_names_the_card_as_long_as_it_is_there() {
    let (house, wire) = house(&[approved(1999), approved(500)]).await;
    let intent = house.charge("4111111111111111").await;
    let order = OperationOrder {
        key: "a".into(),
        intent,
        operation: Operation::Refund,
        amount: Some(Money::new(500, Currency::Usd).unwrap()),
        by: "test".into(),
        why: "because".into(),
    };
    let id = house.processor.operate(order).await.unwrap();
    house.processor.run_once().await.unwrap();
    assert!(house.processor.operation(&id, Duration::ZERO).await.unwrap().state.done());
    assert_eq!(wire.asked()[1], (Operation::Refund, false, "1111".to_owned()));
}
