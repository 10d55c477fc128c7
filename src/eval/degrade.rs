//! Does to speech what a telephone does: level, noise, G.711 (or an app's Opus), 16 bits. Follows the data's own renderer: speech-active level
//! −23 dBFS, noise against the speech-active level, peaks held at 0.97.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use serde::Serialize;

use crate::media::codec::Codec as LineCodec;
use crate::media::config::MediaConfig;
use crate::media::frame::SampleRate;
use crate::media::impair::{BadLine, carry};
use crate::media::leg::Sound;
use crate::media::negotiated::{NegotiatedMedia, OpusBitrate};

use super::EvalError;
use super::random::Random;
use super::splice::load;

/// The telephone's rate; every evaluation goes through it.
pub const RATE: u32 = 8000;
/// Speech-active level, dBFS.
pub const LEVEL_DBFS: f64 = -23.0;
/// Highest peak.
const PEAK: f64 = 0.97;
/// A dynamic one: which does not matter here.
const OPUS_PAYLOAD_TYPE: u8 = 111;
/// Windows this far below the loudest are no speech (30 dB of power).
const ACTIVE_BELOW_PEAK: f64 = 1e-3;

/// The line's codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// 8 kHz, 16 bits, no codec.
    None,
    /// G.711 µ-law.
    Mulaw,
    /// G.711 A-law.
    Alaw,
    /// Opus at 6 kbit/s, as an app's page may send; without FEC.
    Opus6,
    /// At 8 kbit/s.
    Opus8,
    /// At 12 kbit/s.
    Opus12,
    /// At 24 kbit/s.
    Opus24,
}

/// What is heard behind the speech.
#[derive(Clone, Debug)]
pub enum Noise {
    /// Nothing.
    None,
    /// Equal power at every frequency.
    White,
    /// Power falling 3 dB an octave.
    Pink,
    /// One of these recordings, drawn for each utterance.
    Files(Arc<Vec<(PathBuf, Vec<f64>)>>),
}

/// What the network does to packets of 20 ms. Each is lost on its own, and is 0 to so many milliseconds late, evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Of a thousand packets, so many never come.
    pub loss_permille: u32,
    /// In milliseconds.
    pub jitter_ms: u32,
}

/// The conditions of a measurement.
#[derive(Clone, Debug)]
pub struct Line {
    /// The codec.
    pub codec: Codec,
    /// What is behind the speech.
    pub noise: Noise,
    /// Speech-active level over noise level, in decibels.
    pub snr_db: f64,
    /// What packets go through; `None`: a line without packets. The receiver is the one of a call: jitter buffer, concealment.
    pub network: Option<Network>,
    /// Seeds noise and network, together with the utterance's id.
    pub seed: u64,
}

impl Line {
    /// A clean line.
    pub fn clean(codec: Codec) -> Self {
        Self { codec, noise: Noise::None, snr_db: f64::INFINITY, network: None, seed: 0 }
    }

    /// Speech as it comes out of the far end: 16-bit values at [`RATE`].
    pub fn through(&self, id: &str, mut x: Vec<f64>) -> Vec<i16> {
        let mut random = Random::from_text(&format!("{}{id}", self.seed));
        level(&mut x);
        if let Some(noise) = self.noise.take(x.len(), &mut random) {
            let gain = active_rms(&x) * 10f64.powf(-self.snr_db / 20.0) / rms(&noise);
            x.iter_mut().zip(noise).for_each(|(s, n)| *s += n * gain);
        }
        let samples = held(x);
        // Opus comes in packets alone.
        let network = self.network.or(self.codec.kbps().map(|_| Network { loss_permille: 0, jitter_ms: 0 }));
        match (network, self.codec.on_the_wire()) {
            (Some(network), Some(media)) => {
                let sound = Sound { rate: SampleRate::HZ_8000, samples: samples.collect() };
                let line = BadLine {
                    loss_permille: network.loss_permille,
                    jitter_ms: network.jitter_ms,
                    seed: random.below(usize::MAX) as u64,
                    ..BadLine::CLEAN
                };
                carry(&sound, &media, &MediaConfig::default(), line).0.at(SampleRate::HZ_8000).samples
            }
            (Some(_) | None, _) => samples.map(|s| self.codec.round_trip(s)).collect(),
        }
    }
}

