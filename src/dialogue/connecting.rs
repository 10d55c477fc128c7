//! "I am connecting you": the call is handed to a person, or the caller hears that none can be reached. Nothing was handed over for
//! charging before, and nothing will be.

use super::closing;
use super::effect::{CallVerdict, Effect};
use super::line::Desk;
use super::prompt::Prompt;
use super::stage::{Event, Stage, Told};

/// Being connected.
#[derive(Debug)]
pub(super) struct Connecting {
    /// The edge has been asked; before that the caller hears what is going to happen.
    asked: bool,
}

/// Begins; only where the configuration names somebody.
pub(super) fn begin(desk: &mut Desk<'_>) -> Stage {
    desk.rest();
    desk.play(Prompt::Connecting);
    // A prompt that never ends must not hold the caller.
    desk.arm(super::input::DeadlineKind::Work, desk.cfg.closing_limit_ms);
    Connecting { asked: false }.into()
}

impl Connecting {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::PromptDone if !self.asked => {
                desk.push(Effect::Transfer);
                desk.arm(super::input::DeadlineKind::Work, desk.cfg.transfer_wait_ms);
                Self { asked: true }.into()
            }
            // From here on the line is somebody else's.
            Event::Told(Told::Transferred(true)) if self.asked => Stage::Over(CallVerdict::Person),
            Event::Told(Told::Transferred(false)) if self.asked => closing::nobody(desk),
            Event::Overdue => closing::nobody(desk),
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
