//! Why memory could not be mapped, and what a person can do about it.
//!
//! # Failure
//!
//! Each variant is something a caller would act upon differently; [`MapError::System`] is the rest.

use std::io;

use super::sys::SysError;

/// Why addresses or mappings could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The addresses of a view are more than the process can have. View a smaller part.
    #[error(
        "no room for {bytes} bytes of addresses; view a smaller part (at most 64 TiB, less under \
         a limit such as ulimit -v)"
    )]
    AddressSpace {
        /// The addresses asked for.
        bytes: u64,
    },
    /// The views of this process would consist of too many separate pieces.
    #[error(
        "the views of this process would need {needed} memory mappings and may use {budget}; \
         view a smaller part, close other views, rewrite the array so that it lies in one piece, \
         or raise the system setting vm.max_map_count"
    )]
    TooManyMappings {
        /// Mappings that all views of the process would use together.
        needed: u64,
        /// Mappings that they may use.
        budget: u64,
    },
    /// The kernel has no memory, or the process has as many mappings as the kernel allows.
    #[error(
        "{call}: the kernel gives this process no more memory or mappings; close views, or raise \
         the system setting vm.max_map_count"
    )]
    OutOfMemory {
        /// The call that failed.
        call: &'static str,
    },
    /// Part of a file was to be mapped that does not start at a page.
    #[error("file offset {offset_bytes} is not a multiple of 4096 bytes and cannot be mapped")]
    Misaligned {
        /// Where in the file.
        offset_bytes: u64,
    },
    /// A file ends before the part that was to be mapped: reading that would end the process.
    #[error(
        "bytes {offset_bytes} to {end_bytes} of a file of {len_bytes} bytes cannot be mapped; the \
         file was cut off, check the store"
    )]
    FileTooShort {
        /// First byte asked for.
        offset_bytes: u64,
        /// One past the last byte asked for.
        end_bytes: u64,
        /// Length of the file.
        len_bytes: u64,
    },
    /// A mapped page that neither memory nor the disk has. Touching it would end the process.
    #[error(
        "a mapped page cannot be read: the file behind it was cut off, or the disk failed; check \
         the store"
    )]
    Unreadable {
        /// The first byte that cannot be had, from the start of the range asked for.
        offset_bytes: u64,
    },
    /// A page that is loaded when it is needed, and could not be.
    #[error("{source}")]
    NotLoaded {
        /// The first byte that cannot be had, from the start of the range asked for.
        offset_bytes: u64,
        /// Why.
        source: super::lazy::LoadError,
    },
    /// Pages were to be loaded when they are touched, and nobody said from where.
    #[error("these pages have no source to load from; this is a bug, please report it")]
    NoSource,
    /// The machine has pages of another size.
    #[error("pages of {bytes} bytes are not supported; this program needs pages of 4096 bytes")]
    PageSize {
        /// Page size of the machine; 0 if it is unknown.
        bytes: u64,
    },
    /// A system call failed.
    #[error("{call} failed: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl From<SysError> for MapError {
    fn from(error: SysError) -> Self {
        match error {
            SysError::OutOfMemory { call } => Self::OutOfMemory { call },
            SysError::Other { call, source } => Self::System { call, source },
            SysError::AddressTaken => {
                Self::System { call: "mmap", source: io::ErrorKind::AlreadyExists.into() }
            }
        }
    }
}
