//! App sessions for an app's back end: it binds a customer, a payment request and the page's origin to a token that the page opens one call with
//! (docs/APP.md). The page's own side is in `app_page`.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{Answer, Ask, created, ok};
use super::people::{Tongue, paper_of_path};
use super::problem::Problem;
use super::route::{Route, run};
use super::scope::Scope;
use super::shape::{Defs, Shape, shape};
use super::types::{When, Word};
use crate::app_sessions::{Drawn, NewAppSession, NotMade};
use crate::ids::{AppSessionId, CallId, CardId, CustomerId, RequestId};
use crate::payment::{AppOrigin, AppSession, AppSessionState};

/// Where the page asks.
pub(super) const PAGE_PATH: &str = "/app/session";

/// Where a page is from.
pub struct Origin(AppOrigin);

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        AppOrigin::parse(&String::deserialize(d)?).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Shape for Origin {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "maxLength": AppOrigin::LIMIT_CHARS, "pattern": AppOrigin::PATTERN })
    }
}

shape! {
    /// A payment that an app's page is to confirm by voice.
    input NewSession {
        /// Who pays.
        customer: CustomerId,
        /// What: an open request of this customer's.
        request: RequestId,
        /// The page's origin, as browsers write it: `https://shop.example`. From other pages the token opens nothing.
        origin: Origin,
        /// What is spoken: the customer's language if absent.
        language: Option<Tongue>,
        /// The payment method that is charged: the customer's only usable card if absent.
        card: Option<CardId>,
    }
}

shape! {
    /// A session with its token, which is shown only here.
    output SessionMade {
        /// Which one.
        id: AppSessionId,
        /// For the page: it opens one call.
        token: String,
        /// From then on the token opens nothing.
        expires_at: When,
        /// Where the page asks; null: the service was not told where people reach it (`api.public_url`).
        url: Option<String>,
    }
}

shape! {
    /// A session.
    output SessionView {
        /// Which one.
        id: AppSessionId,
        /// Who pays.
        customer: CustomerId,
        /// What.
        request: RequestId,
        /// With which card.
        card: CardId,
        /// From which pages.
        origin: String,
        /// What is spoken.
        language: Word,
        /// `new`, `open`, `over` or `expired`.
        state: Word,
        /// The call; null: none began yet.
        call: Option<CallId>,
        /// `paid`, `refused`, `declined`, `waiting`, `cancelled` or `failed`; null: it is not over.
        result: Option<Word>,
        /// The receipt's reference, if it was paid.
        reference: Option<String>,
        /// From then on the token opens nothing.
        expires_at: When,
        /// When it was made.
        created_at: When,
    }
}

pub(super) fn routes() -> Vec<Route> {
    use Scope::{AppSessionsRead, AppSessionsWrite};
    vec![
        Route::post::<NewSession, SessionMade>(
            "/app-sessions",
            "addAppSession",
            AppSessionsWrite,
            run!(add),
            "Binds customer, request and page's origin to a token for one voice call from that page. Refused at once where nothing could be charged.",
        ),
        Route::get::<SessionView>(
            "/app-sessions/{id}",
            "getAppSession",
            AppSessionsRead,
            run!(one),
            "How a session stands, and what it came to.",
        ),
    ]
}

impl From<NotMade> for Problem {
    fn from(error: NotMade) -> Self {
        match error {
            NotMade::NoSuch(what) => Self::not_found(what),
            NotMade::Store(e) => e.into(),
            e @ NotMade::Card(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "card", e.to_string()),
            e @ NotMade::OtherCustomer => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "customer", e.to_string()),
            e @ NotMade::Denied(_) => Self::new(StatusCode::CONFLICT, "denied", e.to_string()),
            e @ NotMade::TooMany(_) => Self::new(StatusCode::CONFLICT, "too-many", e.to_string()),
            e @ (NotMade::Blocked | NotMade::Request(_)) => Self::conflict(e.to_string()),
        }
    }
}

async fn add(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewSession = ask.input()?;
    let drawn = Drawn { at: ask.now, entropy: &ask.entropy };
    let wanted = NewAppSession {
        tenant: ask.caller.tenant.clone(),
        customer: new.customer,
        request: new.request,
        card: new.card,
        origin: new.origin.0,
        language: new.language.map(Into::into),
    };
    // The gate keeps this answer sealed, so that who asks again gets the same token and nobody reads it from the database.
    let (session, token) = ask.shared.app.sessions.make(drawn, wanted, &ask.actor()).await?;
    let begins = ask.shared.config.public_url.trim_end_matches('/');
    created(&SessionMade {
        id: session.id,
        token: token.reveal().to_owned(),
        expires_at: session.expires_at.into(),
        url: (!begins.is_empty()).then(|| format!("{begins}{PAGE_PATH}")),
    })
}

async fn one(ask: &Ask) -> Result<Answer, Problem> {
    let s: AppSession = paper_of_path::<AppSessionId, _>(ask).await?;
    let state = Word(s.state_at(ask.shared.clock.now()));
    let call = s.state.call().cloned();
    let (result, reference) = match s.state {
        AppSessionState::Over { result, reference, .. } => (Some(Word(result.as_str())), reference),
        AppSessionState::New | AppSessionState::Open { .. } | AppSessionState::Expired => (None, None),
    };
    ok(&SessionView {
        id: s.id,
        customer: s.customer,
        request: s.request,
        card: s.card,
        origin: s.origin.to_string(),
        language: Word(s.language.code()),
        state,
        call,
        result,
        reference,
        expires_at: s.expires_at.into(),
        created_at: s.created_at.into(),
    })
}
