//! PURE: amounts and dates as sequences of recorded pieces, in correct spoken Mandarin.

use super::spoken::{Piece, clip, currency_clip};
use crate::dialogue::prompt::SpokenDate;
use crate::money::Money;

/// A cardinal number: 一千二百三十四万零五. Nothing for zero. Counted in ten thousands; a gap between places is one 零.
pub fn number(n: u64) -> Vec<Piece> {
    const SCALES: [(u64, &str); 2] = [(100_000_000, "hundred_million"), (10_000, "ten_thousand")];
    let mut pieces = Vec::new();
    let mut rest = n;
    for (scale, name) in SCALES {
        if rest < scale {
            continue;
        }
        let count = rest / scale;
        gap(&mut pieces, count < 1_000);
        // Two of them are 两: 两万, 两亿.
        if count == 2 {
            pieces.push(clip("word", "two"))
        } else {
            pieces.extend(number(count))
        }
        pieces.push(clip("word", name));
        rest %= scale;
    }
    if rest > 0 {
        gap(&mut pieces, rest < 1_000);
        below_ten_thousand(&mut pieces, rest);
    }
    pieces
}

/// 零 where something stands before and a place between is empty.
fn gap(pieces: &mut Vec<Piece>, empty_place: bool) {
    if !pieces.is_empty() && empty_place {
        pieces.push(clip("word", "zero"));
    }
}

fn below_ten_thousand(pieces: &mut Vec<Piece>, n: u64) {
    let (thousands, hundreds, rest) = (n / 1_000 * 1_000, n % 1_000 / 100 * 100, n % 100);
    if thousands > 0 {
        pieces.push(clip("number", thousands));
    }
    if hundreds > 0 {
        pieces.push(clip("number", hundreds));
    }
    if rest == 0 {
        return;
    }
    let empty_place = (hundreds == 0 && thousands > 0) || (rest < 10 && hundreds > 0);
    if empty_place {
        pieces.push(clip("word", "zero"));
    }
    match rest {
        // Inside a number ten is 一十: 一百一十二. At its beginning it is 十.
        10..=19 if !pieces.is_empty() => {
            pieces.push(clip("within", 10));
            if rest > 10 {
                pieces.push(clip("number", rest - 10));
            }
        }
        1..=19 => pieces.push(clip("number", rest)),
        _ => {
            pieces.push(clip("number", rest / 10 * 10));
            if rest % 10 > 0 {
                pieces.push(clip("number", rest % 10));
            }
        }
    }
}

/// An amount: 十九美元九十九美分, 两英镑, 五百日元.
pub fn amount(money: Money) -> Vec<Piece> {
    let (whole, part) = money.split();
    let currency = currency_clip(money.currency);
    let mut pieces = Vec::new();
    for (n, name) in [(whole, currency.to_owned()), (part, format!("{currency}_minor"))] {
        match n.unsigned_abs() {
            0 => continue,
            2 => pieces.push(clip("word", "two")),
            n => pieces.extend(number(n)),
        }
        pieces.push(clip("currency", name));
    }
    pieces
}

/// A day: 六月五号.
pub fn date(day: SpokenDate) -> Vec<Piece> {
    vec![clip("month", day.month), clip("day", day.day)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Currency;
    use crate::prompts::catalogue::Catalogue;
    use proptest::prelude::*;

    fn words(pieces: &[Piece]) -> String {
        let catalogue = Catalogue::mandarin().unwrap();
        let said = pieces.iter().map(|p| match p {
            Piece::Clip(id) => catalogue.clip_text(id).unwrap_or_else(|| panic!("no clip {id}")).to_owned(),
            Piece::Pause(_) => "|".to_owned(),
        });
        said.collect()
    }

    #[test]
    fn numbers_are_counted_in_ten_thousands() {
        let table = [
            (5, "五"),
            (10, "十"),
            (12, "十二"),
            (20, "二十"),
            (34, "三十四"),
            (100, "一百"),
            (105, "一百零五"),
            (110, "一百一十"),
            (112, "一百一十二"),
            (222, "两百二十二"),
            (1_005, "一千零五"),
            (1_050, "一千零五十"),
            (1_012, "一千零一十二"),
            (1_234, "一千两百三十四"),
            (2_000, "两千"),
            (10_000, "一万"),
            (10_005, "一万零五"),
            (10_500, "一万零五百"),
            (15_000, "一万五千"),
            (20_000, "两万"),
            (100_000, "十万"),
            (120_034, "十二万零三十四"),
            (1_000_000, "一百万"),
            (200_000_000, "两亿"),
            (100_010_000, "一亿零一万"),
            (123_456_789, "一亿两千三百四十五万六千七百八十九"),
            (1_000_000_000_000, "一万亿"),
        ];
        for (n, said) in table {
            assert_eq!(words(&number(n)), said, "{n}");
        }
    }

    #[test]
    fn amounts_and_dates_are_said_as_people_say_them() {
        let said = |minor, currency| words(&amount(Money::new(minor, currency).unwrap()));
        assert_eq!(said(1_999, Currency::Usd), "十九美元九十九美分");
        assert_eq!(said(200, Currency::Gbp), "两英镑");
        assert_eq!(said(2, Currency::Eur), "两欧分");
        assert_eq!(said(1_200, Currency::Usd), "十二美元");
        assert_eq!(said(500, Currency::Jpy), "五百日元");
        assert_eq!(words(&date(SpokenDate { month: 12, day: 31 })), "十二月三十一号");
    }

    proptest! {
        #[test]
        fn every_amount_can_be_said(minor in 1..=crate::money::MinorUnits::MAX, which in 0_usize..4) {
            let said = words(&amount(Money::new(minor, Currency::ALL[which]).unwrap()));
            prop_assert!(!said.is_empty() && !said.contains("零零"));
        }
    }
}
