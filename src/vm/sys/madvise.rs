//! `madvise`: telling the kernel how memory will be used, and dropping private copies.
//!
//! # Invariants
//!
//! 1. An [`Advice`] never changes what memory reads as; that is why [`advise`] is safe.
//!
//! # Failure
//!
//! Advice is a wish. Kernels without huge pages or without `MADV_POPULATE_READ` (before 5.14)
//! refuse it, and callers go on.

use std::ffi::c_int;
use std::ptr::NonNull;

use super::SysError;

/// One wish about memory; none of them changes its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Advice {
    /// Use huge pages, in the page cache and for anonymous memory.
    HugePage,
    /// Use small pages only.
    NoHugePage,
    /// Read no more around a missing page than the page (or huge page) itself.
    Random,
    /// Read far ahead.
    Sequential,
    /// Start reading now.
    WillNeed,
    /// Read now and enter the pages into the page tables, without copying them.
    PopulateRead,
}

impl Advice {
    const fn code(self) -> c_int {
        match self {
            Self::HugePage => libc::MADV_HUGEPAGE,
            Self::NoHugePage => libc::MADV_NOHUGEPAGE,
            Self::Random => libc::MADV_RANDOM,
            Self::Sequential => libc::MADV_SEQUENTIAL,
            Self::WillNeed => libc::MADV_WILLNEED,
            Self::PopulateRead => libc::MADV_POPULATE_READ,
        }
    }
}

/// Gives the kernel `advice` about `[at, at + len)`.
pub(crate) fn advise(at: NonNull<u8>, len: usize, advice: Advice) -> Result<(), SysError> {
    // SAFETY: none of these changes content or validity of memory (invariant 1), whoever owns it.
    match unsafe { libc::madvise(at.as_ptr().cast(), len, advice.code()) } {
        0 => Ok(()),
        _ => Err(SysError::last("madvise")),
    }
}

/// Drops private copies in `[at, at + len)`: file pages read as the file again, others as zeros.
///
/// # Safety
///
/// The caller owns the addresses and no reference into them is alive: the bytes behind it change.
pub(crate) unsafe fn drop_copies(at: NonNull<u8>, len: usize) -> Result<(), SysError> {
    // SAFETY: the caller owns the addresses and nothing borrows them.
    match unsafe { libc::madvise(at.as_ptr().cast(), len, libc::MADV_DONTNEED) } {
        0 => Ok(()),
        _ => Err(SysError::last("madvise(MADV_DONTNEED)")),
    }
}
