//! CAM++ after its head, as candle operations over channels × time: the first time-delay layer, the densely connected blocks with
//! context-aware masks, the transitions, and the pooling into 192 numbers (Wang et al., CAM++, Interspeech 2023).
//!
//! Matrix products are ndarray's on the calling thread, which here run twice as fast as candle's own: they know AVX-512 and add into
//! what is there, so that a block grows in one buffer and nothing is concatenated.

use candle_core::{CpuStorage, CustomOp1, Error, Layout, Result, Shape};
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder};

use super::conv::{CHANNELS, slice_of};

/// Context is averaged over this many frames, besides over all.
const SEGMENT: usize = 100;

/// A batch norm and its ReLU, where what follows is no product that could take them in.
pub(super) struct NormRelu {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

impl NormRelu {
    /// Channels × time, into `out` of the same shape.
    fn apply(&self, x: &[f32], time: usize, out: &mut [f32]) {
        let rows = x.chunks_exact(time).zip(out.chunks_exact_mut(time));
        for ((x, out), (scale, shift)) in rows.zip(self.scale.iter().zip(&self.shift)) {
            for (x, out) in x.iter().zip(out) {
                *out = (x * scale + shift).max(0.0);
            }
        }
    }
}

/// A matrix by rows with a bias a row.
pub(super) struct Linear {
    pub rows: usize,
    pub columns: usize,
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Linear {
    fn view(&self) -> Result<ArrayView2<'_, f32>> {
        view(&self.weights, self.rows, self.columns, self.columns)
    }
}

/// `rows` × `columns` of `x`, one row every `step` numbers.
fn view(x: &[f32], rows: usize, columns: usize, step: usize) -> Result<ArrayView2<'_, f32>> {
    ArrayView2::from_shape((rows, columns).strides((step, 1)), x).map_err(wrong_shape)
}

fn view_mut(x: &mut [f32], rows: usize, columns: usize) -> Result<ArrayViewMut2<'_, f32>> {
    ArrayViewMut2::from_shape((rows, columns), x).map_err(wrong_shape)
}

fn wrong_shape(e: ndarray::ShapeError) -> Error {
    Error::Msg(e.to_string())
}

fn part(x: &[f32], from: usize, to: usize) -> Result<&[f32]> {
    x.get(from..to).ok_or_else(|| Error::Msg("operand is cut short".into()))
}

/// Adds a bias a row and takes the positive part, in place.
fn bias_relu(x: &mut [f32], time: usize, bias: &[f32]) {
    for (row, bias) in x.chunks_exact_mut(time).zip(bias) {
        for v in row {
            *v = (*v + bias).max(0.0);
        }
    }
}

/// The first time-delay layer: five frames wide, every second frame; head's rows × positions × 32 → 128 × time.
pub(super) struct TimeDelay<'a> {
    /// 128 × [time tap][row][channel], batch norm folded in.
    pub linear: &'a Linear,
    /// Frames in the head's rows; the rest is padding.
    pub frames: usize,
}

impl CustomOp1 for &TimeDelay<'_> {
    fn name(&self) -> &'static str {
        "voicepay-time-delay"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice_of(x, layout)?;
        let (rows, positions, channels) = layout.shape().dims3()?;
        let (time, width) = (self.frames.div_ceil(2), rows * channels);
        let mut columns = vec![0.0f32; time * 5 * width];
        for (t, column) in columns.chunks_exact_mut(5 * width).enumerate() {
            for (tap, column) in column.chunks_exact_mut(width).enumerate() {
                // Position 0 is padding, so frame f lies at f + 1; two frames before the first are zero as well.
                let Some(position) = (2 * t + tap + 1).checked_sub(2).filter(|p| *p <= self.frames) else { continue };
                for (row, slot) in column.chunks_exact_mut(channels).enumerate() {
                    let from = (row * positions + position) * channels;
                    slot.copy_from_slice(part(x, from, from + channels)?);
                }
            }
        }
        let mut out = vec![0.0f32; self.linear.rows * time];
        let columns = view(&columns, time, 5 * width, 5 * width)?;
        general_mat_mul(1.0, &self.linear.view()?, &columns.t(), 0.0, &mut view_mut(&mut out, self.linear.rows, time)?);
        bias_relu(&mut out, time, &self.linear.bias);
        Ok((CpuStorage::F32(out), Shape::from((self.linear.rows, time))))
    }
}

