//! Bytes into a description, as far as we look at it.

use std::net::IpAddr;

use super::crypto::Crypto;
use super::{Direction, SDP_LIMIT_BYTES, SDP_LIMIT_FORMATS, SDP_LIMIT_MEDIA, SdpError};
use crate::media::negotiated::OpusBitrate;

/// A description that was read. It may hold keys: `Debug` shows none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub(super) media: Vec<Media>,
}

/// One `m=` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Media {
    pub kind: String,
    pub port: u16,
    /// As written: an answer repeats it.
    pub protocol: String,
    pub formats: Vec<String>,
    /// From the section's own `c=`, else the session's; `None` when it is a host name or another kind of network.
    pub address: Option<IpAddr>,
    pub encodings: Vec<(u8, Encoding)>,
    /// How much each payload type may be, should it be Opus.
    pub opus: Vec<(u8, OpusBitrate)>,
    pub ptime_ms: Option<u32>,
    pub direction: Direction,
    /// Keys that we could use.
    pub crypto: Vec<Crypto>,
    /// Whether there was any `a=crypto`, usable or not.
    pub has_crypto: bool,
    /// `a=rtcp` (RFC 3605): the port, and the address if it names one.
    pub rtcp: Option<(u16, Option<IpAddr>)>,
    pub rtcp_mux: bool,
}

/// An `rtpmap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    /// In lower case.
    pub name: String,
    pub clock_hz: u32,
    pub channels: u8,
}

/// What an `m=` line's third word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    /// RTP/AVP, and RTP/AVPF whose feedback we leave alone.
    Plain,
    /// RTP/SAVP, RTP/SAVPF.
    Secure,
    /// Keys by DTLS, or no RTP at all.
    Other,
}

impl Media {
    pub fn profile(&self) -> Profile {
        match self.protocol.to_ascii_uppercase().as_str() {
            "RTP/AVP" | "RTP/AVPF" => Profile::Plain,
            "RTP/SAVP" | "RTP/SAVPF" => Profile::Secure,
            _ => Profile::Other,
        }
    }

    /// The formats that can be payload types, in their order.
    pub fn payload_types(&self) -> impl Iterator<Item = u8> {
        self.formats.iter().filter_map(|f| f.parse::<u8>().ok()).filter(|n| *n < 128)
    }

    /// What a payload type was mapped to.
    pub fn encoding(&self, payload_type: u8) -> Option<&Encoding> {
        self.encodings.iter().find(|(p, _)| *p == payload_type).map(|(_, e)| e)
    }
}

/// Reads an offer or an answer.
pub fn parse(bytes: &[u8]) -> Result<Session, SdpError> {
    use SdpError::Malformed;
    if bytes.len() > SDP_LIMIT_BYTES {
        return Err(Malformed("it is longer than 16 kB"));
    }
    // RFC 4566 section 5 allows other charsets in free text; what matters to us is ASCII.
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l)).filter(|l| !l.is_empty());
    if lines.next().map(str::trim_end) != Some("v=0") {
        return Err(Malformed("it must start with v=0"));
    }
    // What the session says of all streams.
    let mut common = Media {
        kind: String::new(),
        port: 0,
        protocol: String::new(),
        formats: Vec::new(),
        address: None,
        encodings: Vec::new(),
        opus: Vec::new(),
        ptime_ms: None,
        direction: Direction::default(),
        crypto: Vec::new(),
        has_crypto: false,
        rtcp: None,
        rtcp_mux: false,
    };
    let mut media: Vec<Media> = Vec::new();
    for line in lines {
        let (kind, value) =
            line.split_once('=').filter(|(k, _)| k.len() == 1).ok_or(Malformed("a line is not of the form x=value"))?;
        let value = value.trim();
        match kind {
            "m" => {
                if media.len() >= SDP_LIMIT_MEDIA {
                    return Err(Malformed("it has more than 32 media lines"));
                }
                media.push(media_line(value, &common)?);
            }
            "c" => media.last_mut().unwrap_or(&mut common).address = connection(value)?,
            "a" => attribute(value, media.last_mut().unwrap_or(&mut common))?,
            _ => {} // o=, s=, t=, b= and the rest change nothing for us
        }
    }
    Ok(Session { media })
}

