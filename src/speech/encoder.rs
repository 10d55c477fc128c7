//! Whisper's encoder by our own forward, on the weights of the file that whisper.cpp reads: its states are not to be had from there.
//!
//! The context is cut to the utterance (`scripts/digit-head/FORMAT.md`, step 2): 8 s cost a fifth of Whisper's whole window.

use zeroize::Zeroizing;

use super::SpeechError;
use super::log_mel::{BINS, HOP, LogMel, MELS};
use super::model_file::ModelFile;
use crate::kernels::{
    Activation, AttentionScratch, Epilogue, Kept, PackedMatrix, Rows, RowsMut, ShapeError, Workspace, attention, layer_norm_rows,
};

/// Columns of the spectrogram that become one state: the second convolution's step.
const COLUMNS_A_STATE: usize = 2;
/// As in PyTorch.
const NORM_EPSILON: f32 = 1e-5;

/// What a head wants changed: values added to weights of the encoder, by name, and how the sound is brought to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Patches(pub(super) Vec<(String, Patch)>);

/// One weight's change.
#[derive(Clone, Debug)]
pub(super) enum Patch {
    /// Added: `b · a` of rank `rank`, `b` being outputs × rank, `a` rank × inputs.
    LowRank { a: Vec<f32>, b: Vec<f32>, rank: usize },
    /// Put in its place.
    Instead(Vec<f32>),
}

/// How an utterance is laid before the encoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Padding {
    /// Silence behind it, in samples.
    pub(super) tail_samples: usize,
    /// States at most.
    pub(super) window_frames: usize,
    /// Where the spectrogram's loudest value is moved to.
    pub(super) mel_max: Option<f32>,
}

/// Which states are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tap {
    /// Behind a block.
    Block(usize),
    /// Behind the last norm.
    Post,
}

struct Dense {
    weights: PackedMatrix,
    bias: Vec<f32>,
}

struct Norm {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

struct Block {
    before_attention: Norm,
    /// Queries (scaled), keys and values in one.
    project: Dense,
    out: Dense,
    before_mlp: Norm,
    widen: Dense,
    narrow: Dense,
}

/// The network, loaded.
pub(super) struct Encoder {
    mel: LogMel,
    conv1: Dense,
    conv2: Dense,
    /// One row a state.
    positions: Vec<f32>,
    blocks: Vec<Block>,
    post: Norm,
    width: usize,
    heads: usize,
    passing: Kept<Passing>,
}

/// What passes through the network.
#[derive(Default)]
struct Passing {
    x: Vec<f32>,
    normed: Vec<f32>,
    projected: Vec<f32>,
    /// Behind the first convolution, and inside the blocks what lies between their two last products.
    hidden: Vec<f32>,
    attention: AttentionScratch,
}

impl Workspace for Passing {
    fn buffers(&mut self) -> Vec<&mut Vec<f32>> {
        let Self { x, normed, projected, hidden, attention } = self;
        [x, normed, projected, hidden].into_iter().chain(attention.buffers()).collect()
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encoder({} layers, {} wide)", self.blocks.len(), self.width)
    }
}

impl Dense {
    fn apply(&self, x: Rows<'_>, out: RowsMut<'_>, activation: Activation, add: bool) -> Result<(), ShapeError> {
        self.weights.apply(x, out, &Epilogue { bias: Some(&self.bias), activation, add })
    }
}

impl Norm {
    fn apply(&self, x: &[f32], out: &mut [f32], width: usize) -> Result<(), ShapeError> {
        layer_norm_rows(Rows::dense(x, width)?, &self.scale, &self.shift, NORM_EPSILON, RowsMut::dense(out, width)?)
    }
}

/// Weights by name, changed as a head wants.
struct Weights<'a> {
    file: &'a ModelFile,
    patches: &'a Patches,
}

