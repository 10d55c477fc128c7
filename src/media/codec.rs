//! The codecs that we negotiate, and their two halves: an encoder and a decoder for one stream each, with the memory that
//! G.722 and Opus have. Payloads in, samples out; which packet comes when is `jitter`'s business.
//!
//! Wideband codecs speak 16 kHz here, Opus too: it is what the voice and digit models are fed with, so nothing is resampled
//! on its way to them, and a decoder asked for 16 kHz gives the band up to 8 kHz whatever rate the peer encoded.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use audio_codec::g722::{G722Decoder, G722Encoder};
use audio_codec::{Decoder as _, Encoder as _};

use super::frame::SampleRate;
use super::g711::Law;
use super::opus::{OpusBitrate, OpusVoiceDecoder, OpusVoiceEncoder, packet_units};

/// A codec that we negotiate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// G.711 μ-law, static payload type 0 (RFC 3551 section 4.5.14).
    Pcmu,
    /// G.711 A-law, static payload type 8.
    Pcma,
    /// G.722 at 64 kbit/s, static payload type 9: 16 kHz audio under an RTP clock of 8 kHz, by an old mistake that became the
    /// rule (RFC 3551 section 4.5.2).
    G722,
    /// Opus (RFC 6716, RFC 7587): dynamic payload type, RTP clock of 48 kHz whatever is encoded.
    Opus,
}

impl Codec {
    /// As SDP's `rtpmap` names it.
    pub fn encoding_name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::Opus => "opus",
        }
    }

    /// RFC 3551's payload type, where it gives one.
    pub fn static_payload_type(self) -> Option<u8> {
        match self {
            Self::Pcmu => Some(0),
            Self::Pcma => Some(8),
            Self::G722 => Some(9),
            Self::Opus => None,
        }
    }

    /// Of the timestamps on the wire.
    pub fn rtp_clock_hz(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 => 8_000,
            Self::Opus => 48_000,
        }
    }

    /// The third word of its `rtpmap`: Opus always says 2, whatever it carries (RFC 7587 section 7).
    pub fn rtpmap_channels(self) -> u8 {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 => 1,
            Self::Opus => 2,
        }
    }

    /// Of the samples that its encoder takes and its decoder gives.
    pub fn rate(self) -> SampleRate {
        match self {
            Self::Pcmu | Self::Pcma => SampleRate::HZ_8000,
            Self::G722 | Self::Opus => SampleRate::HZ_16000,
        }
    }

    /// How many timestamp units a payload lasts; `None`: it is none of this codec's, or lasts nothing.
    pub fn payload_units(self, payload: &[u8]) -> Option<u32> {
        match self {
            // A byte a unit: for G.722 a byte is two samples, and a unit is two samples as well.
            Self::Pcmu | Self::Pcma | Self::G722 => u32::try_from(payload.len()).ok().filter(|units| *units > 0),
            Self::Opus => packet_units(payload),
        }
    }

    /// How many samples `units` of the RTP clock last, rounded down.
    pub fn samples_in(self, units: u32) -> usize {
        let samples = u64::from(units) * u64::from(self.rate().hz()) / u64::from(self.rtp_clock_hz());
        usize::try_from(samples).unwrap_or(usize::MAX)
    }

    /// How many units of the RTP clock `samples` last, rounded up.
    pub fn units_in(self, samples: usize) -> u32 {
        let units = u64::try_from(samples).unwrap_or(u64::MAX).saturating_mul(self.rtp_clock_hz().into());
        u32::try_from(units.div_ceil(self.rate().hz().into())).unwrap_or(u32::MAX)
    }

    /// An encoder for one stream.
    pub fn encoder(self, opus: OpusBitrate) -> Encoder {
        Encoder(match self {
            Self::Pcmu => EncoderKind::G711(Law::Mu),
            Self::Pcma => EncoderKind::G711(Law::A),
            Self::G722 => EncoderKind::G722(Box::default()),
            Self::Opus => EncoderKind::Opus(OpusVoiceEncoder::new(opus)),
        })
    }

    /// A decoder for one stream.
    pub fn decoder(self) -> Decoder {
        Decoder(match self {
            Self::Pcmu => DecoderKind::G711(Law::Mu),
            Self::Pcma => DecoderKind::G711(Law::A),
            Self::G722 => DecoderKind::G722(Box::default()),
            Self::Opus => DecoderKind::Opus(OpusVoiceDecoder::new()),
        })
    }
}

/// One stream's encoder.
pub struct Encoder(EncoderKind);

enum EncoderKind {
    G711(Law),
    G722(Box<G722Encoder>),
    Opus(OpusVoiceEncoder),
}

impl std::fmt::Debug for Encoder {
    /// Never its memory: that is audio.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            EncoderKind::G711(Law::Mu) => "Encoder(PCMU)",
            EncoderKind::G711(Law::A) => "Encoder(PCMA)",
            EncoderKind::G722(_) => "Encoder(G722)",
            EncoderKind::Opus(_) => "Encoder(opus)",
        })
    }
}

impl Encoder {
    /// Appends the payload of one packet: 10, 20, 40 or 60 ms of samples at the codec's rate. False (nothing appended): the
    /// codec has no frame of that length.
    pub fn encode(&mut self, samples: &[i16], payload: &mut Vec<u8>) -> bool {
        match &mut self.0 {
            EncoderKind::G711(law) => {
                law.encode_onto(samples, payload);
                true
            }
            EncoderKind::G722(encoder) => {
                let start = payload.len();
                payload.resize(start + samples.len() / 2, 0);
                let written = encoder.encode_into(samples, payload.get_mut(start..).unwrap_or_default()).unwrap_or(0);
                payload.truncate(start + written);
                written > 0
            }
            EncoderKind::Opus(encoder) => encoder.encode(samples, payload),
        }
    }
}

/// One stream's decoder.
pub struct Decoder(DecoderKind);

enum DecoderKind {
    G711(Law),
    G722(Box<G722Decoder>),
    Opus(OpusVoiceDecoder),
}

impl std::fmt::Debug for Decoder {
    /// Never its memory: that is audio.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            DecoderKind::G711(Law::Mu) => "Decoder(PCMU)",
            DecoderKind::G711(Law::A) => "Decoder(PCMA)",
            DecoderKind::G722(_) => "Decoder(G722)",
            DecoderKind::Opus(_) => "Decoder(opus)",
        })
    }
}

impl Decoder {
    /// Appends a payload's samples; false (nothing appended) if it can't be decoded.
    pub fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) -> bool {
        match &mut self.0 {
            DecoderKind::G711(law) => {
                law.decode_onto(payload, samples);
                true
            }
            DecoderKind::G722(decoder) => {
                let start = samples.len();
                samples.resize(start + 2 * payload.len(), 0);
                let written = decoder.decode_into(payload, samples.get_mut(start..).unwrap_or_default()).unwrap_or(0);
                samples.truncate(start + written);
                written > 0
            }
            DecoderKind::Opus(decoder) => decoder.decode(payload, samples),
        }
    }

    /// Appends `count` samples in place of lost ones, from what the stream said before and, where the codec has it, from what
    /// the packet after the gap (`next`) says of it. False (nothing appended): this codec can't; make something up elsewhere.
    pub fn conceal(&mut self, count: usize, next: Option<&[u8]>, samples: &mut Vec<i16>) -> bool {
        match &mut self.0 {
            DecoderKind::G711(_) | DecoderKind::G722(_) => false,
            DecoderKind::Opus(decoder) => decoder.conceal(count, next, samples),
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::as_conversions)]
#[path = "codec_tests.rs"]
mod tests;
