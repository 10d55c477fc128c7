//! Main accounts, purchase-permission accounts and purchases (system 7, docs/ACCOUNTS.md).

use std::time::Duration;

use super::agreeing::Digits;
use super::ask::{Answer, Ask, created, ok};
use super::people::{of_caller, paper_of_path};
use super::problem::Problem;
use super::route::{Route, run};
use super::scope::Scope;
use super::shape::shape;
use super::types::{Amount, Nothing, When, Word};
use crate::agreement::{AccountFault, CodeError, CodeTold, Confirmation, PurchaseFault};
use crate::ids::{
    AccountId, ApprovalId, BankName, CardId, CustomerId, IntentId, MainAccountId, PayeeId, PurchaseId, ReceiptId, RequestId,
};
use crate::payment::{ConfirmedBy, Consent, MainAccount, Purchase, PurchaseAccount, PurchaseState};

/// How long a confirmation waits for the bank's answer, in milliseconds; what takes longer is told by webhook.
const ANSWER_WAIT_MS: u64 = 3_000;

shape! {
    /// A customer's account at a bank.
    input NewMainAccount {
        /// Whose.
        customer: CustomerId,
        /// Which bank: a name of the service's configuration.
        bank: BankName,
        /// The card by which the bank knows it.
        card: CardId,
    }
}

shape! {
    /// A customer's account at a bank. A customer has one at a time.
    output MainAccountView {
        /// Which one.
        id: MainAccountId,
        /// Whose.
        customer: CustomerId,
        /// Which bank.
        bank: BankName,
        /// The card by which the bank knows it.
        card: CardId,
        /// When it was closed; null: it is open.
        closed_at: Option<When>,
        /// When it was opened.
        created_at: When,
    }
}

shape! {
    /// What the customer agreed to.
    output PurchaseConsent {
        /// The wording's version.
        wording: String,
        /// SHA-256 of version and text.
        digest: String,
        /// Who agreed.
        by: CustomerId,
        /// `link` or `api`.
        how: Word,
        /// When.
        at: When,
    }
}

shape! {
    /// A payee's permission to ask for money from a main account.
    output PurchaseAccountView {
        /// Which one.
        id: AccountId,
        /// Who pays.
        customer: CustomerId,
        /// From where.
        main_account: MainAccountId,
        /// To whom.
        payee: PayeeId,
        /// The most for one purchase.
        purchase_limit: Amount,
        /// The most that the payee gets in 24 hours.
        day_limit: Amount,
        /// `pending_consent`, `active` or `closed`.
        state: Word,
        /// The consent in force; null: there is none.
        consent: Option<PurchaseConsent>,
        /// How many purchases went to its bank.
        used: u64,
        /// When it was linked.
        created_at: When,
    }
}

shape! {
    /// A customer's open accounts.
    output AccountsView {
        /// The main account; null: there is none, and nothing can be bought.
        main: Option<MainAccountView>,
        /// Who may ask for money from it.
        purchase: Vec<PurchaseAccountView>,
    }
}

shape! {
    /// Who is asked for money, and for what.
    input NewPurchase {
        /// The user.
        customer: CustomerId,
        /// A payment request of theirs that can be paid now.
        request: RequestId,
    }
}

shape! {
    /// What a payee asks for, and its user has to confirm.
    output PurchaseView {
        /// Which one.
        id: PurchaseId,
        /// What is paid.
        request: RequestId,
        /// Who pays.
        customer: CustomerId,
        /// Who gets the money.
        payee: PayeeId,
        /// How much.
        amount: Amount,
        /// From which account.
        account: AccountId,
        /// `awaiting`, `waiting`, `charging`, `in_doubt`, `paid`, `declined`, `reversed`, `refused`, `expired`, `cancelled`, `denied` or `withdrawn`.
        state: Word,
        /// What others have to agree to, while it waits for them; null: it does not.
        approval: Option<ApprovalId>,
        /// The payment that it became; null: none.
        payment: Option<IntentId>,
        /// The receipt, if it was paid.
        receipt: Option<ReceiptId>,
        /// Why the bank declined, for people; null: it did not.
        declined: Option<String>,
        /// From then on it can't be confirmed.
        expires_at: When,
        /// When it was asked for.
        created_at: When,
    }
}

