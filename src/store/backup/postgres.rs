//! PostgreSQL: `pg_dump` and `pg_restore`, in their custom format. Both files are dumped from one exported snapshot. Addresses and passwords go to
//! the programs in their environment: a command line can be read by every user of the machine.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection, Row};

use super::{BackupError, KEY_TABLES, Remembered, master_key_fits};
use crate::clock::Entropy;
use crate::store::postgres::{self, connect};
use crate::store::{DatabaseUrl, KEY_CHECK, PgStore, Store, StoreConfig, StoreError, made_by_a_newer};
use crate::vault::{KeyVersion, ROOT_SECRET, VaultConfig, WrappedKey};

const IN_USE_LOOKS: u32 = 10;
const IN_USE_PAUSE_MS: u64 = 100;
/// Of what a program says when it fails, this much is told.
const SAID_LIMIT_CHARS: usize = 500;

pub(super) async fn dump(url: &DatabaseUrl, cfg: &StoreConfig, data: &Path, keys: &Path) -> Result<(), BackupError> {
    let options = connect::for_migrations(&connect::options(url, cfg.busy_timeout_ms)?);
    let mut connection = connected(url, &options).await?;
    // Held open until both have been read.
    let mut tx = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(fault)?;
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0").execute(&mut *tx).await.map_err(fault)?;
    let row = sqlx::query("SELECT pg_export_snapshot()").fetch_one(&mut *tx).await.map_err(fault)?;
    let snapshot: String = row.try_get(0).map_err(fault)?;
    let mut both = [tool("pg_dump", &options), tool("pg_dump", &options)];
    let [whole, apart] = &mut both;
    for (command, file) in [(&mut *whole, data), (&mut *apart, keys)] {
        command.args(["--format=custom", "--no-owner", "--no-privileges"]).arg(format!("--snapshot={snapshot}"));
        command.arg("--file").arg(file);
    }
    apart.arg("--data-only");
    for table in KEY_TABLES {
        whole.arg(format!("--exclude-table-data={table}"));
        apart.arg(format!("--table={table}"));
    }
    let [whole, apart] = both;
    run("pg_dump", whole).await?;
    run("pg_dump", apart).await?;
    tx.rollback().await.map_err(fault)
}

pub(super) async fn load(
    url: &DatabaseUrl,
    cfg: &StoreConfig,
    vault: &VaultConfig,
    (data, keys): (&Path, Option<&Path>),
    replace: bool,
    entropy: Arc<dyn Entropy>,
) -> Result<(), BackupError> {
    let options = connect::for_migrations(&connect::options(url, cfg.busy_timeout_ms)?);
    for file in [Some(data), keys].into_iter().flatten() {
        // Reads it to its end, and writes nothing.
        let mut whole = tool("pg_restore", &options);
        whole.arg("--file=/dev/null").arg(file);
        run("pg_restore", whole).await.map_err(|e| unsound(file, e))?;
    }
    let (found, backup) = remembered(&options, data).await?;
    master_key_fits(vault, &found, entropy)?;
    if backup > postgres::migrations().iter().map(|m| m.version).max().unwrap_or(0) {
        let (place, why) = (data.display().to_string(), made_by_a_newer(backup));
        return Err(StoreError::Migrate { place, why }.into());
    }
    let mut connection = connected(url, &options).await?;
    let migrated = migrated_to(&mut connection).await?;
    let used = in_use(&mut connection).await?;
    let _bye = connection.close().await;
    if used {
        return Err(BackupError::InUse(url.to_string()));
    }
    if let Some(there) = migrated.filter(|there| *there > backup) {
        return Err(BackupError::NewerTables { place: url.to_string(), there, backup });
    }
    if migrated.is_some() && !replace {
        let store = PgStore::open(url, cfg).await?;
        let held = super::any_data(&store).await;
        store.close().await;
        if held? {
            return Err(BackupError::HoldsData(url.to_string()));
        }
    }
    // One transaction: if it fails, the old database is as it was.
    let mut whole = tool("pg_restore", &options);
    whole
        .args(["--clean", "--if-exists", "--single-transaction", "--no-owner", "--no-privileges"])
        .arg(database(&options))
        .arg(data);
    run("pg_restore", whole).await?;
    if let Some(keys) = keys {
        let mut apart = tool("pg_restore", &options);
        apart.args(["--data-only", "--single-transaction", "--no-owner"]).arg(database(&options)).arg(keys);
        run("pg_restore", apart).await.map_err(|e| unsound(keys, e))?;
    }
    // Brings it up to date.
    PgStore::open(url, cfg).await?.close().await;
    Ok(())
}

async fn connected(url: &DatabaseUrl, options: &PgConnectOptions) -> Result<PgConnection, BackupError> {
    let refused = |e: sqlx::Error| StoreError::Open { place: url.to_string(), why: e.to_string() };
    Ok(PgConnection::connect_with(options).await.map_err(refused)?)
}

fn fault(error: sqlx::Error) -> BackupError {
    StoreError::Failed(error.to_string()).into()
}

