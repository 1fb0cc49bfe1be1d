//! QR and singular values of matrices that have few columns: `tsqr`, `qr`, `svd`, `svd_compressed`.
//!
//! ```text
//! rows of a    leaves      stack
//! +-------+    R0, Q0     +----+        the stack is a tall matrix too, factored in the same way,
//! |  a0   |    R1, Q1     | R0 |  --->  until one leaf is all of it: R is that of the last
//! |  a1   |    R2, Q2     | R1 |
//! |  a2   |               | R2 |        rows of Q: those of a leaf times their part of the stack's
//! +-------+               +----+
//! ```
//!
//! `q` of a leaf is never made: a leaf keeps reflections, which are applied to its part of the
//! stack's `q`. Each `r` is copied out of its leaf: the leaf can go to the disk until then.
//!
//! # Invariants
//!
//! 1. Every leaf but the last has at least as many rows as columns, so all have whole factors.

use super::product::matmul;
use super::{as_field, bytes_of, matrix_block, matrix_shape, ordered, part, refused, region};
use super::{whole, with_field};
use crate::compute::block::Block;
use crate::compute::dense::{self, Field, Matrix, Reflectors, factor_scratch};
use crate::compute::node::{BLOCK_BYTES, Blocked};
use crate::compute::number::Number;
use crate::compute::recipe::{Argument, Input, Recipe};
use crate::compute::region::{Region, to_usize};
use crate::compute::trouble::ComputeError;

/// Rows of a leaf for each column, at least: a stack is so many times smaller than what it is of.
const ROWS_PER_COLUMN: u64 = 6;

/// So many leaves are enough for threads to end together however they are cut.
const UNEVEN_LEAVES: u64 = 32;

/// Columns that `svd_compressed` takes besides those asked for, so that the last ones asked for
/// are right too.
const SPARE_COLUMNS: u64 = 10;

/// A decomposition `u`, `s`, `vt`.
type Decomposition<'e> = (Blocked<'e>, Blocked<'e>, Blocked<'e>);

/// Thin `q` and `r` of a matrix with at least as many rows as columns, by blocks of rows.
///
/// Leaves are blocks of rows, six times as high as wide or higher. Where `q` is asked for they are
/// kept until their part of it can be made: in memory, or on the disk if the run may spill. Signs
/// are those that come out; they differ from NumPy's as they may.
///
/// # Errors
///
/// [`ComputeError::Argument`] if `a` is no matrix or has more columns than rows.
pub fn tsqr<'e>(a: &Blocked<'e>) -> Result<(Blocked<'e>, Blocked<'e>), ComputeError> {
    let tall = Tall::new("tsqr", a)?;
    Ok((tall.q(None)?, tall.r()?))
}

/// Thin `q` and `r`: [`tsqr`] of a matrix with more rows than columns; one with more columns is
/// factored in memory, by one task for its first columns.
///
/// # Errors
///
/// [`ComputeError::Argument`] if `a` is no matrix.
pub fn qr<'e>(a: &Blocked<'e>) -> Result<(Blocked<'e>, Blocked<'e>), ComputeError> {
    let [rows, columns] = matrix_shape("qr", a)?;
    if rows >= columns {
        return tsqr(a);
    }
    // Of the first columns; the others follow from q.
    let (q, _) = tsqr(&part(a, &region([0, 0], [rows, rows]))?)?;
    let r = matmul(&ordered(&q, &[1, 0])?.conjugate()?, a)?;
    Ok((q, r))
}

/// The thin singular value decomposition `u`, `s`, `vt` of a matrix with few columns or few rows,
/// as NumPy's `svd(a, full_matrices=False)`: values descend.
///
/// # Errors
///
/// [`ComputeError::Argument`] if `a` is no matrix.
pub fn svd<'e>(a: &Blocked<'e>) -> Result<Decomposition<'e>, ComputeError> {
    let [rows, columns] = matrix_shape("svd", a)?;
    if rows < columns {
        let (u, s, vt) = svd(&ordered(a, &[1, 0])?)?;
        return Ok((ordered(&vt, &[1, 0])?, s, ordered(&u, &[1, 0])?));
    }
    let tall = Tall::new("svd", a)?;
    let small = decomposed(&tall.r()?, tall.number, columns)?;
    let values = part(&small, &region([columns, 0], [1, columns]))?.reshape(&[-1])?.real()?;
    let vt = part(&small, &region([columns + 1, 0], [columns, columns]))?;
    let inner = part(&small, &region([0, 0], [columns, columns]))?;
    Ok((tall.q(Some(inner))?, values, vt))
}

