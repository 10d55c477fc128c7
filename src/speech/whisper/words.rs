//! Whisper as a reader of free speech: "yes", "cancel", a spoken reference. The whole vocabulary, one state a call, one thread.

use std::path::Path;

use whisper_rs::{FullParams, SamplingStrategy, WhisperContext};
use zeroize::Zeroizing;

use super::super::answer::answer_in;
use super::super::at_once::AtOnce;
use super::super::model_file::ModelFile;
use super::super::{AnswerEngine, SpeechError, Utterance};
use super::{SAMPLES_A_FRAME, WINDOW_FRAMES, failed, padded};
use crate::decision::Answer;
use crate::language::Language;

/// How one reading goes about it: time is nearly all in the frames that the encoder sees.
#[derive(Clone, Copy)]
struct Way {
    /// Silence that is seen behind the words. With a few seconds of it, Whisper says short words over and over ("yes yes yes …").
    slack_frames: usize,
    tokens_max: i32,
}

/// Half the whole window's time: what is read so is not said over and over.
const AT_LENGTH: Way = Way { slack_frames: 750, tokens_max: 48 };
/// 4 s. Said over and over or not, a yes is a yes, and nobody says more words than this in [`SHORT_ANSWER_MS`].
const SHORTLY: Way = Way { slack_frames: 200, tokens_max: 12 };
/// Answers up to this long are read shortly first, in milliseconds: a third of the time.
const SHORT_ANSWER_MS: u32 = 2_500;

/// Whisper as a reader of free speech.
pub struct WhisperWords {
    context: WhisperContext,
    at_once: AtOnce,
    language: Language,
}

impl std::fmt::Debug for WhisperWords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WhisperWords({:?}, at most {} at once)", self.language, self.at_once.limit())
    }
}

impl WhisperWords {
    /// From a ggml file, to hear this language, so many at once; refused if the model knows English alone and it is another.
    pub fn load(language: Language, path: &Path, max_at_once: usize) -> Result<Self, SpeechError> {
        let context = super::context(path, ModelFile::open(path)?.bytes(), language)?;
        Ok(Self { context, at_once: AtOnce::new(max_at_once), language })
    }

    pub(super) fn context(&self) -> &WhisperContext {
        &self.context
    }

    pub(super) fn language(&self) -> Language {
        self.language
    }

    /// What was said, as plain text. May hold a card number: don't log it.
    pub fn read_text(&self, utterance: &Utterance) -> Result<Zeroizing<String>, SpeechError> {
        self.read(utterance, AT_LENGTH)
    }

    fn read(&self, utterance: &Utterance, way: Way) -> Result<Zeroizing<String>, SpeechError> {
        let _turn = self.at_once.begin()?;
        let audio = padded(utterance)?;
        let mut state = self.context.create_state().map_err(failed("making room"))?;
        let mut params = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
        params.set_n_threads(1);
        params.set_language(Some(self.language.code()));
        params.set_no_context(true);
        params.set_no_timestamps(true);
        params.set_single_segment(true);
        params.set_temperature(0.0);
        params.set_temperature_inc(0.0);
        params.set_max_tokens(way.tokens_max);
        let frames = (audio.len() / SAMPLES_A_FRAME + way.slack_frames).min(WINDOW_FRAMES);
        params.set_audio_ctx(i32::try_from(frames).unwrap_or(0)); // 0: the whole window
        params.set_suppress_blank(true);
        params.set_print_special(false);
        params.set_print_progress(false);
        params.set_print_realtime(false);
        params.set_print_timestamps(false);
        state.full(params, &audio).map_err(failed("reading"))?;
        let mut text = Zeroizing::new(String::new());
        for segment in state.as_iter() {
            text.push_str(&segment.to_str_lossy().map_err(failed("reading"))?);
        }
        Ok(text)
    }
}

impl AnswerEngine for WhisperWords {
    fn read_answer(&self, utterance: &Utterance) -> Result<Answer, SpeechError> {
        if utterance.total_ms <= SHORT_ANSWER_MS {
            let answer = answer_in(&self.read(utterance, SHORTLY)?);
            if answer != Answer::Unclear {
                return Ok(answer);
            }
        }
        Ok(answer_in(&self.read_text(utterance)?))
    }
}
