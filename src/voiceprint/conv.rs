//! The convolutions of CAM++'s head as one candle operation: 3×3 or 1×1 over frequency × time, 32 channels out, stride on frequency only
//! (candle's own conv2d has no such stride).
//!
//! Channels lie innermost, so that a tap is one run of numbers and nothing is copied into columns (`conv_kernel` has the loops).
//! Time is padded: a row has one zero before and at least one after its `frames`, and whole tiles between.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape};

pub(super) use super::conv_kernel::CHANNELS;
use super::conv_kernel::{Row, TILE, Tap, add_row};

/// Positions of a padded row for `frames`.
pub(super) fn row_positions(frames: usize) -> usize {
    frames.div_ceil(TILE) * TILE + 2
}

/// A convolution with its batch norm folded in. As [`CustomOp1`]: `relu(conv(x) + bias)`, or without relu for a shortcut.
/// As [`CustomOp2`]: `relu(conv(x) + bias + second)`.
/// Input: rows × positions × channels in; output: rows ÷ stride × positions × 32.
pub(super) struct Conv {
    /// [row tap][time tap][channel in] → 32 out.
    pub weights: Vec<[f32; CHANNELS]>,
    pub bias: [f32; CHANNELS],
    pub channels_in: usize,
    /// 3 or 1, both ways.
    pub taps: usize,
    /// On frequency.
    pub stride: usize,
    pub relu: bool,
}

impl CustomOp1 for Conv {
    fn name(&self) -> &'static str {
        "voicepay-conv"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(slice_of(x, layout)?, layout, None)
    }
}

impl CustomOp2 for Conv {
    fn name(&self) -> &'static str {
        "voicepay-conv-add"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout, y: &CpuStorage, y_layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(slice_of(x, layout)?, layout, Some(slice_of(y, y_layout)?))
    }
}

/// A contiguous operand's numbers.
pub(super) fn slice_of<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (from, to) = layout.contiguous_offsets().ok_or_else(|| candle_core::Error::Msg("operand is not contiguous".into()))?;
    storage.as_slice::<f32>()?.get(from..to).ok_or_else(|| candle_core::Error::Msg("operand is cut short".into()))
}

