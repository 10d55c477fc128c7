//! Whisper (whisper.cpp by whisper-rs) behind the two traits. One context holds the weights; each call makes a state of its own,
//! uses one thread and drops it: whisper.cpp's barriers collapse when threads outnumber cores, several calls at once do not.
//!
//! Numbers are heard by a second context with the vocabulary cut down (see `model_file`).

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use whisper_rs::{
    FullParams, SamplingStrategy, WhisperContext, WhisperContextParameters, WhisperError, WhisperState, WhisperTokenId,
};
use zeroize::Zeroizing;

use crate::decision::calibration::CalibrationError;
use crate::decision::{Answer, Calibration, NumberEvidence, PhraseEvidence, VoiceAccepted};
use crate::ids::CardId;
use crate::language::Language;
use crate::secret::Pan;

use super::answer::answer_in;
use super::at_once::AtOnce;
use super::config::NumberConfig;
use super::decode::{CHOICES, END, NextDigit, Walk, log_softmax};
use super::evidence::Witness;
use super::model_file::ModelFile;
use super::{AnswerEngine, FreeReading, Heard, NumberEngine, SpeechError, Utterance};

/// whisper.cpp refuses less than 100 ms and reads 200 samples past the start; a second is what it was trained to hear at least.
const AUDIO_MIN_SAMPLES: usize = 16_000;
/// Whisper's window.
const AUDIO_MAX_SAMPLES: usize = 480_000;
/// The encoder's frames: 20 ms.
const SAMPLES_A_FRAME: usize = 320;
/// Frames of the whole window.
const WINDOW_FRAMES: usize = 1_500;
/// Silence that plain reading sees behind a short answer: half the whole window's time. With 2 s it loops ("yes yes yes …").
const ANSWER_SLACK_FRAMES: usize = 750;
/// Model steps that free reading may take: a clear number of 16 digits takes about 20.
const FREE_MAX_STEPS: usize = 120;
/// Model steps for the best rival of each authorised number, the number itself not counted.
const RIVAL_MAX_STEPS: usize = 250;

/// A prompt takes room from the decoder's context.
const PROMPT_MAX_TOKENS: usize = 64;

/// Whisper, loaded.
pub struct WhisperEngine {
    /// Whole vocabulary: answers.
    words: WhisperContext,
    /// Cut vocabulary: numbers.
    digits: WhisperContext,
    /// What the decoder is given before the number, as tokens of the cut vocabulary.
    prompt: Vec<WhisperTokenId>,
    at_once: AtOnce,
    language: Language,
    tuning: Tuning,
    /// Which Whisper, and what judges its ratios.
    witness: Witness,
}

/// What was found best by measuring; other values are for measuring again.
#[derive(Clone, Copy, Debug)]
struct Tuning {
    /// Frames (20 ms) of silence that the encoder sees behind the audio; `None`: the whole 30 s.
    window_slack_frames: Option<usize>,
    /// Text that the decoder is told came before.
    prompt: &'static str,
}

/// Measured on dev (`measure` below, μ-law): 2 s behind the audio cost a third of the whole window's time and read as well (26 and 28
/// of the same 33 numbers exact, the authorised one within 3 of the best in 32 of both); with less, Whisper loops.
const TUNED: Tuning = Tuning { window_slack_frames: Some(100), prompt: "" };

impl std::fmt::Debug for WhisperEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WhisperEngine({}, at most {} at once)", self.witness.engine(), self.at_once.limit())
    }
}

impl WhisperEngine {
    /// From a ggml file, with the default limits.
    pub fn load(path: &Path) -> Result<Self, SpeechError> {
        Self::load_with(path, &NumberConfig::default())
    }

    /// From a ggml file, to hear English.
    pub fn load_with(path: &Path, config: &NumberConfig) -> Result<Self, SpeechError> {
        Self::load_for(Language::English, path, config)
    }

    /// From a ggml file, to hear this language; refused if the model knows English alone and it is another.
    pub fn load_for(language: Language, path: &Path, config: &NumberConfig) -> Result<Self, SpeechError> {
        Self::load_tuned(language, path, config, TUNED)
    }

