//! The inner loops of matrix products for AVX-512 and AVX2, in assembly: left to the compiler, the sums spill to memory, which halves
//! the speed, and a build without optimisation would be a hundred times slower.
#![allow(unsafe_code)] // vector loads, stores and assembly take pointers; each says why it may

use std::arch::asm;
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

/// Some rows of a product with one panel: what the loops are given.
#[derive(Clone, Copy)]
struct Tile<'a> {
    panel: &'a Panel<'a>,
    parts: &'a [Rows<'a>],
    /// The first row.
    row: usize,
    /// Of the panel's outputs: 0, or 16 for AVX2's second half.
    lane: usize,
    /// Where the first row's number `lane` goes.
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
        let tile = Tile { panel, parts, row, lane: 0, out: unsafe { data.add(row * out_stride) }, out_stride };
        // SAFETY: the processor was asked (`instructions`); shapes were checked above.
        unsafe {
            match count {
                1 => avx512_1(tile),
                2 => avx512_2(tile),
                3 => avx512_3(tile),
                4 => avx512_4(tile),
                5 => avx512_5(tile),
                6 => avx512_6(tile),
                7 => avx512_7(tile),
                8 => avx512_8(tile),
                9 => avx512_9(tile),
                10 => avx512_10(tile),
                11 => avx512_11(tile),
                12 => avx512_12(tile),
                13 => avx512_13(tile),
                _ => avx512_14(tile),
            }
        }
    }
}

/// Rows `from..from + rows` with AVX2 and FMA, which the machine must have.
pub(super) fn avx2_panel(panel: &Panel<'_>, parts: &[Rows<'_>], from: usize, rows: usize, out: &mut RowsMut<'_>) {
    assert_fits(panel, parts, from + rows, out);
    let out_stride = out.stride();
    let data = out.data_mut().as_mut_ptr();
    for (row, count) in tiles(from, rows, AVX2_ROWS) {
        for lane in (0..panel.lanes).step_by(PANEL / 2) {
            // SAFETY: `row` is one of `out`'s rows, `lane` one of its columns.
            let tile = Tile { panel, parts, row, lane, out: unsafe { data.add(row * out_stride + lane) }, out_stride };
            // SAFETY: the processor was asked (`instructions`); shapes were checked above.
            unsafe {
                match count {
                    1 => avx2_1(tile),
                    2 => avx2_2(tile),
                    3 => avx2_3(tile),
                    4 => avx2_4(tile),
                    5 => avx2_5(tile),
                    _ => avx2_6(tile),
                }
            }
        }
    }
}

/// Shapes that the loops rely on. They hold for all that `PackedMatrix::apply` lets through; this is the last guard before pointers.
fn assert_fits(panel: &Panel<'_>, parts: &[Rows<'_>], rows: usize, out: &RowsMut<'_>) {
    let inputs: usize = parts.iter().map(Rows::columns).sum();
    assert!(panel.weights.len() == inputs * PANEL && panel.lanes <= PANEL && out.columns() == panel.lanes && rows <= out.rows());
    assert!(parts.iter().all(|p| rows <= p.rows()) && panel.bias.is_none_or(|b| b.len() == panel.lanes));
}

