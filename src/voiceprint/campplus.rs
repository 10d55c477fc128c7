//! CAM++ (3D-Speaker's D-TDNN with a two-dimensional head), 80 mels in, 192 numbers out, on candle.
//!
//! Weights are the published ones; batch norms are folded into the products before them when the file is loaded, except where a ReLU or
//! a concatenation lies between. Every operation runs on the calling thread, so that calls can run side by side.

use std::collections::HashMap;

use candle_core::{Device, Error, Result, Tensor};
use ndarray::Array2;

use super::conv::{CHANNELS, Conv, Trim, row_positions};
use super::dense::{DenseBlock, DenseLayer, Linear, NormRelu, Pooling, TimeDelay, Transition};
use super::embedding::EMBEDDING_SIZE;
use super::fbank::MELS;

/// Layers and dilation of the three blocks.
const BLOCKS: [(usize, usize); 3] = [(12, 1), (24, 2), (16, 2)];
/// Rows that the head leaves of 80 mels: it halves them three times.
const HEAD_ROWS: usize = MELS / 8;
/// PyTorch's default for batch norms.
const NORM_EPSILON: f32 = 1e-5;

/// The network with its weights.
pub(super) struct CampPlus {
    first: Conv,
    residual: Vec<Residual>,
    last: Conv,
    time_delay: Linear,
    blocks: Vec<(DenseBlock, Transition)>,
    pooling: Pooling,
}

/// Two convolutions around which the input runs, through a third where the shape changes.
struct Residual {
    one: Conv,
    two: Conv,
    shortcut: Option<Conv>,
}

impl CampPlus {
    /// From a safetensors file's content.
    pub fn load(safetensors: &[u8]) -> Result<Self> {
        let weights = Weights(candle_core::safetensors::load_buffer(safetensors, &Device::Cpu)?);
        let mut residual = Vec::new();
        for (layer, block) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            let name = format!("head.layer{layer}.{block}");
            let stride = if block == 0 { 2 } else { 1 };
            let shortcut = weights.conv(&format!("{name}.shortcut.0"), &format!("{name}.shortcut.1"), CHANNELS, 1, 2);
            residual.push(Residual {
                one: weights.conv(&format!("{name}.conv1"), &format!("{name}.bn1"), CHANNELS, 3, stride)?,
                two: weights.conv(&format!("{name}.conv2"), &format!("{name}.bn2"), CHANNELS, 3, 1)?,
                shortcut: (block == 0).then_some(shortcut).transpose()?.map(|c| Conv { relu: false, ..c }),
            });
        }
        let mut blocks = Vec::new();
        let mut channels = 128;
        for (i, (layers, dilation)) in BLOCKS.into_iter().enumerate() {
            let mut block = DenseBlock { layers: Vec::new(), dilation };
            for layer in 0..layers {
                block.layers.push(weights.dense_layer(&format!("xvector.block{}.tdnnd{}", i + 1, layer + 1), channels)?);
                channels += CHANNELS;
            }
            let name = format!("xvector.transit{}", i + 1);
            let norm = weights.norm(&format!("{name}.nonlinear.batchnorm"), channels)?;
            let linear = weights.linear(&format!("{name}.linear"), channels / 2, channels)?;
            blocks.push((block, Transition { norm, linear }));
            channels /= 2;
        }
        let mut embedding = weights.linear("xvector.dense.linear", EMBEDDING_SIZE, 2 * channels)?;
        weights.fold(&mut embedding, "xvector.dense.nonlinear.batchnorm")?;
        Ok(Self {
            first: weights.conv("head.conv1", "head.bn1", 1, 3, 1)?,
            residual,
            last: weights.conv("head.conv2", "head.bn2", CHANNELS, 3, 2)?,
            time_delay: weights.time_delay()?,
            blocks,
            pooling: Pooling { norm: weights.norm("xvector.out_nonlinear.batchnorm", channels)?, linear: embedding },
        })
    }

    /// `frames` × 80 log mels, already without their mean over time → 192 numbers.
    pub fn forward(&self, mels: &Array2<f32>) -> Result<Vec<f32>> {
        let frames = mels.nrows();
        let positions = row_positions(frames);
        let mut input = vec![0.0f32; MELS * positions];
        for (row, column) in input.chunks_exact_mut(positions).zip(mels.columns()) {
            for (slot, v) in row.iter_mut().skip(1).zip(column) {
                *slot = *v;
            }
        }
        let trim = Trim { frames };
        let trimmed = |x: Tensor| x.inplace_op1(&trim).map(|()| x);
        let input = Tensor::from_vec(input, (MELS, positions, 1), &Device::Cpu)?;
        let mut x = trimmed(input.apply_op1_no_bwd(&self.first)?)?;
        for r in &self.residual {
            let inner = trimmed(x.apply_op1_no_bwd(&r.one)?)?;
            let around = match &r.shortcut {
                Some(shortcut) => x.apply_op1_no_bwd(shortcut)?,
                None => x,
            };
            x = trimmed(inner.apply_op2_no_bwd(&around, &r.two)?)?;
        }
        x = x.apply_op1_no_bwd(&self.last)?;
        x = x.apply_op1_no_bwd(&&TimeDelay { linear: &self.time_delay, frames })?;
        for (block, transition) in &self.blocks {
            x = x.apply_op1_no_bwd(&block)?.apply_op1_no_bwd(&transition)?;
        }
        x.apply_op1_no_bwd(&&self.pooling)?.to_vec1::<f32>()
    }
}

