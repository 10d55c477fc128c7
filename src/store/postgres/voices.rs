//! Invitations, templates, consent.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::fault::{Fault, exists};
use super::people::hold_customer;
use super::trail::{insert_audit, insert_outbox};
use super::{PgStore, commit, consents, exactly_one};
use crate::clock::Timestamp;
use crate::ids::{CustomerId, InviteId};
use crate::store::consents::{Consenting, Purpose, Withdrawn};
use crate::store::rows::consents::END_VOICE;
use crate::store::rows::voices::{self as rows, invite, template};
use crate::store::{
    AuditRecord, CustomerStatus, EnrolmentRecord, INVITES_LIMIT, Invite, InviteCheck, Invited, StoreError, TemplateRecord, Voices,
};
use crate::vault::is_under_data_key;

#[async_trait]
impl Voices for PgStore {
    async fn add_invite(&self, invite: &Invite, code_digest: &[u8; 32], audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            // One at a time for a customer: the later one ends the earlier one.
            sqlx::query("SELECT 1 FROM customers WHERE id = $1 FOR NO KEY UPDATE")
                .bind(invite.customer.as_str())
                .fetch_optional(&mut *tx)
                .await?;
            // There may be none: then nothing ends.
            sqlx::query("UPDATE invites SET ended_at = $1 WHERE customer_id = $2 AND used_at IS NULL AND ended_at IS NULL")
                .bind(audit.at.0)
                .bind(invite.customer.as_str())
                .execute(&mut *tx)
                .await?;
            // A code may be drawn again once the invitation that had it has run out.
            sqlx::query(
                "UPDATE invites SET ended_at = $1
                 WHERE code_digest = $2 AND expires_at <= $1 AND used_at IS NULL AND ended_at IS NULL",
            )
            .bind(audit.at.0)
            .bind(code_digest.as_slice())
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "INSERT INTO invites (id, customer_id, code_digest, expires_at, wrong_tries) VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(invite.id.as_str())
            .bind(invite.customer.as_str())
            .bind(code_digest.as_slice())
            .bind(invite.expires_at.0)
            .bind(i64::from(invite.wrong_tries))
            .execute(&mut *tx)
            .await
            .map_err(|e| exists(e, "this invitation code"))?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }

