//! A bank with faults, written against the contract of `gateway` and not from our sandbox, so that what it saw is a second opinion. It knows
//! idempotency keys and nothing else about us: it does not tell two requests of ours apart by our reference, so a second key for one attempt
//! moves money twice here, as it would anywhere.
//!
//! Which fault befalls a request is thrown by its key and by how often that key was sent, from a seed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::dice::Dice;
use voicepay::gateway::GatewayRequest;
use voicepay::money::Money;
use voicepay::payment::{BankWord, DeclineReason, Operation};

/// How long the bank keeps an idempotency key, in milliseconds: 24 hours, and what clocks may differ by here.
const KEEP_KEYS_MS: i64 = 30 * 3_600_000;

/// A request as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wire {
    pub operation: Operation,
    pub reference: String,
    pub key: String,
    pub amount: Money,
    pub card: Option<String>,
    pub original: Option<String>,
    pub statement: String,
    pub number: u64,
    pub prepared_at: i64,
}

impl Wire {
    pub fn of(r: &GatewayRequest) -> Self {
        Self {
            operation: r.operation,
            reference: r.our_reference.clone(),
            key: r.idempotency_key.0.clone(),
            amount: r.amount,
            card: r.card.as_ref().map(|c| c.pan.ascii().as_str().to_owned()),
            original: r.original.as_ref().map(|o| o.our_reference.clone()),
            statement: r.statement.clone(),
            number: r.number,
            prepared_at: r.prepared_at.0,
        }
    }
}

/// What the bank says, as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Say {
    Approved {
        charged: Money,
        reference: String,
    },
    Declined(DeclineReason),
    Reversed,
    StillWorking,
    NotFound,
    /// The connection breaks, or a server error.
    Silence,
    /// The true word, later than anybody waits.
    Late(Box<Say>),
}

impl Say {
    pub fn word(self) -> BankWord {
        match self {
            Self::Approved { charged, reference } => BankWord::Approved { charged, gateway_reference: reference },
            Self::Declined(reason) => BankWord::Declined(reason),
            Self::Reversed => BankWord::Reversed,
            Self::StillWorking => BankWord::StillWorking,
            Self::NotFound => BankWord::NotFound,
            Self::Silence | Self::Late(_) => BankWord::Silence,
        }
    }
}

/// What the bank has under one idempotency key.
#[derive(Clone, Debug)]
pub struct Entry {
    pub asked: Wire,
    /// What it moved; `None`: it declined.
    pub moved: Option<Money>,
    /// It took it back.
    pub reversed: bool,
    /// When it first saw the key, by its own clock in milliseconds.
    seen_at: i64,
    /// Its key is forgotten: the next request with it is a new one.
    forgotten: bool,
}

impl Entry {
    /// What it moved and did not take back.
    pub fn stands(&self) -> Option<Money> {
        self.moved.filter(|_| !self.reversed)
    }

    fn word(&self) -> Say {
        match self.moved {
            Some(_) if self.reversed => Say::Reversed,
            Some(charged) => Say::Approved { charged, reference: format!("bank-{}", self.asked.reference) },
            None => Say::Declined(DeclineReason::DoNotHonour),
        }
    }
}

/// What may befall a request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    None,
    /// Done; the answer is lost.
    AnswerLost,
    /// Done; the answer comes when nobody listens any more.
    AnswerLate,
    /// It stays somewhere on the way, and arrives later.
    RequestLate,
    /// It never arrives.
    RequestLost,
    /// A server error before anything was done.
    ServerError,
    /// It arrives twice.
    Twice,
    /// Another amount than was asked is moved.
    OtherAmount,
    /// Done, the answer is lost, and it is taken back.
    TakenBack,
}

#[derive(Debug, Default)]
struct Vaults {
    /// In the order in which they were decided.
    entries: Vec<Entry>,
    sends: BTreeMap<String, u64>,
    /// How often each of our references was sent.
    sent: BTreeMap<String, u64>,
    /// Requests that are still on their way, and whether the bank will decline them.
    late: Vec<(Wire, bool)>,
    /// The same key with other content.
    misused: Vec<String>,
    /// Whether faults have stopped.
    calm: bool,
    /// Its own clock, which never goes back.
    now: i64,
    met: BTreeMap<Fault, u64>,
}

