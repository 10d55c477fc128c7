//! Everything that is held about one person, as JSON, page by page: who they are, what they agreed to, requests, payments, calls, papers, and the
//! audit rows that concern them. Whether a voice is held is told, never the voice; of cards the last four digits. What is sealed stays so: no key
//! is opened for an export.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::RetentionConfig;
use crate::clock::Timestamp;
use crate::ids::{CallId, IntentId, PayeeId, RequestId};
use crate::payment::{
    AccountState, AppSession, AppSessionState, Attempt, Dispute, MainAccount, Purchase, PurchaseAccount, PurchaseState,
};
use crate::store::{
    AuditFrom, AuditRecord, CallRecord, CardRecord, Customer, Document, Invited, Paper, PaperKind, Payment, RequestWithPayee,
    Store, StoreError,
};

/// What an export says that it is.
pub const FORMAT: &str = "voicepay-export/1";

/// The lists of an export, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Who was asked for what.
    Requests,
    /// What was paid.
    Payments,
    /// Calls with verdicts and scores.
    Calls,
    /// Mandates, approvals, guardianships, supervisions, codes, main accounts, purchase-permission accounts, purchases, app sessions.
    Papers,
    /// Audit rows.
    Audit,
}

impl Part {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Requests, Self::Payments, Self::Calls, Self::Papers, Self::Audit];

    /// Its name in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Payments => "payments",
            Self::Calls => "calls",
            Self::Papers => "papers",
            Self::Audit => "audit",
        }
    }

    fn next(self) -> Option<Self> {
        match self {
            Self::Requests => Some(Self::Payments),
            Self::Payments => Some(Self::Calls),
            Self::Calls => Some(Self::Papers),
            Self::Papers => Some(Self::Audit),
            Self::Audit => None,
        }
    }
}

/// Where an export goes on: in which list, after what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    part: Part,
    after: String,
}

impl Place {
    /// The beginning of a list.
    fn begin(part: Part) -> Self {
        Self { part, after: String::new() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.part.as_str(), self.after)
    }
}

impl FromStr for Place {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (part, after) = text.split_once(' ').ok_or("this is no place in an export")?;
        let part = Part::ALL.into_iter().find(|p| p.as_str() == part).ok_or("this is no place in an export")?;
        Ok(Self { part, after: after.to_owned() })
    }
}

/// A page of an export.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportPage {
    /// Who it is about, on the first page: identity, cards, voice, consents, clocks.
    pub person: Option<Value>,
    /// What is on it, in the order of the parts.
    pub items: Vec<(Part, Value)>,
    /// Where the next one begins; `None`: this is the last.
    pub next: Option<Place>,
}

impl ExportPage {
    /// Takes one list's things out.
    pub fn list(&mut self, part: Part) -> Vec<Value> {
        self.items.extract_if(.., |(p, _)| *p == part).map(|(_, item)| item).collect()
    }
}

/// One page, of at most so many items.
pub async fn page(
    store: &dyn Store,
    cfg: &RetentionConfig,
    customer: &Customer,
    from: Option<Place>,
    limit: u32,
    now: Timestamp,
) -> Result<ExportPage, StoreError> {
    let person = match from {
        None => Some(person(store, cfg, customer, now).await?),
        Some(_) => None,
    };
    let mut place = from.unwrap_or_else(|| Place::begin(Part::Requests));
    let mut items = Vec::new();
    loop {
        let room = limit.saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX));
        if room == 0 {
            return Ok(ExportPage { person, items, next: Some(place) });
        }
        let (found, on) = read(store, customer, &place, room).await?;
        items.extend(found.into_iter().map(|item| (place.part, item)));
        place = match (on, place.part.next()) {
            // The trail is read in stretches: a page ends with one.
            (Some(after), _) if place.part == Part::Audit => {
                return Ok(ExportPage { person, items, next: Some(Place { part: Part::Audit, after }) });
            }
            (Some(after), _) => Place { part: place.part, after },
            (None, Some(part)) => Place::begin(part),
            (None, None) => return Ok(ExportPage { person, items, next: None }),
        };
    }
}

