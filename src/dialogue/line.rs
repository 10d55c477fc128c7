//! What every state of a live call shares: what plays, whether we listen, which deadlines run. States work through a
//! [`Desk`], which lends them the line, the clock's reading, the limits and the list of effects for one step.

use super::app;
use super::approver;
use super::config::DialogueConfig;
use super::effect::{Effect, ListenFor, PlayId};
use super::input::{Caller, DeadlineKind, UtteranceFacts};
use super::prompt::Prompt;
use super::stage::Event;
use crate::clock::Timestamp;
use crate::e164::E164;
use std::time::Duration;

/// How much longer than the first wait for "one moment" the later ones are.
const PATIENCE_GROWS_TIMES: u32 = 5;

/// Who is at the other end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Somebody who calls.
    Caller,
    /// Somebody whom we called: whoever picked up hears less.
    CalledOut,
    /// An app's page, no telephone.
    App,
}

/// The line of a call.
#[derive(Debug)]
pub(super) struct Line {
    started: Timestamp,
    caller: Caller,
    /// The caller has more time for everything.
    slow: bool,
    /// The caller is here to have a voice deleted.
    deleting: bool,
    /// Who is at the other end.
    end: End,
    next_play: u32,
    playing: Option<PlayId>,
    listening: Option<ListenFor>,
    /// What to listen for as soon as the prompt is done (questions without barge-in).
    then_listen: Option<ListenFor>,
    /// One entry a kind of deadline, in the order of [`DeadlineKind::ALL`].
    armed: Vec<(DeadlineKind, Timestamp)>,
}

impl Line {
    pub(super) fn new(started: Timestamp, caller: Caller) -> Self {
        Self {
            started,
            caller,
            slow: false,
            deleting: false,
            end: End::Caller,
            next_play: 1,
            playing: None,
            listening: None,
            then_listen: None,
            armed: Vec::with_capacity(DeadlineKind::ALL.len()),
        }
    }

    /// The line of somebody whom we called at this number.
    pub(super) fn called_out(started: Timestamp, number: E164) -> Self {
        Self { end: End::CalledOut, ..Self::new(started, Caller::Attested(number)) }
    }

    /// The line of an app's page: nobody calls, its back end has named who it is.
    pub(super) fn of_an_app(started: Timestamp) -> Self {
        Self { end: End::App, ..Self::new(started, Caller::Withheld) }
    }

    /// Whether an app's page is on the line.
    pub(super) fn is_app(&self) -> bool {
        self.end == End::App
    }

    /// Whether we placed the call.
    pub(super) fn is_called_out(&self) -> bool {
        self.end == End::CalledOut
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The caller is here to have a voice deleted.
    pub(super) fn delete(&mut self) {
        self.deleting = true;
    }

    pub(super) fn deleting(&self) -> bool {
        self.deleting
    }

    /// How long this wait is for this caller. Only waits for the caller grow, none of ours, and no time for which something is valid.
    fn patient(&self, cfg: &DialogueConfig, kind: DeadlineKind, ms: u32) -> u32 {
        match kind {
            DeadlineKind::Silence | DeadlineKind::Speech | DeadlineKind::NextKey | DeadlineKind::CallLimit if self.slow => {
                ms.saturating_mul(cfg.slow_times.max(1))
            }
            DeadlineKind::Silence
            | DeadlineKind::Speech
            | DeadlineKind::NextKey
            | DeadlineKind::CallLimit
            | DeadlineKind::Work
            | DeadlineKind::Patience
            | DeadlineKind::Reply
            | DeadlineKind::Closing => ms,
        }
    }

    pub(super) fn listening(&self) -> bool {
        self.listening.is_some()
    }

    /// Past this no state is left waiting, whatever deadlines the edge may have lost.
    pub(super) fn hard_end(&self, cfg: &DialogueConfig) -> Timestamp {
        let call_limit_ms = self.patient(cfg, DeadlineKind::CallLimit, cfg.call_limit_ms);
        // After the limit: what is under way, the payment, an offer after it, the last words.
        let offer_ms = cfg.closing_limit_ms.saturating_add(cfg.lookup_wait_ms);
        [call_limit_ms, offer_ms, cfg.score_wait_ms, cfg.payment_wait_ms, cfg.closing_limit_ms]
            .into_iter()
            .fold(self.started, |at, ms| at.plus(millis(ms)))
    }

    /// Listening ended by itself.
    pub(super) fn heard_out(&mut self) {
        self.listening = None;
    }

    /// Whether this is the prompt that plays; it plays no more.
    pub(super) fn prompt_done(&mut self, id: PlayId) -> bool {
        let ours = self.playing == Some(id);
        if ours {
            self.playing = None;
        }
        ours
    }
}

/// What a question came to, one step further.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing yet.
    Waiting,
    /// An utterance.
    Utterance(UtteranceFacts),
    /// Silence, or sounds that were no utterance.
    Nothing,
    /// No matter of listening.
    Other(Event),
}

/// What a state has before it for one step.
pub(super) struct Desk<'a> {
    pub(super) cfg: &'a DialogueConfig,
    pub(super) now: Timestamp,
    pub(super) line: &'a mut Line,
    pub(super) out: &'a mut Vec<Effect>,
}