    fn load_tuned(language: Language, path: &Path, config: &NumberConfig, tuning: Tuning) -> Result<Self, SpeechError> {
        whisper_rs::install_logging_hooks();
        let file = ModelFile::open(path)?;
        let corrupt = |why: &str| SpeechError::ModelCorrupt { path: path.to_owned(), why: why.to_owned() };
        let load = |bytes: &[u8]| {
            WhisperContext::new_from_buffer_with_params(bytes, WhisperContextParameters::default())
                .map_err(|_| corrupt("whisper.cpp can't load it"))
        };
        let words = load(file.bytes())?;
        if language != Language::English && !words.is_multilingual() {
            return Err(corrupt("it knows English alone; whisper-base is needed: `voicepay models fetch --all`"));
        }
        let (keep, prompt) =
            kept_tokens(&file, &words, language, tuning.prompt).ok_or_else(|| corrupt("its vocabulary lacks the digits"))?;
        let digits = load(&file.cut(&keep).ok_or_else(|| corrupt("its vocabulary can't be cut"))?)?;
        let name = if words.is_multilingual() { "whisper-multilingual" } else { "whisper-english" };
        let shipped = Calibration::compiled_in().map_err(corrupt)?;
        let calibration = shipped.number_for(name).map_err(|e| corrupt(&e.to_string()))?.clone();
        Ok(Self {
            words,
            digits,
            prompt,
            at_once: AtOnce::new(config.max_at_once),
            language,
            tuning,
            witness: Witness::new(calibration, &shipped.version),
        })
    }

