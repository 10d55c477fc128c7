//! Silero's voice activity, version 6.2 at 16 kHz: how likely a chunk of 32 ms holds a voice. 309,633 parameters; our own forward on
//! `kernels`, held to the package's own definition (tests/golden/vad, which says why not to its ONNX file).
//!
//! 64 samples of context and 512 new ones, 64 more by reflection → windowed Fourier transform (256 samples every 128: four points in
//! time; the file has it as a convolution, which takes ten times as long) → magnitudes → four convolutions over time, which leave one point → LSTM → one number.
//!
//! A line at 8 kHz is heard as it is ([`Band::Narrow`]): brought to 16 kHz it would hold nothing above 4 kHz, so every second value of the
//! window, half of the transform and the lower half of the first convolution's channels give the same numbers but for the last few hertz
//! below 4 kHz, and the line need not be resampled. What that changes is measured by a test.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::kernels::{Activation, Epilogue, PackedMatrix, Rows, RowsMut, ShapeError, lstm_cell, wipe};
use crate::media::frame::SampleRate;
use crate::media::resample::response;

use super::SpeechError;

/// Samples of a chunk (32 ms), of the chunk before that are heard again, and of a window; at 16 kHz.
const CHUNK: usize = 512;
const CONTEXT: usize = 64;
const WINDOW: usize = 256;
/// Frequencies that the network knows: 0 to 8 kHz.
const BINS: usize = WINDOW / 2 + 1;
/// Points in time that the transform gives.
const POINTS: usize = 4;
/// Channels after the first convolution, the most that there are.
const CHANNELS: usize = 128;
const HIDDEN: usize = 128;

/// What the line carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Band {
    /// Samples at 8 kHz.
    Narrow,
    /// Samples at 16 kHz.
    Wide,
}

impl Band {
    /// Samples a chunk: 32 ms.
    pub fn chunk(self) -> usize {
        CHUNK / self.thinned()
    }

    /// Every how many-th sample of those at 16 kHz there is.
    fn thinned(self) -> usize {
        match self {
            Self::Narrow => 2,
            Self::Wide => 1,
        }
    }

    fn window(self) -> usize {
        WINDOW / self.thinned()
    }

    fn bins(self) -> usize {
        self.window() / 2 + 1
    }

    /// How much of each bin is in a line of this band once it is at 16 kHz. A resampler leaves of a bin just below 4 kHz what its filter lets
    /// through, and of its image just above 4 kHz the rest.
    fn left(self) -> Vec<f32> {
        match self {
            Self::Narrow => {
                (0..BINS).map(|bin| narrow(response(SampleRate::HZ_8000, SampleRate::HZ_16000, hz_of(bin)))).collect()
            }
            Self::Wide => vec![1.0; BINS],
        }
    }
}

/// Weights of all the bins into weights of the first `bins`; those beyond are images of these, and depend on the one bin that there is.
fn fold(weights: &[f32], left: &[f32], bins: usize) -> Vec<f32> {
    let mut folded: Vec<f32> = weights.iter().zip(left).map(|(w, left)| w * left).collect();
    let images = folded.split_off(bins);
    folded.iter_mut().zip(images.iter().rev()).for_each(|(f, image)| *f += image);
    folded
}

/// The network. Shared by calls; each has a [`Memory`] of its own.
pub struct Silero {
    narrow: Front,
    wide: Front,
    /// The convolutions after the first; three taps each, of which the last two have some that only ever meet the zeros at either end.
    deep: [Convolution; 3],
    /// Gates × (input, hidden).
    gates: PackedMatrix,
    gates_bias: Vec<f32>,
    out: Vec<f32>,
    out_bias: f32,
}

impl std::fmt::Debug for Silero {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Silero")
    }
}

/// What depends on the band: the transform and the first convolution.
struct Front {
    band: Band,
    window: Vec<f32>,
    fourier: Arc<dyn Fft<f32>>,
    first: Convolution,
}

