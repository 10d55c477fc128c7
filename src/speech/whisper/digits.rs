//! Whisper as a reader of digit strings: a context whose vocabulary is cut down to the digits (see `model_file`), asked for the
//! probability of each next digit. Exact search over these; one state a call, one thread.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use whisper_rs::{FullParams, SamplingStrategy, WhisperContext, WhisperState, WhisperTokenId};
use zeroize::Zeroizing;

use super::super::at_once::AtOnce;
use super::super::config::NumberConfig;
use super::super::decode::{CHOICES, END, NextDigit, Walk, log_softmax};
use super::super::evidence::Witness;
use super::super::model_file::ModelFile;
use super::super::{FreeReading, Heard, NumberEngine, SpeechError, Utterance};
use super::{AUDIO_MIN_SAMPLES, SAMPLES_A_FRAME, WINDOW_FRAMES, WhisperWords, corrupt, failed, padded};
use crate::decision::calibration::CalibrationError;
use crate::decision::{Calibration, NumberEvidence, PhraseEvidence, VoiceAccepted};
use crate::ids::CardId;
use crate::language::Language;
use crate::secret::Pan;

/// Model steps that free reading may take: a clear number of 16 digits takes about 20.
const FREE_MAX_STEPS: usize = 120;
/// Model steps for the best rival of each authorised number, the number itself not counted.
const RIVAL_MAX_STEPS: usize = 250;
/// Silence that the encoder sees behind the audio. Measured on dev (`eval number` with `number.engine = "whisper"`, μ-law): 2 s cost a
/// third of the whole window's time and read as well (26 and 28 of the same 33 numbers exact, the authorised one within 3 of the
/// best in 32 of both); with less, Whisper loops.
const SLACK_FRAMES: usize = 100;

/// Whisper as a reader of digit strings.
pub struct WhisperNumbers {
    context: WhisperContext,
    /// What the decoder is given before the number, as tokens of the cut vocabulary.
    prompt: Vec<WhisperTokenId>,
    at_once: AtOnce,
    /// Which Whisper, and what judges its ratios.
    witness: Witness,
}

impl std::fmt::Debug for WhisperNumbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WhisperNumbers({}, at most {} at once)", self.witness.engine(), self.at_once.limit())
    }
}

impl WhisperNumbers {
    /// From a ggml file, to hear this language; refused if the model knows English alone and it is another.
    pub fn load(language: Language, path: &Path, config: &NumberConfig) -> Result<Self, SpeechError> {
        let file = ModelFile::open(path)?;
        let words = super::context(path, file.bytes(), language)?;
        Self::cut_from(&file, &words, language, path, config)
    }

    /// The same for whoever has the whole model already: its vocabulary names the tokens that are kept.
    pub fn load_beside(words: &WhisperWords, path: &Path, config: &NumberConfig) -> Result<Self, SpeechError> {
        Self::cut_from(&ModelFile::open(path)?, words.context(), words.language(), path, config)
    }

    fn cut_from(
        file: &ModelFile,
        words: &WhisperContext,
        language: Language,
        path: &Path,
        config: &NumberConfig,
    ) -> Result<Self, SpeechError> {
        let corrupt = |why: &str| corrupt(path, why);
        let kept = kept_tokens(file, words, language);
        let (keep, prompt) = kept.ok_or_else(|| corrupt("its vocabulary lacks the digits"))?;
        let cut = file.cut(&keep).ok_or_else(|| corrupt("its vocabulary can't be cut"))?;
        let name = if words.is_multilingual() { "whisper-multilingual" } else { "whisper-english" };
        let shipped = Calibration::compiled_in().map_err(corrupt)?;
        let calibration = shipped.number_for(name).map_err(|e| corrupt(&e.to_string()))?.clone();
        Ok(Self {
            context: super::load(path, &cut)?,
            prompt,
            at_once: AtOnce::new(config.max_at_once),
            witness: Witness::new(calibration, &shipped.version),
        })
    }

    /// Encodes and feeds the prompt.
    fn encode(&self, utterance: &Utterance) -> Result<Walk<Encoded>, SpeechError> {
        let audio = padded(utterance)?;
        let mut state = self.context.create_state().map_err(failed("making room"))?;
        shorten(&mut state, (audio.len() / SAMPLES_A_FRAME + SLACK_FRAMES).min(WINDOW_FRAMES))?;
        state.pcm_to_mel(&audio, 1).map_err(failed("making the spectrogram"))?;
        state.encode(0, 1).map_err(failed("encoding"))?;
        let (last, before) = self.prompt.split_last().ok_or(SpeechError::Unusable("the prompt is empty"))?;
        state.decode(before, 0, 1).map_err(failed("decoding"))?;
        Ok(Walk::new(Encoded { state, base: before.len(), last: *last, cached: Zeroizing::new(Vec::new()) }))
    }
}

