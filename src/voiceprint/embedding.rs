//! An utterance's voice as 192 numbers, and what makes them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ndarray::Array2;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::babble;
use super::band;
use super::campplus::CampPlus;
use super::centring;
use super::fbank::Filterbank;

/// How many numbers an embedding has.
pub const EMBEDDING_SIZE: usize = 192;

/// Which weights and which centring made an embedding, for example `campplus-zh-en+1f2e3d4c5b6a+centring-2`.
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

/// The shortest sound that is embedded at all. What is long enough to be *accepted* is a threshold, not this.
const MIN_MS: u32 = 300;
/// The longest: two minutes of speech take over a second and 200 MB; no utterance is that long.
const MAX_MS: u32 = 120_000;

/// The network with its weights. Shared by threads; one call of [`Embedder::embed`] uses one thread, several may run at once.
pub struct Embedder {
    version: ModelVersion,
    filterbank: Filterbank,
    network: CampPlus,
    /// Measurements only: what lies above the telephone's band counts, too.
    wide: bool,
}

impl Embedder {
    /// Loads `campplus.safetensors` (see `models::cache_dir`). The version that embeddings carry names the file's digest.
    pub fn load(path: &Path) -> Result<Self, EmbedError> {
        let shown = || path.display().to_string();
        let corrupt = |why: String| EmbedError::Corrupt { path: shown(), why };
        let bytes = std::fs::read(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => EmbedError::Missing { path: shown() },
            _ => corrupt(e.to_string()),
        })?;
        let digest = hex::encode(Sha256::digest(&bytes));
        let network = CampPlus::load(&bytes).map_err(|e| corrupt(e.to_string()))?;
        let weights = digest.get(..12).unwrap_or_default();
        let centring = centring::compiled_in().filter(|c| c.weights == weights);
        let centring = centring
            .ok_or_else(|| corrupt(format!("its sha256 begins {weights}: it is not the model that voices are centred for")))?;
        let version = format!("campplus-zh-en+{weights}+{}", centring.version);
        Ok(Self { version: ModelVersion::new(&version), filterbank: Filterbank::new(), network, wide: false })
    }

    /// The same over the whole band of 8 kHz, for measuring what that would bring: voices are still centred as the telephone's, and its embeddings
    /// are of another model version, so that none meets a template of the service.
    pub fn over_the_whole_band(mut self) -> Self {
        self.version = ModelVersion::new(&format!("{}+wide", self.version));
        self.wide = true;
        self
    }

    /// The embedding of `samples_16k`: mono, 16 kHz, −1 to 1. Of the telephone's band alone, whatever the line carries, and more of
    /// its loud frames than of its pauses ([`super::band`]).
    pub fn embed(&self, samples_16k: &[f32]) -> Result<Embedding, EmbedError> {
        self.run(samples_16k, &self.version, |mels| {
            let weights = band::speech_weights(mels);
            without_mean(mels);
            if !self.wide {
                band::keep_telephone(mels);
            }
            Some(weights)
        })
    }

    /// The embedding of the same utterance in a murmur (`seed` says which), for a template that shall hold in company. Takes as long
    /// as [`Self::embed`].
    pub fn embed_in_babble(&self, samples_16k: &[f32], seed: u64) -> Result<Embedding, EmbedError> {
        self.embed(&babble::in_babble(samples_16k, seed))
    }

    /// As the network was published: the whole band, every frame alike. For comparing with other implementations; of another model
    /// version, so that no template can be made of it by mistake.
    pub fn embed_as_published(&self, samples_16k: &[f32]) -> Result<Embedding, EmbedError> {
        let version = ModelVersion::new(&format!("{}+published", self.version));
        self.run(samples_16k, &version, |mels| {
            without_mean(mels);
            None
        })
    }

    fn run(
        &self,
        samples_16k: &[f32],
        version: &ModelVersion,
        prepare: impl Fn(&mut Array2<f32>) -> Option<Vec<f32>>,
    ) -> Result<Embedding, EmbedError> {
        let got_ms = u32::try_from(samples_16k.len() / 16).unwrap_or(u32::MAX);
        if got_ms < MIN_MS {
            return Err(EmbedError::TooShort { got_ms, min_ms: MIN_MS });
        }
        if got_ms > MAX_MS {
            return Err(EmbedError::BadSound("it is longer than two minutes"));
        }
        if samples_16k.iter().any(|s| !s.is_finite()) {
            return Err(EmbedError::BadSound("it holds numbers that are not finite"));
        }
        if samples_16k.iter().all(|s| s.abs() < 1e-5) {
            return Err(EmbedError::BadSound("it is silent"));
        }
        let mut mels = self.filterbank.compute(samples_16k);
        let weights = prepare(&mut mels);
        let values = self.network.forward(&mels, weights.as_deref()).map_err(|e| EmbedError::Network(e.to_string()))?;
        mels.as_slice_mut().unwrap_or_default().zeroize(); // the caller's voice
        Embedding::new(values, version.clone()).ok_or_else(|| EmbedError::Network("its output is not finite".into()))
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

/// What a line does to all frames alike is none of the voice.
fn without_mean(mels: &mut Array2<f32>) {
    if let Some(mean) = mels.mean_axis(ndarray::Axis(0)) {
        *mels -= &mean;
    }
}

/// Why there is no embedding.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::frame::SampleRate;

    #[derive(serde::Deserialize)]
    struct Golden {
        clips: std::collections::BTreeMap<String, Clip>,
    }

    #[derive(serde::Deserialize)]
    struct Clip {
        frames: usize,
        fbank_frame_0: Vec<f32>,
        fbank_frame_50: Vec<f32>,
        embedding: Vec<f32>,
    }

    fn cosine(a: &[f32], b: &[f32]) -> f64 {
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    fn embedder() -> Embedder {
        let path = crate::models::Model::CampPlus.path().unwrap_or_else(|e| panic!("{e}"));
        Embedder::load(&path).unwrap()
    }

    /// 8 kHz 16-bit WAV → 16 kHz, as the golden script's `resample_poly`.
    fn telephone_wav(path: &Path) -> Vec<f32> {
        let samples: Vec<f32> =
            hound::WavReader::open(path).unwrap().samples::<i16>().map(|s| f32::from(s.unwrap()) / 32_768.0).collect();
        crate::media::resample::resample_whole(&samples, SampleRate::HZ_8000, SampleRate::HZ_16000)
    }

    fn held_to(folder: &Path, numbers: &str) {
        let golden: Golden = serde_json::from_slice(&std::fs::read(folder.join(numbers)).unwrap()).unwrap();
        assert!(!golden.clips.is_empty());
        let embedder = embedder();
        for (name, clip) in golden.clips {
            let samples = telephone_wav(&folder.join(&name));
            let mels = embedder.filterbank.compute(&samples);
            assert_eq!(mels.nrows(), clip.frames, "{name}");
            for (frame, want) in [(0, &clip.fbank_frame_0), (50, &clip.fbank_frame_50)] {
                let apart = mels.row(frame).iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
                assert!(apart < 5e-3, "{name}: filterbank frame {frame} is {apart} off");
            }
            let embedding = embedder.embed_as_published(&samples).unwrap();
            let apart = embedding.values().iter().zip(&clip.embedding).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
            let close = cosine(embedding.values(), &clip.embedding);
            println!("{name}: cosine {close:.8}, largest difference {apart:.2e}");
            assert!(close > 0.99999, "{name}: cosine {close}");
        }
    }

    #[test]
    fn embeddings_equal_the_reference_in_the_repository() {
        held_to(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/voiceprint"), "voiceprint.json");
    }

    #[test]
    fn sound_that_holds_no_voice_is_refused_in_words() {
        let embedder = embedder();
        let refused = |samples: &[f32]| embedder.embed(samples).unwrap_err().to_string();
        assert!(refused(&[0.1; 4_799]).contains("299 ms"));
        assert!(refused(&[0.0; 16_000]).contains("silent"));
        assert!(refused(&[f32::NAN; 16_000]).contains("not finite"));
        assert!(refused(&vec![0.1; 16_000 * 121]).contains("two minutes"));
        assert!(embedder.embed(&[0.1; 4_800]).is_ok(), "the shortest that is taken");
    }

    #[test]
    fn a_file_that_is_no_model_and_one_that_is_not_there_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("campplus.safetensors");
        assert!(matches!(Embedder::load(&path), Err(EmbedError::Missing { .. })));
        std::fs::write(&path, b"no safetensors").unwrap();
        assert!(matches!(Embedder::load(&path), Err(EmbedError::Corrupt { .. })));
    }

    #[test]
    fn embeddings_equal_the_shared_reference() {
        let shared = std::env::var("VOICEPAY_SHARED").unwrap_or_else(|_| format!("{}/../shared", env!("CARGO_MANIFEST_DIR")));
        let folder = Path::new(&shared).join("golden");
        if !folder.is_dir() {
            println!("skipped: ../shared is absent");
            return;
        }
        held_to(&folder, "campplus.json");
    }
}