/// A convolution over time and the positive part.
struct Convolution {
    taps: PackedMatrix,
    bias: Vec<f32>,
    /// Channels in.
    n_in: usize,
    stride: usize,
}

/// What the network remembers of one line. Wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Memory {
    #[zeroize(skip)]
    band: Band,
    hidden: Vec<f32>,
    cell: Vec<f32>,
    context: Vec<f32>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory(…)")
    }
}

impl Memory {
    /// Of a line that nothing was heard of.
    pub fn new(band: Band) -> Self {
        Self { band, hidden: vec![0.0; HIDDEN], cell: vec![0.0; HIDDEN], context: vec![0.0; CONTEXT / band.thinned()] }
    }

    /// What the line carries.
    pub fn band(&self) -> Band {
        self.band
    }
}

impl Silero {
    /// Loads `silero-vad.safetensors` (see `models::cache_dir`).
    pub fn load(path: &Path) -> Result<Self, SpeechError> {
        let corrupt = |why: String| SpeechError::ModelCorrupt { path: path.to_owned(), why };
        let bytes = std::fs::read(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => SpeechError::ModelMissing(path.to_owned()),
            _ => corrupt(e.to_string()),
        })?;
        Self::from_safetensors(&bytes).map_err(corrupt)
    }

    fn from_safetensors(bytes: &[u8]) -> Result<Self, String> {
        let weights = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|e| e.to_string())?;
        let get = |name: &str, shape: &[usize]| -> Result<Vec<f32>, String> {
            let tensor: &Tensor = weights.get(name).ok_or_else(|| format!("it has no {name}"))?;
            if tensor.dims() != shape {
                return Err(format!("{name} is {:?} where {shape:?} is needed", tensor.dims()));
            }
            tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(|e| format!("{name}: {e}"))
        };
        // Of three taps those from `skipped` on, as many as `taps`. `fold` makes the channels of a tap fewer.
        let convolution = |name: &str,
                           [n_out, n_in]: [usize; 2],
                           [skipped, taps]: [usize; 2],
                           stride: usize,
                           fold: &dyn Fn(Vec<f32>) -> Vec<f32>| {
            let w = get(&format!("{name}.weight"), &[n_out, n_in, 3])?;
            // Rows are points in time: tap after tap, channels innermost.
            let by_tap: Vec<f32> = w
                .chunks_exact(3 * n_in)
                .flat_map(|out| (skipped..skipped + taps).map(move |tap| out.iter().skip(tap).step_by(3).copied().collect()))
                .flat_map(fold)
                .collect();
            let columns = by_tap.len() / n_out;
            let packed = PackedMatrix::pack(&by_tap, n_out, columns).map_err(|e| e.to_string())?;
            let bias = get(&format!("{name}.bias"), &[n_out])?;
            Ok::<_, String>(Convolution { taps: packed, bias, n_in: columns / taps, stride })
        };
        let (from_input, from_hidden) =
            (get("lstm_cell.weight_ih", &[4 * HIDDEN, HIDDEN])?, get("lstm_cell.weight_hh", &[4 * HIDDEN, HIDDEN])?);
        let both: Vec<f32> = from_input
            .chunks_exact(HIDDEN)
            .zip(from_hidden.chunks_exact(HIDDEN))
            .flat_map(|(x, h)| x.iter().chain(h).copied())
            .collect();
        let gates_bias = get("lstm_cell.bias_ih", &[4 * HIDDEN])?
            .iter()
            .zip(get("lstm_cell.bias_hh", &[4 * HIDDEN])?)
            .map(|(a, b)| a + b)
            .collect();
        let window = window_of(&get("stft_conv.weight", &[2 * BINS, 1, WINDOW])?)?;
        let front = |band: Band| {
            // A sum over every second sample is half as large.
            let scale = if band == Band::Narrow { 2.0 } else { 1.0 };
            let left = band.left();
            Ok::<_, String>(Front {
                band,
                window: window.iter().step_by(band.thinned()).map(|w| scale * w).collect(),
                fourier: FftPlanner::new().plan_fft_forward(band.window()),
                first: convolution("conv1", [CHANNELS, BINS], [0, 3], 1, &|tap| fold(&tap, &left, band.bins()))?,
            })
        };
        Ok(Self {
            narrow: front(Band::Narrow)?,
            wide: front(Band::Wide)?,
            deep: [
                convolution("conv2", [64, CHANNELS], [0, 3], 2, &|tap| tap)?,
                // Of two points it makes one: the first tap meets a zero.
                convolution("conv3", [64, 64], [1, 2], 2, &|tap| tap)?,
                // Of one point it makes one: the outer taps meet zeros.
                convolution("conv4", [HIDDEN, 64], [1, 1], 1, &|tap| tap)?,
            ],
            gates: PackedMatrix::pack(&both, 4 * HIDDEN, 2 * HIDDEN).map_err(|e| e.to_string())?,
            gates_bias,
            out: get("final_conv.weight", &[1, HIDDEN, 1])?,
            out_bias: get("final_conv.bias", &[1])?.first().copied().unwrap_or_default(),
        })
    }

    /// How likely the next chunk of the line ([`Band::chunk`] samples of the memory's band, mono, −1 to 1) holds a voice, 0 to 1.
    pub fn hear(&self, memory: &mut Memory, chunk: &[f32]) -> Result<f32, ShapeError> {
        let band = memory.band;
        if chunk.len() != band.chunk() {
            return Err(ShapeError { what: "a chunk for voice activity", got: chunk.len(), want: band.chunk() });
        }
        let front = match band {
            Band::Narrow => &self.narrow,
            Band::Wide => &self.wide,
        };
        // Every convolution but the last two has a zero before its first point and one behind its last.
        let mut points = [0.0; (POINTS + 2) * BINS];
        front.magnitudes(&memory.context, chunk, points.get_mut(band.bins()..).unwrap_or_default());
        let heard_again = chunk.len() - memory.context.len();
        memory.context.copy_from_slice(chunk.get(heard_again..).unwrap_or_default());

        let [second, third, fourth] = &self.deep;
        let mut of_first = [0.0; (POINTS + 2) * CHANNELS];
        let (mut of_second, mut of_third, mut of_fourth) = ([0.0; 2 * 64], [0.0; 64], [0.0; 2 * HIDDEN]);
        let (inside, hidden) = (CHANNELS..(POINTS + 1) * CHANNELS, of_fourth.split_at_mut(HIDDEN));
        front.first.apply(&points, POINTS, of_first.get_mut(inside).unwrap_or_default())?;
        second.apply(&of_first, 2, &mut of_second)?;
        third.apply(&of_second, 1, &mut of_third)?;
        fourth.apply(&of_third, 1, hidden.0)?;

        hidden.1.copy_from_slice(&memory.hidden);
        let mut gates = [0.0; 4 * HIDDEN];
        let epilogue = Epilogue { bias: Some(&self.gates_bias), ..Epilogue::default() };
        self.gates.apply(Rows::dense(&of_fourth, 2 * HIDDEN)?, RowsMut::dense(&mut gates, 4 * HIDDEN)?, &epilogue)?;
        lstm_cell(&gates, &mut memory.cell, &mut memory.hidden)?;
        let said = self.out_bias + memory.hidden.iter().zip(&self.out).map(|(h, w)| w * h.max(0.0)).sum::<f32>();
        wipe(&mut points);
        wipe(&mut of_first);
        Ok(1.0 / (1.0 + (-said).exp()))
    }
}

