//! Enrolment: fresh strings of digits, said after us one by one until there is enough speech that agrees with itself and says what was asked; then template and consent are stored together.

use super::advice;
use super::closing;
use super::effect::{CallVerdict, Consent, Effect, ListenFor, Notice};
use super::input::{EnrolOutcome, StoreOutcome};
use super::line::{Desk, Heard, nth};
use super::prompt::{Again, Prompt};
use super::stage::{Event, Stage, Told};
use crate::ids::CustomerId;

/// Where an enrolment stands.
#[derive(Debug)]
struct Enrolment {
    customer: CustomerId,
    consent: Consent,
    /// Strings, each asked for once: what was said in answer to one proves nothing when it comes again.
    challenges: Vec<Vec<u8>>,
    /// Strings asked so far, which is the place of the next.
    used: usize,
    round: u32,
    rounds: u32,
    /// Tries in this round.
    tries: u32,
    silences: u32,
}

/// A string was asked for.
#[derive(Debug)]
pub(super) struct Saying {
    enrolment: Enrolment,
    digits: Vec<u8>,
}

/// What was said is being added.
#[derive(Debug)]
pub(super) struct Adding {
    enrolment: Enrolment,
}

/// The template is being stored.
#[derive(Debug)]
pub(super) struct Storing {
    customer: CustomerId,
}

/// Starts with the first string.
pub(super) fn begin(desk: &mut Desk<'_>, customer: CustomerId, consent: Consent, challenges: Vec<Vec<u8>>) -> Stage {
    let rounds = desk.cfg.enrol_rounds.max(1);
    let enough = u32::try_from(challenges.len()).is_ok_and(|n| n >= rounds);
    let digits = |c: &Vec<u8>| !c.is_empty() && c.iter().all(|d| *d <= 9);
    if !enough || !challenges.iter().all(digits) {
        return closing::service_trouble(desk);
    }
    let enrolment = Enrolment { customer, consent, challenges, used: 0, round: 1, rounds, tries: 0, silences: 0 };
    enrolment.ask(desk, Again::First)
}

impl Enrolment {
    /// Asks for the next string, while there are any.
    fn ask(mut self, desk: &mut Desk<'_>, why: Again) -> Stage {
        let Some(digits) = self.challenges.get(self.used).cloned() else { return closing::enrol_failed(desk) };
        self.used = self.used.saturating_add(1);
        self.tries = self.tries.saturating_add(1);
        let prompt = Prompt::EnrolSay {
            round: nth(self.round),
            rounds: nth(self.rounds),
            digits: digits.clone(),
            attempt: nth(self.tries),
            why,
        };
        // No barge-in: the prompt's own echo must not end up in the template.
        desk.ask(prompt, ListenFor::EnrolDigits { digits: digits.clone() }, false);
        Saying { enrolment: self, digits }.into()
    }

    fn ask_again(self, desk: &mut Desk<'_>, why: Again) -> Stage {
        if self.tries >= desk.cfg.enrol_round_limit_tries {
            return closing::enrol_failed(desk);
        }
        self.ask(desk, why)
    }

    fn added(mut self, desk: &mut Desk<'_>, net_speech_total_ms: u32) -> Stage {
        let last = self.round >= self.rounds;
        if last && net_speech_total_ms >= desk.cfg.enrol_net_speech_ms {
            desk.push(Effect::EnrolFinish { customer: self.customer.clone(), consent: self.consent });
            desk.expect_answer(desk.cfg.lookup_wait_ms);
            return Storing { customer: self.customer }.into();
        }
        if last {
            self.rounds = self.rounds.saturating_add(1);
            if self.rounds > desk.cfg.enrol_rounds_at_most() {
                return closing::enrol_failed(desk);
            }
        }
        self.round = self.round.saturating_add(1);
        (self.tries, self.silences) = (0, 0);
        self.ask(desk, Again::First)
    }
}

impl Saying {
    pub(super) fn on(mut self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match desk.hear(event) {
            Heard::Waiting | Heard::Other(_) => self.into(),
            Heard::Utterance(facts) => match advice::unfit(facts, 0) {
                None => {
                    self.enrolment.silences = 0;
                    desk.push(Effect::EnrolAdd { customer: self.enrolment.customer.clone(), digits: self.digits });
                    desk.expect_answer(desk.cfg.score_wait_ms);
                    Adding { enrolment: self.enrolment }.into()
                }
                Some(why) => self.enrolment.ask_again(desk, why),
            },
            Heard::Nothing if self.enrolment.silences >= desk.cfg.silence_limit_reprompts => closing::enrol_failed(desk),
            Heard::Nothing => {
                self.enrolment.silences = self.enrolment.silences.saturating_add(1);
                self.enrolment.ask(desk, Again::Silence)
            }
        }
    }
}

impl Adding {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::EnrolAdded(outcome)) => {
                desk.answered();
                match outcome {
                    EnrolOutcome::Added { net_speech_total_ms } => self.enrolment.added(desk, net_speech_total_ms),
                    EnrolOutcome::TooShort => self.enrolment.ask_again(desk, Again::TooShort),
                    EnrolOutcome::OtherWords => self.enrolment.ask_again(desk, Again::NotUnderstood),
                    EnrolOutcome::HeardBefore | EnrolOutcome::Disagrees => self.enrolment.ask_again(desk, Again::NoMatch),
                    EnrolOutcome::Trouble(trouble) => match closing::ending_for(trouble) {
                        Some(end) => end(desk),
                        None => self.enrolment.ask_again(desk, Again::NotUnderstood),
                    },
                }
            }
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
}

impl Storing {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::EnrolStored(outcome)) => match outcome {
                StoreOutcome::Stored => {
                    desk.push(Effect::Notify { customer: self.customer, notice: Notice::VoiceEnrolled });
                    closing::close(desk, CallVerdict::Enrolled, Prompt::EnrolDone)
                }
                StoreOutcome::Refused => closing::enrol_failed(desk),
                StoreOutcome::Trouble => closing::service_trouble(desk),
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
}
