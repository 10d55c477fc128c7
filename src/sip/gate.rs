//! The socket below the stack: datagrams that rsipstack would drop without a word (unknown methods, broken grammar) are
//! answered here where an answer can be addressed, and everything else is passed on or dropped.
//!
//! rsipstack 0.7.14's UDP loop discards what its parser refuses; RFC 3261 wants 400, 405 or 505.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use rsipstack::sip::SipMessage;
use rsipstack::sip::prelude::{HeadersExt, ToTypedHeader};
use tokio::net::UdpSocket;

use super::signalling::ALLOWED_METHODS;

/// Pause after a receive error, so that a broken socket doesn't spin.
const RECEIVE_ERROR_PAUSE_MS: u64 = 20;
/// Header bytes that are searched when we answer without the stack.
const ANSWERABLE_LIMIT_BYTES: usize = 8 * 1024;

/// A UDP socket that screens what comes in.
#[derive(Debug)]
pub struct Gate {
    socket: UdpSocket,
}

impl Gate {
    /// Over a bound socket.
    pub fn new(socket: UdpSocket) -> Self {
        Self { socket }
    }
}

#[async_trait]
impl rsipstack::platform::net::UdpSocket for Gate {
    async fn recv_from(&self, buf: &mut [u8]) -> rsipstack::Result<(usize, SocketAddr)> {
        loop {
            let (len, from) = match self.socket.recv_from(buf).await {
                Ok(got) => got,
                Err(error) => {
                    // rsipstack would try again at once, for ever.
                    tracing::debug!(%error, "receiving SIP failed");
                    tokio::time::sleep(Duration::from_millis(RECEIVE_ERROR_PAUSE_MS)).await;
                    continue;
                }
            };
            let len = announce_body(buf, len);
            match judge(buf.get(..len).unwrap_or(&[])) {
                Verdict::Pass => return Ok((len, from)),
                Verdict::Drop => {}
                Verdict::Answer(status, phrase) => {
                    if let Some(response) = stateless_response(buf.get(..len).unwrap_or(&[]), from, status, phrase) {
                        let _best_effort = self.socket.send_to(response.as_bytes(), from).await;
                    }
                }
            }
        }
    }

    async fn send_to(&self, buf: &[u8], addr: SocketAddr) -> rsipstack::Result<usize> {
        Ok(self.socket.send_to(buf, addr).await?)
    }

    fn local_addr(&self) -> rsipstack::Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }
}

/// What to do with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Drop,
    Answer(u16, &'static str),
}

const BAD_REQUEST: Verdict = Verdict::Answer(400, "Bad Request");

fn judge(datagram: &[u8]) -> Verdict {
    if datagram.iter().all(u8::is_ascii_whitespace) {
        return Verdict::Pass; // keep-alives are the stack's
    }
    let first = String::from_utf8_lossy(datagram.split(|b| *b == b'\n').next().unwrap_or(&[])).trim_end().to_owned();
    if first.starts_with("SIP/") {
        // Never answer a response.
        return if SipMessage::try_from(datagram).is_ok() { Verdict::Pass } else { Verdict::Drop };
    }
    let mut words = first.split([' ', '\t']).filter(|w| !w.is_empty());
    let (Some(method), Some(version)) = (words.next(), first.rsplit([' ', '\t']).next()) else { return Verdict::Drop };
    if !version.starts_with("SIP/") || !method.bytes().all(is_token) {
        return Verdict::Drop; // not SIP at all
    }
    if method == "ACK" {
        // Nothing may answer an ACK (RFC 3261 section 17.1.1.3).
        return if whole(datagram) { Verdict::Pass } else { Verdict::Drop };
    }
    if version != "SIP/2.0" {
        return Verdict::Answer(505, "Version Not Supported");
    }
    // Methods are case-sensitive (RFC 3261 section 7.1), which rsipstack's parser forgives. INFO must not reach it in any
    // case: it may carry keyed digits, and rsipstack writes whole messages to its log.
    if !ALLOWED_METHODS.split(", ").any(|m| m == method) {
        return Verdict::Answer(405, "Method Not Allowed");
    }
    if whole(datagram) { Verdict::Pass } else { BAD_REQUEST }
}

