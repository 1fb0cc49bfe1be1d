//! W-012 to W-035: basic indexing equals NumPy's.

use ndarray::{Array1, Ix1, Ix2, Ix4, IxDyn};
use zbigarray::array::{ArrayError, IndexError};
use zbigarray::{ArrayOptions, Index, Order, Store, Transaction, ZBigArray};

use super::{BLOCK, Real, fresh, positions};

const N: u64 = 10 * BLOCK;

/// Ten blocks of bytes.
fn bytes(store: &Store) -> Transaction {
    let transaction = store.begin().unwrap();
    transaction.create::<u8, Ix1>("a", &[N]).unwrap();
    transaction
}

fn slice(start: i128, stop: i128, step: i128) -> Index {
    Index::Slice { start: Some(start), stop: Some(stop), step: Some(step) }
}

/// W-012, X-25.
#[test]
fn lists_masks_and_booleans_are_refused_by_name() {
    let (_dir, store) = fresh();
    let transaction = bytes(&store);
    let array = transaction.open::<u8, Ix1>("a").unwrap();
    for text in ["[1, 2]", "(1, 2)", "[True, False]"] {
        let refused = array.get(text);
        assert!(matches!(refused, Err(ArrayError::Index(IndexError::Fancy { .. }))), "{text}");
    }
    for text in ["True", "False"] {
        let refused = array.get(text);
        assert!(matches!(refused, Err(ArrayError::Index(IndexError::Boolean { .. }))), "{text}");
    }
}

/// W-013, X-11.
#[test]
fn an_index_beyond_either_end_is_refused() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let array = transaction.create::<u8, Ix1>("a", &[10]).unwrap();
    for at in -40i32..40 {
        let found = array.get(&[Index::from(at)]);
        assert_eq!(found.is_ok(), (-10..10).contains(&at), "{at}");
    }
    let transaction = bytes(&store);
    let array = transaction.open::<u8, Ix1>("a").unwrap();
    assert!(array.get(&[Index::from(N - 1)]).is_ok());
    let refused = array.get(&[Index::from(N)]);
    assert!(matches!(refused, Err(ArrayError::Index(IndexError::OutOfRange { .. }))));
}

/// W-014, W-015.
#[test]
fn an_empty_slice_is_an_empty_view_and_no_error() {
    let (_dir, store) = fresh();
    let transaction = bytes(&store);
    let array = transaction.open::<u8, Ix1>("a").unwrap();
    let n = i128::from(N);
    let huge = i128::from(u64::MAX);
    let empty = [
        slice(n, n + 1, 1),
        slice(10, 5, 1),
        slice(5, 10, -1),
        slice(5, 5, 1),
        slice(10 * n, 20 * n, 1),
        slice(huge, huge, 1),
    ];
    for index in empty {
        let view = array.get(&[index]).unwrap();
        assert_eq!(view.shape(), [0], "{index:?}");
    }
    assert_eq!(array.get(&[slice(-huge, huge, 1)]).unwrap().len() as u64, N);
}

/// W-016.
#[test]
fn a_new_array_reads_zeros() {
    let (_dir, store) = fresh();
    let transaction = bytes(&store);
    let array = transaction.open::<u8, Ix1>("a").unwrap();
    assert!(array.view().unwrap().as_slice().unwrap() == vec![0; N as usize]);
}

/// W-017 to W-019.
#[test]
fn overlapping_views_show_what_is_written_through_each_other() {
    let (_dir, store) = fresh();
    let transaction = bytes(&store);
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    let shared = array.share();
    let all = shared.get(":").unwrap();
    let tail = shared.get(&[Index::from(4 * BLOCK..)]).unwrap();
    let (lo, hi) = (4 * BLOCK as usize + 3, 9 * BLOCK as usize - 3);
    let part = shared.get(&[Index::from(lo..hi)]).unwrap();
    all[4 * BLOCK as usize].set(1);
    all[N as usize - 1].set(2);
    assert_eq!((tail[0].get(), tail[tail.len() - 1].get()), (1, 2));
    part[0].set(3);
    part[part.len() - 1].set(4);
    assert_eq!((all[lo].get(), all[hi - 1].get()), (3, 4));
    assert_eq!((tail[3].get(), tail[hi - 1 - 4 * BLOCK as usize].get()), (3, 4));
    all[lo].set(5);
    all[hi - 1].set(6);
    assert_eq!((part[0].get(), part[part.len() - 1].get()), (5, 6));
}

