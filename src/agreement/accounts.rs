//! Main accounts, and permissions to ask for money from them (system 7): opened and closed, one of each at a time however many ask at once.

use serde_json::{Value, json};

use super::deciding::LIMIT_RACES;
use super::{Agreements, Inner, PurchaseFault};
use crate::clock::Timestamp;
use crate::ids::{AccountId, BankName, CardId, CustomerId, MainAccountId};
use crate::payment::{MainAccount, Purchase, PurchaseAccount, PurchaseEvent};
use crate::store::papers::CodeDelivery;
use crate::store::{AuditRecord, CustomerStatus, Document, OutboxRecord, Paper, StoreError, papers};

/// Why an account is not opened or closed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AccountFault {
    /// There is no such thing.
    #[error("there is no such {0}")]
    NoSuch(&'static str),
    /// The configuration has no bank of this name.
    #[error("there is no bank `{0}`: gateway.banks")]
    UnknownBank(BankName),
    /// The card is gone, blocked, expired or another customer's.
    #[error("the card can't be used: it is unknown, blocked, revoked, expired or not this customer's")]
    NoUsableCard,
    /// A customer has one main account.
    #[error("the customer has a main account already, at another bank or with another card: close it first")]
    HasAnother,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Rows of one change.
#[derive(Default)]
pub(super) struct Change {
    pub papers: Vec<Paper>,
    pub links: Vec<CodeDelivery>,
    pub audit: Vec<AuditRecord>,
    pub news: Vec<OutboxRecord>,
}

impl Change {
    /// One document, and what the trail and the outside hear of it.
    pub fn add<D: Document>(
        &mut self,
        inner: &Inner,
        (at, by, topic): (Timestamp, &str, &str),
        document: &D,
        told: Value,
    ) -> Result<(), StoreError> {
        self.papers.push(document.paper()?);
        self.audit.push(inner.audit(at, by, topic, document.id(), told.clone()));
        self.news.push(inner.news(at, topic, told));
        Ok(())
    }

    /// Writes all of it, or nothing.
    pub async fn write(self, inner: &Inner) -> Result<(), StoreError> {
        inner.store.write_papers(&self.papers, &self.links, &self.audit, &self.news).await
    }
}

impl Agreements {
    /// Opens a customer's main account at a bank of the configuration, which knows it by this card. The same again gives the same account.
    pub async fn open_main_account(
        &self,
        customer: &CustomerId,
        bank: &BankName,
        card: &CardId,
        by: &str,
    ) -> Result<MainAccount, AccountFault> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let found = inner.store.customer(customer).await?.filter(|c| c.status == CustomerStatus::Active);
        found.ok_or(AccountFault::NoSuch("customer"))?;
        if !inner.processor.knows_bank(bank) {
            return Err(AccountFault::UnknownBank(bank.clone()));
        }
        let usable = inner.store.card(card).await?.is_some_and(|c| c.customer == *customer && c.usable(now));
        if !usable {
            return Err(AccountFault::NoUsableCard);
        }
        for _ in 0..LIMIT_RACES {
            if let Some(there) = self.main_account(customer).await? {
                let same = there.bank == *bank && there.card == *card;
                return if same { Ok(there) } else { Err(AccountFault::HasAnother) };
            }
            let account = MainAccount {
                id: MainAccountId::fresh_at(now, &*inner.entropy),
                customer: customer.clone(),
                bank: bank.clone(),
                card: card.clone(),
                closed_at: None,
                created_at: now,
                version: 0,
            };
            let mut change = Change::default();
            change.add(inner, (now, by, "main_account.opened"), &account, main_json(&account))?;
            match change.write(inner).await {
                Err(StoreError::Exists(_)) => {}
                done => return Ok(done.map(|()| account)?),
            }
        }
        Err(StoreError::Busy.into())
    }

    /// The customer's open main account.
    pub async fn main_account(&self, customer: &CustomerId) -> Result<Option<MainAccount>, StoreError> {
        Ok(papers::of(&*self.inner.store, customer).await?.into_iter().next())
    }

    /// The customer's open purchase-permission accounts.
    pub async fn purchase_accounts(&self, customer: &CustomerId) -> Result<Vec<PurchaseAccount>, StoreError> {
        papers::of(&*self.inner.store, customer).await
    }

    /// Closes a main account, every permission to ask for money from it, and every purchase that nobody confirmed yet, or that waits for others. Once more
    /// changes nothing.
    pub async fn close_main_account(&self, id: &MainAccountId, by: &str) -> Result<MainAccount, AccountFault> {
        let inner = &*self.inner;
        for _ in 0..LIMIT_RACES {
            let now = inner.clock.now();
            let found: Option<MainAccount> = papers::read(&*inner.store, id.as_str()).await?;
            let account = found.ok_or(AccountFault::NoSuch("main account"))?;
            if !account.open() {
                return Ok(account);
            }
            let closed = account.close(now);
            let mut change = Change::default();
            change.add(inner, (now, by, "main_account.closed"), &closed, main_json(&closed))?;
            let linked = self.purchase_accounts(&closed.customer).await?;
            for account in linked.into_iter().filter(|a| a.main == closed.id) {
                self.close_into(&mut change, account, now, by).await?;
            }
            match change.write(inner).await {
                Err(StoreError::Conflict(_)) => {}
                done => return Ok(done.map(|()| closed)?),
            }
        }
        Err(StoreError::Busy.into())
    }

    /// Takes a consent back: the account is closed, and so is every purchase that nobody confirmed yet, or that waits for others. Once more
    /// changes nothing.
    pub async fn close_account(&self, id: &AccountId, by: &str) -> Result<PurchaseAccount, AccountFault> {
        let inner = &*self.inner;
        for _ in 0..LIMIT_RACES {
            let now = inner.clock.now();
            let found: Option<PurchaseAccount> = papers::read(&*inner.store, id.as_str()).await?;
            let account = found.ok_or(AccountFault::NoSuch("purchase-permission account"))?;
            if !account.open() {
                return Ok(account);
            }
            let mut change = Change::default();
            let closed = self.close_into(&mut change, account, now, by).await?;
            match change.write(inner).await {
                Err(StoreError::Conflict(_)) => {}
                done => return Ok(done.map(|()| closed)?),
            }
        }
        Err(StoreError::Busy.into())
    }

    async fn close_into(
        &self,
        change: &mut Change,
        account: PurchaseAccount,
        now: Timestamp,
        by: &str,
    ) -> Result<PurchaseAccount, StoreError> {
        let inner = &*self.inner;
        let closed = account.close(now);
        change.add(inner, (now, by, "account.closed"), &closed, account_json(&closed))?;
        let open: Vec<Purchase> = papers::of(&*inner.store, &closed.customer).await?;
        for purchase in open.into_iter().filter(|p| p.account == closed.id && p.state.unpaid()) {
            match self.purchase_ends_into(change, (now, by), purchase, PurchaseEvent::Cancel).await {
                Ok(_) => {}
                Err(PurchaseFault::Store(error)) => return Err(error),
                Err(fault) => return Err(StoreError::Failed(fault.to_string())),
            }
        }
        Ok(closed)
    }
}

/// A main account, as the trail and the outside see it.
pub(super) fn main_json(account: &MainAccount) -> Value {
    json!({ "main_account": account.id, "customer": account.customer, "bank": account.bank, "card": account.card })
}

/// A purchase-permission account, as they see it; with the consent on record, if there is one.
pub(super) fn account_json(account: &PurchaseAccount) -> Value {
    let (purchase, day) = (account.limits.purchase(), account.limits.day());
    json!({
        "account": account.id,
        "customer": account.customer,
        "payee": account.payee,
        "main_account": account.main,
        "state": account.state.name(),
        "limits": { "purchase_minor": purchase.minor, "day_minor": day.minor, "currency": purchase.currency },
        "consent": account.consent(),
    })
}