impl Desk<'_> {
    pub(super) fn push(&mut self, effect: Effect) {
        self.out.push(effect);
    }

    /// Plays a prompt; what plays already is stopped.
    pub(super) fn play(&mut self, prompt: Prompt) {
        self.hush();
        let prompt = match self.line.end {
            End::Caller => prompt,
            End::CalledOut => approver::in_a_call_back(prompt),
            End::App => app::in_an_app(prompt),
        };
        let id = PlayId(self.line.next_play);
        self.line.next_play = self.line.next_play.saturating_add(1);
        self.line.playing = Some(id);
        self.push(Effect::Play { id, prompt });
    }

    /// Stops what plays.
    pub(super) fn hush(&mut self) {
        if self.line.playing.take().is_some() {
            self.push(Effect::StopPlaying);
        }
    }

    /// "One moment", unless the caller hears something already; and again if it takes much longer.
    pub(super) fn one_moment(&mut self) {
        if self.line.playing.is_none() {
            self.play(Prompt::OneMoment);
        }
        self.arm(DeadlineKind::Patience, self.cfg.patience_ms.max(1).saturating_mul(PATIENCE_GROWS_TIMES));
    }

    /// Asks and listens: at once where the caller may barge in, else once the prompt is done.
    pub(super) fn ask(&mut self, prompt: Prompt, listen_for: ListenFor, barge_in: bool) {
        self.rest();
        self.play(prompt);
        if barge_in {
            self.listen(listen_for, true);
        } else {
            self.line.then_listen = Some(listen_for);
        }
    }

    /// Asks for keys; nothing is listened to.
    pub(super) fn ask_keys(&mut self, prompt: Prompt) {
        self.rest();
        self.play(prompt);
    }

    /// The end-pointer gave up while the caller still has time to begin: listens on. Its wait may have started with the
    /// prompt; ours starts when the prompt is done. Tells whether that was so.
    pub(super) fn listen_on(&mut self) -> bool {
        let playing = self.line.playing.is_some();
        if !playing && !self.is_armed(DeadlineKind::Silence) {
            return false;
        }
        if let Some(listen_for) = self.line.listening.clone() {
            self.listen(listen_for, playing);
        }
        true
    }

    fn listen(&mut self, listen_for: ListenFor, barge_in: bool) {
        self.line.listening = Some(listen_for.clone());
        self.push(Effect::Listen { listen_for, barge_in });
    }

    /// Takes a question further: starts the waits, stops the prompt when the caller barges in.
    pub(super) fn hear(&mut self, event: Event) -> Heard {
        match event {
            Event::PromptDone => {
                if let Some(listen_for) = self.line.then_listen.take() {
                    self.listen(listen_for, false);
                }
                self.arm(DeadlineKind::Silence, self.cfg.silence_ms);
                Heard::Waiting
            }
            Event::SpeechStarted => {
                self.hush();
                self.disarm(DeadlineKind::Silence);
                if !self.is_armed(DeadlineKind::Speech) {
                    self.arm(DeadlineKind::Speech, self.cfg.speech_limit_ms);
                }
                Heard::Waiting
            }
            Event::Utterance(facts) => {
                self.rest();
                Heard::Utterance(facts)
            }
            Event::Nothing => {
                self.rest();
                Heard::Nothing
            }
            other @ (Event::Key(_) | Event::NextKeyDue | Event::ReplyDue | Event::Overdue | Event::Told(_)) => {
                Heard::Other(other)
            }
        }
    }

    /// Nothing plays, nothing is listened to, nothing is waited for but the end of the call.
    pub(super) fn rest(&mut self) {
        self.hush();
        self.line.then_listen = None;
        if self.line.listening.take().is_some() {
            self.push(Effect::StopListening);
        }
        for kind in DeadlineKind::ALL {
            if kind != DeadlineKind::CallLimit {
                self.disarm(kind);
            }
        }
    }

    /// Waits for an answer to an effect, saying "one moment" if it takes long.
    pub(super) fn expect_answer(&mut self, within_ms: u32) {
        self.arm(DeadlineKind::Work, within_ms);
        self.arm(DeadlineKind::Patience, self.cfg.patience_ms);
    }

    /// The answer came.
    pub(super) fn answered(&mut self) {
        self.disarm(DeadlineKind::Work);
        self.disarm(DeadlineKind::Patience);
    }

    pub(super) fn arm(&mut self, kind: DeadlineKind, after_ms: u32) {
        let after_ms = self.line.patient(self.cfg, kind, after_ms);
        self.arm_at(kind, self.now.plus(millis(after_ms)));
    }

    /// From now on the caller has more time.
    pub(super) fn slow_down(&mut self) {
        if std::mem::replace(&mut self.line.slow, true) {
            return;
        }
        self.push(Effect::SlowDown);
        let limit_ms = self.line.patient(self.cfg, DeadlineKind::CallLimit, self.cfg.call_limit_ms);
        self.arm_at(DeadlineKind::CallLimit, self.line.started.plus(millis(limit_ms)));
    }

    pub(super) fn arm_at(&mut self, kind: DeadlineKind, at: Timestamp) {
        self.line.armed.retain(|(k, _)| *k != kind);
        self.line.armed.push((kind, at));
        self.push(Effect::SetDeadline { kind, at });
    }

    pub(super) fn disarm(&mut self, kind: DeadlineKind) {
        if self.is_armed(kind) {
            self.line.armed.retain(|(k, _)| *k != kind);
            self.push(Effect::ClearDeadline(kind));
        }
    }

    pub(super) fn is_armed(&self, kind: DeadlineKind) -> bool {
        self.line.armed.iter().any(|(k, _)| *k == kind)
    }

    /// Whether a reported deadline holds. One that was cleared does not; one that comes early is set again, so that no
    /// rounding of clocks makes a held reply early.
    pub(super) fn due(&mut self, kind: DeadlineKind) -> bool {
        let Some((_, at)) = self.line.armed.iter().find(|(k, _)| *k == kind).copied() else { return false };
        if self.now < at {
            self.push(Effect::SetDeadline { kind, at });
            return false;
        }
        self.line.armed.retain(|(k, _)| *k != kind);
        true
    }
}

/// For prompts, which number attempts in a byte.
pub(super) fn nth(n: u32) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

pub(super) fn millis(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}
