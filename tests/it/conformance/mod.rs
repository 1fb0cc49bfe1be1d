//! What wendelin.core promises its users, as tests of this crate: one test, one fact.
//!
//! The numbers W-nnn and X-nn are those of `docs/conformance.md`, which says for each fact which
//! test proves it, or why it does not apply. In the words of these tests: a *connection* is a
//! transaction, a *boundary* is commit or abort and then begin, and views that alias each other
//! are the cells of `share()`.
//!
//! # Invariants
//!
//! 1. What is expected comes from [`Real`], which counts elements one by one, and never from the
//!    crate's own indexing.

#![expect(
    clippy::cast_possible_truncation,
    reason = "tests count in u64 what memory counts in usize, the same on 64-bit machines"
)]

mod append;
mod connections;
mod construction;
mod cost;
mod fork;
mod gaps;
mod indexing;
mod persistence;
mod resize;
mod structured;
mod whole;

use ndarray::{ArrayD, IxDyn};
use tempfile::TempDir;
use zbigarray::{CreateOptions, Index, OpenOptions, Order, Store, Tid};

/// Bytes of a block.
const BLOCK: u64 = 2 << 20;

/// A new store in a directory of its own.
fn fresh() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store =
        Store::create(crate::engine::address(&dir.path().join("s")), CreateOptions::default())
            .unwrap();
    (dir, store)
}

/// The commit before `tid`.
fn before(tid: Tid) -> Tid {
    Tid(tid.0 - 1)
}

/// Closes the store and opens it again.
fn reopened(dir: &TempDir, store: Store) -> Store {
    drop(store);
    Store::open(crate::engine::address(&dir.path().join("s")), OpenOptions::default()).unwrap()
}

/// An ordinary array, indexed by counting.
struct Real<T> {
    shape: Vec<usize>,
    order: Order,
    /// In the order of the bytes.
    linear: Vec<T>,
}

impl<T: Copy> Real<T> {
    /// Elements `value(0)`, `value(1)`, ... in the order of the bytes.
    fn new(shape: &[usize], order: Order, value: impl Fn(usize) -> T) -> Self {
        let linear = (0..shape.iter().product()).map(value).collect();
        Self { shape: shape.to_vec(), order, linear }
    }

    fn at(&self, position: &[usize]) -> T {
        let axes: Vec<usize> = match self.order {
            Order::C => (0..self.shape.len()).collect(),
            Order::F => (0..self.shape.len()).rev().collect(),
        };
        let linear = axes.iter().fold(0, |at, &axis| at * self.shape[axis] + position[axis]);
        self.linear[linear]
    }

    /// What `indices` select, by Python's rules; `None` for an index out of range.
    fn select(&self, indices: &[Index]) -> Option<ArrayD<T>> {
        let mut indices = indices.to_vec();
        let used = indices.iter().filter(|i| !matches!(i, Index::NewAxis | Index::Ellipsis));
        let missing = vec![Index::ALL; self.shape.len() - used.count()];
        match indices.iter().position(|index| *index == Index::Ellipsis) {
            Some(at) => drop(indices.splice(at..=at, missing)),
            None => indices.extend(missing),
        }
        let (mut shape, mut axes) = (Vec::new(), Vec::new());
        let mut lens = self.shape.iter();
        for index in indices {
            if index == Index::NewAxis {
                shape.push(1);
                continue;
            }
            let positions = positions(*lens.next()?, index)?;
            if !matches!(index, Index::At(_)) {
                shape.push(positions.len());
            }
            axes.push(positions);
        }
        let mut all = vec![Vec::new()];
        for positions in &axes {
            let longer = |start: &Vec<usize>| {
                let add = |at: &usize| [&start[..], &[*at]].concat();
                positions.iter().map(add).collect::<Vec<_>>()
            };
            all = all.iter().flat_map(longer).collect();
        }
        let values = all.iter().map(|position| self.at(position)).collect();
        Some(ArrayD::from_shape_vec(IxDyn(&shape), values).unwrap())
    }
}

/// The positions on an axis of `len` elements, as Python's `range(*slice.indices(len))` has them.
fn positions(len: usize, index: Index) -> Option<Vec<usize>> {
    let len = len as i128;
    let (start, stop, step) = match index {
        Index::At(at) => {
            let at = if at < 0 { at + len } else { at };
            return (0..len).contains(&at).then(|| vec![usize::try_from(at).unwrap()]);
        }
        Index::Slice { start, stop, step } => (start, stop, step.unwrap_or(1)),
        _ => return None,
    };
    let (lowest, highest) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |end: i128| {
        let end = if end < 0 { end + len } else { end };
        end.clamp(lowest, highest)
    };
    let (first, last) = if step > 0 { (lowest, highest) } else { (highest, lowest) };
    let (mut at, stop) = (start.map_or(first, clamp), stop.map_or(last, clamp));
    let mut found = Vec::new();
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        found.push(usize::try_from(at).unwrap());
        at += step;
    }
    Some(found)
}
