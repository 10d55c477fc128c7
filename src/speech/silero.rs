//! Silero's voice activity, version 6.2 at 16 kHz: how likely a chunk of 32 ms holds a voice. 309,633 parameters; our own forward on
//! `kernels`, held to the package's own definition (tests/golden/vad, which says why not to its ONNX file).
//!
//! 64 samples of context and 512 new ones, 64 more by reflection → windowed Fourier transform (256 samples every 128: four points in
//! time; the file has it as a convolution, which takes ten times as long) → magnitudes → four convolutions over time, which leave one point → LSTM → one number.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::kernels::{Activation, Epilogue, PackedMatrix, Rows, RowsMut, ShapeError};

use super::SpeechError;

/// Samples a chunk: 32 ms.
pub const CHUNK: usize = 512;
/// Samples of the chunk before that are heard again.
const CONTEXT: usize = 64;
const WINDOW: usize = 256;
const SHIFT: usize = 128;
const BINS: usize = WINDOW / 2 + 1;
/// Points in time that the transform gives.
const POINTS: usize = 4;
const HIDDEN: usize = 128;

/// The network. Shared by calls; each has a [`Memory`] of its own.
pub struct Silero {
    window: Vec<f32>,
    fourier: Arc<dyn Fft<f32>>,
    /// Three taps, activation after each.
    convolutions: [Convolution; 4],
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

struct Convolution {
    taps: PackedMatrix,
    bias: Vec<f32>,
    n_in: usize,
    stride: usize,
}

/// What the network remembers of one line. Wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Memory {
    hidden: Vec<f32>,
    cell: Vec<f32>,
    context: Vec<f32>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory(…)")
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { hidden: vec![0.0; HIDDEN], cell: vec![0.0; HIDDEN], context: vec![0.0; CONTEXT] }
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
        let convolution = |name: &str, n_out: usize, n_in: usize, stride: usize| -> Result<Convolution, String> {
            let w = get(&format!("{name}.weight"), &[n_out, n_in, 3])?;
            // Rows are points in time: tap after tap, channels innermost.
            let by_tap: Vec<f32> = w
                .chunks_exact(3 * n_in)
                .flat_map(|out| (0..3).flat_map(move |tap| out.iter().skip(tap).step_by(3).copied()))
                .collect();
            let taps = PackedMatrix::pack(&by_tap, n_out, 3 * n_in).map_err(|e| e.to_string())?;
            Ok(Convolution { taps, bias: get(&format!("{name}.bias"), &[n_out])?, n_in, stride })
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
        let pack = |w: &[f32], n_out, n_in| PackedMatrix::pack(w, n_out, n_in).map_err(|e| e.to_string());
        Ok(Self {
            window: window_of(&get("stft_conv.weight", &[2 * BINS, 1, WINDOW])?)?,
            fourier: FftPlanner::new().plan_fft_forward(WINDOW),
            convolutions: [
                convolution("conv1", 128, BINS, 1)?,
                convolution("conv2", 64, 128, 2)?,
                convolution("conv3", 64, 64, 2)?,
                convolution("conv4", HIDDEN, 64, 1)?,
            ],
            gates: pack(&both, 4 * HIDDEN, 2 * HIDDEN)?,
            gates_bias,
            out: get("final_conv.weight", &[1, HIDDEN, 1])?,
            out_bias: get("final_conv.bias", &[1])?.first().copied().unwrap_or_default(),
        })
    }

