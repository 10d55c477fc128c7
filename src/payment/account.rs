//! Accounts (system 7). A main account is a customer's account at one bank. A purchase-permission account is linked to it and lets one payee
//! ask for money: within limits of its own, by a consent whose wording is on record, each purchase confirmed by the customer alone.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::ids::{AccountId, BankName, CardId, CustomerId, MainAccountId, PayeeId};
use crate::money::{Currency, Money};

/// A customer's account at a bank. Of one customer one is open at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MainAccount {
    /// Which one.
    pub id: MainAccountId,
    /// Whose.
    pub customer: CustomerId,
    /// Which bank is asked for its money: a name of the configuration.
    pub bank: BankName,
    /// The card by which that bank knows it.
    pub card: CardId,
    /// When it was closed, if so.
    pub closed_at: Option<Timestamp>,
    /// When it was opened.
    pub created_at: Timestamp,
    /// Counts changes.
    pub version: u64,
}

impl MainAccount {
    /// Whether it is there to be charged.
    pub fn open(&self) -> bool {
        self.closed_at.is_none()
    }

    /// Nothing is paid from it any more. Closing twice changes nothing.
    #[must_use]
    pub fn close(mut self, now: Timestamp) -> Self {
        if self.open() {
            self.closed_at = Some(now);
            self.version = self.version.saturating_add(1);
        }
        self
    }
}

/// What a purchase-permission account may pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "LimitsRow", into = "LimitsRow")]
pub struct Limits {
    purchase: Money,
    day: Money,
}

/// The same as it is written.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsRow {
    purchase: Money,
    day: Money,
}

impl TryFrom<LimitsRow> for Limits {
    type Error = AccountError;
    fn try_from(row: LimitsRow) -> Result<Self, AccountError> {
        Self::new(row.purchase, row.day)
    }
}

impl From<Limits> for LimitsRow {
    fn from(limits: Limits) -> Self {
        Self { purchase: limits.purchase, day: limits.day }
    }
}

impl Limits {
    /// For one purchase, and for all that its payee gets in 24 hours.
    pub fn new(purchase: Money, day: Money) -> Result<Self, AccountError> {
        if purchase.currency == day.currency && purchase.minor <= day.minor {
            Ok(Self { purchase, day })
        } else {
            Err(AccountError::Limits)
        }
    }

    /// For one purchase.
    pub fn purchase(&self) -> Money {
        self.purchase
    }

    /// For 24 hours.
    pub fn day(&self) -> Money {
        self.day
    }

    /// Which currency they are in: the account pays in no other.
    pub fn currency(&self) -> Currency {
        self.purchase.currency
    }

    /// Whether a purchase is within them; `spent_24h` is what the payee got of the customer in the last 24 hours, in minor units.
    pub fn allow(&self, amount: Money, spent_24h: i64) -> Result<(), AccountError> {
        if amount.currency != self.currency() {
            return Err(AccountError::OtherCurrency(self.currency()));
        }
        if amount.minor > self.purchase.minor {
            return Err(AccountError::OverPurchase(self.purchase));
        }
        if spent_24h.max(0).saturating_add(amount.minor.get()) > self.day.minor.get() {
            return Err(AccountError::OverDay(self.day));
        }
        Ok(())
    }
}

/// What a customer agrees to once, when a payee's first purchase is confirmed. Whoever changes the text gives it another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wording {
    /// Which one: what a consent names.
    pub version: &'static str,
    /// What is shown; payee and limits stand beside it.
    pub text: &'static str,
}

/// The wording in force.
pub const WORDING: Wording = Wording {
    version: "purchase-2026-11-23",
    text: "I allow this payee to ask for payments from my main account. Each payment is made only after I have confirmed it, and only up to the \
           limits shown here. I can take this permission back at any time; what I confirmed before that remains paid.",
};

impl Wording {
    /// SHA-256 of version and text, in hex: what exactly was agreed to.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for part in ["voicepay consent v1", self.version, self.text] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hex::encode(hash.finalize())
    }
}

