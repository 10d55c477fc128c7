//! PURE. What is owed and how it is charged exactly once: request → intent → attempt. Nothing here does I/O or reads a clock;
//! `store` keeps these values, `processor` drives them.

pub mod account;
pub mod app_session;
pub mod approval;
pub mod attempt;
pub mod balance;
pub mod code;
pub mod conditions;
pub mod decline;
pub mod dispute;
pub mod expiry;
pub mod guardian;
pub mod intent;
pub mod mandate;
pub mod pairing;
pub mod policy;
pub mod purchase;
pub mod receipt;
pub mod request;
pub mod supervisor;
pub mod terms;

pub use account::{AccountError, AccountState, ConfirmedBy, Consent, Limits, MainAccount, PurchaseAccount};
pub use app_session::{
    AppOrigin, AppResult, AppSecret, AppSession, AppSessionError, AppSessionEvent, AppSessionState, OriginError,
};
pub use approval::{Approval, ApprovalError, ApprovalEvent, ApprovalState, Binding, How, Party, PayersPart, Role, Said};
pub use attempt::{
    Attempt, AttemptEvent, AttemptState, BankWord, Effect, GatewayKey, Operation, ReconcilePolicy, RequestHash, TransitionError,
    step,
};
pub use balance::{Balance, OperationRefusal, Standing};
pub use code::{CodeChecked, CodeState, OneTimeCode};
pub use decline::{Advice, DeclineReason};
pub use dispute::{Dispute, DisputeError, DisputeState};
pub use expiry::{Expiry, ExpiryError};
pub use guardian::Guardianship;
pub use intent::{Capture, Intent, IntentStatus, Occasion};
pub use mandate::Mandate;
pub use purchase::{BanksAnswer, Purchase, PurchaseError, PurchaseEvent, PurchaseState};
pub use receipt::{Evidence, Receipt, ReceiptSignature};
pub use request::{AddressMark, Delivery, DueDate, PaymentRequest, RequestError, RequestStatus};
pub use supervisor::Supervision;
pub use terms::{Because, Condition, Terms};
