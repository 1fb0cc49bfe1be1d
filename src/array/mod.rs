//! The meaning of bytes: data types, shapes, indexing, layouts.
//!
//! ```text
//! "<f8", [("x", "<i4"), ...]  -> dtype    how long an element is and what it holds
//! [1000, 3], C order          -> shape    how many there are, how far apart
//! A[10:20, ..., -1]           -> index    a Selection: shape, strides, offset in bytes
//! Selection                   -> layout   runs of bytes to copy
//! Selection + memory          -> cast     ndarray views of elements
//! dtype, order, shape        <-> npy      the header of a .npy file
//! ```
//!
//! The files here are pure: they know nothing of stores, mappings and transactions, and read
//! nothing but what they are given.
//!
//! # Invariants
//!
//! 1. NumPy is the reference: dtype strings, strides, indexing and .npy headers equal NumPy's,
//!    checked against it by `tests/it/numpy_pure.rs`. Where a file differs it says so.
//! 2. Input of any kind gives a result or an error in bounded time and memory, never a panic.
//!
//! # Failure
//!
//! One error type per question: [`DtypeError`], [`ShapeError`], [`IndexError`], [`CastError`],
//! [`NpyError`].

#[expect(unsafe_code, reason = "seeing bytes as elements is what this file is for")]
pub mod cast;
mod codec;
mod convert;
mod descr;
mod descriptor;
pub mod dtype;
mod dynamic;
pub mod element;
mod error;
pub mod index;
pub mod layout;
mod linear;
mod literal;
pub mod npy;
mod options;
mod rounds;
mod scalar;
pub mod shape;
mod shared;
mod typed;
mod undo;
#[expect(unsafe_code, reason = "lends mapped memory, which only the kernel knows")]
mod view;

pub use cast::{CastError, structured, structured_mut};
pub use descriptor::Descriptor;
pub use dtype::{ByteOrder, Dtype, DtypeError, Field, FieldPath, Kind};
pub use dynamic::{DynArray, NewRows};
pub use element::{Bool, Bytes, Element};
pub use error::ArrayError;
pub use index::{Index, IndexError, Selection};
pub use layout::{ByteRun, Copies, CopyRun};
pub use literal::LiteralError;
pub use npy::{Header, NpyError};
pub use options::ArrayOptions;
pub use shape::{Order, ShapeError};
pub use shared::SharedArray;
pub use typed::{Indices, ZBigArray};
pub use undo::UndoError;
