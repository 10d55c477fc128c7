//! "Say your card number": spoken, or keyed. The keypad replaces reading the number, never the voice: who keys is asked to
//! count, and the number is compared only once that voice is accepted.

use zeroize::Zeroizing;

use super::advice;
use super::closing;
use super::effect::ListenFor;
use super::input::{DeadlineKind, Keypress};
use super::judging;
use super::line::{Desk, Heard, nth};
use super::payer::Payer;
use super::prompt::{Again, Prompt};
use super::stage::{Event, Stage};
use crate::secret::{Pan, SecretBytes, luhn_valid};

/// The card number was asked for.
#[derive(Debug)]
pub(super) struct AskingCard {
    payer: Payer,
    silences: u32,
}

/// The card number is being keyed.
pub(super) struct KeyingCard {
    payer: Payer,
    digits: Zeroizing<Vec<u8>>,
}

/// The number was keyed; the voice is still missing.
#[derive(Debug)]
pub(super) struct AskingCounting {
    payer: Payer,
    keyed: SecretBytes,
    asked: u32,
    silences: u32,
}

/// Asks for the card number.
pub(super) fn ask(desk: &mut Desk<'_>, payer: Payer, why: Again) -> Stage {
    ask_card(desk, payer, why, 0)
}

fn ask_card(desk: &mut Desk<'_>, mut payer: Payer, why: Again, silences: u32) -> Stage {
    let tally = &mut payer.person.tally;
    tally.card_asked = tally.card_asked.saturating_add(1);
    let prompt = Prompt::AskCard { attempt: nth(tally.card_asked), why };
    desk.ask(prompt, ListenFor::CardNumber { lengths: payer.card_lengths() }, true);
    AskingCard { payer, silences }.into()
}

/// Asks for the voice of who keyed the number.
pub(super) fn ask_counting(desk: &mut Desk<'_>, payer: Payer, keyed: SecretBytes, asked: u32, why: Again) -> Stage {
    ask_count(desk, AskingCounting { payer, keyed, asked, silences: 0 }, why)
}

fn ask_count(desk: &mut Desk<'_>, state: AskingCounting, why: Again) -> Stage {
    let asked = state.asked.saturating_add(1);
    desk.ask(Prompt::AskCounting { attempt: nth(asked), why }, ListenFor::Counting, true);
    AskingCounting { asked, ..state }.into()
}

/// Something could not be judged or was mistyped: asks again and says why, or gives up.
fn not_understood(desk: &mut Desk<'_>, mut payer: Payer, why: Again) -> Stage {
    if payer.person.unclear(desk.cfg) { closing::not_completed(desk) } else { ask(desk, payer, why) }
}

impl AskingCard {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match desk.hear(event) {
            Heard::Waiting => self.into(),
            Heard::Utterance(facts) => match advice::unfit(facts, desk.cfg.policy.voice.min_net_speech_ms) {
                None => judging::begin(desk, self.payer, None),
                Some(why) => not_understood(desk, self.payer, why),
            },
            Heard::Nothing if self.silences >= desk.cfg.silence_limit_reprompts => closing::not_completed(desk),
            Heard::Nothing => ask_card(desk, self.payer, Again::Silence, self.silences.saturating_add(1)),
            Heard::Other(Event::Key(Keypress::Digit(d))) => keyed_first(desk, self.payer, d),
            Heard::Other(_) => self.into(),
        }
    }
}

/// The first digit was keyed: nothing is listened to any more.
pub(super) fn keyed_first(desk: &mut Desk<'_>, payer: Payer, digit: u8) -> Stage {
    desk.rest();
    let digits = Zeroizing::new(Vec::with_capacity(*Pan::LENGTHS.end()));
    KeyingCard { payer, digits }.push(desk, digit)
}

impl KeyingCard {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Key(Keypress::Digit(d)) => self.push(desk, d),
            Event::Key(Keypress::Pound) | Event::NextKeyDue => self.finish(desk),
            Event::Key(Keypress::Star)
            | Event::PromptDone
            | Event::SpeechStarted
            | Event::Utterance(_)
            | Event::Nothing
            | Event::ReplyDue
            | Event::Overdue
            | Event::Told(_) => self.into(),
        }
    }

    /// One more digit. The longest length that the customer's cards have ends it; a shorter one could go on, so it waits
    /// for `#` or for no further key.
    fn push(mut self, desk: &mut Desk<'_>, digit: u8) -> Stage {
        self.digits.push(digit);
        let longest = self.payer.card_lengths().last().copied();
        let full = self.digits.len() >= *Pan::LENGTHS.end();
        if full || (longest == Some(self.digits.len()) && luhn_valid(&self.digits)) {
            return self.finish(desk);
        }
        desk.arm(DeadlineKind::NextKey, desk.cfg.next_key_ms);
        self.into()
    }

    /// A mistyped number is told at once: its form is no secret.
    fn finish(mut self, desk: &mut Desk<'_>) -> Stage {
        desk.rest();
        if Pan::LENGTHS.contains(&self.digits.len()) && luhn_valid(&self.digits) {
            let keyed = SecretBytes::new(std::mem::take(&mut *self.digits));
            return ask_counting(desk, self.payer, keyed, 0, Again::First);
        }
        not_understood(desk, self.payer, Again::NotUnderstood)
    }
}

impl std::fmt::Debug for KeyingCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyingCard").field("payer", &self.payer).finish_non_exhaustive()
    }
}

impl AskingCounting {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match desk.hear(event) {
            Heard::Waiting | Heard::Other(_) => self.into(),
            Heard::Utterance(facts) => match advice::unfit(facts, desk.cfg.policy.voice.min_net_speech_ms) {
                None => judging::begin(desk, self.payer, Some(judging::Keyed { digits: self.keyed, asked: self.asked })),
                Some(why) => {
                    let mut state = self;
                    if state.payer.person.unclear(desk.cfg) {
                        return closing::not_completed(desk);
                    }
                    ask_count(desk, AskingCounting { silences: 0, ..state }, why)
                }
            },
            Heard::Nothing if self.silences >= desk.cfg.silence_limit_reprompts => closing::not_completed(desk),
            Heard::Nothing => {
                let silences = self.silences.saturating_add(1);
                ask_count(desk, Self { silences, ..self }, Again::Silence)
            }
        }
    }
}
