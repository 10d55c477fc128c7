//! An utterance's voice as 192 numbers, and what makes them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// How many numbers an embedding has.
pub const EMBEDDING_SIZE: usize = 192;

/// Which weights and which centring made an embedding, for example `campplus-zh-en+1f2e3d4c5b6a+centring-1`.
/// Embeddings and templates of different versions can't be compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelVersion(Arc<str>);

impl ModelVersion {
    /// From its text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An utterance's voice: a raw CAM++ output (not centred, not normalised). Never printed; wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Embedding {
    values: Vec<f32>,
    #[zeroize(skip)]
    model: ModelVersion,
}

impl Embedding {
    /// From the network's output. `None` unless there are [`EMBEDDING_SIZE`] finite numbers.
    pub fn new(values: Vec<f32>, model: ModelVersion) -> Option<Self> {
        let fits = values.len() == EMBEDDING_SIZE && values.iter().all(|v| v.is_finite());
        fits.then_some(Self { values, model })
    }

    /// The numbers, as the network gave them.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// What made it.
    pub fn model(&self) -> &ModelVersion {
        &self.model
    }
}

impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Embedding(…)")
    }
}

/// The network with its weights. Shared by threads; one call of [`Embedder::embed`] uses one thread, several may run at once.
pub struct Embedder {
    version: ModelVersion,
}

impl Embedder {
    /// Loads `campplus.safetensors` (see `models::cache_dir`).
    pub fn load(_path: &Path) -> Result<Self, EmbedError> {
        Err(EmbedError::NotReady)
    }

    /// The embedding of `samples_16k`: mono, 16 kHz, −1 to 1.
    pub fn embed(&self, _samples_16k: &[f32]) -> Result<Embedding, EmbedError> {
        Err(EmbedError::NotReady)
    }

    /// What its embeddings carry.
    pub fn version(&self) -> &ModelVersion {
        &self.version
    }
}

impl fmt::Debug for Embedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedder({})", self.version)
    }
}

/// Why there is no embedding.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// Not built yet.
    #[error("the embedding network is not built yet")]
    NotReady,
    /// The file is not there.
    #[error("the voice model {path} is not there: run `voicepay models fetch`")]
    Missing {
        /// Where it was looked for.
        path: String,
    },
    /// The file is there but is not the model.
    #[error("the voice model {path} can't be used: {why}; run `voicepay models fetch`")]
    Corrupt {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Too little sound.
    #[error("{got_ms} ms of sound is too short for a voice: at least {min_ms} ms are needed")]
    TooShort {
        /// What there was.
        got_ms: u32,
        /// What there must be.
        min_ms: u32,
    },
    /// The sound can't be used.
    #[error("the sound can't be used for a voice: {0}")]
    BadSound(&'static str),
    /// The network failed.
    #[error("the voice network failed: {0}")]
    Network(String),
}
