//! What the bank remembers and how it decides.

use std::collections::HashMap;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::journal::{Did, Journal, JournalLine, SandboxError};
use crate::clock::Clock;
use crate::gateway::{CardData, GatewayRequest};
use crate::money::Money;
use crate::payment::{BankWord, DeclineReason, Operation};
use crate::secret::SecretBytes;

/// What leaves the bank, and up to where its journal must be on disk before that.
pub(super) struct Answer {
    pub(super) word: BankWord,
    pub(super) way: Way,
    pub(super) journal_end: u64,
}

/// How an answer travels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Straight,
    Late,
    Lost,
}

/// What is reserved or was taken under one of our references.
struct Held {
    card: String,
    last4: String,
    /// Reserved and neither captured nor voided.
    open: Option<Money>,
    /// Taken from the card.
    taken: Option<Money>,
    /// Given back, in minor units.
    refunded: i64,
}

pub(super) struct Bank {
    journal: Journal,
    key: SecretBytes,
    clock: Arc<dyn Clock>,
    /// What was decided, by idempotency key.
    known: HashMap<String, JournalLine>,
    /// The key of what was decided, by our reference.
    keys: HashMap<String, String>,
    /// By our reference.
    held: HashMap<String, Held>,
    /// How often a key was seen without a decision.
    tried: HashMap<String, u32>,
}

