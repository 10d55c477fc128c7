//! G.711: the codec of every telephone. μ-law and the A-law decoder are `audio-codec`'s; its A-law encoder puts small negative
//! samples at zero's other side and shifts negative edges, so that one is ours. The tests hold all 256 codes and all
//! 65,536 samples to ITU-T G.711's decision values, computed by another road.

use audio_codec::pcma::PcmaDecoder;
use audio_codec::pcmu::{PcmuDecoder, PcmuEncoder};
use audio_codec::{Decoder, Encoder};

/// How amplitudes are companded; a byte a sample, both ways without memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Law {
    /// North America and Japan.
    Mu,
    /// The rest of the world.
    A,
}

impl Law {
    /// The code of a zero sample.
    pub fn silence(self) -> u8 {
        match self {
            Self::Mu => 0xff,
            Self::A => 0xd5,
        }
    }

    /// A byte a sample.
    pub fn encode(self, samples: &[i16]) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_onto(samples, &mut out);
        out
    }

    /// Appends a byte a sample.
    pub fn encode_onto(self, samples: &[i16], out: &mut Vec<u8>) {
        match self {
            Self::Mu => {
                let start = out.len();
                out.resize(start + samples.len(), self.silence());
                // Only room for less than `samples` is an error.
                let _ = PcmuEncoder::new().encode_into(samples, out.get_mut(start..).unwrap_or_default());
            }
            Self::A => out.extend(samples.iter().map(|&sample| a_law(sample))),
        }
    }

    /// A sample a byte; every byte is a valid code.
    pub fn decode(self, payload: &[u8]) -> Vec<i16> {
        let mut out = Vec::new();
        self.decode_onto(payload, &mut out);
        out
    }

    /// Appends a sample a byte.
    pub fn decode_onto(self, payload: &[u8], out: &mut Vec<i16>) {
        let start = out.len();
        out.resize(start + payload.len(), 0);
        let room = out.get_mut(start..).unwrap_or_default();
        let _ = match self {
            Self::Mu => PcmuDecoder::new().decode_into(payload, room),
            Self::A => PcmaDecoder::new().decode_into(payload, room),
        };
    }
}

/// ITU-T G.711 table 1 on 16-bit words: sign, 3 bits of segment, 4 bits of step, even bits inverted.
fn a_law(sample: i16) -> u8 {
    // One's complement, as the ITU's software tools library (G.191) has it: −1 is the first step below zero.
    let (magnitude, mask) = if sample < 0 { ((!sample).unsigned_abs(), 0x55) } else { (sample.unsigned_abs(), 0xd5) };
    let segment = magnitude.checked_ilog2().map_or(0, |bit| bit.saturating_sub(7));
    let step = (magnitude >> (segment.max(1) + 3)) & 0x0f;
    // Both below their limits: 7 and 15.
    let code = u8::try_from(segment << 4).unwrap_or(0x70) | u8::try_from(step).unwrap_or(0x0f);
    code ^ mask
}

#[cfg(test)]
mod tests {
    use super::*;

    // ITU-T G.711 table 2 (μ-law): segment n starts at 33 · 2^n − 33 in units of 14-bit samples, with 16 steps of 2^(n+1).
    fn mu_law_value(code: u8) -> i32 {
        let bits = !code;
        let (segment, step) = (i32::from(bits >> 4 & 7), i32::from(bits & 15));
        let magnitude = 33 * (1 << segment) - 33 + step * (2 << segment);
        4 * if bits & 0x80 == 0 { magnitude } else { -magnitude }
    }

    // Table 1 (A-law): two linear segments, then doubling ones; output is the middle of the step (13-bit units).
    fn a_law_value(code: u8) -> i32 {
        let bits = code ^ 0x55;
        let (segment, step) = (i32::from(bits >> 4 & 7), i32::from(bits & 15));
        let width = if segment == 0 { 2 } else { 1 << segment };
        let start = if segment == 0 { 0 } else { 16 * width };
        let magnitude = start + step * width + width / 2;
        8 * if bits & 0x80 != 0 { magnitude } else { -magnitude }
    }

    #[test]
    fn all_256_codes_decode_to_the_values_of_the_standard() {
        for code in 0..=u8::MAX {
            assert_eq!(i32::from(Law::Mu.decode(&[code])[0]), mu_law_value(code), "μ-law {code:#04x}");
            assert_eq!(i32::from(Law::A.decode(&[code])[0]), a_law_value(code), "A-law {code:#04x}");
        }
    }

    #[test]
    fn all_65536_samples_encode_between_the_decision_values_of_the_standard() {
        for sample in i16::MIN..=i16::MAX {
            let x = i32::from(sample);
            let (mu, a) = (Law::Mu.encode(&[sample])[0], Law::A.encode(&[sample])[0]);
            // Below zero the codes mirror those above. An edge belongs to either side.
            let (value, distance) = (mu_law_value(mu), (x - mu_law_value(mu)).abs());
            let half_step = 4 << (!mu >> 4 & 7);
            // 32,636 and more are overload: the last code.
            assert!(distance <= half_step || (x.abs() > 32_635 && value.abs() == 32_124), "μ-law {x} became {value}");
            assert!(value == 0 || (value < 0) == (x < 0), "μ-law {x} became {value}");

            let (value, distance) = (a_law_value(a), (x - a_law_value(a)).abs());
            let half_step = 8 << (((a ^ 0x55) >> 4 & 7).max(1) - 1);
            assert!(distance <= half_step, "A-law {x} became {value}");
            assert_eq!(value < 0, x < 0, "A-law {x} became {value}");
        }
    }

    #[test]
    fn every_code_survives_a_round_trip_and_silence_is_silent() {
        for law in [Law::Mu, Law::A] {
            for code in 0..=u8::MAX {
                let back = law.encode(&law.decode(&[code]))[0];
                // μ-law has two zeros.
                assert!(back == code || (law == Law::Mu && code == 0x7f && back == 0xff), "{law:?} {code:#04x}");
            }
            assert!(law.decode(&[law.silence()])[0].abs() <= 8);
        }
    }
}
