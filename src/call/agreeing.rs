//! What rules ask of a payer beside voice, number and yes, at the edge: one-time codes, the agreement of others, mandates; and the deletion
//! of a voice by its owner. Who knows the rules and keeps codes and approvals stands behind [`Agreeing`]; where nobody does, nothing is
//! asked for and nothing of it can be had.

use std::sync::Arc;

use async_trait::async_trait;

use super::desk::{Desk, DeskError};
use super::driver::Call;
use super::figures;
use super::work::{Done, Kept};
use crate::clock::Timestamp;
use crate::dialogue::{
    Asks, Caller, ChallengeHeard, Charge, CodeChecked, CodeGiven, CodeSent, Consent, Input, MandateGrant, PaymentOutcome,
    ScoreTrouble,
};
use crate::ids::{CallId, CustomerId, IntentId, RequestId};
use crate::payment::PaymentRequest;
use crate::processor::ChargeOrder;
use crate::secret::SecretBytes;
use crate::store::StoreError;

/// How far the calling number can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Somebody whom we trust vouches for it.
    Vouched,
    /// Nobody does; or none was given, or a customer number was keyed.
    Unvouched,
    /// It is signed, and the signature does not hold.
    Disputed,
}

impl Standing {
    /// Of a caller; `nominated`: the calling number itself led to the customer.
    pub(super) fn of(caller: &Caller, nominated: bool) -> Self {
        match caller {
            Caller::Disputed(_) => Self::Disputed,
            Caller::Attested(_) if nominated => Self::Vouched,
            Caller::Attested(_) | Caller::Unattested(_) | Caller::Withheld => Self::Unvouched,
        }
    }
}

/// What became of a code that was asked for.
#[derive(Debug)]
pub enum Sent {
    /// On its way. The call keeps these digits (digit values 0 to 9) in memory, to compare what is said with them.
    Code(SecretBytes),
    /// There is no way to send this customer one.
    NoWay,
    /// Enough were sent for this request.
    Enough,
}

/// What became of a payer's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreed {
    /// Everybody needed has agreed: it is the processor's now.
    Charged(IntentId),
    /// Kept; it is charged once the others have agreed.
    Waiting,
    /// A rule refuses it: nothing was written that could charge.
    Refused(String),
}

/// A payer's part in a payment: everything that was asked for in the call holds.
#[derive(Clone, Debug)]
pub struct PayersPart {
    /// What would be charged, and on what evidence.
    pub order: ChargeOrder,
    /// The call.
    pub call: CallId,
    /// Fresh digits were said.
    pub fresh_digits: bool,
    /// A one-time code was used up.
    pub code: bool,
    /// A mandate stood for the card's number.
    pub mandate: bool,
    /// How far the calling number can be trusted.
    pub standing: Standing,
}

/// The rules and whatever they ask for, as a call sees them. Each answer is durable before it is given.
#[async_trait]
pub trait Agreeing: Send + Sync {
    /// What has to hold for this payment by telephone.
    async fn asks(&self, request: &PaymentRequest, standing: Standing, now: Timestamp) -> Result<Asks, StoreError>;

    /// Makes a one-time code for this request, voids an older one, and has it sent.
    async fn send_code(&self, customer: &CustomerId, request: &RequestId, now: Timestamp) -> Result<Sent, StoreError>;

    /// Uses a code up if these digits are right, else counts a wrong try. `None`: something was said that was not it, which is a wrong try.
    async fn check_code(
        &self,
        customer: &CustomerId,
        request: &RequestId,
        digits: Option<&SecretBytes>,
        now: Timestamp,
    ) -> Result<CodeChecked, StoreError>;

    /// Takes the payer's part. Asked again with the same call and request it answers the same, and charges once.
    async fn agree(&self, part: PayersPart, now: Timestamp) -> Result<Agreed, StoreError>;

    /// Leaves a mandate for the payments to come; `false`: a rule refuses it.
    async fn grant_mandate(&self, call: &CallId, grant: &MandateGrant, now: Timestamp) -> Result<bool, StoreError>;
}

