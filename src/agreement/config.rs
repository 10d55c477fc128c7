//! `[agreement]`: the rules' file, and how long others may take to agree.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[agreement]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgreementConfig {
    /// The factor policy; none: the one that comes with the program. Read again at a reload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PathBuf>,
    /// How long others may take to agree, in seconds.
    pub approval_valid_s: u32,
    /// How often approvals are looked after that expired, or that everybody agreed to and nobody charged, in milliseconds.
    pub sweep_ms: u64,
}

impl Default for AgreementConfig {
    fn default() -> Self {
        Self { policy: None, approval_valid_s: 24 * 3600, sweep_ms: 5_000 }
    }
}
