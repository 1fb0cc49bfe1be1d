//! `/proc/self/pagemap`: what kind of page lies at each address.
//!
//! ```text
//! scan      PAGEMAP_SCAN, Linux 6.7     addresses -> regions of written pages or of zeros
//! entries   read(2), every Linux        page numbers -> one 64-bit entry each
//!           bit 63 present | 62 swapped | 61 file page | 56 mapped only here
//! ```
//!
//! # Invariants
//!
//! 1. A written page of a private mapping is anonymous: present or swapped, and not a page of a
//!    file. Swapped pages count; else writes would be lost (facts K-23 to K-25). The kernel's
//!    shared page of zeros is told apart, because it appears where zeros were only read, but also
//!    where the kernel found a written page full of zeros and freed it (same-page merging).
//! 2. The file belongs to the process that opened it, also in its children. So it is opened for
//!    each use and never kept.
//!
//! # Failure
//!
//! Without `/proc` nothing can be asked, and the error says so.
//!
//! Source: `PAGEMAP_SCAN(2const)`, `proc_pid_pagemap(5)`. Checked by `tests/it/kernel.rs`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

use super::SysError;

const PATH_CALL: &str = "open /proc/self/pagemap";
const READ_CALL: &str = "read /proc/self/pagemap";
const SCAN_CALL: &str = "ioctl(PAGEMAP_SCAN)";

const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

const ENTRY_BYTES: usize = 8;
const ENTRY_EXCLUSIVE: u64 = 1 << 56;
const ENTRY_FILE: u64 = 1 << 61;
const ENTRY_SWAPPED: u64 = 1 << 62;
const ENTRY_PRESENT: u64 = 1 << 63;

/// Addresses `start..end` of pages that are no pages of a file; `struct page_region` of the kernel.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Region {
    /// Address of the first page.
    pub(crate) start: u64,
    /// Address after the last page.
    pub(crate) end: u64,
    categories: u64,
}

impl Region {
    /// Whether the pages are the kernel's page of zeros, and not copies.
    pub(crate) const fn is_zeros(&self) -> bool {
        self.categories & PAGE_IS_PFNZERO != 0
    }
}

/// `struct pm_scan_arg` of the kernel.
#[derive(Default)]
#[repr(C)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = assert!(size_of::<Region>() == 24);
const _: () = assert!(size_of::<ScanArguments>() == 96);

nix::ioctl_readwrite!(pagemap_scan, b'f', 16, ScanArguments);

/// What an entry tells about a page of a private mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// Never touched, or a page of the file.
    Clean,
    /// A private copy.
    Written,
    /// The kernel's page of zeros, or a private copy that a forked process shares.
    ZerosOrWritten,
}

/// The open pagemap of this process.
pub(crate) struct Pagemap {
    file: File,
}

impl Pagemap {
    /// Opens the pagemap of the calling process.
    pub(crate) fn open() -> Result<Self, SysError> {
        match File::open("/proc/self/pagemap") {
            Ok(file) => Ok(Self { file }),
            Err(source) => Err(SysError::new(PATH_CALL, source)),
        }
    }

    /// Writes the regions of the addresses `start..end` that show no file to `found` and returns
    /// how many.
    ///
    /// Copies and pages of zeros are regions of their own. Regions ascend and do not overlap.
    /// Fewer than `found.len()` means that there are no more.
    pub(crate) fn scan(
        &self,
        start: u64,
        end: u64,
        found: &mut [Region],
    ) -> Result<usize, SysError> {
        let mut arguments = ScanArguments {
            size: size_of::<ScanArguments>() as u64,
            start,
            end,
            vec: found.as_mut_ptr() as u64,
            vec_len: found.len() as u64,
            category_inverted: PAGE_IS_FILE,
            category_mask: PAGE_IS_FILE,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_PFNZERO,
            ..ScanArguments::default()
        };
        let pagemap: RawFd = self.file.as_raw_fd();
        // SAFETY: the kernel writes at most `vec_len` regions to `vec`, which `found` owns and
        // lends us mutably, and `walk_end` of the arguments. It changes no page: `flags` is 0.
        match unsafe { pagemap_scan(pagemap, &raw mut arguments) } {
            Ok(count) => Ok(usize::try_from(count).unwrap_or(0).min(found.len())),
            Err(errno) => Err(SysError::new(SCAN_CALL, io::Error::from(errno))),
        }
    }

    /// Calls `visit` with the entry of each of the `count` pages from page number `first` (an
    /// address divided by the page size), in order. Reads through `buffer`.
    pub(crate) fn entries(
        &self,
        first: u64,
        count: u64,
        buffer: &mut [u8],
        mut visit: impl FnMut(u64, Entry),
    ) -> Result<(), SysError> {
        let buffer_entries = buffer.len() / ENTRY_BYTES;
        let mut done = 0;
        while done < count {
            let want = super::to_usize(count - done).min(buffer_entries) * ENTRY_BYTES;
            let offset_bytes = (first + done) * ENTRY_BYTES as u64;
            let chunk = &mut buffer[..want];
            self.file
                .read_exact_at(chunk, offset_bytes)
                .map_err(|source| SysError::new(READ_CALL, source))?;
            for bytes in chunk.as_chunks().0 {
                visit(first + done, decode(*bytes));
                done += 1;
            }
        }
        Ok(())
    }
}

#[expect(clippy::host_endian_bytes, reason = "the kernel writes entries in its own byte order")]
fn decode(bytes: [u8; ENTRY_BYTES]) -> Entry {
    let entry = u64::from_ne_bytes(bytes);
    let has = |bit| entry & bit != 0;
    if has(ENTRY_FILE) {
        Entry::Clean
    } else if has(ENTRY_SWAPPED) || has(ENTRY_PRESENT) && has(ENTRY_EXCLUSIVE) {
        Entry::Written
    } else if has(ENTRY_PRESENT) {
        Entry::ZerosOrWritten
    } else {
        Entry::Clean
    }
}
