//! Wrapped keys, apart from what they seal.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::people::{insert_card, insert_card_key};
use super::trail::insert_audit;
use super::{SqliteStore, exactly_one, fault};
use crate::ids::{CardId, CustomerId};
use crate::store::keys::may_retire;
use crate::store::rows::Reader;
use crate::store::rows::keys::{
    KeyKind, OlderKind, keys_left, master_key, number, older_left, older_value, room, stored_key, usage, wrapped,
};
use crate::store::{
    AuditRecord, Brought, KEY_CHECK, KeyUsage, Keys, NewCard, OlderPlace, OlderValue, Resealed, Rewrapped, StoreError, StoredKey,
};
use crate::vault::{FirstKeys, KeySubject, KeyVersion, MasterKey, ROOT_SECRET, WrappedKey};

#[async_trait]
impl Keys for SqliteStore {
    async fn begin_keys(&self, first: &FirstKeys) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let there = sqlx::query("SELECT 1 FROM vault_secrets WHERE name = ?").bind(ROOT_SECRET);
        if there.fetch_optional(&mut *tx).await.map_err(fault)?.is_some() {
            return Ok(());
        }
        insert_master_key(&mut tx, &first.master).await?;
        sqlx::query("INSERT INTO vault_secrets (name, key_version, wrapped) VALUES (?, ?, ?)")
            .bind(ROOT_SECRET)
            .bind(number(first.root.version))
            .bind(&first.root.wrapped)
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        // A database that is older than envelopes has it, and the caller has compared it.
        sqlx::query("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING")
            .bind(KEY_CHECK)
            .bind(first.check.as_slice())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        tx.commit().await.map_err(fault)
    }

    async fn master_keys(&self) -> Result<Vec<MasterKey>, StoreError> {
        let rows = sqlx::query("SELECT version, proof, since FROM master_keys ORDER BY version");
        rows.fetch_all(&self.pool).await.map_err(fault)?.iter().map(master_key).collect()
    }

    async fn add_master_key(&self, new: &MasterKey, audit: &AuditRecord) -> Result<MasterKey, StoreError> {
        let mut tx = self.write().await?;
        let row = sqlx::query("SELECT version, proof, since FROM master_keys WHERE version = ?").bind(number(new.version));
        if let Some(row) = row.fetch_optional(&mut *tx).await.map_err(fault)? {
            return master_key(&row);
        }
        insert_master_key(&mut tx, new).await?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)?;
        Ok(new.clone())
    }

    async fn retire_master_key(&self, version: KeyVersion, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let row = sqlx::query(
            "SELECT (SELECT max(version) FROM master_keys) AS newest,
                    (SELECT count(*) FROM card_keys WHERE key_version = ?1) + (SELECT count(*) FROM customer_keys WHERE key_version = ?1)
                  + (SELECT count(*) FROM vault_secrets WHERE key_version = ?1) AS used",
        )
        .bind(number(version))
        .fetch_one(&mut *tx)
        .await
        .map_err(fault)?;
        let r = Reader::new(&row, "master_keys");
        may_retire(version, r.maybe_int("newest")? == Some(number(version)), r.small("used")?)?;
        let gone = sqlx::query("DELETE FROM master_keys WHERE version = ?").bind(number(version));
        exactly_one(&gone.execute(&mut *tx).await.map_err(fault)?, StoreError::NotFound("version of the master key"))?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)?;
        // What that version wrapped is not left in old pages either.
        self.fold_log().await;
        Ok(())
    }

    async fn secret(&self, name: &str) -> Result<Option<WrappedKey>, StoreError> {
        let row = sqlx::query("SELECT key_version, wrapped FROM vault_secrets WHERE name = ?").bind(name);
        let row = row.fetch_optional(&self.pool).await.map_err(fault)?;
        row.map_or(Ok(None), |row| wrapped(&row, "vault_secrets"))
    }

    async fn customer_key(&self, customer: &CustomerId) -> Result<Option<WrappedKey>, StoreError> {
        let row = sqlx::query("SELECT key_version, wrapped FROM customer_keys WHERE customer_id = ?").bind(customer.as_str());
        let row = row.fetch_optional(&self.pool).await.map_err(fault)?;
        row.map_or(Ok(None), |row| wrapped(&row, "customer_keys"))
    }

    async fn put_customer_key(&self, customer: &CustomerId, key: &WrappedKey) -> Result<WrappedKey, StoreError> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO customer_keys (customer_id, key_version, wrapped)
             SELECT id, ?, ? FROM customers WHERE id = ? AND status <> 'deleted' ON CONFLICT (customer_id) DO NOTHING",
        )
        .bind(number(key.version))
        .bind(&key.wrapped)
        .bind(customer.as_str())
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        let row = sqlx::query("SELECT key_version, wrapped FROM customer_keys WHERE customer_id = ?").bind(customer.as_str());
        let row = row.fetch_optional(&mut *tx).await.map_err(fault)?.ok_or(StoreError::NotFound("customer"))?;
        let stands = wrapped(&row, "customer_keys")?.ok_or(StoreError::NotFound("customer"))?;
        tx.commit().await.map_err(fault)?;
        Ok(stands)
    }

    async fn key_usage(&self) -> Result<Vec<KeyUsage>, StoreError> {
        let rows = sqlx::query(
            "SELECT m.version, (SELECT count(*) FROM card_keys WHERE key_version = m.version) AS cards,
                    (SELECT count(*) FROM customer_keys WHERE key_version = m.version) AS customers,
                    (SELECT count(*) FROM vault_secrets WHERE key_version = m.version) AS secrets
             FROM master_keys m ORDER BY m.version",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(usage).collect()
    }

    async fn keys_before(
        &self,
        version: KeyVersion,
        after: Option<&KeySubject>,
        limit: u32,
    ) -> Result<Vec<StoredKey>, StoreError> {
        const CARDS: &str = "SELECT k.card_id AS name, c.customer_id, k.key_version, k.wrapped
             FROM card_keys k JOIN cards c ON c.id = k.card_id WHERE k.key_version < ?1 AND k.card_id > ?2 ORDER BY k.card_id LIMIT ?3";
        const CUSTOMERS: &str = "SELECT customer_id AS name, customer_id, key_version, wrapped
             FROM customer_keys WHERE key_version < ?1 AND customer_id > ?2 ORDER BY customer_id LIMIT ?3";
        const SECRETS: &str = "SELECT name, '' AS customer_id, key_version, wrapped
             FROM vault_secrets WHERE key_version < ?1 AND name > ?2 ORDER BY name LIMIT ?3";
        let mut found = Vec::new();
        for (kind, name) in keys_left(after) {
            let sql = match kind {
                KeyKind::Card => CARDS,
                KeyKind::Customer => CUSTOMERS,
                KeyKind::Secret => SECRETS,
            };
            let room = room(limit, found.len());
            let rows = sqlx::query(sql).bind(number(version)).bind(name).bind(room).fetch_all(&self.pool).await.map_err(fault)?;
            for row in &rows {
                found.push(stored_key(row, kind)?);
            }
        }
        Ok(found)
    }

    async fn rewrap(&self, batch: &[Rewrapped]) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let mut done = 0;
        for Rewrapped { subject, old, new } in batch {
            let (sql, name) = match subject {
                KeySubject::Card { card, .. } => (
                    "UPDATE card_keys SET key_version = ?, wrapped = ? WHERE card_id = ? AND key_version = ? AND wrapped = ?",
                    card.as_str(),
                ),
                KeySubject::Customer(customer) => (
                    "UPDATE customer_keys SET key_version = ?, wrapped = ? WHERE customer_id = ? AND key_version = ? AND wrapped = ?",
                    customer.as_str(),
                ),
                KeySubject::Secret(name) => (
                    "UPDATE vault_secrets SET key_version = ?, wrapped = ? WHERE name = ? AND key_version = ? AND wrapped = ?",
                    name.as_str(),
                ),
            };
            let changed = sqlx::query(sql)
                .bind(number(new.version))
                .bind(&new.wrapped)
                .bind(name)
                .bind(number(old.version))
                .bind(&old.wrapped)
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
            done += changed.rows_affected();
        }
        tx.commit().await.map_err(fault)?;
        Ok(done)
    }

    async fn older_values(&self, after: Option<&OlderValue>, limit: u32) -> Result<Vec<OlderValue>, StoreError> {
        const CARDS: &str = "SELECT id, customer_id, sealed FROM cards
             WHERE id > ?1 AND substr(sealed, 1, 1) = x'01' ORDER BY id LIMIT ?3";
        const TEMPLATES: &str = "SELECT customer_id, model, sealed FROM templates
             WHERE customer_id > ?1 AND substr(sealed, 1, 1) = x'01' ORDER BY customer_id LIMIT ?3";
        const EARLIER: &str = "SELECT customer_id, seq, model, sealed FROM earlier_templates
             WHERE (customer_id, seq) > (?1, ?2) AND substr(sealed, 1, 1) = x'01' ORDER BY customer_id, seq LIMIT ?3";
        const FINGERPRINTS: &str = "SELECT seq, customer_id, sealed FROM fingerprints
             WHERE seq > ?2 AND substr(sealed, 1, 1) = x'01' ORDER BY seq LIMIT ?3";
        let mut found = Vec::new();
        for (kind, name, seq) in older_left(after) {
            let sql = match kind {
                OlderKind::Card => CARDS,
                OlderKind::Template => TEMPLATES,
                OlderKind::EarlierTemplate => EARLIER,
                OlderKind::Fingerprint => FINGERPRINTS,
            };
            let room = room(limit, found.len());
            let rows = sqlx::query(sql).bind(name).bind(seq).bind(room).fetch_all(&self.pool).await.map_err(fault)?;
            for row in &rows {
                found.push(older_value(row, kind)?);
            }
        }
        Ok(found)
    }

    async fn older_value_count(&self) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM cards WHERE substr(sealed, 1, 1) = x'01')
                  + (SELECT count(*) FROM templates WHERE substr(sealed, 1, 1) = x'01')
                  + (SELECT count(*) FROM earlier_templates WHERE substr(sealed, 1, 1) = x'01')
                  + (SELECT count(*) FROM fingerprints WHERE substr(sealed, 1, 1) = x'01') AS n",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(fault)?;
        Reader::new(&row, "cards").small("n")
    }

    async fn reseal(&self, batch: &[Resealed]) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let mut done = 0;
        for Resealed { old, sealed, card_key } in batch {
            let customer = old.customer.as_str();
            let changed = match &old.place {
                OlderPlace::Card(card) => {
                    sqlx::query("UPDATE cards SET sealed = ? WHERE id = ? AND sealed = ?").bind(sealed).bind(card.as_str())
                }
                OlderPlace::Template { .. } => {
                    sqlx::query("UPDATE templates SET sealed = ? WHERE customer_id = ? AND sealed = ?")
                        .bind(sealed)
                        .bind(customer)
                }
                OlderPlace::EarlierTemplate { seq, .. } => {
                    sqlx::query("UPDATE earlier_templates SET sealed = ? WHERE customer_id = ? AND seq = ? AND sealed = ?")
                        .bind(sealed)
                        .bind(customer)
                        .bind(seq)
                }
                OlderPlace::Fingerprint { seq } => {
                    sqlx::query("UPDATE fingerprints SET sealed = ? WHERE seq = ? AND sealed = ?").bind(sealed).bind(seq)
                }
            };
            let changed = changed.bind(&old.sealed).execute(&mut *tx).await.map_err(fault)?.rows_affected();
            if let (OlderPlace::Card(card), Some(key), true) = (&old.place, card_key, changed > 0) {
                insert_card_key(&mut tx, card, key).await?;
            }
            done += changed;
        }
        tx.commit().await.map_err(fault)?;
        self.fold_log().await;
        Ok(done)
    }

    async fn shred_card(&self, card: &CardId, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        // What has no end yet, a conflict among it, is due at some time; there is little of it, so it comes first (CROSS JOIN
        // keeps the order).
        let busy = sqlx::query(
            "SELECT (SELECT count(*) FROM intents WHERE status = 'pending' AND card_id = ?1
                       AND customer_id = (SELECT customer_id FROM cards WHERE id = ?1))
                  + (SELECT count(*) FROM attempts a CROSS JOIN intents i ON i.id = a.intent_id
                     WHERE a.due_at IS NOT NULL AND i.card_id = ?1) AS n",
        )
        .bind(card.as_str())
        .fetch_one(&mut *tx)
        .await
        .map_err(fault)?;
        if Reader::new(&busy, "intents").int("n")? > 0 {
            return Err(StoreError::Refused("a payment with this card is under way; delete the card when it has ended".into()));
        }
        let done =
            sqlx::query("UPDATE cards SET status = 'revoked', sealed = x'', digest = NULL WHERE id = ? AND digest IS NOT NULL")
                .bind(card.as_str())
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
        exactly_one(&done, StoreError::NotFound("card that still has its number"))?;
        for sql in ["DELETE FROM card_keys WHERE card_id = ?", "DELETE FROM card_references WHERE card_id = ?"] {
            sqlx::query(sql).bind(card.as_str()).execute(&mut *tx).await.map_err(fault)?;
        }
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)?;
        self.fold_log().await;
        Ok(())
    }

    async fn bring_cards(&self, batch: &[NewCard]) -> Result<Vec<Brought>, StoreError> {
        let mut tx = self.write().await?;
        let mut became = Vec::with_capacity(batch.len());
        for new in batch {
            became.push(bring(&mut tx, new).await?);
        }
        tx.commit().await.map_err(fault)?;
        Ok(became)
    }

    async fn card_by_reference(&self, reference: &str) -> Result<Option<CardId>, StoreError> {
        let row = sqlx::query("SELECT card_id FROM card_references WHERE reference = ?").bind(reference);
        let row = row.fetch_optional(&self.pool).await.map_err(fault)?;
        row.map(|row| Reader::new(&row, "card_references").parsed("card_id")).transpose()
    }
}