/// Lets the encoder see only the first `frames` frames of the window. whisper.cpp takes that from the parameters of its full pipeline
/// alone, so that is run on 100 ms, which it sets the window by and then finds too short to encode.
fn shorten(state: &mut WhisperState, frames: usize) -> Result<(), SpeechError> {
    let frames = i32::try_from(frames).unwrap_or(0); // 0: the whole window
    let mut params = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
    params.set_n_threads(1);
    params.set_language(Some("en"));
    params.set_audio_ctx(frames);
    params.set_duration_ms(100);
    state.full(params, &[0.0; AUDIO_MIN_SAMPLES]).map_err(failed("setting the window"))
}

/// Which tokens the cut vocabulary keeps, the ten digits and the end first, and the prompt in its terms.
fn kept_tokens(file: &ModelFile, words: &WhisperContext, language: Language) -> Option<(Vec<usize>, Vec<WhisperTokenId>)> {
    // English digits are written apart, Mandarin ones together.
    let written = |d: u8| match language {
        Language::English => format!(" {d}"),
        Language::Mandarin => d.to_string(),
    };
    let mut keep: Vec<usize> = (0..10).map(|d| file.token(&written(d))).collect::<Option<_>>()?;
    keep.push(usize::try_from(words.token_eot()).ok()?);
    let mut start = Vec::new();
    start.push(words.token_sot());
    if words.is_multilingual() {
        start.push(words.token_lang(whisper_rs::get_lang_id(language.code())?));
        start.push(words.token_transcribe());
    }
    start.push(words.token_not());
    let mut prompt = Vec::with_capacity(start.len());
    for token in start {
        let token = usize::try_from(token).ok()?;
        let at = keep.iter().position(|k| *k == token).unwrap_or_else(|| {
            keep.push(token);
            keep.len() - 1
        });
        prompt.push(i32::try_from(at).ok()?);
    }
    Some((keep, prompt))
}

/// An encoded utterance: whisper.cpp's decoder with its cache of one prefix.
struct Encoded {
    state: WhisperState,
    /// Prompt tokens in the cache.
    base: usize,
    /// The prompt's last token, decoded with the empty prefix.
    last: WhisperTokenId,
    /// Digits whose keys and values are in the cache, behind the prompt.
    cached: Zeroizing<Vec<u8>>,
}

impl NextDigit for Encoded {
    type Error = SpeechError;

    fn next(&mut self, prefix: &[u8]) -> Result<[f32; CHOICES], SpeechError> {
        let common = self.cached.iter().zip(prefix).take_while(|(a, b)| a == b).count();
        // whisper-rs lends the first row of logits, which is filled only when a single token is decoded: the last goes alone.
        let known = common.min(prefix.len().saturating_sub(1));
        let mut at = self.base + if prefix.is_empty() { 0 } else { known + 1 };
        let tokens: Zeroizing<Vec<WhisperTokenId>> =
            Zeroizing::new(prefix.iter().skip(known).map(|d| WhisperTokenId::from(*d)).collect());
        let (last, before) = tokens.split_last().map_or((self.last, &[][..]), |(l, b)| (*l, b));
        if !before.is_empty() {
            self.state.decode(before, at, 1).map_err(failed("decoding"))?;
            at += before.len();
        }
        self.state.decode(&[last], at, 1).map_err(failed("decoding"))?;
        self.cached.clear();
        self.cached.extend_from_slice(prefix);
        let logits = self.state.get_logits().map_err(failed("decoding"))?;
        let mut choices = [f32::NEG_INFINITY; CHOICES];
        for (choice, logit) in choices.iter_mut().zip(logits) {
            *choice = *logit;
        }
        Ok(log_softmax(choices))
    }
}

/// The walk that an utterance is read and scored by; one at a time, as the decoder's cache is one.
struct Walked(Mutex<Walk<Encoded>>);

impl Walked {
    fn of(heard: &Heard) -> Result<MutexGuard<'_, Walk<Encoded>>, SpeechError> {
        let walked: &Self = heard.inside()?;
        // A panic in between leaves decoder and cache at odds.
        walked.0.lock().map_err(|_poisoned| SpeechError::Unusable("an earlier reading of it failed"))
    }
}

/// log P(digits) − log P(best other string of any length).
fn log_ratio(walk: &mut Walk<Encoded>, digits: &[u8]) -> Result<f32, SpeechError> {
    let own = walk.log_prob(digits)?;
    let rival = walk.best_except(&[digits], RIVAL_MAX_STEPS)?;
    // A search that ran out of steps may have missed a better rival: then what it may have missed counts as one.
    Ok(own - rival.map_or(f32::INFINITY, |r| r.log_prob).max(walk.left_open()))
}

impl NumberEngine for WhisperNumbers {
    fn name(&self) -> &str {
        self.witness.engine()
    }

    fn calibrate(&mut self, by: &Calibration) -> Result<(), CalibrationError> {
        self.witness.calibrate(by)
    }

    fn hear(&self, utterance: &Utterance) -> Result<Heard, SpeechError> {
        let _turn = self.at_once.begin()?;
        Ok(Heard::new(Walked(Mutex::new(self.encode(utterance)?))))
    }