/// The bank.
#[derive(Debug)]
pub struct Bank {
    seed: u64,
    vaults: Mutex<Vaults>,
}

impl Bank {
    pub fn new(seed: u64) -> Self {
        Self { seed, vaults: Mutex::default() }
    }

    fn vaults(&self) -> MutexGuard<'_, Vaults> {
        self.vaults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its clock moves on.
    pub fn time_is(&self, now_ms: i64) {
        let mut v = self.vaults();
        v.now = v.now.max(now_ms);
        let oldest = v.now - KEEP_KEYS_MS;
        v.entries.iter_mut().filter(|e| e.seen_at < oldest).for_each(|e| e.forgotten = true);
    }

    /// A request arrives, if it does.
    pub fn send(&self, wire: &Wire) -> Say {
        let mut v = self.vaults();
        *v.sent.entry(wire.reference.clone()).or_default() += 1;
        let nth = v.sends.entry(wire.key.clone()).or_default();
        *nth += 1;
        let mut dice = Dice::about(self.seed, &format!("{}#{nth}", wire.key));
        v.arrive_late(&mut dice, 30);
        let fault = if v.calm { Fault::None } else { fault(&mut dice, wire.operation) };
        *v.met.entry(fault).or_default() += 1;
        match fault {
            Fault::None => v.take(wire, self.declines(wire)),
            Fault::RequestLost | Fault::ServerError => Say::Silence,
            Fault::RequestLate => {
                v.late.push((wire.clone(), self.declines(wire)));
                Say::Silence
            }
            Fault::AnswerLost => {
                v.take(wire, self.declines(wire));
                Say::Silence
            }
            Fault::AnswerLate => Say::Late(Box::new(v.take(wire, self.declines(wire)))),
            Fault::Twice => {
                v.take(wire, self.declines(wire));
                v.take(wire, self.declines(wire))
            }
            Fault::OtherAmount => {
                let other = wire.amount.minor.get() + if dice.percent(50) || wire.amount.minor.get() == 1 { 1 } else { -1 };
                let fresh = v.known(&wire.key).is_none();
                let said = v.take(wire, self.declines(wire));
                match v.known(&wire.key).filter(|e| fresh && e.moved.is_some()) {
                    Some(entry) => {
                        entry.moved = Some(Money::new(other, wire.amount.currency).unwrap());
                        entry.word()
                    }
                    None => said,
                }
            }
            Fault::TakenBack => {
                let fresh = v.known(&wire.key).is_none();
                v.take(wire, self.declines(wire));
                if let Some(entry) = v.known(&wire.key).filter(|e| fresh && e.moved.is_some()) {
                    entry.reversed = true;
                }
                Say::Silence
            }
        }
    }

    /// A question about our reference.
    pub fn resolve(&self, reference: &str, dice: &mut Dice) -> Say {
        let mut v = self.vaults();
        v.arrive_late(dice, 20);
        if !v.calm {
            match dice.below(100) {
                0..10 => return Say::Silence,
                10..16 => return Say::StillWorking,
                16..20 => return v.about(reference).map_or(Say::NotFound, |said| Say::Late(Box::new(said))),
                _ => {}
            }
        }
        v.about(reference).unwrap_or(Say::NotFound)
    }

    /// News that it tells of its own accord: references with the word that is true of them now.
    pub fn news(&self, dice: &mut Dice) -> Option<(String, Say)> {
        let v = self.vaults();
        let entry = dice.one_of(&v.entries)?;
        Some((entry.asked.reference.clone(), entry.word()))
    }

    /// How often an attempt of ours reached it, or would have.
    pub fn sends_of(&self, reference: &str) -> u64 {
        self.vaults().sent.get(reference).copied().unwrap_or(0)
    }

