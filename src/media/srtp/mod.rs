//! SRTP and SRTCP (RFC 3711; AES-256 after RFC 6188, AES-GCM after RFC 7714), keyed by signalling (SDES, RFC 4568). Pure: a
//! packet and a context in, a packet out. Keys wipe themselves and never print.
//!
//! One [`Outbound`] and one [`Inbound`] a call; each does RTP and RTCP. No key derivation rate, no MKI, encryption always on:
//! what SDES peers use.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use subtle::ConstantTimeEq;
use thiserror::Error;

mod cipher;
mod keys;
mod replay;

pub use keys::{MasterKey, SrtpKeys, Suite};

use cipher::{Direction, StreamKeys};
use replay::ReplayWindow;

/// Senders that one key is followed for. A call has two or three; whoever holds the key could make up more.
pub const INBOUND_STREAMS_MAX: usize = 32;
/// Most that protection adds to a packet: the tag of AES-GCM and SRTCP's index.
pub const PROTECTION_MAX_BYTES: usize = 20;
/// Packets that one key may protect as RTCP (RFC 3711 section 9.2).
const RTCP_INDEX_MAX: u32 = 0x7fff_ffff;
/// Fixed part of an RTP header.
const RTP_HEADER_BYTES: usize = 12;
/// What SRTCP leaves in the clear.
const RTCP_HEADER_BYTES: usize = 8;
/// SRTCP's index with its E bit.
const RTCP_INDEX_BYTES: usize = 4;

/// Why a packet can't be protected or is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SrtpError {
    /// Too short, or its header says that it is longer than it is.
    #[error("the packet is malformed")]
    Malformed,
    /// Its tag is wrong: another key, or it was changed on the way.
    #[error("the packet is not authentic")]
    NotAuthentic,
    /// It has come before, or is too old to tell.
    #[error("the packet was received before, or is too old")]
    Replayed,
    /// More senders than [`INBOUND_STREAMS_MAX`].
    #[error("too many senders under one key")]
    TooManyStreams,
    /// The key has protected as many packets as it may.
    #[error("the key is used up")]
    KeyUsedUp,
}

/// What we send, under our key. One SSRC.
#[derive(Debug)]
pub struct Outbound {
    rtp: StreamKeys,
    rtcp: StreamKeys,
    // Extended by the rollover counter; of the last packet.
    last: Option<u64>,
    rtcp_index: u32,
}

impl Outbound {
    /// Under this key, from the first packet on.
    pub fn new(key: &MasterKey) -> Self {
        Self { rtp: StreamKeys::new(key, Direction::Rtp), rtcp: StreamKeys::new(key, Direction::Rtcp), last: None, rtcp_index: 0 }
    }

    /// Another key in the middle of a stream: the rollover counter goes on (RFC 3711 section 3.3.1). So does SRTCP's index: if a
    /// key ever came back, nothing would be encrypted twice under the same index.
    pub fn rekey(&mut self, key: &MasterKey) {
        let (last, rtcp_index) = (self.last, self.rtcp_index);
        *self = Self { last, rtcp_index, ..Self::new(key) };
    }

    /// Turns an RTP packet into an SRTP packet. Packets must come in the order of their sequence numbers.
    pub fn protect_rtp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        let header = RtpHeader::parse(packet)?;
        let index = self.last.map_or(u64::from(header.sequence), |last| estimate(last, header.sequence));
        let roc = u32::try_from(index >> 16).map_err(|_| SrtpError::KeyUsedUp)?;
        self.last = Some(self.last.map_or(index, |last| last.max(index)));
        let start = packet.len();
        packet.resize(start + self.rtp.tag_bytes(), 0);
        let (body, tag) = packet.split_at_mut_checked(start).ok_or(SrtpError::Malformed)?;
        self.rtp.seal_rtp(body, header.length, header.ssrc, roc, header.sequence, tag)
    }

    /// Turns a compound RTCP packet into an SRTCP packet.
    pub fn protect_rtcp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        let ssrc = rtcp_ssrc(packet)?;
        let index = self.rtcp_index;
        if index > RTCP_INDEX_MAX {
            return Err(SrtpError::KeyUsedUp);
        }
        self.rtcp_index += 1;
        let start = packet.len();
        packet.resize(start + self.rtcp.tag_bytes() + RTCP_INDEX_BYTES, 0);
        let (body, trailer) = packet.split_at_mut_checked(start).ok_or(SrtpError::Malformed)?;
        self.rtcp.seal_rtcp(body, RTCP_HEADER_BYTES, ssrc, index, trailer)
    }
}

/// What we hear, under the peer's key.
#[derive(Debug)]
pub struct Inbound {
    rtp: StreamKeys,
    rtcp: StreamKeys,
    streams: Vec<Stream>,
}

#[derive(Clone, Debug)]
struct Stream {
    ssrc: u32,
    // Highest index that was authentic; none if only RTCP has come.
    highest: Option<u64>,
    rtp: ReplayWindow,
    rtcp: ReplayWindow,
}

impl Inbound {
    /// Under this key.
    pub fn new(key: &MasterKey) -> Self {
        Self { rtp: StreamKeys::new(key, Direction::Rtp), rtcp: StreamKeys::new(key, Direction::Rtcp), streams: Vec::new() }
    }

    /// Another key: some senders go on with their rollover counters, others begin at zero, and both are understood.
    pub fn rekey(&mut self, key: &MasterKey) {
        let streams =
            self.streams.iter().map(|s| Stream { rtp: ReplayWindow::default(), rtcp: ReplayWindow::default(), ..s.clone() });
        *self = Self { streams: streams.collect(), ..Self::new(key) };
    }

