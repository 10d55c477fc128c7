//! PURE. What this process alone knows and signs its stateless answers with: the To tag that stays the same for a
//! retransmission without being kept, and the tag that callers of RFC 2543 get inside the house.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::clock::Entropy;

/// Bytes of a tag, hex twice that: 64 bits of what nobody can guess (RFC 3261 section 19.3 wants 32).
const TAG_BYTES: usize = 8;
const MARK_BYTES: usize = 6;

/// A secret drawn at start.
pub struct WireSecret {
    key: [u8; 32],
    /// Begins every tag that we put in for an RFC 2543 caller.
    old_mark: String,
}

impl std::fmt::Debug for WireSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WireSecret")
    }
}

impl WireSecret {
    /// A fresh one.
    pub fn new(entropy: &dyn Entropy) -> Self {
        let mark: [u8; MARK_BYTES] = entropy.bytes();
        Self { key: entropy.bytes(), old_mark: format!("rfc2543-{}-", hex::encode(mark)) }
    }

    /// Half of an HMAC-SHA-256 over the parts, as hex.
    fn sign(&self, domain: &str, parts: &[&str]) -> String {
        let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.key) else { return String::new() };
        mac.update(domain.as_bytes());
        for part in parts {
            mac.update(&[0]);
            mac.update(part.as_bytes());
        }
        let signed = mac.finalize().into_bytes();
        hex::encode(signed.get(..TAG_BYTES).unwrap_or(&[]))
    }

    /// The To tag of a stateless answer (RFC 3261 section 8.2.7): the same whenever the same request comes again.
    pub fn answer_tag(&self, via: &str, from: &str, call_id: &str, cseq: &str) -> String {
        self.sign("answer", &[via, from, call_id, cseq])
    }

    /// The tag that stands for the missing one of a caller of RFC 2543, for all requests of a call.
    pub fn old_tag(&self, call_id: &str) -> String {
        format!("{}{}", self.old_mark, self.sign("old", &[call_id]))
    }

    /// A number in `0..slots` for a source, that nobody outside can aim at.
    pub fn slot(&self, source: &[u8], slots: usize) -> usize {
        use std::hash::Hasher;
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        hasher.write(&self.key);
        hasher.write(source);
        usize::try_from(hasher.finish() % u64::try_from(slots.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    /// A message on its way out without the tags that `old_tag` made. `None`: there is none in it.
    pub fn without_old_tags(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mark = format!(";tag={}", self.old_mark);
        let mark = mark.as_bytes();
        let whole = mark.len().saturating_add(TAG_BYTES * 2);
        let mut rest = message;
        let mut out: Option<Vec<u8>> = None;
        while let Some(at) = rest.windows(mark.len()).position(|w| w == mark) {
            let kept = out.get_or_insert_with(|| Vec::with_capacity(message.len()));
            kept.extend_from_slice(rest.get(..at).unwrap_or(&[]));
            rest = rest.get(at.saturating_add(whole)..).unwrap_or(&[]);
        }
        if let Some(kept) = &mut out {
            kept.extend_from_slice(rest);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    #[test]
    fn tags_repeat_for_the_same_request_and_differ_between_processes() {
        let (a, b) = (WireSecret::new(&SeededEntropy::new(1)), WireSecret::new(&SeededEntropy::new(2)));
        let tag = a.answer_tag("v", "f", "c", "1 INVITE");
        assert_eq!(tag, a.answer_tag("v", "f", "c", "1 INVITE"));
        assert_eq!(tag.len(), 16);
        assert_ne!(tag, a.answer_tag("v", "f", "c", "2 INVITE"));
        assert_ne!(tag, b.answer_tag("v", "f", "c", "1 INVITE"));
    }

    #[test]
    fn an_old_callers_tag_never_leaves() {
        let secret = WireSecret::new(&SeededEntropy::new(1));
        let tag = secret.old_tag("call");
        let out = format!("From: <sip:a@b>;tag={tag}\r\nTo: <sip:c@d>;tag=x;tag={tag}");
        let cleaned = secret.without_old_tags(out.as_bytes()).unwrap();
        assert_eq!(cleaned, b"From: <sip:a@b>\r\nTo: <sip:c@d>;tag=x");
        assert_eq!(secret.without_old_tags(b"From: <sip:a@b>;tag=rfc2543-x"), None);
    }
}
