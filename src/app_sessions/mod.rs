//! App sessions (docs/APP.md): makes them for an app's back end, finds them by the token that a page shows, uses a token up exactly once, and
//! writes down what the call came to. What may follow what is `payment`'s; who speaks HTTP is `api`'s; who speaks to the page is a call's.
//!
//! Whoever changes a session writes over the version that was read, so that of two pages with one token one wins, on whichever node.

mod config;
mod token;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

pub use config::AppConfig;
pub use token::{AppToken, CallPlace};

use crate::agreement::{Agreements, Asking};
use crate::clock::{Clock, Entropy, Timestamp};
use crate::ids::{AppSessionId, CallId, CardId, CustomerId, OutboxId, RequestId, Tenant};
use crate::language::Language;
use crate::payment::{
    AppOrigin, AppResult, AppSecret, AppSession, AppSessionError, AppSessionEvent, AppSessionState, RequestError,
};
use crate::store::{AuditRecord, CustomerStatus, Document, OutboxRecord, PaperKind, RequestWithPayee, Store, StoreError, papers};
use crate::telemetry::metrics::metrics;
use crate::vault::Vault;

/// How often a change is begun anew because somebody else came between.
const LIMIT_RACES: u32 = 8;
/// How much longer than a call may last its session stays open, in seconds: whoever holds the call ends it first, and knows what it came to.
const CALL_GRACE_S: u64 = 60;
/// Sessions that one sweep looks at.
const SWEEP_BATCH: u32 = 64;

/// Makes, finds and changes sessions. Cheap to clone.
#[derive(Clone)]
pub struct AppSessions {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    vault: Vault,
    agreements: Agreements,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cfg: AppConfig,
}

impl std::fmt::Debug for AppSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppSessions").field("cfg", &self.inner.cfg).finish_non_exhaustive()
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct NewAppSession {
    /// Whose app.
    pub tenant: Tenant,
    /// Who pays.
    pub customer: CustomerId,
    /// What.
    pub request: RequestId,
    /// With which card; `None`: with the only one that can be used.
    pub card: Option<CardId>,
    /// From which pages.
    pub origin: AppOrigin,
    /// What is spoken; `None`: the customer's language.
    pub language: Option<Language>,
}

/// Of what a session is made: the same again when the same is asked again.
pub struct Drawn<'a> {
    /// When it was asked first.
    pub at: Timestamp,
    /// Random parts.
    pub entropy: &'a dyn Entropy,
}

