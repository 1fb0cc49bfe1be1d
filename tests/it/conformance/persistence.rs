//! W-073 to W-085: commit, abort, and what is there afterwards.

use ndarray::{Array1, Ix1, Ix2};
use zbigarray::array::Descriptor;
use zbigarray::units::Tid;
use zbigarray::{ArrayOptions, Keep, Order, TransactionError};

use super::{BLOCK, before, fresh, reopened};

const LEN: u64 = 16 << 20;

/// W-073, W-076.
#[test]
fn what_was_committed_is_there_after_opening_again() {
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[LEN]).unwrap();
    transaction.commit().unwrap();
    let store = reopened(&dir, store);
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    assert_eq!(array.shape(), [LEN]);
    assert!(array.view().unwrap().iter().all(|&value| value == 0));
    let value = |at: usize| (at % 251) as u8;
    array.view_mut().unwrap().iter_mut().enumerate().for_each(|(at, new)| *new = value(at));
    drop(array);
    transaction.commit().unwrap();
    let store = reopened(&dir, store);
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u8, Ix1>("a").unwrap();
    assert!(array.view().unwrap().iter().enumerate().all(|(at, &found)| found == value(at)));
}

/// W-074, W-075: after abort a view is taken anew, because none can outlive its transaction.
#[test]
fn an_aborted_transaction_leaves_the_committed_bytes() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[LEN]).unwrap();
    transaction.commit().unwrap();
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    let shared = array.share();
    let a = shared.get(":").unwrap();
    a[5].set(1);
    a[LEN as usize - 1].set(2);
    let b = shared.get("5:").unwrap();
    assert_eq!((b[0].get(), b[b.len() - 1].get()), (1, 2));
    drop(shared);
    drop(array);
    transaction.abort();
    let transaction = store.begin().unwrap();
    let array = transaction.open::<u8, Ix1>("a").unwrap();
    assert!(array.view().unwrap().iter().all(|&value| value == 0));
}

/// W-077: there is no cache to drop; the state of a transaction lives as long as it.
#[test]
fn a_handle_dropped_and_opened_again_keeps_uncommitted_writes() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[LEN]).unwrap().set("7", 1).unwrap();
    for _ in 0..3 {
        let mut array = transaction.open::<u8, Ix1>("a").unwrap();
        assert_eq!(array.view().unwrap()[7], 1);
        array.set("8", 2).unwrap();
    }
    transaction.commit().unwrap();
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u8, Ix1>("a").unwrap();
    assert_eq!(array.read("6:10").unwrap().as_slice().unwrap(), [0, 1, 2, 0]);
}

/// W-078.
#[test]
fn resize_write_and_append_in_one_transaction_are_all_kept() {
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[LEN]).unwrap();
    transaction.commit().unwrap();
    let new = 24 << 20;
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    array.resize(&[new]).unwrap();
    let mut view = array.view_mut().unwrap();
    view[LEN as usize] = 1;
    view[new as usize - 1] = 2;
    array.append(&Array1::from(vec![3, 4, 5, 6])).unwrap();
    drop(array);
    transaction.commit().unwrap();
    let store = reopened(&dir, store);
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u8, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    let found: Vec<(usize, u8)> =
        view.iter().enumerate().filter(|(_, value)| **value != 0).map(|(at, v)| (at, *v)).collect();
    let end = new as usize;
    let expected =
        [(LEN as usize, 1), (end - 1, 2), (end, 3), (end + 1, 4), (end + 2, 5), (end + 3, 6)];
    assert_eq!((view.len(), found), (end + 4, expected.to_vec()));
}

/// W-079.
#[test]
fn the_order_is_stored() {
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    for (name, order) in [("c", Order::C), ("f", Order::F)] {
        let options = ArrayOptions::new().order(order);
        let mut array = transaction.create_with::<u8, Ix2>(name, &[2, 3], &options).unwrap();
        array.set("1, 0", 7).unwrap();
    }
    transaction.commit().unwrap();
    let store = reopened(&dir, store);
    let reader = store.begin_read().unwrap();
    for (name, order, strides) in [("c", Order::C, [3, 1]), ("f", Order::F, [1, 2])] {
        let array = reader.open::<u8, Ix2>(name).unwrap();
        let view = array.view().unwrap();
        assert_eq!((array.dynamic().order(), view.strides()), (order, &strides[..]));
        assert_eq!(view[[1, 0]], 7);
    }
}

/// W-080.
#[test]
fn metadata_without_an_order_are_of_c_order() {
    assert_eq!(Descriptor::from_json(r#"{"dtype": "<f8"}"#).unwrap().order, Order::C);
}

/// W-081: the next transaction has the same memory, still mapped.
#[test]
fn writes_after_commit_belong_to_the_next_transaction() {
    let (_dir, store) = fresh();
    let mut tids = Vec::new();
    for round in 0..4 {
        let transaction = store.begin().unwrap();
        let mut array = match round {
            0 => transaction.create::<u8, Ix1>("a", &[LEN]).unwrap(),
            _ => transaction.open::<u8, Ix1>("a").unwrap(),
        };
        let mut view = array.view_mut().unwrap();
        assert_eq!(view[1], round);
        view[1] = round + 1;
        drop(array);
        tids.push(transaction.commit().unwrap());
    }
    for (round, tid) in (1..).zip(tids) {
        let reader = store.at(tid).unwrap();
        assert_eq!(reader.open::<u8, Ix1>("a").unwrap().view().unwrap()[1], round);
    }
}

/// W-082.
#[test]
fn aborting_twice_drops_both_changes() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[LEN]).unwrap().set("3", 1).unwrap();
    let tid = transaction.commit().unwrap();
    for _ in 0..3 {
        let transaction = store.begin().unwrap();
        let mut array = transaction.open::<u8, Ix1>("a").unwrap();
        assert_eq!(array.view().unwrap()[3], 1);
        array.set("3", 2).unwrap();
        assert_eq!(array.view().unwrap()[3], 2);
        drop(array);
        transaction.abort();
    }
    let transaction = store.begin().unwrap();
    assert_eq!(transaction.open::<u8, Ix1>("a").unwrap().view_mut().unwrap()[3], 1);
    assert_eq!(transaction.commit().unwrap(), tid);
}

