//! One turn of the caller: frames in, pauses and the end out. At each pause the speech so far is given out to be worked on; what was
//! read in it says how long the pause must last to end the turn; and if nothing was said since, the very same utterance is handed over
//! at the end, so that what was worked out about it holds. PURE: driven by frames alone, no clock.

use std::sync::Arc;

use crate::decision::Answer;
use crate::language::Language;
use crate::media::frame::{Frame, SampleRate};

use super::FreeReading;
use super::endpoint::{EndReason, Endpointer, ListenSpec, SpeechEvent};
use super::utterance::Utterance;
use super::vad::VoiceActivity;

/// A reading in which some digit has less of a lead over the next likely one than this, in nats, does not end a turn early.
pub const CONFIDENT_MARGIN_NATS: f32 = 1.0;

/// What a frame led to.
#[derive(Debug)]
pub enum TurnEvent {
    /// Speech began.
    Started,
    /// The caller pauses, or has talked without a pause for long: time to work on what there is.
    Paused {
        /// Counts pauses; names this one.
        pause: u64,
        /// All speech so far.
        so_far: Arc<Utterance>,
    },
    /// The caller goes on: what was worked out at the pause is of no more use.
    WentOn,
    /// The turn is over. Nothing comes after.
    Over(Spoken),
    /// The turn is over and there was nothing in it. Nothing comes after.
    Nothing,
}

/// A whole turn.
#[derive(Debug)]
pub struct Spoken {
    /// What was said: the same allocation as at the last pause, if nothing was said since.
    pub utterance: Arc<Utterance>,
    /// From where the caller was last heard to the end of the turn, in milliseconds.
    pub end_point_delay_ms: u32,
    /// Why it ended.
    pub why: EndReason,
}

/// How much of what is expected was read at a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// More is to come, or nothing can be told.
    Unfinished,
    /// As much as could be said, though it may be misread.
    Enough,
    /// What is expected, with confidence.
    Whole,
}

impl Readiness {
    /// Of a card number: `lengths` are those that the customer's cards have.
    pub fn of_card(reading: &FreeReading, lengths: &[usize]) -> Self {
        let enough = lengths.iter().min().is_some_and(|least| reading.digits.len() >= *least);
        match (reading.is_complete(lengths) && reading.min_margin >= CONFIDENT_MARGIN_NATS, enough) {
            (true, _) => Self::Whole,
            (false, true) => Self::Enough,
            (false, false) => Self::Unfinished,
        }
    }

    /// Of digits that the caller was told to say.
    pub fn of_digits(reading: &FreeReading, expected: &[u8]) -> Self {
        if reading.digits.as_slice() == expected {
            Self::Whole
        } else if reading.digits.len() >= expected.len() {
            Self::Enough
        } else {
            Self::Unfinished
        }
    }

    /// Of so many digits that only the caller knows: whether they are right is judged later.
    pub fn of_so_many(reading: &FreeReading, length: usize) -> Self {
        if reading.digits.len() >= length { Self::Enough } else { Self::Unfinished }
    }

    /// Of a yes or a no.
    pub fn of_answer(answer: Answer) -> Self {
        match answer {
            Answer::Yes | Answer::No | Answer::Cancel => Self::Whole,
            Answer::Unclear => Self::Unfinished,
        }
    }
}

/// A moment at which the speech so far was given out.
#[derive(Debug)]
struct Paused {
    count: u64,
    /// Where the speech before the pause ends; `None`: there is no pause, this is while the caller or others talk.
    end: Option<usize>,
    so_far: Arc<Utterance>,
}

/// One turn, from its first frame to its utterance.
#[derive(Debug)]
pub struct Turn {
    endpointer: Endpointer,
    spec: ListenSpec,
    pauses: u64,
    /// The pause that goes on now, if one does.
    paused: Option<Paused>,
    /// Since which pause every reading was whole.
    whole_since: Option<u64>,
    over: bool,
}

impl Turn {
    /// The same, spoken in this language.
    pub fn in_language(mut self, language: Language) -> Self {
        self.endpointer.set_language(language);
        self
    }

