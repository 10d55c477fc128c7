//! What rules ask of a payer beside voice, number and yes, at the edge: asked when the customer is known, and once more when the payment is
//! handed over; one-time codes, mandates; and the deletion of a voice by its owner. The rules, codes and approvals are `agreement`'s.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::desk::{Desk, DeskError};
use super::driver::Call;
use super::figures;
use super::timeline::Who;
use super::trace::payment_word;
use super::work::{Done, Kept};
use crate::agreement::{AgreeError, Agreed, Asked, Asking, CodeError, CodeOutcome, CodeTold};
use crate::clock::Timestamp;
use crate::dialogue::{
    Asks, Caller, ChallengeHeard, Charge, CodeChecked, CodeGiven, CodeSent, Consent, Input, MandateGrant, NumberSummary,
    PaymentOutcome, ScoreTrouble,
};
use crate::ids::{CallId, CustomerId, IntentId, RequestId};
use crate::payment::policy::{Attested, Channel};
use crate::payment::{Approval, Condition, Mandate, Occasion, PaymentRequest, Role};
use crate::processor::ChargeOrder;
use crate::secret::SecretBytes;
use crate::store::{StoreError, papers};

/// Who vouches for a calling number. `nominated`: the number itself led to the customer; whoever keys a customer number need not be them.
pub(super) fn attested(caller: &Caller, nominated: bool) -> Attested {
    match caller {
        Caller::Disputed(_) => Attested::Disputed,
        Caller::Attested(_) if nominated => Attested::Vouched,
        Caller::Attested(_) | Caller::Unattested(_) | Caller::Withheld => Attested::Unvouched,
    }
}

/// What a yes in a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HandedOver {
    /// It is the processor's now.
    Charged(IntentId),
    /// Others have to agree first.
    Waiting,
}

impl Call {
    /// Hands a payment over, once, here; from then on it is the processor's, or waits for others, whatever becomes of the call.
    pub(super) async fn hand_over(&mut self, charge: Charge) -> Option<Input> {
        self.timeline.add(Who::Check, format!("hands over {} on {}", charge.amount, charge.card));
        let asking = if self.app.is_some() { Asking::app() } else { Asking::call(attested(&self.caller, self.nominated)) };
        let submitted = self.services.desk.submit(&self.id, charge, asking);
        match self.services.off_clock(submitted).await {
            Ok(HandedOver::Charged(intent)) => {
                self.payment = Some((intent.clone(), payment_word(&PaymentOutcome::Unknown)));
                self.await_payment(intent);
                None
            }
            Ok(HandedOver::Waiting) => {
                self.timeline.add(Who::Check, "noted; others have to agree before it is charged");
                Some(Input::Payment(PaymentOutcome::Waiting))
            }
            Err(outcome) => {
                self.timeline.add(Who::Check, format!("not handed over: {outcome:?}"));
                Some(Input::Payment(outcome))
            }
        }
    }

    pub(super) fn send_code(&mut self, request: RequestId) {
        let services = Arc::clone(&self.services);
        self.jobs.spawn(async move {
            match services.off_clock(services.desk.send_code(&request)).await {
                Ok(Some(CodeOutcome::Sent(code))) => Done::tell(Input::CodeSent(CodeSent::Sent))
                    .line("a one-time code is sent", figures([]))
                    .keep(Kept::Code(code.digits)),
                Ok(Some(CodeOutcome::TooMany)) => {
                    Done::tell(Input::CodeSent(CodeSent::Enough)).line("enough one-time codes were sent", figures([]))
                }
                Ok(None) => Done::tell(Input::CodeSent(CodeSent::Trouble)),
                Err(error) => {
                    tracing::error!(%error, "a one-time code could not be sent");
                    Done::tell(Input::CodeSent(CodeSent::Trouble))
                }
            }
        });
    }

    /// Words and voice side by side, as of fresh digits. The code is in memory for this alone, and in no line.
    pub(super) fn score_code(&mut self, customer: CustomerId) {
        let (services, findings, claim) = (Arc::clone(&self.services), self.findings.clone(), self.claim(customer));
        let code = self.code.as_ref().map(|code| zeroize::Zeroizing::new(code.expose().to_vec()));
        self.jobs.spawn(async move {
            let trouble = |t| Done::tell(Input::CodeScored(Err(t)));
            let (Some(findings), Some(code)) = (findings, code) else { return trouble(ScoreTrouble::Failed) };
            let (voice, content) =
                tokio::join!(services.compare_voice(&claim, &findings), services.phrase_in(&findings, code.to_vec()));
            let (compared, content) = match (voice, content) {
                (Ok(compared), Ok(content)) => (compared, content),
                (Err(t), _) | (_, Err(t)) => return trouble(t),
            };
            let t = services.policy.phrase;
            let what = format!(
                "one-time code: {:.1} nats (accepted from {:.1}, rejected below {:.1})",
                content.llr, t.accept_llr, t.reject_llr
            );
            let numbers = figures([("phrase_llr", content.llr.into())]);
            let done = Done::tell(Input::CodeScored(Ok(ChallengeHeard { voice: compared.heard, content })))
                .line(compared.what, compared.figures)
                .line(what, numbers);
            match compared.embedding {
                Some(embedding) => done.keep(Kept::Voice(Box::new(embedding))),
                None => done,
            }
        });
    }

