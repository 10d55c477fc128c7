//! Backups of a database, and what has to be true before one is put back.
//!
//! A backup is two files of the same moment: the data, and the wrapped keys of cards and customers ([`KEY_TABLES`]). They belong in different
//! places, for different times: an erased card stays erased only where no old copy of its key is kept beside its number (docs/VAULT.md).

mod postgres;
mod sqlite;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{StoreConfig, StoreError, UnlockError};
use crate::clock::Entropy;
use crate::vault::{KeyVersion, Vault, VaultConfig, WrappedKey};

pub use super::keys::KEY_TABLES;

/// Why a backup or a restore did not come about. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is a file of this name.
    #[error("{} exists already; name another file or move it away", .0.display())]
    Exists(PathBuf),
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program of PostgreSQL's is not here.
    #[error("`{0}` is not here: install PostgreSQL's client programs (Debian: postgresql-client)")]
    NoTool(&'static str),
    /// It is here, and failed.
    #[error("`{tool}` failed: {said}")]
    Tool {
        /// Which program.
        tool: &'static str,
        /// Its own last words.
        said: String,
    },
    /// The file is no sound backup.
    #[error("{} is no sound backup: {why}", path.display())]
    Unsound {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The database that would be replaced holds data.
    #[error("the database {0} holds data; `--replace` puts the backup in its place and drops what it holds")]
    HoldsData(String),
    /// The database that would be replaced has tables that the backup knows nothing of, so that they would stay.
    #[error(
        "the database {place} has tables of a newer voicepay (migration {there}) than the backup (migration {backup}); they would stay behind: \
         put the backup into an empty database"
    )]
    NewerTables {
        /// Which database.
        place: String,
        /// Its newest migration.
        there: i64,
        /// The backup's newest.
        backup: i64,
    },
    /// Somebody works with the database that would be replaced.
    #[error("the database {0} is in use; stop the service first")]
    InUse(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The master key that is configured here does not open the backup.
    #[error("the backup is of another master key: {0}")]
    Key(String),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The data without [`KEY_TABLES`], and its size in bytes.
    pub data: (PathBuf, u64),
    /// [`KEY_TABLES`] alone, and its size in bytes.
    pub keys: (PathBuf, u64),
}

/// Writes a backup of the database while it is in use. `keys`: where the wrapped keys go, beside `data` by default.
pub async fn backup(cfg: &StoreConfig, data: &Path, keys: Option<&Path>) -> Result<Backup, BackupError> {
    let keys = keys.map_or_else(|| beside(data, "keys"), Path::to_owned);
    let (data_part, keys_part) = (claimed(data)?, claimed(&keys)?);
    match cfg.server()? {
        Some(url) => postgres::dump(&url, cfg, &data_part.0, &keys_part.0).await?,
        None => sqlite::dump(&cfg.path, &data_part.0, &keys_part.0).await?,
    }
    Ok(Backup { data: (data.to_owned(), data_part.finished(data)?), keys: (keys.clone(), keys_part.finished(&keys)?) })
}

/// Puts a backup in the place of an empty database, or with `replace` of any. The backup is read whole and its master key compared before
/// anything is touched. Without `keys` no card and no voice opens any more.
pub async fn restore(
    cfg: &StoreConfig,
    vault: &VaultConfig,
    data: &Path,
    keys: Option<&Path>,
    replace: bool,
    entropy: Arc<dyn Entropy>,
) -> Result<(), BackupError> {
    match cfg.server()? {
        Some(url) => postgres::load(&url, cfg, vault, (data, keys), replace, entropy).await,
        None => sqlite::load(&cfg.path, vault, (data, keys), replace, entropy).await,
    }
}

/// What a backup remembers of its master key.
#[derive(Default)]
struct Remembered {
    check: Option<Vec<u8>>,
    newest: Option<KeyVersion>,
    root: Option<WrappedKey>,
}

/// Whether the vault that is configured here is the one that the backup was made under. A database that never had one fits any.
fn master_key_fits(vault: &VaultConfig, of: &Remembered, entropy: Arc<dyn Entropy>) -> Result<(), BackupError> {
    let told = |e: UnlockError| BackupError::Key(e.to_string());
    match (&of.root, &of.check) {
        (Some(root), check) => {
            let version = of.newest.unwrap_or(root.version);
            Vault::open(vault, version, root, check.as_deref(), entropy).map(drop).map_err(|e| told(e.into()))
        }
        // Older than envelopes: the first master key is compared, and none is made.
        (None, Some(check)) => Vault::first_keys(vault, Some(check), &*entropy).map(drop).map_err(|e| told(e.into())),
        (None, None) => Ok(()),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// A file that is being written; what is left of it goes with this.
struct Part(PathBuf);

/// Makes an empty file beside `path`, readable by its owner only.
fn claimed(path: &Path) -> Result<Part, BackupError> {
    if path.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(path.to_owned()));
    }
    let part = beside(path, "part");
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part) {
        Ok(_) => Ok(Part(part)),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(BackupError::Exists(part)),
        Err(source) => Err(BackupError::Io { path: part, source }),
    }
}

impl Part {
    /// Gives the whole file its name, once it is on the disk; says how big it is.
    fn finished(self, path: &Path) -> Result<u64, BackupError> {
        let done = || {
            let file = std::fs::File::open(&self.0)?;
            file.sync_all()?;
            std::fs::rename(&self.0, path)?;
            let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
            std::fs::File::open(dir)?.sync_all()?;
            Ok(file.metadata()?.len())
        };
        done().map_err(|source| BackupError::Io { path: path.to_owned(), source })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After `finished` it has another name.
        let _left = std::fs::remove_file(&self.0);
    }
}

/// Whether a database holds anything that was not made with it.
async fn any_data(store: &dyn super::Store) -> Result<bool, StoreError> {
    let people = !store.customers().await?.is_empty() || !store.payees().await?.is_empty();
    // Whoever was deleted has left an audit row.
    Ok(people || !store.audit_trail(1).await?.is_empty() || !store.payments(1).await?.is_empty())
}
