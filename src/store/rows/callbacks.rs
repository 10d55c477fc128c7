//! Rows of calls that we owe.

use super::{Columns, Reader};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::callbacks::{Callback, CallbackPurpose, CallbackState};

pub(in crate::store) fn callback<R: Columns>(row: &R) -> Result<Callback, StoreError> {
    let r = Reader::new(row, "callbacks");
    Ok(Callback {
        id: r.parsed("id")?,
        approval: r.parsed("approval_id")?,
        customer: r.parsed("customer_id")?,
        purpose: r.word("purpose", CallbackPurpose::parse)?,
        state: r.word("state", CallbackState::parse)?,
        tries: r.small("tries")?,
        due_at: r.maybe_at("due_at")?.unwrap_or(Timestamp(0)),
        expires_at: r.at("expires_at")?,
        created_at: r.at("created_at")?,
        last_outcome: r.maybe_text("last_outcome")?,
        last_call: r.maybe_parsed("last_call")?,
    })
}
