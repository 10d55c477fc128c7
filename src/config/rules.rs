//! What a type can't say: values that parse but can't work together.

use super::{Config, ConfigError};

pub(super) fn check(c: &Config) -> Result<(), ConfigError> {
    let rule =
        |ok: bool, key: &'static str, what: &str| if ok { Ok(()) } else { Err(ConfigError::Rule { key, what: what.to_owned() }) };
    rule(c.sip.max_calls >= 1, "sip.max_calls", "must be at least 1")?;
    let country = &c.identity.default_country;
    rule(
        country.len() <= 3 && country.bytes().all(|b| b.is_ascii_digit()) && !country.starts_with('0'),
        "identity.default_country",
        "must be a country code in digits such as 44, or empty",
    )?;
    rule(c.inference.deadline_ms >= 1_000, "inference.deadline_ms", "must be at least 1000: no recognition is quicker under load")
}
