//! A page's SDP offer, looked at before anything is built for it, and what is settled on it. Pure.
//!
//! The offer's grammar is the `webrtc` crate's business. Here stands what a call needs of it (one audio line that goes both ways, ICE and
//! DTLS, Opus or PCMU), so that whoever sends something else is told so in words; and what is taken out of it: candidates that name
//! nobody whom we could reach.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use thiserror::Error;

use crate::media::codec::Codec;
use crate::media::negotiated::{NegotiatedMedia, OpusBitrate, RtcpPath};

/// Longest offer that is read, in bytes; a browser's with one audio line is about 3 kB.
pub const OFFER_LIMIT_BYTES: usize = 64 * 1024;
/// Candidates that an offer or a fragment may bring.
pub const CANDIDATE_LIMIT: usize = 64;
/// Lines that are looked at.
const LINE_LIMIT: usize = 1_000;

/// Why an offer can't be answered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OfferFault {
    /// It is no offer of the kind that we take.
    #[error("the SDP offer {0}")]
    Malformed(String),
    /// Neither Opus nor PCMU.
    #[error("the SDP offer has no codec of ours: offer opus/48000/2 (payload type of your choice) or PCMU (payload type 0)")]
    NoCommonCodec,
}

fn malformed<T>(why: impl Into<String>) -> Result<T, OfferFault> {
    Err(OfferFault::Malformed(why.into()))
}

/// The value of the first line that begins so.
pub(super) fn first<'a>(sdp: &'a str, prefix: &str) -> Option<&'a str> {
    sdp.lines().find_map(|line| line.strip_prefix(prefix)).map(str::trim)
}

/// Whether a call can be had on this offer. Nothing is built for it.
pub fn check(sdp: &str) -> Result<(), OfferFault> {
    if sdp.len() > OFFER_LIMIT_BYTES {
        return malformed(format!("is longer than {OFFER_LIMIT_BYTES} bytes"));
    }
    if sdp.lines().count() > LINE_LIMIT {
        return malformed(format!("has more than {LINE_LIMIT} lines"));
    }
    if sdp.lines().next().map(str::trim) != Some("v=0") {
        return malformed("does not begin with v=0");
    }
    let mut lines = sdp.lines().filter_map(|line| line.strip_prefix("m="));
    let Some(audio) = lines.next() else { return malformed("has no m= line: offer one audio line") };
    if lines.next().is_some() {
        return malformed("has more than one m= line: offer audio alone");
    }
    let mut words = audio.split_whitespace();
    if words.next() != Some("audio") {
        return malformed("has another m= line than audio");
    }
    let port = words.next();
    if port.is_none() || port == Some("0") {
        return malformed("has an audio line without a port (0 means refused)");
    }
    match words.next() {
        Some("UDP/TLS/RTP/SAVPF" | "UDP/TLS/RTP/SAVP") => {}
        Some(_) | None => return malformed("has audio that is not UDP/TLS/RTP/SAVPF: DTLS-SRTP is required"),
    }
    for name in ["ice-ufrag", "ice-pwd", "fingerprint"] {
        if first(sdp, &format!("a={name}:")).is_none_or(str::is_empty) {
            return malformed(format!("has no a={name} line"));
        }
    }
    match first(sdp, "a=setup:") {
        Some("actpass" | "active" | "passive") => {}
        Some(_) | None => return malformed("has no a=setup line with actpass, active or passive"),
    }
    if sdp.lines().any(|line| matches!(line.trim(), "a=sendonly" | "a=recvonly" | "a=inactive")) {
        return malformed("has audio that goes one way: it must be sendrecv");
    }
    if !sdp.lines().any(|line| line.trim() == "a=rtcp-mux") {
        return malformed("has no a=rtcp-mux: RTCP goes with RTP here (RFC 8843)");
    }
    if sdp.lines().filter(|line| line.starts_with("a=candidate:")).count() > CANDIDATE_LIMIT {
        return malformed(format!("has more than {CANDIDATE_LIMIT} candidates"));
    }
    if first(sdp, "a=fingerprint:").is_none_or(|value| !is_fingerprint(value)) {
        return malformed("has an a=fingerprint that is no SHA-256, SHA-384 or SHA-512 in hexadecimal pairs (RFC 8122)");
    }
    settled(sdp).map(|_| ()).ok_or(OfferFault::NoCommonCodec)
}

