//! What a patient caller makes of the line: speech or silence, by loudness and by the clock. Lost or missing frames are
//! silence; nothing here knows what the other side meant to play.

use std::time::Duration;

use tokio::time::Instant;

use crate::media::frame::{Frame, SampleRate};
use crate::media::leg::Sound;
use crate::media::wav::level_dbfs;

/// Louder than this is speech. G.711's own noise lies near -70, comfort noise near -50; recorded prompts near -20.
pub const SPEECH_DBFS: f64 = -45.0;
/// So much speech in a row makes it a voice and no click.
const ONSET_MS: u64 = 60;
/// Silence this long ends a stretch of speech for timelines; pauses within a sentence are shorter.
const OFFSET_MS: u64 = 400;
/// Missing audio up to this is jitter; beyond, the recording gets silence.
const GAP_MS: u64 = 100;
/// The recording keeps the beginning of a longer call.
pub const RECORDING_LIMIT_S: u64 = 900;

/// A change that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The other side has begun to speak.
    Speech,
    /// It has stopped.
    Silence { spoke: Duration },
}

/// Ears and tape.
#[derive(Debug)]
pub struct Hearing {
    rate: SampleRate,
    start: Instant,
    /// Loud time since silence, while below the onset.
    rising: Duration,
    /// When the current stretch of speech began.
    speech_since: Option<Instant>,
    /// The end of the last loud frame.
    last_loud: Option<Instant>,
    /// Has there been speech since somebody asked us to forget?
    spoken: bool,
    /// How much loud sound there has been since then.
    loud: Duration,
    total_speech: Duration,
    tape: Vec<i16>,
    /// Where the tape stood when somebody asked us to forget.
    since: usize,
}

impl Hearing {
    /// From `start` on.
    pub fn new(rate: SampleRate, start: Instant) -> Self {
        Self {
            rate,
            start,
            rising: Duration::ZERO,
            speech_since: None,
            last_loud: None,
            spoken: false,
            loud: Duration::ZERO,
            total_speech: Duration::ZERO,
            tape: Vec::new(),
            since: 0,
        }
    }

    /// From here on only new speech counts; a stretch that is under way still does.
    pub fn forget(&mut self) {
        self.spoken = self.speech_since.is_some();
        self.loud = Duration::ZERO;
        self.since = self.tape.len();
    }

    /// What was heard since then.
    pub fn lately(&self) -> Sound {
        Sound { rate: self.rate, samples: self.tape.get(self.since..).unwrap_or_default().to_vec() }
    }

    /// A frame came.
    pub fn frame(&mut self, now: Instant, frame: &Frame) -> Option<Heard> {
        self.record(now, frame);
        let length = frame.rate.duration_of(frame.samples.len());
        if level_dbfs(&frame.samples) < SPEECH_DBFS {
            self.rising = Duration::ZERO;
            return self.until(now);
        }
        self.rising += length;
        self.loud += length;
        if self.speech_since.is_some() {
            self.last_loud = Some(now);
            return None;
        }
        if self.rising < Duration::from_millis(ONSET_MS) {
            return None;
        }
        self.last_loud = Some(now);
        self.speech_since = Some(now.checked_sub(self.rising).unwrap_or(now));
        self.spoken = true;
        Some(Heard::Speech)
    }

    /// Time passes without a frame.
    pub fn until(&mut self, now: Instant) -> Option<Heard> {
        let (since, last) = (self.speech_since?, self.last_loud?);
        if now.duration_since(last) < Duration::from_millis(OFFSET_MS) {
            return None;
        }
        self.speech_since = None;
        self.rising = Duration::ZERO;
        let spoke = last.duration_since(since);
        self.total_speech += spoke;
        Some(Heard::Silence { spoke })
    }

    /// Has it spoken, for `at_least`, and then been silent for `silence`? If not: when to ask again at the latest.
    pub fn spoke_and_stopped(&self, now: Instant, silence: Duration, at_least: Duration) -> Result<(), Option<Instant>> {
        let last = self.last_loud.filter(|_| self.spoken && self.loud >= at_least).ok_or(None)?;
        let due = last + silence;
        if now >= due { Ok(()) } else { Err(Some(due)) }
    }

    /// Has it been speaking for `duration`? If not: when to ask again, if ever.
    pub fn speaking_for(&self, now: Instant, duration: Duration) -> Result<(), Option<Instant>> {
        let since = self.speech_since.ok_or(None)?;
        let due = since + duration;
        if now >= due { Ok(()) } else { Err(Some(due)) }
    }

    /// The tape, and how long the other side spoke in all.
    pub fn into_recording(mut self) -> (Sound, Duration) {
        let still = self.speech_since.zip(self.last_loud).map_or(Duration::ZERO, |(since, last)| last.duration_since(since));
        (Sound { rate: self.rate, samples: std::mem::take(&mut self.tape) }, self.total_speech + still)
    }

    fn record(&mut self, now: Instant, frame: &Frame) {
        let limit = self.rate.samples_in(Duration::from_secs(RECORDING_LIMIT_S));
        // Where this frame should begin, were every frame on time.
        let due = self.rate.samples_in(now.duration_since(self.start)).saturating_sub(frame.samples.len());
        if due > self.tape.len() + self.rate.samples_in(Duration::from_millis(GAP_MS)) {
            self.tape.resize(due.min(limit), 0);
        }
        let room = limit.saturating_sub(self.tape.len());
        self.tape.extend(frame.samples.iter().take(room));
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.tape);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(level: i16) -> Frame {
        Frame { rate: SampleRate::HZ_8000, samples: (0..160).map(|i| if i % 2 == 0 { level } else { -level }).collect() }
    }

    #[tokio::test(start_paused = true)]
    async fn speech_is_what_is_loud_for_a_while_and_ends_by_the_clock() {
        let start = Instant::now();
        let mut h = Hearing::new(SampleRate::HZ_8000, start);
        let at = |ms: u64| start + Duration::from_millis(ms);
        // A click is no speech.
        assert_eq!(h.frame(at(20), &frame(9_000)), None);
        assert_eq!(h.frame(at(40), &frame(3)), None);
        let mut heard = Vec::new();
        for i in 0..50 {
            heard.extend(h.frame(at(60 + i * 20), &frame(4_000)));
        }
        assert_eq!(heard, [Heard::Speech]);
        assert!(h.speaking_for(at(1_040), Duration::from_millis(900)).is_ok());
        assert_eq!(h.spoke_and_stopped(at(1_040), Duration::from_millis(700), Duration::ZERO), Err(Some(at(1_740))));
        // No frames at all are silence as well.
        assert_eq!(h.until(at(1_500)), Some(Heard::Silence { spoke: Duration::from_millis(1_000) }));
        assert!(h.spoke_and_stopped(at(1_740), Duration::from_millis(700), Duration::ZERO).is_ok());
        h.forget();
        assert_eq!(h.spoke_and_stopped(at(9_000), Duration::from_millis(700), Duration::ZERO), Err(None));
    }

    #[tokio::test(start_paused = true)]
    async fn gaps_on_the_tape_are_filled() {
        let start = Instant::now();
        let mut h = Hearing::new(SampleRate::HZ_8000, start);
        h.frame(start + Duration::from_millis(20), &frame(100));
        h.frame(start + Duration::from_millis(1_000), &frame(100));
        let (sound, _) = h.into_recording();
        assert_eq!(sound.samples.len(), 8_000);
    }
}
