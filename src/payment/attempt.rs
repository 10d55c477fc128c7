//! One operation at the acquirer, be it a charge, a capture or a refund:
//! `Prepared → Dispatched → Succeeded | Declined | NeedsReconciliation | Conflicted → (… | Reversed)`.
//!
//! `Dispatched` is committed before a byte leaves for the acquirer; found after a crash it means "perhaps done". From there only
//! the acquirer's word about *our* reference moves it on: an error while asking changes nothing, "not found" means nothing before a
//! grace time has passed, and an approval of another amount or currency is no success: it waits for a person as `Conflicted`.
//!
//! A clock that was set back is harmless: time that seems not to have passed only makes us wait longer, and nothing is sent again before the
//! clock has caught up with the last send.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{AttemptId, IntentId};
use crate::money::Money;

use super::decline::DeclineReason;

/// Stands for the acquirer's reference where a person resolved a conflict of which none was kept.
const UNKNOWN_REFERENCE: &str = "unknown";

/// One operation at the acquirer for an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which one. Its text is also *our reference* at the acquirer.
    pub id: AttemptId,
    /// Counted up by the database, from 1; 0 until it is stored.
    pub number: u64,
    /// For which intent.
    pub intent: IntentId,
    /// What is asked of the acquirer.
    pub operation: Operation,
    /// What is captured, voided or refunded; `None` for a charge and an authorisation.
    pub of_attempt: Option<AttemptId>,
    /// The acquirer's name: no other one can be asked about it.
    pub gateway: String,
    /// How much; what the acquirer reports must equal it.
    pub amount: Money,
    /// When it was written down.
    pub prepared_at: Timestamp,
    /// Where it stands.
    pub state: AttemptState,
    /// Counts the changes; a store refuses to write over a version that it did not read.
    pub version: i64,
}

/// Where an attempt stands; each state holds only what it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum AttemptState {
    /// Written down; the acquirer has heard nothing.
    Prepared,
    /// The acquirer has perhaps heard of it, perhaps charged it.
    Dispatched {
        /// When this was committed, before the first byte left.
        at: Timestamp,
        /// The idempotency key that goes with every send.
        key: GatewayKey,
        /// Of what was sent; a re-send must hash the same.
        hash: RequestHash,
        /// How often it was sent, the first included.
        sends: u32,
        /// When it was last sent.
        last_sent: Timestamp,
    },
    /// Sent, and no answer that says anything came.
    NeedsReconciliation {
        /// When it was first dispatched.
        at: Timestamp,
        /// The idempotency key.
        key: GatewayKey,
        /// Of what was sent.
        hash: RequestHash,
        /// How often it was sent.
        sends: u32,
        /// When it was last sent.
        last_sent: Timestamp,
    },
    /// The acquirer did something else than was asked: a person must look, unless the acquirer corrects itself.
    Conflicted {
        /// When it was first dispatched.
        at: Timestamp,
        /// The idempotency key.
        key: GatewayKey,
        /// Of what was sent.
        hash: RequestHash,
        /// How often it was sent; it is not sent again.
        sends: u32,
        /// When it was last sent.
        last_sent: Timestamp,
        /// What the acquirer says it did.
        charged: Money,
        /// What the acquirer calls it; rows from before this was kept have none.
        #[serde(default)]
        gateway_reference: Option<String>,
    },
    /// Done. Terminal.
    Succeeded {
        /// When we recorded it.
        at: Timestamp,
        /// What the acquirer calls it.
        gateway_reference: String,
    },
    /// Not done, and it won't be. Terminal.
    Declined {
        /// When we recorded it.
        at: Timestamp,
        /// Why.
        reason: DeclineReason,
    },
    /// Done and taken back by the acquirer. Terminal.
    Reversed {
        /// When we recorded it.
        at: Timestamp,
    },
}

