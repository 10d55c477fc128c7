//! What the store keeps of payments, as values, and what goes together in one transaction.

use serde::Serialize;

use super::{AuditRecord, CardRecord, Document, OutboxRecord, Paper, PaperKind, Spent, SpentSince, StoreError};
use crate::clock::Timestamp;
use crate::ids::{AttemptId, IntentId, WorkerId};
use crate::ledger::{Transfer, TransferKind};
use crate::money::Money;
use crate::payment::{
    Attempt, Balance, Dispute, DisputeError, DisputeState, Evidence, Intent, Operation, OperationRefusal, PaymentRequest,
    Receipt, RequestStatus, Standing, balance,
};

/// How often an expired authorisation is tried to be voided. One that the acquirer won't void that often waits for a person.
pub const EXPIRY_VOID_LIMIT: u32 = 3;

/// Which worker is at an attempt, and for how long at most. When it has run out, another worker may take the attempt over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The worker.
    pub owner: WorkerId,
    /// From then on it is worth nothing.
    pub until: Timestamp,
}

/// When an attempt is due of which the acquirer has heard nothing: before every clock, as the node that claims it may be behind the one that wrote
/// it. Among what waits it counts from when it was written.
pub const DUE_AT_ONCE: Timestamp = Timestamp(0);

/// When a worker should look at an attempt that has not ended. Under a lease nobody else does before the lease has run out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Nobody is at it; a worker should look from then on.
    Due(Timestamp),
    /// Somebody is at it.
    Leased(Lease),
}

impl Schedule {
    /// From when on any worker may claim it.
    pub fn due_at(&self) -> Timestamp {
        match self {
            Self::Due(at) => *at,
            Self::Leased(lease) => lease.until,
        }
    }

    /// The lease, if there is one.
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Due(_) => None,
            Self::Leased(lease) => Some(lease),
        }
    }
}

/// What a worker claims: attempts that are due and that no other worker is at, the longest due first.
#[derive(Clone, Debug)]
pub struct Claim {
    /// For the time in between, whose they are.
    pub lease: Lease,
    /// At which acquirer.
    pub gateway: String,
    /// The claimer's clock.
    pub now: Timestamp,
    /// An attempt that is due later than this was put there by a clock that ran ahead: it is due now. No schedule reaches that far.
    pub horizon: Timestamp,
    /// How many at most.
    pub limit: u32,
}

/// What [`super::Payments::submit`] writes in one transaction.
#[derive(Clone, Debug)]
pub struct NewCharge {
    /// The request, as it was read a moment ago.
    pub request: PaymentRequest,
    /// The card, as it was read a moment ago.
    pub card: CardRecord,
    /// The intent, pending.
    pub intent: Intent,
    /// Its first attempt, prepared: a charge or an authorisation.
    pub attempt: Attempt,
    /// Who is going to send it, and when.
    pub schedule: Schedule,
    /// The pending transfer.
    pub pending: Transfer,
    /// Why it was allowed.
    pub evidence: Evidence,
    /// For the audit trail.
    pub audit: AuditRecord,
    /// For the outside.
    pub outbox: OutboxRecord,
    /// What else must still be so.
    pub guards: Guards,
}

/// A paper as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsRead {
    /// Of what kind.
    pub kind: PaperKind,
    /// Its identifier.
    pub id: String,
    /// Its version.
    pub version: u64,
}

impl AsRead {
    /// This paper, as it is.
    pub fn of<D: Document>(paper: &D) -> Self {
        Self { kind: D::KIND, id: paper.id().to_owned(), version: paper.version() }
    }
}

/// What must still be so when a charge is written, and what is written with it. Empty where no rule was asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guards {
    /// The sums that rules were asked with: who has paid more meanwhile is asked anew.
    pub spent: Option<(SpentSince, Spent)>,
    /// What must stand as it was read: the mandate that stood for the number, the guardianships that were asked.
    pub stand: Vec<AsRead>,
    /// An approval, used: over the version that everybody agreed to.
    pub papers: Vec<Paper>,
    /// What others than the payer hear of the charge: whoever looks after them. Kept with it, so that no crash or outage loses it.
    pub told: Vec<(OutboxRecord, AuditRecord)>,
}

impl Guards {
    /// Whether there are none.
    pub fn none(&self) -> bool {
        self.spent.is_none() && self.stand.is_empty() && self.papers.is_empty() && self.told.is_empty()
    }

