//! When the caller began, paused and ended: made for card numbers, which people read in groups with pauses of up to 2.5 s.
//! PURE: driven by frames alone, no clock. Time is counted in samples heard.

use serde::{Deserialize, Serialize};

use crate::language::Language;
use crate::media::frame::{Frame, SampleRate};

use super::samples::Samples;
use super::utterance::Utterance;
use super::vad::{LATE_STEPS, STEP_MS, Step, Vad, VadConfig, VoiceActivity};

/// Kept from before speech began, so that a soft beginning is not cut off.
pub const PRE_ROLL_MS: u32 = 300;
/// Kept from after it ended, at most: no more than has passed when a pause is reported, so that what is read at the pause is, to the
/// sample, what is handed over at the end.
pub const TAIL_MS: u32 = 300;
/// Speech shorter than this does not end a pause: a click, a breath.
const RESUME_MIN_MS: u32 = 50;
/// Speech without a pause is nothing unusual for this long.
const TALK_FROM_MS: u32 = 3_000;
/// A turn is never longer: Whisper hears 30 s, pre-roll and end included.
pub const UTTERANCE_LIMIT_MS: u32 = 29_000;

/// How to listen for one turn. All in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenSpec {
    /// Give up when nothing was said for this long; in a call dialogue.silence_ms does.
    pub no_speech_ms: u32,
    /// A pause longer than this ends the turn, whatever was said. Pauses count from where voice activity ended, its hangover included.
    pub max_pause_ms: u32,
    /// A pause longer than this ends it when as much was read as could be said, though not with confidence.
    pub pause_enough_ms: u32,
    /// A pause longer than this ends it when what is expected was read whole and with confidence.
    pub pause_early_ms: u32,
    /// A pause this long raises [`SpeechEvent::Pause`]: what there is, is read while the pause goes on.
    pub pause_work_ms: u32,
    /// Where no pause is heard (talk in the room fills them), what there is, is read every so often; 0: never.
    pub talk_work_ms: u32,
    /// The turn ends here at the latest, counted from where speech began; no more than [`UTTERANCE_LIMIT_MS`].
    pub max_utterance_ms: u32,
    /// Less speech than this did not start a turn: a click, a cough.
    pub min_speech_ms: u32,
}

impl ListenSpec {
    /// For card numbers: pauses of up to 2.5 s between groups don't cut the caller off.
    pub fn card() -> Self {
        Self {
            no_speech_ms: 7_000,
            max_pause_ms: 2_600,
            pause_enough_ms: 2_600,
            pause_early_ms: 400,
            pause_work_ms: 200,
            talk_work_ms: 1_000,
            max_utterance_ms: 28_000,
            min_speech_ms: 120,
        }
    }

    /// For a yes or a no.
    pub fn answer() -> Self {
        Self {
            no_speech_ms: 5_000,
            max_pause_ms: 900,
            pause_enough_ms: 900,
            pause_early_ms: 600,
            pause_work_ms: 200,
            talk_work_ms: 0,
            max_utterance_ms: 6_000,
            min_speech_ms: 100,
        }
    }

