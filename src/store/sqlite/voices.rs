//! Invitations, templates, consent.

use async_trait::async_trait;

use super::trail::{insert_audit, insert_outbox};
use super::{SqliteStore, consents, exactly_one, exists, fault};
use crate::clock::Timestamp;
use crate::ids::{CustomerId, InviteId};
use crate::store::consents::{Consenting, Purpose, Withdrawn};
use crate::store::rows::consents::END_VOICE;
use crate::store::rows::voices::{self as rows, invite, template};
use crate::store::{
    AuditRecord, EnrolmentRecord, INVITES_LIMIT, Invite, InviteCheck, Invited, StoreError, TemplateRecord, Voices,
};
use crate::vault::is_under_data_key;

#[async_trait]
impl Voices for SqliteStore {
    async fn add_invite(&self, invite: &Invite, code_digest: &[u8; 32], audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        // There may be none: then nothing ends.
        sqlx::query("UPDATE invites SET ended_at = ? WHERE customer_id = ? AND used_at IS NULL AND ended_at IS NULL")
            .bind(audit.at.0)
            .bind(invite.customer.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        // A code may be drawn again once the invitation that had it has run out.
        sqlx::query("UPDATE invites SET ended_at = ?1 WHERE code_digest = ?2 AND expires_at <= ?1 AND used_at IS NULL AND ended_at IS NULL")
            .bind(audit.at.0)
            .bind(code_digest.as_slice())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        sqlx::query("INSERT INTO invites (id, customer_id, code_digest, expires_at, wrong_tries) VALUES (?, ?, ?, ?, ?)")
            .bind(invite.id.as_str())
            .bind(invite.customer.as_str())
            .bind(code_digest.as_slice())
            .bind(invite.expires_at.0)
            .bind(i64::from(invite.wrong_tries))
            .execute(&mut *tx)
            .await
            .map_err(|e| exists(e, "this invitation code"))?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)
    }

    async fn check_invite(
        &self,
        code_digest: &[u8; 32],
        customer: Option<&CustomerId>,
        now: Timestamp,
        max_wrong_tries: u32,
    ) -> Result<InviteCheck, StoreError> {
        let mut tx = self.write().await?;
        let row = sqlx::query(
            "SELECT i.id, i.customer_id, i.expires_at, i.wrong_tries FROM invites i JOIN customers c ON c.id = i.customer_id
             WHERE i.code_digest = ? AND i.used_at IS NULL AND i.ended_at IS NULL AND c.status = 'active'",
        )
        .bind(code_digest.as_slice())
        .fetch_optional(&mut *tx)
        .await
        .map_err(fault)?;
        let found = row.map(|row| invite(&row)).transpose()?;
        if let Some(invite) = found {
            let theirs = customer.is_none_or(|c| *c == invite.customer);
            if theirs && now < invite.expires_at && invite.wrong_tries < max_wrong_tries {
                tx.commit().await.map_err(fault)?;
                return Ok(InviteCheck::Good(invite));
            }
        }
        if let Some(customer) = customer {
            // The customer may have no open invitation: then there is none to count against.
            sqlx::query(
                "UPDATE invites SET wrong_tries = wrong_tries + 1 WHERE customer_id = ? AND used_at IS NULL AND ended_at IS NULL",
            )
            .bind(customer.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        }
        tx.commit().await.map_err(fault)?;
        Ok(InviteCheck::Refused)
    }

    async fn open_invite(&self, customer: &CustomerId, now: Timestamp) -> Result<Option<Invite>, StoreError> {
        let row = sqlx::query(
            "SELECT id, customer_id, expires_at, wrong_tries FROM invites
             WHERE customer_id = ? AND expires_at > ? AND used_at IS NULL AND ended_at IS NULL",
        )
        .bind(customer.as_str())
        .bind(now.0)
        .fetch_optional(&self.pool)
        .await
        .map_err(fault)?;
        row.map(|row| invite(&row)).transpose()
    }

    async fn invites_of(&self, customer: &CustomerId) -> Result<Vec<Invited>, StoreError> {
        let found = sqlx::query(rows::INVITES_OF).bind(customer.as_str()).bind(INVITES_LIMIT).fetch_all(&self.pool).await;
        found.map_err(fault)?.iter().map(rows::invited).collect()
    }

    async fn invitation(&self, id: &InviteId) -> Result<Option<Invited>, StoreError> {
        let row = sqlx::query(rows::INVITATION).bind(id.as_str()).fetch_optional(&self.pool).await.map_err(fault)?;
        row.as_ref().map(rows::invited).transpose()
    }

    async fn end_invite(&self, id: &InviteId, audit: &AuditRecord) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query(rows::END_INVITE).bind(id.as_str()).bind(audit.at.0).execute(&mut *tx).await.map_err(fault)?;
        let ended = done.rows_affected() == 1;
        if ended {
            insert_audit(&mut tx, audit).await?;
        }
        tx.commit().await.map_err(fault)?;
        Ok(ended)
    }

