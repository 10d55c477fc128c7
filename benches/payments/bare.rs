//! The bare commit rate: as many clients as pay, each inserting one row a transaction, with the same library and durability.
//! What a payment is held against.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::house::{Database, Kind, Raw};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS bare (id INTEGER PRIMARY KEY, at BIGINT NOT NULL, note TEXT NOT NULL)";
const PGBENCH_CREATE: &str = "CREATE TABLE IF NOT EXISTS bare (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at BIGINT NOT NULL, note TEXT NOT NULL)";
const INSERT: &str = "INSERT INTO bare (at, note) VALUES (1, 'a row')";

/// One-row commits a second.
pub async fn commits_a_second(database: &Database, root: &Path, clients: usize, time: Duration) -> f64 {
    match database.kind {
        // SQLite has one writer. Clients that take turns are faster than clients that wait for each other inside SQLite, so the
        // better counts.
        Kind::Sqlite => {
            let in_turn = sqlite(root, clients, time / 2, true).await;
            let at_once = sqlite(root, clients, time / 2, false).await;
            in_turn.max(at_once)
        }
        // Over the same Unix socket.
        Kind::Postgres => pgbench(database, root, clients, time).await,
    }
}

async fn sqlite(root: &Path, clients: usize, time: Duration, in_turn: bool) -> f64 {
    // A file of its own on the same disk, with the pragmas of the store.
    let options = SqliteConnectOptions::new()
        .filename(root.join("bare.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // With many clients somebody is unlucky for longer than the store would wait.
        .busy_timeout(Duration::from_secs(60))
        .foreign_keys(true)
        .pragma("secure_delete", "ON")
        .disable_statement_logging();
    let mut first = options.connect().await.unwrap();
    sqlx::query(CREATE).execute(&mut first).await.unwrap();
    let (turn, done) = (Arc::new(Mutex::new(())), Arc::new(AtomicI64::new(0)));
    let mut connections: Vec<SqliteConnection> = Vec::new();
    for _ in 0..clients {
        connections.push(options.connect().await.unwrap());
    }
    let began = Instant::now();
    let end = began + time;
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let (turn, done) = (turn.clone(), done.clone());
            tokio::spawn(async move {
                while Instant::now() < end {
                    let _turn = if in_turn { Some(turn.lock().await) } else { None };
                    sqlx::query(INSERT).execute(&mut connection).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    rate(done.load(Ordering::Relaxed), began.elapsed())
}

/// PostgreSQL's own load tool with a script of one statement, prepared once.
async fn pgbench(database: &Database, root: &Path, clients: usize, time: Duration) -> f64 {
    let mut raw = Raw::open(database).await;
    raw.run(PGBENCH_CREATE).await;
    let before = raw.number("SELECT count(*) FROM bare").await;
    let script = root.join("bare.sql");
    std::fs::write(&script, format!("{INSERT};\n")).unwrap();
    let (clients, seconds) = (clients.to_string(), time.as_secs().max(1).to_string());
    let beside_the_server = crate::lab::programs().map(|dir| dir.join("pgbench")).ok().filter(|program| program.exists());
    let mut command = Command::new(beside_the_server.unwrap_or_else(|| "pgbench".into()));
    command.args(["-n", "-M", "prepared", "-j", "2", "-c", &clients, "-T", &seconds, "-f"]).arg(&script).arg(&database.url);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
    let after = raw.number("SELECT count(*) FROM bare").await;
    rate(after - before, Duration::from_secs(time.as_secs().max(1)))
}

fn rate(done: i64, time: Duration) -> f64 {
    let done = f64::from(i32::try_from(done).unwrap());
    done / time.as_secs_f64()
}
