//! Session descriptions (RFC 4566) and offer/answer (RFC 3264), as far as one G.711 µ-law stream with telephone-events
//! (RFC 4733) needs them. What arrives is never trusted: every list has a limit, and every fault has a sentence.

use std::fmt::Write as _;
use std::net::IpAddr;

/// A description longer than this is refused; UDP's 64 kB is not a licence.
pub const SDP_LIMIT_BYTES: usize = 16 * 1024;
/// `m=` lines in one description.
pub const SDP_LIMIT_MEDIA: usize = 32;
/// Formats in one `m=` line.
pub const SDP_LIMIT_FORMATS: usize = 64;
/// The static payload type of PCMU (RFC 3551).
pub const PCMU_PAYLOAD_TYPE: u8 = 0;
/// What our own offers call telephone-event.
pub const TELEPHONE_EVENT_PAYLOAD_TYPE: u8 = 101;

/// Who may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Direction {
    /// Both.
    #[default]
    SendRecv,
    /// The describer only sends (its user hears nothing: hold with music).
    SendOnly,
    /// The describer only listens.
    RecvOnly,
    /// Nobody (hold).
    Inactive,
}

impl Direction {
    /// The matching word for the other side (RFC 3264 section 6.1).
    fn reversed(self) -> Self {
        match self {
            Self::SendRecv => Self::SendRecv,
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            Self::Inactive => Self::Inactive,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive].into_iter().find(|d| d.word() == word)
    }

    /// May the describer's audio come?
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Does the describer listen?
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }
}

/// A description that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    media: Vec<Media>,
}

/// One `m=` section.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Media {
    kind: String,
    port: u16,
    protocol: String,
    formats: Vec<String>,
    /// From the section's own `c=`, else the session's; `None` when it is a host name or another kind of network.
    address: Option<IpAddr>,
    rtpmap: Vec<(u8, String)>,
    ptime_ms: Option<u32>,
    direction: Direction,
}

/// The other side's audio, agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteAudio {
    /// Where its RTP is received. Unspecified (`0.0.0.0`): on hold, nothing may be sent.
    pub address: IpAddr,
    /// There.
    pub port: u16,
    /// PCMU's payload type: 0, unless mapped elsewhere.
    pub pcmu: u8,
    /// telephone-event's payload type, if the other side speaks it.
    pub telephone_event: Option<u8>,
    /// What it asked for; `None`: 20 ms.
    pub ptime_ms: Option<u32>,
    /// As it described itself.
    pub direction: Direction,
}

/// Our end, to be described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAudio {
    /// Where we receive RTP.
    pub address: IpAddr,
    /// There.
    pub port: u16,
    /// Tells this session from our others (`o=`, RFC 4566 section 5.2).
    pub session_id: u32,
    /// Grows by one with each change.
    pub version: u32,
}

/// Why a description can't be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum SdpError {
    /// It breaks the grammar: 400.
    #[error("the session description is malformed: {0}")]
    Malformed(&'static str),
    /// It is well-formed, but there is nothing in it that we can do: 488. With its RFC 3261 warn-code.
    #[error("{text}")]
    NotAcceptable {
        /// RFC 3261 section 20.43.
        warn_code: u16,
        /// One sentence.
        text: &'static str,
    },
}

impl SdpError {
    /// The status that says so.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::NotAcceptable { .. } => 488,
        }
    }

    /// The Warning header's warn-code.
    pub fn warn_code(&self) -> u16 {
        match self {
            Self::Malformed(_) => 399,
            Self::NotAcceptable { warn_code, .. } => *warn_code,
        }
    }
}

const NO_AUDIO: SdpError =
    SdpError::NotAcceptable { warn_code: 304, text: "there is no audio stream: one m=audio with RTP/AVP is needed" };
const NO_CODEC: SdpError =
    SdpError::NotAcceptable { warn_code: 305, text: "no codec in common: PCMU (payload type 0) at 8000 Hz is needed" };