    /// For digit strings read after the voice at enrolment.
    pub fn digits() -> Self {
        Self {
            no_speech_ms: 6_000,
            max_pause_ms: 1_600,
            pause_enough_ms: 1_200,
            pause_early_ms: 500,
            pause_work_ms: 200,
            talk_work_ms: 1_000,
            max_utterance_ms: 20_000,
            min_speech_ms: 120,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeechEvent {
    /// `min_speech_ms` of speech were heard: time to stop the prompt. Once a turn.
    SpeechStarted,
    /// The caller has paused for `pause_work_ms`; once a pause.
    Pause {
        /// How long the pause has lasted.
        since_ms: u32,
    },
    /// The caller has talked, or others have, for `talk_work_ms` since the last report.
    Talk,
    /// The turn is over: take the utterance. Nothing comes after.
    Ended(EndReason),
    /// Nothing was said within `no_speech_ms`. Nothing comes after.
    NoSpeech,
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The caller was silent for longer than `max_pause_ms`.
    Silence,
    /// The caller was silent for as long as [`Endpointer::end_after`] was told to wait.
    Enough,
    /// `max_utterance_ms` was reached.
    TooLong,
}

/// Listens to one turn, then to the next.
pub struct Endpointer {
    spec: ListenSpec,
    rate: SampleRate,
    vad: Vad,
    step_samples: usize,
    /// What is kept: pre-roll and all since.
    samples: Samples,
    /// One for each 10 ms of `samples`.
    steps: Vec<Step>,
    waited_ms: u32,
    phase: Phase,
    language: Language,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Nothing yet; how much speech the current run of voice activity has.
    Waiting { run_ms: u32 },
    /// Under way.
    Speaking(Under),
    /// Over: waits to be taken.
    Over { last_speech_step: usize, last_loud_step: usize },
    /// Nothing was said.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Under {
    since_start_ms: u32,
    /// Since the last report of a pause or of talk.
    talk_ms: u32,
    /// Since the last report of a pause.
    unbroken_ms: u32,
    pause_ms: u32,
    probed: bool,
    /// The pause that goes on now ends the turn when it is longer than this.
    end_after_ms: u32,
    /// Speech since the pause began that may end it.
    resume_ms: u32,
    /// Behind the last step of speech.
    last_speech_step: usize,
    /// Behind the last step that was speech by its own energy: without the hangover.
    last_loud_step: usize,
}

impl std::fmt::Debug for Endpointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpointer({:?}, {} steps kept)", self.phase, self.steps.len())
    }
}

impl Endpointer {
    /// With the default voice activity.
    pub fn new(spec: ListenSpec, rate: SampleRate) -> Self {
        Self::with_vad(spec, rate, VadConfig::default())
    }

    /// With another, or with a network besides.
    pub fn with_vad(spec: ListenSpec, rate: SampleRate, vad: impl Into<VoiceActivity>) -> Self {
        Self {
            spec,
            rate,
            vad: Vad::new(vad, rate),
            step_samples: usize::try_from(rate.hz() / 1_000 * STEP_MS).unwrap_or(80),
            samples: Samples::default(),
            steps: Vec::new(),
            waited_ms: 0,
            phase: Phase::Waiting { run_ms: 0 },
            language: Language::English,
        }
    }

    /// Another way of listening from here on, on the same line: keeps what was learned of its noise, forgets the rest.
    pub fn listen(&mut self, spec: ListenSpec) {
        self.spec = spec;
        self.vad.next_turn();
        self.forget();
    }

    /// What is spoken from here on, for whoever reads the utterances.
    pub fn set_language(&mut self, language: Language) {
        self.language = language;
    }

    /// Takes what was heard. A frame of another rate than the line's is dropped. Where a frame is not a whole number of 10 ms, the
    /// rest is judged with the next.
    pub fn push(&mut self, frame: &Frame) -> Vec<SpeechEvent> {
        let mut events = Vec::new();
        if frame.rate != self.rate || matches!(self.phase, Phase::Over { .. } | Phase::Nothing) {
            return events;
        }
        let steps = self.vad.push(&frame.samples);
        self.samples.push(&frame.samples);
        for step in steps {
            if step.speech {
                self.reach_back();
            }
            self.steps.push(step);
            if let Some(event) = self.advance(step) {
                events.push(event);
            }
            if matches!(self.phase, Phase::Over { .. } | Phase::Nothing) {
                break;
            }
        }
        events
    }

    /// Whether the pause that was last reported still goes on.
    pub fn in_pause(&self) -> bool {
        matches!(self.phase, Phase::Speaking(under) if under.probed && under.pause_ms > 0)
    }

    /// Lets the pause that was last reported end the turn when it is longer than `pause_ms`; speech that goes on takes it back.
    /// `true`: it has been as long already and the turn is over.
    pub fn end_after(&mut self, pause_ms: u32) -> bool {
        let Phase::Speaking(mut under) = self.phase else { return false };
        if !under.probed || under.pause_ms == 0 {
            return false;
        }
        under.end_after_ms = under.end_after_ms.min(pause_ms);
        self.phase = if under.is_over() { under.over() } else { Phase::Speaking(under) };
        matches!(self.phase, Phase::Over { .. })
    }

