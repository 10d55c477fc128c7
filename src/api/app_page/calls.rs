//! The calls of pages that this process holds. Each is watched until it has a result, which is written down and kept here for a while, so that a page
//! that was away can read it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::api::Shared;
use crate::api::app_calls::AppCallHand;
use crate::app_sessions::NotChanged;
use crate::call::page::{PageEvent, PageReader};
use crate::ids::AppSessionId;
use crate::payment::AppResult;
use tokio::sync::broadcast::error::RecvError;

/// Calls that are up, or were a moment ago.
const LIMIT_HELD: usize = 1_024;
/// How long the result of a call is kept after its end, in seconds.
const KEPT_S: u64 = 120;
/// Event streams of one call at a time: one that broke may not be noticed yet.
const STREAMS_PER_CALL: usize = 4;
/// A call that is ended because it is too long has a result by then, in milliseconds.
const ENDING_MS: u64 = 10_000;
/// How often, and after how many milliseconds, a result that could not be written is tried again. Afterwards the sweep ends the session.
const WRITE_TRIES: u32 = 20;
const WRITE_PAUSE_MS: u64 = 1_000;

/// One of them.
#[derive(Clone)]
pub(super) struct Held {
    /// What holds it.
    pub hand: Arc<dyn AppCallHand>,
    /// Places for its event streams.
    pub streams: Arc<Semaphore>,
}

/// All of them.
#[derive(Default)]
pub(in crate::api) struct Calls {
    all: Mutex<HashMap<AppSessionId, Held>>,
}

impl Calls {
    /// Whether there is no place for another one.
    pub(super) fn full(&self) -> bool {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).len() >= LIMIT_HELD
    }

    /// One of them.
    pub(super) fn held(&self, session: &AppSessionId) -> Option<Held> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(session).cloned()
    }

    fn put(&self, session: AppSessionId, held: Held) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).insert(session, held);
    }

    fn forget(&self, session: &AppSessionId) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(session);
    }
}

/// Holds a call from now on, and watches it.
pub(super) fn hold(shared: &Arc<Shared>, session: AppSessionId, hand: Arc<dyn AppCallHand>) {
    let held = Held { hand: Arc::clone(&hand), streams: Arc::new(Semaphore::new(STREAMS_PER_CALL)) };
    shared.app.held.put(session.clone(), held);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        watch(&shared, &session, &*hand).await;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(KEPT_S)) => {}
            () = shared.stop.cancelled() => {}
        }
        shared.app.held.forget(&session);
    });
}

/// Until there is a result, and that is written.
async fn watch(shared: &Shared, session: &AppSessionId, hand: &dyn AppCallHand) {
    let page = hand.page();
    let limit = Duration::from_secs(shared.app.sessions.config().call_limit_s.into());
    let result = tokio::select! {
        result = ended(&page) => Some(result),
        () = tokio::time::sleep(limit) => {
            hand.leave();
            tokio::time::timeout(Duration::from_millis(ENDING_MS), ended(&page)).await.ok()
        }
        // Calls end before the API does: what is not over now ends with the process.
        () = shared.stop.cancelled() => page.result().map(|r| (r.result, r.reference)),
    };
    let (result, reference) = result.unwrap_or((AppResult::Failed, None));
    for _ in 0..WRITE_TRIES {
        match shared.app.sessions.over(session, result, reference.clone()).await {
            Ok(_) => return,
            Err(NotChanged::Session(error)) => {
                tracing::warn!(%session, %error, "the result of a page's call was not written");
                return;
            }
            Err(NotChanged::Store(error)) => tracing::warn!(%session, %error, "the result of a page's call is not written yet"),
        }
        tokio::time::sleep(Duration::from_millis(WRITE_PAUSE_MS)).await;
    }
}

/// What a call came to, once it did.
pub(super) async fn ended(page: &PageReader) -> (AppResult, Option<String>) {
    let (_now, mut events) = page.follow();
    loop {
        if let Some(done) = page.result() {
            return (done.result, done.reference);
        }
        match events.recv().await {
            Ok(PageEvent::Result { result, reference, .. }) => return (result, reference),
            Ok(PageEvent::State { .. } | PageEvent::Caption { .. } | PageEvent::Digits { .. }) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => {
                return page.result().map_or((AppResult::Failed, None), |done| (done.result, done.reference));
            }
        }
    }
}
