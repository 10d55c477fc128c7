//! PURE. What is owed and how it is charged exactly once: request → intent → attempt. Nothing here does I/O or reads a clock;
//! `store` keeps these values, `processor` drives them.

pub mod attempt;
pub mod expiry;
pub mod intent;
pub mod receipt;
pub mod request;

pub use attempt::{
    Advice, Attempt, AttemptEvent, AttemptState, BankWord, DeclineReason, Doubt, Effect, GatewayKey, Operation, ReconcilePolicy,
    RequestHash, TransitionError, step,
};
pub use expiry::{Expiry, ExpiryError};
pub use intent::{Intent, IntentStatus};
pub use receipt::{Evidence, Receipt};
pub use request::{DueDate, PaymentRequest, RequestError, RequestStatus};
