//! Spoken digits, as English or Mandarin text, to digit strings: for what Whisper's free decoding writes.

use zeroize::{Zeroize, Zeroizing};

/// A card number has 19 digits; whatever goes on much longer is a loop of the decoder.
const DIGITS_MAX: usize = 64;

/// The digits in a text: "4 2 oh", "double five", "forty-two forty-two", "52260.8.5983", "四九二幺". Words that are no numbers are
/// passed over; "to", "for" and the like count as digits only between numbers. "no" and its like take back the word before, if it
/// was a number and another follows ("four one, no, seven": 47); "no" alone says nothing of digits.
pub fn digits_in(text: &str) -> Zeroizing<Vec<u8>> {
    let lower = Zeroizing::new(text.to_lowercase());
    let mut tokens: Vec<Token> = Vec::new();
    for word in lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
        // "4x4" and "a1" are cut where letters meet digits
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let digits = first.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
            let (piece, after) = rest.split_at(end);
            rest = after;
            if digits {
                tokens.push(Token::Figures(piece.bytes().map(|b| b - b'0').collect()));
            } else if piece.is_ascii() {
                tokens.push(word_token(piece));
            } else {
                mandarin_tokens(piece, &mut tokens);
            }
        }
    }
    let mut out = Zeroizing::new(Vec::with_capacity(DIGITS_MAX));
    read(&tokens, &mut out);
    tokens.zeroize();
    out.truncate(DIGITS_MAX);
    out
}

/// One piece of text.
#[derive(Clone, PartialEq, Zeroize)]
enum Token {
    /// Written in figures: each counts.
    Figures(Vec<u8>),
    /// "four"
    Digit(u8),
    /// "to", "for": a digit only between numbers.
    Homophone(u8),
    /// "ten" to "nineteen".
    Teen(u8),
    /// "twenty" to "ninety": the tens.
    Tens(u8),
    /// "hundred", "thousand": that many zeros.
    Zeros(u8),
    /// "double", "triple".
    Times(u8),
    /// "and": joins.
    And,
    /// "no", "sorry": the word before was wrong.
    No,
    /// Anything else.
    Other,
}

fn word_token(word: &str) -> Token {
    match word {
        "zero" | "oh" | "o" | "nought" | "naught" | "nil" | "nul" => Token::Digit(0),
        "one" => Token::Digit(1),
        "two" => Token::Digit(2),
        "three" => Token::Digit(3),
        "four" => Token::Digit(4),
        "five" | "fife" => Token::Digit(5),
        "six" => Token::Digit(6),
        "seven" => Token::Digit(7),
        "eight" => Token::Digit(8),
        "nine" | "niner" => Token::Digit(9),
        "won" => Token::Homophone(1),
        "to" | "too" => Token::Homophone(2),
        "for" | "fore" => Token::Homophone(4),
        "sex" | "sicks" => Token::Homophone(6),
        "ate" => Token::Homophone(8),
        "ten" => Token::Teen(0),
        "eleven" => Token::Teen(1),
        "twelve" => Token::Teen(2),
        "thirteen" => Token::Teen(3),
        "fourteen" => Token::Teen(4),
        "fifteen" => Token::Teen(5),
        "sixteen" => Token::Teen(6),
        "seventeen" => Token::Teen(7),
        "eighteen" => Token::Teen(8),
        "nineteen" => Token::Teen(9),
        "twenty" => Token::Tens(2),
        "thirty" => Token::Tens(3),
        "forty" | "fourty" => Token::Tens(4),
        "fifty" => Token::Tens(5),
        "sixty" => Token::Tens(6),
        "seventy" => Token::Tens(7),
        "eighty" => Token::Tens(8),
        "ninety" => Token::Tens(9),
        "hundred" => Token::Zeros(2),
        "thousand" => Token::Zeros(3),
        "double" => Token::Times(2),
        "triple" | "treble" => Token::Times(3),
        "quadruple" => Token::Times(4),
        "and" => Token::And,
        "no" | "sorry" | "correction" | "mean" => Token::No,
        _ => Token::Other,
    }
}

/// Characters one by one; 幺 is how one is said in numbers, 两 a second way of two.
fn mandarin_tokens(text: &str, tokens: &mut Vec<Token>) {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = ["不对", "不對", "不是", "错了", "錯了"].iter().find_map(|no| rest.strip_prefix(no)) {
            tokens.push(Token::No);
            rest = after;
            continue;
        }
        tokens.push(match first {
            '零' | '〇' | '○' | '洞' => Token::Digit(0),
            '一' | '壹' | '幺' | '妖' => Token::Digit(1),
            '二' | '两' | '兩' | '贰' => Token::Digit(2),
            '三' | '叁' => Token::Digit(3),
            '四' | '肆' => Token::Digit(4),
            '五' | '伍' => Token::Digit(5),
            '六' | '陆' | '陸' => Token::Digit(6),
            '七' | '柒' | '拐' => Token::Digit(7),
            '八' | '捌' => Token::Digit(8),
            '九' | '玖' => Token::Digit(9),
            _ => Token::Other,
        });
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
    }
}

