//! What people agreed to about payments, kept whole: guardianships, supervisions, approvals, one-time codes, mandates, accounts,
//! purchases and app sessions. The rules are `payment`'s; here each is a [`Document`] that is read, and written over the version that was read.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AuditRecord, Callback, OutboxRecord, Store, StoreError, callbacks};
use crate::clock::Timestamp;
use crate::ids::{CodeId, CustomerId, PayeeId, RequestId};
use crate::money::Currency;
use crate::payment::{
    AddressMark, AppSession, Approval, Guardianship, MainAccount, Mandate, OneTimeCode, Purchase, PurchaseAccount, Supervision,
};

/// What kind of paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PaperKind {
    /// Who looks after whose payments.
    Guardianship,
    /// Who has to agree to whose payments.
    Supervision,
    /// What several have to agree to.
    Approval,
    /// A one-time code.
    Code,
    /// A payee may be paid again without the card number.
    Mandate,
    /// A customer's account at a bank.
    MainAccount,
    /// A payee's permission to ask for money from one.
    Account,
    /// What a payee asks for, and its user confirms.
    Purchase,
    /// A payment that an app's page confirms by voice.
    AppSession,
}

impl PaperKind {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Guardianship,
        Self::Supervision,
        Self::Approval,
        Self::Code,
        Self::Mandate,
        Self::MainAccount,
        Self::Account,
        Self::Purchase,
        Self::AppSession,
    ];

    /// As a row stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guardianship => "guardianship",
            Self::Supervision => "supervision",
            Self::Approval => "approval",
            Self::Code => "code",
            Self::Mandate => "mandate",
            Self::MainAccount => "main_account",
            Self::Account => "account",
            Self::Purchase => "purchase",
            Self::AppSession => "app_session",
        }
    }

    /// For people.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Code => "one-time code",
            Self::MainAccount => "main account",
            Self::Account => "purchase-permission account",
            Self::AppSession => "app session",
            Self::Guardianship | Self::Supervision | Self::Approval | Self::Mandate | Self::Purchase => self.as_str(),
        }
    }

    /// Back from a row.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }
}

/// A paper as its row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paper {
    /// What kind.
    pub kind: PaperKind,
    /// Which one.
    pub id: String,
    /// Whose payments it is about.
    pub owner: CustomerId,
    /// What else it is about.
    pub about: String,
    /// Whether it still means something.
    pub open: bool,
    /// When somebody has to look at it.
    pub due_at: Option<Timestamp>,
    /// Counts changes, from 0.
    pub version: u64,
    /// The document, JSON.
    pub body: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Calls that come to be owed as it is written; of one that was read none.
    pub owed: Vec<Callback>,
}

/// Something that is kept as a paper.
pub trait Document: Serialize + DeserializeOwned + Send + Sync {
    /// What kind.
    const KIND: PaperKind;
    /// Which one.
    fn id(&self) -> &str;
    /// Whose payments it is about.
    fn owner(&self) -> &CustomerId;
    /// What else: of one kind, owner and this there is one open paper at most.
    fn about(&self) -> String;
    /// Whether it still means something.
    fn open(&self) -> bool;
    /// When somebody has to look at it.
    fn due_at(&self) -> Option<Timestamp>;
    /// Counts changes, from 0.
    fn version(&self) -> u64;
    /// When it was made.
    fn created_at(&self) -> Timestamp;

    /// Calls that come to be owed as it is written.
    fn owed(&self) -> Vec<Callback>;

    /// Its row.
    fn paper(&self) -> Result<Paper, StoreError> {
        let body = serde_json::to_string(self).map_err(|e| StoreError::Failed(e.to_string()))?;
        Ok(Paper {
            kind: Self::KIND,
            id: self.id().to_owned(),
            owner: self.owner().clone(),
            about: self.about(),
            open: self.open(),
            due_at: self.due_at(),
            version: self.version(),
            body,
            created_at: self.created_at(),
            owed: self.owed(),
        })
    }

    /// Back from its row.
    fn of_paper(paper: &Paper) -> Result<Self, StoreError> {
        serde_json::from_str(&paper.body)
            .map_err(|e| StoreError::Damaged { table: "papers", why: format!("{} {}: {e}", paper.kind.as_str(), paper.id) })
    }
}

