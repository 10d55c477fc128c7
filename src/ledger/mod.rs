//! PURE. Double entry. A transfer moves an amount from one account's credit side to another's debit side; it is written once and never
//! changed. Pending reserves; a post or a void is a new row that names the pending one. A post may be of less than was reserved: the rest is
//! released. Balances are sums over transfers, so they can always be derived again and compared ([`verify`]).
//!
//! A charge debits the acquirer and credits the payee; refunds and disputes go the other way. No payment gives back more than was captured:
//! refunds that would are refused, and so are disputes; each is bounded by itself, for a cardholder may contest what was refunded.

pub mod chain;
pub mod checkpoint;
pub mod document;
pub mod export;
pub mod keys;
pub mod merkle;
pub mod proof;
pub mod verifier;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{AttemptId, DisputeId, IntentId, PayeeId, TransferId};
use crate::money::{Currency, Money};

/// An account's name: `acquirer:sandbox:USD`, `payee:pay_…:USD`. An account has one currency, which its name ends with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountName(String);

impl AccountName {
    /// What an acquirer owes us for charges that it approved (an asset: debits increase it).
    pub fn acquirer(name: &str, currency: Currency) -> Self {
        Self(format!("acquirer:{name}:{currency}"))
    }

    /// What we owe a payee (a liability: credits increase it).
    pub fn payee(id: &PayeeId, currency: Currency) -> Self {
        Self(format!("payee:{id}:{currency}"))
    }

    /// Back from a row.
    pub fn from_row(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is an acquirer's.
    pub fn is_acquirer(&self) -> bool {
        self.0.starts_with("acquirer:")
    }

    fn holds(&self, currency: Currency) -> bool {
        self.0.rsplit(':').next() == Some(currency.code())
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a transfer does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TransferKind {
    /// Reserves; no money has moved.
    Pending,
    /// The pending transfer `of` became real.
    Post { of: TransferId },
    /// The pending transfer `of` will never be.
    Void { of: TransferId },
}

impl TransferKind {
    /// As a row stores it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Post { .. } => "post",
            Self::Void { .. } => "void",
        }
    }

    /// The pending transfer that this one ends.
    pub fn of(&self) -> Option<&TransferId> {
        match self {
            Self::Pending => None,
            Self::Post { of } | Self::Void { of } => Some(of),
        }
    }
}

/// Why a row stands in the books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// An operation at the acquirer.
    Attempt(AttemptId),
    /// The cardholder contests the payment.
    Dispute(DisputeId),
}

impl Cause {
    /// As a row stores it: the identifier, whose prefix tells the kind.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Attempt(id) => id.as_str(),
            Self::Dispute(id) => id.as_str(),
        }
    }
}

impl std::str::FromStr for Cause {
    type Err = crate::ids::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        DisputeId::parse(text).map(Self::Dispute).or_else(|_| AttemptId::parse(text).map(Self::Attempt))
    }
}

/// One immutable row of the books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Which one.
    pub id: TransferId,
    /// What it does.
    pub kind: TransferKind,
    /// The account that is debited.
    pub debit: AccountName,
    /// The account that is credited.
    pub credit: AccountName,
    /// How much.
    pub amount: Money,
    /// For which payment.
    pub intent: IntentId,
    /// Why: a pending row names the attempt or dispute that reserves, a post or void the one that ends it (a capture ends what an
    /// authorisation reserved).
    pub cause: Cause,
    /// When it was written.
    pub at: Timestamp,
}

impl Transfer {
    /// The row that posts this pending transfer whole.
    pub fn posted(&self, id: TransferId, at: Timestamp) -> Self {
        Self { id, kind: TransferKind::Post { of: self.id.clone() }, at, ..self.clone() }
    }

    /// The row that posts `amount` of this pending transfer and releases the rest.
    pub fn posted_in_part(&self, id: TransferId, at: Timestamp, amount: Money, cause: Cause) -> Self {
        Self { amount, cause, ..self.posted(id, at) }
    }

    /// The row that voids this pending transfer.
    pub fn voided(&self, id: TransferId, at: Timestamp) -> Self {
        Self { id, kind: TransferKind::Void { of: self.id.clone() }, at, ..self.clone() }
    }

    /// A pending row the other way round: `amount` of what this one moves is to go back.
    pub fn back(&self, id: TransferId, at: Timestamp, amount: Money, cause: Cause) -> Self {
        let (debit, credit, intent) = (self.credit.clone(), self.debit.clone(), self.intent.clone());
        Self { id, kind: TransferKind::Pending, debit, credit, amount, intent, cause, at }
    }

