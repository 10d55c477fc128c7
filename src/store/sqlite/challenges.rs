//! Fresh digits that were asked for, as keyed digests.

use async_trait::async_trait;

use super::{SqliteStore, fault};
use crate::clock::Timestamp;
use crate::ids::CustomerId;
use crate::store::{Challenges, StoreError};

#[async_trait]
impl Challenges for SqliteStore {
    async fn use_challenge(&self, customer: &CustomerId, digest: &[u8; 32], at: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let noted = sqlx::query(
            "INSERT INTO challenges (customer_id, digest, drawn_at)
             SELECT id, ?, ? FROM customers WHERE id = ? AND status = 'active'
             ON CONFLICT (customer_id, digest) DO NOTHING",
        )
        .bind(digest.as_slice())
        .bind(at.0)
        .bind(customer.as_str())
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(noted.rows_affected() == 1)
    }
}
