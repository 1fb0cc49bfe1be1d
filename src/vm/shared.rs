//! A small file mapped for several processes at once: words, and waiting for them.
//!
//! ```text
//! file `shared`  | word 0 | word 1 | ...          mapped MAP_SHARED by every process
//!                             ^ futex(2) on the low half of a word
//! ```
//!
//! This is the only mapping through which anybody writes to a file.
//!
//! # Invariants
//!
//! 1. Every access to the memory is atomic, so any bytes that others write are just values.
//! 2. The file has the length of the mapping when it is mapped. If somebody cuts it later, the
//!    accesses find zeros: the SIGBUS handler puts memory of this process there.
//!
//! # Failure
//!
//! [`MapError`] when it cannot be mapped.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::time::Duration;

use super::MapError;
use super::sys::{bus, futex, mmap};
use crate::sync::process::{AtomicU64, Ordering};

/// Words of a file that several processes map.
#[derive(Debug)]
pub struct SharedMemory {
    base: NonNull<AtomicU64>,
    count: usize,
    writable: bool,
    // Goes before the mapping: the addresses may then be somebody else's.
    replaced: Option<bus::Replaced>,
}

// SAFETY: the words are atomics, and the mapping lives until the drop.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps the first `count` words of `file`, which is at least as long.
    ///
    /// # Errors
    ///
    /// [`MapError`] if the kernel refuses.
    pub fn map(file: BorrowedFd<'_>, count: usize, writable: bool) -> Result<Self, MapError> {
        let len = count * size_of::<AtomicU64>();
        let base = mmap::map_shared(file, len, writable)?;
        let replaced = bus::Replaced::new(base, len);
        Ok(Self { base: base.cast(), count, writable, replaced: Some(replaced) })
    }

    /// Number of words.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether the words can be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.count, "the word is one of those that are mapped");
        // SAFETY: inside the mapping.
        let word = unsafe { self.base.add(index) };
        // SAFETY: aligned because pages are, and alive as long as `self`.
        unsafe { word.as_ref() }
    }

    /// The word.
    ///
    /// # Panics
    ///
    /// If there is no such word, as all functions here.
    #[must_use]
    pub fn load(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::SeqCst)
    }

    /// Writes the word, if the mapping can be written.
    pub fn store(&self, index: usize, value: u64) {
        if self.writable {
            self.word(index).store(value, Ordering::SeqCst);
        }
    }

    /// Writes `new` if the word is `current`; tells whether it did.
    #[must_use]
    pub fn exchange(&self, index: usize, current: u64, new: u64) -> bool {
        let word = self.word(index);
        self.writable
            && word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Waits until somebody wakes those who wait for the word, at most `timeout`; not at all if
    /// the low half of the word is not that of `seen`.
    pub fn wait(&self, index: usize, seen: u64, timeout: Duration) {
        futex::wait(self.word(index), seen, timeout);
    }

    /// Wakes all who wait for the word, in all processes.
    pub fn wake(&self, index: usize) {
        futex::wake(self.word(index));
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        self.replaced = None;
        // SAFETY: mapped in `map` with this length; no reference to it is left.
        let released =
            unsafe { mmap::release(self.base.cast(), self.count * size_of::<AtomicU64>()) };
        debug_assert!(released.is_ok(), "addresses of our own are given back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::thread;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::time::Instant;

    fn file(words: usize) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![0; words * 8]).unwrap();
        file
    }

    #[test]
    fn what_one_mapping_stores_the_other_loads_and_the_file_has() {
        let file = file(1024);
        let one = SharedMemory::map(file.as_fd(), 1024, true).unwrap();
        let other = SharedMemory::map(file.as_fd(), 1024, false).unwrap();
        one.store(7, 42);
        assert_eq!(other.load(7), 42);
        assert!(one.exchange(7, 42, 43) && !one.exchange(7, 42, 44));
        other.store(7, 1);
        assert!(!other.exchange(7, 43, 1));
        assert_eq!(one.load(7), 43, "who may only read changes nothing");
    }

    #[test]
    fn a_wait_ends_at_a_wake_at_a_change_and_at_its_timeout() {
        let file = file(1024);
        let one = SharedMemory::map(file.as_fd(), 1024, true).unwrap();
        let other = SharedMemory::map(file.as_fd(), 1024, false).unwrap();
        let begin = Instant::now();
        other.wait(3, 1, Duration::from_secs(60));
        other.wait(3, 0, Duration::from_millis(20));
        assert!(begin.elapsed() >= Duration::from_millis(20));
        thread::scope(|scope| {
            scope.spawn(|| {
                while other.load(3) == 0 {
                    other.wait(3, 0, Duration::from_secs(60));
                }
            });
            thread::sleep(Duration::from_millis(20));
            one.store(3, 1);
            one.wake(3);
        });
        assert!(begin.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn a_file_that_is_cut_reads_as_zeros_and_ends_nobody() {
        let file = file(1024);
        let one = SharedMemory::map(file.as_fd(), 1024, true).unwrap();
        one.store(1000, 5);
        file.set_len(0).unwrap();
        assert_eq!(one.load(1000), 0);
        one.store(1000, 6);
        assert_eq!(one.load(1000), 6);
    }
}
