//! W-036 to W-043, X-13, X-45: another shape over the same bytes.

use ndarray::{Array2, Ix1, Ix2, IxDyn};
use zbigarray::txn::Source;
use zbigarray::vm::MapError;
use zbigarray::{ArrayError, ArrayOptions, DynArray, Order, TransactionError};

use super::{before, fresh};

/// W-036 to W-040.
#[test]
fn old_views_keep_their_shape_and_alias_the_new_ones_after_growth() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<i32, Ix2>("a", &[10, 3]).unwrap();
    let values = Array2::from_shape_fn((10, 3), |(i, j)| (i * 3 + j) as i32);
    array.assign("...", &values).unwrap();
    let shared = array.share();
    let a = shared.get("...").unwrap();
    shared.resize(&[11, 3]).unwrap();
    assert_eq!((a.shape(), a.strides()), (&[10, 3][..], &[3, 1][..]));
    assert!(a.iter().zip(&values).all(|(cell, value)| cell.get() == *value));
    let b = shared.get("...").unwrap();
    assert_eq!(b.shape(), [11, 3]);
    assert!(b.iter().zip(&values).all(|(cell, value)| cell.get() == *value));
    assert!((0..3).all(|j| b[[10, j]].get() == 0));
    a[[0, 0]].set(100);
    a[[9, 2]].set(129);
    assert_eq!((b[[0, 0]].get(), b[[9, 2]].get()), (100, 129));
    b[[0, 0]].set(0);
    b[[9, 2]].set(29);
    assert_eq!((a[[0, 0]].get(), a[[9, 2]].get()), (0, 29));
    assert!(a.get([10, 0]).is_none(), "the old view has no row 10");
    (0..3).for_each(|j| b[[10, j]].set(30 + j as i32));
    let c = shared.get("...").unwrap();
    assert!(c.iter().enumerate().all(|(at, cell)| cell.get() == at as i32));
}

/// W-041.
#[test]
fn resizing_touches_no_data() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u8, Ix1>("a", &[64 << 20]).unwrap();
    array.set("::4096", 1).unwrap();
    drop(array);
    transaction.commit().unwrap();
    let used = store.usage().unwrap();
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    array.resize(&[1 << 44]).unwrap();
    array.resize(&[128 << 20]).unwrap();
    drop(array);
    transaction.commit().unwrap();
    assert_eq!(store.usage().unwrap().data_used_bytes, used.data_used_bytes);
    let record = &store.records(before(store.head()), store.head()).unwrap()[0];
    let written = record.data.iter().filter(|change| change.segment.source != Source::Hole);
    assert_eq!(written.count(), 0, "no page was written");
}

/// W-042.
#[test]
fn a_shape_is_part_of_the_transaction() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[10]).unwrap();
    transaction.commit().unwrap();
    let transaction = store.begin().unwrap();
    transaction.open::<u8, Ix1>("a").unwrap().resize(&[20]).unwrap();
    transaction.abort();
    assert_eq!(store.begin_read().unwrap().open::<u8, Ix1>("a").unwrap().shape(), [10]);
    let transaction = store.begin().unwrap();
    transaction.open::<u8, Ix1>("a").unwrap().resize(&[20]).unwrap();
    transaction.commit().unwrap();
    assert_eq!(store.begin_read().unwrap().open::<u8, Ix1>("a").unwrap().shape(), [20]);
}

/// W-043.
#[test]
fn another_number_of_axes_reads_the_same_bytes_anew() {
    for order in [Order::C, Order::F] {
        let (_dir, store) = fresh();
        let transaction = store.begin().unwrap();
        let options = ArrayOptions::new().order(order);
        let mut array = transaction.create_with::<u16, IxDyn>("a", &[24], &options).unwrap();
        array.get_mut("...").unwrap().iter_mut().zip(0..).for_each(|(value, at)| *value = at);
        for shape in [&[4, 6][..], &[2, 3, 4], &[24, 1], &[24]] {
            array.resize(shape).unwrap();
            let lens: Vec<usize> = shape.iter().map(|&len| len as usize).collect();
            let real = super::Real::new(&lens, order, |at| at as u16);
            assert_eq!(array.view().unwrap(), real.select(&[]).unwrap(), "{order:?} {shape:?}");
        }
    }
}