impl Conv {
    fn run(&self, x: &[f32], layout: &Layout, add: Option<&[f32]>) -> Result<(CpuStorage, Shape)> {
        let (rows, positions, channels) = layout.shape().dims3()?;
        let rows_out = rows.div_ceil(self.stride);
        let row_out = positions * CHANNELS;
        let fits = channels == self.channels_in
            && (channels == 1 || channels == CHANNELS)
            && positions % TILE == 2
            && self.weights.len() == self.taps * self.taps * channels
            && add.is_none_or(|a| a.len() == rows_out * row_out);
        if !fits {
            return Err(candle_core::Error::Msg(format!("convolution of {channels} channels: shapes do not fit")));
        }
        let mut out = vec![0.0f32; rows_out * row_out];
        for (r, out) in out.chunks_exact_mut(row_out).enumerate() {
            let add = add.and_then(|a| a.get(r * row_out..(r + 1) * row_out));
            if let Some(add) = add {
                out.copy_from_slice(add);
            }
            let middle = r * self.stride;
            let reach = self.taps / 2;
            let row_weights = self.taps * channels;
            let mut taps: [Option<Tap<'_>>; 3] = [None; 3];
            for (tap, (slot, weights)) in taps.iter_mut().zip(self.weights.chunks_exact(row_weights)).enumerate() {
                // Rows above the first and below the last are zero: nothing to add.
                let row = (middle + tap).checked_sub(reach).filter(|row| *row < rows);
                *slot = row
                    .and_then(|row| x.get(row * positions * channels..(row + 1) * positions * channels))
                    .map(|x| Tap { x, weights });
            }
            // The first position is padding: a 1×1 tap begins at the second, a 3×3 one at the first.
            let shift = (1 - reach) * channels;
            let row = Row { taps, bias: &self.bias, shift, relu: self.relu };
            if channels == 1 { add_row::<1>(&row, out) } else { add_row::<CHANNELS>(&row, out) }
        }
        Ok((CpuStorage::F32(out), Shape::from((rows_out, positions, CHANNELS))))
    }
}

/// Sets everything outside of a row's `frames` to zero again: tiles run past them, and the next convolution takes them for padding.
pub(super) struct Trim {
    pub frames: usize,
}

impl candle_core::InplaceOp1 for Trim {
    fn name(&self) -> &'static str {
        "voicepay-trim"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (_, positions, channels) = layout.shape().dims3()?;
        let (from, to) =
            layout.contiguous_offsets().ok_or_else(|| candle_core::Error::Msg("operand is not contiguous".into()))?;
        let CpuStorage::F32(x) = x else {
            return Err(candle_core::Error::Msg("operand is not f32".into()));
        };
        for row in x.get_mut(from..to).unwrap_or_default().chunks_exact_mut(positions * channels) {
            for slot in row.iter_mut().skip((self.frames + 1) * channels) {
                *slot = 0.0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed;
        (0..n)
            .map(|_| {
                s = s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (s >> 8) as f32 / (1u32 << 24) as f32 - 0.5
            })
            .collect()
    }

    /// By the book: one output number at a time.
    fn plain(conv: &Conv, x: &[f32], rows: usize, frames: usize, r: usize, t: usize, o: usize) -> f32 {
        let (c, reach) = (conv.channels_in, conv.taps as isize / 2);
        let positions = row_positions(frames);
        let mut sum = conv.bias[o];
        for df in 0..conv.taps {
            for dt in 0..conv.taps {
                let row = (r * conv.stride + df) as isize - reach;
                let time = (t + dt) as isize - reach;
                if row < 0 || row >= rows as isize || time < 0 || time >= frames as isize {
                    continue;
                }
                for k in 0..c {
                    let a = x[(row as usize * positions + time as usize + 1) * c + k];
                    sum += a * conv.weights[(df * conv.taps + dt) * c + k][o];
                }
            }
        }
        if conv.relu { sum.max(0.0) } else { sum }
    }

    #[test]
    fn the_tiled_convolution_equals_the_plain_one() {
        for (channels, taps, stride, relu) in [(1, 3, 1, true), (32, 3, 1, true), (32, 3, 2, true), (32, 1, 2, false)] {
            let (rows, frames) = (6usize, 29usize);
            let positions = row_positions(frames);
            let mut x = numbers(rows * positions * channels, 1);
            for (i, v) in x.iter_mut().enumerate() {
                let t = i / channels % positions;
                if t == 0 || t > frames {
                    *v = 0.0;
                }
            }
            let weights = numbers(taps * taps * channels * CHANNELS, 2).as_chunks::<CHANNELS>().0.to_vec();
            let bias = numbers(CHANNELS, 3).try_into().unwrap();
            let conv = Conv { weights, bias, channels_in: channels, taps, stride, relu };
            let input = Tensor::from_vec(x.clone(), (rows, positions, channels), &Device::Cpu).unwrap();
            let out = input.apply_op1_no_bwd(&conv).unwrap();
            out.inplace_op1(&Trim { frames }).unwrap();
            let (rows_out, _, _) = out.dims3().unwrap();
            let got = out.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for r in 0..rows_out {
                for t in 0..positions - 1 {
                    for o in 0..CHANNELS {
                        let want = if t < frames { plain(&conv, &x, rows, frames, r, t, o) } else { 0.0 };
                        let have = got[(r * positions + t + 1) * CHANNELS + o];
                        assert!(
                            (want - have).abs() < 1e-4,
                            "{channels} {taps} {stride} row {r} time {t} channel {o}: {want} {have}"
                        );
                    }
                }
            }
        }
    }
}
