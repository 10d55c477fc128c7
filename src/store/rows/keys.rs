//! Rows of wrapped keys.

use super::{Columns, Reader};
use crate::store::{KeyUsage, OlderPlace, OlderValue, StoreError, StoredKey};
use crate::vault::{KeySubject, KeyVersion, MasterKey, WrappedKey};

/// `key_version` and `wrapped`: both, or neither.
pub(in crate::store) fn wrapped<R: Columns>(row: &R, table: &'static str) -> Result<Option<WrappedKey>, StoreError> {
    let r = Reader::new(row, table);
    match (r.maybe_int("key_version")?, r.maybe_bytes("wrapped")?) {
        (Some(number), Some(wrapped)) => Ok(Some(WrappedKey { version: version(&r, number)?, wrapped })),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => Err(r.damaged("half a key")),
    }
}

pub(in crate::store) fn master_key<R: Columns>(row: &R) -> Result<MasterKey, StoreError> {
    let r = Reader::new(row, "master_keys");
    Ok(MasterKey { version: version(&r, r.int("version")?)?, proof: r.bytes("proof")?, since: r.at("since")? })
}

pub(in crate::store) fn usage<R: Columns>(row: &R) -> Result<KeyUsage, StoreError> {
    let r = Reader::new(row, "master_keys");
    Ok(KeyUsage {
        version: version(&r, r.int("version")?)?,
        cards: r.small("cards")?,
        customers: r.small("customers")?,
        secrets: r.small("secrets")?,
    })
}

/// What a row of wrapped keys is about, in the order of [`KeySubject`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum KeyKind {
    Card,
    Customer,
    Secret,
}

/// Where a page of keys goes on: the kinds that are left to be read, and after which name each.
pub(in crate::store) fn keys_left(after: Option<&KeySubject>) -> impl Iterator<Item = (KeyKind, &str)> {
    let (first, name) = match after {
        None => (KeyKind::Card, ""),
        Some(KeySubject::Card { card, .. }) => (KeyKind::Card, card.as_str()),
        Some(KeySubject::Customer(customer)) => (KeyKind::Customer, customer.as_str()),
        Some(KeySubject::Secret(name)) => (KeyKind::Secret, name.as_str()),
    };
    let all = [KeyKind::Card, KeyKind::Customer, KeyKind::Secret].into_iter();
    all.skip_while(move |kind| *kind != first).map(move |kind| (kind, if kind == first { name } else { "" }))
}

/// `name`, `customer_id` (of a card), `key_version`, `wrapped`.
pub(in crate::store) fn stored_key<R: Columns>(row: &R, kind: KeyKind) -> Result<StoredKey, StoreError> {
    let (table, subject) = match kind {
        KeyKind::Card => {
            let r = Reader::new(row, "card_keys");
            ("card_keys", KeySubject::Card { card: r.parsed("name")?, customer: r.parsed("customer_id")? })
        }
        KeyKind::Customer => ("customer_keys", KeySubject::Customer(Reader::new(row, "customer_keys").parsed("name")?)),
        KeyKind::Secret => ("vault_secrets", KeySubject::Secret(Reader::new(row, "vault_secrets").text("name")?)),
    };
    let key = wrapped(row, table)?.ok_or_else(|| Reader::new(row, table).damaged("no key"))?;
    Ok(StoredKey { subject, key })
}

/// Which table a value of the older format is in, in the order of [`OlderPlace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum OlderKind {
    Card,
    Template,
    EarlierTemplate,
    Fingerprint,
}

/// Where a page of such values goes on: the kinds that are left to be read, and after which name and number each.
pub(in crate::store) fn older_left(after: Option<&OlderValue>) -> impl Iterator<Item = (OlderKind, &str, i64)> {
    let (first, name, seq) = match after.map(|v| (&v.place, v.customer.as_str())) {
        None => (OlderKind::Card, "", 0),
        Some((OlderPlace::Card(card), _)) => (OlderKind::Card, card.as_str(), 0),
        Some((OlderPlace::Template { .. }, customer)) => (OlderKind::Template, customer, 0),
        Some((OlderPlace::EarlierTemplate { seq, .. }, customer)) => (OlderKind::EarlierTemplate, customer, *seq),
        Some((OlderPlace::Fingerprint { seq }, _)) => (OlderKind::Fingerprint, "", *seq),
    };
    let all = [OlderKind::Card, OlderKind::Template, OlderKind::EarlierTemplate, OlderKind::Fingerprint].into_iter();
    let from = move |kind| if kind == first { (kind, name, seq) } else { (kind, "", 0) };
    all.skip_while(move |kind| *kind != first).map(from)
}

/// How many rows of a page of `limit` are left to be read.
pub(in crate::store) fn room(limit: u32, read: usize) -> u32 {
    limit.saturating_sub(u32::try_from(read).unwrap_or(u32::MAX))
}

/// `id`, `seq`, `model` as far as the table has them, `customer_id`, `sealed`.
pub(in crate::store) fn older_value<R: Columns>(row: &R, kind: OlderKind) -> Result<OlderValue, StoreError> {
    let table = match kind {
        OlderKind::Card => "cards",
        OlderKind::Template => "templates",
        OlderKind::EarlierTemplate => "earlier_templates",
        OlderKind::Fingerprint => "fingerprints",
    };
    let r = Reader::new(row, table);
    let place = match kind {
        OlderKind::Card => OlderPlace::Card(r.parsed("id")?),
        OlderKind::Template => OlderPlace::Template { model: r.text("model")? },
        OlderKind::EarlierTemplate => OlderPlace::EarlierTemplate { seq: r.int("seq")?, model: r.text("model")? },
        OlderKind::Fingerprint => OlderPlace::Fingerprint { seq: r.int("seq")? },
    };
    Ok(OlderValue { place, customer: r.parsed("customer_id")?, sealed: r.bytes("sealed")? })
}

/// A version for a column.
pub(in crate::store) fn number(version: KeyVersion) -> i64 {
    i64::from(version.get())
}

fn version<R: Columns>(r: &Reader<'_, R>, number: i64) -> Result<KeyVersion, StoreError> {
    u16::try_from(number).ok().and_then(KeyVersion::new).ok_or_else(|| r.damaged("a key version is out of range"))
}
