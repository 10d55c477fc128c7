//! An acquirer in this process. It charges nobody, but it behaves like a bank: it remembers idempotency keys, loses answers, answers late, and keeps
//! its own durable journal, which tests read to see what "the bank" saw when our process was killed.
//!
//! | card number           | what it does                                                                        |
//! |-----------------------|-------------------------------------------------------------------------------------|
//! | 4000 0000 0000 9995   | declined: insufficient funds                                                        |
//! | 4000 0000 0000 0069   | declined: expired card                                                              |
//! | 4000 0000 0000 0002   | declined: do not honour                                                             |
//! | 4000 0000 0000 0119   | charged, but the answer never comes; a question finds it                            |
//! | 4000 0000 0000 0259   | the answer never comes and nothing was charged; a question finds nothing            |
//! | 4000 0000 0000 0341   | the first send gets a server error and charges nothing; a second one is charged     |
//! | 4000 0000 0000 0127   | charged one minor unit too much                                                     |
//! | 4000 0000 0000 5126   | charged, the answer never comes, and the charge is taken back                       |
//! | any other valid one   | charged: 4111 1111 1111 1111, 5555 5555 5555 4444, …                                |
//!
//! The journal is one JSON object a line, appended and synced before an answer leaves. It holds no card number: a keyed hash and the last four digits.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::{CardData, Gateway, GatewayRequest};
use crate::clock::{Clock, Timestamp};
use crate::money::Money;
use crate::payment::{BankWord, DeclineReason, Operation};
use crate::secret::SecretBytes;

/// How long the sandbox keeps silent when it loses an answer; longer than anybody waits.
const LOST_ANSWER_MS: u64 = 600_000;

/// The sandbox.
pub struct SandboxGateway {
    bank: Arc<Mutex<Bank>>,
    latency: Duration,
}

impl fmt::Debug for SandboxGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SandboxGateway")
    }
}

/// One thing that the bank saw and what it did about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalLine {
    /// When.
    pub at: Timestamp,
    /// The reference that we gave.
    pub our_reference: String,
    /// The idempotency key that we gave.
    pub key: String,
    /// A keyed hash of the card number.
    pub card: String,
    /// Its last four digits.
    pub last4: String,
    /// What we asked for.
    pub asked: Money,
    /// What the bank did.
    pub did: Did,
    /// What it charged, if it did.
    pub charged: Option<Money>,
}

/// What the bank did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Did {
    /// Charged and answered.
    Charged,
    /// Charged; the answer is lost.
    ChargedSilently,
    /// Charged, the answer is lost, and taken back.
    ChargedThenReversed,
    /// Declined.
    DeclinedInsufficientFunds,
    /// Declined.
    DeclinedExpiredCard,
    /// Declined.
    DeclinedDoNotHonour,
    /// Lost before it did anything; no answer.
    Lost,
    /// A server error; it did nothing.
    ServerError,
    /// The same key again: it did nothing new and answered as before.
    Repeated,
    /// The same key with other content: it did nothing.
    KeyMisused,
}

impl Did {
    /// Whether money moved.
    pub fn charged(self) -> bool {
        match self {
            Self::Charged | Self::ChargedSilently | Self::ChargedThenReversed => true,
            Self::DeclinedInsufficientFunds
            | Self::DeclinedExpiredCard
            | Self::DeclinedDoNotHonour
            | Self::Lost
            | Self::ServerError
            | Self::Repeated
            | Self::KeyMisused => false,
        }
    }

    /// Whether the bank remembers it under its key.
    fn decided(self) -> bool {
        match self {
            Self::Charged
            | Self::ChargedSilently
            | Self::ChargedThenReversed
            | Self::DeclinedInsufficientFunds
            | Self::DeclinedExpiredCard
            | Self::DeclinedDoNotHonour => true,
            Self::Lost | Self::ServerError | Self::Repeated | Self::KeyMisused => false,
        }
    }
}

