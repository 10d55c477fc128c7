//! The numbers that lie nearest to a card number: what a wrong or hurried reading, or a thief who guesses, would give. Pure.

use serde::{Deserialize, Serialize};

use super::random::Random;
use crate::secret::luhn_valid;

/// How a neighbour differs from the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One digit is another: 9 a position, 144 for 16 digits. None of them passes Luhn.
    Substitution,
    /// Two unlike digits beside each other are swapped. Luhn lets only 09 ↔ 90 through.
    Swap,
    /// One digit is missing.
    Deletion,
    /// One digit is one too many.
    Insertion,
    /// Two digits are others such that Luhn holds again: the nearest numbers that can be real cards.
    LuhnPair,
}

impl Kind {
    /// The kinds, in the order of reports.
    pub const ALL: [Self; 5] = [Self::Substitution, Self::Swap, Self::Deletion, Self::Insertion, Self::LuhnPair];

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Substitution => "substitution",
            Self::Swap => "swap",
            Self::Deletion => "deletion",
            Self::Insertion => "insertion",
            Self::LuhnPair => "luhn_pair",
        }
    }
}

/// A number near another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Digit values.
    pub digits: Vec<u8>,
    /// How it differs.
    pub kind: Kind,
    /// Whether it passes Luhn's check, as a real card number would.
    pub luhn: bool,
}

/// All neighbours one slip away: substitutions, swaps, deletions, insertions; each distinct string once.
pub fn one_slip(number: &[u8]) -> Vec<Neighbour> {
    let mut out = Vec::new();
    let mut add = |digits: Vec<u8>, kind: Kind| {
        let luhn = luhn_valid(&digits);
        out.push(Neighbour { digits, kind, luhn });
    };
    for (at, was) in number.iter().enumerate() {
        for digit in (0..10).filter(|d| d != was) {
            add(with(number, at, digit), Kind::Substitution);
        }
    }
    for (at, pair) in number.windows(2).enumerate() {
        if let [a, b] = pair
            && a != b
        {
            add(with(&with(number, at, *b), at + 1, *a), Kind::Swap);
        }
    }
    for (at, digit) in number.iter().enumerate() {
        // Of a run of like digits, dropping any gives the same string.
        if at == 0 || number.get(at - 1) != Some(digit) {
            let mut shorter = number.to_vec();
            shorter.remove(at);
            add(shorter, Kind::Deletion);
        }
    }
    for at in 0..=number.len() {
        for digit in 0..10 {
            // Beside a like digit, before and after give the same string: keep the one after.
            if number.get(at) != Some(&digit) {
                let mut longer = number.to_vec();
                longer.insert(at, digit);
                add(longer, Kind::Insertion);
            }
        }
    }
    out
}

/// All numbers that differ in two digits and pass Luhn, when `number` does: 9 for each pair of positions (1080 for 16 digits).
pub fn luhn_pairs(number: &[u8]) -> Vec<Neighbour> {
    let mut out = Vec::new();
    if !luhn_valid(number) {
        return out;
    }
    for (first, was_first) in number.iter().enumerate() {
        for (second, was_second) in number.iter().enumerate().skip(first + 1) {
            for a in (0..10).filter(|d| d != was_first) {
                for b in (0..10).filter(|d| d != was_second) {
                    let digits = with(&with(number, first, a), second, b);
                    if luhn_valid(&digits) {
                        out.push(Neighbour { digits, kind: Kind::LuhnPair, luhn: true });
                    }
                }
            }
        }
    }
    out
}

/// A seeded Luhn-valid number of `length` digits.
pub fn random_number(length: usize, random: &mut Random) -> Vec<u8> {
    let mut digits: Vec<u8> = (0..length).map(|_| u8::try_from(random.below(10)).unwrap_or(0)).collect();
    if let Some(at) = length.checked_sub(1) {
        for check in 0..10 {
            digits = with(&digits, at, check);
            if luhn_valid(&digits) {
                break;
            }
        }
    }
    digits
}

fn with(number: &[u8], at: usize, digit: u8) -> Vec<u8> {
    number.iter().enumerate().map(|(i, d)| if i == at { digit } else { *d }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn count(of: &[Neighbour], kind: Kind) -> usize {
        of.iter().filter(|n| n.kind == kind).count()
    }

    #[test]
    fn sixteen_digits_have_144_substitutions_and_no_string_twice() {
        let number: Vec<u8> = "2261875516718090".bytes().map(|b| b - b'0').collect();
        let near = one_slip(&number);
        assert_eq!(count(&near, Kind::Substitution), 144);
        assert_eq!(count(&near, Kind::Swap), 13); // 22 and 55 swap into themselves
        assert_eq!(count(&near, Kind::Deletion), 14); // 22 and 55 are runs
        assert_eq!(count(&near, Kind::Insertion), 17 * 9 + 1);
        let distinct: HashSet<_> = near.iter().map(|n| n.digits.clone()).collect();
        assert_eq!(distinct.len(), near.len());
        assert!(!distinct.contains(&number));
    }

    #[test]
    fn luhn_stops_every_substitution_and_all_swaps_but_of_0_and_9() {
        let number: Vec<u8> = "2261875516718090".bytes().map(|b| b - b'0').collect();
        assert!(luhn_valid(&number));
        let near = one_slip(&number);
        assert!(near.iter().all(|n| n.kind != Kind::Substitution || !n.luhn));
        let through: Vec<_> = near.iter().filter(|n| n.kind == Kind::Swap && n.luhn).map(|n| n.digits.clone()).collect();
        assert_eq!(
            through,
            [vec![2, 2, 6, 1, 8, 7, 5, 5, 1, 6, 7, 1, 8, 9, 0, 0], {
                let mut last = number.clone();
                last.swap(14, 15);
                last
            }]
        );
    }

    #[test]
    fn luhn_pairs_are_nine_a_pair_of_positions() {
        let number: Vec<u8> = "2261875516718090".bytes().map(|b| b - b'0').collect();
        let pairs = luhn_pairs(&number);
        assert_eq!(pairs.len(), 120 * 9);
        for p in &pairs {
            assert_eq!(p.digits.iter().zip(&number).filter(|(a, b)| a != b).count(), 2);
            assert!(luhn_valid(&p.digits));
        }
    }

    #[test]
    fn random_numbers_pass_luhn_and_repeat_with_the_seed() {
        let mut a = Random::new(5);
        let mut b = Random::new(5);
        for _ in 0..50 {
            let n = random_number(16, &mut a);
            assert_eq!(n.len(), 16);
            assert!(luhn_valid(&n));
            assert_eq!(n, random_number(16, &mut b));
        }
    }
}
