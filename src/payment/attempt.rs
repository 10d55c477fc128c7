//! One try at charging an intent: `Prepared → Dispatched → Succeeded | Declined | NeedsReconciliation → (… | Reversed)`.
//!
//! `Dispatched` is committed before a byte leaves for the acquirer; found after a crash it means "perhaps charged". From there only
//! the acquirer's word about *our* reference moves it on: an error while asking changes nothing, "not found" means nothing before a
//! grace time has passed, and an approval of another amount or currency is no success.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{AttemptId, IntentId};
use crate::money::Money;

/// One try at charging an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which one. Its text is also *our reference* at the acquirer.
    pub id: AttemptId,
    /// For which intent.
    pub intent: IntentId,
    /// What is to be charged; what the acquirer reports must equal it.
    pub amount: Money,
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
    /// Sent, and the outcome is in doubt.
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
        /// What is in doubt.
        doubt: Doubt,
    },
    /// Charged. Terminal.
    Succeeded {
        /// When we recorded it.
        at: Timestamp,
        /// What the acquirer calls the charge.
        gateway_reference: String,
    },
    /// Not charged, and it won't be. Terminal.
    Declined {
        /// When we recorded it.
        at: Timestamp,
        /// Why.
        reason: DeclineReason,
    },
    /// Charged and taken back by the acquirer. Terminal.
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
            Self::Succeeded { .. } => "succeeded",
            Self::Declined { .. } => "declined",
            Self::Reversed { .. } => "reversed",
        }
    }

    /// Whether nothing can change it any more.
    pub fn terminal(&self) -> bool {
        match self {
            Self::Prepared | Self::Dispatched { .. } | Self::NeedsReconciliation { .. } => false,
            Self::Succeeded { .. } | Self::Declined { .. } | Self::Reversed { .. } => true,
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

/// Why a charge was declined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeclineReason {
    /// Not enough money.
    InsufficientFunds,
    /// The card's date has passed.
    ExpiredCard,
    /// The issuer gives no reason.
    DoNotHonour,
    /// The acquirer does not know the card.
    UnknownCard,
    /// The acquirer refused it for another reason.
    Other,
    /// It was never sent: the card was blocked, revoked, deleted or could not be unsealed.
    NotSent,
    /// The acquirer never received it.
    NeverReceived,
}

impl DeclineReason {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::InsufficientFunds => "insufficient funds",
            Self::ExpiredCard => "expired card",
            Self::DoNotHonour => "do not honour",
            Self::UnknownCard => "unknown card",
            Self::Other => "declined by the acquirer",
            Self::NotSent => "never sent: the card was no longer usable",
            Self::NeverReceived => "never received by the acquirer",
        }
    }
}

impl fmt::Display for DeclineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "doubt", rename_all = "snake_case")]
pub enum Doubt {
    /// No answer, or one that says nothing about the charge.
    NoAnswer,
    /// Approved, but another amount or currency: a person has to look unless the acquirer corrects itself.
    Mismatch {
        /// What the acquirer says it charged.
        charged: Money,
    },
}

/// What the acquirer says, in answer to a charge or to a question about our reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BankWord {
    /// Charged this much.
    Approved { charged: Money, gateway_reference: String },
    /// Not charged.
    Declined(DeclineReason),
    /// Charged and taken back.
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
    /// The acquirer spoke.
    Bank(BankWord),
}

/// What else must change together with the attempt, in the same transaction where it is a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Post the pending transfer.
    PostPending,
    /// Void the pending transfer.
    VoidPending,
    /// The intent is paid: settle the request, issue the receipt.
    Settle,
    /// The intent failed: give the request free again.
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

/// One step: consumes the attempt, returns it as it stands after `event`, and what must happen with it.
/// A terminal attempt never changes: what agrees with it is a duplicate and has no effects, what contradicts it is a `Conflict`.
pub fn step(
    policy: &ReconcilePolicy,
    now: Timestamp,
    attempt: Attempt,
    event: AttemptEvent,
) -> Result<(Attempt, Vec<Effect>), TransitionError> {
    let Attempt { id, intent, amount, state, version } = attempt;
    let (state, effects) = match state {
        AttemptState::Prepared => from_prepared(now, event)?,
        AttemptState::Dispatched { at, key, hash, sends, last_sent } => {
            from_sent(policy, now, amount, Sent { at, key, hash, sends, last_sent, doubt: None }, event)?
        }
        AttemptState::NeedsReconciliation { at, key, hash, sends, last_sent, doubt } => {
            from_sent(policy, now, amount, Sent { at, key, hash, sends, last_sent, doubt: Some(doubt) }, event)?
        }
        AttemptState::Succeeded { .. } | AttemptState::Declined { .. } | AttemptState::Reversed { .. } => {
            let effects = from_terminal(amount, &state, event)?;
            return Ok((Attempt { id, intent, amount, state, version }, effects));
        }
    };
    Ok((Attempt { id, intent, amount, state, version: version.saturating_add(1) }, effects))
}

/// Why an event can't happen now. Money has not moved because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// The acquirer speaks of what it was never sent.
    #[error("the acquirer answered a charge that was never sent")]
    NeverSent,
    /// Sent once already: a second first send could charge twice.
    #[error("the charge was already sent; it can only be sent again with the same bytes")]
    AlreadySent,
    /// A re-send with other bytes would be another charge.
    #[error("sending again needs the very same bytes as the first time")]
    OtherBytes,
    /// Too late or too often to send again.
    #[error("the charge may not be sent again: too late or too often")]
    NoMoreSends,
    /// It ended already.
    #[error("the charge has ended already")]
    Ended,
}