impl std::fmt::Debug for Drawn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drawn").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Why there is no session. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum NotMade {
    /// None such, or another tenant's.
    #[error("there is no such {0}")]
    NoSuch(&'static str),
    /// The customer may not pay.
    #[error("this customer is blocked")]
    Blocked,
    /// Somebody else is asked for this money.
    #[error("this payment request is another customer's")]
    OtherCustomer,
    /// Nobody can pay it now.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// There is no payment method, or it can't be told which.
    #[error("`card`: {0}")]
    Card(&'static str),
    /// A rule denies the payment.
    #[error("the rule `{0}` denies this payment")]
    Denied(String),
    /// As many as may be are not over yet.
    #[error("{0} sessions of this customer are not over yet")]
    TooMany(usize),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a session did not change.
#[derive(Debug, thiserror::Error)]
pub enum NotChanged {
    /// Its own rules.
    #[error(transparent)]
    Session(#[from] AppSessionError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An identifier, a moment and randomness go into each row.
struct Told<'a> {
    actor: &'a str,
    action: &'static str,
    detail: Value,
    news: bool,
}

impl AppSessions {
    /// Joins the parts.
    pub fn new(
        (store, vault, agreements): (Arc<dyn Store>, Vault, Agreements),
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
        cfg: AppConfig,
    ) -> Self {
        Self { inner: Arc::new(Inner { store, vault, agreements, clock, entropy, cfg }) }
    }

    /// The section `[app]`.
    pub fn config(&self) -> &AppConfig {
        &self.inner.cfg
    }

    /// Makes one; the same again for what was drawn before.
    pub async fn make(&self, drawn: Drawn<'_>, new: NewAppSession, actor: &str) -> Result<(AppSession, AppToken), NotMade> {
        let inner = &*self.inner;
        let id = AppSessionId::fresh_at(drawn.at, drawn.entropy);
        let token = AppToken::fresh(&id, drawn.entropy);
        if let Some(there) = papers::read::<AppSession>(&*inner.store, id.as_str()).await? {
            return Ok((there, token)); // made when this was asked before
        }
        let now = inner.clock.now();
        let customer = inner.store.customer(&new.customer).await?;
        let customer = customer.filter(|c| c.tenant == new.tenant && c.status != CustomerStatus::Deleted);
        let customer = customer.ok_or(NotMade::NoSuch("customer"))?;
        if customer.status != CustomerStatus::Active {
            return Err(NotMade::Blocked);
        }
        let found = self.request_of(&new.tenant, &new.request).await?.ok_or(NotMade::NoSuch("payment request"))?;
        if found.request.customer != customer.id {
            return Err(NotMade::OtherCustomer);
        }
        if let Some(why) = found.request.unpayable(now) {
            return Err(why.into());
        }
        let card = self.card(&customer.id, new.card.as_ref(), now).await?;
        // Denied now is denied in the call: better told before somebody speaks. What else rules ask is asked in the call, by what is known then.
        let asking = Asking::app();
        if let Some(rule) = inner.agreements.ask(&found.request, asking).await?.terms.denied_by {
            return Err(NotMade::Denied(rule));
        }
        let open: Vec<AppSession> = papers::of(&*inner.store, &customer.id).await?;
        let open = open.iter().filter(|s| s.live(now)).count();
        if open >= inner.cfg.max_open {
            return Err(NotMade::TooMany(open));
        }
        let session = AppSession {
            id,
            tenant: new.tenant,
            customer: customer.id,
            request: new.request,
            card,
            origin: new.origin,
            language: new.language.unwrap_or(customer.language),
            token: token.kept(&inner.vault),
            state: AppSessionState::New,
            expires_at: now.plus(Duration::from_secs(inner.cfg.session_ttl_s.into())),
            created_at: drawn.at,
            version: 0,
        };
        let detail = json!({ "customer": session.customer, "request": session.request, "card": session.card,
            "origin": session.origin, "expires_at": session.expires_at.to_string() });
        self.write(&session, Some(Told { actor, action: "app_session.created", detail, news: false })).await?;
        Ok((session, token))
    }

    /// The request, if it is this tenant's.
    async fn request_of(&self, tenant: &Tenant, id: &RequestId) -> Result<Option<RequestWithPayee>, StoreError> {
        let store = &*self.inner.store;
        let Some(found) = store.request(id).await? else { return Ok(None) };
        let asked = store.customer(&found.request.customer).await?;
        Ok(asked.filter(|c| c.tenant == *tenant).map(|_| found))
    }

    /// Which card pays.
    async fn card(&self, customer: &CustomerId, wanted: Option<&CardId>, now: Timestamp) -> Result<CardId, NotMade> {
        let all = self.inner.store.cards_of(customer).await?;
        if let Some(wanted) = wanted {
            let card = all.into_iter().find(|c| c.id == *wanted).ok_or(NotMade::Card("this customer has no such card"))?;
            return if card.usable(now) {
                Ok(card.id)
            } else {
                Err(NotMade::Card("this card can't be used: it is blocked, or expired"))
            };
        }
        let mut usable = all.into_iter().filter(|c| c.usable(now));
        match (usable.next(), usable.next()) {
            (Some(card), None) => Ok(card.id),
            (None, _) => Err(NotMade::Card("this customer has no card that can be used")),
            (Some(_), Some(_)) => Err(NotMade::Card("this customer has more than one card that can be used: name one")),
        }
    }

    /// One session.
    pub async fn session(&self, id: &AppSessionId) -> Result<Option<AppSession>, StoreError> {
        papers::read(&*self.inner.store, id.as_str()).await
    }

    /// The session that a token is for; `None`: the token is none of ours.
    pub async fn find(&self, token: &AppToken) -> Result<Option<AppSession>, StoreError> {
        let found = self.session(token.session()).await?;
        Ok(found.filter(|s| s.token.is(&token.kept(&self.inner.vault))))
    }

    /// Whether this is the name of the place where a session's call is.
    pub fn is_place(&self, session: &AppSession, place: &CallPlace) -> bool {
        session.state.place().is_some_and(|kept| kept.is(&place.kept(&self.inner.vault)))
    }

    /// Uses the token up. Of those who try at once one does.
    pub async fn take(&self, id: &AppSessionId) -> Result<(AppSession, CallPlace), NotChanged> {
        let inner = &*self.inner;
        let place = CallPlace::fresh(&*inner.entropy);
        let kept: AppSecret = place.kept(&inner.vault);
        let lasts = Duration::from_secs(u64::from(inner.cfg.call_limit_s).saturating_add(CALL_GRACE_S));
        let event = AppSessionEvent::Offer { place: kept, lasts };
        Ok((self.change(id, event, "the page", Some("app_session.opened")).await?, place))
    }

    /// No call began: the token is as good as before.
    pub async fn give_back(&self, id: &AppSessionId) -> Result<AppSession, NotChanged> {
        self.change(id, AppSessionEvent::Returned, "the page", Some("app_session.returned")).await
    }

    /// The call began.
    pub async fn began(&self, id: &AppSessionId, call: CallId) -> Result<AppSession, NotChanged> {
        self.change(id, AppSessionEvent::Began(call), "the page", None).await
    }

    /// The call ended.
    pub async fn over(&self, id: &AppSessionId, result: AppResult, reference: Option<String>) -> Result<AppSession, NotChanged> {
        self.change(id, AppSessionEvent::Ended { result, reference }, "the call", Some("app_session.over")).await
    }

    /// Ends what nobody used in time, and what a process that is gone left open. Says how many.
    pub async fn sweep(&self) -> Result<u32, StoreError> {
        let inner = &*self.inner;
        let mut swept = 0_u32;
        for paper in inner.store.papers_due(PaperKind::AppSession, inner.clock.now(), SWEEP_BATCH).await? {
            let session = AppSession::of_paper(&paper)?;
            let action = match session.state {
                AppSessionState::New | AppSessionState::Expired => "app_session.expired",
                AppSessionState::Open { .. } | AppSessionState::Over { .. } => "app_session.over",
            };
            match self.change(&session.id, AppSessionEvent::Look, "app sessions", Some(action)).await {
                Ok(_) => swept = swept.saturating_add(1),
                // Somebody else was faster.
                Err(NotChanged::Session(_)) => {}
                Err(NotChanged::Store(error)) => return Err(error),
            }
        }
        Ok(swept)
    }

    /// One step, over the version that was read.
    async fn change(
        &self,
        id: &AppSessionId,
        event: AppSessionEvent,
        actor: &str,
        action: Option<&'static str>,
    ) -> Result<AppSession, NotChanged> {
        let inner = &*self.inner;
        for _ in 0..LIMIT_RACES {
            let before: AppSession =
                papers::read(&*inner.store, id.as_str()).await?.ok_or(StoreError::NotFound("app session"))?;
            let after = before.step(inner.clock.now(), event.clone())?;
            let told = action.map(|action| Told { actor, action, detail: told(&after), news: !after.open() });
            match self.write(&after, told).await {
                Err(StoreError::Conflict(_)) => {}
                done => return Ok(done.map(|()| after)?),
            }
        }
        Err(StoreError::Busy.into())
    }

    async fn write(&self, session: &AppSession, told: Option<Told<'_>>) -> Result<(), StoreError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let (mut audit, mut news) = (Vec::new(), Vec::new());
        let action = told.as_ref().map(|told| told.action);
        if let Some(Told { actor, action, detail, news: outside }) = told {
            if outside {
                let id = OutboxId::fresh_at(now, &*inner.entropy);
                news.push(OutboxRecord { id, at: now, topic: action.to_owned(), payload: detail.clone() });
            }
            audit.push(AuditRecord::fresh(now, &*inner.entropy, actor, action, session.id.as_str(), detail));
        }
        inner.store.write_papers(&[session.paper()?], &[], &audit, &news).await?;
        count(session, action);
        Ok(())
    }
}

/// Each step once: a call's beginning is told by the call.
fn count(after: &AppSession, action: Option<&str>) {
    let Some((_, step)) = action.and_then(|action| action.split_once('.')) else { return };
    metrics().app_sessions.inc([step]);
    if let AppSessionState::Over { result, .. } = &after.state {
        metrics().app_results.inc([result.as_str()]);
    }
}

/// What the outside and the audit trail hear of a session.
fn told(s: &AppSession) -> Value {
    let (result, reference) = match &s.state {
        AppSessionState::Over { result, reference, .. } => (Some(result.as_str()), reference.as_deref()),
        AppSessionState::New | AppSessionState::Open { .. } | AppSessionState::Expired => (None, None),
    };
    json!({ "session": s.id, "customer": s.customer, "request": s.request, "state": s.state.name(), "call": s.state.call(),
        "result": result, "reference": reference })
}
