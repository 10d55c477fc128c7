//! Customers, their cards, payees.

use std::collections::HashMap;
use std::pin::Pin;

use async_trait::async_trait;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::columns::column;
use super::fault::{Fault, exists};
use super::group::Answers;
use super::trail::insert_audit;
use super::voices::erase;
use super::{PgStore, Tx, commit, consents, exactly_one};
use crate::e164::E164;
use crate::ids::{CardId, Category, CustomerId, PayeeId};
use crate::payment::Expiry;
use crate::store::consents::Withdrawn;
use crate::store::rows::consents::END_ALL;
use crate::store::rows::keys::number;
use crate::store::rows::{Reader, people};
use crate::store::{AuditRecord, CardRecord, CardStatus, Customer, CustomerStatus, LookUp, Payee, People, StoreError};
use crate::vault::WrappedKey;

/// Cards with their keys.
macro_rules! select_cards {
    () => {
        "SELECT c.*, k.key_version, k.wrapped FROM cards c LEFT JOIN card_keys k ON k.card_id = c.id"
    };
}

#[async_trait]
impl People for PgStore {
    async fn add_customer(&self, customer: &Customer, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            sqlx::query(
                "INSERT INTO customers (id, tenant, name, customer_number, status, language, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
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
            let numbers: Vec<&str> = customer.numbers.iter().map(E164::as_str).collect();
            sqlx::query("INSERT INTO customer_numbers (number, customer_id) SELECT number, $2 FROM unnest($1::text[]) AS number")
                .bind(numbers)
                .bind(customer.id.as_str())
                .execute(&mut *tx)
                .await
                .map_err(|e| exists(e, "this telephone number of the customer"))?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }

    async fn customer(&self, id: &CustomerId) -> Result<Option<Customer>, StoreError> {
        self.read(async || {
            let mut tx = self.snapshot().await?;
            let row = sqlx::query("SELECT * FROM customers WHERE id = $1").bind(id.as_str()).fetch_optional(&mut *tx).await?;
            one(&mut tx, row.as_ref()).await
        })
        .await
    }

    async fn customers(&self) -> Result<Vec<Customer>, StoreError> {
        self.read(async || {
            let mut tx = self.snapshot().await?;
            let rows = sqlx::query("SELECT * FROM customers WHERE status <> 'deleted' ORDER BY created_at, id")
                .fetch_all(&mut *tx)
                .await?;
            let mut all = Vec::with_capacity(rows.len());
            for row in &rows {
                all.push(read_customer(&mut tx, row).await?);
            }
            Ok(all)
        })
        .await
    }

    async fn customer_by_number(&self, number: &E164) -> Result<LookUp, StoreError> {
        self.read(async || {
            let mut tx = self.snapshot().await?;
            let rows = sqlx::query(
                "SELECT c.* FROM customers c JOIN customer_numbers n ON n.customer_id = c.id
                 WHERE n.number = $1 AND c.status <> 'deleted' LIMIT 2",
            )
            .bind(number.as_str())
            .fetch_all(&mut *tx)
            .await?;
            match rows.as_slice() {
                [] => Ok(LookUp::Nobody),
                [row] => Ok(LookUp::One(read_customer(&mut tx, row).await?)),
                [_, _, ..] => Ok(LookUp::Shared),
            }
        })
        .await
    }

    async fn customer_by_customer_number(&self, digits: &str) -> Result<Option<Customer>, StoreError> {
        self.read(async || {
            let mut tx = self.snapshot().await?;
            let row = sqlx::query("SELECT * FROM customers WHERE customer_number = $1 AND status <> 'deleted'")
                .bind(digits)
                .fetch_optional(&mut *tx)
                .await?;
            one(&mut tx, row.as_ref()).await
        })
        .await
    }

    async fn wants_more_time(&self, id: &CustomerId) -> Result<bool, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let row =
                sqlx::query("SELECT 1 FROM customers WHERE id = $1 AND more_time AND status <> 'deleted'").bind(id.as_str());
            Ok(row.fetch_optional(&mut *connection).await?.is_some())
        })
        .await
    }

    async fn set_more_time(&self, id: &CustomerId, wanted: bool, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let done = sqlx::query("UPDATE customers SET more_time = $1 WHERE id = $2 AND status <> 'deleted'")
                .bind(wanted)
                .bind(id.as_str())
                .execute(&mut *tx)
                .await?;
            exactly_one(&done, StoreError::NotFound("customer"))?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }

    async fn delete_customer(&self, id: &CustomerId, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            // Whatever adds something to a customer holds the row `FOR KEY SHARE`: it comes before this and is seen by what follows, or
            // after it and finds the customer deleted.
            sqlx::query("SELECT 1 FROM customers WHERE id = $1 FOR UPDATE").bind(id.as_str()).fetch_optional(&mut *tx).await?;
            // A refund in doubt may have to be sent again, and on some wires needs the number for it.
            let pending = sqlx::query(
                "SELECT (SELECT count(*) FROM intents WHERE customer_id = $1 AND status = 'pending')
                      + (SELECT count(*) FROM attempts a JOIN intents i ON i.id = a.intent_id
                         WHERE (a.due_at IS NOT NULL OR a.state = 'conflicted') AND i.customer_id = $1) AS n",
            )
                .bind(id.as_str())
                .fetch_one(&mut *tx)
                .await?;
            if Reader::new(&pending, "intents").int("n")? > 0 {
                let wait = "a payment of this customer is under way; delete the customer when it has ended";
                return Err(StoreError::Refused(wait.into()).into());
            }
            let done = sqlx::query(
                "UPDATE customers SET name = '', customer_number = NULL, more_time = false, status = 'deleted', deleted_at = $2 WHERE id = $1 AND status <> 'deleted'",
            )
            .bind(id.as_str())
            .bind(audit.at.0)
            .execute(&mut *tx)
            .await?;
            exactly_one(&done, StoreError::NotFound("customer"))?;
            let mut erased = erase_what_hangs_on(&mut tx, id).await?;
            erased.push(("consents_ended", consents::end(&mut tx, END_ALL, id.as_str(), &Withdrawn::of(audit)).await?));
            insert_audit(&mut tx, &audit.with_erased(&erased)).await?;
            commit(tx).await
        })
        .await
    }

    async fn add_card(&self, card: &CardRecord, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            insert_card(&mut tx, card).await?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }

    async fn card(&self, id: &CardId) -> Result<Option<CardRecord>, StoreError> {
        self.read(async || self.groups.cards.ask(id.clone()).await).await
    }

    async fn cards_of(&self, customer: &CustomerId) -> Result<Vec<CardRecord>, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let rows = sqlx::query(concat!(select_cards!(), " WHERE c.customer_id = $1 ORDER BY c.created_at, c.id"))
                .bind(customer.as_str())
                .fetch_all(&mut *connection)
                .await?;
            Ok(rows.iter().map(people::card).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn set_card_status(&self, id: &CardId, status: CardStatus, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let done = sqlx::query("UPDATE cards SET status = $1 WHERE id = $2 AND status <> 'revoked'")
                .bind(status.as_str())
                .bind(id.as_str())
                .execute(&mut *tx)
                .await?;
            exactly_one(&done, StoreError::NotFound("card that is not revoked"))?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }

    async fn add_payee(&self, payee: &Payee, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            sqlx::query(
                "INSERT INTO payees (id, tenant, category, name, spoken_name_wav, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            )
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
            commit(tx).await
        })
        .await
    }

    async fn payee(&self, id: &PayeeId) -> Result<Option<Payee>, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let row =
                sqlx::query("SELECT * FROM payees WHERE id = $1").bind(id.as_str()).fetch_optional(&mut *connection).await?;
            Ok(row.as_ref().map(people::payee).transpose()?)
        })
        .await
    }

    async fn payees(&self) -> Result<Vec<Payee>, StoreError> {
        self.read(async || {
            let mut connection = self.connection().await?;
            let rows =
                sqlx::query("SELECT id, tenant, category, name, NULL::bytea AS spoken_name_wav, created_at FROM payees ORDER BY created_at, id")
                    .fetch_all(&mut *connection)
                    .await?;
            Ok(rows.iter().map(people::payee).collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// Everything of a customer that is not money: sealed numbers, voice, telephone numbers. Says how much of each; a statement may touch no row
/// at all.
///
/// The server keeps what a row was until it is vacuumed, and in its log for longer; no statement can overwrite that. What ends a card there is that
/// its data key goes.
async fn erase_what_hangs_on(tx: &mut Tx, id: &CustomerId) -> Result<Vec<(&'static str, u64)>, Fault> {
    const STATEMENTS: [(&str, &str); 15] = [
        ("card_numbers", "UPDATE cards SET sealed = ''::bytea, digest = NULL, status = 'revoked' WHERE customer_id = $1"),
        ("card_keys", "DELETE FROM card_keys WHERE card_id IN (SELECT id FROM cards WHERE customer_id = $1)"),
        ("keys", "DELETE FROM customer_keys WHERE customer_id = $1"),
        ("card_references", "DELETE FROM card_references WHERE card_id IN (SELECT id FROM cards WHERE customer_id = $1)"),
        ("templates", "DELETE FROM templates WHERE customer_id = $1"),
        ("fresh_digits", "DELETE FROM challenges WHERE customer_id = $1"),
        ("fingerprints", "DELETE FROM fingerprints WHERE customer_id = $1"),
        ("earlier_templates", "DELETE FROM earlier_templates WHERE customer_id = $1"),
        ("invitations", "DELETE FROM invites WHERE customer_id = $1"),
        ("telephone_numbers", "DELETE FROM customer_numbers WHERE customer_id = $1"),
        ("requests_cancelled", "UPDATE requests SET status = 'cancelled' WHERE customer_id = $1 AND status = 'open'"),
        ("failed_factors", "UPDATE factor_failures SET calling = NULL WHERE customer_id = $1"),
        ("calls", "UPDATE calls SET calling = NULL, record = '{}' WHERE customer_id = $1"),
        ("codes_on_their_way", "UPDATE code_deliveries SET sealed = ''::bytea, next_try_at = NULL WHERE customer_id = $1"),
        (
            "calls_owed",
            "UPDATE callbacks SET state = 'given_up', due_at = NULL, lease_owner = NULL WHERE customer_id = $1 AND state = 'waiting'",
        ),
    ];
    let mut erased = Vec::with_capacity(STATEMENTS.len());
    for (what, sql) in STATEMENTS {
        erased.push((what, erase(tx, sql, id).await?));
    }
    Ok(erased)
}

/// A customer's status, which stays true until the transaction ends: a deletion waits for it. `None`: there is no such customer.
pub(super) async fn hold_customer(connection: &mut PgConnection, id: &CustomerId) -> Result<Option<CustomerStatus>, Fault> {
    let row = sqlx::query("SELECT status FROM customers WHERE id = $1 FOR KEY SHARE")
        .bind(id.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| Reader::new(&row, "customers").word("status", CustomerStatus::parse)).transpose()?)
}

pub(super) async fn find_card(connection: &mut PgConnection, id: &CardId) -> Result<Option<CardRecord>, Fault> {
    let row = sqlx::query(concat!(select_cards!(), " WHERE c.id = $1")).bind(id.as_str()).fetch_optional(connection).await?;
    Ok(row.as_ref().map(people::card).transpose()?)
}

/// The same for many.
pub(super) fn find_cards<'c>(
    connection: &'c mut PgConnection,
    ids: &'c [CardId],
) -> Pin<Box<dyn Future<Output = Answers<Option<CardRecord>>> + Send + 'c>> {
    Box::pin(async move {
        let rows = sqlx::query(concat!(select_cards!(), " WHERE c.id = ANY($1)"))
            .bind(column(ids, CardId::as_str))
            .fetch_all(connection)
            .await?;
        let found = rows.iter().map(people::card).collect::<Result<Vec<_>, _>>()?;
        let found: HashMap<_, _> = found.into_iter().map(|card| (card.id.clone(), card)).collect();
        Ok(column(ids, |id| Ok(found.get(id).cloned())))
    })
}

/// A card and its key. The customer must not be deleted.
pub(super) async fn insert_card(connection: &mut PgConnection, card: &CardRecord) -> Result<(), Fault> {
    match hold_customer(connection, &card.customer).await? {
        Some(CustomerStatus::Active | CustomerStatus::Blocked) => {}
        Some(CustomerStatus::Deleted) | None => return Err(StoreError::NotFound("customer").into()),
    }
    sqlx::query(
        "INSERT INTO cards (id, customer_id, last4, length, expiry_year, expiry_month, status, sealed, digest, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(card.id.as_str())
    .bind(card.customer.as_str())
    .bind(&card.last4)
    .bind(i64::from(card.length))
    .bind(card.expiry.map(|e| i64::from(Expiry::year(e))))
    .bind(card.expiry.map(|e| i64::from(Expiry::month(e))))
    .bind(card.status.as_str())
    .bind(&card.sealed.body)
    .bind(card.digest.as_slice())
    .bind(card.created_at.0)
    .execute(&mut *connection)
    .await
    .map_err(|e| exists(e, "this card of the customer"))?;
    match &card.sealed.key {
        Some(key) => insert_card_key(connection, &card.id, key).await,
        None => Ok(()),
    }
}

pub(super) async fn insert_card_key(connection: &mut PgConnection, card: &CardId, key: &WrappedKey) -> Result<(), Fault> {
    sqlx::query("INSERT INTO card_keys (card_id, key_version, wrapped) VALUES ($1, $2, $3)")
        .bind(card.as_str())
        .bind(number(key.version))
        .bind(&key.wrapped)
        .execute(connection)
        .await?;
    Ok(())
}

async fn one(connection: &mut PgConnection, row: Option<&PgRow>) -> Result<Option<Customer>, Fault> {
    match row {
        Some(row) => Ok(Some(read_customer(connection, row).await?)),
        None => Ok(None),
    }
}

async fn read_customer(connection: &mut PgConnection, row: &PgRow) -> Result<Customer, Fault> {
    let id: CustomerId = Reader::new(row, "customers").parsed("id")?;
    let rows = sqlx::query("SELECT number FROM customer_numbers WHERE customer_id = $1 ORDER BY number")
        .bind(id.as_str())
        .fetch_all(connection)
        .await?;
    Ok(people::customer(row, rows.iter().map(people::number).collect::<Result<_, _>>()?)?)
}
