//! Bugs that can be planted in lazy pages, to see that `tests/concurrency` finds them. None of them
//! is in a normal build: without the feature `planted-bugs` the question is the constant `false`.
//!
//! # Invariants
//!
//! 1. At most one bug is planted at a time, and on one thread only: other tests see nothing of it.
//!    All threads of a schedule that is chosen are one such thread.

/// A rule of lazy pages that is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A load that was begun before its chunk was placed anew is shown.
    OvertakenShown,
    /// Who touches a page that another thread has just shown is not woken.
    WakeForgotten,
    /// Who waits for the load of another thread is not told that it ended.
    EndUntold,
    /// What is shown is given up while it is mapped.
    UnpinnedEarly,
    /// What is put aside stays pinned.
    NeverUnpinned,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::OvertakenShown,
        Self::WakeForgotten,
        Self::EndUntold,
        Self::UnpinnedEarly,
        Self::NeverUnpinned,
    ];
}

/// Whether `bug` is planted.
#[cfg(not(any(test, feature = "planted-bugs")))]
#[inline(always)]
pub(super) const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(not(any(test, feature = "planted-bugs")))]
const _: () = assert!(!planted(Bug::OvertakenShown), "decided by the compiler");

#[cfg(any(test, feature = "planted-bugs"))]
pub use switch::plant;
#[cfg(any(test, feature = "planted-bugs"))]
pub(super) use switch::planted;

#[cfg(any(test, feature = "planted-bugs"))]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether `bug` is planted.
    pub(in crate::vm) fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Plants one bug on this thread and takes out the one before it.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }
}
