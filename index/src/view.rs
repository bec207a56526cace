//! Vectors of the crate `ndarray`: views are read where they are, nothing is copied.
//!
//! A view is taken if its components lie side by side, one after the other. A matrix needs that of
//! each row only, so a range of its rows or columns will do; a transposed one, or one with a step
//! between columns, is refused. Copying it here would hide a cost that the caller can often avoid
//! by the order in which the matrix is made.

#![expect(
    clippy::needless_pass_by_value,
    reason = "a view is a reference, and passed like one"
)]

use ndarray::{ArrayView1, ArrayView2, Axis};

use crate::{Expiry, IndexError, Neighbor, Query, Row, RowId, VectorIndex, vector};

/// What a [`VectorIndex`] can do with views of `ndarray`. Every index has it.
///
/// ```
/// use askonce_index::ndarray::{array, s};
/// use askonce_index::{Expiry, FlatIndex, IndexError, Query, RowId, VectorIndex, VectorIndexExt};
///
/// let index = FlatIndex::new(2)?;
/// let vectors = array![[3.0, 4.0], [4.0, 3.0], [-3.0, 4.0]];
/// index.upsert_rows(&[RowId(1), RowId(2), RowId(3)], vectors.view(), Expiry::NEVER)?;
///
/// // One list for each row.
/// let mut lists = Vec::new();
/// index.search_rows(vectors.slice(s![1.., ..]), 1, &mut lists)?;
/// assert_eq!((lists[0][0].id, lists[1][0].id), (RowId(2), RowId(3)));
///
/// // A query with a threshold.
/// let query = Query::from_view(vectors.row(0), 5)?.above(0.9);
/// let mut found = Vec::new();
/// index.query(&query, &mut found)?;
/// assert_eq!(found.len(), 2);
///
/// // The columns of a matrix are not contiguous.
/// let column = vectors.slice(s![..2, 0]);
/// let refused = index.search_view(column, 1, &mut found);
/// assert!(matches!(refused, Err(IndexError::NotContiguous { .. })));
/// let copied = column.as_standard_layout();
/// index.search_view(copied.view(), 1, &mut found)?;
/// # Ok::<(), IndexError>(())
/// ```
pub trait VectorIndexExt: VectorIndex {
    /// [`VectorIndex::upsert_until`] of a view.
    ///
    /// # Errors
    /// As there, and [`IndexError::NotContiguous`].
    fn upsert_view(
        &self,
        id: RowId,
        vector: ArrayView1<'_, f32>,
        expires: Expiry,
    ) -> Result<(), IndexError> {
        self.upsert_until(id, contiguous(vector, 0)?, expires)
    }

    /// [`VectorIndex::upsert_batch`] of the rows of a matrix, one id for each. If one row is
    /// refused, none is written.
    ///
    /// # Errors
    /// [`IndexError::RowCount`], [`IndexError::WrongDimension`] or [`IndexError::NotContiguous`]
    /// for the matrix, [`IndexError::BadRow`] for a row of it, [`IndexError::Full`] as there.
    fn upsert_rows(
        &self,
        ids: &[RowId],
        vectors: ArrayView2<'_, f32>,
        expires: Expiry,
    ) -> Result<(), IndexError> {
        if ids.len() != vectors.nrows() {
            return Err(IndexError::RowCount {
                ids: ids.len(),
                rows: vectors.nrows(),
            });
        }
        let vectors = rows(self.dimension(), vectors)?;
        let rows = ids.iter().zip(&vectors).map(|(&id, vector)| Row {
            id,
            vector,
            expires,
        });
        let rows: Vec<Row<'_>> = rows.collect();
        self.upsert_batch(&rows)
            .map_err(|error| of_row(error, self.dimension(), &vectors))
    }

    /// [`VectorIndex::search`] by a view. For a search with a threshold, a time or a filter, make a
    /// [`Query::from_view`].
    ///
    /// # Errors
    /// As there, and [`IndexError::NotContiguous`]; then `out` is as it was.
    fn search_view(
        &self,
        vector: ArrayView1<'_, f32>,
        k: usize,
        out: &mut Vec<Neighbor>,
    ) -> Result<(), IndexError> {
        self.query(&Query::from_view(vector, k)?, out)
    }

