//! What may still be captured, voided or refunded of a payment, and how it stands: both derived from its attempts and disputes, never stored.
//! What is under way counts as taken, so that two refunds in flight can never exceed what was captured.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::money::{Currency, Money};

use super::attempt::{Attempt, AttemptState, Operation};
use super::dispute::{Dispute, DisputeState};
use super::intent::Intent;

/// Sums of one payment, in minor units of its currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// In which currency.
    pub currency: Currency,
    /// Reserved on the card by an authorisation, captured or not.
    pub authorised: i64,
    /// Taken from the card.
    pub captured: i64,
    /// Whether the authorisation was captured or voided, or is about to be.
    pub ended: bool,
    /// Given back, or about to be.
    pub refund_taken: i64,
    /// Given back for certain.
    pub refunded: i64,
    /// Contested and not decided.
    pub disputed: i64,
    /// Contested and lost.
    pub charged_back: i64,
}

impl Balance {
    /// Adds up. Amounts in another currency than the payment's don't count: none can exist.
    pub fn of(intent: &Intent, attempts: &[Attempt], disputes: &[Dispute]) -> Self {
        let currency = intent.amount.currency;
        let mut b = Self {
            currency,
            authorised: 0,
            captured: 0,
            ended: false,
            refund_taken: 0,
            refunded: 0,
            disputed: 0,
            charged_back: 0,
        };
        for attempt in attempts.iter().filter(|a| a.amount.currency == currency) {
            let minor = attempt.amount.minor.get();
            let (takes, done) = (attempt.state.takes(), attempt.state.done());
            match attempt.operation {
                Operation::Charge if done => b.captured = b.captured.saturating_add(minor),
                Operation::Authorise if done => b.authorised = b.authorised.saturating_add(minor),
                Operation::Capture | Operation::Void => {
                    b.ended |= takes;
                    if done && attempt.operation == Operation::Capture {
                        b.captured = b.captured.saturating_add(minor);
                    }
                }
                Operation::Refund => {
                    if takes {
                        b.refund_taken = b.refund_taken.saturating_add(reach(attempt));
                    }
                    if done {
                        b.refunded = b.refunded.saturating_add(minor);
                    }
                }
                Operation::Charge | Operation::Authorise => {}
            }
        }
        for dispute in disputes.iter().filter(|d| d.amount.currency == currency) {
            let minor = dispute.amount.minor.get();
            match dispute.state {
                DisputeState::Opened => b.disputed = b.disputed.saturating_add(minor),
                DisputeState::Lost { .. } => b.charged_back = b.charged_back.saturating_add(minor),
                DisputeState::Won { .. } => {}
            }
        }
        b
    }

    /// What may be captured now, in minor units; 0: nothing. A capture of less releases the rest.
    pub fn capturable(&self) -> i64 {
        if self.ended { 0 } else { self.authorised }
    }

    /// What may be refunded now, in minor units. What is contested is not: it could be given back twice.
    pub fn refundable(&self) -> i64 {
        let gone = self.refund_taken.saturating_add(self.disputed).saturating_add(self.charged_back);
        self.captured.saturating_sub(gone).max(0)
    }

    /// What may be contested now, in minor units. A cardholder may contest what was refunded: that is for the acquirer to decide.
    pub fn disputable(&self) -> i64 {
        self.captured.saturating_sub(self.disputed.saturating_add(self.charged_back)).max(0)
    }

    /// How much a capture, void or refund may be of, if `amount` is asked (`None`: all that is left).
    pub fn judge(&self, operation: Operation, amount: Option<Money>) -> Result<Money, OperationRefusal> {
        let left = match operation {
            Operation::Charge | Operation::Authorise => return Err(OperationRefusal::NotAfterwards),
            Operation::Capture | Operation::Void => self.capturable(),
            Operation::Refund => self.refundable(),
        };
        let nothing = || match operation {
            Operation::Refund if self.captured == 0 => OperationRefusal::NothingCaptured,
            Operation::Refund => OperationRefusal::NothingLeftToRefund,
            Operation::Charge | Operation::Authorise | Operation::Capture | Operation::Void if self.authorised == 0 => {
                OperationRefusal::NotAuthorised
            }
            Operation::Charge | Operation::Authorise | Operation::Capture | Operation::Void => OperationRefusal::AlreadyEnded,
        };
        let left = Money::new(left, self.currency).map_err(|_| nothing())?;
        let Some(amount) = amount else { return Ok(left) };
        if amount.currency != self.currency {
            return Err(OperationRefusal::OtherCurrency { asked: amount.currency, paid: self.currency });
        }
        if amount.minor > left.minor {
            return Err(OperationRefusal::OverWhatIsLeft { asked: amount, left });
        }
        if operation == Operation::Void && amount != left {
            return Err(OperationRefusal::VoidInPart);
        }
        Ok(amount)
    }

    /// What a capture, void or refund refers to.
    pub fn original(operation: Operation, attempts: &[Attempt]) -> Option<&Attempt> {
        let fits = |of: Operation| match operation {
            Operation::Charge | Operation::Authorise => false,
            Operation::Capture | Operation::Void => of == Operation::Authorise,
            Operation::Refund => of == Operation::Charge || of == Operation::Capture,
        };
        attempts.iter().find(|a| fits(a.operation) && a.state.done())
    }
}

