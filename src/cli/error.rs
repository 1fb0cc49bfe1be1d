//! Why a command did not do what it was asked, and the exit code that says so.
//!
//! ```text
//! 0 done   1 error   2 wrong usage   3 conflict with another commit   4 damage   130 Ctrl-C
//! ```
//!
//! # Invariants
//!
//! 1. A message is one sentence: what, where, and what to do if there is something to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use thiserror::Error as ThisError;
use zbigarray::array::{DtypeError, IndexError, ShapeError, UndoError};
use zbigarray::compute::{ComputeError, RunError};
use zbigarray::txn::{CatalogError, StorageError};
use zbigarray::vm::MapError;
use zbigarray::{ArrayError, CommitError, TransactionError};

/// Why a command failed.
#[derive(Debug, ThisError)]
pub(crate) enum Error {
    /// The arguments make no sense together, or one of them none at all.
    #[error("{0}")]
    Usage(String),
    /// The command cannot be done; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// There is no store where one was expected.
    #[error("{0}; `zba create {path}` makes one", path = .1.display())]
    NoStore(StorageError, PathBuf),
    /// A file outside of the store.
    #[error("cannot {action} {file}: {source}", source = plain(source))]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file, or `standard input`.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Nobody reads standard output any more.
    #[error("standard output was closed")]
    OutputClosed,
    /// Ctrl-C.
    #[error("interrupted; nothing was changed")]
    Interrupted,
    /// What was read is damaged.
    #[error("{0}")]
    Damage(String),
    /// The store.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store.
    #[error(transparent)]
    Array(#[from] ArrayError),
}

impl Error {
    /// An error of a file outside of the store.
    pub(crate) fn io(action: &'static str, file: &Path, source: io::Error) -> Self {
        Self::Io { action, file: file.display().to_string(), source }
    }

    /// An error of standard output; a closed one is no error of ours.
    pub(crate) fn output(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::Io { action: "write to", file: "standard output".to_owned(), source }
    }

    /// The code the program ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let storage = match self {
            Self::Commit(CommitError::NotCommitted(TransactionError::Data { .. }))
            | Self::Array(ArrayError::Transaction(TransactionError::Data { .. })) => {
                return ExitCode::from(4);
            }
            Self::OutputClosed => return ExitCode::SUCCESS,
            Self::Usage(_) => return ExitCode::from(2),
            Self::Damage(_) => return ExitCode::from(4),
            Self::Interrupted => return ExitCode::from(130),
            Self::Commit(CommitError::Conflict(_)) => return ExitCode::from(3),
            Self::Commit(CommitError::NotCommitted(TransactionError::Storage(error)))
            | Self::Commit(CommitError::Unknown { source: error, .. })
            | Self::Array(ArrayError::Transaction(TransactionError::Storage(error)))
            | Self::NoStore(error, _) => error,
            Self::Array(ArrayError::BlockSize { .. }) => return ExitCode::from(2),
            Self::Array(ArrayError::Descriptor { .. }) => return ExitCode::from(4),
            _ => return ExitCode::FAILURE,
        };
        match storage {
            StorageError::BlockSize { .. } => ExitCode::from(2),
            StorageError::Corrupted { .. } | StorageError::Checksum { .. } => ExitCode::from(4),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Errors that reach us through the array layer's own wrapper.
macro_rules! from_lower {
    ($($lower:ty),*) => {$(
        impl From<$lower> for Error {
            fn from(error: $lower) -> Self {
                Self::Array(error.into())
            }
        }
    )*};
}
from_lower!(TransactionError, StorageError, CatalogError, ShapeError, IndexError, DtypeError);

impl From<UndoError> for Error {
    fn from(error: UndoError) -> Self {
        match error {
            UndoError::Array(error) => error.into(),
            UndoError::Commit(error) => error.into(),
            error => Self::Refused(error.to_string()),
        }
    }
}

/// What a task met is told as if it had been met here: the task is no concern of who computes.
impl From<ComputeError> for Error {
    fn from(error: ComputeError) -> Self {
        match error {
            ComputeError::Array(error) => error.into(),
            ComputeError::Run(RunError::Cancelled) => Self::Interrupted,
            ComputeError::Run(RunError::Task { cause, .. } | RunError::Sink { cause, .. }) => cause
                .downcast::<ComputeError>()
                .map(|error| (*error).into())
                .or_else(|cause| cause.downcast::<ArrayError>().map(|error| (*error).into()))
                .unwrap_or_else(|cause| Self::Refused(cause.to_string())),
            error => Self::Refused(error.to_string()),
        }
    }
}

impl From<MapError> for Error {
    fn from(error: MapError) -> Self {
        TransactionError::from(error).into()
    }
}

/// The system's message without the number behind it.
fn plain(error: &io::Error) -> impl fmt::Display {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}