/// W-083.
#[test]
fn a_commit_of_nothing_makes_no_record_and_no_data() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[LEN]).unwrap();
    let tid = transaction.commit().unwrap();
    assert!(store.records(before(tid), tid).unwrap()[0].data.is_empty());
    let usage = store.usage().unwrap();
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    assert_eq!(array.view_mut().unwrap()[0], 0);
    drop(array);
    assert_eq!(transaction.commit().unwrap(), tid);
    assert_eq!((store.head(), store.usage().unwrap()), (tid, usage));
}

/// W-084: undo is a transaction that writes what an older one shows.
#[test]
fn an_older_version_can_be_made_the_newest_again() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[LEN]).unwrap().set("3:9", 1).unwrap();
    let first = transaction.commit().unwrap();
    let transaction = store.begin().unwrap();
    transaction.open::<u8, Ix1>("a").unwrap().set("...", 2).unwrap();
    transaction.commit().unwrap();
    let other = store.begin_read().unwrap();
    let (then, now) = (store.at(first).unwrap(), store.begin().unwrap());
    let old = then.open::<u8, Ix1>("a").unwrap();
    now.open::<u8, Ix1>("a").unwrap().assign("...", &old.view().unwrap()).unwrap();
    now.commit().unwrap();
    assert_eq!(other.open::<u8, Ix1>("a").unwrap().view().unwrap()[0], 2);
    let other = store.begin_read().unwrap();
    assert!(other.open::<u8, Ix1>("a").unwrap().view().unwrap() == old.view().unwrap());
}

/// W-085.
#[test]
fn an_older_transaction_shows_its_data_and_refuses_to_write() {
    let (_dir, store) = fresh();
    for value in 1..=3 {
        let transaction = store.begin().unwrap();
        let opened = transaction.open::<u8, Ix1>("a");
        let mut array = opened.or_else(|_| transaction.create("a", &[LEN])).unwrap();
        array.set("...", value).unwrap();
        drop(array);
        transaction.commit_with_note(&format!("value {value}")).unwrap();
    }
    for tid in [Tid(2), Tid(1), Tid(3)] {
        let reader = store.at(tid).unwrap();
        assert_eq!((reader.base(), reader.is_writable()), (tid, false));
        let mut array = reader.open::<u8, Ix1>("a").unwrap();
        assert!(array.view().unwrap().iter().all(|&value| u64::from(value) == tid.0));
        assert!(array.view_mut().is_err());
        assert!(array.set("0", 9).is_err() && array.resize(&[1]).is_err());
        assert!(array.append(&Array1::from(vec![1])).is_err());
        drop(array);
        assert!(reader.create::<u8, Ix1>("b", &[1]).is_err());
        assert_eq!(reader.commit().unwrap(), tid);
    }
    assert!(store.at(Tid(4)).is_err());
    store.pack(Keep::From(Tid(3))).unwrap();
    let forgotten = store.at(Tid(2)).map(drop);
    assert!(matches!(forgotten, Err(TransactionError::Storage(_))));
}

/// Which bytes nobody can be given although nobody uses them.
fn held_bytes(store: &zbigarray::Store) -> u64 {
    let usage = store.usage().unwrap();
    usage.data_bytes - usage.data_used_bytes - usage.data_free_bytes
}

#[test]
#[cfg_attr(feature = "encode-all", ignore = "counts on blocks that lie as they are")]
fn a_rollback_that_fails_keeps_no_space() {
    if crate::engine::lacks("data file to cut") {
        return;
    }
    let (dir, store) = fresh();
    let mut transaction = store.begin().unwrap();
    let mut array = transaction.create::<u8, Ix1>("a", &[4 * BLOCK]).unwrap();
    array.set("...", 1).unwrap();
    array.dynamic_mut().stage().unwrap();
    drop(array);
    let savepoint = transaction.savepoint().unwrap();
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    array.set("...", 2).unwrap();
    array.dynamic_mut().stage().unwrap();
    drop(array);
    // What the rollback would have to map is not there: it must not be touched.
    let data = dir.path().join("s/data/0000000000.dat");
    let data = std::fs::File::options().write(true).open(data).unwrap();
    let len = data.metadata().unwrap().len();
    data.set_len(0).unwrap();
    assert!(transaction.rollback(savepoint).is_err());
    let flags = nix::fcntl::FallocateFlags::empty();
    nix::fcntl::fallocate(&data, flags, 0, i64::try_from(len).unwrap()).unwrap();
    drop(transaction);
    assert_eq!(held_bytes(&store), 0);
}