/// The `k` largest singular values with their vectors, near to those of [`svd`], found by products
/// of the matrix with few random columns (Halko, Martinsson and Tropp, 2009).
///
/// Each of `n_power_iter` iterations reads the matrix twice more and makes the result more exact
/// where values descend slowly. The same seed gives the same result.
///
/// # Errors
///
/// [`ComputeError::Argument`] if `a` is no matrix, or has not `k` rows and columns.
pub fn svd_compressed<'e>(
    a: &Blocked<'e>,
    k: u64,
    n_power_iter: u32,
    seed: u64,
) -> Result<Decomposition<'e>, ComputeError> {
    let operation = "svd_compressed";
    let [rows, columns] = matrix_shape(operation, a)?;
    let least = rows.min(columns);
    if k == 0 || k > least {
        return Err(refused(operation, a, format!("it has no {k} singular values")));
    }
    let a = as_field(a)?;
    let wide = (k + SPARE_COLUMNS).min(least);
    let random = normal(columns, wide, seed, a.number())?;
    let adjoint = ordered(&a, &[1, 0])?.conjugate()?;
    let (mut q, _) = tsqr(&matmul(&a, &random)?)?;
    for _ in 0..n_power_iter {
        let (back, _) = tsqr(&matmul(&adjoint, &q)?)?;
        (q, _) = tsqr(&matmul(&a, &back)?)?;
    }
    let small = matmul(&ordered(&q, &[1, 0])?.conjugate()?, &a)?;
    let (inner, s, vt) = svd(&small)?;
    let u = matmul(&q, &part(&inner, &region([0, 0], [wide, k]))?)?;
    let s = s.slice(&format!("0:{k}")[..])?;
    Ok((u, s, part(&vt, &region([0, 0], [k, columns]))?))
}

/// A matrix of normal deviates that follow from the seed and their positions.
fn normal<'e>(
    rows: u64,
    columns: u64,
    seed: u64,
    number: Number,
) -> Result<Blocked<'e>, ComputeError> {
    let deviates = Blocked::from_function(&[rows, columns], move |start, len| {
        let shape = [to_usize(len[0]), to_usize(len[1])];
        ndarray::Array2::from_shape_fn(shape, |(row, column)| {
            deviate(seed, (start[0] + row as u64) * columns + start[1] + column as u64)
        })
        .into_dyn()
    })?;
    deviates.astype(number)
}

