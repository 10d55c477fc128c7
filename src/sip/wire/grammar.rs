//! PURE. The values that a transaction hangs on, read as strictly as RFC 3261 section 25 writes them and written the one
//! way that the stack reads safely: Via, From, To, Contact, CSeq, URIs.

use super::text::{is_token, is_token_byte};

/// Every branch of RFC 3261 begins so (section 8.1.1.7).
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// What is wrong with a value; goes into the Warning of a 400.
pub type Fault = &'static str;

/// A Via value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// `UDP`, `TCP`…, any token.
    pub transport: String,
    /// `host[:port]`.
    pub sent_by: String,
    /// In order.
    pub params: Vec<Param>,
}

/// `;name[=value]`; a quoted value keeps its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// As written.
    pub name: String,
    /// If there is one.
    pub value: Option<String>,
}

/// A From, To or Contact value.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// As written, quotes included; empty if there is none.
    pub display: String,
    /// Between the brackets, or all up to the parameters.
    pub uri: String,
    /// The field's, not the URI's.
    pub params: Vec<Param>,
}

impl std::fmt::Debug for Address {
    /// Without name and number.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address").finish_non_exhaustive()
    }
}

/// The parameter of this name.
pub fn param<'a>(params: &'a [Param], name: &str) -> Option<&'a Param> {
    params.iter().find(|p| p.name.eq_ignore_ascii_case(name))
}

impl Via {
    /// One value, without commas outside quotes.
    pub fn parse(value: &str) -> Result<Self, Fault> {
        const WRONG: Fault = "Via can't be read";
        let mut parts = value.splitn(3, '/');
        let (name, version, rest) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().ok_or(WRONG)?);
        if !name.trim().eq_ignore_ascii_case("SIP") || version.trim() != "2.0" {
            return Err("Via is not of SIP/2.0");
        }
        let rest = rest.trim_start();
        let (transport, rest) = rest.split_once([' ', '\t']).ok_or(WRONG)?;
        let (sent_by, params) = rest.split_once(';').map_or((rest, None), |(s, p)| (s, Some(p)));
        // White space may stand around the colon (COLON in section 25.1), nowhere else.
        let mut joined = String::new();
        for piece in sent_by.split_ascii_whitespace() {
            if !joined.is_empty() && !joined.ends_with(':') && !piece.starts_with(':') {
                return Err(WRONG);
            }
            joined.push_str(piece);
        }
        let sent_by = joined;
        if !is_token(transport) || host_port(&sent_by).is_none() {
            return Err(WRONG);
        }
        let params = params.map_or(Ok(Vec::new()), |p| parse_params(p, WRONG))?;
        Ok(Self { transport: transport.to_owned(), sent_by, params })
    }

    /// The branch, if it has one.
    pub fn branch(&self) -> Option<&str> {
        param(&self.params, "branch").and_then(|p| p.value.as_deref())
    }
}

impl std::fmt::Display for Via {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SIP/2.0/{} {}", self.transport, self.sent_by)?;
        write_params(f, &self.params)
    }
}

impl Address {
    /// One value, without commas outside quotes and brackets.
    pub fn parse(value: &str) -> Result<Self, Fault> {
        let value = value.trim();
        let (display, rest) = match value.strip_prefix('"') {
            Some(_) => {
                value.split_at_checked(quoted_length(value).ok_or("a quoted name is never closed")?).unwrap_or((value, ""))
            }
            None => {
                let end = value.find('<').unwrap_or(0);
                value.split_at_checked(end).unwrap_or(("", value))
            }
        };
        let (display, rest) = (display.trim(), rest.trim());
        let Some(inner) = rest.strip_prefix('<') else {
            if !display.is_empty() {
                return Err("a name is not followed by an address in brackets");
            }
            // RFC 3261 section 20: without brackets, what follows a semicolon belongs to the field, and commas and
            // question marks may not be there at all.
            let (uri, params) = rest.split_once(';').map_or((rest, None), |(u, p)| (u, Some(p)));
            let uri = uri.trim_end();
            if uri.contains([',', '?']) {
                return Err("an address with `,` or `?` needs brackets");
            }
            check_uri(uri)?;
            let params = params.map_or(Ok(Vec::new()), |p| parse_params(p, "a parameter of an address can't be read"))?;
            return Ok(Self { display: String::new(), uri: uri.to_owned(), params });
        };
        if !display.starts_with('"') && display.contains([',', ';', ':', '<', '>', '"', '\\', '@']) {
            return Err("a name with separators needs quotes");
        }
        let (uri, after) = inner.split_once('>').ok_or("the bracket of an address is not closed")?;
        check_uri(uri)?;
        let params = match after.trim().strip_prefix(';') {
            Some(params) => parse_params(params, "a parameter of an address can't be read")?,
            None if after.trim().is_empty() => Vec::new(),
            None => return Err("something follows the bracket of an address"),
        };
        Ok(Self { display: display.to_owned(), uri: uri.to_owned(), params })
    }

    /// The tag, if it has one.
    pub fn tag(&self) -> Option<&str> {
        param(&self.params, "tag").and_then(|p| p.value.as_deref()).filter(|t| !t.is_empty())
    }

