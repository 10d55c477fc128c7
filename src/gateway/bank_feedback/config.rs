//! `[gateway.bank_feedback]`: where the bank's messages are heard, where it is instructed, by which keys both sides know each
//! other, and how long anybody waits. Keys come from files of their owner's alone, never from the configuration file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::gateway::target::Target;
use crate::payment::pairing::Waits;
use crate::secret::{SecretBytes, read_private};

/// A file of secrets is no longer than this.
const SECRET_FILE_LIMIT_BYTES: u64 = 8_192;
/// So many of the bank's secrets, and so many of its keys, are good at once: the old and the new while one is being exchanged.
const KEYS_LIMIT: usize = 8;
/// Shorter secrets could be guessed; whoever guesses one can say that anything is to be deducted
/// (https://github.com/standard-webhooks/standard-webhooks: 24 to 64 bytes).
const SHORTEST_SECRET_BYTES: usize = 24;
/// How long the key of accounts is.
const ACCOUNT_KEY_BYTES: usize = 32;

/// `[gateway.bank_feedback]`: a bank that announces deductions and is instructed to carry them out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BankFeedbackConfig {
    /// Where the bank's messages are heard, in plain HTTP: behind a proxy that does TLS.
    pub listen: SocketAddr,
    /// Where instructions are sent. Plain http is only taken for this machine itself, for a stand-in.
    pub instructions_url: String,
    /// Whose certificates the bank's may be signed by: the system's list of authorities, PEM.
    pub roots_file: PathBuf,
    /// File with the key that accounts are named under, 64 hexadecimal digits that the bank has too; chmod 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_key_file: Option<PathBuf>,
    /// File with the secrets that the bank signs with by HMAC, in base64 (whsec_ may stand before), one a line, all of them good;
    /// chmod 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bank_secrets_file: Option<PathBuf>,
    /// The bank's Ed25519 public keys, 64 hexadecimal digits each, all of them good.
    pub bank_public_keys: Vec<String>,
    /// How long a confirmed payment waits for the bank's message, in seconds; then it has failed.
    pub wait_for_bank_s: u64,
    /// How long a message waits for its payment, in seconds; then a person looks at it.
    pub wait_for_payment_s: u64,
    /// How long the bank may take to answer an instruction, in milliseconds; then it is sent again.
    pub answer_timeout_ms: u64,
    /// The longest pause before an instruction is sent again, in seconds; the first is one second, and each is twice the one
    /// before.
    pub retry_most_s: u64,
    /// References that may be open at a time; beyond, the bank is asked to come again later.
    pub open_limit: usize,
}

impl Default for BankFeedbackConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8423)),
            instructions_url: String::new(),
            roots_file: "/etc/ssl/certs/ca-certificates.crt".into(),
            account_key_file: None,
            bank_secrets_file: None,
            bank_public_keys: vec![],
            wait_for_bank_s: 3_600,
            wait_for_payment_s: 86_400,
            answer_timeout_ms: 10_000,
            retry_most_s: 300,
            open_limit: 100_000,
        }
    }
}

/// What is wrong with `[gateway.bank_feedback]`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("gateway.bank_feedback.{key}: {what}")]
pub struct BankFeedbackError {
    /// Which key.
    pub key: &'static str,
    /// What is wrong and what to do about it.
    pub what: String,
}

impl BankFeedbackError {
    /// For `key`.
    pub fn new(key: &'static str, what: impl Into<String>) -> Self {
        Self { key, what: what.into() }
    }
}