impl Front {
    /// Fills [`POINTS`] rows of as many magnitudes as the band has. Two windows go through one complex transform: what is even about the
    /// middle is the one's, what is odd the other's.
    fn magnitudes(&self, context: &[f32], chunk: &[f32], out: &mut [f32]) {
        let (window, bins) = (self.band.window(), self.band.bins());
        let mut x = [0.0; CONTEXT + CHUNK + CONTEXT];
        // By reflection about the last sample of those at 16 kHz: at 8 kHz that one lies between two.
        let reflected = chunk.iter().rev().skip(2 - self.band.thinned()).take(context.len());
        x.iter_mut().zip(context.iter().chain(chunk).chain(reflected)).for_each(|(x, heard)| *x = *heard);
        let mut both = [Complex::default(); WINDOW];
        let mut scratch = vec![Complex::default(); self.fourier.get_inplace_scratch_len()];
        let both = both.get_mut(..window).unwrap_or_default();
        let mut rows = out.chunks_exact_mut(bins);
        for pair in 0..POINTS / 2 {
            let first = x.iter().skip(pair * window);
            let second = x.iter().skip(pair * window + window / 2);
            for (((z, a), b), w) in both.iter_mut().zip(first).zip(second).zip(&self.window) {
                *z = Complex::new(a * w, b * w);
            }
            self.fourier.process_with_scratch(both, &mut scratch);
            // Bin k of the mirror is bin −k: 0 stays, the rest runs backwards.
            for (row, sign) in rows.by_ref().take(2).zip([1.0, -1.0]) {
                let mirror = both.iter().take(1).chain(both.iter().rev());
                for ((m, z), other) in row.iter_mut().zip(both.iter()).zip(mirror) {
                    *m = 0.5 * (z + other.conj() * sign).norm_sqr().sqrt();
                }
            }
        }
        wipe(&mut x);
        wipe(both);
        wipe(&mut scratch);
    }
}