/// Judges a capture, void or refund against all that is known of the payment at `now`: how much it is of, and which attempt it refers to.
/// `amount` `None`: all that is left.
pub fn judge<'a>(
    now: Timestamp,
    (intent, attempts, disputes): (&Intent, &'a [Attempt], &[Dispute]),
    operation: Operation,
    amount: Option<Money>,
    gateway: &str,
) -> Result<(Money, &'a Attempt), OperationRefusal> {
    let amount = Balance::of(intent, attempts, disputes).judge(operation, amount)?;
    if operation == Operation::Capture
        && let Some(at) = intent.authorisation_expires_at.filter(|at| now >= *at)
    {
        return Err(OperationRefusal::AuthorisationExpired { at });
    }
    let original = Balance::original(operation, attempts).ok_or(OperationRefusal::NotAuthorised)?;
    if original.gateway == gateway {
        Ok((amount, original))
    } else {
        Err(OperationRefusal::OtherGateway { at: original.gateway.clone() })
    }
}

/// How much money a refund may have moved: what was asked, or what the acquirer says where that is more.
fn reach(attempt: &Attempt) -> i64 {
    let asked = attempt.amount.minor.get();
    match &attempt.state {
        AttemptState::Conflicted { charged, .. } if charged.currency == attempt.amount.currency => asked.max(charged.minor.get()),
        AttemptState::Conflicted { .. }
        | AttemptState::Prepared
        | AttemptState::Dispatched { .. }
        | AttemptState::NeedsReconciliation { .. }
        | AttemptState::Succeeded { .. }
        | AttemptState::Declined { .. }
        | AttemptState::Reversed { .. } => asked,
    }
}

/// Why a capture, void or refund is refused. Nothing was written and no money moves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperationRefusal {
    /// There is no such payment.
    #[error("there is no such payment")]
    NoSuchPayment,
    /// A charge or an authorisation begins a payment.
    #[error("a payment begins with a charge or an authorisation; neither can follow later")]
    NotAfterwards,
    /// Nothing to capture or void.
    #[error("there is no authorisation to capture or void")]
    NotAuthorised,
    /// Captured or voided, or about to be.
    #[error("the authorisation is captured or voided already, or about to be")]
    AlreadyEnded,
    /// Its time ran out.
    #[error("the authorisation expired at {at} and can't be captured any more")]
    AuthorisationExpired {
        /// When.
        at: Timestamp,
    },
    /// Nothing to refund.
    #[error("nothing was captured, so nothing can be refunded")]
    NothingCaptured,
    /// All of it is refunded, being refunded or contested.
    #[error("nothing is left to refund: it is refunded, being refunded or contested")]
    NothingLeftToRefund,
    /// Another currency.
    #[error("the payment is in {paid}, not in {asked}")]
    OtherCurrency {
        /// What was asked.
        asked: Currency,
        /// What was paid.
        paid: Currency,
    },
    /// More than is left.
    #[error("{asked} is more than the {left} that is left")]
    OverWhatIsLeft {
        /// What was asked.
        asked: Money,
        /// What is left.
        left: Money,
    },
    /// A void takes all or nothing.
    #[error("an authorisation is voided whole; to take less, capture less: the rest is released")]
    VoidInPart,
    /// The key was used for something else.
    #[error("this idempotency key was used before, for another payment, operation or amount")]
    SameKeyOtherContent,
    /// Not a key.
    #[error("an idempotency key has 1 to 100 characters of letters, digits, `-`, `_`, `.` and `:`")]
    BadKey,
    /// Its acquirer is not the one that is configured.
    #[error("the payment is at the acquirer `{at}`, which is not the one that `gateway.kind` names")]
    OtherGateway {
        /// Where it is.
        at: String,
    },
}

/// How a payment stands, for people and for the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The first attempt is under way.
    Pending,
    /// The acquirer did something else than was asked: a person must look.
    Conflicted,
    /// Reserved on the card, nothing taken.
    Authorised,
    /// Captured, nothing given back.
    Paid,
    /// Something was given back.
    PartlyRefunded,
    /// All was given back.
    Refunded,
    /// Contested, not decided.
    Disputed,
    /// Contested, and lost at least in part.
    ChargedBack,
    /// The authorisation was given back unused.
    Voided,
    /// The authorisation was given back because its time ran out.
    Expired,
    /// Declined, reversed or never received.
    Failed,
}

impl Standing {
    /// Derives it. `attempts` in the order in which they were written.
    pub fn of(intent: &Intent, attempts: &[Attempt], disputes: &[Dispute]) -> Self {
        if attempts.iter().any(|a| matches!(a.state, AttemptState::Conflicted { .. })) {
            return Self::Conflicted;
        }
        let b = Balance::of(intent, attempts, disputes);
        if b.captured > 0 {
            return match (b.disputed, b.charged_back, b.refunded) {
                (1.., _, _) => Self::Disputed,
                (_, 1.., _) => Self::ChargedBack,
                (_, _, refunded) if refunded >= b.captured => Self::Refunded,
                (_, _, 1..) => Self::PartlyRefunded,
                _ => Self::Paid,
            };
        }
        if b.authorised > 0 {
            let voided = attempts.iter().find(|a| a.operation == Operation::Void && a.state.done());
            return match (voided, intent.authorisation_expires_at) {
                (Some(v), Some(at)) if v.prepared_at >= at => Self::Expired,
                (Some(_), _) => Self::Voided,
                (None, _) => Self::Authorised,
            };
        }
        let live = attempts.iter().any(|a| a.operation.opens() && a.state.takes());
        if live { Self::Pending } else { Self::Failed }
    }

    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Pending => "under way",
            Self::Conflicted => "in conflict with the acquirer: a person must look",
            Self::Authorised => "authorised, not captured",
            Self::Paid => "paid",
            Self::PartlyRefunded => "refunded in part",
            Self::Refunded => "refunded",
            Self::Disputed => "disputed",
            Self::ChargedBack => "charged back",
            Self::Voided => "voided",
            Self::Expired => "authorisation expired",
            Self::Failed => "not paid",
        }
    }
}

#[cfg(test)]
mod tests;