macro_rules! document {
    ($type:ty, $kind:ident, $owner:ident, |$d:ident| $about:expr, $open:expr, $due:expr) => {
        document!($type, $kind, $owner, |$d| $about, $open, $due, |_none| Vec::new());
    };
    ($type:ty, $kind:ident, $owner:ident, |$d:ident| $about:expr, $open:expr, $due:expr, |$o:ident| $owed:expr) => {
        impl Document for $type {
            const KIND: PaperKind = PaperKind::$kind;
            fn id(&self) -> &str {
                self.id.as_str()
            }
            fn owner(&self) -> &CustomerId {
                &self.$owner
            }
            fn about(&self) -> String {
                let $d = self;
                $about
            }
            fn open(&self) -> bool {
                let $d = self;
                $open
            }
            fn due_at(&self) -> Option<Timestamp> {
                let $d = self;
                let _most_kinds_are_never_due = $d;
                $due
            }
            fn owed(&self) -> Vec<Callback> {
                let $o = self;
                $owed
            }
            fn version(&self) -> u64 {
                self.version
            }
            fn created_at(&self) -> Timestamp {
                self.created_at
            }
        }
    };
}

document!(Guardianship, Guardianship, ward, |g| g.guardian.as_str().to_owned(), g.ended_at.is_none(), None);
document!(Supervision, Supervision, account, |s| s.supervisor.as_str().to_owned(), s.holds(), None);
document!(
    Approval,
    Approval,
    customer,
    |a| a.request.as_str().to_owned(),
    a.open() || a.stands_denied(),
    a.due_at(),
    |approval| callbacks::owed(approval)
);
document!(OneTimeCode, Code, customer, |c| c.request.as_str().to_owned(), c.live(), c.live().then_some(c.expires_at));
document!(Mandate, Mandate, customer, |m| format!("{} {}", m.payee, m.cap.currency), m.holds(), None);
document!(
    MainAccount,
    MainAccount,
    customer,
    |m| {
        let _a_customer_has_one = m;
        "main".to_owned()
    },
    m.open(),
    None
);
document!(PurchaseAccount, Account, customer, |a| a.payee.as_str().to_owned(), a.open(), None);
// A customer may have several for one request: a page that was loaded again has another.
document!(AppSession, AppSession, customer, |s| s.id.as_str().to_owned(), s.open(), s.due_at());
document!(Purchase, Purchase, customer, |p| p.request.as_str().to_owned(), p.open(), p.due_at());

/// For which payments of a customer sums are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpentSince {
    /// Whose.
    pub customer: CustomerId,
    /// To this payee, for the sums and counts of one payee.
    pub payee: PayeeId,
    /// In this currency.
    pub currency: Currency,
    /// From then on.
    pub since: Timestamp,
}

/// What a customer paid or is about to pay, without what failed. Amounts are minor units; counts end at 1,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Since then, to anybody.
    pub in_all: i64,
    /// Since then, to this payee.
    pub to_payee: i64,
    /// Payments that were made, ever.
    pub paid: u32,
    /// To this payee, ever.
    pub paid_payee: u32,
}

/// Something for a customer on its way, sealed under their key: a one-time code, or a link.
#[derive(Clone, PartialEq, Eq)]
pub struct CodeDelivery {
    /// Which code; of a link, an identifier of its own.
    pub code: CodeId,
    /// To whom.
    pub customer: CustomerId,
    /// What is to be said, sealed under the customer's key.
    pub sealed: Vec<u8>,
    /// After this nobody needs it.
    pub expires_at: Timestamp,
    /// How often it was tried.
    pub tries: u32,
}

impl std::fmt::Debug for CodeDelivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeDelivery").field("code", &self.code).field("tries", &self.tries).finish_non_exhaustive()
    }
}

/// What a link that goes to a customer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkAbout {
    /// Somebody else's payment, to which they have to agree.
    Approval,
    /// Their own purchase.
    Purchase,
}

/// A link on its way, as it is sealed in a [`CodeDelivery`]. Whoever has it answers in the customer's place, so that it can't be printed.
#[derive(Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkMessage {
    /// What it is for.
    pub about: LinkAbout,
    /// The whole of it.
    pub url: String,
}

impl std::fmt::Debug for LinkMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkMessage").field("about", &self.about).finish_non_exhaustive()
    }
}

