//! Bugs that can be planted in scheduler and pool, to see that their checks find them. None of them
//! is in a normal build: without the feature `planted-bugs` the question is the constant `false`.
//!
//! # Invariants
//!
//! 1. At most one bug is planted at a time, and on one thread only: other tests see nothing of it.
//!    All threads of a schedule that is chosen are one such thread.

/// A rule of scheduler or pool that is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A result is dropped before the last step that needs it.
    ReleasedEarly,
    /// A result is kept when nobody needs it any more.
    NeverReleased,
    /// The budget is exceeded by one byte.
    BudgetByOne,
    /// A result that runs early may take the room of steps before it.
    RoomIgnored,
    /// A step runs without its result being counted as memory.
    ResultUncounted,
    /// A step that began may begin again.
    RunTwice,
    /// A step begins when one of its inputs is still missing.
    InputMissing,
    /// A step begins although an input lies on the disk only.
    NotRestored,
    /// What lies on the disk already is written again.
    SpilledTwice,
    /// What lies on the disk is kept there when nobody needs it any more.
    DiskKept,
    /// A result that somebody uses is spilled.
    PinnedSpilled,
    /// A result that the disk refused is taken to be there.
    RefusalMissed,
    /// Bytes from the disk are not compared with their checksum.
    SpilledUnchecked,
    /// An output is handed over twice.
    OutputTwice,
    /// An output is not handed over.
    OutputLost,
    /// The tasks of a chain run in another order.
    ChainReordered,
    /// Tasks run after a cancel.
    CancelIgnored,
    /// Tasks run after another one failed.
    FailureIgnored,
    /// Who could go on is not woken.
    WakeMissed,
    /// Who takes the outputs is not woken.
    DeliveryMissed,
}

impl Bug {
    /// Those that the model of the scheduler must find.
    #[cfg(test)]
    pub(super) const OF_SCHEDULER: [Self; 12] = [
        Self::ReleasedEarly,
        Self::NeverReleased,
        Self::BudgetByOne,
        Self::RoomIgnored,
        Self::ResultUncounted,
        Self::RunTwice,
        Self::InputMissing,
        Self::NotRestored,
        Self::SpilledTwice,
        Self::DiskKept,
        Self::PinnedSpilled,
        Self::RefusalMissed,
    ];

    /// Those that the checks of whole runs must find.
    #[cfg(test)]
    pub(super) const OF_RUN: [Self; 6] = [
        Self::SpilledUnchecked,
        Self::OutputTwice,
        Self::OutputLost,
        Self::ChainReordered,
        Self::CancelIgnored,
        Self::FailureIgnored,
    ];
}

/// Whether `bug` is planted.
#[cfg(not(any(test, feature = "planted-bugs")))]
#[inline(always)]
pub(super) const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(not(any(test, feature = "planted-bugs")))]
const _: () = assert!(!planted(Bug::ReleasedEarly), "decided by the compiler");

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
    pub(in crate::compute) fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Plants one bug on this thread and takes out the one before it.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }
}
