//! Acquirers. A gateway is told to charge and can be asked what became of our reference; it decides nothing about our books.

pub mod absent;
pub mod bank_feedback;
pub(crate) mod http;
pub mod iso8583;
mod news;
pub mod sandbox;
pub mod stripe;
pub mod target;
pub(crate) mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Timestamp};
use crate::money::Money;
use crate::payment::{BankWord, Expiry, GatewayKey, Operation};
use crate::secret::{Pan, SecretBytes};

pub use news::{Delivery, DisputeNews, DisputeStage, Listening, News};

/// `[gateway]`: which acquirer, where the sandbox keeps its journal, and a section for each wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Which acquirer: `sandbox`, which charges nobody, `iso8583`, a bank host, `stripe`, or `bank_feedback`, a bank that announces
    /// deductions.
    pub kind: GatewayKind,
    /// The sandbox's append-only journal: what "the bank" saw. It survives restarts, as a bank would.
    pub sandbox_journal: std::path::PathBuf,
    /// How late the sandbox answers, in milliseconds.
    pub sandbox_latency_ms: u64,
    /// A bank host that speaks ISO 8583.
    pub iso8583: iso8583::config::Iso8583Config,
    /// The Stripe wire.
    pub stripe: stripe::StripeConfig,
    /// A bank that announces deductions.
    pub bank_feedback: bank_feedback::BankFeedbackConfig,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            kind: GatewayKind::Sandbox,
            sandbox_journal: "sandbox-journal.jsonl".into(),
            sandbox_latency_ms: 50,
            iso8583: iso8583::config::Iso8583Config::default(),
            stripe: stripe::StripeConfig::default(),
            bank_feedback: bank_feedback::BankFeedbackConfig::default(),
        }
    }
}

impl GatewayConfig {
    /// What a type can't say of the acquirer that is chosen. The error is the key and what is wrong with it.
    pub fn check(&self) -> Result<(), (String, String)> {
        match self.kind {
            GatewayKind::Sandbox => Ok(()),
            GatewayKind::Iso8583 => self.iso8583.check().map_err(|e| (format!("gateway.iso8583.{}", e.key), e.what)),
            GatewayKind::Stripe => self.stripe.check().map_err(|e| (format!("gateway.stripe.{}", e.key), e.what)),
            GatewayKind::BankFeedback => {
                self.bank_feedback.check().map_err(|e| (format!("gateway.bank_feedback.{}", e.key), e.what))
            }
        }
    }
}

/// Which acquirer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayKind {
    /// In this process; see [`sandbox`].
    Sandbox,
    /// A bank host over TCP; see [`iso8583`].
    Iso8583,
    /// Over the internet; see [`stripe`].
    Stripe,
    /// A bank that announces deductions; see [`bank_feedback`].
    BankFeedback,
}

impl GatewayKind {
    /// What [`Gateway::name`] gives: its name in the books.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Iso8583 => "iso8583",
            Self::Stripe => "stripe",
            Self::BankFeedback => "bank_feedback",
        }
    }
}

/// What an acquirer is asked to do for one attempt. It is the same, to the byte, however often it is sent: everything in it was committed
/// with the attempt. It may hold the card number, so it lives only while it is being sent.
#[derive(Clone)]
pub struct GatewayRequest {
    /// What is asked.
    pub operation: Operation,
    /// Our reference: the attempt's identifier.
    pub our_reference: String,
    /// The identifier of the payment request that is paid: what the payee knows the payment by.
    pub request: String,
    /// The attempt's number, counted up by the database: trace numbers of wires that have them come from it.
    pub number: u64,
    /// When the attempt was written down: what a wire takes for the time of transmission.
    pub prepared_at: Timestamp,
    /// The same for every send of one attempt.
    pub idempotency_key: GatewayKey,
    /// How much.
    pub amount: Money,
    /// The card, for [`Operation::Charge`] and [`Operation::Authorise`], for the others by [`Gateway::always_names_card`]. `None` also where
    /// it has been erased since.
    pub card: Option<CardData>,
    /// What is captured, voided or refunded; `None` for the other operations.
    pub original: Option<Original>,
    /// What the cardholder's statement says: the payee's name.
    pub statement: String,
}

