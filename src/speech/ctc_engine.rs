//! Numbers by the digit head: Whisper's encoder, the head's posteriors, and CTC's exact arithmetic on them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::at_once::AtOnce;
use super::config::NumberConfig;
use super::ctc::{Listing, Posteriors};
use super::encoder::Encoder;
use super::evidence::Witness;
use super::head::Head;
use super::model_file::ModelFile;
use super::{FreeReading, Heard, NumberEngine, SpeechError, Utterance};
use crate::decision::calibration::{CalibrationError, NumberCalibration, Threshold};
use crate::decision::{Calibration, NumberEvidence, PhraseEvidence, VoiceAccepted};
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
    /// Encoder and head by name, and what judges their ratios.
    witness: Witness,
    at_once: AtOnce,
}

impl std::fmt::Debug for CtcNumberEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CtcNumberEngine({}, at most {} at once)", self.witness.engine(), self.at_once.limit())
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
        Ok(Self { witness: Witness::new(uncalibrated(&name), "none"), encoder, head, at_once: AtOnce::new(config.max_at_once) })
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

/// Ratios as they are, for measuring and for making a calibration; the service never runs on it.
fn uncalibrated(name: &str) -> NumberCalibration {
    let thresholds = vec![Threshold { far: 0.001, llr: 0.0 }];
    NumberCalibration { engine: name.to_owned(), made_from: String::new(), bias: 0.0, slope: 1.0, thresholds }
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
        self.witness.engine()
    }

    fn calibrate(&mut self, by: &Calibration) -> Result<(), CalibrationError> {
        self.witness.calibrate(by)
    }

    fn hear(&self, utterance: &Utterance) -> Result<Heard, SpeechError> {
        let _turn = self.at_once.begin()?;
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
        let ratio = |(card, pan): &(CardId, Pan)| (card.clone(), self.log_ratio(known, pan.digits()));
        Ok(self.witness.number(authorised.iter().map(ratio)))
    }

    fn score_phrase(&self, heard: &Heard, digits: &[u8]) -> Result<PhraseEvidence, SpeechError> {
        Ok(self.witness.phrase(self.log_ratio(heard.inside()?, digits)))
    }

    fn score_strings(&self, heard: &Heard, strings: &[Vec<u8>], _within: f32) -> Result<Vec<f32>, SpeechError> {
        let known: &Known = heard.inside()?;
        let log = |s: &Vec<u8>| bounded(known.posteriors.probability_of(&self.head.lexicon.ways(s)).ln());
        Ok(strings.iter().map(log).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::clock::SeededEntropy;
    use crate::decision::{Policy, Tightening, VoiceScore, VoiceVerdict, judge_voice};

    fn model() -> PathBuf {
        let path = crate::models::cache_dir().join(NumberConfig::default().model.file_name());
        assert!(path.is_file(), "run `voicepay models fetch`");
        path
    }

    fn engine() -> CtcNumberEngine {
        CtcNumberEngine::load(&model(), &NumberConfig::default()).unwrap()
    }

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
            VoiceVerdict::StepUp(_) | VoiceVerdict::Inconclusive | VoiceVerdict::Rejected => panic!("a perfect voice"),
        }
    }

    fn digits(text: &str) -> Vec<u8> {
        text.bytes().map(|b| b - b'0').collect()
    }

    /// PyTorch's numbers (scripts/digit-head) for a recording of the repository.
    #[test]
    fn states_and_probabilities_are_pytorchs() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../models/digits/golden.json")).unwrap();
        let engine = engine();
        let utterance = fixture("alice/card.wav");
        assert_eq!(golden["samples_16k"], utterance.samples_16k.len());
        let states = engine.encoder.states(&utterance.samples_16k, &engine.head.padding, &engine.head.taps).unwrap();
        let log_probs = engine.head.log_probs(&states).unwrap();
        let near = |what: &str, ours: &[f32], within: f64| {
            let width = ours.len() / usize::try_from(golden["frames"].as_u64().unwrap()).unwrap();
            for (row, theirs) in golden["rows"].as_array().unwrap().iter().zip(golden[what].as_array().unwrap()) {
                let row = usize::try_from(row.as_u64().unwrap()).unwrap();
                let theirs = theirs.as_array().unwrap();
                assert_eq!(theirs.len(), width, "{what}");
                for (a, b) in ours[row * width..].iter().zip(theirs) {
                    let apart = (f64::from(*a) - b.as_f64().unwrap()).abs();
                    assert!(apart < within, "{what} {row}: {a} {b}");
                }
            }
        };
        near("states", &states[0], 2e-3);
        near("log_probs", &log_probs, 2e-3);
        let posteriors = engine.posteriors(&utterance).unwrap();
        let own = posteriors.probability_of(&engine.head.lexicon.ways(&digits("4929173058162749"))).ln();
        assert!((own - golden["log_likelihood"].as_f64().unwrap()).abs() < 1e-3, "{own}");
    }

    #[test]
    fn the_number_said_is_first_and_its_near_misses_never() {
        let engine = engine();
        let voice = accepted();
        let pan = Pan::parse("4929173058162749").unwrap();
        let cards = [(CardId::fresh(&SeededEntropy::new(1)), pan)];
        let ratio = |name: &str| {
            let heard = engine.hear(&fixture(name)).unwrap();
            match engine.score(&voice, &heard, &cards).unwrap() {
                NumberEvidence::Spoken { cards, .. } => cards[0].log_ratio,
                NumberEvidence::Keyed { .. } => panic!("it was spoken"),
            }
        };
        for said in ["alice/card.wav", "alice/card_long_pauses.wav", "bob/card.wav", "dave/card.wav", "erin/card.wav"] {
            assert!(ratio(said) > 0.0, "{said}: {}", ratio(said));
        }
        for near in ["one_digit_off", "swapped", "swapped_luhn", "one_missing", "one_extra", "two_digits_off_luhn", "other"] {
            let r = ratio(&format!("alice/card_{near}.wav"));
            assert!(r < -2.0, "{near}: {r}");
        }
        let heard = engine.hear(&fixture("alice/card.wav")).unwrap();
        let free = engine.read_free(&heard, &[16]).unwrap();
        assert!(free.is_complete(&[16]) && free.min_margin > 0.0 && free.mean_margin >= free.min_margin);
        assert!(!format!("{free:?} {heard:?} {engine:?}").contains("4929"));
        let phrase = engine.score_phrase(&heard, &digits("4929173058162749")).unwrap();
        assert!(phrase.log_ratio > 0.0);
        assert!(engine.score_phrase(&heard, &digits("49291730")).unwrap().log_ratio < -50.0);
        let scores = engine.score_strings(&heard, &[digits("4929173058162749"), digits("4929173058162740")], 5.0).unwrap();
        assert!(scores[0] > scores[1]);
    }

    #[test]
    fn what_holds_no_number_accepts_none() {
        let engine = engine();
        for name in ["alice/yes.wav", "alice/no.wav"] {
            let heard = engine.hear(&fixture(name)).unwrap();
            assert!(!engine.read_free(&heard, &[16]).unwrap().is_complete(&[16]), "{name}");
            assert!(engine.score_phrase(&heard, &digits("4929173058162749")).unwrap().log_ratio < -20.0, "{name}");
        }
        let of = |samples: usize| Utterance::from_recording(&vec![0; samples], SampleRate::HZ_8000);
        let silence = engine.hear(&of(16_000)).unwrap();
        assert!(engine.read_free(&silence, &[16]).unwrap().digits.len() < 4);
        assert!(matches!(engine.hear(&of(400)), Err(SpeechError::Unusable(_))));
        assert!(matches!(engine.hear(&of(248_000)), Err(SpeechError::Unusable(_))));
    }

    #[test]
    fn a_wide_line_is_heard_as_a_telephone_would() {
        let engine = engine();
        let narrow = fixture("alice/card.wav");
        let mut wide = narrow.clone();
        // A whistle at 6 kHz, as no telephone line carries.
        for (i, v) in wide.samples_16k.iter_mut().enumerate() {
            *v += 0.2 * (i as f32 * std::f32::consts::TAU * 6.0 / 16.0).sin();
        }
        wide.wide = true;
        let read = |u: &Utterance| engine.read_free(&engine.hear(u).unwrap(), &[16]).unwrap().digits.to_vec();
        assert_eq!(read(&wide), read(&narrow));
    }

    #[test]
    fn a_head_for_another_encoder_is_refused_by_name() {
        let path = model();
        let head = String::from_utf8_lossy(super::super::shipped::HEAD).into_owned();
        assert!(head.contains("whisper-tiny.en"));
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other.bin");
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&other, bytes).unwrap();
        let error = CtcNumberEngine::load(&other, &NumberConfig::default()).unwrap_err().to_string();
        assert!(error.contains("head.safetensors") && error.contains("trained on the encoder whisper-tiny.en"), "{error}");
        let config = NumberConfig { head: Some(dir.path().join("none.safetensors")), ..NumberConfig::default() };
        assert!(matches!(CtcNumberEngine::load(&path, &config), Err(SpeechError::Head { .. })));
        assert!(matches!(
            CtcNumberEngine::load(&dir.path().join("none.bin"), &NumberConfig::default()),
            Err(SpeechError::ModelMissing(_))
        ));
    }
}
