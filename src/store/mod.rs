//! What outlives a call. [`Store`] is made of small traits, one a subject; each operation is one transaction. `sqlite/` and `postgres/`
//! implement them, each with its own migrations; `conformance/` holds both to the same behaviour.

pub mod backup;
pub mod bank;
pub mod callbacks;
pub mod chain;
pub mod clients;
mod config;
#[cfg(test)]
mod conformance;
pub mod consents;
pub mod keyring;
pub mod keys;
pub mod money;
pub mod notices;
pub mod papers;
pub mod postgres;
pub mod records;
pub mod retention;
mod rows;
pub mod signing;
pub mod sqlite;
mod url;

use async_trait::async_trait;
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::clock::Timestamp;
use crate::e164::E164;
use crate::ids::{AttemptId, CallId, CardId, CustomerId, IntentId, InviteId, OutboxId, PayeeId, RequestId};
use crate::ledger::Transfer;
use crate::payment::{Attempt, Dispute, IntentStatus, PaymentRequest, Receipt};

pub use bank::{Bank, BankAnswer};
pub use callbacks::{Callback, CallbackPurpose, CallbackState, Callbacks, NextTry, Tried};
pub use chain::AuditChain;
pub use clients::*;
pub use config::{StoreConfig, open};
pub use consents::{Consent, Consenting, Consents, Purpose};
pub use keyring::{UnlockError, customer_key, customer_key_to_seal, unlock, unlock_in_hand};
pub use keys::{Brought, KeyUsage, Keys, NewCard, OlderPlace, OlderValue, Resealed, Rewrapped, StoredKey};
pub use money::*;
pub use notices::{
    Backlog, Delivery, DeliveryState, Endpoint, EndpointSecret, Handed, Notices, Outcome as DeliveryOutcome, Replay,
};
pub use papers::{Document, Paper, PaperKind, Papers, Spent, SpentSince};
pub use postgres::PgStore;
pub use records::*;
pub use retention::{Held, Overdue, Retention};
pub use signing::SigningKeys;
pub use sqlite::SqliteStore;
pub use url::{DatabaseUrl, NotAnAddress};

/// Every migration there is, oldest first; each database has a folder with all of them.
macro_rules! migrations {
    ($folder:literal) => {
        $crate::store::migrator([
            (1, "first", include_str!(concat!("../../../migrations/", $folder, "/0001_first.sql"))),
            (2, "fresh digits", include_str!(concat!("../../../migrations/", $folder, "/0002_fresh_digits.sql"))),
            (3, "fingerprints", include_str!(concat!("../../../migrations/", $folder, "/0003_fingerprints.sql"))),
            (4, "templates follow", include_str!(concat!("../../../migrations/", $folder, "/0004_templates_follow.sql"))),
            (5, "operations", include_str!(concat!("../../../migrations/", $folder, "/0005_operations.sql"))),
            (6, "card keys", include_str!(concat!("../../../migrations/", $folder, "/0006_card_keys.sql"))),
            (7, "audit chain", include_str!(concat!("../../../migrations/", $folder, "/0007_audit_chain.sql"))),
            (8, "bank", include_str!(concat!("../../../migrations/", $folder, "/0008_bank.sql"))),
            (9, "tenants", include_str!(concat!("../../../migrations/", $folder, "/0009_tenants.sql"))),
            (10, "papers", include_str!(concat!("../../../migrations/", $folder, "/0010_papers.sql"))),
            (12, "notify", include_str!(concat!("../../../migrations/", $folder, "/0012_notify.sql"))),
            (13, "api", include_str!(concat!("../../../migrations/", $folder, "/0013_api.sql"))),
            (15, "call backs", include_str!(concat!("../../../migrations/", $folder, "/0015_call_backs.sql"))),
            (16, "more time", include_str!(concat!("../../../migrations/", $folder, "/0016_more_time.sql"))),
            (17, "rights", include_str!(concat!("../../../migrations/", $folder, "/0017_rights.sql"))),
            (18, "lanes", include_str!(concat!("../../../migrations/", $folder, "/0018_lanes.sql"))),
            (19, "accounts", include_str!(concat!("../../../migrations/", $folder, "/0019_accounts.sql"))),
            (20, "people", include_str!(concat!("../../../migrations/", $folder, "/0020_people.sql"))),
            (21, "app_sessions", include_str!(concat!("../../../migrations/", $folder, "/0021_app_sessions.sql"))),
        ])
    };
}
use migrations;