/// A card as an acquirer is told of it. Never a security code.
#[derive(Clone)]
pub struct CardData {
    /// The number.
    pub pan: Pan,
    /// The last month.
    pub expiry: Option<Expiry>,
}

/// The attempt that a capture, void or refund refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// What it was: [`Operation::Authorise`], [`Operation::Capture`] or [`Operation::Charge`].
    pub operation: Operation,
    /// Our reference of it.
    pub our_reference: String,
    /// Its number.
    pub number: u64,
    /// When it was written down.
    pub prepared_at: Timestamp,
    /// What was authorised or charged.
    pub amount: Money,
    /// What the acquirer calls it.
    pub gateway_reference: String,
}

impl fmt::Debug for GatewayRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayRequest")
            .field("operation", &self.operation)
            .field("our_reference", &self.our_reference)
            .field("amount", &self.amount)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CardData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CardData(…)")
    }
}

/// An acquirer.
#[async_trait]
pub trait Gateway: Send + Sync + fmt::Debug {
    /// Its name in the books: `sandbox`.
    fn name(&self) -> &'static str;

    /// Asks for what the request says. Anything but a clear yes or no is [`BankWord::Silence`]; an answer of `NotFound` makes no sense here.
    /// The same idempotency key with the same content never moves money twice.
    async fn send(&self, request: &GatewayRequest) -> BankWord;

    /// Finds out what became of an earlier [`Gateway::send`] of the same request, or makes sure that nothing does: a wire that can't be asked
    /// takes it back instead and answers [`BankWord::Reversed`] once that was acknowledged. `NotFound` right after a send proves nothing. An
    /// error is [`BankWord::Silence`].
    async fn resolve(&self, request: &GatewayRequest) -> BankWord;

    /// Whether [`Gateway::resolve`] only asks. Where it takes back instead, nobody may call it for what waits for a person's decision.
    fn resolve_only_asks(&self) -> bool {
        true
    }

    /// Whether its wire wants the card's number in captures, voids, refunds and in what takes back, too, where the number is still there.
    fn always_names_card(&self) -> bool {
        false
    }
}

/// Opens the acquirer that the config names, within a runtime of tokio. `journal_key` is the vault's key for the sandbox's journal.
/// One that needs our journal of deductions is opened by who has that: [`bank_feedback::BankFeedbackGateway::open`].
pub fn open(cfg: &GatewayConfig, journal_key: SecretBytes, clock: Arc<dyn Clock>) -> Result<Arc<dyn Gateway>, GatewayError> {
    match cfg.kind {
        GatewayKind::Sandbox => {
            let latency = Duration::from_millis(cfg.sandbox_latency_ms);
            Ok(Arc::new(sandbox::SandboxGateway::open(&cfg.sandbox_journal, latency, journal_key, clock)?))
        }
        GatewayKind::Iso8583 => Ok(Arc::new(iso8583::Iso8583Gateway::open(&cfg.iso8583, clock)?)),
        GatewayKind::Stripe => {
            let env = |name: &str| std::env::var(name).ok();
            Ok(Arc::new(stripe::StripeGateway::open(&cfg.stripe, env, clock)?))
        }
        GatewayKind::BankFeedback => Err(GatewayError::ServiceOnly),
    }
}

/// Why an acquirer can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The sandbox's journal.
    #[error(transparent)]
    Sandbox(#[from] sandbox::SandboxError),
    /// The bank host's configuration.
    #[error(transparent)]
    Iso8583(#[from] iso8583::Iso8583Error),
    /// Stripe's section, key or authorities.
    #[error(transparent)]
    Stripe(#[from] stripe::StripeError),
    /// The bank's section or keys.
    #[error(transparent)]
    BankFeedback(#[from] bank_feedback::BankFeedbackError),
    /// It is asked outside of a service.
    #[error("with `gateway.kind = \"bank_feedback\"` the bank is spoken to by a running service alone")]
    ServiceOnly,
}
