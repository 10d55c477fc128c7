//! Products with a matrix that was packed beforehand.
//!
//! Packed means: in panels of [`PANEL`] outputs, inside a panel input after input, so that the inner loop reads the matrix from one end
//! to the other. A tile of some rows × one panel is added up in registers and written once, with bias, what was there before, and activation.

use super::elementwise::gelu_run;
use super::{Instructions, Rows, RowsMut, ShapeError, equal, instructions};

/// Outputs side by side in a packed matrix.
pub(super) const PANEL: usize = 32;
/// Rows whose inputs stay in the second-level cache while all panels pass over them, in numbers (1 MB).
const SLAB_NUMBERS: usize = 1 << 18;

/// What follows a product, number by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// The positive part.
    Relu,
    /// GELU in its exact form, x · Φ(x); see [`super::gelu`].
    Gelu,
}

/// What is done with a product before it is written: `activation(product + bias + what was there)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One number an output.
    pub bias: Option<&'a [f32]>,
    /// Last of all.
    pub activation: Activation,
    /// Whether what `out` holds is added (residual connections) or overwritten.
    pub add: bool,
}

/// A matrix of weights in the order in which the inner loop reads it.
#[derive(Clone)]
pub struct PackedMatrix {
    n_out: usize,
    n_in: usize,
    /// Panels × inputs × [`PANEL`], from `start` on; outputs that there are not are zero.
    panels: Vec<f32>,
    /// So that panels begin where cache lines do (a matter of speed alone).
    start: usize,
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedMatrix({} × {})", self.n_out, self.n_in)
    }
}

impl Default for PackedMatrix {
    /// No outputs and no inputs: what a buffer for [`PackedMatrix::repack`] begins as.
    fn default() -> Self {
        Self { n_out: 0, n_in: 0, panels: Vec::new(), start: 0 }
    }
}

impl PackedMatrix {
    /// From weights as files have them: an output's weights lie together.
    pub fn pack(out_by_in: &[f32], n_out: usize, n_in: usize) -> Result<Self, ShapeError> {
        equal("weights", out_by_in.len(), n_out.saturating_mul(n_in))?;
        let mut packed = Self::default();
        packed.repack(Rows::new(out_by_in, n_out, n_in, n_in)?);
        Ok(packed)
    }

    /// From weights of which an input's lie together.
    pub fn pack_transposed(in_by_out: &[f32], n_in: usize, n_out: usize) -> Result<Self, ShapeError> {
        equal("weights", in_by_out.len(), n_out.saturating_mul(n_in))?;
        let mut packed = Self::default();
        packed.repack_transposed(Rows::new(in_by_out, n_in, n_out, n_out)?);
        Ok(packed)
    }

    /// Packs another matrix into the same memory: outputs are the rows of `out_by_in`.
    pub fn repack(&mut self, out_by_in: Rows<'_>) {
        self.resize(out_by_in.rows(), out_by_in.columns());
        let Self { n_out, n_in, .. } = *self;
        for (p, panel) in self.panels_mut().chunks_exact_mut((n_in * PANEL).max(1)).enumerate() {
            for lane in 0..PANEL.min(n_out - p * PANEL) {
                let row = out_by_in.row(p * PANEL + lane);
                for (slot, w) in panel.iter_mut().skip(lane).step_by(PANEL).zip(row) {
                    *slot = *w;
                }
            }
        }
    }

    /// Packs another matrix into the same memory: outputs are the columns of `in_by_out`.
    pub fn repack_transposed(&mut self, in_by_out: Rows<'_>) {
        self.resize(in_by_out.columns(), in_by_out.rows());
        let n_in = self.n_in;
        for (p, panel) in self.panels_mut().chunks_exact_mut((n_in * PANEL).max(1)).enumerate() {
            for (i, slots) in panel.chunks_exact_mut(PANEL).enumerate() {
                let row = in_by_out.row(i);
                let row = row.get(p * PANEL..).unwrap_or_default();
                for (slot, w) in slots.iter_mut().zip(row) {
                    *slot = *w;
                }
            }
        }
    }

