//! Systems of equations: `cholesky`, `solve_triangular`, `solve`.
//!
//! ```text
//! L00                     block (i, j): what is left of A(i, j) after the products of the blocks
//! L10 L11                 before it in rows i and j, then the factor of the diagonal block, or
//! L20 L21 L22             the solution of its triangle
//! ```
//!
//! A block needs blocks of its own row and of one row above only, which come before it in C order.

use super::general::solved;
use super::with_field;
use super::{as_field, bytes_of, matrix_block, matrix_shape, ordered, refused, region};
use crate::compute::block::{Block, Data};
use crate::compute::dense::{self, Field, Matrix};
use crate::compute::node::{BLOCK_BYTES, Blocked};
use crate::compute::number::Number;
use crate::compute::recipe::{Argument, Input, Recipe};
use crate::compute::region::{Grid, to_usize};
use crate::compute::trouble::ComputeError;

pub use dense::Triangle;

/// Most blocks along one side: each one needs all that are beside it.
const BLOCKS_MAX: u64 = 200;

/// What is known of a matrix whose system is solved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Assume {
    /// Nothing. It is factored by panels of columns.
    General,
    /// It is its own conjugate transpose and positive definite. It is factored by blocks.
    Positive,
}

/// The lower triangle whose product with its conjugate transpose is `a`, of which only the lower
/// triangle is looked at.
///
/// # Errors
///
/// [`ComputeError::Argument`] if `a` is not square. That it is not positive definite is found when
/// it is computed.
pub fn cholesky<'e>(a: &Blocked<'e>) -> Result<Blocked<'e>, ComputeError> {
    let side = square("cholesky", a)?;
    let a = as_field(a)?;
    let number = a.number();
    let block = block_side(&a, number);
    let grid = Grid::new(&[side, side], &[block, block]);
    Blocked::from_tasks(&[side, side], number, &[block, block], move |position| {
        let [i, j] = [position[0], position[1]];
        let own = grid.region(position);
        let bytes = bytes_of(number, &own.len);
        if i < j {
            let lens = own.lens();
            let count = lens.iter().product();
            let work = move |_: &[Argument<'_, 'e>]| Block::new(&lens, Data::zeros(number, count));
            return Ok(Recipe::new("zeros", Vec::new(), bytes, work));
        }
        let mut inputs = vec![Input::Part(a.clone(), own.clone())];
        for k in 0..j {
            inputs.push(Input::Earlier(vec![i, k]));
            if i > j {
                inputs.push(Input::Earlier(vec![j, k]));
            }
        }
        if i > j {
            inputs.push(Input::Earlier(vec![j, j]));
        }
        let lens = own.lens();
        let work = move |arguments: &[Argument<'_, 'e>]| {
            with_field!(number, T => match i == j {
                true => diagonal::<T>(arguments, [lens[0], lens[1]]),
                false => below::<T>(arguments, [lens[0], lens[1]]),
            })
        };
        Ok(Recipe::new("cholesky", inputs, bytes, work).with_scratch(2 * bytes))
    })
}

/// The block on the diagonal.
fn diagonal<T: Field>(
    arguments: &[Argument<'_, '_>],
    [rows, columns]: [usize; 2],
) -> Result<Block, ComputeError> {
    let mut left = arguments[0].data()?.into_elements::<T>()?.into_owned();
    for argument in &arguments[1..] {
        take_product(argument, argument, rows, columns, &mut left)?;
    }
    let why = "the matrix is not positive definite";
    let lower = dense::cholesky(Matrix::new(&left, rows, columns));
    let lower = lower.ok_or(ComputeError::Value { operation: "cholesky", why })?;
    matrix_block(lower, [rows, columns])
}

/// A block below the diagonal.
fn below<T: Field>(
    arguments: &[Argument<'_, '_>],
    [rows, columns]: [usize; 2],
) -> Result<Block, ComputeError> {
    let mut left = arguments[0].data()?.into_elements::<T>()?.into_owned();
    let (last, pairs) = arguments[1..].split_last().ok_or(NO_DIAGONAL)?;
    for pair in pairs.chunks(2) {
        take_product(&pair[0], &pair[1], rows, columns, &mut left)?;
    }
    let triangle = conjugated(last.data()?.elements::<T>()?);
    let triangle = Matrix::new(&triangle, columns, columns);
    dense::solve_triangle_by_rows(Triangle::Lower, triangle, &mut left);
    matrix_block(left, [rows, columns])
}