impl AttemptState {
    /// As a row stores it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Dispatched { .. } => "dispatched",
            Self::NeedsReconciliation { .. } => "needs_reconciliation",
            Self::Conflicted { .. } => "conflicted",
            Self::Succeeded { .. } => "succeeded",
            Self::Declined { .. } => "declined",
            Self::Reversed { .. } => "reversed",
        }
    }

    /// Whether nothing can change it any more.
    pub fn terminal(&self) -> bool {
        match self {
            Self::Prepared | Self::Dispatched { .. } | Self::NeedsReconciliation { .. } | Self::Conflicted { .. } => false,
            Self::Succeeded { .. } | Self::Declined { .. } | Self::Reversed { .. } => true,
        }
    }

    /// What the acquirer calls it, once it said so.
    pub fn gateway_reference(&self) -> Option<&str> {
        match self {
            Self::Succeeded { gateway_reference, .. } => Some(gateway_reference),
            Self::Conflicted { gateway_reference, .. } => gateway_reference.as_deref(),
            Self::Prepared
            | Self::Dispatched { .. }
            | Self::NeedsReconciliation { .. }
            | Self::Declined { .. }
            | Self::Reversed { .. } => None,
        }
    }

    /// Whether money has moved, may have moved or may yet move because of it. What is taken counts against what is left.
    pub fn takes(&self) -> bool {
        match self {
            Self::Prepared
            | Self::Dispatched { .. }
            | Self::NeedsReconciliation { .. }
            | Self::Conflicted { .. }
            | Self::Succeeded { .. } => true,
            Self::Declined { .. } | Self::Reversed { .. } => false,
        }
    }

    /// Whether the acquirer did it.
    pub fn done(&self) -> bool {
        match self {
            Self::Succeeded { .. } => true,
            Self::Prepared
            | Self::Dispatched { .. }
            | Self::NeedsReconciliation { .. }
            | Self::Conflicted { .. }
            | Self::Declined { .. }
            | Self::Reversed { .. } => false,
        }
    }
}

/// The idempotency key at the acquirer: the same for every send of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GatewayKey(pub String);

/// SHA-256 in hex over what is sent, with the card's keyed digest in place of its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestHash(pub String);

/// What an acquirer is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Authorise and capture in one.
    Charge,
    /// Reserve on the card; a capture or a void ends it.
    Authorise,
    /// Take what was authorised, or a part of it.
    Capture,
    /// Give back what was authorised and not captured.
    Void,
    /// Give back what was captured, or a part of it.
    Refund,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 5] = [Self::Charge, Self::Authorise, Self::Capture, Self::Void, Self::Refund];

    /// As a row stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Charge => "charge",
            Self::Authorise => "authorise",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
        }
    }

    /// Back from a row.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.as_str() == text)
    }

    /// Whether a payment begins with it.
    pub fn opens(self) -> bool {
        match self {
            Self::Charge | Self::Authorise => true,
            Self::Capture | Self::Void | Self::Refund => false,
        }
    }
}

/// What the acquirer says, in answer to an operation or to a question about our reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BankWord {
    /// Done, with this amount.
    Approved { charged: Money, gateway_reference: String },
    /// Not done.
    Declined(DeclineReason),
    /// Done and taken back.
    Reversed,
    /// It has it and has not decided.
    StillWorking,
    /// It knows no such reference (only ever an answer to a question).
    NotFound,
    /// No answer that says anything: a time-out, a broken connection, a 5xx, nonsense.
    Silence,
}

/// What happens to an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptEvent {
    /// It is about to be sent for the first time.
    Dispatch { key: GatewayKey, hash: RequestHash },
    /// It is about to be sent again; must be the same bytes.
    Resend { hash: RequestHash },
    /// It can't be sent at all (the card is gone). Only before it was sent.
    Abandon,
    /// The acquirer answered what was sent.
    Answer(BankWord),
    /// The acquirer answered a question about our reference. An error while asking changes nothing.
    Found(BankWord),
    /// A person found out what the acquirer did, where its words did not fit together.
    Resolve {
        /// Whether it was done, at the amount that was asked.
        done: bool,
    },
}

