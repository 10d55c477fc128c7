//! Session descriptions (RFC 4566) and offer/answer (RFC 3264) for one audio stream: several codecs by preference,
//! telephone-events (RFC 4733), comfort noise, RTP in the clear or as SRTP with keys in the description (SDES, RFC 4568). PURE.
//! What arrives is never trusted: every list has a limit, and every fault has a sentence.
//!
//! `parse` reads, `answer` answers offers, `offer` makes ours and reads what came of them, `crypto` is `a=crypto`.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::media::config::{MediaConfig, SrtpPolicy};
use crate::media::rtp_session::{Codec, NegotiatedMedia};

mod answer;
mod choose;
mod crypto;
mod offer;
mod parse;
mod write;

pub use answer::{answer, answerable};
pub use offer::{Offered, offer};
pub use parse::{Session, parse};

/// A description longer than this is refused; UDP's 64 kB is not a licence.
pub const SDP_LIMIT_BYTES: usize = 16 * 1024;
/// `m=` lines in one description.
pub const SDP_LIMIT_MEDIA: usize = 32;
/// Formats in one `m=` line, and as many mappings and keys.
pub const SDP_LIMIT_FORMATS: usize = 64;
/// What our own offers call Opus.
pub const OPUS_PAYLOAD_TYPE: u8 = 111;
/// What our own offers call telephone-event at 8 kHz.
pub const TELEPHONE_EVENT_PAYLOAD_TYPE: u8 = 101;
/// What our own offers call telephone-event at 48 kHz.
pub const WIDE_TELEPHONE_EVENT_PAYLOAD_TYPE: u8 = 110;
/// Comfort noise (RFC 3551 table 4).
pub const COMFORT_NOISE_PAYLOAD_TYPE: u8 = 13;

/// Warn-codes of RFC 3261 section 20.43.
const WARN_ADDRESS: u16 = 301;
const WARN_TRANSPORT: u16 = 302;
const WARN_MEDIA: u16 = 304;
const WARN_FORMAT: u16 = 305;

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

/// What we are willing to agree to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioPolicy {
    /// Best first; an offer's own order counts only where ours says nothing.
    pub codecs: Vec<Codec>,
    /// Whether audio must, may or must not be encrypted.
    pub srtp: SrtpPolicy,
    /// The signalling itself is encrypted (TLS): only then is a key in a description a secret.
    pub secure_signalling: bool,
}

impl AudioPolicy {
    /// As configured; a trunk's own word on SRTP has precedence.
    pub fn new(media: &MediaConfig, srtp: Option<SrtpPolicy>, secure_signalling: bool) -> Self {
        Self { codecs: media.codecs.clone(), srtp: srtp.unwrap_or(media.srtp), secure_signalling }
    }

    /// Whether our own offers carry keys: a key in plain text protects nobody, so without TLS only if nothing else is allowed.
    fn offers_srtp(&self) -> bool {
        match self.srtp {
            SrtpPolicy::Off => false,
            SrtpPolicy::Offered => self.secure_signalling,
            SrtpPolicy::Required => true,
        }
    }
}

/// The other side's audio, agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteAudio {
    /// Where its RTP is received. Unspecified (`0.0.0.0`): on hold, nothing may be sent.
    pub address: IpAddr,
    /// There.
    pub port: u16,
    /// Codec, payload types, keys, RTCP.
    pub media: NegotiatedMedia,
    /// What it asked for; `None`: 20 ms, which is what we send anyway.
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
        text: Cow<'static, str>,
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

    /// It failed for encryption: there, missing, or of another kind than ours.
    pub fn is_transport(&self) -> bool {
        self.warn_code() == WARN_TRANSPORT
    }

    fn not_acceptable(warn_code: u16, text: &'static str) -> Self {
        Self::NotAcceptable { warn_code, text: Cow::Borrowed(text) }
    }
}

#[cfg(test)]
mod offers_tests;
#[cfg(test)]
mod tests;
