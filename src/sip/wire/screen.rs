//! PURE. What is done with a message before the stack sees it: passed on in the one form that the stack reads safely,
//! answered here, or dropped. RFC 4475's torture messages are its measure (docs/rfc4475.md).

use std::borrow::Cow;

use super::grammar::{self, Address, Fault, MAGIC_COOKIE, Via};
use super::secret::WireSecret;
use super::text::{self, Field, Text, is_token};
use crate::sip::signalling::ALLOWED_METHODS;

/// A body longer than this is 413: a session description is some hundred bytes.
pub const BODY_LIMIT_BYTES: usize = 32 * 1024;
/// The longest word that may begin a message; what goes on beyond it is no method of anybody's.
const METHOD_LIMIT_BYTES: usize = 64;
/// Fields that stand once at most (RFC 3261 section 7.3.1 allows several only where the value is a list).
const ONCE: [&str; 9] =
    ["From", "To", "Call-ID", "CSeq", "Max-Forwards", "Content-Length", "Content-Type", "Session-Expires", "Min-SE"];

/// How the message's end was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A datagram is a message; without Content-Length its body is all that follows (RFC 3261 section 20.14).
    Datagram,
    /// Content-Length said it.
    Stream,
}

/// A message looked at.
#[derive(Debug)]
pub struct Screened<'a> {
    /// Its parts, for an answer.
    pub text: Text<'a>,
    /// What to do with it.
    pub verdict: Verdict,
}

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// For the stack.
    Pass(Passed),
    /// Answered without state.
    Answer(Answer),
    /// No answer can or may be given; why.
    Drop(&'static str),
}

/// A message for the stack.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed {
    /// The whole message, rewritten.
    pub bytes: Vec<u8>,
    /// What it would begin; an in-dialog request, ACK, CANCEL or response begins nothing.
    pub opens: Option<Opening>,
    /// It carries a tag that its sender doesn't know of (RFC 2543).
    pub has_old_tag: bool,
}

/// A request outside a dialog, known by what RFC 3261 section 8.2.2.2 compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Call-ID, From tag and CSeq.
    pub request: String,
    /// The transaction: the top Via's branch and sent-by.
    pub transaction: String,
}

/// A final answer without state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 400 to 599.
    pub status: u16,
    /// Its phrase.
    pub phrase: &'static str,
    /// Field to add.
    pub field: Option<(&'static str, Cow<'static, str>)>,
}

impl Answer {
    /// With its phrase and nothing else.
    pub fn new(status: u16, phrase: &'static str) -> Self {
        Self { status, phrase, field: None }
    }

    /// With a field.
    #[must_use]
    pub fn with(self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some((name, value.into())), ..self }
    }

    /// 400 with what is wrong.
    pub fn bad(why: Fault) -> Self {
        Self::new(400, "Bad Request").with("Warning", format!("399 voicepay \"{why}\""))
    }
}

/// Screens a message. `secret` makes the tag of a caller of RFC 2543, who has none.
pub fn screen<'a>(message: &'a [u8], framing: Framing, secret: &WireSecret) -> Screened<'a> {
    if !begins_like_sip(message) {
        // A flood of nonsense costs us a glance at each.
        let text = Text { start: &[], fields: Vec::new(), body: &[], fault: None };
        return Screened { text, verdict: Verdict::Drop("not SIP") };
    }
    let text = text::split(message);
    let verdict = judge(&text, framing, secret);
    Screened { text, verdict }
}

/// A token and a space, or `SIP/`.
fn begins_like_sip(message: &[u8]) -> bool {
    let Some(end) = message.iter().take(METHOD_LIMIT_BYTES).position(|b| !text::is_token_byte(*b)) else { return false };
    end > 0 && matches!(message.get(end), Some(b' ' | b'\t' | b'/'))
}

fn judge(text: &Text<'_>, framing: Framing, secret: &WireSecret) -> Verdict {
    let start = String::from_utf8_lossy(text.start);
    if start.starts_with("SIP/") {
        return match response(&start, text, framing) {
            Ok(bytes) => Verdict::Pass(Passed { bytes, opens: None, has_old_tag: false }),
            // RFC 3261 section 18.1.2: a response that can't be read is discarded.
            Err(why) => Verdict::Drop(why),
        };
    }
    let version = start.trim_end().rsplit([' ', '\t']).next().unwrap_or("");
    let Some(number) = version.get(..4).filter(|v| v.eq_ignore_ascii_case("SIP/")).and_then(|_| version.get(4..)) else {
        return Verdict::Drop("not SIP");
    };
    let method = start.split([' ', '\t']).next().unwrap_or("");
    let verdict =
        if number != "2.0" { Err(Answer::new(505, "Version Not Supported")) } else { request(&start, text, framing, secret) };
    match verdict {
        Ok(passed) => Verdict::Pass(passed),
        // Nothing may answer an ACK (RFC 3261 section 17.1.1.3).
        Err(_) if method == "ACK" => Verdict::Drop("an ACK that can't be used"),
        Err(answer) => Verdict::Answer(answer),
    }
}

