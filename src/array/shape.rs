//! Shapes: how many elements, how many bytes, how far apart, and what growth makes of them.
//!
//! ```text
//! shape [3, 4], itemsize 8      C order: strides [32, 8], major axis 0 (rows are contiguous)
//!                               F order: strides [8, 24], major axis 1 (columns are contiguous)
//! growth along the major axis moves no byte: the new rows are new bytes at the end
//! ```
//!
//! # Invariants
//!
//! 1. A shape that [`nbytes`] accepts has at most [`NDIM_MAX`] axes, and every byte offset, stride
//!    and element count derived from it fits `u64`. As in NumPy this holds for empty shapes too:
//!    an axis of length 0 counts as 1 when the limit is checked.
//! 2. Nothing here wraps: what does not fit is an error, or saturates where the name says so.
//!
//! # Failure
//!
//! Every refusal is a [`ShapeError`] that names the axis; nothing is changed.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Largest number of axes of an array.
pub const NDIM_MAX: usize = 32;

/// Which end of the shape varies fastest in the linear bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Order {
    /// The last axis varies fastest; the array grows along the first.
    #[default]
    C,
    /// The first axis varies fastest (Fortran); the array grows along the last.
    F,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::C => "C",
            Self::F => "F",
        })
    }
}

/// Why a shape cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// A length below zero.
    #[error("axis {axis} has the negative length {len}; lengths start at 0")]
    Negative {
        /// The axis, from 0.
        axis: usize,
        /// The length given.
        len: i128,
    },
    /// More axes than [`NDIM_MAX`].
    #[error("a shape of {ndim} axes is above the limit of {NDIM_MAX}")]
    TooManyAxes {
        /// The number of axes asked for.
        ndim: usize,
    },
    /// The bytes do not fit `u64`; an axis of length 0 counts as 1.
    #[error("shape {shape:?} with {itemsize} bytes per element exceeds 2^64 - 1 bytes")]
    TooLarge {
        /// The shape asked for.
        shape: Vec<u64>,
        /// Bytes per element.
        itemsize: u64,
    },
    /// A 0-dimensional array has no length and nothing to append to.
    #[error("an array without axes has no length and cannot be appended to; resize it first")]
    NoMajorAxis,
    /// Rows to append have another number of axes than the array.
    #[error(
        "the rows to append have {rows} axes, the array has {array}; give them the same number"
    )]
    RowsNdim {
        /// Axes of the array.
        array: usize,
        /// Axes of the rows.
        rows: usize,
    },
    /// Rows to append differ from the array on an axis that does not grow.
    #[error("axis {axis} of the rows to append has length {rows}, that of the array {array}")]
    RowsShape {
        /// The axis that differs.
        axis: usize,
        /// Its length in the array.
        array: u64,
        /// Its length in the rows.
        rows: u64,
    },
}

/// Number of elements of `shape`; 1 for no axes. Saturates at `u128::MAX`, which no shape that
/// [`nbytes`] accepts comes near.
#[must_use]
pub fn size(shape: &[u64]) -> u128 {
    if shape.contains(&0) {
        return 0;
    }
    shape.iter().fold(1, |size: u128, &len| size.saturating_mul(u128::from(len)))
}

/// Number of bytes of an array of `shape` with `itemsize` bytes per element.
///
/// # Errors
///
/// [`ShapeError::TooManyAxes`], and [`ShapeError::TooLarge`] if the bytes do not fit `u64`, axes
/// of length 0 counted as 1 (invariant 1).
pub fn nbytes(shape: &[u64], itemsize: u64) -> Result<u64, ShapeError> {
    if shape.len() > NDIM_MAX {
        return Err(ShapeError::TooManyAxes { ndim: shape.len() });
    }
    let full = shape.iter().try_fold(itemsize, |bytes, &len| bytes.checked_mul(len.max(1)));
    match full {
        Some(_) if shape.contains(&0) => Ok(0),
        Some(bytes) => Ok(bytes),
        None => Err(ShapeError::TooLarge { shape: shape.to_vec(), itemsize }),
    }
}

