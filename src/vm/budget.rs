//! How many kernel mappings the views of a process may use.
//!
//! The kernel allows a process `vm.max_map_count` mappings. At that limit nothing works any more,
//! not even starting a thread (fact K-18), so views stop long before it.
//!
//! ```text
//! 0            budget = max / 4                                     vm.max_map_count
//! | views .... |  heap, threads, libraries, the rest of the program |
//! ```
//!
//! # Invariants
//!
//! 1. `used` counts what was taken and not given back. It exceeds `max` only by what could not be
//!    refused.
//!
//! # Failure
//!
//! [`VmaBudget::try_take`] takes all or nothing and never waits.

use std::sync::{Arc, OnceLock};

use super::sys::limits;
use crate::sync::atomic::Ordering;
use crate::sync::process::AtomicU64;

/// `vm.max_map_count` where the kernel does not tell: its value since Linux 2.4.
const MAPPINGS_MAX_DEFAULT: u64 = 65_530;

/// The part of `vm.max_map_count` that views may use; the rest is the program's.
const SHARE: u64 = 4;

/// Kernel mappings that views may use together; shared by all mappings of a process.
#[derive(Debug)]
pub struct VmaBudget {
    max: u64,
    // Invariant 1. A counter and nothing else hangs on it, so relaxed ordering is enough.
    used: AtomicU64,
}

impl VmaBudget {
    /// A budget of `max` mappings.
    #[must_use]
    pub const fn with_max(max: u64) -> Self {
        Self { max, used: AtomicU64::new(0) }
    }

    /// A quarter of what the kernel allows one process now.
    #[must_use]
    pub fn from_system() -> Self {
        Self::with_max(limits::mappings_max().unwrap_or(MAPPINGS_MAX_DEFAULT) / SHARE)
    }

    /// The budget of this process, read from the kernel at the first call.
    pub fn process() -> &'static Arc<Self> {
        static PROCESS: OnceLock<Arc<VmaBudget>> = OnceLock::new();
        PROCESS.get_or_init(|| Arc::new(Self::from_system()))
    }

    /// Takes `count` mappings, or none and returns false if fewer are left.
    #[must_use]
    pub fn try_take(&self, count: u64) -> bool {
        let take = |used: u64| used.checked_add(count).filter(|&sum| sum <= self.max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Takes `count` mappings even if fewer are left: for what cannot be refused.
    pub fn take_beyond(&self, count: u64) {
        self.used.fetch_add(count, Ordering::Relaxed);
    }

    /// Gives back `count` mappings that were taken.
    ///
    /// # Panics
    ///
    /// If more is given back than was taken.
    pub fn give(&self, count: u64) {
        let before = self.used.fetch_sub(count, Ordering::Relaxed);
        assert!(before >= count, "more mappings given back than taken");
    }

    /// Mappings in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Mappings that may be in use.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_given_in_full_or_not_at_all() {
        let budget = VmaBudget::with_max(10);
        assert!(budget.try_take(7));
        assert!(!budget.try_take(4));
        assert!(!budget.try_take(u64::MAX));
        assert_eq!(budget.used(), 7);
        assert!(budget.try_take(3));
        budget.give(10);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn budget_of_the_process_is_one_quarter_of_what_the_kernel_allows() {
        let allowed = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
        let allowed: u64 = allowed.trim().parse().unwrap();
        assert_eq!(VmaBudget::from_system().max(), allowed / 4);
        assert!(Arc::ptr_eq(VmaBudget::process(), VmaBudget::process()));
    }

    #[test]
    #[should_panic(expected = "more mappings given back than taken")]
    fn giving_back_what_was_not_taken_is_a_bug() {
        VmaBudget::with_max(10).give(1);
    }
}
