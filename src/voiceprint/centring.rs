//! The mean voice, subtracted before voices are compared: what all voices (and the telephone line) have in common tells nobody apart.
//!
//! `models/centring.json` is compiled in. It holds 192 numbers, an average over tens of speakers, and how they were made; another mean
//! makes other templates, so its version is part of the model's.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::embedding::{EMBEDDING_SIZE, Embedding};

static COMPILED_IN: LazyLock<Option<Centring>> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../models/centring.json")).ok().filter(Centring::is_whole));

/// A mean voice and how it was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Centring {
    /// Its version, part of every embedding's and template's model version.
    pub version: String,
    /// First twelve digits of the sha256 of the weights (`campplus.safetensors`) that it belongs to.
    pub weights: String,
    /// What it was made from, for people.
    pub made_from: String,
    /// Speakers, each of whom counts the same.
    pub speakers: usize,
    /// Utterances in all.
    pub utterances: usize,
    /// The mean of the speakers' mean unit embeddings.
    pub mean: Vec<f32>,
}

impl Centring {
    fn is_whole(&self) -> bool {
        self.mean.len() == EMBEDDING_SIZE && self.mean.iter().all(|v| v.is_finite())
    }
}

/// The one that this program was built with. `None` would be a broken build, which a test rules out.
pub fn compiled_in() -> Option<&'static Centring> {
    COMPILED_IN.as_ref()
}

/// Makes a mean voice: add embeddings, speaker by speaker, then finish. Only the average leaves it.
#[derive(Debug, Default)]
pub struct MeanVoice {
    speakers: BTreeMap<String, (Vec<f64>, usize)>,
}

impl MeanVoice {
    /// Adds one utterance. Embeddings without length are left out.
    pub fn add(&mut self, speaker: &str, embedding: &Embedding) {
        let length = embedding.values().iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
        if length < 1e-6 {
            return;
        }
        let (sum, utterances) = self.speakers.entry(speaker.to_owned()).or_insert_with(|| (vec![0.0; EMBEDDING_SIZE], 0));
        *utterances += 1;
        for (s, v) in sum.iter_mut().zip(embedding.values()) {
            *s += f64::from(*v) / length;
        }
    }

    /// The mean. `None` if nothing was added.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // small counts; back to single precision
    pub fn finish(&self, version: &str, weights: &str, made_from: &str) -> Option<Centring> {
        let speakers = self.speakers.len();
        let mut mean = vec![0.0f64; EMBEDDING_SIZE];
        for (sum, utterances) in self.speakers.values() {
            for (m, s) in mean.iter_mut().zip(sum) {
                *m += s / *utterances as f64 / speakers as f64;
            }
        }
        (speakers > 0).then(|| Centring {
            version: version.to_owned(),
            weights: weights.to_owned(),
            made_from: made_from.to_owned(),
            speakers,
            utterances: self.speakers.values().map(|(_, n)| n).sum(),
            // Five decimals are finer than any two takes of one voice agree.
            mean: mean.iter().map(|m| ((m * 1e5).round() / 1e5) as f32).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::embedding::ModelVersion;
    use super::*;

    #[test]
    fn the_compiled_in_mean_is_whole_and_belongs_to_the_pinned_weights() {
        let centring = compiled_in().unwrap();
        let manifest = crate::models::Manifest::compiled_in().unwrap();
        let pinned = &manifest.models.iter().find(|m| m.name == "campplus").unwrap().sha256;
        assert!(pinned.starts_with(&centring.weights) && centring.weights.len() == 12);
        assert!(centring.speakers >= 20, "a mean over few speakers would hold their voices");
    }

    #[test]
    fn every_speaker_counts_the_same_however_much_was_said() {
        let mut mean = MeanVoice::default();
        let unit = |at: usize| {
            let mut v = vec![0.0; EMBEDDING_SIZE];
            v[at] = 3.0;
            Embedding::new(v, ModelVersion::new("m")).unwrap()
        };
        for _ in 0..9 {
            mean.add("talks much", &unit(0));
        }
        mean.add("talks little", &unit(1));
        let made = mean.finish("v", "w", "test").unwrap();
        assert_eq!((made.mean[0], made.mean[1], made.mean[2]), (0.5, 0.5, 0.0));
        assert_eq!((made.speakers, made.utterances), (2, 10));
        assert!(MeanVoice::default().finish("v", "w", "t").is_none());
    }
}
