//! Bytes that never print: card numbers and keys. `Debug` shows only that something is there; memory is wiped on drop. And the
//! files in which people leave secrets for us.

use std::fmt;
use std::path::Path;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A card number (primary account number): 13 to 19 digits that pass Luhn (ISO/IEC 7812-1).
/// It has no `Display`, no `Serialize`, and its `Debug` tells nothing, not even its length.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Pan(Vec<u8>);

impl Pan {
    /// The shortest and the longest card number.
    pub const LENGTHS: std::ops::RangeInclusive<usize> = 13..=19;

    /// From ASCII digits; spaces and hyphens between groups are dropped.
    pub fn parse(text: &str) -> Result<Self, PanError> {
        let mut digits = Zeroizing::new(Vec::with_capacity(19));
        for b in text.bytes() {
            match b {
                b'0'..=b'9' if digits.len() < 32 => digits.push(b - b'0'),
                b' ' | b'-' => {}
                _ => return Err(PanError::NotDigits),
            }
        }
        Self::from_digits(&digits)
    }

    /// From digit values 0 to 9.
    pub fn from_digits(digits: &[u8]) -> Result<Self, PanError> {
        if digits.iter().any(|d| *d > 9) {
            return Err(PanError::NotDigits);
        }
        if !Self::LENGTHS.contains(&digits.len()) {
            return Err(PanError::Length);
        }
        if !luhn_valid(digits) {
            return Err(PanError::CheckDigit);
        }
        Ok(Self(digits.to_vec()))
    }

    /// The digit values. Keep what you derive from them in zeroising buffers.
    pub fn digits(&self) -> &[u8] {
        &self.0
    }

    /// The digits as ASCII, in a buffer that wipes itself.
    pub fn ascii(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.iter().map(|d| char::from(b'0' + d)).collect())
    }

    /// The last four digits: all of a card number that people and receipts may see.
    pub fn last4(&self) -> String {
        self.0.iter().skip(self.0.len().saturating_sub(4)).map(|d| char::from(b'0' + d)).collect()
    }
}

impl fmt::Debug for Pan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pan(…)")
    }
}

/// Luhn's check over digit values, the last being the check digit (ISO/IEC 7812-1 annex B).
pub fn luhn_valid(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, d)| {
            let d = u32::from(*d);
            if i % 2 == 0 {
                d
            } else if d > 4 {
                2 * d - 9
            } else {
                2 * d
            }
        })
        .sum();
    !digits.is_empty() && sum.is_multiple_of(10)
}

/// Why a text is no card number. None of these repeats the text.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum PanError {
    /// A character that is no digit, space or hyphen.
    #[error("a card number has digits only (spaces and hyphens between groups are fine)")]
    NotDigits,
    /// Too few or too many.
    #[error("a card number has 13 to 19 digits")]
    Length,
    /// Luhn failed.
    #[error("the card number's check digit does not fit: one of its digits is likely wrong")]
    CheckDigit,
}

/// Secret bytes: wiped on drop, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Lends the bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

/// Reads a file of secrets, which its owner alone may be able to read, and which is no longer than `limit_bytes`. The error is a
/// sentence that names the file.
pub fn read_private(file: &Path, limit_bytes: u64) -> Result<Zeroizing<String>, String> {
    let shown = file.display();
    let about = std::fs::metadata(file).map_err(|e| format!("{shown} can't be read: {e}"))?;
    if about.len() > limit_bytes {
        return Err(format!("{shown} is too long for what it should hold"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if about.permissions().mode() & 0o077 != 0 {
            return Err(format!("{shown} can be read by others: chmod 600 {shown}"));
        }
    }
    std::fs::read_to_string(file).map(Zeroizing::new).map_err(|e| format!("{shown} can't be read: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_number_is_checked_and_never_prints() {
        let pan = Pan::parse("4111 1111-1111 1111").unwrap();
        assert_eq!(pan.last4(), "1111");
        assert_eq!(format!("{pan:?}"), "Pan(…)");
        assert_eq!(Pan::parse("4111111111111112").unwrap_err(), PanError::CheckDigit);
        assert_eq!(Pan::parse("411111111111").unwrap_err(), PanError::Length);
        assert_eq!(Pan::parse("4111x").unwrap_err(), PanError::NotDigits);
        assert!(!luhn_valid(&[]));
    }
}
