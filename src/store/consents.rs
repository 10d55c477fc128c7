//! What people agreed to and took back: rows that never change, written in the transaction of what they allow or end. A consent has the random
//! part of the audit row beside it in its identifier, so that each is found by the other.

use async_trait::async_trait;
use serde::Serialize;

use super::papers::{Document, Paper, PaperKind};
use super::{AuditRecord, StoreError};
use crate::clock::Timestamp;
use crate::ids::{CallId, ConsentId, CustomerId, InviteId};
use crate::payment::{ConfirmedBy, Mandate, Occasion, PurchaseAccount};

macro_rules! word {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $about:literal])+ $word:ident = $text:literal),+ $(,)? }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        pub enum $name { $($(#[doc = $about])+ #[serde(rename = $text)] $word),+ }

        impl $name {
            /// As a row stores it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$word => $text),+ }
            }

            /// Back from a row.
            pub fn parse(text: &str) -> Option<Self> {
                [$(Self::$word),+].into_iter().find(|w| w.as_str() == text)
            }
        }
    };
}

word! {
    /// What somebody agreed to.
    Purpose {
        /// That the voice is kept as a template and compared in calls.
        Voiceprint = "voiceprint",
        /// That the template follows the voice.
        Following = "following",
        /// That a payee is paid again without the card number.
        Mandate = "mandate",
        /// A purchase-permission account.
        Account = "account",
        /// That calls are recorded.
        Recording = "recording",
    }
}

word! {
    /// How a consent was given.
    GivenHow {
        /// In a call.
        Call = "call",
        /// Somebody here vouches for it.
        Voucher = "voucher",
        /// Over the API, by somebody who vouches for it.
        Api = "api",
        /// By the signed link that only the customer was sent.
        Link = "link",
    }
}

word! {
    /// How a consent ended.
    WithdrawnHow {
        /// In a call.
        Call = "call",
        /// By an operator.
        Operator = "operator",
        /// Over the API.
        Api = "api",
        /// By a newer one of the same purpose.
        Replaced = "replaced",
        /// By a clock: what it allowed was not used for too long.
        Retention = "retention",
    }
}

/// A consent as it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consenting {
    /// Which wording was agreed to.
    pub text_version: String,
    /// Who witnessed it: `the caller` in a call, else whoever vouches for it.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// In which call, if in one.
    pub call: Option<CallId>,
}

impl Consenting {
    /// How it is given, as whoever writes the audit row does it.
    pub(super) fn how(&self, audit: &AuditRecord) -> GivenHow {
        match (&self.call, is_api(audit)) {
            (Some(_), _) => GivenHow::Call,
            (None, true) => GivenHow::Api,
            (None, false) => GivenHow::Voucher,
        }
    }
}

/// A consent that was given, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Consent {
    /// Which one.
    pub id: ConsentId,
    /// Whose.
    pub customer: CustomerId,
    /// To what.
    pub purpose: Purpose,
    /// To which, of several: the identifier of the mandate or of the purchase-permission account.
    pub about: Option<String>,
    /// Which wording.
    pub text_version: String,
    /// In which language it was spoken or written.
    pub language: String,
    /// Who witnessed it: `the caller` in a call, `the customer` by the link, else whoever vouches for it.
    pub given_by: String,
    /// How.
    pub how: GivenHow,
    /// When.
    #[serde(serialize_with = "in_words")]
    pub given_at: Timestamp,
    /// In which call.
    pub call: Option<CallId>,
    /// By which invitation.
    pub invite: Option<InviteId>,
    /// How it ended; `None`: it holds.
    pub withdrawn: Option<Withdrawn>,
}

/// People read them: RFC 3339.
fn in_words<S: serde::Serializer>(at: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(at)
}

/// How a consent ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Withdrawn {
    /// When.
    #[serde(serialize_with = "in_words")]
    pub at: Timestamp,
    /// Who did it, as the audit trail names them.
    pub by: String,
    /// How.
    pub how: WithdrawnHow,
    /// In which call.
    pub call: Option<CallId>,
}

impl Withdrawn {
    /// As whoever writes the audit row does it.
    pub(super) fn of(audit: &AuditRecord) -> Self {
        let call = audit.detail.get("call").and_then(|c| c.as_str()).and_then(|c| CallId::parse(c).ok());
        let how = match (&call, audit.actor.as_str()) {
            (Some(_), _) => WithdrawnHow::Call,
            (None, BY_RETENTION) => WithdrawnHow::Retention,
            (None, _) if is_api(audit) => WithdrawnHow::Api,
            (None, _) => WithdrawnHow::Operator,
        };
        Self { at: audit.at, by: audit.actor.clone(), how, call }
    }

