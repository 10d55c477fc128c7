//! What the store keeps of people, voices and calls, as values; of money: [`super::money`]. None of these holds a card number in the clear.

use serde::{Deserialize, Serialize};

use crate::clock::{Entropy, Timestamp};
use crate::e164::E164;
use crate::ids::{AuditId, CallId, CardId, Category, CustomerId, InviteId, OutboxId, PayeeId, Tenant};
use crate::language::Language;
use crate::payment::{Expiry, PaymentRequest};
use crate::vault::Sealed;

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Customer {
    /// Which one.
    pub id: CustomerId,
    /// Whose customer.
    pub tenant: Tenant,
    /// For people; never spoken, never logged.
    pub name: String,
    /// 6 to 10 digits that a caller may key when the calling number does not tell.
    pub customer_number: String,
    /// Telephone numbers that nominate this customer. They prove nothing.
    pub numbers: Vec<E164>,
    /// Whether the customer may pay.
    pub status: CustomerStatus,
    /// In which language the service speaks with the customer.
    pub language: Language,
    /// When it was added.
    pub created_at: Timestamp,
}

/// Whether a customer may pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CustomerStatus {
    /// May pay.
    Active,
    /// Not for now.
    Blocked,
    /// Gone: cards, voice, name and numbers are erased, money rows stay.
    Deleted,
}

impl CustomerStatus {
    /// As a row stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Blocked => "blocked",
            Self::Deleted => "deleted",
        }
    }

    /// Back from a row.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Blocked, Self::Deleted].into_iter().find(|s| s.as_str() == text)
    }
}

/// Whom a telephone number nominates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookUp {
    /// Exactly one customer (perhaps blocked: see its status).
    One(Customer),
    /// Several customers share the number: another identification is needed.
    Shared,
    /// Nobody.
    Nobody,
}

/// A card as it is kept. The number is sealed; see [`crate::vault`].
#[derive(Clone, PartialEq, Eq)]
pub struct CardRecord {
    /// The token that stands for the number.
    pub id: CardId,
    /// Whose it is.
    pub customer: CustomerId,
    /// The last four digits.
    pub last4: String,
    /// How many digits the number has, 13 to 19: the end-pointer waits for such a length.
    pub length: u8,
    /// The last month in which it is good, if known.
    pub expiry: Option<Expiry>,
    /// Whether it is authorised.
    pub status: CardStatus,
    /// The sealed number with its wrapped key.
    pub sealed: Sealed,
    /// The number's keyed digest.
    pub digest: [u8; 32],
    /// When it was added.
    pub created_at: Timestamp,
}

impl CardRecord {
    /// Whether it may be charged at `now`.
    pub fn usable(&self, now: Timestamp) -> bool {
        self.status == CardStatus::Active && self.expiry.is_none_or(|e| !e.passed(now))
    }
}

impl std::fmt::Debug for CardRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CardRecord").field("id", &self.id).field("status", &self.status).finish_non_exhaustive()
    }
}

/// Whether a card is authorised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CardStatus {
    /// Authorised.
    Active,
    /// Not for now.
    Blocked,
    /// Never again.
    Revoked,
}

impl CardStatus {
    /// As a row stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Blocked => "blocked",
            Self::Revoked => "revoked",
        }
    }

    /// Back from a row.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Blocked, Self::Revoked].into_iter().find(|s| s.as_str() == text)
    }
}

/// Who gets paid.
#[derive(Clone, PartialEq, Eq)]
pub struct Payee {
    /// Which one.
    pub id: PayeeId,
    /// Whose payee: only customers of the same tenant can be asked for money.
    pub tenant: Tenant,
    /// What it sells, for rules; `None`: nobody said.
    pub category: Option<Category>,
    /// The written name.
    pub name: String,
    /// The name as a recording, a whole WAV file; without one it is spelt.
    pub spoken_name_wav: Option<Vec<u8>>,
    /// When it was added.
    pub created_at: Timestamp,
}

impl std::fmt::Debug for Payee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payee").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// An invitation to enrol a voice, given out of band. The code itself is kept only as a keyed digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Which one.
    pub id: InviteId,
    /// For whom, and for nobody else.
    pub customer: CustomerId,
    /// After this it is worth nothing.
    pub expires_at: Timestamp,
    /// Wrong codes that were keyed while it was the customer's open one.
    pub wrong_tries: u32,
}

