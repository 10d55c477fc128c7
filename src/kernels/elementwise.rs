//! What is done number by number or row by row: GELU, softmax, layer norm, batch norm with ReLU.
//!
//! Written once in plain loops over runs of sixteen numbers, which the compiler turns into each instruction set's vectors.

use super::{Instructions, Rows, RowsMut, ShapeError, equal, instructions};

/// Numbers side by side: one AVX-512 register.
const LANES: usize = 16;

/// Runs `$body` compiled for the instructions at hand. `$fma` tells the body whether a multiply-add is one instruction.
macro_rules! compiled_for_each {
    ($name:ident, $body:ident, ($($arg:ident: $type:ty),*)) => {
        fn $name(with: Instructions, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,fma")]
            fn avx512($($arg: $type),*) {
                $body::<true>($($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) {
                $body::<true>($($arg),*);
            }
            match with {
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code)] // SAFETY: `instructions` asked the processor whether it has them
                Instructions::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code)] // SAFETY: as above
                Instructions::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(not(target_arch = "x86_64"))]
                Instructions::Avx512 | Instructions::Avx2 => $body::<false>($($arg),*),
                Instructions::Portable => $body::<false>($($arg),*),
            }
        }
    };
}

compiled_for_each!(gelu_with, gelu_run, (x: &mut [f32]));
compiled_for_each!(softmax_with, softmax_run, (x: &mut RowsMut<'_>));
compiled_for_each!(layer_norm_with, layer_norm_run, (x: Rows<'_>, scale: &[f32], shift: &[f32], epsilon: f32, out: &mut RowsMut<'_>));
compiled_for_each!(lstm_with, lstm_run, (gates: [&[f32]; 4], cell: &mut [f32], hidden: &mut [f32]));
compiled_for_each!(norm_relu_with, norm_relu_run, (x: Rows<'_>, scale: &[f32], shift: &[f32], out: &mut RowsMut<'_>));

/// x · Φ(x) in place: GELU in its exact form (with erf, as Whisper has it), to 4e-7 · max(1, |x|).
pub fn gelu(x: &mut [f32]) {
    gelu_with(instructions(), x);
}

/// Every row becomes its softmax.
pub fn softmax_rows(mut x: RowsMut<'_>) {
    softmax_with(instructions(), &mut x);
}

/// Every row less its mean, over its standard deviation, times `scale` plus `shift`.
pub fn layer_norm_rows(x: Rows<'_>, scale: &[f32], shift: &[f32], epsilon: f32, mut out: RowsMut<'_>) -> Result<(), ShapeError> {
    same_shape("layer norm", x, scale, shift, &out)?;
    layer_norm_with(instructions(), x, scale, shift, epsilon, &mut out);
    Ok(())
}

/// `max(0, x · scale + shift)`, column by column: a batch norm and its ReLU.
pub fn norm_relu_rows(x: Rows<'_>, scale: &[f32], shift: &[f32], mut out: RowsMut<'_>) -> Result<(), ShapeError> {
    same_shape("batch norm", x, scale, shift, &out)?;
    norm_relu_with(instructions(), x, scale, shift, &mut out);
    Ok(())
}

/// One step of an LSTM cell after its product: `gates` holds input, forget, candidate and output (PyTorch's order), each as long as `cell` and
/// `hidden`, which it moves on. To 3e-7.
pub fn lstm_cell(gates: &[f32], cell: &mut [f32], hidden: &mut [f32]) -> Result<(), ShapeError> {
    let n = cell.len();
    equal("LSTM's gates", gates.len(), 4 * n)?;
    equal("LSTM's hidden numbers", hidden.len(), n)?;
    let (first, second) = gates.split_at(2 * n);
    let ((input, forget), (candidate, output)) = (first.split_at(n), second.split_at(n));
    lstm_with(instructions(), [input, forget, candidate, output], cell, hidden);
    Ok(())
}

fn same_shape(what: &'static str, x: Rows<'_>, scale: &[f32], shift: &[f32], out: &RowsMut<'_>) -> Result<(), ShapeError> {
    equal(what, scale.len(), x.columns())?;
    equal(what, shift.len(), x.columns())?;
    equal(what, out.columns(), x.columns())?;
    equal(what, out.rows(), x.rows())
}

/// `a · b + c`, as one instruction where there is one (where there is none, asking for it would call a slow function).
#[inline(always)]
fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The larger. One instruction, which `f32::max` is not, since it promises more for what is no number.
#[inline(always)]
fn more(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The error function, as a rational function on −4..4, beyond which it is ±1 to f32's last bit (coefficients as in Eigen and XLA).
#[inline(always)]
fn erf<const FMA: bool>(x: f32) -> f32 {
    const ALPHA: [f32; 7] =
        [-2.726_142_4e-10, 2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2];
    const BETA: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_474e-2];
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let mut p = ALPHA[0];
    for a in ALPHA.iter().skip(1) {
        p = mul_add::<FMA>(p, square, *a);
    }
    let mut q = BETA[0];
    for b in BETA.iter().skip(1) {
        q = mul_add::<FMA>(q, square, *b);
    }
    x * p / q
}

/// eˣ for x ≤ 88, to 2e-7 of itself; below −87 it stays at what −87 gives, 1.6e-38.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    /// 1.5 · 2²³: adding it rounds to a whole number, which then lies in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = more(x, -87.0);
    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts, of which the first has few bits.
    let r = mul_add::<FMA>(n, -0.693_359_4, x);
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5, 1.0, 1.0] {
        p = mul_add::<FMA>(p, r, c);
    }
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// The logistic function.
#[inline(always)]
fn logistic<const FMA: bool>(x: f32) -> f32 {
    // Beyond ±60 it is 0 or 1 to f32's last bit.
    1.0 / (1.0 + exp::<FMA>((-x).clamp(-60.0, 60.0)))
}

#[inline(always)]
fn lstm_run<const FMA: bool>(gates: [&[f32]; 4], cell: &mut [f32], hidden: &mut [f32]) {
    /// tanh by the logistic function: one exponential less to write.
    #[inline(always)]
    fn tanh<const FMA: bool>(x: f32) -> f32 {
        mul_add::<FMA>(2.0, logistic::<FMA>(2.0 * x), -1.0)
    }
    #[inline(always)]
    fn one<const FMA: bool>([i, f, g, o]: [f32; 4], c: &mut f32, h: &mut f32) {
        *c = mul_add::<FMA>(logistic::<FMA>(f), *c, logistic::<FMA>(i) * tanh::<FMA>(g));
        *h = logistic::<FMA>(o) * tanh::<FMA>(*c);
    }
    let [i, f, g, o] = gates;
    let ((cells, cell_rest), (hiddens, hidden_rest)) = (cell.as_chunks_mut::<LANES>(), hidden.as_chunks_mut::<LANES>());
    let [(i, i_rest), (f, f_rest), (g, g_rest), (o, o_rest)] = [i, f, g, o].map(|gate| gate.as_chunks::<LANES>());
    for (((((c, h), i), f), g), o) in cells.iter_mut().zip(hiddens).zip(i).zip(f).zip(g).zip(o) {
        for (((((c, h), i), f), g), o) in c.iter_mut().zip(h).zip(i).zip(f).zip(g).zip(o) {
            one::<FMA>([*i, *f, *g, *o], c, h);
        }
    }
    for (((((c, h), i), f), g), o) in cell_rest.iter_mut().zip(hidden_rest).zip(i_rest).zip(f_rest).zip(g_rest).zip(o_rest) {
        one::<FMA>([*i, *f, *g, *o], c, h);
    }
}

#[inline(always)]
pub(super) fn gelu_run<const FMA: bool>(x: &mut [f32]) {
    #[inline(always)]
    fn one<const FMA: bool>(x: f32) -> f32 {
        let half = 0.5 * x;
        mul_add::<FMA>(half, erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2), half)
    }
    let (runs, rest) = x.as_chunks_mut::<LANES>();
    for run in runs {
        for v in run {
            *v = one::<FMA>(*v);
        }
    }
    for v in rest {
        *v = one::<FMA>(*v);
    }
}

