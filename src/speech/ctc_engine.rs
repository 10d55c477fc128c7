//! Numbers by the digit head: Whisper's encoder, the head's posteriors, and CTC's exact arithmetic on them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::config::NumberConfig;
use super::ctc::{Listing, Posteriors};
use super::encoder::Encoder;
use super::head::Head;
use super::model_file::ModelFile;
use super::{FreeReading, Heard, NumberEngine, SpeechError, Utterance};
use crate::decision::calibration::{CalibrationError, NumberCalibration, Threshold};
use crate::decision::{Calibration, CardEvidence, NumberEvidence, PhraseEvidence, VoiceAccepted};
use crate::ids::CardId;
use crate::media::frame::SampleRate;
use crate::media::resample::resample_whole;
use crate::secret::Pan;

/// Less than this holds no digit: a tenth of a second.
const AUDIO_MIN_SAMPLES: usize = 1_600;
/// Whisper's window: 30 s.
const AUDIO_MAX_SAMPLES: usize = 480_000;
/// Prefixes that the search for the likeliest strings may open; a clear number of 16 digits takes about 20.
const SEARCH_MAX_STEPS: usize = 1_200;
/// Strings that have a probability of their own in the search's answer: the best and its best rival.
const STRINGS_PROVEN: usize = 2;
/// A string of a length that the customer's cards have is preferred to a likelier one of another length up to this, in nats.
const LENGTH_PREFERENCE_NATS: f64 = 2.0;
/// Ratios beyond this say nothing more, in nats.
const LOG_RATIO_LIMIT: f64 = 100.0;

/// The encoder and the head, loaded.
pub struct CtcNumberEngine {
    encoder: Encoder,
    head: Head,
    /// Encoder and head by name.
    name: String,
    calibration: NumberCalibration,
    calibration_version: String,
    running: AtomicUsize,
    max_at_once: usize,
}

impl std::fmt::Debug for CtcNumberEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CtcNumberEngine({}, at most {} at once)", self.name, self.max_at_once)
    }
}

impl CtcNumberEngine {
    /// From Whisper's ggml file, with the head that this program was built with. Without a calibration of its own yet: see
    /// [`NumberEngine::calibrate`].
    pub fn load(encoder: &Path, config: &NumberConfig) -> Result<Self, SpeechError> {
        match &config.head {
            None => Self::with_head(encoder, super::shipped::HEAD, Path::new("models/digits/head.safetensors"), config),
            Some(path) => {
                let head = std::fs::read(path).map_err(|e| SpeechError::Head { path: path.clone(), why: e.to_string() })?;
                Self::with_head(encoder, &head, path, config)
            }
        }
    }

    /// From Whisper's ggml file and a head's bytes; `named`: what errors call the head.
    pub fn with_head(encoder: &Path, head: &[u8], named: &Path, config: &NumberConfig) -> Result<Self, SpeechError> {
        let file = ModelFile::open(encoder)?;
        let refused = |why: String| SpeechError::Head { path: named.to_owned(), why };
        let digest = hex::encode(Sha256::digest(head));
        let head = Head::read(head).map_err(refused)?;
        let (wants, wants_sha256) = &head.encoder;
        let sha256 = file.sha256();
        if *wants_sha256 != sha256 {
            let why = format!("it was trained on the encoder {wants} ({wants_sha256}), {} is {sha256}", encoder.display());
            return Err(refused(why));
        }
        if head.width != file.width() {
            return Err(refused(format!("it takes states of {} numbers, {wants} gives {}", head.width, file.width())));
        }
        let encoder =
            Encoder::load(&file, &head.patches).map_err(|why| SpeechError::ModelCorrupt { path: encoder.to_owned(), why })?;
        let name = format!("ctc-{}-{}", wants.trim_start_matches("whisper-"), digest.get(..8).unwrap_or_default());
        Ok(Self {
            calibration: uncalibrated(&name),
            calibration_version: "none".to_owned(),
            encoder,
            head,
            name,
            running: AtomicUsize::new(0),
            max_at_once: config.max_at_once.max(1),
        })
    }

