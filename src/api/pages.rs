//! The pages behind signed links (docs/LINKS.md): where somebody who was asked agrees to a payment or does not, and where a user confirms a purchase.
//! The token of the link is the key. Looking changes nothing, for whatever carries messages follows the links in them; an answer goes the way that
//! the API and the commands take.

pub(super) mod guests;
mod html;
mod words;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use zeroize::Zeroizing;

use super::body::{self, Unread};
use super::problem::Problem;
use super::{Shared, query};
use crate::agreement::{
    AgreeError, Agreed, Agreements, CodeError, CodeOutcome, CodeTold, Confirmation, Decided, LinkError, PurchaseFault, Refusal,
};
use crate::clock::Timestamp;
use crate::ids::{ApprovalId, CustomerId, PurchaseId};
use crate::language::Language;
use crate::payment::code::{self, CODE_SENT_WINDOW};
use crate::payment::{
    AccountError, Approval, ApprovalError, ApprovalState, Condition, ConfirmedBy, Delivery, How, Party, PurchaseError,
    PurchaseState,
};
use crate::secret::SecretBytes;
use crate::store::{Customer, CustomerStatus, RequestWithPayee, StoreError, SubmitRefusal, papers};

pub(super) use guests::Guests;
use html::{Fact, Form, Notice, Page};
use words::Line;

/// What stands before the token.
const BEFORE: &str = "/l/";
/// An answer has so many bytes at most.
const BODY_LIMIT_BYTES: usize = 4_096;
/// It has come by then, in milliseconds.
const BODY_WAIT_MS: u64 = 10_000;
/// How long a confirmation waits for the bank's answer, in milliseconds.
const BANK_WAIT_MS: u64 = 3_000;
/// No answer takes longer, in milliseconds.
const ANSWER_LIMIT_MS: u64 = 30_000;
/// No wording's version is longer.
const CONSENT_LIMIT_CHARS: usize = 64;

/// `GET` and `POST /l/{token}`.
pub(super) fn route(shared: &Arc<Shared>) -> (&'static str, MethodRouter) {
    let (seen, answered) = (Arc::clone(shared), Arc::clone(shared));
    let methods =
        get(move |request: Request<Body>| show(seen, request)).post(move |request: Request<Body>| answer(answered, request));
    ("/l/{token}", methods)
}

/// Shows what is asked, as it stands.
async fn show(shared: Arc<Shared>, request: Request<Body>) -> Response {
    let (parts, _nobody_reads_it) = request.into_parts();
    match Visit::begin(shared, &parts).await {
        Ok(visit) => visit.page().await.response(),
        Err(page) => page.response(),
    }
}

/// Takes an answer.
async fn answer(shared: Arc<Shared>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let visit = match Visit::begin(shared, &parts).await {
        Ok(visit) => visit,
        Err(page) => return page.response(),
    };
    let language = visit.language;
    let said = match read(&parts.headers, body).await {
        Ok(said) => said,
        Err((status, line)) => return Page::plain(status, language, line).response(),
    };
    // On a task of its own: who hangs up leaves nothing half done.
    let work = tokio::spawn(tokio::time::timeout(Duration::from_millis(ANSWER_LIMIT_MS), async move { visit.take(said).await }));
    let page = match work.await {
        Ok(Ok(page)) => page,
        Ok(Err(_)) => Page::plain(StatusCode::SERVICE_UNAVAILABLE, language, Line::Unavailable),
        Err(error) => Page::plain(Problem::internal(&error).status, language, Line::Failed),
    };
    page.response()
}

/// What a link is for, and whose it is.
enum Link {
    Approval(ApprovalId, CustomerId),
    Purchase(PurchaseId, CustomerId),
}

impl Link {
    fn open(agreements: &Agreements, token: &str) -> Result<Self, LinkError> {
        match agreements.open_link(token) {
            Ok((id, who)) => Ok(Self::Approval(id, who)),
            Err(LinkError::Expired) => Err(LinkError::Expired),
            // Not of this kind, or of none.
            Err(LinkError::Forged) => agreements.open_page_link(token).map(|(id, who)| Self::Purchase(id, who)),
        }
    }

