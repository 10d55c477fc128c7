//! From an engine's raw log ratios to evidence: the engine's name and the calibration that judges its ratios go with every figure.

use crate::decision::calibration::{CalibrationError, NumberCalibration};
use crate::decision::{Calibration, CardEvidence, NumberEvidence, PhraseEvidence};
use crate::ids::CardId;

/// What makes evidence of ratios.
#[derive(Debug)]
pub(super) struct Witness {
    calibration: NumberCalibration,
    version: String,
}

impl Witness {
    /// For the engine that `calibration` names; `version`: the calibration's own name.
    pub(super) fn new(calibration: NumberCalibration, version: &str) -> Self {
        Self { calibration, version: version.to_owned() }
    }

    /// The engine's name.
    pub(super) fn engine(&self) -> &str {
        &self.calibration.engine
    }

    /// Judges by this calibration from now on, if it knows the engine.
    pub(super) fn calibrate(&mut self, by: &Calibration) -> Result<(), CalibrationError> {
        *self = Self::new(by.number_for(self.engine())?.clone(), &by.version);
        Ok(())
    }

    /// Of authorised cards.
    pub(super) fn number(&self, ratios: impl Iterator<Item = (CardId, f32)>) -> NumberEvidence {
        let card = |(card, log_ratio)| CardEvidence { card, log_ratio, llr: self.calibration.llr(log_ratio) };
        NumberEvidence::Spoken {
            cards: ratios.map(card).collect(),
            engine: self.engine().to_owned(),
            calibration: self.version.clone(),
        }
    }

    /// Of digits that were asked for.
    pub(super) fn phrase(&self, log_ratio: f32) -> PhraseEvidence {
        PhraseEvidence {
            log_ratio,
            llr: self.calibration.llr(log_ratio),
            engine: self.engine().to_owned(),
            calibration: self.version.clone(),
        }
    }
}
