//! What a server of certificates answers: HTTP/1.1 (RFC 9112), as little of it as a GET without redirects needs. Pure: bytes in,
//! a body out.

use std::time::Duration;

/// Status line and header fields.
pub const HEAD_LIMIT_BYTES: usize = 8 * 1_024;
/// What chunks may cost beside their content.
pub const CHUNK_OVERHEAD_LIMIT_BYTES: usize = 4 * 1_024;

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The body.
    pub body: Vec<u8>,
    /// How long it may be kept, where that is said: `no-store` and `no-cache` say not at all.
    pub max_age: Option<Duration>,
}

/// Why an answer is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Not 200. A redirect could lead anywhere, so that none is followed.
    #[error("the certificate's server answered {0}")]
    Status(u16),
    /// No HTTP, or something of it that nobody needs to send.
    #[error("the certificate's server does not answer in HTTP/1.1")]
    Malformed,
    /// More than allowed.
    #[error("the certificate's server sends too much")]
    TooLong,
    /// It ended early.
    #[error("the certificate's server did not send all")]
    CutOff,
}

/// Reads an answer as far as it has come; `None`: more is needed. `ended`: nothing more will come. `limit_bytes`: of the body.
pub fn read(bytes: &[u8], ended: bool, limit_bytes: usize) -> Result<Option<Answer>, HttpError> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return match (bytes.len() > HEAD_LIMIT_BYTES, ended) {
            (true, _) => Err(HttpError::TooLong),
            (false, true) => Err(HttpError::CutOff),
            (false, false) => Ok(None),
        };
    };
    if end > HEAD_LIMIT_BYTES {
        return Err(HttpError::TooLong);
    }
    let (head, rest) = bytes.split_at_checked(end.saturating_add(4)).ok_or(HttpError::Malformed)?;
    let head = Head::parse(head)?;
    if head.status != 200 {
        return Err(HttpError::Status(head.status));
    }
    let body = match head.framing {
        Framing::Length(length) if length > limit_bytes => return Err(HttpError::TooLong),
        Framing::Length(length) => rest.get(..length).map(<[u8]>::to_vec),
        Framing::Chunks => chunks(rest, limit_bytes)?,
        Framing::UntilEnd if rest.len() > limit_bytes => return Err(HttpError::TooLong),
        Framing::UntilEnd => ended.then(|| rest.to_vec()),
    };
    match body {
        Some(body) => Ok(Some(Answer { body, max_age: head.max_age })),
        None if ended => Err(HttpError::CutOff),
        None => Ok(None),
    }
}

enum Framing {
    Length(usize),
    Chunks,
    UntilEnd,
}

struct Head {
    status: u16,
    framing: Framing,
    max_age: Option<Duration>,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self, HttpError> {
        let text = std::str::from_utf8(bytes).map_err(|_| HttpError::Malformed)?;
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 ")))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or(HttpError::Malformed)?;
        let (mut length, mut chunked, mut max_age) = (None, false, None);
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or(HttpError::Malformed)?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                    let one =
                        if digits { value.parse().map_err(|_| HttpError::TooLong)? } else { return Err(HttpError::Malformed) };
                    // Two lengths that differ are how one answer is passed off as two (RFC 9112 section 6.3).
                    if length.replace(one).is_some_and(|earlier: usize| earlier != one) {
                        return Err(HttpError::Malformed);
                    }
                }
                "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => chunked = true,
                "transfer-encoding" => return Err(HttpError::Malformed),
                // None was asked for.
                "content-encoding" if !value.eq_ignore_ascii_case("identity") => return Err(HttpError::Malformed),
                "cache-control" => max_age = max_age_of(value).or(max_age),
                _ => {}
            }
        }
        let framing = match (chunked, length) {
            (true, None) => Framing::Chunks,
            (true, Some(_)) => return Err(HttpError::Malformed),
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::UntilEnd,
        };
        Ok(Self { status, framing, max_age })
    }
}

fn max_age_of(value: &str) -> Option<Duration> {
    let mut found = None;
    for directive in value.split(',').map(str::trim) {
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        if let Some((name, seconds)) = directive.split_once('=')
            && name.eq_ignore_ascii_case("max-age")
        {
            found = seconds.trim_matches('"').parse().ok().map(Duration::from_secs);
        }
    }
    found
}

