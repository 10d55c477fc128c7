//! System 6's cases and the rules about rules.

use super::*;
use crate::clock::Timestamp;
use crate::ids::PayeeId;
use crate::money::Money;
use crate::payment::{AddressMark, Delivery};

const BASE: &str = r#"version = "1"
refused_currencies = ["GBP", "JPY", "EUR"]
[tiers]
USD = { small = "20.00", normal = "500.00" }
[[rule]]
name = "large"
when = { tier = ["large"] }
ask = ["fresh_digits", "code", "guardian"]
[[rule]]
name = "normal"
when = { tier = ["normal"] }
ask = ["code"]
"#;

fn policy(more: &str) -> Policy {
    Policy::from_toml(&format!("{BASE}{more}")).unwrap()
}

fn cents(minor: i64) -> Facts {
    Facts::plain(Timestamp(0), Money::new(minor, Currency::Usd).unwrap(), PayeeId::parse("pay_1").unwrap())
}

fn spent(payee: i64, all: i64, facts: Facts) -> Facts {
    let history = History { spent_24h_payee: payee, spent_24h: all, ..facts.history };
    Facts { history, ..facts }
}

#[test]
fn the_compiled_in_policy_reads() {
    let policy = Policy::compiled_in().unwrap();
    assert!(policy.rules().len() >= 5);
    // What the demo pays.
    assert_eq!(policy.terms(&cents(1_999)).conditions, [].into());
}

#[test]
fn tiers_change_one_minor_unit_above_their_bounds() {
    let policy = policy("");
    for (minor, tier) in [
        (1, Tier::Small),
        (1_999, Tier::Small),
        (2_000, Tier::Small),
        (2_001, Tier::Normal),
        (49_999, Tier::Normal),
        (50_000, Tier::Normal),
        (50_001, Tier::Large),
    ] {
        assert_eq!(policy.tier(&cents(minor)), Some(tier), "{minor}");
    }
}

#[test]
fn splitting_a_payment_does_not_make_it_smaller() {
    let policy = policy("");
    assert_eq!(policy.tier(&spent(1_500, 1_500, cents(500))), Some(Tier::Small));
    assert_eq!(policy.tier(&spent(1_500, 1_500, cents(501))), Some(Tier::Normal));
    assert_eq!(policy.tier(&spent(49_500, 49_500, cents(501))), Some(Tier::Large));
    // What others got is no part of it; a rule on the day's sum is there for that.
    assert_eq!(policy.tier(&spent(0, 49_500, cents(501))), Some(Tier::Small));
}

#[test]
fn sums_that_overflow_are_large() {
    let policy = policy("");
    assert_eq!(policy.tier(&spent(i64::MAX, i64::MAX, cents(1))), Some(Tier::Large));
    assert_eq!(policy.tier(&spent(i64::MIN, i64::MIN, cents(1))), Some(Tier::Small));
}

#[test]
fn goods_to_an_unknown_address_are_never_small() {
    let policy = policy("");
    let mark = AddressMark::of(&[7; 32]);
    let sent = |delivery: Delivery, address_known| Facts { delivery, address_known, ..cents(100) };
    assert_eq!(policy.tier(&sent(Delivery::To(mark.clone()), true)), Some(Tier::Small));
    assert_eq!(policy.tier(&sent(Delivery::To(mark), false)), Some(Tier::Normal));
    assert_eq!(policy.tier(&sent(Delivery::Nowhere, false)), Some(Tier::Normal));
    // "Known" of goods that nobody knows where to send means nothing.
    assert_eq!(policy.tier(&sent(Delivery::Nowhere, true)), Some(Tier::Normal));
    assert_eq!(policy.tier(&sent(Delivery::None, false)), Some(Tier::Small));
}

#[test]
fn a_guardian_is_asked_for_where_there_is_one() {
    let policy = policy("");
    let asks = |guardians| policy.terms(&Facts { guardians, ..cents(60_000) }).conditions;
    assert_eq!(asks(0), [Condition::FreshDigits, Condition::Code].into());
    assert_eq!(asks(1), [Condition::FreshDigits, Condition::Code, Condition::Guardian].into());
}

