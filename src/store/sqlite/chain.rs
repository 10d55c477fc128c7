//! The audit chain. Rows are committed in the order of their numbers, as there is one writer at a time: what is not sealed is
//! what comes after `audit_head.last_seq`.

use async_trait::async_trait;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::{SqliteStore, fault};
use crate::ids::AuditId;
use crate::ledger::chain::{Chain, Link, LogId};
use crate::ledger::export::SealedRecord;
use crate::ledger::merkle::{Parts, TILE_LEAVES, leaf_hash};
use crate::store::StoreError;
use crate::store::chain::{AuditChain, CheckpointRecord, Disagreement};
use crate::store::rows::{Reader, as_int, chain as read};

/// Rows that one statement inserts: far below SQLite's limit of 32,766 bound values.
const INSERT_ROWS: usize = 1_000;
/// How often a batch is read anew because another sealer was faster.
const SEAL_TRIES: u32 = 20;

#[async_trait]
impl AuditChain for SqliteStore {
    fn rows_are_gapless(&self) -> bool {
        true // AUTOINCREMENT counts in a table of its own, which a rollback takes back too
    }

    async fn seal(&self, fresh: &LogId, limit: u32) -> Result<u32, StoreError> {
        for _ in 0..SEAL_TRIES {
            let Some(batch) = self.next_batch(fresh, limit).await? else { return Ok(0) };
            if self.append(&batch).await? {
                return Ok(u32::try_from(batch.links.len()).unwrap_or(limit));
            }
        }
        Err(StoreError::Conflict("audit chain"))
    }

    async fn lost(&self, _limit: u32) -> Result<Vec<i64>, StoreError> {
        Ok(Vec::new())
    }

    async fn chain(&self) -> Result<Option<Chain>, StoreError> {
        let row = sqlx::query("SELECT * FROM audit_head WHERE id = 1").fetch_optional(&self.pool).await.map_err(fault)?;
        row.as_ref().map(read::head).transpose()
    }

    async fn unsealed(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT count(*) AS n FROM audit WHERE seq > coalesce((SELECT last_seq FROM audit_head), 0)")
            .fetch_one(&self.pool)
            .await
            .map_err(fault)?;
        Reader::new(&row, "audit").small("n")
    }

    async fn sealed(&self, from: u64, limit: u32) -> Result<Vec<SealedRecord>, StoreError> {
        // A row that is gone leaves its place: it must not vanish from the answer with it, so the join keeps the place and
        // reading it fails.
        let rows = sqlx::query(
            "SELECT c.position, c.hash, a.seq, a.id, a.at, a.actor, a.action, a.subject, a.detail
             FROM audit_chain c LEFT JOIN audit a ON a.seq = c.seq WHERE c.position >= ? ORDER BY c.position LIMIT ?",
        )
        .bind(as_int(from)?)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        read::sealed(&rows)
    }

    async fn position_of(&self, id: &AuditId) -> Result<Option<u64>, StoreError> {
        let row = sqlx::query("SELECT c.position FROM audit a JOIN audit_chain c ON c.seq = a.seq WHERE a.id = ?")
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(fault)?;
        row.map(|row| Reader::new(&row, "audit_chain").small("position")).transpose()
    }

    async fn tree(&self, size: u64, tiles: &[u64]) -> Result<Parts, StoreError> {
        let mut parts = Parts { size, ..Parts::default() };
        let rows = sqlx::query("SELECT root FROM audit_tiles WHERE tile < ? ORDER BY tile")
            .bind(as_int(size / TILE_LEAVES)?)
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        for row in &rows {
            parts.tiles.push(read::hash(&Reader::new(row, "audit_tiles"), "root")?);
        }
        for tile in tiles {
            let from = tile.saturating_mul(TILE_LEAVES);
            let rows = sqlx::query("SELECT hash FROM audit_chain WHERE position >= ? AND position < ? ORDER BY position")
                .bind(as_int(from)?)
                .bind(as_int(from.saturating_add(TILE_LEAVES).min(size))?)
                .fetch_all(&self.pool)
                .await
                .map_err(fault)?;
            let leaves = rows.iter().map(|row| Ok(leaf_hash(&read::hash(&Reader::new(row, "audit_chain"), "hash")?)));
            parts.leaves.insert(*tile, leaves.collect::<Result<_, StoreError>>()?);
        }
        Ok(parts)
    }

    async fn add_checkpoint(&self, checkpoint: &CheckpointRecord) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let added = sqlx::query("INSERT INTO audit_checkpoints (size, at, note) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(as_int(checkpoint.size)?)
            .bind(checkpoint.at.0)
            .bind(&checkpoint.note)
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(added.rows_affected() == 1)
    }