fn attribute(value: &str, of: &mut Media) -> Result<(), SdpError> {
    let (name, argument) = match value.split_once(':') {
        Some((n, a)) => (n, a.trim()),
        None => (value, ""),
    };
    match name {
        // Of other codecs' parameters none is of matter here.
        "fmtp" => {
            if let Some((number, bitrate)) =
                argument.split_once(' ').and_then(|(n, f)| Some((n.parse().ok()?, OpusBitrate::of(f))))
                && of.opus.len() < SDP_LIMIT_FORMATS
            {
                of.opus.push((number, bitrate));
            }
        }
        "rtpmap" => {
            let (payload_type, encoding) = rtpmap(argument)?;
            if of.encodings.len() < SDP_LIMIT_FORMATS {
                of.encodings.push((payload_type, encoding));
            }
        }
        // Some write `20.0`; what can't be read is left to the default.
        "ptime" => of.ptime_ms = argument.split('.').next().and_then(|p| p.parse().ok()).filter(|p| (1..=1_000).contains(p)),
        "crypto" => {
            of.has_crypto = true;
            if of.crypto.len() < SDP_LIMIT_FORMATS {
                of.crypto.extend(Crypto::parse(argument));
            }
        }
        "rtcp" => of.rtcp = rtcp(argument),
        "rtcp-mux" => of.rtcp_mux = true,
        _ => {
            if let Some(direction) = Direction::from_word(name) {
                of.direction = direction;
            }
        }
    }
    Ok(())
}

/// `111 opus/48000/2`.
fn rtpmap(argument: &str) -> Result<(u8, Encoding), SdpError> {
    use SdpError::Malformed;
    let (number, encoding) = argument.split_once(' ').ok_or(Malformed("an rtpmap needs a payload type and an encoding"))?;
    let number = number.parse::<u8>().ok().filter(|n| *n < 128).ok_or(Malformed("a payload type is not a number below 128"))?;
    let mut parts = encoding.trim().split('/');
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    // A clock that can't be read maps the number to nothing that we know.
    let clock_hz = parts.next().and_then(|c| c.parse().ok()).unwrap_or(0);
    let channels = parts.next().map_or(Some(1), |c| c.parse().ok()).unwrap_or(0);
    Ok((number, Encoding { name, clock_hz, channels }))
}

/// `53020 IN IP4 126.16.64.4`, the address being optional; nonsense is as if it weren't there.
fn rtcp(argument: &str) -> Option<(u16, Option<IpAddr>)> {
    let (port, rest) = argument.split_once(' ').unwrap_or((argument, ""));
    let port = port.parse().ok().filter(|p| *p != 0)?;
    Some((port, connection(rest).ok().flatten()))
}

fn media_line(value: &str, common: &Media) -> Result<Media, SdpError> {
    use SdpError::Malformed;
    let mut words = value.split_ascii_whitespace();
    let (Some(kind), Some(port), Some(protocol)) = (words.next(), words.next(), words.next()) else {
        return Err(Malformed("an m= line needs media, port, protocol and formats"));
    };
    // `port/count` is for layered streams; the first port is the stream's.
    let port =
        port.split('/').next().and_then(|p| p.parse().ok()).ok_or(Malformed("a media port is not a number below 65536"))?;
    let formats: Vec<String> = words.take(SDP_LIMIT_FORMATS).map(str::to_owned).collect();
    if formats.is_empty() {
        return Err(Malformed("an m= line needs at least one format"));
    }
    Ok(Media { kind: kind.to_ascii_lowercase(), port, protocol: protocol.to_owned(), formats, ..common.clone() })
}

/// `IN IP4 192.0.2.1[/ttl]`; a host name gives `None`.
fn connection(value: &str) -> Result<Option<IpAddr>, SdpError> {
    let mut words = value.split_ascii_whitespace();
    let (Some(network), Some(family), Some(address)) = (words.next(), words.next(), words.next()) else {
        return Err(SdpError::Malformed("a c= line needs network, family and address"));
    };
    let address = address.split('/').next().and_then(|a| a.parse::<IpAddr>().ok());
    match (network, family) {
        ("IN", "IP4") => Ok(address.filter(IpAddr::is_ipv4)),
        ("IN", "IP6") => Ok(address.filter(IpAddr::is_ipv6)),
        _ => Ok(None),
    }
}
