//! Rows of the audit trail and of the outbox.

use super::{Columns, Reader};
use crate::store::{AuditRecord, OutboxRecord, StoreError};

pub(in crate::store) fn audit<R: Columns>(row: &R) -> Result<AuditRecord, StoreError> {
    let r = Reader::new(row, "audit");
    Ok(AuditRecord {
        id: r.parsed("id")?,
        at: r.at("at")?,
        actor: r.text("actor")?,
        action: r.text("action")?,
        subject: r.text("subject")?,
        detail: r.json("detail")?,
    })
}

pub(in crate::store) fn outbox<R: Columns>(row: &R) -> Result<OutboxRecord, StoreError> {
    let r = Reader::new(row, "outbox");
    Ok(OutboxRecord { id: r.parsed("id")?, at: r.at("at")?, topic: r.text("topic")?, payload: r.json("payload")? })
}
