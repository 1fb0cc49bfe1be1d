//! An array whose element type and number of axes are Rust types: [`ZBigArray`].
//!
//! Everything is [`DynArray`]'s; this adds ndarray views and values.

use std::marker::PhantomData;
use std::ops::Range;

use ndarray::{
    ArrayBase, ArrayD, ArrayView, ArrayViewD, ArrayViewMut, ArrayViewMutD, Data, Dimension, IxDyn,
};

use super::cast::{self, Element, as_bytes, as_bytes_mut};
use super::dynamic::DynArray;
use super::element;
use super::error::ArrayError;
use super::index::{Index, IndexError, Selection, parse};
use super::options::ArrayOptions;
use super::rounds::ROUND_BYTES;
use super::shape::{self, Order};
use super::shared::SharedArray;
use super::view;
use crate::txn::{AppendedRows, Transaction};

/// What can be used as an index: NumPy's notation as text, or a list of [`Index`].
pub trait Indices {
    /// The indices, one for each axis named.
    ///
    /// # Errors
    ///
    /// [`IndexError`] if a text is not an index.
    fn indices(&self) -> Result<Vec<Index>, IndexError>;
}

impl Indices for str {
    fn indices(&self) -> Result<Vec<Index>, IndexError> {
        parse(self)
    }
}

impl Indices for [Index] {
    fn indices(&self) -> Result<Vec<Index>, IndexError> {
        Ok(self.to_vec())
    }
}

impl<const N: usize> Indices for [Index; N] {
    fn indices(&self) -> Result<Vec<Index>, IndexError> {
        Ok(self.to_vec())
    }
}

/// A handle of an array of `T` with `D` axes, within a transaction.
///
/// Views borrow the handle, and the handle borrows the transaction, so no view can outlive either:
///
/// ```compile_fail
/// # fn f(transaction: zbigarray::Transaction) -> Result<(), Box<dyn std::error::Error>> {
/// let array = transaction.open::<f64, ndarray::Ix1>("signal")?;
/// let view = array.view()?;
/// transaction.commit()?; // the view still looks at the transaction's memory
/// println!("{}", view[0]);
/// # Ok(()) }
/// ```
///
/// A view to write excludes every other:
///
/// ```compile_fail
/// # fn f(transaction: &zbigarray::Transaction) -> Result<(), Box<dyn std::error::Error>> {
/// let mut array = transaction.open::<f64, ndarray::Ix1>("signal")?;
/// let old = array.view()?;
/// array.view_mut()?[0] = 1.0;
/// println!("{}", old[0]);
/// # Ok(()) }
/// ```
pub struct ZBigArray<'t, T, D> {
    array: DynArray<'t>,
    types: PhantomData<fn() -> (T, D)>,
}

impl Transaction {
    /// Creates an array of zeros of the store's block size, in C order.
    ///
    /// # Errors
    ///
    /// Those of [`DynArray::create`].
    pub fn create<T: Element, D: Dimension>(
        &self,
        name: &str,
        shape: &[u64],
    ) -> Result<ZBigArray<'_, T, D>, ArrayError> {
        self.create_with(name, shape, &ArrayOptions::new())
    }

    /// Creates an array.
    ///
    /// # Errors
    ///
    /// Those of [`DynArray::create`], and [`ArrayError::Dimensions`] if `shape` has not `D` axes.
    pub fn create_with<T: Element, D: Dimension>(
        &self,
        name: &str,
        shape: &[u64],
        options: &ArrayOptions,
    ) -> Result<ZBigArray<'_, T, D>, ArrayError> {
        require_dimensions::<D>(name, shape.len())?;
        ZBigArray::of(DynArray::create(self, name, &T::dtype(), shape, options)?)
    }

    /// Opens an array as elements of `T` with `D` axes. Cost O(1): nothing is read.
    ///
    /// # Errors
    ///
    /// Those of [`DynArray::open`], [`CastError`](super::CastError) if the elements are of another
    /// type, [`ArrayError::Dimensions`].
    pub fn open<T: Element, D: Dimension>(
        &self,
        name: &str,
    ) -> Result<ZBigArray<'_, T, D>, ArrayError> {
        ZBigArray::of(DynArray::open(self, name)?)
    }
}

impl<'t, T: Element, D: Dimension> ZBigArray<'t, T, D> {
    /// Gives a dynamic handle its types.
    ///
    /// # Errors
    ///
    /// [`CastError`](super::CastError) if the elements are of another type,
    /// [`ArrayError::Dimensions`].
    pub fn of(array: DynArray<'t>) -> Result<Self, ArrayError> {
        element::check::<T>(array.dtype())?;
        require_dimensions::<D>(array.name(), array.ndim())?;
        Ok(Self { array, types: PhantomData })
    }