#[test]
fn a_guardians_bounds_only_tighten() {
    let policy = policy("");
    let own = |small, normal| Facts { tiers: [(Currency::Usd, Bounds { small, normal })].into(), ..cents(1_500) };
    assert_eq!(policy.tier(&own(1_000, 2_000)), Some(Tier::Normal));
    assert_eq!(policy.tier(&own(500, 1_000)), Some(Tier::Large));
    assert_eq!(policy.tier(&own(900_000, 900_000)), Some(Tier::Small));
}

#[test]
fn deny_wins_whatever_stands_before_or_after() {
    let deny = "[[rule]]\nname = \"gambling\"\nwhen = { category = [\"gambling\"] }\ndeny = true\n";
    let ask = "[[rule]]\nname = \"code\"\nwhen = { payee = [\"pay_1\"] }\nask = [\"code\"]\n";
    let facts = Facts { category: Some("gambling".parse().unwrap()), ..cents(100) };
    for text in [format!("{deny}{ask}"), format!("{ask}{deny}")] {
        let terms = policy(&text).terms(&facts);
        assert_eq!(terms.denied_by.as_deref(), Some("gambling"));
        assert_eq!(terms.because.iter().filter(|b| b.denies).count(), 1);
        assert_eq!(terms.because.len(), 2);
    }
    assert!(!policy(deny).terms(&cents(100)).denied());
}

#[test]
fn of_two_rules_that_apply_both_count() {
    let more = "[[rule]]\nname = \"stranger\"\nwhen = { paid_before_payee_below = 1 }\nask = [\"fresh_digits\"]\n";
    let terms = policy(more).terms(&cents(3_000));
    assert_eq!(terms.conditions, [Condition::Code, Condition::FreshDigits].into());
    let names: Vec<_> = terms.because.iter().map(|b| b.rule.as_str()).collect();
    assert_eq!(names, ["normal", "stranger"]);
}

#[test]
fn sums_of_a_day_are_judged_with_this_payment() {
    let more = "[[rule]]\nname = \"day\"\nwhen = { day_over = { USD = \"100.00\" } }\ndeny = true\n";
    let policy = policy(more);
    assert!(!policy.terms(&spent(0, 9_000, cents(1_000))).denied());
    assert!(policy.terms(&spent(0, 9_000, cents(1_001))).denied());
}

#[test]
fn a_currency_without_tiers_is_refused() {
    let facts = Facts { amount: Money::new(100, Currency::Jpy).unwrap(), ..cents(100) };
    assert_eq!(policy("").terms(&facts).denied_by.as_deref(), Some(CURRENCY_RULE));
}

#[test]
fn each_key_of_a_rule_matters() {
    let rule = |when: &str| policy(&format!("[[rule]]\nname = \"x\"\nwhen = {{ {when} }}\ndeny = true\n"));
    let plain = cents(100);
    let cases: Vec<(&str, Facts)> = vec![
        ("tier = [\"small\"]", plain.clone()),
        ("channel = [\"app\"]", Facts { channel: Channel::App, ..plain.clone() }),
        ("payee = [\"pay_2\"]", Facts { payee: PayeeId::parse("pay_2").unwrap(), ..plain.clone() }),
        ("address = [\"missing\"]", Facts { delivery: Delivery::Nowhere, ..plain.clone() }),
        ("attestation = [\"disputed\"]", Facts { attestation: Attested::Disputed, ..plain.clone() }),
        ("device_known = false", Facts { device_known: Some(false), ..plain.clone() }),
        ("mandate = true", Facts { by_mandate: true, ..plain.clone() }),
        ("guarded = true", Facts { guardians: 1, ..plain.clone() }),
        ("supervised = true", Facts { supervised: true, ..plain.clone() }),
        ("amount_over = { USD = \"0.99\" }", plain.clone()),
        ("payee_day_over = { USD = \"3.00\" }", spent(201, 201, plain.clone())),
        ("failures_24h_over = 2", Facts { history: History { failures_24h: 3, ..plain.history }, ..plain.clone() }),
        ("paid_before_below = 1", plain.clone()),
    ];
    let other = Facts {
        channel: Channel::Telephone,
        history: History { paid_before: 9, paid_before_payee: 9, ..History::default() },
        amount: Money::new(50, Currency::Usd).unwrap(),
        delivery: Delivery::To(AddressMark::of(&[1; 32])),
        ..plain
    };
    for (when, facts) in cases {
        assert_eq!(rule(when).terms(&facts).denied_by.as_deref(), Some("x"), "{when}");
        assert!(!rule(when).terms(&other).denied(), "{when}");
    }
}