    /// What was said, as plain text. May hold a card number: don't log it.
    pub fn read_text(&self, utterance: &Utterance) -> Result<Zeroizing<String>, SpeechError> {
        let _turn = self.at_once.begin()?;
        let audio = padded(utterance)?;
        let mut state = self.words.create_state().map_err(failed("making room"))?;
        let mut params = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
        params.set_n_threads(1);
        params.set_language(Some(self.language.code()));
        params.set_no_context(true);
        params.set_no_timestamps(true);
        params.set_single_segment(true);
        params.set_temperature(0.0);
        params.set_temperature_inc(0.0);
        params.set_max_tokens(48);
        let frames = (audio.len() / SAMPLES_A_FRAME + ANSWER_SLACK_FRAMES).min(WINDOW_FRAMES);
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

    /// Encodes and feeds the prompt.
    fn encode(&self, utterance: &Utterance) -> Result<Walk<Encoded>, SpeechError> {
        let audio = padded(utterance)?;
        let mut state = self.digits.create_state().map_err(failed("making room"))?;
        if let Some(slack) = self.tuning.window_slack_frames {
            let need = audio.len() / SAMPLES_A_FRAME + slack;
            shorten(&mut state, need.min(WINDOW_FRAMES))?;
        }
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

/// Which tokens the cut vocabulary keeps, the ten digits and the end first, and the prompt in its terms.
fn kept_tokens(
    file: &ModelFile,
    words: &WhisperContext,
    language: Language,
    text: &str,
) -> Option<(Vec<usize>, Vec<WhisperTokenId>)> {
    // English digits are written apart, Mandarin ones together.
    let written = |d: u8| match language {
        Language::English => format!(" {d}"),
        Language::Mandarin => d.to_string(),
    };
    let mut keep: Vec<usize> = (0..10).map(|d| file.token(&written(d))).collect::<Option<_>>()?;
    keep.push(usize::try_from(words.token_eot()).ok()?);
    let mut start = Vec::new();
    if !text.is_empty() {
        start.push(words.token_prev());
        start.extend(words.tokenize(text, PROMPT_MAX_TOKENS).ok()?);
    }
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

impl NumberEngine for WhisperEngine {
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

impl AnswerEngine for WhisperEngine {
    fn read_answer(&self, utterance: &Utterance) -> Result<Answer, SpeechError> {
        Ok(answer_in(&self.read_text(utterance)?))
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
        let engine = WhisperEngine::load(&path).unwrap();
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

#[cfg(test)]
mod measure {
    use super::*;
    use crate::media::frame::SampleRate;

    fn neighbours(s: &[u8]) -> Vec<(char, Vec<u8>)> {
        let mut out = Vec::new();
        for i in 0..s.len() {
            for d in 0..10 {
                if d != s[i] {
                    let mut n = s.to_vec();
                    n[i] = d;
                    out.push(('s', n));
                }
            }
            if i + 1 < s.len() && s[i] != s[i + 1] {
                let mut n = s.to_vec();
                n.swap(i, i + 1);
                out.push(('t', n));
            }
            let mut n = s.to_vec();
            n.remove(i);
            out.push(('d', n));
            let mut n = s.to_vec();
            n.insert(i, s[i]);
            out.push(('i', n));
        }
        out
    }

    #[test]
    #[ignore = "measures"]
    #[allow(clippy::disallowed_methods)]
    fn figures() {
        struct Instant(u64);
        impl Instant {
            fn cpu() -> u64 {
                std::fs::read_to_string("/proc/thread-self/schedstat").unwrap().split(' ').next().unwrap().parse().unwrap()
            }
            fn now() -> Self {
                Self(Self::cpu())
            }
            fn elapsed(&self) -> std::time::Duration {
                std::time::Duration::from_nanos(Self::cpu() - self.0)
            }
        }
        let dir = std::env::var("DIR").unwrap();
        let limit: usize = std::env::var("LIMIT").map_or(1000, |v| v.parse().unwrap());
        let full = std::env::var("FULL").is_ok();
        let model = std::env::var("MODEL").unwrap_or("whisper-tiny.en.ggml.bin".into());
        let t = Instant::now();
        let tuning = Tuning {
            window_slack_frames: std::env::var("SLACK").ok().map(|v| v.parse().unwrap()),
            prompt: std::env::var("PROMPT").map_or("", |p| p.leak()),
        };
        let path = crate::models::cache_dir().join(model);
        let language = std::env::var("LANGUAGE").map_or(Language::English, |l| Language::from_code(&l).unwrap());
        let engine = WhisperEngine::load_tuned(language, &path, &NumberConfig::default(), tuning).unwrap();
        println!("load {:?}", t.elapsed());
        let index = std::fs::read_to_string(format!("{dir}/index.csv")).unwrap();
        let (mut exact, mut n) = (0, 0);
        for line in index.lines().skip(1).take(limit) {
            let f: Vec<&str> = line.split(',').collect();
            let mut r = hound::WavReader::open(format!("{dir}/{}.wav", f[0])).unwrap();
            let samples: Vec<i16> = r.samples().map(|s| s.unwrap()).collect();
            let u = Utterance::from_recording(&samples, SampleRate::new(r.spec().sample_rate).unwrap());
            let said: Vec<u8> = f[2].bytes().map(|b| b - b'0').collect();
            let t0 = Instant::now();
            let mut walk = engine.encode(&u).unwrap();
            let t_enc = t0.elapsed();
            let best = walk.best_except(&[], FREE_MAX_STEPS).unwrap().unwrap();
            let (t_free, s_free) = (t0.elapsed() - t_enc, walk.steps());
            let t1 = Instant::now();
            let own = walk.log_prob(&said).unwrap();
            let rival = walk.best_except(&[&said], RIVAL_MAX_STEPS).unwrap().unwrap();
            let (t_score, s_score) = (t1.elapsed(), walk.steps() - s_free);
            n += 1;
            let ok = *best.digits == said;
            exact += usize::from(ok);
            let show = |d: &[u8]| d.iter().map(|d| char::from(b'0' + d)).collect::<String>();
            let mut near = String::new();
            if full {
                let t2 = Instant::now();
                let ns = neighbours(&said);
                let mut strings: Vec<Vec<u8>> = ns.iter().map(|n| n.1.clone()).collect();
                strings.sort();
                strings.dedup();
                let top = strings
                    .iter()
                    .map(|s| walk.log_prob_from(s, best.log_prob - 6.0).unwrap() - best.log_prob)
                    .collect::<Vec<_>>();
                let worst = top.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let over = |x: f32| top.iter().filter(|t| **t >= x).count();
                near = format!(
                    " worst {worst:.2} n {} ge-1:{} ge-2:{} ge-3:{} ge-5:{} ms {}",
                    top.len(),
                    over(-1.),
                    over(-2.),
                    over(-3.),
                    over(-5.),
                    t2.elapsed().as_millis()
                );
            }
            if let Ok(auth) = std::env::var("AUTH") {
                let auth: Vec<u8> = auth.bytes().map(|b| b - b'0').collect();
                let own = walk.log_prob(&auth).unwrap();
                let rival = walk.best_except(&[&auth], RIVAL_MAX_STEPS).unwrap().unwrap();
                near += &format!(" AUTH {:.2}", own - rival.log_prob);
            }
            println!(
                "{} {} said {} read {} lp {:.2} own {:.2} ratio {:.2} rival {} enc {} free {}/{} score {}/{}{near}",
                if ok { "ok " } else { "BAD" },
                f[0],
                f[2],
                show(&best.digits),
                best.log_prob,
                own,
                own - rival.log_prob,
                show(&rival.digits),
                t_enc.as_millis(),
                t_free.as_millis(),
                s_free,
                t_score.as_millis(),
                s_score
            );
        }
        println!("exact {exact} of {n}");
    }
}
