//! Who calls: P-Asserted-Identity where the peer is trusted (RFC 3325), else From; withheld where the caller asked for it.

use std::borrow::Cow;

use super::headers::Headers;
use crate::media::leg::CallerClaim;

/// User parts that stand for "no number".
const WITHHELD_USERS: [&str; 5] = ["anonymous", "restricted", "unavailable", "unknown", "private"];
/// A claim longer than any telephone number or sensible name is cut: it goes into records.
const CLAIM_LIMIT_CHARS: usize = 80;

/// What the caller's side claims, and how far it can be believed. `trusted`: the peer's P-Asserted-Identity counts.
pub fn caller_claim(headers: &Headers, trusted: bool) -> CallerClaim {
    // RFC 3323 / 3325: `id` asks that the identity not be shown; `user` and `header` ask for more.
    let private = headers
        .all("Privacy")
        .flat_map(|v| v.split([';', ',']))
        .any(|p| ["id", "user", "header"].contains(&p.trim().to_ascii_lowercase().as_str()));
    if private { CallerClaim::Withheld } else { claim(headers, trusted) }
}

/// The user part that nominates the caller, asked to be shown or not: what a signed number (RFC 8224) is compared with.
pub fn calling_user(headers: &Headers, trusted: bool) -> Option<String> {
    match claim(headers, trusted) {
        CallerClaim::Asserted(user) | CallerClaim::Unverified(user) => Some(user),
        CallerClaim::Withheld => None,
    }
}

fn claim(headers: &Headers, trusted: bool) -> CallerClaim {
    if trusted {
        let asserted: Vec<String> = headers.all("P-Asserted-Identity").flat_map(split_addresses).filter_map(user_of).collect();
        // RFC 3325 section 9.1: at most one sip(s) and one tel. A telephone number is what we look people up by.
        let number = asserted.iter().find(|u| u.starts_with('+')).or_else(|| asserted.first());
        if let Some(user) = number {
            return if is_withheld(user) { CallerClaim::Withheld } else { CallerClaim::Asserted(user.clone()) };
        }
    }
    match headers.get("From").and_then(user_of) {
        Some(user) if !is_withheld(&user) => CallerClaim::Unverified(user),
        Some(_) | None => CallerClaim::Withheld,
    }
}

/// The user part of a name-addr or addr-spec (`"A. Lice" <sip:+44…@host>`, `tel:+44-20…`), unescaped, without its
/// parameters. `None` where there is none.
pub fn user_of(value: &str) -> Option<String> {
    user_of_uri(address_of(value)?)
}

/// The user part of a bare URI.
pub fn user_of_uri(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.trim().split_once(':')?;
    let user = match scheme.to_ascii_lowercase().as_str() {
        // The user part ends at the last @ before the host; a password after `:` is dropped.
        "sip" | "sips" => {
            let (user, _host) = rest.split_once('@')?;
            user.split(':').next().unwrap_or(user)
        }
        "tel" => rest,
        _ => return None,
    };
    // `;phone-context=…`, `;isub=…` and the like (RFC 3966) are no part of the number.
    let user = unescape(user.split(';').next().unwrap_or(user));
    let user: String = user.chars().filter(|c| !c.is_control()).take(CLAIM_LIMIT_CHARS).collect();
    (!user.is_empty()).then_some(user)
}

/// The URI of a name-addr or addr-spec.
pub(super) fn address_of(value: &str) -> Option<&str> {
    let after_name = skip_quoted(value.trim());
    match after_name.find('<') {
        Some(open) => {
            let inner = after_name.get(open + 1..)?;
            inner.split('>').next().map(str::trim)
        }
        // Without brackets, parameters belong to the header, not to the URI (RFC 3261 section 20.10).
        None => Some(after_name.split(';').next().unwrap_or(after_name).trim()),
    }
}

/// What follows a leading quoted display name; the text itself if there is none.
fn skip_quoted(text: &str) -> &str {
    let Some(inner) = text.strip_prefix('"') else { return text };
    let mut escaped = false;
    for (i, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return inner.get(i + 1..).unwrap_or(""),
            _ => {}
        }
    }
    "" // the quote is never closed: there is no address
}

