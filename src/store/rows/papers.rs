//! Rows of papers, of sums and of codes on their way.

use super::{Columns, Reader};
use crate::store::papers::CodeDelivery;
use crate::store::{Paper, PaperKind, Spent, StoreError};

/// A row of `papers`, `open` read as a number.
pub(in crate::store) fn paper<R: Columns>(row: &R) -> Result<Paper, StoreError> {
    let r = Reader::new(row, "papers");
    let version = r.int("version")?;
    Ok(Paper {
        kind: r.word("kind", PaperKind::parse)?,
        id: r.text("id")?,
        owner: r.parsed("owner")?,
        about: r.text("about")?,
        open: r.int("open")? != 0,
        due_at: r.maybe_at("due_at")?,
        version: u64::try_from(version).map_err(|e| r.damaged(e))?,
        body: r.text("body")?,
        created_at: r.at("created_at")?,
    })
}

/// Two sums and two counts.
pub(in crate::store) fn spent<R: Columns>(row: &R) -> Result<Spent, StoreError> {
    let r = Reader::new(row, "intents");
    Ok(Spent {
        in_all: r.int("in_all")?,
        to_payee: r.int("to_payee")?,
        paid: r.small("paid")?,
        paid_payee: r.small("paid_payee")?,
    })
}

/// A code on its way.
pub(in crate::store) fn delivery<R: Columns>(row: &R) -> Result<CodeDelivery, StoreError> {
    let r = Reader::new(row, "code_deliveries");
    Ok(CodeDelivery {
        code: r.parsed("code_id")?,
        customer: r.parsed("customer_id")?,
        sealed: r.bytes("sealed")?,
        expires_at: r.at("expires_at")?,
        tries: r.small("tries")?,
    })
}
