//! One error for programs that do not care which layer failed: it only wraps.

use thiserror::Error;

use crate::array::{ArrayError, UndoError};
#[cfg(feature = "compute")]
use crate::compute::RunError;
use crate::storage::StorageError;
use crate::txn::{CommitError, TransactionError};

/// Any error of this library.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes on disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Beginning, changing, going back.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// Committing.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Arrays.
    #[error(transparent)]
    Array(#[from] ArrayError),
    /// Computing.
    #[cfg(feature = "compute")]
    #[error(transparent)]
    Run(#[from] RunError),
    /// Undoing a commit.
    #[error(transparent)]
    Undo(#[from] UndoError),
}
