//! Wrapped keys, apart from what they seal.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::fault::Fault;
use super::people::{insert_card, insert_card_key};
use super::trail::insert_audit;
use super::{PgStore, commit, exactly_one};
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
impl Keys for PgStore {
    async fn begin_keys(&self, first: &FirstKeys) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            // One node at a time: two that start at once on an empty database must not both make a first key.
            sqlx::query("LOCK TABLE master_keys IN SHARE ROW EXCLUSIVE MODE").execute(&mut *tx).await?;
            let there = sqlx::query("SELECT 1 FROM vault_secrets WHERE name = $1").bind(ROOT_SECRET);
            if there.fetch_optional(&mut *tx).await?.is_some() {
                return Ok(());
            }
            insert_master_key(&mut tx, &first.master).await?;
            sqlx::query("INSERT INTO vault_secrets (name, key_version, wrapped) VALUES ($1, $2, $3)")
                .bind(ROOT_SECRET)
                .bind(number(first.root.version))
                .bind(&first.root.wrapped)
                .execute(&mut *tx)
                .await?;
            // A database that is older than envelopes has it, and the caller has compared it.
            sqlx::query("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING")
                .bind(KEY_CHECK)
                .bind(first.check.as_slice())
                .execute(&mut *tx)
                .await?;
            commit(tx).await
        })
        .await
    }

    async fn master_keys(&self) -> Result<Vec<MasterKey>, StoreError> {
        self.read(async || {
            let rows = sqlx::query("SELECT version, proof, since FROM master_keys ORDER BY version");
            Ok(rows.fetch_all(&mut *self.connection().await?).await?.iter().map(master_key).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn add_master_key(&self, new: &MasterKey, audit: &AuditRecord) -> Result<MasterKey, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            sqlx::query("LOCK TABLE master_keys IN SHARE ROW EXCLUSIVE MODE").execute(&mut *tx).await?;
            let row = sqlx::query("SELECT version, proof, since FROM master_keys WHERE version = $1").bind(number(new.version));
            if let Some(row) = row.fetch_optional(&mut *tx).await? {
                return Ok(master_key(&row)?);
            }
            insert_master_key(&mut tx, new).await?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await?;
            Ok(new.clone())
        })
        .await
    }

    async fn retire_master_key(&self, version: KeyVersion, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            sqlx::query("LOCK TABLE master_keys IN SHARE ROW EXCLUSIVE MODE").execute(&mut *tx).await?;
            let row = sqlx::query(
                "SELECT (SELECT max(version) FROM master_keys) AS newest,
                        (SELECT count(*) FROM card_keys WHERE key_version = $1) + (SELECT count(*) FROM customer_keys WHERE key_version = $1)
                      + (SELECT count(*) FROM vault_secrets WHERE key_version = $1) AS used",
            )
            .bind(number(version))
            .fetch_one(&mut *tx)
            .await?;
            let r = Reader::new(&row, "master_keys");
            may_retire(version, r.maybe_int("newest")? == Some(number(version)), r.small("used")?)?;
            let gone = sqlx::query("DELETE FROM master_keys WHERE version = $1").bind(number(version));
            exactly_one(&gone.execute(&mut *tx).await?, StoreError::NotFound("version of the master key"))?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }

    async fn secret(&self, name: &str) -> Result<Option<WrappedKey>, StoreError> {
        self.read(async || {
            let row = sqlx::query("SELECT key_version, wrapped FROM vault_secrets WHERE name = $1").bind(name);
            let row = row.fetch_optional(&mut *self.connection().await?).await?;
            Ok(row.map_or(Ok(None), |row| wrapped(&row, "vault_secrets"))?)
        })
        .await
    }

    async fn customer_key(&self, customer: &CustomerId) -> Result<Option<WrappedKey>, StoreError> {
        self.read(async || {
            let row =
                sqlx::query("SELECT key_version, wrapped FROM customer_keys WHERE customer_id = $1").bind(customer.as_str());
            let row = row.fetch_optional(&mut *self.connection().await?).await?;
            Ok(row.map_or(Ok(None), |row| wrapped(&row, "customer_keys"))?)
        })
        .await
    }

    async fn put_customer_key(&self, customer: &CustomerId, key: &WrappedKey) -> Result<WrappedKey, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            sqlx::query(
                "INSERT INTO customer_keys (customer_id, key_version, wrapped)
                 SELECT id, $1, $2 FROM customers WHERE id = $3 AND status <> 'deleted' FOR KEY SHARE
                 ON CONFLICT (customer_id) DO NOTHING",
            )
            .bind(number(key.version))
            .bind(&key.wrapped)
            .bind(customer.as_str())
            .execute(&mut *tx)
            .await?;
            let row =
                sqlx::query("SELECT key_version, wrapped FROM customer_keys WHERE customer_id = $1").bind(customer.as_str());
            let row = row.fetch_optional(&mut *tx).await?.ok_or(StoreError::NotFound("customer"))?;
            let stands = wrapped(&row, "customer_keys")?.ok_or(StoreError::NotFound("customer"))?;
            commit(tx).await?;
            Ok(stands)
        })
        .await
    }

    async fn key_usage(&self) -> Result<Vec<KeyUsage>, StoreError> {
        self.read(async || {
            let rows = sqlx::query(
                "SELECT m.version, (SELECT count(*) FROM card_keys WHERE key_version = m.version) AS cards,
                        (SELECT count(*) FROM customer_keys WHERE key_version = m.version) AS customers,
                        (SELECT count(*) FROM vault_secrets WHERE key_version = m.version) AS secrets
                 FROM master_keys m ORDER BY m.version",
            )
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(rows.iter().map(usage).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn keys_before(
        &self,
        version: KeyVersion,
        after: Option<&KeySubject>,
        limit: u32,
    ) -> Result<Vec<StoredKey>, StoreError> {
        self.read(async || {
            const CARDS: &str = "SELECT k.card_id AS name, c.customer_id, k.key_version, k.wrapped
                 FROM card_keys k JOIN cards c ON c.id = k.card_id WHERE k.key_version < $1 AND k.card_id > $2 ORDER BY k.card_id LIMIT $3";
            const CUSTOMERS: &str = "SELECT customer_id AS name, customer_id, key_version, wrapped
                 FROM customer_keys WHERE key_version < $1 AND customer_id > $2 ORDER BY customer_id LIMIT $3";
            const SECRETS: &str = "SELECT name, '' AS customer_id, key_version, wrapped
                 FROM vault_secrets WHERE key_version < $1 AND name > $2 ORDER BY name LIMIT $3";
            let mut found = Vec::new();
            for (kind, name) in keys_left(after) {
                let sql = match kind {
                    KeyKind::Card => CARDS,
                    KeyKind::Customer => CUSTOMERS,
                    KeyKind::Secret => SECRETS,
                };
                let room = room(limit, found.len());
                let rows = sqlx::query(sql).bind(number(version)).bind(name).bind(i64::from(room)).fetch_all(&mut *self.connection().await?).await?;
                for row in &rows {
                    found.push(stored_key(row, kind)?);
                }
            }
            Ok(found)
        })
        .await
    }

    async fn rewrap(&self, batch: &[Rewrapped]) -> Result<u64, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let mut done = 0;
            for Rewrapped { subject, old, new } in batch {
                let (sql, name) = match subject {
                    KeySubject::Card { card, .. } => (
                        "UPDATE card_keys SET key_version = $1, wrapped = $2 WHERE card_id = $3 AND key_version = $4 AND wrapped = $5",
                        card.as_str(),
                    ),
                    KeySubject::Customer(customer) => (
                        "UPDATE customer_keys SET key_version = $1, wrapped = $2 WHERE customer_id = $3 AND key_version = $4 AND wrapped = $5",
                        customer.as_str(),
                    ),
                    KeySubject::Secret(name) => (
                        "UPDATE vault_secrets SET key_version = $1, wrapped = $2 WHERE name = $3 AND key_version = $4 AND wrapped = $5",
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
                    .await?;
                done += changed.rows_affected();
            }
            commit(tx).await?;
            Ok(done)
        })
        .await
    }

    async fn older_values(&self, after: Option<&OlderValue>, limit: u32) -> Result<Vec<OlderValue>, StoreError> {
        self.read(async || {
            const CARDS: &str = "SELECT id, customer_id, sealed FROM cards
                 WHERE id > $1 AND substr(sealed, 1, 1) = '\\x01'::bytea ORDER BY id LIMIT $3";
            const TEMPLATES: &str = "SELECT customer_id, model, sealed FROM templates
                 WHERE customer_id > $1 AND substr(sealed, 1, 1) = '\\x01'::bytea ORDER BY customer_id LIMIT $3";
            const EARLIER: &str = "SELECT customer_id, seq, model, sealed FROM earlier_templates
                 WHERE (customer_id, seq) > ($1, $2) AND substr(sealed, 1, 1) = '\\x01'::bytea ORDER BY customer_id, seq LIMIT $3";
            const FINGERPRINTS: &str = "SELECT seq, customer_id, sealed FROM fingerprints
                 WHERE seq > $2 AND substr(sealed, 1, 1) = '\\x01'::bytea ORDER BY seq LIMIT $3";
            let mut found = Vec::new();
            for (kind, name, seq) in older_left(after) {
                let sql = match kind {
                    OlderKind::Card => CARDS,
                    OlderKind::Template => TEMPLATES,
                    OlderKind::EarlierTemplate => EARLIER,
                    OlderKind::Fingerprint => FINGERPRINTS,
                };
                let room = room(limit, found.len());
                let rows = sqlx::query(sql).bind(name).bind(seq).bind(i64::from(room)).fetch_all(&mut *self.connection().await?).await?;
                for row in &rows {
                    found.push(older_value(row, kind)?);
                }
            }
            Ok(found)
        })
        .await
    }

    async fn older_value_count(&self) -> Result<u64, StoreError> {
        self.read(async || {
            let row = sqlx::query(
                "SELECT (SELECT count(*) FROM cards WHERE substr(sealed, 1, 1) = '\\x01'::bytea)
                      + (SELECT count(*) FROM templates WHERE substr(sealed, 1, 1) = '\\x01'::bytea)
                      + (SELECT count(*) FROM earlier_templates WHERE substr(sealed, 1, 1) = '\\x01'::bytea)
                      + (SELECT count(*) FROM fingerprints WHERE substr(sealed, 1, 1) = '\\x01'::bytea) AS n",
            )
            .fetch_one(&mut *self.connection().await?)
            .await?;
            Ok(Reader::new(&row, "cards").small("n")?)
        })
        .await
    }

    async fn reseal(&self, batch: &[Resealed]) -> Result<u64, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let mut done = 0;
            for Resealed { old, sealed, card_key } in batch {
                let customer = old.customer.as_str();
                let changed = match &old.place {
                    OlderPlace::Card(card) => {
                        sqlx::query("UPDATE cards SET sealed = $1 WHERE id = $2 AND sealed = $3").bind(sealed).bind(card.as_str())
                    }
                    OlderPlace::Template { .. } => {
                        sqlx::query("UPDATE templates SET sealed = $1 WHERE customer_id = $2 AND sealed = $3")
                            .bind(sealed)
                            .bind(customer)
                    }
                    OlderPlace::EarlierTemplate { seq, .. } => sqlx::query(
                        "UPDATE earlier_templates SET sealed = $1 WHERE customer_id = $2 AND seq = $3 AND sealed = $4",
                    )
                    .bind(sealed)
                    .bind(customer)
                    .bind(seq),
                    OlderPlace::Fingerprint { seq } => {
                        sqlx::query("UPDATE fingerprints SET sealed = $1 WHERE seq = $2 AND sealed = $3").bind(sealed).bind(seq)
                    }
                };
                let changed = changed.bind(&old.sealed).execute(&mut *tx).await?.rows_affected();
                if let (OlderPlace::Card(card), Some(key), true) = (&old.place, card_key, changed > 0) {
                    insert_card_key(&mut tx, card, key).await?;
                }
                done += changed;
            }
            commit(tx).await?;
            Ok(done)
        })
        .await
    }

    async fn shred_card(&self, card: &CardId, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            // A payment with this card holds the row until it is committed: it comes before this and is counted, or after it and finds no card.
            sqlx::query("SELECT 1 FROM cards WHERE id = $1 FOR UPDATE").bind(card.as_str()).fetch_optional(&mut *tx).await?;
            let busy = sqlx::query(
                "SELECT (SELECT count(*) FROM intents WHERE status = 'pending' AND card_id = $1
                           AND customer_id = (SELECT customer_id FROM cards WHERE id = $1))
                      + (SELECT count(*) FROM attempts a JOIN intents i ON i.id = a.intent_id
                         WHERE (a.due_at IS NOT NULL OR a.state = 'conflicted') AND i.card_id = $1) AS n",
            )
            .bind(card.as_str())
            .fetch_one(&mut *tx)
            .await?;
            if Reader::new(&busy, "intents").int("n")? > 0 {
                let wait = "a payment with this card is under way; delete the card when it has ended";
                return Err(StoreError::Refused(wait.into()).into());
            }
            let done = sqlx::query(
                "UPDATE cards SET status = 'revoked', sealed = ''::bytea, digest = NULL WHERE id = $1 AND digest IS NOT NULL",
            )
            .bind(card.as_str())
            .execute(&mut *tx)
            .await?;
            exactly_one(&done, StoreError::NotFound("card that still has its number"))?;
            for sql in ["DELETE FROM card_keys WHERE card_id = $1", "DELETE FROM card_references WHERE card_id = $1"] {
                sqlx::query(sql).bind(card.as_str()).execute(&mut *tx).await?;
            }
            insert_audit(&mut tx, audit).await?;
            commit(tx).await?;
            Ok(())
        })
        .await
    }

    async fn bring_cards(&self, batch: &[NewCard]) -> Result<Vec<Brought>, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let mut became = Vec::with_capacity(batch.len());
            for new in batch {
                became.push(bring(&mut tx, new).await?);
            }
            commit(tx).await?;
            Ok(became)
        })
        .await
    }

    async fn card_by_reference(&self, reference: &str) -> Result<Option<CardId>, StoreError> {
        self.read(async || {
            let row = sqlx::query("SELECT card_id FROM card_references WHERE reference = $1").bind(reference);
            let row = row.fetch_optional(&mut *self.connection().await?).await?;
            Ok(row.map(|row| Reader::new(&row, "card_references").parsed("card_id")).transpose()?)
        })
        .await
    }
}

