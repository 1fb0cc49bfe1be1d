//! Owning a range of addresses: what lies there changes only through its owner.
//!
//! ```text
//! base (2 MiB-aligned)                                            base + pages
//! | closed ........ | mapped: file pages | mapped: zeros | closed ........... |   [free?]
//!   PROT_NONE         &[u8] and &mut [u8] only here                               try_grow
//! ```
//!
//! # Invariants
//!
//! 1. `[base, base + max(pages, 1) * 4096)` was given by the kernel to this reservation alone and
//!    stays so until drop. `base` is a multiple of 2 MiB, so that a file range which is aligned
//!    too can use huge pages (fact K-05).
//! 2. Exactly the pages of `mapped` can be read, and written if `access` is copy-on-write.
//! 3. Whoever changes what lies at an address holds `&mut self`, so no slice into it is alive.
//! 4. Bytes of a file that was placed never change, and the file is never cut off, as long as it
//!    is placed. Whoever places it promises that; the store keeps it by never touching a committed
//!    extent that a snapshot may name. The kernel shows such a change through clean pages at once
//!    (facts K-46 to K-48).
//!
//! # Failure
//!
//! A refused change leaves the old content, or, on kernels before 6.12 in cases that are hard to
//! provoke, closed pages; `mapped` tells. Addresses that the kernel will not take back at drop are
//! left mapped: that costs addresses and harms nobody.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::slice;

use super::MapError;
use super::sys::bus::{Label, Labelled};
use super::sys::madvise::{self, Advice};
use super::sys::mmap::{self, Access};
use super::sys::{SysError, limits, to_usize};
use crate::units::{PAGE_BYTES, PageRange, PageSet};

/// Alignment of the first address: the size of a huge page.
const ALIGN_BYTES: usize = 2 << 20;

/// Largest size of a reservation. More than 64 TiB would fail on usual machines, because the
/// largest gap between what a program needs anyway is 85 TiB (fact K-20).
const BYTES_MAX: u64 = 64 << 40;

/// Addresses that belong to one owner; dropping it unmaps everything there.
#[derive(Debug)]
pub struct Reservation {
    // Invariant 1.
    base: NonNull<u8>,
    pages: u64,
    access: Access,
    // Invariant 2.
    mapped: PageSet,
    label: Option<Labelled>,
}

