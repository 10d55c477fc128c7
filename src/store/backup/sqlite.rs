//! SQLite: a copy by `VACUUM INTO`, which reads one snapshot while others write; the keys are then moved out of the copy.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use super::{BackupError, KEY_TABLES, Part, Remembered, beside, claimed, master_key_fits};
use crate::clock::Entropy;
use crate::store::rows::Reader;
use crate::store::rows::keys::{master_key, wrapped};
use crate::store::{KEY_CHECK, SqliteStore, Store, StoreConfig, StoreError};
use crate::vault::{ROOT_SECRET, VaultConfig};

/// How long a statement waits for others.
const BUSY_TIMEOUT_MS: u64 = 5000;

pub(super) async fn dump(database: &Path, data: &Path, keys: &Path) -> Result<(), BackupError> {
    let mut live = opened(database, false).await?;
    sqlx::query("VACUUM INTO ?").bind(text(data)?).execute(&mut live).await.map_err(fault)?;
    let _bye = live.close().await;
    let mut copy = opened(data, true).await?;
    sqlx::query("PRAGMA secure_delete = ON").execute(&mut copy).await.map_err(fault)?;
    sqlx::query("ATTACH ? AS apart").bind(text(keys)?).execute(&mut copy).await.map_err(fault)?;
    for table in KEY_TABLES {
        for sql in [format!("CREATE TABLE apart.{table} AS SELECT * FROM main.{table}"), format!("DELETE FROM main.{table}")] {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut copy).await.map_err(fault)?;
        }
    }
    // Freed pages go too.
    for sql in ["DETACH apart", "VACUUM"] {
        sqlx::query(sql).execute(&mut copy).await.map_err(fault)?;
    }
    copy.close().await.map_err(fault)
}

pub(super) async fn load(
    database: &Path,
    vault: &VaultConfig,
    (data, keys): (&Path, Option<&Path>),
    replace: bool,
    entropy: Arc<dyn Entropy>,
) -> Result<(), BackupError> {
    let part = claimed(&beside(database, "restored"))?;
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::Io { path, source }
    };
    std::fs::copy(data, &part.0).map_err(io(data))?;
    private(&part)?;
    sound(data, &part, keys).await?;
    master_key_fits(vault, &remembered(&part.0, data).await?, entropy)?;
    // Brings it up to date, and refuses what a newer version made, before the old one is touched.
    let cfg = StoreConfig { path: part.0.clone(), ..StoreConfig::default() };
    SqliteStore::open(&cfg).await?.close().await;
    if database.exists() {
        let place = database.display().to_string();
        if !replace && holds_data(database).await? {
            return Err(BackupError::HoldsData(place));
        }
        // Only somebody alone with the database can leave write-ahead logging; that also folds the log into the file.
        let mut alone = opened(database, true).await?;
        let mode = sqlx::query("PRAGMA journal_mode = DELETE").fetch_one(&mut alone).await;
        if !mode.is_ok_and(|row| row.try_get::<String, _>(0).is_ok_and(|mode| mode == "delete")) {
            return Err(BackupError::InUse(place));
        }
        let _bye = alone.close().await;
    }
    part.finished(database).map(drop)
}