/// By what somebody confirmed or agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum ConfirmedBy {
    /// By the signed link that only they were sent.
    Link,
    /// Somebody with a key of the API says that they did.
    Api {
        /// Which key.
        key: String,
    },
}

/// A consent on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// Which wording.
    pub wording: String,
    /// What exactly it says: [`Wording::digest`].
    pub digest: String,
    /// Who agreed.
    pub by: CustomerId,
    /// By what.
    pub how: ConfirmedBy,
    /// When.
    pub at: Timestamp,
}

/// Where a purchase-permission account stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum AccountState {
    /// Linked, and nothing can be paid until the customer has agreed.
    PendingConsent,
    /// The customer agreed.
    Active {
        /// To what, when and how.
        consent: Consent,
    },
    /// Nothing is paid any more.
    Closed {
        /// Since when.
        at: Timestamp,
        /// What had been agreed to, if anything.
        consent: Option<Consent>,
    },
}

impl AccountState {
    /// For people and rows.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PendingConsent => "pending_consent",
            Self::Active { .. } => "active",
            Self::Closed { .. } => "closed",
        }
    }
}

/// A payee's permission to ask for money from a main account. Of one customer and payee one is open at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurchaseAccount {
    /// Which one.
    pub id: AccountId,
    /// Who pays.
    pub customer: CustomerId,
    /// From where.
    pub main: MainAccountId,
    /// To whom.
    pub payee: PayeeId,
    /// How much.
    pub limits: Limits,
    /// Where it stands.
    pub state: AccountState,
    /// How many purchases were handed over to its bank.
    pub used: u64,
    /// When it was linked.
    pub created_at: Timestamp,
    /// Counts changes.
    pub version: u64,
}

/// Why an account does not do what is asked. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// The customer took it back, or the main account was closed.
    #[error("the purchase-permission account is closed")]
    Closed,
    /// Nobody agreed yet.
    #[error("the customer has to agree to the purchase-permission account: show the wording and name it in the confirmation")]
    NoConsent,
    /// To another text than the one in force.
    #[error("the consent names another wording than `{}`", WORDING.version)]
    OtherWording,
    /// The account's currency is this one.
    #[error("the purchase-permission account pays in {0} alone")]
    OtherCurrency(Currency),
    /// More than one purchase may cost.
    #[error("the purchase is above the account's limit of {0}")]
    OverPurchase(Money),
    /// More than may be paid in 24 hours.
    #[error("with this purchase the payee would get more than {0} in 24 hours, the account's limit")]
    OverDay(Money),
    /// Limits that can't be meant.
    #[error("limits must be in one currency, and a purchase's not above a day's")]
    Limits,
}

impl PurchaseAccount {
    /// Whether it is linked and not closed.
    pub fn open(&self) -> bool {
        !matches!(self.state, AccountState::Closed { .. })
    }

    /// The consent in force.
    pub fn consent(&self) -> Option<&Consent> {
        match &self.state {
            AccountState::Active { consent } => Some(consent),
            AccountState::PendingConsent | AccountState::Closed { .. } => None,
        }
    }

    /// A purchase is handed over: with a consent that was given before, or with the one that comes with it.
    pub fn use_for(mut self, amount: Money, spent_24h: i64, consent: Option<Consent>) -> Result<Self, AccountError> {
        self.limits.allow(amount, spent_24h)?;
        self.state = match (self.state, consent) {
            (AccountState::Closed { .. }, _) => return Err(AccountError::Closed),
            (AccountState::PendingConsent, None) => return Err(AccountError::NoConsent),
            (AccountState::PendingConsent, Some(consent)) => {
                if consent.wording != WORDING.version {
                    return Err(AccountError::OtherWording);
                }
                AccountState::Active { consent }
            }
            // What was agreed to first stays on record.
            (active @ AccountState::Active { .. }, _) => active,
        };
        self.used = self.used.saturating_add(1);
        self.version = self.version.saturating_add(1);
        Ok(self)
    }

