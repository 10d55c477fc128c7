//! Tenants, keys of the API, answers that are given again, and pages.

use async_trait::async_trait;

use super::trail::insert_audit;
use super::{SqliteStore, exactly_one, exists, fault};
use crate::clock::Timestamp;
use crate::ids::{ApiKeyId, Tenant};
use crate::store::rows::{as_int, clients as rows, trail};
use crate::store::{ApiKeyRecord, Asked, AuditPage, AuditRecord, Clients, Earlier, IdPage, Listed, StoreError, TenantRecord};

#[async_trait]
impl Clients for SqliteStore {
    async fn add_tenant(&self, tenant: &TenantRecord, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query(rows::ADD_TENANT)
            .bind(tenant.name.as_str())
            .bind(&tenant.title)
            .bind(tenant.created_at.0)
            .execute(&mut *tx)
            .await
            .map_err(|e| exists(e, "this tenant"))?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)
    }

    async fn tenants(&self) -> Result<Vec<TenantRecord>, StoreError> {
        let all = sqlx::query(rows::TENANTS).fetch_all(&self.pool).await.map_err(fault)?;
        all.iter().map(rows::tenant).collect()
    }

    async fn add_api_key(&self, key: &ApiKeyRecord, digest: &[u8; 32], audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let tenant = sqlx::query(rows::TENANT).bind(key.tenant.as_str()).fetch_optional(&mut *tx).await.map_err(fault)?;
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
        tx.commit().await.map_err(fault)
    }

    async fn api_key(&self, digest: &[u8; 32]) -> Result<Option<ApiKeyRecord>, StoreError> {
        let row = sqlx::query(rows::KEY).bind(digest.as_slice()).fetch_optional(&self.pool).await.map_err(fault)?;
        row.as_ref().map(rows::api_key).transpose()
    }

    async fn api_keys(&self) -> Result<Vec<ApiKeyRecord>, StoreError> {
        let all = sqlx::query(rows::KEYS).fetch_all(&self.pool).await.map_err(fault)?;
        all.iter().map(rows::api_key).collect()
    }

    async fn revoke_api_key(&self, id: &ApiKeyId, at: Timestamp, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query(rows::REVOKE_KEY).bind(id.as_str()).bind(at.0).execute(&mut *tx).await.map_err(fault)?;
        exactly_one(&done, StoreError::NotFound("API key that stands"))?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)
    }

    async fn begin_answer(&self, asked: &Asked) -> Result<Earlier, StoreError> {
        let mut tx = self.write().await?;
        let (api_key, key) = (asked.api_key.as_str(), asked.key.as_str());
        sqlx::query(rows::FREE_ANSWER).bind(api_key).bind(key).bind(asked.now.0).execute(&mut *tx).await.map_err(fault)?;
        let new = sqlx::query(rows::NEW_ANSWER)
            .bind(api_key)
            .bind(key)
            .bind(asked.request.as_slice())
            .bind(asked.now.0)
            .bind(asked.leased_to.0)
            .bind(asked.expires_at.0)
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        let earlier = if new.rows_affected() == 1 {
            Earlier::Yours { begun_at: asked.now }
        } else {
            let row = sqlx::query("SELECT * FROM api_answers WHERE api_key = ? AND key = ?").bind(api_key).bind(key);
            let row = row.fetch_one(&mut *tx).await.map_err(fault)?;
            rows::earlier(&row, asked)?
        };
        if let (Earlier::Yours { .. }, 0) = (&earlier, new.rows_affected()) {
            let taken = sqlx::query(rows::TAKE_ANSWER).bind(api_key).bind(key).bind(asked.leased_to.0);
            exactly_one(&taken.execute(&mut *tx).await.map_err(fault)?, StoreError::Conflict("idempotency key"))?;
        }
        tx.commit().await.map_err(fault)?;
        Ok(earlier)
    }

    async fn keep_answer(&self, asked: &Asked, status: u16, body: &[u8]) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let kept = sqlx::query(rows::KEEP_ANSWER)
            .bind(asked.api_key.as_str())
            .bind(&asked.key)
            .bind(asked.leased_to.0)
            .bind(i64::from(status))
            .bind(body)
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        exactly_one(&kept, StoreError::Conflict("idempotency key"))?;
        tx.commit().await.map_err(fault)
    }

    async fn drop_answer(&self, asked: &Asked) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query(rows::DROP_ANSWER)
            .bind(asked.api_key.as_str())
            .bind(&asked.key)
            .bind(asked.leased_to.0)
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        tx.commit().await.map_err(fault)
    }

    async fn sweep_answers(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let gone =
            sqlx::query("DELETE FROM api_answers WHERE expires_at <= ?").bind(now.0).execute(&mut *tx).await.map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(gone.rows_affected())
    }

    async fn page(&self, tenant: &Tenant, of: Listed, after: Option<&str>, limit: u16) -> Result<IdPage, StoreError> {
        let (from, read) = rows::page_bounds(of, after, limit);
        let query = sqlx::query(rows::page_sql(of)).bind(tenant.as_str()).bind(from).bind(read);
        rows::page(&query.fetch_all(&self.pool).await.map_err(fault)?, limit, read)
    }

    async fn audit_of(&self, subject: &str, after: u64, limit: u16) -> Result<AuditPage, StoreError> {
        let query = sqlx::query(rows::AUDIT_OF).bind(subject).bind(as_int(after)?).bind(i64::from(limit) + 1);
        rows::audit_page(&query.fetch_all(&self.pool).await.map_err(fault)?, limit, trail::audit)
    }
}