/// Reads the copy whole, and brings the keys back into it.
async fn sound(data: &Path, copy: &Part, keys: Option<&Path>) -> Result<(), BackupError> {
    let unsound = |path: &Path, why: String| BackupError::Unsound { path: path.to_owned(), why };
    let mut connection = opened(&copy.0, true).await.map_err(|e| unsound(data, e.to_string()))?;
    let check = sqlx::query("PRAGMA integrity_check(1)").fetch_one(&mut connection).await;
    match check.and_then(|row| row.try_get::<String, _>(0)) {
        Ok(said) if said == "ok" => {}
        Ok(said) => return Err(unsound(data, said)),
        Err(e) => return Err(unsound(data, e.to_string())),
    }
    let ours = sqlx::query("SELECT count(*) FROM sqlite_schema WHERE name IN ('customers', 'intents', 'transfers', 'meta')");
    let ours = ours.fetch_one(&mut connection).await.and_then(|row| row.try_get::<i64, _>(0));
    if !matches!(ours, Ok(4)) {
        return Err(unsound(data, "it is a database of something else".into()));
    }
    if let Some(keys) = keys {
        if !keys.exists() {
            return Err(unsound(keys, "there is no such file".into()));
        }
        let attach = sqlx::query("ATTACH ? AS apart").bind(text(keys)?).execute(&mut connection).await;
        attach.map_err(|e| unsound(keys, e.to_string()))?;
        for table in KEY_TABLES {
            // A row that stands already (a backup that was made before keys were kept apart) is the same row.
            let sql = format!("INSERT OR IGNORE INTO main.{table} SELECT * FROM apart.{table}");
            sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.map_err(|e| unsound(keys, e.to_string()))?;
        }
    }
    let broken = sqlx::query("PRAGMA foreign_key_check").fetch_optional(&mut connection).await.map_err(fault)?;
    if broken.is_some() {
        let path = keys.unwrap_or(data);
        return Err(unsound(path, "rows refer to rows that are not there; are the two files of the same backup?".into()));
    }
    connection.close().await.map_err(fault)
}

async fn remembered(copy: &Path, data: &Path) -> Result<Remembered, BackupError> {
    let damaged = |e: StoreError| BackupError::Unsound { path: data.to_owned(), why: e.to_string() };
    let mut connection = opened(copy, true).await?;
    let check = sqlx::query("SELECT value FROM meta WHERE key = ?").bind(KEY_CHECK).fetch_optional(&mut connection).await;
    let check = check.map_err(fault)?.map(|row| Reader::new(&row, "meta").bytes("value")).transpose().map_err(damaged)?;
    let mut found = Remembered { check, ..Remembered::default() };
    let there = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'vault_secrets'").fetch_optional(&mut connection).await;
    if there.map_err(fault)?.is_some() {
        let newest = sqlx::query("SELECT version, proof, since FROM master_keys ORDER BY version DESC LIMIT 1");
        let newest = newest.fetch_optional(&mut connection).await.map_err(fault)?;
        found.newest = newest.map(|row| master_key(&row)).transpose().map_err(damaged)?.map(|key| key.version);
        let root = sqlx::query("SELECT key_version, wrapped FROM vault_secrets WHERE name = ?").bind(ROOT_SECRET);
        let root = root.fetch_optional(&mut connection).await.map_err(fault)?;
        found.root = root.map_or(Ok(None), |row| wrapped(&row, "vault_secrets")).map_err(damaged)?;
    }
    let _bye = connection.close().await;
    Ok(found)
}

/// Whether the database holds anything that was not made with it.
async fn holds_data(database: &Path) -> Result<bool, BackupError> {
    let store = SqliteStore::open(&StoreConfig { path: database.to_owned(), ..StoreConfig::default() }).await?;
    let held = super::any_data(&store).await;
    store.close().await;
    Ok(held?)
}

async fn opened(path: &Path, create: bool) -> Result<SqliteConnection, BackupError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(create)
        .busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))
        .disable_statement_logging();
    SqliteConnection::connect_with(&options)
        .await
        .map_err(|e| StoreError::Open { place: path.display().to_string(), why: e.to_string() }.into())
}

/// A copy has the mode of what was copied.
fn private(part: &Part) -> Result<(), BackupError> {
    std::fs::set_permissions(&part.0, Permissions::from_mode(0o600))
        .map_err(|source| BackupError::Io { path: part.0.clone(), source })
}

fn text(path: &Path) -> Result<&str, BackupError> {
    path.to_str().ok_or_else(|| BackupError::Unsound { path: path.to_owned(), why: "its name is not UTF-8".into() })
}

fn fault(error: sqlx::Error) -> BackupError {
    StoreError::Failed(error.to_string()).into()
}
