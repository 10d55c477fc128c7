//! Thresholds, and how the configuration names them: by the false-accept rate that each holds, not by a score copied from elsewhere.

use serde::{Deserialize, Serialize};

use super::calibration::{Calibration, CalibrationError, single};

/// `[decision]`: how sure we want to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecisionConfig {
    /// A calibration file made by `voicepay calibrate`; unset: the one that this program was built with.
    pub calibration: Option<std::path::PathBuf>,
    /// Of impostors who say the right number, this share may be accepted by voice.
    pub voice_accept_far: f64,
    /// Of such impostors, this share is not rejected at once: between the two lies inconclusive.
    pub voice_unsure_far: f64,
    /// Of near misses (one digit wrong, swapped, dropped, doubled), this share may be accepted. With several cards it holds over
    /// all of them together.
    pub number_accept_far: f64,
    /// Of near misses, this share is not rejected at once.
    pub number_unsure_far: f64,
    /// Of near misses of digits that we asked for, this share may be accepted.
    pub phrase_accept_far: f64,
    /// When fresh digits are asked for.
    pub challenge_when: ChallengeWhen,
    /// From this amount on fresh digits are always asked for, in minor units (cents); 0: from no amount.
    pub challenge_from_minor: i64,
    /// Whether fresh digits are always asked for where the caller's number is signed (STIR/SHAKEN) and the signature does not hold.
    pub challenge_failed_attestation: bool,
    /// Of impostors, this share may pass the voice of the fresh digits alone. It only counts together with the first utterance.
    pub challenge_voice_far: f64,
    /// What two utterances of one call say together, as a share of the sum of their ratios: they share channel and day.
    pub challenge_pooling: f64,
    /// What else tightens.
    pub tighten: TightenConfig,
}

/// When a caller is asked for fresh digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChallengeWhen {
    /// When the voice can't be told, from `challenge_from_minor` on, and with `challenge_failed_attestation`.
    Inconclusive,
    /// At every payment.
    Always,
    /// Not even then: the card number is asked for again.
    Never,
}

/// What else is known of a call, as nats on the voice's accept threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TightenConfig {
    /// Nobody vouches for the caller's number: so many nats more. One nat: an impostor is e times as likely beforehand.
    pub unattested_nats: f32,
    /// Each failed factor of the last 24 hours: so many nats more.
    pub failure_nats: f32,
}

impl Default for TightenConfig {
    fn default() -> Self {
        Self { unattested_nats: 0.0, failure_nats: 0.5 }
    }
}

impl Default for DecisionConfig {
    fn default() -> Self {
        Self {
            calibration: None,
            voice_accept_far: 0.002,
            voice_unsure_far: 0.05,
            number_accept_far: 0.0008,
            number_unsure_far: 0.05,
            phrase_accept_far: 0.002,
            challenge_when: ChallengeWhen::Inconclusive,
            challenge_from_minor: 0,
            challenge_failed_attestation: true,
            challenge_voice_far: 0.02,
            challenge_pooling: 0.7,
            tighten: TightenConfig::default(),
        }
    }
}

impl DecisionConfig {
    /// What parses but cannot work: the key, and what it must be.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let rates = [
            ("voice_accept_far", self.voice_accept_far),
            ("voice_unsure_far", self.voice_unsure_far),
            ("number_accept_far", self.number_accept_far),
            ("number_unsure_far", self.number_unsure_far),
            ("phrase_accept_far", self.phrase_accept_far),
            ("challenge_voice_far", self.challenge_voice_far),
        ];
        for (key, rate) in rates {
            if !(rate > 0.0 && rate < 1.0) {
                return Err((key, "must be a rate above 0 and below 1"));
            }
        }
        if self.voice_unsure_far < self.voice_accept_far {
            return Err(("voice_unsure_far", "must not be below voice_accept_far: nobody would be accepted"));
        }
        if self.number_unsure_far < self.number_accept_far {
            return Err(("number_unsure_far", "must not be below number_accept_far: no number would be accepted"));
        }
        if !(self.challenge_pooling >= 0.5 && self.challenge_pooling <= 1.0) {
            return Err(("challenge_pooling", "must be 0.5 (one utterance says all) to 1 (both count in full)"));
        }
        if self.challenge_from_minor < 0 {
            return Err(("challenge_from_minor", "must not be negative"));
        }
        let t = self.tighten;
        if !(t.unattested_nats.is_finite() && t.unattested_nats >= 0.0 && t.failure_nats.is_finite() && t.failure_nats >= 0.0) {
            return Err(("tighten", "must hold nats of 0 or more: nothing here may loosen"));
        }
        Ok(())
    }
}