    fn turn(&self) -> Result<Turn<'_>, SpeechError> {
        let turn = Turn(&self.running);
        if self.running.fetch_add(1, Ordering::AcqRel) >= self.max_at_once {
            return Err(SpeechError::Overloaded { limit: self.max_at_once });
        }
        Ok(turn)
    }

    fn posteriors(&self, utterance: &Utterance) -> Result<Posteriors, SpeechError> {
        let samples = utterance.samples_16k.as_slice();
        if samples.len() < AUDIO_MIN_SAMPLES {
            return Err(SpeechError::Unusable("it is too short"));
        }
        if samples.len() > AUDIO_MAX_SAMPLES {
            return Err(SpeechError::Unusable("it is longer than 30 s"));
        }
        let samples = if utterance.wide { Cow::Owned(telephone_band(samples)) } else { Cow::Borrowed(samples) };
        let states = self.encoder.states(&samples, &self.head.padding, &self.head.taps)?;
        if let Cow::Owned(mut narrowed) = samples {
            zeroize::Zeroize::zeroize(&mut narrowed);
        }
        let log_probs = self.head.log_probs(&states).map_err(|e| SpeechError::Network(e.to_string()))?;
        let tokens = self.head.lexicon.tokens();
        Posteriors::from_log(&log_probs, tokens).ok_or_else(|| SpeechError::Network("the head gave no probabilities".to_owned()))
    }

    /// The numbers that the likeliest token strings say.
    fn known(&self, posteriors: Posteriors) -> Known {
        let lexicon = &self.head.lexicon;
        let listing = posteriors.likeliest(SEARCH_MAX_STEPS, |found, unseen| {
            found.iter().filter(|f| f.probability >= unseen).take(STRINGS_PROVEN).count() == STRINGS_PROVEN
        });
        let Listing { found, unseen, steps: _ } = listing;
        let mut by_digits: BTreeMap<Vec<u8>, Number> = BTreeMap::new();
        for string in found {
            for digits in lexicon.readings(&string.tokens) {
                let number = by_digits.entry(digits.to_vec()).or_insert_with(|| Number {
                    digits,
                    tokens: string.tokens.clone(),
                    probability: 0.0,
                });
                number.probability += string.probability;
            }
        }
        let mut numbers: Vec<Number> = Vec::with_capacity(by_digits.len());
        for (mut key, number) in by_digits {
            zeroize::Zeroize::zeroize(&mut key);
            numbers.push(number);
        }
        numbers.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        Known { posteriors, numbers, unseen }
    }

    fn log_ratio(&self, known: &Known, digits: &[u8]) -> f32 {
        let own = known.posteriors.probability_of(&self.head.lexicon.ways(digits));
        // What the search did not get to see counts as a rival: where it ran out of steps, nothing is accepted that it can't vouch for.
        let rival = known.numbers.iter().find(|n| n.digits.as_slice() != digits).map_or(0.0, |n| n.probability);
        bounded(own.ln() - rival.max(known.unseen).ln())
    }
}

/// An utterance, heard.
struct Known {
    posteriors: Posteriors,
    /// The likeliest first.
    numbers: Vec<Number>,
    /// No number that is not among them is likelier.
    unseen: f64,
}

struct Number {
    digits: Zeroizing<Vec<u8>>,
    /// The likeliest way of saying it.
    tokens: Zeroizing<Vec<u8>>,
    probability: f64,
}

/// Counts down when the call ends, however it ends.
struct Turn<'a>(&'a AtomicUsize);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Ratios as they are, for measuring and for making a calibration; the service never runs on it.
fn uncalibrated(name: &str) -> NumberCalibration {
    NumberCalibration { engine: name.to_owned(), bias: 0.0, slope: 1.0, thresholds: vec![Threshold { far: 0.001, llr: 0.0 }] }
}

#[allow(clippy::as_conversions, clippy::cast_possible_truncation)] // bounded to a few hundred
fn bounded(log: f64) -> f32 {
    if log.is_nan() { -LOG_RATIO_LIMIT as f32 } else { log.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT) as f32 }
}

