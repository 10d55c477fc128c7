//! A one-time code, where the terms ask for one, and wherever a mandate stands for the card's number: sent once voice and number (or fresh
//! digits) hold, given by voice or by keypad, and used up before anything is read back (or, to an app's page, charged).
//!
//! Spoken, it is judged like fresh digits: words and voice must both hold. Keyed, it is compared by its digest. Whatever does not hold is a
//! wrong try at the code and a failed factor of the call, answered in the one shape of all refusals. The code itself is never known here.

use zeroize::Zeroizing;

use super::advice;
use super::closing::{self, close};
use super::confirm;
use super::effect::{CallVerdict, CodeBy, CodeGiven, Effect, Factor, ListenFor};
use super::input::{ChallengeHeard, CodeChecked, CodeSent, DeadlineKind, Keypress};
use super::judging::{self, Proven, Reply};
use super::line::{Desk, Heard, nth};
use super::payer::{Draft, Payer};
use super::prompt::{Again, Prompt};
use super::stage::{Event, Stage, Told};
use crate::clock::Timestamp;
use crate::decision::replay::Outcome;
use crate::decision::{Tightening, VoiceVerdict, judge_challenge};
use crate::secret::SecretBytes;

/// Digits of a one-time code.
pub(super) const CODE_DIGITS: usize = 6;

/// A payer of whom everything holds but the code.
#[derive(Debug)]
struct Owing {
    payer: Payer,
    proven: Proven,
    /// Codes sent in this call.
    sent: u32,
    /// How often this code was asked for.
    asked: u32,
    silences: u32,
}

/// A code is being sent.
#[derive(Debug)]
pub(super) struct SendingCode {
    owing: Box<Owing>,
    why: Again,
}

/// It is asked for.
#[derive(Debug)]
pub(super) struct AskingCode {
    owing: Box<Owing>,
}

/// It is being keyed.
pub(super) struct KeyingCode {
    owing: Box<Owing>,
    digits: Zeroizing<Vec<u8>>,
}

/// What was said is being scored.
#[derive(Debug)]
pub(super) struct ScoringCode {
    owing: Box<Owing>,
    heard_at: Timestamp,
}

/// It is being used up, or a wrong try counted.
#[derive(Debug)]
pub(super) struct CheckingCode {
    owing: Box<Owing>,
    heard_at: Timestamp,
    /// How it was given; `None`: it was not, and whatever comes back accepts nothing.
    by: Option<CodeBy>,
}

/// Sends a code where one is due, else goes on at once.
pub(super) fn or_read_back(desk: &mut Desk<'_>, payer: Payer, proven: Proven) -> Stage {
    if payer.request.asks.needs_code() {
        return Box::new(Owing { payer, proven, sent: 0, asked: 0, silences: 0 }).send(desk, Again::First);
    }
    confirm::or_charge(desk, payer, proven)
}

impl Owing {
    /// Sends a code, which voids the one before; or refuses, if there were enough of them.
    fn send(mut self: Box<Self>, desk: &mut Desk<'_>, why: Again) -> Stage {
        desk.rest();
        if self.sent >= desk.cfg.code_limit_sends {
            return judging::hold(desk, desk.now, Reply::Refuse);
        }
        self.sent = self.sent.saturating_add(1);
        self.asked = 0;
        let (customer, request) = (self.payer.person.customer.clone(), self.payer.request.id.clone());
        desk.push(Effect::SendCode { customer, request });
        desk.expect_answer(desk.cfg.lookup_wait_ms);
        SendingCode { owing: self, why }.into()
    }

    /// Something that could not be judged: no try at the code.
    fn unclear(mut self: Box<Self>, desk: &mut Desk<'_>, why: Again) -> Stage {
        if self.payer.person.unclear(desk.cfg) {
            return closing::not_completed(desk);
        }
        AskingCode { owing: self }.ask(desk, why)
    }

    fn check(self: Box<Self>, desk: &mut Desk<'_>, given: CodeGiven, by: Option<CodeBy>, heard_at: Timestamp) -> Stage {
        let (customer, request) = (self.payer.person.customer.clone(), self.payer.request.id.clone());
        desk.push(Effect::CheckCode { customer, request, given });
        // One wait for all that one utterance leads to.
        if !desk.is_armed(DeadlineKind::Work) {
            desk.expect_answer(desk.cfg.lookup_wait_ms);
        }
        CheckingCode { owing: self, heard_at, by }.into()
    }
}

