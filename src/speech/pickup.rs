//! Who picked up a call that we placed: a person, a machine, the network, or nobody that can be heard.
//!
//! People say a word or two and wait for the other side; machines go on. That is how dialling systems have told them apart for
//! twenty years (Asterisk's `AMD()`, whose options these are, under other names); what is heard here is a network's word on voices
//! and not loudness. Beside it tones are listened for: a beep, a fax, and what networks say in tones (ITU-T E.180, E.182).
//!
//! A verdict for a person can still be taken back by a beep; a verdict for anything else never becomes a person. Whoever has money to
//! speak of speaks to [`Answerer::Person`] only.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::tone::{HOP, Tone, ToneEar};
use super::vad::{Vad, VoiceActivity};
use crate::media::frame::{Frame, SampleRate};
use crate::media::resample::Resampler;

/// One moment, in milliseconds: [`HOP`] samples at 8 kHz.
const MOMENT_MS: u32 = 20;
/// Less voice than this is a click, a cough, the edge of a tone.
const VOICE_LEAST_MS: u32 = 120;
/// So little voice is forgotten after so long without more.
const VOICE_FORGOTTEN_MS: u32 = 400;
/// A beep lasts at least this long. The shortest that machines send are 200 ms.
const BEEP_LEAST_MS: u32 = 140;
/// Longer than this is no beep: a line that howls, a modem.
const BEEP_MOST_MS: u32 = 2_000;
/// Where beeps lie, in hertz. FreeSWITCH's detector looks from 440 to 2,000 Hz.
const BEEP_HZ: std::ops::RangeInclusive<f32> = 350.0..=2_000.0;
/// Networks' ringing, busy and congestion tones lie below this (E.180: 400 to 450 Hz, up to 620 Hz in North America).
const PROGRESS_MOST_HZ: f32 = 650.0;
/// A tone wanders no more than this, in hertz; two tones at once, which beat, a little more.
const STEADY_HZ: f32 = 10.0;
const STEADY_DOUBLE_HZ: f32 = 30.0;
/// And its level no more than this.
const STEADY_DB: f32 = 6.0;
/// No other tone comes so soon after a beep: else they are a sequence.
const BEEP_ALONE_MS: u32 = 100;
/// What is so much quieter than the beep is no part of it, in dB.
const BESIDE_DB: f32 = 15.0;
/// A look sees 64 ms, so a tone shows for so much longer than it lasts.
const SMEAR_MS: u32 = 20;
/// Voice activity lingers behind a tone for so long: its hangover, and what a look sees.
const LINGER_MS: u32 = 180;
/// The special information tone (E.180 section 9): three frequencies, each within 50 Hz, 330 ± 70 ms, gaps up to 30 ms. The gap here
/// includes the moments in which a look sees two of them.
const SPECIAL_HZ: [f32; 3] = [950.0, 1_400.0, 1_800.0];
const SPECIAL_OFF_HZ: f32 = 55.0;
const SPECIAL_LEAST_MS: u32 = 200;
const SPECIAL_GAP_MS: u32 = 160;
/// Busy and congestion tones (E.180 sections 6 and 7): 300 to 1,100 ms from one to the next. Some of each is left for measuring.
const BUSY_CYCLE_MS: std::ops::RangeInclusive<u32> = 260..=1_160;
/// So many alike in a row are a cadence …
const BUSY_BURSTS: usize = 3;
/// … if their frequency is one, in hertz, and it is quiet between them but for so much: an even voice has vowels that look like tones.
const BUSY_OFF_HZ: f32 = 15.0;
const BUSY_LOUD_MS: u32 = 40;
/// What a look sees, and a telephone's filters, ring on for so long.
const GAP_BEGINS_MS: u32 = 60;
/// The answer tone of fax machines and modems (ITU-T V.25: 2,100 ± 15 Hz).
const FAX_HZ: std::ops::RangeInclusive<f32> = 2_080.0..=2_120.0;
const FAX_LEAST_MS: u32 = 1_000;