///
#[test]
fn what_was_cut_off_never_comes_back() {
    for fill in [None, Some(7u16)] {
        for (long, short) in [(6, 3), (5000, 1), (5000, 4000), (3 << 20, 100), (3 << 20, 1 << 20)] {
            let (dir, store) = fresh();
            let options = ArrayOptions::new();
            let options = fill.map_or(options.clone(), |fill| options.fill(&fill.to_le_bytes()));
            let transaction = store.begin().unwrap();
            let mut array = transaction.create_with::<u16, Ix1>("a", &[long], &options).unwrap();
            array.set("...", 9).unwrap();
            drop(array);
            transaction.commit().unwrap();
            let expected = |at: usize| if (at as u64) < short { 9 } else { fill.unwrap_or(0) };
            let holds = |array: &zbigarray::ZBigArray<'_, u16, Ix1>| {
                let view = array.view().unwrap();
                view.len() as u64 == long
                    && view.iter().enumerate().all(|(at, &value)| value == expected(at))
            };
            // Within one transaction, and over several.
            let transaction = store.begin().unwrap();
            let mut array = transaction.open::<u16, Ix1>("a").unwrap();
            array.resize(&[short]).unwrap();
            array.resize(&[long]).unwrap();
            assert!(holds(&array), "{long} {short} {fill:?}");
            drop(array);
            transaction.abort();
            for len in [short, long] {
                let transaction = store.begin().unwrap();
                transaction.open::<u16, Ix1>("a").unwrap().resize(&[len]).unwrap();
                transaction.commit().unwrap();
            }
            assert!(
                holds(&store.begin_read().unwrap().open("a").unwrap()),
                "{long} {short} {fill:?}"
            );
            let store = super::reopened(&dir, store);
            assert!(
                holds(&store.begin_read().unwrap().open("a").unwrap()),
                "{long} {short} {fill:?}"
            );
        }
    }
}

/// as `SharedArray::resize` says.
#[test]
fn a_longer_view_reads_the_fill_value_where_its_array_was_cut_off() {
    for (long, short) in [(6u64, 3u64), (5000, 100), (3 << 20, 1 << 20)] {
        let (_dir, store) = fresh();
        let transaction = store.begin().unwrap();
        let options = ArrayOptions::new().fill(&[5]);
        let mut array = transaction.create_with::<u8, Ix1>("a", &[long], &options).unwrap();
        array.set("...", 9).unwrap();
        let shared = array.share();
        let view = shared.get("...").unwrap();
        shared.resize(&[short]).unwrap();
        let expected = |at: usize| if (at as u64) < short { 9 } else { 5 };
        let wrong = view.iter().enumerate().position(|(at, cell)| cell.get() != expected(at));
        assert_eq!(wrong, None, "{long} {short}");
        view[long as usize - 1].set(1);
        shared.resize(&[long]).unwrap();
        let wrong = view.iter().enumerate().position(|(at, cell)| cell.get() != expected(at));
        assert_eq!(wrong, None, "{long} {short} after growth");
    }
}

///
#[test]
fn an_aborted_growth_leaves_no_trace() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[10]).unwrap().set("...", 1).unwrap();
    transaction.commit().unwrap();
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    array.resize(&[5 << 20]).unwrap();
    array.set("10:", 2).unwrap();
    drop(array);
    transaction.abort();
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    array.resize(&[6 << 20]).unwrap();
    let view = array.view().unwrap();
    assert!(view.iter().enumerate().all(|(at, &value)| value == u8::from(at < 10)));
}

/// A shrink by one transaction, growth by another, and a third that had seen the old length.
#[test]
fn a_late_write_beyond_a_cut_does_not_show_up_after_growth() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[6]).unwrap();
    transaction.commit().unwrap();
    let late = store.begin().unwrap();
    late.open::<u8, Ix1>("a").unwrap().set("5", 9).unwrap();
    let cut = store.begin().unwrap();
    cut.open::<u8, Ix1>("a").unwrap().resize(&[3]).unwrap();
    cut.commit().unwrap();
    let grow = store.begin().unwrap();
    grow.open::<u8, Ix1>("a").unwrap().resize(&[6]).unwrap();
    let late = late.commit();
    let grown = grow.commit();
    assert!(late.is_err() || grown.is_err(), "one of them is refused");
    if grown.is_ok() {
        let reader = store.begin_read().unwrap();
        let values = reader.open::<u8, Ix1>("a").unwrap().view().unwrap().to_vec();
        assert_eq!(values, [0; 6]);
    }
}

/// A resize that is refused leaves the shape as it was.
#[test]
fn growth_that_finds_no_addresses_changes_nothing() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut arrays: Vec<_> =
        (0..3).map(|at| transaction.create::<u8, Ix1>(&format!("a{at}"), &[10]).unwrap()).collect();
    for array in &mut arrays {
        let shared = array.share();
        let view = shared.get("...").unwrap();
        view[9].set(1);
        match shared.resize(&[1 << 43]) {
            Ok(()) => assert_eq!(shared.shape(), [1 << 43]),
            Err(ArrayError::Transaction(TransactionError::Map(MapError::AddressSpace {
                ..
            }))) => {
                assert_eq!(shared.shape(), [10]);
                shared.resize(&[20]).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!(view[9].get(), 1);
        assert_eq!(shared.get("9").unwrap()[IxDyn(&[])].get(), 1);
    }
}

/// A shape that is too large is refused before anything changes.
#[test]
fn a_shape_beyond_all_limits_is_refused() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u64, IxDyn>("a", &[10]).unwrap();
    for shape in [&[u64::MAX][..], &[1 << 40, 1 << 40], &[1; 65]] {
        assert!(array.resize(shape).is_err(), "{shape:?}");
        assert_eq!(array.shape(), [10]);
    }
    drop(array);
    assert!(DynArray::open(&transaction, "a").is_ok());
}
