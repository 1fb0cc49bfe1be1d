//! An array whose element type is known only at run time: the whole logic of arrays.
//!
//! ```text
//! shape, order, dtype  ->  Selection  ->  bytes lo..hi of the linear array  ->  pages to map
//! ```
//!
//! # Invariants
//!
//! 1. Element `(i, j, ...)` lies at byte `i * stride_i + j * stride_j + ...`, without padding, so
//!    growth along the major axis moves nothing.
//! 2. Bytes beyond the last element never become visible: growth resets them to the fill value.
//! 3. There is one handle of an array in a transaction; what re-maps pages takes it exclusively.

use std::ptr::NonNull;
use std::sync::Arc;

use super::convert::Conversion;
use super::descriptor::Descriptor;
use super::dtype::Dtype;
use super::error::ArrayError;
use super::index::{self, Index, Selection, resolve};
use super::layout::{copies, is_contiguous};
use super::options::ArrayOptions;
use super::rounds::{ROUND_BYTES, Rounds};
use super::shape::{self, Order};
use super::view;
use crate::txn::{
    AppendedRows, ArrayEntry, Attributes, CatalogChange, Node, Owner, Rows, Segment, Transaction,
};
use crate::units::{
    ArrayId, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, PAGE_BYTES, PageRange, PageSet, Tid,
};
use crate::vm::{MapError, populate};

/// Runs of at least this many bytes are written one by one, past memory.
const LONG_RUN_BYTES: u64 = 64 << 10;

/// A handle of one array of any element type, within a transaction.
pub struct DynArray<'t> {
    pub(super) transaction: &'t Transaction,
    pub(super) id: ArrayId,
    name: Arc<str>,
    block_bytes: u64,
    descriptor: Descriptor,
    // Whether views may live while the array is resized, so that it must not move.
    in_place: bool,
}

