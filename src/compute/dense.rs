//! Dense linear algebra of one block in memory, by faer and on the calling thread only.
//!
//! Matrices are slices in row-major order. Which library does it, and that a kernel inside a task
//! has one thread, is decision 012; no other file names the library.
//!
//! # Failure
//!
//! `None` where a factorization does not exist: a matrix that is not positive definite or that is
//! singular, values that are not finite.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor as llt;
use faer::linalg::householder;
use faer::linalg::lu::partial_pivoting::factor as lu;
use faer::linalg::matmul::matmul;
use faer::linalg::qr::no_pivoting::factor as qr_factor;
use faer::linalg::svd::{self as svd_factor, ComputeSvdVectors};
use faer::linalg::triangular_solve;
use faer::traits::ComplexField;
use faer::{Accum, Conj, Mat, MatMut, MatRef, Par};
use num_complex::Complex;

use super::block::Numeric;

/// Elements that matrices are factored in.
pub(crate) trait Field: Numeric + ComplexField<Real: Numeric> {
    /// An element that only stands for a number of 32 bits.
    fn of_index(index: usize) -> Self;

    /// The number that an element stands for.
    fn index(self) -> usize;
}

impl Field for f32 {
    fn of_index(index: usize) -> Self {
        Self::from_bits(u32::try_from(index).unwrap_or(u32::MAX))
    }

    fn index(self) -> usize {
        usize::try_from(self.to_bits()).unwrap_or(usize::MAX)
    }
}

impl Field for f64 {
    fn of_index(index: usize) -> Self {
        Self::from_bits(index as u64)
    }

    fn index(self) -> usize {
        usize::try_from(self.to_bits()).unwrap_or(usize::MAX)
    }
}

impl<R: Field> Field for Complex<R>
where
    Self: Numeric + ComplexField<Real: Numeric>,
{
    fn of_index(index: usize) -> Self {
        Self::new(R::of_index(index), R::default())
    }

    fn index(self) -> usize {
        self.re.index()
    }
}

/// A matrix as it lies in memory, or its transpose.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    elements: &'a [T],
    rows: usize,
    columns: usize,
    // Rows and columns are those before the transposition.
    is_transposed: bool,
}

impl<'a, T> Matrix<'a, T> {
    /// `rows` times `columns` elements in row-major order; there must be as many.
    pub(crate) fn new(elements: &'a [T], rows: usize, columns: usize) -> Self {
        assert!(
            elements.len() == rows * columns,
            "a matrix with other elements than its shape says"
        );
        Self { elements, rows, columns, is_transposed: false }
    }

    /// The transpose, in no time.
    pub(crate) fn transposed(self) -> Self {
        Self { is_transposed: !self.is_transposed, ..self }
    }

    /// How many columns it has.
    pub(crate) fn columns(self) -> usize {
        if self.is_transposed { self.rows } else { self.columns }
    }

    fn view(self) -> MatRef<'a, T> {
        let view = MatRef::from_row_major_slice(self.elements, self.rows, self.columns);
        if self.is_transposed { view.transpose() } else { view }
    }
}

impl<T: Copy> Matrix<'_, T> {
    /// The element in `row` and `column`.
    pub(crate) fn at(self, row: usize, column: usize) -> T {
        match self.is_transposed {
            true => self.elements[column * self.columns + row],
            false => self.elements[row * self.columns + column],
        }
    }
}

/// Adds `a` times `b` to `out`, which has the rows of `a` and the columns of `b`.
pub(crate) fn multiply_add<T: Field>(a: Matrix<'_, T>, b: Matrix<'_, T>, out: &mut [T]) {
    product(a, b, out, T::one_impl());
}

/// Takes `a` times `b` from `out`.
pub(crate) fn multiply_subtract<T: Field>(a: Matrix<'_, T>, b: Matrix<'_, T>, out: &mut [T]) {
    product(a, b, out, -T::one_impl());
}