    fn who(&self) -> &CustomerId {
        match self {
            Self::Approval(_, who) | Self::Purchase(_, who) => who,
        }
    }

    /// What its visits are counted by.
    fn counted_by(&self) -> String {
        match self {
            Self::Approval(id, who) => format!("{id} {who}"),
            Self::Purchase(id, who) => format!("{id} {who}"),
        }
    }
}

/// Somebody with a good link.
struct Visit {
    shared: Arc<Shared>,
    link: Link,
    visitor: Customer,
    language: Language,
}

/// What the form says.
struct Said {
    answer: Answer,
    consent: Option<String>,
    code: Option<SecretBytes>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    SendCode,
}

/// What a page says first, and with which status.
type Told = (StatusCode, Notice);

impl Visit {
    async fn begin(shared: Arc<Shared>, parts: &Parts) -> Result<Self, Box<Page>> {
        let wanted = words::wanted(&parts.headers);
        let first = wanted.unwrap_or_default();
        let refuse = |status, line| Box::new(Page::plain(status, first, line));
        let often =
            |seconds, line| Page { retry_after_s: Some(seconds), ..Page::plain(StatusCode::TOO_MANY_REQUESTS, first, line) };
        let token = parts.uri.path().strip_prefix(BEFORE).unwrap_or("");
        let link = match Link::open(&shared.agreements, token) {
            Ok(link) => link,
            Err(LinkError::Expired) => return Err(refuse(StatusCode::GONE, Line::Expired)),
            Err(LinkError::Forged) => {
                let from = guests::from(&parts.headers, &parts.extensions, shared.config.behind_proxy);
                shared.guests.guess(from).map_err(|seconds| often(seconds, Line::TooOften))?;
                return Err(refuse(StatusCode::NOT_FOUND, Line::Forged));
            }
        };
        shared.guests.visit(link.counted_by()).map_err(|seconds| often(seconds, Line::LinkTooOften))?;
        let found = shared.store.customer(link.who()).await.map_err(|e| out_of_order(e, first))?;
        let visitor = found.ok_or_else(|| refuse(StatusCode::NOT_FOUND, Line::Forged))?;
        let language = wanted.unwrap_or(visitor.language);
        if visitor.status != CustomerStatus::Active {
            return Err(Box::new(Page::plain(StatusCode::FORBIDDEN, language, Line::Blocked)));
        }
        Ok(Self { shared, link, visitor, language })
    }

    fn plain(&self, status: StatusCode, line: Line) -> Page {
        Page::plain(status, self.language, line)
    }

    /// What is asked, as it stands now. Changes nothing.
    async fn page(&self) -> Page {
        let page = match &self.link {
            Link::Approval(id, who) => self.approval(id, who).await,
            Link::Purchase(id, _) => self.purchase(id).await,
        };
        page.unwrap_or_else(|error| out_of_order(error, self.language))
    }

    /// The same with another sentence, and nothing to answer unless `again`.
    async fn page_that_says(&self, (status, notice): Told, again: bool) -> Page {
        let page = self.page().await;
        if page.status.is_server_error() {
            return page;
        }
        // What ended meanwhile can't be answered again, whatever was wrong with this answer.
        let form = page.form.filter(|_| again);
        Page { status, notice: Some(notice), form, ..page }
    }

    async fn approval(&self, id: &ApprovalId, who: &CustomerId) -> Result<Page, StoreError> {
        let store = &*self.shared.store;
        let Some(approval) = papers::read::<Approval>(store, id.as_str()).await? else {
            return Ok(self.plain(StatusCode::NOT_FOUND, Line::Forged));
        };
        let Some(party) = approval.parties.iter().find(|p| p.who == *who) else {
            return Ok(self.plain(StatusCode::FORBIDDEN, Line::NotAsked));
        };
        let told = approval_stands(&approval, party, self.shared.clock.now());
        let payer = store.customer(&approval.customer).await?.map(|c| c.name).unwrap_or_default();
        let request = store.request(&approval.request).await?;
        let mut facts = self.facts(request, &approval.amount.to_string(), payer);
        facts.push((Line::AskedAs, Fact::Word(party.role.into())));
        facts.push((Line::Until, Fact::At(approval.expires_at)));
        let form = Form { yes: Line::YesApproval, no: Line::NoApproval, wording: None, code: false };
        Ok(self.asking(Line::ApprovalTitle, told, facts, form))
    }

