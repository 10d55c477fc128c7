//! Payments, what follows them, disputes and receipts.

use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{Answer, Ask, accepted, created, ok, page};
use super::problem::Problem;
use super::route::{Route, run};
use super::scope::Scope;
use super::shape::{Defs, Page, Shape, shape};
use super::types::{Amount, AmountAsked, Name, When, Word, words};
use crate::ids::{AttemptId, CardId, CustomerId, DisputeId, IntentId, PayeeId, ReceiptId, RequestId};
use crate::money::Money;
use crate::payment::{Attempt, Dispute, Operation, Standing};
use crate::processor::{self, OperationOrder};
use crate::store::{Listed, Payment};

impl Shape for Standing {
    fn schema(_: &mut Defs) -> Value {
        let all = [
            Self::Pending,
            Self::Conflicted,
            Self::Authorised,
            Self::Paid,
            Self::PartlyRefunded,
            Self::Refunded,
            Self::Disputed,
            Self::ChargedBack,
            Self::Voided,
            Self::Expired,
            Self::Failed,
        ];
        json!({ "type": "string", "enum": all })
    }
}

/// The acquirer's name of a dispute.
pub struct Reference(String);

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let fits =
            (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        let wrong = "a reference has 1 to 64 letters, digits, `-`, `_` and `.`";
        if fits { Ok(Self(text)) } else { Err(serde::de::Error::custom(wrong)) }
    }
}

impl Shape for Reference {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" })
    }
}

shape! {
    /// One operation at the acquirer.
    output AttemptView {
        /// Which one.
        id: AttemptId,
        /// `charge`, `authorise`, `capture`, `void` or `refund`.
        operation: Word,
        /// How much.
        amount: Amount,
        /// `prepared`, `dispatched`, `needs_reconciliation`, `conflicted`, `succeeded`, `declined` or `reversed`.
        state: Word,
        /// When it was written down, before anything was sent.
        prepared_at: When,
    }
}

shape! {
    /// A contested payment.
    output DisputeView {
        /// Which one.
        id: DisputeId,
        /// Of which payment.
        payment: IntentId,
        /// What the acquirer calls it.
        reference: String,
        /// How much is contested.
        amount: Amount,
        /// Why, in the acquirer's words.
        reason: String,
        /// `opened`, `won` or `lost`.
        state: Word,
        /// When it was opened.
        opened_at: When,
    }
}

shape! {
    /// A payment.
    output PaymentView {
        /// Which one.
        id: IntentId,
        /// Who pays.
        customer: CustomerId,
        /// What is paid.
        request: RequestId,
        /// Who gets the money.
        payee: PayeeId,
        /// The payee's name.
        payee_name: String,
        /// With which card.
        card: CardId,
        /// Its last four digits.
        last4: String,
        /// By what the customer said yes: a call, an approval or a one-time code.
        occasion: String,
        /// How much.
        amount: Amount,
        /// How it stands.
        standing: Standing,
        /// What may be captured now, in minor units.
        capturable: i64,
        /// What may be refunded now, in minor units.
        refundable: i64,
        /// What was given back for certain, in minor units.
        refunded: i64,
        /// What was done and is being done at the acquirer, oldest first.
        attempts: Vec<AttemptView>,
        /// Its disputes, oldest first.
        disputes: Vec<DisputeView>,
        /// The ten digits of its receipt, if it was paid.
        receipt: Option<String>,
        /// When the customer said yes.
        created_at: When,
    }
}

shape! {
    /// A receipt that anyone can check.
    output ReceiptView {
        /// Which one.
        id: ReceiptId,
        /// Its ten digits.
        reference: String,
        /// Of which payment.
        payment: IntentId,
        /// How much was charged.
        amount: Amount,
        /// Who got it, as it was called then.
        payee_name: String,
        /// The card's last four digits.
        last4: String,
        /// When the acquirer's yes was recorded.
        at: When,
        /// The signed document: claims, key and signature.
        document: Value,
    }
}

shape! {
    /// A capture or refund. The Idempotency-Key makes it happen once.
    input Operate {
        /// How much: all that is left if absent.
        amount: Option<AmountAsked>,
        /// Why, for the audit trail.
        why: Option<Name>,
    }
}

shape! {
    /// A void: all or nothing.
    input VoidIt {
        /// Why, for the audit trail.
        why: Option<Name>,
    }
}

