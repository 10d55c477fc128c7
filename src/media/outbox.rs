//! Events to a call that may lag: audio is dropped and counted, keys and endings are not.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::frame::Frame;
use super::leg::{LegEnd, LegEvent};

/// Places in the event queue that frames leave free for keys and endings.
pub const EVENT_RESERVE_EVENTS: usize = 32;
/// Keys and `PlayEnded`s that wait here when even the reserve is full. More than this means that nobody reads.
pub const EVENT_BACKLOG_EVENTS: usize = 256;
/// How long the end of a call waits for a call's task that does not read.
pub const EVENT_END_WAIT_MS: u64 = 2_000;

/// Nobody reads the events any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned;

/// One leg's events on their way out, in order.
#[derive(Debug)]
pub struct Outbox {
    events: mpsc::Sender<LegEvent>,
    backlog: VecDeque<LegEvent>,
    dropped: u64,
}

impl Outbox {
    /// Over the leg's channel.
    pub fn new(events: mpsc::Sender<LegEvent>) -> Self {
        Self { events, backlog: VecDeque::new(), dropped: 0 }
    }

    /// Frames dropped so far because the call lagged.
    pub fn frames_dropped(&self) -> u64 {
        self.dropped
    }

    /// Offers audio; a call that lags loses it.
    pub fn frame(&mut self, frame: Frame) {
        // A key that waits must not be overtaken by later audio.
        let room = self.backlog.is_empty() && self.events.capacity() > EVENT_RESERVE_EVENTS.min(self.events.max_capacity() / 4);
        if !room || self.events.try_send(LegEvent::Frame(frame)).is_err() {
            self.dropped += 1;
        }
    }

    /// Sends what must not be lost, now or as soon as there is room.
    pub fn must_arrive(&mut self, event: LegEvent) -> Result<(), Abandoned> {
        if self.backlog.len() >= EVENT_BACKLOG_EVENTS {
            return Err(Abandoned);
        }
        self.backlog.push_back(event);
        self.flush()
    }

    /// Tries again what waits. Call it every frame.
    pub fn flush(&mut self) -> Result<(), Abandoned> {
        while let Some(event) = self.backlog.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.backlog.push_front(event);
                    return Ok(());
                }
                Err(TrySendError::Closed(_)) => return Err(Abandoned),
            }
        }
        Ok(())
    }

    /// The last events of a leg: what waits, then `end` if there is one. Waits at most [`EVENT_END_WAIT_MS`].
    pub async fn finish(mut self, end: Option<LegEnd>) {
        let last = end.map(LegEvent::Ended);
        let everything = async {
            for event in self.backlog.drain(..).chain(last) {
                if self.events.send(event).await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(Duration::from_millis(EVENT_END_WAIT_MS), everything).await.is_err() {
            tracing::warn!("the call's task does not read its events: its end was not delivered");
        }
    }
}
