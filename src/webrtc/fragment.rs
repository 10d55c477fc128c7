//! Trickle ICE between page and service: `application/trickle-ice-sdpfrag` (RFC 8840 section 9, as RFC 9725 uses it). Pure.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use super::offer::{CANDIDATE_LIMIT, is_reachable};

/// Longest fragment that is read, in bytes.
pub const FRAGMENT_LIMIT_BYTES: usize = 16 * 1024;
/// RFC 8839 section 5.4.
const UFRAG_LIMIT_CHARS: usize = 256;

/// A fragment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// `ice-ufrag` and `ice-pwd`, if it names them.
    pub credentials: Option<(String, String)>,
    /// Candidates that we could reach, as `candidate:…`.
    pub candidates: Vec<String>,
    /// Whether those were the last.
    pub complete: bool,
}

/// `ice-char` (RFC 8839 section 5.4).
fn is_ice(text: &str, least: usize) -> bool {
    (least..=UFRAG_LIMIT_CHARS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

impl Fragment {
    /// Reads one; the error says what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        if text.len() > FRAGMENT_LIMIT_BYTES {
            return Err(format!("is longer than {FRAGMENT_LIMIT_BYTES} bytes"));
        }
        let (mut ufrag, mut pwd, mut fragment, mut seen) = (None, None, Self::default(), 0_usize);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(value) = line.strip_prefix("a=ice-ufrag:") {
                ufrag = Some(value);
            } else if let Some(value) = line.strip_prefix("a=ice-pwd:") {
                pwd = Some(value);
            } else if let Some(value) = line.strip_prefix("a=candidate:") {
                seen = seen.saturating_add(1);
                if seen > CANDIDATE_LIMIT {
                    return Err(format!("has more than {CANDIDATE_LIMIT} candidates"));
                }
                if is_reachable(value) {
                    fragment.candidates.push(format!("candidate:{value}"));
                }
            } else if line == "a=end-of-candidates" {
                fragment.complete = true;
            } else if !line.starts_with("a=") && !line.starts_with("m=") {
                return Err("has a line that is neither a= nor m=".into());
            }
        }
        match (ufrag, pwd) {
            (None, None) => {}
            (Some(ufrag), Some(pwd)) if is_ice(ufrag, 4) && is_ice(pwd, 22) => {
                fragment.credentials = Some((ufrag.to_owned(), pwd.to_owned()));
            }
            (Some(_), None) | (None, Some(_)) => return Err("has one of a=ice-ufrag and a=ice-pwd without the other".into()),
            (Some(_), Some(_)) => return Err("has an a=ice-ufrag or a=ice-pwd that RFC 8839 section 5.4 does not allow".into()),
        }
        if fragment.credentials.is_none() && seen == 0 && !fragment.complete {
            return Err("has neither candidates nor credentials".into());
        }
        Ok(fragment)
    }

    /// Of a description: its credentials and candidates.
    pub fn of(sdp: &str) -> String {
        let mut text = String::new();
        for line in sdp.lines().map(str::trim_end) {
            let wanted = ["a=ice-lite", "a=ice-ufrag:", "a=ice-pwd:", "m=audio", "a=mid:", "a=candidate:", "a=end-of-candidates"];
            if wanted.iter().any(|prefix| line.starts_with(prefix)) {
                text += line;
                text += "\r\n";
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webrtc::offer::tests::CHROMIUM;

    #[test]
    fn a_fragment_is_read_and_what_we_cannot_reach_is_left_out() {
        let text = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
            a=candidate:1 1 udp 2130706431 198.51.100.1 39132 typ host\r\na=candidate:2 1 udp 1 x.local 39132 typ host\r\n\
            a=end-of-candidates\r\n";
        let fragment = Fragment::read(text).unwrap();
        assert_eq!(fragment.credentials, Some(("EsAw".into(), "P2uYro0UCOQ4zxjKXaWCBui1".into())));
        assert_eq!(fragment.candidates, ["candidate:1 1 udp 2130706431 198.51.100.1 39132 typ host"]);
        assert!(fragment.complete);
        assert!(Fragment::read("a=end-of-candidates").unwrap().complete);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let many = "a=candidate:1 1 udp 1 192.0.2.1 5 typ host\r\n".repeat(65);
        for (text, why) in [
            ("", "neither candidates"),
            ("hello", "neither a= nor m="),
            ("a=ice-ufrag:EsAw\r\n", "without the other"),
            ("a=ice-ufrag:E\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n", "RFC 8839"),
            ("a=ice-ufrag:EsAw\r\na=ice-pwd:short\r\n", "RFC 8839"),
            (&many, "64 candidates"),
            (&"a".repeat(FRAGMENT_LIMIT_BYTES + 1), "bytes"),
        ] {
            let said = Fragment::read(text).unwrap_err();
            assert!(said.contains(why), "{said:?} should say {why:?}");
        }
    }

    #[test]
    fn a_descriptions_fragment_reads_back() {
        let fragment = Fragment::read(&Fragment::of(CHROMIUM)).unwrap();
        assert_eq!(fragment.credentials.unwrap().0, "UFRG");
        assert_eq!(fragment.candidates.len(), 1);
    }
}
