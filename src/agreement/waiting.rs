//! Purchases that wait for others (systems 6 to 8): the user confirmed, and a guardian or supervisor has to agree. Purchase and approval end
//! together, in one transaction, whichever ends first; and when the last yes comes the purchase is judged once more, as it stands then.

use serde_json::json;

use super::accounts::Change;
use super::purchases::purchase_json;
use super::{AgreeError, Agreements, PurchaseFault, Refusal};
use crate::clock::Timestamp;
use crate::ids::PurchaseId;
use crate::payment::{
    Approval, ApprovalEvent, ApprovalState, ConfirmedBy, Consent, Occasion, PayersPart, Purchase, PurchaseEvent, PurchaseState,
};
use crate::processor::PurchaseGuard;
use crate::store::{Document, StoreError, SubmitRefusal, papers};

/// What a user said with the yes that waits for others.
#[derive(Clone, Debug)]
pub struct Confirmed {
    /// By what.
    pub how: ConfirmedBy,
    /// What they agreed to with it.
    pub consent: Option<Consent>,
}

impl Agreements {
    /// An approval that changed, and the purchase that ends with it, if it ended and one waited for it.
    pub(super) async fn approval_change(
        &self,
        (now, by, word): (Timestamp, &str, &str),
        approval: &Approval,
    ) -> Result<Change, StoreError> {
        let inner = &*self.inner;
        let (audit, news) = inner.about(now, by, word, approval);
        let mut change = Change { papers: vec![approval.paper()?], audit: vec![audit], news: vec![news], ..Change::default() };
        let event = match approval.state {
            ApprovalState::Open | ApprovalState::Agreed | ApprovalState::Used { .. } => return Ok(change),
            ApprovalState::Denied { by } => PurchaseEvent::Denied { by },
            ApprovalState::Withdrawn { by } => PurchaseEvent::Withdrawn { by },
            ApprovalState::Expired => PurchaseEvent::Expire,
            ApprovalState::Cancelled => PurchaseEvent::Cancel,
        };
        if let Some(waits) = self.waits_on(approval, approval.payer.as_ref()).await? {
            let over = waits.step(now, event).map_err(|e| StoreError::Failed(e.to_string()))?;
            change.add(inner, (now, by, &topic(&over)), &over, purchase_json(&over))?;
        }
        Ok(change)
    }

    /// The purchase whose user's yes this part is, if it waits for this approval.
    async fn waits_on(&self, approval: &Approval, part: Option<&PayersPart>) -> Result<Option<Purchase>, StoreError> {
        let Some(Occasion::Purchase(id)) = part.map(|p| &p.occasion) else { return Ok(None) };
        let found: Option<Purchase> = papers::read(&*self.inner.store, id.as_str()).await?;
        Ok(found.filter(|p| p.state.waits_on() == Some(&approval.id)))
    }

    /// The payer said yes by a purchase: it waits from now on. Whatever else waited for the same yes is left behind by it.
    pub(super) async fn payers_part_into(
        &self,
        change: &mut Change,
        now: Timestamp,
        (before, after): (Option<&PayersPart>, &Approval),
        confirmed: Option<(&PurchaseGuard, &Confirmed)>,
    ) -> Result<(), AgreeError> {
        let inner = &*self.inner;
        if let Some(left) = self.waits_on(after, before).await? {
            let over = left.step(now, PurchaseEvent::Cancel).map_err(|e| StoreError::Failed(e.to_string()))?;
            change.add(inner, (now, "agreement", &topic(&over)), &over, purchase_json(&over))?;
        }
        let Some((guard, Confirmed { how, consent })) = confirmed else { return Ok(()) };
        let event = PurchaseEvent::Waits {
            who: after.customer.clone(),
            approval: after.id.clone(),
            how: how.clone(),
            consent: consent.clone(),
            until: after.expires_at,
        };
        // Its time ran out in this very moment: whoever asks anew is told so.
        let waits = guard.purchase.clone().step(now, event).map_err(|_| StoreError::Conflict("purchase"))?;
        change.add(inner, (now, after.customer.as_str(), "purchase.waiting"), &waits, purchase_json(&waits))?;
        // By what, and what was agreed to: for the trail only.
        if let Some(detail) = change.audit.last_mut().and_then(|row| row.detail.as_object_mut()) {
            detail.insert("by".to_owned(), json!(how));
            detail.insert("consent".to_owned(), json!(consent));
        }
        Ok(())
    }

    /// A purchase that ends, and what others were to agree to with it.
    pub(super) async fn purchase_ends_into(
        &self,
        change: &mut Change,
        (now, by): (Timestamp, &str),
        purchase: Purchase,
        event: PurchaseEvent,
    ) -> Result<Purchase, PurchaseFault> {
        let inner = &*self.inner;
        let waited_on = purchase.state.waits_on().cloned();
        let over = purchase.step(now, event)?;
        change.add(inner, (now, by, &topic(&over)), &over, purchase_json(&over))?;
        let Some(id) = waited_on else { return Ok(over) };
        let approval: Option<Approval> = papers::read(&*inner.store, id.as_str()).await?;
        if let Some(asked) = approval.and_then(|a| a.step(now, ApprovalEvent::Cancel).ok()) {
            let (audit, news) = inner.about(now, by, "cancelled", &asked);
            change.papers.push(asked.paper()?);
            change.audit.push(audit);
            change.news.push(news);
        }
        Ok(over)
    }

    /// With what a purchase is charged to which everybody agreed: all of it as it stands now. The error is why it is not.
    pub(super) async fn guard_of_waiting(
        &self,
        now: Timestamp,
        id: &PurchaseId,
        (approval, part): (&Approval, &PayersPart),
    ) -> Result<Result<PurchaseGuard, Refusal>, StoreError> {
        let gone = Ok(Err(Refusal::Submit(SubmitRefusal::ApprovalGone)));
        let found: Option<Purchase> = papers::read(&*self.inner.store, id.as_str()).await?;
        let Some(purchase) = found else { return gone };
        let PurchaseState::Waiting { approval: on, how, consent, .. } = &purchase.state else { return gone };
        if *on != approval.id {
            return gone;
        }
        let said = Confirmed { how: how.clone(), consent: consent.clone() };
        match self.guard(now, &purchase, &purchase.customer, &said).await {
            Ok((guard, main)) if main.card == part.card => Ok(Ok(guard)),
            // Another account at the bank than the one that was confirmed.
            Ok(_) => Ok(Err(Refusal::Submit(SubmitRefusal::NoUsableCard))),
            Err(PurchaseFault::Store(error)) => Err(error),
            Err(PurchaseFault::UnknownBank(_)) => Ok(Err(Refusal::Submit(SubmitRefusal::UnknownBank))),
            Err(fault @ PurchaseFault::Purchase(_)) => Ok(Err(Refusal::Denied(fault.to_string()))),
            Err(PurchaseFault::NoSuch(_) | PurchaseFault::Refused(_) | PurchaseFault::Code(_) | PurchaseFault::CodeFailed(_)) => {
                gone
            }
        }
    }
}

/// What is told of a purchase that came to stand so.
fn topic(purchase: &Purchase) -> String {
    format!("purchase.{}", purchase.state.name())
}
