//! W-068 to W-072: the minor axis as one structured element.

use ndarray::{Array2, ArrayView, Ix1, Ix2, RemoveAxis, s};
use zbigarray::array::{ArrayOptions, Bytes, CastError, Order, structured, structured_mut};
use zbigarray::{Element, Transaction, ZBigArray};

use super::fresh;

/// 100 rows of 3 numbers of 2 bytes each.
fn rows(transaction: &Transaction, order: Order) -> ZBigArray<'_, u16, Ix2> {
    let (name, shape) = if order == Order::C { ("c", [100, 3]) } else { ("f", [3, 100]) };
    let options = ArrayOptions::new().order(order);
    let mut array = transaction.create_with::<u16, Ix2>(name, &shape, &options).unwrap();
    let minor_first = order == Order::F;
    for ((i, j), value) in array.view_mut().unwrap().indexed_iter_mut() {
        let (row, field) = if minor_first { (j, i) } else { (i, j) };
        *value = u16::try_from(1000 * field + row).unwrap();
    }
    array
}

/// The element that holds row `row`.
fn record(row: u16) -> Bytes<6> {
    let fields = [row, 1000 + row, 2000 + row].map(u16::to_ne_bytes);
    Bytes(fields.concat().try_into().unwrap())
}

fn refused<T: Element, S: Element, D: RemoveAxis>(view: ArrayView<'_, T, D>) -> CastError {
    structured::<T, S, D>(&view).err().unwrap()
}

/// W-068.
#[test]
fn the_minor_axis_in_c_order_is_one_structured_element_of_the_same_memory() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = rows(&transaction, Order::C);
    {
        let numbers = array.view().unwrap();
        let records = structured::<_, Bytes<6>, _>(&numbers).unwrap();
        assert_eq!(records.shape(), [100]);
        assert!(records.iter().zip(0..).all(|(found, row)| *found == record(row)));
        assert_eq!(records.as_ptr().cast(), numbers.as_ptr(), "nothing is copied");
    }
    let mut records = structured_mut::<_, Bytes<6>, _>(array.view_mut().unwrap()).unwrap();
    records[7] = record(500);
    assert_eq!(array.view().unwrap().row(7).to_vec(), [500, 1500, 2500]);
    assert_eq!(array.view().unwrap().row(8).to_vec(), [8, 1008, 2008]);
}

/// W-069.
#[test]
fn the_major_axis_may_run_backwards_or_in_steps_and_the_order_may_be_f() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = rows(&transaction, Order::C);
    let backwards = array.view_mut().unwrap();
    let mut backwards =
        structured_mut::<_, Bytes<6>, _>(backwards.slice_move(s![..;-3, ..])).unwrap();
    assert_eq!(backwards.len(), 34);
    assert!(backwards.iter().enumerate().all(|(i, found)| *found == record(99 - 3 * i as u16)));
    backwards[33] = record(300);
    assert_eq!(array.view().unwrap().row(0).to_vec(), [300, 1300, 2300]);
    drop(array);
    let array = rows(&transaction, Order::F);
    let numbers = array.view().unwrap();
    let records = structured::<_, Bytes<6>, Ix2>(&numbers.slice(s![.., ..;-1])).unwrap();
    assert!(records.iter().zip((0..100).rev()).all(|(found, row)| *found == record(row)));
}

/// W-070.
#[test]
fn a_minor_axis_that_runs_backwards_is_refused() {
    let numbers = Array2::<u16>::zeros((4, 3));
    let error = refused::<u16, Bytes<6>, _>(numbers.slice(s![.., ..;-1]));
    assert_eq!(error, CastError::Stride { stride: -2, itemsize: 2 });
}

/// W-071.
#[test]
fn a_minor_axis_with_gaps_is_refused() {
    let numbers = Array2::<u16>::zeros((4, 6));
    let error = refused::<u16, Bytes<6>, _>(numbers.slice(s![.., ..;2]));
    assert_eq!(error, CastError::Stride { stride: 4, itemsize: 2 });
    let uneven = Array2::<u16>::zeros((4, 5));
    let error = refused::<u16, Bytes<6>, _>(uneven.slice(s![.., ..3]));
    assert_eq!(error, CastError::Stride { stride: 10, itemsize: 6 });
}

/// W-072.
#[test]
fn a_minor_axis_of_another_size_than_the_element_is_refused() {
    let numbers = Array2::<u16>::zeros((4, 3));
    for view in [numbers.view(), numbers.slice(s![..0, ..])] {
        let error = refused::<u16, Bytes<5>, _>(view);
        assert_eq!(error, CastError::Size { stored: 6, wanted: 5 });
    }
    let empty = numbers.slice(s![..0, ..]);
    assert_eq!(structured::<_, Bytes<6>, Ix2>(&empty).unwrap().len(), 0);
    let bytes = ndarray::Array1::<u8>::zeros(16);
    let odd = bytes.slice(s![1..9]);
    let error = refused::<u8, u64, Ix1>(odd);
    assert_eq!(error, CastError::Misaligned { alignment: 8 });
}
