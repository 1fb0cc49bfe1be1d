//! X-items that are none of the other files' business: what wendelin.core could not do.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use ndarray::{Array1, Ix1, Ix2};
use zbigarray::txn::{CatalogChange, StorageError};
use zbigarray::{ArrayError, Keep, TransactionError};

use super::{BLOCK, before, fresh, reopened};

/// no page has to be touched before a system call may use it.
#[test]
fn system_calls_read_and_write_untouched_views() {
    let (dir, store) = fresh();
    let len = 3 * BLOCK as usize;
    let transaction = store.begin().unwrap();
    let values: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    let mut array = transaction.create::<u8, Ix1>("a", &[len as u64]).unwrap();
    array.assign("...", &Array1::from(values.clone())).unwrap();
    drop(array);
    transaction.commit().unwrap();
    let store = reopened(&dir, store);
    let path = dir.path().join("plain");
    let open = |flags: i32| {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).custom_flags(flags);
        options.open(&path)
    };
    // write(2) from clean pages nobody looked at.
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    open(0).unwrap().write_all(array.view().unwrap().as_slice().unwrap()).unwrap();
    assert!(std::fs::read(&path).unwrap() == values);
    // read(2) into clean pages nobody looked at.
    array.resize(&[2 * len as u64]).unwrap();
    let mut file = open(0).unwrap();
    let mut view = array.view_mut().unwrap();
    let (old, new) = view.as_slice_mut().unwrap().split_at_mut(len);
    file.read_exact(new).unwrap();
    file.rewind().unwrap();
    file.read_exact(&mut old[1..4096]).unwrap();
    assert!(new == values && old[1..4096] == values[..4095] && old[4096..] == values[4096..]);
    // Past the page cache, in both directions; not every file system can.
    match open(libc::O_DIRECT) {
        Ok(direct) => {
            direct.write_all_at(&view.as_slice().unwrap()[len..], 0).unwrap();
            direct.read_exact_at(&mut view.as_slice_mut().unwrap()[..len], 0).unwrap();
        }
        Err(error) => println!("not run: O_DIRECT: {error}"),
    }
    drop(array);
    transaction.commit().unwrap();
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u8, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    assert!(view.as_slice().unwrap()[len..] == values);
}

///
#[test]
#[cfg_attr(feature = "encode-all", ignore = "counts on blocks that lie as they are")]
fn damaged_data_is_an_error_that_says_where() {
    if crate::engine::lacks("data file to change") {
        return;
    }
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u8, Ix1>("a", &[3 * BLOCK]).unwrap();
    array.assign("...", &Array1::from_elem(3 * BLOCK as usize, 0x5A)).unwrap();
    drop(array);
    transaction.create::<u8, Ix1>("b", &[3 * BLOCK]).unwrap().set("...", 0x5B).unwrap();
    transaction.commit().unwrap();
    let path = dir.path().join("s/data/0000000000.dat");
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.iter().position(|&byte| byte == 0x5A).unwrap() + BLOCK as usize + 7;
    File::options().write(true).open(&path).unwrap().write_all_at(&[0x5B], at as u64).unwrap();
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u8, Ix1>("a").unwrap();
    let whole = array.dynamic().select(&[]).unwrap();
    let found = array.dynamic().verify(&whole);
    let is_named = |found: Result<(), ArrayError>| match found {
        Err(ArrayError::Transaction(TransactionError::Data { array, block, byte, source })) => {
            assert_eq!((array.as_str(), block, byte), ("a", 1, BLOCK));
            matches!(*source, TransactionError::Storage(StorageError::Checksum { .. }))
        }
        other => panic!("{other:?}"),
    };
    assert!(is_named(found));
    let report = store.check(true, &mut |_, _| {}).unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    // The other array is as good as ever.
    let other = reader.open::<u8, Ix1>("b").unwrap();
    other.dynamic().verify(&other.dynamic().select(&[]).unwrap()).unwrap();
    assert!(other.view().unwrap().iter().all(|&value| value == 0x5B));
}

