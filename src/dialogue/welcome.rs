//! The call begins: the greeting is played while the customer is looked up by the caller's number. Until the customer is known, 8 asks
//! for more time, and 9 for the voice to be deleted.

use super::closing;
use super::customer_number;
use super::effect::Effect;
use super::input::{DeadlineKind, IdentityOutcome, Keypress};
use super::line::Desk;
use super::payer;
use super::prompt::Prompt;
use super::stage::{Event, Stage, Told};

/// The key for more time, in this call.
pub(super) const MORE_TIME: u8 = 8;
/// The key for having one's voice deleted.
const DELETE_VOICE: u8 = 9;

/// Greeting and looking up.
#[derive(Debug)]
pub(super) struct Welcoming {
    greeted: bool,
    found: Found,
}

#[derive(Debug)]
enum Found {
    /// Not answered yet.
    Awaited,
    /// Nothing to look up, or answered.
    Here(IdentityOutcome),
}

/// Starts the call.
pub(super) fn begin(desk: &mut Desk<'_>) -> Stage {
    desk.arm(DeadlineKind::CallLimit, desk.cfg.call_limit_ms);
    desk.play(Prompt::Greeting);
    let caller = desk.line.caller().clone();
    let found = match caller.number() {
        Some(number) => {
            let effect = Effect::LookUp { caller: Some(number.clone()), attested: caller.attested(), customer_number: None };
            desk.push(effect);
            desk.arm(DeadlineKind::Work, desk.cfg.lookup_wait_ms);
            Found::Awaited
        }
        None => Found::Here(IdentityOutcome::Unknown),
    };
    Welcoming { greeted: false, found }.into()
}

impl Welcoming {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::PromptDone => Self { greeted: true, ..self }.next(desk),
            Event::Told(Told::Identity(outcome)) => {
                desk.disarm(DeadlineKind::Work);
                match self.found {
                    Found::Awaited => Self { found: Found::Here(outcome), ..self }.next(desk),
                    // A second answer, or one to a question that was never put, nominates nobody.
                    Found::Here(_) => self.into(),
                }
            }
            Event::Overdue => closing::service_trouble(desk),
            Event::Key(Keypress::Digit(MORE_TIME)) => {
                desk.slow_down();
                self.into()
            }
            Event::Key(Keypress::Digit(DELETE_VOICE)) => {
                desk.line.delete();
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

    fn next(self, desk: &mut Desk<'_>) -> Stage {
        match (self.greeted, self.found) {
            (true, Found::Here(IdentityOutcome::Known(known))) => {
                let attested = desk.line.caller().attested();
                payer::receive(desk, *known, attested)
            }
            (true, Found::Here(IdentityOutcome::Unknown | IdentityOutcome::Shared)) => customer_number::ask(desk, 1),
            (greeted, found) => Self { greeted, found }.into(),
        }
    }
}
