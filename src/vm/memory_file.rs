//! Files that live in memory: pages of one pattern that a mapping shows again and again.
//!
//! ```text
//! memory file   | pattern, one block |
//! mapping       | run 0 | run 1 | run 2 ...     every run maps the same file range
//! ```
//!
//! # Invariants
//!
//! 1. The length never changes, so no mapping can lose its pages.
//! 2. After [`freeze`] the bytes never change either: only then may the file be placed.
//!
//! # Failure
//!
//! Memory comes when pages are written. Writing more than the machine has fails with the error of
//! the write, or ends the process as any use of too much memory does.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::MapError;
use super::sys::file;

/// Makes a file of `len_bytes` zeros in memory; `name` is what `/proc` shows.
///
/// The descriptor is closed in programs that this process starts. Costs no memory before it is
/// written; the memory is free again when no descriptor and no mapping is left.
///
/// # Errors
///
/// [`MapError::System`] if `name` has a zero byte or more than 249 bytes, or the kernel refuses.
pub fn create(name: &str, len_bytes: u64) -> Result<OwnedFd, MapError> {
    let memory = file::create_in_memory(name)?;
    file::set_len(memory.as_fd(), len_bytes)?;
    file::seal_len(memory.as_fd())?;
    Ok(memory)
}

/// Forbids every later write to `memory`, in this and any other process, but through a shared
/// mapping made before, of which there must be none.
///
/// # Errors
///
/// [`MapError::System`] if it is no file from [`create`].
pub fn freeze(memory: BorrowedFd<'_>) -> Result<(), MapError> {
    file::seal_bytes(memory).map_err(MapError::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn memory_file_reads_as_zeros_then_as_written_then_refuses_change() {
        let memory = create("pattern", 8192).unwrap();
        let file = File::from(memory.try_clone().unwrap());
        let mut bytes = vec![9; 8192];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, vec![0; 8192]);
        file.write_all_at(b"pattern", 4096).unwrap();
        freeze(memory.as_fd()).unwrap();
        assert!(file.write_all_at(b"other", 4096).is_err());
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes[4096..4103], b"pattern");
    }

    #[test]
    fn memory_file_keeps_its_length() {
        let file = File::from(create("pattern", 8192).unwrap());
        assert!(file.set_len(4096).is_err());
        assert!(file.set_len(16384).is_err());
        assert_eq!(file.metadata().unwrap().len(), 8192);
    }

    #[test]
    fn name_that_the_kernel_refuses_is_an_error() {
        assert!(create("a\0b", 4096).is_err());
        assert!(create(&"long".repeat(100), 4096).is_err());
        assert!(create("huge", u64::MAX).is_err());
    }
}
