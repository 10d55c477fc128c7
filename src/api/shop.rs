//! The demo's shop at `/shop`: the page of web/shop with the component, and the shop's own back end, which makes a payment request and an app session
//! for the demo's customer. It has no key and asks for none, so that it is there only where `app.demo_shop` says so.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::Shared;
use super::body::{self, Unread};
use super::gate;
use super::pages::guests::{self, Meter};
use super::people::Tongue;
use super::problem::Problem;
use super::types::words;
use crate::app_sessions::{Drawn, NewAppSession};
use crate::bucket::Rate;
use crate::ids::{AuditId, CustomerId, PayeeId, RequestId, Tenant};
use crate::listen::one_header;
use crate::money::{Currency, Money};
use crate::payment::{AppOrigin, Delivery, PaymentRequest, RequestStatus};
use crate::store::{AuditRecord, Payee};

/// Who does it, for the audit trail.
const ACTOR: &str = "demo shop";
/// An order has so many bytes at most, and has come by then, in milliseconds.
const BODY_LIMIT_BYTES: usize = 1_024;
const BODY_WAIT_MS: u64 = 5_000;
/// For how long a bill can be paid.
const BILL_VALID: Duration = Duration::from_secs(3_600);
/// Orders from one address.
const ORDERS: Rate = Rate { per_s: 1.0, burst: 20.0 };
/// Scripts and styles of our own, the microphone, and nothing from elsewhere.
const POLICY: &str = "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'; img-src data:; media-src 'self' blob: mediastream:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

words! {
    /// A bill of the demo's.
    Item {
        /// City Water.
        Water = "water",
        /// Riverside Electric.
        Power = "power",
        /// Harbour Insurance.
        Insurance = "insurance",
    }
}

impl Item {
    /// Who is paid, what it sells, and how many cents.
    fn bill(self) -> (&'static str, &'static str, i64) {
        match self {
            Self::Water => ("City Water", "utilities", 1_999),
            Self::Power => ("Riverside Electric", "utilities", 4_250),
            Self::Insurance => ("Harbour Insurance", "insurance", 7_800),
        }
    }
}

/// What the page asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    item: Item,
    language: Tongue,
}

/// The shop's pages and its back end; none where there is no demo.
pub(super) fn routes(shared: &Arc<Shared>) -> Vec<(&'static str, MethodRouter)> {
    let cfg = shared.app.sessions.config();
    let (true, Some(customer)) = (cfg.demo_shop, cfg.demo_customer.clone()) else { return Vec::new() };
    tracing::warn!(%customer, "the demo's shop is answered at /shop: whoever reaches it asks the demo's customer for money");
    let file = |kind: &'static str, text: &'static str| get(move || async move { file(kind, text) });
    let meter = Arc::new(Meter::new(ORDERS));
    let ordered = {
        let shared = Arc::clone(shared);
        post(move |request: Request<Body>| order(shared, customer, meter, request))
    };
    vec![
        ("/shop", file("text/html; charset=utf-8", include_str!("../../web/shop/index.html"))),
        ("/shop/shop.js", file("text/javascript; charset=utf-8", include_str!("../../web/shop/shop.js"))),
        ("/shop/shop.css", file("text/css; charset=utf-8", include_str!("../../web/shop/shop.css"))),
        ("/shop/voicepay-confirm.js", file("text/javascript; charset=utf-8", include_str!("../../web/dist/voicepay-confirm.js"))),
        ("/shop/session", ordered),
    ]
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let mut response = (headers, text).into_response();
    response.headers_mut().insert("permissions-policy", HeaderValue::from_static("microphone=(self)"));
    response
}

