//! Numbers by digit heads: each hears the utterance with an encoder of its own, and a number's likelihood is the product of theirs. What
//! one head mistakes in noise another seldom does (DESIGN.md). With one head it is that head's likelihood.
//!
//! The best rival stays proven: a number that no head has among its likeliest is no likelier than the product of what each has not seen.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use zeroize::{Zeroize, Zeroizing};

use super::at_once::AtOnce;
use super::config::NumberConfig;
use super::ctc_reader::{Reader, Reading};
use super::evidence::Witness;
use super::{FreeReading, Heard, NumberEngine, SpeechError, Utterance, shipped};
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
/// A string of a length that the customer's cards have is preferred to a likelier one of another length up to this, in nats.
const LENGTH_PREFERENCE_NATS: f64 = 2.0;
/// Ratios beyond this say nothing more, in nats.
const LOG_RATIO_LIMIT: f64 = 100.0;

/// Encoders and heads, loaded.
pub struct CtcNumberEngine {
    readers: Vec<Reader>,
    /// Encoders and heads by name, and what judges their ratios.
    witness: Witness,
    at_once: AtOnce,
}

impl std::fmt::Debug for CtcNumberEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CtcNumberEngine({}, at most {} at once)", self.witness.engine(), self.at_once.limit())
    }
}

impl CtcNumberEngine {
    /// With the heads that the configuration names, or those that this program was built with; their encoders are looked for in `dir` (the
    /// models' cache). Without a calibration of its own yet: see [`NumberEngine::calibrate`].
    pub fn load(dir: &Path, config: &NumberConfig) -> Result<Self, SpeechError> {
        let readers: Vec<Reader> = if config.heads.is_empty() {
            shipped::HEADS.iter().map(|(name, head)| Reader::load(dir, head, Path::new(name))).collect::<Result<_, _>>()?
        } else {
            let read = |path: &std::path::PathBuf| {
                let head = std::fs::read(path).map_err(|e| SpeechError::Head { path: path.clone(), why: e.to_string() })?;
                Reader::load(dir, &head, path)
            };
            config.heads.iter().map(read).collect::<Result<_, _>>()?
        };
        let names: Vec<&str> = readers.iter().map(|r| r.name.as_str()).collect();
        let name = format!("ctc-{}", names.join("+"));
        Ok(Self { witness: Witness::new(uncalibrated(&name), "none"), readers, at_once: AtOnce::new(config.max_at_once) })
    }

    fn readings(&self, utterance: &Utterance) -> Result<Vec<Reading>, SpeechError> {
        let samples = utterance.samples_16k.as_slice();
        if samples.len() < AUDIO_MIN_SAMPLES {
            return Err(SpeechError::Unusable("it is too short"));
        }
        if samples.len() > AUDIO_MAX_SAMPLES {
            return Err(SpeechError::Unusable("it is longer than 30 s"));
        }
        let samples = if utterance.wide { Cow::Owned(telephone_band(samples)) } else { Cow::Borrowed(samples) };
        let read = self.readers.iter().map(|r| r.read(&samples)).collect();
        if let Cow::Owned(mut narrowed) = samples {
            narrowed.zeroize();
        }
        read
    }

    /// The numbers that any reader has among its likeliest, by all of them together.
    fn known(&self, readings: Vec<Reading>) -> Known {
        // What none of them has is no likelier to each than what it has not seen.
        let unseen = readings.iter().map(|r| r.unseen.ln()).sum();
        let mut found: BTreeSet<&[u8]> = BTreeSet::new();
        found.extend(readings.iter().flat_map(|r| r.numbers.iter().map(|n| n.digits.as_slice())));
        let number =
            |digits: &[u8]| Number { digits: Zeroizing::new(digits.to_vec()), log_prob: self.log_prob(&readings, digits) };
        let mut numbers: Vec<Number> = found.into_iter().map(number).collect();
        numbers.sort_by(|a, b| b.log_prob.total_cmp(&a.log_prob));
        Known { readings, numbers, unseen }
    }

    fn log_prob(&self, readings: &[Reading], digits: &[u8]) -> f64 {
        self.readers.iter().zip(readings).map(|(reader, reading)| reader.probability(reading, digits).ln()).sum()
    }

    fn log_ratio(&self, known: &Known, digits: &[u8]) -> f32 {
        let own = self.log_prob(&known.readings, digits);
        // What the search did not get to see counts as a rival: where it ran out of steps, nothing is accepted that it can't vouch for.
        let rival = known.numbers.iter().find(|n| n.digits.as_slice() != digits).map_or(f64::NEG_INFINITY, |n| n.log_prob);
        bounded(own - rival.max(known.unseen))
    }

