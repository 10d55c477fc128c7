//! The store on SQLite.

/// The store on SQLite. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqliteStore {}

impl SqliteStore {
    /// Opens the database, makes it on the first run, and brings its tables up to date.
    pub async fn open(cfg: &super::StoreConfig) -> Result<Self, super::StoreError> {
        Err(super::StoreError::Open { path: cfg.path.clone(), why: "the SQLite store is being built".into() })
    }
}
