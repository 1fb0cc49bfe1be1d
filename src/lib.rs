//! Arrays larger than RAM, in memory, committed atomically.
//!
//! A [`Store`] is a directory that holds many n-dimensional arrays. A program begins a
//! [`Transaction`], sees every array as ordinary memory (an [`ndarray::ArrayView`] over pages that
//! the kernel loads on first touch and evicts when memory is short), changes them by writing to
//! that memory, and commits all changes at once or drops them.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("signals.zba");
//! use ndarray::{Array2, Ix2};
//! use zbigarray::{CreateOptions, Store};
//!
//! let store = Store::create(&path, CreateOptions::default())?;
//!
//! let transaction = store.begin()?;
//! let mut t2m = transaction.create::<f32, Ix2>("climate/t2m", &[0, 1440])?;
//! t2m.append(&Array2::from_elem((24, 1440), 280.0))?; // cost: the rows, not the array
//! t2m.view_mut()?[[3, 7]] = 300.0; // an ordinary store to memory
//! drop(t2m);
//! let first = transaction.commit()?; // all of it, durable, or none of it
//!
//! let transaction = store.begin()?;
//! transaction.open::<f32, Ix2>("climate/t2m")?.set("..., ::2", 0.0)?;
//! transaction.abort(); // as if it had not been
//!
//! let then = store.at(first)?; // any commit that was not packed away
//! let t2m = then.open::<f32, Ix2>("climate/t2m")?;
//! assert_eq!(t2m.view()?[[3, 7]], 300.0);
//! # Ok(()) }
//! ```
//!
//! What can be relied on is in `docs/guarantees.md`, why it holds in `docs/design.md`.
//!
//! # Errors and panics
//!
//! Nothing that a file, a disk or a caller's argument can do makes this library panic. Each layer
//! has its error; [`Error`] wraps them all.

#![deny(unsafe_code)]

pub mod array;
#[cfg(feature = "compute")]
pub mod compute;
mod error;
// The two lowest layers are public for the rigs and benchmarks of this repository only: they rely
// on promises that the layers above keep, and may change in any version.
#[doc(hidden)]
pub mod storage;
mod sync;
pub mod txn;
pub mod units;
#[doc(hidden)]
pub mod vm;

pub use array::{ArrayError, ArrayOptions, Dtype, DynArray, Element, Index, Order, ZBigArray};
pub use error::Error;
pub use txn::{
    AppendedRows, Codec, CommitError, Conflict, CreateOptions, Keep, OpenOptions, Savepoint, Store,
    Transaction, TransactionError,
};
pub use units::Tid;