impl Bank {
    pub(super) fn open(journal: Journal, key: SecretBytes, clock: Arc<dyn Clock>) -> Result<Self, SandboxError> {
        let (known, keys, held, tried) = (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        let mut bank = Self { journal, key, clock, known, keys, held, tried };
        bank.catch_up()?;
        Ok(bank)
    }

    /// Learns what other processes had this bank do.
    fn catch_up(&mut self) -> Result<(), SandboxError> {
        for line in self.journal.news()? {
            self.remember(line);
        }
        Ok(())
    }

    pub(super) fn take(&mut self, r: &GatewayRequest) -> Result<Answer, SandboxError> {
        self.catch_up()?;
        let Some(line) = self.line(r) else {
            let word = BankWord::Declined(DeclineReason::Other);
            return Ok(Answer { word, way: Way::Straight, journal_end: 0 });
        };
        let twice = self.is(&line, "4000000000000200") && r.operation.opens();
        if twice {
            self.deliver(r, line.clone())?; // the network delivers it a second time; the bank knows the key
        }
        self.deliver(r, line)
    }

    pub(super) fn asked_about(&mut self, our_reference: &str) -> Result<BankWord, SandboxError> {
        self.catch_up()?;
        let line = self.keys.get(our_reference).and_then(|key| self.known.get(key));
        Ok(line.map_or(BankWord::NotFound, |line| self.word(line)))
    }

    /// The journal's line for a request, nothing done yet; `None` for what makes no sense: a charge without a card, a refund of nothing.
    fn line(&self, r: &GatewayRequest) -> Option<JournalLine> {
        let (card, last4) = match (&r.card, &r.original) {
            (Some(card), None) if r.operation.opens() => (self.keyed(card.pan.ascii().as_bytes()), card.pan.last4()),
            (_, Some(original)) if !r.operation.opens() => {
                let held = self.held.get(&original.our_reference);
                held.map(|h| (h.card.clone(), h.last4.clone())).unwrap_or_default()
            }
            (None | Some(_), None | Some(_)) => return None,
        };
        Some(JournalLine {
            at: self.clock.now(),
            our_reference: r.our_reference.clone(),
            key: r.idempotency_key.0.clone(),
            card,
            last4,
            operation: r.operation,
            of: r.original.as_ref().map(|o| o.our_reference.clone()),
            asked: r.amount,
            did: Did::Lost,
            charged: None,
            lost: false,
        })
    }

    fn deliver(&mut self, r: &GatewayRequest, mut line: JournalLine) -> Result<Answer, SandboxError> {
        if let Some(earlier) = self.known.get(&line.key).cloned() {
            let same = earlier.card == line.card
                && earlier.asked == line.asked
                && earlier.our_reference == line.our_reference
                && earlier.operation == line.operation
                && earlier.of == line.of;
            line.did = if same { Did::Repeated } else { Did::KeyMisused };
            let journal_end = self.journal.append(&line)?;
            let word = if same { self.word(&earlier) } else { BankWord::Silence };
            return Ok(Answer { word, way: Way::Straight, journal_end });
        }
        line.did = match &r.card {
            Some(card) if r.operation.opens() => self.decide(r, &line, card),
            Some(_) | None => self.decide_later(&line),
        };
        let too_much = self.is(&line, "4000000000000127") && r.operation.opens();
        line.charged = match (line.did.done() || line.did.charged(), too_much) {
            (true, true) => Money::new(r.amount.minor.get().saturating_add(1), r.amount.currency).ok(),
            (true, false) => Some(r.amount),
            (false, _) => None,
        };
        let way = self.way(&line);
        line.lost = way == Way::Lost;
        let journal_end = self.journal.append(&line)?;
        let word = self.word(&line);
        self.remember(line);
        Ok(Answer { word, way, journal_end })
    }

    /// A charge or an authorisation.
    fn decide(&self, r: &GatewayRequest, line: &JournalLine, card: &CardData) -> Did {
        if card.expiry.is_some_and(|e| e.passed(self.clock.now())) {
            return Did::DeclinedExpiredCard;
        }
        let done = if line.operation == Operation::Authorise { Did::Authorised } else { Did::Charged };
        match card.pan.ascii().as_str() {
            "4000000000009995" => Did::DeclinedInsufficientFunds,
            "4000000000000069" => Did::DeclinedExpiredCard,
            "4000000000000002" => Did::DeclinedDoNotHonour,
            "4000000000000119" if line.operation == Operation::Charge => Did::ChargedSilently,
            "4000000000005126" => Did::ChargedThenReversed,
            "4000000000000259" => Did::Lost,
            "4000000000000341" if self.tried.get(&r.idempotency_key.0).copied().unwrap_or(0) == 0 => Did::ServerError,
            _ => done,
        }
    }

    /// What follows a payment: bounded by what is there.
    fn decide_later(&self, line: &JournalLine) -> Did {
        let Some(held) = line.of.as_ref().and_then(|of| self.held.get(of)) else { return Did::DeclinedInvalidAmount };
        let within = |limit: Option<Money>, gone: i64| {
            let asked = line.asked.minor.get();
            limit.is_some_and(|l| l.currency == line.asked.currency && asked.saturating_add(gone) <= l.minor.get())
        };
        match line.operation {
            Operation::Capture if self.is(line, "4000000000003220") => Did::DeclinedDoNotHonour,
            Operation::Refund if self.is(line, "4000000000007726") => Did::DeclinedDoNotHonour,
            Operation::Capture if within(held.open, 0) => Did::Captured,
            Operation::Void if within(held.open, 0) => Did::Voided,
            Operation::Refund if within(held.taken, held.refunded) => Did::Refunded,
            Operation::Charge | Operation::Authorise | Operation::Capture | Operation::Void | Operation::Refund => {
                Did::DeclinedInvalidAmount
            }
        }
    }

    fn way(&self, line: &JournalLine) -> Way {
        match line.did {
            Did::ChargedSilently | Did::ChargedThenReversed | Did::Lost => Way::Lost,
            Did::Authorised if self.is(line, "4000000000000119") => Way::Lost,
            Did::Captured | Did::Voided | Did::Refunded if self.is(line, "4000000000000093") => Way::Lost,
            Did::Charged | Did::Authorised if self.is(line, "4000000000000101") => Way::Late,
            Did::Charged
            | Did::Authorised
            | Did::Captured
            | Did::Voided
            | Did::Refunded
            | Did::DeclinedInsufficientFunds
            | Did::DeclinedExpiredCard
            | Did::DeclinedDoNotHonour
            | Did::DeclinedInvalidAmount
            | Did::ServerError
            | Did::Repeated
            | Did::KeyMisused => Way::Straight,
        }
    }

    /// What the bank says of something that it decided.
    fn word(&self, line: &JournalLine) -> BankWord {
        match line.did {
            Did::Charged | Did::ChargedSilently | Did::Authorised | Did::Captured | Did::Voided | Did::Refunded => {
                match line.charged {
                    Some(charged) => BankWord::Approved { charged, gateway_reference: self.reference(line) },
                    None => BankWord::Silence,
                }
            }
            Did::ChargedThenReversed => BankWord::Reversed,
            Did::DeclinedInsufficientFunds => BankWord::Declined(DeclineReason::InsufficientFunds),
            Did::DeclinedExpiredCard => BankWord::Declined(DeclineReason::ExpiredCard),
            Did::DeclinedDoNotHonour => BankWord::Declined(DeclineReason::DoNotHonour),
            Did::DeclinedInvalidAmount => BankWord::Declined(DeclineReason::InvalidAmount),
            Did::Lost | Did::ServerError | Did::Repeated | Did::KeyMisused => BankWord::Silence,
        }
    }

    fn remember(&mut self, line: JournalLine) {
        if !line.did.decided() {
            let n = self.tried.entry(line.key).or_insert(0);
            *n = n.saturating_add(1);
            return;
        }
        if self.known.contains_key(&line.key) {
            return;
        }
        let held = |open, taken| Held { card: line.card.clone(), last4: line.last4.clone(), open, taken, refunded: 0 };
        let of = line.of.as_ref().and_then(|of| self.held.get_mut(of));
        let fresh = match (line.did, of) {
            (Did::Charged | Did::ChargedSilently, _) => Some(held(None, line.charged)),
            (Did::Authorised, _) => Some(held(line.charged, None)),
            (Did::Captured, of) => {
                of.into_iter().for_each(|of| of.open = None);
                Some(held(None, line.charged))
            }
            (Did::Voided, Some(of)) => {
                of.open = None;
                None
            }
            (Did::Refunded, Some(of)) => {
                of.refunded = of.refunded.saturating_add(line.asked.minor.get());
                None
            }
            (
                Did::Voided
                | Did::Refunded
                | Did::ChargedThenReversed
                | Did::DeclinedInsufficientFunds
                | Did::DeclinedExpiredCard
                | Did::DeclinedDoNotHonour
                | Did::DeclinedInvalidAmount
                | Did::Lost
                | Did::ServerError
                | Did::Repeated
                | Did::KeyMisused,
                _,
            ) => None,
        };
        if let Some(fresh) = fresh {
            self.held.insert(line.our_reference.clone(), fresh);
        }
        self.keys.insert(line.our_reference.clone(), line.key.clone());
        self.known.insert(line.key.clone(), line);
    }

    /// Whether the line's card is this one. The journal knows cards by keyed hash only.
    fn is(&self, line: &JournalLine, number: &str) -> bool {
        // Most lines are told apart by the last four digits already.
        number.ends_with(&line.last4) && !line.last4.is_empty() && line.card == self.keyed(number.as_bytes())
    }

    /// The bank's own reference: the same for the same operation.
    fn reference(&self, line: &JournalLine) -> String {
        let mut text = format!("sbx_{}", self.keyed(line.our_reference.as_bytes()));
        text.truncate(20);
        text
    }

    fn keyed(&self, bytes: &[u8]) -> String {
        match Hmac::<Sha256>::new_from_slice(self.key.expose()) {
            Ok(mut mac) => {
                mac.update(bytes);
                hex::encode(mac.finalize().into_bytes())
            }
            Err(_) => String::new(), // HMAC takes keys of any length
        }
    }
}
