//! Which numbers a certificate may sign for: the extension TNAuthList (RFC 8226 section 9). Pure, and read strictly: DER, nothing
//! left over.

use super::Invalid;
use crate::media::leg::AttestationFault::{ChainMalformed, NumberNotCovered};

/// id-pe-TNAuthList.
pub const OID: &str = "1.3.6.1.5.5.7.1.26";
/// Entries of one list. Carriers have one; a list of single numbers may be longer.
const ENTRY_LIMIT: usize = 256;
/// E.164.
const NUMBER_LIMIT_DIGITS: usize = 15;
/// A service provider's code: four characters in North America.
const CODE_LIMIT_BYTES: usize = 32;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A provider, by its code: whatever numbers it has. Which these are is its authority's business, not the certificate's.
    Provider(String),
    /// So many numbers from this one on; one for a single number. The numbers have the same count of digits.
    Numbers {
        /// Digits.
        first: String,
        /// At least one.
        count: u64,
    },
}

/// The list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TnAuthList(Vec<Entry>);

const MALFORMED: Invalid = Invalid::new(ChainMalformed, "the certificate's TNAuthList is malformed");

impl TnAuthList {
    /// From the extension's content.
    pub fn parse(der: &[u8]) -> Result<Self, Invalid> {
        let (mut list, rest) = element(der, SEQUENCE)?;
        if !rest.is_empty() {
            return Err(MALFORMED);
        }
        let mut entries = Vec::new();
        while let Some(tag) = list.first() {
            if entries.len() >= ENTRY_LIMIT {
                return Err(MALFORMED);
            }
            // The module has explicit tags: a choice's tag wraps the type's own.
            let (inner, after) = element(list, *tag)?;
            entries.push(match *tag {
                0xa0 => Entry::Provider(code(only(inner, IA5_STRING)?)?),
                0xa1 => range(only(inner, SEQUENCE)?)?,
                0xa2 => Entry::Numbers { first: number(only(inner, IA5_STRING)?)?, count: 1 },
                _ => return Err(MALFORMED),
            });
            list = after;
        }
        if entries.is_empty() { Err(MALFORMED) } else { Ok(Self(entries)) }
    }

    /// May it sign for this number (digits only)?
    pub fn covers(&self, number: &str) -> Result<(), Invalid> {
        let covered = self.0.iter().any(|entry| match entry {
            Entry::Provider(_) => true,
            Entry::Numbers { first, count } => within(number, 1, first, *count),
        });
        if covered { Ok(()) } else { Err(Invalid::new(NumberNotCovered, "the certificate may not sign for the calling number")) }
    }

    /// An authority that has a list itself may give out no more than that (RFC 8226 section 9).
    pub fn encompasses(&self, other: &Self) -> bool {
        let provider = self.0.iter().any(|entry| matches!(entry, Entry::Provider(_)));
        other.0.iter().all(|theirs| match theirs {
            Entry::Provider(_) => self.0.contains(theirs),
            Entry::Numbers { first, count } => {
                provider
                    || self.0.iter().any(|ours| match ours {
                        Entry::Provider(_) => true,
                        Entry::Numbers { first: from, count: many } => within(first, *count, from, *many),
                    })
            }
        })
    }

    /// The first provider's code, for logs.
    pub fn provider(&self) -> Option<&str> {
        self.0.iter().find_map(|entry| match entry {
            Entry::Provider(code) => Some(code.as_str()),
            Entry::Numbers { .. } => None,
        })
    }
}

/// Do `count` numbers from `number` on lie among `many` from `first` on?
fn within(number: &str, count: u64, first: &str, many: u64) -> bool {
    let value = |n: &str| n.parse::<u64>().ok();
    let (Some(a), Some(b)) = (value(number), value(first)) else { return false };
    number.len() == first.len() && a >= b && a.saturating_add(count) <= b.saturating_add(many)
}

const SEQUENCE: u8 = 0x30;
const IA5_STRING: u8 = 0x16;
const INTEGER: u8 = 0x02;

/// An element of this tag: its content, and what follows. DER lengths in their shortest form, up to 65,535.
fn element(der: &[u8], tag: u8) -> Result<(&[u8], &[u8]), Invalid> {
    let (length, content) = match der {
        [t, 0x82, high, low, content @ ..] if *t == tag && *high != 0 => {
            (usize::from(u16::from_be_bytes([*high, *low])), content)
        }
        [t, 0x81, length, content @ ..] if *t == tag && *length >= 0x80 => (usize::from(*length), content),
        [t, length, content @ ..] if *t == tag && *length < 0x80 => (usize::from(*length), content),
        _ => return Err(MALFORMED),
    };
    content.split_at_checked(length).ok_or(MALFORMED)
}

/// The same, where nothing may follow.
fn only(der: &[u8], tag: u8) -> Result<&[u8], Invalid> {
    match element(der, tag)? {
        (content, []) => Ok(content),
        _ => Err(MALFORMED),
    }
}

