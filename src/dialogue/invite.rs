//! Enrolment begins with a single-use code that was issued out of band: a caller's number alone never suffices, else
//! whoever spoofs a number owns the voice.

use zeroize::Zeroizing;

use super::closing;
use super::consent;
use super::effect::Effect;
use super::input::{DeadlineKind, InviteOutcome, Keypress};
use super::line::{Desk, nth};
use super::prompt::{Again, Prompt};
use super::stage::{Event, Stage, Told};
use crate::ids::CustomerId;
use crate::secret::SecretBytes;

/// What was tried so far.
#[derive(Debug)]
struct Tries {
    customer: CustomerId,
    asked: u32,
    wrong: u32,
    silences: u32,
}

/// The code is being keyed.
pub(super) struct KeyingInvite {
    tries: Tries,
    digits: Zeroizing<Vec<u8>>,
}

/// The code is being checked.
#[derive(Debug)]
pub(super) struct Redeeming {
    tries: Tries,
}

/// Asks an invited customer for the code.
pub(super) fn begin(desk: &mut Desk<'_>, customer: CustomerId) -> Stage {
    ask(desk, Tries { customer, asked: 0, wrong: 0, silences: 0 }, Again::First)
}

fn ask(desk: &mut Desk<'_>, mut tries: Tries, why: Again) -> Stage {
    tries.asked = tries.asked.saturating_add(1);
    desk.ask_keys(Prompt::AskInviteCode { attempt: nth(tries.asked), why });
    KeyingInvite { tries, digits: Zeroizing::new(Vec::with_capacity(desk.cfg.invite_code_limit_digits)) }.into()
}

fn silent(desk: &mut Desk<'_>, mut tries: Tries) -> Stage {
    if tries.silences >= desk.cfg.silence_limit_reprompts {
        return closing::enrol_failed(desk);
    }
    tries.silences = tries.silences.saturating_add(1);
    ask(desk, tries, Again::Silence)
}

impl KeyingInvite {
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
                self.digits.push(d);
                if self.digits.len() >= desk.cfg.invite_code_limit_digits {
                    return self.redeem(desk);
                }
                desk.arm(DeadlineKind::NextKey, desk.cfg.next_key_ms);
                self.into()
            }
            Event::Key(Keypress::Pound) | Event::NextKeyDue => self.redeem(desk),
            Event::Nothing => silent(desk, self.tries),
            Event::Key(Keypress::Star)
            | Event::SpeechStarted
            | Event::Utterance(_)
            | Event::ReplyDue
            | Event::Overdue
            | Event::Told(_) => self.into(),
        }
    }

    fn redeem(mut self, desk: &mut Desk<'_>) -> Stage {
        desk.rest();
        match self.digits.as_slice() {
            [] => silent(desk, self.tries),
            [0] => closing::person(desk),
            [..] => {
                let code = SecretBytes::new(std::mem::take(&mut *self.digits));
                desk.push(Effect::RedeemInvite { customer: self.tries.customer.clone(), code });
                desk.expect_answer(desk.cfg.lookup_wait_ms);
                Redeeming { tries: self.tries }.into()
            }
        }
    }
}

impl std::fmt::Debug for KeyingInvite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyingInvite").field("tries", &self.tries).finish_non_exhaustive()
    }
}

impl Redeeming {
    pub(super) fn on(mut self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::InviteRedeemed(outcome)) => {
                desk.answered();
                match outcome {
                    InviteOutcome::Accepted { challenges } => consent::ask(desk, self.tries.customer, challenges),
                    InviteOutcome::Rejected => {
                        self.tries.wrong = self.tries.wrong.saturating_add(1);
                        if self.tries.wrong >= desk.cfg.invite_code_limit_tries {
                            return closing::enrol_failed(desk);
                        }
                        self.tries.silences = 0;
                        ask(desk, self.tries, Again::NoMatch)
                    }
                    InviteOutcome::Trouble => closing::service_trouble(desk),
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