    /// The same, because of `cause`.
    #[must_use]
    pub fn because(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }
}

/// Sums of one account, in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Debits reserved and not yet posted or voided.
    pub debits_pending: i64,
    /// Credits reserved and not yet posted or voided.
    pub credits_pending: i64,
    /// Debits that are real.
    pub debits_posted: i64,
    /// Credits that are real.
    pub credits_posted: i64,
}

/// What one payment captured and gave back, in minor units; what is reserved counts as given back already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    captured: i64,
    refunded: i64,
    disputed: i64,
}

/// The books: balances, and which pending transfers are still open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    balances: BTreeMap<AccountName, Balance>,
    open: BTreeMap<TransferId, Transfer>,
    ended: BTreeSet<TransferId>,
    sums: BTreeMap<IntentId, Sums>,
}

impl Books {
    /// Balances by account.
    pub fn balances(&self) -> &BTreeMap<AccountName, Balance> {
        &self.balances
    }

    /// The same, to keep.
    pub fn into_balances(self) -> BTreeMap<AccountName, Balance> {
        self.balances
    }

    /// Pending transfers that neither a post nor a void has ended.
    pub fn open(&self) -> impl Iterator<Item = &Transfer> {
        self.open.values()
    }

    /// Applies one transfer; on an error the books stay as they were.
    pub fn apply(&mut self, transfer: &Transfer) -> Result<(), LedgerError> {
        let id = &transfer.id;
        if self.open.contains_key(id) || self.ended.contains(id) {
            return Err(LedgerError::Twice(id.clone()));
        }
        if transfer.debit == transfer.credit {
            return Err(LedgerError::SameAccount(id.clone()));
        }
        let currency = transfer.amount.currency;
        if !transfer.debit.holds(currency) || !transfer.credit.holds(currency) {
            return Err(LedgerError::Currency(id.clone()));
        }
        let overflow = || LedgerError::Overflow(id.clone());
        let units = transfer.amount.minor.get();
        let reserved = match transfer.kind.of() {
            None => units,
            Some(of) => self.reserved_for(of, transfer)?,
        };
        let sums = self.sums_after(transfer, reserved)?;
        let mut debit = self.balances.get(&transfer.debit).copied().unwrap_or_default();
        let mut credit = self.balances.get(&transfer.credit).copied().unwrap_or_default();
        match &transfer.kind {
            TransferKind::Pending => {
                debit.debits_pending = debit.debits_pending.checked_add(units).ok_or_else(overflow)?;
                credit.credits_pending = credit.credits_pending.checked_add(units).ok_or_else(overflow)?;
            }
            TransferKind::Post { .. } => {
                debit.debits_pending = debit.debits_pending.checked_sub(reserved).ok_or_else(overflow)?;
                credit.credits_pending = credit.credits_pending.checked_sub(reserved).ok_or_else(overflow)?;
                debit.debits_posted = debit.debits_posted.checked_add(units).ok_or_else(overflow)?;
                credit.credits_posted = credit.credits_posted.checked_add(units).ok_or_else(overflow)?;
            }
            TransferKind::Void { .. } => {
                debit.debits_pending = debit.debits_pending.checked_sub(reserved).ok_or_else(overflow)?;
                credit.credits_pending = credit.credits_pending.checked_sub(reserved).ok_or_else(overflow)?;
            }
        }
        self.balances.insert(transfer.debit.clone(), debit);
        self.balances.insert(transfer.credit.clone(), credit);
        self.sums.insert(transfer.intent.clone(), sums);
        match transfer.kind.of() {
            None => {
                self.open.insert(id.clone(), transfer.clone());
            }
            Some(of) => {
                self.open.remove(of);
                self.ended.insert(of.clone());
                self.ended.insert(id.clone());
            }
        }
        Ok(())
    }

    /// Nothing more comes of the payments whose rows were applied so far: keeps the balances and forgets the rows, so that books of any length are
    /// added up, payment by payment, in the memory of one. Says how many pending rows nothing has ended.
    pub fn forget_rows(&mut self) -> usize {
        let Self { balances: _, open, ended, sums } = self;
        ended.clear();
        sums.clear();
        std::mem::take(open).len()
    }

