//! CAM++ (3D-Speaker's D-TDNN with a two-dimensional head), 80 mels in, 192 numbers out.
//!
//! Weights are the published ones, read by candle; batch norms are folded into the products before them and matrices packed when the
//! file is loaded, except where a ReLU or a concatenation lies between. Everything runs on the calling thread, so that calls can run side
//! by side; what an utterance needs of memory is kept for the next one, wiped.

use std::collections::HashMap;

use candle_core::{Device, Error, Result, Tensor};
use ndarray::Array2;

use super::conv::{Around, CHANNELS, Conv, Head, Plane, Stage};
use super::dense::{Buffers, DenseBlock, DenseLayer, Linear, NormRelu, Pooling, Trunk};
use super::embedding::EMBEDDING_SIZE;
use super::fbank::MELS;
use crate::kernels::{Kept, PackedMatrix, ShapeError, Workspace};

/// Layers and dilation of the three blocks.
const BLOCKS: [(usize, usize); 3] = [(12, 1), (24, 2), (16, 2)];
/// Rows that the head leaves of 80 mels: it halves them three times.
const HEAD_ROWS: usize = MELS / 8;
/// PyTorch's default for batch norms.
const NORM_EPSILON: f32 = 1e-5;
/// The network with its weights.
pub(super) struct CampPlus {
    head: Head,
    trunk: Trunk,
    passing: Kept<Passing>,
}

/// What passes through the network.
#[derive(Default)]
struct Passing {
    planes: Vec<Plane>,
    buffers: Buffers,
}

impl Workspace for Passing {
    fn buffers(&mut self) -> Vec<&mut Vec<f32>> {
        self.planes.iter_mut().map(Plane::data_mut).chain(self.buffers.all()).collect()
    }
}

impl CampPlus {
    /// From a safetensors file's content.
    pub fn load(safetensors: &[u8]) -> Result<Self> {
        let weights = Weights(candle_core::safetensors::load_buffer(safetensors, &Device::Cpu)?);
        let mut stages =
            vec![Stage { conv: weights.conv("head.conv1", "head.bn1", 1, 3, 1)?, source: 0, around: Around::Nothing }];
        for (layer, block) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            let name = format!("head.layer{layer}.{block}");
            let (stride, source) = (if block == 0 { 2 } else { 1 }, stages.len());
            let around = if block == 0 {
                let norm = format!("{name}.shortcut.1");
                Around::Conv(source, weights.conv(&format!("{name}.shortcut.0"), &norm, CHANNELS, 1, 2)?)
            } else {
                Around::Plane(source)
            };
            let one = weights.conv(&format!("{name}.conv1"), &format!("{name}.bn1"), CHANNELS, 3, stride)?;
            let two = weights.conv(&format!("{name}.conv2"), &format!("{name}.bn2"), CHANNELS, 3, 1)?;
            stages.push(Stage { conv: one, source, around: Around::Nothing });
            stages.push(Stage { conv: two, source: source + 1, around });
        }
        let last = weights.conv("head.conv2", "head.bn2", CHANNELS, 3, 2)?;
        stages.push(Stage { conv: last, source: stages.len(), around: Around::Nothing });
        let mut blocks = Vec::new();
        let mut channels = 128;
        for (i, (layers, dilation)) in BLOCKS.into_iter().enumerate() {
            let mut grown = Vec::new();
            for layer in 0..layers {
                grown.push(weights.dense_layer(&format!("xvector.block{}.tdnnd{}", i + 1, layer + 1), channels)?);
                channels += CHANNELS;
            }
            let name = format!("xvector.transit{}", i + 1);
            let norm = weights.norm(&format!("{name}.nonlinear.batchnorm"), channels)?;
            let transition = weights.plain(&format!("{name}.linear"), channels / 2, channels)?;
            blocks.push(DenseBlock { layers: grown, dilation, norm, transition: transition.pack()?.matrix });
            channels /= 2;
        }
        let mut embedding = weights.plain("xvector.dense.linear", EMBEDDING_SIZE, 2 * channels)?;
        weights.fold(&mut embedding, "xvector.dense.nonlinear.batchnorm")?;
        let norm = weights.norm("xvector.out_nonlinear.batchnorm", channels)?;
        let pooling = Pooling { norm, linear: embedding.pack()? };
        let trunk = Trunk { time_delay: weights.time_delay()?, blocks, pooling };
        Ok(Self { head: Head { stages }, trunk, passing: Kept::default() })
    }

    /// `frames` × 80 log mels, already without their mean over time → 192 numbers. Frames count as `weights` say, one each; all the same
    /// without.
    pub fn forward(&self, mels: &Array2<f32>, weights: Option<&[f32]>) -> std::result::Result<Vec<f32>, ShapeError> {
        let misfit = ShapeError { what: "mels", got: mels.ncols(), want: MELS };
        let input = mels.as_slice().filter(|_| mels.ncols() == MELS).ok_or(misfit)?;
        self.passing.with(|Passing { planes, buffers }| {
            self.head.run(input, MELS, Trunk::MARGIN, planes)?;
            let head = planes.last().ok_or(misfit)?;
            self.trunk.run(head, HEAD_ROWS, mels.nrows(), weights, buffers)
        })
    }
}

/// Tensors by name.
struct Weights(HashMap<String, Tensor>);