impl SendingCode {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::CodeSent(outcome)) => {
                desk.answered();
                match outcome {
                    CodeSent::Sent => AskingCode { owing: self.owing }.ask(desk, self.why),
                    CodeSent::NoWay | CodeSent::Enough => close(desk, CallVerdict::Refused, Prompt::NotByPhone),
                    CodeSent::Trouble => closing::service_trouble(desk),
                }
            }
            Event::Overdue => closing::service_trouble(desk),
            Event::PromptDone
            | Event::Key(_)
            | Event::SpeechStarted
            | Event::Utterance(_)
            | Event::Nothing
            | Event::NextKeyDue
            | Event::ReplyDue
            | Event::Told(_) => self.into(),
        }
    }
}

impl AskingCode {
    /// No barge-in: our own voice must not end up in what is compared with the payer's. Keys may come at once.
    pub(super) fn ask(mut self, desk: &mut Desk<'_>, why: Again) -> Stage {
        self.owing.asked = self.owing.asked.saturating_add(1);
        let prompt = Prompt::AskCode { sent: nth(self.owing.sent), attempt: nth(self.owing.asked), why };
        desk.ask(prompt, ListenFor::Code { length: CODE_DIGITS }, false);
        self.into()
    }

    pub(super) fn on(mut self, desk: &mut Desk<'_>, event: Event) -> Stage {
        let prompt_done = matches!(event, Event::PromptDone);
        match desk.hear(event) {
            Heard::Waiting => {
                if prompt_done {
                    // A message takes its time to arrive and to be read.
                    desk.arm(DeadlineKind::Silence, desk.cfg.code_wait_ms);
                }
                self.into()
            }
            Heard::Utterance(facts) => match advice::unfit(facts, desk.cfg.challenge.min_net_speech_ms) {
                None => {
                    let (customer, request) = (self.owing.payer.person.customer.clone(), self.owing.payer.request.id.clone());
                    desk.push(Effect::ScoreCode { customer, request });
                    desk.expect_answer(desk.cfg.score_wait_ms);
                    ScoringCode { owing: self.owing, heard_at: desk.now }.into()
                }
                Some(why) => self.owing.unclear(desk, why),
            },
            Heard::Nothing if self.owing.silences >= desk.cfg.silence_limit_reprompts => closing::not_completed(desk),
            Heard::Nothing => {
                self.owing.silences = self.owing.silences.saturating_add(1);
                self.ask(desk, Again::Silence)
            }
            Heard::Other(Event::Key(Keypress::Digit(d))) => {
                desk.rest();
                KeyingCode { owing: self.owing, digits: Zeroizing::new(Vec::with_capacity(CODE_DIGITS)) }.push(desk, d)
            }
            Heard::Other(Event::Key(Keypress::Pound)) => self.owing.send(desk, Again::First),
            Heard::Other(_) => self.into(),
        }
    }
}

impl KeyingCode {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Key(Keypress::Digit(d)) => self.push(desk, d),
            Event::Key(Keypress::Pound) | Event::NextKeyDue => {
                desk.rest();
                match self.digits.as_slice() {
                    [0] => closing::person(desk),
                    // Too few digits are a slip, no try: every code has six.
                    [..] => self.owing.unclear(desk, Again::NotUnderstood),
                }
            }
            Event::Key(Keypress::Star)
            | Event::PromptDone
            | Event::SpeechStarted
            | Event::Utterance(_)
            | Event::Nothing
            | Event::ReplyDue
            | Event::Overdue
            | Event::Told(_) => self.into(),
        }
    }

    fn push(mut self, desk: &mut Desk<'_>, digit: u8) -> Stage {
        self.digits.push(digit);
        if self.digits.len() < CODE_DIGITS {
            desk.arm(DeadlineKind::NextKey, desk.cfg.next_key_ms);
            return self.into();
        }
        desk.rest();
        let code = SecretBytes::new(std::mem::take(&mut *self.digits));
        self.owing.check(desk, CodeGiven::Keyed(code), Some(CodeBy::Keyed), desk.now)
    }
}

impl std::fmt::Debug for KeyingCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyingCode").field("owing", &self.owing).finish_non_exhaustive()
    }
}