// SAFETY: the addresses belong to the reservation, not to a thread, and `&self` only reads.
unsafe impl Send for Reservation {}
// SAFETY: as above; every change needs `&mut self` (invariant 3).
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves `pages` pages of addresses; none of them can be used before something is placed.
    ///
    /// Costs no memory and is O(1).
    ///
    /// # Errors
    ///
    /// [`MapError::AddressSpace`] above 64 TiB or if the process has no such gap,
    /// [`MapError::PageSize`] on a machine with other pages than 4 KiB.
    pub fn new(pages: u64, access: Access) -> Result<Self, MapError> {
        let page_bytes = limits::page_bytes().unwrap_or(0);
        if page_bytes != PAGE_BYTES {
            return Err(MapError::PageSize { bytes: page_bytes });
        }
        let bytes = pages.saturating_mul(PAGE_BYTES);
        if bytes > BYTES_MAX {
            return Err(MapError::AddressSpace { bytes });
        }
        let base = reserve_aligned(reserved_len(pages)).map_err(|error| match error {
            SysError::OutOfMemory { .. } => MapError::AddressSpace { bytes },
            other => other.into(),
        })?;
        Ok(Self { base, pages, access, mapped: PageSet::new(), label: None })
    }

    /// Makes the reservation `pages` pages long in place, if the addresses behind it are free.
    ///
    /// Returns whether it has at least that many pages now; it never shrinks or moves.
    #[must_use]
    pub fn try_grow(&mut self, pages: u64) -> bool {
        if pages <= self.pages {
            return true;
        }
        if pages.saturating_mul(PAGE_BYTES) > BYTES_MAX {
            return false;
        }
        let (old, new) = (reserved_len(self.pages), reserved_len(pages));
        // SAFETY: one past the end of what we own (invariant 1).
        let end = unsafe { self.base.add(old) };
        if new > old && mmap::reserve_at(end, new - old).is_err() {
            return false;
        }
        self.pages = pages;
        if let Some(label) = &self.label {
            label.set_len(reserved_len(pages));
        }
        true
    }

    /// What to say on stderr if a page here cannot be read and the process ends by SIGBUS.
    pub(super) fn set_label(&mut self, label: Label) {
        self.label = Some(Labelled::new(self.base, reserved_len(self.pages), label));
    }

    /// Number of pages.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// Address of page 0, a multiple of 2 MiB.
    #[must_use]
    pub const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// What may be done with mapped pages.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// The pages that something was placed at.
    #[must_use]
    pub const fn mapped(&self) -> &PageSet {
        &self.mapped
    }

    /// Places the bytes of `file` from `offset_bytes` at `pages`, in place of what was there.
    ///
    /// # Errors
    ///
    /// Whatever `mmap` refuses. [`Reservation::mapped`] tells what is left at `pages`.
    ///
    /// # Panics
    ///
    /// If `pages` is empty or not in the reservation.
    pub(super) fn place_file(
        &mut self,
        pages: PageRange,
        file: BorrowedFd<'_>,
        offset_bytes: u64,
    ) -> Result<(), MapError> {
        let (at, len) = self.part(pages);
        // SAFETY: `part` asserts that we own the addresses; `&mut self` proves that nothing
        // borrows them (invariant 3).
        let placed = unsafe { mmap::map_file(at, len, self.access, file, offset_bytes) };
        placed.map_err(|error| self.refused(pages, error))?;
        self.mapped.insert(pages);
        Ok(())
    }

    /// Places memory that reads as zeros at `pages`, in place of what was there.
    ///
    /// # Errors
    ///
    /// As for [`Reservation::place_file`].
    ///
    /// # Panics
    ///
    /// As for [`Reservation::place_file`].
    pub(super) fn place_zeros(&mut self, pages: PageRange) -> Result<(), MapError> {
        let (at, len) = self.part(pages);
        // SAFETY: as in `place_file`.
        let placed = unsafe { mmap::map_zeros(at, len, self.access) };
        placed.map_err(|error| self.refused(pages, error))?;
        self.mapped.insert(pages);
        Ok(())
    }

    /// Says that something else was placed at `pages`, which can be read from now on.
    pub(super) fn placed(&mut self, pages: PageRange) {
        assert!(pages.end <= self.pages, "{pages:?} are outside of {} pages", self.pages);
        self.mapped.insert(pages);
    }

    /// The label, if it has one.
    pub(super) fn label(&self) -> Option<Label> {
        self.label.as_ref().map(Labelled::label)
    }

    /// Closes `pages`: they cannot be read or written, and hold no memory.
    ///
    /// # Errors
    ///
    /// As for [`Reservation::place_file`].
    ///
    /// # Panics
    ///
    /// As for [`Reservation::place_file`].
    pub(super) fn close(&mut self, pages: PageRange) -> Result<(), MapError> {
        let (at, len) = self.part(pages);
        // SAFETY: as in `place_file`.
        let closed = unsafe { mmap::close(at, len) };
        closed.map_err(|error| self.refused(pages, error))?;
        self.mapped.remove(pages);
        Ok(())
    }

    /// Drops the private copies in `pages`.
    ///
    /// # Errors
    ///
    /// Whatever `madvise` refuses, for example on locked memory.
    ///
    /// # Panics
    ///
    /// If `pages` is not in the reservation.
    pub(super) fn drop_copies(&mut self, pages: PageRange) -> Result<(), MapError> {
        let (at, len) = self.part(pages);
        // SAFETY: as in `place_file`.
        unsafe { madvise::drop_copies(at, len) }.map_err(MapError::from)
    }

    /// Gives `advice` about `pages`; returns whether the kernel took it.
    ///
    /// # Panics
    ///
    /// If `pages` is not in the reservation.
    pub(super) fn advise(&self, pages: PageRange, advice: Advice) -> bool {
        let (at, len) = self.part(pages);
        madvise::advise(at, len, advice).is_ok()
    }

    /// Gives the memory of `pages` back to the page cache, if they cannot have private copies: the
    /// next use finds the same bytes there, or waits for the disk. Best effort.
    ///
    /// # Panics
    ///
    /// If `pages` is not in the reservation.
    pub(super) fn let_go(&self, pages: PageRange) {
        if self.access != Access::ReadOnly {
            return;
        }
        let (at, len) = self.part(pages);
        // SAFETY: nobody can have written there, so what is dropped reads as it did before.
        drop(unsafe { madvise::drop_copies(at, len) });
    }

    /// The bytes of `pages`.
    ///
    /// Nothing is copied; the first use of a page may wait for the disk.
    ///
    /// # Panics
    ///
    /// If not all of `pages` is mapped.
    #[must_use]
    pub fn bytes(&self, pages: PageRange) -> &[u8] {
        assert!(self.mapped.contains_range(pages), "{pages:?} are not mapped");
        let (at, len) = self.part(pages);
        // SAFETY: all of it is mapped readable by the assertion (invariant 2). Nobody writes it
        // while the result borrows `self`: not we (invariant 3), not the file (invariant 4).
        unsafe { slice::from_raw_parts(at.as_ptr(), len) }
    }

    /// The bytes of `pages`, to be written.
    ///
    /// A written page becomes a private copy. Nothing is copied by this call itself.
    ///
    /// # Panics
    ///
    /// If not all of `pages` is mapped, or the reservation is read-only.
    #[must_use]
    pub fn bytes_mut(&mut self, pages: PageRange) -> &mut [u8] {
        assert!(self.access == Access::CopyOnWrite, "a read-only mapping cannot be written");
        assert!(self.mapped.contains_range(pages), "{pages:?} are not mapped");
        let (at, len) = self.part(pages);
        // SAFETY: all of it is mapped writable by the assertions (invariant 2), and `&mut self`
        // makes the result the only reference into it; the file does not change (invariant 4).
        unsafe { slice::from_raw_parts_mut(at.as_ptr(), len) }
    }

    /// Address and length in bytes of `pages`.
    fn part(&self, pages: PageRange) -> (NonNull<u8>, usize) {
        assert!(pages.end <= self.pages, "{pages:?} are outside of {} pages", self.pages);
        // SAFETY: the offset is at most the length of what we own, by the assertion.
        let at = unsafe { self.base.add(to_usize(pages.start_byte())) };
        (at, to_usize(pages.len_bytes()))
    }

    /// Keeps invariants 1 and 2 after the kernel refused to map over `pages`.
    ///
    /// An old kernel may have removed the old content before it failed. If the addresses are free
    /// now, they are taken back before anybody else takes them.
    fn refused(&mut self, pages: PageRange, error: SysError) -> MapError {
        let (at, len) = self.part(pages);
        if mmap::reserve_at(at, len).is_ok() {
            self.mapped.remove(pages);
        }
        error.into()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: we own the addresses (invariant 1) and nothing borrows them.
        let released = unsafe { mmap::release(self.base, reserved_len(self.pages)) };
        // The kernel refuses only when it cannot split a mapping. The addresses stay taken then,
        // so nobody else gets them: a leak, and no harm.
        drop(released);
    }
}

