//! Rows to values, whichever database the row comes from. A row that no program of ours wrote is `Damaged`, never a panic.

pub(super) mod bank;
pub(super) mod callbacks;
pub(super) mod calls;
pub(super) mod chain;
pub(super) mod clients;
pub(super) mod consents;
pub(super) mod keys;
pub(super) mod money;
pub(super) mod notices;
pub(super) mod papers;
pub(super) mod people;
pub(super) mod retention;
pub(super) mod trail;
pub(super) mod voices;

use std::fmt::Display;
use std::str::FromStr;

use sqlx::{ColumnIndex, Decode, Row, Type};

use crate::clock::Timestamp;
use crate::money::{Currency, Money};
use crate::store::StoreError;

/// What a row of either database gives. Three kinds of column are enough: texts (JSON too, kept byte by byte as it was written),
/// 64-bit integers (times, amounts, counts) and bytes.
pub(super) trait Columns {
    fn maybe_text(&self, column: &str) -> Result<Option<String>, sqlx::Error>;
    fn maybe_int(&self, column: &str) -> Result<Option<i64>, sqlx::Error>;
    fn maybe_bytes(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error>;
}

impl<R: Row> Columns for R
where
    for<'c> &'c str: ColumnIndex<R>,
    for<'r> Option<String>: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> Option<i64>: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> Option<Vec<u8>>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn maybe_text(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        self.try_get(column)
    }

    fn maybe_int(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(column)
    }

    fn maybe_bytes(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
        self.try_get(column)
    }
}

/// A row with its table's name, for errors.
pub(super) struct Reader<'r, R> {
    row: &'r R,
    table: &'static str,
}

impl<'r, R: Columns> Reader<'r, R> {
    pub(super) fn new(row: &'r R, table: &'static str) -> Self {
        Self { row, table }
    }

    pub(super) fn damaged(&self, why: impl Display) -> StoreError {
        StoreError::Damaged { table: self.table, why: why.to_string() }
    }

    fn there<T>(&self, column: &str, value: Option<T>) -> Result<T, StoreError> {
        value.ok_or_else(|| self.damaged(format_args!("{column} is NULL")))
    }

    pub(super) fn text(&self, column: &str) -> Result<String, StoreError> {
        self.maybe_text(column).and_then(|text| self.there(column, text))
    }

    pub(super) fn maybe_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        self.row.maybe_text(column).map_err(|e| self.damaged(e))
    }

    pub(super) fn int(&self, column: &str) -> Result<i64, StoreError> {
        self.maybe_int(column).and_then(|int| self.there(column, int))
    }

    pub(super) fn maybe_int(&self, column: &str) -> Result<Option<i64>, StoreError> {
        self.row.maybe_int(column).map_err(|e| self.damaged(e))
    }

    pub(super) fn small<T: TryFrom<i64>>(&self, column: &str) -> Result<T, StoreError> {
        T::try_from(self.int(column)?).map_err(|_| self.damaged(format_args!("{column} is out of range")))
    }

    pub(super) fn bytes(&self, column: &str) -> Result<Vec<u8>, StoreError> {
        self.maybe_bytes(column).and_then(|bytes| self.there(column, bytes))
    }

    pub(super) fn maybe_bytes(&self, column: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.row.maybe_bytes(column).map_err(|e| self.damaged(e))
    }

    pub(super) fn at(&self, column: &str) -> Result<Timestamp, StoreError> {
        self.int(column).map(Timestamp)
    }

    pub(super) fn maybe_at(&self, column: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.maybe_int(column)?.map(Timestamp))
    }

    /// Anything that reads itself from a text: identifiers, telephone numbers, dates.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T, StoreError> {
        self.text(column)?.parse().map_err(|e| self.damaged(format_args!("{column}: {e}")))
    }

    pub(super) fn maybe_parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<Option<T>, StoreError> {
        self.maybe_text(column)?.map(|t| t.parse().map_err(|e| self.damaged(format_args!("{column}: {e}")))).transpose()
    }

    /// A status: one of a fixed set of words.
    pub(super) fn word<T>(&self, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
        let text = self.text(column)?;
        parse(&text).ok_or_else(|| self.damaged(format_args!("{column} is `{text}`")))
    }

    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(column)?).map_err(|e| self.damaged(format_args!("{column}: {e}")))
    }

    /// `amount_minor` and `currency`.
    pub(super) fn money(&self) -> Result<Money, StoreError> {
        let currency: Currency = self.parsed("currency")?;
        Money::new(self.int("amount_minor")?, currency).map_err(|e| self.damaged(e))
    }
}

/// A count or position for a column.
pub(super) fn as_int(n: u64) -> Result<i64, StoreError> {
    i64::try_from(n).map_err(|_| StoreError::Failed("a position is beyond what a row holds".into()))
}

/// JSON for a column.
pub(super) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Failed(format!("a value can't be written as JSON: {e}")))
}
