//! Rows of invitations and templates.

use super::{Columns, Reader};
use crate::store::{Invite, StoreError, TemplateRecord};

pub(in crate::store) fn invite<R: Columns>(row: &R) -> Result<Invite, StoreError> {
    let r = Reader::new(row, "invites");
    Ok(Invite {
        id: r.parsed("id")?,
        customer: r.parsed("customer_id")?,
        expires_at: r.at("expires_at")?,
        wrong_tries: r.small("wrong_tries")?,
    })
}

/// The template in force, or one that a step replaced.
pub(in crate::store) fn template<R: Columns>(row: &R, table: &'static str) -> Result<TemplateRecord, StoreError> {
    let r = Reader::new(row, table);
    Ok(TemplateRecord {
        customer: r.parsed("customer_id")?,
        model: r.text("model")?,
        sealed: r.bytes("sealed")?,
        created_at: r.at("created_at")?,
    })
}