const NO_DIAGONAL: ComputeError = ComputeError::Mistake("a block without its diagonal");

/// Takes `a` times the conjugate transpose of `b` from `left`.
fn take_product<T: Field>(
    a: &Argument<'_, '_>,
    b: &Argument<'_, '_>,
    rows: usize,
    columns: usize,
    left: &mut [T],
) -> Result<(), ComputeError> {
    let (a, b) = (a.data()?, b.data()?);
    let (a, b) = (a.elements::<T>()?, conjugated(b.elements::<T>()?));
    let k = a.len() / rows.max(1);
    let b = Matrix::new(&b, columns, k).transposed();
    dense::multiply_subtract(Matrix::new(a, rows, k), b, left);
    Ok(())
}

fn conjugated<T: Field>(elements: &[T]) -> Vec<T> {
    elements.iter().map(T::conj_impl).collect()
}

/// The solution `x` of `triangle(a) x = b`; the other triangle of `a` is not looked at.
///
/// `b` is a vector or a matrix.
///
/// # Errors
///
/// [`ComputeError::Argument`] if `a` is not square or `b` has other rows.
pub fn solve_triangular<'e>(
    a: &Blocked<'e>,
    b: &Blocked<'e>,
    triangle: Triangle,
) -> Result<Blocked<'e>, ComputeError> {
    let operation = "solve_triangular";
    let side = square(operation, a)?;
    require_rows(operation, b, side)?;
    let number = as_field(a)?.number().with(as_field(b)?.number());
    let (a, b) = (a.astype(number)?, b.astype(number)?);
    let rows = block_side(&a, number);
    let mut shape = b.shape().to_vec();
    let mut block = shape.clone();
    let columns = (BLOCK_BYTES / bytes_of(number, &[rows])).max(1);
    block[0] = rows;
    if let Some(width) = block.get_mut(1) {
        *width = columns.min(*width).max(1);
    }
    let grid = Grid::new(&shape, &block);
    let count = side.div_ceil(rows);
    // From below, solutions come in the order of the last rows first; and blocks are counted from
    // the front, so the first of them is the one that may be short.
    shape[0] = count * rows;
    let is_lower = triangle == Triangle::Lower;
    let solved = Blocked::from_tasks(&shape, number, &block, {
        let grid = grid.clone();
        move |position| {
            let i = if is_lower { position[0] } else { count - 1 - position[0] };
            let mut place = position.to_vec();
            place[0] = i;
            let own = grid.region(&place);
            let diagonal = region([own.start[0], own.start[0]], [own.len[0], own.len[0]]);
            let mut inputs =
                vec![Input::Part(b.clone(), own.clone()), Input::Part(a.clone(), diagonal)];
            for before in 0..position[0] {
                let k = if is_lower { before } else { count - 1 - before };
                let mut solved = position.to_vec();
                solved[0] = before;
                let height = rows.min(side - k * rows);
                let beside = region([own.start[0], k * rows], [own.len[0], height]);
                inputs.push(Input::Part(a.clone(), beside));
                inputs.push(Input::Earlier(solved));
            }
            let mut lens = own.lens();
            let height = lens[0];
            lens[0] = to_usize(rows);
            let work = move |arguments: &[Argument<'_, 'e>]| {
                with_field!(number, T => {
                    solved_block::<T>(arguments, triangle, height, &lens)
                })
            };
            let bytes = bytes_of(number, &[rows, own.len.get(1).copied().unwrap_or(1)]);
            let scratch = bytes + bytes_of(number, &[rows, rows]);
            Ok(Recipe::new(operation, inputs, bytes, work).with_scratch(scratch))
        }
    })?;
    in_order(&solved, &grid, rows, is_lower)
}

