//! Voice activity by energy.

use serde::{Deserialize, Serialize};

/// `[speech.vad]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VadConfig {
    /// Speech begins this far above the noise floor, in dB.
    pub open_db: f32,
    /// Speech goes on as long as it is this far above the noise floor, in dB; less than `open_db`.
    pub close_db: f32,
    /// Nothing quieter than this is speech, in dB relative to full scale.
    pub min_level_dbfs: f32,
    /// Speech is held this long over a dip, in milliseconds.
    pub hangover_ms: u32,
}

impl Default for VadConfig {
    fn default() -> Self {
        Self { open_db: 9.0, close_db: 5.0, min_level_dbfs: -52.0, hangover_ms: 120 }
    }
}
