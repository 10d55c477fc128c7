//! `a=crypto` (RFC 4568): a suite and a key, in the clear; whoever reads the signalling can listen.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use crate::media::srtp::{MasterKey, Suite};

/// Some peers leave the padding out.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// A line that we can use. `Debug` shows no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Crypto {
    /// Says in an answer which line was chosen (section 4.1).
    pub tag: u32,
    pub key: MasterKey,
}

impl Crypto {
    /// `1 AES_CM_128_HMAC_SHA1_80 inline:KEY||2^31`; `None` if it is nothing for us: another suite, a key of the wrong length,
    /// several keys or one with an MKI, session parameters that change the protection (section 6.3).
    pub fn parse(argument: &str) -> Option<Self> {
        let mut words = argument.split_ascii_whitespace();
        let tag = words.next()?.parse().ok().filter(|tag| *tag < 1_000_000_000)?;
        let suite = Suite::from_name(words.next()?)?;
        let inline = strip_prefix_ignoring_case(words.next()?, "inline:")?;
        // Asking for a replay window of some size is all that may follow: ours is larger than the default, 64.
        if !words.all(|parameter| parameter.to_ascii_uppercase().starts_with("WSH=")) || inline.contains(';') {
            return None;
        }
        let mut parts = inline.split('|');
        let encoded = parts.next()?;
        // After the key: a lifetime (`2^31`, `1000000`), which no call of ours lives to see, or `MKI:length`.
        if parts.any(|part| part.contains(':')) {
            return None;
        }
        // Decoded into a buffer of its final size, so that no copy is left behind.
        let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(encoded.len())]);
        let length = BASE64.decode_slice(encoded, &mut bytes).ok()?;
        bytes.truncate(length);
        Some(Self { tag, key: MasterKey::new(suite, bytes)? })
    }

    /// The line's value.
    pub fn text(&self) -> Zeroizing<String> {
        let encoded = Zeroizing::new(BASE64.encode(self.key.key_and_salt()));
        Zeroizing::new(format!("{} {} inline:{}", self.tag, self.key.suite().name(), *encoded))
    }
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.get(..prefix.len()).filter(|start| start.eq_ignore_ascii_case(prefix))?;
    text.get(prefix.len()..)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 4568 section 6.1's example key.
    const KEY: &str = "PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR";

    #[test]
    fn lines_that_we_can_use_are_read_and_written() {
        let line = format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}");
        let crypto = Crypto::parse(&line).unwrap();
        assert_eq!((crypto.tag, crypto.key.suite()), (1, Suite::AesCm128HmacSha1_80));
        assert_eq!(*crypto.text(), line);
        assert!(!format!("{crypto:?}").contains("PS1"));
        for more in ["|2^20", "|1000", "|2^31", " WSH=64"] {
            assert_eq!(Crypto::parse(&format!("{line}{more}")).as_ref(), Some(&crypto), "{more}");
        }
        let gcm = format!("22 AEAD_AES_128_GCM INLINE:{}", BASE64.encode([7u8; 28]).trim_end_matches('='));
        assert_eq!(Crypto::parse(&gcm).unwrap().key.key_and_salt(), [7u8; 28]);
    }

    #[test]
    fn lines_that_we_cannot_use_are_none() {
        let line = format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}");
        for more in
            ["|2^20|1:4", "|1:4", ";inline:x", " UNENCRYPTED_SRTP", " KDR=1", " UNAUTHENTICATED_SRTP", " FEC_ORDER=X", "="]
        {
            assert_eq!(Crypto::parse(&format!("{line}{more}")), None, "{more}");
        }
        let short = KEY.get(..36).unwrap();
        for other in [
            format!("1 F8_128_HMAC_SHA1_80 inline:{KEY}"),
            format!("1 AES_CM_128_HMAC_SHA1_80 inline:{short}"),
            format!("1 AEAD_AES_128_GCM inline:{KEY}"),
            format!("x AES_CM_128_HMAC_SHA1_80 inline:{KEY}"),
            format!("1 AES_CM_128_HMAC_SHA1_80 {KEY}"),
            "1 AES_CM_128_HMAC_SHA1_80".to_owned(),
            String::new(),
        ] {
            assert_eq!(Crypto::parse(&other), None, "{other}");
        }
    }
}