impl Weights<'_> {
    fn get(&self, name: &str, dims: &[usize]) -> Result<Vec<f32>, String> {
        let mut values = self.file.tensor(&format!("encoder.{name}"), dims)?;
        for (_, patch) in self.patches.0.iter().filter(|(n, _)| n == name) {
            match patch {
                Patch::Instead(other) if other.len() == values.len() => values.clone_from(other),
                Patch::LowRank { a, b, rank } if a.len() * b.len() == values.len() * rank * rank && *rank > 0 => {
                    let inputs = a.len() / rank;
                    for (row, b) in values.chunks_exact_mut(inputs).zip(b.chunks_exact(*rank)) {
                        for (a, b) in a.chunks_exact(inputs).zip(b) {
                            row.iter_mut().zip(a).for_each(|(w, a)| *w += a * b);
                        }
                    }
                }
                Patch::Instead(_) | Patch::LowRank { .. } => {
                    return Err(format!("the head's change of encoder.{name} has other dimensions"));
                }
            }
        }
        if values.iter().all(|v| v.is_finite()) { Ok(values) } else { Err(format!("encoder.{name} holds no numbers")) }
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm, String> {
        Ok(Norm { scale: self.get(&format!("{name}.weight"), &[width])?, shift: self.get(&format!("{name}.bias"), &[width])? })
    }

    fn dense(&self, name: &str, n_out: usize, n_in: usize) -> Result<Dense, String> {
        let weights = self.get(&format!("{name}.weight"), &[n_out, n_in])?;
        let weights = PackedMatrix::pack(&weights, n_out, n_in).map_err(|e| e.to_string())?;
        Ok(Dense { weights, bias: self.get(&format!("{name}.bias"), &[n_out])? })
    }

    /// Three taps over time: from outputs × inputs × taps, as files have it, to inputs innermost.
    fn conv(&self, name: &str, n_out: usize, n_in: usize) -> Result<Dense, String> {
        let by_tap = self.get(&format!("{name}.weight"), &[n_out, n_in, 3])?;
        let mut weights = Vec::with_capacity(by_tap.len());
        for one in by_tap.chunks_exact(n_in * 3) {
            (0..3).for_each(|tap| weights.extend(one.iter().skip(tap).step_by(3)));
        }
        let weights = PackedMatrix::pack(&weights, n_out, n_in * 3).map_err(|e| e.to_string())?;
        Ok(Dense { weights, bias: self.get(&format!("{name}.bias"), &[n_out, 1])? })
    }

    fn block(&self, i: usize, width: usize, heads: usize) -> Result<Block, String> {
        let name = |part: &str| format!("blocks.{i}.{part}");
        #[allow(clippy::as_conversions, clippy::cast_precision_loss)] // a head's width is 64
        let scale = 1.0 / ((width / heads) as f32).sqrt();
        let square = [width, width];
        let mut project: Vec<f32> = self.get(&name("attn.query.weight"), &square)?.iter().map(|w| w * scale).collect();
        project.extend(self.get(&name("attn.key.weight"), &square)?);
        project.extend(self.get(&name("attn.value.weight"), &square)?);
        let mut bias: Vec<f32> = self.get(&name("attn.query.bias"), &[width])?.iter().map(|w| w * scale).collect();
        bias.resize(2 * width, 0.0); // keys have none
        bias.extend(self.get(&name("attn.value.bias"), &[width])?);
        Ok(Block {
            before_attention: self.norm(&name("attn_ln"), width)?,
            project: Dense { weights: PackedMatrix::pack(&project, 3 * width, width).map_err(|e| e.to_string())?, bias },
            out: self.dense(&name("attn.out"), width, width)?,
            before_mlp: self.norm(&name("mlp_ln"), width)?,
            widen: self.dense(&name("mlp.0"), 4 * width, width)?,
            narrow: self.dense(&name("mlp.2"), width, 4 * width)?,
        })
    }
}

impl Encoder {
    /// From a file that was checked, with a head's changes. The error says what does not fit.
    pub(super) fn load(file: &ModelFile, patches: &Patches) -> Result<Self, String> {
        let weights = Weights { file, patches };
        let (width, heads) = (file.width(), file.encoder_heads());
        if !width.is_multiple_of(heads) {
            return Err("its heads do not divide its width".to_owned());
        }
        let blocks = (0..file.encoder_layers()).map(|i| weights.block(i, width, heads)).collect::<Result<_, _>>()?;
        let filters = file.mel_filters(MELS * BINS)?;
        Ok(Self {
            mel: LogMel::new(&filters).ok_or("its mel filters are no numbers")?,
            conv1: weights.conv("conv1", width, MELS)?,
            conv2: weights.conv("conv2", width, width)?,
            positions: weights.get("positional_embedding", &[file.encoder_context(), width])?,
            blocks,
            post: weights.norm("ln_post", width)?,
            width,
            heads,
            passing: Kept::default(),
        })
    }