/// `[speech.pickup]`. Defaults are measured: `voicepay eval pickup`, DESIGN.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PickupConfig {
    /// A greeting longer than this is a machine's, in milliseconds from its first sound to its last.
    pub greeting_max_ms: u32,
    /// A shorter greeting, and then so much silence: a person waits for us, in milliseconds.
    pub after_greeting_ms: u32,
    /// Nothing was heard for this long after the answer: nobody is there, in milliseconds.
    pub silence_ms: u32,
    /// The verdict falls by then, in milliseconds after the answer.
    pub deadline_ms: u32,
    /// How long the beep of a machine is waited for where a message could be left, in milliseconds after the answer.
    pub beep_wait_ms: u32,
}

impl Default for PickupConfig {
    fn default() -> Self {
        Self { greeting_max_ms: 1_800, after_greeting_ms: 800, silence_ms: 5_000, deadline_ms: 9_000, beep_wait_ms: 45_000 }
    }
}

impl PickupConfig {
    /// What types can't say: the key under `speech`, and what is wrong.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let rule = |ok: bool, key: &'static str, what: &'static str| if ok { Ok(()) } else { Err((key, what)) };
        rule((300..=10_000).contains(&self.greeting_max_ms), "pickup.greeting_max_ms", "must be 300 to 10000")?;
        rule(
            (300..=5_000).contains(&self.after_greeting_ms),
            "pickup.after_greeting_ms",
            "must be 300 to 5000: below that a pause in a sentence would be a person's",
        )?;
        rule((1_000..=60_000).contains(&self.silence_ms), "pickup.silence_ms", "must be 1000 to 60000")?;
        rule(
            self.deadline_ms <= 120_000
                && self.deadline_ms
                    >= self.silence_ms.saturating_add(self.greeting_max_ms).saturating_add(self.after_greeting_ms),
            "pickup.deadline_ms",
            "must be at least silence_ms, greeting_max_ms and after_greeting_ms together, and at most 120000",
        )?;
        rule(
            (self.deadline_ms..=600_000).contains(&self.beep_wait_ms),
            "pickup.beep_wait_ms",
            "must be at least deadline_ms and at most 600000",
        )
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answerer {
    /// Somebody who said something short and waits.
    Person,
    /// Voicemail, an answering machine, a menu, a fax.
    Machine,
    /// An exchange that says why the call does not reach anybody.
    Network,
    /// The line is open and nothing is heard.
    Silent,
    /// Time is up, and what was heard fits nothing.
    Unknown,
}

/// What a verdict was made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// A greeting no longer than `greeting_max_ms`, then silence.
    ShortGreeting,
    /// A longer one.
    LongGreeting,
    /// A beep.
    Beep,
    /// 2,100 Hz.
    FaxTone,
    /// 950, 1,400, 1,800 Hz.
    SpecialInformationTone,
    /// A low tone again and again.
    BusyTone,
    /// No voice within `silence_ms`.
    Silence,
    /// `deadline_ms`.
    Deadline,
}

impl Sign {
    /// Whose sign it is.
    pub fn of(self) -> Answerer {
        match self {
            Self::ShortGreeting => Answerer::Person,
            Self::LongGreeting | Self::Beep | Self::FaxTone => Answerer::Machine,
            Self::SpecialInformationTone | Self::BusyTone => Answerer::Network,
            Self::Silence => Answerer::Silent,
            Self::Deadline => Answerer::Unknown,
        }
    }
}

/// A verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pickup {
    /// Who.
    pub by: Answerer,
    /// On what grounds.
    pub sign: Sign,
    /// From the answer to the verdict, in milliseconds of what was heard; before the answer 0.
    pub after_ms: u32,
    /// How long the greeting was by then, in milliseconds from its first sound to its last.
    pub greeting_ms: u32,
}

/// A machine's beep, once it is over: what is said from now on is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Beep {
    /// Its frequency.
    pub hz: f32,
    /// How long it lasted, in milliseconds, give or take 30.
    pub lasted_ms: u32,
    /// When it ended, in milliseconds after the answer.
    pub ended_ms: u32,
}

/// Listens to one call that we placed, from its first audio on, and goes on listening for a beep after the verdict.
pub struct PickupEar {
    resampler: Option<Resampler>,
    held: Zeroizing<Vec<i16>>,
    vad: Vad,
    tones: ToneEar,
    judge: Judge,
}

impl std::fmt::Debug for PickupEar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PickupEar({:?})", self.judge.pickup)
    }
}

