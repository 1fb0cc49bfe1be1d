//! Norms of vectors and matrices.

use super::{as_field, matrix_shape, refused, svd};
use crate::compute::node::Blocked;
use crate::compute::reduce::Axes;
use crate::compute::trouble::ComputeError;

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// The root of the sum of squares of all elements: NumPy's default.
    Frobenius,
    /// The greatest size of an element; of a matrix the greatest sum of sizes in a row.
    Infinity,
    /// The sum of sizes; of a matrix the greatest sum of sizes in a column.
    One,
    /// The root of the sum of squares; of a matrix its greatest singular value.
    Two,
}

/// The norm of a vector or a matrix, an array without axes.
///
/// # Errors
///
/// [`ComputeError::Argument`] if there are more than two axes, unless it is
/// [`Norm::Frobenius`].
pub fn norm<'e>(a: &Blocked<'e>, order: Norm) -> Result<Blocked<'e>, ComputeError> {
    let is_vector = a.ndim() == 1;
    if order == Norm::Frobenius || (is_vector && order == Norm::Two) {
        // The real parts of z * conj(z) cannot overflow earlier than the sum of squares does.
        return sizes(a)?.square()?.sum(Axes::all())?.sqrt();
    }
    if is_vector {
        let sizes = sizes(a)?;
        return if order == Norm::One { sizes.sum(Axes::all()) } else { sizes.max(Axes::all()) };
    }
    if a.ndim() != 2 {
        return Err(refused("norm", a, "it is neither a vector nor a matrix"));
    }
    matrix_shape("norm", a)?;
    match order {
        Norm::One => sizes(a)?.sum(0)?.max(Axes::all()),
        Norm::Infinity => sizes(a)?.sum(1)?.max(Axes::all()),
        _ => svd(a)?.1.max(Axes::all()),
    }
}

/// The size of each element, as a float.
fn sizes<'e>(a: &Blocked<'e>) -> Result<Blocked<'e>, ComputeError> {
    // Before the size is taken: the least of whole numbers has none of its type.
    as_field(a)?.absolute()
}
