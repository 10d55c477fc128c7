//! Opus for voice: 16 kHz mono both ways (8 kHz where there are few bits), over `opus-rs`. `audio-codec` wraps the same crate, but cuts
//! packets at 20 ms, starts the decoder anew whenever a peer changes between mono and stereo, and passes on neither concealment nor FEC.
//!
//! The decoder meets bytes from the network, so a panic within it is caught: the stream then begins anew.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use opus_rs::{Application, OpusDecoder, OpusEncoder};

use super::frame::SampleRate;
use super::resample::Resampler;

/// Of the samples.
const RATE_HZ: i32 = 16_000;
/// Timestamp units (RFC 7587 section 4.1: always 48 kHz) a sample.
const UNITS_PER_SAMPLE: u32 = 3;
/// Longest packet, in milliseconds (RFC 6716 section 3.2.5).
pub const PACKET_MAX_MS: u32 = 120;
/// Its samples at 16 kHz.
const PACKET_MAX_SAMPLES: usize = 1_920;
/// Longest frame, in bytes (RFC 6716 section 3.2.1), with its first byte.
const PACKET_MAX_BYTES: usize = 1_276;
/// What concealment is measured in: 2.5 ms, in samples.
const CONCEAL_STEP_SAMPLES: usize = 40;
/// Of what we send: transparent for speech up to 8 kHz (RFC 7587 section 3.1.1 recommends 16 to 20 kbit/s for wideband).
const BITRATE_BPS: i32 = 32_000;
/// The least that an Opus encoder is asked for (RFC 7587 section 6.1).
const BITRATE_MIN_BPS: i32 = 6_000;
/// With fewer bits than this the telephone's band is worth more than all of it: where libopus, too, changes over. `opus-rs` codes the band of the rate
/// that it is given, at any number of bits.
const NARROW_BELOW_BPS: i32 = 9_000;
/// Of the samples that are coded then.
const NARROW_RATE_HZ: i32 = 8_000;
/// What goes before them, in samples (2 ms): the resampler keeps back half its length, and each packet has to be full.
const NARROW_LEAD_SAMPLES: usize = 16;
/// 0 to 10. Prompts are clean speech; beyond 5 only the processor hears a difference.
const COMPLEXITY: i32 = 5;

/// How many units of the 48 kHz clock a packet lasts (RFC 6716 section 3.1, 3.2); `None` if it is no Opus packet. Nothing but
/// its first two bytes is looked at.
pub fn packet_units(payload: &[u8]) -> Option<u32> {
    let toc = *payload.first()?;
    let config = toc >> 3;
    let frame: u32 = match (config, config & 3) {
        // SILK: 10, 20, 40, 60 ms.
        (0..=11, 0) => 480,
        (0..=11, 1) => 960,
        (0..=11, 2) => 1_920,
        (0..=11, _) => 2_880,
        // Hybrid: 10, 20 ms.
        (12..=15, 0 | 2) => 480,
        (12..=15, _) => 960,
        // CELT: 2.5, 5, 10, 20 ms.
        (_, step) => 120 << step,
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(*payload.get(1)? & 0x3f),
    };
    Some(frame * frames).filter(|units| (1..=PACKET_MAX_MS * 48).contains(units))
}

/// Bits a second of the Opus that we send, as the other end asks (`maxaveragebitrate`, RFC 7587 section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpusBitrate(i32);

impl Default for OpusBitrate {
    fn default() -> Self {
        Self(BITRATE_BPS)
    }
}

impl OpusBitrate {
    /// From a format's parameters (`minptime=10;maxaveragebitrate=8000`), within what we use. What can't be read asks for nothing.
    ///
    /// `useinbandfec` is not followed: what `opus-rs` puts into the next packet leaves less of a recording than concealment does (8.9 dB beside 11.5,
    /// every tenth packet lost).
    pub fn of(format: &str) -> Self {
        let asked = format.split(';').filter_map(|parameter| parameter.trim().split_once('=')).find_map(|(name, value)| {
            (name.trim() == "maxaveragebitrate").then(|| value.trim().parse::<i32>().ok().filter(|bps| *bps > 0))?
        });
        asked.map_or_else(Self::default, |bps| Self(bps.clamp(BITRATE_MIN_BPS, BITRATE_BPS)))
    }
}

/// Of one stream that we send.
pub struct OpusVoiceEncoder {
    bitrate: OpusBitrate,
    encoder: Option<Box<OpusEncoder>>,
    /// Where there are bits for the telephone's band alone.
    narrow: Option<Narrow>,
}

