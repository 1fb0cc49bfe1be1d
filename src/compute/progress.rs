//! How far a run is, for whoever looks while it goes on.
//!
//! The run only counts; who shows a bar asks as often as it likes, from a thread of its own.

use std::sync::Arc;

use crate::sync::process::{AtomicU64, Ordering};

/// Counters of one run. Clones are one and the same.
#[derive(Clone, Default, Debug)]
pub struct Progress(Arc<Counters>);

/// How far a run was at one moment.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Moment {
    /// Tasks that will run; 0 before the run began.
    pub tasks: u64,
    /// Tasks that have run.
    pub tasks_done: u64,
    /// Bytes that tasks said they read, of those that have run.
    pub bytes_read: u64,
    /// Bytes that all tasks together will read.
    pub bytes_to_read: u64,
    /// Bytes of results in memory.
    pub live_bytes: u64,
    /// Bytes that may be in memory; [`u64::MAX`] without a budget.
    pub budget_bytes: u64,
    /// Bytes on the disk because they do not fit.
    pub spilled_bytes: u64,
}

#[derive(Default, Debug)]
pub(super) struct Counters {
    pub(super) tasks: AtomicU64,
    pub(super) tasks_done: AtomicU64,
    pub(super) bytes_read: AtomicU64,
    pub(super) bytes_to_read: AtomicU64,
    pub(super) live_bytes: AtomicU64,
    pub(super) budget_bytes: AtomicU64,
    pub(super) spilled_bytes: AtomicU64,
}

impl Progress {
    /// How far the run is. Each number is right for itself; two may be of different moments.
    #[must_use]
    pub fn now(&self) -> Moment {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Moment {
            tasks: of(&self.0.tasks),
            tasks_done: of(&self.0.tasks_done),
            bytes_read: of(&self.0.bytes_read),
            bytes_to_read: of(&self.0.bytes_to_read),
            live_bytes: of(&self.0.live_bytes),
            budget_bytes: of(&self.0.budget_bytes),
            spilled_bytes: of(&self.0.spilled_bytes),
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.0
    }
}
