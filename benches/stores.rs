//! Stores to measure: one array `a` of `f64` in blocks of 2 MiB, filled as [`plain`](super::plain)
//! says, its extents lying in order or in random order.
//!
//! # Failure
//!
//! The store's error, boxed.

#![allow(dead_code, reason = "each bench target uses the part it needs")]

use std::path::Path;

use ndarray::{ArrayView1, Ix1};
use zbigarray::{ArrayOptions, Codec, CreateOptions, OpenOptions, Store};

use crate::plain::{BLOCK_LEN, Numbers, Outcome, fill_block};

/// The name of the array.
pub(crate) const NAME: &str = "a";

/// Creates a store in `path` with the array of `blocks` blocks and returns it.
///
/// Blocks are written in order, or in random order: then neighbours in the array are far apart in
/// the data file.
pub(crate) fn filled(path: &Path, blocks: usize, scattered: bool) -> Outcome<Store> {
    filled_as(path, blocks, scattered, Codec::default())
}

/// The same, encoded.
pub(crate) fn filled_as(
    path: &Path,
    blocks: usize,
    scattered: bool,
    codec: Codec,
) -> Outcome<Store> {
    let store = Store::create(path, CreateOptions::default())?;
    let transaction = store.begin()?;
    let (shape, options) = ([(blocks * BLOCK_LEN) as u64], ArrayOptions::new().codec(codec));
    let mut array = transaction.create_with::<f64, Ix1>(NAME, &shape, &options)?;
    let mut values = vec![0.0; BLOCK_LEN];
    let order = if scattered { Numbers(7).permutation(blocks) } else { (0..blocks).collect() };
    for block in order {
        fill_block(block, &mut values);
        let start = block * BLOCK_LEN;
        let rows = format!("{start}:{}", start + BLOCK_LEN);
        array.assign(rows.as_str(), &ArrayView1::from(&values))?;
    }
    drop(array);
    transaction.commit()?;
    Ok(store)
}

/// Opens a store anew, so that nothing of an earlier transaction is mapped.
pub(crate) fn reopened(path: &Path) -> Outcome<Store> {
    Ok(Store::open(path, OpenOptions::default())?)
}

/// The sum of the array, through one view of all of it.
pub(crate) fn sum(store: &Store) -> Outcome<f64> {
    let transaction = store.begin_read()?;
    let array = transaction.open::<f64, Ix1>(NAME)?;
    let view = array.view()?;
    Ok(view.sum())
}
