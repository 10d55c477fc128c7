//! What happens to a reference, and what its journal remembers of that.

use serde::{Deserialize, Serialize};

use super::facts::{Answer, Facts, Message, Reason};
use crate::clock::Timestamp;
use crate::ids::AttemptId;
use crate::money::Money;

/// What happens to a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A customer confirmed a payment.
    Confirm {
        /// The attempt to charge it.
        attempt: AttemptId,
        /// What was agreed to.
        facts: Facts,
    },
    /// The bank's message; its signature was checked.
    Message(Message),
    /// The same, but its id came under another reference before.
    MessageSeenElsewhere(Message),
    /// Money is to go back.
    Refund {
        /// The attempt to refund.
        attempt: AttemptId,
        /// The attempt that was charged.
        of: AttemptId,
        /// How much.
        amount: Money,
    },
    /// The bank says what became of an instruction.
    Answer {
        /// Whose instruction.
        attempt: AttemptId,
        /// What it says.
        answer: Answer,
    },
    /// A person found that a message in quarantine belongs to this payment.
    Release {
        /// The message's number.
        case: u32,
        /// The payment's attempt.
        attempt: AttemptId,
        /// Who.
        by: String,
    },
    /// A person found that a message in quarantine belongs to nothing.
    Reject {
        /// The message's number.
        case: u32,
        /// Who.
        by: String,
    },
    /// Nothing but time.
    TimePassed,
}

/// What the journal remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A customer confirmed a payment.
    Confirmed {
        /// The attempt to charge it.
        attempt: AttemptId,
        /// What was agreed to.
        facts: Facts,
    },
    /// A message came, with an id that was never seen.
    Received {
        /// What it says.
        message: Message,
    },
    /// A message came whose id belongs to another one; it is in quarantine.
    Reused {
        /// What it says.
        message: Message,
    },
    /// A message waits for a person.
    Quarantined {
        /// The message's number.
        case: u32,
        /// Why.
        reason: Reason,
    },
    /// A person took a message out of quarantine.
    Released {
        /// The message's number.
        case: u32,
        /// Who.
        by: String,
    },
    /// A person decided that a message leads to nothing.
    Rejected {
        /// The message's number.
        case: u32,
        /// Who.
        by: String,
    },
    /// Both sides agree: the bank is owed an instruction to deduct.
    Matched {
        /// The payment's attempt.
        attempt: AttemptId,
        /// The message's number.
        case: u32,
    },
    /// The bank is owed an instruction to give back.
    RefundOrdered {
        /// The attempt to refund.
        attempt: AttemptId,
        /// The attempt that was charged.
        of: AttemptId,
        /// How much.
        amount: Money,
    },
    /// The bank said what became of an instruction.
    Answered {
        /// Whose instruction.
        attempt: AttemptId,
        /// What it said.
        answer: Answer,
    },
    /// The bank said something else than it had said first.
    Contradicted {
        /// Whose instruction.
        attempt: AttemptId,
        /// What it says now.
        answer: Answer,
    },
    /// A payment waited for its message in vain.
    Expired {
        /// The payment's attempt.
        attempt: AttemptId,
    },
}

impl Event {
    /// As a row stores it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Confirmed { .. } => "confirmed",
            Self::Received { .. } => "received",
            Self::Reused { .. } => "reused",
            Self::Quarantined { .. } => "quarantined",
            Self::Released { .. } => "released",
            Self::Rejected { .. } => "rejected",
            Self::Matched { .. } => "matched",
            Self::RefundOrdered { .. } => "refund_ordered",
            Self::Answered { .. } => "answered",
            Self::Contradicted { .. } => "contradicted",
            Self::Expired { .. } => "expired",
        }
    }
}

/// An event and when it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}
