//! Rows of calls, and counts of failures.

use super::{Columns, Reader};
use crate::e164::E164;
use crate::store::{CallRecord, FailureCounts, StoreError};

pub(in crate::store) fn call<R: Columns>(row: &R) -> Result<CallRecord, StoreError> {
    let r = Reader::new(row, "calls");
    let calling = r.maybe_text("calling")?.map(E164::try_from).transpose().map_err(|e| r.damaged(e))?;
    Ok(CallRecord {
        id: r.parsed("id")?,
        customer: r.maybe_parsed("customer_id")?,
        calling,
        trunk: r.text("trunk")?,
        started_at: r.at("started_at")?,
        ended_at: r.maybe_at("ended_at")?,
        verdict: r.maybe_text("verdict")?,
        record: r.json("record")?,
    })
}

pub(in crate::store) fn failure_counts<R: Columns>(row: &R) -> Result<FailureCounts, StoreError> {
    let r = Reader::new(row, "factor_failures");
    Ok(FailureCounts {
        customer_attested: r.small("customer_attested")?,
        customer_any: r.small("customer_any")?,
        calling: r.small("calling")?,
        strangers: r.small("strangers")?,
        trunk: r.small("trunk")?,
    })
}
