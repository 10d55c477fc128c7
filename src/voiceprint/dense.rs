//! CAM++ after its head, over time × channels: the first time-delay layer, the densely connected blocks with context-aware masks, the
//! transitions, and the pooling into 192 numbers (Wang et al., CAM++, Interspeech 2023).
//!
//! A block grows in one buffer, a layer's 32 channels beside those before it, so nothing is concatenated; taps on time are shifted views.

use crate::kernels::{Activation, Epilogue, PackedMatrix, Rows, RowsMut, ShapeError, norm_relu_rows};

use super::conv::{CHANNELS, Plane};

/// Context is averaged over this many frames, besides over all.
const SEGMENT: usize = 100;
/// Rows that are normed at a time: they stay in the second-level cache until the product has read them.
const NORMED_ROWS: usize = 56;
/// Kept from one normed row to the next, so that rows of 1024 channels do not all fall on the same place of the cache.
const NORMED_GAP: usize = 16;

/// A batch norm and its ReLU, where what follows is no product that could take them in.
pub(super) struct NormRelu {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

/// A matrix with a bias an output.
pub(super) struct Linear {
    pub matrix: PackedMatrix,
    pub bias: Vec<f32>,
}

impl Linear {
    fn apply(&self, x: Rows<'_>, out: RowsMut<'_>, activation: Activation) -> Result<(), ShapeError> {
        self.matrix.apply(x, out, &Epilogue { bias: Some(&self.bias), activation, add: false })
    }
}

/// One densely connected layer: 32 new channels from all that came before it.
pub(super) struct DenseLayer {
    pub norm: NormRelu,
    /// To 128 channels; the batch norm after it is folded in, its ReLU follows.
    pub squeeze: Linear,
    /// 32 × [tap][128], no bias.
    pub local: PackedMatrix,
    /// The mask: 64 × 128 with ReLU, then 32 × 64 with a sigmoid.
    pub context: Linear,
    pub mask: Linear,
}

/// Densely connected layers, one after another, then norm, ReLU and a product that halves the channels.
pub(super) struct DenseBlock {
    pub layers: Vec<DenseLayer>,
    /// Frames between taps.
    pub dilation: usize,
    pub norm: NormRelu,
    pub transition: PackedMatrix,
}

/// Norm and ReLU, mean and (unbiased) standard deviation over time, then the product that makes the embedding.
pub(super) struct Pooling {
    pub norm: NormRelu,
    /// Batch norm folded in.
    pub linear: Linear,
}

/// All of it.
pub(super) struct Trunk {
    /// Five frames wide, every second frame, batch norm folded in: 128 × [head's row][tap][channel].
    pub time_delay: Linear,
    pub blocks: Vec<DenseBlock>,
    pub pooling: Pooling,
}

/// What passes through, kept from one utterance to the next.
#[derive(Default)]
pub(super) struct Buffers {
    grown: Vec<f32>,
    next: Vec<f32>,
    normed: Vec<f32>,
    squeezed: Vec<f32>,
    means: Vec<f32>,
    hidden: Vec<f32>,
    masks: Vec<f32>,
}

impl Buffers {
    pub fn all(&mut self) -> [&mut Vec<f32>; 7] {
        let Self { grown, next, normed, squeezed, means, hidden, masks } = self;
        [grown, next, normed, squeezed, means, hidden, masks]
    }
}

impl Trunk {
    /// Positions of zeros that the time-delay layer wants on either side of the head's rows.
    pub const MARGIN: usize = 2;