    /// Whether the sums that rules were asked with are still so.
    pub(super) fn outspent(&self, now: &Spent) -> bool {
        self.spent.as_ref().is_some_and(|(_, seen)| now.in_all > seen.in_all || now.to_payee > seen.to_payee)
    }
}

impl NewCharge {
    /// What the same call is told that submits the same request again; `earlier` came of it before.
    pub(super) fn repeats(&self, earlier: Intent) -> Submitted {
        let again = &self.intent;
        let same = earlier.amount == again.amount
            && earlier.card == again.card
            && earlier.customer == again.customer
            && earlier.capture == again.capture;
        if same { Submitted::Already(earlier.id) } else { Submitted::Refused(SubmitRefusal::SameKeyOtherContent) }
    }

    /// Judges it against what the database holds of an active customer's request and card; gives the request that it may hold.
    pub(super) fn judge(&self, request: PaymentRequest, card: Option<&CardRecord>) -> Result<PaymentRequest, SubmitRefusal> {
        let (intent, now) = (&self.intent, self.intent.created_at);
        if request.customer != intent.customer || request.payee != intent.payee {
            return Err(SubmitRefusal::NoSuchRequest);
        }
        if request.amount != intent.amount {
            return Err(SubmitRefusal::OtherAmount);
        }
        if !card.is_some_and(|c| c.customer == intent.customer && c.last4 == intent.last4 && c.usable(now)) {
            return Err(SubmitRefusal::NoUsableCard);
        }
        request.clone().hold(now, &intent.id)?;
        Ok(request)
    }
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// Written.
    Fresh {
        /// Its intent.
        intent: IntentId,
        /// The number that the database gave its attempt.
        number: u64,
    },
    /// This call submitted this request before, with the same amount and card: here is its intent.
    Already(IntentId),
    /// Refused by a rule; nothing was written.
    Refused(SubmitRefusal),
}

/// A capture, void or refund as it was asked for. The same key with the same content is the same command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The idempotency key that whoever asks has chosen.
    pub key: String,
    /// Of which payment.
    pub intent: IntentId,
    /// What.
    pub operation: Operation,
    /// How much; `None`: all that is left.
    pub amount: Option<Money>,
}

/// What [`super::Payments::begin_operation`] writes in one transaction.
#[derive(Clone, Debug)]
pub struct NewOperation {
    /// What was asked for.
    pub command: Command,
    /// The attempt, prepared, with the amount that is meant. It is judged again against what the database holds.
    pub attempt: Attempt,
    /// Who is going to send it, and when.
    pub schedule: Schedule,
    /// A refund's own pending transfer.
    pub pending: Option<Transfer>,
    /// For the audit trail.
    pub audit: AuditRecord,
    /// For the outside.
    pub outbox: OutboxRecord,
}

impl NewOperation {
    /// What is told to whoever asks with the same key again; `earlier` was asked for with it before, and `attempt` came of that.
    pub(super) fn repeats(&self, earlier: &Command, attempt: AttemptId) -> Begun {
        if *earlier == self.command { Begun::Already(attempt) } else { Begun::Refused(OperationRefusal::SameKeyOtherContent) }
    }

    /// Judges it against what the database holds of its payment: `Ok(Some(refusal))` if a rule refuses it.
    pub(super) fn judge(
        &self,
        intent: &Intent,
        attempts: &[Attempt],
        disputes: &[Dispute],
    ) -> Result<Option<OperationRefusal>, StoreError> {
        let new = &self.attempt;
        let parts = (intent, attempts, disputes);
        let original = match balance::judge(new.prepared_at, parts, new.operation, Some(new.amount), &new.gateway) {
            Ok((_, original)) => original,
            Err(refusal) => return Ok(Some(refusal)),
        };
        if new.intent != intent.id || new.of_attempt.as_ref() != Some(&original.id) {
            let other = "an operation that refers to something else than its payment's own attempt";
            return Err(StoreError::Refused(other.into()));
        }
        Ok(None)
    }
}

/// What became of a capture, void or refund that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Written: here is its attempt.
    Fresh(AttemptId),
    /// The same command came before: here is its attempt.
    Already(AttemptId),
    /// Refused by a rule; nothing was written.
    Refused(OperationRefusal),
}

