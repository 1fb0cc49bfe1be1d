//! An array in more pieces than a process may have kernel mappings. A program of its own, since
//! the mappings of a process are what it uses up.
//!
//! `ZBA_PIECES` sets the number of pieces; 1,000,000 of them need 5 GiB of disk.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use ndarray::Ix1;
use zbigarray::{ArrayOptions, CreateOptions, Index, Store};

const BLOCK: u64 = 64 << 10;
const PIECES: u64 = 20_000;

/// One test after the other: they count the mappings of the process.
static PROCESS: Mutex<()> = Mutex::new(());

fn mappings_count() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[test]
fn a_transaction_lets_go_of_arrays_without_handle_and_keeps_what_was_stored_in_them() {
    let _alone = PROCESS.lock();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    let kept = transaction.create::<u8, Ix1>("kept", &[10]).unwrap();
    let view = kept.view().unwrap();
    let mut most = 0;
    for at in 0..9_000u64 {
        let mut array = transaction.create::<u64, Ix1>(&format!("a{at}"), &[10]).unwrap();
        array.view_mut().unwrap()[3] = at;
        if at % 100 == 0 {
            most = mappings_count().max(most);
        }
    }
    // Each of them takes two at least, and all of them together may take 16,000.
    assert!(most < 12_000, "{most}");
    assert_eq!(view.sum(), 0, "a view that is alive stays mapped");
    drop(kept);
    transaction.commit().unwrap();
    let reader = store.begin_read().unwrap();
    for at in (0..9_000u64).step_by(7) {
        let array = reader.open::<u64, Ix1>(&format!("a{at}")).unwrap();
        assert_eq!(array.view().unwrap().to_vec(), [0, 0, 0, at, 0, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn an_array_in_more_pieces_than_there_are_mappings_is_one_view_all_the_same() {
    let _alone = PROCESS.lock();
    let pieces = std::env::var("ZBA_PIECES").ok().map(|text| text.parse().unwrap());
    // Two pages of each block, apart from each other and in another order on the disk.
    let blocks = pieces.unwrap_or(PIECES) / 2;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    let options = ArrayOptions::new().block_bytes(BLOCK).fill(&[7]);
    let mut array = transaction.create_with::<u8, Ix1>("a", &[blocks * BLOCK], &options).unwrap();
    let mut expected = BTreeMap::new();
    for block in 0..blocks {
        for page in [3, 9] {
            let at = (blocks - 1 - block) * BLOCK + page * 4096 + 5;
            let value = u8::try_from(at % 251).unwrap();
            array.set(&[Index::from(at)], value).unwrap();
            expected.insert(usize::try_from(at).unwrap(), value);
        }
        if block % 1000 == 0 {
            array.dynamic_mut().stage().unwrap();
        }
    }
    drop(array);
    transaction.commit().unwrap();

    let transaction = store.begin_read().unwrap();
    let array = transaction.open::<u8, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    let mappings = mappings_count();
    assert!(mappings < 10_000, "{mappings}");
    for (&at, &value) in &expected {
        assert_eq!(view[at], value, "element {at}");
        assert_eq!(view[at + 1], 7, "the element after {at}");
    }
}
