//! Customers, their cards, payees.

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::trail::insert_audit;
use super::voices::erase;
use super::{SqliteStore, consents, exactly_one, exists, fault};
use crate::e164::E164;
use crate::ids::{CardId, Category, CustomerId, PayeeId};
use crate::payment::Expiry;
use crate::store::consents::Withdrawn;
use crate::store::rows::consents::END_ALL;
use crate::store::rows::keys::number;
use crate::store::rows::{Reader, people};
use crate::store::{AuditRecord, CardRecord, CardStatus, Customer, LookUp, Payee, People, StoreError};
use crate::vault::WrappedKey;

/// Cards with their keys.
macro_rules! select_cards {
    () => {
        "SELECT c.*, k.key_version, k.wrapped FROM cards c LEFT JOIN card_keys k ON k.card_id = c.id"
    };
}

#[async_trait]
impl People for SqliteStore {
    async fn add_customer(&self, customer: &Customer, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("INSERT INTO customers (id, tenant, name, customer_number, status, language, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(customer.id.as_str())
            .bind(customer.tenant.as_str())
            .bind(&customer.name)
            .bind(&customer.customer_number)
            .bind(customer.status.as_str())
            .bind(customer.language.code())
            .bind(customer.created_at.0)
            .execute(&mut *tx)
            .await
            .map_err(|e| exists(e, "a customer with this customer number"))?;
        for number in &customer.numbers {
            sqlx::query("INSERT INTO customer_numbers (number, customer_id) VALUES (?, ?)")
                .bind(number.as_str())
                .bind(customer.id.as_str())
                .execute(&mut *tx)
                .await
                .map_err(|e| exists(e, "this telephone number of the customer"))?;
        }
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)
    }