    async fn purchase(&self, id: &PurchaseId) -> Result<Page, StoreError> {
        let shown = match self.shared.agreements.confirmation_page(id).await {
            Ok(shown) => shown,
            Err(PurchaseFault::Store(error)) => return Err(error),
            Err(_) => return Ok(self.plain(StatusCode::NOT_FOUND, Line::Forged)),
        };
        let purchase = shown.purchase;
        let told = purchase_stands(&purchase.state, self.shared.clock.now() >= purchase.expires_at);
        let request = self.shared.store.request(&purchase.request).await?;
        let mut facts = self.facts(request, &purchase.amount.to_string(), self.visitor.name.clone());
        let limits = shown.account.limits;
        facts.extend(shown.others.into_iter().map(|role| (Line::AlsoAsked, Fact::Word(role.into()))));
        facts.push((Line::LimitPurchase, Fact::Text(limits.purchase().to_string())));
        facts.push((Line::LimitDay, Fact::Text(limits.day().to_string())));
        facts.push((Line::Until, Fact::At(purchase.expires_at)));
        let form = Form { yes: Line::YesPurchase, no: Line::NoPurchase, wording: shown.wording, code: shown.wants_code };
        Ok(self.asking(Line::PurchaseTitle, told, facts, form))
    }

    /// `told` of what can't be answered any more; of all else there is a form.
    fn asking(&self, title: Line, told: Option<Told>, facts: Vec<(Line, Fact)>, form: Form) -> Page {
        let page = Page { title, notice: None, facts, ..self.plain(StatusCode::OK, title) };
        match told {
            None => Page { form: Some(form), ..page },
            Some((status, notice)) => Page { status, notice: Some(notice), ..page },
        }
    }

    /// Who gets how much of whom for what.
    fn facts(&self, request: Option<RequestWithPayee>, amount: &str, payer: String) -> Vec<(Line, Fact)> {
        let mut facts = Vec::new();
        if let Some(found) = &request {
            facts.push((Line::Payee, Fact::Text(found.payee_name.clone())));
        }
        facts.push((Line::Amount, Fact::Text(amount.to_owned())));
        facts.push((Line::Payer, Fact::Text(payer)));
        if let Some(RequestWithPayee { request, .. }) = request {
            let what = match request.delivery {
                Delivery::None => Line::Bill,
                Delivery::Nowhere | Delivery::To(_) => Line::Goods,
            };
            facts.push((Line::For, Fact::Word(what)));
            facts.extend(request.due.map(|due| (Line::Due, Fact::Text(due.to_string()))));
            facts.push((Line::Reference, Fact::Text(request.id.to_string())));
        }
        facts
    }

    /// An answer.
    async fn take(&self, said: Said) -> Page {
        match &self.link {
            Link::Approval(id, who) => self.decide(id, who, said.answer).await,
            Link::Purchase(id, who) => match said.answer {
                Answer::SendCode => self.send_code(id).await,
                Answer::Yes | Answer::No => self.confirm(id, who, said).await,
            },
        }
    }

