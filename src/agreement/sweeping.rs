//! Looks after approvals that nobody looks at: what expired ends, what everybody agreed to and nobody charged is charged, codes that ran out
//! undelivered are wiped.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{AgreeError, Agreements};
use crate::payment::{Approval, ApprovalEvent, ApprovalState};
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
    /// Codes that were wiped.
    pub wiped: u64,
}

impl Agreements {
    /// One sweep.
    pub async fn sweep(&self) -> Result<Swept, StoreError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let mut swept = Swept { wiped: inner.store.wipe_codes(now).await?, ..Swept::default() };
        for paper in inner.store.papers_due(PaperKind::Approval, now, BATCH).await? {
            let approval = Approval::of_paper(&paper)?;
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
                Err(AgreeError::Store(error)) => return Err(error),
            }
        }
        Ok(swept)
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