    fn read_free(&self, heard: &Heard, _lengths: &[usize]) -> Result<FreeReading, SpeechError> {
        let _turn = self.at_once.begin()?;
        let mut walk = Walked::of(heard)?;
        let best = walk.best_except(&[], FREE_MAX_STEPS)?.ok_or(SpeechError::Unusable("no end of the number was found"))?;
        let (mut sum, mut smallest, mut count) = (0.0f32, f32::INFINITY, 0.0f32);
        for i in 0..=best.digits.len() {
            let Some((prefix, rest)) = best.digits.split_at_checked(i) else { break };
            let chosen = rest.first().map_or(END, |d| usize::from(*d));
            let next = walk.after(prefix)?;
            let taken = next.get(chosen).copied().unwrap_or(f32::NEG_INFINITY);
            let other = next.iter().enumerate().filter(|(c, _)| *c != chosen).map(|(_, l)| *l).fold(f32::NEG_INFINITY, f32::max);
            sum += taken - other;
            smallest = smallest.min(taken - other);
            count += 1.0;
        }
        Ok(FreeReading { log_prob: best.log_prob, mean_margin: sum / count.max(1.0), min_margin: smallest, digits: best.digits })
    }

    fn score(&self, _voice: &VoiceAccepted, heard: &Heard, authorised: &[(CardId, Pan)]) -> Result<NumberEvidence, SpeechError> {
        let _turn = self.at_once.begin()?;
        let mut walk = Walked::of(heard)?;
        let mut ratios = Vec::with_capacity(authorised.len());
        for (card, pan) in authorised {
            ratios.push((card.clone(), log_ratio(&mut walk, pan.digits())?));
        }
        Ok(self.witness.number(ratios.into_iter()))
    }

    fn score_phrase(&self, heard: &Heard, digits: &[u8]) -> Result<PhraseEvidence, SpeechError> {
        let _turn = self.at_once.begin()?;
        Ok(self.witness.phrase(log_ratio(&mut *Walked::of(heard)?, digits)?))
    }

    fn score_strings(&self, heard: &Heard, strings: &[Vec<u8>], within: f32) -> Result<Vec<f32>, SpeechError> {
        let _turn = self.at_once.begin()?;
        let mut walk = Walked::of(heard)?;
        let best = walk.best_except(&[], FREE_MAX_STEPS)?.map_or(0.0, |b| b.log_prob);
        let mut order: Vec<(usize, &Vec<u8>)> = strings.iter().enumerate().collect();
        order.sort_by_key(|(_, s)| *s);
        let mut scores = vec![f32::NEG_INFINITY; strings.len()];
        for (i, string) in order {
            if let Some(score) = scores.get_mut(i) {
                // Most wrong strings are given up at their first wrong digit, which costs a tenth.
                *score = walk.log_prob_from(string, best - within)?;
            }
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;
    use crate::decision::{Policy, Tightening, VoiceScore, VoiceVerdict, judge_voice};
    use crate::media::frame::SampleRate;

    fn fixture(name: &str) -> Utterance {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("audio-fixtures").join(name);
        let mut wav = hound::WavReader::open(&path).unwrap();
        let samples: Vec<i16> = wav.samples().map(Result::unwrap).collect();
        Utterance::from_recording(&samples, SampleRate::new(wav.spec().sample_rate).unwrap())
    }

    fn accepted() -> VoiceAccepted {
        let score = VoiceScore { llr: 9.0, ..VoiceScore::not_compared(9_000, "test") };
        match judge_voice(&Policy::any_voice(), score, &Tightening::default()) {
            VoiceVerdict::Accepted(proof) => proof,
            VoiceVerdict::StepUp(_) | VoiceVerdict::Inconclusive | VoiceVerdict::Rejected => {
                panic!("a perfect voice is accepted")
            }
        }
    }

    #[test]
    fn the_number_said_is_accepted_and_its_near_misses_never() {
        let config = NumberConfig::default();
        let path = crate::models::cache_dir().join(config.model.file_name());
        assert!(path.is_file(), "run `voicepay models fetch`");
        let engine = WhisperNumbers::load(Language::English, &path, &config).unwrap();
        let card = CardId::fresh(&SeededEntropy::new(1));
        let pan = Pan::parse("4929173058162749").unwrap();
        let cards = [(card, pan)];
        let ratio = |name: &str| match engine.score(&accepted(), &engine.hear(&fixture(name)).unwrap(), &cards).unwrap() {
            NumberEvidence::Spoken { cards, .. } => cards[0].log_ratio,
            NumberEvidence::Keyed { .. } => panic!("it was spoken"),
        };
        for said in ["alice/card.wav", "bob/card.wav", "dave/card.wav"] {
            let r = ratio(said);
            assert!(r >= 0.0, "{said}: {r}");
        }
        for near in ["one_digit_off", "swapped", "swapped_luhn", "one_missing", "one_extra", "two_digits_off_luhn", "other"] {
            let r = ratio(&format!("alice/card_{near}.wav"));
            assert!(r < -2.0, "{near}: {r}");
        }
        let free = engine.read_free(&engine.hear(&fixture("alice/card.wav")).unwrap(), &[16]).unwrap();
        assert!(free.is_complete(&[16]) && !format!("{free:?}").contains('4'));
    }
}
