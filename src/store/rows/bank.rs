//! Rows of the journal of deductions.

use super::{Columns, Reader, as_int, to_json};
use crate::clock::Timestamp;
use crate::ids::RequestId;
use crate::payment::pairing::{Decision, Entry, Event};
use crate::store::{BankAnswer, StoreError};

/// A row of `bank_events`.
pub(in crate::store) fn entry<R: Columns>(row: &R) -> Result<Entry, StoreError> {
    let r = Reader::new(row, "bank_events");
    let event: Event = r.json("detail")?;
    if event.name() != r.text("kind")? {
        return Err(r.damaged("kind and detail disagree"));
    }
    Ok(Entry { at: r.at("at")?, event })
}

/// The same with `reference` and `seq`.
pub(in crate::store) fn answer<R: Columns>(row: &R) -> Result<BankAnswer, StoreError> {
    let r = Reader::new(row, "bank_events");
    Ok(BankAnswer { reference: r.parsed("reference")?, number: r.small("seq")?, entry: entry(row)? })
}

/// `reference` and `length`.
pub(in crate::store) fn head<R: Columns>(row: &R) -> Result<(RequestId, u64), StoreError> {
    let r = Reader::new(row, "bank_references");
    Ok((r.parsed("reference")?, r.small("length")?))
}

/// `reference` alone.
pub(in crate::store) fn reference<R: Columns>(row: &R) -> Result<RequestId, StoreError> {
    Reader::new(row, "bank_references").parsed("reference")
}

/// After which row a page of answers begins: the last one that was read, or what comes before all that were recorded at `from`.
pub(in crate::store) fn place(from: Timestamp, after: Option<&BankAnswer>) -> Result<(i64, &str, i64), StoreError> {
    match after {
        None => Ok((from.0, "", 0)),
        Some(last) => Ok((last.entry.at.0, last.reference.as_str(), as_int(last.number)?)),
    }
}

/// A decision, as its rows hold it.
pub(in crate::store) struct Appended {
    pub(in crate::store) reference: String,
    /// Before and after.
    pub(in crate::store) lengths: (i64, i64),
    pub(in crate::store) open: bool,
    pub(in crate::store) quarantined: i64,
    pub(in crate::store) events: Vec<EventRow>,
}

pub(in crate::store) struct EventRow {
    pub(in crate::store) seq: i64,
    pub(in crate::store) at: i64,
    pub(in crate::store) kind: &'static str,
    pub(in crate::store) message_id: Option<String>,
    pub(in crate::store) detail: String,
}

/// `None`: nothing is to be appended.
pub(in crate::store) fn appended(decision: &Decision) -> Result<Option<Appended>, StoreError> {
    let Decision { after, entries } = decision;
    let length = as_int(after.length())?;
    let before = length.saturating_sub(i64::try_from(entries.len()).unwrap_or(i64::MAX));
    let row = |(seq, entry): (i64, &Entry)| {
        let message_id = match &entry.event {
            Event::Received { message } => Some(message.id.to_string()),
            Event::Confirmed { .. }
            | Event::Reused { .. }
            | Event::Quarantined { .. }
            | Event::Released { .. }
            | Event::Rejected { .. }
            | Event::Matched { .. }
            | Event::RefundOrdered { .. }
            | Event::Answered { .. }
            | Event::Contradicted { .. }
            | Event::Expired { .. } => None,
        };
        Ok(EventRow { seq, at: entry.at.0, kind: entry.event.name(), message_id, detail: to_json(&entry.event)? })
    };
    let events = (before..).zip(entries).map(row).collect::<Result<Vec<_>, StoreError>>()?;
    let quarantined = i64::try_from(after.quarantine().count()).unwrap_or(i64::MAX);
    let (reference, open) = (after.reference().to_string(), after.open());
    Ok((!events.is_empty()).then_some(Appended { reference, lengths: (before, length), open, quarantined, events }))
}
