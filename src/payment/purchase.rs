//! Purchases (system 7): a payee asks for money of a user, the account that pays is found or linked at once, the user confirms on a page that
//! only they were sent, and the account's bank is asked for the transfer. The result is what that bank says.
//!
//! ```text
//! awaiting ─confirmed→ charging ─bank→ paid | declined | reversed
//!    │ └─others have to agree→ waiting ─all agreed→ charging
//!    │                            └─ denied | withdrawn | refused | expired | cancelled
//!    └─ refused | expired | cancelled
//! ```

use serde::{Deserialize, Serialize};

use super::account::{AccountError, AccountState, ConfirmedBy, Consent, Limits, MainAccount, PurchaseAccount};
use super::approval::{Binding, Role};
use super::decline::DeclineReason;
use super::request::PaymentRequest;
use crate::clock::Timestamp;
use crate::ids::{AccountId, ApprovalId, BankName, CustomerId, IntentId, PayeeId, PurchaseId, ReceiptId, RequestId};
use crate::money::{Currency, Money};

/// A payee's request for money that the user has to confirm: this amount, payee and payer, once, and soon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purchase {
    /// Which one.
    pub id: PurchaseId,
    /// What is paid.
    pub request: RequestId,
    /// Who pays, and alone can confirm.
    pub customer: CustomerId,
    /// Who gets the money.
    pub payee: PayeeId,
    /// How much.
    pub amount: Money,
    /// All of that in one.
    pub binding: Binding,
    /// From which account.
    pub account: AccountId,
    /// Where it stands.
    pub state: PurchaseState,
    /// From then on it can't be confirmed.
    pub expires_at: Timestamp,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Counts changes.
    pub version: u64,
}

/// Where a purchase stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum PurchaseState {
    /// The page was sent; nobody confirmed yet.
    Awaiting,
    /// Confirmed, and others have to agree first: nothing was handed over yet.
    Waiting {
        /// To what.
        approval: ApprovalId,
        /// By what the user confirmed it.
        how: ConfirmedBy,
        /// What they agreed to with it, where the account had no consent yet.
        consent: Option<Consent>,
        /// Since when.
        since: Timestamp,
        /// From then on nobody can agree.
        until: Timestamp,
    },
    /// Confirmed: the bank was asked for the transfer, or is about to be.
    Charging {
        /// As which payment.
        intent: IntentId,
        /// Which bank.
        bank: BankName,
        /// Since when.
        since: Timestamp,
        /// Whether the bank's answer did not come: it is asked what became of it.
        in_doubt: bool,
        /// When the result is looked for next.
        look_at: Timestamp,
    },
    /// The bank transferred it.
    Paid {
        /// As which payment.
        intent: IntentId,
        /// Its receipt.
        receipt: ReceiptId,
    },
    /// The bank said no: nothing was transferred, and nothing will be.
    Declined {
        /// As which payment.
        intent: IntentId,
        /// Why.
        reason: DeclineReason,
    },
    /// Transferred, and taken back by the bank.
    Reversed {
        /// As which payment.
        intent: IntentId,
    },
    /// The user said no.
    Refused,
    /// Nobody confirmed in time.
    Expired,
    /// The payee or an operator took it back, the account was closed, or rules refused it once everybody had agreed.
    Cancelled,
    /// Somebody who had to agree said no.
    Denied {
        /// Who.
        by: Role,
    },
    /// Somebody who had to agree is not there any more.
    Withdrawn {
        /// Who.
        by: Role,
    },
}

