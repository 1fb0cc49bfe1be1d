//! Why a request fails: the number the program sees, and the sentence for the log.
//!
//! A program only gets a number. What it does not say - which block is damaged, whose commit came
//! first, which rows are not whole - goes to the log, `/.zba/log` and standard error.

use fuser::Errno;
use zbigarray::txn::{CatalogError, StorageError};
use zbigarray::{ArrayError, CommitError, TransactionError};

/// A request that is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// For the program.
    pub(crate) errno: Errno,
    /// For people, if the number does not say it all.
    pub(crate) why: Option<String>,
}

impl Refusal {
    /// With a reason for the log.
    pub(crate) fn new(errno: Errno, why: impl Into<String>) -> Self {
        Self { errno, why: Some(why.into()) }
    }

    /// The number for the program, after the reason was logged with `what` was tried.
    pub(crate) fn logged(self, what: &str) -> Errno {
        if let Some(why) = &self.why {
            log::warn!("{what}: {why}");
        }
        self.errno
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, why: None }
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        let errno = match &error {
            StorageError::NoSpace { .. } => Errno::ENOSPC,
            StorageError::ReadOnly => Errno::EROFS,
            StorageError::Forgotten { .. } | StorageError::NoCommit { .. } => Errno::ENOENT,
            StorageError::Expired { .. } | StorageError::Packed { .. } => Errno::ESTALE,
            StorageError::Busy { .. } | StorageError::Locked { .. } => Errno::EBUSY,
            StorageError::Catalog(error) => of_catalog(error),
            _ => Errno::EIO,
        };
        Self::new(errno, error.to_string())
    }
}

impl From<CatalogError> for Refusal {
    fn from(error: CatalogError) -> Self {
        Self::new(of_catalog(&error), error.to_string())
    }
}

fn of_catalog(error: &CatalogError) -> Errno {
    match error {
        CatalogError::BadName { .. } | CatalogError::IntoItself { .. } => Errno::EINVAL,
        CatalogError::Exists { .. } => Errno::EEXIST,
        CatalogError::NotFound { .. } | CatalogError::NoTag { .. } => Errno::ENOENT,
        CatalogError::ParentIsArray { .. } => Errno::ENOTDIR,
        CatalogError::NotEmpty { .. } => Errno::ENOTEMPTY,
        CatalogError::NoArray { .. } => Errno::ESTALE,
        _ => Errno::EIO,
    }
}

impl From<TransactionError> for Refusal {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            TransactionError::Catalog(error) => error.into(),
            TransactionError::ReadOnly => Self::new(Errno::EROFS, error.to_string()),
            TransactionError::NoCommitThen => Errno::ENOENT.into(),
            error => Self::new(Errno::EIO, error.to_string()),
        }
    }
}

impl From<ArrayError> for Refusal {
    fn from(error: ArrayError) -> Self {
        match error {
            ArrayError::Transaction(error) => error.into(),
            ArrayError::NotFound { .. } => Self::new(Errno::ESTALE, error.to_string()),
            ArrayError::Dtype(_) | ArrayError::Shape(_) => {
                Self::new(Errno::EINVAL, error.to_string())
            }
            error => Self::new(Errno::EIO, error.to_string()),
        }
    }
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) => Self::new(Errno::ESTALE, error.to_string()),
            CommitError::NotCommitted(error) => error.into(),
            error => Self::new(Errno::EIO, error.to_string()),
        }
    }
}
