//! Payment requests: somebody of the tenant's asks a customer for money.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{Answer, Ask, created, ok, page};
use super::people::{of_caller, payee_of_caller};
use super::problem::Problem;
use super::route::{Route, run};
use super::scope::Scope;
use super::shape::{Defs, Page, Shape, shape};
use super::types::{Amount, AmountAsked, Nothing, When, Word, whole};
use crate::ids::{CustomerId, IntentId, PayeeId, RequestId};
use crate::payment::{AddressMark, Delivery, DueDate, PaymentRequest, RequestStatus};
use crate::store::{Listed, RequestWithPayee};

impl Shape for DueDate {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "format": "date", "pattern": "^(19[7-9][0-9]|[2-9][0-9]{3})-" })
    }
}

/// For how many days a request can be paid.
pub struct Days(u32);

const DAYS: std::ops::RangeInclusive<u32> = 1..=3_650;

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let days = u32::try_from(whole(d)?).ok().filter(|days| DAYS.contains(days));
        days.map(Self).ok_or_else(|| serde::de::Error::custom("days are 1 to 3650"))
    }
}

impl Shape for Days {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "integer", "minimum": DAYS.start(), "maximum": DAYS.end() })
    }
}

/// An address that goods go to, of 1 to 500 characters. Kept as a keyed digest alone: known again, never read.
pub struct Address(pub(super) String);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let fits = (1..=500).contains(&text.chars().count());
        if fits { Ok(Self(text)) } else { Err(serde::de::Error::custom("an address has 1 to 500 characters")) }
    }
}

impl Shape for Address {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "minLength": 1, "maxLength": 500 })
    }
}

shape! {
    /// A new payment request.
    input NewRequest {
        /// Who is asked.
        customer: CustomerId,
        /// Who gets the money.
        payee: PayeeId,
        /// How much.
        amount: AmountAsked,
        /// By when the payee would like it; it is read out.
        due: Option<DueDate>,
        /// For so many days it can be paid: 90 if absent.
        valid_days: Option<Days>,
        /// Whether goods are delivered for it: false if absent.
        goods: Option<bool>,
        /// Where they go. Case, punctuation and white space don't matter: the same address is known again.
        address: Option<Address>,
    }
}

shape! {
    /// A payment request.
    output RequestView {
        /// Which one.
        id: RequestId,
        /// Who is asked.
        customer: CustomerId,
        /// Who gets the money.
        payee: PayeeId,
        /// The payee's name.
        payee_name: String,
        /// How much.
        amount: Amount,
        /// By when the payee would like it.
        due: Option<DueDate>,
        /// From then on nobody can pay it.
        expires_at: Option<When>,
        /// `open`, `paid`, `cancelled` or `expired`.
        status: Word,
        /// The payment that pays it, under way or done.
        payment: Option<IntentId>,
        /// When it was made.
        created_at: When,
    }
}

pub(super) fn routes() -> Vec<Route> {
    use Scope::{RequestsRead, RequestsWrite};
    vec![
        Route::get::<Page<RequestView>>("/requests", "listRequests", RequestsRead, run!(list), "Requests, newest first.")
            .listed(),
        Route::post::<NewRequest, RequestView>("/requests", "addRequest", RequestsWrite, run!(add), "Asks a customer for money."),
        Route::get::<RequestView>("/requests/{id}", "getRequest", RequestsRead, run!(one), "One request."),
        Route::post::<Nothing, RequestView>(
            "/requests/{id}/cancel",
            "cancelRequest",
            RequestsWrite,
            run!(cancel),
            "Withdraws a request that nobody has paid or is paying, and the approvals that it waited for.",
        )
        .giving(200),
        Route::get::<Page<RequestView>>(
            "/customers/{id}/requests",
            "listPayable",
            RequestsRead,
            run!(payable),
            "What a customer could pay now, the earliest due first.",
        ),
    ]
}

fn view(r: PaymentRequest, payee_name: String) -> RequestView {
    RequestView {
        id: r.id,
        customer: r.customer,
        payee: r.payee,
        payee_name,
        amount: r.amount.into(),
        due: r.due,
        expires_at: r.expires_at.map(When),
        status: Word(r.status.as_str()),
        payment: r.held_by,
        created_at: r.created_at.into(),
    }
}