    /// The handle without its types.
    #[must_use]
    pub fn dynamic(&self) -> &DynArray<'t> {
        &self.array
    }

    /// The handle without its types, to change.
    pub fn dynamic_mut(&mut self) -> &mut DynArray<'t> {
        &mut self.array
    }

    /// Length along each axis.
    #[must_use]
    pub fn shape(&self) -> Vec<u64> {
        self.array.shape().to_vec()
    }

    /// Length along the major axis; see [`DynArray::len`].
    ///
    /// # Errors
    ///
    /// [`ShapeError`](super::ShapeError) for an array without axes.
    pub fn len(&self) -> Result<u64, ArrayError> {
        self.array.len()
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.array.is_empty()
    }

    /// All elements, to read.
    ///
    /// Nothing is copied or read: pages are loaded when they are first touched, so the array may
    /// be far larger than memory. Cost O(runs of bytes on the disk).
    ///
    /// # Errors
    ///
    /// [`MapError`](crate::vm::MapError) if the address space or the budget of mappings is too
    /// small: look at a part then.
    pub fn view(&self) -> Result<ArrayView<'_, T, D>, ArrayError> {
        self.typed(self.whole()?)
    }

    /// All elements, to read and write. What is written is private until commit, and bounded by
    /// memory and swap; [`assign`](Self::assign) and [`append`](Self::append) are not.
    ///
    /// # Errors
    ///
    /// Those of [`view`](Self::view), and
    /// [`TransactionError::ReadOnly`](crate::txn::TransactionError::ReadOnly).
    pub fn view_mut(&mut self) -> Result<ArrayViewMut<'_, T, D>, ArrayError> {
        self.typed_mut(self.whole()?)
    }

    /// The elements `rows` along the major axis, to read. Maps only them.
    ///
    /// # Errors
    ///
    /// Those of [`view`](Self::view); a range beyond the end is clipped, as NumPy does.
    pub fn rows(&self, rows: Range<u64>) -> Result<ArrayView<'_, T, D>, ArrayError> {
        self.typed(self.rows_selection(&rows)?)
    }

    /// The elements `rows` along the major axis, to read and write. Maps only them.
    ///
    /// # Errors
    ///
    /// Those of [`view_mut`](Self::view_mut).
    pub fn rows_mut(&mut self, rows: Range<u64>) -> Result<ArrayViewMut<'_, T, D>, ArrayError> {
        self.typed_mut(self.rows_selection(&rows)?)
    }

    /// The elements that `indices` select, to read: `array.get("10:20, ..., ::-1")`.
    ///
    /// Basic indexing exactly as NumPy's. Maps only the bytes between the lowest and the highest
    /// element.
    ///
    /// # Errors
    ///
    /// [`IndexError`] and those of [`view`](Self::view).
    pub fn get<I: Indices + ?Sized>(&self, indices: &I) -> Result<ArrayViewD<'_, T>, ArrayError> {
        view::view(&self.array, &self.array.select(&indices.indices()?)?)
    }

    /// The elements that `indices` select, to read and write.
    ///
    /// # Errors
    ///
    /// [`IndexError`] and those of [`view_mut`](Self::view_mut).
    pub fn get_mut<I: Indices + ?Sized>(
        &mut self,
        indices: &I,
    ) -> Result<ArrayViewMutD<'_, T>, ArrayError> {
        let selection = self.array.select(&indices.indices()?)?;
        view::view_mut(&mut self.array, &selection)
    }

    /// A copy of the elements that `indices` select, in C order, compared with their checksums:
    /// see [`DynArray::ensure`].
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get), and [`DynArray::ensure`]'s.
    pub fn read<I: Indices + ?Sized>(&self, indices: &I) -> Result<ArrayD<T>, ArrayError> {
        let selection = self.array.select(&indices.indices()?)?;
        let mut elements = cast::zeroed::<T>(selection.shape())?;
        let bytes = as_bytes_mut(elements.as_slice_mut().unwrap_or_default());
        self.array.read(&selection, Order::C, bytes)?;
        Ok(elements)
    }

    /// Brings the elements that `indices` select into memory and compares them with their
    /// checksums: see [`DynArray::ensure`].
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get), and [`DynArray::ensure`]'s.
    pub fn ensure<I: Indices + ?Sized>(&self, indices: &I) -> Result<(), ArrayError> {
        self.array.ensure(&self.array.select(&indices.indices()?)?)
    }

    /// Gives the elements that `indices` select the values `values`, stretched as NumPy does.
    ///
    /// Values of the selection's own shape and order that are contiguous go to the disk without
    /// being copied in memory; others through memory, part by part, so that memory does not bound
    /// how many there are.
    ///
    /// # Errors
    ///
    /// [`ArrayError::Broadcast`] if the shapes do not fit.
    pub fn assign<I, S, E>(
        &mut self,
        indices: &I,
        values: &ArrayBase<S, E>,
    ) -> Result<(), ArrayError>
    where
        I: Indices + ?Sized,
        S: Data<Elem = T>,
        E: Dimension,
    {
        let selection = self.array.select(&indices.indices()?)?;
        let same = values.shape().len() == selection.ndim()
            && values.shape().iter().zip(selection.shape()).all(|(&a, &b)| a as u64 == b);
        if same && let Some((order, bytes)) = dense(values) {
            return self.array.write(&selection, order, bytes);
        }
        let expected = selection.shape().to_vec();
        let given = values.shape().to_vec();
        let shape: Vec<usize> =
            expected.iter().map(|&len| usize::try_from(len).unwrap_or(usize::MAX)).collect();
        let Some(values) = values.broadcast(shape) else {
            return Err(ArrayError::Broadcast { expected, given });
        };
        self.in_parts(&selection, |mut view, ranges| {
            view.assign(&values.slice_each_axis(|axis| {
                let Range { start, end } = ranges[axis.axis.index()].clone();
                (start..end).into()
            }));
        })
    }

    /// Lends the elements of `selection` in parts that need little memory, each with its positions
    /// along the axes of the selection.
    fn in_parts(
        &mut self,
        selection: &Selection,
        mut each: impl FnMut(ArrayViewMutD<'_, T>, &[Range<usize>]),
    ) -> Result<(), ArrayError> {
        let len = |&len: &u64| 0..usize::try_from(len).unwrap_or(usize::MAX);
        let mut parts: Vec<Vec<Range<usize>>> = vec![selection.shape().iter().map(len).collect()];
        while let Some(ranges) = parts.pop() {
            let slice = |range: &Range<usize>| Index::from(range.clone());
            let part = selection.select(&ranges.iter().map(slice).collect::<Vec<_>>())?;
            let Some((lo, hi)) = part.byte_range() else { continue };
            if hi - lo > ROUND_BYTES
                && let Some([low, high]) = halves(&part, &ranges)
            {
                parts.extend([high, low]);
                continue;
            }
            self.array.ensure(&part)?;
            each(view::view_mut(&mut self.array, &part)?, &ranges);
            self.array.transaction().wrote(self.array.id(), hi - lo)?;
        }
        Ok(())
    }

    /// Gives the elements that `indices` select one value. Goes through memory part by part, so
    /// that memory does not bound how many there are.
    ///
    /// # Errors
    ///
    /// Those of [`get_mut`](Self::get_mut).
    pub fn set<I: Indices + ?Sized>(&mut self, indices: &I, value: T) -> Result<(), ArrayError> {
        let selection = self.array.select(&indices.indices()?)?;
        self.in_parts(&selection, |mut view, _| view.fill(value))
    }

    /// Appends `rows` along the major axis and says which rows that makes. Cost O(rows).
    ///
    /// If another transaction commits an append to the same array first, these rows land behind
    /// its rows, unless this transaction looked where the array ends; see [`AppendedRows`].
    ///
    /// # Errors
    ///
    /// [`ShapeError`](super::ShapeError) if the other axes do not match; the array is unchanged.
    pub fn append<S: Data<Elem = T>>(
        &mut self,
        rows: &ArrayBase<S, D>,
    ) -> Result<AppendedRows, ArrayError> {
        with_dense(rows, |shape, order, bytes| self.array.append(shape, order, bytes))
    }

    /// Appends `rows` of another type of number along the major axis, cast as an assignment in
    /// NumPy casts them: 1.7 becomes 1 in an array of integers. Cost O(rows).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let store = zbigarray::Store::create(dir.path().join("s"), Default::default())?;
    /// let transaction = store.begin()?;
    /// let mut counts = transaction.create::<i32, ndarray::Ix1>("counts", &[0])?;
    /// counts.append_cast(&ndarray::arr1(&[1.7, -1.7, 1e300]))?;
    /// assert_eq!(counts.view()?, ndarray::arr1(&[1, -1, i32::MAX]));
    /// # Ok(()) }
    /// ```
    ///
    /// What becomes of values that the array's type cannot hold says
    /// [`DynArray::append_cast`].
    ///
    /// # Errors
    ///
    /// [`CastError`](super::CastError) if one of the types is no number, such as a text or a
    /// record, and those of [`append`](Self::append); the array is unchanged.
    pub fn append_cast<U: Element, S: Data<Elem = U>>(
        &mut self,
        rows: &ArrayBase<S, D>,
    ) -> Result<AppendedRows, ArrayError> {
        let is_same = element::check::<U>(self.array.dtype()).is_ok();
        with_dense(rows, |shape, order, bytes| match is_same {
            true => self.array.append(shape, order, bytes),
            false => self.array.append_cast(shape, order, &U::dtype(), bytes),
        })
    }

    /// Gives the array another shape of the same number of axes; see [`DynArray::resize`].
    ///
    /// # Errors
    ///
    /// [`ArrayError::Dimensions`] if `shape` has not `D` axes; use
    /// [`dynamic_mut`](Self::dynamic_mut) to change their number.
    pub fn resize(&mut self, shape: &[u64]) -> Result<(), ArrayError> {
        require_dimensions::<D>(self.array.name(), shape.len())?;
        self.array.resize(shape)
    }

    /// Views that alias each other and stay while the array grows, for one thread.
    pub fn share(&mut self) -> SharedArray<'_, 't, T> {
        SharedArray::new(&mut self.array)
    }

    fn whole(&self) -> Result<Selection, ArrayError> {
        self.array.select(&[])
    }

    fn rows_selection(&self, rows: &Range<u64>) -> Result<Selection, ArrayError> {
        let Some(axis) = shape::major_axis(self.array.ndim(), self.array.order()) else {
            return self.whole();
        };
        let mut indices = vec![Index::Slice { start: None, stop: None, step: None }; axis + 1];
        let (start, stop) = (Some(rows.start.into()), Some(rows.end.into()));
        indices[axis] = Index::Slice { start, stop, step: None };
        self.array.select(&indices)
    }

    fn typed(&self, selection: Selection) -> Result<ArrayView<'_, T, D>, ArrayError> {
        let view = view::view::<T>(&self.array, &selection)?;
        let found = view.ndim();
        view.into_dimensionality::<D>().map_err(|_| self.dimensions(found))
    }

    fn typed_mut(&mut self, selection: Selection) -> Result<ArrayViewMut<'_, T, D>, ArrayError> {
        let error = self.dimensions(selection.ndim());
        let view: ArrayViewMut<'_, T, IxDyn> = view::view_mut(&mut self.array, &selection)?;
        view.into_dimensionality::<D>().map_err(|_| error)
    }

    fn dimensions(&self, found: usize) -> ArrayError {
        let name = self.array.name().to_owned();
        ArrayError::Dimensions { name, expected: D::NDIM.unwrap_or(found), found }
    }
}