fn is_number(token: Option<&Token>) -> bool {
    match token {
        Some(Token::Figures(_) | Token::Digit(_) | Token::Teen(_) | Token::Tens(_) | Token::Zeros(_) | Token::Times(_)) => true,
        Some(Token::Homophone(_) | Token::And | Token::No | Token::Other) | None => false,
    }
}

fn read(tokens: &[Token], out: &mut Vec<u8>) {
    let mut times = 1u8;
    let mut at = 0;
    // Where the last word that was a number began.
    let mut word_from: Option<usize> = None;
    while let Some(token) = tokens.get(at) {
        if *token == Token::No {
            // "no, sorry, I mean seven"
            let next = tokens.iter().skip(at).find(|t| !matches!(t, Token::No | Token::Other));
            if let (Some(from), true) = (word_from.take(), is_number(next)) {
                out.truncate(from);
            }
        } else if is_number(Some(token)) {
            // Of several figures written together the last was meant.
            word_from = Some(match token {
                Token::Figures(many) => out.len() + many.len().saturating_sub(1),
                _ => out.len(),
            });
        }
        let before = at.checked_sub(1).and_then(|i| tokens.get(i));
        let mut used = 1;
        let repeat = std::mem::replace(&mut times, 1);
        match token {
            Token::Figures(figures) => match figures.as_slice() {
                [one] => out.extend(std::iter::repeat_n(*one, usize::from(repeat))),
                many => out.extend(many), // "double 55" is 55: what else could it be
            },
            Token::Digit(d) => out.extend(std::iter::repeat_n(*d, usize::from(repeat))),
            Token::Homophone(d) if is_number(before) && is_number(tokens.get(at + 1)) => out.push(*d),
            Token::Teen(unit) => out.extend([1, *unit]),
            Token::Tens(tens) => {
                let unit = match tokens.get(at + 1) {
                    Some(Token::Digit(d)) if *d != 0 => {
                        used = 2;
                        *d
                    }
                    _ => 0,
                };
                out.extend([*tens, unit]);
            }
            Token::Zeros(zeros) => {
                // "four hundred and twelve" is 412, "four hundred" is 400
                let mut next = at + 1;
                if matches!(tokens.get(next), Some(Token::And)) {
                    next += 1;
                }
                let follows = match tokens.get(next) {
                    Some(Token::Teen(_) | Token::Tens(_)) => 2,
                    Some(Token::Digit(_)) if next > at + 1 => 1,
                    _ => 0,
                };
                out.extend(std::iter::repeat_n(0, usize::from(zeros.saturating_sub(follows))));
            }
            Token::Times(n) => times = *n,
            Token::Homophone(_) | Token::And | Token::No | Token::Other => {}
        }
        at += used;
        if out.len() > DIGITS_MAX {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_whisper_writes_becomes_digits() {
        for (text, digits) in [
            ("5 and 8", "58"),
            ("52260.8.5983", "5226085983"),
            ("4-1-3, 7", "4137"),
            ("four one three seven", "4137"),
            ("oh", "0"),
            ("4 oh 5", "405"),
            ("Four O Five", "405"),
            ("double five", "55"),
            ("double 5 triple zero", "55000"),
            ("treble nine", "999"),
            ("double-oh seven", "007"),
            ("forty-two forty-two", "4242"),
            ("forty two forty two", "4242"),
            ("fourteen fifty", "1450"),
            ("twenty oh five", "2005"),
            ("ninety-nine, ten", "9910"),
            ("four hundred", "400"),
            ("four hundred and twelve", "412"),
            ("four hundred and five", "405"),
            ("forty one hundred", "4100"),
            ("five thousand", "5000"),
            ("4 to 7 for 9", "42749"),
            ("I want to pay for it", ""),
            ("My card number is 4 1 1 1.", "4111"),
            ("won", ""),
            ("1 won 1", "111"),
            ("", ""),
            ("Thank you.", ""),
            ("٤", ""), // digits of other scripts are not what was asked for
            ("4x7", "47"),
            ("double", ""),
            ("four one, no, seven", "47"),
            ("4 1, no, sorry, I mean 7 2", "472"),
            ("41 no 7", "47"),
            ("four double five no double six", "466"),
            ("forty-two no forty-three", "43"),
            ("No. 4 1", "41"),
            ("4 1 no", "41"),
            ("no", ""),
            ("四九二九", "4929"),
            ("四 九，幺 零 两 〇", "491020"),
            ("我的卡号是4929一二三", "4929123"),
            ("四一不对七", "47"),
            ("四一错了七八", "478"),
            ("谢谢", ""),
        ] {
            let got: String = digits_in(text).iter().map(|d| char::from(b'0' + d)).collect();
            assert_eq!(got, digits, "{text}");
        }
    }

    #[test]
    fn a_loop_of_the_decoder_is_cut() {
        assert_eq!(digits_in(&"1 2 ".repeat(10_000)).len(), DIGITS_MAX);
        assert!(digits_in(&"four hundred thousand ".repeat(10_000)).len() <= DIGITS_MAX);
    }
}