impl PickupEar {
    /// For a leg's frames. What comes before [`PickupEar::answered`] is early media: only what the network says in tones counts.
    pub fn new(config: PickupConfig, voices: VoiceActivity, rate: SampleRate) -> Self {
        Self {
            // All of it is of the telephone's band.
            resampler: (rate != SampleRate::HZ_8000).then(|| Resampler::new(rate, SampleRate::HZ_8000)),
            held: Zeroizing::new(Vec::new()),
            vad: Vad::new(voices, SampleRate::HZ_8000),
            tones: ToneEar::new(),
            judge: Judge::new(config),
        }
    }

    /// The call was answered: time counts from here.
    pub fn answered(&mut self) {
        self.judge.answered();
    }

    /// Takes what was heard; frames may have any length.
    pub fn push(&mut self, frame: &Frame) {
        match &mut self.resampler {
            Some(resampler) => resampler.push(&frame.samples, &mut self.held),
            None => self.held.extend_from_slice(&frame.samples),
        }
        let whole = self.held.len() / HOP * HOP;
        let ready: Zeroizing<Vec<i16>> = Zeroizing::new(self.held.drain(..whole).collect());
        for block in ready.chunks_exact(HOP) {
            let steps = self.vad.push(block);
            let level_dbfs = steps.iter().map(|step| step.level_dbfs).fold(f32::NEG_INFINITY, f32::max);
            self.judge.hear(steps.iter().any(|step| step.speech), level_dbfs, self.tones.look(block));
        }
    }

    /// The verdict, once there is one.
    pub fn pickup(&self) -> Option<Pickup> {
        self.judge.pickup
    }

    /// The last beep that is over.
    pub fn beep(&self) -> Option<Beep> {
        self.judge.beep
    }

    /// The verdict as it stands when no more time is left, for lines that send nothing at all.
    pub fn at_last(&self) -> Pickup {
        let judge = &self.judge;
        judge.pickup.unwrap_or_else(|| judge.found(if judge.voice.is_one() { Sign::Deadline } else { Sign::Silence }))
    }
}

/// The verdict's own state: one moment after another, no audio.
#[derive(Debug)]
struct Judge {
    config: PickupConfig,
    /// What was heard so far.
    at_ms: u32,
    answered_ms: Option<u32>,
    voice: Voice,
    run: Option<Run>,
    /// Tones that are over, oldest first.
    bursts: VecDeque<Run>,
    /// The last of them may be a beep: nobody knows yet whether another tone follows it.
    beep_pending: bool,
    pickup: Option<Pickup>,
    beep: Option<Beep>,
}

/// The greeting so far.
#[derive(Clone, Copy, Debug, Default)]
struct Voice {
    from_ms: u32,
    until_ms: u32,
    net_ms: u32,
}

impl Voice {
    fn is_one(&self) -> bool {
        self.net_ms >= VOICE_LEAST_MS
    }

    fn lasted_ms(&self) -> u32 {
        self.until_ms - self.from_ms
    }
}

/// A tone for as long as it holds still.
#[derive(Clone, Copy, Debug)]
struct Run {
    tone: Tone,
    /// As looks show it, which is [`SMEAR_MS`] longer than it lasts.
    from_ms: u32,
    until_ms: u32,
    /// Moments that voice activity took for a voice meanwhile.
    voice_ms: u32,
    /// Once it is over: what was nearly as loud and no tone, until the next.
    loud_after_ms: u32,
}

impl Run {
    fn is_continued_by(&self, tone: &Tone) -> bool {
        let off_hz = if self.tone.double || tone.double { STEADY_DOUBLE_HZ } else { STEADY_HZ };
        // A double tone that beats shows as a single one now and then.
        let alike = self.tone.double == tone.double || tone.hz.max(self.tone.hz) < PROGRESS_MOST_HZ;
        alike && (tone.hz - self.tone.hz).abs() <= off_hz && (tone.level_dbfs - self.tone.level_dbfs).abs() <= STEADY_DB
    }

    fn lasted_ms(&self) -> u32 {
        (self.until_ms - self.from_ms).saturating_sub(SMEAR_MS)
    }

    /// Held still for so long that it is no moment of speech.
    fn is_sure(&self) -> bool {
        self.lasted_ms() >= BEEP_LEAST_MS
    }

    fn is_near(&self, hz: f32) -> bool {
        !self.tone.double && (self.tone.hz - hz).abs() <= SPECIAL_OFF_HZ
    }
}

