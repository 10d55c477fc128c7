//! What a page's call tells, as server-sent events (HTML standard §9.2). A stream begins with how things stand, so that it may be opened again after a
//! break; it ends with the result, with the service, or when its reader is too slow.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::Bytes;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::calls::Held;
use crate::api::Shared;
use crate::api::live::Lines;
use crate::api::problem::Problem;
use crate::call::page::{PageEvent, PageReader};

/// Events that a reader may fall behind by.
const BEHIND_LIMIT: usize = 64;
/// A line goes out at least so often, in seconds: proxies close what is silent, and a reader that went away is noticed.
const BEAT_S: u64 = 10;
/// No caption is longer.
const CAPTION_LIMIT_CHARS: usize = 2_000;
/// No event is longer, in bytes; the page ends a stream that has one.
const EVENT_LIMIT_BYTES: usize = 16 * 1024;

/// Follows a call that is held here.
pub(super) fn follow(shared: &Arc<Shared>, held: Held) -> Result<Response, Problem> {
    let busy = |_| Problem { retry_after_s: Some(2), ..Problem::unavailable("too many streams are open") };
    let mine = Arc::clone(&held.streams).try_acquire_owned().map_err(busy)?;
    let place = Arc::clone(&shared.app.streams).try_acquire_owned().map_err(busy)?;
    let (lines, heard) = mpsc::channel(BEHIND_LIMIT);
    let (page, stop) = (held.hand.page(), shared.stop.clone());
    tokio::spawn(async move {
        let _mine: OwnedSemaphorePermit = mine;
        tokio::select! {
            () = pass_on(&page, &lines) => {}
            // Who shows the page went away.
            () = lines.closed() => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(stream(Body::new(Lines::new(heard, place))))
}

/// A stream that says this and ends.
pub(super) fn told(events: &[PageEvent]) -> Response {
    stream(Body::from(events.iter().map(line).collect::<String>()))
}

fn stream(body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Some proxies gather a stream before they hand it on, unless they are told.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Hands on until there is a result or nobody reads. A reader whose queue is full is let go: it can come again.
async fn pass_on(page: &PageReader, lines: &mpsc::Sender<Bytes>) {
    let every = Duration::from_secs(BEAT_S);
    let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
    loop {
        let (now, mut events) = page.follow();
        for event in &now {
            if lines.try_send(line(event).into()).is_err() || is_result(event) {
                return;
            }
        }
        // Until something was lost: then it is told how things stand now.
        loop {
            let sent = tokio::select! {
                heard = events.recv() => match heard {
                    Ok(event) => {
                        let sent = lines.try_send(line(&event).into());
                        if is_result(&event) {
                            return;
                        }
                        sent
                    }
                    Err(RecvError::Lagged(_)) => break,
                    // It ended without a word; what there is to say of it stands in `follow`.
                    Err(RecvError::Closed) => {
                        for event in page.follow().0 {
                            let _reader_gone = lines.try_send(line(&event).into());
                        }
                        return;
                    }
                },
                _ = beat.tick() => lines.try_send(Bytes::from_static(b": still there\n\n")),
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

fn is_result(event: &PageEvent) -> bool {
    matches!(event, PageEvent::Result { .. })
}

fn line(event: &PageEvent) -> String {
    let mut event = event.clone();
    if let PageEvent::Caption { text, .. } | PageEvent::Result { text, .. } = &mut event
        && let Some((cut, _)) = text.char_indices().nth(CAPTION_LIMIT_CHARS)
    {
        text.truncate(cut);
    }
    match serde_json::to_string(&event) {
        Ok(data) if data.len() <= EVENT_LIMIT_BYTES => format!("data: {data}\n\n"),
        Ok(_) | Err(_) => ": an event that is too long\n\n".to_owned(),
    }
}
