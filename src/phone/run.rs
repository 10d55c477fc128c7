//! Plays a script on a leg. It hears like a person: by how loud the line is, not by what the other side's program does.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::digits::{DigitEar, DigitVoice};
use super::hearing::{Heard, Hearing};
use super::script::{Action, Script};
use crate::media::leg::{Key, Leg, LegCommand, LegEnd, LegEvent, Sound};
use crate::media::telephone_event::{KEY_GAP_MS, KEY_TONE_MS};

/// How long the line may take to go down after we have hung up.
pub const HANG_UP_WAIT_MS: u64 = 5_000;

/// What happens, for a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhoneEvent {
    /// Since the call began.
    pub at: Duration,
    /// What.
    pub kind: PhoneEventKind,
}

/// Kinds of happening. Keys are counted, never named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PhoneEventKind {
    /// A step begins; `step` counts from 1.
    Step { step: usize, what: String },
    /// The other side begins to speak.
    HeardSpeech,
    /// The other side has stopped speaking; it spoke for this long.
    HeardSilence { spoke: Duration },
    /// We speak.
    Saying { label: String, lasting: Duration },
    /// We have finished speaking, or were stopped.
    Said { completed: bool },
    /// Keys are being pressed.
    Keys { count: usize },
    /// The call is over.
    Ended(PhoneEnd),
}

/// How the call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhoneEnd {
    /// We hung up.
    Us,
    /// The other side hung up, or the line broke.
    Far(LegEnd),
}

/// A step that could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("step {step} ({what}): {problem}")]
pub struct StepFailure {
    /// From 1.
    pub step: usize,
    /// What it was to do.
    pub what: String,
    /// Why it could not.
    pub problem: String,
}

/// What remains of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhoneReport {
    /// How it ended.
    pub ended_by: PhoneEnd,
    /// Steps that were done.
    pub steps_done: usize,
    /// Steps in the script.
    pub steps: usize,
    /// The step that could not be done, if any.
    pub failure: Option<StepFailure>,
    /// From the first moment to the last.
    pub duration: Duration,
    /// How long the other side spoke in all.
    pub heard_speech: Duration,
    /// What was heard, from the first moment on, with gaps filled; at most `hearing::RECORDING_LIMIT_S`.
    pub received: Sound,
}

impl PhoneReport {
    /// Did every step go as the script says?
    pub fn completed(&self) -> bool {
        self.failure.is_none() && self.steps_done == self.steps
    }
}

/// Plays `script`, telling `observer` what happens. Returns when the call is over.
pub async fn run_script(leg: Leg, script: &Script, observer: impl FnMut(PhoneEvent)) -> PhoneReport {
    let rate = leg.info.rate;
    let start = Instant::now();
    let mut phone = Phone {
        leg,
        start,
        hearing: Hearing::new(rate, start),
        observer,
        ended: None,
        finished: Vec::new(),
        plays: 0,
        waited: None,
    };
    let mut failure = None;
    let mut steps_done = 0;
    for (i, step) in script.steps.iter().enumerate() {
        let what = step.action.describe();
        phone.tell(PhoneEventKind::Step { step: i + 1, what: what.clone() });
        let done = match tokio::time::timeout(step.timeout, phone.act(&step.action)).await {
            Ok(done) => done,
            Err(_elapsed) => Err(format!("not done within {} ms", step.timeout.as_millis())),
        };
        match done {
            Ok(()) => steps_done += 1,
            Err(problem) => {
                failure = Some(StepFailure { step: i + 1, what, problem });
                break;
            }
        }
        // A hang-up that the script did not wait for: whatever steps remain can't be done.
        if phone.ended.is_some() && i + 1 < script.steps.len() {
            let next = script.steps.get(i + 1).map(|s| s.action.describe()).unwrap_or_default();
            if script.steps.get(i + 1).is_some_and(|s| matches!(s.action, Action::WaitHangUp | Action::HangUp)) {
                continue;
            }
            failure = Some(StepFailure { step: i + 2, what: next, problem: phone.why_ended() });
            break;
        }
    }
    phone.hang_up().await;
    let ended_by = phone.ended.unwrap_or(PhoneEnd::Us);
    phone.hearing.until(Instant::now());
    let duration = start.elapsed();
    let Phone { hearing, .. } = phone;
    let (received, heard_speech) = hearing.into_recording();
    PhoneReport { ended_by, steps_done, steps: script.steps.len(), failure, duration, heard_speech, received }
}