fn product<T: Field>(a: Matrix<'_, T>, b: Matrix<'_, T>, out: &mut [T], factor: T) {
    let (a, b) = (a.view(), b.view());
    if a.ncols() == 0 {
        return;
    }
    let out = MatMut::from_row_major_slice_mut(out, a.nrows(), b.ncols());
    matmul(out, Accum::Add, a, b, factor, Par::Seq);
}

/// The factors of a matrix as [`reflectors`] gives them: in column-major order the coefficients of
/// Householder's reflections, and below them `r` with the vectors of the reflections below its
/// diagonal. As large as the matrix, and `q` is never made.
#[derive(Clone, Copy)]
pub(crate) struct Reflectors<'a, T> {
    elements: &'a [T],
    coefficients: usize,
    rows: usize,
    columns: usize,
}

/// Rows of coefficients that are best for a matrix of that shape.
pub(crate) fn coefficient_rows<T: Field>(rows: usize, columns: usize) -> usize {
    let best = qr_factor::recommended_block_size::<T>(rows, columns);
    best.clamp(1, rows.min(columns).max(1))
}

/// The elements of [`Reflectors`] of `a`, with so many rows of coefficients.
pub(crate) fn reflectors<T: Field>(a: Matrix<'_, T>, coefficients: usize) -> Vec<T> {
    let a = a.view();
    let (rows, columns) = a.shape();
    let height = coefficients + rows;
    let mut elements = vec![T::zero_impl(); height * columns];
    let both = MatMut::from_column_major_slice_mut(&mut elements, height, columns);
    let (into, mut factors) = both.split_at_row_mut(coefficients);
    factors.copy_from(a);
    let into = into.subcols_mut(0, rows.min(columns));
    let need = qr_factor::qr_in_place_scratch::<T>(
        rows,
        columns,
        coefficients,
        Par::Seq,
        Default::default(),
    );
    let mut memory = MemBuffer::new(need);
    let stack = MemStack::new(&mut memory);
    qr_factor::qr_in_place(factors, into, Par::Seq, stack, Default::default());
    elements
}

impl<'a, T: Field> Reflectors<'a, T> {
    /// Of a matrix of `rows` and `columns`.
    pub(crate) fn new(elements: &'a [T], coefficients: usize, [rows, columns]: [usize; 2]) -> Self {
        Self { elements, coefficients, rows, columns }
    }

    fn parts(self) -> (MatRef<'a, T>, MatRef<'a, T>) {
        let height = self.coefficients + self.rows;
        let both = MatRef::from_column_major_slice(self.elements, height, self.columns);
        let (coefficients, factors) = both.split_at_row(self.coefficients);
        let least = self.rows.min(self.columns);
        (coefficients.subcols(0, least), factors)
    }

    /// `r`, of shape `[least, columns]` where `least` is the lesser of rows and columns.
    pub(crate) fn r(self) -> Vec<T> {
        let (_, factors) = self.parts();
        let zero = T::zero_impl();
        let upper = |row, column| if row <= column { factors[(row, column)] } else { zero };
        gathered(self.rows.min(self.columns), self.columns, upper)
    }

    /// The thin `q`, of shape `[rows, least]`, times `right`; without it, `q`.
    pub(crate) fn q_times(self, right: Option<Matrix<'_, T>>) -> Vec<T> {
        let (coefficients, factors) = self.parts();
        let least = self.rows.min(self.columns);
        let width = right.map_or(least, Matrix::columns);
        let mut product = Mat::zeros(self.rows, width);
        match right {
            Some(right) => product.as_mut().subrows_mut(0, least).copy_from(right.view()),
            None => product.as_mut().diagonal_mut().fill(T::one_impl()),
        }
        let block = self.coefficients;
        let need = householder::apply_block_householder_sequence_on_the_left_in_place_scratch::<T>(
            self.rows, block, width,
        );
        let mut memory = MemBuffer::new(need);
        householder::apply_block_householder_sequence_on_the_left_in_place_with_conj(
            factors.subcols(0, least),
            coefficients,
            Conj::No,
            product.as_mut(),
            Par::Seq,
            MemStack::new(&mut memory),
        );
        let mut elements = vec![T::zero_impl(); self.rows * width];
        MatMut::from_row_major_slice_mut(&mut elements, self.rows, width).copy_from(&product);
        elements
    }
}