    async fn decide(&self, id: &ApprovalId, who: &CustomerId, answer: Answer) -> Page {
        if answer == Answer::SendCode {
            return self.plain(StatusCode::BAD_REQUEST, Line::BadForm);
        }
        let ok = |line: Line| (StatusCode::OK, line.into());
        match self.shared.agreements.decide(id, who, answer == Answer::Yes, How::Link).await {
            // Or by a process of ours that speaks to that bank.
            Ok(Decided {
                charged: Some(Agreed::Charged(_) | Agreed::Refused(Refusal::Submit(SubmitRefusal::UnknownBank))),
                ..
            }) => self.page_that_says(ok(Line::AllAgreed), false).await,
            Ok(Decided { charged: Some(Agreed::Refused(why)), .. }) => {
                let line = match why {
                    Refusal::Denied(_) | Refusal::NotMet(_) | Refusal::Nobody(_) => Line::RefusedByRules,
                    Refusal::Submit(_) => Line::CannotBePaid,
                };
                self.page_that_says((StatusCode::CONFLICT, line.into()), false).await
            }
            Ok(Decided { approval, charged: Some(Agreed::Waiting { .. }) | None }) => {
                let line = match (answer, approval.payer) {
                    (Answer::Yes, Some(_)) => Line::SaidYes,
                    (Answer::Yes, None) => Line::SaidYesPayer,
                    (Answer::No | Answer::SendCode, _) => Line::SaidNo,
                };
                self.page_that_says(ok(line), false).await
            }
            Err(AgreeError::Approval(ApprovalError::Answered)) => {
                self.page_that_says((StatusCode::CONFLICT, Line::Answered.into()), false).await
            }
            // How it stands says why.
            Err(AgreeError::Approval(_)) => self.too_late().await,
            Err(AgreeError::NoSuch(_)) => self.plain(StatusCode::NOT_FOUND, Line::Forged),
            Err(AgreeError::Store(error)) => out_of_order(error, self.language),
        }
    }

    /// The page of what ended before this answer came.
    async fn too_late(&self) -> Page {
        let page = self.page().await;
        let over = |n: &Notice| n.line == Line::Expired;
        let ended = page.status == StatusCode::OK || page.status == StatusCode::GONE && !page.notice.as_ref().is_some_and(over);
        let status = if ended { StatusCode::CONFLICT } else { page.status };
        Page { status, form: None, ..page }
    }

    async fn confirm(&self, id: &PurchaseId, who: &CustomerId, said: Said) -> Page {
        let agreements = &self.shared.agreements;
        let Said { answer, consent, code } = said;
        let said = Confirmation { yes: answer == Answer::Yes, how: ConfirmedBy::Link, consent, code };
        let confirmed = match agreements.confirm(id, who, &said).await {
            Ok(confirmed) => confirmed,
            Err(fault) => return self.not_confirmed(fault).await,
        };
        // Whatever becomes of the look for the bank's answer, the user's own is written.
        let purchase = agreements.purchase(id, Duration::from_millis(BANK_WAIT_MS)).await.unwrap_or(confirmed);
        let told = purchase_stands(&purchase.state, false).unwrap_or((StatusCode::OK, Line::Charging.into()));
        self.page_that_says((StatusCode::OK, told.1), false).await
    }