    /// The customer takes the consent back, or the main account goes. Closing twice changes nothing.
    #[must_use]
    pub fn close(mut self, now: Timestamp) -> Self {
        let consent = match self.state {
            AccountState::Closed { .. } => return self,
            AccountState::PendingConsent => None,
            AccountState::Active { consent } => Some(consent),
        };
        self.state = AccountState::Closed { at: now, consent };
        self.version = self.version.saturating_add(1);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    fn usd(minor: i64) -> Money {
        Money::new(minor, Currency::Usd).unwrap()
    }

    fn account() -> PurchaseAccount {
        let e = SeededEntropy::new(7);
        PurchaseAccount {
            id: AccountId::fresh(&e),
            customer: CustomerId::fresh(&e),
            main: MainAccountId::fresh(&e),
            payee: PayeeId::fresh(&e),
            limits: Limits::new(usd(2_000), usd(3_000)).unwrap(),
            state: AccountState::PendingConsent,
            used: 0,
            created_at: Timestamp(0),
            version: 0,
        }
    }

    fn consent(account: &PurchaseAccount, wording: &str) -> Consent {
        Consent {
            wording: wording.into(),
            digest: WORDING.digest(),
            by: account.customer.clone(),
            how: ConfirmedBy::Link,
            at: Timestamp(5),
        }
    }

    #[test]
    fn nothing_is_paid_without_a_consent_to_the_wording_in_force() {
        let new = account();
        assert_eq!(new.clone().use_for(usd(1), 0, None), Err(AccountError::NoConsent));
        let older = Some(consent(&new, "purchase-2020"));
        assert_eq!(new.clone().use_for(usd(1), 0, older), Err(AccountError::OtherWording));
        let given = consent(&new, WORDING.version);
        let active = new.use_for(usd(1), 0, Some(given.clone())).unwrap();
        assert_eq!((active.consent(), active.used, active.version), (Some(&given), 1, 1));
        let again = active.use_for(usd(1), 0, None).unwrap();
        assert_eq!((again.consent(), again.used), (Some(&given), 2));
        let closed = again.close(Timestamp(9));
        assert_eq!(closed.state, AccountState::Closed { at: Timestamp(9), consent: Some(given) }, "on record still");
        assert_eq!(closed.clone().close(Timestamp(10)), closed);
        assert_eq!(closed.use_for(usd(1), 0, None), Err(AccountError::Closed));
    }

    #[test]
    fn limits_hold_to_the_minor_unit() {
        let limits = account().limits;
        assert_eq!(limits.allow(usd(2_000), 1_000), Ok(()));
        assert_eq!(limits.allow(usd(2_001), 0), Err(AccountError::OverPurchase(usd(2_000))));
        assert_eq!(limits.allow(usd(2_000), 1_001), Err(AccountError::OverDay(usd(3_000))));
        let eur = Money::new(1, Currency::Eur).unwrap();
        assert_eq!(limits.allow(eur, 0), Err(AccountError::OtherCurrency(Currency::Usd)));
        assert_eq!(Limits::new(usd(2), usd(1)), Err(AccountError::Limits));
        assert_eq!(Limits::new(usd(2), eur), Err(AccountError::Limits));
        assert!(serde_json::from_value::<Limits>(serde_json::json!({ "purchase": usd(2), "day": usd(1) })).is_err());
    }

    #[test]
    fn a_main_account_is_closed_once() {
        let e = SeededEntropy::new(8);
        let main = MainAccount {
            id: MainAccountId::fresh(&e),
            customer: CustomerId::fresh(&e),
            bank: BankName::parse("north").unwrap(),
            card: CardId::fresh(&e),
            closed_at: None,
            created_at: Timestamp(0),
            version: 0,
        };
        let closed = main.close(Timestamp(3));
        assert_eq!((closed.closed_at, closed.version), (Some(Timestamp(3)), 1));
        assert_eq!(closed.clone().close(Timestamp(4)), closed);
    }

    #[test]
    fn a_wording_is_known_by_version_and_text() {
        let other = Wording { version: WORDING.version, text: "anything" };
        assert_ne!(other.digest(), WORDING.digest());
        assert_eq!(WORDING.digest().len(), 64);
    }
}