    /// How many states `samples` become.
    fn frames(&self, samples: usize, padding: &Padding) -> usize {
        let context = self.positions.len() / self.width.max(1);
        (samples + padding.tail_samples).div_ceil(HOP * COLUMNS_A_STATE).min(padding.window_frames).min(context)
    }

    /// The states behind each of `taps`, row by row.
    pub(super) fn states(
        &self,
        samples_16k: &[f32],
        padding: &Padding,
        taps: &[Tap],
    ) -> Result<Vec<Zeroizing<Vec<f32>>>, SpeechError> {
        self.forward(samples_16k, padding, taps).map_err(|e| SpeechError::Network(e.to_string()))
    }

    fn forward(&self, samples: &[f32], padding: &Padding, taps: &[Tap]) -> Result<Vec<Zeroizing<Vec<f32>>>, ShapeError> {
        let frames = self.frames(samples.len(), padding);
        let mel = self.mel.compute(samples, frames * COLUMNS_A_STATE, padding.mel_max);
        self.passing.with(|passing| self.through(&mel, frames, taps, passing))
    }

    fn through(
        &self,
        mel: &[f32],
        frames: usize,
        taps: &[Tap],
        passing: &mut Passing,
    ) -> Result<Vec<Zeroizing<Vec<f32>>>, ShapeError> {
        let (width, columns) = (self.width, frames * COLUMNS_A_STATE);
        let Passing { x, normed, projected, hidden, attention: scratch } = passing;
        // A row of zeros before and behind, for the second convolution.
        hidden.resize((columns + 2) * width, 0.0);
        let inside = hidden.get_mut(width..(columns + 1) * width).unwrap_or_default();
        self.conv1.apply(Rows::new(mel, columns, 3 * MELS, MELS)?, RowsMut::dense(inside, width)?, Activation::Gelu, false)?;
        x.resize(frames * width, 0.0);
        let steps = Rows::new(hidden, frames, 3 * width, COLUMNS_A_STATE * width)?;
        self.conv2.apply(steps, RowsMut::dense(x, width)?, Activation::Gelu, false)?;
        x.iter_mut().zip(&self.positions).for_each(|(v, p)| *v += p);

        normed.resize(frames * width, 0.0);
        projected.resize(frames * 3 * width, 0.0);
        hidden.resize(frames * 4 * width, 0.0);
        let mut tapped: Vec<Option<Zeroizing<Vec<f32>>>> = taps.iter().map(|_| None).collect();
        for (i, block) in self.blocks.iter().enumerate() {
            block.before_attention.apply(x, normed, width)?;
            block.project.apply(Rows::dense(normed, width)?, RowsMut::dense(projected, 3 * width)?, Activation::None, false)?;
            let all = Rows::dense(projected, 3 * width)?;
            let (q, k, v) = (all.part(0, width)?, all.part(width, width)?, all.part(2 * width, width)?);
            attention(q, k, v, self.heads, RowsMut::dense(normed, width)?, scratch)?;
            block.out.apply(Rows::dense(normed, width)?, RowsMut::dense(x, width)?, Activation::None, true)?;
            block.before_mlp.apply(x, normed, width)?;
            let widened = RowsMut::dense(hidden, 4 * width)?;
            block.widen.apply(Rows::dense(normed, width)?, widened, Activation::Gelu, false)?;
            let narrowed = RowsMut::dense(x, width)?;
            block.narrow.apply(Rows::dense(hidden, 4 * width)?, narrowed, Activation::None, true)?;
            for (slot, _) in tapped.iter_mut().zip(taps).filter(|(_, tap)| **tap == Tap::Block(i)) {
                *slot = Some(Zeroizing::new(x.clone()));
            }
        }
        if taps.contains(&Tap::Post) {
            self.post.apply(x, normed, width)?;
        }
        let missing = ShapeError { what: "the encoder's blocks", got: self.blocks.len(), want: self.blocks.len() + 1 };
        let post = |tap: &Tap| (*tap == Tap::Post).then(|| Zeroizing::new(normed.clone()));
        tapped.into_iter().zip(taps).map(|(found, tap)| found.or_else(|| post(tap)).ok_or(missing)).collect()
    }
}