/// Speech at the usual level, on no line at all; at any rate.
pub(super) fn at_level(mut x: Vec<f64>) -> Vec<i16> {
    level(&mut x);
    held(x).collect()
}

/// Without what is constant, and speech at [`LEVEL_DBFS`].
fn level(x: &mut [f64]) {
    let mean = x.iter().sum::<f64>() / x.len().max(1) as f64;
    x.iter_mut().for_each(|s| *s -= mean);
    let gain = 10f64.powf(LEVEL_DBFS / 20.0) / active_rms(x).max(1e-6);
    x.iter_mut().for_each(|s| *s *= gain);
}

/// As 16 bits, with peaks held.
fn held(mut x: Vec<f64>) -> impl Iterator<Item = i16> {
    let peak = x.iter().fold(0f64, |p, s| p.max(s.abs()));
    if peak > PEAK {
        x.iter_mut().for_each(|s| *s *= PEAK / peak);
    }
    x.into_iter().map(sixteen_bits)
}

impl Codec {
    /// Encodes and decodes one sample. Opus codes none by itself.
    pub fn round_trip(self, sample: i16) -> i16 {
        match self {
            Self::None | Self::Opus6 | Self::Opus8 | Self::Opus12 | Self::Opus24 => sample,
            Self::Mulaw => mulaw(sample),
            Self::Alaw => alaw(sample),
        }
    }

    /// What packets carry it, if any do.
    fn on_the_wire(self) -> Option<NegotiatedMedia> {
        let codec = match self {
            Self::None => return None,
            Self::Mulaw => LineCodec::Pcmu,
            Self::Alaw => LineCodec::Pcma,
            Self::Opus6 | Self::Opus8 | Self::Opus12 | Self::Opus24 => LineCodec::Opus,
        };
        let asked = self.kbps().map(|kbps| OpusBitrate::of(&format!("maxaveragebitrate={kbps}000")));
        let media = NegotiatedMedia::new(codec, codec.static_payload_type().unwrap_or(OPUS_PAYLOAD_TYPE));
        Some(NegotiatedMedia { opus: asked.unwrap_or_default(), ..media })
    }

    /// Of Opus.
    fn kbps(self) -> Option<u32> {
        match self {
            Self::None | Self::Mulaw | Self::Alaw => None,
            Self::Opus6 => Some(6),
            Self::Opus8 => Some(8),
            Self::Opus12 => Some(12),
            Self::Opus24 => Some(24),
        }
    }

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Mulaw => "mulaw",
            Self::Alaw => "alaw",
            Self::Opus6 => "opus6",
            Self::Opus8 => "opus8",
            Self::Opus12 => "opus12",
            Self::Opus24 => "opus24",
        }
    }
}

impl Noise {
    /// From `--noise`: `white`, `pink`, a file, or a folder searched for FLAC and WAV (also relative to the data root or split).
    pub fn find(name: &str, root: &Path, split: &str) -> Result<Self, EvalError> {
        match name {
            "white" => return Ok(Self::White),
            "pink" => return Ok(Self::Pink),
            _ => {}
        }
        let places = [PathBuf::from(name), root.join(name), root.join(split).join(name)];
        let Some(place) = places.iter().find(|p| p.exists()) else {
            let text = format!("there is no noise {name}: give white, pink, a sound file or a folder of them");
            return Err(EvalError::Conditions(text));
        };
        let mut files = Vec::new();
        collect(place, &mut files, 0);
        files.sort();
        if files.is_empty() {
            return Err(EvalError::Conditions(format!("{} holds no FLAC or WAV to use as noise", place.display())));
        }
        let mut loaded = Vec::new();
        for file in files {
            let sound = load(&file, RATE)?;
            if rms(&sound) < 1e-6 {
                return Err(EvalError::Sound { file, what: "it is silent, and can't serve as noise".to_owned() });
            }
            loaded.push((file, sound));
        }
        Ok(Self::Files(Arc::new(loaded)))
    }

