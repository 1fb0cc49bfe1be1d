//! W-052 to W-054: the whole array as one view.

use ndarray::{Ix1, Ix2};
use zbigarray::Index;

use super::fresh;

/// W-052.
#[test]
fn a_view_of_the_whole_shares_memory_with_a_view_of_a_part() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let array = transaction.create::<u32, Ix2>("a", &[1000, 7]).unwrap();
    let whole = array.view().unwrap();
    let part = array.get("10:, 3").unwrap();
    assert!(std::ptr::eq(&raw const whole[[10, 3]], &raw const part[0]));
}

/// W-053.
#[test]
fn a_terabyte_is_one_view_at_once() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u8, Ix1>("a", &[1 << 40]).unwrap();
    array.set("1099511627775", 7).unwrap();
    drop(array);
    transaction.commit().unwrap();
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u8, Ix1>("a").unwrap();
    let view = array.view().unwrap();
    assert_eq!((view.len(), array.dynamic().nbytes()), (1 << 40, 1 << 40));
    assert_eq!((view[0], view[1 << 39], view[(1 << 40) - 1]), (0, 0, 7));
    let is_small = store.usage().unwrap().data_bytes < 4 << 20;
    assert!(is_small || crate::engine::lacks("small file"));
}

/// W-054.
#[test]
fn what_exceeds_the_address_space_can_be_looked_at_in_parts() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    for len in [(1 << 48) - 1, 1 << 48, 1 << 62] {
        let name = format!("a{len}");
        let mut array = transaction.create::<u8, Ix1>(&name, &[len]).unwrap();
        assert!(array.view().is_err(), "{len}");
        assert!(array.view_mut().is_err(), "{len}");
        array.set(&[Index::from(len - 10..len - 5)], 7).unwrap();
        assert_eq!(array.read(&[Index::from(len - 6..)]).unwrap().iter().sum::<u8>(), 7);
        assert_eq!(array.get("0:100").unwrap().len(), 100);
    }
    transaction.commit().unwrap();
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u8, Ix1>("a4611686018427387904").unwrap();
    assert_eq!(array.read("-11:").unwrap().mapv(u32::from).sum(), 35);
}

/// W-054: the sizes beyond what any selection can count are refused when they are made.
#[test]
fn sizes_beyond_all_limits_are_refused_or_work() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    for len in [1u64 << 63, u64::MAX] {
        let name = format!("a{len}");
        let Ok(mut array) = transaction.create::<u8, Ix1>(&name, &[len]) else { continue };
        assert!(array.view().is_err(), "{len}");
        array.set(&[Index::from(len - 10..len - 5)], 7).unwrap();
        assert_eq!(array.read(&[Index::from(len - 6..)]).unwrap().iter().sum::<u8>(), 7);
    }
}

/// An array beyond 16 TiB has a window of its own for each part that is looked at.
#[test]
fn a_view_that_finds_no_addresses_is_refused_and_the_transaction_goes_on() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u8, Ix1>("a", &[1 << 50]).unwrap();
    array.set("0:3000000", 1).unwrap();
    assert!(array.view_mut().is_err());
    array.set("1000000", 2).unwrap();
    array.set("9000000", 3).unwrap();
    drop(array);
    transaction.commit().unwrap();
    let reader = store.begin_read().unwrap();
    let array = reader.open::<u8, Ix1>("a").unwrap();
    assert_eq!(array.read("999999:9000001").unwrap().mapv(u32::from).sum(), 2_000_005);
}
