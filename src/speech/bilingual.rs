//! Two engines as one: English by the service's own, Mandarin by multilingual Whisper. The utterance says what is spoken.

use std::sync::Arc;

use super::whisper::{WhisperNumbers, WhisperWords};
use super::{AnswerEngine, FreeReading, Heard, NumberEngine, SpeechError, Utterance};
use crate::decision::calibration::CalibrationError;
use crate::decision::{Answer, Calibration, NumberEvidence, PhraseEvidence, VoiceAccepted};
use crate::ids::CardId;
use crate::language::Language;
use crate::secret::Pan;

/// Both. Evidence of Mandarin numbers names Whisper; it is judged by the same thresholds, which are stricter than its own.
#[derive(Debug)]
pub struct Bilingual {
    /// Numbers in English.
    pub numbers: Arc<dyn NumberEngine>,
    /// Answers in English.
    pub answers: Arc<dyn AnswerEngine>,
    /// Numbers in Mandarin.
    pub mandarin_numbers: Arc<WhisperNumbers>,
    /// Answers in Mandarin.
    pub mandarin_answers: Arc<WhisperWords>,
}

/// An utterance as the engine of its language heard it.
struct Routed {
    heard: Heard,
    language: Language,
}

impl Bilingual {
    fn of(&self, language: Language) -> &dyn NumberEngine {
        match language {
            Language::English => self.numbers.as_ref(),
            Language::Mandarin => self.mandarin_numbers.as_ref(),
        }
    }

    fn route<'a>(&'a self, heard: &'a Heard) -> Result<(&'a dyn NumberEngine, &'a Heard), SpeechError> {
        let routed: &Routed = heard.inside()?;
        Ok((self.of(routed.language), &routed.heard))
    }
}

impl NumberEngine for Bilingual {
    fn name(&self) -> &str {
        self.numbers.name()
    }

    /// Its engines come calibrated.
    fn calibrate(&mut self, by: &Calibration) -> Result<(), CalibrationError> {
        by.number_for(self.numbers.name()).and(by.number_for(self.mandarin_numbers.name())).map(|_| ())
    }

    fn hear(&self, utterance: &Utterance) -> Result<Heard, SpeechError> {
        let heard = self.of(utterance.language).hear(utterance)?;
        Ok(Heard::new(Routed { heard, language: utterance.language }))
    }

    fn read_free(&self, heard: &Heard, lengths: &[usize]) -> Result<FreeReading, SpeechError> {
        let (engine, heard) = self.route(heard)?;
        engine.read_free(heard, lengths)
    }

    fn score(&self, voice: &VoiceAccepted, heard: &Heard, authorised: &[(CardId, Pan)]) -> Result<NumberEvidence, SpeechError> {
        let (engine, heard) = self.route(heard)?;
        engine.score(voice, heard, authorised)
    }

    fn score_phrase(&self, heard: &Heard, digits: &[u8]) -> Result<PhraseEvidence, SpeechError> {
        let (engine, heard) = self.route(heard)?;
        engine.score_phrase(heard, digits)
    }

    fn score_strings(&self, heard: &Heard, strings: &[Vec<u8>], within: f32) -> Result<Vec<f32>, SpeechError> {
        let (engine, heard) = self.route(heard)?;
        engine.score_strings(heard, strings, within)
    }
}

impl AnswerEngine for Bilingual {
    fn read_answer(&self, utterance: &Utterance) -> Result<Answer, SpeechError> {
        match utterance.language {
            Language::English => self.answers.read_answer(utterance),
            Language::Mandarin => self.mandarin_answers.read_answer(utterance),
        }
    }
}
