//! A whole store in one small program: what Miri interprets, and an ordinary test elsewhere.
//!
//! Under Miri memory is the allocator's and files are copied there (`src/vm/sys/fake.rs`), so that
//! every view is checked for initialised memory, alignment, provenance and aliasing.

#![deny(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::Arc;
use std::thread;

use ndarray::{Array1, Ix1, Ix2};
use zbigarray::storage::backend::Backend;
use zbigarray::storage::backend::simulated::Simulated;
use zbigarray::storage::local::{LocalEngine, LocalOptions, Mode};
use zbigarray::{CommitError, Keep, Store, Transaction};

const PER_PAGE: usize = 512;

fn limits() -> LocalOptions {
    LocalOptions { block_bytes: 64 << 10, data_file_pages: 256, ..LocalOptions::default() }
}

fn store(disk: &Simulated) -> Store {
    let backend: Arc<dyn Backend> = Arc::new(disk.clone());
    Store::open_on(&backend, Mode::ReadWrite, &limits()).unwrap()
}

fn new_store() -> (Simulated, Store) {
    let disk = Simulated::new().unwrap();
    let backend: Arc<dyn Backend> = Arc::new(disk.clone());
    LocalEngine::create(&backend, &limits()).unwrap();
    let store = store(&disk);
    (disk, store)
}

/// The shortest story with every part of the protocol; `cargo xtask miri` interprets it in minutes.
#[test]
fn what_was_committed_is_read_and_what_was_aborted_is_not_also_after_opening_again() {
    let (disk, store) = new_store();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<i64, Ix1>("a", &[PER_PAGE as u64]).unwrap();
    array.view_mut().unwrap()[3] = 1;
    drop(array);
    let first = transaction.commit().unwrap();

    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<i64, Ix1>("a").unwrap();
    array.view_mut().unwrap()[3] = -1;
    assert_eq!(array.view().unwrap()[3], -1);
    drop(array);
    transaction.abort();

    let snapshot = store.begin_read().unwrap();
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<i64, Ix1>("a").unwrap();
    assert_eq!(array.view().unwrap()[3], 1);
    array.view_mut().unwrap()[4] = 2;
    drop(array);
    transaction.commit().unwrap();

    let elements = |transaction: &Transaction| {
        let array = transaction.open::<i64, Ix1>("a").unwrap();
        let view = array.view().unwrap();
        (view[3], view[4])
    };
    assert_eq!(elements(&snapshot), (1, 0));
    drop((snapshot, store));
    let store = self::store(&disk);
    assert_eq!(elements(&store.at(first).unwrap()), (1, 0));
    assert_eq!(elements(&store.begin_read().unwrap()), (1, 2));
}

#[test]
fn views_of_one_transaction_follow_each_other() {
    let (_disk, store) = new_store();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<i64, Ix2>("a", &[3, PER_PAGE as u64]).unwrap();
    {
        let mut view = array.view_mut().unwrap();
        view.row_mut(1).fill(7);
        view[[2, 5]] = 9;
    }
    let view = array.view().unwrap();
    let again = array.view().unwrap();
    assert_eq!((view[[1, 0]], again[[2, 5]], view[[0, 0]]), (7, 9, 0));
    let reversed = array.get("::-1, ::2").unwrap();
    assert_eq!(reversed[[1, 3]], 7);
    array.get_mut("0:2, 4").unwrap().fill(1);
    assert_eq!(array.view().unwrap()[[1, 4]], 1);
    let shared = array.share();
    let (all, part) = (shared.get("...").unwrap(), shared.get("2, ::-1").unwrap());
    part[[0]].set(5);
    all[[2, 0]].set(6);
    assert_eq!((all[[2, PER_PAGE - 1]].get(), part[[PER_PAGE - 1]].get()), (5, 6));
    drop((all, part));
    drop(shared);
    drop(array);
    transaction.commit().unwrap();
    let read = store.begin_read().unwrap();
    assert_eq!(read.open::<i64, Ix2>("a").unwrap().view().unwrap()[[2, 0]], 6);
}

