//! The page's side of an app session (docs/APP.md, web/PROTOCOL.md): what is to be paid, the offer of a call, its candidates, its events, its end. A
//! request shows the session's token and is from the bound origin; of a session whose token was used the call's place, too, must be named.
//! WHIP-like (RFC 9725).

mod calls;
mod cors;
mod events;
mod words;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::RawPathParams;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, options};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::app_calls::{AppCalls, OfferRefused, OpenedCall};
use super::app_sessions::PAGE_PATH;
use super::pages::guests::{self, Meter};
use super::problem::Problem;
use super::{ApiConfig, Shared, body, gate, ids_of};
use crate::app_sessions::{AppSessions, AppToken, CallPlace, NotChanged};
use crate::bucket::Rate;
use crate::call::page::{PageEvent, PageState};
use crate::ids::AppSessionId;
use crate::listen::one_header;
use crate::payment::{AppOrigin, AppResult, AppSession, AppSessionError, AppSessionState};

/// Tokens that are none of ours, from one address.
const GUESSES: Rate = Rate { per_s: 0.1, burst: 10.0 };
/// What one session's page asks: candidates come one by one.
const VISITS: Rate = Rate { per_s: 5.0, burst: 100.0 };
/// An offer or a fragment has so many bytes at most.
const BODY_LIMIT_BYTES: usize = 64 * 1024;
/// It has come by then, in milliseconds.
const BODY_WAIT_MS: u64 = 10_000;
/// A call begins, candidates are taken, by then, in milliseconds.
const CALL_WAIT_MS: u64 = 10_000;
/// How long a page that leaves waits for what its call came to, in milliseconds.
const LEAVE_WAIT_MS: u64 = 500;
/// When a page may try again while others are being served, in seconds.
const BUSY_S: u64 = 5;

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

pub(super) use words::amount as amount_text;

/// What pages share.
pub(super) struct Pages {
    /// Sessions.
    pub sessions: AppSessions,
    calls: Option<Arc<dyn AppCalls>>,
    held: calls::Calls,
    streams: Arc<Semaphore>,
    guesses: Meter<IpAddr>,
    visits: Meter<AppSessionId>,
}

impl Pages {
    /// None held yet.
    pub(super) fn new(api: &ApiConfig, sessions: AppSessions, calls: Option<Arc<dyn AppCalls>>) -> Self {
        // Streams stay: they may not take every place that there is.
        let left = api.max_connections.saturating_sub(api.max_streams.saturating_add(1)).max(1);
        let streams = Arc::new(Semaphore::new(sessions.config().max_streams.min(left)));
        let (guesses, visits) = (Meter::new(GUESSES), Meter::new(VISITS));
        Self { sessions, calls, held: calls::Calls::default(), streams, guesses, visits }
    }
}

