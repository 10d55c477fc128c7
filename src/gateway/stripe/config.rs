//! `[gateway.stripe]`, and the two secrets that go with it: they come from the environment or from files of their owner's alone,
//! never from the configuration file.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::gateway::target::Target;
use crate::secret::{SecretBytes, read_private};

/// The environment variable with the secret (or restricted) API key.
pub const KEY_ENV: &str = "VOICEPAY_STRIPE_KEY";
/// The environment variable with the webhook signing secrets, separated by commas.
pub const WEBHOOK_SECRETS_ENV: &str = "VOICEPAY_STRIPE_WEBHOOK_SECRETS";

/// A file of secrets is no longer than this.
const SECRET_FILE_LIMIT_BYTES: u64 = 8_192;
/// So many webhook secrets are good at once: the old and the new while one is being exchanged, for each of a few endpoints.
const WEBHOOK_SECRETS_LIMIT: usize = 8;

/// `[gateway.stripe]`: the Stripe wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StripeConfig {
    /// Where the API is. Plain http is only taken for this machine itself, for a stand-in.
    pub url: String,
    /// Whose certificates the API's may be signed by: the system's list of authorities, PEM.
    pub roots_file: PathBuf,
    /// File with the secret API key in its first line, chmod 600. The environment variable VOICEPAY_STRIPE_KEY goes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// How long one request may take in all, in milliseconds; a charge is two. Keep twice this below
    /// processor.gateway_timeout_ms.
    pub timeout_ms: u64,
    /// How many requests are open at a time; further ones wait their turn, in the time that they have. As many as processor.batch.
    pub max_at_once: usize,
    /// Where webhooks are heard, in plain HTTP: behind a proxy that does TLS. Without webhook secrets nothing is heard there.
    pub webhook_listen: SocketAddr,
    /// File with the webhook signing secrets (whsec_…), one a line, all of them good; chmod 600. The environment variable
    /// VOICEPAY_STRIPE_WEBHOOK_SECRETS, separated by commas, goes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_secrets_file: Option<PathBuf>,
    /// A webhook's time stamp may differ from our clock by so much, to either side, in seconds.
    pub webhook_tolerance_s: u64,
}

impl Default for StripeConfig {
    fn default() -> Self {
        Self {
            url: "https://api.stripe.com".into(),
            roots_file: "/etc/ssl/certs/ca-certificates.crt".into(),
            key_file: None,
            timeout_ms: 7_000,
            max_at_once: 64,
            webhook_listen: SocketAddr::from(([127, 0, 0, 1], 8422)),
            webhook_secrets_file: None,
            webhook_tolerance_s: 300,
        }
    }
}

/// What is wrong with `[gateway.stripe]`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("gateway.stripe.{key}: {what}")]
pub struct StripeError {
    /// Which key.
    pub key: &'static str,
    /// What is wrong and what to do about it.
    pub what: String,
}

impl StripeError {
    pub(super) fn new(key: &'static str, what: impl Into<String>) -> Self {
        Self { key, what: what.into() }
    }
}