impl PurchaseState {
    /// For people, rows and news.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Awaiting => "awaiting",
            Self::Waiting { .. } => "waiting",
            Self::Charging { in_doubt: false, .. } => "charging",
            Self::Charging { in_doubt: true, .. } => "in_doubt",
            Self::Paid { .. } => "paid",
            Self::Declined { .. } => "declined",
            Self::Reversed { .. } => "reversed",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Denied { .. } => "denied",
            Self::Withdrawn { .. } => "withdrawn",
        }
    }

    /// The payment that it became, if it did.
    pub fn intent(&self) -> Option<&IntentId> {
        match self {
            Self::Charging { intent, .. }
            | Self::Paid { intent, .. }
            | Self::Declined { intent, .. }
            | Self::Reversed { intent } => Some(intent),
            Self::Awaiting
            | Self::Waiting { .. }
            | Self::Refused
            | Self::Expired
            | Self::Cancelled
            | Self::Denied { .. }
            | Self::Withdrawn { .. } => None,
        }
    }

    /// What others have to agree to, while it waits for them.
    pub fn waits_on(&self) -> Option<&ApprovalId> {
        if let Self::Waiting { approval, .. } = self { Some(approval) } else { None }
    }

    /// Whether nothing was handed over yet, and it can still be ended by whoever takes it back.
    pub fn unpaid(&self) -> bool {
        matches!(self, Self::Awaiting | Self::Waiting { .. })
    }
}

/// What may happen to a purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurchaseEvent {
    /// The user said yes, and others have to agree first.
    Waits {
        /// Who.
        who: CustomerId,
        /// On what.
        approval: ApprovalId,
        /// By what.
        how: ConfirmedBy,
        /// What they agreed to with it.
        consent: Option<Consent>,
        /// Until when.
        until: Timestamp,
    },
    /// Somebody who had to agree said no.
    Denied {
        /// Who.
        by: Role,
    },
    /// Somebody who had to agree is not there any more.
    Withdrawn {
        /// Who.
        by: Role,
    },
    /// The user said yes, and so did all others: the charge is handed over with this.
    Confirmed {
        /// Who.
        who: CustomerId,
        /// As which payment.
        intent: IntentId,
        /// To which bank.
        bank: BankName,
        /// When the result is looked for.
        look_at: Timestamp,
    },
    /// The user said no.
    Refused {
        /// Who.
        who: CustomerId,
    },
    /// The payee or an operator takes it back.
    Cancel,
    /// Its time ran out.
    Expire,
    /// The result was looked for, and is not known.
    Looked {
        /// Whether the bank's answer did not come.
        in_doubt: bool,
        /// When it is looked for next.
        look_at: Timestamp,
    },
    /// The bank's answer.
    Ended(BanksAnswer),
}

/// What a bank said in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BanksAnswer {
    /// Transferred.
    Paid(ReceiptId),
    /// Not transferred.
    Declined(DeclineReason),
    /// Transferred and taken back.
    Reversed,
}

/// Why a purchase can't be asked for, or can't change so. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurchaseError {
    /// The customer has no account that could pay.
    #[error("the customer has no main account")]
    NoMainAccount,
    /// An account in this currency has no limits, so there is none.
    #[error("there are no limits for purchases in {0}: agreement.purchase_limits")]
    NoLimits(Currency),
    /// The account's own rules.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// Only the payer confirms.
    #[error("this purchase is not this customer's to confirm")]
    NotYours,
    /// Its time ran out.
    #[error("the time to confirm is over")]
    Late,
    /// The request is not what the page showed.
    #[error("the request asks for something else than was shown")]
    OtherThing,
    /// It ended, or is under way.
    #[error("the purchase is {0} and can't change so")]
    Over(&'static str),
    /// Its time is not up yet.
    #[error("the purchase has not expired")]
    NotYet,
}

/// What a purchase is judged by when it is asked for.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// What is to be paid.
    pub request: &'a PaymentRequest,
    /// The customer's main account, if one is open.
    pub main: Option<&'a MainAccount>,
    /// The payee's purchase-permission account, if one is open.
    pub account: Option<PurchaseAccount>,
    /// Limits of an account in the request's currency that is linked now.
    pub limits: Option<Limits>,
    /// What the payee got of the customer in the last 24 hours, in minor units.
    pub spent_24h: i64,
}

