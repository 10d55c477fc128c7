//! Arithmetic of neural networks on one thread: matrix products with weights packed beforehand, attention, layer norms, softmax, GELU, LSTM cells.
//!
//! A leaf: it knows no model and no room. Written for AVX-512, AVX2 with FMA and any processor; which one runs is asked once
//! ([`instructions`]). Numbers are f32 and lie by rows: a row is a point in time, channels lie innermost.
//!
//! ```text
//! PackedMatrix::pack(&weights, n_out, n_in)?            once, when a model is loaded
//!     .apply(Rows::dense(&x, n_in)?, RowsMut::dense(&mut out, n_out)?, &Epilogue { bias: Some(&b), activation: Gelu, add: false })?
//! ```
//!
//! [`Rows`] may overlap: a convolution over time with three taps of `C` channels and a step of two reads `Rows` of `3 C` columns with
//! a stride of `2 C`, and nothing is copied. [`PackedMatrix::apply_parts`] reads each row from several places at once: taps that
//! do not touch (dilation, a second dimension).

mod attention;
mod elementwise;
mod kept;
mod matmul;
mod rows;
mod wipe;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

pub use attention::{AttentionScratch, attention};
pub use elementwise::{gelu, layer_norm_rows, lstm_cell, norm_relu_rows, softmax_rows};
pub use kept::{Kept, Workspace};
pub use matmul::{Activation, Epilogue, PackedMatrix};
pub use rows::{Rows, RowsMut};
pub use wipe::wipe;

/// Operands do not fit together: a mistake in the calling code or a file that is not the model it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: an operand of {got} numbers where {want} are needed")]
pub struct ShapeError {
    /// Which operation.
    pub what: &'static str,
    /// What there was.
    pub got: usize,
    /// What there must be.
    pub want: usize,
}

/// `Ok` where `got` is `want`.
fn equal(what: &'static str, got: usize, want: usize) -> Result<(), ShapeError> {
    if got == want { Ok(()) } else { Err(ShapeError { what, got, want }) }
}

/// The instructions that the kernels use on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instructions {
    /// 512-bit vectors with fused multiply-add.
    Avx512,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// What every processor of the architecture has.
    Portable,
}

/// Names what is to be used instead of the quickest that there is, to measure or to compare: `avx512`, `avx2` or `portable`.
const INSTRUCTIONS_VARIABLE: &str = "VOICEPAY_INSTRUCTIONS";

/// Asked once; every kernel goes by it.
pub fn instructions() -> Instructions {
    static CHOSEN: OnceLock<Instructions> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let wanted = std::env::var(INSTRUCTIONS_VARIABLE).unwrap_or_default();
        let all = available();
        let named = all.iter().find(|i| format!("{i:?}").eq_ignore_ascii_case(&wanted));
        named.or(all.first()).copied().unwrap_or(Instructions::Portable)
    })
}

/// All that this machine has, the quickest first.
fn available() -> Vec<Instructions> {
    let mut all = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma") {
            all.push(Instructions::Avx512);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            all.push(Instructions::Avx2);
        }
    }
    all.push(Instructions::Portable);
    all
}

#[cfg(test)]
mod speed;

#[cfg(test)]
pub(crate) mod test_numbers {
    /// `n` numbers in −0.5..0.5, the same for the same seed.
    pub(crate) fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed;
        (0..n)
            .map(|_| {
                s = s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (s >> 8) as f32 / (1u32 << 24) as f32 - 0.5
            })
            .collect()
    }
}
