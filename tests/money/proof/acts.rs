//! What people, callers and the acquirer do to a node: say yes, perhaps twice; ask for captures, voids and refunds; decide conflicts; contest; tell
//! news. Refusals are fine here: [`super::check`] judges what has come of it.

use std::sync::Arc;

use super::bank::{Bank, Say};
use super::dice::Dice;
use super::house::Plan;
use voicepay::ids::AttemptId;
use voicepay::money::Money;
use voicepay::payment::{AttemptState, Operation};
use voicepay::processor::{OperationOrder, Processor};
use voicepay::store::{Payment, Store};

/// How many payments are looked at to find one to do something to.
const LOOK_AT: u32 = 50;

/// One thing that happens at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A caller says yes.
    Submit,
    /// The worker looks once.
    Work,
    /// Somebody asks for a capture, a void or a refund.
    Operate,
    /// A person finds out what the bank did where its words did not fit, has it put right there, and decides here.
    Resolve,
    /// The bank tells something without being asked.
    Hear,
    /// A cardholder contests.
    Contest,
    /// A dispute is decided.
    Decide,
}

impl Act {
    pub fn thrown(dice: &mut Dice) -> Self {
        match dice.below(100) {
            0..24 => Self::Submit,
            24..60 => Self::Work,
            60..78 => Self::Operate,
            78..84 => Self::Resolve,
            84..92 => Self::Hear,
            92..97 => Self::Contest,
            _ => Self::Decide,
        }
    }
}

/// The bank as people and its own news reach it.
pub trait BankSide: Send + Sync {
    fn news(&self, dice: &mut Dice) -> Option<(String, Say)>;
    /// What differs from what was asked is put right (`done`) or taken back; whether it still differed. In one step: of two people who ask the
    /// bank for the one and the other, one is told that it is settled already.
    fn settle(&self, reference: &str, done: bool) -> bool;
}

impl BankSide for Bank {
    fn news(&self, dice: &mut Dice) -> Option<(String, Say)> {
        Self::news(self, dice)
    }
    fn settle(&self, reference: &str, done: bool) -> bool {
        Self::settle(self, reference, done)
    }
}

/// Where it is written down what was taken over: what was asked, in words that are the same when it is asked again, and what came of it.
pub trait Ledge: Send + Sync {
    fn taken(&self, asked: &str, id: &str);
}

/// A node and what is around it.
pub struct Node {
    pub store: Arc<dyn Store>,
    pub processor: Processor,
    pub plan: Plan,
    pub bank: Arc<dyn BankSide>,
    pub promises: Arc<dyn Ledge>,
}

impl Node {
    pub async fn act(&self, act: Act, dice: &mut Dice) {
        match act {
            Act::Submit => {
                let order = self.plan.order(dice);
                let asked = format!("{}/{}", order.occasion, order.request);
                if let Ok(intent) = self.processor.submit(order).await {
                    self.promises.taken(&asked, intent.as_str());
                }
            }
            // A database that is busy or gone is met again later.
            Act::Work => drop(self.processor.run_once().await),
            Act::Operate => self.operate(dice).await,
            Act::Resolve => self.resolve(dice).await,
            Act::Hear => self.hear(dice).await,
            Act::Contest => self.contest(dice).await,
            Act::Decide => self.decide(dice).await,
        }
    }

    async fn some_payment(&self, dice: &mut Dice) -> Option<Payment> {
        let mut all = self.store.payments(LOOK_AT).await.unwrap_or_default();
        all.sort_by(|a, b| a.intent.id.cmp(&b.intent.id));
        dice.one_of(&all).cloned()
    }

    async fn operate(&self, dice: &mut Dice) {
        let Some(payment) = self.some_payment(dice).await else { return };
        let operation = *dice.one_of(&[Operation::Capture, Operation::Capture, Operation::Void, Operation::Refund]).unwrap();
        let operation = if payment.balance().captured > 0 { Operation::Refund } else { operation };
        let whole = payment.intent.amount;
        let part = |of: i64| Money::new((whole.minor.get() / of).max(1), whole.currency).ok();
        // `None` is all that is left; more than all is refused.
        let amount =
            *dice.one_of(&[None, None, part(2), part(3), Money::new(whole.minor.get() + 1, whole.currency).ok()]).unwrap();
        let order = OperationOrder {
            // Few keys, so that commands are repeated, and others come with a key that was used.
            key: format!("{}:{}:{}", operation.as_str(), payment.intent.id, dice.below(4)),
            intent: payment.intent.id,
            operation,
            amount: if operation == Operation::Void { None } else { amount },
            by: "somebody".into(),
            why: "asked for".into(),
        };
        let asked = order.key.clone();
        if let Ok(attempt) = self.processor.operate(order).await {
            self.promises.taken(&asked, attempt.as_str());
        }
    }

    async fn resolve(&self, dice: &mut Dice) {
        let mut conflicts = self.store.conflicts(LOOK_AT).await.unwrap_or_default();
        conflicts.sort_by(|a, b| a.intent.id.cmp(&b.intent.id));
        if let Some(payment) = dice.one_of(&conflicts) {
            self.settle_conflict(payment, dice.percent(50)).await;
        }
    }

    /// `done`: the bank puts the amount right; else it takes the money back.
    pub async fn settle_conflict(&self, payment: &Payment, done: bool) {
        let conflicted = payment.attempts.iter().find(|a| matches!(a.state, AttemptState::Conflicted { .. }));
        if !conflicted.is_some_and(|a| self.bank.settle(a.id.as_str(), done)) {
            return;
        }
        // Who asks meanwhile may find it before the person does: then there is nothing left to resolve.
        drop(self.processor.resolve(&payment.intent.id, done, "a person", "asked the bank").await);
    }

    async fn hear(&self, dice: &mut Dice) {
        let Some((reference, say)) = self.bank.news(dice) else { return };
        let Ok(attempt) = AttemptId::parse(&reference) else { return };
        for _ in 0..=dice.below(2) {
            drop(self.processor.hear(&attempt, say.clone().word()).await);
        }
    }

    async fn contest(&self, dice: &mut Dice) {
        let Some(payment) = self.some_payment(dice).await else { return };
        let amount = if dice.percent(50) { None } else { Money::new(100, payment.intent.amount.currency).ok() };
        let reference = format!("dispute-{}-{}", payment.intent.id, dice.below(2));
        drop(self.processor.open_dispute(&payment.intent.id, &reference, amount, "not recognised", "acquirer").await);
    }

    async fn decide(&self, dice: &mut Dice) {
        let mut all = self.store.disputes(LOOK_AT).await.unwrap_or_default();
        all.sort_by(|a, b| a.reference.cmp(&b.reference));
        if let Some(dispute) = dice.one_of(&all) {
            drop(self.processor.close_dispute(&dispute.reference, dice.percent(50), "acquirer").await);
        }
    }
}