/// What was solved in the order of `is_lower`, padded to whole blocks, as it is.
fn in_order<'e>(
    solved: &Blocked<'e>,
    grid: &Grid,
    rows: u64,
    is_lower: bool,
) -> Result<Blocked<'e>, ComputeError> {
    let (number, solved) = (solved.number(), solved.clone());
    let (shape, block) = (grid.shape.clone(), grid.block.clone());
    let count = shape[0].div_ceil(rows);
    let grid = grid.clone();
    Blocked::from_tasks(&shape, number, &block, move |position| {
        let mut own = grid.region(position);
        let lens = own.lens();
        own.start[0] = if is_lower { position[0] } else { count - 1 - position[0] } * rows;
        let bytes = bytes_of(number, &own.len);
        let work = move |arguments: &[Argument<'_, 'e>]| {
            Block::new(&lens, arguments[0].data()?.into_owned())
        };
        Ok(Recipe::new("rows in order", vec![Input::Part(solved.clone(), own)], bytes, work))
    })
}

/// Rows `height` of a solution, and zeros behind them up to `lens`.
fn solved_block<T: Field>(
    arguments: &[Argument<'_, '_>],
    triangle: Triangle,
    height: usize,
    lens: &[usize],
) -> Result<Block, ComputeError> {
    let columns = lens.get(1).copied().unwrap_or(1);
    let mut left = arguments[0].data()?.into_elements::<T>()?.into_owned();
    for pair in arguments[2..].chunks(2) {
        let (beside, before) = (pair[0].data()?, pair[1].data()?);
        let (beside, before) = (beside.elements::<T>()?, before.elements::<T>()?);
        let k = beside.len() / height.max(1);
        // What stands behind the solution of a short block is padding.
        let before = Matrix::new(&before[..k * columns], k, columns);
        dense::multiply_subtract(Matrix::new(beside, height, k), before, &mut left);
    }
    let diagonal = arguments[1].data()?;
    let diagonal = diagonal.elements::<T>()?;
    if (0..height).any(|at| diagonal[at * height + at] == T::default()) {
        let why = "the triangle is singular";
        return Err(ComputeError::Value { operation: "solve_triangular", why });
    }
    let diagonal = Matrix::new(diagonal, height, height);
    dense::solve_triangle(triangle, diagonal, &mut left, columns);
    left.resize(lens.iter().product(), T::default());
    Block::new(lens, Data::owned(left))
}

/// The solution `x` of `a x = b`, where `b` is a vector or a matrix.
///
/// # Errors
///
/// [`ComputeError::Argument`] if `a` is not square or `b` has other rows. A matrix that is
/// singular, or not positive definite though that was assumed, is an error when it is computed.
pub fn solve<'e>(
    a: &Blocked<'e>,
    b: &Blocked<'e>,
    assume: Assume,
) -> Result<Blocked<'e>, ComputeError> {
    let side = square("solve", a)?;
    require_rows("solve", b, side)?;
    if assume == Assume::Positive {
        let lower = cholesky(a)?;
        let upper = ordered(&lower, &[1, 0])?.conjugate()?;
        let half = solve_triangular(&lower, b, Triangle::Lower)?;
        return solve_triangular(&upper, &half, Triangle::Upper);
    }
    let number = as_field(a)?.number().with(as_field(b)?.number());
    let (a, b) = (a.astype(number)?, b.astype(number)?);
    solved(&a, &b, number)
}

fn square(operation: &'static str, a: &Blocked<'_>) -> Result<u64, ComputeError> {
    match matrix_shape(operation, a)? {
        [rows, columns] if rows == columns => Ok(rows),
        _ => Err(refused(operation, a, "it is not square")),
    }
}

fn require_rows(operation: &'static str, b: &Blocked<'_>, rows: u64) -> Result<(), ComputeError> {
    match b.shape() {
        [len] | [len, _] if *len == rows => Ok(()),
        _ => Err(refused(operation, b, format!("the matrix has {rows} rows"))),
    }
}

/// Rows of a square block: as many elements as a block of the matrix has.
fn block_side(a: &Blocked<'_>, number: Number) -> u64 {
    let (side, elements) = (a.shape()[0], a.block_shape().iter().product::<u64>());
    let most = BLOCK_BYTES / number.itemsize() as u64;
    elements.min(most).isqrt().max(side.div_ceil(BLOCKS_MAX)).min(side).max(1)
}