/// What is wrong, in which line, in words.
#[test]
fn a_wrong_file_is_refused_whole_with_the_place_and_the_reason() {
    let rule = |body: &str| format!("{BASE}[[rule]]\nname = \"x\"\n{body}\n");
    let cases: Vec<(String, &str)> = vec![
        (BASE.replace("version = \"1\"", "version = \"\""), "line 1: version"),
        (BASE.replace("version = \"1\"\n", ""), "version"),
        (BASE.replace(", \"EUR\"]", "]"), "hole: EUR has no tiers"),
        (BASE.replace("\"EUR\"]", "\"EUR\", \"USD\"]"), "contradiction: USD"),
        (BASE.replace("500.00", "20.00"), "must end above"),
        (BASE.replace("500.00", "5.001"), "tiers.USD.normal"),
        (BASE.replace("500.00", "-5"), "tiers.USD.normal"),
        (BASE.replace("name = \"normal\"", "name = \"large\""), "another rule has this name"),
        (BASE.replace("name = \"normal\"", "name = \"No rmal\""), "a name is"),
        (BASE.replace("[\"large\"]", "[\"huge\"]"), "huge"),
        (BASE.replace("\"code\", \"guardian\"", "\"code\", \"uncle\""), "uncle"),
        (BASE.replace("{ tier = [\"normal\"] }", "{ teir = [\"normal\"] }"), "teir"),
        (rule("ask = [\"code\"]\ndeny = true"), "asks and denies"),
        (rule(""), "says nothing"),
        (rule("deny = false"), "says nothing"),
        (rule("ask = []\nwhen = { mandate = true }"), "says nothing"),
        (rule("deny = true"), "denies every payment"),
        (rule("deny = true\nwhen = { payee = [] }"), "would never apply"),
        (rule("deny = true\nwhen = { amount_over = { } }"), "would never apply"),
        (rule("deny = true\nwhen = { amount_over = { JPY = \"100\" } }"), "can never apply"),
        (rule("deny = true\nwhen = { day_over = { JPY = \"100\" } }"), "can never apply"),
        (rule("deny = true\nwhen = { tier = [\"small\"], amount_over = { USD = \"20.00\" } }"), "can never apply"),
        (rule("deny = true\nwhen = { tier = [\"large\"] }"), "contradiction: `large`"),
        (rule("ask = [\"code\"]\nwhen = { tier = [\"large\"] }"), "very same `when`"),
        (
            BASE.replace("{ tier = [\"large\"] }", "{ tier = [\"large\"], channel = [\"telephone\"] }"),
            "hole: a large payment in USD by app",
        ),
        ("version = ".to_owned(), "line 1"),
    ];
    for (text, part) in cases {
        let fault = Policy::from_toml(&text).map(|_| text.clone()).unwrap_err().to_string();
        assert!(fault.contains(part), "`{part}` is not in `{fault}`");
    }
    let fault = Policy::from_toml(&rule("deny = true")).unwrap_err().to_string();
    assert!(fault.starts_with("line 13: rule `x`"), "{fault}");
}