    /// The `k` best rows for each row of a matrix: one list each, appended to `out`. For searches
    /// with a threshold, a time or a filter, give those of [`Query::from_rows`] to
    /// [`VectorIndex::query_batch`].
    ///
    /// # Errors
    /// [`IndexError::WrongDimension`] or [`IndexError::NotContiguous`] for the matrix,
    /// [`IndexError::BadRow`] for a row of it; then `out` is as it was.
    fn search_rows(
        &self,
        vectors: ArrayView2<'_, f32>,
        k: usize,
        out: &mut Vec<Vec<Neighbor>>,
    ) -> Result<(), IndexError> {
        let vectors = rows(self.dimension(), vectors)?;
        let queries: Vec<Query<'_>> = vectors.iter().map(|row| Query::new(row, k)).collect();
        self.query_batch(&queries, out)
            .map_err(|error| of_row(error, self.dimension(), &vectors))
    }
}

impl<I: VectorIndex + ?Sized> VectorIndexExt for I {}

impl<'a> Query<'a> {
    /// [`Query::new`] of a view.
    ///
    /// # Errors
    /// [`IndexError::NotContiguous`].
    pub fn from_view(vector: ArrayView1<'a, f32>, k: usize) -> Result<Self, IndexError> {
        Ok(Self::new(contiguous(vector, 0)?, k))
    }

    /// [`Query::new`] of each row of a matrix.
    ///
    /// # Errors
    /// [`IndexError::NotContiguous`].
    pub fn from_rows(vectors: ArrayView2<'a, f32>, k: usize) -> Result<Vec<Self>, IndexError> {
        let rows = rows(vectors.ncols(), vectors)?;
        Ok(rows.into_iter().map(|row| Self::new(row, k)).collect())
    }
}

/// The components of a row, where they are.
fn contiguous<'a>(vector: ArrayView1<'a, f32>, row: usize) -> Result<&'a [f32], IndexError> {
    vector.to_slice().ok_or(IndexError::NotContiguous { row })
}

/// The rows of a matrix of this many columns.
fn rows<'a>(dimension: usize, vectors: ArrayView2<'a, f32>) -> Result<Vec<&'a [f32]>, IndexError> {
    if vectors.ncols() != dimension {
        return Err(IndexError::WrongDimension {
            expected: dimension,
            actual: vectors.ncols(),
        });
    }
    (0..vectors.nrows())
        .map(|row| contiguous(vectors.index_axis_move(Axis(0), row), row))
        .collect()
}

