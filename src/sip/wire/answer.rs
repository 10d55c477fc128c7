//! PURE. Stateless answers (RFC 3261 section 8.2.7), made of the request's own fields; nothing is kept about it.

use std::net::SocketAddr;

use super::screen::Answer;
use super::secret::WireSecret;
use super::text::Text;

/// A response to the message that `text` is. `None` where it can't be addressed: no Via.
pub fn response(text: &Text<'_>, peer: SocketAddr, secret: &WireSecret, answer: &Answer) -> Option<Vec<u8>> {
    let via = text.get("Via").filter(|v| !v.is_empty())?;
    let mut out = format!("SIP/2.0 {} {}\r\n", answer.status, answer.phrase);
    let mut line = |name: &str, value: &str| {
        out.push_str(name);
        out.push_str(": ");
        out.push_str(value);
        out.push_str("\r\n");
    };
    line("Via", &marked(via, peer));
    for further in text.fields.iter().filter(|f| f.is("Via")).skip(1) {
        line("Via", &further.value);
    }
    // What is missing in the request stays missing: its answer says so (RFC 4475 section 3.3.1).
    let of = |name: &str| text.get(name).unwrap_or("");
    let (from, to, call_id, cseq) = (of("From"), of("To"), of("Call-ID"), of("CSeq"));
    if !from.is_empty() {
        line("From", from);
    }
    if !to.is_empty() {
        if to.to_ascii_lowercase().split(';').skip(1).any(|p| p.trim_start().starts_with("tag")) {
            line("To", to);
        } else {
            line("To", &format!("{to};tag={}", secret.answer_tag(via, from, call_id, cseq)));
        }
    }
    if !call_id.is_empty() {
        line("Call-ID", call_id);
    }
    if !cseq.is_empty() {
        line("CSeq", cseq);
    }
    if let Some((name, value)) = &answer.field {
        line(name, value);
    }
    line("Content-Length", "0");
    out.push_str("\r\n");
    Some(out.into_bytes())
}

/// The first Via value with `received` and `rport` (RFC 3261 section 18.2.1, RFC 3581 section 4), the rest of the line as it
/// was: it may be the very thing that can't be read.
fn marked(via: &str, peer: SocketAddr) -> String {
    let (top, rest) = via.split_at_checked(via.find(',').unwrap_or(via.len())).unwrap_or((via, ""));
    let mut kept = String::with_capacity(via.len().saturating_add(64));
    let mut asked = false;
    for (i, part) in top.split(';').enumerate() {
        let name = part.split('=').next().unwrap_or("").trim();
        if i > 0 && (name.eq_ignore_ascii_case("received") || name.eq_ignore_ascii_case("rport")) {
            asked |= name.eq_ignore_ascii_case("rport");
            continue; // the sender's own word for it doesn't count
        }
        if i > 0 {
            kept.push(';');
        }
        kept.push_str(part);
    }
    let port = if asked { format!(";rport={}", peer.port()) } else { String::new() };
    format!("{};received={}{port}{rest}", kept.trim_end(), peer.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;
    use crate::sip::wire::text;

    #[test]
    fn an_answer_goes_back_to_where_the_request_came_from() {
        let secret = WireSecret::new(&SeededEntropy::new(3));
        let asked = b"NOVEL sip:a@b SIP/2.0\r\nv: SIP/2.0/UDP h;rport;branch=z9hG4bK1, SIP/2.0/UDP g\r\nVia: SIP/2.0/TCP k\r\nf: sip:a@b;tag=1\r\nt: sip:c@d\r\ni: 9\r\nCSeq: 4 NOVEL\r\n\r\n";
        let text = text::split(asked);
        let make = || response(&text, "192.0.2.7:5071".parse().unwrap(), &secret, &Answer::bad("x")).unwrap();
        let answer = String::from_utf8(make()).unwrap();
        assert!(
            answer.contains("Via: SIP/2.0/UDP h;branch=z9hG4bK1;received=192.0.2.7;rport=5071, SIP/2.0/UDP g\r\n"),
            "{answer}"
        );
        assert!(answer.contains("To: sip:c@d;tag=") && answer.contains("Warning: 399 voicepay \"x\"\r\n"), "{answer}");
        assert_eq!(make(), answer.as_bytes(), "a retransmission gets the same answer");
        let nowhere = text::split(b"NOVEL sip:a@b SIP/2.0\r\nTo: sip:c@d\r\n\r\n");
        assert_eq!(response(&nowhere, "192.0.2.7:1".parse().unwrap(), &secret, &Answer::bad("x")), None);
    }
}