/// `/app/session` and what is below it.
pub(super) fn routes(shared: &Arc<Shared>) -> [(&'static str, MethodRouter); 3] {
    let preflight = |request: Request<Body>| async move { cors::preflight(request.headers()) };
    let at = |does: &[(Method, Does)]| {
        does.iter().fold(options(preflight), |router, (method, does)| {
            let (shared, does) = (Arc::clone(shared), *does);
            let asked = move |params: RawPathParams, request: Request<Body>| answer(shared, does, ids_of(&params), request);
            match *method {
                Method::POST => router.post(asked),
                Method::PATCH => router.patch(asked),
                Method::DELETE => router.delete(asked),
                _ => router.get(asked),
            }
        })
    };
    [
        (PAGE_PATH, at(&[(Method::GET, Does::Look), (Method::POST, Does::Offer)])),
        ("/app/session/{place}", at(&[(Method::PATCH, Does::Patch), (Method::DELETE, Does::Leave)])),
        ("/app/session/{place}/events", at(&[(Method::GET, Does::Follow)])),
    ]
}

/// What a page does.
#[derive(Clone, Copy, Debug)]
enum Does {
    Look,
    Offer,
    Patch,
    Leave,
    Follow,
}

async fn answer(shared: Arc<Shared>, does: Does, path: Vec<String>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let visit = match Visit::begin(shared, &parts).await {
        Ok(visit) => visit,
        Err((problem, to)) => return cors::tell(problem.into_response(), to.as_ref()),
    };
    let origin = visit.session.origin.clone();
    let answered = match does {
        Does::Look => visit.look().await,
        Does::Offer => visit.offer(&parts.headers, body).await,
        Does::Patch => visit.patch(&path, &parts.headers, body).await,
        Does::Leave => visit.leave(&path).await,
        Does::Follow => visit.follow(&path),
    };
    cors::tell(answered.unwrap_or_else(IntoResponse::into_response), Some(&origin))
}

/// A page of the bound origin, with a token of ours that has not expired.
struct Visit {
    shared: Arc<Shared>,
    session: AppSession,
}

/// What is wrong, and which page may read it.
type Turned = (Problem, Option<AppOrigin>);

impl Visit {
    async fn begin(shared: Arc<Shared>, parts: &Parts) -> Result<Self, Turned> {
        let found = match gate::bearer(&parts.headers).and_then(AppToken::parse) {
            Some(token) => shared.app.sessions.find(&token).await.map_err(|e| (e.into(), None))?,
            None => None,
        };
        let Some(session) = found else {
            let from = guests::from(&parts.headers, &parts.extensions, shared.config.behind_proxy);
            let slowed = shared.app.guesses.take(guests::network(from), Instant::now());
            slowed.map_err(|seconds| (Problem::too_often(seconds, "too many tokens that are none of ours"), None))?;
            let unknown = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "the token is unknown");
            return Err((unknown, None));
        };
        cors::check(&parts.method, &parts.headers, &session.origin).map_err(|problem| (problem, None))?;
        let turn = |problem| (problem, Some(session.origin.clone()));
        let visited = shared.app.visits.take(session.id.clone(), Instant::now());
        visited.map_err(|seconds| turn(Problem::too_often(seconds, "this page asks too often")))?;
        if session.state_at(shared.clock.now()) == AppSessionState::Expired.name() {
            return Err(turn(AppSessionError::Expired.into()));
        }
        if parts.uri.query().is_some_and(|q| !q.is_empty()) {
            return Err(turn(Problem::invalid("there are no parameters here")));
        }
        Ok(Self { shared, session })
    }

    /// What is to be paid. Uses nothing up.
    async fn look(self) -> Result<Response, Problem> {
        let s = self.session;
        let found = self.shared.store.request(&s.request).await?.ok_or_else(|| Problem::not_found("payment request"))?;
        let amount = found.request.amount;
        let servers = self.shared.app.calls.as_ref().map_or_else(|| json!([]), |calls| calls.ice_servers());
        let seen = json!({
            "id": s.id,
            "state": s.state.name(),
            "payee": found.payee_name,
            "amount": { "minor": amount.minor, "currency": amount.currency },
            "amount_text": words::amount(amount, s.language),
            "language": s.language,
            "expires_at": s.expires_at.to_string(),
            "ice_servers": servers,
        });
        Ok(gate::json(StatusCode::OK, &seen))
    }

    /// Begins the call.
    async fn offer(self, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
        // Told first: who comes with a used token needs no better offer.
        if self.session.state != AppSessionState::New {
            return Err(AppSessionError::Used.into());
        }
        let calls = self.shared.app.calls.clone();
        let calls = calls.ok_or_else(|| Problem::unavailable("this process takes no calls of pages"))?;
        body::must_be(headers, SDP)?;
        if !accepts(headers, SDP) {
            let detail = "the answer is application/sdp";
            return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", detail));
        }
        let offer = read(headers, body).await?;
        calls.check(&offer)?;
        if self.shared.stop.is_cancelled() {
            return Err(OfferRefused::Closing.into());
        }
        if self.shared.app.held.full() {
            return Err(OfferRefused::Busy.into());
        }
        // On a task of its own: who hangs up leaves nothing half done.
        let (shared, session) = (self.shared, self.session);
        let work = tokio::spawn(async move { open(&shared, session.id, &*calls, &offer).await });
        work.await.map_err(|e| Problem::internal(&e))?
    }

    /// The call that the path names, if it is held here.
    fn held(&self, path: &[String]) -> Result<calls::Held, Problem> {
        self.named(path)?;
        self.shared.app.held.held(&self.session.id).ok_or_else(|| OfferRefused::Gone.into())
    }

    /// Whether the path names this session's call.
    fn named(&self, path: &[String]) -> Result<(), Problem> {
        let place = path.first().and_then(|text| CallPlace::parse(text));
        let ours = place.is_some_and(|place| self.shared.app.sessions.is_place(&self.session, &place));
        if ours { Ok(()) } else { Err(Problem::not_found("call of this session")) }
    }

    /// Candidates, or a restart of ICE.
    async fn patch(self, path: &[String], headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
        let hand = self.held(path)?.hand;
        body::must_be(headers, FRAGMENT)?;
        let tag = one_header(headers, "if-match").map(str::trim).ok_or_else(|| {
            let detail = "If-Match must be there once: the ETag of the call, or * to restart ICE";
            Problem::new(StatusCode::PRECONDITION_REQUIRED, "precondition-required", detail)
        })?;
        let fragment = read(headers, body).await?;
        if hand.page().result().is_some() {
            return Err(OfferRefused::Gone.into());
        }
        if tag == "*" {
            let (fragment, etag) = in_time(async move { hand.restart(&fragment).await }).await?;
            let mut response = text(StatusCode::OK, FRAGMENT, fragment);
            response.headers_mut().insert(header::ETAG, tag_header(&etag)?);
            return Ok(response);
        }
        if bare(tag) != bare(&hand.etag()) {
            return Err(OfferRefused::Stale.into());
        }
        in_time(async move { hand.candidates(&fragment).await }).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// The user left.
    async fn leave(self, path: &[String]) -> Result<Response, Problem> {
        self.named(path)?;
        let told = |result: Option<AppResult>| {
            let state = if result.is_some() { "over" } else { "leaving" };
            Ok(gate::json(StatusCode::OK, &json!({ "id": self.session.id, "state": state, "result": result })))
        };
        if let Some(held) = self.shared.app.held.held(&self.session.id) {
            held.hand.leave();
            let page = held.hand.page();
            let came_to = tokio::time::timeout(Duration::from_millis(LEAVE_WAIT_MS), calls::ended(&page)).await;
            return told(came_to.ok().map(|(result, _)| result));
        }
        match self.session.state {
            AppSessionState::Over { result, .. } => told(Some(result)),
            AppSessionState::New | AppSessionState::Open { .. } | AppSessionState::Expired => Err(OfferRefused::Gone.into()),
        }
    }

    /// What the call tells.
    fn follow(self, path: &[String]) -> Result<Response, Problem> {
        self.named(path)?;
        if let Some(held) = self.shared.app.held.held(&self.session.id) {
            return events::follow(&self.shared, held);
        }
        match self.session.state {
            // It was long ago, or elsewhere: what it came to is known, and no more.
            AppSessionState::Over { result, reference, .. } => {
                let result = PageEvent::Result { result, text: String::new(), reference };
                Ok(events::told(&[PageEvent::State { state: PageState::Over }, result]))
            }
            AppSessionState::New | AppSessionState::Open { .. } | AppSessionState::Expired => Err(OfferRefused::Gone.into()),
        }
    }
}

/// What a call is asked to do, on a task of its own: who hangs up leaves nothing half done.
async fn in_time<T: Send + 'static>(does: impl Future<Output = Result<T, OfferRefused>> + Send + 'static) -> Result<T, Problem> {
    let work = tokio::spawn(tokio::time::timeout(Duration::from_millis(CALL_WAIT_MS), does));
    match work.await {
        Ok(Ok(done)) => done.map_err(Into::into),
        Ok(Err(_)) => Err(Problem::unavailable("this took too long")),
        Err(error) => Err(Problem::internal(&error)),
    }
}