    /// Where the speech that was heard last ends, in steps since the turn's beginning: as long as this is the same, so is
    /// [`Endpointer::utterance_so_far`], from the first report of a pause on. `None` before speech started.
    pub fn speech_end(&self) -> Option<usize> {
        match self.phase {
            Phase::Speaking(u) => Some(u.last_speech_step),
            Phase::Over { last_speech_step, .. } => Some(last_speech_step),
            Phase::Waiting { .. } | Phase::Nothing => None,
        }
    }

    /// Time since the caller was last heard, in milliseconds: once the turn is over, the end-point delay.
    pub fn silent_for_ms(&self) -> u32 {
        let loud = match self.phase {
            Phase::Speaking(u) => u.last_loud_step,
            Phase::Over { last_loud_step, .. } => last_loud_step,
            Phase::Waiting { .. } | Phase::Nothing => return 0,
        };
        u32::try_from(self.steps.len().saturating_sub(loud)).unwrap_or(u32::MAX).saturating_mul(STEP_MS)
    }

    /// What was said so far, pre-roll included, without the end of the pause; for reading at a pause. `None` before speech started.
    pub fn utterance_so_far(&self) -> Option<Utterance> {
        let tail = steps_in(TAIL_MS.min(self.spec.pause_work_ms));
        let steps = self.steps.get(..self.speech_end()?.saturating_add(tail).min(self.steps.len()))?;
        Some(self.utterance(steps))
    }

    /// All that was heard, up to now, for reading where there is no pause. `None` before speech started.
    pub fn all_so_far(&self) -> Option<Utterance> {
        self.speech_end()?;
        Some(self.utterance(&self.steps))
    }

    fn utterance(&self, steps: &[Step]) -> Utterance {
        let samples = self.samples.first(steps.len() * self.step_samples);
        Utterance::from_steps(&samples, self.rate, steps).in_language(self.language)
    }

    /// Takes the utterance; the end-pointer starts afresh for another turn, but keeps what it learned of the noise.
    pub fn take_utterance(&mut self) -> Option<Utterance> {
        let utterance = self.utterance_so_far();
        self.forget();
        utterance
    }

    fn forget(&mut self) {
        // Wiped, and its room given back: a line that is only waited on needs none for the last utterance.
        self.samples = Samples::default();
        self.steps.clear();
        self.waited_ms = 0;
        self.phase = Phase::Waiting { run_ms: 0 };
    }

    /// Where speech begins: it had begun a little before the network heard so.
    fn reach_back(&mut self) {
        for before in self.steps.iter_mut().rev().take(LATE_STEPS).take_while(|s| s.open && !s.speech) {
            before.speech = true;
        }
    }

    fn advance(&mut self, step: Step) -> Option<SpeechEvent> {
        match self.phase {
            Phase::Waiting { run_ms } => self.wait(step, run_ms),
            Phase::Speaking(under) => self.go_on(step, under),
            Phase::Over { .. } | Phase::Nothing => None,
        }
    }

    fn wait(&mut self, step: Step, run_ms: u32) -> Option<SpeechEvent> {
        self.waited_ms = self.waited_ms.saturating_add(STEP_MS);
        let run_ms = match (step.speech, step.loud) {
            (true, true) => run_ms + STEP_MS,
            (true, false) => run_ms,
            (false, _) => 0,
        };
        if run_ms >= self.spec.min_speech_ms.max(STEP_MS) {
            let under = Under {
                since_start_ms: run_ms,
                talk_ms: run_ms,
                unbroken_ms: run_ms,
                pause_ms: 0,
                probed: false,
                end_after_ms: self.spec.max_pause_ms,
                resume_ms: 0,
                last_speech_step: self.steps.len(),
                last_loud_step: self.steps.len(),
            };
            self.phase = Phase::Speaking(under);
            return Some(SpeechEvent::SpeechStarted);
        }
        self.phase = Phase::Waiting { run_ms };
        // A run of speech that has begun may still become a turn.
        if self.waited_ms >= self.spec.no_speech_ms && run_ms == 0 {
            self.phase = Phase::Nothing;
            return Some(SpeechEvent::NoSpeech);
        }
        if run_ms == 0 {
            self.trim_pre_roll();
        }
        None
    }

