//! The Identity header's grammar (RFC 8224 section 4): a token, then parameters. Pure; nothing is decoded here.

use super::Invalid;
use crate::media::leg::AttestationFault::Malformed;

/// Identity headers of one INVITE that are looked at. SHAKEN has one; `div` and `rcd` add theirs.
pub const HEADER_LIMIT_FIELDS: usize = 8;
/// Longest value of one. A SHAKEN one has 400 to 700 bytes.
pub const VALUE_LIMIT_BYTES: usize = 4_096;
/// Parameters of one.
const PARAMETER_LIMIT: usize = 16;

/// One value, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The PASSporT: `header.payload.signature`, or `..signature` in the compact form (RFC 8225 section 7).
    pub token: &'a str,
    /// Where the certificate is, without its brackets.
    pub info: Option<&'a str>,
    /// The algorithm.
    pub alg: Option<&'a str>,
    /// The kind of PASSporT, without its quotes.
    pub ppt: Option<&'a str>,
}

impl Identity<'_> {
    /// Whether header and payload are left out, to be made anew from the request.
    pub fn is_compact(&self) -> bool {
        self.token.starts_with("..")
    }
}

/// Takes a value apart.
pub fn parse(value: &str) -> Result<Identity<'_>, Invalid> {
    let wrong = |why| Err(Invalid::new(Malformed, why));
    if value.len() > VALUE_LIMIT_BYTES {
        return wrong("the Identity header is too long");
    }
    let mut parts = split(value)?.into_iter();
    let token = parts.next().unwrap_or("");
    let is_digest = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if token.is_empty() || !token.bytes().all(is_digest) {
        return wrong("the Identity header does not begin with a PASSporT");
    }
    let mut identity = Identity { token, info: None, alg: None, ppt: None };
    for part in parts {
        let Some((name, value)) = part.split_once('=') else { continue }; // one without a value is none of ours
        let (name, value) = (name.trim(), value.trim());
        let (place, value) = if name.eq_ignore_ascii_case("info") {
            match value.strip_prefix('<').and_then(|v| v.strip_suffix('>')) {
                Some(uri) => (&mut identity.info, uri.trim()),
                None => return wrong("the Identity header's info is not in angle brackets"),
            }
        } else if name.eq_ignore_ascii_case("alg") {
            (&mut identity.alg, unquoted(value)?)
        } else if name.eq_ignore_ascii_case("ppt") {
            (&mut identity.ppt, unquoted(value)?)
        } else {
            continue;
        };
        if place.replace(value).is_some() {
            return wrong("the Identity header says info, alg or ppt twice");
        }
    }
    Ok(identity)
}

/// Splits at semicolons that stand outside brackets and quotes.
fn split(value: &str) -> Result<Vec<&str>, Invalid> {
    let (mut parts, mut start, mut within) = (Vec::new(), 0, None);
    for (at, c) in value.char_indices() {
        match (within, c) {
            (None, '<') => within = Some('>'),
            (None, '"') => within = Some('"'),
            (None, ';') => {
                parts.extend(value.get(start..at).map(str::trim));
                start = at + 1;
            }
            (Some(end), c) if c == end => within = None,
            _ => {}
        }
        if parts.len() > PARAMETER_LIMIT {
            return Err(Invalid::new(Malformed, "the Identity header has too many parameters"));
        }
    }
    if within.is_some() {
        return Err(Invalid::new(Malformed, "a quote or bracket of the Identity header is not closed"));
    }
    parts.extend(value.get(start..).map(str::trim));
    Ok(parts)
}

/// A token, or a quoted one. Nothing that we compare with needs an escape.
fn unquoted(value: &str) -> Result<&str, Invalid> {
    let inner = value.strip_prefix('"').map_or(Some(value), |v| v.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(&b)) => Ok(inner),
        Some(_) | None => Err(Invalid::new(Malformed, "a parameter of the Identity header is no token")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_and_parameters_come_apart_however_they_are_written() {
        let plain = parse("aa.bb.cc;info=<https://certs.example.org/a;b,c.pem>;alg=ES256;ppt=shaken").unwrap();
        assert_eq!(plain.token, "aa.bb.cc");
        assert_eq!(plain.info, Some("https://certs.example.org/a;b,c.pem"));
        assert_eq!((plain.alg, plain.ppt, plain.is_compact()), (Some("ES256"), Some("shaken"), false));
        let odd = parse(" aa.bb.cc ; PPT = \"shaken\" ;ALG=\"ES256\";other;x=\";\"; Info = < https://a > ").unwrap();
        assert_eq!((odd.info, odd.alg, odd.ppt), (Some("https://a"), Some("ES256"), Some("shaken")));
        let compact = parse("..c2ln;info=<https://a/b>").unwrap();
        assert!(compact.is_compact() && compact.ppt.is_none());
    }

    #[test]
    fn what_breaks_the_grammar_is_named() {
        let huge = format!("aa.bb.cc;info=<https://a/{}>", "x".repeat(5_000));
        let many = format!("aa.bb.cc{}", ";x=1".repeat(40));
        for (value, says) in [
            ("", "PASSporT"),
            (";info=<https://a>", "PASSporT"),
            ("a b.c.d;info=<https://a>", "PASSporT"),
            ("\u{e9}.b.c", "PASSporT"),
            ("a.b.c;info=https://a", "brackets"),
            ("a.b.c;info=<https://a", "not closed"),
            ("a.b.c;ppt=\"shaken", "not closed"),
            ("a.b.c;ppt=", "token"),
            ("a.b.c;ppt=sha ken", "token"),
            ("a.b.c;ppt=shaken;ppt=div", "twice"),
            (&huge, "too long"),
            (&many, "too many"),
        ] {
            let error = parse(value).unwrap_err();
            assert!(error.why.contains(says) && error.fault == Malformed, "{value:.40}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}", tail in "[;=<>\", a-z]{0,60}") {
            let _parsed = (parse(&text), parse(&format!("a.b.c;{tail}")));
        }
    }
}
