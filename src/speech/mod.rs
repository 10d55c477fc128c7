//! From frames to evidence: voice activity, end-pointing, and Whisper asked what was said.
//!
//! The driver pushes frames into an [`endpoint::Endpointer`], takes the [`Utterance`] and hands it to a [`NumberEngine`] or an
//! [`AnswerEngine`] on a blocking thread. Free reading may run before the voice is accepted (in memory, for speed); scoring
//! against an authorised number takes [`VoiceAccepted`], which `decision` alone makes.

pub mod answer; // yes, no, cancel from free text
mod at_once; // how many recognitions run
pub mod bilingual; // English and Mandarin as one engine
pub mod config; // the section of the TOML
pub mod ctc; // how likely a string is, and which are the likeliest, on CTC posteriors
pub mod ctc_engine; // numbers by the digit head
mod ctc_reader; // one digit head with its encoder
pub mod decode; // the digit decoder: beam and trie walk over any next-digit model
pub mod digits; // spoken digits, as text, to digit strings
mod encoder; // Whisper's encoder by our own forward
pub mod endpoint; // when the caller began, paused, ended
mod evidence; // raw ratios to evidence
mod half; // half-precision numbers
mod head; // the digit head behind the encoder
pub mod heard; // what an engine made of an utterance
pub mod lexicon; // the digit head's tokens as words
mod log_mel; // what the encoder sees
mod model_file; // a ggml file, checked before whisper.cpp sees it
pub mod pickup; // who answered a call of ours
pub mod replay; // a recording as a caller who speaks now
mod samples; // what a turn has brought so far, wiped
mod shipped; // the digit heads that this program was built with
pub mod silero; // voice activity by a network
mod tone; // steady tones
pub mod turn; // one turn: what is worked on at its pauses, and its end
pub mod utterance; // the audio of one turn, with its quality
pub mod vad; // voice activity: energy first, the network on what it opens
pub mod whisper; // whisper-rs behind the two traits

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::decision::calibration::CalibrationError;
use crate::decision::{Answer, Calibration, NumberEvidence, PhraseEvidence, VoiceAccepted};
use crate::ids::CardId;
use crate::language::Language;
use crate::secret::{Pan, luhn_valid};

pub use config::{NumberConfig, NumberEngineName, SpeechConfig};
pub use heard::Heard;
pub use utterance::{Quality, Utterance};

/// What a free reading of the digits gave. Holds what may be a card number: wiped on drop, hidden in `Debug`.
pub struct FreeReading {
    /// Digit values 0 to 9, most likely first string.
    pub digits: Zeroizing<Vec<u8>>,
    /// Natural logarithm of the string's probability (its end included) under the softmax over the ten digits and the end.
    pub log_prob: f32,
    /// Mean over the digits of log P(digit) − log P(second choice); about 0 when guessing.
    pub mean_margin: f32,
    /// The smallest such margin: the digit that is most in doubt.
    pub min_margin: f32,
}

impl FreeReading {
    /// Whether this is a whole card number: of one of `lengths` and with a fitting check digit. Enough to stop listening early,
    /// never enough to accept: in our measurements up to 5 of 13 wrong strings passed Luhn.
    pub fn is_complete(&self, lengths: &[usize]) -> bool {
        lengths.contains(&self.digits.len()) && luhn_valid(&self.digits)
    }
}

impl std::fmt::Debug for FreeReading {
    /// Neither the digits nor how many.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FreeReading(…)")
    }
}

/// Hears numbers. Called from blocking threads, several at once; each call uses one thread.
///
/// Hearing is the costly part and asks for no accepted voice: it may run at every pause, on what was said so far. Reading and scoring
/// what was heard cost little.
pub trait NumberEngine: std::fmt::Debug + Send + Sync {
    /// What makes the figures, by name: evidence carries it, and a calibration made for another is refused.
    fn name(&self) -> &str;

    /// Judges ratios by this calibration from now on; refused if it has nothing for this engine.
    fn calibrate(&mut self, by: &Calibration) -> Result<(), CalibrationError>;

    /// What the model makes of the utterance.
    fn hear(&self, utterance: &Utterance) -> Result<Heard, SpeechError>;

    /// The best digit string, whoever speaks. `lengths` are those that the customer's cards have: a string of such a length is
    /// preferred among near equals; empty means any.
    fn read_free(&self, heard: &Heard, lengths: &[usize]) -> Result<FreeReading, SpeechError>;

    /// How much better each authorised number explains the audio than its best rival string of any length.
    fn score(&self, voice: &VoiceAccepted, heard: &Heard, authorised: &[(CardId, Pan)]) -> Result<NumberEvidence, SpeechError>;

    /// The same for digits that are no secret (a challenge, an enrolment line), for which no voice need be accepted.
    fn score_phrase(&self, heard: &Heard, digits: &[u8]) -> Result<PhraseEvidence, SpeechError>;

    /// For measuring only (`eval`): log P(string) of each string of digit values; those that are more than `within` behind the best
    /// free string may come back as minus infinity. Needs no accepted voice, so no service code may call it.
    fn score_strings(&self, heard: &Heard, strings: &[Vec<u8>], within: f32) -> Result<Vec<f32>, SpeechError>;
}

/// The engine that the configuration names, its model looked for in `dir` (the models' cache). Not calibrated yet.
pub fn load_number_engine(config: &NumberConfig, dir: &Path) -> Result<Box<dyn NumberEngine>, SpeechError> {
    Ok(match config.engine {
        NumberEngineName::Ctc => Box::new(ctc_engine::CtcNumberEngine::load(dir, config)?),
        NumberEngineName::Whisper => {
            let model = dir.join(config.model.file_name());
            Box::new(whisper::WhisperNumbers::load(Language::English, &model, config)?)
        }
    })
}

/// Hears answers to yes-or-no questions. Same calling rules.
pub trait AnswerEngine: std::fmt::Debug + Send + Sync {
    /// What a short utterance means.
    fn read_answer(&self, utterance: &Utterance) -> Result<Answer, SpeechError>;
}

/// Why nothing could be heard. None of these repeats what was said.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    /// No model file.
    #[error("the speech model {} is missing: run `voicepay models fetch`", .0.display())]
    ModelMissing(PathBuf),
    /// The file is there but is no usable model.
    #[error("the speech model {} can't be used ({why}): run `voicepay models fetch`", .path.display())]
    ModelCorrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The digit head does not do.
    #[error("the digit head {} can't be used: {why}", .path.display())]
    Head {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// As many recognitions as allowed are running; the caller must hear so, nothing queues here.
    #[error("all {limit} recognitions that may run at once are running")]
    Overloaded {
        /// `max_at_once`.
        limit: usize,
    },
    /// Too short, too long or silent.
    #[error("the utterance can't be recognised: {0}")]
    Unusable(&'static str),
    /// Our own network failed: a mistake of ours, or of a file that passed as a model.
    #[error("recognition failed: {0}")]
    Network(String),
    /// Whisper failed.
    #[error("recognition failed while {doing}")]
    Inference {
        /// Which step.
        doing: &'static str,
        /// whisper-rs's own words.
        #[source]
        source: whisper_rs::WhisperError,
    },
}