    pub(super) fn check_code(&mut self, request: RequestId, given: CodeGiven) {
        let services = Arc::clone(&self.services);
        let digits = match given {
            CodeGiven::Keyed(digits) => Some(digits),
            CodeGiven::Spoken => self.code.as_ref().map(|code| SecretBytes::new(code.expose().to_vec())),
            // No digits are no code: a wrong try like any other.
            CodeGiven::SpokenOtherwise => None,
        };
        self.jobs.spawn(async move {
            let checked = services.desk.check_code(&request, digits.as_ref().map_or(&[], |d| d.expose()));
            let (checked, what) = match services.off_clock(checked).await {
                Ok(Some(CodeTold::Good)) => (CodeChecked::Good, "the one-time code is right, and used up"),
                Ok(Some(CodeTold::Wrong(left))) => (CodeChecked::Wrong { left }, "the one-time code is refused"),
                Ok(Some(CodeTold::Dead)) => (CodeChecked::Expired, "the one-time code is no longer good"),
                Ok(None) => (CodeChecked::Trouble, "the one-time code could not be checked"),
                Err(error) => {
                    tracing::error!(%error, "a one-time code could not be checked");
                    (CodeChecked::Trouble, "the one-time code could not be checked")
                }
            };
            Done::tell(Input::CodeChecked(checked)).line(what, figures([]))
        });
    }

    /// Of the payment of this call, which is paid.
    pub(super) fn grant_mandate(&mut self, grant: &MandateGrant) {
        let (services, cap, consent) = (Arc::clone(&self.services), grant.cap, Occasion::Call(self.id.clone()));
        let wording = grant.consent.policy_version.clone();
        let first = self.payment.as_ref().map(|(intent, _)| intent.clone());
        self.jobs.spawn(async move {
            let Some(first) = first else { return Done::tell(Input::MandateGranted(false)) };
            match services.off_clock(services.desk.agreements.grant_mandate(&first, cap, consent, &wording)).await {
                Ok(Some(mandate)) => {
                    Done::tell(Input::MandateGranted(true)).line(format!("a mandate is given: {}", mandate.id), figures([]))
                }
                Ok(None) => Done::tell(Input::MandateGranted(false)).line("no mandate can be given", figures([])),
                Err(error) => {
                    tracing::error!(%error, "a mandate could not be given");
                    Done::tell(Input::MandateGranted(false))
                }
            }
        });
    }

    pub(super) fn delete_voice(&mut self, customer: CustomerId, consent: Consent) {
        let (services, now, call) = (Arc::clone(&self.services), self.now(), self.id.clone());
        // What this call has of it goes, too.
        (self.voice, self.fresh) = (None, None);
        self.jobs.spawn(async move {
            match services.off_clock(services.desk.delete_voice(&call, &customer, &consent, now)).await {
                Ok(()) => Done::tell(Input::VoiceDeleted(true)).line("the voice is erased", figures([])),
                Err(error) => {
                    tracing::error!(%error, "a voice could not be erased");
                    Done::tell(Input::VoiceDeleted(false))
                }
            }
        });
    }
}

impl Desk {
    /// What has to hold for a payment beside what every call asks.
    pub(super) async fn asks(&self, request: &PaymentRequest, asking: Asking) -> Result<Asks, DeskError> {
        let asked = self.agreements.ask(request, asking).await?;
        // An app has bound a card already: a mandate would stand for nothing, and is not offered.
        let in_app = asking.channel == Channel::App;
        let by_mandate = match &asked.mandate {
            Some(_) if in_app => None,
            Some(_) => Some(self.agreements.ask(request, Asking { by_mandate: true, ..asking }).await?),
            None => None,
        };
        // One that rules don't let stand for the number is of no use in this call.
        let mandate = by_mandate.filter(|a| !denies(a));
        let wants = |c| asked.terms.asks(c) || mandate.as_ref().is_some_and(|m| m.terms.asks(c));
        let others = asked.terms.needs_another() || mandate.as_ref().is_some_and(|m| m.terms.needs_another());
        let parties = asked.parties();
        Ok(Asks {
            denied: denies(&asked),
            fresh_digits: wants(Condition::FreshDigits),
            code: wants(Condition::Code),
            others: others && !self.agreed_before(request, &parties).await?,
            offer_mandate: (!in_app && self.may_offer(request, &asked).await?).then_some(request.amount),
            mandate: mandate.and_then(|m| m.mandate).map(|m| m.card),
            bound: None,
        })
    }

