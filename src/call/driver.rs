//! One call, from its leg to its verdict. The loop reads top to bottom: something happens, the dialogue is asked, its
//! effects are carried out in the order given.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ahead::{Ahead, Findings, Lanes};
use super::app_call::{self, AppCall};
use super::caller::{from, signed, who_calls};
use super::desk::Failed;
use super::errand::{Ear, PlacedFor};
use super::hearing::{self, Hearing};
use super::page::{PageState, PageTeller};
use super::recording::Recorder;
use super::services::Services;
use super::timeline::{Timeline, Who};
use super::trace::{CallTrace, payment_word};
use super::work::{Done, Kept};
use super::{CallRecord, KEY_PRESSED, figures};
use crate::clock::Timestamp;
use crate::decision::replay::StoredEvidence;
use crate::dialogue::{
    self, CallVerdict, Caller, DeadlineKind, DialogueConfig, Effect, Errand, IdentityOutcome, Input, Keypress, ListenFor, PlayId,
    State,
};
use crate::e164::E164;
use crate::ids::{CallId, CustomerId, IntentId, PayeeId};
use crate::language::Language;
use crate::media::leg::{Key, Leg, LegCommand, LegEvent, Sound};
use crate::prompts::Pace;
use crate::secret::SecretBytes;
use crate::speech::endpoint::Endpointer;
use crate::speech::pickup::PickupEar;
use crate::speech::turn::{Spoken, TurnEvent};
use crate::store;
use crate::telemetry::metrics::metrics;
use crate::voiceprint::{Embedding, Enrolment};

/// How long a leg may take to accept a command before the call is taken to be broken, in milliseconds.
const COMMAND_WAIT_MS: u64 = 1_000;

/// Inputs that one event may lead to, before anything else is looked at; a dialogue that makes more is broken.
const CASCADE_LIMIT_INPUTS: usize = 64;

/// Takes one call from its leg to its verdict, and leaves its record in the store.
pub async fn run_call(id: CallId, leg: Leg, services: Arc<Services>) -> CallRecord {
    let mut call = Call::new(id, leg, services);
    call.live(Beginning::Caller).await;
    call.close().await
}

/// The same for a payment that an app's page confirms by voice; the page is told what happens.
pub async fn run_app_call(id: CallId, leg: Leg, app: AppCall, page: PageTeller, services: Arc<Services>) -> CallRecord {
    let mut call = Call::new(id, leg, services);
    call.page = Some(page);
    call.live(Beginning::App(Box::new(app))).await;
    call.close().await
}

/// The same for a call that we placed, once a person is known to have picked up (`app::outbound`); `ear`: what heard that.
pub async fn run_errand(id: CallId, leg: Leg, ear: PickupEar, errand: Errand, services: Arc<Services>) -> CallRecord {
    let mut call = Call::new(id, leg, services);
    call.placed(ear, &errand);
    call.live(Beginning::Errand(Box::new(errand))).await;
    call.close().await
}

/// How a call begins.
enum Beginning {
    /// Somebody calls.
    Caller,
    /// We called, and a person picked up.
    Errand(Box<Errand>),
    /// An app's page calls.
    App(Box<AppCall>),
}

