//! PURE. Double entry. A transfer moves an amount from one account's credit side to another's debit side; it is written once and never
//! changed. Pending reserves; a post or a void is a new row that names the pending one. Balances are sums over transfers, so
//! they can always be derived again and compared ([`verify`]).

pub mod chain;
pub mod checkpoint;
pub mod document;
pub mod export;
pub mod keys;
pub mod merkle;
pub mod proof;
pub mod verifier;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{IntentId, PayeeId, TransferId};
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
    /// When it was written.
    pub at: Timestamp,
}

impl Transfer {
    /// The row that posts this pending transfer.
    pub fn posted(&self, id: TransferId, at: Timestamp) -> Self {
        Self { id, kind: TransferKind::Post { of: self.id.clone() }, at, ..self.clone() }
    }

    /// The row that voids this pending transfer.
    pub fn voided(&self, id: TransferId, at: Timestamp) -> Self {
        Self { id, kind: TransferKind::Void { of: self.id.clone() }, at, ..self.clone() }
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

/// The books: balances, and which pending transfers are still open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    balances: BTreeMap<AccountName, Balance>,
    seen: BTreeMap<TransferId, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Open(Transfer),
    Ended,
}

impl Books {
    /// Balances by account.
    pub fn balances(&self) -> &BTreeMap<AccountName, Balance> {
        &self.balances
    }

    /// Pending transfers that neither a post nor a void has ended.
    pub fn open(&self) -> impl Iterator<Item = &Transfer> {
        self.seen.values().filter_map(|e| match e {
            Entry::Open(t) => Some(t),
            Entry::Ended => None,
        })
    }