/// Identifiers that may be needed.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// The purchase's.
    pub purchase: PurchaseId,
    /// An account's.
    pub account: AccountId,
}

/// What has to be written and sent with a purchase that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurchaseEffect {
    /// An account that belongs to a main account of before.
    CloseAccount(Box<PurchaseAccount>),
    /// A new account, linked at once; the consent comes with the confirmation.
    LinkAccount(Box<PurchaseAccount>),
    /// The confirmation page, to the customer.
    SendPage,
}

/// A purchase is asked for: main account? purchase-permission account, or one at once; then the page.
pub fn begin(
    now: Timestamp,
    fresh: Fresh,
    wanted: Wanted<'_>,
    expires_at: Timestamp,
) -> Result<(Purchase, Vec<PurchaseEffect>), PurchaseError> {
    let Wanted { request, main, account, limits, spent_24h } = wanted;
    let main = main.filter(|m| m.open() && m.customer == request.customer).ok_or(PurchaseError::NoMainAccount)?;
    let mut effects = Vec::new();
    let account = match account.filter(PurchaseAccount::open) {
        Some(linked) if linked.main == main.id => linked,
        other => {
            effects.extend(other.map(|stale| PurchaseEffect::CloseAccount(Box::new(stale.close(now)))));
            let currency = request.amount.currency;
            let account = PurchaseAccount {
                id: fresh.account,
                customer: request.customer.clone(),
                main: main.id.clone(),
                payee: request.payee.clone(),
                limits: limits.filter(|l| l.currency() == currency).ok_or(PurchaseError::NoLimits(currency))?,
                state: AccountState::PendingConsent,
                used: 0,
                created_at: now,
                version: 0,
            };
            effects.push(PurchaseEffect::LinkAccount(Box::new(account.clone())));
            account
        }
    };
    account.limits.allow(request.amount, spent_24h)?;
    effects.push(PurchaseEffect::SendPage);
    let purchase = Purchase {
        id: fresh.purchase,
        request: request.id.clone(),
        customer: request.customer.clone(),
        payee: request.payee.clone(),
        amount: request.amount,
        binding: Binding::of(request),
        account: account.id,
        state: PurchaseState::Awaiting,
        expires_at,
        created_at: now,
        version: 0,
    };
    Ok((purchase, effects))
}

impl Purchase {
    /// Whether something may still come of it.
    pub fn open(&self) -> bool {
        self.state.unpaid() || matches!(self.state, PurchaseState::Charging { .. })
    }

    /// When somebody has to look at it.
    pub fn due_at(&self) -> Option<Timestamp> {
        match self.state {
            PurchaseState::Awaiting => Some(self.expires_at),
            PurchaseState::Waiting { until, .. } => Some(until),
            PurchaseState::Charging { look_at, .. } => Some(look_at),
            PurchaseState::Paid { .. }
            | PurchaseState::Declined { .. }
            | PurchaseState::Reversed { .. }
            | PurchaseState::Refused
            | PurchaseState::Expired
            | PurchaseState::Cancelled
            | PurchaseState::Denied { .. }
            | PurchaseState::Withdrawn { .. } => None,
        }
    }

    /// Whether this customer may say yes or no to it now, and the request is what they were shown.
    pub fn may_confirm(&self, now: Timestamp, who: &CustomerId, request: &PaymentRequest) -> Result<(), PurchaseError> {
        if *who != self.customer {
            return Err(PurchaseError::NotYours);
        }
        if !self.state.unpaid() {
            return Err(PurchaseError::Over(self.state.name()));
        }
        if now >= self.ends_at() {
            return Err(PurchaseError::Late);
        }
        if self.binding == Binding::of(request) { Ok(()) } else { Err(PurchaseError::OtherThing) }
    }

    /// From when on nobody's yes counts: the user's own, or those of who else has to agree.
    fn ends_at(&self) -> Timestamp {
        if let PurchaseState::Waiting { until, .. } = self.state { until } else { self.expires_at }
    }

