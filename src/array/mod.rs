//! The meaning of bytes: shapes, indexing, layouts.
//!
//! ```text
//! [1000, 3], C order          -> shape    how many there are, how far apart
//! A[10:20, ..., -1]           -> index    a Selection: shape, strides, offset in bytes
//! Selection                   -> layout   runs of bytes to copy
//! ```
//!
//! The files here are pure: they know nothing of stores, mappings and transactions, and read
//! nothing but what they are given.
//!
//! # Invariants
//!
//! 1. NumPy is the reference: strides and indexing equal NumPy's,
//!    checked against it by `tests/it/numpy_pure.rs`. Where a file differs it says so.
//! 2. Input of any kind gives a result or an error in bounded time and memory, never a panic.
//!
//! # Failure
//!
//! One error type per question: [`ShapeError`], [`IndexError`].

pub mod index;
pub mod layout;
pub mod shape;

pub use index::{Index, IndexError, Selection};
pub use layout::{ByteRun, Copies, Copy};
pub use shape::{Order, ShapeError};