/// W-020 to W-022.
#[test]
fn views_of_any_step_alias_the_others() {
    let (_dir, store) = fresh();
    let transaction = bytes(&store);
    let mut array = transaction.open::<u8, Ix1>("a").unwrap();
    let shared = array.share();
    let all = shared.get(":").unwrap();
    let block = i128::from(BLOCK);
    for (round, index) in [
        slice(9 * block + 1, 4 * block - 1, -1),
        slice(4 * block - 3, 9 * block + 5, 7),
        slice(9 * block + 1, 4 * block - 1, -11),
    ]
    .into_iter()
    .enumerate()
    {
        let view = shared.get(&[index]).unwrap();
        let at = positions(all.len(), index).unwrap();
        assert_eq!(view.len(), at.len());
        let value = |at: usize| (at * 7 + at / 251 + round) as u8;
        view.iter().zip(&at).step_by(2).for_each(|(cell, &at)| cell.set(value(at)));
        at.iter().skip(1).step_by(2).for_each(|&at| all[at].set(value(at)));
        assert!(view.iter().zip(&at).all(|(cell, &at)| cell.get() == value(at)), "{index:?}");
        assert!(at.iter().all(|&at| all[at].get() == value(at)), "{index:?}");
    }
}

/// W-023, W-024, X-10.
#[test]
fn assignment_stretches_one_value_and_refuses_values_that_do_not_fit() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<i32, Ix1>("a", &[10]).unwrap();
    array.set("2:5", 7).unwrap();
    array.set("8", 9).unwrap();
    assert_eq!(array.view().unwrap().to_vec(), [0, 0, 7, 7, 7, 0, 0, 0, 9, 0]);
    array.assign("::4", &Array1::from(vec![1, 2, 3])).unwrap();
    array.assign("-2:", &ndarray::arr0(5)).unwrap();
    let expected = [1, 0, 7, 7, 2, 0, 0, 0, 5, 5];
    assert_eq!(array.view().unwrap().to_vec(), expected);
    let refused = array.assign("0:3", &Array1::from(vec![1, 2, 3, 4]));
    assert!(matches!(refused, Err(ArrayError::Broadcast { .. })));
    assert!(array.assign("0", &Array1::from(vec![1, 2])).is_err());
    assert_eq!(array.view().unwrap().to_vec(), expected);
}

/// W-025.
#[test]
fn a_step_of_zero_is_refused() {
    let (_dir, store) = fresh();
    let transaction = bytes(&store);
    let array = transaction.open::<u8, Ix1>("a").unwrap();
    let refused = array.get("1:5:0");
    assert!(matches!(refused, Err(ArrayError::Index(IndexError::ZeroStep { axis: 0 }))));
}

/// W-026.
#[test]
fn iterating_over_an_array_ends() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let array = transaction.create::<u8, Ix1>("a", &[10]).unwrap();
    assert_eq!(array.view().unwrap().iter().copied().collect::<Vec<_>>(), [0; 10]);
    let ends = (0..).position(|at: i32| array.get(&[Index::from(at)]).is_err());
    assert_eq!(ends, Some(10));
}

/// W-027, W-028.
#[test]
fn rows_that_straddle_pages_equal_numpy() {
    for row in [BLOCK - 1, BLOCK + 1, 4095, 4097] {
        let (_dir, store) = fresh();
        let transaction = store.begin().unwrap();
        let len = row as usize;
        let real = Real::new(&[2, len], Order::C, |at| (at / 3 + at / 255) as u8);
        let mut array = transaction.create::<u8, Ix2>("a", &[2, row]).unwrap();
        array.view_mut().unwrap().assign(&real.select(&[]).unwrap());
        transaction_reads(&array, &real);
        drop(array);
        transaction.commit().unwrap();
        let reader = store.begin_read().unwrap();
        let array = reader.open::<u8, Ix2>("a").unwrap();
        transaction_reads(&array, &real);
    }
}