/// Distance in bytes between neighbours on each axis, equal to NumPy's for an array over a buffer
/// (an axis of length 0 counts as 1). Saturates for shapes that [`nbytes`] refuses.
#[must_use]
pub fn strides(shape: &[u64], itemsize: u64, order: Order) -> Vec<u64> {
    let mut strides = vec![itemsize; shape.len()];
    let mut stride = itemsize;
    let mut place = |axis: usize| {
        strides[axis] = stride;
        stride = stride.saturating_mul(shape[axis].max(1));
    };
    match order {
        Order::C => (0..shape.len()).rev().for_each(&mut place),
        Order::F => (0..shape.len()).for_each(&mut place),
    }
    strides
}

/// The axis of the largest stride, along which an array grows; `None` without axes.
#[must_use]
pub fn major_axis(ndim: usize, order: Order) -> Option<usize> {
    match order {
        _ if ndim == 0 => None,
        Order::C => Some(0),
        Order::F => Some(ndim - 1),
    }
}

/// Length of the major axis: the first for C order, the *last* for F order (NumPy's `len` takes
/// the first in both; an array that grows is counted along the axis it grows on).
///
/// # Errors
///
/// [`ShapeError::NoMajorAxis`] without axes.
pub fn len(shape: &[u64], order: Order) -> Result<u64, ShapeError> {
    major_axis(shape.len(), order).map(|axis| shape[axis]).ok_or(ShapeError::NoMajorAxis)
}

/// The shape after rows of shape `rows` were appended along the major axis.
///
/// `rows` has as many axes as `shape` and equal lengths on all but the major axis. No rows
/// (length 0 there) give back `shape`. Whether the result's bytes fit is [`nbytes`]'s question.
///
/// # Errors
///
/// [`ShapeError::NoMajorAxis`], [`ShapeError::RowsNdim`], [`ShapeError::RowsShape`], and
/// [`ShapeError::TooLarge`] if the major axis would not fit `u64`.
pub fn appended(shape: &[u64], order: Order, rows: &[u64]) -> Result<Vec<u64>, ShapeError> {
    if rows.len() != shape.len() {
        return Err(ShapeError::RowsNdim { array: shape.len(), rows: rows.len() });
    }
    let major = major_axis(shape.len(), order).ok_or(ShapeError::NoMajorAxis)?;
    for (axis, (&array, &rows)) in shape.iter().zip(rows).enumerate() {
        if axis != major && array != rows {
            return Err(ShapeError::RowsShape { axis, array, rows });
        }
    }
    let mut grown = shape.to_vec();
    grown[major] = shape[major]
        .checked_add(rows[major])
        .ok_or_else(|| ShapeError::TooLarge { shape: shape.to_vec(), itemsize: 1 })?;
    Ok(grown)
}

/// A shape from signed lengths, as other languages hold them.
///
/// # Errors
///
/// [`ShapeError::Negative`] naming the first such axis, [`ShapeError::TooManyAxes`].
pub fn from_signed(lengths: &[i64]) -> Result<Vec<u64>, ShapeError> {
    if lengths.len() > NDIM_MAX {
        return Err(ShapeError::TooManyAxes { ndim: lengths.len() });
    }
    let checked = lengths.iter().enumerate().map(|(axis, &len)| {
        u64::try_from(len).map_err(|_| ShapeError::Negative { axis, len: i128::from(len) })
    });
    checked.collect()
}

