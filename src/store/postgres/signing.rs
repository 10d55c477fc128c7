//! The register of signing keys.

use async_trait::async_trait;

use super::trail::insert_audit;
use super::{PgStore, commit};
use crate::store::rows::chain::signing_key;
use crate::store::signing::{SigningKeyRecord, SigningKeys};
use crate::store::{AuditRecord, StoreError};
use crate::vault::SigningPurpose;

#[async_trait]
impl SigningKeys for PgStore {
    async fn signing_keys(&self, purpose: SigningPurpose) -> Result<Vec<SigningKeyRecord>, StoreError> {
        self.read(async || {
            let rows = sqlx::query("SELECT * FROM signing_keys WHERE purpose = $1 ORDER BY version")
                .bind(purpose.as_str())
                .fetch_all(&mut *self.connection().await?)
                .await?;
            Ok(rows.iter().map(signing_key).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn add_signing_key(&self, new: &SigningKeyRecord, audit: &AuditRecord) -> Result<SigningKeyRecord, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            // Waits for another process that is adding the same version, and then finds it.
            let added = sqlx::query(
                "INSERT INTO signing_keys (purpose, version, public, made_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            )
            .bind(new.purpose.as_str())
            .bind(i64::from(new.version))
            .bind(new.public.bytes().as_slice())
            .bind(new.made_at.0)
            .execute(&mut *tx)
            .await?;
            if added.rows_affected() == 1 {
                insert_audit(&mut tx, audit).await?;
                commit(tx).await?;
                return Ok(new.clone());
            }
            let row = sqlx::query("SELECT * FROM signing_keys WHERE purpose = $1 AND version = $2")
                .bind(new.purpose.as_str())
                .bind(i64::from(new.version))
                .fetch_one(&mut *tx)
                .await?;
            Ok(signing_key(&row)?)
        })
        .await
    }
}
