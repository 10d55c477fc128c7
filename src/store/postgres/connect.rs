//! How we connect, and what we demand of a server before we trust it with money.

use std::net::IpAddr;
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, PgConnection, Row};

use crate::store::{DatabaseUrl, StoreError};

/// PostgreSQL 13: `DROP DATABASE … FORCE`, and the oldest that still gets fixes somewhere.
const OLDEST_SERVER: i32 = 130_000;

/// A transaction whose program hangs must not hold its rows for longer.
const IDLE_IN_TRANSACTION_MS: u64 = 30_000;

/// Options for every connection of the pool.
pub(in crate::store) fn options(url: &DatabaseUrl, busy_timeout_ms: u64) -> Result<PgConnectOptions, StoreError> {
    let open = |why: String| StoreError::Open { place: url.to_string(), why };
    // The parser's own words could quote what it read, and with it the password.
    let options = PgConnectOptions::from_str(url.expose()).map_err(|_| {
        open("the address is malformed; it reads postgres://user:password@host:5432/database?sslmode=verify-full".into())
    })?;
    let options = if url.expose().contains("sslmode") || url.expose().contains("ssl-mode") || is_here(&options) {
        options
    } else {
        options.ssl_mode(PgSslMode::VerifyFull)
    };
    Ok(options.application_name("voicepay").disable_statement_logging().options([
        ("lock_timeout", busy_timeout_ms.to_string()),
        ("statement_timeout", busy_timeout_ms.saturating_mul(2).to_string()),
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_MS.to_string()),
        ("default_transaction_isolation", "read committed".to_owned()),
    ]))
}

/// The same, without limits of time: a migration of a big table takes what it takes.
pub(in crate::store) fn for_migrations(options: &PgConnectOptions) -> PgConnectOptions {
    options.clone().options([("lock_timeout", "0"), ("statement_timeout", "0")])
}

/// The same, for statements over many payments. Each row is found by its key, whatever the statistics said when the plan was made: a table that was
/// empty then may have grown.
pub(super) fn for_groups(options: &PgConnectOptions, lock_timeout_ms: u64) -> PgConnectOptions {
    let off = ["enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"].map(|setting| (setting, "off"));
    let options = options.clone().options(off).options([("plan_cache_mode", "force_generic_plan")]);
    options.options([("lock_timeout", lock_timeout_ms.to_string())])
}

/// On this machine nobody listens on the wire; elsewhere TLS is the rule, and who wants less says so in the address.
fn is_here(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Refuses a server that would lose commits, or texts.
pub(super) async fn check_server(connection: &mut PgConnection, place: &str) -> Result<(), StoreError> {
    let open = |why: String| StoreError::Open { place: place.to_owned(), why };
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::int AS version, current_setting('fsync') AS fsync,
                current_setting('full_page_writes') AS pages, current_setting('synchronous_commit') AS sync,
                current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS standby",
    )
    .fetch_one(connection)
    .await
    .map_err(|e| open(super::fault::in_words(&e)))?;
    let setting = |name: &str| row.try_get::<String, _>(name).map_err(|e| open(e.to_string()));
    let version: i32 = row.try_get("version").map_err(|e| open(e.to_string()))?;
    let standby: bool = row.try_get("standby").map_err(|e| open(e.to_string()))?;
    if version < OLDEST_SERVER {
        return Err(open(format!("its server is version {}; PostgreSQL 13 or newer is needed", version / 10_000)));
    }
    if standby {
        return Err(open("it is a standby, which takes no writes; name the primary".into()));
    }
    for (name, value) in
        [("fsync", setting("fsync")?), ("full_page_writes", setting("pages")?), ("synchronous_commit", setting("sync")?)]
    {
        if value == "off" {
            return Err(open(format!("the server runs with `{name} = off`: it would lose payments in a crash; switch it on")));
        }
    }
    match setting("encoding")?.as_str() {
        "UTF8" => Ok(()),
        other => Err(open(format!("its encoding is {other}; make the database with ENCODING 'UTF8'"))),
    }
}
