//! PURE. A SIP message as it may be written down: without what could be a card number, a key or a password, and with telephone
//! numbers cut to their last two digits. What isn't known to be harmless is treated as free text.

use super::grammar;
use super::text::{self, Field};

/// Digits in a row, spaces and hyphens between them aside, that free text may not hold.
const FREE_LIMIT_DIGITS: usize = 6;
/// The same in what machines make up (Call-ID, branch, tag): card numbers begin at 13, and shorter runs tell messages apart.
const TOKEN_LIMIT_DIGITS: usize = 13;
/// What is left of a telephone number.
const NUMBER_TAIL_DIGITS: usize = 2;
/// A head that can't be taken apart is written up to here.
const BROKEN_LIMIT_BYTES: usize = 256;

/// Fields that are made up by machines, or numbers too small for a card's.
const TOKENS: [&str; 16] = [
    "Via",
    "Call-ID",
    "CSeq",
    "Max-Forwards",
    "Content-Length",
    "Content-Type",
    "Session-Expires",
    "Min-SE",
    "Expires",
    "RSeq",
    "RAck",
    "Date",
    "Allow",
    "Supported",
    "Require",
    "Retry-After",
];
/// Fields whose address names somebody.
const ADDRESSES: [&str; 13] = [
    "From",
    "To",
    "Contact",
    "P-Asserted-Identity",
    "P-Preferred-Identity",
    "Remote-Party-ID",
    "Diversion",
    "History-Info",
    "Refer-To",
    "Referred-By",
    "P-Called-Party-ID",
    "Route",
    "Record-Route",
];
/// Fields of which the first word is written.
const SECRETS: [&str; 7] = [
    "Authorization",
    "Proxy-Authorization",
    "WWW-Authenticate",
    "Proxy-Authenticate",
    "Authentication-Info",
    "Proxy-Authentication-Info",
    "Identity",
];

/// The message, masked, with line ends of `\n`.
pub fn mask(message: &[u8]) -> String {
    let parts = text::split(message);
    let mut out = String::with_capacity(message.len());
    let start = String::from_utf8_lossy(parts.start);
    if parts.fields.is_empty() {
        let start: String = start.chars().take(BROKEN_LIMIT_BYTES).map(|c| if c.is_control() { '.' } else { c }).collect();
        out.push_str(&digits(&start, FREE_LIMIT_DIGITS, 0, " -"));
        out.push('\n');
        return out;
    }
    if start.starts_with("SIP/") {
        out.push_str(&digits(&start, FREE_LIMIT_DIGITS, 0, " -"));
    } else {
        out.push_str(&digits(&start, FREE_LIMIT_DIGITS, NUMBER_TAIL_DIGITS, "-"));
    }
    out.push('\n');
    for Field { name, value } in &parts.fields {
        let value = if is_one_of(&TOKENS, name) {
            digits(value, TOKEN_LIMIT_DIGITS, 0, "")
        } else if is_one_of(&ADDRESSES, name) {
            grammar::split_outside_quotes(value, b',').iter().map(|v| address(v)).collect::<Vec<_>>().join(",")
        } else if is_one_of(&SECRETS, name) {
            let scheme = value.split([' ', '.', ';']).next().filter(|s| text::is_token(s) && s.len() <= 16).unwrap_or("");
            format!("{} … ({} bytes)", digits(scheme, FREE_LIMIT_DIGITS, 0, ""), value.len())
        } else {
            digits(value, FREE_LIMIT_DIGITS, 0, " -")
        };
        out.push_str(&digits(name, FREE_LIMIT_DIGITS, 0, "-"));
        out.push_str(": ");
        out.push_str(&value);
        out.push('\n');
    }
    if !parts.body.is_empty() {
        out.push('\n');
        let kind = parts.get("Content-Type").and_then(|t| t.split(';').next()).unwrap_or("").trim().to_ascii_lowercase();
        // An INFO may carry keyed digits under any type.
        if kind == "application/sdp" && !start.starts_with("INFO ") && parts.get("CSeq").is_none_or(|c| !c.ends_with(" INFO")) {
            description(&String::from_utf8_lossy(parts.body), &mut out);
        } else {
            out.push_str(&format!("[{} bytes not written]\n", parts.body.len()));
        }
    }
    out
}