/// Bytes of addresses held for `pages` pages; at least one page, because the kernel reserves no
/// less.
const fn reserved_len(pages: u64) -> usize {
    let pages = if pages == 0 { 1 } else { pages };
    to_usize(pages * PAGE_BYTES)
}

/// Reserves `len` bytes from a multiple of 2 MiB on.
fn reserve_aligned(len: usize) -> Result<NonNull<u8>, SysError> {
    let start = mmap::reserve(len + ALIGN_BYTES)?;
    let head = start.as_ptr().align_offset(ALIGN_BYTES);
    // SAFETY: an aligned address lies less than ALIGN_BYTES above the start of what we got.
    let base = unsafe { start.add(head) };
    if head > 0 {
        // SAFETY: the head is ours and not used.
        let released = unsafe { mmap::release(start, head) };
        // A head that stays reserved is a leak of addresses, and no harm.
        drop(released);
    }
    // SAFETY: `head + len` is less than `len + ALIGN_BYTES`.
    let end = unsafe { base.add(len) };
    // SAFETY: the tail is ours and not used.
    let released = unsafe { mmap::release(end, ALIGN_BYTES - head) };
    // As for the head.
    drop(released);
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservation_starts_at_a_multiple_of_2_mib() {
        for pages in [0, 1, 511, 512, 513, if cfg!(miri) { 1000 } else { 100_000 }] {
            let reservation = Reservation::new(pages, Access::ReadOnly).unwrap();
            assert_eq!(reservation.base().addr().get() % ALIGN_BYTES, 0);
            assert_eq!(reservation.pages(), pages);
            assert!(reservation.mapped().is_empty());
        }
    }

    #[test]
    fn reservation_of_64_tib_works_and_one_page_more_is_refused() {
        let pages_max = BYTES_MAX / PAGE_BYTES;
        drop(Reservation::new(pages_max, Access::ReadOnly).unwrap());
        for pages in [pages_max + 1, u64::MAX] {
            let refused = Reservation::new(pages, Access::ReadOnly).unwrap_err();
            assert!(matches!(refused, MapError::AddressSpace { .. }), "{refused}");
        }
    }

    #[test]
    fn growth_takes_free_addresses_in_place_and_never_those_of_others() {
        let mut first = Reservation::new(1024, Access::CopyOnWrite).unwrap();
        let base = first.base();
        // Fill the addresses behind the reservation with another one, then free them again.
        let behind = first.base().addr().get() + 1024 * 4096;
        let neighbour = NonNull::new(std::ptr::without_provenance_mut(behind)).unwrap();
        let taken = mmap::reserve_at(neighbour, 4096);
        assert!(!first.try_grow(2048) || taken.is_err());
        assert_eq!(first.pages(), 1024);
        if taken.is_ok() {
            // SAFETY: reserved five lines above and used by nobody.
            unsafe { mmap::release(neighbour, 4096) }.unwrap();
            assert!(first.try_grow(1025));
            first.place_zeros(PageRange::new(1024, 1025)).unwrap();
            first.bytes_mut(PageRange::new(1024, 1025)).fill(1);
        }
        assert!(first.try_grow(10), "asking for less than there is succeeds");
        assert_eq!(first.base(), base);
        assert!(!first.try_grow(u64::MAX));
    }

    #[test]
    fn empty_reservation_grows() {
        let mut reservation = Reservation::new(0, Access::CopyOnWrite).unwrap();
        assert!(reservation.try_grow(1));
        reservation.place_zeros(PageRange::new(0, 1)).unwrap();
        assert_eq!(reservation.bytes(PageRange::new(0, 1)), [0; 4096]);
    }

    #[test]
    #[should_panic(expected = "are not mapped")]
    fn bytes_of_closed_pages_are_not_given_out() {
        let mut reservation = Reservation::new(8, Access::CopyOnWrite).unwrap();
        reservation.place_zeros(PageRange::new(0, 4)).unwrap();
        reservation.close(PageRange::new(2, 3)).unwrap();
        let _ = reservation.bytes(PageRange::new(0, 4));
    }

    #[test]
    #[should_panic(expected = "cannot be written")]
    fn read_only_bytes_are_not_given_out_for_writing() {
        let mut reservation = Reservation::new(8, Access::ReadOnly).unwrap();
        reservation.place_zeros(PageRange::new(0, 4)).unwrap();
        let _ = reservation.bytes_mut(PageRange::new(0, 4));
    }

    #[test]
    #[should_panic(expected = "are outside of 8 pages")]
    fn nothing_is_placed_outside_of_the_reservation() {
        let mut reservation = Reservation::new(8, Access::ReadOnly).unwrap();
        let _ = reservation.place_zeros(PageRange::new(7, 9));
    }
}
