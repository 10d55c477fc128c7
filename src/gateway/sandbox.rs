//! An acquirer in this process. It charges nobody, but it behaves like a bank: it remembers idempotency keys, loses answers, answers late, bounds captures
//! and refunds, and keeps its own durable journal, which tests read to see what "the bank" saw when our process was killed.
//!
//! | card number           | what it does                                                                        |
//! |-----------------------|-------------------------------------------------------------------------------------|
//! | 4000 0000 0000 9995   | declined: insufficient funds                                                        |
//! | 4000 0000 0000 0069   | declined: expired card                                                              |
//! | 4000 0000 0000 0002   | declined: do not honour                                                             |
//! | 4000 0000 0000 0119   | charged, but the answer never comes; a question finds it                            |
//! | 4000 0000 0000 0101   | charged, and the answer comes later than anybody waits                              |
//! | 4000 0000 0000 0200   | the network delivers it twice; charged once                                         |
//! | 4000 0000 0000 0259   | the answer never comes and nothing was charged; a question finds nothing            |
//! | 4000 0000 0000 0341   | the first send gets a server error and charges nothing; a second one is charged     |
//! | 4000 0000 0000 0127   | charged one minor unit too much                                                     |
//! | 4000 0000 0000 5126   | charged, the answer never comes, and the charge is taken back                       |
//! | 4000 0000 0000 3220   | charged or authorised; captures are declined                                        |
//! | 4000 0000 0000 7726   | charged or authorised; refunds are declined                                         |
//! | 4000 0000 0000 0093   | charged or authorised; answers to captures, voids and refunds never come            |
//! | any other valid one   | charged: 4111 1111 1111 1111, 5555 5555 5555 4444, …                                |
//!
//! Several processes may share a journal: each reads what the others appended before it decides.

mod bank;
mod journal;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use self::bank::{Answer, Bank, Way};
use self::journal::{GroupSync, Journal};
use super::{Gateway, GatewayKind, GatewayRequest};
use crate::clock::Clock;
use crate::payment::BankWord;
use crate::secret::SecretBytes;

pub use self::journal::{Did, JournalLine, SandboxError};

/// How long the sandbox keeps silent when it loses an answer; longer than anybody waits.
const LOST_ANSWER_MS: u64 = 600_000;
/// How long a late answer takes; longer than `processor.gateway_timeout_ms` is by default.
const LATE_ANSWER_MS: u64 = 20_000;

/// The sandbox.
pub struct SandboxGateway {
    bank: Arc<Mutex<Bank>>,
    sync: Arc<GroupSync>,
    latency: Duration,
}

impl fmt::Debug for SandboxGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SandboxGateway")
    }
}

impl SandboxGateway {
    /// Opens the sandbox with its journal; what it did before a restart it still knows. `key` is for hashing card numbers.
    pub fn open(journal: &Path, latency: Duration, key: SecretBytes, clock: Arc<dyn Clock>) -> Result<Self, SandboxError> {
        let file = Journal::open(journal)?;
        let sync = file.syncing().map_err(|source| SandboxError::Io { path: journal.to_owned(), source })?;
        let bank = Bank::open(file, key, clock)?;
        Ok(Self { bank: Arc::new(Mutex::new(bank)), sync: Arc::new(sync), latency })
    }

    /// Reads a journal, as tests and commands do.
    pub fn read_journal(journal: &Path) -> Result<Vec<JournalLine>, SandboxError> {
        journal::read(journal)
    }

    async fn delay(&self, by: Duration) {
        // Sleeping no time at all still costs a timer's tick.
        if !by.is_zero() {
            tokio::time::sleep(by).await;
        }
    }
}

#[async_trait]
impl Gateway for SandboxGateway {
    fn name(&self) -> &'static str {
        GatewayKind::Sandbox.name()
    }

    async fn send(&self, request: &GatewayRequest) -> BankWord {
        self.delay(self.latency).await;
        let (bank, sync, request) = (self.bank.clone(), self.sync.clone(), request.clone());
        // On a thread of its own: the bank goes on though we stop listening.
        let work = move || {
            let answer = bank.lock().unwrap_or_else(PoisonError::into_inner).take(&request)?;
            sync.up_to(answer.journal_end)?;
            Ok::<Answer, SandboxError>(answer)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(answer)) => match answer.way {
                Way::Straight => answer.word,
                Way::Late => {
                    self.delay(Duration::from_millis(LATE_ANSWER_MS)).await;
                    answer.word
                }
                Way::Lost => {
                    self.delay(Duration::from_millis(LOST_ANSWER_MS)).await;
                    BankWord::Silence
                }
            },
            Ok(Err(error)) => {
                tracing::error!(%error, "the sandbox gateway can't use its journal; nobody is answered");
                BankWord::Silence
            }
            Err(error) => {
                tracing::error!(%error, "the sandbox gateway failed");
                BankWord::Silence
            }
        }
    }

    async fn resolve(&self, request: &GatewayRequest) -> BankWord {
        self.delay(self.latency).await;
        let found = self.bank.lock().unwrap_or_else(PoisonError::into_inner).asked_about(&request.our_reference);
        found.unwrap_or_else(|error| {
            tracing::error!(%error, "the sandbox gateway can't read its journal");
            BankWord::Silence
        })
    }
}

#[cfg(test)]
mod tests;