    /// How many outputs.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// How many inputs.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// `out[row][o] = activation(Σᵢ x[row][i] · weight[o][i] + bias[o] + out[row][o])`, the last only where `add` says so.
    pub fn apply(&self, x: Rows<'_>, out: RowsMut<'_>, epilogue: &Epilogue<'_>) -> Result<(), ShapeError> {
        self.apply_parts(&[x], out, epilogue)
    }

    /// The same where a row's inputs lie in several places, one after another: `parts` have as many columns together as there are inputs.
    pub fn apply_parts(&self, parts: &[Rows<'_>], out: RowsMut<'_>, epilogue: &Epilogue<'_>) -> Result<(), ShapeError> {
        self.apply_with(instructions(), parts, out, epilogue)
    }

    /// With given instructions, which the machine must have.
    pub(super) fn apply_with(
        &self,
        with: Instructions,
        parts: &[Rows<'_>],
        mut out: RowsMut<'_>,
        epilogue: &Epilogue<'_>,
    ) -> Result<(), ShapeError> {
        equal("product's inputs", parts.iter().map(Rows::columns).sum(), self.n_in)?;
        equal("product's outputs", out.columns(), self.n_out)?;
        for part in parts {
            equal("product's rows", part.rows(), out.rows())?;
        }
        if let Some(bias) = epilogue.bias {
            equal("product's bias", bias.len(), self.n_out)?;
        }
        let slab = (SLAB_NUMBERS / self.n_in.max(1)).max(64);
        let mut from = 0;
        while from < out.rows() {
            let rows = slab.min(out.rows() - from);
            for (p, weights) in self.panels().chunks_exact((self.n_in * PANEL).max(1)).enumerate() {
                let lanes = PANEL.min(self.n_out - p * PANEL);
                let bias = epilogue.bias.and_then(|b| b.get(p * PANEL..p * PANEL + lanes));
                let panel = Panel { weights, bias, lanes, add: epilogue.add, activation: epilogue.activation };
                let out = out.part(p * PANEL, lanes)?;
                panel.run(with, parts, from, rows, out);
            }
            from += rows;
        }
        Ok(())
    }

    /// Its numbers, to be wiped where they were made of what a caller said.
    pub(super) fn buffer(&mut self) -> &mut Vec<f32> {
        &mut self.panels
    }

    fn resize(&mut self, n_out: usize, n_in: usize) {
        (self.n_out, self.n_in) = (n_out, n_in);
        let numbers = n_out.div_ceil(PANEL) * n_in * PANEL;
        if self.panels.len() < numbers + PANEL {
            self.panels.resize(numbers + PANEL, 0.0);
        }
        // Lanes that there are not.
        if !n_out.is_multiple_of(PANEL) {
            self.panels.fill(0.0);
        }
        self.start = self.panels.as_ptr().align_offset(64).min(PANEL);
    }

    fn panels(&self) -> &[f32] {
        let numbers = self.n_out.div_ceil(PANEL) * self.n_in * PANEL;
        self.panels.get(self.start..self.start + numbers).unwrap_or_default()
    }

    fn panels_mut(&mut self) -> &mut [f32] {
        let numbers = self.n_out.div_ceil(PANEL) * self.n_in * PANEL;
        self.panels.get_mut(self.start..self.start + numbers).unwrap_or_default()
    }
}

/// One panel with what follows it.
pub(super) struct Panel<'a> {
    /// Inputs × [`PANEL`].
    pub weights: &'a [f32],
    pub bias: Option<&'a [f32]>,
    /// Outputs that there are in this panel.
    pub lanes: usize,
    pub add: bool,
    pub activation: Activation,
}

impl Panel<'_> {
    /// Rows `from..from + rows` of `out`, which has this panel's columns only.
    fn run(&self, with: Instructions, parts: &[Rows<'_>], from: usize, rows: usize, mut out: RowsMut<'_>) {
        match with {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => super::x86::avx512_panel(self, parts, from, rows, &mut out),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => super::x86::avx2_panel(self, parts, from, rows, &mut out),
            #[cfg(not(target_arch = "x86_64"))]
            Instructions::Avx512 | Instructions::Avx2 => self.plain(parts, from, rows, &mut out),
            Instructions::Portable => self.plain(parts, from, rows, &mut out),
        }
    }

    /// Left to the compiler, row by row.
    fn plain(&self, parts: &[Rows<'_>], from: usize, rows: usize, out: &mut RowsMut<'_>) {
        for row in from..from + rows {
            let mut sums = [0.0f32; PANEL];
            let mut weights = self.weights.as_chunks::<PANEL>().0.iter();
            for part in parts {
                for (a, w) in part.row(row).iter().zip(weights.by_ref()) {
                    for (s, w) in sums.iter_mut().zip(w) {
                        *s += a * w;
                    }
                }
            }
            let out = out.row_mut(row);
            if let Some(bias) = self.bias {
                sums.iter_mut().zip(bias).for_each(|(s, b)| *s += b);
            }
            if self.add {
                sums.iter_mut().zip(&*out).for_each(|(s, o)| *s += o);
            }
            if self.activation == Activation::Relu {
                sums.iter_mut().for_each(|s| *s = s.max(0.0));
            }
            out.iter_mut().zip(&sums).for_each(|(o, s)| *o = *s);
            if self.activation == Activation::Gelu {
                gelu_run::<false>(out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::available;
    use super::super::test_numbers::numbers;
    use super::*;

    /// By the book, in f64.
    fn plain(x: Rows<'_>, w: &[f32], n_out: usize, before: &[f32], epilogue: &Epilogue<'_>) -> Vec<f64> {
        let mut out = Vec::new();
        for r in 0..x.rows() {
            for o in 0..n_out {
                let weights = &w[o * x.columns()..(o + 1) * x.columns()];
                let mut sum: f64 = x.row(r).iter().zip(weights).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                sum += epilogue.bias.map_or(0.0, |b| f64::from(b[o]));
                sum += if epilogue.add { f64::from(before[r * n_out + o]) } else { 0.0 };
                out.push(match epilogue.activation {
                    Activation::None => sum,
                    Activation::Relu => sum.max(0.0),
                    Activation::Gelu => super::super::elementwise::tests::exact_gelu(sum),
                });
            }
        }
        out
    }

    #[test]
    fn every_kernel_that_this_machine_has_gives_the_product() {
        for with in available() {
            for (rows, n_in, n_out) in [
                (1, 1, 1),
                (1, 35, 48),
                (1, 256, 128),
                (2, 35, 33),
                (3, 7, 5),
                (13, 64, 32),
                (14, 33, 48),
                (29, 96, 33),
                (60, 31, 129),
                (100, 200, 64),
            ] {
                let x = numbers(rows * n_in, 1);
                let w = numbers(n_out * n_in, 2);
                let bias = numbers(n_out, 3);
                let packed = PackedMatrix::pack(&w, n_out, n_in).unwrap();
                for (add, activation) in [(false, Activation::None), (true, Activation::Relu), (false, Activation::Gelu)] {
                    for bias in [None, Some(&*bias)] {
                        let epilogue = Epilogue { bias, activation, add };
                        let before = numbers(rows * n_out, 4);
                        let mut out = before.clone();
                        let x = Rows::dense(&x, n_in).unwrap();
                        packed.apply_with(with, &[x], RowsMut::dense(&mut out, n_out).unwrap(), &epilogue).unwrap();
                        for (i, want) in plain(x, &w, n_out, &before, &epilogue).into_iter().enumerate() {
                            let apart = (f64::from(out[i]) - want).abs();
                            assert!(apart < 2e-5, "{with:?} {rows}×{n_in}×{n_out} {epilogue:?}: number {i}: {} {want}", out[i]);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_that_overlap_and_parts_make_a_convolution() {
        // Three taps, dilated by two, over ten positions of four channels, padded by two on either side: as parts.
        let (channels, n_out, positions) = (4, 6, 10);
        let x = numbers((positions + 4) * channels, 5);
        let w = numbers(n_out * 3 * channels, 6);
        let packed = PackedMatrix::pack(&w, n_out, 3 * channels).unwrap();
        for with in available() {
            let part = |tap: usize| Rows::new(&x[2 * tap * channels..], positions, channels, channels).unwrap();
            let mut out = vec![f32::NAN; positions * n_out];
            let parts = [part(0), part(1), part(2)];
            packed.apply_with(with, &parts, RowsMut::dense(&mut out, n_out).unwrap(), &Epilogue::default()).unwrap();
            // Without dilation, with a step of two: as overlapping rows.
            let overlapping = Rows::new(&x, 6, 3 * channels, 2 * channels).unwrap();
            let mut strided = vec![f32::NAN; 6 * n_out];
            packed.apply_with(with, &[overlapping], RowsMut::dense(&mut strided, n_out).unwrap(), &Epilogue::default()).unwrap();
            for o in 0..n_out {
                let by_taps = |at: &dyn Fn(usize) -> usize| -> f32 {
                    (0..3 * channels).map(|i| w[o * 3 * channels + i] * x[at(i / channels) * channels + i % channels]).sum()
                };
                for p in 0..positions {
                    assert!((out[p * n_out + o] - by_taps(&|tap| p + 2 * tap)).abs() < 1e-5, "{with:?}");
                }
                for p in 0..6 {
                    assert!((strided[p * n_out + o] - by_taps(&|tap| 2 * p + tap)).abs() < 1e-5, "{with:?}");
                }
            }
        }
    }

    #[test]
    fn what_lies_between_rows_is_left_alone() {
        let (x, w) = (numbers(20 * 8, 7), numbers(5 * 8, 8));
        let packed = PackedMatrix::pack(&w, 5, 8).unwrap();
        for with in available() {
            let mut out = vec![7.0; 20 * 9];
            let rows = RowsMut::new(&mut out[2..], 20, 5, 9).unwrap();
            packed.apply_with(with, &[Rows::dense(&x, 8).unwrap()], rows, &Epilogue::default()).unwrap();
            for (i, v) in out.iter().enumerate() {
                assert_eq!(!(2..7).contains(&(i % 9)), *v == 7.0, "{with:?} {i}");
            }
        }
    }

    #[test]
    fn packing_either_way_gives_the_same() {
        let w = numbers(37 * 11, 9);
        let transposed: Vec<f32> = (0..11).flat_map(|i| (0..37).map(move |o| (o, i))).map(|(o, i)| w[o * 11 + i]).collect();
        let one = PackedMatrix::pack(&w, 37, 11).unwrap();
        let mut other = PackedMatrix::pack_transposed(&transposed, 11, 37).unwrap();
        assert_eq!(one.panels(), other.panels());
        other.repack(Rows::dense(&w[..22], 11).unwrap());
        assert_eq!((other.n_out(), other.n_in()), (2, 11));
        assert_eq!(other.panels().len(), 11 * PANEL);
        assert!(other.panels().iter().skip(2).step_by(PANEL).all(|v| *v == 0.0), "nothing is left of the matrix before");
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let packed = PackedMatrix::pack(&[0.0; 6], 2, 3).unwrap();
        assert!(PackedMatrix::pack(&[0.0; 5], 2, 3).is_err());
        let mut out = [0.0; 4];
        let mut run = |x: &[f32], columns, bias: Option<&[f32]>| {
            let out = RowsMut::dense(&mut out, 2).unwrap();
            packed.apply(Rows::dense(x, columns).unwrap(), out, &Epilogue { bias, ..Epilogue::default() })
        };
        assert!(run(&[0.0; 6], 3, None).is_ok());
        assert!(run(&[0.0; 8], 4, None).is_err(), "inputs");
        assert!(run(&[0.0; 9], 3, None).is_err(), "rows");
        assert!(run(&[0.0; 6], 3, Some(&[0.0; 3])).is_err(), "bias");
    }
}