/// One normal deviate, by the transformation of Box and Muller.
fn deviate(seed: u64, at: u64) -> f64 {
    let mixed = |value: u64| {
        let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    };
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
    let unit = |value: u64| ((mixed(value) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    let one = mixed(seed).wrapping_add(at.wrapping_mul(2)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let radius = (-2.0 * unit(one).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(one.wrapping_add(0x9e37_79b9_7f4a_7c15))).cos()
}

/// The factors of a tall matrix, as expressions.
struct Tall<'e> {
    rows: u64,
    columns: u64,
    /// Rows of a leaf; the last one may have fewer.
    leaf: u64,
    number: Number,
    leaves: Blocked<'e>,
    /// The `r` of all leaves.
    stacked: Blocked<'e>,
    /// The factors of the stack, if there are several leaves.
    stack: Option<Box<Self>>,
}

impl<'e> Tall<'e> {
    fn new(operation: &'static str, a: &Blocked<'e>) -> Result<Self, ComputeError> {
        let [rows, columns] = matrix_shape(operation, a)?;
        if rows < columns {
            return Err(refused(operation, a, "it has more columns than rows"));
        }
        let a = as_field(a)?;
        let of_block = BLOCK_BYTES / bytes_of(a.number(), &[columns.max(1)]);
        // Invariant 1.
        let leaf = of_block.max(columns.saturating_mul(ROWS_PER_COLUMN)).max(1);
        // Few leaves are cut so that two, four or eight threads end together.
        let count = rows.div_ceil(leaf).max(1);
        let leaf = match count {
            ..UNEVEN_LEAVES => rows.div_ceil(1 << count.ilog2()).max(1),
            _ => leaf,
        };
        Self::in_leaves(&a, leaf)
    }

    /// Cut into leaves of so many rows, at least twice as many as there are columns.
    fn in_leaves(a: &Blocked<'e>, leaf: u64) -> Result<Self, ComputeError> {
        let [rows, columns] = matrix_shape("qr", a)?;
        let number = a.number();
        let parts = Leaf::all(number, rows, columns, leaf);
        let leaves = leaves(a, &parts, leaf, columns)?;
        let stacked = stacked(&leaves, &parts, columns)?;
        let stack = match parts.len() {
            0 | 1 => None,
            _ => {
                // All of a block of rows of the stack belongs to one leaf of it.
                let leaf = leaf / columns.max(1) * columns.max(1);
                Some(Box::new(Self::in_leaves(&stacked, leaf)?))
            }
        };
        Ok(Self { rows, columns, leaf, number, leaves, stacked, stack })
    }

    fn r(&self) -> Result<Blocked<'e>, ComputeError> {
        match &self.stack {
            Some(stack) => stack.r(),
            None => Ok(self.stacked.clone()),
        }
    }

    /// `q`, or `q` times a small matrix.
    fn q(&self, inner: Option<Blocked<'e>>) -> Result<Blocked<'e>, ComputeError> {
        let (columns, number) = (self.columns, self.number);
        let above = match &self.stack {
            Some(stack) => Some(stack.q(inner)?),
            None => inner,
        };
        let parts = Leaf::all(number, self.rows, columns, self.leaf);
        let (leaves, is_stacked) = (self.leaves.clone(), self.stack.is_some());
        Blocked::from_tasks(&[self.rows, columns], number, &[self.leaf, columns], move |position| {
            let leaf = parts[to_usize(position[0])];
            let mut inputs = vec![Input::Part(leaves.clone(), leaf.whole(columns))];
            if let Some(above) = &above {
                let of_stack = region([leaf.stacked, 0], [leaf.least, columns]);
                let part = if is_stacked { of_stack } else { whole(above.shape()) };
                inputs.push(Input::Part(above.clone(), part));
            }
            let bytes = bytes_of(number, &[leaf.rows, columns]);
            let work = move |arguments: &[Argument<'_, 'e>]| q(number, arguments, leaf, columns);
            let scratch = factor_scratch(leaf.rows * columns, number.itemsize() as u64);
            Ok(Recipe::new("q", inputs, bytes, work).with_scratch(scratch))
        })
    }
}

/// Where the factors of one leaf are.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Leaf {
    /// First column in the array of leaves.
    at: u64,
    /// First row of its `r` in the stack.
    stacked: u64,
    /// Rows of the matrix.
    rows: u64,
    /// Rows of `r`.
    least: u64,
    /// Rows of coefficients.
    coefficients: u64,
}

impl Leaf {
    fn all(number: Number, rows: u64, columns: u64, leaf: u64) -> Vec<Self> {
        let shape = [leaf.min(rows), columns].map(to_usize);
        let best =
            with_field!(number, T => dense::coefficient_rows::<T>(shape[0], shape[1])) as u64;
        let of = |number: u64| {
            let rows = leaf.min(rows - number * leaf);
            let least = rows.min(columns);
            let coefficients = best.min(least.max(1));
            let at = number * (leaf + best);
            Self { at, stacked: number * columns, rows, least, coefficients }
        };
        (0..rows.div_ceil(leaf)).map(of).collect()
    }

    /// Columns in the array of leaves.
    fn width(self) -> u64 {
        self.coefficients + self.rows
    }

    /// All of it in the array of leaves.
    fn whole(self, columns: u64) -> Region {
        region([0, self.at], [columns, self.width()])
    }

    /// The factors, of which the argument has the elements.
    fn factors<T: Field>(self, elements: &[T], columns: u64) -> Reflectors<'_, T> {
        let shape = [self.rows, columns].map(to_usize);
        Reflectors::new(elements, to_usize(self.coefficients), shape)
    }
}