    /// The head's rows for `frames` → the embedding. Without `weights` (one a frame, at least 0) every frame counts the same in it.
    pub fn run(
        &self,
        head: &Plane,
        rows: usize,
        frames: usize,
        weights: Option<&[f32]>,
        with: &mut Buffers,
    ) -> Result<Vec<f32>, ShapeError> {
        let time = frames.div_ceil(2);
        let parts: Result<Vec<Rows<'_>>, ShapeError> =
            (0..rows).map(|row| Rows::new(head.row(row), time, 5 * CHANNELS, 2 * CHANNELS)).collect();
        let mut channels = self.time_delay.matrix.n_out();
        let width = self.blocks.first().map_or(channels, |b| b.width(channels));
        let first = columns(&mut with.grown, time, 0, channels, width)?;
        let after = Epilogue { bias: Some(&self.time_delay.bias), activation: Activation::Relu, add: false };
        self.time_delay.matrix.apply_parts(&parts?, first, &after)?;
        for (i, block) in self.blocks.iter().enumerate() {
            block.grow(channels, time, with)?;
            let wide = block.width(channels);
            channels = block.transition.n_out();
            let width = self.blocks.get(i + 1).map_or(channels, |b| b.width(channels));
            let Buffers { grown, next, normed, .. } = with;
            let out = columns(next, time, 0, channels, width)?;
            normed_product(
                Rows::new(grown, time, wide, wide)?,
                &block.norm,
                &block.transition,
                &Epilogue::default(),
                normed,
                out,
            )?;
            std::mem::swap(&mut with.grown, &mut with.next);
        }
        // The time-delay layer left every second frame: the two that it stands for weigh together.
        let weights = weights.map(|w| w.chunks(2).map(|pair| pair.iter().sum()).collect::<Vec<f32>>());
        let weights = weights.filter(|w| w.len() == time && w.iter().sum::<f32>() > 0.0);
        self.pooling.run(Rows::new(&with.grown, time, channels, channels)?, weights.as_deref(), &mut with.normed)
    }
}

/// `count` columns of `time` × `width`, for which room is made.
fn columns(x: &mut Vec<f32>, time: usize, from: usize, count: usize, width: usize) -> Result<RowsMut<'_>, ShapeError> {
    if x.len() < time * width {
        x.resize(time * width, 0.0);
    }
    RowsMut::new(x.get_mut(from..).unwrap_or_default(), time, count, width)
}

/// Norm, ReLU and product, a few rows at a time.
fn normed_product(
    x: Rows<'_>,
    norm: &NormRelu,
    matrix: &PackedMatrix,
    after: &Epilogue<'_>,
    normed: &mut Vec<f32>,
    mut out: RowsMut<'_>,
) -> Result<(), ShapeError> {
    let stride = x.columns() + NORMED_GAP;
    if normed.len() < NORMED_ROWS * stride {
        normed.resize(NORMED_ROWS * stride, 0.0);
    }
    let mut row = 0;
    while row < x.rows() {
        let rows = NORMED_ROWS.min(x.rows() - row);
        norm_relu_rows(x.slab(row, rows)?, &norm.scale, &norm.shift, RowsMut::new(normed, rows, x.columns(), stride)?)?;
        matrix.apply(Rows::new(normed, rows, x.columns(), stride)?, out.slab(row, rows)?, after)?;
        row += rows;
    }
    Ok(())
}

impl DenseBlock {
    /// Channels that `channels` grow to.
    fn width(&self, channels: usize) -> usize {
        channels + CHANNELS * self.layers.len()
    }

    /// All layers, in `with.grown`, whose first `channels` are there.
    fn grow(&self, channels: usize, time: usize, with: &mut Buffers) -> Result<(), ShapeError> {
        let width = self.width(channels);
        let Buffers { grown, normed, squeezed, means, hidden, masks, .. } = with;
        for (i, layer) in self.layers.iter().enumerate() {
            let known = channels + CHANNELS * i;
            let wide = layer.squeeze.matrix.n_out();
            let margin = self.dilation * wide;
            // Zeros at both ends: each tap is then a shifted view.
            if i == 0 {
                squeezed.clear();
            }
            squeezed.resize((time + 2 * self.dilation) * wide, 0.0);
            let middle = squeezed.get_mut(margin..margin + time * wide).unwrap_or_default();
            let after = Epilogue { bias: Some(&layer.squeeze.bias), activation: Activation::Relu, add: false };
            let x = Rows::new(grown, time, known, width)?;
            normed_product(x, &layer.norm, &layer.squeeze.matrix, &after, normed, RowsMut::dense(middle, wide)?)?;
            layer.masks(middle, means, hidden, masks)?;
            let mut out = columns(grown, time, known, CHANNELS, width)?;
            let tap = |tap: usize| {
                let shifted = squeezed.get(tap * margin..).unwrap_or_default();
                Rows::new(shifted, time, wide, wide)
            };
            let taps = [tap(0)?, tap(1)?, tap(2)?];
            layer.local.apply_parts(&taps, out.reborrow(), &Epilogue::default())?;
            for row in 0..time {
                let mask = masks.chunks_exact(CHANNELS).nth(row / SEGMENT).unwrap_or_default();
                out.row_mut(row).iter_mut().zip(mask).for_each(|(v, m)| *v *= m);
            }
        }
        Ok(())
    }
}

