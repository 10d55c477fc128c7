//! A recording as a caller who speaks now: 20 ms after 20 ms through a [`Turn`], with the work at each pause taking the time that it
//! takes on one thread. For measuring: what a call does, without a call.

use std::sync::Arc;
use std::time::Duration;

use crate::media::frame::{Frame, SampleRate};

use super::turn::{Readiness, Spoken, Turn, TurnEvent};
use super::utterance::Utterance;

/// A packet.
const FRAME_MS: u32 = 20;

/// Nothing is listened to for longer, whatever the turn's own limits are.
const LIMIT: Duration = Duration::from_secs(300);

/// How far the work at the last pause was when the turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// Done this long before the end point; the thread was idle since, or did other work on the same utterance.
    Ahead(Duration),
    /// Begun, and done this long after the end point.
    Late(Duration),
    /// Not begun: the turn ended without a pause.
    NotBegun,
}

impl Lead {
    /// Time from the end point to the verdict, if behind `reading` comes `rest` on the same thread and then `last`, which can begin only
    /// at the end point.
    pub fn to_verdict(self, reading: Duration, rest: Duration, last: Duration) -> Duration {
        let left = match self {
            Self::Ahead(by) => rest.saturating_sub(by),
            Self::Late(by) => by + rest,
            Self::NotBegun => reading + rest,
        };
        left + last
    }
}

/// What became of a recording.
#[derive(Debug)]
pub struct Replayed {
    /// The turn; `None` if nothing in it was speech.
    pub spoken: Option<Spoken>,
    /// The turn was over before the recording was: in `spoken_ms` of `recording_ms`.
    pub ended_at_ms: u32,
    /// How far the work was.
    pub lead: Lead,
}

/// Plays `samples`, and then `after` again and again until the turn is over. `read` is called at each pause; it answers what it read and how
/// long it took.
pub fn replay(
    mut turn: Turn,
    rate: SampleRate,
    samples: &[i16],
    after: &[i16],
    mut read: impl FnMut(&Arc<Utterance>) -> (Readiness, Duration),
) -> Replayed {
    let size = rate.samples_in(Duration::from_millis(u64::from(FRAME_MS))).max(1);
    let hush = vec![0i16; size];
    let after: Vec<&[i16]> = if after.len() < size { vec![hush.as_slice()] } else { after.chunks_exact(size).collect() };
    let mut at = Duration::ZERO;
    let mut free_at = Duration::ZERO;
    let mut working: Option<(u64, Readiness, Duration)> = None;
    let over = |spoken: Option<Spoken>, at: Duration, done: Option<Duration>| Replayed {
        spoken,
        ended_at_ms: u32::try_from(at.as_millis()).unwrap_or(u32::MAX),
        lead: match done {
            Some(done) if done <= at => Lead::Ahead(at - done),
            Some(done) => Lead::Late(done - at),
            None => Lead::NotBegun,
        },
    };
    // No turn is longer than its limit; a caller who says nothing ends by `no_speech_ms`.
    for chunk in samples.chunks(size).chain(after.into_iter().cycle()) {
        if at > LIMIT {
            break;
        }
        at += Duration::from_millis(u64::from(FRAME_MS));
        for event in turn.push(&Frame { rate, samples: chunk.to_vec() }) {
            match event {
                TurnEvent::Started => {}
                TurnEvent::Paused { pause, so_far } => {
                    let (readiness, took) = read(&so_far);
                    // Work that was begun at an earlier pause is not interrupted.
                    free_at = free_at.max(at) + took;
                    working = Some((pause, readiness, free_at));
                }
                TurnEvent::WentOn => working = None,
                TurnEvent::Over(spoken) => return over(Some(spoken), at, working.map(|(_, _, done)| done)),
                TurnEvent::Nothing => return over(None, at, None),
            }
        }
        if let Some((pause, readiness, done)) = working
            && done <= at
            && let Some(spoken) = turn.read(pause, readiness)
        {
            return over(Some(spoken), at, Some(done));
        }
    }
    over(None, at, None)
}

#[cfg(test)]
mod tests {
    use super::super::endpoint::ListenSpec;
    use super::super::vad::VadConfig;
    use super::*;

    fn speech(ms: usize) -> Vec<i16> {
        (0..ms * 8)
            .map(|i| {
                let t = i as f32 / 8_000.0;
                ((t * 300.0 * std::f32::consts::TAU).sin() * (0.55 + 0.45 * (t * 25.0).cos()) * 6_000.0) as i16
            })
            .collect()
    }

    fn said(took_ms: u64, readiness: Readiness) -> Replayed {
        let rate = SampleRate::HZ_8000;
        let turn = Turn::begin(ListenSpec::card(), VadConfig::default(), rate, None);
        let line = [vec![3; 8_000], speech(2_000), vec![3; 1_000]].concat();
        replay(turn, rate, &line, &[], |_| (readiness, Duration::from_millis(took_ms)))
    }

    #[test]
    fn the_verdict_comes_sooner_the_longer_the_pause_was_worked_in() {
        let ms = Duration::from_millis;
        let quick = said(60, Readiness::Whole);
        let spoken = quick.spoken.unwrap();
        assert!((500..=580).contains(&spoken.end_point_delay_ms), "{spoken:?}");
        let Lead::Ahead(by) = quick.lead else { panic!("{:?}", quick.lead) };
        assert!((100..=200).contains(&by.as_millis()), "{by:?}");
        assert_eq!(quick.lead.to_verdict(ms(60), ms(100) + by, ms(5)), ms(105));

        let slow = said(700, Readiness::Whole);
        assert!(slow.spoken.unwrap().end_point_delay_ms > 900, "it is waited for");
        assert!(matches!(slow.lead, Lead::Ahead(by) if by < ms(20)));

        let unread = said(60, Readiness::Unfinished);
        assert!(unread.spoken.unwrap().end_point_delay_ms > 2_600);
        assert!(matches!(said(9_000, Readiness::Unfinished).lead, Lead::Late(_)));
        assert_eq!(Lead::NotBegun.to_verdict(ms(60), ms(100), ms(5)), ms(165));
    }
}
