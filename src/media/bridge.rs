//! Two legs joined: what one says the other hears, keys included, until one of them ends. For transfers that the other side's
//! telephone system refuses to do itself.

use tokio::sync::mpsc::error::TrySendError;

use super::frame::{Frame, SampleRate};
use super::leg::{Leg, LegCommand, LegEnd, LegEvent};
use super::playout::FRAME_MS;
use super::resample::Resampler;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first.
    First,
    /// The second.
    Second,
}

/// How a bridge ended. The legs are still the caller's: the other one may be spoken to, or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeEnd {
    /// Who ended first.
    pub side: Side,
    /// How; `None`: its task is gone without a word.
    pub end: Option<LegEnd>,
}

/// Joins two legs that are answered; both should have nothing left to play. Adds no delay but for the other leg's next packet
/// time: at most one frame. A leg that does not keep up loses audio. Safe to drop: the legs go on, in silence.
pub async fn bridge(first: &mut Leg, second: &mut Leg) -> BridgeEnd {
    let mut forth = Lane::new(first.info.rate, second.info.rate);
    let mut back = Lane::new(second.info.rate, first.info.rate);
    loop {
        let (side, outcome) = tokio::select! {
            event = first.events.recv() => (Side::First, forth.pass(event, second)),
            event = second.events.recv() => (Side::Second, back.pass(event, first)),
        };
        if let Err(ended) = outcome {
            let side = match (ended.listener, side) {
                (false, side) => side,
                (true, Side::First) => Side::Second,
                (true, Side::Second) => Side::First,
            };
            return BridgeEnd { side, end: ended.end };
        }
    }
}

/// It is over: for the speaker, or for the listener.
struct Ended {
    listener: bool,
    end: Option<LegEnd>,
}

/// One direction.
struct Lane {
    to: SampleRate,
    /// Between legs of different rates.
    resampler: Option<Resampler>,
    ready: Vec<i16>,
    frame_samples: usize,
}

impl Lane {
    fn new(from: SampleRate, to: SampleRate) -> Self {
        Self {
            to,
            resampler: (from != to).then(|| Resampler::new(from, to)),
            ready: Vec::new(),
            frame_samples: to.samples_in(std::time::Duration::from_millis(FRAME_MS)),
        }
    }

    fn pass(&mut self, event: Option<LegEvent>, listener: &Leg) -> Result<(), Ended> {
        let command = match event {
            Some(LegEvent::Frame(frame)) => match self.fit(frame) {
                Some(frame) => LegCommand::Speak(frame),
                None => return Ok(()),
            },
            Some(LegEvent::Key(key)) => LegCommand::SendKey(key),
            Some(
                LegEvent::PlayEnded { .. } | LegEvent::Held | LegEvent::Resumed | LegEvent::Answered | LegEvent::Transfer(_),
            ) => {
                return Ok(());
            }
            Some(LegEvent::Ended(end)) => return Err(Ended { listener: false, end: Some(end) }),
            None => return Err(Ended { listener: false, end: None }),
        };
        match listener.commands.try_send(command) {
            // A full queue means that its turns are late: old audio would only make it later.
            Ok(()) | Err(TrySendError::Full(_)) => Ok(()),
            // Its last word is on its way in its own events, but nothing more can be done for it.
            Err(TrySendError::Closed(_)) => Err(Ended { listener: true, end: None }),
        }
    }

    /// At the listener's rate, in whole frames.
    fn fit(&mut self, frame: Frame) -> Option<Frame> {
        let Some(resampler) = &mut self.resampler else { return Some(frame) };
        resampler.push(&frame.samples, &mut self.ready);
        if self.ready.len() < self.frame_samples {
            return None;
        }
        let rest = self.ready.split_off(self.frame_samples);
        Some(Frame { rate: self.to, samples: std::mem::replace(&mut self.ready, rest) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::media::leg::{self, Attestation, CallerClaim, FarEnd, Key, LegInfo};

    fn leg_at(rate: SampleRate) -> (Leg, FarEnd) {
        leg::pair(LegInfo {
            protocol_id: String::new(),
            caller: CallerClaim::Withheld,
            attestation: Attestation::Absent,
            called: String::new(),
            peer: String::new(),
            trunk: String::new(),
            transport: "none",
            secure: false,
            setup_ms: 0,
            rate,
            codec: "PCMU",
        })
    }

    fn frame(rate: SampleRate, level: i16) -> LegEvent {
        LegEvent::Frame(Frame { rate, samples: vec![level; rate.samples_in(Duration::from_millis(20))] })
    }

    #[tokio::test]
    async fn frames_and_keys_cross_both_ways_until_one_ends() {
        let (mut a, mut far_a) = leg_at(SampleRate::HZ_8000);
        let (mut b, mut far_b) = leg_at(SampleRate::HZ_8000);
        far_a.events.send(frame(SampleRate::HZ_8000, 5)).await.unwrap();
        far_a.events.send(LegEvent::Key(Key::Pound)).await.unwrap();
        far_b.events.send(frame(SampleRate::HZ_8000, 7)).await.unwrap();
        let feed = async {
            let heard = far_b.commands.recv().await;
            assert!(matches!(heard, Some(LegCommand::Speak(f)) if f.samples == [5; 160]));
            assert!(matches!(far_b.commands.recv().await, Some(LegCommand::SendKey(Key::Pound))));
            assert!(matches!(far_a.commands.recv().await, Some(LegCommand::Speak(f)) if f.samples == [7; 160]));
            far_b.events.send(LegEvent::Ended(LegEnd::Caller)).await.unwrap();
        };
        let (end, ()) = tokio::join!(bridge(&mut a, &mut b), feed);
        assert_eq!(end, BridgeEnd { side: Side::Second, end: Some(LegEnd::Caller) });
    }

    #[tokio::test]
    async fn between_rates_frames_stay_whole_and_none_is_lost() {
        let (mut a, far_a) = leg_at(SampleRate::HZ_16000);
        let (mut b, mut far_b) = leg_at(SampleRate::HZ_8000);
        let feed = async move {
            for _ in 0..50 {
                far_a.events.send(frame(SampleRate::HZ_16000, 1_000)).await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut frames = 0;
            while let Ok(command) = tokio::time::timeout(Duration::from_millis(50), far_b.commands.recv()).await {
                let Some(LegCommand::Speak(f)) = command else { panic!() };
                assert_eq!((f.rate, f.samples.len()), (SampleRate::HZ_8000, 160));
                frames += 1;
            }
            drop(far_a);
            frames
        };
        let (end, frames) = tokio::join!(bridge(&mut a, &mut b), feed);
        // The queue holds 32; the filter keeps a part of the first.
        assert!((31..=32).contains(&frames), "{frames}");
        assert_eq!(end, BridgeEnd { side: Side::First, end: None });
    }

    #[tokio::test]
    async fn a_listener_that_is_gone_ends_it() {
        let (mut a, far_a) = leg_at(SampleRate::HZ_8000);
        let (mut b, far_b) = leg_at(SampleRate::HZ_8000);
        drop(far_b.commands);
        far_a.events.send(frame(SampleRate::HZ_8000, 5)).await.unwrap();
        assert_eq!(bridge(&mut a, &mut b).await, BridgeEnd { side: Side::Second, end: None });
        drop(far_b.events);
    }
}
