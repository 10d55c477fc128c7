//! Sealed fingerprints of what was heard.

use async_trait::async_trait;

use super::{PgStore, commit};
use crate::clock::Timestamp;
use crate::ids::CustomerId;
use crate::store::rows::Reader;
use crate::store::{FingerprintRecord, Fingerprints, StoreError};

/// Whoever's turn it is sweeps what has expired, of every customer, in the order of the rows; those that another transaction is sweeping are left to it.
const SWEEP: &str = "DELETE FROM fingerprints WHERE seq IN
    (SELECT seq FROM fingerprints WHERE expires_at <= $1 ORDER BY seq FOR UPDATE SKIP LOCKED)";

#[async_trait]
impl Fingerprints for PgStore {
    async fn keep_fingerprint(&self, new: &FingerprintRecord, keep_limit: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            // One call of a customer at a time: of two that play the same audio at once, the second sees what the first kept.
            let alive = sqlx::query("SELECT 1 FROM customers WHERE id = $1 AND status <> 'deleted' FOR NO KEY UPDATE")
                .bind(new.customer.as_str())
                .fetch_optional(&mut *tx)
                .await?;
            sqlx::query(SWEEP).bind(new.heard_at.0).execute(&mut *tx).await?;
            let rows = sqlx::query(
                "SELECT sealed FROM fingerprints WHERE customer_id = $1 AND expires_at > $2 ORDER BY seq DESC LIMIT $3",
            )
            .bind(new.customer.as_str())
            .bind(new.heard_at.0)
            .bind(i64::from(keep_limit))
            .fetch_all(&mut *tx)
            .await?;
            let earlier =
                rows.iter().map(|row| Reader::new(row, "fingerprints").bytes("sealed")).collect::<Result<Vec<_>, _>>()?;
            // A customer who was deleted meanwhile leaves nothing behind.
            if alive.is_some() {
                sqlx::query("INSERT INTO fingerprints (customer_id, sealed, heard_at, expires_at) VALUES ($1, $2, $3, $4)")
                    .bind(new.customer.as_str())
                    .bind(&new.sealed)
                    .bind(new.heard_at.0)
                    .bind(new.expires_at.0)
                    .execute(&mut *tx)
                    .await?;
                sqlx::query(
                    "DELETE FROM fingerprints WHERE customer_id = $1 AND seq NOT IN
                       (SELECT seq FROM fingerprints WHERE customer_id = $1 ORDER BY seq DESC LIMIT $2)",
                )
                .bind(new.customer.as_str())
                .bind(i64::from(keep_limit))
                .execute(&mut *tx)
                .await?;
            }
            commit(tx).await?;
            Ok(earlier)
        })
        .await
    }

    async fn sweep_fingerprints(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.once(async || {
            let mut connection = self.connection().await?;
            Ok(sqlx::query(SWEEP).bind(now.0).execute(&mut *connection).await?.rows_affected())
        })
        .await
    }

    async fn fingerprint_count(&self, customer: &CustomerId) -> Result<u64, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let row = sqlx::query("SELECT count(*) AS n FROM fingerprints WHERE customer_id = $1")
                .bind(customer.as_str())
                .fetch_one(&mut *connection)
                .await?;
            Ok(Reader::new(&row, "fingerprints").small("n")?)
        })
        .await
    }
}
