//! Guardianships and supervisions: made, changed and ended here, each change with its audit row and its news.

use std::collections::BTreeMap;

use serde_json::json;

use super::{AgreeError, Agreements};
use crate::clock::Timestamp;
use crate::ids::{CustomerId, GuardianshipId, SupervisionId};
use crate::money::Currency;
use crate::payment::guardian::{Change, Edited, GuardianError, WardRules};
use crate::payment::supervisor::SupervisionError;
use crate::payment::{Approval, ApprovalEvent, Guardianship, Supervision};
use crate::store::{CustomerStatus, StoreError, papers};

/// Why a guardianship or supervision is not so. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum GuardingError {
    /// There is none such.
    #[error("there is no such {0}")]
    NoSuch(&'static str),
    /// They belong to different tenants, or are gone.
    #[error("{0} is not an active customer of the same tenant")]
    Stranger(CustomerId),
    /// A rule of guardianships.
    #[error(transparent)]
    Guardian(#[from] GuardianError),
    /// A rule of supervisions.
    #[error(transparent)]
    Supervision(#[from] SupervisionError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Agreements {
    /// Makes a guardianship. Whoever opens the account does so, never the ward.
    pub async fn add_guardianship(
        &self,
        ward: &CustomerId,
        guardian: &CustomerId,
        second: Option<&CustomerId>,
        rules: WardRules,
        ends_at: Option<Timestamp>,
        by: &str,
    ) -> Result<Guardianship, GuardingError> {
        let inner = &*self.inner;
        for other in [Some(guardian), second].into_iter().flatten() {
            self.same_tenant(ward, other).await?;
        }
        let now = inner.clock.now();
        let id = GuardianshipId::fresh_at(now, &*inner.entropy);
        let made = Guardianship::new(id, ward.clone(), guardian.clone(), second.cloned(), rules, ends_at, now)?;
        let told = json!({ "guardianship": made.id, "ward": ward, "guardian": guardian, "second": second });
        let audit = inner.audit(now, by, "guardianship.made", made.id.as_str(), json!(made));
        papers::write(&*inner.store, &made, &audit, &[inner.news(now, "guardianship.made", told)]).await?;
        Ok(made)
    }

    /// A change that `actor` wants.
    pub async fn edit_guardianship(
        &self,
        id: &GuardianshipId,
        actor: &CustomerId,
        change: Change,
    ) -> Result<(Guardianship, Edited), GuardingError> {
        let inner = &*self.inner;
        let before: Guardianship =
            papers::read(&*inner.store, id.as_str()).await?.ok_or(GuardingError::NoSuch("guardianship"))?;
        if let Change::AddSecond { guardian } = &change {
            self.same_tenant(&before.ward, guardian).await?;
        }
        let now = inner.clock.now();
        let detail = json!({ "change": change });
        let (after, edited) = before.edit(now, actor, change)?;
        let told = json!({ "guardianship": id, "ward": after.ward, "guardian": after.guardian, "second": after.second, "edited": edited });
        let audit = inner.audit(now, actor.as_str(), "guardianship.changed", id.as_str(), detail);
        papers::write(&*inner.store, &after, &audit, &[inner.news(now, "guardianship.changed", told)]).await?;
        Ok((after, edited))
    }

    /// Names somebody who has to agree to an account's payments.
    pub async fn add_supervision(
        &self,
        account: &CustomerId,
        supervisor: &CustomerId,
        agree_over: BTreeMap<Currency, i64>,
        by: &str,
    ) -> Result<Supervision, GuardingError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let id = SupervisionId::fresh_at(now, &*inner.entropy);
        let made = Supervision::new(id, account.clone(), supervisor.clone(), agree_over, now)?;
        self.same_tenant(account, supervisor).await?;
        let told = json!({ "supervision": made.id, "account": account, "supervisor": supervisor });
        let audit = inner.audit(now, by, "supervision.made", made.id.as_str(), json!(made));
        papers::write(&*inner.store, &made, &audit, &[inner.news(now, "supervision.made", told)]).await?;
        Ok(made)
    }

    /// Ends a supervision. What the supervisor was asked and nobody charged yet is refused with it.
    pub async fn withdraw_supervision(&self, id: &SupervisionId, by: &str) -> Result<Supervision, GuardingError> {
        let inner = &*self.inner;
        let before: Supervision = papers::read(&*inner.store, id.as_str()).await?.ok_or(GuardingError::NoSuch("supervision"))?;
        let now = inner.clock.now();
        let after = before.withdraw(now)?;
        let told = json!({ "supervision": id, "account": after.account, "supervisor": after.supervisor });
        let audit = inner.audit(now, by, "supervision.withdrawn", id.as_str(), told.clone());
        papers::write(&*inner.store, &after, &audit, &[inner.news(now, "supervision.withdrawn", told)]).await?;
        let open: Vec<Approval> = papers::of(&*inner.store, &after.account).await?;
        for approval in open.iter().filter(|a| a.parties.iter().any(|p| p.who == after.supervisor)) {
            let who = after.supervisor.clone();
            match self.end(&approval.id, by, "withdrawn", |_| ApprovalEvent::Withdraw { who: who.clone() }).await {
                // It ended by itself meanwhile.
                Ok(_) | Err(AgreeError::Approval(_) | AgreeError::NoSuch(_)) => {}
                Err(AgreeError::Store(error)) => return Err(error.into()),
            }
        }
        Ok(after)
    }

    async fn same_tenant(&self, one: &CustomerId, other: &CustomerId) -> Result<(), GuardingError> {
        let store = &*self.inner.store;
        let active = |c: Option<crate::store::Customer>| c.filter(|c| c.status == CustomerStatus::Active);
        let ours = active(store.customer(one).await?).ok_or_else(|| GuardingError::Stranger(one.clone()))?;
        let theirs = active(store.customer(other).await?).ok_or_else(|| GuardingError::Stranger(other.clone()))?;
        if ours.tenant == theirs.tenant { Ok(()) } else { Err(GuardingError::Stranger(other.clone())) }
    }
}
