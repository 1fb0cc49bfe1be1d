//! Products and linear algebra of blocked arrays.
//!
//! ```text
//! product   A[batch.., m.., k..] B[batch.., k.., n..] -> one task for each block of the result
//! tall      rows cut into leaves, each factored alone; what is left of them is factored once more
//! solving   blocks of a triangle, each from those above it and to its left
//! general   panels of columns, each after the elimination of those before it
//! ```
//!
//! # Invariants
//!
//! 1. How work is cut and in which order sums are taken follows from shapes and types only, so that
//!    results are the same for any number of threads.
//! 2. A kernel runs on the thread of its task.
//!
//! # Failure
//!
//! Shapes that do not fit are a [`ComputeError`] when the expression is made; a matrix without the
//! factorization is one when it is computed.

mod general;
mod norm;
mod product;
mod solving;
mod tall;
#[cfg(test)]
mod tests;

pub use norm::{Norm, norm};
pub use product::{dot, matmul, outer, tensordot};
pub use solving::{Assume, Triangle, cholesky, solve, solve_triangular};
pub use tall::{qr, svd, svd_compressed, tsqr};

use super::block::{Block, Data, Numeric};
use super::node::Blocked;
use super::number::Number;
use super::region::{Region, to_i64};
use super::trouble::ComputeError;
use super::view::Along;

/// Calls `$body` with `$type` as the Rust type of a float or a complex number.
macro_rules! with_field {
    ($number:expr, $type:ident => $body:expr) => {{
        use $crate::compute::number::Number;
        match $number {
            Number::F32 => {
                type $type = f32;
                $body
            }
            Number::C64 => {
                type $type = num_complex::Complex<f32>;
                $body
            }
            Number::C128 => {
                type $type = num_complex::Complex<f64>;
                $body
            }
            _ => {
                type $type = f64;
                $body
            }
        }
    }};
}
use with_field;

/// The operand in the type that factors are computed in: a float or a complex number.
fn as_field<'e>(a: &Blocked<'e>) -> Result<Blocked<'e>, ComputeError> {
    let number = a.number();
    let number = if number.is_float() || number.is_complex() { number } else { Number::F64 };
    a.astype(number)
}

/// Rows and columns of a matrix.
fn matrix_shape(operation: &'static str, a: &Blocked<'_>) -> Result<[u64; 2], ComputeError> {
    match *a.shape() {
        [rows, columns] => Ok([rows, columns]),
        _ => Err(refused(operation, a, "it is no matrix: it needs two axes")),
    }
}

/// The error of an operand whose shape does not fit.
fn refused(operation: &'static str, a: &Blocked<'_>, why: impl Into<String>) -> ComputeError {
    ComputeError::Argument { operation, shape: a.shape().to_vec(), why: why.into() }
}

/// The axes of `a` in another order; `order` names them as NumPy's `transpose` does.
fn ordered<'e>(a: &Blocked<'e>, order: &[usize]) -> Result<Blocked<'e>, ComputeError> {
    let order: Vec<i64> = order.iter().map(|&axis| to_i64(axis as u64)).collect();
    a.transpose(&order)
}

/// What `region` of `a` shows, as an array.
fn part<'e>(a: &Blocked<'e>, region: &Region) -> Result<Blocked<'e>, ComputeError> {
    let step = |(axis, &start): (usize, &u64)| Along::Step { axis, start, step: 1 };
    a.viewed(region.start.iter().enumerate().map(step).collect(), &region.len)
}

/// All positions of an array of `shape`.
fn whole(shape: &[u64]) -> Region {
    Region { start: vec![0; shape.len()], len: shape.to_vec() }
}

/// Positions `start..start + len` of a matrix.
fn region(start: [u64; 2], len: [u64; 2]) -> Region {
    Region { start: start.to_vec(), len: len.to_vec() }
}

/// A matrix in memory as a block.
fn matrix_block<T: Numeric>(
    elements: Vec<T>,
    [rows, columns]: [usize; 2],
) -> Result<Block, ComputeError> {
    Block::new(&[rows, columns], Data::owned(elements))
}

/// Bytes of so many elements.
fn bytes_of(number: Number, counts: &[u64]) -> u64 {
    counts.iter().fold(number.itemsize() as u64, |bytes, &count| bytes.saturating_mul(count))
}