async fn bring(tx: &mut SqliteConnection, NewCard { card, reference, audit }: &NewCard) -> Result<Brought, StoreError> {
    let known = sqlx::query("SELECT id FROM cards WHERE customer_id = ? AND digest = ? AND status <> 'revoked'")
        .bind(card.customer.as_str())
        .bind(card.digest.as_slice())
        .fetch_optional(&mut *tx)
        .await
        .map_err(fault)?;
    let known: Option<String> = known.map(|row| Reader::new(&row, "cards").text("id")).transpose()?;
    if let Some(reference) = reference {
        let holder = sqlx::query("SELECT card_id FROM card_references WHERE reference = ?").bind(reference);
        let holder = holder.fetch_optional(&mut *tx).await.map_err(fault)?;
        let holder: Option<String> = holder.map(|row| Reader::new(&row, "card_references").text("card_id")).transpose()?;
        if holder.is_some() && holder != known {
            return Ok(Brought::ReferenceTaken);
        }
    }
    if known.is_some() {
        return Ok(Brought::Known);
    }
    match insert_card(tx, card).await {
        Ok(()) => {}
        Err(StoreError::NotFound(_)) => return Ok(Brought::NoCustomer),
        Err(error) => return Err(error),
    }
    if let Some(reference) = reference {
        sqlx::query("INSERT INTO card_references (reference, card_id) VALUES (?, ?)")
            .bind(reference)
            .bind(card.id.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
    }
    insert_audit(tx, audit).await?;
    Ok(Brought::Added)
}

async fn insert_master_key(tx: &mut SqliteConnection, key: &MasterKey) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO master_keys (version, proof, since) VALUES (?, ?, ?)")
        .bind(number(key.version))
        .bind(&key.proof)
        .bind(key.since.0)
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
    Ok(())
}
