//! Rows of requests, intents, attempts, the books, disputes and commands.

use super::{Columns, Reader};
use crate::ids::AttemptId;
use crate::ledger::{AccountName, Transfer, TransferKind};
use crate::money::Money;
use crate::payment::{
    Attempt, AttemptState, Capture, Delivery, Dispute, DisputeState, Intent, IntentStatus, Operation, PaymentRequest,
    RequestStatus,
};
use crate::store::{Command, RequestWithPayee, StoreError};

/// With `payee_name` beside the columns of `requests`.
pub(in crate::store) fn request<R: Columns>(row: &R) -> Result<RequestWithPayee, StoreError> {
    let r = Reader::new(row, "requests");
    let request = PaymentRequest {
        id: r.parsed("id")?,
        customer: r.parsed("customer_id")?,
        payee: r.parsed("payee_id")?,
        amount: r.money()?,
        due: r.maybe_parsed("due")?,
        delivery: Delivery::from_row(r.maybe_text("delivery")?).ok_or_else(|| r.damaged("delivery is no address mark"))?,
        expires_at: r.maybe_at("expires_at")?,
        status: r.word("status", RequestStatus::parse)?,
        held_by: r.maybe_parsed("held_by")?,
        created_at: r.at("created_at")?,
    };
    Ok(RequestWithPayee { request, payee_name: r.text("payee_name")? })
}

/// The same, joined from the left: there may be none.
pub(in crate::store) fn joined_request<R: Columns>(row: &R) -> Result<Option<PaymentRequest>, StoreError> {
    match Reader::new(row, "requests").maybe_text("id")? {
        Some(_) => Ok(Some(request(row)?.request)),
        None => Ok(None),
    }
}

/// A row of `intents`.
pub(in crate::store) fn intent<R: Columns>(row: &R) -> Result<Intent, StoreError> {
    let r = Reader::new(row, "intents");
    Ok(Intent {
        id: r.parsed("id")?,
        customer: r.parsed("customer_id")?,
        request: r.parsed("request_id")?,
        payee: r.parsed("payee_id")?,
        card: r.parsed("card_id")?,
        last4: r.text("last4")?,
        occasion: r.parsed("call_id")?,
        amount: r.money()?,
        capture: r.word("capture", Capture::parse)?,
        authorisation_expires_at: r.maybe_at("authorisation_expires_at")?,
        status: r.word("status", IntentStatus::parse)?,
        created_at: r.at("created_at")?,
    })
}

/// A row of `attempts`.
pub(in crate::store) fn attempt<R: Columns>(row: &R) -> Result<Attempt, StoreError> {
    let r = Reader::new(row, "attempts");
    let state: AttemptState = r.json("detail")?;
    if state.name() != r.text("state")? {
        return Err(r.damaged("state and detail disagree"));
    }
    Ok(Attempt {
        id: r.parsed("id")?,
        number: r.small("number")?,
        intent: r.parsed("intent_id")?,
        operation: r.word("operation", Operation::parse)?,
        of_attempt: r.maybe_parsed("of_attempt")?,
        gateway: r.text("gateway")?,
        amount: r.money()?,
        prepared_at: r.at("created_at")?,
        state,
        version: r.int("version")?,
    })
}

/// A row of `transfers`.
pub(in crate::store) fn transfer<R: Columns>(row: &R) -> Result<Transfer, StoreError> {
    let r = Reader::new(row, "transfers");
    let of = || r.parsed("of_id");
    let kind = match r.text("kind")?.as_str() {
        "pending" => TransferKind::Pending,
        "post" => TransferKind::Post { of: of()? },
        "void" => TransferKind::Void { of: of()? },
        other => return Err(r.damaged(format_args!("kind is `{other}`"))),
    };
    Ok(Transfer {
        id: r.parsed("id")?,
        kind,
        debit: AccountName::from_row(r.text("debit")?),
        credit: AccountName::from_row(r.text("credit")?),
        amount: r.money()?,
        intent: r.parsed("intent_id")?,
        cause: r.parsed("cause")?,
        at: r.at("at")?,
    })
}

/// A row of `disputes`.
pub(in crate::store) fn dispute<R: Columns>(row: &R) -> Result<Dispute, StoreError> {
    let r = Reader::new(row, "disputes");
    let (name, closed_at) = (r.text("state")?, r.maybe_at("closed_at")?);
    Ok(Dispute {
        id: r.parsed("id")?,
        intent: r.parsed("intent_id")?,
        reference: r.text("reference")?,
        amount: r.money()?,
        reason: r.text("reason")?,
        opened_at: r.at("opened_at")?,
        state: DisputeState::from_row(&name, closed_at).ok_or_else(|| r.damaged(format_args!("state is `{name}`")))?,
    })
}

/// A row of `commands`: what was asked for, and the attempt that came of it.
pub(in crate::store) fn command<R: Columns>(row: &R) -> Result<(Command, AttemptId), StoreError> {
    let r = Reader::new(row, "commands");
    let amount: Option<Money> = match r.maybe_int("amount_minor")? {
        Some(_) => Some(r.money()?),
        None => None,
    };
    let (intent, operation) = (r.parsed("intent_id")?, r.word("operation", Operation::parse)?);
    Ok((Command { key: r.text("key")?, intent, operation, amount }, r.parsed("attempt_id")?))
}
