//! The head of CAM++: convolutions over frequency × time, 32 channels out, stride on frequency only, in residual pairs.
//!
//! A frequency row of all frames is one matrix product, whose operands overlap in place: channels lie innermost, so that the three taps
//! on time are one run of numbers, and nothing is copied into columns. Rows are made when the next convolution asks for them and kept
//! only as long as one can ask again ([`KEPT`]), so that they are read while they are still in the cache.

use crate::kernels::{Activation, Epilogue, PackedMatrix, Rows, RowsMut, ShapeError};

/// Channels out of every convolution of the head.
pub(super) const CHANNELS: usize = 32;
/// Rows of a convolution that are kept. Its reader's row `r` needs three around `s · r`, and what runs around that reader needs row
/// `s · r` when the reader is one row ahead, with a stride `s` of two: from `2r` to `2r + 3`.
const KEPT: usize = 4;
/// What lies beyond the first and the last row.
static NOTHING: [f32; 3 * CHANNELS] = [0.0; 3 * CHANNELS];

/// A convolution with its batch norm folded in.
pub(super) struct Conv {
    /// 32 × [row tap][time tap][channel in].
    pub matrix: PackedMatrix,
    pub bias: Vec<f32>,
    pub channels_in: usize,
    /// 3 or 1, both ways.
    pub taps: usize,
    /// On frequency.
    pub stride: usize,
}

impl Conv {
    /// One row out of what `source` has.
    fn row(&self, source: &Plane, row: usize, frames: usize, out: RowsMut<'_>, after: &Epilogue<'_>) -> Result<(), ShapeError> {
        let (reach, columns) = (self.taps / 2, self.taps * self.channels_in);
        let mut parts = [Rows::new(&NOTHING, frames, columns, 0)?; 3];
        for (tap, part) in parts.iter_mut().enumerate().take(self.taps) {
            if let Some(row) = (row * self.stride + tap).checked_sub(reach).filter(|row| *row < source.rows) {
                let from = (source.margin - reach) * self.channels_in;
                *part = Rows::new(source.row(row).get(from..).unwrap_or_default(), frames, columns, self.channels_in)?;
            }
        }
        self.matrix.apply_parts(parts.get(..self.taps).unwrap_or_default(), out, after)
    }
}

/// A convolution's place among the others.
pub(super) struct Stage {
    pub conv: Conv,
    /// The plane that it reads; its own is the next after that of the stage before.
    pub source: usize,
    /// What is added before the ReLU.
    pub around: Around,
}

/// What runs around a convolution.
pub(super) enum Around {
    Nothing,
    /// A plane as it is.
    Plane(usize),
    /// A plane through a convolution of its own.
    Conv(usize, Conv),
}

/// All stages, from mels (plane 0) on.
pub(super) struct Head {
    pub stages: Vec<Stage>,
}

/// Frequency rows of positions × channels, of which the last few are kept. Positions are `frames` with a margin of zeros on either side.
#[derive(Default)]
pub(super) struct Plane {
    rows: usize,
    kept: usize,
    margin: usize,
    row_length: usize,
    /// Rows from the first to below this have been made.
    made: usize,
    data: Vec<f32>,
}

impl Plane {
    /// Set to what it was made for. Its numbers must be zero.
    fn begin(&mut self, rows: usize, kept: usize, margin: usize, frames: usize, channels: usize) {
        let row_length = (frames + 2 * margin) * channels;
        (self.rows, self.kept, self.margin, self.row_length, self.made) = (rows, kept, margin, row_length, 0);
        self.data.resize(kept * row_length, 0.0);
    }

    pub fn row(&self, row: usize) -> &[f32] {
        let from = row % self.kept.max(1) * self.row_length;
        self.data.get(from..from + self.row_length).unwrap_or_default()
    }

    fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let from = row % self.kept.max(1) * self.row_length;
        self.data.get_mut(from..from + self.row_length).unwrap_or_default()
    }

    pub fn data_mut(&mut self) -> &mut Vec<f32> {
        &mut self.data
    }
}