/// One densely connected layer: 32 new channels from all that came before it.
pub(super) struct DenseLayer {
    pub norm: NormRelu,
    /// To 128 channels; the batch norm after it is folded in, its ReLU follows.
    pub squeeze: Linear,
    /// 32 × 128, one a tap.
    pub local: [Linear; 3],
    /// The mask: 64 × 128 with ReLU, then 32 × 64 with a sigmoid.
    pub context: Linear,
    pub mask: Linear,
}

/// Densely connected layers, one after another.
pub(super) struct DenseBlock {
    pub layers: Vec<DenseLayer>,
    /// Frames between taps.
    pub dilation: usize,
}

impl CustomOp1 for &DenseBlock {
    fn name(&self) -> &'static str {
        "voicepay-dense-block"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice_of(x, layout)?;
        let (channels, time) = layout.shape().dims2()?;
        let channels_out = channels + CHANNELS * self.layers.len();
        let mut grown = vec![0.0f32; channels_out * time];
        let (head, _) = grown.split_at_mut(channels * time);
        head.copy_from_slice(x);
        let mut normed = vec![0.0f32; channels_out * time];
        let padded_time = time + 2 * self.dilation;
        let mut squeezed = Vec::new();
        let mut padded = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let before = channels + CHANNELS * i;
            let (known, rest) = grown.split_at_mut(before * time);
            let normed = normed.get_mut(..before * time).unwrap_or_default();
            layer.norm.apply(known, time, normed);
            let wide = layer.squeeze.rows;
            squeezed.resize(wide * time, 0.0);
            general_mat_mul(
                1.0,
                &layer.squeeze.view()?,
                &view(normed, before, time, time)?,
                0.0,
                &mut view_mut(&mut squeezed, wide, time)?,
            );
            bias_relu(&mut squeezed, time, &layer.squeeze.bias);
            // A copy with zeros at both ends: each tap is then a shifted view.
            padded.resize(wide * padded_time, 0.0);
            for (row, from) in padded.chunks_exact_mut(padded_time).zip(squeezed.chunks_exact(time)) {
                if let Some(middle) = row.get_mut(self.dilation..self.dilation + time) {
                    middle.copy_from_slice(from);
                }
            }
            let out = rest.get_mut(..CHANNELS * time).unwrap_or_default();
            for (tap, local) in layer.local.iter().enumerate() {
                let shifted = part(&padded, tap * self.dilation, padded.len())?;
                let beta = if tap == 0 { 0.0 } else { 1.0 };
                let shifted = view(shifted, wide, time, padded_time)?;
                general_mat_mul(1.0, &local.view()?, &shifted, beta, &mut view_mut(out, CHANNELS, time)?);
            }
            masked(layer, &squeezed, time, out)?;
        }
        Ok((CpuStorage::F32(grown), Shape::from((channels_out, time))))
    }
}

