//! A bank that hears of deductions from the payee, tells us of them, and deducts once we have instructed it to
//! (docs/BANK.md). What this wire adds to [`payment::pairing`](crate::payment::pairing) is small: a charge is a confirmation, a
//! refund an order to give back, and what became of either is read from the journal. Nothing is sent from here, so that a
//! customer's word alone moves no money.

mod config;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde::de::value::{Error as NoWord, StrDeserializer};
use sha2::Sha256;

pub use config::{BankFeedbackConfig, BankFeedbackError};

use super::{Gateway, GatewayKind, GatewayRequest};
use crate::ids::{AttemptId, IdError, InstructionId, RequestId};
use crate::payment::pairing::{Account, Facts, Input, Pairing, Refusal, Standing};
use crate::payment::{BankWord, DeclineReason, Operation};
use crate::secret::{Pan, SecretBytes};

/// Who keeps the journal of deductions and speaks to the bank.
#[async_trait]
pub trait PendingDeductions: Send + Sync + fmt::Debug {
    /// Judges what happens to a reference and answers once what follows is in the journal. The same input again changes nothing.
    async fn take(&self, reference: &RequestId, input: Input) -> Result<Pairing, NotTaken>;
    /// What stands under a reference.
    async fn read(&self, reference: &RequestId) -> Result<Pairing, NotTaken>;
}

/// Why an input was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// A rule refuses it: nothing was written.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is not known whether it was written; the same again will tell.
    #[error("{0}")]
    Failed(String),
}

/// A bank that announces deductions.
#[derive(Debug)]
pub struct BankFeedbackGateway {
    deductions: Arc<dyn PendingDeductions>,
    account_key: SecretBytes,
}

impl BankFeedbackGateway {
    /// Reads the key of accounts.
    pub fn open(cfg: &BankFeedbackConfig, deductions: Arc<dyn PendingDeductions>) -> Result<Self, BankFeedbackError> {
        Ok(Self { deductions, account_key: cfg.account_key()? })
    }

    /// What follows from the request, once it is in the journal.
    async fn take(&self, r: &GatewayRequest) -> Result<BankWord, IdError> {
        let (reference, attempt) = names(r)?;
        let input = match (r.operation, &r.card, &r.original) {
            (Operation::Charge, Some(card), _) => {
                let Some(account) = account(&self.account_key, &card.pan) else { return Ok(BankWord::Silence) };
                Input::Confirm { attempt: attempt.clone(), facts: Facts { amount: r.amount, account } }
            }
            (Operation::Charge, None, _) => return Ok(BankWord::Declined(DeclineReason::NotSent)),
            (Operation::Refund, _, Some(original)) => {
                let of = AttemptId::parse(&original.our_reference)?;
                Input::Refund { attempt: attempt.clone(), of, amount: r.amount }
            }
            (Operation::Refund, _, None) => return Ok(BankWord::Declined(DeclineReason::Other)),
            (Operation::Authorise | Operation::Capture | Operation::Void, _, _) => {
                tracing::warn!(operation = r.operation.as_str(), "this bank deducts at once; it reserves nothing");
                return Ok(BankWord::Declined(DeclineReason::NotPermitted));
            }
        };
        Ok(match self.deductions.take(&reference, input).await {
            Ok(pairing) => word(&pairing, &attempt),
            Err(NotTaken::Refused(why)) => {
                tracing::error!(%reference, %why, "the journal of deductions does not take this");
                BankWord::Declined(refused(&why))
            }
            Err(NotTaken::Failed(why)) => {
                tracing::warn!(%reference, why, "the journal of deductions can't be written");
                BankWord::Silence
            }
        })
    }

    async fn read(&self, r: &GatewayRequest) -> Result<BankWord, IdError> {
        let (reference, attempt) = names(r)?;
        Ok(match self.deductions.read(&reference).await {
            Ok(pairing) => word(&pairing, &attempt),
            Err(why) => {
                tracing::warn!(%reference, %why, "the journal of deductions can't be read");
                BankWord::Silence
            }
        })
    }
}

#[async_trait]
impl Gateway for BankFeedbackGateway {
    fn name(&self) -> &'static str {
        GatewayKind::BankFeedback.name()
    }

    async fn send(&self, request: &GatewayRequest) -> BankWord {
        self.take(request).await.unwrap_or_else(not_ours)
    }

    async fn resolve(&self, request: &GatewayRequest) -> BankWord {
        self.read(request).await.unwrap_or_else(not_ours)
    }
}

fn names(r: &GatewayRequest) -> Result<(RequestId, AttemptId), IdError> {
    Ok((r.request.parse()?, r.our_reference.parse()?))
}

/// Nobody knows what the attempt stands for, so nothing is said of it.
fn not_ours(error: IdError) -> BankWord {
    tracing::error!(%error, "an attempt is damaged");
    BankWord::Silence
}

fn word(pairing: &Pairing, attempt: &AttemptId) -> BankWord {
    match pairing.standing(attempt) {
        None => BankWord::NotFound,
        Some(Standing::UnderWay) => BankWord::StillWorking,
        Some(Standing::Done { amount }) => {
            BankWord::Approved { charged: amount, gateway_reference: InstructionId::of(attempt).to_string() }
        }
        Some(Standing::Refused { reason }) => BankWord::Declined(reason_of(&reason)),
        Some(Standing::Expired) => BankWord::Declined(DeclineReason::Unannounced),
    }
}

fn refused(why: &Refusal) -> DeclineReason {
    match why {
        Refusal::Full { .. } => DeclineReason::LimitExceeded,
        Refusal::OverRefunded => DeclineReason::InvalidAmount,
        Refusal::OtherContent
        | Refusal::NoInstruction
        | Refusal::NoCase(_)
        | Refusal::NotInQuarantine(_)
        | Refusal::NotReleased(_)
        | Refusal::NoWaitingPayment(_)
        | Refusal::OtherFacts(_)
        | Refusal::Misfit(_) => DeclineReason::Other,
    }
}

/// The bank's reason, where it is a word that we have for banks ("insufficient_funds").
fn reason_of(reason: &str) -> DeclineReason {
    use DeclineReason::{FoundNotCharged, NeverReceived, NotSent, Other, Unannounced};
    match DeclineReason::deserialize(StrDeserializer::<NoWord>::new(reason)) {
        // These say what we found out ourselves.
        Ok(NotSent | NeverReceived | FoundNotCharged | Unannounced) | Err(_) => Other,
        Ok(reason) => reason,
    }
}

/// The name of a card's account, as the bank computes it too. `None` never happens: HMAC takes keys of any length.
pub fn account(key: &SecretBytes, pan: &Pan) -> Option<Account> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).ok()?;
    mac.update(pan.ascii().as_bytes());
    let digest = mac.finalize().into_bytes();
    digest.first_chunk::<{ Account::BYTES }>().map(|bytes| Account::new(*bytes))
}

#[cfg(test)]
mod tests;
