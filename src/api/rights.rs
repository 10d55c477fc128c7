//! What a person may ask about themselves: what was agreed to, taking it back, and everything that is held.

use std::str::FromStr;

use serde_json::{Value, json};

use super::ask::{Answer, Ask, ok, page};
use super::people::of_caller;
use super::problem::Problem;
use super::route::{LIST, Route, run};
use super::scope::Scope;
use super::shape::{Page, shape};
use super::types::{Nothing, When, Word};
use crate::clock::Timestamp;
use crate::ids::{AccountId, CallId, ConsentId, CustomerId, InviteId, MandateId};
use crate::rights::export::{self, FORMAT, Part, Place};
use crate::store::consents::Consent;
use crate::store::{Purpose, StoreError};

shape! {
    /// How a consent ended.
    output WithdrawalView {
        /// When.
        at: When,
        /// Who did it, as the audit trail names them.
        by: String,
        /// `call`, `operator`, `api`, `replaced` (by a newer one) or `retention` (what it allowed was not used for too long).
        how: Word,
        /// In which call.
        call: Option<CallId>,
    }
}

shape! {
    /// That somebody agreed to something. It never changes; that it ended is another row.
    output ConsentView {
        /// Which one: after its prefix the same as that of the audit row of what it allowed.
        id: ConsentId,
        /// Whose.
        customer: CustomerId,
        /// `voiceprint`, `following` (the template follows the voice), `mandate`, `account` or `recording`.
        purpose: Word,
        /// Which mandate or purchase-permission account, for one of those.
        about: Option<String>,
        /// Which wording was agreed to.
        text_version: String,
        /// In which language.
        language: String,
        /// Who witnessed it.
        given_by: String,
        /// `call`, `voucher`, `api`, or `link` (on the page that only the customer was sent).
        how: Word,
        /// When.
        given_at: When,
        /// In which call.
        call: Option<CallId>,
        /// By which invitation.
        invitation: Option<InviteId>,
        /// How it ended; null: it holds.
        withdrawn: Option<WithdrawalView>,
    }
}

shape! {
    /// What is held about a customer, or the next part of it. Never a card number, never a voice.
    output ExportView {
        /// What this is: `voicepay-export/1`.
        format: String,
        /// About whom.
        customer: CustomerId,
        /// When it was read.
        made_at: When,
        /// Identity, cards, voice, invitations, consents, and how long things are kept; null on further pages.
        person: Value,
        /// Who was asked for what.
        requests: Vec<Value>,
        /// What was paid.
        payments: Vec<Value>,
        /// Calls with verdicts and scores.
        calls: Vec<Value>,
        /// Mandates, approvals, guardianships, supervisions, codes, main accounts, purchase-permission accounts, purchases.
        papers: Vec<Value>,
        /// Audit rows that concern the customer.
        audit: Vec<Value>,
        /// Give it as `after` for the next page; null: this was all. A page may be empty and not the last.
        next: Option<String>,
    }
}

pub(super) fn routes() -> Vec<Route> {
    use Scope::{CustomersExport, CustomersRead, EnrolmentsWrite};
    vec![
        Route::get::<Page<ConsentView>>(
            "/customers/{id}/consents",
            "listConsents",
            CustomersRead,
            run!(consents),
            "What a customer agreed to, and how each consent ended; the oldest first.",
        ),
        Route::post::<Nothing, ConsentView>(
            "/customers/{id}/consents/{consent}/withdraw",
            "withdrawConsent",
            EnrolmentsWrite,
            run!(withdraw),
            "Takes a consent back, and with it what it allowed: the voiceprint is erased, the template follows no longer, the mandate is \
             revoked, the purchase-permission account is closed. One that ended stays as it is.",
        )
        .giving(200),
        Route::get::<ExportView>(
            "/customers/{id}/export",
            "exportCustomer",
            CustomersExport,
            run!(export),
            "Everything that is held about a customer, as one document, or in pages where it is more than `limit` things. It is \
             noted in the audit trail.",
        )
        .with(LIST),
    ]
}

