//! The register of signing keys.

use async_trait::async_trait;

use super::trail::insert_audit;
use super::{SqliteStore, fault};
use crate::store::rows::chain::signing_key;
use crate::store::signing::{SigningKeyRecord, SigningKeys};
use crate::store::{AuditRecord, StoreError};
use crate::vault::SigningPurpose;

#[async_trait]
impl SigningKeys for SqliteStore {
    async fn signing_keys(&self, purpose: SigningPurpose) -> Result<Vec<SigningKeyRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM signing_keys WHERE purpose = ? ORDER BY version")
            .bind(purpose.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(signing_key).collect()
    }

    async fn add_signing_key(&self, new: &SigningKeyRecord, audit: &AuditRecord) -> Result<SigningKeyRecord, StoreError> {
        let mut tx = self.write().await?;
        let added = sqlx::query(
            "INSERT INTO signing_keys (purpose, version, public, made_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(new.purpose.as_str())
        .bind(new.version)
        .bind(new.public.bytes().as_slice())
        .bind(new.made_at.0)
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        if added.rows_affected() == 1 {
            insert_audit(&mut tx, audit).await?;
            tx.commit().await.map_err(fault)?;
            return Ok(new.clone());
        }
        let row = sqlx::query("SELECT * FROM signing_keys WHERE purpose = ? AND version = ?")
            .bind(new.purpose.as_str())
            .bind(new.version)
            .fetch_one(&mut *tx)
            .await
            .map_err(fault)?;
        signing_key(&row)
    }
}
