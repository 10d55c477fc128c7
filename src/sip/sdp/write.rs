//! Descriptions as text.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::crypto::Crypto;
use super::{Direction, LocalAudio};
use crate::media::rtp_session::{Codec, TelephoneEvent};

/// What our decoder makes of Opus, so that nobody sends more (RFC 7587 section 6.1).
const OPUS_FORMAT: &str = "maxplaybackrate=16000;sprop-maxcapturerate=16000;useinbandfec=1";

/// Our audio section.
pub(super) struct Section<'a> {
    pub port: u16,
    pub protocol: &'a str,
    pub codecs: &'a [(Codec, u8)],
    pub telephone_events: &'a [TelephoneEvent],
    pub comfort_noise: Option<u8>,
    pub crypto: &'a [Crypto],
    pub rtcp_mux: bool,
    pub direction: Direction,
}

/// Everything before the first `m=`.
pub(super) fn preamble(local: &LocalAudio) -> String {
    let family = if local.address.is_ipv4() { "IP4" } else { "IP6" };
    format!(
        "v=0\r\no=- {} {} IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n",
        local.session_id,
        local.version,
        address = local.address
    )
}

impl Section<'_> {
    /// Appends the section. Writing to a `String` cannot fail.
    pub fn write(&self, text: &mut String) {
        let _infallible = write!(text, "m=audio {} {}", self.port, self.protocol);
        let numbers = self.codecs.iter().map(|(_, n)| *n).chain(self.comfort_noise);
        for number in numbers.chain(self.telephone_events.iter().map(|e| e.payload_type)) {
            let _infallible = write!(text, " {number}");
        }
        text.push_str("\r\n");
        for (codec, number) in self.codecs {
            let _infallible = write!(text, "a=rtpmap:{number} {}/{}", codec.encoding_name(), codec.rtp_clock_hz());
            if codec.rtpmap_channels() > 1 {
                let _infallible = write!(text, "/{}", codec.rtpmap_channels());
            }
            text.push_str("\r\n");
            if *codec == Codec::Opus {
                let _infallible = write!(text, "a=fmtp:{number} {OPUS_FORMAT}\r\n");
            }
        }
        if let Some(number) = self.comfort_noise {
            let _infallible = write!(text, "a=rtpmap:{number} CN/8000\r\n");
        }
        for TelephoneEvent { payload_type, clock_hz } in self.telephone_events {
            // Events 12 to 16 (A to D, flash) are taken and ignored: 0-16 is what peers expect to read here.
            let _infallible =
                write!(text, "a=rtpmap:{payload_type} telephone-event/{clock_hz}\r\na=fmtp:{payload_type} 0-16\r\n");
        }
        for line in self.crypto {
            let value: Zeroizing<String> = line.text();
            let _infallible = write!(text, "a=crypto:{}\r\n", *value);
        }
        let _infallible = write!(text, "a=ptime:20\r\na={}\r\n", self.direction.word());
        if self.rtcp_mux {
            text.push_str("a=rtcp-mux\r\n");
        }
    }
}
