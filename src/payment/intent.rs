//! A payment intent: the customer said yes to one request, one amount, one card, in one call.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{CallId, CardId, CustomerId, IntentId, PayeeId, RequestId};
use crate::money::Money;

use super::attempt::AttemptState;

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
    /// In which call the customer said yes.
    pub call: CallId,
    /// How much, as it was read back and agreed.
    pub amount: Money,
    /// Where it stands.
    pub status: IntentStatus,
    /// When the customer said yes.
    pub created_at: Timestamp,
}

/// Where an intent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentStatus {
    /// An attempt is live: nobody knows the end yet.
    Pending,
    /// Charged, once.
    Paid,
    /// Not charged, and it won't be.
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

    /// What its attempt makes of it.
    pub fn of_attempt(state: &AttemptState) -> Self {
        match state {
            AttemptState::Prepared | AttemptState::Dispatched { .. } | AttemptState::NeedsReconciliation { .. } => Self::Pending,
            AttemptState::Succeeded { .. } => Self::Paid,
            AttemptState::Declined { .. } | AttemptState::Reversed { .. } => Self::Failed,
        }
    }
}
