//! PURE: amounts, dates, digits and names as sequences of recorded pieces, in correct spoken English.

use crate::dialogue::prompt::SpokenDate;
use crate::money::{Currency, Money};

/// Between groups of digits.
pub const DIGIT_GROUP_PAUSE_MS: u64 = 350;
/// Between groups of digits that the caller is to say after us: time to take them in.
pub const DICTATION_PAUSE_MS: u64 = 700;
/// Between the words of a name that is spelt.
pub const SPELT_WORD_PAUSE_MS: u64 = 250;
/// Letters and figures of a name that are spelt at most; a caller gets no more from a longer one.
pub const SPELT_NAME_CHARACTERS: usize = 40;

/// One thing to be played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A recording of the catalogue's `pieces`.
    Clip(String),
    /// Nothing, for so many milliseconds.
    Pause(u64),
}

pub(super) fn clip(group: &str, name: impl std::fmt::Display) -> Piece {
    Piece::Clip(format!("{group}.{name}"))
}

/// A cardinal number: "one million two hundred thirty-four thousand five". Nothing for zero.
pub fn number(n: u64) -> Vec<Piece> {
    const SCALES: [(u64, &str); 4] =
        [(1_000_000_000_000, "trillion"), (1_000_000_000, "billion"), (1_000_000, "million"), (1_000, "thousand")];
    let mut pieces = Vec::new();
    let mut rest = n;
    for (scale, name) in SCALES {
        if rest >= scale {
            pieces.extend(number(rest / scale));
            pieces.push(clip("word", name));
            rest %= scale;
        }
    }
    if rest >= 100 {
        pieces.push(clip("number", rest / 100 * 100));
        rest %= 100;
    }
    if rest > 0 {
        pieces.push(clip("number", rest));
    }
    pieces
}

/// How a currency's clips begin, in every language.
pub(super) fn currency_clip(currency: Currency) -> &'static str {
    match currency {
        Currency::Usd => "usd",
        Currency::Eur => "eur",
        Currency::Gbp => "gbp",
        Currency::Jpy => "jpy",
    }
}

/// An amount: "nineteen dollars and ninety-nine cents", "one pound and one penny", "five hundred yen".
pub fn amount(money: Money) -> Vec<Piece> {
    let (whole, part) = money.split();
    let currency = currency_clip(money.currency);
    let many = |n: i64| if n == 1 { "" } else { "_many" };
    let mut pieces = Vec::new();
    if whole > 0 {
        pieces.extend(number(whole.unsigned_abs()));
        pieces.push(clip("currency", format!("{currency}{}", many(whole))));
    }
    if whole > 0 && part > 0 {
        pieces.push(clip("word", "and"));
    }
    if part > 0 {
        pieces.extend(number(part.unsigned_abs()));
        pieces.push(clip("currency", format!("{currency}_minor{}", many(part))));
    }
    pieces
}

/// A day: "June fifth". `None` if there is no such day in any year.
pub fn date(day: SpokenDate) -> Option<Vec<Piece>> {
    const LONGEST: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days = *LONGEST.get(usize::from(day.month.checked_sub(1)?))?;
    (1..=days).contains(&day.day).then(|| vec![clip("month", day.month), clip("ordinal", day.day)])
}

/// Digits that the caller is to say after us: like [`digits`], with longer pauses.
pub fn dictated(of: &[u8]) -> Vec<Piece> {
    let longer = |piece| if let Piece::Pause(_) = piece { Piece::Pause(DICTATION_PAUSE_MS) } else { piece };
    digits(of).into_iter().map(longer).collect()
}

/// Digits one by one, in groups with short pauses, the voice falling on the last. What is no digit is left out.
pub fn digits(digits: &[u8]) -> Vec<Piece> {
    let digits: Vec<u8> = digits.iter().copied().filter(|d| *d <= 9).collect();
    let group = match digits.len() {
        n if n <= 5 => 5,
        n if n % 4 != 0 && n % 3 == 0 => 3,
        _ => 4,
    };
    let mut pieces = Vec::new();
    for (i, digit) in digits.iter().enumerate() {
        if i > 0 && i % group == 0 {
            pieces.push(Piece::Pause(DIGIT_GROUP_PAUSE_MS));
        }
        let last = i + 1 == digits.len();
        pieces.push(clip(if last { "digit_last" } else { "digit" }, digit));
    }
    pieces
}

/// A payee: the catalogue's recording of that name if `recorded` knows it, else spelt.
pub fn payee(name: &str, recorded: impl Fn(&str) -> bool) -> Vec<Piece> {
    let id = format!("payee.{}", slug(name));
    if recorded(&id) { vec![Piece::Clip(id)] } else { spelt(name) }
}

/// `Riverside Electric` is `riverside_electric`.
pub fn slug(name: &str) -> String {
    let words: Vec<String> =
        name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_ascii_lowercase).collect();
    words.join("_")
}