/// Context-aware masking: the mean of all frames plus that of a segment of [`SEGMENT`], through two small layers, scales each channel.
fn masked(layer: &DenseLayer, squeezed: &[f32], time: usize, out: &mut [f32]) -> Result<()> {
    let segments = time.div_ceil(SEGMENT);
    let mut context = Vec::with_capacity(layer.squeeze.rows * segments);
    for row in squeezed.chunks_exact(time) {
        let whole = mean(row);
        context.extend(row.chunks(SEGMENT).map(|s| mean(s) + whole));
    }
    let mut hidden = vec![0.0f32; layer.context.rows * segments];
    let context = view(&context, layer.context.columns, segments, segments)?;
    general_mat_mul(1.0, &layer.context.view()?, &context, 0.0, &mut view_mut(&mut hidden, layer.context.rows, segments)?);
    bias_relu(&mut hidden, segments, &layer.context.bias);
    let mut mask = vec![0.0f32; layer.mask.rows * segments];
    let hidden = view(&hidden, layer.mask.columns, segments, segments)?;
    general_mat_mul(1.0, &layer.mask.view()?, &hidden, 0.0, &mut view_mut(&mut mask, layer.mask.rows, segments)?);
    let rows = out.chunks_exact_mut(time).zip(mask.chunks_exact(segments)).zip(&layer.mask.bias);
    for ((row, mask), bias) in rows {
        for (segment, m) in row.chunks_mut(SEGMENT).zip(mask) {
            let m = 1.0 / (1.0 + (-(m + bias)).exp());
            for v in segment {
                *v *= m;
            }
        }
    }
    Ok(())
}

fn mean(x: &[f32]) -> f32 {
    // In eight sums, which is quicker and rounds less than one.
    let (eights, rest) = x.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for e in eights {
        for (s, v) in sums.iter_mut().zip(e) {
            *s += v;
        }
    }
    (sums.iter().sum::<f32>() + rest.iter().sum::<f32>()) / length(x.len())
}

/// Norm, ReLU, then a product that halves the channels.
pub(super) struct Transition {
    pub norm: NormRelu,
    pub linear: Linear,
}

impl CustomOp1 for &Transition {
    fn name(&self) -> &'static str {
        "voicepay-transition"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice_of(x, layout)?;
        let (channels, time) = layout.shape().dims2()?;
        let mut normed = vec![0.0f32; x.len()];
        self.norm.apply(x, time, &mut normed);
        let mut out = vec![0.0f32; self.linear.rows * time];
        let normed = view(&normed, channels, time, time)?;
        general_mat_mul(1.0, &self.linear.view()?, &normed, 0.0, &mut view_mut(&mut out, self.linear.rows, time)?);
        Ok((CpuStorage::F32(out), Shape::from((self.linear.rows, time))))
    }
}

/// Norm and ReLU, mean and (unbiased) standard deviation over time, then the product that makes the embedding.
pub(super) struct Pooling {
    pub norm: NormRelu,
    /// Batch norm folded in.
    pub linear: Linear,
}

impl CustomOp1 for &Pooling {
    fn name(&self) -> &'static str {
        "voicepay-pooling"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice_of(x, layout)?;
        let (channels, time) = layout.shape().dims2()?;
        let mut normed = vec![0.0f32; x.len()];
        self.norm.apply(x, time, &mut normed);
        let means: Vec<f32> = normed.chunks_exact(time).map(mean).collect();
        let deviations = normed.chunks_exact(time).zip(&means).map(|(row, mean)| {
            let squares: f32 = row.iter().map(|v| (v - mean) * (v - mean)).sum();
            (squares / length(time.saturating_sub(1).max(1))).sqrt()
        });
        let stats: Vec<f32> = means.iter().copied().chain(deviations).collect();
        if self.linear.columns != 2 * channels {
            return Err(Error::Msg("pooling: shapes do not fit".into()));
        }
        let rows = self.linear.weights.chunks_exact(self.linear.columns).zip(&self.linear.bias);
        let out: Vec<f32> = rows.map(|(row, bias)| row.iter().zip(&stats).map(|(w, s)| w * s).sum::<f32>() + bias).collect();
        Ok((CpuStorage::F32(out), Shape::from(self.linear.rows)))
    }
}

/// Small counts into f32, exactly.
#[allow(clippy::cast_precision_loss)]
fn length(n: usize) -> f32 {
    n as f32
}
