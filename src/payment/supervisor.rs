//! Third-party supervisors (system 8): somebody else than the payer has to agree to payments of an account, in either order. They are
//! called back by telephone, or follow a link; nobody supervises themselves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::policy::Facts;
use crate::clock::Timestamp;
use crate::ids::{CustomerId, SupervisionId};
use crate::money::Currency;

/// Who has to agree to whose payments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supervision {
    /// Which one.
    pub id: SupervisionId,
    /// Whose payments.
    pub account: CustomerId,
    /// Who has to agree.
    pub supervisor: CustomerId,
    /// Above which amount, in minor units by currency; in a currency that is not named to every payment.
    pub agree_over: BTreeMap<Currency, i64>,
    /// When it was withdrawn, if so. What was not decided by then is refused.
    pub withdrawn_at: Option<Timestamp>,
    /// When it began.
    pub created_at: Timestamp,
    /// Counts changes.
    pub version: u64,
}

/// Why a supervision can't be so. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SupervisionError {
    /// Account and supervisor are the same.
    #[error("nobody can be their own supervisor")]
    Oneself,
    /// An amount below zero.
    #[error("an amount can't be below zero")]
    Negative,
    /// It was withdrawn before.
    #[error("the supervision was withdrawn already")]
    Withdrawn,
}

impl Supervision {
    /// A new one.
    pub fn new(
        id: SupervisionId,
        account: CustomerId,
        supervisor: CustomerId,
        agree_over: BTreeMap<Currency, i64>,
        now: Timestamp,
    ) -> Result<Self, SupervisionError> {
        if account == supervisor {
            return Err(SupervisionError::Oneself);
        }
        if agree_over.values().any(|minor| *minor < 0) {
            return Err(SupervisionError::Negative);
        }
        Ok(Self { id, account, supervisor, agree_over, withdrawn_at: None, created_at: now, version: 0 })
    }

    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.withdrawn_at.is_none()
    }

    /// The supervisor, or who opened the account, withdraws.
    pub fn withdraw(mut self, now: Timestamp) -> Result<Self, SupervisionError> {
        if !self.holds() {
            return Err(SupervisionError::Withdrawn);
        }
        self.withdrawn_at = Some(now);
        self.version = self.version.saturating_add(1);
        Ok(self)
    }

    /// Whether the supervisor has to agree to this payment. What goes to one payee in a day counts as one payment.
    pub fn asked(&self, facts: &Facts) -> bool {
        self.holds() && self.agree_over.get(&facts.amount.currency).is_none_or(|limit| facts.to_payee_24h() > *limit)
    }

    /// What it puts into the facts of a payment of its account.
    pub fn colour(&self, facts: &mut Facts) {
        facts.supervised |= self.asked(facts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;
    use crate::ids::PayeeId;
    use crate::money::Money;

    #[test]
    fn a_supervisor_is_asked_above_the_agreed_amount_until_withdrawn() {
        let e = SeededEntropy::new(1);
        let (id, account, supervisor) = (SupervisionId::fresh(&e), CustomerId::fresh(&e), CustomerId::fresh(&e));
        let over = BTreeMap::from([(Currency::Usd, 1_000)]);
        let own = Supervision::new(id.clone(), account.clone(), account.clone(), over.clone(), Timestamp(0));
        assert_eq!(own.unwrap_err(), SupervisionError::Oneself);
        let s = Supervision::new(id, account, supervisor, over, Timestamp(0)).unwrap();
        let payee = PayeeId::fresh(&e);
        let asked = |s: &Supervision, minor, currency| {
            let mut facts = Facts::plain(Timestamp(1), Money::new(minor, currency).unwrap(), payee.clone());
            s.colour(&mut facts);
            facts.supervised
        };
        assert!(!asked(&s, 1_000, Currency::Usd) && asked(&s, 1_001, Currency::Usd) && asked(&s, 1, Currency::Eur));
        let gone = s.withdraw(Timestamp(2)).unwrap();
        assert!(!asked(&gone, 1_001, Currency::Usd));
        assert_eq!(gone.withdraw(Timestamp(3)).unwrap_err(), SupervisionError::Withdrawn);
    }
}
