//! W-086 to W-099: several transactions at once.

use ndarray::{Array1, Ix1};
use zbigarray::{CommitError, Conflict, Store, Transaction};

use super::{BLOCK, fresh};

const LEN: u64 = 4 * BLOCK;

fn get(transaction: &Transaction, at: usize) -> u8 {
    transaction.open::<u8, Ix1>("a").unwrap().view().unwrap()[at]
}

fn set(transaction: &Transaction, at: usize, value: u8) {
    transaction.open::<u8, Ix1>("a").unwrap().view_mut().unwrap()[at] = value;
}

/// A store with an array that holds `value` at 0.
fn with(store: &Store, value: u8) {
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[LEN]).unwrap();
    set(&transaction, 0, value);
    transaction.commit().unwrap();
}

/// W-086 to W-088: transactions are not tied to the thread that began them.
#[test]
fn a_transaction_can_be_ended_by_another_thread() {
    let (_dir, store) = fresh();
    with(&store, 11);
    let begun = store.begin().unwrap();
    let there = std::thread::spawn(move || {
        set(&begun, 0, 21);
        begun
    });
    let begun = there.join().unwrap();
    let other = store.begin().unwrap();
    set(&other, LEN as usize - 1, 1);
    other.commit().unwrap();
    std::thread::spawn(move || begun.abort()).join().unwrap();
    assert_eq!(get(&store.begin_read().unwrap(), 0), 11);
    let begun = store.begin().unwrap();
    set(&begun, 0, 22);
    store.begin().unwrap().abort();
    let committed = std::thread::spawn(move || begun.commit());
    committed.join().unwrap().unwrap();
    assert_eq!(get(&store.begin_read().unwrap(), 0), 22);
}

/// W-089 to W-093: also after every clean page was evicted.
#[test]
fn a_transaction_reads_its_snapshot_until_its_boundary() {
    let (dir, store) = fresh();
    with(&store, 1);
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u8, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    assert_eq!(view[0], 1);
    let writer = store.begin().unwrap();
    set(&writer, 0, 2);
    set(&writer, BLOCK as usize, 2);
    writer.commit().unwrap();
    assert_eq!((view[0], view[BLOCK as usize]), (1, 0));
    evict(dir.path());
    assert_eq!((view[0], view[BLOCK as usize], view[LEN as usize - 1]), (1, 0, 0));
    drop(array);
    drop(reader);
    let reader = store.begin_read().unwrap();
    assert_eq!((get(&reader, 0), get(&reader, BLOCK as usize)), (2, 2));
}

/// Drops what is cached of every file below `dir`, as far as the kernel likes to.
fn evict(dir: &std::path::Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            evict(&path);
            continue;
        }
        let file = std::fs::File::open(&path).unwrap();
        file.sync_all().unwrap();
        let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        nix::fcntl::posix_fadvise(&file, 0, 0, advice).unwrap();
    }
}

/// holes are no exception.
#[test]
fn a_hole_that_was_read_becomes_data_after_the_boundary() {
    let (_dir, store) = fresh();
    with(&store, 1);
    for round in 2..6 {
        // Two idle sessions that both have mapped the hole, to be reused.
        let (one, two) = (store.begin().unwrap(), store.begin_read().unwrap());
        let at = usize::from(round) * 4096 * 100;
        assert_eq!((get(&one, at), get(&two, at)), (0, 0));
        drop(one);
        drop(two);
        let writer = store.begin().unwrap();
        set(&writer, at, round);
        writer.commit().unwrap();
        assert_eq!(get(&store.begin_read().unwrap(), at), round);
        assert_eq!(get(&store.begin().unwrap(), at), round);
    }
}

/// W-094 to W-096.
#[test]
fn the_second_to_write_a_page_is_refused_and_can_write_after_its_boundary() {
    let (_dir, store) = fresh();
    with(&store, 10);
    let (first, second) = (store.begin().unwrap(), store.begin().unwrap());
    set(&first, 0, 11);
    set(&second, 0, 12);
    first.commit().unwrap();
    let first = store.begin_read().unwrap();
    let refused = second.commit();
    assert!(matches!(
        refused,
        Err(CommitError::Conflict(Conflict::Pages { ref array, .. })) if array == "a"
    ));
    let second = store.begin().unwrap();
    assert_eq!(get(&second, 0), 11);
    set(&second, 0, 13);
    second.commit().unwrap();
    assert_eq!(get(&first, 0), 11);
    assert_eq!(get(&store.begin_read().unwrap(), 0), 13);
}

