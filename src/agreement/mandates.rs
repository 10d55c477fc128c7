//! Mandates: what a payer agrees to after a first payment, and paying by one: a code that was sent, no card number (system 2).

use std::collections::BTreeSet;

use serde_json::json;

use super::codes::CodeError;
use super::{AgreeError, Agreed, Agreements, Asking, CodeTold, Refusal};
use crate::ids::{IntentId, MandateId};
use crate::money::Money;
use crate::payment::{Capture, Condition, Evidence, IntentStatus, Mandate, Occasion, PaymentRequest};
use crate::processor::{ChargeOrder, OrderGuards};
use crate::store::{StoreError, SubmitRefusal, papers};

/// What a payer may be offered after a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MandateOffer {
    /// The payment.
    pub first: IntentId,
    /// No single payment above this.
    pub cap: Money,
}

impl Agreements {
    /// What may be offered after this payment; `None` if it was not paid, or there is a mandate for the payee already.
    pub async fn mandate_offer(&self, first: &IntentId) -> Result<Option<MandateOffer>, StoreError> {
        let store = &*self.inner.store;
        let Some(payment) = store.payment(first).await? else { return Ok(None) };
        let intent = payment.intent;
        if intent.status != IntentStatus::Paid {
            return Ok(None);
        }
        let held: Vec<Mandate> = papers::of(store, &intent.customer).await?;
        let has = held.iter().any(|m| m.payee == intent.payee && m.cap.currency == intent.amount.currency);
        Ok((!has).then(|| MandateOffer { first: first.clone(), cap: intent.amount }))
    }

    /// The payer agreed to this wording. The same payment leaves one mandate, however often this is called.
    pub async fn grant_mandate(
        &self,
        first: &IntentId,
        cap: Money,
        consent: Occasion,
        wording: &str,
    ) -> Result<Option<Mandate>, StoreError> {
        let inner = &*self.inner;
        let Some(offer) = self.mandate_offer(first).await? else { return Ok(None) };
        if cap.currency != offer.cap.currency {
            return Ok(None);
        }
        let Some(payment) = inner.store.payment(first).await? else { return Ok(None) };
        let (intent, now) = (payment.intent, inner.clock.now());
        let mandate = Mandate {
            id: MandateId::fresh_at(now, &*inner.entropy),
            customer: intent.customer,
            card: intent.card,
            payee: intent.payee,
            cap,
            first: first.clone(),
            consent,
            wording: wording.to_owned(),
            revoked_at: None,
            created_at: now,
            version: 0,
        };
        let told = json!({ "mandate": mandate.id, "customer": mandate.customer, "payee": mandate.payee, "intent": first,
            "cap_minor": cap.minor, "currency": cap.currency });
        let audit = inner.audit(now, mandate.customer.as_str(), "mandate.granted", mandate.id.as_str(), told.clone());
        match papers::write(&*inner.store, &mandate, &audit, &[inner.news(now, "mandate.granted", told)]).await {
            // Another one was granted a moment ago.
            Err(StoreError::Exists(_)) => Ok(None),
            done => done.map(|()| Some(mandate)),
        }
    }

    /// Takes a mandate back; one that was taken back stays so.
    pub async fn revoke_mandate(&self, id: &MandateId, by: &str) -> Result<Mandate, AgreeError> {
        let inner = &*self.inner;
        let mandate: Mandate = papers::read(&*inner.store, id.as_str()).await?.ok_or(AgreeError::NoSuch("mandate"))?;
        if !mandate.holds() {
            return Ok(mandate);
        }
        let now = inner.clock.now();
        let revoked = mandate.revoke(now);
        let told = json!({ "mandate": revoked.id, "customer": revoked.customer, "payee": revoked.payee });
        let audit = inner.audit(now, by, "mandate.revoked", id.as_str(), told.clone());
        papers::write(&*inner.store, &revoked, &audit, &[inner.news(now, "mandate.revoked", told)]).await?;
        Ok(revoked)
    }

    /// Pays by a mandate and the code that was sent, without a call. The code is used up whatever follows.
    pub async fn pay_by_mandate(&self, request: &PaymentRequest, digits: &[u8]) -> Result<(Agreed, CodeTold), CodeError> {
        let refused = |why| Ok((Agreed::Refused(Refusal::Submit(why)), CodeTold::Dead));
        let asked = self.ask(request, Asking::api()).await?;
        // Another card or payee, or more than agreed: the whole way has to be gone.
        let Some(mandate) = asked.mandate else { return refused(SubmitRefusal::NoUsableCard) };
        let (code, told) = self.try_code(request, digits).await?;
        let (Some(code), CodeTold::Good) = (code, told) else {
            return Ok((Agreed::Refused(Refusal::NotMet(Condition::Code)), told));
        };
        let order = ChargeOrder {
            customer: request.customer.clone(),
            request: request.id.clone(),
            amount: request.amount,
            card: mandate.card.clone(),
            occasion: Occasion::Code(code),
            capture: Capture::Automatic,
            evidence: Evidence::default(),
            guards: OrderGuards::default(),
        };
        let met = BTreeSet::from([Condition::Code]);
        match self.agree(order, met, Asking::api()).await {
            Ok(agreed) => Ok((agreed, told)),
            Err(AgreeError::Store(e)) => Err(e.into()),
            Err(AgreeError::NoSuch(_) | AgreeError::Approval(_)) => refused(SubmitRefusal::NoSuchRequest),
        }
    }
}
