//! What is kept of a voice and what for; without a clear spoken yes nothing is recorded.

use super::advice;
use super::closing;
use super::effect::{AnswerVoice, Consent, Effect, ListenFor};
use super::enrol;
use super::line::{Desk, Heard, nth};
use super::prompt::{Again, Prompt};
use super::stage::{Event, Stage, Told};
use crate::decision::Answer;
use crate::ids::CustomerId;

/// The question is put.
#[derive(Debug)]
pub(super) struct AskingConsent {
    customer: CustomerId,
    challenges: Vec<Vec<u8>>,
    asked: u32,
    silences: u32,
    unclear: u32,
}

/// The answer is being understood.
#[derive(Debug)]
pub(super) struct HearingConsent {
    asking: AskingConsent,
}

/// Asks the customer whose code was right.
pub(super) fn ask(desk: &mut Desk<'_>, customer: CustomerId, challenges: Vec<Vec<u8>>) -> Stage {
    ask_again(desk, AskingConsent { customer, challenges, asked: 0, silences: 0, unclear: 0 }, Again::First)
}

fn ask_again(desk: &mut Desk<'_>, mut state: AskingConsent, why: Again) -> Stage {
    state.asked = state.asked.saturating_add(1);
    desk.ask(Prompt::AskConsent { attempt: nth(state.asked), why }, ListenFor::Answer, false);
    state.into()
}

impl AskingConsent {
    pub(super) fn on(mut self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match desk.hear(event) {
            Heard::Waiting | Heard::Other(_) => self.into(),
            Heard::Utterance(facts) => match advice::unfit_for_words(facts) {
                None => {
                    self.silences = 0;
                    desk.push(Effect::ReadAnswer { voice: AnswerVoice::Any });
                    desk.expect_answer(desk.cfg.score_wait_ms);
                    HearingConsent { asking: self }.into()
                }
                Some(why) => self.not_understood(desk, why),
            },
            Heard::Nothing if self.silences >= desk.cfg.silence_limit_reprompts => closing::enrol_failed(desk),
            Heard::Nothing => {
                self.silences = self.silences.saturating_add(1);
                ask_again(desk, self, Again::Silence)
            }
        }
    }

    fn not_understood(mut self, desk: &mut Desk<'_>, why: Again) -> Stage {
        self.unclear = self.unclear.saturating_add(1);
        if self.unclear >= desk.cfg.answer_limit_tries {
            return closing::enrol_failed(desk);
        }
        ask_again(desk, self, why)
    }
}

impl HearingConsent {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::Answer(Ok(heard))) => {
                desk.answered();
                match heard.answer {
                    // A recorded yes agrees to nothing.
                    Answer::Yes if heard.heard_before => self.asking.not_understood(desk, Again::NotUnderstood),
                    Answer::Yes => {
                        let AskingConsent { customer, challenges, .. } = self.asking;
                        let consent = Consent { at: desk.now, policy_version: desk.cfg.policy_version.clone() };
                        enrol::begin(desk, customer, consent, challenges)
                    }
                    Answer::No | Answer::Cancel => closing::cancelled(desk),
                    Answer::Unclear => self.asking.not_understood(desk, Again::NotUnderstood),
                }
            }
            Event::Told(Told::Answer(Err(trouble))) => {
                desk.answered();
                match closing::ending_for(trouble) {
                    Some(end) => end(desk),
                    None => self.asking.not_understood(desk, Again::NotUnderstood),
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