shape! {
    /// A cardholder contests a payment.
    input NewDispute {
        /// What the acquirer calls it; the same again is the same dispute.
        reference: Reference,
        /// How much: all that was captured if absent.
        amount: Option<AmountAsked>,
        /// Why, in the acquirer's words.
        reason: Name,
    }
}

words! {
    /// How a dispute ended.
    DisputeEnd {
        /// The payee keeps the money.
        Won = "won",
        /// The cardholder gets it back.
        Lost = "lost",
    }
}

shape! {
    /// A dispute was decided.
    input Decision {
        /// How.
        outcome: DisputeEnd,
    }
}

pub(super) fn routes() -> Vec<Route> {
    use Scope::{PaymentsRead, PaymentsWrite};
    vec![
        Route::get::<Page<PaymentView>>("/payments", "listPayments", PaymentsRead, run!(list), "Payments, newest first.")
            .listed(),
        Route::get::<PaymentView>("/payments/{id}", "getPayment", PaymentsRead, run!(one), "One payment, whole."),
        Route::post::<Operate, AttemptView>(
            "/payments/{id}/captures",
            "capture",
            PaymentsWrite,
            run!(capture),
            "Captures what was authorised, or less: the rest is released. Done by the payment worker; see the payment.",
        )
        .giving(202),
        Route::post::<VoidIt, AttemptView>(
            "/payments/{id}/voids",
            "void",
            PaymentsWrite,
            run!(void),
            "Gives an authorisation back unused. Done by the payment worker.",
        )
        .giving(202),
        Route::post::<Operate, AttemptView>(
            "/payments/{id}/refunds",
            "refund",
            PaymentsWrite,
            run!(refund),
            "Gives money back, all that is left or less. Done by the payment worker.",
        )
        .giving(202),
        Route::post::<NewDispute, DisputeView>(
            "/payments/{id}/disputes",
            "openDispute",
            PaymentsWrite,
            run!(open_dispute),
            "Records that a payment is contested: the money is held back from the payee.",
        ),
        Route::get::<DisputeView>("/disputes/{reference}", "getDispute", PaymentsRead, run!(dispute), "One dispute."),
        Route::post::<Decision, DisputeView>(
            "/disputes/{reference}/decision",
            "closeDispute",
            PaymentsWrite,
            run!(close_dispute),
            "Records how a dispute was decided.",
        )
        .giving(200),
        Route::get::<ReceiptView>("/receipts/{reference}", "getReceipt", PaymentsRead, run!(receipt), "A receipt by its digits."),
    ]
}

fn attempt_view(a: &Attempt) -> AttemptView {
    AttemptView {
        id: a.id.clone(),
        operation: Word(a.operation.as_str()),
        amount: a.amount.into(),
        state: Word(a.state.name()),
        prepared_at: a.prepared_at.into(),
    }
}

fn dispute_view(d: &Dispute) -> DisputeView {
    DisputeView {
        id: d.id.clone(),
        payment: d.intent.clone(),
        reference: d.reference.clone(),
        amount: d.amount.into(),
        reason: d.reason.clone(),
        state: Word(d.state.name()),
        opened_at: d.opened_at.into(),
    }
}

fn view(p: &Payment) -> PaymentView {
    let (i, balance) = (&p.intent, p.balance());
    PaymentView {
        id: i.id.clone(),
        customer: i.customer.clone(),
        request: i.request.clone(),
        payee: i.payee.clone(),
        payee_name: p.payee_name.clone(),
        card: i.card.clone(),
        last4: i.last4.clone(),
        occasion: i.occasion.to_string(),
        amount: i.amount.into(),
        standing: p.standing(),
        capturable: balance.capturable(),
        refundable: balance.refundable(),
        refunded: balance.refunded,
        attempts: p.attempts.iter().map(attempt_view).collect(),
        disputes: p.disputes.iter().map(dispute_view).collect(),
        receipt: p.receipt.as_ref().map(|r| r.reference.clone()),
        created_at: i.created_at.into(),
    }
}

/// The payment, if it is the caller's.
pub(super) async fn payment_of_caller(ask: &Ask, id: &IntentId, what: &str) -> Result<Payment, Problem> {
    let none = || Problem::not_found(what);
    let found = ask.shared.store.payment(id).await?.ok_or_else(none)?;
    let customer = ask.shared.store.customer(&found.intent.customer).await?;
    customer.filter(|c| c.tenant == ask.caller.tenant).ok_or_else(none)?;
    Ok(found)
}