fn request(start: &str, text: &Text<'_>, framing: Framing, secret: &WireSecret) -> Result<Passed, Answer> {
    let bad = Answer::bad;
    let words: Vec<&str> = start.split(' ').collect();
    let [method, uri, _version] = words.as_slice() else {
        return Err(bad("the Request-Line is not a method, a URI and SIP/2.0 with one space between"));
    };
    if !is_token(method) || uri.contains('\t') {
        return Err(bad("the Request-Line can't be read"));
    }
    if let Some(fault) = text.fault {
        return Err(bad(fault));
    }
    let read = common(text).map_err(bad)?;
    if read.method != *method {
        return Err(bad("CSeq's method is not the request's"));
    }
    let old = !read.via.branch().is_some_and(|b| b.starts_with(MAGIC_COOKIE));
    if read.via.branch() == Some(MAGIC_COOKIE) {
        return Err(bad("the branch of the topmost Via is empty"));
    }
    if !old && read.from.tag().is_none() {
        return Err(bad("From has no tag"));
    }
    let scheme = grammar::scheme(uri).ok_or_else(|| bad("the Request-URI has no scheme"))?;
    grammar::check_uri(uri).map_err(bad)?;
    if grammar::has_uri_headers(uri) {
        return Err(bad("the Request-URI carries header fields"));
    }
    contacts(text, method).map_err(bad)?;
    // Methods are case-sensitive (RFC 3261 section 7.1), which rsipstack's parser forgives.
    if !ALLOWED_METHODS.split(", ").any(|m| m == *method) {
        return Err(Answer::new(405, "Method Not Allowed").with("Allow", ALLOWED_METHODS));
    }
    if !["sip", "sips", "tel"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(Answer::new(416, "Unsupported URI Scheme"));
    }
    let body = body(text, framing).map_err(bad)?;
    if body.len() > BODY_LIMIT_BYTES {
        return Err(Answer::new(413, "Request Entity Too Large"));
    }
    let mut from = read.from.clone();
    let mut contact = None;
    if old {
        // A caller of RFC 2543 may have neither tag nor Contact (its sections 6.21 and 6.13); the stack needs both. The tag
        // is taken out again of whatever leaves (`secret::WireSecret::without_old_tags`).
        if from.tag().is_none() {
            from.params.retain(|p| !p.name.eq_ignore_ascii_case("tag"));
            let tag = secret.old_tag(&read.call_id);
            from.params.push(grammar::Param { name: "tag".to_owned(), value: Some(tag) });
        }
        contact = (*method == "INVITE" && text.count("Contact") == 0).then(|| format!("<{}>", from.uri));
    }
    let opens = (read.to.tag().is_none() && !matches!(*method, "ACK" | "CANCEL")).then(|| Opening {
        request: format!("{}\n{}\n{} {method}", read.call_id, from.tag().unwrap_or(""), read.cseq),
        transaction: format!("{}\n{}", read.via.branch().unwrap_or(""), read.via.sent_by),
    });
    let canonical = Canonical { start: &format!("{method} {uri} SIP/2.0"), from: &from, contact: contact.as_deref() };
    Ok(Passed { bytes: canonical.write(text, &read, body), has_old_tag: old && read.from.tag().is_none(), opens })
}

fn response(start: &str, text: &Text<'_>, framing: Framing) -> Result<Vec<u8>, &'static str> {
    if let Some(fault) = text.fault {
        return Err(fault);
    }
    let mut words = start.splitn(3, ' ');
    let (version, status, phrase) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or(""));
    if version != "SIP/2.0" || status.len() != 3 || !grammar::digits(status).is_some_and(|n| (100..700).contains(&n)) {
        return Err("the Status-Line can't be read");
    }
    let read = common(text)?;
    // RFC 3261 section 8.1.3.3: a second Via says that it is not for us.
    if read.vias > 1 {
        return Err("a response with more than one Via");
    }
    let body = body(text, framing)?;
    let canonical = Canonical { start: &format!("SIP/2.0 {status} {}", phrase.trim()), from: &read.from, contact: None };
    Ok(canonical.write(text, &read, body))
}

/// What every message needs (RFC 3261 sections 8.1.1 and 8.2.6).
struct Common {
    via: Via,
    /// All values of the Via fields after the first.
    further_vias: Vec<String>,
    vias: usize,
    from: Address,
    to: Address,
    call_id: String,
    cseq: u32,
    method: String,
}

