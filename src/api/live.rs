//! A call's events as they happen: server-sent events (HTML standard §9.2). What happened before is sent first where the call is over; a stream
//! ends with the call, with the service, or when its reader is too slow.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Frame};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc};

use super::gate;
use super::problem::Problem;
use super::scope::Scope;
use super::{Live, Shared};
use crate::call::timeline::Watched;
use crate::ids::CallId;

/// Events that a reader may fall behind by.
const BEHIND_LIMIT: usize = 64;
/// A line goes out at least so often, in seconds: proxies close what is silent, and a call that ended is noticed.
const BEAT_S: u64 = 2;

/// `GET /v1/calls/{id}/events`.
pub(super) async fn follow(shared: Arc<Shared>, path: Vec<String>, request: Request<Body>) -> Response {
    begin(shared, path, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn begin(shared: Arc<Shared>, path: Vec<String>, request: Request<Body>) -> Result<Response, Problem> {
    let caller = gate::admit(&shared, request.headers(), Scope::CallsRead).await?;
    super::query::read(request.uri().query().unwrap_or(""), &[])?;
    let none = || Problem::not_found("call that is up here");
    let id = path.first().and_then(|text| CallId::parse(text).ok()).ok_or_else(none)?;
    let Some(live) = shared.live.clone() else {
        return Err(Problem::unavailable("this process takes no calls: ask one that does"));
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
            () = pass_on(id, live, events, lines) => {}
            () = stop.cancelled() => {}
        }
    });
    let mut response = Response::new(Body::new(Lines { heard, _place: place }));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Hands a call's events on until it is over or nobody reads.
async fn pass_on(id: CallId, live: Live, mut events: broadcast::Receiver<Watched>, lines: mpsc::Sender<Bytes>) {
    let mut sent: u64 = 0;
    if lines.send(Bytes::from_static(b": following\n\n")).await.is_err() {
        return;
    }
    loop {
        let line = match tokio::time::timeout(Duration::from_secs(BEAT_S), events.recv()).await {
            Ok(Ok(watched)) if watched.call == id => {
                sent = sent.saturating_add(1);
                match serde_json::to_string(&watched.event) {
                    Ok(event) => format!("id: {sent}\nevent: event\ndata: {event}\n\n"),
                    Err(_) => continue,
                }
            }
            Ok(Ok(_other_call)) => continue,
            Ok(Err(RecvError::Lagged(missed))) => format!("event: missed\ndata: {{\"events\":{missed}}}\n\n"),
            Ok(Err(RecvError::Closed)) => return,
            Err(_) if live.registry.customer_of(&id).is_none() => {
                let _gone = lines.send(Bytes::from_static(b"event: over\ndata: {}\n\n")).await;
                return;
            }
            Err(_) => ": still there\n\n".to_owned(),
        };
        // A reader that is behind by more is let go: it can ask for the call's record.
        if lines.try_send(line.into()).is_err() {
            return;
        }
    }
}

/// Lines as a body.
struct Lines {
    heard: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.heard.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