/// Where voice is accepted and where it is rejected; between lies inconclusive. In nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoiceThresholds {
    /// Accept at this ratio and above.
    pub accept_llr: f32,
    /// Reject below this ratio.
    pub reject_llr: f32,
    /// Less speech than this is never accepted, in milliseconds.
    pub min_net_speech_ms: u32,
}

/// Where digits are accepted and where they are rejected, a card's or those that we asked for. In nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigitThresholds {
    /// Accept at this ratio and above; with k authorised cards ln k more.
    pub accept_llr: f32,
    /// Reject below this ratio.
    pub reject_llr: f32,
}

/// Everything a verdict depends on but the evidence: kept by name with every decision, so that it can be made again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name.
    pub version: String,
    /// Which calibration its thresholds come from.
    pub calibration: String,
    /// Voice.
    pub voice: VoiceThresholds,
    /// The card number.
    pub number: DigitThresholds,
    /// Digits that we asked for.
    pub phrase: DigitThresholds,
    /// When fresh digits are asked for.
    pub challenge_when: ChallengeWhen,
    /// From this amount on they always are, in minor units; 0: from no amount.
    pub challenge_from_minor: i64,
    /// Whether a signed number whose signature does not hold is one more reason for them.
    #[serde(default = "yes")]
    pub challenge_failed_attestation: bool,
    /// The voice of the fresh digits alone must reach this, in nats.
    pub challenge_voice_llr: f32,
    /// See [`DecisionConfig::challenge_pooling`].
    pub challenge_pooling: f32,
    /// What else tightens.
    pub tighten: TightenConfig,
}

/// For policies that were stored before the key was there: they asked for nothing less.
fn yes() -> bool {
    true
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The calibration belongs to other models.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A rate has no threshold.
    #[error("decision.{key}: the calibration \"{calibration}\" has no threshold for it")]
    NoThreshold {
        /// The configuration's key.
        key: &'static str,
        /// Which calibration.
        calibration: String,
    },
}

impl Policy {
    /// Rates to thresholds, by a calibration that was made for this voice model and this recogniser.
    pub fn resolve(
        version: &str,
        config: &DecisionConfig,
        calibration: &Calibration,
        voice_model: &str,
        number_engine: &str,
        min_net_speech_ms: u32,
    ) -> Result<Self, PolicyError> {
        let (voice, number) = (calibration.voice_for(voice_model)?, calibration.number_for(number_engine)?);
        let need = |key, found: Option<f32>| {
            found.ok_or_else(|| PolicyError::NoThreshold { key, calibration: calibration.version.clone() })
        };
        let number_unsure = need("number_unsure_far", number.threshold_at(config.number_unsure_far))?;
        Ok(Self {
            version: version.to_owned(),
            calibration: calibration.version.clone(),
            voice: VoiceThresholds {
                accept_llr: need("voice_accept_far", voice.threshold_at(config.voice_accept_far))?,
                reject_llr: need("voice_unsure_far", voice.threshold_at(config.voice_unsure_far))?,
                min_net_speech_ms,
            },
            number: DigitThresholds {
                accept_llr: need("number_accept_far", number.threshold_at(config.number_accept_far))?,
                reject_llr: number_unsure,
            },
            phrase: DigitThresholds {
                accept_llr: need("phrase_accept_far", number.threshold_at(config.phrase_accept_far))?,
                reject_llr: number_unsure,
            },
            challenge_when: config.challenge_when,
            challenge_from_minor: config.challenge_from_minor,
            challenge_failed_attestation: config.challenge_failed_attestation,
            challenge_voice_llr: need("challenge_voice_far", voice.threshold_at(config.challenge_voice_far))?,
            challenge_pooling: single(config.challenge_pooling),
            tighten: config.tighten,
        })
    }

    /// For measuring numbers alone and for tests: every voice passes, numbers and phrases from 0 nats on. No service code uses it.
    pub fn any_voice() -> Self {
        let open = -1_000.0;
        Self {
            version: "none: measuring".to_owned(),
            voice: VoiceThresholds { accept_llr: open, reject_llr: open, min_net_speech_ms: 0 },
            number: DigitThresholds { accept_llr: 0.0, reject_llr: -6.0 },
            phrase: DigitThresholds { accept_llr: 0.0, reject_llr: -6.0 },
            ..Self::nobody()
        }
    }