    /// Whether everybody else has agreed already: whoever comes first, the payer then pays at once.
    async fn agreed_before(&self, request: &PaymentRequest, parties: &[(Role, CustomerId)]) -> Result<bool, StoreError> {
        let open: Vec<Approval> = papers::about(&*self.store, request.id.as_str()).await?;
        Ok(open.iter().any(|a| a.fits(request) && a.agreed_by_each(parties)))
    }

    /// At the first payment to a payee, unless there is a mandate for that payee.
    async fn may_offer(&self, request: &PaymentRequest, asked: &Asked) -> Result<bool, StoreError> {
        if asked.facts.history.paid_before_payee > 0 {
            return Ok(false);
        }
        let held: Vec<Mandate> = papers::of(&*self.store, &request.customer).await?;
        Ok(!held.iter().any(|m| m.payee == request.payee && m.cap.currency == request.amount.currency))
    }

    /// `None`: there is no such request.
    async fn send_code(&self, request: &RequestId) -> Result<Option<CodeOutcome>, CodeError> {
        match self.store.request(request).await? {
            Some(found) => self.agreements.send_code(&found.request).await.map(Some),
            None => Ok(None),
        }
    }

    /// `None`: there is no such request.
    async fn check_code(&self, request: &RequestId, digits: &[u8]) -> Result<Option<CodeTold>, CodeError> {
        match self.store.request(request).await? {
            Some(found) => self.agreements.check_code(&found.request, digits).await.map(Some),
            None => Ok(None),
        }
    }

    /// Erases a voice, its owner having said fresh digits and yes in it.
    async fn delete_voice(
        &self,
        call: &CallId,
        customer: &CustomerId,
        consent: &Consent,
        now: Timestamp,
    ) -> Result<(), DeskError> {
        let mut audit = self.audit(now, "voice.withdrawn", customer.as_str(), call);
        audit.detail = serde_json::json!({ "call": call, "agreed_at": consent.at, "policy_version": consent.policy_version });
        Ok(self.store.delete_template(customer, &audit).await?)
    }

    /// Hands the payer's part over: rules are asked once more, by what held in this call. From here on the payment goes on, or waits for
    /// others, whatever becomes of the call.
    pub(super) async fn agree(
        &self,
        call: &CallId,
        held: Held,
        asking: Asking,
        order: ChargeOrder,
    ) -> Result<HandedOver, PaymentOutcome> {
        let asking = Asking { by_mandate: held.mandate, ..asking };
        let met: BTreeSet<Condition> = [(held.fresh_digits, Condition::FreshDigits), (held.code, Condition::Code)]
            .into_iter()
            .filter_map(|(h, c)| h.then_some(c))
            .collect();
        // An error at the commit may come after it: asked again it comes to the same end.
        let agreed = match self.agreements.agree(order.clone(), met.clone(), asking).await {
            Err(AgreeError::Store(_)) => self.agreements.agree(order, met, asking).await,
            done => done,
        };
        match agreed {
            Ok(Agreed::Charged(intent)) => Ok(HandedOver::Charged(intent)),
            Ok(Agreed::Waiting { .. }) => Ok(HandedOver::Waiting),
            Ok(Agreed::Refused(why)) => {
                tracing::warn!(%call, ?why, "a charge was refused before it was sent");
                Err(PaymentOutcome::Refused)
            }
            Err(AgreeError::Store(error)) => {
                tracing::error!(%call, %error, "a charge could not be handed over");
                Err(PaymentOutcome::NotSubmitted)
            }
            Err(error @ (AgreeError::NoSuch(_) | AgreeError::Approval(_))) => {
                tracing::warn!(%call, %error, "a payer's part came to nothing");
                Err(PaymentOutcome::Refused)
            }
        }
    }
}

/// Not at all, or only if somebody agrees whom there is not.
fn denies(asked: &Asked) -> bool {
    let parties = asked.parties();
    let nobody = |c: &Condition| Role::of(*c).is_some_and(|role| !parties.iter().any(|(r, _)| *r == role));
    asked.terms.denied() || asked.terms.conditions.iter().any(nobody)
}

/// What rules look at, of what held in a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    fresh_digits: bool,
    code: bool,
    mandate: bool,
}

impl Held {
    pub(super) fn of(charge: &Charge) -> Self {
        let approval = &charge.approval;
        Self {
            fresh_digits: approval.fresh_digits,
            code: approval.code.is_some(),
            mandate: approval.number == NumberSummary::Mandate,
        }
    }
}