/// On the way to the telephone's band.
struct Narrow {
    resampler: Resampler,
    waiting: Vec<i16>,
}

impl OpusVoiceEncoder {
    /// The encoder itself (about 250 kB) is made with the first frame.
    pub fn new(bitrate: OpusBitrate) -> Self {
        let narrow = (bitrate.0 < NARROW_BELOW_BPS).then(|| Narrow {
            resampler: Resampler::new(SampleRate::HZ_16000, SampleRate::HZ_8000),
            waiting: vec![0; NARROW_LEAD_SAMPLES],
        });
        Self { bitrate, encoder: None, narrow }
    }

    /// Appends the packet of 10, 20, 40 or 60 ms.
    pub fn encode(&mut self, samples: &[i16], payload: &mut Vec<u8>) -> bool {
        let Some(Narrow { resampler, waiting }) = &mut self.narrow else { return self.packet(RATE_HZ, samples, payload) };
        resampler.push(samples, waiting);
        let count = samples.len() / 2;
        if waiting.len() < count {
            return false;
        }
        let piece: Vec<i16> = waiting.drain(..count).collect();
        self.packet(NARROW_RATE_HZ, &piece, payload)
    }

    fn packet(&mut self, rate_hz: i32, samples: &[i16], payload: &mut Vec<u8>) -> bool {
        if self.encoder.is_none() {
            // The rate is one that Opus has: it can't fail.
            self.encoder = OpusEncoder::new(rate_hz, 1, Application::Voip).ok().map(|mut encoder| {
                encoder.bitrate_bps = self.bitrate.0;
                encoder.complexity = COMPLEXITY;
                Box::new(encoder)
            });
        }
        let Some(encoder) = &mut self.encoder else { return false };
        let start = payload.len();
        payload.resize(start + PACKET_MAX_BYTES, 0);
        let room = payload.get_mut(start..).unwrap_or_default();
        let written = encoder.encode_i16(samples, samples.len(), room).unwrap_or(0);
        payload.truncate(start + written);
        written > 0
    }
}

/// Of one stream that we hear.
pub struct OpusVoiceDecoder(Option<Box<OpusDecoder>>);

impl OpusVoiceDecoder {
    /// The decoder itself (about 100 kB) is made with the first packet.
    pub fn new() -> Self {
        Self(None)
    }

    /// Appends a packet's samples; stereo is folded.
    pub fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) -> bool {
        let Some(units) = packet_units(payload) else { return false };
        let count = usize::try_from(units / UNITS_PER_SAMPLE).unwrap_or(0);
        self.run(count, samples, |decoder, room| decoder.decode(payload, count, room))
    }

    /// Appends so many samples in place of lost ones: the last of them from `next`'s forward error correction if it carries any,
    /// the others carried on from before.
    pub fn conceal(&mut self, count: usize, next: Option<&[u8]>, samples: &mut Vec<i16>) -> bool {
        // Before the first packet there is nothing to carry on.
        if self.0.is_none() || count == 0 || !count.is_multiple_of(CONCEAL_STEP_SAMPLES) || count > PACKET_MAX_SAMPLES {
            return false;
        }
        self.run(count, samples, |decoder, room| match next {
            Some(next) => decoder.decode_fec(next, count, room),
            None => decoder.decode(&[], count, room),
        })
    }

    fn run(
        &mut self,
        count: usize,
        samples: &mut Vec<i16>,
        work: impl FnOnce(&mut OpusDecoder, &mut [f32]) -> Result<usize, &'static str>,
    ) -> bool {
        if self.0.is_none() {
            self.0 = OpusDecoder::new(RATE_HZ, 1).ok().map(Box::new);
        }
        let Some(decoder) = &mut self.0 else { return false };
        let mut room = [0f32; PACKET_MAX_SAMPLES];
        let Some(room) = room.get_mut(..count) else { return false };
        let done = catch_unwind(AssertUnwindSafe(|| work(decoder, room)));
        if done.is_err() {
            self.0 = None;
        }
        let good = matches!(done, Ok(Ok(written)) if written == count);
        if good {
            samples.extend(room.iter().map(|sample| sixteen_bits(*sample)));
        }
        good
    }
}

/// Full scale is 1.
#[allow(clippy::as_conversions, clippy::cast_possible_truncation)] // clamped before; NaN becomes 0
fn sixteen_bits(sample: f32) -> i16 {
    (sample * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16
}