/// What one call's task holds.
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) services: Arc<Services>,
    pub(super) timeline: Timeline,
    pub(super) trace: CallTrace,
    pub(super) recorder: Option<Recorder>,
    pub(super) payment: Option<(IntentId, &'static str)>,
    pub(super) jobs: JoinSet<Done>,
    /// Early work of this call: one piece of each kind at a time, so that nobody's pauses keep others from being heard.
    pub(super) lanes: Lanes,
    /// Who the last look-up was for: the calling number and whether somebody vouches for it.
    pub(super) looked_up: (Option<E164>, bool),
    /// The last utterance, which the dialogue's next question is about, and what is known of it. Gone when the next turn begins.
    pub(super) findings: Option<Arc<Findings>>,
    /// The last utterance that was listened to as a card number: it is scored once the voice is accepted, perhaps only after
    /// fresh digits.
    pub(super) card: Option<Arc<Findings>>,
    /// What is being worked out while the caller pauses.
    pub(super) ahead: Option<Ahead>,
    /// The voice that was last scored: the "yes" is compared with it.
    pub(super) voice: Option<Embedding>,
    /// The voice that said fresh digits last, and for how long.
    pub(super) fresh: Option<(Embedding, u32)>,
    pub(super) enrolment: Enrolment,
    pub(super) invite: Option<zeroize::Zeroizing<String>>,
    /// The one-time code that was sent last.
    pub(super) code: Option<SecretBytes>,
    /// Who calls.
    pub(super) caller: Caller,
    /// Whether the calling number led to the customer, and no keyed one.
    pub(super) nominated: bool,
    slow: bool,
    pub(super) peer: String,
    pub(super) leg: Leg,
    state: State,
    pub(super) config: DialogueConfig,
    pub(super) deadlines: HashMap<DeadlineKind, Timestamp>,
    /// Since when the caller has us on hold: until the end of it no deadline but the call's own comes.
    pub(super) held: Option<Instant>,
    /// Somebody whom we called for the caller.
    pub(super) person: Option<Box<Leg>>,
    pub(super) hearing: Option<Hearing>,
    /// Of a call that we placed: whether it is a machine after all.
    pub(super) ear: Option<Ear>,
    pub(super) placed_for: Option<PlacedFor>,
    /// Of an app's page: what it confirms, and the page itself.
    pub(super) app: Option<AppCall>,
    pub(super) page: Option<PageTeller>,
    /// Turns of listening so far: names the one that a reading belongs to.
    pub(super) turns: u64,
    /// Between turns: they know the line's noise.
    ears: Option<Endpointer>,
    pub(super) payee_clips: HashMap<PayeeId, Arc<Sound>>,
    started: Instant,
    pub(super) started_at: Timestamp,
    turn_ended: Option<Instant>,
    pub(super) verdict: Option<CallVerdict>,
    /// What each verdict on a voice and a number was made on.
    pub(super) evidence: Vec<StoredEvidence>,
    pub(super) scored_number: bool,
    pub(super) customer: Option<CustomerId>,
    /// What is spoken: the service's own language until the customer is known.
    pub(super) language: Language,
    pub(super) calling: Option<E164>,
}

impl Call {
    fn new(id: CallId, leg: Leg, services: Arc<Services>) -> Self {
        let started_at = services.clock.now();
        Self {
            timeline: Timeline::start(id.clone(), services.watchers.clone()),
            trace: CallTrace::default(),
            recorder: Recorder::begin(services.recording.as_ref(), id.as_str(), leg.info.rate),
            payment: None,
            jobs: JoinSet::new(),
            lanes: Lanes::new(),
            looked_up: (None, false),
            findings: None,
            card: None,
            ahead: None,
            voice: None,
            fresh: None,
            enrolment: Enrolment::new(services.voice.clone()),
            invite: None,
            code: None,
            caller: Caller::Withheld,
            nominated: false,
            slow: false,
            peer: leg.info.peer.clone(),
            leg,
            state: State::new(),
            config: services.dialogue_config(),
            deadlines: HashMap::new(),
            held: None,
            person: None,
            hearing: None,
            ear: None,
            placed_for: None,
            app: None,
            page: None,
            turns: 0,
            ears: None,
            payee_clips: HashMap::new(),
            started: Instant::now(),
            started_at,
            turn_ended: None,
            verdict: None,
            evidence: Vec::new(),
            scored_number: false,
            customer: None,
            language: services.default_language,
            calling: None,
            id,
            services,
        }
    }

