//! Who else has to agree, and how: what the rules ask of a payment, approvals, one-time codes, mandates.

use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ask::{Answer, Ask, accepted, created, ok, page};
use super::asking::{Address, delivery, request_of_path};
use super::people::{of_caller, paper_of_path, payee_of_caller};
use super::problem::Problem;
use super::route::{Route, run};
use super::scope::Scope;
use super::shape::{Defs, Page, Shape, shape};
use super::types::{Amount, AmountAsked, Nothing, When, Word};
use crate::agreement::{AgreeError, Agreed, Asking, CodeError, CodeOutcome, CodeTold, Refusal};
use crate::ids::{ApprovalId, CardId, CodeId, CustomerId, IntentId, MandateId, PayeeId, RequestId};
use crate::payment::code::{self, CODE_SENT_WINDOW};
use crate::payment::policy::Attested;
use crate::payment::{Approval, ApprovalState, Because, Condition, How, Mandate, PaymentRequest, RequestStatus, Terms};
use crate::secret::SecretBytes;
use crate::store::papers;

/// A one-time code as the customer reads it. Wiped, never printed.
pub struct Digits(pub(super) SecretBytes);

impl<'de> Deserialize<'de> for Digits {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        code::written(&text).map(Self).ok_or_else(|| serde::de::Error::custom("a code has 6 digits"))
    }
}

impl Shape for Digits {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "pattern": "^[0-9]{6}$" })
    }
}

shape! {
    /// Why something is asked.
    output Reason {
        /// Which rule.
        rule: String,
        /// What it asks for: `fresh_digits`, `code`, `guardian`, `second_guardian`, `supervisor`.
        asks: Vec<Word>,
        /// Whether it denies the payment.
        denies: bool,
    }
}

shape! {
    /// What the rules in force ask of a payment.
    output TermsView {
        /// Which request.
        request: RequestId,
        /// Which rules.
        policy: String,
        /// The rule that denies it; null: none does.
        denied_by: Option<String>,
        /// What has to hold.
        conditions: Vec<Word>,
        /// Which rule asks for what.
        because: Vec<Reason>,
    }
}

shape! {
    /// A payment that might be asked for.
    input Supposed {
        /// Who would pay.
        customer: CustomerId,
        /// Who would get the money.
        payee: PayeeId,
        /// How much.
        amount: AmountAsked,
        /// Whether goods would be delivered for it: false if absent.
        goods: Option<bool>,
        /// Where they would go.
        address: Option<Address>,
    }
}

shape! {
    /// What the rules in force would ask.
    output SupposedTerms {
        /// Which rules.
        policy: String,
        /// The rule that would deny it; null: none would.
        denied_by: Option<String>,
        /// What would have to hold.
        conditions: Vec<Word>,
        /// Which rule would ask for what.
        because: Vec<Reason>,
    }
}

shape! {
    /// Somebody who is asked.
    output PartyView {
        /// `guardian`, `second_guardian` or `supervisor`.
        role: Word,
        /// Who.
        customer: CustomerId,
        /// What they said; null: nothing yet.
        agreed: Option<bool>,
    }
}

shape! {
    /// What several have to agree to: this payment, this amount, once.
    output ApprovalView {
        /// Which one.
        id: ApprovalId,
        /// For which request.
        request: RequestId,
        /// Who pays.
        customer: CustomerId,
        /// Who gets the money.
        payee: PayeeId,
        /// How much.
        amount: Amount,
        /// `open`, `agreed`, `used`, `denied`, `expired`, `cancelled` or `withdrawn`.
        state: Word,
        /// Who else is asked.
        parties: Vec<PartyView>,
        /// Whether the payer has agreed.
        payer_agreed: bool,
        /// The payment that it was used for.
        payment: Option<IntentId>,
        /// The denied one that it appeals against.
        appeals: Option<ApprovalId>,
        /// From then on nobody can agree.
        expires_at: When,
        /// When it was made.
        created_at: When,
    }
}

shape! {
    /// Somebody's word, that your own systems vouch for.
    input NewDecision {
        /// Whose: one of those who are asked.
        customer: CustomerId,
        /// Yes or no. A no ends it.
        agree: bool,
    }
}

shape! {
    /// Who is to get a link.
    input NewLink {
        /// One of those who are asked.
        customer: CustomerId,
    }
}

