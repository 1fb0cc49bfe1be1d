//! Asking the kernel for pages before they are touched.
//!
//! ```text
//! touch a page     there | read from the disk | SIGBUS: the process ends
//! populate it      Ok    | Ok, later          | MapError::Unreadable
//! ```
//!
//! # Failure
//!
//! A page can be lost again between being asked for and being touched, if memory is short and the
//! file is cut or the disk fails just then. Kernels before 5.14 cannot be asked: everything is
//! `Ok`.

use std::num::NonZero;
use std::ptr::NonNull;

use super::MapError;
use super::sys::madvise;
use crate::units::PAGE_LEN;

/// Brings the pages of `bytes` into memory and waits for it; dirties nothing.
///
/// # Errors
///
/// [`MapError::Unreadable`] with the offset of the first byte that cannot be had.
pub fn populate(bytes: &[u8]) -> Result<(), MapError> {
    let start = bytes.as_ptr().addr();
    let into = start % PAGE_LEN;
    let pages = (into + bytes.len()).div_ceil(PAGE_LEN);
    if bytes.is_empty() || is_readable(bytes, 0, pages) {
        return Ok(());
    }
    // Halve the range until one page is left, which is the first: all before it were readable.
    let (mut first, mut end) = (0, pages);
    while end - first > 1 {
        let middle = first + (end - first) / 2;
        if is_readable(bytes, first, middle) { first = middle } else { end = middle }
    }
    Err(MapError::Unreadable { offset_bytes: (first * PAGE_LEN).saturating_sub(into) as u64 })
}

/// Whether the pages `first..end` of those that hold `bytes` can be read.
fn is_readable(bytes: &[u8], first: usize, end: usize) -> bool {
    let from_page_start = bytes.as_ptr().addr() % PAGE_LEN;
    let at = NonNull::from(bytes).cast::<u8>();
    let at = at.map_addr(|at| at.saturating_add(first * PAGE_LEN));
    let at = at.map_addr(|at| NonZero::new(at.get() - from_page_start).unwrap_or(at));
    !madvise::is_unreadable(at, (end - first) * PAGE_LEN)
}