impl StripeConfig {
    /// Files that are named relative to the data directory.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.key_file.iter_mut().chain(&mut self.webhook_secrets_file).chain(std::iter::once(&mut self.roots_file))
    }

    /// What a type can't say.
    pub fn check(&self) -> Result<(), StripeError> {
        target(&self.url)?;
        let within = |ok: bool, key: &'static str, what: &str| if ok { Ok(()) } else { Err(StripeError::new(key, what)) };
        within((100..=60_000).contains(&self.timeout_ms), "timeout_ms", "must be 100 to 60000")?;
        within((1..=1_000).contains(&self.max_at_once), "max_at_once", "must be 1 to 1000")?;
        within(
            (1..=3_600).contains(&self.webhook_tolerance_s),
            "webhook_tolerance_s",
            "must be 1 to 3600: what is older may have been recorded",
        )
    }

    /// The API key. The environment is an argument: names and values as in `std::env::var`.
    pub(super) fn api_key(&self, env: impl Fn(&str) -> Option<String>) -> Result<SecretBytes, StripeError> {
        let wrong = |what: String| StripeError::new("key_file", what);
        let key = match (env(KEY_ENV).map(Zeroizing::new), &self.key_file) {
            (Some(key), _) => key,
            (None, Some(file)) => read_private(file, SECRET_FILE_LIMIT_BYTES).map_err(wrong)?,
            (None, None) => return Err(wrong(format!("unset, and so is {KEY_ENV}: Stripe needs a secret or restricted key"))),
        };
        let key = key.lines().next().unwrap_or("").trim();
        // A publishable key can't charge; and whatever stands in a header must not be able to end it.
        let fits = (key.starts_with("sk_") || key.starts_with("rk_")) && key.bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            return Err(wrong(format!(
                "this is no secret key: it starts with sk_ or rk_ (in {KEY_ENV} or the file's first line)"
            )));
        }
        Ok(SecretBytes::new(key.as_bytes().to_vec()))
    }

    /// The webhook signing secrets; none: webhooks are not heard.
    pub(super) fn webhook_secrets(&self, env: impl Fn(&str) -> Option<String>) -> Result<Vec<SecretBytes>, StripeError> {
        let wrong = |what: String| StripeError::new("webhook_secrets_file", what);
        let text = match (env(WEBHOOK_SECRETS_ENV).map(Zeroizing::new), &self.webhook_secrets_file) {
            (Some(text), _) => text,
            (None, Some(file)) => read_private(file, SECRET_FILE_LIMIT_BYTES).map_err(wrong)?,
            (None, None) => return Ok(Vec::new()),
        };
        let secrets: Vec<_> = text.split([',', '\n']).map(str::trim).filter(|s| !s.is_empty()).collect();
        if secrets.is_empty() {
            return Err(wrong(format!("empty: write signing secrets there (or in {WEBHOOK_SECRETS_ENV}), or leave both unset")));
        }
        if secrets.len() > WEBHOOK_SECRETS_LIMIT {
            return Err(wrong(format!(
                "more than {WEBHOOK_SECRETS_LIMIT} secrets: take out those that Stripe no longer signs with"
            )));
        }
        // Short ones could be guessed; whoever guesses one can say that anything was paid.
        const SHORTEST_SECRET_BYTES: usize = 16;
        if secrets.iter().any(|s| s.len() < SHORTEST_SECRET_BYTES) {
            return Err(wrong(format!(
                "a secret is shorter than {SHORTEST_SECRET_BYTES} characters: Stripe's start with whsec_"
            )));
        }
        Ok(secrets.into_iter().map(|s| SecretBytes::new(s.as_bytes().to_vec())).collect())
    }
}

/// Whom `url` names: a scheme and a host alone, as each request has a path of its own.
pub(super) fn target(url: &str) -> Result<Target, StripeError> {
    let wrong = |what: String| StripeError::new("url", what);
    let target = Target::parse(url).map_err(wrong)?;
    match target.path.as_str() {
        "/" => Ok(target),
        _ => Err(wrong(format!("`{url}` must be a scheme and a host alone, such as https://api.stripe.com"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn file(dir: &Path, text: &str, mode: u32) -> PathBuf {
        let path = dir.join("secret");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_key_comes_from_the_environment_or_a_private_file_and_never_prints() {
        let dir = tempfile::tempdir().unwrap();
        let none = |_: &str| None;
        let with = |text: &str, mode| StripeConfig { key_file: Some(file(dir.path(), text, mode)), ..StripeConfig::default() };
        let key = with("sk_test_fromfile\nmore\n", 0o600).api_key(none).unwrap();
        assert_eq!(key.expose(), b"sk_test_fromfile");
        let key = with("sk_test_fromfile", 0o600).api_key(|n| (n == KEY_ENV).then(|| "rk_live_env".into())).unwrap();
        assert_eq!(key.expose(), b"rk_live_env");
        assert!(!format!("{key:?}").contains("live"));
        let error = StripeConfig::default().api_key(none).unwrap_err().to_string();
        assert!(error.contains("gateway.stripe.key_file") && error.contains(KEY_ENV), "{error}");
        assert!(with("sk_test_x", 0o644).api_key(none).unwrap_err().what.contains("chmod 600"));
        for bad in ["", "pk_live_x", "sk_live_a b", "sk_live_\u{e9}"] {
            let error = with(bad, 0o600).api_key(none).unwrap_err().to_string();
            assert!(error.contains("sk_") && (bad.is_empty() || !error.contains(bad)), "{error}");
        }
    }

    #[test]
    fn several_webhook_secrets_are_good_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let none = |_: &str| None;
        let (old, new) = ("whsec_old_0123456789", "whsec_new_0123456789");
        let cfg = StripeConfig {
            webhook_secrets_file: Some(file(dir.path(), &format!("{old}\n{new}\n"), 0o600)),
            ..StripeConfig::default()
        };
        let secrets = cfg.webhook_secrets(none).unwrap();
        assert_eq!(secrets.iter().map(|s| s.expose().to_vec()).collect::<Vec<_>>(), [old.as_bytes(), new.as_bytes()]);
        assert_eq!(cfg.webhook_secrets(|_| Some(format!("{old}, {new}"))).unwrap().len(), 2);
        assert!(StripeConfig::default().webhook_secrets(none).unwrap().is_empty());
        for bad in [String::new(), "short".into(), [old; 9].join(",")] {
            assert!(cfg.webhook_secrets(|_| Some(bad.clone())).is_err(), "{bad}");
        }
    }
}