fn common(text: &Text<'_>) -> Result<Common, Fault> {
    if ONCE.iter().any(|name| text.count(name) > 1) {
        return Err("a field that may stand once stands twice");
    }
    let mut vias = text.fields.iter().filter(|f| f.is("Via")).flat_map(|f| grammar::split_outside_quotes(&f.value, b','));
    let via = Via::parse(vias.next().ok_or("Via is missing")?.trim())?;
    let mut further_vias = Vec::new();
    for value in vias {
        // Only the topmost is ours to read; the others go back as they came.
        further_vias.push(Via::parse(value.trim())?.to_string());
    }
    let from = Address::parse(text.get("From").ok_or("From is missing")?)?;
    let to = Address::parse(text.get("To").ok_or("To is missing")?)?;
    let call_id = text.get("Call-ID").ok_or("Call-ID is missing")?;
    if !grammar::is_call_id(call_id) {
        return Err("Call-ID can't be read");
    }
    let (cseq, method) = grammar::cseq(text.get("CSeq").ok_or("CSeq is missing")?)?;
    if text.get("Max-Forwards").is_some_and(|v| grammar::digits(v).is_none_or(|n| n > 255)) {
        return Err("Max-Forwards is not a number up to 255");
    }
    if [text.get("From"), text.get("To"), text.get("Via")].iter().flatten().any(|v| v.contains('\u{fffd}')) {
        return Err("a field that is needed is not UTF-8");
    }
    Ok(Common {
        via,
        vias: further_vias.len().saturating_add(1),
        further_vias,
        from,
        to,
        call_id: call_id.to_owned(),
        cseq,
        method: method.to_owned(),
    })
}

fn contacts(text: &Text<'_>, method: &str) -> Result<(), Fault> {
    for value in text.fields.iter().filter(|f| f.is("Contact")).flat_map(|f| grammar::split_outside_quotes(&f.value, b',')) {
        if value.trim() != "*" || method != "REGISTER" {
            Address::parse(value)?;
        }
    }
    Ok(())
}

/// The body that is the message's: what is announced, or all of a datagram. Bytes behind it are no part of the message
/// (RFC 3261 section 18.3).
fn body<'a>(text: &Text<'a>, framing: Framing) -> Result<&'a [u8], Fault> {
    match (text.get("Content-Length"), framing) {
        (None, Framing::Datagram) => Ok(text.body),
        (None, Framing::Stream) => Err("Content-Length is missing"),
        (Some(length), _) => {
            let length = grammar::digits(length).and_then(|n| usize::try_from(n).ok()).ok_or("Content-Length is no number")?;
            text.body.get(..length).ok_or("the body is shorter than Content-Length says")
        }
    }
}

/// The one form in which the stack gets a message.
struct Canonical<'a> {
    start: &'a str,
    from: &'a Address,
    /// To add.
    contact: Option<&'a str>,
}

impl Canonical<'_> {
    fn write(&self, text: &Text<'_>, read: &Common, body: &[u8]) -> Vec<u8> {
        let mut out = String::with_capacity(1024);
        let mut line = |name: &str, value: &str| {
            out.push_str(name);
            out.push_str(": ");
            out.push_str(value);
            out.push_str("\r\n");
        };
        // Vias first and together, a line each: the stack looks at the first line and at the first value of it.
        line("Via", &read.via.to_string());
        for via in &read.further_vias {
            line("Via", via);
        }
        line("From", &self.from.to_string());
        line("To", &read.to.to_string());
        line("Call-ID", &read.call_id);
        line("CSeq", &format!("{} {}", read.cseq, read.method));
        if let Some(contact) = self.contact {
            line("Contact", contact);
        }
        for Field { name, value } in &text.fields {
            match name.as_ref() {
                "Via" | "From" | "To" | "Call-ID" | "CSeq" | "Content-Length" => {}
                "Contact" => {
                    for value in grammar::split_outside_quotes(value, b',') {
                        match Address::parse(value) {
                            Ok(address) => line("Contact", &address.to_string()),
                            Err(_) => line("Contact", value.trim()),
                        }
                    }
                }
                "Max-Forwards" => line(name, &grammar::digits(value).unwrap_or(0).to_string()),
                // RFC 4475 section 3.1.2.12: a date that isn't one is ignored, not believed.
                "Date" if !grammar::is_date(value) => {}
                _ => line(name, value),
            }
        }
        let mut bytes = Vec::with_capacity(self.start.len() + out.len() + body.len() + 32);
        bytes.extend_from_slice(self.start.as_bytes());
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(out.as_bytes());
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body);
        bytes
    }
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