    /// Begins a turn. `ears`: those of the turn before on the same line, which know its noise.
    pub fn begin(spec: ListenSpec, vad: impl Into<VoiceActivity>, rate: SampleRate, ears: Option<Endpointer>) -> Self {
        let endpointer = match ears {
            Some(mut ears) => {
                ears.listen(spec);
                ears
            }
            None => Endpointer::with_vad(spec, rate, vad),
        };
        Self { endpointer, spec, pauses: 0, paused: None, whole_since: None, over: false }
    }

    /// Takes a frame; says what it led to, in order.
    pub fn push(&mut self, frame: &Frame) -> Vec<TurnEvent> {
        if self.over {
            return Vec::new();
        }
        let events = self.endpointer.push(frame);
        let mut out = Vec::new();
        if let Some(Paused { end: Some(end), .. }) = &self.paused
            && self.endpointer.speech_end() != Some(*end)
        {
            self.paused = None;
            out.push(TurnEvent::WentOn);
        }
        for event in events {
            match event {
                SpeechEvent::SpeechStarted => out.push(TurnEvent::Started),
                SpeechEvent::Pause { since_ms: _ } => {
                    out.extend(self.give_out(self.endpointer.utterance_so_far(), self.endpointer.speech_end()));
                }
                SpeechEvent::Talk => out.extend(self.give_out(self.endpointer.all_so_far(), None)),
                SpeechEvent::Ended(why) => out.push(self.finish(why).map_or(TurnEvent::Nothing, TurnEvent::Over)),
                SpeechEvent::NoSpeech => {
                    self.over = true;
                    out.push(TurnEvent::Nothing);
                }
            }
        }
        out
    }

    fn give_out(&mut self, so_far: Option<Utterance>, end: Option<usize>) -> Option<TurnEvent> {
        let so_far = Arc::new(so_far?);
        self.pauses += 1;
        self.paused = Some(Paused { count: self.pauses, end, so_far: Arc::clone(&so_far) });
        Some(TurnEvent::Paused { pause: self.pauses, so_far })
    }

    /// What was read at this pause; stale readings change nothing. The turn, if that ends it now. Read whole twice in a row, with something
    /// between that was no digit, it is over without further waiting: what goes on is not the caller's number.
    pub fn read(&mut self, pause: u64, readiness: Readiness) -> Option<Spoken> {
        let end = self.paused.as_ref().filter(|p| p.count == pause && !self.over)?.end;
        self.whole_since = match readiness {
            Readiness::Whole => self.whole_since.or(Some(pause)),
            Readiness::Enough | Readiness::Unfinished => None,
        };
        let twice = self.whole_since.is_some_and(|since| since < pause);
        match (readiness, end) {
            (_, None) if twice => self.finish(EndReason::Enough),
            (Readiness::Unfinished, _) | (_, None) => None,
            (Readiness::Enough, Some(_)) => self.end_after(self.spec.pause_enough_ms),
            (Readiness::Whole, Some(_)) => self.end_after(if twice { 0 } else { self.spec.pause_early_ms }),
        }
    }

    fn end_after(&mut self, pause_ms: u32) -> Option<Spoken> {
        if self.endpointer.end_after(pause_ms) { self.finish(EndReason::Enough) } else { None }
    }

    /// Ends the turn, whatever was heard, and hands the ears on; the audio is forgotten.
    pub fn end(mut self) -> Endpointer {
        self.endpointer.listen(self.spec);
        self.endpointer
    }

    fn finish(&mut self, why: EndReason) -> Option<Spoken> {
        self.over = true;
        let end_point_delay_ms = self.endpointer.silent_for_ms();
        let end = self.endpointer.speech_end();
        let utterance = match self.paused.take() {
            // Ended by what was read in it, or in a pause that it was given out at.
            Some(p) if p.end.is_none() && why == EndReason::Enough || p.end.is_some() && p.end == end => Some(p.so_far),
            Some(_) | None => self.endpointer.utterance_so_far().map(Arc::new),
        };
        self.endpointer.listen(self.spec); // the audio is forgotten
        let utterance = utterance?;
        Some(Spoken { utterance, end_point_delay_ms, why })
    }
}

