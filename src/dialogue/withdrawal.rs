//! "Delete my voice": asked for by a key during the greeting, confirmed by a yes, and done only for whoever says fresh digits in that
//! voice: a caller's number alone must not take a customer's voice away.

use super::advice;
use super::challenge;
use super::closing::{self, close};
use super::effect::{AnswerVoice, CallVerdict, Consent, Effect, ListenFor};
use super::input::AnswerHeard;
use super::line::{Desk, Heard, nth};
use super::payer::Person;
use super::prompt::{Again, Prompt};
use super::stage::{Event, Stage, Told};
use crate::decision::Answer;
use crate::ids::CustomerId;

/// The last question.
#[derive(Debug)]
pub(super) struct AskingDelete {
    customer: CustomerId,
    asked: u32,
    silences: u32,
}

/// The answer is being understood.
#[derive(Debug)]
pub(super) struct HearingDelete {
    asking: AskingDelete,
}

/// The voice is being erased.
#[derive(Debug)]
pub(super) struct Deleting;

/// Asks for fresh digits.
pub(super) fn begin(desk: &mut Desk<'_>, person: Person) -> Stage {
    challenge::by_owner(desk, person)
}

/// It is the owner's voice: asks whether it is meant.
pub(super) fn ask(desk: &mut Desk<'_>, person: Person) -> Stage {
    AskingDelete { customer: person.customer, asked: 0, silences: 0 }.ask(desk, Again::First)
}

/// Who calls could not be confirmed.
pub(super) fn refused(desk: &mut Desk<'_>) -> Stage {
    close(desk, CallVerdict::Refused, Prompt::VoiceNotDeleted)
}

/// The owner changed their mind.
fn kept(desk: &mut Desk<'_>) -> Stage {
    close(desk, CallVerdict::Cancelled, Prompt::VoiceNotDeleted)
}

impl AskingDelete {
    fn ask(mut self, desk: &mut Desk<'_>, why: Again) -> Stage {
        if self.asked >= desk.cfg.answer_limit_tries {
            return kept(desk);
        }
        self.asked = self.asked.saturating_add(1);
        desk.ask(Prompt::AskDelete { attempt: nth(self.asked), why }, ListenFor::Answer, false);
        self.into()
    }

    pub(super) fn on(mut self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match desk.hear(event) {
            Heard::Waiting | Heard::Other(_) => self.into(),
            Heard::Utterance(facts) => match advice::unfit_for_words(facts) {
                None => {
                    self.silences = 0;
                    desk.push(Effect::ReadAnswer { voice: AnswerVoice::AsBefore });
                    desk.expect_answer(desk.cfg.score_wait_ms);
                    HearingDelete { asking: self }.into()
                }
                Some(why) => self.ask(desk, why),
            },
            Heard::Nothing if self.silences >= desk.cfg.silence_limit_reprompts => kept(desk),
            Heard::Nothing => {
                self.silences = self.silences.saturating_add(1);
                self.ask(desk, Again::Silence)
            }
        }
    }
}

impl HearingDelete {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::Answer(Ok(heard))) => {
                desk.answered();
                self.understood(desk, heard)
            }
            Event::Told(Told::Answer(Err(trouble))) => {
                desk.answered();
                match closing::ending_for(trouble) {
                    Some(end) => end(desk),
                    None => self.asking.ask(desk, Again::NotUnderstood),
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

    fn understood(self, desk: &mut Desk<'_>, heard: AnswerHeard) -> Stage {
        let AnswerHeard { answer, continuity_cosine, heard_before } = heard;
        match (answer, continuity_cosine) {
            (Answer::Yes, Some(cosine)) if !heard_before && cosine >= desk.cfg.continuity_cosine => {
                let consent = Consent { at: desk.now, policy_version: desk.cfg.policy_version.clone() };
                let customer = self.asking.customer;
                desk.push(Effect::DeleteVoice { customer, consent });
                desk.expect_answer(desk.cfg.lookup_wait_ms);
                Deleting.into()
            }
            (Answer::No | Answer::Cancel, _) => kept(desk),
            // A yes in another voice, or a recorded one, is none.
            (Answer::Yes | Answer::Unclear, _) => self.asking.ask(desk, Again::NotUnderstood),
        }
    }
}

impl Deleting {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::VoiceDeleted(true)) => close(desk, CallVerdict::Withdrawn, Prompt::VoiceDeleted),
            Event::Told(Told::VoiceDeleted(false)) | Event::Overdue => closing::service_trouble(desk),
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