impl DenseLayer {
    /// Context-aware masking: the mean of all frames plus that of a segment of [`SEGMENT`], through two small layers, scales each
    /// channel. Leaves segments × 32 in `masks`.
    fn masks(
        &self,
        squeezed: &[f32],
        means: &mut Vec<f32>,
        hidden: &mut Vec<f32>,
        masks: &mut Vec<f32>,
    ) -> Result<(), ShapeError> {
        let wide = self.squeeze.matrix.n_out();
        let time = squeezed.len() / wide.max(1);
        means.clear();
        means.resize((time.div_ceil(SEGMENT) + 1) * wide, 0.0);
        let (whole, segments) = means.split_at_mut_checked(wide).unwrap_or_default();
        for (sums, rows) in segments.chunks_exact_mut(wide).zip(squeezed.chunks(SEGMENT * wide)) {
            add_rows(sums, rows);
            whole.iter_mut().zip(&*sums).for_each(|(w, s)| *w += s);
            let by = 1.0 / length(rows.len() / wide.max(1));
            sums.iter_mut().for_each(|s| *s *= by);
        }
        let by = 1.0 / length(time.max(1));
        for segment in segments.chunks_exact_mut(wide) {
            segment.iter_mut().zip(&*whole).for_each(|(s, w)| *s += w * by);
        }
        let count = segments.len() / wide.max(1);
        let (between, out) = (self.context.matrix.n_out(), self.mask.matrix.n_out());
        hidden.resize(count * between, 0.0);
        masks.resize(count * out, 0.0);
        self.context.apply(Rows::dense(segments, wide)?, RowsMut::dense(hidden, between)?, Activation::Relu)?;
        self.mask.apply(Rows::dense(hidden, between)?, RowsMut::dense(masks, out)?, Activation::None)?;
        masks.iter_mut().for_each(|m| *m = 1.0 / (1.0 + (-*m).exp()));
        Ok(())
    }
}

/// Adds all rows onto `sums`: ten at a time on their own, which rounds less than one long sum.
fn add_rows(sums: &mut [f32], rows: &[f32]) {
    let mut few = vec![0.0f32; sums.len()];
    for some in rows.chunks(10 * sums.len().max(1)) {
        few.fill(0.0);
        for row in some.chunks_exact(few.len().max(1)) {
            few.iter_mut().zip(row).for_each(|(s, v)| *s += v);
        }
        sums.iter_mut().zip(&few).for_each(|(s, f)| *s += f);
    }
}

impl Pooling {
    /// Mean and deviation over time; frames count as `weights` say. The deviation is unbiased for as many frames as the weights are
    /// worth, (Σw)² / Σw².
    fn run(&self, x: Rows<'_>, weights: Option<&[f32]>, normed: &mut Vec<f32>) -> Result<Vec<f32>, ShapeError> {
        let (time, channels) = (x.rows(), x.columns());
        normed.resize(time * channels, 0.0);
        norm_relu_rows(x, &self.norm.scale, &self.norm.shift, RowsMut::dense(normed, channels)?)?;
        let (total, squares) = weights.map_or((length(time.max(1)), length(time.max(1))), |w| {
            w.iter().fold((0.0, 0.0), |(total, squares), v| (total + v, squares + v * v))
        });
        let worth = total * total / squares;
        let mut stats = vec![0.0f32; 2 * channels];
        let (means, deviations) = stats.split_at_mut_checked(channels).unwrap_or_default();
        add_weighted(means, normed, weights);
        means.iter_mut().for_each(|m| *m /= total);
        for row in normed.chunks_exact_mut(channels) {
            row.iter_mut().zip(&*means).for_each(|(v, m)| *v = (*v - m) * (*v - m));
        }
        add_weighted(deviations, normed, weights);
        let count = total * (1.0 - 1.0 / worth.max(2.0));
        deviations.iter_mut().for_each(|d| *d = (*d / count).sqrt());
        let size = self.linear.matrix.n_out();
        let mut out = vec![0.0f32; size];
        self.linear.apply(Rows::dense(&stats, 2 * channels)?, RowsMut::dense(&mut out, size)?, Activation::None)?;
        Ok(out)
    }
}

fn add_weighted(sums: &mut [f32], rows: &[f32], weights: Option<&[f32]>) {
    let Some(weights) = weights else { return add_rows(sums, rows) };
    for (row, weight) in rows.chunks_exact(sums.len().max(1)).zip(weights) {
        sums.iter_mut().zip(row).for_each(|(s, v)| *s += weight * v);
    }
}

/// Small counts into f32, exactly.
#[allow(clippy::cast_precision_loss)]
fn length(n: usize) -> f32 {
    n as f32
}
