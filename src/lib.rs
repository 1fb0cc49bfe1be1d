//! Arrays larger than RAM, in memory, committed atomically.

#![deny(unsafe_code)]

pub mod array;
pub mod storage;
pub mod txn;
pub mod units;
pub mod vm;

pub use array::{ArrayError, ArrayOptions, Dtype, DynArray, Element, Index, Order, ZBigArray};
pub use txn::{CreateOptions, OpenOptions, Savepoint, Store, Transaction};
