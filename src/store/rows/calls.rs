//! Rows of calls, and counts of failures.

use super::{Columns, Reader};
use crate::e164::E164;
use crate::store::{CallRecord, FailureCounts, StoreError};

/// What follows of a call (`$1`) that is over: a template in whose voice it was was of use, and of somebody who was deleted meanwhile nothing is
/// kept. Both databases read them.
pub(in crate::store) const AFTER_A_CALL: [&str; 2] = [
    "UPDATE templates SET used_at = c.started_at FROM calls c
     WHERE c.id = $1 AND c.customer_id = templates.customer_id AND c.started_at > templates.used_at
         AND c.verdict IN ('Paid', 'Waiting', 'Declined', 'OutcomeUnknown', 'Agreed', 'Disagreed')",
    "UPDATE calls SET calling = NULL, record = '{}' WHERE id = $1
         AND customer_id IN (SELECT id FROM customers WHERE status = 'deleted')",
];

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
