//! Telephone numbers as E.164, normalised once at the door.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A telephone number: `+`, then 7 to 15 digits, the first not 0 (ITU-T E.164).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct E164(String);

impl E164 {
    /// From what people and trunks write: `+44 20 7946 0958`, `0044…`, `(020) 7946-0958` with `default_country`
    /// (digits such as `44`; empty: national numbers are refused).
    pub fn normalise(text: &str, default_country: &str) -> Result<Self, E164Error> {
        let mut digits = String::new();
        let mut plus = false;
        for c in text.trim().chars() {
            match c {
                '+' if digits.is_empty() && !plus => plus = true,
                '0'..='9' => digits.push(c),
                ' ' | '-' | '.' | '(' | ')' => {}
                _ => return Err(E164Error::NotANumber),
            }
        }
        let full = if plus {
            digits
        } else if let Some(rest) = digits.strip_prefix("00") {
            rest.to_owned()
        } else if default_country.is_empty() {
            return Err(E164Error::National);
        } else {
            // A trunk prefix 0 is dropped; a number already in the plan's full length is left to the operator's config.
            format!("{default_country}{}", digits.strip_prefix('0').unwrap_or(&digits))
        };
        if !(7..=15).contains(&full.len()) || full.starts_with('0') {
            return Err(E164Error::Length);
        }
        Ok(Self(format!("+{full}")))
    }

    /// With its `+`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for E164 {
    type Error = E164Error;
    fn try_from(s: String) -> Result<Self, E164Error> {
        Self::normalise(&s, "")
    }
}

impl From<E164> for String {
    fn from(n: E164) -> String {
        n.0
    }
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for E164 {
    /// Logs show the country and the last two digits: enough to follow a call, not enough to dial it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.len();
        write!(f, "{}…{}", self.0.get(..3).unwrap_or("+"), self.0.get(n.saturating_sub(2)..).unwrap_or(""))
    }
}

/// Why a text is no telephone number.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum E164Error {
    /// A character that no telephone number has.
    #[error("not a telephone number: use digits like +442079460958")]
    NotANumber,
    /// A national number and no default country.
    #[error("a national number needs `identity.default_country` in the config, or write it with + and the country")]
    National,
    /// Too short or too long.
    #[error("a telephone number has 7 to 15 digits after the +, the first not 0")]
    Length,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_meet_in_one_form() {
        let n = E164::normalise("+44 20 7946 0958", "").unwrap();
        assert_eq!(n.as_str(), "+442079460958");
        assert_eq!(E164::normalise("0044 (20) 7946-0958", "").unwrap(), n);
        assert_eq!(E164::normalise("020 7946 0958", "44").unwrap(), n);
        assert_eq!(E164::normalise("020 7946 0958", "").unwrap_err(), E164Error::National);
        assert_eq!(E164::normalise("anonymous", "44").unwrap_err(), E164Error::NotANumber);
        assert_eq!(E164::normalise("+12345", "").unwrap_err(), E164Error::Length);
        assert_eq!(format!("{n:?}"), "+44…58");
    }
}
