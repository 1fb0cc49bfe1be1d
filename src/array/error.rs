//! What can go wrong with an array.

use thiserror::Error;

use super::cast::CastError;
use super::dtype::DtypeError;
use super::index::IndexError;
use super::shape::ShapeError;
use crate::txn::TransactionError;

/// Why an operation on an array failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ArrayError {
    /// Element types.
    #[error(transparent)]
    Dtype(#[from] DtypeError),
    /// Shapes.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Indexing.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Seeing bytes as elements.
    #[error(transparent)]
    Cast(#[from] CastError),
    /// The transaction or what lies below it.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// The name stands for nothing.
    #[error("there is no array `{name}`")]
    NotFound {
        /// Name.
        name: String,
    },
    /// The name stands for a group.
    #[error("`{name}` is a group, not an array")]
    IsGroup {
        /// Name.
        name: String,
    },
    /// The array has another number of axes than its typed handle.
    #[error("array `{name}` has {found} axes, not {expected}")]
    Dimensions {
        /// Name.
        name: String,
        /// As the handle's type says.
        expected: usize,
        /// As the array has.
        found: usize,
    },
    /// The buffer and the selection have different sizes.
    #[error("the selection has {expected} bytes, the buffer {given}")]
    BufferSize {
        /// Of the selection.
        expected: u64,
        /// Of the buffer.
        given: usize,
    },
    /// Bytes that the array has not.
    #[error("{len} bytes from byte {at} do not fit an array of {nbytes} bytes")]
    BeyondEnd {
        /// Where they should begin.
        at: u64,
        /// How many.
        len: usize,
        /// Bytes of the array.
        nbytes: u64,
    },
    /// Values whose shape cannot be stretched to the selection's.
    #[error("values of shape {given:?} do not fit a selection of shape {expected:?}")]
    Broadcast {
        /// Of the selection.
        expected: Vec<u64>,
        /// Of the values.
        given: Vec<usize>,
    },
    /// A fill value that cannot be.
    #[error("the fill value cannot be used: {why}")]
    Fill {
        /// Reason.
        why: String,
    },
    /// A block size that cannot be.
    #[error("{bytes} bytes are no block size; it is a power of two from 64 KiB to 1 GiB")]
    BlockSize {
        /// As given.
        bytes: u64,
    },
    /// Metadata on the disk that are not an array's.
    #[error("the array's metadata are damaged: {why}")]
    Descriptor {
        /// Reason.
        why: String,
    },
    /// An attribute that is not JSON.
    #[error("attribute `{key}` is not JSON: {why}")]
    Attribute {
        /// Key.
        key: String,
        /// Reason.
        why: String,
    },
}

impl From<crate::txn::CatalogError> for ArrayError {
    fn from(error: crate::txn::CatalogError) -> Self {
        Self::Transaction(error.into())
    }
}

impl From<crate::vm::MapError> for ArrayError {
    fn from(error: crate::vm::MapError) -> Self {
        Self::Transaction(error.into())
    }
}

impl From<crate::txn::StorageError> for ArrayError {
    fn from(error: crate::txn::StorageError) -> Self {
        Self::Transaction(error.into())
    }
}
