//! Why an acquirer says no, and what the payer may do about it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the payer may do about a decline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// The same again later may go through.
    Retry,
    /// The issuer wants more proof of the payer first.
    StepUp,
    /// The same again will not go through: another card.
    Stop,
}

/// Why it was declined.
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
    /// Reported lost or stolen.
    LostOrStolen,
    /// Above what the card may pay, or too often.
    LimitExceeded,
    /// The issuer wants more proof of the payer.
    NeedsAuthentication,
    /// The issuer could not be reached.
    IssuerUnavailable,
    /// The card may not pay for this.
    NotPermitted,
    /// The acquirer suspects fraud.
    SuspectedFraud,
    /// The amount or currency is none that the acquirer takes, or more than is left to capture or refund.
    InvalidAmount,
    /// The acquirer refused it for another reason.
    Other,
    /// It was never sent: the card was blocked, revoked, deleted or could not be unsealed.
    NotSent,
    /// The acquirer never received it.
    NeverReceived,
    /// A person found that no money had moved, where the acquirer's words did not fit together.
    FoundNotCharged,
    /// The bank did not announce the deduction in time; it was never told to deduct.
    Unannounced,
}

impl DeclineReason {
    /// What may be done about it.
    pub fn advice(self) -> Advice {
        match self {
            Self::InsufficientFunds | Self::LimitExceeded | Self::IssuerUnavailable | Self::NeverReceived | Self::Unannounced => {
                Advice::Retry
            }
            Self::NeedsAuthentication => Advice::StepUp,
            Self::ExpiredCard
            | Self::DoNotHonour
            | Self::UnknownCard
            | Self::LostOrStolen
            | Self::NotPermitted
            | Self::SuspectedFraud
            | Self::InvalidAmount
            | Self::Other
            | Self::NotSent
            | Self::FoundNotCharged => Advice::Stop,
        }
    }

    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::InsufficientFunds => "insufficient funds",
            Self::ExpiredCard => "expired card",
            Self::DoNotHonour => "do not honour",
            Self::UnknownCard => "unknown card",
            Self::LostOrStolen => "lost or stolen",
            Self::LimitExceeded => "limit exceeded",
            Self::NeedsAuthentication => "the issuer wants more proof",
            Self::IssuerUnavailable => "the issuer can't be reached",
            Self::NotPermitted => "not permitted with this card",
            Self::SuspectedFraud => "suspected fraud",
            Self::InvalidAmount => "the acquirer does not take this amount",
            Self::Other => "declined by the acquirer",
            Self::NotSent => "never sent: the card was no longer usable",
            Self::NeverReceived => "never received by the acquirer",
            Self::FoundNotCharged => "not charged, as a person found",
            Self::Unannounced => "the bank did not announce the deduction in time",
        }
    }
}

impl fmt::Display for DeclineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