/// The factors of each leaf: one block, whose rows are the columns of coefficients and factors.
fn leaves<'e>(
    a: &Blocked<'e>,
    parts: &[Leaf],
    leaf: u64,
    columns: u64,
) -> Result<Blocked<'e>, ComputeError> {
    let width = parts.last().map_or(0, |last| last.at + last.width());
    let block = parts.first().map_or(1, |first| first.width());
    let (number, a, parts) = (a.number(), a.clone(), parts.to_vec());
    Blocked::from_tasks(&[columns, width], number, &[columns.max(1), block], move |position| {
        let own = parts[to_usize(position[1])];
        let rows = own.rows;
        let input = Input::Part(a.clone(), region([position[1] * leaf, 0], [rows, columns]));
        let work = move |arguments: &[Argument<'_, 'e>]| {
            with_field!(number, T => {
                let data = arguments[0].data()?;
                let [rows, columns] = [rows, columns].map(to_usize);
                let a = Matrix::new(data.elements::<T>()?, rows, columns);
                let factors = dense::reflectors(a, to_usize(own.coefficients));
                matrix_block(factors, [columns, to_usize(own.width())])
            })
        };
        let bytes = bytes_of(number, &[own.width(), columns]);
        let scratch = factor_scratch(rows * columns, number.itemsize() as u64);
        Ok(Recipe::new("qr", vec![input], bytes, work).with_scratch(scratch))
    })
}

/// The `r` of all leaves, one block each.
fn stacked<'e>(
    leaves: &Blocked<'e>,
    parts: &[Leaf],
    columns: u64,
) -> Result<Blocked<'e>, ComputeError> {
    let number = leaves.number();
    let rows: u64 = parts.iter().map(|leaf| leaf.least).sum();
    let (leaves, parts) = (leaves.clone(), parts.to_vec());
    Blocked::from_tasks(&[rows, columns], number, &[columns.max(1), columns], move |position| {
        let leaf = parts[to_usize(position[0])];
        let inputs = vec![Input::Part(leaves.clone(), leaf.whole(columns))];
        let bytes = bytes_of(number, &[leaf.least, columns]);
        let work = move |arguments: &[Argument<'_, 'e>]| {
            with_field!(number, T => {
                let data = arguments[0].data()?;
                let r = leaf.factors(data.elements::<T>()?, columns).r();
                matrix_block(r, [leaf.least, columns].map(to_usize))
            })
        };
        Ok(Recipe::new("r", inputs, bytes, work))
    })
}

/// The `q` of a leaf, times what is above it if there is anything.
fn q(
    number: Number,
    arguments: &[Argument<'_, '_>],
    leaf: Leaf,
    columns: u64,
) -> Result<Block, ComputeError> {
    with_field!(number, T => {
        let (own, above) = (arguments[0].data()?, arguments.get(1).map(Argument::data));
        let above = above.transpose()?;
        let above = above.as_ref().map(|above| above.elements::<T>()).transpose()?;
        let [rows, least, columns_here] = [leaf.rows, leaf.least, columns].map(to_usize);
        let above = above.map(|above| Matrix::new(above, least, columns_here));
        let product = leaf.factors(own.elements::<T>()?, columns).q_times(above);
        matrix_block(product, [rows, columns_here])
    })
}

