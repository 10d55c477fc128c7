//! A message in memory: its type and its fields, in buffers that wipe themselves. What it holds never prints but by a dialect's
//! leave. PURE.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::spec::{Show, Spec};

/// A message type identifier: four digits. The second is the class (1 authorisation, 2 financial, 4 reversal, 8 network
/// management), the third the function (0 request, 1 its answer, 2 advice, 3 its answer), the last the origin (odd: a repeat).
/// ISO 8583:1987, section 4.1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mti([u8; 4]);

impl Mti {
    /// From ASCII digits.
    pub fn from_digits(digits: [u8; 4]) -> Option<Self> {
        digits.iter().all(u8::is_ascii_digit).then_some(Self(digits))
    }

    /// As ASCII digits.
    pub fn digits(&self) -> &[u8; 4] {
        &self.0
    }

    /// The type that answers this one: 0200 and 0201 are answered by 0210, 0220 by 0230. `None` for a type that is no question.
    pub fn answer(self) -> Option<Self> {
        let [version, class, function, _] = self.0;
        let function = match function {
            b'0' => b'1',
            b'2' => b'3',
            _ => return None,
        };
        Some(Self([version, class, function, b'0']))
    }

    /// The type that says the same again: 0401 for 0400.
    #[must_use]
    pub fn repeat(self) -> Self {
        let [version, class, function, _] = self.0;
        Self([version, class, function, b'1'])
    }

    /// Whether it is of network management.
    pub fn is_network(self) -> bool {
        self.0[1] == b'8'
    }
}

impl FromStr for Mti {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        text.as_bytes().try_into().ok().and_then(Self::from_digits).ok_or(())
    }
}

impl fmt::Display for Mti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|d| write!(f, "{}", char::from(*d)))
    }
}

impl fmt::Debug for Mti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A message. Values are ASCII whatever the wire has, or bytes where the format is b.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub mti: Mti,
    fields: BTreeMap<u8, Zeroizing<Vec<u8>>>,
}

impl Message {
    /// Without fields.
    pub fn new(mti: Mti) -> Self {
        Self { mti, fields: BTreeMap::new() }
    }

    /// Puts a field in.
    pub fn set(&mut self, n: u8, value: impl Into<Vec<u8>>) {
        self.fields.insert(n, Zeroizing::new(value.into()));
    }

    /// A field's value.
    pub fn get(&self, n: u8) -> Option<&[u8]> {
        self.fields.get(&n).map(|v| v.as_slice())
    }

    /// A field's value as text; `None` also where it is none.
    pub fn text(&self, n: u8) -> Option<&str> {
        self.get(n).and_then(|v| std::str::from_utf8(v).ok())
    }

    /// The fields in the order of their numbers, which is that of the wire.
    pub fn fields(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.fields.iter().map(|(n, v)| (*n, v.as_slice()))
    }

    /// For traces: values as far as the dialect lets them be shown.
    pub fn shown<'a>(&'a self, spec: &'a Spec) -> Shown<'a> {
        Shown { message: self, spec }
    }
}

impl fmt::Debug for Message {
    /// Type and numbers of fields, no values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} with fields {:?})", self.mti, self.fields.keys().collect::<Vec<_>>())
    }
}

/// A message as a trace may show it.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    message: &'a Message,
    spec: &'a Spec,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message.mti)?;
        for (n, value) in self.message.fields() {
            let text = String::from_utf8_lossy(value);
            match self.spec.field(n).map_or(Show::Hidden, |field| field.show) {
                Show::Plain => write!(f, " {n}={}", text.trim_end())?,
                Show::Last4 => {
                    let skip = text.chars().count().saturating_sub(4).max(text.chars().count() / 2);
                    write!(f, " {n}=…{}", text.chars().skip(skip).collect::<String>())?;
                }
                Show::Hidden => write!(f, " {n}=(hidden)")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