const NO_ADDRESS: SdpError = SdpError::NotAcceptable { warn_code: 301, text: "the connection address must be an IP address" };

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
    let mut session_address = None;
    let mut session_direction = Direction::default();
    let mut session_ptime = None;
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
                media.push(media_line(value, session_address, session_direction, session_ptime)?);
            }
            "c" => {
                let address = connection(value)?;
                match media.last_mut() {
                    Some(m) => m.address = address,
                    None => session_address = address,
                }
            }
            "a" => {
                let (name, argument) = match value.split_once(':') {
                    Some((n, a)) => (n, a.trim()),
                    None => (value, ""),
                };
                if let Some(d) = Direction::from_word(name) {
                    match media.last_mut() {
                        Some(m) => m.direction = d,
                        None => session_direction = d,
                    }
                } else if name == "ptime" {
                    // Some write `20.0`; what can't be read is left to the default.
                    let ptime = argument.split('.').next().and_then(|p| p.parse().ok()).filter(|p| (1..=1_000).contains(p));
                    match media.last_mut() {
                        Some(m) => m.ptime_ms = ptime,
                        None => session_ptime = ptime,
                    }
                } else if name == "rtpmap"
                    && let Some(m) = media.last_mut()
                {
                    let (number, encoding) =
                        argument.split_once(' ').ok_or(Malformed("an rtpmap needs a payload type and an encoding"))?;
                    let number = number
                        .parse::<u8>()
                        .ok()
                        .filter(|n| *n < 128)
                        .ok_or(Malformed("a payload type is not a number below 128"))?;
                    if m.rtpmap.len() < SDP_LIMIT_FORMATS {
                        m.rtpmap.push((number, encoding.trim().to_ascii_lowercase()));
                    }
                }
            }
            _ => {} // o=, s=, t=, b= and the rest change nothing for us
        }
    }
    Ok(Session { media })
}

/// Answers an offer: the text, and what was agreed. Streams other than the first usable audio are refused with port 0.
pub fn answer(offer: &Session, local: &LocalAudio) -> Result<(String, RemoteAudio), SdpError> {
    let (chosen, remote) = choose(offer)?;
    let mut text = preamble(local);
    for (i, m) in offer.media.iter().enumerate() {
        if i == chosen {
            let direction = if remote.address.is_unspecified() { Direction::RecvOnly } else { remote.direction.reversed() };
            audio_section(&mut text, local.port, remote.pcmu, remote.telephone_event, direction);
        } else {
            // RFC 3264 section 6: a refused stream keeps its place, with port 0 and at least one format.
            let format = m.formats.first().map_or("0", String::as_str);
            let _infallible = write!(text, "m={} 0 {} {format}\r\n", m.kind, m.protocol);
        }
    }
    Ok((text, remote))
}

/// Our own offer: PCMU and telephone-event.
pub fn offer(local: &LocalAudio) -> String {
    let mut text = preamble(local);
    audio_section(&mut text, local.port, PCMU_PAYLOAD_TYPE, Some(TELEPHONE_EVENT_PAYLOAD_TYPE), Direction::SendRecv);
    text
}

/// Our offer within a call: what is agreed, with another direction or address.
pub fn reoffer(local: &LocalAudio, agreed: &RemoteAudio, direction: Direction) -> String {
    let mut text = preamble(local);
    audio_section(&mut text, local.port, agreed.pcmu, agreed.telephone_event, direction);
    text
}

/// What an answer to our offer agreed.
pub fn agreed(answer: &Session) -> Result<RemoteAudio, SdpError> {
    choose(answer).map(|(_, remote)| remote)
}

fn preamble(local: &LocalAudio) -> String {
    let family = if local.address.is_ipv4() { "IP4" } else { "IP6" };
    format!(
        "v=0\r\no=- {} {} IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n",
        local.session_id,
        local.version,
        address = local.address
    )
}

fn audio_section(text: &mut String, port: u16, pcmu: u8, telephone_event: Option<u8>, direction: Direction) {
    let _infallible = match telephone_event {
        // Events 12 to 15 (A to D) are taken and ignored: 0-15 is what every peer expects to read here.
        Some(te) => write!(
            text,
            "m=audio {port} RTP/AVP {pcmu} {te}\r\na=rtpmap:{pcmu} PCMU/8000\r\na=rtpmap:{te} telephone-event/8000\r\na=fmtp:{te} 0-15\r\n"
        ),
        None => write!(text, "m=audio {port} RTP/AVP {pcmu}\r\na=rtpmap:{pcmu} PCMU/8000\r\n"),
    };
    let _infallible = write!(text, "a=ptime:20\r\na={}\r\n", direction.word());
}

