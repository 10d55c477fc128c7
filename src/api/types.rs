//! Small types of the wire: names, times, amounts, as they are checked when they come and written when they go.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::shape::{Defs, Shape, shape};
use crate::clock::Timestamp;
use crate::money::{Currency, Money, MoneyError};

/// A time: RFC 3339.
#[derive(Clone, Copy, Debug)]
pub struct When(pub Timestamp);

impl Serialize for When {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl From<Timestamp> for When {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl Shape for When {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "format": "date-time" })
    }
}

/// A word of ours that does not change.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub struct Word(pub &'static str);

impl Shape for Word {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "pattern": "^[a-z][a-z_ ]*$" })
    }
}

/// A text of people's, of 1 to 100 characters: no control characters, no space at either end.
#[derive(Clone)]
pub struct Name(pub String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let control = |c: char| c <= '\u{1f}' || ('\u{7f}'..='\u{9f}').contains(&c);
        let end = |c: Option<char>| c.is_some_and(|c| c > '\u{20}' && !('\u{7f}'..='\u{a0}').contains(&c));
        let fits = text.chars().count() <= 100
            && !text.chars().any(control)
            && end(text.chars().next())
            && end(text.chars().next_back());
        let wrong = "this must have 1 to 100 characters, none of them a control character, and no space at either end";
        if fits { Ok(Self(text)) } else { Err(serde::de::Error::custom(wrong)) }
    }
}

impl Shape for Name {
    fn schema(_: &mut Defs) -> Value {
        let edge = "[^\\u0000-\\u0020\\u007f-\\u00a0]";
        let pattern = format!("^{edge}([^\\u0000-\\u001f\\u007f-\\u009f]*{edge})?$");
        json!({ "type": "string", "minLength": 1, "maxLength": 100, "pattern": pattern })
    }
}

/// A word out of a closed list, read and written.
macro_rules! words {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $about:literal])+ $word:ident = $text:literal),+ $(,)? }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[doc = $about])+ #[serde(rename = $text)] $word),+ }
        impl $crate::api::shape::Shape for $name {
            fn schema(_: &mut $crate::api::shape::Defs) -> serde_json::Value {
                serde_json::json!({ "type": "string", "enum": [$($text),+] })
            }
        }
    };
}
pub(crate) use words;

impl Shape for Currency {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "enum": Self::ALL.map(Self::code) })
    }
}

/// A whole number. `51.0` and `5.1e1` are the integer 51 (JSON Schema 2020-12 §6.1.1); beyond 2^53 a number with a point may have lost units
/// on its way to us, and is refused.
pub(super) fn whole<'de, D: Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
    struct Whole;
    impl serde::de::Visitor<'_> for Whole {
        type Value = i64;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a whole number")
        }
        fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<i64, E> {
            Ok(n)
        }
        fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<i64, E> {
            i64::try_from(n).map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(n), &self))
        }
        fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<i64, E> {
            let told = n.fract() == 0.0 && n.abs() <= 9_007_199_254_740_992.0;
            // Whole and of 16 digits at most, it is written without a point, and the text is read as any other.
            let text = told.then(|| format!("{n:.0}"));
            let read = text.and_then(|t| t.parse().ok());
            read.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Float(n), &self))
        }
    }
    d.deserialize_any(Whole)
}

/// Minor units of some currency.
#[derive(Clone, Copy, Debug)]
pub struct Minor(pub i64);

impl Serialize for Minor {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(self.0)
    }
}

impl<'de> Deserialize<'de> for Minor {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let minor = whole(d)?;
        crate::money::MinorUnits::new(minor).map_err(serde::de::Error::custom)?;
        Ok(Self(minor))
    }
}

impl Shape for Minor {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "integer", "minimum": 1, "maximum": crate::money::MinorUnits::MAX })
    }
}

shape! {
    /// An amount of money.
    output Amount {
        /// In minor units: cents, pence, yen.
        minor: Minor,
        /// ISO 4217.
        currency: Currency,
    }
}

shape! {
    /// An amount of money, as it is asked.
    input AmountAsked {
        /// In minor units: cents, pence, yen.
        minor: Minor,
        /// ISO 4217.
        currency: Currency,
    }
}

impl From<Money> for Amount {
    fn from(money: Money) -> Self {
        Self { minor: Minor(money.minor.get()), currency: money.currency }
    }
}

impl AmountAsked {
    /// As the core has it.
    pub fn money(&self) -> Result<Money, MoneyError> {
        Money::new(self.minor.0, self.currency)
    }
}

shape! {
    /// Nothing has to be said.
    input Nothing {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_may_have_a_point_and_loses_nothing_by_it() {
        let read = |text: &str| serde_json::from_str::<Minor>(text).map(|m| m.0).ok();
        for (text, minor) in [("51", 51), ("51.0", 51), ("5.1e1", 51), ("510e-1", 51), ("1e12", 1_000_000_000_000), ("1", 1)] {
            assert_eq!(read(text), Some(minor), "{text}");
        }
        for wrong in [
            "51.5",
            "0.0",
            "-0.0",
            "-1.0",
            "1e13",
            "1e400",
            "51.0000001",
            "\"51\"",
            "true",
            "null",
            "[51]",
            "18446744073709551615",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        let whole = |text: &str| whole(&mut serde_json::Deserializer::from_str(text)).ok();
        assert_eq!(whole("9007199254740992.0"), Some(9_007_199_254_740_992));
        assert_eq!(whole("9007199254740994.0"), None, "an odd one would have become even on the way");
        assert_eq!(whole("9223372036854775807"), Some(i64::MAX));
        assert_eq!(whole("9223372036854775808"), None);
    }
}
