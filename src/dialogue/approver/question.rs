//! The voice is accepted: only now is it read what the call is about. A question is put, and a spoken yes or no is taken. No barge-in: the
//! answer belongs to a question that was heard to its end.

use super::errand::{Decision, DecisionOutcome, ErrandEffect, ErrandNews, Matter, Purpose, Told as Became};
use super::words::CallbackPrompt;
use super::{Approver, not_confirmed};
use crate::clock::Timestamp;
use crate::decision::{Answer, PhraseEvidence, VoiceAccepted};
use crate::dialogue::advice;
use crate::dialogue::closing::{self, close};
use crate::dialogue::effect::{AnswerVoice, CallVerdict, Effect, Factor, ListenFor};
use crate::dialogue::input::AnswerHeard;
use crate::dialogue::judging::{self, Reply};
use crate::dialogue::line::{Desk, Heard, nth};
use crate::dialogue::prompt::{Again, Prompt, SpokenPayee};
use crate::dialogue::stage::{Event, Stage, Told};
use crate::money::Money;

/// What it is about is being read. The proof is with the reader and comes back with it.
#[derive(Debug)]
pub(in crate::dialogue) struct Fetching {
    approver: Approver,
    digits: PhraseEvidence,
}

/// The question is put.
#[derive(Debug)]
pub(in crate::dialogue) struct AskingAgreement {
    approver: Approver,
    accepted: VoiceAccepted,
    digits: PhraseEvidence,
    amount: Money,
    payee: SpokenPayee,
    /// How often "yes or no" was asked after the question.
    asked: u32,
    silences: u32,
    unclear: u32,
}

/// The answer is being understood.
#[derive(Debug)]
pub(in crate::dialogue) struct HearingAgreement {
    asking: Box<AskingAgreement>,
    heard_at: Timestamp,
}

/// The answer was handed over.
#[derive(Debug)]
pub(in crate::dialogue) struct Deciding {
    yes: bool,
}

/// Reads what it is about, by the proof that it is they.
pub(super) fn look_up(desk: &mut Desk<'_>, approver: Approver, accepted: VoiceAccepted, digits: PhraseEvidence) -> Stage {
    desk.answered();
    let (customer, purpose) = (approver.customer.clone(), approver.purpose.clone());
    desk.push(Effect::Errand(ErrandEffect::LookUp { accepted, customer, purpose }));
    desk.expect_answer(desk.cfg.lookup_wait_ms);
    Fetching { approver, digits }.into()
}

impl Fetching {
    pub(in crate::dialogue) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::Errand(ErrandNews::Found { matter, accepted })) => {
                desk.answered();
                self.found(desk, matter, accepted)
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

    fn found(self, desk: &mut Desk<'_>, matter: Matter, accepted: VoiceAccepted) -> Stage {
        match (matter, &self.approver.purpose) {
            (Matter::Question { amount, payee }, Purpose::Decide(_)) => {
                let prompt = Prompt::Callback(CallbackPrompt::Question { amount, payee: payee.clone() });
                desk.ask(prompt, ListenFor::Answer, false);
                let Self { approver, digits } = self;
                AskingAgreement { approver, accepted, digits, amount, payee, asked: 0, silences: 0, unclear: 0 }.into()
            }
            (Matter::Result { amount, payee, result }, Purpose::Tell(_)) => {
                let prompt = match result {
                    Became::Paid { reference } => Prompt::Paid { amount, payee, reference },
                    Became::Declined => Prompt::Declined,
                    Became::NotAgreed => Prompt::Callback(CallbackPrompt::NotAgreed { amount, payee }),
                };
                close(desk, CallVerdict::Told, prompt)
            }
            (Matter::Settled, Purpose::Decide(_) | Purpose::Tell(_)) => settled(desk),
            // An answer to another question than the one that was put says nothing.
            (Matter::Question { .. }, Purpose::Tell(_))
            | (Matter::Result { .. }, Purpose::Decide(_))
            | (Matter::Trouble, Purpose::Decide(_) | Purpose::Tell(_)) => closing::service_trouble(desk),
        }
    }
}

/// Nothing is left to decide or to tell.
fn settled(desk: &mut Desk<'_>) -> Stage {
    close(desk, CallVerdict::Settled, Prompt::Callback(CallbackPrompt::Settled))
}