/// Cuts a part in two across the axis along which it extends farthest; `None` for one element.
fn halves(part: &Selection, ranges: &[Range<usize>]) -> Option<[Vec<Range<usize>>; 2]> {
    let extent = |axis: &usize| {
        part.strides()[*axis].unsigned_abs() * u128::from(part.shape()[*axis].saturating_sub(1))
    };
    let axis = (0..ranges.len()).filter(|&axis| ranges[axis].len() > 1).max_by_key(extent)?;
    let middle = ranges[axis].start + ranges[axis].len() / 2;
    let (mut low, mut high) = (ranges.to_vec(), ranges.to_vec());
    low[axis].end = middle;
    high[axis].start = middle;
    Some([low, high])
}

/// Lends shape, order and bytes of `rows`, which are copied first if they do not lie densely.
fn with_dense<T: Element, S: Data<Elem = T>, D: Dimension, R>(
    rows: &ArrayBase<S, D>,
    then: impl FnOnce(&[u64], Order, &[u8]) -> Result<R, ArrayError>,
) -> Result<R, ArrayError> {
    let shape: Vec<u64> = rows.shape().iter().map(|&len| len as u64).collect();
    if let Some((order, bytes)) = dense(rows) {
        return then(&shape, order, bytes);
    }
    match dense(&rows.as_standard_layout()) {
        Some((order, bytes)) => then(&shape, order, bytes),
        None => Err(ArrayError::BufferSize { expected: 0, given: rows.len() }),
    }
}

/// The bytes of `values` and their order, if they lie densely.
fn dense<T: Element, S: Data<Elem = T>, D: Dimension>(
    values: &ArrayBase<S, D>,
) -> Option<(Order, &[u8])> {
    if let Some(elements) = values.as_slice() {
        return Some((Order::C, as_bytes(elements)));
    }
    if values.t().is_standard_layout() {
        return values.as_slice_memory_order().map(|elements| (Order::F, as_bytes(elements)));
    }
    None
}

fn require_dimensions<D: Dimension>(name: &str, found: usize) -> Result<(), ArrayError> {
    match D::NDIM {
        Some(expected) if expected != found => {
            Err(ArrayError::Dimensions { name: name.to_owned(), expected, found })
        }
        _ => Ok(()),
    }
}