    async fn customer(&self, id: &CustomerId) -> Result<Option<Customer>, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        let row = sqlx::query("SELECT * FROM customers WHERE id = ?")
            .bind(id.as_str())
            .fetch_optional(&mut *conn)
            .await
            .map_err(fault)?;
        one(&mut conn, row.as_ref()).await
    }

    async fn customers(&self) -> Result<Vec<Customer>, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        let rows = sqlx::query("SELECT * FROM customers WHERE status <> 'deleted' ORDER BY created_at, id")
            .fetch_all(&mut *conn)
            .await
            .map_err(fault)?;
        let mut all = Vec::with_capacity(rows.len());
        for row in &rows {
            all.push(read_customer(&mut conn, row).await?);
        }
        Ok(all)
    }

    async fn customer_by_number(&self, number: &E164) -> Result<LookUp, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        let rows = sqlx::query(
            "SELECT c.* FROM customers c JOIN customer_numbers n ON n.customer_id = c.id
             WHERE n.number = ? AND c.status <> 'deleted' LIMIT 2",
        )
        .bind(number.as_str())
        .fetch_all(&mut *conn)
        .await
        .map_err(fault)?;
        match rows.as_slice() {
            [] => Ok(LookUp::Nobody),
            [row] => Ok(LookUp::One(read_customer(&mut conn, row).await?)),
            [_, _, ..] => Ok(LookUp::Shared),
        }
    }

    async fn customer_by_customer_number(&self, digits: &str) -> Result<Option<Customer>, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        let row = sqlx::query("SELECT * FROM customers WHERE customer_number = ? AND status <> 'deleted'")
            .bind(digits)
            .fetch_optional(&mut *conn)
            .await
            .map_err(fault)?;
        one(&mut conn, row.as_ref()).await
    }

    async fn wants_more_time(&self, id: &CustomerId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM customers WHERE id = ? AND more_time = 1 AND status <> 'deleted'").bind(id.as_str());
        Ok(row.fetch_optional(&self.pool).await.map_err(fault)?.is_some())
    }

    async fn set_more_time(&self, id: &CustomerId, wanted: bool, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("UPDATE customers SET more_time = ? WHERE id = ? AND status <> 'deleted'")
            .bind(wanted)
            .bind(id.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        exactly_one(&done, StoreError::NotFound("customer"))?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)
    }

    async fn delete_customer(&self, id: &CustomerId, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        // A refund in doubt may have to be sent again, and on some wires needs the number for it. What has no end yet, a
        // conflict among it, is due at some time; there is little of it, so it comes first (CROSS JOIN keeps the order).
        let pending = sqlx::query(
            "SELECT (SELECT count(*) FROM intents WHERE customer_id = ?1 AND status = 'pending')
                  + (SELECT count(*) FROM attempts a CROSS JOIN intents i ON i.id = a.intent_id
                     WHERE a.due_at IS NOT NULL AND i.customer_id = ?1) AS n",
        )
        .bind(id.as_str())
        .fetch_one(&mut *tx)
        .await
        .map_err(fault)?;
        if Reader::new(&pending, "intents").int("n")? > 0 {
            return Err(StoreError::Refused(
                "a payment of this customer is under way; delete the customer when it has ended".into(),
            ));
        }
        let done = sqlx::query(
            "UPDATE customers SET name = '', customer_number = NULL, more_time = 0, status = 'deleted', deleted_at = ?2 WHERE id = ?1 AND status <> 'deleted'",
        )
        .bind(id.as_str())
        .bind(audit.at.0)
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        exactly_one(&done, StoreError::NotFound("customer"))?;
        let mut erased = erase_what_hangs_on(&mut tx, id).await?;
        erased.push(("consents_ended", consents::end(&mut tx, END_ALL, id.as_str(), &Withdrawn::of(audit)).await?));
        insert_audit(&mut tx, &audit.with_erased(&erased)).await?;
        tx.commit().await.map_err(fault)?;
        self.fold_log().await;
        Ok(())
    }

    async fn add_card(&self, card: &CardRecord, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        insert_card(&mut tx, card).await?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)
    }

    async fn card(&self, id: &CardId) -> Result<Option<CardRecord>, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        find_card(&mut conn, id).await
    }

    async fn cards_of(&self, customer: &CustomerId) -> Result<Vec<CardRecord>, StoreError> {
        let rows = sqlx::query(concat!(select_cards!(), " WHERE c.customer_id = ? ORDER BY c.created_at, c.id"))
            .bind(customer.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(people::card).collect()
    }

    async fn set_card_status(&self, id: &CardId, status: CardStatus, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("UPDATE cards SET status = ? WHERE id = ? AND status <> 'revoked'")
            .bind(status.as_str())
            .bind(id.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        exactly_one(&done, StoreError::NotFound("card that is not revoked"))?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)
    }

    async fn add_payee(&self, payee: &Payee, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("INSERT INTO payees (id, tenant, category, name, spoken_name_wav, created_at) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(payee.id.as_str())
            .bind(payee.tenant.as_str())
            .bind(payee.category.as_ref().map(Category::as_str))
            .bind(&payee.name)
            .bind(&payee.spoken_name_wav)
            .bind(payee.created_at.0)
            .execute(&mut *tx)
            .await
            .map_err(|e| exists(e, "this payee"))?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)
    }

    async fn payee(&self, id: &PayeeId) -> Result<Option<Payee>, StoreError> {
        let row =
            sqlx::query("SELECT * FROM payees WHERE id = ?").bind(id.as_str()).fetch_optional(&self.pool).await.map_err(fault)?;
        row.as_ref().map(people::payee).transpose()
    }

    async fn payees(&self) -> Result<Vec<Payee>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, tenant, category, name, NULL AS spoken_name_wav, created_at FROM payees ORDER BY created_at, id",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(people::payee).collect()
    }
}

