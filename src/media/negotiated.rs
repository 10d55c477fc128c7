//! What offer and answer settled for a call's audio, whichever signalling did it.

use std::net::SocketAddr;

use super::codec::Codec;
pub use super::opus::OpusBitrate;
use super::srtp::SrtpKeys;

/// Keys as packets (RFC 4733).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// Its payload type.
    pub payload_type: u8,
    /// In which durations are counted. It should be the audio's clock (section 2.1); peers that offer Opus with events at 8000
    /// only are taken at their word.
    pub clock_hz: u32,
}

/// Where RTCP goes to and comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtcpPath {
    /// One port above RTP's, at both ends (RFC 3550 section 11).
    #[default]
    NextPort,
    /// RTP's own port (RFC 5761).
    Muxed,
    /// The peer's is elsewhere (RFC 3605); ours is one above RTP's.
    At(SocketAddr),
}

/// One audio stream in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegotiatedMedia {
    /// The audio codec.
    pub codec: Codec,
    /// Its payload type in what we send. Packets with it are heard as well.
    pub payload_type: u8,
    /// Its payload type in what the peer should send: differs only where the peer answered our offer with a number of its own
    /// (RFC 3264 section 6.1).
    pub payload_type_heard: u8,
    /// Of Opus that is sent to the peer.
    pub opus: OpusBitrate,
    /// If the peer takes and sends keys so.
    pub telephone_event: Option<TelephoneEvent>,
    /// Comfort noise (RFC 3389), if it was agreed. 13 is taken unasked as well.
    pub comfort_noise: Option<u8>,
    /// Keys, if both directions are SRTP.
    pub srtp: Option<SrtpKeys>,
    /// The way of RTCP.
    pub rtcp: RtcpPath,
}

impl NegotiatedMedia {
    /// This codec under this payload type, and nothing beside it.
    pub fn new(codec: Codec, payload_type: u8) -> Self {
        Self {
            codec,
            payload_type,
            payload_type_heard: payload_type,
            opus: OpusBitrate::default(),
            telephone_event: None,
            comfort_noise: None,
            srtp: None,
            rtcp: RtcpPath::default(),
        }
    }

    /// With keys, counted at this clock.
    #[must_use]
    pub fn with_telephone_event(mut self, payload_type: u8, clock_hz: u32) -> Self {
        self.telephone_event = Some(TelephoneEvent { payload_type, clock_hz });
        self
    }
}
