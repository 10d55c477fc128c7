//! PURE. The text of a SIP message taken apart: start line, header fields without folding and compact names, body. Nothing
//! is judged here but the outer form (RFC 3261 section 7).

use std::borrow::Cow;

/// Header fields that are looked at; a message with more is broken.
pub const FIELD_LIMIT: usize = 256;
/// Start line and header fields; nothing in telephony needs more, an Identity header included.
pub const HEAD_LIMIT_BYTES: usize = 16 * 1024;

/// A message in its parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// Without its line end.
    pub start: &'a [u8],
    /// In order.
    pub fields: Vec<Field>,
    /// All that follows the empty line.
    pub body: &'a [u8],
    /// What is wrong with the form, if something is; the parts that could be read are there all the same.
    pub fault: Option<&'static str>,
}

/// A header field.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    /// In full, in the usual spelling where we know it: `i` and `CALL-ID` are `Call-ID`.
    pub name: Cow<'static, str>,
    /// Unfolded, without white space around it.
    pub value: String,
}

impl std::fmt::Debug for Field {
    /// The name only: values hold telephone numbers and credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Field {
    /// Is it of this name?
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// Names in their usual spelling, with their compact forms (the IANA registry of SIP header fields).
const NAMES: &[(&str, &str)] = &[
    ("Via", "v"),
    ("From", "f"),
    ("To", "t"),
    ("Call-ID", "i"),
    ("CSeq", ""),
    ("Contact", "m"),
    ("Content-Length", "l"),
    ("Content-Type", "c"),
    ("Content-Encoding", "e"),
    ("Subject", "s"),
    ("Supported", "k"),
    ("Event", "o"),
    ("Allow-Events", "u"),
    ("Refer-To", "r"),
    ("Referred-By", "b"),
    ("Session-Expires", "x"),
    ("Accept-Contact", "a"),
    ("Reject-Contact", "j"),
    ("Request-Disposition", "d"),
    ("Identity", "y"),
    ("Identity-Info", "n"),
    ("Max-Forwards", ""),
    ("Require", ""),
    ("Proxy-Require", ""),
    ("Route", ""),
    ("Record-Route", ""),
    ("Date", ""),
    ("Min-SE", ""),
    ("RSeq", ""),
    ("RAck", ""),
    ("Replaces", ""),
    ("Authorization", ""),
    ("Proxy-Authorization", ""),
    ("WWW-Authenticate", ""),
    ("Proxy-Authenticate", ""),
];

/// The usual spelling of a field name.
fn usual(name: &str) -> Cow<'static, str> {
    NAMES
        .iter()
        .find(|(full, short)| full.eq_ignore_ascii_case(name) || (!short.is_empty() && short.eq_ignore_ascii_case(name)))
        .map_or_else(|| Cow::Owned(name.to_owned()), |(full, _)| Cow::Borrowed(*full))
}

/// A character of a token (RFC 3261 section 25.1).
pub fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b)
}

/// A token.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// Where the body begins, behind the empty line; `None` if there is none.
pub fn head_length(message: &[u8]) -> Option<usize> {
    message.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at.saturating_add(4))
}

