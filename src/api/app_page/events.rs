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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::page::{PageState, Speaker, page};
    use crate::payment::AppResult;

    fn following() -> (crate::call::page::PageTeller, mpsc::Receiver<Bytes>, tokio::task::JoinHandle<()>) {
        let (teller, reader) = page();
        let (lines, heard) = mpsc::channel(BEHIND_LIMIT);
        (teller, heard, tokio::spawn(async move { pass_on(&reader, &lines).await }))
    }

    async fn next(heard: &mut mpsc::Receiver<Bytes>) -> String {
        String::from_utf8(heard.recv().await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_beats_and_ends_with_the_result() {
        let (teller, mut heard, work) = following();
        assert_eq!(next(&mut heard).await, "data: {\"type\":\"state\",\"state\":\"connecting\"}\n\n");
        let began = tokio::time::Instant::now();
        for n in 1..=3 {
            assert_eq!(next(&mut heard).await, ": still there\n\n");
            assert_eq!(began.elapsed().as_secs(), n * BEAT_S);
        }
        teller.result(AppResult::Refused, "Not confirmed.", None);
        assert!(next(&mut heard).await.contains("\"over\""));
        assert!(next(&mut heard).await.contains("\"result\":\"refused\""));
        assert_eq!(heard.recv().await, None);
        work.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_is_let_go_and_who_lost_something_hears_how_things_stand() {
        let (teller, heard, work) = following();
        for _ in 0..=BEHIND_LIMIT {
            teller.state(PageState::Listening);
            tokio::task::yield_now().await;
        }
        tokio::time::timeout(Duration::from_secs(1), work).await.unwrap().unwrap();
        drop(heard);

        let (teller, mut heard, _work) = following();
        next(&mut heard).await;
        // More at once than is kept for a reader.
        for _ in 0..500 {
            teller.caption(Speaker::Service, "Please wait.", "en");
        }
        teller.state(PageState::Thinking);
        assert!(next(&mut heard).await.contains("\"thinking\""), "of what was lost the end is told");
        assert!(next(&mut heard).await.contains("Please wait."));
    }

    #[test]
    fn captions_are_cut_and_no_event_is_too_long() {
        let caption = |text: String| line(&PageEvent::Caption { who: Speaker::Service, text, lang: "zh" });
        assert_eq!(caption("确".repeat(9_000)).matches('确').count(), CAPTION_LIMIT_CHARS);
        assert!(caption("\u{1}".repeat(9_000)).len() <= EVENT_LIMIT_BYTES, "escaped they are longer");
        let digits = line(&PageEvent::Digits { digits: "4 ".repeat(20_000) });
        assert!(digits.starts_with(": ") && digits.ends_with("\n\n"));
    }
}