/// Sixteen results of `each` over a row, joined by `join`; `rest` is met by the first lanes.
#[inline(always)]
fn fold(row: &[f32], start: f32, each: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut lanes = [start; LANES];
    let (runs, rest) = row.as_chunks::<LANES>();
    for run in runs {
        for (l, v) in lanes.iter_mut().zip(run) {
            *l = each(*l, *v);
        }
    }
    for (l, v) in lanes.iter_mut().zip(rest) {
        *l = each(*l, *v);
    }
    lanes
}

/// Lanes into one, pair by pair.
#[inline(always)]
fn join(mut lanes: [f32; LANES], by: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (l, h) in low.iter_mut().zip(high) {
            *l = by(*l, *h);
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn softmax_run<const FMA: bool>(x: &mut RowsMut<'_>) {
    for r in 0..x.rows() {
        let row = x.row_mut(r);
        let most = join(fold(row, f32::NEG_INFINITY, more), more);
        let (runs, rest) = row.as_chunks_mut::<LANES>();
        let mut sums = [0.0f32; LANES];
        for run in runs {
            for (s, v) in sums.iter_mut().zip(run) {
                *v = exp::<FMA>(*v - most);
                *s += *v;
            }
        }
        for (s, v) in sums.iter_mut().zip(rest) {
            *v = exp::<FMA>(*v - most);
            *s += *v;
        }
        let scale = 1.0 / join(sums, |a, b| a + b);
        for v in row {
            *v *= scale;
        }
    }
}

#[inline(always)]
fn layer_norm_run<const FMA: bool>(x: Rows<'_>, scale: &[f32], shift: &[f32], epsilon: f32, out: &mut RowsMut<'_>) {
    let n = length(x.columns().max(1));
    for r in 0..x.rows() {
        let row = x.row(r);
        let mean = join(fold(row, 0.0, |s, v| s + v), |a, b| a + b) / n;
        // Around the mean, so that nothing cancels.
        let squares = join(fold(row, 0.0, |s, v| mul_add::<FMA>(v - mean, v - mean, s)), |a, b| a + b);
        let by = 1.0 / (squares / n + epsilon).sqrt();
        for ((o, v), (scale, shift)) in out.row_mut(r).iter_mut().zip(row).zip(scale.iter().zip(shift)) {
            *o = mul_add::<FMA>((v - mean) * by, *scale, *shift);
        }
    }
}

#[inline(always)]
fn norm_relu_run<const FMA: bool>(x: Rows<'_>, scale: &[f32], shift: &[f32], out: &mut RowsMut<'_>) {
    for r in 0..x.rows() {
        for ((o, v), (scale, shift)) in out.row_mut(r).iter_mut().zip(x.row(r)).zip(scale.iter().zip(shift)) {
            *o = more(mul_add::<FMA>(*v, *scale, *shift), 0.0);
        }
    }
}

/// Small counts into f32, exactly.
#[allow(clippy::cast_precision_loss)]
fn length(n: usize) -> f32 {
    n as f32
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::available;
    use super::super::test_numbers::numbers;
    use super::*;

    /// x · Φ(x) in f64, by erf's series (Abramowitz and Stegun 7.1.6), which converges everywhere.
    pub(in super::super) fn exact_gelu(x: f64) -> f64 {
        let z = x.abs() / std::f64::consts::SQRT_2;
        if z > 6.0 {
            return x.max(0.0);
        }
        let (mut term, mut sum, mut n) = (z, z, 0.0);
        while term > 1e-18 {
            n += 1.0;
            term *= 2.0 * z * z / (2.0 * n + 1.0);
            sum += term;
        }
        let erf = 2.0 / std::f64::consts::PI.sqrt() * (-z * z).exp() * sum;
        0.5 * x * (1.0 + x.signum() * erf)
    }

    #[test]
    fn gelu_is_the_exact_one() {
        for with in available() {
            let x: Vec<f32> = (-80_000..80_000).map(|i| i as f32 / 10_000.0).chain([-1e30, -50.0, 50.0, 1e30, 0.0]).collect();
            let mut y = x.clone();
            gelu_with(with, &mut y);
            for (x, y) in x.iter().zip(&y) {
                let apart = (f64::from(*y) - exact_gelu(f64::from(*x))).abs();
                assert!(apart <= 4e-7 * f64::from(x.abs().max(1.0)), "{with:?}: gelu({x}) = {y}, {apart:e} off");
            }
        }
    }

    #[test]
    fn the_exponential_is_good_to_f32() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let want = f64::from(x).exp();
            for got in [exp::<true>(x), exp::<false>(x)] {
                assert!((f64::from(got) - want).abs() <= 2e-7 * want, "exp({x}) = {got}");
            }
        }
        assert!(exp::<true>(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn softmax_and_layer_norm_are_what_the_formulas_say() {
        for with in available() {
            for columns in [1, 5, 16, 47, 400] {
                let rows = 3;
                let x: Vec<f32> = numbers(rows * columns, 3).iter().map(|v| v * 30.0 + 100.0).collect();
                let mut soft = x.clone();
                softmax_with(with, &mut RowsMut::dense(&mut soft, columns).unwrap());
                let (scale, shift) = (numbers(columns, 4), numbers(columns, 5));
                let mut normed = vec![0.0; x.len()];
                let view = Rows::dense(&x, columns).unwrap();
                layer_norm_with(with, view, &scale, &shift, 1e-5, &mut RowsMut::dense(&mut normed, columns).unwrap());
                for r in 0..rows {
                    let row: Vec<f64> = view.row(r).iter().map(|v| f64::from(*v)).collect();
                    let whole: f64 = row.iter().map(|v| (v - 100.0).exp()).sum();
                    let mean = row.iter().sum::<f64>() / columns as f64;
                    let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / columns as f64;
                    for (i, v) in row.iter().enumerate() {
                        let want = (v - 100.0).exp() / whole;
                        assert!((f64::from(soft[r * columns + i]) - want).abs() < 1e-6, "{with:?} {columns}");
                        let want = (v - mean) / (variance + 1e-5).sqrt() * f64::from(scale[i]) + f64::from(shift[i]);
                        assert!((f64::from(normed[r * columns + i]) - want).abs() < 5e-5, "{with:?} {columns}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_lstm_cell_moves_on_as_its_formulas_say() {
        let logistic = |x: f32| 1.0 / (1.0 + (-f64::from(x)).exp());
        for with in available() {
            for n in [1, 16, 37, 128] {
                let mut gates: Vec<f32> = numbers(4 * n, 6).iter().map(|v| v * 12.0).collect();
                (gates[0], gates[n - 1], gates[2 * n], gates[4 * n - 1]) = (-200.0, 200.0, -200.0, 200.0);
                let (before, mut hidden) = (numbers(n, 7), vec![9.0; n]);
                let mut cell = before.clone();
                let of = |gate: usize, i: usize| gates[gate * n + i];
                let all = [0, 1, 2, 3].map(|gate| &gates[gate * n..(gate + 1) * n]);
                lstm_with(with, all, &mut cell, &mut hidden);
                for i in 0..n {
                    let c = logistic(of(1, i)) * f64::from(before[i]) + logistic(of(0, i)) * f64::from(of(2, i)).tanh();
                    assert!((f64::from(cell[i]) - c).abs() < 5e-7, "{with:?} {n}: cell {i} is {} where {c} was wanted", cell[i]);
                    let h = logistic(of(3, i)) * c.tanh();
                    assert!(
                        (f64::from(hidden[i]) - h).abs() < 5e-7,
                        "{with:?} {n}: hidden {i} is {} where {h} was wanted",
                        hidden[i]
                    );
                }
            }
        }
        assert!(lstm_cell(&[0.0; 7], &mut [0.0; 2], &mut [0.0; 2]).is_err());
        assert!(lstm_cell(&[0.0; 8], &mut [0.0; 2], &mut [0.0; 3]).is_err());
    }

    #[test]
    fn a_batch_norm_takes_the_positive_part() {
        let x = [1.0, -1.0, 2.0, 3.0];
        for with in available() {
            let mut out = [9.0; 4];
            let x = Rows::dense(&x, 2).unwrap();
            norm_relu_with(with, x, &[2.0, -1.0], &[0.5, 0.5], &mut RowsMut::dense(&mut out, 2).unwrap());
            assert_eq!(out, [2.5, 1.5, 4.5, 0.0]);
        }
        let mut out = [0.0; 4];
        let x = Rows::dense(&x, 2).unwrap();
        assert!(norm_relu_rows(x, &[1.0], &[1.0, 1.0], RowsMut::dense(&mut out, 2).unwrap()).is_err());
    }
}