    /// Keeps the last 300 ms.
    fn trim_pre_roll(&mut self) {
        let excess = self.steps.len().saturating_sub(steps_in(PRE_ROLL_MS));
        self.steps.drain(..excess);
        self.samples.drop_first(excess * self.step_samples);
    }

    fn go_on(&mut self, step: Step, mut under: Under) -> Option<SpeechEvent> {
        under.since_start_ms = under.since_start_ms.saturating_add(STEP_MS);
        under.talk_ms = under.talk_ms.saturating_add(STEP_MS);
        under.unbroken_ms = under.unbroken_ms.saturating_add(STEP_MS);
        if step.speech && (under.pause_ms == 0 || under.resume_ms >= RESUME_MIN_MS) {
            under.pause_ms = 0;
            under.resume_ms = 0;
            under.probed = false;
            under.end_after_ms = self.spec.max_pause_ms;
            under.last_speech_step = self.steps.len();
            if step.loud {
                under.last_loud_step = self.steps.len();
            }
        } else {
            under.resume_ms = match (step.speech, step.loud) {
                (true, true) => under.resume_ms + STEP_MS,
                (true, false) => under.resume_ms,
                (false, _) => 0,
            };
            under.pause_ms = under.pause_ms.saturating_add(STEP_MS);
        }
        self.phase = Phase::Speaking(under);
        if under.since_start_ms >= self.spec.max_utterance_ms.min(UTTERANCE_LIMIT_MS) {
            self.phase = under.over();
            return Some(SpeechEvent::Ended(EndReason::TooLong));
        }
        if under.is_over() {
            self.phase = under.over();
            let as_told = under.end_after_ms < self.spec.max_pause_ms;
            return Some(SpeechEvent::Ended(if as_told { EndReason::Enough } else { EndReason::Silence }));
        }
        if under.pause_ms >= self.spec.pause_work_ms && !under.probed {
            under.probed = true;
            under.talk_ms = 0;
            under.unbroken_ms = 0;
            self.phase = Phase::Speaking(under);
            return Some(SpeechEvent::Pause { since_ms: under.pause_ms });
        }
        let long = under.unbroken_ms >= TALK_FROM_MS && self.spec.talk_work_ms > 0;
        if long && under.pause_ms == 0 && under.talk_ms >= self.spec.talk_work_ms {
            under.talk_ms = 0;
            self.phase = Phase::Speaking(under);
            return Some(SpeechEvent::Talk);
        }
        None
    }
}

impl Under {
    /// Never while something is heard that may become speech.
    fn is_over(self) -> bool {
        self.pause_ms > self.end_after_ms && self.resume_ms == 0
    }