shape! {
    /// A purchase, and the page on which its user confirms it.
    output PurchasePage {
        /// What is asked for.
        purchase: PurchaseView,
        /// The account that pays, with its limits.
        account: PurchaseAccountView,
        /// The payee's name.
        payee_name: String,
        /// The version of the wording that has to be agreed to; null: that was done before.
        wording: Option<String>,
        /// The wording itself.
        wording_text: Option<String>,
        /// Whether a one-time code is asked for.
        wants_code: bool,
        /// Who else is asked once it is confirmed: `guardian`, `second_guardian`, `supervisor`.
        others: Vec<Word>,
        /// The token of the page's link, for the customer and nobody else; null: there is nothing to confirm.
        page: Option<String>,
        /// The link itself; null: there is nothing to confirm, or the service makes no links.
        url: Option<String>,
    }
}

shape! {
    /// What the user said: by the token of the page's link, or as your own systems vouch for.
    input NewConfirmation {
        /// The token of the link by which the page was opened.
        page: Option<String>,
        /// Or who said it: the purchase's customer.
        customer: Option<CustomerId>,
        /// Yes or no. A no ends the purchase.
        agree: bool,
        /// The version of the wording that was shown and agreed to, where the page asks for one.
        consent: Option<String>,
        /// A one-time code, where the page asks for one.
        code: Option<Digits>,
    }
}

pub(super) fn routes() -> Vec<Route> {
    use Scope::{AccountsRead, AccountsWrite, ApprovalsRead, ApprovalsWrite, PaymentsRead, PaymentsWrite};
    vec![
        Route::post::<NewMainAccount, MainAccountView>(
            "/main-accounts",
            "openMainAccount",
            AccountsWrite,
            run!(open),
            "Opens a customer's main account. The same again gives the same account.",
        ),
        Route::delete::<MainAccountView>(
            "/main-accounts/{id}",
            "closeMainAccount",
            AccountsWrite,
            run!(close_main),
            "Closes a main account, and every permission to ask for money from it.",
        ),
        Route::get::<AccountsView>(
            "/customers/{id}/accounts",
            "listAccounts",
            AccountsRead,
            run!(accounts),
            "A customer's open accounts.",
        ),
        Route::get::<PurchaseAccountView>(
            "/accounts/{id}",
            "getAccount",
            AccountsRead,
            run!(account),
            "A purchase-permission account.",
        ),
        Route::delete::<PurchaseAccountView>(
            "/accounts/{id}",
            "closeAccount",
            AccountsWrite,
            run!(close),
            "Takes the customer's consent back: nothing is paid from the account any more.",
        ),
        Route::post::<NewPurchase, PurchasePage>(
            "/purchases",
            "askPurchase",
            PaymentsWrite,
            run!(ask_purchase),
            "Asks a user for money. The account is found or linked at once; the user has to confirm on the page.",
        ),
        Route::get::<PurchaseView>(
            "/purchases/{id}",
            "getPurchase",
            PaymentsRead,
            run!(purchase),
            "A purchase, with the bank's answer once there is one.",
        ),
        Route::get::<PurchasePage>(
            "/purchases/{id}/page",
            "getPurchasePage",
            ApprovalsRead,
            run!(page),
            "What the confirmation page shows.",
        ),
        Route::post::<NewConfirmation, PurchaseView>(
            "/purchases/{id}/confirmations",
            "confirmPurchase",
            ApprovalsWrite,
            run!(confirm),
            "Records what the user said. A yes goes to the account's bank, once, when all others who have to agree did; the bank's answer is waited for three seconds.",
        )
        .giving(200),
        Route::post::<Nothing, PurchaseView>(
            "/purchases/{id}/cancel",
            "cancelPurchase",
            PaymentsWrite,
            run!(cancel),
            "Takes a purchase back that nobody confirmed yet, or that waits for others.",
        )
        .giving(200),
    ]
}