/// A tile of as many rows as are listed: for each its number, its two sums, and where its input lies from the pointers. Every third row
/// has a pointer of its own; the others are one and two strides away from it. Four inputs a turn, then those left over.
macro_rules! tile {
    ($name:ident, $features:literal, $vector:ty, $start:ident, $finish:ident, $load:literal, $half:literal,
     $w0:tt, $w1:tt, $x:tt; $(($r:literal $s0:tt $s1:tt $at:literal))*) => {
        /// # Safety
        /// `tile.parts` have that many rows from `tile.row` on, `tile.out` points at as many of `panel.lanes − lane` numbers, and the
        /// panel's weights are inputs × PANEL.
        #[target_feature(enable = $features)]
        unsafe fn $name(tile: Tile<'_>) {
            let start: [$vector; 2] = $start(&tile);
            let mut sums = [$({ let _ = $r; start }),*];
            let mut w = tile.panel.weights.as_ptr().wrapping_add(tile.lane);
            for part in tile.parts {
                let stride = part.stride();
                let x = part.data().as_ptr().wrapping_add(tile.row * stride);
                // SAFETY: reads one number of each listed row a column, and one vector pair of weights; columns of all parts count the
                // panel's inputs. Writes registers only.
                unsafe {
                    asm!(
                        "test {fours}, {fours}",
                        "jz 3f",
                        "2:",
                        concat!($load, " ", $w0, ", [{w}]"), concat!($load, " ", $w1, ", [{w}+", $half, "]"),
                        $(concat!("vbroadcastss ", $x, ", dword ptr [", $at, "]"),
                          concat!("vfmadd231ps ", $s0, ", ", $x, ", ", $w0),
                          concat!("vfmadd231ps ", $s1, ", ", $x, ", ", $w1),)*
                        concat!($load, " ", $w0, ", [{w}+128]"), concat!($load, " ", $w1, ", [{w}+128+", $half, "]"),
                        $(concat!("vbroadcastss ", $x, ", dword ptr [", $at, "+4]"),
                          concat!("vfmadd231ps ", $s0, ", ", $x, ", ", $w0),
                          concat!("vfmadd231ps ", $s1, ", ", $x, ", ", $w1),)*
                        concat!($load, " ", $w0, ", [{w}+256]"), concat!($load, " ", $w1, ", [{w}+256+", $half, "]"),
                        $(concat!("vbroadcastss ", $x, ", dword ptr [", $at, "+8]"),
                          concat!("vfmadd231ps ", $s0, ", ", $x, ", ", $w0),
                          concat!("vfmadd231ps ", $s1, ", ", $x, ", ", $w1),)*
                        concat!($load, " ", $w0, ", [{w}+384]"), concat!($load, " ", $w1, ", [{w}+384+", $half, "]"),
                        $(concat!("vbroadcastss ", $x, ", dword ptr [", $at, "+12]"),
                          concat!("vfmadd231ps ", $s0, ", ", $x, ", ", $w0),
                          concat!("vfmadd231ps ", $s1, ", ", $x, ", ", $w1),)*
                        "add {w}, 512",
                        "add {p0}, 16", "add {p1}, 16", "add {p2}, 16", "add {p3}, 16", "add {p4}, 16",
                        "dec {fours}",
                        "jnz 2b",
                        "3:",
                        "test {ones}, {ones}",
                        "jz 5f",
                        "4:",
                        concat!($load, " ", $w0, ", [{w}]"), concat!($load, " ", $w1, ", [{w}+", $half, "]"),
                        $(concat!("vbroadcastss ", $x, ", dword ptr [", $at, "]"),
                          concat!("vfmadd231ps ", $s0, ", ", $x, ", ", $w0),
                          concat!("vfmadd231ps ", $s1, ", ", $x, ", ", $w1),)*
                        "add {w}, 128",
                        "add {p0}, 4", "add {p1}, 4", "add {p2}, 4", "add {p3}, 4", "add {p4}, 4",
                        "dec {ones}",
                        "jnz 4b",
                        "5:",
                        "/* {s} */",
                        w = inout(reg) w,
                        p0 = inout(reg) x => _,
                        p1 = inout(reg) x.wrapping_add(3 * stride) => _,
                        p2 = inout(reg) x.wrapping_add(6 * stride) => _,
                        p3 = inout(reg) x.wrapping_add(9 * stride) => _,
                        p4 = inout(reg) x.wrapping_add(12 * stride) => _,
                        s = in(reg) stride * size_of::<f32>(),
                        fours = inout(reg) part.columns() / 4 => _,
                        ones = inout(reg) part.columns() % 4 => _,
                        $(inout($s0) sums[$r][0], inout($s1) sums[$r][1],)*
                        out($w0) _, out($w1) _, out($x) _,
                        options(nostack, readonly),
                    );
                }
            }
            $finish!(tile, sums, $($r)*);
        }
    };
}

/// Writes a tile. Whole panels go from the registers straight to memory.
macro_rules! avx512_finish {
    ($tile:ident, $sums:ident, $($r:literal)*) => {
        let panel = $tile.panel;
        if panel.lanes == PANEL && panel.activation != Activation::Gelu {
            let floor = if panel.activation == Activation::Relu { 0.0 } else { f32::NEG_INFINITY };
            let floor = _mm512_set1_ps(floor);
            $(
                let out = $tile.out.wrapping_add($r * $tile.out_stride);
                // SAFETY: the caller's; a whole panel is there.
                unsafe {
                    let [mut low, mut high] = $sums[$r];
                    if panel.add {
                        low = _mm512_add_ps(low, _mm512_loadu_ps(out));
                        high = _mm512_add_ps(high, _mm512_loadu_ps(out.add(16)));
                    }
                    _mm512_storeu_ps(out, _mm512_max_ps(floor, low));
                    _mm512_storeu_ps(out.add(16), _mm512_max_ps(floor, high));
                }
            )*
        } else {
            // SAFETY: the caller's.
            $(unsafe { avx512_row(&$tile, $tile.out.wrapping_add($r * $tile.out_stride), $sums[$r]) };)*
        }
    };
}

/// Writes a tile.
macro_rules! avx2_finish {
    ($tile:ident, $sums:ident, $($r:literal)*) => {
        // SAFETY: the caller's.
        $(unsafe { avx2_row(&$tile, $tile.out.wrapping_add($r * $tile.out_stride), $sums[$r]) };)*
    };
}

