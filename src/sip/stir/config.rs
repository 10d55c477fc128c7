//! The section `[sip.stir]` of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::url::AllowedHost;
use crate::e164::E164;

/// What is done about signed caller numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StirMode {
    /// Identity headers are not looked at.
    #[default]
    Off,
    /// Each call gets a verdict, for the decision and the record.
    Verify,
    /// The same, and calls without a signature that holds are refused: 403, 428, 436, 437 or 438 (RFC 8224 section 6.2.2).
    Require,
}

/// Signed caller numbers (STIR/SHAKEN: RFC 8224, 8225, 8226, 8588).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StirConfig {
    /// `off`, `verify` (a verdict for the decision and the record) or `require` (calls without a signature that holds are
    /// refused: 403, 428, 436, 437 or 438). A verdict that fails makes `decision.challenge_failed_attestation` ask for fresh
    /// digits.
    pub mode: StirMode,
    /// PEM file with the authorities that certificates must lead to; needed unless off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roots_file: Option<PathBuf>,
    /// PEM file with lists of revoked certificates (`X509 CRL`), read at start and reload. Unset: no certificate is known to be
    /// revoked; lists are never fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl_file: Option<PathBuf>,
    /// Hosts that certificates may be fetched from, over HTTPS: `certs.example.org` (ports 443 and 8443),
    /// `certs.example.org:9443`, or `*.example.org` for all below it. A call whose certificate is elsewhere fails.
    pub allowed_hosts: Vec<AllowedHost>,
    /// PEM file with the authorities of those hosts' own TLS certificates; the system's on Debian by default.
    pub https_roots_file: PathBuf,
    /// Whether those hosts may have private addresses: in a laboratory only. What callers name must not lead into our network.
    pub allow_private_hosts: bool,
    /// Numbers that we are called under, beside those in To and the request's URI: where a trunk rewrites both.
    pub own_numbers: Vec<E164>,
    /// How long ago a number may have been signed, in seconds; clocks may differ by so much either way.
    pub freshness_s: u32,
    /// How long a verdict may take, fetching included, in milliseconds. The caller hears nothing meanwhile.
    pub verdict_limit_ms: u64,
    /// Certificates that are fetched at a time; one more waits.
    pub fetch_limit: usize,
    /// Country code of national numbers: `identity.default_country`, put in as the configuration is read.
    #[serde(skip)]
    pub default_country: String,
}

impl Default for StirConfig {
    fn default() -> Self {
        Self {
            mode: StirMode::Off,
            roots_file: None,
            crl_file: None,
            allowed_hosts: Vec::new(),
            https_roots_file: PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
            allow_private_hosts: false,
            own_numbers: Vec::new(),
            freshness_s: 60,
            verdict_limit_ms: 2_000,
            fetch_limit: 8,
            default_country: String::new(),
        }
    }
}

impl StirConfig {
    /// How far the signed time and ours may lie apart.
    pub fn freshness(&self) -> Duration {
        Duration::from_secs(u64::from(self.freshness_s))
    }

    /// What parses but cannot work: the key, and what it must be.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if !(1..=3_600).contains(&self.freshness_s) {
            return Err(("stir.freshness_s", "must be 1 to 3600"));
        }
        if !(100..=10_000).contains(&self.verdict_limit_ms) {
            return Err(("stir.verdict_limit_ms", "must be 100 to 10000: a caller waits for it"));
        }
        if !(1..=64).contains(&self.fetch_limit) {
            return Err(("stir.fetch_limit", "must be 1 to 64"));
        }
        match self.mode {
            StirMode::Off => Ok(()),
            StirMode::Verify | StirMode::Require if self.roots_file.is_none() => {
                Err(("stir.roots_file", "must name the authorities' certificates unless stir.mode is off"))
            }
            StirMode::Verify | StirMode::Require if self.allowed_hosts.is_empty() => {
                Err(("stir.allowed_hosts", "must name the hosts of certificates unless stir.mode is off"))
            }
            StirMode::Verify | StirMode::Require => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_named() {
        let at = |text: &str| toml::from_str::<StirConfig>(text).unwrap().check().map_err(|(key, _)| key);
        assert_eq!(at(""), Ok(()));
        assert_eq!(at("mode = \"verify\""), Err("stir.roots_file"));
        assert_eq!(at("mode = \"require\"\nroots_file = \"r.pem\""), Err("stir.allowed_hosts"));
        assert_eq!(at("mode = \"require\"\nroots_file = \"r.pem\"\nallowed_hosts = [\"*.example.org\"]"), Ok(()));
        assert_eq!(at("freshness_s = 0"), Err("stir.freshness_s"));
        assert_eq!(at("verdict_limit_ms = 60000"), Err("stir.verdict_limit_ms"));
        assert_eq!(at("fetch_limit = 0"), Err("stir.fetch_limit"));
        for (bad, says) in [
            ("mode = \"on\"", "verify"),
            ("allowed_hosts = [\"*\"]", "certs.example.org"),
            ("own_numbers = [\"pay\"]", "telephone number"),
            ("default_country = \"44\"", "default_country"),
        ] {
            let error = toml::from_str::<StirConfig>(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
