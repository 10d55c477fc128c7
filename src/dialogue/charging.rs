//! The payment is handed over, once, and its outcome awaited. From here on nothing that the caller does stops it.

use super::closing::{self, close};
use super::effect::{Approval, CallVerdict, Charge, Effect, Notice};
use super::input::{DeadlineKind, OpenRequest, PaymentOutcome};
use super::judging::Proven;
use super::line::Desk;
use super::mandate::{self, Offer};
use super::payer::{Follow, Payer};
use super::prompt::Prompt;
use super::stage::{Event, Stage, Told};
use crate::ids::{CardId, CustomerId};

/// Handed over.
#[derive(Debug)]
pub(super) struct Charging {
    customer: CustomerId,
    request: OpenRequest,
    card: CardId,
    announced: bool,
    outcome: Option<PaymentOutcome>,
    /// What the template may follow once it is paid.
    follow: Option<Follow>,
}

/// Hands it over. Consumes the payer and the proof: there is nothing left to charge a second time with.
pub(super) fn begin(desk: &mut Desk<'_>, payer: Payer, proven: Proven, continuity_cosine: f32) -> Stage {
    desk.rest();
    let (code, fresh_digits) = (proven.code(), proven.fresh_digits());
    let Payer { person, cards: _, request, agreed: _ } = payer;
    let asks = &request.asks;
    // The stages before come here with all of it. Should one of them not, nobody is charged.
    let in_app = asks.bound.is_some();
    let digits_due = asks.fresh_digits || in_app;
    let bound = asks.bound.as_ref().is_none_or(|bound| *bound == proven.card().id);
    if asks.denied || (asks.needs_code() && code.is_none()) || (digits_due && !fresh_digits) || !bound {
        return closing::service_trouble(desk);
    }
    let (voice, card, number) = proven.into_parts();
    let (follow, customer) = (person.follow(), person.customer);
    let score = voice.score();
    let approval = Approval {
        voice_cosine: score.cosine,
        voice_llr: score.llr,
        voice_net_speech_ms: score.net_speech_ms,
        voice_model: score.model.clone(),
        number,
        fresh_digits,
        code,
        others: request.asks.others,
        continuity_cosine,
        policy_version: desk.cfg.policy_version.clone(),
    };
    desk.push(Effect::RecordSuccess { customer: customer.clone() });
    desk.push(Effect::Charge(Box::new(Charge {
        customer: customer.clone(),
        request: request.id.clone(),
        amount: request.amount,
        card: card.id.clone(),
        approval,
    })));
    desk.arm(DeadlineKind::Work, desk.cfg.payment_wait_ms);
    if in_app {
        // A page shows that it is being paid: what became of it is not kept waiting for words.
        desk.arm(DeadlineKind::Patience, desk.cfg.patience_ms);
    } else {
        desk.play(if request.asks.others { Prompt::Noting } else { Prompt::Charging });
    }
    Charging { customer, request, card: card.id, announced: in_app, outcome: None, follow }.into()
}

impl Charging {
    pub(super) fn on(mut self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::PromptDone => {
                self.announced = true;
                match self.outcome.take() {
                    Some(outcome) => self.tell(desk, outcome),
                    None => {
                        desk.arm(DeadlineKind::Patience, desk.cfg.patience_ms);
                        self.into()
                    }
                }
            }
            Event::Told(Told::Payment(outcome)) if self.announced => self.tell(desk, outcome),
            Event::Told(Told::Payment(outcome)) => {
                // The first answer stands.
                self.outcome.get_or_insert(outcome);
                self.into()
            }
            Event::Overdue => {
                let outcome = self.outcome.take().unwrap_or(PaymentOutcome::Unknown);
                self.tell(desk, outcome)
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

    fn tell(self, desk: &mut Desk<'_>, outcome: PaymentOutcome) -> Stage {
        let verdict = verdict_of(&outcome);
        let prompt = match outcome {
            PaymentOutcome::Paid { reference } => {
                if let Some(Follow { voice, unblemished }) = self.follow {
                    desk.push(Effect::FollowVoice { customer: self.customer.clone(), voice, unblemished });
                }
                let OpenRequest { id, amount, payee, due: _, asks } = self.request;
                let paid = Prompt::Paid { amount, payee: payee.clone(), reference };
                match asks.offer_mandate {
                    // A mandate that was used is there already.
                    Some(cap) if desk.cfg.offer_mandates && asks.mandate.is_none() && asks.bound.is_none() => {
                        let offer = Offer { customer: self.customer, request: id, payee, card: self.card, cap };
                        return mandate::offer(desk, paid, offer);
                    }
                    Some(_) | None => paid,
                }
            }
            PaymentOutcome::Waiting => Prompt::Waiting,
            PaymentOutcome::Declined => Prompt::Declined,
            PaymentOutcome::Unknown => {
                desk.push(Effect::Notify { customer: self.customer, notice: Notice::OutcomePending });
                Prompt::OutcomeUnknown
            }
            PaymentOutcome::Refused => Prompt::Refused,
            PaymentOutcome::NotSubmitted => Prompt::ServiceProblem,
        };
        close(desk, verdict, prompt)
    }

    /// The caller hung up: the payment goes on, and is told by other means.
    pub(super) fn gone(self, desk: &mut Desk<'_>) -> Stage {
        let verdict = match &self.outcome {
            Some(outcome) => verdict_of(outcome),
            None => CallVerdict::OutcomeUnknown,
        };
        if verdict == CallVerdict::OutcomeUnknown {
            desk.push(Effect::Notify { customer: self.customer, notice: Notice::OutcomePending });
        }
        Stage::Over(verdict)
    }
}

fn verdict_of(outcome: &PaymentOutcome) -> CallVerdict {
    match outcome {
        PaymentOutcome::Paid { .. } => CallVerdict::Paid,
        PaymentOutcome::Waiting => CallVerdict::Waiting,
        PaymentOutcome::Declined => CallVerdict::Declined,
        PaymentOutcome::Unknown => CallVerdict::OutcomeUnknown,
        PaymentOutcome::Refused => CallVerdict::Refused,
        PaymentOutcome::NotSubmitted => CallVerdict::ServiceTrouble,
    }
}