impl BankFeedbackConfig {
    /// Files that are named relative to the data directory.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.account_key_file.iter_mut().chain(&mut self.bank_secrets_file).chain(std::iter::once(&mut self.roots_file))
    }

    /// What a type can't say.
    pub fn check(&self) -> Result<(), BankFeedbackError> {
        self.target()?;
        self.public_keys()?;
        let rule = |ok: bool, key, what: &str| if ok { Ok(()) } else { Err(BankFeedbackError::new(key, what)) };
        rule(
            self.bank_secrets_file.is_some() || !self.bank_public_keys.is_empty(),
            "bank_public_keys",
            "is empty, and bank_secrets_file is unset: without either nobody can tell the bank's messages from others",
        )?;
        rule(self.account_key_file.is_some(), "account_key_file", "unset: accounts are named under a key that the bank has too")?;
        rule((1..=86_400).contains(&self.wait_for_bank_s), "wait_for_bank_s", "must be 1 to 86400, a day")?;
        rule((1..=2_592_000).contains(&self.wait_for_payment_s), "wait_for_payment_s", "must be 1 to 2592000, 30 days")?;
        rule((100..=60_000).contains(&self.answer_timeout_ms), "answer_timeout_ms", "must be 100 to 60000")?;
        rule((1..=3_600).contains(&self.retry_most_s), "retry_most_s", "must be 1 to 3600")?;
        rule((1..=1_000_000).contains(&self.open_limit), "open_limit", "must be 1 to 1000000")
    }

    /// The waits as the pure core wants them.
    pub fn waits(&self) -> Waits {
        Waits { for_payment: Duration::from_secs(self.wait_for_payment_s), for_bank: Duration::from_secs(self.wait_for_bank_s) }
    }

    /// Where instructions go.
    pub fn target(&self) -> Result<Target, BankFeedbackError> {
        Target::parse(&self.instructions_url).map_err(|what| BankFeedbackError::new("instructions_url", what))
    }

    /// The bank's public keys.
    pub fn public_keys(&self) -> Result<Vec<[u8; 32]>, BankFeedbackError> {
        let wrong = |what: String| BankFeedbackError::new("bank_public_keys", what);
        if self.bank_public_keys.len() > KEYS_LIMIT {
            return Err(wrong(format!("more than {KEYS_LIMIT}: take out those that the bank no longer signs with")));
        }
        let key = |text: &String| {
            let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
            bytes.ok_or_else(|| wrong(format!("`{text}` is no Ed25519 public key: 64 hexadecimal digits")))
        };
        self.bank_public_keys.iter().map(key).collect()
    }

    /// The secrets that the bank signs with; none, where it only signs with keys.
    pub fn secrets(&self) -> Result<Vec<SecretBytes>, BankFeedbackError> {
        let wrong = |what: String| BankFeedbackError::new("bank_secrets_file", what);
        let Some(file) = &self.bank_secrets_file else { return Ok(Vec::new()) };
        let text = read_private(file, SECRET_FILE_LIMIT_BYTES).map_err(wrong)?;
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() || lines.len() > KEYS_LIMIT {
            return Err(wrong(format!("must hold 1 to {KEYS_LIMIT} secrets, one a line")));
        }
        let secret = |line: &str| {
            let bytes = STANDARD.decode(line.strip_prefix("whsec_").unwrap_or(line)).map(Zeroizing::new);
            let bytes = bytes.ok().filter(|bytes| bytes.len() >= SHORTEST_SECRET_BYTES);
            let what = || wrong(format!("a line is no secret: base64 of at least {SHORTEST_SECRET_BYTES} bytes"));
            bytes.map(|bytes| SecretBytes::new(bytes.to_vec())).ok_or_else(what)
        };
        lines.into_iter().map(secret).collect()
    }

    /// The key that accounts are named under.
    pub fn account_key(&self) -> Result<SecretBytes, BankFeedbackError> {
        let wrong = |what: String| BankFeedbackError::new("account_key_file", what);
        let file = self.account_key_file.as_ref().ok_or_else(|| wrong("unset".into()))?;
        let text = read_private(file, SECRET_FILE_LIMIT_BYTES).map_err(wrong)?;
        let key = hex::decode(text.trim()).map(SecretBytes::new).ok().filter(|key| key.expose().len() == ACCOUNT_KEY_BYTES);
        key.ok_or_else(|| wrong("holds no key: 64 hexadecimal digits".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn file(dir: &Path, text: &str) -> Option<PathBuf> {
        let path = dir.join("secret");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Some(path)
    }

    fn well() -> BankFeedbackConfig {
        BankFeedbackConfig {
            instructions_url: "https://bank.example/v1/instructions".into(),
            account_key_file: Some("account.key".into()),
            bank_public_keys: vec!["07".repeat(32)],
            ..BankFeedbackConfig::default()
        }
    }

    #[test]
    fn what_can_not_work_names_its_key() {
        assert_eq!(well().check(), Ok(()));
        assert_eq!(well().target().unwrap().path, "/v1/instructions");
        let of = |change: fn(&mut BankFeedbackConfig)| {
            let mut c = well();
            change(&mut c);
            c.check().unwrap_err().key
        };
        assert_eq!(of(|c| c.instructions_url.clear()), "instructions_url");
        assert_eq!(of(|c| c.instructions_url = "http://bank.example/".into()), "instructions_url");
        assert_eq!(of(|c| c.bank_public_keys.clear()), "bank_public_keys");
        assert_eq!(of(|c| c.bank_public_keys = vec!["07".repeat(31)]), "bank_public_keys");
        assert_eq!(of(|c| c.bank_public_keys = vec!["07".repeat(32); 9]), "bank_public_keys");
        assert_eq!(of(|c| c.account_key_file = None), "account_key_file");
        assert_eq!(of(|c| c.wait_for_bank_s = 0), "wait_for_bank_s");
        assert_eq!(of(|c| c.wait_for_payment_s = 0), "wait_for_payment_s");
        assert_eq!(of(|c| c.answer_timeout_ms = 0), "answer_timeout_ms");
        assert_eq!(of(|c| c.retry_most_s = 0), "retry_most_s");
        assert_eq!(of(|c| c.open_limit = 0), "open_limit");
        let password = BankFeedbackConfig { instructions_url: "https://me:hunter2@bank.example/".into(), ..well() };
        assert!(!password.check().unwrap_err().to_string().contains("hunter2"));
    }

    #[test]
    fn secrets_come_from_files_of_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let with = |text: &str| BankFeedbackConfig { bank_secrets_file: file(dir.path(), text), ..well() }.secrets();
        let (one, two) = (STANDARD.encode([1; 24]), STANDARD.encode([2; 64]));
        let secrets = with(&format!("{one}\n\n whsec_{two} \n")).unwrap();
        assert_eq!(secrets.iter().map(|s| s.expose().to_vec()).collect::<Vec<_>>(), [vec![1; 24], vec![2; 64]]);
        for bad in ["", "\n", "whsec_", "not base64!", &STANDARD.encode([1; 23]), &format!("{one}\n").repeat(9)] {
            let told = with(bad).unwrap_err();
            assert_eq!(told.key, "bank_secrets_file");
        }
        let key = |text: &str| BankFeedbackConfig { account_key_file: file(dir.path(), text), ..well() }.account_key();
        assert_eq!(key(&format!("{}\n", "0a".repeat(32))).unwrap().expose(), [10; 32]);
        for bad in ["", "0a", &"0a".repeat(33), &"zz".repeat(32)] {
            assert!(key(bad).is_err_and(|e| bad.is_empty() || !e.to_string().contains(bad)), "{bad}");
        }
    }
}