    /// How sure each digit is, by all readers together where they took the same words for it, else by the least sure of each.
    fn margins(&self, known: &Known, digits: &[u8]) -> Vec<f64> {
        let each: Option<Vec<Vec<f64>>> = self.readers.iter().zip(&known.readings).map(|(r, of)| r.margins(of, digits)).collect();
        let Some(each) = each else { return vec![f64::NEG_INFINITY] };
        match each.first() {
            Some(first) if each.iter().all(|m| m.len() == first.len()) => {
                (0..first.len()).map(|i| each.iter().filter_map(|m| m.get(i)).sum()).collect()
            }
            Some(_) | None => each.into_iter().flatten().collect(),
        }
    }
}

/// An utterance, heard.
struct Known {
    /// One a reader.
    readings: Vec<Reading>,
    /// The likeliest first.
    numbers: Vec<Number>,
    /// Natural logarithm: no number that is not among them is likelier.
    unseen: f64,
}

struct Number {
    digits: Zeroizing<Vec<u8>>,
    log_prob: f64,
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
        Ok(Heard::new(self.known(self.readings(utterance)?)))
    }

    fn read_free(&self, heard: &Heard, lengths: &[usize]) -> Result<FreeReading, SpeechError> {
        let known: &Known = heard.inside()?;
        let best = known.numbers.first().ok_or(SpeechError::Unusable("nothing was found"))?;
        let fits = |n: &&Number| lengths.contains(&n.digits.len()) && n.log_prob >= best.log_prob - LENGTH_PREFERENCE_NATS;
        let best = known.numbers.iter().find(fits).unwrap_or(best);
        let margins = self.margins(known, &best.digits);
        let count = u32::try_from(margins.len().max(1)).map_or(f64::INFINITY, f64::from);
        Ok(FreeReading {
            digits: best.digits.clone(),
            log_prob: bounded(best.log_prob),
            mean_margin: bounded(margins.iter().map(|m| f64::from(bounded(*m))).sum::<f64>() / count),
            min_margin: bounded(margins.iter().copied().fold(f64::INFINITY, f64::min)),
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
        Ok(strings.iter().map(|s| bounded(self.log_prob(&known.readings, s))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::NumberModel;
    use super::*;
    use crate::clock::SeededEntropy;
    use crate::decision::{Policy, Tightening, VoiceScore, VoiceVerdict, judge_voice};

    fn engine() -> CtcNumberEngine {
        CtcNumberEngine::load(&crate::models::cache_dir(), &NumberConfig::default()).expect("run `voicepay models fetch`")
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

    /// With any head alone, and with all of them, the product is what is compared.
    #[test]
    fn a_number_is_as_likely_as_all_heads_together_find_it() {
        let together = engine();
        let heard = |e: &CtcNumberEngine, s: &[Vec<u8>]| {
            e.score_strings(&e.hear(&fixture("alice/card_one_digit_off.wav")).unwrap(), s, 99.0).unwrap()
        };
        let strings = [digits("4929173058162749"), digits("492917305816274"), digits("1234")];
        let dir = tempfile::tempdir().unwrap();
        let mut sum = vec![0.0f32; strings.len()];
        for (i, (_, head)) in shipped::HEADS.iter().enumerate() {
            let path = dir.path().join(format!("{i}.safetensors"));
            std::fs::write(&path, head).unwrap();
            let alone = NumberConfig { heads: vec![path], ..NumberConfig::default() };
            let alone = CtcNumberEngine::load(&crate::models::cache_dir(), &alone).unwrap();
            assert!(together.name().contains(alone.name().trim_start_matches("ctc-")), "{} {}", together.name(), alone.name());
            sum.iter_mut().zip(heard(&alone, &strings)).for_each(|(s, l)| *s += l);
        }
        for (ours, sum) in heard(&together, &strings).into_iter().zip(sum) {
            assert!((ours - sum.max(-100.0)).abs() < 1e-3, "{ours} {sum}");
        }
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
        let dir = tempfile::tempdir().unwrap();
        for model in [NumberModel::TinyEn, NumberModel::Base] {
            let mut bytes = std::fs::read(crate::models::cache_dir().join(model.file_name())).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            std::fs::write(dir.path().join(model.file_name()), bytes).unwrap();
        }
        let error = CtcNumberEngine::load(dir.path(), &NumberConfig::default()).unwrap_err().to_string();
        assert!(error.contains("models/digits/") && error.contains("trained on the encoder whisper-"), "{error}");
        let config = NumberConfig { heads: vec![dir.path().join("none.safetensors")], ..NumberConfig::default() };
        assert!(matches!(CtcNumberEngine::load(dir.path(), &config), Err(SpeechError::Head { .. })));
        let empty = tempfile::tempdir().unwrap();
        let missing = CtcNumberEngine::load(empty.path(), &NumberConfig::default());
        assert!(matches!(missing, Err(SpeechError::ModelMissing(_))));
    }
}