struct Sent {
    at: Timestamp,
    key: GatewayKey,
    hash: RequestHash,
    sends: u32,
    last_sent: Timestamp,
    doubt: Option<Doubt>,
}

impl Sent {
    fn into_state(self) -> AttemptState {
        let Self { at, key, hash, sends, last_sent, doubt } = self;
        match doubt {
            None => AttemptState::Dispatched { at, key, hash, sends, last_sent },
            Some(doubt) => AttemptState::NeedsReconciliation { at, key, hash, sends, last_sent, doubt },
        }
    }

    fn may_send_again(&self, policy: &ReconcilePolicy, now: Timestamp) -> bool {
        // After a mismatch the acquirer holds a charge under our key: sending again could only make it worse.
        let mismatch = matches!(self.doubt, Some(Doubt::Mismatch { .. }));
        !mismatch && self.sends < policy.max_sends && now.since(self.at) < policy.resend_window
    }
}

type Stepped = Result<(AttemptState, Vec<Effect>), TransitionError>;

fn from_prepared(now: Timestamp, event: AttemptEvent) -> Stepped {
    match event {
        AttemptEvent::Dispatch { key, hash } => {
            Ok((AttemptState::Dispatched { at: now, key, hash, sends: 1, last_sent: now }, vec![]))
        }
        AttemptEvent::Abandon => {
            Ok((AttemptState::Declined { at: now, reason: DeclineReason::NotSent }, vec![Effect::VoidPending, Effect::Release]))
        }
        AttemptEvent::Resend { .. } | AttemptEvent::Bank(_) => Err(TransitionError::NeverSent),
    }
}

fn from_sent(policy: &ReconcilePolicy, now: Timestamp, amount: Money, mut sent: Sent, event: AttemptEvent) -> Stepped {
    let word = match event {
        AttemptEvent::Dispatch { .. } | AttemptEvent::Abandon => return Err(TransitionError::AlreadySent),
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
        AttemptEvent::Bank(word) => word,
    };
    match word {
        BankWord::Approved { charged, gateway_reference } if charged == amount => {
            Ok((AttemptState::Succeeded { at: now, gateway_reference }, vec![Effect::PostPending, Effect::Settle]))
        }
        BankWord::Approved { charged, .. } => {
            sent.doubt = Some(Doubt::Mismatch { charged });
            Ok((sent.into_state(), vec![Effect::Conflict, Effect::AskLater]))
        }
        // A "declined" after a reported mismatch contradicts the acquirer's own earlier word: a person must look.
        BankWord::Declined(_) if matches!(sent.doubt, Some(Doubt::Mismatch { .. })) => {
            Ok((sent.into_state(), vec![Effect::Conflict, Effect::AskLater]))
        }
        BankWord::Declined(reason) => {
            Ok((AttemptState::Declined { at: now, reason }, vec![Effect::VoidPending, Effect::Release]))
        }
        BankWord::Reversed => Ok((AttemptState::Reversed { at: now }, vec![Effect::VoidPending, Effect::Release])),
        BankWord::StillWorking | BankWord::Silence => {
            sent.doubt = sent.doubt.or(Some(Doubt::NoAnswer));
            Ok((sent.into_state(), vec![Effect::AskLater]))
        }
        BankWord::NotFound => {
            sent.doubt = sent.doubt.or(Some(Doubt::NoAnswer));
            let mismatch = matches!(sent.doubt, Some(Doubt::Mismatch { .. }));
            // Too early to mean anything: the charge may still be on its way.
            if now.since(sent.last_sent) < policy.not_found_grace || mismatch {
                return Ok((sent.into_state(), vec![Effect::AskLater]));
            }
            if sent.may_send_again(policy, now) {
                return Ok((sent.into_state(), vec![Effect::SendAgain]));
            }
            if now.since(sent.at) < policy.resend_window {
                return Ok((sent.into_state(), vec![Effect::AskLater]));
            }
            Ok((
                AttemptState::Declined { at: now, reason: DeclineReason::NeverReceived },
                vec![Effect::VoidPending, Effect::Release],
            ))
        }
    }
}

fn from_terminal(amount: Money, state: &AttemptState, event: AttemptEvent) -> Result<Vec<Effect>, TransitionError> {
    let word = match event {
        AttemptEvent::Dispatch { .. } | AttemptEvent::Resend { .. } | AttemptEvent::Abandon => {
            return Err(TransitionError::Ended);
        }
        AttemptEvent::Bank(word) => word,
    };
    let agrees = match (&word, state) {
        (BankWord::Approved { charged, gateway_reference: heard }, AttemptState::Succeeded { gateway_reference, .. }) => {
            *charged == amount && heard == gateway_reference
        }
        (BankWord::Approved { .. }, _) => false,
        // A charge that was taken back had been approved; one that was declined or never made can't be taken back.
        (BankWord::Reversed, AttemptState::Reversed { .. }) => true,
        (BankWord::Reversed, _) => false,
        (BankWord::Declined(_), AttemptState::Declined { .. } | AttemptState::Reversed { .. }) => true,
        (BankWord::Declined(_), _) => false,
        (BankWord::NotFound | BankWord::Silence | BankWord::StillWorking, _) => true,
    };
    Ok(if agrees { vec![] } else { vec![Effect::Conflict] })
}
