//! The engine under the tests that are the same for all engines: here sled.

use std::path::{Path, PathBuf};

use zbigarray::units::BLOCK_BYTES_MIN;
use zbigarray::{CreateOptions, OpenOptions, Store};

use crate::model::world::Maker;

/// Cases of the model unless somebody says otherwise.
pub(crate) const CASES: u32 = 12;

/// What opens the store in this directory.
pub(crate) fn address(directory: &Path) -> PathBuf {
    let mut address = std::ffi::OsString::from("sled:");
    address.push(directory);
    PathBuf::from(address)
}

struct Small(PathBuf);

impl Maker for Small {
    fn create(&self) {
        let mut options = CreateOptions::default();
        options.block_bytes = BLOCK_BYTES_MIN;
        drop(Store::create(&self.0, options).unwrap());
    }

    fn open(&self) -> Store {
        Store::open(&self.0, OpenOptions::default()).unwrap()
    }
}

/// A store with small blocks.
pub(crate) fn maker(directory: &Path) -> Box<dyn Maker> {
    Box::new(Small(address(directory)))
}

/// The same store: it can be open once only.
pub(crate) fn again(store: &Store, _: &Path) -> Store {
    store.clone()
}

/// Whether a test of what only the local engine does has nothing to do.
pub(crate) fn lacks(what: &str) -> bool {
    println!("not run: the sled engine has no {what}");
    true
}