async fn bring(tx: &mut PgConnection, NewCard { card, reference, audit }: &NewCard) -> Result<Brought, Fault> {
    let known = sqlx::query("SELECT id FROM cards WHERE customer_id = $1 AND digest = $2 AND status <> 'revoked'")
        .bind(card.customer.as_str())
        .bind(card.digest.as_slice())
        .fetch_optional(&mut *tx)
        .await?;
    let known: Option<String> = known.map(|row| Reader::new(&row, "cards").text("id")).transpose()?;
    if let Some(reference) = reference {
        let holder = sqlx::query("SELECT card_id FROM card_references WHERE reference = $1").bind(reference);
        let holder = holder.fetch_optional(&mut *tx).await?;
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
        Err(Fault::Store(StoreError::NotFound(_))) => return Ok(Brought::NoCustomer),
        Err(error) => return Err(error),
    }
    if let Some(reference) = reference {
        sqlx::query("INSERT INTO card_references (reference, card_id) VALUES ($1, $2)")
            .bind(reference)
            .bind(card.id.as_str())
            .execute(&mut *tx)
            .await?;
    }
    insert_audit(tx, audit).await?;
    Ok(Brought::Added)
}

async fn insert_master_key(tx: &mut PgConnection, key: &MasterKey) -> Result<(), Fault> {
    sqlx::query("INSERT INTO master_keys (version, proof, since) VALUES ($1, $2, $3)")
        .bind(number(key.version))
        .bind(&key.proof)
        .bind(key.since.0)
        .execute(&mut *tx)
        .await?;
    Ok(())
}
