//! Purchases (system 7): a payee asks for money of a user, the account is found or linked at once, the user gets a page that only they can
//! confirm, and what they confirmed is handed over once, to that account's bank. The result is what the bank answers.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::accounts::{Change, account_json};
use super::codes::CodeError;
use super::deciding::{LIMIT_RACES, Yes};
use super::{AgreeError, Agreed, Agreements, Asking, CodeTold, Confirmed, Refusal};
use crate::clock::Timestamp;
use crate::ids::{AccountId, BankName, CustomerId, PurchaseId, RequestId};
use crate::payment::account::{WORDING, Wording};
use crate::payment::purchase::{Fresh, PurchaseEffect, Wanted, begin};
use crate::payment::{
    AttemptState, BanksAnswer, Capture, Condition, ConfirmedBy, Consent, Evidence, MainAccount, Occasion, Purchase,
    PurchaseAccount, PurchaseError, PurchaseEvent, PurchaseState, Role,
};
use crate::processor::{ChargeOrder, OrderGuards, Outcome, PurchaseGuard};
use crate::secret::SecretBytes;
use crate::store::papers::LinkAbout;
use crate::store::{CustomerStatus, Document, StoreError, SubmitRefusal, papers};

/// The longest pause between two looks for a bank's answer.
const LOOK_CAP: Duration = Duration::from_secs(15 * 60);