/// The first audio stream that we can do.
fn choose(session: &Session) -> Result<(usize, RemoteAudio), SdpError> {
    let mut why = NO_AUDIO;
    for (i, m) in session.media.iter().enumerate() {
        if m.kind != "audio" || m.port == 0 || m.protocol != "RTP/AVP" {
            continue;
        }
        let types = || m.formats.iter().filter_map(|f| f.parse::<u8>().ok()).filter(|n| *n < 128);
        let mapped = |n: u8| m.rtpmap.iter().find(|(p, _)| *p == n).map(|(_, e)| e.as_str());
        // RFC 3551: 0 is PCMU without being told; a mapping, if there is one, has the last word.
        let is_pcmu = |n: u8| mapped(n).map_or(n == PCMU_PAYLOAD_TYPE, |e| e == "pcmu/8000" || e == "pcmu/8000/1");
        let Some(pcmu) = types().find(|n| is_pcmu(*n)) else {
            why = NO_CODEC;
            continue;
        };
        let Some(address) = m.address else {
            why = NO_ADDRESS;
            continue;
        };
        // The clock must be the audio's (RFC 4733 section 2.1): an event counted at 16000 would be misread.
        let telephone_event = types().find(|n| mapped(*n).is_some_and(|e| e == "telephone-event/8000"));
        return Ok((
            i,
            RemoteAudio { address, port: m.port, pcmu, telephone_event, ptime_ms: m.ptime_ms, direction: m.direction },
        ));
    }
    Err(why)
}

