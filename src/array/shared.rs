//! Views that alias each other: several at once, through which one thread reads and writes.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let store = zbigarray::Store::create(dir.path().join("s"), Default::default())?;
//! let transaction = store.begin()?;
//! let mut array = transaction.create::<i32, ndarray::Ix1>("a", &[10])?;
//! let shared = array.share();
//! let (all, part) = (shared.get("...")?, shared.get("9:4:-2")?);
//! part[0].set(7);
//! assert_eq!(all[9].get(), 7);
//! # Ok(()) }
//! ```
//!
//! # Invariants
//!
//! 1. A view keeps its address, shape and content while the array is resized: addresses are
//!    reserved with room, and what does not fit the room is refused instead of moved.

use std::cell::RefCell;
use std::marker::PhantomData;

use ndarray::{ArrayView, IxDyn, MathCell};

use super::cast::Element;
use super::dynamic::DynArray;
use super::error::ArrayError;
use super::shape::Order;
use super::typed::Indices;
use super::view;
use crate::txn::AppendedRows;

/// An array lent to one thread for aliasing views.
pub struct SharedArray<'a, 't, T> {
    // The exclusive borrow makes this the only way to the array; `RefCell` keeps it on one thread.
    array: RefCell<&'a mut DynArray<'t>>,
    elements: PhantomData<T>,
}

impl<T> Drop for SharedArray<'_, '_, T> {
    fn drop(&mut self) {
        self.array.borrow_mut().keep_in_place(false);
    }
}

impl<'a, 't, T: Element> SharedArray<'a, 't, T> {
    pub(super) fn new(array: &'a mut DynArray<'t>) -> Self {
        array.keep_in_place(true);
        Self { array: RefCell::new(array), elements: PhantomData }
    }

    /// Length along each axis.
    #[must_use]
    pub fn shape(&self) -> Vec<u64> {
        self.array.borrow().shape().to_vec()
    }

    /// The elements that `indices` select, as cells. Nothing is copied.
    ///
    /// # Errors
    ///
    /// Those of [`ZBigArray::get_mut`](super::ZBigArray::get_mut).
    pub fn get<I: Indices + ?Sized>(
        &self,
        indices: &I,
    ) -> Result<ArrayView<'_, MathCell<T>, IxDyn>, ArrayError> {
        let array = self.array.borrow();
        let selection = array.select(&indices.indices()?)?;
        view::cells(self, &array, &selection)
    }

    /// Gives the array another shape. Views keep theirs; elements that the array has no more read
    /// as the fill value and are not committed.
    ///
    /// # Errors
    ///
    /// [`MapError::AddressSpace`](crate::vm::MapError::AddressSpace) if the array cannot grow
    /// without moving.
    pub fn resize(&self, shape: &[u64]) -> Result<(), ArrayError> {
        self.array.borrow_mut().resize(shape)
    }

    /// Appends rows, dense in `order`.
    ///
    /// # Errors
    ///
    /// Those of [`DynArray::append`] and [`resize`](Self::resize).
    pub fn append(
        &self,
        rows_shape: &[u64],
        order: Order,
        rows: &[T],
    ) -> Result<AppendedRows, ArrayError> {
        let rows = super::cast::as_bytes(rows);
        self.array.borrow_mut().append(rows_shape, order, rows)
    }
}
