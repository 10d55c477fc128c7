//! `POST /webhooks/stripe`: Stripe's events, on a listener of their own. A body is believed only with a good and fresh signature;
//! Stripe is told that we have it only when nothing of it can be lost any more, and sends it again until then. Twice, late or in
//! any order, it does no harm.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::config::{StripeConfig, StripeError};
use super::event::Event;
use super::signature;
use crate::clock::Clock;
use crate::gateway::{Delivery, Listening, News};
use crate::listen::{self, CONNECTION_LIMIT, Doors, one_header, problem};
use crate::secret::SecretBytes;

/// Where events are posted.
pub const PATH: &str = "/webhooks/stripe";

/// A body longer than this is refused; Stripe's events have some kilobytes.
const BODY_LIMIT_BYTES: usize = 262_144;
/// How long an event waits to be taken, in milliseconds; then Stripe is told to send it again. Stripe itself waits a little
/// longer.
const TAKE_WAIT_MS: u64 = 8_000;
/// News that wait for the processor; when there are more, Stripe is told to send again. Fewer than connections: a queue that is
/// full must still be able to say so.
const NEWS_QUEUE: usize = 24;
const _: () = assert!(NEWS_QUEUE < CONNECTION_LIMIT);
/// Identifiers of events that were taken; when there are more, the oldest are forgotten. One that comes again then is handled
/// again, to no harm.
const REMEMBERED_EVENTS: usize = 10_000;

/// Listens until `stop`. `None`: there are no webhook secrets, so nothing could be believed. The environment is an argument.
pub async fn listen(
    cfg: &StripeConfig,
    env: impl Fn(&str) -> Option<String>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<Option<Listening>, StripeError> {
    let secrets = cfg.webhook_secrets(env)?;
    if secrets.is_empty() {
        tracing::info!(
            "no webhook secrets: Stripe's events are not heard, and what is in doubt is asked about by the sweep alone"
        );
        return Ok(None);
    }
    let taken = |e: io::Error| StripeError::new("webhook_listen", format!("can't listen on {}: {e}", cfg.webhook_listen));
    let (doors, address) = Doors::open(cfg.webhook_listen).await.map_err(taken)?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "Stripe's webhooks are heard in plain HTTP beyond this machine: put a proxy with TLS before it");
    }
    let (queue, news) = mpsc::channel(NEWS_QUEUE);
    let tolerance = Duration::from_secs(cfg.webhook_tolerance_s);
    let desk = Arc::new(Desk { secrets, tolerance, clock, queue, seen: Mutex::default() });
    let app = Router::new().route(PATH, post(hear)).with_state(desk);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(doors, app).with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::error!(%error, "Stripe's webhooks are no longer heard; the sweep goes on asking");
        }
    });
    Ok(Some(Listening { address, news }))
}

struct Desk {
    secrets: Vec<SecretBytes>,
    tolerance: Duration,
    clock: Arc<dyn Clock>,
    queue: mpsc::Sender<Delivery>,
    seen: Mutex<Seen>,
}

/// Events that were taken, oldest first.
#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    fn remember(&mut self, id: String) {
        if self.ids.insert(id.clone()) {
            self.order.push_back(id);
        }
        while self.order.len() > REMEMBERED_EVENTS {
            if let Some(oldest) = self.order.pop_front() {
                self.ids.remove(&oldest);
            }
        }
    }
}

async fn hear(State(desk): State<Arc<Desk>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = match listen::body(body, BODY_LIMIT_BYTES).await {
        Ok(body) => body,
        Err(answer) => return *answer,
    };
    let header = one_header(&head.headers, "stripe-signature");
    if let Err(forged) = signature::check(header, &body, &desk.secrets, desk.clock.now(), desk.tolerance) {
        tracing::warn!(%forged, "a webhook was refused");
        return problem(StatusCode::BAD_REQUEST, &forged.to_string());
    }
    let (event, news) = match Event::read(&body).and_then(|event| event.news().map(|news| (event, news))) {
        Ok(read) => read,
        Err(error) => {
            tracing::error!(%error, "an event that Stripe signed can't be read");
            return problem(StatusCode::BAD_REQUEST, &error.to_string());
        }
    };
    if desk.seen.lock().unwrap_or_else(PoisonError::into_inner).ids.contains(&event.id) {
        tracing::debug!(event = event.id, "an event came again");
        return StatusCode::OK.into_response();
    }
    tracing::info!(event = event.id, kind = event.kind(), news = news.len(), "Stripe tells us");
    for piece in news {
        if !desk.deliver(piece).await {
            // What was taken of it already is taken again next time, to no harm.
            return problem(StatusCode::SERVICE_UNAVAILABLE, "not taken now: send it again later");
        }
    }
    desk.seen.lock().unwrap_or_else(PoisonError::into_inner).remember(event.id);
    StatusCode::OK.into_response()
}

impl Desk {
    async fn deliver(&self, news: News) -> bool {
        let (taken, answer) = oneshot::channel();
        match self.queue.try_send(Delivery { news, taken }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!("too many events wait already; Stripe is asked to send again");
                return false;
            }
            Err(TrySendError::Closed(_)) => return false,
        }
        let wait = Duration::from_millis(TAKE_WAIT_MS);
        matches!(tokio::time::timeout(wait, answer).await, Ok(Ok(true)))
    }
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
