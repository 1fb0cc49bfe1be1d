//! Words of memory that several processes share, as the engine sees them.
//!
//! ```text
//! file `shared` --- mapped by the layer above ---> SharedWords: load, store, exchange, wait, wake
//! no such file, or nothing to share with -------> PrivateWords: the same for one process
//! ```
//!
//! # Invariants
//!
//! 1. What is read from a word may be anything: another process may have written it.
//!
//! # Failure
//!
//! None: a word can always be read, and a word that cannot be written stays as it is.

use std::fmt::Debug;
use std::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::thread;

/// An array of words; every access is sequentially consistent.
pub trait SharedWords: Send + Sync + Debug {
    /// Number of words.
    fn count(&self) -> usize;

    /// The word, or 0 where there is none.
    fn load(&self, index: usize) -> u64;

    /// Writes the word, if there is one and it can be written.
    fn store(&self, index: usize, value: u64);

    /// Writes `new` if the word is `current`; tells whether it did.
    fn exchange(&self, index: usize, current: u64, new: u64) -> bool;

    /// Waits until somebody calls [`wake`](Self::wake) for the word, or at most `timeout`. Returns
    /// at once if the low half of the word is not that of `seen`.
    fn wait(&self, index: usize, seen: u64, timeout: Duration);

    /// Wakes all who wait for the word, in all processes.
    fn wake(&self, index: usize);
}

/// Words that nobody shares.
#[derive(Debug)]
pub struct PrivateWords(Vec<AtomicU64>);

impl PrivateWords {
    /// `count` words, all 0.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicU64::new(0)).collect())
    }
}

/// How long a wait without a kernel's help sleeps.
const NAP: Duration = Duration::from_micros(50);

impl SharedWords for PrivateWords {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn load(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |word| word.load(Ordering::SeqCst))
    }

    fn store(&self, index: usize, value: u64) {
        if let Some(word) = self.0.get(index) {
            word.store(value, Ordering::SeqCst);
        }
    }

    fn exchange(&self, index: usize, current: u64, new: u64) -> bool {
        self.0.get(index).is_some_and(|word| {
            word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        })
    }

    fn wait(&self, index: usize, seen: u64, timeout: Duration) {
        if self.load(index) == seen {
            thread::sleep(timeout.min(NAP));
        }
    }

    fn wake(&self, _: usize) {}
}