impl Head {
    /// Mels, by frames, through all stages. The last plane then has all its rows, with a margin of `margin` positions.
    pub fn run(&self, mels: &[f32], bands: usize, margin: usize, planes: &mut Vec<Plane>) -> Result<(), ShapeError> {
        let frames = mels.len() / bands.max(1);
        planes.resize_with(self.stages.len() + 1, Plane::default);
        for (i, stage) in self.stages.iter().enumerate() {
            let rows = if i == 0 { bands } else { planes.get(stage.source).map_or(0, |p| p.rows) };
            if let (0, Some(input)) = (i, planes.first_mut()) {
                input.begin(bands, bands, 1, frames, 1);
                input.made = bands;
                for (band, row) in input.data.chunks_exact_mut(frames + 2).enumerate() {
                    for (slot, frame) in row.iter_mut().skip(1).zip(mels.chunks_exact(bands)) {
                        *slot = frame.get(band).copied().unwrap_or(0.0);
                    }
                }
            }
            let rows = rows.div_ceil(stage.conv.stride);
            let (kept, margin) = if i + 1 == self.stages.len() { (rows, margin) } else { (KEPT, 1) };
            if let Some(plane) = planes.get_mut(i + 1) {
                plane.begin(rows, kept, margin, frames, CHANNELS);
            }
        }
        let rows = planes.last().map_or(0, |p| p.rows);
        self.make(self.stages.len(), rows, frames, planes)
    }

