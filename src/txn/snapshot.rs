//! Which states of the store somebody still looks at.
//!
//! A pinned state keeps its extents: `pack` gives no space back that it names.
//!
//! # Invariants
//!
//! 1. While a [`Pin`] lives, its state is in the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::storage::engine::Engine;
use crate::storage::state::State;
use crate::sync::Mutex;
use crate::units::Tid;

struct Entry {
    tid: Tid,
    generation: u64,
    // `None` until it is loaded.
    state: Option<Arc<State>>,
    writes: bool,
}

#[derive(Default)]
struct Table {
    next: u64,
    pinned: BTreeMap<u64, Entry>,
}

/// All pinned states of one open store. The engine knows the oldest, for other processes.
#[derive(Clone)]
pub(super) struct Pins {
    table: Arc<Mutex<Table>>,
    engine: Arc<dyn Engine>,
}

impl Pins {
    /// No pins yet.
    pub(super) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { table: Arc::default(), engine }
    }

    /// Pins `state`, which was loaded in `generation`; `writes` says whether a transaction on it
    /// may commit.
    pub(super) fn pin(&self, state: Arc<State>, generation: u64, writes: bool) -> Pin {
        let tid = state.tid;
        let hold = self.insert(Entry { tid, generation, state: Some(Arc::clone(&state)), writes });
        Pin { hold, state }
    }

    /// Keeps what commit `tid` needs, before its state is loaded.
    pub(super) fn hold(&self, tid: Tid, generation: u64) -> Hold {
        self.insert(Entry { tid, generation, state: None, writes: false })
    }

    fn insert(&self, entry: Entry) -> Hold {
        let (tid, generation) = (entry.tid, entry.generation);
        let mut table = self.table.lock();
        let key = table.next;
        table.next += 1;
        table.pinned.insert(key, entry);
        self.publish(&table);
        Hold { pins: self.clone(), key, tid, generation }
    }

    fn publish(&self, table: &Table) {
        let tids = table.pinned.values().map(|entry| entry.tid);
        let looked_at = tids.clone().min().zip(tids.max()).map(|(oldest, newest)| oldest..=newest);
        let generations = table.pinned.values().map(|entry| entry.generation);
        let generation = generations.chain([self.engine.generation()]).min().unwrap_or(0);
        self.engine.pin(looked_at, generation);
    }

    /// The pinned states.
    pub(super) fn states(&self) -> Vec<Arc<State>> {
        self.table.lock().pinned.values().filter_map(|entry| entry.state.clone()).collect()
    }

    /// The oldest commit that a transaction which may commit is based on.
    pub(super) fn oldest_writer(&self) -> Option<Tid> {
        let table = self.table.lock();
        table.pinned.values().filter(|entry| entry.writes).map(|entry| entry.tid).min()
    }
}

/// Keeps what one commit needs.
pub(super) struct Hold {
    pins: Pins,
    key: u64,
    tid: Tid,
    generation: u64,
}

impl Hold {
    /// The commit.
    pub(super) fn tid(&self) -> Tid {
        self.tid
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut table = self.pins.table.lock();
        table.pinned.remove(&self.key);
        self.pins.publish(&table);
    }
}

/// Keeps one state.
pub(super) struct Pin {
    hold: Hold,
    state: Arc<State>,
}

impl Pin {
    /// The state.
    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The generation of log files in which it was loaded.
    pub(super) fn generation(&self) -> u64 {
        self.hold.generation
    }
}
