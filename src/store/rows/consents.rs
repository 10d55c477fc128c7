//! What both databases are asked of consents, and their rows. Both read `$1`.

use super::{Columns, Reader};
use crate::store::StoreError;
use crate::store::consents::{Consent, GivenHow, Purpose, Withdrawn, WithdrawnHow};

macro_rules! select {
    () => {
        "SELECT c.id, c.customer_id, c.purpose, c.about, c.text_version, c.language, c.given_by, c.how, c.given_at, c.call_id, c.invite_id,
             w.withdrawn_at, w.withdrawn_by, w.how AS withdrawn_how, w.call_id AS withdrawn_call
         FROM consents c LEFT JOIN consent_withdrawals w ON w.consent_id = c.id "
    };
}

pub(in crate::store) const OF: &str = concat!(select!(), "WHERE c.customer_id = $1 ORDER BY c.seq LIMIT $2");
pub(in crate::store) const ONE: &str = concat!(select!(), "WHERE c.id = $1");
/// The language is the customer's, in which the service speaks and writes.
pub(in crate::store) const GIVE: &str =
    "INSERT INTO consents (id, customer_id, purpose, about, text_version, language, given_by, how, given_at, call_id, invite_id)
     SELECT $1, id, $3, $4, $5, language, $6, $7, $8, $9, $10 FROM customers WHERE id = $2";
macro_rules! withdraw {
    () => {
        "INSERT INTO consent_withdrawals (consent_id, withdrawn_at, withdrawn_by, how, call_id)
         SELECT c.id, $2, $3, $4, $5 FROM consents c
         WHERE NOT EXISTS (SELECT 1 FROM consent_withdrawals w WHERE w.consent_id = c.id) AND "
    };
}
/// Those of a customer's voice.
pub(in crate::store) const END_VOICE: &str = concat!(
    withdraw!(),
    "c.customer_id = $1 AND c.purpose IN ('voiceprint', 'following')",
    " ON CONFLICT (consent_id) DO NOTHING"
);
/// That the template follows.
pub(in crate::store) const END_FOLLOWING: &str =
    concat!(withdraw!(), "c.customer_id = $1 AND c.purpose = 'following'", " ON CONFLICT (consent_id) DO NOTHING");
/// All of a customer.
pub(in crate::store) const END_ALL: &str = concat!(withdraw!(), "c.customer_id = $1", " ON CONFLICT (consent_id) DO NOTHING");
/// Those about one thing.
pub(in crate::store) const END_ABOUT: &str =
    concat!(withdraw!(), "c.about = $1 AND c.about <> ''", " ON CONFLICT (consent_id) DO NOTHING");

pub(in crate::store) fn consent<R: Columns>(row: &R) -> Result<Consent, StoreError> {
    let r = Reader::new(row, "consents");
    let withdrawn = match r.maybe_at("withdrawn_at")? {
        None => None,
        Some(at) => Some(Withdrawn {
            at,
            by: r.text("withdrawn_by")?,
            how: r.word("withdrawn_how", WithdrawnHow::parse)?,
            call: r.maybe_parsed("withdrawn_call")?,
        }),
    };
    Ok(Consent {
        id: r.parsed("id")?,
        customer: r.parsed("customer_id")?,
        purpose: r.word("purpose", Purpose::parse)?,
        about: Some(r.text("about")?).filter(|a| !a.is_empty()),
        text_version: r.text("text_version")?,
        language: r.text("language")?,
        given_by: r.text("given_by")?,
        how: r.word("how", GivenHow::parse)?,
        given_at: r.at("given_at")?,
        call: r.maybe_parsed("call_id")?,
        invite: r.maybe_parsed("invite_id")?,
        withdrawn,
    })
}