/// Letter by letter; "&" and "+" are "and", a gap between words is a pause, other signs are silent.
fn spelt(name: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut gap = false;
    for c in name.chars().map(plain_letter).take(SPELT_NAME_CHARACTERS) {
        let piece = match c {
            'a'..='z' => clip("letter", c),
            '0'..='9' => clip("digit", c),
            '&' | '+' => clip("word", "and"),
            _ => {
                gap = true;
                continue;
            }
        };
        if std::mem::take(&mut gap) && !pieces.is_empty() {
            pieces.push(Piece::Pause(SPELT_WORD_PAUSE_MS));
        }
        pieces.push(piece);
    }
    pieces
}

/// Lower case, and Latin letters without their marks, so that "Café" is not spelt "C A F".
fn plain_letter(c: char) -> char {
    match c.to_lowercase().next().unwrap_or(c) {
        'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' => 'a',
        'ç' => 'c',
        'è' | 'é' | 'ê' | 'ë' => 'e',
        'ì' | 'í' | 'î' | 'ï' => 'i',
        'ñ' => 'n',
        'ò' | 'ó' | 'ô' | 'õ' | 'ö' | 'ø' => 'o',
        'ù' | 'ú' | 'û' | 'ü' => 'u',
        'ý' | 'ÿ' => 'y',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::MinorUnits;
    use crate::prompts::catalogue::Catalogue;
    use proptest::prelude::*;

    /// The words of pieces, as the catalogue has them; fails on a piece that it lacks.
    fn words(pieces: &[Piece]) -> String {
        let catalogue = Catalogue::english().unwrap();
        let said: Vec<String> = pieces
            .iter()
            .map(|p| match p {
                Piece::Clip(id) => catalogue.clip_text(id).unwrap_or_else(|| panic!("no clip {id}")).to_owned(),
                Piece::Pause(_) => "|".to_owned(),
            })
            .collect();
        said.join(" ")
    }

    #[test]
    fn amounts_are_said_as_people_say_them() {
        let table = [
            (1999, Currency::Usd, "nineteen dollars and ninety-nine cents"),
            (100, Currency::Usd, "one dollar"),
            (101, Currency::Usd, "one dollar and one cent"),
            (200, Currency::Usd, "two dollars"),
            (1, Currency::Usd, "one cent"),
            (99, Currency::Eur, "ninety-nine cents"),
            (101, Currency::Gbp, "one pound and one penny"),
            (250, Currency::Gbp, "two pounds and fifty pence"),
            (500, Currency::Jpy, "five hundred yen"),
            (1, Currency::Jpy, "one yen"),
            (10_000, Currency::Usd, "one hundred dollars"),
            (123_456, Currency::Eur, "one thousand two hundred thirty-four euros and fifty-six cents"),
            (100_000_000, Currency::Usd, "one million dollars"),
            (
                234_567_890,
                Currency::Usd,
                "two million three hundred forty-five thousand six hundred seventy-eight dollars and ninety cents",
            ),
            (1_000_000_000_000, Currency::Jpy, "one trillion yen"),
            (1_000_000_000_000, Currency::Usd, "ten billion dollars"),
            (1_000_010, Currency::Jpy, "one million ten yen"),
        ];
        for (minor, currency, said) in table {
            assert_eq!(words(&amount(Money::new(minor, currency).unwrap())), said);
        }
    }

    #[test]
    fn dates_are_month_and_ordinal() {
        let say = |month, day| date(SpokenDate { month, day }).map(|p| words(&p));
        assert_eq!(say(6, 5).as_deref(), Some("June fifth"));
        assert_eq!(say(12, 31).as_deref(), Some("December thirty-first"));
        assert_eq!(say(2, 29).as_deref(), Some("February twenty-ninth"));
        for (month, day) in [(0, 1), (13, 1), (2, 30), (6, 31), (6, 0)] {
            assert_eq!(say(month, day), None);
        }
    }

    #[test]
    fn digits_come_in_groups_and_the_last_one_falls() {
        assert_eq!(words(&digits(&[5, 8, 1, 6])), "five, eight, one, six.");
        assert_eq!(words(&digits(&[1, 2, 3, 4, 5, 6])), "one, two, three, | four, five, six.");
        assert_eq!(words(&digits(&[1, 2, 3, 4, 5, 6, 7, 8])), "one, two, three, four, | five, six, seven, eight.");
        assert_eq!(words(&digits(&[10, 3])), "three.");
        assert!(digits(&[]).is_empty());
    }

    #[test]
    fn a_payee_without_recording_is_spelt() {
        assert_eq!(words(&payee("Riverside Electric", |id| id == "payee.riverside_electric")), "Riverside Electric");
        assert_eq!(words(&payee("A&B Café 7", |_| false)), "A and B | C A F E | seven,");
        assert!(payee("水道局", |_| false).is_empty());
        assert!(payee(&"x".repeat(500), |_| false).len() <= SPELT_NAME_CHARACTERS);
    }

    proptest! {
        #[test]
        fn every_amount_can_be_said(minor in 1..=MinorUnits::MAX, which in 0_usize..4) {
            let said = words(&amount(Money::new(minor, Currency::ALL[which]).unwrap()));
            prop_assert!(!said.is_empty());
        }
    }
}