struct Phone<F> {
    leg: Leg,
    start: Instant,
    hearing: Hearing,
    observer: F,
    ended: Option<PhoneEnd>,
    /// Sounds that have been played to their end or stopped since anybody looked.
    finished: Vec<(u64, bool)>,
    plays: u64,
    /// How prompts were waited for last: for so much silence after so much speech.
    waited: Option<(Duration, Duration)>,
}

impl<F: FnMut(PhoneEvent)> Phone<F> {
    fn tell(&mut self, kind: PhoneEventKind) {
        (self.observer)(PhoneEvent { at: self.start.elapsed(), kind });
    }

    fn why_ended(&self) -> String {
        match self.ended {
            Some(PhoneEnd::Us) | None => "we have hung up".to_owned(),
            Some(PhoneEnd::Far(LegEnd::Caller)) => "the other side hung up".to_owned(),
            Some(PhoneEnd::Far(LegEnd::Abandoned)) => "the call was never connected".to_owned(),
            Some(PhoneEnd::Far(LegEnd::MediaTimeout)) => "nothing more was heard from the other side".to_owned(),
            Some(PhoneEnd::Far(LegEnd::Failed)) => "the line failed".to_owned(),
        }
    }

    /// Does one step. Dropped when its time is over.
    async fn act(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::WaitPrompt { silence, at_least } => self.wait_prompt(*silence, *at_least).await,
            Action::Wait(duration) => {
                let end = Instant::now() + *duration;
                self.listen_until(|_, now| if now >= end { Ok(()) } else { Err(Some(end)) }).await
            }
            Action::Say { audio, label, barge_in } => {
                if let Some(after) = barge_in {
                    self.hearing.forget();
                    self.listen_until(|h, now| h.speaking_for(now, *after)).await?;
                }
                self.say(audio, label).await
            }
            Action::RepeatDigits { voice, if_asked } => self.repeat_digits(voice, *if_asked).await,
            Action::Keys(keys) => self.press(keys).await,
            Action::Hold(duration) => {
                self.command(LegCommand::Hold).await?;
                let end = Instant::now() + *duration;
                self.listen_until(|_, now| if now >= end { Ok(()) } else { Err(Some(end)) }).await?;
                self.command(LegCommand::Resume).await
            }
            Action::WaitHangUp => {
                while self.ended.is_none() {
                    self.hear_next(None).await;
                }
                match self.ended {
                    Some(PhoneEnd::Far(LegEnd::Caller)) => Ok(()),
                    Some(_) | None => Err(self.why_ended()),
                }
            }
            Action::HangUp => {
                self.hang_up().await;
                Ok(())
            }
        }
    }

    async fn wait_prompt(&mut self, silence: Duration, at_least: Duration) -> Result<(), String> {
        self.waited = Some((silence, at_least));
        self.hearing.forget();
        self.listen_until(|h, now| h.spoke_and_stopped(now, silence, at_least)).await
    }

    async fn repeat_digits(&mut self, voice: &DigitVoice, if_asked: bool) -> Result<(), String> {
        loop {
            let heard = self.hearing.lately();
            // A moment of arithmetic, beside the thread that carries the line, which we go on hearing: its queue is short.
            let mut asked = tokio::task::spawn_blocking(move || DigitEar::of_the_service().map(|ear| ear.asked(&heard)));
            let asked = loop {
                tokio::select! {
                    asked = &mut asked => break asked,
                    event = self.leg.events.recv(), if self.ended.is_none() => self.heard(event),
                }
            };
            let asked = asked.unwrap_or_else(|_panicked| Err("what was heard could not be looked at".to_owned()))?;
            if asked.is_empty() {
                return if if_asked { Ok(()) } else { Err("no digits were asked for at the end of what was heard".to_owned()) };
            }
            self.say(&Arc::new(voice.say(&asked)), &format!("(the {} digits that were asked for)", asked.len())).await?;
            match self.waited.filter(|_| if_asked) {
                // A call that ends asks for nothing more.
                Some((silence, at_least)) => match self.wait_prompt(silence, at_least).await {
                    Err(_) if self.ended.is_some() => return Ok(()),
                    heard => heard?,
                },
                None => return Ok(()),
            }
        }
    }

    /// Listens until `done` says so; its error is when to look again if nothing is heard.
    async fn listen_until(&mut self, done: impl Fn(&Hearing, Instant) -> Result<(), Option<Instant>>) -> Result<(), String> {
        loop {
            match done(&self.hearing, Instant::now()) {
                Ok(()) => return Ok(()),
                Err(_) if self.ended.is_some() => return Err(self.why_ended()),
                Err(look_again) => self.hear_next(look_again).await,
            }
        }
    }

    async fn say(&mut self, audio: &Arc<Sound>, label: &str) -> Result<(), String> {
        self.plays += 1;
        let id = self.plays;
        let lasting = audio.rate.duration_of(audio.samples.len());
        self.command(LegCommand::Play { id, audio: audio.clone() }).await?;
        self.tell(PhoneEventKind::Saying { label: label.to_owned(), lasting });
        let completed = loop {
            if let Some((_, completed)) = self.finished.iter().find(|(played, _)| *played == id) {
                break *completed;
            }
            if self.ended.is_some() {
                return Err(self.why_ended());
            }
            self.hear_next(None).await;
        };
        self.finished.clear();
        self.tell(PhoneEventKind::Said { completed });
        if completed { Ok(()) } else { Err("it was not played to its end".to_owned()) }
    }

    async fn press(&mut self, keys: &[Key]) -> Result<(), String> {
        self.tell(PhoneEventKind::Keys { count: keys.len() });
        for key in keys {
            self.command(LegCommand::SendKey(*key)).await?;
        }
        // Media presses them one after another: a hang-up on their heels would swallow the last ones.
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let pressed = Instant::now() + Duration::from_millis(u64::from(KEY_TONE_MS + KEY_GAP_MS)).saturating_mul(count);
        self.listen_until(|_, now| if now >= pressed { Ok(()) } else { Err(Some(pressed)) }).await
    }

    /// Commands go through a short queue: meanwhile we go on hearing, or both sides could wait for each other.
    async fn command(&mut self, command: LegCommand) -> Result<(), String> {
        loop {
            if self.ended.is_some() {
                return Err(self.why_ended());
            }
            let commands = self.leg.commands.clone();
            let event = tokio::select! {
                biased;
                place = commands.reserve() => {
                    return match place {
                        Ok(place) => {
                            place.send(command);
                            Ok(())
                        }
                        Err(_closed) => Err(self.why_ended()),
                    };
                }
                event = self.leg.events.recv() => event,
            };
            self.heard(event);
        }
    }

    /// The next thing from the line, or nothing by `deadline`.
    async fn hear_next(&mut self, deadline: Option<Instant>) {
        let event = match deadline {
            Some(at) => match tokio::time::timeout_at(at, self.leg.events.recv()).await {
                Ok(event) => event,
                Err(_elapsed) => {
                    let heard = self.hearing.until(Instant::now());
                    return self.tell_heard(heard);
                }
            },
            None => self.leg.events.recv().await,
        };
        self.heard(event);
    }

    fn heard(&mut self, event: Option<LegEvent>) {
        match event {
            Some(LegEvent::Frame(frame)) => {
                let heard = self.hearing.frame(Instant::now(), &frame);
                self.tell_heard(heard);
            }
            // Keys from the other side mean nothing to a caller.
            Some(LegEvent::Key(_) | LegEvent::Held | LegEvent::Resumed | LegEvent::Answered | LegEvent::Transfer(_)) => {}
            Some(LegEvent::PlayEnded { id, completed }) => self.finished.push((id, completed)),
            Some(LegEvent::Ended(end)) => self.end(PhoneEnd::Far(end)),
            // Closed without a word: the line is gone. After our own hang-up, `ended` is set already.
            None => self.end(PhoneEnd::Far(LegEnd::Failed)),
        }
    }

    fn tell_heard(&mut self, heard: Option<Heard>) {
        match heard {
            Some(Heard::Speech) => self.tell(PhoneEventKind::HeardSpeech),
            Some(Heard::Silence { spoke }) => self.tell(PhoneEventKind::HeardSilence { spoke }),
            None => {}
        }
    }

    fn end(&mut self, end: PhoneEnd) {
        if self.ended.is_none() {
            self.ended = Some(end);
            self.tell(PhoneEventKind::Ended(end));
        }
    }

    async fn hang_up(&mut self) {
        if self.ended.is_some() {
            return;
        }
        let gone = self.command(LegCommand::HangUp).await;
        // The other side may have been quicker: what is still in the queue tells.
        let drained = async {
            while self.ended.is_none() {
                match self.leg.events.recv().await {
                    None => break,
                    Some(LegEvent::Ended(end)) => self.end(PhoneEnd::Far(end)),
                    Some(_late) => {}
                }
            }
        };
        let _at_last = tokio::time::timeout(Duration::from_millis(HANG_UP_WAIT_MS), drained).await;
        self.end(if gone.is_ok() { PhoneEnd::Us } else { PhoneEnd::Far(LegEnd::Failed) });
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::Step;
    use super::*;
    use crate::media::frame::SampleRate;
    use crate::media::in_process::{LineOptions, connect};
    use crate::media::leg::{Attestation, CallerClaim, LegInfo};
    use crate::media::wav::level_dbfs;

    fn line() -> (Leg, Leg) {
        let info = LegInfo {
            protocol_id: "test".into(),
            caller: CallerClaim::Withheld,
            attestation: Attestation::Absent,
            called: String::new(),
            peer: String::new(),
            trunk: String::new(),
            transport: "none",
            secure: false,
            setup_ms: 0,
            rate: SampleRate::HZ_48000,
            codec: "none",
        };
        let line = connect(info, SampleRate::HZ_48000, LineOptions::default());
        (line.service, line.phone)
    }

    fn tone(ms: u32) -> Arc<Sound> {
        let samples = (0..ms * 16).map(|i| if i / 16 % 2 == 0 { 8_000 } else { -8_000 }).collect();
        Arc::new(Sound { rate: SampleRate::HZ_16000, samples })
    }

    async fn play(leg: &Leg, ms: u32) {
        leg.commands.send(LegCommand::Play { id: 1, audio: tone(ms) }).await.unwrap();
    }

    #[derive(Default)]
    struct Took {
        keys: usize,
        loud_frames: usize,
        first_loud: Option<Duration>,
        end: Option<LegEnd>,
    }

    /// Listens until so many keys and loud frames have come, or the line is down.
    async fn take(leg: &mut Leg, keys: usize, loud_frames: usize) -> Took {
        let (start, mut took) = (Instant::now(), Took::default());
        while (took.keys < keys || took.loud_frames < loud_frames) && took.end.is_none() {
            match leg.events.recv().await {
                Some(LegEvent::Frame(f)) if level_dbfs(&f.samples) > -30.0 => {
                    took.loud_frames += 1;
                    took.first_loud.get_or_insert(start.elapsed());
                }
                Some(
                    LegEvent::Frame(_)
                    | LegEvent::PlayEnded { .. }
                    | LegEvent::Held
                    | LegEvent::Resumed
                    | LegEvent::Answered
                    | LegEvent::Transfer(_),
                ) => {}
                Some(LegEvent::Key(_)) => took.keys += 1,
                Some(LegEvent::Ended(end)) => took.end = Some(end),
                None => break,
            }
        }
        took
    }

    #[tokio::test(start_paused = true)]
    async fn a_patient_caller_waits_presses_speaks_and_hears_the_goodbye() {
        let (mut service, phone) = line();
        let service = async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            play(&service, 1_500).await;
            let took = take(&mut service, 3, 40).await;
            play(&service, 400).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            service.commands.send(LegCommand::HangUp).await.unwrap();
            took
        };
        let script = Script::new([
            Step::wait_prompt(700),
            Step::keys("12#"),
            Step::say("number", tone(1_000)),
            Step::wait_prompt(300),
            Action::WaitHangUp.into(),
        ]);
        let mut events = Vec::new();
        let (took, report) = tokio::join!(service, run_script(phone, &script, |e| events.push(e)));
        assert_eq!(report.failure, None);
        assert!(report.completed() && report.ended_by == PhoneEnd::Far(LegEnd::Caller), "{:?}", report.ended_by);
        assert!(took.keys == 3 && took.loud_frames >= 40);
        assert!(
            (Duration::from_millis(1_800)..Duration::from_millis(2_000)).contains(&report.heard_speech),
            "{:?}",
            report.heard_speech
        );
        // The prompt lasts from 0.3 to 1.8 s; with 0.7 s of silence the keys come at 2.5 s.
        let keys_at = events.iter().find(|e| matches!(e.kind, PhoneEventKind::Keys { count: 3 })).unwrap().at;
        assert!((Duration::from_millis(2_450)..Duration::from_millis(2_700)).contains(&keys_at), "{keys_at:?}");
        assert_eq!(report.received.rate, SampleRate::HZ_48000);
        let recorded = report.received.rate.duration_of(report.received.samples.len());
        assert!(recorded + Duration::from_millis(200) > report.duration, "{recorded:?} of {:?}", report.duration);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_takes_too_long_fails_and_the_phone_hangs_up() {
        let (mut service, phone) = line();
        let script = Script::new([Step::wait_prompt(700).within(Duration::from_secs(2)), Step::keys("1")]);
        let (took, report) = tokio::join!(take(&mut service, 1, 1), run_script(phone, &script, |_| {}));
        let failure = report.failure.unwrap();
        assert!(failure.step == 1 && failure.problem.contains("2000 ms"), "{failure}");
        assert_eq!((report.ended_by, report.steps_done, took.end), (PhoneEnd::Us, 0, Some(LegEnd::Caller)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hang_up_that_the_script_did_not_expect_is_a_failure() {
        let (service, phone) = line();
        let service = async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(service);
        };
        let script = Script::new([Step::wait_prompt(700)]);
        let ((), report) = tokio::join!(service, run_script(phone, &script, |_| {}));
        assert_eq!(report.ended_by, PhoneEnd::Far(LegEnd::Caller));
        assert!(report.failure.unwrap().to_string().contains("the other side hung up"));
    }

    #[tokio::test(start_paused = true)]
    async fn barging_in_speaks_over_the_prompt() {
        let (mut service, phone) = line();
        let service = async move {
            play(&service, 5_000).await;
            let took = take(&mut service, 0, 20).await;
            take(&mut service, 1, usize::MAX).await; // to the end of the call
            took
        };
        let barge = Action::Say { audio: tone(500), label: "stop".into(), barge_in: Some(Duration::from_millis(500)) };
        let script = Script::new([barge.into(), Action::HangUp.into()]);
        let (took, report) = tokio::join!(service, run_script(phone, &script, |_| {}));
        assert!(report.completed(), "{:?}", report.failure);
        let at = took.first_loud.unwrap();
        assert!((Duration::from_millis(450)..Duration::from_millis(700)).contains(&at), "{at:?}");
    }
}
