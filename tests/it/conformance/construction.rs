//! W-001 to W-011: what an array can be, and what it says of itself.

use ndarray::{Array2, Ix1, Ix2, IxDyn, ShapeBuilder};
use zbigarray::array::shape::{self, ShapeError};
use zbigarray::array::{ArrayError, DtypeError, Header, NpyError};
use zbigarray::{ArrayOptions, Dtype, DynArray, Order};

use super::fresh;

/// W-001, W-002.
#[test]
fn an_array_of_objects_is_refused() {
    for text in ["O", "object", "|O", "O8"] {
        let refused = Dtype::parse(text);
        assert!(matches!(refused, Err(DtypeError::Object { .. })), "{text}: {refused:?}");
    }
}

/// W-003, W-004.
#[test]
fn an_array_of_structures_with_an_object_in_them_is_refused_at_any_depth() {
    assert!(matches!(Dtype::parse("i4, O"), Err(DtypeError::Object { .. })));
    let nested = [
        "[('a', '<i4'), ('b', '|O')]",
        "[('a', '<i4'), ('b', [('c', '<f8'), ('d', '|O')])]",
        "[('a', '|O', (3,))]",
    ];
    for descr in nested {
        let text = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (3,), }}\n");
        let len = u16::try_from(text.len()).unwrap().to_le_bytes();
        let file = [b"\x93NUMPY\x01\x00", &len[..], text.as_bytes()].concat();
        let refused = Header::read(&mut &file[..]).map(drop);
        assert!(matches!(refused, Err(NpyError::Dtype(DtypeError::Object { .. }))), "{descr}");
    }
}

/// W-005, W-006: a shape is numbers by its type; numbers with a sign are checked.
#[test]
fn a_shape_is_whole_numbers_of_any_count() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let dtype = Dtype::parse("i4").unwrap();
    for shape in [&[][..], &[7], &[2, 3], &[1, 0, 5]] {
        let name = format!("a{}", shape.len());
        let options = ArrayOptions::new();
        let array = DynArray::create(&transaction, &name, &dtype, shape, &options).unwrap();
        assert_eq!(*array.shape(), *shape);
    }
    assert_eq!(shape::from_signed(&[3, 0]).unwrap(), [3, 0]);
}

///
#[test]
fn a_negative_length_is_refused() {
    assert_eq!(shape::from_signed(&[3, -1]), Err(ShapeError::Negative { axis: 1, len: -1 }));
}

///
#[test]
fn elements_without_bytes_are_refused() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    for text in ["S0", "U0", "V0", "S", "U", "V"] {
        let refused = Dtype::parse(text).map_err(ArrayError::from).and_then(|dtype| {
            DynArray::create(&transaction, "a", &dtype, &[3], &ArrayOptions::new()).map(drop)
        });
        assert!(refused.is_err(), "{text}");
    }
}

/// W-007, W-008.
#[test]
fn strides_and_length_are_those_of_the_order() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    let c = transaction.create::<i32, Ix2>("c", &[10, 3]).unwrap();
    assert_eq!((c.dynamic().strides(), c.len().unwrap()), (vec![12, 4], 10));
    let options = ArrayOptions::new().order(Order::F);
    let f = transaction.create_with::<i32, Ix2>("f", &[10, 3], &options).unwrap();
    assert_eq!((f.dynamic().strides(), f.len().unwrap()), (vec![4, 40], 3));
}

/// W-009.
#[test]
fn what_an_array_says_of_itself_equals_an_ordinary_array() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    for (name, order) in [("c", Order::C), ("f", Order::F)] {
        let real = Array2::<i32>::zeros((10, 3).set_f(order == Order::F));
        let options = ArrayOptions::new().order(order);
        let array = transaction.create_with::<i32, Ix2>(name, &[10, 3], &options).unwrap();
        let view = array.view().unwrap();
        assert_eq!((view.shape(), view.strides()), (real.shape(), real.strides()));
        let array = array.dynamic();
        assert_eq!((array.size(), array.itemsize(), array.nbytes()), (30, 4, 120));
        assert_eq!((array.ndim(), array.dtype()), (2, &Dtype::parse("i4").unwrap()));
    }
}

/// W-010: the bytes as such are reached by views of bytes only, so nothing else has to refuse.
#[test]
fn an_array_cannot_be_opened_as_another_type() {
    let (_dir, store) = fresh();
    let transaction = store.begin().unwrap();
    transaction.create::<i32, Ix1>("a", &[10]).unwrap();
    assert!(matches!(transaction.open::<u8, Ix1>("a"), Err(ArrayError::Cast(_))));
    assert!(matches!(transaction.open::<i32, Ix2>("a"), Err(ArrayError::Dimensions { .. })));
    assert!(transaction.open::<i32, IxDyn>("a").is_ok());
}

/// W-011.
#[test]
fn the_number_of_elements_does_not_overflow() {
    assert_eq!(shape::size(&[1 << 40, 1 << 40]), 1 << 80);
    assert!(shape::nbytes(&[1 << 40, 1 << 40], 1).is_err());
}