/// The same shape with `rows` more along the major axis.
pub(super) fn longer(shape: &[u64], order: Order, rows: u64) -> Vec<u64> {
    let mut longer = shape.to_vec();
    if let Some(axis) = major_axis(shape.len(), order) {
        longer[axis] = longer[axis].saturating_add(rows);
    }
    longer
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn w007_c_order_strides_fall_and_len_is_the_first_axis() {
        assert_eq!(strides(&[10, 3], 4, Order::C), [12, 4]);
        assert_eq!(len(&[10, 3], Order::C), Ok(10));
    }

    #[test]
    fn w008_f_order_strides_rise_and_len_is_the_last_axis() {
        assert_eq!(strides(&[10, 3], 4, Order::F), [4, 40]);
        assert_eq!(len(&[10, 3], Order::F), Ok(3));
    }

    #[test]
    fn w011_size_is_exact_beyond_2_to_the_63() {
        assert_eq!(size(&[1 << 40, 1 << 40]), 1 << 80);
        assert_eq!(size(&[u64::MAX, 0]), 0);
        assert_eq!(size(&[]), 1);
    }

    #[test]
    fn an_array_without_axes_has_one_element_and_no_len() {
        assert_eq!(nbytes(&[], 8), Ok(8));
        assert_eq!(len(&[], Order::C), Err(ShapeError::NoMajorAxis));
        assert_eq!(appended(&[], Order::C, &[]), Err(ShapeError::NoMajorAxis));
    }

    #[test]
    fn nbytes_accepts_up_to_2_to_the_64_minus_1_and_not_one_more() {
        assert_eq!(nbytes(&[u64::MAX], 1), Ok(u64::MAX));
        assert!(matches!(nbytes(&[1 << 63], 2), Err(ShapeError::TooLarge { .. })));
        assert!(matches!(nbytes(&[0, 1 << 40, 1 << 40], 1), Err(ShapeError::TooLarge { .. })));
        assert_eq!(nbytes(&[1; 33], 1), Err(ShapeError::TooManyAxes { ndim: 33 }));
    }

    #[test]
    fn w044_append_grows_the_first_axis_in_c_order() {
        assert_eq!(appended(&[0, 3, 2], Order::C, &[2, 3, 2]), Ok(vec![2, 3, 2]));
        assert_eq!(appended(&[2, 3, 2], Order::C, &[1, 3, 2]), Ok(vec![3, 3, 2]));
    }

    #[test]
    fn w045_append_grows_the_last_axis_in_f_order() {
        assert_eq!(appended(&[2, 3, 0], Order::F, &[2, 3, 5]), Ok(vec![2, 3, 5]));
    }

    #[test]
    fn w046_append_of_another_number_of_axes_is_refused() {
        let refused = appended(&[4, 3], Order::C, &[3]);
        assert_eq!(refused, Err(ShapeError::RowsNdim { array: 2, rows: 1 }));
    }

    #[test]
    fn w047_append_of_another_minor_shape_is_refused() {
        let refused = appended(&[4, 3], Order::C, &[1, 2]);
        assert_eq!(refused, Err(ShapeError::RowsShape { axis: 1, array: 3, rows: 2 }));
        let refused = appended(&[4, 3], Order::F, &[3, 1]);
        assert_eq!(refused, Err(ShapeError::RowsShape { axis: 0, array: 4, rows: 3 }));
    }

    #[test]
    fn x12_append_of_no_rows_changes_nothing() {
        assert_eq!(appended(&[4, 3], Order::C, &[0, 3]), Ok(vec![4, 3]));
    }

    #[test]
    fn append_past_2_to_the_64_is_refused() {
        let refused = appended(&[u64::MAX], Order::C, &[1]);
        assert!(matches!(refused, Err(ShapeError::TooLarge { .. })));
    }

    #[test]
    fn x22_negative_lengths_are_refused() {
        let refused = from_signed(&[2, -1]);
        assert_eq!(refused, Err(ShapeError::Negative { axis: 1, len: -1 }));
        assert_eq!(from_signed(&[2, 0]), Ok(vec![2, 0]));
    }

    proptest! {
        #[test]
        fn strides_and_sizes_equal_ndarray_s(
            shape in prop::collection::vec(1u64..6, 0..5), fortran in any::<bool>(),
        ) {
            use ndarray::{ArrayD, IxDyn, ShapeBuilder};
            let order = if fortran { Order::F } else { Order::C };
            let dims: Vec<usize> = shape.iter().map(|&len| usize::try_from(len).unwrap()).collect();
            let array = ArrayD::<u32>::zeros(IxDyn(&dims).set_f(fortran));
            prop_assert_eq!(size(&shape), array.len() as u128);
            prop_assert_eq!(nbytes(&shape, 4), Ok(array.len() as u64 * 4));
            let theirs: Vec<u64> =
                array.strides().iter().map(|s| u64::try_from(s * 4).unwrap()).collect();
            prop_assert_eq!(strides(&shape, 4, order), theirs);
        }
    }
}
