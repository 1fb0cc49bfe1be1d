//! What a program was told while it changed a disk, and hence what a crash may leave.
//!
//! ```text
//! changes   0 ........ 40 ......... 47 ............ 60
//!           no store   | commit 1   | commit 2 ...  |
//! found     none or 0  | 0 or 1     | 1 or 2        | 2
//! ```

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::version::Version;

/// What may be found after a crash.
#[derive(Clone)]
pub(crate) struct Phase {
    /// Whether the store must be there: its creation was acknowledged.
    pub(crate) exists: bool,
    /// By commit; the last one may have been issued only.
    pub(crate) versions: Arc<[Arc<Version>]>,
    /// The newest commit that was acknowledged.
    pub(crate) acknowledged: usize,
    /// The oldest commit that can be read.
    pub(crate) oldest: RangeInclusive<usize>,
    /// Whether space may be held that no commit names: other processes looked at it.
    pub(crate) held: bool,
    /// Most records that may have waited for one sync: none of them knows another to be durable.
    pub(crate) group: u64,
}

/// The phases of a run, each with the number of changes it begins at.
#[derive(Clone, Default)]
pub(crate) struct Story(Vec<(usize, Phase)>);

impl Story {
    /// From `changes` changes on, `phase` holds.
    pub(crate) fn note(&mut self, changes: usize, phase: Phase) {
        // What was to begin with a change that was not made has not begun.
        while self.0.last().is_some_and(|(from, _)| *from >= changes) {
            self.0.pop();
        }
        self.0.push((changes, phase));
    }

    /// What may be found if `changes` changes were made.
    pub(crate) fn at(&self, changes: usize) -> &Phase {
        let after = self.0.partition_point(|(from, _)| *from <= changes);
        &self.0[after - 1].1
    }
}
