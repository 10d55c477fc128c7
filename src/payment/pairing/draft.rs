//! The rules: what each input adds to the journal. A draft is the state with what was added so far, so that each rule judges what
//! the one before it left.

use super::{
    Answer, Entry, Event, Facts, MESSAGES_LIMIT, Message, MessageState, PAYMENTS_LIMIT, Pairing, Payment, PaymentState,
    REFUNDS_LIMIT, Reason, Refusal, Waits,
};
use crate::clock::Timestamp;
use crate::ids::AttemptId;
use crate::money::Money;

/// A state and what it takes to come there.
pub(super) struct Draft {
    pub(super) pairing: Pairing,
    pub(super) now: Timestamp,
    pub(super) entries: Vec<Entry>,
}

type Judged = Result<(), Refusal>;

impl Draft {
    fn record(&mut self, event: Event) -> Judged {
        let entry = Entry { at: self.now, event };
        self.pairing.apply(&entry)?;
        self.entries.push(entry);
        Ok(())
    }

    fn quarantine(&mut self, case: u32, reason: Reason) -> Judged {
        self.record(Event::Quarantined { case, reason })
    }

    /// Ends every wait that is over.
    pub(super) fn let_time_pass(&mut self, waits: Waits) -> Judged {
        let now = self.now;
        let payments = self.waiting_payments().filter(|p| now >= p.confirmed_at.plus(waits.for_bank));
        for attempt in payments.map(|p| p.attempt.clone()).collect::<Vec<_>>() {
            self.record(Event::Expired { attempt })?;
        }
        let messages = self.pairing.messages.iter().filter(|m| m.state == MessageState::Waiting);
        let over = messages.filter(|m| now >= m.received_at.plus(waits.for_payment)).map(|m| m.case);
        for case in over.collect::<Vec<_>>() {
            self.quarantine(case, Reason::NoPayment)?;
        }
        Ok(())
    }

    pub(super) fn confirm(&mut self, attempt: AttemptId, facts: Facts) -> Judged {
        if let Some(known) = self.pairing.payments.iter().find(|p| p.attempt == attempt) {
            return if known.facts == facts { Ok(()) } else { Err(Refusal::OtherContent) };
        }
        if self.pairing.standing(&attempt).is_some() {
            return Err(Refusal::OtherContent); // a refund's
        }
        room(self.pairing.payments.len(), "payments", PAYMENTS_LIMIT)?;
        self.record(Event::Confirmed { attempt, facts })?;
        let waiting = self.pairing.messages.iter().filter(|m| m.state == MessageState::Waiting);
        for (case, facts) in waiting.map(|m| (m.case, m.message.facts.clone())).collect::<Vec<_>>() {
            self.judge(case, &facts)?;
        }
        Ok(())
    }

    pub(super) fn hear(&mut self, message: Message) -> Judged {
        if self.pairing.messages.iter().any(|m| m.message.id == message.id) {
            return self.hear_reused(message);
        }
        room(self.pairing.messages.len(), "messages", MESSAGES_LIMIT)?;
        let facts = message.facts.clone();
        let duplicate = self.lives_on(&facts);
        self.record(Event::Received { message })?;
        let Some(case) = self.pairing.messages.last().map(|m| m.case) else { return Ok(()) };
        if duplicate {
            return self.quarantine(case, Reason::Duplicate);
        }
        let fits = |p: &Payment| p.facts == facts;
        let expired = |p: &Payment| matches!(p.state, PaymentState::Expired { .. }) && fits(p);
        if !self.waiting_payments().any(fits) && self.pairing.payments.iter().any(expired) {
            return self.quarantine(case, Reason::Late);
        }
        self.judge(case, &facts)
    }

    /// A message whose id is known, here or under another reference. The very same message again is nothing new.
    pub(super) fn hear_reused(&mut self, message: Message) -> Judged {
        if self.pairing.heard(&message).is_some() {
            return Ok(());
        }
        room(self.pairing.messages.len(), "messages", MESSAGES_LIMIT)?;
        self.record(Event::Reused { message })
    }

