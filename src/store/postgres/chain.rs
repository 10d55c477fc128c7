//! The audit chain. Rows are committed in another order than that of their numbers, so a trigger notes each new row in `audit_unsealed`, where it
//! appears together with the row, and the sealer empties that.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::fault::Fault;
use super::{PgStore, commit, exactly_one};
use crate::ids::AuditId;
use crate::ledger::chain::{Chain, Link, LogId};
use crate::ledger::export::SealedRecord;
use crate::ledger::merkle::{Parts, TILE_LEAVES, leaf_hash};
use crate::store::StoreError;
use crate::store::chain::{AuditChain, CheckpointRecord, Disagreement};
use crate::store::rows::{Reader, as_int, chain as read};

#[async_trait]
impl AuditChain for PgStore {
    fn rows_are_gapless(&self) -> bool {
        false // a transaction that is rolled back leaves its numbers unused
    }

    async fn seal(&self, fresh: &LogId, limit: u32) -> Result<u32, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            // One sealer at a time, the first one too, when there is no row yet that could be locked. Readers are not kept waiting.
            sqlx::query("LOCK TABLE audit_head IN SHARE ROW EXCLUSIVE MODE").execute(&mut *tx).await?;
            // The note of a row that is gone stays: see `lost`. Each row is looked up by its number, however many there are by now: a plain join is
            // planned as a walk through the whole trail.
            let rows = sqlx::query(
                "WITH next AS (DELETE FROM audit_unsealed WHERE seq = ANY(ARRAY(
                                   SELECT u.seq FROM audit_unsealed u WHERE (SELECT true FROM audit a WHERE a.seq = u.seq)
                                   ORDER BY u.seq LIMIT $1))
                               RETURNING seq)
                 SELECT a.* FROM next,
                     LATERAL (SELECT seq, id, at, actor, action, subject, detail FROM audit WHERE seq = next.seq OFFSET 0) AS a
                 ORDER BY a.seq",
            )
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
            if rows.is_empty() {
                return Ok(0);
            }
            let head = sqlx::query("SELECT * FROM audit_head WHERE id = 1").fetch_optional(&mut *tx).await?;
            let mut chain = match head {
                Some(row) => read::head(&row)?,
                None => Chain::new(fresh.clone()),
            };
            let mut links = Vec::with_capacity(rows.len());
            for row in &rows {
                let record = read::record(row)?;
                links.push((record.seq, chain.append(&record)));
            }
            insert_links(&mut tx, &links).await?;
            let done = sqlx::query(
                "INSERT INTO audit_head (id, log, size, head, frontier) VALUES (1, $1, $2, $3, $4)
                 ON CONFLICT (id) DO UPDATE SET size = excluded.size, head = excluded.head, frontier = excluded.frontier",
            )
            .bind(chain.log().as_str())
            .bind(as_int(chain.size())?)
            .bind(chain.head().as_slice())
            .bind(chain.frontier())
            .execute(&mut *tx)
            .await?;
            exactly_one(&done, StoreError::Conflict("audit chain"))?;
            commit(tx).await?;
            Ok(u32::try_from(links.len()).unwrap_or(limit))
        })
        .await
    }

    async fn lost(&self, limit: u32) -> Result<Vec<i64>, StoreError> {
        self.read(async || {
            let rows = sqlx::query(
                "SELECT u.seq FROM audit_unsealed u WHERE (SELECT true FROM audit a WHERE a.seq = u.seq) IS NULL
                 ORDER BY u.seq LIMIT $1",
            )
            .bind(i64::from(limit))
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(rows.iter().map(|row| Reader::new(row, "audit_unsealed").int("seq")).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn chain(&self) -> Result<Option<Chain>, StoreError> {
        self.read(async || {
            let row = sqlx::query("SELECT * FROM audit_head WHERE id = 1").fetch_optional(&mut *self.connection().await?).await?;
            Ok(row.as_ref().map(read::head).transpose()?)
        })
        .await
    }

    async fn unsealed(&self) -> Result<u64, StoreError> {
        self.read(async || {
            let row = sqlx::query("SELECT count(*) AS n FROM audit_unsealed").fetch_one(&mut *self.connection().await?).await?;
            Ok(Reader::new(&row, "audit_unsealed").small("n")?)
        })
        .await
    }

    async fn sealed(&self, from: u64, limit: u32) -> Result<Vec<SealedRecord>, StoreError> {
        self.read(async || {
            // A row that is gone leaves its place: it must not vanish from the answer with it, so the join keeps the place and reading it fails.
            let rows = sqlx::query(
                "SELECT c.position, c.hash, a.seq, a.id, a.at, a.actor, a.action, a.subject, a.detail
                 FROM audit_chain c LEFT JOIN audit a ON a.seq = c.seq WHERE c.position >= $1 ORDER BY c.position LIMIT $2",
            )
            .bind(as_int(from)?)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(read::sealed(&rows)?)
        })
        .await
    }

    async fn position_of(&self, id: &AuditId) -> Result<Option<u64>, StoreError> {
        self.read(async || {
            let row = sqlx::query("SELECT c.position FROM audit a JOIN audit_chain c ON c.seq = a.seq WHERE a.id = $1")
                .bind(id.as_str())
                .fetch_optional(&mut *self.connection().await?)
                .await?;
            Ok(row.map(|row| Reader::new(&row, "audit_chain").small("position")).transpose()?)
        })
        .await
    }

    async fn tree(&self, size: u64, tiles: &[u64]) -> Result<Parts, StoreError> {
        self.read(async || {
            let mut tx = self.snapshot().await?;
            let mut parts = Parts { size, ..Parts::default() };
            let rows = sqlx::query("SELECT root FROM audit_tiles WHERE tile < $1 ORDER BY tile")
                .bind(as_int(size / TILE_LEAVES)?)
                .fetch_all(&mut *tx)
                .await?;
            for row in &rows {
                parts.tiles.push(read::hash(&Reader::new(row, "audit_tiles"), "root")?);
            }
            for tile in tiles {
                let from = tile.saturating_mul(TILE_LEAVES);
                let rows = sqlx::query("SELECT hash FROM audit_chain WHERE position >= $1 AND position < $2 ORDER BY position")
                    .bind(as_int(from)?)
                    .bind(as_int(from.saturating_add(TILE_LEAVES).min(size))?)
                    .fetch_all(&mut *tx)
                    .await?;
                let leaves = rows.iter().map(|row| Ok(leaf_hash(&read::hash(&Reader::new(row, "audit_chain"), "hash")?)));
                parts.leaves.insert(*tile, leaves.collect::<Result<_, StoreError>>()?);
            }
            Ok(parts)
        })
        .await
    }

    async fn add_checkpoint(&self, checkpoint: &CheckpointRecord) -> Result<bool, StoreError> {
        self.once(async || {
            let added = sqlx::query("INSERT INTO audit_checkpoints (size, at, note) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
                .bind(as_int(checkpoint.size)?)
                .bind(checkpoint.at.0)
                .bind(&checkpoint.note)
                .execute(&mut *self.connection().await?)
                .await?;
            Ok(added.rows_affected() == 1)
        })
        .await
    }

    async fn checkpoints_after(&self, size: u64, limit: u32) -> Result<Vec<CheckpointRecord>, StoreError> {
        self.read(async || {
            let rows = sqlx::query("SELECT * FROM audit_checkpoints WHERE size > $1 ORDER BY size LIMIT $2")
                .bind(as_int(size)?)
                .bind(i64::from(limit))
                .fetch_all(&mut *self.connection().await?)
                .await?;
            Ok(rows.iter().map(read::checkpoint).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn last_checkpoint(&self) -> Result<Option<CheckpointRecord>, StoreError> {
        self.read(async || {
            let row = sqlx::query("SELECT * FROM audit_checkpoints ORDER BY size DESC LIMIT 1")
                .fetch_optional(&mut *self.connection().await?)
                .await?;
            Ok(row.as_ref().map(read::checkpoint).transpose()?)
        })
        .await
    }

    async fn disagreements(&self, limit: u32) -> Result<Vec<Disagreement>, StoreError> {
        self.read(async || {
            // One snapshot for both directions: a payment that is made meanwhile is in all of it or in none.
            let rows = sqlx::query(
                "SELECT t.id AS subject, CASE WHEN a.id IS NULL THEN 'not audited' ELSE 'differs' END AS what
                 FROM transfers t LEFT JOIN audit a ON a.id = 'aud_' || substr(t.id, length('tr_') + 1)
                 WHERE t.seq > coalesce((SELECT convert_from(value, 'UTF8')::bigint FROM meta WHERE key = 'audit.books_from'), 0)
                   AND (a.id IS NULL OR a.action <> 'transfer.' || t.kind OR a.subject <> t.intent_id OR a.at <> t.at
                        OR a.detail::jsonb <> jsonb_build_object('transfer', t.id, 'of', t.of_id, 'debit', t.debit, 'credit', t.credit,
                            'amount_minor', t.amount_minor, 'currency', t.currency, 'cause', t.cause))
                 UNION ALL
                 SELECT r.id, CASE WHEN a.id IS NULL THEN 'not audited' ELSE 'differs' END
                 FROM receipts r LEFT JOIN audit a ON a.id = 'aud_' || substr(r.id, length('rcp_') + 1)
                 WHERE jsonb_typeof(r.body::jsonb -> 'signature') = 'object'
                   AND (a.id IS NULL OR a.subject <> r.id
                        OR a.detail::jsonb ->> 'sha256' IS DISTINCT FROM r.body::jsonb #>> '{signature,sha256}')
                 UNION ALL
                 SELECT CASE a.action WHEN 'receipt.issued' THEN a.subject ELSE 'tr_' || substr(a.id, length('aud_') + 1) END,
                        'not in the books'
                 FROM audit a
                 WHERE (a.action IN ('transfer.pending', 'transfer.post', 'transfer.void')
                        AND NOT EXISTS (SELECT 1 FROM transfers t WHERE t.id = 'tr_' || substr(a.id, length('aud_') + 1)))
                    OR (a.action = 'receipt.issued' AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.id = a.subject))
                 LIMIT $1",
            )
            .bind(i64::from(limit))
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(rows.iter().map(read::disagreement).collect::<Result<_, _>>()?)
        })
        .await
    }
}

async fn insert_links(connection: &mut PgConnection, links: &[(i64, Link)]) -> Result<(), Fault> {
    let mut positions = Vec::with_capacity(links.len());
    for (_, link) in links {
        positions.push(as_int(link.position)?);
    }
    sqlx::query("INSERT INTO audit_chain (position, seq, hash) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])")
        .bind(positions)
        .bind(links.iter().map(|(seq, _)| *seq).collect::<Vec<_>>())
        .bind(links.iter().map(|(_, link)| link.hash.to_vec()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    for tile in links.iter().filter_map(|(_, link)| link.tile) {
        sqlx::query("INSERT INTO audit_tiles (tile, root) VALUES ($1, $2)")
            .bind(as_int(tile.index)?)
            .bind(tile.root.as_slice())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
