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
        let minor = i64::deserialize(d)?;
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
