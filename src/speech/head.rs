//! The digit head: a small network behind Whisper's encoder that says, for each 20 ms, which token is spoken. Its file says by itself
//! which layers it has and which encoder it was trained for (`scripts/digit-head/FORMAT.md`).

use std::collections::BTreeMap;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::encoder::{Padding, Patch, Patches, Tap};
use super::half::singles;
use super::lexicon::Lexicon;
use crate::kernels::{Activation, Epilogue, PackedMatrix, Rows, RowsMut, ShapeError, gelu, layer_norm_rows};

/// Heads are small; what is larger is none.
const FILE_MAX_BYTES: usize = 16_000_000;
const FORMAT: &str = "voicepay-digit-head/1";
const NORM_EPSILON: f32 = 1e-5;
/// Layers inside layers.
const DEPTH_MAX: usize = 4;
/// Anything wider is no head of ours.
const WIDTH_MAX: usize = 4_096;

/// What the file says of itself.
#[derive(Deserialize)]
struct About {
    format: String,
    encoder: EncoderAbout,
    vocabulary: Vec<String>,
    ops: Vec<Op>,
}

#[derive(Deserialize)]
struct EncoderAbout {
    name: String,
    sha256: String,
    width: usize,
    sample_rate: u32,
    frame_samples: usize,
    tail_samples: usize,
    window_frames: usize,
    mel_max: Option<f32>,
    taps: Vec<String>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Op {
    LayerNorm {
        name: String,
        width: usize,
    },
    Linear {
        name: String,
        #[serde(rename = "in")]
        n_in: usize,
        #[serde(rename = "out")]
        n_out: usize,
    },
    #[serde(rename = "conv1d")]
    Conv1d {
        name: String,
        #[serde(rename = "in")]
        n_in: usize,
        #[serde(rename = "out")]
        n_out: usize,
        kernel: usize,
        dilation: usize,
        groups: usize,
    },
    Gelu,
    Residual {
        ops: Vec<Op>,
    },
    LogSoftmax,
}

enum Layer {
    Norm {
        scale: Vec<f32>,
        shift: Vec<f32>,
    },
    Linear {
        weights: PackedMatrix,
        bias: Vec<f32>,
    },
    /// One matrix a group of channels, taps outermost.
    Conv {
        groups: Vec<PackedMatrix>,
        bias: Vec<f32>,
        kernel: usize,
        dilation: usize,
        n_in: usize,
    },
    Gelu,
    Residual(Vec<Layer>),
    LogSoftmax,
}

/// The head, loaded.
pub(super) struct Head {
    /// For which encoder, by name and digest.
    pub(super) encoder: (String, String),
    /// How an utterance is laid before the encoder.
    pub(super) padding: Padding,
    /// Which states it hears.
    pub(super) taps: Vec<Tap>,
    /// What it wants changed in the encoder.
    pub(super) patches: Patches,
    /// Its tokens.
    pub(super) lexicon: Lexicon,
    /// Width of the states.
    pub(super) width: usize,
    /// How much of each tap.
    shares: Vec<f32>,
    layers: Vec<Layer>,
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Head(for {}, {} tokens)", self.encoder.0, self.lexicon.tokens())
    }
}