fn code(content: &[u8]) -> Result<String, Invalid> {
    let text = std::str::from_utf8(content).map_err(|_| MALFORMED)?;
    let sound = (1..=CODE_LIMIT_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if sound { Ok(text.to_owned()) } else { Err(MALFORMED) }
}

fn number(content: &[u8]) -> Result<String, Invalid> {
    let text = code(content)?;
    // `*` and `#` are allowed there, but no such number calls anybody.
    let sound = text.len() <= NUMBER_LIMIT_DIGITS && text.bytes().all(|b| b.is_ascii_digit() || b"*#".contains(&b));
    if sound { Ok(text) } else { Err(MALFORMED) }
}

fn range(content: &[u8]) -> Result<Entry, Invalid> {
    let (first, rest) = element(content, IA5_STRING)?;
    // The type may be extended one day: what follows the count is passed over.
    let (bytes, _extensions) = element(rest, INTEGER)?;
    let count = match bytes {
        [first, ..] if first & 0x80 == 0 && bytes.len() <= 8 => bytes.iter().fold(0u64, |n, b| n << 8 | u64::from(*b)),
        _ => return Err(MALFORMED),
    };
    if count < 2 {
        return Err(MALFORMED);
    }
    Ok(Entry::Numbers { first: number(first)?, count })
}

/// DER of these entries, for authorities that tests and operators make.
#[cfg(test)]
pub(crate) fn encode(entries: &[Entry]) -> Vec<u8> {
    let wrap = |tag: u8, content: Vec<u8>| {
        assert!(content.len() < 128);
        [vec![tag, u8::try_from(content.len()).unwrap()], content].concat()
    };
    let text = |t: &str| wrap(IA5_STRING, t.as_bytes().to_vec());
    let each = entries.iter().map(|entry| match entry {
        Entry::Provider(code) => wrap(0xa0, text(code)),
        Entry::Numbers { first, count: 1 } => wrap(0xa2, text(first)),
        Entry::Numbers { first, count } => {
            let count = [vec![0], count.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect()].concat();
            wrap(0xa1, wrap(SEQUENCE, [text(first), wrap(INTEGER, count)].concat()))
        }
    });
    wrap(SEQUENCE, each.collect::<Vec<_>>().concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(first: &str, count: u64) -> Entry {
        Entry::Numbers { first: first.to_owned(), count }
    }

    #[test]
    fn providers_ranges_and_single_numbers_are_read() {
        // As certificates of North American carriers have it: SEQUENCE { [0] { IA5String "709J" } }.
        let carrier = TnAuthList::parse(&hex::decode("3008a006160437303946".replace("46", "4a")).unwrap()).unwrap();
        assert_eq!((carrier.provider(), carrier.covers("12155550121")), (Some("709J"), Ok(())));
        let list = TnAuthList::parse(&encode(&[numbers("12155550100", 50), numbers("442079460958", 1)])).unwrap();
        for (number, covered) in [
            ("12155550100", true),
            ("12155550149", true),
            ("12155550150", false),
            ("12155550099", false),
            ("442079460958", true),
            ("442079460959", false),
            ("012155550100", false),
            ("", false),
            ("x", false),
        ] {
            assert_eq!(list.covers(number).is_ok(), covered, "{number}");
        }
        assert_eq!((list.provider(), list.covers("1").unwrap_err().fault), (None, NumberNotCovered));
    }

    #[test]
    fn nobody_gives_out_more_than_they_have() {
        let list = |entries: &[Entry]| TnAuthList::parse(&encode(entries)).unwrap();
        let provider = |code: &str| Entry::Provider(code.to_owned());
        let above = list(&[numbers("12155550100", 50)]);
        assert!(above.encompasses(&list(&[numbers("12155550110", 40)])));
        assert!(!above.encompasses(&list(&[numbers("12155550110", 41)])));
        assert!(!above.encompasses(&list(&[provider("709J")])));
        assert!(list(&[provider("709J")]).encompasses(&list(&[provider("709J"), numbers("12155550110", 9)])));
        assert!(!list(&[provider("709J")]).encompasses(&list(&[provider("710J")])));
        assert!(!list(&[numbers("0", 1 << 40)]).encompasses(&list(&[numbers("12", 2)])), "no overflow");
    }

    #[test]
    fn other_der_is_refused() {
        for bad in
            ["", "30", "3000", "3002a000", "3005a003160131ff", "30050400160131", "308005a003160131", "30810aa008160637303946ffff"]
        {
            assert_eq!(TnAuthList::parse(&hex::decode(bad).unwrap()), Err(MALFORMED), "{bad}");
        }
        assert!(TnAuthList::parse(&encode(&[numbers("12x", 1)])).is_err());
        assert!(TnAuthList::parse(&encode(&[numbers("1234567890123456", 1)])).is_err());
        assert!(TnAuthList::parse(&encode(&[numbers("1", 0)])).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), tag in 0xa0u8..0xa3) {
            let _read = TnAuthList::parse(&bytes);
            let inner: Vec<u8> = bytes.iter().copied().take(100).collect();
            let mut framed = vec![0x30, u8::try_from(inner.len() + 2).unwrap(), tag, u8::try_from(inner.len()).unwrap()];
            framed.extend(inner);
            if let Ok(list) = TnAuthList::parse(&framed) {
                let _covers = (list.covers("12155550121"), list.encompasses(&list));
            }
        }
    }
}
