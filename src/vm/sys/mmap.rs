//! `mmap` and `munmap`: reserving addresses and changing what lies at them.
//!
//! ```text
//! reserve      kernel chooses     [ PROT_NONE ............................ ]
//! map_file     replaces a part    [ PROT_NONE | file pages | PROT_NONE ... ]
//! map_zeros    replaces a part    [ PROT_NONE | file pages | zeros ....... ]
//! close        gives a part back  [ PROT_NONE .............| zeros ....... ]
//! ```
//!
//! # Invariants
//!
//! 1. Every mapping but those of `map_shared` is `MAP_PRIVATE | MAP_NORESERVE`: writes stay in this
//!    process, and the kernel does not count the size of a view against its commit limit (K-21).
//! 2. Only `map_file`, `map_zeros`, `close` and `move_over` replace what was there.
//!
//! # Failure
//!
//! A refused call changes nothing on Linux 6.12 and newer. Before, a call with `MAP_FIXED` that
//! fails late may leave its addresses free; [`super::super::reservation`] takes them back.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use super::SysError;

/// What may be done with mapped memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reading; a store ends the process with SIGSEGV.
    ReadOnly,
    /// Reading and writing; a written page becomes a copy that belongs to this process.
    CopyOnWrite,
}

impl Access {
    const fn protection(self) -> c_int {
        match self {
            Self::ReadOnly => libc::PROT_READ,
            Self::CopyOnWrite => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

/// Reserves `len` bytes of addresses where the kernel likes; they cannot be read or written.
pub(crate) fn reserve(len: usize) -> Result<NonNull<u8>, SysError> {
    // SAFETY: without MAP_FIXED the kernel takes addresses that nothing uses.
    unsafe { anonymous(ptr::null_mut(), len, libc::PROT_NONE, 0) }
}

/// Reserves exactly `[at, at + len)`, if nothing is mapped there.
///
/// # Errors
///
/// [`SysError::AddressTaken`] if any of it is in use; nothing has changed then.
pub(crate) fn reserve_at(at: NonNull<u8>, len: usize) -> Result<(), SysError> {
    // SAFETY: MAP_FIXED_NOREPLACE takes only addresses that nothing uses.
    let got = unsafe { anonymous(at.as_ptr(), len, libc::PROT_NONE, libc::MAP_FIXED_NOREPLACE) }?;
    if got == at {
        return Ok(());
    }
    // Linux before 4.17 takes the flag for a hint and maps elsewhere.
    // SAFETY: the kernel has just made this mapping and nobody else knows it.
    unsafe { release(got, len) }?;
    Err(SysError::AddressTaken)
}

/// Gives `[at, at + len)` back to the kernel.
///
/// # Safety
///
/// The caller owns these addresses, and no reference into them is used afterwards.
pub(crate) unsafe fn release(at: NonNull<u8>, len: usize) -> Result<(), SysError> {
    // SAFETY: the caller owns the addresses and nobody uses them any more.
    match unsafe { libc::munmap(at.as_ptr().cast(), len) } {
        0 => Ok(()),
        _ => Err(SysError::last("munmap")),
    }
}

/// Replaces `[at, at + len)` by addresses that cannot be read or written.
///
/// # Safety
///
/// As for [`map_file`].
pub(crate) unsafe fn close(at: NonNull<u8>, len: usize) -> Result<(), SysError> {
    // SAFETY: the caller owns the addresses and nothing borrows them.
    unsafe { anonymous(at.as_ptr(), len, libc::PROT_NONE, libc::MAP_FIXED) }.map(drop)
}

/// Replaces `[at, at + len)` by memory that reads as zeros.
///
/// # Safety
///
/// As for [`map_file`].
pub(crate) unsafe fn map_zeros(
    at: NonNull<u8>,
    len: usize,
    access: Access,
) -> Result<(), SysError> {
    // SAFETY: the caller owns the addresses and nothing borrows them.
    unsafe { anonymous(at.as_ptr(), len, access.protection(), libc::MAP_FIXED) }.map(drop)
}

/// Replaces `[at, at + len)` by the bytes of `file` from `offset_bytes`, private to this process.
///
/// # Safety
///
/// The caller owns the addresses, which start at a page, and no reference into them is alive: the
/// bytes behind it change.
pub(crate) unsafe fn map_file(
    at: NonNull<u8>,
    len: usize,
    access: Access,
    file: BorrowedFd<'_>,
    offset_bytes: u64,
) -> Result<(), SysError> {
    let Ok(offset) = libc::off_t::try_from(offset_bytes) else {
        let source = io::Error::from_raw_os_error(libc::EOVERFLOW);
        return Err(SysError::new("mmap", source));
    };
    let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: the caller owns the addresses and nothing borrows them.
    let got = unsafe {
        libc::mmap(at.as_ptr().cast(), len, access.protection(), flags, file.as_raw_fd(), offset)
    };
    mapped(got).map(drop)
}

/// Maps `len` bytes that read as zeros where the kernel likes.
pub(crate) fn fresh(len: usize, access: Access) -> Result<NonNull<u8>, SysError> {
    // SAFETY: without MAP_FIXED the kernel takes addresses that nothing uses.
    unsafe { anonymous(ptr::null_mut(), len, access.protection(), 0) }
}

/// Replaces `[to, to + len)` by what lies at `[from, from + len)`, at one stroke; nothing lies at
/// `from` any more.
///
/// # Safety
///
/// As for [`map_file`], for both ranges, except that references into `to` may be alive if what
/// comes there shows the same bytes.
pub(crate) unsafe fn move_over(
    from: NonNull<u8>,
    len: usize,
    to: NonNull<u8>,
) -> Result<(), SysError> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let (from, to) = (from.as_ptr().cast(), to.as_ptr().cast::<libc::c_void>());
    // SAFETY: the caller owns both ranges.
    let got = unsafe { libc::mremap(from, len, len, flags, to) };
    if got == libc::MAP_FAILED { Err(SysError::last("mremap")) } else { Ok(()) }
}

/// Maps the first `len` bytes of `file` where the kernel likes, shared with all who map them.
pub(crate) fn map_shared(
    file: BorrowedFd<'_>,
    len: usize,
    writable: bool,
) -> Result<NonNull<u8>, SysError> {
    let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    let (flags, fd) = (libc::MAP_SHARED, file.as_raw_fd());
    // SAFETY: without MAP_FIXED the kernel takes addresses that nothing uses.
    mapped(unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, 0) })
}

/// Maps `len` bytes of anonymous memory.
///
/// # Safety
///
/// With `MAP_FIXED` in `extra_flags`: as for [`map_file`]. Otherwise nothing is asked.
unsafe fn anonymous(
    at: *mut u8,
    len: usize,
    protection: c_int,
    extra_flags: c_int,
) -> Result<NonNull<u8>, SysError> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | extra_flags;
    // SAFETY: only MAP_FIXED could replace memory in use; the caller owns the addresses then.
    let got = unsafe { libc::mmap(at.cast(), len, protection, flags, -1, 0) };
    mapped(got)
}

fn mapped(got: *mut libc::c_void) -> Result<NonNull<u8>, SysError> {
    if got == libc::MAP_FAILED {
        return Err(SysError::last("mmap"));
    }
    let refused = || SysError::new("mmap", io::Error::from_raw_os_error(libc::EFAULT));
    NonNull::new(got.cast()).ok_or_else(refused)
}
