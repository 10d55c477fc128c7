//! Sealing and signing with the real database: whoever tampers with its file is found out.

use std::path::{Path, PathBuf};

use serde_json::json;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::*;
use crate::clock::{ManualClock, SeededEntropy, Timestamp};
use crate::ids::AuditId;
use crate::ledger::export::Line;
use crate::ledger::merkle::{Parts, consistent};
use crate::ledger::verifier::{Fault, Report, Trust, Verifier, Wrong};
use crate::processor::log::{ReadError, lines, prove};
use crate::store::{AuditRecord, SqliteStore, StoreConfig};

const START: Timestamp = Timestamp(1_800_000_000_000);

struct House {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    entropy: Arc<dyn Entropy>,
    store: Arc<dyn Store>,
    sealer: Sealer,
}

impl House {
    async fn build(cfg: AuditConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::starting_at(START));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(5));
        let store = open(dir.path()).await;
        let vault = Vault::from_master(&[4; 32], Arc::clone(&entropy));
        let sealer = Sealer::new(Arc::clone(&store), vault, clock.clone(), Arc::clone(&entropy), cfg);
        Self { dir, clock, entropy, store, sealer }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("v.db")
    }

    async fn write(&self, rows: u64) {
        for n in 0..rows {
            let id = AuditId::fresh(&*self.entropy);
            let (actor, action, subject) = ("test".into(), "row.written".into(), format!("row {n}"));
            let at = self.clock.now();
            self.store.audit(&AuditRecord { id, at, actor, action, subject, detail: json!({ "n": n }) }).await.unwrap();
        }
    }

    async fn verify(&self) -> Result<Report, ReadError<Fault>> {
        verify(&*self.store).await
    }

    async fn fault(&self) -> Fault {
        match self.verify().await {
            Err(ReadError::Taker(fault)) => fault,
            other => panic!("not found out: {other:?}"),
        }
    }

    /// What somebody does who can write to the file: without our rules, and without a trace in them.
    async fn tamper(&self, sql: &'static str) {
        let options = SqliteConnectOptions::new().filename(self.path());
        let mut conn = SqliteConnection::connect_with(&options.foreign_keys(false)).await.unwrap();
        for table in ["audit", "audit_chain", "audit_head", "audit_checkpoints"] {
            let triggers: Vec<(String,)> =
                sqlx::query_as("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?")
                    .bind(table)
                    .fetch_all(&mut conn)
                    .await
                    .unwrap();
            for (name,) in triggers {
                sqlx::query(sqlx::AssertSqlSafe(format!("DROP TRIGGER {name}"))).execute(&mut conn).await.unwrap();
            }
        }
        let done = sqlx::query(sql).execute(&mut conn).await.unwrap();
        assert!(done.rows_affected() > 0, "{sql}");
        conn.close().await.unwrap();
    }
}

async fn open(dir: &Path) -> Arc<dyn Store> {
    let cfg = StoreConfig { path: dir.join("v.db"), ..StoreConfig::default() };
    Arc::new(SqliteStore::open(&cfg).await.unwrap())
}

async fn verify(store: &dyn Store) -> Result<Report, ReadError<Fault>> {
    let mut verifier = Verifier::new(Trust::TheLogsOwn, Vec::new());
    lines(store, |line| verifier.line(line)).await?;
    verifier.finish().map_err(ReadError::Taker)
}

fn small_batches() -> AuditConfig {
    AuditConfig { batch_rows: 7, checkpoint_rows: 20, ..AuditConfig::default() }
}

#[tokio::test]
async fn rows_are_sealed_signed_and_proven() {
    let house = House::build(small_batches()).await;
    assert!(matches!(house.verify().await, Err(ReadError::Empty)));
    assert_eq!(house.sealer.checkpoint().await.unwrap(), None);
    house.write(600).await;
    assert_eq!(house.store.unsealed().await.unwrap(), 600);
    assert_eq!(house.sealer.seal_all().await.unwrap(), 600);
    let first = house.sealer.checkpoint().await.unwrap().unwrap();
    // The first checkpoint made its key, which is a row like any other.
    assert_eq!((first.size, house.store.unsealed().await.unwrap()), (600, 1));
    house.write(3).await;
    house.sealer.seal_all().await.unwrap();
    let last = house.sealer.checkpoint().await.unwrap().unwrap();
    assert_eq!(house.sealer.checkpoint().await.unwrap(), Some(last.clone()), "nothing new, nothing signed");
    let report = house.verify().await.unwrap();
    assert_eq!((report.records, report.checkpoints, report.signed.unwrap().size), (604, 2, 604));

    let keys: Vec<_> =
        house.store.signing_keys(SigningPurpose::Checkpoints).await.unwrap().into_iter().map(|key| key.public).collect();
    for position in [0, 1, 255, 256, 511, 512, 599, 600, 603] {
        let proof = prove(&*house.store, position).await.unwrap().unwrap();
        let (record, checkpoint, _) = proof.verify(&keys).unwrap();
        assert_eq!(record.seq, i64::try_from(position).unwrap() + 1);
        assert_eq!(checkpoint.size, if position < 600 { 600 } else { 604 });
    }
    assert_eq!(prove(&*house.store, 604).await.unwrap(), None);
    // The earlier checkpoint is a beginning of the later one, by a short proof.
    let [old, new] = [&first, &last].map(|c| Checkpoint::open(&c.note, &keys).unwrap().0);
    let parts = house.store.tree(new.size, &Parts::tiles_needed(old.size, new.size)).await.unwrap();
    assert!(consistent(&old.root, old.size, &new.root, new.size, &parts.consistency(old.size).unwrap()));
}