#[cfg(test)]
mod tests {
    use super::super::vad::VadConfig;
    use super::*;

    const R: SampleRate = SampleRate::HZ_8000;

    fn tone(ms: usize, seed: usize) -> Vec<i16> {
        (0..ms * 8)
            .map(|i| {
                let t = (i + seed) as f32 / 8_000.0;
                ((t * 300.0 * std::f32::consts::TAU).sin() * (0.55 + 0.45 * (t * 25.0).cos()) * 6_000.0) as i16
            })
            .collect()
    }

    fn hush(ms: usize) -> Vec<i16> {
        (0..ms * 8).map(|i| if i % 3 == 0 { 12 } else { -7 }).collect()
    }

    fn hear(turn: &mut Turn, samples: &[i16]) -> Vec<TurnEvent> {
        samples.chunks(160).flat_map(|c| turn.push(&Frame { rate: R, samples: c.to_vec() })).collect()
    }

    fn turn() -> Turn {
        Turn::begin(ListenSpec::card(), VadConfig::default(), R, None)
    }

    fn paused(events: &[TurnEvent]) -> Option<(u64, Arc<Utterance>)> {
        events.iter().find_map(|e| match e {
            TurnEvent::Paused { pause, so_far } => Some((*pause, Arc::clone(so_far))),
            TurnEvent::Started | TurnEvent::WentOn | TurnEvent::Over(_) | TurnEvent::Nothing => None,
        })
    }

    fn over(events: Vec<TurnEvent>) -> Option<Spoken> {
        events.into_iter().find_map(|e| match e {
            TurnEvent::Over(spoken) => Some(spoken),
            TurnEvent::Started | TurnEvent::WentOn | TurnEvent::Paused { .. } | TurnEvent::Nothing => None,
        })
    }

    #[test]
    fn what_is_worked_on_at_the_pause_is_what_is_handed_over_at_the_end() {
        let mut turn = turn();
        let (first, heard) = paused(&hear(&mut turn, &[hush(800), tone(1_500, 0), hush(500)].concat())).unwrap();
        let more = hear(&mut turn, &[tone(900, 3), hush(400)].concat());
        assert!(more.iter().any(|e| matches!(e, TurnEvent::WentOn)));
        let (second, whole) = paused(&more).unwrap();
        assert!(second > first && whole.total_ms > heard.total_ms + 900);
        let spoken = over(hear(&mut turn, &hush(3_000))).unwrap();
        assert!(Arc::ptr_eq(&spoken.utterance, &whole));
        assert_eq!(spoken.why, EndReason::Silence);
        // 2.6 s and the hangover
        assert!((2_600..=2_800).contains(&spoken.end_point_delay_ms), "{spoken:?}");
    }

    #[test]
    fn a_click_in_the_pause_changes_neither_the_utterance_nor_the_end() {
        let mut turn = turn();
        let (_, heard) = paused(&hear(&mut turn, &[hush(800), tone(1_500, 0), hush(500)].concat())).unwrap();
        let mut click = hush(200);
        click[400..480].fill(9_000);
        let events = hear(&mut turn, &[click, hush(2_500)].concat());
        assert!(!events.iter().any(|e| matches!(e, TurnEvent::WentOn | TurnEvent::Paused { .. })));
        assert!(Arc::ptr_eq(&over(events).unwrap().utterance, &heard));
    }

