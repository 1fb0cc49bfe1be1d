//! The engine under the tests that are the same for all engines: here the local one.
//!
//! `tests/sled` has a file of the same name, and the same tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zbigarray::storage::backend::{Backend, Directory};
use zbigarray::{OpenOptions, Store};

use crate::model::world::Maker;

/// Cases of the model unless somebody says otherwise.
pub(crate) const CASES: u32 = 64;

/// What opens the store in this directory.
pub(crate) fn address(directory: &Path) -> PathBuf {
    directory.to_owned()
}

/// A store with limits so small that each of them is met.
pub(crate) fn maker(directory: &Path) -> Box<dyn Maker> {
    let backend: Arc<dyn Backend> = Arc::new(Directory::new(directory));
    Box::new(backend)
}

/// The same store, opened once more.
pub(crate) fn again(_: &Store, directory: &Path) -> Store {
    Store::open(directory, OpenOptions::default()).unwrap()
}

/// Whether a test of what only the local engine does has nothing to do.
pub(crate) fn lacks(_what: &str) -> bool {
    false
}