    /// The wall clock at the start plus the time that passed since: never goes back within a call, and follows tokio's paused
    /// clock in tests.
    pub(super) fn now(&self) -> Timestamp {
        self.started_at.plus(self.started.elapsed())
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    async fn live(&mut self, beginning: Beginning) {
        let caller = who_calls(&self.leg.info, &self.services.default_country);
        self.calling = caller.number().cloned();
        self.caller = caller.clone();
        if let Err(error) = self.services.off_clock(self.services.desk.record_start(&self.row(None))).await {
            tracing::error!(call = %self.id, %error, "the call's beginning could not be recorded: it is not taken");
            self.verdict = Some(CallVerdict::ServiceTrouble);
            return;
        }
        match beginning {
            Beginning::Caller => {
                let calls = format!("calls {} {} ({})", self.leg.info.called, from(&caller), self.leg.info.codec);
                self.timeline.add(Who::Caller, calls);
                if let Some(signed) = signed(self.leg.info.attestation) {
                    self.timeline.add(Who::Check, signed);
                }
                self.step(Input::Started { caller }).await;
            }
            Beginning::App(app) => {
                self.timeline.add(Who::Caller, format!("confirms a payment by an app's page ({})", self.leg.info.codec));
                let input = self.bound(*app).await;
                self.step(input).await;
            }
            Beginning::Errand(errand) => {
                self.timeline.add(Who::Caller, format!("picks up {:?} ({})", errand.number, self.leg.info.codec));
                self.step(Input::CalledOut(errand)).await;
            }
        }
        while self.verdict.is_none() {
            let counts = |kind: DeadlineKind| self.held.is_none() || kind == DeadlineKind::CallLimit;
            let next_deadline = self
                .deadlines
                .iter()
                .filter(|(kind, _)| counts(**kind))
                .min_by_key(|(_, at)| **at)
                .map(|(kind, at)| (*kind, *at));
            let until = next_deadline.map(|(_, at)| self.started + at.since(self.started_at));
            tokio::select! {
                event = self.leg.events.recv() => self.on_leg(event).await,
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => self.on_done(done).await,
                () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    if let Some((kind, _)) = next_deadline {
                        self.deadlines.remove(&kind);
                        self.step(Input::Deadline(kind)).await;
                    }
                }
            }
        }
    }