/// The middle of a bin.
#[allow(clippy::as_conversions, clippy::cast_precision_loss)] // small counts
fn hz_of(bin: usize) -> f64 {
    16_000.0 * bin as f64 / WINDOW as f64
}

#[allow(clippy::as_conversions, clippy::cast_possible_truncation)] // neither weights nor decibels need a double
pub(super) fn narrow(x: f64) -> f32 {
    x as f32
}

/// The window of a convolution that is a windowed Fourier transform: its cosines, then its sines. Any other is refused.
fn window_of(basis: &[f32]) -> Result<Vec<f32>, String> {
    const APART: f64 = 1e-4;
    let window: Vec<f32> = basis.iter().take(WINDOW).copied().collect(); // the cosine of nothing is one
    let (cosines, sines) = basis.split_at(basis.len().min(BINS * WINDOW));
    let rows = cosines.chunks_exact(WINDOW).zip(sines.chunks_exact(WINDOW));
    for (k, (cosine, sine)) in (0u32..).zip(rows) {
        for (n, ((c, s), w)) in (0u32..).zip(cosine.iter().zip(sine).zip(&window)) {
            let angle = std::f64::consts::TAU * f64::from(k * n % 256) / 256.0;
            let w = f64::from(*w);
            // Only magnitudes are used: either sign of the sine will do.
            let apart = (f64::from(*c) - w * angle.cos()).abs().max((f64::from(*s).abs() - (w * angle.sin()).abs()).abs());
            if apart > APART {
                return Err(format!("its transform differs from a windowed Fourier transform by {apart:.1e} at bin {k}"));
            }
        }
    }
    Ok(window)
}