/// What else must change together with the attempt, in the same transaction where it is a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Post the pending transfer, at this attempt's amount; what a capture leaves is released.
    PostPending,
    /// Void the pending transfer.
    VoidPending,
    /// The amount is reserved on the card: note until when.
    Hold,
    /// The intent is paid: settle the request, issue the receipt.
    Settle,
    /// The intent failed or was voided: give the request free again.
    Release,
    /// Send the same bytes again.
    SendAgain,
    /// Ask the acquirer about our reference later.
    AskLater,
    /// The acquirer contradicts what stands: a person must look. Changes no money by itself.
    Conflict,
}

/// Bounds of reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconcilePolicy {
    /// "Not found" counts for nothing before this much time after the last send.
    pub not_found_grace: Duration,
    /// The same bytes may be sent again within this time after the first dispatch; the acquirer keeps keys no longer.
    pub resend_window: Duration,
    /// How often an attempt may be sent, the first time included.
    pub max_sends: u32,
}

/// One step: consumes the attempt, returns it as it stands after `event`, and what must happen with it. Its version counts up only
/// if its state changed. A terminal attempt never changes: what agrees with it is a duplicate and has no effects, what
/// contradicts it is a `Conflict`.
pub fn step(
    policy: &ReconcilePolicy,
    now: Timestamp,
    attempt: Attempt,
    event: AttemptEvent,
) -> Result<(Attempt, Vec<Effect>), TransitionError> {
    let Attempt { operation, amount, state, version, .. } = attempt;
    let before = state.clone();
    let asked = Asked { operation, amount };
    let (state, effects) = match state {
        AttemptState::Prepared => from_prepared(now, asked, event)?,
        AttemptState::Dispatched { at, key, hash, sends, last_sent } => {
            from_sent(policy, now, asked, Sent { at, key, hash, sends, last_sent, silent: false }, event)?
        }
        AttemptState::NeedsReconciliation { at, key, hash, sends, last_sent } => {
            from_sent(policy, now, asked, Sent { at, key, hash, sends, last_sent, silent: true }, event)?
        }
        AttemptState::Conflicted { at, key, hash, sends, last_sent, charged, gateway_reference } => {
            let sent = Sent { at, key, hash, sends, last_sent, silent: true };
            from_conflicted(now, asked, sent, Did { charged, gateway_reference }, event)?
        }
        AttemptState::Succeeded { .. } | AttemptState::Declined { .. } | AttemptState::Reversed { .. } => {
            let effects = from_terminal(amount, &state, event)?;
            (state, effects)
        }
    };
    let version = if state == before { version } else { version.saturating_add(1) };
    Ok((Attempt { state, version, ..attempt }, effects))
}

/// Why an event can't happen now. Money has not moved because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// The acquirer speaks of what it was never sent.
    #[error("the acquirer answered what was never sent")]
    NeverSent,
    /// Sent once already: a second first send could move money twice.
    #[error("it was already sent; it can only be sent again with the same bytes")]
    AlreadySent,
    /// A re-send with other bytes would be another operation.
    #[error("sending again needs the very same bytes as the first time")]
    OtherBytes,
    /// Too late or too often to send again.
    #[error("it may not be sent again: too late or too often")]
    NoMoreSends,
    /// It ended already.
    #[error("it has ended already")]
    Ended,
    /// A person decides only where the acquirer's words do not fit together.
    #[error("there is no conflict to resolve; what is in doubt the acquirer is asked about")]
    NoConflict,
}

/// What was asked of the acquirer.
#[derive(Clone, Copy)]
struct Asked {
    operation: Operation,
    amount: Money,
}

impl Asked {
    fn done(self, now: Timestamp, gateway_reference: String) -> (AttemptState, Vec<Effect>) {
        let effects = match self.operation {
            Operation::Charge | Operation::Capture => vec![Effect::PostPending, Effect::Settle],
            Operation::Authorise => vec![Effect::Hold],
            Operation::Void => vec![Effect::VoidPending, Effect::Release],
            Operation::Refund => vec![Effect::PostPending],
        };
        (AttemptState::Succeeded { at: now, gateway_reference }, effects)
    }

    fn declined(self, now: Timestamp, reason: DeclineReason) -> (AttemptState, Vec<Effect>) {
        (AttemptState::Declined { at: now, reason }, self.undone())
    }