impl Call {
    pub(super) fn send_code(&mut self, customer: CustomerId, request: RequestId) {
        let (services, now) = (Arc::clone(&self.services), self.now());
        self.jobs.spawn(async move {
            let Some(agreeing) = services.desk.agreeing.clone() else { return Done::tell(Input::CodeSent(CodeSent::NoWay)) };
            match services.off_clock(agreeing.send_code(&customer, &request, now)).await {
                Ok(Sent::Code(digits)) => Done::tell(Input::CodeSent(CodeSent::Sent))
                    .line("a one-time code is sent", figures([]))
                    .keep(Kept::Code(digits)),
                Ok(Sent::NoWay) => {
                    Done::tell(Input::CodeSent(CodeSent::NoWay)).line("there is no way to send this customer a code", figures([]))
                }
                Ok(Sent::Enough) => Done::tell(Input::CodeSent(CodeSent::Enough)).line("enough codes were sent", figures([])),
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

    pub(super) fn check_code(&mut self, customer: CustomerId, request: RequestId, given: CodeGiven) {
        let (services, now) = (Arc::clone(&self.services), self.now());
        let digits = match given {
            CodeGiven::Keyed(digits) => Some(digits),
            CodeGiven::Spoken => self.code.as_ref().map(|code| SecretBytes::new(code.expose().to_vec())),
            CodeGiven::SpokenOtherwise => None,
        };
        self.jobs.spawn(async move {
            let Some(agreeing) = services.desk.agreeing.clone() else {
                return Done::tell(Input::CodeChecked(CodeChecked::Trouble));
            };
            match services.off_clock(agreeing.check_code(&customer, &request, digits.as_ref(), now)).await {
                Ok(checked) => {
                    let what = match checked {
                        CodeChecked::Good => "the one-time code is right, and used up",
                        CodeChecked::Wrong { .. } => "the one-time code is refused",
                        CodeChecked::Expired => "the one-time code is no longer good",
                        CodeChecked::Trouble => "the one-time code could not be checked",
                    };
                    Done::tell(Input::CodeChecked(checked)).line(what, figures([]))
                }
                Err(error) => {
                    tracing::error!(%error, "a one-time code could not be checked");
                    Done::tell(Input::CodeChecked(CodeChecked::Trouble))
                }
            }
        });
    }

    pub(super) fn grant_mandate(&mut self, grant: MandateGrant) {
        let (services, now, call) = (Arc::clone(&self.services), self.now(), self.id.clone());
        self.jobs.spawn(async move {
            let Some(agreeing) = services.desk.agreeing.clone() else { return Done::tell(Input::MandateGranted(false)) };
            match services.off_clock(agreeing.grant_mandate(&call, &grant, now)).await {
                Ok(true) => Done::tell(Input::MandateGranted(true)).line("a mandate is given", figures([])),
                Ok(false) => Done::tell(Input::MandateGranted(false)).line("a mandate is refused", figures([])),
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
    pub(super) async fn asks(&self, request: &PaymentRequest, standing: Standing, now: Timestamp) -> Result<Asks, DeskError> {
        match &self.agreeing {
            Some(agreeing) => Ok(agreeing.asks(request, standing, now).await?),
            None => Ok(Asks::default()),
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

    /// Hands the payer's part to those who know the rules; asked twice where the first answer was lost.
    pub(super) async fn agree(
        &self,
        agreeing: &dyn Agreeing,
        part: PayersPart,
        now: Timestamp,
    ) -> Result<Agreed, PaymentOutcome> {
        let call = part.call.clone();
        let agreed = match agreeing.agree(part.clone(), now).await {
            Err(_may_have_been_written) => agreeing.agree(part, now).await,
            done => done,
        };
        match agreed {
            Ok(Agreed::Refused(why)) => {
                tracing::warn!(%call, %why, "a charge was refused before it was sent");
                Err(PaymentOutcome::Refused)
            }
            Ok(agreed) => Ok(agreed),
            Err(error) => {
                tracing::error!(%call, %error, "a payer's part could not be handed over");
                Err(PaymentOutcome::NotSubmitted)
            }
        }
    }
}

/// The parts of a charge that rules look at, before the desk takes it apart.
pub(super) fn held(charge: &Charge) -> (bool, bool, bool) {
    let approval = &charge.approval;
    (approval.fresh_digits, approval.code.is_some(), approval.number == crate::dialogue::NumberSummary::Mandate)
}