/// The newest migration of a database; `None` for one that has no tables of ours.
async fn migrated_to(connection: &mut PgConnection) -> Result<Option<i64>, BackupError> {
    let there = sqlx::query("SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS there").fetch_one(&mut *connection).await;
    if !there.and_then(|row| row.try_get("there")).map_err(fault)? {
        return Ok(None);
    }
    let newest = sqlx::query("SELECT max(version) AS version FROM _sqlx_migrations").fetch_one(connection).await;
    newest.and_then(|row| row.try_get("version")).map_err(fault)
}

/// Whether a service is connected. One that has just ended may be seen for a moment.
async fn in_use(connection: &mut PgConnection) -> Result<bool, BackupError> {
    const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'voicepay' AND pid <> pg_backend_pid()";
    for _ in 0..IN_USE_LOOKS {
        let others = sqlx::query(OTHERS).fetch_one(&mut *connection).await.and_then(|row| row.try_get::<i64, _>(0));
        if others.map_err(fault)? == 0 {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(IN_USE_PAUSE_MS)).await;
    }
    Ok(true)
}

/// What the dump says of its master key, and its newest migration, without a database: `pg_restore` writes the rows as text.
async fn remembered(options: &PgConnectOptions, data: &Path) -> Result<(Remembered, i64), BackupError> {
    let mut command = tool("pg_restore", options);
    command.args(["--data-only", "--table=meta", "--table=master_keys", "--table=vault_secrets", "--table=_sqlx_migrations"]);
    command.arg("--file=-").arg(data);
    let said = run("pg_restore", command).await.map_err(|e| unsound(data, e))?;
    let (mut found, mut migration) = (Remembered::default(), 0);
    for row in copied(&said) {
        match row.as_slice() {
            [("version", version), ("description", _), ..] => migration = version.parse().unwrap_or(i64::MAX).max(migration),
            [("key", KEY_CHECK), ("value", value)] => found.check = bytes(value),
            [("version", version), ("proof", _), ("since", _)] => found.newest = found.newest.max(number(version)),
            [("name", ROOT_SECRET), ("key_version", version), ("wrapped", wrapped)] => {
                found.root = number(version).zip(bytes(wrapped)).map(|(version, wrapped)| WrappedKey { version, wrapped });
            }
            _ => {}
        }
    }
    Ok((found, migration))
}

/// Rows of `COPY … (columns) FROM stdin;` with their columns' names. None of those that are asked for holds a character that is escaped.
fn copied(text: &str) -> Vec<Vec<(&str, &str)>> {
    let mut rows = Vec::new();
    let mut columns: Option<Vec<&str>> = None;
    for line in text.lines() {
        match &columns {
            None => {
                let list = line.strip_prefix("COPY ").and_then(|rest| rest.split_once('(')?.1.split_once(')'));
                columns = list.map(|(names, _)| names.split(", ").collect());
            }
            Some(_) if line == "\\." => columns = None,
            Some(names) => rows.push(names.iter().copied().zip(line.split('\t')).collect()),
        }
    }
    rows
}

fn bytes(copied: &str) -> Option<Vec<u8>> {
    hex::decode(copied.strip_prefix(r"\\x")?).ok()
}

fn number(copied: &str) -> Option<KeyVersion> {
    copied.parse().ok().and_then(KeyVersion::new)
}

fn database(options: &PgConnectOptions) -> String {
    format!("--dbname={}", options.get_database().unwrap_or_else(|| options.get_username()))
}

fn tool(name: &'static str, options: &PgConnectOptions) -> Command {
    let mut command = Command::new(name);
    let url = options.to_url_lossy();
    let host = options.get_socket().map_or_else(|| options.get_host().to_owned(), |socket| socket.display().to_string());
    command
        .env("PGHOST", host)
        .env("PGPORT", options.get_port().to_string())
        .env("PGUSER", options.get_username())
        .env("PGDATABASE", options.get_database().unwrap_or_else(|| options.get_username()))
        .env("PGAPPNAME", "voicepay backup")
        .env("PGSSLMODE", sslmode(options.get_ssl_mode()))
        .env_remove("PGOPTIONS")
        .stdin(Stdio::null());
    if let Some(password) = url.password() {
        command.env("PGPASSWORD", unescaped(password));
    }
    if let Some((_, root)) = url.query_pairs().find(|(key, _)| key == "sslrootcert") {
        // sqlx writes what kind of thing it is before it.
        command.env("PGSSLROOTCERT", root.strip_prefix("file: ").unwrap_or(&root));
    }
    command
}

fn sslmode(mode: PgSslMode) -> &'static str {
    match mode {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    }
}

/// `%41` to `A` (RFC 3986 §2.1).
fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex::decode([*high, *low]).ok().and_then(|byte| byte.first().copied()),
            _ => None,
        };
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Runs it to its end, on a thread that may block; gives what it wrote.
async fn run(name: &'static str, mut command: Command) -> Result<String, BackupError> {
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => BackupError::NoTool(name),
        _ => BackupError::Tool { tool: name, said: e.to_string() },
    };
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.map_err(|e| BackupError::Tool { tool: name, said: e.to_string() })?.map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(SAID_LIMIT_CHARS).collect();
    Err(BackupError::Tool { tool: name, said })
}

fn unsound(path: &Path, error: BackupError) -> BackupError {
    match error {
        BackupError::Tool { said, .. } => BackupError::Unsound { path: path.to_owned(), why: said },
        other => other,
    }
}
