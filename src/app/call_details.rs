//! The clock of call detail records: files of days that are over their time are erased, by each machine in its own directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Entropy, Timestamp};
use crate::ops::cdr;
use crate::rights::RetentionConfig;
use crate::rights::retention::erased_files;
use crate::store::{Store, StoreError};

/// How often it is looked, in seconds; the first time is one such after the start.
const LOOK_S: u64 = 600;

/// Why files are not erased, or nobody was told of it.
#[derive(Debug, thiserror::Error)]
pub enum CallDetailsError {
    /// The directory.
    #[error("ops.cdr_dir: {} can't be read: {source}", .dir.display())]
    Directory {
        /// Which.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The audit trail.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How many files are over their time.
pub async fn call_details_over(dir: &Path, cfg: &RetentionConfig, now: Timestamp) -> Result<u64, CallDetailsError> {
    let over = found(dir, cfg, now).await?;
    Ok(u64::try_from(over.len()).unwrap_or(u64::MAX))
}

/// Erases them, and writes down how many it were.
pub async fn erase_call_details(
    dir: &Path,
    cfg: &RetentionConfig,
    (store, entropy): (&dyn Store, &dyn Entropy),
    now: Timestamp,
) -> Result<u64, CallDetailsError> {
    let over = found(dir, cfg, now).await?;
    let deleted = spawn_blocking(move || cdr::delete(&over)).await.map_err(|e| broken(dir, io::Error::other(e)))?;
    erased_files(store, entropy, cfg.call_details(), now, deleted).await?;
    Ok(deleted)
}

async fn found(dir: &Path, cfg: &RetentionConfig, now: Timestamp) -> Result<Vec<PathBuf>, CallDetailsError> {
    let (of, before) = (dir.to_owned(), cfg.call_details().before(now));
    let found = spawn_blocking(move || cdr::day_files_before(&of, before)).await.unwrap_or_else(|e| Err(io::Error::other(e)));
    found.map_err(|source| broken(dir, source))
}

fn broken(dir: &Path, source: io::Error) -> CallDetailsError {
    CallDetailsError::Directory { dir: dir.to_owned(), source }
}

/// Looks at the clock in the background.
pub(super) struct CallDetailsClock {
    /// Unset: no records are written, and none erased.
    pub(super) dir: Option<PathBuf>,
    pub(super) cfg: RetentionConfig,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
}

impl CallDetailsClock {
    /// Until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let Some(dir) = &self.dir else { return };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(LOOK_S)) => {}
            }
            match erase_call_details(dir, &self.cfg, (&*self.store, &*self.entropy), self.clock.now()).await {
                Ok(0) => {}
                Ok(files) => tracing::info!(files, "call detail records that were over their time are erased"),
                Err(error) => tracing::error!(%error, "call detail records could not be erased; they are at the next look"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;
    use crate::store::{SqliteStore, StoreConfig, Trail};

    #[tokio::test]
    async fn files_over_their_time_go_and_the_audit_says_how_many() {
        let dir = tempfile::tempdir().unwrap();
        let cfg = StoreConfig { path: dir.path().join("v.db"), ..StoreConfig::default() };
        let (store, entropy) = (SqliteStore::open(&cfg).await.unwrap(), SeededEntropy::new(5));
        let (cdrs, now) = (dir.path().join("cdr"), Timestamp::parse("2026-11-23T09:00:00Z").unwrap());
        std::fs::create_dir(&cdrs).unwrap();
        for day in ["2026-11-21", "2026-11-22", "2026-11-23"] {
            std::fs::write(cdrs.join(format!("cdr-{day}.jsonl")), "{}\n").unwrap();
        }
        let kept = RetentionConfig { call_details_days: 1, ..RetentionConfig::default() };
        assert_eq!(call_details_over(&cdrs, &kept, now).await.unwrap(), 1, "the 22nd ended nine hours ago");
        let erase = async || erase_call_details(&cdrs, &kept, (&store, &entropy), now).await.unwrap();
        assert_eq!((erase().await, erase().await), (1, 0));
        let trail = store.audit_trail(9).await.unwrap();
        let [row] = &trail[..] else { panic!("{trail:?}") };
        assert_eq!(
            (row.actor.as_str(), row.action.as_str(), row.subject.as_str()),
            ("retention", "retention.erased", "call_detail_files")
        );
        assert_eq!(
            (&row.detail["erased"]["call_detail_files"], &row.detail["key"]),
            (&1.into(), &"retention.call_details_days".into())
        );
        assert_eq!(std::fs::read_dir(&cdrs).unwrap().count(), 2);
        let file = cdrs.join("cdr-2026-11-23.jsonl");
        let error = call_details_over(&file, &kept, now).await.unwrap_err();
        assert!(error.to_string().starts_with("ops.cdr_dir: "), "{error}");
    }
}