/// Uses the token up and begins the call.
async fn open(shared: &Arc<Shared>, id: AppSessionId, calls: &dyn AppCalls, offer: &str) -> Result<Response, Problem> {
    let sessions = &shared.app.sessions;
    let (session, place) = sessions.take(&id).await?;
    let limit = Duration::from_millis(CALL_WAIT_MS);
    let opened = match tokio::time::timeout(limit, calls.open(&session, offer, session.origin.as_str())).await {
        Ok(opened) => opened,
        Err(_) => Err(OfferRefused::Trouble("the call did not begin in time".into())),
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(refused) => {
            let changed = match &refused {
                OfferRefused::Sdp(_)
                | OfferRefused::NoCommonCodec(_)
                | OfferRefused::Fragment(_)
                | OfferRefused::Stale
                | OfferRefused::Busy
                | OfferRefused::Closing => sessions.give_back(&id).await,
                // Nobody knows what began.
                OfferRefused::Gone | OfferRefused::Trouble(_) => sessions.over(&id, AppResult::Failed, None).await,
            };
            if let Err(error) = changed {
                tracing::warn!(session = %id, %error, "what came of an offer was not written; the sweep ends the session");
            }
            return Err(refused.into());
        }
    };
    let OpenedCall { answer, etag, call, hand } = opened;
    if let Err(error) = sessions.began(&id, call).await {
        tracing::warn!(session = %id, %error, "that a page's call began was not written; its end will be");
    }
    calls::hold(shared, id, hand);
    let mut response = text(StatusCode::CREATED, SDP, answer);
    let headers = response.headers_mut();
    let location = format!("{}{PAGE_PATH}/{}", shared.config.public_path(), place.reveal());
    headers.insert(header::LOCATION, HeaderValue::from_str(&location).map_err(|e| Problem::internal(&e))?);
    headers.insert(header::ETAG, tag_header(&etag)?);
    Ok(response)
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, kind)], body).into_response()
}