fn transaction_reads(array: &ZBigArray<'_, u8, Ix2>, real: &Real<u8>) {
    let indices = [
        Index::from(0),
        Index::from(1),
        slice(1, 2, 1),
        slice(1, 2, -1),
        slice(1, 0, 1),
        slice(1, 0, -1),
        slice(0, 1, 1),
        slice(0, 1, -1),
    ];
    for index in indices {
        assert!(array.get(&[index]).unwrap() == real.select(&[index]).unwrap(), "{index:?}");
    }
}

/// W-029.
#[test]
fn reading_makes_no_page_dirty() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<u8, Ix2>("a", &[2, BLOCK + 1]).unwrap();
    array.set("...", 3).unwrap();
    drop(array);
    let tid = transaction.commit().unwrap();
    let transaction = store.begin().unwrap();
    let mut array = transaction.open::<u8, Ix2>("a").unwrap();
    assert!(array.view().unwrap().iter().all(|&value| value == 3));
    assert!(array.view_mut().unwrap().iter().all(|&value| value == 3));
    drop(array);
    assert_eq!(transaction.commit().unwrap(), tid, "nothing to commit");
}

const SHAPE: [usize; 4] = [103, 101, 23, 17];

/// W-030, W-031: every product of these on four axes. `ZBA_FULL=1` compares the large ones too.
#[test]
fn every_combination_of_indices_on_four_axes_equals_numpy() {
    let full = std::env::var_os("ZBA_FULL").is_some();
    let (_dir, store) = fresh();
    for order in [Order::C, Order::F] {
        let real = Real::new(&SHAPE, order, |at| at as u32);
        let transaction = store.begin().unwrap();
        let name = format!("{order:?}");
        let shape = SHAPE.map(|len| len as u64);
        let options = ArrayOptions::new().order(order);
        let mut array = transaction.create_with::<u32, Ix4>(&name, &shape, &options).unwrap();
        let mut view = array.view_mut().unwrap();
        view.indexed_iter_mut().for_each(|((i, j, k, l), value)| *value = real.at(&[i, j, k, l]));
        for case in 0..7usize.pow(4) {
            let indices: Vec<Index> = (0..4)
                .map(|axis| one_of_seven(case / 7usize.pow(axis), SHAPE[axis as usize]))
                .collect();
            let view = array.get(&indices[..]).unwrap();
            if full || view.len() < 2_000 || case % 293 == 0 {
                assert!(view == real.select(&indices).unwrap(), "{indices:?}");
            } else {
                corners_are_equal(&view, &real, &indices);
            }
        }
    }
}

/// The `number`th (modulo 7) index of an axis.
fn one_of_seven(number: usize, len: usize) -> Index {
    let n = len as i128;
    match number % 7 {
        0 => Index::ALL,
        1 => Index::At(0),
        2 => Index::At(-1),
        3 => Index::At(n / 2),
        4 => slice(1, -1, 1),
        5 => slice(n / 4 + 1, n * 3 / 4 - 1, 2),
        _ => slice(n / 5 + 1, n * 4 / 5 - 1, 3),
    }
}

/// Compares the shape, and the first and the last position on each axis.
fn corners_are_equal(view: &ndarray::ArrayViewD<'_, u32>, real: &Real<u32>, indices: &[Index]) {
    let axes: Vec<Vec<usize>> =
        indices.iter().zip(&real.shape).map(|(&i, &len)| positions(len, i).unwrap()).collect();
    let kept: Vec<usize> = (0..4).filter(|&axis| !matches!(indices[axis], Index::At(_))).collect();
    let shape: Vec<usize> = kept.iter().map(|&axis| axes[axis].len()).collect();
    assert_eq!(view.shape(), shape, "{indices:?}");
    for corner in 0..1usize << 4 {
        let ends = |axis: usize| if corner >> axis & 1 == 0 { 0 } else { axes[axis].len() - 1 };
        let seen: Vec<usize> = kept.iter().map(|&axis| ends(axis)).collect();
        let position: Vec<usize> = (0..4).map(|axis| axes[axis][ends(axis)]).collect();
        assert_eq!(view[IxDyn(&seen)], real.at(&position), "{indices:?}");
    }
}