fn is_one_of(names: &[&str], name: &str) -> bool {
    names.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// A name-addr: the display name is free text, the URI holds a number, what follows are tokens.
fn address(value: &str) -> String {
    let quoted = if value.trim_start().starts_with('"') { grammar::quoted_length(value.trim_start()).unwrap_or(0) } else { 0 };
    let skipped = value.len().saturating_sub(value.trim_start().len());
    let after_name = skipped.saturating_add(quoted);
    let (open, close) = match value.get(after_name..).and_then(|v| v.find('<')) {
        Some(at) => {
            let open = after_name.saturating_add(at);
            (open, value.get(open..).and_then(|v| v.find('>')).map_or(value.len(), |c| open.saturating_add(c)))
        }
        None => (0, value.find(';').unwrap_or(value.len())),
    };
    let part = |from: usize, to: usize| value.get(from..to).unwrap_or("");
    let name = digits(part(0, open), FREE_LIMIT_DIGITS, 0, " -");
    let uri = digits(part(open, close), FREE_LIMIT_DIGITS, NUMBER_TAIL_DIGITS, "-()");
    let rest = digits(part(close, value.len()), TOKEN_LIMIT_DIGITS, 0, "");
    format!("{name}{uri}{rest}")
}

/// A session description: keys are taken out, its lines of free text are masked as such.
fn description(body: &str, out: &mut String) {
    for line in body.lines() {
        let lower = line.to_ascii_lowercase();
        if lower.starts_with("a=crypto:") {
            let words: Vec<&str> = line.splitn(3, ' ').take(2).collect();
            out.push_str(&digits(&words.join(" "), TOKEN_LIMIT_DIGITS, 0, ""));
            out.push_str(" inline:…");
        } else if lower.starts_with("k=") || lower.starts_with("a=key-mgmt:") || lower.starts_with("a=ice-pwd:") {
            out.push_str(line.split([':', '=']).next().unwrap_or(""));
            out.push_str("=…");
        } else if lower.starts_with("m=") || lower.starts_with("a=") || lower.starts_with("c=") || lower.starts_with("b=") {
            out.push_str(&digits(line, TOKEN_LIMIT_DIGITS, 0, ""));
        } else {
            out.push_str(&digits(line, FREE_LIMIT_DIGITS, 0, " -"));
        }
        out.push('\n');
    }
}

/// Masks runs of `limit` and more digits, but for the last `tail` of each. Single signs of `between` do not end a run.
fn digits(text: &str, limit: usize, tail: usize, between: &str) -> String {
    let signs: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut rest = signs.as_slice();
    while let Some((&first, after)) = rest.split_first() {
        if !is_digit(first) {
            out.push(first);
            rest = after;
            continue;
        }
        // How far the run goes: digits, and signs between two digits.
        let (mut length, mut count) = (0, 0);
        while let Some(&sign) = rest.get(length) {
            let joins = between.contains(sign) && rest.get(length.saturating_add(1)).is_some_and(|c| is_digit(*c));
            if is_digit(sign) {
                count += 1;
            } else if !joins {
                break;
            }
            length += 1;
        }
        let (run, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        let kept_from = if count >= limit { count.saturating_sub(tail) } else { 0 };
        let mut seen = 0;
        for &sign in run {
            let masked = is_digit(sign) && count >= limit && seen < kept_from;
            seen += usize::from(is_digit(sign));
            out.push(if masked { '*' } else { sign });
        }
        rest = after;
    }
    out
}

/// In any script: digits of others are read by people, too.
fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_keep_two_digits_and_the_rest_of_a_message_stays_readable() {
        let message = "INVITE sip:+448081570042@192.168.100.200:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.100.200:45060;branch=z9hG4bK1234567890\r\n\
            From: \"4111 1111 1111 1111\" <sip:+447700900123@10.0.0.1>;tag=99887766\r\nTo: tel:+44-808-157-0042;tag=12345678\r\n\
            Call-ID: 1234567890@h\r\nCSeq: 1234567890 INVITE\r\nSubject: card 4111-1111-1111-1111 please\r\n\
            Authorization: Digest username=\"a\", response=\"00112233445566778899aabbccddeeff\"\r\nContent-Type: application/sdp\r\n\r\n\
            v=0\r\no=- 4111111111111111 1 IN IP4 10.0.0.1\r\ns=4111 1111 1111 1111\r\nm=audio 40000 RTP/AVP 0 8 9 18 101\r\n\
            a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20\r\n";
        let text = mask(message.as_bytes());
        for kept in [
            "INVITE sip:+**********42@192.168.100.200:5060",
            "192.168.100.200:45060;branch=z9hG4bK1234567890",
            "<sip:+**********23@10.0.0.1>;tag=99887766",
            "To: tel:+**-***-***-**42;tag=12345678",
            "CSeq: 1234567890 INVITE",
            "Subject: card ****-****-****-**** please",
            "Authorization: Digest … (",
            "m=audio 40000 RTP/AVP 0 8 9 18 101",
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:…",
        ] {
            assert!(text.contains(kept), "{kept} is not in\n{text}");
        }
        for secret in ["4111", "1111 1111", "WVNfX19", "001122", "7700900"] {
            assert!(!text.contains(secret), "{secret} is in\n{text}");
        }
    }

    #[test]
    fn bodies_with_keys_are_not_written() {
        let info =
            "INFO sip:a@b SIP/2.0\r\nCSeq: 5 INFO\r\nContent-Type: application/dtmf-relay\r\n\r\nSignal=4\r\nDuration=160\r\n";
        assert!(mask(info.as_bytes()).ends_with("[24 bytes not written]\n"), "{}", mask(info.as_bytes()));
        let lying = info.replace("application/dtmf-relay", "application/sdp");
        assert!(!mask(lying.as_bytes()).contains("Signal"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            mask(&bytes);
        }

        #[test]
        fn a_card_number_is_nowhere_whatever_stands_around_it(
            name in "[A-Z][a-zA-Z-]{0,12}", before in "[ -~]{0,20}", after in "[ -~]{0,20}", place in 0usize..4,
        ) {
            let card = "4929421234600821";
            let message = match place {
                0 => format!("INVITE sip:a@b SIP/2.0\r\n{name}: {before}{card}{after}\r\nTo: x\r\n\r\n"),
                1 => format!("INVITE sip:{before}{card}{after} SIP/2.0\r\nTo: x\r\n\r\n"),
                2 => format!("SIP/2.0 200 {before}{card}{after}\r\nTo: x\r\n\r\n"),
                _ => format!("INVITE sip:a@b SIP/2.0\r\nContent-Type: application/sdp\r\n\r\ns={before}{card}{after}\r\na={card}\r\n"),
            };
            prop_assert!(!mask(message.as_bytes()).contains("49294212346"), "{}", mask(message.as_bytes()));
        }
    }
}
