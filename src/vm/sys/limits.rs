//! What the machine allows: its page size, processors, and how many mappings a process may have.
//!
//! # Failure
//!
//! A limit that cannot be read is `None`; the caller has a default.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

/// Size of a page of this machine in bytes, if the kernel says.
pub(crate) fn page_bytes() -> Option<u64> {
    sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|bytes| u64::try_from(bytes).ok())
}

/// Bytes of memory of this machine, if the kernel says.
pub(crate) fn memory_bytes() -> Option<u64> {
    let pages = sysconf(SysconfVar::_PHYS_PAGES).ok().flatten();
    pages.and_then(|pages| u64::try_from(pages).ok()).zip(page_bytes()).map(|(n, of)| n * of)
}

/// How many threads of this process can run at once.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// How many mappings one process may have (`vm.max_map_count`), if that can be read.
pub(crate) fn mappings_max() -> Option<u64> {
    fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()
}