/// Everything of a customer that is not money: sealed numbers, voice, telephone numbers. Says how much of each; a statement may touch no row
/// at all.
async fn erase_what_hangs_on(tx: &mut SqliteConnection, id: &CustomerId) -> Result<Vec<(&'static str, u64)>, StoreError> {
    const STATEMENTS: [(&str, &str); 15] = [
        ("card_keys", "DELETE FROM card_keys WHERE card_id IN (SELECT id FROM cards WHERE customer_id = ?)"),
        ("keys", "DELETE FROM customer_keys WHERE customer_id = ?"),
        ("card_references", "DELETE FROM card_references WHERE card_id IN (SELECT id FROM cards WHERE customer_id = ?)"),
        ("card_numbers", "UPDATE cards SET sealed = x'', digest = NULL, status = 'revoked' WHERE customer_id = ?"),
        ("templates", "DELETE FROM templates WHERE customer_id = ?"),
        ("fresh_digits", "DELETE FROM challenges WHERE customer_id = ?"),
        ("fingerprints", "DELETE FROM fingerprints WHERE customer_id = ?"),
        ("earlier_templates", "DELETE FROM earlier_templates WHERE customer_id = ?"),
        ("invitations", "DELETE FROM invites WHERE customer_id = ?"),
        ("telephone_numbers", "DELETE FROM customer_numbers WHERE customer_id = ?"),
        ("requests_cancelled", "UPDATE requests SET status = 'cancelled' WHERE customer_id = ? AND status = 'open'"),
        ("failed_factors", "UPDATE factor_failures SET calling = NULL WHERE customer_id = ?"),
        ("calls", "UPDATE calls SET calling = NULL, record = '{}' WHERE customer_id = ?"),
        ("codes_on_their_way", "UPDATE code_deliveries SET sealed = x'', next_try_at = NULL WHERE customer_id = ?"),
        (
            "calls_owed",
            "UPDATE callbacks SET state = 'given_up', due_at = NULL, lease_owner = NULL WHERE customer_id = ? AND state = 'waiting'",
        ),
    ];
    let mut erased = Vec::with_capacity(STATEMENTS.len());
    for (what, sql) in STATEMENTS {
        erased.push((what, erase(tx, sql, id).await?));
    }
    Ok(erased)
}

async fn one(conn: &mut SqliteConnection, row: Option<&SqliteRow>) -> Result<Option<Customer>, StoreError> {
    match row {
        Some(row) => Ok(Some(read_customer(conn, row).await?)),
        None => Ok(None),
    }
}

pub(super) async fn read_customer(conn: &mut SqliteConnection, row: &SqliteRow) -> Result<Customer, StoreError> {
    let id: CustomerId = Reader::new(row, "customers").parsed("id")?;
    let rows = sqlx::query("SELECT number FROM customer_numbers WHERE customer_id = ? ORDER BY number")
        .bind(id.as_str())
        .fetch_all(conn)
        .await
        .map_err(fault)?;
    people::customer(row, rows.iter().map(people::number).collect::<Result<_, _>>()?)
}

pub(super) async fn find_card(conn: &mut SqliteConnection, id: &CardId) -> Result<Option<CardRecord>, StoreError> {
    let card = sqlx::query(concat!(select_cards!(), " WHERE c.id = ?")).bind(id.as_str());
    card.fetch_optional(conn).await.map_err(fault)?.as_ref().map(people::card).transpose()
}

/// A card and its key. The customer must not be deleted.
pub(super) async fn insert_card(conn: &mut SqliteConnection, card: &CardRecord) -> Result<(), StoreError> {
    let owner = sqlx::query("SELECT 1 FROM customers WHERE id = ? AND status <> 'deleted'")
        .bind(card.customer.as_str())
        .fetch_optional(&mut *conn)
        .await
        .map_err(fault)?;
    if owner.is_none() {
        return Err(StoreError::NotFound("customer"));
    }
    sqlx::query(
        "INSERT INTO cards (id, customer_id, last4, length, expiry_year, expiry_month, status, sealed, digest, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(card.id.as_str())
    .bind(card.customer.as_str())
    .bind(&card.last4)
    .bind(card.length)
    .bind(card.expiry.map(Expiry::year))
    .bind(card.expiry.map(Expiry::month))
    .bind(card.status.as_str())
    .bind(&card.sealed.body)
    .bind(card.digest.as_slice())
    .bind(card.created_at.0)
    .execute(&mut *conn)
    .await
    .map_err(|e| exists(e, "this card of the customer"))?;
    match &card.sealed.key {
        Some(key) => insert_card_key(conn, &card.id, key).await,
        None => Ok(()),
    }
}

pub(super) async fn insert_card_key(conn: &mut SqliteConnection, card: &CardId, key: &WrappedKey) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO card_keys (card_id, key_version, wrapped) VALUES (?, ?, ?)")
        .bind(card.as_str())
        .bind(number(key.version))
        .bind(&key.wrapped)
        .execute(conn)
        .await
        .map_err(fault)?;
    Ok(())
}
