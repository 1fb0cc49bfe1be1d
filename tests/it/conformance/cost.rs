//! what things cost in bytes on the disk.

use std::path::Path;

use ndarray::{Array1, Ix1};
use zbigarray::{ArrayOptions, Order};

use super::{BLOCK, before, fresh, reopened};

/// Bytes that the files of a directory have on the disk.
fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        // No part of the store: it is as large as somebody allowed, and empty without users.
        .filter(|entry| entry.file_name() != "cache")
        .map(|entry| match entry.metadata().unwrap() {
            meta if meta.is_dir() => disk_bytes(&entry.path()),
            meta => meta.blocks() * 512,
        })
        .sum()
}

///
#[test]
fn a_thousand_small_arrays_cost_a_page_each_and_not_a_block() {
    if crate::engine::lacks("space of its own for each array") {
        return;
    }
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    for at in 0..1000 {
        let mut array = transaction.create::<f64, Ix1>(&format!("g/{at}"), &[10]).unwrap();
        array.set("...", f64::from(at)).unwrap();
    }
    transaction.commit().unwrap();
    let bytes = disk_bytes(dir.path());
    assert!(bytes < 16 << 20, "{bytes} bytes");
    let store = reopened(&dir, store);
    let reader = store.begin_read().unwrap();
    for at in [0, 500, 999] {
        let array = reader.open::<f64, Ix1>(&format!("g/{at}")).unwrap();
        assert_eq!(array.view().unwrap().to_vec(), [f64::from(at); 10]);
    }
}

/// A hole of an array with a fill value shows a pattern of 16 MiB over and over.
#[test]
fn a_view_of_more_fill_value_than_can_be_mapped_at_once_fills_no_disk() {
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let options = ArrayOptions::new().fill(&[7]);
    let array = transaction.create_with::<u8, Ix1>("a", &[1 << 40], &options).unwrap();
    // Loaded where it is touched; refused where the system does not allow that.
    match array.view() {
        Ok(view) => assert_eq!((view[0], view[(1 << 40) - 1], view[1 << 39]), (7, 7, 7)),
        Err(refused) => assert!(refused.to_string().contains("view a smaller part"), "{refused}"),
    }
    assert_eq!(array.get("-1").unwrap().first(), Some(&7));
    assert!(disk_bytes(dir.path()) < 1 << 20 || crate::engine::lacks("small file"));
}

/// the last block at its used length.
#[test]
#[cfg_attr(feature = "encode-all", ignore = "counts on blocks that lie as they are")]
fn an_array_takes_its_pages_and_no_more() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[BLOCK + 5000]).unwrap().set("...", 1).unwrap();
    transaction.commit().unwrap();
    assert_eq!(store.usage().unwrap().data_used_bytes, BLOCK + 8192);
}

/// X-28, W-156.
#[test]
fn each_array_has_a_block_size_of_its_own() {
    let (dir, store) = fresh();
    let transaction = store.begin().unwrap();
    for bits in [16, 18, 21, 24] {
        let options = ArrayOptions::new().block_bytes(1 << bits);
        let name = format!("a{bits}");
        let mut array = transaction.create_with::<u32, Ix1>(&name, &[1 << 20], &options).unwrap();
        array.set("5::7", bits).unwrap();
    }
    for bytes in [0, 4096, 100_000, 1 << 31] {
        let options = ArrayOptions::new().block_bytes(bytes);
        assert!(transaction.create_with::<u8, Ix1>("b", &[1], &options).is_err(), "{bytes}");
    }
    transaction.commit().unwrap();
    let store = reopened(&dir, store);
    let reader = store.begin_read().unwrap();
    for bits in [16u32, 18, 21, 24] {
        let array = reader.open::<u32, Ix1>(&format!("a{bits}")).unwrap();
        assert_eq!(array.dynamic().block_bytes(), 1 << bits);
        let view = array.view().unwrap();
        let value = |at: usize| if at >= 5 && (at - 5).is_multiple_of(7) { bits } else { 0 };
        assert!(view.iter().enumerate().all(|(at, &found)| found == value(at)));
    }
}

/// X-29, W-157.
#[test]
fn a_commit_of_one_element_adds_two_pages_to_the_log_and_nothing_else() {
    if crate::engine::lacks("log file") {
        return;
    }
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u64, Ix1>("a", &[4 << 20]).unwrap();
    array.assign("...", &Array1::from_elem(4 << 20, 7)).unwrap();
    drop(array);
    transaction.commit().unwrap();
    for round in 0..20 {
        let usage = store.usage().unwrap();
        let transaction = store.begin().unwrap();
        let mut array = transaction.open::<u64, Ix1>("a").unwrap();
        array.view_mut().unwrap()[round * 200_003] = 9;
        drop(array);
        let tid = transaction.commit().unwrap();
        let after = store.usage().unwrap();
        assert_eq!(after.data_bytes, usage.data_bytes, "round {round}");
        assert!(after.log_bytes - usage.log_bytes <= 12 << 10, "round {round}");
        let record = &store.records(before(tid), tid).unwrap()[0];
        let pages: u64 = record.data.iter().map(|change| change.segment.pages.count()).sum();
        assert_eq!(pages, 1, "round {round}");
    }
}

/// W-159: equal bytes written again are not a reason to write a block.
#[test]
fn a_commit_writes_pages_and_not_blocks() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u8, Ix1>("a", &[16 * BLOCK]).unwrap();
    array.assign("...", &Array1::from_elem(16 * BLOCK as usize, 7)).unwrap();
    drop(array);
    transaction.commit().unwrap();
    let usage = store.usage().unwrap();
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    let mut view = array.view_mut().unwrap();
    (0..64).for_each(|at| view[at * 500_000] = 1);
    drop(array);
    transaction.commit().unwrap();
    let grown = store.usage().unwrap().data_used_bytes - usage.data_used_bytes;
    assert!(grown <= 64 * 4096, "{grown} bytes");
}

/// whatever the order of writing, blocks lie in one piece.
#[test]
fn a_block_written_page_by_page_does_not_fall_into_ever_more_pieces() {
    let (_dir, store) = fresh();
    let options = ArrayOptions::new().block_bytes(1 << 20).order(Order::C);
    let transaction = store.begin().unwrap();
    let mut array = transaction.create_with::<u8, Ix1>("a", &[4 << 20], &options).unwrap();
    array.set("...", 1).unwrap();
    drop(array);
    transaction.commit().unwrap();
    for round in 0..300usize {
        let transaction = store.begin().unwrap();
        let mut array = transaction.open::<u8, Ix1>("a").unwrap();
        array.view_mut().unwrap()[round * 37 % 1024 * 4096] = 2;
        drop(array);
        transaction.commit().unwrap();
    }
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u8, Ix1>("a").unwrap();
    let pieces = array.dynamic().segments().unwrap().len();
    assert!(pieces <= 4 * 80, "{pieces} pieces in 4 blocks");
}