impl Judge {
    fn new(config: PickupConfig) -> Self {
        Self {
            config,
            at_ms: 0,
            answered_ms: None,
            voice: Voice::default(),
            run: None,
            bursts: VecDeque::new(),
            beep_pending: false,
            pickup: None,
            beep: None,
        }
    }

    fn answered(&mut self) {
        self.answered_ms = Some(self.at_ms);
        self.voice = Voice::default();
        self.bursts.clear();
        self.beep_pending = false;
        // What the network said before somebody answered after all was about another place that it tried.
        self.pickup = None;
    }

    /// One moment: whether voice activity hears a voice in it, how loud it is, and the tone that it is nearly nothing but.
    fn hear(&mut self, voice: bool, level_dbfs: f32, tone: Option<Tone>) {
        self.at_ms = self.at_ms.saturating_add(MOMENT_MS);
        self.follow_tone(tone);
        if let (None, Some(last)) = (&self.run, self.bursts.back_mut()) {
            let is_over = self.at_ms - last.until_ms > GAP_BEGINS_MS;
            last.loud_after_ms += if is_over && level_dbfs > last.tone.level_dbfs - BESIDE_DB { MOMENT_MS } else { 0 };
        }
        self.follow_voice(voice);
        self.judge_tones();
        if self.answered_ms.is_some() && self.pickup.is_none() {
            self.judge_voice();
        }
    }

    fn follow_tone(&mut self, tone: Option<Tone>) {
        if let (Some(run), Some(tone)) = (&mut self.run, &tone)
            && run.is_continued_by(tone)
        {
            run.until_ms = self.at_ms;
            // The first looks see the tone begin: it is as loud as it becomes.
            run.tone.level_dbfs = run.tone.level_dbfs.max(tone.level_dbfs);
            return;
        }
        // A single moment without it, in noise, does not end it.
        if tone.is_none() && self.run.is_some_and(|run| self.at_ms - run.until_ms <= MOMENT_MS) {
            return;
        }
        if let Some(run) = self.run.take() {
            if run.is_sure() {
                self.bursts.push_back(run);
                if self.bursts.len() > BUSY_BURSTS {
                    self.bursts.pop_front();
                }
                self.beep_pending = true;
            } else {
                // It was a voice after all.
                self.add_voice(run.voice_ms);
                if let Some(last) = self.bursts.back_mut() {
                    last.loud_after_ms += run.until_ms - run.from_ms;
                }
            }
        }
        self.run =
            tone.map(|tone| Run { tone, from_ms: self.at_ms - MOMENT_MS, until_ms: self.at_ms, voice_ms: 0, loud_after_ms: 0 });
    }

    fn follow_voice(&mut self, voice: bool) {
        let lingers = self.bursts.back().is_some_and(|tone| self.at_ms - tone.until_ms <= LINGER_MS);
        match &mut self.run {
            Some(run) if voice => run.voice_ms += MOMENT_MS,
            None if voice && !lingers => self.add_voice(MOMENT_MS),
            Some(_) | None => {
                if !self.voice.is_one() && self.at_ms - self.voice.until_ms > VOICE_FORGOTTEN_MS {
                    self.voice = Voice::default();
                }
            }
        }
    }

    /// `ms` of voice up to now.
    fn add_voice(&mut self, ms: u32) {
        if ms == 0 || self.answered_ms.is_none() {
            return;
        }
        if self.voice.net_ms == 0 {
            self.voice.from_ms = self.at_ms.saturating_sub(ms);
        }
        self.voice.net_ms += ms;
        self.voice.until_ms = self.at_ms;
    }

    fn judge_tones(&mut self) {
        let is_fax = |run: &Run| FAX_HZ.contains(&run.tone.hz) && run.lasted_ms() >= FAX_LEAST_MS;
        if self.answered_ms.is_some() && self.run.as_ref().is_some_and(is_fax) {
            self.settle(Sign::FaxTone);
        }
        if self.is_special() {
            self.beep_pending = false;
            self.settle(Sign::SpecialInformationTone);
        }
        if self.is_busy() {
            self.beep_pending = false;
            self.settle(Sign::BusyTone);
        }
        let Some(last) = self.bursts.back().copied().filter(|_| self.beep_pending) else { return };
        let followed =
            |run: &Run| run.tone.level_dbfs > last.tone.level_dbfs - BESIDE_DB && run.until_ms - run.from_ms > MOMENT_MS;
        if self.run.as_ref().is_some_and(followed) && self.at_ms - last.until_ms <= BEEP_ALONE_MS {
            self.beep_pending = false;
        } else if self.at_ms - last.until_ms > BEEP_ALONE_MS {
            self.beep_pending = false;
            self.judge_beep(&last);
        }
    }