/// Asks for yes or no.
pub(in crate::dialogue) fn ask_again(desk: &mut Desk<'_>, mut state: AskingAgreement, why: Again) -> Stage {
    state.asked = state.asked.saturating_add(1);
    let prompt = Prompt::Callback(CallbackPrompt::AskYes { attempt: nth(state.asked), why });
    desk.ask(prompt, ListenFor::Answer, false);
    state.into()
}

impl AskingAgreement {
    pub(in crate::dialogue) fn on(mut self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match desk.hear(event) {
            Heard::Waiting | Heard::Other(_) => self.into(),
            Heard::Utterance(facts) => match advice::unfit_for_words(facts) {
                None => {
                    self.silences = 0;
                    desk.push(Effect::ReadAnswer { voice: AnswerVoice::AsBefore });
                    desk.expect_answer(desk.cfg.score_wait_ms);
                    HearingAgreement { asking: Box::new(self), heard_at: desk.now }.into()
                }
                Some(why) => self.not_understood(desk, why),
            },
            Heard::Nothing if self.silences >= desk.cfg.silence_limit_reprompts => closing::not_completed(desk),
            Heard::Nothing => {
                self.silences = self.silences.saturating_add(1);
                ask_again(desk, self, Again::Silence)
            }
        }
    }

    fn not_understood(mut self, desk: &mut Desk<'_>, why: Again) -> Stage {
        self.unclear = self.unclear.saturating_add(1);
        if self.unclear >= desk.cfg.answer_limit_tries {
            return closing::not_completed(desk);
        }
        ask_again(desk, self, why)
    }

    /// Hands the answer over. Consumes the proof: there is nothing left to answer a second time with.
    fn decide(self, desk: &mut Desk<'_>, yes: bool, continuity_cosine: Option<f32>) -> Stage {
        desk.rest();
        let Self { approver, accepted, digits, amount, payee, .. } = self;
        desk.push(Effect::Errand(ErrandEffect::Decide(Box::new(Decision {
            approval: approver.purpose.approval().clone(),
            customer: approver.customer,
            yes,
            amount,
            payee,
            voice: accepted.score().clone(),
            digits,
            continuity_cosine,
            policy_version: desk.cfg.policy_version.clone(),
        }))));
        desk.expect_answer(desk.cfg.lookup_wait_ms);
        Deciding { yes }.into()
    }
}

impl HearingAgreement {
    pub(in crate::dialogue) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::Answer(result)) => {
                desk.answered();
                match result {
                    Ok(heard) => self.understood(desk, heard),
                    Err(trouble) => match closing::ending_for(trouble) {
                        Some(end) => end(desk),
                        None => self.asking.not_understood(desk, Again::NotUnderstood),
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

    fn understood(self, desk: &mut Desk<'_>, heard: AnswerHeard) -> Stage {
        let same_voice = heard.continuity_cosine.is_some_and(|cosine| cosine >= desk.cfg.continuity_cosine);
        match (heard.answer, heard.continuity_cosine) {
            // Stopping decides nothing.
            (Answer::Cancel, _) => closing::cancelled(desk),
            // Whoever says no in a call that the right voice opened: what is not paid harms least.
            (Answer::No, cosine) => self.asking.decide(desk, false, cosine),
            (Answer::Unclear, _) | (Answer::Yes, None) => self.asking.not_understood(desk, Again::NotUnderstood),
            (Answer::Yes, cosine) if same_voice && !heard.heard_before => self.asking.decide(desk, true, cosine),
            // A recorded yes counts like one in another voice.
            (Answer::Yes, Some(_)) => self.other_voice(desk),
        }
    }

    fn other_voice(mut self, desk: &mut Desk<'_>) -> Stage {
        if self.asking.approver.failed(desk, Factor::Voice) {
            return not_confirmed(desk, self.heard_at);
        }
        judging::hold(desk, self.heard_at, Reply::AskAgreement(self.asking))
    }
}

impl Deciding {
    pub(in crate::dialogue) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::Errand(ErrandNews::Decided(outcome))) => {
                desk.answered();
                match (outcome, self.yes) {
                    (DecisionOutcome::Noted, true) => close(desk, CallVerdict::Agreed, Prompt::Callback(CallbackPrompt::Agreed)),
                    (DecisionOutcome::Noted, false) => {
                        close(desk, CallVerdict::Disagreed, Prompt::Callback(CallbackPrompt::Denied))
                    }
                    (DecisionOutcome::Settled, _) => settled(desk),
                    (DecisionOutcome::Trouble, _) => closing::service_trouble(desk),
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
