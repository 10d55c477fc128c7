//! Amounts as a page shows them.

use crate::language::Language;
use crate::money::{Currency, Money};

/// An amount in words of a language: `$1,999.00`, `1,999.00 美元`.
pub(in crate::api) fn amount(money: Money, language: Language) -> String {
    let (whole, part) = money.split();
    let whole = grouped(whole);
    let number = match usize::try_from(money.currency.decimals()).unwrap_or(0) {
        0 => whole,
        width => format!("{whole}.{part:0width$}"),
    };
    match (language, money.currency) {
        (Language::English, Currency::Usd) => format!("${number}"),
        (Language::English, Currency::Eur) => format!("€{number}"),
        (Language::English, Currency::Gbp) => format!("£{number}"),
        (Language::English, Currency::Jpy) => format!("¥{number}"),
        (Language::Mandarin, Currency::Usd) => format!("{number} 美元"),
        (Language::Mandarin, Currency::Eur) => format!("{number} 欧元"),
        (Language::Mandarin, Currency::Gbp) => format!("{number} 英镑"),
        (Language::Mandarin, Currency::Jpy) => format!("{number} 日元"),
    }
}

/// Thousands apart.
fn grouped(whole: i64) -> String {
    let digits = whole.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && digits.len().saturating_sub(n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        let text = |minor, currency, language| amount(Money::new(minor, currency).unwrap(), language);
        assert_eq!(text(1999, Currency::Usd, Language::English), "$19.99");
        assert_eq!(text(123_456_705, Currency::Eur, Language::English), "€1,234,567.05");
        assert_eq!(text(100_000, Currency::Jpy, Language::English), "¥100,000");
        assert_eq!(text(5, Currency::Gbp, Language::Mandarin), "0.05 英镑");
    }
}