impl<'t> DynArray<'t> {
    /// Creates an array of `shape`, all elements of which have the fill value.
    ///
    /// Groups above it are created as needed. Cost O(1): nothing is allocated for elements.
    ///
    /// # Errors
    ///
    /// [`ArrayError`] if the name is taken or is none, the shape is too large, or options are
    /// impossible.
    pub fn create(
        transaction: &'t Transaction,
        name: &str,
        dtype: &Dtype,
        shape: &[u64],
        options: &ArrayOptions,
    ) -> Result<Self, ArrayError> {
        let block_bytes = options.block_bytes.unwrap_or(transaction.block_bytes());
        if !block_bytes.is_power_of_two()
            || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block_bytes)
        {
            return Err(ArrayError::BlockSize { bytes: block_bytes });
        }
        Selection::whole(shape, dtype.itemsize(), options.order)?;
        let descriptor = Descriptor::new(dtype.clone(), options.order, options.fill.as_deref())?;
        let name: Arc<str> = Arc::from(name);
        let entry = ArrayEntry {
            id: transaction.next_array()?,
            shape: Arc::from(shape),
            block_bytes,
            codec: options.codec.for_elements_of(dtype.itemsize()),
            descriptor: Arc::from(descriptor.to_json()?),
            attributes: Attributes::new(),
            created: Tid::ZERO,
            changed: Tid::ZERO,
        };
        let change = CatalogChange::CreateArray { name: Arc::clone(&name), entry };
        transaction.change_any(change)?;
        Self::open(transaction, &name)
    }

    /// Opens the array `name`. Cost O(1): nothing is mapped yet.
    ///
    /// # Errors
    ///
    /// [`ArrayError::NotFound`], [`ArrayError::IsGroup`], or
    /// [`TransactionError::AlreadyOpen`](crate::txn::TransactionError::AlreadyOpen) while another
    /// handle of it is alive in this transaction.
    pub fn open(transaction: &'t Transaction, name: &str) -> Result<Self, ArrayError> {
        let catalog = transaction.names();
        let Some(entry) = catalog.array(name) else {
            let name = name.to_owned();
            return Err(match catalog.node(&name) {
                Some(Node::Group(_)) => ArrayError::IsGroup { name },
                _ => ArrayError::NotFound { name },
            });
        };
        let descriptor = Descriptor::from_json(&entry.descriptor)?;
        let nbytes = shape::nbytes(&entry.shape, descriptor.dtype.itemsize())?;
        let (id, block_bytes) = (entry.id, entry.block_bytes);
        transaction.open_array(id, nbytes.div_ceil(PAGE_BYTES), || descriptor.hole_content())?;
        let (name, in_place) = (Arc::from(name), false);
        Ok(Self { transaction, id, name, block_bytes, descriptor, in_place })
    }

    /// The name it was opened by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The transaction it belongs to.
    #[must_use]
    pub fn transaction(&self) -> &'t Transaction {
        self.transaction
    }

    /// Identity within the store.
    #[must_use]
    pub fn id(&self) -> ArrayId {
        self.id
    }

    /// Element type.
    #[must_use]
    pub fn dtype(&self) -> &Dtype {
        &self.descriptor.dtype
    }

    /// Which axis varies fastest.
    #[must_use]
    pub fn order(&self) -> Order {
        self.descriptor.order
    }

    /// One element as elements are that nobody wrote; `None` for zeros.
    #[must_use]
    pub fn fill(&self) -> Option<&[u8]> {
        self.descriptor.fill.as_deref()
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// Length along each axis.
    ///
    /// A transaction that asks knows where the array ends: what it appends is not moved behind
    /// what others append, but conflicts with it. So do [`len`](Self::len), [`size`](Self::size),
    /// [`nbytes`](Self::nbytes) and [`is_empty`](Self::is_empty).
    #[must_use]
    pub fn shape(&self) -> Arc<[u64]> {
        self.transaction.saw_end(self.id);
        self.dims()
    }

    /// The same, for what does not depend on where the array ends.
    pub(super) fn dims(&self) -> Arc<[u64]> {
        match self.transaction.names().array_by_id(self.id) {
            Some(entry) => Arc::clone(&entry.shape),
            // The array was removed through the catalog while the handle lived.
            None => Arc::from([0]),
        }
    }

    /// Number of axes.
    #[must_use]
    pub fn ndim(&self) -> usize {
        self.dims().len()
    }

    /// Bytes of an element.
    #[must_use]
    pub fn itemsize(&self) -> u64 {
        self.descriptor.dtype.itemsize()
    }

    /// Number of elements.
    #[must_use]
    pub fn size(&self) -> u128 {
        shape::size(&self.shape())
    }

    /// Number of bytes of all elements.
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.transaction.saw_end(self.id);
        self.end_byte()
    }

    /// The same, for what does not depend on where the array ends.
    pub(super) fn end_byte(&self) -> u64 {
        shape::nbytes(&self.dims(), self.itemsize()).unwrap_or(u64::MAX)
    }

    /// Bytes from one element to the next along each axis.
    #[must_use]
    pub fn strides(&self) -> Vec<u64> {
        shape::strides(&self.dims(), self.itemsize(), self.order())
    }

    /// Length along the major axis: the first in C order, the last in Fortran order.
    ///
    /// # Errors
    ///
    /// [`ShapeError`](super::ShapeError) for an array without axes, which has no length.
    pub fn len(&self) -> Result<u64, ArrayError> {
        Ok(shape::len(&self.shape(), self.order())?)
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shape().contains(&0)
    }

    /// The elements that `indices` select, as NumPy's basic indexing has it.
    ///
    /// # Errors
    ///
    /// [`IndexError`](super::IndexError).
    pub fn select(&self, indices: &[Index]) -> Result<Selection, ArrayError> {
        let dims = self.dims();
        let found = resolve(indices, &dims, self.itemsize(), self.order());
        if self.transaction.is_writable() {
            // Whoever gets something else of a longer array is shown where this one ends.
            let longer = shape::longer(&dims, self.order(), index::reach(indices));
            let other = resolve(indices, &longer, self.itemsize(), self.order());
            if found.as_ref().ok() != other.as_ref().ok() || found.is_err() {
                self.transaction.saw_end(self.id);
            }
        }
        Ok(found?)
    }

    /// Attributes, as JSON text by key.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        let catalog = self.transaction.names();
        catalog.array_by_id(self.id).map(|entry| entry.attributes.clone()).unwrap_or_default()
    }

    /// Sets an attribute.
    ///
    /// # Errors
    ///
    /// [`TransactionError::ReadOnly`](crate::txn::TransactionError::ReadOnly).
    pub fn set_attribute(
        &mut self,
        key: &str,
        value: &serde_json::Value,
    ) -> Result<(), ArrayError> {
        self.change_attribute(key, Some(Arc::from(value.to_string())))
    }

    /// Removes an attribute; nothing happens if there is none.
    ///
    /// # Errors
    ///
    /// [`TransactionError::ReadOnly`](crate::txn::TransactionError::ReadOnly).
    pub fn remove_attribute(&mut self, key: &str) -> Result<(), ArrayError> {
        self.change_attribute(key, None)
    }

    fn change_attribute(&mut self, key: &str, value: Option<Arc<str>>) -> Result<(), ArrayError> {
        let (owner, key) = (Owner::Array(self.id), Arc::from(key));
        Ok(self.transaction.change(CatalogChange::Attribute { owner, key, value })?)
    }

    /// Copies the selected elements into `bytes`, dense in `order`.
    ///
    /// What is copied was compared with its checksums, once in this process; see
    /// [`ensure`](Self::ensure).
    ///
    /// # Errors
    ///
    /// [`ArrayError::BufferSize`] if `bytes` has not the selection's size, and those of
    /// [`ensure`](Self::ensure).
    pub fn read(
        &self,
        selection: &Selection,
        order: Order,
        bytes: &mut [u8],
    ) -> Result<(), ArrayError> {
        require_size(selection, bytes.len())?;
        let Some((start, _)) = selection.byte_range() else { return Ok(()) };
        let memory = view::bytes(self, selection)?;
        for round in Rounds::of(copies(selection, order)) {
            self.ensure_pages(&round.pages)?;
            for copy in round.copies {
                let (from, to) =
                    (to_usize(copy.array_offset - start), to_usize(copy.buffer_offset));
                let len = to_usize(copy.len);
                bytes[to..to + len].copy_from_slice(&memory[from..from + len]);
            }
        }
        Ok(())
    }

    /// Makes sure that the selected elements can be read and are what was committed, so that a
    /// view of them neither waits for the disk nor ends the process.
    ///
    /// Brings them into memory, and compares each block the first time this process asks: with
    /// one checksum for a whole block, so cost O(bytes of the blocks touched) then. Elements that
    /// were written by this transaction are as they were written. Memory that is short may be
    /// given back by the kernel at any time, and is read again without a check.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Data`](crate::txn::TransactionError::Data) naming the first block and
    /// byte that is damaged or cannot be read.
    pub fn ensure(&self, selection: &Selection) -> Result<(), ArrayError> {
        // What is mapped at once is one window, as for a view.
        view::bytes(self, selection)?;
        let rounds = Rounds::of(copies(selection, self.order()));
        rounds.into_iter().try_for_each(|round| self.ensure_pages(&round.pages))
    }

    fn ensure_pages(&self, pages: &PageSet) -> Result<(), ArrayError> {
        for range in pages.iter() {
            for stored in self.transaction.check(self.id, range)? {
                populate(view::pages(self, stored)?).map_err(|error| match error {
                    MapError::Unreadable { offset_bytes } => {
                        let page = stored.start + offset_bytes / PAGE_BYTES;
                        self.transaction.data_error(self.id, page, error.into())
                    }
                    other => other.into(),
                })?;
            }
        }
        Ok(())
    }

    /// The same for the pages of which a write of `len` bytes from byte `at` on leaves a part.
    fn ensure_edges(&self, at: u64, len: u64) -> Result<(), ArrayError> {
        let edges = [at, at + len].into_iter().filter(|edge| edge % PAGE_BYTES != 0);
        self.ensure_pages(&edges.map(|edge| PageRange::at(edge / PAGE_BYTES, 1)).collect())
    }

    /// Gives the selected elements the values in `bytes`, dense in `order`.
    ///
    /// Contiguous parts of whole blocks go straight to fresh extents, the rest into private pages
    /// that are staged when there are many: memory does not bound the size.
    ///
    /// # Errors
    ///
    /// [`ArrayError::BufferSize`] if `bytes` has not the selection's size; errors of the disk.
    pub fn write(
        &mut self,
        selection: &Selection,
        order: Order,
        bytes: &[u8],
    ) -> Result<(), ArrayError> {
        require_size(selection, bytes.len())?;
        if is_contiguous(selection, order) {
            return self.write_run(selection.offset(), bytes);
        }
        let all = copies(selection, order);
        if all.run_len() >= LONG_RUN_BYTES {
            for copy in all {
                let from = to_usize(copy.buffer_offset);
                self.write_run(copy.array_offset, &bytes[from..from + to_usize(copy.len)])?;
            }
            return Ok(());
        }
        let Some((start, _)) = selection.byte_range() else { return Ok(()) };
        for round in Rounds::of(all) {
            self.ensure_pages(&round.pages)?;
            let memory = view::bytes_mut(self, selection)?;
            for copy in round.copies {
                let to = to_usize(copy.array_offset - start);
                let from = to_usize(copy.buffer_offset);
                let len = to_usize(copy.len);
                memory[to..to + len].copy_from_slice(&bytes[from..from + len]);
            }
            // A byte written costs a page.
            self.transaction.wrote(self.id, round.pages.count() * PAGE_BYTES)?;
        }
        Ok(())
    }

    fn write_run(&mut self, at: u64, bytes: &[u8]) -> Result<(), ArrayError> {
        self.ensure_edges(at, bytes.len() as u64)?;
        Ok(self.transaction.write(self.id, at, bytes)?)
    }

    /// Writes into the array's linear bytes, from byte `at` on: how streams of elements in the
    /// array's own order come in.
    ///
    /// # Errors
    ///
    /// [`ArrayError::BeyondEnd`] if the array has not that many bytes; errors of the disk.
    pub fn write_linear(&mut self, at: u64, bytes: &[u8]) -> Result<(), ArrayError> {
        let nbytes = self.end_byte();
        if at.checked_add(bytes.len() as u64).is_none_or(|end| end > nbytes) {
            return Err(ArrayError::BeyondEnd { at, len: bytes.len(), nbytes });
        }
        self.write_run(at, bytes)
    }

    /// Appends `rows`, dense in `order`, along the major axis. Cost O(rows), whatever the array's
    /// length. Nothing happens for no rows.
    ///
    /// # Errors
    ///
    /// [`ShapeError`](super::ShapeError) if the other axes do not match. After any error the array
    /// has its old shape.
    pub fn append(
        &mut self,
        rows_shape: &[u64],
        order: Order,
        rows: &[u8],
    ) -> Result<AppendedRows, ArrayError> {
        let given = (self.itemsize(), rows.len());
        self.append_by(rows_shape, order, given, |array, tail| array.write(tail, order, rows))
    }

    /// Appends `rows`, numbers of type `dtype`, dense in `order`, cast as an assignment in NumPy
    /// casts them: 1.7 becomes 1 in an array of integers. Cost O(rows).
    ///
    /// An integer keeps its lowest bits. A float loses its fraction; one that the integer cannot
    /// hold becomes the nearest that it can, and NaN becomes 0. A complex number loses its
    /// imaginary part; anything but 0 is true. Rows in the array's own order are cast part by
    /// part, others in memory of their own.
    ///
    /// # Errors
    ///
    /// [`CastError::NotNumbers`](super::CastError::NotNumbers) if one of the types is no number of
    /// Rust, and those of [`append`](Self::append). The array then has its old shape.
    pub fn append_cast(
        &mut self,
        rows_shape: &[u64],
        order: Order,
        dtype: &Dtype,
        rows: &[u8],
    ) -> Result<AppendedRows, ArrayError> {
        if dtype == self.dtype() {
            return self.append(rows_shape, order, rows);
        }
        let conversion = Conversion::new(dtype, self.dtype())?;
        let given = (dtype.itemsize(), rows.len());
        let part = ROUND_BYTES / self.itemsize().max(dtype.itemsize()) * dtype.itemsize();
        self.append_by(rows_shape, order, given, |array, tail| {
            let mut cast = Vec::new();
            if !is_contiguous(tail, order) {
                conversion.run(rows, &mut cast);
                return array.write(tail, order, &cast);
            }
            let mut at = tail.offset();
            rows.chunks(to_usize(part)).try_for_each(|part| {
                cast.clear();
                conversion.run(part, &mut cast);
                array.write_run(at, &cast)?;
                at += cast.len() as u64;
                Ok(())
            })
        })
    }

    /// Appends rows of which so many bytes, of elements of such a size, are given to `write`.
    fn append_by(
        &mut self,
        rows_shape: &[u64],
        order: Order,
        (itemsize, given): (u64, usize),
        write: impl FnOnce(&mut Self, &Selection) -> Result<(), ArrayError>,
    ) -> Result<AppendedRows, ArrayError> {
        shape::appended(&self.dims(), self.order(), rows_shape)?;
        require_size(&Selection::whole(rows_shape, itemsize, order)?, given)?;
        self.append_rows(rows_shape, write)
    }

    /// Appends rows of shape `rows_shape`, not all in memory, that `write` stores. Cost O(rows).
    ///
    /// # Errors
    ///
    /// [`ShapeError`](super::ShapeError) if the rows do not fit the array, and what `write`
    /// returns. The array then has its old shape.
    pub fn append_with<E: From<ArrayError>>(
        &mut self,
        rows_shape: &[u64],
        write: impl FnOnce(&mut NewRows<'_, 't>) -> Result<(), E>,
    ) -> Result<AppendedRows, E> {
        self.append_rows(rows_shape, |array, rows| {
            write(&mut NewRows { array, rows: rows.clone() })
        })
    }

    /// `write` may write the new elements only: rows may be moved, and nothing else with them.
    fn append_rows<E: From<ArrayError>>(
        &mut self,
        rows_shape: &[u64],
        write: impl FnOnce(&mut Self, &Selection) -> Result<(), E>,
    ) -> Result<AppendedRows, E> {
        let before = self.dims();
        let after = shape::appended(&before, self.order(), rows_shape).map_err(ArrayError::from)?;
        let axis = shape::major_axis(before.len(), self.order()).unwrap_or(0);
        let (count, start) = (after[axis] - before[axis], self.end_byte());
        let tail = self.tail(&after, &before)?;
        self.transaction.append_begins(self.id).map_err(ArrayError::from)?;
        let appended = self.resize(&after).map_err(E::from).and_then(|()| write(self, &tail));
        if appended.is_err() {
            // Best effort: if this fails too, the transaction is poisoned and can only abort.
            let _ = self.resize(&before);
        }
        let row_bytes = (self.end_byte() - start).checked_div(count).unwrap_or(0);
        let rows = appended.is_ok().then_some(Rows { before, axis, count, row_bytes });
        let told = self.transaction.append_ends(self.id, rows).map_err(ArrayError::from)?;
        appended.map(|()| told)
    }

    /// The elements that an array of shape `after` has and one of shape `before` has not.
    fn tail(&self, after: &[u64], before: &[u64]) -> Result<Selection, ArrayError> {
        let axis = shape::major_axis(before.len(), self.order()).unwrap_or(0);
        let all = Index::Slice { start: None, stop: None, step: None };
        let mut indices = vec![all; before.len()];
        let start = Some(i128::from(before[axis]));
        indices[axis] = Index::Slice { start, stop: None, step: None };
        Ok(resolve(&indices, after, self.itemsize(), self.order())?)
    }

    /// Gives the array another shape, also another number of axes: the linear bytes stay and are
    /// read anew. What was not there before has the fill value. Cost O(1).
    ///
    /// # Errors
    ///
    /// [`ShapeError`](super::ShapeError) if it is too large.
    pub fn resize(&mut self, shape: &[u64]) -> Result<(), ArrayError> {
        let before = self.dims();
        if before[..] == *shape {
            return Ok(());
        }
        Selection::whole(shape, self.itemsize(), self.order())?;
        let (old, new) = (self.end_byte(), shape::nbytes(shape, self.itemsize())?);
        let layout = old > 0 && !grows_only(&before, shape, self.order());
        let shape = Arc::from(shape);
        let array = self.id;
        let (old_end, new_end) = (old.div_ceil(PAGE_BYTES), new.div_ceil(PAGE_BYTES));
        // First what may be refused, so that the array is as it was then.
        self.transaction.reserve(self.id, new_end, !self.in_place)?;
        let change = CatalogChange::Shape { array, shape, layout };
        if let Err(error) = self.transaction.change_any(change) {
            self.transaction.reserve(self.id, old_end, false)?;
            return Err(error.into());
        }
        if new < old {
            self.cut(old, new)?;
        }
        if new > old {
            self.transaction.forget_private(self.id, PageRange::new(old_end, new_end))?;
            self.reset_bytes(old, new.min(old_end.saturating_mul(PAGE_BYTES)))?;
        }
        Ok(())
    }

    /// Gives up the bytes from `new` to `old`, the end so far.
    fn cut(&mut self, old: u64, new: u64) -> Result<(), ArrayError> {
        let (old_end, new_end) = (old.div_ceil(PAGE_BYTES), new.div_ceil(PAGE_BYTES));
        if new_end < old_end {
            self.transaction.punch(self.id, PageRange::new(new_end, old_end))?;
        }
        if new.is_multiple_of(PAGE_BYTES) {
            return Ok(());
        }
        // Written in any case: who still sees the old length and writes to the rest of the last
        // page has to be in conflict, else what it writes would be there after growth.
        let filled = self.filled(new, old.min(new_end.saturating_mul(PAGE_BYTES)));
        self.transaction.write(self.id, new, &filled)?;
        Ok(self.transaction.touch_holes(self.id, PageRange::new(new_end - 1, new_end))?)
    }

    /// The bytes `from..to` of the array as nobody wrote them.
    fn filled(&self, from: u64, to: u64) -> Vec<u8> {
        let zero = [0];
        let fill = self.fill().unwrap_or(&zero);
        let phase = to_usize(from % fill.len() as u64);
        fill.iter().copied().cycle().skip(phase).take(to_usize(to - from)).collect()
    }

    /// Keeps invariant 2: bytes `from..to` of one page get the fill value if they have it not.
    fn reset_bytes(&mut self, from: u64, to: u64) -> Result<(), ArrayError> {
        if from >= to {
            return Ok(());
        }
        let wanted = self.filled(from, to);
        let range = Selection::whole(&[to], 1, Order::C)?.select(&[Index::Slice {
            start: Some(i128::from(from)),
            stop: None,
            step: None,
        }])?;
        if view::bytes(self, &range)? != wanted {
            self.transaction.write(self.id, from, &wanted)?;
        }
        Ok(())
    }

    /// Compares the stored content of the selected elements with its checksums.
    ///
    /// Reads whole blocks, past memory. Changes of this transaction are not looked at.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Data`](crate::txn::TransactionError::Data).
    pub fn verify(&self, selection: &Selection) -> Result<(), ArrayError> {
        match selection.byte_range() {
            Some((lo, hi)) => Ok(self.transaction.verify(self.id, PageRange::covering(lo, hi))?),
            None => Ok(()),
        }
    }

    /// Where the array's pages lie on the disk.
    ///
    /// # Errors
    ///
    /// [`ArrayError::Transaction`] if the index cannot be read.
    pub fn segments(&self) -> Result<Vec<Segment>, ArrayError> {
        let pages = PageRange::covering(0, self.end_byte());
        Ok(self.transaction.segments(self.id, pages)?)
    }

    /// Writes what was stored through views so far to extents, as a commit would, so that the
    /// memory is free again. Nothing is committed by it.
    ///
    /// # Errors
    ///
    /// [`ArrayError::Transaction`] if the disk is full or fails.
    pub fn stage(&mut self) -> Result<(), ArrayError> {
        Ok(self.transaction.stage(self.id)?)
    }

    /// Asks the kernel to read the selected elements ahead.
    pub fn will_need(&self, selection: &Selection) {
        if let Some((lo, hi)) = selection.byte_range() {
            self.transaction.will_need(self.id, PageRange::covering(lo, hi));
        }
    }

    /// Says that the selected elements are not needed soon: in a transaction that only reads they
    /// are no memory of this process until they are used again. Views of them stay as they are.
    pub fn let_go(&self, selection: &Selection) {
        if let Some((lo, hi)) = selection.byte_range() {
            self.transaction.let_go(self.id, PageRange::covering(lo, hi));
        }
    }

    /// Says whether views may live while the array is resized.
    pub(super) fn keep_in_place(&mut self, in_place: bool) {
        self.in_place = in_place;
    }

    /// Maps what `selection` selects; the address of byte `start` of the array, and `start`.
    pub(super) fn memory(
        &self,
        selection: &Selection,
        write: bool,
    ) -> Result<(NonNull<u8>, u64), ArrayError> {
        let Some((lo, hi)) = selection.byte_range() else {
            return Ok((NonNull::dangling(), 0));
        };
        let pages = PageRange::covering(lo, hi);
        Ok((self.memory_of(pages, write)?, pages.start_byte()))
    }

    /// Maps `pages`; the address of the first.
    pub(super) fn memory_of(
        &self,
        pages: PageRange,
        write: bool,
    ) -> Result<NonNull<u8>, ArrayError> {
        Ok(self.transaction.map(self.id, pages, write)?)
    }
}