///
#[test]
fn a_rollback_restores_bytes_shapes_names_and_attributes() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix2>("a", &[1000, 7]).unwrap().set("...", 1).unwrap();
    transaction.commit().unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.open::<u8, Ix2>("a").unwrap().set("5", 2).unwrap();
    let first = transaction.savepoint().unwrap();
    let mut array = transaction.open::<u8, Ix2>("a").unwrap();
    array.set("5:8", 3).unwrap();
    array.resize(&[500, 7]).unwrap();
    array.dynamic_mut().set_attribute("k", &1.into()).unwrap();
    drop(array);
    transaction.create::<u8, Ix1>("b", &[5]).unwrap().set("...", 9).unwrap();
    let second = transaction.savepoint().unwrap();
    transaction.change(CatalogChange::Remove { name: "a".into() }).unwrap();
    transaction.open::<u8, Ix1>("b").unwrap().set("0", 8).unwrap();
    transaction.rollback(second).unwrap();
    assert_eq!(transaction.open::<u8, Ix1>("b").unwrap().view().unwrap()[0], 9);
    assert_eq!(transaction.open::<u8, Ix2>("a").unwrap().shape(), [500, 7]);
    transaction.rollback(first).unwrap();
    assert!(matches!(transaction.rollback(second), Err(TransactionError::NoSavepoint)));
    assert!(transaction.open::<u8, Ix1>("b").is_err());
    let array = transaction.open::<u8, Ix2>("a").unwrap();
    let expected = |row: usize| if row == 5 { 2 } else { 1 };
    let holds = |view: ndarray::ArrayView2<'_, u8>| {
        view.dim() == (1000, 7) && view.indexed_iter().all(|((row, _), &v)| v == expected(row))
    };
    assert!(holds(array.view().unwrap()) && array.dynamic().attributes().is_empty());
    drop(array);
    transaction.commit().unwrap();
    assert!(holds(store.begin_read().unwrap().open::<u8, Ix2>("a").unwrap().view().unwrap()));
}

///
#[test]
fn a_savepoint_of_another_transaction_is_refused() {
    let (_dir, store) = fresh();
    let mut first = store.begin().unwrap();
    let mut second = store.begin().unwrap();
    let savepoint = first.savepoint().unwrap();
    second.create::<u8, Ix1>("a", &[5]).unwrap();
    assert!(matches!(second.rollback(savepoint), Err(TransactionError::NoSavepoint)));
    second.savepoint().unwrap();
    second.create::<u8, Ix1>("b", &[5]).unwrap();
    assert!(matches!(second.rollback(savepoint), Err(TransactionError::NoSavepoint)));
    assert!(second.open::<u8, Ix1>("b").is_ok());
}

///
#[test]
fn a_new_array_is_used_at_once_and_committed_or_dropped_as_a_whole() {
    let (_dir, store) = fresh();
    for keep in [false, true] {
        let transaction = store.begin().unwrap();
        let mut array = transaction.create::<i64, Ix1>("g/a", &[3]).unwrap();
        array.set("...", 5).unwrap();
        array.append(&Array1::from(vec![6, 7])).unwrap();
        assert_eq!(array.view().unwrap().to_vec(), [5, 5, 5, 6, 7]);
        drop(array);
        match keep {
            true => drop(transaction.commit().unwrap()),
            false => transaction.abort(),
        }
        let reader = store.begin_read().unwrap();
        assert_eq!(reader.open::<i64, Ix1>("g/a").is_ok(), keep);
        assert_eq!(store.catalog().names().count(), if keep { 2 } else { 0 });
    }
}

/// the compiler refuses views that outlive their transaction; what outlives the store works.
#[test]
fn a_transaction_outlives_the_handle_of_its_store() {
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[BLOCK]).unwrap().set("...", 1).unwrap();
    transaction.commit().unwrap();
    let (reader, writer) = (store.begin_read().unwrap(), store.begin().unwrap());
    drop(store);
    let array = reader.open::<u8, Ix1>("a").unwrap();
    assert!(array.view().unwrap().iter().all(|&value| value == 1));
    writer.open::<u8, Ix1>("a").unwrap().set("0", 2).unwrap();
    writer.commit().unwrap();
    drop(array);
    drop(reader);
    let store =
        zbigarray::Store::open(crate::engine::address(&dir.path().join("s")), Default::default())
            .unwrap();
    assert_eq!(store.begin_read().unwrap().open::<u8, Ix1>("a").unwrap().view().unwrap()[0], 2);
}

