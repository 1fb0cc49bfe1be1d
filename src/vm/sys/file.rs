//! Calls on file descriptors: which file it is, and files that live in memory.
//!
//! # Invariants
//!
//! 1. A sealed length never changes again, in no process.
//!
//! # Failure
//!
//! Everything the kernel refuses is a [`SysError`].

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

use super::SysError;

/// What the kernel knows about an open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileFacts {
    /// The device the file lies on.
    pub(crate) device: u64,
    /// The number of the file there; not used again while the file is open or mapped.
    pub(crate) inode: u64,
    /// Its length.
    pub(crate) len_bytes: u64,
}

/// Which file `file` is, and how long.
pub(crate) fn facts(file: BorrowedFd<'_>) -> Result<FileFacts, SysError> {
    let stat = fstat(file).map_err(|errno| decode("fstat", errno))?;
    let len_bytes = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(FileFacts { device: stat.st_dev, inode: stat.st_ino, len_bytes })
}

/// Makes a file in memory, not inherited by other programs, that may be sealed.
pub(crate) fn create_in_memory(name: &str) -> Result<OwnedFd, SysError> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    memfd_create(name, flags).map_err(|errno| decode("memfd_create", errno))
}

/// Gives `file` the length `len_bytes`; what is new reads as zeros.
pub(crate) fn set_len(file: BorrowedFd<'_>, len_bytes: u64) -> Result<(), SysError> {
    let Ok(len) = libc::off_t::try_from(len_bytes) else {
        return Err(decode("ftruncate", Errno::EFBIG));
    };
    ftruncate(file, len).map_err(|errno| decode("ftruncate", errno))
}

/// Forbids every later change of the length of a file in memory.
pub(crate) fn seal_len(file: BorrowedFd<'_>) -> Result<(), SysError> {
    seal(file, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)
}

/// Forbids every later write to a file in memory, and shared mappings that could write it.
///
/// `F_SEAL_WRITE` says the same of the past too, but fails with EBUSY at random: it gives up when
/// anything in the kernel holds one of the pages for a moment.
pub(crate) fn seal_bytes(file: BorrowedFd<'_>) -> Result<(), SysError> {
    seal(file, SealFlag::F_SEAL_FUTURE_WRITE)
}

fn seal(file: BorrowedFd<'_>, seals: SealFlag) -> Result<(), SysError> {
    fcntl(file, FcntlArg::F_ADD_SEALS(seals))
        .map(drop)
        .map_err(|errno| decode("fcntl(F_ADD_SEALS)", errno))
}

fn decode(call: &'static str, errno: Errno) -> SysError {
    SysError::new(call, io::Error::from(errno))
}