/// Why a purchase is not asked for or confirmed. Nothing was changed, and nothing will be charged.
#[derive(Debug, thiserror::Error)]
pub enum PurchaseFault {
    /// There is no such thing.
    #[error("there is no such {0}")]
    NoSuch(&'static str),
    /// The purchase's and the account's own rules.
    #[error(transparent)]
    Purchase(#[from] PurchaseError),
    /// The account's bank is none of the configuration.
    #[error("the account is at a bank that is not known here: `{0}`")]
    UnknownBank(BankName),
    /// The request can't be paid, or the rules on who has to agree refuse it.
    #[error("the payment is refused: {}", in_words(.0))]
    Refused(Refusal),
    /// The one-time code that came with the confirmation is not right.
    #[error("the one-time code is not right")]
    Code(CodeTold),
    /// A code could not be looked at.
    #[error(transparent)]
    CodeFailed(#[from] CodeError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A purchase that was asked for.
#[derive(Clone, Debug)]
pub struct AskedPurchase {
    /// As it stands.
    pub purchase: Purchase,
    /// From which account.
    pub account: PurchaseAccount,
    /// The token of its confirmation page; `None`: there is nothing to confirm any more.
    pub page: Option<String>,
}

/// What a confirmation page shows.
#[derive(Clone, Debug)]
pub struct ConfirmationPage {
    /// What is to be confirmed.
    pub purchase: Purchase,
    /// Who gets the money.
    pub payee_name: String,
    /// From which account, with its limits.
    pub account: PurchaseAccount,
    /// What has to be agreed to with it; `None`: that was done before.
    pub wording: Option<Wording>,
    /// Whether rules ask for a one-time code.
    pub wants_code: bool,
    /// Who else is asked once it is confirmed.
    pub others: Vec<Role>,
}

/// What a user says on the page.
#[derive(Debug)]
pub struct Confirmation {
    /// Yes or no.
    pub yes: bool,
    /// By what.
    pub how: ConfirmedBy,
    /// The version of the wording that was agreed to.
    pub consent: Option<String>,
    /// Digit values of a one-time code.
    pub code: Option<SecretBytes>,
}

impl Agreements {
    /// A payee asks for money of a user. The same request has one purchase at a time, and customer and payee one account, however many ask
    /// at once.
    pub async fn ask_purchase(&self, user: &CustomerId, request: &RequestId) -> Result<AskedPurchase, PurchaseFault> {
        for _ in 0..LIMIT_RACES {
            match self.try_ask_purchase(user, request).await {
                Err(PurchaseFault::Store(StoreError::Exists(_) | StoreError::Conflict(_))) => {}
                done => return done,
            }
        }
        Err(StoreError::Busy.into())
    }

    async fn try_ask_purchase(&self, user: &CustomerId, request: &RequestId) -> Result<AskedPurchase, PurchaseFault> {
        let inner = &*self.inner;
        let (store, now) = (&*inner.store, inner.clock.now());
        let customer = store.customer(user).await?.filter(|c| c.status == CustomerStatus::Active);
        customer.ok_or(PurchaseFault::NoSuch("customer"))?;
        let found = store.request(request).await?.filter(|r| r.request.customer == *user);
        let request = found.ok_or(PurchaseFault::NoSuch("payment request"))?.request;
        let open: Vec<Purchase> = papers::about(store, request.id.as_str()).await?;
        let mut change = Change::default();
        if let Some(earlier) = open.into_iter().next() {
            if earlier.state != PurchaseState::Awaiting || now < earlier.expires_at {
                return self.asked(earlier).await;
            }
            let over = earlier.step(now, PurchaseEvent::Expire)?;
            change.add(inner, (now, "agreement", "purchase.expired"), &over, purchase_json(&over))?;
        }
        if let Some(why) = request.unpayable(now) {
            return Err(PurchaseFault::Refused(Refusal::Submit(why.into())));
        }
        let main = self.main_account(user).await?;
        if let Some(main) = main.as_ref().filter(|m| !inner.processor.knows_bank(&m.bank)) {
            return Err(PurchaseFault::UnknownBank(main.bank.clone()));
        }
        let linked = self.purchase_accounts(user).await?.into_iter().find(|a| a.payee == request.payee);
        let asked = self.ask(&request, Asking::purchase()).await?;
        let wanted = Wanted {
            request: &request,
            main: main.as_ref(),
            account: linked.clone(),
            limits: inner.cfg.limits(request.amount.currency),
            spent_24h: asked.spent.1.to_payee,
        };
        let fresh =
            Fresh { purchase: PurchaseId::fresh_at(now, &*inner.entropy), account: AccountId::fresh_at(now, &*inner.entropy) };
        let valid = Duration::from_secs(u64::from(inner.cfg.confirmation_valid_min) * 60);
        let (purchase, effects) = begin(now, fresh, wanted, now.plus(valid))?;
        // What rules deny anyway nobody has to confirm.
        if let Some(rule) = asked.terms.denied_by {
            return Err(PurchaseFault::Refused(Refusal::Denied(rule)));
        }
        let (mut account, mut page) = (linked, None);
        for effect in effects {
            match effect {
                PurchaseEffect::CloseAccount(stale) => {
                    change.add(inner, (now, "agreement", "account.closed"), &*stale, account_json(&stale))?;
                }
                PurchaseEffect::LinkAccount(new) => {
                    change.add(inner, (now, "agreement", "account.linked"), &*new, account_json(&new))?;
                    account = Some(*new);
                }
                PurchaseEffect::SendPage => page = Some(self.page_link(&purchase)),
            }
        }
        change.add(inner, (now, "agreement", "purchase.asked"), &purchase, purchase_json(&purchase))?;
        // The link is for whoever delivers it to the customer; the audit trail keeps none.
        if let Some(token) = &page {
            if let Some(payload) = change.news.last_mut().and_then(|row| row.payload.as_object_mut()) {
                payload.insert("page".to_owned(), json!(token));
                payload.extend(self.url(token).map(|url| ("url".to_owned(), json!(url))));
            }
            change.links.extend(self.link_to(user, LinkAbout::Purchase, token, purchase.expires_at, now).await?);
        }
        change.write(inner).await?;
        let account = account.ok_or(PurchaseFault::NoSuch("purchase-permission account"))?;
        Ok(AskedPurchase { purchase, account, page })
    }

    /// One that was asked for before, with its page as long as there is something to confirm.
    async fn asked(&self, purchase: Purchase) -> Result<AskedPurchase, PurchaseFault> {
        let account = self.account_of(&purchase).await?;
        let page = (purchase.state == PurchaseState::Awaiting).then(|| self.page_link(&purchase));
        Ok(AskedPurchase { purchase, account, page })
    }

    async fn account_of(&self, purchase: &Purchase) -> Result<PurchaseAccount, PurchaseFault> {
        let found = papers::read(&*self.inner.store, purchase.account.as_str()).await?;
        found.ok_or(PurchaseFault::NoSuch("purchase-permission account"))
    }

    /// What the page of a purchase shows.
    pub async fn confirmation_page(&self, id: &PurchaseId) -> Result<ConfirmationPage, PurchaseFault> {
        let store = &*self.inner.store;
        let purchase: Purchase = papers::read(store, id.as_str()).await?.ok_or(PurchaseFault::NoSuch("purchase"))?;
        let found = store.request(&purchase.request).await?.ok_or(PurchaseFault::NoSuch("payment request"))?;
        let account = self.account_of(&purchase).await?;
        let asked = self.ask(&found.request, Asking::purchase()).await?;
        Ok(ConfirmationPage {
            wording: account.consent().is_none().then_some(WORDING),
            wants_code: asked.terms.conditions.contains(&Condition::Code),
            others: asked.parties().into_iter().map(|(role, _)| role).collect(),
            payee_name: found.payee_name,
            account,
            purchase,
        })
    }

    /// A user says yes or no. A yes hands the charge over, once, or has the others asked who have to agree: the same yes again gives the purchase
    /// as it stands. The bank's answer is not waited for: see [`Agreements::purchase`]. A no is good while others are waited for, too.
    pub async fn confirm(&self, id: &PurchaseId, who: &CustomerId, said: &Confirmation) -> Result<Purchase, PurchaseFault> {
        // A code is used up by the first try; what it proved holds for this confirmation.
        let mut met = BTreeSet::new();
        for _ in 0..LIMIT_RACES {
            match self.try_confirm(id, who, said, &mut met).await {
                Err(PurchaseFault::Store(StoreError::Conflict(_) | StoreError::Exists(_))) => {}
                Err(PurchaseFault::Refused(Refusal::Submit(SubmitRefusal::ChangedMeanwhile | SubmitRefusal::ApprovalGone))) => {}
                Err(fault) => {
                    self.tell_not_confirmed(id, who, &fault).await?;
                    return Err(fault);
                }
                done => return done,
            }
        }
        Err(StoreError::Busy.into())
    }

    /// Whoever tried, and why it was refused: for the trail. The outside hears only that it was. What rules refuse they tell themselves.
    async fn tell_not_confirmed(&self, id: &PurchaseId, who: &CustomerId, fault: &PurchaseFault) -> Result<(), StoreError> {
        let why = match fault {
            PurchaseFault::Purchase(why) => why.to_string(),
            PurchaseFault::Code(_) | PurchaseFault::UnknownBank(_) => fault.to_string(),
            PurchaseFault::NoSuch(_) | PurchaseFault::Refused(_) | PurchaseFault::CodeFailed(_) | PurchaseFault::Store(_) => {
                return Ok(());
            }
        };
        let inner = &*self.inner;
        let found: Option<Purchase> = papers::read(&*inner.store, id.as_str()).await?;
        let Some(purchase) = found else { return Ok(()) };
        let now = inner.clock.now();
        let audit = inner.audit(now, who.as_str(), "purchase.not_confirmed", id.as_str(), json!({ "why": why }));
        let news = inner.news(now, "purchase.not_confirmed", purchase_json(&purchase));
        inner.store.write_papers(&[], &[], &[audit], &[news]).await
    }

    async fn try_confirm(
        &self,
        id: &PurchaseId,
        who: &CustomerId,
        said: &Confirmation,
        met: &mut BTreeSet<Condition>,
    ) -> Result<Purchase, PurchaseFault> {
        let inner = &*self.inner;
        let (store, now) = (&*inner.store, inner.clock.now());
        let found: Option<Purchase> = papers::read(store, id.as_str()).await?;
        let purchase = found.ok_or(PurchaseFault::NoSuch("purchase"))?;
        let said_before = purchase.state.intent().is_some() || purchase.state.waits_on().is_some();
        if said.yes && *who == purchase.customer && said_before {
            return Ok(purchase);
        }
        let found = store.request(&purchase.request).await?.ok_or(PurchaseFault::NoSuch("payment request"))?;
        purchase.may_confirm(now, who, &found.request)?;
        if !said.yes {
            let mut change = Change::default();
            let event = PurchaseEvent::Refused { who: who.clone() };
            let refused = self.purchase_ends_into(&mut change, (now, who.as_str()), purchase, event).await?;
            change.write(inner).await?;
            return Ok(refused);
        }
        let consent = said.consent.clone().map(|wording| Consent {
            wording,
            digest: WORDING.digest(),
            by: who.clone(),
            how: said.how.clone(),
            at: now,
        });
        let confirmed = Confirmed { how: said.how.clone(), consent };
        let (guard, main) = self.guard(now, &purchase, who, &confirmed).await?;
        if let Some(code) = said.code.as_ref().filter(|_| !met.contains(&Condition::Code)) {
            match self.try_code(&found.request, code.expose()).await? {
                (Some(_), CodeTold::Good) => met.insert(Condition::Code),
                (_, told) => return Err(PurchaseFault::Code(told)),
            };
        }
        let order = ChargeOrder {
            customer: purchase.customer.clone(),
            request: purchase.request.clone(),
            amount: purchase.amount,
            card: main.card,
            occasion: Occasion::Purchase(purchase.id.clone()),
            capture: Capture::Automatic,
            evidence: Evidence::default(),
            guards: OrderGuards { purchase: Some(guard), ..OrderGuards::default() },
        };
        let yes = Yes { order, met: met.clone(), asking: Asking::purchase(), confirmed: Some(confirmed) };
        match Box::pin(self.try_agree(&yes)).await {
            Ok(Agreed::Charged(_) | Agreed::Waiting { .. }) => {
                Ok(papers::read(store, id.as_str()).await?.ok_or(PurchaseFault::NoSuch("purchase"))?)
            }
            Ok(Agreed::Refused(why)) => Err(PurchaseFault::Refused(why)),
            Err(AgreeError::NoSuch(what)) => Err(PurchaseFault::NoSuch(what)),
            Err(AgreeError::Approval(_)) => Err(PurchaseFault::Refused(Refusal::Submit(SubmitRefusal::ApprovalGone))),
            Err(AgreeError::Store(error)) => Err(error.into()),
        }
    }

    /// What goes with the charge: the account, used, with the consent that came with the yes; and where it goes.
    pub(super) async fn guard(
        &self,
        now: Timestamp,
        purchase: &Purchase,
        who: &CustomerId,
        said: &Confirmed,
    ) -> Result<(PurchaseGuard, MainAccount), PurchaseFault> {
        let inner = &*self.inner;
        let account = self.account_of(purchase).await?;
        let main = self.main_account(who).await?.filter(|m| m.id == account.main).ok_or(PurchaseError::NoMainAccount)?;
        if !inner.processor.knows_bank(&main.bank) {
            return Err(PurchaseFault::UnknownBank(main.bank));
        }
        let agreed_before = account.consent().is_some();
        // The day's sum is judged with the rules, by the very figures that guard the charge.
        let account = account.use_for(purchase.amount, 0, said.consent.clone()).map_err(PurchaseError::from)?;
        let told = purchase_json(purchase);
        let mut rows = vec![(
            inner.news(now, "purchase.confirmed", told.clone()),
            inner.audit(now, who.as_str(), "purchase.confirmed", purchase.id.as_str(), {
                let mut told = told;
                if let Some(fields) = told.as_object_mut() {
                    fields.insert("by".to_owned(), json!(said.how));
                    fields.insert("bank".to_owned(), json!(main.bank));
                }
                told
            }),
        )];
        if !agreed_before {
            let told = account_json(&account);
            let audit = inner.audit(now, who.as_str(), "account.consented", account.id.as_str(), told.clone());
            rows.push((inner.news(now, "account.consented", told), audit));
        }
        let guard = PurchaseGuard { purchase: purchase.clone(), account, bank: main.bank.clone(), look_at: now, told: rows };
        Ok((guard, main))
    }

    /// A purchase as it stands, with the bank's answer once there is one; an answer is waited for, but no longer than `wait`.
    pub async fn purchase(&self, id: &PurchaseId, wait: Duration) -> Result<Purchase, PurchaseFault> {
        let found: Option<Purchase> = papers::read(&*self.inner.store, id.as_str()).await?;
        let purchase = found.ok_or(PurchaseFault::NoSuch("purchase"))?;
        match self.look(&purchase, wait, false).await {
            // Somebody else wrote the answer down.
            Err(StoreError::Conflict(_)) => {
                Ok(papers::read(&*self.inner.store, id.as_str()).await?.ok_or(PurchaseFault::NoSuch("purchase"))?)
            }
            done => Ok(done?.unwrap_or(purchase)),
        }
    }

    /// Looks for the bank's answer and writes down what is new; with `put_off` also when to look next. `None`: nothing was written.
    pub(super) async fn look(&self, purchase: &Purchase, wait: Duration, put_off: bool) -> Result<Option<Purchase>, StoreError> {
        let inner = &*self.inner;
        let PurchaseState::Charging { intent, since, in_doubt: before, .. } = &purchase.state else { return Ok(None) };
        let answer = match inner.processor.outcome(intent, wait).await? {
            Outcome::Paid(receipt) => Some(BanksAnswer::Paid(receipt.id)),
            Outcome::Declined(reason) => Some(BanksAnswer::Declined(reason)),
            Outcome::Reversed => Some(BanksAnswer::Reversed),
            Outcome::Authorised | Outcome::Unknown => None,
        };
        let now = inner.clock.now();
        let event = match answer {
            Some(answer) => PurchaseEvent::Ended(answer),
            None => {
                let in_doubt = inner.store.payment(intent).await?.and_then(|p| p.opening().cloned()).is_some_and(|a| {
                    matches!(a.state, AttemptState::NeedsReconciliation { .. } | AttemptState::Conflicted { .. })
                });
                if !put_off && (*before || !in_doubt) {
                    return Ok(None);
                }
                // As long again as it has been waited for: soon at first, and no storm later.
                let least = Duration::from_millis(inner.cfg.sweep_ms.max(100));
                let pause = now.since(*since).clamp(least, LOOK_CAP.max(least));
                PurchaseEvent::Looked { in_doubt, look_at: now.plus(pause) }
            }
        };
        let after = purchase.clone().step(now, event).map_err(|e| StoreError::Failed(e.to_string()))?;
        let mut change = Change::default();
        if after.state.name() == purchase.state.name() {
            // Only when to look next has changed: that is nobody's news.
            change.papers.push(after.paper()?);
        } else {
            let topic = format!("purchase.{}", after.state.name());
            change.add(inner, (now, "agreement", &topic), &after, purchase_json(&after))?;
        }
        change.write(inner).await?;
        Ok(Some(after))
    }

    /// Takes a purchase back that nobody confirmed yet, or that waits for others.
    pub async fn cancel_purchase(&self, id: &PurchaseId, by: &str) -> Result<Purchase, PurchaseFault> {
        self.end_purchase(id, by, PurchaseEvent::Cancel).await
    }

    /// Ends one whose time is over.
    pub(super) async fn expire_purchase(&self, id: &PurchaseId) -> Result<Purchase, PurchaseFault> {
        self.end_purchase(id, "agreement", PurchaseEvent::Expire).await
    }

    async fn end_purchase(&self, id: &PurchaseId, by: &str, event: PurchaseEvent) -> Result<Purchase, PurchaseFault> {
        let inner = &*self.inner;
        for _ in 0..LIMIT_RACES {
            let now = inner.clock.now();
            let found: Option<Purchase> = papers::read(&*inner.store, id.as_str()).await?;
            let purchase = found.ok_or(PurchaseFault::NoSuch("purchase"))?;
            let mut change = Change::default();
            let ended = self.purchase_ends_into(&mut change, (now, by), purchase, event.clone()).await?;
            match change.write(inner).await {
                Err(StoreError::Conflict(_)) => {}
                done => return Ok(done.map(|()| ended)?),
            }
        }
        Err(StoreError::Busy.into())
    }
}

fn in_words(why: &Refusal) -> String {
    match why {
        Refusal::Denied(rule) => rule.clone(),
        Refusal::NotMet(condition) => format!("the rules ask for {}", condition.as_str()),
        Refusal::Nobody(condition) => format!("the rules ask for {}, and there is none", condition.as_str()),
        Refusal::Submit(why) => why.to_string(),
    }
}

/// A purchase, as the trail and the outside see it.
pub(super) fn purchase_json(purchase: &Purchase) -> Value {
    let reason = match &purchase.state {
        PurchaseState::Declined { reason, .. } => Some(json!({ "reason": reason, "advice": reason.advice() })),
        PurchaseState::Awaiting
        | PurchaseState::Waiting { .. }
        | PurchaseState::Charging { .. }
        | PurchaseState::Paid { .. }
        | PurchaseState::Reversed { .. }
        | PurchaseState::Refused
        | PurchaseState::Expired
        | PurchaseState::Cancelled
        | PurchaseState::Denied { .. }
        | PurchaseState::Withdrawn { .. } => None,
    };
    json!({
        "purchase": purchase.id,
        "request": purchase.request,
        "customer": purchase.customer,
        "payee": purchase.payee,
        "account": purchase.account,
        "amount_minor": purchase.amount.minor,
        "currency": purchase.amount.currency,
        "binding": purchase.binding,
        "state": purchase.state.name(),
        "intent": purchase.state.intent(),
        "approval": purchase.state.waits_on(),
        "declined": reason,
        "expires_at": purchase.expires_at,
    })
}
