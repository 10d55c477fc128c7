//! Rows of endpoints and deliveries.

use super::{Columns, Reader};
use crate::store::rows::trail;
use crate::store::{Backlog, Delivery, DeliveryState, Endpoint, StoreError};

/// A row of `endpoints`, `disabled` read as a number.
pub(in crate::store) fn endpoint<R: Columns>(row: &R) -> Result<Endpoint, StoreError> {
    let r = Reader::new(row, "endpoints");
    let version = r.int("version")?;
    Ok(Endpoint {
        id: r.parsed("id")?,
        tenant: r.parsed("tenant")?,
        url: r.text("url")?,
        topics: r.json("topics")?,
        secrets: r.json("secrets")?,
        disabled: r.int("disabled")? != 0,
        version: u64::try_from(version).map_err(|e| r.damaged(e))?,
        created_at: r.at("created_at")?,
    })
}

/// A delivery with the row of the outbox joined to it.
pub(in crate::store) fn delivery<R: Columns>(row: &R) -> Result<Delivery, StoreError> {
    let r = Reader::new(row, "deliveries");
    Ok(Delivery {
        endpoint: r.parsed("endpoint_id")?,
        news: trail::outbox(row)?,
        position: r.int("position")?,
        subject: r.text("subject")?,
        state: r.word("state", DeliveryState::parse)?,
        tries: r.small("tries")?,
        next_at: r.at("next_at")?,
        answer: r.maybe_text("answer")?,
    })
}

/// What waits, counted.
pub(in crate::store) fn backlog<R: Columns>(row: &R) -> Result<Backlog, StoreError> {
    let r = Reader::new(row, "deliveries");
    let count = |name| u64::try_from(r.int(name)?).map_err(|e| r.damaged(e));
    let ages = [r.maybe_at("outbox_at")?, r.maybe_at("waiting_at")?];
    Ok(Backlog {
        outbox: count("outbox")?,
        waiting: count("waiting")?,
        dead: count("dead")?,
        oldest_at: ages.into_iter().flatten().min(),
    })
}
