//! W-044 to W-051, X-07, X-12: rows at the end.

use ndarray::{Array1, Array2, Array3, Axis, Ix1, Ix2, Ix3, arr2, concatenate, s};
use zbigarray::array::{ArrayError, Bytes, CastError};
use zbigarray::{ArrayOptions, Order};

use super::{before, fresh};

fn numbers(shape: (usize, usize, usize), from: i64) -> Array3<i64> {
    let len = shape.0 * shape.1 * shape.2;
    Array3::from_shape_vec(shape, (from..from + len as i64).collect()).unwrap()
}

/// W-044.
#[test]
fn rows_are_appended_along_the_first_axis_in_c_order() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<i64, Ix3>("a", &[0, 3, 2]).unwrap();
    let mut all = numbers((0, 3, 2), 0);
    for rows in [numbers((2, 3, 2), 0), numbers((1, 3, 2), 12), numbers((4, 3, 2), 18)] {
        array.append(&rows).unwrap();
        all = concatenate![Axis(0), all, rows];
        assert_eq!(array.view().unwrap(), all);
    }
}

/// W-045.
#[test]
fn rows_are_appended_along_the_last_axis_in_f_order() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let options = ArrayOptions::new().order(Order::F);
    let mut array = transaction.create_with::<i64, Ix3>("a", &[2, 3, 0], &options).unwrap();
    let mut all = numbers((2, 3, 0), 0);
    for rows in [numbers((2, 3, 2), 0), numbers((2, 3, 1), 12), numbers((2, 3, 4), 18)] {
        array.append(&rows).unwrap();
        all = concatenate![Axis(2), all, rows];
        assert_eq!(array.view().unwrap(), all);
    }
}

/// W-046 to W-048: the number of axes and the element type are checked by Rust for typed arrays.
#[test]
fn rows_that_do_not_fit_are_refused_and_change_nothing() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u8, Ix2>("a", &[2, 3]).unwrap();
    let dynamic = array.dynamic_mut();
    for shape in [&[3][..], &[1, 2, 3], &[]] {
        let len = shape.iter().product::<u64>() as usize;
        let refused = dynamic.append(shape, Order::C, &vec![1; len]);
        assert!(matches!(refused, Err(ArrayError::Shape(_))), "{shape:?}");
    }
    for shape in [&[1, 2][..], &[1, 4], &[0, 2], &[3, 1]] {
        let len = shape.iter().product::<u64>() as usize;
        assert!(dynamic.append(shape, Order::C, &vec![1; len]).is_err(), "{shape:?}");
    }
    let refused = dynamic.append(&[1, 3], Order::C, &[1, 2]);
    assert!(matches!(refused, Err(ArrayError::BufferSize { expected: 3, given: 2 })));
    assert_eq!(array.view().unwrap(), Array2::<u8>::zeros((2, 3)));
}

///
#[test]
fn appending_no_rows_does_nothing() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix2>("a", &[2, 3]).unwrap();
    let tid = transaction.commit().unwrap();
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u8, Ix2>("a").unwrap();
    array.append(&Array2::zeros((0, 3))).unwrap();
    assert_eq!(array.shape(), [2, 3]);
    drop(array);
    let other = store.begin().unwrap();
    other.open::<u8, Ix2>("a").unwrap().append(&Array2::ones((1, 3))).unwrap();
    let other = other.commit().unwrap();
    assert_eq!(transaction.commit().unwrap(), tid, "no conflict and no commit");
    assert_eq!(store.head(), other);
}

/// W-049.
#[test]
fn numbers_of_another_type_are_cast_as_by_assignment() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<i16, Ix2>("a", &[0, 3]).unwrap();
    let rows = Array2::from_shape_vec((2, 3), vec![1.7, -1.7, 0.0, 3e9, f64::NAN, 2.5]).unwrap();
    array.append_cast(&rows).unwrap();
    array.append_cast(&rows.t().as_standard_layout().t().slice(s![..1, ..])).unwrap();
    array.append_cast(&Array2::from_elem((1, 3), 70_000_i64)).unwrap();
    array.append_cast(&Array2::from_elem((1, 3), 7_i16)).unwrap();
    let expected = [[1, -1, 0], [i16::MAX, 0, 2], [1, -1, 0], [4464; 3], [7; 3]];
    assert_eq!(array.view().unwrap(), arr2(&expected));
    let refused = array.append_cast(&Array2::from_elem((1, 3), Bytes(*b"12")));
    assert!(matches!(refused, Err(ArrayError::Cast(CastError::NotNumbers { .. }))));
    let refused = array.append_cast(&Array2::from_elem((1, 2), 1.5));
    assert!(matches!(refused, Err(ArrayError::Shape(_))));
    assert_eq!(array.shape(), [5, 3]);
}