/// Tensors of a safetensors file, by name, each taken once.
struct Tensors(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Tensors {
    fn read(file: &[u8]) -> Result<(Self, About), String> {
        #[derive(Deserialize)]
        struct Entry {
            dtype: String,
            shape: Vec<usize>,
            data_offsets: (usize, usize),
        }
        if file.len() > FILE_MAX_BYTES {
            return Err(format!("{} bytes are too many", file.len()));
        }
        let (length, rest) = file.split_first_chunk::<8>().ok_or("it is too short")?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|e| e.to_string())?;
        let (header, data) = rest.split_at_checked(length).ok_or("it ends too early")?;
        let mut header: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(header).map_err(|e| format!("it is no safetensors file: {e}"))?;
        let about = header.remove("__metadata__").ok_or("it says nothing of itself")?;
        let about = about.get("voicepay").and_then(|v| v.as_str()).ok_or("it is no digit head: it has no \"voicepay\"")?;
        let about: About = serde_json::from_str(about).map_err(|e| format!("what it says of itself can't be read: {e}"))?;
        let mut tensors = BTreeMap::new();
        for (name, entry) in header {
            let entry: Entry = serde_json::from_value(entry).map_err(|e| format!("tensor {name}: {e}"))?;
            let bytes =
                data.get(entry.data_offsets.0..entry.data_offsets.1).ok_or_else(|| format!("tensor {name} lies outside"))?;
            let values = match entry.dtype.as_str() {
                "F16" => singles(bytes),
                "F32" => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                other => return Err(format!("tensor {name} has type {other}")),
            };
            let count = entry.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            if count != Some(values.len()) || values.iter().any(|v| !v.is_finite()) {
                return Err(format!("tensor {name} is not what its header says"));
            }
            tensors.insert(name, (entry.shape, values));
        }
        Ok((Self(tensors), about))
    }

    fn take(&mut self, name: &str, dims: &[usize]) -> Result<Vec<f32>, String> {
        let (shape, values) = self.0.remove(name).ok_or_else(|| format!("tensor {name} is missing"))?;
        if shape == dims { Ok(values) } else { Err(format!("tensor {name} has dimensions {shape:?}, expected {dims:?}")) }
    }

    fn patches(&mut self) -> Result<Patches, String> {
        let names: Vec<String> = self.0.keys().filter(|n| n.starts_with("encoder.")).cloned().collect();
        let mut patches = Vec::new();
        for name in names {
            let Some((shape, values)) = self.0.remove(&name) else { continue }; // the other half of one taken before
            let inner = name.trim_start_matches("encoder.");
            if let Some(weight) = inner.strip_suffix(".lora_a") {
                let other = format!("encoder.{weight}.lora_b");
                let (b_shape, b) = self.0.remove(&other).ok_or_else(|| format!("tensor {other} is missing"))?;
                let (Some(rank), Some(b_rank)) = (shape.first(), b_shape.get(1)) else {
                    return Err(format!("tensor {name} has dimensions {shape:?}"));
                };
                if rank != b_rank {
                    return Err(format!("tensors {name} and {other} do not fit together"));
                }
                patches.push((weight.to_owned(), Patch::LowRank { a: values, b, rank: *rank }));
            } else if inner.ends_with(".lora_b") {
                return Err(format!("tensor {name} has no other half"));
            } else {
                patches.push((inner.to_owned(), Patch::Instead(values)));
            }
        }
        Ok(Patches(patches))
    }
}

impl Head {
    /// From a file's bytes. The error says what is wrong with it.
    pub(super) fn read(file: &[u8]) -> Result<Self, String> {
        let (mut tensors, about) = Tensors::read(file)?;
        if about.format != FORMAT {
            return Err(format!("its format is {}, this program reads {FORMAT}", about.format));
        }
        let e = about.encoder;
        if (e.sample_rate, e.frame_samples) != (16_000, 320)
            || e.tail_samples > 480_000
            || !(1..=1_500).contains(&e.window_frames)
        {
            return Err("it was trained on frames of another length".to_owned());
        }
        let taps = e.taps.iter().map(|t| tap_of(t)).collect::<Result<Vec<_>, _>>()?;
        let shares = match taps.len() {
            0 => return Err("it listens to nothing".to_owned()),
            1 => vec![1.0],
            n => softmax(&tensors.take("taps", &[n])?),
        };
        let patches = tensors.patches()?;
        let lexicon = Lexicon::new(&about.vocabulary)?;
        if about.ops.iter().rev().skip(1).any(|op| matches!(op, Op::LogSoftmax))
            || !matches!(about.ops.last(), Some(Op::LogSoftmax))
        {
            return Err("it does not end in log_softmax".to_owned());
        }
        let (layers, out) = layers(&mut tensors, about.ops, e.width, DEPTH_MAX)?;
        if out != lexicon.tokens() {
            return Err(format!("its last layer gives {out} numbers for {} tokens", lexicon.tokens()));
        }
        if let Some(name) = tensors.0.keys().next() {
            return Err(format!("nobody knows what its tensor {name} is for"));
        }
        let padding = Padding { tail_samples: e.tail_samples, window_frames: e.window_frames, mel_max: e.mel_max };
        Ok(Self { encoder: (e.name, e.sha256), padding, taps, patches, lexicon, width: e.width, shares, layers })
    }

