//! From raw scores to log-likelihood ratios, and from false-accept rates to thresholds: a versioned file of aggregate numbers.
//!
//! `voicepay calibrate` makes one; `models/calibration.json` is compiled in and `decision.calibration` names another. A file that
//! was made for another model or recogniser is refused by name. Logistic calibration after Brümmer and du Preez (2006), with the
//! quality of the utterance as further terms (net speech, distance from noise).

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

static COMPILED_IN: LazyLock<Result<Calibration, String>> =
    LazyLock::new(|| Calibration::from_json(include_str!("../../models/calibration.json")).map_err(|e| e.to_string()));

/// Ratios beyond this say nothing more; it also keeps a mistaken slope from outweighing everything.
const LLR_LIMIT: f64 = 30.0;
/// Speech beyond this adds nothing that was measured, in seconds.
const NET_SPEECH_FULL_S: f64 = 10.0;
/// Less speech than this was not measured and counts as this much, in seconds. So little is never accepted anyway.
const NET_SPEECH_LEAST_S: f64 = 1.5;
/// Below this [`VoiceCalibration::short`] is taken off, in seconds.
const NET_SPEECH_SHORT_S: f64 = 5.0;
/// Cleaner than this makes no difference that was measured, in dB.
const SNR_CLEAN_DB: f64 = 30.0;

/// One calibration: voice, and one entry for each way of reading numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Its name, kept with every score it made.
    pub version: String,
    /// What the voice's part was made from and when, for people.
    pub made_from: String,
    /// Voice.
    pub voice: VoiceCalibration,
    /// Numbers, by recogniser.
    pub numbers: Vec<NumberCalibration>,
}

/// `llr = bias + score·s + ln_net·n + score_ln_net·s·n + snr·q + score_snr·s·q` with `n = ln(min(net speech, 10 s) / 10 s)` and
/// `q = (min(SNR, 30 dB) − 30 dB) / 10 dB`, both 0 for long clean speech and negative below it; less `short·ln(5 s / net speech)` where there
/// is less speech than 5 s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoiceCalibration {
    /// The embedding model (weights and centring) whose scores it is for.
    pub model: String,
    /// The constant.
    pub bias: f64,
    /// For the raw score.
    pub score: f64,
    /// For the amount of speech.
    pub ln_net: f64,
    /// For both together: short speech spreads the scores.
    pub score_ln_net: f64,
    /// For noise.
    pub snr: f64,
    /// For both together.
    pub score_snr: f64,
    /// Taken off for little speech: its impostors scatter further up than the fit, which minds the many, makes up for, so that without it a
    /// named false-accept rate would not hold there. At least 0.
    #[serde(default)]
    pub short: f64,
    /// Measured on impostors of the same source; falling false-accept rates, rising thresholds.
    pub thresholds: Vec<Threshold>,
}

/// `llr = bias + slope·log_ratio`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberCalibration {
    /// The recogniser whose ratios it is for.
    pub engine: String,
    /// What it was made from and when, for people.
    #[serde(default)]
    pub made_from: String,
    /// The constant.
    pub bias: f64,
    /// For the raw ratio.
    pub slope: f64,
    /// Measured on near misses (one digit wrong, swapped, dropped, doubled): the hardest strings there are.
    pub thresholds: Vec<Threshold>,
}

/// At this ratio and above lies this share of what must not be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// False-accept rate, 0 to 1.
    pub far: f64,
    /// Natural-log likelihood ratio.
    pub llr: f64,
}

/// What is wrong with a calibration file.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// Not the format.
    #[error("the calibration can't be read: {0}")]
    Format(#[from] serde_json::Error),
    /// Read, but unusable.
    #[error("the calibration \"{version}\" can't be used: {key} {what}")]
    Senseless {
        /// Which file, by its own name.
        version: String,
        /// Where in it.
        key: String,
        /// What is wrong.
        what: &'static str,
    },
    /// Made for other models.
    #[error(
        "the calibration \"{version}\" was made for {kind} \"{made_for}\", this service runs \"{runs}\": make one with `voicepay calibrate`"
    )]
    OtherModel {
        /// Which file, by its own name.
        version: String,
        /// Voice model or recogniser.
        kind: &'static str,
        /// What it names.
        made_for: String,
        /// What runs.
        runs: String,
    },
}

impl Calibration {
    /// Reads and checks.
    pub fn from_json(text: &str) -> Result<Self, CalibrationError> {
        let read: Self = serde_json::from_str(text)?;
        read.check()?;
        Ok(read)
    }

    /// The one this program was built with.
    pub fn compiled_in() -> Result<&'static Self, &'static str> {
        COMPILED_IN.as_ref().map_err(String::as_str)
    }

