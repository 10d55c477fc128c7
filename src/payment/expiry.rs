//! The last month in which a card is good.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// A card's last month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expiry {
    year: u16,
    month: u8,
}

impl Expiry {
    /// `year` 2000 to 2099, `month` 1 to 12.
    pub fn new(year: u16, month: u8) -> Result<Self, ExpiryError> {
        if (2000..=2099).contains(&year) && (1..=12).contains(&month) { Ok(Self { year, month }) } else { Err(ExpiryError) }
    }

    /// Four digits.
    pub fn year(self) -> u16 {
        self.year
    }

    /// 1 to 12.
    pub fn month(self) -> u8 {
        self.month
    }

    /// Whether its month has passed. Cards are good until their month ends at the place where they are used: 14 hours of grace
    /// cover every time zone behind UTC.
    pub fn passed(self, now: Timestamp) -> bool {
        const GRACE: Duration = Duration::from_secs(14 * 3600);
        let Ok(at) = time::OffsetDateTime::from_unix_timestamp(now.minus(GRACE).0.div_euclid(1000)) else { return true };
        (at.year(), u8::from(at.month())) > (i32::from(self.year), self.month)
    }
}

impl FromStr for Expiry {
    type Err = ExpiryError;
    /// `MM/YY`, as it stands on a card.
    fn from_str(text: &str) -> Result<Self, ExpiryError> {
        let (month, year) = text.split_once('/').ok_or(ExpiryError)?;
        let two = |s: &str| (s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<u8>().ok()).flatten();
        let (month, year) = (two(month).ok_or(ExpiryError)?, two(year).ok_or(ExpiryError)?);
        Self::new(2000 + u16::from(year), month)
    }
}

impl TryFrom<String> for Expiry {
    type Error = ExpiryError;
    fn try_from(text: String) -> Result<Self, ExpiryError> {
        text.parse()
    }
}

impl From<Expiry> for String {
    fn from(e: Expiry) -> String {
        e.to_string()
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}/{:02}", self.month, self.year % 100)
    }
}

/// A text that is no card date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a card's expiry date: write it like 09/29")]
pub struct ExpiryError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_good_until_its_month_has_ended_everywhere() {
        let e: Expiry = "11/26".parse().unwrap();
        assert_eq!((e.to_string().as_str(), e.year(), e.month()), ("11/26", 2026, 11));
        let december_first = Timestamp(1_796_083_200_000);
        assert_eq!(december_first.to_string(), "2026-12-01T00:00:00.000Z");
        assert!(!e.passed(december_first));
        assert!(e.passed(december_first.plus(Duration::from_secs(14 * 3600))));
        for bad in ["13/26", "00/26", "1/26", "11-26", "", "11/2026"] {
            assert!(bad.parse::<Expiry>().is_err(), "{bad}");
        }
    }
}