async fn order(shared: Arc<Shared>, customer: CustomerId, meter: Arc<Meter<IpAddr>>, request: Request<Body>) -> Response {
    sell(&shared, customer, &meter, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn sell(shared: &Shared, customer: CustomerId, meter: &Meter<IpAddr>, request: Request<Body>) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let from = guests::from(&parts.headers, &parts.extensions, shared.config.behind_proxy);
    meter
        .take(guests::network(from), Instant::now())
        .map_err(|seconds| Problem::too_often(seconds, "the shop is asked too often"))?;
    // The page's own origin, and the shop's page is on ours.
    let ours = |origin: &AppOrigin| match one_header(&parts.headers, "sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => one_header(&parts.headers, "host").is_some_and(|h| h.eq_ignore_ascii_case(origin.authority())),
    };
    let origin = one_header(&parts.headers, "origin").and_then(|o| AppOrigin::parse(o).ok()).filter(ours);
    let origin = origin.ok_or_else(|| Problem::new(StatusCode::FORBIDDEN, "origin", "the shop's own page alone may ask"))?;
    body::must_be(&parts.headers, "application/json")?;
    let read = body::whole(&parts.headers, body, BODY_LIMIT_BYTES, BODY_WAIT_MS).await;
    let body = read.map_err(|unread| match unread {
        Unread::TooLong => Problem { detail: "an order is short".into(), ..unread.problem(BODY_LIMIT_BYTES) },
        Unread::TooSlow => unread.problem(BODY_LIMIT_BYTES),
    })?;
    let order: Order = serde_json::from_slice(&body).map_err(|e| Problem::invalid(format!("the body: {e}")))?;
    let known = shared
        .store
        .customer(&customer)
        .await?
        .ok_or_else(|| Problem::unavailable("app.demo_customer: there is no such customer"))?;
    let (name, category, minor) = order.item.bill();
    let amount = Money::new(minor, Currency::Usd).map_err(|e| Problem::internal(&e))?;
    let payee = payee(shared, &known.tenant, name, category).await?;
    let now = shared.clock.now();
    let request = PaymentRequest {
        id: RequestId::fresh_at(now, &*shared.entropy),
        customer: customer.clone(),
        payee,
        amount,
        due: None,
        delivery: Delivery::None,
        expires_at: Some(now.plus(BILL_VALID)),
        status: RequestStatus::Open,
        held_by: None,
        created_at: now,
    };
    let detail =
        json!({ "customer": customer, "payee": request.payee, "amount_minor": amount.minor, "currency": amount.currency });
    shared.store.add_request(&request, &audit(shared, "request.added", request.id.as_str(), detail)).await?;
    // A customer with several cards pays with the oldest that can be used: a shop would know which.
    let card = shared.store.cards_of(&customer).await?.into_iter().find(|c| c.usable(now)).map(|c| c.id);
    let language = order.language.into();
    let new = NewAppSession { tenant: known.tenant, customer, request: request.id, card, origin, language: Some(language) };
    let (_session, token) = shared.app.sessions.make(Drawn { at: now, entropy: &*shared.entropy }, new, ACTOR).await?;
    let told = json!({ "token": token.reveal(), "payee": name, "amount_text": super::app_page::amount_text(amount, language) });
    Ok(gate::json(StatusCode::CREATED, &told))
}

/// The payee of this name, who is there from the first order on.
async fn payee(shared: &Shared, tenant: &Tenant, name: &str, category: &str) -> Result<PayeeId, Problem> {
    if let Some(there) = shared.store.payees().await?.into_iter().find(|p| p.tenant == *tenant && p.name == name) {
        return Ok(there.id);
    }
    let payee = Payee {
        id: PayeeId::fresh(&*shared.entropy),
        tenant: tenant.clone(),
        name: name.to_owned(),
        spoken_name_wav: None,
        category: Some(category.parse().map_err(|e: crate::ids::SlugError| Problem::internal(&e))?),
        created_at: shared.clock.now(),
    };
    let row = audit(shared, "payee.added", payee.id.as_str(), json!({ "recording": false }));
    shared.store.add_payee(&payee, &row).await?;
    Ok(payee.id)
}

fn audit(shared: &Shared, action: &str, subject: &str, detail: serde_json::Value) -> AuditRecord {
    let now = shared.clock.now();
    AuditRecord {
        id: AuditId::fresh_at(now, &*shared.entropy),
        at: now,
        actor: ACTOR.to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        detail,
    }
}
