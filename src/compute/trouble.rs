//! Why an expression cannot be made or computed.

use thiserror::Error;

use super::node::{DEPTH_MAX, STEPS_MAX};
use super::number::Number;
use super::run::RunError;
use crate::array::{ArrayError, Dtype, IndexError, ShapeError};

/// Why an expression cannot be made, or its computation failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ComputeError {
    /// Operands whose shapes cannot be stretched to one.
    #[error("{operation}: operands of shapes {left:?} and {right:?} cannot be broadcast together")]
    Broadcast {
        /// Name of the operation.
        operation: &'static str,
        /// Shape of one operand.
        left: Vec<u64>,
        /// Shape of the other.
        right: Vec<u64>,
    },
    /// An operation that is not defined for numbers of this type.
    #[error("{operation} is not defined for {number}")]
    Unsupported {
        /// Name of the operation.
        operation: &'static str,
        /// Type of the operands, as they meet.
        number: Number,
    },
    /// An axis that is not there.
    #[error("{operation}: axis {axis} is out of range for an array of shape {shape:?}")]
    Axis {
        /// Name of the operation.
        operation: &'static str,
        /// The axis as given.
        axis: i64,
        /// Shape of the operand.
        shape: Vec<u64>,
    },
    /// An axis named twice.
    #[error("{operation}: axis {axis} is named twice")]
    AxisTwice {
        /// Name of the operation.
        operation: &'static str,
        /// The axis.
        axis: i64,
    },
    /// A reduction without a value for no elements.
    #[error("{operation} of no elements has no value (shape {shape:?})")]
    NoElements {
        /// Name of the operation.
        operation: &'static str,
        /// Shape of the operand.
        shape: Vec<u64>,
    },
    /// A number that does not fit the type of the array it meets.
    #[error("{value} does not fit {number}")]
    OutOfBounds {
        /// The number.
        value: i128,
        /// The type.
        number: Number,
    },
    /// A shape or argument that does not fit the operand.
    #[error("{operation} of an array of shape {shape:?}: {why}")]
    Argument {
        /// Name of the operation.
        operation: &'static str,
        /// Shape of the operand.
        shape: Vec<u64>,
        /// What is wrong.
        why: String,
    },
    /// A value for which the operation is not defined.
    #[error("{operation}: {why}")]
    Value {
        /// Name of the operation.
        operation: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// Elements that are no numbers.
    #[error("expressions compute with numbers; elements of {dtype} are none")]
    NotNumbers {
        /// Type of the elements.
        dtype: Dtype,
    },
    /// Elements of another type than asked for.
    #[error("the elements are {given}, not {wanted}")]
    Type {
        /// As they are.
        given: Number,
        /// As asked for.
        wanted: Number,
    },
    /// A block with more or fewer elements than its shape says.
    #[error("{given} elements are not an array of shape {shape:?}")]
    Elements {
        /// The shape.
        shape: Vec<u64>,
        /// The elements given.
        given: u64,
    },
    /// The target of a result has another shape.
    #[error("a result of shape {given:?} does not fit an array of shape {wanted:?}")]
    Target {
        /// Shape of the result.
        given: Vec<u64>,
        /// Shape of the array.
        wanted: Vec<u64>,
    },
    /// More elements than memory can have.
    #[error("{operation}: shape {shape:?} is larger than memory can be")]
    TooLarge {
        /// Name of the operation.
        operation: &'static str,
        /// The shape.
        shape: Vec<u64>,
    },
    /// Indexing.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Shapes.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// An array that is read or written.
    #[error(transparent)]
    Array(#[from] ArrayError),
    /// The run of the tasks.
    #[error(transparent)]
    Run(#[from] RunError),
    /// An expression of too many steps.
    #[error(
        "an expression is more than {DEPTH_MAX} steps deep, or {STEPS_MAX} with sums and the like \
         between them; store what it gives so far"
    )]
    TooDeep,
    /// Something that only a mistake of this library makes.
    #[error("{0} (a mistake of this library)")]
    Mistake(&'static str),
}