/// Tensors by name.
struct Weights(HashMap<String, Tensor>);

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

    fn linear(&self, name: &str, rows: usize, columns: usize) -> Result<Linear> {
        let weights = self.numbers(&format!("{name}.weight"), rows * columns)?;
        let biased = self.0.contains_key(&format!("{name}.bias"));
        let bias = if biased { self.numbers(&format!("{name}.bias"), rows)? } else { vec![0.0; rows] };
        Ok(Linear { rows, columns, weights, bias })
    }

    /// Takes the batch norm after `linear` into it.
    fn fold(&self, linear: &mut Linear, norm: &str) -> Result<()> {
        let norm = self.norm(norm, linear.rows)?;
        let rows = linear.weights.chunks_exact_mut(linear.columns).zip(&mut linear.bias);
        for ((row, bias), (scale, shift)) in rows.zip(norm.scale.iter().zip(&norm.shift)) {
            row.iter_mut().for_each(|w| *w *= scale);
            *bias = *bias * scale + shift;
        }
        Ok(())
    }

    /// PyTorch has [out][in][row][time]; the kernel wants [row][time][in][out].
    fn conv(&self, name: &str, norm: &str, channels_in: usize, taps: usize, stride: usize) -> Result<Conv> {
        let mut linear = self.linear(name, CHANNELS, channels_in * taps * taps)?;
        self.fold(&mut linear, norm)?;
        let area = taps * taps;
        let mut weights = vec![[0.0f32; CHANNELS]; area * channels_in];
        for (out, row) in linear.weights.chunks_exact(linear.columns).enumerate() {
            for (channel, taps) in row.chunks_exact(area).enumerate() {
                for (tap, w) in taps.iter().enumerate() {
                    if let Some(slot) = weights.get_mut(tap * channels_in + channel).and_then(|s| s.get_mut(out)) {
                        *slot = *w;
                    }
                }
            }
        }
        let bias = linear.bias.try_into().map_err(|_| Error::Msg(format!("{name}: not {CHANNELS} channels")))?;
        Ok(Conv { weights, bias, channels_in, taps, stride, relu: true })
    }

    /// PyTorch has [out][channel × rows + row][tap]; the columns are laid [tap][row][channel].
    fn time_delay(&self) -> Result<Linear> {
        const TAPS: usize = 5;
        let name = "xvector.tdnn";
        let mut linear = self.linear(&format!("{name}.linear"), 128, CHANNELS * HEAD_ROWS * TAPS)?;
        self.fold(&mut linear, &format!("{name}.nonlinear.batchnorm"))?;
        let mut sorted = vec![0.0f32; linear.weights.len()];
        for (from, to) in linear.weights.chunks_exact(linear.columns).zip(sorted.chunks_exact_mut(linear.columns)) {
            for (i, taps) in from.chunks_exact(TAPS).enumerate() {
                let (channel, row) = (i / HEAD_ROWS, i % HEAD_ROWS);
                for (tap, w) in taps.iter().enumerate() {
                    if let Some(slot) = to.get_mut((tap * HEAD_ROWS + row) * CHANNELS + channel) {
                        *slot = *w;
                    }
                }
            }
        }
        Ok(Linear { weights: sorted, ..linear })
    }

    fn dense_layer(&self, name: &str, channels: usize) -> Result<DenseLayer> {
        const WIDE: usize = 128;
        let mut squeeze = self.linear(&format!("{name}.linear1"), WIDE, channels)?;
        self.fold(&mut squeeze, &format!("{name}.nonlinear2.batchnorm"))?;
        let local = self.numbers(&format!("{name}.cam_layer.linear_local.weight"), CHANNELS * WIDE * 3)?;
        let tap = |tap: usize| {
            let weights = local.iter().skip(tap).step_by(3).copied().collect();
            Linear { rows: CHANNELS, columns: WIDE, weights, bias: vec![0.0; CHANNELS] }
        };
        Ok(DenseLayer {
            norm: self.norm(&format!("{name}.nonlinear1.batchnorm"), channels)?,
            squeeze,
            local: [tap(0), tap(1), tap(2)],
            context: self.linear(&format!("{name}.cam_layer.linear1"), WIDE / 2, WIDE)?,
            mask: self.linear(&format!("{name}.cam_layer.linear2"), CHANNELS, WIDE / 2)?,
        })
    }
}
