//! Rows of invitations and templates.

use super::{Columns, Reader};
use crate::store::{Invite, Invited, StoreError, TemplateRecord};

macro_rules! select_invited {
    () => {
        "SELECT id, customer_id, expires_at, wrong_tries, used_at, ended_at FROM invites WHERE "
    };
}
pub(in crate::store) const INVITES_OF: &str =
    concat!(select_invited!(), "customer_id = $1 ORDER BY expires_at DESC, id LIMIT $2");
pub(in crate::store) const INVITATION: &str = concat!(select_invited!(), "id = $1");
/// `$2`: now.
pub(in crate::store) const END_INVITE: &str =
    "UPDATE invites SET ended_at = $2 WHERE id = $1 AND expires_at > $2 AND used_at IS NULL AND ended_at IS NULL";

pub(in crate::store) fn invited<R: Columns>(row: &R) -> Result<Invited, StoreError> {
    let r = Reader::new(row, "invites");
    Ok(Invited { invite: invite(row)?, used_at: r.maybe_at("used_at")?, ended_at: r.maybe_at("ended_at")? })
}

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
