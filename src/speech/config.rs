//! `[speech]` and `[number]` of the configuration, each key with its unit.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::endpoint::ListenSpec;
use super::pickup::PickupConfig;
use super::vad::VadConfig;

/// `[speech]`: hearing when the caller speaks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpeechConfig {
    /// Also understands Mandarin, for customers who speak it: loads Whisper base (148 MB) with its decoder, twice.
    pub mandarin: bool,
    /// Voice activity.
    pub vad: VadConfig,
    /// Listening for a card number: long pauses between groups.
    pub card: ListenSpec,
    /// Listening for a yes or a no.
    pub answer: ListenSpec,
    /// Listening for the digits read out at enrolment, and for counting.
    pub digits: ListenSpec,
    /// Who answered a call that we placed.
    pub pickup: PickupConfig,
}

impl Default for SpeechConfig {
    fn default() -> Self {
        Self {
            vad: VadConfig::default(),
            card: ListenSpec::card(),
            answer: ListenSpec::answer(),
            digits: ListenSpec::digits(),
            pickup: PickupConfig::default(),
            mandarin: false,
        }
    }
}

/// Which recogniser hears card numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NumberModel {
    /// Whisper tiny.en: 78 MB, English.
    #[serde(rename = "tiny.en")]
    TinyEn,
    /// Whisper base: 148 MB, multilingual. By itself no better for English digits.
    #[serde(rename = "base")]
    Base,
}

impl NumberModel {
    /// As a digit head names the encoder that it was trained on.
    pub fn named(encoder: &str) -> Option<Self> {
        match encoder {
            "whisper-tiny.en" => Some(Self::TinyEn),
            "whisper-base" => Some(Self::Base),
            _ => None,
        }
    }

    /// The file in the models' cache directory.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::TinyEn => "whisper-tiny.en.ggml.bin",
            Self::Base => "whisper-base.ggml.bin",
        }
    }
}

/// How numbers are heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumberEngineName {
    /// Digit heads on Whisper's encoders.
    Ctc,
    /// Whisper itself, asked digit by digit.
    Whisper,
}

/// `[number]`: hearing card numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NumberConfig {
    /// `ctc` or `whisper`.
    pub engine: NumberEngineName,
    /// Other digit heads than those compiled in: files, each trained on an encoder that we have. For `ctc` alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub heads: Vec<PathBuf>,
    /// `tiny.en` or `base`. For `whisper` alone: a digit head knows its encoder.
    pub model: NumberModel,
    /// Recognitions that may run at once, one thread each; more are refused. Not a key: in the service the inference pool bounds them.
    #[serde(skip, default = "no_limit_of_its_own")]
    pub max_at_once: usize,
}

/// In the service the inference pool bounds it, where work may also wait.
fn no_limit_of_its_own() -> usize {
    usize::MAX
}

impl Default for NumberConfig {
    fn default() -> Self {
        Self { engine: NumberEngineName::Ctc, heads: Vec::new(), model: NumberModel::TinyEn, max_at_once: no_limit_of_its_own() }
    }
}
