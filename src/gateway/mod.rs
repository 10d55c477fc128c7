//! Acquirers. A gateway is told to charge and can be asked what became of our reference; it decides nothing about our books.

pub mod sandbox;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::money::Money;
use crate::payment::{BankWord, Expiry, GatewayKey};
use crate::secret::{Pan, SecretBytes};

/// `[gateway]`: which acquirer, and where the sandbox keeps its journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Which acquirer: `sandbox` is the only one yet. It charges nobody.
    pub kind: GatewayKind,
    /// The sandbox's append-only journal: what "the bank" saw. It survives restarts, as a bank would.
    pub sandbox_journal: std::path::PathBuf,
    /// How late the sandbox answers, in milliseconds.
    pub sandbox_latency_ms: u64,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self { kind: GatewayKind::Sandbox, sandbox_journal: "sandbox-journal.jsonl".into(), sandbox_latency_ms: 50 }
    }
}

/// Which acquirer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayKind {
    /// In this process; see [`sandbox`].
    Sandbox,
}

/// What is sent to charge a card. It holds the card number, so it lives only while it is being sent.
#[derive(Clone)]
pub struct ChargeRequest {
    /// Our reference: the attempt's identifier.
    pub our_reference: String,
    /// The same for every send of one attempt.
    pub idempotency_key: GatewayKey,
    /// How much.
    pub amount: Money,
    /// The card's number.
    pub pan: Pan,
    /// The card's last month.
    pub expiry: Option<Expiry>,
    /// What the cardholder's statement says: the payee's name.
    pub statement: String,
}

impl fmt::Debug for ChargeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChargeRequest")
            .field("our_reference", &self.our_reference)
            .field("amount", &self.amount)
            .finish_non_exhaustive()
    }
}

/// An acquirer.
#[async_trait]
pub trait Gateway: Send + Sync + fmt::Debug {
    /// Its name in the books: `sandbox`.
    fn name(&self) -> &'static str;

    /// Asks for a charge. Anything but a clear yes or no is [`BankWord::Silence`]; an answer of `NotFound` makes no sense here.
    /// The same idempotency key with the same content never charges twice.
    async fn charge(&self, request: ChargeRequest) -> BankWord;

    /// What became of our reference. `NotFound` right after a charge proves nothing. An error is [`BankWord::Silence`].
    async fn status(&self, our_reference: &str) -> BankWord;
}

/// Opens the acquirer that the config names. `journal_key` is the vault's key for the sandbox's journal.
pub fn open(
    cfg: &GatewayConfig,
    journal_key: SecretBytes,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Gateway>, sandbox::SandboxError> {
    match cfg.kind {
        GatewayKind::Sandbox => {
            let latency = Duration::from_millis(cfg.sandbox_latency_ms);
            Ok(Arc::new(sandbox::SandboxGateway::open(&cfg.sandbox_journal, latency, journal_key, clock)?))
        }
    }
}
