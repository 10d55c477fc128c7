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

/// The call does not take its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// It dropped its end.
    Gone,
    /// It has not read for so long that the backlog is full.
    Stuck,
}

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
    pub fn frame(&mut self, frame: Frame) -> Result<(), Undelivered> {
        self.flush()?;
        // A key that waits must not be overtaken by later audio.
        let reserve = EVENT_RESERVE_EVENTS.min(self.events.max_capacity() / 4);
        if !self.backlog.is_empty() || self.events.capacity() <= reserve {
            self.dropped += 1;
            return Ok(());
        }
        match self.events.try_send(LegEvent::Frame(frame)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                self.dropped += 1;
                Ok(())
            }
            Err(TrySendError::Closed(_)) => Err(Undelivered::Gone),
        }
    }

    /// Sends what must not be lost, now or with a later call of [`Outbox::frame`].
    pub fn must_arrive(&mut self, event: LegEvent) -> Result<(), Undelivered> {
        if self.backlog.len() >= EVENT_BACKLOG_EVENTS {
            return Err(Undelivered::Stuck);
        }
        self.backlog.push_back(event);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Undelivered> {
        while let Some(event) = self.backlog.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.backlog.push_front(event);
                    return Ok(());
                }
                Err(TrySendError::Closed(_)) => return Err(Undelivered::Gone),
            }
        }
        Ok(())
    }

    /// The last events of a leg: what waits, `more`, then `end` if there is one. Waits at most [`EVENT_END_WAIT_MS`].
    pub async fn finish(self, more: impl IntoIterator<Item = LegEvent>, end: Option<LegEnd>) {
        let Self { events, backlog, .. } = self;
        let everything = async {
            for event in backlog.into_iter().chain(more).chain(end.map(LegEvent::Ended)) {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(Duration::from_millis(EVENT_END_WAIT_MS), everything).await.is_err() {
            tracing::warn!("the call's task does not read its events: its end was not delivered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::frame::SampleRate;
    use crate::media::leg::{Key, LEG_EVENT_QUEUE_EVENTS};

    fn frame() -> Frame {
        Frame { rate: SampleRate::HZ_8000, samples: vec![0; 160] }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_lags_loses_audio_but_no_key_and_not_its_end() {
        let (events, mut call) = mpsc::channel(LEG_EVENT_QUEUE_EVENTS);
        let mut outbox = Outbox::new(events);
        for n in 0..200u8 {
            outbox.frame(frame()).unwrap();
            outbox.must_arrive(LegEvent::Key(Key::Digit(n % 10))).unwrap();
        }
        assert!(outbox.frames_dropped() > 100, "{}", outbox.frames_dropped());
        tokio::spawn(outbox.finish([LegEvent::PlayEnded { id: 4, completed: false }], Some(LegEnd::Caller)));
        let mut told = Vec::new();
        while let Some(event) = call.recv().await {
            if !matches!(event, LegEvent::Frame(_)) {
                told.push(event);
            }
        }
        assert_eq!(told.len(), 202);
        for (n, event) in (0u8..200).zip(&told) {
            assert!(matches!(event, LegEvent::Key(Key::Digit(d)) if *d == n % 10));
        }
        assert!(matches!(told[200..], [LegEvent::PlayEnded { id: 4, completed: false }, LegEvent::Ended(LegEnd::Caller)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_reads_is_noticed_and_waited_for_only_so_long() {
        let (events, call) = mpsc::channel(8);
        let mut outbox = Outbox::new(events);
        let stuck = (0..1_000).find_map(|_| outbox.must_arrive(LegEvent::Key(Key::Star)).err());
        assert_eq!(stuck, Some(Undelivered::Stuck));
        let before = tokio::time::Instant::now();
        outbox.finish([], Some(LegEnd::Failed)).await;
        assert_eq!(before.elapsed(), Duration::from_millis(EVENT_END_WAIT_MS));
        drop(call);
    }

    #[test]
    fn a_call_that_went_is_told() {
        let (events, call) = mpsc::channel(8);
        let mut outbox = Outbox::new(events);
        drop(call);
        assert_eq!(outbox.frame(frame()), Err(Undelivered::Gone));
    }
}