    async fn check_invite(
        &self,
        code_digest: &[u8; 32],
        customer: Option<&CustomerId>,
        now: Timestamp,
        max_wrong_tries: u32,
    ) -> Result<InviteCheck, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let row = sqlx::query(
                "SELECT i.id, i.customer_id, i.expires_at, i.wrong_tries FROM invites i JOIN customers c ON c.id = i.customer_id
                 WHERE i.code_digest = $1 AND i.used_at IS NULL AND i.ended_at IS NULL AND c.status = 'active' FOR UPDATE OF i",
            )
            .bind(code_digest.as_slice())
            .fetch_optional(&mut *tx)
            .await?;
            let found = row.map(|row| invite(&row)).transpose()?;
            if let Some(invite) = found {
                let theirs = customer.is_none_or(|c| *c == invite.customer);
                if theirs && now < invite.expires_at && invite.wrong_tries < max_wrong_tries {
                    commit(tx).await?;
                    return Ok(InviteCheck::Good(invite));
                }
            }
            if let Some(customer) = customer {
                // The customer may have no open invitation: then there is none to count against.
                sqlx::query(
                    "UPDATE invites SET wrong_tries = wrong_tries + 1
                     WHERE customer_id = $1 AND used_at IS NULL AND ended_at IS NULL",
                )
                .bind(customer.as_str())
                .execute(&mut *tx)
                .await?;
            }
            commit(tx).await?;
            Ok(InviteCheck::Refused)
        })
        .await
    }

    async fn open_invite(&self, customer: &CustomerId, now: Timestamp) -> Result<Option<Invite>, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let row = sqlx::query(
                "SELECT id, customer_id, expires_at, wrong_tries FROM invites
                 WHERE customer_id = $1 AND expires_at > $2 AND used_at IS NULL AND ended_at IS NULL",
            )
            .bind(customer.as_str())
            .bind(now.0)
            .fetch_optional(&mut *connection)
            .await?;
            Ok(row.map(|row| invite(&row)).transpose()?)
        })
        .await
    }

    async fn invites_of(&self, customer: &CustomerId) -> Result<Vec<Invited>, StoreError> {
        self.read(async || {
            let query = sqlx::query(rows::INVITES_OF).bind(customer.as_str()).bind(INVITES_LIMIT);
            let found = query.fetch_all(&mut *self.connection().await?).await?;
            Ok(found.iter().map(rows::invited).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn invitation(&self, id: &InviteId) -> Result<Option<Invited>, StoreError> {
        self.read(async || {
            let query = sqlx::query(rows::INVITATION).bind(id.as_str());
            let row = query.fetch_optional(&mut *self.connection().await?).await?;
            Ok(row.as_ref().map(rows::invited).transpose()?)
        })
        .await
    }

    async fn end_invite(&self, id: &InviteId, audit: &AuditRecord) -> Result<bool, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let done = sqlx::query(rows::END_INVITE).bind(id.as_str()).bind(audit.at.0).execute(&mut *tx).await?;
            let ended = done.rows_affected() == 1;
            if ended {
                insert_audit(&mut tx, audit).await?;
            }
            commit(tx).await?;
            Ok(ended)
        })
        .await
    }

    async fn complete_enrolment(&self, enrolment: &EnrolmentRecord, audit: &AuditRecord) -> Result<(), StoreError> {
        let EnrolmentRecord { template, invite, consent_text_version, consent_by, consent_at, call } = enrolment;
        // A customer is told of every enrolment: whoever enrols behind their back is found out.
        let news = audit.beside(
            "voice.enrolled",
            serde_json::json!({ "customer": template.customer, "model": template.model, "call": call }),
        )?;
        self.write(async || {
            let mut tx = self.begin().await?;
            if hold_customer(&mut tx, &template.customer).await? != Some(CustomerStatus::Active) {
                return Err(StoreError::NotFound("active customer").into());
            }
            if let Some(invite) = invite {
                let used = sqlx::query(
                    "UPDATE invites SET used_at = $1 WHERE id = $2 AND customer_id = $3 AND used_at IS NULL AND ended_at IS NULL",
                )
                .bind(audit.at.0)
                .bind(invite.as_str())
                .bind(template.customer.as_str())
                .execute(&mut *tx)
                .await?;
                let late = "the invitation was used or replaced meanwhile; nothing was stored";
                exactly_one(&used, StoreError::Refused(late.into()))?;
            }
            let put = sqlx::query(
                "INSERT INTO templates (customer_id, model, sealed, created_at, used_at) VALUES ($1, $2, $3, $4, $4)
                 ON CONFLICT (customer_id) DO UPDATE SET model = excluded.model, sealed = excluded.sealed,
                     created_at = excluded.created_at, used_at = excluded.used_at, follow_consent_at = NULL",
            )
            .bind(template.customer.as_str())
            .bind(&template.model)
            .bind(&template.sealed)
            .bind(template.created_at.0)
            .execute(&mut *tx)
            .await?;
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
            consents::give(
                &mut tx,
                (&template.customer, Purpose::Voiceprint, ""),
                &given,
                given.how(audit),
                invite.as_ref(),
                audit,
            )
            .await?;
            insert_audit(&mut tx, audit).await?;
            insert_outbox(&mut tx, &news).await?;
            commit(tx).await
        })
        .await
    }

    async fn template(&self, customer: &CustomerId) -> Result<Option<TemplateRecord>, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let row = sqlx::query("SELECT customer_id, model, sealed, created_at FROM templates WHERE customer_id = $1")
                .bind(customer.as_str())
                .fetch_optional(&mut *connection)
                .await?;
            Ok(row.map(|row| template(&row, "templates")).transpose()?)
        })
        .await
    }

    async fn delete_template(&self, customer: &CustomerId, audit: &AuditRecord) -> Result<(), StoreError> {
        let news = audit.beside("voice.withdrawn", serde_json::json!({ "customer": customer }))?;
        self.write(async || {
            let mut tx = self.begin().await?;
            hold_customer(&mut tx, customer).await?;
            let gone =
                sqlx::query("DELETE FROM templates WHERE customer_id = $1").bind(customer.as_str()).execute(&mut *tx).await?;
            exactly_one(&gone, StoreError::NotFound("voice template"))?;
            // With the consent goes all that came of the voice.
            let fingerprints = erase(&mut tx, "DELETE FROM fingerprints WHERE customer_id = $1", customer).await?;
            let earlier = erase(&mut tx, "DELETE FROM earlier_templates WHERE customer_id = $1", customer).await?;
            // And the key of it all: what a backup still holds of it opens no more.
            let keys = erase(&mut tx, "DELETE FROM customer_keys WHERE customer_id = $1", customer).await?;
            let ended = consents::end(&mut tx, END_VOICE, customer.as_str(), &Withdrawn::of(audit)).await?;
            let erased = [
                ("templates", 1),
                ("earlier_templates", earlier),
                ("fingerprints", fingerprints),
                ("keys", keys),
                ("consents_ended", ended),
            ];
            insert_audit(&mut tx, &audit.with_erased(&erased)).await?;
            insert_outbox(&mut tx, &news).await?;
            commit(tx).await
        })
        .await
    }
}

/// A voice that was withdrawn while a template was being made took the key of that template along: storing it would enrol somebody whom
/// nothing can be compared with. The key stays until the transaction ends: a withdrawal waits for it.
pub(super) async fn still_opens(connection: &mut PgConnection, customer: &CustomerId, sealed: &[u8]) -> Result<(), Fault> {
    let key = sqlx::query("SELECT 1 FROM customer_keys WHERE customer_id = $1 FOR KEY SHARE").bind(customer.as_str());
    let there = key.fetch_optional(connection).await?.is_some();
    if there || !is_under_data_key(sealed) { Ok(()) } else { Err(StoreError::Conflict("voice template").into()) }
}

/// With a voice goes what it was before.
async fn forget_earlier(connection: &mut PgConnection, customer: &CustomerId) -> Result<(), Fault> {
    erase(connection, "DELETE FROM earlier_templates WHERE customer_id = $1", customer).await.map(drop)
}

/// Runs a statement about one customer that may touch no row at all; says how many it touched.
pub(super) async fn erase(connection: &mut PgConnection, sql: &'static str, customer: &CustomerId) -> Result<u64, Fault> {
    Ok(sqlx::query(sql).bind(customer.as_str()).execute(connection).await?.rows_affected())
}
