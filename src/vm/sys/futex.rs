//! futex(2): waiting for a word that another process changes.

use std::ptr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Waits at most `timeout` until the low half of `word` is woken; not if it is not that of `seen`.
/// May return early for no reason.
pub(crate) fn wait(word: &AtomicU64, seen: u64, timeout: Duration) {
    let time = libc::timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    // SAFETY: the address is a live, aligned word of 4 bytes and the time lives until the return.
    // Any answer (woken, other value, signal, time over) is an end of the wait.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            low_half(word),
            libc::FUTEX_WAIT,
            low_bits(seen),
            &raw const time,
            ptr::null::<u32>(),
            0,
        );
    }
}

/// Wakes all who wait for the low half of `word`.
pub(crate) fn wake(word: &AtomicU64) {
    // SAFETY: the address is a live, aligned word of 4 bytes, which the call does not change.
    unsafe {
        libc::syscall(libc::SYS_futex, low_half(word), libc::FUTEX_WAKE, i32::MAX);
    }
}

fn low_half(word: &AtomicU64) -> *const u32 {
    let first: *const u32 = word.as_ptr().cast_const().cast();
    if cfg!(target_endian = "big") { first.wrapping_add(1) } else { first }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
fn low_bits(value: u64) -> u32 {
    value as u32
}
