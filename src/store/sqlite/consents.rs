//! Consents: rows that never change.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{SqliteStore, exactly_one, fault};
use crate::ids::{CallId, ConsentId, CustomerId, InviteId};
use crate::store::consents::{
    CONSENTS_LIMIT, Consent, Consenting, Consents, GivenHow, OfPaper, Purpose, Withdrawn, id_beside, of_paper,
};
use crate::store::rows::consents as rows;
use crate::store::{AuditRecord, Paper, StoreError};

#[async_trait]
impl Consents for SqliteStore {
    async fn consents_of(&self, customer: &CustomerId) -> Result<Vec<Consent>, StoreError> {
        let query = sqlx::query(rows::OF).bind(customer.as_str()).bind(CONSENTS_LIMIT);
        query.fetch_all(&self.pool).await.map_err(fault)?.iter().map(rows::consent).collect()
    }

    async fn consent(&self, id: &ConsentId) -> Result<Option<Consent>, StoreError> {
        let row = sqlx::query(rows::ONE).bind(id.as_str()).fetch_optional(&self.pool).await.map_err(fault)?;
        row.as_ref().map(rows::consent).transpose()
    }
}

/// Writes down that a customer agreed.
pub(super) async fn give(
    conn: &mut SqliteConnection,
    (customer, purpose, about): (&CustomerId, Purpose, &str),
    given: &Consenting,
    how: GivenHow,
    invite: Option<&InviteId>,
    audit: &AuditRecord,
) -> Result<(), StoreError> {
    let done = sqlx::query(rows::GIVE)
        .bind(id_beside(audit)?.as_str().to_owned())
        .bind(customer.as_str())
        .bind(purpose.as_str())
        .bind(about)
        .bind(&given.text_version)
        .bind(&given.by)
        .bind(how.as_str())
        .bind(given.at.0)
        .bind(given.call.as_ref().map(CallId::as_str))
        .bind(invite.map(InviteId::as_str))
        .execute(conn)
        .await
        .map_err(fault)?;
    exactly_one(&done, StoreError::NotFound("customer"))
}

/// Ends the consents that `which` names (a statement of [`rows`]) for `of`; says how many.
pub(super) async fn end(conn: &mut SqliteConnection, which: &'static str, of: &str, how: &Withdrawn) -> Result<u64, StoreError> {
    let done = sqlx::query(which)
        .bind(of)
        .bind(how.at.0)
        .bind(&how.by)
        .bind(how.how.as_str())
        .bind(how.call.as_ref().map(CallId::as_str))
        .execute(conn)
        .await
        .map_err(fault)?;
    Ok(done.rows_affected())
}

/// What a paper that is written means for consents; `audit`: what is written about it.
pub(super) async fn with_paper(
    conn: &mut SqliteConnection,
    paper: &Paper,
    audit: Option<&AuditRecord>,
) -> Result<(), StoreError> {
    let Some(audit) = audit else { return Ok(()) };
    match of_paper(paper)? {
        OfPaper::Nothing => Ok(()),
        OfPaper::Given(by) => {
            let how = by.how.unwrap_or_else(|| by.given.how(audit));
            give(conn, (&by.customer, by.purpose, &paper.id), &by.given, how, None, audit).await
        }
        OfPaper::Ended => end(conn, rows::END_ABOUT, &paper.id, &Withdrawn::of(audit)).await.map(drop),
    }
}