/// The content of chunks (RFC 9112 section 7.1); `None`: the last one has not come. What follows it is of no interest.
fn chunks(bytes: &[u8], limit_bytes: usize) -> Result<Option<Vec<u8>>, HttpError> {
    if bytes.len() > limit_bytes.saturating_add(CHUNK_OVERHEAD_LIMIT_BYTES) {
        return Err(HttpError::TooLong);
    }
    let (mut body, mut rest) = (Vec::new(), bytes);
    loop {
        let Some(end) = rest.windows(2).position(|w| w == b"\r\n") else { return Ok(None) };
        let line = rest.get(..end).and_then(|line| std::str::from_utf8(line).ok()).ok_or(HttpError::Malformed)?;
        let size = line.split(';').next().unwrap_or(line).trim();
        let sound = (1..=8).contains(&size.len()) && size.bytes().all(|b| b.is_ascii_hexdigit());
        let size = if sound {
            usize::from_str_radix(size, 16).map_err(|_| HttpError::TooLong)?
        } else {
            return Err(HttpError::Malformed);
        };
        if size == 0 {
            return Ok(Some(body));
        }
        if body.len().saturating_add(size) > limit_bytes {
            return Err(HttpError::TooLong);
        }
        let after = rest.get(end.saturating_add(2)..).unwrap_or(&[]);
        let Some((content, next)) = after.split_at_checked(size) else { return Ok(None) };
        body.extend_from_slice(content);
        rest = match next {
            [b'\r', b'\n', next @ ..] => next,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(HttpError::Malformed),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Result<Option<Answer>, HttpError> {
        read(text.as_bytes(), true, 100)
    }

    #[test]
    fn bodies_come_by_length_in_chunks_and_until_the_end() {
        let by_length =
            all("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nCache-Control: public, max-age=60\r\n\r\nabc").unwrap().unwrap();
        assert_eq!((by_length.body.as_slice(), by_length.max_age), (b"abc".as_slice(), Some(Duration::from_secs(60))));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\n";
        assert_eq!(all(chunked).unwrap().unwrap().body, b"abc0123456789");
        assert_eq!(all("HTTP/1.0 200 OK\r\n\r\nabc").unwrap().unwrap().body, b"abc");
        let kept = |control: &str| all(&format!("HTTP/1.1 200 OK\r\nCache-Control: {control}\r\n\r\n")).unwrap().unwrap().max_age;
        assert_eq!(
            (kept("no-store, max-age=9"), kept("private"), kept("MAX-AGE=\"5\"")),
            (Some(Duration::ZERO), None, Some(Duration::from_secs(5)))
        );
    }

    #[test]
    fn an_answer_is_waited_for_until_it_is_whole() {
        for whole in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        ] {
            for cut in 0..whole.len() {
                let part = &whole.as_bytes()[..cut];
                assert_eq!(read(part, false, 100), Ok(None), "{cut}");
                assert_eq!(read(part, true, 100), Err(HttpError::CutOff), "{cut}");
            }
            assert_eq!(read(whole.as_bytes(), false, 100).unwrap().unwrap().body, b"abc");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(9_000));
        for (text, error) in [
            ("HTTP/1.1 301 Moved\r\nLocation: https://elsewhere/\r\n\r\n", HttpError::Status(301)),
            ("HTTP/1.1 404 Not Found\r\n\r\n", HttpError::Status(404)),
            ("HTTP/2 200\r\n\r\n", HttpError::Malformed),
            ("SSH-2.0\r\n\r\n", HttpError::Malformed),
            ("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n", HttpError::TooLong),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", HttpError::Malformed),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", HttpError::Malformed),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", HttpError::Malformed),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n", HttpError::Malformed),
            ("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nx", HttpError::Malformed),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", HttpError::TooLong),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n", HttpError::Malformed),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n", HttpError::Malformed),
            ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", HttpError::Malformed),
            (&long, HttpError::TooLong),
        ] {
            assert_eq!(all(text), Err(error), "{text:.60}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(101));
        assert_eq!(all(&endless), Err(HttpError::TooLong));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), body in "[0-9a-f;\r\n]{0,60}", ended in any::<bool>()) {
            let _answer = (read(&bytes, ended, 50), read(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}").as_bytes(), ended, 50));
        }
    }
}