    fn reversed(self, now: Timestamp) -> (AttemptState, Vec<Effect>) {
        (AttemptState::Reversed { at: now }, self.undone())
    }

    /// What goes with not being done. A capture or void that was not done leaves the authorisation as it stood.
    fn undone(self) -> Vec<Effect> {
        match self.operation {
            Operation::Charge | Operation::Authorise => vec![Effect::VoidPending, Effect::Release],
            Operation::Capture | Operation::Void => vec![],
            Operation::Refund => vec![Effect::VoidPending],
        }
    }
}

struct Sent {
    at: Timestamp,
    key: GatewayKey,
    hash: RequestHash,
    sends: u32,
    last_sent: Timestamp,
    /// Whether an answer was waited for in vain.
    silent: bool,
}

impl Sent {
    fn into_state(self) -> AttemptState {
        let Self { at, key, hash, sends, last_sent, silent } = self;
        if silent {
            AttemptState::NeedsReconciliation { at, key, hash, sends, last_sent }
        } else {
            AttemptState::Dispatched { at, key, hash, sends, last_sent }
        }
    }

    fn into_conflict(self, did: Did) -> AttemptState {
        let Self { at, key, hash, sends, last_sent, silent: _ } = self;
        let Did { charged, gateway_reference } = did;
        AttemptState::Conflicted { at, key, hash, sends, last_sent, charged, gateway_reference }
    }

    fn may_send_again(&self, policy: &ReconcilePolicy, now: Timestamp) -> bool {
        // A clock that was set back makes the window look open that has closed: wait until it has caught up.
        now >= self.last_sent && self.sends < policy.max_sends && now.since(self.at) < policy.resend_window
    }
}

/// What the acquirer says it did instead of what was asked.
struct Did {
    charged: Money,
    gateway_reference: Option<String>,
}

type Stepped = Result<(AttemptState, Vec<Effect>), TransitionError>;

fn from_prepared(now: Timestamp, asked: Asked, event: AttemptEvent) -> Stepped {
    match event {
        AttemptEvent::Dispatch { key, hash } => {
            Ok((AttemptState::Dispatched { at: now, key, hash, sends: 1, last_sent: now }, vec![]))
        }
        AttemptEvent::Abandon => Ok(asked.declined(now, DeclineReason::NotSent)),
        AttemptEvent::Resend { .. } | AttemptEvent::Answer(_) | AttemptEvent::Found(_) => Err(TransitionError::NeverSent),
        AttemptEvent::Resolve { .. } => Err(TransitionError::NoConflict),
    }
}

fn from_sent(policy: &ReconcilePolicy, now: Timestamp, asked: Asked, mut sent: Sent, event: AttemptEvent) -> Stepped {
    let (word, question) = match event {
        AttemptEvent::Dispatch { .. } | AttemptEvent::Abandon => return Err(TransitionError::AlreadySent),
        AttemptEvent::Resolve { .. } => return Err(TransitionError::NoConflict),
        AttemptEvent::Resend { hash } => {
            if hash != sent.hash {
                return Err(TransitionError::OtherBytes);
            }
            if !sent.may_send_again(policy, now) {
                return Err(TransitionError::NoMoreSends);
            }
            sent.sends = sent.sends.saturating_add(1);
            sent.last_sent = now;
            return Ok((sent.into_state(), vec![]));
        }
        AttemptEvent::Answer(word) => (word, false),
        AttemptEvent::Found(word) => (word, true),
    };
    match word {
        BankWord::Approved { charged, gateway_reference } if charged == asked.amount => Ok(asked.done(now, gateway_reference)),
        BankWord::Approved { charged, gateway_reference } => {
            let did = Did { charged, gateway_reference: Some(gateway_reference) };
            Ok((sent.into_conflict(did), vec![Effect::Conflict, Effect::AskLater]))
        }
        BankWord::Declined(reason) => Ok(asked.declined(now, reason)),
        BankWord::Reversed => Ok(asked.reversed(now)),
        BankWord::NotFound if question => Ok(not_found(policy, now, asked, sent)),
        // The question failed: nothing is known that was not known before.
        BankWord::Silence if question => Ok((sent.into_state(), vec![Effect::AskLater])),
        BankWord::Silence | BankWord::NotFound | BankWord::StillWorking => {
            sent.silent = true;
            Ok((sent.into_state(), vec![Effect::AskLater]))
        }
    }
}