fn media_line(value: &str, address: Option<IpAddr>, direction: Direction, ptime_ms: Option<u32>) -> Result<Media, SdpError> {
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
    Ok(Media {
        kind: kind.to_ascii_lowercase(),
        port,
        protocol: protocol.to_owned(),
        formats,
        address,
        rtpmap: Vec::new(),
        ptime_ms,
        direction,
    })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOCAL: LocalAudio =
        LocalAudio { address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port: 40_000, session_id: 7, version: 1 };

    fn offered(body: &str) -> Result<(String, RemoteAudio), SdpError> {
        let text = format!("v=0\r\no=a 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n{body}");
        parse(text.as_bytes()).and_then(|s| answer(&s, &LOCAL))
    }

    #[test]
    fn a_plain_offer_is_answered_with_pcmu_and_telephone_events() {
        let (text, remote) = offered(
            "c=IN IP4 192.0.2.1\r\nm=audio 49170 RTP/AVP 8 0 96\r\na=rtpmap:96 telephone-event/8000\r\na=fmtp:96 0-16\r\na=ptime:30\r\n",
        )
        .unwrap();
        assert_eq!(remote.address.to_string(), "192.0.2.1");
        assert_eq!((remote.port, remote.pcmu, remote.telephone_event, remote.ptime_ms), (49_170, 0, Some(96), Some(30)));
        assert!(
            text.contains("m=audio 40000 RTP/AVP 0 96\r\n") && text.contains("a=rtpmap:96 telephone-event/8000\r\n"),
            "{text}"
        );
        assert!(text.contains("c=IN IP4 127.0.0.1\r\n") && text.ends_with("a=sendrecv\r\n"), "{text}");
        // Our own words can be read back.
        assert_eq!(agreed(&parse(text.as_bytes()).unwrap()).unwrap().port, 40_000);
        assert_eq!(
            agreed(&parse(offer(&LOCAL).as_bytes()).unwrap()).unwrap().telephone_event,
            Some(TELEPHONE_EVENT_PAYLOAD_TYPE)
        );
    }

    #[test]
    fn media_lines_override_what_the_session_says() {
        let (_, remote) =
            offered("c=IN IP4 192.0.2.1\r\na=inactive\r\nm=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.9\r\na=sendrecv\r\n")
                .unwrap();
        assert_eq!((remote.address.to_string().as_str(), remote.direction), ("192.0.2.9", Direction::SendRecv));
        let (text, remote) = offered("c=IN IP4 192.0.2.1\r\na=sendonly\r\nm=audio 4000 RTP/AVP 0\r\n").unwrap();
        assert_eq!(remote.direction, Direction::SendOnly);
        assert!(text.contains("a=recvonly"), "{text}");
        let (text, remote) = offered("c=IN IP4 0.0.0.0\r\nm=audio 4000 RTP/AVP 0\r\n").unwrap();
        assert!(remote.address.is_unspecified() && text.contains("a=recvonly"), "{text}");
    }

    #[test]
    fn streams_that_we_do_not_do_are_refused_in_their_place() {
        let (text, _) =
            offered("c=IN IP6 2001:db8::1\r\nm=video 5000 RTP/AVP 96\r\nm=audio 4000 RTP/AVP 0\r\nm=audio 4002 RTP/AVP 0\r\n")
                .unwrap();
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("m=")).collect();
        assert_eq!(lines, ["m=video 0 RTP/AVP 96", "m=audio 40000 RTP/AVP 0", "m=audio 0 RTP/AVP 0"]);
    }

    #[test]
    fn a_payload_type_counts_by_its_mapping() {
        let (text, remote) = offered("c=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 98\r\na=rtpmap:98 PCMU/8000/1\r\n").unwrap();
        assert_eq!(remote.pcmu, 98);
        assert!(text.contains("m=audio 40000 RTP/AVP 98\r\na=rtpmap:98 PCMU/8000\r\n"), "{text}");
        // A mapping may take 0 away, and an event clock that isn't the audio's is no use.
        assert_eq!(offered("c=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0\r\na=rtpmap:0 X/8000\r\n").unwrap_err(), NO_CODEC);
        let (_, remote) =
            offered("c=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 0 97\r\na=rtpmap:97 telephone-event/48000\r\n").unwrap();
        assert_eq!(remote.telephone_event, None);
    }

    #[test]
    fn what_cannot_be_agreed_says_why() {
        let c = "c=IN IP4 192.0.2.1\r\n";
        assert_eq!(offered(c).unwrap_err(), NO_AUDIO);
        assert_eq!(offered(&format!("{c}m=audio 4000 RTP/SAVP 0\r\n")).unwrap_err(), NO_AUDIO);
        assert_eq!(offered(&format!("{c}m=audio 0 RTP/AVP 0\r\n")).unwrap_err(), NO_AUDIO);
        assert_eq!(offered(&format!("{c}m=audio 4000 RTP/AVP 8 9 18\r\n")).unwrap_err(), NO_CODEC);
        assert_eq!(offered("c=IN IP4 host.example\r\nm=audio 4000 RTP/AVP 0\r\n").unwrap_err(), NO_ADDRESS);
        assert_eq!(offered("m=audio 4000 RTP/AVP 0\r\n").unwrap_err().status(), 488);
    }

    #[test]
    fn what_breaks_the_grammar_is_malformed() {
        for bad in ["", "hello", "v=1\r\n", "\r\n\r\n", "v=0\r\nnonsense\r\n", "v=0\r\nmm=1\r\n"] {
            assert_eq!(parse(bad.as_bytes()).unwrap_err().status(), 400, "{bad:?}");
        }
        for bad in
            ["m=audio\r\n", "m=audio x RTP/AVP 0\r\n", "m=audio 70000 RTP/AVP 0\r\n", "m=audio 4000 RTP/AVP\r\n", "c=IN\r\n"]
        {
            assert_eq!(offered(bad).unwrap_err().status(), 400, "{bad:?}");
        }
        assert_eq!(offered("m=audio 4000 RTP/AVP 0\r\na=rtpmap:300 PCMU/8000\r\n").unwrap_err().status(), 400);
        assert_eq!(parse(&vec![b'a'; SDP_LIMIT_BYTES + 1]).unwrap_err().status(), 400);
        assert_eq!(offered(&"m=video 0 RTP/AVP 9\r\n".repeat(SDP_LIMIT_MEDIA + 1)).unwrap_err().status(), 400);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _judged = parse(&bytes).and_then(|s| answer(&s, &LOCAL));
        }

        #[test]
        fn no_near_miss_makes_it_panic(lines in proptest::collection::vec("[vmcaosbt]=(audio|rtpmap:|IN IP4|ptime:|RTP/AVP|[0-9]{1,6}|[a-z/:. ]|é){0,12}", 0..20)) {
            let text = format!("v=0\r\n{}", lines.join("\r\n"));
            if let Ok((answered, remote)) = parse(text.as_bytes()).and_then(|s| answer(&s, &LOCAL)) {
                prop_assert!(parse(answered.as_bytes()).is_ok());
                prop_assert!(remote.port != 0);
            }
        }
    }
}
