//! The address of a database server. It holds a password, so it prints without one.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `postgres://user:password@host:port/database?sslmode=…`; prints as the same with `***` for the password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

/// A text that is no address of a database.
#[derive(Debug, thiserror::Error)]
#[error("a database address begins with postgres:// or postgresql://; for SQLite leave it empty and set `store.path`")]
pub struct NotAnAddress;

impl DatabaseUrl {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, NotAnAddress> {
        let known = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        if known { Ok(Self(text.to_owned())) } else { Err(NotAnAddress) }
    }

    /// The whole, password and all.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("postgres", ""));
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A password may hold an `@` that nobody escaped: the last one ends it.
        let (who, place) = place.rsplit_once('@').map_or(("", place), |(who, place)| (who, place));
        write!(f, "{scheme}://")?;
        match who.split_once(':') {
            Some((user, _)) => write!(f, "{user}:***@{place}")?,
            None if who.is_empty() => f.write_str(place)?,
            None => write!(f, "{who}@{place}")?,
        }
        for (i, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
            let mark = if i == 0 { '?' } else { '&' };
            match pair.split_once('=') {
                Some((key, _)) if key.eq_ignore_ascii_case("password") => write!(f, "{mark}{key}=***")?,
                _ => write!(f, "{mark}{pair}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DatabaseUrl {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_of_writing_a_password_gets_it_printed() {
        for (given, shown) in [
            ("postgres://pay:canary@db.example:5432/voicepay", "postgres://pay:***@db.example:5432/voicepay"),
            ("postgres://pay:can@ary@db/voicepay?sslmode=require", "postgres://pay:***@db/voicepay?sslmode=require"),
            ("postgresql://db/voicepay?user=pay&password=canary&x=1", "postgresql://db/voicepay?user=pay&password=***&x=1"),
            ("postgres://%2Frun%2Fpostgresql/voicepay", "postgres://%2Frun%2Fpostgresql/voicepay"),
            ("postgres://pay@db/voicepay", "postgres://pay@db/voicepay"),
        ] {
            let url = DatabaseUrl::parse(given).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
            assert_eq!(serde_json::to_string(&url).unwrap(), format!("\"{shown}\""));
        }
        assert!(DatabaseUrl::parse("mysql://root:canary@db/x").is_err_and(|e| !e.to_string().contains("canary")));
    }
}