    fn take(&self, n: usize, random: &mut Random) -> Option<Vec<f64>> {
        match self {
            Self::None => None,
            Self::White => Some((0..n).map(|_| random.normal()).collect()),
            Self::Pink => Some(pink(n, random)),
            Self::Files(files) => {
                let (_, sound) = files.get(random.below(files.len()))?;
                // Round and round from anywhere: for short noise that is what tiling and cutting gives.
                let spare = (sound.len() * (n.div_ceil(sound.len()) + 1)).saturating_sub(n);
                let from = random.below(spare);
                Some(sound.iter().cycle().skip(from % sound.len()).take(n).copied().collect())
            }
        }
    }
}

/// Level of the windows (20 ms) that are within 30 dB of the loudest.
pub fn active_rms(x: &[f64]) -> f64 {
    let window = (RATE / 50) as usize;
    let powers: Vec<f64> = x.chunks_exact(window).map(|w| w.iter().map(|s| s * s).sum::<f64>() / window as f64).collect();
    if powers.is_empty() {
        return rms(x);
    }
    let floor = powers.iter().fold(0f64, |m, p| m.max(*p)) * ACTIVE_BELOW_PEAK;
    let (sum, n) = powers.iter().filter(|p| **p > floor).fold((0.0, 0usize), |(s, n), p| (s + p, n + 1));
    (sum / n.max(1) as f64 + 1e-12).sqrt()
}

fn rms(x: &[f64]) -> f64 {
    (x.iter().map(|s| s * s).sum::<f64>() / x.len().max(1) as f64 + 1e-12).sqrt()
}

fn sixteen_bits(s: f64) -> i16 {
    (s * 32768.0).round_ties_even().clamp(-32768.0, 32767.0) as i16
}

/// White noise whose spectrum is divided by the square root of the frequency's index.
fn pink(n: usize, random: &mut Random) -> Vec<f64> {
    let mut spectrum: Vec<Complex<f64>> = (0..n).map(|_| Complex::new(random.normal(), 0.0)).collect();
    let mut planner = FftPlanner::new();
    planner.plan_fft_forward(n).process(&mut spectrum);
    for (i, bin) in spectrum.iter_mut().enumerate() {
        *bin /= (i.min(n - i).max(1) as f64).sqrt(); // the upper half mirrors the lower: the result stays real
    }
    planner.plan_fft_inverse(n).process(&mut spectrum);
    spectrum.into_iter().map(|c| c.re / n as f64).collect()
}

/// ITU-T G.711 µ-law there and back, as the data's renderer computes it (bias 132, clip 32635).
fn mulaw(sample: i16) -> i16 {
    let biased = (i32::from(sample).abs()).min(32_635) + 132;
    let segment = (31 - biased.leading_zeros()).saturating_sub(7).min(7);
    let mantissa = (biased >> (segment + 3)) & 0xf;
    let magnitude = (((mantissa << 3) + 132) << segment) - 132;
    narrow(if sample < 0 { -magnitude } else { magnitude })
}

/// ITU-T G.711 A-law there and back.
fn alaw(sample: i16) -> i16 {
    let wide = i32::from(sample);
    let magnitude = if wide < 0 { -wide - 1 } else { wide };
    let magnitude = (magnitude >> 3).clamp(0, 4095); // 12 bits and the sign
    let back = if magnitude >= 32 {
        let segment = (31 - magnitude.leading_zeros()).saturating_sub(4);
        let mantissa = (magnitude >> segment) & 0xf;
        ((mantissa << 1) + 33) << (segment - 1)
    } else {
        let mantissa = (magnitude >> 1) & 0xf;
        (mantissa << 1) + 1
    };
    let back = back << 3;
    narrow(if wide < 0 { -back } else { back })
}