#[test]
fn commit_abort_savepoint_growth_and_old_commits_show_what_they_should() {
    let (disk, store) = new_store();
    let mut transaction = store.begin().unwrap();
    let mut array = transaction.create::<i64, Ix1>("a", &[PER_PAGE as u64]).unwrap();
    array.view_mut().unwrap().fill(1);
    drop(array);
    let savepoint = transaction.savepoint().unwrap();
    let mut array = transaction.open::<i64, Ix1>("a").unwrap();
    array.append(&Array1::from_elem(PER_PAGE + 3, 2)).unwrap();
    array.view_mut().unwrap()[0] = 3;
    drop(array);
    transaction.rollback(savepoint).unwrap();
    let array = transaction.open::<i64, Ix1>("a").unwrap();
    assert_eq!((array.view().unwrap().len(), array.view().unwrap()[0]), (PER_PAGE, 1));
    drop(array);
    let first = transaction.commit().unwrap();

    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<i64, Ix1>("a").unwrap();
    array.append(&Array1::from_elem(20 * PER_PAGE, 4)).unwrap();
    array.resize(&[2 * PER_PAGE as u64]).unwrap();
    array.rows_mut(0..1).unwrap()[0] = 5;
    drop(array);
    let second = transaction.commit().unwrap();

    let transaction = store.begin().unwrap();
    transaction.open::<i64, Ix1>("a").unwrap().view_mut().unwrap().fill(-1);
    transaction.abort();

    let sums = |store: &Store| {
        let sum = |tid| {
            let then = store.at(tid).unwrap();
            then.open::<i64, Ix1>("a").unwrap().view().unwrap().sum()
        };
        (sum(first), sum(second))
    };
    let per_page = PER_PAGE as i64;
    assert_eq!(sums(&store), (per_page, 5 * per_page + 4));
    drop(store);
    assert_eq!(sums(&self::store(&disk)), (per_page, 5 * per_page + 4));
}

#[test]
fn a_snapshot_stays_what_it_is_while_others_commit_undo_and_pack() {
    let (_disk, store) = new_store();
    let transaction = store.begin().unwrap();
    drop(transaction.create::<i64, Ix1>("a", &[20 * PER_PAGE as u64]).unwrap());
    transaction.commit().unwrap();
    let write = |value: i64| {
        let transaction = store.begin().unwrap();
        transaction.open::<i64, Ix1>("a").unwrap().view_mut().unwrap().fill(value);
        transaction.commit().unwrap()
    };
    write(1);
    let snapshot = store.begin_read().unwrap();
    let array = snapshot.open::<i64, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    let last = write(2);
    store.undo(last).unwrap();
    store.pack(Keep::Head).unwrap();
    write(3);
    store.checkpoint().unwrap();
    write(4);
    assert!(view.iter().all(|&element| element == 1));
}

#[test]
fn threads_that_write_different_pages_both_commit() {
    let (_disk, store) = new_store();
    let transaction = store.begin().unwrap();
    drop(transaction.create::<i64, Ix1>("a", &[4 * PER_PAGE as u64]).unwrap());
    transaction.commit().unwrap();
    thread::scope(|scope| {
        for page in 0..2u64 {
            let store = &store;
            scope.spawn(move || {
                for value in 1..3 {
                    let transaction = store.begin().unwrap();
                    let mut array = transaction.open::<i64, Ix1>("a").unwrap();
                    let rows = page * PER_PAGE as u64..(page + 1) * PER_PAGE as u64;
                    array.rows_mut(rows).unwrap().fill(value);
                    drop(array);
                    match transaction.commit() {
                        Ok(_) => {}
                        Err(CommitError::Conflict(conflict)) => panic!("{conflict}"),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let read = store.begin_read().unwrap();
    let array = read.open::<i64, Ix1>("a").unwrap();
    assert_eq!(array.view().unwrap().sum(), 2 * 2 * PER_PAGE as i64);
}
