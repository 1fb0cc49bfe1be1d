//! Which engine an address of a store means, and creating and opening a store by its address.
//!
//! ```text
//! signals.zba         the local engine: a directory
//! sled:signals        the sled engine: a directory
//! ./sled:signals      the local engine: the text before the colon is not the beginning
//! ```
//!
//! # Invariants
//!
//! 1. This is the only place that reads the text of an address.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::{CreateOptions, OpenOptions};
use super::store::Store;
use crate::storage::StorageError;
use crate::storage::backend::{Backend, Directory};
use crate::storage::local::{LocalEngine, LocalOptions, Mode};
use crate::storage::sled::SledEngine;

const SLED: &str = "sled:";

/// Where a store is, and of which engine.
enum Address<'a> {
    Local(&'a Path),
    Sled(PathBuf),
}

impl<'a> Address<'a> {
    fn of(path: &'a Path) -> Self {
        let text = path.as_os_str().as_encoded_bytes();
        match text.strip_prefix(SLED.as_bytes()) {
            Some(_) => {
                use std::ffi::OsStr;
                use std::os::unix::ffi::OsStrExt;
                Self::Sled(PathBuf::from(OsStr::from_bytes(&text[SLED.len()..])))
            }
            None => Self::Local(path),
        }
    }
}

impl Store {
    /// Creates a store in a directory that does not exist or is empty, and opens it.
    ///
    /// `sled:PATH` makes one of the sled engine, for one process at a time.
    ///
    /// # Errors
    ///
    /// [`StorageError::AlreadyExists`] if there is something, [`StorageError::BlockSize`],
    /// [`StorageError::NetworkFileSystem`], or the system's error.
    pub fn create(path: impl AsRef<Path>, options: CreateOptions) -> Result<Self, StorageError> {
        match Address::of(path.as_ref()) {
            Address::Local(path) => {
                let backend: Arc<dyn Backend> = Arc::new(Directory::new(path));
                let block_bytes = options.block_bytes;
                let local = LocalOptions { block_bytes, ..LocalOptions::default() };
                LocalEngine::create(&backend, &local)?;
                Self::open_on(&backend, Mode::ReadWrite, &local)
            }
            Address::Sled(path) => {
                SledEngine::create(&path, options.block_bytes)?;
                Self::open_sled(&path, Mode::ReadWrite)
            }
        }
    }

    /// Opens a store. Reads the newest checkpoint and the log after it; the cost does not depend
    /// on the amount of data.
    ///
    /// `sled:PATH` is a store of the sled engine, for one process at a time; the cost of opening it
    /// grows with what it holds.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotAStore`], [`StorageError::Corrupted`], [`StorageError::Version`],
    /// [`StorageError::NetworkFileSystem`], [`StorageError::Busy`] or [`StorageError::Locked`].
    pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self, StorageError> {
        let mode = if options.read_only { Mode::ReadOnly } else { Mode::ReadWrite };
        let store = match Address::of(path.as_ref()) {
            Address::Local(path) => {
                let backend: Arc<dyn Backend> = Arc::new(Directory::new(path));
                let local = LocalOptions { network: options.network, ..LocalOptions::default() };
                Self::open_on(&backend, mode, &local)?
            }
            Address::Sled(path) => Self::open_sled(&path, mode)?,
        };
        store.shared.adopt(&options);
        Ok(store)
    }

    fn open_sled(path: &Path, mode: Mode) -> Result<Self, StorageError> {
        let (engine, state) = SledEngine::open(path, mode)?;
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut address = std::ffi::OsString::from(SLED);
        address.push(absolute);
        let identity = (engine.uuid(), engine.block_bytes());
        Ok(Self::over(Arc::new(engine), state, PathBuf::from(address), identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_begins_so_is_of_the_sled_engine() {
        for (address, directory) in [("sled:a/b", "a/b"), ("sled:/a:b", "/a:b"), ("sled:", "")] {
            match Address::of(Path::new(address)) {
                Address::Sled(path) => assert_eq!(path, Path::new(directory)),
                Address::Local(_) => panic!("{address} is of the sled engine"),
            }
        }
        for local in ["./sled:a", "a/sled:b", "sled", "Sled:a", ""] {
            assert!(matches!(Address::of(Path::new(local)), Address::Local(_)), "{local}");
        }
    }
}
