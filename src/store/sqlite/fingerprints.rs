//! Sealed fingerprints of what was heard.

use async_trait::async_trait;

use super::{SqliteStore, fault};
use crate::clock::Timestamp;
use crate::ids::CustomerId;
use crate::store::rows::Reader;
use crate::store::{FingerprintRecord, Fingerprints, StoreError};

#[async_trait]
impl Fingerprints for SqliteStore {
    async fn keep_fingerprint(&self, new: &FingerprintRecord, keep_limit: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut tx = self.write().await?;
        // Whoever's turn it is sweeps what has expired, of every customer.
        sqlx::query("DELETE FROM fingerprints WHERE expires_at <= ?")
            .bind(new.heard_at.0)
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        let rows = sqlx::query("SELECT sealed FROM fingerprints WHERE customer_id = ? ORDER BY seq DESC LIMIT ?")
            .bind(new.customer.as_str())
            .bind(keep_limit)
            .fetch_all(&mut *tx)
            .await
            .map_err(fault)?;
        let earlier = rows.iter().map(|row| Reader::new(row, "fingerprints").bytes("sealed")).collect::<Result<Vec<_>, _>>()?;
        // A customer who was deleted meanwhile leaves nothing behind.
        sqlx::query(
            "INSERT INTO fingerprints (customer_id, sealed, heard_at, expires_at)
             SELECT id, ?, ?, ? FROM customers WHERE id = ? AND status <> 'deleted'",
        )
        .bind(&new.sealed)
        .bind(new.heard_at.0)
        .bind(new.expires_at.0)
        .bind(new.customer.as_str())
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        sqlx::query(
            "DELETE FROM fingerprints WHERE customer_id = ?1 AND seq NOT IN
               (SELECT seq FROM fingerprints WHERE customer_id = ?1 ORDER BY seq DESC LIMIT ?2)",
        )
        .bind(new.customer.as_str())
        .bind(keep_limit)
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(earlier)
    }

    async fn sweep_fingerprints(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let gone =
            sqlx::query("DELETE FROM fingerprints WHERE expires_at <= ?").bind(now.0).execute(&mut *tx).await.map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(gone.rows_affected())
    }

    async fn fingerprint_count(&self, customer: &CustomerId) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT count(*) AS n FROM fingerprints WHERE customer_id = ?")
            .bind(customer.as_str())
            .fetch_one(&self.pool)
            .await
            .map_err(fault)?;
        Reader::new(&row, "fingerprints").small("n")
    }
}