impl Drop for DynArray<'_> {
    fn drop(&mut self) {
        self.transaction.close_array(self.id);
    }
}

fn require_size(selection: &Selection, given: usize) -> Result<(), ArrayError> {
    let expected = selection.nbytes();
    if expected == given as u64 {
        return Ok(());
    }
    Err(ArrayError::BufferSize { expected, given })
}

/// Whether every element that is in both shapes lies at the same byte.
fn grows_only(before: &[u64], after: &[u64], order: Order) -> bool {
    if before.len() != after.len() {
        return false;
    }
    let Some(major) = shape::major_axis(before.len(), order) else { return true };
    before.iter().zip(after).enumerate().all(|(axis, (a, b))| axis == major || a == b)
}

fn to_usize(bytes: u64) -> usize {
    // Offsets within what is mapped or in a slice: both fit the address space.
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The new rows of an array while they are appended, for [`DynArray::append_with`].
pub struct NewRows<'a, 't> {
    array: &'a mut DynArray<'t>,
    rows: Selection,
}

impl NewRows<'_, '_> {
    /// The first new byte, as it is now: writes that end at multiples of the block size cost least.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.rows.offset()
    }

    /// Writes bytes as they lie in the array, from byte `at` of the new rows on.
    ///
    /// # Errors
    ///
    /// Those of [`DynArray::write_linear`].
    pub fn write_linear(&mut self, at: u64, bytes: &[u8]) -> Result<(), ArrayError> {
        self.array.write_linear(self.rows.offset().saturating_add(at), bytes)
    }

    /// Writes elements, dense in `order`, to those of the new rows that `indices` select.
    ///
    /// # Errors
    ///
    /// [`IndexError`](super::IndexError) and those of [`DynArray::write`].
    pub fn write(
        &mut self,
        indices: &[Index],
        order: Order,
        elements: &[u8],
    ) -> Result<(), ArrayError> {
        self.array.write(&self.rows.select(indices)?, order, elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::{CreateOptions, Store};

    #[test]
    fn linear_bytes_are_written_across_elements_and_never_behind_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path().join("s"), CreateOptions::default()).unwrap();
        let transaction = store.begin().unwrap();
        let dtype = Dtype::parse("u1").unwrap();
        let options = ArrayOptions::new().order(Order::F).block_bytes(BLOCK_BYTES_MIN);
        let mut array = DynArray::create(&transaction, "a", &dtype, &[700, 500], &options).unwrap();
        let wanted: Vec<u8> = (0..350_000_u32).map(|at| at.to_le_bytes()[1] ^ 7).collect();
        for (at, part) in wanted.chunks(99_991).enumerate() {
            array.write_linear(at as u64 * 99_991, part).unwrap();
        }
        for (at, len) in [(349_999, 2), (350_001, 0), (u64::MAX, 1)] {
            let refused = array.write_linear(at, &wanted[..len]);
            assert!(matches!(refused, Err(ArrayError::BeyondEnd { .. })), "{at} {len}");
        }
        let mut found = vec![0; wanted.len()];
        array.read(&array.select(&[]).unwrap(), Order::F, &mut found).unwrap();
        assert!(found == wanted);
    }
}