/// An invitation as its row is, whatever became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invited {
    /// The invitation.
    pub invite: Invite,
    /// When a voice was enrolled by it.
    pub used_at: Option<Timestamp>,
    /// When it was taken back, or another took its place.
    pub ended_at: Option<Timestamp>,
}

impl Invited {
    /// Whether its code may still be keyed at `now`. How many wrong ones a call allows is the call's to say.
    pub fn open(&self, now: Timestamp) -> bool {
        self.used_at.is_none() && self.ended_at.is_none() && now < self.invite.expires_at
    }

    /// In a word: `used`, `ended`, `expired` or `open`.
    pub fn state(&self, now: Timestamp) -> &'static str {
        match (self.used_at, self.ended_at) {
            (Some(_), _) => "used",
            (None, Some(_)) => "ended",
            (None, None) if self.open(now) => "open",
            (None, None) => "expired",
        }
    }
}

/// What a keyed invitation code is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InviteCheck {
    /// Good; [`super::Voices::complete_enrolment`] uses it up.
    Good(Invite),
    /// No such code, another customer's, used, expired, or too many wrong tries: one answer, so that guessing teaches nothing.
    Refused,
}

/// A sealed voice template.
#[derive(Clone, PartialEq, Eq)]
pub struct TemplateRecord {
    /// Whose voice.
    pub customer: CustomerId,
    /// Which model and centring made it; another version's template is refused.
    pub model: String,
    /// Sealed with customer and model as associated data.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl std::fmt::Debug for TemplateRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TemplateRecord").field("customer", &self.customer).field("model", &self.model).finish_non_exhaustive()
    }
}

/// How far a template has followed its voice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowingState {
    /// When the customer agreed to it, if so.
    pub consent_at: Option<Timestamp>,
    /// The one in force.
    pub current: TemplateRecord,
    /// The one that was enrolled; the same while no step was taken.
    pub enrolled: TemplateRecord,
}

/// A finished enrolment: stored whole or not at all.
#[derive(Clone, Debug)]
pub struct EnrolmentRecord {
    /// The template; it replaces an older one.
    pub template: TemplateRecord,
    /// The invitation that it uses up; `None` when an operator enrols from recordings.
    pub invite: Option<InviteId>,
    /// Which wording of the consent was agreed to.
    pub consent_text_version: String,
    /// Who witnessed it: `the caller` in a call, else the operator's name.
    pub consent_by: String,
    /// When consent was given.
    pub consent_at: Timestamp,
    /// In which call, if in one.
    pub call: Option<CallId>,
}

/// What failed. Counted across calls and restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Factor {
    /// The voice was rejected or inconclusive.
    Voice,
    /// The number was not an authorised card's.
    Number,
    /// The "yes" did not sound like the call's voice.
    Yes,
    /// A wrong invitation code.
    Invite,
    /// A wrong customer number.
    CustomerNumber,
    /// A wrong answer to fresh digits: other words, or another voice.
    Challenge,
    /// A wrong one-time code, or in another voice.
    Code,
}

impl Factor {
    /// Every factor.
    pub const ALL: [Self; 7] =
        [Self::Voice, Self::Number, Self::Yes, Self::Invite, Self::CustomerNumber, Self::Challenge, Self::Code];

    /// As a row stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Voice => "voice",
            Self::Number => "number",
            Self::Yes => "yes",
            Self::Invite => "invite",
            Self::CustomerNumber => "customer_number",
            Self::Challenge => "challenge",
            Self::Code => "code",
        }
    }
}

/// One failure of one factor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactorFailure {
    /// What failed.
    pub factor: Factor,
    /// Against which customer, if one was nominated.
    pub customer: Option<CustomerId>,
    /// From which telephone number, if one was given.
    pub calling: Option<E164>,
    /// Over which trunk (the peer's address or name).
    pub trunk: String,
    /// Whether somebody trusted vouches for the calling number. Failures from numbers that nobody vouches for
    /// throttle number and trunk; they never lock the customer out, else anyone could.
    pub attested: bool,
    /// In which call.
    pub call: CallId,
    /// When.
    pub at: Timestamp,
}

