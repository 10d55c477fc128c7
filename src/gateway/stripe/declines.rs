//! Stripe's codes for a "no", and what each means to us: `decline_codes.toml`, compiled in.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::payment::{Advice, DeclineReason};

/// The table. A broken one would be a broken build: a test reads it.
const TABLE: &str = include_str!("decline_codes.toml");

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// By `decline_code`: the issuer's word.
    decline: HashMap<String, Entry>,
    /// By `code`: Stripe's own.
    error: HashMap<String, Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    reason: DeclineReason,
    /// Read by people, and held to the reason's own by a test.
    #[allow(dead_code)]
    advice: Advice,
}

fn table() -> &'static Table {
    static READ: OnceLock<Table> = OnceLock::new();
    READ.get_or_init(|| toml::from_str(TABLE).unwrap_or_default())
}

/// Why a card was declined: by the issuer's code if there is one, else by Stripe's. A code that is not in the table is a decline
/// like any other: which one, goes to the log.
pub(super) fn reason(decline_code: Option<&str>, code: Option<&str>) -> DeclineReason {
    let table = table();
    let by_issuer = decline_code.and_then(|c| table.decline.get(c));
    let known = by_issuer.or_else(|| code.and_then(|c| table.error.get(c).or_else(|| table.decline.get(c))));
    if let (None, Some(unknown)) = (by_issuer, decline_code) {
        tracing::warn!(decline_code = %plain(unknown), "Stripe declined with a code that is not in our table");
    }
    known.map_or(DeclineReason::Other, |entry| entry.reason)
}

/// How long a word or a name of theirs may be in a log line.
const LONGEST_WORD_CHARS: usize = 60;

/// A code of theirs, fit for a log line: letters, underscores and brackets. Without digits: whoever says a request back to us
/// says a card number back.
pub(super) fn plain(code: &str) -> String {
    code.chars().filter(|c| c.is_ascii_alphabetic() || matches!(c, '_' | '.' | '[' | ']')).take(LONGEST_WORD_CHARS).collect()
}

/// An identifier of theirs, fit for a log line: letters, digits and underscores, and no more digits in a row than the half of a
/// card number.
pub(super) fn plain_id(id: &str) -> String {
    const LONGEST_RUN_DIGITS: usize = 8;
    let fits = id.split(|c: char| !c.is_ascii_digit()).all(|run| run.len() <= LONGEST_RUN_DIGITS);
    let kept = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    if fits { id.chars().filter(kept).take(LONGEST_WORD_CHARS).collect() } else { "unfit".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_its_advice_is_the_reasons_own() {
        let table: Table = toml::from_str(TABLE).unwrap();
        assert_eq!(table.decline.len(), 50, "as many card codes as Stripe's page has");
        for (code, entry) in table.decline.iter().chain(&table.error) {
            assert_eq!(entry.advice, entry.reason.advice(), "{code}");
            assert_eq!(plain(code), *code);
            assert!(
                !matches!(
                    entry.reason,
                    DeclineReason::NotSent
                        | DeclineReason::NeverReceived
                        | DeclineReason::FoundNotCharged
                        | DeclineReason::Unannounced
                ),
                "{code}: ours to say, not theirs"
            );
        }
    }

    #[test]
    fn the_issuers_code_goes_before_stripes() {
        assert_eq!(reason(Some("insufficient_funds"), Some("card_declined")), DeclineReason::InsufficientFunds);
        assert_eq!(reason(None, Some("expired_card")), DeclineReason::ExpiredCard);
        assert_eq!(reason(Some("brand_new_code"), Some("card_declined")), DeclineReason::DoNotHonour);
        assert_eq!(reason(Some("brand_new_code"), None), DeclineReason::Other);
        assert_eq!(reason(None, None), DeclineReason::Other);
        assert_eq!(reason(Some("authentication_required"), None).advice(), Advice::StepUp);
    }
}
