//! `[store]`, and opening what it names.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{DatabaseUrl, PgStore, SqliteStore, Store, StoreError};

/// The environment variable that names a PostgreSQL database. It wins over `store.url`, which wins over `store.path`.
const DATABASE_URL_ENV: &str = "DATABASE_URL";

/// `[store]`: where the data lies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// The SQLite database file; it and its directory are made on the first run.
    pub path: PathBuf,
    /// A PostgreSQL database (13 or newer) in place of the file: `postgres://user:password@host:5432/database`. The environment variable
    /// `DATABASE_URL` comes first. Another machine is reached by TLS with its certificate checked, unless `?sslmode=` says otherwise.
    #[serde(with = "maybe_url")]
    pub url: Option<DatabaseUrl>,
    /// How long a write waits for another process that is writing, in milliseconds.
    pub busy_timeout_ms: u64,
    /// Connections kept open. SQLite has one more, which does all the writing; PostgreSQL five more, which do what many payments wait for at once.
    pub connections: u32,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { path: "voicepay.db".into(), url: None, busy_timeout_ms: 5000, connections: 4 }
    }
}

impl StoreConfig {
    /// The PostgreSQL database to use, if the environment or the configuration names one.
    pub(super) fn server(&self) -> Result<Option<DatabaseUrl>, StoreError> {
        self.server_or(std::env::var(DATABASE_URL_ENV).ok().as_deref())
    }

    /// The same; `given` is the value of [`DATABASE_URL_ENV`].
    fn server_or(&self, given: Option<&str>) -> Result<Option<DatabaseUrl>, StoreError> {
        match given {
            Some(given) if !given.is_empty() => DatabaseUrl::parse(given)
                .map(Some)
                .map_err(|why| StoreError::Open { place: format!("in {DATABASE_URL_ENV}"), why: why.to_string() }),
            Some(_) | None => Ok(self.url.clone()),
        }
    }

    /// Whether there may be a database already: on a server, or in a file that exists.
    pub fn there(&self) -> bool {
        std::env::var_os(DATABASE_URL_ENV).is_some_and(|url| !url.is_empty()) || self.url.is_some() || self.path.exists()
    }
}

/// Opens the database that the environment or the configuration names, makes it on the first run, and brings its tables up to date.
pub async fn open(cfg: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    match cfg.server()? {
        Some(url) => Ok(Arc::new(PgStore::open(&url, cfg).await?)),
        None => Ok(Arc::new(SqliteStore::open(cfg).await?)),
    }
}

/// TOML has no null: none is the empty text.
mod maybe_url {
    use super::{DatabaseUrl, Deserialize, Deserializer, Serializer};

    #[allow(clippy::ref_option)] // serde passes the field
    pub(super) fn serialize<S: Serializer>(url: &Option<DatabaseUrl>, s: S) -> Result<S::Ok, S::Error> {
        match url {
            Some(url) => s.collect_str(url),
            None => s.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<DatabaseUrl>, D::Error> {
        match String::deserialize(d)?.as_str() {
            "" => Ok(None),
            text => DatabaseUrl::parse(text).map(Some).map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins_over_the_file_and_an_empty_text_is_none() {
        let cfg: StoreConfig = toml::from_str("url = \"postgres://file/a\"").unwrap();
        let named = |cfg: &StoreConfig, given| cfg.server_or(given).unwrap().map(|url| url.to_string());
        assert_eq!(named(&cfg, Some("postgres://env/b")).as_deref(), Some("postgres://env/b"));
        assert_eq!(named(&cfg, Some("")).as_deref(), Some("postgres://file/a"));
        assert_eq!(named(&StoreConfig::default(), None), None);
        let error = cfg.server_or(Some("mysql://root:canary@x/y")).unwrap_err().to_string();
        assert!(error.contains("DATABASE_URL") && !error.contains("canary"), "{error}");
        let written = toml::to_string(&StoreConfig::default()).unwrap();
        assert_eq!(toml::from_str::<StoreConfig>(&written).unwrap(), StoreConfig::default());
    }
}