    async fn not_confirmed(&self, fault: PurchaseFault) -> Page {
        let conflict = |line: Line| (StatusCode::CONFLICT, Notice::from(line));
        let (told, again) = match fault {
            PurchaseFault::Store(error) | PurchaseFault::CodeFailed(CodeError::Store(error)) => {
                return out_of_order(error, self.language);
            }
            PurchaseFault::CodeFailed(CodeError::Vault(error)) => {
                return self.plain(Problem::internal(&error).status, Line::Failed);
            }
            PurchaseFault::NoSuch(_) => return self.plain(StatusCode::NOT_FOUND, Line::Forged),
            PurchaseFault::Purchase(PurchaseError::Over(_) | PurchaseError::Late) => return self.too_late().await,
            PurchaseFault::Purchase(PurchaseError::NotYours) => ((StatusCode::FORBIDDEN, Line::NotAsked.into()), false),
            PurchaseFault::Purchase(PurchaseError::Account(AccountError::NoConsent | AccountError::OtherWording)) => {
                (conflict(Line::NeedsConsent), true)
            }
            PurchaseFault::Purchase(PurchaseError::Account(AccountError::OverPurchase(_) | AccountError::OverDay(_))) => {
                (conflict(Line::OverLimit), false)
            }
            PurchaseFault::Purchase(PurchaseError::Account(AccountError::Closed) | PurchaseError::NoMainAccount) => {
                (conflict(Line::NoAccount), false)
            }
            PurchaseFault::Purchase(
                PurchaseError::NoLimits(_)
                | PurchaseError::Account(AccountError::OtherCurrency(_) | AccountError::Limits)
                | PurchaseError::OtherThing
                | PurchaseError::NotYet,
            )
            | PurchaseFault::UnknownBank(_)
            | PurchaseFault::Refused(Refusal::Submit(_)) => (conflict(Line::CannotBePaid), false),
            PurchaseFault::Refused(Refusal::NotMet(Condition::Code)) => (conflict(Line::NeedsCode), true),
            PurchaseFault::Refused(Refusal::Denied(_) | Refusal::NotMet(_) | Refusal::Nobody(_)) => {
                (conflict(Line::Refused), false)
            }
            PurchaseFault::Code(CodeTold::Wrong(left)) => {
                ((StatusCode::CONFLICT, Notice { line: Line::WrongCode, more: Some(left.to_string()) }), true)
            }
            PurchaseFault::Code(CodeTold::Good | CodeTold::Dead) => (conflict(Line::DeadCode), true),
        };
        self.page_that_says(told, again).await
    }

    /// Sends the user the code that rules ask for; an older one is worth nothing from then on.
    async fn send_code(&self, id: &PurchaseId) -> Page {
        let page = self.page().await;
        if !page.form.as_ref().is_some_and(|form| form.code) {
            return match page.form {
                Some(_) => self.plain(StatusCode::BAD_REQUEST, Line::BadForm),
                None => self.too_late().await,
            };
        }
        let sent = async {
            let found = papers::read::<crate::payment::Purchase>(&*self.shared.store, id.as_str()).await?;
            let found = found.ok_or(StoreError::NotFound("purchase"))?;
            let found = self.shared.store.request(&found.request).await?.ok_or(StoreError::NotFound("payment request"))?;
            self.shared.agreements.send_code(&found.request).await
        };
        match sent.await {
            Ok(CodeOutcome::Sent(_)) => Page { notice: Some(Line::CodeSent.into()), ..page },
            Ok(CodeOutcome::TooMany) => Page {
                status: StatusCode::TOO_MANY_REQUESTS,
                notice: Some(Line::TooManyCodes.into()),
                retry_after_s: Some(CODE_SENT_WINDOW.as_secs()),
                ..page
            },
            Err(CodeError::Store(error)) => out_of_order(error, self.language),
            Err(CodeError::Vault(error)) => self.plain(Problem::internal(&error).status, Line::Failed),
        }
    }
}

/// How an approval stands for one who was asked; `None`: they can answer.
fn approval_stands(approval: &Approval, party: &Party, now: Timestamp) -> Option<Told> {
    let said = party.said.as_ref().map(|said| said.yes);
    let gone = |line: Line| Some((StatusCode::GONE, line.into()));
    let ok = |line: Line| Some((StatusCode::OK, line.into()));
    match (&approval.state, said) {
        (ApprovalState::Open | ApprovalState::Agreed, _) if now >= approval.expires_at => gone(Line::Expired),
        (ApprovalState::Open, Some(_)) if approval.payer.is_none() => ok(Line::SaidYesPayer),
        (ApprovalState::Open, Some(_)) => ok(Line::SaidYes),
        (ApprovalState::Open, None) => None,
        (ApprovalState::Agreed, _) => ok(Line::AllAgreed),
        (ApprovalState::Used { .. }, _) => gone(Line::Used),
        (ApprovalState::Denied { .. }, Some(false)) => gone(Line::SaidNo),
        (ApprovalState::Denied { .. }, _) => gone(Line::Denied),
        (ApprovalState::Expired, _) => gone(Line::Expired),
        (ApprovalState::Cancelled, _) => gone(Line::Cancelled),
        (ApprovalState::Withdrawn { .. }, _) => gone(Line::Withdrawn),
    }
}