    /// Natural logarithms of the tokens' probabilities, frame by frame, from the states behind each tap.
    pub(super) fn log_probs(&self, states: &[Zeroizing<Vec<f32>>]) -> Result<Zeroizing<Vec<f32>>, ShapeError> {
        let mixed = match states {
            [one] => one.clone(),
            many => {
                let mut sum = Zeroizing::new(vec![0.0; many.first().map_or(0, |s| s.len())]);
                let (ones, zeros) = (vec![1.0; self.width], vec![0.0; self.width]);
                let mut normed = sum.clone();
                for (state, share) in many.iter().zip(&self.shares) {
                    let out = RowsMut::dense(&mut normed, self.width)?;
                    layer_norm_rows(Rows::dense(state, self.width)?, &ones, &zeros, NORM_EPSILON, out)?;
                    sum.iter_mut().zip(normed.iter()).for_each(|(s, n)| *s += share * n);
                }
                sum
            }
        };
        Ok(run(&self.layers, mixed, self.width)?.0)
    }
}

fn tap_of(text: &str) -> Result<Tap, String> {
    match text {
        "post" => Ok(Tap::Post),
        n => n.parse().map(Tap::Block).map_err(|_| format!("nobody knows its tap \"{n}\"")),
    }
}

fn softmax(x: &[f32]) -> Vec<f32> {
    let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = x.iter().map(|v| (v - top).exp()).sum();
    x.iter().map(|v| (v - top).exp() / sum).collect()
}

/// Layers from what the file says, each fitting the one before; and how wide the last one's rows are.
fn layers(tensors: &mut Tensors, ops: Vec<Op>, mut width: usize, depth: usize) -> Result<(Vec<Layer>, usize), String> {
    let fits = |name: &str, wants: usize, width: usize, n_out: usize| {
        if wants != width || !(1..=WIDTH_MAX).contains(&n_out) {
            return Err(format!("layer {name} takes rows of {wants} and gives {n_out}, the layer before gives {width}"));
        }
        Ok(())
    };
    let mut out = Vec::with_capacity(ops.len());
    for op in ops {
        out.push(match op {
            Op::LayerNorm { name, width: wants } => {
                fits(&name, wants, width, wants)?;
                let scale = tensors.take(&format!("{name}.weight"), &[width])?;
                Layer::Norm { scale, shift: tensors.take(&format!("{name}.bias"), &[width])? }
            }
            Op::Linear { name, n_in, n_out } => {
                fits(&name, n_in, width, n_out)?;
                let weights = tensors.take(&format!("{name}.weight"), &[n_out, n_in])?;
                let weights = PackedMatrix::pack(&weights, n_out, n_in).map_err(|e| e.to_string())?;
                width = n_out;
                Layer::Linear { weights, bias: tensors.take(&format!("{name}.bias"), &[n_out])? }
            }
            Op::Conv1d { name, n_in, n_out, kernel, dilation, groups } => {
                fits(&name, n_in, width, n_out)?;
                let sane = kernel % 2 == 1 && kernel <= 63 && (1..=64).contains(&dilation) && groups >= 1;
                if !sane || !n_in.is_multiple_of(groups) || !n_out.is_multiple_of(groups) {
                    return Err(format!("layer {name} has an impossible form"));
                }
                let (each_in, each_out) = (n_in / groups, n_out / groups);
                let by_tap = tensors.take(&format!("{name}.weight"), &[n_out, each_in, kernel])?;
                let mut packed = Vec::with_capacity(groups);
                for group in by_tap.chunks_exact(each_out * each_in * kernel) {
                    let mut weights = Vec::with_capacity(group.len());
                    for one in group.chunks_exact(each_in * kernel) {
                        (0..kernel).for_each(|tap| weights.extend(one.iter().skip(tap).step_by(kernel)));
                    }
                    packed.push(PackedMatrix::pack(&weights, each_out, each_in * kernel).map_err(|e| e.to_string())?);
                }
                width = n_out;
                Layer::Conv { groups: packed, bias: tensors.take(&format!("{name}.bias"), &[n_out])?, kernel, dilation, n_in }
            }
            Op::Gelu => Layer::Gelu,
            Op::Residual { ops } => {
                let deeper = depth.checked_sub(1).ok_or("its layers lie too deep in each other")?;
                let (inner, inner_out) = layers(tensors, ops, width, deeper)?;
                if inner_out != width {
                    return Err("a residual layer changes its width".to_owned());
                }
                Layer::Residual(inner)
            }
            Op::LogSoftmax => Layer::LogSoftmax,
        });
    }
    Ok((out, width))
}

