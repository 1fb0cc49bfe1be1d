//! Who sees what: snapshots, private changes, conflicts, commit and abort.
//!
//! ```text
//!            base state (immutable)           head state
//! begin  ->  | array pages ... |              | ... |
//!               ^ mapped copy-on-write            ^ append record under the commit lock
//!            private pages --- write out ---> fresh extents
//! ```
//!
//! # The commit protocol
//!
//! 1. Find the pages that were written (the kernel knows) and write them to fresh extents, or keep
//!    them aside if they are few enough to travel inside the record.
//! 2. Make the extents durable.
//! 3. Take the commit lock, which all processes share, and read what the others appended.
//! 4. Compare the write set with every record since the base: the first committer wins. Where only
//!    appends met, move our rows behind theirs and begin again at step 1.
//! 5. Append the record and release the lock.
//! 6. Make the log durable, together with all who wait for the same: the commit point.
//! 7. Publish the new head, and map the new extents over the private pages.
//!
//! # Invariants
//!
//! 1. A transaction sees its base state and its own changes, nothing else (snapshot isolation).
//! 2. No private page reaches an extent that a record names before its record is appended.
//! 3. Space that was allocated and is named by no record is given back when the transaction ends.
//! 4. A session that returns to the pool has no private pages left: every mapped page shows the
//!    content its state says.
//! 5. Pages are re-mapped only while nobody can hold a view of them.
//!
//! # Failure
//!
//! A commit is refused (conflict), did not happen (any error before step 5), or is unknown (steps 5
//! or 6 failed half way); see [`CommitError`].

mod address;
mod append;
mod checked;
mod commit;
mod conflict;
mod error;
mod gather;
mod loader;
mod options;
mod pack;
#[cfg(feature = "compute")]
mod scratch;
mod session;
mod snapshot;
mod store;
mod transaction;
mod undo;
mod working;
mod write_out;
mod write_set;

pub use address::directory_of;
pub use append::AppendedRows;
pub(crate) use append::Rows;
pub use conflict::Conflict;
pub use error::{CommitError, TransactionError};
pub use options::{CreateOptions, OpenOptions};
pub use pack::{Keep, PackSummary};
#[cfg(feature = "compute")]
pub use scratch::MappedScratch;
#[cfg(feature = "compute")]
pub(crate) use scratch::{ScratchFile, ScratchPlace};
pub use session::HoleContent;
#[doc(hidden)]
pub use store::map_words;
pub use store::{Follow, Store};
pub use transaction::{Savepoint, Transaction};
pub use undo::Undo;

#[cfg(feature = "compute")]
pub(crate) use crate::vm::processors;

pub use crate::storage::catalog::{
    ArrayEntry, Attributes, Catalog, CatalogChange, CatalogError, Node, Owner, check_name,
};
pub use crate::storage::check::{Damage, Report};
pub use crate::storage::encoding::{Codec, Filter, Method, NoCodec};
pub use crate::storage::engine::{Member, Usage};
pub use crate::storage::extent::{Segment, Source};
pub use crate::storage::record::Record;
pub use crate::storage::{StorageError, catalog};