impl From<AccountFault> for Problem {
    fn from(fault: AccountFault) -> Self {
        match fault {
            AccountFault::NoSuch(what) => Self::not_found(what),
            AccountFault::Store(e) => e.into(),
            AccountFault::UnknownBank(_) | AccountFault::NoUsableCard | AccountFault::HasAnother => {
                Self::conflict(fault.to_string())
            }
        }
    }
}

impl From<PurchaseFault> for Problem {
    fn from(fault: PurchaseFault) -> Self {
        match fault {
            PurchaseFault::NoSuch(what) => Self::not_found(what),
            PurchaseFault::Store(e) | PurchaseFault::CodeFailed(CodeError::Store(e)) => e.into(),
            PurchaseFault::CodeFailed(CodeError::Vault(e)) => Self::internal(&e),
            PurchaseFault::Code(CodeTold::Wrong(left)) => Self::conflict(format!("the code is wrong; tries left: {left}")),
            PurchaseFault::Code(CodeTold::Good | CodeTold::Dead) => {
                Self::conflict("there is no code that could be tried: send one")
            }
            PurchaseFault::Purchase(_) | PurchaseFault::UnknownBank(_) | PurchaseFault::Refused(_) => {
                Self::conflict(fault.to_string())
            }
        }
    }
}

fn main_view(m: MainAccount) -> MainAccountView {
    MainAccountView {
        id: m.id,
        customer: m.customer,
        bank: m.bank,
        card: m.card,
        closed_at: m.closed_at.map(When),
        created_at: m.created_at.into(),
    }
}

fn account_view(a: PurchaseAccount) -> PurchaseAccountView {
    let consent = |c: Consent| {
        let how = match c.how {
            ConfirmedBy::Link => Word("link"),
            ConfirmedBy::Api { .. } => Word("api"),
        };
        PurchaseConsent { wording: c.wording, digest: c.digest, by: c.by, how, at: c.at.into() }
    };
    PurchaseAccountView {
        state: Word(a.state.name()),
        consent: a.consent().cloned().map(consent),
        purchase_limit: a.limits.purchase().into(),
        day_limit: a.limits.day().into(),
        id: a.id,
        customer: a.customer,
        main_account: a.main,
        payee: a.payee,
        used: a.used,
        created_at: a.created_at.into(),
    }
}

fn view(p: Purchase) -> PurchaseView {
    let (receipt, declined) = match &p.state {
        PurchaseState::Paid { receipt, .. } => (Some(receipt.clone()), None),
        PurchaseState::Declined { reason, .. } => (None, Some(reason.text().to_owned())),
        PurchaseState::Awaiting
        | PurchaseState::Waiting { .. }
        | PurchaseState::Charging { .. }
        | PurchaseState::Reversed { .. }
        | PurchaseState::Refused
        | PurchaseState::Expired
        | PurchaseState::Cancelled
        | PurchaseState::Denied { .. }
        | PurchaseState::Withdrawn { .. } => (None, None),
    };
    PurchaseView {
        state: Word(p.state.name()),
        payment: p.state.intent().cloned(),
        approval: p.state.waits_on().cloned(),
        receipt,
        declined,
        id: p.id,
        request: p.request,
        customer: p.customer,
        payee: p.payee,
        amount: p.amount.into(),
        account: p.account,
        expires_at: p.expires_at.into(),
        created_at: p.created_at.into(),
    }
}

async fn open(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewMainAccount = ask.input()?;
    let customer = of_caller(ask, &new.customer).await?;
    let opened = ask.shared.agreements.open_main_account(&customer.id, &new.bank, &new.card, &ask.actor()).await?;
    created(&main_view(opened))
}

async fn close_main(ask: &Ask) -> Result<Answer, Problem> {
    let found = paper_of_path::<MainAccountId, MainAccount>(ask).await?;
    ok(&main_view(ask.shared.agreements.close_main_account(&found.id, &ask.actor()).await?))
}

