//! A handle lends its mapped memory: as bytes, and as ndarray views.
//!
//! This is an unsafe home because a view borrows memory that only the kernel knows. The proof is
//! the same for every function here:
//!
//! # Invariants
//!
//! 1. [`DynArray::memory`] returns an address from which the whole byte range of the selection is
//!    mapped, inside one reservation, and initialised (files, zeros, private copies).
//! 2. It stays mapped there, with the same content but for what is written through it, while the
//!    handle is borrowed: what maps again takes the handle (`&mut DynArray`) or the transaction
//!    (`&mut Transaction`, `commit(self)`) exclusively, or touches other pages only.
//! 3. There is one handle of an array in a transaction, and every transaction has reservations of
//!    its own, so a mutable borrow of the handle is the only way to the memory.
//! 4. Committed bytes never change (invariant 1 of `storage::extent`), so bytes of a file under a
//!    private mapping are as constant as memory nobody writes.

use std::slice;

use ndarray::{ArrayView, ArrayViewMut, IxDyn, MathCell};

use super::cast::{self, Element};
use super::dynamic::DynArray;
use super::error::ArrayError;
use super::index::Selection;
use crate::units::PageRange;

#[cfg(feature = "compute")]
impl DynArray<'_> {
    /// The bytes from the lowest to the highest selected element, mapped and neither read nor
    /// compared with their checksums; see [`ensure`](Self::ensure).
    pub(crate) fn mapped(&self, selection: &Selection) -> Result<&[u8], ArrayError> {
        bytes(self, selection)
    }

    /// The selected elements, mapped as by [`ZBigArray::get`](super::ZBigArray::get).
    pub(crate) fn elements<T: Element>(
        &self,
        selection: &Selection,
    ) -> Result<ArrayView<'_, T, IxDyn>, ArrayError> {
        super::element::check::<T>(self.dtype())?;
        view(self, selection)
    }
}

/// The bytes from the lowest to the highest selected element.
pub(super) fn bytes<'a>(
    array: &'a DynArray<'_>,
    selection: &Selection,
) -> Result<&'a [u8], ArrayError> {
    let Some((lo, hi)) = selection.byte_range() else { return Ok(&[]) };
    let (memory, start) = array.memory(selection, false)?;
    let at = memory.as_ptr().wrapping_add(to_usize(lo - start));
    // SAFETY: `lo..hi` is mapped and initialised (invariant 1), unchanged while `array` is
    // borrowed (invariants 2 to 4), and below `isize::MAX` because it is one reservation.
    Ok(unsafe { slice::from_raw_parts(at, to_usize(hi - lo)) })
}

/// The bytes of `pages`, which may reach beyond the last element within the last page.
pub(super) fn pages<'a>(array: &'a DynArray<'_>, pages: PageRange) -> Result<&'a [u8], ArrayError> {
    let memory = array.memory_of(pages, false)?;
    // SAFETY: as in `bytes`: whole pages are mapped and initialised (invariant 1).
    Ok(unsafe { slice::from_raw_parts(memory.as_ptr(), to_usize(pages.len_bytes())) })
}

/// The same as [`bytes`] for writing.
pub(super) fn bytes_mut<'a>(
    array: &'a mut DynArray<'_>,
    selection: &Selection,
) -> Result<&'a mut [u8], ArrayError> {
    let Some((lo, hi)) = selection.byte_range() else { return Ok(&mut []) };
    let (memory, start) = array.memory(selection, true)?;
    let at = memory.as_ptr().wrapping_add(to_usize(lo - start));
    // SAFETY: as in `bytes`; the mapping is private and writable, and the exclusive borrow of the
    // only handle excludes every other use (invariant 3).
    Ok(unsafe { slice::from_raw_parts_mut(at, to_usize(hi - lo)) })
}

/// The selected elements, to read.
pub(super) fn view<'a, T: Element>(
    array: &'a DynArray<'_>,
    selection: &Selection,
) -> Result<ArrayView<'a, T, IxDyn>, ArrayError> {
    let (memory, start) = array.memory(selection, false)?;
    let selection = selection.seen_from(start);
    // SAFETY: the selection's range is mapped from `memory` on (invariant 1) and constant while
    // `array` is borrowed (invariants 2 to 4).
    Ok(unsafe { cast::view_from_raw(array, memory, &selection) }?)
}

/// The selected elements, to read and write.
pub(super) fn view_mut<'a, T: Element>(
    array: &'a mut DynArray<'_>,
    selection: &Selection,
) -> Result<ArrayViewMut<'a, T, IxDyn>, ArrayError> {
    let (memory, start) = array.memory(selection, true)?;
    let selection = selection.seen_from(start);
    // SAFETY: as in `view`; private and writable, and nobody else uses the memory while the only
    // handle is borrowed exclusively (invariant 3).
    Ok(unsafe { cast::view_mut_from_raw(array, memory, &selection) }?)
}

/// The selected elements as cells. `owner` holds the handle exclusively and is not `Sync`.
pub(super) fn cells<'a, T: Element, O: ?Sized>(
    owner: &'a O,
    array: &DynArray<'_>,
    selection: &Selection,
) -> Result<ArrayView<'a, MathCell<T>, IxDyn>, ArrayError> {
    let (memory, start) = array.memory(selection, true)?;
    let selection = selection.seen_from(start);
    // SAFETY: mapped, private and writable as in `view_mut`; the caller's `owner` borrows the only
    // handle exclusively and stays on one thread, and gives out nothing but cells.
    Ok(unsafe { cast::cells_from_raw(owner, memory, &selection) }?)
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
