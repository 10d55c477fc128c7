//! What may follow a no. It stands, however often the payer asks again, until it is appealed against, once; and nobody is overridden by
//! one operator alone.

use super::{Approval, ApprovalError, ApprovalState, How, Role};
use crate::clock::Timestamp;
use crate::ids::{ApprovalId, CustomerId};
use crate::payment::request::PaymentRequest;

impl Approval {
    /// Whether somebody's no still stands: nothing was appealed, and the request was not asked anew for something else.
    pub fn stands_denied(&self) -> bool {
        matches!(self.state, ApprovalState::Denied { .. }) && self.succeeded_by.is_none()
    }

    /// Everybody is asked once more: gives what was denied, closed, and what is asked now. The payer's own yes was to the first one; they
    /// have to say it again.
    pub fn appeal(
        self,
        id: ApprovalId,
        request: &PaymentRequest,
        parties: Vec<(Role, CustomerId)>,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(Self, Self), ApprovalError> {
        if !matches!(self.state, ApprovalState::Denied { .. }) {
            return Err(ApprovalError::NotDenied);
        }
        if self.appeals.is_some() || self.succeeded_by.is_some() {
            return Err(ApprovalError::AppealedBefore);
        }
        if !self.fits(request) || !request.payable(now) {
            return Err(ApprovalError::OtherThing);
        }
        let asked = Self::open_for(id, request, parties, now, expires_at)?;
        let asked = Self { appeals: Some(self.id.clone()), ..asked };
        Ok((self.succeeded(asked.id.clone()), asked))
    }

    /// Another one took its place.
    #[must_use]
    pub fn succeeded(mut self, by: ApprovalId) -> Self {
        self.succeeded_by = Some(by);
        self.version = self.version.saturating_add(1);
        self
    }
}

impl How {
    /// Whether somebody may speak by it. Whoever passes an operator's word on vouches for who they are; that a yes takes two of them is judged
    /// here. A no moves no money: one may say it.
    pub(super) fn allowed(&self, yes: bool) -> Result<(), ApprovalError> {
        match self {
            Self::Voice { .. } | Self::Link | Self::Api { .. } => Ok(()),
            Self::Override { why, .. } if why.trim().is_empty() => Err(ApprovalError::NoReason),
            Self::Override { by, with, .. } => {
                let (by, with) = (by.trim().to_lowercase(), with.as_deref().map(|w| w.trim().to_lowercase()));
                let second = with.is_some_and(|with| !with.is_empty() && with != by);
                if !by.is_empty() && (second || !yes) { Ok(()) } else { Err(ApprovalError::Alone) }
            }
        }
    }
}