impl SandboxGateway {
    /// Opens the sandbox with its journal; what it charged before a restart it still knows. `key` is for hashing card numbers.
    pub fn open(journal: &Path, latency: Duration, key: SecretBytes, clock: Arc<dyn Clock>) -> Result<Self, SandboxError> {
        let io = |source| SandboxError::Io { path: journal.to_owned(), source };
        if let Some(dir) = journal.parent().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(io)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let mut file = options.open(journal).map_err(io)?;
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text)).map_err(io)?;
        // A kill in the middle of a write leaves half a line: nobody was answered because of it, so it never was.
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            file.set_len(u64::try_from(whole).unwrap_or(0)).and_then(|()| file.sync_all()).map_err(io)?;
        }
        let lines = parse_journal(text.get(..whole).unwrap_or_default(), journal)?;
        let mut bank = Bank { file, key, clock, known: HashMap::new(), tried: HashMap::new() };
        lines.into_iter().for_each(|line| bank.remember(line));
        Ok(Self { bank: Arc::new(Mutex::new(bank)), latency })
    }

    /// Reads a journal, as tests and `doctor` do.
    pub fn read_journal(journal: &Path) -> Result<Vec<JournalLine>, SandboxError> {
        let text = std::fs::read_to_string(journal).map_err(|source| SandboxError::Io { path: journal.to_owned(), source })?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        parse_journal(text.get(..whole).unwrap_or_default(), journal)
    }
}

#[async_trait]
impl Gateway for SandboxGateway {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    async fn send(&self, request: &GatewayRequest) -> BankWord {
        tokio::time::sleep(self.latency).await;
        let (bank, request) = (self.bank.clone(), request.clone());
        // On a thread of its own: the bank goes on though we stop listening.
        let done = tokio::task::spawn_blocking(move || bank.lock().unwrap_or_else(PoisonError::into_inner).take(&request)).await;
        match done {
            Ok(Ok(Said::Word(word))) => word,
            Ok(Ok(Said::Nothing)) => {
                tokio::time::sleep(Duration::from_millis(LOST_ANSWER_MS)).await;
                BankWord::Silence
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the sandbox gateway can't write its journal; it charged nothing");
                BankWord::Silence
            }
            Err(error) => {
                tracing::error!(%error, "the sandbox gateway failed");
                BankWord::Silence
            }
        }
    }

    async fn resolve(&self, request: &GatewayRequest) -> BankWord {
        tokio::time::sleep(self.latency).await;
        let bank = self.bank.lock().unwrap_or_else(PoisonError::into_inner);
        bank.known.values().find(|l| l.our_reference == request.our_reference).map_or(BankWord::NotFound, |line| bank.word(line))
    }
}

/// What is wrong with the sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Its journal can't be used.
    #[error("the sandbox journal {} can't be used: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its journal was altered.
    #[error("line {line} of the sandbox journal {} is damaged; move the file away to start anew", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

fn parse_journal(text: &str, path: &Path) -> Result<Vec<JournalLine>, SandboxError> {
    let damaged = |i: usize| SandboxError::Damaged { path: path.to_owned(), line: i + 1 };
    text.lines().enumerate().map(|(i, line)| serde_json::from_str(line).map_err(|_| damaged(i))).collect()
}

enum Said {
    Word(BankWord),
    Nothing,
}

struct Bank {
    file: File,
    key: SecretBytes,
    clock: Arc<dyn Clock>,
    /// What was decided, by idempotency key.
    known: HashMap<String, JournalLine>,
    /// How often a key was seen without a decision.
    tried: HashMap<String, u32>,
}

