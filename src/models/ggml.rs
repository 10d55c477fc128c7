//! CTranslate2's Whisper `model.bin` to whisper.cpp's ggml file, half precision. Pure bytes to bytes: the same input, the same output.

use std::path::{Path, PathBuf};

/// Converts. `vocabulary` is `tokenizer.json` (Hugging Face, byte-level BPE) or CTranslate2's `vocabulary.json`/`.txt`.
/// The output is written beside `out` first and renamed, so that a half-written file is never found.
pub fn convert(model_bin: &Path, vocabulary: &Path, out: &Path) -> Result<(), GgmlError> {
    let _ = (vocabulary, out);
    Err(GgmlError::Model { path: model_bin.to_owned(), why: "the converter is not there yet".to_owned() })
}

/// Why a conversion failed.
#[derive(Debug, thiserror::Error)]
pub enum GgmlError {
    /// Reading or writing failed.
    #[error("can't {doing} {}", .path.display())]
    Io {
        /// read or write.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The model file is not a CTranslate2 Whisper.
    #[error("{} is not a usable CTranslate2 Whisper model: {why}", .path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The vocabulary file can't be used.
    #[error("{} is not a usable vocabulary: {why}", .path.display())]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}
