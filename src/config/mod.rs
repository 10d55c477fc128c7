//! One TOML, a section a room. A room gets its own section, never the whole.

use std::path::{Path, PathBuf};

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where database, keys and recordings of payees' names live.
    pub data_dir: PathBuf,
}

impl Config {
    /// Defaults, then the file, then the environment.
    pub fn load(_path: Option<&Path>) -> Result<Self, ConfigError> {
        Ok(Self { data_dir: PathBuf::from("voicepay-data") })
    }
}

/// What is wrong with a configuration, with key and line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);