    #[test]
    fn a_whole_reading_ends_the_turn_early_and_a_stale_one_does_not() {
        let mut turn = turn();
        let (pause, heard) = paused(&hear(&mut turn, &[hush(800), tone(1_500, 0), hush(380)].concat())).unwrap();
        assert!(turn.read(pause, Readiness::Whole).is_none(), "the pause is not long enough yet");
        let spoken = over(hear(&mut turn, &hush(400))).unwrap();
        assert!(Arc::ptr_eq(&spoken.utterance, &heard));
        assert_eq!(spoken.why, EndReason::Enough);
        assert!((500..=560).contains(&spoken.end_point_delay_ms), "{spoken:?}");

        let mut turn = super::tests::turn();
        let (pause, _) = paused(&hear(&mut turn, &[hush(800), tone(1_500, 0), hush(380)].concat())).unwrap();
        assert!(turn.read(pause, Readiness::Whole).is_none());
        let events = hear(&mut turn, &[tone(800, 3), hush(800)].concat());
        assert!(over(events).is_none(), "speech that goes on takes it back");
        assert!(turn.read(pause, Readiness::Whole).is_none(), "it was about an earlier pause");
        assert!(turn.read(pause + 1, Readiness::Unfinished).is_none());
        let spoken = turn.read(pause + 1, Readiness::Whole).unwrap();
        assert!(spoken.end_point_delay_ms >= 600, "it had been silent for longer already");
        assert!(hear(&mut turn, &tone(900, 0)).is_empty(), "nothing comes after");
    }

    #[test]
    fn talk_that_fills_the_pauses_ends_when_a_whole_number_was_read_twice() {
        let mut turn = turn();
        let given = |events: Vec<TurnEvent>| paused(&events);
        assert!(given(hear(&mut turn, &[hush(800), tone(2_500, 0)].concat())).is_none(), "speech is nothing unusual");
        let (first, _) = given(hear(&mut turn, &tone(1_000, 5))).unwrap();
        assert!(turn.read(first, Readiness::Whole).is_none(), "once is not enough: the caller may go on");
        let (second, _) = given(hear(&mut turn, &tone(1_000, 5))).unwrap();
        assert!(turn.read(second, Readiness::Unfinished).is_none());
        let (third, _) = given(hear(&mut turn, &tone(1_000, 5))).unwrap();
        assert!(turn.read(third, Readiness::Whole).is_none(), "the one before was not");
        let (fourth, so_far) = given(hear(&mut turn, &tone(1_000, 5))).unwrap();
        let spoken = turn.read(fourth, Readiness::Whole).unwrap();
        assert!(Arc::ptr_eq(&spoken.utterance, &so_far));
        assert_eq!(spoken.why, EndReason::Enough);
        assert!(hear(&mut turn, &tone(500, 0)).is_empty());
    }

    #[test]
    fn a_whole_number_read_again_after_more_sound_ends_the_pause_at_once() {
        let mut turn = turn();
        let (first, _) = paused(&hear(&mut turn, &[hush(800), tone(1_500, 0), hush(380)].concat())).unwrap();
        assert!(turn.read(first, Readiness::Whole).is_none());
        let (second, so_far) = paused(&hear(&mut turn, &[tone(400, 0), hush(380)].concat())).unwrap();
        assert!(Arc::ptr_eq(&turn.read(second, Readiness::Whole).unwrap().utterance, &so_far));
    }

    #[test]
    fn readiness_wants_the_whole_number_and_no_digit_in_doubt() {
        let reading = |digits: &str, min_margin| FreeReading {
            digits: zeroize::Zeroizing::new(digits.bytes().map(|b| b - b'0').collect()),
            log_prob: -0.1,
            mean_margin: 8.0,
            min_margin,
        };
        let card = |digits, margin| Readiness::of_card(&reading(digits, margin), &[16]);
        assert_eq!(card("2261875516718090", 5.0), Readiness::Whole);
        assert_eq!(card("2261875516718090", 0.2), Readiness::Enough);
        assert_eq!(card("2261875516718091", 5.0), Readiness::Enough, "the check digit does not fit");
        assert_eq!(card("226187551671809", 5.0), Readiness::Unfinished);
        let so_many = |digits| Readiness::of_so_many(&reading(digits, 5.0), 6);
        assert_eq!([so_many("12345"), so_many("123456")], [Readiness::Unfinished, Readiness::Enough]);
        let told = |digits| Readiness::of_digits(&reading(digits, 5.0), &[1, 2, 3]);
        assert_eq!([told("123"), told("124"), told("12")], [Readiness::Whole, Readiness::Enough, Readiness::Unfinished]);
    }
}