fn view(c: Consent) -> ConsentView {
    ConsentView {
        id: c.id,
        customer: c.customer,
        purpose: Word(c.purpose.as_str()),
        about: c.about,
        text_version: c.text_version,
        language: c.language,
        given_by: c.given_by,
        how: Word(c.how.as_str()),
        given_at: c.given_at.into(),
        call: c.call,
        invitation: c.invite,
        withdrawn: c.withdrawn.map(|w| WithdrawalView { at: w.at.into(), by: w.by, how: Word(w.how.as_str()), call: w.call }),
    }
}

async fn consents(ask: &Ask) -> Result<Answer, Problem> {
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?;
    let all = ask.shared.store.consents_of(&customer.id).await?;
    page(all.into_iter().map(view).collect(), None)
}

async fn of_path(ask: &Ask, customer: &CustomerId) -> Result<Consent, Problem> {
    let none = || Problem::not_found("consent");
    let found = ask.shared.store.consent(&ask.id::<ConsentId>(1, "consent")?).await?;
    found.filter(|c| c.customer == *customer).ok_or_else(none)
}

async fn withdraw(ask: &Ask) -> Result<Answer, Problem> {
    let _nothing: Nothing = ask.input()?;
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?.id;
    let found = of_path(ask, &customer).await?;
    if found.withdrawn.is_some() {
        return ok(&view(found));
    }
    let store = &ask.shared.store;
    let detail = json!({ "consent": found.id });
    let done = match found.purpose {
        Purpose::Voiceprint => store.delete_template(&customer, &ask.audit("voice.withdrawn", customer.as_str(), detail)).await,
        Purpose::Following => store.set_following(&customer, None, &ask.audit("voice.stays", customer.as_str(), detail)).await,
        Purpose::Mandate => {
            let none = || Problem::conflict("the mandate of this consent is gone");
            let id = found.about.as_deref().and_then(|id| MandateId::parse(id).ok()).ok_or_else(none)?;
            ask.shared.agreements.revoke_mandate(&id, &ask.actor()).await?;
            Ok(())
        }
        Purpose::Account => {
            let none = || Problem::conflict("the account of this consent is gone");
            let id = found.about.as_deref().and_then(|id| AccountId::parse(id).ok()).ok_or_else(none)?;
            ask.shared.agreements.close_account(&id, &ask.actor()).await?;
            Ok(())
        }
        Purpose::Recording => return Err(Problem::conflict("this consent is taken back where it was given")),
    };
    match done {
        // Somebody else was faster: what it allowed is gone.
        Ok(()) | Err(StoreError::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    ok(&view(of_path(ask, &customer).await?))
}

async fn export(ask: &Ask) -> Result<Answer, Problem> {
    const DEFAULT: u16 = 100;
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?;
    let list = format!("export of {}", customer.id);
    let after = ask.after(&list)?;
    let wrong = |_| Problem::invalid("`after` is not a cursor of this list");
    let from = after.as_deref().map(Place::from_str).transpose().map_err(wrong)?;
    let limit = if ask.param("limit").is_some() { ask.limit()? } else { DEFAULT };
    let (store, now): (_, Timestamp) = (&*ask.shared.store, ask.shared.clock.now());
    let mut made = export::page(store, &ask.shared.retention, &customer, from, limit.into(), now).await?;
    // Written before anything is handed over, and once: a row a page would be more for the pages to tell of.
    if made.person.is_some() {
        store.audit(&ask.audit("customer.exported", customer.id.as_str(), json!({}))).await?;
    }
    ok(&ExportView {
        format: FORMAT.into(),
        customer: customer.id,
        made_at: now.into(),
        person: made.person.take().unwrap_or(Value::Null),
        requests: made.list(Part::Requests),
        payments: made.list(Part::Payments),
        calls: made.list(Part::Calls),
        papers: made.list(Part::Papers),
        audit: made.list(Part::Audit),
        next: made.next.map(|place| ask.cursor(&list, &place.to_string())),
    })
}
