//! What is to be paid, read out. Who knows it may key the card number meanwhile.

use super::card;
use super::challenge;
use super::input::Keypress;
use super::line::Desk;
use super::payer::Payer;
use super::prompt::{Again, Prompt};
use super::stage::{Event, Stage};

/// The request is being read out.
#[derive(Debug)]
pub(super) struct ReadingRequest {
    payer: Payer,
}

/// Reads it.
pub(super) fn read(desk: &mut Desk<'_>, payer: Payer) -> Stage {
    desk.rest();
    let request = &payer.request;
    desk.play(Prompt::ReadRequest { amount: request.amount, payee: request.payee.clone(), due: request.due });
    ReadingRequest { payer }.into()
}

impl ReadingRequest {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::PromptDone if self.payer.mandated().is_some() => challenge::without_number(desk, self.payer),
            Event::PromptDone => card::ask(desk, self.payer, Again::First),
            // Who keys a card number wants to pay with that one, whatever a mandate says.
            Event::Key(Keypress::Digit(d)) => card::keyed_first(desk, self.payer.without_mandate(), d),
            Event::Key(Keypress::Star | Keypress::Pound)
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
