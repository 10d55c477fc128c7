//! The caller's number led to nobody: another identification, by keypad. No card is asked for before the identity stands.

use super::closing;
use super::effect::{CallVerdict, Effect};
use super::input::{DeadlineKind, IdentityOutcome, Keypress};
use super::line::{Desk, nth};
use super::payer;
use super::prompt::Prompt;
use super::stage::{Event, Stage, Told};

/// The customer number is being keyed.
#[derive(Debug)]
pub(super) struct KeyingCustomerNumber {
    attempt: u32,
    digits: String,
}

/// The keyed number is being looked up.
#[derive(Debug)]
pub(super) struct LookingUp {
    attempt: u32,
}

/// Asks for the `attempt`th time, or ends the call.
pub(super) fn ask(desk: &mut Desk<'_>, attempt: u32) -> Stage {
    if attempt > desk.cfg.customer_number_limit_tries {
        return closing::close(desk, CallVerdict::UnknownCaller, Prompt::UnknownCaller);
    }
    desk.ask_keys(Prompt::AskCustomerNumber { attempt: nth(attempt) });
    KeyingCustomerNumber { attempt, digits: String::new() }.into()
}

impl KeyingCustomerNumber {
    pub(super) fn on(mut self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::PromptDone => {
                if self.digits.is_empty() {
                    desk.arm(DeadlineKind::Silence, desk.cfg.silence_ms);
                }
                self.into()
            }
            Event::Key(Keypress::Digit(d)) => {
                desk.hush();
                desk.disarm(DeadlineKind::Silence);
                self.digits.push(char::from(b'0'.saturating_add(d)));
                if self.digits.len() >= desk.cfg.customer_number_limit_digits {
                    return self.look_up(desk);
                }
                desk.arm(DeadlineKind::NextKey, desk.cfg.next_key_ms);
                self.into()
            }
            Event::Key(Keypress::Pound) | Event::NextKeyDue => self.look_up(desk),
            Event::Nothing => ask(desk, self.attempt.saturating_add(1)),
            Event::Key(Keypress::Star)
            | Event::SpeechStarted
            | Event::Utterance(_)
            | Event::ReplyDue
            | Event::Overdue
            | Event::Told(_) => self.into(),
        }
    }

    fn look_up(self, desk: &mut Desk<'_>) -> Stage {
        desk.rest();
        match self.digits.as_str() {
            "" => ask(desk, self.attempt.saturating_add(1)),
            "0" => closing::person(desk),
            _some_number => {
                let caller = desk.line.caller().number().cloned();
                desk.push(Effect::LookUp { caller, attested: false, customer_number: Some(self.digits) });
                desk.expect_answer(desk.cfg.lookup_wait_ms);
                LookingUp { attempt: self.attempt }.into()
            }
        }
    }
}

impl LookingUp {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::Identity(outcome)) => {
                desk.answered();
                match outcome {
                    // Whoever keys a customer number need not be that customer, however well their own number is attested.
                    IdentityOutcome::Known(known) => payer::receive(desk, *known, false),
                    IdentityOutcome::Unknown | IdentityOutcome::Shared => ask(desk, self.attempt.saturating_add(1)),
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
