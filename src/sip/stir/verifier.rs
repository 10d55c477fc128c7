//! An INVITE to its verdict: what the call says, the statement in its Identity header, the certificate, the signature.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Invalid;
use super::chain::{Roots, RootsError};
use super::config::{StirConfig, StirMode};
use super::fetch::Fetcher;
use super::statement::{self, CallFacts};
use super::used::Used;
use crate::clock::{Clock, Timestamp};
use crate::media::leg::{Attestation, AttestationFault};
use crate::sip::identity::{address_of, calling_user};
use crate::sip::signalling::{Invite, Refusal};

/// Why signed numbers can't be verified.
#[derive(Debug, thiserror::Error)]
pub enum StirError {
    /// A file that can't be read.
    #[error("sip.stir.{key}: {} can't be read: {source}", path.display())]
    Unreadable {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file that is of no use.
    #[error("sip.stir.{key}: {} is of no use: {problem}", path.display())]
    Unusable {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Goes through a call's Identity headers.
pub struct Verifier {
    config: StirConfig,
    roots: Roots,
    fetcher: Arc<Fetcher>,
    used: Mutex<Used>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("config", &self.config).field("roots", &self.roots).finish_non_exhaustive()
    }
}

/// A verdict, and why where it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// For the decision and the record.
    pub attestation: Attestation,
    why: Option<&'static str>,
}

impl Verifier {
    /// Reads the files that the configuration names. `None` where it is switched off.
    pub fn new(config: &StirConfig, clock: Arc<dyn Clock>) -> Result<Option<Self>, StirError> {
        match config.mode {
            StirMode::Off => return Ok(None),
            StirMode::Verify | StirMode::Require => {}
        }
        let unusable = |key, path: &Path, problem: &dyn std::fmt::Display| StirError::Unusable {
            key,
            path: path.to_owned(),
            problem: problem.to_string(),
        };
        let roots_file = config.roots_file.clone().unwrap_or_default();
        let bad_root = |e: RootsError| unusable("roots_file", &roots_file, &e);
        let mut roots = Roots::from_pem(&read("roots_file", &roots_file)?).map_err(bad_root)?;
        if let Some(lists) = &config.crl_file {
            roots = roots.with_revoked(&read("crl_file", lists)?).map_err(|e| unusable("crl_file", lists, &e))?;
        }
        let https = read("https_roots_file", &config.https_roots_file)?;
        let fetcher = Fetcher::new(&https, config.allow_private_hosts, config.fetch_limit, clock.clone())
            .map_err(|e| unusable("https_roots_file", &config.https_roots_file, &e))?;
        Ok(Some(Self { config: config.clone(), roots, fetcher: Arc::new(fetcher), used: Mutex::default(), clock }))
    }

    /// What this call's signature comes to, within `verdict_limit_ms`. `trusted`: the peer's P-Asserted-Identity counts.
    pub async fn verdict(&self, invite: &Invite, trusted: bool) -> Verdict {
        let verdict = match self.examine(invite, trusted).await {
            Ok(attestation) => Verdict { attestation, why: None },
            Err(invalid) => Verdict { attestation: invalid.into(), why: Some(invalid.why) },
        };
        let (attestation, fault) = (verdict.attestation.verstat(), verdict.attestation.fault().map(AttestationFault::code));
        let (call_id, why) = (&invite.call_id, verdict.why);
        tracing::info!(%call_id, attestation, fault, why, "the caller's signed number was looked at");
        verdict
    }

    async fn examine(&self, invite: &Invite, trusted: bool) -> Result<Attestation, Invalid> {
        let calling = calling_user(&invite.headers, trusted);
        let to = invite.headers.get("To").and_then(address_of);
        let called: Vec<&str> = to.into_iter().chain([invite.uri.as_str()]).collect();
        let facts = CallFacts {
            calling: calling.as_deref(),
            called: &called,
            date: invite.headers.get("Date"),
            default_country: &self.config.default_country,
        };
        // `y` is the compact form (RFC 8224 section 4).
        let values = invite.headers.all("Identity").chain(invite.headers.all("y"));
        let Some(statement) = statement::find(values, &facts, &self.config, self.clock.now())? else {
            return Ok(Attestation::Absent);
        };
        let fetch = self.fetcher.fetch(&statement.certificate);
        let chain = match tokio::time::timeout(Duration::from_millis(self.config.verdict_limit_ms), fetch).await {
            Ok(fetched) => fetched?,
            Err(_) => return Err(Invalid::new(AttestationFault::InfoUnreachable, "the certificate's server took too long")),
        };
        let now = self.clock.now();
        let attestation = statement.settle(&chain, &self.roots, now)?;
        // Only now: what does not hold may not use up what does.
        let until = Timestamp(statement.passport.claims.iat_s.saturating_mul(1_000)).plus(self.config.freshness());
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.once(statement.passport.signed(), &invite.call_id, until, now)?;
        Ok(attestation)
    }

    /// The refusal that the policy has for it, if it has one: RFC 8224 section 6.2.2, with the reason as RFC 9410 puts it.
    pub fn refusal(&self, verdict: &Verdict) -> Option<Refusal> {
        match self.config.mode {
            StirMode::Off | StirMode::Verify => return None,
            StirMode::Require => {}
        }
        let (status, phrase, why) = match verdict.attestation {
            Attestation::Full | Attestation::Partial | Attestation::Gateway => return None,
            Attestation::Absent => (428, "Use Identity Header", "this service takes calls with a signed number only"),
            Attestation::Failed(fault) => {
                let (status, phrase) = fault.sip_status();
                (status, phrase, verdict.why.unwrap_or(phrase))
            }
        };
        Some(Refusal::new(status).with("Reason", format!("STIR;cause={status};text=\"{phrase}\"")).warning(399, why))
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, StirError> {
    std::fs::read(path).map_err(|source| StirError::Unreadable { key, path: path.to_owned(), source })
}
