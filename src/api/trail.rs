//! What happened: calls, the audit trail of the tenant's own things, and proofs that a receipt is in the sealed log.

use serde_json::{Value, json};

use super::ask::{Answer, Ask, ok, page};
use super::money::payment_of_caller;
use super::problem::Problem;
use super::route::{AFTER, LIMIT, Param, Route, run};
use super::scope::Scope;
use super::shape::{Page, shape};
use super::types::When;
use crate::ids::{AuditId, CallId, CardId, CustomerId, IntentId, PayeeId, RequestId};
use crate::processor::log;
use crate::store::{CallRecord, Listed};

shape! {
    /// A call.
    output CallView {
        /// Which one.
        id: CallId,
        /// Who called.
        customer: CustomerId,
        /// Over which trunk it came.
        trunk: String,
        /// When it began.
        started_at: When,
        /// When it ended; null while it lives.
        ended_at: Option<When>,
        /// How it ended, in a word.
        verdict: Option<String>,
    }
}

shape! {
    /// A call with its timeline.
    output CallWhole {
        /// The call.
        call: CallView,
        /// What happened, in order. Never a card number, a key, audio or an embedding.
        record: Value,
    }
}

shape! {
    /// A row of the audit trail.
    output AuditView {
        /// Its place in the trail.
        place: u64,
        /// Which one.
        id: AuditId,
        /// When.
        at: When,
        /// Who or what did it.
        actor: String,
        /// What was done.
        action: String,
        /// To what.
        subject: String,
        /// More.
        detail: Value,
    }
}

shape! {
    /// A proof that a receipt is in the sealed log (RFC 6962 §2.1.1); `voicepay audit verify` checks it.
    output Proof {
        /// The proof.
        proof: Value,
    }
}

/// The parameters of the audit trail.
const TRAIL: &[Param] = &[
    Param {
        name: "subject",
        about: "Of what: the identifier of a customer, card, payee, request or payment.",
        required: true,
        schema: || json!({ "type": "string", "pattern": "^(cus|card|pay|req|int)_[a-z0-9]{1,40}$" }),
    },
    LIMIT,
    AFTER,
];

pub(super) fn routes() -> Vec<Route> {
    use Scope::{AuditRead, CallsRead};
    vec![
        Route::get::<Page<CallView>>(
            "/calls",
            "listCalls",
            CallsRead,
            run!(calls),
            "Calls of the tenant's customers, newest first.",
        )
        .listed(),
        Route::get::<CallWhole>("/calls/{id}", "getCall", CallsRead, run!(call), "One call with its timeline."),
        Route::get::<Page<AuditView>>(
            "/audit",
            "listAudit",
            AuditRead,
            run!(audit),
            "The audit trail of one thing, oldest first.",
        )
        .with(TRAIL),
        Route::get::<Proof>(
            "/receipts/{reference}/proof",
            "proveReceipt",
            AuditRead,
            run!(proof),
            "Proves that a receipt is in the sealed log; 409 until a checkpoint covers it.",
        ),
    ]
}

fn view(c: &CallRecord, customer: CustomerId) -> CallView {
    CallView {
        id: c.id.clone(),
        customer,
        trunk: c.trunk.clone(),
        started_at: c.started_at.into(),
        ended_at: c.ended_at.map(When),
        verdict: c.verdict.clone(),
    }
}

async fn calls(ask: &Ask) -> Result<Answer, Problem> {
    let found = ask.page(Listed::Calls, "calls").await?;
    let mut data = Vec::with_capacity(found.ids.len());
    for id in &found.ids {
        let id = CallId::parse(id).map_err(|e| Problem::internal(&e))?;
        let call = ask.shared.store.call(&id).await?;
        data.extend(call.and_then(|c| c.customer.clone().map(|customer| view(&c, customer))));
    }
    page(data, found.next)
}

async fn call(ask: &Ask) -> Result<Answer, Problem> {
    let none = || Problem::not_found("call");
    let found = ask.shared.store.call(&ask.id::<CallId>(0, "call")?).await?.ok_or_else(none)?;
    // A call that nobody was known in is nobody's.
    let customer = found.customer.clone().ok_or_else(none)?;
    let known = ask.shared.store.customer(&customer).await?;
    known.filter(|c| c.tenant == ask.caller.tenant).ok_or_else(none)?;
    ok(&CallWhole { call: view(&found, customer), record: found.record })
}

/// Whether the subject is the caller's.
async fn of_caller(ask: &Ask, subject: &str) -> Result<(), Problem> {
    let store = &ask.shared.store;
    let none = || Problem::not_found("subject");
    if let Ok(id) = IntentId::parse(subject) {
        return payment_of_caller(ask, &id, "subject").await.map(drop);
    }
    if let Ok(id) = PayeeId::parse(subject) {
        let payee = store.payee(&id).await?.filter(|p| p.tenant == ask.caller.tenant);
        return payee.map(drop).ok_or_else(none);
    }
    let customer = if let Ok(id) = RequestId::parse(subject) {
        store.request(&id).await?.ok_or_else(none)?.request.customer
    } else if let Ok(id) = CardId::parse(subject) {
        store.card(&id).await?.ok_or_else(none)?.customer
    } else {
        CustomerId::parse(subject).map_err(|_| none())?
    };
    store.customer(&customer).await?.filter(|c| c.tenant == ask.caller.tenant).map(drop).ok_or_else(none)
}

async fn audit(ask: &Ask) -> Result<Answer, Problem> {
    let subject = ask.param("subject").unwrap_or("").to_owned();
    let list = format!("audit of {subject}");
    of_caller(ask, &subject).await?;
    let wrong = |_| Problem::invalid("`after` is not a cursor of this list");
    let after = ask.after(&list)?.map(|place| place.parse()).transpose().map_err(wrong)?.unwrap_or(0);
    let found = ask.shared.store.audit_of(&subject, after, ask.limit()?).await?;
    let next = found.next.map(|place| ask.cursor(&list, &place.to_string()));
    let rows = found.rows.into_iter().map(|(place, r)| AuditView {
        place,
        id: r.id,
        at: r.at.into(),
        actor: r.actor,
        action: r.action,
        subject: r.subject,
        detail: r.detail,
    });
    page(rows.collect(), next)
}

async fn proof(ask: &Ask) -> Result<Answer, Problem> {
    let reference: String = ask.id(0, "receipt")?;
    let found = ask.shared.store.receipt_by_reference(&reference).await?.ok_or_else(|| Problem::not_found("receipt"))?;
    payment_of_caller(ask, &found.intent, "receipt").await?;
    let made = log::prove_receipt(&*ask.shared.store, &found.id).await?;
    let made = made.ok_or_else(|| Problem::conflict("no checkpoint covers this receipt yet: ask again in a while"))?;
    ok(&Proof { proof: serde_json::to_value(made).map_err(|e| Problem::internal(&e))? })
}
