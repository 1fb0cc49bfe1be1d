//! Raises an island in an elevation model: modify and abort, then modify and commit.
//!
//! Run it on any two-dimensional `int16` array of a store:
//!
//! ```sh
//! zba import s.zba relief elevation.npz:elevation
//! cargo run --release --example relief -- s.zba relief 500
//! ```
//!
//! Every element in the middle third of both axes is raised by so many metres.

use std::env;
use std::error::Error;

use ndarray::{Ix2, s};
use zbigarray::{OpenOptions, Store, Transaction};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [path, name, metres] = arguments.as_slice() else {
        return Err("usage: relief STORE ARRAY METRES".into());
    };
    let store = Store::open(path, OpenOptions::default())?;
    let metres: i16 = metres.parse()?;

    let before = checksum(&store.begin_read()?, name)?;
    let transaction = store.begin()?;
    transaction.open::<i16, Ix2>(name)?.view_mut()?.fill(0);
    transaction.abort();
    assert_eq!(checksum(&store.begin_read()?, name)?, before, "an aborted flood left no trace");

    let transaction = store.begin()?;
    let mut relief = transaction.open::<i16, Ix2>(name)?;
    let mut view = relief.view_mut()?;
    let (rows, columns) = view.dim();
    let mut middle = view.slice_mut(s![rows / 3..2 * rows / 3, columns / 3..2 * columns / 3]);
    middle.mapv_inplace(|height| height.saturating_add(metres));
    drop(relief);
    let tid = transaction.commit_with_note(&format!("raise the middle by {metres} m"))?;

    println!("commit {tid}: sum of heights {before} -> {}", checksum(&store.begin_read()?, name)?);
    Ok(())
}

fn checksum(transaction: &Transaction, name: &str) -> Result<i64, Box<dyn Error>> {
    let relief = transaction.open::<i16, Ix2>(name)?;
    Ok(relief.view()?.iter().map(|&height| i64::from(height)).sum())
}