    /// One step.
    pub fn step(mut self, now: Timestamp, event: PurchaseEvent) -> Result<Self, PurchaseError> {
        let past = now >= self.ends_at();
        let name = self.state.name();
        self.state = match (self.state, event) {
            (
                PurchaseState::Awaiting | PurchaseState::Waiting { .. },
                PurchaseEvent::Confirmed { who, .. } | PurchaseEvent::Refused { who },
            ) if who != self.customer => return Err(PurchaseError::NotYours),
            (PurchaseState::Awaiting, PurchaseEvent::Waits { who, .. }) if who != self.customer => {
                return Err(PurchaseError::NotYours);
            }
            (
                PurchaseState::Awaiting | PurchaseState::Waiting { .. },
                PurchaseEvent::Confirmed { .. } | PurchaseEvent::Refused { .. },
            ) if past => return Err(PurchaseError::Late),
            (PurchaseState::Awaiting, PurchaseEvent::Waits { .. }) if past => return Err(PurchaseError::Late),
            (PurchaseState::Awaiting | PurchaseState::Waiting { .. }, PurchaseEvent::Confirmed { intent, bank, look_at, .. }) => {
                PurchaseState::Charging { intent, bank, since: now, in_doubt: false, look_at }
            }
            (PurchaseState::Awaiting, PurchaseEvent::Waits { approval, how, consent, until, .. }) => {
                PurchaseState::Waiting { approval, how, consent, since: now, until }
            }
            (PurchaseState::Waiting { .. }, PurchaseEvent::Denied { by }) => PurchaseState::Denied { by },
            (PurchaseState::Waiting { .. }, PurchaseEvent::Withdrawn { by }) => PurchaseState::Withdrawn { by },
            (PurchaseState::Awaiting | PurchaseState::Waiting { .. }, PurchaseEvent::Refused { .. }) => PurchaseState::Refused,
            (PurchaseState::Awaiting | PurchaseState::Waiting { .. }, PurchaseEvent::Cancel) => PurchaseState::Cancelled,
            (PurchaseState::Awaiting | PurchaseState::Waiting { .. }, PurchaseEvent::Expire) if past => PurchaseState::Expired,
            (PurchaseState::Awaiting | PurchaseState::Waiting { .. }, PurchaseEvent::Expire) => {
                return Err(PurchaseError::NotYet);
            }
            (
                PurchaseState::Charging { intent, bank, since, in_doubt: before, .. },
                PurchaseEvent::Looked { in_doubt, look_at },
            ) => PurchaseState::Charging { intent, bank, since, in_doubt: before || in_doubt, look_at },
            (PurchaseState::Charging { intent, .. }, PurchaseEvent::Ended(answer)) => match answer {
                BanksAnswer::Paid(receipt) => PurchaseState::Paid { intent, receipt },
                BanksAnswer::Declined(reason) => PurchaseState::Declined { intent, reason },
                BanksAnswer::Reversed => PurchaseState::Reversed { intent },
            },
            (
                PurchaseState::Awaiting
                | PurchaseState::Waiting { .. }
                | PurchaseState::Charging { .. }
                | PurchaseState::Paid { .. }
                | PurchaseState::Declined { .. }
                | PurchaseState::Reversed { .. }
                | PurchaseState::Refused
                | PurchaseState::Expired
                | PurchaseState::Cancelled
                | PurchaseState::Denied { .. }
                | PurchaseState::Withdrawn { .. },
                PurchaseEvent::Waits { .. }
                | PurchaseEvent::Denied { .. }
                | PurchaseEvent::Withdrawn { .. }
                | PurchaseEvent::Confirmed { .. }
                | PurchaseEvent::Refused { .. }
                | PurchaseEvent::Cancel
                | PurchaseEvent::Expire
                | PurchaseEvent::Looked { .. }
                | PurchaseEvent::Ended(_),
            ) => return Err(PurchaseError::Over(name)),
        };
        self.version = self.version.saturating_add(1);
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
