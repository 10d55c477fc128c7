//! The section `[ops]` of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What operators see.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpsConfig {
    /// Where `/metrics`, `/healthz` and `/readyz` are answered, `ADDRESS:PORT`, in plain HTTP: a private address. Unset: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Directory of call detail records, a file a day (UTC). Unset: none are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdr_dir: Option<PathBuf>,
    /// Calling and called numbers in these records: `full`, `masked` (`+44…23`) or `none`.
    pub cdr_numbers: Numbers,
    /// Where traces are sent: the base URL of a collector that takes OTLP over HTTP as JSON, such as `http://127.0.0.1:4318`. Plain
    /// HTTP: a collector on this host or a private network. Unset: none are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// Recordings of calls.
    pub recording: RecordingConfig,
}

/// How a telephone number is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    /// As it is.
    Full,
    /// Its first two and last two digits.
    #[default]
    Masked,
    /// Not at all.
    None,
}

impl Numbers {
    /// A number as it may be written. What has fewer than eight digits is masked whole: there would be little left to hide.
    pub fn write(self, number: &str) -> Option<String> {
        match self {
            Self::Full => Some(number.to_owned()),
            Self::None => None,
            Self::Masked => {
                let digits: String = number.chars().filter(char::is_ascii_digit).collect();
                let sign = if number.starts_with('+') { "+" } else { "" };
                Some(match (digits.len(), digits.get(..2), digits.get(digits.len().saturating_sub(2)..)) {
                    (8.., Some(first), Some(last)) => format!("{sign}{first}…{last}"),
                    _ => format!("{sign}…"),
                })
            }
        }
    }
}

/// Recordings of calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordingConfig {
    /// `off`, `prompts` (what the service says), or `prompts_and_speech` (also short spoken answers to yes-or-no questions, once they
    /// were understood as such). Numbers, fresh digits, counting, enrolment and keys are never recorded; a yes, whose voice is
    /// compared too, is in the last mode. Callers must be told that they are recorded: see docs/RECORDING.md.
    pub mode: RecordingMode,
    /// Directory of the recordings, a WAV file a call, readable by its owner only.
    pub dir: PathBuf,
    /// Longest recording of a call, in seconds; the rest of the call isn't recorded.
    pub limit_s: u32,
    /// Recordings are deleted after so many days.
    pub keep_days: u32,
}

impl Default for RecordingConfig {
    fn default() -> Self {
        Self { mode: RecordingMode::Off, dir: "recordings".into(), limit_s: 600, keep_days: 30 }
    }
}

/// What is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordingMode {
    /// Nothing.
    #[default]
    Off,
    /// What the service says.
    Prompts,
    /// That, and short answers.
    PromptsAndSpeech,
}

impl OpsConfig {
    /// What parses but cannot work: the key, and what it must be.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let rule = |ok: bool, key: &'static str, what: &'static str| if ok { Ok(()) } else { Err((key, what)) };
        let endpoint = self.otlp_endpoint.as_deref().map(|e| e.strip_prefix("http://").unwrap_or_default());
        rule(
            endpoint.is_none_or(|host| !host.is_empty() && !host.starts_with('/') && !host.contains([' ', '@', '?', '#'])),
            "otlp_endpoint",
            "must be the base URL of a collector such as http://127.0.0.1:4318, without a password or a query; for a collector beyond \
             a public network put one beside the service that passes spans on over TLS",
        )?;
        rule((10..=3_600).contains(&self.recording.limit_s), "recording.limit_s", "must be 10 to 3600")?;
        rule(
            (1..=3_650).contains(&self.recording.keep_days),
            "recording.keep_days",
            "must be 1 to 3650: nothing is kept for ever",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_number_tells_its_country_and_little_else() {
        assert_eq!(Numbers::Masked.write("+447700900123").as_deref(), Some("+44…23"));
        assert_eq!(Numbers::Masked.write("02079460000").as_deref(), Some("02…00"));
        for short in ["", "pay", "100", "+1234567"] {
            assert!(Numbers::Masked.write(short).is_some_and(|m| !m.bytes().any(|b| b.is_ascii_digit())), "{short}");
        }
        assert_eq!(Numbers::None.write("+447700900123"), None);
        assert_eq!(Numbers::Full.write("+447700900123").as_deref(), Some("+447700900123"));
    }

    #[test]
    fn impossible_values_are_named() {
        let with = |endpoint: &str| OpsConfig { otlp_endpoint: Some(endpoint.into()), ..OpsConfig::default() }.check();
        assert_eq!(with("http://127.0.0.1:4318"), Ok(()));
        for wrong in ["127.0.0.1:4318", "https://collector.example", "http://", "http:///v1", "http://user:pw@h", "http://h?x=1"]
        {
            assert_eq!(with(wrong).unwrap_err().0, "otlp_endpoint", "{wrong}");
        }
        let recording = RecordingConfig { keep_days: 0, ..RecordingConfig::default() };
        assert_eq!(OpsConfig { recording, ..OpsConfig::default() }.check().unwrap_err().0, "recording.keep_days");
    }
}