shape! {
    /// A link by which one person answers: for them and nobody else.
    output LinkView {
        /// What it answers.
        approval: ApprovalId,
        /// Whose it is.
        customer: CustomerId,
        /// Its token.
        token: String,
        /// The link itself; null: the service makes no links.
        url: Option<String>,
        /// From then on it answers nothing.
        expires_at: When,
    }
}

shape! {
    /// A one-time code is on its way to the customer. It is not shown here.
    output CodeView {
        /// Which one.
        id: CodeId,
        /// For which request.
        request: RequestId,
    }
}

shape! {
    /// A payment by mandate.
    input PayByMandate {
        /// The code that the customer got.
        code: Digits,
    }
}

shape! {
    /// What came of it.
    output Ordered {
        /// `charged`: handed to the payment worker; `waiting`: others have to agree first.
        outcome: Word,
        /// The payment.
        payment: Option<IntentId>,
        /// What others have to agree to.
        approval: Option<ApprovalId>,
    }
}

shape! {
    /// A payee may be paid again without the card number.
    output MandateView {
        /// Which one.
        id: MandateId,
        /// Who pays.
        customer: CustomerId,
        /// With which card.
        card: CardId,
        /// Who gets the money.
        payee: PayeeId,
        /// No single payment above this.
        cap: Amount,
        /// The payment that it follows from.
        first: IntentId,
        /// When it was taken back; null: it holds.
        revoked_at: Option<When>,
        /// When the customer agreed.
        created_at: When,
    }
}

pub(super) fn routes() -> Vec<Route> {
    use Scope::{ApprovalsRead, ApprovalsWrite, PaymentsWrite};
    vec![
        Route::get::<TermsView>(
            "/requests/{id}/terms",
            "getTerms",
            ApprovalsRead,
            run!(terms),
            "What the rules ask of a payment, and which rule.",
        ),
        Route::post::<Supposed, SupposedTerms>(
            "/policy/explain",
            "explainPolicy",
            ApprovalsRead,
            run!(explain),
            "What the rules would ask of a payment that nobody has asked for. Nothing is changed by it.",
        )
        .giving(200),
        Route::post::<Nothing, ApprovalView>(
            "/requests/{id}/approvals",
            "requestApproval",
            ApprovalsWrite,
            run!(request),
            "Asks those who have to agree, before the payer calls. 409 if nobody has to.",
        ),
        Route::get::<Page<ApprovalView>>(
            "/customers/{id}/approvals",
            "listApprovals",
            ApprovalsRead,
            run!(list),
            "Approvals that a customer's payments wait for.",
        ),
        Route::get::<ApprovalView>("/approvals/{id}", "getApproval", ApprovalsRead, run!(one), "One approval."),
        Route::post::<NewDecision, ApprovalView>(
            "/approvals/{id}/decisions",
            "decide",
            ApprovalsWrite,
            run!(decide),
            "Records what somebody who was asked said to you. The last yes charges.",
        )
        .giving(200),
        Route::post::<NewLink, LinkView>(
            "/approvals/{id}/links",
            "makeLink",
            ApprovalsWrite,
            run!(link),
            "Makes the link by which somebody who was asked answers on a page, for you to deliver to them. Nobody is told of it.",
        ),
        Route::post::<Nothing, ApprovalView>(
            "/approvals/{id}/cancel",
            "cancelApproval",
            ApprovalsWrite,
            run!(cancel),
            "Nobody is asked any more.",
        )
        .giving(200),
        Route::post::<Nothing, CodeView>(
            "/requests/{id}/codes",
            "sendCode",
            ApprovalsWrite,
            run!(send_code),
            "Sends the customer a one-time code for this payment; an older one is worth nothing from then on.",
        )
        .giving(202),
        Route::post::<PayByMandate, Ordered>(
            "/requests/{id}/payments",
            "payByMandate",
            PaymentsWrite,
            run!(pay),
            "Pays by the customer's mandate and one-time code.",
        )
        .giving(202),
        Route::get::<Page<MandateView>>(
            "/customers/{id}/mandates",
            "listMandates",
            ApprovalsRead,
            run!(mandates),
            "Mandates that hold.",
        ),
        Route::delete::<MandateView>("/mandates/{id}", "revokeMandate", ApprovalsWrite, run!(revoke), "Takes a mandate back."),
    ]
}

impl From<AgreeError> for Problem {
    fn from(error: AgreeError) -> Self {
        match error {
            AgreeError::NoSuch(what) => Self::not_found(what),
            AgreeError::Approval(e) => Self::conflict(e.to_string()),
            AgreeError::Store(e) => e.into(),
        }
    }
}

