//! Payee and amount are read back and a spoken yes is taken, in the voice that was accepted. No barge-in: the yes belongs
//! to a question that was heard to its end.
//!
//! On the telephone the yes is the last word. Before an app's page it is the first: a lone word says too little of whose it is, so fresh digits
//! come after it there, and what charges is ten digits in the payer's voice. The yes is held against the template all the same.

use super::advice;
use super::challenge;
use super::charging;
use super::closing;
use super::effect::{AnswerVoice, Effect, ListenFor};
use super::input::{AnswerHeard, CardOnFile};
use super::judging::{self, Proven};
use super::line::{Desk, Heard, nth};
use super::payer::Payer;
use super::prompt::{Again, Prompt};
use super::stage::{Event, Stage, Told};
use crate::clock::Timestamp;
use crate::decision::Answer;

/// The question is put.
#[derive(Debug)]
pub(super) struct Confirming {
    payer: Payer,
    /// Voice and number, which hold; `None`: fresh digits are still to come.
    proven: Option<Proven>,
    /// How often "yes or no" was asked after the read-back.
    asked: u32,
    silences: u32,
    unclear: u32,
}

/// The answer is being understood.
#[derive(Debug)]
pub(super) struct HearingAnswer {
    confirming: Box<Confirming>,
    heard_at: Timestamp,
}

/// Everything holds but the yes: reads back. Charges where it was said before.
pub(super) fn or_charge(desk: &mut Desk<'_>, payer: Payer, proven: Proven) -> Stage {
    match payer.agreed {
        Some(cosine) => charging::begin(desk, payer, proven, cosine),
        None => {
            let last4 = proven.card().last4;
            read_back(desk, payer, last4, Some(proven))
        }
    }
}

/// Begins with the question: an app has bound this card.
pub(super) fn first(desk: &mut Desk<'_>, payer: Payer, card: &CardOnFile) -> Stage {
    desk.rest();
    read_back(desk, payer, card.last4, None)
}

fn read_back(desk: &mut Desk<'_>, payer: Payer, last4: [u8; 4], proven: Option<Proven>) -> Stage {
    let request = &payer.request;
    let prompt = Prompt::ReadBack { amount: request.amount, payee: request.payee.clone(), last4, others: request.asks.others };
    desk.ask(prompt, ListenFor::Answer, false);
    Confirming { payer, proven, asked: 0, silences: 0, unclear: 0 }.into()
}

/// Asks for yes or no.
pub(super) fn ask_again(desk: &mut Desk<'_>, mut state: Confirming, why: Again) -> Stage {
    state.asked = state.asked.saturating_add(1);
    desk.ask(Prompt::AskYes { attempt: nth(state.asked), why }, ListenFor::Answer, false);
    state.into()
}

impl Confirming {
    pub(super) fn payer_mut(&mut self) -> &mut Payer {
        &mut self.payer
    }

    pub(super) fn on(mut self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match desk.hear(event) {
            Heard::Waiting | Heard::Other(_) => self.into(),
            Heard::Utterance(facts) => match advice::unfit_for_words(facts) {
                None => {
                    self.silences = 0;
                    let voice = match self.proven {
                        Some(_) => AnswerVoice::AsBefore,
                        None => AnswerVoice::AsEnrolled(self.payer.person.customer.clone()),
                    };
                    desk.push(Effect::ReadAnswer { voice });
                    desk.expect_answer(desk.cfg.score_wait_ms);
                    HearingAnswer { confirming: Box::new(self), heard_at: desk.now }.into()
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
}

impl HearingAnswer {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::Answer(result)) => {
                desk.answered();
                match result {
                    Ok(heard) => self.understood(desk, heard),
                    Err(trouble) => match closing::ending_for(trouble) {
                        Some(end) => end(desk),
                        None => self.confirming.not_understood(desk, Again::NotUnderstood),
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
        match (heard.answer, heard.continuity_cosine) {
            (Answer::No | Answer::Cancel, _) => closing::cancelled(desk),
            (Answer::Unclear, _) | (Answer::Yes, None) => self.confirming.not_understood(desk, Again::NotUnderstood),
            // A recorded yes counts like one in another voice.
            (Answer::Yes, Some(_)) if heard.heard_before => judging::other_voice(desk, self.confirming, self.heard_at),
            // NaN on either side compares as false: no yes.
            (Answer::Yes, Some(cosine)) if cosine >= desk.cfg.continuity_cosine => {
                let Confirming { payer, proven, .. } = *self.confirming;
                match proven {
                    Some(proven) => charging::begin(desk, payer, proven, cosine),
                    None => challenge::without_number(desk, Payer { agreed: Some(cosine), ..payer }),
                }
            }
            (Answer::Yes, Some(_)) => judging::other_voice(desk, self.confirming, self.heard_at),
        }
    }
}
