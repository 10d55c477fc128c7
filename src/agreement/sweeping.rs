//! Looks after approvals and purchases that nobody looks at: what expired ends, what everybody agreed to and nobody charged is charged, the
//! bank's answers are written down, codes that ran out undelivered are wiped.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{AgreeError, Agreements, PurchaseFault};
use crate::payment::{Approval, ApprovalEvent, ApprovalState, Purchase};
use crate::store::{Document, PaperKind, StoreError};

/// Approvals that one sweep looks at.
const BATCH: u32 = 64;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Approvals that ended.
    pub expired: u32,
    /// Approvals that were charged, or refused by rules of now.
    pub charged: u32,
    /// Purchases that expired, or whose bank was looked to for an answer.
    pub purchases: u32,
    /// Codes that were wiped.
    pub wiped: u64,
}

impl Agreements {
    /// One sweep.
    pub async fn sweep(&self) -> Result<Swept, StoreError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let mut swept = Swept { wiped: inner.store.wipe_codes(now).await?, ..Swept::default() };
        // One that can't be read or charged must not keep the others waiting for ever: the longest due come first.
        let mut failed = None;
        for paper in inner.store.papers_due(PaperKind::Approval, now, BATCH).await? {
            let approval = match Approval::of_paper(&paper) {
                Ok(approval) => approval,
                Err(error) => {
                    failed = failed.or(Some(error));
                    continue;
                }
            };
            let done = match approval.state {
                _ if now >= approval.expires_at => {
                    swept.expired = swept.expired.saturating_add(1);
                    self.end(&approval.id, "agreement", "expired", |_| ApprovalEvent::Expire).await.map(drop)
                }
                ApprovalState::Agreed => {
                    swept.charged = swept.charged.saturating_add(1);
                    self.charge_agreed(&approval).await.map(drop)
                }
                ApprovalState::Open
                | ApprovalState::Used { .. }
                | ApprovalState::Denied { .. }
                | ApprovalState::Expired
                | ApprovalState::Cancelled
                | ApprovalState::Withdrawn { .. } => Ok(()),
            };
            match done {
                // Somebody else was faster.
                Ok(()) | Err(AgreeError::Approval(_) | AgreeError::NoSuch(_) | AgreeError::Store(StoreError::Conflict(_))) => {}
                Err(AgreeError::Store(error)) => failed = failed.or(Some(error)),
            }
        }
        for paper in inner.store.papers_due(PaperKind::Purchase, now, BATCH).await? {
            swept.purchases = swept.purchases.saturating_add(1);
            let done = match Purchase::of_paper(&paper) {
                Ok(purchase) if purchase.state.unpaid() => {
                    match self.expire_purchase(&purchase.id).await {
                        Err(PurchaseFault::Store(error)) => Err(error),
                        // Somebody confirmed it, or took it back.
                        _ => Ok(()),
                    }
                }
                Ok(purchase) => self.look(&purchase, Duration::ZERO, true).await.map(drop),
                Err(error) => Err(error),
            };
            match done {
                Ok(()) | Err(StoreError::Conflict(_)) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(swept), Err)
    }

    /// Sweeps until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let pause = Duration::from_millis(self.inner.cfg.sweep_ms.max(100));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "approvals could not be looked after; trying again");
            }
        }
    }
}
