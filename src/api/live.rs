//! A call's events as they happen: server-sent events (HTML standard §9.2), from when somebody listens. A stream ends with the call, with the service, or
//! when its reader is too slow.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Frame};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc};

use super::gate;
use super::problem::Problem;
use super::scope::Scope;
use super::{Live, Shared};
use crate::call::timeline::Watched;
use crate::ids::CallId;
use crate::listen::one_header;

/// Events that a reader may fall behind by.
const BEHIND_LIMIT: usize = 64;
/// The header by which a reader goes on.
pub(super) const LAST_EVENT_ID: &str = "last-event-id";
/// A line goes out at least so often, in seconds: proxies close what is silent, and a call that ended is noticed.
const BEAT_S: u64 = 2;

/// `GET /v1/calls/{id}/events`.
pub(super) async fn follow(shared: Arc<Shared>, path: Vec<String>, request: Request<Body>) -> Response {
    begin(shared, path, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn begin(shared: Arc<Shared>, path: Vec<String>, request: Request<Body>) -> Result<Response, Problem> {
    let caller = gate::admit(&shared, request.headers(), Scope::CallsRead).await?;
    super::query::read(request.uri().query().unwrap_or(""), &[])?;
    let last = last_event(request.headers())?;
    let none = || Problem::not_found("call that is up here");
    let id = path.first().and_then(|text| CallId::parse(text).ok()).ok_or_else(none)?;
    let Some(live) = shared.live.clone() else {
        return Err(Problem { detail: "this process takes no calls: ask one that does".into(), ..none() });
    };
    // Heard from now on: whatever happens while the customer is looked up is not missed.
    let events = live.watchers.subscribe();
    let customer = live.registry.customer_of(&id).ok_or_else(none)?;
    let known = shared.store.customer(&customer).await?;
    known.filter(|c| c.tenant == caller.tenant).ok_or_else(none)?;
    let busy = || Problem { retry_after_s: Some(5), ..Problem::unavailable("too many streams are open") };
    let place = Arc::clone(&shared.streams).try_acquire_owned().map_err(|_| busy())?;
    let (lines, heard) = mpsc::channel(BEHIND_LIMIT);
    let stop = shared.stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = pass_on(id, live, events, lines, last) => {}
            () = stop.cancelled() => {}
        }
    });
    let mut response = Response::new(Body::new(Lines::new(heard, place)));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The number of the last event that the reader has, of a stream that it lost (HTML standard §9.2.3). What came since is told as missed: it stands in the
/// call's record when the call is over.
fn last_event(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    if !headers.contains_key(LAST_EVENT_ID) {
        return Ok(None);
    }
    let digits = one_header(headers, LAST_EVENT_ID).filter(|n| n.len() <= 15 && n.bytes().all(|b| b.is_ascii_digit()));
    let number = digits.and_then(|n| n.parse().ok());
    number.map(Some).ok_or_else(|| Problem::invalid("Last-Event-ID is none of this stream's: it must be the `id` of an event"))
}

/// Hands a call's events on until it is over or nobody reads. `last` is the number of the last event that the reader has.
async fn pass_on(
    id: CallId,
    live: Live,
    mut events: broadcast::Receiver<Watched>,
    lines: mpsc::Sender<Bytes>,
    mut last: Option<u64>,
) {
    let every = Duration::from_secs(BEAT_S);
    // By its own clock: other calls may have something to tell all the time.
    let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    if lines.send(Bytes::from_static(b": following\n\n")).await.is_err() {
        return;
    }
    loop {
        let line = tokio::select! {
            heard = events.recv() => match heard {
                Ok(watched) if watched.call == id => told(&watched, &mut last),
                // What was lost shows by the number of the next one.
                Ok(_) | Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            },
            _ = beat.tick() => match live.registry.customer_of(&id) {
                Some(_) => ": still there\n\n".to_owned(),
                None => over(&id, &mut events, &mut last),
            },
        };
        let ended = line.ends_with(OVER);
        // A reader that is behind by more is let go: it can ask for the call's record.
        if lines.try_send(line.into()).is_err() || ended {
            return;
        }
    }
}

/// The last line of a stream.
const OVER: &str = "event: over\ndata: {}\n\n";

/// An event, and before it how many were missed.
fn told(watched: &Watched, last: &mut Option<u64>) -> String {
    let missed = last.map_or(0, |last| watched.number.saturating_sub(last).saturating_sub(1));
    *last = Some(watched.number);
    let missed = if missed == 0 { String::new() } else { format!("event: missed\ndata: {{\"events\":{missed}}}\n\n") };
    let event = serde_json::to_string(&watched.event).unwrap_or_default();
    format!("{missed}id: {}\nevent: event\ndata: {event}\n\n", watched.number)
}

/// What was told before the call left, and that it is over.
fn over(id: &CallId, events: &mut broadcast::Receiver<Watched>, last: &mut Option<u64>) -> String {
    let mut rest = String::new();
    loop {
        match events.try_recv() {
            Ok(watched) if watched.call == *id => rest.push_str(&told(&watched, last)),
            Ok(_) | Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return rest + OVER,
        }
    }
}

/// Lines as a body.
pub(super) struct Lines {
    heard: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Lines {
    /// What is heard, as long as somebody reads; the place is free then.
    pub(super) fn new(heard: mpsc::Receiver<Bytes>, place: OwnedSemaphorePermit) -> Self {
        Self { heard, _place: place }
    }
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.heard.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
