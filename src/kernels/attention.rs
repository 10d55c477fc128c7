//! Attention of every row to every row, head by head.

use super::{Epilogue, PackedMatrix, Rows, RowsMut, ShapeError, equal, softmax_rows};

/// Rows of scores at a time, so that they stay in the cache nearest by.
const ROWS_AT_ONCE: usize = 56;

/// Buffers that attention uses again and again. They hold what the caller said: see [`super::Workspace`].
#[derive(Debug, Default)]
pub struct AttentionScratch {
    keys: PackedMatrix,
    values: PackedMatrix,
    scores: Vec<f32>,
}

impl AttentionScratch {
    /// All of them, so that they can be wiped.
    pub fn buffers(&mut self) -> [&mut Vec<f32>; 3] {
        [self.keys.buffer(), self.values.buffer(), &mut self.scores]
    }
}

/// `out = softmax(q kᵀ) v` for each of `heads`, whose columns lie side by side. Scaling by √d is the caller's (in the weights of q).
pub fn attention(
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    heads: usize,
    mut out: RowsMut<'_>,
    scratch: &mut AttentionScratch,
) -> Result<(), ShapeError> {
    let width = q.columns() / heads.max(1);
    equal("attention's heads", width * heads, q.columns())?;
    equal("attention's keys", k.columns(), q.columns())?;
    equal("attention's values", v.columns(), out.columns())?;
    equal("attention's values a head", v.columns(), q.columns())?;
    equal("attention's rows", out.rows(), q.rows())?;
    equal("attention's values' rows", v.rows(), k.rows())?;
    let stride = k.rows().next_multiple_of(16) + 16;
    scratch.scores.resize(ROWS_AT_ONCE * stride, 0.0);
    for head in 0..heads {
        let from = head * width;
        scratch.keys.repack(k.part(from, width)?);
        scratch.values.repack_transposed(v.part(from, width)?);
        let q = q.part(from, width)?;
        let mut out = out.part(from, width)?;
        let mut row = 0;
        while row < q.rows() {
            let rows = ROWS_AT_ONCE.min(q.rows() - row);
            let mut scores = RowsMut::new(&mut scratch.scores, rows, k.rows(), stride)?;
            scratch.keys.apply(q.slab(row, rows)?, scores.reborrow(), &Epilogue::default())?;
            softmax_rows(scores);
            let scores = Rows::new(&scratch.scores, rows, k.rows(), stride)?;
            scratch.values.apply(scores, out.slab(row, rows)?, &Epilogue::default())?;
            row += rows;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::test_numbers::numbers;
    use super::*;

    #[test]
    fn attention_is_what_the_formula_says() {
        let (rows, keys, heads, width) = (61, 45, 3, 8);
        let columns = heads * width;
        let (q, k, v) = (numbers(rows * columns, 1), numbers(keys * columns, 2), numbers(keys * columns, 3));
        let mut out = vec![0.0; rows * columns];
        let mut scratch = AttentionScratch::default();
        for _ in 0..2 {
            let of = |x| Rows::dense(x, columns).unwrap();
            let out = RowsMut::dense(&mut out, columns).unwrap();
            attention(of(&q), of(&k), of(&v), heads, out, &mut scratch).unwrap();
        }
        for r in 0..rows {
            for h in 0..heads {
                let at = |x: &[f32], row: usize, i: usize| f64::from(x[row * columns + h * width + i]);
                let scores: Vec<f64> =
                    (0..keys).map(|j| (0..width).map(|i| at(&q, r, i) * at(&k, j, i)).sum::<f64>().exp()).collect();
                let whole: f64 = scores.iter().sum();
                for i in 0..width {
                    let want: f64 = scores.iter().enumerate().map(|(j, s)| s / whole * at(&v, j, i)).sum();
                    assert!((at(&out, r, i) - want).abs() < 1e-5);
                }
            }
        }
        assert!(scratch.buffers().iter().all(|b| !b.is_empty()));
    }
}
