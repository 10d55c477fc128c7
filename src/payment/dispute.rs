//! A dispute: the cardholder contests a payment at the issuer. The acquirer tells us; we record it and its money, and decide nothing.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{DisputeId, IntentId};
use crate::money::Money;

/// How many characters a reason may have.
pub const REASON_LIMIT_CHARS: usize = 200;
/// How many characters the acquirer's reference may have.
pub const REFERENCE_LIMIT_CHARS: usize = 100;

/// A contested payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispute {
    /// Which one.
    pub id: DisputeId,
    /// Of which payment.
    pub intent: IntentId,
    /// What the acquirer calls it; the same reference is the same dispute.
    pub reference: String,
    /// How much is contested.
    pub amount: Money,
    /// Why, in the acquirer's words.
    pub reason: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Where it stands.
    pub state: DisputeState,
}

/// Where a dispute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DisputeState {
    /// The money is held back until it is decided.
    Opened,
    /// The payee keeps the money.
    Won {
        /// When we recorded it.
        at: Timestamp,
    },
    /// The cardholder gets the money back.
    Lost {
        /// When we recorded it.
        at: Timestamp,
    },
}

impl DisputeState {
    /// As a row stores it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Won { .. } => "won",
            Self::Lost { .. } => "lost",
        }
    }

    /// When it was closed, if it was.
    pub fn closed_at(self) -> Option<Timestamp> {
        match self {
            Self::Opened => None,
            Self::Won { at } | Self::Lost { at } => Some(at),
        }
    }

    /// Back from a row.
    pub fn from_row(name: &str, closed_at: Option<Timestamp>) -> Option<Self> {
        match (name, closed_at) {
            ("opened", None) => Some(Self::Opened),
            ("won", Some(at)) => Some(Self::Won { at }),
            ("lost", Some(at)) => Some(Self::Lost { at }),
            _ => None,
        }
    }
}

impl Dispute {
    /// It was decided. The same decision again changes nothing (`None`); another one is refused.
    pub fn close(self, won: bool, at: Timestamp) -> Result<Option<Self>, DisputeError> {
        match (self.state, won) {
            (DisputeState::Opened, true) => Ok(Some(Self { state: DisputeState::Won { at }, ..self })),
            (DisputeState::Opened, false) => Ok(Some(Self { state: DisputeState::Lost { at }, ..self })),
            (DisputeState::Won { .. }, true) | (DisputeState::Lost { .. }, false) => Ok(None),
            (DisputeState::Won { .. }, false) | (DisputeState::Lost { .. }, true) => {
                Err(DisputeError::Closed { as_what: self.state.name() })
            }
        }
    }

    /// Whether `other` tells of this dispute again.
    pub fn same_as(&self, other: &Self) -> bool {
        self.intent == other.intent && self.reference == other.reference && self.amount == other.amount
    }
}

/// Why a dispute is not recorded so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DisputeError {
    /// Decided otherwise before.
    #[error("the dispute was closed as {as_what} before; a decision does not change")]
    Closed {
        /// `won` or `lost`.
        as_what: &'static str,
    },
    /// The reference is known for another payment or amount.
    #[error("a dispute with this reference is recorded already, for another payment or amount")]
    OtherContent,
    /// Nothing was captured that could be contested, or less than that.
    #[error("{asked} can't be contested: {captured} was captured, and {disputed} of it is contested already")]
    OverCaptured {
        /// What is contested now.
        asked: Money,
        /// What was captured, in minor units of that currency.
        captured: i64,
        /// What is contested already, in minor units.
        disputed: i64,
    },
    /// Too long or empty.
    #[error("{what} must have 1 to {limit} characters")]
    Text {
        /// Which text.
        what: &'static str,
        /// How many it may have.
        limit: usize,
    },
}
