//! Matrices as views: rows of numbers at a stride.

use super::ShapeError;

/// `rows` × `columns` numbers to read, a row every `stride` numbers. Rows may overlap (convolutions) or be one and the same (stride 0).
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a> Rows<'a> {
    /// Refused unless `data` holds the last row to its end.
    pub fn new(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Result<Self, ShapeError> {
        fits("rows", data.len(), rows, columns, stride)?;
        Ok(Self { data, rows, columns, stride })
    }

    /// Rows of `columns` that follow each other without a gap, to the end of `data`.
    pub fn dense(data: &'a [f32], columns: usize) -> Result<Self, ShapeError> {
        let rows = whole("rows", data.len(), columns)?;
        Ok(Self { data, rows, columns, stride: columns })
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many numbers in each.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// From the start of one row to the start of the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// One row; empty where there is none.
    pub fn row(&self, row: usize) -> &'a [f32] {
        let from = row * self.stride;
        if row < self.rows { self.data.get(from..from + self.columns).unwrap_or_default() } else { &[] }
    }

    /// Some of its columns, of every row.
    pub fn part(&self, from: usize, columns: usize) -> Result<Rows<'a>, ShapeError> {
        if from + columns > self.columns {
            return Err(ShapeError { what: "part of rows", got: self.columns, want: from + columns });
        }
        Rows::new(self.data.get(from..).unwrap_or_default(), self.rows, columns, self.stride)
    }

    /// Rows `from..from + rows`.
    pub fn slab(&self, from: usize, rows: usize) -> Result<Rows<'a>, ShapeError> {
        if from + rows > self.rows {
            return Err(ShapeError { what: "slab of rows", got: self.rows, want: from + rows });
        }
        Rows::new(self.data.get(from * self.stride..).unwrap_or_default(), rows, self.columns, self.stride)
    }

    pub(super) fn data(&self) -> &'a [f32] {
        self.data
    }
}

/// `rows` × `columns` numbers to write, a row every `stride` numbers. Rows never overlap.
#[derive(Debug)]
pub struct RowsMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a> RowsMut<'a> {
    /// Refused unless `data` holds the last row to its end, and rows keep apart.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> Result<Self, ShapeError> {
        fits("rows to write", data.len(), rows, columns, stride)?;
        if rows > 1 && stride < columns {
            return Err(ShapeError { what: "stride of rows to write", got: stride, want: columns });
        }
        Ok(Self { data, rows, columns, stride })
    }

    /// Rows of `columns` that follow each other without a gap, to the end of `data`.
    pub fn dense(data: &'a mut [f32], columns: usize) -> Result<Self, ShapeError> {
        let rows = whole("rows to write", data.len(), columns)?;
        Ok(Self { data, rows, columns, stride: columns })
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many numbers in each.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// From the start of one row to the start of the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// One row; empty where there is none.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let from = row * self.stride;
        if row < self.rows { self.data.get_mut(from..from + self.columns).unwrap_or_default() } else { &mut [] }
    }

    /// The same rows, lent.
    pub fn reborrow(&mut self) -> RowsMut<'_> {
        RowsMut { data: self.data, rows: self.rows, columns: self.columns, stride: self.stride }
    }

    /// Some of its columns, of every row.
    pub fn part(&mut self, from: usize, columns: usize) -> Result<RowsMut<'_>, ShapeError> {
        if from + columns > self.columns {
            return Err(ShapeError { what: "part of rows to write", got: self.columns, want: from + columns });
        }
        RowsMut::new(self.data.get_mut(from..).unwrap_or_default(), self.rows, columns, self.stride)
    }

    /// Rows `from..from + rows`.
    pub fn slab(&mut self, from: usize, rows: usize) -> Result<RowsMut<'_>, ShapeError> {
        if from + rows > self.rows {
            return Err(ShapeError { what: "slab of rows to write", got: self.rows, want: from + rows });
        }
        RowsMut::new(self.data.get_mut(from * self.stride..).unwrap_or_default(), rows, self.columns, self.stride)
    }

    pub(super) fn data_mut(&mut self) -> &mut [f32] {
        self.data
    }
}

fn fits(what: &'static str, got: usize, rows: usize, columns: usize, stride: usize) -> Result<(), ShapeError> {
    let end = rows.checked_sub(1).map_or(Some(0), |last| last.checked_mul(stride)?.checked_add(columns));
    let want = end.unwrap_or(usize::MAX);
    if got >= want { Ok(()) } else { Err(ShapeError { what, got, want }) }
}

fn whole(what: &'static str, got: usize, columns: usize) -> Result<usize, ShapeError> {
    match got.checked_rem(columns) {
        Some(0) => Ok(got / columns),
        _ => Err(ShapeError { what, got, want: columns }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_never_reaches_past_its_numbers() {
        let mut x = [0.0; 10];
        assert!(Rows::new(&x, 3, 4, 3).is_ok(), "overlapping rows may be read");
        assert!(Rows::new(&x, 3, 5, 3).is_err());
        assert!(Rows::new(&x, 1000, 10, 0).is_ok());
        assert!(Rows::new(&x, usize::MAX, 10, usize::MAX).is_err());
        assert!(Rows::dense(&x, 3).is_err());
        assert!(Rows::dense(&x, 0).is_err());
        assert!(RowsMut::new(&mut x, 3, 4, 3).is_err(), "overlapping rows may not be written");
        assert!(RowsMut::new(&mut x, 3, 3, 3).is_ok());
        assert!(RowsMut::new(&mut x, 3, 5, 5).is_err());
    }

    #[test]
    fn parts_and_slabs_are_cut_where_they_say() {
        let x: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let rows = Rows::dense(&x, 4).unwrap();
        assert_eq!(rows.part(1, 2).unwrap().row(2), [9.0, 10.0]);
        assert_eq!(rows.slab(1, 2).unwrap().row(0), [4.0, 5.0, 6.0, 7.0]);
        assert!(rows.part(3, 2).is_err());
        assert!(rows.slab(2, 2).is_err());
    }
}