    fn check(&self) -> Result<(), CalibrationError> {
        let bad = |key: &str, what| Err(CalibrationError::Senseless { version: self.version.clone(), key: key.to_owned(), what });
        let v = &self.voice;
        if ![v.bias, v.score, v.ln_net, v.score_ln_net, v.snr, v.score_snr, v.short].iter().all(|x| x.is_finite()) {
            return bad("voice", "holds a number that is not finite");
        }
        if v.score <= 0.0 {
            return bad("voice.score", "must be positive: a closer voice must not count less");
        }
        if v.short < 0.0 {
            return bad("voice.short", "must not be negative: less speech must not count for more");
        }
        if let Some(what) = unsound(&v.thresholds) {
            return bad("voice.thresholds", what);
        }
        for n in &self.numbers {
            let key = |k: &str| format!("numbers[{}].{k}", n.engine);
            if !(n.bias.is_finite() && n.slope.is_finite() && n.slope > 0.0) {
                return bad(&key("slope"), "and bias must be finite, the slope positive");
            }
            if let Some(what) = unsound(&n.thresholds) {
                return bad(&key("thresholds"), what);
            }
        }
        Ok(())
    }

    /// The voice's part, if it was made for this model.
    pub fn voice_for(&self, model: &str) -> Result<&VoiceCalibration, CalibrationError> {
        if self.voice.model == model {
            return Ok(&self.voice);
        }
        let version = self.version.clone();
        Err(CalibrationError::OtherModel {
            version,
            kind: "the voice model",
            made_for: self.voice.model.clone(),
            runs: model.to_owned(),
        })
    }

    /// The number's part for this recogniser.
    pub fn number_for(&self, engine: &str) -> Result<&NumberCalibration, CalibrationError> {
        self.numbers.iter().find(|n| n.engine == engine).ok_or_else(|| CalibrationError::OtherModel {
            version: self.version.clone(),
            kind: "the recogniser",
            made_for: self.numbers.iter().map(|n| n.engine.as_str()).collect::<Vec<_>>().join("\", \""),
            runs: engine.to_owned(),
        })
    }
}

impl VoiceCalibration {
    /// The calibrated ratio of a raw score.
    pub fn llr(&self, raw: f32, net_speech_ms: u32, snr_db: f32) -> f32 {
        let [s, n, q] = quality_terms(raw, net_speech_ms, snr_db);
        let llr =
            self.bias + self.score * s + self.ln_net * n + self.score_ln_net * s * n + self.snr * q + self.score_snr * s * q;
        single((llr - self.short * shortness(net_speech_ms)).clamp(-LLR_LIMIT, LLR_LIMIT))
    }

    /// The threshold that holds this false-accept rate.
    pub fn threshold_at(&self, far: f64) -> Option<f32> {
        threshold_at(&self.thresholds, far)
    }
}

/// What the voice's ratio is linear in: the score, the amount of speech, the noise (see [`VoiceCalibration`]). A value that is
/// not finite counts as the worst.
pub fn quality_terms(raw: f32, net_speech_ms: u32, snr_db: f32) -> [f64; 3] {
    let net_s = (f64::from(net_speech_ms) / 1000.0).clamp(NET_SPEECH_LEAST_S, NET_SPEECH_FULL_S);
    let snr = if snr_db.is_nan() { 0.0 } else { f64::from(snr_db).clamp(0.0, SNR_CLEAN_DB) };
    let raw = if raw.is_finite() { f64::from(raw) } else { -1.0 };
    [raw, (net_s / NET_SPEECH_FULL_S).ln(), (snr - SNR_CLEAN_DB) / 10.0]
}

/// How far, in factors of e, speech falls short of 5 s.
pub fn shortness(net_speech_ms: u32) -> f64 {
    (NET_SPEECH_SHORT_S / (f64::from(net_speech_ms) / 1000.0).clamp(NET_SPEECH_LEAST_S, NET_SPEECH_SHORT_S)).ln()
}

impl NumberCalibration {
    /// The calibrated ratio of a raw one. What is not a number is the worst.
    pub fn llr(&self, log_ratio: f32) -> f32 {
        if log_ratio.is_nan() {
            return single(-LLR_LIMIT);
        }
        single((self.bias + self.slope * f64::from(log_ratio)).clamp(-LLR_LIMIT, LLR_LIMIT))
    }

    /// The raw ratio that a calibrated one came from.
    pub fn log_ratio(&self, llr: f32) -> f64 {
        (f64::from(llr) - self.bias) / self.slope
    }

    /// The threshold that holds this false-accept rate.
    pub fn threshold_at(&self, far: f64) -> Option<f32> {
        threshold_at(&self.thresholds, far)
    }
}

/// To single precision: ratios and thresholds are a few tens, and their seventh digit is noise.
#[allow(clippy::as_conversions, clippy::cast_possible_truncation)] // rounds; nothing else converts a double
pub(super) fn single(x: f64) -> f32 {
    x as f32
}