/// The decomposition of a square matrix in memory as one block: `u`, the values, `vt`.
fn decomposed<'e>(r: &Blocked<'e>, number: Number, side: u64) -> Result<Blocked<'e>, ComputeError> {
    let shape = [2 * side + 1, side];
    let r = r.clone();
    Blocked::from_tasks(&shape, number, &shape, move |_| {
        let input = Input::Part(r.clone(), whole(r.shape()));
        let work = move |arguments: &[Argument<'_, 'e>]| {
            with_field!(number, T => {
                let data = arguments[0].data()?;
                decomposed_block::<T>(data.elements::<T>()?, to_usize(side))
            })
        };
        let scratch = factor_scratch(2 * side * side, number.itemsize() as u64);
        Ok(Recipe::new("svd", vec![input], bytes_of(number, &shape), work).with_scratch(scratch))
    })
}

fn decomposed_block<T: Field>(r: &[T], side: usize) -> Result<Block, ComputeError> {
    let why = "it does not converge; the matrix has values that are not finite";
    let failed = || ComputeError::Value { operation: "svd", why };
    let found = dense::svd(Matrix::new(r, side, side)).ok_or_else(failed)?;
    let mut all = found.u;
    all.extend(found.values.iter().map(dense::from_real::<T>));
    all.extend_from_slice(&found.vt);
    matrix_block(all, [2 * side + 1, side])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_cover_all_rows_and_only_the_last_may_be_low() {
        for (rows, columns, leaf) in [(10, 3, 4), (9, 4, 4), (4, 4, 4), (8, 2, 8)] {
            let parts = Leaf::all(Number::F64, rows, columns, leaf);
            assert_eq!(parts.iter().map(|part| part.rows).sum::<u64>(), rows);
            let low = parts.iter().filter(|part| part.least < columns).count();
            assert!(low <= 1, "{parts:?}");
        }
    }

    #[test]
    fn several_leaves_give_one_q_and_one_r() {
        // The last leaf has as many rows as the others, fewer, and fewer than columns; there is one
        // stack, and a stack of a stack.
        for rows in [16, 48, 45, 35, 400, 307] {
            let position = |(row, column): (usize, usize)| (row * 4 + column) as u64;
            let a = ndarray::Array2::from_shape_fn((rows, 4), |at| deviate(5, position(at)));
            let tall = Tall::in_leaves(&Blocked::from_memory(&a).unwrap(), 16).unwrap();
            let options = crate::compute::RunOptions::default();
            let whole = |part: Blocked<'_>| {
                let found = part.compute::<f64>(&options).unwrap();
                found.into_dimensionality::<ndarray::Ix2>().unwrap()
            };
            let (q, r) = (whole(tall.q(None).unwrap()), whole(tall.r().unwrap()));
            let far = |one: ndarray::Array2<f64>, other: &ndarray::Array2<f64>| {
                (one - other).iter().fold(0.0_f64, |far, value| far.max(value.abs()))
            };
            assert!(far(q.dot(&r), &a) < 1e-12, "{rows}");
            assert!(far(q.t().dot(&q), &ndarray::Array2::eye(4)) < 1e-12, "{rows}");
        }
    }

    #[test]
    fn a_matrix_of_any_height_is_factored_within_the_memory_of_some_leaves() {
        let directory = tempfile::tempdir().unwrap();
        let budget = 64 << 10;
        let options = crate::compute::RunOptions {
            memory_bytes: Some(budget),
            spill: Some(directory.path().to_path_buf()),
            ..Default::default()
        };
        let a = normal(20_000, 4, 5, Number::F64).unwrap();
        let tall = Tall::in_leaves(&a, 64).unwrap();
        let (q, report) = tall.q(None).unwrap().compute_reported(&options).unwrap();
        assert!(report.peak_with_scratch_bytes <= budget && report.bytes_spilled > 2 * budget);
        let q = q.into_array::<f64>().unwrap().into_dimensionality::<ndarray::Ix2>().unwrap();
        let far = q.t().dot(&q) - ndarray::Array2::<f64>::eye(4);
        assert!(far.iter().all(|far| far.abs() < 1e-12));
    }

    #[test]
    fn deviates_have_mean_zero_and_variance_one() {
        let all: Vec<f64> = (0..10_000).map(|at| deviate(3, at)).collect();
        let mean = all.iter().sum::<f64>() / 1e4;
        let variance = all.iter().map(|value| value * value).sum::<f64>() / 1e4;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
