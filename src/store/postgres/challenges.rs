//! Fresh digits that were asked for, as keyed digests.

use async_trait::async_trait;

use super::PgStore;
use crate::clock::Timestamp;
use crate::ids::CustomerId;
use crate::store::{Challenges, StoreError};

#[async_trait]
impl Challenges for PgStore {
    async fn use_challenge(&self, customer: &CustomerId, digest: &[u8; 32], at: Timestamp) -> Result<bool, StoreError> {
        self.once(async || {
            let mut connection = self.connection().await?;
            // The lock waits for a deletion that is under way, and then finds the customer gone.
            let noted = sqlx::query(
                "INSERT INTO challenges (customer_id, digest, drawn_at)
                 SELECT id, $1, $2 FROM customers WHERE id = $3 AND status = 'active' FOR KEY SHARE
                 ON CONFLICT (customer_id, digest) DO NOTHING",
            )
            .bind(digest.as_slice())
            .bind(at.0)
            .bind(customer.as_str())
            .execute(&mut *connection)
            .await?;
            Ok(noted.rows_affected() == 1)
        })
        .await
    }
}