    fn judge_beep(&mut self, tone: &Run) {
        // The last of a network's tones is no beep.
        let Some(answered_ms) = self.answered_ms.filter(|_| self.pickup.is_none_or(|p| p.by != Answerer::Network)) else {
            return;
        };
        // Without a greeting before it a low tone may be the exchange's: it must come again to say something.
        let least_hz = if self.voice.is_one() { *BEEP_HZ.start() } else { PROGRESS_MOST_HZ };
        let is_beep = !tone.tone.double
            && tone.lasted_ms() <= BEEP_MOST_MS
            && BEEP_HZ.contains(&tone.tone.hz)
            && tone.tone.hz >= least_hz
            && tone.from_ms >= answered_ms;
        if is_beep {
            let ended_ms = (tone.until_ms - answered_ms).saturating_sub(SMEAR_MS);
            self.beep = Some(Beep { hz: tone.tone.hz, lasted_ms: tone.lasted_ms(), ended_ms });
            self.settle(Sign::Beep);
        }
    }

    /// The three tones one after another, the third of them still sounding.
    fn is_special(&self) -> bool {
        let mut heard = self.bursts.iter().rev().take(2).rev().chain(&self.run);
        let (Some(first), Some(second), Some(third), [low, middle, high]) =
            (heard.next(), heard.next(), heard.next(), SPECIAL_HZ)
        else {
            return false;
        };
        let gaps = [(first, second), (second, third)].iter().all(|(a, b)| b.from_ms.saturating_sub(a.until_ms) <= SPECIAL_GAP_MS);
        gaps && first.is_near(low) && second.is_near(middle) && third.is_near(high) && third.lasted_ms() >= SPECIAL_LEAST_MS
    }

    /// A low tone three times, at the pace of a busy or congestion tone.
    fn is_busy(&self) -> bool {
        let Some(last) = self.bursts.back() else { return false };
        let alike = |run: &Run| run.tone.hz <= PROGRESS_MOST_HZ && (run.tone.hz - last.tone.hz).abs() <= BUSY_OFF_HZ;
        let paced = |(a, b): (&Run, &Run)| BUSY_CYCLE_MS.contains(&(b.from_ms - a.from_ms)) && a.loud_after_ms <= BUSY_LOUD_MS;
        self.bursts.len() == BUSY_BURSTS
            && self.bursts.iter().all(alike)
            && self.bursts.iter().zip(self.bursts.iter().skip(1)).all(paced)
    }

    fn judge_voice(&mut self) {
        let since_answer = self.at_ms - self.answered_ms.unwrap_or(self.at_ms);
        if self.voice.is_one() {
            if self.voice.lasted_ms() > self.config.greeting_max_ms {
                self.settle(Sign::LongGreeting);
            } else if self.at_ms - self.voice.until_ms >= self.config.after_greeting_ms && self.run.is_none() {
                self.settle(Sign::ShortGreeting);
            }
        } else if since_answer >= self.config.silence_ms && self.bursts.is_empty() && self.voice.net_ms == 0 {
            self.settle(Sign::Silence);
        }
        if since_answer >= self.config.deadline_ms {
            self.settle(Sign::Deadline);
        }
    }

    fn found(&self, sign: Sign) -> Pickup {
        let after_ms = self.at_ms - self.answered_ms.unwrap_or(self.at_ms);
        Pickup { by: sign.of(), sign, after_ms, greeting_ms: self.voice.lasted_ms() }
    }

    /// The first verdict stands; only a person's is taken back, by what no person sends.
    fn settle(&mut self, sign: Sign) {
        if self.pickup.is_none_or(|p| p.by == Answerer::Person && sign.of() == Answerer::Machine) {
            self.pickup = Some(self.found(sign));
        }
    }
}

#[cfg(test)]
mod tests;