    /// Makes plane `at`'s rows below `until`, and what they need.
    fn make(&self, at: usize, until: usize, frames: usize, planes: &mut [Plane]) -> Result<(), ShapeError> {
        let Some(stage) = at.checked_sub(1).and_then(|i| self.stages.get(i)) else { return Ok(()) };
        while let Some(row) = planes.get(at).map(|p| p.made).filter(|made| *made < until) {
            let source_rows = planes.get(stage.source).map_or(0, |p| p.rows);
            let needed = (row * stage.conv.stride + stage.conv.taps / 2 + 1).min(source_rows);
            self.make(stage.source, needed, frames, planes)?;
            let Some((before, [plane, ..])) = planes.split_at_mut_checked(at) else { break };
            let of = |at: usize| before.get(at).ok_or(ShapeError { what: "convolution's source", got: at, want: before.len() });
            let margin = plane.margin * CHANNELS;
            let out = plane.row_mut(row).get_mut(margin..margin + frames * CHANNELS).unwrap_or_default();
            let add = match &stage.around {
                Around::Nothing => false,
                Around::Plane(around) => {
                    let around = of(*around)?;
                    let margin = around.margin * CHANNELS;
                    out.copy_from_slice(around.row(row).get(margin..margin + out.len()).unwrap_or_default());
                    true
                }
                Around::Conv(around, conv) => {
                    let after = Epilogue { bias: Some(&conv.bias), ..Epilogue::default() };
                    conv.row(of(*around)?, row, frames, RowsMut::dense(out, CHANNELS)?, &after)?;
                    true
                }
            };
            let after = Epilogue { bias: Some(&stage.conv.bias), activation: Activation::Relu, add };
            stage.conv.row(of(stage.source)?, row, frames, RowsMut::dense(out, CHANNELS)?, &after)?;
            plane.made = row + 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::test_numbers::numbers;

    fn conv(channels_in: usize, taps: usize, stride: usize, seed: u32) -> (Conv, Vec<f32>) {
        let weights = numbers(CHANNELS * taps * taps * channels_in, seed).iter().map(|w| w * 0.3).collect::<Vec<_>>();
        let matrix = PackedMatrix::pack(&weights, CHANNELS, taps * taps * channels_in).unwrap();
        (Conv { matrix, bias: numbers(CHANNELS, seed + 1), channels_in, taps, stride }, weights)
    }

    /// By the book: all rows at once, [row][frame][channel].
    fn plain(conv: &Conv, weights: &[f32], x: &[f32], frames: usize) -> Vec<f32> {
        let (c, taps, reach) = (conv.channels_in, conv.taps, conv.taps as isize / 2);
        let rows = x.len() / frames / c;
        let mut out = Vec::new();
        for r in 0..rows.div_ceil(conv.stride) {
            for t in 0..frames {
                for o in 0..CHANNELS {
                    let mut sum = conv.bias[o];
                    for (tap, w) in weights[o * taps * taps * c..].chunks_exact(c).take(taps * taps).enumerate() {
                        let row = (r * conv.stride + tap / taps) as isize - reach;
                        let time = (t + tap % taps) as isize - reach;
                        if (0..rows as isize).contains(&row) && (0..frames as isize).contains(&time) {
                            let from = (row as usize * frames + time as usize) * c;
                            sum += x[from..from + c].iter().zip(w).map(|(x, w)| x * w).sum::<f32>();
                        }
                    }
                    out.push(sum);
                }
            }
        }
        out
    }

    #[test]
    fn rows_made_when_asked_for_equal_whole_planes() {
        let (bands, margin) = (14, 2);
        let (first, first_w) = conv(1, 3, 1, 1);
        let (one, one_w) = conv(CHANNELS, 3, 2, 3);
        let (two, two_w) = conv(CHANNELS, 3, 1, 5);
        let (short, short_w) = conv(CHANNELS, 1, 2, 7);
        let (three, three_w) = conv(CHANNELS, 3, 1, 9);
        let (four, four_w) = conv(CHANNELS, 3, 1, 11);
        let head = Head {
            stages: vec![
                Stage { conv: first, source: 0, around: Around::Nothing },
                Stage { conv: one, source: 1, around: Around::Nothing },
                Stage { conv: two, source: 2, around: Around::Conv(1, short) },
                Stage { conv: three, source: 3, around: Around::Nothing },
                Stage { conv: four, source: 4, around: Around::Plane(3) },
            ],
        };
        let mut planes = Vec::new();
        for frames in [37, 5] {
            let mels = numbers(frames * bands, 13);
            let by_band: Vec<f32> = (0..bands).flat_map(|b| mels.iter().skip(b).step_by(bands).copied()).collect();
            let relu = |x: Vec<f32>| x.into_iter().map(|v| v.max(0.0)).collect::<Vec<_>>();
            let sum = |a: Vec<f32>, b: &[f32]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>();
            let [s0, s1, s2, s3, s4] = &head.stages[..] else { unreachable!() };
            let Around::Conv(_, short) = &s2.around else { unreachable!() };
            let a = relu(plain(&s0.conv, &first_w, &by_band, frames));
            let b = relu(plain(&s1.conv, &one_w, &a, frames));
            let c = relu(sum(plain(&s2.conv, &two_w, &b, frames), &plain(short, &short_w, &a, frames)));
            let d = relu(plain(&s3.conv, &three_w, &c, frames));
            let want = relu(sum(plain(&s4.conv, &four_w, &d, frames), &c));
            head.run(&mels, bands, margin, &mut planes).unwrap();
            let last = planes.last().unwrap();
            assert_eq!(last.rows, 7);
            for r in 0..7 {
                let row = last.row(r);
                assert_eq!(row.len(), (frames + 2 * margin) * CHANNELS);
                for (i, v) in row.iter().enumerate() {
                    let frame = (i / CHANNELS).checked_sub(margin).filter(|f| *f < frames);
                    let want = frame.map_or(0.0, |f| want[(r * frames + f) * CHANNELS + i % CHANNELS]);
                    assert!((v - want).abs() < 1e-4, "{frames} frames, row {r}, number {i}: {v} {want}");
                }
            }
            planes.iter_mut().for_each(|p| p.data_mut().fill(0.0));
        }
    }
}
