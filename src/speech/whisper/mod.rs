//! Whisper by whisper.cpp (whisper-rs) behind the two traits: `words` reads free speech, `digits` numbers. Each loads only what it needs. A
//! context holds the weights; each call makes a state of its own, uses one thread and drops it: whisper.cpp's barriers collapse when
//! threads outnumber cores, several calls at once do not.

use std::path::Path;

use whisper_rs::{WhisperContext, WhisperContextParameters, WhisperError};
use zeroize::Zeroizing;

use super::{SpeechError, Utterance};
use crate::language::Language;

mod digits;
mod words;

pub use digits::WhisperNumbers;
pub use words::WhisperWords;

/// whisper.cpp refuses less than 100 ms and reads 200 samples past the start; a second is what it was trained to hear at least.
const AUDIO_MIN_SAMPLES: usize = 16_000;
/// Whisper's window.
const AUDIO_MAX_SAMPLES: usize = 480_000;
/// The encoder's frames: 20 ms.
const SAMPLES_A_FRAME: usize = 320;
/// Frames of the whole window.
const WINDOW_FRAMES: usize = 1_500;

/// A context of the whole vocabulary that can hear this language.
fn context(path: &Path, bytes: &[u8], language: Language) -> Result<WhisperContext, SpeechError> {
    let context = load(path, bytes)?;
    if language != Language::English && !context.is_multilingual() {
        return Err(corrupt(path, "it knows English alone; whisper-base is needed"));
    }
    Ok(context)
}

fn load(path: &Path, bytes: &[u8]) -> Result<WhisperContext, SpeechError> {
    whisper_rs::install_logging_hooks();
    WhisperContext::new_from_buffer_with_params(bytes, WhisperContextParameters::default())
        .map_err(|_| corrupt(path, "whisper.cpp can't load it"))
}

fn corrupt(path: &Path, why: &str) -> SpeechError {
    SpeechError::ModelCorrupt { path: path.to_owned(), why: why.to_owned() }
}

fn failed(doing: &'static str) -> impl Fn(WhisperError) -> SpeechError {
    move |source| SpeechError::Inference { doing, source }
}

fn padded(utterance: &Utterance) -> Result<Zeroizing<Vec<f32>>, SpeechError> {
    let heard = utterance.samples_16k.as_slice();
    if heard.is_empty() {
        return Err(SpeechError::Unusable("it is empty"));
    }
    if heard.len() > AUDIO_MAX_SAMPLES {
        return Err(SpeechError::Unusable("it is longer than 30 s"));
    }
    let mut audio = Zeroizing::new(Vec::with_capacity(heard.len().max(AUDIO_MIN_SAMPLES)));
    audio.extend_from_slice(heard);
    audio.resize(heard.len().max(AUDIO_MIN_SAMPLES), 0.0);
    Ok(audio)
}