/// How a purchase stands for its user; `None`: it can be confirmed.
fn purchase_stands(state: &PurchaseState, late: bool) -> Option<Told> {
    let gone = |line: Line| Some((StatusCode::GONE, line.into()));
    let ok = |line: Line| Some((StatusCode::OK, line.into()));
    match state {
        PurchaseState::Awaiting if late => gone(Line::Expired),
        PurchaseState::Awaiting => None,
        PurchaseState::Waiting { .. } => ok(Line::WaitsForOthers),
        PurchaseState::Charging { in_doubt: false, .. } => ok(Line::Charging),
        PurchaseState::Charging { in_doubt: true, .. } => ok(Line::InDoubt),
        PurchaseState::Paid { .. } => ok(Line::Paid),
        PurchaseState::Declined { .. } => ok(Line::Declined),
        PurchaseState::Reversed { .. } => ok(Line::Reversed),
        PurchaseState::Refused => gone(Line::PurchaseRefused),
        PurchaseState::Expired => gone(Line::Expired),
        PurchaseState::Cancelled => gone(Line::Cancelled),
        PurchaseState::Denied { .. } => gone(Line::Denied),
        PurchaseState::Withdrawn { .. } => gone(Line::Withdrawn),
    }
}

/// The database does not do what it should; the log says what.
fn out_of_order(error: StoreError, language: Language) -> Page {
    let problem = Problem::from(error);
    let line = match problem.status {
        StatusCode::SERVICE_UNAVAILABLE => Line::Unavailable,
        StatusCode::NOT_FOUND => Line::Forged,
        StatusCode::CONFLICT => Line::Busy,
        _ => Line::Failed,
    };
    Page { retry_after_s: problem.retry_after_s, ..Page::plain(problem.status, language, line) }
}

/// What the form says: its own fields, each once.
async fn read(headers: &HeaderMap, body: Body) -> Result<Said, (StatusCode, Line)> {
    if !body::is_kind(headers, "application/x-www-form-urlencoded") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, Line::BadKind));
    }
    let read = body::whole(headers, body, BODY_LIMIT_BYTES, BODY_WAIT_MS).await;
    let body = Zeroizing::new(Vec::from(read.map_err(|unread| match unread {
        Unread::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, Line::TooLong),
        Unread::TooSlow => (StatusCode::REQUEST_TIMEOUT, Line::TooSlow),
    })?));
    let bad = (StatusCode::BAD_REQUEST, Line::BadForm);
    let text = std::str::from_utf8(&body).map_err(|_| bad)?;
    let (mut answer, mut consent, mut code) = (None, None, None);
    for pair in text.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(bad)?;
        let field = match name {
            "answer" => &mut answer,
            "consent" => &mut consent,
            "code" => &mut code,
            _ => return Err(bad),
        };
        let value = Zeroizing::new(query::decode(value).map_err(|_| bad)?);
        if field.replace(value).is_some() {
            return Err(bad);
        }
    }
    let answer = match answer.as_ref().map(|a| a.as_str()) {
        Some("yes") => Answer::Yes,
        Some("no") => Answer::No,
        Some("code") => Answer::SendCode,
        _ => return Err(bad),
    };
    if consent.as_ref().is_some_and(|c| c.len() > CONSENT_LIMIT_CHARS) {
        return Err(bad);
    }
    // A no that goes with half a code is a no.
    let code = match code.filter(|c| answer == Answer::Yes && !c.trim().is_empty()) {
        Some(code) => Some(digits(&code).ok_or((StatusCode::BAD_REQUEST, Line::CodeShape))?),
        None => None,
    };
    Ok(Said { answer, consent: consent.map(|c| c.as_str().to_owned()), code })
}

/// The values of a code's digits, however they were spaced.
fn digits(text: &str) -> Option<SecretBytes> {
    let together: Zeroizing<String> = Zeroizing::new(text.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    code::written(&together)
}