    /// Would the stack read the display name wrongly? It looks for brackets inside quotes and strips escaped ones.
    fn display_is_plain(&self) -> bool {
        let inner = self.display.strip_prefix('"').and_then(|d| d.strip_suffix('"')).unwrap_or(&self.display);
        !inner.contains(['"', '\\', '<', '>', ','])
    }
}

impl std::fmt::Display for Address {
    /// With brackets always; a name that the stack can't read is left out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.display.is_empty() && self.display_is_plain() {
            write!(f, "{} ", self.display)?;
        }
        write!(f, "<{}>", self.uri)?;
        write_params(f, &self.params)
    }
}

fn write_params(f: &mut std::fmt::Formatter<'_>, params: &[Param]) -> std::fmt::Result {
    for p in params {
        match &p.value {
            Some(value) => write!(f, ";{}={value}", p.name)?,
            None => write!(f, ";{}", p.name)?,
        }
    }
    Ok(())
}

/// CSeq: the number (below 2³¹, section 8.1.1.5) and the method.
pub fn cseq(value: &str) -> Result<(u32, &str), Fault> {
    let (number, method) = value.split_once([' ', '\t']).ok_or("CSeq is not a number and a method")?;
    let method = method.trim_start();
    let number = digits(number).filter(|n| *n < 1 << 31).ok_or("CSeq's number is not below 2**31")?;
    if !is_token(method) {
        return Err("CSeq's method is no token");
    }
    Ok((u32::try_from(number).unwrap_or(0), method))
}

/// A decimal number without sign.
pub fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Call-ID: `word[@word]` (section 25.1).
pub fn is_call_id(value: &str) -> bool {
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| is_token_byte(b) || b"()<>:\\\"/[]?{}".contains(&b));
    value.split_once('@').map_or_else(|| word(value), |(a, b)| word(a) && word(b))
}

/// SIP's one form of date, always GMT (section 20.17): `Sat, 13 Nov 2010 23:29:00 GMT`.
pub fn is_date(value: &str) -> bool {
    let parts: Vec<&str> = value.split(' ').collect();
    let [weekday, day, month, year, clock, zone] = parts.as_slice() else { return false };
    let number = |t: &str, len: usize, below: u64| t.len() == len && digits(t).is_some_and(|n| n < below);
    let clock: Vec<&str> = clock.split(':').collect();
    ["Mon,", "Tue,", "Wed,", "Thu,", "Fri,", "Sat,", "Sun,"].contains(weekday)
        && number(day, 2, 32)
        && ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"].contains(month)
        && number(year, 4, 10_000)
        && matches!(clock.as_slice(), [h, m, s] if number(h, 2, 24) && number(m, 2, 60) && number(s, 2, 61))
        && *zone == "GMT"
}

/// The scheme of a URI, if it has one.
pub fn scheme(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    let shaped = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    (shaped && !rest.is_empty()).then_some(scheme)
}

/// Any URI by its outer form; `sip:` and `sips:` down to host and port.
pub fn check_uri(uri: &str) -> Result<(), Fault> {
    if uri.bytes().any(|b| b <= b' ' || b == 0x7F || b"<>\"".contains(&b)) {
        return Err("a URI holds white space, brackets or quotes");
    }
    let scheme = scheme(uri).ok_or("a URI has no scheme")?;
    if !is_sip(scheme) {
        return Ok(());
    }
    let (_user, rest) = user_and_rest(uri);
    let host = rest.split([';', '?']).next().unwrap_or(rest);
    host_port(host).map(drop).ok_or("the host of a SIP URI can't be read")
}

/// Does a SIP URI carry header fields (`?Route=…`)? In a Request-URI they are forbidden (section 19.1.1, table 1).
pub fn has_uri_headers(uri: &str) -> bool {
    scheme(uri).is_some_and(is_sip) && user_and_rest(uri).1.contains('?')
}

fn is_sip(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips")
}

/// What stands before the `@`, if anything, and what begins with the host. A user part may hold `;` and `?`.
fn user_and_rest(uri: &str) -> (Option<&str>, &str) {
    let rest = uri.split_once(':').map_or(uri, |(_, r)| r);
    rest.split_once('@').map_or((None, rest), |(user, host)| (Some(user), host))
}

/// `host[:port]`; an IPv6 address stands in brackets.
pub fn host_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => {
            let (address, after) = inner.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            let host = text.get(..address.len().saturating_add(2))?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => text.split_once(':').map_or((text, None), |(h, p)| (h, Some(p))),
    };
    let named = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !named && !host.starts_with('[') {
        return None;
    }
    match port {
        None => Some((host, None)),
        Some(port) => Some((host, Some(digits(port).and_then(|p| u16::try_from(p).ok())?))),
    }
}