    /// A person at the bank looks at what differs from what was asked, and puts the amount right (`done`) or takes the money back. Whether there
    /// was anything left that differed.
    pub fn settle(&self, reference: &str, done: bool) -> bool {
        let mut v = self.vaults();
        let of_it: Vec<&mut Entry> = v.entries.iter_mut().filter(|e| e.asked.reference == reference).collect();
        let differs = of_it.iter().any(|e| e.stands().is_some_and(|m| m != e.asked.amount));
        for entry in of_it.into_iter().filter(|e| differs && e.moved.is_some()) {
            if done {
                entry.moved = Some(entry.asked.amount);
            } else {
                entry.reversed = true;
            }
        }
        differs
    }

    /// Everything that was still on its way arrives.
    pub fn flush(&self) {
        let mut v = self.vaults();
        for (wire, declines) in std::mem::take(&mut v.late) {
            v.take(&wire, declines);
        }
    }

    /// From now on nothing goes wrong.
    pub fn calm_down(&self) {
        self.flush();
        self.vaults().calm = true;
    }

    /// All that it did.
    pub fn entries(&self) -> Vec<Entry> {
        self.vaults().entries.clone()
    }

    /// Keys that came with other content the second time.
    pub fn misused(&self) -> Vec<String> {
        self.vaults().misused.clone()
    }

    /// How often each fault was met.
    pub fn met(&self) -> BTreeMap<Fault, u64> {
        self.vaults().met.clone()
    }

    fn declines(&self, wire: &Wire) -> bool {
        Dice::about(self.seed, &wire.key).percent(12)
    }
}

impl Vaults {
    fn take(&mut self, wire: &Wire, declines: bool) -> Say {
        if let Some(known) = self.known(&wire.key) {
            if known.asked == *wire {
                return known.word();
            }
            self.misused.push(wire.key.clone());
            return Say::Silence;
        }
        let moved = (!declines && self.allows(wire)).then_some(wire.amount);
        let entry = Entry { asked: wire.clone(), moved, reversed: false, seen_at: self.now, forgotten: false };
        let said = entry.word();
        self.entries.push(entry);
        said
    }

    fn known(&mut self, key: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|e| e.asked.key == key && !e.forgotten)
    }

    /// What any acquirer checks: there is a card, or something that stands and has enough left.
    fn allows(&self, wire: &Wire) -> bool {
        if wire.operation.opens() {
            return wire.card.is_some();
        }
        let Some(original) = &wire.original else { return false };
        let of = |e: &&Entry| e.asked.original.as_ref() == Some(original) && e.stands().is_some();
        let taken = |o: Operation| self.entries.iter().filter(of).filter(move |e| e.asked.operation == o);
        let Some(first) = self.entries.iter().find(|e| e.asked.reference == *original && e.stands().is_some()) else {
            return false;
        };
        let left = first.moved.map_or(0, |m| m.minor.get());
        match (wire.operation, first.asked.operation) {
            (Operation::Capture | Operation::Void, Operation::Authorise) => {
                let ended = taken(Operation::Capture).chain(taken(Operation::Void)).next().is_some();
                !ended && wire.amount.minor.get() <= left
            }
            (Operation::Refund, Operation::Charge | Operation::Capture) => {
                let back: i64 = taken(Operation::Refund).filter_map(Entry::stands).map(|m| m.minor.get()).sum();
                back + wire.amount.minor.get() <= left
            }
            _ => false,
        }
    }

    fn about(&self, reference: &str) -> Option<Say> {
        self.entries.iter().find(|e| e.asked.reference == reference).map(Entry::word)
    }

    fn arrive_late(&mut self, dice: &mut Dice, of_hundred: usize) {
        if !self.late.is_empty() && dice.percent(of_hundred) {
            let (wire, declines) = self.late.remove(dice.below(self.late.len()));
            self.take(&wire, declines);
        }
    }
}

fn fault(dice: &mut Dice, operation: Operation) -> Fault {
    match dice.below(100) {
        0..50 => Fault::None,
        50..59 => Fault::AnswerLost,
        59..65 => Fault::AnswerLate,
        65..73 => Fault::RequestLate,
        73..81 => Fault::RequestLost,
        81..87 => Fault::ServerError,
        87..91 => Fault::Twice,
        // There is no amount to a void that could differ.
        91..95 if operation == Operation::Void => Fault::None,
        91..95 => Fault::OtherAmount,
        _ => Fault::TakenBack,
    }
}