/// also if space is needed and given out again.
#[test]
#[cfg_attr(feature = "encode-all", ignore = "counts on blocks that lie as they are")]
fn packing_leaves_open_snapshots_alone_and_gives_space_back_afterwards() {
    let (_dir, store) = fresh();
    let len = 4 * BLOCK;
    let commit = |value: u8, part: &str| {
        let transaction = store.begin().unwrap();
        let opened = transaction.open::<u8, Ix1>("a");
        let mut array = opened.or_else(|_| transaction.create("a", &[len])).unwrap();
        array.set(part, value).unwrap();
        drop(array);
        transaction.commit().unwrap()
    };
    commit(1, "...");
    // Small enough to travel inside the record.
    let first = commit(2, "5:9");
    let old = store.at(first).unwrap();
    let array = old.open::<u8, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    assert_eq!(view[6], 2, "one page was touched, the others not");
    (3..6).for_each(|value| assert!(commit(value, "...") > first));
    store.pack(Keep::Head).unwrap();
    (6..12).for_each(|value| assert!(commit(value, "...") > first));
    assert!(view.iter().enumerate().all(|(at, &v)| v == if (5..9).contains(&at) { 2 } else { 1 }));
    drop(array);
    drop(old);
    let refused = store.at(first).map(drop);
    assert!(matches!(refused, Err(TransactionError::Storage(StorageError::Forgotten { .. }))));
    store.pack(Keep::Head).unwrap();
    let most = store.usage().unwrap().data_bytes;
    (12..30).for_each(|value| {
        commit(value, "...");
        store.pack(Keep::Head).unwrap();
    });
    let usage = store.usage().unwrap();
    let is_bounded =
        usage.data_bytes <= most || crate::engine::lacks("promise of how long its file is");
    assert!(is_bounded, "space is used again: {usage:?} after {most}");
    assert!(store.check(true, &mut |_, _| {}).unwrap().damage.is_empty());
}

/// the space of what was cut off, and of arrays that were removed.
#[test]
#[cfg_attr(feature = "encode-all", ignore = "counts on blocks that lie as they are")]
fn packing_gives_back_what_no_array_has_any_more() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    for name in ["a", "b"] {
        transaction.create::<u8, Ix1>(name, &[8 * BLOCK]).unwrap().set("...", 1).unwrap();
    }
    transaction.commit().unwrap();
    let transaction = store.begin().unwrap();
    transaction.open::<u8, Ix1>("a").unwrap().resize(&[BLOCK]).unwrap();
    transaction.change(CatalogChange::Remove { name: "b".into() }).unwrap();
    transaction.commit().unwrap();
    let summary = store.pack(Keep::Head).unwrap();
    assert!(summary.freed_bytes >= 15 * BLOCK, "{summary:?}");
    assert!(store.usage().unwrap().data_used_bytes <= BLOCK);
}

/// A cut inside a page whose place a pack gives up before the commit.
#[test]
fn a_transaction_commits_although_its_history_was_packed_meanwhile() {
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[6000]).unwrap().set("...", 1).unwrap();
    transaction.commit().unwrap();
    for value in [2, 3] {
        let transaction = store.begin().unwrap();
        let mut array = transaction.open::<u8, Ix1>("a").unwrap();
        let len = array.len().unwrap();
        array.resize(&[len - 100]).unwrap();
        array.set("0", value).unwrap();
        drop(array);
        store.pack(Keep::Head).unwrap();
        transaction.commit().unwrap();
    }
    let store = reopened(&dir, store);
    let reader = store.begin_read().unwrap();
    let values = reader.open::<u8, Ix1>("a").unwrap().view().unwrap().to_vec();
    assert_eq!((values.len(), values[0], values[1], values[5799]), (5800, 3, 1, 1));
    assert!(store.check(true, &mut |_, _| {}).unwrap().damage.is_empty());
}

/// the metadata that a reader got are values; changing them is a commit.
#[test]
fn every_change_of_metadata_is_a_commit() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[5]).unwrap();
    transaction.commit().unwrap();
    let catalog = store.catalog();
    let mut copy = catalog.clone();
    copy.apply(&CatalogChange::Remove { name: "a".into() }, store.head()).unwrap();
    assert!(store.catalog() == catalog && catalog.array("a").is_some());
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    array.dynamic_mut().set_attribute("k", &"v".into()).unwrap();
    drop(array);
    let tid = transaction.commit().unwrap();
    assert_eq!(store.records(before(tid), tid).unwrap()[0].catalog.len(), 1);
}
