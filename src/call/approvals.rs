//! Approvals as calls see them that we place: what there is to say to whom we called, and the one hand-over of an answer.

use std::sync::Arc;
use std::time::Duration;

use crate::agreement::{AgreeError, Agreements};
use crate::clock::Timestamp;
use crate::decision::Policy;
use crate::dialogue::{Decision, DecisionOutcome, Matter, Purpose, SpokenPayee, Told};
use crate::ids::{ApprovalId, CallId, CustomerId};
use crate::payment::{Approval, ApprovalState, Evidence, How, RequestStatus};
use crate::processor::{Outcome, Processor};
use crate::store::{Store, StoreError, papers};

/// Where approvals are kept and settled.
#[derive(Clone, Debug)]
pub struct Approvals {
    /// Rows.
    pub store: Arc<dyn Store>,
    /// What follows of a yes or a no.
    pub agreements: Agreements,
    /// What became of a payment.
    pub processor: Processor,
    /// Thresholds as the evidence states them.
    pub policy: Policy,
}

impl Approvals {
    /// What there is to say to this customer, as it stands now.
    pub async fn matter(&self, customer: &CustomerId, purpose: &Purpose, now: Timestamp) -> Matter {
        let read = match purpose {
            Purpose::Decide(approval) => self.question(approval, customer, now).await,
            Purpose::Tell(approval) => self.result(approval, customer).await,
        };
        read.unwrap_or_else(|error| {
            tracing::error!(%error, "an approval could not be read");
            Matter::Trouble
        })
    }

    async fn question(&self, id: &ApprovalId, customer: &CustomerId, now: Timestamp) -> Result<Matter, StoreError> {
        let Some(approval) = self.read(id).await? else { return Ok(Matter::Settled) };
        let theirs = approval.waits_for().any(|party| party.who == *customer);
        if approval.state != ApprovalState::Open || now >= approval.expires_at || !theirs {
            return Ok(Matter::Settled);
        }
        // What is read out is what they agree to. A request that was paid, withdrawn or changed since is none to be asked about.
        match self.store.request(&approval.request).await? {
            Some(found) if approval.fits(&found.request) && found.request.status == RequestStatus::Open => {
                let payee = SpokenPayee { id: approval.payee, name: found.payee_name };
                Ok(Matter::Question { amount: approval.amount, payee })
            }
            Some(_) | None => Ok(Matter::Settled),
        }
    }

    async fn result(&self, id: &ApprovalId, customer: &CustomerId) -> Result<Matter, StoreError> {
        let Some(approval) = self.read(id).await?.filter(|a| a.customer == *customer) else { return Ok(Matter::Settled) };
        let result = match &approval.state {
            ApprovalState::Used { intent } => match self.processor.outcome(intent, Duration::ZERO).await? {
                Outcome::Paid(receipt) => Told::Paid { reference: receipt.reference_digits() },
                Outcome::Declined(_) => Told::Declined,
                // Not known yet; asked again.
                Outcome::Unknown => return Ok(Matter::Trouble),
                // What they should do next is for a person to say.
                Outcome::Reversed | Outcome::Authorised => return Ok(Matter::Settled),
            },
            ApprovalState::Denied { .. } | ApprovalState::Expired | ApprovalState::Withdrawn { .. } => Told::NotAgreed,
            ApprovalState::Open | ApprovalState::Agreed | ApprovalState::Cancelled => return Ok(Matter::Settled),
        };
        let name = self.store.payee(&approval.payee).await?.map(|payee| payee.name).unwrap_or_default();
        Ok(Matter::Result { amount: approval.amount, payee: SpokenPayee { id: approval.payee, name }, result })
    }

    /// Notes an answer; refused where it is no longer this customer's to give, or where something else was read out than what stands there.
    pub async fn decide(&self, call: &CallId, decision: Decision, now: Timestamp) -> DecisionOutcome {
        let (id, customer) = (decision.approval.clone(), decision.customer.clone());
        match self.question(&id, &customer, now).await {
            Ok(Matter::Question { amount, payee }) if amount == decision.amount && payee.id == decision.payee.id => {}
            Ok(Matter::Question { .. } | Matter::Result { .. } | Matter::Settled) => return DecisionOutcome::Settled,
            Ok(Matter::Trouble) => return DecisionOutcome::Trouble,
            Err(error) => {
                tracing::error!(%call, %error, "an approval could not be read");
                return DecisionOutcome::Trouble;
            }
        }
        let yes = decision.yes;
        let how = How::Voice { call: call.clone(), evidence: Box::new(self.evidence(decision)) };
        match self.agreements.decide(&id, &customer, yes, how).await {
            Ok(_decided) => DecisionOutcome::Noted,
            Err(AgreeError::Approval(why)) => {
                tracing::info!(%call, approval = %id, %why, "an answer came too late");
                DecisionOutcome::Settled
            }
            Err(AgreeError::NoSuch(_)) => DecisionOutcome::Settled,
            Err(AgreeError::Store(error)) => {
                tracing::error!(%call, approval = %id, %error, "what follows of an answer could not be written down");
                self.noted(&id, &customer, yes).await
            }
        }
    }

    /// The answer may stand although what follows of it failed: then the sweep goes on from there.
    async fn noted(&self, id: &ApprovalId, customer: &CustomerId, yes: bool) -> DecisionOutcome {
        let said = |approval: Approval| approval.parties.into_iter().filter(|p| p.who == *customer).find_map(|p| p.said);
        let stands = self.read(id).await.ok().flatten().and_then(said).is_some_and(|said| said.yes == yes);
        if stands { DecisionOutcome::Noted } else { DecisionOutcome::Trouble }
    }

    async fn read(&self, id: &ApprovalId) -> Result<Option<Approval>, StoreError> {
        papers::read(&*self.store, id.as_str()).await
    }

    fn evidence(&self, decision: Decision) -> Evidence {
        let Decision { voice, continuity_cosine, policy_version, .. } = decision;
        Evidence {
            voice_cosine: Some(voice.cosine),
            voice_accept_cosine: None,
            voice_llr: Some(voice.llr),
            voice_accept_llr: Some(self.policy.voice.accept_llr),
            voice_net_speech_ms: Some(voice.net_speech_ms),
            voice_model: Some(voice.model),
            number_by: None,
            number_log_ratio: None,
            number_accept_log_ratio: None,
            number_llr: None,
            number_accept_llr: None,
            number_engine: None,
            calibration: Some(voice.calibration),
            yes_continuity: continuity_cosine,
            policy_version,
            rules: None,
            mandate: None,
        }
    }
}