/// Between two measured points linear in ln FAR. Below the smallest measured rate each factor e costs one more nat, which
/// calibrated ratios hold by themselves: P(LLR > t | impostor) ≤ e^−t. Above the largest: that point.
fn threshold_at(points: &[Threshold], far: f64) -> Option<f32> {
    if !(far.is_finite() && far > 0.0) {
        return None;
    }
    let (first, last) = (points.first()?, points.last()?);
    let llr = if far >= first.far {
        first.llr
    } else if far < last.far {
        last.llr + (last.far / far).ln()
    } else {
        let above = points.iter().zip(points.iter().skip(1)).find(|(a, b)| a.far >= far && far >= b.far);
        let (a, b) = above?;
        let share = if a.far > b.far { (a.far / far).ln() / (a.far / b.far).ln() } else { 0.0 };
        a.llr + share * (b.llr - a.llr)
    };
    Some(single(llr))
}

fn unsound(points: &[Threshold]) -> Option<&'static str> {
    if points.is_empty() {
        return Some("must hold at least one point");
    }
    if !points.iter().all(|p| p.far > 0.0 && p.far <= 1.0 && p.llr.is_finite()) {
        return Some("must have rates above 0 and up to 1, and finite ratios");
    }
    let falling = points.iter().zip(points.iter().skip(1)).all(|(a, b)| a.far > b.far && a.llr <= b.llr);
    (!falling).then_some("must go from the largest rate to the smallest, with thresholds that never fall")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Vec<Threshold> {
        vec![Threshold { far: 0.1, llr: -1.0 }, Threshold { far: 0.01, llr: 3.0 }, Threshold { far: 0.001, llr: 5.0 }]
    }

    #[test]
    fn a_rate_finds_its_threshold_between_and_beyond_the_measured_points() {
        let at = |far| threshold_at(&points(), far).unwrap();
        assert!((at(0.01) - 3.0).abs() < 1e-6);
        assert!((at(0.5) + 1.0).abs() < 1e-6, "nothing looser than what was measured");
        assert!((at(0.001f64.sqrt() * 0.1) - 4.0).abs() < 2.0 && at(0.003) > 3.0 && at(0.003) < 5.0);
        assert!((at(1e-4) - (5.0 + 10f32.ln())).abs() < 1e-5);
        assert_eq!(threshold_at(&points(), 0.0), None);
        assert_eq!(threshold_at(&points(), f64::NAN), None);
        assert_eq!(threshold_at(&[], 0.1), None);
    }

    #[test]
    fn the_compiled_in_file_is_sound_and_closer_is_likelier() {
        let c = Calibration::compiled_in().unwrap();
        assert!(c.voice.llr(0.9, 8_000, 25.0) > c.voice.llr(0.6, 8_000, 25.0));
        assert!(c.voice.llr(f32::NAN, 8_000, 25.0) < 0.0, "no score is no voice");
    }

    #[test]
    fn what_is_taken_off_for_little_speech_grows_from_5_s_down_and_not_below_what_was_measured() {
        let with = VoiceCalibration { short: 2.0, ..Calibration::compiled_in().unwrap().voice.clone() };
        let without = VoiceCalibration { short: 0.0, ..with.clone() };
        let off = |net| without.llr(0.6, net, 25.0) - with.llr(0.6, net, 25.0);
        assert!(off(9_000).abs() < 1e-4 && off(5_000).abs() < 1e-4);
        assert!((off(2_500) - 2.0 * 2f32.ln()).abs() < 1e-3, "{}", off(2_500));
        assert!((off(0) - off(1_500)).abs() < 1e-3 && with.llr(0.6, 0, 25.0).is_finite());
    }

    #[test]
    fn files_that_make_no_sense_or_belong_elsewhere_are_refused_with_the_reason() {
        let good = Calibration::compiled_in().unwrap().clone();
        let refused = |c: &Calibration| Calibration::from_json(&serde_json::to_string(c).unwrap()).unwrap_err().to_string();
        let mut c = good.clone();
        c.voice.score = -1.0;
        assert!(refused(&c).contains("voice.score"), "{}", refused(&c));
        let mut c = good.clone();
        c.voice.thresholds = points().into_iter().rev().collect();
        assert!(refused(&c).contains("voice.thresholds"));
        let mut c = good.clone();
        c.voice.short = -0.1;
        assert!(refused(&c).contains("voice.short"));
        let mut c = good.clone();
        c.voice.thresholds.clear();
        assert!(refused(&c).contains("at least one"));
        assert!(good.voice_for("other").unwrap_err().to_string().contains("this service runs \"other\""));
        assert!(good.number_for("other").unwrap_err().to_string().contains("the recogniser"));
        assert!(good.voice_for(&good.voice.model).is_ok());
    }
}