    /// Applies one transfer; on an error the books stay as they were.
    pub fn apply(&mut self, transfer: &Transfer) -> Result<(), LedgerError> {
        let id = &transfer.id;
        if self.seen.contains_key(id) {
            return Err(LedgerError::Twice(id.clone()));
        }
        if transfer.debit == transfer.credit {
            return Err(LedgerError::SameAccount(id.clone()));
        }
        let currency = transfer.amount.currency;
        if !transfer.debit.holds(currency) || !transfer.credit.holds(currency) {
            return Err(LedgerError::Currency(id.clone()));
        }
        if let Some(of) = transfer.kind.of() {
            match self.seen.get(of) {
                Some(Entry::Open(p))
                    if p.debit == transfer.debit
                        && p.credit == transfer.credit
                        && p.amount == transfer.amount
                        && p.intent == transfer.intent => {}
                Some(Entry::Open(_)) => return Err(LedgerError::Differs(id.clone())),
                Some(Entry::Ended) => return Err(LedgerError::EndedTwice(of.clone())),
                None => return Err(LedgerError::NoPending(id.clone())),
            }
        }
        let units = transfer.amount.minor.get();
        let mut debit = self.balances.get(&transfer.debit).copied().unwrap_or_default();
        let mut credit = self.balances.get(&transfer.credit).copied().unwrap_or_default();
        let overflow = || LedgerError::Overflow(id.clone());
        match &transfer.kind {
            TransferKind::Pending => {
                debit.debits_pending = debit.debits_pending.checked_add(units).ok_or_else(overflow)?;
                credit.credits_pending = credit.credits_pending.checked_add(units).ok_or_else(overflow)?;
            }
            TransferKind::Post { .. } => {
                debit.debits_pending = debit.debits_pending.checked_sub(units).ok_or_else(overflow)?;
                credit.credits_pending = credit.credits_pending.checked_sub(units).ok_or_else(overflow)?;
                debit.debits_posted = debit.debits_posted.checked_add(units).ok_or_else(overflow)?;
                credit.credits_posted = credit.credits_posted.checked_add(units).ok_or_else(overflow)?;
            }
            TransferKind::Void { .. } => {
                debit.debits_pending = debit.debits_pending.checked_sub(units).ok_or_else(overflow)?;
                credit.credits_pending = credit.credits_pending.checked_sub(units).ok_or_else(overflow)?;
            }
        }
        self.balances.insert(transfer.debit.clone(), debit);
        self.balances.insert(transfer.credit.clone(), credit);
        let entry = match transfer.kind.of() {
            None => Entry::Open(transfer.clone()),
            Some(of) => {
                self.seen.insert(of.clone(), Entry::Ended);
                Entry::Ended
            }
        };
        self.seen.insert(id.clone(), entry);
        Ok(())
    }
}

/// Derives the books from every transfer, in the order in which they were written, and checks that debits equal credits in each currency.
pub fn verify<'a>(transfers: impl IntoIterator<Item = &'a Transfer>) -> Result<Books, LedgerError> {
    let mut books = Books::default();
    for transfer in transfers {
        books.apply(transfer)?;
    }
    for currency in Currency::ALL {
        // i128: sums over any number of i64 accounts that could exist.
        let sums = books.balances.iter().filter(|(name, _)| name.holds(currency)).fold([0i128; 4], |s, (_, b)| {
            let [dp, cp, dd, cd] = s;
            [
                dp + i128::from(b.debits_pending),
                cp + i128::from(b.credits_pending),
                dd + i128::from(b.debits_posted),
                cd + i128::from(b.credits_posted),
            ]
        });
        let [dp, cp, dd, cd] = sums;
        if dp != cp || dd != cd {
            return Err(LedgerError::Unbalanced(currency));
        }
    }
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
    /// A sum beyond 64 bits.
    #[error("transfer {0} overflows a balance")]
    Overflow(TransferId),
    /// Debits and credits differ.
    #[error("debits and credits in {0} differ")]
    Unbalanced(Currency),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;
    use proptest::prelude::*;

    fn pending(entropy: &SeededEntropy, minor: i64) -> Transfer {
        let payee = PayeeId::fresh(entropy);
        Transfer {
            id: TransferId::fresh(entropy),
            kind: TransferKind::Pending,
            debit: AccountName::acquirer("sandbox", Currency::Eur),
            credit: AccountName::payee(&payee, Currency::Eur),
            amount: Money::new(minor, Currency::Eur).unwrap(),
            intent: IntentId::fresh(entropy),
            at: Timestamp(1),
        }
    }

    #[test]
    fn a_pending_transfer_ends_once_and_only_as_it_was_reserved() {
        let e = SeededEntropy::new(1);
        let p = pending(&e, 500);
        let post = p.posted(TransferId::fresh(&e), Timestamp(2));
        let books = verify([&p, &post]).unwrap();
        assert_eq!(books.balances()[&p.debit].debits_posted, 500);
        assert_eq!(books.balances()[&p.credit], Balance { credits_posted: 500, ..Balance::default() });
        assert_eq!(books.open().count(), 0);
        let void = p.voided(TransferId::fresh(&e), Timestamp(3));
        assert_eq!(verify([&p, &post, &void]).unwrap_err(), LedgerError::EndedTwice(p.id.clone()));
        assert_eq!(verify([&post]).unwrap_err(), LedgerError::NoPending(post.id.clone()));
        assert_eq!(verify([&p, &p]).unwrap_err(), LedgerError::Twice(p.id.clone()));
        let other = Transfer { amount: Money::new(501, Currency::Eur).unwrap(), ..post.clone() };
        assert_eq!(verify([&p, &other]).unwrap_err(), LedgerError::Differs(post.id.clone()));
        let usd = Transfer { amount: Money::new(500, Currency::Usd).unwrap(), ..p.clone() };
        assert_eq!(verify([&usd]).unwrap_err(), LedgerError::Currency(p.id.clone()));
        let loops = Transfer { credit: p.debit.clone(), ..p.clone() };
        assert_eq!(verify([&loops]).unwrap_err(), LedgerError::SameAccount(p.id.clone()));
    }

    proptest! {
        #[test]
        fn any_order_of_posts_and_voids_keeps_the_books_balanced(ends in proptest::collection::vec((1i64..1_000_000, 0u8..4), 0..40)) {
            let e = SeededEntropy::new(2);
            let mut books = Books::default();
            let mut expected = 0;
            for (minor, how) in ends {
                let p = pending(&e, minor);
                books.apply(&p).unwrap();
                let post = p.posted(TransferId::fresh(&e), Timestamp(2));
                let void = p.voided(TransferId::fresh(&e), Timestamp(2));
                match how {
                    0 => {}
                    1 => { books.apply(&post).unwrap(); prop_assert!(books.apply(&void).is_err()); expected += minor; }
                    2 => { books.apply(&void).unwrap(); prop_assert!(books.apply(&post).is_err()); }
                    _ => { let before = books.clone(); prop_assert!(books.apply(&p).is_err()); prop_assert_eq!(&before, &books); }
                }
            }
            let acquirer = books.balances().get(&AccountName::acquirer("sandbox", Currency::Eur)).copied().unwrap_or_default();
            prop_assert_eq!(acquirer.debits_posted, expected);
            let open: i64 = books.open().map(|t| t.amount.minor.get()).sum();
            prop_assert_eq!(acquirer.debits_pending, open);
        }
    }
}