/// Rows that are cast in several parts, onto an end inside of a page.
#[test]
fn many_rows_are_cast_part_by_part_in_either_order() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    for order in [Order::C, Order::F] {
        let options = ArrayOptions::new().order(order);
        let name = format!("{order:?}");
        let shape = if order == Order::C { [1, 3] } else { [3, 1] };
        let mut array = transaction.create_with::<u8, Ix2>(&name, &shape, &options).unwrap();
        let numbers = Array1::from_iter((0..6_000_000_u32).map(|number| number as u8));
        let shape = if order == Order::C { (2_000_000, 3) } else { (3, 2_000_000) };
        let numbers = numbers.into_shape_with_order(shape).unwrap();
        array.append_cast(&numbers.mapv(f32::from)).unwrap();
        let view = array.view().unwrap();
        let (first, rest) = match order {
            Order::C => view.split_at(Axis(0), 1),
            Order::F => view.split_at(Axis(1), 1),
        };
        assert!(first.iter().all(|&number| number == 0));
        assert_eq!(rest, numbers);
    }
}

/// W-050.
#[test]
fn a_view_taken_before_append_keeps_its_length_and_aliases() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<i64, Ix1>("a", &[5]).unwrap();
    let shared = array.share();
    let old = shared.get("...").unwrap();
    old[4].set(4);
    // More than a block, so that rows go past memory.
    let rows: Vec<i64> = (5..1_000_000).collect();
    shared.append(&[rows.len() as u64], Order::C, &rows).unwrap();
    let new = shared.get("...").unwrap();
    assert_eq!((old.len(), new.len()), (5, 1_000_000));
    assert_eq!(new[4].get(), 4);
    assert!(new.iter().enumerate().skip(5).all(|(at, cell)| cell.get() == at as i64));
    old[3].set(3);
    new[2].set(2);
    assert_eq!((new[3].get(), old[2].get()), (3, 2));
}

/// W-051.
#[test]
#[cfg_attr(feature = "encode-all", ignore = "counts on blocks that lie as they are")]
fn appending_costs_what_is_appended() {
    let (_dir, store) = fresh();
    let mut costs = Vec::new();
    for len in [0u64, 1 << 32, 1 << 42] {
        let name = format!("a{len}");
        let transaction = store.begin().unwrap();
        transaction.create::<u8, Ix1>(&name, &[len]).unwrap();
        transaction.commit().unwrap();
        let used = store.usage().unwrap();
        let transaction = store.begin().unwrap();
        let mut array = transaction.open::<u8, Ix1>(&name).unwrap();
        array.append(&Array1::from_elem(1 << 20, 3)).unwrap();
        drop(array);
        let tid = transaction.commit().unwrap();
        let record = &store.records(before(tid), tid).unwrap()[0];
        let pages: u64 = record.data.iter().map(|change| change.segment.pages.count()).sum();
        let after = store.usage().unwrap();
        costs.push((pages, after.data_used_bytes - used.data_used_bytes));
    }
    assert_eq!(costs, [(256, 1 << 20); 3]);
}

/// the second of two appends is refused as a whole; it is not lost, doubled or mixed.
#[test]
fn of_two_concurrent_appends_the_second_lands_behind_the_first() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[1]).unwrap();
    transaction.commit().unwrap();
    let append = |value: u8| {
        let transaction = store.begin().unwrap();
        transaction.open::<u8, Ix1>("a").unwrap().append(&Array1::from_elem(3, value)).unwrap();
        transaction
    };
    let (first, second) = (append(1), append(2));
    first.commit().unwrap();
    second.commit().unwrap();
    let reader = store.begin_read().unwrap();
    let values = reader.open::<u8, Ix1>("a").unwrap().view().unwrap().to_vec();
    assert_eq!(values, [0, 1, 1, 1, 2, 2, 2]);
}