/// A tag as HTTP writes it (RFC 9110 §8.8.3).
fn tag_header(etag: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(&format!("\"{}\"", bare(etag))).map_err(|e| Problem::internal(&e))
}

fn bare(etag: &str) -> &str {
    etag.trim().trim_start_matches("W/").trim_matches('"')
}

/// Whether `Accept` allows it; without one all is accepted (RFC 9110 §12.5.1).
fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let mut all = headers.get_all(header::ACCEPT).iter().filter_map(|h| h.to_str().ok()).peekable();
    let ranges = |h: &str| {
        h.split(',')
            .map(|range| range.split(';').next().unwrap_or("").trim().to_ascii_lowercase())
            .any(|range| range == kind || range == "*/*" || range == "application/*")
    };
    all.peek().is_none() || all.any(ranges)
}

/// An offer, or a fragment: text, and not too much of it.
async fn read(headers: &HeaderMap, body: Body) -> Result<String, Problem> {
    let read = body::whole(headers, body, BODY_LIMIT_BYTES, BODY_WAIT_MS).await;
    let body = read.map_err(|unread| unread.problem(BODY_LIMIT_BYTES))?;
    match String::from_utf8(body.into()) {
        Ok(text) if !text.trim().is_empty() => Ok(text),
        Ok(_) | Err(_) => Err(Problem::invalid("the body is no text, or empty")),
    }
}

impl From<AppSessionError> for Problem {
    fn from(error: AppSessionError) -> Self {
        match error {
            e @ AppSessionError::Used => Self::new(StatusCode::CONFLICT, "used", e.to_string()),
            e @ AppSessionError::Expired => Self::new(StatusCode::GONE, "expired", e.to_string()),
            e @ AppSessionError::NotSo(_) => Self::conflict(e.to_string()),
        }
    }
}

impl From<NotChanged> for Problem {
    fn from(error: NotChanged) -> Self {
        match error {
            NotChanged::Session(e) => e.into(),
            NotChanged::Store(e) => e.into(),
        }
    }
}

impl From<OfferRefused> for Problem {
    fn from(error: OfferRefused) -> Self {
        let told = error.to_string();
        let soon = |problem| Self { retry_after_s: Some(BUSY_S), ..problem };
        match error {
            OfferRefused::Sdp(_) => Self::new(StatusCode::BAD_REQUEST, "sdp", told),
            OfferRefused::NoCommonCodec(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "no-common-codec", told),
            OfferRefused::Fragment(_) => Self::new(StatusCode::BAD_REQUEST, "fragment", told),
            OfferRefused::Stale => Self::new(StatusCode::PRECONDITION_FAILED, "stale", told),
            OfferRefused::Busy => soon(Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", told)),
            OfferRefused::Closing => soon(Self::new(StatusCode::SERVICE_UNAVAILABLE, "closing", told)),
            OfferRefused::Gone => Self::new(StatusCode::GONE, "gone", "there is no such call any more here"),
            OfferRefused::Trouble(_) => Self::internal(&told),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(values: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT, HeaderValue::from_static(value));
        }
        accepts(&headers, SDP)
    }

    #[test]
    fn what_a_page_accepts_is_read_as_http_has_it() {
        for good in
            [&[][..], &["*/*"], &["application/sdp"], &["text/html, Application/SDP;q=0.5"], &["text/html", "application/*"]]
        {
            assert!(accept(good), "{good:?}");
        }
        assert!(!accept(&["application/json"]) && !accept(&[""]));
    }

    #[test]
    fn tags_are_compared_without_their_quotes() {
        assert_eq!((bare("\"a1\""), bare("a1"), bare("W/\"a1\"")), ("a1", "a1", "a1"));
        assert_eq!(tag_header("a1").unwrap(), "\"a1\"");
        assert_eq!(tag_header("\"a1\"").unwrap(), "\"a1\"");
        assert!(tag_header("a\n1").is_err());
    }

    #[test]
    fn a_refusal_says_what_a_page_can_do() {
        let status = |refused: OfferRefused| Problem::from(refused).status.as_u16();
        assert_eq!(status(OfferRefused::Sdp("no m line".into())), 400);
        assert_eq!(status(OfferRefused::NoCommonCodec(String::new())), 422);
        assert_eq!((status(OfferRefused::Stale), status(OfferRefused::Gone)), (412, 410));
        let busy = Problem::from(OfferRefused::Busy);
        assert_eq!((busy.status.as_u16(), busy.retry_after_s), (503, Some(BUSY_S)));
    }
}