impl Bank {
    fn take(&mut self, r: &GatewayRequest) -> std::io::Result<Said> {
        // Only a charge yet; and without its card it can't be one.
        let (Operation::Charge, Some(card)) = (r.operation, &r.card) else {
            return Ok(Said::Word(BankWord::Declined(DeclineReason::Other)));
        };
        let mut line = JournalLine {
            at: self.clock.now(),
            our_reference: r.our_reference.clone(),
            key: r.idempotency_key.0.clone(),
            card: self.keyed(card.pan.ascii().as_bytes()),
            last4: card.pan.last4(),
            asked: r.amount,
            did: Did::Charged,
            charged: None,
        };
        if let Some(earlier) = self.known.get(&line.key).cloned() {
            let same = earlier.card == line.card && earlier.asked == line.asked && earlier.our_reference == line.our_reference;
            line.did = if same { Did::Repeated } else { Did::KeyMisused };
            self.append(&line)?;
            return Ok(Said::Word(if same { self.word(&earlier) } else { BankWord::Silence }));
        }
        line.did = self.decide(r, card);
        line.charged = match (line.did.charged(), card.pan.ascii().as_str()) {
            (true, "4000000000000127") => Money::new(r.amount.minor.get().saturating_add(1), r.amount.currency).ok(),
            (true, _) => Some(r.amount),
            (false, _) => None,
        };
        self.append(&line)?;
        let said = match line.did {
            Did::ChargedSilently | Did::ChargedThenReversed | Did::Lost => Said::Nothing,
            Did::ServerError => Said::Word(BankWord::Silence),
            Did::Charged
            | Did::DeclinedInsufficientFunds
            | Did::DeclinedExpiredCard
            | Did::DeclinedDoNotHonour
            | Did::Repeated
            | Did::KeyMisused => Said::Word(self.word(&line)),
        };
        self.remember(line);
        Ok(said)
    }

    fn decide(&self, r: &GatewayRequest, card: &CardData) -> Did {
        if card.expiry.is_some_and(|e| e.passed(self.clock.now())) {
            return Did::DeclinedExpiredCard;
        }
        match card.pan.ascii().as_str() {
            "4000000000009995" => Did::DeclinedInsufficientFunds,
            "4000000000000069" => Did::DeclinedExpiredCard,
            "4000000000000002" => Did::DeclinedDoNotHonour,
            "4000000000000119" => Did::ChargedSilently,
            "4000000000005126" => Did::ChargedThenReversed,
            "4000000000000259" => Did::Lost,
            "4000000000000341" if self.tried.get(&r.idempotency_key.0).copied().unwrap_or(0) == 0 => Did::ServerError,
            _ => Did::Charged,
        }
    }

    /// What the bank says of something that it decided.
    fn word(&self, line: &JournalLine) -> BankWord {
        match line.did {
            Did::Charged | Did::ChargedSilently => match line.charged {
                Some(charged) => BankWord::Approved { charged, gateway_reference: self.reference(line) },
                None => BankWord::Silence,
            },
            Did::ChargedThenReversed => BankWord::Reversed,
            Did::DeclinedInsufficientFunds => BankWord::Declined(DeclineReason::InsufficientFunds),
            Did::DeclinedExpiredCard => BankWord::Declined(DeclineReason::ExpiredCard),
            Did::DeclinedDoNotHonour => BankWord::Declined(DeclineReason::DoNotHonour),
            Did::Lost | Did::ServerError | Did::Repeated | Did::KeyMisused => BankWord::Silence,
        }
    }