/// Would the stack take it: does it parse, with the headers that a transaction needs (RFC 3261 section 8.1.1)?
fn whole(datagram: &[u8]) -> bool {
    let Ok(SipMessage::Request(request)) = SipMessage::try_from(datagram) else { return false };
    let announced = request.headers.iter().find(|h| h.name() == "Content-Length").map(|h| h.value().trim().parse::<usize>());
    // Over UDP a body shorter than announced was cut off on the way (RFC 3261 section 18.3).
    let body_whole = match announced {
        None => true,
        Some(Ok(length)) => length == request.body.len(),
        Some(Err(_)) => false,
    };
    let cseq_fits = request.cseq_header().is_ok_and(|c| c.seq().is_ok() && c.method().is_ok_and(|m| m == request.method));
    body_whole
        && cseq_fits
        && request.top_via_header().and_then(|v| v.typed()).is_ok()
        && request.from_header().is_ok_and(|f| matches!(f.tag(), Ok(Some(_))))
        && request.to_header().is_ok_and(|t| t.tag().is_ok())
        && request.call_id_header().is_ok()
}

/// Over UDP a message without Content-Length has all that follows as its body (RFC 3261 section 20.14); rsipstack would
/// drop that body, so the header is put in. Gives the new length.
fn announce_body(buf: &mut [u8], len: usize) -> usize {
    let Some(datagram) = buf.get(..len) else { return len };
    let Some(head) = datagram.windows(4).position(|w| w == b"\r\n\r\n") else { return len };
    let body_len = len.saturating_sub(head + 4);
    let announced = datagram.get(..head).unwrap_or(&[]).split(|b| *b == b'\n').any(|line| {
        let name = line.split(|b| *b == b':').next().unwrap_or(&[]).trim_ascii().to_ascii_lowercase();
        name == b"content-length" || name == b"l"
    });
    if announced || body_len == 0 {
        return len;
    }
    let line = format!("\r\nContent-Length: {body_len}");
    let longer = len + line.len();
    if longer > buf.len() {
        return len;
    }
    buf.copy_within(head..len, head + line.len());
    if let Some(place) = buf.get_mut(head..head + line.len()) {
        place.copy_from_slice(line.as_bytes());
    }
    longer
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b)
}

/// A response made of the request's own Via, From, To, Call-ID and CSeq lines; `None` where one of them is missing.
fn stateless_response(datagram: &[u8], from: SocketAddr, status: u16, phrase: &str) -> Option<String> {
    let text = String::from_utf8_lossy(datagram.get(..ANSWERABLE_LIMIT_BYTES.min(datagram.len()))?);
    let head = text.split("\r\n\r\n").next()?;
    let mut copied: Vec<(&'static str, String)> = Vec::new();
    let mut lines = head.split("\r\n").skip(1).peekable();
    while let Some(line) = lines.next() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let full = match name.trim().to_ascii_lowercase().as_str() {
            "via" | "v" => "Via",
            "from" | "f" => "From",
            "to" | "t" => "To",
            "call-id" | "i" => "Call-ID",
            "cseq" => "CSeq",
            _ => continue,
        };
        let mut value = value.trim().to_owned();
        while let Some(folded) = lines.next_if(|l| l.starts_with([' ', '\t'])) {
            value.push(' ');
            value.push_str(folded.trim());
        }
        if value.is_empty() || value.contains(['\r', '\n']) || (full != "Via" && copied.iter().any(|(n, _)| *n == full)) {
            return None;
        }
        copied.push((full, value));
    }
    for needed in ["Via", "From", "To", "Call-ID", "CSeq"] {
        copied.iter().find(|(n, _)| *n == needed)?;
    }
    let mut response = format!("SIP/2.0 {status} {phrase}\r\n");
    let mut first_via = true;
    for (name, mut value) in copied {
        if name == "Via" && std::mem::take(&mut first_via) {
            // RFC 3581 section 4, without disturbing the rest of the line.
            let top = value.split(',').next().unwrap_or("").to_owned();
            if !top.to_ascii_lowercase().contains(";received=") {
                let marked = top.replacen(";rport", &format!(";rport={}", from.port()), usize::from(!top.contains(";rport=")));
                value = value.replacen(&top, &format!("{marked};received={}", from.ip()), 1);
            }
        }
        if name == "To" && !value.contains(";tag=") {
            // The same for a retransmission: nothing is kept about this request.
            value.push_str(";tag=stateless");
        }
        response.push_str(&format!("{name}: {value}\r\n"));
    }
    if status == 405 {
        response.push_str(&format!("Allow: {ALLOWED_METHODS}\r\n"));
    }
    response.push_str("Content-Length: 0\r\n\r\n");
    Some(response)
}

/// Binds the socket that a gate guards.
pub async fn bind(address: SocketAddr) -> io::Result<Gate> {
    UdpSocket::bind(address).await.map(Gate::new)
}