impl Convolution {
    /// `points` rows of `out` from as many runs of `padded`.
    fn apply(&self, padded: &[f32], points: usize, out: &mut [f32]) -> Result<(), ShapeError> {
        let epilogue = Epilogue { bias: Some(&self.bias), activation: Activation::Relu, add: false };
        let rows = Rows::new(padded, points, self.taps.n_in(), self.stride * self.n_in)?;
        self.taps.apply(rows, RowsMut::dense(out, self.bias.len())?, &epilogue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::resample::resample_whole;

    #[derive(serde::Deserialize)]
    struct Golden {
        probabilities: Vec<f32>,
    }

    #[test]
    fn probabilities_equal_the_references() {
        let golden: Golden = serde_json::from_str(include_str!("../../tests/golden/vad/silero.json")).unwrap();
        let path = crate::models::Model::SileroVad.path().unwrap_or_else(|e| panic!("{e}"));
        let silero = Silero::load(&path).unwrap();
        let mut memory = Memory::new(Band::Wide);
        // The clip of the voice's golden numbers, each sample twice.
        let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/voiceprint/voiceprint_flite.wav");
        let samples: Vec<f32> =
            hound::WavReader::open(clip).unwrap().samples::<i16>().flat_map(|s| [f32::from(s.unwrap()) / 32_768.0; 2]).collect();
        let heard: Vec<f32> = samples.chunks_exact(CHUNK).map(|c| silero.hear(&mut memory, c).unwrap()).collect();
        assert!(golden.probabilities.len() > 60);
        assert_eq!(heard.len(), golden.probabilities.len());
        let apart = heard.iter().zip(&golden.probabilities).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("largest difference {apart:.1e}");
        assert!(apart < 1e-4, "{apart}");
        assert!(golden.probabilities.iter().any(|p| *p > 0.9) && golden.probabilities.iter().any(|p| *p < 0.1));
        assert!(silero.hear(&mut memory, &samples[..511]).is_err());
        assert!(silero.hear(&mut memory, &samples[..256]).is_err(), "another band's chunk");
    }

    /// What hearing a telephone line as it is changes, against bringing it to 16 kHz first: chunk by chunk, over the repository's callers.
    #[test]
    fn a_narrow_line_is_heard_as_if_it_had_been_resampled() {
        let silero = Silero::load(&crate::models::Model::SileroVad.path().unwrap_or_else(|e| panic!("{e}"))).unwrap();
        let (mut chunks, mut apart, mut otherwise) = (0u32, 0.0, 0u32);
        for caller in ["alice", "bob", "mallory"] {
            for clip in ["card", "enrol_1"] {
                let path = format!("{}/audio-fixtures/{caller}/{clip}.wav", env!("CARGO_MANIFEST_DIR"));
                let file = hound::WavReader::open(path).unwrap();
                let rate = SampleRate::new(file.spec().sample_rate).unwrap();
                let spoken: Vec<f32> = file.into_samples::<i16>().map(|s| f32::from(s.unwrap()) / 32_768.0).collect();
                let line = resample_whole(&spoken, rate, SampleRate::HZ_8000);
                let wide = resample_whole(&line, SampleRate::HZ_8000, SampleRate::HZ_16000);
                let (mut of_line, mut of_wide) = (Memory::new(Band::Narrow), Memory::new(Band::Wide));
                for (narrow, wide) in line.chunks_exact(Band::Narrow.chunk()).zip(wide.chunks_exact(CHUNK)) {
                    let p = silero.hear(&mut of_line, narrow).unwrap();
                    let q = silero.hear(&mut of_wide, wide).unwrap();
                    (chunks, apart) = (chunks + 1, apart + f64::from((p - q).abs()));
                    otherwise += u32::from((p >= 0.5) != (q >= 0.5));
                }
            }
        }
        let mean = apart / f64::from(chunks);
        println!("{chunks} chunks: {mean:.5} apart on average, {otherwise} judged otherwise");
        assert!(chunks > 900 && mean < 0.005 && otherwise * 200 < chunks, "{chunks} chunks, {mean} apart, {otherwise} otherwise");
    }

    #[test]
    fn a_file_that_is_no_model_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("silero-vad.safetensors");
        assert!(matches!(Silero::load(&path), Err(SpeechError::ModelMissing(_))));
        std::fs::write(&path, b"no safetensors").unwrap();
        assert!(matches!(Silero::load(&path), Err(SpeechError::ModelCorrupt { .. })));
    }
}