/// W-032 to W-034.
#[test]
fn the_ends_of_every_axis_are_numpys() {
    let (_dir, store) = fresh();
    for order in [Order::C, Order::F] {
        let transaction = store.begin().unwrap();
        let shape = SHAPE.map(|len| len as u64);
        let options = ArrayOptions::new().order(order);
        let array = transaction.create_with::<u32, Ix4>("a", &shape, &options).unwrap();
        for axis in 0..4 {
            let n = SHAPE[axis] as i128;
            let mut indices = [Index::ALL; 4];
            indices[axis] = Index::At(n - 1);
            assert_eq!(array.get(&indices).unwrap().ndim(), 3);
            indices[axis] = Index::At(n);
            let refused = array.get(&indices);
            let at = |found: &Result<_, _>| match found {
                Err(ArrayError::Index(IndexError::OutOfRange { axis, .. })) => Some(*axis),
                _ => None,
            };
            assert_eq!(at(&refused.map(drop)), Some(axis));
            indices[axis] = slice(n, n + 1, 1);
            let mut expected = SHAPE;
            expected[axis] = 0;
            assert_eq!(array.get(&indices).unwrap().shape(), expected);
        }
        let refused = array.get(&[Index::At(0); 5]);
        assert!(matches!(refused, Err(ArrayError::Index(IndexError::TooMany { .. }))));
    }
}

/// W-035, X-08, X-09.
#[test]
fn ellipsis_and_new_axes_equal_numpy() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let real = Real::new(&[4, 3, 2], Order::C, |at| at as u32);
    let mut array = transaction.create::<u32, IxDyn>("a", &[4, 3, 2]).unwrap();
    array.assign("...", &real.select(&[]).unwrap()).unwrap();
    use Index::{At, Ellipsis, NewAxis};
    let cases: [(&str, &[Index]); 8] = [
        ("...", &[Ellipsis]),
        ("..., 1", &[Ellipsis, At(1)]),
        ("2, ...", &[At(2), Ellipsis]),
        ("1, ..., 0", &[At(1), Ellipsis, At(0)]),
        (":, None", &[Index::ALL, NewAxis]),
        ("None", &[NewAxis]),
        ("None, 1, None, ..., None", &[NewAxis, At(1), NewAxis, Ellipsis, NewAxis]),
        ("1, 2, ..., 0", &[At(1), At(2), Ellipsis, At(0)]),
    ];
    for (text, indices) in cases {
        let expected = real.select(indices).unwrap();
        assert_eq!(array.get(text).unwrap(), expected, "{text}");
        assert_eq!(array.get(indices).unwrap(), expected, "{text}");
    }
    assert!(matches!(array.get("..., ..."), Err(ArrayError::Index(IndexError::TwoEllipses))));
}

///
#[test]
fn an_array_without_axes_has_one_element_and_no_length() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let mut array = transaction.create::<f64, IxDyn>("a", &[]).unwrap();
    array.set("...", 1.5).unwrap();
    array.set(&[], 2.5).unwrap();
    assert_eq!(array.view().unwrap()[IxDyn(&[])], 2.5);
    assert_eq!(array.get("").unwrap()[IxDyn(&[])], 2.5);
    assert!(array.len().is_err());
    assert!(array.get("0").is_err());
    drop(array);
    transaction.commit().unwrap();
    let reader = store.begin_read().unwrap();
    assert_eq!(reader.open::<f64, IxDyn>("a").unwrap().read("...").unwrap()[IxDyn(&[])], 2.5);
}
