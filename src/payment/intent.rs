//! A payment intent: the customer said yes to one request, one amount, one card, on one occasion.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{ApprovalId, CallId, CardId, CodeId, CustomerId, IdError, IntentId, PayeeId, PurchaseId, RequestId};
use crate::money::Money;

use super::attempt::{Attempt, AttemptState, Operation};

/// The customer set out to pay a request. Its fields never change; its status follows its attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Which one.
    pub id: IntentId,
    /// Who pays.
    pub customer: CustomerId,
    /// What is paid.
    pub request: RequestId,
    /// Who gets the money.
    pub payee: PayeeId,
    /// With which card.
    pub card: CardId,
    /// The card's last four digits, for receipts after the card is gone.
    pub last4: String,
    /// By what the customer said yes: the same occasion pays the same request once.
    pub occasion: Occasion,
    /// How much, as it was read back and agreed.
    pub amount: Money,
    /// Whether it is charged at once, or authorised now and captured later.
    pub capture: Capture,
    /// Until when an authorisation may be captured; set once it was authorised. Unused till then, it is voided.
    pub authorisation_expires_at: Option<Timestamp>,
    /// Where it stands.
    pub status: IntentStatus,
    /// When the customer said yes.
    pub created_at: Timestamp,
}

/// By what a customer said yes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Occasion {
    /// In a call, by voice.
    Call(CallId),
    /// Together with others, who agreed when the customer's call was over.
    Approval(ApprovalId),
    /// By a one-time code, without a call.
    Code(CodeId),
    /// By confirming a purchase, without a call.
    Purchase(PurchaseId),
}

impl Occasion {
    /// As a row stores it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Call(id) => id.as_str(),
            Self::Approval(id) => id.as_str(),
            Self::Code(id) => id.as_str(),
            Self::Purchase(id) => id.as_str(),
        }
    }
}

impl From<CallId> for Occasion {
    fn from(call: CallId) -> Self {
        Self::Call(call)
    }
}

impl TryFrom<String> for Occasion {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        let approval = ApprovalId::parse(&text).map(Self::Approval);
        let code = || CodeId::parse(&text).map(Self::Code);
        let purchase = || PurchaseId::parse(&text).map(Self::Purchase);
        approval.or_else(|_| code()).or_else(|_| purchase()).or_else(|_| CallId::parse(&text).map(Self::Call))
    }
}

impl std::str::FromStr for Occasion {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        text.to_owned().try_into()
    }
}

impl From<Occasion> for String {
    fn from(occasion: Occasion) -> Self {
        occasion.as_str().to_owned()
    }
}

impl std::fmt::Display for Occasion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When the money is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// With the authorisation, in one.
    #[default]
    Automatic,
    /// By a command, after the authorisation.
    Manual,
}

impl Capture {
    /// As a row stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Manual => "manual",
        }
    }

    /// Back from a row.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Automatic, Self::Manual].into_iter().find(|c| c.as_str() == text)
    }

    /// What such a payment begins with.
    pub fn opening(self) -> Operation {
        match self {
            Self::Automatic => Operation::Charge,
            Self::Manual => Operation::Authorise,
        }
    }
}

/// What an intent means for its request. Everything finer ([`super::Standing`]) is derived from the attempts, so that it can't disagree with
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentStatus {
    /// It holds the request: an attempt is live, or an authorisation stands.
    Pending,
    /// It has paid the request, once. A refund later does not change that.
    Paid,
    /// It let the request go: declined, voided, reversed.
    Failed,
}

impl IntentStatus {
    /// As a row stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Paid => "paid",
            Self::Failed => "failed",
        }
    }

    /// Back from a row.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Paid, Self::Failed].into_iter().find(|s| s.as_str() == text)
    }

    /// What one attempt's new state makes of it; `None`: it leaves it as it is.
    pub fn after(operation: Operation, state: &AttemptState) -> Option<Self> {
        match state {
            AttemptState::Prepared
            | AttemptState::Dispatched { .. }
            | AttemptState::NeedsReconciliation { .. }
            | AttemptState::Conflicted { .. } => None,
            AttemptState::Succeeded { .. } => match operation {
                Operation::Charge | Operation::Capture => Some(Self::Paid),
                Operation::Void => Some(Self::Failed),
                Operation::Authorise | Operation::Refund => None,
            },
            AttemptState::Declined { .. } | AttemptState::Reversed { .. } => operation.opens().then_some(Self::Failed),
        }
    }

    /// What all its attempts make of it, in the order in which they were written.
    pub fn of(attempts: &[Attempt]) -> Self {
        attempts.iter().filter_map(|a| Self::after(a.operation, &a.state)).next_back().unwrap_or(Self::Pending)
    }
}