    /// Until it is resolved: accepts nobody and nothing.
    pub fn nobody() -> Self {
        let never = f32::INFINITY;
        Self {
            version: "none".to_owned(),
            calibration: "none".to_owned(),
            voice: VoiceThresholds { accept_llr: never, reject_llr: never, min_net_speech_ms: 3_000 },
            number: DigitThresholds { accept_llr: never, reject_llr: never },
            phrase: DigitThresholds { accept_llr: never, reject_llr: never },
            challenge_when: ChallengeWhen::Never,
            challenge_from_minor: 0,
            challenge_failed_attestation: true,
            challenge_voice_llr: never,
            challenge_pooling: 0.5,
            tighten: TightenConfig::default(),
        }
    }

    /// Whether this amount, or a signed number whose signature does not hold, asks for fresh digits whatever the voice's score.
    pub fn challenge_due(&self, amount_minor: i64, failed_attestation: bool) -> bool {
        match self.challenge_when {
            ChallengeWhen::Always => true,
            ChallengeWhen::Never => false,
            ChallengeWhen::Inconclusive => {
                let large = self.challenge_from_minor > 0 && amount_minor >= self.challenge_from_minor;
                large || (failed_attestation && self.challenge_failed_attestation)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(config: &DecisionConfig) -> Policy {
        let c = Calibration::compiled_in().unwrap();
        Policy::resolve("1", config, c, &c.voice.model, &c.numbers[0].engine, 2_500).unwrap()
    }

    #[test]
    fn asking_for_a_smaller_rate_never_lowers_a_threshold() {
        let usual = resolved(&DecisionConfig::default());
        let strict = resolved(&DecisionConfig { voice_accept_far: 1e-6, number_accept_far: 1e-7, ..DecisionConfig::default() });
        assert!(strict.voice.accept_llr > usual.voice.accept_llr && strict.number.accept_llr > usual.number.accept_llr);
        assert!(usual.voice.reject_llr <= usual.voice.accept_llr && usual.number.reject_llr <= usual.number.accept_llr);
        assert_eq!(strict.voice.reject_llr, usual.voice.reject_llr);
    }

    #[test]
    fn another_model_makes_no_policy() {
        let c = Calibration::compiled_in().unwrap();
        let error = Policy::resolve("1", &DecisionConfig::default(), c, "elsewhere", &c.numbers[0].engine, 0).unwrap_err();
        assert!(error.to_string().contains("elsewhere"), "{error}");
    }

    #[test]
    fn a_configuration_that_cannot_work_names_its_key() {
        let bad = |c: DecisionConfig| c.check().unwrap_err().0;
        let d = DecisionConfig::default;
        assert!(d().check().is_ok());
        assert_eq!(bad(DecisionConfig { voice_accept_far: 0.0, ..d() }), "voice_accept_far");
        assert_eq!(bad(DecisionConfig { number_accept_far: f64::NAN, ..d() }), "number_accept_far");
        assert_eq!(bad(DecisionConfig { voice_unsure_far: 1e-9, ..d() }), "voice_unsure_far");
        let tighten = TightenConfig { unattested_nats: -1.0, failure_nats: 0.0 };
        assert_eq!(bad(DecisionConfig { tighten, ..d() }), "tighten");
    }

    #[test]
    fn fresh_digits_are_due_from_an_amount_or_always_or_never() {
        let with = |challenge_when, challenge_from_minor| {
            resolved(&DecisionConfig { challenge_when, challenge_from_minor, ..DecisionConfig::default() })
        };
        assert!(!with(ChallengeWhen::Inconclusive, 0).challenge_due(i64::MAX, false));
        assert!(with(ChallengeWhen::Inconclusive, 5_000).challenge_due(5_000, false));
        assert!(!with(ChallengeWhen::Inconclusive, 5_000).challenge_due(4_999, false));
        assert!(with(ChallengeWhen::Always, 0).challenge_due(1, false));
        assert!(!with(ChallengeWhen::Never, 1).challenge_due(5_000, false));
    }

    #[test]
    fn fresh_digits_are_due_where_a_signed_number_does_not_hold() {
        let with = |challenge_when, challenge_failed_attestation| {
            resolved(&DecisionConfig { challenge_when, challenge_failed_attestation, ..DecisionConfig::default() })
        };
        assert!(DecisionConfig::default().challenge_failed_attestation, "by default");
        assert!(with(ChallengeWhen::Inconclusive, true).challenge_due(1, true));
        assert!(!with(ChallengeWhen::Inconclusive, true).challenge_due(1, false));
        assert!(!with(ChallengeWhen::Inconclusive, false).challenge_due(1, true));
        assert!(!with(ChallengeWhen::Never, true).challenge_due(1, true));
    }
}
