//! Threads of one process that begin, commit, abort, look back and pack at once.
//!
//! The oracle is arithmetic: every committed transaction adds 1 to two counters, so a lost, torn or
//! doubled update shows in a sum, and every snapshot's sum is even and equal to twice its commits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use ndarray::Ix1;
use zbigarray::txn::CatalogChange;
use zbigarray::{CommitError, CreateOptions, Keep, OpenOptions, Store, Tid, Transaction};

const PER_PAGE: u64 = 512;
const COUNTERS: u64 = 24;
const WRITERS: u64 = 3;
const COMMITS_EACH: u64 = 150;

/// A counter for each page, so that transactions conflict only where they touch the same one.
fn counter(transaction: &Transaction, index: u64) -> i64 {
    let array = transaction.open::<i64, Ix1>("counters").unwrap();
    array.rows(index * PER_PAGE..index * PER_PAGE + 1).unwrap()[0]
}

fn add_one(transaction: &Transaction, index: u64) {
    let mut array = transaction.open::<i64, Ix1>("counters").unwrap();
    array.rows_mut(index * PER_PAGE..index * PER_PAGE + 1).unwrap()[0] += 1;
}

fn sum(transaction: &Transaction) -> i64 {
    (0..COUNTERS).map(|index| counter(transaction, index)).sum()
}

/// One transaction on two counters; `None` if another one was first.
fn transfer(store: &Store, random: &mut u64) -> Option<Tid> {
    let mut next = || {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*random >> 33) % COUNTERS
    };
    let (one, other) = (next(), next());
    let transaction = store.begin().unwrap();
    add_one(&transaction, one);
    if next() == 0 {
        transaction.abort();
        return None;
    }
    thread::yield_now();
    add_one(&transaction, other);
    match transaction.commit() {
        Ok(tid) => Some(tid),
        Err(CommitError::Conflict(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn no_update_of_concurrent_transactions_is_lost_torn_or_seen_early() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        Store::create(crate::engine::address(&dir.path().join("s")), CreateOptions::default())
            .unwrap();
    let transaction = store.begin().unwrap();
    drop(transaction.create::<i64, Ix1>("counters", &[COUNTERS * PER_PAGE]).unwrap());
    let created = transaction.commit().unwrap();
    let (conflicts, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|seed| {
                let (store, conflicts) = (&store, &conflicts);
                scope.spawn(move || {
                    let (mut random, mut left) = (seed + 1, COMMITS_EACH);
                    while left > 0 {
                        match transfer(store, &mut random) {
                            Some(_) => left -= 1,
                            None => drop(conflicts.fetch_add(1, Ordering::Relaxed)),
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let snapshot = store.begin_read().unwrap();
                let expected = i64::try_from(2 * (snapshot.base().0 - created.0)).unwrap();
                assert_eq!(sum(&snapshot), expected, "at {}", snapshot.base());
                assert_eq!(sum(&snapshot), expected, "again at {}", snapshot.base());
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let then = Tid(store.oldest().0 + (store.head().0 - store.oldest().0) / 2);
                if then >= created
                    && let Ok(old) = store.at(then)
                {
                    assert_eq!(sum(&old), i64::try_from(2 * (then.0 - created.0)).unwrap());
                    store.pack(Keep::From(then)).unwrap();
                    let expected = i64::try_from(2 * (then.0 - created.0)).unwrap();
                    assert_eq!(sum(&old), expected, "packed under a snapshot of {then}");
                }
                store.checkpoint().unwrap();
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    let expected = i64::try_from(2 * WRITERS * COMMITS_EACH).unwrap();
    assert_eq!(sum(&store.begin_read().unwrap()), expected);
    assert_eq!(store.head().0 - created.0, WRITERS * COMMITS_EACH);
    assert!(conflicts.load(Ordering::Relaxed) > 0, "the threads met");
    let report = store.check(true, &mut |_, _| {}).unwrap();
    assert_eq!(report.damage, []);
    drop(store);
    let store =
        Store::open(crate::engine::address(&dir.path().join("s")), OpenOptions::default()).unwrap();
    assert_eq!(sum(&store.begin_read().unwrap()), expected);
}

#[test]
fn what_was_newest_at_a_time_is_found_while_another_thread_packs() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        Store::create(crate::engine::address(&dir.path().join("s")), CreateOptions::default())
            .unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..60 {
                for _ in 0..3 {
                    store.tag("newest", store.head()).unwrap();
                }
                store.pack(Keep::Head).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let head = store.head();
            assert!(store.newest_at(i64::MAX).unwrap() >= head);
        }
    });
}

#[test]
fn a_commit_is_found_by_its_time_while_another_process_packs() {
    if crate::engine::lacks("second process") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let store = Store::create(&path, CreateOptions::default()).unwrap();
    let other = Store::open(&path, OpenOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    drop(transaction.create::<u64, Ix1>("a", &[1 << 12]).unwrap());
    transaction.commit().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..150 {
                let transaction = store.begin().unwrap();
                transaction.open::<u64, Ix1>("a").unwrap().set("0", n).unwrap();
                transaction.commit().unwrap();
                store.pack(Keep::Head).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let before = other.head();
            let found = other.newest_at(i64::MAX).unwrap();
            assert!(found >= before && found <= other.head(), "{found} after {before}");
        }
    });
}

#[test]
fn what_another_process_packed_away_is_known_at_once() {
    if crate::engine::lacks("second process") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let store = Store::create(&path, CreateOptions::default()).unwrap();
    let other = Store::open(&path, OpenOptions::default()).unwrap();
    for _ in 0..3 {
        let transaction = store.begin().unwrap();
        transaction
            .change(CatalogChange::CreateGroup { name: store.head().to_string().into() })
            .unwrap();
        transaction.commit().unwrap();
    }
    assert_eq!((other.head(), other.oldest()), (Tid(3), Tid(0)));
    store.pack(Keep::Head).unwrap();
    assert_eq!((other.oldest(), store.oldest()), (Tid(3), Tid(3)));
    assert!(other.at(Tid(2)).is_err());
}
