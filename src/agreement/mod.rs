//! Who has to agree to a payment, and how: asks the rules with what the database knows, keeps approvals, one-time codes, mandates, accounts
//! and purchases, and hands a payment to the processor once everything holds. The rules themselves, and what may follow what, are `payment`'s.
//!
//! Whoever changes an approval writes over the version that was read; of two that come at once one reads again. An approval to which
//! everybody agreed is charged by whoever completed it, or, should that process die, by the sweep.

mod accounts;
mod appeals;
mod asking;
mod codes;
mod config;
mod deciding;
mod guarding;
mod links;
mod mandates;
mod news;
mod purchases;
mod sweeping;
#[cfg(test)]
mod tests;
mod waiting;
mod withdrawing;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

pub use accounts::AccountFault;
pub use asking::{Asked, Asking};
pub use codes::{CodeError, CodeOutcome, CodeSent, CodeTold};
pub use config::{AgreementConfig, PurchaseLimits};
pub use deciding::{AgreeError, Agreed, Decided, Refusal};
pub use guarding::GuardingError;
pub use links::LinkError;
pub use mandates::MandateOffer;
pub use purchases::{AskedPurchase, Confirmation, ConfirmationPage, PurchaseFault};
pub use sweeping::Swept;
pub use waiting::Confirmed;

use crate::clock::{Clock, Entropy};
use crate::payment::policy::{Policy, PolicyFault};
use crate::processor::Processor;
use crate::store::Store;
use crate::vault::Vault;

/// Rules, approvals, codes and mandates. Cheap to clone.
#[derive(Clone)]
pub struct Agreements {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    vault: Vault,
    processor: Processor,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cfg: AgreementConfig,
    policy: RwLock<Arc<Policy>>,
}

impl std::fmt::Debug for Agreements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Agreements(policy {})", self.policy().version())
    }
}

/// Why a policy is not in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// The file can't be read.
    #[error("agreement.policy: {path} can't be read: {why}")]
    Unreadable {
        /// Which file.
        path: String,
        /// What the system says.
        why: std::io::Error,
    },
    /// It was refused, whole.
    #[error("agreement.policy: {path}: {why}")]
    Refused {
        /// Which file.
        path: String,
        /// What is wrong with it, and where.
        why: PolicyFault,
    },
}

/// Reads the rules that the configuration names, or the ones that come with the program.
pub fn read_policy(file: Option<&Path>) -> Result<Policy, PolicyFileError> {
    let Some(path) = file else {
        return Policy::compiled_in().map_err(|why| PolicyFileError::Refused { path: "the compiled-in policy".to_owned(), why });
    };
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|why| PolicyFileError::Unreadable { path: name.clone(), why })?;
    Policy::from_toml(&text).map_err(|why| PolicyFileError::Refused { path: name, why })
}

impl Agreements {
    /// Joins the parts.
    pub fn new(
        store: Arc<dyn Store>,
        vault: Vault,
        processor: Processor,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        cfg: AgreementConfig,
        policy: Policy,
    ) -> Self {
        let policy = RwLock::new(Arc::new(policy));
        Self { inner: Arc::new(Inner { store, vault, processor, clock, entropy, cfg, policy }) }
    }

    /// The rules in force.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.inner.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other rules in force: payments that are asked from now on are judged by them, and so are approvals that are not charged yet.
    pub fn set_policy(&self, policy: Policy) {
        *self.inner.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }
}
