//! A scheduler that lets one thread run and takes its turn away once, at every point where it can.
//!
//! ```text
//! schedule n   one thread: step 1 2 3 ... n |               | what is left of it
//!              the other:                   | all of it ... |
//! ```
//!
//! Dice hardly ever stop a thread between two given steps and let the other do hundreds. What two
//! threads tell each other by writing one word and reading another goes wrong in just such orders.
//!
//! # Invariants
//!
//! 1. Each point at which another thread could go on is tried, for each thread that begins.

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

/// See the file header.
pub(crate) struct EverySwitch {
    // Whether the thread that was started last begins.
    last_begins: bool,
    // The step at which the turn is taken away; counted are those with a choice.
    at: usize,
    step: usize,
    stopped: Option<TaskId>,
}

impl EverySwitch {
    /// `last_begins` says which of the threads begins.
    pub(crate) fn new(last_begins: bool) -> Self {
        Self { last_begins, at: 0, step: 0, stopped: None }
    }
}

impl Scheduler for EverySwitch {
    fn new_execution(&mut self) -> Option<Schedule> {
        // The last schedule was over before its point: all were tried.
        if self.at > 0 && self.stopped.is_none() {
            return None;
        }
        self.at += 1;
        (self.step, self.stopped) = (0, None);
        Some(Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let mut able: Vec<TaskId> = runnable.iter().map(|task| task.id()).collect();
        able.sort_unstable();
        if self.last_begins {
            able.reverse();
        }
        let current = current.filter(|current| able.contains(current));
        if able.len() > 1 {
            self.step += 1;
            if self.step == self.at {
                self.stopped = current.or(able.first().copied());
            }
        }
        let others = able.iter().filter(|&&task| Some(task) != self.stopped);
        let mut willing = others.filter(|&&task| !(is_yielding && Some(task) == current));
        let goes_on = current.filter(|_| !is_yielding && current != self.stopped);
        goes_on
            .or(willing.next().copied())
            .or_else(|| able.iter().copied().find(|&task| !(is_yielding && Some(task) == current)))
            .or(able.first().copied())
    }

    fn next_u64(&mut self) -> u64 {
        0
    }
}