fn narrow(v: i32) -> i16 {
    i16::try_from(v).unwrap_or(if v < 0 { i16::MIN } else { i16::MAX })
}

fn collect(place: &Path, out: &mut Vec<PathBuf>, depth: usize) {
    const DEPTH_MAX: usize = 8;
    if place.is_dir() {
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            if depth < DEPTH_MAX {
                collect(&entry.path(), out, depth + 1);
            }
        }
    } else if depth == 0 || place.extension().is_some_and(|e| e == "flac" || e == "wav") {
        out.push(place.to_path_buf());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(n: usize, gain: f64) -> Vec<f64> {
        (0..n).map(|i| (i as f64 * 0.7).sin() * gain).collect()
    }

    fn level_db(x: &[i16]) -> f64 {
        20.0 * active_rms(&x.iter().map(|s| f64::from(*s) / 32768.0).collect::<Vec<_>>()).log10()
    }

    #[test]
    fn speech_comes_out_at_the_same_level_however_it_went_in() {
        for gain in [0.001, 0.03, 0.9] {
            let mut x = tone(8000, gain);
            x.extend(vec![0.0; 8000]); // pauses don't count
            let out = Line::clean(Codec::None).through("u", x);
            assert!((level_db(&out) - LEVEL_DBFS).abs() < 0.1, "{}", level_db(&out));
        }
    }

    #[test]
    fn noise_lies_as_far_under_the_speech_as_asked() {
        for noise in [Noise::White, Noise::Pink, Noise::Files(Arc::new(vec![(PathBuf::from("n"), tone(500, 0.2))]))] {
            let mut x = tone(8000, 0.5);
            x.extend(vec![0.0; 8000]);
            let line = Line { codec: Codec::None, noise, snr_db: 15.0, network: None, seed: 0 };
            let out = line.through("u", x);
            let pause: Vec<f64> = out.iter().skip(8000).map(|s| f64::from(*s) / 32768.0).collect();
            let db = 20.0 * rms(&pause).log10();
            assert!((db - (LEVEL_DBFS - 15.0)).abs() < 1.0, "{db}");
        }
    }

    #[test]
    fn g711_gives_the_reconstruction_values_of_the_standard() {
        // µ-law: 0, first steps of segment 0, the largest value.
        assert_eq!(mulaw(0), 0);
        assert_eq!(mulaw(32767), 32124);
        assert_eq!(mulaw(-32768), -32124);
        assert_eq!(mulaw(1000), 988); // segment 3: 1132 -> 70 · 16 … -> 1120 − 132
        // A-law: no zero; ±8 nearest to silence, the largest value.
        assert_eq!(alaw(0), 8);
        assert_eq!(alaw(-1), -8);
        assert_eq!(alaw(32767), 32256);
        assert_eq!(alaw(-32768), -32256);
        // There and back again changes nothing more, and the error is under a 16th.
        for s in (i16::MIN..=i16::MAX).step_by(7) {
            for c in [Codec::Mulaw, Codec::Alaw] {
                let once = c.round_trip(s);
                assert_eq!(c.round_trip(once), once, "{s} {c:?}");
                let off = (i32::from(once) - i32::from(s)).abs();
                assert!(off <= i32::from(s).abs() / 16 + 16, "{s} {once} {c:?}");
            }
        }
    }

    #[test]
    fn loud_peaks_are_held() {
        let mut x = vec![0.001; 16_000];
        x[4000] = 1.0;
        let out = Line::clean(Codec::None).through("u", x);
        assert!(out.iter().all(|s| i32::from(*s).abs() <= 31_786));
    }

    #[test]
    fn noise_that_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let text = Noise::find("babble", dir.path(), "dev").unwrap_err().to_string();
        assert!(text.contains("there is no noise babble"), "{text}");
        std::fs::create_dir_all(dir.path().join("dev/noise")).unwrap();
        assert!(Noise::find("noise", dir.path(), "dev").unwrap_err().to_string().contains("holds no FLAC"));
    }
}