impl LinkMessage {
    /// As it is sealed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self).map_err(|e| StoreError::Failed(e.to_string()))
    }

    /// Back; `None`: it is a code, whose bytes are the values of its digits.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// Papers, and what they are judged by.
#[async_trait]
pub trait Papers: Send + Sync {
    /// Writes papers, each over the version before its own (version 0: a new one), with what goes with them, in ONE transaction. `Conflict` if one
    /// was changed meanwhile, `Exists` if there is an open one of the same kind, owner and subject: then nothing was written. What goes to
    /// people about them (codes, links) goes with it.
    async fn write_papers(
        &self,
        papers: &[Paper],
        deliveries: &[CodeDelivery],
        audit: &[AuditRecord],
        news: &[OutboxRecord],
    ) -> Result<(), StoreError>;
    /// One paper.
    async fn paper(&self, kind: PaperKind, id: &str) -> Result<Option<Paper>, StoreError>;
    /// Open papers of a customer, the oldest first, 1,000 at most.
    async fn papers_of(&self, kind: PaperKind, owner: &CustomerId) -> Result<Vec<Paper>, StoreError>;
    /// Open papers about somebody or something, the oldest first, 1,000 at most.
    async fn papers_about(&self, kind: PaperKind, about: &str) -> Result<Vec<Paper>, StoreError>;
    /// Papers of a kind, open or not, by identifier, those after `after`.
    async fn papers_after(&self, kind: PaperKind, after: &str, limit: u32) -> Result<Vec<Paper>, StoreError>;
    /// Open papers that are due at `now`, the longest due first.
    async fn papers_due(&self, kind: PaperKind, now: Timestamp, limit: u32) -> Result<Vec<Paper>, StoreError>;
    /// What a customer paid.
    async fn spent(&self, of: &SpentSince) -> Result<Spent, StoreError>;
    /// Whether goods that the customer paid for went there.
    async fn delivered_before(&self, customer: &CustomerId, to: &AddressMark) -> Result<bool, StoreError>;
    /// How many one-time codes were made for a request since then.
    async fn codes_sent(&self, request: &RequestId, since: Timestamp) -> Result<u32, StoreError>;
    /// Codes to be delivered at `now`, each kept from others until `retry_at`.
    async fn claim_code_deliveries(
        &self,
        now: Timestamp,
        retry_at: Timestamp,
        limit: u32,
    ) -> Result<Vec<CodeDelivery>, StoreError>;
    /// A code was delivered: wipes it.
    async fn code_delivered(&self, code: &CodeId) -> Result<(), StoreError>;
    /// Wipes codes that ran out undelivered; says how many.
    async fn wipe_codes(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// What others have changed, where it is a paper.
pub(super) const PAPER: &str = "paper that was read";
/// What is said to exist already.
pub(super) const OPEN_PAPER: &str = "an open paper of this kind";
/// Papers that one question gives.
pub(super) const PAGE: i64 = 1_000;

/// Reads one document.
pub async fn read<D: Document>(store: &dyn Store, id: &str) -> Result<Option<D>, StoreError> {
    store.paper(D::KIND, id).await?.as_ref().map(D::of_paper).transpose()
}

/// Open documents of a customer.
pub async fn of<D: Document>(store: &dyn Store, owner: &CustomerId) -> Result<Vec<D>, StoreError> {
    store.papers_of(D::KIND, owner).await?.iter().map(D::of_paper).collect()
}

/// Open documents about somebody or something.
pub async fn about<D: Document>(store: &dyn Store, about: &str) -> Result<Vec<D>, StoreError> {
    store.papers_about(D::KIND, about).await?.iter().map(D::of_paper).collect()
}

/// Writes one document down.
pub async fn write<D: Document>(
    store: &dyn Store,
    document: &D,
    audit: &AuditRecord,
    news: &[OutboxRecord],
) -> Result<(), StoreError> {
    store.write_papers(&[document.paper()?], &[], std::slice::from_ref(audit), news).await
}

/// Sums by currency, for people.
pub fn amounts(of: &BTreeMap<Currency, i64>) -> String {
    let each =
        of.iter().map(|(c, minor)| crate::money::Money::new(*minor, *c).map_or_else(|_| format!("0 {c}"), |m| m.to_string()));
    each.collect::<Vec<_>>().join(", ")
}