    async fn complete_enrolment(&self, enrolment: &EnrolmentRecord, audit: &AuditRecord) -> Result<(), StoreError> {
        let EnrolmentRecord { template, invite, consent_text_version, consent_by, consent_at, call } = enrolment;
        let mut tx = self.write().await?;
        let alive = sqlx::query("SELECT 1 FROM customers WHERE id = ? AND status = 'active'")
            .bind(template.customer.as_str())
            .fetch_optional(&mut *tx)
            .await
            .map_err(fault)?;
        if alive.is_none() {
            return Err(StoreError::NotFound("active customer"));
        }
        if let Some(invite) = invite {
            let used = sqlx::query(
                "UPDATE invites SET used_at = ? WHERE id = ? AND customer_id = ? AND used_at IS NULL AND ended_at IS NULL",
            )
            .bind(audit.at.0)
            .bind(invite.as_str())
            .bind(template.customer.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
            exactly_one(&used, StoreError::Refused("the invitation was used or replaced meanwhile; nothing was stored".into()))?;
        }
        let put = sqlx::query(
            "INSERT INTO templates (customer_id, model, sealed, created_at, used_at) VALUES (?1, ?2, ?3, ?4, ?4)
             ON CONFLICT (customer_id) DO UPDATE SET model = excluded.model, sealed = excluded.sealed, created_at = excluded.created_at,
                 used_at = excluded.used_at, follow_consent_at = NULL",
        )
        .bind(template.customer.as_str())
        .bind(&template.model)
        .bind(&template.sealed)
        .bind(template.created_at.0)
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        exactly_one(&put, StoreError::Conflict("voice template"))?;
        still_opens(&mut tx, &template.customer, &template.sealed).await?;
        forget_earlier(&mut tx, &template.customer).await?;
        consents::end(&mut tx, END_VOICE, template.customer.as_str(), &Withdrawn::replaced(audit)).await?;
        let given = Consenting {
            text_version: consent_text_version.clone(),
            by: consent_by.clone(),
            at: *consent_at,
            call: call.clone(),
        };
        consents::give(&mut tx, (&template.customer, Purpose::Voiceprint, ""), &given, given.how(audit), invite.as_ref(), audit)
            .await?;
        insert_audit(&mut tx, audit).await?;
        // A customer is told of every enrolment: whoever enrols behind their back is found out.
        let detail = serde_json::json!({ "customer": template.customer, "model": template.model, "call": call });
        let news = audit.beside("voice.enrolled", detail)?;
        insert_outbox(&mut tx, &news).await?;
        tx.commit().await.map_err(fault)
    }

    async fn template(&self, customer: &CustomerId) -> Result<Option<TemplateRecord>, StoreError> {
        let row = sqlx::query("SELECT customer_id, model, sealed, created_at FROM templates WHERE customer_id = ?")
            .bind(customer.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(fault)?;
        row.map(|row| template(&row, "templates")).transpose()
    }

    async fn delete_template(&self, customer: &CustomerId, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let gone = sqlx::query("DELETE FROM templates WHERE customer_id = ?")
            .bind(customer.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        exactly_one(&gone, StoreError::NotFound("voice template"))?;
        // With the consent goes all that came of the voice.
        let fingerprints = erase(&mut tx, "DELETE FROM fingerprints WHERE customer_id = ?", customer).await?;
        let earlier = erase(&mut tx, "DELETE FROM earlier_templates WHERE customer_id = ?", customer).await?;
        // And the key of it all: what a backup still holds of it opens no more.
        let keys = erase(&mut tx, "DELETE FROM customer_keys WHERE customer_id = ?", customer).await?;
        let ended = consents::end(&mut tx, END_VOICE, customer.as_str(), &Withdrawn::of(audit)).await?;
        let erased = [
            ("templates", 1),
            ("earlier_templates", earlier),
            ("fingerprints", fingerprints),
            ("keys", keys),
            ("consents_ended", ended),
        ];
        insert_audit(&mut tx, &audit.with_erased(&erased)).await?;
        let news = audit.beside("voice.withdrawn", serde_json::json!({ "customer": customer }))?;
        insert_outbox(&mut tx, &news).await?;
        tx.commit().await.map_err(fault)?;
        self.fold_log().await;
        Ok(())
    }
}

impl SqliteStore {
    /// Folds the write-ahead log into the database and empties it, so that what was erased is not left in old pages there. A reader may be in
    /// the way; then the next checkpoint does it.
    pub(super) async fn fold_log(&self) {
        if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.pool).await {
            tracing::debug!(%error, "the write-ahead log could not be emptied yet");
        }
    }
}

/// A voice that was withdrawn while a template was being made took the key of that template along: storing it would enrol somebody whom
/// nothing can be compared with.
pub(super) async fn still_opens(tx: &mut sqlx::SqliteConnection, customer: &CustomerId, sealed: &[u8]) -> Result<(), StoreError> {
    let key = sqlx::query("SELECT 1 FROM customer_keys WHERE customer_id = ?").bind(customer.as_str());
    let there = key.fetch_optional(tx).await.map_err(fault)?.is_some();
    if there || !is_under_data_key(sealed) { Ok(()) } else { Err(StoreError::Conflict("voice template")) }
}

/// With a voice goes what it was before.
async fn forget_earlier(tx: &mut sqlx::SqliteConnection, customer: &CustomerId) -> Result<(), StoreError> {
    erase(tx, "DELETE FROM earlier_templates WHERE customer_id = ?", customer).await.map(drop)
}

/// Runs a statement about one customer that may touch no row at all; says how many it touched.
pub(super) async fn erase(tx: &mut sqlx::SqliteConnection, sql: &'static str, customer: &CustomerId) -> Result<u64, StoreError> {
    let done = sqlx::query(sql).bind(customer.as_str()).execute(&mut *tx).await.map_err(fault)?;
    Ok(done.rows_affected())
}