impl From<CodeError> for Problem {
    fn from(error: CodeError) -> Self {
        match error {
            CodeError::Store(e) => e.into(),
            CodeError::Vault(e) => Self::internal(&e),
        }
    }
}

/// Words for conditions.
fn words(conditions: impl IntoIterator<Item = Condition>) -> Vec<Word> {
    conditions.into_iter().map(|c| Word(c.as_str())).collect()
}

fn reasons(because: Vec<Because>) -> Vec<Reason> {
    because.into_iter().map(|b| Reason { rule: b.rule.to_string(), asks: words(b.asks.iter()), denies: b.denies }).collect()
}

async fn explain(ask: &Ask) -> Result<Answer, Problem> {
    let supposed: Supposed = ask.input()?;
    let amount = supposed.amount.money().map_err(|e| Problem::invalid(e.to_string()))?;
    let customer = of_caller(ask, &supposed.customer).await?.id;
    let payee = payee_of_caller(ask, &supposed.payee).await?.id;
    let request = PaymentRequest {
        id: RequestId::fresh_at(ask.now, &ask.entropy),
        customer,
        payee,
        amount,
        due: None,
        delivery: delivery(ask, supposed.goods, supposed.address),
        expires_at: None,
        status: RequestStatus::Open,
        held_by: None,
        created_at: ask.now,
    };
    let Terms { policy_version, denied_by, conditions, because } =
        ask.shared.agreements.ask(&request, Asking::call(Attested::Vouched)).await?.terms;
    ok(&SupposedTerms { policy: policy_version, denied_by, conditions: words(conditions), because: reasons(because) })
}

async fn terms(ask: &Ask) -> Result<Answer, Problem> {
    let found = request_of_path(ask).await?;
    // As for a call whose number is vouched for; one that is not may be asked for more.
    let Terms { policy_version, denied_by, conditions, because } =
        ask.shared.agreements.ask(&found, Asking::call(Attested::Vouched)).await?.terms;
    let (conditions, because) = (words(conditions), reasons(because));
    ok(&TermsView { request: found.id, policy: policy_version, denied_by, conditions, because })
}

fn view(a: Approval) -> ApprovalView {
    let state = Word(a.state.name());
    let payment = match a.state {
        ApprovalState::Used { intent } => Some(intent),
        ApprovalState::Open
        | ApprovalState::Agreed
        | ApprovalState::Denied { .. }
        | ApprovalState::Expired
        | ApprovalState::Cancelled
        | ApprovalState::Withdrawn { .. } => None,
    };
    let party =
        |p: crate::payment::Party| PartyView { role: Word(p.role.as_str()), customer: p.who, agreed: p.said.map(|s| s.yes) };
    ApprovalView {
        id: a.id,
        request: a.request,
        customer: a.customer,
        payee: a.payee,
        amount: a.amount.into(),
        state,
        parties: a.parties.into_iter().map(party).collect(),
        payer_agreed: a.payer.is_some(),
        payment,
        appeals: a.appeals,
        expires_at: a.expires_at.into(),
        created_at: a.created_at.into(),
    }
}

/// The approval of the path, if it is the caller's.
async fn of_path(ask: &Ask) -> Result<Approval, Problem> {
    paper_of_path::<ApprovalId, _>(ask).await
}

async fn request(ask: &Ask) -> Result<Answer, Problem> {
    let _nothing: Nothing = ask.input()?;
    let found = request_of_path(ask).await?;
    let open: Vec<Approval> = papers::about(&*ask.shared.store, found.id.as_str()).await?;
    if let Some(there) = open.into_iter().find(|a| a.fits(&found)) {
        return created(&view(there));
    }
    let made = ask.shared.agreements.request_approval(&found).await?;
    created(&view(made.ok_or_else(|| Problem::conflict("nobody else has to agree to this payment, or a rule denies it"))?))
}

async fn list(ask: &Ask) -> Result<Answer, Problem> {
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?;
    let open: Vec<Approval> = papers::of(&*ask.shared.store, &customer.id).await?;
    page(open.into_iter().map(view).collect(), None)
}

async fn one(ask: &Ask) -> Result<Answer, Problem> {
    ok(&view(of_path(ask).await?))
}

async fn decide(ask: &Ask) -> Result<Answer, Problem> {
    let said: NewDecision = ask.input()?;
    let found = of_path(ask).await?;
    let how = How::Api { key: ask.caller.key.to_string() };
    ok(&view(ask.shared.agreements.decide(&found.id, &said.customer, said.agree, how).await?.approval))
}