/// W-097.
#[test]
fn two_resizes_conflict_and_the_second_then_sees_the_firsts_shape() {
    let (_dir, store) = fresh();
    with(&store, 1);
    let (first, second) = (store.begin().unwrap(), store.begin().unwrap());
    first.open::<u8, Ix1>("a").unwrap().resize(&[LEN + 10]).unwrap();
    second.open::<u8, Ix1>("a").unwrap().resize(&[LEN + 20]).unwrap();
    first.commit().unwrap();
    let refused = second.commit();
    assert!(matches!(refused, Err(CommitError::Conflict(Conflict::Shape { .. }))));
    assert_eq!(store.begin().unwrap().open::<u8, Ix1>("a").unwrap().shape(), [LEN + 10]);
}

/// W-098.
#[test]
fn an_append_is_seen_by_others_after_their_boundary() {
    let (_dir, store) = fresh();
    with(&store, 1);
    let reader = store.begin_read().unwrap();
    assert_eq!(get(&reader, 0), 1);
    let writer = store.begin().unwrap();
    writer.open::<u8, Ix1>("a").unwrap().append(&Array1::from(vec![7])).unwrap();
    writer.commit().unwrap();
    assert_eq!(reader.open::<u8, Ix1>("a").unwrap().shape(), [LEN]);
    drop(reader);
    let reader = store.begin_read().unwrap();
    assert_eq!(reader.open::<u8, Ix1>("a").unwrap().shape(), [LEN + 1]);
    assert_eq!(get(&reader, LEN as usize), 7);
}

/// W-099: for us even different pages of one block.
#[test]
fn transactions_on_different_pages_both_commit() {
    let (_dir, store) = fresh();
    with(&store, 1);
    for far in [4096, BLOCK as usize, LEN as usize - 1] {
        for round in [2, 3] {
            let (first, second) = (store.begin().unwrap(), store.begin().unwrap());
            set(&first, 0, round);
            set(&second, far, round + 100);
            first.commit().unwrap();
            second.commit().unwrap();
            let reader = store.begin_read().unwrap();
            assert_eq!((get(&reader, 0), get(&reader, far)), (round, round + 100));
        }
    }
}

/// What a commit writes along with its own pages does not stand in the way of others.
#[test]
fn pages_written_along_with_their_block_are_no_conflict() {
    let (_dir, store) = fresh();
    with(&store, 1);
    let pages = BLOCK as usize / 4096;
    let fill = store.begin().unwrap();
    (0..pages).for_each(|page| set(&fill, page * 4096 + 1, 1));
    fill.commit().unwrap();
    let (first, second) = (store.begin().unwrap(), store.begin().unwrap());
    // More than half of the block, so that all of it is written.
    (0..pages - 10).for_each(|page| set(&first, page * 4096, 2));
    set(&second, (pages - 1) * 4096, 3);
    first.commit().unwrap();
    second.commit().unwrap();
    let reader = store.begin_read().unwrap();
    assert_eq!((get(&reader, 0), get(&reader, (pages - 1) * 4096)), (2, 3));
    assert_eq!(get(&reader, (pages - 1) * 4096 + 1), 1);
}

/// The same the other way round: who writes a block whole keeps what others committed in it.
#[test]
fn pages_written_along_do_not_undo_what_others_committed() {
    let (_dir, store) = fresh();
    with(&store, 1);
    let pages = BLOCK as usize / 4096;
    let fill = store.begin().unwrap();
    (0..pages).for_each(|page| set(&fill, page * 4096 + 1, 1));
    fill.commit().unwrap();
    let (first, second) = (store.begin().unwrap(), store.begin().unwrap());
    (0..pages - 10).for_each(|page| set(&first, page * 4096, 2));
    set(&second, (pages - 1) * 4096, 3);
    second.commit().unwrap();
    first.commit().unwrap();
    let reader = store.begin_read().unwrap();
    assert_eq!((get(&reader, 0), get(&reader, (pages - 1) * 4096)), (2, 3));
}

/// there is no access between transactions; one that only reads shows one commit.
#[test]
fn a_reading_transaction_shows_one_commit_of_all_arrays() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    for name in ["x", "y"] {
        transaction.create::<u64, Ix1>(name, &[1000]).unwrap();
    }
    transaction.commit().unwrap();
    let writer = {
        let store = store.clone();
        std::thread::spawn(move || {
            for round in 1..200 {
                let transaction = store.begin().unwrap();
                for name in ["x", "y"] {
                    let mut array = transaction.open::<u64, Ix1>(name).unwrap();
                    array.set("...", round).unwrap();
                }
                transaction.commit().unwrap();
            }
        })
    };
    let mut last = 0;
    while !writer.is_finished() {
        let reader = store.begin_read().unwrap();
        let (x, y) = (reader.open::<u64, Ix1>("x").unwrap(), reader.open::<u64, Ix1>("y").unwrap());
        let (x, y) = (x.view().unwrap(), y.view().unwrap());
        let value = x[0];
        assert!(value >= last, "commits are seen in order");
        assert!(x.iter().chain(&y).all(|&found| found == value), "one commit, and all of it");
        last = value;
    }
    writer.join().unwrap();
}
