//! How much memory and processor time a piece of work takes.
//!
//! Memory is what the thread asked the allocator for and did not give back, at its peak. A request
//! that alone is above [`REQUEST_BYTES_MAX`] is refused, which ends the program: no input may ask
//! for that.
//!
//! This is an unsafe home because an allocator cannot be written otherwise.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;

/// The longest single allocation that is granted while something is measured.
pub(crate) const REQUEST_BYTES_MAX: usize = 1 << 30;

struct Metered;

#[global_allocator]
static ALLOCATOR: Metered = Metered;

thread_local! {
    // Bytes taken and not given back since the measurement began, and the most of it.
    static TAKEN: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
    static IS_MEASURING: Cell<bool> = const { Cell::new(false) };
}

fn note(bytes: i64) {
    // A thread that ends has no thread locals any more.
    let _ = TAKEN.try_with(|taken| {
        let now = taken.get().saturating_add(bytes);
        taken.set(now);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
    });
}

fn signed(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

fn is_granted(len: usize) -> bool {
    len <= REQUEST_BYTES_MAX || !IS_MEASURING.try_with(Cell::get).unwrap_or(false)
}

// SAFETY: every call is passed on to the system's allocator as it is, or answered with null, which
// an allocator may do; counting touches no memory that was given out.
unsafe impl GlobalAlloc for Metered {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_granted(layout.size()) {
            return std::ptr::null_mut();
        }
        note(signed(layout.size()));
        // SAFETY: the caller's promises are those that `System` wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_granted(layout.size()) {
            return std::ptr::null_mut();
        }
        note(signed(layout.size()));
        // SAFETY: the caller's promises are those that `System` wants.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(-signed(layout.size()));
        // SAFETY: the caller's promises are those that `System` wants.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        if !is_granted(len) {
            return std::ptr::null_mut();
        }
        note(signed(len) - signed(layout.size()));
        // SAFETY: the caller's promises are those that `System` wants.
        unsafe { System.realloc(at, layout, len) }
    }
}

/// What a piece of work took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    /// Most bytes of memory at once, above what was there before.
    pub(crate) peak_bytes: u64,
    /// Seconds of processor time of this thread.
    pub(crate) cpu_seconds: f64,
}

/// Does `work` and says what it took.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> (T, Used) {
    let before = cpu_nanoseconds();
    TAKEN.set(0);
    PEAK.set(0);
    IS_MEASURING.set(true);
    let result = work();
    IS_MEASURING.set(false);
    let peak_bytes = u64::try_from(PEAK.get()).unwrap_or(0);
    let nanoseconds = cpu_nanoseconds().saturating_sub(before);
    (result, Used { peak_bytes, cpu_seconds: nanoseconds as f64 / 1e9 })
}

/// Time this thread ran; 0 where the kernel does not say.
fn cpu_nanoseconds() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