async fn list(ask: &Ask) -> Result<Answer, Problem> {
    let found = ask.page(Listed::Requests, "requests").await?;
    let mut data = Vec::with_capacity(found.ids.len());
    for id in &found.ids {
        let id = RequestId::parse(id).map_err(|e| Problem::internal(&e))?;
        data.extend(ask.shared.store.request(&id).await?.map(|r| view(r.request, r.payee_name)));
    }
    page(data, found.next)
}

/// The request of the path, if it is the caller's, and the payee's name.
async fn found_of_path(ask: &Ask) -> Result<RequestWithPayee, Problem> {
    let none = || Problem::not_found("payment request");
    let found = ask.shared.store.request(&ask.id::<RequestId>(0, "payment request")?).await?.ok_or_else(none)?;
    let customer = ask.shared.store.customer(&found.request.customer).await?;
    customer.filter(|c| c.tenant == ask.caller.tenant).ok_or_else(none)?;
    Ok(found)
}

/// The request of the path, if it is the caller's.
pub(super) async fn request_of_path(ask: &Ask) -> Result<PaymentRequest, Problem> {
    Ok(found_of_path(ask).await?.request)
}

async fn of_path(ask: &Ask) -> Result<RequestView, Problem> {
    let found = found_of_path(ask).await?;
    Ok(view(found.request, found.payee_name))
}

async fn one(ask: &Ask) -> Result<Answer, Problem> {
    ok(&of_path(ask).await?)
}

async fn payable(ask: &Ask) -> Result<Answer, Problem> {
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?;
    let all = ask.shared.store.payable_requests(&customer.id, ask.shared.clock.now()).await?;
    page(all.into_iter().map(|r| view(r.request, r.payee_name)).collect(), None)
}

/// Whether goods are delivered, and where to.
pub(super) fn delivery(ask: &Ask, goods: Option<bool>, address: Option<Address>) -> Delivery {
    match (goods.unwrap_or(false), address) {
        (false, None) => Delivery::None,
        (true, None) => Delivery::Nowhere,
        (_, Some(Address(address))) => Delivery::To(AddressMark::of(&ask.shared.vault.address_mark(&address))),
    }
}

async fn add(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewRequest = ask.input()?;
    let amount = new.amount.money().map_err(|e| Problem::invalid(e.to_string()))?;
    let customer = of_caller(ask, &new.customer).await?;
    let payee = payee_of_caller(ask, &new.payee).await?;
    let days = new.valid_days.map_or(90, |d| d.0);
    let delivery = delivery(ask, new.goods, new.address);
    let request = PaymentRequest {
        id: RequestId::fresh_at(ask.now, &ask.entropy),
        customer: customer.id,
        payee: payee.id,
        amount,
        due: new.due,
        delivery,
        expires_at: Some(ask.now.plus(Duration::from_secs(u64::from(days) * 24 * 3_600))),
        status: RequestStatus::Open,
        held_by: None,
        created_at: ask.now,
    };
    if let Some(there) = ask.shared.store.request(&request.id).await? {
        return created(&view(there.request, there.payee_name)); // made when this was asked before
    }
    let detail = json!({ "customer": request.customer, "payee": request.payee, "amount_minor": amount.minor, "currency": amount.currency });
    let audit = ask.audit("request.added", request.id.as_str(), detail);
    ask.shared.store.add_request(&request, &audit).await?;
    created(&view(request, payee.name))
}

async fn cancel(ask: &Ask) -> Result<Answer, Problem> {
    let _nothing: Nothing = ask.input()?;
    let found = of_path(ask).await?;
    if found.status.0 == RequestStatus::Cancelled.as_str() {
        // Cancelled when this was asked before, perhaps by a process that did not live to do the rest.
        ask.shared.agreements.end_approvals_of(&found.id, &ask.actor()).await?;
    } else {
        ask.shared.agreements.cancel_request(&found.id, &ask.actor()).await?;
    }
    ok(&of_path(ask).await?)
}