async fn of_path(ask: &Ask) -> Result<Payment, Problem> {
    payment_of_caller(ask, &ask.id(0, "payment")?, "payment").await
}

async fn list(ask: &Ask) -> Result<Answer, Problem> {
    let found = ask.page(Listed::Payments, "payments").await?;
    let mut data = Vec::with_capacity(found.ids.len());
    for id in &found.ids {
        let id = IntentId::parse(id).map_err(|e| Problem::internal(&e))?;
        data.extend(ask.shared.store.payment(&id).await?.as_ref().map(view));
    }
    page(data, found.next)
}

async fn one(ask: &Ask) -> Result<Answer, Problem> {
    ok(&view(&of_path(ask).await?))
}

fn asked(amount: Option<AmountAsked>) -> Result<Option<Money>, Problem> {
    amount.map(|a| a.money()).transpose().map_err(|e| Problem::invalid(e.to_string()))
}

async fn operate(ask: &Ask, operation: Operation, amount: Option<Money>, why: Option<Name>) -> Result<Answer, Problem> {
    let payment = of_path(ask).await?;
    let why = why.map_or_else(String::new, |w| w.0);
    // The same Idempotency-Key is the same command, whatever became of the process in between.
    let order = OperationOrder { key: ask.command.clone(), intent: payment.intent.id, operation, amount, by: ask.actor(), why };
    let id = ask.shared.processor.operate(order).await?;
    let job = ask.shared.store.job(&id).await?.ok_or_else(|| Problem::not_found("attempt"))?;
    accepted(&attempt_view(&job.attempt))
}

async fn capture(ask: &Ask) -> Result<Answer, Problem> {
    let input: Operate = ask.input()?;
    operate(ask, Operation::Capture, asked(input.amount)?, input.why).await
}

async fn refund(ask: &Ask) -> Result<Answer, Problem> {
    let input: Operate = ask.input()?;
    operate(ask, Operation::Refund, asked(input.amount)?, input.why).await
}

async fn void(ask: &Ask) -> Result<Answer, Problem> {
    let input: VoidIt = ask.input()?;
    operate(ask, Operation::Void, None, input.why).await
}

async fn open_dispute(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewDispute = ask.input()?;
    let (payment, amount) = (of_path(ask).await?, asked(new.amount)?);
    let reference = new.reference.0;
    // A reference that another tenant's payment has is told like any other clash.
    let made = ask.shared.processor.open_dispute(&payment.intent.id, &reference, amount, &new.reason.0, &ask.actor()).await?;
    created(&dispute_view(&made))
}

async fn dispute_of_path(ask: &Ask) -> Result<Dispute, Problem> {
    let none = || Problem::not_found("dispute");
    let reference: String = ask.id(0, "dispute")?;
    let found = ask.shared.store.dispute(&reference).await?.ok_or_else(none)?;
    payment_of_caller(ask, &found.intent, "dispute").await?;
    Ok(found)
}

async fn dispute(ask: &Ask) -> Result<Answer, Problem> {
    ok(&dispute_view(&dispute_of_path(ask).await?))
}

async fn close_dispute(ask: &Ask) -> Result<Answer, Problem> {
    let decision: Decision = ask.input()?;
    let found = dispute_of_path(ask).await?;
    let won = decision.outcome == DisputeEnd::Won;
    ok(&dispute_view(&ask.shared.processor.close_dispute(&found.reference, won, &ask.actor()).await?))
}

async fn receipt(ask: &Ask) -> Result<Answer, Problem> {
    let reference: String = ask.id(0, "receipt")?;
    let found = ask.shared.store.receipt_by_reference(&reference).await?.ok_or_else(|| Problem::not_found("receipt"))?;
    payment_of_caller(ask, &found.intent, "receipt").await?;
    let document = serde_json::to_value(processor::document(&found)).map_err(|e| Problem::internal(&e))?;
    ok(&ReceiptView {
        id: found.id,
        reference: found.reference,
        payment: found.intent,
        amount: found.amount.into(),
        payee_name: found.payee_name,
        last4: found.last4,
        at: found.at.into(),
        document,
    })
}
