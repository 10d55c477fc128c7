//! A call that we place, to a person who picked up: a supervisor or guardian is asked whether a payment may be made, or its payer is told
//! what became of it.
//!
//! ```text
//! Introducing → DrawingAlone → AskingAlone ⇄ ScoringAlone ─accepted→ Fetching ─question→ AskingAgreement ⇄ HearingAgreement
//!                    ▲             (padded reply)  │                    │ result, settled        │ yes in the same voice, or no
//!                    └──── Holding ◄───────────────┘                    ▼                        ▼
//!                             └── limits ─────────────────────────→ Closing ◄──────────────── Deciding
//! ```
//!
//! What holds (and is held by `tests/approver.rs` over random inputs in any order):
//! - Whoever picks up hears who calls, and fresh digits to repeat. What it is about is read only after the voice was accepted, by the
//!   proof of it; until then the call does not know an amount or a payee, so that it can't say one.
//! - One answer at most is handed over, with what was read out; a yes only in the voice that said the digits.
//! - A beep takes the person back: the call ends without another word.
//! - Silence, another voice, a machine and a lost line decide nothing.

mod digits; // fresh digits, which nothing went before
pub(super) mod errand; // who is called, why, and what is asked of the edge
mod question; // what it is about, yes or no
mod words; // what may be said

pub use errand::{Decision, DecisionOutcome, Errand, ErrandEffect, ErrandNews, Matter, Purpose, Told};
pub use words::CallbackPrompt;

pub(super) use digits::{Ask, AskingAlone, DrawingAlone, ScoringAlone, ask};
pub(super) use question::{AskingAgreement, Deciding, Fetching, HearingAgreement, ask_again};
pub(super) use words::in_a_call_back;

use super::closing;
use super::effect::{CallVerdict, Effect, Factor, Notice};
use super::input::{DeadlineKind, Keypress, VoiceHeard};
use super::judging::{self, Reply};
use super::line::Desk;
use super::payer::Tally;
use super::prompt::{Again, Prompt};
use super::stage::{Event, Stage};
use super::welcome::MORE_TIME;
use crate::clock::Timestamp;
use crate::decision::Tightening;
use crate::e164::E164;
use crate::ids::CustomerId;

/// Whom we called, while we don't know yet whether it is they.
#[derive(Debug)]
pub(super) struct Approver {
    customer: CustomerId,
    number: E164,
    purpose: Purpose,
    tally: Tally,
}

/// Saying who calls.
#[derive(Debug)]
pub(super) struct Introducing {
    approver: Approver,
}

/// A person picked up.
pub(super) fn begin(desk: &mut Desk<'_>, errand: Errand) -> Stage {
    desk.arm(DeadlineKind::CallLimit, desk.cfg.call_limit_ms);
    let Errand { customer, number, language: _, failures_24h, slow, purpose } = errand;
    if slow {
        desk.slow_down();
    }
    let approver = Approver { customer, number, purpose, tally: Tally::after(failures_24h) };
    if approver.tally.closes_line(desk.cfg) {
        return closing::close(desk, CallVerdict::LockedOut, Prompt::LockedOut);
    }
    desk.play(Prompt::Callback(CallbackPrompt::Greeting));
    // A prompt that never ends must not hold the line.
    desk.arm(DeadlineKind::Work, desk.cfg.closing_limit_ms);
    Introducing { approver }.into()
}

impl Introducing {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::PromptDone => {
                desk.answered();
                digits::draw(desk, self.approver, None, Again::First)
            }
            Event::Overdue => closing::service_trouble(desk),
            // Nobody tells them of it in a call back; who knows it from calls of their own has it here, too.
            Event::Key(Keypress::Digit(MORE_TIME)) => {
                desk.slow_down();
                self.into()
            }
            Event::Key(_)
            | Event::SpeechStarted
            | Event::Utterance(_)
            | Event::Nothing
            | Event::NextKeyDue
            | Event::ReplyDue
            | Event::Told(_) => self.into(),
        }
    }
}

impl Approver {
    /// What is known of this call beside what was said. We called the number ourselves: nobody else has to vouch for it.
    fn known(&self, heard: &VoiceHeard) -> Tightening {
        Tightening {
            heard_before: heard.heard_before,
            spoof_llr: heard.spoof_llr,
            unattested: false,
            failed_attestation: false,
            recent_failures: self.tally.earlier(), // this call's own are counted by its limits
            challenge_due: false,                  // it is nothing but a challenge
        }
    }

    /// Counts a failed factor, for this call and for the days to come. Tells whether the call must end now.
    fn failed(&mut self, desk: &mut Desk<'_>, factor: Factor) -> bool {
        desk.push(Effect::RecordFailure {
            customer: self.customer.clone(),
            caller: Some(self.number.clone()),
            attested: true,
            factor,
        });
        self.tally.fail(factor);
        if self.tally.closes_line(desk.cfg) {
            desk.push(Effect::Notify { customer: self.customer.clone(), notice: Notice::TooManyFailures });
            return true;
        }
        self.tally.refuses(desk.cfg)
    }

    /// Counts an answer that could not be judged. Tells whether it was the last.
    fn unclear(&mut self, desk: &Desk<'_>) -> bool {
        self.tally.unclear(desk.cfg)
    }
}

/// Not who we called, as far as can be told. The reply is held like every other.
fn not_confirmed(desk: &mut Desk<'_>, heard_at: Timestamp) -> Stage {
    judging::hold(desk, heard_at, Reply::Refuse)
}