/// Splits at commas that stand outside quotes and brackets.
pub(super) fn split_addresses(value: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped, mut bracketed) = (Vec::new(), 0, false, false, false);
    for (i, c) in value.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => bracketed = true,
            '>' if !quoted => bracketed = false,
            ',' if !quoted && !bracketed => {
                parts.extend(value.get(start..i));
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.extend(value.get(start..));
    parts
}

fn is_withheld(user: &str) -> bool {
    WITHHELD_USERS.contains(&user.to_ascii_lowercase().as_str())
}

/// As a URI may hold it: letters, digits, marks (RFC 3261 section 25.1, `unreserved`) and what this place allows besides stay, the rest
/// becomes %XX.
pub(super) fn escape(text: &str, besides: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&b) || besides.contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// Undoes %xx; what isn't valid stays as it is.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        let decoded = (b == b'%')
            .then(|| tail.get(..2).and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok()))
            .flatten();
        match decoded {
            Some(d) => {
                bytes.push(d);
                rest = tail.get(2..).unwrap_or(&[]);
            }
            None => {
                bytes.push(b);
                rest = tail;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(headers: &[(&str, &str)], trusted: bool) -> CallerClaim {
        let mut all = Headers::new();
        for (n, v) in headers {
            all.push(*n, *v);
        }
        caller_claim(&all, trusted)
    }

    const FROM: (&str, &str) = ("From", "\"Eve\" <sip:+447700900999@evil.example>;tag=1");
    const PAI: (&str, &str) =
        ("P-Asserted-Identity", "\"Smith, A\" <sip:alice@example.com>, <tel:+44-7700-900123;phone-context=x>");

    #[test]
    fn an_asserted_identity_counts_only_from_a_trusted_peer() {
        assert_eq!(claim(&[FROM, PAI], true), CallerClaim::Asserted("+44-7700-900123".into()));
        assert_eq!(claim(&[FROM, PAI], false), CallerClaim::Unverified("+447700900999".into()));
        assert_eq!(claim(&[FROM], true), CallerClaim::Unverified("+447700900999".into()));
        assert_eq!(claim(&[FROM, ("P-Asserted-Identity", "\"broken <")], true), CallerClaim::Unverified("+447700900999".into()));
    }

    #[test]
    fn a_withheld_number_stays_withheld() {
        assert_eq!(claim(&[("From", "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1")], false), CallerClaim::Withheld);
        assert_eq!(claim(&[FROM, PAI, ("Privacy", "id;critical")], true), CallerClaim::Withheld);
        assert_eq!(claim(&[FROM, ("Privacy", "none")], false), CallerClaim::Unverified("+447700900999".into()));
        assert_eq!(claim(&[("From", "<sip:example.com>;tag=1")], false), CallerClaim::Withheld);
        assert_eq!(claim(&[], false), CallerClaim::Withheld);
    }

    #[test]
    fn addresses_are_read_in_all_their_forms() {
        let cases = [
            ("sip:+442079460958@example.com;tag=9", Some("+442079460958")),
            ("<sip:+442079460958;phone-context=example@example.com;user=phone>;tag=9", Some("+442079460958")),
            ("\"Say \\\"hi\\\" <sip:trap@x>\" <sip:%2B4420@example.com>", Some("+4420")),
            ("Bob Smith <sips:bob:secret@example.com>", Some("bob")),
            ("tel:+1-201-555-0123", Some("+1-201-555-0123")),
            ("<TEL:+12015550123>", Some("+12015550123")),
            ("<http://example.com/x@y>", None),
            ("\"never closed <sip:a@b>", None),
            ("", None),
            ("<sip:50%@example.com>", Some("50%")),
        ];
        for (given, want) in cases {
            assert_eq!(user_of(given).as_deref(), want, "{given}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(from in ".{0,80}", pai in "[\"<>,;:@%\\\\a-z+0-9 ]{0,60}") {
            claim(&[("From", &from), ("P-Asserted-Identity", &pai), ("Privacy", &from)], true);
        }
    }
}