impl ScoringCode {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::CodeScored(Ok(heard))) => self.judge(desk, heard),
            Event::Told(Told::CodeScored(Err(trouble))) => match closing::ending_for(trouble) {
                Some(end) => judging::hold(desk, self.heard_at, Reply::End(end)),
                None => self.unsure(desk),
            },
            Event::Overdue => closing::busy(desk),
            Event::PromptDone
            | Event::Key(_)
            | Event::SpeechStarted
            | Event::Utterance(_)
            | Event::Nothing
            | Event::NextKeyDue
            | Event::ReplyDue
            | Event::Told(_) => self.into(),
        }
    }

    fn judge(mut self, desk: &mut Desk<'_>, heard: ChallengeHeard) -> Stage {
        let ChallengeHeard { voice, content } = heard;
        // Due by its nature: kept so, it is judged so again.
        let known = Tightening { challenge_due: true, ..self.owing.payer.known(desk, Some(&voice)) };
        // What was accepted of this call's voice; whether it may go on leaning on that is judged anew.
        let first = self.owing.proven.voice_score().clone();
        let verdict = judge_challenge(&desk.cfg.policy, &first, voice.score.clone(), &content, &known);
        let person = &mut self.owing.payer.person;
        person.draft = Some(Draft { voice: first, challenge: Some((voice.score, content)), digits_alone: false, known });
        match verdict {
            VoiceVerdict::Accepted(_) => {
                person.decided(desk, None, Outcome::NumberUnknown);
                self.owing.check(desk, CodeGiven::Spoken, Some(CodeBy::Spoken), self.heard_at)
            }
            VoiceVerdict::Inconclusive | VoiceVerdict::StepUp(_) => {
                person.decided(desk, None, Outcome::Inconclusive);
                self.unsure(desk)
            }
            VoiceVerdict::Rejected => {
                person.decided(desk, None, Outcome::Rejected);
                self.owing.check(desk, CodeGiven::SpokenOtherwise, None, self.heard_at)
            }
        }
    }

    fn unsure(mut self, desk: &mut Desk<'_>) -> Stage {
        let reply = if self.owing.payer.person.unclear(desk.cfg) {
            Reply::Refuse
        } else {
            Reply::AskCode(Box::new(AskingCode { owing: self.owing }), Again::NotUnderstood)
        };
        judging::hold(desk, self.heard_at, reply)
    }
}

impl CheckingCode {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::CodeChecked(outcome)) => match (outcome, self.by) {
                (CodeChecked::Good, Some(by)) => {
                    desk.answered();
                    let Owing { payer, proven, .. } = *self.owing;
                    confirm::or_charge(desk, payer, proven.with_code(by))
                }
                (CodeChecked::Good, None) => judging::hold(desk, self.heard_at, Reply::End(closing::service_trouble)),
                (CodeChecked::Wrong { left }, _) => self.wrong(desk, left == 0),
                // Said or keyed as it should be, and too late: no failed factor, but another code. What was said otherwise stays one.
                (CodeChecked::Expired, Some(_)) => {
                    desk.answered();
                    self.owing.send(desk, Again::Late)
                }
                (CodeChecked::Expired, None) => self.wrong(desk, true),
                (CodeChecked::Trouble, _) => judging::hold(desk, self.heard_at, Reply::End(closing::service_trouble)),
            },
            Event::Overdue => closing::service_trouble(desk),
            Event::PromptDone
            | Event::Key(_)
            | Event::SpeechStarted
            | Event::Utterance(_)
            | Event::Nothing
            | Event::NextKeyDue
            | Event::ReplyDue
            | Event::Told(_) => self.into(),
        }
    }

    /// `spent`: the code has no tries left, and only another one is of use. Its holder hears the same.
    fn wrong(mut self, desk: &mut Desk<'_>, spent: bool) -> Stage {
        let refuse = self.owing.payer.person.failed(desk, Factor::Code);
        if refuse || (spent && self.owing.sent >= desk.cfg.code_limit_sends) {
            return judging::hold(desk, self.heard_at, Reply::Refuse);
        }
        if spent {
            return self.owing.send(desk, Again::NoMatch);
        }
        judging::hold(desk, self.heard_at, Reply::AskCode(Box::new(AskingCode { owing: self.owing }), Again::NoMatch))
    }
}
