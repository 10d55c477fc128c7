//! Mandates. Before a payment: the card's number need not be said where an earlier payment to this payee left one. After a first payment:
//! one is offered, and given only by a yes in the voice that paid. By then the payment is made: nothing here charges, and nothing here can
//! end a call as anything but paid.

use super::advice;
use super::closing::{self, close};
use super::code;
use super::effect::{AnswerVoice, CallVerdict, Consent, Effect, ListenFor, MandateGrant};
use super::input::{AnswerHeard, DeadlineKind, Keypress};
use super::judging::Proven;
use super::line::{Desk, Heard, nth};
use super::payer::Payer;
use super::prompt::{Again, Prompt, SpokenPayee};
use super::stage::{Event, Stage, Told};
use crate::decision::{Answer, VoiceAccepted};
use crate::ids::{CardId, CustomerId, RequestId};
use crate::money::Money;

/// Fresh digits were said in the payer's voice: the card that the mandate names, or that an app has bound, stands for its number. By a mandate
/// a code comes next, always.
pub(super) fn held(desk: &mut Desk<'_>, payer: Payer, accepted: VoiceAccepted) -> Stage {
    desk.answered();
    let proven = match payer.bound() {
        Some(card) => Proven::by_app(accepted, card),
        None => payer.mandated().and_then(|card| Proven::by_mandate(accepted, card)),
    };
    match proven {
        Some(proven) => code::or_read_back(desk, payer, proven),
        None => closing::service_trouble(desk), // neither can have gone since it was looked up
    }
}

/// What a mandate would be given for.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) customer: CustomerId,
    pub(super) request: RequestId,
    pub(super) payee: SpokenPayee,
    pub(super) card: CardId,
    pub(super) cap: Money,
}

/// It is paid, which is being said; or the offer is being made.
#[derive(Debug)]
pub(super) struct Offering {
    offer: Box<Offer>,
    /// How often it was made; none while the payment's outcome is still being said.
    asked: u32,
}

/// The answer is being understood.
#[derive(Debug)]
pub(super) struct HearingOffer {
    offering: Offering,
}

/// The mandate is being written.
#[derive(Debug)]
pub(super) struct Granting;

/// Tells that it is paid, and then offers.
pub(super) fn offer(desk: &mut Desk<'_>, paid: Prompt, offer: Offer) -> Stage {
    desk.rest();
    desk.play(paid);
    // A prompt that never ends must not hold the call.
    desk.arm(DeadlineKind::Work, desk.cfg.closing_limit_ms);
    Offering { offer: Box::new(offer), asked: 0 }.into()
}

/// No mandate; the payment stays what it is.
pub(super) fn none(desk: &mut Desk<'_>) -> Stage {
    close(desk, CallVerdict::Paid, Prompt::MandateNotKept)
}

impl Offering {
    fn ask(mut self, desk: &mut Desk<'_>, why: Again) -> Stage {
        if self.asked >= desk.cfg.answer_limit_tries {
            return none(desk);
        }
        self.asked = self.asked.saturating_add(1);
        let Offer { payee, cap, .. } = &*self.offer;
        let prompt = Prompt::OfferMandate { payee: payee.clone(), cap: *cap, attempt: nth(self.asked), why };
        desk.ask(prompt, ListenFor::Answer, false);
        self.into()
    }

    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        if self.asked == 0 {
            return match event {
                Event::PromptDone => self.ask(desk, Again::First),
                Event::Key(Keypress::Star) | Event::Overdue => none(desk),
                Event::Key(Keypress::Digit(_) | Keypress::Pound)
                | Event::SpeechStarted
                | Event::Utterance(_)
                | Event::Nothing
                | Event::NextKeyDue
                | Event::ReplyDue
                | Event::Told(_) => self.into(),
            };
        }
        match desk.hear(event) {
            Heard::Utterance(facts) => match advice::unfit_for_words(facts) {
                None => {
                    desk.push(Effect::ReadAnswer { voice: AnswerVoice::AsBefore });
                    desk.expect_answer(desk.cfg.score_wait_ms);
                    HearingOffer { offering: self }.into()
                }
                Some(why) => self.ask(desk, why),
            },
            // Who says nothing wants nothing.
            Heard::Nothing | Heard::Other(Event::Key(Keypress::Star) | Event::Overdue) => none(desk),
            Heard::Waiting | Heard::Other(_) => self.into(),
        }
    }
}

impl HearingOffer {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::Answer(Ok(heard))) => {
                desk.answered();
                self.understood(desk, heard)
            }
            Event::Told(Told::Answer(Err(_))) | Event::Overdue | Event::Key(Keypress::Star) => none(desk),
            Event::PromptDone
            | Event::Key(Keypress::Digit(_) | Keypress::Pound)
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
            (Answer::Yes, Some(continuity_cosine)) if !heard_before && continuity_cosine >= desk.cfg.continuity_cosine => {
                let Offer { customer, request, payee: _, card, cap } = *self.offering.offer;
                let consent = Consent { at: desk.now, policy_version: desk.cfg.policy_version.clone() };
                desk.push(Effect::GrantMandate(Box::new(MandateGrant {
                    customer,
                    request,
                    card,
                    cap,
                    consent,
                    continuity_cosine,
                })));
                desk.expect_answer(desk.cfg.lookup_wait_ms);
                Granting.into()
            }
            (Answer::Unclear, _) => self.offering.ask(desk, Again::NotUnderstood),
            // Another voice, a recorded yes, a no: nothing is kept.
            (Answer::Yes | Answer::No | Answer::Cancel, _) => none(desk),
        }
    }
}

impl Granting {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::MandateGranted(true)) => close(desk, CallVerdict::Paid, Prompt::MandateKept),
            Event::Told(Told::MandateGranted(false)) => none(desk),
            // It may be there or not: nothing is said of it.
            Event::Overdue => closing::goodbye(desk, CallVerdict::Paid),
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
