//! What the processes of a run were told, and what each knows of the store.
//!
//! # Invariants
//!
//! 1. `versions[tid]` is what commit `tid` must hold. A record that may be there or not, because
//!    who appends it is at it or was killed, is the `candidate` for the next one.
//! 2. What a process was told, or saw as the newest commit, is acknowledged: no crash takes it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use zbigarray::storage::engine::{CommitLog, Company, Engine};
use zbigarray::storage::local::LocalEngine;
use zbigarray::storage::record::Record;
use zbigarray::storage::state::State;
use zbigarray::units::Tid;

use crate::dice::Dice;
use crate::process::Process;
use crate::program::Events;
use crate::story::{Phase, Story};
use crate::version::Version;

/// What is known of the store, apart from the store.
pub(crate) struct Told {
    pub(crate) dice: Dice,
    pub(crate) story: Story,
    pub(crate) events: Events,
    pub(crate) versions: Vec<Arc<Version>>,
    pub(crate) candidate: Option<Arc<Version>>,
    pub(crate) acknowledged: usize,
    pub(crate) oldest: RangeInclusive<usize>,
    // Whether space may be held that no commit names.
    pub(crate) held: bool,
    pub(crate) failure: Option<String>,
}

impl Told {
    pub(crate) fn phase(&self) -> Phase {
        Phase {
            exists: true,
            versions: self.versions.iter().chain(&self.candidate).cloned().collect(),
            acknowledged: self.acknowledged,
            oldest: self.oldest.clone(),
            held: self.held,
            group: u64::MAX,
        }
    }

    pub(crate) fn count(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }

    /// Commit `tid` is in the log.
    pub(crate) fn appended(&mut self, tid: usize) -> Result<(), String> {
        if tid == self.versions.len() {
            self.versions.extend(self.candidate.take());
        }
        match tid < self.versions.len() {
            true => Ok(()),
            false => Err(format!("commit {tid} of {} is there", self.versions.len() - 1)),
        }
    }
}

/// A state, and the generation of log files in which it was loaded.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) state: State,
    pub(crate) generation: u64,
}

impl Known {
    /// Moves on to commit `tid` as the layers above do; `false` if the process is dead.
    pub(crate) fn move_on(
        &mut self,
        tid: Tid,
        process: &Process,
        engine: &LocalEngine,
    ) -> Result<bool, String> {
        while self.state.tid < tid || self.generation != engine.generation() {
            let now = engine.generation();
            let tid = tid.max(self.state.tid);
            let state = match now == self.generation {
                true => engine.records(self.state.tid, tid).and_then(|records| {
                    let next = |state: State, record: &Arc<Record>| state.apply(record);
                    records.iter().try_fold(self.state.clone(), next)
                }),
                false => engine.load(tid),
            };
            if process.is_dead() {
                return Ok(false);
            }
            if now == engine.generation() {
                let failed = |error| format!("moving on to commit {tid}: {error}");
                *self = Self { state: state.map_err(failed)?, generation: now };
            }
        }
        Ok(true)
    }
}

pub(crate) fn index_of(tid: Tid) -> usize {
    usize::try_from(tid.0).unwrap()
}