    pub(super) fn refund(&mut self, attempt: AttemptId, of: AttemptId, amount: Money) -> Judged {
        if let Some(known) = self.pairing.refunds.iter().find(|r| r.attempt == attempt) {
            return if known.of == of && known.amount == amount { Ok(()) } else { Err(Refusal::OtherContent) };
        }
        if self.pairing.standing(&attempt).is_some() {
            return Err(Refusal::OtherContent); // a payment's
        }
        room(self.pairing.refunds.len(), "refunds", REFUNDS_LIMIT)?;
        if !self.pairing.refundable(&of, amount) {
            return Err(Refusal::OverRefunded);
        }
        self.record(Event::RefundOrdered { attempt, of, amount })
    }

    pub(super) fn answer(&mut self, attempt: AttemptId, answer: Answer) -> Judged {
        let order = self.pairing.order(&attempt).ok_or(Refusal::NoInstruction)?;
        match &order.answer {
            None => self.record(Event::Answered { attempt, answer }),
            Some(first) if *first == answer => Ok(()),
            // One is enough to have a person look, and the journal stays short whatever the bank sends.
            Some(_) if order.contradiction.is_some() => Ok(()),
            Some(_) => self.record(Event::Contradicted { attempt, answer }),
        }
    }

    pub(super) fn release(&mut self, case: u32, attempt: AttemptId, by: String) -> Judged {
        let heard = self.pairing.messages.iter().find(|m| m.case == case).ok_or(Refusal::NoCase(case))?;
        match &heard.state {
            MessageState::Matched { attempt: with } if *with == attempt => return Ok(()),
            MessageState::Quarantined { reason: Reason::IdReused, .. } => return Err(Refusal::NotReleased(case)),
            MessageState::Quarantined { .. } => {}
            MessageState::Waiting | MessageState::Matched { .. } | MessageState::Rejected { .. } => {
                return Err(Refusal::NotInQuarantine(case));
            }
        }
        let payment = self.waiting_payments().find(|p| p.attempt == attempt);
        let payment = payment.ok_or_else(|| Refusal::NoWaitingPayment(attempt.clone()))?;
        if let Some(other) = payment.facts.differs(&heard.message.facts) {
            return Err(Refusal::OtherFacts(other));
        }
        self.record(Event::Released { case, by })?;
        self.record(Event::Matched { attempt, case })
    }

    pub(super) fn reject(&mut self, case: u32, by: String) -> Judged {
        let heard = self.pairing.messages.iter().find(|m| m.case == case).ok_or(Refusal::NoCase(case))?;
        match &heard.state {
            MessageState::Rejected { .. } => Ok(()),
            MessageState::Quarantined { .. } => self.record(Event::Rejected { case, by }),
            MessageState::Waiting | MessageState::Matched { .. } => Err(Refusal::NotInQuarantine(case)),
        }
    }

    /// A waiting message against the payments that wait: matched with the only one that fits. Where none waits, it waits on.
    fn judge(&mut self, case: u32, facts: &Facts) -> Judged {
        let waiting: Vec<_> = self.waiting_payments().map(|p| (p.attempt.clone(), p.facts.differs(facts))).collect();
        let mut fitting = waiting.iter().filter(|(_, differs)| differs.is_none());
        match (fitting.next(), fitting.next(), waiting.last()) {
            (Some((attempt, _)), None, _) => self.record(Event::Matched { attempt: attempt.clone(), case }),
            (Some(_), Some(_), _) => self.quarantine(case, Reason::Ambiguous),
            (None, _, Some((_, Some(reason)))) => self.quarantine(case, *reason),
            (None, _, Some((_, None)) | None) => Ok(()),
        }
    }

    fn waiting_payments(&self) -> impl Iterator<Item = &Payment> {
        self.pairing.payments.iter().filter(|p| p.state == PaymentState::Waiting)
    }

    /// Whether a message that says the same waits, or has led to an instruction that the bank did not refuse.
    fn lives_on(&self, facts: &Facts) -> bool {
        self.pairing.messages.iter().filter(|m| m.message.facts == *facts).any(|m| match &m.state {
            MessageState::Waiting => true,
            MessageState::Matched { attempt } => self.pairing.order(attempt).is_some_and(|order| !order.refused()),
            MessageState::Quarantined { .. } | MessageState::Rejected { .. } => false,
        })
    }
}

fn room(taken: usize, what: &'static str, limit: usize) -> Judged {
    if taken < limit { Ok(()) } else { Err(Refusal::Full { what, limit }) }
}