/// What a telephone would leave of it: the head has heard nothing else.
fn telephone_band(samples_16k: &[f32]) -> Vec<f32> {
    let mut narrow = resample_whole(samples_16k, SampleRate::HZ_16000, SampleRate::HZ_8000);
    let out = resample_whole(&narrow, SampleRate::HZ_8000, SampleRate::HZ_16000);
    zeroize::Zeroize::zeroize(&mut narrow);
    out
}

impl NumberEngine for CtcNumberEngine {
    fn name(&self) -> &str {
        &self.name
    }

    fn calibrate(&mut self, by: &Calibration) -> Result<(), CalibrationError> {
        self.calibration = by.number_for(&self.name)?.clone();
        self.calibration_version.clone_from(&by.version);
        Ok(())
    }

    fn hear(&self, utterance: &Utterance) -> Result<Heard, SpeechError> {
        let _turn = self.turn()?;
        Ok(Heard::new(self.known(self.posteriors(utterance)?)))
    }

    fn read_free(&self, heard: &Heard, lengths: &[usize]) -> Result<FreeReading, SpeechError> {
        let known: &Known = heard.inside()?;
        let best = known.numbers.first().ok_or(SpeechError::Unusable("nothing was found"))?;
        let floor = best.probability * (-LENGTH_PREFERENCE_NATS).exp();
        let fits = |n: &&Number| lengths.contains(&n.digits.len()) && n.probability >= floor;
        let best = known.numbers.iter().find(fits).unwrap_or(best);
        let (mut sum, mut smallest, mut count) = (0.0f64, f64::INFINITY, 0.0f64);
        for i in 0..=best.tokens.len() {
            let Some((before, rest)) = best.tokens.split_at_checked(i) else { break };
            let chosen = usize::from(rest.first().copied().unwrap_or(0)); // the blank's place: the end
            let next = known.posteriors.after(before);
            let taken = next.get(chosen).copied().unwrap_or(0.0);
            let other = next.iter().enumerate().filter(|(c, _)| *c != chosen).map(|(_, p)| *p).fold(0.0, f64::max);
            let margin = f64::from(bounded(taken.ln() - other.ln()));
            sum += margin;
            smallest = smallest.min(margin);
            count += 1.0;
        }
        Ok(FreeReading {
            digits: best.digits.clone(),
            log_prob: bounded(best.probability.ln()),
            mean_margin: bounded(sum / count.max(1.0)),
            min_margin: bounded(smallest),
        })
    }

    fn score(&self, _voice: &VoiceAccepted, heard: &Heard, authorised: &[(CardId, Pan)]) -> Result<NumberEvidence, SpeechError> {
        let known: &Known = heard.inside()?;
        let evidence = |(card, pan): &(CardId, Pan)| {
            let log_ratio = self.log_ratio(known, pan.digits());
            CardEvidence { card: card.clone(), log_ratio, llr: self.calibration.llr(log_ratio) }
        };
        Ok(NumberEvidence::Spoken {
            cards: authorised.iter().map(evidence).collect(),
            engine: self.name.clone(),
            calibration: self.calibration_version.clone(),
        })
    }

    fn score_phrase(&self, heard: &Heard, digits: &[u8]) -> Result<PhraseEvidence, SpeechError> {
        let log_ratio = self.log_ratio(heard.inside()?, digits);
        Ok(PhraseEvidence {
            log_ratio,
            llr: self.calibration.llr(log_ratio),
            engine: self.name.clone(),
            calibration: self.calibration_version.clone(),
        })
    }

    fn score_strings(&self, heard: &Heard, strings: &[Vec<u8>], _within: f32) -> Result<Vec<f32>, SpeechError> {
        let known: &Known = heard.inside()?;
        let log = |s: &Vec<u8>| bounded(known.posteriors.probability_of(&self.head.lexicon.ways(s)).ln());
        Ok(strings.iter().map(log).collect())
    }
}