/// `HASH AA:BB:…` of as many bytes as the hash has.
fn is_fingerprint(value: &str) -> bool {
    let Some((hash, digits)) = value.split_once(' ') else { return false };
    let bytes = match hash.to_ascii_lowercase().as_str() {
        "sha-256" => 32,
        "sha-384" => 48,
        "sha-512" => 64,
        _ => return false,
    };
    let pairs = digits.trim().split(':');
    pairs.clone().count() == bytes && pairs.into_iter().all(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Which codec of ours a payload type of this SDP is.
fn codec_of(sdp: &str, number: &str) -> Option<Codec> {
    match map_of(sdp, number) {
        Some((name, "48000")) if name.eq_ignore_ascii_case("opus") => Some(Codec::Opus),
        Some((name, "8000")) if name.eq_ignore_ascii_case("PCMU") => Some(Codec::Pcmu),
        // Static: it needs no map (RFC 3551 section 6).
        None if number == "0" => Some(Codec::Pcmu),
        Some(_) | None => None,
    }
}

/// Encoding name and clock of a payload type.
fn map_of<'a>(sdp: &'a str, number: &str) -> Option<(&'a str, &'a str)> {
    let map = sdp.lines().filter_map(|line| line.strip_prefix("a=rtpmap:")).find_map(|rest| {
        let (of, map) = rest.split_once(' ')?;
        (of == number).then_some(map.trim())
    })?;
    let mut parts = map.split('/');
    Some((parts.next()?, parts.next()?))
}

/// What is spoken on this offer, under its own numbers: Opus if it is there, else PCMU, and keys as packets at that codec's clock. Nothing
/// else is answered: the `webrtc` crate tells telephone-events of two clocks not apart, and a second codec would be one that nobody sends.
pub fn settled(offer: &str) -> Option<NegotiatedMedia> {
    let audio = first(offer, "m=audio ")?;
    let types: Vec<&str> = audio.split_whitespace().skip(2).collect();
    let of = |wanted: Codec| {
        let mut numbers = types.iter().filter(|number| codec_of(offer, number) == Some(wanted));
        numbers.find_map(|number| Some((wanted, number.parse::<u8>().ok().filter(|n| *n < 128)?)))
    };
    let (codec, number) = of(Codec::Opus).or_else(|| of(Codec::Pcmu))?;
    let bitrate = first(offer, &format!("a=fmtp:{number} ")).map(OpusBitrate::of).unwrap_or_default();
    let mut media = NegotiatedMedia { opus: bitrate, rtcp: RtcpPath::Muxed, ..NegotiatedMedia::new(codec, number) };
    let event = |clock: u32| {
        types.iter().find_map(|number| match map_of(offer, number) {
            Some((name, hz)) if name.eq_ignore_ascii_case("telephone-event") && hz.parse() == Ok(clock) => {
                number.parse::<u8>().ok().filter(|n| *n < 128)
            }
            Some(_) | None => None,
        })
    };
    let own = codec.rtp_clock_hz();
    if let Some((number, clock)) = event(own).map(|n| (n, own)).or_else(|| event(8_000).map(|n| (n, 8_000))) {
        media = media.with_telephone_event(number, clock);
    }
    Some(media)
}

/// Whether a candidate's value (after `candidate:`) is of somebody whom we could reach: UDP, and an address. A name of multicast DNS
/// (`….local`) hides a page's address; it will reach us, and we see then where it comes from (a peer-reflexive candidate).
pub fn is_reachable(candidate: &str) -> bool {
    let mut words = candidate.split_whitespace();
    let (_foundation, _component, transport) = (words.next(), words.next(), words.next());
    let (_priority, address) = (words.next(), words.next());
    transport.is_some_and(|t| t.eq_ignore_ascii_case("udp")) && address.is_some_and(|a| a.parse::<std::net::IpAddr>().is_ok())
}

/// The offer without the candidates that we can't reach.
pub fn reachable(sdp: &str) -> String {
    with_lines(sdp, |line| line.strip_prefix("a=candidate:").is_none_or(is_reachable))
}

/// The description with those of its lines that are to be kept.
fn with_lines(sdp: &str, keep: impl Fn(&str) -> bool) -> String {
    sdp.lines().filter(|line| keep(line)).fold(String::with_capacity(sdp.len()), |all, line| all + line.trim_end() + "\r\n")
}

/// The description without what it says of this payload type's format. The `webrtc` crate takes no codec whose parameters differ from ours, and then refuses all of
/// the offer (Firefox says `stereo=1`); but each parameter is of what its sender would like to hear, and what matters of that is read by [`settled`].
pub fn without_format(sdp: &str, payload_type: u8) -> String {
    let format = format!("a=fmtp:{payload_type} ");
    with_lines(sdp, |line| !line.starts_with(&format))
}

/// The same description under other ICE credentials (RFC 8839 section 4.4.1.1.1), and without candidates: those of before are gone.
pub fn restarted(sdp: &str, ufrag: &str, pwd: &str) -> String {
    let mut all = String::with_capacity(sdp.len());
    for line in sdp.lines().map(str::trim_end) {
        if line.starts_with("a=candidate:") || line.starts_with("a=end-of-candidates") {
            continue;
        }
        match line {
            _ if line.starts_with("a=ice-ufrag:") => all += &format!("a=ice-ufrag:{ufrag}"),
            _ if line.starts_with("a=ice-pwd:") => all += &format!("a=ice-pwd:{pwd}"),
            _ => all += line,
        }
        all += "\r\n";
    }
    all
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::webrtc) const CHROMIUM: &str = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
        a=extmap-allow-mixed\r\na=msid-semantic: WMS s\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\nc=IN IP4 0.0.0.0\r\n\
        a=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:UFRG\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=ice-options:trickle\r\n\
        a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
        a=setup:actpass\r\na=mid:0\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=sendrecv\r\na=msid:s t\r\na=rtcp-mux\r\n\
        a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\n\
        a=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:13 CN/8000\r\n\
        a=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\na=ssrc:1 cname:c\r\n\
        a=candidate:1 1 udp 2113937151 4a2c0f6b-1f2e-4a57-9a0f-0a7d1d5cbb1e.local 50000 typ host\r\n\
        a=candidate:2 1 tcp 1518280447 127.0.0.1 9 typ host tcptype active\r\na=candidate:3 1 udp 2113937151 192.0.2.7 50001 typ host\r\n";

    #[test]
    fn a_browsers_offer_is_fine() {
        assert_eq!(check(CHROMIUM), Ok(()));
    }

    #[test]
    fn what_is_missing_is_said() {
        let without = |line: &str| CHROMIUM.replace(line, "");
        let cases = [
            (String::new(), "v=0"),
            ("hello".into(), "v=0"),
            (without("m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\n"), "no m= line"),
            (CHROMIUM.to_owned() + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n", "more than one"),
            (CHROMIUM.replace("m=audio", "m=video"), "another m= line"),
            (CHROMIUM.replace("m=audio 9 ", "m=audio 0 "), "port"),
            (CHROMIUM.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), "DTLS-SRTP"),
            (CHROMIUM.replace("sha-256 00:", "sha-256 zz:"), "RFC 8122"),
            (CHROMIUM.replace("sha-256 00:", "sha-256 "), "RFC 8122"),
            (CHROMIUM.replace("sha-256 00:", "md5 00:"), "RFC 8122"),
            (without("a=ice-ufrag:UFRG\r\n"), "ice-ufrag"),
            (without("a=setup:actpass\r\n"), "setup"),
            (CHROMIUM.replace("a=sendrecv", "a=sendonly"), "one way"),
            (without("a=rtcp-mux\r\n"), "rtcp-mux"),
            (CHROMIUM.to_owned() + &"a=candidate:9 1 udp 1 192.0.2.7 5 typ host\r\n".repeat(70), "64 candidates"),
            ("v=0\r\n".to_owned() + &"a=x\r\n".repeat(1_000), "1000 lines"),
            ("v=0\r\n".to_owned() + &"x".repeat(OFFER_LIMIT_BYTES), "bytes"),
        ];
        for (offer, why) in cases {
            let Err(OfferFault::Malformed(said)) = check(&offer) else { panic!("{why}") };
            assert!(said.contains(why), "{said:?} should say {why:?}");
        }
        let others = CHROMIUM.replace("111 63 9 0 8 13 110 126", "9 8 126");
        assert_eq!(check(&others), Err(OfferFault::NoCommonCodec));
        assert_eq!(check(&CHROMIUM.replace("111 63 9 0 8 13 110 126", "0").replace("a=rtpmap:0 PCMU/8000\r\n", "")), Ok(()));
    }

    #[test]
    fn an_offer_settles_codec_and_keys() {
        let offer = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0 110 126\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:0 PCMU/8000\r\n\
            a=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\n";
        let media = settled(offer).unwrap();
        assert_eq!((media.codec, media.payload_type, media.rtcp), (Codec::Opus, 111, RtcpPath::Muxed));
        assert_eq!(media.telephone_event.map(|e| (e.payload_type, e.clock_hz)), Some((110, 48_000)));
        assert_eq!(media.opus, OpusBitrate::default());
        let asks = settled(&format!("{offer}a=fmtp:111 minptime=10;useinbandfec=1;maxaveragebitrate=8000\r\n")).unwrap();
        assert_eq!(asks.opus, OpusBitrate::of("maxaveragebitrate=8000"));
        assert_ne!(asks.opus, OpusBitrate::default());
        let media = settled(&offer.replace("SAVPF 111 0 110", "SAVPF 0")).unwrap();
        assert_eq!((media.codec, media.telephone_event.map(|e| (e.payload_type, e.clock_hz))), (Codec::Pcmu, Some((126, 8_000))));
        let media = settled(&offer.replace("111 0 110 126", "111 126")).unwrap();
        assert_eq!(media.telephone_event.map(|e| e.clock_hz), Some(8_000), "taken at their word");
        assert_eq!(settled("v=0\r\nm=audio 0 UDP/TLS/RTP/SAVPF 8\r\na=rtpmap:8 PCMA/8000\r\n"), None);
        assert_eq!(settled(""), None);
    }

    #[test]
    fn only_candidates_that_we_can_reach_are_kept() {
        let kept = reachable(CHROMIUM);
        assert_eq!(kept.matches("a=candidate:").count(), 1);
        assert!(kept.contains("a=candidate:3 1 udp") && check(&kept).is_ok());
        for odd in ["", "1", "1 1 udp", "1 1 udp 5 nowhere 5 typ host"] {
            assert!(!is_reachable(odd), "{odd:?}");
        }
    }

    #[test]
    fn a_restart_changes_the_credentials_and_nothing_else() {
        let again = restarted(CHROMIUM, "NEWU", "newpwdnewpwdnewpwdnewpwd");
        assert!(again.contains("a=ice-ufrag:NEWU\r\n") && again.contains("a=ice-pwd:newpwdnewpwdnewpwdnewpwd\r\n"));
        assert!(!again.contains("UFRG") && !again.contains("a=candidate:"));
        assert_eq!(check(&again), Ok(()));
    }
}
