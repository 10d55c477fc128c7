//! After a no: an appeal, once. It leaves a row that says who and why.

use serde_json::json;

use super::{AgreeError, Agreements, Asking};
use crate::ids::ApprovalId;
use crate::payment::policy::Attested;
use crate::payment::{Approval, ApprovalError};
use crate::store::{Document, StoreError, papers};

impl Agreements {
    /// Asks everybody once more about what was denied; gives the new approval. The payer has to say yes again.
    pub async fn appeal(&self, id: &ApprovalId, by: &str, why: &str) -> Result<Approval, AgreeError> {
        let inner = &*self.inner;
        if why.trim().is_empty() {
            return Err(ApprovalError::NoReason.into());
        }
        let denied: Approval = papers::read(&*inner.store, id.as_str()).await?.ok_or(AgreeError::NoSuch("approval"))?;
        let found = inner.store.request(&denied.request).await?.ok_or(AgreeError::NoSuch("payment request"))?;
        let asking = denied
            .payer
            .as_ref()
            .map_or_else(|| Asking::call(Attested::Vouched), |part| Asking::again(part.channel, part.attestation));
        let asked = self.ask(&found.request, asking).await?;
        if let Some(rule) = &asked.terms.denied_by {
            return Err(StoreError::Refused(format!("the rule {rule} denies this payment; nobody can agree to it")).into());
        }
        let now = inner.clock.now();
        let new = ApprovalId::fresh_at(now, &*inner.entropy);
        let (closed, open) = denied.appeal(new, &found.request, asked.parties(), now, self.approval_expires(now))?;
        let told = json!({ "approval": closed.id, "appeal": open.id, "request": open.request, "customer": open.customer });
        let detail = json!({ "appeal": open.id, "request": open.request, "why": why });
        let (audit, news) = inner.about(now, by, "requested", &open);
        let audits = [inner.audit(now, by, "approval.appealed", closed.id.as_str(), detail), audit];
        let all = [inner.news(now, "approval.appealed", told), news];
        let links = self.links_to_parties(&open, now).await?;
        // Of two appeals at once one finds another version.
        inner.store.write_papers(&[closed.paper()?, open.paper()?], &links, &audits, &all).await?;
        Ok(open)
    }
}