/// A matrix by rows with a bias a row, not packed yet.
struct Plain {
    rows: usize,
    columns: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Plain {
    fn pack(self) -> Result<Linear> {
        let matrix = PackedMatrix::pack(&self.weights, self.rows, self.columns).map_err(|e| Error::Msg(e.to_string()))?;
        Ok(Linear { matrix, bias: self.bias })
    }

    /// Inputs in another order: the one at `i` comes from `from(i)`.
    fn sorted(mut self, from: impl Fn(usize) -> usize) -> Self {
        let rows = self.weights.chunks_exact(self.columns);
        self.weights =
            rows.flat_map(|row| (0..row.len()).map(|i| row.get(from(i)).copied().unwrap_or(0.0)).collect::<Vec<_>>()).collect();
        self
    }
}

impl Weights {
    /// The numbers of `name`, which must be `count`.
    fn numbers(&self, name: &str, count: usize) -> Result<Vec<f32>> {
        let tensor = self.0.get(name).ok_or_else(|| Error::Msg(format!("there is no tensor {name}")))?;
        let numbers = tensor.flatten_all()?.to_vec1::<f32>()?;
        if numbers.len() != count {
            return Err(Error::Msg(format!("tensor {name} has {} numbers, not {count}", numbers.len())));
        }
        if numbers.iter().any(|v| !v.is_finite()) {
            return Err(Error::Msg(format!("tensor {name} holds numbers that are not finite")));
        }
        Ok(numbers)
    }

    /// A batch norm as scale and shift. The last one has no learnt scale and shift of its own.
    fn norm(&self, name: &str, count: usize) -> Result<NormRelu> {
        let mean = self.numbers(&format!("{name}.running_mean"), count)?;
        let variance = self.numbers(&format!("{name}.running_var"), count)?;
        let affine = self.0.contains_key(&format!("{name}.weight"));
        let weight = if affine { self.numbers(&format!("{name}.weight"), count)? } else { vec![1.0; count] };
        let bias = if affine { self.numbers(&format!("{name}.bias"), count)? } else { vec![0.0; count] };
        let scale: Vec<f32> = weight.iter().zip(&variance).map(|(w, v)| w / (v + NORM_EPSILON).sqrt()).collect();
        let shift = bias.iter().zip(mean.iter().zip(&scale)).map(|(b, (m, s))| b - m * s).collect();
        Ok(NormRelu { scale, shift })
    }

    fn plain(&self, name: &str, rows: usize, columns: usize) -> Result<Plain> {
        let weights = self.numbers(&format!("{name}.weight"), rows * columns)?;
        let biased = self.0.contains_key(&format!("{name}.bias"));
        let bias = if biased { self.numbers(&format!("{name}.bias"), rows)? } else { vec![0.0; rows] };
        Ok(Plain { rows, columns, weights, bias })
    }

    /// Takes the batch norm after `linear` into it.
    fn fold(&self, linear: &mut Plain, norm: &str) -> Result<()> {
        let norm = self.norm(norm, linear.rows)?;
        let rows = linear.weights.chunks_exact_mut(linear.columns).zip(&mut linear.bias);
        for ((row, bias), (scale, shift)) in rows.zip(norm.scale.iter().zip(&norm.shift)) {
            row.iter_mut().for_each(|w| *w *= scale);
            *bias = *bias * scale + shift;
        }
        Ok(())
    }

    /// PyTorch has [out][in][row][time]; channels shall lie innermost: [out][row][time][in].
    fn conv(&self, name: &str, norm: &str, channels_in: usize, taps: usize, stride: usize) -> Result<Conv> {
        let area = taps * taps;
        let mut plain = self.plain(name, CHANNELS, channels_in * area)?;
        self.fold(&mut plain, norm)?;
        let Linear { matrix, bias } = plain.sorted(|i| i % channels_in * area + i / channels_in).pack()?;
        Ok(Conv { matrix, bias, channels_in, taps, stride })
    }

    /// PyTorch has [out][channel][row][tap] (the head's output reshaped); the head's rows are read one by one: [out][row][tap][channel].
    fn time_delay(&self) -> Result<Linear> {
        const TAPS: usize = 5;
        let mut plain = self.plain("xvector.tdnn.linear", 128, CHANNELS * HEAD_ROWS * TAPS)?;
        self.fold(&mut plain, "xvector.tdnn.nonlinear.batchnorm")?;
        plain.sorted(|i| i % CHANNELS * HEAD_ROWS * TAPS + i / CHANNELS).pack()
    }

    fn dense_layer(&self, name: &str, channels: usize) -> Result<DenseLayer> {
        const WIDE: usize = 128;
        const TAPS: usize = 3;
        let mut squeeze = self.plain(&format!("{name}.linear1"), WIDE, channels)?;
        self.fold(&mut squeeze, &format!("{name}.nonlinear2.batchnorm"))?;
        let local = self.plain(&format!("{name}.cam_layer.linear_local"), CHANNELS, WIDE * TAPS)?;
        Ok(DenseLayer {
            norm: self.norm(&format!("{name}.nonlinear1.batchnorm"), channels)?,
            squeeze: squeeze.pack()?,
            // PyTorch has [out][in][tap].
            local: local.sorted(|i| i % WIDE * TAPS + i / WIDE).pack()?.matrix,
            context: self.plain(&format!("{name}.cam_layer.linear1"), WIDE / 2, WIDE)?.pack()?,
            mask: self.plain(&format!("{name}.cam_layer.linear2"), CHANNELS, WIDE / 2)?.pack()?,
        })
    }
}