async fn link(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewLink = ask.input()?;
    let found = of_path(ask).await?;
    if !found.open() || ask.shared.clock.now() >= found.expires_at {
        return Err(Problem::conflict("the approval has ended: no link answers it any more"));
    }
    if !found.parties.iter().any(|p| p.who == new.customer) {
        return Err(Problem::conflict("this person was not asked"));
    }
    let agreements = &ask.shared.agreements;
    let token = agreements.link(&found.id, &new.customer, found.expires_at);
    let (url, expires_at) = (agreements.url(&token), found.expires_at.into());
    created(&LinkView { approval: found.id, customer: new.customer, url, token, expires_at })
}

async fn cancel(ask: &Ask) -> Result<Answer, Problem> {
    let _nothing: Nothing = ask.input()?;
    let found = of_path(ask).await?;
    if found.state == ApprovalState::Cancelled {
        return ok(&view(found)); // cancelled when this was asked before
    }
    ok(&view(ask.shared.agreements.cancel(&found.id, &ask.actor()).await?))
}

async fn send_code(ask: &Ask) -> Result<Answer, Problem> {
    let _nothing: Nothing = ask.input()?;
    let found = payable(ask).await?;
    match ask.shared.agreements.send_code(&found).await? {
        CodeOutcome::Sent(sent) => accepted(&CodeView { id: sent.id, request: found.id }),
        CodeOutcome::TooMany => Err(Problem::too_often(CODE_SENT_WINDOW.as_secs(), "too many codes were sent for this payment")),
    }
}

/// The request of the path, if it can be paid now.
async fn payable(ask: &Ask) -> Result<PaymentRequest, Problem> {
    let found = request_of_path(ask).await?;
    let open = ask.shared.store.payable_requests(&found.customer, ask.shared.clock.now()).await?;
    if open.iter().any(|r| r.request.id == found.id) {
        Ok(found)
    } else {
        Err(Problem::conflict("this request can't be paid now"))
    }
}

async fn pay(ask: &Ask) -> Result<Answer, Problem> {
    let input: PayByMandate = ask.input()?;
    let found = payable(ask).await?;
    let (agreed, told) = ask.shared.agreements.pay_by_mandate(&found, input.code.0.expose()).await?;
    match (agreed, told) {
        (Agreed::Charged(payment), _) => accepted(&Ordered { outcome: Word("charged"), payment: Some(payment), approval: None }),
        (Agreed::Waiting { approval, .. }, _) => {
            accepted(&Ordered { outcome: Word("waiting"), payment: None, approval: Some(approval) })
        }
        (Agreed::Refused(_), CodeTold::Wrong(left)) => Err(Problem::conflict(format!("the code is wrong; tries left: {left}"))),
        (Agreed::Refused(Refusal::NotMet(Condition::Code)), CodeTold::Good | CodeTold::Dead) => {
            Err(Problem::conflict("there is no code that could be tried: send one"))
        }
        (Agreed::Refused(why), CodeTold::Good | CodeTold::Dead) => Err(Problem::conflict(in_words(&why))),
    }
}

fn in_words(why: &Refusal) -> String {
    match why {
        Refusal::Denied(rule) => format!("the rule `{rule}` denies it"),
        Refusal::NotMet(condition) => format!("the rules ask for {}, which this way of paying can't give", condition.as_str()),
        Refusal::Nobody(condition) => format!("the rules ask for {}, and there is none", condition.as_str()),
        Refusal::Submit(refusal) => refusal.to_string(),
    }
}

fn mandate_view(m: Mandate) -> MandateView {
    MandateView {
        id: m.id,
        customer: m.customer,
        card: m.card,
        payee: m.payee,
        cap: m.cap.into(),
        first: m.first,
        revoked_at: m.revoked_at.map(When),
        created_at: m.created_at.into(),
    }
}

async fn mandates(ask: &Ask) -> Result<Answer, Problem> {
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?;
    let held: Vec<Mandate> = papers::of(&*ask.shared.store, &customer.id).await?;
    page(held.into_iter().map(mandate_view).collect(), None)
}

async fn revoke(ask: &Ask) -> Result<Answer, Problem> {
    let found = paper_of_path::<MandateId, Mandate>(ask).await?;
    ok(&mandate_view(ask.shared.agreements.revoke_mandate(&found.id, &ask.actor()).await?))
}