    /// A newer one takes its place.
    pub(super) fn replaced(audit: &AuditRecord) -> Self {
        Self { how: WithdrawnHow::Replaced, ..Self::of(audit) }
    }
}

/// The wording of a consent that somebody vouches for.
pub const WRITTEN_CONSENT: &str = "written-1";
/// Who does what clocks do, in the audit trail.
pub const BY_RETENTION: &str = "retention";

fn is_api(audit: &AuditRecord) -> bool {
    audit.actor.starts_with("api:")
}

/// The identifier of the consent that goes with an audit row.
pub(super) fn id_beside(audit: &AuditRecord) -> Result<ConsentId, StoreError> {
    let random = audit.id.as_str().split_once('_').map_or("", |(_, r)| r);
    ConsentId::parse(&format!("{}_{random}", ConsentId::PREFIX)).map_err(|e| StoreError::Failed(e.to_string()))
}

/// What a paper means for consents, as it is written.
pub(super) enum OfPaper {
    /// Nothing.
    Nothing,
    /// One is given.
    Given(Box<ByPaper>),
    /// The one about it ended.
    Ended,
}

/// A consent that is given with a paper.
pub(super) struct ByPaper {
    /// Whose.
    pub customer: CustomerId,
    /// To what.
    pub purpose: Purpose,
    /// By whom and when.
    pub given: Consenting,
    /// How, where the paper says so itself; else as whoever writes the audit row does it.
    pub how: Option<GivenHow>,
}

/// Mandates and purchase-permission accounts stand and fall with a consent.
pub(super) fn of_paper(paper: &Paper) -> Result<OfPaper, StoreError> {
    match (paper.kind, paper.version, paper.open) {
        (PaperKind::Mandate, 0, true) => {
            let mandate = Mandate::of_paper(paper)?;
            let call = match &mandate.consent {
                Occasion::Call(call) => Some(call.clone()),
                Occasion::Approval(_) | Occasion::Code(_) | Occasion::Purchase(_) => None,
            };
            let given = Consenting { text_version: mandate.wording, by: "the caller".into(), at: mandate.created_at, call };
            let (customer, purpose) = (mandate.customer, Purpose::Mandate);
            Ok(OfPaper::Given(Box::new(ByPaper { customer, purpose, given, how: None })))
        }
        // Linked without a consent; it comes with the first purchase.
        (PaperKind::Account, 1.., true) => Ok(with_first_use(PurchaseAccount::of_paper(paper)?)),
        (PaperKind::Mandate | PaperKind::Account, _, false) => Ok(OfPaper::Ended),
        _ => Ok(OfPaper::Nothing),
    }
}

fn with_first_use(account: PurchaseAccount) -> OfPaper {
    let Some(consent) = account.consent().filter(|_| account.used == 1) else { return OfPaper::Nothing };
    let (by, how) = match &consent.how {
        ConfirmedBy::Link => ("the customer".to_owned(), GivenHow::Link),
        ConfirmedBy::Api { key } => (format!("api:{key}"), GivenHow::Api),
    };
    let given = Consenting { text_version: consent.wording.clone(), by, at: consent.at, call: None };
    OfPaper::Given(Box::new(ByPaper { customer: account.customer, purpose: Purpose::Account, given, how: Some(how) }))
}

/// Of the audit rows that are written together the one that tells of this paper; where none does, the first.
pub(super) fn beside_paper<'a>(paper: &Paper, rows: impl Iterator<Item = &'a AuditRecord>) -> Option<&'a AuditRecord> {
    let mut first = None;
    for row in rows {
        if row.subject == paper.id {
            return Some(row);
        }
        first = first.or(Some(row));
    }
    first
}

/// Consents that one question gives.
pub(super) const CONSENTS_LIMIT: i64 = 1_000;

/// Consents, for reading; they are written with what they allow and end.
#[async_trait]
pub trait Consents: Send + Sync {
    /// A customer's consents, the oldest first, 1,000 at most.
    async fn consents_of(&self, customer: &CustomerId) -> Result<Vec<Consent>, StoreError>;
    /// One consent.
    async fn consent(&self, id: &ConsentId) -> Result<Option<Consent>, StoreError>;
}
