//! Two sides of one deduction. A customer confirms a payment to us; the bank hears of the same deduction from the payee and tells
//! us. Only when both agree on reference, amount, currency and account is the bank instructed to deduct, once.
//!
//! What stands under one reference (the payment request's id) is a [`Pairing`]: a fold over its journal, so that it is the same
//! after a restart and on every node. [`Pairing::decide`] says what an input adds to the journal; what is owed then follows from
//! the state alone ([`Pairing::owed`]). An instruction's id follows from the attempt's, so that there is never a second one.
//!
//! A message that fits nothing, or too much, is never guessed about: it waits in quarantine for a person, and stays recorded
//! whatever the person decides. Time passes before anything else is judged: what arrives late is late, whether or not a sweep
//! came by in between.

mod draft;
mod facts;
mod journal;

use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::ids::{AttemptId, InstructionId, RequestId};
use crate::money::Money;

use draft::Draft;

pub use facts::{
    ANSWER_REASON_LIMIT_CHARS, Account, Answer, FactError, Facts, Instruction, InstructionKind, Message, MessageId, Reason,
};
pub use journal::{Entry, Event, Input};

/// How many payments one reference may see.
pub const PAYMENTS_LIMIT: usize = 8;
/// How many messages of the bank one reference may see.
pub const MESSAGES_LIMIT: usize = 16;
/// How many refunds one reference may see.
pub const REFUNDS_LIMIT: usize = 16;

/// How long one side waits for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// A message for its payment; then a person looks at it.
    pub for_payment: Duration,
    /// A payment for its message; then it has failed.
    pub for_bank: Duration,
}

/// A payment that a customer confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Payment {
    /// The attempt to charge it.
    pub attempt: AttemptId,
    /// What was agreed to.
    pub facts: Facts,
    /// When.
    pub confirmed_at: Timestamp,
    /// Where it stands.
    #[serde(flatten)]
    pub state: PaymentState,
}

/// Where a payment stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PaymentState {
    /// For the bank's message.
    Waiting,
    /// It has its message.
    Matched {
        /// The message's number.
        case: u32,
        /// What came of it.
        order: Order,
    },
    /// It waited in vain. No message can be matched with it any more.
    Expired {
        /// When that was recorded.
        at: Timestamp,
    },
}

/// A refund of a deduction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refund {
    /// The attempt to refund.
    pub attempt: AttemptId,
    /// The attempt that was charged.
    pub of: AttemptId,
    /// How much.
    pub amount: Money,
    /// What came of it.
    pub order: Order,
}

/// An instruction on its way: owed until the bank has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Order {
    /// When it was decided.
    pub at: Timestamp,
    /// The bank's word.
    pub answer: Option<Answer>,
    /// What the bank said later instead: a person must look.
    pub contradiction: Option<Answer>,
}

impl Order {
    fn new(at: Timestamp) -> Self {
        Self { at, answer: None, contradiction: None }
    }

    fn refused(&self) -> bool {
        matches!(self.answer, Some(Answer::Refused { .. }))
    }

    fn standing(&self) -> Standing {
        match &self.answer {
            None => Standing::UnderWay,
            Some(Answer::Done { amount }) => Standing::Done { amount: *amount },
            Some(Answer::Refused { reason }) => Standing::Refused { reason: reason.clone() },
        }
    }
}

/// A message of the bank, with its number under this reference, from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Heard {
    /// Its number: two messages may have one id.
    pub case: u32,
    /// What it says.
    pub message: Message,
    /// When it came.
    pub received_at: Timestamp,
    /// Where it stands.
    #[serde(flatten)]
    pub state: MessageState,
}

/// Where a message stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum MessageState {
    /// For its payment.
    Waiting,
    /// It has its payment.
    Matched {
        /// The payment's attempt.
        attempt: AttemptId,
    },
    /// For a person.
    Quarantined {
        /// Why.
        reason: Reason,
        /// Since when.
        at: Timestamp,
    },
    /// A person decided that it leads to nothing.
    Rejected {
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
    },
}

/// How an attempt stands with the bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits for the bank's message, or for the bank's answer.
    UnderWay,
    /// The bank has moved this amount.
    Done {
        /// How much.
        amount: Money,
    },
    /// The bank moved nothing.
    Refused {
        /// In the bank's words.
        reason: String,
    },
    /// The bank never announced the deduction; it was not instructed.
    Expired,
}

