//! `madvise`: telling the kernel how memory will be used, and dropping private copies.
//!
//! # Invariants
//!
//! 1. An [`Advice`] never changes what memory reads as; that is why [`advise`] is safe.
//!
//! # Failure
//!
//! Advice is a wish. Kernels without huge pages refuse it, and callers go on.

use std::ffi::c_int;
use std::io;
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
}

impl Advice {
    const fn code(self) -> c_int {
        match self {
            Self::HugePage => libc::MADV_HUGEPAGE,
            Self::NoHugePage => libc::MADV_NOHUGEPAGE,
            Self::Random => libc::MADV_RANDOM,
            Self::Sequential => libc::MADV_SEQUENTIAL,
            Self::WillNeed => libc::MADV_WILLNEED,
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

/// Brings `[at, at + len)` into memory; whether touching it would have ended in SIGBUS.
pub(crate) fn is_unreadable(at: NonNull<u8>, len: usize) -> bool {
    // SAFETY: reading pages into memory changes no content, whoever owns them (invariant 1).
    let result = unsafe { libc::madvise(at.as_ptr().cast(), len, libc::MADV_POPULATE_READ) };
    let errno = io::Error::last_os_error().raw_os_error();
    // Other answers: an old kernel, no memory now, or addresses that are not mapped.
    result != 0 && matches!(errno, Some(libc::EFAULT | libc::EHWPOISON))
}

/// Keeps `[at, at + len)` from children of fork: there the addresses are not in use.
pub(crate) fn not_in_child(at: NonNull<u8>, len: usize) -> Result<(), SysError> {
    // SAFETY: nothing changes in this process (invariant 1).
    match unsafe { libc::madvise(at.as_ptr().cast(), len, libc::MADV_DONTFORK) } {
        0 => Ok(()),
        _ => Err(SysError::last("madvise(MADV_DONTFORK)")),
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