/// One `tile!` for the first rows (those done and the next), one for those and the one after, and so on.
macro_rules! every_height {
    ($with:tt [] [$($done:tt)*] $($left:tt)*) => {};
    ([$($with:tt)*] [$name:ident $($names:ident)*] [$($done:tt)*] $next:tt $($left:tt)*) => {
        tile!($name, $($with)*; $($done)* $next);
        every_height!([$($with)*] [$($names)*] [$($done)* $next] $($left)*);
    };
}

every_height!(
    ["avx512f,fma", __m512, avx512_start, avx512_finish, "vmovups", "64", "zmm28", "zmm29", "zmm30"]
    [avx512_2 avx512_3 avx512_4 avx512_5 avx512_6 avx512_7 avx512_8 avx512_9 avx512_10 avx512_11 avx512_12 avx512_13 avx512_14]
    [(0 "zmm0" "zmm1" "{p0}")]
    (1 "zmm2" "zmm3" "{p0}+{s}")
    (2 "zmm4" "zmm5" "{p0}+2*{s}")
    (3 "zmm6" "zmm7" "{p1}")
    (4 "zmm8" "zmm9" "{p1}+{s}")
    (5 "zmm10" "zmm11" "{p1}+2*{s}")
    (6 "zmm12" "zmm13" "{p2}")
    (7 "zmm14" "zmm15" "{p2}+{s}")
    (8 "zmm16" "zmm17" "{p2}+2*{s}")
    (9 "zmm18" "zmm19" "{p3}")
    (10 "zmm20" "zmm21" "{p3}+{s}")
    (11 "zmm22" "zmm23" "{p3}+2*{s}")
    (12 "zmm24" "zmm25" "{p4}")
    (13 "zmm26" "zmm27" "{p4}+{s}")
);

every_height!(
    ["avx2,fma", __m256, avx2_start, avx2_finish, "vmovups", "32", "ymm12", "ymm13", "ymm14"]
    [avx2_1 avx2_2 avx2_3 avx2_4 avx2_5 avx2_6]
    []
    (0 "ymm0" "ymm1" "{p0}")
    (1 "ymm2" "ymm3" "{p0}+{s}")
    (2 "ymm4" "ymm5" "{p0}+2*{s}")
    (3 "ymm6" "ymm7" "{p1}")
    (4 "ymm8" "ymm9" "{p1}+{s}")
    (5 "ymm10" "ymm11" "{p1}+2*{s}")
);

/// One row: with two sums alone each multiply-add would wait four turns for the one before. So the inputs go to four pairs of sums in turn.
///
/// # Safety
/// As for `tile!`'s functions.
#[target_feature(enable = "avx512f,fma")]
unsafe fn avx512_1(tile: Tile<'_>) {
    let zero = _mm512_setzero_ps();
    let [mut s0, mut s1] = avx512_start(&tile);
    let [mut s2, mut s3, mut s4, mut s5, mut s6, mut s7] = [zero; 6];
    let mut w = tile.panel.weights.as_ptr();
    for part in tile.parts {
        let x = part.data().as_ptr().wrapping_add(tile.row * part.stride());
        // SAFETY: reads the row's numbers and one vector pair of weights for each; columns of all parts count the panel's inputs. Writes
        // registers only.
        unsafe {
            asm!(
                "test {fours}, {fours}",
                "jz 3f",
                "2:",
                "vbroadcastss {x0}, dword ptr [{x}]",
                "vbroadcastss {x1}, dword ptr [{x}+4]",
                "vbroadcastss {x2}, dword ptr [{x}+8]",
                "vbroadcastss {x3}, dword ptr [{x}+12]",
                "vfmadd231ps {s0}, {x0}, [{w}]",
                "vfmadd231ps {s1}, {x0}, [{w}+64]",
                "vfmadd231ps {s2}, {x1}, [{w}+128]",
                "vfmadd231ps {s3}, {x1}, [{w}+192]",
                "vfmadd231ps {s4}, {x2}, [{w}+256]",
                "vfmadd231ps {s5}, {x2}, [{w}+320]",
                "vfmadd231ps {s6}, {x3}, [{w}+384]",
                "vfmadd231ps {s7}, {x3}, [{w}+448]",
                "add {w}, 512",
                "add {x}, 16",
                "dec {fours}",
                "jnz 2b",
                "3:",
                "test {ones}, {ones}",
                "jz 5f",
                "4:",
                "vbroadcastss {x0}, dword ptr [{x}]",
                "vfmadd231ps {s0}, {x0}, [{w}]",
                "vfmadd231ps {s1}, {x0}, [{w}+64]",
                "add {w}, 128",
                "add {x}, 4",
                "dec {ones}",
                "jnz 4b",
                "5:",
                w = inout(reg) w,
                x = inout(reg) x => _,
                fours = inout(reg) part.columns() / 4 => _,
                ones = inout(reg) part.columns() % 4 => _,
                s0 = inout(zmm_reg) s0, s1 = inout(zmm_reg) s1, s2 = inout(zmm_reg) s2, s3 = inout(zmm_reg) s3,
                s4 = inout(zmm_reg) s4, s5 = inout(zmm_reg) s5, s6 = inout(zmm_reg) s6, s7 = inout(zmm_reg) s7,
                x0 = out(zmm_reg) _, x1 = out(zmm_reg) _, x2 = out(zmm_reg) _, x3 = out(zmm_reg) _,
                options(nostack, readonly),
            );
        }
    }
    let sum = |a, b, c, d| _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
    // SAFETY: the caller's.
    unsafe { avx512_row(&tile, tile.out, [sum(s0, s2, s4, s6), sum(s1, s3, s5, s7)]) };
}