/// Why an input is not taken. Nothing follows from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bound of this reference.
    #[error("there are {limit} {what} under this reference already, and no more are taken")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: usize,
    },
    /// The attempt is known with other content.
    #[error("this attempt is known already, with another amount or account")]
    OtherContent,
    /// No instruction was decided for it.
    #[error("the bank was never instructed about this attempt")]
    NoInstruction,
    /// No such message.
    #[error("there is no message {0} under this reference")]
    NoCase(u32),
    /// It is not in quarantine.
    #[error("message {0} is not in quarantine")]
    NotInQuarantine(u32),
    /// Its id is another message's.
    #[error("message {0} bears another message's id and can't be released: the bank must send it under an id of its own")]
    NotReleased(u32),
    /// The payment does not wait for a message.
    #[error("no payment of attempt {0} waits for a message under this reference")]
    NoWaitingPayment(AttemptId),
    /// A person can't overrule the facts.
    #[error("the message can't be released for this payment: {}", .0.text())]
    OtherFacts(Reason),
    /// The refund exceeds the deduction.
    #[error("the refund does not refer to a deduction that was made, or exceeds what is left of it")]
    OverRefunded,
    /// A fault of ours.
    #[error(transparent)]
    Misfit(#[from] Misfit),
}

/// An event that can't have happened after those before it: the journal was not written by this program, or was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {number} of {reference} ({event}) does not fit those before it")]
pub struct Misfit {
    /// Of which reference.
    pub reference: RequestId,
    /// Which one, from 0.
    pub number: u64,
    /// What it is.
    pub event: &'static str,
}

/// What an input leads to: the entries to append, and the state once they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The state with them.
    pub after: Pairing,
    /// In order; none: nothing changes.
    pub entries: Vec<Entry>,
}

/// What stands under one reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pairing {
    reference: RequestId,
    payments: Vec<Payment>,
    messages: Vec<Heard>,
    refunds: Vec<Refund>,
    length: u64,
}

impl Pairing {
    /// Nothing yet.
    pub fn new(reference: RequestId) -> Self {
        Self { reference, payments: Vec::new(), messages: Vec::new(), refunds: Vec::new(), length: 0 }
    }