    fn over(self) -> Phase {
        Phase::Over { last_speech_step: self.last_speech_step, last_loud_step: self.last_loud_step }
    }
}

fn steps_in(ms: u32) -> usize {
    usize::try_from(ms / STEP_MS).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Something that VAD takes for speech: a tone whose loudness comes and goes like syllables.
    fn speech(rate: SampleRate, ms: u32, amplitude: f32) -> Vec<i16> {
        let n = rate.hz() as usize / 1_000 * ms as usize;
        (0..n)
            .map(|i| {
                let t = i as f32 / rate.hz() as f32;
                let syllable = 0.55 + 0.45 * (t * std::f32::consts::TAU * 4.0).cos();
                ((t * std::f32::consts::TAU * 300.0).sin() * syllable * amplitude) as i16
            })
            .collect()
    }

    fn silence(rate: SampleRate, ms: u32) -> Vec<i16> {
        (0..rate.hz() as usize / 1_000 * ms as usize).map(|i| if i % 3 == 0 { 12 } else { -7 }).collect()
    }

    fn run(ears: &mut Endpointer, rate: SampleRate, samples: &[i16]) -> Vec<(u32, SpeechEvent)> {
        let size = rate.hz() as usize / 50;
        let mut all = Vec::new();
        for (i, chunk) in samples.chunks(size).enumerate() {
            let at = (i as u32 + 1) * 20;
            all.extend(ears.push(&Frame { rate, samples: chunk.to_vec() }).into_iter().map(|e| (at, e)));
        }
        all
    }

    const R: SampleRate = SampleRate::HZ_8000;

    #[test]
    fn a_number_in_groups_is_one_utterance() {
        let mut ears = Endpointer::new(ListenSpec::card(), R);
        let group = speech(R, 1_500, 6_000.0);
        let pause = silence(R, 2_500);
        let call = [silence(R, 800), group.clone(), pause.clone(), group.clone(), pause, group, silence(R, 4_000)].concat();
        let events: Vec<SpeechEvent> = run(&mut ears, R, &call).into_iter().map(|e| e.1).collect();
        assert_eq!(events[0], SpeechEvent::SpeechStarted);
        assert_eq!(events.iter().filter(|e| matches!(e, SpeechEvent::Pause { .. })).count(), 3);
        assert_eq!(*events.last().unwrap(), SpeechEvent::Ended(EndReason::Silence));
        let heard = ears.take_utterance().unwrap();
        assert!((9_800..=10_400).contains(&heard.total_ms), "{heard:?}");
        assert!((4_400..=5_000).contains(&heard.net_speech_ms), "{heard:?}");
        assert_eq!(heard.samples_16k.len(), heard.total_ms as usize * 16);
        assert!(heard.quality.snr_db > 30.0 && heard.quality.clipped_share == 0.0, "{heard:?}");
    }

    #[test]
    fn speech_starts_after_a_tenth_of_a_second_and_a_click_is_no_speech() {
        let mut ears = Endpointer::new(ListenSpec::card(), R);
        let mut line = silence(R, 1_000);
        for sample in &mut line[4_000..4_160] {
            *sample = 15_000 * if *sample > 0 { 1 } else { -1 };
        }
        assert_eq!(run(&mut ears, R, &line), []);
        let events = run(&mut ears, R, &speech(R, 1_000, 6_000.0));
        assert!(matches!(events[..], [(120..=160, SpeechEvent::SpeechStarted)]), "{events:?}");
    }

    #[test]
    fn silence_is_no_speech_once() {
        let mut ears = Endpointer::new(ListenSpec::answer(), R);
        assert_eq!(run(&mut ears, R, &silence(R, 12_000)), [(5_000, SpeechEvent::NoSpeech)]);
        assert!(ears.take_utterance().is_none());
        assert_eq!(run(&mut ears, R, &silence(R, 5_000)), [(5_000, SpeechEvent::NoSpeech)], "listens afresh after it was asked");
    }

    #[test]
    fn a_short_yes_ends_quickly_and_is_whole() {
        for rate in [R, SampleRate::HZ_16000, SampleRate::HZ_48000] {
            let mut ears = Endpointer::new(ListenSpec::answer(), rate);
            let call = [silence(rate, 1_000), speech(rate, 280, 5_000.0), silence(rate, 2_000)].concat();
            let events = run(&mut ears, rate, &call);
            let (at, last) = events.last().unwrap();
            assert_eq!(*last, SpeechEvent::Ended(EndReason::Silence));
            assert!((2_180..=2_400).contains(at), "{at}");
            let heard = ears.take_utterance().unwrap();
            assert!((800..=1_100).contains(&heard.total_ms), "{heard:?}");
        }
    }

    #[test]
    fn a_frame_of_another_rate_is_dropped_and_debug_shows_no_audio() {
        let mut ears = Endpointer::new(ListenSpec::card(), R);
        let other = Frame { rate: SampleRate::HZ_16000, samples: speech(SampleRate::HZ_16000, 1_000, 9_000.0) };
        assert_eq!(ears.push(&other), []);
        assert!(format!("{ears:?}").len() < 100);
    }

    #[test]
    fn a_caller_in_noise_is_still_ended() {
        // noise of -32 dBFS all the time, speech 12 dB above
        let mut state = 1u32;
        let mut noisy = |samples: Vec<i16>| -> Vec<i16> {
            samples
                .into_iter()
                .map(|s| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    s + ((f64::from(state >> 8) / f64::from(1u32 << 24) - 0.5) * 2.0 * 1_400.0) as i16
                })
                .collect()
        };
        let call = [noisy(silence(R, 2_000)), noisy(speech(R, 3_000, 12_000.0)), noisy(silence(R, 4_000))].concat();
        let mut ears = Endpointer::new(ListenSpec::card(), R);
        let events: Vec<SpeechEvent> = run(&mut ears, R, &call).into_iter().map(|e| e.1).collect();
        assert_eq!(events[0], SpeechEvent::SpeechStarted);
        assert_eq!(*events.last().unwrap(), SpeechEvent::Ended(EndReason::Silence));
        assert!(ears.take_utterance().unwrap().total_ms < 4_500);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn pauses_of_up_to_two_and_a_half_seconds_never_end_it(
            groups in proptest::collection::vec((200u32..1_500, 100u32..=2_500, 800f32..20_000.0), 1..6)
        ) {
            let mut ears = Endpointer::new(ListenSpec::card(), R);
            let mut call = silence(R, 500);
            for (ms, pause, amplitude) in &groups {
                call.extend(speech(R, *ms, *amplitude));
                call.extend(silence(R, *pause));
            }
            call.extend(speech(R, 500, 3_000.0));
            let spoken: u32 = groups.iter().map(|g| g.0 + g.1).sum();
            prop_assume!(spoken < 26_000);
            for (at, event) in run(&mut ears, R, &call) {
                prop_assert!(!matches!(event, SpeechEvent::Ended(_) | SpeechEvent::NoSpeech), "{event:?} at {at}");
            }
            prop_assert!(ears.utterance_so_far().is_some());
        }

        #[test]
        fn every_turn_ends_in_time_whatever_is_heard(
            parts in proptest::collection::vec((any::<bool>(), 10u32..4_000, 0f32..32_000.0), 1..40),
            answer in any::<bool>(),
            frame_ms in 1usize..40,
        ) {
            let spec = if answer { ListenSpec::answer() } else { ListenSpec::card() };
            let mut ears = Endpointer::new(spec, R);
            let (mut heard_ms, mut ended) = (0.0, 0);
            let forever = std::iter::repeat_n((true, 4_000, 12_000.0), 20);
            'all: for (talks, ms, amplitude) in parts.into_iter().chain(forever) {
                let samples = if talks { speech(R, ms, amplitude) } else { silence(R, ms) };
                for chunk in samples.chunks(frame_ms * 8) {
                    heard_ms += chunk.len() as f32 / 8.0;
                    for event in ears.push(&Frame { rate: R, samples: chunk.to_vec() }) {
                        if matches!(event, SpeechEvent::Ended(_) | SpeechEvent::NoSpeech) {
                            ended += 1;
                            break 'all;
                        }
                    }
                }
            }
            prop_assert_eq!(ended, 1);
            prop_assert!(heard_ms <= (spec.no_speech_ms + spec.max_utterance_ms + 1_000) as f32);
            if let Some(u) = ears.take_utterance() {
                prop_assert!(u.net_speech_ms <= u.total_ms);
                prop_assert!(u.total_ms <= spec.max_utterance_ms + 2 * PRE_ROLL_MS + 200);
                prop_assert!(u.samples_16k.len() <= 480_000);
            }
        }

        #[test]
        fn any_samples_at_all_are_borne(samples in proptest::collection::vec(any::<i16>(), 0..4_000)) {
            let mut ears = Endpointer::new(ListenSpec::answer(), R);
            for chunk in samples.chunks(97) {
                ears.push(&Frame { rate: R, samples: chunk.to_vec() });
            }
            if let Some(u) = ears.take_utterance() {
                prop_assert!(u.net_speech_ms <= u.total_ms && u.quality.clipped_share <= 1.0);
            }
        }
    }
}
