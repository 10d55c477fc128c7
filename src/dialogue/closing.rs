//! The last words of a call: one prompt that says how it ended, "goodbye", and the line is closed.

use super::connecting;
use super::effect::CallVerdict;
use super::input::{DeadlineKind, ScoreTrouble};
use super::line::Desk;
use super::prompt::Prompt;
use super::stage::{Event, Stage};

/// Saying how it ended.
#[derive(Debug)]
pub(super) struct Closing {
    verdict: CallVerdict,
    said_goodbye: bool,
}

impl Closing {
    pub(super) fn verdict(&self) -> CallVerdict {
        self.verdict
    }

    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::PromptDone if self.said_goodbye => Stage::Over(self.verdict),
            Event::PromptDone => {
                desk.play(Prompt::Goodbye);
                Self { said_goodbye: true, ..self }.into()
            }
            Event::Key(_)
            | Event::SpeechStarted
            | Event::Utterance(_)
            | Event::Nothing
            | Event::NextKeyDue
            | Event::ReplyDue
            | Event::Overdue
            | Event::Told(_) => self.into(),
        }
    }
}

/// Ends the call with `verdict`, saying `last`.
pub(super) fn close(desk: &mut Desk<'_>, verdict: CallVerdict, last: Prompt) -> Stage {
    desk.rest();
    desk.disarm(DeadlineKind::CallLimit);
    desk.play(last);
    desk.arm(DeadlineKind::Closing, desk.cfg.closing_limit_ms);
    Closing { verdict, said_goodbye: false }.into()
}

/// Ends the call with `verdict` and no more than "goodbye".
pub(super) fn goodbye(desk: &mut Desk<'_>, verdict: CallVerdict) -> Stage {
    desk.rest();
    desk.disarm(DeadlineKind::CallLimit);
    desk.play(Prompt::Goodbye);
    desk.arm(DeadlineKind::Closing, desk.cfg.closing_limit_ms);
    Closing { verdict, said_goodbye: true }.into()
}

/// The caller wants no more.
pub(super) fn cancelled(desk: &mut Desk<'_>) -> Stage {
    close(desk, CallVerdict::Cancelled, Prompt::Cancelled)
}

/// The caller wants a person. A page has nobody to be handed to.
pub(super) fn person(desk: &mut Desk<'_>) -> Stage {
    if desk.cfg.person.is_empty() || desk.line.is_app() { nobody(desk) } else { connecting::begin(desk) }
}

/// No person can be reached.
pub(super) fn nobody(desk: &mut Desk<'_>) -> Stage {
    close(desk, CallVerdict::Person, Prompt::Person)
}

/// Nothing heard, nothing understood, or too late.
pub(super) fn not_completed(desk: &mut Desk<'_>) -> Stage {
    close(desk, CallVerdict::Abandoned, Prompt::NotCompleted)
}

/// An enrolment came to nothing.
pub(super) fn enrol_failed(desk: &mut Desk<'_>) -> Stage {
    close(desk, CallVerdict::EnrolFailed, Prompt::EnrolFailed)
}

/// No room to work in, or too slow.
pub(super) fn busy(desk: &mut Desk<'_>) -> Stage {
    close(desk, CallVerdict::Busy, Prompt::Busy)
}

/// A worker is broken.
pub(super) fn service_trouble(desk: &mut Desk<'_>) -> Stage {
    close(desk, CallVerdict::ServiceTrouble, Prompt::ServiceProblem)
}

/// How a call ends for which a worker did not work. `None`: the audio was at fault, ask again.
pub(super) fn ending_for(trouble: ScoreTrouble) -> Option<fn(&mut Desk<'_>) -> Stage> {
    match trouble {
        ScoreTrouble::Overloaded | ScoreTrouble::TimedOut => Some(busy),
        ScoreTrouble::Failed => Some(service_trouble),
        ScoreTrouble::Unusable => None,
    }
}
