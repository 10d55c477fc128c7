//! `[notify]`: how hard it is tried, and what carries messages to customers.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[notify]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotifyConfig {
    /// How often it is looked for what is due, in milliseconds.
    pub poll_ms: u64,
    /// How long an endpoint may take to answer, in milliseconds.
    pub timeout_ms: u64,
    /// How many deliveries are under way at a time.
    pub at_once: u32,
    /// The pause after the first failure, in milliseconds; each further one is twice as long, give or take a quarter.
    pub retry_first_ms: u64,
    /// No pause is longer, in milliseconds.
    pub retry_most_ms: u64,
    /// After so many tries a delivery is dead.
    pub max_tries: u32,
    /// For how long a replaced secret still signs beside the new one, in seconds.
    pub rotation_s: u32,
    /// How long it is remembered what arrived, in days. Dead letters stay.
    pub keep_days: u32,
    /// Whether endpoints may lie in networks that are not public. Never where others than the operator add endpoints.
    pub private_networks: bool,
    /// PEM file of the authorities that endpoints' certificates are checked against.
    pub roots_file: PathBuf,
    /// What carries a message to a customer: a program and its arguments, given JSON on standard input. Empty: there is none, and who needs a
    /// one-time code can't pay.
    pub command: Vec<String>,
    /// How long that may take, in milliseconds.
    pub command_timeout_ms: u64,
}

impl Default for NotifyConfig {
    fn default() -> Self {
        Self {
            poll_ms: 500,
            timeout_ms: 10_000,
            at_once: 32,
            retry_first_ms: 1_000,
            retry_most_ms: 6 * 3600 * 1000,
            max_tries: 16,
            rotation_s: 24 * 3600,
            keep_days: 30,
            private_networks: false,
            roots_file: "/etc/ssl/certs/ca-certificates.crt".into(),
            command: Vec::new(),
            command_timeout_ms: 10_000,
        }
    }
}

impl NotifyConfig {
    /// The pause after so many failures, without its jitter.
    pub fn pause(&self, failures: u32) -> Duration {
        let doubled = self.retry_first_ms.saturating_mul(1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX));
        Duration::from_millis(doubled.min(self.retry_most_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let cfg = NotifyConfig { retry_most_ms: 9_000, ..NotifyConfig::default() };
        let pauses = [1, 2, 3, 4, 5, 64, 1_000].map(|n| cfg.pause(n).as_millis());
        assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 9_000, 9_000, 9_000]);
    }
}