/// `name[=value]` between semicolons; white space may stand around `;` and `=`.
pub fn parse_params(text: &str, wrong: Fault) -> Result<Vec<Param>, Fault> {
    let mut params = Vec::new();
    for part in split_outside_quotes(text, b';') {
        let (name, value) = part.split_once('=').map_or((part, None), |(n, v)| (n, Some(v.trim())));
        let name = name.trim();
        let value_fits = match value {
            None => true,
            Some(v) if v.starts_with('"') => quoted_length(v) == Some(v.len()),
            // Tokens, hosts (IPv6 in brackets) and what the field leaves in practice: URIs and base64 without quotes.
            Some(v) => !v.is_empty() && !v.bytes().any(|b| b <= b' ' || b == 0x7F || b"<>\"\\".contains(&b)),
        };
        if !is_token(name) || !value_fits {
            return Err(wrong);
        }
        params.push(Param { name: name.to_owned(), value: value.map(str::to_owned) });
    }
    Ok(params)
}

/// The length of the quoted string that the text begins with, quotes included; `None` if it is never closed.
pub fn quoted_length(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (i, b) in text.bytes().enumerate().skip(1) {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return i.checked_add(1),
            _ => {}
        }
    }
    None
}

/// Parts between `separator`s that stand outside quotes and brackets.
pub fn split_outside_quotes(text: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped, mut bracketed) = (Vec::new(), 0, false, false, false);
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' if !quoted => bracketed = true,
            b'>' if !quoted => bracketed = false,
            _ if b == separator && !quoted && !bracketed => {
                parts.extend(text.get(start..i));
                start = i.saturating_add(1);
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..));
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_via_is_read_through_its_white_space() {
        let via = Via::parse("SIP  /   2.0 /UDP 192.0.2.2 : 5060 ;  branch = z9hG4bKx ;rport; received=[::1]").unwrap();
        assert_eq!(via.to_string(), "SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKx;rport;received=[::1]");
        assert_eq!(via.branch(), Some("z9hG4bKx"));
        for bad in
            ["SIP/2.0/UDP 192.0.2.15;;", "SIP/2.0/UDP", "SIP/3.0/UDP h", "", "SIP/2.0/UDP ;branch=x", "SIP/2.0/U/DP h", "x"]
        {
            assert!(Via::parse(bad).is_err(), "{bad}");
        }
        assert!(Via::parse("SIP/2.0/TLS [2001:db8::9]:5061;branch=z9hG4bK1").is_ok());
    }

    #[test]
    fn addresses_are_read_in_all_forms_and_written_in_one() {
        let cases = [
            ("sip:a@b ;   tag    = 19n", "<sip:a@b>;tag=19n"),
            ("caller<sip:c@d>;tag=3", "caller <sip:c@d>;tag=3"),
            ("\"Ann \\\"A\\\"\" <sip:a@b>;x", "<sip:a@b>;x"),
            ("\"Ann, A\" <sip:a@b;p=q?h=1>", "<sip:a@b;p=q?h=1>"),
            ("<sip:user;par=u%40x@b>", "<sip:user;par=u%40x@b>"),
            ("Jürgen <sip:j@b>;tag=\"q\"", "Jürgen <sip:j@b>;tag=\"q\""),
            ("isbn:2983792873", "<isbn:2983792873>"),
        ];
        for (given, want) in cases {
            assert_eq!(Address::parse(given).unwrap().to_string(), want, "{given}");
        }
        for bad in [
            "\"never closed <sip:a@b>",
            "Bell, Alexander <sip:a@b>",
            "\"W\" < sip:a@b >",
            "sip:a@b?Route=%3Csip:x%3E",
            "<sip:a@b",
            "sip:a b@c",
            "name sip:a@b",
            "<sip:a@b>;;;",
            "<sip:a@>",
            "",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_dates_and_identifiers() {
        assert_eq!(cseq("0009  INVITE"), Ok((9, "INVITE")));
        for bad in ["36893488147419103232 REGISTER", "2147483648 ACK", "-1 ACK", "1", "one ACK", "1 A CK"] {
            assert!(cseq(bad).is_err(), "{bad}");
        }
        assert!(is_date("Fri, 01 Jan 2010 16:00:00 GMT") && !is_date("Fri, 01 Jan 2010 16:00:00 EST") && !is_date(""));
        assert!(is_call_id("word%ZK-!.*_+'@word`~)(><:\\/\"][?}{") && !is_call_id("a b") && !is_call_id("a@") && !is_call_id(""));
        assert!(has_uri_headers("sip:u@h?Route=x") && !has_uri_headers("sip:u?x@h"));
        assert_eq!(scheme("soap.beep://x"), Some("soap.beep"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(text in "[ -~\u{e9}]{0,60}") {
            if let Ok(via) = Via::parse(&text) {
                prop_assert_eq!(Via::parse(&via.to_string()), Ok(via));
            }
            if let Ok(address) = Address::parse(&text) {
                let again = Address::parse(&address.to_string()).unwrap();
                prop_assert_eq!((again.uri, again.params), (address.uri, address.params));
            }
            let _never_panics = (cseq(&text), is_date(&text), check_uri(&text), host_port(&text), is_call_id(&text));
        }

        #[test]
        fn addresses_made_of_their_own_signs_are_survived(text in "[\"<>;:=@,?\\\\ a]{0,40}") {
            let _never_panics = (Via::parse(&text), Address::parse(&text), parse_params(&text, "x"));
        }
    }
}
