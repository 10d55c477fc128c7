//! One digit head with its encoder: what is said, as posteriors, and the numbers that these make likeliest.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::SpeechError;
use super::config::NumberModel;
use super::ctc::{Listing, Posteriors};
use super::encoder::Encoder;
use super::head::Head;
use super::model_file::ModelFile;

/// Prefixes that the search for the likeliest strings may open; a clear number of 16 digits takes about 20.
const SEARCH_MAX_STEPS: usize = 1_200;
/// Strings that have a probability of their own in the search's answer: the best and its best rival.
const STRINGS_PROVEN: usize = 2;
/// Numbers kept of one reading; those behind are many orders of magnitude less likely.
const NUMBERS_KEPT: usize = 32;

/// An encoder and its head, loaded.
pub(super) struct Reader {
    pub(super) encoder: Encoder,
    pub(super) head: Head,
    /// Encoder and head: `tiny.en-6390826e`.
    pub(super) name: String,
}

/// An utterance as one reader heard it.
pub(super) struct Reading {
    posteriors: Posteriors,
    /// The likeliest first.
    pub(super) numbers: Vec<Number>,
    /// No number that is not among them is likelier.
    pub(super) unseen: f64,
}

/// A number that was found.
pub(super) struct Number {
    pub(super) digits: Zeroizing<Vec<u8>>,
    /// The likeliest way of saying it.
    tokens: Zeroizing<Vec<u8>>,
    probability: f64,
}

impl Reader {
    /// From a head's bytes; its encoder is looked for in `dir` (the models' cache). `named`: what errors call the head.
    pub(super) fn load(dir: &Path, head: &[u8], named: &Path) -> Result<Self, SpeechError> {
        let refused = |why: String| SpeechError::Head { path: named.to_owned(), why };
        let digest = hex::encode(Sha256::digest(head));
        let head = Head::read(head).map_err(refused)?;
        let (wants, wants_sha256) = &head.encoder;
        let model = NumberModel::named(wants)
            .ok_or_else(|| refused(format!("it was trained on the encoder {wants}, which we don't have")))?;
        let path = dir.join(model.file_name());
        let file = ModelFile::open(&path)?;
        let sha256 = file.sha256();
        if *wants_sha256 != sha256 {
            let why = format!("it was trained on the encoder {wants} ({wants_sha256}), {} is {sha256}", path.display());
            return Err(refused(why));
        }
        if head.width != file.width() {
            return Err(refused(format!("it takes states of {} numbers, {wants} gives {}", head.width, file.width())));
        }
        let encoder = Encoder::load(&file, &head.patches).map_err(|why| SpeechError::ModelCorrupt { path, why })?;
        let name = format!("{}-{}", wants.trim_start_matches("whisper-"), digest.get(..8).unwrap_or_default());
        Ok(Self { encoder, head, name })
    }

    /// Samples of the telephone band at 16 kHz.
    pub(super) fn read(&self, samples_16k: &[f32]) -> Result<Reading, SpeechError> {
        let states = self.encoder.states(samples_16k, &self.head.padding, &self.head.taps)?;
        let log_probs = self.head.log_probs(&states).map_err(|e| SpeechError::Network(e.to_string()))?;
        let posteriors = Posteriors::from_log(&log_probs, self.head.lexicon.tokens());
        Ok(self.numbers(posteriors.ok_or_else(|| SpeechError::Network("the head gave no probabilities".to_owned()))?))
    }

    /// The numbers that the likeliest token strings say.
    fn numbers(&self, posteriors: Posteriors) -> Reading {
        let listing = posteriors.likeliest(SEARCH_MAX_STEPS, |found, unseen| {
            found.iter().filter(|f| f.probability >= unseen).take(STRINGS_PROVEN).count() == STRINGS_PROVEN
        });
        let Listing { found, mut unseen, steps: _ } = listing;
        let mut by_digits: BTreeMap<Vec<u8>, Number> = BTreeMap::new();
        for string in found {
            for digits in self.head.lexicon.readings(&string.tokens) {
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
            key.zeroize();
            numbers.push(number);
        }
        numbers.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        if let Some(dropped) = numbers.get(NUMBERS_KEPT) {
            unseen = unseen.max(dropped.probability);
            numbers.truncate(NUMBERS_KEPT);
        }
        Reading { posteriors, numbers, unseen }
    }

    /// The probability that these digits were said, in whatever words.
    pub(super) fn probability(&self, of: &Reading, digits: &[u8]) -> f64 {
        of.posteriors.probability_of(&self.head.lexicon.ways(digits))
    }

    /// For each token of the likeliest way of saying these digits, and for its end: ln P(token) − ln P(the best other). `None` if they are
    /// not among the numbers that were found.
    pub(super) fn margins(&self, of: &Reading, digits: &[u8]) -> Option<Vec<f64>> {
        let tokens = &of.numbers.iter().find(|n| n.digits.as_slice() == digits)?.tokens;
        let margin = |i: usize| {
            let (before, rest) = tokens.split_at_checked(i)?;
            let chosen = usize::from(rest.first().copied().unwrap_or(0)); // the blank's place: the end
            let next = of.posteriors.after(before);
            let taken = next.get(chosen).copied().unwrap_or(0.0);
            let other = next.iter().enumerate().filter(|(c, _)| *c != chosen).map(|(_, p)| *p).fold(0.0, f64::max);
            Some(taken.ln() - other.ln())
        };
        (0..=tokens.len()).map(margin).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Utterance;
    use super::super::shipped::HEADS;
    use super::*;
    use crate::media::frame::SampleRate;

    /// PyTorch's numbers (scripts/digit-head) for a recording of the repository.
    #[test]
    fn states_and_probabilities_are_pytorchs() {
        let records =
            [include_str!("../../models/digits/base.golden.json"), include_str!("../../models/digits/tiny.en.golden.json")];
        for ((name, head), golden) in HEADS.iter().zip(records) {
            let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
            let reader = Reader::load(&crate::models::cache_dir(), head, Path::new(name)).unwrap();
            equal(&reader, &golden);
        }
    }

    fn equal(reader: &Reader, golden: &serde_json::Value) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("audio-fixtures/alice/card.wav");
        let mut wav = hound::WavReader::open(&path).unwrap();
        let samples: Vec<i16> = wav.samples().map(Result::unwrap).collect();
        let utterance = Utterance::from_recording(&samples, SampleRate::new(wav.spec().sample_rate).unwrap());
        assert_eq!(golden["samples_16k"], utterance.samples_16k.len());
        let states = reader.encoder.states(&utterance.samples_16k, &reader.head.padding, &reader.head.taps).unwrap();
        let log_probs = reader.head.log_probs(&states).unwrap();
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
        // Digit by digit, as PyTorch's number has it: "double" and "oh" are other ways.
        let tokens: Vec<u8> = "4929173058162749".bytes().map(|b| b - b'0' + 1).collect();
        let reading = reader.read(&utterance.samples_16k).unwrap();
        let own = reading.posteriors.probability(&tokens).ln();
        let said: Vec<u8> = tokens.iter().map(|t| t - 1).collect();
        assert!(reader.probability(&reading, &said).ln() >= own - 1e-9);
        assert!((own - golden["log_likelihood"].as_f64().unwrap()).abs() < 1e-3, "{own}");
    }
}