#[tokio::test]
async fn two_sealers_at_once_give_each_position_once() {
    let house = House::build(small_batches()).await;
    let other_store = open(house.dir.path()).await;
    let other = Sealer { store: Arc::clone(&other_store), ..house.sealer.clone() };
    let stop = CancellationToken::new();
    let cfg = AuditConfig { seal_ms: 1, ..small_batches() };
    let tasks: Vec<_> = [house.sealer.clone(), other]
        .into_iter()
        .map(|sealer| Sealer { cfg: cfg.clone(), ..sealer })
        .map(|sealer| {
            let stop = stop.clone();
            tokio::spawn(async move { sealer.run(stop).await })
        })
        .collect();
    house.write(300).await;
    stop.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    house.sealer.seal_all().await.unwrap();
    let report = house.verify().await.unwrap();
    // One key, whoever made it.
    assert_eq!(report.records, 301);
    assert!(report.checkpoints >= 1);
    assert_eq!(house.store.signing_keys(SigningPurpose::Checkpoints).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_crash_between_sealing_and_signing_leaves_a_log_that_the_next_start_signs() {
    let house = House::build(small_batches()).await;
    house.write(10).await;
    house.store.seal(&LogId::fresh(&*house.entropy), 7).await.unwrap();
    drop(house.store);
    let store = open(house.dir.path()).await;
    let report = verify(&*store).await.unwrap();
    assert_eq!((report.records, report.signed), (7, None));
    let sealer = Sealer { store: Arc::clone(&store), ..house.sealer };
    let stop = CancellationToken::new();
    stop.cancel();
    sealer.run(stop).await;
    let report = verify(&*store).await.unwrap();
    assert_eq!((report.records, report.signed.unwrap().size), (10, 10));
}

#[tokio::test]
async fn a_checkpoint_is_due_by_rows_by_time_and_after_the_clock_was_set_back() {
    let house = House::build(small_batches()).await;
    let signed = async || {
        house.sealer.turn(&CancellationToken::new(), &mut Vec::new()).await;
        house.store.last_checkpoint().await.unwrap().map_or(0, |c| c.size)
    };
    house.write(1).await;
    assert_eq!(signed().await, 1, "the first at once");
    assert_eq!(signed().await, 1, "its key's row alone is not signed at once");
    house.clock.advance(Duration::from_secs(60));
    assert_eq!(signed().await, 2);
    house.write(19).await;
    assert_eq!(signed().await, 2);
    house.write(1).await;
    assert_eq!(signed().await, 22, "twenty rows");
    house.write(1).await;
    let clock = Arc::new(ManualClock::starting_at(Timestamp(START.0 - 3_600_000)));
    Sealer { clock, ..house.sealer.clone() }.turn(&CancellationToken::new(), &mut Vec::new()).await;
    assert_eq!(house.store.last_checkpoint().await.unwrap().unwrap().size, 23, "an hour back");
}

#[tokio::test]
async fn another_signing_key_signs_what_comes_and_leaves_what_was_signed() {
    let house = House::build(small_batches()).await;
    house.write(5).await;
    house.sealer.seal_all().await.unwrap();
    let first = house.sealer.checkpoint().await.unwrap().unwrap();
    let rotate = || signing::rotate(&*house.store, &house.sealer.vault, SigningPurpose::Checkpoints, START, &*house.entropy);
    assert_eq!(rotate().await.unwrap().version(), 2);
    house.sealer.seal_all().await.unwrap();
    let second = house.sealer.checkpoint().await.unwrap().unwrap();
    let keys: Vec<_> =
        house.store.signing_keys(SigningPurpose::Checkpoints).await.unwrap().into_iter().map(|key| key.public).collect();
    assert_eq!(Checkpoint::open(&first.note, &keys).unwrap().1, keys[0]);
    assert_eq!(Checkpoint::open(&second.note, &keys).unwrap().1, keys[1]);
    house.verify().await.unwrap();
    // A vault with another root secret does not pass for this one.
    let stranger = Sealer { vault: Vault::from_master(&[5; 32], Arc::clone(&house.entropy)), ..house.sealer.clone() };
    house.write(1).await;
    stranger.seal_all().await.unwrap();
    assert!(matches!(stranger.checkpoint().await, Err(UnlockError::Vault(crate::vault::VaultError::WrongKey))));
}

#[tokio::test]
async fn whoever_tampers_with_the_file_is_found_out() {
    async fn sealed() -> House {
        let house = House::build(small_batches()).await;
        house.write(12).await;
        house.sealer.seal_all().await.unwrap();
        house.sealer.checkpoint().await.unwrap();
        house
    }
    for column in ["actor", "action", "subject", "detail"] {
        let house = sealed().await;
        let sql: &'static str = match column {
            "actor" => "UPDATE audit SET actor = 'else' WHERE seq = 5",
            "action" => "UPDATE audit SET action = 'else' WHERE seq = 5",
            "subject" => "UPDATE audit SET subject = 'else' WHERE seq = 5",
            _ => "UPDATE audit SET detail = replace(detail, '4', '5') WHERE seq = 5",
        };
        house.tamper(sql).await;
        let fault = house.fault().await;
        assert_eq!((fault.position, fault.what), (4, Wrong::Hash), "{column}");
    }
    let house = sealed().await;
    house.tamper("DELETE FROM audit WHERE seq = 5").await;
    match house.verify().await {
        Err(ReadError::Store { records: 4, error: StoreError::Damaged { why, .. } }) => {
            assert!(why.contains("position 4"), "{why}")
        }
        other => panic!("{other:?}"),
    }
    let house = sealed().await;
    house.tamper("DELETE FROM audit_chain WHERE position >= 10").await;
    assert_eq!(house.fault().await.position, 10);
    let house = sealed().await;
    house.tamper("UPDATE audit_checkpoints SET note = replace(note, 'time 1', 'time 2')").await;
    assert!(matches!(house.fault().await.what, Wrong::Note(_)));
    let house = sealed().await;
    house.write(3).await;
    house.tamper("DELETE FROM audit WHERE seq = 14").await;
    house.sealer.seal_all().await.unwrap();
    let fault = house.fault().await;
    assert_eq!((fault.position, fault.what), (13, Wrong::Gap { after: 13, before: 15 }), "gone before it was sealed");
}

#[tokio::test]
async fn a_transaction_that_was_taken_back_leaves_no_gap() {
    let house = House::build(small_batches()).await;
    house.write(2).await;
    let options = SqliteConnectOptions::new().filename(house.path());
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    let insert = "INSERT INTO audit (id, at, actor, action, subject, detail) VALUES ('aud_x', 1, 'a', 'b', 'c', '{}')";
    for statement in [
        "BEGIN IMMEDIATE",
        "SAVEPOINT one",
        insert,
        "ROLLBACK TO one",
        "RELEASE one",
        "SAVEPOINT two",
        insert,
        "RELEASE two",
        "ROLLBACK",
    ] {
        sqlx::query(statement).execute(&mut conn).await.unwrap();
    }
    let twice = sqlx::query("INSERT INTO audit SELECT NULL, id, at, actor, action, subject, detail FROM audit WHERE seq = 1");
    twice.execute(&mut conn).await.unwrap_err();
    conn.close().await.unwrap();
    house.write(1).await;
    house.sealer.seal_all().await.unwrap();
    assert_eq!(house.verify().await.unwrap().records, 3);
}

#[tokio::test]
async fn the_database_itself_refuses_to_change_the_chain() {
    let house = House::build(small_batches()).await;
    house.write(2).await;
    house.sealer.seal_all().await.unwrap();
    house.sealer.checkpoint().await.unwrap();
    let options = SqliteConnectOptions::new().filename(house.path());
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    for statement in [
        "UPDATE audit_chain SET hash = zeroblob(32)",
        "DELETE FROM audit_chain",
        "UPDATE audit_head SET size = 0",
        "DELETE FROM audit_head",
        "UPDATE audit_checkpoints SET note = ''",
        "DELETE FROM audit_checkpoints",
        "UPDATE signing_keys SET version = 2",
        "DELETE FROM signing_keys",
    ] {
        let error = sqlx::query(statement).execute(&mut conn).await.unwrap_err();
        assert!(error.to_string().contains("append-only") || error.to_string().contains("only grows"), "{statement}: {error}");
    }
}

#[tokio::test]
async fn an_export_reads_back_as_text() {
    let house = House::build(small_batches()).await;
    house.write(30).await;
    house.sealer.seal_all().await.unwrap();
    house.sealer.checkpoint().await.unwrap();
    let mut texts = Vec::new();
    lines(&*house.store, |line| {
        texts.push(line.to_text());
        Ok::<_, Fault>(())
    })
    .await
    .unwrap();
    let mut verifier = Verifier::new(Trust::TheLogsOwn, Vec::new());
    for text in &texts {
        assert_eq!(Line::parse(text).unwrap().to_text(), *text);
        verifier.text(text).unwrap();
    }
    assert_eq!(verifier.finish().unwrap().records, 30);
}