    /// From its journal.
    pub fn replay<'e>(reference: RequestId, journal: impl IntoIterator<Item = &'e Entry>) -> Result<Self, Misfit> {
        let mut pairing = Self::new(reference);
        for entry in journal {
            pairing.apply(entry)?;
        }
        Ok(pairing)
    }

    /// The payment request.
    pub fn reference(&self) -> &RequestId {
        &self.reference
    }

    /// How many events the journal has.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Payments, oldest first.
    pub fn payments(&self) -> &[Payment] {
        &self.payments
    }

    /// The bank's messages, oldest first.
    pub fn messages(&self) -> &[Heard] {
        &self.messages
    }

    /// Refunds, oldest first.
    pub fn refunds(&self) -> &[Refund] {
        &self.refunds
    }

    /// What became of a message that was received; `None`: it never was.
    pub fn heard(&self, message: &Message) -> Option<&Heard> {
        self.messages.iter().find(|m| m.message == *message)
    }

    /// How an attempt stands; `None`: nothing is known of it.
    pub fn standing(&self, attempt: &AttemptId) -> Option<Standing> {
        let payment = self.payments.iter().find(|p| p.attempt == *attempt).map(|p| match &p.state {
            PaymentState::Waiting => Standing::UnderWay,
            PaymentState::Matched { order, .. } => order.standing(),
            PaymentState::Expired { .. } => Standing::Expired,
        });
        payment.or_else(|| self.refunds.iter().find(|r| r.attempt == *attempt).map(|r| r.order.standing()))
    }

    /// Instructions that the bank has not answered, the first decided first.
    pub fn owed(&self) -> Vec<Instruction> {
        let mut owed: Vec<_> = self.instructions().filter(|(_, order)| order.answer.is_none()).map(|(i, _)| i).collect();
        owed.sort_by_key(|i| i.at);
        owed
    }

    /// Every instruction that was decided, with what came of it.
    pub fn instructions(&self) -> impl Iterator<Item = (Instruction, &Order)> {
        let of = |kind, attempt: &AttemptId, amount, (account, message): (&Account, &Message), at| Instruction {
            id: InstructionId::of(attempt),
            kind,
            reference: self.reference.clone(),
            message: message.id.clone(),
            facts: Facts { amount, account: account.clone() },
            at,
        };
        let deductions = self.payments.iter().filter_map(move |p| {
            let (order, about) = self.deduction(p)?;
            Some((of(InstructionKind::Deduct, &p.attempt, p.facts.amount, about, order.at), order))
        });
        let refunds = self.refunds.iter().filter_map(move |r| {
            let (_, about) = self.deduction(self.payments.iter().find(|p| p.attempt == r.of)?)?;
            Some((of(InstructionKind::Refund, &r.attempt, r.amount, about, r.order.at), &r.order))
        });
        deductions.chain(refunds)
    }

    /// Whether anything waits for a side or for the bank's answer.
    pub fn open(&self) -> bool {
        let payments = self.payments.iter().any(|p| match &p.state {
            PaymentState::Waiting => true,
            PaymentState::Matched { order, .. } => order.answer.is_none(),
            PaymentState::Expired { .. } => false,
        });
        payments
            || self.messages.iter().any(|m| m.state == MessageState::Waiting)
            || self.refunds.iter().any(|r| r.order.answer.is_none())
    }

    /// Messages that wait for a person.
    pub fn quarantine(&self) -> impl Iterator<Item = &Heard> {
        self.messages.iter().filter(|m| matches!(m.state, MessageState::Quarantined { .. }))
    }

    /// When somebody will have waited long enough: then [`Input::TimePassed`] changes something.
    pub fn wakes_at(&self, waits: Waits) -> Option<Timestamp> {
        let payments = self.payments.iter().filter(|p| p.state == PaymentState::Waiting);
        let messages = self.messages.iter().filter(|m| m.state == MessageState::Waiting);
        let until = payments.map(|p| p.confirmed_at.plus(waits.for_bank));
        until.chain(messages.map(|m| m.received_at.plus(waits.for_payment))).min()
    }

    /// What an input adds to the journal at `now`.
    pub fn decide(&self, waits: Waits, now: Timestamp, input: Input) -> Result<Decision, Refusal> {
        let mut draft = Draft { pairing: self.clone(), now, entries: Vec::new() };
        draft.let_time_pass(waits)?;
        match input {
            Input::Confirm { attempt, facts } => draft.confirm(attempt, facts),
            Input::Message(message) => draft.hear(message),
            Input::MessageSeenElsewhere(message) => draft.hear_reused(message),
            Input::Refund { attempt, of, amount } => draft.refund(attempt, of, amount),
            Input::Answer { attempt, answer } => draft.answer(attempt, answer),
            Input::Release { case, attempt, by } => draft.release(case, attempt, by),
            Input::Reject { case, by } => draft.reject(case, by),
            Input::TimePassed => Ok(()),
        }?;
        Ok(Decision { after: draft.pairing, entries: draft.entries })
    }

    /// The next event. One that does not fit changes nothing.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Misfit> {
        let misfit = Misfit { reference: self.reference.clone(), number: self.length, event: entry.event.name() };
        self.fold(entry).ok_or(misfit)?;
        self.length = self.length.saturating_add(1);
        Ok(())
    }

    fn fold(&mut self, Entry { at, event }: &Entry) -> Option<()> {
        let at = *at;
        match event {
            Event::Confirmed { attempt, facts } => {
                let (attempt, facts) = (attempt.clone(), facts.clone());
                let fresh = self.standing(&attempt).is_none() && self.payments.len() < PAYMENTS_LIMIT;
                fresh.then(|| self.payments.push(Payment { attempt, facts, confirmed_at: at, state: PaymentState::Waiting }))
            }
            Event::Received { message } => {
                let fresh = self.messages.iter().all(|m| m.message.id != message.id);
                if fresh { self.add_message(message, at, MessageState::Waiting) } else { None }
            }
            Event::Reused { message } => {
                self.add_message(message, at, MessageState::Quarantined { reason: Reason::IdReused, at })
            }
            Event::Quarantined { case, reason } => {
                let heard = self.message_mut(*case).filter(|m| m.state == MessageState::Waiting)?;
                heard.state = MessageState::Quarantined { reason: *reason, at };
                Some(())
            }
            Event::Released { case, by: _ } => {
                self.quarantined_mut(*case)?.state = MessageState::Waiting;
                Some(())
            }
            Event::Rejected { case, by } => {
                self.quarantined_mut(*case)?.state = MessageState::Rejected { by: by.clone(), at };
                Some(())
            }
            Event::Matched { attempt, case } => {
                let heard = self.messages.iter_mut().find(|m| m.case == *case && m.state == MessageState::Waiting)?;
                let waits = |p: &&mut Payment| p.attempt == *attempt && p.state == PaymentState::Waiting;
                let payment = self.payments.iter_mut().find(waits).filter(|p| p.facts == heard.message.facts)?;
                heard.state = MessageState::Matched { attempt: attempt.clone() };
                payment.state = PaymentState::Matched { case: *case, order: Order::new(at) };
                Some(())
            }
            Event::RefundOrdered { attempt, of, amount } => {
                let fits = self.standing(attempt).is_none() && self.refunds.len() < REFUNDS_LIMIT && self.refundable(of, *amount);
                let (attempt, of) = (attempt.clone(), of.clone());
                fits.then(|| self.refunds.push(Refund { attempt, of, amount: *amount, order: Order::new(at) }))
            }
            Event::Answered { attempt, answer } => {
                let order = self.order_mut(attempt).filter(|o| o.answer.is_none())?;
                order.answer = Some(answer.clone());
                Some(())
            }
            Event::Contradicted { attempt, answer } => {
                let order = self.order_mut(attempt).filter(|o| o.answer.as_ref().is_some_and(|first| first != answer))?;
                order.contradiction = Some(answer.clone());
                Some(())
            }
            Event::Expired { attempt } => {
                let waits = |p: &&mut Payment| p.attempt == *attempt && p.state == PaymentState::Waiting;
                self.payments.iter_mut().find(waits)?.state = PaymentState::Expired { at };
                Some(())
            }
        }
    }

    fn add_message(&mut self, message: &Message, at: Timestamp, state: MessageState) -> Option<()> {
        let room = self.messages.len() < MESSAGES_LIMIT;
        let case = u32::try_from(self.messages.len()).ok()?.checked_add(1)?;
        room.then(|| self.messages.push(Heard { case, message: message.clone(), received_at: at, state }))
    }

    fn message_mut(&mut self, case: u32) -> Option<&mut Heard> {
        self.messages.iter_mut().find(|m| m.case == case)
    }

    fn quarantined_mut(&mut self, case: u32) -> Option<&mut Heard> {
        self.message_mut(case).filter(|m| matches!(m.state, MessageState::Quarantined { .. }))
    }

    fn order(&self, attempt: &AttemptId) -> Option<&Order> {
        let deduction = self.payments.iter().find(|p| p.attempt == *attempt).and_then(|p| self.deduction(p));
        let refund = self.refunds.iter().find(|r| r.attempt == *attempt).map(|r| &r.order);
        deduction.map(|(order, _)| order).or(refund)
    }

    fn order_mut(&mut self, attempt: &AttemptId) -> Option<&mut Order> {
        let deduction = self.payments.iter_mut().find(|p| p.attempt == *attempt).and_then(|p| match &mut p.state {
            PaymentState::Matched { order, .. } => Some(order),
            PaymentState::Waiting | PaymentState::Expired { .. } => None,
        });
        deduction.or_else(|| self.refunds.iter_mut().find(|r| r.attempt == *attempt).map(|r| &mut r.order))
    }

    /// What a matched payment's instruction is about.
    fn deduction<'p>(&'p self, payment: &'p Payment) -> Option<(&'p Order, (&'p Account, &'p Message))> {
        match &payment.state {
            PaymentState::Matched { case, order } => {
                let heard = self.messages.iter().find(|m| m.case == *case)?;
                Some((order, (&payment.facts.account, &heard.message)))
            }
            PaymentState::Waiting | PaymentState::Expired { .. } => None,
        }
    }

    /// Whether so much is left of a deduction that was made.
    fn refundable(&self, of: &AttemptId, amount: Money) -> bool {
        let deduction = self.payments.iter().find(|p| p.attempt == *of);
        let Some(Standing::Done { amount: deducted }) = deduction.and(self.standing(of)) else { return false };
        let others = self.refunds.iter().filter(|r| r.of == *of && !r.order.refused());
        let left = others.fold(deducted.minor.get(), |left, r| left.saturating_sub(r.amount.minor.get()));
        amount.currency == deducted.currency && amount.minor.get() <= left
    }
}

#[cfg(test)]
mod tests;
