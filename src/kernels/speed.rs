//! How quick the kernels are here; run by hand: `cargo nextest run kernels::speed --run-ignored only --no-capture`.
#![allow(clippy::disallowed_methods)] // measures

use std::time::Instant;

use super::*;

/// The least of many runs, in seconds: what the machine can do when nobody else is on it.
fn least(mut work: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut least = f64::MAX;
    while begun.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        work();
        least = least.min(start.elapsed().as_secs_f64());
    }
    least
}

#[test]
#[ignore = "measures"]
fn speed_of_products() {
    let (shapes, epilogue) =
        ([(400, 384, 384), (400, 384, 1536), (400, 1536, 384), (400, 624, 128), (400, 64, 400)], Epilogue::default());
    for with in available() {
        for (rows, n_in, n_out) in shapes {
            let (x, w) = (test_numbers::numbers(rows * n_in, 1), test_numbers::numbers(n_out * n_in, 2));
            let packed = PackedMatrix::pack(&w, n_out, n_in).unwrap();
            let mut out = vec![0.0; rows * n_out];
            let seconds = least(|| {
                let out = RowsMut::dense(&mut out, n_out).unwrap();
                packed.apply_with(with, &[Rows::dense(&x, n_in).unwrap()], out, &epilogue).unwrap();
            });
            let flop = 2.0 * (rows * n_in * n_out) as f64;
            println!("{with:?}: {rows} rows, {n_in} -> {n_out}: {:.2} ms, {:.0} GFLOP/s", seconds * 1e3, flop / seconds / 1e9);
        }
    }
    let x = test_numbers::numbers(400 * 384, 3);
    let mut out = x.clone();
    let mut scratch = AttentionScratch::default();
    let seconds = least(|| {
        let x = Rows::dense(&x, 384).unwrap();
        attention(x, x, x, 6, RowsMut::dense(&mut out, 384).unwrap(), &mut scratch).unwrap();
    });
    println!("{:?}: attention of 400 rows, 6 heads of 64: {:.2} ms", instructions(), seconds * 1e3);
}