/// So many of one list, and where it goes on, if it does.
async fn read(
    store: &dyn Store,
    customer: &Customer,
    place: &Place,
    room: u32,
) -> Result<(Vec<Value>, Option<String>), StoreError> {
    let after = place.after.as_str();
    let full = |n: usize| u32::try_from(n).is_ok_and(|n| n >= room);
    let mut found = Vec::new();
    let last = match place.part {
        Part::Requests => {
            let ids = store.requests_of(&customer.id, RequestId::parse(after).ok().as_ref(), room).await?;
            for id in &ids {
                found.extend(store.request(id).await?.as_ref().map(request));
            }
            ids.last().filter(|_| full(ids.len())).map(ToString::to_string)
        }
        Part::Payments => {
            let ids = store.intents_of(&customer.id, IntentId::parse(after).ok().as_ref(), room).await?;
            for id in &ids {
                found.extend(store.payment(id).await?.as_ref().map(payment));
            }
            ids.last().filter(|_| full(ids.len())).map(ToString::to_string)
        }
        Part::Calls => {
            let calls = store.calls_of(&customer.id, CallId::parse(after).ok().as_ref(), room).await?;
            found.extend(calls.iter().map(call));
            calls.last().filter(|_| full(calls.len())).map(|c| c.id.to_string())
        }
        Part::Papers => {
            let papers = store.papers_with(&customer.id, after.split_once('/').unwrap_or(("", "")), room).await?;
            for each in &papers {
                found.push(paper(store, each, customer).await?);
            }
            papers.last().filter(|_| full(papers.len())).map(|p| format!("{}/{}", p.kind.as_str(), p.id))
        }
        Part::Audit => return audit(store, customer, after, room).await,
    };
    Ok((found, last))
}

async fn audit(
    store: &dyn Store,
    customer: &Customer,
    after: &str,
    room: u32,
) -> Result<(Vec<Value>, Option<String>), StoreError> {
    let from = match after.parse() {
        Ok(seq) => AuditFrom::After(seq),
        Err(_) => AuditFrom::Time(customer.created_at),
    };
    let (rows, more) = store.audit_scan(from).await?;
    let theirs: BTreeSet<String> = store.subjects_of(&customer.id).await?.into_iter().collect();
    let id = customer.id.as_str();
    let (mut found, mut last) = (Vec::new(), None);
    for (seq, row) in rows {
        if u32::try_from(found.len()).is_ok_and(|n| n >= room) {
            return Ok((found, last));
        }
        last = Some(seq.to_string());
        if row.subject == id || theirs.contains(&row.subject) || row.detail.to_string().contains(id) {
            found.push(audited(seq, &row));
        }
    }
    Ok((found, last.filter(|_| more)))
}

async fn person(store: &dyn Store, cfg: &RetentionConfig, c: &Customer, now: Timestamp) -> Result<Value, StoreError> {
    let following = store.following(&c.id).await?;
    let invited = store.open_invite(&c.id, now).await?;
    let invitations = store.invites_of(&c.id).await?;
    let voice = json!({
        "held": following.is_some(),
        "model": following.as_ref().map(|f| &f.current.model),
        "enrolled_at": following.as_ref().map(|f| f.enrolled.created_at.to_string()),
        "current_since": following.as_ref().map(|f| f.current.created_at.to_string()),
        "follows_since": following.as_ref().and_then(|f| f.consent_at).map(|at| at.to_string()),
        "fingerprints": store.fingerprint_count(&c.id).await?,
        "invited_until": invited.map(|i| i.expires_at.to_string()),
    });
    Ok(json!({
        "id": c.id,
        "tenant": c.tenant,
        "name": c.name,
        "customer_number": c.customer_number,
        "numbers": c.numbers,
        "status": c.status,
        "language": c.language,
        "more_time": store.wants_more_time(&c.id).await?,
        "created_at": c.created_at.to_string(),
        "cards": store.cards_of(&c.id).await?.iter().map(card).collect::<Vec<_>>(),
        "voice": voice,
        "invitations": invitations.iter().map(|i| invitation(i, now)).collect::<Vec<_>>(),
        "consents": store.consents_of(&c.id).await?,
        "kept_for": cfg.clocks(),
    }))
}

/// An invitation to enrol: never its code, of which a keyed digest is held.
fn invitation(i: &Invited, now: Timestamp) -> Value {
    json!({ "id": i.invite.id, "state": i.state(now), "expires_at": i.invite.expires_at.to_string(),
        "used_at": i.used_at.map(|at| at.to_string()), "ended_at": i.ended_at.map(|at| at.to_string()) })
}

/// A card as it may be shown: never its number.
fn card(c: &CardRecord) -> Value {
    json!({ "id": c.id, "last4": c.last4, "expires": c.expiry, "status": c.status, "created_at": c.created_at.to_string() })
}

fn request(r: &RequestWithPayee) -> Value {
    let request = &r.request;
    json!({ "id": request.id, "payee": request.payee, "payee_name": r.payee_name, "amount": request.amount, "due": request.due,
        "status": request.status, "created_at": request.created_at.to_string() })
}

fn payment(p: &Payment) -> Value {
    let i = &p.intent;
    let attempt = |a: &Attempt| {
        json!({ "id": a.id, "operation": a.operation.as_str(), "at": a.gateway, "amount": a.amount, "state": a.state.name(),
            "prepared_at": a.prepared_at.to_string() })
    };
    let dispute =
        |d: &Dispute| json!({ "id": d.id, "amount": d.amount, "state": d.state.name(), "opened_at": d.opened_at.to_string() });
    let receipt = p.receipt.as_ref().map(|r| {
        json!({ "reference": r.reference, "amount": r.amount, "at": r.at.to_string(), "last4": r.last4, "evidence": r.evidence })
    });
    json!({ "id": i.id, "request": i.request, "payee": i.payee, "payee_name": p.payee_name, "card": i.card, "last4": i.last4,
        "occasion": i.occasion, "amount": i.amount, "standing": p.standing(), "created_at": i.created_at.to_string(),
        "attempts": p.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "disputes": p.disputes.iter().map(dispute).collect::<Vec<_>>(),
        "receipt": receipt })
}

