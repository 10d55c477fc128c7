//! G.711: the codec of every telephone. Tables and encoders are `audio-codec`'s; the tests hold all 256 codes and all
//! 65,536 samples to ITU-T G.711's own tables, computed here by another road.

use audio_codec::pcma::{PcmaDecoder, PcmaEncoder};
use audio_codec::pcmu::{PcmuDecoder, PcmuEncoder};
use audio_codec::{Decoder, Encoder};

/// A codec that we negotiate. Both are 8 kHz, a byte a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 μ-law, static payload type 0 (RFC 3551 section 6).
    Pcmu,
    /// G.711 A-law, static payload type 8.
    Pcma,
}

impl Codec {
    /// As SDP names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// RFC 3551's payload type.
    pub fn static_payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }

    /// The code of a zero sample.
    pub fn silence(self) -> u8 {
        match self {
            Self::Pcmu => 0xff,
            Self::Pcma => 0xd5,
        }
    }

    /// A byte a sample.
    pub fn encode(self, samples: &[i16]) -> Vec<u8> {
        let mut out = vec![self.silence(); samples.len()];
        // Only an `out` shorter than `samples` is an error.
        let _ = match self {
            Self::Pcmu => PcmuEncoder::new().encode_into(samples, &mut out),
            Self::Pcma => PcmaEncoder::new().encode_into(samples, &mut out),
        };
        out
    }

    /// A sample a byte; every byte is a valid code.
    pub fn decode(self, payload: &[u8]) -> Vec<i16> {
        let mut out = vec![0i16; payload.len()];
        let _ = match self {
            Self::Pcmu => PcmuDecoder::new().decode_into(payload, &mut out),
            Self::Pcma => PcmaDecoder::new().decode_into(payload, &mut out),
        };
        out
    }
}
