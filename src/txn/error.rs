//! What can go wrong in a transaction, and the three ways a commit ends other than well.

use thiserror::Error;

use super::conflict::Conflict;
use crate::storage::StorageError;
use crate::storage::catalog::CatalogError;
use crate::storage::record::NOTE_BYTES_MAX;
use crate::units::Tid;
use crate::vm::MapError;

/// Why a step of a transaction failed. Nothing was committed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// Bytes on disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Memory or addresses.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Names and metadata.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Stored bytes of an array are not what was committed, or cannot be read.
    #[error("array `{array}` is damaged in block {block}, byte {byte}: {source}")]
    Data {
        /// The array.
        array: String,
        /// The block concerned.
        block: u64,
        /// The first byte of the array concerned.
        byte: u64,
        /// What is wrong.
        source: Box<TransactionError>,
    },
    /// The transaction reads only: it looks at an older commit, or was begun so.
    #[error("this transaction only reads; begin a writing one to change arrays")]
    ReadOnly,
    /// An earlier step failed half way, so the private state is not what the program believes.
    #[error("an earlier step of this transaction failed half way; abort it and begin again")]
    Poisoned,
    /// The process forked since `begin`; only the parent may go on.
    #[error("this transaction belongs to the parent process; open the store again after fork")]
    Forked,
    /// A handle of that array is alive already.
    #[error("array `{name}` is open already in this transaction; drop its other handle first")]
    AlreadyOpen {
        /// The array.
        name: String,
    },
    /// Nothing in the kept history has that time.
    #[error("the store has no commit at or before that time")]
    NoCommitThen,
    /// A change that is more than metadata.
    #[error("arrays are created and resized through their handles")]
    NeedsHandle,
    /// A removed array does not come back by undoing.
    #[error("commit {tid} removed an array; copy it from the commit before instead")]
    CannotUndo {
        /// The commit.
        tid: Tid,
    },
    /// The note for the log is too long.
    #[error("the note has {bytes} bytes; a commit takes {NOTE_BYTES_MAX}")]
    NoteTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A savepoint of another transaction, or one that a rollback undid.
    #[error("that savepoint is not one of this transaction any more")]
    NoSavepoint,
}

/// Why a commit did not happen, or may not have happened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Another transaction committed the same pages or names first. Nothing was written; begin
    /// again.
    #[error("conflict: {0}; nothing was committed, begin again")]
    Conflict(Conflict),
    /// A step before the commit point failed. Nothing was committed.
    #[error("nothing was committed: {0}")]
    NotCommitted(#[from] TransactionError),
    /// The commit point itself failed half way. The commit is applied fully or not at all, but
    /// which of the two is known only after the store has been reopened.
    #[error("commit {tid} may or may not have happened: {source}; reopen the store to know")]
    Unknown {
        /// The transaction id the commit has if it happened.
        tid: Tid,
        /// What failed.
        source: StorageError,
    },
}