    async fn on_leg(&mut self, event: Option<LegEvent>) {
        match event {
            Some(LegEvent::Frame(frame)) => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.frame(&frame);
                }
                if let Some(machine) = self.beeped(&frame) {
                    return self.step(machine).await;
                }
                let Some(hearing) = &mut self.hearing else { return };
                for event in hearing.push(&frame) {
                    self.on_heard(event).await;
                }
                self.work_ahead();
            }
            Some(LegEvent::Key(key)) => {
                self.timeline.add(Who::Caller, KEY_PRESSED);
                let press = match key {
                    Key::Digit(d) => Keypress::Digit(d),
                    Key::Star => Keypress::Star,
                    Key::Pound => Keypress::Pound,
                };
                self.step(Input::Key(press)).await;
            }
            Some(LegEvent::PlayEnded { id, completed }) => {
                if let (Ok(id), true) = (u32::try_from(id), completed) {
                    self.step(Input::PromptDone(PlayId(id))).await;
                }
            }
            Some(LegEvent::Held) => {
                self.page_away(true);
                self.held();
            }
            Some(LegEvent::Resumed) => {
                self.page_away(false);
                self.resumed();
            }
            Some(LegEvent::Transfer(news)) => {
                if let Some(input) = self.on_transfer(news) {
                    self.step(input).await;
                }
            }
            Some(LegEvent::Answered) => {} // of calls that we place
            Some(LegEvent::Ended(how)) => {
                self.timeline.add(Who::Caller, format!("is gone ({how:?})"));
                self.step(Input::HungUp).await;
            }
            None => self.step(Input::HungUp).await,
        }
    }

    async fn on_heard(&mut self, event: TurnEvent) {
        match event {
            TurnEvent::Started => self.step(Input::SpeechStarted).await,
            TurnEvent::Paused { pause, so_far } => self.ahead = Some(Ahead::new(pause, so_far)),
            TurnEvent::WentOn => self.ahead = None,
            TurnEvent::Over(spoken) => self.turn_over(spoken).await,
            TurnEvent::Nothing => {
                self.stop_hearing();
                self.step(Input::NoSpeech).await;
            }
        }
    }

    async fn turn_over(&mut self, spoken: Spoken) {
        let listened_for = self.hearing.as_ref().map(Hearing::listen_for);
        // Words need no length; a voice does. At enrolment the job that takes the utterance says so itself.
        let least_speech_ms = match listened_for {
            Some(ListenFor::CardNumber { .. } | ListenFor::Counting) => self.services.voice.min_net_speech_ms,
            Some(ListenFor::Challenge { .. } | ListenFor::Code { .. }) => self.config.challenge.min_net_speech_ms,
            Some(ListenFor::EnrolDigits { .. } | ListenFor::Answer) | None => 0,
        };
        let is_card = matches!(listened_for, Some(ListenFor::CardNumber { .. }));
        let Spoken { utterance, end_point_delay_ms, why } = spoken;
        let ahead = self.ahead.take().filter(|a| Arc::ptr_eq(&a.findings.utterance, &utterance));
        self.stop_hearing();
        if let Some(recorder) = &mut self.recorder {
            recorder.heard(utterance.net_speech_ms);
        }
        self.turn_ended = Some(Instant::now());
        self.page_heard();
        let facts = hearing::facts(&utterance, least_speech_ms);
        self.timeline.add_with(
            Who::Caller,
            format!("speaks for {:.1} s ({:.1} s of it speech)", seconds(utterance.total_ms), seconds(utterance.net_speech_ms)),
            figures([
                ("net_speech_ms", utterance.net_speech_ms.into()),
                ("total_ms", utterance.total_ms.into()),
                ("snr_db", utterance.quality.snr_db.into()),
                ("end_point_delay_ms", end_point_delay_ms.into()),
                ("ended_by", format!("{why:?}").into()),
            ]),
        );
        let findings = ahead.map_or_else(|| Findings::new(utterance), Ahead::stands);
        self.card = is_card.then(|| Arc::clone(&findings)).or_else(|| self.card.take());
        self.remember(&findings);
        self.findings = Some(findings);
        self.step(Input::Utterance(facts)).await;
    }

    async fn on_done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let done = match done {
            Ok(done) => done,
            // The caller went on speaking: its answer is of no more use.
            Err(given_up) if given_up.is_cancelled() => return,
            // A job that panicked gave no answer: fail closed.
            Err(_panicked) => return self.step(Input::ServiceTrouble).await,
        };
        for (who, what, numbers) in done.lines {
            let since = self.turn_ended.map(|t| t.elapsed());
            let mut numbers = numbers;
            if let Some(since) = since {
                numbers.insert("since_end_point_ms".into(), u64::try_from(since.as_millis()).unwrap_or(u64::MAX).into());
            }
            self.timeline.add_with(who, what, numbers);
        }
        match done.kept {
            Kept::Nothing => {}
            Kept::Voice(embedding) => self.voice = Some(*embedding),
            Kept::Fresh { embedding, net_speech_ms } => {
                self.voice = Some((*embedding).clone());
                self.fresh = Some((*embedding, net_speech_ms));
            }
            // The job saw that it agrees with the earlier takes, and only one job runs at a time.
            Kept::Take(take) => drop(self.enrolment.add(*take)),
            Kept::Payees(clips) => self.payee_clips.extend(clips),
            Kept::Invite(code) => self.invite = Some(code),
            Kept::Code(code) => self.code = Some(code),
            // Too late is too late: dropping the leg hangs up.
            Kept::Person(leg) => self.person = self.state.connecting().then_some(leg),
            Kept::Ahead { moment: (turn, pause), question, ran } => {
                if let Some(ahead) = self.ahead.as_mut().filter(|a| turn == self.turns && a.pause == pause) {
                    match ran {
                        Some(readiness) => {
                            if let Some(spoken) = self.hearing.as_mut().and_then(|h| h.read(pause, readiness)) {
                                self.turn_over(spoken).await;
                            }
                        }
                        None => ahead.did_not_run(question),
                    }
                }
            }
        }
        if let Some(input) = done.input {
            self.step(input).await;
        }
    }

    /// One thing happened: asks the dialogue, carries out what it wants, and goes on with whatever that led to at once.
    async fn step(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        for _ in 0..CASCADE_LIMIT_INPUTS {
            let Some(input) = inputs.pop_front() else { return };
            if self.verdict.is_some() {
                return;
            }
            if let Input::Identity(IdentityOutcome::Known(known)) | Input::AppCall(known) = &input {
                let by = if self.app.is_some() { "app session" } else { "number" };
                self.timeline.add(Who::Check, format!("the {by} nominates {}", known.customer));
                self.customer = Some(known.customer.clone());
                self.services.registry.nominate(&self.id, &known.customer);
                self.language = known.language;
            }
            self.note(&input);
            let mut effects = Vec::new();
            let state = std::mem::take(&mut self.state);
            self.state = dialogue::handle(&self.config, state, self.now(), input, &mut effects);
            for effect in effects {
                if let Some(follow_up) = self.carry_out(effect).await {
                    inputs.push_back(follow_up);
                }
            }
        }
        tracing::error!(call = %self.id, "the dialogue does not come to rest");
        self.verdict = Some(CallVerdict::ServiceTrouble);
    }

    /// For the trace, the tape and the records: what the dialogue is told.
    fn note(&mut self, input: &Input) {
        let now_ms = self.elapsed_ms();
        self.trace.input(now_ms, input);
        if let Some(recorder) = &mut self.recorder {
            recorder.input(input);
        }
        if let Input::Payment(outcome) = input {
            let word = payment_word(outcome);
            metrics().payments.inc([word]);
            if let Some((_, outcome)) = &mut self.payment {
                *outcome = word;
            }
        }
    }

    pub(super) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn carry_out(&mut self, effect: Effect) -> Option<Input> {
        self.trace.effect(self.elapsed_ms(), &effect);
        match effect {
            Effect::Play { id, prompt } => {
                let book = self.services.prompts.book(self.language);
                self.timeline.add(Who::Service, book.text(&prompt));
                if let Some(page) = &self.page {
                    app_call::tell_prompt(page, book, self.language, &prompt);
                }
                let clip = prompt.payee().and_then(|p| self.payee_clips.get(&p.id));
                let pace = if self.slow { Pace::Slow } else { Pace::Usual };
                let audio = book.sound(&prompt, clip.map(AsRef::as_ref), self.leg.info.rate, pace);
                if let Some(recorder) = &mut self.recorder {
                    recorder.play(u64::from(id.0), &prompt, &audio);
                }
                return self.command(LegCommand::Play { id: u64::from(id.0), audio }).await;
            }
            Effect::StopPlaying => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.stop_playing();
                }
                return self.command(LegCommand::StopPlaying).await;
            }
            Effect::Listen { listen_for, barge_in } => {
                self.stop_hearing();
                if let Some(recorder) = &mut self.recorder {
                    recorder.listen(&listen_for);
                }
                self.findings = None;
                self.turns += 1;
                let (rate, ears) = (self.leg.info.rate, self.ears.take());
                let (speech, activity) = (&self.services.speech, &self.services.activity);
                let hearing = Hearing::begin(listen_for, barge_in, speech, activity, rate, ears, self.slow);
                self.hearing = Some(hearing.in_language(self.language));
                self.page_state(PageState::Listening);
            }
            Effect::StopListening => self.stop_hearing(),
            Effect::SetDeadline { kind, at } => {
                self.deadlines.insert(kind, at);
            }
            Effect::ClearDeadline(kind) => {
                self.deadlines.remove(&kind);
            }
            Effect::HangUp(verdict) => self.verdict = Some(verdict),
            Effect::Transfer => return self.transfer().await,
            Effect::Errand(effect) => return self.errand(effect).await,
            Effect::LookUp { caller, attested, customer_number } => {
                self.looked_up = (caller.clone(), attested);
                self.nominated = customer_number.is_none();
                self.look_up(caller, attested, customer_number);
            }
            Effect::ScoreVoice { customer } => self.score_voice(customer),
            Effect::DrawChallenge { customer, length } => self.draw_challenge(customer, length),
            Effect::ScoreChallenge { customer, digits } => self.score_challenge(customer, digits),
            Effect::FollowVoice { customer, voice, unblemished } => self.follow_voice(customer, &voice, unblemished),
            Effect::ReadNumber { accepted, customer, cards } => {
                self.scored_number = true;
                self.read_number(accepted, customer, cards);
            }
            Effect::CompareKeyed { accepted, customer, cards, digits } => {
                self.scored_number = true;
                self.compare_keyed(accepted, customer, cards, digits);
            }
            Effect::ReadAnswer { voice } => self.read_answer(voice),
            Effect::SendCode { customer: _, request } => self.send_code(request),
            Effect::ScoreCode { customer, request: _ } => self.score_code(customer),
            Effect::CheckCode { customer: _, request, given } => self.check_code(request, given),
            Effect::GrantMandate(grant) => self.grant_mandate(&grant),
            Effect::DeleteVoice { customer, consent } => self.delete_voice(customer, consent),
            Effect::SlowDown => self.slow = true,
            Effect::RedeemInvite { customer, code } => self.redeem_invite(customer, &code),
            Effect::EnrolAdd { customer: _, digits } => self.enrol_add(digits),
            Effect::EnrolFinish { customer, consent } => self.enrol_finish(customer, consent),
            // This changes what the next call sees: it is durable before anything else is done.
            Effect::RecordFailure { customer, caller, attested, factor } => {
                self.timeline.add(Who::Check, "a factor failed; counted");
                metrics().factor_failures.inc([store::Factor::from(factor).as_str()]);
                let failed = Failed { customer: &customer, caller: caller.as_ref(), attested, factor, trunk: &self.peer };
                let limit = self.config.failures_24h_limit_tries;
                let kept = self.services.desk.record_failure(&self.id, failed, limit, self.now());
                if let Err(error) = self.services.off_clock(kept).await {
                    tracing::error!(call = %self.id, %error, "a failed factor could not be counted: the call ends");
                    return Some(Input::ServiceTrouble);
                }
            }
            Effect::KeepEvidence(evidence) => self.evidence.push(*evidence),
            Effect::RecordSuccess { customer } => {
                if let Err(error) =
                    self.services.off_clock(self.services.desk.record_success(&self.id, &customer, self.now())).await
                {
                    // The hand-over behind it writes an audit row of its own with the same evidence.
                    tracing::error!(call = %self.id, %error, "a success could not be noted");
                }
            }
            Effect::Notify { customer, notice } => {
                if let Err(error) =
                    self.services.off_clock(self.services.desk.notify(&self.id, &customer, notice, self.now())).await
                {
                    tracing::error!(call = %self.id, %error, "a notice could not be put in the outbox");
                }
            }
            Effect::Charge(charge) => return self.hand_over(*charge).await,
        }
        None
    }

    fn stop_hearing(&mut self) {
        self.ahead = None;
        if let Some(recorder) = &mut self.recorder {
            recorder.stop_listening();
        }
        if let Some(hearing) = self.hearing.take() {
            self.ears = Some(hearing.end());
        }
    }

    pub(super) async fn command(&mut self, command: LegCommand) -> Option<Input> {
        let sent = tokio::time::timeout(Duration::from_millis(COMMAND_WAIT_MS), self.leg.commands.send(command)).await;
        match sent {
            Ok(Ok(())) => None,
            // The leg is gone: its last event says so, or nothing will; either way the caller is.
            Ok(Err(_)) | Err(_) => Some(Input::HungUp),
        }
    }
}

fn seconds(ms: u32) -> f32 {
    Duration::from_millis(u64::from(ms)).as_secs_f32()
}