/// Takes a message apart.
pub fn split(message: &[u8]) -> Text<'_> {
    let (head, body, mut fault) = match head_length(message) {
        Some(at) => (message.get(..at.saturating_sub(4)).unwrap_or(&[]), message.get(at..).unwrap_or(&[]), None),
        None => (message, [].as_slice(), Some("the header fields do not end with an empty line")),
    };
    if head.len() > HEAD_LIMIT_BYTES {
        fault = Some("the header fields are too long");
    }
    let head = head.get(..HEAD_LIMIT_BYTES).unwrap_or(head);
    let mut lines = Lines(Some(head));
    let start = lines.next().unwrap_or(&[]);
    let mut fields: Vec<Field> = Vec::new();
    for line in lines {
        if line.contains(&b'\n') || line.contains(&b'\r') {
            fault = fault.or(Some("a line does not end with CR LF"));
        }
        if line.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
            // RFC 3261 section 7.3.1: the line goes on; all the white space is one space.
            let Some(field) = fields.last_mut() else {
                fault = fault.or(Some("the first header field is folded"));
                continue;
            };
            let more = clean(line);
            if !more.is_empty() && !field.value.is_empty() {
                field.value.push(' ');
            }
            field.value.push_str(&more);
            continue;
        }
        if line.is_empty() {
            continue; // the end of a head without its empty line
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            fault = fault.or(Some("a header field has no colon"));
            continue;
        };
        let name = String::from_utf8_lossy(line.get(..colon).unwrap_or(&[]).trim_ascii_end()).into_owned();
        if !is_token(&name) {
            fault = fault.or(Some("the name of a header field is no token"));
            continue;
        }
        if fields.len() >= FIELD_LIMIT {
            fault = fault.or(Some("there are too many header fields"));
            break;
        }
        fields.push(Field { name: usual(&name), value: clean(line.get(colon.saturating_add(1)..).unwrap_or(&[])) });
    }
    Text { start, fields, body, fault }
}

/// As text: what isn't UTF-8 is replaced, since the stack would stop reading there; a stray line end becomes a space.
fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.trim_ascii());
    if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], " ") } else { text.into_owned() }
}

struct Lines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        match rest.windows(2).position(|w| w == b"\r\n") {
            Some(at) => {
                self.0 = rest.get(at.saturating_add(2)..);
                rest.get(..at)
            }
            None => self.0.take(),
        }
    }
}

impl Text<'_> {
    /// The first field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|f| f.is(name)).map(|f| f.value.as_str())
    }

    /// How many fields have this name.
    pub fn count(&self, name: &str) -> usize {
        self.fields.iter().filter(|f| f.is(name)).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn folding_compact_names_and_odd_white_space_are_undone() {
        let text = split(b"OPTIONS sip:a@b SIP/2.0\r\nv  :  SIP/2.0/UDP\r\n \t x\r\nI: 1\r\nX-Odd:\r\n here\r\n\r\nbody\r\n\r\n");
        assert_eq!(text.start, b"OPTIONS sip:a@b SIP/2.0");
        assert_eq!(text.get("Via"), Some("SIP/2.0/UDP x"));
        assert_eq!((text.get("call-id"), text.get("X-Odd")), (Some("1"), Some("here")));
        assert_eq!((text.body, text.fault), (b"body\r\n\r\n".as_slice(), None));
    }

    #[test]
    fn what_has_no_form_is_named() {
        for (message, why) in [
            (&b"INVITE x SIP/2.0\r\nTo: a\r\n"[..], "empty line"),
            (b"INVITE x SIP/2.0\r\nno colon here\r\n\r\n", "colon"),
            (b"INVITE x SIP/2.0\r\n folded: x\r\n\r\n", "folded"),
            (b"INVITE x SIP/2.0\r\nbad name: x\r\n\r\n", "token"),
            (b"INVITE x SIP/2.0\r\nTo: a\nFrom: b\r\n\r\n", "CR LF"),
        ] {
            assert!(split(message).fault.unwrap_or("").contains(why), "{}", String::from_utf8_lossy(message));
        }
    }

    #[test]
    fn no_line_end_survives_in_a_value() {
        let text = split(b"X y SIP/2.0\r\nTo: a\rb\nc\r\n d\xff\r\n\r\n");
        assert!(text.fields.iter().all(|f| !f.value.contains(['\r', '\n'])));
        assert!(text.fields[0].value.contains('\u{fffd}'));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let text = split(&bytes);
            prop_assert!(text.fields.iter().all(|f| !f.value.contains(['\r', '\n']) && is_token(&f.name)));
        }

        #[test]
        fn no_lines_make_it_panic(lines in "(([a-z:;, \t]{0,12}|\u{e9})\r?\n){0,20}") {
            split(lines.as_bytes());
        }
    }
}
