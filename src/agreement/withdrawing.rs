//! A payment request that is taken back: nobody is asked to agree to it any more, and whoever was is told.

use serde_json::json;

use super::deciding::LIMIT_RACES;
use super::{AgreeError, Agreements};
use crate::ids::RequestId;
use crate::payment::{Approval, ApprovalEvent};
use crate::store::{StoreError, papers};

impl Agreements {
    /// Takes a request back that nobody has paid or is paying, and ends the approvals that it waited for, in one. An approval that somebody opens
    /// at the same moment is ended after it.
    pub async fn cancel_request(&self, id: &RequestId, by: &str) -> Result<(), AgreeError> {
        for _ in 0..LIMIT_RACES {
            match self.try_cancel_request(id, by).await {
                // The request or an approval was changed meanwhile.
                Err(AgreeError::Store(StoreError::Conflict(_))) => {}
                done => {
                    done?;
                    return self.end_approvals_of(id, by).await;
                }
            }
        }
        Err(StoreError::Busy.into())
    }

    async fn try_cancel_request(&self, id: &RequestId, by: &str) -> Result<(), AgreeError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let (mut rows, mut news) = (Vec::new(), Vec::new());
        let mut audits = vec![inner.audit(now, by, "request.cancelled", id.as_str(), json!({}))];
        for approval in papers::about::<Approval>(&*inner.store, id.as_str()).await? {
            // A no stands: there is nothing to take back.
            let Ok(over) = approval.step(now, ApprovalEvent::Cancel) else { continue };
            let change = self.approval_change((now, by, "cancelled"), &over).await?;
            rows.extend(change.papers);
            audits.extend(change.audit);
            news.extend(change.news);
        }
        Ok(inner.store.cancel_request(id, &rows, &audits, &news).await?)
    }

    /// Ends what is open of a request that can't be paid any more. Whoever asks again after a crash gets the rest done.
    pub async fn end_approvals_of(&self, id: &RequestId, by: &str) -> Result<(), AgreeError> {
        for approval in papers::about::<Approval>(&*self.inner.store, id.as_str()).await? {
            match self.cancel(&approval.id, by).await {
                // Over meanwhile, or a no that stands.
                Ok(_) | Err(AgreeError::Approval(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