    fn append(&mut self, line: &JournalLine) -> std::io::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()
    }

    fn remember(&mut self, line: JournalLine) {
        if line.did.decided() {
            self.known.entry(line.key.clone()).or_insert(line);
        } else {
            let n = self.tried.entry(line.key).or_insert(0);
            *n = n.saturating_add(1);
        }
    }

    /// The bank's own reference: the same for the same charge.
    fn reference(&self, line: &JournalLine) -> String {
        let mut text = format!("sbx_{}", self.keyed(line.our_reference.as_bytes()));
        text.truncate(20);
        text
    }

    fn keyed(&self, bytes: &[u8]) -> String {
        match Hmac::<Sha256>::new_from_slice(self.key.expose()) {
            Ok(mut mac) => {
                mac.update(bytes);
                hex::encode(mac.finalize().into_bytes())
            }
            Err(_) => String::new(), // HMAC takes keys of any length
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::money::Currency;
    use crate::payment::GatewayKey;
    use crate::secret::Pan;

    fn open(path: &Path) -> SandboxGateway {
        let clock = Arc::new(ManualClock::starting_at(Timestamp(1_800_000_000_000)));
        SandboxGateway::open(path, Duration::ZERO, SecretBytes::new(vec![7; 32]), clock).unwrap()
    }

    fn request(key: &str, pan: &str, minor: i64) -> GatewayRequest {
        GatewayRequest {
            operation: Operation::Charge,
            our_reference: format!("ref-{key}"),
            number: 1,
            prepared_at: Timestamp(1_800_000_000_000),
            idempotency_key: GatewayKey(key.into()),
            amount: Money::new(minor, Currency::Usd).unwrap(),
            card: Some(CardData { pan: Pan::parse(pan).unwrap(), expiry: None }),
            original: None,
            statement: "Shop".into(),
        }
    }

    #[tokio::test]
    async fn a_key_charges_once_even_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bank/journal.jsonl");
        let first = open(&path).send(&request("k", "4111111111111111", 500)).await;
        assert!(matches!(first, BankWord::Approved { .. }));
        let bank = open(&path);
        assert_eq!(bank.send(&request("k", "4111111111111111", 500)).await, first);
        assert_eq!(bank.send(&request("k", "4111111111111111", 501)).await, BankWord::Silence, "same key, other amount");
        assert_eq!(bank.resolve(&request("k", "4111111111111111", 500)).await, first);
        assert_eq!(bank.resolve(&request("other", "4111111111111111", 500)).await, BankWord::NotFound);
        let seen: Vec<_> = SandboxGateway::read_journal(&path).unwrap().into_iter().map(|l| l.did).collect();
        assert_eq!(seen, [Did::Charged, Did::Repeated, Did::KeyMisused]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_test_card_does_what_the_table_says() {
        let dir = tempfile::tempdir().unwrap();
        let bank = open(&dir.path().join("j"));
        let say = async |key: &str, pan: &str| bank.send(&request(key, pan, 500)).await;
        assert_eq!(say("a", "4000000000009995").await, BankWord::Declined(DeclineReason::InsufficientFunds));
        assert_eq!(say("b", "4000000000000069").await, BankWord::Declined(DeclineReason::ExpiredCard));
        assert_eq!(say("c", "4000000000000002").await, BankWord::Declined(DeclineReason::DoNotHonour));
        assert_eq!(say("d", "4000000000000119").await, BankWord::Silence);
        assert!(matches!(bank.resolve(&request("d", "4111111111111111", 500)).await, BankWord::Approved { .. }));
        assert_eq!(say("e", "4000000000000259").await, BankWord::Silence);
        assert_eq!(bank.resolve(&request("e", "4111111111111111", 500)).await, BankWord::NotFound);
        assert_eq!(say("f", "4000000000000341").await, BankWord::Silence);
        assert_eq!(bank.resolve(&request("f", "4111111111111111", 500)).await, BankWord::NotFound);
        assert!(matches!(say("f", "4000000000000341").await, BankWord::Approved { .. }));
        let too_much = Money::new(501, Currency::Usd).unwrap();
        assert!(matches!(say("g", "4000000000000127").await, BankWord::Approved { charged, .. } if charged == too_much));
        assert_eq!(say("h", "4000000000005126").await, BankWord::Silence);
        assert_eq!(bank.resolve(&request("h", "4111111111111111", 500)).await, BankWord::Reversed);
    }

    #[tokio::test]
    async fn a_torn_line_is_dropped_and_a_damaged_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        open(&path).send(&request("k", "4111111111111111", 500)).await;
        let good = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{good}{{\"at\":1,")).unwrap();
        open(&path).send(&request("l", "4111111111111111", 500)).await;
        assert_eq!(SandboxGateway::read_journal(&path).unwrap().len(), 2);
        std::fs::write(&path, format!("nonsense\n{good}")).unwrap();
        let clock = Arc::new(ManualClock::default());
        let error = SandboxGateway::open(&path, Duration::ZERO, SecretBytes::new(vec![7; 32]), clock).unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
    }

    #[tokio::test]
    async fn the_journal_holds_no_card_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        open(&path).send(&request("k", "4111111111111111", 500)).await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("411111") && text.contains("\"last4\":\"1111\""));
        assert!(!format!("{:?}", request("k", "4111111111111111", 500)).contains("4111"));
    }
}