/// Why a submission was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitRefusal {
    /// No such request, or another customer's.
    #[error("the payment request does not exist or is not this customer's")]
    NoSuchRequest,
    /// Paid, cancelled, expired or being paid.
    #[error(transparent)]
    Request(#[from] crate::payment::RequestError),
    /// What was agreed to is not what the request asks.
    #[error("the amount that was agreed to is not what the request asks")]
    OtherAmount,
    /// The card is gone, blocked, expired or another customer's.
    #[error("the card can't be used: it is unknown, blocked, revoked, expired or not this customer's")]
    NoUsableCard,
    /// The customer is blocked or deleted.
    #[error("the customer may not pay")]
    NoSuchCustomer,
    /// What the rules were asked with is no longer so: the customer paid something else, a mandate was taken back, a guardian froze payments.
    #[error("what the rules were asked with has changed meanwhile: ask them again")]
    ChangedMeanwhile,
    /// The approval or purchase that goes with it was used, or changed.
    #[error("what everybody agreed to was used or changed meanwhile")]
    ApprovalGone,
    /// The bank of the account that pays is none of the configuration.
    #[error("the account's bank is not known here")]
    UnknownBank,
    /// The same call and request came before with another amount or card.
    #[error("this call submitted this request before, with another amount or card")]
    SameKeyOtherContent,
}

/// An attempt with what the worker needs to know of its intent.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The attempt.
    pub attempt: Attempt,
    /// What it captures, voids or refunds.
    pub original: Option<Attempt>,
    /// Its intent.
    pub intent: Intent,
    /// Why it was allowed.
    pub evidence: Evidence,
    /// The pending transfer that it ends: its own, or for a capture or void the authorisation's.
    pub pending: Transfer,
    /// The payee's name, for statement and receipt.
    pub payee_name: String,
}

impl Job {
    /// Which attempt's pending transfer this one ends: its own, or for a capture or void the authorisation's.
    pub(super) fn reserved_by(attempt: &Attempt) -> &AttemptId {
        match (attempt.operation, &attempt.of_attempt) {
            (Operation::Capture | Operation::Void, Some(original)) => original,
            (Operation::Charge | Operation::Authorise | Operation::Capture | Operation::Void | Operation::Refund, _) => {
                &attempt.id
            }
        }
    }
}

/// Changes that go with a changed attempt, all in one transaction.
#[derive(Clone, Debug, Default)]
pub struct Settlement {
    /// When to look again and who is at it; `None` exactly when the attempt has ended.
    pub schedule: Option<Schedule>,
    /// The row that ends the pending transfer.
    pub transfer: Option<Transfer>,
    /// Until when an authorisation that was just given may be captured.
    pub authorisation_expires_at: Option<Timestamp>,
    /// Settle the request and store this receipt.
    pub receipt: Option<Receipt>,
    /// Give the request free.
    pub release_request: bool,
    /// For the audit trail.
    pub audit: Vec<AuditRecord>,
    /// For the outside.
    pub outbox: Vec<OutboxRecord>,
}

impl Settlement {
    /// What must hold of a settlement whoever made it: an end comes with its row in the books and with the request's fate, and nothing else
    /// does. Every store asks before it writes.
    pub fn fits(&self, attempt: &Attempt) -> Result<(), StoreError> {
        let (ended, done) = (attempt.state.terminal(), attempt.state.done());
        let (ends, receipt, release, hold) = match (attempt.operation, ended, done) {
            (_, false, _) => (Ends::Nothing, false, false, false),
            (Operation::Charge | Operation::Capture, true, true) => (Ends::Post, true, false, false),
            (Operation::Authorise, true, true) => (Ends::Nothing, false, false, true),
            (Operation::Void, true, true) => (Ends::Void, false, true, false),
            (Operation::Refund, true, true) => (Ends::Post, false, false, false),
            (Operation::Charge | Operation::Authorise, true, false) => (Ends::Void, false, true, false),
            (Operation::Capture | Operation::Void, true, false) => (Ends::Nothing, false, false, false),
            (Operation::Refund, true, false) => (Ends::Void, false, false, false),
        };
        let transfer_fits = match (&self.transfer, ends) {
            (None, Ends::Nothing) => true,
            (Some(t), Ends::Post) => matches!(t.kind, TransferKind::Post { .. }) && t.amount == attempt.amount,
            (Some(t), Ends::Void) => matches!(t.kind, TransferKind::Void { .. }),
            (None, Ends::Post | Ends::Void) | (Some(_), Ends::Nothing) => false,
        };
        let ours = self.receipt.as_ref().is_none_or(|r| r.intent == attempt.intent && r.amount == attempt.amount)
            && self.transfer.as_ref().is_none_or(|t| t.intent == attempt.intent && t.cause.as_str() == attempt.id.as_str());
        let fits = transfer_fits
            && ours
            && self.receipt.is_some() == receipt
            && self.release_request == release
            && self.authorisation_expires_at.is_some() == hold
            && self.schedule.is_none() == ended;
        if fits {
            Ok(())
        } else {
            let (what, state) = (attempt.operation.as_str(), attempt.state.name());
            Err(StoreError::Refused(format!("a {what} that is {state} does not go with these postings")))
        }
    }

