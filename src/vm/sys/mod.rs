//! The kernel calls of `vm`, one family per file, answers decoded to types.
//!
//! ```text
//! reservation, mapping, dirty, budget, memory_file
//!     | pointers, lengths, enums                 ^ values or SysError
//!     v                                          |
//! mmap   madvise   pagemap   uffd   robust   file   limits   bus   ->  kernel
//! ```
//!
//! # Invariants
//!
//! 1. No return code and no error number leaves this folder: callers see [`SysError`].
//! 2. A function that can change what other code reads through a pointer is `unsafe` and says what
//!    its caller must own. A function that can only fail or cost time is safe.
//! 3. `usize` has 64 bits, so every address and length below 2^64 fits.
//!
//! # Failure
//!
//! [`SysError`] keeps apart what callers act upon: no memory, addresses taken, and the rest.

pub(crate) mod bus;
#[cfg(miri)]
#[allow(dead_code, reason = "answers that only a kernel gives")]
mod fake;
#[cfg(not(miri))]
pub(crate) mod file;
#[cfg(not(miri))]
pub(crate) mod fork;
#[cfg(not(miri))]
pub(crate) mod futex;
#[cfg(not(miri))]
pub(crate) mod limits;
#[cfg(not(miri))]
pub(crate) mod madvise;
#[cfg(not(miri))]
pub(crate) mod mmap;
#[cfg(not(miri))]
pub(crate) mod pagemap;
#[cfg(not(any(miri, shuttle)))]
pub(crate) mod robust;
#[cfg(shuttle)]
mod scheduled;
#[cfg(not(any(miri, shuttle)))]
pub(crate) mod uffd;

#[cfg(miri)]
pub(crate) use fake::{file, fork, limits, madvise, mmap, pagemap, robust, uffd};
#[cfg(shuttle)]
pub(crate) use scheduled::{robust, uffd};

use std::io;

const _: () = assert!(usize::BITS == 64, "views need 64-bit addresses");

/// Why the kernel refused a call.
#[derive(Debug)]
pub(crate) enum SysError {
    /// No memory, no address space or no further mapping (`ENOMEM`).
    OutOfMemory {
        /// The call that failed.
        call: &'static str,
    },
    /// Something else is mapped at the addresses (`EEXIST`).
    AddressTaken,
    /// Any other answer.
    Other {
        /// The call that failed.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SysError {
    /// Decodes the error of `call`.
    fn new(call: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOMEM) => Self::OutOfMemory { call },
            Some(libc::EEXIST) => Self::AddressTaken,
            _ => Self::Other { call, source },
        }
    }

    /// Decodes the error that `call` has just left in this thread.
    #[cfg_attr(miri, allow(dead_code, reason = "the fake leaves no error number behind"))]
    fn last(call: &'static str) -> Self {
        Self::new(call, io::Error::last_os_error())
    }
}

/// `value` as an address or a length in memory (invariant 3).
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits, asserted above")]
pub(crate) const fn to_usize(value: u64) -> usize {
    value as usize
}
