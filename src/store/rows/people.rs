//! Rows of customers, cards and payees.

use super::{Columns, Reader};
use crate::e164::E164;
use crate::language::Language;
use crate::payment::Expiry;
use crate::store::{CardRecord, CardStatus, Customer, CustomerStatus, Payee, StoreError};
use crate::vault::Sealed;

/// A customer; the telephone numbers are rows of their own.
pub(in crate::store) fn customer<R: Columns>(row: &R, numbers: Vec<E164>) -> Result<Customer, StoreError> {
    let r = Reader::new(row, "customers");
    Ok(Customer {
        id: r.parsed("id")?,
        tenant: r.parsed("tenant")?,
        name: r.text("name")?,
        customer_number: r.maybe_text("customer_number")?.unwrap_or_default(),
        numbers,
        status: r.word("status", CustomerStatus::parse)?,
        language: r.word("language", Language::from_code)?,
        created_at: r.at("created_at")?,
    })
}

/// A telephone number of a customer.
pub(in crate::store) fn number<R: Columns>(row: &R) -> Result<E164, StoreError> {
    let r = Reader::new(row, "customer_numbers");
    E164::try_from(r.text("number")?).map_err(|e| r.damaged(e))
}

/// A card with its key: the columns of `cards`, and `key_version` and `wrapped` of `card_keys`, joined from the left.
pub(in crate::store) fn card<R: Columns>(row: &R) -> Result<CardRecord, StoreError> {
    let r = Reader::new(row, "cards");
    let expiry = match (r.maybe_int("expiry_year")?, r.maybe_int("expiry_month")?) {
        (Some(year), Some(month)) => {
            let year = u16::try_from(year).map_err(|e| r.damaged(e))?;
            let month = u8::try_from(month).map_err(|e| r.damaged(e))?;
            Some(Expiry::new(year, month).map_err(|e| r.damaged(e))?)
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return Err(r.damaged("half an expiry date")),
    };
    // An erased card has no digest; all zeros is no card's.
    let digest = match r.maybe_bytes("digest")? {
        Some(bytes) => bytes.try_into().map_err(|_| r.damaged("digest has not 32 bytes"))?,
        None => [0; 32],
    };
    Ok(CardRecord {
        id: r.parsed("id")?,
        customer: r.parsed("customer_id")?,
        last4: r.text("last4")?,
        length: r.small("length")?,
        expiry,
        status: r.word("status", CardStatus::parse)?,
        sealed: Sealed { body: r.bytes("sealed")?, key: super::keys::wrapped(row, "card_keys")? },
        digest,
        created_at: r.at("created_at")?,
    })
}

pub(in crate::store) fn payee<R: Columns>(row: &R) -> Result<Payee, StoreError> {
    let r = Reader::new(row, "payees");
    Ok(Payee {
        id: r.parsed("id")?,
        tenant: r.parsed("tenant")?,
        category: r.maybe_parsed("category")?,
        name: r.text("name")?,
        spoken_name_wav: r.maybe_bytes("spoken_name_wav")?,
        created_at: r.at("created_at")?,
    })
}