    /// What becomes of the request that the intent holds, if anything: where it stands, and whether the intent keeps it. Expiry no longer
    /// matters: the money has moved.
    pub(super) fn request_fate(&self) -> Option<(RequestStatus, bool)> {
        match (&self.receipt, self.release_request) {
            (Some(_), _) => Some((RequestStatus::Paid, true)),
            (None, true) => Some((RequestStatus::Open, false)),
            (None, false) => None,
        }
    }
}

/// How a settlement ends the pending transfer.
#[derive(Clone, Copy)]
enum Ends {
    Nothing,
    Post,
    Void,
}

/// What goes with a dispute that was opened or closed.
#[derive(Clone, Debug)]
pub struct DisputeEntry {
    /// The dispute as it stands now.
    pub dispute: Dispute,
    /// Its row in the books: pending when it opens, a post when it is lost, a void when it is won.
    pub transfer: Transfer,
    /// For the audit trail.
    pub audit: AuditRecord,
    /// For the outside.
    pub outbox: OutboxRecord,
}

impl DisputeEntry {
    /// Whether `earlier`, recorded under the same reference, is the same dispute. Then nothing is written (`false`); another one is refused.
    pub(super) fn repeats(&self, earlier: &Dispute) -> Result<bool, StoreError> {
        if earlier.same_as(&self.dispute) { Ok(false) } else { Err(StoreError::Refused(DisputeError::OtherContent.to_string())) }
    }

    /// What must hold of a dispute that opens, given all that is known of its payment.
    pub(super) fn may_open(&self, intent: &Intent, attempts: &[Attempt], disputes: &[Dispute]) -> Result<(), StoreError> {
        let d = &self.dispute;
        let b = Balance::of(intent, attempts, disputes);
        if d.amount.currency != b.currency || d.amount.minor.get() > b.disputable() {
            let disputed = b.disputed.saturating_add(b.charged_back);
            let over = DisputeError::OverCaptured { asked: d.amount, captured: b.captured, disputed };
            return Err(StoreError::Refused(over.to_string()));
        }
        self.goes_with(d.state == DisputeState::Opened && self.transfer.kind == TransferKind::Pending)
    }

    /// What must hold of one that closes.
    pub(super) fn may_close(&self) -> Result<(), StoreError> {
        self.goes_with(match (self.dispute.state, &self.transfer.kind) {
            (DisputeState::Won { .. }, TransferKind::Void { .. }) | (DisputeState::Lost { .. }, TransferKind::Post { .. }) => {
                true
            }
            (DisputeState::Opened | DisputeState::Won { .. } | DisputeState::Lost { .. }, _) => false,
        })
    }

    fn goes_with(&self, kind_fits: bool) -> Result<(), StoreError> {
        let (d, t) = (&self.dispute, &self.transfer);
        if kind_fits && t.intent == d.intent && t.amount == d.amount && t.cause.as_str() == d.id.as_str() {
            Ok(())
        } else {
            Err(StoreError::Refused("a dispute that does not go with this row in the books".into()))
        }
    }
}

/// A payment as it is listed and shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Payment {
    /// The intent.
    pub intent: Intent,
    /// The payee's name.
    pub payee_name: String,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// Its disputes, oldest first.
    pub disputes: Vec<Dispute>,
    /// Its receipt, if paid.
    pub receipt: Option<Receipt>,
    /// Its rows in the books.
    pub transfers: Vec<Transfer>,
}

impl Payment {
    /// What may still be captured, voided or refunded.
    pub fn balance(&self) -> Balance {
        Balance::of(&self.intent, &self.attempts, &self.disputes)
    }

    /// The charge or authorisation that it began with: the last one, if it was begun more than once.
    pub fn opening(&self) -> Option<&Attempt> {
        self.attempts.iter().rev().find(|a| a.operation.opens())
    }

    /// What `cause` (an attempt's or a dispute's identifier) wrote in the books first: for what reserves, its pending row.
    pub fn row_of(&self, cause: &str) -> Result<&Transfer, StoreError> {
        self.transfers.iter().find(|t| t.cause.as_str() == cause).ok_or(StoreError::NotFound("row in the books"))
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        Standing::of(&self.intent, &self.attempts, &self.disputes)
    }
}
