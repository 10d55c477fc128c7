//! The inner loops of `conv`: one output row, tile by tile, all taps added up in registers. Written for AVX-512, AVX2 and plain:
//! left to the compiler, the sums spill to memory. On one busy core here 210, 80 and some 10 GFLOP/s.
#![allow(clippy::indexing_slicing)] // fixed-size register tiles, indexed by loop constants

/// Channels out of every convolution of the head.
pub(super) const CHANNELS: usize = 32;
/// A row's positions come in whole tiles of this many; the tiles of all three kernels divide it.
pub(super) const TILE: usize = 12;

/// An input row and the weights that meet it.
#[derive(Clone, Copy)]
pub(super) struct Tap<'a> {
    pub x: &'a [f32],
    pub weights: &'a [[f32; CHANNELS]],
}

/// What one output row is made of.
pub(super) struct Row<'a> {
    /// Up to three input rows; those beyond the edge are zero and left out.
    pub taps: [Option<Tap<'a>>; 3],
    pub bias: &'a [f32; CHANNELS],
    /// Where in `x` the first tap of the first position lies.
    pub shift: usize,
    pub relu: bool,
}

/// Adds one output row, `C` channels in, onto what `out` holds (its first position, padding, excepted).
pub(super) fn add_row<const C: usize>(row: &Row<'_>, out: &mut [f32]) {
    let out = out.get_mut(CHANNELS..).unwrap_or_default();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            #[allow(unsafe_code)] // SAFETY: the processor has what the function was compiled for, it was asked just now
            return unsafe { avx512::<C>(row, out) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            #[allow(unsafe_code)] // SAFETY: as above
            return unsafe { avx2::<C>(row, out) };
        }
    }
    plain::<C>(row, out);
}

/// What `positions` positions of the `tile`th tile need of a tap's row, if it is all there.
#[inline(always)]
fn needed<'a, const C: usize>(tap: &Tap<'a>, shift: usize, tile: usize, positions: usize) -> Option<&'a [f32]> {
    let from = tile * positions * C + shift;
    tap.x.get(from..from + (positions - 1) * C + tap.weights.len())
}

fn plain<const C: usize>(row: &Row<'_>, out: &mut [f32]) {
    const P: usize = 4;
    for (tile, out) in out.chunks_exact_mut(P * CHANNELS).enumerate() {
        for sums in out.as_chunks_mut::<CHANNELS>().0 {
            for (s, b) in sums.iter_mut().zip(row.bias) {
                *s += b;
            }
        }
        for tap in row.taps.iter().flatten() {
            let Some(x) = needed::<C>(tap, row.shift, tile, P) else { continue };
            for (j, w) in tap.weights.iter().enumerate() {
                for (p, sums) in out.as_chunks_mut::<CHANNELS>().0.iter_mut().enumerate() {
                    let a = x.get(j + p * C).copied().unwrap_or(0.0);
                    for (s, w) in sums.iter_mut().zip(w) {
                        *s += a * w;
                    }
                }
            }
        }
        if row.relu {
            for v in out {
                *v = v.max(0.0);
            }
        }
    }
}

/// A kernel for one instruction set: `$tile` positions × 32 channels in vectors of `$lanes`.
#[cfg(target_arch = "x86_64")]
macro_rules! kernel {
    ($name:ident, $feature:literal, $lanes:literal, $tile:literal,
     $zero:ident, $load:ident, $store:ident, $spread:ident, $fma:ident, $add:ident, $max:ident) => {
        #[target_feature(enable = $feature)]
        #[allow(unsafe_code)] // vector loads and stores take pointers
        #[allow(clippy::needless_range_loop)] // only counted loops are unrolled into registers
        fn $name<const C: usize>(row: &Row<'_>, out: &mut [f32]) {
            use std::arch::x86_64::*;
            const VECTORS: usize = CHANNELS / $lanes;
            for (tile, out) in out.chunks_exact_mut($tile * CHANNELS).enumerate() {
                let to = out.as_mut_ptr();
                let mut sums = [[$zero(); VECTORS]; $tile];
                for p in 0..$tile {
                    for v in 0..VECTORS {
                        // SAFETY: `out` has tile × 32 numbers, `bias` 32.
                        sums[p][v] =
                            unsafe { $add($load(to.add(p * CHANNELS + v * $lanes)), $load(row.bias.as_ptr().add(v * $lanes))) };
                    }
                }
                for tap in row.taps.iter().flatten() {
                    let Some(x) = needed::<C>(tap, row.shift, tile, $tile) else { continue };
                    for (j, w) in tap.weights.iter().enumerate() {
                        let mut weights = [$zero(); VECTORS];
                        for v in 0..VECTORS {
                            // SAFETY: `w` has 32 numbers.
                            weights[v] = unsafe { $load(w.as_ptr().add(v * $lanes)) };
                        }
                        for p in 0..$tile {
                            // SAFETY: `needed` gave (tile − 1) × C + weights numbers, and j counts the weights.
                            let a = $spread(unsafe { *x.as_ptr().add(j + p * C) });
                            for v in 0..VECTORS {
                                sums[p][v] = $fma(a, weights[v], sums[p][v]);
                            }
                        }
                    }
                }
                for p in 0..$tile {
                    for v in 0..VECTORS {
                        let s = if row.relu { $max(sums[p][v], $zero()) } else { sums[p][v] };
                        // SAFETY: as at the load.
                        unsafe { $store(to.add(p * CHANNELS + v * $lanes), s) };
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(
    avx512,
    "avx512f",
    16,
    12,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_max_ps
);
#[cfg(target_arch = "x86_64")]
kernel!(
    avx2,
    "avx2,fma",
    8,
    3,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_max_ps
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_that_this_machine_has_gives_the_same_row() {
        let numbers = |n: usize, step: usize| -> Vec<f32> { (0..n).map(|i| (i * step % 1009) as f32 / 1009.0 - 0.5).collect() };
        let positions = 2 * TILE + 2;
        let x = numbers(positions * CHANNELS, 7919);
        let weights = numbers(3 * CHANNELS * CHANNELS, 104_729);
        let weights = weights.as_chunks::<CHANNELS>().0;
        let tap = Some(Tap { x: &x, weights });
        for relu in [false, true] {
            let row = Row { taps: [tap, None, tap], bias: &[0.25; CHANNELS], shift: 0, relu };
            let run = |kernel: &dyn Fn(&Row<'_>, &mut [f32])| {
                let mut out = numbers(2 * TILE * CHANNELS, 31);
                kernel(&row, &mut out);
                out
            };
            let want = run(&|r, o| plain::<CHANNELS>(r, o));
            let near = |got: Vec<f32>| want.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(want.iter().any(|v| v.abs() > 0.5));
            #[allow(unsafe_code)] // SAFETY: asked before each
            #[cfg(target_arch = "x86_64")]
            {
                if is_x86_feature_detected!("avx512f") {
                    assert!(near(run(&|r, o| unsafe { avx512::<CHANNELS>(r, o) })));
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    assert!(near(run(&|r, o| unsafe { avx2::<CHANNELS>(r, o) })));
                }
            }
        }
    }
}