fn run(layers: &[Layer], mut x: Zeroizing<Vec<f32>>, mut width: usize) -> Result<(Zeroizing<Vec<f32>>, usize), ShapeError> {
    for layer in layers {
        let rows = x.len() / width.max(1);
        match layer {
            Layer::Norm { scale, shift } => {
                let mut out = Zeroizing::new(vec![0.0; x.len()]);
                layer_norm_rows(Rows::dense(&x, width)?, scale, shift, NORM_EPSILON, RowsMut::dense(&mut out, width)?)?;
                x = out;
            }
            Layer::Linear { weights, bias } => {
                let mut out = Zeroizing::new(vec![0.0; rows * bias.len()]);
                let epilogue = Epilogue { bias: Some(bias), activation: Activation::None, add: false };
                weights.apply(Rows::dense(&x, width)?, RowsMut::dense(&mut out, bias.len())?, &epilogue)?;
                (x, width) = (out, bias.len());
            }
            Layer::Conv { groups, bias, kernel, dilation, n_in } => {
                let margin = dilation * (kernel - 1) / 2;
                let mut padded = Zeroizing::new(vec![0.0; (rows + 2 * margin) * n_in]);
                if let Some(inside) = padded.get_mut(margin * n_in..(margin + rows) * n_in) {
                    inside.copy_from_slice(&x);
                }
                let mut out = Zeroizing::new(vec![0.0; rows * bias.len()]);
                let (each_in, each_out) = (n_in / groups.len().max(1), bias.len() / groups.len().max(1));
                let padded = Rows::dense(&padded, *n_in)?;
                let mut all = RowsMut::dense(&mut out, bias.len())?;
                for ((g, weights), bias) in groups.iter().enumerate().zip(bias.chunks(each_out.max(1))) {
                    let taps = (0..*kernel)
                        .map(|tap| padded.slab(tap * dilation, rows)?.part(g * each_in, each_in))
                        .collect::<Result<Vec<_>, _>>()?;
                    let epilogue = Epilogue { bias: Some(bias), activation: Activation::None, add: false };
                    weights.apply_parts(&taps, all.part(g * each_out, each_out)?, &epilogue)?;
                }
                (x, width) = (out, bias.len());
            }
            Layer::Gelu => gelu(&mut x),
            Layer::Residual(inner) => {
                let (y, _) = run(inner, x.clone(), width)?;
                x.iter_mut().zip(y.iter()).for_each(|(x, y)| *x += y);
            }
            Layer::LogSoftmax => {
                for row in x.chunks_exact_mut(width.max(1)) {
                    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let sum: f32 = row.iter().map(|v| (v - top).exp()).sum();
                    let shift = top + sum.ln();
                    row.iter_mut().for_each(|v| *v -= shift);
                }
            }
        }
    }
    Ok((x, width))
}