/// The error with the row that caused it, if one did.
fn of_row(error: IndexError, dimension: usize, vectors: &[&[f32]]) -> IndexError {
    let refused = |vector: &&[f32]| vector::check(dimension, vector).is_err();
    match vectors.iter().position(refused) {
        Some(row) => IndexError::BadRow {
            row,
            source: Box::new(error),
        },
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, ShapeBuilder, array, s};

    use super::*;
    use crate::FlatIndex;

    const IDS: [RowId; 3] = [RowId(1), RowId(2), RowId(3)];

    fn matrix() -> Array2<f32> {
        array![[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]
    }

    fn vectors_of(index: &dyn VectorIndex) -> Vec<(RowId, Vec<f32>, Expiry)> {
        let mut rows = Vec::new();
        index.for_each(&mut |row| rows.push((row.id, row.vector.to_vec(), row.expires)));
        rows.sort_by_key(|row| row.0);
        rows
    }

    #[test]
    fn views_give_what_slices_give() {
        let (views, slices) = (FlatIndex::new(3).unwrap(), FlatIndex::new(3).unwrap());
        let (views, slices): (&dyn VectorIndex, &dyn VectorIndex) = (&views, &slices);
        let matrix = matrix();
        let expires = Expiry::at_seconds(9);
        views.upsert_rows(&IDS, matrix.view(), expires).unwrap();
        for (id, row) in IDS.into_iter().zip(matrix.rows()) {
            slices
                .upsert_until(id, row.as_slice().unwrap(), expires)
                .unwrap();
        }
        assert_eq!(vectors_of(views), vectors_of(slices));

        views
            .upsert_view(IDS[0], matrix.row(2), Expiry::NEVER)
            .unwrap();
        slices.upsert(IDS[0], &[0.0, 0.0, 1.0]).unwrap();
        assert_eq!(vectors_of(views), vectors_of(slices));

        let mut expected = vec![Vec::new(); 3];
        for (list, row) in expected.iter_mut().zip(matrix.rows()) {
            slices.search(row.as_slice().unwrap(), 2, list).unwrap();
        }
        let mut lists = Vec::new();
        views.search_rows(matrix.view(), 2, &mut lists).unwrap();
        assert_eq!(lists, expected);
        let mut list = Vec::new();
        views.search_view(matrix.row(1), 2, &mut list).unwrap();
        assert_eq!(list, expected[1]);
        lists.clear();
        let queries = Query::from_rows(matrix.view(), 2).unwrap();
        views.query_batch(&queries, &mut lists).unwrap();
        assert_eq!(lists, expected);
    }

    #[test]
    fn a_range_of_rows_and_columns_is_taken_where_it_is() {
        let wide = array![
            [9.0, 1.0, 0.0, 9.0],
            [9.0, 0.0, 1.0, 9.0],
            [9.0, 9.0, 9.0, 9.0]
        ];
        let index = FlatIndex::new(2).unwrap();
        // Backwards: the last row first.
        let part = wide.slice(s![..2;-1, 1..3]);
        index.upsert_rows(&IDS[..2], part, Expiry::NEVER).unwrap();
        let rows = vectors_of(&index);
        assert_eq!(
            (&rows[0].1[..], &rows[1].1[..]),
            (&[0.0, 1.0][..], &[1.0, 0.0][..])
        );
    }

    #[test]
    fn a_view_that_is_not_contiguous_is_refused_with_the_way_out() {
        let index = FlatIndex::new(3).unwrap();
        let columns = Array2::from_shape_vec((3, 3).f(), vec![1.0; 9]).unwrap();
        let error = index
            .upsert_rows(&IDS, columns.view(), Expiry::NEVER)
            .unwrap_err();
        assert!(matches!(error, IndexError::NotContiguous { row: 0 }));
        assert!(
            error.to_string().contains("as_standard_layout()"),
            "{error}"
        );
        let matrix = matrix();
        for view in [matrix.column(0), matrix.slice(s![0, ..;-1])] {
            let refused = [
                index.upsert_view(IDS[0], view, Expiry::NEVER),
                index.search_view(view, 1, &mut Vec::new()),
                Query::from_view(view, 1).map(drop),
                Query::from_rows(matrix.t(), 1).map(drop),
                index.search_rows(matrix.t(), 1, &mut Vec::new()),
            ];
            for result in refused {
                assert!(matches!(result, Err(IndexError::NotContiguous { row: 0 })));
            }
        }
        assert!(index.is_empty());

        let copied = columns.as_standard_layout();
        index
            .upsert_rows(&IDS, copied.view(), Expiry::NEVER)
            .unwrap();
        assert_eq!(index.len(), 3);
    }

    #[test]
    fn a_matrix_of_another_shape_is_refused() {
        let index = FlatIndex::new(4).unwrap();
        let matrix = matrix();
        let wrong = [
            index.upsert_rows(&IDS, matrix.view(), Expiry::NEVER),
            index.search_rows(matrix.view(), 1, &mut Vec::new()),
            index.upsert_view(IDS[0], matrix.row(0), Expiry::NEVER),
            index.search_view(matrix.row(0), 1, &mut Vec::new()),
        ];
        for result in wrong {
            let expected = matches!(
                result,
                Err(IndexError::WrongDimension {
                    expected: 4,
                    actual: 3
                })
            );
            assert!(expected, "{result:?}");
        }
        let result = index.upsert_rows(&IDS[..2], matrix.view(), Expiry::NEVER);
        assert!(matches!(
            result,
            Err(IndexError::RowCount { ids: 2, rows: 3 })
        ));
        assert!(index.is_empty());
    }

    #[test]
    fn a_row_that_cannot_be_compared_is_named_and_no_row_is_written() {
        for (component, expected) in [(f32::NAN, "finite"), (0.0, "zero")] {
            let index = FlatIndex::new(3).unwrap();
            let mut matrix = matrix();
            matrix.row_mut(1).fill(component);
            let mut lists = vec![Vec::new()];
            let refused = [
                index.upsert_rows(&IDS, matrix.view(), Expiry::NEVER),
                index.search_rows(matrix.view(), 1, &mut lists),
            ];
            for result in refused {
                let Err(IndexError::BadRow { row: 1, source }) = result else {
                    panic!("{result:?}");
                };
                assert!(source.to_string().contains(expected), "{source}");
            }
            assert_eq!((index.len(), lists.len()), (0, 1));
        }
    }

    #[test]
    fn a_matrix_without_rows_writes_and_finds_nothing() {
        let index = FlatIndex::new(3).unwrap();
        let none = Array2::<f32>::zeros((0, 3));
        index.upsert_rows(&[], none.view(), Expiry::NEVER).unwrap();
        let mut lists = Vec::new();
        index.search_rows(none.view(), 1, &mut lists).unwrap();
        assert!(index.is_empty() && lists.is_empty());
    }
}