async fn accounts(ask: &Ask) -> Result<Answer, Problem> {
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?;
    let agreements = &ask.shared.agreements;
    let main = agreements.main_account(&customer.id).await?.map(main_view);
    let purchase = agreements.purchase_accounts(&customer.id).await?.into_iter().map(account_view).collect();
    ok(&AccountsView { main, purchase })
}

async fn account_of_path(ask: &Ask) -> Result<PurchaseAccount, Problem> {
    paper_of_path::<AccountId, _>(ask).await
}

async fn account(ask: &Ask) -> Result<Answer, Problem> {
    ok(&account_view(account_of_path(ask).await?))
}

async fn close(ask: &Ask) -> Result<Answer, Problem> {
    let found = account_of_path(ask).await?;
    ok(&account_view(ask.shared.agreements.close_account(&found.id, &ask.actor()).await?))
}

/// Without a look for the bank's answer.
async fn purchase_of_path(ask: &Ask) -> Result<Purchase, Problem> {
    paper_of_path::<PurchaseId, _>(ask).await
}

async fn ask_purchase(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewPurchase = ask.input()?;
    let customer = of_caller(ask, &new.customer).await?;
    let asked = ask.shared.agreements.ask_purchase(&customer.id, &new.request).await?;
    created(&page_view(ask, &asked.purchase.id).await?)
}

async fn page_view(ask: &Ask, id: &PurchaseId) -> Result<PurchasePage, Problem> {
    let shown = ask.shared.agreements.confirmation_page(id).await?;
    let open = shown.purchase.state == PurchaseState::Awaiting && ask.shared.clock.now() < shown.purchase.expires_at;
    let page = open.then(|| ask.shared.agreements.page_link(&shown.purchase));
    Ok(PurchasePage {
        url: page.as_ref().and_then(|token| ask.shared.agreements.url(token)),
        page,
        purchase: view(shown.purchase),
        account: account_view(shown.account),
        payee_name: shown.payee_name,
        wording: shown.wording.map(|w| w.version.to_owned()),
        wording_text: shown.wording.map(|w| w.text.to_owned()),
        wants_code: shown.wants_code,
        others: shown.others.into_iter().map(|role| Word(role.as_str())).collect(),
    })
}

async fn page(ask: &Ask) -> Result<Answer, Problem> {
    let found = purchase_of_path(ask).await?;
    ok(&page_view(ask, &found.id).await?)
}

async fn purchase(ask: &Ask) -> Result<Answer, Problem> {
    let found = purchase_of_path(ask).await?;
    ok(&view(ask.shared.agreements.purchase(&found.id, Duration::ZERO).await?))
}

async fn confirm(ask: &Ask) -> Result<Answer, Problem> {
    let said: NewConfirmation = ask.input()?;
    let found = purchase_of_path(ask).await?;
    let agreements = &ask.shared.agreements;
    let (who, how) = match (said.page, said.customer) {
        (Some(token), None) => match agreements.open_page_link(&token) {
            Ok((id, who)) if id == found.id => (who, ConfirmedBy::Link),
            Ok(_) => return Err(Problem::conflict("this link is another purchase's")),
            Err(why) => return Err(Problem::conflict(why.to_string())),
        },
        (None, Some(customer)) => (customer, ConfirmedBy::Api { key: ask.caller.key.to_string() }),
        (Some(_), Some(_)) | (None, None) => return Err(Problem::invalid("the body: give `page` or `customer`, one of them")),
    };
    let code = said.code.map(|digits| digits.0);
    let confirmation = Confirmation { yes: said.agree, how, consent: said.consent, code };
    let confirmed = agreements.confirm(&found.id, &who, &confirmation).await?;
    ok(&view(agreements.purchase(&confirmed.id, Duration::from_millis(ANSWER_WAIT_MS)).await?))
}

async fn cancel(ask: &Ask) -> Result<Answer, Problem> {
    let _nothing: Nothing = ask.input()?;
    let found = purchase_of_path(ask).await?;
    if found.state == PurchaseState::Cancelled {
        return ok(&view(found)); // cancelled when this was asked before
    }
    ok(&view(ask.shared.agreements.cancel_purchase(&found.id, &ask.actor()).await?))
}