fn call(c: &CallRecord) -> Value {
    json!({ "id": c.id, "calling": c.calling, "trunk": c.trunk, "started_at": c.started_at.to_string(),
        "ended_at": c.ended_at.map(|at| at.to_string()), "verdict": c.verdict, "record": c.record })
}

async fn paper(store: &dyn Store, p: &Paper, customer: &Customer) -> Result<Value, StoreError> {
    // What others' papers say of this person is told, and whose they are.
    let role = if p.owner == customer.id { "theirs" } else { "about them" };
    let body = match p.kind {
        PaperKind::MainAccount => MainAccount::of_paper(p).ok().map(|m| main_account(&m)),
        PaperKind::Account => match PurchaseAccount::of_paper(p) {
            Ok(a) => Some(account(&a, payee_name(store, &a.payee).await?)),
            Err(_) => None,
        },
        PaperKind::Purchase => match Purchase::of_paper(p) {
            Ok(bought) => Some(purchase(&bought, payee_name(store, &bought.payee).await?)),
            Err(_) => None,
        },
        PaperKind::AppSession => AppSession::of_paper(p).ok().map(|s| app_session(&s)),
        PaperKind::Guardianship | PaperKind::Supervision | PaperKind::Approval | PaperKind::Code | PaperKind::Mandate => None,
    };
    // All others, and what can't be read as what it should be, as it is kept.
    let body = body.unwrap_or_else(|| {
        let mut body: Value = serde_json::from_str(&p.body).unwrap_or(Value::Null);
        strip(&mut body);
        body
    });
    Ok(json!({ "kind": p.kind.as_str(), "what": p.kind.in_words(), "id": p.id, "whose": role, "holds": p.open,
        "created_at": p.created_at.to_string(), "body": body }))
}

async fn payee_name(store: &dyn Store, payee: &PayeeId) -> Result<Option<String>, StoreError> {
    Ok(store.payee(payee).await?.map(|p| p.name))
}

fn main_account(m: &MainAccount) -> Value {
    json!({ "bank": m.bank, "card": m.card, "closed_at": m.closed_at.map(|at| at.to_string()) })
}

fn account(a: &PurchaseAccount, payee_name: Option<String>) -> Value {
    let (consent, closed_at) = match &a.state {
        AccountState::PendingConsent => (None, None),
        AccountState::Active { consent } => (Some(consent), None),
        AccountState::Closed { at, consent } => (consent.as_ref(), Some(*at)),
    };
    // The digest is of the wording, which is the same for everybody.
    let consent = consent
        .map(|c| json!({ "wording": c.wording, "wording_sha256": c.digest, "by": c.by, "how": c.how, "at": c.at.to_string() }));
    json!({ "main_account": a.main, "payee": a.payee, "payee_name": payee_name, "purchase_limit": a.limits.purchase(),
        "day_limit": a.limits.day(), "state": a.state.name(), "consent": consent, "used": a.used,
        "closed_at": closed_at.map(|at| at.to_string()) })
}

fn purchase(p: &Purchase, payee_name: Option<String>) -> Value {
    // Which bank it went to in the end stands with its payment.
    let bank = if let PurchaseState::Charging { bank, .. } = &p.state { Some(bank) } else { None };
    let receipt = if let PurchaseState::Paid { receipt, .. } = &p.state { Some(receipt) } else { None };
    let declined = if let PurchaseState::Declined { reason, .. } = &p.state { Some(reason.text()) } else { None };
    json!({ "request": p.request, "account": p.account, "payee": p.payee, "payee_name": payee_name, "amount": p.amount,
        "state": p.state.name(), "payment": p.state.intent(), "bank": bank, "receipt": receipt, "declined": declined,
        "expires_at": p.expires_at.to_string() })
}

fn app_session(s: &AppSession) -> Value {
    let result = if let AppSessionState::Over { result, .. } = &s.state { Some(result.as_str()) } else { None };
    json!({ "request": s.request, "card": s.card, "origin": s.origin, "language": s.language, "state": s.state.name(),
        "call": s.state.call(), "result": result, "expires_at": s.expires_at.to_string() })
}

/// Digests are secrets of ours; what spoke for somebody else's voice is theirs.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !matches!(name.as_str(), "digest" | "evidence"));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn audited(place: u64, r: &AuditRecord) -> Value {
    json!({ "place": place, "id": r.id, "at": r.at.to_string(), "actor": r.actor, "action": r.action, "subject": r.subject,
        "detail": r.detail })
}
