//! What both sides of a deduction must agree on, and the names by which they speak of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{InstructionId, RequestId};
use crate::money::Money;

/// What a payment and the bank's message must have in common, beside the reference that both stand under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// How much.
    pub amount: Money,
    /// From which account.
    pub account: Account,
}

impl Facts {
    /// The first thing in which `other` differs.
    pub(super) fn differs(&self, other: &Self) -> Option<Reason> {
        if self.amount.currency != other.amount.currency {
            Some(Reason::Currency)
        } else if self.amount != other.amount {
            Some(Reason::Amount)
        } else if self.account != other.account {
            Some(Reason::Account)
        } else {
            None
        }
    }
}

/// Stands for a card's account: the first 16 bytes of HMAC-SHA256 over the card number, under a key that the bank and we share,
/// in lower-case hexadecimal. Both sides compute it, so that no number travels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Account(String);

impl Account {
    /// How many bytes it stands for.
    pub const BYTES: usize = 16;

    /// From the bytes.
    pub fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(hex::encode(bytes))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Account {
    type Err = FactError;
    fn from_str(text: &str) -> Result<Self, FactError> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 2 * Self::BYTES && text.bytes().all(hex) { Ok(Self(text.to_owned())) } else { Err(FactError::Account) }
    }
}

/// What the bank calls a message: the same one however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageId(String);

impl MessageId {
    /// The longest, in characters.
    pub const LIMIT_CHARS: usize = 64;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MessageId {
    type Err = FactError;
    fn from_str(text: &str) -> Result<Self, FactError> {
        // Signatures are made over `id.timestamp.body`: a full stop within the id would leave open where it ends.
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let ok = (1..=Self::LIMIT_CHARS).contains(&text.len()) && text.bytes().all(fits);
        if ok { Ok(Self(text.to_owned())) } else { Err(FactError::MessageId) }
    }
}

/// Texts that are checked when they are read, and plain text when they are written.
macro_rules! text {
    ($($name:ident),+) => {
        $(
            impl TryFrom<String> for $name {
                type Error = FactError;
                fn try_from(text: String) -> Result<Self, FactError> {
                    text.parse()
                }
            }

            impl From<$name> for String {
                fn from(value: $name) -> String {
                    value.0
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }
        )+
    };
}
text!(Account, MessageId);

/// A text that is no account or message id. Neither is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactError {
    /// No account.
    #[error("an account is 32 lower-case hexadecimal digits")]
    Account,
    /// No message id.
    #[error("a message id has 1 to {limit} letters, digits, `_` and `-`", limit = MessageId::LIMIT_CHARS)]
    MessageId,
}

/// The bank has heard from the payee that so much is to be deducted from this account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What the bank calls it.
    pub id: MessageId,
    /// What is to be deducted.
    pub facts: Facts,
    /// When the bank wrote it.
    pub at: Timestamp,
}

/// Why a message waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A customer confirmed a payment of another amount.
    Amount,
    /// A customer confirmed a payment in another currency.
    Currency,
    /// A customer confirmed a payment from another account.
    Account,
    /// No customer confirmed a payment in time.
    NoPayment,
    /// It would have fitted a payment that had waited for it in vain.
    Late,
    /// Its id belongs to a message that says something else.
    IdReused,
    /// Another message says the same, and waits or has led to an instruction.
    Duplicate,
    /// More than one payment would fit.
    Ambiguous,
}

impl Reason {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Amount => "the customer confirmed another amount",
            Self::Currency => "the customer confirmed another currency",
            Self::Account => "the customer confirmed another account",
            Self::NoPayment => "no customer confirmed a payment in time",
            Self::Late => "the payment had waited for it in vain",
            Self::IdReused => "its id belongs to a message that says something else",
            Self::Duplicate => "another message says the same",
            Self::Ambiguous => "more than one payment would fit",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What the bank is told to do. Everything in it was committed before, so that it is the same, to the byte, however often it is
/// sent and by whichever node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instruction {
    /// Which one: the bank carries it out once.
    pub id: InstructionId,
    /// To deduct, or to give back.
    pub kind: InstructionKind,
    /// The payment request.
    pub reference: RequestId,
    /// The bank's message about the deduction.
    pub message: MessageId,
    /// How much; and from or to which account.
    pub facts: Facts,
    /// When it was decided.
    pub at: Timestamp,
}

/// What an instruction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InstructionKind {
    /// Take the money.
    Deduct,
    /// Give it back, or a part of it.
    Refund,
}

/// What the bank says of an instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Answer {
    /// Carried out.
    Done {
        /// With this amount: the instruction's, unless the bank says another.
        amount: Money,
    },
    /// Not carried out, and it won't be.
    Refused {
        /// In the bank's words, at most [`ANSWER_REASON_LIMIT_CHARS`] long.
        reason: String,
    },
}

/// How many characters the bank's reason may have; whoever reads it cuts the rest off.
pub const ANSWER_REASON_LIMIT_CHARS: usize = 200;
