//! Tenants, keys of the API, answers that are given again, and pages.

use async_trait::async_trait;

use super::fault::exists;
use super::trail::insert_audit;
use super::{PgStore, commit, exactly_one};
use crate::clock::Timestamp;
use crate::ids::{ApiKeyId, Tenant};
use crate::store::rows::{as_int, clients as rows, trail};
use crate::store::{ApiKeyRecord, Asked, AuditPage, AuditRecord, Clients, Earlier, IdPage, Listed, StoreError, TenantRecord};

#[async_trait]
impl Clients for PgStore {
    async fn add_tenant(&self, tenant: &TenantRecord, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            sqlx::query(rows::ADD_TENANT)
                .bind(tenant.name.as_str())
                .bind(&tenant.title)
                .bind(tenant.created_at.0)
                .execute(&mut *tx)
                .await
                .map_err(|e| exists(e, "this tenant"))?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }

    async fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let all = sqlx::query(rows::TENANTS).fetch_all(&mut *connection).await?;
            Ok(all.iter().map(rows::tenant).collect::<Result<Vec<_>, _>>()?)
        })
        .await
    }

    async fn add_api_key(&self, key: &ApiKeyRecord, digest: &[u8; 32], audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let tenant = sqlx::query(rows::TENANT).bind(key.tenant.as_str()).fetch_optional(&mut *tx).await?;
            tenant.ok_or(StoreError::NotFound("tenant"))?;
            sqlx::query(rows::ADD_KEY)
                .bind(key.id.as_str())
                .bind(key.tenant.as_str())
                .bind(&key.name)
                .bind(digest.as_slice())
                .bind(key.scopes.join(" "))
                .bind(key.created_at.0)
                .bind(key.expires_at.map(|t| t.0))
                .execute(&mut *tx)
                .await
                .map_err(|e| exists(e, "this key"))?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }

    async fn api_key(&self, digest: &[u8; 32]) -> Result<Option<ApiKeyRecord>, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let row = sqlx::query(rows::KEY).bind(digest.as_slice()).fetch_optional(&mut *connection).await?;
            Ok(row.as_ref().map(rows::api_key).transpose()?)
        })
        .await
    }

    async fn api_keys(&self) -> Result<Vec<ApiKeyRecord>, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let all = sqlx::query(rows::KEYS).fetch_all(&mut *connection).await?;
            Ok(all.iter().map(rows::api_key).collect::<Result<Vec<_>, _>>()?)
        })
        .await
    }

    async fn revoke_api_key(&self, id: &ApiKeyId, at: Timestamp, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let done = sqlx::query(rows::REVOKE_KEY).bind(id.as_str()).bind(at.0).execute(&mut *tx).await?;
            exactly_one(&done, StoreError::NotFound("API key that stands"))?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }

    async fn begin_answer(&self, asked: &Asked) -> Result<Earlier, StoreError> {
        let (api_key, key) = (asked.api_key.as_str(), asked.key.as_str());
        self.write(async || {
            let mut tx = self.begin().await?;
            sqlx::query(rows::FREE_ANSWER).bind(api_key).bind(key).bind(asked.now.0).execute(&mut *tx).await?;
            // Waits for another transaction that is inserting the same, and then finds it there.
            let new = sqlx::query(rows::NEW_ANSWER)
                .bind(api_key)
                .bind(key)
                .bind(asked.request.as_slice())
                .bind(asked.now.0)
                .bind(asked.leased_to.0)
                .bind(asked.expires_at.0)
                .execute(&mut *tx)
                .await?;
            let earlier = if new.rows_affected() == 1 {
                Earlier::Yours { begun_at: asked.now }
            } else {
                let row = sqlx::query("SELECT * FROM api_answers WHERE api_key = $1 AND key = $2 FOR UPDATE");
                let row = row.bind(api_key).bind(key).fetch_optional(&mut *tx).await?;
                // It was dropped in between: who asks again gets it.
                let row = row.ok_or(StoreError::Conflict("idempotency key"))?;
                rows::earlier(&row, asked)?
            };
            if let (Earlier::Yours { .. }, 0) = (&earlier, new.rows_affected()) {
                let taken = sqlx::query(rows::TAKE_ANSWER).bind(api_key).bind(key).bind(asked.leased_to.0);
                exactly_one(&taken.execute(&mut *tx).await?, StoreError::Conflict("idempotency key"))?;
            }
            commit(tx).await?;
            Ok(earlier)
        })
        .await
    }

    async fn keep_answer(&self, asked: &Asked, status: u16, body: &[u8]) -> Result<(), StoreError> {
        self.once(async || {
            let mut connection = self.connection().await?;
            let kept = sqlx::query(rows::KEEP_ANSWER)
                .bind(asked.api_key.as_str())
                .bind(&asked.key)
                .bind(asked.leased_to.0)
                .bind(i64::from(status))
                .bind(body)
                .execute(&mut *connection)
                .await?;
            Ok(exactly_one(&kept, StoreError::Conflict("idempotency key"))?)
        })
        .await
    }

    async fn drop_answer(&self, asked: &Asked) -> Result<(), StoreError> {
        self.once(async || {
            let mut connection = self.connection().await?;
            let query = sqlx::query(rows::DROP_ANSWER).bind(asked.api_key.as_str()).bind(&asked.key).bind(asked.leased_to.0);
            query.execute(&mut *connection).await?;
            Ok(())
        })
        .await
    }

    async fn sweep_answers(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.once(async || {
            let mut connection = self.connection().await?;
            let gone = sqlx::query("DELETE FROM api_answers WHERE expires_at <= $1").bind(now.0);
            Ok(gone.execute(&mut *connection).await?.rows_affected())
        })
        .await
    }

    async fn page(&self, tenant: &Tenant, of: Listed, after: Option<&str>, limit: u16) -> Result<IdPage, StoreError> {
        let (from, read) = rows::page_bounds(of, after, limit);
        self.read(async || {
            let mut connection = self.connection().await?;
            let query = sqlx::query(rows::page_sql(of)).bind(tenant.as_str()).bind(from).bind(read);
            Ok(rows::page(&query.fetch_all(&mut *connection).await?, limit, read)?)
        })
        .await
    }

    async fn audit_of(&self, subject: &str, after: u64, limit: u16) -> Result<AuditPage, StoreError> {
        self.read(async || {
            let query = sqlx::query(rows::AUDIT_OF).bind(subject).bind(as_int(after)?).bind(i64::from(limit) + 1);
            let found = query.fetch_all(&mut *self.connection().await?).await?;
            Ok(rows::audit_page(&found, limit, trail::audit)?)
        })
        .await
    }
}