    async fn checkpoints_after(&self, size: u64, limit: u32) -> Result<Vec<CheckpointRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM audit_checkpoints WHERE size > ? ORDER BY size LIMIT ?")
            .bind(as_int(size)?)
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(read::checkpoint).collect()
    }

    async fn last_checkpoint(&self) -> Result<Option<CheckpointRecord>, StoreError> {
        let row = sqlx::query("SELECT * FROM audit_checkpoints ORDER BY size DESC LIMIT 1")
            .fetch_optional(&self.pool)
            .await
            .map_err(fault)?;
        row.as_ref().map(read::checkpoint).transpose()
    }

    async fn disagreements(&self, limit: u32) -> Result<Vec<Disagreement>, StoreError> {
        // One snapshot for both directions: a payment that is made meanwhile is in all of it or in none.
        let rows = sqlx::query(
            "SELECT t.id AS subject, CASE WHEN a.id IS NULL THEN 'not audited' ELSE 'differs' END AS what
             FROM transfers t LEFT JOIN audit a ON a.id = 'aud_' || substr(t.id, length('tr_') + 1)
             WHERE t.seq > coalesce((SELECT CAST(CAST(value AS TEXT) AS INTEGER) FROM meta WHERE key = 'audit.books_from'), 0)
               AND (a.id IS NULL OR a.action <> 'transfer.' || t.kind OR a.subject <> t.intent_id OR a.at <> t.at
                    OR json_extract(a.detail, '$.transfer') <> t.id OR json_extract(a.detail, '$.of') IS NOT t.of_id
                    OR json_extract(a.detail, '$.debit') <> t.debit OR json_extract(a.detail, '$.credit') <> t.credit
                    OR json_extract(a.detail, '$.amount_minor') <> t.amount_minor
                    OR json_extract(a.detail, '$.currency') <> t.currency OR json_extract(a.detail, '$.cause') <> t.cause)
             UNION ALL
             SELECT r.id, CASE WHEN a.id IS NULL THEN 'not audited' ELSE 'differs' END
             FROM receipts r LEFT JOIN audit a ON a.id = 'aud_' || substr(r.id, length('rcp_') + 1)
             WHERE json_extract(r.body, '$.signature') IS NOT NULL
               AND (a.id IS NULL OR a.subject <> r.id
                    OR json_extract(a.detail, '$.sha256') IS NOT json_extract(r.body, '$.signature.sha256'))
             UNION ALL
             SELECT CASE a.action WHEN 'receipt.issued' THEN a.subject ELSE 'tr_' || substr(a.id, length('aud_') + 1) END,
                    'not in the books'
             FROM audit a
             WHERE (a.action IN ('transfer.pending', 'transfer.post', 'transfer.void')
                    AND NOT EXISTS (SELECT 1 FROM transfers t WHERE t.id = 'tr_' || substr(a.id, length('aud_') + 1)))
                OR (a.action = 'receipt.issued' AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.id = a.subject))
             LIMIT ?",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(read::disagreement).collect()
    }
}

/// Rows with the places that they would get.
struct Batch {
    /// The chain's size that the places begin at.
    from: u64,
    /// The chain with them.
    chain: Chain,
    /// Row numbers and places.
    links: Vec<(i64, Link)>,
    /// The last row number.
    last_seq: i64,
}

impl SqliteStore {
    /// Reads and hashes what is not sealed, holding nobody up: rows that are committed never change, and none comes before them any more.
    async fn next_batch(&self, fresh: &LogId, limit: u32) -> Result<Option<Batch>, StoreError> {
        let head = sqlx::query("SELECT * FROM audit_head WHERE id = 1").fetch_optional(&self.pool).await.map_err(fault)?;
        let (mut chain, last_seq) = match head {
            Some(row) => (read::head(&row)?, Reader::new(&row, "audit_head").int("last_seq")?),
            None => (Chain::new(fresh.clone()), 0),
        };
        let rows =
            sqlx::query("SELECT seq, id, at, actor, action, subject, detail FROM audit WHERE seq > ? ORDER BY seq LIMIT ?")
                .bind(last_seq)
                .bind(limit)
                .fetch_all(&self.pool)
                .await
                .map_err(fault)?;
        let (from, mut links) = (chain.size(), Vec::with_capacity(rows.len()));
        for row in &rows {
            let record = read::record(row)?;
            links.push((record.seq, chain.append(&record)));
        }
        let last_seq = links.last().map(|(seq, _)| *seq);
        Ok(last_seq.map(|last_seq| Batch { from, chain, links, last_seq }))
    }

    /// Writes the places, if no other sealer was faster.
    async fn append(&self, batch: &Batch) -> Result<bool, StoreError> {
        let chain = &batch.chain;
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "INSERT INTO audit_head (id, log, size, last_seq, head, frontier) VALUES (1, ?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET size = ?2, last_seq = ?3, head = ?4, frontier = ?5 WHERE log = ?1 AND size = ?6",
        )
        .bind(chain.log().as_str())
        .bind(as_int(chain.size())?)
        .bind(batch.last_seq)
        .bind(chain.head().as_slice())
        .bind(chain.frontier())
        .bind(as_int(batch.from)?)
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        if done.rows_affected() != 1 {
            return Ok(false);
        }
        insert_links(&mut tx, &batch.links).await?;
        tx.commit().await.map_err(fault)?;
        Ok(true)
    }
}

async fn insert_links(conn: &mut SqliteConnection, links: &[(i64, Link)]) -> Result<(), StoreError> {
    for links in links.chunks(INSERT_ROWS) {
        let mut rows = Vec::with_capacity(links.len());
        for (seq, link) in links {
            rows.push((as_int(link.position)?, *seq, link.hash));
        }
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO audit_chain (position, seq, hash) ");
        insert.push_values(&rows, |mut row, (position, seq, hash)| {
            row.push_bind(*position).push_bind(*seq).push_bind(hash.as_slice());
        });
        insert.build().persistent(false).execute(&mut *conn).await.map_err(fault)?;
    }
    for tile in links.iter().filter_map(|(_, link)| link.tile) {
        sqlx::query("INSERT INTO audit_tiles (tile, root) VALUES (?, ?)")
            .bind(as_int(tile.index)?)
            .bind(tile.root.as_slice())
            .execute(&mut *conn)
            .await
            .map_err(fault)?;
    }
    Ok(())
}