fn not_found(policy: &ReconcilePolicy, now: Timestamp, asked: Asked, sent: Sent) -> (AttemptState, Vec<Effect>) {
    // Too early to mean anything: what was sent may still be on its way.
    if now.since(sent.last_sent) < policy.not_found_grace {
        return (sent.into_state(), vec![Effect::AskLater]);
    }
    if sent.may_send_again(policy, now) {
        return (sent.into_state(), vec![Effect::SendAgain]);
    }
    // Sent as often as allowed; the acquirer may still find it while it keeps the key.
    if now.since(sent.at) < policy.resend_window {
        return (sent.into_state(), vec![Effect::AskLater]);
    }
    asked.declined(now, DeclineReason::NeverReceived)
}

fn from_conflicted(now: Timestamp, asked: Asked, sent: Sent, did: Did, event: AttemptEvent) -> Stepped {
    let word = match event {
        AttemptEvent::Dispatch { .. } | AttemptEvent::Abandon => return Err(TransitionError::AlreadySent),
        // The acquirer holds something under our key: sending again could only make it worse.
        AttemptEvent::Resend { .. } => return Err(TransitionError::NoMoreSends),
        AttemptEvent::Resolve { done: true } => {
            return Ok(asked.done(now, did.gateway_reference.unwrap_or_else(|| UNKNOWN_REFERENCE.to_owned())));
        }
        AttemptEvent::Resolve { done: false } => return Ok(asked.declined(now, DeclineReason::FoundNotCharged)),
        AttemptEvent::Answer(word) | AttemptEvent::Found(word) => word,
    };
    match word {
        BankWord::Approved { charged, gateway_reference } if charged == asked.amount => Ok(asked.done(now, gateway_reference)),
        BankWord::Approved { charged, gateway_reference } => {
            let did = Did { charged, gateway_reference: Some(gateway_reference) };
            Ok((sent.into_conflict(did), vec![Effect::Conflict, Effect::AskLater]))
        }
        BankWord::Reversed => Ok(asked.reversed(now)),
        // A "declined" contradicts the acquirer's own earlier word.
        BankWord::Declined(_) => Ok((sent.into_conflict(did), vec![Effect::Conflict, Effect::AskLater])),
        BankWord::NotFound | BankWord::Silence | BankWord::StillWorking => Ok((sent.into_conflict(did), vec![Effect::AskLater])),
    }
}

fn from_terminal(amount: Money, state: &AttemptState, event: AttemptEvent) -> Result<Vec<Effect>, TransitionError> {
    let word = match event {
        AttemptEvent::Dispatch { .. } | AttemptEvent::Resend { .. } | AttemptEvent::Abandon | AttemptEvent::Resolve { .. } => {
            return Err(TransitionError::Ended);
        }
        AttemptEvent::Answer(word) | AttemptEvent::Found(word) => word,
    };
    let agrees = match (&word, state) {
        (BankWord::Approved { charged, gateway_reference: heard }, AttemptState::Succeeded { gateway_reference, .. }) => {
            *charged == amount && heard == gateway_reference
        }
        (BankWord::Approved { .. }, _) => false,
        // What was taken back had been charged; what was declined or never made can't be taken back.
        (BankWord::Reversed, AttemptState::Reversed { .. }) => true,
        (BankWord::Reversed, _) => false,
        (BankWord::Declined(_), AttemptState::Declined { .. } | AttemptState::Reversed { .. }) => true,
        (BankWord::Declined(_), _) => false,
        (BankWord::NotFound | BankWord::Silence | BankWord::StillWorking, _) => true,
    };
    Ok(if agrees { vec![] } else { vec![Effect::Conflict] })
}

#[cfg(test)]
mod tests;
