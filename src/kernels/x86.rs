//! The inner loops of matrix products for AVX-512 and AVX2: left to the compiler, the sums spill to memory.
#![allow(unsafe_code)] // vector loads and stores take pointers; each says why it may

use std::arch::x86_64::*;

use super::elementwise::gelu_run;
use super::matmul::{Activation, PANEL, Panel};
use super::{Rows, RowsMut};

/// Rows of a tile: 14 × 2 sums, 2 vectors of weights and one number of the row's fill the 32 registers.
const AVX512_ROWS: usize = 14;
/// 6 × 2 sums of the 16 registers.
const AVX2_ROWS: usize = 6;

/// Splits `rows` into tiles as equal as they go, at most `most` each: (first row, rows).
fn tiles(from: usize, rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(most);
    let (each, more) = (rows / count.max(1), rows % count.max(1));
    (0..count).map(move |i| (from + i * each + i.min(more), each + usize::from(i < more)))
}

/// One product's operands as the loops want them. What `Rows`, `RowsMut` and `PackedMatrix` promise is checked where they are made.
struct Tile<'a> {
    panel: &'a Panel<'a>,
    parts: &'a [Rows<'a>],
    row: usize,
    out: *mut f32,
    out_stride: usize,
}

/// Rows `from..from + rows` with AVX-512, which the machine must have.
pub(super) fn avx512_panel(panel: &Panel<'_>, parts: &[Rows<'_>], from: usize, rows: usize, out: &mut RowsMut<'_>) {
    assert_fits(panel, parts, from + rows, out);
    let out_stride = out.stride();
    let data = out.data_mut().as_mut_ptr();
    for (row, count) in tiles(from, rows, AVX512_ROWS) {
        // SAFETY: `row` is one of `out`'s rows.
        let tile = Tile { panel, parts, row, out: unsafe { data.add(row * out_stride) }, out_stride };
        // SAFETY: the processor was asked (`instructions`); shapes were checked above.
        unsafe { if panel.lanes > 16 { avx512_rows::<2>(&tile, count) } else { avx512_rows::<1>(&tile, count) } }
    }
}

/// Shapes that the loops rely on. They hold for all that `PackedMatrix::apply` lets through; this is the last guard before pointers.
fn assert_fits(panel: &Panel<'_>, parts: &[Rows<'_>], rows: usize, out: &RowsMut<'_>) {
    let inputs: usize = parts.iter().map(Rows::columns).sum();
    assert!(panel.weights.len() == inputs * PANEL && panel.lanes <= PANEL && out.columns() == panel.lanes && rows <= out.rows());
    assert!(parts.iter().all(|p| rows <= p.rows()) && panel.bias.is_none_or(|b| b.len() == panel.lanes));
}