/// How many failures of all factors lie within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FailureCounts {
    /// Against the customer, from attested numbers: what may lock the customer out.
    pub customer_attested: u32,
    /// Against the customer, from anywhere: what notifies the customer and asks for more factors.
    pub customer_any: u32,
    /// From the calling number, while nobody vouched for it.
    pub calling: u32,
    /// Against the customer, from withheld numbers and numbers that are not the customer's, that nobody vouched for.
    pub strangers: u32,
    /// Over the trunk.
    pub trunk: u32,
}

/// The fingerprint of an utterance, as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct FingerprintRecord {
    /// Who was to be speaking.
    pub customer: CustomerId,
    /// Sealed for the customer.
    pub sealed: Vec<u8>,
    /// When it was heard.
    pub heard_at: Timestamp,
    /// From then on it is gone.
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for FingerprintRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FingerprintRecord")
            .field("customer", &self.customer)
            .field("heard_at", &self.heard_at)
            .finish_non_exhaustive()
    }
}

/// A call, as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRecord {
    /// Which one.
    pub id: CallId,
    /// Who was nominated, if anybody.
    pub customer: Option<CustomerId>,
    /// The calling number, if one was given.
    pub calling: Option<E164>,
    /// Over which trunk it came.
    pub trunk: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; `None` while it lives (or the process died in it).
    pub ended_at: Option<Timestamp>,
    /// How it ended, in one word.
    pub verdict: Option<String>,
    /// The timeline. Never holds a card number, audio or an embedding.
    pub record: serde_json::Value,
}

/// A row of the audit trail. Append-only: the database refuses to change or delete it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditRecord {
    /// Which one.
    pub id: AuditId,
    /// When.
    pub at: Timestamp,
    /// Who or what did it: `call`, `processor`, `cli`.
    pub actor: String,
    /// What was done, dotted: `charge.submitted`.
    pub action: String,
    /// To what (an identifier).
    pub subject: String,
    /// More; never a card number, name or telephone number.
    pub detail: serde_json::Value,
}

impl AuditRecord {
    /// A new one, of what `actor` does at `at` to `subject`.
    pub fn fresh(
        at: Timestamp,
        entropy: &dyn Entropy,
        actor: &str,
        action: &str,
        subject: &str,
        detail: serde_json::Value,
    ) -> Self {
        let id = AuditId::fresh_at(at, entropy);
        Self { id, at, actor: actor.to_owned(), action: action.to_owned(), subject: subject.to_owned(), detail }
    }

    /// The same with what was erased, by kind: the proof is in the trail, in numbers and never more.
    pub(super) fn with_erased(&self, erased: &[(&'static str, u64)]) -> Self {
        let mut same = self.clone();
        let counts: serde_json::Map<_, _> = erased.iter().map(|(what, n)| ((*what).to_owned(), (*n).into())).collect();
        match &mut same.detail {
            serde_json::Value::Object(detail) => drop(detail.insert("erased".into(), counts.into())),
            _ => same.detail = serde_json::json!({ "erased": counts }),
        }
        same
    }

    /// The outbox row that tells the outside of the same: it has the same random part in its identifier.
    pub(super) fn beside(&self, topic: &str, payload: serde_json::Value) -> Result<OutboxRecord, super::StoreError> {
        let random = self.id.as_str().split_once('_').map_or("", |(_, r)| r);
        let id =
            OutboxId::parse(&format!("{}_{random}", OutboxId::PREFIX)).map_err(|e| super::StoreError::Failed(e.to_string()))?;
        Ok(OutboxRecord { id, at: self.at, topic: topic.into(), payload })
    }
}

/// A row that tells the outside of a change; written in the change's own transaction, delivered at least once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutboxRecord {
    /// Which one; receivers drop duplicates by it.
    pub id: OutboxId,
    /// When.
    pub at: Timestamp,
    /// What happened, dotted: `payment.succeeded`.
    pub topic: String,
    /// The news; never a card number.
    pub payload: serde_json::Value,
}

/// A request with its payee's name, as it is read out and listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestWithPayee {
    /// The request.
    pub request: PaymentRequest,
    /// The payee's name.
    pub payee_name: String,
}