fn migrator<const N: usize>(all: [(i64, &'static str, &'static str); N]) -> Migrator {
    let simple = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(all.map(simple).into())
}

/// What is said of a database whose migration `version` is unknown here.
fn made_by_a_newer(version: i64) -> String {
    format!("it was made by a newer voicepay (its migration {version} is unknown here); run that version")
}

/// Under what name the database remembers the check value of the vault's root secret.
const KEY_CHECK: &str = "vault.key_check";

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database can't be opened or made.
    #[error("the database {place} can't be opened: {why}")]
    Open {
        /// Which: a file, or a server's address without its password.
        place: String,
        /// In words.
        why: String,
    },
    /// Its tables can't be brought up to date.
    #[error("the database {place} can't be migrated: {why}")]
    Migrate {
        /// Which: a file, or a server's address without its password.
        place: String,
        /// In words.
        why: String,
    },
    /// Another process held it too long.
    #[error("the database is locked by another process; try again, or raise `store.busy_timeout_ms`")]
    Busy,
    /// The server can't be reached, or the connection was lost before anything was committed. Nothing was written.
    #[error("the database can't be reached, nothing was written: {0}")]
    Unreachable(String),
    /// The connection was lost while a commit was under way. Whether it was written is not known: read, or do the same again by the same key.
    #[error("the connection to the database was lost while it was writing, so that it is not known whether it did: {0}")]
    Unsure(String),
    /// There is already one such.
    #[error("{0} exists already")]
    Exists(&'static str),
    /// There is none such.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// A rule of the data refuses it.
    #[error("{0}")]
    Refused(String),
    /// Somebody else changed the row since it was read. Read again.
    #[error("the {0} was changed by somebody else meanwhile")]
    Conflict(&'static str),
    /// A row holds what no program wrote.
    #[error("a row of {table} is damaged: {why}")]
    Damaged {
        /// Which table.
        table: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The database failed.
    #[error("the database failed: {0}")]
    Failed(String),
}

/// Customers, their cards, payees.
#[async_trait]
pub trait People: Send + Sync {
    /// Adds a customer.
    async fn add_customer(&self, customer: &Customer, audit: &AuditRecord) -> Result<(), StoreError>;
    /// One customer, deleted ones too.
    async fn customer(&self, id: &CustomerId) -> Result<Option<Customer>, StoreError>;
    /// Every customer that is not deleted, oldest first.
    async fn customers(&self) -> Result<Vec<Customer>, StoreError>;
    /// Whom a telephone number nominates.
    async fn customer_by_number(&self, number: &E164) -> Result<LookUp, StoreError>;
    /// Who has this customer number (not deleted).
    async fn customer_by_customer_number(&self, digits: &str) -> Result<Option<Customer>, StoreError>;
    /// Whether a customer wants more time in a call; nobody else does.
    async fn wants_more_time(&self, id: &CustomerId) -> Result<bool, StoreError>;
    /// Notes whether a customer wants more time.
    async fn set_more_time(&self, id: &CustomerId, wanted: bool, audit: &AuditRecord) -> Result<(), StoreError>;
    /// Erases the sealed card numbers, their digests, the voice template, open invitations, telephone numbers and the name, and ends every
    /// consent. Money rows and last four digits stay. Refused while a payment is under way. The audit row says how much was erased.
    async fn delete_customer(&self, id: &CustomerId, audit: &AuditRecord) -> Result<(), StoreError>;
    /// Adds a card.
    async fn add_card(&self, card: &CardRecord, audit: &AuditRecord) -> Result<(), StoreError>;
    /// One card.
    async fn card(&self, id: &CardId) -> Result<Option<CardRecord>, StoreError>;
    /// A customer's cards, whatever their status, oldest first.
    async fn cards_of(&self, customer: &CustomerId) -> Result<Vec<CardRecord>, StoreError>;
    /// Blocks, revokes or re-activates a card. A revoked card stays revoked.
    async fn set_card_status(&self, id: &CardId, status: CardStatus, audit: &AuditRecord) -> Result<(), StoreError>;
    /// Adds a payee.
    async fn add_payee(&self, payee: &Payee, audit: &AuditRecord) -> Result<(), StoreError>;
    /// One payee with its recording.
    async fn payee(&self, id: &PayeeId) -> Result<Option<Payee>, StoreError>;
    /// Every payee, without recordings.
    async fn payees(&self) -> Result<Vec<Payee>, StoreError>;
}

/// Requests, intents, attempts, the books, receipts.
#[async_trait]
pub trait Payments: Send + Sync {
    /// Adds a request; its customer and payee must exist.
    async fn add_request(&self, request: &PaymentRequest, audit: &AuditRecord) -> Result<(), StoreError>;
    /// One request.
    async fn request(&self, id: &RequestId) -> Result<Option<RequestWithPayee>, StoreError>;
    /// What a customer could pay at `now`, the earliest due first, then the oldest.
    async fn payable_requests(&self, customer: &CustomerId, now: Timestamp) -> Result<Vec<RequestWithPayee>, StoreError>;
    /// Withdraws a request, with papers that end by it as [`Papers::write_papers`] writes them, in ONE transaction; refused while it is being paid.
    async fn cancel_request(
        &self,
        id: &RequestId,
        ended: &[Paper],
        audit: &[AuditRecord],
        news: &[OutboxRecord],
    ) -> Result<(), StoreError>;
    /// Marks open, unheld requests whose time ran out; says how many.
    async fn expire_requests(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// The whole of a submission in ONE transaction: intent, prepared attempt, pending transfer, request held, audit row, outbox row.
    /// The same call and request give the same intent again.
    async fn submit(&self, charge: &NewCharge) -> Result<Submitted, StoreError>;
    /// Writes a capture, void or refund down, in ONE transaction: command, prepared attempt, a refund's pending transfer, audit row, outbox row.
    /// The amount is judged against what the database holds ([`crate::payment::Balance::judge`]); the same command gives the same attempt again.
    async fn begin_operation(&self, operation: &NewOperation) -> Result<Begun, StoreError>;
    /// What was asked for with this idempotency key, and the attempt that came of it.
    async fn command(&self, key: &str) -> Result<Option<(Command, AttemptId)>, StoreError>;
    /// Attempts that are due and that nobody is at, the longest due first, all leased to the claimer, in ONE transaction: two workers never
    /// get the same one while its lease lasts.
    async fn claim(&self, claim: &Claim) -> Result<Vec<Job>, StoreError>;
    /// One attempt with its intent.
    async fn job(&self, attempt: &AttemptId) -> Result<Option<Job>, StoreError>;
    /// Writes an attempt over the version before it, and everything that goes with it, in ONE transaction. `Conflict` if the row is
    /// no longer at that version: somebody else was faster and nothing was written.
    async fn advance(&self, attempt: &Attempt, settlement: &Settlement) -> Result<(), StoreError>;
    /// Nothing was found out: looks again later. Changes nothing if the attempt is no longer at this version.
    async fn put_off(&self, attempt: &Attempt, until: Timestamp) -> Result<(), StoreError>;
    /// Attempts that have no end yet, in conflict or not, oldest first.
    async fn unfinished(&self, limit: u32) -> Result<Vec<Attempt>, StoreError>;
    /// Payments whose authorisation ran out at `now` and that nothing has captured or voided, nor is about to, with fewer than
    /// [`EXPIRY_VOID_LIMIT`] voids that failed; the earliest first.
    async fn expired_authorisations(&self, now: Timestamp, limit: u32) -> Result<Vec<IntentId>, StoreError>;
    /// What waits for a person, oldest first: payments with an attempt in conflict, and those whose authorisation was not voided in
    /// [`EXPIRY_VOID_LIMIT`] tries and stands.
    async fn conflicts(&self, limit: u32) -> Result<Vec<Payment>, StoreError>;
    /// Records a dispute with its pending transfer. The same reference with the same payment and amount changes nothing (`false`), with another
    /// is `Refused`, and so is more than was captured.
    async fn open_dispute(&self, entry: &DisputeEntry) -> Result<bool, StoreError>;
    /// Records how a dispute ended, with its post or void. `Conflict` if it is not open any more.
    async fn close_dispute(&self, entry: &DisputeEntry) -> Result<(), StoreError>;
    /// A dispute by the acquirer's reference.
    async fn dispute(&self, reference: &str) -> Result<Option<Dispute>, StoreError>;
    /// Disputes, newest first.
    async fn disputes(&self, limit: u32) -> Result<Vec<Dispute>, StoreError>;
    /// What an intent means for its request; `None` for one that was never submitted.
    async fn intent_status(&self, intent: &IntentId) -> Result<Option<IntentStatus>, StoreError>;
    /// One payment, whole.
    async fn payment(&self, intent: &IntentId) -> Result<Option<Payment>, StoreError>;
    /// The payment with an attempt that the acquirer calls so.
    async fn payment_by_gateway_reference(&self, reference: &str) -> Result<Option<Payment>, StoreError>;
    /// The latest payments, newest first.
    async fn payments(&self, limit: u32) -> Result<Vec<Payment>, StoreError>;
    /// Every payment, by identifier, those after `after`: page by page.
    async fn payments_after(&self, after: Option<&IntentId>, limit: u32) -> Result<Vec<Payment>, StoreError>;
    /// A receipt by its ten digits.
    async fn receipt_by_reference(&self, reference: &str) -> Result<Option<Receipt>, StoreError>;
    /// The books, in the order in which they were written.
    async fn transfers(&self) -> Result<Vec<Transfer>, StoreError>;
}

/// Invitations that one question gives.
pub const INVITES_LIMIT: i64 = 1_000;

/// Voices: invitations, templates, consent.
#[async_trait]
pub trait Voices: Send + Sync {
    /// Adds an invitation; older open ones of the customer end with it.
    async fn add_invite(&self, invite: &Invite, code_digest: &[u8; 32], audit: &AuditRecord) -> Result<(), StoreError>;
    /// What a keyed code is worth at `now`. `customer`: who the calling number nominates, if anybody; then the code must be
    /// that customer's, and a wrong one counts against the customer's open invitation, which ends after `max_wrong_tries`.
    async fn check_invite(
        &self,
        code_digest: &[u8; 32],
        customer: Option<&CustomerId>,
        now: Timestamp,
        max_wrong_tries: u32,
    ) -> Result<InviteCheck, StoreError>;
    /// The customer's invitation that is unused and unexpired at `now`, if there is one.
    async fn open_invite(&self, customer: &CustomerId, now: Timestamp) -> Result<Option<Invite>, StoreError>;
    /// A customer's invitations, past ones too, who runs out last first; [`INVITES_LIMIT`] at most.
    async fn invites_of(&self, customer: &CustomerId) -> Result<Vec<Invited>, StoreError>;
    /// One invitation, whatever became of it.
    async fn invitation(&self, id: &InviteId) -> Result<Option<Invited>, StoreError>;
    /// Ends an invitation that is open when the audit row is made. `false`: it is not, and nothing was written.
    async fn end_invite(&self, id: &InviteId, audit: &AuditRecord) -> Result<bool, StoreError>;
    /// Stores template and consent and uses the invitation up, all or nothing.
    async fn complete_enrolment(&self, enrolment: &EnrolmentRecord, audit: &AuditRecord) -> Result<(), StoreError>;
    /// A customer's template.
    async fn template(&self, customer: &CustomerId) -> Result<Option<TemplateRecord>, StoreError>;
    /// Withdraws a customer's voice: template, steps, fingerprints, their key, and the consents. The audit row says how much was erased.
    async fn delete_template(&self, customer: &CustomerId, audit: &AuditRecord) -> Result<(), StoreError>;
}

/// Templates that follow their voice, by consent and reversibly.
#[async_trait]
pub trait Following: Send + Sync {
    /// How far a customer's template has come; `None` without one.
    async fn following(&self, customer: &CustomerId) -> Result<Option<FollowingState>, StoreError>;
    /// The customer agrees that the template follows, or no longer does.
    async fn set_following(
        &self,
        customer: &CustomerId,
        consent: Option<&Consenting>,
        audit: &AuditRecord,
    ) -> Result<(), StoreError>;
    /// Puts `next` in the place of the template made at `over`, which is kept; of the kept ones the enrolled and the latest stay, `keep` in
    /// all. `Conflict` if there is another template now, or no consent.
    async fn step_template(
        &self,
        next: &TemplateRecord,
        over: Timestamp,
        keep: u32,
        audit: &AuditRecord,
    ) -> Result<(), StoreError>;
    /// Goes back to the enrolled template; following ends with it.
    async fn revert_template(&self, customer: &CustomerId, audit: &AuditRecord) -> Result<(), StoreError>;
}

/// Fresh digits that customers were asked to say.
#[async_trait]
pub trait Challenges: Send + Sync {
    /// Notes that a customer will be asked for the digits behind this keyed digest, durably and at once. `false`: the customer was asked for
    /// them before, and nothing was written.
    async fn use_challenge(&self, customer: &CustomerId, digest: &[u8; 32], at: Timestamp) -> Result<bool, StoreError>;
}

/// Fingerprints of what was heard, sealed; they expire.
#[async_trait]
pub trait Fingerprints: Send + Sync {
    /// Keeps a fingerprint and gives those that the customer had before it, newest first, in one transaction: of two calls that play the same
    /// audio at once, one sees the other's. What has expired goes, and the customer keeps no more than `keep_limit`.
    async fn keep_fingerprint(&self, new: &FingerprintRecord, keep_limit: u32) -> Result<Vec<Vec<u8>>, StoreError>;
    /// Erases what has expired; says how many.
    async fn sweep_fingerprints(&self, now: Timestamp) -> Result<u64, StoreError>;
    /// How many a customer has.
    async fn fingerprint_count(&self, customer: &CustomerId) -> Result<u64, StoreError>;
}

/// Failures across calls, and the calls themselves.
#[async_trait]
pub trait Calls: Send + Sync {
    /// Commits a failure, then counts those since `window_start`, this one among them. Call it before the call goes on.
    async fn record_failure(&self, failure: &FactorFailure, window_start: Timestamp) -> Result<FailureCounts, StoreError>;
    /// Counts failures since `window_start`.
    async fn failure_counts(
        &self,
        customer: Option<&CustomerId>,
        calling: Option<&E164>,
        trunk: &str,
        window_start: Timestamp,
    ) -> Result<FailureCounts, StoreError>;
    /// A call began.
    async fn call_started(&self, call: &CallRecord) -> Result<(), StoreError>;
    /// A call ended: writes customer, end, verdict and timeline.
    async fn call_ended(&self, call: &CallRecord) -> Result<(), StoreError>;
    /// One call.
    async fn call(&self, id: &CallId) -> Result<Option<CallRecord>, StoreError>;
    /// The latest calls, newest first.
    async fn calls(&self, limit: u32) -> Result<Vec<CallRecord>, StoreError>;
}

/// The audit trail, the outbox, and what the database remembers of itself.
#[async_trait]
pub trait Trail: Send + Sync {
    /// Adds an audit row that goes with no other change.
    async fn audit(&self, record: &AuditRecord) -> Result<(), StoreError>;
    /// Adds an outbox row that goes with no other change, with its audit row, in one transaction.
    async fn announce(&self, news: &OutboxRecord, audit: &AuditRecord) -> Result<(), StoreError>;
    /// The latest audit rows, newest first.
    async fn audit_trail(&self, limit: u32) -> Result<Vec<AuditRecord>, StoreError>;
    /// Outbox rows not yet delivered, oldest first.
    async fn outbox_waiting(&self, limit: u32) -> Result<Vec<OutboxRecord>, StoreError>;
    /// An outbox row was delivered.
    async fn outbox_delivered(&self, id: &OutboxId, now: Timestamp) -> Result<(), StoreError>;
    /// The check value of the vault's root secret, if one was ever stored.
    async fn key_check(&self) -> Result<Option<Vec<u8>>, StoreError>;
}

/// All of it. Use it as `Arc<dyn Store>`: the methods of every part are callable on it.
#[async_trait]
pub trait Store:
    People
    + Payments
    + Voices
    + Following
    + Challenges
    + Fingerprints
    + Calls
    + Trail
    + AuditChain
    + SigningKeys
    + Keys
    + Bank
    + Callbacks
    + Papers
    + Notices
    + Clients
    + Consents
    + Retention
    + Held
    + std::fmt::Debug
{
    /// Closes every connection, once what they are at is done. Nothing can be asked of it afterwards.
    async fn close(&self);
}
