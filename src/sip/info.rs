//! PURE: keys in INFO bodies: `application/dtmf-relay` (Cisco, Asterisk) and `application/dtmf`. What is pressed may be a
//! card number: nothing here prints a body.

use super::headers::Headers;
use crate::media::leg::Key;

/// Keys in one INFO; more is no key press.
const INFO_LIMIT_KEYS: usize = 32;
/// Such a body is one or two short lines.
const INFO_LIMIT_BYTES: usize = 256;
/// What Accept says beside a 415.
pub const ACCEPTED_INFO: &str = "application/dtmf-relay, application/dtmf";

/// Why no keys were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKeys {
    /// 200: an INFO without a body only asks whether we live.
    Empty,
    /// 415.
    MediaType,
    /// 400.
    Malformed,
}

/// The keys that a request carries; A to D and flash are no keys of ours and are passed over.
pub fn keys(headers: &Headers, body: &[u8]) -> Result<Vec<Key>, NoKeys> {
    if body.is_empty() {
        return Err(NoKeys::Empty);
    }
    let media_type = headers.get("Content-Type").map(|t| t.split(';').next().unwrap_or(t).trim().to_ascii_lowercase());
    let relay = match media_type.as_deref() {
        Some("application/dtmf-relay") => true,
        Some("application/dtmf") => false,
        Some(_) | None => return Err(NoKeys::MediaType),
    };
    if body.len() > INFO_LIMIT_BYTES {
        return Err(NoKeys::Malformed);
    }
    let text = std::str::from_utf8(body).map_err(|_| NoKeys::Malformed)?;
    let signal = text.split(['\r', '\n']).find_map(|line| {
        let (name, value) = line.split_once('=')?;
        name.trim().eq_ignore_ascii_case("signal").then(|| value.trim())
    });
    let pressed = match (signal, relay) {
        (Some(s), _) => s,
        (None, false) => text.trim(),
        (None, true) => return Err(NoKeys::Malformed),
    };
    match pressed {
        // Some count as RFC 4733 does.
        "10" if relay => return Ok(vec![Key::Star]),
        "11" if relay => return Ok(vec![Key::Pound]),
        "" => return Err(NoKeys::Malformed),
        _ => {}
    }
    if pressed.len() > INFO_LIMIT_KEYS || !pressed.chars().all(|c| "0123456789*#ABCDabcd!".contains(c)) {
        return Err(NoKeys::Malformed);
    }
    Ok(pressed.chars().filter_map(Key::from_char).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(media_type: &str, body: &str) -> Result<Vec<Key>, NoKeys> {
        keys(&Headers::new().with("Content-Type", media_type), body.as_bytes())
    }

    #[test]
    fn the_dialects_are_read() {
        assert_eq!(read("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n"), Ok(vec![Key::Digit(5)]));
        assert_eq!(read("Application/DTMF-Relay; x=y", "signal= #\nduration=100"), Ok(vec![Key::Pound]));
        assert_eq!(read("application/dtmf-relay", "Signal=10\r\nDuration=1"), Ok(vec![Key::Star]));
        assert_eq!(read("application/dtmf-relay", "Signal=11"), Ok(vec![Key::Pound]));
        assert_eq!(read("application/dtmf", "7\r\n"), Ok(vec![Key::Digit(7)]));
        assert_eq!(read("application/dtmf", "12*"), Ok(vec![Key::Digit(1), Key::Digit(2), Key::Star]));
        assert_eq!(read("application/dtmf-relay", "Signal=A"), Ok(vec![]));
    }

    #[test]
    fn the_rest_says_why_not() {
        assert_eq!(read("application/dtmf-relay", ""), Err(NoKeys::Empty));
        assert_eq!(read("text/plain", "5"), Err(NoKeys::MediaType));
        assert_eq!(keys(&Headers::new(), b"5"), Err(NoKeys::MediaType));
        for bad in ["5", "Signal=", "Signal=five", "\u{e9}", &"1".repeat(300)] {
            assert_eq!(read("application/dtmf-relay", bad), Err(NoKeys::Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(relay: bool, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let media_type = if relay { "application/dtmf-relay" } else { "application/dtmf" };
            if let Ok(found) = keys(&Headers::new().with("Content-Type", media_type), &body) {
                prop_assert!(found.len() <= INFO_LIMIT_KEYS);
            }
        }
    }
}
