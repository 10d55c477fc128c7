//! Money: whole minor units with their currency. No floating point comes near it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An ISO 4217 currency that we can speak and charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Currency {
    /// United States dollar, 2 decimals.
    Usd,
    /// Euro, 2 decimals.
    Eur,
    /// Pound sterling, 2 decimals.
    Gbp,
    /// Japanese yen, no decimals.
    Jpy,
}

impl Currency {
    /// Every currency we know.
    pub const ALL: [Self; 4] = [Self::Usd, Self::Eur, Self::Gbp, Self::Jpy];

    /// The ISO 4217 alphabetic code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Usd => "USD",
            Self::Eur => "EUR",
            Self::Gbp => "GBP",
            Self::Jpy => "JPY",
        }
    }

    /// How many decimals the minor unit has.
    pub fn decimals(self) -> u32 {
        match self {
            Self::Usd | Self::Eur | Self::Gbp => 2,
            Self::Jpy => 0,
        }
    }
}

impl FromStr for Currency {
    type Err = MoneyError;
    fn from_str(s: &str) -> Result<Self, MoneyError> {
        Self::ALL.into_iter().find(|c| c.code().eq_ignore_ascii_case(s)).ok_or_else(|| MoneyError::Currency(s.to_owned()))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A positive amount in minor units (cents, pence, yen).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct MinorUnits(i64);

impl MinorUnits {
    /// The largest amount taken: far above any card limit, far below overflow of any sum we form.
    pub const MAX: i64 = 1_000_000_000_000;

    /// Checks `1..=MAX`.
    pub fn new(units: i64) -> Result<Self, MoneyError> {
        if (1..=Self::MAX).contains(&units) { Ok(Self(units)) } else { Err(MoneyError::Range(units)) }
    }

    /// The plain number.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for MinorUnits {
    type Error = MoneyError;
    fn try_from(units: i64) -> Result<Self, MoneyError> {
        Self::new(units)
    }
}

impl From<MinorUnits> for i64 {
    fn from(m: MinorUnits) -> i64 {
        m.0
    }
}

/// An amount with its currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Money {
    /// How many minor units.
    pub minor: MinorUnits,
    /// Of which currency.
    pub currency: Currency,
}

impl Money {
    /// From a number of minor units.
    pub fn new(minor: i64, currency: Currency) -> Result<Self, MoneyError> {
        Ok(Self { minor: MinorUnits::new(minor)?, currency })
    }

    /// Whole units and the rest: 1999 cents are (19, 99); 500 yen are (500, 0).
    pub fn split(self) -> (i64, i64) {
        let scale = 10_i64.pow(self.currency.decimals());
        (self.minor.get() / scale, self.minor.get() % scale)
    }

    /// Parses `19.99` with a currency given apart; refuses more decimals than the currency has.
    pub fn parse_decimal(text: &str, currency: Currency) -> Result<Self, MoneyError> {
        let malformed = || MoneyError::Malformed(text.to_owned(), currency);
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let decimals = usize::try_from(currency.decimals()).unwrap_or(0);
        let digits_only = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits_only(whole) || !digits_only(part) || part.len() > decimals {
            return Err(malformed());
        }
        if text.ends_with('.') {
            return Err(malformed());
        }
        let padded = format!("{whole}{part:0<decimals$}");
        Self::new(padded.parse().map_err(|_| malformed())?, currency)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = self.split();
        match usize::try_from(self.currency.decimals()).unwrap_or(0) {
            0 => write!(f, "{whole} {}", self.currency),
            width => write!(f, "{whole}.{part:0width$} {}", self.currency),
        }
    }
}

/// What is wrong with an amount.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MoneyError {
    /// Not a currency we know.
    #[error("currency `{0}` is not known: use USD, EUR, GBP or JPY")]
    Currency(String),
    /// Zero, negative or absurdly large.
    #[error("amount of {0} minor units is outside 1 to {max}", max = MinorUnits::MAX)]
    Range(i64),
    /// Not a decimal number of this currency.
    #[error("`{0}` is not an amount in {1}: write it like 19.99 (JPY without decimals)")]
    Malformed(String, Currency),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_follow_the_currency() {
        let usd = Money::parse_decimal("19.9", Currency::Usd).unwrap();
        assert_eq!(usd, Money::new(1990, Currency::Usd).unwrap());
        assert_eq!(usd.to_string(), "19.90 USD");
        assert_eq!(Money::parse_decimal("500", Currency::Jpy).unwrap().to_string(), "500 JPY");
        for bad in ["", ".", "1.", "-1", "1.999", "1e3", "0", "0.00", " 1", "9999999999999999"] {
            assert!(Money::parse_decimal(bad, Currency::Usd).is_err(), "{bad}");
        }
        assert!(Money::parse_decimal("1.5", Currency::Jpy).is_err());
    }
}