    /// How likely the next [`CHUNK`] samples of the line hold a voice, 0 to 1. Mono at 16 kHz, −1 to 1.
    pub fn hear(&self, memory: &mut Memory, chunk: &[f32]) -> Result<f32, ShapeError> {
        if chunk.len() != CHUNK {
            return Err(ShapeError { what: "a chunk for voice activity", got: chunk.len(), want: CHUNK });
        }
        let mut x = Vec::with_capacity(CONTEXT + CHUNK + CONTEXT);
        x.extend_from_slice(&memory.context);
        x.extend_from_slice(chunk);
        x.extend(chunk.iter().rev().skip(1).take(CONTEXT)); // by reflection about the last sample
        memory.context.clear();
        memory.context.extend_from_slice(chunk.get(CHUNK - CONTEXT..).unwrap_or_default());

        let mut points = self.magnitudes(&x);
        x.zeroize();
        for layer in &self.convolutions {
            points = layer.apply(&points)?;
        }

        points.extend_from_slice(&memory.hidden);
        let mut gates = vec![0.0; 4 * HIDDEN];
        let epilogue = Epilogue { bias: Some(&self.gates_bias), ..Epilogue::default() };
        self.gates.apply(Rows::dense(&points, 2 * HIDDEN)?, RowsMut::dense(&mut gates, 4 * HIDDEN)?, &epilogue)?;
        let (forgets, rest) = gates.split_at(HIDDEN);
        // PyTorch's order: input, forget, candidate, output.
        let (input, (forget, (candidate, output))) = (forgets, {
            let (forget, rest) = rest.split_at(HIDDEN);
            (forget, rest.split_at(HIDDEN))
        });
        let mut said = self.out_bias;
        let lines = memory.hidden.iter_mut().zip(&mut memory.cell).zip(&self.out);
        for (((((h, c), w), i), f), (g, o)) in lines.zip(input).zip(forget).zip(candidate.iter().zip(output)) {
            *c = sigmoid(*f) * *c + sigmoid(*i) * g.tanh();
            *h = sigmoid(*o) * c.tanh();
            said += w * h.max(0.0);
        }
        points.zeroize();
        Ok(sigmoid(said))
    }

    /// [`POINTS`] rows of [`BINS`]. Two windows go through one complex transform: what is even about the middle is the one's, what is odd
    /// the other's.
    fn magnitudes(&self, x: &[f32]) -> Vec<f32> {
        let mut points = Vec::with_capacity(POINTS * BINS);
        let mut both = vec![Complex::default(); WINDOW];
        let mut scratch = vec![Complex::default(); self.fourier.get_inplace_scratch_len()];
        for pair in 0..POINTS / 2 {
            let first = x.iter().skip(2 * pair * SHIFT);
            let second = x.iter().skip((2 * pair + 1) * SHIFT);
            for (((z, a), b), w) in both.iter_mut().zip(first).zip(second).zip(&self.window) {
                *z = Complex::new(a * w, b * w);
            }
            self.fourier.process_with_scratch(&mut both, &mut scratch);
            // Bin k of the mirror is bin −k: 0 stays, the rest runs backwards.
            let mirror = || both.iter().take(1).chain(both.iter().rev());
            let bins = || both.iter().zip(mirror()).take(BINS);
            points.extend(bins().map(|(z, m)| 0.5 * (z + m.conj()).norm_sqr().sqrt()));
            points.extend(bins().map(|(z, m)| 0.5 * (z - m.conj()).norm_sqr().sqrt()));
        }
        both.iter_mut().chain(&mut scratch).for_each(|z| {
            z.re.zeroize();
            z.im.zeroize();
        });
        points
    }
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
    /// Three taps over time with a zero at either end, then the positive part.
    fn apply(&self, x: &[f32]) -> Result<Vec<f32>, ShapeError> {
        let mut padded = vec![0.0; self.n_in];
        padded.extend_from_slice(x);
        padded.resize(padded.len() + self.n_in, 0.0);
        let points = (padded.len() / self.n_in).saturating_sub(3) / self.stride + 1;
        let mut out = vec![0.0; points * self.bias.len()];
        let epilogue = Epilogue { bias: Some(&self.bias), activation: Activation::Relu, add: false };
        let rows = Rows::new(&padded, points, 3 * self.n_in, self.stride * self.n_in)?;
        self.taps.apply(rows, RowsMut::dense(&mut out, self.bias.len())?, &epilogue)?;
        Ok(out)
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        probabilities: Vec<f32>,
    }

    #[test]
    fn probabilities_equal_the_references() {
        let golden: Golden = serde_json::from_str(include_str!("../../tests/golden/vad/silero.json")).unwrap();
        let path = crate::models::Model::SileroVad.path().unwrap_or_else(|e| panic!("{e}"));
        let silero = Silero::load(&path).unwrap();
        let mut memory = Memory::default();
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
