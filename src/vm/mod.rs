//! Pages and addresses: parts of files shown as one piece of memory, and what was written to it.
//!
//! This layer knows nothing of arrays, transactions or formats. It runs on Linux with 4 KiB pages.
//!
//! ```text
//! reservation   base                                                          base + pages
//!               | closed | file A +0 .. | file B +9 .. | zeros | closed ................. |
//! page state               clean  copy   clean           zero    (no memory, no access)
//!                                 ^ dirty: written, private to this process
//!
//! Mapping  = Reservation (owns addresses, gives slices) + Runs (what lies where) + VmaBudget share
//! dirty    = which pages are private copies
//! sys      = the kernel calls, one family per file
//! ```
//!
//! A page is *closed* until something is placed there. Placed pages are *clean*: the page cache
//! (or the kernel's page of zeros) behind them is shared with everybody. The first store makes a
//! page *dirty*: a copy for this process. `discard` makes dirty pages clean, `place` shows
//! something else, `unmap` closes.
//!
//! # Invariants
//!
//! 1. Who owns a reservation decides alone what lies in it; nobody else maps over its addresses.
//! 2. Bytes of a file never change while they are placed, and the file is not cut off. The layer
//!    that places them promises this; `&[u8]` into a mapping is sound only with it.
//! 3. Nothing here writes to a file but [`shared`], which holds words and no data: private mappings
//!    have no way back.
//! 4. Nothing here keeps state about the process beside the budget, so a forked child can go on
//!    using its copy of a mapping; its dirty pages are its own and those it inherited (fact K-40).
//!
//! There are no locks: changes take `&mut self`, and the budget is one counter.
//!
//! Kernel features: `PAGEMAP_SCAN` (6.7) or `/proc/self/pagemap`; `MAP_FIXED_NOREPLACE` (4.17);
//! `MADV_POPULATE_READ` (5.14) and huge pages make it faster and may be missing. Facts about the
//! kernel are numbered K-01, K-02 ...; each one relied upon has a test in `tests/it/kernel.rs`.
//!
//! # Failure
//!
//! [`MapError`]. An error of the disk under a mapping is no return value: the access ends the
//! process with SIGBUS, after one sentence on stderr if the mapping has a [`Label`]; `populate`
//! asks first.

pub mod budget;
pub mod dirty;
mod error;
#[expect(unsafe_code, reason = "maps pages that other threads look at")]
pub mod lazy;
pub mod mapping;
pub mod memory_file;
#[expect(unsafe_code, reason = "passes the contract of missing pages on")]
pub mod pager;
pub mod planted;
mod populate;
#[expect(unsafe_code, reason = "owns addresses and gives out slices of them")]
pub mod reservation;
mod runs;
#[cfg(not(miri))]
#[expect(unsafe_code, reason = "maps words that other processes change")]
pub mod shared;
#[expect(unsafe_code, reason = "calls the kernel")]
mod sys;

pub use budget::VmaBudget;
pub use dirty::DirtyPages;
pub use error::MapError;
pub use lazy::{CHUNK_PAGES, LoadError, Loaded, PageSource};
pub use mapping::{Advice, Content, Mapping, Run};
pub use pager::Pager;
pub use populate::populate;
pub use reservation::Reservation;
#[cfg(not(miri))]
pub use shared::SharedMemory;
pub use sys::bus::Label;
#[cfg(not(miri))]
pub use sys::fork::NotInChild;
pub use sys::fork::count as forks;
pub(crate) use sys::limits::{memory_bytes, processors};
pub use sys::mmap::Access;