    /// Turns an SRTP packet back into RTP where it lies; says how long that is. The packet is garbage after an error.
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let header = RtpHeader::parse(packet)?;
        let length =
            packet.len().checked_sub(self.rtp.tag_bytes()).filter(|l| *l >= header.length).ok_or(SrtpError::Malformed)?;
        let (body, tag) = packet.split_at_mut_checked(length).ok_or(SrtpError::Malformed)?;
        let known = self.streams.iter().position(|s| s.ssrc == header.ssrc);
        let stream = known.and_then(|at| self.streams.get(at));
        let last = stream.and_then(|s| s.highest);
        let mut index = last.map_or(u64::from(header.sequence), |last| estimate(last, header.sequence));
        if stream.is_some_and(|s| !s.rtp.is_new(index)) {
            return Err(SrtpError::Replayed);
        }
        if known.is_none() && self.streams.len() >= INBOUND_STREAMS_MAX {
            return Err(SrtpError::TooManyStreams);
        }
        // Nothing of this key has come yet: the counter of the last one is a guess, and zero the other.
        let is_guess = stream.is_some_and(|s| s.rtp.is_empty()) && index >> 16 != 0;
        let mut open = |index: u64| {
            let roc = u32::try_from(index >> 16).map_err(|_| SrtpError::KeyUsedUp)?;
            self.rtp.open_rtp(body, header.length, header.ssrc, roc, header.sequence, tag)
        };
        match open(index) {
            Err(SrtpError::NotAuthentic) if is_guess => {
                index = u64::from(header.sequence);
                open(index)?;
            }
            done => done?,
        }
        let stream = self.stream(header.ssrc);
        // A guess that was wrong is corrected downwards, too.
        let is_first = stream.rtp.is_empty();
        stream.highest = Some(stream.highest.filter(|_| !is_first).map_or(index, |last| last.max(index)));
        stream.rtp.mark(index);
        Ok(length)
    }

    /// Turns an SRTCP packet back into RTCP where it lies; says how long that is.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let ssrc = rtcp_ssrc(packet)?;
        let added = self.rtcp.tag_bytes() + RTCP_INDEX_BYTES;
        let length = packet.len().checked_sub(added).filter(|l| *l >= RTCP_HEADER_BYTES).ok_or(SrtpError::Malformed)?;
        let (body, trailer) = packet.split_at_mut_checked(length).ok_or(SrtpError::Malformed)?;
        let index = self.rtcp.rtcp_index(trailer).ok_or(SrtpError::Malformed)?;
        let known = self.streams.iter().find(|s| s.ssrc == ssrc);
        if known.is_some_and(|s| !s.rtcp.is_new(index.into())) {
            return Err(SrtpError::Replayed);
        }
        if known.is_none() && self.streams.len() >= INBOUND_STREAMS_MAX {
            return Err(SrtpError::TooManyStreams);
        }
        self.rtcp.open_rtcp(body, RTCP_HEADER_BYTES, ssrc, trailer)?;
        self.stream(ssrc).rtcp.mark(index.into());
        Ok(length)
    }

    /// Only for a packet that was authentic: nobody else may make us remember anything.
    fn stream(&mut self, ssrc: u32) -> &mut Stream {
        let at = self.streams.iter().position(|s| s.ssrc == ssrc).unwrap_or_else(|| {
            self.streams.push(Stream { ssrc, highest: None, rtp: ReplayWindow::default(), rtcp: ReplayWindow::default() });
            self.streams.len() - 1
        });
        // `at` was found or pushed just now.
        #[allow(clippy::indexing_slicing)]
        &mut self.streams[at]
    }
}

/// The index whose low 16 bits are `sequence` and that is nearest to `last` (RFC 3711 section 3.3.1 and appendix A).
fn estimate(last: u64, sequence: u16) -> u64 {
    let (roc, low) = (last >> 16, last & 0xffff);
    let sequence = u64::from(sequence);
    let roc = if low < 0x8000 && sequence > low + 0x8000 {
        roc.saturating_sub(1)
    } else if low >= 0x8000 && low - 0x8000 > sequence {
        roc + 1
    } else {
        roc
    };
    roc << 16 | sequence
}

struct RtpHeader {
    // With CSRCs and extension.
    length: usize,
    sequence: u16,
    ssrc: u32,
}

impl RtpHeader {
    fn parse(packet: &[u8]) -> Result<Self, SrtpError> {
        let fixed = packet.first_chunk::<RTP_HEADER_BYTES>().ok_or(SrtpError::Malformed)?;
        let &[flags, _, s1, s0, _, _, _, _, r3, r2, r1, r0] = fixed;
        if flags >> 6 != 2 {
            return Err(SrtpError::Malformed);
        }
        let mut length = RTP_HEADER_BYTES + 4 * usize::from(flags & 0x0f);
        if flags & 0x10 != 0 {
            let words = packet.get(length + 2..length + 4).and_then(|w| w.first_chunk::<2>()).ok_or(SrtpError::Malformed)?;
            length += 4 + 4 * usize::from(u16::from_be_bytes(*words));
        }
        if packet.len() < length {
            return Err(SrtpError::Malformed);
        }
        Ok(Self { length, sequence: u16::from_be_bytes([s1, s0]), ssrc: u32::from_be_bytes([r3, r2, r1, r0]) })
    }
}

fn rtcp_ssrc(packet: &[u8]) -> Result<u32, SrtpError> {
    match packet.first_chunk::<RTCP_HEADER_BYTES>() {
        Some(&[flags, _, _, _, r3, r2, r1, r0]) if flags >> 6 == 2 => Ok(u32::from_be_bytes([r3, r2, r1, r0])),
        Some(_) | None => Err(SrtpError::Malformed),
    }
}

/// Whether two tags are the same, in a time that tells nothing.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::as_conversions)]
mod tests;