    /// Checks that debits equal credits in each currency.
    pub fn balanced(&self) -> Result<(), LedgerError> {
        for currency in Currency::ALL {
            // i128: sums over any number of i64 accounts that could exist.
            let mut sums = [0i128; 4];
            for (_, b) in self.balances.iter().filter(|(name, _)| name.holds(currency)) {
                let [dp, cp, dd, cd] = sums;
                sums = [
                    dp + i128::from(b.debits_pending),
                    cp + i128::from(b.credits_pending),
                    dd + i128::from(b.debits_posted),
                    cd + i128::from(b.credits_posted),
                ];
            }
            let [dp, cp, dd, cd] = sums;
            if dp != cp || dd != cd {
                return Err(LedgerError::Unbalanced(currency));
            }
        }
        Ok(())
    }

    /// How much the pending transfer `of` reserved, if `transfer` may end it.
    fn reserved_for(&self, of: &TransferId, transfer: &Transfer) -> Result<i64, LedgerError> {
        let id = &transfer.id;
        let Some(p) = self.open.get(of) else {
            return Err(if self.ended.contains(of) {
                LedgerError::EndedTwice(of.clone())
            } else {
                LedgerError::NoPending(id.clone())
            });
        };
        let amount_fits = match transfer.kind {
            TransferKind::Post { .. } => transfer.amount.minor <= p.amount.minor,
            TransferKind::Void { .. } | TransferKind::Pending => transfer.amount.minor == p.amount.minor,
        };
        let same = p.debit == transfer.debit && p.credit == transfer.credit && p.intent == transfer.intent;
        if same && amount_fits && p.amount.currency == transfer.amount.currency {
            Ok(p.amount.minor.get())
        } else {
            Err(LedgerError::Differs(id.clone()))
        }
    }

    /// The payment's sums with this transfer in them; refuses what would give back more than was captured.
    fn sums_after(&self, transfer: &Transfer, reserved: i64) -> Result<Sums, LedgerError> {
        let overflow = || LedgerError::Overflow(transfer.id.clone());
        let mut sums = self.sums.get(&transfer.intent).copied().unwrap_or_default();
        let units = transfer.amount.minor.get();
        if transfer.debit.is_acquirer() {
            if let TransferKind::Post { .. } = transfer.kind {
                sums.captured = sums.captured.checked_add(units).ok_or_else(overflow)?;
            }
            return Ok(sums);
        }
        let back = match &transfer.cause {
            Cause::Attempt(_) => &mut sums.refunded,
            Cause::Dispute(_) => &mut sums.disputed,
        };
        *back = match &transfer.kind {
            TransferKind::Pending => back.checked_add(units).ok_or_else(overflow)?,
            TransferKind::Post { .. } => back.checked_sub(reserved).and_then(|b| b.checked_add(units)).ok_or_else(overflow)?,
            TransferKind::Void { .. } => back.checked_sub(reserved).ok_or_else(overflow)?,
        };
        if sums.refunded > sums.captured || sums.disputed > sums.captured {
            return Err(LedgerError::BeyondCaptured(transfer.id.clone()));
        }
        Ok(sums)
    }
}

/// Derives the books from every transfer, in the order in which they were written, and checks that debits equal credits in each currency.
pub fn verify<'a>(transfers: impl IntoIterator<Item = &'a Transfer>) -> Result<Books, LedgerError> {
    let mut books = Books::default();
    for transfer in transfers {
        books.apply(transfer)?;
    }
    books.balanced()?;
    Ok(books)
}

/// What is wrong with the books.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The same identifier again.
    #[error("transfer {0} is in the books twice")]
    Twice(TransferId),
    /// Both sides are one account.
    #[error("transfer {0} debits and credits the same account")]
    SameAccount(TransferId),
    /// An account of another currency.
    #[error("transfer {0} touches an account of another currency")]
    Currency(TransferId),
    /// A post or void of nothing.
    #[error("transfer {0} ends a pending transfer that does not exist")]
    NoPending(TransferId),
    /// A post or void that is not what was reserved.
    #[error("transfer {0} differs from the pending transfer that it ends")]
    Differs(TransferId),
    /// Posted or voided already.
    #[error("pending transfer {0} was ended twice")]
    EndedTwice(TransferId),
    /// More is given back than was captured.
    #[error("transfer {0} gives back more than was captured")]
    BeyondCaptured(TransferId),
    /// A sum beyond 64 bits.
    #[error("transfer {0} overflows a balance")]
    Overflow(TransferId),
    /// Debits and credits differ.
    #[error("debits and credits in {0} differ")]
    Unbalanced(Currency),
}

#[cfg(test)]
mod tests;
