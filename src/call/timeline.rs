//! What happened in a call, in order: for the demo's screen, the call's record and its trace. Nothing secret is an event:
//! no card number, no keyed digit, no sample.

use std::time::Duration;

use serde::Serialize;

use crate::ids::CallId;

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// The person on the telephone.
    Caller,
    /// The service's voice.
    Service,
    /// The service's reasoning: scores, verdicts, money.
    Check,
}

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Since the call was answered.
    #[serde(rename = "at_ms", serialize_with = "as_ms")]
    pub at: Duration,
    /// Who.
    pub who: Who,
    /// What, for people.
    pub what: String,
    /// The figures behind it, for machines (scores, latencies in milliseconds).
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub figures: serde_json::Map<String, serde_json::Value>,
}

fn as_ms<S: serde::Serializer>(at: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64(u64::try_from(at.as_millis()).unwrap_or(u64::MAX))
}

/// An event with the call that it belongs to, for whoever watches the whole service.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Which call.
    pub call: CallId,
    /// Counts the call's events, from 1: whoever watches sees by a gap that some were missed.
    pub number: u64,
    /// What happened.
    pub event: Event,
}

/// Events that a slow watcher may fall behind by before it misses some.
pub const WATCH_QUEUE_EVENTS: usize = 256;

/// Events kept for one call's record; a call that makes more keeps the first ones.
const RECORD_LIMIT_EVENTS: usize = 512;

/// Collects one call's events and shows them to whoever watches.
#[derive(Debug)]
pub struct Timeline {
    call: CallId,
    started: tokio::time::Instant,
    events: Vec<Event>,
    told: u64,
    watchers: tokio::sync::broadcast::Sender<Watched>,
}

impl Timeline {
    /// Starts now.
    pub fn start(call: CallId, watchers: tokio::sync::broadcast::Sender<Watched>) -> Self {
        Self { call, started: tokio::time::Instant::now(), events: Vec::new(), told: 0, watchers }
    }

    /// Adds a line.
    pub fn add(&mut self, who: Who, what: impl Into<String>) {
        self.add_with(who, what, serde_json::Map::new());
    }

    /// Adds a line with figures.
    pub fn add_with(&mut self, who: Who, what: impl Into<String>, figures: serde_json::Map<String, serde_json::Value>) {
        let event = Event { at: self.started.elapsed(), who, what: what.into(), figures };
        tracing::debug!(call = %self.call, at_ms = u64::try_from(event.at.as_millis()).unwrap_or(u64::MAX), who = ?who, "{}", event.what);
        // Nobody watching is the usual case.
        self.told = self.told.saturating_add(1);
        let _nobody = self.watchers.send(Watched { call: self.call.clone(), number: self.told, event: event.clone() });
        if self.events.len() < RECORD_LIMIT_EVENTS {
            self.events.push(event);
        }
    }

    /// How long the call has been up.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// All that was kept; the timeline goes on empty.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}
