//! Templates that follow their voice: each step keeps what it replaces.

use async_trait::async_trait;

use super::people::hold_customer;
use super::trail::insert_audit;
use super::voices::still_opens;
use super::{PgStore, commit, consents, exactly_one};
use crate::clock::Timestamp;
use crate::ids::CustomerId;
use crate::store::consents::{Purpose, Withdrawn};
use crate::store::rows::Reader;
use crate::store::rows::consents::END_FOLLOWING;
use crate::store::rows::voices::template;
use crate::store::{AuditRecord, Consenting, Following, FollowingState, StoreError, TemplateRecord};

#[async_trait]
impl Following for PgStore {
    async fn following(&self, customer: &CustomerId) -> Result<Option<FollowingState>, StoreError> {
        self.read(async || {
            let mut tx = self.snapshot().await?;
            let row = sqlx::query(
                "SELECT customer_id, model, sealed, created_at, follow_consent_at FROM templates WHERE customer_id = $1",
            )
            .bind(customer.as_str())
            .fetch_optional(&mut *tx)
            .await?;
            let Some(row) = row else { return Ok(None) };
            let current = template(&row, "templates")?;
            let first = sqlx::query(
                "SELECT customer_id, model, sealed, created_at FROM earlier_templates WHERE customer_id = $1 ORDER BY seq LIMIT 1",
            )
            .bind(customer.as_str())
            .fetch_optional(&mut *tx)
            .await?;
            let enrolled = first.map_or_else(|| Ok(current.clone()), |row| template(&row, "earlier_templates"))?;
            let consent_at = Reader::new(&row, "templates").maybe_at("follow_consent_at")?;
            Ok(Some(FollowingState { consent_at, current, enrolled }))
        })
        .await
    }

    async fn set_following(
        &self,
        customer: &CustomerId,
        consent: Option<&Consenting>,
        audit: &AuditRecord,
    ) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let set = sqlx::query("UPDATE templates SET follow_consent_at = $1 WHERE customer_id = $2")
                .bind(consent.map(|c| c.at.0))
                .bind(customer.as_str())
                .execute(&mut *tx)
                .await?;
            exactly_one(&set, StoreError::NotFound("voice template"))?;
            let ended = if consent.is_some() { Withdrawn::replaced(audit) } else { Withdrawn::of(audit) };
            consents::end(&mut tx, END_FOLLOWING, customer.as_str(), &ended).await?;
            if let Some(given) = consent {
                consents::give(&mut tx, (customer, Purpose::Following, ""), given, given.how(audit), None, audit).await?;
            }
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }

    async fn step_template(
        &self,
        next: &TemplateRecord,
        over: Timestamp,
        keep: u32,
        audit: &AuditRecord,
    ) -> Result<(), StoreError> {
        let customer = next.customer.as_str();
        self.write(async || {
            let mut tx = self.begin().await?;
            hold_customer(&mut tx, &next.customer).await?;
            // Locked first: of two steps over the same template the second finds another in its place.
            let there = sqlx::query(
                "SELECT 1 FROM templates WHERE customer_id = $1 AND created_at = $2 AND follow_consent_at IS NOT NULL FOR UPDATE",
            )
            .bind(customer)
            .bind(over.0)
            .fetch_optional(&mut *tx)
            .await?;
            if there.is_none() {
                return Err(StoreError::Conflict("voice template").into());
            }
            let kept = sqlx::query(
                "INSERT INTO earlier_templates (customer_id, seq, model, sealed, created_at)
                 SELECT customer_id, 1 + (SELECT coalesce(max(seq), 0) FROM earlier_templates WHERE customer_id = $1), model, sealed,
                        created_at
                 FROM templates WHERE customer_id = $1",
            )
            .bind(customer)
            .execute(&mut *tx)
            .await?;
            exactly_one(&kept, StoreError::Conflict("voice template"))?;
            let put = sqlx::query("UPDATE templates SET model = $1, sealed = $2, created_at = $3 WHERE customer_id = $4")
                .bind(&next.model)
                .bind(&next.sealed)
                .bind(next.created_at.0)
                .bind(customer)
                .execute(&mut *tx)
                .await?;
            exactly_one(&put, StoreError::Conflict("voice template"))?;
            still_opens(&mut tx, &next.customer, &next.sealed).await?;
            // The enrolled one stays whatever comes after it.
            sqlx::query(
                "DELETE FROM earlier_templates WHERE customer_id = $1 AND seq > 1
                 AND seq <= (SELECT max(seq) FROM earlier_templates WHERE customer_id = $1) - $2",
            )
            .bind(customer)
            .bind(i64::from(keep.saturating_sub(1)))
            .execute(&mut *tx)
            .await?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }

    async fn revert_template(&self, customer: &CustomerId, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let back = sqlx::query(
                "UPDATE templates SET (model, sealed, created_at) =
                     (SELECT model, sealed, created_at FROM earlier_templates WHERE customer_id = $1 AND seq = 1),
                     follow_consent_at = NULL
                 WHERE customer_id = $1 AND EXISTS (SELECT 1 FROM earlier_templates WHERE customer_id = $1 AND seq = 1)",
            )
            .bind(customer.as_str())
            .execute(&mut *tx)
            .await?;
            exactly_one(&back, StoreError::NotFound("earlier voice template"))?;
            sqlx::query("DELETE FROM earlier_templates WHERE customer_id = $1").bind(customer.as_str()).execute(&mut *tx).await?;
            consents::end(&mut tx, END_FOLLOWING, customer.as_str(), &Withdrawn::of(audit)).await?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }
}
