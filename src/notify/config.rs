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
    /// How many deliveries are under way at a time in one process, to all endpoints.
    pub at_once: u32,
    /// How many of them to one endpoint. One that fails gets one at a time, and those that fail or are slow together half of all at most.
    pub at_once_per_endpoint: u32,
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
            at_once: 64,
            at_once_per_endpoint: 8,
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
    /// What values can't say alone: the key, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let rule = |ok: bool, key, what| if ok { Ok(()) } else { Err((key, what)) };
        rule((50..=60_000).contains(&self.poll_ms), "poll_ms", "must be 50 to 60000")?;
        // A tenant who tries an endpoint over the API waits for it.
        rule((100..=25_000).contains(&self.timeout_ms), "timeout_ms", "must be 100 to 25000")?;
        rule((1..=1_000).contains(&self.at_once), "at_once", "must be 1 to 1000: each is a connection")?;
        rule(
            (1..=self.at_once).contains(&self.at_once_per_endpoint),
            "at_once_per_endpoint",
            "must be at least 1 and at most notify.at_once",
        )?;
        rule((10..=3_600_000).contains(&self.retry_first_ms), "retry_first_ms", "must be 10 to 3600000")?;
        rule(
            (self.retry_first_ms..=86_400_000).contains(&self.retry_most_ms),
            "retry_most_ms",
            "must be notify.retry_first_ms to 86400000",
        )?;
        rule((1..=100).contains(&self.max_tries), "max_tries", "must be 1 to 100")?;
        rule(self.rotation_s <= 2_592_000, "rotation_s", "must be at most 2592000: a replaced secret is to end")?;
        rule((1..=3_650).contains(&self.keep_days), "keep_days", "must be 1 to 3650")?;
        rule(!self.roots_file.as_os_str().is_empty(), "roots_file", "must name a PEM file of authorities")?;
        rule(
            self.command.first().is_none_or(|program| !program.is_empty()),
            "command",
            "must begin with a program, or be empty",
        )?;
        rule((100..=60_000).contains(&self.command_timeout_ms), "command_timeout_ms", "must be 100 to 60000")
    }

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
    fn what_cannot_work_is_named_by_its_key() {
        type Spoil = fn(&mut NotifyConfig);
        let spoils: [(&str, Spoil); 14] = [
            ("poll_ms", |c| c.poll_ms = 49),
            ("timeout_ms", |c| c.timeout_ms = 0),
            ("timeout_ms", |c| c.timeout_ms = 25_001),
            ("at_once", |c| c.at_once = 0),
            ("at_once_per_endpoint", |c| c.at_once_per_endpoint = 0),
            ("at_once_per_endpoint", |c| c.at_once = 7),
            ("retry_first_ms", |c| c.retry_first_ms = 9),
            ("retry_most_ms", |c| c.retry_most_ms = 999),
            ("max_tries", |c| c.max_tries = 0),
            ("rotation_s", |c| c.rotation_s = u32::MAX),
            ("keep_days", |c| c.keep_days = 0),
            ("roots_file", |c| c.roots_file = PathBuf::new()),
            ("command", |c| c.command = vec![String::new()]),
            ("command_timeout_ms", |c| c.command_timeout_ms = 0),
        ];
        assert_eq!(NotifyConfig::default().check(), Ok(()));
        for (key, spoil) in spoils {
            let mut spoilt = NotifyConfig::default();
            spoil(&mut spoilt);
            assert_eq!(spoilt.check().map_err(|(key, _)| key), Err(key));
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let cfg = NotifyConfig { retry_most_ms: 9_000, ..NotifyConfig::default() };
        let pauses = [1, 2, 3, 4, 5, 64, 1_000].map(|n| cfg.pause(n).as_millis());
        assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 9_000, 9_000, 9_000]);
    }
}
