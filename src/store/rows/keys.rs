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

fn version<R: Columns>(r: &Reader<'_, R>, number: i64) -> Result<KeyVersion, StoreError> {
    u16::try_from(number).ok().and_then(KeyVersion::new).ok_or_else(|| r.damaged("a key version is out of range"))
}
