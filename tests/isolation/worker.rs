//! A worker on a real store: random transactions on cells, each written down.
//!
//! ```text
//! array "cells"   | vvvvvv 24 pages vvvvvv | v .................... | v ....... | ...
//!                   cell 0, wide             cell 1                   cell 2      cell 3, wide
//! ```
//!
//! A cell is read before it is written, so that the checker knows what was written over. Every
//! third is wide: more than travels inside a record, so that its value goes to a data file; it is
//! read at both ends, which must agree.
//!
//! # Failure
//!
//! What a store may say, conflicts and an unknown end, is recorded; anything else panics.

use std::path::Path;

use ndarray::Ix1;
use zbigarray::{CommitError, Store, Tid, Transaction, ZBigArray};

use super::dice::Dice;
use super::history::{Key, Logged, Value};
use super::recorder::Recorder;

/// The array that holds the cells.
pub(crate) const NAME: &str = "cells";
/// Elements of a page.
const PAGE: u64 = 512;
/// Pages from one cell to the next.
const PAGES: u64 = 24;
/// Elements from one cell to the next.
const APART: u64 = PAGES * PAGE;

/// Makes the cells; nothing is in them.
pub(crate) fn create(store: &Store, cells: u64) -> Tid {
    let transaction = store.begin().unwrap();
    drop(transaction.create::<u64, Ix1>(NAME, &[cells * APART]).unwrap());
    transaction.commit_with_note("cells").unwrap()
}

type Cells<'t> = ZBigArray<'t, u64, Ix1>;

/// The pages of a cell that hold its value.
fn pages(key: Key) -> u64 {
    if key.is_multiple_of(3) { PAGES } else { 1 }
}

fn get(cells: &Cells<'_>, key: Key, page: u64) -> Value {
    let at = key * APART + page * PAGE;
    cells.rows(at..at + 1).unwrap()[0]
}

fn set(cells: &mut Cells<'_>, key: Key, value: Value) {
    let mut cell = cells.rows_mut(key * APART..(key + 1) * APART).unwrap();
    for page in 0..pages(key) {
        cell[usize::try_from(page * PAGE).unwrap()] = value;
    }
}

/// Runs transactions.
pub(crate) struct Worker {
    store: Store,
    recorder: Recorder,
    dice: Dice,
    cells: u64,
}

impl Worker {
    /// Worker `process` (above 0, nobody else's) on an open store, recording in `directory`.
    pub(crate) fn new(store: Store, directory: &Path, process: u32, seed: u64, cells: u64) -> Self {
        let recorder = Recorder::new(directory, process).unwrap();
        let dice = Dice::new(&[seed, u64::from(process)]);
        Self { store, recorder, dice, cells }
    }

    /// One transaction; says whether a commit was acknowledged.
    pub(crate) fn turn(&mut self) -> bool {
        let writes = !self.dice.once_in(4);
        self.recorder.begin();
        let began = if writes { self.store.begin() } else { self.store.begin_read() };
        let transaction = began.unwrap();
        self.recorder.begun(transaction.base().0);
        let wrote = self.steps(&transaction, writes);
        if self.dice.once_in(10) {
            self.recorder.abort();
            transaction.abort();
            return false;
        }
        if !wrote {
            drop(transaction);
            self.recorder.nothing();
            return false;
        }
        let note = self.recorder.note();
        self.recorder.commit();
        match transaction.commit_with_note(&note) {
            Ok(tid) => {
                self.recorder.committed(tid.0);
                true
            }
            Err(CommitError::Conflict(_)) => {
                self.recorder.refused();
                false
            }
            // Without an answer it stays unknown.
            Err(CommitError::Unknown { .. }) => false,
            Err(error) => {
                self.recorder.refused();
                panic!("{error}");
            }
        }
    }

    fn steps(&mut self, transaction: &Transaction, writes: bool) -> bool {
        let mut cells = transaction.open::<u64, Ix1>(NAME).unwrap();
        let mut wrote = false;
        for _ in 0..1 + self.dice.below(5) {
            let key = self.dice.below(self.cells);
            self.recorder.read(key, get(&cells, key, 0));
            if pages(key) > 1 {
                self.recorder.read(key, get(&cells, key, pages(key) - 1));
            }
            if writes && self.dice.once_in(2) {
                let value = self.recorder.fresh();
                self.recorder.write(key, value);
                set(&mut cells, key, value);
                wrote = true;
            }
            std::thread::yield_now();
        }
        wrote
    }
}

/// What the log holds after commit `after`; commits with other notes are not ours.
pub(crate) fn logged(store: &Store, after: Tid) -> Vec<Logged> {
    let records = store.records(after, store.head()).unwrap();
    let ours = records.iter().filter_map(|record| {
        let (process, number) = record.note.split_once(' ')?;
        let (process, number) = (process.parse().ok()?, number.parse().ok()?);
        Some(Logged { tid: record.tid.0, process, number })
    });
    ours.collect()
}
