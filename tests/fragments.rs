//! An array in more pieces than a process may have kernel mappings. A program of its own, since
//! the mappings of a process are what it uses up.

use std::collections::BTreeMap;
use std::fs;

use ndarray::Ix1;
use zbigarray::{ArrayOptions, CreateOptions, Index, Store};

const BLOCK: u64 = 64 << 10;
const BLOCKS: u64 = 10_000;

#[test]
fn an_array_in_more_pieces_than_there_are_mappings_is_one_view_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
    let transaction = store.begin().unwrap();
    let options = ArrayOptions::new().block_bytes(BLOCK).fill(&[7]);
    let mut array = transaction.create_with::<u8, Ix1>("a", &[BLOCKS * BLOCK], &options).unwrap();
    let mut expected = BTreeMap::new();
    for block in 0..BLOCKS {
        // Two pages of each block, apart from each other and in another order on the disk.
        for page in [3, 9] {
            let at = (BLOCKS - 1 - block) * BLOCK + page * 4096 + 5;
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

    let transaction = store.begin_read();
    let array = transaction.open::<u8, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    let mappings = fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    assert!(mappings < 10_000, "{mappings}");
    for (&at, &value) in &expected {
        assert_eq!(view[at], value, "element {at}");
        assert_eq!(view[at + 1], 7, "the element after {at}");
    }
}