/// Which of sixteen lanes from `from` on are below `lanes`.
fn lanes_from(lanes: usize, from: usize) -> u16 {
    match lanes.saturating_sub(from) {
        n @ 0..16 => (1 << n) - 1,
        _ => u16::MAX,
    }
}

/// What sums begin with: the bias.
#[target_feature(enable = "avx512f,fma")]
fn avx512_start(tile: &Tile<'_>) -> [__m512; 2] {
    let Some(bias) = tile.panel.bias else { return [_mm512_setzero_ps(); 2] };
    let lanes = tile.panel.lanes.min(bias.len());
    // SAFETY: masked to the lanes that there are.
    [0, 16].map(|from| unsafe { _mm512_maskz_loadu_ps(lanes_from(lanes, from), bias.as_ptr().wrapping_add(from)) })
}

/// Writes one row of a tile: what was there added, activation.
///
/// # Safety
/// `out` points at `panel.lanes` numbers of which nobody else knows.
#[target_feature(enable = "avx512f,fma")]
unsafe fn avx512_row(tile: &Tile<'_>, out: *mut f32, sums: [__m512; 2]) {
    let panel = tile.panel;
    for (mut s, from) in sums.into_iter().zip([0, 16]) {
        let (mask, to) = (lanes_from(panel.lanes, from), out.wrapping_add(from));
        if panel.add {
            // SAFETY: masked to the lanes that there are.
            s = _mm512_add_ps(s, unsafe { _mm512_maskz_loadu_ps(mask, to) });
        }
        if panel.activation == Activation::Relu {
            s = _mm512_max_ps(_mm512_setzero_ps(), s);
        }
        // SAFETY: masked to the lanes that there are.
        unsafe { _mm512_mask_storeu_ps(to, mask, s) };
    }
    if panel.activation == Activation::Gelu {
        // SAFETY: the row has that many numbers, and nobody else looks at it (`RowsMut`).
        gelu_run::<true>(unsafe { std::slice::from_raw_parts_mut(out, panel.lanes) });
    }
}

/// Bias is added at the end, where lanes that there are not are left out anyway.
#[target_feature(enable = "avx2,fma")]
fn avx2_start(_tile: &Tile<'_>) -> [__m256; 2] {
    [_mm256_setzero_ps(); 2]
}

/// Writes sixteen numbers of one row of a tile: bias and what was there added, activation.
///
/// # Safety
/// `out` points at `panel.lanes − lane` numbers of which nobody else knows.
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_row(tile: &Tile<'_>, out: *mut f32, sums: [__m256; 2]) {
    let panel = tile.panel;
    let mut numbers = [0.0f32; PANEL / 2];
    // SAFETY: there is room for sixteen.
    unsafe {
        _mm256_storeu_ps(numbers.as_mut_ptr(), sums[0]);
        _mm256_storeu_ps(numbers.as_mut_ptr().add(8), sums[1]);
    }
    let count = (PANEL / 2).min(panel.lanes - tile.lane);
    // SAFETY: the row has that many numbers, and nobody else looks at it (`RowsMut`).
    let out = unsafe { std::slice::from_raw_parts_mut(out, count) };
    if let Some(bias) = panel.bias.and_then(|b| b.get(tile.lane..)) {
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

    #[test]
    fn masks_hold_the_lanes_that_there_are() {
        assert_eq!([0, 1, 16, 17, 32].map(|n| lanes_from(n, 0)), [0, 1, u16::MAX, u16::MAX, u16::MAX]);
        assert_eq!([0, 16, 17, 32].map(|n| lanes_from(n, 16)), [0, 0, 1, u16::MAX]);
    }
}