/// Bytes that [`reflectors`], [`Reflectors::q_times`] and [`svd`] take besides operand and results,
/// for `elements` of that size.
pub(crate) fn factor_scratch(elements: u64, itemsize: u64) -> u64 {
    elements.saturating_mul(itemsize).saturating_mul(3)
}

/// A thin singular value decomposition: `u`, the values in descending order, and `v` conjugated and
/// transposed, as NumPy's `svd(..., full_matrices=False)`.
pub(crate) struct Singular<T: Field> {
    /// Of shape `[rows, least]`.
    pub(crate) u: Vec<T>,
    /// `least` of them.
    pub(crate) values: Vec<T::Real>,
    /// Of shape `[least, columns]`.
    pub(crate) vt: Vec<T>,
}

/// A real number as an element.
pub(crate) fn from_real<T: Field>(value: &T::Real) -> T {
    T::from_real_impl(value)
}

/// The thin singular value decomposition.
pub(crate) fn svd<T: Field>(a: Matrix<'_, T>) -> Option<Singular<T>> {
    let a = a.view();
    let (rows, columns) = a.shape();
    let least = rows.min(columns);
    let thin = ComputeSvdVectors::Thin;
    let need =
        svd_factor::svd_scratch::<T>(rows, columns, thin, thin, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(need);
    let (mut u, mut v) = (Mat::zeros(rows, least), Mat::zeros(columns, least));
    let mut values = Diag::zeros(least);
    let found = svd_factor::svd(
        a,
        values.as_mut(),
        Some(u.as_mut()),
        Some(v.as_mut()),
        Par::Seq,
        MemStack::new(&mut memory),
        Default::default(),
    );
    found.ok()?;
    let values = values.column_vector();
    Some(Singular {
        u: gathered(rows, least, |row, column| u[(row, column)]),
        values: (0..least).map(|at| T::real_part_impl(&values[at])).collect(),
        vt: gathered(least, columns, |row, column| T::conj_impl(&v[(column, row)])),
    })
}

/// The lower triangle whose product with its conjugate transpose is `a`, of which only the lower
/// triangle is looked at; `None` if `a` is not positive definite.
pub(crate) fn cholesky<T: Field>(a: Matrix<'_, T>) -> Option<Vec<T>> {
    let mut lower = a.view().to_owned();
    let side = lower.nrows();
    let need = llt::cholesky_in_place_scratch::<T>(side, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(need);
    let stack = MemStack::new(&mut memory);
    let none = Default::default();
    llt::cholesky_in_place(lower.as_mut(), none, Par::Seq, stack, Default::default()).ok()?;
    let zero = T::zero_impl();
    Some(gathered(side, side, |row, column| if row < column { zero } else { lower[(row, column)] }))
}

/// Which triangle of a matrix counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Triangle {
    /// On and below the diagonal.
    Lower,
    /// On and above it.
    Upper,
}

/// Replaces `b`, of `columns` columns, by the solution `x` of `triangle(a) x = b`.
pub(crate) fn solve_triangle<T: Field>(
    triangle: Triangle,
    a: Matrix<'_, T>,
    b: &mut [T],
    columns: usize,
) {
    let a = a.view();
    let b = MatMut::from_row_major_slice_mut(b, a.nrows(), columns);
    match triangle {
        Triangle::Lower => triangular_solve::solve_lower_triangular_in_place(a, b, Par::Seq),
        Triangle::Upper => triangular_solve::solve_upper_triangular_in_place(a, b, Par::Seq),
    }
}

/// Replaces each row of `b` by the solution `x` of `triangle(a) x = row`.
pub(crate) fn solve_triangle_by_rows<T: Field>(triangle: Triangle, a: Matrix<'_, T>, b: &mut [T]) {
    let a = a.view();
    let side = a.nrows();
    let rows = b.len() / side.max(1);
    let b = MatMut::from_column_major_slice_mut(b, side, rows);
    match triangle {
        Triangle::Lower => triangular_solve::solve_lower_triangular_in_place(a, b, Par::Seq),
        Triangle::Upper => triangular_solve::solve_upper_triangular_in_place(a, b, Par::Seq),
    }
}

/// The factors of `a`, which has no more columns than rows, with partial pivoting: `l` below the
/// diagonal and `u` on and above it, and for each of their rows which row of `a` it was.
pub(crate) fn lu<T: Field>(a: Matrix<'_, T>) -> (Vec<T>, Vec<usize>) {
    let mut factors = a.view().to_owned();
    let (rows, columns) = factors.shape();
    let (mut there, mut back) = (vec![0_usize; rows], vec![0_usize; rows]);
    let need = lu::lu_in_place_scratch::<usize, T>(rows, columns, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(need);
    let (view, stack) = (factors.as_mut(), MemStack::new(&mut memory));
    lu::lu_in_place(view, &mut there, &mut back, Par::Seq, stack, Default::default());
    (gathered(rows, columns, |row, column| factors[(row, column)]), there)
}

/// Elements in row-major order.
fn gathered<T>(rows: usize, columns: usize, at: impl Fn(usize, usize) -> T) -> Vec<T> {
    let at = &at;
    (0..rows).flat_map(|row| (0..columns).map(move |column| at(row, column))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that follow from their position.
    fn numbers(count: usize) -> Vec<f64> {
        (0..count).map(|at| ((at * 7919 + 13) % 1009) as f64 / 500.0 - 1.0).collect()
    }

    fn naive(a: &[f64], b: &[f64], [m, k, n]: [usize; 3]) -> Vec<f64> {
        gathered(m, n, |row, column| (0..k).map(|at| a[row * k + at] * b[at * n + column]).sum())
    }

    fn transposed(a: &[f64], rows: usize, columns: usize) -> Vec<f64> {
        gathered(columns, rows, |row, column| a[column * columns + row])
    }

    #[track_caller]
    fn near(found: &[f64], wanted: &[f64]) {
        assert_eq!(found.len(), wanted.len());
        let far = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(far < 1e-12, "{far}");
    }

    #[test]
    fn products_are_those_of_the_definition_for_both_ways_to_lie() {
        for [m, k, n] in [[1, 1, 1], [3, 4, 5], [17, 33, 9], [2, 0, 3]] {
            let (a, b) = (numbers(m * k), numbers(k * n));
            let mut out = vec![1.0; m * n];
            multiply_add(Matrix::new(&a, m, k), Matrix::new(&b, k, n), &mut out);
            let mut wanted = naive(&a, &b, [m, k, n]);
            wanted.iter_mut().for_each(|value| *value += 1.0);
            near(&out, &wanted);
            let (at, bt) = (transposed(&a, m, k), transposed(&b, k, n));
            let (a, b) = (Matrix::new(&at, k, m).transposed(), Matrix::new(&bt, n, k).transposed());
            multiply_subtract(a, b, &mut out);
            near(&out, &vec![1.0; m * n]);
        }
    }

    #[test]
    fn q_has_orthonormal_columns_and_r_is_what_is_left() {
        for [rows, columns] in [[20, 7], [7, 7], [5, 9], [1, 1]] {
            let a = numbers(rows * columns);
            let least = rows.min(columns);
            let block = coefficient_rows::<f64>(rows, columns);
            let elements = reflectors(Matrix::new(&a, rows, columns), block);
            let factors = Reflectors::new(&elements, block, [rows, columns]);
            let (q, r) = (factors.q_times(None), factors.r());
            let times_r = factors.q_times(Some(Matrix::new(&r, least, columns)));
            near(&times_r, &a);
            near(&naive(&q, &r, [rows, least, columns]), &a);
            let identity = gathered(least, least, |i, j| if i == j { 1.0 } else { 0.0 });
            near(&naive(&transposed(&q, rows, least), &q, [least, rows, least]), &identity);
            assert!((0..least).all(|i| (0..i.min(columns)).all(|j| r[i * columns + j] == 0.0)));
        }
    }

    #[test]
    fn singular_values_descend_and_the_factors_give_the_matrix() {
        for [rows, columns] in [[20, 7], [6, 11]] {
            let a = numbers(rows * columns);
            let found = svd(Matrix::new(&a, rows, columns)).unwrap();
            let least = rows.min(columns);
            assert!(found.values.is_sorted_by(|a, b| a >= b));
            let scaled = gathered(rows, least, |i, j| found.u[i * least + j] * found.values[j]);
            near(&naive(&scaled, &found.vt, [rows, least, columns]), &a);
        }
        assert!(svd(Matrix::new(&[f64::NAN, 1.0, 2.0, 3.0], 2, 2)).is_none());
    }

    #[test]
    fn a_factor_of_complex_numbers_is_conjugated() {
        let a: Vec<Complex<f64>> =
            numbers(24).chunks(2).map(|pair| Complex::new(pair[0], pair[1])).collect();
        let found = svd(Matrix::new(&a, 4, 3)).unwrap();
        for (at, element) in a.iter().enumerate() {
            let (row, column) = (at / 3, at % 3);
            let terms =
                (0..3).map(|k| found.u[row * 3 + k] * found.values[k] * found.vt[k * 3 + column]);
            assert!((terms.sum::<Complex<f64>>() - element).norm() < 1e-12);
        }
    }

    #[test]
    fn factors_of_a_panel_are_its_rows_in_the_order_of_the_largest_first() {
        for (rows, columns) in [(12, 12), (9, 4), (5, 1)] {
            let a = numbers(rows * columns);
            let (factors, from) = lu(Matrix::new(&a, rows, columns));
            let lower = |row: usize, k: usize| match row.cmp(&k) {
                std::cmp::Ordering::Greater => factors[row * columns + k],
                std::cmp::Ordering::Equal => 1.0,
                std::cmp::Ordering::Less => 0.0,
            };
            for (row, from) in from.iter().enumerate() {
                for column in 0..columns {
                    let terms = (0..=column).map(|k| lower(row, k) * factors[k * columns + column]);
                    let far = (terms.sum::<f64>() - a[from * columns + column]).abs();
                    assert!(far < 1e-9, "{far}");
                    assert!(lower(row, column).abs() <= 1.0, "a pivot that is not the largest");
                }
            }
        }
    }

    #[test]
    fn an_index_is_kept_in_an_element_of_any_type() {
        for index in [0, 1, 4711, (1 << 30) + 1] {
            assert_eq!(f32::of_index(index).index(), index);
            assert_eq!(f64::of_index(index).index(), index);
            assert_eq!(Complex::<f32>::of_index(index).index(), index);
            assert_eq!(Complex::<f64>::of_index(index).index(), index);
        }
    }

    #[test]
    fn positive_definite_matrices_have_a_lower_triangle_and_others_none() {
        let side = 9;
        let a = numbers(side * side);
        let mut square = naive(&a, &transposed(&a, side, side), [side, side, side]);
        (0..side).for_each(|at| square[at * side + at] += 1.0);
        let lower = cholesky(Matrix::new(&square, side, side)).unwrap();
        near(&naive(&lower, &transposed(&lower, side, side), [side, side, side]), &square);
        let mut b = naive(&square, &numbers(side), [side, side, 1]);
        solve_triangle(Triangle::Lower, Matrix::new(&lower, side, side), &mut b, 1);
        let upper = Matrix::new(&lower, side, side).transposed();
        solve_triangle(Triangle::Upper, upper, &mut b, 1);
        near(&b, &numbers(side));
        assert!(cholesky(Matrix::new(&[1.0, 2.0, 2.0, 1.0], 2, 2)).is_none());
    }
}