#[target_feature(enable = "avx512f,fma")]
unsafe fn avx512_rows<const V: usize>(tile: &Tile<'_>, rows: usize) {
    macro_rules! of {
        ($($r:literal)*) => {
            match rows {
                // SAFETY: the caller's
                $($r => unsafe { avx512_tile::<$r, V>(tile) },)*
                _ => {}
            }
        };
    }
    of!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

/// # Safety
/// `tile.parts` have `R` rows from `tile.row` on, `tile.out` points at as many of `panel.lanes` numbers, weights are inputs × PANEL.
#[target_feature(enable = "avx512f,fma")]
#[allow(clippy::needless_range_loop)] // only counted loops are unrolled into registers
unsafe fn avx512_tile<const R: usize, const V: usize>(tile: &Tile<'_>) {
    let panel = tile.panel;
    let mask = |v: usize| -> __mmask16 {
        u16::MAX.checked_shr(16u32.saturating_sub((panel.lanes.saturating_sub(16 * v)) as u32)).unwrap_or(0)
    };
    let mut masks = [0u16; V];
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    for v in 0..V {
        masks[v] = mask(v);
        if let Some(bias) = panel.bias {
            // SAFETY: masked to the lanes that there are.
            let b = unsafe { _mm512_maskz_loadu_ps(masks[v], bias.as_ptr().wrapping_add(16 * v)) };
            for r in 0..R {
                sums[r][v] = b;
            }
        }
    }
    let mut w = panel.weights.as_ptr();
    for part in tile.parts {
        let stride = part.stride();
        let mut x = part.data().as_ptr().wrapping_add(tile.row * stride);
        for _ in 0..part.columns() {
            let mut weights = [_mm512_setzero_ps(); V];
            for v in 0..V {
                // SAFETY: columns of all parts count the panel's inputs.
                weights[v] = unsafe { _mm512_loadu_ps(w.add(16 * v)) };
            }
            for r in 0..R {
                // SAFETY: row `tile.row + r` is one of the part's, x moves over its columns.
                let a = _mm512_set1_ps(unsafe { *x.add(r * stride) });
                for v in 0..V {
                    sums[r][v] = _mm512_fmadd_ps(a, weights[v], sums[r][v]);
                }
            }
            w = w.wrapping_add(PANEL);
            x = x.wrapping_add(1);
        }
    }
    for r in 0..R {
        // SAFETY: the caller's.
        let out = unsafe { tile.out.add(r * tile.out_stride) };
        for v in 0..V {
            let to = out.wrapping_add(16 * v);
            let mut s = sums[r][v];
            if panel.add {
                // SAFETY: masked to the lanes that there are.
                s = _mm512_add_ps(s, unsafe { _mm512_maskz_loadu_ps(masks[v], to) });
            }
            if panel.activation == Activation::Relu {
                s = _mm512_max_ps(s, _mm512_setzero_ps());
            }
            // SAFETY: masked to the lanes that there are.
            unsafe { _mm512_mask_storeu_ps(to, masks[v], s) };
        }
        if panel.activation == Activation::Gelu {
            // SAFETY: the row has that many numbers, and nobody else looks at it (`RowsMut`).
            gelu_run::<true>(unsafe { std::slice::from_raw_parts_mut(out, panel.lanes) });
        }
    }
}

/// Rows `from..from + rows` with AVX2 and FMA, which the machine must have.
pub(super) fn avx2_panel(panel: &Panel<'_>, parts: &[Rows<'_>], from: usize, rows: usize, out: &mut RowsMut<'_>) {
    assert_fits(panel, parts, from + rows, out);
    let out_stride = out.stride();
    let data = out.data_mut().as_mut_ptr();
    for (row, count) in tiles(from, rows, AVX2_ROWS) {
        // SAFETY: `row` is one of `out`'s rows.
        let tile = Tile { panel, parts, row, out: unsafe { data.add(row * out_stride) }, out_stride };
        for lane in (0..panel.lanes).step_by(16) {
            // SAFETY: the processor was asked (`instructions`); shapes were checked above.
            unsafe { avx2_rows(&tile, count, lane) }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_rows(tile: &Tile<'_>, rows: usize, lane: usize) {
    macro_rules! of {
        ($($r:literal)*) => {
            match rows {
                // SAFETY: the caller's
                $($r => unsafe { avx2_tile::<$r>(tile, lane) },)*
                _ => {}
            }
        };
    }
    of!(1 2 3 4 5 6);
}

/// Sixteen outputs from `lane` on.
///
/// # Safety
/// As `avx512_tile`; `lane` is below `panel.lanes`.
#[target_feature(enable = "avx2,fma")]
#[allow(clippy::needless_range_loop)] // only counted loops are unrolled into registers
unsafe fn avx2_tile<const R: usize>(tile: &Tile<'_>, lane: usize) {
    let panel = tile.panel;
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    let mut w = panel.weights.as_ptr().wrapping_add(lane);
    for part in tile.parts {
        let stride = part.stride();
        let mut x = part.data().as_ptr().wrapping_add(tile.row * stride);
        for _ in 0..part.columns() {
            // SAFETY: columns of all parts count the panel's inputs; a panel is 32 wide, `lane` 0 or 16.
            let weights = unsafe { [_mm256_loadu_ps(w), _mm256_loadu_ps(w.add(8))] };
            for r in 0..R {
                // SAFETY: row `tile.row + r` is one of the part's, x moves over its columns.
                let a = _mm256_set1_ps(unsafe { *x.add(r * stride) });
                for v in 0..2 {
                    sums[r][v] = _mm256_fmadd_ps(a, weights[v], sums[r][v]);
                }
            }
            w = w.wrapping_add(PANEL);
            x = x.wrapping_add(1);
        }
    }
    for r in 0..R {
        let mut numbers = [0.0f32; 16];
        for v in 0..2 {
            // SAFETY: 16 numbers.
            unsafe { _mm256_storeu_ps(numbers.as_mut_ptr().add(8 * v), sums[r][v]) };
        }
        // SAFETY: the row has `lanes` numbers, and nobody else looks at it (`RowsMut`).
        let out = unsafe { std::slice::from_raw_parts_mut(tile.out.add(r * tile.out_stride), panel.lanes) };
        let out = out.get_mut(lane..).unwrap_or_default();
        let out = if out.len() > 16 { out.get_mut(..16).unwrap_or_default() } else { out };
        if let Some(bias) = panel.bias.and_then(|b| b.get(lane..)) {
            numbers.iter_mut().zip(bias).for_each(|(n, b)| *n += b);
        }
        if panel.add {
            numbers.iter_mut().zip(&*out).for_each(|(n, o)| *n += o);
        }
        if panel.activation == Activation::Relu {
            numbers.iter_mut().for_each(|n| *n = n.max(0.0));
        }
        out.iter_mut().zip(&numbers).for_each(|(o, n)| *o = *n);
        if panel.activation == Activation::Gelu {
            gelu_run::<true>(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_all_rows_once_and_are_nearly_equal() {
        for rows in 0..100 {
            let all: Vec<_> = tiles(5, rows, 14).collect();
            let mut next = 5;
            for (row, count) in &all {
                assert_eq!(*row, next);
                assert!((1..=14).contains(count));
                next += count;
            }
            assert_eq!(next, 5 + rows);
            let sizes = all.iter().map(|t| t.1);
            assert!(sizes.clone().max().unwrap_or(0) - sizes.min().unwrap_or(0) <= 1);
        }
    }
}
